"""Integer expressions over timing names, such as `max(nBL, nCCD) + 2`, read by walking Python's syntax tree.

Only integers, names, + - * //, unary minus, max and min exist here; nothing is ever executed.
"""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from pimloom.arch.tree import did_you_mean

LIMIT = 2**53
MAX_LENGTH = 300

_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}
_FUNCTIONS: dict[str, Callable[[list[int]], int]] = {"max": max, "min": min}


class ExpressionError(ValueError):
    """An expression that cannot be read, names an unknown symbol, or leaves the range of +-2^53."""


@lru_cache(maxsize=1024)
def _parse(text: str) -> ast.expr:
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"expression of {len(text)} characters; at most {MAX_LENGTH} are read")
    if not re.fullmatch(r"[A-Za-z0-9_+\-*/(), ]*", text):
        raise ExpressionError(f"cannot read the expression {text!r}: a character that has no meaning here")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ExpressionError(f"cannot read the expression {text!r}") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and type(node.value) is not int:
            raise ExpressionError(f"{node.value!r} in {text!r}: only integers have a meaning here")
    return tree


def evaluate(text: str, symbols: Mapping[str, int]) -> int:
    """Value of an expression over `symbols`.

    Raises ExpressionError for anything but integers, known names, + - * //, unary minus, max and min.
    """
    # The same few expressions are evaluated for every machine of a sweep.
    known = ((name, symbols[name]) for name in _names(text) if name in symbols)
    try:
        return _value(text, tuple(known))
    except _UnknownNameError as error:
        hint = did_you_mean(error.args[0], list(symbols))
        raise ExpressionError(f"unknown name {error.args[0]!r} in {text!r}{hint}") from None


class _UnknownNameError(Exception):
    """A name that has no value."""


@lru_cache(maxsize=1024)
def _names(text: str) -> tuple[str, ...]:
    return tuple(sorted({node.id for node in ast.walk(_parse(text)) if isinstance(node, ast.Name)}))


@lru_cache(maxsize=65536)
def _value(text: str, known: tuple[tuple[str, int], ...]) -> int:
    symbols = dict(known)

    def walk(node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int(value)):
                result = value
            case ast.Name(id=name):
                if name not in symbols:
                    raise _UnknownNameError(name)
                result = symbols[name]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                result = -walk(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                a, b = walk(left), walk(right)
                if b == 0 and isinstance(op, ast.FloorDiv):
                    raise ExpressionError(f"division by zero in {text!r}")
                result = _OPERATORS[type(op)](a, b)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS and args:
                result = _FUNCTIONS[name]([walk(arg) for arg in args])
            case _:
                raise ExpressionError(
                    f"{ast.unparse(node)!r} in {text!r}: "
                    "only integers, names, + - * //, max and min have a meaning here"
                )
        if abs(result) > LIMIT:
            raise ExpressionError(f"{text!r} leaves the range of +-2^53")
        return result

    return walk(_parse(text))
