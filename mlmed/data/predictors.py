"""Check the predictors of an equation and summarize them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from formulaic.parser.types import Factor, Term
from numpy.typing import ArrayLike, NDArray

from mlmed.data.evaluation import Reading, reading_of
from mlmed.data.layout import Known
from mlmed.data.values import is_numeric, refusal_of_text, value_counts, written_numbers
from mlmed.errors import DataError, FormulaError
from mlmed.formula import Equation, formula_of, term_variables
from mlmed.names import display_name, safe_name
from mlmed.text import shorten

Array = NDArray[np.float64]

#: Most levels of a factor of numbers, C(k), that are kept.
MOST_LEVELS = 1000
#: Most values of a transformed variable that are all kept; of more, a part of more than this many.
MOST_VALUES = 200
#: A mean this close to an observed value, as a share of the largest, equals it up to rounding.
ROUNDED = 1e-12
#: Calls that only shift and scale a column.
_STRAIGHT = re.compile(r"(?:center|scale|standardize)\(\w+\)")


def known_of(equation: Equation, table: Mapping[str, pd.Series]) -> Known:
    """Summaries of the predictors of an equation over complete rows, encodable and under safe names."""
    typical: dict[str, Any] = {}
    spread: dict[str, float] = {}
    levels: dict[str, tuple[Any, ...]] = {}
    observed: dict[str, tuple[float, ...]] = {}
    coded, transformed = coded_variables(equation), transformed_variables(equation)
    for name in sorted(equation.predictors):
        column = table[safe_name(name)]
        if isinstance(column.dtype, pd.CategoricalDtype):
            levels[name] = tuple(column.cat.categories)
        elif name in coded:
            found = np.unique(column.to_numpy(dtype=np.float64))
            levels[name] = tuple(map(float, found[:MOST_LEVELS]))
        else:
            numbers = column.to_numpy(dtype=np.float64)
            typical[name], spread[name] = _mean_and_sd(numbers)
            if name in transformed:
                typical[name] = snapped(typical[name], numbers)
                observed[name] = some_values(numbers, typical[name])
        typical.setdefault(name, levels.get(name, (None,))[0])
    return Known(typical, spread, levels, observed)


def _mean_and_sd(values: Array) -> tuple[float, float]:
    mean = float(values.mean())
    centred = values - mean
    with np.errstate(over="ignore"):
        return mean, float(np.sqrt(centred @ centred / max(len(values) - 1, 1)))


def some_values(values: Array, mean: float) -> tuple[float, ...]:
    """The distinct values, ascending; a representative part if they are more than ``MOST_VALUES``.

    The part has the ends, the neighbours of the mean, the most frequent values and evenly spaced ones of the others.
    """
    found = np.unique(values)
    if len(found) > MOST_VALUES:
        frequent = np.quantile(values, np.linspace(0.0, 1.0, MOST_VALUES), method="nearest")
        spaced = found[np.linspace(0, len(found) - 1, MOST_VALUES + 1, dtype=int)]
        above = int(np.searchsorted(found, mean))
        around = found[max(above - 1, 0) : above + 1]
        found = np.unique(np.concatenate([frequent, spaced, around]))
    return tuple(map(float, found))


def are_few(values: Collection[float]) -> bool:
    """Whether ``some_values`` kept all observed values."""
    return len(values) <= MOST_VALUES


def snapped(mean: float, values: ArrayLike) -> float:
    """The mean, or the observed value equal to it up to rounding (0.2 for 0.1, 0.2 and 0.3), so that steps see it."""
    numbers = np.asarray(values, dtype=np.float64)
    if not numbers.size:
        return mean
    nearest = float(numbers[np.abs(numbers - mean).argmin()])
    return nearest if abs(nearest - mean) <= ROUNDED * np.abs(numbers).max() else mean


@lru_cache(maxsize=1024)
def transformed_variables(equation: Equation) -> frozenset[str]:
    """Predictors that a term transforms beyond shift and scale: ``np.log(x)``, ``I(x > 0)``."""
    texts = [equation.fixed, *(term.formula for term in equation.random)]
    return transformed_in(term for text in texts for term in formula_of(text))


def transformed_in(terms: Iterable[Term]) -> frozenset[str]:
    """Variables that any of the terms transforms."""
    factors = [factor for term in terms for factor in term.factors]
    return frozenset().union(*(term_variables(Term([factor])) for factor in factors if not _is_straight(factor)))


def _is_straight(factor: Factor) -> bool:
    """Whether a factor is a plain column, possibly shifted and scaled."""
    return factor.eval_method.value != "python" or _STRAIGHT.fullmatch(factor.expr) is not None


@lru_cache(maxsize=1024)
def coded_variables(equation: Equation) -> frozenset[str]:
    """Variables that C() turns into factors, as in ``C(k)``, but not ``C(k > 1)``."""
    return frozenset(display_name(name) for read in _readings(equation) for name in read.factors if name)


@lru_cache(maxsize=1024)
def called_functions(equation: Equation) -> frozenset[str]:
    """Functions of an equation that remember the rows of the fit, such as ``center``, and ``hashed``."""
    return frozenset().union(*(read.functions for read in _readings(equation, equation.response)))


def _readings(equation: Equation, *more: str) -> list[Reading]:
    texts = (equation.fixed, *(term.formula for term in equation.random), *(f"0 + {text}" for text in more))
    factors = (factor for text in texts for term in formula_of(text) for factor in term.factors)
    return [reading_of(factor.expr) for factor in factors if factor.eval_method.value == "python"]


def check_predictors(equation: Equation, table: Mapping[str, pd.Series]) -> None:
    """Refuse predictors that are neither numbers nor a factor, and factors that cannot be meant."""
    coded = coded_variables(equation)
    for name in sorted(equation.predictors):
        column = table[safe_name(name)]
        if isinstance(column.dtype, pd.CategoricalDtype):
            levels = column.cat.categories
            if name not in coded:
                refuse_written(name, levels, value_counts(column))
            if len(levels) == 1:
                raise DataError(
                    f"the predictor {name!r} is constant ({levels[0]}) in equation {equation.name}; remove it"
                )
            refuse_many_levels(name, list(levels), len(column))
        elif is_numeric(column):
            if name in coded:
                refuse_rounded_levels(name, float(column.abs().max()))
        else:
            raise DataError(
                f"column {name!r} has the type {column.dtype} (first value {str(column.iloc[0])!r}), which is neither "
                "numbers nor text; convert it to numbers"
            )


def refuse_written(name: str, levels: Iterable[Any], counts: Mapping[Any, int], *, more: bool = False) -> None:
    """Refuse a factor of numbers that were read as text; ``more``: there are other levels, too."""
    if (found := written_numbers(levels)) is not None:
        said = refusal_of_text(found, name, counts, more=more)
        raise DataError(f"the predictor {said}, or write C({name}) if it is a factor on purpose")


def level_count(equation: Equation, table: Mapping[str, pd.Series]) -> int:
    """Total number of levels of all factors of an equation; ``table``: encodable, complete rows."""
    coded, counts = coded_variables(equation), []
    for name in equation.predictors:
        column = table[safe_name(name)]
        if isinstance(column.dtype, pd.CategoricalDtype):
            counts.append(len(column.cat.categories))
        elif name in coded:
            counts.append(int(column.nunique()))
    return sum(counts)


def refuse_many_levels(name: str, levels: Sequence[Any], rows: int) -> None:
    """Refuse a factor that has a level for nearly every row."""
    if len(levels) > max(10, rows // 2):
        raise DataError(
            f"column {name!r} is text with {len(levels)} different values ({shorten(levels, 3)}); if these are "
            "numbers (decimal commas?), convert them; a factor cannot have that many levels"
        )


def refuse_rounded_levels(name: str, largest: float) -> None:
    """Refuse a factor of numbers so large that different levels become one float."""
    if largest >= 2.0**53:
        raise DataError(
            f"C({name}) is a factor of numbers of 2^53 and more (up to {largest:.6g}), where different whole numbers "
            "become the same float; convert the column to text"
        )


def check_fixed(equation: Equation, names: Sequence[str]) -> None:
    """Refuse an equation without fixed effects."""
    if not len(names):
        raise FormulaError(f"{equation.text!r} has no fixed effect; write at least an intercept, 1")


def check_random(equation: Equation, names: list[str]) -> None:
    """Refuse an effect in two random terms."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise FormulaError(
            f"{equation.text!r} has the random effect {', '.join(twice)} in two terms; their variances cannot be told "
            "apart (write (0 + x | id) for a slope without another intercept)"
        )
