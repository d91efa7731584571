"""Traces of memory requests in the forms people hold, read piece by piece; plain or gzip, whatever the name."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pimloom.arch.tree import InputError, did_you_mean, shown

I8 = npt.NDArray[np.int64]

MAX_ADDRESS = 2**62
MAX_CYCLE = 2**37
"""A minute of DRAM time; the refreshes of a longer wait alone would take more than seconds to simulate."""
MAX_WORD = 20
"""Characters of the longest word that can be right, leading zeros aside."""
MAX_LINE_B = 1 << 16
BLOCK_B = 1 << 20
"""Of text read and parsed at a time."""


class Requests(NamedTuple):
    """Requests in order of the trace.

    cycle: i8[n]    first clock in which the request may be offered, 0 in forms without
    write: i8[n]    1 write, 0 read
    address: i8[n]  byte
    """

    cycle: I8
    write: I8
    address: I8


class _Form(NamedTuple):
    """fields: in their order; separator: between them; ops: of a read and a write; word: one field."""

    fields: tuple[str, ...]
    separator: str
    ops: tuple[str, str]
    word: re.Pattern[str]
    plain: bytes
    """All that requests of the form consist of."""


def _form(fields: str, separator: str, ops: tuple[str, str]) -> _Form:
    word = re.compile("(?<![^,])[^,]*" if separator == "," else r"[^ \t]+")
    letters = "".join(ops) + "abcdefx"
    plain = f"0123456789\r\n{separator}{letters.lower()}{letters.upper()}".encode()
    return _Form(tuple(fields.split()), separator, ops, word, plain)


HEADER = "cycle,op,address"
_REFERENCE = _form("cycle op address", ",", ("R", "W"))
_DRAMSIM3 = _form("address op cycle", " ", ("READ", "WRITE"))
_RAMULATOR1 = _form("address op", " ", ("R", "W"))
_RAMULATOR2 = _form("op address", " ", ("LD", "ST"))
_KNOWN = f"the header {HEADER}, or a request such as '0x40 READ 12', 'LD 0x40' or '0x40 R'"

_NUMBER = re.compile("0[xX][0-9a-fA-F]+|[0-9]+")


def stream(path: Path | str, chunk: int = 1 << 18) -> Iterator[Requests]:
    """Yield the requests of a trace, at most `chunk` at a time, in memory that does not grow with the file.

    The first line that is neither blank nor a comment (`#`) tells the form: the header `cycle,op,address` of
    the reference form, or a request of DRAMsim3 (address READ|WRITE cycle), Ramulator 2 (LD|ST address) or
    Ramulator 1 (address R|W). Numbers are decimal, or hexadecimal with 0x.
    Raises InputError `file:line:column: message` for the first line that is no request of this form, for a
    file without any request or header, and for one that cannot be read.
    """
    for form, line, block in _pieces(path):
        requests = _parse_quickly(block, form) or _parse(str(path), line, block, form)
        for start in range(0, len(requests.cycle), chunk):
            yield Requests(*(values[start : start + chunk] for values in requests))


def line_of(path: Path | str, n: int) -> str:
    """Return `file:line:column` of the address of request `n`, from 0, of a trace that has been read to there.

    Only `file` for what cannot be read twice, such as a pipe.
    """
    for form, line, block in _pieces(path) if Path(path).is_file() else ():
        for number, text in _lines(str(path), line, block):
            if n == 0:
                words = [*form.word.finditer(text)]
                return f"{path}:{number}:{words[form.fields.index('address')].start() + 1}"
            n -= 1
    return str(path)


# --- lines -------------------------------------------------------------------------------------------------


def lines(path: Path | str) -> Iterator[tuple[int, str]]:
    """Yield number and text of every line of a plain or gzip file that is neither blank nor a comment (`#`).

    Raises InputError for a file that cannot be read, and for a line that is no text.
    """
    for first, block in _blocks(path):
        yield from _lines(str(path), first, block)


def _blocks(path: Path | str) -> Iterator[tuple[int, bytes]]:
    """Yield the text in pieces of whole lines, each with the number of its first line."""
    line, rest = 1, b""
    try:
        with Path(path).open("rb") as file:
            packed = file.peek(2)[:2] == b"\x1f\x8b"
            source = gzip.GzipFile(fileobj=file) if packed else file
            data = source.read(BLOCK_B).removeprefix(b"\xef\xbb\xbf")
            while data:
                head, newline, tail = data.rpartition(b"\n")
                if newline:
                    block = b"".join((rest, head, newline))
                    yield line, block
                    line += block.count(b"\n")
                    rest = b""
                rest += tail
                _check_length(path, line, rest)
                data = source.read(BLOCK_B)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}:{line}:1: damaged gzip file: {error}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be read: {reason}") from None
    if rest:
        yield line, rest


def _pieces(path: Path | str) -> Iterator[tuple[_Form, int, bytes]]:
    """Yield the form of the trace, the number of a line, and whole lines from there on; without a header."""
    form = None
    for first, data in _blocks(path):
        line, block = first, data
        if form is None:
            opening = next(_lines(str(path), line, block), None)
            if opening is None:
                continue
            form = _form_of(str(path), *opening)
            if form is _REFERENCE:
                above = opening[0] - line + 1
                block = (block + b"\n").split(b"\n", above)[above]
                line += above
        yield form, line, block
    if form is None:
        raise InputError(f"{path}:1:1: the file is empty; a trace begins with {_KNOWN}")


def _form_of(file: str, line: int, text: str) -> _Form:
    """Return the form whose first line this is."""
    if text == HEADER:
        return _REFERENCE
    words = text.split()
    for form in (_DRAMSIM3, _RAMULATOR1, _RAMULATOR2):
        if len(words) == len(form.fields) and words[form.fields.index("address")][0] in "0123456789":
            return form
    raise InputError(f"{file}:{line}:1: {shown(text)}, but a trace begins with {_KNOWN}")


def _lines(file: str, first: int, block: bytes) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of every line that is neither blank nor a comment."""
    for number, line in enumerate(BytesIO(block), first):
        data = line.removesuffix(b"\n").removesuffix(b"\r")
        _check_length(file, number, data)
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"{file}:{number}:{error.start + 1}: not UTF-8 text") from None
        if text.strip(" \t")[:1] not in ("", "#"):
            yield number, text


