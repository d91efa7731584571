"""Samsung's HBM-PIM (ISCA 2021): ordinary commands drive a 16-lane unit beside every two banks, in lock step.

A kernel enters the all-bank mode, loads a microkernel, computes and leaves the mode again. A matrix lies in tiles of
64 outputs (8 units of 8 accumulators) by blocks of 128 inputs (8 registers of 16 lanes). The blocks of a tile take turns
between the odd and the even banks of the units, so that one bank's row opens while the other's is in use. The 16 lanes
of an accumulator stay apart, for the host to add.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from pimloom.arch.device import Device
from pimloom.arch.dram import Dram
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

    def drain(self) -> Maps:
        """Return that no access of a kernel takes data away, or brings any."""
        return [np.empty((0, self.shape.lanes), np.int64)] * self.site.channels

    def enter(self) -> Stream:
        """Return the way from ordinary accesses to a loaded microkernel: see docs/assumptions.md."""
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
        builder.add("WR_CRF", self.channels, node=EVEN, row=self.reserved.registers, column=0)
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
        return builder.build()

    def _park(self, builder: StreamBuilder) -> None:
        """Read any ordinary row of every bank, so that no bank is left in a reserved one."""
        banks = [
            group * self.dram.banks_per_bankgroup + bank
            for bank in range(self.dram.banks_per_bankgroup)
            for group in range(self.dram.bankgroups)
        ]
        # The rows of some banks open while others are read.
        ahead = self.dram.bankgroups
        for i in range(len(banks) + ahead):
            if i < len(banks):
                builder.add("ACT", self.channels, node=banks[i], row=self.site.row)
            if i >= ahead:
                builder.add("PARK", self.channels, node=banks[i - ahead], row=self.site.row, column=0)
        builder.add("PREab", self.channels)


class Matrices(NamedTuple):
    """Products of matrices[count, outputs, inputs] with `batch` vectors each: result[count, batch, outputs]."""

    count: int
    outputs: int
    inputs: int
    batch: int


def _multiply(
    device: Device, site: Site, work: Matrices, name: str, stored: Callable[[Index], Index]
) -> Kernel:
    """Lower products. stored: brings arrays[count, outputs, inputs] into the shape of the operand `name`."""
    host = _Host(device, site)
    shape, reserved = host.shape, host.reserved
    registers, lanes, block_rows = shape.registers, shape.lanes, shape.block_rows
    tiles = -(-work.outputs // shape.outputs)
    # All tiles of all matrices go to the channels in turn; a channel's n-th tile is in its slot n.
    slots = -(-work.count * tiles // site.channels)
    blocks = -(-work.inputs // shape.inputs)
    tile_rows = block_rows * -(-blocks // 2)
    turns = np.arange(work.batch * slots)
    results = slots * tile_rows
    rows = results + -(-len(turns) // shape.groups)
    host.check(rows)

    def stream() -> Stream:
        tile = host.tile()
        store = (EVEN, site.row + results, RESULT)
        mode = (ODD, reserved.mode, FIXED)
        for block in range(blocks):
            last = block == blocks - 1
            bank, row = (ODD, EVEN)[block % 2], site.row + block // 2 * block_rows
            tile.access("WR_GRF", registers, EVEN, reserved.registers, column=registers)
            if bank == EVEN:
                tile.open((EVEN, row, OPERAND), mode if last else (ODD, row + block_rows, OPERAND))
            for part in range(block_rows):
                if bank == ODD and last and part:
                    tile.open((ODD, row + part, OPERAND), store)
                done = part * shape.columns
                macs = min(shape.columns, registers**2 - done)
                tile.access("MAC", macs, bank, row + part, OPERAND, operand=done)
        if blocks % 2:
            tile.open(mode)
        tile.access("STORE", registers, *store, operand=registers)
        # Between tiles the microkernel ends and starts again, which clears the accumulators.
        end = len(tile.of)
        tile.access("MRS_PIM", 1, *mode, operand=0)
        tile.access("MRS_PIM", 1, *mode, operand=1)
        tile.open((EVEN, reserved.registers, FIXED), (ODD, site.row, NEXT))
        row, column = np.zeros((2, 4, len(turns)), np.int64)
        row[OPERAND], row[NEXT] = turns % slots * tile_rows, (turns + 1) % slots * tile_rows
        row[RESULT], column[RESULT] = turns // shape.groups, turns % shape.groups * registers
        return host.enter() + tile.repeat(row, column, end) + host.leave()

    def where(output: Index, matrix: Index) -> tuple[Index, Index, Index, Index]:
        """Channel, slot, unit and accumulator of outputs."""
        tile = matrix * tiles + output // shape.outputs
        at = output % shape.outputs
        return tile % site.channels, tile // site.channels, at // registers, at % registers

    def matrices() -> dict[str, Place]:
        matrix, output, value = np.ogrid[: work.count, : work.outputs, : work.inputs]
        channel, slot, unit, accumulator = where(output, matrix)
        block, register = value // shape.inputs, value % shape.inputs // lanes
        access = accumulator * registers + register
        place = np.broadcast_arrays(
            channel,
            unit * host.banks_per_unit + np.where(block % 2, EVEN, ODD),
            site.row + slot * tile_rows + block // 2 * block_rows + access // shape.columns,
            access % shape.columns,
            value % lanes,
        )
        return {name: Place(*map(stored, place))}

    def feed() -> Maps:
        turn, at = np.ogrid[: len(turns), : blocks * shape.inputs]
        maps = []
        for channel in range(site.channels):
            tile = turn % slots * site.channels + channel
            vector = tile // tiles * work.batch + turn // slots
            known = (tile < work.count * tiles) & (at < work.inputs)
            maps.append(np.where(known, vector * work.inputs + at, -1).reshape(-1, lanes))
        return maps

    def left() -> Place:
        matrix, member, output, lane = np.ogrid[: work.count, : work.batch, : work.outputs, :lanes]
        channel, slot, unit, accumulator = where(output, matrix)
        turn = member * slots + slot
        place = np.broadcast_arrays(
            channel,
            unit * host.banks_per_unit + EVEN,
            site.row + results + turn // shape.groups,
            turn % shape.groups * registers + accumulator,
            lane,
        )
        return Place(*(field.reshape(-1, lanes) for field in place))

    size = work.count * work.batch * work.outputs
    return Kernel(stream(), rows, size, matrices, feed, host.drain, left)


def gemv(device: Device, work: Work, site: Site) -> Kernel:
    """Lower a product of a matrix and vectors. Raises InputError where it does not fit."""
    assert isinstance(work, Gemv)
    matrices = Matrices(1, work.outputs, work.inputs, work.batch)
    return _multiply(device, site, matrices, "matrix", lambda array: array[0])


def attention(device: Device, work: Work, site: Site) -> Kernel:
    """Lower one token's scores or context: a matrix a key-value head. Raises InputError where it does not fit."""
    assert isinstance(work, Attention)
    batch = work.heads // work.kv_heads
    if work.kind == "score":
        matrices = Matrices(work.kv_heads, work.tokens, work.d_head, batch)
        return _multiply(device, site, matrices, "keys", lambda array: array)
    matrices = Matrices(work.kv_heads, work.d_head, work.tokens, batch)
    return _multiply(device, site, matrices, "values", lambda array: array.swapaxes(1, 2))


