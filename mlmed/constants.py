"""Numbers that are written out in an expression, and what arithmetic makes of them alone; all of bounded size."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mlmed.allowed import A_FLAG, A_LIST, A_NUMBER, A_TEXT, A_WHOLE, CONSTANTS, NOTHING
from mlmed.errors import FormulaError
from mlmed.limits import MAX_INTEGER, MAX_NUMBER, MAX_POWER
from mlmed.options import shown

__all__ = ["Number", "is_kind", "numbers_of"]

Number = int | float

_ARITHMETIC: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
    ast.BitAnd: operator.and_, ast.BitOr: operator.or_,
}  # fmt: skip
_SIGNS: dict[type[ast.AST], Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}


def numbers_of(tree: ast.AST, text: str) -> dict[int, Number]:
    """Values of the nodes that are numbers whatever the data are, by the identity of the node.

    Parameters
    ----------
    tree : syntax tree
        Of bounded depth.
    text : str
        The expression, for messages.

    Raises
    ------
    FormulaError
        A number is complex, beyond ``MAX_NUMBER`` or ``MAX_INTEGER``, or cannot be computed, such as 1/0; or the
        exponent of anything is a number beyond ``MAX_POWER``.

    Examples
    --------
    >>> tree = ast.parse("x + 2 * 3**2", mode="eval")
    >>> numbers_of(tree, "x + 2 * 3**2")[id(tree.body.right)]
    18
    """
    found: dict[int, Number] = {}
    for node in reversed(list(ast.walk(tree))):  # operands before what is computed from them
        value = _value(node, found, text)
        if value is not None:
            found[id(node)] = _bounded(value, text)
    return found


def _value(node: ast.AST, found: dict[int, Number], text: str) -> Any:
    """The value of one node; None if it is no number, or depends on columns."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, int | float | complex) else None
    if isinstance(node, ast.Attribute) and node.attr in CONSTANTS:
        return getattr(np, node.attr) if isinstance(node.value, ast.Name) and node.value.id == "np" else None
    if isinstance(node, ast.UnaryOp) and type(node.op) in _SIGNS and id(node.operand) in found:
        return _SIGNS[type(node.op)](found[id(node.operand)])
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        left, right = found.get(id(node.left)), found.get(id(node.right))
        if isinstance(node.op, ast.Pow):
            _check_power(left, right, text)
        if left is None or right is None:
            return None
        try:
            return _ARITHMETIC[type(node.op)](left, right)
        except (ArithmeticError, TypeError) as error:
            raise FormulaError(f"cannot use {shown(text)}: {ast.unparse(node)} has no value ({error})") from error
    return None


def _check_power(base: Number | None, power: Number | None, text: str) -> None:
    """Refuse a power before it is computed with all its digits; None is what depends on columns."""
    if power is None:
        return
    if abs(power) > MAX_POWER:
        raise FormulaError(
            f"cannot use {shown(text)}: the exponent {power:g} is beyond {MAX_POWER} (mlmed.limits.MAX_POWER); "
            "write a smaller one"
        )
    if base is not None and abs(base) > 1.0 and power * math.log10(abs(base)) > math.log10(MAX_NUMBER):
        raise FormulaError(
            f"cannot use {shown(text)}: {base:g}**{power:g} is beyond {MAX_NUMBER:g} (mlmed.limits.MAX_NUMBER); "
            "change the unit"
        )


def _bounded(value: Any, text: str) -> Number:
    if isinstance(value, complex):
        raise FormulaError(
            f"cannot use {shown(text)}: {value} is a complex number, and the imaginary part would be lost; write "
            "real numbers"
        )
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise FormulaError(
            f"cannot use {shown(text)}: a whole number is beyond 64 bits (mlmed.limits.MAX_INTEGER); write it as "
            f"in 1e30, with a point or an exponent"
        )
    number: Number = value
    if math.isfinite(number) and abs(number) > MAX_NUMBER:
        raise FormulaError(
            f"cannot use {shown(text)}: a number is beyond {MAX_NUMBER:g} (mlmed.limits.MAX_NUMBER); change the "
            "unit of the column before the fit"
        )
    return number


def is_kind(node: ast.expr, kind: str, numbers: Mapping[int, Number]) -> bool:
    """Whether a literal is of a kind of ``mlmed.allowed.LITERALS``; 0 and 1 pass for False and True.

    ``numbers`` are those of the expression (``numbers_of``).
    """
    value = numbers.get(id(node), node.value if isinstance(node, ast.Constant) else None)
    is_whole = isinstance(value, int)
    return {
        A_LIST: isinstance(node, ast.List | ast.Tuple),
        A_TEXT: isinstance(value, str),
        NOTHING: isinstance(node, ast.Constant) and value is None,
        A_NUMBER: is_whole or isinstance(value, float),
        A_WHOLE: is_whole and not isinstance(value, bool),
        A_FLAG: is_whole and value in (0, 1),
    }[kind]
