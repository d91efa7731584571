"""The roofline of a processor, against sums by hand."""

from __future__ import annotations

import pytest

from pimloom.arch.gpu import Gpu, load_gpu
from pimloom.sim.roofline import Product, all_reduce, product, streamed, transfer


def host(*overrides: str) -> Gpu:
    return load_gpu("a100a", overrides)[0]


def test_a_matrix_too_large_for_caches_is_read_once() -> None:
    """One row of 12288 times 12288 x 4608: the weights count."""
    cost = product(host(), Product(1, 4608, 12288))
    moved = (12288 + 4608 * 12288 + 4608) * 2
    assert cost.is_memory_bound
    assert cost.energy.memory == pytest.approx(moved * 28.72)
    ideal = moved / (3352e9 * 0.85)
    assert ideal < cost.seconds < 1.5 * ideal


def test_large_products_compute() -> None:
    cost = product(host(), Product(8192, 8192, 8192))
    assert not cost.is_memory_bound
    assert cost.seconds >= 2 * 8192**3 / (312e12 * 0.8)
    assert product(host(), Product(8192, 8192, 8192, element_B=1)).seconds == pytest.approx(
        cost.seconds / 2, rel=0.05
    )


def test_independent_products_take_a_core_each() -> None:
    one = product(host(), Product(1, 2048, 128, 108, weights=False))
    assert product(host(), Product(1, 2048, 128, 109, weights=False)).seconds == pytest.approx(
        2 * one.seconds
    )
    assert product(host(), Product(1, 2048, 128, 1, weights=False)).seconds == pytest.approx(one.seconds)


def test_streamed() -> None:
    h = host()
    cost = streamed(h, 0, 3352e9, blocks=108)
    assert cost.seconds == pytest.approx(1 / 0.85)
    assert cost.energy.memory == pytest.approx(3352e9 * 28.72)
    assert streamed(h, 0, 1555e3, fit=h.norm).seconds == pytest.approx(
        6.87e-6 + 1.6e-12 * 1555e9 / 3352e9 * 1555e3
    )
    # One core for what has a fit: 312e12 x 0.8 / 108 operations a second.
    bound = streamed(h, 312e12 * 0.8 / 108, 0, fit=h.activation)
    assert bound.seconds == pytest.approx(1)
    assert not bound.is_memory_bound


@pytest.mark.parametrize(
    ("size", "step"), [(8, 6.06e-6 + 9e-12), (8e6, 6.06e-6 + 9e-6), (8e9, 6.06e-6 + 9e-3), (0, 6.06e-6)]
)
def test_all_reduce_is_a_ring(size: float, step: float) -> None:
    cost = all_reduce(host(), 8, size)
    assert cost.seconds == pytest.approx(7 * step)
    assert cost.energy.total == pytest.approx(size * 10.4)


def test_a_slow_link_is_what_counts() -> None:
    slow = host("link.Bps=1e9")
    assert all_reduce(slow, 2, 2e6).seconds == pytest.approx(1e-3)
    assert transfer(slow, 1e6).seconds == pytest.approx(1e-3)
