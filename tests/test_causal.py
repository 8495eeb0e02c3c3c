"""Potential-outcome effects: published numbers first, then brute force, derivatives, invariances, and bad input."""

from __future__ import annotations

import json
import pickle
import warnings
from typing import Any

import numdifftools as nd
import numpy as np
import pandas as pd
import pytest
from scipy.stats import poisson

import mlmed
from mlmed.effects.average import Parameters, average_effects, cluster_effects, cluster_slopes
from mlmed.effects.delta import COLUMNS
from mlmed.effects.potential import (
    CONTRASTS,
    EFFECTS,
    RATIOS,
    WEIGHTS,
    expected_outcome,
    expected_slopes,
)
from mlmed.effects.smoothing import normal_mean
from mlmed.effects.uncertainty import Law, contrast_covariance, draw_contrasts, parameters_of, slopes_at
from mlmed.errors import (
    BoundaryWarning,
    DataError,
    DroppedRowsWarning,
    EffectError,
    FormulaError,
    LevelWarning,
    MlmedError,
    NotIdentifiedError,
)
from mlmed.glm.families import BINARY, FAMILIES, mean_of
from mlmed.modes.causal import causal
from mlmed.modes.causal_results import CausalResults
from tests.tolerances import DERIVATIVE, INVARIANT, SAME
from validation import causal_checks as validation

#: Integrals over the mediator are promised to this.
INTEGRAL = 1e-10
#: Products of coefficients, computed twice.
EXACT = 1e-12
PAIRS = [(m, y) for m in FAMILIES for y in FAMILIES]
XM, YM = "m ~ x + w", "y ~ m * x + w"
MIXED = "Med ~ X + (1 + X | group)", "y ~ X + Med + (1 + X + Med | group)"


