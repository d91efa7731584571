"""What the request-level controllers have in common: the requests they take, and what is known after a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pimloom.arch.memory import Decoder
from pimloom.sim.jit import kernel
from pimloom.traces.requests import Requests

I8 = npt.NDArray[np.int64]

MORE, FULL, ENDED = range(3)
"""Why a controller stops: it needs the next requests; the log is full; the run has ended."""


class StuckError(Exception):
    """A run that can never end, as the text says; a property of the memory and the requests, not a fault."""


class Batch(NamedTuple):
    """The next requests, in their order; all i8[n]."""

    cycle: I8  # loop iteration before which it is not offered
    write: I8  # 1 = write, 0 = read
    key: I8  # number of the access in the memory
    bank: I8  # flat bank of the channel
    row: I8
    column: I8  # access within the row


@dataclass(frozen=True)
class Outcome:
    """What a controller has counted in a whole run.

    cycles: clocks simulated; busy_cycles: clocks until the last request was done
    commands: i8[C]  issued, by command id
    reads, writes: requests taken; forwarded: reads answered by a waiting write; coalesced: writes that replaced a
    waiting one; shared: reads that another read's access answered
    row_hits, row_misses, row_conflicts: by the controller's own definition, see `pimloom explain`
    latency, latency_count: i8[n]  clocks from acceptance to the end of data that reads took, ascending, and how many
    active_cycles: i8[ranks]  clocks with an open bank, of each rank of each pseudo-channel
    """

    cycles: int
    busy_cycles: int
    commands: I8
    reads: int
    writes: int
    forwarded: int
    coalesced: int
    shared: int
    row_hits: int
    row_misses: int
    row_conflicts: int
    latency: I8
    latency_count: I8
    active_cycles: I8


class Controller(Protocol):
    """One channel and its controller."""

    def feed(self, batch: Batch, is_last: bool, log: I8) -> tuple[int, int]:
        """Go on with a batch, the same again until MORE is returned; return the reason and the rows of the log.

        log: i8[n, 5]  gets clock, command id, flat node of the level that the command addresses, row, column.
        Raises StuckError.
        """
        ...

    def outcome(self) -> Outcome:
        """Return the counts of a run that has ended."""
        ...


def decode(decoder: Decoder, requests: Requests) -> Batch:
    """Return requests with their addresses taken apart."""
    n = len(requests.cycle)
    out = np.empty((4, n), np.int64)
    coordinates = np.zeros(7, np.int64)
    _decode(requests.address, decoder, coordinates, out)
    return Batch(requests.cycle, requests.write, *out)


@kernel
def _decode(address: I8, decoder: Decoder, coordinates: I8, out: I8) -> None:
    """Write key, flat bank, row and column of each address into out, i8[4, n]; coordinates: i8[7] to work with."""
    parts, hashes, bank_weight, access_B = decoder
    for i in range(len(address)):
        rest = address[i] // access_B
        out[0, i] = rest
        coordinates[:] = 0
        for p in range(len(parts)):
            size = parts[p, 1]
            digit = rest & (size - 1) if size & (size - 1) == 0 else rest % size
            rest //= size
            coordinates[parts[p, 0]] += digit * parts[p, 2]
        for h in range(len(hashes)):
            coordinates[hashes[h, 0]] ^= coordinates[hashes[h, 1]] & hashes[h, 2]
        bank = 0
        for level in range(len(bank_weight)):
            bank += coordinates[level] * bank_weight[level]
        out[1, i] = bank
        out[2, i] = coordinates[5]
        out[3, i] = coordinates[6]
