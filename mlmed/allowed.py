"""Functions, methods and constants that formulas can use, with their arguments; values of constant expressions."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from mlmed.errors import FormulaError
from mlmed.limits import MAX_INTEGER, MAX_NUMBER, MAX_POWER
from mlmed.text import shown


@dataclass(frozen=True, slots=True)
class Takes:
    """Arguments of a function or method."""

    data: int  #: Most arguments that are expressions of columns; they come first, by position.
    #: Names of literal arguments (numbers, text, lists of these) in order; by position or by name.
    words: tuple[str, ...] = ()
    first: str = ""  #: Name of the first argument; empty if it has none.
    least: int = 1  #: Fewest arguments.
    #: Most arguments, if words name some of the data; None for data and words together.
    most: int | None = None

    @property
    def largest(self) -> int:
        """The largest number of arguments."""
        return self.data + len(self.words) if self.most is None else self.most

    @property
    def counted(self) -> str:
        """The number of arguments, in words."""
        most = self.largest
        if most == 0:
            return "no argument"
        some = f"{most}" if most == self.least else f"{self.least} to {most}"
        return f"{some} argument{'' if most == 1 else 's'}"


def _table(**rows: Takes) -> Mapping[str, Takes]:
    return MappingProxyType(rows)


_ONE = (
    "abs", "absolute", "fabs", "negative", "positive", "sign", "square", "reciprocal",
    "sqrt", "cbrt", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p",
    "floor", "ceil", "trunc", "rint", "fix",
    "sin", "cos", "tan", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh",
    "deg2rad", "rad2deg", "degrees", "radians", "isfinite", "isinf", "isnan", "signbit", "logical_not",
)  # fmt: skip
_TWO = (
    "add", "subtract", "multiply", "divide", "true_divide", "floor_divide", "mod", "remainder", "fmod",
    "power", "float_power", "maximum", "minimum", "fmax", "fmin", "hypot", "arctan2", "copysign", "heaviside",
    "logaddexp", "logaddexp2", "equal", "not_equal", "less", "less_equal", "greater", "greater_equal",
    "logical_and", "logical_or", "logical_xor",
)  # fmt: skip
#: Statistics of a column: refused in predictors, which must not depend on other rows (mlmed.data.checks).
_STATISTICS = {
    **dict.fromkeys(("mean", "median", "min", "max", "sum"), Takes(1)),
    **dict.fromkeys(("std", "var"), Takes(1, ("ddof",))),
    "quantile": Takes(1, ("q",)),
}

#: Functions of numpy, as np.name(), without further arguments: another one would be an array to write into.
NUMPY: Mapping[str, Takes] = _table(
    **dict.fromkeys(_ONE, Takes(1)),
    **dict.fromkeys(_TWO, Takes(2, least=2)),
    **_STATISTICS,
    percentile=Takes(1, ("q",)),
    round=Takes(1, ("decimals",)),
    around=Takes(1, ("decimals",)),
    clip=Takes(3, ("a_min", "a_max"), most=3),
    where=Takes(3, least=3),
    isin=Takes(1, ("test_elements",)),
    digitize=Takes(1, ("bins", "right")),
)

#: Functions called by a bare name.
FUNCTIONS: Mapping[str, Takes] = _table(
    I=Takes(1),
    C=Takes(1, ("contrasts", "levels", "spans_intercept"), first="data"),
    center=Takes(1, first="data"),
    scale=Takes(1, ("center", "scale", "ddof"), first="data"),
    standardize=Takes(1, ("center", "rescale", "ddof"), first="x"),
    poly=Takes(1, ("degree", "raw"), first="x"),
    bs=Takes(
        1,
        ("df", "knots", "degree", "include_intercept", "lower_bound", "upper_bound", "extrapolation"),
        first="x",
    ),
    **dict.fromkeys(
        ("cr", "cs", "cc"),
        Takes(1, ("df", "knots", "lower_bound", "upper_bound", "constraints", "extrapolation"), first="x"),
    ),
    hashed=Takes(1, ("levels", "contrasts", "spans_intercept"), first="data"),
    **dict.fromkeys(("log", "log2", "log10", "exp", "exp2", "abs"), Takes(1)),
    round=Takes(1, ("ndigits",)),
)

#: Functions that remember the rows of the fit. Their state is stored under the text of the call, hence tighter rules.
STATEFUL = frozenset({"center", "scale", "standardize", "poly", "bs", "cr", "cs", "cc"})

#: Methods of a column, as x.name().
METHODS: Mapping[str, Takes] = _table(
    abs=Takes(0, least=0),
    round=Takes(0, ("decimals",), least=0),
    clip=Takes(2, ("lower", "upper"), most=2),
    between=Takes(2, ("left", "right", "inclusive"), least=2, most=3),
    isin=Takes(0, ("values",)),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), Takes(1)),
    **{name: Takes(0, takes.words, least=0) for name, takes in _STATISTICS.items()},
    rank=Takes(0, ("axis", "method", "numeric_only", "na_option", "ascending", "pct"), least=0),
)

#: np.name without a call.
CONSTANTS = frozenset({"pi", "e", "nan", "inf"})

#: Codings of a factor, called by a bare name or named without parentheses: C(g, Sum).
CODINGS: Mapping[str, Takes] = _table(
    Treatment=Takes(0, ("reference",), least=0),
    Sum=Takes(0, least=0),
    Helmert=Takes(0, ("reverse", "scale"), least=0),
    Diff=Takes(0, ("backward",), least=0),
    Poly=Takes(0, ("scores",), least=0),
)
#: Codings as contr.name.
CONTRASTS: Mapping[str, Takes] = _table(
    treatment=Takes(0, ("base", "drop"), least=0),
    SAS=Takes(0, ("base", "drop"), least=0),
    sum=Takes(0, least=0),
    helmert=Takes(0, ("reverse", "scale"), least=0),
    diff=Takes(0, ("backward",), least=0),
    poly=Takes(0, ("scores",), least=0),
    custom=Takes(0, ("contrasts", "names"), least=1),
)
#: A coding written out as np.name(), inside C() only.
MATRICES: Mapping[str, Takes] = _table(array=Takes(0, ("object",)), eye=Takes(0, ("N",)))

#: Kinds of literals, as messages name them.
A_WHOLE, A_NUMBER, A_FLAG, NOTHING = "a whole number", "a number", "True or False", "None"
A_LIST, A_TEXT = "a list in square brackets", "a text"
_SWITCHES = (
    "ascending", "backward", "drop", "include_intercept", "numeric_only", "pct", "raw", "reverse", "right",
    "spans_intercept",
)  # fmt: skip
#: Kinds of literal arguments, by name, or by function and name; others may be any literal.
LITERALS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **dict.fromkeys(("N", "decimals", "degree", "hashed() levels"), (A_WHOLE,)),
        **dict.fromkeys(("df", "ndigits"), (A_WHOLE, NOTHING)),
        **dict.fromkeys(("ddof", "q"), (A_NUMBER,)),
        **dict.fromkeys(("lower_bound", "upper_bound"), (A_NUMBER, NOTHING)),
        **dict.fromkeys(("bins", "object", "values"), (A_LIST,)),
        **dict.fromkeys(("knots", "levels", "names", "scores"), (A_LIST, NOTHING)),
        **dict.fromkeys(("center", "scale", "rescale"), (A_FLAG, A_NUMBER)),
        **dict.fromkeys(_SWITCHES, (A_FLAG,)),
        **dict.fromkeys(("extrapolation", "inclusive", "method", "na_option"), (A_TEXT,)),
    }
)

#: Attributes that make a row depend on other rows, for the message.
OTHER_ROWS = frozenset(
    {
        "accumulate", "agg", "aggregate", "apply", "at", "bfill", "cummax", "cummin", "cumprod", "cumsum", "diff",
        "drop_duplicates", "duplicated", "ewm", "expanding", "ffill", "groupby", "head", "iat", "iloc", "index",
        "interpolate", "loc", "nunique", "pct_change", "reduce", "roll", "rolling", "sample", "shift", "size",
        "sort_values", "tail", "transform", "unique", "value_counts",
    }
)  # fmt: skip


Number = int | float

_ARITHMETIC: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
    ast.BitAnd: operator.and_, ast.BitOr: operator.or_,
}  # fmt: skip
_SIGNS: dict[type[ast.AST], Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}


def numbers_of(tree: ast.AST, text: str) -> dict[int, Number]:
    """Values of constant nodes, by the identity of the node.

    ``tree``: of bounded depth; ``text``: the expression, for messages.

    Raises ``FormulaError``: a number is complex, beyond ``MAX_NUMBER`` or ``MAX_INTEGER``, or cannot be computed,
    such as 1/0; or a constant exponent is beyond ``MAX_POWER``.

    Examples
    --------
    >>> tree = ast.parse("x + 2 * 3**2", mode="eval")
    >>> numbers_of(tree, "x + 2 * 3**2")[id(tree.body.right)]
    18
    """
    found: dict[int, Number] = {}
    for node in reversed(list(ast.walk(tree))):  # operands first
        value = _value(node, found, text)
        if value is not None:
            found[id(node)] = _bounded(value, text)
    return found


def _value(node: ast.AST, found: dict[int, Number], text: str) -> Any:
    """The value of a constant node; None if it is no number or depends on columns."""
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
    """Refuse a large power before it is computed with all its digits; None stands for expressions of columns."""
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
