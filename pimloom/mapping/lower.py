"""Lowerings of operators to tasks on a near-bank GEMV device with an ASIC (PIM-GPT).

Matrix-vector products run in the banks, everything else on the ASIC (arXiv 2310.09385, abstract and methods).
Each lowering takes the site, the operator, the token's position and the sequence's number in the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np

from pimloom.mapping.stream import access_row, load, read_stripe, scatter_column, stream
from pimloom.traces.layout import Index, Striped, Tiled
from pimloom.traces.program import Builder, Program
from pimloom.traces.task import AsicTask, Maps, PimTask, Ref, Task, Traffic
from pimloom.workloads.graph import Graph, Op

if TYPE_CHECKING:
    from pimloom.mapping.site import Site

Commands = tuple[str, ...]
Lowering = Callable[["Site", Op, int, int], list[Task]]

LOWERINGS: dict[tuple[str, str], Lowering] = {}
"""(operator kind, device kind) -> lowering."""
DEVICE = "near-bank"
ACTIVATIONS = frozenset({"gelu_tanh", "relu"})
"""Activation functions of the ASIC."""


def lowers(kind: str) -> Callable[[Lowering], Lowering]:
    """Register the decorated function as the lowering of an operator kind."""

    def register(function: Lowering) -> Lowering:
        LOWERINGS[kind, DEVICE] = function
        return function

    return register


def lacking(graph: Graph) -> list[str]:
    """Return what a model needs that has no lowering here."""
    model = graph.model
    kinds = dict.fromkeys(op.kind for op in (*graph.prologue, *graph.layer, *graph.epilogue))
    found: list[str] = [kind for kind in kinds if (kind, DEVICE) not in LOWERINGS]
    if model.activation not in ACTIVATIONS:
        found.append(model.activation)
    if model.kv_heads != model.heads:
        found.append(f"grouped-query attention ({model.kv_heads} KV heads for {model.heads} heads)")
    return found


def register_name(name: str, sequence: int) -> str:
    """Return the name of a sequence's own register."""
    return f"{name}.{sequence}"


def _none(channels: int) -> list[Index]:
    return [np.empty((0, 0), np.int64) for _ in range(channels)]


def _tiled(region: Striped | Tiled) -> Tiled:
    assert isinstance(region, Tiled)
    return region


# --- weights -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _product_programs(commands: Commands, layout: Tiled, tiles: int) -> tuple[Program | None, ...]:
    """Return, per channel, the products of a matrix's first tiles with the vector sent to the buffers."""

    def program(slots: int) -> Program | None:
        if slots == 0:
            return None
        builder = Builder(commands)
        for chunk in layout.chunks:
            load(builder, chunk.width)
            stream(builder, layout, chunk, range(slots))
        return builder.build()

    channels = layout.grid.channels
    return _per_channel(program, [len(range(c, tiles, channels)) for c in range(channels)])


def _per_channel(make: Callable[[int], Program | None], keys: list[int]) -> tuple[Program | None, ...]:
    made = {key: make(key) for key in set(keys)}
    return tuple(made[key] for key in keys)


