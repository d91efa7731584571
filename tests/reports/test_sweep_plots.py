"""Figures of a sweep: which are chosen, which numbers they show, what stands on the axes, and that files come out."""

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from pimloom.arch.tree import InputError
from pimloom.reports import sweep_plots
from pimloom.reports.definitions import definitions
from pimloom.reports.sweep_plots import (
    Spec,
    Sweep,
    Wanted,
    draw,
    figures,
    front,
    load_sweep,
    name_of,
    save,
    unit_of,
    value_text,
    word,
)

mpl.use("Agg")

Row = dict[str, Any]
Grids = dict[str, dict[str, Sequence[Any]]]

EIGHT = tuple(f"gpt{n}-{size}" for n in (2, 3) for size in ("small", "medium", "large", "xl"))
CHANNELS = {"dram.channels": (4, 8, 16)}
CLOCKS = {"asic.clock_Hz": (1e8, 2e8, 5e8, 1e9, 2e9)}
RATES = {"dram.io.rate_bps,link.rate_bps": ((8e9, 8e9), (16e9, 16e9), (24e9, 24e9))}
BARRIERS = {"mapping.barrier": ("instruction", "data")}
TOKENS = {"workload.generate": (1, 128)}


def results(row: Row) -> Row:
    """Numbers that are easily computed by hand: 10 tokens/s a channel and 1 mJ a token and channel for "a"."""
    size = 1 + len(row["model"]) - len("a") if row["model"] not in EIGHT else 1 + EIGHT.index(row["model"])
    channels = row.get("dram.channels", 8)
    pace = 10 * channels * (2 if row["arch"] == "fast" else 1) * (row.get("asic.clock_Hz", 1e9) / 1e9) ** 0.5
    return {
        "tokens_per_s": pace / size,
        "energy_per_token_pJ": 1e9 * channels * size,
        "ttft_ns": 5e6 * size,
        "tpot_ns": None if row.get("workload.generate") == 1 else 2e6 * size,
        "pim_utilisation": 0.25,
        "energy_pJ.dram_read": 3e9,
        "speedup_over.NVIDIA_T4_roofline": 2.0 * size,
        "speedup_over.NVIDIA_H200_graph": 8.0 if row["model"] != "bb" else None,
        "energy_saving_over.NVIDIA_T4_roofline": 100.0 * size,
        "energy_saving_over.NVIDIA_H200_graph": None,
    }


def write(
    folder: Path, grids: Grids, models: Sequence[str] = ("a",), archs: Sequence[str] = ("pim-gpt",),
    numbers: Callable[[Row], Row] = results, fails: Callable[[Row], bool] = lambda row: False,
) -> Path:  # fmt: skip
    """Write a sweep as `pimloom sweep` does; keys that are swept together are joined by a comma."""
    rows: list[Row] = []
    told = []
    for name, axes in grids.items():
        points = []
        keys = [key.split(",") for key in axes]
        values = [[v if "," in key else (v,) for v in values] for key, values in axes.items()]
        for model, arch, *steps in itertools.product(models, archs, *values):
            row = {"model": model, "arch": arch}
            for names, step in zip(keys, steps, strict=True):
                row |= dict(zip(names, step, strict=True))
            bad = fails(row)
            found = dict.fromkeys(numbers(row)) if bad else numbers(row)
            points.append(f"{name}{len(rows)}")
            rows.append(row | found | {"error": "does not fit" if bad else "", "point": points[-1]})
        axes_told = [
            {"keys": k, "values": [list(step) for step in v]} for k, v in zip(keys, values, strict=True)
        ]
        told.append({"name": name, "axes": axes_told, "points": points})
    about = {"schema_version": 1, "name": "study", "description": "", "set": {}}
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(about | {"models": list(models), "archs": list(archs), "grids": told})
    (folder / "sweep.json").write_text(text)
    pd.DataFrame(rows).to_parquet(folder / "table.parquet")
    return folder


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Sweep]:
    """A sweep of one grid, or of several given as a mapping by name."""

    def make(axes: dict[str, Any], *args: Any, **more: Any) -> Sweep:
        grids = axes if axes and all(isinstance(v, dict) for v in axes.values()) else {"grid": axes}
        return load_sweep(write(tmp_path / "sweep", grids, *args, **more))

    return make


def short(specs: Sequence[Spec]) -> list[tuple[str, str, str, str | None]]:
    return [(spec.kind, spec.x, spec.y, spec.hue) for spec in specs]


def one(sweep: Sweep, **wanted: Any) -> Spec:
    (spec,) = figures(sweep, Wanted(**wanted))
    return spec


def heights(ax: Any) -> list[list[float]]:
    """Ends of the bars by series, from left to right."""
    return [[bar.get_y() + bar.get_height() for bar in series] for series in ax.containers]


def legend(ax: Any) -> list[str]:
    return [text.get_text() for box in ax.figure.legends for text in box.get_texts()]


