"""AiM's kernels: equal to the AiM simulator's measured runs, and right in what they compute."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pimloom.arch.device import Device, load_device
from pimloom.arch.tree import InputError
from pimloom.mapping import cent
from pimloom.mapping.devices import aim, lower
from pimloom.sim.bench import channels
from pimloom.traces.foreign import read_aim
from pimloom.traces.stream import Attention, Elementwise, Gemv, Kernel, Site, Stream, Work

DATA = Path(__file__).parents[2] / "data/pim/aim"
CASES = list(csv.DictReader((DATA / "results.csv").open()))
MODELS = {
    "7B": cent.Decoder(4096, 32, 32, 128, 11008),
    "13B": cent.Decoder(5120, 40, 40, 128, 13824),
    "70B": cent.Decoder(8192, 64, 8, 128, 28672),
}
F4 = npt.NDArray[np.float64]


def case_stream(row: dict[str, str]) -> tuple[Device, Stream]:
    """The device and the stream of a row of the reference's results."""
    kind, site = row["kind"], Site(int(row["channels_used"]))
    group = ["options.result_group=1"] if row["order"] == "no-reuse" else []
    device, _ = load_device("gddr6-aim", group)
    if kind.startswith("gemv"):
        work = Gemv(int(row["out_dim"]), int(row["in_dim"]))
        return device, aim.gemv(device, work, site, activated=kind == "gemv+af").stream
    if kind.startswith("ewmul"):
        product = Elementwise("mul", int(row["elements"]))
        return device, aim.mul(device, product, site, moved=kind == "ewmul+io").stream
    model, tokens = MODELS[row["model"]], int(row["context"])
    if kind == "block":
        return device, cent.block(device, model, tokens, cent.Share(site.channels))
    name = {"att_qk": "score", "att_av": "context"}[kind]
    attention = Attention(name, model.heads, model.kv_heads, model.d_head, tokens)
    return device, lower(device, attention, site).stream


@pytest.mark.parametrize("row", CASES, ids=lambda row: row["case"])
def test_a_measured_case_is_equal(row: dict[str, str]) -> None:
    device, stream = case_stream(row)
    issued = channels(device).run(stream, 0, False)
    assert issued.cycles == int(row["cycles"])
    counts = {f"ch0_{name}": int(n) for name, n in zip(device.dram.commands, issued.counts[0], strict=True)}
    assert counts == {name: int(row[name]) for name in counts}
    assert issued.counts.sum() == int(row["cmds_all_channels"])
    assert issued.active[0] == int(row["ch0_active_cycles"])


@pytest.mark.parametrize(
    "case", ["gemv_c32_4096x4096", "att_qk_7B_c8_L512", "att_av_7B_c8_L512", "ewmulio_c1_1024"]
)
def test_recorded_commands_are_equal_from_file_and_from_lowering(case: str) -> None:
    (row,) = [row for row in CASES if row["case"] == case]
    device, stream = case_stream(row)
    with gzip.open(DATA / f"commands_{case}.csv.gz", "rt") as file:
        expected = [(int(r["cycle"]), r["cmd"]) for r in csv.DictReader(file)]
    for program in (stream, read_aim(DATA / f"isr_{case}.csv.gz", device)):
        logs = channels(device).run(program, 0, True).logs
        assert logs is not None
        assert [(clock, device.dram.command_names[i]) for clock, i in logs[0][:, :2]] == expected


# --- what the kernels compute ---


class Machine:
    """All channels in NumPy: what each command does to banks, buffer and registers."""

    def __init__(self, device: Device, kernel: Kernel, operands: dict[str, F4]) -> None:
        self.device, self.kernel = device, kernel
        dram = device.dram
        self.banks = np.zeros((dram.channels, dram.banks, 64, dram.columns, device.unit.lanes))
        for name, place in kernel.stored().items():
            self.banks[place] = operands[name]

    def run(self, vector: F4) -> F4:  # noqa: PLR0912
        """Execute the stream; return the drained result."""
        result = np.zeros(self.kernel.size)
        feed, drain = self.kernel.feed(), self.kernel.drain()
        stream = self.kernel.stream
        for channel in range(self.device.dram.channels):
            arrivals, takers = iter(feed[channel]), iter(drain[channel])
            buffer, registers = np.zeros((64, 16)), np.full((32, 16), np.nan)
            activated = np.zeros(16)
            for i in range(len(stream)):
                if not int(stream.channels[i]) >> channel & 1 or stream.command[i] < 0:
                    continue
                command, row = stream.commands[stream.command[i]], stream.row[i]
                for k in range(stream.times[i]):
                    column = stream.column[i] + k * stream.d_column[i]
                    operand = stream.operand[i] + k * stream.d_operand[i]
                    taken = None
                    if command in ("WRGB", "WRMAC16"):
                        position = next(arrivals)
                        values = np.where(position >= 0, vector[position], 0)
                        (buffer if command == "WRGB" else registers)[operand] = values
                    elif command == "MAC16":
                        registers[operand] += self.banks[channel, :, row, column] @ buffer[column]
                    elif command == "AF16":
                        activated = np.maximum(registers[operand], 0)
                    elif command == "EWMUL16":
                        groups = self.banks[channel, :, row, column].reshape(4, 4, -1)
                        self.banks[channel, 2::4, row, column] = groups[:, 0] * groups[:, 1]
                    elif command == "RDMAC16":
                        taken = registers[operand]
                    elif command == "RDAF16":
                        taken = activated
                    elif command == "RD":
                        taken = self.banks[channel, stream.node[i], row, column]
                    else:
                        raise AssertionError(command)
                    if taken is not None:
                        position = next(takers)
                        np.add.at(result, position[position >= 0], taken[position >= 0])
            assert next(arrivals, None) is None
            assert next(takers, None) is None
        return result


