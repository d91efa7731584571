"""What commands compute where units make a sum or a sum a lane of their products, with a softmax unit beside the banks.

Units that share a dot product are a group; all pseudo-channels of a channel do the same. A result register has a value
for each lane. Operands are packed: see `traces/operand.py`.
"""

from __future__ import annotations

import numpy as np

from pimloom.sim.asic import F4
from pimloom.sim.banks import DUE, TAKEN, Machine
from pimloom.sim.sums import accumulate, tree
from pimloom.traces.layout import Index
from pimloom.traces.operand import unpack, unpack_softmax

RESULTS = 16
"""Values of a register that are moved to the softmax unit."""


def mac(m: Machine) -> None:
    """Multiply columns by the input buffer, and add to one value of a register, or to all of it lane by lane.

    A dot product takes as many values of the buffer as a column has; sums by lane take one for all lanes. Operand -1:
    products that nobody wants.
    """
    a, lanes = m.access, m.device.elements_per_access
    if a.operands[0] < 0:
        return
    position, lane, register, by_lane, _ = unpack(a.operands)
    units = a.banks // m.device.unit.banks_per_unit
    factors = m.held(units, position // lanes)
    stored = m.stored()
    registers = m.inside("result register", register, m.device.unit.result_registers)
    if by_lane[0]:
        one = factors[:, :, np.arange(a.times), position % lanes]
        accumulate(m, units, registers[:, None] * lanes + np.arange(lanes), stored * one[..., None])
    else:
        m.inside("position in a column", position % lanes, 1)
        value = m.inside("value", lane, lanes)
        accumulate(m, units, (registers * lanes + value)[:, None], tree(stored * factors)[..., None])


def write_buffer(m: Machine) -> None:
    """Fill the input buffers of the units with one place in their groups from the pins."""
    a, lanes = m.access, m.device.elements_per_access
    halves = m.device.dram.pseudochannels
    sent = m.take(halves * lanes).reshape(len(a.channels), a.times, halves, lanes)
    units = np.arange(m.device.units)
    units = units[units % m.units_of_group == a.banks[0] // m.device.unit.banks_per_unit]
    half = units // (m.device.units // halves)
    m.fill(units, _columns(m, a.operands), sent[:, :, half].swapaxes(1, 2))


def move_result(m: Machine) -> None:
    """Move a register away, added up over the units of a group, or over the groups of a rank if it is by lane.

    It goes to the pins or to the buffer of the softmax unit, and is cleared.
    """
    a, dram, lanes = m.access, m.device.dram, m.device.elements_per_access
    halves, per_group = dram.pseudochannels, m.units_of_group
    position, _, register, by_lane, outside = (int(v[0]) for v in unpack(a.operands))
    m.inside("repetition", np.array([a.times - 1]), 1)
    groups, bank = m.groups // halves, int(a.banks[0])
    m.inside("node", np.array([bank]), dram.banks // halves)
    group = np.array([bank * halves * groups // dram.banks])
    unit = np.arange(per_group)
    if by_lane:
        ranks = min(dram.ranks, groups)
        each = groups // ranks
        group = bank * halves * ranks // dram.banks * each + np.arange(each)
        unit = np.array([bank // m.device.unit.banks_per_unit % per_group])
    # [pseudo-channel, units that are added]
    units = np.add.outer(np.arange(halves) * groups, group)[:, :, None] * per_group + unit
    units = units.reshape(halves, -1)
    m.inside("result register", np.array([register]), m.device.unit.result_registers)
    values = register * lanes + np.arange(lanes)
    at = a.channels[:, None, None, None], units[:, :, None], values
    if not (m.state[at] == DUE).any():
        raise m.fail(f"result register {register} holds nothing that was not read before")
    moved = m.memory.rounded(m.results[at].sum(axis=2))
    m.results[at], m.state[at] = 0, TAKEN
    if outside:
        m.give(moved.reshape(len(a.channels), 1, -1))
        return
    to = np.arange(halves) * groups + group
    where = m.inside("position", position + np.arange(RESULTS), m.beside.shape[2])
    m.beside[a.channels[:, None, None], to[:, None], where] = moved[:, :, :RESULTS]


def move_vector(m: Machine) -> None:
    """Fill the input buffers of the units of a group from the pins or from the buffer of the softmax unit."""
    a, dram, lanes = m.access, m.device.dram, m.device.elements_per_access
    halves, per_group = dram.pseudochannels, m.units_of_group
    position, _, _, _, outside = unpack(a.operands)
    groups = m.groups // halves
    group = np.arange(halves) * groups + a.banks[0] * halves * groups // dram.banks
    if outside[0]:
        values = m.take(halves * lanes).reshape(len(a.channels), a.times, halves, lanes).swapaxes(1, 2)
    else:
        where = m.inside("position", position[:, None] + np.arange(lanes), m.beside.shape[2])
        values = m.beside[a.channels[:, None, None, None], group[:, None, None], where]
    units = (group[:, None] * per_group + np.arange(per_group)).ravel()
    m.fill(units, _columns(m, position), np.repeat(values, per_group, axis=1))


def softmax(m: Machine) -> None:
    """Replace the scores of a head in the buffer of the softmax unit by their softmax, in float32."""
    a = m.access
    first, tokens = unpack_softmax(int(a.operands[0]))
    token = np.arange(tokens)
    place = m.inside("position", first + token // m.groups, m.beside.shape[2])
    at = a.channels[:, None], token % m.groups, place
    scores: F4 = m.beside[at]
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    m.beside[at] = powers / powers.sum(axis=1, keepdims=True)


def _columns(m: Machine, positions: Index) -> Index:
    lanes = m.device.elements_per_access
    m.inside("position in a column", positions % lanes, 1)
    return positions // lanes
