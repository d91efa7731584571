"""GDDR6-AiM with the mapping of CENT: instructions of the AiM simulator, in CENT's order.

Banks are numbered through the channels of a kernel, B of them. Where a kernel leaves channels idle, these run copies of
it, as CENT's devices hold several blocks; nobody takes their results.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pimloom.arch.device import Device
from pimloom.arch.tree import InputError
from pimloom.mapping.devices import Table
from pimloom.traces.layout import Index, Place
from pimloom.traces.stream import (
    END,
    FIELDS,
    REGISTER,
    U8,
    Attention,
    Elementwise,
    Gemv,
    Kernel,
    Maps,
    Site,
    Stream,
)

NOBODY = -1

Numbers = int | Index
Masks = np.uint64 | U8


def instructions(device: Device, command: str | int, channels: Masks, **fields: Numbers) -> Stream:
    """Return instructions of one command; `channels` and the other fields of `Stream` are broadcast."""
    names = tuple(device.dram.commands)
    values: dict[str, Numbers] = {
        "command": names.index(command) if isinstance(command, str) else command,
        **{"times": 1, "node": 0, "row": -1, "column": -1, "d_column": 1, "operand": -1, "d_operand": 1},
        **fields,
    }
    masks = np.asarray(channels, np.uint64)
    full = np.broadcast_arrays(masks, *(np.asarray(values[name], np.int32) for name in FIELDS))
    return Stream(names, *(np.ascontiguousarray(array).reshape(-1) for array in full))


def join(streams: Sequence[Stream]) -> Stream:
    """Return one or more streams of a device one after the other."""
    return Stream(
        streams[0].commands,
        *(np.concatenate([getattr(s, name) for s in streams]) for name in ("channels", *FIELDS)),
    )


def interleave(streams: Sequence[Stream]) -> Stream:
    """Return streams of one length merged: the first instruction of each, then the second, ..."""
    return Stream(
        streams[0].commands,
        *(
            np.stack([getattr(s, name) for s in streams], axis=1).reshape(-1)
            for name in ("channels", *FIELDS)
        ),
    )


def take(stream: Stream, order: Index) -> Stream:
    """Return instructions of a stream in another order."""
    return Stream(stream.commands, *(getattr(stream, name)[order] for name in ("channels", *FIELDS)))


def end(device: Device) -> Stream:
    """Return the last instruction of a kernel."""
    return instructions(device, END, mask(device.dram.channels))


def mask(channels: int) -> np.uint64:
    """Return the mask of so many channels, from the first on."""
    return np.uint64((1 << channels) - 1)


def running(device: Device, channels: int) -> int:
    """Return the channels that run a kernel for so many of them, copies included."""
    total = device.dram.channels
    return total if channels > total else total // channels * channels


def _check(device: Device, site: Site, rows: int) -> None:
    if not 1 <= site.channels <= device.dram.channels:
        raise InputError(f"{device.name} has {device.dram.channels} channels, not {site.channels}")
    if site.row + rows > device.dram.rows:
        raise InputError(
            f"{device.name}: {rows} rows from row {site.row} on, but a bank has {device.dram.rows}"
        )


def _width(device: Device) -> int:
    """Values in a row of a bank, which are as many as the global buffer holds."""
    return device.dram.columns * device.unit.lanes


def _columns(device: Device, length: Index | int) -> Index:
    """Accesses that so many values take in each row, for the rows that they fill one after the other."""
    first = np.arange(0, int(length), _width(device))
    return -(-np.minimum(int(length) - first, _width(device)) // device.unit.lanes)


def _accesses(device: Device, positions: Index) -> Index:
    """Return positions as accesses, i8[n, lanes], the last one padded."""
    missing = -len(positions) % device.unit.lanes
    return np.pad(positions, (0, missing), constant_values=NOBODY).reshape(-1, device.unit.lanes)


def _maps(device: Device, used: Sequence[Index], running: int) -> Maps:
    """Return the maps of all channels from those of the channels in use; copies are nobody's."""
    copy = np.full_like(used[0], NOBODY)
    idle = np.empty((0, device.unit.lanes), np.int64)
    return [*used, *[copy] * (running - len(used)), *[idle] * (device.dram.channels - running)]


