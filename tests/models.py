"""Problems and dense counterparts shared by the tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mlmed.data.design import build_design
from mlmed.data.grams import accumulate
from mlmed.formula import parse_equation
from mlmed.lmm.working import Working, build_working
from mlmed.system.system import System

MEDIATOR, OUTCOME = "m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)"

#: Two mediators in a row, with random slopes of all that vary.
SERIAL = ["m1 ~ x + (1 + x | id)", "m2 ~ m1 + x + (1 + m1 | id)"], "y ~ m1 + m2 + x + (1 + m1 + m2 | id)"


def serial_data(J: int = 60, n: int = 10, seed: int = 1) -> pd.DataFrame:
    """Two mediators in a row, J clusters of n rows; all slopes of m1 and m2, and that of x in m1, vary and covary."""
    rng = np.random.default_rng(seed)
    G = 0.1 * np.ones((7, 7)) + np.diag([0.3, 0.3, 0.2, 0.3, 0.3, 0.2, 0.3])
    u = (rng.normal(size=(J, 7)) @ np.linalg.cholesky(G).T)[np.repeat(np.arange(J), n)]
    x, *e = rng.normal(size=(4, J * n))
    m1 = u[:, 0] + (0.5 + u[:, 1]) * x + e[0]
    m2 = u[:, 2] + 0.3 * x + (0.4 + u[:, 3]) * m1 + e[1]
    y = u[:, 4] + 0.2 * x + (0.3 + u[:, 5]) * m1 + (0.5 + u[:, 6]) * m2 + e[2]
    return pd.DataFrame({"id": np.repeat(np.arange(J), n), "x": x, "m1": m1, "m2": m2, "y": y})


def with_factors(data: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """The rows with a text factor, a small integer, a normal and a positive column."""
    rng = np.random.default_rng(seed)
    data = data.assign(
        g=rng.choice(list("abc"), len(data)), k=rng.integers(1, 4, len(data)), w=rng.normal(size=len(data))
    )
    return data.assign(pos=np.exp(data["m"] / 5 + data["w"] / 9))


def working(data: pd.DataFrame, *formulas: str, method: str = "reml", **options: Any) -> Working:
    """The engine's problem of a model."""
    equations = tuple(parse_equation(text, data.columns) for text in formulas)
    spec = System(equations, method, **options)
    design = build_design(spec, data)
    return build_working(spec, design.layout, accumulate(design))


def stacked_matrices(
    stacked: pd.DataFrame, cluster: str = "id"
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """X (= Z), response, indicator of m rows and cluster codes of the Bauer-Preacher-Gil table."""
    X = stacked[["sm", "smx", "sy", "sym", "syx"]].to_numpy(dtype=float)
    return X, stacked["z"].to_numpy(), stacked["sm"].to_numpy() == 1, pd.factorize(stacked[cluster])[0]


def dense_loglik(
    X: np.ndarray, Z: np.ndarray, y: np.ndarray, codes: np.ndarray, G: np.ndarray, residual: np.ndarray, *, reml: bool
) -> float:
    """Log-likelihood from the covariance matrix of all rows, nothing exploited."""
    V = np.diag(residual) + np.where(codes[:, None] == codes[None], Z @ G @ Z.T, 0.0)
    Vi = np.linalg.inv(V)
    P = X.T @ Vi @ X
    beta = np.linalg.solve(P, X.T @ Vi @ y)
    r = y - X @ beta
    value = np.linalg.slogdet(V)[1] + r @ Vi @ r + (len(y) - (X.shape[1] if reml else 0)) * np.log(2 * np.pi)
    return -0.5 * float(value + (np.linalg.slogdet(P)[1] if reml else 0.0))


def random_point(rng: np.random.Generator, q: int, R: int) -> tuple[np.ndarray, np.ndarray]:
    """An interior (G, sigma2), far enough from the boundary for finite steps."""
    root = np.tril(rng.normal(size=(q, q))) * 0.3 + np.diag(rng.uniform(0.4, 0.9, q))
    return root @ root.T + 0.3 * np.eye(q), rng.uniform(0.3, 1.5, R)
