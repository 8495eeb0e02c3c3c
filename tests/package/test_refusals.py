"""Refusals at the edge of what identifies a model."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.errors import DroppedRowsWarning, EffectError, LevelWarning, NotIdentifiedError
from tests.multivariate.dense import simulated

PAIR = ["y0 ~ x + (1 |c| id)", "y1 ~ x + (1 |c| id)"]


@pytest.mark.parametrize("common", [0, 1])
def test_fewer_than_two_rows_with_both_responses(common):
    """One row has two residuals and no correlation; the message says how many there are."""
    data = simulated(30, 8, seed=2, R=2)
    first = np.arange(len(data)) % 2 == 0
    alone = np.arange(len(data)) >= common
    data.loc[first & alone, "y0"] = np.nan
    data.loc[~first & alone, "y1"] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DroppedRowsWarning)
        with pytest.raises(NotIdentifiedError, match=rf"y0 and y1 are complete together in {common} row"):
            mlmed.mixed(PAIR, data, residual="unstructured")


def test_a_response_of_the_clusters_with_rounding():
    """The same number in all rows of a cluster, but for the eighth digit: not a response of the rows."""
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"id": np.repeat(np.arange(30), 8), "x": rng.normal(size=240)})
    data["y"] = rng.normal(10.0, 1.0, 30)[data["id"]] * (1.0 + 1e-7 * rng.normal(size=240))
    assert data.groupby("id")["y"].nunique().min() > 1
    with pytest.raises(NotIdentifiedError, match="the response y does not vary within clusters"):
        mlmed.mixed("y ~ x + (1 | id)", data)


def test_a_mediator_of_the_clusters_is_for_piecewise():
    """2-2-1: the joint model names the function that fits it; one equation alone has no such advice."""
    data = mlmed.simulate.bpg(20, 6, seed=3).data
    data["M2"], data["arm"] = data.groupby("id")["m"].transform("mean"), (data["id"] % 2).astype(float)
    asked = "M2 ~ arm + (1 | id)", "y ~ M2 + arm + (1 | id)", data
    with pytest.raises(NotIdentifiedError, match=r"mediator M2 does not vary within clusters.*mlmed\.piecewise"):
        mlmed.mediate(*asked)
    with pytest.warns(LevelWarning, match="one row per cluster"):
        assert mlmed.piecewise(*asked).fit.design == "2-2-1"
    with pytest.raises(NotIdentifiedError, match="an ordinary regression"):
        mlmed.mixed(asked[0], data)


def test_a_mediator_whose_effect_depends_on_the_treatment():
    """Refused in words that are true where the indirect effect is a*b, and where it is a*b + cov_ab."""
    data = mlmed.simulate.bpg(20, 6, seed=3).data
    for school in (mlmed.mediate, mlmed.piecewise):
        fit = school("m ~ x + (1 | id)", "y ~ m * x + (1 | id)", data)
        assert "there is no single b to make an indirect effect of" in fit.effects_reason
        assert "a*b" not in fit.effects_reason


def test_an_effect_that_is_not_defined_is_named_with_the_reason():
    """Where a name of the catalogue is asked for; other unknown names are refused with the known ones."""
    data = mlmed.simulate.bpg(20, 6, seed=3).data
    joint, apart = (s("m ~ x + (1 | id)", "y ~ m * x + (1 | id)", data) for s in (mlmed.mediate, mlmed.piecewise))
    asked = [one.nlcom for one in (joint, apart)] + [joint.profile, joint.combined, apart.combined]
    for ask in (*asked, lambda text: joint.test(f"{text} = 0")):
        with pytest.raises(EffectError, match="does not define indirect: the outcome equation has the term m:x"):
            ask("indirect")
    with pytest.raises(EffectError, match="does not define total: the outcome"):
        joint.nlcom({"one": "y~m", "two": "2 * total"})
    with pytest.raises(EffectError, match="names 'other'; known are"):
        joint.nlcom("other")
    with pytest.raises(EffectError, match="names 'indirect'; known are"):
        mlmed.mixed("m ~ x + (1 | id)", data).nlcom("indirect")


def test_a_class_is_no_fit():
    with pytest.raises(EffectError, match=r"location_scale; found the class Results"):
        mlmed.compare(mlmed.Results)
    with pytest.raises(EffectError, match=r"location_scale; found int"):
        mlmed.compare(1)
