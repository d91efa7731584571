"""What other simulators of PIM devices are fed with, as streams and back."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pimloom.arch.device import Device
from pimloom.arch.dram_checks import LEVELS
from pimloom.arch.tree import InputError, did_you_mean, shown
from pimloom.traces.io import replacing
from pimloom.traces.requests import lines
from pimloom.traces.stream import BARRIER, PSEUDO, Stream, StreamBuilder

# --- AttAcc ------------------------------------------------------------------------

ATTACC_FIELDS = ("index", "request", "channel", "pseudo_channel", "rank", "bankgroup", "bank", "row")
ATTACC_REQUESTS = {
    "PIM_MAC_AB": "MACAB",
    "PIM_MAC_SB": "MACSB",
    "PIM_MAC_PB": "MACPB",
    "PIM_WR_GB": "WRGB",
    "PIM_MV_SB": "MVSB",
    "PIM_MV_GB": "MVGB",
    "PIM_SFM": "SFM",
    "PIM_BARRIER": "BARRIER",
}
"""Names in a trace of AttAcc's simulator, whose lines are a name and a byte address, and commands."""
_LEVELS = ("pseudochannel", "rank", "bankgroup", "bank")
_NUMBER = re.compile("0[xX][0-9a-fA-F]+|[0-9]+")
_Request = tuple[str, int, int, int, int]
"""Command, channel, node, row, column (-1 = none)."""


def read_attacc(path: Path | str, device: Device) -> Stream:
    """Return the requests of a trace of AttAcc's simulator, or of a table with ATTACC_FIELDS, plain or gzip.

    In the simulator's form an address is, from the top, channel, pseudo-channel, rank, bank group, bank, row, column
    and byte. The table has no columns. Requests that differ in nothing but the channel become one instruction.
    Raises InputError `file:line:column: message` for what is no request of this device.
    """
    requests = []
    records = lines(path)
    first = next(records, None)
    if first is None:
        raise InputError(f"{path}:1:1: no requests")
    is_table = first[1].split(",") == list(ATTACC_FIELDS)
    parse = _from_table if is_table else _from_trace
    for number, text in records if is_table else _again(first, records):
        try:
            requests.append(parse(text, device))
        except _LineError as wrong:
            raise InputError(f"{path}:{number}:{wrong.column}: {wrong}") from None
    builder, held = StreamBuilder(device.dram.command_names), list[tuple[int, _Request]]()
    for request in requests:
        # The channels of an instruction are served in ascending order.
        if (
            held
            and held[-1][1][0] == request[0]
            and held[-1][1][2:] == request[2:]
            and not held[-1][0] >> request[1]
        ):
            held[-1] = (held[-1][0] | 1 << request[1], request)
        else:
            held.append((1 << request[1], request))
    for mask, (command, _, node, row, column) in held:
        if command == "BARRIER":
            builder.add(command, mask)
        else:
            of_row = device.dram.commands[command].row
            builder.add(command, mask, node=node, row=row if of_row else -1, column=column if of_row else -1)
    return builder.build()


def write_attacc(path: Path | str, stream: Stream, device: Device) -> None:
    """Write a stream for AttAcc's simulator; as a table where the name ends in .csv or .csv.gz.

    Raises InputError for a stream that has instructions which that simulator lacks, and where the file cannot be
    written.
    """
    path = Path(path)
    names = {command: name for name, command in ATTACC_REQUESTS.items()}
    is_table = path.name.endswith((".csv", ".csv.gz"))
    text = [",".join(ATTACC_FIELDS)] if is_table else []
    for index, (command, channel, node, row, column) in enumerate(_expanded(stream)):
        if command not in names:
            raise InputError(f"{path}: AttAcc's simulator has no request for {command}")
        at = _levels(node, device)
        if is_table:
            text.append(",".join(map(str, (index, command, channel, *at, max(row, 0)))))
        else:
            address = _address((channel, *at, max(row, 0), max(column, 0), 0), device)
            text.append(f"{names[command]} 0x{address:08x}")
    data = "".join(f"{line}\n" for line in text).encode()
    with replacing(path) as file:
        file.write(gzip.compress(data, mtime=0) if path.name.endswith(".gz") else data)


class _LineError(Exception):
    """What is wrong with a line, and where."""

    def __init__(self, column: int, message: str) -> None:
        super().__init__(message)
        self.column = column


