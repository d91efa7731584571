"""What the commands of PIM devices compute: one function each, on all channels of an instruction.

A command is known by the `meaning` that its description gives, and by the `datapath` of the units where these differ.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pimloom.sim import meanings_mixed as mixed
from pimloom.sim.banks import DUE, EMPTY, SET, TAKEN, Machine
from pimloom.sim.sums import accumulate, tree


def _activate(m: Machine) -> None:
    """Open a row by an instruction of its own."""
    a = m.access
    m.inside("row", np.array([a.row]), m.device.dram.rows)
    opened = m.open[a.channels][:, a.banks]
    if a.command.needs == "closed" and (opened >= 0).any():
        c, b = (int(i) for i in np.argwhere(opened >= 0)[0])
        raise m.fail(f"row {a.row} while bank {a.banks[b]} has row {opened[c, b]} open", int(a.channels[c]))
    m.open[a.channels[:, None], a.banks] = a.row


def _read(m: Machine) -> None:
    """Bring columns of one bank to the pins."""
    m.give(m.stored()[:, 0])


def _write(m: Machine) -> None:
    """Write columns from the pins, the same ones to all banks that are addressed."""
    values = m.take(m.device.elements_per_access)
    m.put(values[:, None])


def _write_buffer(m: Machine) -> None:
    """Fill columns `operand` of the input buffers from the pins."""
    m.fill(
        np.unique(m.buffers(m.access.banks)), m.access.operands, m.take(m.device.elements_per_access)[:, None]
    )


def _dot(m: Machine) -> None:
    """Multiply a column of every bank by the same column of the buffer, and add to the unit's register `operand`."""
    a = m.access
    factors = m.held(m.buffers(a.banks), a.columns)
    accumulate(m, m.units(), m.registers()[:, None], tree(m.stored() * factors)[..., None])


def _write_result(m: Machine) -> None:
    """Set the register `operand` of every unit from the pins, one value a unit."""
    a = m.access
    at = a.channels[:, None, None], m.registers()[:, None], m.units()
    if (m.state.swapaxes(1, 2)[at] == DUE).any():
        raise m.fail(f"result register {a.operands[0]} holds a sum that was not read")
    m.results.swapaxes(1, 2)[at] = m.take(len(a.banks))
    m.state.swapaxes(1, 2)[at] = SET


def _read_result(m: Machine) -> None:
    """Bring the register `operand` of every unit to the pins, one value a unit."""
    a = m.access
    at = a.channels[:, None, None], m.registers()[:, None], m.units()
    if (m.state.swapaxes(1, 2)[at] != DUE).any():
        raise m.fail(f"result register {a.operands[0]} holds nothing that was not read before")
    m.give(m.results.swapaxes(1, 2)[at])
    m.state.swapaxes(1, 2)[at] = TAKEN
    if not m.keeps_results:
        m.results.swapaxes(1, 2)[at] = 0


def _activation(m: Machine) -> None:
    """Put the function of the register `operand` of every unit into the unit's activation register.

    The row holds the function's table and is none of the memory; the function is max(x, 0), computed exactly.
    """
    a, units = m.access, m.units()
    at = a.channels[:, None], units
    if a.times > 1 or (m.activated[at] == DUE).any():
        raise m.fail("the activated value before was not read")
    set_or_sum = m.state[a.channels[:, None, None], units[:, None], m.registers()]
    if (set_or_sum == EMPTY).any():
        raise m.fail(f"result register {a.operands[0]} was never set")
    m.activations[at] = np.maximum(m.results[a.channels[:, None], units, a.operands], 0)
    m.activated[at] = DUE


def _read_activation(m: Machine) -> None:
    """Bring the activation register of every unit to the pins, one value a unit."""
    at = m.access.channels[:, None], m.units()
    if m.access.times > 1 or (m.activated[at] != DUE).any():
        raise m.fail("there is no activated value that was not read before")
    m.give(m.activations[at][:, None])
    m.activated[at] = TAKEN


