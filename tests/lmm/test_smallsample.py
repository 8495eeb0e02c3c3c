"""Small samples: other software, then dense matrices."""

from __future__ import annotations

import numdifftools as nd
import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.intervals.degrees import (
    kenward_roger_linear,
    satterthwaite_linear,
)
from mlmed.lmm import kenward_roger as kr
from mlmed.lmm.clusters import chunks
from mlmed.lmm.criterion import evaluate
from tests.models import MEDIATOR, OUTCOME, stacked_matrices
from tests.oracles import scaled_f
from tests.smallsample_models import (
    DENSE,
    DIFFERENCES,
    NUMDIFFTOOLS,
    REFERENCE,
    STACKED_REFERENCE,
    close,
    corrected,
    jacobian,
    literal_adjustment,
    literal_f,
    unbalanced,
)
from validation.checks import load_json
from validation.reference_checks import data_of, reference_names

# -- other software ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in reference_names() if "kr_df" in load_json("reference", name)])
def test_single_equations_against_lmertest_and_pbkrtest(name, dataset):
    reference = load_json("reference", name)
    fit = mlmed.mixed(reference["formula"], dataset(data_of(name)), method=reference["method"].lower())
    fitted, each = fit.fit, np.eye(len(fit.params))
    errors, df = kenward_roger_linear(each, fitted.working, fitted.optimum, reml=fitted.reml)
    ours = {
        "kr_df": df.values,
        "kr_se": errors,
        "satterthwaite_df": satterthwaite_linear(each, fitted.working, fitted.optimum).values,
    }
    for key, tolerance in REFERENCE.items():
        np.testing.assert_allclose(ours[key], list(reference[key].values()), rtol=tolerance, err_msg=key)


def test_stacked_equations_against_lmertest_and_pbkrtest(dataset):
    """lme4 1.1-31, lmerTest 3.1-3, pbkrtest 0.5.2 on ``z ~ 0 + sm + ... + (0 + sm + ... | id) + (0 + sm | fid)``."""
    fit = mlmed.mediate(MEDIATOR, OUTCOME, dataset("ml_sim"))
    fitted, each = fit.fit, np.eye(5)
    errors, df = kenward_roger_linear(each, fitted.working, fitted.optimum, reml=True)
    ours = {
        "kr_df": df.values,
        "kr_se": errors,
        "satterthwaite_df": satterthwaite_linear(each, fitted.working, fitted.optimum).values,
    }
    theirs = {
        "kr_df": [98.3608860481, 94.3546961986, 96.6618717719, 92.8165472916, 81.6509127656],
        "kr_se": [0.0897828746792, 0.0467969816502, 0.0628190579176, 0.0462246797082, 0.0382326652415],
        "satterthwaite_df": [99.01609574, 101.26375998, 98.07932426, 92.06388180, 71.12144934],
    }
    for key, tolerance in STACKED_REFERENCE.items():
        np.testing.assert_allclose(ours[key], theirs[key], rtol=tolerance, err_msg=key)
    together = scaled_f(each[[1, 3, 4]], corrected(fit))
    assert together.df == pytest.approx(87.384343745370, rel=STACKED_REFERENCE["kr_df"])
    assert together.scale == pytest.approx(0.978425464385, rel=STACKED_REFERENCE["kr_df"])


@pytest.mark.parametrize(
    ("contrasts", "df", "scale"),
    [
        (np.eye(3), 86.5455374956742, 0.978844217367548),
        (np.eye(3)[1:], 88.5158948305632, 0.989452563318161),
        (np.array([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0]]), 84.0788764828798, 0.989167175817500),
    ],
)
def test_several_contrasts_against_pbkrtest(contrasts, df, scale, dataset):
    """pbkrtest 0.5.2, KRmodcomp."""
    found = scaled_f(contrasts, corrected(mlmed.mixed("y ~ m + x + (1 + m + x | id)", dataset("ml_sim"))))
    assert found.df == pytest.approx(df, rel=REFERENCE["kr_df"])
    assert found.scale == pytest.approx(scale, rel=REFERENCE["kr_df"])


def test_balanced_growth_curves_give_hotelling_s_test():
    """Same times in each of J clusters: T^2 is exactly (J - 1) d / (J - d) F(d, J - d), and Satterthwaite J - 1."""
    J, d = 14, 2
    rng = np.random.default_rng(4)
    codes, t = np.repeat(np.arange(J), 6), np.tile(np.arange(6.0), J)
    y = 2 + t + rng.normal(size=J)[codes] * 2 + rng.normal(size=J)[codes] * t + rng.normal(size=6 * J)
    fit = mlmed.mixed("y ~ t + (1 + t | id)", pd.DataFrame({"id": codes, "t": t, "y": y}))
    assert not fit.is_singular
    found = scaled_f(np.eye(d), corrected(fit))
    assert (found.df, found.scale) == pytest.approx((J - d, (J - d) / (J - 1)), rel=DIFFERENCES)
    fitted = fit.fit
    errors, df = kenward_roger_linear(np.eye(2), fitted.working, fitted.optimum, reml=True)
    np.testing.assert_allclose(df.values, J - 1, rtol=DIFFERENCES)
    np.testing.assert_allclose(errors, fit.bse, rtol=DIFFERENCES)  # nothing to adjust in balanced data
    found = satterthwaite_linear(np.eye(2), fitted.working, fitted.optimum)
    np.testing.assert_allclose(found.values, J - 1, rtol=DIFFERENCES)


