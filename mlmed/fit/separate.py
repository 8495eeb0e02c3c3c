"""Separate equations: specification, level and fit of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.design import complete_rows, plain_design, read_columns
from mlmed.data.grams import Grams
from mlmed.data.ids import cluster_codes
from mlmed.data.levels import Roles, check_design, cluster_table, levels_of, refuse_constant
from mlmed.errors import DataError, FormulaError
from mlmed.fit.glm import PlainFit
from mlmed.fit.lmm import fit_model
from mlmed.fit.system import Component, SystemFit
from mlmed.formula import Equation, RandomTerm, formula_of, formula_variables, parse_equation, term_variables
from mlmed.glm.fit import fit_glm
from mlmed.names import display_name, quoted_name, safe_name
from mlmed.notes import Note
from mlmed.options import Method
from mlmed.system.system import System
from mlmed.text import Compact

UNKNOWN_COVARIANCE = (
    "no standard error from the fits: c and the other paths come from two fits to the same rows, whose covariance "
    "neither fit has; interval='bootstrap' gives it"
)


@dataclass(frozen=True, slots=True, repr=False)
class Asked(Compact):
    """Specification before any data is read.

    Attributes
    ----------
    mediator, outcome, reduced : Equation
        The three equations; ``reduced`` is the outcome's without the mediator.
    treatment : str
        Column of the treatment x.
    method : str
        Criterion of the mixed equations.
    covariance : str or mapping
        Structure of their random-effects covariances.
    """

    mediator: Equation
    outcome: Equation
    reduced: Equation
    treatment: str
    method: Method
    covariance: str | Mapping[str, str]

    def spec(self, *equations: Equation) -> System:
        """Specify equations as one model, with the covariance structures of their labels."""
        if isinstance(self.covariance, str):
            return System(equations, self.method, self.covariance)
        labels = {block.label for block in System(equations, self.method).blocks}
        return System(equations, self.method, {k: v for k, v in self.covariance.items() if k in labels})

    @property
    def group(self) -> tuple[str, ...]:
        """Columns whose combination names the cluster."""
        return self.outcome.random[0].group


def ask(
    first: Equation,
    second: Equation,
    third: Equation | None,
    *,
    treatment: str,
    method: Method,
    covariance: str | Mapping[str, str],
) -> Asked:
    """Check the equations against each other.

    Raises
    ------
    FormulaError
        Different cluster variables, one response twice, a label that would tie the equations, an unknown label, or a
        wrong equation for path c.
    """
    mediators = formula_variables(first.response)
    if third is not None:
        _check_total(third, second, mediators, treatment)
    System(tuple(equation for equation in (first, second) if equation.random or equation is second), method)
    shared = {t.label for t in first.random if t.label} & {t.label for t in second.random if t.label}
    if shared:
        raise FormulaError(
            f"the label {sorted(shared)[0]!r} in both equations asks that their random effects covary, which separate "
            "fits do not estimate; leave the label out, or fit the equations jointly with mlmed.mediate"
        )
    reduced = third if third is not None else without_mediator(second, mediators)
    asked = Asked(first, second, reduced, treatment, method, covariance)
    if not isinstance(covariance, str):
        _check_labels(asked)
    return asked


def _check_labels(asked: Asked) -> None:
    if not isinstance(asked.covariance, Mapping):
        System((asked.outcome,), asked.method, asked.covariance)
        return
    mixed = [equation for equation in (asked.mediator, asked.outcome, asked.reduced) if equation.random]
    known = {block.label for equation in mixed for block in System((equation,), asked.method).blocks}
    unknown = set(asked.covariance) - known
    if unknown:
        raise FormulaError(
            f"covariance names the block {', '.join(sorted(unknown))}, but the random terms have the labels "
            f"{', '.join(sorted(known))}; write (1 + x |label| id)"
        )


def _check_total(third: Equation, second: Equation, mediators: frozenset[str], treatment: str) -> None:
    """Check ``total=``: the outcome's response and clusters, the treatment, no mediator."""
    fix = "it is the outcome equation without the mediator"
    if third.response != second.response:
        raise FormulaError(f"total={third.text!r} has the response {third.name}, not {second.name}; {fix}")
    if third.predictors & mediators:
        raise FormulaError(
            f"total={third.text!r} has the mediator {', '.join(sorted(third.predictors & mediators))} among its "
            f"predictors; {fix}"
        )
    if treatment not in formula_variables(third.fixed):
        raise FormulaError(f"total={third.text!r} does not have the treatment {treatment} in its fixed part; {fix}")
    groups = {frozenset(term.group) for equation in (second, third) for term in equation.random}
    if not third.random or len(groups) > 1:
        raise FormulaError(
            f"total={third.text!r} must have random terms with the cluster variable of {second.text!r}; {fix}"
        )


def without_mediator(outcome: Equation, mediators: frozenset[str]) -> Equation:
    """Remove every term, fixed or random, that uses the mediator from the outcome equation.

    Raises
    ------
    FormulaError
        No random term is left.

    Examples
    --------
    >>> outcome = parse_equation("y ~ m*w + x + (1 + m + x | id)")
    >>> without_mediator(outcome, frozenset({"m"})).text
    'y ~ 1 + w + x + (1 + x | id)'
    """
    random = [(term, _kept(term.formula, mediators)) for term in outcome.random]
    kept = [_bar(term, text) for term, text in random if text != "0"]
    if not kept:
        raise FormulaError(
            f"without the mediator {outcome.text!r} has no random term left, so there is no equation for path c; give "
            f"one, as in total='{outcome.name} ~ x + (1 | {':'.join(outcome.random[0].group)})'"
        )
    text = f"{outcome.response} ~ {' + '.join([_kept(outcome.fixed, mediators), *kept])}"
    return replace(parse_equation(quoted_name(text)), text=display_name(text))


