"""Small location-scale problems, and the model that the published example fits."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mlmed.quadrature.problem import Problem, Structure, build_chunks

M4 = ("PA.std ~ 1 + (1 |c| id)", "~ 1 + (1 |c| id)")


def small_problem(d: int, *, seed: int = 1) -> tuple[Problem, dict[str, np.ndarray]]:
    """Four clusters of 3 to 7 rows, two location effects, d scale effects, all correlated."""
    rng = np.random.default_rng(seed)
    sizes = [3, 5, 4, 7]
    codes = np.repeat(np.arange(4), sizes)
    x, w = rng.normal(size=(2, len(codes)))
    one = np.ones(len(codes))
    X, W = np.column_stack([one, x]), np.column_stack([one, w])
    V = W[:, :d]
    y = rng.normal(size=len(codes))
    structure = Structure.of_blocks(d, 2, [0] * (d + 2), frozenset())
    problem = Problem(build_chunks(y, X, X, W, V, codes), 4, len(codes), 2, 2, structure, 0.3)
    return problem, {"y": y, "X": X, "Z": X, "W": W, "V": V, "codes": codes}


def some_theta(problem: Problem) -> np.ndarray:
    """Parameters far from any optimum, the diagonal of L positive."""
    rng = np.random.default_rng(5)
    theta = rng.normal(scale=0.3, size=problem.size)
    first = problem.p + problem.k
    own = problem.structure.rows == problem.structure.columns
    theta[first:][own] = 0.4 + rng.random(own.sum()) * 0.4
    return theta


def simulated(J: int, n: int, *, seed: int, sd_scale: float = 0.4, rho: float = -0.3) -> pd.DataFrame:
    """Rows of a model whose truth is known: y = 1 + 0.5 x + u, log sd = -0.3 + 0.2 w + t, sd(u) = 0.8."""
    rng = np.random.default_rng(seed)
    cov = rho * 0.8 * sd_scale
    b = rng.multivariate_normal([0.0, 0.0], [[0.64, cov], [cov, sd_scale**2]], size=J)
    g = np.repeat(np.arange(J), n)
    x, w, e = rng.normal(size=(3, J * n))
    y = 1.0 + 0.5 * x + b[g, 0] + np.exp(-0.3 + 0.2 * w + b[g, 1]) * e
    return pd.DataFrame({"g": g, "x": x, "w": w, "y": y})
