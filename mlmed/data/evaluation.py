"""What formulas compute: one table of operations and one walk over the syntax tree, for memory and engines alike.

An engine that does not compute an operation hands out its rows, and they are computed as those in memory are.
"""

from __future__ import annotations

import ast
import inspect
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Protocol

import narwhals as nw
import numpy as np
import pandas as pd
from formulaic.transforms import TRANSFORMS, ContrastsRegistry
from formulaic.transforms.contrasts import Contrasts, CustomContrasts, TreatmentContrasts

from mlmed.allowed import CODINGS, CONTRASTS, FUNCTIONS, MATRICES, METHODS, NUMPY, STATEFUL, Number, numbers_of
from mlmed.names import FUNCTIONS as RESERVED
from mlmed.names import display_name
from mlmed.syntax import arguments_of, check_expression

__all__ = [
    "EVALUATION_ERRORS",
    "OPERATIONS",
    "Coded",
    "Memory",
    "Operation",
    "Side",
    "Tree",
    "calls_of",
    "evaluate",
    "looks_at_other_rows",
    "remembers",
    "tree_of",
]


@dataclass(frozen=True, slots=True)
class Operation:
    """Two meanings of one operation.

    Attributes
    ----------
    memory : callable
        Of arrays and numbers; columns of levels come as pandas Series.
    engine : callable, optional
        Of expressions of double precision, and of what ``takes`` says; None where engines differ or have none.
    takes : {"numbers", "truths", "alike", "choice"}
        What an engine is given: numbers, truth values, two numbers or two texts, or a truth value and two numbers.
    is_truth : bool
        Whether it gives truth values.
    is_rowwise : bool
        Whether the value of a row depends on this row only.
    """

    memory: Callable[..., Any]
    engine: Callable[..., Any] | None = None
    takes: str = "numbers"
    is_truth: bool = False
    is_rowwise: bool = True


def _as_number(condition: Any) -> Any:
    return nw.when(condition).then(nw.lit(1.0)).otherwise(nw.lit(0.0))


def _chosen(condition: Any, one: Any, other: Any) -> Any:
    return nw.when(condition).then(one).otherwise(other)


def _even(e: Any) -> Any:
    """The nearest whole number, of two the even one, as NumPy rounds; engines round away from zero."""
    low = e.floor()
    rest, is_odd = e - low, low - 2.0 * (low / 2.0).floor() > 0.5
    return low + _as_number((rest > 0.5) | ((rest == 0.5) & is_odd))


def _rounded(e: Any, decimals: int = 0, ndigits: int | None = None) -> Any:
    digits = int(decimals if ndigits is None else ndigits)
    if digits >= 0:
        return _even(e * 10.0**digits) / 10.0**digits
    return _even(e / 10.0**-digits) * 10.0**-digits


def _larger(a: Any, b: Any) -> Any:
    return _chosen(a >= b, a, b)


def _smaller(a: Any, b: Any) -> Any:
    return _chosen(a <= b, a, b)


def _clipped(e: Any, low: Any = None, high: Any = None, **named: Any) -> Any:
    low = named.get("a_min", named.get("lower", low))
    high = named.get("a_max", named.get("upper", high))
    e = e if low is None else _larger(e, low)
    return e if high is None else _smaller(e, high)


def _between(e: Any, low: Any, high: Any, inclusive: str = "both") -> Any:
    above = e >= low if inclusive in ("both", "left") else e > low
    return above & (e <= high if inclusive in ("both", "right") else e < high)


def _among(e: Any, test_elements: Sequence[Any] = (), values: Sequence[Any] = ()) -> Any:
    found = nw.lit(False)
    for one in (*test_elements, *values):
        found = found | (e == (one if isinstance(one, str) else float(one)))
    return found


def _bin(e: Any, bins: Sequence[float], right: bool = False) -> Any:
    """How many edges are below, which come in ascending order."""
    found = nw.lit(0.0)
    for edge in bins:
        found = found + _as_number(e > edge if right else e >= edge)
    return found


