"""The commands about plain memories, as a user types them: dram, check-trace, export-trace, datasheet, explain."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.dram_cases import case, summary
from tests.test_cli import run

ROOT = Path(__file__).resolve().parent.parent
CASE = case("lpddr5_6400/stream")
CONFIG, REQUESTS = str(CASE / "config.yaml"), str(CASE / "requests.txt.gz")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first requests of the case."""
    path = tmp_path_factory.mktemp("requests") / "small.txt"
    with gzip.open(REQUESTS, "rt") as file:
        path.write_text("".join(line for _, line in zip(range(400), file, strict=False)))
    return path


def figures(*words: str) -> dict[str, Any]:
    """The result of a run, without what differs from one to the next."""
    done = run(*words, "--json")
    assert done.code == 0, done.err
    result: dict[str, Any] = json.loads(done.out)
    assert result.pop("simulator")["requests_per_s"] > 0
    return result


def test_a_reference_case(tmp_path: Path) -> None:
    out = tmp_path / "commands.csv"
    done = run("dram", CONFIG, REQUESTS, "--json", "--commands", str(out), "--max-commands", "50")
    assert done.code == 0, done.err
    result, wanted = json.loads(done.out), summary(CASE)
    assert result["cycles"] == wanted["cycles_simulated"]
    assert result["commands"] == wanted["commands"]
    assert result["trace_crc32"] == wanted["command_trace"]["checkpoints"][-1]["crc32"]
    assert len(out.read_text().splitlines()) == 51
    checked = run("check-trace", CONFIG, str(out), "--partial")
    assert (checked.code, "50 commands checked against LPDDR5: 0 violations" in checked.out) == (0, True)


@pytest.mark.parametrize("form", ["dramsim3", "load_store", "ramulator1"])
def test_every_form_of_requests(form: str, tmp_path: Path, small: Path) -> None:
    rows = [line.split(",") for line in small.read_text().splitlines()[1:]]
    path = tmp_path / "requests.txt"
    words = {
        "dramsim3": lambda c, o, a: f"{a} {'READ' if o == 'R' else 'WRITE'} {c}",
        "load_store": lambda c, o, a: f"{'LD' if o == 'R' else 'ST'} {a}",
        "ramulator1": lambda c, o, a: f"{a} {o}",
    }[form]
    path.write_text("".join(f"{words(*row)}\n" for row in rows))
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    first, second, third = (figures("dram", "ddr4_2400", str(p)) for p in (small, path, packed))
    assert first == second == third


def test_what_a_run_prints(small: Path) -> None:
    done = run("dram", "ddr4_2400", str(small), "--controller", "dramsim3", "-o", "controller.page=closed")
    assert done.code == 0, done.err
    assert "ddr4_2400: one channel of ddr4_2400, round_robin, closed page" in done.out
    assert "GB/s of 19.2 GB/s" in done.out
    assert "uJ" in done.out


def test_both_kinds_of_memory_are_checked_and_shown(tmp_path: Path, small: Path) -> None:
    out = str(tmp_path / "commands.parquet")
    for name in ("lpddr4_2400", "dramsim3"):
        assert run("dram", name, str(small), "--commands", out, "--wrap").code == 0
        assert run("check-trace", name, out).code == 0
    # The rows of one memory break the rules of another.
    slow = run("check-trace", "dramsim3", out, "-o", "dram.timing.nRCD=40", "--json")
    assert slow.code == 3
    assert not json.loads(slow.out)["passed"]
    shown = run("show", CONFIG)
    assert "kind: memory" in shown.out
    own = tmp_path / "own.yaml"
    own.write_text(shown.out)
    assert figures("dram", str(own), str(small)) == figures("dram", CONFIG, str(small))
    assert run("check", str(own), CONFIG, "hbm3_6400", "ramulator2").code == 0
    assert "dramsim3" in run("list", "memories").out


