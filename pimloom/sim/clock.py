"""Clock domains inside kernels: edges in picoseconds and back, exact in 64 bits.

Twins of `arch.clock`, whose Python integers have no bound; here the product n x 10^12 is cut in two so that
nothing overflows for frequencies below 4 x 10^12 Hz and times below 10^18 ps.
"""

from __future__ import annotations

from pimloom.sim.jit import kernel

MEGA, TERA = 1_000_000, 1_000_000_000_000


@kernel
def edge_ps(n: int, f_Hz: int) -> int:
    """Return the time in ps of edge n of a clock of f_Hz: ceil(n x 10^12 / f_Hz)."""
    seconds, rest = n // f_Hz, n % f_Hz
    high, carry = (rest * MEGA) // f_Hz, (rest * MEGA) % f_Hz
    low = carry * MEGA
    return seconds * TERA + high * MEGA + low // f_Hz + (1 if low % f_Hz else 0)


@kernel
def first_edge(t_ps: int, f_Hz: int) -> int:
    """Return the number of the first edge of a clock of f_Hz at or after t_ps."""
    if t_ps <= 0:
        return 0
    seconds, rest = (t_ps - 1) // TERA, (t_ps - 1) % TERA
    high, low = rest // MEGA, rest % MEGA
    whole, part = (high * f_Hz) // MEGA, (high * f_Hz) % MEGA
    return seconds * f_Hz + whole + (part * MEGA + low * f_Hz) // TERA + 1