def ticks(axis: Any) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


# --- which figures ----------------------------------------------------------------------------

LINES = ("tokens_per_s", "energy_per_token_pJ")
RATIOS = ("speedup", "energy_saving")


def test_one_axis_gives_lines(make: Any) -> None:
    specs = figures(make(CHANNELS))
    assert short(specs) == [("line", "dram.channels", y, None) for y in LINES]
    assert specs[0].where == {"model": "a", "arch": "pim-gpt"}


def test_one_axis_of_several_models(make: Any) -> None:
    sweep = make(CHANNELS, ["a", "bbb"])
    assert short(figures(sweep)) == [
        *(("line", "dram.channels", y, "model") for y in LINES),
        *(("bars", "model", y, "dram.channels") for y in RATIOS),
        ("pareto", "energy_per_token_pJ", "tokens_per_s", "model"),
    ]
    assert {spec.over for spec in figures(sweep) if spec.kind == "bars"} == {"dram.channels=4"}


def test_two_axes(make: Any) -> None:
    specs = figures(make(CHANNELS | CLOCKS))
    assert short(specs) == [
        *(("line", "asic.clock_Hz", y, "dram.channels") for y in LINES),
        ("heat", "asic.clock_Hz", "tokens_per_s", "dram.channels"),
        ("pareto", "energy_per_token_pJ", "tokens_per_s", None),
    ]


def test_what_is_not_shown_is_held_at_its_last_value(make: Any) -> None:
    specs = figures(make(CHANNELS | CLOCKS | BARRIERS, ["a", "bbb"], ["pim-gpt", "fast"]))
    where = {spec.kind: spec.where for spec in specs}
    assert where["line"] == {"arch": "fast", "dram.channels": "16", "mapping.barrier": "data"}
    assert where["heat"] == {"model": "bbb", "arch": "fast", "mapping.barrier": "data"}
    assert where["bars"] == {"dram.channels": "16", "asic.clock_Hz": "2000000000", "mapping.barrier": "data"}
    assert where["pareto"] == {}


def test_points_of_different_work_are_no_alternatives(make: Any) -> None:
    sweep = make(TOKENS | CHANNELS, ["a", "bbb"])
    where = {spec.kind: spec.where for spec in figures(sweep)}
    assert where["pareto"] == {"arch": "pim-gpt", "workload.generate": "128"}
    assert one(sweep, y="speedup", where={"dram.channels": "8"}).hue == "processor"


def test_a_zipped_axis_is_one_axis(make: Any) -> None:
    sweep = make(RATES)
    specs = figures(sweep)
    assert short(specs) == [("line", "dram.io.rate_bps", y, None) for y in LINES]
    ax = draw(sweep, specs[0])
    assert ax.get_xlabel() == "pin rate = link rate (Gb/s)"
    assert ticks(ax.xaxis) == ["8", "16", "24"]
    assert one(sweep, x="link.rate_bps", y="ttft_ns").x == "link.rate_bps"


def test_a_zipped_axis_that_no_key_tells_apart(make: Any) -> None:
    sweep = make({"pim.lanes,asic.adders": ((4, 64), (4, 128), (8, 128))})
    spec = one(sweep, y="tokens_per_s")
    assert spec.x == "pim.lanes & asic.adders"
    assert ticks(draw(sweep, spec).xaxis) == ["4, 64", "4, 128", "8, 128"]
    with pytest.raises(InputError, match="equal values at several points"):
        figures(sweep, Wanted(x="pim.lanes"))
    both = make({"zipped": {"pim.lanes,asic.adders": ((4, 64), (4, 128), (8, 128))}, "channels": CHANNELS})
    held = {"pim.lanes & asic.adders": "4, 64"}
    with pytest.raises(InputError, match="no point has"):
        figures(both, Wanted(grid="channels", where=held))


def test_only_models_are_compared_with_processors(make: Any) -> None:
    sweep = make({}, ["a", "bbb"])
    assert short(figures(sweep)) == [("bars", "model", y, "processor") for y in RATIOS]
    ax = draw(sweep, figures(sweep)[0])
    assert legend(ax) == ["T4 (roofline)", "H200 graph (measured)"]
    assert heights(ax) == [pytest.approx([2, 6, math.sqrt(12)]), pytest.approx([8, 8, 8])]
    assert ticks(ax.xaxis) == ["a", "bbb", "geo. mean"]
    roofline, measured = (series[0] for series in ax.containers)
    assert roofline.get_facecolor() == (1, 1, 1, 1)
    assert measured.get_facecolor() != (1, 1, 1, 1)


def test_only_machines(make: Any) -> None:
    specs = figures(make({}, ["a"], ["pim-gpt", "fast"]))
    assert short(specs) == [("bars", "arch", y, "processor") for y in RATIOS]