def _again(first: tuple[int, str], rest: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield first
    yield from rest


def _from_table(text: str, device: Device) -> _Request:
    words = text.split(",")
    if len(words) != len(ATTACC_FIELDS):
        raise _LineError(
            1, f"{len(words)} fields, but a request has {len(ATTACC_FIELDS)}: {','.join(ATTACC_FIELDS)}"
        )
    starts = np.cumsum([1, *(len(word) + 1 for word in words)])
    command = _command(words[1], int(starts[1]), [*device.dram.command_names, "BARRIER"])
    limits = (device.dram.channels, *(_below(level, device) for level in _LEVELS), device.dram.rows)
    found = []
    for i, limit in enumerate(limits, 2):
        at = int(starts[i])
        value = _number(words[i], at)
        if value >= limit:
            raise _LineError(at, f"{ATTACC_FIELDS[i]}: {value}, but there are {limit}")
        found.append(value)
    channel, *levels, row = found
    node = 0
    for value, level in zip(levels, _LEVELS, strict=True):
        node = node * _below(level, device) + value
    return command, channel, node, row, -1


def _from_trace(text: str, device: Device) -> _Request:
    words = [*re.finditer("[^ \t]+", text)]
    if len(words) != 2:  # noqa: PLR2004
        raise _LineError(
            1, f"{shown(text)}, but a request is such as 'PIM_MAC_AB 0x00000000', or a table begins with the header "
            f"{','.join(ATTACC_FIELDS)}"
        )  # fmt: skip
    name, column = words[0][0], words[1].start() + 1
    if name not in ATTACC_REQUESTS:
        raise _LineError(
            words[0].start() + 1, f"no request {shown(name)}{did_you_mean(name, list(ATTACC_REQUESTS))}"
        )
    command = _command(ATTACC_REQUESTS[name], words[0].start() + 1, [*device.dram.command_names, "BARRIER"])
    address = _number(words[1][0], column)
    rest, fields = address, []
    for size in reversed(_sizes(device)):
        rest, field = divmod(rest, size)
        fields.append(field)
    if rest:
        raise _LineError(column, f"address {words[1][0]} is behind the last channel")
    _, in_row, row, *levels = fields
    node, below = 0, 1
    for value, level in zip(levels[:-1], reversed(_LEVELS), strict=True):
        node, below = node + value * below, below * _below(level, device)
    return command, levels[-1], node, row, in_row


def _command(name: str, column: int, known: list[str]) -> str:
    if name not in known:
        raise _LineError(column, f"this device has no {shown(name)}{did_you_mean(name, known)}")
    return name


def _number(word: str, column: int) -> int:
    if not _NUMBER.fullmatch(word):
        raise _LineError(column, f"{shown(word)} is no number")
    return int(word, 16 if word[:2] in ("0x", "0X") else 10)


def _below(level: str, device: Device) -> int:
    return device.dram.counts[LEVELS.index(level)]


def _sizes(device: Device) -> tuple[int, ...]:
    """Of the fields of an address, from the top."""
    dram = device.dram
    return (
        dram.channels,
        *(_below(level, device) for level in _LEVELS),
        dram.rows,
        dram.columns,
        dram.access_B,
    )


def _levels(node: int, device: Device) -> list[int]:
    """Number of a bank on each of _LEVELS."""
    found = []
    for level in reversed(_LEVELS):
        node, value = divmod(node, _below(level, device))
        found.append(value)
    return found[::-1]


def _address(fields: tuple[int, ...], device: Device) -> int:
    address = 0
    for value, size in zip(fields, _sizes(device), strict=True):
        address = address * size + value
    return address


def _expanded(stream: Stream) -> Iterator[_Request]:
    """The requests of a stream one by one, in the order in which a front end hands them over."""
    pseudo = {number: name for name, number in PSEUDO.items()}
    for i in range(len(stream)):
        number, mask = int(stream.command[i]), int(stream.channels[i])
        command = pseudo[number] if number <= BARRIER else stream.commands[number]
        for access in range(stream.times[i]):
            column = int(stream.column[i])
            column += access * int(stream.d_column[i]) if column >= 0 else 0
            for channel in range(mask.bit_length()):
                if mask >> channel & 1:
                    yield command, channel, int(stream.node[i]), int(stream.row[i]), column
