"""CR2 where one cluster has most of the information on a coefficient, but not all of it."""

from __future__ import annotations

import numpy as np
import pandas as pd

import mlmed

#: The same matrix from rows and from pseudo-rows of cross-products, a leverage of .85 taken out of 1.
LITERAL = 1e-9


def test_a_cluster_with_much_leverage_keeps_its_adjustment():
    """A_j = D'(D B_j D')^(-1/2) D with B_j = V_j - X_j P^-1 X_j' (Bell and McCaffrey), row by row."""
    rng = np.random.default_rng(5)
    id_ = np.repeat(np.arange(12), 6)
    x = rng.normal(size=72) * np.where(id_ == 3, 16.0, 1.0)
    y = 0.4 * x + rng.normal(size=12)[id_] + rng.normal(size=72)
    fit = mlmed.mixed("y ~ x + (1 | id)", pd.DataFrame({"id": id_, "x": x, "y": y}))
    assert not fit.is_singular
    v, s2 = float(fit.G.iloc[0, 0]), float(fit.sigma2.iloc[0])
    X, V = np.column_stack([np.ones(72), x]).reshape(12, 6, 2), v * np.ones((6, 6)) + s2 * np.eye(6)
    W = np.linalg.inv(V)
    P_inv = np.linalg.inv((X.transpose(0, 2, 1) @ W @ X).sum(axis=0))
    leverage = np.linalg.eigvalsh(np.linalg.cholesky(P_inv).T @ X[3].T @ W @ X[3] @ np.linalg.cholesky(P_inv))[-1]
    assert 0.75 < leverage < 0.95
    residual, D = y.reshape(12, 6) - X @ fit.params.to_numpy(), np.linalg.cholesky(V).T
    meat = np.zeros((2, 2))
    for rows, r in zip(X, residual, strict=True):
        values, vectors = np.linalg.eigh(D @ (V - rows @ P_inv @ rows.T) @ D.T)
        A = D.T @ vectors / np.sqrt(values) @ vectors.T @ D
        score = rows.T @ W @ A @ r
        meat += np.outer(score, score)
    expected = P_inv @ meat @ P_inv
    found = fit.vcov("CR2").loc[["Intercept", "x"], ["Intercept", "x"]].to_numpy()
    sd = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(found / np.outer(sd, sd), expected / np.outer(sd, sd), rtol=0, atol=LITERAL)
