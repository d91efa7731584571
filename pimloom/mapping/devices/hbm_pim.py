"""Samsung's HBM-PIM (ISCA 2021): ordinary commands drive a 16-lane unit beside every two banks, in lock step.

A kernel enters the all-bank mode, loads a microkernel, computes and leaves the mode again. A matrix lies in tiles of
64 outputs (8 units of 8 accumulators) by blocks of 128 inputs (8 registers of 16 lanes). The blocks of a tile take
turns between the odd and the even banks of the units, so that one bank's row opens while the other's is in use. The 16
lanes of an accumulator stay apart, for the host to add.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from pimloom.arch.device import Device
from pimloom.arch.tree import InputError
from pimloom.mapping.devices import Table
from pimloom.traces.layout import Index, Place
from pimloom.traces.stream import (
    FIELDS,
    Attention,
    Elementwise,
    Gemv,
    Kernel,
    Maps,
    Site,
    Stream,
    StreamBuilder,
    Work,
)

EVEN, ODD = 0, 1
"""Banks that the host addresses in the all-bank modes; those with the same place in the other units follow."""
FIXED, OPERAND, RESULT, NEXT = range(4)
"""What moves a row or column from tile to tile: nothing, or the tile's operand, its result, the next tile's operand."""

OPERATIONS = {"add": "ADD", "mul": "MUL"}
"""Commands of the element-wise functions of two operands."""

RANK_B = 2**28
"""Bytes of a channel's rank."""


class Reserved(NamedTuple):
    """Rows that are no memory: writes there go to mode registers, or to the register files of the units."""

    all_bank: int
    single_bank: int
    mode: int
    registers: int