def _buffer_map(layout: Tiled, first: int, width: int, length: int) -> Index:
    """Return i8[width, lanes]: positions in a dot product's own vector for buffer columns, -1 = padding."""
    lanes, size = layout.grid.lanes, layout.segment_columns
    column = np.arange(first, first + width)[:, None]
    inside = column % size * lanes + np.arange(lanes)
    return np.where(inside < length, column // size * length + inside, -1)


def _product_feed(layout: Tiled, tiles: int) -> Maps:
    bursts = np.concatenate([_buffer_map(layout, c.first, c.width, layout.length) for c in layout.chunks])
    return [bursts if c < tiles else bursts[:0] for c in range(layout.grid.channels)]


def _gemv_drain(layout: Tiled) -> Maps:
    banks, outputs = layout.grid.banks, layout.outputs
    maps = []
    for c in range(layout.grid.channels):
        rows = np.array(layout.tiles_of(c), np.int64)[:, None] * banks + np.arange(banks)
        rows = np.where(rows < outputs, rows, -1)
        parts = [np.where(rows >= 0, rows + k * outputs, -1) for k in range(len(layout.chunks))]
        maps.append(np.concatenate(parts))
    return maps


@lowers("linear")
def linear(site: Site, op: Op, position: int, sequence: int) -> list[Task]:
    """Product of a weight matrix: partial sums from the banks, added (with the bias) by the ASIC."""
    region = site.regions[op.parameters[0]]
    layout = _tiled(region.layout)
    out, size = op.shape
    chunks = len(layout.chunks)
    bias = site.slices[op.parameters[1]] if len(op.parameters) > 1 else None
    sums = chunks > 1 or bias is not None
    output = register_name(op.output, sequence)
    parts = f"{output}.parts" if sums else output
    busy = min(layout.tiles, layout.grid.channels)
    tasks: list[Task] = [
        PimTask(
            op.name,
            op.group,
            _product_programs(site.commands, layout, layout.tiles),
            region.base_row,
            source=register_name(op.inputs[0], sequence),
            sink=parts,
            sink_size=chunks * out,
            feed=lambda: _product_feed(layout, layout.tiles),
            drain=lambda: _gemv_drain(layout),
            traffic=Traffic(busy * size, size, chunks * out),
            region=op.parameters[0],
        )
    ]
    if sums:
        inputs: tuple[Ref, ...] = (Ref(parts, 0, chunks * out),)
        if bias is not None:
            inputs += (Ref("params", bias.start, bias.stop),)
        tasks.append(AsicTask(f"{op.name}.sum", op.group, "accumulate", out, chunks, inputs, output))
    if op.group == "lm_head":
        logits, token = (Ref(output, 0, out),), register_name("token", sequence)
        tasks.append(AsicTask(f"{op.name}.token", op.group, "argmax", out, 1, logits, token))
    return tasks


# --- attention -----------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _row_programs(
    commands: Commands, layout: Tiled, channel: int, slot: int, command: str
) -> tuple[Program | None, ...]:
    builder = Builder(commands)
    access_row(builder, layout, slot, command)
    program = builder.build()
    return tuple(program if c == channel else None for c in range(layout.grid.channels))


