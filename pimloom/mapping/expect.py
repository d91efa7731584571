"""What every task of a plan must yield, from the tensors and the task's own inputs, in double precision.

Each expectation comes with a bound on the rounding errors that the machine's arithmetic may make, so whatever
lies outside is a wrong program, a wrong layout or a wrong cell. The bounds are derived as in Higham, Accuracy
and Stability of Numerical Algorithms, chapter 3: k roundings after one another make a relative error of at
most k u / (1 - k u), u being half the distance from 1 to the next number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import exp, factorial, log, log2

import numpy as np
import numpy.typing as npt

from pimloom.arch.machine import Asic
from pimloom.mapping.fill import F4, stripe
from pimloom.mapping.lower import register_name
from pimloom.mapping.site import Site
from pimloom.traces.layout import Place, Striped, Tiled
from pimloom.traces.task import AsicTask, PimTask, Task
from pimloom.workloads.graph import Op

F8 = npt.NDArray[np.float64]
Registers = Mapping[str, F4]

U32 = 2.0**-24
"""Unit roundoff of float32."""
U16 = 2.0**-8
"""Unit roundoff of bf16, which has 8 significant bits."""
TINY = 1e-36
"""Below it float32, bf16 and the ASIC's exp lose numbers altogether."""
BLOCK = 1 << 17
"""Elements of a matrix turned to double precision at a time, which stay in the processor's cache."""


@dataclass(frozen=True)
class Expected:
    """Values of a register after a task; bound: f8, largest difference that rounding can make.

    cells: value number -> the cells behind it and what they should hold; None where no bank is involved
    """

    values: F8
    bound: F8
    cells: Callable[[int], tuple[Place, F4]] | None = None


@dataclass(frozen=True)
class Errors:
    """Relative errors of the ASIC's functions beyond those of float32 itself."""

    exp: float = 0.0
    reciprocal: float = 0.0
    rsqrt: float = 0.0

    @staticmethod
    def of(asic: Asic) -> Errors:
        """Return the errors that an ASIC's series and iterations leave.

        exp: Lagrange's remainder on |r| <= ln 2 / 2; reciprocal: the seed is within 1/17, a Newton step
        squares that; 1/sqrt: the bit trick is within 3.44 %, a Newton step makes e into 1.5 e**2 + 0.5 e**3.
        """
        r, terms = log(2) / 2, asic.taylor_terms
        seed = 0.0344
        for _ in range(asic.rsqrt_iterations):
            seed = 1.5 * seed**2 + 0.5 * seed**3
        return Errors(
            exp=r**terms / factorial(terms) * exp(r),
            reciprocal=(1 / 17) ** 2**asic.newton_iterations,
            rsqrt=seed,
        )


