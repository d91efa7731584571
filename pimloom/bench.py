"""One kernel on one PIM device: from a shape to clocks, commands and numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pimloom.arch.device import Device
from pimloom.arch.dram import Refresh
from pimloom.arch.tree import InputError
from pimloom.mapping.devices import kind_of, lower
from pimloom.sim.bench import Issued, channels
from pimloom.traces.stream import Attention, Elementwise, Gemv, Kernel, Site, Work

MAX_SIZE = 2**24
"""Of any number in a shape; larger ones are mistyped."""
SHAPES = {
    "gemv": "OUTPUTSxINPUTS, such as 4096x4096",
    "add": "ELEMENTS, such as 4096",
    "mul": "ELEMENTS, such as 4096",
    "relu": "ELEMENTS, such as 4096",
    "score": "HEADSxD_HEADxTOKENS, such as 32x128x512, or 64/8x128x512 for 8 key-value heads",
    "context": "HEADSxD_HEADxTOKENS, such as 32x128x512, or 64/8x128x512 for 8 key-value heads",
    "attention": "HEADSxD_HEADxTOKENS, such as 32x128x512, or 64/8x128x512 for 8 key-value heads",
}
"""Kernel -> how its shape is written."""


@dataclass(frozen=True, eq=False)
class KernelRun:
    """A kernel that has run on a device whose channels were idle."""

    device: Device
    work: Work
    site: Site
    kernel: Kernel
    issued: Issued


def parse_shape(kind: str, text: str) -> Work:
    """Return the work of a kind (a key of `SHAPES`) with a shape as the command line writes it.

    Raises InputError.
    """
    wanted = f"--shape {text}: of {kind} should be {SHAPES[kind]}"
    parts = text.lower().split("x")
    if not all(re.fullmatch("[0-9]{1,8}(/[0-9]{1,8})?", part) for part in parts):
        raise InputError(wanted)
    heads, *rest = ([int(number) for number in part.split("/")] for part in parts)
    if any(not 1 <= n <= MAX_SIZE for numbers in (heads, *rest) for n in numbers):
        raise InputError(f"--shape {text}: every number should be between 1 and {MAX_SIZE}")
    sizes = [numbers[0] for numbers in (heads, *rest)]
    is_plain = all(len(numbers) == 1 for numbers in rest)
    match kind, sizes:
        case "gemv", [outputs, inputs] if is_plain and len(heads) == 1:
            return Gemv(outputs, inputs)
        case (("add" | "mul" | "relu"), [elements]) if len(heads) == 1:
            return Elementwise(kind, elements)
        case (("score" | "context" | "attention"), [queries, d_head, tokens]) if is_plain:
            if queries % heads[-1]:
                raise InputError(f"--shape {text}: {heads[-1]} key-value heads do not divide {queries} heads")
            return Attention(kind, queries, heads[-1], d_head, tokens)
    raise InputError(wanted)


def run_kernel(device: Device, work: Work, of_channels: int | None = None, log: bool = False) -> KernelRun:
    """Run one piece of work on a device whose channels are idle, its operands on some of the channels (None = all).

    Raises InputError for what the device cannot do.
    """
    most = device.dram.channels
    if of_channels is not None and not 1 <= of_channels <= most:
        raise InputError(f"--channels {of_channels}: {device.name} has 1 to {most}")
    site = Site(of_channels or most)
    kernel = lower(device, work, site)
    if kernel.rows > device.dram.rows:
        raise InputError(
            f"{device.name}: {kind_of(work)} takes {kernel.rows} rows of every bank, and a bank has {device.dram.rows}"
        )
    return KernelRun(device, work, site, kernel, channels(device).run(kernel.stream, 0, log))


def with_refresh(run: KernelRun) -> int | None:
    """Clocks of the same kernel on the device with refresh on, where it has none though its memory describes one."""
    dram = run.device.dram
    if dram.refresh.policy != "none" or not any(c.meaning == "refresh" for c in dram.commands.values()):
        return None
    refreshed = dram.model_copy(update={"refresh": Refresh(policy="all_bank")})
    device = run.device.model_copy(update={"dram": refreshed})
    return channels(device).run(run.kernel.stream, 0, False).cycles


def kernel_result(run: KernelRun) -> dict[str, Any]:
    """What a kernel's run says, as plain JSON types with units in the keys."""
    return {
        "device": run.device.name,
        "kernel": kind_of(run.work),
        "shape": {name: n for name, n in run.work._asdict().items() if name != "kind"},
        "channels": run.site.channels,
        "rows_per_bank": run.kernel.rows,
        **issued_result(run.device, run.issued),
        "cycles_with_refresh": with_refresh(run),
    }


def issued_result(device: Device, issued: Issued) -> dict[str, Any]:
    """What a stream became, as plain JSON types with units in the keys."""
    names = device.dram.command_names
    per_channel = [_counted(names, row) for row in issued.counts.tolist()]
    return {
        "refresh": device.dram.refresh.policy,
        "cycles": issued.cycles,
        "time_ns": issued.cycles / device.dram.clock_Hz * 1e9,
        "commands": {"total": _counted(names, issued.counts.sum(0).tolist()), "per_channel": per_channel},
        "energy_pJ": energy_pJ(device, issued),
    }


def _counted(names: list[str], counts: list[int]) -> dict[str, int]:
    return {name: n for name, n in zip(names, counts, strict=True) if n}


def energy_pJ(device: Device, issued: Issued, of_channels: int | None = None) -> dict[str, float | None]:
    """Energy of the first channels of a run (None = all): by command, standby and in all; None = not known."""
    counts = issued.counts[:of_channels].sum(0).tolist()
    active = int(issued.active[:of_channels].sum())
    every = issued.cycles * len(issued.counts[:of_channels])
    return price(device, dict(zip(device.dram.command_names, counts, strict=True)), active, every - active)


def price(
    device: Device, counts: Mapping[str, int], active_clocks: int, idle_clocks: int
) -> dict[str, float | None]:
    """Energy of counted commands and of channel clocks with and without an open bank."""
    parts: dict[str, float | None] = {}
    for name, n in counts.items():
        if n:
            each = device.energy.command_pJ.get(name)
            parts[name] = None if each is None else n * each
    clock_ps = 1e12 / device.dram.clock_Hz
    for name, clocks, power_W in (
        ("standby_active", active_clocks, device.energy.active_W),
        ("standby_idle", idle_clocks, device.energy.idle_W),
    ):
        parts[name] = None if power_W is None else clocks * clock_ps * power_W
    known = [pJ for pJ in parts.values() if pJ is not None]
    return {**parts, "total_known": sum(known) if known else None}
