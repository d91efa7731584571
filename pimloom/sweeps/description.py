"""What a sweep is asked for: models, machines, and grids of values for keys, in a YAML or on the command line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from pimloom.arch.base import Description
from pimloom.arch.document import InputError, Override, field_type, load, locate, parse_overrides
from pimloom.arch.machine import Arch
from pimloom.arch.tree import Findings, Node, Place, read_text, shown
from pimloom.workloads.huggingface import config_path
from pimloom.workloads.model import Model
from pimloom.workloads.request import Workload, target_of

MAX_VALUES = 100_000
"""Of one axis; more is a slip of the pen."""
SLACK = 1e-9
"""Of a step, by which the last one may seem to miss the end of a range."""
DIGITS = 12
"""Significant digits of a computed value: more than any parameter needs, fewer than platforms disagree on."""
FORMS = "FIRST:LAST:STEP, FIRST:LAST:linN or FIRST:LAST:logN for N values, FIRST:LAST:xF for factors of F"
MAX_AXIS_SHOWN = 200
"""Letters of an axis that messages repeat."""
ONE_GRID = "grid"
"""Name of the only grid where none is given."""

_NUMBER = r"([-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)"
_RANGE = re.compile(rf"{_NUMBER}:{_NUMBER}:(lin|log|[x*×]|){_NUMBER}")
_LIKE_A_RANGE = re.compile(rf"{_NUMBER}[A-Za-z]*(:|\.\.|-{_NUMBER}$)|range\(")

Names = Annotated[list[str], Field(min_length=1)]
GridName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]


class Sweep(Description):
    """A sweep as its YAML says it: every grid is run for every model on every machine, its axes crossed.

    A key is one of the machine's, as in its YAML, or begins with `model.` or `workload.`; keys that change together
    are written as one, with commas between them.
    """

    kind: Literal["sweep"]
    models: Names
    archs: Names
    set: dict[str, Any] = Field({}, description="key: the value that it has wherever it is not swept")
    grids: dict[GridName, dict[str, Any]] = Field(
        {}, description=f"name: axes, each key or keys: a list of values or a range, which is {FORMS}"
    )


@dataclass(frozen=True)
class Axis:
    """Keys that change together, and the values that they go through: steps[step][key]."""

    keys: tuple[str, ...]
    steps: tuple[tuple[Node, ...], ...]

    def overrides(self, step: int) -> list[Override]:
        """Return what a step puts over the descriptions."""
        return [Override(key, leaf) for key, leaf in zip(self.keys, self.steps[step], strict=True)]


@dataclass(frozen=True)
class Grid:
    """Axes that are crossed."""

    name: str
    axes: tuple[Axis, ...] = ()

    @property
    def count(self) -> int:
        """Points of one model on one machine."""
        return math.prod(len(axis.steps) for axis in self.axes)


@dataclass(frozen=True)
class Request:
    """A sweep, wherever it was written: names or paths of models and machines, values, grids."""

    name: str
    description: str
    models: tuple[str, ...]
    archs: tuple[str, ...]
    fixed: tuple[Override, ...]
    grids: tuple[Grid, ...]

    @property
    def count(self) -> int:
        """All points; what several grids share counts in each."""
        return len(self.models) * len(self.archs) * sum(grid.count for grid in self.grids)


def load_sweep(name_or_path: str, overrides: Sequence[str] = ()) -> Request:
    """Read a sweep by its shipped name or its file; paths in it are relative to that file.

    overrides: `key=value` of the points, over the file's `set`
    Raises InputError with everything that is wrong with it.
    """
    sweep, document = load(Sweep, "sweep", name_or_path)
    findings = Findings()
    tree = document.root.value
    assert isinstance(tree, dict)

    def entries(node: Node | None) -> dict[str, Node]:
        return node.value if node is not None and isinstance(node.value, dict) else {}

    def names(kind: str) -> tuple[str, ...]:
        nodes = tree[kind].value
        assert isinstance(nodes, list)
        _refuse_twice([(str(node.value), node.place) for node in nodes], kind, findings)
        paths = [_beside(str(node.value), Path(node.place.file)) for node in nodes]
        for node, path in zip(nodes, paths, strict=True):
            try:
                if not ("/" in path and config_path(path)):
                    locate(kind.removesuffix("s"), path)
            except InputError as error:
                findings.add(node.place, (kind,), str(error))
        return tuple(paths)

    fixed = [_override(key, node, findings) for key, node in entries(tree.get("set")).items()]
    grids = [
        Grid(name, _axes(entries(grid).items(), findings))
        for name, grid in entries(tree.get("grids")).items()
    ] or [Grid(ONE_GRID)]
    models, archs = names("models"), names("archs")
    every = _fixed([*fixed, *parse_overrides(overrides)], grids, findings)
    findings.raise_if_any()
    return Request(sweep.name, sweep.description, models, archs, every, tuple(grids))


def make_sweep(
    models: Sequence[str], archs: Sequence[str], axes: Sequence[str], overrides: Sequence[str] = ()
) -> Request:
    """Make a sweep of one grid out of words of the command line.

    axes: `KEYS=VALUES`, values with commas between them or a range; overrides: `key=value` of all points
    Raises InputError with everything that is wrong with them.
    """
    findings = Findings()
    for kind, given in (("models", models), ("archs", archs)):
        _refuse_twice([(name, Place(name, 1, 1)) for name in given], kind, findings)
    pairs = [pair for text in axes if (pair := _axis_text(text, findings))]
    grid = Grid(ONE_GRID, _axes(pairs, findings))
    fixed = _fixed(parse_overrides(overrides), [grid], findings)
    findings.raise_if_any()
    title = f"{', '.join(models)} on {', '.join(archs)}"
    return Request(title, "", tuple(models), tuple(archs), fixed, (grid,))


def _beside(name: str, file: Path) -> str:
    """Return a path that stands in a file as seen from here; a shipped name as it is."""
    return str(file.parent / name) if "/" in name or name.endswith((".yaml", ".yml", ".json")) else name


def _fixed(overrides: Iterable[Override], grids: Sequence[Grid], findings: Findings) -> tuple[Override, ...]:
    """Return the last override of each key; one that every grid sweeps would have no effect, which is complained of."""
    last: dict[str, Override] = {}
    for override in overrides:
        last.pop(override.key, None)  # the last of a key comes last
        last[override.key] = override
    swept = [{key for axis in grid.axes for key in axis.keys} for grid in grids]
    for key in set(last).intersection(*swept):
        findings.add(last[key].leaf.key_place, (key,), "has no effect, as it is swept")
    return tuple(last.values())


def _refuse_twice(words: Sequence[tuple[str, Place]], path: str, findings: Findings) -> None:
    seen: set[str] = set()
    for word, place in words:
        if word in seen:
            findings.add(place, (path,), f"{shown(word)} stands here twice")
        seen.add(word)


def _override(key: str, node: Node, findings: Findings) -> Override:
    _keys(key, node.key_place, findings, most=1)
    return Override(key, node)


def _axis_text(text: str, findings: Findings) -> tuple[str, Node] | None:
    """Read `KEYS=VALUES` as the entry of a YAML that it stands for."""
    file = f"-s {text if len(text) <= MAX_AXIS_SHOWN else text[:MAX_AXIS_SHOWN] + '...'}"
    keys, equals, values = text.partition("=")
    start = Place(file, 1, 1)
    if not equals or not values.strip():
        findings.add(start, (), "an axis is written KEY=VALUES, such as dram.channels=4,8,16 or 1e8:1e9:log5")
        return None
    # The bracket takes the column of the equals sign, so that places are right.
    node = read_text(f"[{values}]", file, findings, len(keys))
    if node and isinstance(node.value, list) and len(node.value) == 1 and "," not in keys:
        node = node.value[0]  # the brackets of a YAML list may be written, too
    return (keys, replace(node, key_place=start)) if node else None


def _axes(pairs: Iterable[tuple[str, Node]], findings: Findings) -> tuple[Axis, ...]:
    axes, seen = [], set[str]()
    for text, node in pairs:
        keys = _keys(text, node.key_place, findings)
        for key in keys:
            if key in seen:
                findings.add(node.key_place, (key,), "an axis of this grid has this key already")
            seen.add(key)
        if keys:
            axes.append(Axis(keys, tuple(_steps(keys, node, findings))))
    return tuple(axes)


def _keys(text: str, place: Place, findings: Findings, most: int | None = None) -> tuple[str, ...]:
    keys = tuple(key.strip() for key in text.split(","))
    if not all(part for key in keys for part in key.split(".")) or (most and len(keys) > most):
        findings.add(place, (), f"{shown(text)}: should be a dotted key, such as dram.channels")
        return ()
    for key in keys:
        if key in ("model", "arch"):
            findings.add(
                place, (), f"several {key}s are given as such: MODEL,MODEL ARCH,ARCH, or models: and archs:"
            )
            return ()
    return keys


def _steps(keys: tuple[str, ...], node: Node, findings: Findings) -> list[tuple[Node, ...]]:
    """Return the values of an axis, and complain of what is none, of none at all, and of equal ones."""
    items = node.value if isinstance(node.value, list) else [node] if node.value is not None else []
    steps: list[tuple[Node, ...]] = []
    for item in items:
        if isinstance(item.value, list) and len(keys) > 1:
            if len(item.value) != len(keys):
                message = f"{len(item.value)} values for the {len(keys)} keys {', '.join(keys)}"
                findings.add(item.place, (), message)
            else:
                pairs = zip(keys, item.value, strict=True)
                steps.append(
                    tuple(_typed(key, replace(leaf, key_place=node.key_place), False) for key, leaf in pairs)
                )
        elif isinstance(item.value, dict):
            findings.add(item.place, (keys[0],), f"should be a list of values or a range: {FORMS}")
        else:
            values = _expand(item, keys[0], findings)
            if (len(steps) + len(values)) * len(keys) > MAX_VALUES:
                findings.add(item.place, (keys[0],), f"more than {MAX_VALUES} values")
                break
            steps += [
                tuple(
                    _typed(key, replace(item, value=value, key_place=node.key_place), value is not item.value)
                    for key in keys
                )
                for value in values
            ]
    if not items:
        findings.add(node.place, (keys[0],), "an axis needs values: [4, 8], or a range")
    seen = set[str]()
    for step in steps:
        value = json.dumps([leaf.plain() for leaf in step])
        if value in seen:
            told = ", ".join(shown(leaf.plain()) for leaf in step)
            findings.add(step[0].place, (keys[0],), f"the value {told} comes twice, perhaps after rounding")
            break
        seen.add(value)
    return steps


def _typed(key: str, leaf: Node, is_computed: bool) -> Node:
    """Return a whole number as an integer where the key takes integers, a computed one rounded."""
    classes: dict[str, type[BaseModel]] = {"arch": Arch, "model": Model, "workload": Workload}
    target, path = target_of(key)
    if field_type(classes[target], path) is not int or not isinstance(leaf.value, float):
        return leaf
    return replace(leaf, value=round(leaf.value)) if is_computed or leaf.value.is_integer() else leaf


def _expand(item: Node, key: str, findings: Findings) -> list[Any]:
    """Return the values of a range, or the only value of what is none."""
    text = item.value
    if not isinstance(text, str) or not _LIKE_A_RANGE.match(text):
        return [text]
    match = _RANGE.fullmatch(text)
    if not match:
        findings.add(item.place, (key,), f"{shown(text)}: a range is {FORMS}")
        return []
    first, last, step = (float(match[i]) for i in (1, 2, 4))
    form = {"*": "x", "×": "x"}.get(match[3], match[3])
    wrong = _why_no_range(form, first, last, step)
    if wrong:
        findings.add(item.place, (key,), f"{shown(text)}: {wrong}")
        return []
    return _RANGES[form](first, last, step)


def _why_no_range(form: str, first: float, last: float, step: float) -> str | None:
    if not all(map(math.isfinite, (first, last, step, last - first))):
        return "these numbers are too large"
    if not first < last:
        return "the first value should be less than the last"
    if form in ("log", "x") and (first <= 0 or not math.isfinite(last / first)):
        return "values of a constant ratio are positive, and not too far apart"
    if form in ("lin", "log"):
        if not step.is_integer() or not 2 <= step <= MAX_VALUES:  # noqa: PLR2004
            return f"should ask for 2 to {MAX_VALUES} values"
        return None
    if step <= (form == "x"):
        return "the factor should be more than 1" if form == "x" else "the step should be more than 0"
    if _steps_between(form, first, last, step) > MAX_VALUES:
        return f"more than {MAX_VALUES} values; for a number of values write linN or logN"
    return None


def _steps_between(form: str, first: float, last: float, step: float) -> float:
    return math.log(last / first) / math.log(step) if form == "x" else (last - first) / step


def _linear(first: float, last: float, count: float) -> list[float]:
    return [_tidy(first + (last - first) * i / (count - 1)) for i in range(int(count))]


def _logarithmic(first: float, last: float, count: float) -> list[float]:
    return [_tidy(first * (last / first) ** (i / (count - 1))) for i in range(int(count))]


def _arithmetic(first: float, last: float, step: float) -> list[float]:
    count = int(_steps_between("", first, last, step) + SLACK) + 1
    return [_tidy(first + step * i) for i in range(count)]


def _geometric(first: float, last: float, factor: float) -> list[float]:
    count = int(_steps_between("x", first, last, factor) + SLACK) + 1
    return [_tidy(first * factor**i) for i in range(count)]


_RANGES = {"lin": _linear, "log": _logarithmic, "x": _geometric, "": _arithmetic}


def _tidy(value: float) -> float:
    """Return a computed value in as many digits as are meant, whole ones as integers."""
    rounded = value if value.is_integer() else float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() else rounded
