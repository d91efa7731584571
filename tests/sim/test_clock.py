"""The clock kernels against exact integers, over the whole range that they promise."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pimloom.arch import clock as exact
from pimloom.sim.clock import edge_ps, first_edge

TERA = 10**12
FREQUENCIES = st.one_of(
    st.integers(1, 10**12),
    st.integers(0, 40).map(lambda k: 2**k if 2**k <= TERA else TERA),
    st.sampled_from([1, 3, 177_827_941, 999_999_937, 1_750_000_000, 999_999_999_989, TERA]),
)
"""Every clock_Hz that a description may have."""
TIMES = st.one_of(st.integers(0, 10**18 - 1), st.integers(0, 10**7))


@given(TIMES, FREQUENCIES)
@example(10**18 - 1, TERA)
@example(10**18 - 1, TERA - 11)
@example(0, 1)
@example(1, 1)
def test_first_edge(t_ps: int, f_Hz: int) -> None:
    assert first_edge(t_ps, f_Hz) == exact.first_edge_at_or_after(t_ps, f_Hz)


@given(TIMES, FREQUENCIES)
@example(10**18 - 1, TERA)
@example(10**18 - 1, TERA - 11)
@example(10**18 - 1, 1)
def test_edge_ps(t_ps: int, f_Hz: int) -> None:
    """Edges up to 10^18 ps, also those of clocks so slow that there are few."""
    n = t_ps * f_Hz // TERA
    assert edge_ps(n, f_Hz) == exact.edge_ps(n, f_Hz)
    assert edge_ps(n + 1, f_Hz) == exact.edge_ps(n + 1, f_Hz)


@given(TIMES, FREQUENCIES)
def test_one_is_the_inverse_of_the_other(t_ps: int, f_Hz: int) -> None:
    n = first_edge(t_ps, f_Hz)
    assert first_edge(edge_ps(n, f_Hz), f_Hz) == n
    assert edge_ps(n, f_Hz) >= t_ps
    assert n == 0 or edge_ps(n - 1, f_Hz) < t_ps


@given(st.integers(0, 10**6), st.integers(10**12, 4 * 10**12 - 1))
def test_frequencies_up_to_the_promised_limit(n: int, f_Hz: int) -> None:
    """Clocks of more than one edge a picosecond: several edges may round to the same one."""
    assert edge_ps(n, f_Hz) == exact.edge_ps(n, f_Hz)
    assert first_edge(10**18 - 1 - n, f_Hz) >= (10**18 - 2 - n) * f_Hz // TERA


@pytest.mark.parametrize("t_ps", [0, -1, -(10**15)])
def test_nothing_is_before_edge_0(t_ps: int) -> None:
    assert first_edge(t_ps, 10**9) == 0
    assert first_edge.py_func(t_ps, 10**9) == 0  # type: ignore[attr-defined]


@given(TIMES, FREQUENCIES)
def test_compiled_is_as_written(t_ps: int, f_Hz: int) -> None:
    """In plain Python nothing can overflow, so a difference would be an overflow."""
    n = t_ps * f_Hz // TERA
    assert edge_ps.py_func(n, f_Hz) == edge_ps(n, f_Hz)  # type: ignore[attr-defined]
    assert first_edge.py_func(t_ps, f_Hz) == first_edge(t_ps, f_Hz)  # type: ignore[attr-defined]
