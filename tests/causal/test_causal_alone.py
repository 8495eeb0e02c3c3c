"""Robust errors of ``causal`` where one cluster, or one row, alone gives a coefficient."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM
from statsmodels.regression.linear_model import OLS

import mlmed
from mlmed.effects.potential import EFFECTS
from mlmed.errors import BoundaryWarning
from mlmed.glm.fit import fit_glm, hc_vcov, moves_of_one
from mlmed.options import HC_KINDS
from tests.causal_models import vcov_of

INFERENCE = ["std_error", "p_value", "conf_low", "conf_high"]


def trial(n_clusters=12, n_rows=10, seed=1):
    """``one``: treated is cluster 3 alone; ``only``: row 5 alone; ``z``: treated are rows of every cluster."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(n_clusters), n_rows)
    u, v = 0.5 * rng.normal(size=(2, n_clusters))[:, g]
    d = pd.DataFrame({"id": g, "one": 1.0 * (g == 3), "z": 1.0 * (rng.random(len(g)) < 0.5)})
    d["w"] = rng.normal(size=len(g))
    d["only"] = 1.0 * (np.arange(len(g)) == 5)
    d["m"] = 0.3 * d["z"] + 0.4 * d["one"] + u + rng.normal(size=len(g))
    d["y"] = 0.5 * d["m"] + 0.2 * d["z"] + v + rng.normal(size=len(g))
    return d.assign(bad=1.0 * (d["y"] + rng.normal(size=len(g)) > 0.3))


@pytest.fixture(scope="module")
def data():
    return trial()