def test_models_and_machines(make: Any) -> None:
    sweep = make({}, ["a", "bbb"], ["pim-gpt", "fast"])
    specs = figures(sweep)
    assert short(specs) == [("bars", "model", y, "arch") for y in RATIOS]
    assert heights(draw(sweep, specs[0])) == [pytest.approx([2, 2, 2])]


def test_a_text_axis_gives_bars(make: Any) -> None:
    sweep = make(BARRIERS)
    assert short(figures(sweep)) == [("bars", "mapping.barrier", y, None) for y in LINES]
    assert ticks(draw(sweep, figures(sweep)[0]).xaxis) == ["instruction", "data"]


def test_names_are_not_joined_by_lines(make: Any) -> None:
    sweep = make(BARRIERS | CHANNELS)
    ax = draw(sweep, one(sweep, kind="line", x="mapping.barrier", y="tokens_per_s"))
    assert {line.get_linestyle() for line in ax.lines} == {"None"}


def test_a_value_that_may_be_missing_is_no_number(make: Any) -> None:
    sweep = make({"mapping.max_tokens": (None, 512), "mapping.barrier": ("data",)})
    spec = figures(sweep)[0]
    assert spec.kind == "bars"
    assert ticks(draw(sweep, spec).xaxis) == ["null", "512"]


def test_failed_rows_are_counted_and_left_out(make: Any) -> None:
    sweep = make(CHANNELS, ["a", "bbb"], fails=lambda row: row["model"] == "bbb" or row["dram.channels"] == 4)
    assert (sweep.failed, len(sweep.table)) == (4, 2)
    assert short(figures(sweep)) == [("line", "dram.channels", y, None) for y in LINES]
    line = draw(sweep, figures(sweep)[0]).lines[0]
    assert list(line.get_ydata()) == [80, 160]


def test_nothing_left_or_nothing_varied(make: Any) -> None:
    with pytest.raises(InputError, match="all 3 points failed"):
        figures(make(CHANNELS, fails=lambda row: True))
    with pytest.raises(InputError, match="nothing varies"):
        figures(make({}))


def test_every_grid_has_its_figures(make: Any) -> None:
    sweep = make({"channels": CHANNELS, "barrier": BARRIERS})
    assert [(spec.grid, spec.kind) for spec in figures(sweep)] == [
        *[("channels", "line")] * 2,
        *[("barrier", "bars")] * 2,
    ]
    assert {spec.grid for spec in figures(sweep, Wanted(x="dram.channels"))} == {"channels"}
    assert {spec.grid for spec in figures(sweep, Wanted(grid="barrier"))} == {"barrier"}
    with pytest.raises(InputError, match="no grid 'chanels' \\(did you mean 'channels'"):
        figures(sweep, Wanted(grid="chanels"))


def test_many_models_are_no_hue(make: Any) -> None:
    sweep = make(CHANNELS, [f"model-{i}" for i in range(12)])
    specs = {spec.kind: spec for spec in figures(sweep)}
    assert specs["line"].hue is None
    assert specs["line"].where["model"] == "model-11"
    with pytest.raises(InputError, match="12 values, but a figure tells at most 8 apart"):
        figures(sweep, Wanted(hue="model"))
    for spec in specs.values():
        draw(sweep, spec)


# --- what is asked for ------------------------------------------------------------------------


def test_the_kind_follows_from_the_axes(make: Any) -> None:
    sweep = make(CHANNELS | CLOCKS, ["a", "bbb"])
    assert one(sweep, x="dram.channels", y="ttft_ns").kind == "line"
    assert one(sweep, x="model", y="ttft_ns").kind == "bars"
    assert one(sweep, x="ttft_ns", y="tokens_per_s").kind == "pareto"
    assert one(sweep, y="speedup").kind == "bars"
    assert one(sweep, y="ttft_ns", hue="asic.clock_Hz") == one(
        sweep, kind="line", x="dram.channels", y="ttft_ns", hue="asic.clock_Hz", where={"model": "bbb"}
    )


def test_a_heat_map_takes_its_keys_as_x_and_y(make: Any) -> None:
    sweep = make(CHANNELS | CLOCKS)
    spec = one(sweep, x="dram.channels", y="asic.clock_Hz", hue="ttft_ns")
    assert (spec.kind, spec.x, spec.hue, spec.y) == ("heat", "dram.channels", "asic.clock_Hz", "ttft_ns")


@pytest.mark.parametrize("text", ["8", "8.0", "8e0"])
def test_where_compares_numbers(make: Any, text: str) -> None:
    sweep = make(CHANNELS | CLOCKS)
    spec = one(sweep, y="tokens_per_s", where={"dram.channels": text})
    assert spec.where == {"dram.channels": "8", "model": "a", "arch": "pim-gpt"}
    assert max(draw(sweep, spec).lines[0].get_ydata()) == pytest.approx(80 * math.sqrt(2))


