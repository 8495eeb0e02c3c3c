"""Tests of ``causal``: does the mediated effect depend on the treatment, or on covariates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.potential import CONTRASTS, EFFECTS, RATIOS, all_effects
from mlmed.effects.uncertainty import Contrasts, lost_coefficients, slopes_at
from mlmed.errors import EffectError
from mlmed.intervals.bootstrap import draws_table
from mlmed.lmm.vcov import said_along
from mlmed.notes import joined
from mlmed.results.causal.setting import Chain, Prepared, Question
from mlmed.results.causal.tables import CLOSED, draw_effects
from mlmed.text import assigned

__all__ = ["interaction_table", "moderation_table", "refuse_no_interaction"]

Array = NDArray[np.float64]
ACME_DIFFERENCE, ADE_DIFFERENCE = "acme_treated - acme_control", "ade_treated - ade_control"
#: Derivatives that differ by less than this share are the same.
SAME = 1e-10
#: Effects whose differences between covariate values are reported.
MODERATED = tuple(term for term in EFFECTS if term not in RATIOS)


def refuse_no_interaction(chain: Chain, interaction: bool) -> None:
    """A difference that is 0 by construction needs no test."""
    if interaction or chain.outcome.family != "linear":
        return
    m, x, y = chain.mediator.name, chain.treatment, chain.outcome.name
    raise EffectError(
        f"ACME(1) - ACME(0) is 0 by construction: the outcome is linear and {chain.outcome.equation.text!r} has "
        f"no interaction of {m} and {x}. Add one, as in '{y} ~ {m} * {x}'"
    )


def _at_estimates(prepared: Prepared) -> Array:
    return slopes_at(prepared.setting, prepared.mediator, prepared.outcome).average()


def interaction_table(
    prepared: Prepared, found: Contrasts, about: Mapping[str, str], *, n: int, seed: int, level: float
) -> pd.DataFrame:
    """ACME(1) - ACME(0), and the same for ADE; ``about``: ``interaction_notes``, ``found`` at the estimates."""
    by_name = dict(zip(CONTRASTS, draw_effects(prepared, n=n, seed=seed).T, strict=True))
    exact = dict(zip(CONTRASTS, _at_estimates(prepared), strict=True)) if prepared.setting.is_closed else {}
    draws, estimates, notes, missing = {}, {}, {}, {}
    slopes = dict(zip(CONTRASTS, found.slopes, strict=True))
    lost = lost_coefficients(prepared.mediator, prepared.outcome)
    for term, kind in ((ACME_DIFFERENCE, "acme"), (ADE_DIFFERENCE, "ade")):
        draws[term] = by_name[f"{kind}_treated"] - by_name[f"{kind}_control"]
        if exact:
            estimates[term] = float(exact[f"{kind}_treated"] - exact[f"{kind}_control"])
        notes[term] = joined(CLOSED if exact else "", about.get(kind, ""), found.vcov.note)
        missing[term] = said_along(lost, _difference(slopes[f"{kind}_treated"], slopes[f"{kind}_control"]))
    return _differences(draws, estimates, notes, missing, level=level)


def _difference(left: Array, right: Array) -> Array:
    """Difference of derivatives, without the rounding error of zero."""
    found = left - right
    return np.where(np.abs(found) > SAME * np.maximum(np.abs(left), np.abs(right)), found, 0.0)


def moderation_table(
    prepared: Sequence[Prepared],
    covariances: Sequence[Contrasts],
    questions: Sequence[Question],
    about: Mapping[str, str],
    *,
    n: int,
    seed: int,
    level: float,
) -> pd.DataFrame:
    """Differences of effects between two settings; the seed makes their coefficients the same.

    ``covariances`` are those of both settings at the estimates, ``about`` is what ``moderation_notes`` says of effects.

    Raises
    ------
    EffectError
        The two settings do not differ.
    """
    first, second = (question.at for question in questions)
    if first == second:
        raise EffectError(f"at1 and at2 are the same ({first}), so there is no difference; give different values")
    found = [all_effects(draw_effects(one, n=n, seed=seed)) for one in prepared]
    name = {term: f"{term}(at1) - {term}(at2)" for term in MODERATED}
    draws = {name[term]: found[0][term] - found[1][term] for term in MODERATED}
    estimates = {}
    if prepared[0].setting.is_closed:
        exact = [all_effects(_at_estimates(one)) for one in prepared]
        estimates = {name[term]: float(exact[0][term] - exact[1][term]) for term in MODERATED}
    where = f"at1: {_place(first)}; at2: {_place(second)}"
    note = f"{where}; {CLOSED}" if estimates else where
    notes = {name[term]: joined(note, about.get(term, ""), covariances[0].vcov.note) for term in MODERATED}
    lost = lost_coefficients(prepared[0].mediator, prepared[0].outcome)
    slopes = all_effects(_difference(covariances[0].slopes, covariances[1].slopes).T)
    missing = {name[term]: said_along(lost, slopes[term]) for term in MODERATED}
    return _differences(draws, estimates, notes, missing, level=level)


def _place(at: Mapping[str, object]) -> str:
    return assigned(at) or "covariates as they are"


def _differences(
    draws: Mapping[str, Array],
    estimates: Mapping[str, float],
    notes: Mapping[str, str],
    missing: Mapping[str, str],
    *,
    level: float,
) -> pd.DataFrame:
    values = {term: estimates.get(term, float(np.mean(found))) for term, found in draws.items()}
    gone = {term: joined(notes[term], why) for term, why in missing.items() if why}
    return draws_table(pd.DataFrame(draws), pd.Series(values), level=level, notes=notes, missing=gone)