def _sign(e: Any) -> Any:
    return _chosen(e > 0.0, nw.lit(1.0), _chosen(e < 0.0, nw.lit(-1.0), nw.lit(0.0)))


def _step(e: Any, half: Any) -> Any:
    return _chosen(e > 0.0, nw.lit(1.0), _chosen(e < 0.0, nw.lit(0.0), half))


def _xor(a: Any, b: Any) -> Any:
    return (a & ~b) | (b & ~a)


#: What an engine computes as NumPy does, by NumPy's name; functions that are missing here are computed in memory.
_ENGINE: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("abs", "absolute", "fabs"), lambda e: e.abs()),
    "negative": lambda e: e * -1.0,
    "positive": lambda e: e,
    "sign": _sign,
    "square": lambda e: e * e,
    "reciprocal": lambda e: 1.0 / e,
    "sqrt": lambda e: e.sqrt(),
    "exp": lambda e: e.exp(),
    "log": lambda e: e.log(),
    "log2": lambda e: e.log(2.0),
    "log10": lambda e: e.log(10.0),
    "floor": lambda e: e.floor(),
    "ceil": lambda e: e.ceil(),
    **dict.fromkeys(("trunc", "fix"), lambda e: _chosen(e < 0.0, e.ceil(), e.floor())),
    "rint": _even,
    **dict.fromkeys(("round", "around"), _rounded),
    "sin": lambda e: e.sin(),
    "cos": lambda e: e.cos(),
    **dict.fromkeys(("deg2rad", "radians"), lambda e: e * (math.pi / 180.0)),
    **dict.fromkeys(("rad2deg", "degrees"), lambda e: e * (180.0 / math.pi)),
    "isfinite": lambda e: e.is_finite(),
    "isnan": lambda e: e.is_nan(),
    "isinf": lambda e: ~e.is_finite() & ~e.is_nan(),
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    **dict.fromkeys(("divide", "true_divide"), operator.truediv),
    **dict.fromkeys(("power", "float_power"), operator.pow),
    "maximum": _larger,
    "minimum": _smaller,
    "heaviside": _step,
    "clip": _clipped,
    "digitize": _bin,
}
#: Those that give truth values, and of what.
_TRUTHS: dict[str, tuple[Callable[..., Any], str]] = {
    "equal": (operator.eq, "alike"),
    "not_equal": (operator.ne, "alike"),
    "less": (operator.lt, "alike"),
    "less_equal": (operator.le, "alike"),
    "greater": (operator.gt, "alike"),
    "greater_equal": (operator.ge, "alike"),
    "isin": (_among, "alike"),
    "logical_and": (operator.and_, "truths"),
    "logical_or": (operator.or_, "truths"),
    "logical_xor": (_xor, "truths"),
    "logical_not": (operator.invert, "truths"),
    **{name: (_ENGINE[name], "numbers") for name in ("isfinite", "isnan", "isinf")},
}
#: One number of all rows, and ranks among them.
_OF_ROWS = frozenset({"mean", "median", "min", "max", "sum", "std", "var", "quantile", "percentile", "rank"})
#: Methods of pandas that have another name in NumPy.
_SAME = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}


def _of_numpy(name: str) -> Operation:
    function = getattr(np, name)
    if name in _OF_ROWS:  # missing values are left out, as pandas does
        return Operation(lambda x, **words: function(pd.Series(x), **words), is_rowwise=False)
    if name in _TRUTHS:
        return Operation(function, *_TRUTHS[name], is_truth=True)
    if name == "where":
        return Operation(function, _chosen, "choice")
    return Operation(function, _ENGINE.get(name))


def _of_pandas(name: str) -> Operation:
    def method(x: Any, *others: Any, **words: Any) -> Any:
        return getattr(pd.Series(x) if np.ndim(x) else x, name)(*others, **words)

    known = _of_numpy(_SAME.get(name, name)) if name not in ("between", "rank") else Operation(method)
    if name == "between":
        return Operation(method, _between, is_truth=True)
    return Operation(method, known.engine, known.takes, known.is_truth, name not in _OF_ROWS)


