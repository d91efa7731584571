"""The command line: every command, every exit code, and what it says when something is wrong."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import pimloom
from pimloom import __version__, cli
from pimloom.arch.document import shipped
from pimloom.configs import FOLDERS

ROOT = Path(__file__).resolve().parent.parent
TINY = str(Path(__file__).parent / "data" / "functional" / "gpt2-tiny")
SMALL_RUN = ("simulate", "gpt2-small", "pim-gpt", "-o", "model.layers=1", "--generate", "2", "--no-head")
TINY_RUN = (TINY, "pim-gpt", "--generate", "2")
HEAVY = {"numba", "numpy", "pandas", "pyarrow", "pydantic", "matplotlib", "simpy", "yaml", "safetensors"}
WALL_s = 0.3

ISSUE_KEYS = {
    "total_time_ns", "time_per_token_ns", "ttft_ns", "tpot_ns", "tokens_per_s", "average_power_W",
    "pim_utilisation", "energy_pJ", "commands", "row_hit_rate", "latency_share", "interface_bytes",
    "simulator",
}  # fmt: skip


class Run(NamedTuple):
    code: object
    out: str
    err: str


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(*words: str, err: io.StringIO | None = None) -> Run:
    """Run the command line in this process."""
    out, err = io.StringIO(), err or io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as exit:
        cli.main(words)
    return Run(exit.value.code or 0, out.getvalue(), err.getvalue())


def process(*words: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run the command line as a user does."""
    command = [sys.executable, "-m", "pimloom", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """What a small simulation prints and leaves behind."""
    folder = tmp_path_factory.mktemp("run") / "new" / "out"
    return run(*SMALL_RUN, "--out", str(folder)), folder


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of a small run's first pass, as CSV."""
    path = tmp_path_factory.mktemp("trace") / "t.csv"
    assert run("trace", *TINY_RUN, "--tokens", "0:1", "--out", str(path)).code == 0
    return path


# --- help and version ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("--help",), ("-h",), ("simulate", "--help"), ("check-trace", "-h")])
def test_help(words: tuple[str, ...]) -> None:
    done = run(*words)
    assert (done.code, done.err) == (0, "")
    assert "Usage: pimloom" in done.out


def test_every_command_has_an_example() -> None:
    for command in cli.app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        if name != "version":
            assert f"pimloom {name} " in str(command.epilog), name


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from pimloom import cli\ntry: cli.main(['--help'])\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert HEAVY.isdisjoint(done.stdout.splitlines()[-1].split())


@pytest.mark.bench
def test_help_is_instant() -> None:
    def wall_s() -> float:
        begin = time.perf_counter()
        assert process("--help").returncode == 0
        return time.perf_counter() - begin

    assert min(wall_s() for _ in range(10)) < WALL_s


def test_version() -> None:
    assert run("--version") == Run(0, f"pimloom {__version__}\n", "")
    done = run("version")
    assert done.code == 0
    assert done.out.startswith(f"pimloom {__version__}\npython ")
    assert "\nnumba " in done.out


@pytest.mark.parametrize(
    "words", [("nonsense",), ("simulate", "gpt2-small"), ("simulate", "--engine", "x", "a", "b")]
)
def test_wrong_usage(words: tuple[str, ...]) -> None:
    done = run(*words)
    assert (done.code, done.out) == (2, "")
    assert "Usage: pimloom" in done.err


# --- simulate -----------------------------------------------------------------------------------------------


def test_simulate_prints_tables_and_files(result: tuple[Run, Path]) -> None:
    done, folder = result
    assert done.code == 0
    assert "gpt2-small on pim-gpt" in done.out
    assert "NVIDIA" in done.out
    for path in folder.rglob("*.*"):
        assert f"  {path}\n" in done.out
    for name in (
        "result.json",
        "ops.parquet",
        "config.resolved.yaml",
        "timeline.json",
        "figures/latency.pdf",
    ):
        assert (folder / name).is_file()
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_timeline_shows_the_passes_asked_for(tmp_path: Path) -> None:
    for words, shown in (((), [1]), (("--timeline", "0:2"), [0, 1])):
        done = run("simulate", *TINY_RUN, "--engine", "naive", "--out", str(tmp_path), *words)
        assert done.code == 0
        told = json.loads((tmp_path / "timeline.json").read_text(encoding="utf-8"))["otherData"]
        assert (told["positions_shown"], told["passes_of_the_run"]) == (shown, 2)


def test_json_is_one_object_and_the_same_in_another_process(result: tuple[Run, Path]) -> None:
    _, folder = result  # the kernels are compiled now
    first, second = process(*SMALL_RUN, "--json"), process(*SMALL_RUN, "--json")
    assert (first.returncode, first.stderr) == (0, "")
    one, two = json.loads(first.stdout), json.loads(second.stdout)
    assert one.keys() >= ISSUE_KEYS
    assert len(one["time_per_token_ns"]) == 2
    assert one.keys() == pimloom.load(folder).summary.keys()

    def without_simulator(text: str, block: dict[str, Any]) -> str:
        """Cut the block out of the text itself, which must be the same byte for byte."""
        lines = json.dumps({"simulator": block}, indent=2, ensure_ascii=False).splitlines()[1:-1]
        assert text.count("\n".join(lines)) == 1
        return text.replace("\n".join(lines), "")

    rest = without_simulator(first.stdout, one["simulator"])
    assert rest == without_simulator(second.stdout, two["simulator"])


def test_engines_agree() -> None:
    engines = ("fast", "naive", "events")
    runs = [json.loads(run("simulate", *TINY_RUN, "--json", "--engine", name).out) for name in engines]
    for summary, engine in zip(runs, engines, strict=True):
        assert summary.pop("simulator")["engine"] == engine
        assert summary == runs[0]


def test_a_name_that_looks_like_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "x[" / "b]"
    folder.mkdir(parents=True)
    shutil.copy(f"{TINY}/config.json", folder)
    monkeypatch.setattr(cli, "PATIENCE_s", 0.0)
    mine = tmp_path / "mine.yaml"
    resolved = run("show", "pim-gpt").out.replace("\nname: pim-gpt\n", "\nname: '[/red] [b]'\n")
    mine.write_text(resolved, encoding="utf-8")
    words = (str(folder), str(mine), "--generate", "1")
    done = run("simulate", *words, "--engine", "naive", err=Terminal())
    assert done.code == 0
    assert "b] on [/red] [b]" in done.out
    assert "b] on [/red] [b]" in done.err
    done = run("trace", *words, "--tokens", "0:1", "--out", str(tmp_path / "t.csv"), err=Terminal())
    assert done.code == 0


def test_options_reach_the_run() -> None:
    words = (*TINY_RUN, "--prompt", "3", "--batch", "2", "--no-embedding", "--no-head", "--json")
    done = run("simulate", *words, "-o", "workload.generate=4", "-o", "asic.clock_Hz=1e8")
    summary = json.loads(done.out)
    assert summary["workload"] == {
        "prompt": 3, "generate": 4, "batch": 2, "embedding": False, "head": False,
    }  # fmt: skip
    assert len(summary["time_per_token_ns"]) == 6
    assert {"embedding", "lm_head"}.isdisjoint(summary["latency_share"])


@pytest.mark.parametrize("quiet", [False, True])
def test_progress_is_for_terminals(monkeypatch: pytest.MonkeyPatch, quiet: bool) -> None:
    monkeypatch.setattr(cli, "PATIENCE_s", 0.0)
    terminal = Terminal()
    done = run("simulate", *TINY_RUN, "--json", *(["--quiet"] if quiet else []), err=terminal)
    json.loads(done.out)
    assert ("gpt2-tiny on pim-gpt" in terminal.getvalue()) is not quiet
    assert done.err == terminal.getvalue()
    assert run("simulate", *TINY_RUN, "--json").err == ""


def test_first_run_says_that_it_compiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))  # where the kernels lie was settled at their import
    assert "compiling kernels" in run("simulate", *TINY_RUN, "--json").err
    assert run("simulate", *TINY_RUN, "--json", "--quiet").err == ""