def test_the_title_says_what_is_held(make: Any) -> None:
    sweep = make(CHANNELS | CLOCKS | TOKENS)
    spec = one(sweep, x="dram.channels", y="ttft_ns", hue="workload.generate")
    assert draw(sweep, spec).get_title(loc="left") == "a on pim-gpt\nASIC clock = 2 GHz"


WRONG = [
    ({"kind": "lines"}, "no kind of figure 'lines' (did you mean 'line'?)"),
    ({"y": "token_per_s"}, "token_per_s: no number that the sweep has (did you mean 'tokens_per_s'?)"),
    ({"y": "error"}, "such are tokens_per_s, energy_per_token_pJ"),
    ({"x": "dram.channel"}, "dram.channel: not swept (did you mean 'dram.channels'?); swept are model"),
    ({"hue": "processor", "y": "ttft_ns"}, "processor: only lines and bars of speedup or energy_saving"),
    ({"hue": "processor", "kind": "heat"}, "processor: only lines and bars of speedup or energy_saving"),
    (
        {"hue": "processor", "y": "speedup", "over": "NVIDIA_T4_roofline"},
        "processor: only lines and bars of speedup or energy_saving",
    ),
    ({"hue": "processor", "kind": "pareto"}, "processor: only lines and bars of speedup or energy_saving"),
    ({"where": {"dram.chanels": "8"}}, "dram.chanels: not swept (did you mean 'dram.channels'?)"),
    ({"where": {"dram.channels": "9"}}, "dram.channels: no point has '9'; there are 4, 8, 16"),
    (
        {"x": "dram.channels", "where": {"dram.channels": "8"}},
        "dram.channels: the figure shows it, so it cannot be held at 8",
    ),
    ({"y": "speedup", "over": "T4"}, "speedup over T4: not known"),
    ({"y": "energy_saving", "over": "H200_graph"}, "energy_saving over H200_graph: not known"),
    ({"y": "speedup", "over": "NVIDIA_T4_rofline"}, "(did you mean 'NVIDIA_T4_roofline'?)"),
    ({"y": "speedup", "over": "dram.channels=5"}, "dram.channels: no point has '5'; there are 4, 8, 16"),
    ({"y": "speedup", "over": "dram.chanels=4"}, "dram.chanels: not swept (did you mean 'dram.channels'?)"),
    ({"y": "ttft_ns", "over": "dram.channels=4"}, "ttft_ns: not over anything"),
    ({"x": "ttft_ns", "y": "speedup"}, "speedup: over what?"),
    ({"kind": "heat"}, "a figure of kind heat needs two swept keys"),
]


