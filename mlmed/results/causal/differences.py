"""Where random effects enter a difference of two effects: only then is its interval about certain clusters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlmed.effects.potential import effect_weights
from mlmed.effects.uncertainty import slopes_at
from mlmed.results.causal.setting import Prepared

__all__ = ["interaction_notes", "moderation_notes"]

Array = NDArray[np.float64]
#: Derivatives closer than this, relative to their size, cancel in the difference.
CANCELLED = 1e-9


def interaction_notes(prepared: Prepared, subject: str) -> dict[str, str]:
    """What is said of ACME(1) - ACME(0) and of ADE(1) - ADE(0), which is the same number.

    ``subject`` is what an interval is about if random effects enter.
    """
    enter = any(_differ(by_contrast[1], by_contrast[0]) for by_contrast in _by_random_effects(prepared))
    return dict.fromkeys(("acme", "ade"), subject) if enter else {}


def moderation_notes(prepared: Sequence[Prepared], subject: str) -> dict[str, str]:
    """The same of differences between two settings, by effect."""
    pairs = list(zip(*map(_by_random_effects, prepared), strict=True))  # of each equation: first and second setting
    return {
        term: subject
        for term, weight in effect_weights().items()
        if any(_differ(*(np.einsum("e,eja->ja", weight, by_contrast) for by_contrast in pair)) for pair in pairs)
    }


def _by_random_effects(prepared: Prepared) -> tuple[Array, Array]:
    """Derivatives (5, J, q) of the contrasts in the random effects of the mediator and of the outcome."""
    slopes = slopes_at(prepared.setting, prepared.mediator, prepared.outcome)
    p_m, p_y = len(prepared.mediator.beta), len(prepared.outcome.beta)
    return slopes.mediator[:, :, p_m:], slopes.outcome[:, :, p_y:]


def _differ(first: Array, second: Array) -> bool:
    """Whether two derivatives do not cancel."""
    size = max(np.abs(first).max(initial=0.0), np.abs(second).max(initial=0.0))
    return bool(np.abs(first - second).max(initial=0.0) > CANCELLED * size)
