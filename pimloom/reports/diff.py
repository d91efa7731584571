"""What differs between two results, or between two descriptions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from pimloom.arch.device import load_device
from pimloom.arch.document import InputError, kind_of, load, shipped
from pimloom.arch.dram import load_dram
from pimloom.arch.host import Host
from pimloom.arch.machine import load_arch
from pimloom.arch.system import load_system
from pimloom.workloads.model import load_model

ABSENT = "(absent)"
"""Stands for a value that one side does not have."""
IGNORED = ("simulator", "sources")
"""What may differ between two runs of the same thing, and where a description's numbers come from."""

LOADERS: dict[str, Callable[[str], tuple[BaseModel, object]]] = {
    "arch": load_arch,
    "system": load_system,
    "device": load_device,
    "host": lambda name: load(Host, "host", name),
    "dram": load_dram,
    "model": load_model,
}


class Difference(NamedTuple):
    """One value that differs; of a list of numbers the first, `entries` of which differ.

    relative: (right - left) / |left|, None where that means nothing
    """

    path: str
    left: Any
    right: Any
    relative: float | None
    entries: int = 1


def load_side(what: str) -> dict[str, Any]:
    """Return the content of a result (its folder or its JSON), or of a description by name or file.

    Raises InputError if it is neither.
    """
    path = Path(what)
    if path.is_dir():
        path /= "result.json"
    if path.suffix == ".json":
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{what}: holds no result: {error.strerror}: {path}") from error
        except ValueError as error:
            raise InputError(f"{path}: is no JSON: {error}") from error
        if not isinstance(content, dict):
            raise InputError(f"{path}: holds no result")
        return content
    if path.is_file():
        kind = kind_of(what)
        if kind not in LOADERS:
            raise InputError(f"{what}: a description of the kind {kind!r} cannot be compared")
    else:
        kind = next((kind for kind in LOADERS if what in shipped(kind)), "arch")
    return LOADERS[kind](what)[0].model_dump()


def diff(left: dict[str, Any], right: dict[str, Any]) -> list[Difference]:
    """Return everything that differs, in the order of `left`, without what is `IGNORED`."""
    return list(_differences(left, right, ""))


def _differences(left: Any, right: Any, path: str) -> Iterator[Difference]:
    if isinstance(left, dict) and isinstance(right, dict):
        for key in [*left, *(key for key in right if key not in left)]:
            if key in IGNORED:
                continue
            below = f"{path}.{key}" if path else str(key)
            yield from _differences(left.get(key, ABSENT), right.get(key, ABSENT), below)
    elif isinstance(left, list) and isinstance(right, list):
        yield from _in_lists(left, right, path)
    elif left != right or type(left) is not type(right):
        yield Difference(path, left, right, _relative(left, right))


def _in_lists(left: list[Any], right: list[Any], path: str) -> Iterator[Difference]:
    if len(left) != len(right):
        yield Difference(f"{path} (length)", len(left), len(right), _relative(len(left), len(right)))
    inside = [
        list(_differences(a, b, f"{path}[{i}]")) for i, (a, b) in enumerate(zip(left, right, strict=False))
    ]
    changed = [found for found in inside if found]
    if changed and all(_is_number(item) for item in (*left, *right)):
        yield changed[0][0]._replace(entries=len(changed))
    else:
        for found in changed:
            yield from found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _relative(left: Any, right: Any) -> float | None:
    if not (_is_number(left) and _is_number(right)) or left == 0:
        return None
    return float((right - left) / abs(left))
