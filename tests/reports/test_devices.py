"""The pages of the PIM devices: every value of the description is in them, with its source."""

import re
from pathlib import Path

import pytest

from pimloom.arch.device import load_device
from pimloom.arch.document import shipped
from pimloom.reports.devices import write_device


@pytest.fixture(scope="module", params=shipped("device"))
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder: Path = tmp_path_factory.mktemp("page")
    paths = write_device(*load_device(request.param), folder / request.param)
    text = paths[0].read_text(encoding="utf-8")
    assert re.findall(r"!\[[^]]*\]\(([^)]+)\)", text) == [path.name for path in paths[1:]]
    return request.param, text


def test_page_holds_every_command_rule_and_source(page: tuple[str, str]) -> None:
    device, document = load_device(page[0])
    lines = page[1].splitlines()
    for name in device.dram.commands:
        assert sum(line.startswith(f"| `{name}` |") for line in lines) == 2, name
    for rule, what in device.dram.constraints.items():
        assert any(line.startswith(f"| {rule} |") and f"`{what.minimum}`" in line for line in lines)
    used = {node.source for _, node in document.root.walk() if node.source}
    listed = {line.split("`")[1] for line in lines if line.startswith("- `")}
    assert listed == used


def test_tables_are_whole(page: tuple[str, str]) -> None:
    for block in (b for b in page[1].split("\n\n") if b.startswith("|")):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    text = write_device(*load_device("newton"), tmp_path / "newton")[0].read_text(encoding="utf-8")
    assert "| `COMP` | not known |" in text
    assert "| a clock with an open bank | not known |" in text
