"""pimloom: a cycle-accurate, functionally proven simulator for processing-in-memory LLM accelerators."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pimloom.arch.document import InputError
    from pimloom.arch.machine import load_arch
    from pimloom.arch.memory import load_memory
    from pimloom.memory import run_requests
    from pimloom.proof import validate
    from pimloom.reports.result import Result, load
    from pimloom.run import simulate
    from pimloom.sweeps.sweep import sweep
    from pimloom.workloads.model import load_model

_HOME = {
    "InputError": "arch.document",
    "Result": "reports.result",
    "load": "reports.result",
    "load_arch": "arch.machine",
    "load_memory": "arch.memory",
    "load_model": "workloads.model",
    "run_requests": "memory",
    "simulate": "run",
    "sweep": "sweeps.sweep",
    "validate": "proof",
}
"""Where each public name is defined. It is imported at its first use, so that `import pimloom` is quick."""

__all__ = [
    "InputError", "Result", "load", "load_arch", "load_memory", "load_model", "run_requests",
    "simulate", "sweep", "validate", "version",
]  # fmt: skip


def version() -> dict[str, str]:
    """Return the versions of pimloom, Python and the libraries that its numbers come from."""
    import platform
    from importlib.metadata import version as installed

    libraries = {name: installed(name) for name in ("numpy", "numba", "simpy")}
    return {"pimloom": __version__, "python": platform.python_version(), **libraries}


if not TYPE_CHECKING:  # a type checker would take every misspelt name for one of these

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module 'pimloom' has no attribute {name!r}")
        value = getattr(import_module(f"pimloom.{_HOME[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
