"""The command line on PIM devices and systems: kernels, programs of other tools, whole models, comparisons, proofs."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pimloom.arch.document import shipped
from pimloom.traces.stream import Kernel
from tests.small import DATA
from tests.test_cli import run

PIM = Path(__file__).parent / "data" / "pim"
SYSTEMS = ("gddr6-aim", "hbm2-pim", "newton", "attacc-bank", "attacc-bg", "attacc-buffer")
MODELS = ("gpt2-tiny", "gpt2-uneven", "llama-gqa")
SMALL = ("opt-125m", "-o", "model.layers=1", "-o", "model.vocab=97", "--generate", "2")
KERNEL_KEYS = {
    "device", "kernel", "shape", "channels", "rows_per_bank", "refresh", "cycles", "time_ns", "commands", "energy_pJ",
    "cycles_with_refresh",
}  # fmt: skip
COMPARED_KEYS = {
    "arch", "pim", "total_time_ns", "ttft_ns", "tpot_ns", "tokens_per_s", "energy_per_token_pJ", "energy_left_out",
    "pim_utilisation", "time_share",
}  # fmt: skip
CASE_KEYS = {"case", "reference_cycles", "cycles", "difference"}


def told(*words: str) -> Any:
    """What a command prints as JSON."""
    done = run(*words, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def refused(*words: str) -> str:
    """The one line that a command with bad input prints."""
    done = run(*words)
    assert (done.code, done.out) == (2, ""), done.err
    lines = [line for line in done.err.splitlines() if not line.startswith("compiling kernels")]
    assert len(lines) == 1
    return lines[0]


def measured(device: str, case: str) -> int:
    """Clocks of a case in the reference's results."""
    with (PIM / device / "results.csv").open(newline="", encoding="utf-8") as file:
        return next(int(row["cycles"]) for row in csv.DictReader(file) if row["case"] == case)


# --- kernels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "device", "shape"),
    [
        ("gemv", "gddr6-aim", "33x70"),
        ("gemv", "hbm2-pim", "33x70"),
        ("gemv", "newton", "33x70"),
        ("gemv", "attacc-bank", "33x70"),
        ("add", "gddr6-aim", "1031"),
        ("mul", "hbm2-pim", "1031"),
        ("relu", "hbm2-pim", "1031"),
        ("score", "newton", "6/2x17x13"),
        ("context", "gddr6-aim", "6/2x17x13"),
        ("attention", "attacc-bank", "3x64x13"),
        ("attention", "attacc-bg", "3x64x13"),
        ("attention", "attacc-buffer", "3x64x13"),
    ],
)
def test_kernel(kind: str, device: str, shape: str, tmp_path: Path) -> None:
    out = tmp_path / "commands.csv"
    result = told("kernel", kind, device, "--shape", shape, "--check", "--commands", str(out))
    assert set(result) == KERNEL_KEYS | {"largest_relative_error"}
    assert (result["device"], result["kernel"]) == (device, kind)
    assert result["largest_relative_error"] <= 1e-4
    total, per_channel = result["commands"]["total"], result["commands"]["per_channel"]
    assert total
    assert total == {name: sum(channel.get(name, 0) for channel in per_channel) for name in total}
    written = pd.read_csv(out)
    assert written.command.value_counts().to_dict() == total
    assert written.groupby("channel").size().to_dict() == {
        c: sum(counts.values()) for c, counts in enumerate(per_channel) if counts
    }
    assert written.cycle.is_monotonic_increasing
    assert 0 <= written.cycle.iloc[0] <= written.cycle.iloc[-1] <= result["cycles"]


def test_kernel_in_words(tmp_path: Path) -> None:
    out = tmp_path / "commands.parquet"
    words = ("kernel", "gemv", "gddr6-aim", "--shape", "33x70", "--channels", "2", "--check")
    done = run(*words, "--commands", str(out))
    assert done.code == 0, done.err
    result = told(*words)
    assert f"{result['cycles']:,}" in done.out
    assert "largest difference from NumPy" in done.out
    assert f"commands: {out}" in done.out
    assert len(pd.read_parquet(out)) == sum(result["commands"]["total"].values())


