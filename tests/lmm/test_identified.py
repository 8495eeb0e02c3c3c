"""What data identify: small clusters, centred data, clusters that are fixed effects."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import mlmed
from mlmed.errors import BoundaryWarning, LevelWarning, NotIdentifiedError
from tests.tolerances import INVARIANT, SAME

#: A search that is not ours stops where differences of -2l say nothing.
OTHER_SEARCH = 1e-5


def small_clusters(seed: int) -> pd.DataFrame:
    """60 clusters of 1, 2 and 4 rows: 140 rows beside 120 random effects; with less, 90 rows."""
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(60), np.tile([1, 2, 4], 20))
    x, u = rng.normal(size=len(ids)), rng.normal(size=(60, 2)) * [1.0, 0.5]
    y = 1.0 + 0.5 * x + u[ids, 0] + u[ids, 1] * x + 0.7 * rng.normal(size=len(ids))
    return pd.DataFrame({"id": ids, "x": x, "y": y})


def dense_criterion(data: pd.DataFrame, reml: bool):
    """The log-likelihood of y ~ x + (1 + x | id) at (L11, L21, L22, log sd), cluster by cluster."""
    parts = [(np.column_stack([np.ones(len(d)), d.x]), d.y.to_numpy()) for _, d in data.groupby("id")]

    def loglik(theta):
        L = np.array([[theta[0], 0.0], [theta[1], theta[2]]])
        P, b, yy, logdet = np.zeros((2, 2)), np.zeros(2), 0.0, 0.0
        for X, y in parts:
            V = X @ L @ L.T @ X.T + np.exp(2 * theta[3]) * np.eye(len(y))
            P, b = P + X.T @ np.linalg.solve(V, X), b + X.T @ np.linalg.solve(V, y)
            yy, logdet = yy + y @ np.linalg.solve(V, y), logdet + np.linalg.slogdet(V)[1]
        value = logdet + yy - b @ np.linalg.solve(P, b) + (len(data) - 2 * reml) * np.log(2 * np.pi)
        return -0.5 * (value + (np.linalg.slogdet(P)[1] if reml else 0.0))

    return loglik


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize(("seed", "largest"), [(0, 4), (3, 4), (0, 2), (4, 2)])
def test_small_clusters_are_fitted(seed, largest, method):
    """Fewer rows than random effects are no obstacle (largest = 2: 100 rows, 120 effects)."""
    data = small_clusters(seed)
    data = data[data.groupby("id").cumcount() < largest]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        fit = mlmed.mixed("y ~ x + (1 + x | id)", data, method=method)
    assert fit.converged
    loglik = dense_criterion(data, method == "reml")
    L = fit.fit.working.units.Z_map @ fit.fit.optimum.L
    lower = np.linalg.qr(L.T, mode="r").T
    at = np.array([lower[0, 0], lower[1, 0], lower[1, 1], 0.5 * np.log(fit.sigma2.iloc[0])])
    assert fit.llf == pytest.approx(loglik(at), rel=SAME)
    starts = [np.array([1.0, 0.0, 0.5, -0.3]), np.array([0.3, 0.2, 0.1, 0.3]), at + 0.1]
    best = max(-minimize(lambda t: -loglik(t), start, method="BFGS").fun for start in starts)
    assert fit.llf == pytest.approx(best, abs=OTHER_SEARCH)


def centred(seed: int, *, days: bool = False) -> pd.DataFrame:
    """x, m and y with the means of their clusters taken out."""
    data = mlmed.simulate.bpg(80, 8, seed=seed).data
    columns = ["x", "m", "y"]
    data[columns] = data[columns] - data.groupby("id")[columns].transform("mean")
    return data.assign(day=data.groupby("id").cumcount() + 1.0) if days else data


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_centred_data_have_no_random_intercepts(method):
    """The fit is that without them: same G, log-likelihood and effects with their errors."""
    data = centred(1)
    with pytest.warns(LevelWarning, match="random intercept m~Intercept, y~Intercept is left out"):
        fit = mlmed.mediate("m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)", data, method=method)
    without = mlmed.mediate("m ~ x + (0 + x | id)", "y ~ m + x + (0 + m + x | id)", data, method=method)
    assert fit.converged
    assert not fit.is_singular
    assert fit.llf == pytest.approx(without.llf, rel=SAME)
    assert not fit.G.loc[["m~Intercept", "y~Intercept"]].any(axis=None)
    kept = without.G.index
    assert fit.G.loc[kept, kept].to_numpy() == pytest.approx(without.G.to_numpy(), rel=INVARIANT, abs=INVARIANT)
    for vcov in ("block", "joint", "CR2", "cluster"):
        ours, theirs = (one.effects(vcov=vcov)[["estimate", "std_error"]].to_numpy() for one in (fit, without))
        assert ours == pytest.approx(theirs, rel=INVARIANT)
    assert "is left out" in fit.summary()
    assert not fit.varcorr()["term"].str.contains("Intercept").any()


def test_a_balanced_covariate_changes_nothing_of_that():
    """Days 1 to 8 have the same mean in every cluster; an unbalanced one keeps the intercepts."""
    data = centred(2, days=True)
    formulas = "m ~ x + day + (1 + x | id)", "y ~ m + x + day + (1 + m + x | id)"
    with pytest.warns(LevelWarning, match="is left out"):
        fit = mlmed.mediate(*formulas, data, treatment="x")
    assert fit.converged
    assert fit.effects()["std_error"].notna().all()
    gaps = data[np.random.default_rng(0).uniform(size=len(data)) > 0.2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        assert mlmed.mediate(*formulas, gaps, treatment="x").fit.working.empty == ()


def test_what_follows_a_fit_to_centred_data():
    """Bootstrap, profile, predictions, influence and tests run on the model without intercepts."""
    data = centred(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LevelWarning)
        fit = mlmed.mediate("m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)", data)
        for kind in ("case", "parametric", "residual"):
            assert fit.bootstrap(4, seed=1, kind=kind).n_failed == 0
    assert fit.profile("indirect", points=4).interval[0] > 0.0
    ranef = fit.ranef()
    assert (ranef.loc[ranef["effect"].str.contains("Intercept"), "estimate"] == 0.0).all()
    assert np.isfinite(fit.influence().tidy()["cooks"]).all()
    assert fit.test("cov_ab = 0").p_value < 0.05


def test_blch9(dataset):
    """Bolger and Laurenceau's ch. 9, centred within persons, as the package bmlm has it."""
    data = dataset("blch9")
    with pytest.warns(LevelWarning), pytest.warns(BoundaryWarning, match="rank 2 of 3"):
        fit = mlmed.mediate("m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)", data, method="ml")
    assert fit.converged
    assert fit.llf == pytest.approx(-6060.802402, abs=1e-6)  # as printed
    indirect = fit.effects(vcov="joint").set_index("term").loc["indirect"]
    assert indirect["estimate"] == pytest.approx(0.058975, abs=1e-6)
    assert indirect["std_error"] == pytest.approx(0.01388, abs=5e-6)


