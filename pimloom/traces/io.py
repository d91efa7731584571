"""Command traces: every command issued, with its cycle and address; CSV, gzipped CSV and Parquet."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from pimloom.arch.dram import Dram
from pimloom.arch.dram_checks import LEVELS
from pimloom.arch.tree import InputError, did_you_mean, shown

I8 = npt.NDArray[np.int64]
I4 = npt.NDArray[np.int32]

FIELDS = ("cycle", "command", "channel", "pseudochannel", "rank", "bankgroup", "bank", "row", "column")
"""Columns of every format, in this order."""
HEADER = ",".join(FIELDS)
MAX_CYCLE = 10**18 - 1
_NUMBER = "-?[0-9]{1,18}"
_RECORD = re.compile(f"{_NUMBER},[^,]*" + f",{_NUMBER}" * 7)
_PLAIN = b"0123456789-,_\r\nABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""All that a healthy CSV trace consists of."""


@dataclass(frozen=True, eq=False)
class CommandTrace:
    """Commands in order of their cycle, then channel. -1 in an address: all, or does not apply.

    commands: names, in the order of their ids
    cycle: i8[n]      clock of issue
    command: i4[n]    id of the command
    channel: i4[n]
    pseudochannel: i4[n]   0 where the memory has no such level
    rank: i4[n]       rank * stack IDs + stack ID; 0 where the memory has one of each
    bankgroup: i4[n]
    bank: i4[n]       bank within its bank group
    row: i4[n]
    column: i4[n]     access within the row; of a command that fills the global buffer, within the buffer
    """

    commands: tuple[str, ...]
    cycle: I8
    command: I4
    channel: I4
    pseudochannel: I4
    rank: I4
    bankgroup: I4
    bank: I4
    row: I4
    column: I4

    def __len__(self) -> int:
        return len(self.cycle)

    def take(self, which: npt.ArrayLike) -> CommandTrace:
        """Return the records of a mask or of indices."""
        index = np.asarray(which)
        return CommandTrace(self.commands, *(getattr(self, field)[index] for field in FIELDS))


