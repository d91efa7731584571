"""Measured steps, rooflines, and what is said about them."""

import csv
from pathlib import Path

import pytest

from pimloom.arch.document import InputError
from pimloom.reports import baselines
from pimloom.reports.baselines import (
    Processor,
    compare,
    measured_step,
    processors,
    roofline_time_per_token_ns,
)
from pimloom.workloads.model import Model, load_model
from pimloom.workloads.request import Workload

DATA = Path(__file__).parent.parent / "data" / "functional"
XL = load_model("gpt3-xl")[0]


def test_measured_points_come_back_as_they_stand_in_the_table() -> None:
    table = Path(baselines.__file__).parent.parent / "configs" / "baselines" / "h200_decode.csv"
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 85
    for row in rows:
        step = measured_step(row["model"], row["mode"], int(row["context"]), int(row["batch"]))
        assert step.time_ns == pytest.approx(float(row["ms_per_step"]) * 1e6)
        assert (step.power_W, step.is_clamped) == (float(row["watts"]), False)


def test_between_points_linear_and_outside_clamped() -> None:
    low, high = (measured_step("gpt3-xl", "graph", context) for context in (128, 512))
    middle = measured_step("gpt3-xl", "graph", 320)
    assert middle.time_ns == pytest.approx((low.time_ns + high.time_ns) / 2)
    assert middle.power_W == pytest.approx((low.power_W + high.power_W) / 2)
    assert [measured_step("gpt3-xl", "graph", c).is_clamped for c in (127, 128, 320, 1024, 1025)] == [
        True, False, False, False, True,
    ]  # fmt: skip
    assert measured_step("gpt3-xl", "graph", 1).time_ns == low.time_ns
    assert measured_step("gpt3-xl", "graph", 2000).time_ns == pytest.approx(1.72223e6)


def test_what_was_not_measured_is_an_error() -> None:
    with pytest.raises(
        InputError, match="gpt2-nano graph batch 1 was not measured; measured: gpt2-small eager"
    ):
        measured_step("gpt2-nano", "graph", 1)


def test_the_shapes_that_were_measured_are_those_that_are_shipped() -> None:
    for name in (
        "gpt2-small",
        "gpt2-medium",
        "gpt2-large",
        "gpt2-xl",
        "gpt3-medium",
        "gpt3-large",
        "gpt3-xl",
    ):
        runs = compare(load_model(name)[0], Workload(prompt=1, generate=1))
        assert [run.kind for run in runs[:3]] == ["measured", "measured", "roofline"]
        assert "same shape" not in runs[0].note


def test_roofline_of_a_model_with_grouped_queries_by_hand() -> None:
    """K and V of 8 heads are moved, products of 32 are computed; norms are weights alone."""
    model = load_model("llama3-8b")[0]
    slow = Processor(name="x", fp16_FLOPps=1e30, fp32_FLOPps=1e30, memory_Bps=1.0, tdp_W=1)
    matrices = (2 * 4096 + 2 * 1024 + 3 * 14336) * 4096
    layer = matrices + 2 * 4096 + 2 * 100 * 1024 + 2 * 1024  # + two norms, K and V read and written
    values = 4096 + 32 * layer + 4096 + 128256 * 4096  # + embedding, last norm, head
    assert roofline_time_per_token_ns(slow, model, 100) == pytest.approx(2 * values * 1e9)
    weak = Processor(name="x", fp16_FLOPps=None, fp32_FLOPps=1.0, memory_Bps=1e30, tdp_W=1)
    macs = 32 * (matrices + 2 * 100 * 4096) + 128256 * 4096
    assert roofline_time_per_token_ns(weak, model, 100) == pytest.approx(2 * macs * 1e9)


def test_a_gated_model_is_not_taken_for_a_measured_one() -> None:
    shape = ["layers=24", "d_model=2048", "heads=16", "d_head=128", "kv_heads=16", "d_ff=8192", "vocab=50257"]
    runs = compare(load_model("llama2-7b", shape)[0], Workload(prompt=1, generate=1))
    assert {run.kind for run in runs} == {"roofline"}


def test_roofline_by_hand() -> None:
    """One byte a second, and no limit on operations: the bytes of weights, norms, tables and caches."""
    slow = Processor(name="x", fp16_FLOPps=1e30, fp32_FLOPps=1e30, memory_Bps=1.0, tdp_W=1)
    biases_and_norms = (3 + 1 + 4 + 1 + 4) * 2048
    layer = 12 * 2048**2 + biases_and_norms + 2 * 100 * 2048 + 2 * 2048  # + K and V read, K and V written
    values = 2 * 2048 + 24 * layer + 2 * 2048 + 50257 * 2048  # + embedding, last norm, head
    assert roofline_time_per_token_ns(slow, XL, 100) == pytest.approx(2 * values * 1e9)
    outside = 2 * 2048 + 50257 * 2048
    bare = roofline_time_per_token_ns(slow, XL, 100, embedding=False, head=False)
    assert bare == pytest.approx(2 * (values - outside) * 1e9)
    # No limit on bytes, one operation a second, fp32: two operations a weight.
    weak = Processor(name="x", fp16_FLOPps=None, fp32_FLOPps=1.0, memory_Bps=1e30, tdp_W=1)
    products = 24 * (12 * 2048**2 + 2 * 100 * 2048) + 50257 * 2048
    assert roofline_time_per_token_ns(weak, XL, 100) == pytest.approx(2 * products * 1e9)
    assert (weak.value_B, slow.value_B) == (4, 2)


