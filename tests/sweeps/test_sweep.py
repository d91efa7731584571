"""Whole sweeps: resumed, shared, interrupted, run by many; always the same table."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd
import pytest

import pimloom
from pimloom.arch.document import InputError
from pimloom.reports.definitions import COLUMNS, definitions
from pimloom.run import simulate
from pimloom.sweeps.description import Request, make_sweep
from pimloom.sweeps.execute import DIED, Job, Office, execute
from pimloom.sweeps.plan import Recipe, Resolver, plan
from pimloom.sweeps.store import Store
from pimloom.sweeps.sweep import Swept, Tally, run_sweep

TINY = str(Path(__file__).parents[1] / "data" / "functional" / "gpt2-tiny")
AXES = ["dram.channels=2,4,8", "pim.lanes=8,16,32"]
KEYS = ["workload.generate=2"]


def request(*axes: str) -> Request:
    return make_sweep([TINY], ["pim-gpt"], axes or AXES, KEYS)


def run_tiny(folder: Path, *axes: str, **options: object) -> Swept:
    return run_sweep(request(*axes), folder, **options)  # type: ignore[arg-type]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def tree(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if "points" in str(p)}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    assert run_tiny(folder, workers=2).tally == Tally(9, run=6, failed=3)
    return folder


def test_a_point_is_the_run_of_its_own(done: Path) -> None:
    frame = pd.read_parquet(done / "table.parquet")
    (row,) = frame[(frame["dram.channels"] == 4) & (frame["pim.lanes"] == 8)].to_dict("records")
    alone = simulate(TINY, "pim-gpt", generate=2, overrides=["dram.channels=4", "pim.lanes=8"])
    assert row["total_time_ns"] == alone.total_time_ns
    assert row["energy_pJ.total"] == alone.energy_pJ["total"]
    stored = pimloom.load(done / "points" / row["point"])
    assert stored.summary | {"simulator": 0} == alone.summary | {"simulator": 0}
    with pytest.raises(InputError, match="holds no ops.parquet: simulate this run with --out"):
        stored.to_pandas()


def test_every_column_is_a_key_or_explained(done: Path) -> None:
    known = definitions() | COLUMNS
    columns = set(pd.read_parquet(done / "table.parquet")) - {"dram.channels", "pim.lanes"}
    assert [name for name in columns if not any(fnmatchcase(name, key) for key in known)] == []


def test_a_finished_sweep_runs_nothing(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("there is nothing to execute")

    monkeypatch.setattr("pimloom.sweeps.sweep.execute", refuse)
    before = tree(done), files(done)
    assert run_tiny(done).tally == Tally(9, reused=6, failed=3)
    assert (tree(done), files(done)) == before


def test_one_worker_writes_the_same(done: Path, tmp_path: Path) -> None:
    run_tiny(tmp_path, workers=1)
    assert files(tmp_path) == files(done)


def test_sweeps_share_points(done: Path, tmp_path: Path) -> None:
    swept = run_tiny(tmp_path, "dram.channels=4,16", "pim.lanes=8", reuse=[done])
    assert swept.tally == Tally(2, run=1, reused=1)
    assert len(list((tmp_path / "points").iterdir())) == 2
    again = run_tiny(tmp_path, "dram.channels=4,16", "pim.lanes=8")
    assert again.tally == Tally(2, reused=2)
    with pytest.raises(InputError, match="holds no points of a sweep to reuse"):
        run_tiny(tmp_path, reuse=[tmp_path / "points"])


def test_another_source_is_another_result(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pimloom.sweeps.plan.source_hash", lambda: "edited")
    with pytest.raises(RuntimeError, match="source has changed since the sweep began"):
        run_tiny(done, "dram.channels=4", "pim.lanes=8")


def test_failed_points(tmp_path: Path) -> None:
    """Kept as they failed, and run again when asked to."""
    swept = run_tiny(tmp_path, "mapping.max_tokens=4,1000000000", workers=1)
    assert swept.tally == Tally(2, run=1, failed=1)
    ((reason, rows),) = swept.failures.items()
    assert [row["mapping.max_tokens"] for row in rows] == [1_000_000_000]
    assert reason.startswith("gpt2-tiny does not fit into pim-gpt")
    frame = swept.to_pandas()
    assert frame["error"].fillna("").tolist() == ["", reason]
    assert run_tiny(tmp_path).tally.points == 9
    assert run_tiny(tmp_path, "mapping.max_tokens=4,1000000000").tally == Tally(2, reused=1, failed=1)
    told: list[Tally] = []
    again = run_tiny(tmp_path, "mapping.max_tokens=4,1000000000", retry_failed=True, progress=told.append)
    assert told == [Tally(2, reused=1), Tally(2, reused=1, failed=1)]
    assert again.tally == told[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "--workers 0: should be at least 1"),
        ({"max_points": 8}, "9 points are more than --max-points 8"),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_tiny(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_from_python(tmp_path: Path) -> None:
    axes = {"dram.channels": [2, 4], "pim.lanes": "8:16:x2"}
    swept = pimloom.sweep(TINY, "pim-gpt", axes, out=tmp_path, overrides=KEYS, workers=1)
    assert swept.tally == Tally(4, run=4)
    assert swept.to_pandas()["pim.lanes"].tolist() == [8, 16, 8, 16]
    with pytest.raises(InputError, match="a sweep needs machines"):
        pimloom.sweep([TINY], out=tmp_path)
    assert swept.plot(kind="heat", grid="grid")[0].name.startswith("heat_tokens_per_s")
    with pytest.raises(InputError, match="8.5: should be|should be a valid integer, not 8.5"):
        pimloom.sweep(TINY, "pim-gpt", {"pim.lanes": 8.5}, out=tmp_path, overrides={"workload.generate": 2})
    zipped = {"dram.channels, pim.lanes": [[2, 8], [4, 16]]}
    assert pimloom.sweep(TINY, ["pim-gpt"], zipped, out=tmp_path, overrides=KEYS).tally == Tally(2, reused=2)


def test_workers_load_all_code_before_they_begin() -> None:
    """Or an edit of a file that is loaded later would be run under the name of the source before it."""
    code = f"""
