"""Sensitivity to correlated errors: published numbers, independent maximizations, simulations with a stated truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats

import mlmed
from mlmed.effects.confounding import Factored, Jointly, shrunk
from mlmed.effects.potential import Counterfactual
from mlmed.effects.sensitivity import CONTRASTS, Equation, Pair, Parameters, cell_means, embedding
from mlmed.errors import EffectError, NotIdentifiedError
from mlmed.glm.coordinates import Margin
from mlmed.glm.endogenous import fit_pair, pair_loglik
from mlmed.glm.fit import fit_glm
from mlmed.glm.robust import cluster_vcov, hc_vcov
from mlmed.modes.causal.sensitivity_setup import grid_of
from mlmed.modes.causal.sensitivity_tables import root_of
from tests.tolerances import DERIVATIVE, SAME

Array = NDArray[np.float64]
COVARIATES = "treat + age + educ + gender + income"
#: The same number by two routes, one of which is an iteration of ours to a Newton decrement of 1e-14 and better.
SOLVED = 1e-9
#: Estimates of somebody else's iteration that stops at steps of 1e-13.
ITERATED = 1e-8
#: A general-purpose maximizer on finite differences of a log-likelihood of 1e2 to 1e3.
MAXIMIZED = 1e-6
#: A mean, or a quantile, of draws is within this many standard errors.
FOUR_ERRORS = 4.0
PAIRS = [("linear", "linear"), ("linear", "probit"), ("probit", "linear")]


@pytest.fixture(scope="module")
def framing(dataset):
    return dataset("framing")


@pytest.fixture(scope="module")
def probit(framing):
    outcome = f"cong_mesg ~ emo + {COVARIATES}"
    return mlmed.causal(f"emo ~ {COVARIATES}", outcome, framing, treatment="treat", family_y="probit", robust="HC3")


@pytest.fixture(scope="module")
def published_way(probit):
    return probit.sensitivity(rho=[0.0, 0.3, 0.4], formula="medsens", n=20_000, seed=1)


def column(result, term: str, name: str) -> pd.Series:
    return result.rows(term).set_index("rho")[name]


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
    m, y = fit.mediator, fit.outcome
    alpha, beta, s = m.beta, y.beta, m.sigma
    k, names = y.names.index("emo"), list(m.names)
    rho12 = s * beta[k] / (1.0 + np.sqrt(s**2 * beta[k] ** 2))
    reduced = dict(zip(np.delete(y.names, k), np.delete(beta, k) * np.sqrt(1.0 - rho12**2), strict=True))
    reduced = np.array([reduced[name] for name in names]) + alpha * rho12 / s
    gamma = (-rho + rho12 * np.sqrt((1.0 - rho**2) / (1.0 - rho12**2))) / s
    shift = gamma * alpha[names.index("treat")] / np.sqrt(gamma**2 * s**2 + 2.0 * gamma * rho * s + 1.0)
    under = [columns @ reduced for columns in fit.counterfactual().mediator]
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


def test_exact_on_framing(probit):
    result = probit.sensitivity()
    assert result.table["rho"].unique() == pytest.approx(np.arange(-9, 10) / 10)
    zero = result.zero.set_index("term").loc["acme_control"]
    assert zero["rho"] == pytest.approx(0.461, abs=0.003)
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


def fgls(m: Array, W: Array, y: Array, X: Array, rho: float) -> Array:
    """Seemingly unrelated regressions with the covariance rho sd1 sd2, iterated; coefficients of both."""
    n, p = len(m), W.shape[1]
    A = np.block([[W, np.zeros((n, X.shape[1]))], [np.zeros((n, p)), X]])
    z, b = np.concatenate([m, y]), np.zeros(A.shape[1])
    b[:p], b[p:] = np.linalg.lstsq(W, m)[0], np.linalg.lstsq(X, y)[0]
    for _ in range(500):
        e = z - A @ b
        sds = e[:n].std(ddof=1), e[n:].std(ddof=1)
        omega = np.array([[sds[0] ** 2, rho * sds[0] * sds[1]], [rho * sds[0] * sds[1], sds[1] ** 2]])
        weighted = A.T @ np.kron(np.linalg.inv(omega), np.eye(n))
        new = np.linalg.solve(weighted @ A, weighted @ z)
        if np.abs(new - b).max() < 1e-13 * np.abs(new).max():
            return new
        b = new
    raise AssertionError("no convergence")


@pytest.mark.parametrize("interaction", [False, True])
@pytest.mark.parametrize("rho", [-0.8, 0.3, 0.6])
def test_two_linear_equations_are_rs_iterated_least_squares(framing, rho, interaction):
    join = "*" if interaction else "+"
    outcome = f"immigr ~ emo {join} treat + age + educ + gender + income"
    fit = mlmed.causal(f"emo ~ {COVARIATES}", outcome, framing, treatment="treat")
    m, y = fit.mediator, fit.outcome
    b = fgls(m.design.y, m.design.X, y.design.y, y.design.X, rho)
    result = fit.sensitivity(rho=[rho])
    expected = dict(zip(y.names, b[len(m.names) :], strict=True))
    assert result.coefficients(rho).to_dict() == pytest.approx(expected, rel=ITERATED, abs=ITERATED)
    a = b[list(m.names).index("treat")]
    slope = expected["emo"] + expected.get("emo:treat", 0.0)
    assert result.at(rho)["acme_control"] == pytest.approx(a * expected["emo"], rel=ITERATED)
    assert result.at(rho)["acme_treated"] == pytest.approx(a * slope, rel=ITERATED)


def test_two_linear_equations_cross_zero_at_the_correlation_of_the_residuals(framing):
    """Of mediator and outcome given the other predictors: then nothing is left for the mediator."""
    fit = mlmed.causal(f"emo ~ {COVARIATES}", f"immigr ~ emo + {COVARIATES}", framing, treatment="treat")
    X = fit.mediator.design.X
    M = np.eye(len(X)) - X @ np.linalg.pinv(X)
    expected = np.corrcoef(M @ fit.mediator.design.y, M @ fit.outcome.design.y)[0, 1]
    assert fit.sensitivity().zero["rho"].to_numpy() == pytest.approx(expected, rel=SOLVED)


def bivariate(parameters: Array, p: int, pair: Pair, rho: float) -> float:
    """Minus the log-likelihood of a linear mediator and a probit outcome with correlated errors, in their own terms."""
    alpha, sigma, beta = parameters[:p], np.exp(parameters[p]), parameters[p + 1 :]
    e = (pair.mediator.y - pair.mediator.X @ alpha) / sigma
    at = (2.0 * pair.outcome.y - 1.0) * (pair.outcome.X @ beta + rho * e) / np.sqrt(1.0 - rho**2)
    return -float((stats.norm.logpdf(e) - np.log(sigma) + stats.norm.logcdf(at)).sum())


@pytest.mark.parametrize("interaction", [0.0, 0.4])
@pytest.mark.parametrize("rho", [-0.5, 0.4])
def test_linear_and_probit_maximize_the_joint_likelihood(rho, interaction):
    pair = simulated(("linear", "probit"), n=400, rho=0.3, seed=4, interaction=interaction)[0]
    n, p = pair.mediator.X.shape
    sigma = pair.mediator.scale * np.sqrt(pair.mediator.df / n)  # maximum likelihood divides by n
    curve = Factored(replace(pair, mediator=replace(pair.mediator, scale=sigma)), embedding(pair))
    start = np.zeros(p + 1 + pair.outcome.X.shape[1])
    best = optimize.minimize(bivariate, start, (p, pair, rho), method="BFGS", options={"gtol": 1e-7})
    best = optimize.minimize(bivariate, best.x, (p, pair, rho), method="Powell", options={"xtol": 1e-11, "ftol": 1e-15})
    assert best.x[:p] == pytest.approx(pair.mediator.beta, abs=MAXIMIZED)
    assert np.exp(best.x[p]) == pytest.approx(sigma, abs=MAXIMIZED)
    assert best.x[p + 1 :] == pytest.approx(curve.coefficients(rho), abs=MAXIMIZED)
    ours = np.concatenate([pair.mediator.beta, [np.log(sigma)], curve.coefficients(rho)])
    assert bivariate(ours, p, pair, rho) <= best.fun + SOLVED


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


# -- Newton's method --------------------------------------------------------------------------------------------


def margins(pair: Pair) -> tuple[Margin, Margin]:
    sides = [Margin(e.family, e.y, e.X) for e in (pair.mediator, pair.outcome)]
    return (sides[0], sides[1]) if pair.mediator.family == "linear" else (sides[1], sides[0])


@pytest.mark.parametrize("families", PAIRS)
def test_the_joint_fit_against_numerical_derivatives(families):
    import numdifftools as nd

    first, second = margins(simulated(families, n=200, rho=0.5, seed=3)[0])
    rho, p = 0.6, first.X.shape[1]
    fit = fit_pair(first, second, rho)
    k = p + second.X.shape[1]

    def loglik(v: Array) -> float:
        return pair_loglik(first, second, rho, coefficients=(v[:p], v[p:k]), scales=np.exp(v[k:]))

    at = np.concatenate([fit.first, fit.second, np.log(fit.scales)])
    assert loglik(at) == pytest.approx(fit.loglik, rel=SAME)
    assert nd.Gradient(loglik)(at) == pytest.approx(0.0, abs=DERIVATIVE)
    information = np.linalg.inv(fit.vcov)
    size = np.sqrt(np.diag(information))
    assert -nd.Hessian(loglik)(at) / np.outer(size, size) == pytest.approx(
        information / np.outer(size, size), abs=DERIVATIVE
    )
    assert fit.decrement < 1e-20
    assert fit.scores.sum(axis=0) == pytest.approx(0.0, abs=SOLVED)
    row = 7  # scores are row by row
    one = [Margin(s.family, s.y[row : row + 1], s.X[row : row + 1]) for s in (first, second)]

    def of_row(v: Array) -> float:
        e1 = (one[0].y - one[0].X @ v[:p])[0] / np.exp(v[k])
        if second.family == "linear":
            e2 = (one[1].y - one[1].X @ v[p:k])[0] / np.exp(v[k + 1])
            density = stats.multivariate_normal([0.0, 0.0], [[1.0, rho], [rho, 1.0]]).logpdf([e1, e2])
            return float(density - v[k] - v[k + 1])
        q = (2.0 * one[1].y[0] - 1.0) * ((one[1].X @ v[p:k])[0] + rho * e1) / np.sqrt(1.0 - rho**2)
        return float(stats.norm.logpdf(e1) - v[k] + stats.norm.logcdf(q))

    assert fit.scores[row] == pytest.approx(nd.Gradient(of_row)(at), abs=DERIVATIVE)


@pytest.mark.parametrize("families", PAIRS)
def test_the_joint_fit_is_found_from_anywhere_and_near_the_ends(families):
    first, second = margins(simulated(families, n=200, rho=0.5, seed=3)[0])
    ends = [fit_pair(first, second, rho) for rho in (-0.999, 0.999)]
    for rho in (-0.99, -0.2, 0.5, 0.999):
        fits = [fit_pair(first, second, rho, start=start) for start in (None, *ends)]
        for fit in fits[1:]:
            assert np.concatenate([fit.first, fit.second]) == pytest.approx(
                np.concatenate([fits[0].first, fits[0].second]), rel=ITERATED, abs=ITERATED
            )
            assert fit.loglik == pytest.approx(fits[0].loglik, rel=SAME)


def test_the_joint_fit_does_not_depend_on_units():
    pair = simulated(("probit", "linear"), n=200, rho=0.5, seed=3)[0]
    first, second = margins(pair)
    fit = fit_pair(first, second, 0.4)
    X = first.X.copy()
    X[:, 3] = 1e6 + 1e-3 * X[:, 3]
    moved = fit_pair(Margin("linear", 5.0 + 1e4 * first.y, X), second, 0.4)
    assert moved.second == pytest.approx(fit.second, rel=1e-6)  # X is collinear to 1e-9
    assert moved.first[1:3] == pytest.approx(1e4 * fit.first[1:3], rel=1e-6)
    assert moved.first[3] == pytest.approx(1e7 * fit.first[3], rel=1e-6)


def test_joint_fits_that_cannot_be():
    one, y = np.ones((20, 1)), np.linspace(0.0, 1.0, 20)
    with pytest.raises(EffectError, match="between -1 and 1, both excluded; found 1"):
        fit_pair(Margin("linear", y, one), Margin("linear", y**2, one), 1.0)
    with pytest.raises(EffectError, match="found probit and linear"):
        fit_pair(Margin("probit", np.round(y), one), Margin("linear", y, one), 0.0)
    with pytest.raises(NotIdentifiedError, match="without error"):
        fit_pair(Margin("linear", 2.0 * one[:, 0], one), Margin("linear", y, one), 0.0)
    with pytest.raises(NotIdentifiedError, match="no certified optimum"):
        fit_pair(Margin("linear", y, one), Margin("probit", one[:, 0], one), 0.3)


# -- simulations with a stated truth ----------------------------------------------------------------------------


def simulated(
    families: tuple[str, str], *, n: int, rho: float, seed: int, interaction: float = 0.0, a: float = 0.6
) -> tuple[Pair, Array]:
    """Fits of data whose errors are correlated rho, and their true (ACME control, treated, mean) on these rows."""
    rng = np.random.default_rng(seed)
    x, t, one = rng.normal(size=n), (rng.random(n) < 0.5) * 1.0, np.ones(n)
    e = rng.multivariate_normal([0.0, 0.0], [[1.0, rho], [rho, 1.0]], n)
    alpha, sigma = np.array([-0.2, a, 0.4]), 1.5 if families[0] == "linear" else 1.0
    beta = np.array([0.1, 0.5, 0.3, -0.2, *([interaction] if interaction else [])])

    def outcome_columns(treatment: Array, m: Array) -> Array:
        return np.column_stack([one, m, treatment, x, *([m * treatment] if interaction else [])])

    W = np.column_stack([one, t, x])
    latent = W @ alpha + sigma * e[:, 0]
    m = latent if families[0] == "linear" else (latent > 0.0) * 1.0
    X = outcome_columns(t, m)
    latent = X @ beta + (2.0 * e[:, 1] if families[1] == "linear" else e[:, 1])
    y = latent if families[1] == "linear" else (latent > 0.0) * 1.0
    under = [value * one for value in (0.0, 1.0)]
    zero, unit = (np.stack([outcome_columns(value, level * one) for value in under]) for level in (0.0, 1.0))
    columns = Counterfactual(np.stack([np.column_stack([one, value, x]) for value in under]), zero, unit - zero)
    pair = Pair(equation(families[0], m, W), equation(families[1], y, X), columns)
    true = Parameters(alpha[None], beta[None], np.array([sigma]), rho, np.zeros((1, 1)))
    return pair, CONTRASTS["indirect"] @ cell_means(columns, families, true)[0, 0]


def equation(family: str, y: Array, X: Array) -> Equation:
    fit = fit_glm(family, y, X, names=tuple(f"x{i}" for i in range(X.shape[1])), response="y")
    scale = float(np.sqrt(fit.sigma2)) if family == "linear" else 1.0
    return Equation(family, y, X, fit.beta, fit.vcov, scale, float(len(y) - X.shape[1]))


def pair_from(fit) -> Pair:
    sides = [
        Equation(e.family, e.design.y, e.design.X, e.beta, e.vcov, e.sigma, float(len(e.design.y) - len(e.beta)))
        for e in (fit.mediator, fit.outcome)
    ]
    return Pair(sides[0], sides[1], fit.counterfactual())


def curve_of(pair: Pair) -> Factored | Jointly:
    return Factored(pair, embedding(pair)) if pair.mediator.family == "linear" else Jointly(pair)


@pytest.mark.parametrize("rho", [0.5, -0.6])
@pytest.mark.parametrize("families", PAIRS)
def test_the_curve_finds_the_effect_at_the_true_correlation(families, rho):
    """Bias within Monte Carlo error, intervals that cover, and a naive estimate that is wrong."""
    rows = []
    for seed in range(80):
        pair, truth = simulated(families, n=1000, rho=rho, seed=seed, interaction=0.3)
        curve = curve_of(pair)
        G, V = curve.delta(rho)
        errors = np.sqrt(np.diag(CONTRASTS["indirect"] @ G @ V @ G.T @ CONTRASTS["indirect"].T))
        found, naive = (CONTRASTS["indirect"] @ curve.cells(at) for at in (rho, 0.0))
        rows.append((found - truth, errors, naive - truth))
    bias, errors, naive = np.array(rows).transpose(1, 0, 2)
    monte_carlo = bias.std(axis=0) / np.sqrt(len(bias))
    assert np.all(np.abs(bias.mean(axis=0)) < FOUR_ERRORS * monte_carlo)
    assert np.all(np.abs(naive.mean(axis=0)) > 2.0 * FOUR_ERRORS * monte_carlo)
    covered = (np.abs(bias) < 1.96 * errors).mean(axis=0)
    assert np.all(covered > 0.95 - FOUR_ERRORS * np.sqrt(0.95 * 0.05 / len(bias)))
    assert errors.mean(axis=0) == pytest.approx(bias.std(axis=0), rel=FOUR_ERRORS / np.sqrt(2 * len(bias)))


def test_intervals_need_the_uncertainty_of_the_residual_scales():
    """With a strong first path, holding them fixed (as R does) covers .83 at rho = .8."""
    hits = []
    for seed in range(300):
        pair, truth = simulated(("linear", "linear"), n=300, rho=0.8, seed=seed, a=2.5)
        curve = curve_of(pair)
        G, V = curve.delta(0.8)
        fixed = V.copy()
        fixed[-2:] = 0.0
        g, miss = CONTRASTS["indirect"][2] @ G, abs(CONTRASTS["indirect"][2] @ curve.cells(0.8) - truth[2])
        hits.append([miss < 1.96 * np.sqrt(g @ covariance @ g) for covariance in (V, fixed)])
    covered = np.mean(hits, axis=0)
    error = np.sqrt(0.95 * 0.05 / len(hits))
    assert covered[0] > 0.95 - FOUR_ERRORS * error
    assert covered[1] < 0.95 - 2.0 * FOUR_ERRORS * error


# -- intervals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interaction", [0.0, 0.4])
@pytest.mark.parametrize("families", PAIRS)
def test_gradients_of_the_cells(families, interaction):
    import numdifftools as nd

    from mlmed.effects.sensitivity import cell_gradients

    pair = simulated(families, n=60, rho=0.3, seed=5, interaction=interaction)[0]
    p, k = len(pair.mediator.beta), len(pair.mediator.beta) + len(pair.outcome.beta)
    for rho, tilt in ((0.0, 0.7), (-0.6, 0.0)):

        def parameters(v: Array, rho: float = rho, tilt: float = tilt) -> Parameters:
            lift = np.array([[tilt * np.exp(v[k + 1] - v[k])]])
            return Parameters(v[None, :p], v[None, p:k], np.exp(v[k : k + 1]), rho, lift)

        def cells(v: Array, parameters=parameters) -> Array:
            return cell_means(pair.columns, families, parameters(v))[0, 0]

        at = np.concatenate([pair.mediator.beta, pair.outcome.beta, [0.2, -0.3]])
        expected = nd.Jacobian(cells)(at)
        assert cell_gradients(pair.columns, families, parameters(at)) == pytest.approx(expected, abs=DERIVATIVE)


@pytest.mark.parametrize("families", PAIRS)
def test_draws_spread_as_the_delta_method_says(families):
    pair = simulated(families, n=1500, rho=0.3, seed=6)[0]
    curve, n = curve_of(pair), 2000
    rhos = np.array([-0.6, 0.0, 0.7])
    draws = curve.draws(rhos, n, np.random.default_rng(1)) @ CONTRASTS["indirect"].T
    for r, rho in enumerate(rhos):
        G, V = curve.delta(float(rho))
        H = CONTRASTS["indirect"] @ G
        expected = np.sqrt(np.diag(H @ V @ H.T))
        assert draws[r].std(axis=0) == pytest.approx(expected, rel=FOUR_ERRORS / np.sqrt(2 * n) + 0.02)  # curvature
    neighbours = curve.draws(np.array([0.3, 0.301]), 50, np.random.default_rng(1))[:, :, 1]
    assert np.ptp(neighbours, axis=0).max() < 0.1 * neighbours.std()  # the same draws at every rho


def test_quasi_bayes_and_delta_on_framing(probit):
    rho = [-0.3, 0.0, 0.3]
    delta, drawn = probit.sensitivity(rho=rho), probit.sensitivity(rho=rho, n=4000, seed=1)
    assert (delta.interval, drawn.interval) == ("delta", "quasi-bayes")
    assert drawn.table["estimate"].to_numpy() == pytest.approx(delta.table["estimate"].to_numpy(), rel=SAME)
    assert drawn.table["std_error"].to_numpy() == pytest.approx(delta.table["std_error"].to_numpy(), rel=0.1)
    again, other = (probit.sensitivity(rho=rho, n=4000, seed=seed) for seed in (1, 2))
    assert drawn.table.equals(again.table)
    assert not drawn.table.equals(other.table)
    low = drawn.table["conf_low"].to_numpy()
    assert low == pytest.approx(delta.table["conf_low"].to_numpy(), abs=0.5 * delta.table["std_error"].max())
    wide, narrow = (probit.sensitivity(rho=rho, level=level).table for level in (0.99, 0.5))
    assert np.all(wide["conf_high"] - wide["conf_low"] > 3.0 * (narrow["conf_high"] - narrow["conf_low"]))


def test_too_few_draws_are_said(probit):
    table = probit.sensitivity(rho=[0.2], n=20, seed=1).table
    assert table["conf_low"].isna().all()
    assert table["note"].str.contains("20 usable draws are too few").all()


# -- equations that share not all predictors, and robust covariances -------------------------------------------


@pytest.mark.parametrize(("y", "family"), [("immigr", "linear"), ("cong_mesg", "probit")])
def test_a_predictor_of_the_mediator_only(framing, y, family):
    """Then the likelihood at rho is not that of two separate fits, and says something about rho."""
    outcome = f"{y} ~ emo + treat + age + educ + gender"
    fit = mlmed.causal(f"emo ~ {COVARIATES}", outcome, framing, treatment="treat", family_y=family)
    pair = pair_from(fit)
    assert embedding(pair) is None
    result = fit.sensitivity(rho=[-0.4, 0.0, 0.4])
    assert "columns that the outcome's lacks" in result.notes[0]
    assert result.at(0.0)["acme"] == pytest.approx(fit.effects().set_index("term")["estimate"]["acme"], abs=1e-12)
    curve = Jointly(pair)
    logliks = [curve.fit(rho).loglik for rho in (-0.4, 0.0, 0.4)]
    assert np.ptp(logliks) > 1e-3
    nested = mlmed.causal(f"emo ~ {COVARIATES}", f"{outcome} + income", framing, treatment="treat", family_y=family)
    joint = Jointly(pair_from(nested))
    assert np.ptp([joint.fit(rho).loglik for rho in (-0.4, 0.0, 0.4)]) < SOLVED  # nothing is said of rho


def test_more_predictors_of_the_outcome_do_no_harm(framing):
    fit = mlmed.causal("emo ~ treat + age", f"immigr ~ emo + {COVARIATES}", framing, treatment="treat")
    assert fit.sensitivity(rho=[0.4]).notes == ()
    assert fit.sensitivity(rho=[0.4]).at(0.4)["acme"] == pytest.approx(Jointly(pair_from(fit)).cells(0.4) @ [
        -0.5, 0.5, -0.5, 0.5
    ], rel=SOLVED)  # fmt: skip


def test_columns_that_agree_in_the_data_but_not_under_treatment(framing):
    """A product made before the fit does not follow the treatment, so the equations are fitted together."""
    data = framing.assign(both=framing["treat"] * framing["age"])
    fit = mlmed.causal("emo ~ treat + age + treat:age", "immigr ~ emo + treat + age + both", data, treatment="treat")
    assert embedding(pair_from(fit)) is None
    fit = mlmed.causal("emo ~ treat * age", "immigr ~ emo + treat * age", data, treatment="treat")
    assert embedding(pair_from(fit)) is not None


def test_robust_covariances_of_the_joint_fit():
    pair = simulated(("linear", "linear"), n=200, rho=0.3, seed=8)[0]
    codes = np.arange(200) // 5
    p = len(pair.mediator.beta)
    fits = [fit_glm("linear", e.y, e.X, names=tuple("abcd")[: e.X.shape[1]], response="y") for e in (
        pair.mediator, pair.outcome
    )]  # fmt: skip
    for curve, expected in (
        (Jointly(pair, robust=True), [hc_vcov(fit, "HC0") for fit in fits]),
        (Jointly(pair, codes), [cluster_vcov(fit, codes) for fit in fits]),
    ):
        V = curve.delta(0.0)[1]
        assert V[:p, :p] == pytest.approx(expected[0], rel=SOLVED, abs=1e-14)
        k = p + len(pair.outcome.beta)
        assert V[p:k, p:k] == pytest.approx(expected[1], rel=SOLVED, abs=1e-14)
    few = Jointly(pair, np.arange(200) // 50)  # fewer clusters than parameters
    G, V = few.delta(0.2)
    assert np.linalg.matrix_rank(V) == 3
    drawn = few.draws(np.array([0.2]), 4000, np.random.default_rng(1))[0] @ CONTRASTS["indirect"][2]
    g = CONTRASTS["indirect"][2] @ G
    assert drawn.std() == pytest.approx(np.sqrt(g @ V @ g), rel=0.1)


def test_a_robust_probit_mediator_says_what_it_is(framing):
    outcome = "immigr ~ anti_info + treat + age"
    options = {"treatment": "treat", "family_m": "probit"}
    plain = mlmed.causal("anti_info ~ treat + age", outcome, framing, **options).sensitivity(rho=[0.2])
    robust = mlmed.causal("anti_info ~ treat + age", outcome, framing, **options, robust="HC3").sensitivity(rho=[0.2])
    assert plain.notes == ()
    assert "HC3 is HC0 here" in robust.notes[0]
    assert robust.table["std_error"].to_numpy() != pytest.approx(plain.table["std_error"].to_numpy(), rel=1e-3)
    clustered = mlmed.causal("anti_info ~ treat + age", outcome, framing, **options, cluster="age")
    assert np.all(clustered.sensitivity(rho=[0.2]).table["std_error"] > 0.0)


# -- zeros, grids, text, pictures -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "rho", "note"),
    [
        ([3.0, 2.0, 1.0], np.nan, "one sign for every rho from -0.5000 to 0.5000"),
        ([0.0, 0.0, 0.0], np.nan, "zero at every rho"),
        ([0.2, -0.1, 0.3], 0.125, "zero at -0.1667, too"),
        ([-1.0, 0.0, 1.0], 0.0, ""),
    ],
)
def test_zeros_of_curves(values, rho, note):
    at = np.array([-0.5, 0.0, 0.5])
    found, said = root_of(lambda rhos: np.interp(rhos, at, values)[:, None], 0, at, np.array(values))
    assert found == pytest.approx(rho, nan_ok=True)
    assert note in said


@pytest.mark.parametrize(
    ("rho", "expected"),
    [
        (None, np.arange(-9, 10) / 10),
        (0.25, np.arange(-3, 4) / 4),
        (0.3, [-0.9, -0.6, -0.3, 0.0, 0.3, 0.6, 0.9]),
        ([0.4, -0.1, 0.4], [-0.1, 0.4]),
        (np.array([0.99]), [0.99]),
    ],
)
def test_grids(rho, expected):
    assert grid_of(rho) == pytest.approx(np.array(expected), abs=1e-15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": [0.3, 1.0]}, "between -1 and 1 .both excluded.; found 1.0"),
        ({"rho": [float("nan")]}, "found nan"),
        ({"rho": [True]}, "found True"),
        ({"rho": ["0.3"]}, "found '0.3'"),
        ({"rho": []}, "empty sequence"),
        ({"rho": 1.5}, "distance between its values, between 0 and 1, as in rho=0.05; found 1.5"),
        ({"rho": -0.3}, "For one correlation give a list"),
        ({"rho": "all"}, "a number or a sequence of numbers; found 'all'"),
        ({"effect": "total"}, "effect must be one of indirect, direct; found 'total'"),
        ({"formula": "r"}, "formula must be one of exact, medsens"),
        ({"interval": "profile"}, "interval must be one of delta, quasi-bayes"),
        ({"interval": "delta", "seed": 1}, "does not use seed"),
        ({"interval": "delta", "n": 10, "seed": 1}, "does not use n and seed"),
        ({"n": 100}, "give a seed"),
        ({"interval": "quasi-bayes"}, "give a seed"),
        ({"seed": 1, "n": 0}, "number of draws"),
        ({"seed": -1}, "seed is a whole number"),
        ({"level": 95}, "proportion"),
        ({"formula": "medsens"}, "formula='medsens' draws random numbers: give a seed"),
        ({"formula": "medsens", "interval": "delta"}, "use interval='quasi-bayes' and a seed"),
    ],
)
def test_options_that_make_no_sense_are_refused(probit, options, message):
    with pytest.raises(EffectError, match=message):
        probit.sensitivity(**options)


def test_unsupported_pairs_are_refused(framing, dataset):
    supported = "linear and linear or linear and probit or probit and linear"
    outcome = f"cong_mesg ~ emo + {COVARIATES}"
    logit = mlmed.causal(f"emo ~ {COVARIATES}", outcome, framing, treatment="treat", family_y="logit")
    with pytest.raises(EffectError, match=f"linear .mediator. and logit .outcome.; it needs {supported}; a logit has"):
        logit.sensitivity()
    both = mlmed.causal(
        "anti_info ~ treat", "cong_mesg ~ anti_info + treat", framing, family_m="probit", family_y="probit"
    )
    with pytest.raises(EffectError, match=f"probit .mediator. and probit .outcome.; it needs {supported}$"):
        both.sensitivity()
    data = dataset("yuan_mackinnon_sim")
    mixed = mlmed.causal("Med ~ X + (1 | group)", "y ~ Med + X + (1 | group)", data)
    with pytest.raises(EffectError, match="not supported for mixed models, and the equation of Med and y has random"):
        mixed.sensitivity()


def test_medsens_is_refused_where_r_has_none(framing):
    mediator = f"emo ~ {COVARIATES}"
    linear = mlmed.causal(mediator, f"immigr ~ emo + {COVARIATES}", framing, treatment="treat")
    with pytest.raises(EffectError, match="linear mediator and a probit outcome; here they are linear and linear"):
        linear.sensitivity(formula="medsens", seed=1)
    for outcome, why in (
        ("emo * treat + age + educ + gender + income", "slope of the mediator differs"),
        ("emo * age + treat + educ + gender + income", "slope of the mediator differs"),
        ("emo + treat + age", "columns that the outcome's lacks"),
    ):
        fit = mlmed.causal(mediator, f"cong_mesg ~ {outcome}", framing, treatment="treat", family_y="probit")
        with pytest.raises(EffectError, match=why):
            fit.sensitivity(formula="medsens", seed=1)


def test_what_results_are_asked_wrongly(probit):
    result = probit.sensitivity(rho=[0.1, 0.2], formula="medsens", seed=1)
    for call, message in (
        (lambda: result.rows("ade"), "no term 'ade'; there are acme_control, acme_treated, acme"),
        (lambda: result.at(2), "found 2"),
        (lambda: result.coefficients(0.1), "no model with coefficients"),
        (lambda: result.plot("bars"), "kind must be one of rho, r2"),
        (lambda: result.plot(shares="total"), "belong to kind='r2'"),
        (lambda: result.plot("r2", shares="some"), "shares must be one of residual, total"),
        (lambda: result.plot("r2", sign="+"), "sign must be one of positive, negative"),
    ):
        with pytest.raises(EffectError, match=message):
            call()
    with pytest.raises(EffectError, match="belongs to the exact formula"):
        Factored(result._curve.pair, result._curve.C, medsens=True).delta(0.1)


def test_text(probit):
    text = str(probit.sensitivity(n=200, seed=3))
    for piece in (
        "Sensitivity of the indirect effect (ACME) to correlated errors",
        "linear, probit",
        "95%, percentiles of 200 draws, seed 3",
        "Where the estimate is zero",
        "Where the interval contains zero",
        "acme_treated",
    ):
        assert piece in text
    narrow = str(probit.sensitivity(rho=[0.0]))
    assert "No interval contains zero at any of the 1 values of rho" in narrow
    assert "R's formula" in str(probit.sensitivity(rho=[0.3], formula="medsens", n=50, seed=1))
    assert repr(probit.sensitivity(effect="direct")).startswith("SensitivityResults(direct, 19 values of rho from -0.9")


def test_control_and_treated_are_shown_once_where_they_are_the_same(framing):
    fit = mlmed.causal(f"emo ~ {COVARIATES}", f"immigr ~ emo + {COVARIATES}", framing, treatment="treat")
    text = str(fit.sensitivity())
    assert "acme_treated" not in text
    assert "control and treated are the same" in text


def test_an_effect_that_the_treatment_cannot_have():
    """A treatment without any effect on the mediator: no zero to speak of, or one of rounding, and no failure."""
    t = np.tile([0.0, 0.0, 1.0, 1.0], 25)
    m = np.tile([-1.0, 1.0, -1.0, 1.0], 25)
    y = 0.5 * m + np.random.default_rng(1).normal(size=100)
    result = mlmed.causal("m ~ t", "y ~ m + t", pd.DataFrame({"t": t, "m": m, "y": y})).sensitivity()
    assert result.zero["rho"].isna().all()
    assert (result.zero["note"] == "the effect is zero at every rho").all()
    assert str(result)


@pytest.mark.parametrize("options", [
    {}, {"term": "acme_control"}, {"kind": "r2"}, {"kind": "r2", "shares": "total", "sign": "negative"},
])  # fmt: skip
def test_pictures(probit, options):
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    axes = probit.sensitivity().plot(**options)
    assert axes.get_xlabel().startswith("share" if options.get("kind") == "r2" else "rho")
    axes.figure.canvas.draw()
    plt.close(axes.figure)
    single = probit.sensitivity(rho=[0.2]).plot(**options)
    single.figure.canvas.draw()
    plt.close(single.figure)


def test_r_shrinks_the_slope():
    """rho12 = s b / (1 + s |b|) stands for the slope b / sqrt(1 + 2 s |b|)."""
    b, s = np.array([-0.7, 0.3]), np.array([1.3, 2.0])
    rho12 = s * b / (1.0 + s * np.abs(b))
    found = shrunk(np.column_stack([np.ones(2), b]), np.array([0.0, 1.0]), np.array([0.0, 1.0]), s)
    assert found[:, 1] == pytest.approx(rho12 / (s * np.sqrt(1.0 - rho12**2)), rel=SAME)
    assert found[:, 0] == pytest.approx(1.0)
