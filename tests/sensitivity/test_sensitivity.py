"""Sensitivity to correlated errors: published numbers, and other routes to the same maximum."""

from __future__ import annotations

from dataclasses import replace

import numdifftools as nd
import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

import mlmed
from mlmed.effects.confounding import Factored, Jointly, shrunk
from mlmed.effects.sensitivity import CONTRASTS, Equation, embedding, explained
from tests.causal_models import chain, effects_of
from tests.sensitivity_models import (
    COVARIATES,
    FOUR_ERRORS,
    ITERATED,
    MAXIMIZED,
    PAIRS,
    SOLVED,
    bivariate,
    column,
    fgls,
    pair_from,
    probit_fit,
    simulated,
)
from tests.tolerances import SAME


@pytest.fixture(scope="module")
def framing(dataset):
    return dataset("framing")


@pytest.fixture(scope="module")
def probit(framing):
    return probit_fit(framing)


@pytest.fixture(scope="module")
def published_way(probit):
    return probit.sensitivity(rho=[0.0, 0.3, 0.4], formula="medsens", n=20_000, seed=1)


# -- what R's page prints ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("term", "rho", "published"),
    [
        ("acme_control", 0.3, (0.0059, -0.0073, 0.0180)),
        ("acme_control", 0.4, (-0.0088, -0.0320, 0.0018)),
        ("acme_treated", 0.3, (0.0065, -0.0078, 0.0178)),
        ("acme_treated", 0.4, (-0.0105, -0.0368, 0.0018)),
    ],
)
def test_medsens_on_framing_as_published_from_100_draws(published_way, term, rho, published):
    row = published_way.rows(term).set_index("rho").loc[rho]
    error = row["std_error"] / np.sqrt(100)
    assert row["estimate"] == pytest.approx(published[0], abs=FOUR_ERRORS * error)
    of_quantile = np.sqrt(0.025 * 0.975) / stats.norm.pdf(stats.norm.ppf(0.025))  # a normal curve's, in errors
    assert row["conf_low"] == pytest.approx(published[1], abs=FOUR_ERRORS * of_quantile * error)
    assert row["conf_high"] == pytest.approx(published[2], abs=FOUR_ERRORS * of_quantile * error)


def test_medsens_on_framing_where_it_prints_zero(probit):
    result = probit.sensitivity(formula="medsens", seed=1)
    zero = result.zero.set_index("term")
    for term in ("acme_control", "acme_treated"):
        assert zero.loc[term, "rho_on_grid"] == 0.3
        assert round(zero.loc[term, "R2_star_on_grid"], 4) == 0.09
        assert round(zero.loc[term, "R2_tilde_on_grid"], 4) == 0.0493
        assert zero.loc[term, "rho"] == pytest.approx(0.34, abs=0.01)
    region = result.region()
    assert region[region["term"] == "acme_control"]["rho"].tolist() == [0.3, 0.4]
    assert round(column(result, "acme_control", "R2_tilde")[0.4], 4) == 0.0877


def test_medsens_is_rs_formula(probit):
    """As its source has it, with the misplaced bracket: one set of parameters, written out."""
    fit, rho = probit, 0.4
    m, y = chain(fit).parts
    alpha, beta, s = m.beta, y.beta, m.sigma
    k, names = y.layout.fixed.index("emo"), list(m.layout.fixed)
    rho12 = s * beta[k] / (1.0 + np.sqrt(s**2 * beta[k] ** 2))
    reduced = dict(zip(np.delete(y.layout.fixed, k), np.delete(beta, k) * np.sqrt(1.0 - rho12**2), strict=True))
    reduced = np.array([reduced[name] for name in names]) + alpha * rho12 / s
    gamma = (-rho + rho12 * np.sqrt((1.0 - rho**2) / (1.0 - rho12**2))) / s
    shift = gamma * alpha[names.index("treat")] / np.sqrt(gamma**2 * s**2 + 2.0 * gamma * rho * s + 1.0)
    under = [columns @ reduced for columns in effects_of(fit).designs[0].mediator]
    expected = [
        np.mean(stats.norm.cdf(under[0] + shift) - stats.norm.cdf(under[0])),
        np.mean(stats.norm.cdf(under[1]) - stats.norm.cdf(under[1] - shift)),
    ]
    pair = pair_from(fit)
    found = CONTRASTS["indirect"] @ Factored(pair, embedding(pair), medsens=True).cells(rho)
    assert found[:2] == pytest.approx(expected, rel=SAME)


