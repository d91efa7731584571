"""What a plan consists of: tasks on units, in blocks that repeat once a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pimloom.traces.program import Program

Maps = list[npt.NDArray[np.int64]]
"""Per channel i8[bursts, values]: position in a register of every value moved, -1 = none."""


class Traffic(NamedTuple):
    """Values that cross the interface of a task: sent in all copies, sent counted once, received."""

    sent: int = 0
    sent_once: int = 0
    received: int = 0


class Ref(NamedTuple):
    """Part of a register: its name, first value, one past the last value."""

    register: str
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class PimTask:
    """One program a channel (None = idle), the same base addresses in all.

    feed: maps of the values written (WR_GB: -1 = zero; WR: -1 = masked) from register `source`
    drain: maps of the values read (RD_MAC: one value a bank; RD: one a lane) into register `sink`
    order: stored tensors whose contents it needs; stores: those that it changes
    region: the stored tensor it works on, by the name under which the site keeps it
    """

    name: str
    group: str
    programs: tuple[Program | None, ...]
    base_row: int
    base_bank: int = 0
    source: str = ""
    sink: str = ""
    sink_size: int = 0
    feed: Callable[[], Maps] | None = None
    drain: Callable[[], Maps] | None = None
    traffic: Traffic = Traffic()
    order: tuple[str, ...] = ()
    stores: tuple[str, ...] = ()
    region: str = ""

    def __post_init__(self) -> None:
        if not any(self.programs):
            raise ValueError(f"{self.name}: a PIM task without a program")

    @property
    def reads(self) -> tuple[str, ...]:
        """Names that must be ready before."""
        return ((self.source,) if self.source else ()) + self.order

    @property
    def writes(self) -> tuple[str, ...]:
        """Names that are new after."""
        return ((self.sink,) if self.sink else ()) + self.stores


@dataclass(frozen=True, eq=False)
class AsicTask:
    """One function of the ASIC's vector units over `count` groups of `size` values.

    inputs: parts of registers in the function's order; output: register that takes the result
    scalar: the function's constant, if it has one; by_turn: divided by 1 + the turn of the block
    """

    name: str
    group: str
    function: str
    size: int
    count: int
    inputs: tuple[Ref, ...]
    output: str
    scalar: float = 0.0
    by_turn: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        """Names that must be ready before."""
        return tuple(ref.register for ref in self.inputs)

    @property
    def writes(self) -> tuple[str, ...]:
        """Names that are new after."""
        return (self.output,)


Task = PimTask | AsicTask


@dataclass(frozen=True, eq=False)
class Block:
    """Tasks in issue order, done `repeat` times; the base row advances by `row_stride` each time.

    label: what the block is called in reports, with the turn in place of `{}`
    """

    label: str
    tasks: tuple[Task, ...]
    repeat: int = 1
    row_stride: int = 0


@dataclass(frozen=True, eq=False)
class Pass:
    """One token through the model (of every sequence of the batch)."""

    position: int
    blocks: tuple[Block, ...]
