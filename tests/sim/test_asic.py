"""The ASIC: clocks by hand at awkward sizes, and how far its arithmetic is from the exact one."""

from functools import cache
from math import exp, factorial, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimloom.arch.machine import Asic, load_arch
from pimloom.sim.asic import STEPS, Approximate, Exact, Work, clocks, compute, cycles


@cache
def asic(**changes: int) -> Asic:
    """256 adders, 128 multipliers, 6 Taylor terms, 2 Newton and 1 inverse-root iterations, or as said."""
    return load_arch("pim-gpt", [f"asic.{key}={value}" for key, value in changes.items()])[0].asic


TINY = {"adders": 1, "multipliers": 1, "taylor_terms": 1, "newton_iterations": 0, "rsqrt_iterations": 0}

# --- clocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "size", "count", "inputs", "expected"),
    [
        # One addition an element on 256 adders.
        ("add", 1, 1, 2, 1), ("add", 255, 1, 2, 1), ("add", 256, 1, 2, 1), ("add", 257, 1, 2, 2),
        ("add", 255, 257, 2, 256), ("relu", 256, 1, 1, 1), ("relu", 257, 1, 1, 2),
        # One product an element on 128 multipliers.
        ("scale", 127, 1, 1, 1), ("scale", 128, 1, 1, 1), ("scale", 129, 1, 1, 2), ("scale", 768, 1, 1, 6),
        # parts - 1 additions an element, one more with a bias.
        ("accumulate", 256, 1, 1, 0), ("accumulate", 256, 1, 2, 1), ("accumulate", 257, 1, 2, 2),
        ("accumulate", 256, 2, 1, 1), ("accumulate", 256, 3, 2, 3), ("accumulate", 255, 4, 2, 4),
        ("accumulate", 3072, 1, 2, 12), ("accumulate", 768, 3, 2, 9),
        # n - 1 comparisons, then the tree's levels: ceil(log2(min(n, 256))).
        ("argmax", 1, 1, 1, 0), ("argmax", 2, 1, 1, 1 + 1), ("argmax", 255, 1, 1, 1 + 8),
        ("argmax", 256, 1, 1, 1 + 8), ("argmax", 257, 1, 1, 1 + 8), ("argmax", 258, 1, 1, 2 + 8),
        ("argmax", 50257, 1, 1, 197 + 8),
        # 16 additions and 19 products an element.
        ("gelu_tanh", 1, 1, 1, 1), ("gelu_tanh", 6, 1, 1, 1), ("gelu_tanh", 7, 1, 1, 2),
        ("gelu_tanh", 128, 1, 1, 19), ("gelu_tanh", 129, 1, 1, 20), ("gelu_tanh", 3072, 1, 1, 456),
        # maximum, difference, exp (8 additions, 7 products), sum, reciprocal (4, 5), product
        ("softmax", 1, 1, 1, 0 + 1 + 1 + 0 + 1 + 1), ("softmax", 127, 1, 1, 8 + 1 + 7 + 8 + 1 + 1),
        ("softmax", 128, 1, 1, 8 + 1 + 7 + 8 + 1 + 1), ("softmax", 129, 1, 1, 9 + 1 + 8 + 9 + 1 + 2),
        ("softmax", 256, 1, 1, 9 + 1 + 14 + 9 + 1 + 2), ("softmax", 257, 1, 1, 9 + 2 + 15 + 9 + 1 + 3),
        ("softmax", 1, 12, 1, 0 + 1 + 1 + 0 + 1 + 1), ("softmax", 1024, 12, 1, 56 + 48 + 672 + 56 + 1 + 96),
        ("softmax", 3, 26, 1, (1 + 2) + 1 + 5 + (1 + 2) + 2 + 1),
        # sum, mean, deviation and square, sum, variance, 1/sqrt (2, 4), scale and bias
        ("layernorm", 1, 1, 3, 0 + 1 + 1 + 0 + 1 + 1 + 1), ("layernorm", 64, 1, 3, 7 + 1 + 1 + 7 + 1 + 1 + 1),
        ("layernorm", 65, 1, 3, 8 + 1 + 1 + 8 + 1 + 1 + 2),
        ("layernorm", 128, 1, 3, 8 + 1 + 1 + 8 + 1 + 1 + 2),
        ("layernorm", 129, 1, 3, 9 + 1 + 2 + 9 + 1 + 1 + 3),
        ("layernorm", 768, 1, 3, 11 + 1 + 6 + 11 + 1 + 1 + 12),
    ],
)  # fmt: skip
def test_clocks_by_hand(function: str, size: int, count: int, inputs: int, expected: int) -> None:
    assert cycles(asic(), function, size, count, inputs) == expected


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("add", 5), ("scale", 5), ("accumulate", 5), ("argmax", 4), ("gelu_tanh", 5 * 10),
        ("softmax", 4 + 5 + 15 + 4 + 2 + 5), ("layernorm", 4 + 1 + 5 + 4 + 1 + 1 + 10),
    ],
)  # fmt: skip
def test_clocks_of_one_unit_of_each_kind(function: str, expected: int) -> None:
    """Every operation one by one: exp 3 additions and 2 products, reciprocal 2 and 1, 1/sqrt 1 and 1."""
    assert cycles(asic(**TINY), function, 5, 1, 2) == expected


