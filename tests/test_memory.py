"""Runs of request traces: equal to the reference simulators over whole runs, whatever way the requests come."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pimloom.arch.document import shipped
from pimloom.arch.dram import load_dram
from pimloom.arch.memory import load_memory
from pimloom.arch.tree import InputError
from pimloom.memory import run_requests
from pimloom.sim.controller import StuckError
from pimloom.traces import check, io
from pimloom.traces.requests import Requests, stream
from tests.dram_cases import CASES, NAMES, case, summary

FEW = 600


def requests_of(path: Path) -> Requests:
    return Requests(*(np.concatenate(column) for column in zip(*stream(path), strict=True)))


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_whole_runs_equal_the_reference(case: Path) -> None:
    """Every command of the run by its checksum, and every counter; energy to 1e-6."""
    memory, _ = load_memory(str(case / "config.yaml"))
    result, wanted = run_requests(memory, case / "requests.txt.gz"), summary(case)
    stats = wanted["stats"]
    assert result["trace_crc32"] == wanted["command_trace"]["checkpoints"][-1]["crc32"]
    assert result["commands"] == wanted["commands"]
    assert result["commands_total"] == wanted["command_trace"]["total_commands"]
    assert (result["cycles"], result["reads"], result["writes"]) == (
        wanted["cycles_simulated"], wanted["reads"], wanted["writes"],
    )  # fmt: skip
    assert result["read_latency_sum_cycles"] == wanted["read_latency_sum_cycles"]
    assert result["read_latency_max_cycles"] == wanted["read_latency_max_cycles"]
    assert result["read_latency_mean_cycles"] == pytest.approx(wanted["read_latency_mean_cycles"], abs=1e-6)
    assert result["bandwidth_GBps"] == pytest.approx(wanted["bandwidth_GBps"], abs=2e-6)
    if wanted["energy"] is None:
        names = (
            "row_hits",
            "row_misses",
            "row_conflicts",
            "num_read_reqs_forwarded",
            "num_write_reqs_coalesced",
        )
        ours = ("row_hits", "row_misses", "row_conflicts", "reads_forwarded", "writes_coalesced")
        assert [result[name] for name in ours] == [stats[name] for name in names]
        assert result["energy"] is None
    else:
        assert result["row_hits"] == stats["num_read_row_hits"] + stats["num_write_row_hits"]
        assert result["row_conflicts"] == stats["num_ondemand_pres"]
        check_energy(result, wanted["energy"], memory.dram.clock_Hz)


def check_energy(result: dict[str, Any], wanted: dict[str, Any], clock_Hz: int) -> None:
    assert result["rank_active_cycles"] == list(wanted["rank_active_cycles"].values())
    for name, value in result["energy"].items():
        if name == "average_power_mW":
            assert value == pytest.approx(wanted[name], rel=1e-6)
        else:
            theirs = wanted[name.removesuffix("_pJ")] * 1e9 / clock_Hz
            assert value == pytest.approx(theirs, rel=1e-6), name


def test_a_run_does_not_depend_on_how_its_requests_come() -> None:
    here = case("hbm3_6400/random")
    memory, _ = load_memory(str(here / "config.yaml"))
    whole = requests_of(here / "requests.txt.gz")
    few = Requests(*(column[:FEW] for column in whole))
    pieces = [Requests(*(column[a : a + 7] for column in few)) for a in range(0, FEW, 7)]
    nothing = Requests(*(column[:0] for column in few))
    result = run_requests(memory, [few])
    assert result["requests"] == FEW
    assert run_requests(memory, [nothing, *pieces, nothing]) == result


def test_files_of_commands(tmp_path: Path) -> None:
    here = case("ramulator2/ddr4_3200")
    memory, _ = load_memory(str(here / "config.yaml"))
    whole = requests_of(here / "requests.txt.gz")
    few = Requests(*(column[:FEW] for column in whole))
    paths = [tmp_path / f"commands{extension}" for extension in (".csv", ".csv.gz", ".parquet")]
    results = [run_requests(memory, [few], path) for path in paths]
    assert results[0] == results[1] == results[2] == run_requests(memory, [few])
    traces = [io.read(path, memory.dram) for path in paths]
    for field in io.FIELDS:
        columns = [getattr(trace, field) for trace in traces]
        assert (columns[0] == columns[1]).all()
        assert (columns[0] == columns[2]).all()
    header, rows = paths[0].read_bytes().split(b"\n", 1)
    assert header.decode() == io.HEADER
    assert f"{zlib.crc32(rows):08x}" == results[0]["trace_crc32"]
    assert not check.check(memory.dram, memory.dram.symbols({}), traces[0], rows_may_stay_open=True)

    for n in (0, 1, 100, 10**6):
        limited = run_requests(memory, [few], tmp_path / "limited.csv", max_commands=n)
        assert limited == results[0]
        kept = (tmp_path / "limited.csv").read_bytes().split(b"\n", 1)[1]
        assert kept == b"".join(rows.splitlines(keepends=True)[:n])
    run_requests(memory, [few], tmp_path / "limited.parquet", max_commands=5)
    assert len(io.read(tmp_path / "limited.parquet", memory.dram)) == 5


def test_nothing_to_do(tmp_path: Path) -> None:
    for name, controller in (
        ("ddr4_3200", "ramulator2"),
        ("ddr4_3200", "dramsim3"),
        ("lpddr5_6400", "ramulator2"),
    ):
        result = run_requests(load_memory(name, (), controller)[0], [], tmp_path / "none.csv")
        assert (result["requests"], result["commands"]) == (0, {})
        assert result["trace_crc32"] == "00000000"
        assert (tmp_path / "none.csv").read_text() == f"{io.HEADER}\n"
        assert result["read_latency_mean_cycles"] is None
        assert result["row_hit_share"] is None


def test_addresses_beyond_the_memory(tmp_path: Path) -> None:
    memory, _ = load_memory("lpddr4_2400")
    path = tmp_path / "requests.txt"
    path.write_text(f"cycle,op,address\n0,R,0x40\n0,R,{memory.capacity_B + 64:#x}\n")
    with pytest.raises(InputError, match=r"requests.txt:3:5: address 0x\w+ is beyond .*--wrap"):
        run_requests(memory, path)
    wrapped = run_requests(memory, path, wrap=True)
    path.write_text("cycle,op,address\n0,R,0x40\n0,R,0x40\n")
    assert wrapped == run_requests(memory, path)
    with pytest.raises(InputError, match="request 2: address"):
        run_requests(memory, [Requests(*np.array([[0, 0], [0, 0], [0, memory.capacity_B]]))])


def test_a_run_that_cannot_end_says_so() -> None:
    """The live-lock of README 5.7: a full write queue whose first write conflicts with a waiting read."""
    memory, _ = load_memory("ddr4_2400", (), "dramsim3")
    access, n = memory.dram.access_B, 4000
    read = np.arange(n) % 2
    # Writes follow reads of the same addresses closely, all in the rows of one bank.
    row_B = access * memory.dram.columns * memory.dram.banks
    address = np.arange(n) // 2 % 200 * row_B
    pattern = Requests(np.zeros(n, np.int64), read, address)
    with pytest.raises(StuckError, match="nothing but refreshes"):
        run_requests(memory, [pattern])


PLAIN = [name for name in shipped("dram") if not load_dram(name)[0].is_pim]


@pytest.mark.parametrize("controller", ["ramulator2", "dramsim3"])
@pytest.mark.parametrize("name", PLAIN)
def test_commands_obey_the_standard(name: str, controller: str, tmp_path: Path) -> None:
    """Both controllers on every standard, every refresh policy and page policy: not one rule is broken."""
    ran = 0
    for policy in ("all_bank", "per_bank", "per_bank_set", "none"):
        for page in ("open", "closed"):
            try:
                overrides = [f"dram.refresh.policy={policy}", f"controller.page={page}"]
                memory, _ = load_memory(name, overrides, controller)
            except InputError:
                continue
            ran += 1
            path = tmp_path / "commands.parquet"
            run_requests(
                memory, [mixed(memory.capacity_B // memory.dram.access_B, memory.dram.access_B)], path
            )
            trace = io.read(path, memory.dram)
            found = check.check(
                memory.dram, memory.dram.symbols({}), trace, channels={0}, rows_may_stay_open=True
            )
            assert not found, (policy, page, str(found[0]))
    split = name.startswith(("lpddr5", "hbm3"))
    assert ran >= (0 if controller == "dramsim3" and split else 4)


def test_two_ranks_share_one_data_clock(tmp_path: Path) -> None:
    overrides = ["dram.ranks=2", "dram.channel_capacity_B=4294967296"]
    memory, _ = load_memory("lpddr5_6400", overrides)
    path = tmp_path / "commands.parquet"
    run_requests(memory, [mixed(memory.capacity_B // 32, 32)], path)
    trace = io.read(path, memory.dram)
    assert set(trace.rank.tolist()) == {0, 1}
    assert not check.check(memory.dram, memory.dram.symbols({}), trace, rows_may_stay_open=True)


def test_commands_to_all_of_the_only_stack_id(tmp_path: Path) -> None:
    """A memory whose rules speak of stack IDs has that level, even if there is one."""
    here = case("hbm3_6400/random")
    text = (
        (here / "config.yaml")
        .read_text()
        .replace("stack_ids: 2", "stack_ids: 1")
        .replace("[stack_id, 1], ", "")
    )
    (tmp_path / "config.yaml").write_text(text)
    memory, _ = load_memory(str(tmp_path / "config.yaml"))
    path = tmp_path / "commands.csv"
    far = Requests(*np.array([[0, 100_000], [0, 0], [0, 64]]))
    run_requests(memory, [far], path)
    assert ",PREab,0,0,-1,-1,-1,-1,-1" in path.read_text()
    trace = io.read(path, memory.dram)
    assert not check.check(memory.dram, memory.dram.symbols({}), trace, rows_may_stay_open=True)


def test_requests_that_are_answered_by_others_use_no_pins() -> None:
    memory, _ = load_memory("ddr4_3200")
    n = 3000
    hot = Requests(np.zeros(n, np.int64), np.arange(n) % 2, np.arange(n) // 2 % 16 * 64)
    result = run_requests(memory, [hot])
    assert result["reads_forwarded"] + result["writes_coalesced"] > 0
    accesses = result["commands"].get("RD", 0) + result["commands"].get("WR", 0)
    assert result["bandwidth_pins_GBps"] == pytest.approx(accesses * 64 / result["busy_time_ns"])
    assert result["bandwidth_share"] <= 1


def mixed(accesses: int, access_B: int) -> Requests:
    """Random, hot and streaming requests, some of them sparse; writes in one half, reads in the other."""
    rng = np.random.Generator(np.random.PCG64(3))
    n = 1500
    write = (rng.random(3 * n) < 0.35).astype(np.int64)
    address = np.concatenate(
        [rng.integers(0, accesses // 2, n), rng.integers(0, 64, n) * 977, 4096 + np.arange(n)]
    )
    address = (address % (accesses // 2) + write * (accesses // 2)) * access_B
    cycle = np.concatenate([np.zeros(2 * n, np.int64), 20_000 + np.cumsum(rng.integers(0, 40, n))])
    return Requests(cycle, write, address)
