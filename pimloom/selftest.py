"""Memories held against the closed forms of their timings: bandwidth by traffic, and latency without load.

The closed forms are second opinions. They know what JEDEC's timings are called and mean, and how a controller uses
a bank, but not the rules, the commands or the refresh policy of a description, nor the kernels. So a rule at the
wrong level, a lost rule or a refresh that never comes shows as a deviation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pimloom.arch.document import shipped
from pimloom.arch.dram import Dram, load_dram
from pimloom.arch.memory import COORDINATES, Memory, load_memory
from pimloom.arch.tree import InputError, did_you_mean
from pimloom.memory import run_requests
from pimloom.traces.requests import Requests

I8 = npt.NDArray[np.int64]

CONTROLLERS = ("ramulator2", "dramsim3")
REQUESTS = 20_000
STREAMED = 100_000
"""A stream goes through so many rows that refreshes meet it everywhere."""


@dataclass(frozen=True)
class Row:
    """One figure of one channel beside its closed form.

    tolerance_below, tolerance_above: by what part of the closed form the figure may be less or more
    peak: what the data pins can do, so that more is never right; None = does not apply
    """

    dram: str
    controller: str
    quantity: str
    unit: str
    achieved: float
    closed_form: float
    tolerance_below: float
    tolerance_above: float
    peak: float | None = None

    @property
    def deviation(self) -> float:
        """Part of the closed form that the figure is off."""
        return self.achieved / self.closed_form - 1

    @property
    def passed(self) -> bool:
        """Whether the figure is as it should be."""
        is_possible = self.peak is None or self.achieved <= self.peak
        return is_possible and -self.tolerance_below <= self.deviation <= self.tolerance_above


class Form(NamedTuple):
    """A closed form of bandwidth, in clocks."""

    each: float  # clocks a request, without refresh
    lost: float  # clocks that refresh takes in every nREFI
    below: float  # tolerances, as in `Row`
    above: float


class Timings(NamedTuple):
    """A standard's timings for reads by their meaning, in clocks, under whatever name it has them."""

    data: int  # from the read command to the end of its data
    RCD: int
    RP: int
    RP_all: int
    RAS: int
    RC: int
    RTP: int
    CCD_S: int
    CCD_L: int
    RRD: int
    FAW: int
    CS: int
    REFI: int
    RFC: int
    ACT: int  # that commands take on their bus; they work from the last one on
    COL: int
    PRE: int
    second: int  # that the second half of an activate comes after the first
    sync: int  # that a data clock that stands still is started before a read


def plain_standards() -> list[str]:
    """Names of the shipped standards, which PIM devices are not."""
    return [name for name in shipped("dram") if not load_dram(name)[0].is_pim]


def selftest(standards: Sequence[str] = ()) -> list[Row]:
    """Run traffic through shipped standards (none named = all), behind each shipped controller that knows them.

    Raises InputError for a name that is not shipped.
    """
    known = plain_standards()
    for name in standards:
        if name not in known:
            raise InputError(
                f"no DRAM standard {name!r} is shipped{did_you_mean(name, known)}; there are: {', '.join(known)}"
            )
    return [
        row
        for name in standards or known
        for controller in CONTROLLERS
        if controller != "dramsim3" or _suits_dramsim3(load_dram(name)[0])
        for row in selftest_memory(load_memory(name, (), controller)[0])
    ]


def _suits_dramsim3(dram: Dram) -> bool:
    return dram.command_bus != "half_clock" and dram.find("activate_first", "bank") is None


def selftest_memory(memory: Memory) -> list[Row]:
    """Run all traffic through a memory: one with open pages, whose mapping neither hashes nor differs from the shipped.

    Whatever its refresh policy, the closed forms expect all-bank refreshes.
    """
    t = timings(memory.dram)
    return [
        *(
            _bandwidth(memory, name, traffic(memory), form(memory, t), t.REFI)
            for name, traffic, form in TRAFFIC
        ),
        *_unloaded(memory, t),
    ]