def test_all_functions_are_covered_and_others_refused() -> None:
    assert set(STEPS) == {"accumulate", "add", "scale", "relu", "gelu_tanh", "argmax", "softmax", "layernorm"}
    with pytest.raises(KeyError, match="tanh"):
        cycles(asic(), "tanh", 1, 1, 1)
    with pytest.raises(KeyError, match="tanh"):
        compute("tanh", Exact(), 1, 1, [np.zeros(1, np.float32)], 0.0)


@given(st.sampled_from(sorted(STEPS)), st.integers(1, 2000), st.integers(1, 40), st.integers(1, 3))
def test_more_work_or_fewer_units_never_take_less(function: str, size: int, count: int, inputs: int) -> None:
    here = cycles(asic(), function, size, count, inputs)
    assert cycles(asic(), function, size + 1, count, inputs) >= here >= 0
    assert cycles(asic(), function, size, count + 1, inputs) >= here
    assert cycles(asic(multipliers=64), function, size, count, inputs) >= here


def test_a_step_takes_the_slower_kind_of_unit() -> None:
    assert clocks(asic(), [Work(1, 1, 1000), Work(3, 0, 256, 7), Work(0, 0, 5)]) == 8 + (3 + 7) + 0


# --- numbers --------------------------------------------------------------------------------------

RNG = np.random.default_rng(7)
WIDE = np.concatenate(
    [
        np.exp(RNG.uniform(-80, 80, 100_000)).astype(np.float32),
        np.float32(2) ** np.arange(-100, 100, dtype=np.float32),
        np.nextafter(np.float32(2) ** np.arange(-100, 100, dtype=np.float32), np.float32(0)),
    ]
)
"""Positive numbers of all sizes, and the two sides of every power of two."""


def worst(got: np.ndarray, wanted: np.ndarray) -> float:
    """Largest relative error against float64."""
    return float(np.max(np.abs(got.astype(np.float64) - wanted) / wanted))


@pytest.mark.parametrize("terms", range(1, 9))
def test_exp(terms: int) -> None:
    """The terms left out at |r| = ln 2 / 2, relative to the smallest value, and what float32 adds."""
    x = np.linspace(-87, 88, 200_001).astype(np.float32)
    a = log(2) / 2
    left_out = exp(a) * sum(a**k / factorial(k) for k in range(terms, 30))
    error = worst(Approximate(asic(taylor_terms=terms)).exp(x), np.exp(x.astype(np.float64)))
    assert error < left_out + 5e-6
    assert error > left_out / 3 or terms > 6


def test_exp_as_shipped() -> None:
    x = np.linspace(-20, 0, 200_001).astype(np.float32)
    maths = Approximate(asic())
    assert worst(maths.exp(x), np.exp(x.astype(np.float64))) < 4e-6
    assert maths.exp(np.float32([0])).tolist() == [1]
    assert maths.exp(np.float32([-100, -1e30])).max() < 2e-38  # nothing is left, and nothing overflows


@pytest.mark.parametrize("iterations", range(5))
def test_reciprocal(iterations: int) -> None:
    """The seed is off by at most 1/17, and every step squares that."""
    error = worst(
        Approximate(asic(newton_iterations=iterations)).reciprocal(WIDE), 1 / WIDE.astype(np.float64)
    )
    bound = (1 / 17) ** 2**iterations
    assert error < bound + 3e-7
    assert error > 0.9 * bound or iterations > 2