def _refusing_truths(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Two truth values have no quotient and no power, as in pandas."""

    def computed(a: Any, b: Any) -> Any:
        if _is_truth(a) and _is_truth(b):
            raise NotImplementedError(f"operator '{function.__name__}' not implemented for bool dtypes")
        return function(a, b)

    return computed


def _as_pandas(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """What pandas makes of ``&`` and ``|``: with a truth value, a number is one that is not 0."""

    def computed(a: Any, b: Any) -> Any:
        return function(pd.Series(a), b) if isinstance(a, np.ndarray) else function(a, pd.Series(b))

    return computed


def _is_truth(value: Any) -> bool:
    return getattr(value, "dtype", None) == np.bool_


def _minus(value: Any) -> Any:
    return ~value if _is_truth(value) else -value


#: By what is written: an operator (``u-`` and ``u+`` have one operand), ``np.name``, a bare name, or ``.name``.
OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        "+": Operation(operator.add, operator.add),
        "-": Operation(operator.sub, operator.sub),
        "*": Operation(operator.mul, operator.mul),
        "/": Operation(_refusing_truths(operator.truediv), operator.truediv),
        "//": Operation(_refusing_truths(operator.floordiv)),
        "%": Operation(operator.mod),
        "**": Operation(_refusing_truths(operator.pow), operator.pow),
        "&": Operation(_as_pandas(operator.and_), operator.and_, "truths", is_truth=True),
        "|": Operation(_as_pandas(operator.or_), operator.or_, "truths", is_truth=True),
        "u-": Operation(_minus, lambda e: e * -1.0),
        "u+": Operation(lambda value: value, lambda e: e),
        "==": Operation(operator.eq, operator.eq, "alike", is_truth=True),
        "!=": Operation(operator.ne, operator.ne, "alike", is_truth=True),
        "<": Operation(operator.lt, operator.lt, "alike", is_truth=True),
        "<=": Operation(operator.le, operator.le, "alike", is_truth=True),
        ">": Operation(operator.gt, operator.gt, "alike", is_truth=True),
        ">=": Operation(operator.ge, operator.ge, "alike", is_truth=True),
        **{f"np.{name}": _of_numpy(name) for name in NUMPY},
        **{name: _of_numpy(name) for name in ("log", "log2", "log10", "exp", "exp2", "abs")},
        "round": Operation(lambda x, ndigits=0: np.round(x, ndigits), _rounded),
        **{f".{name}": _of_pandas(name) for name in METHODS},
    }
)

#: What expressions of users raise inside NumPy, pandas and formulaic's splines and contrasts.
EVALUATION_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NameError,
    NotImplementedError,
    TypeError,
    ValueError,
)
#: How operators are called in the table of operations.
_SIGNS: dict[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**",
    ast.BitAnd: "&", ast.BitOr: "|", ast.USub: "u-", ast.UAdd: "u+",
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tree:
    """A checked expression.

    Attributes
    ----------
    text : str
        As formulaic writes it, with safe names.
    body : ast.expr
        Its syntax tree.
    numbers : dict
        Values of the nodes, by identity, that are numbers whatever the data are.
    """

    text: str
    body: ast.expr
    numbers: dict[int, Number]


@lru_cache(maxsize=4096)
def tree_of(expression: str) -> Tree:
    """The checked tree of an expression.

    Raises
    ------
    FormulaError
        It is more than formulas may have (``mlmed.syntax``).
    """
    tree = check_expression(expression)
    return Tree(expression, tree.body, numbers_of(tree, display_name(expression)))


class Side(Protocol):
    """Where columns are, and what operations mean there."""

    def column(self, name: str) -> Any:
        """A column by its safe name."""

    def apply(self, key: str, operands: Sequence[Any], words: dict[str, Any]) -> Any:
        """An operation of ``OPERATIONS``."""

    def remembered(self, call: str, function: str, operand: Any, words: dict[str, Any]) -> Any:
        """A function that remembers the rows of the fit, such as ``center()``."""

    def coded(self, function: str, operand: Any, words: dict[str, Any]) -> Any:
        """A factor made by ``C()`` or ``hashed()``."""


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """A factor.

    Attributes
    ----------
    values : array or Series of n
        What has levels.
    contrasts : Contrasts
        How they become columns.
    levels : tuple, optional
        All of them, if they were named.
    spans_intercept : bool
        Whether indicators of all levels add up to the constant.
    is_remembered : bool
        Whether the levels are those of the rows of the fit.
    """

    values: Any
    contrasts: Contrasts
    levels: tuple[Any, ...] | None = None
    spans_intercept: bool = True
    is_remembered: bool = True


def evaluate(tree: Tree, side: Side) -> Any:
    """The value of an expression on one side."""
    return _value(tree.body, tree.numbers, side)


def _value(node: ast.expr, numbers: dict[int, Number], side: Side) -> Any:
    if id(node) in numbers:
        return numbers[id(node)]
    if isinstance(node, ast.Name):
        return side.column(node.id)
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Call):
        return _called(node, numbers, side)
    if isinstance(node, ast.UnaryOp):
        key, operands = _SIGNS[type(node.op)], [node.operand]
    elif isinstance(node, ast.BinOp):
        key, operands = _SIGNS[type(node.op)], [node.left, node.right]
    elif isinstance(node, ast.Compare):
        key, operands = _SIGNS[type(node.ops[0])], [node.left, *node.comparators]
    else:
        raise TypeError(f"{ast.unparse(node)} has no value")
    return side.apply(key, [_value(operand, numbers, side) for operand in operands], {})


def _called(node: ast.Call, numbers: dict[int, Number], side: Side) -> Any:
    key, takes, base = _function(node)
    nodes, literals = arguments_of(node, takes)
    twice = [word.arg for word in node.keywords if word.arg in takes.words[: max(len(node.args) - takes.data, 0)]]
    if twice:
        raise TypeError(f"{key}() got multiple values for argument {twice[0]!r}")
    operands = [_value(operand, numbers, side) for operand in (*base, *nodes)]
    words = {name: _argument(name, value, numbers) for name, value in literals.items()}
    if key == "I":
        return operands[0]
    if key in ("C", "hashed"):
        return side.coded(key, operands[0], words)
    if key in STATEFUL:
        return side.remembered(ast.unparse(node), key, operands[0], words)
    return side.apply(key, operands, words)


def _function(node: ast.Call) -> tuple[str, Any, list[ast.expr]]:
    """What is called, as the table of operations calls it, what it takes, and whose method it is."""
    function = node.func
    if isinstance(function, ast.Name):
        return function.id, FUNCTIONS[function.id], []
    assert isinstance(function, ast.Attribute)  # checked before
    if isinstance(function.value, ast.Name) and function.value.id in RESERVED:
        return f"np.{function.attr}", NUMPY[function.attr], []
    return f".{function.attr}", METHODS[function.attr], [function.value]


def _argument(name: str, node: ast.expr, numbers: dict[int, Number]) -> Any:
    """A literal, or the coding of a factor."""
    called = node.func if isinstance(node, ast.Call) else node
    if id(node) in numbers:
        return numbers[id(node)]
    if name != "contrasts" or not isinstance(called, ast.Name | ast.Attribute):
        return _literal(node, numbers)
    takes = CODINGS
    if isinstance(called, ast.Name):
        coding = TRANSFORMS[called.id]
    else:
        of_numpy = isinstance(called.value, ast.Name) and called.value.id == "np"
        coding = getattr(np if of_numpy else ContrastsRegistry, called.attr)
        takes = MATRICES if of_numpy else CONTRASTS
    if not isinstance(node, ast.Call):
        return coding
    key = called.id if isinstance(called, ast.Name) else called.attr
    _, literals = arguments_of(node, takes[key])
    return coding(**{word: _literal(value, numbers) for word, value in literals.items()})


def _literal(node: ast.expr, numbers: dict[int, Number]) -> Any:
    if id(node) in numbers:
        return numbers[id(node)]
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(one, numbers) for one in node.elts]
    assert isinstance(node, ast.Constant)  # checked before
    return node.value


@lru_cache(maxsize=4096)
def calls_of(expression: str) -> frozenset[str]:
    """Every call in an expression, as it is written."""
    return frozenset(ast.unparse(node) for node in ast.walk(tree_of(expression).body) if isinstance(node, ast.Call))


def remembers(expression: str) -> bool:
    """Whether an expression has a function that remembers the rows of the fit, such as ``center()``."""
    return any(call.split("(", 1)[0] in STATEFUL for call in calls_of(expression))


def looks_at_other_rows(tree: Tree) -> bool:
    """Whether the value of a row depends on other rows than those that are remembered."""
    calls = (node for node in ast.walk(tree.body) if isinstance(node, ast.Call))
    keys = (_function(call)[0] for call in calls if id(call) not in tree.numbers and not _is_coding(call))
    return any(key in OPERATIONS and not OPERATIONS[key].is_rowwise for key in keys)


def _is_coding(call: ast.Call) -> bool:
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    base = call.func.value if isinstance(call.func, ast.Attribute) else None
    of_contrasts = isinstance(base, ast.Name) and base.id == "contr"
    return name in CODINGS or of_contrasts or (name in MATRICES and isinstance(base, ast.Name) and base.id == "np")


@dataclass(slots=True, eq=False)
class Memory:
    """Columns of a table under safe names, and what expressions make of them; each is computed once.

    Attributes
    ----------
    table : DataFrame of n rows
        Numbers as float64, levels as ``category``.
    states : dict
        What functions such as ``center()`` remember, by their call; new ones are learned from the table.
    """

    table: pd.DataFrame
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    _found: dict[str, Any] = field(default_factory=dict)

    def value(self, text: str, *, is_column: bool) -> Any:
        """A column, or an expression."""
        if text not in self._found:
            if is_column and text not in self.table.columns:
                raise NameError(f"`{text}` is not present in the dataset or evaluation context.")
            self._found[text] = self.column(text) if is_column else evaluate(tree_of(text), self)
        return self._found[text]

    def column(self, name: str) -> Any:
        """An array of numbers, or a Series of levels."""
        if name not in self.table.columns:
            raise NameError(f"name {name!r} is not defined")
        series = self.table[name]
        return series.to_numpy() if isinstance(series.dtype, np.dtype) and series.dtype.kind in "biufc" else series

    def apply(self, key: str, operands: Sequence[Any], words: dict[str, Any]) -> Any:
        """As arrays; levels stay what they are."""
        made = OPERATIONS[key].memory(*operands, **words)
        if isinstance(made, pd.Series) and isinstance(made.dtype, np.dtype):
            return made.to_numpy()
        return made

    def remembered(self, call: str, function: str, operand: Any, words: dict[str, Any]) -> Any:
        """Formulaic's splines, polynomials and shifts."""
        made: Callable[..., Any] = TRANSFORMS[function]
        return made(operand, **words, _state=self.states.setdefault(call, {}))

    def coded(self, function: str, operand: Any, words: dict[str, Any]) -> Coded:
        """A factor whose columns are made when its levels are known."""
        asked = words.get("contrasts")
        coding = TreatmentContrasts() if asked is None else asked() if inspect.isclass(asked) else asked
        coding = coding if isinstance(coding, Contrasts) else CustomContrasts(coding)
        spans = bool(words.get("spans_intercept", function == "C"))
        if function == "hashed":
            made = TRANSFORMS["hashed"](operand, words["levels"])
            levels = tuple(range(words["levels"]))
            return Coded(made.__wrapped__, coding, levels, spans, is_remembered=False)
        values = operand.values if isinstance(operand, Coded) else operand
        known = tuple(words["levels"]) if words.get("levels") is not None else None
        return Coded(values, coding, known, spans)
