"""A school of its own needs one file, a catalogue: intervals, tables, text, JSON and pictures are there already."""

import json
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

import mlmed
from mlmed.effects.catalogue import Catalogue, Effects, FormSet, IntervalOptions
from mlmed.errors import EffectError
from mlmed.intervals.values import Bootstrap, Delta, MonteCarlo, Profile
from mlmed.results.results import Results
from tests.tolerances import SAME

#: The two sides of an equation are the same up to rounding.
ROUNDING = 1e-9


def contextual(within, between):
    """The effects, written once for quantities and for draws."""
    return {"within": within, "between": between, "contextual": between - within, "share": within / between}


@dataclass(frozen=True)
class Contextual(Catalogue):
    """How the slope of the cluster means differs from that within clusters."""

    school: ClassVar[str] = "contextual"
    terms: ClassVar[tuple[str, ...]] = ("within", "between", "contextual", "share")

    intervals: ClassVar[IntervalOptions] = {
        "delta": {"vcov": "block", "order": "first", "ddf": "none"},
        "monte-carlo": {"vcov": "block", "n": 2000, "seed": None},
        "profile": {"vcov": "block"},
        "bootstrap": {"n": 40, "kind": "case", "ends": "percentile", "seed": None},
    }

    within: str
    between: str

    def effects(self, fit: Any, at: Any = None) -> FormSet:
        names = [one.name for one in fit.parameters]
        if self.between not in names:
            raise EffectError(f"{self.between} is not in the model, so there is no slope between clusters")
        weights = np.array([[float(name == one) for one in names] for name in (self.within, self.between)])
        forms = Effects(contextual, ("within", "between"), weights, ("", ""), ((), ()))
        return FormSet(fit, forms, forms.quantities(fit.psi), lambda e: forms.quantities(e.psi))


@pytest.fixture(scope="module")
def data():
    frame = mlmed.datasets.load("yuan_mackinnon_sim")
    means = frame.groupby("group")["X"].transform("mean")
    return frame.assign(xw=frame["X"] - means, xb=means)


@pytest.fixture(scope="module")
def fit(data):
    mixed = mlmed.mixed("Med ~ xw + xb + (1 | group)", data)
    return Results(mixed.fit, Contextual("xw", "xb"))


@pytest.mark.parametrize("interval", ["delta", "monte-carlo", "profile", "bootstrap"])
def test_every_interval(fit, interval):
    seed = {"seed": 1} if interval in ("monte-carlo", "bootstrap") else {}
    table = fit.effects(interval, **seed).set_index("term")
    assert list(table.index) == list(Contextual.terms)
    np.testing.assert_allclose(table["estimate"]["contextual"], fit.params["xb"] - fit.params["xw"], rtol=SAME)
    ends = table.drop(index="share") if interval == "profile" else table  # one end of a quotient is infinite
    assert (ends["conf_low"] < ends["estimate"]).all()
    assert (ends["estimate"] < ends["conf_high"]).all()


def test_the_delta_method_is_that_of_nlcom(fit):
    ours = fit.effects().set_index("term")
    for term, expression in (("contextual", "xb - xw"), ("share", "xw / xb")):
        theirs = fit.nlcom(expression, order="first").iloc[0]
        np.testing.assert_allclose(ours.loc[term, "std_error"], theirs["std_error"], rtol=ROUNDING)


def test_the_profile_is_that_of_the_expression(fit):
    table = fit.effects("profile").set_index("term")
    low, high = fit.profile("xb - xw", points=4).interval
    np.testing.assert_allclose(table.loc["contextual", ["conf_low", "conf_high"]].astype(float), [low, high], rtol=1e-6)


def test_values_are_what_names_stand_for(fit):
    for value, options in (
        (Delta(order="first"), {"interval": "delta"}),
        (MonteCarlo(n=500, seed=3), {"interval": "monte-carlo", "n": 500, "seed": 3}),
        (Profile(), {"interval": "profile"}),
        (Bootstrap(n=25, seed=3, ends="basic"), {"interval": "bootstrap", "n": 25, "seed": 3, "ends": "basic"}),
    ):
        left, right = fit.effects(value), fit.effects(**options)
        np.testing.assert_array_equal(left["conf_low"], right["conf_low"])
    with pytest.raises(EffectError, match="does not use strata"):
        fit.effects(Bootstrap(n=25, seed=3, strata="arm"))
    with pytest.raises(EffectError, match="has its own options"):
        fit.effects(Delta(), vcov="joint")


def test_effects_are_named_in_expressions_and_documents(fit):
    assert fit.nlcom("contextual / within").iloc[0]["estimate"] == pytest.approx(
        (fit.params["xb"] - fit.params["xw"]) / fit.params["xw"], rel=SAME
    )
    document = json.loads(fit.to_json())
    assert [row["term"] for row in document["effects"]] == list(Contextual.terms)
    assert "Effects (delta method, first order; block standard errors)" in fit.summary()
    assert "contextual" in set(mlmed.compare(fit, mlmed.mixed("Med ~ X + (1 | group)", _frame(fit))).long["term"])


def _frame(fit):
    return fit.fit.table


def test_a_model_without_them_says_so(data):
    other = Results(mlmed.mixed("Med ~ xw + (1 | group)", data).fit, Contextual("xw", "xb"))
    assert "no slope between clusters" in other.effects_reason
    with pytest.raises(EffectError, match="no slope between clusters"):
        other.effects()
    assert not len(other.sections()["effects"])
