"""What a mediation model was asked for and is not made for: said once, with the way out."""

from __future__ import annotations

import numpy as np

from mlmed.data.grams import Grams, two_values
from mlmed.data.layout import EquationLayout
from mlmed.effects.paths import Paths
from mlmed.errors import CovarianceWarning, FamilyWarning, LevelWarning, MlmedWarning
from mlmed.formula import term_variables
from mlmed.model import ModelSpec
from mlmed.modes.fitting import Fitted
from mlmed.names import display_name
from mlmed.reml.checks import COLLINEAR, within_share

__all__ = ["Remark", "mediation_remarks", "two_valued"]

Remark = tuple[str, type[MlmedWarning]]


def mediation_remarks(fitted: Fitted, treatment: str, paths: Paths | None) -> list[Remark]:
    """Warnings about a joint mediation model; all from cross-products, so also where there are no rows.

    Parameters
    ----------
    fitted : Fitted
        Mediator first.
    treatment : str
        The column that plays x.
    paths : Paths or None
        None where the model defines no effects.
    """
    first, second = fitted.layout.equations
    found: list[Remark] = []
    if _is_between(fitted.grams, first, treatment):
        found.append((_between(treatment, first.name, fitted.group_name), LevelWarning))
    for number, (equation, role) in enumerate(((first, "mediator"), (second, "outcome"))):
        values = two_values(fitted.grams, number, equation.response_at)
        found += [] if values is None else [two_valued(role, equation.name, values)]
    if paths is not None and _is_split(fitted, paths):
        found.append((_split(fitted.spec, fitted.group_name), CovarianceWarning))
    return found


def _is_between(grams: Grams, equation: EquationLayout, treatment: str) -> bool:
    """Whether all columns of the treatment alone are the same in all rows of a cluster."""
    own = frozenset({treatment})
    spans = [span for term, span in equation.encodings[0].term_slices.items() if term_variables(term) == own]
    columns = [k for span in spans for k in equation.fixed_at[span]]
    return bool(columns) and all(within_share(grams, 0, k) <= COLLINEAR for k in columns)


def _between(treatment: str, mediator: str, group: str) -> str:
    return (
        f"the treatment {treatment} does not vary within {group} (a 2-1-1 design): it can move {mediator} between "
        f"clusters only, while the coefficient of {mediator} mixes its effects within and between clusters; use "
        "mlmed.piecewise, see docs/limitations.md"
    )


def two_valued(role: str, name: str, values: tuple[float, float]) -> Remark:
    """A response with two values, fitted as if it were normal."""
    return (
        f"the {role} {name} has two values ({values[0]:.6g} and {values[1]:.6g}) and is fitted as if it were normal: "
        "its expectation, a probability, is taken for a straight line, and its variance to be the same everywhere; use "
        "mlmed.causal with the family logit or probit (without random effects), or another program, see "
        "docs/limitations.md",
        FamilyWarning,
    )


def _is_split(fitted: Fitted, paths: Paths) -> bool:
    """Whether unlabelled terms that stand alone are why the slopes of a and b do not covary."""
    plain = [sum(t.label is None and t.correlated for t in equation.random) for equation in fitted.spec.equations]
    if max(plain) < 2 or not (paths.a.random.any() and paths.b.random.any()):
        return False
    return not np.einsum("kab,a,b->k", fitted.estimates.tau_basis, paths.a.random, paths.b.random).any()


def _split(spec: ModelSpec, group: str) -> str:
    split = next(e for e in spec.equations if sum(t.label is None and t.correlated for t in e.random) > 1)
    terms = " + ".join(f"({display_name(term.formula)} | {group})" for term in split.random)
    return (
        f"the random slopes of a and b cannot covary, so cov_ab is fixed at 0: {terms} in one equation makes every "
        "term without a label stand alone, across equations, too. Give terms whose effects may covary one label in "
        f"both equations, as in (1 |i| {group}) + (0 + x |s| {group})"
    )
