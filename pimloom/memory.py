"""Runs of request traces through a memory: from files to figures, in pieces, whatever the length."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from pimloom.arch.dram import Dram
from pimloom.arch.memory import Memory
from pimloom.arch.tree import InputError
from pimloom.reports.memory import memory_result
from pimloom.sim.command_text import CommandText
from pimloom.sim.controller import ENDED, MORE, Controller, decode
from pimloom.sim.dramsim3 import Dramsim3
from pimloom.sim.ramulator2 import Ramulator2
from pimloom.traces.io import HEADER, form_of, from_log, replacing, table_of
from pimloom.traces.requests import Requests, line_of, stream

LOG_ROWS = 1 << 16


def run_requests(
    memory: Memory,
    requests: Path | str | Iterable[Requests],
    commands: Path | None = None,
    max_commands: int | None = None,
    wrap: bool = False,
) -> dict[str, Any]:
    """Simulate a request trace on one channel and return its figures (`reports.memory.memory_result`).

    requests: a file of any of the forms that `traces.requests` reads, or requests
    commands: file for the commands issued, .csv, .csv.gz or .parquet, at most `max_commands` of them (None = all)
    wrap: take an address beyond the memory modulo its size

    Raises InputError for a bad record, or an address beyond the memory; StuckError where the run cannot end.
    """
    path: Path | str | None = None
    if isinstance(requests, (Path, str)):
        path, requests = requests, stream(requests)
    controller: Controller = controller_class(memory)(memory)
    text = CommandText(memory.dram)
    decoder = memory.decoder()
    log = np.zeros((LOG_ROWS, 5), np.int64)
    crc = 0
    with ExitStack() as stack:
        sink = stack.enter_context(_Sink(commands, memory.dram, max_commands)) if commands else None
        for piece, is_last in _with_end(_inside(memory, requests, path, wrap)):
            batch = decode(decoder, piece)
            reason = -1
            while reason not in (MORE, ENDED):
                reason, rows = controller.feed(batch, is_last, log)
                lines = text.bytes(log, rows)
                crc = zlib.crc32(lines, crc)
                if sink:
                    sink.write(log, rows, lines)
    return memory_result(memory, controller.outcome(), crc)


def controller_class(memory: Memory) -> type[Dramsim3] | type[Ramulator2]:
    """What simulates the controller of a memory."""
    return Dramsim3 if memory.controller.scheduler == "round_robin" else Ramulator2


def _inside(
    memory: Memory, pieces: Iterable[Requests], path: Path | str | None, wrap: bool
) -> Iterator[Requests]:
    """Requests whose addresses the memory has."""
    done = 0
    for piece in pieces:
        outside = piece.address >= memory.capacity_B
        if outside.any() and not wrap:
            n = int(outside.argmax())
            place = f"request {done + n + 1}" if path is None else line_of(path, done + n)
            raise InputError(
                f"{place}: address {piece.address[n]:#x} is beyond the memory, whose channel has "
                f"{memory.capacity_B} B; --wrap takes addresses modulo that"
            )
        done += len(piece.address)
        yield piece._replace(address=piece.address % memory.capacity_B) if outside.any() else piece


def _with_end(pieces: Iterator[Requests]) -> Iterator[tuple[Requests, bool]]:
    """Each piece, and whether it is the last; an empty one where there is none."""
    empty = np.empty(0, np.int64)
    piece = next(pieces, Requests(empty, empty, empty))
    for following in pieces:
        yield piece, False
        piece = following
    yield piece, True


class _Sink:
    """A file of commands that grows."""

    def __init__(self, path: Path, dram: Dram, most: int | None) -> None:
        form_of(path)
        self.path, self.dram, self.left = path, dram, most
        self._stack = ExitStack()
        self._file: IO[bytes] | None = None
        self._parquet: Any = None

    def __enter__(self) -> _Sink:
        # What stands there may be the requests.
        raw = self._stack.enter_context(replacing(self.path))
        if self.path.name.endswith(".parquet"):
            from pyarrow import parquet

            schema = table_of(from_log(self.dram, 0, np.empty((0, 5), np.int64))).schema
            self._parquet = self._stack.enter_context(parquet.ParquetWriter(raw, schema, compression="zstd"))
            return self
        if self.path.name.endswith(".gz"):
            raw = self._stack.enter_context(
                gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6)  # type: ignore[arg-type]
            )
        self._file = raw
        raw.write(f"{HEADER}\n".encode())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, where)

    def write(self, log: npt.NDArray[np.int64], rows: int, lines: memoryview) -> None:
        """Add the first rows of a log, whose text is `lines`, as far as the limit allows."""
        if self.left is not None:
            if rows > self.left:
                rows = self.left
                lines = memoryview(b"".join(bytes(lines).splitlines(keepends=True)[:rows]))
            self.left -= rows
        if not rows:
            return
        if self._parquet is not None:
            self._parquet.write_table(table_of(from_log(self.dram, 0, log[:rows])))
        elif self._file is not None:
            self._file.write(lines)
