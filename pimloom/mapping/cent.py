"""CENT's decoder block on GDDR6-AiM: one token at a context, instruction by instruction in CENT's order.

CENT (ASPLOS 2025) makes such programs for timing only: data it does not model (softmax, rotation, norms' scale) pass
through the shared registers of a device, of which its instructions show the transfers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pimloom.arch.device import Device
from pimloom.arch.tree import InputError
from pimloom.mapping.devices.aim import (
    contexts,
    end,
    instructions,
    join,
    mask,
    product,
    running,
    scores,
    transfer,
)
from pimloom.traces.stream import REGISTER, SYNC, Attention, Stream


class Decoder(NamedTuple):
    """Shape of one decoder block of the Llama family."""

    d_model: int
    heads: int
    kv_heads: int
    d_head: int
    d_ff: int


class Share(NamedTuple):
    """What of a device works on one block.

    channels: of this device; devices: that share its matrices and its key cache, each with all of its channels
    """

    channels: int
    devices: int = 1


class Rows(NamedTuple):
    """First rows of what a block keeps in every bank, in order; `all`: the row behind the last."""

    x: int
    x_copy: int
    norm: int
    query: int
    key: int
    value: int
    rotated_query: int
    rotated_key: int
    key_cache: int
    scores: int
    value_cache: int
    output: int
    projection: int
    attended: int
    attended_copy: int
    ff_norm: int
    gate: int
    up: int
    gated: int
    raised: int
    activated: int
    ff_vector: int
    down: int
    result: int
    all: int


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def rows(device: Device, shape: Decoder, share: Share) -> Rows:
    """Return CENT's map of a block. Raises InputError if a bank has not so many rows."""
    banks, width = share.channels * device.dram.banks, device.dram.columns * device.unit.lanes
    all_banks = banks * share.devices
    tokens = device.options["cached_tokens"]
    q_width, kv_width = shape.heads * shape.d_head, shape.kv_heads * shape.d_head

    def matrix(outputs: int, inputs: int) -> int:
        return _ceil(outputs, all_banks) * _ceil(inputs, width)

    x = max(1, _ceil(shape.d_model // device.dram.banks, width))
    attended = max(1, _ceil(q_width // banks, width))
    raised = max(1, _ceil(shape.d_ff // banks, width))
    gate = matrix(shape.d_ff, shape.d_model)
    sizes = [
        *(x, x, x),
        matrix(q_width, shape.d_model),
        *[matrix(kv_width, shape.d_model)] * 2,
        *(1, 1),
        _ceil(tokens, all_banks) * _ceil(kv_width, width),
        _ceil(tokens, width) * _ceil(shape.heads, share.channels * device.dram.bankgroups),
        _ceil(tokens, width) * _ceil(shape.kv_heads, share.channels) * _ceil(shape.d_head, device.dram.banks),
        attended,
        matrix(shape.d_model, shape.d_model),
        *(attended, attended, attended),
        *(gate, gate),
        *(raised, raised, raised),
        _ceil(shape.d_ff, width * device.dram.banks),
        matrix(shape.d_model, shape.d_ff),
        attended,
    ]
    result = Rows(*np.cumsum([0, *sizes]).tolist())
    if result.all > device.dram.rows:
        raise InputError(
            f"{device.name}: a block on {share.channels} channels of each of {share.devices} devices takes "
            f"{result.all} rows, but a bank has {device.dram.rows}"
        )
    return result


class _Program:
    """Instructions of a block, collected."""

    def __init__(self, device: Device, shape: Decoder, share: Share) -> None:
        self.device = device
        self.shape = shape
        self.share = share
        self.banks = share.channels * device.dram.banks
        self.groups = share.channels * device.dram.bankgroups
        self.width = device.dram.columns * device.unit.lanes
        self.copies = device.dram.channels // share.channels
        self.takes = mask(running(device, share.channels))
        self.streams: list[Stream] = []

    def add(self, command: str | int, **fields: int) -> None:
        self.streams.append(instructions(self.device, command, self.takes, **fields))

    def sync(self) -> None:
        self.streams.append(instructions(self.device, SYNC, mask(self.device.dram.channels)))

    def columns(self, length: int) -> int:
        return _ceil(length, self.device.unit.lanes)

    def matrix(self, outputs: int, inputs: int, row: int, activated: bool = False) -> None:
        channels = self.share.channels * self.share.devices
        self.streams.append(product(self.device, outputs, inputs, channels, row, activated))

    def move(self, command: str, elements: int, of: int, bank: int, row: int, length: int = 0) -> None:
        """Move a vector that is spread over every `of`-th bank, `length` values each (0 = as many as it has)."""
        each = _ceil(elements, self.banks // of)
        banks = np.arange(_ceil(elements, each)) * of + bank
        self.streams.append(
            transfer(self.device, command, banks, row, length or each, self.share.channels, self.copies)
        )

    def move_scores(self, command: str, tokens: int, bank: int, row: int) -> None:
        """Move the scores of all heads, several heads to a bank group, each from a row of its own on."""
        each = _ceil(self.shape.heads, self.groups)
        parts = _ceil(tokens, self.width)
        for part in range(parts):
            length = min(self.width, tokens - part * self.width)
            for head in range(each):
                banks = np.arange(_ceil(self.shape.heads - head, each))[: self.groups]
                self.streams.append(
                    transfer(
                        self.device, command, banks * self.device.dram.banks_per_bankgroup + bank,
                        row + head * parts + part, length, self.share.channels, self.copies,
                    )
                )  # fmt: skip

    def multiply(self, row: int, length: int) -> None:
        self.add("EWMUL16", times=self.columns(length), row=row, column=0)

    def copy(self, lengths: list[int], rows: list[int], to: list[int]) -> None:
        """Copy products of each bank group into its bank of second operands."""
        for group in range(self.device.dram.bankgroups):
            first = group * self.device.dram.banks_per_bankgroup
            for command, bank, places in (("RDCP", first + 2, rows), ("WRCP", first + 1, to)):
                for length, row in zip(lengths, places, strict=True):
                    self.add(command, times=self.columns(length), node=bank, row=row, column=0, operand=0)

    def square(self, row: int) -> None:
        """Sum up the squares of the vector, which lies twice in neighbouring banks."""
        each = _ceil(self.shape.d_model, self.banks // 2)
        self.add("WRMAC16", operand=0)
        self.add("MAC16", times=self.columns(each), row=row, column=0, operand=0, d_operand=0)
        self.add("RDMAC16", operand=0)

    def scale(self, row: int, to: int) -> None:
        """Multiply the vector with its scale and with the weights of a norm, and read it."""
        each = _ceil(self.shape.d_model, self.groups)
        self.multiply(row, each)
        self.copy([each], [row], [to])
        self.multiply(to, each)
        self.move("RD", self.shape.d_model, 4, 2, to)
        self.sync()


def block(device: Device, shape: Decoder, tokens: int, share: Share) -> Stream:
    """Return the instructions of one block for one token, the last of `tokens` in its context.

    As many blocks run at once as a device has room for. With several devices the stream is that of the one that also
    does attention, norms and activation; see `matrices` for the others. Raises InputError for a map that does not fit.
    """
    if not 1 <= share.channels <= device.dram.channels:
        raise InputError(f"{device.name} has {device.dram.channels} channels, not {share.channels}")
    if not 1 <= tokens <= device.options["cached_tokens"]:
        raise InputError(f"{tokens} tokens; the cache has room for 1 to {device.options['cached_tokens']}")
    at, p = rows(device, shape, share), _Program(device, shape, share)
    d, shared = shape.d_model, shape.heads // shape.kv_heads
    each = _ceil(d, p.groups)
    attention = Attention("score", shape.heads, shape.kv_heads, shape.d_head, tokens)

    p.move("WR", d, 2, 0, at.x)
    p.move("WR", d, 2, 1, at.x)
    p.square(at.x)
    p.move("WR", d, 4, 0, at.x_copy)
    p.move("WR", d, 4, 1, at.x_copy)
    p.scale(at.x_copy, at.norm)

    q_width, kv_width = shape.heads * shape.d_head, shape.kv_heads * shape.d_head
    p.matrix(q_width, d, at.query)
    p.matrix(kv_width, d, at.key)
    p.matrix(kv_width, d, at.value)
    p.move("WR", d, 4, 1, at.rotated_query, 2 * each)
    p.move("WR", d, 4, 1, at.rotated_key, 2 * (each // shared))
    p.multiply(at.rotated_query, d)
    p.multiply(at.rotated_key, d // shared)
    # CENT's programs have writes here, too, where the products are read.
    p.move("WR", d, 4, 2, at.rotated_query, 2 * each)
    p.move("WR", d, 4, 2, at.rotated_key, 2 * (each // shared))

    _cache(p, at, tokens)
    p.streams.append(scores(device, attention, share.channels * share.devices, at.key_cache))
    for _ in range(2):
        _scale_scores(p, at, tokens)
    p.streams.append(contexts(device, attention, share.channels, at.value_cache))

    p.matrix(d, d, at.projection)
    p.add(REGISTER)
    p.move("WR", d, 2, 0, at.attended_copy)
    p.move("WR", d, 2, 1, at.attended_copy)
    p.square(at.attended_copy)
    p.move("WR", d, 4, 1, at.attended_copy)
    p.move("WR", d, 4, 0, at.attended_copy)
    p.scale(at.attended_copy, at.ff_norm)

    p.matrix(shape.d_ff, d, at.gate, activated=True)
    p.matrix(shape.d_ff, d, at.up)
    _activate(p, at)
    p.matrix(d, shape.d_ff, at.down)
    p.add(REGISTER)
    return join([*p.streams, end(device)])


def _cache(p: _Program, at: Rows, tokens: int) -> None:
    """Write the last token's key into one bank, and its value's dimensions into the banks of their heads."""
    device, shape = p.device, p.shape
    last, all_banks = tokens - 1, p.banks * p.share.devices
    parts = shape.kv_heads * shape.d_head // p.width
    bank = last % all_banks % (device.dram.channels * device.dram.banks)
    for part in range(parts):
        row = at.key_cache + last // all_banks * parts + part
        for copy in range(p.copies):
            place = np.array([bank + copy * p.banks])
            p.streams.append(transfer(device, "WR", place, row, p.width))
    room = device.options["cached_tokens"] // p.width
    dimensions = shape.d_head // device.dram.banks
    heads = _ceil(shape.kv_heads, p.share.channels)
    # CENT counts the rows of the tokens before the last one.
    part = (last - 1) // p.width
    for head in range(heads):
        channels = np.arange(_ceil(shape.kv_heads - head, heads), dtype=np.uint64)[: p.share.channels]
        for dimension in range(dimensions):
            row = at.value_cache + (head * dimensions + dimension) * room + part
            p.streams.append(instructions(device, "WRA16", np.uint64(1) << channels, row=row, column=0))


def _scale_scores(p: _Program, at: Rows, tokens: int) -> None:
    """Scale the scores of all heads; once before and once after the exponential function."""
    p.move_scores("WR", tokens, 0, at.scores)
    p.move_scores("WR", tokens, 1, at.scores)
    parts = _ceil(tokens, p.width)
    for head in range(_ceil(p.shape.heads, p.groups)):
        for part in range(parts):
            p.multiply(at.scores + head * parts + part, min(p.width, tokens - part * p.width))
    p.move_scores("RD", tokens, 2, at.scores)
    p.sync()


def _activate(p: _Program, at: Rows) -> None:
    """Multiply the gate with its sigmoid and with the other branch, in two rows of a bank if one has no room."""
    d_ff, most = p.shape.d_ff, p.groups * p.width
    parts = [(most, at.gated), (d_ff - most, at.activated)] if d_ff > most else [(d_ff, at.activated)]
    lengths = [_ceil(elements, p.groups) for elements, _ in parts]
    places = [row for _, row in parts]

    def move(command: str, bank: int) -> None:
        for elements, row in parts:
            p.move(command, elements, 4, bank, row)

    def multiply() -> None:
        for length, row in zip(lengths, places, strict=True):
            p.multiply(row, length)

    # CENT's order of the operands differs with the number of rows.
    first, second, again = (1, 0, 1) if len(parts) > 1 else (0, 1, 0)
    move("WR", first)
    move("WR", second)
    multiply()
    p.copy(lengths, places, places)
    move("WR", again)
    multiply()
    move("RD", 2)
    p.sync()


def matrices(device: Device, shape: Decoder, share: Share) -> Stream:
    """Return what a device does of a block that shares only its matrices with another."""
    at, p = rows(device, shape, share), _Program(device, shape, share)
    d, q_width, kv_width = shape.d_model, shape.heads * shape.d_head, shape.kv_heads * shape.d_head
    p.matrix(q_width, d, at.query)
    p.matrix(kv_width, d, at.key)
    p.matrix(kv_width, d, at.value)
    p.matrix(d, d, at.projection)
    p.matrix(shape.d_ff, d, at.gate, activated=True)
    p.matrix(shape.d_ff, d, at.up)
    p.matrix(d, shape.d_ff, at.down)
    return join([*p.streams, end(device)])


def embedding(device: Device, shape: Decoder, vocab: int, share: Share) -> Stream:
    """Return what comes before the first block and behind the last: embedding, last norm and head, as CENT has them."""
    at, p = rows(device, shape, share), _Program(device, shape, share)
    p.matrix(shape.d_model, vocab, at.query)
    p.square(at.x)
    p.move("WR", shape.d_model, 4, 1, at.x_copy)
    p.scale(at.x_copy, at.norm)
    p.matrix(vocab, shape.d_model, at.projection)
    return join([*p.streams, end(device)])
