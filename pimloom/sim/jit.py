"""The one Numba decorator, and a compilation cache that notices every edit of the package.

Numba keys its on-disk cache by the kernel's own file only, so an edited callee or constant in another
file would go unnoticed. The cache folder is therefore named by a hash of all of pimloom's source.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

from pimloom.sim.source import source_hash

F = TypeVar("F", bound=Callable[..., object])


def _cache_folder() -> str:
    root = os.environ.get("NUMBA_CACHE_DIR")
    base = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pimloom"
    return str(base / f"{source_hash()}-py{sys.version_info.major}{sys.version_info.minor}")


def is_cold(module: str = "") -> bool:
    """Tell whether no kernel of this version, or of the module of this name, has been compiled yet."""
    kernels = f"{module.rpartition('.')[2]}*.nbc"
    return not numba.config.DISABLE_JIT and not any(Path(_cache_folder()).rglob(kernels))  # type: ignore[attr-defined, unused-ignore]


numba.config.CACHE_DIR = _cache_folder()  # type: ignore[attr-defined, unused-ignore]


_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "_nrt": False}


def kernel(function: F) -> F:
    """Compile `function` to machine code on first use; integers only, so no fast-math flags.

    A kernel works on arrays that its caller owns and makes none: counting the references to them would take
    nine tenths of the time of a kernel that is made of many small functions.
    """
    return cast(F, numba.njit(cache=True, **_OPTIONS)(function))


def inlined(function: F) -> F:
    """Compile a step of a kernel's inner loop into the kernels that call it."""
    return cast(F, numba.njit(forceinline=True, **_OPTIONS)(function))
