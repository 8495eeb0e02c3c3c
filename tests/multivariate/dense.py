"""A multivariate mixed model written out row by row, nothing exploited."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlmed.data.design import build_design
from mlmed.data.grams import accumulate
from mlmed.formula import parse_equation
from mlmed.lmm.working import Working, build_working
from mlmed.system.system import System


@dataclass(frozen=True)
class Dense:
    """Stacked responses (N,), X (N, p), Z (N, q), and of each of them cluster, row and equation (N,)."""

    y: np.ndarray
    X: np.ndarray
    Z: np.ndarray
    cluster: np.ndarray
    row: np.ndarray
    equation: np.ndarray

    def V(self, G: np.ndarray, Sigma: np.ndarray) -> np.ndarray:
        """Covariance of all responses."""
        same_cluster = self.cluster[:, None] == self.cluster
        same_row = self.row[:, None] == self.row
        residual = Sigma[self.equation[:, None], self.equation]
        return np.where(same_cluster, self.Z @ G @ self.Z.T, 0.0) + np.where(same_row, residual, 0.0)

    def loglik(self, G: np.ndarray, Sigma: np.ndarray, *, reml: bool) -> float:
        """Log-likelihood with beta at its generalized least squares value."""
        V, X, y = self.V(G, Sigma), self.X, self.y
        Vi = np.linalg.inv(V)
        P = X.T @ Vi @ X
        r = y - X @ np.linalg.solve(P, X.T @ Vi @ y)
        df = len(y) - (X.shape[1] if reml else 0)
        value = np.linalg.slogdet(V)[1] + r @ Vi @ r + df * np.log(2 * np.pi)
        return -0.5 * float(value + (np.linalg.slogdet(P)[1] if reml else 0.0))


def made(data: pd.DataFrame, *formulas: str, method: str = "reml") -> tuple[Working, Dense]:
    """The engine's problem with correlated residuals, and the same model row by row."""
    spec = System(
        tuple(parse_equation(text, data.columns) for text in formulas), method, residual="unstructured", shared=False
    )
    design = build_design(spec, data)
    working = build_working(spec, design.layout, accumulate(design))
    p = sum(len(e.fixed) for e in design.layout.equations)
    q = sum(len(e.random) for e in design.layout.equations)
    parts, first_p, first_q = [], 0, 0
    for r, equation in enumerate(design.layout.equations):
        rows = np.flatnonzero(design.members[r])
        columns = [value[rows] for value in design.values]
        X, Z = np.zeros((len(rows), p)), np.zeros((len(rows), q))
        for k, at in enumerate(equation.fixed_at):
            X[:, first_p + k] = columns[at]
        for k, at in enumerate(equation.random_at):
            Z[:, first_q + k] = columns[at]
        first_p, first_q = first_p + len(equation.fixed), first_q + len(equation.random)
        parts.append((columns[equation.response_at], X, Z, design.codes[rows], rows, np.full(len(rows), r)))
    return working, Dense(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def simulated(
    J: int, n: int, *, seed: int, R: int = 3, missing: float = 0.0, G: np.ndarray | None = None
) -> pd.DataFrame:
    """R responses y0, y1, ... of x and w with random intercepts and slopes, a share of each ``missing``."""
    rng = np.random.default_rng(seed)
    root = np.tril(rng.normal(0.0, 0.2, (2 * R, 2 * R))) + 0.7 * np.eye(2 * R)
    u = rng.normal(size=(J, 2 * R)) @ (root if G is None else np.linalg.cholesky(G)).T
    mix = np.tril(rng.normal(0.0, 0.5, (R, R))) + 0.7 * np.eye(R)
    data = pd.DataFrame({"id": np.repeat(np.arange(J), n), "x": rng.normal(size=J * n), "w": rng.normal(size=J * n)})
    e = rng.normal(size=(J * n, R)) @ mix.T
    for r in range(R):
        own = u[data["id"], 2 * r] + (0.3 + u[data["id"], 2 * r + 1]) * data["x"] + 0.2 * r * data["w"] + e[:, r]
        data[f"y{r}"] = np.where(rng.uniform(size=J * n) < missing, np.nan, own)
    return data
