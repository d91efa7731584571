"""A DRAM standard or PIM device: organisation, commands, timing rules, currents; the same as integers."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from pimloom.arch import dram_checks
from pimloom.arch.base import Count, Description, Int, Strict, raise_located
from pimloom.arch.document import Document, load
from pimloom.arch.dram_checks import DEPTH, LEVELS, MAX_CLOCKS
from pimloom.arch.expression import evaluate
from pimloom.arch.tree import Keys

EFFECTS = {"none": 0, "begin": 0, "open": 1, "close": 2}

Level = Literal["channel", "pseudochannel", "rank", "stack_id", "bankgroup", "bank"]
Clocks = Annotated[Int, Field(ge=0, le=MAX_CLOCKS)]
Current = Annotated[float, Field(gt=0, le=1e6)] | None
Array = NDArray[np.int64]


class Command(Strict):
    """One command of the standard: whom it addresses, what it does to a bank, and what it needs."""

    target: Annotated[Level, Field(description="one node of this level, with everything below it")]
    meaning: Literal[
        "activate", "activate_first", "activate_second", "precharge", "read", "write", "sync_read", "sync_write",
        "mac", "write_buffer", "read_result", "refresh", "mode", "write_result", "activation", "read_activation",
        "multiply", "copy_to_buffer", "copy_to_bank", "move_result", "move_vector", "softmax",
        "add_to_buffer", "multiply_to_buffer", "rectify_to_buffer",
    ]  # fmt: skip
    bank: Annotated[
        Literal["none", "begin", "open", "close"],
        Field(description="begin: the first half of an activate"),
    ]
    needs: Literal["any", "open", "closed", "opening"]
    row: bool
    column: bool
    data: Literal["none", "read", "write"]
    duration: str
    """Clocks from issue until whoever waits for the program may go on, such as its last data; an expression."""
    lockstep: Annotated[
        bool,
        Field(
            description="the bank with the same place in every processing unit of the rank does the same; for the "
            "timing rules it is a command to the bank addressed"
        ),
    ] = False


class Rule(Strict):
    """`after` may issue `minimum` clocks after the last (`window`-th last) `before` on a node of `level`.

    siblings: the rule binds the other nodes of the level below the same parent instead, such as rank to rank
    """

    level: Level
    before: list[str] = Field(min_length=1)
    after: list[str] = Field(min_length=1)
    minimum: str
    window: Annotated[Int, Field(ge=1, le=64)] = 1
    siblings: bool = False


def _rule(value: Any) -> Any:
    """A rule from a list: [level, before, after, minimum], and a window or the word `siblings` behind that."""
    if not isinstance(value, list):
        return value
    if len(value) not in (4, 5):
        raise ValueError(
            "a rule is [level, [before], [after], minimum] or has a window or the word siblings as fifth "
            f"item; this one has {len(value)}"
        )
    row = dict(zip(("level", "before", "after", "minimum", "window"), value, strict=False))
    if row.get("window") == "siblings":
        row["window"], row["siblings"] = 1, True
    if isinstance(row["minimum"], int) and not isinstance(row["minimum"], bool):
        row["minimum"] = str(row["minimum"])
    return row


class Io(Strict):
    """The data pins of one channel, or of one pseudo-channel where a channel has several."""

    width_bit: Count
    rate_bps: Annotated[Count, Field(description="bits per second of one pin")]


class Refresh(Strict):
    """What is refreshed when.

    all_bank: every node that the all-bank refresh addresses is due every nREFI clocks; per_bank: one bank after
    the other, in flat order, every nREFIpb; per_bank_set: every nREFIpb the same bank of all pseudo-channels of
    a stack ID; none: the memory is never refreshed. postpone: how many refreshes may be late.
    """

    policy: Literal["all_bank", "per_bank", "per_bank_set", "none"]
    postpone: Annotated[Int, Field(ge=0, le=64)] = 0


class Currents(Strict):
    """Supply voltage and data-sheet currents of one device; null = not known."""

    VDD_V: Current
    IDD0_mA: Current
    IDD2N_mA: Current
    IDD3N_mA: Current
    IDD4R_mA: Current
    IDD4W_mA: Current
    IDD5B_mA: Current
    IDD5PB_mA: Current = None


class Tables(NamedTuple):
    """A DRAM of one channel without ranks as integers for the PIM kernels. C commands, R rules, W windowed rules.

    Levels: 0 channel, 1 bank group, 2 bank. A command may issue at t when for each of its rules the last
    `before` on every node concerned lies `min` clocks or more back (the `size`-th last, for windowed rules).
    """

    target: Array  # i8[C]   level that a command addresses: 0 or 2
    effect: Array  # i8[C]   0 none, 1 opens the banks it addresses, 2 closes them
    duration: Array  # i8[C]   clocks from issue until done
    row_start: Array  # i8[C+1] rules of command c as `after`: row_start[c] .. row_start[c+1]
    row_before: Array  # i8[R]   command before
    row_level: Array  # i8[R]   level of the rule, no deeper than either target
    row_min: Array  # i8[R]   clocks, > 0
    win_after: Array  # i8[W]   windowed rules: command after
    win_before: Array  # i8[W]   command before
    win_level: Array  # i8[W]   level of the rule
    win_min: Array  # i8[W]   clocks, > 0
    win_size: Array  # i8[W]   which of the last issues counts
    reach: Array  # i8[C]   largest minimum of any rule with this command before; older stamps cannot bind
    gap: Array  # i8[C]   clocks between issues of the command in a row on one node; 0 = more than that counts
    shape: Array  # i8[4]   bank groups, banks per bank group, rows, columns
    refresh: Array  # i8[5]   nREFI (0 = no refresh), ids of PREA, REFab, ACT_AB, ACT (-1 = there is none)


class Dram(Description):
    """One DRAM standard or device, as its YAML says it. Times are in clocks of `clock_Hz`."""

    kind: Literal["dram"]
    standard: Annotated[str, Field(description="as other tools name it, such as DDR4; empty = none")] = ""
    clock_Hz: Annotated[Count, Field(le=10**12)]
    channels: Annotated[Count, Field(le=1024)]
    pseudochannels: Annotated[Count, Field(le=64)] = 1
    ranks: Annotated[Count, Field(le=64)] = 1
    stack_ids: Annotated[Count, Field(le=64)] = 1
    bankgroups: Annotated[Count, Field(le=64)]
    banks_per_bankgroup: Annotated[Count, Field(le=64)]
    rows: Annotated[Count, Field(le=2**24)]
    columns: Annotated[Count, Field(le=2**16)]
    access_B: Annotated[Count, Field(le=2**16)]
    channel_capacity_B: Annotated[Count, Field(le=2**50)]
    devices: Annotated[Count, Field(le=64, description="that work in lock step; the currents are of one")] = 1
    io: Io
    command_bus: Annotated[
        Literal["shared", "row_and_column", "half_clock"],
        Field(
            description="commands a clock: one; one to rows and one to columns; the same with clocks of half a "
            "CK, odd ones for all commands and even ones for precharges"
        ),
    ] = "shared"
    timing: dict[Annotated[str, Field(pattern=r"^n[A-Z0-9][A-Za-z0-9_]*$")], Clocks]
    refresh: Refresh
    commands: dict[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")], Command] = Field(
        min_length=1, max_length=64
    )
    constraints: dict[str, Annotated[Rule, BeforeValidator(_rule)]]
    currents: Currents

    @property
    def counts(self) -> tuple[int, ...]:
        """Nodes of each of `LEVELS` below one node of the level above; one channel."""
        return (
            1, self.pseudochannels, self.ranks, self.stack_ids, self.bankgroups, self.banks_per_bankgroup
        )  # fmt: skip

    @property
    def banks(self) -> int:
        """Banks of one channel."""
        return prod(self.counts)

    def nodes(self, level: str) -> int:
        """Nodes of a level in one channel."""
        return prod(self.counts[: LEVELS.index(level) + 1])

    @property
    def row_B(self) -> int:
        """Bytes of one row of one bank."""
        return self.columns * self.access_B

    @property
    def pin_Bps(self) -> float:
        """Bytes per second over the pins of one channel, all its pseudo-channels together."""
        return self.pseudochannels * self.io.width_bit * self.io.rate_bps / 8

    @property
    def command_names(self) -> list[str]:
        """Names of the commands; a command's id is its place in this list."""
        return list(self.commands)

    @property
    def is_pim(self) -> bool:
        """Whether its banks compute: a command has the meaning `mac`."""
        return any(command.meaning == "mac" for command in self.commands.values())

    @property
    def nBL(self) -> int:
        """Clocks that one access occupies the data pins: as given, or from the pins' rate."""
        return self.timing.get("nBL") or -(
            -self.access_B * 8 * self.clock_Hz // (self.io.width_bit * self.io.rate_bps)
        )

    def symbols(self, pim: Mapping[str, int]) -> dict[str, int]:
        """Everything an expression may name: the timings, nBL, nMAC (nCCD unless a machine says more), and `pim`."""
        return {**self.timing, "nBL": self.nBL, "nMAC": self.timing.get("nCCD", 1), **pim}

    def find(self, meaning: str, target: str) -> str | None:
        """Name of the first command of this meaning that addresses this level, or None."""
        matches = (n for n, c in self.commands.items() if (c.meaning, c.target) == (meaning, target))
        return next(matches, None)

    @property
    def refresh_level(self) -> str | None:
        """Level that the refresh command of the policy addresses; None where no such command is described."""
        levels = LEVELS[:-1] if self.refresh.policy == "all_bank" else LEVELS[-1:]
        targets = (c.target for c in self.commands.values() if c.meaning == "refresh")
        return next((target for target in targets if target in levels), None)

    def tables(self, pim: Mapping[str, int] | None = None) -> Tables:
        """The integer tables; `pim` holds the symbols that a machine defines (nMAC, nBL).

        Expects a description that `findings(pim)` has nothing to say about.
        """
        symbols = self.symbols(pim or {})
        ids = {name: i for i, name in enumerate(self.commands)}
        target = [DEPTH[c.target] for c in self.commands.values()]
        rows: list[dict[tuple[int, int], int]] = [{} for _ in ids]
        windows: list[tuple[int, int, int, int, int]] = []
        reach = [0] * len(ids)
        for rule in self.constraints.values():
            minimum = evaluate(rule.minimum, symbols)
            if minimum <= 0 or rule.siblings:
                continue
            for before, after in ((ids[b], ids[a]) for b in rule.before for a in rule.after):
                level = min(DEPTH[rule.level], target[before], target[after])
                reach[before] = max(reach[before], minimum)
                if rule.window > 1:
                    windows.append((after, before, level, minimum, rule.window))
                else:
                    rows[after][before, level] = max(minimum, rows[after].get((before, level), 0))
        flat = [(*key, minimum) for row in rows for key, minimum in sorted(row.items())]
        before_of, level_of, min_of = (
            (_i8(column) for column in zip(*flat, strict=True)) if flat else (_i8(()),) * 3
        )
        win = [_i8(column) for column in zip(*sorted(windows), strict=True)] if windows else [_i8(())] * 5
        on = self.refresh.policy == "all_bank"
        scope = (self.refresh_level if on else None) or "channel"
        roles = (("precharge", scope), ("refresh", scope), ("activate", scope), ("activate", "bank"))
        return Tables(
            target=_i8(target),
            effect=_i8([EFFECTS[c.bank] for c in self.commands.values()]),
            duration=_i8([max(0, evaluate(c.duration, symbols)) for c in self.commands.values()]),
            row_start=_i8(np.cumsum([0, *map(len, rows)])),
            row_before=before_of,
            row_level=level_of,
            row_min=min_of,
            win_after=win[0],
            win_before=win[1],
            win_level=win[2],
            win_min=win[3],
            win_size=win[4],
            reach=_i8(reach),
            gap=_i8(
                [
                    0
                    if c.bank != "none" or any(i in window[:2] for window in windows)
                    else max([1, *(minimum for (before, _), minimum in rows[i].items() if before == i)])
                    for i, c in enumerate(self.commands.values())
                ]
            ),
            shape=_i8([self.bankgroups, self.banks_per_bankgroup, self.rows, self.columns]),
            refresh=_i8(
                [self.timing["nREFI"] if on else 0, *(ids.get(self.find(*r) or "", -1) for r in roles)]
            ),
        )

    @model_validator(mode="after")
    def _physical(self) -> Self:
        raise_located("Dram", self.findings({}))
        return self

    def findings(self, pim: Mapping[str, int]) -> list[tuple[Keys, str]]:
        """What cannot be true of this memory: pairs of path and message, which holds both numbers."""
        return dram_checks.findings(self, pim)


def _i8(values: Any) -> Array:
    array: Array = np.array(values, dtype=np.int64)
    array.flags.writeable = False
    return array


def load_dram(name_or_path: str, overrides: Sequence[str] = ()) -> tuple[Dram, Document]:
    """The DRAM description of a shipped name or a file.

    Raises InputError with everything that is wrong with it.
    """
    return load(Dram, "dram", name_or_path, overrides)
