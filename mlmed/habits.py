"""Habits of users of R, pandas and patsy in formulas, and what to write here."""

from __future__ import annotations

import re
from collections.abc import Collection

from mlmed.allowed import CONSTANTS, NUMPY
from mlmed.names import FUNCTIONS

_FACTOR = "write C(g)"
_BEFORE = "make the column before the fit"
_NUMBERS = "columns of numbers are numbers already; write the column alone"

#: Calls by a bare name that are unknown or misleading here.
CALLS = {
    "lag": "lag() would shift the rows of the whole table, from one cluster into the next; add the column before the "
    "fit, within clusters and in the order of time, as in data.groupby('id')['x'].shift(1) of pandas",
    "float": "columns of numbers are double precision already; write the column without float()",
    "Q": "Q() quotes the name of a column; write it between quotes, Q('my x'), or in backticks, `my x`",
    "exp10": "exp10() is the tenth power in formulaic; write I(10**x)",
    "int": "int() is for single numbers; write np.trunc() or np.floor()",
    "factor": _FACTOR,
    "ordered": f"{_FACTOR}; an order of categories has no meaning for a predictor but in C(g, contr.poly)",
    "relevel": "write C(g, Treatment('level')) to choose the reference",
    "ifelse": "write np.where(x > 0, 1, 0), or the comparison alone, I(x > 0)",
    "if_else": "write np.where(x > 0, 1, 0), or the comparison alone, I(x > 0)",
    "cut": f"{_BEFORE}, as in data['k'] = pd.cut(data['x'], 3) of pandas",
    "c": "write a list, as in x.isin([1, 2])",
    "offset": "a predictor with a known coefficient is taken from the response, as in I(y - 2*x) ~ ...",
    "ns": "write cr(x, df=4, constraints='center'), a natural spline beside the constant",
    "pow": "write I(x**2)",
    **{
        name: f"write np.{name}(x): functions of numpy are called by their whole name"
        for name in sorted({*NUMPY} - FUNCTIONS)
    },
}

#: Functions of R with a dot, apart because Python does not read ``as`` and ``is`` as names.
_DOTTED = {
    "as.factor": _FACTOR,
    "as.ordered": _FACTOR,
    "as.character": _FACTOR,
    "as.numeric": f"{_NUMBERS}, and convert text before the fit",
    "as.double": f"{_NUMBERS}, and convert text before the fit",
    "as.integer": "write np.trunc(x)",
    "as.logical": "write a comparison, as in I(x != 0)",
    "is.na": f"rows with a missing value are left out, so the others have none; {_BEFORE}",
    "is.element": "write x.isin([1, 2])",
}
_DOTTED_CALL = re.compile(r"(?<![\w.])((?:as|is)\.[\w.]+)\s*\(")
#: Signs of R and their replacement: signs unknown to formulas, and signs unknown inside expressions only.
_SIGNS = (
    (r"%\*%", "%*% is R's product of matrices; the product of two columns is written I(x * z)"),
    (r":::?\s*[\w.]+\s*\(", "write the function without the package that R has it in, as in bs(x, df=4)"),
    (r"\w\$\w", "write the column alone, x in place of data$x"),
    (r"!(?!=)", "'not' is written as the opposite comparison, as in I(x != 2)"),
)
_SIGNS_INSIDE = (
    (r"%in%", "inside of an expression %in% is written x.isin([1, 2])"),
    (r"%/%", "%/% is written //, as in I(x // 2)"),
    (r"%%", "%% is written %, as in I(x % 2)"),
    (r"&&", "&& is written &, between comparisons in parentheses"),
    (r"\|\|", "|| is written |, between comparisons in parentheses"),
)

#: Packages of Python, which formulas do not have.
MODULES = {
    "numpy": "numpy",
    "math": "math",
    "cmath": "cmath",
    "pd": "pandas",
    "pandas": "pandas",
    "pl": "polars",
    "polars": "polars",
    "scipy": "scipy",
    "sp": "scipy",
    "stats": "scipy",
    "special": "scipy",
    "sm": "statsmodels",
    "smf": "statsmodels",
    "patsy": "patsy",
    "random": "random",
    "os": "os",
    "sys": "sys",
}
#: Names of numpy's functions in such packages.
_RENAMED = {"pow": "power", "fabs": "abs", "sign": "sign"}

#: Attributes of a column in pandas.
_PLAIN = "a column has its values already: write x alone"
_ATTRIBUTES = {
    **dict.fromkeys(
        ("array", "copy", "flatten", "ravel", "squeeze", "to_list", "to_numpy", "tolist", "values", "T"), _PLAIN
    ),
    "pow": "write I(x**2)",
    "fillna": "fill missing values before the fit",
    "notna": "rows with a missing value are left out, so the others have none",
    "isna": "rows with a missing value are left out, so the others have none",
    "replace": "write np.where(x == 9, 0, x), or make the column before the fit",
}


def hint_for_text(text: str, *, inside: bool) -> str:
    """What to write instead of unreadable text; empty if no known habit matches.

    ``inside``: whether it is an expression, in which ``||`` and ``%in%`` have no meaning.

    Examples
    --------
    >>> hint_for_text("as.factor(g)", inside=True)
    "as.factor() is R's; write C(g)"
    >>> hint_for_text("x +", inside=True)
    ''
    """
    outside = re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`", "''", text)
    called = _DOTTED_CALL.search(outside)
    if called:
        return f"{called[1]}() is R's; {_DOTTED.get(called[1], _BEFORE)}"
    signs = _SIGNS + (_SIGNS_INSIDE if inside else ())
    return next((said for pattern, said in signs if re.search(pattern, outside)), "")


def hint_for_module(base: str, name: str) -> tuple[str, str] | None:
    """What is wrong with ``base.name`` of a Python package, and what to write; None if ``base`` is no known package.

    Examples
    --------
    >>> hint_for_module("math", "log")
    ('functions of math have another name here', 'write np.log(x)')
    """
    package = MODULES.get(base)
    if package is None:
        return None
    own = _RENAMED.get(name, name)
    if own in NUMPY:
        return f"functions of {package} have another name here", f"write np.{own}(x)"
    instead = CALLS["cut"] if name in ("cut", "qcut") else _BEFORE
    name_of = base if base == package else f"{base} ({package})"
    return f"{name_of} is a package of Python, and formulas do not have it", instead


def hint_for_name(name: str, columns: Collection[str]) -> str | None:
    """What to write instead of an unknown name; None without a hint.

    Examples
    --------
    >>> hint_for_name("x.values", ["x", "y"])
    'a formula has no attributes of columns; write x, or make the column before the fit'
    >>> hint_for_name("np.log", ["x"]), hint_for_name("z", ["x"])
    ('np.log is a function of numpy; write np.log(x)', None)
    """
    head, dot, attribute = name.rpartition(".")
    if head == "np" and attribute in NUMPY:
        return f"{name} is a function of numpy; write {name}(x)"
    if head == "np" and attribute in CONSTANTS:
        return f"{name} is a number, which stands inside of an expression, as in I({name} * x)"
    if name in MODULES:
        return "functions of packages are not called in formulas, but those of numpy are, as np.log(x)"
    if dot and head in columns:
        return f"a formula has no attributes of columns; write {head}, or make the column before the fit"
    return None


def hint_for_attribute(name: str) -> str:
    """What to write instead of an attribute or method ``.name`` of a column; empty without a hint.

    Examples
    --------
    >>> hint_for_attribute("log"), hint_for_attribute("to_csv")
    ('write np.log(x)', '')
    """
    return _ATTRIBUTES.get(name) or (f"write np.{name}(x)" if name in NUMPY else "")
