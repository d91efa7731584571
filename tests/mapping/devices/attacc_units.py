"""AttAcc's units in plain NumPy: what the accesses of a stream compute, one after the other, in the stream's order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pimloom.arch.device import Device
from pimloom.traces.operand import unpack, unpack_softmax
from pimloom.traces.stream import Kernel

F8 = npt.NDArray[np.float64]


def execute(device: Device, kernel: Kernel, vector: F8, **stored: F8) -> F8:  # noqa: PLR0912, PLR0915
    """The flat result of a kernel for operands in float64."""
    dram, unit, stream = device.dram, device.unit, kernel.stream
    lanes, per_unit = dram.access_B // unit.element_B, unit.banks_per_unit
    pcs, banks = dram.pseudochannels, dram.banks // dram.pseudochannels
    split = max(1, dram.banks_per_bankgroup // per_unit)
    groups = banks // per_unit // split
    cells: dict[tuple[int, int, int, int], F8] = {}
    for name, place in kernel.stored().items():
        flat = (np.asarray(x).ravel() for x in place)
        for value, channel, bank, row, column, lane in zip(stored[name].ravel(), *flat, strict=True):
            access = cells.setdefault((channel, bank, row, column), np.zeros(lanes))
            assert access[lane] == 0, "two elements in one place"
            access[lane] = value
    result, feeds, drains = np.zeros(kernel.size), kernel.feed(), kernel.drain()
    padded = np.append(vector, 0.0)
    for channel, (feed, drain) in enumerate(zip(feeds, drains, strict=True)):
        elements = unit.buffer_accesses * lanes
        buffer = np.zeros((pcs, groups, split, elements))
        scores = np.zeros((pcs, groups, elements))
        register = np.zeros((pcs, groups, split, unit.result_registers, lanes))
        come, gone = iter(feed), iter(drain)
        for i in np.flatnonzero(stream.channels >> np.uint64(channel) & np.uint64(1)):
            if stream.command[i] < 0:
                continue
            meaning = dram.commands[stream.commands[stream.command[i]]].meaning
            node, row = int(stream.node[i]), int(stream.row[i])
            for k in range(stream.times[i]):
                operand = int(stream.operand[i]) + k * int(stream.d_operand[i])
                column = int(stream.column[i]) + k * int(stream.d_column[i])
                p, lane, r, by_lane, outside = (int(x) for x in unpack(operand))
                group = node // (banks // groups)
                if meaning == "write_buffer":
                    data = padded[next(come)].reshape(pcs, 1, lanes)
                    buffer[:, :, node // per_unit % split, p : p + lanes] = data
                elif meaning == "mac" and operand >= 0:
                    for pc, g, u in np.ndindex(pcs, groups, split):
                        bank = ((pc * groups + g) * split + u) * per_unit + node % per_unit
                        a = cells.get((channel, bank, row, column), np.zeros(lanes))
                        if by_lane:
                            register[pc, g, u, r] += a * buffer[pc, g, u, p]
                        else:
                            register[pc, g, u, r, lane] += a @ buffer[pc, g, u, p : p + lanes]
                elif meaning == "move_result":
                    if by_lane:
                        share = max(1, groups // dram.ranks)
                        first = node // (banks // dram.ranks) * share
                        of = (slice(None), slice(first, first + share), node % split, r)
                        moved = register[of].sum(axis=1)
                    else:
                        of = (slice(None), group, slice(None), r)
                        moved = register[of].sum(axis=1)
                    register[of] = 0
                    if outside:
                        at = next(gone)
                        np.add.at(result, at[at >= 0], moved.ravel()[at >= 0])
                    else:
                        scores[:, group, p : p + 16] = moved[:, :16]
                elif meaning == "move_vector":
                    data = (
                        padded[next(come)].reshape(pcs, lanes) if outside else scores[:, group, p : p + lanes]
                    )
                    buffer[:, group, :, p : p + lanes] = data[:, None]
                elif meaning == "softmax":
                    p, tokens = unpack_softmax(operand)
                    token = np.arange(tokens)
                    of_group, g = token // (pcs * groups), token % (pcs * groups)
                    at = (g // groups, g % groups, p + of_group)
                    weights = np.exp(scores[at] - scores[at].max())
                    scores[at] = weights / weights.sum()
        assert next(come, None) is None
        assert next(gone, None) is None
        assert not register.any(), "a result that nobody took"
    return result