# -- dense matrices ------------------------------------------------------------------------------------------------


def dense_moments(X, Z, equation, codes, G, sigma2, basis) -> kr.Moments:
    """The sums of Kenward and Roger from the covariance matrix of all rows."""
    same = codes[:, None] == codes[None]
    members = [np.diag((equation == r).astype(float)) for r in range(len(sigma2))]
    Vi = np.linalg.inv(np.where(same, Z @ G @ Z.T, 0.0) + sum(s * D for s, D in zip(sigma2, members, strict=True)))
    moves = [np.where(same, Z @ E @ Z.T, 0.0) for E in basis] + members
    return kr.Moments(
        np.linalg.inv(X.T @ Vi @ X),
        np.array([X.T @ Vi @ k @ Vi @ X for k in moves]),
        np.array([[X.T @ Vi @ k @ Vi @ l @ Vi @ X for l in moves] for k in moves]),  # noqa: E741
        np.array([[np.trace(Vi @ k @ Vi @ l) for l in moves] for k in moves]),  # noqa: E741
    )


def single_design(formula, data):
    one, m, x = np.ones(len(data)), data["m"].to_numpy(), data["x"].to_numpy()
    fit = mlmed.mixed(formula, data)
    X = np.column_stack([one, m, x])
    return fit, X, X[:, :2], np.zeros(len(data), dtype=int), data["id"].to_numpy()


def stacked_design(data):
    X, _, is_m, codes = stacked_matrices(mlmed.stack(data, x="x", m="m", y="y", cluster="id"))
    return mlmed.mediate(MEDIATOR, OUTCOME, data), X, X, np.where(is_m, 0, 1), codes


@pytest.mark.filterwarnings("ignore::mlmed.errors.BoundaryWarning")
@pytest.mark.parametrize(
    "design",
    [
        lambda: single_design("y ~ m + x + (1 + m | id)", unbalanced(5)),
        lambda: single_design("y ~ m + x + (1 + m || id)", unbalanced(5)),
        lambda: stacked_design(unbalanced(1, 20, 6)),
    ],
    ids=["unstructured", "diagonal", "stacked"],
)
def test_sums_and_adjustment_against_dense_matrices(design):
    fit, X, Z, equation, codes = design()
    working, optimum = fit.fit.working, fit.fit.optimum
    units, basis = working.units, fit.fit.estimates.tau_basis
    scale = units.y_scale[equation][:, None]
    dense = dense_moments(
        X @ units.X_map / scale, Z @ units.Z_map / scale, equation, codes, optimum.G, optimum.sigma2, basis
    )
    found = kr.moments(working.problem, optimum.L, optimum.sigma2, jacobian(fit))
    for name in ("P_inv", "moved", "twice", "trace"):
        close(getattr(found, name), getattr(dense, name), DENSE)
    close(kr.moved_crossproducts(working.problem, optimum.L, optimum.sigma2, jacobian(fit)), dense.moved, DENSE)
    # in the user's units, where nothing but the estimates is shared
    estimates = fit.fit.estimates
    user_basis = np.array([(np.outer(*np.eye(len(estimates.G))[[i, j]])) for i, j in estimates.tau_at])
    user_basis = np.array([E if np.array_equal(E, E.T) else E + E.T for E in user_basis])
    dense = dense_moments(X, Z, equation, codes, estimates.G, estimates.sigma2, user_basis)
    adjusted, W = literal_adjustment(dense)
    ours = corrected(fit)
    size = np.sqrt(np.diag(adjusted))
    np.testing.assert_allclose(ours.adjusted / np.outer(size, size), adjusted / np.outer(size, size), atol=1e-8)
    for contrasts in (np.eye(len(X.T))[[1]], np.eye(len(X.T))[1:], np.eye(len(X.T))[:2] + 0.3):
        literal = literal_f(contrasts, dense, W)
        both = scaled_f(contrasts, ours)
        assert (both.scale, both.df) == pytest.approx(literal, rel=1e-7)


def test_chunks_do_not_change_the_sums(monkeypatch):
    fit = mlmed.mediate(MEDIATOR, OUTCOME, mlmed.simulate.bpg(40, 6, seed=3).data)
    whole = corrected(fit)
    monkeypatch.setattr(kr, "chunks", lambda problem: chunks(problem, 7))
    pieces = corrected(fit)
    close(pieces.adjusted, whole.adjusted, 1e-12)


def test_slopes_of_the_covariance_against_numdifftools():
    fit = mlmed.mixed("y ~ m + x + (1 + m | id)", mlmed.simulate.bpg(30, 6, seed=2).data)
    working, optimum, J = fit.fit.working, fit.fit.optimum, jacobian(fit)
    start = np.linalg.lstsq(J, np.append(optimum.G, optimum.sigma2), rcond=None)[0]

    def P_inv(theta):
        at = J @ theta
        return evaluate(working.problem, np.linalg.cholesky(at[:4].reshape(2, 2)), at[4:], order=0).P_inv.ravel()

    numeric = nd.Jacobian(P_inv, step=1e-3, order=4)(start).T.reshape(-1, 3, 3)
    found = kr.kenward_roger(working.problem, optimum.L, optimum.sigma2, J)
    close(found.slopes, numeric, NUMDIFFTOOLS)
