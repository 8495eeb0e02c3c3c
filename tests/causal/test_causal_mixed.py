"""Potential outcomes of mixed models: conditional modes, their draws, population effects."""

from __future__ import annotations

import numdifftools as nd
import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.api.causal import causal
from mlmed.effects.average import Parameters, average_effects, cluster_effects, cluster_slopes
from mlmed.effects.potential import (
    CONTRASTS,
    WEIGHTS,
)
from mlmed.effects.uncertainty import contrast_covariance, parameters_of, slopes_at
from mlmed.glm.family import mean_of
from tests.causal_models import EXACT, MIXED, brute, chain, column, effects_of, fitted, simulated
from tests.tolerances import DERIVATIVE, SAME


def test_random_effects_given_the_data():
    """Modes, covariances and their slide with beta: Henderson's equations, which are the posterior with flat beta."""
    data = two_level("linear").iloc[:120]
    fit = chain(causal("m ~ x + (1 + x | g)", "y ~ m + x", data)).mediator
    law, estimates = fit.fit.law(), fit.fit.estimates
    J, q = law.modes.shape
    (X,), V = fit.columns([{}]), fit.vcov("block").matrix
    Z = np.zeros((len(X), J * q))
    codes = fit.fit.clusters.get_indexer(data["g"])
    for k in range(q):
        Z[np.arange(len(X)), codes * q + k] = X[:, k]
    G = estimates.G + 1e-12 * np.eye(q)
    W = np.hstack([X, Z])
    C = W.T @ W / estimates.sigma2[0]
    C[2:, 2:] += np.kron(np.eye(J), np.linalg.inv(G))
    posterior = np.linalg.inv(C)
    mean = posterior @ W.T @ data["m"] / estimates.sigma2[0]
    tight = {"rtol": 1e-6, "atol": 1e-7}
    np.testing.assert_allclose(mean[:2], fit.beta, **tight)
    np.testing.assert_allclose(mean[2:], law.modes.ravel(), **tight)
    np.testing.assert_allclose(posterior[:2, :2], V, **tight)
    slide = law.slide.reshape(J * q, 2)
    np.testing.assert_allclose(posterior[2:, :2], -slide @ V, **tight)
    N = np.zeros((J * q, J * q))
    for j in range(J):
        N[j * q : (j + 1) * q, j * q : (j + 1) * q] = law.covariances[j]
    np.testing.assert_allclose(posterior[2:, 2:], slide @ V @ slide.T + N, **tight)


def test_draws_of_random_effects(mixed):
    """Moments of drawn effects; ``independent`` has their sizes and no more."""
    law, rng = chain(mixed).outcome.fit.law(), np.random.default_rng(1)
    shift = np.tile(np.array([[0.1, -0.2, 0.05]]), (20_000, 1))
    draws = law.draw(shift, rng)
    np.testing.assert_allclose(draws.mean(axis=0), law.modes - law.slide @ shift[0], atol=0.012)
    np.testing.assert_allclose(np.cov(draws[:, 3].T), law.covariances[3], atol=0.002)
    plain = law.independent()
    np.testing.assert_array_equal(plain.slide, 0.0)
    np.testing.assert_allclose(
        plain.covariances, np.einsum("jaa,ab->jab", law.covariances, np.eye(3)), rtol=0, atol=SAME
    )


def test_modes_are_those_of_ranef(mixed):
    ranef = mlmed.mixed(MIXED[1], mlmed.datasets.load("yuan_mackinnon_sim")).ranef()
    np.testing.assert_allclose(chain(mixed).outcome.fit.law().modes.T.ravel(), ranef["estimate"], rtol=1e-8, atol=1e-10)


def test_mixed_effects_row_by_row(mixed):
    """Sums of products against every row with the coefficients of its cluster."""
    data = mlmed.datasets.load("yuan_mackinnon_sim")
    codes = chain(mixed).grouping.codes
    a = chain(mixed).mediator.beta + chain(mixed).mediator.fit.law().modes
    b = chain(mixed).outcome.beta + chain(mixed).outcome.fit.law().modes  # Intercept, X, Med
    products = (a[:, 1] * b[:, 2])[codes]
    found = column(mixed.effects())
    assert found["acme"] == pytest.approx(products.mean(), rel=SAME)
    assert found["ade"] == pytest.approx(b[codes, 1].mean(), rel=SAME)
    assert found["total"] == pytest.approx(found["acme"] + found["ade"], rel=SAME)
    table = mixed.groups()
    assert list(table.columns[:3]) == ["group", "nobs", "term"]
    one = table[table["term"] == "acme"]
    np.testing.assert_allclose(one["estimate"], a[:, 1] * b[:, 2], rtol=SAME)
    assert one["group"].tolist() == data["group"].drop_duplicates().tolist()
    average = np.average(one["estimate"], weights=one["nobs"])
    assert average == pytest.approx(found["acme"], rel=SAME)


