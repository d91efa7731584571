"""Command traces in the forms of two other tools: input of DRAMPower 6, output of Ramulator 2.1's recorder.

DRAMPower 6 (d8b980a) reads rows without a header: clock, command, rank, bank group, bank, row, column, data. The
bank counts through the whole rank, the column is that of the device, numbers are never negative, and the data of
a read or write, in hexadecimal, may be empty: then they follow the toggling rates of its configuration.

Ramulator 2.1 (c5b1c3a) writes a header and, for every level of the standard, a column, then the type of the request
(0 read, 1 write, -1 none) and its source. There, every command carries row and column of its request; a trace of
ours knows them only of commands that have them, and the type of the request only of reads and writes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pimloom.arch.dram import Command, Dram
from pimloom.arch.tree import InputError, did_you_mean, shown
from pimloom.traces.io import CommandTrace, replacing

_COMMON = {"ACT", "PRE", "PREA", "RD", "RDA", "WR", "WRA", "REFA"}
_DRAMPOWER = {"DDR4": _COMMON, "DDR5": _COMMON, "LPDDR4": _COMMON | {"REFB"}, "LPDDR5": _COMMON | {"REFB"}}
"""Commands that DRAMPower 6 knows of a standard, out of those that memories here can have."""

_Table = Callable[[CommandTrace], dict[str, Any]]


class Writer:
    """A trace in another tool's form, written piece by piece; a context manager."""

    def __init__(self, path: Path | str, dram: Dram, form: str, cycles: int | None = None) -> None:
        """Prepare the file; `cycles`: clocks of the run, after which DRAMPower counts no more (None: the last command).

        Raises InputError where the form has no such memory.
        """
        if form not in FORMS:
            hint = did_you_mean(form, [*FORMS]) or f", but should be {' or '.join(FORMS)}"
            raise InputError(f"unknown form {shown(form)}{hint}")
        self._path, self._form, self._cycles, self._last = Path(path), form, cycles, 0
        self._table, self._header = FORMS[form](dram)
        self._stack = ExitStack()

    def __enter__(self) -> Writer:
        self._file = self._stack.enter_context(replacing(self._path))
        self._stack.push(self._end)
        self._file.write(self._header)
        return self

    def write(self, trace: CommandTrace) -> None:
        """Append commands, all of one channel. Raises InputError for what the form cannot express."""
        import pyarrow as pa
        from pyarrow import csv

        if len(trace) and trace.channel.min() != trace.channel.max():
            raise InputError(
                f"{self._path}: the trace has several channels, but a file of this form holds one"
            )
        options = csv.WriteOptions(include_header=False, quoting_style="none")
        csv.write_csv(pa.table(self._table(trace)), self._file, options)
        if len(trace):
            self._last = int(trace.cycle[-1])

    def _end(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._form == "drampower":
            cycles = self._last if self._cycles is None else self._cycles
            self._file.write(f"{cycles},END,0,0,0,0,0,\n".encode())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, where)


def export(path: Path | str, trace: CommandTrace, dram: Dram, form: str, cycles: int | None = None) -> None:
    """Write the trace of one channel in the form `drampower` or `ramulator2`; `cycles`: clocks of the whole run.

    Raises InputError where the form cannot express the trace, or the file cannot be written.
    """
    with Writer(path, dram, form, cycles) as writer:
        writer.write(trace)


# --- DRAMPower 6 -------------------------------------------------------------------------------------------


def _drampower(dram: Dram) -> tuple[_Table, bytes]:
    standard = dram.standard
    if standard not in _DRAMPOWER:
        raise InputError(
            f"{dram.name}: DRAMPower 6 knows {', '.join(_DRAMPOWER)}, but this memory's `standard` is "
            f"{shown(dram.standard)}"
        )
    commands = list(dram.commands.values())
    names = [_drampower_name(command) for command in commands]
    whole = [command.target != "bank" for command in commands]
    burst = dram.access_B * 8 // dram.io.width_bit

    def table(trace: CommandTrace) -> dict[str, Any]:
        import pyarrow as pa

        for i in np.unique(trace.command).tolist():
            if names[i] not in {"", *_DRAMPOWER[standard]}:
                raise InputError(
                    f"{dram.name}: DRAMPower 6 has no command of {standard} like {trace.commands[i]}"
                )
        if trace.rank.min(initial=0) < 0:
            raise InputError(f"{dram.name}: a command of DRAMPower 6 cannot address several ranks")
        kept = trace.take(np.array([name != "" for name in names], bool)[trace.command])
        bank = kept.bankgroup * dram.banks_per_bankgroup + kept.bank
        return {
            "clock": kept.cycle,
            "command": pa.DictionaryArray.from_arrays(kept.command, names),
            "rank": kept.rank,
            "bankgroup": np.maximum(kept.bankgroup, 0),
            "bank": np.where(np.array(whole, bool)[kept.command], 0, bank),
            "row": np.maximum(kept.row, 0),
            "column": np.maximum(kept.column, 0) * burst,
            "data": pa.nulls(len(kept), pa.string()),
        }

    return table, b""


def _drampower_name(command: Command) -> str:
    """Name of a command in DRAMPower; '' for those that it counts as part of another, '?' for unknown ones."""
    if command.meaning in ("activate_first", "sync_read", "sync_write"):
        return ""
    single, closes = command.target == "bank", command.bank == "close"
    match command.meaning:
        case "activate" | "activate_second" if single:
            return "ACT"
        case "read" if single:
            return "RDA" if closes else "RD"
        case "write" if single:
            return "WRA" if closes else "WR"
        case "precharge" if command.target in ("channel", "rank", "bank"):
            return "PRE" if single else "PREA"
        case "refresh" if command.target in ("channel", "rank", "bank"):
            return "REFB" if single else "REFA"
    return "?"


# --- Ramulator 2.1 -----------------------------------------------------------------------------------------


def _ramulator2(dram: Dram) -> tuple[_Table, bytes]:
    standard = dram.standard
    levels = {"Channel": "channel"}
    if dram.pseudochannels > 1 or standard.startswith("HBM"):
        levels["PseudoChannel"] = "pseudochannel"
    if dram.ranks * dram.stack_ids > 1 or not (standard.startswith("GDDR") or standard in ("HBM1", "HBM2")):
        levels["Sid" if standard.startswith("HBM") else "Rank"] = "rank"
    levels |= {"BankGroup": "bankgroup", "Bank": "bank", "Row": "row", "Column": "column"}
    types = [{"read": 0, "write": 1}.get(command.meaning, -1) for command in dram.commands.values()]

    def table(trace: CommandTrace) -> dict[str, Any]:
        import pyarrow as pa

        return {
            "clock": trace.cycle,
            "command": pa.DictionaryArray.from_arrays(trace.command, list(trace.commands)),
            **{level: getattr(trace, column) for level, column in levels.items()},
            "type": np.array(types)[trace.command],
            "source": np.full(len(trace), -1),
        }

    return table, f"clock,command,{','.join(levels)},type,source\n".encode()


FORMS: dict[str, Callable[[Dram], tuple[_Table, bytes]]] = {
    "drampower": _drampower,
    "ramulator2": _ramulator2,
}
"""How a form's table of a trace is made, and its header, for one memory."""
