"""Figures of a sweep: `figures` decides what to draw, `draw` draws it, `save` writes it.

The look is that of `reports.plots`: one paper column wide, Okabe and Ito's colours, and a marker, line style or
hatch each, which tell them apart in grey. pandas and matplotlib are imported when needed.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import count, pairwise
from pathlib import Path
from textwrap import fill, wrap
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import BaseModel, ValidationError

from pimloom.arch.tree import InputError, did_you_mean
from pimloom.reports.plots import BLUE, COLUMN_INCH, GREEN, LABELS, ORANGE, SKY, STYLE, VERMILLION

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.text import Text

KINDS = ("line", "heat", "bars", "pareto")
SUFFIXES = ("png", "pdf", "svg")
SWEEP, TABLE = "sweep.json", "table.parquet"
PROCESSOR = "processor"
"""As hue of a ratio: one bar or line for every processor that the sweep was compared with."""

LOOKS = (
    (BLUE, "o", "-", ""), (VERMILLION, "s", "--", "////"), (GREEN, "^", "-.", "...."),
    (ORANGE, "D", ":", "\\\\\\\\"), (SKY, "v", (0, (6, 1.5)), "xxxx"),
    ("#CC79A7", "P", (0, (4, 1, 1, 1, 1, 1)), "----"), ("#000000", "X", (0, (1, 1)), "++++"),
    ("#999999", "*", (0, (8, 2, 2, 2)), "oooo"),
)  # fmt: skip
"""Colour, marker, line style and hatch of each value of the hue."""
MAX_BARS_A_GROUP = 6
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
NARROW = 0.85
"""Where the smallest value is at least this share of the largest, an axis from 0 would hide the difference."""
LABELLED = 8
"""Up to so many points of fronts get a label each."""


# --- what a sweep is --------------------------------------------------------------------------

Scalar = bool | int | float | str | None


@dataclass(frozen=True)
class Axis:
    """Keys that were swept together, and their values in the order asked for, those of failed points left out."""

    keys: tuple[str, ...]
    values: tuple[tuple[Scalar, ...], ...]

    def of(self, key: str) -> dict[str, Scalar]:
        """Return the distinct values of one of the keys by their texts."""
        at = self.keys.index(key)
        return {word(value[at]): value[at] for value in self.values}

    @property
    def lead(self) -> str:
        """The first key that tells all values apart."""
        return next(key for key in self.keys if len(self.of(key)) == len(self.values))

    def is_numeric(self, key: str) -> bool:
        """Whether all values of the key are numbers."""
        return all(type(value) in (int, float) for value in self.of(key).values())


@dataclass(frozen=True, eq=False)
class Grid:
    """Every combination of the axes' values, as far as it did not fail.

    axes: what was swept; `model` and `arch` come first, also where there is only one
    words: swept key -> its value in every row, as text
    results: column -> number in every row, NaN = none
    """

    name: str
    axes: tuple[Axis, ...]
    words: Mapping[str, list[str]]
    results: Mapping[str, list[float]]

    def axis(self, key: str) -> Axis:
        """Return the axis of a key. Raises InputError if it was not swept."""
        for axis in self.axes:
            if key in axis.keys:
                if key != axis.lead and len(axis.of(key)) < len(axis.values):
                    raise InputError(f"{key}: has equal values at several points; draw {axis.lead} instead")
                return axis
        known = [key for axis in self.axes for key in axis.keys]
        raise InputError(f"{key}: not swept{did_you_mean(key, known)}; swept are {', '.join(known)}")

    def free(self, where: Mapping[str, str]) -> list[Axis]:
        """Return the axes of several values that `where` does not fix."""
        return [axis for axis in self.axes if len(axis.values) > 1 and where.keys().isdisjoint(axis.keys)]

    def rows(self, where: Mapping[str, str]) -> list[int]:
        """Return the rows with these texts."""
        every = range(len(self.words["model"]) if where.keys() <= self.words.keys() else 0)
        return [i for i in every if all(self.words[key][i] == text for key, text in where.items())]

    def processors(self, ratio: str) -> list[str]:
        """Return what a ratio is known over."""
        prefix = RATIOS[ratio].column
        known = (name for name, values in self.results.items() if any(map(math.isfinite, values)))
        return [name.removeprefix(prefix) for name in known if name.startswith(prefix)]


@dataclass(frozen=True, eq=False)
class Sweep:
    """A finished sweep.

    table: a row a point, as in the spec of `table.parquet`, without the points that failed
    failed: how many did
    """

    name: str
    table: pd.DataFrame = field(repr=False)
    failed: int
    models: tuple[str, ...]
    archs: tuple[str, ...]
    grids: tuple[Grid, ...] = field(repr=False)

    def grid(self, name: str) -> Grid:
        """Return the grid of that name. Raises InputError if there is none."""
        names = [grid.name for grid in self.grids]
        if name not in names:
            hint = did_you_mean(name, names)
            raise InputError(f"no grid {name!r}{hint}; {self.name} has {', '.join(names)}")
        return self.grids[names.index(name)]


def word(value: Any) -> str:
    """Return a value of the table, of `sweep.json` or of the command line as text: equal ones get equal texts."""
    if type(value).__name__ == "bool":  # Python's or NumPy's
        return str(value).lower()
    try:
        number = float(value)
    except (TypeError, ValueError):
        return "null" if value is None or str(value) == "<NA>" else str(value)
    if math.isnan(number) and not isinstance(value, str):
        return "null"
    return f"{number:.12g}" if math.isfinite(number) else str(value)


class _AxisFile(BaseModel):
    keys: tuple[str, ...]
    values: tuple[tuple[Scalar, ...], ...]


class _GridFile(BaseModel):
    name: str
    axes: tuple[_AxisFile, ...]
    points: tuple[str, ...]


class _SweepFile(BaseModel):
    schema_version: Literal[1]
    name: str
    models: tuple[str, ...]
    archs: tuple[str, ...]
    grids: tuple[_GridFile, ...]


def load_sweep(folder: str | os.PathLike[str]) -> Sweep:
    """Read what `pimloom sweep` left in a folder. Raises InputError if that is no sweep, or a broken one."""
    import pandas as pd
    from pyarrow import ArrowException

    root = Path(folder)
    try:
        file = _SweepFile.model_validate_json((root / SWEEP).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(_why_not(root, error)) from None
    try:
        table = pd.read_parquet(root / TABLE)
    except (OSError, ValueError, ArrowException) as error:
        reason = "is missing: the sweep did not finish" if isinstance(error, FileNotFoundError) else error
        raise InputError(f"{root / TABLE}: {reason}") from None
    swept = [key for grid in file.grids for axis in grid.axes for key in axis.keys]
    for key in ("model", "arch", "error", "point", *swept):
        if key not in table:
            raise InputError(f"{root / TABLE}: has no column {key!r}, which {SWEEP} asks for")
    if len({grid.name for grid in file.grids}) < len(file.grids):
        raise InputError(f"{root / SWEEP}: two grids have the same name")
    fine = table["error"].isna() | (table["error"] == "")
    rows = table[fine].reset_index(drop=True)
    inputs = ("model", "arch", *dict.fromkeys(swept))
    grids = tuple(_grid(root, file, grid, rows, inputs) for grid in file.grids)
    return Sweep(file.name, rows, int((~fine).sum()), file.models, file.archs, grids)


def _why_not(root: Path, error: Exception) -> str:
    """Say why there is no readable `sweep.json`."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{root / SWEEP}: {'.'.join(map(str, first['loc'])) or 'broken'}: {first['msg']}"
    if (root / "result.json").exists():
        return f"{root}: a single run, no sweep; its figures are in {root / 'figures'}"
    if not isinstance(error, FileNotFoundError):
        return f"{root / SWEEP}: cannot be read: {getattr(error, 'strerror', None) or error}"
    if root.is_dir():
        inside = sorted(path.parent.name for path in root.glob(f"*/{SWEEP}"))
        return f"{root}: no sweep: there is no {SWEEP}" + (
            f"; there are {', '.join(inside)}" if inside else ""
        )
    beside = [path.name for path in root.parent.glob("*") if path.is_dir()]
    return f"{root}: no such folder{did_you_mean(root.name, beside)}"


