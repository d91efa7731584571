"""Packaging: the links at the root, the data files, one version everywhere, all libraries locked."""

import glob
import os
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import pimloom

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pimloom"
FOLDERS = ("arch", "configs", "mapping", "reports", "sim", "traces", "workloads")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_root_link_is_relative(folder: str) -> None:
    link = ROOT / folder
    assert link.is_symlink()
    assert os.readlink(link) == f"pimloom/{folder}"
    assert link.is_dir()


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder_is_a_package(folder: str) -> None:
    assert (PACKAGE / folder / "__init__.py").is_file()


def test_every_config_file_is_packed() -> None:
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["pimloom"]
    packed = {name for pattern in patterns for name in glob.glob(pattern, root_dir=PACKAGE, recursive=True)}
    configs = {
        str(path.relative_to(PACKAGE))
        for path in (PACKAGE / "configs").rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    assert configs
    assert configs <= packed
    assert "py.typed" in packed


def test_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert PROJECT["version"] == pimloom.__version__ == citation["version"]
    assert f"\n## {pimloom.__version__} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_lock_holds_every_dependency_within_its_bounds() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    locked = {canonicalize_name(name): version for name, version in pins.items()}
    extras = PROJECT["optional-dependencies"].values()
    for text in [*PROJECT["dependencies"], *(text for extra in extras for text in extra)]:
        requirement = Requirement(text)
        assert "<" in str(requirement.specifier), f"no upper bound: {text}"
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), text