def _check_length(file: Path | str, line: int, data: bytes) -> None:
    if len(data) > MAX_LINE_B:
        raise InputError(f"{file}:{line}:1: a line of more than {MAX_LINE_B} bytes")


# --- records -----------------------------------------------------------------------------------------------


def _parse_quickly(block: bytes, form: _Form) -> Requests | None:
    """Return the requests of whole lines, or None where anything about them is out of the ordinary."""
    if b"#" in block:
        if not block.isascii():
            return None
        block = b"".join(line for line in BytesIO(block) if not _is_comment(line))
    requests = _from_csv(block, form)
    if requests is None and form.separator == " ":
        requests = _from_csv(_single_blanks(block), form)
    return requests


def _is_comment(line: bytes) -> bool:
    return line.lstrip(b" \t").startswith(b"#") and len(line) <= MAX_LINE_B


def _single_blanks(block: bytes) -> bytes:
    """Return the same lines with one blank between the fields and none around them."""
    block = block.replace(b"\t", b" ")
    while b"  " in block:
        block = block.replace(b"  ", b" ")
    return block.replace(b" \r\n", b"\r\n").replace(b" \n", b"\n").replace(b"\n ", b"\n").strip(b" ")


def _from_csv(block: bytes, form: _Form) -> Requests | None:
    """Return the requests of lines that are all of the form, else None."""
    import pyarrow as pa
    from pyarrow import csv

    # pyarrow also takes blanks around numbers, minus signs, and carriage returns as ends of lines.
    if block.translate(None, form.plain) or (b"\r" in block and block.count(b"\r") != block.count(b"\r\n")):
        return None
    if not block or block.isspace():
        return Requests(*(np.empty(0, np.int64) for _ in Requests._fields))
    types = dict.fromkeys(form.fields, pa.int64()) | {"op": pa.dictionary(pa.int32(), pa.string())}
    try:
        table = csv.read_csv(
            pa.BufferReader(block),
            csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=form.fields),
            csv.ParseOptions(delimiter=form.separator, quote_char=False),
            csv.ConvertOptions(column_types=types, null_values=[], strings_can_be_null=False),
        ).combine_chunks()
    except pa.ArrowInvalid:
        return None
    ops = table["op"].chunk(0)
    names = [name.upper() for name in ops.dictionary.to_pylist()]
    if not {*form.ops}.issuperset(names):
        return None
    # Copies: kernels are compiled for arrays that may be written to.
    write = np.array([form.ops.index(name) for name in names], np.int64)[ops.indices.to_numpy()]
    address = np.array(table["address"].chunk(0))
    cycle = np.array(table["cycle"].chunk(0)) if "cycle" in form.fields else np.zeros_like(address)
    if min(cycle.min(), address.min()) < 0 or cycle.max() > MAX_CYCLE or address.max() > MAX_ADDRESS:
        return None
    return Requests(cycle, write, address)