def simulated(family_m: str = "linear", family_y: str = "linear", *, n: int = 300, seed: int = 1) -> pd.DataFrame:
    """Treatment x, covariate w, clusters g, and responses of two families."""
    rng = np.random.default_rng(seed)
    x, w = np.tile([0.0, 1.0], n // 2), rng.normal(size=n)

    def response(family: str, eta: np.ndarray) -> np.ndarray:
        if family == "linear":
            return eta + rng.normal(size=n)
        mean = mean_of(family, eta)
        return (rng.poisson(mean) if family == "poisson" else rng.random(n) < mean).astype(float)

    m = response(family_m, 0.6 * x + 0.3 * w - 0.2)
    y = response(family_y, 0.3 * m + 0.2 * x - 0.2 * w - 0.3)
    return pd.DataFrame({"x": x, "w": w, "m": m, "y": y, "g": np.arange(n) % 15})


def fitted(family_m: str = "linear", family_y: str = "linear", *, outcome: str = YM, **options: Any) -> CausalResults:
    data = simulated(family_m, family_y)
    return causal(XM, outcome, data, treatment="x", family_m=family_m, family_y=family_y, **options)


def column(table: pd.DataFrame, name: str = "estimate") -> pd.Series:
    return table.set_index("term")[name]


@pytest.fixture(scope="module")
def mixed() -> CausalResults:
    return causal(*MIXED, mlmed.datasets.load("yuan_mackinnon_sim"))


# -- published ------------------------------------------------------------------------------------------------


def missed(checks: list[Any]) -> list[str]:
    return [f"{c.table}, {c.quantity}: {c.ours:.5g}, {c.theirs:.5g}, {c.difference:.2g}" for c in checks if not c.ok]


@pytest.mark.parametrize("part", [validation.framing, validation.interaction])
def test_published_framing(part, dataset):
    """R's tables of framing: estimates, intervals and p values within 4 Monte Carlo standard errors of both runs."""
    dataset("framing")
    checks = part()
    assert len(checks) > 25
    assert not missed(checks)


def test_published_yuan_mackinnon():
    """R's two runs of the mixed example, random effects drawn as there."""
    assert not missed(validation.yuan())


def test_published_framing_through_the_table(dataset):
    """The same numbers from ``effects``, to the digits of the issue."""
    dataset("framing")
    table = validation.framing_fit().effects("quasi-bayes", n=10_000, seed=1).set_index("term")
    found = table.loc[["acme_control", "acme_treated", "total"], "estimate"]
    np.testing.assert_allclose(found, [0.0821, 0.0825, 0.0956], rtol=0, atol=0.0025)
    assert abs(table.loc["prop_mediated_control", "estimate"] - 0.771) < 0.02
    assert abs(table.loc["total", "conf_low"] + 0.0304) < 0.005
    difference = validation.framing_fit(True).test_interaction(10_000, seed=1).iloc[0]
    assert abs(difference["estimate"] - 0.022) < 0.001
    assert abs(difference["p_value"] - 0.36) < 0.03


@pytest.mark.parametrize(("n", "a", "b", "direct"), [(200, 1.0, 1.0, 0.0), (2000, 0.4, 0.5, 0.0)])
def test_product_method(n, a, b, direct):
    """The page's two simulations (seeds of our own): closed form = product of least-squares coefficients."""
    rng = np.random.default_rng(n)
    x = np.tile([0.0, 1.0], n // 2)
    m = a * x + rng.normal(size=n)
    data = pd.DataFrame({"x": x, "m": m, "y": b * m + direct * x + rng.normal(size=n)})
    one = np.linalg.lstsq(np.column_stack([np.ones(n), x]), m, rcond=None)[0]
    two = np.linalg.lstsq(np.column_stack([np.ones(n), x, m]), data["y"], rcond=None)[0]
    fit = causal("m ~ x", "y ~ x + m", data)
    asked = {"delta": {}, "quasi-bayes": {"n": 200, "seed": 1}, "bootstrap": {"n": 50, "seed": 1}}
    for interval, options in asked.items():
        found = column(fit.effects(interval, **options))
        assert found["acme"] == pytest.approx(one[1] * two[2], abs=EXACT, rel=0)
        assert found["ade"] == pytest.approx(two[1], abs=EXACT, rel=0)
        assert found["total"] == pytest.approx(one[1] * two[2] + two[1], abs=EXACT, rel=0)
    assert "closed form" in str(fit)
    assert fit.effects("quasi-bayes", n=200, seed=1)["note"].str.contains("closed form").all()


# -- expected outcomes ----------------------------------------------------------------------------------------


def brute(mediator: str, outcome: str, eta: float, A: float, B: float, s: float) -> float:
    """E g(A + B M) by a fine sum over M."""
    if mediator == "linear":
        z = np.arange(-14.0, 14.0, 2e-4)
        weight = np.exp(-0.5 * z * z)
        return float(weight / weight.sum() @ mean_of(outcome, A + B * (eta + s * z)))
    if mediator in BINARY:
        p = float(mean_of(mediator, np.array(eta)))
        return float((1 - p) * mean_of(outcome, np.array(A)) + p * mean_of(outcome, np.array(A + B)))
    k = np.arange(400.0)
    return float(poisson.pmf(k, np.exp(eta)) @ mean_of(outcome, A + B * k))


@pytest.mark.parametrize(("mediator", "outcome"), PAIRS)
def test_expected_outcomes_by_brute_force(mediator, outcome):
    rng = np.random.default_rng(4)
    eta, A, B = rng.normal(size=(3, 25)) * [[1.0], [1.0], [0.5]]
    s = rng.uniform(0.1, 3.0, 25)
    theirs = [brute(mediator, outcome, *point) for point in zip(eta, A, B, s, strict=True)]
    found = expected_outcome(mediator, outcome, eta, A, B, s)
    np.testing.assert_allclose(found, theirs, rtol=INTEGRAL, atol=INTEGRAL)


@pytest.mark.parametrize(("mediator", "outcome"), PAIRS)
def test_slopes_of_expected_outcomes(mediator, outcome):
    for point in np.random.default_rng(5).normal(size=(4, 3)) * [1.0, 1.0, 0.5]:
        noise = np.array(1.3)

        def value(at: np.ndarray, noise: np.ndarray = noise) -> float:
            return float(expected_outcome(mediator, outcome, *map(np.asarray, at), noise))

        found = np.array(expected_slopes(mediator, outcome, *map(np.asarray, point), noise)).astype(float)
        assert found[0] == pytest.approx(value(point), rel=SAME)
        np.testing.assert_allclose(found[1:], nd.Gradient(value)(point), rtol=DERIVATIVE, atol=DERIVATIVE)


@pytest.mark.parametrize("width", [0.0, 0.1, 0.5, 1.0, 1.7, 3.0, 8.0, 30.0])
def test_logistic_normal_integral(width):
    """To 1e-10 for any width, derivatives too: against a sum of 1e5 terms."""
    a = np.array([0.0, 0.3, -1.0, 2.5, -6.0, 12.0])
    z = np.arange(-14.0, 14.0, 2.8e-4)
    weight = np.exp(-0.5 * z * z)
    weight /= weight.sum()
    p = mean_of("logit", a[:, None] + width * z)
    found = normal_mean("logit", a, np.full(6, width), slopes=True)
    for ours, theirs in zip(found, (p @ weight, (p * (1 - p)) @ weight, (p * (1 - p) * z) @ weight), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=INTEGRAL)


@pytest.mark.parametrize("rate", [1e-9, 0.02, 1.0, 7.5, 120.0, 4000.0])
def test_sums_over_counts(rate):
    k = np.arange(8000.0)
    for outcome in BINARY:
        theirs = poisson.pmf(k, rate) @ mean_of(outcome, 0.4 - 0.01 * k)
        found = expected_outcome(
            "poisson", outcome, np.log(np.array(rate)), np.array(0.4), np.array(-0.01), np.array(0)
        )
        assert float(found) == pytest.approx(theirs, abs=EXACT, rel=0)


def test_what_is_too_large_for_a_number():
    """An expected count beyond double precision is infinite, not cut off."""
    found = expected_outcome("poisson", "poisson", np.array([8.0]), np.zeros(1), np.array([2.0]), np.zeros(1))
    assert np.isinf(found[0])
    assert np.isnan(expected_outcome("poisson", "logit", np.array([800.0]), *np.zeros((3, 1)))[0])


# -- averages and their derivatives ---------------------------------------------------------------------------


@pytest.mark.parametrize(("mediator", "outcome"), [("linear", "probit"), ("logit", "poisson"), ("poisson", "linear")])
def test_averages_by_monte_carlo(mediator, outcome):
    """The algorithm of ``mediation`` with given coefficients: draw every row's mediator, many times."""
    fit = fitted(mediator, outcome)
    columns, rng, repeats = fit.counterfactual(), np.random.default_rng(6), 4000
    eta = columns.mediator @ fit.mediator.beta
    mean = np.empty((2, 2))
    error = np.empty((2, 2))
    for s in range(2):
        center = mean_of(mediator, eta[s])
        size = (repeats, len(center))
        if mediator == "linear":
            M = center + fit.mediator.sigma * rng.normal(size=size)
        else:
            M = rng.poisson(center, size) if mediator == "poisson" else (rng.random(size) < center).astype(float)
        for t in range(2):
            base, slope = columns.outcome[t] @ fit.outcome.beta, columns.slope[t] @ fit.outcome.beta
            runs = mean_of(outcome, base + slope * M).mean(axis=1)
            mean[t, s], error[t, s] = runs.mean(), runs.std() / np.sqrt(repeats)
    found = column(fit.effects())[list(CONTRASTS)].to_numpy()
    spread = np.sqrt(np.einsum("ets,ts->e", WEIGHTS**2, error**2))
    assert np.all(np.abs(found - np.einsum("ets,ts->e", WEIGHTS, mean)) < 4.0 * spread)


@pytest.mark.parametrize(("mediator", "outcome"), PAIRS)
def test_derivatives_of_averages(mediator, outcome):
    """Analytic gradients of the five contrasts, and the covariance made of them, against numdifftools."""
    fit = fitted(mediator, outcome, robust="HC1")
    prepared = fit.prepared(fit.question(None, None))
    p = len(fit.mediator.beta)
    start = np.concatenate([fit.mediator.beta, fit.outcome.beta])

    def contrasts(at: np.ndarray) -> np.ndarray:
        none = np.empty((1, 1, 0))
        return average_effects(prepared.setting, Parameters(at[None, :p], at[None, p:], none, none))[0]

    J = nd.Jacobian(contrasts)(start)
    slopes = slopes_at(prepared.setting, prepared.mediator, prepared.outcome)
    analytic = np.concatenate([slopes.mediator[:, 0], slopes.outcome[:, 0]], axis=1)
    np.testing.assert_allclose(analytic, J, rtol=DERIVATIVE, atol=DERIVATIVE)
    V = np.zeros((len(start), len(start)))
    V[:p, :p], V[p:, p:] = fit.mediator.vcov, fit.outcome.vcov
    found = fit.covariance_of(prepared)
    np.testing.assert_allclose(found.values[:5], contrasts(start), rtol=SAME, atol=SAME)
    np.testing.assert_allclose(found.matrix[:5, :5], J @ V @ J.T, rtol=1e-5, atol=1e-10)
    np.testing.assert_allclose(found.matrix[:5, 5:], J @ V, rtol=1e-5, atol=1e-10)


def test_table_is_made_of_the_contrasts():
    """Means, ratios and their delta-method errors."""
    table = fitted("linear", "probit").effects().set_index("term")
    estimate, error = table["estimate"], table["std_error"]
    assert list(table.index) == list(EFFECTS)
    assert list(fitted().effects().columns) == list(COLUMNS)
    assert estimate["total"] == pytest.approx(estimate["acme_control"] + estimate["ade_treated"], rel=SAME)
    assert estimate["acme"] == pytest.approx(estimate[["acme_control", "acme_treated"]].mean(), rel=SAME)
    assert estimate["prop_mediated"] == pytest.approx(estimate["acme"] / estimate["total"], rel=SAME)
    fit = fitted("linear", "probit")
    for name, expression in {
        "prop_mediated_control": "acme_control / total",
        "ade": "(ade_control+ade_treated)/2",
    }.items():
        row = fit.combined(expression).iloc[0]
        assert row["estimate"] == pytest.approx(estimate[name], rel=1e-8)
        assert row["std_error"] == pytest.approx(error[name], rel=1e-6)


def test_delta_and_draws_agree_in_large_samples():
    data = simulated("linear", "probit", n=3000)
    fit = causal(XM, YM, data, treatment="x", family_y="probit")
    delta, draws = fit.effects().set_index("term"), fit.effects("quasi-bayes", n=2000, seed=1).set_index("term")
    terms = [term for term in EFFECTS if term not in RATIOS]
    np.testing.assert_allclose(draws.loc[terms, "std_error"], delta.loc[terms, "std_error"], rtol=0.06)
    gap = (draws.loc[terms, "estimate"] - delta.loc[terms, "estimate"]) / delta.loc[terms, "std_error"]
    assert np.abs(gap).max() < 0.1


def test_ratios_have_no_standard_error_in_draws():
    table = fitted("linear", "probit").effects("quasi-bayes", n=500, seed=1).set_index("term")
    assert table.loc[list(RATIOS), ["std_error", "statistic"]].isna().all(axis=None)
    assert table.loc[list(RATIOS), "note"].str.contains("no variance").all()
    assert table.loc[list(RATIOS), ["conf_low", "p_value"]].notna().all(axis=None)
    assert table["std_error"].drop(list(RATIOS)).notna().all()


def test_an_unstable_share_says_so():
    data = simulated().assign(y=lambda d: d["m"] * 0.5 - d["x"] * 0.3 + np.random.default_rng(11).normal(size=300))
    note = column(causal(XM, "y ~ m + x + w", data, treatment="x").effects(), "note")
    assert "standard errors from 0" in note["prop_mediated"]
    assert note["acme"] == ""


def test_draws_do_not_depend_on_how_many_are_made_at_once(monkeypatch):
    fit = fitted("linear", "probit")
    prepared = fit.prepared(fit.question(None, None))
    whole = draw_contrasts(prepared.setting, prepared.mediator, prepared.outcome, n=50, seed=3)
    monkeypatch.setattr("mlmed.effects.average.ENTRIES", 700)
    parts = draw_contrasts(prepared.setting, prepared.mediator, prepared.outcome, n=50, seed=3)
    np.testing.assert_allclose(parts, whole, rtol=SAME)


def test_draws_that_overflow_are_counted():
    fit = fitted("poisson", "poisson")
    outcome = Law(fit.outcome.beta, 900.0 * np.eye(len(fit.outcome.beta)))
    prepared = fit.prepared(fit.question(None, None))
    draws = draw_contrasts(prepared.setting, prepared.mediator, outcome, n=200, seed=1)
    assert not np.isfinite(draws).all()
    from mlmed.effects.uncertainty import ContrastCovariance
    from mlmed.modes.causal_tables import contrast_quantities, drawn_effects

    found: ContrastCovariance = fit.covariance_of(prepared)
    table = drawn_effects(draws, contrast_quantities(found, {}), {}, closed=False, level=0.95)
    assert table["note"].str.contains("too large for a number").all()
    assert table["conf_low"].isna().all()


# -- mixed models ---------------------------------------------------------------------------------------------


def test_random_effects_given_the_data():
    """Modes, covariances and their slide with beta: Henderson's equations, which are the posterior with flat beta."""
    data = two_level("linear").iloc[:120]
    fit = causal("m ~ x + (1 + x | g)", "y ~ m + x", data).mediator
    law, estimates = fit.law, fit.fit.estimates
    J, q = law.modes.shape
    X = fit.design.X
    Z = np.zeros((len(X), J * q))
    codes = fit.fit.clusters.get_indexer(data["g"])
    for k in range(q):
        Z[np.arange(len(X)), codes * q + k] = X[:, k]
    G = estimates.G + 1e-12 * np.eye(q)
    W = np.hstack([X, Z])
    C = W.T @ W / estimates.sigma2[0]
    C[2:, 2:] += np.kron(np.eye(J), np.linalg.inv(G))
    posterior = np.linalg.inv(C)
    mean = posterior @ W.T @ fit.design.y / estimates.sigma2[0]
    tight = {"rtol": 1e-6, "atol": 1e-7}
    np.testing.assert_allclose(mean[:2], fit.beta, **tight)
    np.testing.assert_allclose(mean[2:], law.modes.ravel(), **tight)
    np.testing.assert_allclose(posterior[:2, :2], fit.vcov, **tight)
    slide = law.slide.reshape(J * q, 2)
    np.testing.assert_allclose(posterior[2:, :2], -slide @ fit.vcov, **tight)
    N = np.zeros((J * q, J * q))
    for j in range(J):
        N[j * q : (j + 1) * q, j * q : (j + 1) * q] = law.covariances[j]
    np.testing.assert_allclose(posterior[2:, 2:], slide @ fit.vcov @ slide.T + N, **tight)


def test_draws_of_random_effects(mixed):
    """Moments of drawn effects; ``independent`` has their sizes and no more."""
    law, rng = mixed.outcome.law, np.random.default_rng(1)
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
    np.testing.assert_allclose(mixed.outcome.law.modes.T.ravel(), ranef["value"], rtol=1e-8, atol=1e-10)


def test_mixed_effects_row_by_row(mixed):
    """Sums of products against every row with the coefficients of its cluster."""
    data = mlmed.datasets.load("yuan_mackinnon_sim")
    codes = mixed.chain.grouping.codes
    a = mixed.mediator.beta + mixed.mediator.law.modes
    b = mixed.outcome.beta + mixed.outcome.law.modes  # Intercept, X, Med
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
    population = column(mixed.effects(groups="population"))
    product = mixed.mediator.beta[1] * mixed.outcome.beta[2]
    assert population["acme"] == pytest.approx(product, abs=EXACT, rel=0)
    assert round(product, 4) == -0.0341
    independent = mixed.effects("quasi-bayes", n=4000, seed=1, ranef_draws="independent").set_index("term")
    np.testing.assert_allclose(
        independent.loc["acme", ["conf_low", "conf_high"]].astype(float), [-0.18, -0.06], atol=0.01
    )
    np.testing.assert_allclose(independent.loc["ade", ["conf_low", "conf_high"]].astype(float), [0.08, 0.5], atol=0.02)


@pytest.mark.parametrize("ranef_draws", ["joint", "independent"])
def test_mixed_delta_and_draws_agree(mixed, ranef_draws):
    """First order against 4,000 draws of coefficients and random effects; also cluster by cluster."""
    terms = ["acme", "ade", "total"]
    delta = mixed.effects(ranef_draws=ranef_draws).set_index("term").loc[terms, "std_error"]
    draws = mixed.effects("quasi-bayes", n=4000, seed=2, ranef_draws=ranef_draws).set_index("term")
    second_order = 1.3 if ranef_draws == "independent" else 1.06  # products of what is not small
    ratio = draws.loc[terms, "std_error"] / delta
    assert ratio.between(0.95, second_order).all()
    by_delta = mixed.groups(ranef_draws=ranef_draws)["std_error"]
    by_draws = mixed.groups("quasi-bayes", n=2000, seed=2, ranef_draws=ranef_draws)["std_error"]
    assert (by_draws / by_delta).median() == pytest.approx(1.0, abs=0.1)


def test_clusters_add_up():
    """Contrasts by cluster from rows and from sums of products; averages of slopes are slopes of averages."""
    for outcome in ("linear", "probit"):
        fit = fitted("linear", outcome, cluster="g")
        prepared = fit.prepared(fit.question(None, None, by_cluster=True))
        whole = fit.prepared(fit.question(None, None))
        parameters = parameters_of(prepared.mediator, prepared.outcome, 15)
        by_cluster = cluster_effects(prepared.setting, parameters)[0]
        share = prepared.setting.sizes / 300
        average = average_effects(whole.setting, parameters_of(whole.mediator, whole.outcome, 1))[0]
        np.testing.assert_allclose(share @ by_cluster, average, rtol=1e-8, atol=1e-12)
        slopes = cluster_slopes(prepared.setting, parameters)
        np.testing.assert_allclose(slopes.values.T, by_cluster, rtol=1e-8, atol=1e-12)
        one = contrast_covariance(slopes, prepared.mediator, prepared.outcome).matrix
        np.testing.assert_allclose(one, fit.covariance_of(whole).matrix, rtol=1e-8, atol=1e-14)


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
    b0, b, c = fit.outcome.beta
    codes, law, s = fit.chain.grouping.codes, fit.mediator.law, fit.mediator.sigma
    own = (fit.mediator.beta + law.modes)[codes]
    modes = [
        [np.mean([brute("linear", family_y, r[0] + r[1] * k, b0 + c * t, b, s) for r in own[::10]]) for k in (0, 1)]
        for t in (0, 1)
    ]
    found = column(fit.effects())
    expected = np.einsum("ets,ts->e", WEIGHTS, np.array(modes))
    np.testing.assert_allclose(found[list(CONTRASTS)], expected, rtol=0, atol=1e-9)
    G, beta = fit.mediator.fit.estimates.G, fit.mediator.beta
    spread = [np.sqrt(np.array([1, k]) @ G @ np.array([1, k]) + s**2) for k in (0, 1)]
    population = [
        [brute("linear", family_y, beta[0] + beta[1] * k, b0 + c * t, b, spread[k]) for k in (0, 1)] for t in (0, 1)
    ]
    expected = np.einsum("ets,ts->e", WEIGHTS, np.array(population))
    np.testing.assert_allclose(column(fit.effects(groups="population"))[list(CONTRASTS)], expected, rtol=0, atol=1e-9)


def test_mixed_delta_with_rows(mixed):
    """Analytic slopes with random effects against numdifftools, where rows have to be visited."""
    fit = causal("m ~ x + (1 + x | g)", "y ~ m * x", two_level("logit"), family_y="logit")
    prepared = fit.prepared(fit.question(None, None))
    base = parameters_of(prepared.mediator, prepared.outcome, 40)
    slopes = slopes_at(prepared.setting, prepared.mediator, prepared.outcome)

    def by_mode(value: np.ndarray) -> np.ndarray:
        u = base.mediator_u.copy()
        u[0, 7] = value
        return average_effects(prepared.setting, Parameters(base.mediator, base.outcome, u, base.outcome_u))[0]

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
    gain = float(np.diff(mean_of(family_m, np.array([1.0, 1.0]) * fit.mediator.beta[0] + [0, fit.mediator.beta[1]]))[0])
    modes = fit.outcome.law.modes[fit.chain.grouping.codes]
    b = fit.outcome.beta[1] + modes[:, 1]
    assert column(fit.effects())["acme"] == pytest.approx(gain * b.mean(), rel=1e-8)
    population = column(fit.effects(groups="population"))
    assert population["acme"] == pytest.approx(gain * fit.outcome.beta[1], rel=1e-8)
    assert population["ade"] == pytest.approx(fit.outcome.beta[2], rel=1e-8)


# -- invariances ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mediator", "outcome"), [("linear", "linear"), ("probit", "logit"), ("poisson", "poisson")])
def test_control_and_treated_swapped(mediator, outcome):
    forward = column(fitted(mediator, outcome).effects())
    back = column(fitted(mediator, outcome, control_value=1, treat_value=0).effects())
    for kind in ("acme", "ade"):
        for one, other in (("control", "treated"), ("treated", "control")):
            assert back[f"{kind}_{one}"] == pytest.approx(-forward[f"{kind}_{other}"], rel=1e-8)
    assert back["total"] == pytest.approx(-forward["total"], rel=1e-8)
    assert back["prop_mediated"] == pytest.approx(forward["prop_mediated"], rel=1e-8)


@pytest.mark.parametrize(("mediator", "outcome"), [("linear", "linear"), ("linear", "logit"), ("logit", "probit")])
def test_units_of_covariates_and_order_of_rows(mediator, outcome):
    data = simulated(mediator, outcome)
    options = {"treatment": "x", "family_m": mediator, "family_y": outcome, "robust": "HC3"}
    first = causal(XM, YM, data, **options).effects()
    other = data.assign(w=1000.0 + 7.0 * data["w"]).sample(frac=1.0, random_state=1)
    second = causal(XM, YM, other, **options).effects()
    np.testing.assert_allclose(
        second.iloc[:, 1:7].astype(float), first.iloc[:, 1:7].astype(float), rtol=1e-6, atol=1e-9
    )


def test_scale_of_a_linear_mediator():
    """In other units of m nothing changes, also not the integral over its spread."""
    data = simulated("linear", "logit")
    first = causal(XM, YM, data, treatment="x", family_y="logit").effects()
    second = causal(XM, YM, data.assign(m=5.0 - 100.0 * data["m"]), treatment="x", family_y="logit").effects()
    np.testing.assert_allclose(second["estimate"], first["estimate"], rtol=INVARIANT, atol=1e-10)
    np.testing.assert_allclose(second["std_error"], first["std_error"], rtol=1e-6)


def test_codings_of_the_same_treatment_and_mediator():
    """Numbers, truth values and factors; the levels of a binary mediator as text."""
    data = simulated("logit", "probit")
    options = {"family_m": "logit", "family_y": "probit"}
    first = causal(XM, YM, data, treatment="x", **options).effects()
    other = data.assign(
        x=data["x"].map({0.0: "no drug", 1.0: "drug"}), m=data["m"].map({0.0: "calm", 1.0: "excited"}),
        y=data["y"].astype(bool),
    )  # fmt: skip
    fit = causal(XM, YM, other, treatment="x", control_value="no drug", treat_value="drug", **options)
    np.testing.assert_allclose(fit.effects()["estimate"], first["estimate"], rtol=1e-8)
    np.testing.assert_allclose(fit.effects()["std_error"], first["std_error"], rtol=1e-6)
    assert "m: calm is 0, excited is 1" in str(fit)
    truth = causal(XM, YM, data.assign(x=data["x"] == 1), treatment="x", **options).effects()
    np.testing.assert_allclose(truth["estimate"], first["estimate"], rtol=1e-8)


def test_data_are_not_modified():
    data = simulated("logit", "probit").assign(w=lambda d: d["w"].where(d.index > 4))
    before = data.copy(deep=True)
    with pytest.warns(DroppedRowsWarning):
        fit = causal(XM, YM, data, treatment="x", family_m="logit", family_y="probit")
    fit.effects("bootstrap", n=50, seed=1)
    pd.testing.assert_frame_equal(data, before)


# -- rows, errors of the coefficients -------------------------------------------------------------------------


def test_both_equations_use_the_same_rows():
    """A row that one equation cannot use is left out of both, counted once."""
    data = simulated()
    data.loc[:9, "w"] = np.nan
    data.loc[5:14, "y"] = np.nan
    with pytest.warns(DroppedRowsWarning) as found:
        fit = causal("m ~ x", "y ~ m + x + w", data)
    assert len(found) == 1
    assert found[0].filename == __file__
    assert "15 of 300 rows left out (missing w: 10, y: 10)" in str(found[0].message)
    assert "15 of 300 rows left out" in fit.summary()
    complete = causal("m ~ x", "y ~ m + x + w", data.dropna())
    pd.testing.assert_frame_equal(fit.effects(), complete.effects())
    assert fit.nobs == 285


def test_missing_clusters_are_left_out():
    data = simulated().assign(g=lambda d: d["g"].where(d.index > 9))
    with pytest.warns(DroppedRowsWarning, match="missing g: 10"):
        fit = causal(XM, YM, data, treatment="x", cluster="g")
    assert fit.glance().loc[0, "n_clusters"] == 15


def test_standard_errors_of_the_coefficients():
    from statsmodels.regression.linear_model import OLS

    data = simulated()
    for options in ({}, {"robust": "HC3"}, {"cluster": "g"}):
        fit = causal(XM, YM, data, treatment="x", **options)
        X = fit.mediator.design.X
        model = OLS(data["m"], X).fit()
        if "robust" in options:
            model = model.get_robustcov_results("HC3")
        if "cluster" in options:
            model = OLS(data["m"], X).fit(cov_type="cluster", cov_kwds={"groups": data["g"], "use_correction": False})
            np.testing.assert_allclose(fit.mediator.vcov * 14 / 15, model.cov_params(), rtol=1e-8)
        else:
            np.testing.assert_allclose(fit.mediator.vcov, model.cov_params(), rtol=1e-8)
            tidy = fit.tidy()
            tidy = tidy[tidy["equation"] == "m"]
            np.testing.assert_allclose(tidy["p_value"], model.pvalues, rtol=1e-7)
            np.testing.assert_allclose(tidy[["conf_low", "conf_high"]], model.conf_int(), rtol=1e-7)


def test_cluster_robust_mixed_models(mixed):
    fit = causal(*MIXED, mlmed.datasets.load("yuan_mackinnon_sim"), cluster="group")
    expected = mlmed.mixed(MIXED[0], mlmed.datasets.load("yuan_mackinnon_sim")).vcov("CR1", which="fixed")
    np.testing.assert_allclose(fit.mediator.vcov, expected, rtol=1e-8)
    np.testing.assert_allclose(column(fit.effects()), column(mixed.effects()), rtol=1e-12)


def test_a_mediator_of_the_clusters_is_noticed():
    data = mlmed.datasets.load("yuan_mackinnon_sim")
    data = data.assign(Med=data.groupby("group")["Med"].transform("mean"))
    with pytest.warns(LevelWarning, match="does not vary within group.*Give cluster='group'") as found:
        causal("Med ~ X", "y ~ X + Med + (1 | group)", data)
    assert found[0].filename == __file__


# -- conditional effects, tests -------------------------------------------------------------------------------


def test_conditional_effects_are_effects_of_changed_rows():
    """at= is the same as setting the column in every row, the coefficients kept."""
    data = simulated("linear", "probit").assign(k=lambda d: np.where(d["w"] > 0, "high", "low"))
    fit = causal("m ~ x * k + w", "y ~ m * x + k + w", data, treatment="x", family_y="probit")
    found = column(fit.effects(at={"w": 0.5, "k": "low"}))
    b, c = fit.mediator.beta, fit.outcome.beta
    eta = {t: dict(zip(fit.mediator.names, b, strict=True)) for t in (0, 1)}
    mu = [e["Intercept"] + t * e["x"] + e["k[T.low]"] + t * e["x:k[T.low]"] + 0.5 * e["w"] for t, e in eta.items()]
    names = dict(zip(fit.outcome.names, c, strict=True))
    s = fit.mediator.sigma
    A = [names["Intercept"] + t * names["x"] + names["k[T.low]"] + 0.5 * names["w"] for t in (0, 1)]
    B = [names["m"] + t * names["m:x"] for t in (0, 1)]
    E = [[brute("linear", "probit", mu[k], A[t], B[t], s) for k in (0, 1)] for t in (0, 1)]
    assert found["acme_treated"] == pytest.approx(E[1][1] - E[1][0], rel=1e-8)
    assert found["ade_control"] == pytest.approx(E[1][0] - E[0][0], rel=1e-8)
    shape = fit.counterfactual({"w": 0.5, "k": "low"})
    assert np.all(shape.outcome == shape.outcome[:, :1])
    assert "At" in fit.summary(at={"w": 0.5})


def test_conditional_effects_reach_random_slopes():
    """at= sets columns of the random part, too; clusters may be named by two columns."""
    rng = np.random.default_rng(1)
    g, h = rng.integers(0, 6, 600), rng.integers(0, 5, 600)
    x, w, u = rng.normal(size=600), rng.normal(size=600), rng.normal(size=(30, 2))
    own = u[g * 5 + h]
    m = own[:, 0] + 0.4 * x + (0.3 + own[:, 1]) * x * w + rng.normal(size=600)
    data = pd.DataFrame({"g": g, "h": h, "x": x, "w": w, "m": m, "y": 0.5 * m + 0.2 * x + rng.normal(size=600)})
    fit = causal("m ~ x * w + (1 + x:w | g:h)", "y ~ m + x + w", data, treatment="x")
    names = dict(zip(fit.mediator.names, fit.mediator.beta, strict=True))
    slopes = names["x"] + 0.5 * (names["x:w"] + fit.mediator.law.modes[fit.chain.grouping.codes, 1])
    b = dict(zip(fit.outcome.names, fit.outcome.beta, strict=True))["m"]
    assert column(fit.effects(at={"w": 0.5}))["acme"] == pytest.approx(slopes.mean() * b, rel=1e-8)
    assert fit.groups().columns[0] == "g:h"


def test_any_dataframe():
    import polars as pl

    data = simulated("logit", "probit")
    options = {"treatment": "x", "family_m": "logit", "family_y": "probit"}
    pd.testing.assert_frame_equal(
        causal(XM, YM, pl.from_pandas(data), **options).effects(), causal(XM, YM, data, **options).effects()
    )


def test_moderation_uses_the_same_draws():
    fit = fitted("linear", "probit")
    table = fit.test_moderation({"w": 1}, {"w": -1}, 300, seed=4).set_index("term")
    prepared = [fit.prepared(fit.question({"w": w}, None)) for w in (1, -1)]
    draws = [draw_contrasts(one.setting, one.mediator, one.outcome, n=300, seed=4) for one in prepared]
    difference = (draws[0] - draws[1])[:, 0]
    row = table.loc["acme_control(at1) - acme_control(at2)"]
    assert row["estimate"] == pytest.approx(difference.mean(), rel=SAME)
    assert row["std_error"] == pytest.approx(difference.std(ddof=1), rel=SAME)
    assert row["note"] == "at1: w = 1; at2: w = -1"
    opposite = fit.test_moderation({"w": -1}, {"w": 1}, 300, seed=4)
    np.testing.assert_allclose(opposite["estimate"], -table["estimate"], rtol=1e-8)


def test_moderation_in_closed_form():
    data = simulated()
    fit = causal("m ~ x * w", "y ~ m + x + w", data, treatment="x")
    row = fit.test_moderation({"w": 2}, {"w": 1}, 200, seed=1).set_index("term").loc["acme(at1) - acme(at2)"]
    names = dict(zip(fit.mediator.names, fit.mediator.beta, strict=True))
    b = dict(zip(fit.outcome.names, fit.outcome.beta, strict=True))["m"]
    assert row["estimate"] == pytest.approx(names["x:w"] * b, rel=SAME)


def test_interaction_in_closed_form():
    """ACME(1) - ACME(0) = a k, and ADE differs by the same."""
    fit = fitted()
    table = fit.test_interaction(500, seed=1).set_index("term")
    a = dict(zip(fit.mediator.names, fit.mediator.beta, strict=True))["x"]
    k = dict(zip(fit.outcome.names, fit.outcome.beta, strict=True))["m:x"]
    assert table.loc["acme_treated - acme_control", "estimate"] == pytest.approx(a * k, abs=EXACT, rel=0)
    np.testing.assert_allclose(table.iloc[0, :6].astype(float), table.iloc[1, :6].astype(float), rtol=1e-8)
    effects = column(fit.effects())
    b = dict(zip(fit.outcome.names, fit.outcome.beta, strict=True))["m"]
    assert effects["acme_control"] == pytest.approx(a * b, abs=EXACT, rel=0)
    assert effects["acme_treated"] == pytest.approx(a * (b + k), abs=EXACT, rel=0)


def test_interaction_without_one():
    with pytest.raises(EffectError, match=r"0 by construction.*Add one, as in 'y ~ m \* x'"):
        fitted(outcome="y ~ m + x + w").test_interaction(100, seed=1)
    assert not fitted(outcome="y ~ m + x + w").interaction
    assert len(fitted("linear", "probit", outcome="y ~ m + x + w").test_interaction(100, seed=1)) == 2


def test_effects_that_the_formula_fixes():
    """Without the treatment in the outcome equation everything is mediated, and nothing else is tested."""
    fit = causal("m ~ x", "y ~ m", simulated())
    for options in (
        {},
        {"interval": "quasi-bayes", "n": 200, "seed": 1},
        {"interval": "bootstrap", "n": 50, "seed": 1},
    ):
        table = fit.effects(**options).set_index("term")
        assert table.loc["ade", "estimate"] == 0.0
        assert table.loc["prop_mediated", "estimate"] == 1.0
        assert table.loc[["ade", "prop_mediated"], "std_error"].isna().all()
        assert table.loc[["ade", "prop_mediated"], "note"].str.contains("treatment is not in the outcome").all()
        assert table.loc["acme", "conf_low"] < table.loc["acme", "estimate"]


# -- bootstrap ------------------------------------------------------------------------------------------------


def test_bootstrap_does_not_depend_on_workers():
    fit = fitted("linear", "probit")
    one = fit.bootstrap(24, seed=7)
    two = fit.bootstrap(24, seed=7, n_jobs=2)
    pd.testing.assert_frame_equal(one.draws, two.draws)
    assert one.kind == "row"
    assert not one.draws.equals(fit.bootstrap(24, seed=8).draws)


def test_a_replicate_is_a_fit_of_drawn_rows():
    data = simulated("logit", "poisson")
    options = {"treatment": "x", "family_m": "logit", "family_y": "poisson"}
    fit = causal(XM, YM, data, **options)
    index = np.random.default_rng(np.random.SeedSequence(3).spawn(1)[0]).integers(300, size=300)
    by_hand = column(causal(XM, YM, data.iloc[index], **options).effects())
    np.testing.assert_allclose(fit.bootstrap(1, seed=3).draws.iloc[0], by_hand, rtol=1e-7)


def test_a_replicate_is_a_fit_of_drawn_clusters():
    data = simulated("linear", "logit")
    fit = causal(XM, YM, data, treatment="x", family_y="logit", cluster="g")
    index = np.random.default_rng(np.random.SeedSequence(3).spawn(1)[0]).integers(15, size=15)
    drawn = pd.concat([data[data["g"] == k] for k in index])
    by_hand = column(causal(XM, YM, drawn, treatment="x", family_y="logit").effects())
    boot = fit.bootstrap(1, seed=3)
    np.testing.assert_allclose(boot.draws.iloc[0], by_hand, rtol=1e-7)
    assert boot.kind == "cluster"


@pytest.mark.parametrize(
    ("outcome", "family_y"), [("y ~ X + Med + (1 + Med | group)", "linear"), ("z ~ X + Med", "probit")]
)
@pytest.mark.parametrize("groups", ["modes", "population"])
def test_a_replicate_is_a_mixed_fit_of_drawn_clusters(outcome, family_y, groups):
    data = mlmed.datasets.load("yuan_mackinnon_sim").assign(z=lambda d: (d["y"] > 0.6).astype(float))
    fit = causal(MIXED[0], outcome, data, family_y=family_y)
    index = np.random.default_rng(np.random.SeedSequence(5).spawn(1)[0]).integers(50, size=50)
    clusters = data["group"].drop_duplicates().to_numpy()
    drawn = pd.concat([data[data["group"] == clusters[k]].assign(group=c) for c, k in enumerate(index)])
    by_hand = column(causal(MIXED[0], outcome, drawn, family_y=family_y).effects(groups=groups))
    found = fit.bootstrap(1, seed=5, groups=groups)
    np.testing.assert_allclose(found.draws.iloc[0], by_hand, rtol=1e-5)
    assert found.kind == "cluster"


def test_failed_replicates_are_counted():
    """A rare outcome: some replicates have none of it, or separate it."""
    rng = np.random.default_rng(1)
    data = simulated().iloc[:60].assign(y=0.0)
    data.loc[rng.choice(60, 3, replace=False), "y"] = 1.0
    fit = causal("m ~ x", "y ~ m + x", data, family_y="logit")
    boot = fit.bootstrap(60, seed=1)
    assert 0 < boot.n_failed < 60
    assert boot.draws["acme"].isna().sum() == boot.n_failed
    assert boot.tidy()["note"].str.contains(f"{boot.n_failed} failed").all()
    assert any("infinite" in reason or "0 or 1" in reason for reason in boot.failures)


@pytest.mark.parametrize("method", ["percentile", "bc", "bca", "basic", "normal"])
def test_bootstrap_methods(method):
    table = fitted().effects("bootstrap", n=60, seed=1, method=method)
    row = table.set_index("term").loc["acme"]
    assert row["conf_low"] < row["estimate"] < row["conf_high"]
    estimate = column(fitted().effects())["acme"]
    assert row["estimate"] == pytest.approx(estimate, rel=SAME)


# -- output ---------------------------------------------------------------------------------------------------


def test_summary_says_what_was_done(mixed):
    text = str(fitted("linear", "probit", robust="HC3"))
    for part in ("x -> m -> y", "(linear)", "(probit)", "0 (control) to 1 (treated)", "HC3", "Phi((A + B mu)",
                 "delta method", "residual sd of m", "acme_treated"):  # fmt: skip
        assert part in text
    text = fitted(outcome="y ~ m + x + w").summary("quasi-bayes", n=300, seed=9)
    assert "sums of products" in text
    assert "Control and treated have the same effects" in text
    assert "acme_control" not in text
    assert "300 draws of the coefficients, seed 9" in text
    text = fitted().summary("bootstrap", n=60, seed=2, method="bc", n_jobs=1)
    assert "bootstrap (bc), 60 replicates, seed 2" in text
    text = mixed.summary("quasi-bayes", n=100, seed=1, ranef_draws="independent")
    assert "drawn independently of them" in " ".join(text.split())
    assert "covariance of their random slopes" in str(mixed)
    assert "conditional modes" in str(mixed)
    assert "averaged out" in mixed.summary(groups="population")
    assert str(mixed) in mixed._repr_html_()
    assert "3 clusters for 5 coefficients" in str(
        causal(XM, YM, simulated().assign(g=lambda d: d["g"] % 3), treatment="x", cluster="g")
    )


@pytest.mark.parametrize(("pair", "words"), [
    (("linear", "logit"), "numerical integral"), (("linear", "poisson"), "closed form"),
    (("logit", "probit"), "both values of the mediator"), (("poisson", "logit"), "counts of the mediator"),
    (("poisson", "poisson"), "closed form"), (("probit", "linear"), "closed form"),
])  # fmt: skip
def test_summary_names_the_computation(pair, words):
    assert words in " ".join(str(fitted(*pair)).split())


def test_tables(mixed):
    fit = fitted("linear", "probit", robust="HC3")
    assert list(fit.params.index[:3]) == ["m:Intercept", "m:x", "m:w"]
    glance = fit.glance().iloc[0]
    assert (glance["family_m"], glance["family_y"], glance["nobs"], glance["errors"]) == (
        "linear",
        "probit",
        300,
        "HC3",
    )
    assert glance["interaction"]
    document = json.loads(fit.to_json())
    assert document["schema"] == "mlmed.causal/1"
    assert [row["term"] for row in document["effects"]] == list(EFFECTS)
    assert document["values"] == [0.0, 1.0]
    shared = mixed.comparable().set_index("term")
    assert list(shared.index[:3]) == ["indirect", "direct", "total"]
    assert shared.loc["indirect", "estimate"] == pytest.approx(column(mixed.effects())["acme"], rel=SAME)
    assert "var(Med:X)" in shared.index
    assert mixed.label == "potential outcomes"
    assert mixed.combined("`Med:X` * `y:Med`").iloc[0]["estimate"] == pytest.approx(
        column(mixed.effects(groups="population"))["acme"], rel=1e-8
    )
    with pytest.raises(EffectError, match="names 'cov_ab'"):
        mixed.combined("cov_ab + indirect")


def test_a_fit_can_be_pickled(mixed):
    again = pickle.loads(pickle.dumps(mixed))
    pd.testing.assert_frame_equal(again.effects(), mixed.effects())


def test_plot(mixed):
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    ax = fitted("linear", "probit").plot("quasi-bayes", n=100, seed=1)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["Total effect", "ADE", "ACME"]
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"treated", "control"}
    assert mixed.plot().get_legend() is None
    plt.close("all")


def test_sensitivity_is_handed_on(monkeypatch):
    import mlmed.modes.sensitivity as other

    asked = {}
    monkeypatch.setattr(other, "sensitivity_of", lambda fit, **options: asked.update(options, fit=fit))
    fit = fitted()
    fit.sensitivity([0.1], n=10, seed=1, effect="direct")
    assert asked["fit"] is fit
    assert asked["rho"] == [0.1]
    assert (asked["n"], asked["seed"], asked["effect"], asked["formula"]) == (10, 1, "direct", "exact")


# -- bad input ------------------------------------------------------------------------------------------------


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
    "wrong treatment": (ask("m ~ x", "y ~ m + x", treatment="w"), FormulaError, "'w' is not in the fixed part"),
    "control": (ask("m ~ x", "y ~ m + x", control_value=2), DataError, "never has the value 2.*values are 0, 1"),
    "equal values": (ask("m ~ x", "y ~ m + x", control_value=1), DataError, "nothing to compare"),
    "text for a number": (ask("m ~ x", "y ~ m + x", treat_value="b"), DataError, "treat_value='b', but.*numbers"),
    "beyond the range": (
        ask("m ~ w", "y ~ m + w", control_value=0, treat_value=9), DataError, "would be an extrapolation"
    ),
    "level of a factor": (
        ask("m ~ x", "y ~ m + x", data=simulated().assign(x=["a", "b", "c"] * 100)), DataError,
        "never has the value 0 .its values are 'a', 'b', 'c'",
    ),
    "coded numbers": (
        ask("m ~ C(w)", "y ~ m + C(w)", data=simulated().assign(w=[1, 2, 3] * 100), treat_value=2), DataError,
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
    "robust": (ask("m ~ x", "y ~ m + x", robust="HC5"), EffectError, "robust must be one of HC0"),
    "robust mixed": (ask("m ~ x + (1 | g)", "y ~ m + x", robust="HC3"), EffectError, "use cluster='g'"),
    "both": (ask("m ~ x", "y ~ m + x", robust="HC3", cluster="g"), EffectError, "give one of them"),
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
    "interval": ({"interval": "bayes"}, "must be one of delta, quasi-bayes, bootstrap"),
    "no seed": ({"interval": "quasi-bayes"}, "give a seed"),
    "no seed for replicates": ({"interval": "bootstrap"}, "give a seed"),
    "idle seed": ({"seed": 1}, "interval='delta' does not use seed.*leave it out"),
    "idle method": ({"interval": "quasi-bayes", "seed": 1, "method": "bca"}, "does not use method"),
    "idle draws": ({"interval": "bootstrap", "seed": 1, "ranef_draws": "joint"}, "does not use ranef_draws"),
    "n": ({"interval": "quasi-bayes", "seed": 1, "n": 0}, "whole number from 1"),
    "level": ({"level": 95}, "level must be a proportion"),
    "groups": ({"groups": "modes"}, "no equation has any; leave it out"),
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
    with pytest.raises(EffectError, match="groups must be one of modes, population"):
        mixed.effects(groups="clusters")
    with pytest.raises(EffectError, match="ranef_draws must be one of joint, independent"):
        mixed.effects(ranef_draws="none")
    with pytest.raises(EffectError, match="averages over clusters without them"):
        mixed.effects(groups="population", ranef_draws="joint")
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
