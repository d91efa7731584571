"""Random memories, and random programs that are legal on them, by hypothesis or by seed.

A program is drawn as a tree of runs and loops. The strategy follows which banks are open: a loop body ends
with the banks open that were open at its start, so that every iteration is legal. Hypothesis finds the smallest
example of a failure; seeds give examples that are all different and rarely trivial.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple, Protocol, TypeVar

from hypothesis import strategies as st

from pimloom.traces.program import END, LOOP, MAX_DEPTH, Program
from tests.sim.harness import Memory, Step, memory, shortest_interval, variant, with_interval

T = TypeVar("T")
Draw = Callable[[st.SearchStrategy[Any]], Any]
Open = frozenset[int]

SHIPPED = frozenset(memory().dram.constraints)
SMALL = ["nRCDRD", "nRCDWR", "nRCDMAC", "nRP", "nRAS", "nCCD", "nCL", "nCWL", "nWR", "nRTP", "nRRD", "nWTR"]
SMALL += ["nBTA", "nCLREG", "nCWLGB", "nMACRES", "nRFC"]


@dataclass
class Item:
    """A run of one command, or, with a body, a loop."""

    command: str = ""
    count: int = 1
    address: dict[str, int] = field(default_factory=dict)
    body: list[Item] | None = None

    def size(self) -> int:
        """Commands issued."""
        return self.count * (1 if self.body is None else sum(item.size() for item in self.body))


class Dice(Protocol):
    """Where the random choices come from."""

    def integer(self, low: int, high: int) -> int:
        """Return low .. high."""

    def choice(self, items: Sequence[T]) -> T:
        """Return one of the items."""


class Drawn:
    """Choices by hypothesis, which can shrink them."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw

    def integer(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def choice(self, items: Sequence[T]) -> T:
        return self.draw(st.sampled_from(items))


class Rolled:
    """Choices by a seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def integer(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def choice(self, items: Sequence[T]) -> T:
        return self.random.choice(items)


EVERY_INTERVAL = ("off", "short", "short", "middle", "long")


def some_memory(dice: Dice, intervals: Sequence[str] = EVERY_INTERVAL) -> Memory:
    """A memory of the GDDR6 family: few banks, any timings that pass the physical checks, some more rules."""
    n = {name: dice.integer(1, 12) for name in SMALL}
    n["nRC"] = n["nRAS"] + n["nRP"] + dice.integer(0, 6)
    n["nFAW"] = n["nRRD"] + dice.integer(0, 30)
    n["nREFI"] = 1 << 29
    rules: dict[str, list[Any]] = {
        "group_activate": ["bankgroup", ["ACT"], ["ACT"]],
        "group_column": ["bankgroup", ["RD", "WR"], ["RD", "WR"]],
        "group_window": ["bankgroup", ["ACT"], ["ACT"], 2],
        "bank_column": ["bank", ["RD"], ["RD", "PRE", "PREA"]],
        "mac_window": ["channel", ["MAC_AB"], ["MAC_AB"], dice.integer(2, 5)],
        "buffer_window": ["channel", ["WR_GB"], ["MAC_AB", "WR_GB"], dice.integer(2, 4)],
        "row_window": ["channel", ["ACT", "ACT_AB"], ["ACT", "ACT_AB"], 3],
        "late": ["channel", ["RD_MAC"], ["ACT_AB", "RD"]],
    }
    chosen = [name for name in rules if dice.integer(0, 3) == 0]
    waits = {name: str(dice.integer(1, 90 if name == "late" else 25)) for name in chosen}
    changes = {
        "timing": n,
        "constraints": {name: [*rules[name][:3], waits[name], *rules[name][3:]] for name in chosen},
        "bankgroups": dice.integer(1, 3),
        "banks_per_bankgroup": dice.integer(1, 3),
    }
    m = variant(changes, nMAC=dice.integer(1, 4))
    kind = dice.choice(intervals)
    if kind == "off":
        return with_interval(m, 0)
    # Any interval above the checks' bound must do; the shortest ones refresh at every turn.
    slack = {"short": 40, "middle": 400, "long": 20_000}[kind]
    return with_interval(m, shortest_interval(m) + dice.integer(0, slack))


class Author:
    """Writes one program at random; `banks` open at any moment are flat banks relative to the program's base bank."""

    def __init__(self, dice: Dice, m: Memory, repeats: Sequence[int]) -> None:
        self.dice, self.m, self.repeats = dice, m, repeats
        self.banks = m.dram.banks
        self.all = frozenset(range(self.banks))

    def items(self, opened: Open, depth: int, least: int = 0) -> tuple[list[Item], Open]:
        """Choose some instructions; return them and the banks open after them."""
        items: list[Item] = []
        for _ in range(self.dice.integer(least, 5 if depth == 0 else 4)):
            if depth < MAX_DEPTH and self.dice.integer(0, 3) == 0:
                items.append(self.loop(opened, depth))
            else:
                item, opened = self.run(opened)
                items.append(item)
        return items, opened

    def loop(self, opened: Open, depth: int) -> Item:
        """Choose a loop that leaves the banks as it finds them."""
        body, after = self.items(opened, depth + 1, least=1)
        body += self.back(after, opened)
        address = {key: self.dice.integer(0, 2) for key in ("rows", "columns", "buffers")}
        return Item("", self.dice.choice(self.repeats), address, body)

    def back(self, now: Open, wanted: Open) -> list[Item]:
        """Choose the way from one set of open banks to another."""
        items = []
        if now - wanted and (not wanted or wanted == self.all):
            items, now = [Item("PREA")], frozenset()
        if wanted == self.all and not now and self.dice.integer(0, 1):
            return [*items, Item("ACT_AB", address={"row": self.dice.integer(0, 9)})]
        items += [Item("PRE", address={"bank": b}) for b in sorted(now - wanted)]
        row = self.dice.integer(0, 9)
        return items + [Item("ACT", address={"bank": b, "row": row}) for b in sorted(wanted - now)]

    def run(self, opened: Open) -> tuple[Item, Open]:
        """Choose a run of a command that is legal with these banks open."""
        dice, closed = self.dice, self.all - opened
        kinds = ["WR_GB", "RD_MAC", "PREA", "PRE"]
        kinds += ["ACT", "ACT"] if closed else []
        kinds += ["ACT_AB", "ACT_AB"] if not opened else []
        kinds += ["RD", "WR"] if opened else []
        kinds += ["MAC_AB", "MAC_AB", "MAC_AB"] if opened == self.all else []
        kind = dice.choice(kinds)
        count, row = dice.integer(1, 6), dice.integer(0, 9)
        column, buffer = dice.integer(0, 9), dice.integer(0, 9)
        steps = {"d_column": dice.integer(0, 2), "d_buffer": dice.integer(0, 2)}
        if kind == "PREA":
            return Item(kind), frozenset()
        if kind == "ACT_AB":
            return Item(kind, address={"row": row}), self.all
        if kind == "RD_MAC":
            return Item(kind, count), opened
        if kind == "WR_GB":
            return Item(kind, count, {"buffer": buffer, "d_buffer": steps["d_buffer"]}), opened
        if kind == "MAC_AB":
            return Item(kind, count, {"row": row, "column": column, "buffer": buffer, **steps}), opened
        # Runs over several banks may wrap around the last one.
        first, stride = dice.integer(0, self.banks - 1), dice.integer(0, 3)
        if kind in ("RD", "WR"):
            first = dice.choice(sorted(opened))
            stride = stride if opened == self.all else 0
            place = {
                "bank": first,
                "d_bank": stride,
                "row": row,
                "column": column,
                "d_column": steps["d_column"],
            }
            return Item(kind, count, place), opened
        if kind == "PRE":
            visited = {(first + k * stride) % self.banks for k in range(count)}
            return Item(kind, count, {"bank": first, "d_bank": stride}), opened - visited
        first = dice.choice(sorted(closed))
        turn = [(first + k * stride) % self.banks for k in range(count)]
        count = next((k for k in range(1, count) if turn[k] not in closed or turn[k] in turn[:k]), count)
        return Item(kind, count, {"bank": first, "d_bank": stride, "row": row}), opened | set(turn[:count])


def shrink(items: list[Item], budget: int) -> None:
    """Cut loops until no more than about `budget` commands are issued: outer ones first."""
    while sum(item.size() for item in items) > budget:
        loops = [item for item in items if item.body is not None and item.count > 1]
        if loops:
            longest = max(loops, key=Item.size)
            longest.count = max(1, min(longest.count - 1, budget * longest.count // max(1, longest.size())))
        else:
            items = [inner for item in items if item.body is not None for inner in item.body]


def written(m: Memory, items: list[Item]) -> Program:
    """The program of a tree."""
    builder = m.builder()

    def put(parts: list[Item]) -> None:
        for item in parts:
            if item.body is None:
                builder.add(item.command, item.count, **item.address)
            else:
                with builder.loop(item.count, **item.address):
                    put(item.body)

    put(items)
    return builder.build()


MANY = (*range(1, 7), *range(1, 7), 17, 60, 300, 2000)


class Scenario(NamedTuple):
    """Programs on a memory; prints as text that shows what matters."""

    memory: Memory
    steps: list[Step]

    def __repr__(self) -> str:
        d = self.memory.dram
        shape = f"{d.bankgroups} x {d.banks_per_bankgroup}"
        lines = [f"{shape} banks, nMAC {self.memory.nMAC}, refresh {d.refresh.policy}"]
        lines += [" ".join(f"{k}={v}" for k, v in d.timing.items())]
        lines += [f"{k}: {d.constraints[k]!r}" for k in d.constraints if k not in SHIPPED]
        for step in self.steps:
            lines.append(f"at {step.start}, base bank {step.base_bank}, base row {step.base_row}:")
            lines += [] if step.program is None else text(step.program)
        return "\n".join(lines)


def text(p: Program) -> list[str]:
    """One line an instruction."""
    lines, indent = [], "  "
    for i, code in enumerate(p.code.tolist()):
        if code == END:
            indent = indent[:-2]
            continue
        fields = ("bank", "row", "column", "buffer", "d_bank", "d_column", "d_buffer")
        address = {f: int(getattr(p, f)[i]) for f in fields}
        shown = " ".join(f"{f}={v}" for f, v in address.items() if v != (0 if f.startswith("d_") else -1))
        lines.append(f"{indent}{'loop' if code == LOOP else p.commands[code]} x {p.times[i]} {shown}")
        indent += "  " if code == LOOP else ""
    return lines


def some_scenario(dice: Dice, budget: int, most: int) -> Scenario:
    """A memory and up to `most` programs for it, one after the other, at starts that may lie in the past."""
    m = some_memory(dice)
    steps, opened, clock = [], frozenset[int](), 0
    for _ in range(dice.integer(1, most)):
        base = dice.integer(0, m.dram.banks - 1)
        clock += dice.integer(0, dice.choice([60, 60, 3000]))
        if dice.integer(0, 5) == 0:
            steps.append(Step(None, clock))
            continue
        relative = frozenset((b - base) % m.dram.banks for b in opened)
        items, relative = Author(dice, m, MANY).items(relative, 0, least=1)
        opened = frozenset((b + base) % m.dram.banks for b in relative)
        shrink(items, budget)
        steps.append(Step(written(m, items), clock, base, dice.integer(0, 50)))
    return Scenario(m, steps)


def some_loop(dice: Dice, budget: int) -> Scenario:
    """A memory and one program: a few commands, then one loop of many iterations, which may hold others."""
    m = some_memory(dice, ("off", "short", "middle", "long", "long"))
    author = Author(dice, m, range(1, 13))
    items, opened = author.items(frozenset(), MAX_DEPTH, least=0)
    loop = author.loop(opened, 0)
    loop.count = dice.integer(100, 50_000)
    shrink([loop], budget)
    last, _ = author.items(opened, MAX_DEPTH, least=0)
    return Scenario(m, [Step(written(m, [*items, loop, *last]), dice.integer(0, 5000))])


@st.composite
def scenarios(draw: Draw, budget: int = 1200, most: int = 3) -> Scenario:
    """Strategy of `some_scenario`."""
    return some_scenario(Drawn(draw), budget, most)


@st.composite
def loops(draw: Draw, budget: int) -> Scenario:
    """Strategy of `some_loop`."""
    return some_loop(Drawn(draw), budget)
