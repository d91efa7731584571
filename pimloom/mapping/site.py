"""Where everything lies: the tensors of a model placed in the memory of a machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, cast

from pimloom.arch.document import InputError
from pimloom.arch.machine import Arch
from pimloom.mapping.lower import lacking
from pimloom.traces.layout import Grid, Striped, Tiled
from pimloom.workloads.graph import Graph, Op, decoder_ops
from pimloom.workloads.model import Model
from pimloom.workloads.request import Workload

T = TypeVar("T")


@dataclass(frozen=True)
class Region:
    """A tensor's layout and its first row, the same in every bank; per layer where `stride` says so."""

    layout: Tiled | Striped
    base_row: int


@dataclass(frozen=True)
class Slice:
    """Place of a parameter vector in the register that its group is read into."""

    start: int
    stop: int


@dataclass
class Site:
    """A model's tensors on a machine.

    regions: tensor name without its layer -> region; names of a layer are relative to layer 0
    layer_rows: rows that one layer takes in every bank
    slices: parameter vector -> its place in register `params` (of the layer, or of the epilogue)
    Raises InputError if the model needs what has no lowering, or if the rows of a bank do not suffice, naming the bytes
    that are missing.
    """

    model: Model
    arch: Arch
    workload: Workload
    graph: Graph = field(init=False)
    grid: Grid = field(init=False)
    regions: dict[str, Region] = field(init=False, default_factory=dict)
    slices: dict[str, Slice] = field(init=False, default_factory=dict)
    layer_rows: int = field(init=False)
    tokens: list[list[int]] | None = None
    """Token of every position and sequence; None = token number = position, for runs without numbers."""
    _made: dict[tuple[str, int], object] = field(init=False, default_factory=dict)

    def token(self, position: int, sequence: int) -> int:
        """Return the token at a position of a sequence."""
        return position % self.model.vocab if self.tokens is None else self.tokens[sequence][position]

    def __post_init__(self) -> None:
        model, dram, pim = self.model, self.arch.dram, self.arch.pim
        lanes = dram.access_B // pim.element_B
        self.graph = decoder_ops(model, self.workload.embedding, self.workload.head)
        if missing := lacking(self.graph):
            raise InputError(
                f"{model.name} does not run on {self.arch.name}: the machine has no lowering for {', '.join(missing)}, "
                f"which models of the {model.family} family need"
            )
        self.grid = Grid(dram.channels, dram.banks, dram.columns, lanes, pim.buffer_B // dram.access_B)
        self._row = 0
        if model.d_head > pim.buffer_elements:
            raise InputError(
                f"{model.name}: a head of {model.d_head} values does not fit the global buffer of {self.arch.name}, "
                f"which holds {pim.buffer_elements}"
            )
        for op in self.graph.layer:
            if op.kind == "linear":
                self._put(op.parameters[0], Tiled(self.grid, op.shape[0], op.shape[1]))
        for sequence in range(self.workload.batch):
            heads, d_head = model.heads, model.d_head
            self._put(f"K{sequence}", Tiled(self.grid, self.max_tokens, d_head, heads))
            padded = heads * self.head_rows
            self._put(f"V{sequence}", Tiled(self.grid, padded, self.max_tokens, contiguous=True))
        self._stripe("layer", self.graph.layer)
        self.layer_rows = self._row
        self._row *= model.layers
        for op in self.graph.prologue + self.graph.epilogue:
            if op.kind == "linear" and not (model.tied_head and "wte" in self.regions):
                self._put(op.parameters[0], Tiled(self.grid, op.shape[0], op.shape[1]))
            elif op.kind == "embed":
                self._put("wte", Tiled(self.grid, model.vocab, model.d_model))
                self._put("wpe", Tiled(self.grid, model.positions, model.d_model))
        if model.tied_head and "wte" in self.regions:
            self.regions["head.weight"] = self.regions["wte"]
        self._stripe("epilogue", self.graph.epilogue)
        if self._row > dram.rows:
            row_B = self.grid.row_values * pim.element_B * self.grid.banks * self.grid.channels
            raise InputError(
                f"{model.name} does not fit into {self.arch.name}: it takes {self._row * row_B} B "
                f"({self._row} rows a bank), there are {dram.rows * row_B} B ({dram.rows} rows a bank); "
                f"{(self._row - dram.rows) * row_B} B short"
            )

    @property
    def commands(self) -> tuple[str, ...]:
        """Command names of the DRAM, in the order of their ids."""
        return tuple(self.arch.dram.command_names)

    def cached(self, name: str, key: int, make: Callable[[Site, int], T]) -> T:
        """Return `make(self, key)`, made once."""
        if (name, key) not in self._made:
            self._made[name, key] = make(self, key)
        return cast(T, self._made[name, key])

    @property
    def max_tokens(self) -> int:
        """Tokens for which cache space is reserved: the mapping's choice, else the model's longest sequence."""
        chosen = self.arch.mapping.max_tokens
        if chosen is None:
            return self.model.positions
        if chosen < self.workload.passes:
            raise InputError(
                f"mapping.max_tokens: {chosen} tokens reserved, but the run has {self.workload.passes}"
            )
        return chosen

    @property
    def bursts_per_value(self) -> int:
        """Bursts that write one scattered value."""
        return self.arch.mapping.masked_write_B // self.arch.dram.access_B

    @property
    def head_rows(self) -> int:
        """Dot products of one head in the V cache, padded so that a tile belongs to one head."""
        return -(-self.model.d_head // self.grid.banks) * self.grid.banks

    @property
    def used_rows(self) -> int:
        """Rows taken in every bank."""
        return self._row

    @property
    def wasted_values(self) -> int:
        """Values of occupied rows that hold no element (padding), without the unused part of the caches."""
        once = {id(r): (name, r) for name, r in self.regions.items()}
        inside = {name for name, r in self.regions.items() if r.base_row < self.layer_rows}
        return sum(
            r.layout.wasted_values * (self.model.layers if name in inside else 1) for name, r in once.values()
        )

    def _put(self, name: str, layout: Tiled | Striped) -> None:
        self.regions[name] = Region(layout, self._row)
        self._row += layout.rows

    def _stripe(self, name: str, ops: tuple[Op, ...]) -> None:
        """Place the vectors of the operators (norm weights, biases) in one stripe, in order of use."""
        at = 0
        for op in ops:
            if op.kind not in ("layernorm", "linear"):
                continue
            vectors = op.parameters if op.kind == "layernorm" else op.parameters[1:]
            for vector in vectors:
                size = op.shape[0]
                self.slices[vector] = Slice(at, at + size)
                at += -(-size // self.grid.lanes) * self.grid.lanes
        if at:
            self._put(f"{name}.parameters", Striped(self.grid, at))
