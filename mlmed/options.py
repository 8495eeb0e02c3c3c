"""Words and numbers that users choose: the allowed words, and one check for each kind."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from functools import wraps
from numbers import Integral, Real
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, get_args

import numpy as np

from mlmed.errors import DataError, EffectError, FormulaError, MlmedError
from mlmed.text import LETTERS, shown

P = ParamSpec("P")
R = TypeVar("R")
#: Criterion of a linear mixed model.
Method = Literal["reml", "ml"]
METHODS: tuple[str, ...] = get_args(Method)
#: Covariance of the random effects of a block, and of the residuals of several equations.
Structure = Literal["unstructured", "diagonal", "identity", "exchangeable"]
STRUCTURES: tuple[str, ...] = get_args(Structure)
Residual = Literal["diagonal", "unstructured"]
RESIDUALS: tuple[str, ...] = get_args(Residual)
#: Family of a response.
Family = Literal["linear", "logit", "probit", "poisson"]
FAMILIES: tuple[str, ...] = get_args(Family)
#: Covariances of the estimates: model-based, cluster-robust, and heteroscedasticity-robust for ordinary regressions.
VcovKind = Literal["block", "joint"]
VCOV_KINDS: tuple[str, ...] = get_args(VcovKind)
RobustKind = Literal["CR0", "CR1", "CR2", "cluster"]
ROBUST_KINDS: tuple[str, ...] = get_args(RobustKind)
#: Values of ``vcov=`` for models with clusters.
ALL_KINDS = (*VCOV_KINDS, *ROBUST_KINDS)
HcKind = Literal["HC0", "HC1", "HC2", "HC3"]
HC_KINDS: tuple[str, ...] = get_args(HcKind)
#: Values of ``vcov=`` for independent rows; and all values.
ROW_KINDS = ("iid", *HC_KINDS)
VcovName = Literal[VcovKind, RobustKind, HcKind, "iid"]
VCOV_NAMES: tuple[str, ...] = get_args(VcovName)
#: What some of them are for, and why others do not have them.
UNLIKE = {
    VCOV_KINDS: "equations with random terms, and none has any",
    ROBUST_KINDS: "rows that depend on each other within clusters, and none are named (cluster='...')",
    ROW_KINDS: "rows that do not depend on each other, and here those of a cluster do",
}
#: Order of the delta method, and degrees of freedom.
Order = Literal["first", "second", "unbiased"]
ORDERS: tuple[str, ...] = get_args(Order)
Ddf = Literal["none", "satterthwaite", "kenward-roger", "residual"]
DDF_KINDS: tuple[str, ...] = get_args(Ddf)
#: Intervals of effects, and those of each mode.
Interval = Literal["delta", "monte-carlo", "product", "profile", "bootstrap"]
INTERVALS: tuple[str, ...] = get_args(Interval)
JointInterval = Literal["delta", "monte-carlo", "profile", "bootstrap"]
JOINT_INTERVALS: tuple[str, ...] = get_args(JointInterval)
PiecewiseInterval = Literal["delta", "monte-carlo", "product", "bootstrap"]
PIECEWISE_INTERVALS: tuple[str, ...] = get_args(PiecewiseInterval)
CausalInterval = Literal["delta", "monte-carlo", "bootstrap"]
CAUSAL_INTERVALS: tuple[str, ...] = get_args(CausalInterval)
ScaleInterval = Literal["delta", "monte-carlo"]
SCALE_INTERVALS: tuple[str, ...] = get_args(ScaleInterval)
SensitivityInterval = Literal["delta", "monte-carlo"]
SENSITIVITY_INTERVALS: tuple[str, ...] = get_args(SensitivityInterval)
#: How interval ends are computed from draws, and what a bootstrap resamples.
Ends = Literal["percentile", "bc", "bca", "basic", "normal"]
ENDS: tuple[str, ...] = get_args(Ends)
Resampled = Literal["case", "parametric", "residual"]
RESAMPLED: tuple[str, ...] = get_args(Resampled)
#: Predictions of the population, X beta, or of a cluster, X beta + Z u; and the target of their interval.
Of = Literal["population", "cluster"]
OF: tuple[str, ...] = get_args(Of)
PREDICTION_INTERVALS = ("confidence", "prediction")
#: Quantities whose densities a predictive check compares.
Density = Literal["value", "cluster-mean", "cluster-sd"]
DENSITIES: tuple[str, ...] = get_args(Density)
#: How causal effects draw random effects, and the effects of a sensitivity analysis.
RanefDraws = Literal["joint", "independent"]
RANEF_DRAWS: tuple[str, ...] = get_args(RanefDraws)
Sensitive = Literal["indirect", "direct"]
SENSITIVE: tuple[str, ...] = get_args(Sensitive)
SENSITIVITY_FORMULAS = ("exact", "medsens")
#: Levels of the variables of a simulated population.
Design = Literal["1-1-1", "2-1-1", "2-2-1"]
DESIGNS: tuple[str, ...] = get_args(Design)
#: Differences of the effects of routes.
ROUTE_DIFFERENCES = ("pairwise",)
#: Order of rows in the table of ``stack``.
StackOrder = Literal["stata", "equations"]
STACK_ORDERS: tuple[str, ...] = get_args(StackOrder)
#: Form of a summary.
STYLES = ("text", "stata")

#: Words of other packages (R's ``mediation``, statsmodels), and the likely words here.
ELSEWHERE = {
    **dict.fromkeys(("quasi-bayes", "quasi-bayesian", "quasi-bayesian monte carlo", "simulation"), ("monte-carlo",)),
    **dict.fromkeys(("robust", "robustse"), ("vcov", "HC3", "CR1")),
    **dict.fromkeys(("nonrobust", "model", "model-based"), ("iid", "block")),
    **dict.fromkeys(("control", "treated", "control-value", "treat-value"), ("contrast",)),
    "boot": ("bootstrap", "interval"),
}
#: Fewest letters of an abbreviation of a word.
BEGUN = 3
#: Most draws (replicates, starts), workers, and points of a curve; larger numbers are typing errors.
MOST, MOST_JOBS, MOST_POINTS = 10_000_000, 10_000, 100_000


def named(values: Iterable[Any]) -> str:
    """Join words with commas."""
    return ", ".join(map(str, values))


def one_of(
    value: Any, allowed: Iterable[str], what: str, *, error: type[MlmedError] = EffectError, also: str = ""
) -> str:
    """Return an allowed word; refuse anything else, tables and arrays too.

    Parameters
    ----------
    value : object
        The user's value. Only text is compared: an array has no truth value, a list cannot be looked up.
    allowed : iterable of str
        Allowed words.
    what : str
        Name of the argument.
    error : type
        Class of the refusal.
    also : str
        An allowed alternative to the words, such as "None".

    Raises
    ------
    error
        The value is no allowed word; the message lists them, with the closest one.

    Examples
    --------
    >>> one_of("ml", METHODS, "method")
    'ml'
    >>> one_of("case", STRUCTURES, "covariance", also="a mapping of label to one")
    Traceback (most recent call last):
    mlmed.errors.EffectError: covariance must be one of unstructured, diagonal, identity, exchangeable, or a mapping of
    label to one; found 'case'
    """
    words = tuple(allowed)
    if isinstance(value, str) and value in words:
        return str(value)
    kind = "" if value is None or isinstance(value, str) else f" ({type(value).__name__})"
    kind = "" if kind[2:-1] in shown(value).split() else kind
    meant = close_to(value, words)
    raise error(
        f"{what} must be one of {named(words)}{f', or {also}' if also else ''}; found {shown(value)}{kind}"
        + (f"; did you mean {meant!r}?" if meant else "")
    )


def close_to(value: Any, words: Collection[str]) -> str | None:
    """The word that a text probably stands for; None if none is close.

    Examples
    --------
    >>> close_to("REML", METHODS), close_to("diag", STRUCTURES), close_to("bayes", METHODS)
    ('reml', 'diagonal', None)
    >>> close_to("quasi-Bayes", INTERVALS), close_to("--control.value", ["--contrast"])
    ('monte-carlo', '--contrast')
    """
    if not isinstance(value, str) or not 1 < len(value) <= LETTERS:
        return None
    folded = {word.casefold().replace("_", "-"): word for word in words}
    asked = value.strip().casefold().replace("_", "-")
    stem = asked.lstrip("-")
    dashes = asked[: len(asked) - len(stem)]
    for word in ELSEWHERE.get(stem.replace(".", "-"), ()):
        if (option := f"{dashes}{word.casefold()}") in folded:
            return folded[option]
    found = difflib.get_close_matches(asked, folded, n=1, cutoff=0.75)
    begun = [word for word in folded if len(asked) >= BEGUN and word.startswith(asked)]
    meant = found or (begun if len(begun) == 1 else [])
    return folded[meant[0]] if meant else None


def check_vcov(value: Any, there: Collection[str] = ALL_KINDS) -> str:
    """Return the name of a covariance that a model has (by default a model with clusters); refuse others.

    Examples
    --------
    >>> check_vcov("CR2")
    'CR2'
    >>> check_vcov("HC3")
    Traceback (most recent call last):
    mlmed.errors.EffectError: vcov='HC3' is for rows that do not depend on each other, and here those of a cluster do;
    use one of block, joint, CR0, CR1, CR2, cluster
    """
    if isinstance(value, str) and value in VCOV_NAMES and value not in there:
        kinds = next(kinds for kinds in UNLIKE if value in kinds)
        raise EffectError(f"vcov={value!r} is for {UNLIKE[kinds]}; use one of {named(there)}")
    return one_of(value, there, "vcov")


def is_whole(value: Any) -> bool:
    """Whether it is an integer of Python or NumPy; truth values are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is one finite number within the range of floats; truth values are not."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def is_one_value(value: Any) -> bool:
    """Whether it is a valid cell of a column: one number, text, date or truth value, not missing."""
    if isinstance(value, str | bytes | bool | date | timedelta):
        return bool(value == value)  # False for NaT
    return is_number(value) or (isinstance(value, Decimal) and value.is_finite()) or type(value).__name__ == "bool_"