def test_fewer_channels_take_longer_and_overrides_count() -> None:
    words = ("kernel", "gemv", "gddr6-aim", "--shape", "640x640")
    whole, one = told(*words), told(*words, "--channels", "1")
    refreshed = told(*words, "--channels", "1", "-o", "dram.refresh.policy=all_bank")
    assert (whole["channels"], one["channels"]) == (32, 1)
    assert whole["cycles"] < one["cycles"] < refreshed["cycles"]
    assert (one["refresh"], refreshed["refresh"]) == ("none", "all_bank")
    assert refreshed["commands"]["total"]["REFab"] > 0


@pytest.mark.parametrize(
    ("device", "kind", "shape", "name"),
    [
        ("gddr6-aim", "gemv", "33x700", "program.csv"),
        ("gddr6-aim", "score", "6/2x17x13", "program.txt"),
        ("gddr6-aim", "context", "6/2x17x13", "program.csv.gz"),
        ("attacc-bank", "gemv", "33x700", "program.txt"),
        ("attacc-bank", "attention", "3x64x13", "program.csv"),
        ("attacc-bg", "attention", "3x64x13", "program.txt"),
    ],
)
def test_a_written_program_runs_the_same(
    device: str, kind: str, shape: str, name: str, tmp_path: Path
) -> None:
    program = tmp_path / name
    ours = told("kernel", kind, device, "--shape", shape, "--stream", str(program))
    again = told("trace", "run", str(program), device)
    for key in ("cycles", "time_ns", "commands", "energy_pJ", "refresh"):
        assert again[key] == ours[key], key


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("gemv", "newton", "--shape", "4"), "--shape 4: of gemv should be OUTPUTSxINPUTS"),
        (("gemv", "newton", "--shape", "0x4"), "every number should be between 1 and"),
        (("score", "newton", "--shape", "3/2x4x4"), "2 key-value heads do not divide 3 heads"),
        (("relu", "newton", "--shape", "5"), "newton has no relu; it has: gemv, score, context"),
        (("gemv", "newtn", "--shape", "5x5"), "no device description 'newtn' is shipped (did you mean 'newton'?)"),
        (("gemv", "pim-gpt", "--shape", "5x5"), "no device description 'pim-gpt' is shipped"),
        (("gemv", "./nowhere.yaml", "--shape", "5x5"), "no such file"),
        (("gemv", "newton", "--shape", "5x5", "--channels", "25"), "--channels 25: newton has 1 to 24"),
        (("gemv", "newton", "--shape", "5x5", "--channels", "0"), "--channels 0: newton has 1 to 24"),
        (("gemv", "newton", "--shape", "5x5", "-o", "unit.lane=3"), "did you mean"),
        (("gemv", "newton", "--shape", "5x5", "--stream", "{tmp}/x"), "no form of programs is known of newton devices"),
        (("gemv", "gddr6-aim", "--shape", "5x5", "--stream", "{tmp}/none/x"), "none/x: cannot be written"),
        (("gemv", "newton", "--shape", "5x5", "--commands", "{tmp}/x.txt"), "a trace is a file that ends in .csv"),
        (("block", "newton", "--shape", "opt-125m"), "of block should be MODEL:CONTEXT"),
        (("block", "newton", "--shape", "opt-125m:0"), "of block should be MODEL:CONTEXT"),
        (("block", "newton", "--shape", "opt-126m:7"), "no model description 'opt-126m' is shipped (did you mean"),
        (("block", "newton", "--shape", "opt-125m:2049"), "2049 positions, but opt-125m has 2048"),
        (("block", "newton", "--shape", "opt-125m:7", "--channels", "25"), "25, but a device has 24"),
        (("block", "newton", "--shape", "opt-125m:7", "--check"), "--check: a block is many kernels"),
    ],
)  # fmt: skip
def test_kernels_that_are_refused(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    assert message in refused("kernel", *(word.format(tmp=tmp_path) for word in words))


def test_block() -> None:
    words = ("kernel", "block", "gddr6-aim", "--shape")
    # 17 tokens are one access of a bank, as are all up to 512: 16 banks of 32 channels.
    short, long = told(*words, "llama2-7b:17"), told(*words, "llama2-7b:1700")
    assert (short["model"], short["arch"], short["pim"]) == ("llama2-7b", "gddr6-aim", True)
    assert short["total_time_ns"] < long["total_time_ns"] < 2 * short["total_time_ns"]
    assert sum(short["time_share"].values()) == pytest.approx(1)
    # Every weight is read once: 256 of them by one MAC16.
    weights = 4 * 4096**2 + 3 * 4096 * 11008
    assert weights / 256 < short["commands"]["total"]["MAC16"] < 1.05 * weights / 256
    channels = short["commands"]["per_channel"]
    assert sum(channel["MAC16"] for channel in channels) == short["commands"]["total"]["MAC16"]
    assert len(channels) == 32
    assert short["cycles"] == pytest.approx(short["time_ns"] * 2, abs=1)
    few = told(*words, "llama2-7b:17", "--channels", "8")
    assert len(few["commands"]["per_channel"]) == 8
    assert few["cycles"] > 3 * short["cycles"]


def test_block_in_words() -> None:
    done = run("kernel", "block", "newton", "--shape", "opt-125m:7")
    assert (done.code, "opt-125m on newton" in done.out) == (0, True), done.err


# --- programs of other tools --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "folder", "file", "case"),
    [
        ("gddr6-aim", "aim", "isr_gemv_c32_4096x4096", "gemv_c32_4096x4096"),
        ("gddr6-aim", "aim", "isr_att_qk_7B_c8_L512", "att_qk_7B_c8_L512"),
        ("gddr6-aim", "aim", "isr_att_av_7B_c8_L512", "att_av_7B_c8_L512"),
        ("gddr6-aim", "aim", "isr_ewmulio_c1_1024", "ewmulio_c1_1024"),
        ("attacc-bank", "attacc", "requests_gemv_bank_1024x1024", "gemv_bank_1024x1024_pc1"),
        ("attacc-bank", "attacc", "requests_att_bank_L128_nh32", "att_bank_L128_nh32_pc1"),
    ],
)
def test_a_program_of_the_reference(device: str, folder: str, file: str, case: str, tmp_path: Path) -> None:
    path, out = PIM / folder / f"{file}.csv.gz", tmp_path / "commands.csv"
    result = told("trace", "run", str(path), device, "--commands", str(out))
    assert result["cycles"] == measured(folder, case)
    assert result["stream"] == str(path)
    assert pd.read_csv(out).command.value_counts().to_dict() == result["commands"]["total"]
    plain = tmp_path / "plain.csv"
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    assert told("trace", "run", str(plain), device)["commands"] == result["commands"]


