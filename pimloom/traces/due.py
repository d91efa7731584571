"""When the refreshes of one node of a memory are due, as the trace checker sees it."""

from __future__ import annotations

from collections.abc import Iterator

NEVER, FOREVER = -(1 << 62), 1 << 62
"""Clocks before and after all others."""


class Due:
    """The refreshes of one node: what came, and what must come when.

    served: refreshes done, or not asked for
    spare: whether the last of them may still come
    reported: the refresh that was last reported as missing
    low, high: how much after the multiples of the interval refreshes can be due, by what has been seen
    worked: clock of the latest command that must not come while too many refreshes are late
    limit: first clock at which it must not
    """

    __slots__ = (
        "high", "interval", "limit", "low", "of", "postpone", "reported", "served", "spare", "worked",
    )  # fmt: skip

    def __init__(self, place: str, interval: int, postpone: int, alone: bool, start: int) -> None:
        self.of, self.interval, self.postpone = place and f" of {place}", interval, postpone
        self.served = start // interval
        self.spare = self.served > 0
        self.reported = 0
        # Of a run that has begun earlier, nobody knows how many refreshes are late or early.
        unknown = postpone * interval if self.served else 0
        self.low = -unknown - (0 if alone else interval - 1)
        self.high = unknown + (0 if alone else interval)
        self.worked = NEVER
        self._limit()

    def _limit(self) -> None:
        self.limit = self.high + (self.served + 1 + self.postpone) * self.interval

    def work(self, cycle: int, name: str) -> Iterator[str]:
        """Take note of a command that is no precharge and no refresh; yield which refresh should have come first."""
        if cycle < self.limit:
            self.worked = cycle
        else:
            yield f"{name} at {cycle}, but {self.miss()} and has not come"

    def miss(self) -> str:
        """Return that the next refresh is missing, and do not miss it again."""
        self.reported = self.served + 1
        due = self.limit - self.postpone * self.interval
        self.limit = FOREVER
        late = f" ({self.postpone} intervals of {self.interval})" if self.postpone else ""
        return f"refresh {self.reported}{self.of} is due since {due}{late}"

    def refresh(self, cycle: int, name: str) -> Iterator[str]:
        """Take note of a refresh; yield if it comes too early, or too late where it may be late at all."""
        number = self.served + 1
        early_by, late_by = (number - self.postpone) * self.interval, (number + self.postpone) * self.interval
        missed = self.reported == number
        if self.postpone and cycle >= self.limit:
            yield f"{name} at {cycle} comes too late: {self.miss()}"
            missed = True
        elif not missed:
            self.low = max(self.low, self.worked + 1 - late_by)
        early = self.low + early_by - cycle
        if early <= 0:
            self.high = min(self.high, cycle - early_by)
            self.served = max(number, (cycle - self.high) // self.interval if missed else 0)
        elif not self.spare:
            due = cycle + early + self.postpone * self.interval
            may = f" and may come {self.postpone} intervals of {self.interval} early" if self.postpone else ""
            yield f"{name} at {cycle} comes {early} clocks too early: refresh {number}{self.of} is due at {due}{may}"
            # Only one that is nearer to this due time than to the one before stands for it.
            self.served += 2 * early < self.interval
        self.spare = False
        self._limit()
