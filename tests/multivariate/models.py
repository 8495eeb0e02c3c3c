"""Fits and dense counterparts shared by these tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

import mlmed
from mlmed.effects.catalogue import NoEffects
from mlmed.results.results import Results

#: Two responses of the same rows, all four random effects correlated.
TWO = ["m ~ x + (1 + x |c| id)", "y ~ x + w + (1 + w |c| id)"]


def two_responses(seed: int, *, clusters: int = 30, rows: int = 6, holes: bool = True) -> pd.DataFrame:
    """Simulated m and y of the same rows, a second predictor, and responses missing here and there."""
    data = mlmed.simulate.bpg(clusters, rows, seed=seed).data
    rng = np.random.default_rng(seed)
    data = data.assign(w=rng.normal(size=len(data)))
    if holes:
        data = data.assign(m=data["m"].where(rng.uniform(size=len(data)) > 0.1))
        data = data.assign(y=data["y"].where(rng.uniform(size=len(data)) > 0.1))
    return data.set_axis([f"row {k}" for k in range(len(data))])


def without_variance_of_m(data: pd.DataFrame) -> pd.DataFrame:
    """Balanced data in which clusters differ in m by less than sampling alone makes them, and not as they do in y."""
    means = data.groupby("id")[["m", "y"]].mean()
    known = np.column_stack([np.ones(len(means)), means["y"]])
    away = np.random.default_rng(0).normal(size=len(means))
    away -= known @ np.linalg.lstsq(known, away, rcond=None)[0]
    small = pd.Series(0.02 * away, index=means.index)
    return data.assign(m=data["m"] - data["id"].map(means["m"]) + data["id"].map(small))


def with_residual_covariance(fit: Results, value: float, error: float) -> Results:
    """The fit as it would be if its residuals had a covariance, with a standard error of its own."""
    estimates, fitted = fit.fit.estimates, fit.fit
    n = len(estimates.hessian)
    hessian, tau_map = np.zeros((n + 1, n + 1)), np.eye(n + 1)
    hessian[:n, :n], tau_map[:n, :n], hessian[n, n] = estimates.hessian, estimates.tau_map, 2.0 / error**2
    changed = replace(
        estimates,
        sigma2=np.append(estimates.sigma2, value),
        sigma_at=np.vstack([estimates.sigma_at, [1, 0]]),
        hessian=hessian,
        tau_map=tau_map,
        beta_gradient=np.column_stack([estimates.beta_gradient, np.zeros(len(estimates.beta))]),
    )
    spec = replace(fitted.spec, residual="unstructured")
    return Results(replace(fitted, estimates=changed, spec=spec), NoEffects())


class Dense:
    """The model of ``TWO`` as one vector of all observed responses, nothing exploited."""

    def __init__(self, fit: Results, data: pd.DataFrame) -> None:
        estimates = fit.fit.estimates
        self.G, self.Sigma = estimates.G, estimates.Sigma
        self.ids = np.concatenate([data["id"], data["id"]])
        X, Z = self.columns(data)
        response = np.repeat([0, 1], len(data))
        row = np.tile(np.arange(len(data)), 2)
        y = np.concatenate([data["m"], data["y"]])
        kept = ~np.isnan(y)
        self.X, self.Z, self.y, self.ids = X[kept], Z[kept], y[kept], self.ids[kept]
        response, row = response[kept], row[kept]
        V = np.where(self.ids[:, None] == self.ids, self.Z @ self.G @ self.Z.T, 0.0)
        V += np.where(row[:, None] == row, self.Sigma[np.ix_(response, response)], 0.0)
        self.Vi = np.linalg.inv(V)
        self.P_inv = np.linalg.inv(self.X.T @ self.Vi @ self.X)
        self.beta = self.P_inv @ self.X.T @ self.Vi @ self.y

    @staticmethod
    def columns(data: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """X (2n, 5) and Z (2n, 4), the rows of m above those of y."""
        one, x, w, zero = np.ones(len(data)), data["x"], data["w"], np.zeros(len(data))
        X = np.vstack([np.column_stack([one, x, zero, zero, zero]), np.column_stack([zero, zero, one, x, w])])
        Z = np.vstack([np.column_stack([one, x, zero, zero]), np.column_stack([zero, zero, one, w])])
        return X, Z

    def predicted(self, data: pd.DataFrame, *, of: str, new_row: bool) -> tuple[np.ndarray, np.ndarray]:
        """Best linear unbiased predictions of new rows and the sds of their errors, (2n,) each."""
        X, Z = self.columns(data)
        ids = np.tile(data["id"], 2)
        if of == "population":
            value, lever = X @ self.beta, X
            variance = np.einsum("np,pk,nk->n", X, self.P_inv, X)
            variance += np.einsum("nq,qk,nk->n", Z, self.G, Z) * new_row
        else:
            k = np.where(ids[:, None] == self.ids, Z @ self.G @ self.Z.T, 0.0)  # Cov(z'u, y)
            value = X @ self.beta + k @ self.Vi @ (self.y - self.X @ self.beta)
            lever = X - k @ self.Vi @ self.X
            variance = np.einsum("nq,qk,nk->n", Z, self.G, Z) - np.einsum("ni,ij,nj->n", k, self.Vi, k)
            variance += np.einsum("np,pk,nk->n", lever, self.P_inv, lever)
        return value, np.sqrt(variance + new_row * np.repeat(np.diag(self.Sigma), len(data)))