def _grid(root: Path, file: _SweepFile, grid: _GridFile, table: pd.DataFrame, inputs: Sequence[str]) -> Grid:
    """Return the rows of a grid, by column."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    rows = table[table["point"].isin(grid.points)]
    words = {key: [word(value) for value in rows[key]] for key in inputs}
    results = {
        str(name): column.to_numpy(float, na_value=math.nan).tolist()
        for name, column in rows.drop(columns=[*inputs, "error", "point"]).items()
        if (is_numeric_dtype(column) and not is_bool_dtype(column)) or column.isna().all()
    }
    axes = []
    for keys, values in (
        (("model",), tuple((name,) for name in file.models)),
        (("arch",), tuple((name,) for name in file.archs)),
        *((axis.keys, axis.values) for axis in grid.axes),
    ):
        declared = {tuple(map(word, value)): value for value in values}
        places = list(zip(*(words[key] for key in keys), strict=True))
        there = set(places)
        if not declared.keys() >= there:
            raise InputError(f"{root}: {TABLE} and {SWEEP} disagree about {', '.join(keys)}")
        axis = Axis(keys, tuple(value for texts, value in declared.items() if texts in there))
        if all(len(axis.of(key)) < len(axis.values) for key in keys):
            # No key tells all points apart, so the axis gets one that does.
            joined = " & ".join(keys)
            words[joined] = [", ".join(texts) for texts in places]
            axis = Axis((*keys, joined), tuple((*v, ", ".join(map(word, v))) for v in axis.values))
        axes.append(axis)
    leads = [words[axis.lead] for axis in axes if axis.values]
    if len(set(zip(*leads, strict=True))) < len(rows):
        raise InputError(f"{root}: grid {grid.name!r} has several points with equal values of all swept keys")
    return Grid(grid.name, tuple(axes), words, results)


# --- what the numbers are called --------------------------------------------------------------


class Unit(NamedTuple):
    """Names of a unit and its multiples, each `step` of the one before; a number times `factor` is in the first."""

    names: tuple[str, ...] = ("",)
    step: int = 1000
    factor: float = 1

    def fit(self, value: float) -> tuple[str, float]:
        """Return the multiple in which `value` is readable, and the factor to get there."""
        factors = [self.factor / self.step**i for i in range(len(self.names))]
        fit = (i for i, factor in enumerate(factors) if abs(value) * factor < self.step)
        i = next(fit, len(factors) - 1)
        return self.names[i], factors[i]


UNITS = {
    "per_s": Unit(("1/s",)), "pJ_per_bit": Unit(("pJ/bit",)), "Hz": Unit(("Hz", "kHz", "MHz", "GHz")),
    "bps": Unit(("b/s", "kb/s", "Mb/s", "Gb/s", "Tb/s")), "Bps": Unit(("B/s", "kB/s", "MB/s", "GB/s", "TB/s")),
    "B": Unit(("B", "KiB", "MiB", "GiB", "TiB"), 1024), "bit": Unit(("bit",)), "s": Unit(("s",)),
    "ns": Unit(("ns", "µs", "ms", "s")), "ps": Unit(("ps", "ns", "µs", "ms", "s")), "W": Unit(("W", "kW")),
    "pJ": Unit(("pJ", "nJ", "µJ", "mJ", "J", "kJ")), "mA": Unit(("mA", "A")), "V": Unit(("V",)),
    "share": Unit(("%",), factor=100), "utilisation": Unit(("%",), factor=100),
    "utilisation_useful": Unit(("%",), factor=100), "hit_rate": Unit(("%",), factor=100),
}  # fmt: skip
"""End of a key's word -> unit: names carry their unit throughout."""
CLOCKS, TIMES = Unit(("clocks",)), Unit(("×",))

