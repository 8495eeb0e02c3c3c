"""Operations of formulas: one entry each, implemented for arrays in memory and for engines.

Where engines have no implementation, rows are fetched and computed in memory.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from mlmed.allowed import METHODS, NUMPY


@dataclass(frozen=True, slots=True)
class Operation:
    """Two implementations of one operation."""

    memory: Callable[..., Any]  #: For arrays and numbers; columns of levels are pandas Series.
    #: For expressions, of the kinds in ``takes``; None where engines differ or have none.
    engine: Callable[..., Any] | None = None
    #: {"numbers", "truths", "alike", "choice"}: Operands in an engine: numbers, truth values, two numbers or two texts,
    #: a truth value and two numbers.
    takes: str = "numbers"
    is_truth: bool = False  #: Whether it returns truth values.
    is_rowwise: bool = True  #: Whether the value of a row depends on this row only.


def _as_number(condition: Any) -> Any:
    return nw.when(condition).then(nw.lit(1.0)).otherwise(nw.lit(0.0))


def _chosen(condition: Any, one: Any, other: Any) -> Any:
    return nw.when(condition).then(one).otherwise(other)


def _even(e: Any) -> Any:
    """Round half to even, as NumPy does; engines round half away from zero."""
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
    """Count the edges below a value where edges ascend, and those above it where they descend, as NumPy does."""
    found, descending = nw.lit(0.0), len(bins) > 1 and bins[0] > bins[-1]
    for edge in bins:
        if descending:
            found = found + _as_number(e <= edge if right else e < edge)
        else:
            found = found + _as_number(e > edge if right else e >= edge)
    return found


def _sign(e: Any) -> Any:
    return _chosen(e > 0.0, nw.lit(1.0), _chosen(e < 0.0, nw.lit(-1.0), nw.lit(0.0)))


def _step(e: Any, half: Any) -> Any:
    return _chosen(e > 0.0, nw.lit(1.0), _chosen(e < 0.0, nw.lit(0.0), half))


def _xor(a: Any, b: Any) -> Any:
    return (a & ~b) | (b & ~a)


#: Functions that engines compute as NumPy does, by NumPy's name; others are computed in memory.
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
#: Functions that return truth values, and the kind of their operands.
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
#: Statistics of all rows, and ranks.
_OF_ROWS = frozenset({"mean", "median", "min", "max", "sum", "std", "var", "quantile", "percentile", "rank"})
#: Methods of pandas and their names in NumPy.
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
    """Refuse quotients and powers of two truth values, as pandas does."""

    def computed(a: Any, b: Any) -> Any:
        if _is_truth(a) and _is_truth(b):
            raise NotImplementedError(f"operator '{function.__name__}' not implemented for bool dtypes")
        return function(a, b)

    return computed


def _as_pandas(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """``&`` and ``|`` as in pandas: next to a truth value, a number is true if it is not 0."""

    def computed(a: Any, b: Any) -> Any:
        return function(pd.Series(a), b) if isinstance(a, np.ndarray) else function(a, pd.Series(b))

    return computed


def _is_truth(value: Any) -> bool:
    return getattr(value, "dtype", None) == np.bool_


def _minus(value: Any) -> Any:
    return ~value if _is_truth(value) else -value


#: By spelling: an operator (``u-`` and ``u+`` are unary), ``np.name``, a bare name, or ``.name``.
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
