"""What other simulators of PIM devices are fed with, as streams and back."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterator
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


def read_stream(path: Path | str, device: Device) -> Stream:
    """Return a program in the form of the device's own simulator. Raises InputError, also where it has none."""
    return _form(device)[0](path, device)


def write_stream(path: Path | str, stream: Stream, device: Device) -> None:
    """Write a program in the form of the device's own simulator. Raises InputError, also where it has none."""
    _form(device)[1](path, stream, device)


def _form(device: Device) -> tuple[Callable[..., Stream], Callable[..., None]]:
    forms = {"aim": (read_aim, write_aim), "attacc": (read_attacc, write_attacc)}
    if device.lowering not in forms:
        raise InputError(
            f"{device.name}: no form of programs is known of {device.lowering} devices; it is of {', '.join(forms)}"
        )
    return forms[device.lowering]


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


# --- the AiM simulator -------------------------------------------------------------

AIM_FIELDS = ("index", "instruction", "opsize", "channel_or_mask", "bank", "row")
AIM_INSTRUCTIONS = {
    "WR_SBK": ("WR", ("register", "mask", "bank", "row")),
    "WR_ABK": ("WRA16", ("register", "mask", "row")),
    "WR_GB": ("WRGB", ("opsize", "register", "mask")),
    "WR_BIAS": ("WRMAC16", ("register", "mask")),
    "RD_MAC": ("RDMAC16", ("register", "mask")),
    "RD_AF": ("RDAF16", ("register", "mask")),
    "RD_SBK": ("RD", ("register", "mask", "bank", "row")),
    "COPY_BKGB": ("RDCP", ("opsize", "mask", "bank", "row")),
    "COPY_GBBK": ("WRCP", ("opsize", "mask", "bank", "row")),
    "MAC_ABK": ("MAC16", ("opsize", "mask", "row")),
    "AF": ("AF16", ("mask",)),
    "EWMUL": ("EWMUL16", ("opsize", "mask", "row")),
    "EWADD": ("REGISTER", ("opsize", "register", "register")),
    "SYNC": ("SYNC", ()),
    "EOC": ("END", ()),
}
"""Instructions of the AiM simulator (revision 2eb1ee0): the command that each stands for, and its fields in order."""
AIM_ACCESSES = {
    "W MEM": ("WR", ("channel", "bank", "row")),
    "R MEM": ("RD", ("channel", "bank", "row")),
    "W GPR": ("REGISTER", ("register",)),
    "R GPR": ("REGISTER", ("register",)),
    "W CFR": ("REGISTER", ("register", "data")),
}
"""Accesses that are no instructions, likewise; a table writes them with an underscore."""
_AIM_TABLE = ("opsize", "mask", "bank", "row")
_Field = tuple[int, str]
"""Column in the line, word."""


def read_aim(path: Path | str, device: Device) -> Stream:
    """Return the instructions of a trace of the AiM simulator, or of a table with AIM_FIELDS, plain or gzip.

    Instructions name no columns, so each begins with the first of a row or buffer, and plain accesses have none. END is
    added where the file lacks it. Raises InputError `file:line:column: message` for what this device lacks.
    """
    builder = StreamBuilder(device.dram.command_names)
    is_table, ended = False, False
    for number, text in lines(path):
        if number == 1 and text.split(",") == list(AIM_FIELDS):
            is_table = True
            continue
        try:
            if ended:
                raise _LineError(1, "an instruction behind EOC")
            command, fields = (_aim_row if is_table else _aim_line)(text)
            _add_aim(builder, device, command, fields)
        except _LineError as wrong:
            raise InputError(f"{path}:{number}:{wrong.column}: {wrong}") from None
        ended = command == "END"
    if not ended:
        builder.add("END", (1 << device.dram.channels) - 1)
    return builder.build()


def write_aim(path: Path | str, stream: Stream, device: Device) -> None:
    """Write a stream for the AiM simulator; as a table where the name ends in .csv or .csv.gz.

    Columns are lost, since its instructions name none; work in registers becomes EWADD. Raises InputError for a stream
    that has instructions which that simulator lacks, and where the file cannot be written.
    """
    path = Path(path)
    is_table = path.name.endswith((".csv", ".csv.gz"))
    text = [",".join(AIM_FIELDS)] if is_table else []
    for index, (name, fields) in enumerate(_aim_instructions(path, stream, device)):
        if is_table:
            known = {"mask" if key == "channel" else key: value for key, value in fields.items()}
            text.append(
                ",".join([str(index), name.replace(" ", "_"), *(known.get(key, "") for key in _AIM_TABLE)])
            )
        else:
            order = AIM_ACCESSES[name] if name in AIM_ACCESSES else AIM_INSTRUCTIONS[name]
            words = [fields.get(key, "0") for key in order[1]]
            text.append(" ".join([name if name in AIM_ACCESSES else f"AiM {name}", *words]))
    data = "".join(f"{line}\n" for line in text).encode()
    with replacing(path) as file:
        file.write(gzip.compress(data, mtime=0) if path.name.endswith(".gz") else data)


