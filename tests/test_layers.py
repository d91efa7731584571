"""Rules about the source that no general tool checks; the layers themselves are checked by import-linter."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pimloom"
FOLDERS = {"arch", "configs", "mapping", "reports", "sim", "traces", "workloads"}
COMPILERS = {"cfunc", "guvectorize", "jit", "jitclass", "njit", "stencil", "vectorize"}


def trees(*folders: Path) -> Iterator[tuple[Path, ast.Module]]:
    """Every Python file below the folders, with its syntax tree."""
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"), str(path))


def place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{getattr(node, 'lineno', 0)}"


def bare_imports(tree: ast.Module) -> Iterator[ast.AST]:
    """Imports by way of the links at the root, such as `import sim`."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        if any(name.split(".")[0] in FOLDERS for name in names):
            yield node


def compilers(tree: ast.Module) -> Iterator[ast.AST]:
    """Uses of Numba's decorators: `from numba import njit`, `numba.njit`, `nb.vectorize` ..."""
    numba_names = {
        alias.asname or alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name.split(".")[0] == "numba"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "numba":
            if any(alias.name in COMPILERS | {"*"} for alias in node.names):
                yield node
        elif (
            isinstance(node, ast.Attribute)
            and node.attr in COMPILERS
            and isinstance(node.value, ast.Name)
            and node.value.id in numba_names
        ):
            yield node


def has_kernels(tree: ast.Module) -> bool:
    """Whether a function of the file wears the decorator `kernel` of sim/jit.py."""
    return any(
        isinstance(name, ast.Name) and name.id == "kernel"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        for name in [decorator.func if isinstance(decorator, ast.Call) else decorator]
    )


def command_mentions(tree: ast.Module, commands: set[str]) -> Iterator[ast.AST]:
    """Command names as a string or a variable; docstrings may explain with them."""
    for node in ast.walk(tree):
        if (
            (isinstance(node, ast.Constant) and node.value in commands)
            or (isinstance(node, ast.Name) and node.id in commands)
            or (isinstance(node, ast.Attribute) and node.attr in commands)
        ):
            yield node


def all_commands() -> set[str]:
    """The names of all commands of all DRAM standards that are shipped."""
    texts = [path.read_text(encoding="utf-8") for path in (PACKAGE / "configs" / "dram").rglob("*.yaml")]
    return {name for text in texts for name in yaml.safe_load(text).get("commands") or {}}


def test_no_bare_imports() -> None:
    folders = [ROOT / name for name in ("pimloom", "tests", "benchmarks", "docs", "examples")]
    assert [place(path, node) for path, tree in trees(*folders) for node in bare_imports(tree)] == []


def test_only_jit_py_compiles() -> None:
    allowed = PACKAGE / "sim" / "jit.py"
    found = [place(p, node) for p, tree in trees(PACKAGE) if p != allowed for node in compilers(tree)]
    assert found == []


def test_kernels_name_no_command() -> None:
    commands = all_commands()
    assert {"ACT", "RD"} <= commands
    kernels = [(p, t) for p, t in trees(PACKAGE / "sim") if has_kernels(t) or p.stem.startswith("kernel")]
    assert kernels, "no kernel found: does sim/ still use the decorator `kernel`?"
    assert [place(p, node) for p, tree in kernels for node in command_mentions(tree, commands)] == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("import sim", 1),
        ("from arch.dram import Dram", 1),
        ("import pimloom.sim", 0),
        ("from . import sim", 0),
        ("import simpy", 0),
    ],
)
def test_bare_imports_are_seen(source: str, count: int) -> None:
    assert len(list(bare_imports(ast.parse(source)))) == count


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("from numba import njit", 1),
        ("from numba.experimental import jitclass", 1),
        ("import numba as nb\n@nb.njit\ndef f(): pass", 1),
        ("import numba\nprint(numba.__version__)", 0),
        ("from pimloom.sim.jit import kernel", 0),
    ],
)
def test_compilers_are_seen(source: str, count: int) -> None:
    assert len(list(compilers(ast.parse(source)))) == count


@pytest.mark.parametrize(
    ("source", "count"),
    [("x = 'MAC'", 1), ("x = c == MAC", 1), ("x = t.MAC", 1), ("'''MAC opens no row.'''", 0)],
)
def test_command_mentions_are_seen(source: str, count: int) -> None:
    assert len(list(command_mentions(ast.parse(source), {"MAC"}))) == count