AIM_HEADER = "index,instruction,opsize,channel_or_mask,bank,row\n"
ATTACC_HEADER = "index,request,channel,pseudo_channel,rank,bankgroup,bank,row\n"


@pytest.mark.parametrize(
    ("device", "text", "message"),
    [
        ("gddr6-aim", "a,b\n", ":1:1: 'a,b'"),
        ("gddr6-aim", f"{AIM_HEADER}0,W_MEM,,0,0,0\n1,W_MEN,,0,0,0\n", ":3:3: "),
        ("gddr6-aim", f"{AIM_HEADER}0,W_MEM,,32,0,0\n", ":2:"),
        ("gddr6-aim", "AiM MAC_ABK 64 0xffffffff 0\nAiM MAC_ABC 64 0xffffffff 0\n", ":2:5: "),
        ("attacc-bank", "a,b\n", ":1:1: 'a,b'"),
        ("attacc-bank", "", ":1:1: no requests"),
        ("attacc-bank", f"{ATTACC_HEADER}0,MACAC,0,0,0,0,0,0\n", ":2:3: "),
        ("attacc-bank", f"{ATTACC_HEADER}0,MACAB,16,0,0,0,0,0\n", ":2:9: channel: 16, but there are 16"),
        ("attacc-bank", f"{ATTACC_HEADER}0,MACAB,0,0,0,0,0\n", ":2:1: 7 fields, but a request has 8"),
        ("attacc-bank", "PIM_MAC_AB 0x00000000\nPIM_MAC_AB x\n", ":2:12: "),
    ],
)
def test_programs_that_are_refused(device: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "program.csv"
    path.write_text(text)
    assert f"{path}{message}" in refused("trace", "run", str(path), device)


def test_where_no_program_can_run(tmp_path: Path) -> None:
    isr = str(PIM / "aim" / "isr_ewmulio_c1_1024.csv.gz")
    assert "did you mean 'newton'?" in refused("trace", "run", isr, "newtn")
    assert "no form of programs is known of newton devices" in refused("trace", "run", isr, "newton")
    assert "nowhere.csv: cannot be read" in refused(
        "trace", "run", str(tmp_path / "nowhere.csv"), "gddr6-aim"
    )
    done = run("trace", "run", isr, "gddr6-aim", "--commands", str(tmp_path / "x.txt"))
    assert (done.code, "a trace is a file that ends in .csv" in done.err) == (2, True)


# --- whole models -------------------------------------------------------------------------------------------


def test_simulate(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    done = run("simulate", *SMALL[:1], "newton", *SMALL[1:], "--out", str(out))
    assert done.code == 0, done.err
    assert "opt-125m on newton" in done.out
    assert str(out / "result.json") in done.out
    saved = json.loads((out / "result.json").read_text())
    result = told("simulate", *SMALL[:1], "newton", *SMALL[1:])
    assert {**saved, "simulator": None} == {**result, "simulator": None}
    again = told(
        "simulate", str(out / "model.resolved.yaml"), str(out / "config.resolved.yaml"), "--generate", "2"
    )
    assert {**again, "simulator": None} == {**result, "simulator": None}
    assert len(pd.read_parquet(out / "ops.parquet")) > 0


@pytest.mark.parametrize("system", SYSTEMS)
def test_twin_without_pim(system: str) -> None:
    words = ("simulate", SMALL[0], system, *SMALL[1:])
    pim, twin = told(*words), told(*words, "--no-pim")
    assert (pim["pim"], twin["pim"]) == (True, False)
    assert pim["commands"]
    assert twin["commands"] == {}
    assert twin["ordinary_accesses"] > pim["ordinary_accesses"]
    assert (pim["pim_utilisation"] > 0, twin["pim_utilisation"]) == (True, None)
    assert pim["total_time_ns"] < twin["total_time_ns"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("opt-125m", "newton", "--timeline", "0:1"), "--timeline: newton is a system of PIM devices"),
        (("opt-125m", "newton", "--engine", "naive"), "--engine: newton is a system of PIM devices"),
        (("gpt2-small", "pim-gpt", "--no-pim"), "--no-pim: pim-gpt has no host that could read its memory"),
        (("opt-125m", "newtn"), "(did you mean 'newton'?)"),
        (("opt-125m", "newton", "-o", "link.latncy_ns=3"), "(did you mean 'latency_ns'?)"),
        (("opt-125m", "newton", "-o", "partition.stages=5"), "5 stages of 1 x 24 channels take 5"),
        (("llama2-70b", "newton"), "llama2-70b does not fit newton: it takes"),
    ],
)
def test_simulations_that_are_refused(words: tuple[str, ...], message: str) -> None:
    assert message in refused("simulate", *words)