def _kept(text: str, mediators: frozenset[str]) -> str:
    """Remove the terms that use the mediator from one side; ``"0"`` if none is left."""
    terms = [term for term in formula_of(text) if not term_variables(term) & mediators]
    shown = [str(term) for term in terms if str(term) != "1"]
    return " + ".join([*(["1"] if len(shown) < len(terms) else ["0"]), *shown])


def _bar(term: RandomTerm, text: str) -> str:
    bar = "||" if not term.correlated else f"|{term.label}|" if term.label else "|"
    return f"({text} {bar} {':'.join(map(safe_name, term.group))})"


def fit_separately(asked: Asked, data: Any) -> SystemFit:
    """Detect levels, then fit every equation.

    Raises
    ------
    DataError, FormulaError, NotIdentifiedError
        Unusable formulas or data, or parameters that the data do not determine.
    """
    if isinstance(getattr(data, "arrays", data), Grams):
        raise DataError(
            "piecewise finds the levels of variables in the rows, and stored Grams have none; give it the data frame"
        )
    first, second, third = asked.mediator, asked.outcome, asked.reduced
    table = read_columns((first, second, third), data, keep=asked.group)
    codes, clusters = cluster_codes(table, asked.group)
    roles = _roles(asked)
    refuse_constant(roles, table)
    levels = levels_of(table, codes, roles.variables)
    design = check_design(roles, levels)
    if not first.random and design != "2-2-1":
        System((first,), asked.method)  # refuses: a random term is needed
    rows = complete_rows(table, second.variables)
    fits: dict[str, Component] = {
        "mediator": _fit_mediator(asked, design, data, (table, codes, clusters)),
        "outcome": fit_model(asked.spec(second), data),
        "reduced": fit_model(asked.spec(third), data if rows.all() else table[rows]),
    }
    m, y, own = first.name, second.name, "reduced"
    while own in (m, y):
        own += "_"
    called, apart = (m, y, f"{y} without {m}"), ("reduced", UNKNOWN_COVARIANCE)
    return SystemFit(fits, (m, y, own), called, clusters, asked.group, apart, roles.table(levels), data)


def _roles(asked: Asked) -> Roles:
    first, second, third = asked.mediator, asked.outcome, asked.reduced
    columns = {e.name: tuple(sorted(formula_variables(e.response))) for e in (first, second)}
    main = {asked.treatment, *columns[first.name], *columns[second.name]}
    others = (first.predictors | second.predictors | third.predictors) - main
    upstream = tuple(sorted(first.predictors - main))
    return Roles(
        asked.treatment, first.name, second.name, columns, tuple(sorted(others)), upstream, ":".join(asked.group)
    )


def _fit_mediator(
    asked: Asked, design: str, data: Any, rows: tuple[pd.DataFrame, NDArray[np.intp], pd.Index]
) -> Component:
    equation = asked.mediator
    if design != "2-2-1":
        return fit_model(asked.spec(equation), data)
    group = ":".join(asked.group)
    slopes = [term for term in equation.random if _kept(term.formula, frozenset()) != "1"]
    if slopes:
        raise FormulaError(
            f"{equation.text!r} has the random effects {display_name(slopes[0].formula)}, but the mediator "
            f"{equation.name} is the same in all rows of a cluster ({group}): with one value per cluster nothing can "
            f"vary between clusters but the residual. Write '{equation.name} ~ {display_name(equation.fixed)}'"
        )
    return fit_clusters(equation, *rows, group_name=group)


def fit_clusters(
    equation: Equation, table: pd.DataFrame, codes: NDArray[np.intp], clusters: pd.Index, *, group_name: str
) -> PlainFit:
    """Fit an equation whose columns are all of level 2 to one row per cluster.

    Parameters
    ----------
    equation : Equation
        Its random terms play no part.
    table : DataFrame of n rows
        From ``read_columns``.
    codes : (n,) int array
        Cluster of each row, -1 where the id is missing.
    clusters : Index of length J
        Cluster ids.
    group_name : str
        The cluster variable.

    Raises
    ------
    DataError, NotIdentifiedError
        No cluster with all values, a constant response, collinear columns, too few clusters.
    """
    names = sorted(equation.variables - equation.group_columns)
    rows = cluster_table(table, codes, names)
    complete = complete_rows(rows, names)
    missing = {name: int(count) for name, count in rows.isna().sum().items() if count}
    counted = f"missing {', '.join(f'{name}: {count}' for name, count in missing.items())}"
    if not complete.any():
        raise DataError(f"equation {equation.name} has no cluster with all its values ({counted}); remove a column")
    design = plain_design(equation, rows[complete].reset_index(drop=True))
    if np.ptp(design.y) == 0.0:
        raise DataError(
            f"the response {equation.name!r} is constant ({design.y[0]:g}) over the clusters of its equation; choose "
            "another response"
        )
    fit = fit_glm("linear", design.y, design.X, names=design.names, response=equation.name)
    notes, J = [], len(rows)
    if equation.random:
        text = (
            f"the random intercept of {equation.text!r} is not used: {equation.name} is the same in all rows of a "
            f"cluster ({group_name}), and is fitted by least squares on one row per cluster"
        )
        notes.append(Note("intercept-unused", text))
    if missing:
        text = f"equation {equation.name}: {J - fit.nobs} of {J} clusters left out ({counted})"
        notes.append(Note("rows-left-out", text))
    return PlainFit(design, fit, clusters[complete], group_name, notes=tuple(notes))
