"""An independent search for the optimum: its own criterion, its own coordinates, its own optimizer, wide starts.

Nothing of the package is used. The design matrices are written down by hand, the criterion is eq. 2 of docs/math.md by
cross-products of clusters with a reverse pass for its gradient, coordinates are the log-Cholesky entries of G and of
the inverse of Sigma, and scipy's L-BFGS-B searches from starts that are spread over decades.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize

__all__ = ["Found", "Model", "model_of", "search", "wide_start"]

Array = NDArray[np.float64]

#: Bounds of the logarithms on the diagonals of the factors; a G this small is zero.
LOWEST, HIGHEST = -16.0, 12.0


@dataclass(frozen=True, slots=True)
class Found:
    """The best optimum of a search: log-likelihood in the user's units, number of starts within 1e-6 of it."""

    loglik: float
    reached: int
    ends: tuple[float, ...]
    theta: Array


@dataclass(frozen=True, slots=True)
class Model:
    """Cross-products of complete rows, all columns of all equations side by side, in unit scale.

    Attributes
    ----------
    A, B, C : (J, q, q), (J, q, p + R), (p + R, p + R) arrays
        Z'Z, Z'[X Y] of every cluster, [X Y]'[X Y].
    n : int
        Rows.
    z, xy : (q,), (p + R,) int arrays
        Equation of each column.
    shift : float
        -2l in the user's units minus -2l in these.
    reml, correlated : bool
        Whether the criterion is REML; whether Sigma has covariances.
    """

    A: Array
    B: Array
    C: Array
    n: int
    z: NDArray[np.int64]
    xy: NDArray[np.int64]
    shift: float
    reml: bool
    correlated: bool

    @property
    def R(self) -> int:
        """Equations."""
        return int(self.z.max()) + 1

    @property
    def q(self) -> int:
        """Random effects."""
        return len(self.z)

    def parts(self, theta: Array) -> tuple[Array, Array]:
        """Factors of G and of the inverse of Sigma."""
        q, R = self.q, self.R
        L, K = np.zeros((q, q)), np.zeros((R, R))
        n = q * (q + 1) // 2
        L[np.tril_indices(q)] = theta[:n]
        np.fill_diagonal(L, np.exp(L.diagonal()))
        if self.correlated:
            K[np.tril_indices(R)] = theta[n:]
            np.fill_diagonal(K, np.exp(K.diagonal()))
        else:
            np.fill_diagonal(K, np.exp(theta[n:]))
        return L, K

    def theta(self, L: Array, K: Array) -> Array:
        """Coordinates of two lower triangular factors."""
        logs = [np.log(np.clip(M.diagonal(), np.exp(LOWEST), None)) for M in (L, K)]
        L, K = (M - np.diag(M.diagonal()) + np.diag(log) for M, log in zip((L, K), logs, strict=True))
        tail = K[np.tril_indices(self.R)] if self.correlated else K.diagonal()
        return np.append(L[np.tril_indices(self.q)], tail)

    def __call__(self, theta: Array) -> tuple[float, Array]:
        """-2l and its gradient."""
        L, K = self.parts(theta)
        P = K @ K.T
        z, xy, p, R, q = self.z, self.xy, len(self.xy) - self.R, self.R, self.q
        A, B = self.A * P[np.ix_(z, z)], self.B * P[np.ix_(z, xy)]
        fold = np.zeros((p + R, p + 1))
        fold[:p, :p] = np.eye(p)
        fold[p:, p] = 1.0
        AL = A @ L
        M = np.eye(q) + L.T @ AL
        try:
            root = np.linalg.cholesky(M)
            H = np.linalg.solve(root, np.broadcast_to(L.T, M.shape))  # N = H'H
            N = H.transpose(0, 2, 1) @ H
            BF = B @ fold
            h = N @ BF
            S = fold.T @ (self.C * P[np.ix_(xy, xy)]) @ fold - np.einsum("jai,jak->ik", BF, h, optimize=True)
            P_inv = np.linalg.inv(S[:p, :p])
            beta = P_inv @ S[:p, p]
            rss = float(S[p, p] - S[:p, p] @ beta)
            if not rss > 0.0:
                return np.inf, np.zeros_like(theta)
            sign, logdet_X = np.linalg.slogdet(S[:p, :p])
        except np.linalg.LinAlgError:
            return np.inf, np.zeros_like(theta)
        if not (sign > 0 and np.isfinite(rss)):
            return np.inf, np.zeros_like(theta)
        logdet = 2.0 * float(np.log(np.einsum("jaa->ja", root)).sum()) - 2.0 * self.n * float(
            np.log(K.diagonal()).sum()
        )
        total = self.n * R
        value = logdet + rss + total * np.log(2.0 * np.pi)
        contrast = np.append(-beta, 1.0)
        W = np.outer(contrast, contrast)
        if self.reml:
            value += logdet_X - p * np.log(2.0 * np.pi)
            W[:p, :p] += P_inv
        # reverse: df = sum tr(N dA) + tr(W dS), dS = dC - dB'h - h'dB + h'dA h
        hW = h @ W
        A_bar = N + hW @ h.transpose(0, 2, 1)
        B_bar = -2.0 * hW @ fold.T
        C_bar = fold @ W @ fold.T
        V = BF - A @ h
        slope_G = (A - A @ N @ A - V @ W @ V.transpose(0, 2, 1)).sum(axis=0)
        P_bar = np.zeros((R, R))
        np.add.at(P_bar, np.ix_(z, z), np.einsum("jab,jab->ab", A_bar, self.A))
        np.add.at(P_bar, np.ix_(z, xy), np.einsum("jab,jab->ab", B_bar, self.B))
        np.add.at(P_bar, np.ix_(xy, xy), C_bar * self.C)
        slope_L = (slope_G + slope_G.T) @ L
        slope_K = (P_bar + P_bar.T) @ K
        slope_K[np.diag_indices(R)] -= 2.0 * self.n / K.diagonal()
        for slope, factor in ((slope_L, L), (slope_K, K)):
            slope[np.diag_indices(len(slope))] *= factor.diagonal()
        tail = slope_K[np.tril_indices(R)] if self.correlated else slope_K.diagonal()
        return float(value), np.append(slope_L[np.tril_indices(q)], tail)


