"""What stands on the axes of a sweep's figures, that nothing is cut off or covered, and that files come out."""

import itertools
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from pimloom.arch.tree import InputError
from pimloom.reports.sweep_choice import MAX_HUES, Wanted, figures
from pimloom.reports.sweep_plots import LOOKS, SUFFIXES, draw, save
from tests.reports.sweeps import (
    BARRIERS,
    CHANNELS,
    CLOCKS,
    EIGHT,
    RATES,
    TOKENS,
    Row,
    first,
    make,
    one,
    results,
)

mpl.use("Agg")


def heights(ax: Any) -> list[list[float]]:
    """Ends of the bars by series, from left to right."""
    return [[bar.get_y() + bar.get_height() for bar in series] for series in ax.containers]


def legend(ax: Any) -> list[str]:
    return [text.get_text() for box in ax.figure.legends for text in box.get_texts()]


def ticks(axis: Any) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


# --- each kind --------------------------------------------------------------------------------


def test_lines() -> None:
    sweep = make(RATES, ["a", "bbb"])
    ax = draw(sweep, first(sweep, kind="line"))
    assert [list(line.get_ydata()) for line in ax.lines] == [[80, 80, 80], pytest.approx([80 / 3] * 3)]
    assert (ax.get_xlabel(), ticks(ax.xaxis)) == ("pin rate = link rate (Gb/s)", ["8", "16", "24"])
    assert ax.get_ylabel() == "tokens per second (1/s)"
    assert legend(ax) == ["a", "bbb"]


def test_names_are_not_joined_by_lines() -> None:
    sweep = make(BARRIERS | CHANNELS)
    ax = draw(sweep, one(sweep, kind="line", x="mapping.barrier", y="tokens_per_s"))
    assert {line.get_linestyle() for line in ax.lines} == {"None"}
    assert ticks(ax.xaxis) == ["instruction", "data"]


def test_bars_over_a_point() -> None:
    sweep = make(CHANNELS, ["a", "bb", "ccc"], fails=lambda r: r["model"] == "bb" and r["dram.channels"] == 4)
    ax = draw(sweep, first(sweep, y="speedup"))
    assert heights(ax) == [pytest.approx([2, 2, 2]), pytest.approx([4, 4, 4])]
    assert ticks(ax.xaxis) == ["a", "bb", "ccc", "geo. mean of 2"]
    assert [text.get_text() for text in ax.texts if text.xy[0] == 1 and text.get_text() == "n/a"] == ["n/a"]
    assert ax.get_ylabel() == "speedup\nover DRAM channels = 4 (×)"
    assert ax.get_ylim()[0] == 0
    assert legend(ax) == ["8", "16"]


def test_rooflines_are_light_bars() -> None:
    sweep = make({}, ["a", "bbb"])
    ax = draw(sweep, first(sweep, y="speedup"))
    assert legend(ax) == ["T4 (roofline)", "H200 graph (measured)"]
    assert heights(ax) == [pytest.approx([2, 6, math.sqrt(12)]), pytest.approx([8, 8, 8])]
    roofline, measured = (series[0] for series in ax.containers)
    assert roofline.get_facecolor() == (1, 1, 1, 1)
    assert measured.get_facecolor() != (1, 1, 1, 1)


def test_ratios_of_a_wide_range_are_bars_from_one_on_a_log_axis() -> None:
    def numbers(row: Row) -> Row:
        return results(row) | {"energy_saving_over.NVIDIA_T4_roofline": 3.0 ** EIGHT.index(row["model"]) / 9}

    sweep = make({}, EIGHT, numbers=numbers)
    ax = draw(sweep, first(sweep, y="energy_saving"))
    assert ax.get_yscale() == "log"
    assert {bar.get_y() for bar in ax.patches} == {1}
    assert "log scale" in ax.get_ylabel()


