"""Which figures are chosen by what was swept and what is asked for, and which numbers they show."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimloom.arch.tree import InputError
from pimloom.reports.sweep_choice import Cells, Spec, Wanted, cells, figures, front, fronts
from pimloom.reports.sweep_data import Sweep
from tests.reports.sweeps import (
    BARRIERS,
    CHANNELS,
    CLOCKS,
    EIGHT,
    RATES,
    TOKENS,
    ZIPPED,
    Row,
    first,
    make,
    one,
)

LINES = ("tokens_per_s", "energy_per_token_pJ")
RATIOS = ("speedup", "energy_saving")


def short(specs: Sequence[Spec]) -> list[tuple[str, str, str, str | None]]:
    return [(spec.kind, spec.x, spec.y, spec.hue) for spec in specs]


def numbers(sweep: Sweep, spec: Spec) -> Cells:
    return cells(sweep.grid(spec.grid), spec)


# --- which figures ----------------------------------------------------------------------------


def test_one_axis_gives_lines() -> None:
    specs = figures(make(CHANNELS))
    assert short(specs) == [("line", "dram.channels", y, None) for y in LINES]
    assert specs[0].where == {"model": "a", "arch": "pim-gpt"}


def test_one_axis_of_several_models() -> None:
    specs = figures(make(CHANNELS, ["a", "bbb"]))
    assert short(specs) == [
        *(("line", "dram.channels", y, "model") for y in LINES),
        *(("bars", "model", y, "dram.channels") for y in RATIOS),
        ("pareto", "energy_per_token_pJ", "tokens_per_s", "model"),
    ]
    assert {spec.over for spec in specs if spec.kind == "bars"} == {"dram.channels=4"}


def test_two_axes() -> None:
    assert short(figures(make(CHANNELS | CLOCKS))) == [
        *(("line", "asic.clock_Hz", y, "dram.channels") for y in LINES),
        ("heat", "asic.clock_Hz", "tokens_per_s", "dram.channels"),
        ("pareto", "energy_per_token_pJ", "tokens_per_s", None),
    ]


def test_what_is_not_shown_is_held_at_its_last_value() -> None:
    specs = figures(make(CHANNELS | CLOCKS | BARRIERS, ["a", "bbb"], ["pim-gpt", "fast"]))
    where = {spec.kind: spec.where for spec in specs}
    assert where["line"] == {"arch": "fast", "dram.channels": "16", "mapping.barrier": "data"}
    assert where["heat"] == {"model": "bbb", "arch": "fast", "mapping.barrier": "data"}
    assert where["bars"] == {"dram.channels": "16", "asic.clock_Hz": "2000000000", "mapping.barrier": "data"}
    assert where["pareto"] == {}


def test_points_of_different_work_are_no_alternatives() -> None:
    sweep = make(TOKENS | CHANNELS, ["a", "bbb"])
    assert first(sweep, kind="pareto").where == {"arch": "pim-gpt", "workload.generate": "128"}
    assert one(sweep, y="speedup", where={"dram.channels": "8"}).hue == "processor"


@pytest.mark.parametrize(
    ("axes", "models", "archs", "x", "metrics", "hue"),
    [
        (RATES, "a", "p", "dram.io.rate_bps", LINES, None),
        (ZIPPED, "a", "p", "pim.lanes & asic.adders", LINES, None),
        (BARRIERS, "a", "p", "mapping.barrier", LINES, None),
        ({"workload.head": (True, False)}, "a", "p", "workload.head", LINES, None),
        ({"mapping.max_tokens": (None, 512)}, "a", "p", "mapping.max_tokens", LINES, None),
        ({}, "ab", "p", "model", RATIOS, "processor"),
        ({}, "a", "pq", "arch", RATIOS, "processor"),
        ({}, "ab", "pq", "model", RATIOS, "arch"),
    ],
)
def test_one_choice(
    axes: dict[str, Any], models: str, archs: str, x: str, metrics: Sequence[str], hue: str | None
) -> None:
    """A zipped axis is one axis; what is no number throughout gives bars, for instance what may be missing."""
    kind = "line" if axes == RATES else "bars"
    assert short(figures(make(axes, list(models), list(archs)))) == [(kind, x, y, hue) for y in metrics]


def test_nothing_left_or_nothing_varied() -> None:
    with pytest.raises(InputError, match="all 3 points failed"):
        figures(make(CHANNELS, fails=lambda row: True))
    with pytest.raises(InputError, match="nothing varies"):
        figures(make({}))


def test_every_grid_has_its_figures() -> None:
    sweep = make({"channels": CHANNELS, "zipped": ZIPPED})
    found = [(spec.grid, spec.kind) for spec in figures(sweep)]
    assert found == [("channels", "line")] * 2 + [("zipped", "bars")] * 2
    assert {spec.grid for spec in figures(sweep, Wanted(x="dram.channels"))} == {"channels"}
    assert {spec.grid for spec in figures(sweep, Wanted(grid="zipped"))} == {"zipped"}
    with pytest.raises(InputError, match="no grid 'chanels' \\(did you mean 'channels'"):
        figures(sweep, Wanted(grid="chanels"))
    with pytest.raises(InputError, match="no point has"):
        figures(sweep, Wanted(grid="channels", where={"pim.lanes & asic.adders": "4, 64"}))


def test_many_models_are_no_hue() -> None:
    sweep = make(CHANNELS, [f"model-{i}" for i in range(12)])
    line = first(sweep, kind="line")
    assert (line.hue, line.where["model"]) == (None, "model-11")
    with pytest.raises(InputError, match="12 values, but a figure tells at most 8 apart"):
        figures(sweep, Wanted(hue="model"))


# --- what is asked for ------------------------------------------------------------------------


def test_the_kind_follows_from_the_axes() -> None:
    sweep = make(CHANNELS | CLOCKS, ["a", "bbb"])
    assert one(sweep, x="dram.channels", y="ttft_ns").kind == "line"
    assert one(sweep, x="model", y="ttft_ns").kind == "bars"
    assert one(sweep, x="ttft_ns", y="tokens_per_s").kind == "pareto"
    assert one(sweep, y="speedup").kind == "bars"
    assert one(sweep, y="ttft_ns", hue="asic.clock_Hz") == one(
        sweep, kind="line", x="dram.channels", y="ttft_ns", hue="asic.clock_Hz", where={"model": "bbb"}
    )


def test_a_heat_map_takes_its_keys_as_x_and_y() -> None:
    spec = one(make(CHANNELS | CLOCKS), x="dram.channels", y="asic.clock_Hz", hue="ttft_ns")
    assert (spec.kind, spec.x, spec.hue, spec.y) == ("heat", "dram.channels", "asic.clock_Hz", "ttft_ns")


def test_either_key_of_a_zipped_axis() -> None:
    assert one(make(RATES), x="link.rate_bps", y="ttft_ns").x == "link.rate_bps"


@pytest.mark.parametrize("text", ["8", "8.0", "8e0"])
def test_where_compares_numbers(text: str) -> None:
    sweep = make(CHANNELS | CLOCKS)
    spec = one(sweep, y="tokens_per_s", where={"dram.channels": text})
    assert spec.where == {"dram.channels": "8", "model": "a", "arch": "pim-gpt"}
    assert max(numbers(sweep, spec).known) == pytest.approx(80 * math.sqrt(2))


ONLY_RATIOS = "processor: only lines and bars of speedup or energy_saving"
WRONG = [
    ({"kind": "lines"}, "no kind of figure 'lines' (did you mean 'line'?)"),
    ({"y": "token_per_s"}, "token_per_s: no number that the sweep has (did you mean 'tokens_per_s'?)"),
    ({"y": "error"}, "such are tokens_per_s, energy_per_token_pJ"),
    ({"x": "dram.channel"}, "dram.channel: not swept (did you mean 'dram.channels'?); swept are model"),
    ({"kind": "bars", "x": "dram.channel"}, "dram.channel: not swept (did you mean 'dram.channels'?)"),
    ({"kind": "line", "x": "ttft_ns"}, "ttft_ns: not swept; swept are model, arch, dram.channels"),
    ({"hue": "processor", "y": "ttft_ns"}, ONLY_RATIOS),
    ({"hue": "processor", "kind": "heat"}, ONLY_RATIOS),
    ({"hue": "processor", "y": "speedup", "over": "NVIDIA_T4_roofline"}, ONLY_RATIOS),
    ({"hue": "processor", "kind": "pareto"}, ONLY_RATIOS),
    ({"where": {"dram.chanels": "8"}}, "dram.chanels: not swept (did you mean 'dram.channels'?)"),
    ({"where": {"dram.channels": "9"}}, "dram.channels: no point has '9'; there are 4, 8, 16"),
    (
        {"x": "dram.channels", "where": {"dram.channels": "8"}},
        "dram.channels: the figure shows it, so it cannot be held at 8",
    ),
    ({"y": "speedup", "over": "T5"}, "speedup over T5: not known"),
    ({"y": "energy_saving", "over": "H200_graph"}, "energy_saving over H200_graph: not known"),
    ({"y": "speedup", "over": "NVIDIA_T4_rofline"}, "(did you mean 'NVIDIA_T4_roofline'?)"),
    ({"y": "speedup", "over": "dram.channels=5"}, "dram.channels: no point has '5'; there are 4, 8, 16"),
    ({"y": "speedup", "over": "dram.chanels=4"}, "dram.chanels: not swept (did you mean 'dram.channels'?)"),
    ({"y": "ttft_ns", "over": "dram.channels=4"}, "ttft_ns: not over anything"),
    ({"x": "ttft_ns", "y": "speedup"}, "speedup: over what?"),
    ({"kind": "heat"}, "a figure of kind heat needs two swept keys"),
    ({"y": "link_ns"}, "link_ns: not known at any point with model = a"),
]


@pytest.mark.parametrize(("wanted", "message"), WRONG)
def test_wrong_wishes(wanted: dict[str, Any], message: str) -> None:
    known = {"tokens_per_s": 1, "energy_per_token_pJ": 1, "ttft_ns": 1, "link_ns": None}
    sweep = make(CHANNELS, numbers=lambda row: known | {"speedup_over.NVIDIA_T4_roofline": 2})
    with pytest.raises(InputError) as error:
        figures(sweep, Wanted(**wanted))
    assert message in str(error.value)


def test_a_spec_that_mixes_points_is_refused() -> None:
    sweep = make(CHANNELS | CLOCKS)
    spec = one(sweep, x="dram.channels", y="ttft_ns", hue="asic.clock_Hz")
    with pytest.raises(InputError, match=r"asic.clock_Hz: neither shown nor held"):
        numbers(sweep, replace(spec, hue=None))


# --- which numbers ----------------------------------------------------------------------------


def test_bars_are_over_the_first_value_and_end_with_the_geometric_mean() -> None:
    def results(row: Row) -> Row:
        pace = {("a", 4): 10, ("a", 8): 20, ("bb", 4): 5, ("bb", 8): 40}
        joule = {("a", 4): 3, ("a", 8): 6, ("bb", 4): 4, ("bb", 8): 1}
        at = row["model"], row["dram.channels"]
        return {"tokens_per_s": pace[at], "energy_per_token_pJ": 1e12 * joule[at]}

    sweep = make({"dram.channels": (4, 8)}, ["a", "bb"], numbers=results)
    speedup, saving = (spec for spec in figures(sweep) if spec.kind == "bars")
    assert numbers(sweep, speedup) == (["a", "bb", "geo. mean"], ["8"], [pytest.approx([2, 8, 4])])
    assert numbers(sweep, saving).values == [pytest.approx([0.5, 4, math.sqrt(2)])]


def test_a_ratio_without_its_reference_is_unknown_and_in_no_mean() -> None:
    sweep = make(CHANNELS, ["a", "bb", "ccc"], fails=lambda r: r["model"] == "bb" and r["dram.channels"] == 4)
    found = numbers(sweep, first(sweep, y="speedup"))
    assert found.xs == ["a", "bb", "ccc", "geo. mean of 2"]
    unknown = math.nan
    assert found.values == [
        pytest.approx([2, unknown, 2, 2], nan_ok=True), pytest.approx([4, unknown, 4, 4], nan_ok=True),
    ]  # fmt: skip


def test_ratios_over_processors() -> None:
    sweep = make({}, ["a", "bb", "ccc"])
    xs, hues, values = numbers(sweep, first(sweep, y="speedup"))
    assert xs[-1] == "geo. mean of 2"
    assert hues == ["NVIDIA_T4_roofline", "NVIDIA_H200_graph"]
    assert values[0] == pytest.approx([2, 4, 6, math.sqrt(12)])
    assert values[1] == pytest.approx([8, math.nan, 8, 8], nan_ok=True)


def test_lines_may_be_over_a_point_or_a_processor() -> None:
    sweep = make(CHANNELS, ["a"], ["pim-gpt", "fast"])
    spec = one(sweep, kind="line", y="speedup")
    assert spec.over == "dram.channels=4"
    assert numbers(sweep, spec).values == [[1, 2, 4], [1, 2, 4]]
    other = one(sweep, kind="line", y="speedup", over="arch=pim-gpt")
    assert numbers(sweep, other).values == [[1, 1, 1], [2, 2, 2]]
    for name in ("NVIDIA_T4_roofline", "T4_roofline", "T4"):
        processor = one(sweep, kind="line", y="speedup", over=name)
        assert numbers(sweep, processor).values[0] == [2, 2, 2]
    column = one(sweep, kind="line", y="speedup_over.NVIDIA_T4_roofline")
    assert numbers(sweep, column).values[0] == [2, 2, 2]


def test_pareto_front_of_a_sweep() -> None:
    def results(row: Row) -> Row:
        joule = {4: 1, 8: 2, 16: 3}[row["dram.channels"]]
        pace = {4: 10, 8: 5, 16: 20}[row["dram.channels"]]
        return {"tokens_per_s": pace, "energy_per_token_pJ": joule}

    sweep = make(CHANNELS | BARRIERS, numbers=results)
    found = fronts(sweep.grid("grid"), one(sweep, kind="pareto"))[""]
    assert len(found.points) == 6
    assert [(x, y) for x, y, _ in found.best] == [(1, 10), (1, 10), (3, 20), (3, 20)]


def test_a_front_for_each_model() -> None:
    sweep = make(CHANNELS | CLOCKS, EIGHT)
    assert [*fronts(sweep.grid("grid"), first(sweep, kind="pareto"))] == [*EIGHT]


cost = st.integers(0, 6) | st.floats(0, 1e9, allow_subnormal=False)


@given(st.lists(st.tuples(cost, cost), max_size=30))
def test_the_front_against_brute_force(costs: list[tuple[float, float]]) -> None:
    def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a != b and a[0] <= b[0] and a[1] <= b[1]

    found = front(costs)
    assert sorted(found) == [i for i, b in enumerate(costs) if not any(beats(a, b) for a in costs)]
    assert [costs[i] for i in found] == sorted(costs[i] for i in found)


def test_a_ratio_over_points_of_two_keys() -> None:
    """The reference is one point, whatever the others have."""
    sweep = make(CHANNELS | CLOCKS)
    over = "dram.channels=4, asic.clock_Hz=1e8"
    spec = one(sweep, kind="line", x="dram.channels", y="speedup", hue="asic.clock_Hz", over=over)
    values = dict(zip(*(cells(sweep.grids[0], spec)[i] for i in (1, 2)), strict=True))
    assert values["100000000"] == pytest.approx([1, 2, 4])
    assert values["1000000000"] == pytest.approx([factor * 10**0.5 for factor in (1, 2, 4)])


def test_a_value_may_have_fewer_digits() -> None:
    sweep = make({"asic.clock_Hz": (1e8, 177827941, 316227766), **CHANNELS})
    spec = one(sweep, kind="line", x="dram.channels", y="ttft_ns", where={"asic.clock_Hz": "1.778e8"})
    assert spec.where["asic.clock_Hz"] == "177827941"
    with pytest.raises(
        InputError, match="asic.clock_Hz: no point has '1.7e8'; there are 100000000, 177827941"
    ):
        figures(sweep, Wanted(where={"asic.clock_Hz": "1.7e8"}))
