"""A folder of finished points, one folder each, named by the run's identity; of failed ones a file each.

A point's files are written under a temporary name and renamed, so a folder that has its final name is complete,
however the process that wrote it ended, and however many processes work on the same store.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pimloom.reports.definitions import CONFIG, COUNTS, MODEL, PROVENANCE, RESULT, SCHEMA_VERSION
from pimloom.reports.sweep_data import POINTS

FILES = (RESULT, CONFIG, MODEL, COUNTS, PROVENANCE)
_TEMPORARY = re.compile(r".+\.tmp-(?P<host>.+)-(?P<pid>[0-9]+)-(?P<started>[0-9]+)")
_ID = re.compile("[0-9a-f]{32}")
_STAT_STATE, _STAT_STARTED = 0, 19
"""Fields of /proc/PID/stat, counted behind the command's closing parenthesis (proc_pid_stat(5): 3 and 22)."""


@dataclass(frozen=True)
class Outcome:
    """What became of a point: its summary, or why there is none."""

    summary: dict[str, Any] | None
    error: str = ""


@dataclass(frozen=True)
class Store:
    """The finished points below a folder."""

    folder: Path

    def path(self, name: str) -> Path:
        """Return where the files of a point are."""
        assert _ID.fullmatch(name), name
        return self.folder / POINTS / name

    def failure(self, name: str) -> Path:
        """Return where it stands that a point failed, and how."""
        return self.path(name).with_suffix(".failed.json")

    def read(self, name: str) -> Outcome | None:
        """Return what became of a point, None if nothing is known of it or its files are damaged."""
        folder = self.path(name)
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            # A power failure may leave files empty, or take their names.
            if all((folder / file).stat().st_size for file in FILES):
                summary = json.loads((folder / RESULT).read_bytes())
                is_whole = summary["total_time_ns"] > 0 <= summary["energy_pJ"]["total"]
                if summary["schema_version"] == SCHEMA_VERSION and is_whole:
                    return Outcome(summary)
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            error = str(json.loads(self.failure(name).read_bytes())["error"])
            return Outcome(None, error) if error else None
        return None

    def put(self, name: str, write: Callable[[Path], object]) -> None:
        """Let `write` fill the folder of a point. If another process has put its result meanwhile, that one stays.

        Raises OSError if the folder cannot be written.
        """
        target = self.path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary(target) as staged:
            staged.mkdir()
            write(staged)
            try:
                staged.rename(target)
            except OSError:
                found = self.read(name)
                if found is None or found.summary is None:
                    # Damaged files are in the way.
                    with temporary(target.with_name(f"{name}.old")) as old:
                        target.rename(old)
                        staged.rename(target)
        self.failure(name).unlink(missing_ok=True)

    def put_failure(self, name: str, error: str, trace: str) -> None:
        """Note that a point failed, and how; a result of it is not touched.

        Raises OSError if the folder cannot be written.
        """
        text = json.dumps({"error": error, "trace": trace.splitlines()}, indent=2) + "\n"
        target = self.failure(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, lambda path: path.write_text(text, encoding="utf-8"))

    def adopt(self, name: str, other: Store) -> None:
        """Copy a point from another store; raises OSError."""
        source = other.path(name)
        self.put(name, lambda folder: [shutil.copyfile(source / file, folder / file) for file in FILES])

    def clean(self) -> None:
        """Remove what dead processes of this computer have left under temporary names."""
        for folder in (self.folder, self.folder / POINTS):
            for path in list(folder.iterdir()) if folder.is_dir() else []:
                match = _TEMPORARY.fullmatch(path.name)
                if match and match["host"] == _host() and match["started"] != _started(int(match["pid"])):
                    _remove(path)


@contextmanager
def temporary(target: Path) -> Iterator[Path]:
    """Give a path beside `target` that no other process uses; what is left there in the end is removed."""
    path = target.with_name(f"{target.name}.tmp-{_host()}-{os.getpid()}-{_started(os.getpid())}")
    _remove(path)
    try:
        yield path
    finally:
        _remove(path)


def replace_file(target: Path, write: Callable[[Path], object]) -> None:
    """Let `write` write a file under a temporary name and put it in the place of `target`."""
    with temporary(target) as staged:
        write(staged)
        staged.replace(target)


def _host() -> str:
    return re.sub(r"[^\w.-]", "_", platform.node()) or "localhost"


def _started(pid: int) -> str | None:
    """Return when a process started, in its system's ticks, which tells it from later ones of its number.

    None if it is dead; "0" on a system without /proc, where only its number is known.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        # A killed process whose parent does not ask for it stays as a zombie.
        return None if fields[_STAT_STATE] in b"ZX" else fields[_STAT_STARTED].decode()
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "0"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