def refuse_given(why: str, given: Mapping[str, Any]) -> None:
    """Refuse options that were given but are not used."""
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise EffectError(f"{why}; leave out {', '.join(names)}")


def check_count(
    value: Any,
    of: str,
    *,
    name: str = "n",
    least: int = 1,
    most: int = MOST,
    error: type[MlmedError] = EffectError,
) -> int:
    """Check a number of draws, replicates or points."""
    if not is_whole(value) or value < least:
        raise error(f"{name} is a number of {of}, a whole number from {least}; found {shown(value)}")
    if value > most:
        raise error(f"{name} is a number of {of}, at most {most:,}; found {shown(value)}")
    return int(value)


def check_seed(value: Any, what: str, *, error: type[MlmedError] = EffectError) -> int:
    """Check a seed; ``what``: the procedure that draws, for messages."""
    if value is None:
        raise error(f"{what} draws random numbers: give a seed, as in seed=1, to get them again")
    if not is_whole(value) or value < 0:
        raise error(f"seed is a whole number from 0, as in seed=1, of which generators are made; found {shown(value)}")
    return int(value)


def check_jobs(value: Any, *, error: type[MlmedError] = EffectError) -> int | None:
    """Check a number of workers; negative ones count from the number of cores, as in joblib."""
    if value is None:
        return None
    if not is_whole(value) or value == 0 or abs(int(value)) > MOST_JOBS:
        raise error(
            f"n_jobs is a number of workers: 1 for none beside this process, -1 for one per core; found {shown(value)}"
        )
    return int(value)


