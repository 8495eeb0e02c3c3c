"""Rows, moderators and contrasts of separate equations."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.api.piecewise import piecewise
from mlmed.errors import (
    BoundaryWarning,
    DroppedRowsWarning,
    EffectError,
)
from mlmed.fit.system import equation_of
from tests.piecewise_models import LOWER, MEDIATOR, OUTCOME, UPPER, estimates
from tests.tolerances import SAME


def test_left_out_rows_are_said_once(data):
    gaps = data.copy()
    gaps.loc[gaps.index[::17], "m"] = np.nan
    gaps.loc[gaps.index[5:9], "y"] = np.nan
    gaps = gaps.astype({"id": float})
    gaps.loc[gaps.index[-3:], "id"] = np.nan
    with pytest.warns(DroppedRowsWarning) as caught:
        fit = piecewise(MEDIATOR, OUTCOME, gaps)
    said = str(caught[0].message)
    assert len(caught) == 1
    assert said.count("equation m:") == 1
    assert said.count("equation y:") == 1
    assert caught[0].filename == __file__
    complete = gaps.dropna(subset=["id", "m", "x", "y"])
    assert fit.mediator.nobs == gaps.dropna(subset=["id", "m"]).shape[0]
    assert fit.outcome.nobs == fit.reduced.nobs == len(complete)
    reduced = mlmed.mixed("y ~ x + (1 | id)", complete)
    assert fit.reduced.llf == pytest.approx(reduced.llf, rel=SAME)  # like with like: the rows of the outcome equation
    assert "Left out" in fit.summary()
    assert "rows left out" in fit.to_json()
    with pytest.warns(
        DroppedRowsWarning, match="equation q: 1 of 40 clusters left out.*missing q: 1.*equation y"
    ) as caught:
        fit = piecewise(UPPER, LOWER, data.assign(q=data["q"].where(data["id"] != 4)))
    assert len(caught) == 1
    assert fit.mediator.nobs == 39
    assert 4 not in fit.mediator.fit.clusters
    assert "39 clusters" in fit.summary()
    assert "1 of 40" in str(fit.mediator)


def test_more_covariates_in_path_c(data):
    gaps = data.assign(v=data["v"].where(data.index > 9))
    with pytest.warns(DroppedRowsWarning, match="equation y without m: 10 of 240 rows left out"):
        fit = piecewise(MEDIATOR, OUTCOME, gaps, total="y ~ x + v + (1 | id)")
    note = fit.effects().set_index("term").loc["c_minus_cprime", "note"]
    assert "c comes from 230 rows, c' from 240" in note


@pytest.mark.parametrize(("m", "x"), [("m", "x"), ("q", "z")])
def test_moderators(data, m, x):
    """m:w and x:w in both designs: the slopes at a value of w are sums of coefficients."""
    random = "+ (1 | id)"
    first = f"{m} ~ {x}*w" + ("" if m == "q" else f" {random}")
    fit = piecewise(first, f"y ~ {m}*w + {x}*w {random}", data, treatment=x)
    assert fit.reduced.fit.spec.equations[0].text == f"y ~ 1 + w + {x} + {x}:w + (1 | id)"
    found = estimates(fit, at={"w": 2.0})
    p, r = fit.params, fit.reduced.params
    inter = next(name for name in r.index if ":" in name)
    assert found["a"] == pytest.approx(p[f"{m}~{x}"] + 2 * p[f"{m}~{x}:w"], rel=SAME)
    assert found["b"] == pytest.approx(p[f"y~{m}"] + 2 * p[f"y~{m}:w"], rel=SAME)
    assert found["c"] == pytest.approx(r[x] + 2 * r[inter], rel=SAME)
    assert "at w = 2" in fit.effects(at={"w": 2.0}).set_index("term").loc["indirect", "note"]
    boot = fit.effects(interval="bootstrap", n=40, seed=1, at={"w": 2.0}).set_index("term")
    assert boot.loc["indirect", "estimate"] == pytest.approx(found["indirect"], rel=SAME)
    for interval in ("monte-carlo", "product"):
        seed = {"seed": 1} if interval == "monte-carlo" else {}
        table = fit.effects(interval=interval, at={"w": 2.0}, **seed).set_index("term")
        assert table.loc["indirect", "estimate"] == pytest.approx(found["indirect"], rel=SAME)


def test_default_moderators_have_one_value(data):
    """Means over clusters, rows, and fewer rows differ; a*b is taken at one of them, that of the outcome equation."""
    uneven = data[(data["w"] > 0.0) | (data.groupby("id").cumcount() < 2)]
    assert uneven.groupby("id")["w"].first().mean() != pytest.approx(uneven["w"].mean(), abs=0.01)
    above = piecewise("q ~ z*w", "y ~ q*w + z*w + (1 | id)", uneven, treatment="z")
    pd.testing.assert_series_equal(estimates(above), estimates(above, at={"w": uneven["w"].mean()}), rtol=SAME)
    gaps = data.assign(y=data["y"].where(data["w"] < 0.5))
    with pytest.warns(DroppedRowsWarning):
        fewer = piecewise("m ~ x*w + (1 | id)", "y ~ m*w + x + (1 | id)", gaps, treatment="x")
    used = gaps.loc[gaps["y"].notna(), "w"].mean()
    pd.testing.assert_series_equal(estimates(fewer), estimates(fewer, at={"w": used}), rtol=SAME)
    assert fewer.effects().set_index("term").loc["indirect", "note"] == f"at w = {used:.6g} (mean)"


def test_a_moderator_of_path_c_only(data):
    fit = piecewise(MEDIATOR, OUTCOME, data, total="y ~ x*w + (1 | id)")
    found, r = estimates(fit, at={"w": 2.0}), fit.reduced.params
    assert found["c"] == pytest.approx(r["x"] + 2.0 * r["x:w"], rel=SAME)
    assert found["indirect"] == pytest.approx(estimates(fit)["indirect"], rel=SAME)
    with pytest.raises(EffectError, match="at names v, which no equation uses"):
        fit.effects(at={"v": 1.0})


def test_a_moderator_of_one_path_only(data):
    fit = piecewise("m ~ x + (1 | id)", "y ~ m + m:w + x + (1 | id)", data)
    found = estimates(fit, at={"w": 1.0})
    assert found["b"] == pytest.approx(fit.params["y~m"] + fit.params["y~m:w"], rel=SAME)
    assert found["c"] == pytest.approx(fit.reduced.params["x"], rel=SAME)


def test_factor_treatments(data):
    for formulas in (("q ~ g", "y ~ q + g + (1 | id)"), ("m ~ g + (1 | id)", "y ~ m + g + (1 | id)")):
        open_question = piecewise(*formulas, data)
        with pytest.raises(EffectError, match="g has 3 levels"):
            open_question.effects()
        assert "No effects" in open_question.summary()
        fit = piecewise(*formulas, data, contrast=("hi", "lo"))
        m = equation_of(fit.mediator.fit).name
        found = estimates(fit)
        assert found["a"] == pytest.approx(fit.params[f"{m}~g[T.lo]"] - fit.params[f"{m}~g[T.hi]"], rel=SAME)
        assert found["c"] == pytest.approx(fit.reduced.params["g[T.lo]"] - fit.reduced.params["g[T.hi]"], rel=SAME)


def test_treatment_without_a_direct_path(data):
    """Nothing is made up: direct is 0 by construction, its ratio does not exist, and c was not asked for."""
    table = piecewise(MEDIATOR, "y ~ m + (1 | id)", data).effects().set_index("term")
    assert table.loc["direct", "estimate"] == 0.0
    assert table.loc["total", "estimate"] == table.loc["indirect", "estimate"]
    for term, said in (
        ("ratio", "direct is 0"),
        ("c", "total="),
        ("c_minus_cprime", "total="),
        ("cprime", "fixed at 0"),
    ):
        assert said in table.loc[term, "note"]
        assert np.isnan(table.loc[term, "std_error"])
    fit = piecewise(MEDIATOR, "y ~ m + (1 | id)", data, total="y ~ x + (1 | id)")
    assert np.isfinite(estimates(fit)["c"])
    for options in (
        {"interval": "monte-carlo", "seed": 1},
        {"interval": "product"},
        {"interval": "bootstrap", "n": 40, "seed": 1},
    ):
        row = piecewise(MEDIATOR, "y ~ m + (1 | id)", data).effects(**options).set_index("term")
        assert np.isfinite(row.loc["indirect", "conf_low"])
        assert np.isnan(row.loc["ratio", "conf_low"])


def test_interaction_of_treatment_and_mediator_has_no_single_effect(data):
    fit = piecewise(MEDIATOR, "y ~ m*x + (1 | id)", data)
    with pytest.raises(EffectError, match="the effect of m depends on x"):
        fit.effects()
    assert "No effects" in fit.summary()
    assert "No effects" in fit.summary("stata")
    document = json.loads(fit.to_json())
    assert document["effects"] == []
    assert "depends on x" in document["effects_reason"]
    assert fit.reduced.fit.spec.equations[0].text == "y ~ 1 + x + (1 | id)"
    assert fit.nlcom("`m~x` * `y~m`").loc[0, "std_error"] > 0
    assert "indirect" not in fit.bootstrap(3, seed=1).draws


def test_structures_and_labels(data):
    """A mapping of structures gives each equation the labels it has; a double bar stays one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        fit = piecewise("m ~ x + (1 + x |k| id)", "y ~ m + x + (1 + m || id)", data, covariance={"k": "diagonal"})
        same = piecewise("m ~ x + (1 + x | id)", OUTCOME, data, covariance="diagonal")
    assert fit.mediator.G.iloc[0, 1] == 0.0
    assert fit.outcome.G.iloc[0, 1] == 0.0
    assert fit.reduced.fit.spec.equations[0].text == "y ~ 1 + x + (1 || id)"
    assert same.mediator.llf == pytest.approx(fit.mediator.llf, rel=SAME)


