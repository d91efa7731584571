"""Clock edges in picoseconds, computed from the edge's number so that no rounding error adds up.

Plain Python integers: exact for any frequency and any time.
"""

PS_PER_S = 10**12


def edge_ps(n: int, f_Hz: int) -> int:
    """Time in ps of edge `n` of a clock of `f_Hz` that starts at 0: ceil(n * 10^12 / f_Hz)."""
    return -(-n * PS_PER_S // f_Hz)


def first_edge_at_or_after(t_ps: int, f_Hz: int) -> int:
    """The smallest n whose `edge_ps(n, f_Hz)` is `t_ps` or later."""
    # ceil(x) >= t holds for an integer t exactly when x > t - 1.
    return (t_ps - 1) * f_Hz // PS_PER_S + 1