NAMES = {
    "model": "model", "arch": "machine", "dram.channels": "DRAM channels", "dram.clock_Hz": "DRAM clock",
    "dram.io.rate_bps": "pin rate", "dram.io.width_bit": "pins per channel", "dram.bankgroups": "bank groups",
    "dram.banks_per_bankgroup": "banks per bank group", "dram.rows": "rows per bank",
    "dram.columns": "columns per row", "pim.lanes": "MAC lanes per bank", "pim.clock_Hz": "MAC clock",
    "pim.buffer_B": "input buffer", "asic.clock_Hz": "ASIC clock", "asic.adders": "ASIC adders",
    "asic.multipliers": "ASIC multipliers", "asic.sram_B": "ASIC SRAM", "link.rate_bps": "link rate",
    "link.width_bit": "link width", "link.latency_ns": "link latency", "mapping.barrier": "barrier",
    "mapping.max_tokens": "reserved tokens", "workload.prompt": "prompt tokens",
    "workload.generate": "new tokens", "workload.batch": "batch size", "workload.embedding": "embedding",
    "workload.head": "LM head", "tokens_per_s": "tokens per second", "energy_per_token_pJ": "energy per token",
    "energy_pJ.total": "energy", "ttft_ns": "time to first token", "tpot_ns": "time per output token",
    "total_time_ns": "total time", "average_power_W": "average power", "pim_utilisation": "PIM utilisation",
    "pim_utilisation_useful": "PIM utilisation without padding", "row_hit_rate": "row hits",
    "bandwidth_inside_Bps.achieved": "bandwidth inside", "bandwidth_pins_Bps.achieved": "bandwidth of the pins",
    "interface_bytes.reduction.decoder_payload.factor": "traffic reduction",
    "speedup": "speedup", "energy_saving": "energy saving",
}  # fmt: skip
"""Swept key or result -> how a figure calls it; others go by their dotted name without the unit."""
FAMILIES = {"energy_pJ": "energy", "energy_by_operator_pJ": "energy", "latency_share": "time share"}
"""Results by component or operator class, which `plots.LABELS` names."""


class Ratio(NamedTuple):
    """A comparison: its columns, and the metric whose ratio it is between points of the sweep."""

    column: str
    metric: str
    power: int


RATIOS = {
    "speedup": Ratio("speedup_over.", "tokens_per_s", 1),
    "energy_saving": Ratio("energy_saving_over.", "energy_per_token_pJ", -1),
}
DEFAULT_METRICS = ("tokens_per_s", "energy_per_token_pJ")
GOOD_METRICS = (
    *DEFAULT_METRICS, "ttft_ns", "tpot_ns", "total_time_ns", "average_power_W", "pim_utilisation",
    "energy_pJ.total", "latency_share.*", "speedup", "energy_saving",
)  # fmt: skip
HIGHER_IS_BETTER = (
    "tokens_per_s", "pim_utilisation", "pim_utilisation_useful", "row_hit_rate", "bandwidth_inside_Bps.achieved",
    "interface_bytes.reduction.decoder_payload.factor",
)  # fmt: skip
"""So are ratios; all other metrics are costs."""


def unit_of(key: str) -> Unit:
    """Return the unit that a swept key or a result has by its name."""
    if key in RATIOS or key.startswith(tuple(ratio.column for ratio in RATIOS.values())):
        return TIMES
    for part in reversed(key.split(".")):
        if re.fullmatch("n[A-Z][A-Za-z]*", part):
            return CLOCKS
        for end, unit in UNITS.items():
            if part == end or part.endswith(f"_{end}"):
                return unit
    return Unit()


def name_of(key: str) -> str:
    """Return what figures call a swept key or a result, without its unit."""
    if key in NAMES:
        return NAMES[key]
    family, _, member = key.partition(".")
    for name, ratio in RATIOS.items():
        if key.startswith(ratio.column):
            return f"{NAMES[name]} over {_processor(member)}"
    if family in FAMILIES and member:
        return f"{FAMILIES[family]}: {LABELS.get(member, member)}"
    if unit_of(key) is CLOCKS:
        return key.rpartition(".")[2]
    ends = "|".join(end for end, unit in UNITS.items() if unit.names != ("%",))
    return re.sub(rf"_({ends})(?=\.|$)", "", key)


def _number(value: float) -> str:
    """Return a number in full if it is a whole one, else to four digits."""
    whole = round(value)
    return f"{whole}" if math.isclose(value, whole, rel_tol=1e-12) else f"{value:.4g}"


def value_text(key: str, text: str) -> str:
    """Return a swept key's value with its unit: 16 Gb/s, 12 clocks, data."""
    number = _as_number(text)
    if number is None:
        return text
    unit, factor = unit_of(key).fit(number)
    return f"{_number(number * factor)} {unit}".rstrip()


def _as_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _swept(axis: Axis, key: str, texts: Sequence[str]) -> tuple[str, list[str]]:
    """Return the label of a swept key and those of its values, in one unit where that reads well."""
    equals = [name_of(other) for other in axis.keys if other != key and axis.of(other) == axis.of(key)]
    name = " = ".join([name_of(key), *equals])
    if not axis.is_numeric(key):
        return name, [value_text(key, text) for text in texts]
    numbers = [float(text) for text in texts]
    unit, factor = unit_of(key).fit(min((abs(n) for n in numbers if n), default=0))
    five_digits = 10_000
    if unit and max(numbers) * factor >= five_digits:
        return name, [value_text(key, text) for text in texts]
    labels = [_number(n * factor) for n in numbers]
    is_clear = len(set(labels)) == len(set(numbers))
    labels = labels if is_clear else [f"{n * factor:.12g}" for n in numbers]
    return f"{name} ({unit})" if unit else name, labels