def test_export(tmp_path: Path, small: Path) -> None:
    commands, power, recorded = (tmp_path / name for name in ("commands.csv", "power.csv", "recorded.csv"))
    assert run("dram", "ddr4_3200", str(small), "--commands", str(commands)).code == 0
    assert run("export-trace", "ddr4_3200", str(commands), str(power), "--form", "drampower").code == 0
    assert power.read_text().splitlines()[-1].split(",")[1] == "END"
    assert run("export-trace", "ddr4_3200", str(commands), str(recorded), "--form", "ramulator2").code == 0
    assert recorded.read_text().startswith("clock,command,Channel,Rank,")
    assert len(recorded.read_text().splitlines()) == len(commands.read_text().splitlines())
    words = ("export-trace", "ddr4_3200", str(commands), str(power), "--form", "drampower")
    refused = run(*words, "-o", "standard=HBM2")
    assert (refused.code, "DRAMPower 6 knows DDR4" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ddr4_3201", "{small}"), "no memory 'ddr4_3201' is shipped (did you mean 'ddr4_3200'?)"),
        (("ddr4_3200", "nowhere.txt"), "nowhere.txt"),
        (("pim-gpt", "{small}"), "no memory"),
        (("ddr4_3200", "{small}", "--controller", "dramsim4"), "(did you mean 'dramsim3'?)"),
        (("ddr4_3200", "{small}", "-o", "timing.nCL=3"), "there is no 'timing' to override"),
        (("ddr4_3200", "{small}", "--commands", "out.txt"), "a trace is a file that ends in .csv"),
        (("ddr4_3200", "{small}", "--max-commands", "-1"), "max-commands"),
        (("ddr4_3200", "{bad}"), "bad.txt:3:3: op: unknown 'X', but should be R or W"),
    ],
)
def test_what_is_refused(words: tuple[str, ...], message: str, small: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_text("cycle,op,address\n0,R,0x40\n0,X,0x80\n")
    done = run("dram", *(word.format(small=small, bad=bad) for word in words))
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


def test_a_run_that_cannot_end_fails(tmp_path: Path) -> None:
    path = tmp_path / "requests.txt"
    rows = (f"{'ST' if i % 2 else 'LD'} {i // 2 % 200 * 2**17:#x}" for i in range(2000))
    path.write_text("\n".join(rows))
    done = run("dram", "ddr4_2400", str(path), "--controller", "dramsim3")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"{path}: at clock ")


def test_datasheets(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("extends: ddr4_2400\nkind: dram\nversion: 1\nname: a/b\ntiming: {nRP: 20, nRC: 59}\n")
    done = run("datasheet", str(own), "hbm3_6400", "--out", str(tmp_path / "pages"))
    assert done.code == 0, done.err
    names = sorted(path.name for path in (tmp_path / "pages").iterdir())
    assert names == ["hbm3_6400.md", "hbm3_6400.svg", "own.md", "own.svg"]
    assert "| `nRP` | 20 |" in (tmp_path / "pages" / "own.md").read_text()


def test_the_datasheets_in_the_docs_are_current(tmp_path: Path) -> None:
    assert run("datasheet", "--out", str(tmp_path)).code == 0
    written = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    for path in written:
        committed = ROOT / "docs" / path
        assert committed.read_bytes() == (tmp_path / path).read_bytes(), (
            f"{committed}: run pimloom datasheet --out docs"
        )
    folders = [ROOT / "docs" / name for name in ("standards", "devices")]
    in_docs = {path.relative_to(ROOT / "docs") for folder in folders for path in folder.iterdir()}
    assert written == {Path("standards.md"), *in_docs}


def test_datasheet_of_a_device(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("extends: newton\nkind: device\nversion: 1\nname: own\nunit: {buffer_accesses: 16}\n")
    done = run("datasheet", str(own), "--out", str(tmp_path / "pages"))
    assert done.code == 0, done.err
    names = sorted(path.name for path in (tmp_path / "pages").iterdir())
    assert names == ["own-broadcast.svg", "own-padding.svg", "own-tail.svg", "own.md"]
    assert "| buffer_accesses | 16 |" in (tmp_path / "pages" / "own.md").read_text()


def test_keys_are_explained() -> None:
    assert "dram.row_hits: " in run("explain", "dram.row_hits").out
    assert "dram.bandwidth_GBps (GB/s)" in run("explain", "dram").out