def test_medsens_does_not_start_from_the_estimated_effect(probit, published_way):
    """.047 at rho = 0, where the effect is .084: why its numbers are for comparisons only."""
    estimate = probit.effects().set_index("term")["estimate"]["acme_control"]
    assert column(published_way, "acme_control", "estimate")[0.0] == pytest.approx(0.047, abs=0.001)
    assert estimate == pytest.approx(0.084, abs=0.001)


# -- the exact formula ------------------------------------------------------------------------------------------


def test_exact_on_framing(probit, framing):
    """Nothing is left of the effect where kappa is the mediator's probit coefficient: rho = s b / sqrt(1 + s^2 b^2)."""
    import statsmodels.formula.api as smf

    result = probit.sensitivity()
    s2 = smf.ols(f"emo ~ {COVARIATES}", framing).fit().resid.var(ddof=0)
    b = smf.probit(f"cong_mesg ~ emo + {COVARIATES}", framing).fit(disp=False, tol=1e-12).params["emo"]
    assert result.table["rho"].unique() == pytest.approx(np.arange(-9, 10) / 10)
    zero = result.zero.set_index("term").loc["acme_control"]
    assert zero["rho"] == pytest.approx(b * np.sqrt(s2 / (1.0 + s2 * b**2)), abs=ITERATED)
    assert zero["R2_star"] == pytest.approx(zero["rho"] ** 2, rel=SAME)
    left = np.prod(result.unexplained)
    assert zero["R2_tilde"] == pytest.approx(zero["rho"] ** 2 * left, rel=SAME)
    assert left == pytest.approx(0.0493 / 0.09, abs=0.0005 / 0.9)


@pytest.mark.parametrize("interaction", [False, True])
@pytest.mark.parametrize(("family_m", "family_y"), PAIRS)
def test_the_curve_starts_from_the_estimated_effects(framing, family_m, family_y, interaction):
    names = {"linear": ("emo", "immigr"), "probit": ("anti_info", "cong_mesg")}
    m, y = names[family_m][0], names[family_y][1]
    join = "*" if interaction else "+"
    outcome = f"{y} ~ {m} {join} treat + age + gender + income"
    fit = mlmed.causal(
        f"{m} ~ treat + age + gender + income", outcome, framing, treatment="treat", family_m=family_m,
        family_y=family_y,
    )  # fmt: skip
    effects = fit.effects().set_index("term")["estimate"]
    for effect, terms in (("indirect", ("acme_control", "acme_treated", "acme")), ("direct", ("ade_treated", "ade"))):
        found = fit.sensitivity(rho=[0.0, 0.3], effect=effect).at(0.0)
        for term in terms:
            assert found[term] == pytest.approx(effects[term], abs=1e-12)


@pytest.mark.parametrize("interaction", [False, True])
@pytest.mark.parametrize("rho", [-0.8, 0.3, 0.6])
def test_two_linear_equations_are_rs_iterated_least_squares(framing, rho, interaction):
    join = "*" if interaction else "+"
    outcome = f"immigr ~ emo {join} treat + age + educ + gender + income"
    fit = mlmed.causal(f"emo ~ {COVARIATES}", outcome, framing, treatment="treat")
    m, y = chain(fit).parts
    b = fgls(*(part for e in (m, y) for part in (e.fit.design.y, e.fit.design.X)), rho)
    result = fit.sensitivity(rho=[rho])
    expected = dict(zip(y.layout.fixed, b[len(m.beta) :], strict=True))
    assert result.coefficients(rho).to_dict() == pytest.approx(expected, rel=ITERATED, abs=ITERATED)
    a = b[m.layout.fixed.index("treat")]
    slope = expected["emo"] + expected.get("emo:treat", 0.0)
    assert result.at(rho)["acme_control"] == pytest.approx(a * expected["emo"], rel=ITERATED)
    assert result.at(rho)["acme_treated"] == pytest.approx(a * slope, rel=ITERATED)


def test_two_linear_equations_cross_zero_at_the_correlation_of_the_residuals(framing):
    """Of mediator and outcome given the other predictors: then nothing is left for the mediator."""
    fit = mlmed.causal(f"emo ~ {COVARIATES}", f"immigr ~ emo + {COVARIATES}", framing, treatment="treat")
    X = chain(fit).mediator.fit.design.X
    M = np.eye(len(X)) - X @ np.linalg.pinv(X)
    expected = np.corrcoef(M @ chain(fit).mediator.fit.design.y, M @ chain(fit).outcome.fit.design.y)[0, 1]
    assert fit.sensitivity().zero["rho"].to_numpy() == pytest.approx(expected, rel=SOLVED)