def _processor(name: str) -> str:
    """Return a processor as legends say it, and what its figures are."""
    kind = "roofline" if name.endswith("_roofline") else "measured"
    words = name.removesuffix("_roofline").replace("_", " ")
    return f"{re.sub('^(NVIDIA|Intel|AMD) ', '', words)} ({kind})"


def _measure(metric: str, over: str | None, values: Sequence[float], more: str = "") -> tuple[str, float]:
    """Return the label of a metric, in the unit that suits `values`, and the factor to that unit."""
    unit, factor = unit_of(metric).fit(max(map(abs, values)))
    name = name_of(metric)
    if metric in RATIOS:
        name += f" over {'…' if over is None else _reference(over)}"
    said = ", ".join(filter(None, (unit, more)))
    return f"{name} ({said})" if said else name, factor


def _reference(over: str) -> str:
    key, equals, text = over.partition("=")
    if not equals:
        return _processor(over)
    value = value_text(key, word(text))
    return value if key in ("model", "arch") else f"{name_of(key)} = {value}"


# --- what to draw -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """What someone asks for; what is left out is decided by what was swept.

    kind: one of KINDS
    x: swept key, `model` or `arch`; of a Pareto front, a metric
    y: metric: a numeric column of the results, `speedup` or `energy_saving`
    hue: what lines, bars, fronts or the rows of a heat map stand for: a swept key, `model`, `arch`, or `processor`
    over: what a ratio is over: a processor as the columns name it, or a point of the sweep as `key=value`
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
    """One figure with everything decided; fields as in `Wanted`. `where` fixes all that the figure does not show."""

    kind: str
    grid: str
    x: str
    y: str
    hue: str | None = None
    over: str | None = None
    where: Mapping[str, str] = field(default_factory=dict)


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
    if sweep.table.empty:
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
                _points(grid, draft) if draft.kind == "pareto" else _cells(grid, draft)
                specs.append(draft)
            except InputError as error:
                errors.append(error)
    if not specs:
        raise errors[0] if errors else InputError(f"{sweep.name}: nothing varies that could be drawn")
    return specs


def _known(sweep: Sweep, where: Mapping[str, str]) -> dict[str, str]:
    """Return `where` with the values as the table has them."""
    there: dict[str, dict[str, None]] = {}
    for grid in sweep.grids:
        for key, texts in grid.words.items():
            there.setdefault(key, {}).update(dict.fromkeys(texts))
    for key, text in where.items():
        if key not in there:
            raise InputError(f"{key}: not swept{did_you_mean(key, [*there])}; swept are {', '.join(there)}")
        if word(text) not in there[key]:
            raise InputError(f"{key}: no point has {text!r}; there are {', '.join(there[key])}")
    return {key: word(text) for key, text in where.items()}


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
    compares = wanted.y in RATIOS or wanted.over is not None or wanted.hue == PROCESSOR
    if compares or wanted.y is not None or wanted.hue is not None:
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
    if kind == "heat" and wanted.y in grid.words:  # both swept keys were given as the axes that they are
        wanted = replace(wanted, y=wanted.hue, hue=wanted.y)
    free = grid.free(wanted.where)
    numbers = sorted(
        (axis for axis in free if axis.is_numeric(axis.lead)), key=lambda axis: -len(axis.values)
    )
    x, hue = wanted.x, wanted.hue
    metrics: tuple[str, ...] = DEFAULT_METRICS
    if kind == "line":
        x = x or _first(numbers, hue)
        hue = hue or _first(free, x, limit=len(LOOKS))
    elif kind == "heat":
        x = x or _first(numbers, hue) or _first(free, hue)
        hue = hue or _first(numbers, x) or _first(free, x)
        metrics = DEFAULT_METRICS[:1]
    elif kind == "bars":
        x = x or _first((axis for axis in free if axis not in numbers), hue) or _first(free, hue)
        hue = hue or _behind_bars(grid, wanted, free, x)
    else:
        x = x or DEFAULT_METRICS[1]
        names = (axis for axis in free if axis.lead in ("model", "arch"))
        hue, metrics = hue or _first(names, limit=len(LOOKS)), DEFAULT_METRICS[:1]
    if x is None or (kind == "heat" and hue is None):
        needs = {"line": "a swept key with numbers", "heat": "two swept keys", "bars": "a swept key"}[kind]
        raise InputError(f"grid {grid.name}: a figure of kind {kind} needs {needs}")
    if wanted.over or (hue == PROCESSOR and kind != "pareto") or (kind == "bars" and x == "model" and hue):
        metrics = tuple(RATIOS)
    if wanted.over and not {x, wanted.y or metrics[0]} & RATIOS.keys():
        raise InputError(
            f"{wanted.y}: not over anything; what is over {wanted.over} is {' or '.join(RATIOS)}"
        )
    shown = [grid.axis(key) for key in (x, hue) if key and key in grid.words]
    for key in (key for axis in shown for key in axis.keys if key in wanted.where):
        raise InputError(f"{key}: the figure shows it, so it cannot be held at {wanted.where[key]}")
    if kind == "pareto":
        shown += filter(_is_choice, free)
    where = _fixed(grid, shown, wanted.where)
    drafts = []
    for metric in (wanted.y,) if wanted.y else metrics:
        over = wanted.over
        if metric in RATIOS and over is None and hue != PROCESSOR and kind != "pareto":
            key = hue if kind == "bars" and hue else x
            over = f"{key}={next(iter(grid.axis(key).of(key)))}"
        drafts.append(Spec(kind, grid.name, x, metric, hue, over, where))
    return drafts


