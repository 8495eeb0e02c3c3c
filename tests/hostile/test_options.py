"""Every argument of everything public, with what no argument means: it is answered or refused, never a bare error.

``make hostile`` does the same with all values.
"""

from __future__ import annotations

from typing import Any

import joblib
import numpy as np
import pytest

import mlmed
from mlmed.errors import DataError, EffectError, FormulaError
from mlmed.options import METHODS, check_count, check_flag, check_jobs, check_level, check_seed, one_of
from mlmed.text import shown
from tests.hostile.attack import VALUES, Odd, Tally, arguments, attack, tried
from tests.hostile.subjects import fits, functions, methods, table

#: Values that found the most: no truth value, no comparison, no hash, no text, no float, no letters.
WORST = ("array", "10**5000", "surrogate", "sNaN", "Series", "NA", "dict of big", "list of itself", "odd")
MODES = (
    "mediate", "mediate.plot", "mixed", "piecewise", "causal", "causal, clusters", "location_scale", "compare", "grams",
    "sensitivity", "bootstrap", "bootstrap, piecewise", "bootstrap, causal", "profile", "influence", "test", "power",
    "study", "truth",
)  # fmt: skip


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return fits(table())


def attacked(subjects: Any) -> Tally:
    tally = Tally()
    with joblib.parallel_config(backend="threading"):
        for subject in subjects:
            attack(subject, {name: VALUES[name] for name in WORST}, tally)
    return tally


def test_functions():
    tally = attacked(functions(table()))
    assert tally.bad == []
    assert tally.counts["refused"] > 500


def test_every_kind_of_result_is_attacked(made):
    assert set(made) == set(MODES)
    public = {type(one) for one in made.values()}
    assert {getattr(mlmed, name) for name in mlmed.__all__ if name.endswith("Results")} <= public


@pytest.mark.parametrize("mode", MODES)
def test_methods(made, mode):
    assert attacked(methods({mode: made[mode]}, table())).bad == []


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ("MLE", "method must be one of reml, ml; found 'MLE'"),
        ("REML", r"found 'REML'; did you mean 'reml'\?"),
        (["ml"], r"found \['ml'\] \(list\)"),
        (VALUES["array"](), r"found a ndarray of shape \(2,\)"),
        (Odd(), "found a Odd"),
        (10**5000, "found a whole number of 16610 bits"),
        (True, r"found True \(bool\)"),
    ],
    ids=["other", "case", "list", "array", "object", "number", "truth"],
)
def test_one_word(value, match):
    with pytest.raises(FormulaError, match=match):
        one_of(value, METHODS, "method", error=FormulaError)


@pytest.mark.parametrize(
    ("check", "value", "match"),
    [
        (lambda v: check_count(v, "draws"), 2.0, "n is a number of draws, a whole number from 1; found 2.0"),
        (lambda v: check_count(v, "draws"), True, "found True"),
        (lambda v: check_count(v, "draws"), 10**400, "at most 10,000,000; found a whole number of 1329 bits"),
        (lambda v: check_seed(v, "study()"), None, "study.. draws random numbers: give a seed"),
        (lambda v: check_seed(v, "study()"), -1, "seed is a whole number from 0"),
        (check_jobs, 0, "n_jobs is a number of workers"),
        (check_jobs, 10**400, "n_jobs is a number of workers"),
        (check_level, 95, "level must be a proportion between 0 and 1, such as 0.95; found 95"),
        (check_level, 10**400, "found a whole number"),
        (check_level, 1.0 - 1e-17, "found 1.0"),
        (lambda v: check_flag(v, "progress"), "yes", "progress must be True or False; found 'yes'"),
    ],
)
def test_one_number(check, value, match):
    with pytest.raises(EffectError, match=match):
        check(value)


def test_a_value_is_shown_in_few_letters():
    for name, make in VALUES.items():
        assert len(shown(make())) < 200, name


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"n": 2.5}, "n is a number of replicates, a whole number from 0; found 2.5"),
        ({"n": True}, "found True"),
        ({"n": 10**400}, "at most 10,000,000"),
        ({"seed": None}, r"replicate\(\) draws random numbers: give a seed"),
        ({"seed": "1"}, "seed is a whole number from 0"),
        ({"n_jobs": 0}, "n_jobs is a number of workers"),
        ({"progress": 1}, "progress must be True or False"),
        ({"task": 3}, "task is a function of a numpy.random.Generator; found 3"),
    ],
    ids=lambda value: next(iter(value.items()))[0] if isinstance(value, dict) else "",
)
def test_replicates_refuse(given, match):
    with pytest.raises(DataError, match=match):
        mlmed.replicate(**{"task": len, "n": 2, "seed": 1, **given})


def _drawn(rng: Any) -> float:
    return float(rng.normal())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning")
def test_a_backend_that_cannot_stream():
    """joblib's "multiprocessing" gives its results together."""
    serial = mlmed.replicate(_drawn, 5, seed=2)
    with joblib.parallel_config(backend="multiprocessing", n_jobs=2):
        assert mlmed.replicate(_drawn, 5, seed=2) == serial


def test_values_at_which_effects_are_asked_are_a_mapping(made):
    for mode in ("mediate", "piecewise", "causal"):
        with pytest.raises(EffectError, match=r"at is a mapping such as .*; found 'w=1'"):
            made[mode].effects(at="w=1")
    for mode in ("mediate", "causal"):
        with pytest.raises(EffectError, match="w the value a whole number of 1329 bits"):
            made[mode].effects(at={"w": 10**400})


def test_a_message_has_an_end():
    kind, said = tried(lambda: mlmed.mixed("y ~ " + " + ".join(f"no_such_column_{k}" for k in range(300)), table()))
    assert kind == "refused"
    assert len(said) < 5_000


def test_documents_hold_a_level_of_any_float(made):
    """A float of NumPy is a proportion, too; JSON has none of its types."""
    found = [mode for mode, fit in made.items() if hasattr(fit, "to_json") and "level" in arguments(fit.to_json)]
    assert len(found) >= 5
    for mode in found:
        assert made[mode].to_json(level=np.float32(0.5)) == made[mode].to_json(level=0.5)