import os, sys
from pimloom.sweeps import execute
from pimloom.sweeps.plan import Resolver, Recipe
execute.parent_process = lambda: type("Parent", (), {{"sentinel": os.pipe()[0]}})
execute._begin(execute.Office(Resolver(), None, ""))
before = set(sys.modules)
from pimloom.run import prepare, run
run(prepare({TINY!r}, "pim-gpt", generate=2)).json()
print(*(name for name in set(sys.modules) - before if name.startswith("pimloom")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stderr, done.stdout) == ("", "\n")


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    """Processes that are spawned would run the user's script again, if they loaded it."""
    script = f"""
print("begin")
import pimloom
axes, out = {{"pim.lanes": [8, 16]}}, {str(tmp_path / "out")!r}
swept = pimloom.sweep({TINY!r}, "pim-gpt", axes, out=out, overrides="workload.generate=2")
print(swept.tally)
"""
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    expected = ("", "begin\nTally(points=2, run=2, reused=0, failed=0)\n")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, check=False
    )
    assert (done.stderr, done.stdout) == expected
    shutil.rmtree(tmp_path / "out")
    done = subprocess.run([sys.executable], input=script, capture_output=True, text=True, check=False)
    assert (done.stderr, done.stdout) == expected


# --- processes ----------------------------------------------------------------------------------------------


class Deadly(Resolver):
    """Kills the process that resolves a certain recipe, as the system does when memory runs out."""

    def setup(self, recipe: Recipe):  # type: ignore[no-untyped-def]
        if recipe.model == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        if recipe.model == "broken":
            raise ZeroDivisionError("of its own\nmaking")
        return super().setup(recipe)