def _behind_bars(grid: Grid, wanted: Wanted, free: Sequence[Axis], x: str | None) -> str | None:
    """Return what the bars of a group stand for."""
    base = (wanted.over or "").partition("=")[0]
    compared = _first((axis for axis in free if base in axis.keys), x)
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
            raise InputError(f"grid {grid.name}: no point has {_at(fixed)}")
        if axis not in shown:
            fixed[axis.lead] = [text for text in axis.of(axis.lead) if text in there][-1]
    return fixed


def _at(where: Mapping[str, str]) -> str:
    return ", ".join(f"{name_of(key)} = {value_text(key, text)}" for key, text in where.items())


# --- the numbers of a figure ------------------------------------------------------------------


class Cells(NamedTuple):
    """The numbers of lines, bars or a heat map: values[hue][x], NaN = none; both as texts."""

    xs: list[str]
    hues: list[str]
    values: list[list[float]]


def _rows(grid: Grid, spec: Spec) -> list[int]:
    """Return the rows that a figure shows. Raises InputError where it would mix points that differ otherwise."""
    rows = grid.rows(spec.where)
    for axis in grid.axes:
        is_shown = (
            spec.x in axis.keys or spec.hue in axis.keys or (spec.kind == "pareto" and _is_choice(axis))
        )
        if not is_shown and len({grid.words[axis.lead][i] for i in rows}) > 1:
            raise InputError(f"{axis.lead}: neither shown nor held at a value")
    return rows


def _hues(grid: Grid, spec: Spec) -> list[str]:
    """Return what lines, bars or fronts may stand for; a single empty text where they stand for nothing."""
    if spec.hue == PROCESSOR:
        if spec.y not in RATIOS or spec.over is not None or spec.kind not in ("line", "bars"):
            kinds = f"lines and bars of {' or '.join(RATIOS)}"
            raise InputError(f"{PROCESSOR}: only {kinds} over nothing else stand for processors")
        return grid.processors(spec.y)
    if spec.hue is None:
        return [""]
    return [*grid.axis(spec.hue).of(spec.hue)]


def _cells(grid: Grid, spec: Spec) -> Cells:
    """Return the numbers of a figure without empty lines and columns. Raises InputError if there are none."""
    rows, words, hues = _rows(grid, spec), grid.words, _hues(grid, spec)
    hue_words = words.get(spec.hue or "")
    cells: dict[tuple[str, str], float] = {}
    for hue in hues if spec.hue == PROCESSOR else hues[:1]:
        values = _values(grid, spec.y, hue if spec.hue == PROCESSOR else spec.over)
        known = [
            i for i in rows if math.isfinite(values[i]) and (values[i] > 0 or unit_of(spec.y) is not TIMES)
        ]
        cells |= {(words[spec.x][i], hue_words[i] if hue_words else hue): values[i] for i in known}
    base, _, value = (spec.over or "").partition("=")
    if spec.kind == "bars" and spec.y in RATIOS and hue_words and base in grid.axis(spec.hue or "").keys:
        # The reference itself would be a row of bars of height 1.
        same = {hue_words[i] for i in grid.rows({base: word(value)})}
        cells = {key: cell for key, cell in cells.items() if key[1] not in same}
    if not cells:
        over = f" over {spec.over}" if spec.over else ""
        raise InputError(f"{spec.y}{over}: not known at any point with {_at(spec.where)}")
    # Groups of bars are kept where only what they are compared with is missing.
    there = {words[spec.x][i] for i in rows} if spec.kind == "bars" else {x for x, _ in cells}
    xs = [x for x in grid.axis(spec.x).of(spec.x) if x in there]
    hues = [hue for hue in hues if any(hue == key[1] for key in cells)]
    if spec.kind != "heat":
        _check_looks(spec, hues)
    return Cells(xs, hues, [[cells.get((x, hue), math.nan) for x in xs] for hue in hues])


def _points(grid: Grid, spec: Spec) -> dict[str, list[tuple[float, float, int]]]:
    """Return the points of a Pareto plot by hue, each with its row. Raises InputError if there are none."""
    xs, ys = (_values(grid, metric, spec.over) for metric in (spec.x, spec.y))
    points: dict[str, list[tuple[float, float, int]]] = {hue: [] for hue in _hues(grid, spec)}
    for i in _rows(grid, spec):
        if math.isfinite(xs[i]) and math.isfinite(ys[i]):
            points[grid.words[spec.hue][i] if spec.hue else ""].append((xs[i], ys[i], i))
    points = {hue: inside for hue, inside in points.items() if inside}
    if not points:
        raise InputError(f"{spec.x} and {spec.y}: not known together at any point with {_at(spec.where)}")
    _check_looks(spec, [*points])
    return points


def _check_looks(spec: Spec, hues: Sequence[str]) -> None:
    if len(hues) > len(LOOKS):
        raise InputError(
            f"{spec.hue}: {len(hues)} values, but a figure tells at most {len(LOOKS)} apart; "
            "take another hue, or a heat map"
        )


def _values(grid: Grid, metric: str, over: str | None) -> list[float]:
    """Return a metric in every row of a grid; NaN where it, or what a ratio is over, is unknown."""
    if metric not in RATIOS:
        if metric in grid.results:
            return grid.results[metric]
        hint = did_you_mean(metric, [*grid.results, *RATIOS])
        raise InputError(f"{metric}: no number that the sweep has{hint}; such are {', '.join(GOOD_METRICS)}")
    ratio = RATIOS[metric]
    known = grid.processors(metric)
    if over is None:
        raise InputError(f"{metric}: over what? Over a KEY=VALUE of the sweep or one of {', '.join(known)}")
    key, equals, text = over.partition("=")
    if not equals:
        # The maker's name may be left out.
        meant = [over] if over in known else [name for name in known if name.endswith(f"_{over}")]
        if len(meant) != 1:
            hint, others = did_you_mean(over, known), ", ".join(known)
            raise InputError(
                f"{metric} over {over}: not known{hint}; over a KEY=VALUE of the sweep or {others}"
            )
        return grid.results[ratio.column + meant[0]]
    axis, values = grid.axis(key), _values(grid, ratio.metric, None)
    if word(text) not in axis.of(key):
        raise InputError(f"{key}: no point has {text!r}; there are {', '.join(axis.of(key))}")
    places = list(zip(*(grid.words[other.lead] for other in grid.axes if other is not axis), strict=True))
    base = {places[i]: values[i] for i in grid.rows({key: word(text)})}
    pairs = [(value, base.get(place, math.nan)) for value, place in zip(values, places, strict=True)]
    return [(value / other) ** ratio.power if value and other else math.nan for value, other in pairs]


