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


def accumulate(m: Machine, units: Index, registers: Index, terms: F4) -> None:
    """Add terms f4[C, units, times] to result registers i8[times] of units. Raises where one was never set."""
    for register in np.unique(registers).tolist():
        at = m.access.channels[:, None], units, register
        if m.keeps_results and (m.state[at] == EMPTY).any():
            raise m.fail(f"result register {register} was never set")
        both = np.concatenate([m.results[at][:, :, None], terms[:, :, registers == register]], 2)
        m.results[at] = np.add.accumulate(both, axis=2)[:, :, -1]
        m.state[at] = DUE