def _parse(file: str, first: int, block: bytes, form: _Form) -> Requests:
    """Return the requests of whole lines, line by line, or say what is wrong with the first bad one."""
    columns: dict[str, list[int]] = {field: [] for field in form.fields}
    for number, text in _lines(file, first, block):
        words = [*form.word.finditer(text)]
        if len(words) != len(form.fields):
            column = words[len(form.fields)].start() if len(words) > len(form.fields) else len(text)
            raise InputError(
                f"{file}:{number}:{column + 1}: {len(words)} field{'s' * (len(words) != 1)}, but a request of "
                f"this trace has {len(form.fields)}: {form.separator.join(form.fields)}"
            )
        for field, word in zip(form.fields, words, strict=True):
            try:
                value = _op(word[0], form) if field == "op" else _number(word[0], field)
            except ValueError as error:
                raise InputError(f"{file}:{number}:{word.start() + 1}: {field}: {error}") from None
            columns[field].append(value)
    columns.setdefault("cycle", [0] * len(columns["op"]))
    return Requests(*(np.array(columns[field], np.int64) for field in ("cycle", "op", "address")))


def _op(word: str, form: _Form) -> int:
    """Return 1 for a write, 0 for a read; raise ValueError for anything else."""
    if word.upper() not in form.ops:
        hint = did_you_mean(word.upper()[:MAX_WORD], form.ops) or f", but should be {' or '.join(form.ops)}"
        raise ValueError(f"unknown {shown(word)}{hint}")
    return form.ops.index(word.upper())


def _number(word: str, field: str) -> int:
    """Return a number of the field's range, decimal or hexadecimal; raise ValueError for anything else."""
    limit = MAX_CYCLE if field == "cycle" else MAX_ADDRESS
    if not _NUMBER.fullmatch(word.removeprefix("-")):
        is_hexadecimal = re.fullmatch("[0-9a-fA-F]+", word)
        raise ValueError(
            f"{shown(word)} is no whole number{'; hexadecimal ones begin with 0x' if is_hexadecimal else ''}"
        )
    digits = word.lstrip("0xX")
    if not word.startswith("-") and len(digits) <= MAX_WORD:
        value = int(digits or "0", 16 if word[1:2] in ("x", "X") else 10)
        if value <= limit:
            return value
    raise ValueError(f"{shown(word)} is out of range (0 to 2^{limit.bit_length() - 1})")
