"""The comparison with published figures: its formulas, and (slow) the whole of it against the bars of the project."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from pimloom.reports.validation import replace_part
from pimloom.reproduce import (
    BOUND_POSITION,
    Finding,
    _one_token,
    difference,
    lower_bound_ns,
    markdown,
    not_matrix_vector,
    reproduce,
    spread,
)


def finding(
    theirs: tuple[float, float | None], ours: tuple[float, float], unit: str = "x", within: bool = False
):
    return Finding("what", unit, "source", theirs, ours, within, "why")


def test_differences_read_well() -> None:
    assert difference(finding((1, 2), (1, 2), within=True)) == "inside"
    assert difference(finding((100, 200), (150, 300))) == "+50 %"
    assert difference(finding((100, 200), (50, 300))) == "-50 … +50 %"
    assert difference(finding((0, 20), (89.0, 89.0), unit="%")) == "+69.0 points"
    assert difference(finding((1.16, 1.16), (7.2, 7.2), unit="%")) == "+6.0 points"
    assert spread((1, None)) == "at least 1"
    assert spread((2, 2)) == "2"


@pytest.mark.parametrize(
    ("model", "bound_ms"), [("gpt2-small", 0.064), ("gpt2-medium", 0.220), ("gpt2-large", 0.508)]
)
def test_no_token_is_faster_than_the_lower_bound(model: str, bound_ms: float) -> None:
    result = _one_token(model, "pim-gpt")
    assert len(result.time_per_token_ns) == 1
    assert lower_bound_ns(result) / 1e6 == pytest.approx(bound_ms, abs=0.0015)
    assert result.total_time_ns >= lower_bound_ns(result)
    assert 0 < not_matrix_vector(result) < 1
    assert BOUND_POSITION == 512


@pytest.mark.slow
def test_published_figures(tmp_path: Path) -> None:
    findings, runs = reproduce("pim-gpt")
    for model, result in runs.whole.items():
        assert 0.975 <= result.summary["row_hit_rate"] <= 0.985, model
        assert len(result.time_per_token_ns) == 1024
    factors = [
        r.summary["interface_bytes"]["reduction"]["decoder_payload"]["factor"] for r in runs.whole.values()
    ]
    assert 110 * 0.9 <= min(factors) <= 110 * 1.1
    assert 259 * 0.9 <= max(factors) <= 259 * 1.1
    for result in runs.bound.values():
        assert result.total_time_ns >= lower_bound_ns(result)
    assert runs.bound["gpt3-xl"].total_time_ns <= 1.3 * lower_bound_ns(runs.bound["gpt3-xl"])
    assert_current("pim-gpt", markdown("pim-gpt", findings, runs), tmp_path)


def assert_current(part: str, lines: Iterable[str], folder: Path) -> None:
    """Raise unless a part of docs/validation.md reads so."""
    page = Path(__file__).parents[1] / "docs" / "validation.md"
    text = page.read_bytes()
    assert f"<!-- {part} -->" in text.decode()
    written = folder / "validation.md"
    written.write_bytes(text)
    replace_part(written, part, list(lines))
    assert written.read_bytes() == text, f"run: pimloom reproduce {part} --write-docs docs"