def model_of(data: pd.DataFrame, *, several: bool, reml: bool = True) -> Model:
    """Equations m ~ x + (1 + x | id) and y ~ m + x + (1 + m + x | id); or both on x, residuals correlated."""
    one, x, m, y = np.ones(len(data)), *(data[name].to_numpy(float) for name in ("x", "m", "y"))
    scaled = {name: (v - v.mean()) / v.std() for name, v in (("x", x), ("m", m))}
    first = [one, scaled["x"]]
    second = [one, scaled["x"]] if several else [one, scaled["m"], scaled["x"]]
    logs = [np.log(x.std()), np.log(x.std())] + ([] if several else [np.log(m.std())])  # log|T| with X = X_w T
    responses = [v / v.std() for v in (m, y)]
    scales = np.log([m.std(), y.std()])
    owner = np.array([0] * len(first) + [1] * len(second))
    X, Y = np.column_stack(first + second), np.column_stack(responses)
    XY, n, codes = np.column_stack([X, Y]), len(data), pd.factorize(data["id"])[0]
    order, sizes = np.argsort(codes, kind="stable"), np.bincount(codes)
    pieces = np.split(XY[order], np.cumsum(sizes)[:-1])
    B = np.array([piece[:, : len(owner)].T @ piece for piece in pieces])
    shift = 2.0 * n * float(scales.sum())
    if reml:
        shift += 2.0 * float(np.sum(logs)) - 2.0 * float(scales @ np.bincount(owner))
    xy = np.append(owner, [0, 1])
    return Model(B[:, :, : len(owner)], B, XY.T @ XY, n, owner, xy, shift, reml, several)


def wide_start(model: Model, rng: np.random.Generator, *, low_rank: bool) -> Array:
    """A start with sds over decades and any correlations, or with G of lower rank."""
    q, R = model.q, model.R
    rank = int(rng.integers(1, q)) if low_rank else q
    root = rng.normal(size=(q, rank))
    root /= np.sqrt((root**2).sum(axis=1))[:, None]
    sds = 10.0 ** (rng.uniform(-1.5, 0.5) + rng.uniform(-1.0, 1.0, size=q))
    root = sds[:, None] * root
    L = np.linalg.cholesky(root @ root.T + np.diag(1e-4 * sds**2))
    T = np.diag(10.0 ** rng.uniform(-2.0, 0.3, size=R))
    if model.correlated:
        T[1:, 0] = T[1:, 1:].diagonal() * rng.uniform(-1.0, 1.0, size=R - 1)
    K = np.linalg.cholesky(np.linalg.inv(T @ T.T))
    return model.theta(L, K)


def search(model: Model, rng: np.random.Generator, *, starts: int = 10) -> Found:
    """The best optimum of searches from wide starts, every other one of lower rank."""
    ends, best, where = [], np.inf, np.zeros(0)
    for k in range(starts):
        found = _lowest(model, wide_start(model, rng, low_rank=k % 2 == 1))
        ends.append(found[0])
        if found[0] < best:
            best, where = found
    if len(where):  # once more from there, as L-BFGS may have stopped early
        best, where = min((best, where), _lowest(model, where, tolerance=1e-15, steps=4000), key=lambda pair: pair[0])
    logliks = tuple(-0.5 * (end + model.shift) for end in ends)
    top = -0.5 * (best + model.shift)
    return Found(top, sum(end > top - 1e-6 for end in logliks), logliks, where)


def _lowest(model: Model, start: Array, *, tolerance: float = 1e-10, steps: int = 400) -> tuple[float, Array]:
    q = model.q
    bounds = [(None, None)] * len(start)
    diagonal = [k * (k + 1) // 2 + k for k in range(q)]
    n = q * (q + 1) // 2
    logs = [n + k * (k + 1) // 2 + k for k in range(model.R)] if model.correlated else range(n, len(start))
    for k in [*diagonal, *logs]:
        bounds[k] = (LOWEST, HIGHEST)
    options = {"maxiter": steps, "maxfun": 2 * steps, "ftol": tolerance, "gtol": 1e-7, "maxcor": 30}
    done = minimize(model, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return float(done.fun), done.x
