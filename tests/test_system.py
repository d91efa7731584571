"""Whole models on systems of PIM devices: sums, twins, partitions, and what does not fit."""

from pathlib import Path

import pandas as pd
import pytest

from pimloom import system
from pimloom.arch.tree import InputError
from pimloom.reports.system import CAUSES

TINY = ["model.layers=2", "model.vocab=97"]


def run(
    *overrides: str, model: str = "opt-125m", arch: str = "newton", **options: object
) -> system.SystemResult:
    plan = system.prepare(
        model, arch, overrides=[*TINY, *overrides], **{"prompt": 2, "generate": 3, **options}
    )  # type: ignore[arg-type]
    return system.simulate(plan)


@pytest.fixture(scope="module")
def whole() -> system.SystemResult:
    return run()


def test_operators_and_causes_add_up_to_the_time(whole: system.SystemResult) -> None:
    table = whole.to_pandas()
    told = whole.summary
    assert table.time_ns.sum() == pytest.approx(told["total_time_ns"], rel=1e-12)
    assert table[[f"{name}_ns" for name in CAUSES]].to_numpy().sum() == pytest.approx(table.time_ns.sum())
    assert (table[[f"{name}_ns" for name in CAUSES]].to_numpy() >= 0).all()
    assert sum(told["time_share"].values()) == pytest.approx(1)
    assert sum(told["latency_share"].values()) == pytest.approx(1)
    assert list(table.position.unique()) == [0, 1, 2, 3]
    # The last prompt token and the new ones, but the last of these, have logits.
    assert list(table[table.op == "lm_head"].position) == [1, 2, 3]
    assert told["ttft_ns"] == pytest.approx(table[table.position < 2].time_ns.sum())
    assert told["tpot_ns"] == pytest.approx(table[table.position >= 2].time_ns.sum() / 2)
    assert told["tokens_per_s"] == pytest.approx(3 / (told["total_time_ns"] * 1e-9))


