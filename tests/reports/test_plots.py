"""Figures: what stands on the axes, and that files come out."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from pimloom.reports import plots
from pimloom.reports.baselines import Baseline
from pimloom.reports.quantity import joules, percent, seconds, times
from pimloom.reports.result import Result

mpl.use("Agg")

GPUS = [
    Baseline("GPU A, graph", "measured", 3e9, 5e12, "how"),
    Baseline("GPU B, roofline", "roofline", 5e5, None, "how"),
]


def texts(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.texts]


def names(ax: Any) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def test_latency_over_position(tiny: Result) -> None:
    ax = tiny.plot.latency()
    (line,) = (line for line in ax.lines if len(line.get_xdata()) == 4)
    factor = 1e-3
    assert list(line.get_ydata()) == pytest.approx([ns * factor for ns in tiny.time_per_token_ns])
    assert ax.get_ylabel() == "time per token (µs)"
    assert ax.get_ylim()[0] == 0
    assert {"prompt ", " generation"} <= set(texts(ax))
    assert ax.get_title(loc="left") == "gpt2-tiny on pim-gpt\n2 prompt + 3 new tokens"


def test_shares_are_sorted_and_labelled(tiny: Result) -> None:
    ax = tiny.plot.latency_share()
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == sorted(widths)
    assert sum(widths) == pytest.approx(100)
    assert len(texts(ax)) == len(tiny.summary["latency_share"])
    assert ax.get_xlabel() == f"share of {seconds(tiny.total_time_ns)} (%)"


def test_energy_by_operator(tiny: Result) -> None:
    ax = tiny.plot.energy_by_operator()
    assert sum(bar.get_width() for bar in ax.patches) == pytest.approx(100)
    assert len(names(ax)) == len(tiny.summary["energy_by_operator_pJ"])
    assert "layer norm" in names(ax)
    assert joules(tiny.energy_pJ["total"]) in ax.get_xlabel()


def test_unknown_energy_is_named_and_not_drawn(tiny: Result) -> None:
    ax = tiny.plot.energy_share()
    assert "not included: link, ASIC SRAM" in texts(ax)
    assert "link" not in names(ax)
    assert sum(bar.get_width() for bar in ax.patches) == pytest.approx(100)
    assert joules(tiny.energy_pJ["total"]) in ax.get_xlabel()


def test_every_speedup_says_against_what(tiny: Result) -> None:
    ax = plots.speedup(dict(tiny.summary, total_time_ns=1e6), GPUS)
    assert names(ax) == ["GPU B", "data-sheet roofline", "GPU A, graph", "measured"]
    assert texts(ax) == ["0.500×", "3000×"]
    assert ax.get_xscale() == "log"
    ratio = plots.energy_ratio(dict(tiny.summary, energy_pJ={"total": 1e12}), GPUS)
    assert names(ratio) == ["GPU A, graph", "measured, whole board"]
    assert texts(ratio) == ["5.00×"]


def test_axes_of_ones_own_keep_their_figure(tiny: Result) -> None:
    figure = Figure(figsize=(7, 3))
    left, right = figure.subplots(1, 2)
    assert tiny.plot.latency_share(left) is left
    assert tiny.plot.speedup(right) is right
    assert figure.get_figheight() == 3
    assert left.get_legend() is not None


def test_saved_figures_are_one_column_wide(tiny: Result, tmp_path: Path) -> None:
    paths = tiny.plot.save(tmp_path)
    assert len(paths) == 2 * len(plots.NAMES)
    assert all(path.stat().st_size > 3000 for path in paths)
    png = next(path for path in paths if path.name == "latency.png").read_bytes()
    width, dpi = int.from_bytes(png[16:20], "big"), 300
    assert width == 3.5 * dpi


def test_a_single_pass_can_be_drawn(tiny: Result) -> None:
    one = dict(tiny.summary, time_per_token_ns=[5e9], workload={"prompt": 1, "generate": 1, "batch": 2})
    ax = plots.latency(one)
    assert texts(ax) == ["5 s"]
    assert ax.get_title(loc="left").endswith("2 × (1 prompt + 1 new tokens)")


def test_numbers_for_readers() -> None:
    assert [seconds(ns) for ns in (1, 999, 1e3, 1.5e6, 2e12)] == [
        "1 ns",
        "999 ns",
        "1 µs",
        "1.5 ms",
        "2000 s",
    ]
    assert joules(None) == "n/a"
    assert [percent(s) for s in (0, 0.0004, 0.0006, 0.5)] == ["0.0 %", "<0.1 %", "0.1 %", "50.0 %"]
    assert [times(r) for r in (0.4871, 1.5, 36.47, 651.2, 1234.4)] == [
        "0.487×",
        "1.50×",
        "36.5×",
        "651×",
        "1234×",
    ]