# --- validate -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arithmetic", ["fp32", "device"])
def test_validate(arithmetic: str) -> None:
    done = run("validate", TINY, "pim-gpt", "--arithmetic", arithmetic, "--json")
    found = json.loads(done.out)
    assert done.code == 0
    assert found["passed"] is True
    assert found["arithmetic"] == arithmetic
    assert found["tokens_equal"] == found["tokens_compared"] == 16
    assert found["max_relative_error"] < (1e-4 if arithmetic == "fp32" else 1e-1)


def test_validate_random_weights() -> None:
    small = ("-o", "model.layers=1", "-o", "model.vocab=50", "-o", "model.d_ff=64")
    done = run("validate", "gpt2-small", "pim-gpt", *small, "--prompt", "2", "--generate", "1", "--seed", "1")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("passed: gpt2-small on pim-gpt, fp32 arithmetic\n")
    assert "1 of 1" in done.out


def test_validate_mismatch(tmp_path: Path) -> None:
    folder = tmp_path / "wrong"
    shutil.copytree(TINY, folder)
    with np.load(folder / "io.npz") as stored:
        arrays = dict(stored)
    arrays["prefill_logits"][2, 7] += 1.0
    np.savez(folder / "io.npz", **arrays)
    done = run("validate", str(folder), "pim-gpt")
    assert done.code == 3
    assert done.out.startswith("FAILED: ")
    assert "first mismatch: logits at position 2: " in done.err