def test_commands_are_those_of_the_kernels(whole: system.SystemResult) -> None:
    """Every weight is read once a token: one COMP per 16 values of each of the 16 banks."""
    plan, counts = whole.plan, whole.summary["commands"]
    units, lanes = 16, 16
    table = whole.to_pandas()
    assert set(table[table.unit == "device"].op) == {
        "qkv",
        "score",
        "context",
        "proj",
        "ffn1",
        "ffn2",
        "lm_head",
    }
    d, d_ff, vocab = plan.model.d_model, plan.model.d_ff, plan.model.vocab
    per_layer = sum(
        -(-out // units) * -(-size // lanes) for out, size in ((3 * d, d), (d, d), (d_ff, d), (d, d_ff))
    )
    matrices = 4 * 2 * per_layer + 3 * -(-vocab // units) * -(-d // lanes)
    attention = counts["COMP"] - matrices
    assert 0 < attention < matrices / 10


def test_same_run_same_bytes(whole: system.SystemResult) -> None:
    left, right = ({k: v for k, v in r.summary.items() if k != "simulator"} for r in (run(), whole))
    assert left == right


def test_twin_without_pim_reads_every_weight_over_the_pins(whole: system.SystemResult) -> None:
    twin = run(pim=False)
    assert twin.summary["commands"] == {}
    assert twin.summary["time_share"]["host"] == pytest.approx(1)
    device, model = twin.plan.system.device, twin.plan.model
    # The prompt is taken at once: both its tokens read the weights once, each new token once more.
    weights_B = 3 * model.decoder_parameters * 2
    assert twin.summary["ordinary_accesses"] * device.dram.access_B >= weights_B
    read_Bps = system.Ordinary(device).read_Bps
    pins_Bps = device.dram.channels * device.dram.pin_Bps
    assert 0.8 * pins_Bps < read_Bps < pins_Bps
    assert twin.summary["total_time_ns"] > weights_B / pins_Bps * 1e9


def test_two_devices_share_matrices_and_heads(whole: system.SystemResult) -> None:
    two = run("devices=2", "partition.tensor_parallel=2")
    assert two.summary["total_time_ns"] < whole.summary["total_time_ns"]
    # Tiles of 16 outputs on 24 channels: both together compute what one does, and the padding of two.
    assert two.summary["commands"]["COMP"] >= whole.summary["commands"]["COMP"]


def test_stages_work_at_once_but_share_the_host(whole: system.SystemResult) -> None:
    two = run("devices=2", "partition.stages=2", "link.latency_ns=50", "link.bandwidth_Bps=1e10", batch=2)
    told = two.summary
    host_s = two.tally.host_ps * 1e-12
    assert told["throughput_tokens_per_s"] == pytest.approx(min(2 * told["tokens_per_s"], 2 * 3 / host_s))
    assert told["memory"]["rows_used"] < whole.summary["memory"]["rows_used"]
    assert sum(told["time_share"].values()) == pytest.approx(1)
    assert sum(told["latency_share"].values()) == pytest.approx(1)
    table = two.to_pandas()
    # Two sequences of d values of 2 B, to the host and from it.
    assert table[table.op == "hand_over"].time_ns.iloc[0] == pytest.approx(
        2 * (50 + 0.4 * two.plan.model.d_model)
    )
    twin = run("devices=2", "partition.stages=2", pim=False).summary
    assert twin["throughput_tokens_per_s"] == pytest.approx(twin["tokens_per_s"])


@pytest.mark.parametrize("shards", [3, 5, 16])
def test_heads_that_share_keys_stay_together(shards: int) -> None:
    """Llama 3's 32 heads have 8 key-value heads, which the devices share out."""
    plan = system.prepare(
        "llama3-8b", "attacc-bank", prompt=1, generate=4,
        overrides=["model.layers=1", f"devices={shards}", f"partition.tensor_parallel={shards}"],
    )  # fmt: skip
    layout = system.Layout(plan)
    score = next(op for op in plan.graph.layer if op.kind == "score")
    assert layout.attend(score, 4).rows > 0
    assert system.simulate(plan).summary["commands"]["MACAB"] > 0


@pytest.mark.parametrize(
    "arch", ["gddr6-aim", "hbm2-pim", "newton", "attacc-bank", "attacc-bg", "attacc-buffer"]
)
def test_no_more_macs_than_there_are_slots(arch: str) -> None:
    one = system.block("opt-1.3b", arch, 1000, ["on_device=[linear,attention]"])
    assert 0 < one.summary["pim_utilisation"] <= 1
    assert one.summary["cycles"] == -(-one.tally.ends_ps[-1] * one.plan.system.device.dram.clock_Hz // 10**12)


def test_what_the_host_reads_is_never_free() -> None:
    """Matrices that the host takes lie in the devices' memory where the host has none of its own."""
    by_host = run("on_device=[attention]")
    assert by_host.summary["ordinary_accesses"] > 3 * by_host.plan.model.decoder_parameters * 2 / 32


def test_link_takes_time_and_energy() -> None:
    linked = run("link.latency_ns=100", "link.bandwidth_Bps=1e9", "link.pJ_per_bit=2")
    assert linked.summary["time_share"]["link"] > 0
    table = linked.to_pandas()
    d = linked.plan.model.d_model
    projection = table[(table.op == "proj") & (table.position == 0)].iloc[0]
    # Two layers, there and back, 2 B a value.
    assert projection.link_ns == pytest.approx(2 * 2 * (100 + 2 * d), abs=0.01)
    assert linked.summary["energy_pJ"]["link"] == linked.tally.link_bits * 2


@pytest.mark.parametrize(
    "overrides, why",
    [
        (["devices=1", "partition.stages=2"], "devices: 1, but 2 stages of 1 x 24 channels take 2"),
        (["devices=3", "partition.stages=3"], "2 layers of opt-125m are not divided by 3"),
        (["partition.channels=25"], "partition.channels: 25, but a device has 24"),
        (
            ["device.dram.rows=64", "device.dram.channel_capacity_B=1048576"],
            "opt-125m does not fit newton: it takes",
        ),
        (["on_device=[linaer]"], "on_device.0"),
    ],
)
def test_what_cannot_be(overrides: list[str], why: str) -> None:
    with pytest.raises(InputError, match=why):
        run(*overrides)


def test_saved(whole: system.SystemResult, tmp_path: Path) -> None:
    folder = whole.save(tmp_path / "out")
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "result.json",
        "ops.parquet",
        "config.resolved.yaml",
        "model.resolved.yaml",
        "provenance.json",
    }
    assert len(pd.read_parquet(folder / "ops.parquet")) == len(whole.to_pandas())
    again, _ = system.load_system(str(folder / "config.resolved.yaml"))
    assert again == whole.plan.system


def test_block_is_one_layer() -> None:
    one = system.block("llama2-7b", "newton", 40)
    table = one.to_pandas()
    assert set(table.position) == {39}
    assert {"gate", "up", "down", "rotary_q"} <= set(table.op)
    assert "lm_head" not in set(table.op)
