"""Potential-outcome mediation: two regressions and the effects between potential outcomes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from mlmed.data.design import two_levels
from mlmed.data.predictors import coded_variables
from mlmed.data.values import refusal_of_text, value_counts, written_numbers
from mlmed.effects.counterfactual import CounterfactualCatalogue
from mlmed.effects.setting import check_linear
from mlmed.effects.slopes import as_number
from mlmed.errors import DataError, EffectError, FormulaError
from mlmed.fit.glm import PlainFit
from mlmed.fit.lmm import known_columns
from mlmed.fit.same_rows import SameRowsFit, fit_on, level_notes, shared_rows
from mlmed.formula import Equation, formula_variables, parse_equation
from mlmed.notes import warns
from mlmed.options import (
    ALL_KINDS,
    FAMILIES,
    METHODS,
    ROBUST_KINDS,
    ROW_KINDS,
    VCOV_KINDS,
    Family,
    Method,
    VcovName,
    check_text,
    check_vcov,
    one_of,
)
from mlmed.results.remarks import table_notes
from mlmed.results.results import Results
from mlmed.system.roles import check_contrast, treatment_of
from mlmed.text import shorten, shown, typed


@warns
def causal(
    mediator: str,
    outcome: str,
    data: Any,
    *,
    treatment: str | None = None,
    contrast: tuple[Any, Any] | None = None,
    family_m: Family = "linear",
    family_y: Family = "linear",
    vcov: VcovName | None = None,
    cluster: str | None = None,
    method: Method = "reml",
) -> Results:
    """Fit mediator and outcome separately and define effects by potential outcomes (Imai, Keele & Tingley, 2010).

    Only ``effects()`` and its like draw random numbers. docs/causal.md defines the effects and their assumptions.

    Parameters
    ----------
    mediator, outcome : str
        Formulas ``"m ~ x + w"`` and ``"y ~ m + x + w"``. ``y ~ m * x`` lets the effect of the mediator depend on the
        treatment. With a random term, ``(1 + x | id)``, the equation is a linear mixed model.
    data : dataframe
        pandas, Polars, Arrow, or anything narwhals reads; never modified. Both equations use the rows that are
        complete for both; rows left out are counted and reported.
    treatment : str, optional
        Column of the treatment; needed if the mediator equation has more than one predictor.
    contrast : pair, optional
        The two values of the treatment to compare, (control, treated): numbers, or levels of a factor. By default a
        treatment with two values compares them, the lower (or first level) with the upper; others compare 0 and 1.
    family_m, family_y : {"linear", "logit", "probit", "poisson"}
        Families of mediator and outcome.
    vcov : {"iid", "HC0", "HC1", "HC2", "HC3", "block", "joint", "CR0", "CR1", "CR2", "cluster"}, optional
        Covariance of the coefficients. Without random terms: the model's own (``iid``, the default) or ``HC0`` to
        ``HC3``, robust to unequal variances; with ``cluster=``, ``CR0`` or ``CR1`` (also called ``cluster``). With
        random terms: ``block`` (default), ``joint``, ``CR0`` to ``CR2`` or ``cluster``, as in ``mixed``. An ordinary
        regression beside a mixed model uses its own for ``block`` and ``joint``, and has no ``CR2``.
    cluster : str, optional
        Column that names clusters of dependent rows: implies ``vcov="CR1"`` unless given, and a bootstrap of clusters.
        With random terms it must be their cluster variable.
    method : {"reml", "ml"}
        Criterion of mixed models.

    Returns
    -------
    Results
        ``effects()`` has ACME, ADE, the total effect and the proportion mediated.

    Raises
    ------
    FormulaError
        A formula that cannot be read, equations that do not fit together, or an unknown word.
    DataError
        A column is missing or of the wrong type, or no row is complete.
    NotIdentifiedError
        The data do not determine the parameters.
    EffectError
        An option that is unknown or that these equations do not use.

    Examples
    --------
    >>> import numpy as np
    >>> import mlmed
    >>> rng = np.random.default_rng(1)
    >>> x = np.tile([0.0, 1.0], 100)
    >>> m = x + rng.normal(size=200)
    >>> y = (0.5 * m + rng.normal(size=200) > 0).astype(int)
    >>> fit = mlmed.causal("m ~ x", "y ~ m + x", {"x": x, "m": m, "y": y}, family_y="probit", vcov="HC3")
    >>> table = fit.effects("monte-carlo", n=1000, seed=1).set_index("term")
    >>> round(float(table.loc["acme", "estimate"]), 2)
    0.17
    """
    columns = known_columns(data)
    first, second = parse_equation(mediator, columns), parse_equation(outcome, columns)
    _check_families(first, second, family_m, family_y, method)
    _check_equations(first, second)
    name = treatment_of(first, treatment)
    mixed = [equation for equation in (first, second) if equation.random]
    group = ":".join(mixed[0].random[0].group) if mixed else ""
    plain = any(not equation.random for equation in (first, second))
    usual = _usual_vcov(vcov, cluster, group, [equation.name for equation in mixed], plain=plain)
    pair = check_contrast(contrast)
    rows = shared_rows((first, second), data, cluster)
    catalogue = CounterfactualCatalogue(name, _treatment_values(rows.table[name], pair, (first, second)))
    fit = SameRowsFit.of(
        fit_on(rows, first, family_m, method=method, usual=usual),
        fit_on(rows, second, family_y, method=method, usual=usual),
        rows,
        usual,
    )
    chain, grouping, fitted = catalogue.chain(fit), rows.grouping, fit.components["mediator"]
    layouts = [part.layout for part in chain.parts]
    seen = table_notes(data, (first, second), layouts, None if grouping is None else grouping.clusters)
    values = fitted.design.y if isinstance(fitted, PlainFit) else rows.table[first.name].to_numpy(dtype=np.float64)
    check_linear(chain, values)
    return Results(fit, catalogue, (*level_notes(fitted, rows, in_clusters=usual in ROBUST_KINDS), *seen))


def _check_families(mediator: Equation, outcome: Equation, family_m: str, family_y: str, method: str) -> None:
    """Refuse unknown families, random terms in a family other than linear, and a criterion without mixed models."""
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


def _check_equations(mediator: Equation, outcome: Equation) -> None:
    """Refuse equations that form no chain treatment -> mediator -> outcome."""
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


def _usual_vcov(vcov: str | None, cluster: Any, group: str, mixed: Iterable[str], *, plain: bool) -> str:
    """Choose the covariance; refuse one that an equation does not have."""
    names = list(mixed)
    if cluster is not None:
        check_text(cluster, "cluster", "a column")
    if cluster is not None and names and cluster != group:
        raise EffectError(
            f"cluster={shown(cluster)}, but the random terms of {' and '.join(names)} belong to {group}; use "
            f"cluster={group!r}"
        )
    if vcov is None:
        return "CR1" if cluster is not None else "block" if names else "iid"
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
    return kind


def _treatment_values(
    column: pd.Series, contrast: tuple[Any, Any] | None, equations: Iterable[Equation]
) -> tuple[Any, Any]:
    """Return the two values of the treatment as the formulas see them: levels of a factor, or numbers.

    Without a contrast: the only two values, the lower first, or 0 and 1 if there are more.

    Raises
    ------
    DataError
        Values that the data lack, or beyond their range.
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
    usual = (0, 1) if len(known) > 2 or set(known) == {0, 1} else known  # categories may be reversed
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