def timings(dram: Dram) -> Timings:
    """The timings of a shipped standard."""
    n = dram.timing

    def first(*names: str) -> int:
        return next(n[name] for name in names if name in n)

    split = "nAAD" in n
    return Timings(
        data=n["nCL"] + n.get("nDQSCK", 0) + dram.nBL,
        RCD=first("nRCDRD", "nRCD"),
        RP=n["nRP"],
        RP_all=first("nRPab", "nRP"),
        RAS=n["nRAS"],
        RC=n["nRC"],
        RTP=n["nRTP"],
        CCD_S=max(dram.nBL, first("nCCD_S", "nCCD")),
        CCD_L=max(dram.nBL, first("nCCD_L", "nCCD")),
        RRD=first("nRRD_S", "nRRD"),
        FAW=n["nFAW"],
        CS=n.get("nCS", 0),
        REFI=n["nREFI"],
        RFC=n["nRFC"],
        ACT=n.get("nACT", 1),
        COL=n.get("nCOL", 1),
        PRE=n.get("nPRE", 1),
        second=int(split),
        sync=int(split),
    )


# --- traffic ----------------------------------------------------------------------------------------------------


def sequential(memory: Memory) -> I8:
    """Addresses one after the other."""
    return np.arange(STREAMED) * memory.dram.access_B


