"""Methods of separate fits (``mlmed.piecewise``): design, levels, the joint model, Sobel's tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from mlmed.effects.paths import PathCatalogue
from mlmed.effects.separate import SeparateCatalogue, joint_spec
from mlmed.errors import EffectError
from mlmed.fit.glm import PlainFit
from mlmed.fit.lmm import LmmFit, design_of, fit_model
from mlmed.fit.system import SystemFit, equation_of
from mlmed.intervals.values import sobel_table
from mlmed.notes import Note
from mlmed.report.ml_mediation import MlMediation, render_ml_mediation
from mlmed.results.abilities import Held, only
from mlmed.results.inference import effect_set, kind_of
from mlmed.results.remarks import joint_remarks
from mlmed.results.summary import how_fitted

#: Stata's names of the roles.
ROLES = {"treatment": "iv", "mediator": "mv", "outcome": "dv"}


@only(SeparateCatalogue)
def design(self: Held) -> str:
    """Levels of treatment, mediator and outcome of ``mlmed.piecewise``: ``"1-1-1"``, ``"2-1-1"`` or ``"2-2-1"``."""
    return self.fit.design


@only(SeparateCatalogue)
def levels(self: Held) -> pd.DataFrame:
    """Level of every variable, as found in the data: variable, role, level (1 rows, 2 clusters)."""
    return self.fit.levels.copy()


def joint(self: Held) -> tuple[LmmFit, PathCatalogue, tuple[Note, ...]]:
    """Fit the same equations as one model; return it with its catalogue and remarks."""
    fit: SystemFit = self.fit
    if isinstance(fit.components["mediator"], PlainFit):
        raise EffectError(
            f"the mediator {equation_of(fit.components['mediator']).name} is a variable of the clusters (design "
            f"{fit.design}): the joint model has row-level residuals in both equations. Nothing is lost here: a does "
            "not vary over clusters, so there is no cov(a_j, b_j) to estimate"
        )
    if fit.table is None:
        raise EffectError("joint() needs the data, but a fit from a pickle has no rows; call mlmed.mediate on them")
    for one in fit.once:
        if isinstance(one, LmmFit) and isinstance(one.table, pd.DataFrame):
            design_of(one, "joint()", "call mlmed.mediate")
    catalogue, fitted = (
        PathCatalogue(self.catalogue.treatment, self.catalogue.contrast),
        fit_model(joint_spec(fit), fit.table),
    )
    return fitted, catalogue, joint_remarks(fitted, catalogue, fit.table)


@only(SeparateCatalogue)
def sobel(
    self: Held, *, vcov: str | None = None, level: float = 0.95, at: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Tests of a b by Sobel (first order), Aroian (second order) and Goodman (unbiased); ``mlmed.piecewise``.

    Parameters
    ----------
    vcov : str, optional
        Covariance of the estimates, one of ``vcov()``; by default ``block``.
    level : float
        Coverage of the intervals, a proportion.
    at : mapping, optional
        Values of moderators, as in ``effects``.

    Returns
    -------
    DataFrame
        A row per test, in the columns of ``effects``.

    Raises
    ------
    EffectError
        The model defines no effects, or another kind of fit.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.piecewise(
    ...     "Med ~ X + (1 + X | group)",
    ...     "y ~ X + Med + (1 + X + Med | group)",
    ...     mlmed.datasets.load("yuan_mackinnon_sim"),
    ... )
    >>> fit.sobel().set_index("term")["std_error"].round(5).to_dict()
    {'sobel': 0.02464, 'aroian': 0.02598, 'goodman': 0.02323}
    """
    found = self.catalogue.effects(self.fit, at)
    return sobel_table(found.quantities["indirect"], found.vcov(kind_of(self.fit, vcov)), level=level)


def ml_mediation(self: Held) -> str:
    """Write the output of Stata's ``ml_mediation``; the model must define effects."""
    quantities, fit = effect_set(self).quantities, self.fit
    value = {term: quantity.estimate for term, quantity in quantities.items()}
    first, second, total = ((equation_of(one).text, how_fitted(one)) for one in fit.components.values())
    known = fit.levels[fit.levels["role"].isin(ROLES)]
    notes = [f"Note: {text}" for text in (quantities["indirect"].note, quantities["c"].note) if text]
    return render_ml_mediation(
        MlMediation(
            c_path=total,
            a_path=first,
            b_path=second,
            levels=tuple((ROLES[role], str(name), int(at)) for name, role, at in known.itertuples(index=False)),
            **{term: value[term] for term in ("c", "a", "b", "cprime", "indirect", "total", "ratio")},
            share=value["prop_mediated"],
            total_ratio=value["total"] / value["direct"] if value["direct"] != 0.0 else float("nan"),
            notes=tuple(notes),
        )
    )
