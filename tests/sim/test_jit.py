"""The compilation cache notices every edit, and all kernels are compiled alike."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numba
from numba.core.dispatcher import Dispatcher

import pimloom
from pimloom import sim
from pimloom.sim import jit
from pimloom.sim.source import source_hash

PACKAGE = Path(pimloom.__file__).parent


def kernels() -> dict[str, Dispatcher]:
    modules = [importlib.import_module(f"pimloom.sim.{m.name}") for m in pkgutil.iter_modules(sim.__path__)]
    return {
        f"{value.__module__}.{name}": value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, Dispatcher)
    }


def in_copy(tmp_path: Path, code: str, **environment: str) -> list[str]:
    """Run code in another process on a copy of the package; return the lines that it prints."""
    shutil.copytree(PACKAGE, tmp_path / "pimloom", ignore=shutil.ignore_patterns("__pycache__"))
    inherited = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    env = inherited | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"} | environment
    out = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    return out.stdout.split("\n")[:-1]


def test_the_cache_changes_with_every_file(tmp_path: Path) -> None:
    """An edit, a new file, a new name: each is another folder; the same source is the same folder."""
    code = """
from pathlib import Path
from pimloom.sim.source import source_hash
files = sorted(Path("pimloom").rglob("*.py"))
print(len(files))
print(source_hash())
print(source_hash())
for path in files:
    text = path.read_bytes()
    path.write_bytes(text + b"\\n")
    print(source_hash())
    path.write_bytes(text)
Path("pimloom/new.py").write_text("")
print(source_hash())
Path("pimloom/new.py").rename("pimloom/newer.py")
print(source_hash())
Path("pimloom/newer.py").unlink()
print(source_hash())
"""
    count, first, again, *others, last = in_copy(tmp_path, code)
    assert first == again == last == source_hash()
    assert len(others) == int(count) + 2
    assert len({first, *others}) == len(others) + 1


def test_the_cache_is_below_the_folder_asked_for(tmp_path: Path) -> None:
    """An explicit NUMBA_CACHE_DIR does not switch the guard off."""
    code = "import numba; from pimloom.sim import jit; print(numba.config.CACHE_DIR)"
    key = f"{source_hash()}-py{sys.version_info.major}{sys.version_info.minor}"
    for variable, folder in (("NUMBA_CACHE_DIR", "a"), ("XDG_CACHE_HOME", "b/pimloom")):
        root = tmp_path / variable
        root.mkdir()
        asked = str(root / folder.split("/")[0])
        assert in_copy(root, code, **{variable: asked}) == [str(root / folder / key)]


def test_the_cache_of_this_process() -> None:
    assert source_hash() in str(numba.config.CACHE_DIR)
    assert re.fullmatch("[0-9a-f]{16}", source_hash())


def test_kernels_have_the_flags_of_the_one_decorator() -> None:
    """Integers only: no fast-math; no threads inside; cached; never a fall-back to Python objects."""
    found = kernels()
    assert {
        "pimloom.sim.channel.issue",
        "pimloom.sim.chain.run_chain",
        "pimloom.sim.clock.edge_ps",
    } <= found.keys()
    expected = jit.kernel(lambda x: x).targetoptions  # type: ignore[attr-defined]
    for kernel in found.values():
        options = dict(kernel.targetoptions)
        if options.pop("forceinline", False):  # compiled into others, so neither cached nor called by itself
            assert options == {key: value for key, value in expected.items() if key != "forceinline"}
            continue
        assert kernel.targetoptions == expected
        assert type(kernel._cache).__name__ == "FunctionCache"
    assert expected["nopython"] and expected["nogil"]
    assert not expected.get("fastmath") and not expected.get("parallel")
