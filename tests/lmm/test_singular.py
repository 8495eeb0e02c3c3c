"""Boundary optima: exact, certified, quiet, and honest about standard errors."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import mlmed
from mlmed.errors import BoundaryWarning, ConvergenceWarning, LevelWarning, NotIdentifiedError
from mlmed.lmm.covariance import Block, canonical_factor
from mlmed.lmm.optimum import optimize
from mlmed.lmm.start import warm_theta
from mlmed.simulate import BPGTruth
from tests.models import MEDIATOR, OUTCOME, working


def no_direct_slope(seed, n_clusters=30, n_rows=8):
    """c' does not vary over clusters."""
    G = np.array(BPGTruth().G)
    G[4, :] = G[:, 4] = 0.0
    return mlmed.simulate.bpg(n_clusters, n_rows, truth=BPGTruth(G=G), seed=seed).data


@pytest.fixture(scope="module")
def singular():
    with pytest.warns(BoundaryWarning, match="rank"):
        return mlmed.mediate(MEDIATOR, OUTCOME, no_direct_slope(2))


def test_the_boundary_is_exact(singular):
    assert singular.is_singular
    assert singular.converged
    values = np.linalg.eigvalsh(singular.G.to_numpy())
    assert values[0] == pytest.approx(0.0, abs=1e-14)
    L = singular.fit.optimum.L
    assert (np.abs(L).max(axis=0) == 0.0).any()
    assert singular.optimization.certificate.multiplier >= 0.0
    assert singular.optimization.certificate.newton_decrement < 1e-12


def test_one_warning_only():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = mlmed.mediate(MEDIATOR, OUTCOME, no_direct_slope(2))
        fit.summary(), fit.effects(), fit.tidy(), fit.ranef(), fit.summary("stata")
    assert [w.category for w in caught] == [BoundaryWarning]


def test_standard_errors_are_flagged_or_missing_with_a_reason(singular):
    table = singular.varcorr().query("group != 'Residual'")
    finite = np.isfinite(table["std_error"])
    assert table.loc[finite, "note"].str.contains("boundary").all()
    assert table.loc[~finite, "note"].str.contains("not positive definite").all()
    effects = singular.effects().set_index("term")
    assert np.isfinite(effects.loc[["a", "b", "cprime"], "std_error"]).all()


def test_nan_carries_its_reason():
    """A data set where the Hessian in natural parameters is not positive definite."""
    found = None
    for seed in range(60):
        data = mlmed.simulate.bpg(12, 4, seed=seed).data
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BoundaryWarning)
            fit = mlmed.mediate(MEDIATOR, OUTCOME, data)
        if fit.fit.vcov().reason:
            found = fit
            break
    assert found is not None, "no such data set among 60 seeds"
    assert found.converged
    effects = found.effects().set_index("term")
    assert np.isnan(effects.loc["indirect", "std_error"])
    assert "not positive definite" in effects.loc["indirect", "note"]
    assert np.isfinite(effects.loc["a", "std_error"])
    assert "not positive definite" in found.summary()
    joint = found.effects(vcov="joint").set_index("term")
    assert np.isnan(joint.loc["b", "std_error"])
    assert joint.loc["b", "note"] != ""


@pytest.mark.parametrize("structure", ["diagonal", "exchangeable", "identity"])
def test_zero_variances_of_other_structures(structure):
    """Residuals made to have no between-cluster variance at all."""
    rng = np.random.default_rng(4)
    import pandas as pd

    data = pd.DataFrame({"id": np.repeat(np.arange(20), 6), "x": rng.normal(size=120), "y": rng.normal(size=120)})
    data["y"] = data["y"] - data.groupby("id")["y"].transform("mean")
    data["x"] = data["x"] - data.groupby("id")["x"].transform("mean")
    with pytest.warns(BoundaryWarning):
        fit = mlmed.mixed("y ~ x + (1 + x | id)", data, covariance=structure)
    assert fit.converged
    assert fit.G.iloc[0, 0] == 0.0 or structure != "diagonal"
    assert np.linalg.matrix_rank(fit.G.to_numpy(), tol=1e-12) < 2


def test_every_small_data_set_is_certified():
    """64 % of such data sets are singular; the certificate must hold in all, from two different starts."""
    singular = 0
    for seed in range(40):
        data = mlmed.simulate.bpg(30, 8, seed=seed).data
        made = working(data, MEDIATOR, OUTCOME)
        first = optimize(made.problem, made.blocks, reml=True)
        start = np.concatenate([np.eye(5)[j:, j] for j in range(5)] + [np.zeros(2)])
        second = optimize(made.problem, made.blocks, reml=True, theta=start)
        assert first.certificate.converged
        assert second.evaluation.value == pytest.approx(first.evaluation.value, abs=1e-7)
        singular += first.rank < 5
    assert 15 <= singular <= 35