def test_a_dying_process_takes_no_other_point_along(tmp_path: Path) -> None:
    planned = plan(request(), 10)
    jobs = [Job(point.id, point.recipe) for point in planned.points if point.id]
    bad = {"d" * 32: "deadly", "b" * 32: "broken"}
    jobs[1:1] = [Job(name, Recipe(model, "pim-gpt", ())) for name, model in bad.items()]
    office = Office(Deadly(planned.resolver.roots), tmp_path, planned.source)
    found = {job.id: status for job, status in execute(jobs, office, 2, False)}
    assert found.keys() == {job.id for job in jobs}
    store = Store(tmp_path)
    for job in jobs:
        outcome = store.read(job.id)
        assert outcome is not None
        assert (outcome.summary is None) == (job.id in bad)
        assert found[job.id] in (("failed",) if job.id in bad else ("run", "reused"))
    assert store.read("d" * 32).error == DIED  # type: ignore[union-attr]
    failure = json.loads(store.failure("b" * 32).read_text(encoding="utf-8"))
    assert failure["error"] == "ZeroDivisionError: of its own making"
    assert any("in setup" in line for line in failure["trace"])


def command(folder: Path, generate: int = 24) -> list[str]:
    return [
        sys.executable, "-m", "pimloom", "sweep", "gpt2-small", "pim-gpt", "-s", "dram.channels=4:32:4",
        "-s", "pim.lanes=4,8,16,32", "-o", "model.layers=2", "-o", f"workload.generate={generate}",
        "--out", str(folder), "--workers", "2", "--json",
    ]  # fmt: skip


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    finished = subprocess.run(command(folder), capture_output=True, text=True, check=True)
    assert json.loads(finished.stdout)["run"] == 24
    return folder


def check_same(folder: Path, expected: Path) -> None:
    assert files(folder) == files(expected)
    assert {p.name for p in (folder / "points").iterdir()} == {
        p.name for p in (expected / "points").iterdir()
    }
    frame = pd.read_parquet(folder / "table.parquet")
    assert not frame.duplicated(["model", "arch", "dram.channels", "pim.lanes"]).any()
    assert list(folder.rglob("*tmp*")) == []


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments(tmp_path: Path, uninterrupted: Path, kills: int) -> None:
    """The whole process group at once, without a chance to tidy up."""
    moments = random.Random(kills)
    for _ in range(kills):
        with start(tmp_path) as process:
            time.sleep(moments.uniform(0.2, 3.5))
            os.killpg(process.pid, signal.SIGKILL)
    finished = subprocess.run(command(tmp_path), capture_output=True, text=True, check=True)
    tally = json.loads(finished.stdout)
    assert tally["run"] + tally["reused"] == 24
    check_same(tmp_path, uninterrupted)


def test_two_at_once(tmp_path: Path, uninterrupted: Path) -> None:
    with start(tmp_path) as one, start(tmp_path) as other:
        tallies = [json.loads(process.communicate(timeout=120)[0]) for process in (one, other)]
    assert [tally["points"] for tally in tallies] == [32, 32]
    assert 24 <= sum(tally["run"] for tally in tallies) <= 48
    check_same(tmp_path, uninterrupted)


def test_interrupt(tmp_path: Path, uninterrupted: Path) -> None:
    """Ctrl-C reaches the whole group; what is done stays, and the same command goes on."""
    with start(tmp_path) as process:
        points, deadline = tmp_path / "points", time.monotonic() + 60
        while not (points.is_dir() and any(len(p.name) == 32 for p in points.iterdir())):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        began = time.monotonic()
        out, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert (process.returncode, out) == (130, "")
    assert err.startswith("interrupted: ")
    assert err.endswith(f"points are done and kept in {tmp_path}; the same command goes on from there\n")
    assert list(tmp_path.rglob("*tmp*")) == []
    assert not (tmp_path / "table.csv").exists()
    subprocess.run(command(tmp_path), capture_output=True, check=True)
    check_same(tmp_path, uninterrupted)


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    """Even if only the parent is killed."""
    with start(tmp_path) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "points").is_dir():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
        process.communicate(timeout=60)  # ends when the last holder of the pipes has ended
    with pytest.raises(ProcessLookupError):
        for _ in range(500):
            os.killpg(process.pid, 0)
            time.sleep(0.02)