@pytest.mark.parametrize(("iterations", "bound"), [(0, 0.0344), (1, 1.76e-3), (2, 4.8e-6), (3, 2e-7)])
def test_rsqrt(iterations: int, bound: float) -> None:
    """Known errors of the bit trick with the magic number 0x5f3759df."""
    error = worst(Approximate(asic(rsqrt_iterations=iterations)).rsqrt(WIDE), WIDE.astype(np.float64) ** -0.5)
    assert error < bound
    assert error > 0.9 * bound or iterations > 2


def test_exact_is_numpy() -> None:
    x, maths = WIDE[:1000], Exact()
    assert np.array_equal(maths.exp(np.log(x)), np.exp(np.log(x)))
    assert np.array_equal(maths.reciprocal(x), np.float32(1) / x)
    assert np.array_equal(maths.rsqrt(x), np.float32(1) / np.sqrt(x))
    assert maths.exp(-x).dtype == maths.reciprocal(x).dtype == maths.rsqrt(x).dtype == np.float32


def reference(function: str, size: int, count: int, inputs: list[np.ndarray], scalar: float) -> np.ndarray:
    """What a function means, in float64."""
    x, *more = (value.astype(np.float64) for value in inputs)
    rows = x.reshape(count, size)
    if function == "softmax":
        e = np.exp(rows - rows.max(1, keepdims=True))
        return (e / e.sum(1, keepdims=True)).ravel()
    if function == "layernorm":
        d = rows - rows.mean(1, keepdims=True)
        return (d / np.sqrt((d * d).mean(1, keepdims=True) + scalar) * more[0] + more[1]).ravel()
    return {
        "accumulate": lambda: rows.sum(0) + sum(more),
        "add": lambda: x + more[0],
        "scale": lambda: x * scalar,
        "relu": lambda: np.maximum(x, 0),
        "argmax": lambda: np.array([np.argmax(x)], np.float64),
        "gelu_tanh": lambda: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    }[function]()


SHAPES = {
    "accumulate": [(1, 1), (5, 3), (256, 4)], "add": [(1, 1), (257, 1)], "scale": [(3, 1)], "relu": [(9, 1)],
    "argmax": [(1, 1), (300, 1)], "gelu_tanh": [(1, 1), (500, 1)], "softmax": [(1, 1), (7, 3), (300, 2)],
    "layernorm": [(2, 1), (257, 1)],
}  # fmt: skip
CASES = [(function, *shape) for function in SHAPES for shape in SHAPES[function]]


@pytest.mark.parametrize(("function", "size", "count"), CASES)
@pytest.mark.parametrize("approximate", [False, True], ids=["exact", "asic"])
def test_functions_mean_what_they_say(function: str, size: int, count: int, approximate: bool) -> None:
    rng = np.random.default_rng(size)
    others = {"add": 1, "accumulate": 1, "layernorm": 2}.get(function, 0)
    width = size if function == "accumulate" else size * count
    values = [rng.normal(0, 3, size * count), *(rng.normal(0, 1, width) for _ in range(others))]
    inputs = [v.astype(np.float32) for v in values]
    got = compute(function, Approximate(asic()) if approximate else Exact(), size, count, inputs, 0.25)
    wanted = reference(function, size, count, inputs, 0.25)
    assert got.dtype == np.float32 and got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= (2.5e-3 if approximate else 2e-6) * max(1, np.abs(wanted).max())


@pytest.mark.parametrize("maths", [Exact(), Approximate(asic())], ids=["exact", "asic"])
def test_extreme_arguments_stay_finite(maths: Exact) -> None:
    x = np.float32([-1e4, -50, -10, 0, 10, 50, 1e4])
    gelu = compute("gelu_tanh", maths, 7, 1, [x], 0.0)
    assert np.isfinite(gelu).all()
    assert gelu[-3:] == pytest.approx(x[-3:], rel=2e-5)
    assert np.abs(gelu[:3]).max() < 0.5  # 1 - 2/(1 + 0) is off by the reciprocal's error, times x/2
    probabilities = compute("softmax", maths, 7, 1, [x], 0.0)
    assert probabilities == pytest.approx([0, 0, 0, 0, 0, 0, 1], abs=2e-5)
    same = [np.full(4, 3, np.float32), np.ones(4, np.float32), np.zeros(4, np.float32)]
    equal = compute("layernorm", maths, 4, 1, same, 1e-5)
    assert equal.tolist() == [0, 0, 0, 0]
