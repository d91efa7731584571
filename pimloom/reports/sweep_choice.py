"""Which figures a sweep gets, and the numbers that each of them shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from statistics import geometric_mean
from typing import NamedTuple

from pimloom.arch.tree import InputError, did_you_mean
from pimloom.reports.sweep_data import RATIOS, Axis, Grid, Sweep, word
from pimloom.reports.sweep_labels import TIMES, place_text, unit_of

KINDS = ("line", "heat", "bars", "pareto")
PROCESSOR = "processor"
"""As hue of a ratio: one bar or line for every processor that the sweep was compared with."""
MAX_HUES, MAX_BARS_A_GROUP = 8, 6
"""So many lines or fronts, and bars beside each other, can be told apart."""
DEFAULT_METRICS = ("tokens_per_s", "energy_per_token_pJ")
GOOD_METRICS = (
    *DEFAULT_METRICS, "ttft_ns", "tpot_ns", "total_time_ns", "average_power_W", "pim_utilisation",
    "energy_pJ.total", "row_hit_rate", *RATIOS,
)  # fmt: skip
"""Proposed to whom asks for one that does not exist."""
HIGHER_IS_BETTER = (
    "tokens_per_s", "pim_utilisation", "pim_utilisation_useful", "row_hit_rate", "bandwidth_inside_Bps.achieved",
    "interface_bytes.reduction.decoder_payload.factor",
)  # fmt: skip
"""So are ratios; all other metrics are costs."""


@dataclass(frozen=True)
class Wanted:
    """What someone asks for; what is left out is decided by what was swept.

    kind: one of KINDS
    x: swept key, `model` or `arch`; of a Pareto front, a metric
    y: metric: a numeric column of the results, `speedup` or `energy_saving`
    hue: what lines, bars, fronts or the rows of a heat map stand for: a swept key, `model`, `arch`, or `processor`
    over: what a ratio is over: a processor as the columns name it, or points of the sweep as `key=value,key=value`
    grid: name of a grid; None = all
    where: key -> value at which a figure holds it, as text
    """

    kind: str | None = None
    x: str | None = None
    y: str | None = None
    hue: str | None = None
    over: str | None = None
    grid: str | None = None
    where: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Spec:
    """One figure with everything decided; fields as in `Wanted`.

    where: fixes all that the figure does not show; tag: what was asked for, beside kind and metric, for file names
    """

    kind: str
    grid: str
    x: str
    y: str
    hue: str | None = None
    over: str | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    tag: str = field(default="", compare=False)


# --- what to draw -----------------------------------------------------------------------------


def figures(sweep: Sweep, wanted: Wanted | None = None) -> list[Spec]:
    """Return what to draw: what is wanted, with sensible choices for what was left out.

    A grid that cannot have a wanted figure is passed over if another can. Raises InputError for a kind, key, metric,
    value or grid that does not exist, and where nothing can be drawn.
    """
    wanted = wanted or Wanted()
    if wanted.kind is not None and wanted.kind not in KINDS:
        hint = did_you_mean(wanted.kind, KINDS)
        raise InputError(f"no kind of figure {wanted.kind!r}{hint}; there are {', '.join(KINDS)}")
    grids = sweep.grids if wanted.grid is None else (sweep.grid(wanted.grid),)
    if not any(grid.rows({}) for grid in sweep.grids):
        raise InputError(f"{sweep.name}: all {sweep.failed} points failed")
    wanted = replace(wanted, where=_known(sweep, wanted.where))
    specs: list[Spec] = []
    errors: list[InputError] = []
    for grid in grids:
        try:
            drafts = [draft for kind in _kinds(grid, wanted) for draft in _drafts(grid, wanted, kind)]
        except InputError as error:
            errors.append(error)
            continue
        for draft in drafts:
            try:
                fronts(grid, draft) if draft.kind == "pareto" else cells(grid, draft)
                specs.append(draft)
            except InputError as error:
                errors.append(error)
    if not specs:
        failed = f"; {sweep.failed} points failed" if sweep.failed else ""
        raise errors[0] if errors else InputError(f"{sweep.name}: nothing varies that could be drawn{failed}")
    tag = "_".join(
        [
            *(f"{name}-{given}" for name in ("x", "hue", "over") if (given := getattr(wanted, name))),
            *(f"{key}-{text}" for key, text in wanted.where.items()),
        ]
    )
    return [replace(spec, tag=tag) for spec in specs]


def _known(sweep: Sweep, where: Mapping[str, str]) -> dict[str, str]:
    """Return `where` with the values as the table has them."""
    there: dict[str, dict[str, None]] = {}
    for grid in sweep.grids:
        for key, texts in grid.words.items():
            there.setdefault(key, {}).update(dict.fromkeys(texts))
    for key in where:
        if key not in there:
            raise InputError(f"{key}: not swept{did_you_mean(key, [*there])}; swept are {', '.join(there)}")
    return {key: _nearest(key, text, there[key]) for key, text in where.items()}


def _nearest(key: str, text: str, there: Iterable[str]) -> str:
    """Return the value that a text means, which may have fewer digits. Raises InputError if there is none."""
    if word(text) in there:
        return word(text)
    near = []
    with suppress(ValueError):
        near = [other for other in there if math.isclose(float(other), float(text), rel_tol=1e-3)]
    if len(near) != 1:
        raise InputError(f"{key}: no point has {text!r}; there are {', '.join(there)}")
    return near[0]


def _pairs(over: str | None) -> dict[str, str]:
    """Return the keys and values that a ratio is over; none if it is over a processor, or nothing."""
    found = [part.partition("=") for part in (over or "").split(",")]
    return {key.strip(): text for key, equals, text in found if equals}


def _kinds(grid: Grid, wanted: Wanted) -> list[str]:
    """Return the kinds of figures that show what is wanted of a grid."""
    if wanted.kind is not None:
        return [wanted.kind]
    if wanted.y in grid.words:
        return ["heat"]
    if wanted.x is not None:
        if wanted.x in grid.results or wanted.x in RATIOS:
            return ["pareto"]
        return ["line" if grid.axis(wanted.x).is_numeric(wanted.x) else "bars"]
    free = grid.free(wanted.where)
    numbers = [axis for axis in free if axis.is_numeric(axis.lead) and wanted.hue not in axis.keys]
    models = any(axis.lead == "model" for axis in free)
    if wanted.y or wanted.hue or wanted.over:
        compares = wanted.y in RATIOS or wanted.over or wanted.hue == PROCESSOR
        return ["line" if numbers and not (compares and models) else "bars"]
    choices = math.prod(len(axis.values) for axis in free if _is_choice(axis))
    suits = {
        "line": bool(numbers),
        "heat": len(numbers) > 1,
        "bars": models or (bool(free) and not numbers),
        "pareto": len(free) > 1 and choices > 2,  # noqa: PLR2004
    }
    return [kind for kind in KINDS if suits[kind]]


def _is_choice(axis: Axis) -> bool:
    """Whether an axis is a choice of design: points of different work are no alternatives to each other."""
    return not axis.lead.startswith(("model", "workload."))


def _first(axes: Iterable[Axis], *taken: str | None, limit: float = math.inf) -> str | None:
    """Return the key of the first axis of at most so many values that is not taken."""
    fit = (axis for axis in axes if len(axis.values) <= limit and not set(taken) & set(axis.keys))
    return next((axis.lead for axis in fit), None)


def _drafts(grid: Grid, wanted: Wanted, kind: str) -> list[Spec]:
    """Return figures of one kind with everything decided, though perhaps without any number."""
    x, y, hue, over = wanted.x, wanted.y, wanted.hue, wanted.over
    if kind == "heat" and y in grid.words:  # both swept keys were given as the axes that they are
        y, hue = hue, y
    free = grid.free(wanted.where)
    numbers = [
        axis for axis in sorted(free, key=lambda axis: -len(axis.values)) if axis.is_numeric(axis.lead)
    ]
    names = [axis for axis in free if axis not in numbers]
    metrics: Sequence[str] = DEFAULT_METRICS if kind in ("line", "bars") else DEFAULT_METRICS[:1]
    if kind == "line":
        x = x or _first(numbers, hue)
        hue = hue or _first(free, x, limit=MAX_HUES)
    elif kind == "heat":
        x = x or _first((*numbers, *names), hue)
        hue = hue or _first((*numbers, *names), x)
    elif kind == "bars":
        x = x or _first((*names, *free), hue)
        hue = hue or _behind_bars(grid, wanted, free, x)
    else:
        x = x or DEFAULT_METRICS[1]
        hue = hue or _first((axis for axis in names if axis.lead in ("model", "arch")), limit=MAX_HUES)
    if x is None or (kind == "heat" and hue is None):
        needs = {"line": "a swept key with numbers", "heat": "two swept keys", "bars": "a swept key"}[kind]
        raise InputError(f"grid {grid.name}: a figure of kind {kind} needs {needs}")
    if y:
        metrics = (y,)
    elif over or (hue == PROCESSOR and kind != "pareto") or (kind == "bars" and x == "model" and hue):
        metrics = tuple(RATIOS)
    if over and not {x, *metrics} & RATIOS.keys():
        raise InputError(f"{y}: not over anything; what is over {over} is {' or '.join(RATIOS)}")
    shown = [grid.axis(key) for key in (x, hue) if key and key in grid.words]
    for key in (key for axis in shown for key in axis.keys if key in wanted.where):
        raise InputError(f"{key}: the figure shows it, so it cannot be held at {wanted.where[key]}")
    if kind == "pareto":
        shown += filter(_is_choice, free)
    where = _fixed(grid, shown, wanted.where)
    if over is None and metrics[0] in RATIOS and hue != PROCESSOR and kind != "pareto":
        key = hue if kind == "bars" and hue else x
        over = f"{key}={next(iter(grid.axis(key).of(key)))}"
    return [Spec(kind, grid.name, x, metric, hue, over, where) for metric in metrics]


def _behind_bars(grid: Grid, wanted: Wanted, free: Sequence[Axis], x: str | None) -> str | None:
    """Return what the bars of a group stand for."""
    base = _pairs(wanted.over).keys()
    compared = _first((axis for axis in free if base & set(axis.keys)), x)
    compares = wanted.y in RATIOS or (wanted.y is None and x in ("model", "arch"))
    behind = sorted(free, key=lambda axis: axis.lead == "model")
    # A ratio between points of different work says nothing.
    fair = (axis for axis in behind if _is_choice(axis) or not compares)
    hue = compared or _first(fair, x, limit=MAX_BARS_A_GROUP)
    alone = hue is None and wanted.over is None and compares
    return PROCESSOR if alone and grid.processors("speedup") else hue


def _fixed(grid: Grid, shown: Sequence[Axis], where: Mapping[str, str]) -> dict[str, str]:
    """Return `where` and, for every axis that is not shown, its last value that has points."""
    fixed = dict(where)
    for axis in grid.axes:
        there = {grid.words[axis.lead][i] for i in grid.rows(fixed)}
        if not there:
            raise InputError(f"grid {grid.name}: no point has {place_text(fixed)}")
        if axis not in shown:
            fixed[axis.lead] = [text for text in axis.of(axis.lead) if text in there][-1]
    return fixed


# --- the numbers of a figure ------------------------------------------------------------------


class Cells(NamedTuple):
    """The numbers of lines, bars or a heat map: values[hue][x], NaN = none; both as texts.

    Ratios of several models, as bars, end with their geometric mean.
    """

    xs: list[str]
    hues: list[str]
    values: list[list[float]]

    @property
    def known(self) -> list[float]:
        """All numbers."""
        return [value for row in self.values for value in row if math.isfinite(value)]


class Front(NamedTuple):
    """Points of a sweep as (x, y, row), and those that no other beats in both metrics."""

    points: list[tuple[float, float, int]]
    best: list[tuple[float, float, int]]


def cells(grid: Grid, spec: Spec) -> Cells:
    """Return the numbers of a figure without empty lines and columns.

    Raises InputError if there are none, and if the spec asks for what the grid does not have.
    """
    axis, rows, hues = grid.axis(spec.x), _rows(grid, spec), _hues(grid, spec)
    x_words, hue_words = grid.words[spec.x], grid.words.get(spec.hue or "")
    is_ratio = unit_of(spec.y) is TIMES
    found: dict[tuple[str, str], float] = {}
    for hue in hues if spec.hue == PROCESSOR else hues[:1]:
        metric = _values(grid, spec.y, hue if spec.hue == PROCESSOR else spec.over)
        known = [i for i in rows if math.isfinite(metric[i]) and (metric[i] > 0 or not is_ratio)]
        found |= {(x_words[i], hue_words[i] if hue_words else hue): metric[i] for i in known}
    base = _pairs(spec.over)
    if spec.kind == "bars" and base and hue_words and base.keys() <= set(grid.axis(spec.hue or "").keys):
        # The reference itself would be a row of bars of height 1.
        same = {hue_words[i] for i in grid.rows({key: word(text) for key, text in base.items()})}
        found = {key: number for key, number in found.items() if key[1] not in same}
    if not found:
        over = f" over {spec.over}" if spec.over else ""
        raise InputError(f"{spec.y}{over}: not known at any point with {place_text(spec.where)}")
    # Groups of bars are kept where only what they are compared with is missing.
    there = {x_words[i] for i in rows} if spec.kind == "bars" else {x for x, _ in found}
    xs = [x for x in axis.of(spec.x) if x in there]
    seen = {hue for _, hue in found}
    hues = [hue for hue in hues if hue in seen]
    if spec.kind != "heat":
        _check_hues(spec, hues)
    values = [[found.get((x, hue), math.nan) for x in xs] for hue in hues]
    if spec.kind == "bars" and is_ratio and spec.x == "model":
        # Means over different models could not be compared.
        whole = [i for i in range(len(xs)) if all(math.isfinite(row[i]) for row in values)]
        if len(whole) > 1:
            xs.append("geo. mean" if len(whole) == len(xs) else f"geo. mean of {len(whole)}")
            values = [[*row, geometric_mean(row[i] for i in whole)] for row in values]
    return Cells(xs, hues, values)


def fronts(grid: Grid, spec: Spec) -> dict[str, Front]:
    """Return the points of a Pareto plot by hue.

    Raises InputError if there are none, and if the spec asks for what the grid does not have.
    """
    xs, ys = (_values(grid, metric, spec.over) for metric in (spec.x, spec.y))
    x_sign, y_sign = (-1 if is_gain(metric) else 1 for metric in (spec.x, spec.y))
    points: dict[str, list[tuple[float, float, int]]] = {hue: [] for hue in _hues(grid, spec)}
    for i in _rows(grid, spec):
        if math.isfinite(xs[i]) and math.isfinite(ys[i]):
            points[grid.words[spec.hue][i] if spec.hue else ""].append((xs[i], ys[i], i))
    points = {hue: inside for hue, inside in points.items() if inside}
    if not points:
        raise InputError(
            f"{spec.x} and {spec.y}: not known together at any point with {place_text(spec.where)}"
        )
    _check_hues(spec, [*points])
    return {
        hue: Front(inside, [inside[i] for i in front([(x * x_sign, y * y_sign) for x, y, _ in inside])])
        for hue, inside in points.items()
    }


def front(costs: Sequence[tuple[float, float]]) -> list[int]:
    """Return which points no other beats: none is as good in both costs and better in one; by rising first cost."""
    order = sorted(range(len(costs)), key=costs.__getitem__)
    best: list[int] = []
    for i in order:
        if not best or costs[i][1] < costs[best[-1]][1] or costs[i] == costs[best[-1]]:
            best.append(i)
    return best


def is_gain(metric: str) -> bool:
    """Whether more of a metric is better."""
    return metric in HIGHER_IS_BETTER or unit_of(metric) is TIMES


def _rows(grid: Grid, spec: Spec) -> list[int]:
    """Return the rows that a figure shows. Raises InputError where it would mix points that differ otherwise."""
    rows = grid.rows(spec.where)
    for axis in grid.axes:
        is_shown = {spec.x, spec.hue} & {*axis.keys} or (spec.kind == "pareto" and _is_choice(axis))
        if not is_shown and len({grid.words[axis.lead][i] for i in rows}) > 1:
            raise InputError(f"{axis.lead}: neither shown nor held at a value")
    return rows


def _hues(grid: Grid, spec: Spec) -> list[str]:
    """Return what lines, bars or fronts may stand for; a single empty text where they stand for nothing."""
    if spec.hue is None:
        return [""]
    if spec.hue != PROCESSOR:
        return [*grid.axis(spec.hue).of(spec.hue)]
    if spec.y not in RATIOS or spec.over is not None or spec.kind not in ("line", "bars"):
        kinds = f"lines and bars of {' or '.join(RATIOS)}"
        raise InputError(f"{PROCESSOR}: only {kinds} over nothing else stand for processors")
    return grid.processors(spec.y)


def _check_hues(spec: Spec, hues: Sequence[str]) -> None:
    if len(hues) > MAX_HUES:
        raise InputError(
            f"{spec.hue}: {len(hues)} values, but a figure tells at most {MAX_HUES} apart; "
            "take another hue, or a heat map"
        )


def _values(grid: Grid, metric: str, over: str | None) -> list[float]:
    """Return a metric in every row of a grid; NaN where it, or what a ratio is over, is unknown."""
    if metric not in RATIOS:
        if metric in grid.results:
            return grid.results[metric]
        hint = did_you_mean(metric, [*grid.results, *RATIOS])
        raise InputError(f"{metric}: no number that the sweep has{hint}; such are {', '.join(GOOD_METRICS)}")
    known = grid.processors(metric)
    if over is None:
        raise InputError(f"{metric}: over what? Over a KEY=VALUE of the sweep or one of {', '.join(known)}")
    base = _pairs(over)
    if not base:
        # The maker's name, or what comes after the name, may be left out.
        meant = [over] if over in known else [name for name in known if f"_{over}_" in f"_{name}_"]
        if len(meant) != 1:
            hint, told = did_you_mean(over, known), ", ".join(known)
            raise InputError(
                f"{metric} over {over}: not known{hint}; over a KEY=VALUE of the sweep or {told}"
            )
        return grid.results[RATIOS[metric].column + meant[0]]
    axes = [grid.axis(key) for key in base]
    same = {
        key: _nearest(key, text, axis.of(key)) for (key, text), axis in zip(base.items(), axes, strict=True)
    }
    values = _values(grid, RATIOS[metric].metric, None)
    power = 1 if is_gain(RATIOS[metric].metric) else -1
    others = [grid.words[other.lead] for other in grid.axes if other not in axes]
    places = list(zip(*others, strict=True)) or [()] * len(values)
    reference = {places[i]: values[i] for i in grid.rows(same)}
    pairs = [(value, reference.get(place, math.nan)) for value, place in zip(values, places, strict=True)]
    return [(value / other) ** power if value and other else math.nan for value, other in pairs]
