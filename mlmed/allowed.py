"""What formulas can call: the one list of functions, methods and constants, with what each of them takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
from formulaic.transforms import ContrastsRegistry

__all__ = [
    "A_FLAG",
    "A_LIST",
    "A_NUMBER",
    "A_TEXT",
    "A_WHOLE",
    "CODINGS",
    "CONSTANTS",
    "CONTEXT",
    "CONTRASTS",
    "FUNCTIONS",
    "LITERALS",
    "MATRICES",
    "METHODS",
    "NOTHING",
    "NUMPY",
    "OTHER_ROWS",
    "STATEFUL",
    "Takes",
]


@dataclass(frozen=True, slots=True)
class Takes:
    """Arguments of a function or method.

    Attributes
    ----------
    data : int
        How many arguments may be expressions of columns; they come first and have no names.
    words : tuple of str
        Names of those that are literals (numbers, text, lists of these), in their order; by position or by name.
    first : str
        The name by which the first argument may be given; empty if it has none.
    least : int
        How many arguments there are at least.
    most : int or None
        How many there are at most where the words name some of the data; None for data and words together.
    """

    data: int
    words: tuple[str, ...] = ()
    first: str = ""
    least: int = 1
    most: int | None = None

    @property
    def largest(self) -> int:
        """How many arguments it takes at most."""
        return self.data + len(self.words) if self.most is None else self.most

    @property
    def counted(self) -> str:
        """How many arguments it takes, in words."""
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
#: One number of a column; a predictor must not depend on other rows (mlmed.data.rowwise), a response may.
_STATISTICS = {
    **dict.fromkeys(("mean", "median", "min", "max", "sum"), Takes(1)),
    **dict.fromkeys(("std", "var"), Takes(1, ("ddof",))),
    "quantile": Takes(1, ("q",)),
}

#: Functions of numpy, as np.name(). No more arguments than these: another one would be an array to write into.
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

#: Functions that are called by a bare name.
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

#: Those that remember the rows of the fit; the text of the call names what they remember, so it is bounded more.
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

#: Codings of a factor that are called by a bare name, or named without parentheses: C(g, Sum).
CODINGS: Mapping[str, Takes] = _table(
    Treatment=Takes(0, ("reference",), least=0),
    Sum=Takes(0, least=0),
    Helmert=Takes(0, ("reverse", "scale"), least=0),
    Diff=Takes(0, ("backward",), least=0),
    Poly=Takes(0, ("scores",), least=0),
)
#: The same as contr.name.
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
#: What a literal argument is, by its name, or by the function and its name; what is not here may be any literal.
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

#: Attributes by which a row takes its value from other rows; named so that the message says so.
OTHER_ROWS = frozenset(
    {
        "accumulate", "agg", "aggregate", "apply", "at", "bfill", "cummax", "cummin", "cumprod", "cumsum", "diff",
        "drop_duplicates", "duplicated", "ewm", "expanding", "ffill", "groupby", "head", "iat", "iloc", "index",
        "interpolate", "loc", "nunique", "pct_change", "reduce", "roll", "rolling", "sample", "shift", "size",
        "sort_values", "tail", "transform", "unique", "value_counts",
    }
)  # fmt: skip


def _context() -> Mapping[str, Any]:
    """What the names mean to Python, in front of formulaic's own table: tests evaluate the same formulas with it."""
    names = {*NUMPY, *CONSTANTS, *MATRICES}
    contrasts = SimpleNamespace(**{name: getattr(ContrastsRegistry, name) for name in CONTRASTS})
    numpy = SimpleNamespace(**{name: getattr(np, name) for name in sorted(names)})
    return MappingProxyType({"np": numpy, "contr": contrasts, "abs": abs, "round": round})


CONTEXT = _context()
