"""Sums in float32 in the order in which units add: lanes in a tree, accesses one after the other."""

from __future__ import annotations

import numpy as np

from pimloom.sim.asic import F4
from pimloom.sim.banks import DUE, EMPTY, Machine
from pimloom.traces.layout import Index


def tree(terms: F4) -> F4:
    """Return the sums over the last axis, in halves."""
    while (n := terms.shape[-1]) > 1:
        half = n // 2
        rest = terms[..., 2 * half :]
        terms = terms[..., :half] + terms[..., half : 2 * half]
        terms = np.concatenate([terms, rest], -1) if n % 2 else terms
    return terms[..., 0]


def accumulate(m: Machine, units: Index, sums: Index, terms: F4) -> None:
    """Add terms f4[C, units, times, values] to the results of units, of which each access takes sums i8[times, values].

    Raises where a result was never set. Two accesses have the same sums, or none in common.
    """
    firsts = sums[:, 0]
    for first in [firsts[0]] if (firsts == firsts[0]).all() else np.unique(firsts):
        of_first = firsts == first
        at = m.access.channels[:, None, None], units[:, None], sums[int(of_first.argmax())]
        if m.keeps_results and (m.state[at] == EMPTY).any():
            raise m.fail(f"result register {first} was never set")
        both = np.concatenate([m.results[at][:, :, None], terms[:, :, of_first]], 2)
        m.results[at] = np.add.accumulate(both, axis=2)[:, :, -1]
        m.state[at] = DUE
