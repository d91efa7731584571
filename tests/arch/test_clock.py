"""Clock edges against exact fractions."""

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimloom.arch.clock import edge_ps, first_edge_at_or_after

EDGES = st.integers(0, 10**15)
FREQUENCIES = st.integers(1, 10**12)


@given(EDGES, FREQUENCIES)
def test_edge_is_the_exact_time_rounded_up(n: int, f_Hz: int) -> None:
    assert edge_ps(n, f_Hz) == ceil(Fraction(n * 10**12, f_Hz))


@given(EDGES, FREQUENCIES)
def test_an_edge_finds_itself(n: int, f_Hz: int) -> None:
    assert first_edge_at_or_after(edge_ps(n, f_Hz), f_Hz) == n


@given(st.integers(0, 10**18), FREQUENCIES)
def test_first_edge_is_the_first(t_ps: int, f_Hz: int) -> None:
    n = first_edge_at_or_after(t_ps, f_Hz)
    assert edge_ps(n, f_Hz) >= t_ps
    assert n == 0 or edge_ps(n - 1, f_Hz) < t_ps


@pytest.mark.parametrize(
    ("n", "f_Hz", "ps"),
    [(0, 10**9, 0), (1, 10**9, 1000), (3, 1_750_000_000, 1715), (7, 1_750_000_000, 4000), (1, 10**12, 1)],
)
def test_known_edges(n: int, f_Hz: int, ps: int) -> None:
    assert edge_ps(n, f_Hz) == ps