# --- trace and check-trace ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [".csv", ".csv.gz", ".parquet"])
@pytest.mark.parametrize("tokens", ["0:2", "1:2"])
def test_trace_obeys_the_rules(tmp_path: Path, form: str, tokens: str) -> None:
    path = tmp_path / f"t{form}"
    done = run("trace", *TINY_RUN, "--tokens", tokens, "--out", str(path))
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{path}: ")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    count = int(done.out.split(": ")[1].split()[0])
    assert run("check-trace", "pim-gpt", str(path)) == Run(
        0, f"{path}: {count} commands checked against gddr6_pim_gpt: 0 violations\n", ""
    )


def test_trace_takes_the_options_of_a_run(tmp_path: Path) -> None:
    """The commands of a whole run are those that `simulate` counts."""
    options = (
        TINY,
        "pim-gpt",
        "--prompt",
        "2",
        "--generate",
        "1",
        "--batch",
        "2",
        "--no-embedding",
        "--no-head",
    )
    counts = json.loads(run("simulate", *options, "--json").out)["commands"]
    path = tmp_path / "t.csv"
    assert run("trace", *options, "--tokens", "0:2", "--out", str(path)).code == 0
    issued = [line.split(",")[1] for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    assert {name: issued.count(name) for name in counts} == counts
    assert run("check-trace", "pim-gpt", str(path)).code == 0


def test_trace_against_a_memory_and_a_file(trace: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(run("show", "pim-gpt").out, encoding="utf-8")
    for memory in ("gddr6_pim_gpt", str(mine)):
        assert run("check-trace", memory, str(trace)).code == 0


def test_violations_are_named(trace: Path, tmp_path: Path) -> None:
    lines = trace.read_text(encoding="utf-8").splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if ",PREA,0," in line)
    broken = tmp_path / "broken.csv"
    broken.write_text("".join(lines[:at] + lines[at + 1 :]), encoding="utf-8")
    done = run("check-trace", "pim-gpt", str(broken))
    assert (done.code, done.err) == (3, "")
    assert ": bank_state: " in done.out.splitlines()[0]
    assert f"{len(lines) - 2} commands checked" in done.out.splitlines()[-1]

    found = json.loads(run("check-trace", "pim-gpt", str(broken), "--json").out)
    assert (found["passed"], found["commands_checked"]) == (False, len(lines) - 2)
    assert found["violations"][0].keys() == {"record", "cycle", "channel", "command", "rule", "message"}


def test_partial_trace(trace: Path, tmp_path: Path) -> None:
    lines = trace.read_text(encoding="utf-8").splitlines(keepends=True)
    first_open = next(i for i, line in enumerate(lines) if ",ACT" in line)
    cut = tmp_path / "cut.csv"
    cut.write_text("".join(lines[: first_open + 1]), encoding="utf-8")
    done = run("check-trace", "pim-gpt", str(cut))
    assert done.code == 3
    assert ": left_open: " in done.out
    assert run("check-trace", "pim-gpt", str(cut), "--partial").code == 0


def test_override_changes_the_rules(trace: Path) -> None:
    done = run("check-trace", "pim-gpt", str(trace), "-o", "dram.timing.nRCDMAC=13")
    assert done.code == 3
    assert "13 needed" in done.out


# --- check, list, show, diff --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(FOLDERS))
def test_everything_shipped_is_right(kind: str) -> None:
    names = shipped(kind)
    done = run("check", *names)
    assert (done.code, done.err) == (0, "")
    assert [line.split(": OK: ")[0] for line in done.out.splitlines()] == names


def test_check_says_what_a_description_amounts_to() -> None:
    assert "4 GiB" in run("check", "pim-gpt").out
    assert "TMAC/s" in run("check", "pim-gpt").out
    assert "peak 256 GB/s at the pins" in run("check", "gddr6_aim").out
    # 8 channels of two pseudo-channels of 64 pins at 2 Gb/s.
    assert "peak 256 GB/s at the pins" in run("check", "hbm2_2000").out
    assert "OK: model gpt2-tiny, 132,928 parameters" in run("check", TINY).out
    assert run("check", TINY).out.count("OK") == run("check", f"{TINY}/config.json").out.count("OK") == 1
    assert "OK: sweep pim-gpt-study, 5 grids, 160 points" in run("check", "pim-gpt-study").out


def test_check_goes_on_after_an_error(tmp_path: Path) -> None:
    sweep = tmp_path / "s.yaml"
    sweep.write_text("kind: sweep\n", encoding="utf-8")
    done = run("check", str(sweep), "gpt2-small", "nothing.yaml")
    assert done.code == 2
    assert done.out.startswith("gpt2-small: OK: model")
    assert f"{sweep}:1:1: models: missing" in done.err
    assert "nothing.yaml: cannot be read: No such file or directory" in done.err


def test_list() -> None:
    everything = run("list").out
    for what, kind in (("models", "model"), ("archs", "arch"), ("dram", "dram"), ("sweeps", "sweep")):
        lines = run("list", what).out.splitlines()
        assert [line.split()[0] for line in lines] == shipped(kind)
        assert all(f"  {line}" in everything for line in lines)
    assert "NVIDIA H200" in run("list", "baselines").out
    assert run("list", "animals").code == 2


def test_show_prints_what_loads_again(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(run("show", "pim-gpt", "-o", "dram.channels=16").out, encoding="utf-8")
    assert "16 channels" in run("check", str(mine)).out
    assert run("show", str(mine)).out == mine.read_text(encoding="utf-8")


def test_explain() -> None:
    everything = run("explain").out.splitlines()
    assert "total_time_ns (ns): end of the last pass" in "\n".join(everything)
    assert run("explain", "row_hit_rate").out.startswith("row_hit_rate: 1 - bank activations")
    below = run("explain", "energy_pJ").out.splitlines()
    assert 10 < len(below) < len(everything)
    assert all(line.startswith("energy_pJ.") and " (pJ): " in line for line in below)
    assert run("explain", "commands.MAC_AB").out.startswith("commands.*: commands issued by type")
    found = json.loads(run("explain", "tpot_ns", "--json").out)
    assert found["tpot_ns"]["unit"] == "ns"
    assert run("explain", "--json").code == 0
    done = run("explain", "total_time")
    assert (done.code, done.out) == (2, "")
    assert "no key 'total_time' (did you mean 'total_time_ns'?)" in done.err


def test_reproduce_shows_which_model_is_running(monkeypatch: pytest.MonkeyPatch) -> None:
    def compare(paper: str, progress: Callable[[str], None]) -> tuple[list[object], None]:
        progress("gpt2-medium")
        progress("gpt3-xl")
        return [], None

    monkeypatch.setattr("pimloom.reproduce.reproduce", compare)
    monkeypatch.setattr(cli, "PATIENCE_s", 0.0)
    monkeypatch.setattr(cli, "_announce_compilation", lambda: None)
    terminal = Terminal()
    done = run("reproduce", "pim-gpt", err=terminal)
    assert (done.code, done.out) == (0, "")
    assert "gpt3-xl" in terminal.getvalue()
    assert "7/8" in terminal.getvalue()


def test_show_schema_and_sources() -> None:
    schema = json.loads(run("show", "gpt2-small", "--schema").out)
    assert "layers" in schema["properties"]
    assert "asic" in json.loads(run("show", "pim-gpt", "--schema").out)["properties"]
    assert "\nlayers: " in "\n" + run("show", "gpt2-small", "--sources").out
    assert "config.json" in run("show", TINY, "--sources").out


def test_diff(result: tuple[Run, Path]) -> None:
    folder = str(result[1])
    assert run("diff", folder, folder) == Run(0, "equal\n", "")
    assert json.loads(run("diff", folder, folder, "--json").out) == {"equal": True, "differences": []}
    done = run("diff", "gpt2-small", "gpt2-medium")
    assert done.code == 3
    assert "layers: 12 -> 24  (+100.000%)\n" in done.out
    found = json.loads(run("diff", "gpt2-small", "gpt2-medium", "--json").out)
    assert found["equal"] is False
    assert {"path", "left", "right", "relative"} <= found["differences"][0].keys()


# --- what is wrong and where --------------------------------------------------------------------------------

SMALL = ("simulate", "gpt2-small", "pim-gpt")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("simulate", "gpt3-xxl", "pim-gpt"), "description 'gpt3-xxl' is shipped (did you mean 'gpt3-xl'?)"),
        (("simulate", "gpt2-small", "pimgpt"), "description 'pimgpt' is shipped (did you mean 'pim-gpt'?)"),
        (("simulate", "./none.yaml", "pim-gpt"), "'none.yaml': no such file"),
        (("check", "gdr6_aim"), "no description 'gdr6_aim' is shipped (did you mean 'gddr6_aim'?)"),
        (("show", "none.json"), "none.json: cannot be read: No such file or directory"),
        ((*SMALL, "--prompt", "0"), "--prompt:1:1: workload.prompt: should be greater than or equal to 1"),
        ((*SMALL, "--generate", "1025"), "generate 1025 - 1 = 1025 positions, but gpt2-small has 1024"),
        ((*SMALL, "-o", "model.layers=0"), "layers: should be greater than or equal to 1, not 0"),
        ((*SMALL, "-o", "dram.rows=0"), "dram.rows: should be greater than or equal to 1, not 0"),
        ((*SMALL, "-o", "dram.timing.nRP=-3"), "dram.timing.nRP: should be greater than or equal to 0"),
        ((*SMALL, "-o", "dram.timing.nRCDD=3"), "there is no 'nRCDD' to override (did you mean"),
        ((*SMALL, "-o", "dram.channels"), "an override is written key=value"),
        ((*SMALL, "-o", "link.latency_ns=-1"), "link.latency_ns: should be greater than or equal to 0"),
        (("simulate", *TINY_RUN, "--timeline", "1:3"), "--timeline 1:3: should be a part, not empty, of the run's"),
        (("simulate", *TINY_RUN, "--timeline", "0"), "--timeline 0: should be the first pass"),
        (("trace", *TINY_RUN, "--tokens", "1:5", "--out", "t.csv"), "--tokens 1:5: should be a part"),
        (("trace", *TINY_RUN, "--tokens", "1:1", "--out", "t.csv"), "--tokens 1:1: should be a part"),
        (("trace", *TINY_RUN, "--tokens", "all", "--out", "t.csv"), "--tokens all: should be the first pass"),
        (("trace", *TINY_RUN, "--tokens", "0:1", "--out", "t.txt"), "t.txt: a trace is a file that ends in"),
        (("check-trace", "gpt2-small", "t.csv"), "no description 'gpt2-small' is shipped"),
        (("check-trace", "pim-gpt", "none.csv"), "none.csv: cannot be read: No such file or directory"),
        (("diff", "gpt2-small", "/"), "holds no result"),
    ],
)  # fmt: skip
def test_bad_input(
    words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


def test_mistyped_key_is_shown_with_its_place(tmp_path: Path) -> None:
    mine = tmp_path / "größer 设.yaml"
    head = "extends: pim-gpt\nkind: arch\nversion: 1\nname: mine\n"
    mine.write_text(f"{head}asic:\n  clok_Hz: 1e9\n", encoding="utf-8")
    for words in (("check", str(mine)), ("simulate", "gpt2-small", str(mine)), ("show", str(mine))):
        done = run(*words)
        assert (done.code, done.out) == (2, "")
        assert done.err == f"{mine}:6:3: asic.clok_Hz: unknown key (did you mean 'clock_Hz'?)\n"


def test_model_that_does_not_fit() -> None:
    rows = 256
    small = ("-o", f"dram.rows={rows}", "-o", f"dram.channel_capacity_B={rows * 16 * 2048}")
    done = run(*SMALL, *small)
    assert (done.code, done.out) == (2, "")
    assert "gpt2-small does not fit into pim-gpt: it takes " in done.err
    taken_B, there_B, short_B = (
        int(done.err.split(word)[0].split()[-1]) for word in (" B (", " B (256 rows", " B short")
    )
    assert there_B == rows * 16 * 2048 * 8
    assert short_B == taken_B - there_B > 0


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("cycle,command\n", "1:14: "),
        ("", "1:1: the file is empty"),
        ("{header}\n5,ACTT,0,0,0,0,0,1,-1\n", "2:3: command: unknown command 'ACTT' (did you mean 'ACT'?)"),
        ("{header}\n-5,ACT,0,0,0,0,0,1,-1\n", "2:1: cycle: -5 is out of range"),
        ("{header}\n5,ACT,0,0,0,0,0,1,-1\n4,PRE,0,0,0,0,0,-1,-1\n", "3:1: cycle: 4 comes after 5"),
    ],
)  # fmt: skip
def test_bad_trace(tmp_path: Path, text: str, place: str) -> None:
    path = tmp_path / "bad.csv"
    header = "cycle,command,channel,pseudochannel,rank,bankgroup,bank,row,column"
    path.write_text(text.format(header=header), encoding="utf-8")
    done = run("check-trace", "pim-gpt", str(path))
    assert (done.code, done.out) == (2, "")
    assert f"{path}:{place}" in done.err


