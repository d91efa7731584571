"""Tables of cases: comma-separated values, read with the place of whatever is wrong."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from pimloom.arch.tree import InputError, did_you_mean


class CaseError(InputError):
    """A value of a table is wrong; the text says where."""


class Row:
    """One line of a table of cases; a value is asked for by its column and type."""

    def __init__(self, path: Path, line: int, values: dict[str, str]) -> None:
        self.path, self.line, self.values = path, line, values

    def error(self, column: str, text: str) -> CaseError:
        """Return what is wrong with a value."""
        number = list(self.values).index(column) + 1
        return CaseError(f"{self.path}:{self.line}:{number}: {column}: {text}")

    def wrong(self, error: InputError) -> InputError:
        """Return an error with the row's place, unless it has one."""
        return error if isinstance(error, CaseError) else CaseError(f"{self.path}:{self.line}:1: {error}")

    def text(self, column: str, allowed: Sequence[str] = ()) -> str:
        """Return a value, one of those allowed if any are named. Raises InputError."""
        value = self.values[column]
        if allowed and value not in allowed:
            raise self.error(
                column,
                f"should be one of {', '.join(allowed)}, not {value!r}{did_you_mean(value, list(allowed))}",
            )
        return value

    def number(self, column: str) -> float:
        """Return a value that is a number above 0. Raises InputError."""
        try:
            value = float(self.values[column])
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise self.error(column, f"should be a number above 0, not {self.values[column]!r}")
        return value

    def count(self, column: str) -> int:
        """Return a value that is a number of things, at least 1. Raises InputError."""
        value = self.values[column]
        if not (value.isascii() and value.isdigit() and len(value) < 10 and int(value) > 0):  # noqa: PLR2004
            raise self.error(column, f"should be a whole number from 1 to 999999999, not {value!r}")
        return int(value)


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


def has_column(path: Path, name: str) -> bool:
    """Whether a table has a column; not, where it cannot be read."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return name in next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