def test_mixed_numbers(mixed):
    """About -.115, .28, .165 (two R runs: -.1144 and -.1153, .2877 and .2758, .1733); a*b for the population."""
    found = column(mixed.effects())
    assert found[["acme", "ade", "total"]].round(3).tolist() == [-0.115, 0.286, 0.171]
    population = column(mixed.effects(of="population"))
    product = chain(mixed).mediator.beta[1] * chain(mixed).outcome.beta[2]
    assert population["acme"] == pytest.approx(product, abs=EXACT, rel=0)
    assert round(product, 4) == -0.0341
    independent = mixed.effects("monte-carlo", n=4000, seed=1, ranef_draws="independent").set_index("term")
    np.testing.assert_allclose(
        independent.loc["acme", ["conf_low", "conf_high"]].astype(float), [-0.18, -0.06], atol=0.01
    )
    np.testing.assert_allclose(independent.loc["ade", ["conf_low", "conf_high"]].astype(float), [0.08, 0.5], atol=0.02)


@pytest.mark.parametrize("ranef_draws", ["joint", "independent"])
def test_mixed_delta_and_draws_agree(mixed, ranef_draws):
    """First order against 4,000 draws of coefficients and random effects; also cluster by cluster."""
    terms = ["acme", "ade", "total"]
    delta = mixed.effects(ranef_draws=ranef_draws).set_index("term").loc[terms, "std_error"]
    draws = mixed.effects("monte-carlo", n=4000, seed=2, ranef_draws=ranef_draws).set_index("term")
    second_order = 1.3 if ranef_draws == "independent" else 1.06  # products of what is not small
    ratio = draws.loc[terms, "std_error"] / delta
    assert ratio.between(0.95, second_order).all()
    by_delta = mixed.groups(ranef_draws=ranef_draws)["std_error"]
    by_draws = mixed.groups("monte-carlo", n=2000, seed=2, ranef_draws=ranef_draws)["std_error"]
    assert (by_draws / by_delta).median() == pytest.approx(1.0, abs=0.1)


def test_clusters_add_up():
    """Contrasts by cluster from rows and from sums of products; averages of slopes are slopes of averages."""
    for outcome in ("linear", "probit"):
        fit = fitted("linear", outcome, cluster="g")
        prepared = effects_of(fit, by_cluster=True)
        whole = effects_of(fit)
        parameters = parameters_of(*prepared.laws(), 15)
        by_cluster = cluster_effects(prepared.rows.setting, parameters)[0]
        share = prepared.rows.setting.sizes / 300
        average = average_effects(whole.rows.setting, parameters_of(*whole.laws(), 1))[0]
        np.testing.assert_allclose(share @ by_cluster, average, rtol=1e-8, atol=1e-12)
        slopes = cluster_slopes(prepared.rows.setting, parameters)
        np.testing.assert_allclose(slopes.values.T, by_cluster, rtol=1e-8, atol=1e-12)
        one = contrast_covariance(slopes, *prepared.laws()).vcov.matrix
        np.testing.assert_allclose(one, whole.contrasts().vcov.matrix, rtol=1e-8, atol=1e-14)


def two_level(family_y: str, *, seed: int = 2) -> pd.DataFrame:
    """A mediator with random intercepts and slopes, an outcome of any family."""
    rng = np.random.default_rng(seed)
    g, x = np.repeat(np.arange(40), 10), rng.normal(size=400)
    u = rng.normal(size=(40, 2)) * [0.8, 0.5]
    m = u[g, 0] + (0.5 + u[g, 1]) * x + rng.normal(size=400)
    mean = mean_of(family_y, 0.4 * m + 0.2 * x - 0.1)
    if family_y == "linear":
        y = mean + rng.normal(size=400)
    else:
        y = rng.poisson(mean) if family_y == "poisson" else (rng.random(400) < mean)
    return pd.DataFrame({"g": g, "x": x, "m": m, "y": y.astype(float)})