def test_odd_names_and_ids(data):
    """Names with blanks, ids of text, a combined id, a transformed mediator."""
    odd = data.rename(columns={"m": "m one", "id": "school id"}).assign(half=data["id"] // 20)
    odd["school id"] = [f"s{k}" for k in odd["school id"]]
    fit = piecewise("`m one` ~ x + (1 | `school id`)", "y ~ `m one` + x + (1 + `m one` | `school id`)", odd)
    plain = piecewise("m ~ x + (1 | id)", "y ~ m + x + (1 + m | id)", data)
    np.testing.assert_allclose(estimates(fit), estimates(plain), rtol=1e-8)
    assert fit.reduced.fit.spec.equations[0].text == "y ~ 1 + x + (1 | school id)"
    combined = piecewise("q ~ z", "y ~ q + z + (1 | half:id)", odd.assign(id=data["id"]))
    np.testing.assert_allclose(estimates(combined), estimates(piecewise(UPPER, LOWER, data)), rtol=1e-8)
    assert combined.bootstrap(3, seed=1, strata="z").n_failed == 0
    logs = data.assign(pos=np.exp(data["m"] / 5), lp=data["m"] / 5)
    one = piecewise("np.log(pos) ~ x + (1 | id)", "y ~ np.log(pos) + x + (1 | id)", logs)
    two = piecewise("lp ~ x + (1 | id)", "y ~ lp + x + (1 | id)", logs)
    np.testing.assert_allclose(estimates(one), estimates(two), rtol=1e-8)


def test_other_data_frames(data, fit, upper):
    polars = pytest.importorskip("polars")
    for formulas, expected in (((MEDIATOR, OUTCOME), fit), ((UPPER, LOWER), upper)):
        for other in (polars.from_pandas(data), polars.from_pandas(data).lazy()):
            found = piecewise(*formulas, other)
            np.testing.assert_allclose(estimates(found), estimates(expected), rtol=1e-8)
            draws = found.bootstrap(3, seed=2, strata="g").draws
            np.testing.assert_allclose(draws, expected.bootstrap(3, seed=2, strata="g").draws, rtol=1e-6, atol=1e-9)