class Shape(NamedTuple):
    """What a rank holds and computes at once.

    units: processing units of a rank; registers: of each kind in a unit; lanes: values of a register and of an access
    """

    units: int
    registers: int
    lanes: int
    columns: int

    @property
    def outputs(self) -> int:
        """Outputs of a tile."""
        return self.units * self.registers

    @property
    def inputs(self) -> int:
        """Inputs of a block."""
        return self.registers * self.lanes

    @property
    def block_rows(self) -> int:
        """Rows that a tile's block takes in one bank of each unit."""
        return -(-(self.registers**2) // self.columns)

    @property
    def groups(self) -> int:
        """Groups of accesses, one for each register, that a row holds."""
        return self.columns // self.registers


@dataclass
class _Tile:
    """Collects the instructions of a tile, with rows and columns of the first one.

    fence: column commands after which the host waits for their end, 0 = never
    of: per instruction, what moves its row
    """

    builder: StreamBuilder
    channels: int
    fence: int
    of: list[int] = field(default_factory=list)

    def open(self, *rows: tuple[int, int, int]) -> None:
        """Open rows, each (bank, row, what moves it), of one or both banks at the same time."""
        for bank, _, _ in rows:
            self._add("PRE_AB", node=bank)
        for bank, row, of in rows:
            self._add("ACT_AB", of, node=bank, row=row)

    def access(
        self,
        command: str,
        times: int,
        bank: int,
        row: int,
        of: int = FIXED,
        column: int = 0,
        operand: int = 0,
    ) -> None:
        """Access neighbouring columns with neighbouring registers."""
        step = self.fence or times
        for done in range(0, times, step):
            at = {"node": bank, "row": row, "column": column + done, "operand": operand + done}
            self._add(command, of, min(step, times - done), **at)
            if self.fence:
                self._add("SYNC")

    def _add(self, command: str, of: int = FIXED, times: int = 1, **at: int) -> None:
        self.builder.add(command, self.channels, times, **at)
        self.of.append(of)

    def repeat(self, row: Index, column: Index, end: int | None = None) -> Stream:
        """Return the instructions of all tiles. row, column: i8[4, tiles], to add by what moves the row.

        end: instructions of the last tile, None = all
        """
        one, of, tiles = self.builder.build(), np.array(self.of), row.shape[1]
        arrays = {name: np.tile(getattr(one, name), tiles) for name in ("channels", *FIELDS)}
        arrays["row"] += row[of].T.ravel().astype(np.int32)
        arrays["column"] += column[of].T.ravel().astype(np.int32)
        cut = len(of) * tiles - (0 if end is None else len(of) - end)
        return Stream(one.commands, **{name: array[:cut] for name, array in arrays.items()})


class _Host:
    """What the host sends to a device for one kernel."""

    def __init__(self, device: Device, site: Site) -> None:
        dram, unit = device.dram, device.unit
        banks = dram.bankgroups * dram.banks_per_bankgroup
        self.name = device.name
        self.dram, self.site, self.banks_per_unit = dram, site, unit.banks_per_unit
        self.reserved = Reserved(*range(dram.rows - 1, dram.rows - 5, -1))
        self.shape = Shape(
            banks // unit.banks_per_unit, unit.buffer_accesses, device.elements_per_access, dram.columns
        )
        self.channels = 2**site.channels - 1
        self.fence = device.options["fence"]

    def tile(self) -> _Tile:
        return _Tile(StreamBuilder(self.dram.command_names), self.channels, self.fence)

    def check(self, rows: int) -> None:
        """Raise InputError if operands of so many rows do not fit between the site's row and the reserved ones."""
        room = min(self.reserved) - self.site.row
        if rows > room:
            raise InputError(
                f"{self.name}: the operands take {rows} rows of every bank from row {self.site.row} on, "
                f"but there are {room}"
            )

    def nothing(self) -> Maps:
        """Return that no access of a kernel brings data, or takes any away."""
        return [np.empty((0, self.shape.lanes), np.int64)] * self.site.channels

    def enter(self, words: int = 1) -> Stream:
        """Return the way from ordinary accesses to a loaded microkernel of so many accesses."""
        builder = StreamBuilder(self.dram.command_names)
        self._park(builder)
        doors = [group * self.dram.banks_per_bankgroup for group in range(self.dram.bankgroups)]
        for command in ("ACT", "MRS_AB"):
            for bank in doors:
                column = 0 if command == "MRS_AB" else -1
                builder.add(command, self.channels, node=bank, row=self.reserved.all_bank, column=column)
        builder.add("PREab", self.channels)
        builder.add("ACT_AB", self.channels, node=EVEN, row=self.reserved.registers)
        builder.add("ACT_AB", self.channels, node=ODD, row=self.reserved.mode)
        builder.add("WR_CRF", self.channels, words, node=EVEN, row=self.reserved.registers, column=0)
        builder.add("MRS_PIM", self.channels, node=ODD, row=self.reserved.mode, column=0, operand=1)
        return builder.build()

    def leave(self) -> Stream:
        """Return the way back to ordinary accesses; all banks are closed behind it."""
        builder = StreamBuilder(self.dram.command_names)
        builder.add("MRS_PIM", self.channels, node=ODD, row=self.reserved.mode, column=0, operand=0)
        builder.add("PREab", self.channels)
        for command in ("ACT_AB", "MRS_SB"):
            for bank in (EVEN, ODD):
                column = 0 if command == "MRS_SB" else -1
                builder.add(command, self.channels, node=bank, row=self.reserved.single_bank, column=column)
        builder.add("PREab", self.channels)
        self._park(builder)
        builder.add("END", self.channels)
        return builder.build()

    @property
    def clearing(self) -> int:
        """Accesses that `clear` writes."""
        return self.dram.bankgroups * self.dram.banks_per_bankgroup * self.shape.registers

    def clear(self, row: int) -> Stream:
        """Return writes of zeros, one for each register, to a row of every bank."""
        builder = StreamBuilder(self.dram.command_names)
        self._visit(builder, "WR", row, self.shape.registers)
        return builder.build()

    def _park(self, builder: StreamBuilder) -> None:
        """Read any ordinary row of every bank, so that no bank is left in a reserved one."""
        self._visit(builder, "PARK", self.site.row, 1)

    def _visit(self, builder: StreamBuilder, command: str, row: int, times: int) -> None:
        """Access a row of every bank, while the rows of others open."""
        banks = [
            group * self.dram.banks_per_bankgroup + bank
            for bank in range(self.dram.banks_per_bankgroup)
            for group in range(self.dram.bankgroups)
        ]
        groups = self.dram.bankgroups
        for i in range(len(banks) + groups):
            if i < len(banks):
                builder.add("ACT", self.channels, node=banks[i], row=row)
            if i >= groups:
                # Bank groups take turns, so that accesses follow each other as fast as the pins allow.
                first = (i - groups) // groups * groups
                for access in range(i % groups * times, (i % groups + 1) * times):
                    at = {"node": banks[first + access % groups], "column": access // groups}
                    builder.add(command, self.channels, row=row, **at)
        builder.add("PREab", self.channels)


class Matrices(NamedTuple):
    """Products of matrices[number, outputs, inputs] with `batch` vectors each: result[number, batch, outputs]."""

    number: int
    outputs: int
    inputs: int
    batch: int


class _Product:
    """Products on a device: where matrices and results lie, and what the host sends.

    tiles: of one matrix; those of all matrices go to the channels in turn
    slots: tiles of a channel; each takes a turn with every vector of the batch
    blocks: of a tile; those of odd number lie in the even banks
    sums: groups of accumulators that are stored in a turn, in rows of their own where they are more than one
    """

    def __init__(self, device: Device, site: Site, work: Matrices) -> None:
        """Raise InputError if the operands do not fit."""
        self.host, self.work = _Host(device, site), work
        self.is_tree = bool(device.options["tree"])
        shape, self.channels = self.host.shape, site.channels
        self.shape = shape
        self.tiles = -(-work.outputs // shape.outputs)
        self.slots = -(-work.number * self.tiles // site.channels)
        self.turns = work.batch * self.slots
        self.blocks = -(-work.inputs // shape.inputs)
        self.tile_rows = shape.block_rows * -(-self.blocks // 2)
        self.sums = -(-self.blocks // shape.groups) * shape.groups if self.is_tree else 1
        self.matrix = site.row
        self.results = self.matrix + self.slots * self.tile_rows
        self.zeros = self.results + -(-self.turns * self.sums // shape.groups)
        self.rows = self.zeros + self.is_tree - site.row
        self.host.check(self.rows)

    def stream(self) -> Stream:
        """Return everything that the host sends."""
        tile, reserved, shape = self.host.tile(), self.host.reserved, self.shape
        mode = (ODD, reserved.mode, FIXED)
        for block in range(self.blocks):
            self._block(tile, block)
        # Between tiles the microkernel ends and starts again, which clears the accumulators.
        end = len(tile.of)
        tile.access("MRS_PIM", 1, *mode, operand=0)
        tile.access("MRS_PIM", 1, *mode, operand=1)
        tile.open((EVEN, reserved.registers, FIXED), (ODD, self.matrix, NEXT))
        turn = np.arange(self.turns)
        row, column = np.zeros((2, 4, self.turns), np.int64)
        row[OPERAND] = turn % self.slots * self.tile_rows
        row[NEXT] = (turn + 1) % self.slots * self.tile_rows
        row[RESULT], column[RESULT] = np.divmod(turn * self.sums, shape.groups)
        column[RESULT] *= shape.registers
        entry = self.host.enter(2 if self.is_tree else 1)
        if self.is_tree:
            entry = self.host.clear(self.zeros) + entry
        return entry + tile.repeat(row, column, end) + self.host.leave()

    def _block(self, tile: _Tile, block: int) -> None:
        """Multiply a block, and store the sums behind the last one, or behind each."""
        reserved, shape, registers = self.host.reserved, self.shape, self.shape.registers
        bank, row = (ODD, EVEN)[block % 2], self.matrix + block // 2 * shape.block_rows
        is_last, is_stored = block == self.blocks - 1, self.is_tree or block == self.blocks - 1
        at = block if self.is_tree else 0
        store = (EVEN, self.results + at // shape.groups, RESULT)
        # Rows of the idle bank open in the shadow of those that are in use.
        behind = (ODD, row + shape.block_rows, OPERAND)
        if self.is_tree:
            behind = (ODD, self.zeros, FIXED)
        elif is_last:
            behind = (ODD, reserved.mode, FIXED)
        tile.access("WR_GRF", registers, EVEN, reserved.registers, column=registers)
        if bank == EVEN:
            tile.open((EVEN, row, OPERAND), behind)
        for part in range(shape.block_rows):
            if bank == ODD and is_stored and part:
                tile.open((ODD, row + part, OPERAND), store)
            done = part * shape.columns
            macs = min(shape.columns, registers**2 - done)
            tile.access("MAC", macs, bank, row + part, OPERAND, operand=done)
        if not is_stored:
            return
        if bank == ODD:
            tile.open(behind)
        tile.access("STORE", registers, *store, column=at % shape.groups * registers, operand=registers)
        if self.is_tree:
            tile.access("FILL", registers, ODD, self.zeros, operand=registers)
            if bank == EVEN and not is_last:
                tile.open((EVEN, reserved.registers, FIXED), (ODD, row + shape.block_rows, OPERAND))

    def _where(self, output: Index, matrix: Index) -> tuple[Index, Index, Index, Index]:
        """Return channel, slot, unit and accumulator of outputs."""
        tile = matrix * self.tiles + output // self.shape.outputs
        at = output % self.shape.outputs
        return (
            tile % self.channels,
            tile // self.channels,
            at // self.shape.registers,
            at % self.shape.registers,
        )

    def place(self) -> tuple[Index, ...]:
        """Return the fields of a Place of matrices[number, outputs, inputs]."""
        shape = self.shape
        matrix, output, value = np.ogrid[: self.work.number, : self.work.outputs, : self.work.inputs]
        channel, slot, unit, accumulator = self._where(output, matrix)
        block, register = value // shape.inputs, value % shape.inputs // shape.lanes
        access = accumulator * shape.registers + register
        return np.broadcast_arrays(
            channel,
            unit * self.host.banks_per_unit + np.where(block % 2, EVEN, ODD),
            self.matrix + slot * self.tile_rows + block // 2 * shape.block_rows + access // shape.columns,
            access % shape.columns,
            value % shape.lanes,
        )

    def feed(self) -> Maps:
        """Return the inputs that go to the registers, after the zeros that clear a row, if any."""
        shape, work = self.shape, self.work
        turn, at = np.ogrid[: self.turns, : self.blocks * shape.inputs]
        zeros = self.host.clearing if self.is_tree else 0
        maps = []
        for channel in range(self.channels):
            tile = turn % self.slots * self.channels + channel
            vector = tile // self.tiles * work.batch + turn // self.slots
            is_known = (tile < work.number * self.tiles) & (at < work.inputs)
            values = np.where(is_known, vector * work.inputs + at, -1).reshape(-1, shape.lanes)
            maps.append(np.concatenate([np.full((zeros, shape.lanes), -1), values]))
        return maps

    def left(self) -> Place:
        """Return the places of the results' lanes, and of all their sums."""
        shape, work = self.shape, self.work
        matrix, member, output, block, lane = np.ogrid[
            : work.number,
            : work.batch,
            : work.outputs,
            : self.blocks if self.is_tree else 1,
            : shape.lanes,
        ]
        channel, slot, unit, accumulator = self._where(output, matrix)
        row, column = np.divmod((member * self.slots + slot) * self.sums + block, shape.groups)
        fields = np.broadcast_arrays(
            channel,
            unit * self.host.banks_per_unit + EVEN,
            self.results + row,
            column * shape.registers + accumulator,
            lane,
        )
        size = work.number * work.batch * work.outputs
        return Place(*(field.reshape(size, -1) for field in fields))

    def kernel(self, name: str, stored: Callable[[Index], Index]) -> Kernel:
        """Return the kernel. stored: brings arrays[number, outputs, inputs] into the shape of the operand `name`."""
        return Kernel(
            stream=self.stream(),
            rows=self.rows,
            size=self.work.number * self.work.batch * self.work.outputs,
            stored=lambda: {name: Place(*map(stored, self.place()))},
            feed=self.feed,
            drain=self.host.nothing,
            left=self.left,
        )


def gemv(device: Device, work: Gemv, site: Site) -> Kernel:
    """Lower a product of a matrix and vectors. Raises InputError where it does not fit."""
    product = _Product(device, site, Matrices(1, work.outputs, work.inputs, work.batch))
    return product.kernel("matrix", lambda field: field[0])


def attention(device: Device, work: Attention, site: Site) -> Kernel:
    """Lower one token's scores or context: a matrix a key-value head. Raises InputError where it does not fit."""
    batch = work.heads // work.kv_heads
    if work.kind == "score":
        keys = _Product(device, site, Matrices(work.kv_heads, work.tokens, work.d_head, batch))
        return keys.kernel("keys", lambda field: field)
    values = _Product(device, site, Matrices(work.kv_heads, work.d_head, work.tokens, batch))
    return values.kernel("values", lambda field: field.swapaxes(1, 2))


def elementwise(device: Device, work: Elementwise, site: Site) -> Kernel:
    """Lower an element-wise function: operands and result lie in areas of rows behind each other.

    Raises InputError where they do not fit.
    """
    host = _Host(device, site)
    shape = host.shape
    operands = ("a", "b") if work.kind in OPERATIONS else ("a",)
    tile_values = host.banks_per_unit * shape.outputs * shape.lanes
    turns = np.arange(-(-work.elements // (tile_values * site.channels)))
    area = -(-len(turns) // shape.groups)
    rows = (len(operands) + 1) * area
    host.check(rows)

    def stream() -> Stream:
        a, result = site.row, site.row + len(operands) * area
        tile = host.tile()
        for bank in (ODD, EVEN):
            if work.kind in OPERATIONS:
                tile.access("FILL", shape.registers, bank, a, OPERAND)
                tile.access(OPERATIONS[work.kind], shape.registers, bank, a + area, OPERAND)
            else:
                tile.access("FILL_RELU", shape.registers, bank, a, OPERAND)
            tile.open((bank, result, OPERAND), (EVEN, a, OPERAND) if bank == ODD else (ODD, a, NEXT))
            tile.access("STORE", shape.registers, bank, result, OPERAND)
        row, column = np.zeros((2, 4, len(turns)), np.int64)
        row[OPERAND], column[OPERAND] = turns // shape.groups, turns % shape.groups * shape.registers
        row[NEXT] = (turns + 1) // shape.groups
        row[NEXT, -1] = host.reserved.mode - a
        return host.enter() + tile.repeat(row, column) + host.leave()

    def places(position: int) -> Place:
        value = np.arange(work.elements)
        tile, at = np.divmod(value, tile_values)
        turn, access = tile // site.channels, at // shape.lanes
        return Place(
            tile % site.channels,
            access // shape.registers,
            site.row + position * area + turn // shape.groups,
            turn % shape.groups * shape.registers + access % shape.registers,
            value % shape.lanes,
        )

    return Kernel(
        stream=stream(),
        rows=rows,
        size=work.elements,
        stored=lambda: {name: places(i) for i, name in enumerate(operands)},
        feed=host.nothing,
        drain=host.nothing,
        left=lambda: Place(*(field[:, None] for field in places(len(operands)))),
    )


LOWERINGS: Table = {
    "gemv": gemv,
    "score": attention,
    "context": attention,
    **dict.fromkeys([*OPERATIONS, "relu"], elementwise),
}


def measured(row: Mapping[str, str]) -> tuple[list[str], Work, Site]:
    """Return overrides of the device, work and site of a row of the measured points, by its columns.

    Raises KeyError for a column that is missing.
    """
    channels, ranks, kernel = int(row["channels"]), int(row["ranks"]), row["kernel"]
    overrides = [
        f"dram.channels={channels}",
        f"dram.ranks={ranks}",
        f"dram.channel_capacity_B={ranks * RANK_B}",
        f"options.tree={int(kernel == 'gemvtree')}",
    ]
    if kernel.startswith("gemv"):
        return overrides, Gemv(int(row["out_dim"]), int(row["in_dim"]), int(row["batch"])), Site(channels)
    return overrides, Elementwise(kernel, int(row["elements"])), Site(channels)
