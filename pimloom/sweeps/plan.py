"""From what is asked for to points: each a run with everything resolved, named by the hash of all that decides it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, TypeVar, cast

from pydantic import BaseModel

from pimloom.arch.document import (
    ConflictError,
    Document,
    InputError,
    Override,
    field_type,
    read,
    validate,
)
from pimloom.arch.machine import Arch
from pimloom.arch.tree import Node, listed
from pimloom.reports.definitions import SCHEMA_VERSION
from pimloom.run import Setup
from pimloom.sim.source import source_hash
from pimloom.sweeps.description import Grid, Request
from pimloom.workloads.model import Model, read_model
from pimloom.workloads.request import Workload, by_target, load_workload, target_of

Value = str | int | float | bool | None
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Recipe:
    """How to come by a run: the names of its model and machine, and what is put over them."""

    model: str
    arch: str
    overrides: tuple[Override, ...]


@dataclass
class Resolver:
    """Turns recipes into setups. It reads every file once, so that a file edited meanwhile changes nothing."""

    roots: dict[tuple[str, str], Node] = field(default_factory=dict)
    latest: dict[tuple[str, str], tuple[str, tuple[Any, Document]]] = field(default_factory=dict, repr=False)
    """Kind and name -> the overrides of the description that was resolved last, and what came of them."""

    def setup(self, recipe: Recipe) -> Setup:
        """Return a checked run, not yet placed in memory.

        Raises InputError for what is wrong, ConflictError for values that do not go together.
        """
        of_arch, of_model, of_workload = by_target(recipe.overrides)
        arch, arch_document = self._resolve(Arch, "arch", recipe.arch, of_arch)
        model, model_document = self._resolve(Model, "model", recipe.model, of_model)
        workload = load_workload(of_workload)
        workload.check_fits(model)
        return Setup(model, arch, workload, {"arch": arch_document, "model": model_document})

    def _resolve(
        self, cls: type[M], kind: str, name: str, overrides: Sequence[Override]
    ) -> tuple[M, Document]:
        at = kind, name
        given = json.dumps([(override.key, override.leaf.plain()) for override in overrides])
        if self.latest.get(at, ("",))[0] != given:
            self.latest[at] = given, validate(cls, kind, self.root(kind, name), overrides)
        return self.latest[at][1]

    def root(self, kind: str, name: str) -> Node:
        """Return the tree of a description, read at its first use; raises InputError."""
        if (kind, name) not in self.roots:
            self.roots[kind, name] = read_model(name) if kind == "model" else read(Arch, kind, name)
        return self.roots[kind, name]

    def name(self, kind: str, name: str) -> str:
        """What a description calls itself, whether it goes with its overrides or not; raises InputError."""
        tree = self.root(kind, name).value
        return str(tree["name"].value) if isinstance(tree, dict) and "name" in tree else name


@dataclass(frozen=True)
class Point:
    """One row of the table.

    values: the value that each swept key has in it
    id, network, workload: None where the values do not go together; `error` says why
    """

    recipe: Recipe
    model: str
    arch: str
    values: dict[str, Value]
    id: str | None = None
    network: Model | None = None
    workload: Workload | None = None
    error: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """What points are sorted by, and what no two have in common."""
        return (self.model, self.arch, *map(_sortable, self.values.values()))


@dataclass(frozen=True)
class Plan:
    """All points of a sweep, each once, sorted by model, machine and swept keys.

    keys: what is swept, in order of appearance; members[grid]: the numbers of its points
    """

    request: Request
    resolver: Resolver
    source: str
    keys: tuple[str, ...]
    points: tuple[Point, ...]
    members: tuple[tuple[int, ...], ...]


def identity(setup: Setup, source: str) -> str:
    """Return the name of a run: 32 hex digits of a hash of everything that its result depends on.

    source: the hash of the package's code, so that a corrected simulator never serves old numbers
    """
    digest = hashlib.sha256(f"{SCHEMA_VERSION} {source}".encode())
    for part in (setup.model, setup.arch, setup.workload):
        digest.update(b"\0" + part.model_dump_json().encode())
    return digest.hexdigest()[:32]


def plan(request: Request, max_points: int) -> Plan:
    """Resolve every point of a sweep.

    Raises InputError if there are more than `max_points`, for whatever is wrong with any of them, and if the values
    of none go together.
    """
    if request.count > max_points:
        raise InputError(f"{request.name}: {request.count} points are more than --max-points {max_points}")
    keys = tuple(dict.fromkeys(key for grid in request.grids for axis in grid.axes for key in axis.keys))
    planner = _Planner(request, keys)
    found: dict[tuple[Any, ...], Point] = {}
    members: list[list[tuple[Any, ...]]] = []
    for grid in request.grids:
        points = list(planner.points(grid))
        members.append([point.key for point in points])
        found |= {point.key: point for point in points}
    planner.raise_if_wrong(list(found.values()))
    points = sorted(found.values(), key=lambda point: point.key)
    numbers = {point.key: number for number, point in enumerate(points)}
    return Plan(
        request, planner.resolver, planner.source, keys, tuple(points),
        tuple(tuple(sorted({numbers[key] for key in grid})) for grid in members),
    )  # fmt: skip


class _Planner:
    """What resolving one point leaves for the next."""

    def __init__(self, request: Request, keys: tuple[str, ...]) -> None:
        self.request, self.keys = request, keys
        self.resolver, self.source = Resolver(), source_hash()
        self.wrong: dict[str, None] = {}
        self.conflicts: dict[str, None] = {}
        self.paths: dict[tuple[str, str], str] = {}

    def points(self, grid: Grid) -> Iterator[Point]:
        """The points of a grid; what is wrong is noted. Models vary fastest, as they share a resolved machine."""
        steps = [range(len(axis.steps)) for axis in grid.axes]
        for arch, chosen in product(self.request.archs, product(*steps)):
            swept = [o for axis, step in zip(grid.axes, chosen, strict=True) for o in axis.overrides(step)]
            names = {override.key for override in swept}
            fixed = [override for override in self.request.fixed if override.key not in names]
            for model in self.request.models:
                try:
                    point = self.point(Recipe(model, arch, (*fixed, *swept)))
                    self.refuse_same_names(point)
                    yield point
                except InputError as error:
                    self.wrong |= dict.fromkeys(str(error).splitlines())

    def point(self, recipe: Recipe) -> Point:
        """Resolve one point; raises InputError for what is wrong with it in any combination."""
        try:
            setup = self.resolver.setup(recipe)
        except ConflictError as error:
            self.conflicts |= dict.fromkeys(str(error).splitlines())
            values = self.values(recipe) | {o.key: scalar(o.leaf.plain()) for o in recipe.overrides}
            model, arch = (self.resolver.name(kind, getattr(recipe, kind)) for kind in ("model", "arch"))
            return Point(recipe, model, arch, {key: values[key] for key in self.keys}, error=error.reason)
        trees = {kind: document.root for kind, document in setup.documents.items()}
        values = {key: _value(trees, setup.workload, key) for key in self.keys}
        return Point(
            recipe, setup.model.name, setup.arch.name, values, identity(setup, self.source), setup.model,
            setup.workload,
        )  # fmt: skip

    def values(self, recipe: Recipe) -> dict[str, Value]:
        """The values that swept keys have in the descriptions themselves; raises InputError."""
        trees = {kind: self.resolver.root(kind, getattr(recipe, kind)) for kind in ("model", "arch")}
        return {key: _value(trees, Workload(), key) for key in self.keys}

    def refuse_same_names(self, point: Point) -> None:
        """Raise InputError if two descriptions go by one name: the table could not tell them apart."""
        for kind, name, path in (
            ("model", point.model, point.recipe.model), ("arch", point.arch, point.recipe.arch),
        ):  # fmt: skip
            other = self.paths.setdefault((kind, name), path)
            if other != path:
                raise InputError(f"{path}: {other} has the same name, {name!r}; give one of them another")

    def raise_if_wrong(self, points: Sequence[Point]) -> None:
        """Raise InputError for all that was noted, or if there are points and the values of none go together."""
        lines = list(self.wrong or ({} if any(point.id for point in points) else self.conflicts))
        if lines:
            raise InputError(listed(lines))


def _value(trees: Mapping[str, Node], workload: Workload, key: str) -> Value:
    """The value of a key in the descriptions of a run, None if they have none."""
    target, path = target_of(key)
    if target == "workload":
        return cast("Value", getattr(workload, path, None))
    cls = Model if target == "model" else Arch
    here: Node | None = trees[target]
    for part in path.split("."):
        inside = here.value if here else None
        if isinstance(inside, list):
            here = inside[int(part)] if part.isdecimal() and int(part) < len(inside) else None
        else:
            here = inside.get(part) if isinstance(inside, dict) else None
    value = here.plain() if here else None
    if isinstance(value, float) and value.is_integer() and field_type(cls, path) is int:
        return int(value)
    return scalar(value)


def scalar(value: Any) -> Value:
    """Return a value as a cell of a table holds it: lists and mappings as JSON."""
    return value if isinstance(value, Value) else json.dumps(value)


def _sortable(value: Value) -> tuple[int, Any]:
    """Values of any types in one order: null, no and yes, numbers, texts."""
    if value is None:
        return 0, 0
    if isinstance(value, str):
        return 3, value
    return (1 if isinstance(value, bool) else 2), value