def test_output_is_checked_before_the_simulation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("pimloom.run.run", never)
    monkeypatch.setattr("pimloom.run.trace", never)
    file = tmp_path / "file"
    file.touch()
    for out in (file, file / "below"):
        assert run(*SMALL_RUN, "--out", str(out)) == Run(2, "", f"{file}: is a file, not a folder\n")
    done = run("trace", *TINY_RUN, "--tokens", "0:1", "--out", str(file / "t.csv"))
    assert done == Run(2, "", f"{file}: is a file, not a folder\n")
    folder = tmp_path / "t.csv"
    folder.mkdir()
    done = run("trace", *TINY_RUN, "--tokens", "0:1", "--out", str(folder))
    assert done == Run(2, "", f"{folder}: is a folder, not a file\n")


def test_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    done = run(*SMALL_RUN, "--out", str(tmp_path / "new" / "out"))
    assert done == Run(2, "", f"{tmp_path}: this folder cannot be written\n")


# --- sweep --------------------------------------------------------------------------------------------------

TINY_SWEEP = (
    "sweep",
    TINY,
    "pim-gpt",
    "-s",
    "pim.lanes=8,16,32",
    "-o",
    "workload.generate=2",
    "--workers",
    "1",
)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """What a small sweep prints and leaves behind."""
    folder = tmp_path_factory.mktemp("sweep") / "out"
    return run(*TINY_SWEEP, "--out", str(folder)), folder


