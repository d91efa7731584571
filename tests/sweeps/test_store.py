"""The store: complete or absent, whoever is killed, and however many write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pimloom.reports.definitions import SCHEMA_VERSION
from pimloom.sweeps import store as module
from pimloom.sweeps.store import FILES, Outcome, Store, replace_file, temporary

ID = "0123456789abcdef" * 2
OTHER = "f" * 32


def summary(number: int) -> dict[str, Any]:
    return {"schema_version": SCHEMA_VERSION, "total_time_ns": number, "energy_pJ": {"total": 1.0}}


def write(number: int) -> Callable[[Path], object]:
    def fill(folder: Path) -> None:
        for file in FILES:
            (folder / file).write_text(json.dumps(summary(number)), encoding="utf-8")

    return fill


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*tmp*")]


def test_put_and_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.read(ID) is None
    store.put(ID, write(1))
    assert store.read(ID) == Outcome(summary(1))
    assert leftovers(tmp_path) == []


def test_the_first_result_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in (1, 2):
        store.put(ID, write(number))
    assert store.read(ID) == Outcome(summary(1))
    store.put_failure(ID, "later", "")
    assert store.read(ID) == Outcome(summary(1))
    assert leftovers(tmp_path) == []


def test_a_failure_is_replaced(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put_failure(ID, "no room", "Traceback\n  line")
    assert store.read(ID) == Outcome(None, "no room")
    store.put_failure(ID, "still none", "")
    assert store.read(ID) == Outcome(None, "still none")
    store.put(ID, write(3))
    assert store.read(ID) == Outcome(summary(3))
    assert {path.name for path in store.path(ID).iterdir()} == set(FILES)


@pytest.mark.parametrize(
    "text",
    ["", '{"n": ', "\0", "[]", "null", "3", "{}", '{"schema_version": 1, "total_time_ns": 1}', "[" * 10**5],
)
def test_damaged_files_are_no_result(tmp_path: Path, text: str) -> None:
    """As a power failure may leave them."""
    for file in ("result.json", *(("counts.json",) if not text else ())):
        store = Store(tmp_path / file)
        store.put(ID, write(3))
        (store.path(ID) / file).write_text(text, encoding="utf-8")
        assert store.read(ID) is None
        store.put(ID, write(4))
        assert store.read(ID) == Outcome(summary(4))


def test_a_missing_file_is_no_result(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(ID, write(3))
    (store.path(ID) / "config.resolved.yaml").unlink()
    assert store.read(ID) is None


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("x", encoding="utf-8")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        store.put(ID, fail)
    assert store.read(ID) is None
    assert leftovers(tmp_path) == []


def test_a_failure_never_takes_the_place_of_a_result(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(ID, write(1))
    for _ in range(3):
        store.put_failure(ID, "later", "")
        assert store.read(ID) == Outcome(summary(1))


@pytest.mark.parametrize("text", ["", "[]", '{"error": ""}', '{"error": '])
def test_a_damaged_failure_is_none(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    store.put_failure(ID, "no room", "")
    store.failure(ID).write_text(text, encoding="utf-8")
    assert store.read(ID) is None


def test_a_rename_that_is_refused_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("not today")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="not today"):
        Store(tmp_path).put(ID, write(1))
    assert leftovers(tmp_path) == []


def test_adopt(tmp_path: Path) -> None:
    mine, other = Store(tmp_path / "mine"), Store(tmp_path / "other")
    other.put(ID, write(5))
    mine.adopt(ID, other)
    assert mine.read(ID) == other.read(ID) == Outcome(summary(5))


def test_many_at_once(tmp_path: Path) -> None:
    """Processes race for the same points: one result each, nothing left over."""
    code = f"""
import json, sys
from pathlib import Path
from pimloom.sweeps.store import FILES, Store
store = Store(Path({str(tmp_path)!r}))
def fill(folder, n):
    for file in FILES:
        told = {{"schema_version": {SCHEMA_VERSION}, "total_time_ns": n + 1, "energy_pJ": {{"total": 1.0}}}}
        (folder / file).write_text(json.dumps(told | {{"by": sys.argv[1]}}))
for n in range(200):
    name = f"{{n:032x}}"
    if n % 3 == 0:
        store.put_failure(name, "no", "")
    store.put(name, lambda folder: fill(folder, n))
"""
    processes = [subprocess.Popen([sys.executable, "-c", code, str(i)]) for i in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    store = Store(tmp_path)
    for n in range(200):
        found = store.read(f"{n:032x}")
        assert found and found.summary and found.summary["total_time_ns"] == n + 1
    assert leftovers(tmp_path) == []


# --- leftovers ----------------------------------------------------------------------------------------------


def left_by(folder: Path, process: subprocess.Popen[bytes]) -> Path:
    """Make what a process would leave if it died while it writes a point."""
    started = module._started(process.pid)
    path = folder / "points" / f"{ID}.tmp-{module._host()}-{process.pid}-{started}"
    path.mkdir(parents=True)
    (path / "half").write_text("x", encoding="utf-8")
    return path


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_what_living_processes_write_stays(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    path = left_by(tmp_path, sleeper)
    with temporary(tmp_path / "table.csv") as own:
        own.touch()
        Store(tmp_path).clean()
        assert path.is_dir() and own.is_file()


def test_what_dead_processes_left_goes(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """A killed process that nobody has waited for, a zombie, is dead, too."""
    path = left_by(tmp_path, sleeper)
    file = tmp_path / path.name.replace(ID, "table.csv")
    file.touch()
    os.kill(sleeper.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while module._started(sleeper.pid) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    Store(tmp_path).clean()
    assert not path.exists() and not file.exists()
    sleeper.wait()
    assert module._started(sleeper.pid) is None


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only there a process's start is known")
def test_a_later_process_of_the_same_number_is_another(tmp_path: Path) -> None:
    path = tmp_path / f"table.csv.tmp-{module._host()}-{os.getpid()}-1"
    path.touch()
    Store(tmp_path).clean()
    assert not path.exists()


def test_another_computer_may_still_write(tmp_path: Path) -> None:
    path = tmp_path / "table.csv.tmp-elsewhere-1-1"
    path.touch()
    Store(tmp_path).clean()
    assert path.exists()


def test_clean_without_a_folder(tmp_path: Path) -> None:
    Store(tmp_path / "none").clean()
    assert not (tmp_path / "none").exists()


def test_without_proc(monkeypatch: pytest.MonkeyPatch, sleeper: subprocess.Popen[bytes]) -> None:
    """On other systems a process is known by its number alone."""
    monkeypatch.setattr(module, "Path", lambda path: Path("/nowhere" + path))
    assert module._started(sleeper.pid) == "0"
    sleeper.kill()
    sleeper.wait()
    assert module._started(sleeper.pid) is None


def test_files_are_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    texts = ["a" * 10_000, "b" * 10_000]

    def put(i: int) -> str:
        replace_file(target, lambda path: path.write_text(texts[i % 2], encoding="utf-8"))
        return target.read_text(encoding="utf-8")

    put(0)
    assert {put(i) for i in range(20)} == set(texts)
    with pytest.raises(OSError, match="full"):
        replace_file(target, lambda path: (_ for _ in ()).throw(OSError("full")))
    assert target.read_text(encoding="utf-8") in texts
    assert leftovers(tmp_path) == []
