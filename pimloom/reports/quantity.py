"""Numbers for readers: a value with its SI prefix and unit."""

from __future__ import annotations


def seconds(ns: float, digits: int = 4) -> str:
    """Return a time, such as 1.194 s."""
    return _scaled(ns, digits, ("ns", "µs", "ms", "s"))


def joules(pJ: float | None, digits: int = 4) -> str:
    """Return an energy, such as 13.39 J; n/a for None."""
    return "n/a" if pJ is None else _scaled(pJ, digits, ("pJ", "nJ", "µJ", "mJ", "J", "kJ"))


def bytes_per_s(Bps: float, digits: int = 4) -> str:
    """Return a rate, such as 2.34 TB/s."""
    return _scaled(Bps, digits, ("B/s", "kB/s", "MB/s", "GB/s", "TB/s"))


def percent(share: float, decimals: int = 1) -> str:
    """Return a share of 1 in percent; what would be rounded to 0 is said to be less than the last digit."""
    smallest = 10.0**-decimals
    return f"<{smallest:g} %" if 0 < 100 * share < smallest / 2 else f"{100 * share:.{decimals}f} %"


def times(ratio: float) -> str:
    """Return a ratio with three digits and its sign: 1.50×, 651×."""
    three_digits = 1000
    return f"{ratio:#.3g}".rstrip(".") + "×" if ratio < three_digits else f"{ratio:.0f}×"


def scale(value: float, units: tuple[str, ...]) -> tuple[str, float]:
    """Return the unit that suits `value`, which is given in the first one, and the factor from there."""
    factor = 1.0
    for unit in units[:-1]:
        if value * factor < 1000:  # noqa: PLR2004
            return unit, factor
        factor /= 1000
    return units[-1], factor


def _scaled(value: float, digits: int, units: tuple[str, ...]) -> str:
    unit, factor = scale(value, units)
    return f"{value * factor:.{digits}g} {unit}"
