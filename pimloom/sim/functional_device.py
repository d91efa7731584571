"""Functional execution of PIM devices: the very streams that are timed also compute, on banks held in NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pimloom.arch.device import Device
from pimloom.arch.dram import Command
from pimloom.sim.asic import F4
from pimloom.sim.banks import DUE, Access, Machine, Memory
from pimloom.sim.functional import FunctionalError
from pimloom.sim.meanings import MEANINGS, OF_DATAPATH
from pimloom.traces.layout import Index
from pimloom.traces.stream import FIELDS, PSEUDO, Kernel, Maps


def execute(device: Device, kernel: Kernel, memory: Memory, vector: npt.ArrayLike = ()) -> F4:
    """Return the result of a kernel, f4[size], whose other operands are in memory already.

    What reaches the host is added up in the order of channels and, of each, of accesses.

    Raises FunctionalError for what no memory could carry out, and for maps that do not fit the stream.
    """
    source = memory.rounded(np.append(np.asarray(vector, np.float32).ravel(), np.float32(0)))
    feed, sends = _stacked(kernel.feed(), device, len(source) - 1, "sent")
    drain, gets = _stacked(kernel.drain(), device, kernel.size, "read")
    m = Machine(device, memory, source[feed], np.zeros(drain.shape, np.float32), sends, gets)
    _run(m, kernel)
    for what, used, limit in (("sent", m.took, sends), ("read", m.gave, gets)):
        if (used != limit).any():
            c = int(np.flatnonzero(used != limit)[0])
            raise FunctionalError(f"channel {c}: {used[c]} accesses are {what}, its map has {limit[c]}")
    if (m.state == DUE).any():
        c, unit, register = (int(i) for i in np.argwhere(m.state == DUE)[0])
        raise FunctionalError(f"channel {c}: result register {register} of unit {unit} is never read")
    if (m.activated == DUE).any():
        c, unit = (int(i) for i in np.argwhere(m.activated == DUE)[0])
        raise FunctionalError(f"channel {c}: the activated value of unit {unit} is never read")
    if kernel.left is not None:
        parts: F4 = memory.load(kernel.left()).reshape(kernel.size, -1).sum(axis=1)
        return parts
    result, wanted = np.zeros(kernel.size, np.float32), drain >= 0
    missing = np.flatnonzero(np.bincount(drain[wanted], minlength=kernel.size) == 0)
    if len(missing):
        raise FunctionalError(f"value {missing[0]} of the result is never read")
    np.add.at(result, drain[wanted], m.got[wanted])
    return result


def _stacked(maps: Maps, device: Device, values: int, what: str) -> tuple[Index, Index]:
    """Return the maps as i8[channels, most accesses, values], filled up with -1, and the accesses of each channel."""
    width = max((m.shape[1] for m in maps if len(m)), default=0)
    most = max((len(m) for m in maps), default=0)
    stacked = np.full((device.dram.channels, most, width), -1, np.int64)
    counts = np.zeros(device.dram.channels, np.int64)
    for c, m in enumerate(maps):
        if len(m):
            stacked[c, : len(m)], counts[c] = m, len(m)
    if stacked.size and not -1 <= stacked.min() <= stacked.max() < values:
        c, k, _ = (int(i) for i in np.argwhere((stacked < -1) | (stacked >= values))[0])
        raise FunctionalError(
            f"channel {c}: access {k} is {what} with a value outside the {values} there are"
        )
    return stacked, counts


def _run(m: Machine, kernel: Kernel) -> None:
    """Carry out a stream."""
    stream, dram = kernel.stream, m.device.dram
    commands = [dram.commands[name] for name in stream.commands]
    steps = np.arange(int(stream.times.max(initial=1)))
    meanings = MEANINGS | OF_DATAPATH[m.device.unit.datapath]
    masks: dict[int, Index] = {}
    columns: Sequence[list[int]] = [getattr(stream, name).tolist() for name in FIELDS]
    pseudo = frozenset(PSEUDO.values())
    for number, (mask, command, times, node, row, column, d_column, operand, d_operand) in enumerate(
        zip(stream.channels.tolist(), *columns, strict=True)
    ):
        if command in pseudo:
            continue
        if mask not in masks:
            masks[mask] = np.flatnonzero([mask >> c & 1 for c in range(64)])
        c = commands[command]
        m.access = Access(
            number, stream.commands[command], c, masks[mask], _banks(m.device, c, node), row,
            column + d_column * steps[:times], operand + d_operand * steps[:times],
        )  # fmt: skip
        m.inside("node", np.array([node]), dram.nodes(c.target))
        m.inside("channel", masks[mask], dram.channels)
        if c.needs == "open" and c.meaning != "activation":
            m.access.rows = m.open_rows()
        meaning = meanings.get(c.meaning)
        if meaning is None:
            raise m.fail(f"{c.meaning} means nothing in a stream")
        meaning(m)
        if c.bank == "close":
            m.open[m.access.channels[:, None], m.access.banks] = -1


def _banks(device: Device, command: Command, node: int) -> Index:
    """Return the banks that take part in a command: all below its node, or the like of one in every unit.

    lockstep: of the rank; datapath mixed: of the channel, for what works on banks
    """
    dram, each = device.dram, device.unit.banks_per_unit
    if command.lockstep:
        rank = dram.banks // dram.nodes("rank")
        return node // rank * rank + np.arange(node % each, rank, each)
    if device.unit.datapath == "mixed" and command.target == "bank" and command.meaning in LIKE_BANKS:
        return np.arange(node % each, dram.banks, each)
    below = dram.banks // dram.nodes(command.target)
    return np.arange(node * below, (node + 1) * below)


LIKE_BANKS = {"activate", "precharge", "mac"}
