"""Fits, simulations and other routes to the same numbers that the tests of sensitivity analyses share."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

import mlmed
from mlmed.effects.confounding import Factored, Jointly
from mlmed.effects.potential import Counterfactual
from mlmed.effects.sensitivity import CONTRASTS, Equation, Pair, Parameters, cell_means, embedding
from mlmed.glm.endogenous import Margin
from mlmed.glm.fit import fit_glm
from mlmed.results.results import Results
from tests.causal_models import chain, effects_of

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


def probit_fit(framing: pd.DataFrame) -> Results:
    """The published fit: linear mediator, probit outcome, HC3."""
    outcome = f"cong_mesg ~ emo + {COVARIATES}"
    return mlmed.causal(f"emo ~ {COVARIATES}", outcome, framing, treatment="treat", family_y="probit", vcov="HC3")


def column(result, term: str, name: str) -> pd.Series:
    return result.rows(term).set_index("rho")[name]


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


def bivariate(parameters: Array, p: int, pair: Pair, rho: float) -> float:
    """Minus the log-likelihood of a linear mediator and a probit outcome with correlated errors, in their own terms."""
    alpha, sigma, beta = parameters[:p], np.exp(parameters[p]), parameters[p + 1 :]
    e = (pair.mediator.y - pair.mediator.X @ alpha) / sigma
    at = (2.0 * pair.outcome.y - 1.0) * (pair.outcome.X @ beta + rho * e) / np.sqrt(1.0 - rho**2)
    return -float((stats.norm.logpdf(e) - np.log(sigma) + stats.norm.logcdf(at)).sum())


def margins(pair: Pair) -> tuple[Margin, Margin]:
    sides = [Margin(e.family, e.y, e.X) for e in (pair.mediator, pair.outcome)]
    return (sides[0], sides[1]) if pair.mediator.family == "linear" else (sides[1], sides[0])


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
        Equation(e.family, d.y, d.X, e.beta, e.vcov(fit.fit.usual).matrix, e.sigma, float(len(d.y) - len(e.beta)))
        for e in chain(fit).parts
        for d in [e.fit.design]
    ]
    return Pair(sides[0], sides[1], effects_of(fit).designs[0])


def curve_of(pair: Pair) -> Factored | Jointly:
    return Factored(pair, embedding(pair)) if pair.mediator.family == "linear" else Jointly(pair)