def front(costs: Sequence[tuple[float, float]]) -> list[int]:
    """Return which points no other beats: none is as good in both costs and better in one; by rising first cost."""
    order = sorted(range(len(costs)), key=costs.__getitem__)
    best: list[int] = []
    for i in order:
        if not best or costs[i][1] < costs[best[-1]][1] or costs[i] == costs[best[-1]]:
            best.append(i)
    return best


# --- drawing ----------------------------------------------------------------------------------


class Key(NamedTuple):
    """What a figure's legend says."""

    handles: Sequence[Any] = ()
    labels: Sequence[str] = ()
    title: str = ""


def draw(sweep: Sweep, spec: Spec, ax: Axes | None = None) -> Axes:
    """Draw a figure on Axes, or on new ones of one column's width, and return them.

    Axes that are alone in their figure get a legend below them and the height that it all needs. Raises InputError
    if the spec asks for what the sweep does not have.
    """
    from matplotlib.figure import Figure

    grid = sweep.grid(spec.grid)
    with _style():
        if ax is None:
            ax = Figure(figsize=(COLUMN_INCH, HEIGHT_INCH), layout="constrained").subplots()
        is_alone = ax.figure.axes == [ax]
        key = {"line": _line, "heat": _heat, "bars": _bars, "pareto": _pareto}[spec.kind](ax, grid, spec)
        title = _title(spec)
        ax.set_title(title)
        lines = _legend(ax, key, is_alone) + title.count("\n")
        if is_alone:
            turned_inch = max((_turned_inch(label) for label in ax.get_xticklabels()), default=0.0)
            ax.figure.set_figheight(HEIGHT_INCH + LINE_INCH * lines + turned_inch)  # type: ignore[union-attr]
    return ax


def save(sweep: Sweep, specs: Sequence[Spec], folder: str | os.PathLike[str]) -> list[Path]:
    """Write figures as PNG, PDF and SVG, the same bytes for the same sweep, and return the paths.

    Raises InputError if the folder cannot be written.
    """
    from matplotlib.figure import Figure

    target, paths = Path(folder), []
    try:
        target.mkdir(parents=True, exist_ok=True)
        for spec, name in zip(specs, _file_names(sweep, specs), strict=True):
            with _style():
                figure = Figure(figsize=(COLUMN_INCH, HEIGHT_INCH), layout="constrained")
                draw(sweep, spec, figure.subplots())
                figure.draw_without_rendering()
                figure.set_layout_engine("none")  # the layout holds; it is the slow part of saving
                for suffix, undated in zip(SUFFIXES, ("Software", "CreationDate", "Date"), strict=True):
                    paths.append(target / f"{name}.{suffix}")
                    figure.savefig(paths[-1], metadata={undated: None})
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror or error}") from error
    return paths


def _file_names(sweep: Sweep, specs: Sequence[Spec]) -> list[str]:
    """Return a different file name for each figure, also where upper and lower case are the same."""
    names: list[str] = []
    for spec in specs:
        parts = [spec.grid] * (len(sweep.grids) > 1) + [spec.kind, spec.y]
        name = "_".join(re.sub(r"[^A-Za-z0-9_-]+", "-", part)[:60] for part in parts)
        taken = {other.lower() for other in names}
        numbered = (name if i == 1 else f"{name}_{i}" for i in count(1))
        names.append(next(n for n in numbered if n.lower() not in taken))
    return names


def _style() -> AbstractContextManager[None]:
    import matplotlib as mpl

    # A $ in a name from outside begins no formula.
    more = {
        "svg.fonttype": "none",
        "svg.hashsalt": "pimloom",
        "text.parse_math": False,
        "axes.axisbelow": True,
        "legend.fontsize": SMALL,
        "legend.title_fontsize": SMALL,
    }
    return mpl.rc_context(STYLE | more)


def _title(spec: Spec) -> str:
    """Return what the figure holds fixed."""
    names = ("model", "arch")
    who = " on ".join(spec.where[key] for key in names if key in spec.where)
    at = _at({key: text for key, text in spec.where.items() if key not in names})
    corner = f"{'upper' if _is_gain(spec.y) else 'lower'} {'right' if _is_gain(spec.x) else 'left'}"
    better = f"Pareto fronts; the {corner} is better" if spec.kind == "pareto" else ""
    kept = at.replace(" ", "\xa0").replace(",\xa0", ", ")  # lines end between values, not inside of one
    lines = [fill(text, TITLE_LETTERS).replace("\xa0", " ") for text in (who, kept, better) if text]
    return "\n".join(lines)


