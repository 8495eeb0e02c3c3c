"""At singular fits: which rows say that their error is one of a boundary value, and which intervals do not exist."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from statsmodels.regression.linear_model import OLS

import mlmed
from mlmed.errors import BoundaryWarning
from mlmed.fit.vcov import BOUNDARY_NOTE
from mlmed.intervals.smallsample import ErrorsAndDf
from mlmed.simulate import BPGTruth
from tests.models import MEDIATOR, OUTCOME

#: Two errors of the same row that differ by more than this share rest on the curvature in the variances.
DIFFERENT = 1e-6


def quiet(make, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        return make(*arguments, **options)


@pytest.fixture(scope="module")
def edge():
    """Rank 4 of 5, and standard errors of the variances exist."""
    G = np.array(BPGTruth().G)
    G[4, :] = G[:, 4] = 0.0
    fit = quiet(mlmed.mediate, MEDIATOR, OUTCOME, mlmed.simulate.bpg(30, 8, truth=BPGTruth(G=G), seed=5).data)
    assert fit.is_singular
    assert not fit.fit.vcov().reason
    return fit


def flagged(table):
    return table["note"].str.contains(BOUNDARY_NOTE, regex=False)


@pytest.mark.parametrize("kind", ["block", "joint", "CR0", "CR1", "CR2", "cluster"])
def test_every_row_that_rests_on_the_variances_and_no_other(edge, kind):
    """A fixed effect does where its error is another one than with variances that do not move."""
    p = len(edge.params)
    fixed = {"block": "block", "joint": "block", "cluster": "CR1"}.get(kind, kind)
    own, still = (np.sqrt(np.diag(edge.vcov(one))) for one in (kind, fixed))
    moved = np.abs(own / still - 1.0) > DIFFERENT
    assert moved[:p].all() == (kind in ("joint", "cluster"))
    tidy = edge.tidy(vcov=kind)
    expected = np.concatenate([moved[:p], np.repeat([True, False], [len(edge.fit.estimates.tau), 2])])
    assert flagged(tidy).tolist() == expected.tolist()
    assert flagged(edge.fixef(vcov=kind)).tolist() == expected[:p].tolist()
    rows = edge.effects(vcov=kind).set_index("term")
    paths = {"a": "m~x", "b": "y~m", "cprime": "y~x", "direct": "y~x"}
    wanted = {term: bool(moved[edge.names.index(name)]) for term, name in paths.items()}
    wanted |= dict.fromkeys(("cov_ab", "indirect", "total"), True)
    assert flagged(rows).to_dict() == wanted
    asked = edge.nlcom(
        {"b": "b", "d": "a - cprime", "v": "var(y~m)", "s": "sd(m~x)", "e": "var(y~Residual)"}, vcov=kind
    )
    assert flagged(asked).tolist() == [wanted["b"], wanted["a"], True, True, False]
    drawn = edge.effects(vcov=kind, interval="monte-carlo", n=100, seed=1).set_index("term")
    assert flagged(drawn).to_dict() == wanted
    document = json.loads(edge.to_json(vcov=kind))
    told = {row["term"]: BOUNDARY_NOTE in row["note"] for row in [*document["fixef"], *document["effects"]]}
    assert {term: told[term] for term in wanted} == wanted
    assert told["y~m"] == wanted["b"]
    summary = edge.summary(vcov=kind).split("Fixed effects")[1].split("Random effects")[0]
    assert (BOUNDARY_NOTE in " ".join(summary.split())) == bool(moved[:p].any())


@pytest.mark.parametrize("ddf", ["satterthwaite", "residual"])
def test_with_degrees_of_freedom(edge, ddf):
    assert flagged(edge.fixef(vcov="joint", ddf=ddf)).all()
    assert not flagged(edge.fixef(vcov="block", ddf=ddf)).any()
    assert flagged(edge.effects(vcov="joint", ddf=ddf)).all()


def test_fixed_effects_that_do_not_move_with_the_variances():
    """Where all clusters have the same rows, generalized and ordinary least squares are the same at any variance."""
    rng = np.random.default_rng(2)
    x, codes = np.tile(np.arange(6.0), 20), np.repeat(np.arange(20), 6)
    within, between = rng.normal(size=(20, 6)), rng.normal(size=20)
    within -= within.mean(axis=1, keepdims=True)
    between = (between - between.mean()) / between.std(ddof=1)
    # clusters a bit more alike than chance would have them: the variance is 0
    noise = within + between[:, None] * np.sqrt(0.8 * (within**2).sum() / 100 / 6)
    fit = quiet(mlmed.mixed, "y ~ x + (1 | id)", pd.DataFrame({"id": codes, "x": x, "y": 0.3 * x + noise.ravel()}))
    assert fit.is_singular
    assert not fit.fit.vcov().reason
    for kind in ("joint", "cluster"):
        assert flagged(fit.tidy(vcov=kind)).tolist() == [False, False, True, False]


def test_a_regular_fit_says_nothing():
    fit = mlmed.mediate(MEDIATOR, OUTCOME, mlmed.simulate.bpg(60, 12, seed=2).data)
    assert not fit.is_singular
    for kind in ("joint", "cluster"):
        assert not flagged(fit.tidy(vcov=kind)).any()


def test_separate_equations_and_profiles(edge):
    """Both have the errors of the fits that they are made of."""
    fit = quiet(mlmed.piecewise, MEDIATOR, OUTCOME, edge.fit.table)
    assert fit.outcome.is_singular
    assert not fit.mediator.is_singular
    rows = fit.effects(vcov="joint").set_index("term")
    assert flagged(rows)[["a", "b", "cprime", "indirect", "direct"]].tolist() == [False, True, True, True, True]
    assert not flagged(fit.effects(vcov="block")).any()
    assert flagged(fit.nlcom({"v": "`var(y~m)`", "w": "`var(m~x)`"})).tolist() == [True, False]
    table = edge.effects(interval="profile", vcov="joint").set_index("term")
    assert table.loc["b", "note"] == f"std_error: {BOUNDARY_NOTE}"


# -- degrees of freedom ----------------------------------------------------------------------------------------


def test_fewer_than_one_degree_of_freedom_make_no_interval():
    """Satterthwaite's df of .01 to .03 would reach 10^20 standard errors and more."""
    fit = quiet(mlmed.mixed, "y ~ m + x + (1 + m + x | id)", mlmed.simulate.bpg(15, 4, seed=6).data)
    assert fit.is_singular
    table = fit.tidy(vcov="joint", ddf="satterthwaite").iloc[:3]
    assert (table["df"] < 0.1).all()
    assert table[["p_value", "conf_low", "conf_high"]].isna().all().all()
    assert table["std_error"].notna().all()
    assert table["note"].str.contains("no test and no interval: 0.0.* df .Satterthwaite. are fewer than 1").all()
    fixef = fit.fixef(vcov="joint", ddf="satterthwaite")
    assert fixef[["p_value", "conf_low", "conf_high"]].isna().all().all()
    assert "no test and no interval" in " ".join(fit.summary(vcov="joint", ddf="satterthwaite").split())
    document = json.loads(fit.to_json(vcov="joint", ddf="satterthwaite"))
    assert document["fixef"][0]["conf_low"] is None