@pytest.mark.parametrize(("wanted", "message"), WRONG)
def test_wrong_wishes(make: Any, wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        figures(make(CHANNELS), Wanted(**wanted))
    assert message in str(error.value)


def test_a_metric_without_any_number(make: Any) -> None:
    sweep = make(CHANNELS | {"workload.generate": (1,)})
    with pytest.raises(InputError, match="tpot_ns: not known at any point with model = a"):
        figures(sweep, Wanted(y="tpot_ns"))


def test_a_spec_that_mixes_points_is_refused(make: Any) -> None:
    sweep = make(CHANNELS | CLOCKS)
    spec = one(sweep, x="dram.channels", y="ttft_ns", hue="asic.clock_Hz")
    with pytest.raises(InputError, match=r"asic.clock_Hz: neither shown nor held"):
        draw(sweep, replace(spec, hue=None))


# --- which numbers ----------------------------------------------------------------------------


def test_bars_are_over_the_first_value_and_end_with_the_geometric_mean(make: Any) -> None:
    def numbers(row: Row) -> Row:
        pace = {("a", 4): 10, ("a", 8): 20, ("bb", 4): 5, ("bb", 8): 40}
        joule = {("a", 4): 3, ("a", 8): 6, ("bb", 4): 4, ("bb", 8): 1}
        at = row["model"], row["dram.channels"]
        return {"tokens_per_s": pace[at], "energy_per_token_pJ": 1e12 * joule[at]}

    sweep = make({"dram.channels": (4, 8)}, ["a", "bb"], numbers=numbers)
    speedup, saving = (spec for spec in figures(sweep) if spec.kind == "bars")
    ax = draw(sweep, speedup)
    assert heights(ax) == [pytest.approx([2, 8, 4])]
    assert heights(draw(sweep, saving)) == [pytest.approx([0.5, 4, math.sqrt(2)])]
    assert ax.get_ylabel() == "speedup\nover DRAM channels = 4 (×)"
    assert ax.get_ylim()[0] == 0
    assert legend(ax) == ["8"]


def test_a_ratio_without_its_reference_is_not_drawn(make: Any) -> None:
    sweep = make(CHANNELS, ["a", "bb", "ccc"], fails=lambda r: r["model"] == "bb" and r["dram.channels"] == 4)
    ax = draw(sweep, next(spec for spec in figures(sweep) if spec.y == "speedup"))
    assert ticks(ax.xaxis) == ["a", "bb", "ccc", "geo. mean of 2"]
    assert [text.get_text() for text in ax.texts if text.xy[0] == 1 and text.get_text() == "n/a"] == ["n/a"]
    assert heights(ax) == [pytest.approx([2, 2, 2]), pytest.approx([4, 4, 4])]


def test_a_mean_is_over_models_that_all_bars_have(make: Any) -> None:
    sweep = make({}, ["a", "bb", "ccc"])
    ax = draw(sweep, next(spec for spec in figures(sweep) if spec.y == "speedup"))
    assert ticks(ax.xaxis) == ["a", "bb", "ccc", "geo. mean of 2"]
    assert heights(ax)[0] == pytest.approx([2, 4, 6, math.sqrt(12)])
    assert heights(ax)[1] == pytest.approx([8, 8, 8])


def test_lines_may_be_over_a_point_or_a_processor(make: Any) -> None:
    sweep = make(CHANNELS, ["a"], ["pim-gpt", "fast"])
    first = one(sweep, kind="line", y="speedup")
    assert first.over == "dram.channels=4"
    assert [list(line.get_ydata()) for line in draw(sweep, first).lines] == [[1, 2, 4], [1, 2, 4]]
    other = draw(sweep, one(sweep, kind="line", y="speedup", over="arch=pim-gpt"))
    assert [list(line.get_ydata()) for line in other.lines] == [[1, 1, 1], [2, 2, 2]]
    assert other.get_ylabel() == "speedup over pim-gpt (×)"
    for name in ("NVIDIA_T4_roofline", "T4_roofline"):
        processor = draw(sweep, one(sweep, kind="line", y="speedup", over=name))
        assert list(processor.lines[0].get_ydata()) == [2, 2, 2]
        assert processor.get_ylabel() == "speedup over T4 (roofline) (×)"


def test_a_column_of_a_ratio_is_a_metric(make: Any) -> None:
    sweep = make(CHANNELS)
    ax = draw(sweep, one(sweep, y="speedup_over.NVIDIA_T4_roofline"))
    assert ax.get_ylabel() == "speedup over T4 (roofline) (×)"


def test_ratios_of_a_wide_range_are_bars_from_one_on_a_log_axis(make: Any) -> None:
    ax = draw(*_first(make({}, EIGHT), "energy_saving"))
    assert ax.get_yscale() == "log"
    assert {bar.get_y() for bar in ax.patches} == {1}
    assert "log scale" in ax.get_ylabel()


def _first(sweep: Sweep, metric: str) -> tuple[Sweep, Spec]:
    return sweep, next(spec for spec in figures(sweep) if spec.y == metric)


def test_a_heat_map_shows_its_values(make: Any) -> None:
    sweep = make(
        CHANNELS | {"pim.lanes": (8, 16)},
        fails=lambda r: r.get("pim.lanes") == 8 and r["dram.channels"] == 16,
    )
    spec = next(spec for spec in figures(sweep) if spec.kind == "heat")
    ax = draw(sweep, spec)
    assert [text.get_text() for text in ax.texts] == ["40.0", "80.0", "–", "40.0", "80.0", "160"]
    assert {text.get_color() for text in ax.texts} == {"white", "black"}
    bar = next(other for other in ax.figure.axes if other is not ax)
    assert bar.get_ylabel() == "tokens per second (1/s)"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("DRAM channels", "MAC lanes per bank")


def test_pareto_front_of_a_sweep(make: Any) -> None:
    def numbers(row: Row) -> Row:
        joule = {4: 1, 8: 2, 16: 3}[row["dram.channels"]]
        pace = {4: 10, 8: 5, 16: 20}[row["dram.channels"]]
        return {"tokens_per_s": pace, "energy_per_token_pJ": 1e9 * joule}

    sweep = make(CHANNELS | {"mapping.barrier": ("data", "instruction")}, numbers=numbers)
    spec = next(spec for spec in figures(sweep, Wanted(kind="pareto")))
    ax = draw(sweep, spec)
    (line,) = ax.lines
    assert sorted(set(zip(*line.get_data(), strict=True))) == [(1, 10), (3, 20)]
    assert {text.get_text() for text in ax.texts} <= {
        "4, data",
        "4, instruction",
        "16, data",
        "16, instruction",
    }
    assert "the upper left is better" in ax.get_title(loc="left")


def test_a_front_for_each_model(make: Any) -> None:
    sweep = make(CHANNELS | CLOCKS, EIGHT)
    ax = draw(sweep, next(spec for spec in figures(sweep) if spec.kind == "pareto"))
    assert len(ax.lines) == 8
    assert legend(ax) == list(EIGHT)


cost = st.integers(0, 6) | st.floats(0, 1e9, allow_subnormal=False)


@given(st.lists(st.tuples(cost, cost), max_size=30))
def test_the_front_against_brute_force(costs: list[tuple[float, float]]) -> None:
    def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a != b and a[0] <= b[0] and a[1] <= b[1]

    found = front(costs)
    assert sorted(found) == [i for i, b in enumerate(costs) if not any(beats(a, b) for a in costs)]
    assert [costs[i] for i in found] == sorted(costs[i] for i in found)


# --- what it looks like -----------------------------------------------------------------------


def test_swept_numbers_are_ticks(make: Any) -> None:
    sweep = make(CLOCKS)
    ax = draw(sweep, figures(sweep)[0])
    assert ax.get_xscale() == "log"
    assert list(ax.get_xticks()) == [1e8, 2e8, 5e8, 1e9, 2e9]
    assert ticks(ax.xaxis) == ["100", "200", "500", "1000", "2000"]
    assert ax.get_xlabel() == "ASIC clock (MHz)"


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ((1, 2, 4, 8), "log"),
        ((1, 2, 5, 10), "log"),
        ((1, 2, 3, 4, 5), "linear"),
        ((4, 8), "linear"),
        ((0, 1, 8), "linear"),
    ],
)
def test_even_ratios_stand_on_a_log_axis(make: Any, values: tuple[int, ...], scale: str) -> None:
    sweep = make({"asic.newton_iterations": values})
    assert draw(sweep, figures(sweep)[0]).get_xscale() == scale


