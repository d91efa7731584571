"""The page on adding a device: its files load, its programs run and print what it says, its quotations are exact."""

import re
from pathlib import Path

import pytest

from pimloom.mapping import devices

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/add-a-device.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)(?: (\w+)=(\S+))?\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "__path__", [*devices.__path__, str(tmp_path)])
    names: dict[str, object] = {}
    for language, role, name, text in BLOCKS:
        if role == "file":
            Path(name).write_text(text, encoding="utf-8")
        elif role == "from":
            assert text in (ROOT / name).read_text(encoding="utf-8")
        elif language == "python":
            exec(compile(text, "docs/add-a-device.md", "exec"), names)  # noqa: S102
        else:
            assert capsys.readouterr().out == text
    assert capsys.readouterr().out == ""


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
