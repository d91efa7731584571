"""HBM-PIM: the measured points, what the streams compute, and the modes of the device."""

import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pimloom.arch.device import Device, load_device
from pimloom.arch.tree import InputError
from pimloom.mapping.devices import lower
from pimloom.mapping.devices.hbm_pim import measured
from pimloom.sim.bench import Issued, channels
from pimloom.traces.check import check
from pimloom.traces.io import from_log
from pimloom.traces.stream import Attention, Elementwise, Gemv, Kernel, Site, Work
from tests.mapping.devices.naive_hbm import Twin

MEASURED = Path(__file__).parents[2] / "data/pim/hbm/measured.csv"
"""From the results of Samsung's public simulator: cycles of whole kernels, and commands of one channel by kind."""
POINTS = list(csv.DictReader(MEASURED.open(encoding="utf-8")))
SAME_COMMANDS = {
    "MAC": ["rd_mac"],
    "WR_GRF": ["wr_grf_input"],
    "STORE": ["wr_grfb_to_bank", "wr_grf_to_bank"],
    "FILL": ["rd_bank_to_grf", "rd_reset_grfb"],
    "ADD": ["rd_alu"],
    "WR_CRF": ["wr_crf"],
    "MRS_PIM": ["wr_pim_mode"],
    "MRS_AB": ["wr_sb_to_hab"],
    "MRS_SB": ["wr_hab_to_sb"],
    "PARK": ["rd_park"],
}


def device(*overrides: str) -> Device:
    return load_device("hbm2-pim", overrides)[0]


def small(channels: int = 1, *overrides: str) -> Device:
    """A device of one rank without refresh."""
    return device(
        f"dram.channels={channels}", "dram.ranks=1", "dram.channel_capacity_B=268435456",
        "dram.refresh.policy=none", *overrides,
    )  # fmt: skip


def run(device: Device, work: Work, site: Site | None = None, log: bool = False) -> Issued:
    kernel = lower(device, work, site or Site(device.dram.channels))
    return channels(device).run(kernel.stream, 0, log)


def counts(device: Device, issued: Issued, channel: int = 0) -> dict[str, int]:
    return dict(zip(device.dram.commands, map(int, issued.counts[channel]), strict=True))


# --- the measured points -----------------------------------------------------------------------------------


@pytest.mark.parametrize("point", POINTS, ids=[point["case"] for point in POINTS])
def test_measured_point(point: dict[str, str]) -> None:
    overrides, work, site = measured(point)
    machine = device(*overrides)
    issued = run(machine, work, site)
    # In add and mul of 2,097,152 values a refresh is due 76 clocks before the measured end, and delays only ours.
    bound = 0.09 if point["elements"] == "2097152" else 0.04
    assert issued.cycles == pytest.approx(int(point["cycles"]), rel=bound)
    ours = counts(machine, issued, site.channels - 1)
    ours["ADD"] += ours["MUL"]
    ours["FILL"] += ours["FILL_RELU"]
    assert {name: ours[name] for name in SAME_COMMANDS} == {
        name: sum(int(point[column]) for column in columns) for name, columns in SAME_COMMANDS.items()
    }
    assert abs(ours["REFab"] - int(point["REF"])) <= 0.02 * ours["REFab"] + 1


@pytest.mark.parametrize(("kind", "measured_clocks"), [("add", 322), ("mul", 322), ("relu", 204)])
def test_time_of_an_element_wise_tile(kind: str, measured_clocks: int) -> None:
    """A tile more costs what the timings say, for each of two banks; the measured points have nRTP 2 lower."""
    machine = small()
    n = machine.dram.timing
    group = 7 * n["nCCD_L"]
    to_read, to_write = (n["nRTP"] + n["nRP"] + n[name] for name in ("nRCDRD", "nRCDWR"))
    reads = [to_read] if kind != "relu" else []
    bank = (len(reads) + 2) * group + sum(reads) + to_write + n["nCWL"] + machine.dram.nBL + n["nWTR_L"]
    clocks = [run(machine, Elementwise(kind, 2048 * tiles)).cycles for tiles in (2, 3, 4, 5)]
    assert set(np.diff(clocks)) == {2 * bank}
    assert 2 * bank - 2 * 2 * (len(reads) + 1) == measured_clocks