def _legend(ax: Axes, key: Key, is_alone: bool) -> int:
    """Put the legend where no data are, and return the lines that it takes below the axes."""
    if not key.labels and not key.title:
        return 0
    if not is_alone:
        ax.legend(key.handles, key.labels, title=key.title, loc="upper left", bbox_to_anchor=(1, 1))
        return 0
    handle_inch = 0.4
    widest_inch = max((_width_inch(label, SMALL) + handle_inch for label in key.labels), default=COLUMN_INCH)
    columns = max(1, min(len(key.labels), int(COLUMN_INCH / widest_inch)))
    rows = -(-len(key.labels) // columns)
    ax.figure.legend(
        key.handles, key.labels, title=key.title, loc="outside lower center", ncols=-(-len(key.labels) // max(rows, 1)),
        handlelength=2.2,
    )  # fmt: skip
    return rows + bool(key.title)


def _hue_key(grid: Grid, spec: Spec, hues: Sequence[str], handles: Sequence[Any]) -> Key:
    if spec.hue is None:
        return Key()
    if spec.hue == PROCESSOR:
        return Key(handles, [_processor(hue) for hue in hues])
    title, labels = _swept(grid.axis(spec.hue), spec.hue, hues)
    return Key(handles, labels, "" if spec.hue in ("model", "arch") else title)


def _line(ax: Axes, grid: Grid, spec: Spec) -> Key:
    """Draw a metric over a swept key, a line for each value of another; names are not joined by lines."""
    xs, hues, values = _cells(grid, spec)
    axis = grid.axis(spec.x)
    is_numeric = axis.is_numeric(spec.x)
    name, labels = _swept(axis, spec.x, xs)
    places = [float(text) for text in xs] if is_numeric else [float(i) for i in range(len(xs))]
    (_numbers if is_numeric else _categories)(ax, places, labels)
    ax.set_xlabel(name)
    every = _finite(values)
    is_narrow = min(every) > NARROW * max(every)
    factor = _metric_axis(ax, "y", spec.y, spec.over, every, from_zero=not is_narrow, is_log=_is_wide(every))
    order = sorted(range(len(xs)), key=places.__getitem__)
    lines = []
    for row, (color, marker, dashes, _) in zip(values, LOOKS, strict=False):
        lines += ax.plot(
            [places[i] for i in order], [row[i] * factor for i in order], color=color, marker=marker,
            linestyle=dashes if is_numeric else "none", clip_on=False, markersize=3.5, linewidth=1.1,
        )  # fmt: skip
    return _hue_key(grid, spec, hues, lines)


def _bars(ax: Axes, grid: Grid, spec: Spec) -> Key:
    """Draw a metric in groups; ratios of several models end with their geometric mean."""
    xs, hues, values = _cells(grid, spec)
    name, labels = _swept(grid.axis(spec.x), spec.x, xs)
    is_ratio = unit_of(spec.y) is TIMES
    if is_ratio and spec.x == "model":
        # Means over different models could not be compared.
        whole = [i for i in range(len(xs)) if all(math.isfinite(row[i]) for row in values)]
        if len(whole) > 1:
            labels.append("geo. mean" if len(whole) == len(xs) else f"geo. mean of {len(whole)}")
            values = [[*row, math.exp(sum(math.log(row[i]) for i in whole) / len(whole))] for row in values]
    every = _finite(values)
    is_log = is_ratio and _is_wide([1, *every])
    scaled = [1, *every] if is_log else every
    factor = _metric_axis(ax, "y", spec.y, spec.over, scaled, from_zero=True, is_log=is_log)
    base = 1 if is_log else 0
    group = 0.84 if len(every) > 3 else 0.5  # noqa: PLR2004
    width = group / len(hues)
    widest_inch = max(_width_inch(_short(v * factor), SMALL) for v in every)
    has_room = widest_inch + 0.03 < AXES_INCH / len(labels) * width
    handles = []
    for j, (row, (color, _, _, hatch)) in enumerate(zip(values, LOOKS, strict=False)):
        is_light = spec.hue == PROCESSOR and hues[j].endswith("_roofline")
        face, edge = ("white", color) if is_light else (color, "white")
        known = [
            (i - group / 2 + (j + 0.5) * width, v * factor) for i, v in enumerate(row) if math.isfinite(v)
        ]
        handles.append(
            ax.bar(
                [at for at, _ in known], [v - base for _, v in known], 0.92 * width, base, facecolor=face,
                edgecolor=edge, hatch=hatch or ("//////" if is_light else ""), linewidth=0.6 if is_light else 0,
            )
        )  # fmt: skip
        for at, v in known if has_room else ():
            _note(ax, _short(v), (at, max(v, base)), (0, 1.5), "center")
    for i in range(len(xs)):
        if not any(math.isfinite(row[i]) for row in values):
            _note(ax, "n/a", (i, base), (0, 1.5), "center")
    if is_ratio:
        ax.axhline(1, color="black", linewidth=0.7)
    if is_log and min(every) >= 1:
        ax.set_ylim(bottom=1)
    ax.set_xlim(-0.6, len(labels) - 0.4)
    _categories(ax, range(len(labels)), labels)
    ax.set_xlabel(name)
    return _hue_key(grid, spec, hues, handles)


def _heat(ax: Axes, grid: Grid, spec: Spec) -> Key:
    """Draw a metric over two swept keys as colours, and its values where there is room."""
    import numpy as np
    from matplotlib.colors import LogNorm, Normalize

    assert spec.hue is not None, "a heat map has rows"
    xs, rows, values = _cells(grid, spec)
    every = _finite(values)
    is_log = _is_wide(every)
    label, factor = _measure(spec.y, spec.over, every, "log scale" if is_log else "")
    limits = min(every) * factor, max(every) * factor
    norm = LogNorm(*limits) if is_log else Normalize(*limits)
    cells = np.array(values) * factor
    mesh = ax.pcolormesh(
        np.ma.masked_invalid(cells), cmap="cividis", norm=norm, edgecolors="white", linewidth=0.8
    )
    widest_inch = max(_width_inch(_short(v * factor), SMALL) for v in every)
    has_room = widest_inch + 0.03 < MAP_INCH / len(xs) and UPRIGHT_INCH / len(rows) > LINE_INCH
    for (j, i), value in np.ndenumerate(cells) if has_room else ():
        is_known = math.isfinite(value)
        color = "white" if is_known and norm(value) < 0.5 else "black"  # noqa: PLR2004
        text = _short(value) if is_known else "–"
        ax.annotate(text, (i + 0.5, j + 0.5), ha="center", va="center", fontsize=SMALL, color=color)
    bar = ax.figure.colorbar(mesh, ax=ax, pad=0.03)
    bar.set_label(_upright(label))
    bar.outline.set_visible(False)
    for which, key, texts, room_inch in (("x", spec.x, xs, MAP_INCH), ("y", spec.hue, rows, UPRIGHT_INCH)):
        name, labels = _swept(grid.axis(key), key, texts)
        _categories(ax, [i + 0.5 for i in range(len(texts))], labels, which, room_inch)
        getattr(ax, f"set_{which}label")(name)
    ax.spines[:].set_visible(False)
    return Key()


def _pareto(ax: Axes, grid: Grid, spec: Spec) -> Key:
    """Draw all points lightly, and the front of those that no other beats in both metrics."""
    points = _points(grid, spec)
    all_x, all_y, _ = zip(*(point for inside in points.values() for point in inside), strict=True)
    x_factor = _metric_axis(ax, "x", spec.x, spec.over, all_x, is_log=_is_wide(all_x))
    y_factor = _metric_axis(ax, "y", spec.y, spec.over, all_y, is_log=_is_wide(all_y))
    x_sign, y_sign = (-1 if _is_gain(metric) else 1 for metric in (spec.x, spec.y))
    lines, best_points = [], []
    for inside, (color, marker, dashes, _) in zip(points.values(), LOOKS, strict=False):
        xs, ys = [x * x_factor for x, _, _ in inside], [y * y_factor for _, y, _ in inside]
        best = front([(x * x_sign, y * y_sign) for x, y in zip(xs, ys, strict=True)])
        ax.scatter(xs, ys, s=10, color=color, marker=marker, alpha=0.5, linewidth=0)
        lines += ax.plot(
            [xs[i] for i in best], [ys[i] for i in best], color=color, marker=marker, linestyle=dashes,
            drawstyle="steps-post", markersize=4, linewidth=1.1,
        )  # fmt: skip
        best_points += [(xs[i], ys[i], inside[i][2]) for i in best]
    key = _hue_key(grid, spec, [*points], lines)
    choices = [axis.lead for axis in grid.free(spec.where) if spec.hue not in axis.keys]
    texts = [", ".join(value_text(k, grid.words[k][row]) for k in choices) for *_, row in best_points]
    if len(texts) > LABELLED or not any(texts) or max(map(_width_inch, texts)) > AXES_INCH / 3:
        return key
    _label_points(ax, best_points, texts, (-x_sign, -y_sign))
    said = f"labels: {', '.join(map(name_of, choices))}"
    return key._replace(title=f"{key.title}; {said}" if key.title else said)


def _label_points(
    ax: Axes, points: Sequence[tuple[float, float, int]], texts: Sequence[str], side: tuple[int, int]
) -> None:
    """Write texts on the better side of points, where there is room for them, but none over another."""
    ax.margins(0.05, 0.12)
    to_scale = ax.xaxis.get_transform()
    low, high = to_scale.transform(ax.get_xlim())
    widest_inch = max(map(_width_inch, texts)) + 0.1
    room = (high - low) * widest_inch / (AXES_INCH - widest_inch)
    low, high = (low, high + room) if side[0] > 0 else (low - room, high)
    ax.set_xlim(*to_scale.inverted().transform((low, high)))
    taken: list[tuple[float, float, float]] = []
    for (*at, _), text in zip(points, texts, strict=True):
        x, y = ax.transAxes.inverted().transform(ax.transData.transform(at)) * (AXES_INCH, UPRIGHT_INCH)
        left, right = sorted((x, x + side[0] * (_width_inch(text) + 0.05)))
        if all(abs(y - level) > LINE_INCH or left > end or right < start for start, end, level in taken):
            taken.append((left, right, y))
            _note(ax, text, (at[0], at[1]), (3 * side[0], 2 * side[1]), "left" if side[0] > 0 else "right")


def _metric_axis(
    ax: Axes, which: str, metric: str, over: str | None, values: Sequence[float], *, is_log: bool,
    from_zero: bool = False,
) -> float:  # fmt: skip
    """Prepare an axis for values of a metric, and return the factor to its unit."""
    from matplotlib.ticker import LogLocator, NullFormatter

    label, factor = _measure(metric, over, values, "log scale" if is_log else "")
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
    if which == "x" and max(map(_width_inch, labels)) > 0.95 * each_inch:
        angle = 40 if each_inch > 1.5 * line_inch else 90
        for label in ax.get_xticklabels():
            label.set(rotation=angle, ha="right", va="center", rotation_mode="anchor")


def _turned_inch(label: Text) -> float:
    """Return how much more height than a line a turned label takes."""
    return math.sin(math.radians(label.get_rotation())) * _width_inch(label.get_text())


def _note(ax: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], side: str) -> None:
    va = "bottom" if offset[1] > 0 else "top"
    ax.annotate(
        text, at, xytext=offset, textcoords="offset points", ha=side, va=va, fontsize=SMALL,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.2},
    )  # fmt: skip


def _short(value: float) -> str:
    """Return three digits, or all of those before the point."""
    return f"{value:#.3g}".rstrip(".") if abs(value) < 1000 else f"{value:.0f}"  # noqa: PLR2004


@cache
def _width_inch(text: str, size: float = STYLE["font.size"]) -> float:
    """Return about how wide a text is in a font size, by default that of labels."""
    from matplotlib.textpath import TextPath

    if not text.strip():
        return 0.0
    across = TextPath((0, 0), text, size=size).vertices[:, 0]  # the extents proper take ten times as long
    points_an_inch = 72
    return float(across.max() - across.min()) / points_an_inch


def _finite(values: Sequence[Sequence[float]]) -> list[float]:
    return [value for row in values for value in row if math.isfinite(value)]


def _is_wide(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) >= LOG_SPREAD * min(values)


def _is_gain(metric: str) -> bool:
    return metric in HIGHER_IS_BETTER or unit_of(metric) is TIMES
