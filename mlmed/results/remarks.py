"""Notes on formulas and data: models that do not suit the data, doubtful ids, missing-value marks among levels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from mlmed.data.frames import unordered
from mlmed.data.grams import Grams, two_values
from mlmed.data.ids import doubtful_ids
from mlmed.data.layout import EquationLayout
from mlmed.data.values import MARKS
from mlmed.effects.paths import PathCatalogue
from mlmed.effects.routes import Routes
from mlmed.errors import EffectError
from mlmed.fit.lmm import LmmFit
from mlmed.fit.system import Component, SystemFit, equation_of, layout_of
from mlmed.formula import Equation, term_variables
from mlmed.lmm.checks import COLLINEAR, within_share
from mlmed.names import display_name
from mlmed.notes import Note
from mlmed.system.system import System
from mlmed.text import display_level


def joint_remarks(fitted: LmmFit, catalogue: PathCatalogue, data: Any) -> tuple[Note, ...]:
    """Remarks on a joint model of mediator and outcome, and on its table."""
    try:
        routes = catalogue.routes(fitted)
    except EffectError:  # raised again by effects()
        routes = None
    seen = table_notes(data, fitted.spec.equations, fitted.layout.equations, fitted.clusters)
    return *seen, *mediation_notes(fitted, catalogue.treatment, routes)


def separate_remarks(fit: SystemFit, data: Any) -> tuple[Note, ...]:
    """Remarks on separate models of mediator and outcome, and on their table."""
    parts = {role: fit.components[role] for role in ("mediator", "outcome")}
    two = [(role, equation_of(one).name, _values_of(one)) for role, one in parts.items()]
    asked, layouts = [equation_of(one) for one in parts.values()], [layout_of(one) for one in parts.values()]
    seen = table_notes(data, asked, layouts, fit.clusters)
    return *(two_valued(role, name, values) for role, name, values in two if values is not None), *seen


def _values_of(fit: Component) -> tuple[float, float] | None:
    """The two values of a binary response; otherwise None."""
    if isinstance(fit, LmmFit):
        return two_values(fit.grams, 0, fit.layout.equations[0].response_at)
    seen = np.unique(fit.design.y)
    return (float(seen[0]), float(seen[1])) if len(seen) == 2 else None


def mediation_notes(fitted: LmmFit, treatment: str, routes: Routes | None) -> list[Note]:
    """Notes on a joint mediation model, from cross-products alone.

    Parameters
    ----------
    fitted : LmmFit
        Mediators first.
    treatment : str
        Column of the treatment x.
    routes : Routes or None
        None if the model defines no effects.
    """
    equations = fitted.layout.equations
    moved = [one.name for n, one in enumerate(equations[:-1]) if _is_between(fitted.grams, n, one, treatment)]
    found = [Note("treatment-between", _between(treatment, ", ".join(moved), fitted.group_name))] if moved else []
    for number, equation in enumerate(equations):
        role = "outcome" if equation is equations[-1] else "mediator"
        values = two_values(fitted.grams, number, equation.response_at)
        found += [] if values is None else [two_valued(role, equation.name, values)]
    apart = [] if routes is None else _split_pairs(fitted, routes)
    if routes is not None and apart:
        found.append(Note("slopes-apart", _split(fitted.spec, routes, apart, fitted.group_name)))
    return found


def _is_between(grams: Grams, number: int, equation: EquationLayout, treatment: str) -> bool:
    """Whether all columns of the treatment alone are constant within clusters."""
    own = frozenset({treatment})
    spans = [span for term, span in equation.encodings[0].term_slices.items() if term_variables(term) == own]
    columns = [k for span in spans for k in equation.fixed_at[span]]
    return bool(columns) and all(within_share(grams, number, k) <= COLLINEAR for k in columns)


def _between(treatment: str, mediator: str, group: str) -> str:
    return (
        f"the treatment {treatment} does not vary within {group} (a 2-1-1 design): it can move {mediator} between "
        f"clusters only, while the coefficient of {mediator} mixes its effects within and between clusters; use "
        "mlmed.piecewise, see docs/limitations.md"
    )


def two_valued(role: str, name: str, values: tuple[float, float]) -> Note:
    """Note on a binary response fitted as normal."""
    return Note(
        "two-values",
        f"the {role} {name} has two values ({values[0]:.6g} and {values[1]:.6g}) and is fitted as if it were normal: "
        "its expectation, a probability, is taken for a straight line, and its variance to be the same everywhere; use "
        "mlmed.causal with the family logit or probit (without random effects), or another program, see "
        "docs/limitations.md",
    )


def _split_pairs(fitted: LmmFit, routes: Routes) -> list[tuple[int, int]]:
    """Pairs of slopes of a route that vary and do not covary because unlabelled terms stand alone."""
    plain = [sum(t.label is None and t.correlated for t in equation.random) for equation in fitted.spec.equations]
    if max(plain) < 2:
        return []
    random, basis = [slope.random for slope in routes.slopes], fitted.estimates.tau_basis
    varying = [(i, k) for i, k in routes.pairs if random[i].any() and random[k].any()]
    return [(i, k) for i, k in varying if not np.einsum("kab,a,b->k", basis, random[i], random[k]).any()]


def _split(spec: System, routes: Routes, pairs: list[tuple[int, int]], group: str) -> str:
    split = next(e for e in spec.equations if sum(t.label is None and t.correlated for t in e.random) > 1)
    terms = " + ".join(f"({display_name(term.formula)} | {group})" for term in split.random)
    told = "; ".join(f"{routes.names[i]} and {routes.names[k]}" for i, k in pairs)
    held = "cov_ab is fixed" if routes.is_simple else "their covariances are fixed"
    return (
        f"the random slopes of {told} cannot covary, so {held} at 0: {terms} in one equation makes every "
        "term without a label stand alone, across equations, too. Give terms whose effects may covary one label in "
        f"both equations, as in (1 |i| {group}) + (0 + x |s| {group})"
    )


def table_notes(
    data: Any, equations: Iterable[Equation], layouts: Iterable[EquationLayout], clusters: pd.Index | None
) -> tuple[Note, ...]:
    """Notes on categories without an order, levels such as ``"."``, and doubtful ids.

    Parameters
    ----------
    data : dataframe
        The user's table; of engines and Grams only the ids are checked.
    equations : iterable of Equation
        The formulas.
    layouts : iterable of EquationLayout
        Their columns, with the levels of factors.
    clusters : Index of length J or None
        Ids; a MultiIndex for combined ids.
    """
    layouts, equations = tuple(layouts), tuple(equations)
    levels = {name: found for layout in layouts for name, found in layout.levels.items()}
    notes: list[Note] = []
    if names := unordered(data, levels):
        told = ", ".join(f"{name} (reference {display_level(levels[name][0])!r})" for name in names)
        text = (
            f"a Categorical of Polars has no order, also if it had one in pandas, so the levels of {told} are sorted; "
            "to choose the reference, make it a pl.Enum"
        )
        notes.append(Note("no-order", text))
    notes += [Note("missing-mark", text) for layout in layouts for text in _marks(layout)]
    if clusters is not None:
        asked = frozenset().union(*(equation.variables for equation in equations))
        texts = doubtful_ids(data, clusters, asked, has_term=any(equation.random for equation in equations))
        notes += [Note("doubtful-ids", text) for text in texts]
    return tuple(notes)


def _marks(layout: EquationLayout) -> list[str]:
    return [
        f"{level!r} is a level of the factor {name}{' (its reference)' if level == levels[0] else ''}, but marks "
        "missing values in other programs; if it does here, make it missing (missing= of read_table(), --missing)"
        for name, levels in layout.levels.items()
        for level in levels
        if isinstance(level, str) and level.strip().lower() in MARKS
    ]