def test_a_warm_start_leaves_the_boundary_and_finds_the_same_optimum():
    """From optima of rank 3 to 5 to that of four fifths of the clusters."""
    ranks = set()
    for seed in range(12):
        data = mlmed.simulate.bpg(30, 8, seed=seed).data
        whole = working(data, MEDIATOR, OUTCOME)
        at = optimize(whole.problem, whole.blocks, reml=True)
        part = working(data[data["id"] > 6], MEDIATOR, OUTCOME)
        start = warm_theta(part.problem, part.blocks, at.L, at.sigma2, reml=True)
        first = optimize(part.problem, part.blocks, reml=True)
        second = optimize(part.problem, part.blocks, reml=True, theta=start)
        assert second.certificate.converged
        assert second.rank == first.rank
        assert second.evaluation.value == pytest.approx(first.evaluation.value, abs=1e-7)
        ranks |= {(at.rank, first.rank)}
    assert any(before < after for before, after in ranks)


def test_a_warm_start_saves_evaluations():
    """One of five and more, inside the cone; beside a boundary the number hangs on the way there."""
    cold = warm = inside = 0
    for seed in range(12):
        data = mlmed.simulate.bpg(100, 8, seed=seed).data
        whole = working(data, MEDIATOR, OUTCOME)
        at = optimize(whole.problem, whole.blocks, reml=True)
        part = working(data[data["id"] > 20], MEDIATOR, OUTCOME)
        first = optimize(part.problem, part.blocks, reml=True)
        if first.rank < 5:
            continue
        start = warm_theta(part.problem, part.blocks, at.L, at.sigma2, reml=True)
        second = optimize(part.problem, part.blocks, reml=True, theta=start)
        assert second.evaluation.value == pytest.approx(first.evaluation.value, abs=1e-7)
        cold, warm, inside = cold + len(first.steps), warm + len(second.steps), inside + 1
    assert inside >= 8
    assert warm < cold - 4


def test_effects_say_that_they_rest_on_a_boundary_value(singular):
    effects = singular.effects().set_index("term")
    assert effects.loc[["cov_ab", "indirect", "total"], "note"].str.contains("boundary").all()
    assert (effects.loc[["a", "b", "cprime"], "note"] == "").all()


def test_a_flat_ridge_is_not_certified():
    """The cluster mean of m in y's equation and the covariance of the intercepts say the same thing."""
    data = mlmed.simulate.bpg(100, 8, seed=0).data
    means = data.groupby("id")[["x", "m"]].transform("mean")
    data = data.assign(x_w=data.x - means.x, x_b=means.x, m_w=data.m - means.m, m_b=means.m)
    with pytest.warns(ConvergenceWarning, match="flat in some direction"):
        fit = mlmed.mediate(
            "m ~ x_w + x_b + (1 + x_w | id)",
            "y ~ m + m_b + x_w + x_b + (1 + m_w + x_w | id)",
            data,
            treatment="x_w",
        )
    assert not fit.converged
    assert "NOT CERTIFIED" in fit.summary()


def test_a_slope_that_cannot_vary_is_pointed_out():
    data = mlmed.simulate.bpg(40, 6, seed=1).data
    data = data.assign(w=data.groupby("id")["x"].transform("first"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mlmed.mixed("y ~ w + (1 + w | id)", data)
    assert LevelWarning in [w.category for w in caught]


def test_random_effects_that_fit_exactly_are_refused():
    rng = np.random.default_rng(0)
    x = rng.normal(size=120)
    codes = np.repeat(np.arange(20), 6)
    y = rng.normal(size=20)[codes] + (1 + rng.normal(size=20)[codes]) * x
    import pandas as pd

    with pytest.raises(NotIdentifiedError, match="fit a response exactly"):
        mlmed.mixed("y ~ x + (1 + x | id)", pd.DataFrame({"id": codes, "x": x, "y": y}))


def test_rounding_of_a_zero_pivot_does_not_spoil_the_certificate():
    for seed in (102, 158):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BoundaryWarning)
            fit = mlmed.mediate(MEDIATOR, OUTCOME, mlmed.simulate.bpg(5, 4, seed=seed).data)
        assert fit.converged


@pytest.mark.parametrize(("path", "cov_ab", "key", "rank"), [(0.3, 0.0, (97, 994), 3), (0.6, 0.113, (101, 854), 2)])
def test_the_rank_of_a_face_is_kept(path, cov_ab, key, rank):
    """Two data sets of the coverage study whose ill-conditioned G, factored again, seemed to have a column more."""
    G = np.diag([0.6, 0.16, 0.4, 0.16, 0.04])
    G[1, 3] = G[3, 1] = cov_ab
    truth = mlmed.simulate.BPGTruth(a=path, b=path, G=G)
    seed = np.random.SeedSequence(20061, spawn_key=key)
    data = mlmed.simulate.bpg(25, 4, truth=truth, skewed=True, seed=seed).data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        fit = mlmed.mediate(MEDIATOR, OUTCOME, data)
    assert fit.converged
    assert fit.fit.optimum.rank == rank == np.linalg.matrix_rank(fit.G, tol=1e-9)


def test_the_canonical_factor_has_the_columns_it_is_given():
    rng = np.random.default_rng(1)
    for columns in range(5):
        factor = np.zeros((5, 5))
        factor[:, :columns] = rng.normal(size=(5, columns))
        factor[0] = 0.0  # an effect that does not vary
        L = canonical_factor((Block((0, 1, 2, 3, 4)),), factor)
        np.testing.assert_allclose(L @ L.T, factor @ factor.T, rtol=0, atol=1e-14)
        assert np.array_equal(np.abs(L).max(axis=0) > 0.0, np.arange(5) < columns)
        assert np.array_equal(L, np.tril(L))
