"""Draws the figures of a sweep, and writes them.

The look is that of `reports.plots`: one paper column wide, Okabe and Ito's colours, and a marker, line style or
hatch each, which tell them apart in grey. matplotlib is imported when needed.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from functools import cache
from itertools import count, pairwise
from pathlib import Path
from textwrap import fill, wrap
from typing import TYPE_CHECKING, Any

from pimloom.arch.tree import InputError, did_you_mean
from pimloom.reports.plots import BLUE, COLUMN_INCH, GREEN, ORANGE, SKY, STYLE, VERMILLION
from pimloom.reports.sweep_choice import PROCESSOR, Spec, cells, fronts, is_gain
from pimloom.reports.sweep_data import Grid, Sweep
from pimloom.reports.sweep_labels import (
    TIMES,
    axis_labels,
    metric_label,
    name_of,
    place_text,
    processor_name,
    unit_of,
    value_text,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNDATED = {"png": "Software", "pdf": "CreationDate", "svg": "Date"}
"""Format -> what is left out of its metadata, so that the same sweep gives the same bytes."""
SUFFIXES = tuple(UNDATED)

LOOKS = (
    (BLUE, "o", "-", ""), (VERMILLION, "s", "--", "////"), (GREEN, "^", "-.", "...."),
    (ORANGE, "D", ":", "\\\\\\\\"), (SKY, "v", (0, (6, 1.5)), "xxxx"),
    ("#CC79A7", "P", (0, (4, 1, 1, 1, 1, 1)), "----"), ("#000000", "X", (0, (1, 1)), "++++"),
    ("#999999", "*", (0, (8, 2, 2, 2)), "oooo"),
)  # fmt: skip
"""Colour, marker, line style and hatch of each value of the hue; MAX_HUES of them."""
HEIGHT_INCH, LINE_INCH = 2.3, 0.15
"""Of a figure without legend, and of a line of its legend or title."""
AXES_INCH, MAP_INCH, UPRIGHT_INCH = 2.8, 2.1, 1.5
"""About what axes, and those with a colour bar beside them, keep of the width; and of the height."""
SMALL = 7
"""Font size of legends and of texts beside data."""
LABEL_LETTERS, TITLE_LETTERS = 33, 43
"""So many fit in a line at the axes' height and width."""
LOG_SPREAD = 20
"""From this ratio of largest to smallest on, small values would vanish on a linear axis."""
LEAST_SPAN = 0.05
"""Of the colours of a heat map, as a share of the largest value: less is no difference to be seen."""
LABELLED = 8
"""Up to so many points of fronts get a label each."""

SWEEP_STYLE = STYLE | {
    "svg.fonttype": "none",
    "svg.hashsalt": "pimloom",
    "text.parse_math": False,  # a $ in a name from outside begins no formula
    "axes.axisbelow": True,
    "legend.fontsize": SMALL,
    "legend.title_fontsize": SMALL,
}

Legend = tuple[Sequence[str], Sequence[Any], str]
"""Values of the hue, what stands for them, and what else the legend says."""