def test_a_heat_map_shows_its_values() -> None:
    lanes = {"pim.lanes": (8, 16)}
    sweep = make(CHANNELS | lanes, fails=lambda r: r["pim.lanes"] == 8 and r["dram.channels"] == 16)
    ax = draw(sweep, first(sweep, kind="heat"))
    assert [text.get_text() for text in ax.texts] == ["40.0", "80.0", "–", "40.0", "80.0", "160"]
    assert {text.get_color() for text in ax.texts} == {"white", "black"}
    bar = next(other for other in ax.figure.axes if other is not ax)
    assert bar.get_ylabel() == "tokens per second (1/s)"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("DRAM channels", "MAC lanes per bank")


def test_a_pareto_plot_names_the_points_of_its_front() -> None:
    joule, pace = {4: 1, 8: 2, 16: 3}, {4: 10, 8: 5, 16: 20}
    sweep = make(
        CHANNELS | {"pim.lanes": (8, 16)},
        numbers=lambda row: {
            "tokens_per_s": pace[row["dram.channels"]] + row["pim.lanes"] / 100,
            "energy_per_token_pJ": 1e9 * joule[row["dram.channels"]],
        },
    )
    ax = draw(sweep, one(sweep, kind="pareto"))
    (line,) = ax.lines
    assert list(zip(*line.get_data(), strict=True)) == [(1, 10.16), (3, 20.16)]
    assert [text.get_text() for text in ax.texts] == ["4, 16", "16, 16"]
    assert "the upper left is better" in ax.get_title(loc="left")
    (box,) = ax.figure.legends
    assert box.get_title().get_text() == "labels: DRAM channels, MAC lanes per bank"


def test_a_title_says_what_is_held() -> None:
    sweep = make(CHANNELS | CLOCKS | TOKENS)
    spec = one(sweep, x="dram.channels", y="ttft_ns", hue="workload.generate")
    assert draw(sweep, spec).get_title(loc="left") == "a on pim-gpt, 1 prompt token\nASIC clock = 2 GHz"


def test_axes_of_ones_own_keep_their_figure() -> None:
    sweep = make(CHANNELS, EIGHT)
    figure = Figure(figsize=(7, 3))
    left, right = figure.subplots(1, 2)
    for ax, spec in zip((left, right), figures(sweep), strict=False):
        assert draw(sweep, spec, ax) is ax
    assert figure.get_figheight() == 3
    assert left.get_legend() is not None


# --- what it looks like -----------------------------------------------------------------------


def test_swept_numbers_are_ticks() -> None:
    sweep = make(CLOCKS)
    ax = draw(sweep, figures(sweep)[0])
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
def test_even_ratios_stand_on_a_log_axis(values: tuple[int, ...], scale: str) -> None:
    sweep = make({"asic.newton_iterations": values})
    assert draw(sweep, figures(sweep)[0]).get_xscale() == scale


def test_tick_labels_do_not_overlap() -> None:
    sweep = make({"workload.generate": (1, 2, 3, 4, 1000, 1001, 2000)})
    ax = draw(sweep, figures(sweep)[0])
    ax.figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in ax.get_xticklabels() if label.get_text()]
    assert len(boxes) >= 3
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(sorted(boxes, key=lambda box: box.x0)))


def test_eight_lines_look_different() -> None:
    assert [len(set(column)) for column in zip(*LOOKS, strict=True)] == [MAX_HUES] * 4
    sweep = make(CHANNELS, EIGHT)
    ax = draw(sweep, figures(sweep)[0])
    assert [(line.get_color(), line.get_marker()) for line in ax.lines] == [look[:2] for look in LOOKS]
    assert legend(ax) == list(EIGHT)


def test_a_metric_axis_starts_at_zero_unless_its_range_is_wide() -> None:
    def of(values: dict[int, float]) -> Any:
        sweep = make(CHANNELS, numbers=lambda row: {"tokens_per_s": values[row["dram.channels"]]})
        return draw(sweep, figures(sweep)[0])

    assert of({4: 5, 8: 9, 16: 7}).get_ylim()[0] == 0
    assert of({4: 100, 8: 99, 16: 98}).get_ylim()[0] == 0
    assert of({4: 1, 8: 50, 16: 900}).get_yscale() == "log"


