"""What differs, and by how much."""

from pathlib import Path

import pytest

from pimloom.arch.document import InputError
from pimloom.reports.diff import ABSENT, Difference, diff, load_side
from pimloom.reports.result import Result


def test_values_lists_and_missing_keys() -> None:
    left = {
        "a": 2,
        "b": {"c": "x", "only": 1},
        "t": [1, 2, 3],
        "rows": [{"n": 1}],
        "simulator": {"wall_s": 1},
    }
    right = {"a": 3, "b": {"c": "y"}, "t": [1, 4, 5, 6], "rows": [{"n": None}], "new": 1, "simulator": {}}
    assert diff(left, right) == [
        Difference("a", 2, 3, 0.5),
        Difference("b.c", "x", "y", None),
        Difference("b.only", 1, ABSENT, None),
        Difference("t (length)", 3, 4, pytest.approx(1 / 3)),
        Difference("t[1]", 2, 4, 1.0, entries=2),
        Difference("rows[0].n", 1, None, None),
        Difference("new", ABSENT, 1, None),
    ]
    assert diff(left, left) == []
    assert diff({"a": True}, {"a": 1}) == [Difference("a", True, 1, None)]
    assert diff({"a": 0}, {"a": 1}) == [Difference("a", 0, 1, None)]


def test_two_machines() -> None:
    found = {d.path: d for d in diff(load_side("pim-gpt"), load_side("pim-gpt-aim-timing"))}
    assert found["dram.clock_Hz"] == Difference("dram.clock_Hz", 10**9, 2 * 10**9, 1.0)
    assert not any("sources" in path for path in found)
    assert diff(load_side("gpt3-xl"), load_side("gpt3-xl")) == []
    assert load_side("gddr6_aim")["kind"] == "dram"


def test_two_results(tiny: Result, tmp_path: Path) -> None:
    tiny.save(tmp_path / "a", figures=False)
    (tmp_path / "b.json").write_text(tiny.json())
    (tmp_path / "c.json").write_text("[]")
    left, right = load_side(str(tmp_path / "a")), load_side(str(tmp_path / "b.json"))
    assert diff(left, right) == []
    assert load_side(str(tmp_path / "a" / "config.resolved.yaml"))["name"] == "pim-gpt"
    for bad, why in (
        ("nowhere", "nowhere"),
        (str(tmp_path), "holds no result"),
        (str(tmp_path / "c.json"), "no"),
    ):
        with pytest.raises(InputError, match=why):
            load_side(bad)