def elementwise(device: Device, work: Work, site: Site) -> Kernel:
    """Lower an element-wise function: operands and result lie in rows of their own, behind each other.

    Raises InputError where they do not fit.
    """
    assert isinstance(work, Elementwise)
    host = _Host(device, site)
    shape = host.shape
    registers, lanes = shape.registers, shape.lanes
    operands = ("a", "b") if work.kind in OPERATIONS else ("a",)
    tile_values = host.banks_per_unit * shape.outputs * lanes
    turns = np.arange(-(-work.elements // (tile_values * site.channels)))
    area = -(-len(turns) // shape.groups)
    rows = (len(operands) + 1) * area
    host.check(rows)

    def stream() -> Stream:
        a, c = site.row, site.row + len(operands) * area
        tile = host.tile()
        for bank in (ODD, EVEN):
            if work.kind in OPERATIONS:
                tile.access("FILL", registers, bank, a, OPERAND)
                tile.access(OPERATIONS[work.kind], registers, bank, a + area, OPERAND)
            else:
                tile.access("FILL_RELU", registers, bank, a, OPERAND)
            tile.open((bank, c, OPERAND), (EVEN, a, OPERAND) if bank == ODD else (ODD, a, NEXT))
            tile.access("STORE", registers, bank, c, OPERAND)
        row, column = np.zeros((2, 4, len(turns)), np.int64)
        row[OPERAND], column[OPERAND] = turns // shape.groups, turns % shape.groups * registers
        row[NEXT] = (turns + 1) // shape.groups
        row[NEXT, -1] = host.reserved.mode - a
        return host.enter() + tile.repeat(row, column) + host.leave()

    def places(position: int) -> Place:
        n = np.arange(work.elements)
        at, piece = n % tile_values, n // tile_values
        turn = piece // site.channels
        access = at // lanes
        return Place(
            piece % site.channels,
            access // registers,
            site.row + position * area + turn // shape.groups,
            turn % shape.groups * registers + access % registers,
            n % lanes,
        )

    def left() -> Place:
        return Place(*(field[:, None] for field in places(len(operands))))

    def stored() -> dict[str, Place]:
        return {name: places(i) for i, name in enumerate(operands)}

    return Kernel(stream(), rows, work.elements, stored, host.drain, host.drain, left)


LOWERINGS: Table = {
    "gemv": gemv,
    "score": attention,
    "context": attention,
    **dict.fromkeys([*OPERATIONS, "relu"], elementwise),
}
