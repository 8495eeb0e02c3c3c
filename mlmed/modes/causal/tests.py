"""Tests of ``causal``: does the mediated effect depend on the treatment, or on covariates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.potential import CONTRASTS, all_effects
from mlmed.effects.uncertainty import slopes_at
from mlmed.errors import EffectError
from mlmed.modes.bootstrap import draws_table
from mlmed.modes.causal.setting import Chain, Prepared, Question
from mlmed.modes.causal.tables import CLOSED, draw_effects

__all__ = ["interaction_table", "moderation_table", "refuse_no_interaction"]

Array = NDArray[np.float64]
ACME_DIFFERENCE, ADE_DIFFERENCE = "acme_treated - acme_control", "ade_treated - ade_control"
#: Weights of the five contrasts in the effects whose differences are reported.
MODERATED = {term: weight for term, weight in zip(CONTRASTS, np.eye(5), strict=True)} | {
    "acme": np.array([0.5, 0.5, 0.0, 0.0, 0.0]),
    "ade": np.array([0.0, 0.0, 0.5, 0.5, 0.0]),
}
#: Derivatives of two effects closer than this, relative to their size, cancel in the difference.
CANCELLED = 1e-9


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


def _by_random_effects(prepared: Prepared) -> tuple[Array, Array]:
    """Derivatives (5, J, q) of the contrasts in the random effects of the mediator and of the outcome."""
    slopes = slopes_at(prepared.setting, prepared.mediator, prepared.outcome)
    p_m, p_y = len(prepared.mediator.beta), len(prepared.outcome.beta)
    return slopes.mediator[:, :, p_m:], slopes.outcome[:, :, p_y:]


def _differ(first: Array, second: Array) -> bool:
    """Whether two derivatives do not cancel."""
    size = max(np.abs(first).max(initial=0.0), np.abs(second).max(initial=0.0))
    return bool(np.abs(first - second).max(initial=0.0) > CANCELLED * size)


def interaction_table(prepared: Prepared, subject: str, *, n: int, seed: int, level: float) -> pd.DataFrame:
    """ACME(1) - ACME(0), and ADE(1) - ADE(0), which is the same number.

    ``subject`` is what the interval is about if random effects enter.
    """
    by_name = dict(zip(CONTRASTS, draw_effects(prepared, n=n, seed=seed).T, strict=True))
    exact = dict(zip(CONTRASTS, _at_estimates(prepared), strict=True)) if prepared.setting.is_closed else {}
    enter = any(_differ(found[0], found[1]) for found in _by_random_effects(prepared))
    note = "; ".join(filter(None, [CLOSED if exact else "", subject if enter else ""]))
    draws, estimates, notes = {}, {}, {}
    for term, kind in ((ACME_DIFFERENCE, "acme"), (ADE_DIFFERENCE, "ade")):
        draws[term] = by_name[f"{kind}_treated"] - by_name[f"{kind}_control"]
        if exact:
            estimates[term] = float(exact[f"{kind}_treated"] - exact[f"{kind}_control"])
        notes[term] = note
    return _differences(draws, estimates, notes, level=level)


def moderation_table(
    prepared: Sequence[Prepared],
    questions: Sequence[Question],
    subject: str,
    *,
    n: int,
    seed: int,
    level: float,
) -> pd.DataFrame:
    """Differences of effects between two settings; the seed makes their coefficients the same.

    ``subject`` is what an interval is about if random effects enter.

    Raises
    ------
    EffectError
        The two settings do not differ.
    """
    first, second = (question.at for question in questions)
    if first == second:
        raise EffectError(f"at1 and at2 are the same ({first}), so there is no difference; give different values")
    found = [all_effects(draw_effects(one, n=n, seed=seed)) for one in prepared]
    draws = {f"{term}(at1) - {term}(at2)": found[0][term] - found[1][term] for term in MODERATED}
    estimates = {}
    if prepared[0].setting.is_closed:
        exact = [all_effects(_at_estimates(one)) for one in prepared]
        estimates = {f"{term}(at1) - {term}(at2)": float(exact[0][term] - exact[1][term]) for term in MODERATED}
    where = f"at1: {_shown(first)}; at2: {_shown(second)}"
    note = f"{where}; {CLOSED}" if estimates else where
    pairs = list(zip(*map(_by_random_effects, prepared), strict=True))  # of each equation: at1, at2
    notes = {}
    for term, weight in MODERATED.items():
        enter = any(_differ(*(np.einsum("e,eja->ja", weight, part) for part in pair)) for pair in pairs)
        notes[f"{term}(at1) - {term}(at2)"] = f"{note}; {subject}" if enter else note
    return _differences(draws, estimates, notes, level=level)


def _shown(at: Mapping[str, object]) -> str:
    pairs = (f"{name} = {value:g}" if isinstance(value, float) else f"{name} = {value}" for name, value in at.items())
    return ", ".join(pairs) or "covariates as they are"


def _differences(
    draws: Mapping[str, Array], estimates: Mapping[str, float], notes: Mapping[str, str], *, level: float
) -> pd.DataFrame:
    values = {term: estimates.get(term, float(np.mean(found))) for term, found in draws.items()}
    return draws_table(pd.DataFrame(draws), pd.Series(values), level=level, notes=notes, missing={})
