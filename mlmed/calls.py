"""Calls inside formulas: those that cannot be meant, with what to write instead; what C() is asked to code."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator

from formulaic.transforms import ContrastsRegistry

from mlmed.allowed import Takes
from mlmed.errors import FormulaError
from mlmed.habits import CALLS
from mlmed.names import FUNCTIONS, display_name
from mlmed.options import shown

__all__ = [
    "arguments_of",
    "check_call",
    "check_logic",
    "coded_columns",
    "coding_names",
    "codings_of",
    "has_coded_expression",
]

#: Contrasts that can be named without parentheses, as in patsy: C(g, Sum).
CODINGS = frozenset({"Sum", "Helmert", "Diff", "Poly"})

#: Methods of a column that take a type or a function, and what to write instead of those of Python.
_TAKING = frozenset({"agg", "apply", "astype", "map", "pipe", "transform", "vectorize"})
_ARGUMENTS = {
    "float": "columns of numbers are double precision already; write the column alone",
    "int": "write np.trunc() or np.floor()",
    "str": "to make a factor of a column, write C()",
    "bool": "truth values count as 0 and 1; write a comparison, as in I(x != 0)",
    "abs": "write np.abs()",
    "round": "write np.round()",
    "len": "make a column of the lengths before the fit",
}


def arguments_of(node: ast.Call, takes: Takes) -> tuple[list[ast.expr], dict[str, ast.expr]]:
    """Arguments of a call that are expressions of columns, and those that are literals, by name.

    Examples
    --------
    >>> data, words = arguments_of(ast.parse("round(x, 1)").body[0].value, Takes(1, ("decimals",)))
    >>> len(data), list(words)
    (1, ['decimals'])
    """
    named = {word.arg: word.value for word in node.keywords if word.arg is not None}
    first = [named.pop(takes.first)] if takes.first in named else []
    return [*first, *node.args[: takes.data]], {
        **dict(zip(takes.words, node.args[takes.data :], strict=False)),
        **named,
    }


def check_call(node: ast.Call, expression: str) -> None:
    """Refuse a call of a plain name (``f(x)``) that is unknown or cannot be meant.

    The same of a method that is given a type or a function of Python, ``x.astype(float)``.

    Raises
    ------
    FormulaError
        With what to write instead.
    """
    asked = shown(display_name(expression))
    if isinstance(node.func, ast.Attribute) and node.func.attr in _TAKING:
        _check_arguments(node, asked)
    if not isinstance(node.func, ast.Name):
        return
    name = node.func.id
    if name in CALLS:
        raise FormulaError(f"cannot use {asked}: {CALLS[name]}")
    if name not in FUNCTIONS:
        raise FormulaError(
            f"cannot read {asked}: the function {name}() is unknown; use one of numpy's that docs/formulas.md lists, "
            "I(), C(), center(), scale(), poly() or bs(), or make the column before the fit"
        )
    for coding in _codings(node):
        _check_coding(coding, asked)


def _check_arguments(node: ast.Call, asked: str) -> None:
    given = [*node.args, *(word.value for word in node.keywords)]
    for name in (display_name(value.id) for value in given if isinstance(value, ast.Name)):
        if hasattr(builtins, name):
            instead = _ARGUMENTS.get(name, "make the column before the fit")
            raise FormulaError(f"cannot use {asked}: {name} is Python's and no column; {instead}")


def check_logic(tree: ast.AST, expression: str) -> None:
    """Refuse ``and``, ``or`` and ``not``, which are for single values.

    Raises
    ------
    FormulaError
        With what to write instead.
    """
    words = [
        "not" if isinstance(node, ast.Not) else "and" if isinstance(node, ast.And) else "or"
        for node in ast.walk(tree)
        if isinstance(node, ast.Not | ast.And | ast.Or)
    ]
    if words:
        asked = shown(display_name(expression))
        raise FormulaError(
            f"cannot use {asked}: {words[0]!r} is for single values; for columns 'not' is written "
            "as k != 2, 'and' as (k > 1) & (k < 5), 'or' as (k == 1) | (k == 5)"
        )


def _check_coding(coding: ast.expr, asked: str) -> None:
    known = sorted(name for name in vars(ContrastsRegistry) if not name.startswith("_"))
    called = coding.func if isinstance(coding, ast.Call) else coding
    found = ""
    if isinstance(coding, ast.Name) and coding.id not in CODINGS:
        found = display_name(coding.id)
    elif isinstance(coding, ast.Constant) and coding.value is not None:
        found = repr(coding.value)
    elif isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
        base = called.value.id
        allowed = base == "np" or (base == "contr" and called.attr in known)
        found = "" if allowed else f"{display_name(base)}.{called.attr}"
    if found == "Treatment":
        raise FormulaError(
            f"cannot read {asked}: C() codes by treatment without being told, so leave Treatment out; to choose the "
            "reference write Treatment('level')"
        )
    if found:
        raise FormulaError(
            f"cannot read {asked}: {found} is no coding of a factor; write one of {', '.join(sorted(CODINGS))}, or "
            f"{', '.join(f'contr.{name}' for name in known)}"
        )


def _codings(call: ast.Call) -> list[ast.expr]:
    """The second argument of C(), if there is one."""
    if not _is_coded(call):
        return []
    return [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "contrasts")]


def coding_names(tree: ast.AST) -> frozenset[str]:
    """Names in an expression that are codings of a factor, not columns."""
    return frozenset(
        coding.id for call in _coded_calls(tree) for coding in _codings(call) if isinstance(coding, ast.Name)
    )


def coded_columns(expression: str) -> frozenset[str]:
    """Columns that C() makes a factor of as they are; those inside ``C(x > 0)`` stay what they are.

    Examples
    --------
    >>> sorted(coded_columns("C(k, Treatment(2))")), sorted(coded_columns("C(age >= 65)"))
    (['k'], [])
    """
    return frozenset(display_name(node.id) for node in _coded(expression) if isinstance(node, ast.Name))


def has_coded_expression(expression: str) -> bool:
    """Whether C() makes a factor of something that is computed, as in ``C(age >= 65)``."""
    return any(not isinstance(node, ast.Name) for node in _coded(expression))


def codings_of(expression: str) -> list[tuple[str, ast.expr]]:
    """Column and coding of every C() that has a coding, in an expression; columns in safe names.

    Examples
    --------
    >>> [(column, ast.unparse(coding)) for column, coding in codings_of("C(g, Treatment('b')) + C(k)")]
    [('g', "Treatment('b')")]
    """
    calls = list(_coded_calls(ast.parse(expression, mode="eval")))
    pairs = [(_data(call), coding) for call in calls for coding in _codings(call)]
    return [(data.id, coding) for data, coding in pairs if isinstance(data, ast.Name)]


def _data(call: ast.Call) -> ast.expr | None:
    """What a C() makes a factor of."""
    named = [word.value for word in call.keywords if word.arg == "data"]
    return call.args[0] if call.args else next(iter(named), None)


def _coded(expression: str) -> list[ast.expr]:
    """What every C() in an expression makes a factor of."""
    return [data for call in _coded_calls(ast.parse(expression, mode="eval")) if (data := _data(call)) is not None]


def _coded_calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_coded(node))


def _is_coded(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "C"
