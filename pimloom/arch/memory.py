"""A memory as requests see it: a DRAM, how addresses spread over it, and the controller before it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from pimloom.arch.base import Count, Description, Int, Strict, raise_located
from pimloom.arch.document import Document, Override, is_reference, load, locate, read, shipped, validate
from pimloom.arch.dram import Array, Dram
from pimloom.arch.expression import evaluate
from pimloom.arch.reference import form_of, memory_tree
from pimloom.arch.tree import Findings, InputError, Keys, did_you_mean, read_file

Share = Annotated[float, Field(ge=0, le=1)]
COORDINATES = ("pseudochannel", "rank", "stack_id", "bankgroup", "bank", "row", "column")
Coordinate = Literal["pseudochannel", "rank", "stack_id", "bankgroup", "bank", "row", "column"]


class Part(Strict):
    """The next digits of an address: all of a coordinate, or so many values of it, the lowest first."""

    coordinate: Coordinate
    count: Count | None = None


class Hash(Strict):
    """The low bits of one coordinate are XORed into another, such as those of the row into the bank."""

    into: Coordinate
    of: Coordinate


def _part(value: Any) -> Any:
    """A part from a name or from [name, count]."""
    if isinstance(value, str):
        return {"coordinate": value}
    if isinstance(value, list) and len(value) == 2:  # noqa: PLR2004
        return {"coordinate": value[0], "count": value[1]}
    return value


def _hash(value: Any) -> Any:
    """A hash from [into, of]."""
    return dict(zip(("into", "of"), value, strict=False)) if isinstance(value, list) else value


class AddressMapping(Strict):
    """Where an address lies: after the byte within an access come the parts, the lowest first."""

    lsb_first: list[Annotated[Part, BeforeValidator(_part)]] = Field(min_length=1, max_length=64)
    xor: list[Annotated[Hash, BeforeValidator(_hash)]] = Field(default=[], max_length=16)


class Controller(Strict):
    """The controller of one channel, by its policies.

    fr_fcfs: the oldest request whose next command may issue now goes first, from one queue of reads or one of
    writes; row_hit: the same, but no row is closed that an older request wants. round_robin: requests move from
    the queues into short command queues, which take turns.
    """

    scheduler: Literal["fr_fcfs", "fr_fcfs_row_hit", "round_robin"]
    page: Annotated[
        Literal["open", "closed"], Field(description="closed: every access closes its row by auto-precharge")
    ]
    read_queue: Annotated[Count, Field(le=1024)]
    write_queue: Annotated[Count, Field(le=1024)]
    write_high: Share | None = Field(None, description="fr_fcfs: fuller than this, the writes take over")
    write_low: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="fr_fcfs: emptier than this, they give way to reads"
    )
    unified: bool | None = Field(None, description="round_robin: reads and writes wait in one queue")
    queue_per: Literal["bank", "rank"] | None = Field(None, description="round_robin: one command queue per")
    command_queue: Annotated[Count, Field(le=64)] | None = Field(
        None, description="round_robin: entries of a command queue"
    )
    row_hit_cap: Count | None = Field(
        None, description="round_robin: accesses after which a row may be closed before its hits"
    )
    drain_above: Annotated[Int, Field(ge=0, le=1024)] | None = Field(
        None, description="round_robin: writes beyond these are drained when nothing else is to be done"
    )
    tail: Annotated[Int, Field(ge=0, le=2**30)] | None = Field(
        None, description="round_robin: clocks simulated after the last request"
    )


MOST_CLOCKS = 2**20
"""That a command may take, or keep another one waiting; refreshes, the longest ones, take some thousand."""
OF_FR_FCFS = ("write_high", "write_low")
OF_ROUND_ROBIN = ("unified", "queue_per", "command_queue", "row_hit_cap", "drain_above", "tail")


class Decoder(NamedTuple):
    """An address mapping as integers; P parts, X hashes. Coordinates are numbered as `COORDINATES`."""

    parts: Array  # i8[P, 3]   coordinate, values of this part, weight of its digit within the coordinate
    hashes: Array  # i8[X, 3]   coordinate changed, coordinate read, mask of the bits
    bank_weight: Array  # i8[5]      of pseudo-channel, rank, stack ID, bank group and bank in the flat bank
    access_B: int


class Memory(Description):
    """One channel of a DRAM with its controller, as the YAML says it."""

    kind: Literal["memory"]
    dram: Dram
    address_mapping: AddressMapping
    controller: Controller

    @property
    def capacity_B(self) -> int:
        """Bytes of the one channel that requests go to."""
        return self.dram.channel_capacity_B

    @property
    def peak_Bps(self) -> float:
        """Bytes per second over the pins of one channel, if they never rest."""
        return self.dram.access_B * self.dram.pseudochannels * self.dram.clock_Hz / self.dram.nBL

    @property
    def sizes(self) -> dict[str, int]:
        """Values that each coordinate takes."""
        d = self.dram
        return dict(zip(COORDINATES, (*d.counts[1:], d.rows, d.columns), strict=True))

    def decoder(self) -> Decoder:
        """The address mapping as integers."""
        sizes = self.sizes
        weight: dict[str, int] = dict.fromkeys(COORDINATES, 1)
        parts = []
        for part in self.address_mapping.lsb_first:
            name = part.coordinate
            count = part.count or sizes[name] // weight[name]
            parts.append((COORDINATES.index(name), count, weight[name]))
            weight[name] *= count
        hashes = [
            (COORDINATES.index(x.into), COORDINATES.index(x.of), sizes[x.into] - 1)
            for x in self.address_mapping.xor
        ]
        below = self.dram.counts[1:]
        return Decoder(
            np.array(parts, np.int64),
            np.array(hashes, np.int64).reshape(-1, 3),
            np.array([prod(below[i + 1 :]) for i in range(len(below))], np.int64),
            self.dram.access_B,
        )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        raise_located("Memory", [*self._mapping(), *self._policies(), *self._commands()])
        return self

    def _mapping(self) -> Iterator[tuple[Keys, str]]:
        path = ("address_mapping", "lsb_first")
        sizes = self.sizes
        left = dict(sizes)
        for i, part in enumerate(self.address_mapping.lsb_first):
            name: str = part.coordinate
            count = part.count or left[name]
            if part.count is None and left[name] == 1 and sizes[name] > 1:
                yield (*path, i), f"the coordinate {name!r} is complete without this"
                return
            if left[name] % count:
                yield (*path, i), f"{count} values, but {left[name]} are left of the coordinate {name!r}"
                return
            left[name] //= count
        for name, missing in left.items():
            if missing > 1:
                yield path, f"{name!r} has {sizes[name]} values, but its parts make {sizes[name] // missing}"
        for i, x in enumerate(self.address_mapping.xor):
            if sizes[x.into] & (sizes[x.into] - 1) or x.into == x.of:
                yield (
                    ("address_mapping", "xor", i),
                    f"{x.into!r} cannot be hashed: it has {sizes[x.into]} values, not a power of two"
                    if x.into != x.of
                    else f"{x.into!r} cannot be hashed by itself",
                )

    def _policies(self) -> Iterator[tuple[Keys, str]]:
        controller = self.controller
        robin = controller.scheduler == "round_robin"
        for names, wanted in ((OF_ROUND_ROBIN, robin), (OF_FR_FCFS, not robin)):
            for name in names:
                if (getattr(controller, name) is not None) != wanted:
                    text = "needs this" if wanted else "has no such policy"
                    yield ("controller", name), f"the scheduler {controller.scheduler!r} {text}"
        low, high = controller.write_low, controller.write_high
        if low is not None and high is not None and low > high:
            yield ("controller", "write_low"), f"{low} is above write_high = {high}"
        if robin and controller.read_queue != controller.write_queue:
            yield (
                ("controller", "write_queue"),
                f"{controller.write_queue}, but the scheduler 'round_robin' has queues of one size, and read_queue is "
                f"{controller.read_queue}",
            )

    def _commands(self) -> Iterator[tuple[Keys, str]]:
        dram = self.dram
        robin = self.controller.scheduler == "round_robin"
        policy, scope = dram.refresh.policy, dram.refresh_level or "bank"
        together = ("activate_first", "activate_second", "sync_read", "sync_write")
        split = any(dram.find(meaning, "bank") for meaning in together)
        wanted = ["precharge", *(together if split else ("activate",))]
        for meaning in wanted:
            if dram.find(meaning, "bank") is None:
                yield ("dram", "commands"), f"no command of the meaning {meaning!r} addresses a bank"
        symbols = dram.symbols({})
        times = [(("commands", n, "duration"), c.duration) for n, c in dram.commands.items()]
        times += [(("constraints", n, "minimum"), r.minimum) for n, r in dram.constraints.items()]
        for path, text in times:
            clocks = evaluate(text, symbols)
            if clocks > MOST_CLOCKS:
                yield (
                    ("dram", *path),
                    f"{text!r} is {clocks} clocks; a controller waits {MOST_CLOCKS} at most",
                )
        for meaning in ("read", "write"):
            if self.access(meaning) is None:
                page = self.controller.page
                which = "closes its bank" if page == "closed" else "leaves its bank open"
                yield ("dram", "commands"), f"the page policy {page!r} needs a {meaning} command that {which}"
        if policy == "all_bank" and not robin and dram.find("precharge", scope) is None:
            yield (
                ("dram", "commands"),
                f"no command of the meaning 'precharge' addresses a {scope}, as 'all_bank' needs here",
            )
        if policy == "all_bank" and robin and dram.nodes(scope) != dram.nodes("rank"):
            yield (
                ("controller", "scheduler"),
                f"'round_robin' refreshes rank by rank, but this refresh addresses a {scope}",
            )
        if robin and (split or policy.startswith("per_bank") or dram.command_bus == "half_clock"):
            yield (
                ("controller", "scheduler"),
                "'round_robin' knows neither split activates, nor per-bank refresh, nor half clocks",
            )
        if split and dram.command_bus != "shared":
            yield ("dram", "command_bus"), f"{dram.command_bus!r} does not go with split activates"

    def access(self, meaning: str) -> str | None:
        """Name of the read or write command that the page policy takes, or None."""
        effect = "close" if self.controller.page == "closed" else "none"
        commands = self.dram.commands.items()
        return next((n for n, c in commands if (c.meaning, c.bank) == (meaning, effect)), None)


def load_memory(
    name_or_path: str, overrides: Sequence[str | Override] = (), controller: str | None = None
) -> tuple[Memory, Document]:
    """The memory of a shipped name or a file, which may be a configuration of the DRAM reference data.

    A DRAM standard is taken behind the controller, and with the address mapping, of a shipped memory (None =
    ramulator2). Raises InputError with everything that is wrong with it.
    """
    path = _find(name_or_path)
    findings = Findings()
    root = read_file(path, findings)
    assert isinstance(root.value, dict)
    is_dram = "kind" in root.value and root.value["kind"].value == "dram"
    if controller is not None and not is_dram:
        raise InputError(
            f"{name_or_path}: is a memory, which has its own controller; {controller!r} is for a DRAM"
        )
    if is_reference(root):
        config, _ = validate(form_of(root), "memory", root, (), findings)
        return validate(Memory, "memory", memory_tree(root, config), overrides)
    if is_dram:
        dram = read(Dram, "dram", name_or_path)
        around = read(Memory, "memory", "ramulator2" if controller is None else controller)
        assert isinstance(around.value, dict) and isinstance(dram.value, dict)
        merged = {"dram": dram, "name": dram.value.get("name", dram)}
        return validate(Memory, "memory", replace(around, value=around.value | merged), overrides)
    return load(Memory, "memory", name_or_path, overrides)


def _find(name_or_path: str) -> Path:
    """The file of a shipped memory or standard, or of a path."""
    standards = shipped("dram")
    if name_or_path in standards:
        return locate("dram", name_or_path)
    try:
        return locate("memory", name_or_path)
    except InputError:
        if name_or_path.isidentifier():
            names = [*standards, *shipped("memory")]
            raise InputError(
                f"no memory {name_or_path!r} is shipped{did_you_mean(name_or_path, names)}; there are: "
                f"{', '.join(names)}; a file is named by its path, such as ./my.yaml"
            ) from None
        raise
