"""A processor beside PIM memory, as a roofline: peaks, how much of them can be had, caches, link, energies."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from pimloom.arch.base import Count, Description, Strict
from pimloom.arch.document import Document, Override, load

Rate = Annotated[float, Field(gt=0, le=1e18)]
Share = Annotated[float, Field(gt=0, le=1)]
NotNegative = Annotated[float, Field(ge=0, le=1e12)]


class Tiles(Strict):
    """How products are cut."""

    sizes: Annotated[list[Count], Field(min_length=1, description="rows and columns of a core's tile to try")]
    l1_depth: Count
    l2_parts: Count
    in_registers: Annotated[Count, Field(description="rows and columns of a tile in registers")]


class Fit(Strict):
    """Time of an operator that runs at the memory's rate: fixed_s + passes x bytes / memory_Bps."""

    fixed_s: NotNegative
    passes: NotNegative


class GpuLink(Strict):
    """Between processors; a message takes fixed_s + s_per_B x bytes, but at least bytes / Bps."""

    Bps: Rate
    fixed_s: NotNegative
    s_per_B: NotNegative


class GpuEnergy(Strict):
    """Per byte moved, operand read, multiply-add made."""

    memory_pJ_per_B: NotNegative
    l2_pJ_per_B: NotNegative
    l1_pJ_per_B: NotNegative
    register_pJ: NotNegative
    mac_pJ: NotNegative
    link_pJ_per_B: NotNegative


class Gpu(Description):
    """One processor, as its YAML says it."""

    kind: Literal["gpu"]
    cores: Count
    peak_FLOPps: Annotated[Rate, Field(description="of two-byte operands")]
    compute_utilisation: Share
    memory_Bps: Rate
    memory_utilisation: Share
    memory_B: Count
    l1_B: Annotated[Count, Field(description="of one core")]
    l2_B: Count
    tiles: Tiles
    activation: Fit
    norm: Fit
    link: GpuLink
    energy: GpuEnergy


def load_gpu(name_or_path: str, overrides: Sequence[str | Override] = ()) -> tuple[Gpu, Document]:
    """The GPU of a shipped name or a file.

    Raises InputError with everything that is wrong with it.
    """
    return load(Gpu, "gpu", name_or_path, overrides)
