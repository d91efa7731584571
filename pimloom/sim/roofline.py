"""A processor as a roofline: time and energy of products, of what runs at the memory's rate, and of messages.

The model of the xPU in AttAcc's simulator (revision c600051), as the README of the reference data and the simulator's
settings describe it.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import NamedTuple

from pimloom.arch.gpu import Fit, Gpu


class Energy(NamedTuple):
    """Of one processor, in pJ."""

    memory: float = 0.0
    l2: float = 0.0
    l1: float = 0.0
    register: float = 0.0
    alu: float = 0.0
    link: float = 0.0

    def __mul__(self, factor: object) -> Energy:
        """Return the energy of so many."""
        assert isinstance(factor, int | float)
        return Energy(*(part * factor for part in self))

    @property
    def compute(self) -> float:
        """What is spent in the processor itself."""
        return self.l2 + self.l1 + self.register + self.alu

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self)


class Cost(NamedTuple):
    """Of an operator on one processor."""

    seconds: float
    is_memory_bound: bool
    energy: Energy


class Product(NamedTuple):
    """`copies` products m x k · k x n, of the same weights in tiles over all cores or each on a core of its own.

    n: may be fractional, since models are cut into equal parts
    """

    m: int
    n: float
    k: float
    copies: int = 1
    weights: bool = True
    element_B: int = 2

    @property
    def macs(self) -> float:
        """Multiply-adds."""
        return self.m * self.n * self.k * self.copies

    def traffic_B(self, tile: tuple[float, float]) -> float:
        """Bytes to and from whatever is behind tiles of this size."""
        m, n, k = self.m, self.n, self.k
        return (ceil(n / tile[1]) * m * k + ceil(m / tile[0]) * n * k + m * n) * self.element_B * self.copies


def product(gpu: Gpu, work: Product) -> Cost:
    """Time and energy of matrix products."""
    core, cache = _tiles(gpu, work)
    busy = _busy(gpu, _blocks(work, core))
    off = work.traffic_B(cache)
    # Registers are counted once for all products of a kind, as in the simulator.
    register = 3 * work.m * work.n * work.k
    e = gpu.energy
    energy = Energy(
        memory=off * e.memory_pJ_per_B,
        l2=work.traffic_B(core) * e.l2_pJ_per_B,
        l1=work.traffic_B((gpu.tiles.in_registers,) * 2) * e.l1_pJ_per_B,
        register=register * e.register_pJ,
        alu=work.macs * e.mac_pJ,
    )
    return _cost(gpu, 2 * work.macs, work.element_B, off, busy, energy)


def streamed(gpu: Gpu, flop: float, moved_B: float, blocks: int = 1, fit: Fit | None = None) -> Cost:
    """Time and energy of what reads and writes each value once; `fit` gives its time where the memory is the limit.

    blocks: parts that run on a core each
    """
    e = gpu.energy
    energy = Energy(
        memory=moved_B * e.memory_pJ_per_B,
        l2=moved_B * e.l2_pJ_per_B,
        l1=moved_B * e.l1_pJ_per_B,
        register=moved_B * e.register_pJ,
        alu=flop / 2 * e.mac_pJ,
    )
    cost = _cost(gpu, flop, 2, moved_B, _busy(gpu, blocks), energy)
    if fit is None:
        return cost
    fitted = fit.fixed_s + fit.passes * moved_B / gpu.memory_Bps
    compute = _compute_s(gpu, flop, 2, _busy(gpu, blocks))
    return Cost(max(fitted, compute), fitted >= compute, energy)


def all_reduce(gpu: Gpu, processors: int, size_B: float) -> Cost:
    """Time and energy, of one processor, of adding up a vector that each of them has a part of."""
    link, part = gpu.link, size_B / processors
    step = max(link.fixed_s + link.s_per_B * part, part / link.Bps)
    return Cost(step * (processors - 1), True, Energy(link=size_B * gpu.energy.link_pJ_per_B))


def transfer(gpu: Gpu, size_B: float) -> Cost:
    """Time and energy of bytes over the link."""
    return Cost(size_B / gpu.link.Bps, True, Energy(link=size_B * gpu.energy.link_pJ_per_B))


def _compute_s(gpu: Gpu, flop: float, element_B: int, busy: float) -> float:
    return flop / (gpu.peak_FLOPps * gpu.compute_utilisation * busy * (2 // element_B))


def _cost(gpu: Gpu, flop: float, element_B: int, moved_B: float, busy: float, energy: Energy) -> Cost:
    compute = _compute_s(gpu, flop, element_B, busy)
    memory = moved_B / (gpu.memory_Bps * gpu.memory_utilisation * busy)
    return Cost(max(compute, memory), memory >= compute, energy)


def _busy(gpu: Gpu, blocks: int) -> float:
    """Share of the cores that work, when they take blocks in turns."""
    return blocks / (ceil(blocks / gpu.cores) * gpu.cores)


def _blocks(work: Product, core: tuple[float, float]) -> int:
    """Parts that run on a core each."""
    return ceil(work.m / core[0]) * ceil(work.n / core[1]) * work.copies if work.weights else work.copies


def _tiles(gpu: Gpu, work: Product) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the tiles of a core and of the last cache with the least traffic, dear where cores stand idle."""
    t = gpu.tiles
    return _search(work, tuple(t.sizes), t.l1_depth, t.l2_parts, gpu.l1_B, gpu.l2_B, gpu.cores)


@lru_cache(maxsize=1024)
def _search(
    work: Product, sizes: tuple[int, ...], l1_depth: int, l2_parts: int, l1_B: int, l2_B: int, cores: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    m, n, size = work.m, work.n, work.element_B

    def dear(tile: tuple[float, float]) -> float:
        blocks = _blocks(work, tile)
        return work.traffic_B(tile) * (ceil(blocks / cores) * cores / blocks) ** 2

    trial = [(float(min(a, m)), float(min(b, n))) for a in sizes for b in sizes]
    fitting = [(a, b) for a, b in trial if ((a + b) * l1_depth + a * b) * size <= l1_B]
    core = min(fitting, key=dear)
    depth = work.k / l2_parts
    rows = [min(core[0] * i, m) for i in range(1, int(m / core[0]) + 1)] + [m]
    columns = [min(core[1] * i, n) for i in range(1, int(n / core[1]) + 1)] + [n]
    larger = [
        (a, b) for a in rows for b in columns if (a, b) == core or ((a + b) * depth + a * b) * size <= l2_B
    ]
    return core, min(larger, key=work.traffic_B)