def test_tick_labels_do_not_overlap(make: Any) -> None:
    sweep = make({"workload.generate": (1, 2, 3, 4, 1000, 1001, 2000)})
    ax = draw(sweep, figures(sweep)[0])
    renderer = _rendered(ax)
    boxes = [label.get_window_extent(renderer) for label in ax.get_xticklabels() if label.get_text()]
    assert len(boxes) >= 3
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(sorted(boxes, key=lambda box: box.x0)))


def test_labels_are_rounded_as_long_as_they_differ(make: Any) -> None:
    for values, labels in (
        ((129154967, 215443469), ["129.2", "215.4"]),
        ((100001000, 100002000), ["100.001", "100.002"]),
    ):
        sweep = make({"asic.clock_Hz": values})
        assert ticks(draw(sweep, figures(sweep)[0]).xaxis) == labels


def test_values_of_different_units_carry_them(make: Any) -> None:
    sweep = make({"asic.sram_B": (512, 65536, 2**26)})
    assert ticks(draw(sweep, figures(sweep)[0]).xaxis) == ["512 B", "64 KiB", "64 MiB"]


def test_eight_lines_look_different(make: Any) -> None:
    sweep = make(CHANNELS, EIGHT)
    ax = draw(sweep, figures(sweep)[0])
    for look in ("get_color", "get_marker"):
        assert len({getattr(line, look)() for line in ax.lines}) == 8
    assert (
        len(
            {
                (line.get_linestyle(), line._dash_pattern[1] and tuple(line._dash_pattern[1]))
                for line in ax.lines
            }
        )
        == 8
    )
    assert legend(ax) == list(EIGHT)
    assert len({hatch for *_, hatch in sweep_plots.LOOKS}) == 8


def test_a_metric_axis_starts_at_zero_unless_its_range_is_narrow_or_wide(make: Any) -> None:
    def of(values: dict[int, float]) -> Any:
        sweep = make(CHANNELS, numbers=lambda row: {"tokens_per_s": values[row["dram.channels"]]})
        return draw(sweep, figures(sweep)[0])

    assert of({4: 5, 8: 9, 16: 7}).get_ylim()[0] == 0
    assert of({4: 100, 8: 99, 16: 98}).get_ylim()[0] > 90
    assert of({4: 1, 8: 50, 16: 900}).get_yscale() == "log"


EVERY = (CHANNELS, CHANNELS | CLOCKS, RATES | BARRIERS, TOKENS | CHANNELS, BARRIERS, {})


@pytest.mark.parametrize("axes", EVERY)
@pytest.mark.parametrize("models", [("a", "bbb"), EIGHT])
def test_nothing_is_cut_off_or_covered(make: Any, axes: dict[str, Any], models: tuple[str, ...]) -> None:
    sweep = make(axes, models, ["pim-gpt", "fast"])
    for spec in figures(sweep):
        ax = draw(sweep, spec)
        renderer = _rendered(ax)
        figure = ax.figure
        assert figure.get_figwidth() == 3.5
        whole = figure.bbox.padded(1)
        texts = [
            ax.xaxis.label,
            ax.yaxis.label,
            ax._left_title,
            *ax.texts,
            *shown(ax.xaxis),
            *shown(ax.yaxis),
        ]
        for artist in (*(text for text in texts if text.get_text()), *figure.legends):
            box = artist.get_window_extent(renderer)
            assert whole.x0 <= box.x0 and box.x1 <= whole.x1, (spec, artist)
            assert whole.y0 <= box.y0 and box.y1 <= whole.y1, (spec, artist)
        for box in figure.legends:
            assert box.get_window_extent(renderer).y1 <= ax.get_tightbbox(renderer).y0 + 1