class Expectations:
    """Follows a run task by task; `of` says what a task must yield."""

    def __init__(
        self, site: Site, tensors: Mapping[str, F4], rounded: Callable[[F4], F4], device: bool
    ) -> None:
        """tensors: as the banks hold them, so already rounded; rounded: what the pins make of a vector."""
        self.site, self.tensors, self.rounded = site, tensors, rounded
        self.errors = Errors.of(site.arch.asic) if device else Errors()
        self.pins = U16 if device else 0.0
        ops = (*site.graph.prologue, *site.graph.layer, *site.graph.epilogue)
        self.ops = {op.name: op for op in ops}
        self.layer = {op.name for op in site.graph.layer}
        self.caches = {op.output: op for op in ops if op.kind in ("cache_k", "cache_v")}
        self.history: dict[tuple[str, int], list[F4]] = {}

    def finished(self, task: Task) -> str:
        """Return the operator whose output the task writes, without its layer; empty for a part of one."""
        op = self.ops.get(task.name.partition(".")[0])
        written = task.writes[0].partition(".")[0] if task.writes else ""
        outputs = {op.output, *(f"{op.output}{s}" for s in range(self.site.workload.batch))} if op else set()
        return op.name if op and written in outputs and not task.writes[0].endswith(".parts") else ""

    def of(self, task: Task, turn: int, position: int, registers: Registers) -> Expected | None:
        """Return what the task must leave in its register; None for a write, which later reads prove.

        registers: as they were before the task
        """
        name, _, step = task.name.partition(".")
        if isinstance(task, PimTask) and task.region.endswith(".parameters"):
            return self._stripe(task, turn)
        op = self.ops[name]
        if name in self.layer:
            op = replace(op, parameters=tuple(f"layer{turn}.{parameter}" for parameter in op.parameters))
        if isinstance(task, PimTask):
            return self._in_banks(task, op, turn, position, registers)
        sequence = int(task.output.split(".")[1])
        if step == "sum":
            parts = registers[f"{register_name(op.output, sequence)}.parts"]
            return self._sum(task, op, parts.astype(np.float64))
        if step == "token":
            logits = registers[register_name(op.output, sequence)]
            return Expected(np.array([float(np.argmax(logits))]), np.zeros(1))
        names = [register_name(register, sequence) for register in op.inputs]
        if op.kind == "embed":
            names = [register_name(register, sequence) for register in ("wte", "wpe")]
        inputs = [registers[register][part_of(op)].astype(np.float64) for register in names]
        return self._on_asic(op, turn, inputs)

    # --- banks ----------------------------------------------------------------------------------------------

    def _in_banks(
        self, task: PimTask, op: Op, turn: int, position: int, registers: Registers
    ) -> Expected | None:
        sequence = int((task.sink or task.source).split(".")[1])
        if op.kind == "embed":
            number = self.site.token(position, sequence) if task.region == "wte" else position
            return self._row(task, self.tensors[task.region], number)
        source = self.rounded(registers[task.source])
        if op.kind == "linear":
            return self._linear(task, self.tensors[op.parameters[0]], turn, source)
        if op.kind in ("cache_k", "cache_v"):
            return None
        written = self.caches[op.inputs[1]]
        row = registers[register_name(written.inputs[0], sequence)]
        history = self.history.setdefault((task.region, turn), [])
        history.append(self.rounded(row[part_of(written)]))
        stored = np.stack(history).reshape(-1, *op.shape)
        if op.kind == "score":
            return self._score(task, turn, source.reshape(op.shape), stored)
        return self._context(task, turn, source.reshape(op.shape[0], -1), stored)

    def _cells(
        self, task: PimTask, turn: int, output: int, segment: int, first: int, held: F4
    ) -> tuple[Place, F4]:
        """Return the cells of part of a dot product and what they hold."""
        region = self.site.regions[task.region]
        assert isinstance(region.layout, Tiled)
        place = region.layout.place(output, segment, np.arange(first, first + len(held)))
        return place._replace(row=place.row + region.base_row + turn * self._stride(task.region)), held

    def _stride(self, region: str) -> int:
        """Return the rows from one layer to the next, 0 for a region outside the layers."""
        return self.site.layer_rows if self.site.regions[region].base_row < self.site.layer_rows else 0

    def _dot_bound(self, values: F8, magnitudes: F8, length: int) -> F8:
        """Return the error bound of dot products; magnitudes: the sums of the absolute products.

        A product is rounded once, passes the levels of the adder tree, and is part of at most as many partial
        sums as the unit adds up; the result is rounded to bf16 on the pins, where they carry that.
        """
        lanes, unit = self.site.grid.lanes, self.site.arch.pim.lanes
        steps = -(-length // lanes) * -(-lanes // unit)
        k = 1 + (unit - 1).bit_length() + steps
        inside = k * U32 / (1 - k * U32) * magnitudes
        return inside + self.pins * (np.abs(values) + inside) + TINY

    def _linear(self, task: PimTask, weight: F4, turn: int, x: F4) -> Expected:
        layout = self.site.regions[task.region].layout
        assert isinstance(layout, Tiled)
        lanes, wide = layout.grid.lanes, x.astype(np.float64)
        values, magnitudes = np.empty((2, len(layout.chunks), len(weight)))
        size = max(1, BLOCK // len(x))
        for first in range(0, len(weight), size):
            rows = slice(first, first + size)
            block = weight[rows].astype(np.float64)
            absolute = np.abs(block)
            for k, chunk in enumerate(layout.chunks):
                part = slice(chunk.first * lanes, (chunk.first + chunk.width) * lanes)
                values[k, rows] = block[:, part] @ wide[part]
                magnitudes[k, rows] = absolute[:, part] @ np.abs(wide[part])

        def cells(i: int) -> tuple[Place, F4]:
            k, output = divmod(i, len(weight))
            first = layout.chunks[k].first * lanes
            held = weight[output, first : first + layout.chunks[k].width * lanes]
            return self._cells(task, turn, output, 0, first, held)

        length = max(chunk.width for chunk in layout.chunks) * lanes
        return Expected(values.ravel(), self._dot_bound(values, magnitudes, length).ravel(), cells)

    def _score(self, task: PimTask, turn: int, q: F4, keys: F4) -> Expected:
        wide, stored = q.astype(np.float64), keys.astype(np.float64)
        values = np.einsum("hd,thd->ht", wide, stored).ravel()
        magnitudes = np.einsum("hd,thd->ht", np.abs(wide), np.abs(stored)).ravel()

        def cells(i: int) -> tuple[Place, F4]:
            head, token = divmod(i, len(keys))
            return self._cells(task, turn, token, head, 0, keys[token, head])

        return Expected(values, self._dot_bound(values, magnitudes, q.shape[1]), cells)

    def _context(self, task: PimTask, turn: int, p: F4, stored: F4) -> Expected:
        layout = self.site.regions[task.region].layout
        assert isinstance(layout, Tiled)
        tokens, heads, d_head = stored.shape
        size = layout.chunks[0].width * layout.grid.lanes  # all chunks but the last are that long
        parts = range(0, tokens, size)
        values, magnitudes = np.empty((2, len(parts), heads, d_head))
        for k, first in enumerate(parts):
            weights = p[:, first : first + size].astype(np.float64)
            vectors = stored[first : first + size].astype(np.float64)
            values[k] = np.einsum("ht,thd->hd", weights, vectors)
            magnitudes[k] = np.einsum("ht,thd->hd", np.abs(weights), np.abs(vectors))

        def cells(i: int) -> tuple[Place, F4]:
            k, at = divmod(i, heads * d_head)
            head, dimension = divmod(at, d_head)
            held = stored[k * size : (k + 1) * size, head, dimension]
            return self._cells(task, turn, head * self.site.head_rows + dimension, 0, k * size, held)

        bound = self._dot_bound(values, magnitudes, min(size, tokens))
        return Expected(values.ravel(), bound.ravel(), cells)

    def _row(self, task: PimTask, table: F4, row: int) -> Expected:
        """Return a stored row, which comes out as it was put in."""
        held = table[row]
        return Expected(
            held.astype(np.float64),
            np.zeros(len(held)),
            lambda i: self._cells(task, 0, row, 0, i, held[i : i + 1]),
        )

    def _stripe(self, task: PimTask, turn: int) -> Expected:
        region = self.site.regions[task.region]
        layout = region.layout
        assert isinstance(layout, Striped)
        held = stripe(self.site, task.region, turn, self.tensors, padding=np.nan)
        padding = np.isnan(held)

        def cells(i: int) -> tuple[Place, F4]:
            place = layout.place([i])
            row = place.row + region.base_row + turn * self._stride(task.region)
            return place._replace(row=row), held[i : i + 1]

        # What stands between the vectors is read with them, but never used.
        return Expected(np.where(padding, 0, held), np.where(padding, np.inf, 0), cells)

    # --- ASIC -----------------------------------------------------------------------------------------------

    def _sum(self, task: AsicTask, op: Op, parts: F8) -> Expected:
        terms = parts.reshape(-1, task.size)
        if op.kind == "linear" and len(op.parameters) > 1:
            terms = np.vstack([terms, self.tensors[op.parameters[1]]])
        return Expected(terms.sum(0), len(terms) * U32 * np.abs(terms).sum(0) + TINY)

    def _on_asic(self, op: Op, turn: int, inputs: list[F8]) -> Expected:
        """Return the function's value; the comments say which roundings the bounds count."""
        x = inputs[0]
        if op.kind in ("add", "embed"):
            values = x + inputs[1]
            return Expected(values, U32 * np.abs(values) + TINY)
        if op.kind == "scale":
            values = x * (op.factor / (1 + turn) if self.site.model.scale_by_layer else op.factor)
            return Expected(values, 3 * U32 * np.abs(values) + TINY)  # the factor and the product
        if op.kind == "softmax":
            return self._softmax(x.reshape(op.shape[0], -1))
        if op.kind == "layernorm":
            return self._layernorm(x, *(self.tensors[name].astype(np.float64) for name in op.parameters))
        if self.site.model.activation == "relu":
            return Expected(np.maximum(x, 0), np.zeros(len(x)))
        return self._gelu(x)

    def _exp_error(self, argument: F8) -> F8:
        """Return the relative error of exp; the argument's own roundings grow with its size."""
        return self.errors.exp + (8 * np.abs(argument) + 24) * U32

    def _softmax(self, x: F8) -> Expected:
        argument = x - x.max(1, keepdims=True)
        powers = np.exp(argument)
        values = powers / powers.sum(1, keepdims=True)
        each = self._exp_error(argument)
        # The power's own error, the sum's (the powers' by their share, and its additions), the division's.
        sums = (values * each).sum(1, keepdims=True) + _pairwise(x.shape[1]) * U32
        bound = values * (each + sums + self.errors.reciprocal + 4 * U32) * 1.01 + TINY
        return Expected(values.ravel(), bound.ravel())

    def _layernorm(self, x: F8, weight: F8, bias: F8) -> Expected:
        centred = x - x.mean()
        variance = np.mean(centred**2)
        inverse = 1 / np.sqrt(variance + self.site.model.norm_epsilon)
        values = centred * inverse * weight + bias
        k = _pairwise(len(x))
        deviation = (k + 2) * U32 * np.abs(x).mean() + 2 * U32 * np.abs(centred)
        of_variance = np.mean(2 * np.abs(centred) * deviation + deviation**2) + (k + 3) * U32 * variance
        relative = self.errors.rsqrt + of_variance * inverse**2 + 12 * U32
        scale = np.abs(weight) * inverse
        bound = (deviation + np.abs(centred) * relative) * scale * 1.01
        return Expected(values, bound + 4 * U32 * (np.abs(values) + np.abs(bias)) + TINY)

    def _gelu(self, x: F8) -> Expected:
        inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
        tanh = np.tanh(inner)
        values = 0.5 * x * (1 + tanh)
        # tanh = 1 - q with q = 2 / (e**2u + 1), whose error is that of the power (as far as it counts beside
        # the 1), of the reciprocal, and of a few roundings.
        q = 1 - tanh
        power = np.minimum(self._exp_error(np.minimum(np.abs(4 * inner), 200)), 1) * (1 + tanh) / 2
        of_tanh = q * (power + self.errors.reciprocal + 8 * U32) * 1.01 + 4 * U32
        return Expected(values, 0.5 * np.abs(x) * of_tanh + 4 * U32 * np.abs(values) + TINY)


def part_of(op: Op) -> slice:
    """Return the part of its input that an operator reads."""
    return slice(*op.part) if op.part else slice(None)


def _pairwise(count: int) -> float:
    """Return the roundings of a term in NumPy's sum: eight accumulators in blocks of 128, then pairs."""
    return 24 + log2(count)
