"""Operands of devices whose accesses say more than one number: the fields of `Stream.operand`, packed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

I8 = npt.NDArray[np.int64]
LIMIT = 1 << 15


class Operand(NamedTuple):
    """What an access of a unit with an input buffer, result registers and a softmax buffer behind it works with.

    position: element of the input buffer, or of the softmax buffer (< 2**15)
    lane: value of the result register to which a dot product is added (< 32)
    register: result register (< 8)
    by_lane: whether every lane multiplies by the one element at `position` and keeps a sum of its own (1), or the
        lanes multiply by as many elements from there on and make one sum (0)
    outside: whether the other end is the host (1) or the softmax buffer (0)
    """

    position: int
    lane: int = 0
    register: int = 0
    by_lane: int = 0
    outside: int = 0

    @property
    def packed(self) -> int:
        """As one number, to which positions can be added."""
        return self.position | self.lane << 15 | self.register << 20 | self.by_lane << 23 | self.outside << 24


def unpack(packed: npt.ArrayLike) -> tuple[I8, I8, I8, I8, I8]:
    """Return the fields of `Operand` of packed ones, as arrays."""
    p = np.asarray(packed, np.int64)
    return p % LIMIT, p >> 15 & 31, p >> 20 & 7, p >> 23 & 1, p >> 24 & 1


def softmax_operand(position: int, tokens: int) -> int:
    """What a softmax works with: `tokens` scores, of which the first of each group is at `position`."""
    return position | tokens << 15


def unpack_softmax(packed: int) -> tuple[int, int]:
    """Return position and tokens."""
    return packed % LIMIT, packed >> 15