def shown(axis: Any) -> list[Any]:
    """Labels of the ticks that are in sight."""
    low, high = sorted(axis.get_view_interval())
    at = zip(axis.get_majorticklocs(), axis.get_ticklabels(), strict=True)
    return [label for place, label in at if low <= place <= high and label.get_text()]


def _rendered(ax: Any) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(ax.figure)
    canvas.draw()
    return canvas.get_renderer()


def test_axes_of_ones_own_keep_their_figure(make: Any) -> None:
    sweep = make(CHANNELS, EIGHT)
    figure = Figure(figsize=(7, 3))
    left, right = figure.subplots(1, 2)
    for ax, spec in zip((left, right), figures(sweep), strict=False):
        assert draw(sweep, spec, ax) is ax
    assert figure.get_figheight() == 3
    assert left.get_legend() is not None


def test_a_dollar_is_no_formula(make: Any, tmp_path: Path) -> None:
    sweep = make(CHANNELS, ["$x_", "b$\\frac$"])
    assert save(sweep, figures(sweep)[:1], tmp_path / "figures")


# --- labels -----------------------------------------------------------------------------------

LABELS = {
    "dram.channels": ("DRAM channels", (8, 16), ["8", "16"]),
    "dram.io.rate_bps": ("pin rate (Gb/s)", (8e9, 16e9), ["8", "16"]),
    "asic.clock_Hz": ("ASIC clock (MHz)", (5e8, 1e9), ["500", "1000"]),
    "pim.lanes": ("MAC lanes per bank", (8, 16), ["8", "16"]),
    "pim.buffer_B": ("input buffer (KiB)", (1024, 2048), ["1", "2"]),
    "dram.timing.nRP": ("nRP (clocks)", (12, 24), ["12", "24"]),
    "link.latency_ns": ("link latency (ns)", (2, 4), ["2", "4"]),
    "pim.mac_power_W": ("pim.mac_power (W)", (0.1, 0.2), ["0.1", "0.2"]),
    "pim.buffer_read_pJ": ("pim.buffer_read (pJ)", (0.25, 0.5), ["0.25", "0.5"]),
    "energy.io_pJ_per_bit": ("energy.io (pJ/bit)", (4, 5.5), ["4", "5.5"]),
    "dram.currents.IDD0_mA": ("dram.currents.IDD0 (mA)", (100, 122), ["100", "122"]),
    "asic.taylor_terms": ("asic.taylor_terms", (4, 6), ["4", "6"]),
    "workload.generate": ("new tokens", (128, 1024), ["128", "1024"]),
}


@pytest.mark.parametrize("key", LABELS)
def test_swept_keys_are_labelled_with_their_unit(make: Any, key: str) -> None:
    label, values, numbers = LABELS[key]
    sweep = make({key: values})
    ax = draw(sweep, figures(sweep)[0])
    assert ax.get_xlabel() == label
    assert ticks(ax.xaxis) == numbers


METRICS = {
    "tokens_per_s": "tokens per second (1/s)",
    "energy_per_token_pJ": "energy per token (mJ)",
    "ttft_ns": "time to first token (ms)",
    "pim_utilisation": "PIM utilisation (%)",
    "energy_pJ.dram_read": "energy: DRAM reads (mJ)",
}


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_are_labelled_with_their_unit(make: Any, metric: str) -> None:
    sweep = make(CHANNELS)
    assert draw(sweep, one(sweep, y=metric)).get_ylabel() == METRICS[metric]


def test_a_key_has_the_unit_that_the_glossary_says() -> None:
    shares = {"pim_utilisation", "pim_utilisation_useful", "row_hit_rate", "refresh_time_share"}
    for key, definition in definitions().items():
        first = unit_of(key).names[0]
        if definition.unit.endswith("_unit") or key.startswith(("energy_rows", "interface_bytes.reduction")):
            continue
        is_share = key in shares or key.split(".")[0].endswith("_share")
        assert first == ("%" if is_share else definition.unit), key


def test_names_do_not_repeat_the_unit() -> None:
    assert name_of("latency_share.qkv") == "time share: Q, K, V"
    assert name_of("memory.wasted_B") == "memory.wasted"
    assert name_of("commands.ACT") == "commands.ACT"


def test_values_as_titles_say_them() -> None:
    assert value_text("dram.io.rate_bps", "16000000000") == "16 Gb/s"
    assert value_text("asic.clock_Hz", "100000000") == "100 MHz"
    assert value_text("mapping.barrier", "data") == "data"
    assert value_text("dram.rows", "16384") == "16384"
    assert value_text("asic.clock_Hz", "129154967") == "129.2 MHz"