def _place(channel: Index, bank: Index, row: Index, position: Index, lanes: int) -> Place:
    """Return places in rows; arguments broadcast."""
    return Place(*np.broadcast_arrays(channel, bank, row, position // lanes, position % lanes))


# --- matrix-vector products --------------------------------------------------------------------------------


def _outputs_per_bank(device: Device, outputs: int, channels: int) -> tuple[int, int]:
    """Return the outputs of each bank, and the channels that have any."""
    banks = device.dram.banks
    each = -(-outputs // (banks * channels))
    return each, -(-outputs // (each * banks))


def _groups(device: Device, each: int, activated: bool) -> tuple[int, int]:
    """Return the groups of results and the size of all but the last."""
    groups = -(-each // max(1, device.options["result_group"] // (2 if activated else 1)))
    return groups, -(-each // groups)


def product(
    device: Device, outputs: int, inputs: int, channels: int, row: int, activated: bool = False
) -> Stream:
    """Return a matrix-vector product as `gemv` has it, on channels of which a device may hold but a part."""
    each, used = _outputs_per_bank(device, outputs, channels)
    columns = _columns(device, inputs)
    parts = len(columns)
    slot = np.arange(each)
    group, register = np.divmod(slot, _groups(device, each, activated)[1])
    takes = mask(running(device, used))
    streams = []
    for part in range(parts):
        fill = instructions(device, "WRGB", takes, times=columns[part], operand=0)
        phases = [
            instructions(device, "WRMAC16", takes, operand=register),
            instructions(
                device, "MAC16", takes, times=columns[part], row=row + slot * parts + part, column=0,
                operand=register, d_operand=0,
            ),
            instructions(device, "RDMAC16", takes, operand=register),
        ]  # fmt: skip
        order = np.argsort(np.concatenate([3 * group, 3 * group + 1, 3 * group + 2]), kind="stable")
        if activated and part == parts - 1:
            function = instructions(
                device, "AF16", takes, row=device.options["activation_row"], column=0, operand=register
            )
            phases[2:2] = [interleave([function, instructions(device, "RDAF16", takes, operand=register)])]
            keys = [4 * group, 4 * group + 1, np.repeat(4 * group + 2, 2), 4 * group + 3]
            order = np.argsort(np.concatenate(keys), kind="stable")
        streams += [fill, take(join(phases), order)]
    return join(streams)


def gemv(device: Device, work: Gemv, site: Site, activated: bool = False) -> Kernel:
    """Multiply a matrix with vectors: consecutive outputs in each bank, each in ceil(inputs / row) rows of it.

    For each part of the vector that the global buffer holds, results are gathered in groups of the option
    `result_group`; the host adds up the parts. A group of 1 is CENT's order no-reuse.

    activated: after its last part each result goes through the activation function, too, in groups of half the size;
        the results as such are read all the same, and nobody takes the activated ones.
    Raises InputError for what the site has no room for.
    """
    banks, lanes, width = device.dram.banks, device.unit.lanes, _width(device)
    each, used = _outputs_per_bank(device, work.outputs, max(1, site.channels))
    parts = -(-work.inputs // width)
    _check(device, site, each * parts)
    copies = running(device, used)
    one = product(device, work.outputs, work.inputs, site.channels, site.row, activated)

    def stored() -> dict[str, Place]:
        output, position = np.ogrid[: work.outputs, : work.inputs]
        bank, slot = np.divmod(output, each)
        row = site.row + slot * parts + position // width
        return {"matrix": _place(bank // banks, bank % banks, row, position % width, lanes)}

    def feed() -> Maps:
        bias = np.full((each, lanes), NOBODY)
        blocks = []
        for vector in range(work.batch):
            position = vector * work.inputs + np.arange(work.inputs)
            for part in range(parts):
                blocks += [_accesses(device, position[part * width : (part + 1) * width]), bias]
        return _maps(device, [np.concatenate(blocks)] * used, copies)

    def drain() -> Maps:
        size = _groups(device, each, activated)[1]
        maps = []
        for channel in range(used):
            bank = channel * banks + np.arange(banks)
            output = bank * each + np.arange(each)[:, None]
            blocks = []
            for vector in range(work.batch):
                mine = np.where(output < work.outputs, output + vector * work.outputs, NOBODY)
                for part in range(parts):
                    for first in range(0, each, size):
                        some = mine[first : first + size]
                        if activated and part == parts - 1:
                            blocks.append(np.full_like(some, NOBODY))
                        blocks.append(some)
            maps.append(np.concatenate(blocks))
        return _maps(device, maps, copies)

    stream = join([*[one] * work.batch, end(device)])
    return Kernel(stream, each * parts, work.batch * work.outputs, stored, feed, drain)


# --- attention -----------------------------------------------------------------------------------------------


def _heads_per_row(device: Device, d_head: int) -> int:
    heads = device.dram.columns // -(-d_head // device.unit.lanes)
    if heads < 1:
        raise InputError(
            f"{device.name}: a head of {d_head} values takes more than a row of {_width(device)}"
        )
    return heads


def scores(device: Device, work: Attention, channels: int, row: int) -> Stream:
    """Return the products of a query and all keys as `score` has them; see `product`."""
    banks, columns = device.dram.banks, -(-work.d_head // device.unit.lanes)
    per_row = _heads_per_row(device, work.d_head)
    rows = -(-work.kv_heads // per_row)
    blocks = -(-work.tokens // (banks * channels))
    rest = -(-(work.tokens - (blocks - 1) * banks * channels) // banks)
    streams = []
    for part in range(rows):
        heads = min(per_row, work.kv_heads - part * per_row)
        for block in range(blocks):
            # Where the channels are those of several devices, all of this one take part in every block.
            used = rest if block == blocks - 1 and channels <= device.dram.channels else channels
            takes = mask(running(device, used))
            at = row + block * rows + part
            dots = interleave(
                [
                    instructions(device, "WRMAC16", takes, operand=np.zeros(heads, int)),
                    instructions(
                        device, "MAC16", takes, times=columns, row=at, column=np.arange(heads) * columns,
                        operand=0, d_operand=0,
                    ),
                    instructions(device, "RDMAC16", takes, operand=np.zeros(heads, int)),
                ]
            )  # fmt: skip
            fill = instructions(device, "WRGB", takes, times=heads * columns, operand=0)
            streams += [fill, dots] * (work.heads // work.kv_heads)
    return join(streams)


def score(device: Device, work: Attention, site: Site) -> Kernel:
    """Multiply a query with all keys: one token per bank, with as many heads side by side as a row has room for.

    For each of these rows, each block of as many tokens as there are banks, and each of the query heads that share a
    key head: the queries of all heads of the row into the global buffer, then head by head. The last block runs on the
    channels that it needs. Raises InputError for what the site has no room for.
    """
    banks, lanes = device.dram.banks, device.unit.lanes
    columns, per_row = -(-work.d_head // lanes), _heads_per_row(device, work.d_head)
    rows, shared = -(-work.kv_heads // per_row), work.heads // work.kv_heads
    total = banks * max(1, site.channels)
    blocks = -(-work.tokens // total)
    _check(device, site, rows * blocks)
    used = [min(site.channels, -(-(work.tokens - b * total) // banks)) for b in range(blocks)]

    def stored() -> dict[str, Place]:
        head, token, i = np.ogrid[: work.kv_heads, : work.tokens, : work.d_head]
        block, bank = np.divmod(token, total)
        position = head % per_row * columns * lanes + i
        row = site.row + block * rows + head // per_row
        return {"keys": _place(bank // banks, bank % banks, row, position, lanes)}

    def each_query() -> Iterator[tuple[int, Index, int]]:
        """Per filling of the buffer: the block of tokens, the query heads, and the channels with copies."""
        for part in range(rows):
            kv_head = np.arange(part * per_row, min(work.kv_heads, (part + 1) * per_row))
            for block in range(blocks):
                for repeat in range(shared):
                    yield block, kv_head * shared + repeat, running(device, used[block])

    def feed() -> Maps:
        maps: list[list[Index]] = [[] for _ in range(device.dram.channels)]
        for block, heads, copies in each_query():
            query = [_accesses(device, head * work.d_head + np.arange(work.d_head)) for head in heads]
            access = np.concatenate([*query, np.full((len(heads), lanes), NOBODY)])
            for channel in range(copies):
                maps[channel].append(access if channel < used[block] else np.full_like(access, NOBODY))
        return _joined(device, maps)

    def drain() -> Maps:
        maps: list[list[Index]] = [[] for _ in range(device.dram.channels)]
        for block, heads, copies in each_query():
            for channel in range(copies):
                token = block * total + channel * banks + np.arange(banks)
                is_real = (token < work.tokens) & (channel < used[block])
                maps[channel].append(np.where(is_real, heads[:, None] * work.tokens + token, NOBODY))
        return _joined(device, maps)

    stream = join([scores(device, work, site.channels, site.row), end(device)])
    return Kernel(stream, rows * blocks, work.heads * work.tokens, stored, feed, drain)


def _joined(device: Device, maps: Sequence[Sequence[Index]]) -> Maps:
    idle = np.empty((0, device.unit.lanes), np.int64)
    return [np.concatenate(blocks) if blocks else idle for blocks in maps]


def _room(device: Device, tokens: int) -> int:
    """Return the rows that a dimension of a head takes in the value cache."""
    return len(_columns(device, max(tokens, device.options["cached_tokens"])))


def contexts(device: Device, work: Attention, channels: int, row: int) -> Stream:
    """Return the products of probabilities and all values as `context` has them."""
    columns, room = _columns(device, work.tokens), _room(device, work.tokens)
    dimensions = -(-work.d_head // device.dram.banks)
    takes = mask(running(device, channels))
    streams = []
    for head in range(-(-work.kv_heads // channels)):
        for part in list(range(len(columns))) * (work.heads // work.kv_heads):
            at = row + (head * dimensions + np.arange(dimensions)) * room + part
            streams += [
                instructions(device, "WRGB", takes, times=columns[part], operand=0),
                interleave(
                    [
                        instructions(device, "WRMAC16", takes, operand=np.zeros(dimensions, int)),
                        instructions(
                            device,
                            "MAC16",
                            takes,
                            times=columns[part],
                            row=at,
                            column=0,
                            operand=0,
                            d_operand=0,
                        ),
                        instructions(device, "RDMAC16", takes, operand=np.zeros(dimensions, int)),
                    ]
                ),
            ]
    return join(streams)


def context(device: Device, work: Attention, site: Site) -> Kernel:
    """Multiply probabilities with all values: heads over channels, dimensions over banks, tokens along rows.

    Each dimension of a head has rows for the tokens of the option `cached_tokens`, or for all if these are more. The
    global buffers of the channels hold the probabilities of different heads at the same time, though one instruction
    fills them. Raises InputError for what the site has no room for.
    """
    banks, lanes, width = device.dram.banks, device.unit.lanes, _width(device)
    heads, room = -(-work.kv_heads // max(1, site.channels)), _room(device, work.tokens)
    dimensions, shared = -(-work.d_head // banks), work.heads // work.kv_heads
    parts = -(-work.tokens // width)
    _check(device, site, heads * dimensions * room)
    copies = running(device, site.channels)

    def stored() -> dict[str, Place]:
        head, token, i = np.ogrid[: work.kv_heads, : work.tokens, : work.d_head]
        row = site.row + (head % heads * dimensions + i // banks) * room + token // width
        return {"values": _place(head // heads, i % banks, row, token % width, lanes)}

    def each_filling(channel: int) -> Iterator[tuple[int, int]]:
        """Per filling of the buffer: query head or NOBODY, part."""
        for kv_head in range(channel * heads, (channel + 1) * heads):
            for repeat in range(shared):
                for part in range(parts):
                    yield (kv_head * shared + repeat if kv_head < work.kv_heads else NOBODY), part

    def feed() -> Maps:
        bias = np.full((dimensions, lanes), NOBODY)
        maps = []
        for channel in range(site.channels):
            blocks = []
            for head, part in each_filling(channel):
                token = np.arange(part * width, min(work.tokens, (part + 1) * width))
                mine = head * work.tokens + token if head != NOBODY else np.full_like(token, NOBODY)
                blocks += [_accesses(device, mine), bias]
            maps.append(np.concatenate(blocks))
        return _maps(device, maps, copies)

    def drain() -> Maps:
        dimension = np.arange(dimensions)[:, None] * banks + np.arange(banks)
        maps = []
        for channel in range(site.channels):
            maps.append(
                np.concatenate(
                    [
                        np.where(
                            (dimension < work.d_head) & (head != NOBODY),
                            head * work.d_head + dimension,
                            NOBODY,
                        )
                        for head, _ in each_filling(channel)
                    ]
                )
            )
        return _maps(device, maps, copies)

    stream = join([contexts(device, work, site.channels, site.row), end(device)])
    return Kernel(stream, heads * dimensions * room, work.heads * work.d_head, stored, feed, drain)


# --- element by element ----------------------------------------------------------------------------------------


def _spread(device: Device, elements: int, channels: int) -> int:
    """Return the consecutive elements of each bank group."""
    return -(-elements // (device.dram.bankgroups * channels))


def transfer(
    device: Device, command: str, banks: Index, row: int, length: int, channels: int = 0, copies: int = 1
) -> Stream:
    """Return plain reads or writes of a row of banks, column after column, bank after bank, copy after copy.

    command: RD or WR; banks: i8[n] numbered through the channels; length: values of each; channels: from one copy to
    the next.
    """
    column, bank, copy = np.ogrid[: -(-length // device.unit.lanes), : len(banks), :copies]
    channel, node = np.divmod(banks[bank], device.dram.banks)
    takes = np.uint64(1) << (channel + copy * channels).astype(np.uint64)
    return instructions(device, command, takes, node=node, row=row, column=column)


def mul(device: Device, work: Elementwise, site: Site, moved: bool = False) -> Kernel:
    """Multiply two vectors: consecutive elements in banks 0 and 1 of each bank group, products into its bank 2.

    moved: the host writes both operands before and reads the products after that.
    Raises InputError for what the site has no room for.
    """
    each, width = _spread(device, work.elements, max(1, site.channels)), _width(device)
    columns = _columns(device, each)
    _check(device, site, len(columns))
    group = np.arange(site.channels * device.dram.bankgroups)
    row = site.row + np.arange(len(columns))
    takes = mask(site.channels)
    streams = [instructions(device, "EWMUL16", takes, times=columns, row=row, column=0), end(device)]
    if moved:
        lengths = np.minimum(width, each - np.arange(len(columns)) * width)

        def move(command: str, bank: int) -> list[Stream]:
            return [
                transfer(device, command, group * device.dram.banks_per_bankgroup + bank, int(r), int(n))
                for r, n in zip(row, lengths, strict=True)
            ]

        streams = [*move("WR", 0), *move("WR", 1), streams[0], *move("RD", 2), streams[1]]

    def places(bank: int) -> Place:
        group, position = np.divmod(np.arange(work.elements), each)
        channel, inside = np.divmod(group, device.dram.bankgroups)
        at = inside * device.dram.banks_per_bankgroup + bank
        return _place(channel, at, site.row + position // width, position % width, device.unit.lanes)

    def nothing() -> Maps:
        return [np.empty((0, device.unit.lanes), np.int64)] * device.dram.channels

    return Kernel(
        join(streams), len(columns), work.elements,
        lambda: {"a": places(0), "b": places(1)}, nothing, nothing, lambda: places(2),
    )  # fmt: skip


def add(device: Device, work: Elementwise, site: Site) -> Kernel:
    """Add two vectors in the registers of the front end, which costs one clock there; reading them is what takes time.

    Elements lie as for `mul`. Where both are in the registers already, as in CENT's decoder block, REGISTER is all that
    is left. Raises InputError for what the site has no room for.
    """
    each, width = _spread(device, work.elements, max(1, site.channels)), _width(device)
    rows = -(-each // width)
    _check(device, site, rows)
    groups = np.arange(site.channels * device.dram.bankgroups)
    lengths = [min(width, each - part * width) for part in range(rows)]
    streams = [
        transfer(device, "RD", groups * device.dram.banks_per_bankgroup + bank, site.row + part, length)
        for part, length in enumerate(lengths)
        for bank in range(2)
    ]

    def places(bank: int) -> Place:
        group, position = np.divmod(np.arange(work.elements), each)
        channel, inside = np.divmod(group, device.dram.bankgroups)
        at = inside * device.dram.banks_per_bankgroup + bank
        return _place(channel, at, site.row + position // width, position % width, device.unit.lanes)

    def drain() -> Maps:
        maps = []
        for channel in range(site.channels):
            group = channel * device.dram.bankgroups + np.arange(device.dram.bankgroups)
            blocks = []
            for part, length in enumerate(lengths):
                accesses = -(-length // device.unit.lanes)
                inside = np.arange(accesses * device.unit.lanes)
                element = group[:, None] * each + part * width + inside
                real = np.where((inside < length) & (element < work.elements), element, NOBODY)
                blocks += [
                    real.reshape(len(group), accesses, -1).swapaxes(0, 1).reshape(-1, device.unit.lanes)
                ] * 2
            maps.append(np.concatenate(blocks))
        return _maps(device, maps, site.channels)

    stream = join([*streams, instructions(device, REGISTER, mask(site.channels)), end(device)])
    return Kernel(
        stream, rows, work.elements, lambda: {"a": places(0), "b": places(1)},
        lambda: [np.empty((0, device.unit.lanes), np.int64)] * device.dram.channels, drain,
    )  # fmt: skip


def relu(device: Device, work: Elementwise, site: Site) -> Kernel:
    """Rectify a vector that comes over the pins, as `vector`, into the result registers, by the activation function.

    Bank k of a channel takes element k of an access. There is one activated value per bank, so each is read before the
    next is made. Raises InputError for more channels than there are.
    """
    banks = device.dram.banks
    accesses = -(-work.elements // (banks * max(1, site.channels)))
    _check(device, site, 0)
    takes = mask(site.channels)
    size = device.options["result_group"]
    streams = []
    for first in range(0, accesses, size):
        register = np.arange(min(size, accesses - first))
        row = device.options["activation_row"]
        function = instructions(device, "AF16", takes, row=row, column=0, operand=register)
        read = instructions(device, "RDAF16", takes, operand=register)
        streams += [instructions(device, "WRMAC16", takes, operand=register), interleave([function, read])]
    element = np.arange(site.channels * accesses * banks).reshape(site.channels, accesses, banks)
    element[element >= work.elements] = NOBODY

    def every() -> Maps:
        return _maps(device, [*element], site.channels)

    return Kernel(join([*streams, end(device)]), 0, work.elements, lambda: {}, every, every)


LOWERINGS: Table = {"gemv": gemv, "add": add, "mul": mul, "relu": relu, "score": score, "context": context}