@pytest.mark.parametrize("family_y", ["logit", "probit", "poisson"])
def test_mixed_mediator_and_other_outcome(family_y):
    """Modes row by row, and the population by a sum over the mediator's whole distribution."""
    fit = causal("m ~ x + (1 + x | g)", "y ~ m + x", two_level(family_y), family_y=family_y)
    b0, b, c = chain(fit).outcome.beta
    codes, law, s = chain(fit).grouping.codes, chain(fit).mediator.fit.law(), chain(fit).mediator.sigma
    own = (chain(fit).mediator.beta + law.modes)[codes]
    modes = [
        [np.mean([brute("linear", family_y, r[0] + r[1] * k, b0 + c * t, b, s) for r in own[::10]]) for k in (0, 1)]
        for t in (0, 1)
    ]
    found = column(fit.effects())
    expected = np.einsum("ets,ts->e", WEIGHTS, np.array(modes))
    np.testing.assert_allclose(found[list(CONTRASTS)], expected, rtol=0, atol=1e-9)
    G, beta = chain(fit).mediator.fit.estimates.G, chain(fit).mediator.beta
    spread = [np.sqrt(np.array([1, k]) @ G @ np.array([1, k]) + s**2) for k in (0, 1)]
    population = [
        [brute("linear", family_y, beta[0] + beta[1] * k, b0 + c * t, b, spread[k]) for k in (0, 1)] for t in (0, 1)
    ]
    expected = np.einsum("ets,ts->e", WEIGHTS, np.array(population))
    np.testing.assert_allclose(column(fit.effects(of="population"))[list(CONTRASTS)], expected, rtol=0, atol=1e-9)


def test_mixed_delta_with_rows(mixed):
    """Analytic slopes with random effects against numdifftools, where rows have to be visited."""
    fit = causal("m ~ x + (1 + x | g)", "y ~ m * x", two_level("logit"), family_y="logit")
    prepared = effects_of(fit)
    base = parameters_of(*prepared.laws(), 40)
    slopes = slopes_at(prepared.rows.setting, *prepared.laws())

    def by_mode(value: np.ndarray) -> np.ndarray:
        u = base.mediator_u.copy()
        u[0, 7] = value
        return average_effects(prepared.rows.setting, Parameters(base.mediator, base.outcome, u, base.outcome_u))[0]

    J = nd.Jacobian(by_mode)(base.mediator_u[0, 7])
    np.testing.assert_allclose(slopes.mediator[:, 7, 2:] / 40, J, rtol=DERIVATIVE, atol=1e-10)


@pytest.mark.parametrize("family_m", ["linear", "logit", "poisson"])
def test_other_mediator_and_mixed_outcome(family_m):
    """A + B E(M) with the modes of A and B; the population has the fixed effects alone."""
    rng = np.random.default_rng(5)
    data = simulated(family_m, n=600).assign(g=lambda d: np.arange(600) % 30)
    u = rng.normal(size=(30, 2))
    data["y"] = 0.4 * data["m"] * (1 + 2.0 * u[data["g"], 0]) + u[data["g"], 1] + 0.3 * data["x"] + rng.normal(size=600)
    fit = causal("m ~ x", "y ~ m + x + (1 + m | g)", data, family_m=family_m)
    a0, a = chain(fit).mediator.beta
    gain = float(np.diff(mean_of(family_m, np.array([a0, a0 + a])))[0])
    modes = chain(fit).outcome.fit.law().modes[chain(fit).grouping.codes]
    b = chain(fit).outcome.beta[1] + modes[:, 1]
    assert column(fit.effects())["acme"] == pytest.approx(gain * b.mean(), rel=1e-8)
    population = column(fit.effects(of="population"))
    assert population["acme"] == pytest.approx(gain * chain(fit).outcome.beta[1], rel=1e-8)
    assert population["ade"] == pytest.approx(chain(fit).outcome.beta[2], rel=1e-8)


# -- what intervals are about --------------------------------------------------------------------------------------

THESE = "about these 50 clusters only"