def test_no_measurement_is_below_its_roofline() -> None:
    for name in ("gpt2-xl", "gpt3-large", "gpt3-xl"):
        model = load_model(name)[0]
        for context in (128, 512, 1024):
            bound = roofline_time_per_token_ns(processors()["h200"], model, context, embedding=False)
            assert measured_step(name, "graph", context).time_ns > bound


def test_a_run_is_the_sum_of_its_steps() -> None:
    workload = Workload(prompt=1, generate=300)
    runs = {run.name: run for run in compare(XL, workload)}
    steps = [measured_step("gpt3-xl", "eager", context) for context in range(1, 301)]
    eager = runs["NVIDIA H200, eager"]
    assert eager.time_ns == pytest.approx(sum(step.time_ns for step in steps))
    assert eager.energy_pJ == pytest.approx(sum(step.time_ns * step.power_W * 1e3 for step in steps))
    t4 = runs["NVIDIA T4, roofline"]
    times = [roofline_time_per_token_ns(processors()["t4"], XL, context) for context in range(1, 301)]
    assert t4.time_ns == pytest.approx(sum(times))
    assert t4.energy_pJ == pytest.approx(sum(times) * 70 * 1e3)


def test_a_prompt_is_one_pass() -> None:
    one = {run.name: run for run in compare(XL, Workload(prompt=1, generate=512))}
    for run in compare(XL, Workload(prompt=512, generate=1)):
        assert run.time_ns < one[run.name].time_ns / 10
        assert "the prompt as measured" in run.note or run.kind == "roofline"


def test_measured_prompts_come_back_with_the_head_added() -> None:
    """The table, plus 50,257 x 2,048 weights of 2 B at 4.8 TB/s."""
    head_ns = 50257 * 2048 * 2 / 4.8e12 * 1e9
    for tokens, ms, watts in ((128, 1.71334, 591.6), (512, 3.04779, 587.1), (2048, 10.32211, 679.4)):
        graph = next(b for b in compare(XL, Workload(prompt=tokens, generate=1)) if "graph" in b.name)
        assert graph.time_ns == pytest.approx(ms * 1e6 + head_ns)
        assert graph.energy_pJ == pytest.approx((ms * 1e6 + head_ns) * watts * 1e3)
    between = next(b for b in compare(XL, Workload(prompt=320, generate=1)) if "graph" in b.name)
    assert between.time_ns == pytest.approx((1.71334e6 + 3.04779e6) / 2 + head_ns)
    table = Path(baselines.__file__).parent.parent / "configs" / "baselines" / "h200_prefill.csv"
    with table.open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 12


def test_prompts_grow_with_their_length_and_start_from_a_step() -> None:
    def times_ns(mode: str, model: Model = XL) -> list[float]:
        runs = [compare(model, Workload(prompt=n, generate=1)) for n in (1, 2, 64, 128, 400, 1000)]
        return [next(b.time_ns for b in run if mode in b.name) for run in runs]

    graph, eager = times_ns("graph"), times_ns("eager")
    assert graph == sorted(graph)
    assert graph[0] == measured_step("gpt3-xl", "graph", 1).time_ns
    assert all(e >= g for e, g in zip(eager, graph, strict=True))
    assert eager[1] >= measured_step("gpt3-xl", "eager", 2).time_ns


def test_a_prompt_longer_than_the_measured_ones_is_no_faster_than_its_roofline() -> None:
    longer = XL.model_copy(update={"positions": 100_000})
    graph = next(b for b in compare(longer, Workload(prompt=100_000, generate=1)) if "graph" in b.name)
    h200 = next(
        b for b in compare(longer, Workload(prompt=100_000, generate=1)) if b.name == "NVIDIA H200, roofline"
    )
    assert graph.time_ns >= h200.time_ns
    assert "a longer one takes the longer of" in graph.note


def test_a_prompt_that_was_not_measured_says_so() -> None:
    small = compare(load_model("gpt2-small")[0], Workload(prompt=64, generate=1))
    assert all("the prompt was not measured" in b.note for b in small if b.kind == "measured")


def test_what_was_measured_with_the_head_is_not_held_against_a_run_without() -> None:
    runs = compare(XL, Workload(prompt=1, generate=4, head=False))
    assert {b.kind for b in runs} == {"roofline"}
    assert all("NVIDIA H200 was measured with the LM head, which is left out here" in b.note for b in runs)


def test_what_a_comparison_says() -> None:
    for run in compare(XL, Workload(prompt=1, generate=4)):
        assert ("data-sheet" in run.note) == (run.kind == "roofline")
        assert ("contexts outside 128 to 1024" in run.note) == (run.kind == "measured")
        assert run.energy_pJ is not None
    unmeasured = compare(load_model(str(DATA / "gpt2-tiny"))[0], Workload(prompt=1, generate=4))
    assert {run.kind for run in unmeasured} == {"roofline"}
    assert all("gpt2-tiny with a batch of 1 was not measured on any GPU" in run.note for run in unmeasured)
    assert {run.kind for run in compare(XL, Workload(prompt=1, generate=4, batch=3))} == {"roofline"}


def test_a_model_of_a_measured_shape_is_compared_with_it() -> None:
    other = load_model("gpt2-xl")[0].model_copy(update={"name": "mine"})
    assert (
        "measured as gpt2-xl, which has the same shape"
        in compare(other, Workload(prompt=1, generate=1))[0].note
    )


def test_xeon_peaks_follow_from_its_data_sheet() -> None:
    xeon = processors()["xeon-gold-6154"]
    assert xeon.fp32_FLOPps == 18 * 2 * 16 * 2 * 3.0e9
    assert xeon.memory_Bps == pytest.approx(6 * 8 * 8 / 3 * 1e9)
