"""Tolerances and dense counterparts that the tests of small samples share."""

from __future__ import annotations

from dataclasses import replace

import numdifftools as nd
import numpy as np
import pandas as pd

import mlmed
from mlmed.effects.delta import std_error
from mlmed.effects.paths import effect_quantities
from mlmed.effects.routes import find_routes
from mlmed.intervals.degrees import (
    DegreesOfFreedom,
    satterthwaite_effects,
)
from mlmed.lmm import kenward_roger as kr
from mlmed.lmm.criterion import evaluate
from mlmed.lmm.estimates import to_estimates
from mlmed.lmm.start import natural_jacobian
from mlmed.lmm.vcov import information_inverse, parameter_vcov

#: Relative, against other software at its own optimum (lme4 with rhoend 1e-10). Estimates agree to 1e-5 or better
#: there, degrees of freedom are ratios that move less; lmerTest's Hessian is numerical.
REFERENCE = {"kr_df": 1e-7, "kr_se": 1e-6, "satterthwaite_df": 5e-6}
#: The same for two equations, stacked by hand: a flatter optimum, 22 parameters.
STACKED_REFERENCE = {"kr_df": 1e-6, "kr_se": 1e-6, "satterthwaite_df": 5e-6}
#: Sums over clusters against matrices of all rows: inverses of 60 x 60 matrices, entries relative to the largest.
DENSE = 1e-9
#: Exact and extrapolated gradient of the same variance; differences of numbers good to 1e-12 over steps of 1e-3.
DIFFERENCES = 1e-7
#: The same against numdifftools, whose smallest steps are noisier.
NUMDIFFTOOLS = 1e-6
#: Two fits of the same data in other units: two optima, each exact to about 1e-8.
INVARIANT = 1e-6

LINEAR = ("a", "b", "cprime", "direct")


def effects_of(fit):
    """Paths of a mediation as the function that ``satterthwaite_effects`` wants."""
    routes = find_routes(fit.fit.layout, treatment=fit.treatment)
    return lambda estimates: list(effect_quantities(routes, estimates).values())


def terms_of(fit):
    return [quantity.term for quantity in effects_of(fit)(fit.fit.estimates)]


def by_effect(fit, **options) -> pd.Series:
    """Satterthwaite's df of every effect."""
    fitted = fit.fit
    found = satterthwaite_effects(effects_of(fit), fitted.working, fitted.optimum, reml=fitted.reml, **options)
    assert_explained(found)
    return pd.Series(found.values, index=terms_of(fit))


def fixed_parts(fit) -> np.ndarray:
    return np.array([quantity.gradient[: len(fit.params)] for quantity in effects_of(fit)(fit.fit.estimates)])


def jacobian(fit) -> np.ndarray:
    return natural_jacobian(fit.fit.working.problem, fit.fit.working.blocks)


def corrected(fit) -> kr.KenwardRoger:
    """Kenward-Roger in the user's units."""
    working, optimum = fit.fit.working, fit.fit.optimum
    found = kr.kenward_roger(working.problem, optimum.L, optimum.sigma2, jacobian(fit), reml=fit.fit.reml)
    return found.mapped(working.units.X_map)


def assert_explained(found: DegreesOfFreedom) -> None:
    """A number that is positive, or a reason."""
    assert len(found.values) == len(found.reasons)
    for value, reason in zip(found.values, found.reasons, strict=True):
        assert (value > 0.0 and not reason) or (np.isnan(value) and reason)


def close(ours, theirs, tolerance) -> None:
    """All entries, relative to the largest."""
    theirs = np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=tolerance * float(np.abs(theirs).max()))


def unbalanced(seed: int, n_clusters: int = 12, n_rows: int = 5) -> pd.DataFrame:
    """A third of the rows left out, clusters of 1 to 5."""
    data = mlmed.simulate.bpg(n_clusters, n_rows, seed=seed).data
    keep = np.random.default_rng(seed).random(len(data)) < 0.67
    return data[keep].reset_index(drop=True)


def literal_adjustment(found: kr.Moments) -> tuple[np.ndarray, np.ndarray]:
    """Adjusted covariance and W, written out as in the paper."""
    Phi, P, Q, K = found.P_inv, -found.moved, found.twice, range(len(found.moved))
    information = np.zeros_like(found.trace)
    for k in K:
        for m in K:
            information[k, m] = 0.5 * (
                found.trace[k, m] - np.trace(2 * Phi @ Q[k, m] - Phi @ P[k] @ Phi @ P[m])
            )  # fmt: skip
    W = np.linalg.inv(information)
    Lambda = sum(W[k, m] * Phi @ (Q[k, m] - P[k] @ Phi @ P[m]) @ Phi for k in K for m in K)
    return Phi + 2 * Lambda, W


def literal_f(contrasts, found: kr.Moments, W) -> tuple[float, float]:
    """Lambda and m of the paper."""
    Phi, P, K, d = found.P_inv, -found.moved, range(len(found.moved)), len(contrasts)
    Theta = contrasts.T @ np.linalg.inv(contrasts @ Phi @ contrasts.T) @ contrasts
    parts = [Theta @ Phi @ P[k] @ Phi for k in K]
    A1 = sum(W[k, m] * np.trace(parts[k]) * np.trace(parts[m]) for k in K for m in K)
    A2 = sum(W[k, m] * np.trace(parts[k] @ parts[m]) for k in K for m in K)
    B = (A1 + 6 * A2) / (2 * d)
    g = ((d + 1) * A1 - (d + 4) * A2) / ((d + 2) * A2)
    c = np.array([g, d - g, d + 2 - g]) / (3 * d + 2 * (1 - g))
    mean = 1 / (1 - A2 / d)
    variance = 2 / d * (1 + c[0] * B) / ((1 - c[1] * B) ** 2 * (1 - c[2] * B))
    rho = variance / (2 * mean**2)
    m = 4 + (d + 2) / (d * rho - 1)
    return m / (mean * (m - 2)), m


def numdifftools_df(fit, quantities_at, vcov, order, *, share=4e-3) -> np.ndarray:
    """df from central differences in the natural parameters themselves, steps a share of G's smallest eigenvalue."""
    fitted = fit.fit
    working, optimum, J = fitted.working, fitted.optimum, jacobian(fit)
    q = working.problem.n_random
    start = np.linalg.lstsq(J, np.append(optimum.G, optimum.sigma2), rcond=None)[0]

    def variances(theta):
        at = J @ theta
        G, sigma2 = at[: q * q].reshape(q, q), at[q * q :]
        L = np.linalg.cholesky(G)
        there = evaluate(working.problem, L, sigma2, reml=fitted.reml)
        moved = to_estimates(working, replace(optimum, G=G, L=L, sigma2=sigma2, evaluation=there), reml=fitted.reml)
        V = parameter_vcov(moved, vcov).matrix
        return np.array([std_error(quantity, V, order=order) ** 2 for quantity in quantities_at(moved)])

    # far enough inside the cone for an error of fourth order to vanish
    slopes = nd.Jacobian(variances, step=share * float(np.linalg.eigvalsh(optimum.G)[0]), order=4)(start)
    V = information_inverse(fitted.estimates.hessian)[0]
    return 2.0 * variances(start) ** 2 / np.einsum("nk,kl,nl->n", slopes, V, slopes)