def test_equal_values_have_equal_words() -> None:
    assert word(8) == word(8.0) == word("8") == word("8e0") == "8"
    assert word(None) == word(math.nan) == word(pd.NA) == "null"
    assert word(True) == word(pd.Series([True])[0]) == "true"
    assert word("nan") == "nan"


# --- files ------------------------------------------------------------------------------------


def test_files_are_the_same_bytes_each_time(make: Any, tmp_path: Path) -> None:
    sweep = make(CHANNELS | {"pim.lanes": (8, 16)}, ["a", "bbb"])
    specs = figures(sweep)
    assert {spec.kind for spec in specs} == {"line", "heat", "bars", "pareto"}
    first, second = (save(sweep, specs, tmp_path / name) for name in ("first", "second"))
    assert len(first) == 3 * len(specs)
    for a, b in zip(first, second, strict=True):
        assert a.name == b.name
        assert a.read_bytes() == b.read_bytes()


def test_files_are_one_column_wide_and_keep_their_text(make: Any, tmp_path: Path) -> None:
    sweep = make(CHANNELS)
    png, pdf, svg = save(sweep, figures(sweep)[:1], tmp_path)
    assert [path.name for path in (png, pdf, svg)] == [f"line_tokens_per_s.{s}" for s in sweep_plots.SUFFIXES]
    assert int.from_bytes(png.read_bytes()[16:20], "big") == 3.5 * 300
    assert b"/MediaBox [ 0 0 252 " in pdf.read_bytes()
    assert 'width="252pt"' in svg.read_text()
    assert ">DRAM channels</text>" in svg.read_text()
    assert not plt.get_fignums()


def test_names_of_files(make: Any, tmp_path: Path) -> None:
    sweep = make({"../../etc/p w": CHANNELS, "..-..-etc-p w": CHANNELS, "C": CHANNELS, "c": CHANNELS})
    folder = tmp_path / "figures"
    paths = save(sweep, figures(sweep, Wanted(y="tokens_per_s")), folder)
    assert {path.parent for path in paths} == {folder}
    assert [path.stem for path in paths[::3]] == [
        "-etc-p-w_line_tokens_per_s",
        "----etc-p-w_line_tokens_per_s",
        "C_line_tokens_per_s",
        "c_line_tokens_per_s_2",
    ]
    assert not plt.get_fignums()


def test_a_folder_that_cannot_be_written(make: Any, tmp_path: Path) -> None:
    sweep = make(CHANNELS)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        save(sweep, figures(sweep), tmp_path / "file")


# --- reading ----------------------------------------------------------------------------------


def test_the_folder_is_told_apart(tmp_path: Path) -> None:
    folder = write(tmp_path / "channels", {"grid": CHANNELS})
    sweep = load_sweep(folder)
    assert (sweep.name, sweep.models, sweep.archs) == ("study", ("a",), ("pim-gpt",))
    with pytest.raises(InputError, match="no such folder \\(did you mean 'channels'"):
        load_sweep(tmp_path / "chanels")
    with pytest.raises(InputError, match=r"no sweep: there is no sweep.json; there are channels"):
        load_sweep(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text("{}")
    with pytest.raises(InputError, match="a single run, no sweep; its figures are in"):
        load_sweep(tmp_path / "run")
    with pytest.raises(InputError, match="cannot be read"):
        load_sweep(folder / "sweep.json")


def test_broken_files(tmp_path: Path) -> None:
    folder = write(tmp_path, {"grid": CHANNELS})
    good = (folder / "sweep.json").read_text()
    for text, message in (
        ("{", "broken: Invalid JSON"),
        ("[]", "broken"),
        (good.replace('"schema_version": 1', '"schema_version": 2'), "schema_version: Input should be 1"),
        (good.replace('"models"', '"model"'), "models: Field required"),
        (good.replace("[16]", "[32]"), "disagree about dram.channels"),
        (good.replace("[[4], [8], [16]]", "[[4, 5], [8], [16]]"), "disagree about dram.channels"),
        (good.replace("dram.channels", "dram.rows"), "has no column 'dram.rows'"),
        (good.replace('"axes": [', '"axes": [], "old": ['), "several points with equal values"),
        (good.replace('["a"]', "[]"), "disagree about model"),
    ):
        (folder / "sweep.json").write_text(text)
        with pytest.raises(InputError) as error:
            load_sweep(folder)
        assert message in str(error.value)
    (folder / "sweep.json").write_text(good)
    (folder / "table.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"table.parquet"):
        load_sweep(folder)
    (folder / "table.parquet").unlink()
    with pytest.raises(InputError, match=r"table.parquet: is missing"):
        load_sweep(folder)


def test_columns_of_mixed_types_and_switches(make: Any) -> None:
    sweep = make({"workload.head": (True, False)}, ["a"])
    assert ticks(draw(sweep, figures(sweep)[0]).xaxis) == ["true", "false"]
    assert one(sweep, x="workload.head", y="ttft_ns").kind == "bars"
