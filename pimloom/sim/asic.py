"""The ASIC's functions: clocks that follow from operations and units, and their meaning in numbers.

Only additions and multiplications exist (PIM-GPT, methods): exp is a Taylor series after range reduction,
division is a Newton-Raphson reciprocal and a product, 1/sqrt is the bit trick with Newton steps.
"""

from __future__ import annotations

from collections.abc import Callable
from math import factorial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pimloom.arch.machine import Asic

F4 = npt.NDArray[np.float32]


class Work(NamedTuple):
    """One step over `elements` values: additions and multiplications each; `depth` clocks of dependence besides."""

    adds: int
    mults: int
    elements: int
    depth: int = 0


def clocks(asic: Asic, steps: list[Work]) -> int:
    """Return the clocks of steps done one after the other, each pipelined over all adders and multipliers."""
    total = 0
    for step in steps:
        adding = -(-step.adds * step.elements // asic.adders)
        multiplying = -(-step.mults * step.elements // asic.multipliers)
        total += max(adding, multiplying) + step.depth
    return total


def _reduce(asic: Asic, size: int, count: int) -> Work:
    """Return the step that combines `size` values to one, for `count` groups; the adder tree's depth is extra."""
    return Work(1, 0, (size - 1) * count, (min(size, asic.adders) - 1).bit_length())


def _exp(asic: Asic) -> tuple[int, int]:
    """Return (additions, multiplications) of an exp: x/ln 2 rounded, remainder, Horner, exponent field."""
    return 2 + (asic.taylor_terms - 1) + 1, 2 + (asic.taylor_terms - 1)


def _reciprocal(asic: Asic) -> tuple[int, int]:
    """Return (additions, multiplications) of a reciprocal: linear seed, Newton steps, exponent field."""
    return 1 + asic.newton_iterations + 1, 1 + 2 * asic.newton_iterations


def _rsqrt(asic: Asic) -> tuple[int, int]:
    """Return (additions, multiplications) of 1/sqrt: half the argument, shift and subtract, Newton steps."""
    return 1 + asic.rsqrt_iterations, 1 + 3 * asic.rsqrt_iterations


def _softmax_steps(asic: Asic, size: int, count: int) -> list[Work]:
    return [
        _reduce(asic, size, count),  # the largest score; a comparison is a subtraction
        Work(1, 0, size * count),
        Work(*_exp(asic), size * count),
        _reduce(asic, size, count),
        Work(*_reciprocal(asic), count),
        Work(0, 1, size * count),
    ]


def _layernorm_steps(asic: Asic, size: int, count: int) -> list[Work]:
    return [
        _reduce(asic, size, count),
        Work(0, 1, count),  # mean
        Work(1, 1, size * count),  # deviation and its square
        _reduce(asic, size, count),
        Work(1, 1, count),  # variance + epsilon
        Work(*_rsqrt(asic), count),
        Work(1, 2, size * count),  # scale, weight, bias
    ]


def _gelu_steps(asic: Asic, size: int, count: int) -> list[Work]:
    exp, reciprocal = _exp(asic), _reciprocal(asic)
    # Argument: 4 products and 1 sum; tanh(u) = 1 - 2 / (exp(2u) + 1); then (1 + tanh) times x / 2.
    return [Work(1 + exp[0] + 1 + reciprocal[0] + 1 + 1, 4 + exp[1] + reciprocal[1] + 1 + 2, size * count)]


STEPS: dict[str, Callable[[Asic, int, int, int], list[Work]]] = {
    "accumulate": lambda asic, size, count, inputs: [Work(count + inputs - 2, 0, size)],
    "add": lambda asic, size, count, inputs: [Work(1, 0, size * count)],
    "scale": lambda asic, size, count, inputs: [Work(0, 1, size * count)],
    "relu": lambda asic, size, count, inputs: [Work(1, 0, size * count)],
    "gelu_tanh": lambda asic, size, count, inputs: _gelu_steps(asic, size, count),
    "argmax": lambda asic, size, count, inputs: [_reduce(asic, size, count)],
    "softmax": lambda asic, size, count, inputs: _softmax_steps(asic, size, count),
    "layernorm": lambda asic, size, count, inputs: _layernorm_steps(asic, size, count),
}
"""Function -> steps, given the ASIC, values a group, groups (accumulate: parts) and number of inputs."""


def cycles(asic: Asic, function: str, size: int, count: int, inputs: int) -> int:
    """Return the ASIC clocks of a function. Raises KeyError for a function that the ASIC lacks."""
    return clocks(asic, STEPS[function](asic, size, count, inputs))


# --- meaning -------------------------------------------------------------------------------------------------


class Exact:
    """The functions in float32 as NumPy computes them."""

    def exp(self, x: F4) -> F4:
        """Return e**x."""
        return np.asarray(np.exp(x), np.float32)

    def reciprocal(self, x: F4) -> F4:
        """Return 1/x."""
        return np.asarray(np.float32(1) / x, np.float32)

    def rsqrt(self, x: F4) -> F4:
        """Return 1/sqrt(x)."""
        return np.asarray(np.float32(1) / np.sqrt(x), np.float32)


class Approximate(Exact):
    """The functions as the ASIC builds them from additions and multiplications, in float32."""

    def __init__(self, asic: Asic) -> None:
        self.asic = asic

    def exp(self, x: F4) -> F4:
        """Return e**x = 2**k e**r with |r| <= ln 2 / 2 and the Taylor series of e**r by Horner's rule."""
        x = np.maximum(x, np.float32(-87.0))
        k = np.rint(x * np.float32(1 / np.log(2)))
        r = (x - k * np.float32(np.log(2))).astype(np.float32)
        total = np.zeros_like(r)
        for n in range(self.asic.taylor_terms - 1, -1, -1):
            total = total * r + np.float32(1 / factorial(n))
        return np.asarray(np.ldexp(total, k.astype(np.int32)), np.float32)

    def reciprocal(self, x: F4) -> F4:
        """Return 1/x for x > 0 from the seed 48/17 - 32/17 m on the mantissa m in [0.5, 1) and Newton-Raphson steps."""
        m, e = np.frexp(x)
        y = np.float32(48 / 17) - np.float32(32 / 17) * m
        for _ in range(self.asic.newton_iterations):
            y = y * (np.float32(2) - m * y)
        return np.asarray(np.ldexp(y, -e), np.float32)

    def rsqrt(self, x: F4) -> F4:
        """Return 1/sqrt(x) by the bit trick (magic number 0x5f3759df) and Newton steps."""
        half = np.float32(0.5) * x
        bits = np.int32(0x5F3759DF) - (np.asarray(x, np.float32).view(np.int32) >> 1)
        y = bits.view(np.float32)
        for _ in range(self.asic.rsqrt_iterations):
            y = y * (np.float32(1.5) - half * y * y)
        return np.asarray(y, np.float32)


def compute(function: str, maths: Exact, size: int, count: int, inputs: list[F4], scalar: float) -> F4:
    """Return the result of a function on float32 vectors, `count` groups of `size` values one after the other."""
    x = inputs[0].astype(np.float32)
    constant = np.float32(scalar)
    if function == "accumulate":
        total: F4 = x.reshape(count, size).sum(0, dtype=np.float32)
        return total + inputs[1] if len(inputs) > 1 else total
    if function == "add":
        return x + inputs[1]
    if function == "scale":
        return x * constant
    if function == "argmax":
        return np.array([x.argmax()], np.float32)
    if function == "relu":
        return np.maximum(x, np.float32(0))
    if function == "gelu_tanh":
        u = np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x * x * x)
        tanh = np.float32(1) - np.float32(2) * maths.reciprocal(
            maths.exp(np.minimum(np.float32(2) * u, np.float32(80))) + np.float32(1)
        )
        return np.float32(0.5) * x * (np.float32(1) + tanh)
    rows = x.reshape(count, size)
    if function == "softmax":
        e = maths.exp(rows - rows.max(1, keepdims=True))
        result: F4 = e * maths.reciprocal(e.sum(1, keepdims=True, dtype=np.float32))
        return result.reshape(-1)
    if function == "layernorm":
        d = rows - rows.mean(1, keepdims=True, dtype=np.float32)
        variance = (d * d).mean(1, keepdims=True, dtype=np.float32)
        normed: F4 = d * maths.rsqrt(variance + constant) * inputs[1] + inputs[2]
        return normed.reshape(-1)
    raise KeyError(function)