def test_time_of_two_blocks() -> None:
    """Two blocks more, one of either bank, cost what the timings say; the measured points have nRTP 2 lower."""
    machine = small()
    n, nBL = machine.dram.timing, machine.dram.nBL
    macs, inputs = 2 * 31 * n["nCCD_L"] + n["nRTP"] + n["nRP"] + n["nRCDRD"], 7 * n["nCCD_L"]
    odd = n["nCWL"] + nBL + n["nWTR_L"] + macs + n["nCL"] + nBL + n["nRTRS"] - n["nCWL"]
    even = n["nCWL"] + nBL + n["nWR"] + n["nRP"] + n["nRCDRD"] + macs + n["nRTP"] + n["nRP"] + n["nRCDWR"]
    for first in (2, 3):
        clocks = [run(machine, Gemv(64, 128 * blocks)).cycles for blocks in (first, first + 2, first + 4)]
        assert list(np.diff(clocks)) == [odd + even + 2 * inputs] * 2
    assert odd + even + 2 * inputs - 3 * 2 == 729


# --- what the streams compute ------------------------------------------------------------------------------


class Machine:
    """Banks and registers of a device, in the plainest way: one access after the other, in float64."""

    def __init__(self, device: Device, kernel: Kernel, operands: dict[str, Any], vector: Any) -> None:
        self.device, self.kernel = device, kernel
        self.cells: dict[tuple[int, ...], Any] = defaultdict(lambda: np.full(16, np.nan))
        self.grf = np.full((device.dram.channels, 8, 16, 16), np.nan)
        self.open: dict[tuple[int, int], int] = {}
        for name, places in kernel.stored().items():
            assert places.channel.shape == operands[name].shape
            for channel, bank, row, column, lane, value in zip(
                *(field.ravel() for field in places), operands[name].ravel(), strict=True
            ):
                self.cells.setdefault((channel, bank, row, column), np.zeros(16))[lane] = value
        flat = np.append(vector.ravel(), 0.0)
        self.sent = [iter(flat[positions]) for positions in kernel.feed()]

    def execute(self) -> Any:
        stream = self.kernel.stream
        for i in range(len(stream)):
            if stream.command[i] < 0:
                continue
            name = stream.commands[stream.command[i]]
            for channel in range(self.device.dram.channels):
                if stream.channels[i] >> np.uint64(channel) & np.uint64(1):
                    for k in range(stream.times[i]):
                        self.one(
                            name, channel, int(stream.node[i]), int(stream.row[i]),
                            int(stream.column[i] + k), int(stream.operand[i] + k),
                        )  # fmt: skip
        assert not self.open
        assert all(next(sent, None) is None for sent in self.sent)
        assert all(len(positions) == 0 for positions in self.kernel.drain())
        assert self.kernel.left is not None
        left = self.kernel.left()
        values = [
            self.cells[at][lane]
            for *at, lane in zip(*(f.ravel() for f in left), strict=True)
            for at in [tuple(at)]
        ]
        return np.reshape(values, left.channel.shape).sum(axis=1)

    def one(self, name: str, channel: int, node: int, row: int, column: int, operand: int) -> None:
        if name == "PREab":
            self.open = {key: r for key, r in self.open.items() if key[0] != channel}
        elif name.startswith("PRE"):
            self.open.pop((channel, node), None)
        elif name.startswith("ACT"):
            assert (channel, node) not in self.open
            self.open[channel, node] = row
        else:
            self.open[channel, node] = row
            if name == "MRS_PIM" and operand == 1:
                self.grf[channel, :, 8:] = 0
            elif name == "WR":
                self.cells[channel, node, row, column] = next(self.sent[channel])
            elif name == "WR_GRF":
                self.grf[channel, :, operand] = next(self.sent[channel])
            else:
                for unit in range(8):
                    self.compute(
                        name, self.grf[channel, unit], (channel, 2 * unit + node, row, column), operand
                    )

    def compute(self, name: str, grf: Any, at: tuple[int, ...], operand: int) -> None:
        if name == "MAC":
            # What lies beside the operands in the banks must not count.
            grf[8 + operand // 8] += grf[operand % 8] * np.nan_to_num(self.cells[at])
        elif name == "FILL":
            grf[operand] = self.cells[at]
        elif name == "FILL_RELU":
            grf[operand] = np.maximum(self.cells[at], 0)
        elif name == "ADD":
            grf[operand] += self.cells[at]
        elif name == "MUL":
            grf[operand] *= self.cells[at]
        elif name == "STORE":
            self.cells[at] = grf[operand].copy()


def numbers(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).integers(-8, 9, shape).astype(float)


@pytest.mark.parametrize("tree", [0, 1])
@pytest.mark.parametrize(
    ("channels", "outputs", "inputs", "batch"),
    [
        (1, 1, 1, 1), (1, 64, 128, 1), (1, 63, 127, 2), (1, 65, 129, 1), (2, 129, 257, 1), (3, 131, 640, 5),
        (2, 64, 384, 1), (1, 311, 101, 1), (1, 10, 1200, 2),
    ],
)  # fmt: skip
def test_gemv_computes_the_product(channels: int, outputs: int, inputs: int, batch: int, tree: int) -> None:
    machine = small(channels, f"options.tree={tree}")
    matrix, vector = numbers(outputs, inputs), numbers(batch, inputs)
    kernel = lower(machine, Gemv(outputs, inputs, batch), Site(channels, row=7))
    result = Machine(machine, kernel, {"matrix": matrix}, vector).execute()
    np.testing.assert_array_equal(result, (vector @ matrix.T).ravel())


@pytest.mark.parametrize(
    ("heads", "kv_heads", "d_head", "tokens"), [(1, 1, 1, 1), (4, 2, 64, 65), (3, 3, 129, 63)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_attention_computes_scores_and_context(
    channels: int, heads: int, kv_heads: int, d_head: int, tokens: int
) -> None:
    machine, site = small(channels), Site(channels)
    cache = numbers(kv_heads, tokens, d_head)
    of_head = cache[np.arange(heads) // (heads // kv_heads)]
    query, weights = numbers(heads, d_head), numbers(heads, tokens)
    score = lower(machine, Attention("score", heads, kv_heads, d_head, tokens), site)
    result = Machine(machine, score, {"keys": cache}, query).execute()
    np.testing.assert_array_equal(result, np.einsum("htd,hd->ht", of_head, query).ravel())
    context = lower(machine, Attention("context", heads, kv_heads, d_head, tokens), site)
    result = Machine(machine, context, {"values": cache}, weights).execute()
    np.testing.assert_array_equal(result, np.einsum("htd,ht->hd", of_head, weights).ravel())


@pytest.mark.parametrize("elements", [1, 15, 2047, 2048, 2049, 4 * 2048 + 1, 10007])
@pytest.mark.parametrize("channels", [1, 2])
def test_element_wise_functions(channels: int, elements: int) -> None:
    machine = small(channels)
    a, b = numbers(elements), numbers(elements)[::-1].copy()
    expected = {"add": a + b, "mul": a * b, "relu": np.maximum(a, 0)}
    for kind, values in expected.items():
        operands = {"a": a} if kind == "relu" else {"a": a, "b": b}
        kernel = lower(machine, Elementwise(kind, elements), Site(channels, row=3))
        result = Machine(machine, kernel, operands, np.empty(0)).execute()
        np.testing.assert_array_equal(result, values)


@pytest.mark.parametrize(
    "work", [Gemv(200, 700, 3), Elementwise("add", 30000), Attention("score", 4, 2, 64, 90)]
)
def test_operands_lie_in_rows_of_their_own(work: Work) -> None:
    machine = small(2)
    kernel = lower(machine, work, Site(2, row=11))
    assert kernel.left is not None
    fields = [np.stack([f.ravel() for f in place]) for place in (*kernel.stored().values(), kernel.left())]
    places = np.concatenate(fields, axis=1)
    assert len(np.unique(places, axis=1).T) == places.shape[1]
    assert places[2].min() == 11
    assert places[2].max() == 11 + kernel.rows - 1


@pytest.mark.parametrize("tree", [0, 1])
@pytest.mark.parametrize("work", [Gemv(200, 700, 3), Gemv(64, 128), Elementwise("add", 30000)])
def test_commands_keep_to_the_operands_rows(work: Work, tree: int) -> None:
    machine = small(2, f"options.tree={tree}")
    kernel = lower(machine, work, Site(2, row=11))
    rows = {int(row) for row in kernel.stream.row} - {-1, 16380, 16381, 16382, 16383}
    assert rows == set(range(11, 11 + kernel.rows))


# --- the device --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("work", [Gemv(64, 1500), Gemv(130, 128), Elementwise("mul", 60000)])
def test_commands_obey_the_memory(work: Work, ranks: int) -> None:
    machine = device("dram.channels=1", f"dram.ranks={ranks}", f"dram.channel_capacity_B={ranks * 2**28}")
    issued = run(machine, work, log=True)
    assert issued.logs is not None
    trace = from_log(machine.dram, 0, issued.logs[0])
    assert check(machine.dram, machine.dram.symbols({}), trace) == []


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(
    ("work", "tree"),
    [
        (Gemv(64, 1500), 0), (Gemv(130, 129), 0), (Gemv(64, 1025), 1), (Elementwise("mul", 30000), 0),
        (Elementwise("relu", 33000), 0), (Attention("context", 2, 1, 64, 300), 0),
    ],
)  # fmt: skip
def test_every_command_is_where_the_twin_has_it(work: Work, tree: int, ranks: int) -> None:
    machine = device(
        "dram.channels=1", f"dram.ranks={ranks}", f"dram.channel_capacity_B={ranks * 2**28}",
        f"options.tree={tree}",
    )  # fmt: skip
    kernel = lower(machine, work, Site(1))
    issued = channels(machine).run(kernel.stream, 0, True)
    assert issued.logs is not None
    twin = Twin(machine.dram)
    events = twin.run(kernel.stream)
    assert [tuple(map(int, command)) for command in issued.logs[0]] == events
    # The host waits one clock for its last data.
    assert issued.cycles == twin.end + 1


def test_ranks_take_turns_with_refresh() -> None:
    machine = device("dram.channels=1", "dram.channel_capacity_B=536870912")
    issued = run(machine, Gemv(64, 8192), log=True)
    assert issued.logs is not None
    refresh = list(machine.dram.commands).index("REFab")
    log = issued.logs[0]
    clock, node = log[log[:, 1] == refresh][:, [0, 2]].T
    assert list(node[:4]) == [0, 1, 0, 1]
    due = 1950 * np.arange(1, len(clock) + 1)
    assert ((clock >= due) & (clock < due + 60)).all()
    # The rank that computes goes on during the refresh of the other.
    macs = log[log[:, 1] == list(machine.dram.commands).index("MAC"), 0]
    assert ((macs > clock[1]) & (macs < clock[1] + 350)).any()
    assert not ((macs > clock[0]) & (macs < clock[0] + 350)).any()


def test_rows_open_again_in_lock_step() -> None:
    """What refresh closed in the all-bank mode is opened again by its own activate."""
    machine = device("dram.channels=1", "dram.ranks=1", "dram.channel_capacity_B=268435456")
    ours = counts(machine, run(machine, Gemv(64, 128 * 30)))
    assert ours["REFab"] > 0
    assert ours["ACT"] == 16 + 4 + 16
    assert ours["PRE"] == 0


def test_a_host_that_waits() -> None:
    """With a fence behind every group of registers each group costs its latency."""
    fast, slow = small(), small(1, "options.fence=8")
    work = Gemv(64, 1024)
    a, b = run(fast, work), run(slow, work)
    assert counts(fast, a) == counts(slow, b)
    groups = (512 + 64 + 8) // 8
    latency = fast.dram.timing["nCL"] + fast.dram.nBL
    assert b.cycles > a.cycles + groups * (latency - fast.dram.timing["nCCD_L"]) / 2


def test_kernels_follow_each_other() -> None:
    machine = small(2)
    kernel = lower(machine, Gemv(100, 300), Site(2))
    bench = channels(machine)
    first = bench.run(kernel.stream, 0, False)
    second = bench.run(kernel.stream, first.end + 50, False)
    assert second.cycles == first.cycles
    assert (second.counts == first.counts).all()


def test_operands_that_do_not_fit() -> None:
    machine = small()
    with pytest.raises(InputError, match="take 16385 rows .* there are 16380"):
        lower(machine, Gemv(1, 128 * 2 * 8191 + 1), Site(1))
    with pytest.raises(InputError, match="there are 3"):
        lower(machine, Elementwise("add", 1 + 4 * 2048), Site(1, row=16377))
    assert lower(machine, Elementwise("add", 4 * 2048), Site(1, row=16377)).rows == 3