def test_intervals_with_modes_say_that_they_are_about_these_clusters(mixed):
    """Both slopes vary: the population version leaves out their covariance, so it is not the advice for ACME."""
    for options in ({}, {"interval": "monte-carlo", "n": 50, "seed": 1}):
        notes = column(mixed.effects(**options), "note")
        assert notes.str.contains(THESE).all()
        for term in ("acme", "acme_control", "total", "prop_mediated"):
            assert "interval='bootstrap', or mlmed.mediate" in notes[term]
        assert notes["ade"].endswith("interval='bootstrap' or of='population'")
    assert THESE in " ".join(str(mixed).split())
    assert not mixed.effects(of="population")["note"].str.contains("clusters").any()
    assert not mixed.effects("bootstrap", n=40, seed=1)["note"].str.contains("these").any()
    assert mixed.effects(ranef_draws="independent")["note"].str.contains("neither about these 50 clusters nor").all()


def test_comparisons_and_tests_say_it_too(mixed):
    table = mixed.comparable()
    said = table["note"].str.contains(THESE)
    assert table["term"][said].tolist() == ["indirect", "direct", "total"]
    long = mlmed.compare(mixed).long
    assert long.loc[long["term"] == "total", "note"].str.contains(THESE).all()
    assert THESE in mixed.combined("indirect / total").loc[0, "note"]
    assert mixed.combined("sqrt(`y~Med`**2)").loc[0, "note"] == ""
    data = mlmed.datasets.load("yuan_mackinnon_sim")
    both = causal("Med ~ X + (1 + X | group)", "y ~ X * Med + (1 | group)", data)
    assert both.test_interaction(50, seed=1)["note"].str.endswith(THESE).all()
    assert not both.test_interaction(50, seed=1, of="population")["note"].str.contains(THESE).any()


def test_no_word_about_clusters_where_their_effects_do_not_enter():
    """Random intercepts of two linear equations cancel; a slope in one equation leaves the other path alone."""
    data = mlmed.datasets.load("yuan_mackinnon_sim")
    intercepts = causal("Med ~ X + (1 | group)", "y ~ X + Med + (1 | group)", data)
    assert (intercepts.effects()["note"] == "").all()
    slope = causal("Med ~ X + (1 | group)", "y ~ X + Med + (1 + X | group)", data)
    notes = column(slope.effects(), "note")
    assert notes["acme"] == ""
    assert THESE in notes["ade"]
    assert THESE in notes["total"]


@pytest.mark.parametrize(("random_m", "random_y"), [("1", "1"), ("1 + X", "1"), ("1", "1 + Med")])
def test_differences_say_it_only_where_random_effects_enter_them(random_m, random_y):
    """ADE(1) - ADE(0) is ACME(1) - ACME(0), here c3 times the slope of X: random intercepts of m cancel in it."""
    data = mlmed.datasets.load("yuan_mackinnon_sim")
    data = data.assign(w=np.sin(np.arange(len(data))))
    fit = causal(f"Med ~ X*w + ({random_m} | group)", f"y ~ X*Med + w + ({random_y} | group)", data, treatment="X")
    table = fit.test_interaction(50, seed=1)
    assert table["estimate"][0] == pytest.approx(table["estimate"][1], rel=1e-9)  # a difference of near numbers
    assert (table["note"].str.contains(THESE) == ("X" in random_m)).all()
    moved = column(fit.test_moderation({"w": 0.0}, {"w": 1.0}, 50, seed=1), "note")
    # the effects of w: ACME = (a + a3 w + u)(b + c3 t + v), ADE = c' + c3 (a0 + a2 w + (a + a3 w) t)
    assert moved.str.contains(THESE).to_dict() == {
        f"{term}(at1) - {term}(at2)": random_y == "1 + Med" and not term.startswith("ade")
        for term in ("acme_control", "acme_treated", "ade_control", "ade_treated", "total", "acme", "ade")
    }
    assert "covariance" not in fit.summary()  # of slopes, where at most one varies


def test_the_covariance_of_slopes_is_named_where_both_vary(mixed):
    """It is what two separate fits do not have."""
    assert "Two separate fits do not estimate the covariance" in " ".join(mixed.summary().split())


def test_the_spread_of_a_mediator_in_the_population_is_not_its_residual_sd():
    """Random effects that are averaged out are part of s."""
    data = mlmed.datasets.load("yuan_mackinnon_sim")
    data = data.assign(z=1.0 * (data["y"] > 0))
    fit = causal("Med ~ X + (1 | group)", "z ~ X + Med", data, family_y="probit")
    assert "the residual sd of Med, is kept at its estimate" in " ".join(fit.summary().split())
    text = " ".join(fit.summary(of="population").split())
    assert "s, from the variances of the random effects and residuals of Med, is kept at its estimate" in text