def test_kenward_and_roger_have_the_same_line():
    """Degrees of freedom of 3.4, 1.8 and .41."""
    fit = quiet(mlmed.mixed, "y ~ m + x + (1 + m + x | id)", mlmed.simulate.bpg(6, 5, seed=19).data)
    table = fit.fixef(ddf="kenward-roger").set_index("term")
    assert table["conf_low"].notna().tolist() == [True, True, False]
    assert table["p_value"].notna().tolist() == [True, True, False]
    assert table.loc["m", "note"].endswith("df: Kenward-Roger, too few to be of use")
    assert "df (Kenward-Roger) are fewer than 1" in table.loc["x", "note"]


def test_effects_with_too_few():
    """The line is the same for effects: an interval exists where there is at least one degree of freedom."""
    fit = quiet(mlmed.mediate, MEDIATOR, OUTCOME, mlmed.simulate.bpg(15, 6, seed=11).data)
    table = fit.effects(vcov="joint", ddf="satterthwaite").set_index("term")
    few = ["cprime", "cov_ab", "indirect", "direct"]  # .08 to .34
    assert table.loc[few, ["p_value", "conf_low", "conf_high"]].isna().all().all()
    assert table.loc[few, "note"].str.contains("are fewer than 1").all()
    assert table.loc[few, "std_error"].notna().all()
    others = table.drop(few)
    assert others[["p_value", "conf_low", "conf_high"]].notna().all().all()
    assert others["note"].str.contains("df: Satterthwaite").all()


def test_one_degree_of_freedom_is_enough():
    """Three clusters and a predictor of theirs: the t interval of three means, exact with 1 df."""
    rng = np.random.default_rng(1)
    codes = np.repeat(np.arange(3), 10)
    z = np.array([0.0, 1.0, 2.5])
    y = np.array([0.0, 3.0, -1.0])[codes] + rng.normal(size=30)
    fit = mlmed.mixed("y ~ z + (1 | id)", pd.DataFrame({"id": codes, "z": z[codes], "y": y}))
    means = np.bincount(codes, weights=y) / 10
    low, high = OLS(means, np.column_stack([np.ones(3), z])).fit().conf_int()[1]
    for ddf in ("satterthwaite", "kenward-roger"):
        row = fit.tidy(ddf=ddf).iloc[1]
        assert row["df"] == pytest.approx(1.0, rel=1e-3)
        assert [row["conf_low"], row["conf_high"]] == pytest.approx([low, high], rel=0.01)
        assert "too few to be of use" in row["note"]


def test_where_the_line_stands():
    df = np.array([1e-3, 0.35, 0.97, 0.9999, 1.0, 2.0, np.inf, np.nan])
    usable = ErrorsAndDf(np.ones(8), df, ("",) * 8).usable
    np.testing.assert_array_equal(usable, [*[np.nan] * 3, *df[3:]])
