"""Formula columns as narwhals expressions, so that the engine that holds the rows computes them."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import narwhals as nw
from formulaic.parser.types import Factor, Term

from mlmed.data.terms import Encoding
from mlmed.errors import FormulaError
from mlmed.formula import Equation
from mlmed.names import display_name, safe_name

__all__ = ["Kinds", "column_expressions", "factor_expression", "refuse_untranslated", "variable_expression"]

_BINARY = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: lambda a, b: a**b,
}
_FUNCTIONS = {
    "log": lambda e: e.log(),
    "log10": lambda e: e.log(10.0),
    "log2": lambda e: e.log(2.0),
    "exp": lambda e: e.exp(),
    "sqrt": lambda e: e.sqrt(),
    "abs": lambda e: e.abs(),
    "I": lambda e: e,
}


@dataclass(frozen=True, slots=True)
class Kinds:
    """What is known of the variables before their columns are made.

    Attributes
    ----------
    typical : dict
        Means of numeric variables over the rows of the equation.
    spread : dict
        Their standard deviations.
    levels : dict
        Levels of factors.
    """

    typical: Mapping[str, Any]
    spread: Mapping[str, float]
    levels: Mapping[str, tuple[Any, ...]]


def variable_expression(name: str) -> nw.Expr:
    """A numeric or boolean column as double precision."""
    return nw.col(safe_name(name)).cast(nw.Float64)


def _refuse(text: str, why: str) -> FormulaError:
    return FormulaError(
        f"the term {display_name(text)} cannot be computed by the engine that holds the rows ({why}); make it a column "
        "there, or collect the data into memory first"
    )


def factor_expression(text: str, kinds: Kinds) -> nw.Expr:
    """A numeric expression such as ``np.log(x)`` or ``I(x**2 + w)``.

    Raises
    ------
    FormulaError
        If it uses a function that is not translated.
    """
    return _translate(ast.parse(text, mode="eval").body, text, kinds)


def _translate(node: ast.expr, text: str, kinds: Kinds) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.Name):
        name = display_name(node.id)
        if name in kinds.levels and isinstance(kinds.levels[name][0], str):
            raise _refuse(text, f"{name} is text")
        return variable_expression(name)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _BINARY[type(node.op)](_translate(node.left, text, kinds), _translate(node.right, text, kinds))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -1.0 * _translate(node.operand, text, kinds)
    if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
        return _call(node, text, kinds)
    raise _refuse(text, "only numbers, + - * / **, and simple functions are translated")


def _call(node: ast.Call, text: str, kinds: Kinds) -> Any:
    function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if function in _FUNCTIONS:
        inner = _translate(node.args[0], text, kinds)
        return _FUNCTIONS[function](nw.lit(inner) if isinstance(inner, float) else inner)
    if function in ("center", "scale"):
        argument = node.args[0]
        name = display_name(argument.id) if isinstance(argument, ast.Name) else ""
        if name not in kinds.spread:
            raise _refuse(text, f"{function}() is translated for a plain column only")
        centred = variable_expression(name) - kinds.typical[name]
        return centred / kinds.spread[name] if function == "scale" else centred
    raise _refuse(text, f"the function {function}() is not translated")


def column_expressions(equation: Equation, encoding: Encoding, kinds: Kinds) -> dict[str, nw.Expr]:
    """Expression of every column of an encoding except the intercept, by formulaic's name."""
    out: dict[str, nw.Expr] = {}
    for part in encoding.parts:
        if not part.term.factors or str(part.term) == "1":
            continue
        known = _term_columns(part.term, kinds)
        for name in (column.name for column in part.columns):
            if name not in known:
                raise _refuse(name, "its coding is not the default treatment coding")
            out[name] = known[name]
    return out


def refuse_untranslated(encoding: Encoding, kinds: Kinds) -> None:
    """Refuse what ``column_expressions`` cannot write, factor by factor.

    Raises
    ------
    FormulaError
        A function or a coding is not translated.
    """
    for term in encoding.formula:
        for factor in term.factors:
            if factor.eval_method.value != "python":
                continue
            if not factor.expr.startswith("C("):
                factor_expression(factor.expr, kinds)
            elif display_name(factor.expr[2:-1]) not in kinds.levels:
                raise _refuse(factor.expr, "only C(column) is translated")


def _term_columns(term: Term, kinds: Kinds) -> dict[str, nw.Expr]:
    """Every column a term can have: products over (some of) its factors of a number or a level indicator."""
    pieces = [_factor_columns(factor, kinds) for factor in term.factors]
    out: dict[str, nw.Expr] = {}
    subsets = (chosen for size in range(1, len(pieces) + 1) for chosen in itertools.combinations(pieces, size))
    for combination in itertools.chain.from_iterable(itertools.product(*chosen) for chosen in subsets):
        product = combination[0][1]
        for _, expression in combination[1:]:
            product = product * expression
        for order in itertools.permutations(name for name, _ in combination):  # formulaic's order is its own
            out[":".join(order)] = product
    return out


def _factor_columns(factor: Factor, kinds: Kinds) -> list[tuple[str, nw.Expr]]:
    text = factor.expr
    name = display_name(text)
    if factor.eval_method.value == "lookup" and name not in kinds.levels:
        return [(text, variable_expression(name))]
    if factor.eval_method.value == "python" and not text.startswith("C("):
        return [(text, factor_expression(text, kinds))]
    inner = name if factor.eval_method.value == "lookup" else display_name(text[2:-1])
    if inner not in kinds.levels:
        raise _refuse(text, "only C(column) is translated")
    columns: list[tuple[str, nw.Expr]] = []
    for level in kinds.levels[inner]:
        column = variable_expression(inner) if isinstance(level, float) else nw.col(safe_name(inner)).cast(nw.String)
        indicator = nw.when(column == level).then(nw.lit(1.0)).otherwise(nw.lit(0.0))
        columns += [(f"{text}[T.{level}]", indicator), (f"{text}[{level}]", indicator)]
    return columns
