"""Options of ``CausalResults.effects``: each interval has its own, the others are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from mlmed.effects.draws import check_method
from mlmed.errors import EffectError
from mlmed.modes.causal_setting import Question
from mlmed.modes.checks import check_count, check_jobs, check_seed

__all__ = ["INTERVALS", "Interval", "options_of", "question_of"]

Interval = Literal["delta", "quasi-bayes", "bootstrap"]
INTERVALS: tuple[str, ...] = get_args(Interval)
#: What each kind of interval uses, with defaults.
OPTIONS: dict[str, dict[str, Any]] = {
    "delta": {"ranef_draws": "joint"},
    "quasi-bayes": {"n": 1000, "seed": None, "ranef_draws": "joint"},
    "bootstrap": {"n": 1000, "seed": None, "method": "percentile", "n_jobs": None, "progress": False},
}


def options_of(interval: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of one kind of interval, defaults filled in.

    Raises
    ------
    EffectError
        Unknown interval, an option that it does not use, no seed where numbers are drawn.
    """
    if interval not in OPTIONS:
        raise EffectError(f"interval must be one of {', '.join(INTERVALS)}; found {interval!r}")
    asked = {name: value for name, value in given.items() if value is not None}
    for name in asked:
        if name not in OPTIONS[interval]:
            users = " and ".join(f"interval={kind!r}" for kind, options in OPTIONS.items() if name in options)
            raise EffectError(f"interval={interval!r} does not use {name}, which belongs to {users}; leave it out")
    options = {**OPTIONS[interval], **asked}
    if "seed" in options:
        options["seed"] = check_seed(options["seed"], f"interval={interval!r}")
        options["n"] = check_count(options["n"], "replicates" if interval == "bootstrap" else "draws")
    if interval == "bootstrap":
        check_method(options["method"])
        check_jobs(options["n_jobs"])
    return options


def question_of(
    at: Mapping[str, Any], groups: str | None, ranef_draws: str | None, *, is_mixed: bool, by_cluster: bool = False
) -> Question:
    """What is asked, once it is known whether there are random effects.

    Raises
    ------
    EffectError
        Words that mean nothing, or options of mixed models without one.
    """
    if not is_mixed:
        for name, value in (("groups", groups), ("ranef_draws", ranef_draws)):
            if value is not None:
                raise EffectError(
                    f"{name}={value!r} says what is done with random effects, and no equation has any; leave it out"
                )
    question = Question(dict(at), groups or "modes", ranef_draws or "joint", by_cluster)
    if ranef_draws is not None and question.groups == "population":
        raise EffectError(
            f"ranef_draws={ranef_draws!r} is about the modes of clusters, and groups='population' averages over "
            "clusters without them; leave it out"
        )
    return question
