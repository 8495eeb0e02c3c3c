"""Options of ``CausalResults.effects``: each interval has its own, the others are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlmed.errors import EffectError
from mlmed.results.causal.setting import Question
from mlmed.text import shown

__all__ = ["OPTIONS", "question_of"]

#: What each kind of interval uses, with defaults.
OPTIONS: dict[str, dict[str, Any]] = {
    "delta": {"ranef_draws": "joint"},
    "monte-carlo": {"n": 1000, "seed": None, "ranef_draws": "joint"},
    "bootstrap": {"n": 1000, "seed": None, "ends": "percentile", "n_jobs": None, "progress": False},
}


def question_of(
    at: Mapping[str, Any], of: str | None, ranef_draws: str | None, *, is_mixed: bool, by_cluster: bool = False
) -> Question:
    """What is asked, once it is known whether there are random effects.

    Raises
    ------
    EffectError
        Words that mean nothing, or options of mixed models without one.
    """
    if not is_mixed:
        for name, value in (("of", of), ("ranef_draws", ranef_draws)):
            if value is not None:
                said = f"{name}={shown(value)} says what is done with random effects"
                raise EffectError(f"{said}, and no equation has any; leave it out")
    own = "cluster" if of is None else of, "joint" if ranef_draws is None else ranef_draws
    question = Question(dict(at), *own, by_cluster)
    if ranef_draws is not None and question.of == "population":
        raise EffectError(
            f"ranef_draws={shown(ranef_draws)} is about the modes of clusters, and of='population' averages over "
            "clusters without them; leave it out"
        )
    return question
