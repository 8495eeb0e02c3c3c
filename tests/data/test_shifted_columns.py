"""Intercepts, their random effects and the covariance of both, where predictors lie far from zero.

Columns are shifted and scaled before they are summed and everything is mapped back (docs/math.md, eq. 18 to 21). Here
the way back is held to a normal density of the rows as they are, and to what a shift does to the parameters: with
x = z + c, u_0 + u_1 x = (u_0 + c u_1) + u_1 z.
"""

from __future__ import annotations

import numdifftools as nd
import numpy as np
import pandas as pd
import pytest

import mlmed
from tests.models import MEDIATOR, OUTCOME, dense_loglik
from tests.tolerances import SAME

#: How far x is moved; its sd is about one.
SHIFT = 3.0
#: Fixed effects and (X'V^-1 X)^-1 by two formulas; a shift of three sds costs a digit of X'X.
DENSE = 1e-8
#: Estimates and inverse Hessians of two optimizations, relative to standard errors: an optimum is known to about 1e-8.
SAME_OPTIMUM = 1e-6
#: An inverse Hessian from second differences of a log-likelihood of size 200.
DIFFERENCES = 1e-5


def clusters(n_clusters: int, n_rows: int, *, seed: int) -> pd.DataFrame:
    """Rows of m, y and x with random intercepts and slopes large enough for an interior optimum."""
    rng = np.random.default_rng(seed)
    id_ = np.repeat(np.arange(n_clusters), n_rows)
    u = rng.normal(size=(n_clusters, 5)) @ (0.2 * np.tril(np.ones((5, 5))) + 0.6 * np.eye(5)).T
    x = rng.normal(size=len(id_))
    m = 0.5 + u[id_, 0] + (0.4 + u[id_, 1]) * x + rng.normal(0.0, 0.7, len(id_))
    y = -1.0 + u[id_, 2] + (0.3 + u[id_, 3]) * m + (0.2 + u[id_, 4]) * x + rng.normal(0.0, 0.9, len(id_))
    return pd.DataFrame({"id": id_, "x": x, "m": m, "y": y})


@pytest.fixture(scope="module")
def far():
    """Fifteen clusters of eight, x around 3."""
    return clusters(15, 8, seed=11).assign(x=lambda d: d["x"] + SHIFT)


def unpack(psi):
    """Fixed effects, G and residual variance of (b0, b1, v0, v1, c01, s2)."""
    return psi[:2], np.array([[psi[2], psi[4]], [psi[4], psi[3]]]), psi[5]


def dense_criterion(X: np.ndarray, y: np.ndarray, psi: np.ndarray, *, reml: bool) -> float:
    """-2l of all parameters for clusters of equal size, X (J, n, 2), y (J, n); with REML plus log|X'V^-1 X|."""
    beta, G, s2 = unpack(psi)
    V = X @ G @ X.transpose(0, 2, 1) + s2 * np.eye(X.shape[1])
    r = (y - X @ beta)[:, :, None]
    total = np.linalg.slogdet(V)[1].sum() + (r * np.linalg.solve(V, r)).sum()
    P = (X.transpose(0, 2, 1) @ np.linalg.solve(V, X)).sum(axis=0)
    return float(total + (np.linalg.slogdet(P)[1] if reml else 0.0))


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_against_the_density_of_the_rows(far, method):
    """Generalized least squares at the fit's G; the whole covariance from second differences of the density."""
    fit = mlmed.mixed("m ~ x + (1 + x | id)", far, method=method)
    assert fit.converged
    assert not fit.is_singular
    X = np.column_stack([np.ones(len(far)), far["x"]])
    G, s2 = fit.G.to_numpy(), float(fit.sigma2.iloc[0])
    V = np.where(far["id"].to_numpy()[:, None] == far["id"].to_numpy(), X @ G @ X.T, 0.0) + s2 * np.eye(len(far))
    P = X.T @ np.linalg.solve(V, X)
    np.testing.assert_allclose(fit.params, np.linalg.solve(P, X.T @ np.linalg.solve(V, far["m"])), rtol=DENSE)
    np.testing.assert_allclose(fit.vcov("block").iloc[:2, :2], np.linalg.inv(P), rtol=DENSE)
    llf = dense_loglik(X, X, far["m"].to_numpy(), far["id"].to_numpy(), G, np.full(len(far), s2), reml=method == "reml")
    assert fit.llf == pytest.approx(llf, rel=SAME)

    psi = np.array([*fit.params, G[0, 0], G[1, 1], G[0, 1], s2])
    names = ["Intercept", "x", "var(Intercept)", "var(x)", "cov(Intercept,x)", "var(Residual)"]
    found = fit.vcov("joint").loc[names, names].to_numpy()
    blocks, m = X.reshape(15, 8, 2), far["m"].to_numpy().reshape(15, 8)
    hessian = nd.Hessian(lambda at: dense_criterion(blocks, m, at, reml=method == "reml"), base_step=1e-2)(psi)
    expected = 2.0 * np.linalg.inv(hessian)
    sd = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(found / np.outer(sd, sd), expected / np.outer(sd, sd), rtol=0, atol=DIFFERENCES)


