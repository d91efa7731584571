"""Lowerings of kernels to PIM devices: one module a family of devices, named by `lowering` in their descriptions.

A module has a table LOWERINGS from the kind of work (see `kind_of`) to a function that makes a `Kernel`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib import import_module
from typing import Any

from pimloom.arch.device import Device
from pimloom.arch.tree import InputError, did_you_mean
from pimloom.traces.stream import Elementwise, Gemv, Kernel, Site, Work

# Each takes the one kind of work under whose name it stands.
Lowering = Callable[[Device, Any, Site], Kernel]
Table = dict[str, Lowering]


def kind_of(work: Work) -> str:
    """Name under which a piece of work is looked up: gemv, add, mul, relu, score, context, attention."""
    return getattr(work, "kind", "gemv")


def lowerings(device: Device) -> Table:
    """What a device can do, by kind of work. Raises InputError for a lowering that does not exist."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    if device.lowering not in names:
        hint = did_you_mean(device.lowering, names)
        raise InputError(
            f"{device.name}: lowering: there is no {device.lowering!r}{hint}; there are: {', '.join(names)}"
        )
    table: Table = import_module(f"{__name__}.{device.lowering}").LOWERINGS
    return table


def lower(device: Device, work: Work, site: Site) -> Kernel:
    """Return a piece of work as a kernel of a device. Raises InputError for what the device cannot do."""
    table, kind = lowerings(device), kind_of(work)
    if kind not in table:
        raise InputError(
            f"{device.name} has no {kind}{did_you_mean(kind, list(table))}; it has: {', '.join(table)}"
        )
    needed_B = values_held(work) * device.unit.element_B
    room_B = site.channels * device.dram.channel_capacity_B
    if 0 < room_B < needed_B:
        raise InputError(
            f"{device.name}: {kind} holds {needed_B} B in its banks, and {site.channels} channels have {room_B} B"
        )
    return table[kind](device, work, site)


def values_held(work: Work) -> int:
    """Values of the operands that lie in the banks."""
    match work:
        case Gemv():
            return work.outputs * work.inputs
        case Elementwise():
            return work.elements * (1 if work.kind == "relu" else 2)
    return work.kv_heads * work.tokens * work.d_head * (2 if work.kind == "attention" else 1)
