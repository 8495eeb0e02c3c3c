"""What ``causal`` is asked, checked before and after the data are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from mlmed.data.design import two_levels
from mlmed.data.layout import EquationLayout
from mlmed.data.predictors import coded_variables
from mlmed.data.values import refusal_of_text, value_counts, written_numbers
from mlmed.effects.moderators import refuse_unreached
from mlmed.effects.slopes import as_number
from mlmed.errors import DataError, EffectError, FormulaError
from mlmed.formula import Equation, formula_variables
from mlmed.options import (
    ALL_KINDS,
    FAMILIES,
    METHODS,
    ROBUST_KINDS,
    ROW_KINDS,
    VCOV_KINDS,
    check_mapping,
    check_text,
    check_vcov,
    is_one_value,
    one_of,
)
from mlmed.results.causal.fit import Errors
from mlmed.text import listed, shorten, shown, typed

__all__ = ["check_at", "check_equations", "check_errors", "check_families", "treatment_values"]


def check_families(mediator: Equation, outcome: Equation, family_m: str, family_y: str, method: str) -> None:
    """Refuse unknown families, random terms beside a family other than linear, and a criterion nobody uses."""
    for name, equation, family in (("family_m", mediator, family_m), ("family_y", outcome, family_y)):
        one_of(family, FAMILIES, name)
        if equation.random and family != "linear":
            raise EffectError(
                f"{equation.text!r} has a random term and {name}={family!r}; mixed models are fitted here for linear "
                "responses only. Leave out the random term and give cluster=, or use family 'linear'"
            )
    one_of(method, METHODS, "method")
    if method != "reml" and not mediator.random and not outcome.random:
        raise EffectError(
            f"method={method!r} is a criterion of mixed models, and no equation has a random term; leave it out"
        )


def check_equations(mediator: Equation, outcome: Equation) -> None:
    """Refuse equations that do not make a chain treatment -> mediator -> outcome."""
    if mediator.name not in formula_variables(mediator.response) or len(formula_variables(mediator.response)) != 1:
        raise FormulaError(
            f"the mediator {mediator.name} is computed in the formula; effects through it are those of a column, so "
            "make that column before the fit and use it in both equations"
        )
    if mediator.name == outcome.name:
        raise FormulaError(f"both equations have the response {outcome.name}; mediator and outcome must differ")
    if formula_variables(outcome.response) & mediator.predictors:
        raise FormulaError(
            f"the outcome {outcome.name} is a predictor of the mediator {mediator.name}; the equations must not feed "
            "back into each other, so remove it there"
        )
    if mediator.name not in formula_variables(outcome.fixed):
        raise FormulaError(
            f"the mediator {mediator.name} is not in the fixed part of the outcome equation {outcome.text!r}, so "
            f"nothing can flow through it; add it, as in '{outcome.name} ~ {mediator.name} + ...'"
        )
    groups = {
        frozenset(term.group): ":".join(term.group) for equation in (mediator, outcome) for term in equation.random
    }
    if len(groups) > 1:
        raise FormulaError(
            f"the random terms belong to different cluster variables ({' and '.join(groups.values())}); effects are "
            "averaged over one kind of cluster, so use the same in all of them"
        )


def check_errors(vcov: str | None, cluster: Any, group: str, mixed: Iterable[str], *, plain: bool) -> Errors:
    """Which covariance is meant; refuse one that an equation does not have, instead of ignoring what was asked."""
    names = list(mixed)
    if cluster is not None:
        check_text(cluster, "cluster", "a column")
    if cluster is not None and names and cluster != group:
        raise EffectError(
            f"cluster={shown(cluster)}, but the random terms of {' and '.join(names)} belong to {group}; use "
            f"cluster={group!r}"
        )
    if vcov is None:
        return Errors("CR1" if cluster is not None else "block" if names else "iid", cluster)
    if cluster is not None and isinstance(vcov, str) and vcov in (*VCOV_KINDS, *ROW_KINDS):
        raise EffectError(
            f"vcov={shown(vcov)} and cluster={shown(cluster)} are two answers to one question; give one of them"
        )
    kind = check_vcov(vcov, ALL_KINDS if names else ROW_KINDS if cluster is None else ROBUST_KINDS)
    if kind == "CR2" and plain:
        raise EffectError(
            "vcov='CR2' is for linear mixed models, not for an ordinary regression on rows that depend on each other "
            "within clusters; use 'CR1'"
        )
    return Errors(kind, (cluster or group) if kind in ROBUST_KINDS else None)


def treatment_values(
    column: pd.Series, contrast: tuple[Any, Any] | None, equations: Iterable[Equation]
) -> tuple[Any, Any]:
    """The two values of the treatment as the formulas see them: levels of a factor, or numbers.

    Without a contrast they are the two values that a treatment has, the lower first, and 0 and 1 where it has more.

    Raises
    ------
    DataError
        Values that the data do not have, or beyond their range.
    """
    name = str(column.name)
    remedy = "say which two values to compare with contrast=(control, treated)"
    is_factor = isinstance(column.dtype, pd.CategoricalDtype)
    if is_factor:
        known: list[Any] = [level for level in column.cat.categories if (column == level).any()]
    elif not pd.api.types.is_numeric_dtype(column.dtype):
        raise DataError(
            f"the treatment {name} has the type {column.dtype} (first value {shown(column.iloc[0])}), which is neither "
            "numbers nor text; convert it"
        )
    else:
        known = np.unique(column.to_numpy(dtype=np.float64)).tolist()
    coded = any(name in coded_variables(equation) for equation in equations)
    if not coded and (found := written_numbers(known)) is not None:
        raise DataError(f"the treatment {refusal_of_text(found, name, value_counts(column))}")
    if len(known) < 2:
        raise DataError(
            f"the treatment {name} has the value {typed(known[0])} in every row that can be used, so there is nothing "
            "to compare; check the data, or what was left out"
        )
    usual = (0, 1) if len(known) > 2 or set(known) == {0, 1} else known  # the categories of 0 and 1 may be reversed
    pair = (usual[0], usual[1]) if contrast is None else contrast
    if not is_factor:
        pair = _as_number(name, pair[0]), _as_number(name, pair[1])
    if is_factor or coded or two_levels(column) is not None:
        absent = [value for value in pair if value not in known]
        if absent:
            there = shorten(map(typed, known))
            raise DataError(
                f"the treatment {name} never has the value {typed(absent[0])} (its values are {there}), so nothing is "
                f"known of it; {remedy}"
            )
    elif not all(known[0] <= value <= known[-1] for value in pair):
        outside = next(value for value in pair if not known[0] <= value <= known[-1])
        raise DataError(
            f"the treatment {name} goes from {known[0]:g} to {known[-1]:g}, so the value {outside:g} would be an "
            f"extrapolation; {remedy}"
        )
    return pair


def _as_number(name: str, value: Any) -> float:
    if as_number(value) is None:
        raise DataError(f"contrast has {shown(value)}, but the treatment {name} holds numbers; give two numbers")
    return float(value)


def check_at(
    at: Mapping[str, Any] | None, layouts: tuple[EquationLayout, EquationLayout], treatment: str, mediator: str
) -> dict[str, Any]:
    """Values of covariates: known columns that are neither treatment nor mediator, values that they can have."""
    at = check_mapping(at, "at", "at={'age': 30}")
    known = {name for layout in layouts for name in layout.typical} - {treatment, mediator}
    levels = {name: found for layout in layouts for name, found in layout.levels.items()}
    out: dict[str, Any] = {}
    for name, value in at.items():
        if name in (treatment, mediator):
            role = "treatment" if name == treatment else "mediator"
            raise EffectError(f"at names {name}, the {role}: effects are those of changing it. Leave it out of at")
        if name not in known:
            raise EffectError(f"at names {name!r}, which no equation uses; choose among {listed(known)}")
        if name in levels:
            if not is_one_value(value) or value not in levels[name]:
                raise EffectError(
                    f"at gives {name} the value {shown(value)}; it must be one of {shorten(map(typed, levels[name]))}"
                )
            out[name] = value
            continue
        number = as_number(value)
        if number is None:
            raise EffectError(f"at gives {name} the value {shown(value)}; it must be a number (not nan or missing)")
        out[name] = number
    refuse_unreached(out, layouts)
    return out
