"""What the banks of a site hold before the first token: weights, tables and parameter vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from pimloom.mapping.site import Site
from pimloom.traces.layout import Place, Striped, Tiled

F4 = npt.NDArray[np.float32]
BLOCK = 1 << 20
"""Elements placed at a time, which bounds the size of the index arrays."""


def contents(site: Site, tensors: Mapping[str, F4]) -> Iterator[tuple[Place, F4]]:
    """Yield (places, f4[..., lanes]): whole columns of the banks, padding zero. The caches are left out."""
    layer = {name for op in site.graph.layer for name in op.parameters} | {"layer.parameters"}
    for name, region in site.regions.items():
        for turn in range(site.model.layers if name in layer else 1):
            base = region.base_row + turn * site.layer_rows
            if isinstance(region.layout, Striped):
                columns = _striped(region.layout, stripe(site, name, turn, tensors))
            elif name in layer:
                columns = _tiled(region.layout, tensors[f"layer{turn}.{name}"])
            elif name in tensors and not (name == "head.weight" and region is site.regions.get("wte")):
                columns = _tiled(region.layout, tensors[name])
            else:
                continue
            for place, values in columns:
                yield place._replace(row=place.row + base), values


def stripe(site: Site, name: str, turn: int, tensors: Mapping[str, F4], padding: float = 0.0) -> F4:
    """Return the content of stripe `name`, which is also that of the register it is read into."""
    values = np.full(site.regions[name].layout.length, padding, np.float32)
    in_layer = name == "layer.parameters"
    ops, prefix = (site.graph.layer, f"layer{turn}.") if in_layer else (site.graph.epilogue, "")
    for vector in (vector for op in ops for vector in op.parameters if vector in site.slices):
        part = site.slices[vector]
        values[part.start : part.stop] = tensors[prefix + vector]
    return values


def _tiled(layout: Tiled, matrix: F4) -> Iterator[tuple[Place, F4]]:
    lanes, size = layout.grid.lanes, layout.segment_columns
    starts = np.arange(size) * lanes
    step = max(1, BLOCK // layout.length)
    for first in range(0, len(matrix), step):
        rows = matrix[first : first + step]
        padded = np.zeros((len(rows), size * lanes), np.float32)
        padded[:, : layout.length] = rows
        outputs = np.arange(first, first + len(rows))[:, None]
        yield layout.place(outputs, 0, starts), padded.reshape(len(rows), size, lanes)


def _striped(layout: Striped, values: F4) -> Iterator[tuple[Place, F4]]:
    lanes = layout.grid.lanes
    padded = np.zeros(layout.bursts * lanes, np.float32)
    padded[: layout.length] = values
    yield layout.place(np.arange(layout.bursts) * lanes), padded.reshape(-1, lanes)