@pytest.mark.parametrize(
    ("axes", "models"),
    [
        (CHANNELS | CLOCKS, EIGHT),
        (RATES | BARRIERS, ("a", "bbb")),
        (TOKENS | CHANNELS, EIGHT),
        ({}, EIGHT),
    ],
)
def test_nothing_is_cut_off_or_covered(axes: dict[str, Any], models: tuple[str, ...]) -> None:
    sweep = make(axes, models, ["pim-gpt", "fast"])
    for spec in figures(sweep):
        ax: Any = draw(sweep, spec)
        figure = ax.figure
        figure.draw_without_rendering()
        assert figure.get_figwidth() == 3.5
        whole = figure.bbox.padded(1)
        labels = (ax.xaxis.label, ax.yaxis.label, ax._left_title, *ax.texts)
        texts = [*labels, *in_sight(ax.xaxis), *in_sight(ax.yaxis)]
        for artist in (*(text for text in texts if text.get_text()), *figure.legends):
            box = artist.get_window_extent()
            assert whole.x0 <= box.x0 and box.x1 <= whole.x1, (spec, artist)
            assert whole.y0 <= box.y0 and box.y1 <= whole.y1, (spec, artist)
        for box in figure.legends:
            assert box.get_window_extent().y1 <= ax.get_tightbbox().y0 + 1


def in_sight(axis: Any) -> list[Any]:
    """Labels of the ticks that the axis shows."""
    low, high = sorted(axis.get_view_interval())
    at = zip(axis.get_majorticklocs(), axis.get_ticklabels(), strict=True)
    return [label for place, label in at if low <= place <= high]


# --- files ------------------------------------------------------------------------------------


def test_files_are_the_same_bytes_each_time_and_in_any_order(tmp_path: Path) -> None:
    sweep = make(CHANNELS | {"pim.lanes": (8, 16)}, ["a", "bbb"])
    specs = [first(sweep, kind="heat"), first(sweep, kind="bars")]
    paths = save(sweep, specs, tmp_path / "one")
    assert [path.suffix for path in paths] == [".png", ".pdf", ".svg"] * 2
    others = save(sweep, specs[::-1], tmp_path / "other", SUFFIXES[::-1])
    assert sorted(path.name for path in others) == sorted(path.name for path in paths)
    for path in others:
        assert path.read_bytes() == (tmp_path / "one" / path.name).read_bytes()


def test_files_are_one_column_wide_and_keep_their_text(tmp_path: Path) -> None:
    sweep = make(CHANNELS, ["$x_", "b$\\frac$"])  # no formulas
    opened = plt.get_fignums()
    png, pdf, svg = save(sweep, figures(sweep)[:1], tmp_path)
    assert [path.name for path in (png, pdf, svg)] == [f"line_tokens_per_s.{s}" for s in SUFFIXES]
    assert int.from_bytes(png.read_bytes()[16:20], "big") == 3.5 * 300
    assert b"/MediaBox [ 0 0 252 " in pdf.read_bytes()
    assert 'width="252pt"' in svg.read_text()
    assert ">DRAM channels</text>" in svg.read_text()
    assert ">$x_</text>" in svg.read_text()
    assert plt.get_fignums() == opened  # pyplot would keep figures for ever


def test_names_of_files(tmp_path: Path) -> None:
    sweep = make({"../../etc/p w": CHANNELS, "C": CHANNELS, "c": CHANNELS})
    folder = tmp_path / "figures"
    paths = save(sweep, figures(sweep, Wanted(y="tokens_per_s")), folder, ["svg", "svg"])
    assert [str(path.relative_to(folder)) for path in paths] == [
        "-etc-p-w_line_tokens_per_s.svg",
        "C_line_tokens_per_s.svg",
        "c_line_tokens_per_s_2.svg",
    ]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    sweep = make(CHANNELS)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        save(sweep, figures(sweep), tmp_path / "file")
    with pytest.raises(
        InputError, match=r"no format 'pgn' \(did you mean 'png'\?\); there are png, pdf, svg"
    ):
        save(sweep, figures(sweep), tmp_path / "new", ["pgn"])
    assert not (tmp_path / "new").exists()