def test_compare(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("compare", SMALL[0], "newton, pim-gpt,gddr6-aim", *SMALL[1:])
    rows = told(*words, "--out", str(out))
    assert [(row["arch"], row["pim"]) for row in rows] == [
        ("newton", True), ("newton", False), ("pim-gpt", True), ("gddr6-aim", True), ("gddr6-aim", False),
    ]  # fmt: skip
    for row in rows:
        assert set(row) == COMPARED_KEYS
        assert sum(row["time_share"].values()) == pytest.approx(1)
    assert json.loads((out / "comparison.json").read_text()) == rows
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "comparison.pdf").read_bytes().startswith(b"%PDF")
    alone = told("simulate", SMALL[0], "newton", *SMALL[1:])
    assert rows[0]["total_time_ns"] == alone["total_time_ns"]


def test_compare_in_words() -> None:
    done = run("compare", SMALL[0], "newton", *SMALL[1:], "--no-twins")
    assert done.code == 0, done.err
    assert "newton" in done.out
    assert "no PIM" not in done.out


@pytest.mark.parametrize(
    ("archs", "message"),
    [
        ("newton,newtn", "no machine 'newtn' is shipped (did you mean 'newton'?)"),
        ("newton,", "no machine '' is shipped; there are:"),
        ("newton,./nowhere.yaml", "nowhere.yaml: cannot be read"),
    ],
)
def test_comparisons_that_are_refused(archs: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pimloom.system.simulate", lambda plan: pytest.fail("names come first"))
    assert message in refused("compare", SMALL[0], archs, *SMALL[1:])


# --- proofs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_models_on_systems(model: str, system: str) -> None:
    outcome = told("validate", str(DATA / model), system)
    assert outcome["passed"], outcome["first_mismatch"]
    assert outcome["tokens_equal"] == outcome["tokens_compared"] > 0
    assert 0 < outcome["max_relative_error"] <= 1e-4


@pytest.mark.parametrize("system", ["gddr6-aim", "hbm2-pim", "newton", "attacc-bank"])
def test_a_missing_instruction_is_found(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from pimloom import device_proof
    from pimloom.traces.stream import FIELDS

    execute = device_proof.execute

    def broken(device: Any, kernel: Kernel, *more: Any) -> Any:
        stream = kernel.stream
        macs = [i for i, c in enumerate(stream.commands) if device.dram.commands[c].meaning == "mac"]
        last = max(i for i, c in enumerate(stream.command.tolist()) if c in macs)
        kept = [i for i in range(len(stream)) if i != last]
        left = replace(stream, **{name: getattr(stream, name)[kept] for name in ("channels", *FIELDS)})
        return execute(device, replace(kernel, stream=left), *more)

    monkeypatch.setattr(device_proof, "execute", broken)
    done = run("validate", str(DATA / "llama-gqa"), system)
    assert done.code == 3
    assert "FAILED" in done.out
    assert done.err.startswith("first mismatch: ")
    assert " at position 0" in done.err or "position 0: " in done.err


def test_a_program_that_cannot_be_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from pimloom import device_proof
    from pimloom.sim.functional import FunctionalError

    def broken(*_: Any) -> Any:
        raise FunctionalError("no such row")

    monkeypatch.setattr(device_proof, "execute", broken)
    done = run("validate", str(DATA / "gpt2-tiny"), "newton", "--json")
    outcome = json.loads(done.out)
    assert (done.code, outcome["passed"], outcome["first_mismatch"]) == (3, False, "position 0: no such row")
    assert (outcome["positions_compared"], outcome["max_relative_error"]) == (0, None)


# --- beside the devices' own simulators ---------------------------------------------------------------------

FIRST = {
    "aim": ("gemv_c1_1024x1024", "att_qk_7B_c8_L512", "ewmulio_c1_1024"),
    "attacc": ("gemv_bank_1024x1024_pc1", "att_bank_L128_nh16_pc1"),
    "hbm-pim": ("gemv_ch64_1024x1024",),
}
TABLES = {"aim": "aim", "attacc": "attacc", "hbm-pim": "hbm_pim"}


def table(device: str, folder: Path) -> Path:
    """Some cases of a shipped table."""
    from pimloom.configs import folder as shipped_folder

    lines = (shipped_folder("published") / f"{TABLES[device]}.csv").read_text().splitlines()
    chosen = [line for line in lines[1:] if line.split(",")[0] in FIRST[device]]
    assert len(chosen) == len(FIRST[device])
    path = folder / "cases.csv"
    path.write_text("\n".join([lines[0], *chosen]) + "\n")
    return path


@pytest.mark.parametrize("device", FIRST)
def test_reproduce(device: str, tmp_path: Path) -> None:
    path = table(device, tmp_path)
    rows = told("reproduce", device, "--cases", str(path))
    assert [row["case"] for row in rows] == list(FIRST[device])
    for row in rows:
        assert CASE_KEYS <= set(row) <= CASE_KEYS | {"cycles_refreshed"}
        assert row["difference"] == row["cycles"] / row["reference_cycles"] - 1
        if device == "hbm-pim":
            assert abs(row["difference"]) <= 0.1
        else:
            assert row["cycles"] == row["reference_cycles"]
    if device == "aim":
        assert all(row["cycles_refreshed"] >= row["cycles"] for row in rows)
    done = run("reproduce", device, "--cases", str(path), "--write-docs", str(tmp_path))
    equal = 0 if device == "hbm-pim" else len(rows)
    assert (done.code, f"{equal} of {len(rows)} equal to the clock" in done.out) == (0, True)
    assert f"<!-- end of {device} -->" in (tmp_path / "validation.md").read_text()


def test_reproduce_cent(tmp_path: Path) -> None:
    from pimloom.configs import folder

    lines = (folder("published") / "cent_end_to_end.csv").read_text().splitlines()
    path = tmp_path / "cases.csv"
    path.write_text("\n".join([lines[0], lines[1], lines[3]]) + "\n")
    rows = told("reproduce", "cent", "--cases", str(path))
    assert [row["case"] for row in rows] == ["Llama2-7B_d8_tp1_L128", "Llama2-7B_d8_tp8_L1024"]
    for row in rows:
        assert set(row) >= CASE_KEYS
        for name in ("token_latency_ms", "throughput_tokens_per_s", "energy_per_token_mJ"):
            assert abs(row[name]["difference"]) <= 0.005
    assert "token latency ms" in run("reproduce", "cent", "--cases", str(path)).out


@pytest.mark.parametrize(
    ("device", "old", "new", "message"),
    [
        ("aim", "gemv_c1_1024x1024,gemv,1", "gemv_c1_1024x1024,gemw,1", ":2:2: kind: should be one of gemv"),
        ("aim", ",1024,1024,reuse", ",0,1024,reuse", ":2:5: out_dim: should be a whole number from 1"),
        ("aim", ",cycles", ",clocks", ":1:1: columns missing: cycles"),
        ("aim", "7B,512,,14464", "7C,512,,14464", ":3:8: model: should be one of 7B, 13B, 70B, not '7C'"),
        ("aim", "gemv_c1_1024x1024,gemv,1,", "gemv_c1_1024x1024,gemv,33,", ":2:1: "),
        ("attacc", "1024_pc1,gemv (own request stream),bank", "1024_pc1,gemv,bink", ":2:3: level: should be"),
        ("hbm-pim", "1024,,1,", "1024,,1,1,", ":2:1: 10 values, the header has 9"),
    ],
)
def test_tables_that_are_refused(device: str, old: str, new: str, message: str, tmp_path: Path) -> None:
    path = table(device, tmp_path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert f"{path}{message}" in refused("reproduce", device, "--cases", str(path))


def test_reproductions_that_are_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "cases.csv")
    assert "No such file" in refused("reproduce", "aim", "--cases", path)
    assert "pim-gpt has no table of cases" in refused("reproduce", "pim-gpt", "--cases", path)
    assert "is not a folder" in refused("reproduce", "aim", "--write-docs", path)
    assert run("reproduce", "aym").code == 2


# --- descriptions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["system", "device", "host"])
def test_descriptions(kind: str, tmp_path: Path) -> None:
    from pimloom.configs import folder

    listed = run("list", f"{kind}s")
    assert listed.code == 0, listed.err
    assert {line.split()[0] for line in listed.out.splitlines()} == set(shipped(kind))
    for name in shipped(kind):
        of_package, own = folder(kind) / f"{name}.yaml", tmp_path / f"{name}.yaml"
        text = run("show", str(of_package)).out
        assert f"kind: {kind}\n" in text
        own.write_text(text)
        assert run("check", str(own), str(of_package)).code == 0
        assert run("diff", str(own), str(of_package)) == (0, "equal\n", "")
        own.write_text(text.replace("version: 1", "version: 1\nnmae: x", 1))
        assert refused("check", str(own)) == (f"{own}:3:1: nmae: unknown key (did you mean 'name'?)")


def test_systems_differ_down_to_their_devices() -> None:
    done = run("diff", "attacc-bank", "attacc-bg")
    assert done.code == 3
    assert "device.unit.banks_per_unit: " in done.out
