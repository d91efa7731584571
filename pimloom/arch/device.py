"""A PIM device: a DRAM with computing commands, its processing units, and how its controller issues."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pimloom.arch.base import Count, Description, Int, Strict, raise_located
from pimloom.arch.document import Document, Override, load
from pimloom.arch.dram import Dram
from pimloom.arch.tree import Keys, did_you_mean

NotNegative = Annotated[float, Field(ge=0, le=1e12)]
MAX_CHANNELS = 64
"""Channels that one stream of instructions can address: the bits of a mask."""


class Unit(Strict):
    """One processing unit and what it holds; how many there are follows from the banks."""

    banks_per_unit: Annotated[Count, Field(description="banks that share one unit")]
    lanes: Annotated[Count, Field(le=4096, description="multipliers of one unit")]
    element_B: Annotated[Int, Field(ge=1, le=8)]
    arithmetic: Annotated[Literal["bf16", "fp16", "int8"], Field(description="of operands in the banks")]
    buffer_accesses: Annotated[
        Count, Field(description="accesses of the memory that the input buffer of one scope holds")
    ]
    buffer_scope: Annotated[
        Literal["channel", "pseudochannel", "rank", "bankgroup", "bank", "unit"],
        Field(description="who shares an input buffer"),
    ]
    result_registers: Annotated[Count, Field(description="results that one unit can keep")]
    datapath: Annotated[
        Literal["dot", "lanes", "mixed"],
        Field(
            description="what a unit makes of its products: dot, one sum; lanes, a sum each, in registers of as many "
            "values; mixed, either, as the instruction says"
        ),
    ] = "dot"


class Modes(Strict):
    """A channel is in one of two modes and switches by a command that is issued in place of the one that waits."""

    switch: Annotated[str, Field(description="command that switches")]
    other: Annotated[
        list[str], Field(min_length=1, description="commands of the second mode; all others are of the first")
    ]


class Reordering(Strict):
    """Plain reads and writes of a bank wait in two queues and go first-ready-first-come.

    Other requests keep their order. A channel takes none of one kind while requests of the other wait. Where a row has
    been opened for a request, that is served before all others.
    """

    read_queue: Annotated[Count, Field(le=64)]
    write_queue: Annotated[Count, Field(le=64)]
    drain_from: Annotated[Count, Field(description="waiting writes from which on they go before reads")]
    drain_to: Annotated[Count, Field(description="waiting writes at which reads go again")]


class Controller(Strict):
    """How instructions become commands.

    order: in_order, the oldest request only; window, the oldest that can issue, rows prepared across barriers
    front_end: instructions, one a clock, each expanded over columns and channels; requests, as many as fit
    """

    order: Literal["in_order", "window"]
    front_end: Literal["instructions", "requests"]
    queue: Annotated[Count, Field(le=1024, description="requests that a channel's buffer holds")]
    blocking: Annotated[
        list[str], Field(description="commands for whose end in all channels the next instruction waits")
    ] = []
    alone: Annotated[
        list[str],
        Field(
            description="window: commands beside which no other one issues; beside a row command a column command may"
        ),
    ] = []
    modes: Modes | None = None
    reordering: Annotated[
        Reordering | None, Field(description="of plain reads and writes; null = they keep their order, too")
    ] = None


class Energies(Strict):
    """Energy of one channel. Expressions may name timings; null = not known."""

    command_pJ: Annotated[
        dict[str, NotNegative | None],
        Field(description="per command issued; a command left out is not known"),
    ] = {}
    active_W: Annotated[NotNegative | None, Field(description="while a bank is open")] = None
    idle_W: Annotated[NotNegative | None, Field(description="while no bank is open")] = None


class Device(Description):
    """One PIM device, as its YAML says it."""

    kind: Literal["device"]
    lowering: Annotated[str, Field(description="module of pimloom.mapping.devices that makes its programs")]
    dram: Dram
    unit: Unit
    controller: Controller
    ordinary: Annotated[
        str | None,
        Field(
            description="shipped DRAM whose rules the host's ordinary accesses follow; null = the device's own"
        ),
    ] = None
    energy: Energies = Energies()
    options: Annotated[
        dict[str, Annotated[Int, Field(ge=0, le=2**31)]],
        Field(description="numbers that its lowering reads, such as how many results a group has"),
    ] = {}

    @property
    def elements_per_access(self) -> int:
        """Elements in one column access of one bank."""
        return self.dram.access_B // self.unit.element_B

    @property
    def units(self) -> int:
        """Processing units of one channel."""
        return self.dram.banks // self.unit.banks_per_unit

    @model_validator(mode="after")
    def _physical(self) -> Self:
        raise_located("Device", [*self._findings()])
        return self

    def _findings(self) -> Iterator[tuple[Keys, str]]:
        dram, unit = self.dram, self.unit
        if dram.channels > MAX_CHANNELS:
            yield ("dram", "channels"), f"{dram.channels}, but a stream addresses at most {MAX_CHANNELS}"
        if dram.banks % unit.banks_per_unit:
            yield ("unit", "banks_per_unit"), f"{unit.banks_per_unit} do not divide {dram.banks} banks"
        if dram.access_B % unit.element_B:
            yield ("unit", "element_B"), f"{unit.element_B} B do not divide an access of {dram.access_B} B"
        named: list[tuple[Keys, str]] = [
            *((("controller", "blocking", i), name) for i, name in enumerate(self.controller.blocking)),
            *((("controller", "alone", i), name) for i, name in enumerate(self.controller.alone)),
            *((("energy", "command_pJ", name), name) for name in self.energy.command_pJ),
        ]
        if modes := self.controller.modes:
            named.append((("controller", "modes", "switch"), modes.switch))
            named += ((("controller", "modes", "other", i), name) for i, name in enumerate(modes.other))
        for path, name in named:
            if name not in dram.commands:
                yield path, f"unknown command {name!r}{did_you_mean(name, dram.command_names)}"


def load_device(name_or_path: str, overrides: Sequence[str | Override] = ()) -> tuple[Device, Document]:
    """The device of a shipped name or a file.

    Raises InputError with everything that is wrong with it.
    """
    return load(Device, "device", name_or_path, overrides)