def draw(sweep: Sweep, spec: Spec, ax: Axes | None = None) -> Axes:
    """Draw a figure on Axes, or on new ones of one column's width, and return them.

    Axes that are alone in their figure get a legend below them and the height that it all needs. Raises InputError
    if the spec asks for what the sweep does not have.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    grid = sweep.grid(spec.grid)
    with rc_context(SWEEP_STYLE):
        ax = ax or Figure(figsize=(COLUMN_INCH, HEIGHT_INCH), layout="constrained").subplots()
        figure: Any = ax.figure
        is_alone = isinstance(figure, Figure) and figure.axes == [ax]
        legend = {"line": _line, "heat": _heat, "bars": _bars, "pareto": _pareto}[spec.kind](ax, grid, spec)
        title = _title(grid, spec)
        ax.set_title(title)
        lines = _legend(ax, grid, spec, legend, is_alone) + title.count("\n")
        if is_alone:
            turned_inch = [
                math.sin(math.radians(label.get_rotation())) * _width_inch(label.get_text())
                for label in ax.get_xticklabels()
            ]
            figure.set_figheight(HEIGHT_INCH + LINE_INCH * lines + max(turned_inch, default=0))
    return ax


def save(
    sweep: Sweep, specs: Sequence[Spec], folder: str | os.PathLike[str], suffixes: Sequence[str] = SUFFIXES
) -> list[Path]:
    """Write figures in these formats, the same bytes for the same sweep, and return the paths.

    Raises InputError for a format that is none of SUFFIXES, and if the folder cannot be written.
    """
    from matplotlib import rc_context

    for suffix in suffixes:
        if suffix not in SUFFIXES:
            hint = did_you_mean(suffix, SUFFIXES)
            raise InputError(f"no format {suffix!r}{hint}; there are {', '.join(SUFFIXES)}")
    target, paths = Path(folder), []
    try:
        target.mkdir(parents=True, exist_ok=True)
        for spec, name in zip(specs, _file_names(sweep, specs), strict=True):
            with rc_context(SWEEP_STYLE):
                figure: Any = draw(sweep, spec).figure
                figure.draw_without_rendering()
                figure.set_layout_engine("none")  # the layout holds; it is the slow part of saving
                for suffix in dict.fromkeys(suffixes):
                    paths.append(target / f"{name}.{suffix}")
                    figure.savefig(paths[-1], metadata={UNDATED[suffix]: None})
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror or error}") from error
    return paths


def _file_names(sweep: Sweep, specs: Sequence[Spec]) -> list[str]:
    """Return a different file name for each figure, also where upper and lower case are the same."""
    names: list[str] = []
    for spec in specs:
        parts = [spec.grid] * (len(sweep.grids) > 1) + [spec.kind, spec.y] + [spec.tag] * bool(spec.tag)
        name = "_".join(re.sub(r"[^A-Za-z0-9_-]+", "-", part)[:80] for part in parts)
        taken = {other.lower() for other in names}
        numbered = (name if i == 1 else f"{name}_{i}" for i in count(1))
        names.append(next(n for n in numbered if n.lower() not in taken))
    return names


def _title(grid: Grid, spec: Spec) -> str:
    """Return what the figure holds fixed."""
    names = ("model", "arch")
    who = " on ".join(spec.where[key] for key in names if key in spec.where)
    at = place_text({key: text for key, text in spec.where.items() if key not in names})
    corner = f"{'upper' if is_gain(spec.y) else 'lower'} {'right' if is_gain(spec.x) else 'left'}"
    better = f"Pareto front{'s' * bool(spec.hue)}; the {corner} is better" if spec.kind == "pareto" else ""
    kept = at.replace(" ", "\xa0").replace(",\xa0", ", ")  # lines end between values, not inside of one
    who = ", ".join(filter(None, (who, _work(grid, spec))))
    lines = [fill(text, TITLE_LETTERS).replace("\xa0", " ") for text in (who, kept, better) if text]
    return "\n".join(lines)


def _work(grid: Grid, spec: Spec) -> str:
    """Return what every point of the figure was asked to do, as far as it is the same and not said elsewhere."""
    rows = grid.rows(spec.where)
    same = {
        name: values[rows[0]]
        for name, values in grid.work.items()
        if f"workload.{name}" not in spec.where and len({values[i] for i in rows}) == 1
    }
    prompt, generate, batch = (same.get(name) for name in ("prompt", "generate", "batch"))
    parts = [f"{batch} sequences"] * (batch is not None and batch > 1)
    if prompt and generate:
        parts.append(f"{prompt} + {generate} tokens")
    elif prompt or generate:
        parts.append(f"{prompt} prompt tokens" if prompt else f"{generate} new tokens")
    return ", ".join(parts).replace("1 prompt tokens", "1 prompt token").replace(" ", "\xa0")


def _legend(ax: Axes, grid: Grid, spec: Spec, legend: Legend, is_alone: bool) -> int:
    """Put the legend where no data are, and return the lines that it takes below the axes."""
    hues, handles, title = legend
    labels: list[str] = []
    if hues and spec.hue == PROCESSOR:
        labels = [processor_name(hue) for hue in hues]
    elif hues and spec.hue:
        name, labels = axis_labels(grid.axis(spec.hue), spec.hue, hues)
        title = "; ".join(filter(None, ("" if spec.hue in ("model", "arch") else name, title)))
    if not labels and not title:
        return 0
    handles = handles[: len(labels)]
    if not is_alone:
        ax.legend(handles, labels, title=title, loc="upper left", bbox_to_anchor=(1, 1))
        return 0
    handle_inch = 0.4
    widest_inch = _widest_inch(labels, SMALL) + handle_inch
    rows = math.ceil(len(labels) / max(1, COLUMN_INCH // widest_inch))
    ax.figure.legend(
        handles, labels, title=title, loc="outside lower center", ncols=math.ceil(len(labels) / max(rows, 1)),
        handlelength=2.2,
    )  # fmt: skip
    return rows + bool(title)


def _line(ax: Axes, grid: Grid, spec: Spec) -> Legend:
    """Draw a metric over a swept key, a line for each value of another; names are not joined by lines."""
    shown = cells(grid, spec)
    axis = grid.axis(spec.x)
    is_numeric = axis.is_numeric(spec.x)
    name, labels = axis_labels(axis, spec.x, shown.xs)
    places = [float(text) if is_numeric else i for i, text in enumerate(shown.xs)]
    (_numbers if is_numeric else _categories)(ax, places, labels)
    ax.set_xlabel(name)
    every = shown.known
    factor = _metric_axis(ax, spec, "y", every, is_log=_is_wide(every), from_zero=True)
    order = sorted(range(len(places)), key=places.__getitem__)
    lines = []
    for row, (color, marker, dashes, _) in zip(shown.values, LOOKS, strict=False):
        lines += ax.plot(
            [places[i] for i in order], [row[i] * factor for i in order], color=color, marker=marker,
            linestyle=dashes if is_numeric else "none", clip_on=False, markersize=3.5, linewidth=1.1,
        )  # fmt: skip
    return shown.hues, lines, ""


def _bars(ax: Axes, grid: Grid, spec: Spec) -> Legend:
    """Draw a metric in groups, ratios around 1."""
    shown = cells(grid, spec)
    name, labels = axis_labels(grid.axis(spec.x), spec.x, shown.xs)
    is_ratio, every = unit_of(spec.y) is TIMES, shown.known
    is_log = is_ratio and _is_wide(every)
    base = 1 if is_log else 0
    factor = _metric_axis(ax, spec, "y", [1, *every] if is_ratio else every, is_log=is_log, from_zero=True)
    group = 0.84 if len(every) > 3 else 0.5  # noqa: PLR2004
    width = group / len(shown.hues)
    widest_inch = _widest_inch([_short(v * factor) for v in every], SMALL)
    has_room = widest_inch + 0.03 < AXES_INCH / len(labels) * width
    handles = []
    for j, (hue, row, (color, _, _, hatch)) in enumerate(zip(shown.hues, shown.values, LOOKS, strict=False)):
        is_light = spec.hue == PROCESSOR and hue.endswith("_roofline")
        face, edge = ("white", color) if is_light else (color, "white")
        at = [i - group / 2 + (j + 0.5) * width for i, v in enumerate(row) if math.isfinite(v)]
        tops = [v * factor for v in row if math.isfinite(v)]
        handles.append(
            ax.bar(
                at, [v - base for v in tops], 0.92 * width, base, facecolor=face, edgecolor=edge,
                hatch=hatch or ("//////" if is_light else ""), linewidth=0.6 if is_light else 0,
            )
        )  # fmt: skip
        for x, v in zip(at, tops, strict=True) if has_room else ():
            _note(ax, _short(v), (x, max(v, base)), (0, 1.5), "center")
    for i, column in enumerate(zip(*shown.values, strict=True)):
        if not any(map(math.isfinite, column)):
            _note(ax, "n/a", (i, base), (0, 1.5), "center")
    if is_ratio:
        ax.axhline(1, color="black", linewidth=0.7)
    if is_log and min(every) >= 1:
        ax.set_ylim(bottom=1)
    ax.set_xlim(-0.6, len(labels) - 0.4)
    _categories(ax, range(len(labels)), labels)
    ax.set_xlabel(name)
    return shown.hues, handles, ""


def _heat(ax: Axes, grid: Grid, spec: Spec) -> Legend:
    """Draw a metric over two swept keys as colours, and its values where there is room."""
    import numpy as np
    from matplotlib.colors import LogNorm, Normalize

    assert spec.hue is not None, "a heat map has rows"
    shown = cells(grid, spec)
    is_log = _is_wide(shown.known)
    label, factor = metric_label(spec.y, spec.over, shown.known, is_log)
    low, high = min(shown.known) * factor, max(shown.known) * factor
    limits = min(low, high - LEAST_SPAN * abs(high)), high
    norm = LogNorm(*limits) if is_log else Normalize(*limits)
    scaled = np.array(shown.values) * factor
    mesh = ax.pcolormesh(
        np.ma.masked_invalid(scaled), cmap="cividis", norm=norm, edgecolors="white", linewidth=0.8
    )
    widest_inch = _widest_inch([_short(v * factor) for v in shown.known], SMALL)
    has_room = widest_inch + 0.03 < MAP_INCH / len(shown.xs) and UPRIGHT_INCH / len(shown.hues) > LINE_INCH
    for (j, i), value in np.ndenumerate(scaled) if has_room else ():
        is_known = math.isfinite(value)
        color = "white" if is_known and norm(value) < 0.5 else "black"  # noqa: PLR2004
        text = _short(value) if is_known else "–"
        ax.annotate(text, (i + 0.5, j + 0.5), ha="center", va="center", fontsize=SMALL, color=color)
    bar = ax.figure.colorbar(mesh, ax=ax, pad=0.03)
    bar.set_label(_upright(label))
    bar.outline.set_visible(False)
    sides = (("x", spec.x, shown.xs, MAP_INCH), ("y", spec.hue, shown.hues, UPRIGHT_INCH))
    for which, key, texts, room_inch in sides:
        name, labels = axis_labels(grid.axis(key), key, texts)
        _categories(ax, [i + 0.5 for i in range(len(texts))], labels, which, room_inch)
        getattr(ax, f"set_{which}label")(name)
    ax.spines[:].set_visible(False)
    return (), (), ""


def _pareto(ax: Axes, grid: Grid, spec: Spec) -> Legend:
    """Draw all points lightly, and the front of those that no other beats in both metrics."""
    by_hue = fronts(grid, spec)
    all_x, all_y, _ = zip(*(point for front in by_hue.values() for point in front.points), strict=True)
    x_factor = _metric_axis(ax, spec, "x", all_x, is_log=_is_wide(all_x))
    y_factor = _metric_axis(ax, spec, "y", all_y, is_log=_is_wide(all_y))
    lines, labelled = [], []
    for front, (color, marker, dashes, _) in zip(by_hue.values(), LOOKS, strict=False):
        points, best = ([(x * x_factor, y * y_factor, row) for x, y, row in part] for part in front)
        xs, ys, _ = zip(*points, strict=True)
        ax.scatter(xs, ys, s=10, color=color, marker=marker, alpha=0.5, linewidth=0)
        xs, ys, _ = zip(*best, strict=True)
        lines += ax.plot(
            xs, ys, color=color, marker=marker, linestyle=dashes, drawstyle="steps-post", markersize=4,
            linewidth=1.1,
        )  # fmt: skip
        labelled += best
    choices = [axis.lead for axis in grid.free(spec.where) if spec.hue not in axis.keys]
    texts = [", ".join(value_text(key, grid.words[key][row]) for key in choices) for *_, row in labelled]
    if len(texts) > LABELLED or not any(texts) or _widest_inch(texts) > AXES_INCH / 3:
        return [*by_hue], lines, ""
    _label_points(ax, spec, [(x, y) for x, y, _ in labelled], texts)
    return [*by_hue], lines, f"labels: {', '.join(map(name_of, choices))}"


def _label_points(ax: Axes, spec: Spec, points: Sequence[tuple[float, float]], texts: Sequence[str]) -> None:
    """Write texts on the better side of points if there is room for all of them."""
    across, up = (1 if is_gain(metric) else -1 for metric in (spec.x, spec.y))
    ax.margins(0.05, 0.12)
    to_scale = ax.xaxis.get_transform()
    low, high = to_scale.transform(ax.get_xlim())
    widest_inch = _widest_inch(texts) + 0.1
    room = (high - low) * widest_inch / (AXES_INCH - widest_inch)
    low, high = (low, high + room) if across > 0 else (low - room, high)
    ax.set_xlim(*to_scale.inverted().transform((low, high)))
    taken: list[tuple[float, float, float]] = []  # left and right end, and height
    for at, text in zip(points, texts, strict=True):
        x, y = ax.transAxes.inverted().transform(ax.transData.transform(at)) * (AXES_INCH, UPRIGHT_INCH)
        left, right = sorted((x, x + across * (_width_inch(text) + 0.05)))
        if any(abs(y - level) < LINE_INCH and start < right and left < end for start, end, level in taken):
            return
        taken.append((left, right, y))
    for at, text in zip(points, texts, strict=True):
        _note(ax, text, at, (3 * across, 2 * up), "left" if across > 0 else "right")


def _metric_axis(
    ax: Axes, spec: Spec, which: str, values: Sequence[float], *, is_log: bool, from_zero: bool = False
) -> float:
    """Prepare the x or y axis for values of its metric, and return the factor to its unit."""
    from matplotlib.ticker import LogLocator, NullFormatter

    label, factor = metric_label(getattr(spec, which), spec.over, values, is_log)
    getattr(ax, f"set_{which}label")(_upright(label) if which == "y" else label)
    axis, set_limits = getattr(ax, f"{which}axis"), getattr(ax, f"set_{which}lim")
    low, high = min(values) * factor, max(values) * factor
    if is_log:
        getattr(ax, f"set_{which}scale")("log")
        two_decades = 100
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < two_decades else (1,)))
        axis.set_minor_formatter(NullFormatter())
        set_limits(low / 1.25, high * 1.25)
    elif from_zero:
        set_limits(0, high * 1.1 or 1)
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.grid(visible=True, color="#DDDDDD", linewidth=0.5)
    return factor


def _upright(label: str) -> str:
    """Return a label in lines that fit along the height of a figure."""
    if len(label) <= LABEL_LETTERS:
        return label
    name, mark, rest = label.partition(" over " if " over " in label else " (")
    return "\n".join(wrap(name, LABEL_LETTERS) + wrap(mark.lstrip() + rest, LABEL_LETTERS))


def _numbers(ax: Axes, places: Sequence[float], labels: Sequence[str]) -> None:
    """Put a tick at every swept number, on a logarithmic axis if their ratios are more even than their steps."""
    from matplotlib.ticker import NullLocator

    rising = sorted(places)
    low, high = rising[0], rising[-1]
    is_log = False
    if len(rising) > 2 and low > 0 and high / low >= 4:  # noqa: PLR2004
        steps = [b - a for a, b in pairwise(rising)]
        ratios = [math.log(b / a) for a, b in pairwise(rising)]
        is_log = max(ratios) / min(ratios) < max(steps) / min(steps)
    at = [math.log(place) if is_log else place for place in places]
    start, span = min(at), max(at) - min(at) or 1
    margin = 0.05
    if is_log:
        ax.set_xscale("log")
        ax.set_xlim(low * math.exp(-margin * span), high * math.exp(margin * span))
    else:
        ax.set_xlim(low - margin * span, high + margin * span)
    taken: list[tuple[float, float]] = []
    shown = [""] * len(labels)
    for i in sorted(range(len(at)), key=lambda i: (start < at[i] < start + span, -at[i])):  # both ends first
        middle_inch = (at[i] - start) / span * AXES_INCH / (1 + 2 * margin)
        half_inch = _width_inch(labels[i]) / 2 + 0.03
        if all(abs(middle_inch - other) > half_inch + half for other, half in taken):
            taken.append((middle_inch, half_inch))
            shown[i] = labels[i]
    ax.set_xticks(places, shown)
    ax.xaxis.set_minor_locator(NullLocator())


def _categories(
    ax: Axes, places: Sequence[float], labels: Sequence[str], which: str = "x", room_inch: float = AXES_INCH
) -> None:
    """Name evenly spaced places, at an angle if the names are long, and only some if they are many."""
    each_inch, line_inch = room_inch / len(labels), 0.12
    named = range(0, len(labels), math.ceil(line_inch / each_inch))
    each_inch *= named.step
    getattr(ax, f"set_{which}ticks")([places[i] for i in named], [labels[i] for i in named])
    getattr(ax, f"{which}axis").set_tick_params(length=0)
    if which == "x" and _widest_inch(labels) > 0.95 * each_inch:
        angle = 40 if each_inch > 1.5 * line_inch else 90
        for label in ax.get_xticklabels():
            label.set(rotation=angle, ha="right", va="center", rotation_mode="anchor")


def _note(ax: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], side: str) -> None:
    ax.annotate(
        text, at, xytext=offset, textcoords="offset points", ha=side, va="bottom" if offset[1] > 0 else "top",
        fontsize=SMALL, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.2},
    )  # fmt: skip


def _short(value: float) -> str:
    """Return three digits, or all of those before the point."""
    return f"{value:#.3g}".rstrip(".") if abs(value) < 1000 else f"{value:.0f}"  # noqa: PLR2004


def _widest_inch(texts: Sequence[str], size: float = STYLE["font.size"]) -> float:
    return max((_width_inch(text, size) for text in texts), default=0)


@cache
def _width_inch(text: str, size: float = STYLE["font.size"]) -> float:
    """Return about how wide a text is in a font size, by default that of labels."""
    from matplotlib.textpath import TextPath

    if not text.strip():
        return 0.0
    across = TextPath((0, 0), text, size=size).vertices[:, 0]  # the extents proper take ten times as long
    points_an_inch = 72
    return float(across.max() - across.min()) / points_an_inch


def _is_wide(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) >= LOG_SPREAD * min(values)
