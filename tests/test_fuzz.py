"""Malformed inputs by the thousand: `benchmarks/fuzz.py` says what a case is, and what is expected of it."""

from collections import Counter

import pytest

from benchmarks.fuzz import KINDS, describe, run

SEED = 1


def check(first: int, stop: int) -> Counter[str]:
    """Run cases, fail with all that went wrong, and return how many had each exit code."""
    outcomes = list(run(SEED, first, stop))
    assert [outcome.number for outcome in outcomes] == list(range(first, stop))
    faults = [describe(SEED, outcome) for outcome in outcomes if outcome.fault]
    assert not faults, f"{len(faults)} of {len(outcomes)} cases went wrong\n\n" + "\n\n".join(faults[:20])
    assert {outcome.what[0] for outcome in outcomes} == {kind.__name__ for kind in KINDS}
    return Counter(str(outcome.code) for outcome in outcomes)


def test_some_malformed_inputs() -> None:
    codes = check(0, 400)
    # Most inputs are refused, and of those that are still valid enough run.
    assert codes["2"] > 200
    assert codes["0"] > 40


@pytest.mark.slow
def test_ten_thousand_malformed_inputs() -> None:
    check(400, 10_400)