def ask(mediator, outcome, data, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        return mlmed.causal(mediator, outcome, data, **options)


FORMULAS = {
    "plain": ("m ~ one + w", "y ~ m + one + w", {}),
    "interaction": ("m ~ one + w", "y ~ m * one + w", {}),
    "probit": ("m ~ one + w", "bad ~ m + one", {"family_y": "probit"}),
    "mixed": ("m ~ one + (1 | id)", "y ~ m + one + (1 | id)", {}),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_effects_of_a_treatment_of_one_cluster(data, name):
    first, second, options = FORMULAS[name]
    fit = ask(first, second, data, treatment="one", cluster="id", **options)
    table = fit.effects().set_index("term")
    assert list(table.index) == list(EFFECTS)
    assert table[INFERENCE].isna().all().all()
    assert table["note"].str.contains("without cluster 3 \\(id\\)").all()
    drawn = fit.effects("monte-carlo", n=60, seed=1).set_index("term")
    assert drawn[INFERENCE].isna().all().all()
    assert drawn["note"].str.contains("without cluster 3 \\(id\\)").all()
    groups = fit.groups()
    assert groups[INFERENCE].isna().all().all()
    assert groups["note"].str.contains("without cluster 3 \\(id\\)").all()
    tidy = fit.fixef().set_index("term")
    assert tidy.index[tidy["std_error"].isna()].tolist() == [term for term in tidy.index if term.endswith("one")]
    assert json.loads(fit.to_json())["effects"][0]["std_error"] is None
    assert "without cluster 3 (id)" in " ".join(fit.summary().split())
    plain = ask(first, second, data, treatment="one", **options).effects()  # model-based errors exist
    assert plain["std_error"].notna().all()


@pytest.mark.parametrize("of", ["cluster", "population"])
def test_a_treatment_that_every_cluster_has_keeps_its_effects(data, of):
    """The covariate of one cluster is part of no effect; statsmodels has the same errors of a and b."""
    fit = ask("m ~ z + one", "y ~ m + z + one", data, treatment="z", cluster="id")
    table = fit.effects().set_index("term")
    assert table["std_error"].notna().all()
    assert not table["note"].str.contains("without cluster").any()
    X = np.column_stack([np.ones(len(data)), data[["z", "one"]]])
    M = np.column_stack([np.ones(len(data)), data[["m", "z", "one"]]])
    asked = {"cov_type": "cluster", "cov_kwds": {"groups": data["id"].to_numpy(), "use_correction": False}}
    first, second = OLS(data["m"].to_numpy(), X).fit(**asked), OLS(data["y"].to_numpy(), M).fit(**asked)
    a, b, Va, Vb = first.params[1], second.params[1], first.bse[1] ** 2, second.bse[1] ** 2
    expected = np.sqrt(12 / 11 * (b**2 * Va + a**2 * Vb))
    assert table.loc["acme", "std_error"] == pytest.approx(expected, rel=1e-8)
    mixed = ask("m ~ z + one + (1 | id)", "y ~ m + z + one + (1 | id)", data, treatment="z", cluster="id")
    assert mixed.effects(of=of)["std_error"].notna().all()


def test_two_clusters(data):
    """A treatment between them has no error; one within them has, and is told not to be trusted."""
    two = data[data["id"].isin([3, 4])].reset_index(drop=True)
    between = ask("m ~ one + w", "y ~ m + one + w", two, treatment="one", cluster="id")
    assert between.effects()[INFERENCE].isna().all().all()
    assert between.effects()["note"].str.contains("without cluster 3 \\(id\\) or cluster 4 \\(id\\)").all()
    within = ask("m ~ z + w", "y ~ m + z + w", two, treatment="z", cluster="id")
    assert within.tidy()["std_error"].notna().all()
    said = "from 2 clusters has rank 1 at most for {} coefficients: do not trust it"
    assert within.tidy()["note"].str.contains(said.format("[34]")).all()
    for table in (within.effects(), within.effects("monte-carlo", n=60, seed=1), within.groups()):
        assert table["note"].str.contains(said.format(4)).all()
    rows = json.loads(within.to_json())
    assert all("do not trust it" in row["note"] for row in [*rows["effects"], *rows["fixef"]])
    V = vcov_of(within, "mediator")
    meat = np.linalg.matrix_rank(V, tol=1e-10 * np.abs(V).max())
    assert meat == 1


def test_differences_of_effects(data):
    """The moderated effect rests on the treatment's coefficient; the direct one does not differ."""
    fit = ask("m ~ one + w", "y ~ m * w + one", data, treatment="one", cluster="id")
    table = fit.test_moderation({"w": 0.0}, {"w": 1.0}, n=60, seed=1).set_index("term")
    assert table.loc["acme(at1) - acme(at2)", INFERENCE].isna().all()
    assert "without cluster 3 (id)" in table.loc["acme(at1) - acme(at2)", "note"]
    assert "without cluster" not in table.loc["ade(at1) - ade(at2)", "note"]
    fit = ask("m ~ one + w", "y ~ m * one + w", data, treatment="one", cluster="id")
    assert fit.test_interaction(60, seed=1)[INFERENCE].isna().all().all()
    fit = ask("m ~ z + one", "y ~ m * z + one", data, treatment="z", cluster="id")
    assert fit.test_interaction(60, seed=1)[INFERENCE].notna().all().all()


# -- one row ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HC_KINDS)
def test_one_row_alone_gives_a_coefficient(data, kind):
    """Least squares with a dummy of one row is least squares without it."""
    fit = ask("m ~ z + only", "y ~ m + z + only", data, treatment="z", vcov=kind)
    found = fit.tidy().set_index("term")
    rest = data[data["only"] == 0.0]
    theirs = OLS(rest["m"].to_numpy(), np.column_stack([np.ones(len(rest)), rest["z"]])).fit()
    expected = getattr(theirs, f"{kind}_se")
    if kind == "HC1":
        expected = expected * np.sqrt(120 / 119)  # n / (n - p) with the row and its coefficient, and without both
    np.testing.assert_allclose(found.loc[["m~Intercept", "m~z"], "std_error"], expected, rtol=1e-8)
    assert found.loc[["m~only", "y~only"], INFERENCE].isna().all().all()
    assert found.loc["m~only", "note"].startswith("no robust standard error: without row 6 of those used")
    assert fit.effects()["std_error"].notna().all()
    lost = ask("m ~ only + z", "y ~ m + z + only", data, treatment="only", vcov=kind).effects()
    assert lost[INFERENCE].isna().all().all()


def test_rows_of_a_generalized_linear_model(data):
    """Rows are weighted, which does not change who notices what; HC0 is that of statsmodels."""
    own = data.assign(bad=np.where(data["id"] == 3, np.arange(len(data)) % 2, data["bad"]))
    X = np.column_stack([np.ones(len(own)), own[["w", "one"]]])
    fit = fit_glm("logit", own["bad"].to_numpy(dtype=float), X, names=("Intercept", "w", "one"), response="bad")
    found = moves_of_one(fit, own["id"].to_numpy())
    assert found.owners.tolist() == [3]
    assert (found.moves[:, 0] != 0.0).tolist() == [False, False, True]
    assert moves_of_one(fit).moves.shape == (3, 0)
    theirs = GLM(own["bad"].to_numpy(), X, family=Binomial()).fit(cov_type="HC0")
    np.testing.assert_allclose(np.sqrt(np.diag(hc_vcov(fit, "HC0"))), theirs.bse, rtol=1e-6)


def test_moves_do_not_depend_on_units(data):
    """Columns far from 0 and of odd sizes."""
    for shift, scale in ((0.0, 1.0), (1e3, 0.1)):
        X = np.column_stack([np.ones(len(data)), shift + scale * data["z"], shift + scale * data["one"]])
        fit = fit_glm("linear", data["m"].to_numpy(), X, names=("Intercept", "z", "one"), response="m")
        found = moves_of_one(fit, data["id"].to_numpy())
        assert found.owners.tolist() == [3]
        assert (found.moves[:, 0] != 0.0).tolist() == [shift != 0.0, False, True]


# -- bootstrap and sensitivity -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "mixed"])
def test_draws_of_clusters(data, name):
    first, second, options = FORMULAS[name]
    fit = ask(first, second, data, treatment="one", cluster="id", **options)
    boot = fit.bootstrap(45, seed=1)
    assert 5 <= boot.n_failed <= 30
    table = boot.tidy()
    assert table[INFERENCE].isna().all().all()
    assert table["note"].str.contains("no interval: without cluster 3 \\(id\\)").all()
    keeps = ask("m ~ z + one", "y ~ m + z + one", data, treatment="z", cluster="id").bootstrap(70, seed=1).tidy()
    assert keeps[["conf_low", "conf_high"]].notna().all().all()


def test_draws_of_rows(data):
    boot = ask("m ~ only + z", "y ~ m + only + z", data, treatment="only").bootstrap(45, seed=1)
    assert boot.tidy()["note"].str.contains("no interval: without row 6 of those used").all()
    assert boot.tidy()[["conf_low", "conf_high"]].isna().all().all()


@pytest.mark.parametrize("outcome", ["y ~ m + one + w", "y ~ m + one", "bad ~ m + one + w"])
def test_sensitivity(data, outcome):
    """Separate fits at every rho, and joint ones; the covariate of one cluster is no part of another effect."""
    family = {"family_y": "probit"} if outcome.startswith("bad") else {}
    fit = ask("m ~ one + w", outcome, data, treatment="one", cluster="id", **family)
    for options in ({}, {"seed": 1, "n": 50}):
        found = fit.sensitivity(rho=[0.0, 0.4], **options)
        assert found.table[["std_error", "conf_low", "conf_high"]].isna().all().all()
        assert found.table["note"].str.contains("without cluster 3 \\(id\\)").all()
        assert found.table["estimate"].notna().all()
    assert "No interval contains zero" not in str(found)
    assert "Without an interval at" in str(found)
    other = ask("m ~ z + one", "y ~ m + z + one", data, treatment="z", cluster="id").sensitivity(rho=[0.0, 0.4])
    assert other.table["std_error"].notna().all()


def test_a_row_of_sensitivity(data):
    fit = ask("m ~ only + z", "y ~ m + only + z", data, treatment="only", vcov="HC3")
    assert fit.sensitivity(rho=[0.0]).table["std_error"].isna().all()


@pytest.mark.parametrize("covariate", ["C(site)", "one"])
def test_the_level_of_a_cluster_is_no_comparison(covariate):
    """A dummy that one cluster alone gives moves the level of its rows: effects keep their errors, with a link too.

    A treatment that only this cluster has, alone or in a product, loses them.
    """
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(12), 6)
    u, z = rng.normal(size=(12, 2)), (rng.uniform(size=72) < 0.5) * 1.0
    m = 0.5 * z + u[ids, 0] + rng.normal(size=72)
    y = 0.5 * m + 0.3 * z + 0.4 * u[ids, 1] + rng.normal(size=72)
    data = pd.DataFrame({"z": z, "m": m, "yb": (y > y.mean()) * 1, "site": ids // 2, "one": (ids // 2 == 3) * 1.0})
    asked = {"treatment": "z", "cluster": "site", "family_y": "logit"}
    kept = mlmed.causal(f"m ~ z + {covariate}", f"yb ~ m + z + {covariate}", data, **asked).effects()
    assert kept["std_error"].notna().all()
    lost = mlmed.causal("m ~ z * one", "yb ~ m + z", data, **asked).effects().set_index("term")
    assert np.isnan(lost.loc["acme_control", "std_error"])
    assert "without cluster" in lost.loc["acme_control", "note"]