def _row_task(site: Site, name: str, group: str, region: str, row: int, command: str) -> PimTask:
    """Return the task that reads or writes one row of a matrix; the caller adds the registers."""
    placed = site.regions[region]
    layout = _tiled(placed.layout)
    channel, slot = layout.channel_slot(row // layout.grid.banks)
    programs = _row_programs(site.commands, layout, int(channel), int(slot), command)
    return PimTask(name, group, programs, placed.base_row, base_bank=row % layout.grid.banks, region=region)


def _row_map(layout: Tiled, row: int, offset: int) -> Maps:
    """Return the maps of `access_row`: all columns of a matrix row from one channel."""
    maps = _none(layout.grid.channels)
    channel, _ = layout.channel_slot(row // layout.grid.banks)
    width = layout.segment_columns * layout.segments
    plain = _buffer_map(layout, 0, width, layout.length)
    maps[int(channel)] = np.where(plain >= 0, plain + offset, -1)
    return maps


@lowers("cache_k")
def cache_k(site: Site, op: Op, position: int, sequence: int) -> list[Task]:
    """Append a key: one contiguous write in one bank, tokens spread over banks (row-major K)."""
    store = f"K{sequence}"
    layout = _tiled(site.regions[store].layout)
    start, stop = op.part or (0, op.shape[0])
    task = _row_task(site, op.name, op.group, store, position, "WR")
    return [
        replace(
            task,
            source=register_name(op.inputs[0], sequence),
            stores=(store,),
            feed=lambda: _row_map(layout, position, start),
            traffic=Traffic(sent=stop - start, sent_once=stop - start),
        )
    ]


def _score_drain(layout: Tiled, tokens: int) -> Maps:
    banks, channels = layout.grid.banks, layout.grid.channels
    maps = []
    for c in range(channels):
        tiles = np.arange(c, -(-tokens // banks), channels)
        token = tiles[:, None] * banks + np.arange(banks)
        rows = [
            np.where(token < tokens, segment * tokens + token, -1)[k]
            for chunk in layout.chunks
            for k in range(len(tiles))
            for segment, _ in chunk.parts
        ]
        maps.append(np.array(rows, np.int64).reshape(-1, banks))
    return maps


@lowers("score")
def score(site: Site, op: Op, position: int, sequence: int) -> list[Task]:
    """q.K for every head and token: one dot product a head and token, read out bank by bank."""
    store, tokens = f"K{sequence}", position + 1
    region = site.regions[store]
    layout = _tiled(region.layout)
    heads, d_head = op.shape
    tiles = -(-tokens // layout.grid.banks)
    busy = min(tiles, layout.grid.channels)
    return [
        PimTask(
            op.name,
            op.group,
            _product_programs(site.commands, layout, tiles),
            region.base_row,
            source=register_name(op.inputs[0], sequence),
            sink=register_name(op.output, sequence),
            sink_size=heads * tokens,
            feed=lambda: _product_feed(layout, tiles),
            drain=lambda: _score_drain(layout, tokens),
            traffic=Traffic(busy * heads * d_head, heads * d_head, heads * tokens),
            order=(store,),
            region=store,
        )
    ]


def _head_runs(site: Site, layout: Tiled, channel: int) -> list[tuple[int, range]]:
    """Return (head, its slots) for the tiles of a channel of the V cache."""
    per = site.head_rows // layout.grid.banks
    tiles = layout.tiles_of(channel)
    runs: list[tuple[int, range]] = []
    for slot, tile in enumerate(tiles):
        head = tile // per
        if runs and runs[-1][0] == head:
            runs[-1] = (head, range(runs[-1][1].start, slot + 1))
        else:
            runs.append((head, range(slot, slot + 1)))
    return runs


@lowers("cache_v")
def cache_v(site: Site, op: Op, position: int, sequence: int) -> list[Task]:
    """Append a value: column-major V scatters it, one masked burst for each of its elements."""
    store = f"V{sequence}"
    region = site.regions[store]
    layout = _tiled(region.layout)
    start, stop = op.part or (0, op.shape[0])
    return [
        PimTask(
            op.name,
            op.group,
            site.cached("cache_v", position // layout.grid.lanes, _scatter_programs),
            region.base_row,
            source=register_name(op.inputs[0], sequence),
            feed=lambda: _scatter_feed(site, layout, position, start),
            traffic=Traffic(sent=stop - start, sent_once=stop - start),
            stores=(store,),
            region=store,
        )
    ]


def _valid_rows(site: Site, tile: int) -> int:
    """Return how many banks of a V tile hold a dimension of its head."""
    per = site.head_rows // site.grid.banks
    return min(site.grid.banks, site.model.d_head - tile % per * site.grid.banks)


def _scatter_programs(site: Site, column: int) -> tuple[Program | None, ...]:
    layout = _tiled(site.regions["V0"].layout)

    def program(filled: tuple[int, ...]) -> Program | None:
        if not filled:
            return None
        builder = Builder(site.commands)
        scatter_column(builder, layout, column, filled, site.bursts_per_value)
        return builder.build()

    keys = [
        tuple(_valid_rows(site, tile) for tile in layout.tiles_of(c)) for c in range(layout.grid.channels)
    ]
    made = {key: program(key) for key in set(keys)}
    return tuple(made[key] for key in keys)


def _scatter_feed(site: Site, layout: Tiled, position: int, offset: int) -> Maps:
    lanes, per = layout.grid.lanes, site.head_rows // layout.grid.banks
    maps = []
    for c in range(layout.grid.channels):
        bursts = []
        for tile in np.repeat(layout.tiles_of(c), site.bursts_per_value).tolist():
            for bank in range(_valid_rows(site, tile)):
                burst = np.full(lanes, -1, np.int64)
                dimension = tile % per * layout.grid.banks + bank
                burst[position % lanes] = offset + tile // per * site.model.d_head + dimension
                bursts.append(burst)
        maps.append(np.array(bursts, np.int64).reshape(-1, lanes))
    return maps


def _context_programs(site: Site, used: int) -> tuple[Program | None, ...]:
    layout = _tiled(site.regions["V0"].layout)

    def program(runs: tuple[tuple[int, range], ...]) -> Program | None:
        if not runs:
            return None
        builder = Builder(site.commands)
        for _, slots in runs:
            for chunk in layout.chunks:
                n = min(chunk.width, used - chunk.first)
                if n > 0:
                    load(builder, n)
                    stream(builder, layout, chunk, slots, n)
        return builder.build()

    keys = [
        tuple((0, slots) for _, slots in _head_runs(site, layout, c)) for c in range(layout.grid.channels)
    ]
    made = {key: program(key) for key in set(keys)}
    return tuple(made[key] for key in keys)


def _context_maps(site: Site, layout: Tiled, tokens: int) -> tuple[Maps, Maps]:
    """Return (feed, drain): probabilities of each head to its channels, partial sums by chunk and dimension."""
    grid, d_head, per = layout.grid, site.model.d_head, site.head_rows // layout.grid.banks
    used = -(-tokens // grid.lanes)
    width = site.model.heads * d_head
    feeds, drains = [], []
    for c in range(grid.channels):
        tiles = layout.tiles_of(c)
        feed = [np.empty((0, grid.lanes), np.int64)]
        drain = [np.empty((0, grid.banks), np.int64)]
        for head, slots in _head_runs(site, layout, c):
            for k, chunk in enumerate(layout.chunks):
                n = min(chunk.width, used - chunk.first)
                if n <= 0:
                    continue
                token = (chunk.first + np.arange(n))[:, None] * grid.lanes + np.arange(grid.lanes)
                feed.append(np.where(token < tokens, head * tokens + token, -1))
                for slot in slots:
                    dimension = tiles[slot] % per * grid.banks + np.arange(grid.banks)
                    at = k * width + head * d_head + dimension
                    drain.append(np.where(dimension < d_head, at, -1)[None])
        feeds.append(np.concatenate(feed))
        drains.append(np.concatenate(drain))
    return feeds, drains


@lowers("context")
def context(site: Site, op: Op, position: int, sequence: int) -> list[Task]:
    """p.V for every head: the dot product runs over tokens, a head's probabilities go to its channels only."""
    store, tokens = f"V{sequence}", position + 1
    region = site.regions[store]
    layout = _tiled(region.layout)
    heads, d_head = op.shape
    used = -(-tokens // layout.grid.lanes)
    chunks = sum(chunk.first < used for chunk in layout.chunks)
    output = register_name(op.output, sequence)
    parts = f"{output}.parts" if chunks > 1 else output
    copies = sum(len(_head_runs(site, layout, c)) for c in range(layout.grid.channels))
    tasks: list[Task] = [
        PimTask(
            op.name,
            op.group,
            site.cached("context", used, _context_programs),
            region.base_row,
            source=register_name(op.inputs[0], sequence),
            sink=parts,
            sink_size=chunks * heads * d_head,
            feed=lambda: _context_maps(site, layout, tokens)[0],
            drain=lambda: _context_maps(site, layout, tokens)[1],
            traffic=Traffic(copies * tokens, heads * tokens, chunks * heads * d_head),
            order=(store,),
            region=store,
        )
    ]
    if chunks > 1:
        size = heads * d_head
        tasks.append(
            AsicTask(
                f"{op.name}.sum",
                op.group,
                "accumulate",
                size,
                chunks,
                (Ref(parts, 0, chunks * size),),
                output,
            )
        )
    return tasks


# --- everything else -----------------------------------------------------------------------------------------


@lowers("embed")
def embed(site: Site, op: Op, position: int, sequence: int) -> list[Task]:
    """Read the token's and the position's row, add them on the ASIC."""
    size = op.shape[0]
    rows = {"wte": site.token(position, sequence), "wpe": position}
    tasks: list[Task] = []
    for table, row in rows.items():
        layout = _tiled(site.regions[table].layout)
        order = (register_name(op.inputs[0], sequence),) if table == "wte" else ()
        task = _row_task(site, f"{op.name}.{table}", op.group, table, row, "RD")
        tasks.append(
            replace(
                task,
                sink=register_name(table, sequence),
                sink_size=size,
                traffic=Traffic(received=size),
                order=order,
                drain=partial(_row_map, layout, row, 0),
            )
        )
    inputs = tuple(Ref(register_name(table, sequence), 0, size) for table in rows)
    output = register_name(op.output, sequence)
    return [*tasks, AsicTask(op.name, op.group, "add", size, 1, inputs, output)]


def read_parameters(site: Site, name: str) -> list[Task]:
    """Read the vectors of a layer (or of the epilogue) into the ASIC: norm weights and biases.

    The same for every token; the caller lowers it once.
    """
    region = site.regions.get(f"{name}.parameters")
    if region is None:
        return []
    layout = region.layout
    grid = layout.grid
    assert isinstance(layout, Striped)

    def bursts(channel: int) -> int:
        return len(range(channel, layout.bursts, grid.channels))

    def program(count: int) -> Program | None:
        if count == 0:
            return None
        builder = Builder(site.commands)
        read_stripe(builder, count, grid.columns, grid.banks)
        return builder.build()

    def drain() -> Maps:
        maps = []
        for c in range(grid.channels):
            at = np.arange(c, layout.bursts, grid.channels)[:, None] * grid.lanes + np.arange(grid.lanes)
            maps.append(np.where(at < layout.length, at, -1))
        return maps

    return [
        PimTask(
            "parameters",
            "parameters",
            _per_channel(program, [bursts(c) for c in range(grid.channels)]),
            region.base_row,
            sink="params",
            sink_size=layout.length,
            drain=drain,
            traffic=Traffic(received=layout.length),
            region=f"{name}.parameters",
        )
    ]


@lowers("layernorm")
def layernorm(site: Site, op: Op, position: int, sequence: int) -> list[Task]:
    """Normalise on the ASIC with the layer's weight and bias."""
    size = op.shape[0]
    weight, bias = (site.slices[name] for name in op.parameters)
    inputs = (
        Ref(register_name(op.inputs[0], sequence), 0, size),
        Ref("params", weight.start, weight.stop),
        Ref("params", bias.start, bias.stop),
    )
    output = register_name(op.output, sequence)
    return [AsicTask(op.name, op.group, "layernorm", size, 1, inputs, output, site.model.norm_epsilon)]


@lowers("scale")
def scale(site: Site, op: Op, position: int, sequence: int) -> list[Task]:
    """Multiply the queries by the attention scale."""
    start, stop = op.part or (0, op.shape[0])
    inputs = (Ref(register_name(op.inputs[0], sequence), start, stop),)
    output = register_name(op.output, sequence)
    by_turn = site.model.scale_by_layer
    return [AsicTask(op.name, op.group, "scale", stop - start, 1, inputs, output, op.factor, by_turn)]


@lowers("softmax")
def softmax(site: Site, op: Op, position: int, sequence: int) -> list[Task]:
    """Softmax of every head's scores."""
    heads, tokens = op.shape[0], position + 1
    inputs = (Ref(register_name(op.inputs[0], sequence), 0, heads * tokens),)
    output = register_name(op.output, sequence)
    return [AsicTask(op.name, op.group, "softmax", tokens, heads, inputs, output)]


@lowers("add")
@lowers("activation")
def elementwise(site: Site, op: Op, position: int, sequence: int) -> list[Task]:
    """Residual addition or the activation function, element by element."""
    size = op.shape[0]
    function = "add" if op.kind == "add" else site.model.activation
    inputs = tuple(Ref(register_name(name, sequence), 0, size) for name in op.inputs)
    return [AsicTask(op.name, op.group, function, size, 1, inputs, register_name(op.output, sequence))]