#: Keywords whose meaning changed: the new meaning, the keyword for the old one, and its words.
MEANINGS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "level": ("the coverage of an interval", "of", OF),
    "method": ("the criterion of a fit", "ends", ENDS),
}


def own_words(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function to refuse ``level="cluster"`` and ``method="bca"``, naming ``of`` and ``ends``."""

    @wraps(function)
    def asked(*args: P.args, **kwargs: P.kwargs) -> R:
        for word, (meaning, meant, words) in MEANINGS.items():
            value = kwargs.get(word)
            if isinstance(value, str) and value in words:
                raise EffectError(f"{word} is {meaning}; write {meant}={value!r}")
        return function(*args, **kwargs)

    return asked


def check_level(level: Any, name: str = "level") -> float:
    """Check a coverage, a proportion; ``name``: the caller's argument."""
    if not isinstance(level, float | np.floating) or not 0.0 < level < 1.0:
        raise EffectError(f"{name} must be a proportion between 0 and 1, such as 0.95; found {shown(level)}")
    if not 0.5 + float(level) / 2.0 < 1.0:
        raise EffectError(f"{name} {level!r} cannot be told from 1; use one such as 0.999")
    return float(level)


def check_number(value: Any, name: str, *, error: type[MlmedError] = EffectError) -> float:
    """Check a finite number."""
    if not is_number(value):
        raise error(f"{name} must be a number (finite, not missing); found {shown(value)}")
    return float(value)


def check_flag(value: Any, name: str, *, error: type[MlmedError] = EffectError) -> bool:
    """Check for True or False, of Python or NumPy; anything else, such as "no", would mislead."""
    if not isinstance(value, bool) and type(value).__name__ not in ("bool", "bool_"):
        raise error(f"{name} must be True or False; found {shown(value)}")
    return bool(value)


def check_text(value: Any, name: str, of: str, *, error: type[MlmedError] = EffectError) -> str:
    """Check a name; ``of``: what it names."""
    if not isinstance(value, str):
        raise error(f"{name} is the name of {of}; found {shown(value)}. Give the name, which is text")
    return str(value)


def check_formulas(value: Any) -> list[str]:
    """One formula or several as a list; generators are refused, as they can be read only once."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Sequence):
        raise FormulaError(
            f"a formula is text such as 'y ~ x + (1 + x | id)', or a list of such texts; found {type(value).__name__}"
        )
    if not len(value):
        raise FormulaError("no formula was given; write one such as 'y ~ x + (1 + x | id)'")
    return list(value)


def several(value: Any) -> list[Any]:
    """The values of a list, or a single value as a list; text and possibly endless iterables are single values."""
    is_list = isinstance(value, Collection) and getattr(value, "shape", None) != ()
    return list(value) if is_list and not isinstance(value, str | bytes) else [value]


def check_path(value: Any, name: str, *, error: type[MlmedError] = DataError) -> str | Path:
    """Check a path."""
    if not isinstance(value, str | PathLike) or not isinstance(fspath(value), str):
        raise error(f"{name} is the path of a file, text or a Path; found {shown(value)}")
    text = str(fspath(value))
    if not text.strip() or "\0" in text or any("\ud800" <= letter <= "\udc7f" for letter in text):
        raise error(f"{name}={shown(text)} cannot be the path of a file; give another one")
    return value if isinstance(value, str) else Path(value)


def check_list(value: Any, name: str, of: str, *, error: type[MlmedError] = EffectError) -> list[Any]:
    """Several values as a list; text, mappings and possibly endless iterables are refused."""
    counted = isinstance(value, Collection) and getattr(value, "shape", None) != ()
    if not counted or isinstance(value, str | bytes | Mapping):
        raise error(f"{name} is a list of {of}; found {shown(value)}")
    return list(value)


def check_mapping(value: Any, name: str, example: str, *, error: type[MlmedError] = EffectError) -> dict[str, Any]:
    """A mapping with text keys as a dict; empty for None."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise error(f"{name} is a mapping such as {example}; found {shown(value)}")
    for key in value:
        if not isinstance(key, str):
            raise error(f"{name} is a mapping of names, such as {example}; found the name {shown(key)}")
    return dict(value)


def check_own_name(name: str, columns: Collection[str], what: str) -> None:
    """Refuse a user's name that clashes with a column of the table."""
    if name in columns:
        raise EffectError(
            f"{what} called {name!r} cannot be told from a column of the table, which has {named(columns)}; rename it "
            "in the data and fit again"
        )
