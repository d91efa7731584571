"""Expressions: values, and refusal of everything that is no integer arithmetic."""

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimloom.arch.expression import ExpressionError, evaluate

SYMBOLS = {"nBL": 2, "nCCD": 4, "nRP": 12}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        (" nRP ", 12),
        ("nRP - nBL - 1", 9),
        ("-nBL + 3 * nCCD", 10),
        ("(nRP + 1) // nCCD", 3),
        ("max(nBL, nCCD) + 2", 6),
        ("min(nRP, max(nBL, nCCD, 5))", 5),
        ("max(nBL)", 2),
    ],
)
def test_values(text: str, value: int) -> None:
    assert evaluate(text, SYMBOLS) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nRPP + 1", "unknown name 'nRPP' in 'nRPP + 1' (did you mean 'nRP'?)"),
        ("zzz", "unknown name 'zzz' in 'zzz'"),
        ("max", "unknown name 'max' in 'max'"),
        ("nRP // (nBL - 2)", "division by zero in 'nRP // (nBL - 2)'"),
        ("1.5", "cannot read the expression '1.5': a character that has no meaning here"),
        ("1e3", "1000.0 in '1e3': only integers have a meaning here"),
        ("True", "True in 'True': only integers have a meaning here"),
        ("", "cannot read the expression ''"),
        ("nRP nBL", "cannot read the expression 'nRP nBL'"),
        ("1abc", "cannot read the expression '1abc'"),
        ("9007199254740992 + 1", "'9007199254740992 + 1' leaves the range of +-2^53"),
        ("1 + " * 80 + "1", "expression of 321 characters; at most 300 are read"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=f"^{re.escape(message)}$"):
        evaluate(text, SYMBOLS)


@pytest.mark.parametrize(
    "text",
    ["nRP / 2", "nRP ** 2", "abs(nRP)", "max()", "max(*nRP)", "nRP, nBL", "+nRP", "lambda", "()", "(nRP"],
)
def test_no_other_syntax(text: str) -> None:
    with pytest.raises(ExpressionError):
        evaluate(text, SYMBOLS)


@given(st.text(alphabet="nRPBL01+-*/(), maxin_", max_size=40) | st.text(max_size=40))
def test_any_text_is_a_value_or_an_error(text: str) -> None:
    with contextlib.suppress(ExpressionError):
        assert isinstance(evaluate(text, SYMBOLS), int)


@given(
    st.recursive(st.integers(0, 99).map(str), lambda s: st.tuples(s, st.sampled_from("+-*"), s).map("".join))
)
def test_agrees_with_python(text: str) -> None:
    try:
        value = evaluate(text, {})
    except ExpressionError:
        return
    assert value == eval(text)  # noqa: S307  # digits and operators that the strategy made