def _multiply(m: Machine) -> None:
    """Multiply a column of bank 0 of every bank group by that of its bank 1, into its bank 2."""
    place = m.access.banks % m.device.dram.banks_per_bankgroup
    first, second, third = (np.flatnonzero(place == k) for k in range(3))
    m.put(m.stored(first) * m.stored(second), third)


def _copy_to_buffer(m: Machine) -> None:
    """Copy columns of a bank to columns `operand` of its input buffer."""
    m.fill(m.own_buffers(), m.access.operands, m.stored())


def _rectify_to_buffer(m: Machine) -> None:
    """Copy columns of a bank to columns `operand` of its input buffer, negative values as 0."""
    m.fill(m.own_buffers(), m.access.operands, np.maximum(m.stored(), 0))


def _add_to_buffer(m: Machine) -> None:
    """Add columns of a bank to columns `operand` of its input buffer."""
    buffers = m.own_buffers()
    m.fill(buffers, m.access.operands, m.held(buffers, m.access.operands) + m.stored())


def _multiply_to_buffer(m: Machine) -> None:
    """Multiply columns `operand` of the input buffer of a bank by columns of the bank."""
    buffers = m.own_buffers()
    m.fill(buffers, m.access.operands, m.held(buffers, m.access.operands) * m.stored())


def _copy_to_bank(m: Machine) -> None:
    """Copy columns `operand` of the input buffer to columns of its bank."""
    m.put(m.held(m.own_buffers(), m.access.operands))


def _mac_by_lane(m: Machine) -> None:
    """Multiply a column of the bank by an input register, and add to a result register, every lane for itself.

    operand = result register x input registers + input register. Product and sum are numbers of the device.
    """
    a, inputs = m.access, m.device.unit.buffer_accesses
    operands = m.inside("operand", a.operands, inputs * m.device.unit.result_registers)
    result, factor = inputs + operands // inputs, operands % inputs
    units = m.own_buffers()
    products = m.memory.rounded(m.stored() * m.held(units, factor))
    m.held(units, result)
    # The accesses to one register follow each other; those to different ones do not matter to each other.
    turn = np.array([np.count_nonzero(result[:k] == r) for k, r in enumerate(result)])
    for k in range(int(turn.max()) + 1):
        now = np.flatnonzero(turn == k)
        at = a.channels[:, None, None], units[:, None], result[now]
        m.buffer[at] = m.memory.rounded(m.buffer[at] + products[:, :, now])


def _mode_by_lane(m: Machine) -> None:
    """Clear the result registers of all units where computing begins (operand 1)."""
    a = m.access
    if a.operands[0] == 1:
        results = np.arange(m.device.unit.buffer_accesses, m.buffer.shape[2])
        at = a.channels[:, None, None], m.own_buffers()[:, None], results
        m.buffer[at], m.filled[at] = 0, True


def _nothing(m: Machine) -> None:
    """Change no data; what closes banks closes them whatever it means."""


Meaning = Callable[[Machine], None]
MEANINGS: dict[str, Meaning] = {
    "activate": _activate,
    "precharge": _nothing,
    "read": _read,
    "write": _write,
    "write_buffer": _write_buffer,
    "mac": _dot,
    "write_result": _write_result,
    "read_result": _read_result,
    "activation": _activation,
    "read_activation": _read_activation,
    "multiply": _multiply,
    "copy_to_buffer": _copy_to_buffer,
    "rectify_to_buffer": _rectify_to_buffer,
    "add_to_buffer": _add_to_buffer,
    "multiply_to_buffer": _multiply_to_buffer,
    "copy_to_bank": _copy_to_bank,
    "refresh": _nothing,
    "mode": _nothing,
}
"""Meaning of a command -> what it does."""
OF_DATAPATH: dict[str, dict[str, Meaning]] = {
    "dot": {},
    "lanes": {"mac": _mac_by_lane, "mode": _mode_by_lane},
    "mixed": {
        "write_buffer": mixed.write_buffer,
        "mac": mixed.mac,
        "move_result": mixed.move_result,
        "move_vector": mixed.move_vector,
        "softmax": mixed.softmax,
    },
}
"""Datapath of the units -> meanings that are other ones there."""
