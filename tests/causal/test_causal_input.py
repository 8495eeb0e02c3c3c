"""What potential outcomes refuse, and how they say so."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlmed.api.causal import causal
from mlmed.errors import (
    BoundaryWarning,
    DataError,
    DroppedRowsWarning,
    EffectError,
    FormulaError,
    MlmedError,
    NotIdentifiedError,
)
from tests.causal_models import fitted, simulated
from tests.tolerances import SAME


def ask(*formulas: str, data: pd.DataFrame | None = None, **options: Any) -> Any:
    return lambda: causal(*formulas, simulated() if data is None else data, **options)


BAD = {
    "family": (ask("m ~ x", "y ~ m + x", family_y="gamma"), EffectError, "family_y must be one of linear, logit"),
    "binary data": (ask("m ~ x", "y ~ m + x", family_y="probit"), DataError, "needs a response that is 0 or 1"),
    "counts": (ask("m ~ x", "y ~ m + x", family_m="poisson"), DataError, "needs counts; m has"),
    "method": (ask("m ~ x", "y ~ m + x", method="ml"), EffectError, "no equation has a random term"),
    "unknown method": (ask("m ~ x + (1 | g)", "y ~ m + x", method="mle"), EffectError, "must be one of reml, ml"),
    "generalized mixed": (
        ask("m ~ x", "y ~ m + x + (1 | g)", family_y="logit"), EffectError, "linear responses only.*cluster="
    ),
    "which treatment": (ask("m ~ x + w", "y ~ m + x"), FormulaError, "which variable is the treatment.*w, x"),
    "no treatment": (ask("m ~ 1", "y ~ m + x"), FormulaError, "no predictor"),
    "wrong treatment": (ask("m ~ x", "y ~ m + x", treatment="w"), FormulaError, "'w' is not in the mediator equation"),
    "control": (ask("m ~ x", "y ~ m + x", contrast=(2, 1)), DataError, "never has the value 2.*values are 0, 1"),
    "equal values": (ask("m ~ x", "y ~ m + x", contrast=(1, 1)), FormulaError, "two different values.*from, to"),
    "half a contrast": (ask("m ~ x", "y ~ m + x", contrast=(None, 1)), FormulaError, "two different values.*None, 1"),
    "text for a number": (ask("m ~ x", "y ~ m + x", contrast=(0, "b")), DataError, "contrast has 'b', but.*numbers"),
    "beyond the range": (
        ask("m ~ w", "y ~ m + w", contrast=(0, 9)), DataError, "would be an extrapolation"
    ),
    "level of a factor": (
        ask("m ~ x", "y ~ m + x", data=simulated().assign(x=["a", "b", "c"] * 100)), DataError,
        "never has the value 0 .its values are 'a', 'b', 'c'",
    ),
    "coded numbers": (
        ask("m ~ C(w)", "y ~ m + C(w)", data=simulated().assign(w=[1, 2, 3] * 100), contrast=(0, 2)), DataError,
        "never has the value 0.*1, 2, 3",
    ),
    "mediator not there": (ask("m ~ x", "y ~ x"), FormulaError, "m is not in the fixed part"),
    "mediator random only": (ask("m ~ x", "y ~ x + (1 + m | g)"), FormulaError, "m is not in the fixed part"),
    "feedback": (ask("m ~ x + y", "y ~ m + x", treatment="x"), FormulaError, "must not feed back"),
    "same response": (ask("m ~ x", "m ~ x + w"), FormulaError, "must differ"),
    "computed mediator": (ask("np.exp(m) ~ x", "y ~ np.exp(m) + x"), FormulaError, "make that column before the fit"),
    "square": (ask("m ~ x", "y ~ m + I(m**2) + x"), FormulaError, "not a straight line in the mediator m"),
    "logarithm": (ask("m ~ x", "y ~ np.log(m + 20) + x"), FormulaError, "not a straight line"),
    "absolute value": (ask("m ~ x", "y ~ np.abs(m) + x"), FormulaError, "not a straight line"),
    "spline": (ask("m ~ x", "y ~ bs(m, df=4) + x"), FormulaError, "not a straight line"),
    "curve in a slope": (
        ask("m ~ x", "y ~ m + x + (1 + I(m**2) | g)"), FormulaError, "not a straight line"
    ),
    "two clusters": (
        ask("m ~ x + (1 | g)", "y ~ m + x + (1 | h)", data=simulated().assign(h=np.arange(300) % 20)), FormulaError,
        "different cluster variables .g and h",
    ),
    "two clusters in one equation": (
        ask("m ~ x + (1 | g) + (1 | h)", "y ~ m + x + (1 | g)", data=simulated().assign(h=np.arange(300) % 20)),
        FormulaError, "different cluster variables .g and h",
    ),
    "treatment without variation": (
        ask("m ~ x + w", "y ~ m + x", treatment="x", data=simulated().query("x == 1")), DataError,
        "x has the value 1 in every row that can be used, so there is nothing to compare; check the data",
    ),
    "robust": (ask("m ~ x", "y ~ m + x", vcov="HC5"), EffectError, "vcov must be one of iid, HC0"),
    "robust mixed": (
        ask("m ~ x + (1 | g)", "y ~ m + x", vcov="HC3"), EffectError, "do not depend on each other.*one of block, joint"
    ),
    "block of none": (ask("m ~ x", "y ~ m + x", vcov="block"), EffectError, "with random terms.*use one of iid, HC0"),
    "no clusters": (ask("m ~ x", "y ~ m + x", vcov="CR1"), EffectError, "none are named .cluster="),
    "block and cluster": (
        ask("m ~ x + (1 | g)", "y ~ m + x", vcov="block", cluster="g"), EffectError, "give one of them"
    ),
    "CR2 of rows": (ask("m ~ x", "y ~ m + x", vcov="CR2", cluster="g"), EffectError, "ordinary regression.*'CR1'"),
    "word of another package": (ask("m ~ x", "y ~ m + x", vcov="robustSE"), EffectError, "did you mean 'HC3'"),
    "both": (ask("m ~ x", "y ~ m + x", vcov="HC3", cluster="g"), EffectError, "give one of them"),
    "other cluster": (ask("m ~ x + (1 | g)", "y ~ m + x", cluster="w"), EffectError, "use cluster='g'"),
    "cluster name": (ask("m ~ x", "y ~ m + x", cluster=3), EffectError, "name of a column"),
    "one cluster": (
        ask("m ~ x", "y ~ m + x", data=simulated().assign(g=1), cluster="g"), DataError, "g has one value only"
    ),
    "unknown column": (ask("m ~ xx", "y ~ m + xx"), DataError, "column 'xx' is not in the data"),
    "nothing complete": (
        ask("m ~ x", "y ~ m + x", data=simulated().assign(m=np.nan)), DataError, "no row is complete.*m: 300"
    ),
    "collinear": (
        ask("m ~ x", "y ~ m + x + z", data=simulated().assign(z=lambda d: d["m"] - d["x"])), NotIdentifiedError,
        "linear combination of m, x",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_models(name):
    call, error, match = BAD[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        warnings.simplefilter("ignore", DroppedRowsWarning)
        with pytest.raises(error, match=f"(?s){match}") as found:
            call()
    assert isinstance(found.value, MlmedError)


QUESTIONS = {
    "interval": ({"interval": "bayes"}, "must be one of delta, monte-carlo, bootstrap"),
    "interval of R": ({"interval": "quasi-bayes"}, "did you mean 'monte-carlo'"),
    "no seed": ({"interval": "monte-carlo"}, "give a seed"),
    "no seed for replicates": ({"interval": "bootstrap"}, "give a seed"),
    "idle seed": ({"seed": 1}, "interval='delta' does not use seed; seed belongs to"),
    "idle ends": ({"interval": "monte-carlo", "seed": 1, "ends": "bca"}, "does not use ends"),
    "ends by another word": ({"interval": "bootstrap", "seed": 1, "method": "bca"}, "write ends='bca'"),
    "idle draws": ({"interval": "bootstrap", "seed": 1, "ranef_draws": "joint"}, "does not use ranef_draws"),
    "n": ({"interval": "monte-carlo", "seed": 1, "n": 0}, "whole number from 1"),
    "level": ({"level": 95}, "level must be a proportion"),
    "of": ({"of": "cluster"}, "no equation has any; leave it out"),
    "ranef_draws": ({"ranef_draws": "joint"}, "no equation has any"),
    "unknown at": ({"at": {"age": 3}}, "at names 'age', which no equation uses; choose among w"),
    "treatment in at": ({"at": {"x": 1}}, "x, the treatment"),
    "mediator in at": ({"at": {"m": 1}}, "m, the mediator"),
    "text in at": ({"at": {"w": "old"}}, "must be a number"),
    "at": ({"at": 3}, "at is a mapping"),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_bad_questions(name):
    options, match = QUESTIONS[name]
    with pytest.raises(EffectError, match=f"(?s){match}"):
        fitted("linear", "linear").effects(**options)


def test_bad_questions_of_mixed_models(mixed):
    with pytest.raises(EffectError, match="of must be one of population, cluster"):
        mixed.effects(of="clusters")
    with pytest.raises(EffectError, match="ranef_draws must be one of joint, independent"):
        mixed.effects(ranef_draws="none")
    with pytest.raises(EffectError, match="averages over clusters without them"):
        mixed.effects(of="population", ranef_draws="joint")
    with pytest.raises(EffectError, match="single ones are not in every replicate"):
        mixed.groups("bootstrap", seed=1)
    with pytest.raises(EffectError, match="there are no groups"):
        fitted().groups()
    with pytest.raises(EffectError, match="at1 and at2 are the same"):
        fitted().test_moderation({"w": 1}, {"w": 1.0}, 10, seed=1)
    with pytest.raises(EffectError, match="give a seed"):
        fitted().test_interaction(10)
    fit = causal("m ~ x + k", "y ~ m + x", simulated().assign(k=["high", "low", "low"] * 100), treatment="x")
    with pytest.raises(EffectError, match="must be one of 'high', 'low'"):
        fit.effects(at={"k": "middle"})


@pytest.mark.parametrize(
    ("values", "compared"),
    [((1, 2), (1, 2)), ((0, 1), (0, 1)), ((0, 5), (0, 5)), (("a", "b"), ("a", "b")), ((True, False), (0, 1))],
)
def test_two_values_compare_themselves(values, compared):
    """The lower with the upper, the effects of a hand-made 0/1 column; 0 and 1 stay what they were."""
    data = simulated()
    coded = data.assign(x=np.where(data["x"] == 1, max(values), min(values)))
    found = causal("m ~ x", "y ~ m + x", coded)
    expected = causal("m ~ x", "y ~ m + x", data, contrast=(0, 1)).effects()
    assert found.contrast == compared
    numbers = ["estimate", "std_error"]
    np.testing.assert_allclose(found.effects()[numbers], expected[numbers], rtol=SAME)


def test_categories_in_reverse_still_compare_0_with_1():
    data = simulated()
    data["x"] = pd.Categorical(data["x"].astype(int), categories=[1, 0])
    assert causal("m ~ x", "y ~ m + x", data).contrast == (0, 1)


def test_more_values_need_to_be_chosen():
    """As options of Python and of the command line."""
    data = simulated().assign(x=np.resize(["a", "b", "c"], 300))
    with pytest.raises(DataError, match=r"never has the value 0.*contrast=.control, treated"):
        causal("m ~ x", "y ~ m + x", data)
