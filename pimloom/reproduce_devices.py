"""PIM devices beside their own simulators: the cases of a table, run on the machine that its columns name."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pimloom.arch.device import load_device
from pimloom.arch.tree import InputError, did_you_mean
from pimloom.bench import run_kernel
from pimloom.sim.bench import Issued
from pimloom.traces.stream import Work

REFRESHED = "dram.refresh.policy=all_bank"


class Row:
    """One line of a table of cases; a value is asked for by its column and type."""

    def __init__(self, path: Path, line: int, values: dict[str, str]) -> None:
        self.path, self.line, self.values = path, line, values

    def error(self, column: str, text: str) -> InputError:
        """Return what is wrong with a value."""
        number = list(self.values).index(column) + 1
        return InputError(f"{self.path}:{self.line}:{number}: {column}: {text}")

    def text(self, column: str, allowed: Sequence[str] = ()) -> str:
        """Return a value, one of those allowed if any are named. Raises InputError."""
        value = self.values[column]
        if allowed and value not in allowed:
            raise self.error(
                column,
                f"should be one of {', '.join(allowed)}, not {value!r}{did_you_mean(value, list(allowed))}",
            )
        return value

    def count(self, column: str) -> int:
        """Return a value that is a number of things, at least 1. Raises InputError."""
        value = self.values[column]
        if not (value.isascii() and value.isdigit() and len(value) < 10 and int(value) > 0):  # noqa: PLR2004
            raise self.error(column, f"should be a whole number from 1 to 999999999, not {value!r}")
        return int(value)


class Case(NamedTuple):
    """What a row asks for: a device with changes, a piece of work, the channels that hold its operands."""

    device: str
    overrides: list[str]
    work: Work
    channels: int | None


@dataclass(frozen=True)
class Outcome:
    """One case beside its reference; cycles_refreshed: the same with refresh on, where the reference has none."""

    case: str
    reference_cycles: int
    cycles: int
    cycles_refreshed: int | None
    issued: Issued

    @property
    def difference(self) -> float:
        """Relative."""
        return self.cycles / self.reference_cycles - 1

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        refreshed = {} if self.cycles_refreshed is None else {"cycles_refreshed": self.cycles_refreshed}
        return {
            "case": self.case,
            "reference_cycles": self.reference_cycles,
            "cycles": self.cycles,
            "difference": self.difference,
            **refreshed,
        }


def read_rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """Return the rows of a table with at least these columns. Raises InputError, with file, line and column."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            missing = [name for name in columns if name not in header]
            if missing:
                raise InputError(f"{path}:1:1: columns missing: {', '.join(missing)}")
            rows = []
            for values in reader:
                if len(values) != len(header):
                    raise InputError(
                        f"{path}:{reader.line_num}:1: {len(values)} values, the header has {len(header)}"
                    )
                rows.append(Row(path, reader.line_num, dict(zip(header, values, strict=True))))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a table of comma-separated values: {error}") from None
    if not rows:
        raise InputError(f"{path}: holds no case")
    return rows


def run_case(row: Row, case: Case) -> Outcome:
    """Run one case. Raises InputError, with the row's place, for what the device cannot do."""
    try:
        device, _ = load_device(case.device, case.overrides)
        issued = run_kernel(device, case.work, case.channels).issued
        refreshed = None
        if device.dram.refresh.policy == "none":
            other, _ = load_device(case.device, [*case.overrides, REFRESHED])
            refreshed = run_kernel(other, case.work, case.channels).issued.cycles
    except InputError as error:
        raise InputError(f"{row.path}:{row.line}:1: {error}") from None
    return Outcome(row.text("case"), row.count("cycles"), issued.cycles, refreshed, issued)