@pytest.mark.parametrize("seed", range(20))
def test_fixed_effects_of_all_clusters_leave_reml_no_variance(seed):
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(12), 6)
    x = rng.normal(size=72)
    data = pd.DataFrame({"id": ids, "x": x, "y": x + rng.normal(size=12)[ids] + rng.normal(size=72)})
    with pytest.raises(NotIdentifiedError, match="fixed effects hold Intercept of every cluster"):
        mlmed.mixed("y ~ x + C(id) + (1 | id)", data)
    with pytest.raises(NotIdentifiedError, match="fixed effects hold x of every cluster"):
        mlmed.mixed("y ~ x * C(id) + (0 + x | id)", data)
    with pytest.warns(BoundaryWarning):  # maximum likelihood has a variance: 0
        assert mlmed.mixed("y ~ x + C(id) + (1 | id)", data, method="ml").converged


def test_a_variance_that_other_effects_share_is_not_absorbed():
    """One variance of intercepts and slopes: fixed effects hold the intercepts, the slopes tell it (dense optimum)."""
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(12), 6)
    x, u = rng.normal(size=72), 0.7 * rng.normal(size=(12, 2))
    data = pd.DataFrame({"id": ids, "x": x, "y": x + u[ids, 0] + u[ids, 1] * x + rng.normal(size=72)})
    fit = mlmed.mixed("y ~ x + C(id) + (1 + x | id)", data, covariance="identity")
    assert fit.converged
    X, y = np.column_stack([x, np.equal.outer(ids, np.arange(12))]), data["y"].to_numpy()
    same = np.equal.outer(ids, ids)

    def loglik(theta):
        V = np.exp(2 * theta[0]) * same * (1.0 + np.outer(x, x)) + np.exp(2 * theta[1]) * np.eye(72)
        P, r = X.T @ np.linalg.solve(V, X), np.linalg.solve(V, y)
        quadratic = y @ r - (X.T @ r) @ np.linalg.solve(P, X.T @ r)
        logs = np.linalg.slogdet(V)[1] + np.linalg.slogdet(P)[1] - np.linalg.slogdet(X.T @ X)[1]
        return -0.5 * (logs + quadratic + (72 - 13) * np.log(2 * np.pi))

    # our REML constant is that of the columns as coded: another basis of the same space shifts it by a known amount
    coded = np.column_stack([np.ones(72), x, np.equal.outer(ids, np.arange(1, 12))])
    shift = -0.5 * np.linalg.slogdet(coded.T @ coded)[1]
    best = max(-minimize(lambda t: -loglik(t), start, method="BFGS").fun for start in ([-0.3, 0.0], [0.5, 0.5]))
    assert fit.llf == pytest.approx(best + shift, abs=OTHER_SEARCH)


def test_what_predictors_explain_is_no_repetition():
    """A trend makes up all but a millionth of a response, the other response does not: the fit of a smaller trend."""
    rng = np.random.default_rng(1)
    ids, day = np.repeat(np.arange(30), 6), np.tile(np.arange(6.0), 30)
    e = rng.normal(size=(180, 2)) @ np.array([[1.0, 0.5], [0.0, 0.8]])
    u = rng.normal(size=(30, 2))[ids]
    data = pd.DataFrame({"id": ids, "day": day, "y": 0.2 * day + u[:, 1] + e[:, 1]})
    fits = [
        mlmed.mixed(
            ["mile ~ day + (1|id)", "y ~ day + (1|id)"],
            data.assign(mile=slope * day + u[:, 0] + e[:, 0]),
            residual="unstructured",
        )
        for slope in (1.0, 1000.0)
    ]
    assert all(fit.converged for fit in fits)
    # sums of squares hold what a millionth leaves to ten digits
    assert fits[1].llf == pytest.approx(fits[0].llf, abs=1e-5)