def test_sweep(swept: tuple[Run, Path]) -> None:
    done, folder = swept
    assert done.code == 0
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines[1:6]] == ["lanes", "─" * len(lines[2].strip()), "8", "16", "32"]
    assert "3 points: 2 run, 0 reused, 1 failed" in lines
    assert lines[-2:] == [f"  {folder}/table.parquet", f"  {folder}/table.csv"]
    reason = "pim.lanes: 32 lanes, but an access of 32 B has only 16 elements of 2 B"
    assert f"1 failed: {reason} (first: model=gpt2-tiny, arch=pim-gpt, pim.lanes=32)\n" in done.err
    assert "--retry-failed" not in done.err
    rows = (folder / "table.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0].startswith("model,arch,pim.lanes,workload.generate,workload.prompt,")
    assert [row.split(",")[2] for row in rows[1:]] == ["8", "16", "32"]


def test_columns_are_explained() -> None:
    assert "rooflines" in run("explain", "speedup_over.NVIDIA_T4_roofline").out
    assert run("explain", "point").out.startswith("point: table of a sweep")


def test_sweep_goes_on(swept: tuple[Run, Path]) -> None:
    _, folder = swept
    again = run(*TINY_SWEEP, "--out", str(folder), "--json")
    told = json.loads(again.out)
    assert told.pop("seconds") < 60
    assert told == {
        "points": 3, "run": 0, "reused": 2, "failed": 1,
        "files": [f"{folder}/table.parquet", f"{folder}/table.csv"],
    }  # fmt: skip


def test_sweep_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        f"kind: sweep\nversion: 1\nname: two\nmodels: [{TINY}/]\narchs: [pim-gpt]\n"
        "set: {workload.generate: 2}\ngrids: {a: {pim.lanes: [8]}, b: {dram.channels: [4]}}\n",
        encoding="utf-8",
    )
    done = run("sweep", str(file), "--out", str(tmp_path / "out"))
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("2 points: 2 run, 0 reused, 0 failed\n")
    assert "OK: sweep two, 2 grids, 2 points" in run("check", str(file)).out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((TINY,), "gpt2-tiny: is a model, and a machine is missing after it"),
        (("gpt2-small",), "gpt2-small: is a model, and a machine is missing after it"),
        (("pim-gpt-stdy",), "did you mean 'pim-gpt-study'"),
        (("pim-gpt-study", "-s", "dram.channels=4"), "a sweep's file says what it sweeps"),
        (("pim-gpt", "gpt2-small"), "the model comes first: gpt2-small pim-gpt"),
        (("a", "b", "c"), "should be a sweep, or a model and a machine"),
        ((TINY, "pim-gpt", "-s", "dram.chanels=4"), "did you mean 'channels'?"),
        ((TINY, "pim-gpt", "-s", "dram.channels=1:99:1", "--max-points", "98"), "99 points are more than"),
        ((TINY, "pim-gpt", "-s", "dram.channels=4:8"), "a range is FIRST:LAST:STEP"),
        ((TINY, "pim-gpt", "--reuse", "/nowhere"), "/nowhere: holds no points of a sweep to reuse"),
        ((TINY, "pim-gpt", "--workers", "0"), "--workers 0: should be at least 1"),
        ((TINY, "pim-gpt", "-s", "pim.lanes=32,64"), "pim.lanes: 32 lanes, but"),
    ],
)
def test_sweep_that_cannot_be(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = run("sweep", *words, "--out", str(tmp_path / "out"))
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert not (tmp_path / "out").exists()


def test_sweep_of_which_all_fails(tmp_path: Path) -> None:
    words = ("sweep", TINY, "pim-gpt", "-o", "mapping.max_tokens=1000000000", "--out", str(tmp_path))
    done = run(*words, "--workers", "1")
    assert done.code == 1
    assert "1 failed: gpt2-tiny does not fit into pim-gpt" in done.err
    assert "failed points are not run again unless with --retry-failed" in done.err


# --- plot ---------------------------------------------------------------------------------------------------


def test_plot(swept: tuple[Run, Path]) -> None:
    _, folder = swept
    done = run("plot", str(folder))
    kinds = ("png", "pdf", "svg")
    names = [f"line_{y}.{kind}" for y in ("tokens_per_s", "energy_per_token_pJ") for kind in kinds]
    assert (done.code, done.out.splitlines()) == (0, [f"{folder}/figures/{name}" for name in names])
    assert done.err == "points that failed, and are not drawn: 1\n"
    assert {path.name for path in (folder / "figures").iterdir()} == {*names}


def test_plot_what_is_asked_for(swept: tuple[Run, Path], tmp_path: Path) -> None:
    out = tmp_path / "new" / "figures"
    asked = ("--kind", "bars", "--x", "pim.lanes", "--y", "ttft_ns", "--format", "png", "--out", str(out))
    done = run("plot", str(swept[1]), *asked)
    assert (done.code, done.out) == (0, f"{out}/bars_ttft_ns_x-pim-lanes.png\n")
    assert [path.name for path in out.iterdir()] == ["bars_ttft_ns_x-pim-lanes.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--where", "pim.lanes"), "--where pim.lanes: should be KEY=VALUE"),
        (("--y", "token_per_s"), "no number that the sweep has (did you mean 'tokens_per_s'?)"),
        (("--kind", "line", "--x", "pim.lane"), "pim.lane: not swept (did you mean 'pim.lanes'?)"),
        (("--format", "pgn"), "no format 'pgn' (did you mean 'png'?); there are png, pdf, svg"),
    ],
)
def test_plot_that_cannot_be(
    swept: tuple[Run, Path], words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    done = run("plot", str(swept[1]), *words, "--out", str(tmp_path / "out"))
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert not (tmp_path / "out").exists()


def test_plot_needs_a_sweep(result: tuple[Run, Path], tmp_path: Path) -> None:
    done = run("plot", str(tmp_path))
    assert done == Run(2, "", f"{tmp_path}: no sweep: there is no sweep.json\n")
    folder = result[1]
    done = run("plot", str(folder))
    message = f"{folder}: a single run, no sweep; its figures are in {folder / 'figures'}\n"
    assert done == Run(2, "", message)


# --- failures -----------------------------------------------------------------------------------------------


def test_failure_is_one_line_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("pimloom.run.run", fail)
    done = run(*SMALL_RUN)
    assert done == Run(1, "", "pimloom failed: RuntimeError: two lines (--debug shows where)\n")
    with pytest.raises(RuntimeError, match="two"):
        cli.main([*SMALL_RUN, "--debug"])


def test_interrupt_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    # The trace's file is open by then, beside the place that it is to take.
    monkeypatch.setattr("pimloom.traces.io.table_of", interrupt)
    done = run("trace", *TINY_RUN, "--tokens", "0:1", "--out", str(tmp_path / "t.csv"))
    assert (done.code, done.out) == (130, "")
    monkeypatch.setattr("pimloom.reports.plots.Plots.save", interrupt)
    done = run("simulate", *TINY_RUN, "--out", str(tmp_path / "out"))
    assert (done.code, done.out) == (130, "")
    assert list(tmp_path.iterdir()) == []


def test_reader_that_has_gone_is_no_fault() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "pimloom", "show", "gpt2-small"]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_terminal_without_unicode() -> None:
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = process("simulate", *TINY_RUN, "--quiet", env=ascii_only)
    assert (done.returncode, done.stderr) == (0, "")
    assert "gpt2-tiny on pim-gpt" in done.stdout
