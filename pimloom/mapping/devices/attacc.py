"""AttAcc: the attention layer of all heads, and its score phase as a matrix-vector product.

A channel works on one head at a time. The tokens of a head are spread over groups of units: the bank groups of both
pseudo-channels, or these themselves where there is but one unit in each. A dot product is spread over the units of a
group, if it has several, and over the lanes of each. The order of requests is that of the generators of AttAcc's
simulator (revision c600051), as the README of the reference data describes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pimloom.arch.device import Device
from pimloom.arch.tree import InputError
from pimloom.mapping.devices import Table
from pimloom.traces.layout import Index, Place
from pimloom.traces.operand import Operand, softmax_operand
from pimloom.traces.stream import BARRIER, FIELDS, Attention, Gemv, Kernel, Maps, Site, Stream, Work

RESULTS = 16
"""Results of a unit that one move takes."""
COMMAND, NODE, ROW, COLUMN, OPERAND, STEP, FIELDS_OF_ACCESS = range(7)
"""Fields of an access: as in `Stream`; STEP: from its operand to that of the next."""


@dataclass(frozen=True)
class Layout:
    """How a device works on its operands: fixed by where its units are."""

    device: Device

    @property
    def lanes(self) -> int:
        """Elements of one access."""
        return self.device.elements_per_access

    @property
    def pseudochannels(self) -> int:
        """Halves of a channel that work on the same command with different tokens."""
        return self.device.dram.pseudochannels

    @property
    def banks(self) -> int:
        """Banks of a pseudo-channel."""
        return self.device.dram.banks // self.pseudochannels

    @property
    def split(self) -> int:
        """Units of a group, which share a dot product."""
        return max(1, self.device.dram.banks_per_bankgroup // self.device.unit.banks_per_unit)

    @property
    def groups(self) -> int:
        """Groups of a pseudo-channel."""
        return self.banks // self.device.unit.banks_per_unit // self.split

    @property
    def parallel(self) -> int:
        """Groups of a channel: tokens, or outputs, that are worked on at a time."""
        return self.groups * self.pseudochannels

    @property
    def width(self) -> int:
        """Elements of a dot product that a group works on at a time."""
        return self.split * self.lanes

    @property
    def half(self) -> int:
        """Elements of one half of the input buffer."""
        return self.device.unit.buffer_accesses // 2 * self.lanes

    @cached_property
    def ids(self) -> dict[str, int]:
        """Ids of the commands by meaning."""
        found: dict[str, int] = {c.meaning: i for i, c in enumerate(self.device.dram.commands.values())}
        for meaning in ("mac", "write_buffer", "move_result", "move_vector", "softmax"):
            if meaning not in found:
                raise InputError(
                    f"{self.device.name}: lowering: attacc needs a command of the meaning {meaning!r}"
                )
        return found

    def rows(self, accesses: int) -> int:
        """Rows of a bank that so many accesses of a unit take."""
        return -(-accesses // (self.device.dram.columns * self.device.unit.banks_per_unit))

    def walk(self, access: npt.ArrayLike) -> tuple[Index, Index, Index]:
        """Return bank of the unit, row and column of its accesses in the order in which they are stored.

        A unit of a bank group goes from bank to bank row by row, one of several bank groups access by access.
        """
        a = np.asarray(access, np.int64)
        columns, per_group = self.device.dram.columns, self.device.dram.banks_per_bankgroup
        banks = self.device.unit.banks_per_unit
        if banks <= per_group:
            return a // columns % banks, a // (columns * banks), a % columns
        bankgroups = banks // per_group
        bank = a % bankgroups * per_group + a // bankgroups % per_group
        return bank, a // (banks * columns), a // banks % columns

    def place(
        self, channel: Index, group: Index, unit: Index, access: Index, row: Index, lane: Index
    ) -> Place:
        """Return the address of elements: group of the channel, unit of the group, access of the unit."""
        bank, of_unit, column = self.walk(access)
        bank = bank + (group * self.split + unit) * self.device.unit.banks_per_unit
        return Place(*np.broadcast_arrays(channel, bank, row + of_unit, column, lane))

    def moves(self, by_lane: bool) -> Index:
        """Banks to which the moves of one set of results are addressed, in their order.

        Dot products are summed over the units of a group and every group has its own; sums by lane are summed over
        the groups of a rank and every unit of a group has its own.
        """
        dram = self.device.dram
        if self.groups == 1:
            return np.zeros(1, np.int64)
        rank = np.arange(dram.ranks) * (self.banks // dram.ranks)
        if by_lane:
            return np.add.outer(np.arange(self.split), rank).ravel()
        return np.add.outer(np.arange(dram.bankgroups) * dram.banks_per_bankgroup, rank).ravel()

    # --- accesses ------------------------------------------------------------------------

    def macs(self, accesses: Index, row: int, operand: Index, step: int) -> Index:
        """Return accesses of all units; see FIELDS_OF_ACCESS."""
        bank, of_unit, column = self.walk(accesses)
        return _table(self.ids["mac"], bank, row + of_unit, column, operand, step)

    def write(self, columns: int, position: int) -> Index:
        """Return what writes a vector of `columns` accesses a unit to the input buffers."""
        unit, column = np.divmod(np.arange(self.split * columns), columns)
        return _table(
            self.ids["write_buffer"],
            unit * self.device.unit.banks_per_unit,
            -1,
            -1,
            position + column * self.lanes,
            self.lanes,
        )

    def fetch(self, columns: int, operand: int) -> Index:
        """Return what moves `columns` accesses of a vector to the input buffers of each group."""
        group, column = np.divmod(np.arange(self.groups * columns), columns)
        return _table(
            self.ids["move_vector"],
            group * (self.banks // self.groups),
            -1,
            -1,
            operand + column * self.lanes,
            self.lanes,
        )

    def move(self, operand: int, by_lane: bool) -> Index:
        """Return what moves a register of all units away."""
        return _table(self.ids["move_result"], self.moves(by_lane), -1, -1, operand, 0)

    def dot_products(
        self, count: int, columns: int, row: int, out: Operand, register: int
    ) -> list[tuple[Index, Index]]:
        """Return parts that multiply and that move away, for `count` dot products of every group.

        columns: accesses of a unit for each; out: where in the input buffer the vector is, and where results go;
        register: number of parts that came before.
        """
        parts = []
        for first in range(0, count, RESULTS):
            into = out._replace(register=register % self.device.unit.result_registers)
            product, column = np.divmod(np.arange(min(RESULTS, count - first) * columns), columns)
            operand = into.packed + column * self.lanes + product * Operand(0, lane=1).packed
            macs = self.macs((first + product) * columns + column, row, operand, self.lanes)
            to = into._replace(position=0 if into.outside else into.position + first)
            parts.append((macs, self.move(to.packed, by_lane=False)))
            register += 1
        return parts

    def softmax(self, position: int, tokens: int) -> Index:
        """Return the softmax of a head."""
        return _table(self.ids["softmax"], 0, -1, -1, softmax_operand(position, tokens), 0)


def _table(*fields: npt.ArrayLike) -> Index:
    """Accesses i8[n, FIELDS_OF_ACCESS] from their fields."""
    return np.stack(np.broadcast_arrays(*(np.atleast_1d(np.asarray(f, np.int64)) for f in fields)), axis=1)


def _span(count: int, first: int = 0) -> int:
    """Mask of channels next to each other."""
    return ((1 << count) - 1) << first


class Assembly:
    """A stream in the making: accesses and the channels that they are for, one piece after the other."""

    def __init__(self, device: Device, channels: int) -> None:
        self.device = device
        self.all = _span(channels)
        self._pieces: list[Index] = []
        self._masks: list[int] = []

    def add(self, accesses: Index, channels: int) -> None:
        """Append accesses for channels 0, 1, ..."""
        self._append(accesses, _span(channels))

    def add_share(self, accesses: Index, channels: int, begin: int, end: int) -> None:
        """Append what is between two requests of the list in which each access is repeated for each channel."""
        at, end = begin, min(end, len(accesses) * channels)
        while at < end:
            access, channel = divmod(at, channels)
            whole = (end - at) // channels if channel == 0 else 0
            count = whole * channels or min(channels - channel, end - at)
            self._append(
                accesses[access : access + max(1, whole)], _span(channels if whole else count, channel)
            )
            at += count

    def barrier(self) -> None:
        """Append a barrier for all channels."""
        self._append(_table(BARRIER, 0, -1, -1, -1, 0), self.all)

    def _append(self, accesses: Index, mask: int) -> None:
        self._pieces.append(accesses)
        self._masks.append(mask)

    def build(self) -> Stream:
        """Return the stream; accesses that follow from each other are one instruction."""
        table = np.concatenate(self._pieces)
        masks = np.repeat(np.array(self._masks, np.uint64), [len(piece) for piece in self._pieces])
        before, after = table[:-1], table[1:]
        # A barrier is one instruction each, as nothing would tell two from one that is repeated.
        follows = (
            (masks[1:] == masks[:-1])
            & (before[:, [COMMAND, NODE, ROW, STEP]] == after[:, [COMMAND, NODE, ROW, STEP]]).all(axis=1)
            & (after[:, COLUMN] == before[:, COLUMN] + (before[:, COLUMN] >= 0))
            & (after[:, OPERAND] == before[:, OPERAND] + before[:, STEP])
            & (after[:, COMMAND] >= 0)
        )
        first = np.flatnonzero(np.concatenate([[True], ~follows]))
        times = np.diff(first, append=len(table))
        head = table[first]
        fields = {
            "command": head[:, COMMAND],
            "times": times,
            "node": head[:, NODE],
            "row": head[:, ROW],
            "column": head[:, COLUMN],
            "d_column": head[:, COLUMN] >= 0,
            "operand": head[:, OPERAND],
            "d_operand": head[:, STEP],
        }
        return Stream(
            tuple(self.device.dram.command_names),
            masks[first],
            *(np.ascontiguousarray(fields[field], np.int32) for field in FIELDS),
        )


# --- attention ------------------------------------------------------------------------


@dataclass(frozen=True)
class Heads:
    """Where the heads of an attention layer are, and in which rounds they are worked on.

    Key-value head g is on channel g mod `channels`. A round has one query head of each key-value head of a slot.
    """

    layout: Layout
    work: Attention
    site: Site

    @property
    def repeats(self) -> int:
        """Query heads that share a key-value head."""
        return self.work.heads // self.work.kv_heads

    @property
    def slots(self) -> int:
        """Key-value heads of the fullest channel."""
        return -(-self.work.kv_heads // self.site.channels)

    @property
    def tokens(self) -> int:
        """Tokens of one group of units."""
        return -(-self.work.tokens // self.layout.parallel)

    @property
    def columns(self) -> int:
        """Accesses of a unit for one key, or sets of dimensions of one value."""
        return -(-self.work.d_head // self.layout.width)

    @property
    def round_rows(self) -> int:
        """Rows between the keys, or values, of one slot and the next."""
        return self.layout.device.options.get("round_rows") or self.layout.rows(self.tokens * self.columns)

    @property
    def value_row(self) -> int:
        """Rows between the keys and the values."""
        return self.layout.device.options.get("value_row") or self.slots * self.round_rows

    @property
    def rows(self) -> int:
        """Rows from the site's on that keys and values take."""
        return self.value_row + self.slots * self.round_rows

    def busy(self, slot: int) -> int:
        """Channels that have a key-value head in a slot."""
        return min(self.site.channels, self.work.kv_heads - slot * self.site.channels)

    def query_heads(self, number: int) -> Index:
        """Query head of each busy channel in a round."""
        slot, repeat = divmod(number, self.repeats)
        return (slot * self.site.channels + np.arange(self.busy(slot))) * self.repeats + repeat

    def stored(self) -> dict[str, Place]:
        """Places of the keys and values; see `Kernel.stored`."""
        w, layout = self.work, self.layout
        head, token, i = np.ogrid[: w.kv_heads, : w.tokens, : w.d_head]
        channel, slot = head % self.site.channels, head // self.site.channels
        row = self.site.row + slot * self.round_rows
        of_group, group = token // layout.parallel, token % layout.parallel
        per_unit = self.columns * layout.lanes
        keys = layout.place(
            channel, group, i // per_unit, of_group * self.columns + i % per_unit // layout.lanes, row,
            i % layout.lanes,
        )  # fmt: skip
        values = layout.place(
            channel, group, i % layout.width // layout.lanes, i // layout.width * self.tokens + of_group,
            row + self.value_row, i % layout.lanes,
        )  # fmt: skip
        return {"keys": keys, "values": values}

    def rounds(self) -> list[Round]:
        """Return what each round of query heads issues.

        Parts take the result registers in turn, in the order in which `_pairs` and `_alone` issue them.
        """
        count = self.slots * self.repeats
        score = 0 if self.work.kind == "context" else -(-self.tokens // RESULTS)
        context = 0 if self.work.kind == "score" else self.columns
        found = []
        for number in range(count):
            second = number % 2
            before = (number - second) * (score + context)
            # Both heads of a pair have their scores before their contexts; a last one without a partner has its own.
            scores_of_pair = score * (1 if number == count - 1 and not second else 2)
            found.append(
                Round.of(self, number, before + second * score, before + scores_of_pair + second * context)
            )
        return found


class Round(NamedTuple):
    """The accesses of one head in each of the busy channels, in pieces between which others may come.

    channels: that are busy
    scores, contexts: per part, what multiplies and what moves the results away
    """

    channels: int
    write: Index
    scores: list[tuple[Index, Index]]
    softmax: Index
    fetch: Index
    contexts: list[tuple[Index, Index]]

    @classmethod
    def of(cls, heads: Heads, number: int, before_scores: int, before_contexts: int) -> Round:
        """Return a round; before: number of parts that are issued before its own."""
        layout, device, lanes = heads.layout, heads.layout.device, heads.layout.lanes
        slot, half = number // heads.repeats, number % 2 * heads.layout.half
        row = heads.site.row + slot * heads.round_rows
        fetched = -(-heads.tokens // lanes)
        host = int(heads.work.kind != "attention")
        scores: list[tuple[Index, Index]] = []
        contexts: list[tuple[Index, Index]] = []
        if heads.work.kind != "context":
            out = Operand(half, outside=host)
            scores = layout.dot_products(heads.tokens, heads.columns, row, out, before_scores)
        if heads.work.kind != "score":
            token = np.arange(heads.tokens)
            for part in range(heads.columns):
                register = (before_contexts + part) % device.unit.result_registers
                into = Operand(half, register=register, by_lane=1)
                accesses = part * heads.tokens + token
                macs = layout.macs(accesses, row + heads.value_row, into.packed + token, 1)
                to = into._replace(position=0, outside=1)
                contexts.append((macs, layout.move(to.packed, by_lane=True)))
        return cls(
            heads.busy(slot),
            layout.write(heads.columns, half),
            scores,
            layout.softmax(half, heads.work.tokens),
            layout.fetch(fetched, Operand(half, outside=host).packed),
            contexts,
        )


def _attention(device: Device, work: Work, site: Site) -> Kernel:
    assert isinstance(work, Attention)
    layout = Layout(device)
    heads = Heads(layout, work, site)
    _check(heads)
    out = Assembly(device, site.channels)
    rounds = heads.rounds()
    if work.kind == "attention":
        _pairs(out, rounds, bool(device.options.get("as_generated")))
    else:
        for r in rounds:
            _alone(out, r, work.kind)
    return Kernel(
        stream=out.build(),
        rows=heads.rows,
        size=work.heads * (work.tokens if work.kind == "score" else work.d_head),
        stored=heads.stored,
        feed=lambda: _feed(heads),
        drain=lambda: _drain(heads),
    )


def _check(heads: Heads) -> None:
    device, work, layout = heads.layout.device, heads.work, heads.layout
    dram = device.dram
    if not 1 <= heads.site.channels <= dram.channels:
        raise InputError(f"{device.name} has {dram.channels} channels, not {heads.site.channels}")
    if work.heads % work.kv_heads:
        raise InputError(f"{work.heads} query heads cannot share {work.kv_heads} key-value heads evenly")
    most = layout.half * layout.parallel
    if work.kind != "score" and work.tokens > most:
        raise InputError(
            f"{device.name}: {work.tokens} tokens, but half of the input buffer (unit.buffer_accesses = "
            f"{device.unit.buffer_accesses}) holds the weights of {most}"
        )
    if work.kind != "context" and heads.columns * layout.lanes > layout.half:
        raise InputError(
            f"{device.name}: a head of {work.d_head} dimensions, but half of the input buffer "
            f"(unit.buffer_accesses = {device.unit.buffer_accesses}) holds {layout.half * layout.split}"
        )
    if heads.site.row + heads.rows > dram.rows:
        raise InputError(
            f"{device.name}: keys and values need rows {heads.site.row} to {heads.site.row + heads.rows - 1} of "
            f"{dram.rows}"
        )


def _parts(out: Assembly, parts: list[tuple[Index, Index]], channels: int) -> Iterator[int]:
    """Issue parts, the results of each moved during the next; yields when it is time for what comes beside one."""
    for j, (macs, _) in enumerate(parts):
        out.add(macs, channels)
        if j:
            out.add(parts[j - 1][1], channels)
        yield j
        out.barrier()
    out.add(parts[-1][1], channels)


def _alone(out: Assembly, r: Round, kind: str) -> None:
    """A round with nothing beside it."""
    if r.scores:
        out.add(r.write, r.channels)
        out.barrier()
        for _ in _parts(out, r.scores, r.channels):
            pass
    if kind == "attention":
        out.add(r.softmax, r.channels)
    if r.contexts:
        out.add(r.fetch, r.channels)
        out.barrier()
        for _ in _parts(out, r.contexts, r.channels):
            pass


def _pairs(out: Assembly, rounds: list[Round], as_generated: bool) -> None:
    """Rounds two by two: one computes while the softmax unit and the path to the buffers serve the other.

    as_generated: with the slips of the authors' generator, see the device's options.
    """

    def share(accesses: Index, channels: int, part: int, parts: int) -> None:
        """Deal out what the other round moves."""
        count = len(accesses)
        if as_generated:
            each = count * channels // parts
            out.add_share(accesses, channels, part * each, (part + 1) * each)
        else:
            out.add(accesses[part * count // parts : (part + 1) * count // parts], channels)

    for number, (a, b) in enumerate(zip(rounds[::2], rounds[1::2], strict=False)):
        length = len(a.scores)
        late, sets = length // 2, len(a.contexts)
        out.add(a.write, a.channels)
        if number == 0:
            # Opens the first row while the input is written; its product is nobody's.
            first = a.scores[0][0][:1].copy()
            first[:, OPERAND], first[:, STEP] = -1, 0
            out.add(first, a.channels)
        out.barrier()
        for j in _parts(out, a.scores, a.channels):
            share(b.write, b.channels, j, length)
        for j in _parts(out, b.scores, b.channels):
            if j == 0:
                out.add(a.softmax, a.channels)
            if j >= late:
                share(a.fetch, a.channels, j - late, length - late)
        for j in _parts(out, a.contexts, a.channels):
            if j == 0:
                out.add(b.softmax, b.channels)
            if j >= sets // 2:
                share(b.fetch, b.channels, j - sets // 2, sets - sets // 2)
        last = a if as_generated else b
        for _ in _parts(out, last.contexts, last.channels):
            pass
    if len(rounds) % 2:
        _alone(out, rounds[-1], "attention")


def _feed(heads: Heads) -> Maps:
    """Return `Kernel.feed` of an attention kernel: queries as they are written, or weights as they are fetched."""
    work, layout = heads.work, heads.layout
    if layout.device.options.get("as_generated"):
        raise InputError(f"{layout.device.name}: what options.as_generated issues gives no results")
    if work.kind == "context":
        of_vector, length = (
            _tokens_of(heads, np.arange(layout.groups), layout.lanes).swapaxes(0, 1),
            work.tokens,
        )
    else:
        of_vector, length = _dimensions_written(layout, heads.columns, work.d_head), work.d_head
    of_vector = of_vector.reshape(-1, layout.pseudochannels * layout.lanes)
    return _per_channel(heads, of_vector, length)


def _drain(heads: Heads) -> Maps:
    """Return `Kernel.drain` of an attention kernel: scores, or sums over tokens, as they are moved."""
    work, layout = heads.work, heads.layout
    if work.kind == "score":
        group = layout.moves(by_lane=False) // (layout.banks // layout.groups)
        values = _tokens_of(heads, group, RESULTS)
        padding = ((0, 0), (0, 0), (0, 0), (0, layout.lanes - RESULTS))
        values, length = np.pad(values, padding, constant_values=-1), work.tokens
    else:
        values, length = _dimensions_moved(layout, heads.columns, work.d_head), work.d_head
    return _per_channel(heads, values.reshape(-1, layout.pseudochannels * layout.lanes), length)


def _tokens_of(heads: Heads, groups: Index, lanes: int) -> Index:
    """Tokens i8[accesses, groups, pseudo-channels, lanes] that `lanes` at a time cross for each group; -1 = none."""
    layout = heads.layout
    access, group, pseudochannel, lane = np.ogrid[
        : -(-heads.tokens // lanes), : len(groups), : layout.pseudochannels, :lanes
    ]
    token = (access * lanes + lane) * layout.parallel + pseudochannel * layout.groups + groups[group]
    return np.where(token < heads.work.tokens, token, -1)


def _dimensions_written(layout: Layout, columns: int, length: int) -> Index:
    """Elements i8[accesses, pseudo-channels, lanes] of a vector that is written to the input buffers."""
    element = np.arange(layout.split * columns * layout.lanes).reshape(-1, 1, layout.lanes)
    element = np.broadcast_to(element, (len(element), layout.pseudochannels, layout.lanes))
    return np.where(element < length, element, -1)


def _dimensions_moved(layout: Layout, parts: int, length: int) -> Index:
    """Dimensions i8[parts, moves, pseudo-channels, lanes] of sums by lane, in the order of their moves."""
    unit = layout.moves(by_lane=True) % layout.split
    part, move, pseudochannel, lane = np.ogrid[:parts, : len(unit), : layout.pseudochannels, : layout.lanes]
    dimension = part * layout.width + unit[move] * layout.lanes + lane + 0 * pseudochannel
    return np.where(dimension < length, dimension, -1)


def _per_channel(heads: Heads, of_head: Index, length: int) -> Maps:
    """Positions of all heads that a channel works on, from those in the vector of one head."""
    numbers = range(heads.slots * heads.repeats)
    queries = [heads.query_heads(number) for number in numbers]
    maps = []
    for channel in range(heads.site.channels):
        mine = [query[channel] for query in queries if channel < len(query)]
        placed = [np.where(of_head >= 0, head * length + of_head, -1) for head in mine]
        maps.append(np.concatenate([np.empty((0, of_head.shape[1]), np.int64), *placed]))
    return maps


# --- matrix-vector products ------------------------------------------------------------------------


@dataclass(frozen=True)
class Product:
    """A matrix-vector product in the way of a score phase; the outputs take the place of tokens.

    Each channel has a run of outputs, which its groups take in turn. What does not fit the input buffer is cut, and
    the sums of the pieces are added outside.
    """

    layout: Layout
    work: Gemv
    site: Site

    @property
    def per_channel(self) -> int:
        """Outputs of a channel."""
        return -(-self.work.outputs // self.site.channels)

    @property
    def busy(self) -> int:
        """Channels that have any."""
        return -(-self.work.outputs // self.per_channel)

    @property
    def tokens(self) -> int:
        """Outputs of one group of units."""
        return -(-self.per_channel // self.layout.parallel)

    @property
    def pieces(self) -> list[tuple[int, int]]:
        """First element of each piece, and its accesses of a unit."""
        columns, most = -(-self.work.inputs // self.layout.width), self.layout.device.unit.buffer_accesses
        return [(at * self.layout.width, min(most, columns - at)) for at in range(0, columns, most)]

    @property
    def piece_rows(self) -> int:
        """Rows between one piece and the next."""
        return self.layout.rows(self.tokens * self.pieces[0][1])

    @property
    def rows(self) -> int:
        """Rows that the matrix takes in every bank."""
        pieces = self.pieces
        return (len(pieces) - 1) * self.piece_rows + self.layout.rows(self.tokens * pieces[-1][1])

    def stored(self) -> dict[str, Place]:
        """Places of the matrix; see `Kernel.stored`."""
        layout = self.layout
        output, i = np.ogrid[: self.work.outputs, : self.work.inputs]
        starts, sizes = (np.array(column) for column in zip(*self.pieces, strict=True))
        piece = np.searchsorted(starts, i, side="right") - 1
        columns, of_piece = sizes[piece], i - starts[piece]
        channel, of_channel = output // self.per_channel, output % self.per_channel
        of_group, group = of_channel // layout.parallel, of_channel % layout.parallel
        unit, of_unit = of_piece // (columns * layout.lanes), of_piece % (columns * layout.lanes)
        place = layout.place(
            channel, group, unit, of_group * columns + of_unit // layout.lanes,
            self.site.row + piece * self.piece_rows, i % layout.lanes,
        )  # fmt: skip
        return {"matrix": place}

    def feed(self) -> Maps:
        """See `Kernel.feed`."""
        vectors = []
        for start, columns in self.pieces:
            element = _dimensions_written(self.layout, columns, self.work.inputs - start)
            vectors.append(np.where(element >= 0, start + element, -1).reshape(len(element), -1))
        return self._batch(np.concatenate(vectors), np.zeros(self.busy, np.int64), self.work.inputs)

    def drain(self) -> Maps:
        """See `Kernel.drain`."""
        layout = self.layout
        group = layout.moves(by_lane=False) // (layout.banks // layout.groups)
        part, move, pseudochannel, lane = np.ogrid[
            : -(-self.tokens // RESULTS), : len(group), : layout.pseudochannels, : layout.lanes
        ]
        of_group = part * RESULTS + lane
        output = of_group * layout.parallel + pseudochannel * layout.groups + group[move]
        output = np.where((lane < RESULTS) & (output < self.per_channel), output, -1)
        flat = np.tile(output.reshape(-1, layout.pseudochannels * layout.lanes), (len(self.pieces), 1))
        return self._batch(flat, np.arange(self.busy) * self.per_channel, self.work.outputs)

    def _batch(self, of_vector: Index, first: Index, length: int) -> Maps:
        empty = np.empty((0, of_vector.shape[1]), np.int64)
        maps = []
        for start in first:
            at = np.where((of_vector >= 0) & (of_vector + start < length), of_vector + start, -1)
            placed = [np.where(at >= 0, at + b * length, -1) for b in range(self.work.batch)]
            maps.append(np.concatenate([empty, *placed]))
        return maps + [empty] * (self.site.channels - self.busy)


def _gemv(device: Device, work: Work, site: Site) -> Kernel:
    assert isinstance(work, Gemv)
    layout = Layout(device)
    if not 1 <= site.channels <= device.dram.channels:
        raise InputError(f"{device.name} has {device.dram.channels} channels, not {site.channels}")
    product = Product(layout, work, site)
    if site.row + product.rows > device.dram.rows:
        raise InputError(
            f"{device.name}: the matrix needs rows {site.row} to {site.row + product.rows - 1} of "
            f"{device.dram.rows}"
        )
    out = Assembly(device, site.channels)
    register = 0
    for _ in range(work.batch):
        for piece, (_, columns) in enumerate(product.pieces):
            out.add(layout.write(columns, 0), product.busy)
            out.barrier()
            row = site.row + piece * product.piece_rows
            parts = layout.dot_products(product.tokens, columns, row, Operand(0, outside=1), register)
            register += len(parts)
            for _ in _parts(out, parts, product.busy):
                pass
    return Kernel(
        stream=out.build(),
        rows=product.rows,
        size=work.batch * work.outputs,
        stored=product.stored,
        feed=product.feed,
        drain=product.drain,
    )


LOWERINGS: Table = {
    "gemv": _gemv,
    "score": _attention,
    "context": _attention,
    "attention": _attention,
}