@pytest.mark.parametrize("interaction", [0.0, 0.4])
@pytest.mark.parametrize(("n", "rho"), [(400, -0.5), (400, 0.4), (60, 0.6)])
def test_linear_and_probit_maximize_the_joint_likelihood(n, rho, interaction):
    pair = simulated(("linear", "probit"), n=n, rho=0.3, seed=4, interaction=interaction)[0]
    p = pair.mediator.X.shape[1]
    sigma = pair.mediator.scale * np.sqrt(pair.mediator.df / n)  # maximum likelihood divides by n
    curve = Factored(pair, embedding(pair))
    start = np.zeros(p + 1 + pair.outcome.X.shape[1])
    best = optimize.minimize(bivariate, start, (p, pair, rho), method="BFGS", options={"gtol": 1e-7})
    best = optimize.minimize(bivariate, best.x, (p, pair, rho), method="Powell", options={"xtol": 1e-11, "ftol": 1e-15})
    # the search stops where the value says nothing: 1e-6 away, in a coefficient of 13
    slope, bend = (kind(lambda at: bivariate(at, p, pair, rho))(best.x) for kind in (nd.Gradient, nd.Hessian))
    best.x = best.x - np.linalg.solve(bend, slope)
    assert best.x[:p] == pytest.approx(pair.mediator.beta, abs=MAXIMIZED)
    assert np.exp(best.x[p]) == pytest.approx(sigma, abs=MAXIMIZED)
    assert best.x[p + 1 :] == pytest.approx(curve.coefficients(rho), abs=MAXIMIZED)
    ours = np.concatenate([pair.mediator.beta, [np.log(sigma)], curve.coefficients(rho)])
    assert bivariate(ours, p, pair, rho) <= best.fun + SOLVED
    assert CONTRASTS["indirect"] @ curve.cells(rho) == pytest.approx(_at_maximum(pair, best.x, rho), abs=MAXIMIZED)


def _at_maximum(pair, found, rho):
    """The indirect effects at an own maximum of the bivariate likelihood, by eq. 79 and 81 written out.

    ``found`` holds alpha, log sigma and beta. The spread of the expected outcome has the unbiased variance of the
    mediator, as the effects without a correlation have it.
    """
    p, columns = pair.mediator.X.shape[1], pair.columns
    alpha, sigma, beta = found[:p], np.exp(found[p]), found[p + 1 :]
    unbiased, root = sigma**2 * len(pair.mediator.y) / pair.mediator.df, np.sqrt(1.0 - rho**2)
    cells = {}
    for t, s in ((0, 0), (0, 1), (1, 0), (1, 1)):
        mean = [columns.mediator[k] @ alpha for k in (t, s)]
        b = columns.slope[t] @ beta
        slope = b / root + rho / (root * sigma)  # of the mediator, given which the outcome has independent errors
        constant = columns.outcome[t] @ beta / root - rho / (root * sigma) * mean[0]
        along = constant + slope * mean[1] + rho / (root * sigma) * (mean[0] - mean[1])
        cells[t, s] = np.mean(stats.norm.cdf(along / np.sqrt(1.0 + slope**2 * unbiased)))
    control, treated = cells[0, 1] - cells[0, 0], cells[1, 1] - cells[1, 0]
    return [control, treated, (control + treated) / 2.0]