def computed(
    work: Work, site: Site, operands: dict[str, F4], vector: F4, overrides: tuple[str, ...] = ()
) -> F4:
    """What the device makes of operands."""
    device, _ = load_device("gddr6-aim", overrides)
    kernel = lower(device, work, site)
    channels(device).run(kernel.stream, 0, False)
    machine = Machine(device, kernel, operands)
    result = machine.run(vector)
    return machine.banks[kernel.left()] if kernel.left else result


@pytest.mark.parametrize("used", [1, 3, 32])
@pytest.mark.parametrize(
    ("outputs", "inputs", "batch"),
    [(1, 1, 1), (47, 15, 2), (48, 16, 1), (49, 17, 1), (131, 1031, 1), (16, 2048, 2)],
)
def test_gemv(outputs: int, inputs: int, batch: int, used: int) -> None:
    rng = np.random.default_rng(1)
    matrix, x = rng.normal(size=(outputs, inputs)), rng.normal(size=(batch, inputs))
    y = computed(Gemv(outputs, inputs, batch), Site(used, 2), {"matrix": matrix}, x.reshape(-1))
    assert np.allclose(y.reshape(batch, outputs), x @ matrix.T)


@pytest.mark.parametrize("group", [1, 3, 32])
def test_gemv_in_groups_of_any_size(group: int) -> None:
    rng = np.random.default_rng(2)
    matrix, x = rng.normal(size=(67, 40)), rng.normal(size=40)
    y = computed(Gemv(67, 40), Site(1), {"matrix": matrix}, x, (f"options.result_group={group}",))
    assert np.allclose(y, matrix @ x)


def test_activated_results_are_read_and_left_out() -> None:
    rng = np.random.default_rng(3)
    device, _ = load_device("gddr6-aim", ["options.result_group=6"])
    matrix, x = rng.normal(size=(131, 1031)), rng.normal(size=1031)
    kernel = aim.gemv(device, Gemv(131, 1031), Site(1), activated=True)
    assert np.allclose(Machine(device, kernel, {"matrix": matrix}).run(x), matrix @ x)


SHAPES = [(1, 1, 16, 1), (4, 2, 24, 17), (9, 9, 128, 33), (8, 1, 80, 257), (2, 2, 40, 1025)]


@pytest.mark.parametrize("used", [1, 3, 32])
@pytest.mark.parametrize(("heads", "kv_heads", "d_head", "tokens"), SHAPES)
def test_score(heads: int, kv_heads: int, d_head: int, tokens: int, used: int) -> None:
    rng = np.random.default_rng(4)
    q, keys = rng.normal(size=(heads, d_head)), rng.normal(size=(kv_heads, tokens, d_head))
    if (tokens // (16 * used) + 1) * 2 > 60:
        pytest.skip("the machine of this test has 64 rows")
    work = Attention("score", heads, kv_heads, d_head, tokens)
    y = computed(work, Site(used, 1), {"keys": keys}, q.reshape(-1)).reshape(heads, tokens)
    of = np.arange(heads) // (heads // kv_heads)
    assert np.allclose(y, np.einsum("hd,htd->ht", q, keys[of]))


@pytest.mark.parametrize("used", [1, 3, 32])
@pytest.mark.parametrize(("heads", "kv_heads", "d_head", "tokens"), SHAPES)
def test_context(heads: int, kv_heads: int, d_head: int, tokens: int, used: int) -> None:
    rng = np.random.default_rng(5)
    p, values = rng.normal(size=(heads, tokens)), rng.normal(size=(kv_heads, tokens, d_head))
    if -(-kv_heads // used) * -(-d_head // 16) * 2 > 60:
        pytest.skip("the machine of this test has 64 rows")
    work = Attention("context", heads, kv_heads, d_head, tokens)
    room = ("options.cached_tokens=1024",)
    y = computed(work, Site(used, 1), {"values": values}, p.reshape(-1), room).reshape(heads, d_head)
    of = np.arange(heads) // (heads // kv_heads)
    assert np.allclose(y, np.einsum("ht,htd->hd", p, values[of]))


@pytest.mark.parametrize("used", [1, 3])
@pytest.mark.parametrize("elements", [1, 63, 64, 65, 4099, 4096 * 3 + 1])
def test_element_by_element(elements: int, used: int) -> None:
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(2, elements))
    for kind, expected in (("mul", a * b), ("add", a + b)):
        y = computed(Elementwise(kind, elements), Site(used, 3), {"a": a, "b": b}, a)
        assert np.allclose(y, expected)


@pytest.mark.parametrize("elements", [1, 16, 17, 16 * 33, 16 * 3 * 33 + 1])
def test_relu(elements: int) -> None:
    a = np.random.default_rng(7).normal(size=elements)
    assert np.array_equal(computed(Elementwise("relu", elements), Site(3), {}, a), np.maximum(a, 0))


def test_what_does_not_fit_is_refused() -> None:
    device, _ = load_device("gddr6-aim")
    for work, site in (
        (Gemv(16, 16), Site(33)),
        (Gemv(16, 16), Site(0)),
        (Gemv(16, 16), Site(1, 16384)),
        (Gemv(16 * 16385, 16), Site(1)),
        (Attention("score", 1, 1, 1025, 1), Site(1)),
    ):
        with pytest.raises(InputError, match="gddr6-aim"):
            lower(device, work, site)
    with pytest.raises(InputError, match="rows"):
        cent.block(device, MODELS["70B"], 1, cent.Share(1))
    with pytest.raises(InputError, match="tokens"):
        cent.block(device, MODELS["7B"], 4097, cent.Share(8))