def _aim_line(text: str) -> tuple[str, dict[str, _Field]]:
    words = [(found.start() + 1, found[0]) for found in re.finditer("[^ \t,]+", text)]
    (at, first), rest = words[0], words[1:]
    if first == "AiM" and rest:
        at, name = rest[0]
        known, name = AIM_INSTRUCTIONS, name.removeprefix("ISR_")
    elif first in ("R", "W") and rest:
        known, name = AIM_ACCESSES, f"{first} {rest[0][1]}"
    else:
        raise _LineError(
            at, f"{shown(text)}, but a line is such as 'AiM MAC_ABK 64 0xffffffff 0' or 'W MEM 0 0 0'"
        )
    if name not in known:
        raise _LineError(at, f"no instruction {shown(name)}{did_you_mean(name, list(known))}")
    command, fields = known[name]
    if len(rest) - 1 != len(fields):
        needed = " ".join(fields) or "none"
        raise _LineError(at, f"{name} has {len(rest) - 1} fields, but needs {len(fields)}: {needed}")
    return command, dict(zip(fields, rest[1:], strict=True))


def _aim_row(text: str) -> tuple[str, dict[str, _Field]]:
    words = text.split(",")
    if len(words) != len(AIM_FIELDS):
        raise _LineError(
            1, f"{len(words)} fields, but an instruction has {len(AIM_FIELDS)}: {','.join(AIM_FIELDS)}"
        )
    starts = np.cumsum([1, *(len(word) + 1 for word in words)]).tolist()
    table = {**AIM_INSTRUCTIONS, **{name.replace(" ", "_"): value for name, value in AIM_ACCESSES.items()}}
    if words[1] not in table:
        raise _LineError(starts[1], f"no instruction {shown(words[1])}{did_you_mean(words[1], list(table))}")
    command, fields = table[words[1]]
    found: dict[str, _Field] = {}
    for at, word, key in zip(starts[2:], words[2:], _AIM_TABLE, strict=False):
        name = "channel" if key == "mask" and "channel" in fields else key
        if (name in fields) != bool(word) and not (key == "opsize" and command == "REGISTER"):
            raise _LineError(at, f"{words[1]} {'needs' if name in fields else 'has no'} {name}")
        if name in fields and word:
            found[name] = at, word
    return command, found


def _add_aim(builder: StreamBuilder, device: Device, command: str, fields: dict[str, _Field]) -> None:
    dram, everyone = device.dram, (1 << device.dram.channels) - 1
    limits = {
        "opsize": 1 << 20,
        "channel": dram.channels,
        "bank": dram.banks,
        "row": dram.rows,
        "mask": everyone + 1,
    }
    values = {}
    for key, (at, word) in fields.items():
        values[key] = _number(word, at)
        if key in limits and values[key] >= limits[key]:
            raise _LineError(at, f"{key}: {word}, but there are {limits[key]}")
        if key in ("mask", "opsize") and values[key] == 0:
            raise _LineError(at, f"{key}: {word}, but an instruction is for at least one")
    mask = everyone
    if "mask" in values:
        # Channel 0 is the top bit.
        mask = int(f"{values['mask']:0{dram.channels}b}"[::-1], 2)
        if command == "WRA16" and mask.bit_count() != 1:
            raise _LineError(fields["mask"][0], "WR_ABK is for one channel")
    elif "channel" in values:
        mask = 1 << values["channel"]
    if command in PSEUDO:
        builder.add(command, everyone)
        return
    _command(command, 1, dram.command_names)
    kind = dram.commands[command]
    row = values.get("row", device.options.get("activation_row", -1) if command == "AF16" else -1)
    is_plain = command in ("RD", "WR")
    builder.add(
        command,
        mask,
        values.get("opsize", 1),
        node=values.get("bank", 0),
        row=row,
        column=0 if kind.column and kind.row and not is_plain else -1,
        operand=0 if command in ("WRGB", "RDCP", "WRCP") else -1,
    )


def _aim_instructions(path: Path, stream: Stream, device: Device) -> Iterator[tuple[str, dict[str, str]]]:
    """The instructions of a stream with their fields as words."""
    pseudo = {number: name for name, number in PSEUDO.items()}
    names = {command: (name, fields) for name, (command, fields) in AIM_INSTRUCTIONS.items()}
    channels = device.dram.channels
    for i in range(len(stream)):
        number, mask, times = int(stream.command[i]), int(stream.channels[i]), int(stream.times[i])
        command = pseudo[number] if number < 0 else stream.commands[number]
        if command not in names:
            raise InputError(f"{path}: the AiM simulator has no instruction for {command}")
        name, fields = names[command]
        words = {"bank": str(stream.node[i]), "row": str(stream.row[i]), "opsize": str(times)}
        if command in ("RD", "WR"):
            name = f"{command[0]} MEM"
            for _ in range(times):
                for channel in range(channels):
                    if mask >> channel & 1:
                        yield name, {"channel": str(channel), "bank": words["bank"], "row": words["row"]}
            continue
        singles = [1 << c for c in range(channels) if mask >> c & 1] if command == "WRA16" else [mask]
        for _ in range(1 if "opsize" in fields else times):
            for one in singles:
                words["mask"] = f"0x{int(f'{one:0{channels}b}'[::-1], 2):x}"
                yield name, {key: words[key] for key in fields if key in words}
