"""Operands in one number."""

from __future__ import annotations

import itertools

from pimloom.traces.operand import LIMIT, Operand, softmax_operand, unpack, unpack_softmax


def test_round_trip() -> None:
    for fields in itertools.product((0, 1, LIMIT - 1), (0, 1, 31), (0, 1, 7), (0, 1), (0, 1)):
        packed = Operand(*fields).packed
        assert 0 <= packed < 2**31
        assert tuple(int(x) for x in unpack(packed)) == fields


def test_positions_add() -> None:
    operand = Operand(3, lane=5, register=1, by_lane=1)
    assert [int(x) for x in unpack(operand.packed + 4)] == [7, 5, 1, 1, 0]
    assert Operand(0, lane=1).packed * 3 + operand.packed == operand._replace(lane=8).packed


def test_softmax() -> None:
    assert unpack_softmax(softmax_operand(256, 4096)) == (256, 4096)
    assert softmax_operand(LIMIT - 1, 2**16 - 1) < 2**31