def test_the_curve_at_a_correlation_is_that_of_the_maximum():
    """Sixty rows, where the divisors n and n - p of the mediator's variance are 3 percent apart."""
    rng = np.random.default_rng(4)
    n = 60
    data = pd.DataFrame(rng.normal(size=(n, 2)), columns=["w", "m"])
    data["t"] = np.repeat([0.0, 1.0], n // 2)
    data["m"] += 0.5 * data["t"] + 0.5 * data["w"]
    data["y"] = (0.6 * data["m"] + 0.2 * data["t"] + rng.normal(size=n) > 0.3) * 1
    fit = mlmed.causal("m ~ t + w", "y ~ m + t + w", data, treatment="t", family_y="probit")
    result, pair, rho = fit.sensitivity(rho=[0.0, 0.6]), pair_from(fit), 0.6
    joint = Jointly(pair)
    assert result.coefficients(rho).to_numpy() == pytest.approx(joint.coefficients(rho), abs=SOLVED)
    found = joint.fit(rho)
    maximum = _at_maximum(pair, np.concatenate([found.first, np.log(found.scales[:1]), found.second]), rho)
    assert result.at(rho).to_numpy() == pytest.approx(maximum, abs=SOLVED)
    assert abs(_biased(pair, rho) - maximum[2]) > 1e-3  # kappa with the unbiased sigma is another curve
    estimate = fit.effects().set_index("term")["estimate"]["acme"]
    assert result.at(0.0)["acme"] == pytest.approx(estimate, abs=1e-12)


def _biased(pair, rho):
    """The indirect effect with kappa = rho / sqrt(1 - rho^2) / s, s^2 with the divisor n - p."""
    shrunken = replace(pair, mediator=replace(pair.mediator, df=float(len(pair.mediator.y))))
    return (CONTRASTS["indirect"] @ Factored(shrunken, embedding(shrunken)).cells(rho))[2]


@pytest.mark.parametrize("interaction", [0.0, 0.4])
@pytest.mark.parametrize("family", ["linear", "probit"])
def test_both_routes_to_the_same_maximum(family, interaction):
    """In other coordinates of the separate fits, and by Newton's method on the joint likelihood."""
    pair = simulated(("linear", family), n=300, rho=0.4, seed=2, interaction=interaction)[0]
    n = len(pair.mediator.y)
    sigma = pair.mediator.scale * np.sqrt(pair.mediator.df / n)
    pair = replace(pair, mediator=replace(pair.mediator, scale=sigma, df=n))
    if family == "linear":
        sigma_y = pair.outcome.scale * np.sqrt(pair.outcome.df / n)
        pair = replace(pair, outcome=replace(pair.outcome, scale=sigma_y, df=n))
    factored, joint = Factored(pair, embedding(pair)), Jointly(pair)
    for rho in (-0.95, -0.4, 0.0, 0.7):
        assert joint.coefficients(rho) == pytest.approx(factored.coefficients(rho), abs=SOLVED)
        assert joint.cells(rho) == pytest.approx(factored.cells(rho), abs=SOLVED)


@pytest.mark.parametrize("interaction", [0.0, 0.4])
@pytest.mark.parametrize("family", ["linear", "probit"])
def test_the_total_effect_does_not_depend_on_rho(family, interaction):
    """What is observed under each treatment says it, whatever the path."""
    pair = simulated(("linear", family), n=300, rho=0.4, seed=2, interaction=interaction)[0]
    curve = Factored(pair, embedding(pair))
    cells = np.array([curve.cells(rho) for rho in (-0.9, 0.0, 0.6)])
    assert np.ptp(cells[:, [0, 3]], axis=0) == pytest.approx(0.0, abs=SAME)
    assert np.all(np.ptp(cells[:, [1, 2]], axis=0) > 0.01)


def test_r_shrinks_the_slope():
    """rho12 = s b / (1 + s |b|) stands for the slope b / sqrt(1 + 2 s |b|)."""
    b, s = np.array([-0.7, 0.3]), np.array([1.3, 2.0])
    rho12 = s * b / (1.0 + s * np.abs(b))
    found = shrunk(np.column_stack([np.ones(2), b]), np.array([0.0, 1.0]), np.array([0.0, 1.0]), s)
    assert found[:, 1] == pytest.approx(rho12 / (s * np.sqrt(1.0 - rho12**2)), rel=SAME)
    assert found[:, 0] == pytest.approx(1.0)


def test_explained_variance_of_both_families():
    """R^2 of a regression by correlation; of a probit index var(eta)/(1 + var(eta)) with divisor n - 1 (eq. 88)."""
    rng = np.random.default_rng(3)
    X = np.column_stack([np.ones(12), rng.normal(size=12)])
    y = X @ [0.3, 0.8] + rng.normal(size=12)
    beta = np.linalg.lstsq(X, y)[0]
    linear = Equation("linear", y, X, beta, np.eye(2), 1.0, 10.0)
    assert explained(linear) == pytest.approx(np.corrcoef(X[:, 1], y)[0, 1] ** 2, rel=SAME)
    spread = beta[1] ** 2 * np.cov(X[:, 1])
    assert explained(replace(linear, family="probit", y=(y > 0.0) * 1.0)) == pytest.approx(
        spread / (1 + spread), rel=SAME
    )