def random(memory: Memory) -> I8:
    """Addresses all over the memory: multiples of the golden ratio, mixed as in SplitMix64."""
    x = np.arange(1, REQUESTS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    accesses = np.uint64(memory.capacity_B // memory.dram.access_B)
    return ((x ^ (x >> np.uint64(31))) % accesses).astype(np.int64) * memory.dram.access_B


def conflicting(memory: Memory) -> I8:
    """Every request to another row of the one bank."""
    i = np.arange(REQUESTS)
    return address(memory, 0 * i, i % memory.dram.rows, 0 * i)


def one_bank(memory: Memory) -> I8:
    """Row after row of one bank, column by column."""
    i = np.arange(STREAMED)
    return address(memory, 0 * i, i // memory.dram.columns, i % memory.dram.columns)


def address(memory: Memory, bank: I8, row: I8, column: I8) -> I8:
    """Addresses of accesses, for a mapping that does not hash. bank, row, column: i8[n], banks by flat number."""
    places = (*np.unravel_index(bank, memory.dram.counts[1:]), row, column)
    rest = dict(zip(COORDINATES, places, strict=True))
    left = dict(memory.sizes)
    out, weight = np.zeros(len(bank), np.int64), memory.dram.access_B
    for part in memory.address_mapping.lsb_first:
        count = part.count or left[part.coordinate]
        out += rest[part.coordinate] % count * weight
        rest[part.coordinate] = rest[part.coordinate] // count
        left[part.coordinate] //= count
        weight *= count
    return out


# --- closed forms -----------------------------------------------------------------------------------------------


def of_sequential(memory: Memory, t: Timings) -> Form:
    """The data pins never rest but for refresh, and where rows change faster than the queues look ahead."""
    dram, controller = memory.dram, memory.controller
    pins = max(t.CCD_S, t.CCD_L / dram.bankgroups) / dram.pseudochannels
    # As many banks take turns, until all have come to the end of their row.
    abreast = dram.pseudochannels * dram.bankgroups
    stripe = abreast * dram.columns * pins
    # The first request to the next rows is taken so many requests before its turn, and may close and open a row then.
    ahead = (controller.read_queue + abreast * (controller.command_queue or 0)) * pins
    opening = 1 + _open_to_read(memory, t) - ahead
    late = max(0, opening + _close_to_open(memory, t))
    each = pins * (1 + late / stripe)
    # After a refresh nothing has to be closed, until all banks have been opened once.
    saved = dram.banks / abreast * (late - max(0, opening))
    gap = t.RTP + t.RP_all + t.RFC + _open_to_read(memory, t)
    if controller.scheduler != "round_robin":
        # All that is due at once stops the stream; of several ranks it is in the first or the last one. The next
        # rows open nRRD apart, so reads of the last one may come late by as much.
        others = dram.pseudochannels * (dram.ranks + 1) / 2 - 1
        spread = (dram.bankgroups - 1) * max(0, t.RRD - t.CCD_S) if late else 0
        return Form(each, gap + others * t.RP_all - saved, 0.01 + spread / stripe, 0.01)
    if dram.pseudochannels > 1:
        # Refreshes take turns. While one pseudo-channel waits, the queues take in its requests, and the other goes
        # on; then it waits, too. The commands are as many as the clocks, so a clock that the search for one spends
        # in vain is lost: a tenth, as measured.
        held = (controller.read_queue + dram.bankgroups * (controller.command_queue or 0)) * t.CCD_S
        return Form(each, gap + max(0, gap - held) - saved, 0.1, 0.01)
    if dram.ranks > 1:
        # Refreshes take turns, and may all find the stream in the other rank, or none.
        return Form(each, gap / 2 - saved, 0.02 + gap / 2 / t.REFI, 0.01 + gap / 2 / t.REFI)
    return Form(each, gap - saved, 0.02, 0.01)


def of_random(memory: Memory, t: Timings) -> Form:
    """Every read needs an activate and a precharge, and whatever gives the fewest of these counts."""
    dram = memory.dram
    nodes = dram.pseudochannels * dram.ranks
    node = max(t.RRD, t.FAW / 4)
    on_bus = t.ACT + t.second + t.PRE + (t.COL if dram.command_bus == "shared" else 0)
    shared = max(t.CCD_S / dram.pseudochannels, _cycle(memory, t) / dram.banks, on_bus)
    each = max(node / nodes, shared)
    gap = max(t.RAS, t.RCD + t.RTP) + t.RP_all + t.RFC
    lost: float = gap + (nodes - 1) * t.RP_all
    if memory.controller.scheduler == "round_robin":
        # Refreshes take turns, and meanwhile the other nodes do what they can. A row that has been opened but not
        # read is opened again.
        others = each / max(node / (nodes - 1), shared) if nodes > 1 else 0
        lost = nodes * (gap + t.RCD) * (1 - others)
    # At worst an activate finds the bus in the middle of a longer command, or waits for the second half of another
    # one; and, unless the scheduler finds a read of the same rank, every change of ranks costs clocks of the pins.
    # Besides, 32 requests can be an unlucky choice of banks, for up to 5 %. The other way round, a refresh closes all
    # banks at once, which spares the bus precharges.
    turn = t.CS * (dram.ranks - 1) / dram.ranks if memory.controller.scheduler == "round_robin" else 0
    blocked = (t.COL - 1 + t.second) / 2 if dram.command_bus == "shared" else 0
    worst = max(each, (t.CCD_S + turn) / dram.pseudochannels, node / nodes + blocked)
    return Form(each, lost, 1 - each / worst + 0.05, 0.015)


def of_conflicting(memory: Memory, t: Timings) -> Form:
    """The cycle of a bank, which a refresh interrupts for its own time; nothing is left to chance but its phase."""
    lost = t.RFC + t.RP_all - t.RP
    if memory.controller.scheduler == "round_robin":
        # A row that has been opened but not read when the refresh comes is opened again.
        lost += t.RCD
    return Form(_cycle(memory, t), lost, 0.003, 0.003)


def of_one_bank(memory: Memory, t: Timings) -> Form:
    """nCCD_L from read to read, and the way over a precharge and an activate from row to row."""
    columns = memory.dram.columns
    change = _read_to_open(memory, t) + _open_to_read(memory, t) + t.sync
    reads = (columns - 1) * t.CCD_L
    # A refresh amid a row costs a change of rows as well; one before the first read costs what is left of nRAS, too.
    again = reads * (change - t.CCD_L) + t.RCD * (max(t.RAS, t.RCD + t.RTP) + t.RP - t.CCD_L)
    lost = t.RFC + t.RP_all - t.RP + again / (reads + change)
    return Form((reads + change) / columns, lost, 0.003, 0.003)


TRAFFIC: list[tuple[str, Callable[[Memory], I8], Callable[[Memory, Timings], Form]]] = [
    ("sequential", sequential, of_sequential),
    ("random", random, of_random),
    ("conflicting", conflicting, of_conflicting),
    ("one bank", one_bank, of_one_bank),
]


def _edge(memory: Memory, clocks: int) -> int:
    """Clocks from rising edge to rising edge, where clocks are halves."""
    return clocks + clocks % 2 if memory.dram.command_bus == "half_clock" else clocks


def _open_to_read(memory: Memory, t: Timings) -> int:
    return _edge(memory, t.second + t.RCD + t.ACT - t.COL)


def _close_to_open(memory: Memory, t: Timings) -> int:
    return _edge(memory, t.RP + t.PRE - t.ACT)


def _read_to_open(memory: Memory, t: Timings) -> int:
    return _edge(memory, t.RTP + t.RP + t.COL - t.ACT)


def _cycle(memory: Memory, t: Timings) -> int:
    """Clocks from activate to activate of a bank that is read once."""
    read = _open_to_read(memory, t) + t.sync + _read_to_open(memory, t)
    return max(read, _edge(memory, t.second + t.RAS + t.RP), _edge(memory, t.RC))


# --- measurements -----------------------------------------------------------------------------------------------


def _bandwidth(memory: Memory, name: str, addresses: I8, form: Form, nREFI: int) -> Row:
    dram, n = memory.dram, len(addresses)
    result = _run(memory, addresses, np.zeros(n, np.int64))
    clocks = n * form.each
    clocks += clocks // (nREFI - form.lost) * form.lost
    return Row(
        dram=dram.name,
        controller=memory.controller.scheduler,
        quantity=f"{name} reads",
        unit="GB/s",
        achieved=result["bandwidth_GBps"],
        closed_form=n * dram.access_B * dram.clock_Hz / clocks / 1e9,
        tolerance_below=form.below,
        tolerance_above=form.above,
        peak=memory.peak_Bps / 1e9,
    )


def _unloaded(memory: Memory, t: Timings) -> Iterator[Row]:
    """Latencies of reads of a closed bank, of its open row and of another row, for one bank after each refresh."""
    dram = memory.dram
    # Every bank twice, as only a bank that has been open shows that the refresh closes it.
    i = np.arange(2 * dram.banks)
    # The refresh is over long before, and each read before the next. Even clocks end at the edges that commands need.
    when = [((i + part) * t.REFI).astype(np.int64) // 2 * 2 for part in (0.6, 0.75, 0.9)]
    where = [address(memory, i % dram.banks, i + row, i % dram.columns) for row in (0, 0, 1)]
    # What is accepted in one clock is commanded in the next one.
    open_row = 1 + t.sync + t.data
    closed = open_row + _open_to_read(memory, t)
    forms = {"closed bank": closed, "open row": open_row, "other row": closed + _close_to_open(memory, t)}
    before = 0.0
    for k, (name, form) in enumerate(forms.items(), 1):
        # Each trace has a read after each refresh more than the trace before, and it alone is new in the sum.
        cycles, addresses = (np.stack(arrays[:k], axis=1).ravel() for arrays in (when, where))
        total = _run(memory, addresses, cycles)["read_latency_sum_cycles"]
        yield Row(
            dram=dram.name,
            controller=memory.controller.scheduler,
            quantity=f"unloaded read, {name}",
            unit="clocks",
            achieved=(total - before) / len(i),
            closed_form=form,
            tolerance_below=0,
            tolerance_above=0,
        )
        before = total


def _run(memory: Memory, addresses: I8, cycles: I8) -> dict[str, float]:
    return run_requests(memory, [Requests(cycles, np.zeros_like(cycles), addresses)])