def moved(psi: pd.Series, T: pd.DataFrame) -> pd.Series:
    """Parameters after beta -> T beta, u -> T u; T has the names of the fixed (and random) effects."""
    out, names = psi.copy(), list(T.index)
    out[names] = T.to_numpy() @ psi[names].to_numpy()
    random = [name for name in names if f"var({name})" in psi]
    R = T.loc[random, random].to_numpy()
    label = {(i, i): f"var({a})" for i, a in enumerate(random)}
    label |= {(i, j): f"cov({random[i]},{random[j]})" for j in range(len(random)) for i in range(j)}
    G = np.zeros((len(random),) * 2)
    for (i, j), name in label.items():
        G[i, j] = G[j, i] = psi[name]
    G = R @ G @ R.T
    for at, name in label.items():
        out[name] = G[at]
    return out


def parameters(fit) -> pd.Series:
    """Every parameter by the names of the covariance matrix."""
    names = fit.vcov("joint").columns
    return pd.Series([fit.nlcom(f"`{name}`")["estimate"].iloc[0] for name in names], index=names)


def assert_moved(near, far, T, constant=None):
    """Parameters and both covariances of a fit at z + c are those of the fit at z under the linear map of the shift."""
    for fit in (near, far):
        assert fit.converged
        assert not fit.is_singular
    psi = parameters(near)
    names = psi.index
    M = np.column_stack([moved(pd.Series(unit, index=names), T) for unit in np.eye(len(names))])
    expected = M @ psi.to_numpy() + pd.Series(constant or {}, dtype=float).reindex(names, fill_value=0.0).to_numpy()
    for kind in ("joint", "block"):
        V = M @ near.vcov(kind).to_numpy() @ M.T
        sd = np.sqrt(np.diag(V))
        np.testing.assert_allclose(parameters(far)[names] / sd, expected / sd, rtol=0, atol=SAME_OPTIMUM)
        shown = far.vcov(kind).loc[names, names].to_numpy()
        np.testing.assert_allclose(shown / np.outer(sd, sd), V / np.outer(sd, sd), rtol=0, atol=SAME_OPTIMUM)


def identity(names) -> pd.DataFrame:
    return pd.DataFrame(np.eye(len(names)), index=names, columns=names)


@pytest.mark.parametrize("formulas", [["m ~ x + (1 + x | id)"], ["m ~ x + (1 + x |c| id)", "y ~ x + (1 + x |c| id)"]])
def test_one_and_several_responses(formulas):
    data = clusters(40, 8, seed=3)
    residual = "unstructured" if len(formulas) > 1 else "diagonal"
    near, far = (mlmed.mixed(formulas, data.assign(x=data["x"] + c), residual=residual) for c in (0.0, SHIFT))
    T = identity(near.params.index)
    for equation in ("m~", "y~") if len(formulas) > 1 else ("",):
        T.loc[f"{equation}Intercept", f"{equation}x"] = -SHIFT
    assert_moved(near, far, T)


def test_two_equations_with_x_and_m_moved():
    """The mediator is a response and a predictor: moving it moves the intercepts of both equations."""
    data = clusters(40, 8, seed=3)
    near = mlmed.mediate(MEDIATOR, OUTCOME, data)
    far = mlmed.mediate(MEDIATOR, OUTCOME, data.assign(x=data["x"] + SHIFT, m=data["m"] - 3.0))
    T = identity(near.params.index)
    T.loc["m~Intercept", "m~x"] = T.loc["y~Intercept", "y~x"] = -SHIFT
    T.loc["y~Intercept", "y~m"] = 3.0
    assert_moved(near, far, T, constant={"m~Intercept": -3.0})


@pytest.mark.parametrize("formula", ["m ~ 0 + x + (0 + x | id)", "m ~ 0 + x + (1 + x | id)", "m ~ x + (1 + x || id)"])
def test_columns_that_are_not_centred(far, formula):
    """Without an intercept, and in a diagonal G (which no shift leaves diagonal), columns are scaled only."""
    fit = mlmed.mixed(formula, far)
    columns = {"Intercept": np.ones(len(far)), "x": far["x"]}
    X, Z = (np.column_stack([columns[name] for name in names]) for names in (fit.params.index, fit.G.index))
    y, codes, s2 = far["m"].to_numpy(), far["id"].to_numpy(), np.full(len(far), float(fit.sigma2.iloc[0]))

    def loglik(G):
        return dense_loglik(X, Z, y, codes, G, s2, reml=True)

    G = fit.G.to_numpy()
    assert fit.llf == pytest.approx(loglik(G), rel=SAME)
    for k in range(len(G)):
        for share in (0.98, 1.02):
            scale = np.ones(len(G))
            scale[k] = share
            assert loglik(G * np.outer(scale, scale)) < fit.llf