def from_log(dram: Dram, channel: int, log: I8) -> CommandTrace:
    """Return the trace of one channel from what its simulation has logged.

    log: i8[n, 5 or 6] clock, command id, flat node of the level that the command addresses (-1 is the channel, too),
        row, column, and of a PIM device buffer column; one row a command, in issue order
    """
    kinds = list(dram.commands.values())
    level, has_row, has_column, fills = (
        np.array(values)[log[:, 1]]
        for values in (
            [LEVELS.index(kind.target) for kind in kinds],
            [kind.row for kind in kinds],
            [kind.column for kind in kinds],
            [kind.meaning == "write_buffer" for kind in kinds],
        )
    )
    banks_below = np.array([dram.banks // dram.nodes(name) for name in LEVELS])
    rest, coordinates = np.maximum(log[:, 2], 0) * banks_below[level], []
    for below in banks_below[1:]:
        coordinates.append(rest // below)
        rest = rest % below
    pseudochannel, rank, stack_id, bankgroup, bank = coordinates
    # A rank of its own is named by its first stack ID; the only rank is all of them.
    rank_level = "rank" if dram.ranks > 1 or dram.stack_ids == 1 else "stack_id"
    # A level of one node is there if rules speak of it.
    several_ranks = dram.ranks * dram.stack_ids > 1 or any(
        r.level == "stack_id" for r in dram.constraints.values()
    )
    return CommandTrace(
        tuple(dram.commands),
        log[:, 0].copy(),
        log[:, 1].astype(np.int32),
        np.full(len(log), channel, np.int32),
        *(
            np.where(shown, values, -1).astype(np.int32)
            for shown, values in (
                ((level >= LEVELS.index("pseudochannel")) | (dram.pseudochannels == 1), pseudochannel),
                ((level >= LEVELS.index(rank_level)) | (not several_ranks), rank * dram.stack_ids + stack_id),
                (level >= LEVELS.index("bankgroup"), bankgroup),
                (level >= LEVELS.index("bank"), bank),
                (has_row, log[:, 3]),
                (has_column, np.where(fills, log[:, -1], log[:, 4])),
            )
        ),
    )


def merge(traces: Sequence[CommandTrace]) -> CommandTrace:
    """Return one or more traces of the same memory as one, by cycle, then channel."""
    joined = CommandTrace(
        traces[0].commands, *(np.concatenate([getattr(t, field) for t in traces]) for field in FIELDS)
    )
    return joined.take(np.lexsort((joined.channel, joined.cycle)))


# --- writing -----------------------------------------------------------------------------------------------


def write(path: Path | str, trace: CommandTrace) -> None:
    """Write a trace in the format of the file's extension; equal traces make equal files.

    Raises InputError for another extension, or where the file cannot be written.
    """
    form = form_of(Path(path))
    with replacing(Path(path)) as file:
        form.write(table_of(trace), file)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Give a file that takes the place of `path` once it is whole; if that fails, what stands there stays.

    Raises InputError where the file cannot be written.
    """
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        file = partial.open("wb")
    except OSError as error:
        raise _unwritable(path, error) from None
    try:
        with file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        partial.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written: {error.strerror or error}")


def table_of(trace: CommandTrace) -> Any:
    """Return a trace as a table of pyarrow, with the columns of the files."""
    import pyarrow as pa

    columns = {field: pa.array(getattr(trace, field)) for field in FIELDS}
    columns["command"] = pa.DictionaryArray.from_arrays(trace.command, list(trace.commands))
    return pa.table(columns)


def _write_csv(table: Any, file: Any) -> None:
    from pyarrow import csv

    # pyarrow puts the names of a header in quotes.
    file.write(f"{HEADER}\n".encode())
    csv.write_csv(table, file, csv.WriteOptions(include_header=False, quoting_style="none"))


def _write_gzip(table: Any, file: Any) -> None:
    with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=6) as packed:
        _write_csv(table, packed)


def _write_parquet(table: Any, file: Any) -> None:
    from pyarrow import parquet

    parquet.write_table(table, file, compression="zstd")


# --- reading -----------------------------------------------------------------------------------------------


def read(path: Path | str, dram: Dram) -> CommandTrace:
    """Read a trace of this memory from a file of any of the formats.

    Raises InputError `file:line:column: field: message` for the first record that cannot be one of this
    memory, or whose cycle is below that of an earlier one of its channel. Parquet has neither lines nor
    columns of text: the line is the record's number + 1, as in CSV, and the column the field's number.
    """
    form = form_of(Path(path))
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be read: {reason}") from None
    return form.read(str(path), data, dram)


def _read_csv(file: str, data: bytes, dram: Dram) -> CommandTrace:
    table = _parse_quickly(data)
    if table is None:
        table = _parse(file, data)

    def place(record: int, field: int) -> tuple[int, int]:
        before = data.split(b"\n", record + 2)[record + 1].split(b",")[:field]
        return record + 2, sum(map(len, before)) + field + 1

    return _validated(file, table, dram, place)


def _read_gzip(file: str, data: bytes, dram: Dram) -> CommandTrace:
    try:
        text = gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"{file}: damaged, or no gzip file: {error}") from None
    return _read_csv(file, text, dram)


def _parse_quickly(data: bytes) -> Any:
    """Return a CSV trace as a table, or None where anything about it is out of the ordinary."""
    import pyarrow as pa
    from pyarrow import csv

    # pyarrow also takes hexadecimal numbers, blanks around them, and carriage returns as ends of lines.
    returns = data.count(b"\r")
    if (
        not data.startswith((f"{HEADER}\n".encode(), f"{HEADER}\r\n".encode()))
        or data.translate(None, _PLAIN)
        or b"0x" in data
        or b"0X" in data
        or returns != (data.count(b"\r\n") if returns else 0)
    ):
        return None
    types = dict.fromkeys(FIELDS, pa.int32())
    types |= {"cycle": pa.int64(), "command": pa.dictionary(pa.int32(), pa.string())}
    try:
        return csv.read_csv(
            BytesIO(data),
            csv.ReadOptions(column_names=FIELDS, skip_rows=1),
            csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
            csv.ConvertOptions(column_types=types, null_values=[], strings_can_be_null=False),
        )
    except pa.ArrowInvalid:
        return None


def _parse(file: str, data: bytes) -> Any:
    """Return a CSV trace as a table, line by line, or say what is wrong with the first bad line."""
    import pyarrow as pa

    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        row, column = data.count(b"\n", 0, error.start) + 1, error.start - data.rfind(b"\n", 0, error.start)
        raise InputError(f"{file}:{row}:{column}: not UTF-8 text") from None
    if lines[-1] == "":
        del lines[-1]
    if not lines:
        raise InputError(f"{file}:1:1: the file is empty; a trace begins with the header {HEADER}")
    columns: list[list[Any]] = [[] for _ in FIELDS]
    for number, line in enumerate(lines, 1):
        text = line.removesuffix("\r")
        if not (text == HEADER if number == 1 else _RECORD.fullmatch(text)):
            column, message = _fault(text, number == 1)
            raise InputError(f"{file}:{number}:{column}: {message}")
        if number > 1:
            for words, word in zip(columns, text.split(","), strict=True):
                words.append(word)
    arrays = {
        field: pa.array(words, pa.string()) if field == "command" else pa.array(map(int, words), pa.int64())
        for field, words in zip(FIELDS, columns, strict=True)
    }
    return pa.table(arrays)


def _fault(text: str, is_header: bool) -> tuple[int, str]:
    """Return the column and the nature of the first fault in a line that has one."""
    words = text.split(",")
    column = 1
    for field, word in zip(FIELDS, words, strict=False):
        if is_header and word != field:
            return column, f"{shown(word)}, but the header should be {HEADER}"
        if not is_header and field != "command" and not re.fullmatch(_NUMBER, word):
            what = "is out of range" if re.fullmatch("-?[0-9]+", word) else "is no whole number"
            return column, f"{field}: {shown(word)} {what}"
        column += len(word) + 1
    column -= len(words) < len(FIELDS)
    return column, f"{len(words)} fields, but a trace has {len(FIELDS)}: {HEADER}"


def _read_parquet(file: str, data: bytes, dram: Dram) -> CommandTrace:
    import pyarrow as pa
    from pyarrow import parquet

    if not data:
        raise InputError(f"{file}:1:1: the file is empty")
    try:
        table = parquet.read_table(BytesIO(data))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: damaged, or no Parquet file: {error}") from None
    if tuple(table.column_names) != FIELDS:
        found = ",".join(table.column_names)
        raise InputError(f"{file}:1:1: the columns are {found}, but should be {HEADER}")
    for i, field in enumerate(table.schema):
        value = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if field.name == "command":
            good, wanted = pa.types.is_string(value) or pa.types.is_large_string(value), "text"
        else:
            good, wanted = pa.types.is_integer(field.type), "whole numbers"
        if not good:
            raise InputError(f"{file}:1:{i + 1}: {field.name}: {field.type}, but should be {wanted}")
        if table.column(i).null_count:
            record = table.column(i).is_null().to_pylist().index(True)
            raise InputError(f"{file}:{record + 2}:{i + 1}: {field.name}: missing")
    return _validated(file, table, dram, lambda record, field: (record + 2, field + 1))


def _validated(
    file: str, table: Any, dram: Dram, place: Callable[[int, int], tuple[int, int]]
) -> CommandTrace:
    """Return a table of the right columns as a trace, or raise what is wrong with its first bad record."""
    limits = {
        "cycle": (0, MAX_CYCLE),
        "channel": (0, dram.channels - 1),
        "pseudochannel": (-1, dram.pseudochannels - 1),
        "rank": (-1, dram.ranks * dram.stack_ids - 1),
        "bankgroup": (-1, dram.bankgroups - 1),
        "bank": (-1, dram.banks_per_bankgroup - 1),
        "row": (-1, dram.rows - 1),
        "column": (-1, dram.columns - 1),
    }
    columns, faults = {}, list[tuple[int, int, str]]()
    for i, field in enumerate(FIELDS):
        if field == "command":
            columns[field], bad = _command_ids(table.column(i), dram)
            if bad is not None:
                hint = did_you_mean(bad[1], dram.command_names)
                faults.append((bad[0], i, f"unknown command {shown(bad[1])}{hint}"))
            continue
        values = table.column(i).to_numpy()
        low, high = limits[field]
        outside = (values < low) | (values > high)
        if outside.any():
            record = int(outside.argmax())
            faults.append((record, i, f"{values[record]} is out of range ({low} to {high})"))
        columns[field] = values
    order = np.argsort(columns["channel"], kind="stable")
    channel, cycle = columns["channel"][order], columns["cycle"][order]
    back = order[1:][(channel[1:] == channel[:-1]) & (cycle[1:] < cycle[:-1])]
    if len(back):
        record = int(back.min())
        c, t = columns["channel"][record], columns["cycle"][record]
        last = columns["cycle"][:record][columns["channel"][:record] == c][-1]
        faults.append((record, 0, f"{t} comes after {last} on channel {c}, but cycles never decrease"))
    if faults:
        record, at, message = min(faults)
        line, column = place(record, at)
        raise InputError(f"{file}:{line}:{column}: {FIELDS[at]}: {message}")
    narrow = (columns[field].astype(np.int32) for field in FIELDS[1:])
    return CommandTrace(tuple(dram.commands), columns["cycle"].astype(np.int64), *narrow)


def _command_ids(column: Any, dram: Dram) -> tuple[npt.NDArray[Any], tuple[int, str] | None]:
    """Return the ids of commands by name, and the record and name of the first that the memory lacks."""
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    column = column.unify_dictionaries()
    names = column.chunk(0).dictionary.to_pylist() if column.num_chunks else []
    known = {name: i for i, name in enumerate(dram.commands)}
    which = np.concatenate([np.empty(0, np.int64), *(part.indices.to_numpy() for part in column.chunks)])
    ids = np.array([known.get(name, -1) for name in names] or [0], np.int32)[which.astype(np.int64)]
    unknown = ids < 0
    if not unknown.any():
        return ids, None
    record = int(unknown.argmax())
    return ids, (record, names[int(which[record])])


# --- formats -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Form:
    """How a format is read, from the bytes of the file of that name, and written to an open file."""

    read: Callable[[str, bytes, Dram], CommandTrace]
    write: Callable[[Any, Any], None]


_FORMS = {
    ".csv": _Form(_read_csv, _write_csv),
    ".csv.gz": _Form(_read_gzip, _write_gzip),
    ".parquet": _Form(_read_parquet, _write_parquet),
}


def form_of(path: Path) -> _Form:
    """Return the format that a file's name asks for. Raises InputError for any other name."""
    for extension, form in _FORMS.items():
        if path.name.endswith(extension):
            return form
    raise InputError(f"{path}: a trace is a file that ends in {', '.join(_FORMS)}")
