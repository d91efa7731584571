"""A PIM device at work: streams in, clocks and counts out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pimloom.arch.device import Device
from pimloom.traces.stream import Stream

I8 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Issued:
    """What a stream became.

    begin, end: clocks; the run takes end - begin of them
    counts: i8[channels, commands]   commands issued, refreshes included
    waited: i8[channels, commands]   clocks from one command to the next, counted for the latter; the clocks behind
        the last one are nobody's
    active: i8[channels]   clocks with an open bank
    logs: per channel i8[n, 6] of clock, command id, flat node of the level that it addresses, row, column, operand,
        as `traces.io.from_log` takes it; None unless asked for
    """

    begin: int
    end: int
    counts: I8
    waited: I8
    active: I8
    logs: list[I8] | None

    @property
    def cycles(self) -> int:
        """Clocks of the run."""
        return self.end - self.begin


class Channels(Protocol):
    """All channels of a device with their controllers; what one stream leaves behind the next one finds."""

    def run(self, stream: Stream, start: int, log: bool) -> Issued:
        """Issue a stream from a clock on, which is no earlier than the end of the stream before."""
        ...


def channels(device: Device) -> Channels:
    """Return the channels of a device, idle and with all banks closed."""
    if device.controller.order == "in_order":
        from pimloom.sim.in_order import InOrder

        return InOrder(device)
    from pimloom.sim.window import Window

    return Window(device)
