"""Degrees of freedom and Kenward-Roger against lmerTest, pbkrtest, dense matrices and numdifftools."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numdifftools as nd
import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.effects import smallsample
from mlmed.effects.delta import Quantity, std_error
from mlmed.effects.nlcom import combine
from mlmed.effects.paths import effect_quantities, find_paths
from mlmed.effects.smallsample import (
    DegreesOfFreedom,
    forward_slopes,
    infinite_df,
    kenward_roger_linear,
    residual_df,
    satterthwaite_effects,
    satterthwaite_linear,
)
from mlmed.errors import BoundaryWarning, DroppedRowsWarning, EffectError
from mlmed.reml import kenward_roger as kr
from mlmed.reml.clusters import chunks
from mlmed.reml.criterion import evaluate
from mlmed.reml.estimates import to_estimates
from mlmed.reml.start import natural_jacobian
from mlmed.reml.vcov import information_inverse, parameter_vcov
from mlmed.simulate import BPGTruth
from tests.models import MEDIATOR, OUTCOME, stacked_matrices
from validation.checks import load_json
from validation.reference_checks import data_of, reference_names

#: Relative, against other software at its own optimum (lme4 with rhoend 1e-10). Estimates agree to 1e-5 or better
#: there, degrees of freedom are ratios that move less; lmerTest's Hessian is numerical.
REFERENCE = {"kr_df": 1e-7, "kr_se": 1e-6, "satterthwaite_df": 5e-6}
#: The same for two equations, stacked by hand: a flatter optimum, 22 parameters.
STACKED_REFERENCE = {"kr_df": 1e-6, "kr_se": 1e-6, "satterthwaite_df": 5e-6}
#: Sums over clusters against matrices of all rows: inverses of 60 x 60 matrices, entries relative to the largest.
DENSE = 1e-9
#: Exact and extrapolated gradient of the same variance; differences of numbers good to 1e-12 over steps of 1e-3.
DIFFERENCES = 1e-7
#: The same against numdifftools, whose smallest steps are noisier.
NUMDIFFTOOLS = 1e-6
#: Two fits of the same data in other units: two optima, each exact to about 1e-8.
INVARIANT = 1e-6

LINEAR = ("a", "b", "cprime", "direct")


def effects_of(fit):
    """Paths of a mediation as the function that ``satterthwaite_effects`` wants."""
    paths = find_paths(fit.fitted.layout, treatment=fit.treatment)
    return lambda estimates: list(effect_quantities(paths, estimates).values())


def terms_of(fit):
    return [quantity.term for quantity in effects_of(fit)(fit.fitted.estimates)]


def by_effect(fit, **options) -> pd.Series:
    """Satterthwaite's df of every effect."""
    fitted = fit.fitted
    found = satterthwaite_effects(effects_of(fit), fitted.working, fitted.optimum, reml=fitted.reml, **options)
    assert_explained(found)
    return pd.Series(found.values, index=terms_of(fit))


def fixed_parts(fit) -> np.ndarray:
    return np.array([quantity.gradient[: len(fit.params)] for quantity in effects_of(fit)(fit.fitted.estimates)])


def jacobian(fit) -> np.ndarray:
    return natural_jacobian(fit.fitted.working.problem, fit.fitted.working.blocks)


def corrected(fit) -> kr.KenwardRoger:
    """Kenward-Roger in the user's units."""
    working, optimum = fit.fitted.working, fit.fitted.optimum
    found = kr.kenward_roger(working.problem, optimum.L, optimum.sigma2, jacobian(fit), reml=fit.fitted.reml)
    return found.mapped(working.units.X_map)


def assert_explained(found: DegreesOfFreedom) -> None:
    """A number that is positive, or a reason."""
    assert len(found.values) == len(found.reasons)
    for value, reason in zip(found.values, found.reasons, strict=True):
        assert (value > 0.0 and not reason) or (np.isnan(value) and reason)


def close(ours, theirs, tolerance) -> None:
    """All entries, relative to the largest."""
    theirs = np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=tolerance * float(np.abs(theirs).max()))


# -- other software ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in reference_names() if "kr_df" in load_json("reference", name)])
def test_single_equations_against_lmertest_and_pbkrtest(name, dataset):
    reference = load_json("reference", name)
    fit = mlmed.mixed(reference["formula"], dataset(data_of(name)), method=reference["method"].lower())
    fitted, each = fit.fitted, np.eye(len(fit.params))
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
    fitted, each = fit.fitted, np.eye(5)
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
    together = kr.scaled_f(each[[1, 3, 4]], corrected(fit))
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
    found = kr.scaled_f(contrasts, corrected(mlmed.mixed("y ~ m + x + (1 + m + x | id)", dataset("ml_sim"))))
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
    found = kr.scaled_f(np.eye(d), corrected(fit))
    assert (found.df, found.scale) == pytest.approx((J - d, (J - d) / (J - 1)), rel=DIFFERENCES)
    fitted = fit.fitted
    errors, df = kenward_roger_linear(np.eye(2), fitted.working, fitted.optimum, reml=True)
    np.testing.assert_allclose(df.values, J - 1, rtol=DIFFERENCES)
    np.testing.assert_allclose(errors, fit.bse, rtol=DIFFERENCES)  # nothing to adjust in balanced data
    found = satterthwaite_linear(np.eye(2), fitted.working, fitted.optimum)
    np.testing.assert_allclose(found.values, J - 1, rtol=DIFFERENCES)


# -- dense matrices ----------------------------------------------------------------------------------------


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


def literal_adjustment(found: kr.Moments) -> tuple[np.ndarray, np.ndarray]:
    """Adjusted covariance and W, written out as in the paper."""
    Phi, P, Q, K = found.P_inv, -found.moved, found.twice, range(len(found.moved))
    information = np.zeros_like(found.trace)
    for k in K:
        for m in K:
            information[k, m] = 0.5 * (
                found.trace[k, m] - np.trace(2 * Phi @ Q[k, m] - Phi @ P[k] @ Phi @ P[m])
            )  # fmt: skip
    W = np.linalg.inv(information)
    Lambda = sum(W[k, m] * Phi @ (Q[k, m] - P[k] @ Phi @ P[m]) @ Phi for k in K for m in K)
    return Phi + 2 * Lambda, W


def literal_f(contrasts, found: kr.Moments, W) -> tuple[float, float]:
    """Lambda and m of the paper."""
    Phi, P, K, d = found.P_inv, -found.moved, range(len(found.moved)), len(contrasts)
    Theta = contrasts.T @ np.linalg.inv(contrasts @ Phi @ contrasts.T) @ contrasts
    parts = [Theta @ Phi @ P[k] @ Phi for k in K]
    A1 = sum(W[k, m] * np.trace(parts[k]) * np.trace(parts[m]) for k in K for m in K)
    A2 = sum(W[k, m] * np.trace(parts[k] @ parts[m]) for k in K for m in K)
    B = (A1 + 6 * A2) / (2 * d)
    g = ((d + 1) * A1 - (d + 4) * A2) / ((d + 2) * A2)
    c = np.array([g, d - g, d + 2 - g]) / (3 * d + 2 * (1 - g))
    mean = 1 / (1 - A2 / d)
    variance = 2 / d * (1 + c[0] * B) / ((1 - c[1] * B) ** 2 * (1 - c[2] * B))
    rho = variance / (2 * mean**2)
    m = 4 + (d + 2) / (d * rho - 1)
    return m / (mean * (m - 2)), m


def unbalanced(seed: int, n_clusters: int = 12, n_rows: int = 5) -> pd.DataFrame:
    """A third of the rows left out, clusters of 1 to 5."""
    data = mlmed.simulate.bpg(n_clusters, n_rows, seed=seed).data
    keep = np.random.default_rng(seed).random(len(data)) < 0.67
    return data[keep].reset_index(drop=True)


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
    working, optimum = fit.fitted.working, fit.fitted.optimum
    units, basis = working.units, fit.fitted.estimates.tau_basis
    scale = units.y_scale[equation][:, None]
    dense = dense_moments(
        X @ units.X_map / scale, Z @ units.Z_map / scale, equation, codes, optimum.G, optimum.sigma2, basis
    )
    found = kr.moments(working.problem, optimum.L, optimum.sigma2, jacobian(fit))
    for name in ("P_inv", "moved", "twice", "trace"):
        close(getattr(found, name), getattr(dense, name), DENSE)
    close(kr.moved_crossproducts(working.problem, optimum.L, optimum.sigma2, jacobian(fit)), dense.moved, DENSE)
    # in the user's units, where nothing but the estimates is shared
    estimates = fit.fitted.estimates
    user_basis = np.array([(np.outer(*np.eye(len(estimates.G))[[i, j]])) for i, j in estimates.tau_at])
    user_basis = np.array([E if np.array_equal(E, E.T) else E + E.T for E in user_basis])
    dense = dense_moments(X, Z, equation, codes, estimates.G, estimates.sigma2, user_basis)
    adjusted, W = literal_adjustment(dense)
    ours = corrected(fit)
    size = np.sqrt(np.diag(adjusted))
    np.testing.assert_allclose(ours.adjusted / np.outer(size, size), adjusted / np.outer(size, size), atol=1e-8)
    for contrasts in (np.eye(len(X.T))[[1]], np.eye(len(X.T))[1:], np.eye(len(X.T))[:2] + 0.3):
        literal = literal_f(contrasts, dense, W)
        both = kr.scaled_f(contrasts, ours)
        assert (both.scale, both.df) == pytest.approx(literal, rel=1e-7)


def test_chunks_do_not_change_the_sums(monkeypatch):
    fit = mlmed.mediate(MEDIATOR, OUTCOME, mlmed.simulate.bpg(40, 6, seed=3).data)
    whole = corrected(fit)
    monkeypatch.setattr(kr, "chunks", lambda problem: chunks(problem, 7))
    pieces = corrected(fit)
    close(pieces.adjusted, whole.adjusted, 1e-12)


def test_slopes_of_the_covariance_against_numdifftools():
    fit = mlmed.mixed("y ~ m + x + (1 + m | id)", mlmed.simulate.bpg(30, 6, seed=2).data)
    working, optimum, J = fit.fitted.working, fit.fitted.optimum, jacobian(fit)
    start = np.linalg.lstsq(J, np.append(optimum.G, optimum.sigma2), rcond=None)[0]

    def P_inv(theta):
        at = J @ theta
        return evaluate(working.problem, np.linalg.cholesky(at[:4].reshape(2, 2)), at[4:], order=0).P_inv.ravel()

    numeric = nd.Jacobian(P_inv, step=1e-3, order=4)(start).T.reshape(-1, 3, 3)
    found = kr.kenward_roger(working.problem, optimum.L, optimum.sigma2, J)
    close(found.slopes, numeric, NUMDIFFTOOLS)


# -- effects -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fit():
    found = mlmed.mediate(MEDIATOR, OUTCOME, mlmed.simulate.bpg(60, 8, seed=21).data)
    assert not found.is_singular
    return found


def numdifftools_df(fit, quantities_at, vcov, order) -> np.ndarray:
    """df from central differences in the natural parameters themselves."""
    fitted = fit.fitted
    working, optimum, J = fitted.working, fitted.optimum, jacobian(fit)
    q = working.problem.n_random
    start = np.linalg.lstsq(J, np.append(optimum.G, optimum.sigma2), rcond=None)[0]

    def variances(theta):
        at = J @ theta
        G, sigma2 = at[: q * q].reshape(q, q), at[q * q :]
        L = np.linalg.cholesky(G)
        there = evaluate(working.problem, L, sigma2, reml=fitted.reml)
        moved = to_estimates(working, replace(optimum, G=G, L=L, sigma2=sigma2, evaluation=there), reml=fitted.reml)
        V = parameter_vcov(moved, vcov).matrix
        return np.array([std_error(quantity, V, order=order) ** 2 for quantity in quantities_at(moved)])

    # far enough inside the cone for an error of fourth order to vanish
    slopes = nd.Jacobian(variances, step=4e-3 * float(np.linalg.eigvalsh(optimum.G)[0]), order=4)(start)
    V = information_inverse(fitted.estimates.hessian)[0]
    return 2.0 * variances(start) ** 2 / np.einsum("nk,kl,nl->n", slopes, V, slopes)


@pytest.mark.parametrize("vcov", ["block", "joint"])
@pytest.mark.parametrize("order", ["first", "second"])
def test_effects_against_numdifftools(fit, vcov, order):
    ours = by_effect(fit, vcov=vcov, order=order)
    np.testing.assert_allclose(ours, numdifftools_df(fit, effects_of(fit), vcov, order), rtol=NUMDIFFTOOLS)


@pytest.mark.parametrize("covariance", ["diagonal", "identity", "exchangeable"])
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_other_structures_against_numdifftools(covariance, method):
    data = mlmed.simulate.bpg(60, 8, seed=21).data
    fit = mlmed.mixed("y ~ m + x + (1 + m + x | id)", data, covariance=covariance, method=method)
    assert not fit.is_singular

    def quantities(estimates):
        n = 3 + len(estimates.tau) + 1
        beta = [Quantity(str(k), estimates.beta[k], np.eye(n)[k]) for k in range(3)]
        variance = Quantity("v", estimates.tau[0], np.eye(n)[3])
        return [*beta, beta[1].times(beta[2], "product"), variance]

    fitted = fit.fitted
    found = satterthwaite_effects(quantities, fitted.working, fitted.optimum, reml=fitted.reml, vcov="joint")
    assert_explained(found)
    np.testing.assert_allclose(found.values, numdifftools_df(fit, quantities, "joint", "second"), rtol=NUMDIFFTOOLS)
    plain = satterthwaite_effects(quantities, fitted.working, fitted.optimum, reml=fitted.reml)
    exact = satterthwaite_linear(np.eye(3), fitted.working, fitted.optimum)
    np.testing.assert_allclose(plain.values[:3], exact.values, rtol=DIFFERENCES)


def test_linear_effects_are_the_exact_ones(fit):
    exact = satterthwaite_linear(fixed_parts(fit), fit.fitted.working, fit.fitted.optimum)
    exact = pd.Series(exact.values, index=terms_of(fit))[list(LINEAR)]
    for order in ("first", "second"):
        np.testing.assert_allclose(by_effect(fit, order=order)[list(LINEAR)], exact, rtol=DIFFERENCES)


def test_units_do_not_matter(fit):
    """x shifted and scaled, m and y scaled: slopes and effects keep their df."""
    data = mlmed.simulate.bpg(60, 8, seed=21).data
    other = data.assign(x=1000.0 + 30.0 * data["x"], m=0.01 * data["m"], y=5.0 - 200.0 * data["y"])
    moved = mlmed.mediate(MEDIATOR, OUTCOME, other)
    for vcov in ("block", "joint"):
        np.testing.assert_allclose(by_effect(moved, vcov=vcov), by_effect(fit, vcov=vcov), rtol=INVARIANT)
    slopes = np.eye(5)[[1, 3, 4]]
    ours, theirs = corrected(fit), corrected(moved)
    for contrasts in (slopes, slopes[:1], slopes[1:]):
        one, two = kr.scaled_f(contrasts, ours), kr.scaled_f(contrasts, theirs)
        assert (two.scale, two.df) == pytest.approx((one.scale, one.df), rel=INVARIANT)
    # units cancel in the ratio of adjusted to plain
    np.testing.assert_allclose(
        (np.diag(theirs.adjusted) / np.diag(theirs.plain))[[1, 3, 4]],
        (np.diag(ours.adjusted) / np.diag(ours.plain))[[1, 3, 4]],
        rtol=INVARIANT,
    )


# -- where things do not exist -----------------------------------------------------------------------------


def boundary_fits():
    """Fits with a direct effect that does not vary: most are singular, the larger ones with a positive Hessian."""
    G = np.array(BPGTruth().G)
    G[4, :] = G[:, 4] = 0.0
    for n_clusters, n_rows in ((12, 4), (20, 5), (60, 8)):
        for seed in range(7):
            data = mlmed.simulate.bpg(n_clusters, n_rows, truth=BPGTruth(G=G), seed=seed).data
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", BoundaryWarning)
                yield mlmed.mediate(MEDIATOR, OUTCOME, data)


def test_singular_fits_give_numbers_or_reasons():
    """At the boundary the forward differences are those of the same smooth function."""
    singular = finite = missing = 0
    for fit in boundary_fits():
        if not fit.is_singular:
            continue
        singular += 1
        fitted, contrasts = fit.fitted, fixed_parts(fit)
        exact = satterthwaite_linear(contrasts, fitted.working, fitted.optimum)
        errors, adjusted = kenward_roger_linear(contrasts, fitted.working, fitted.optimum, reml=True)
        assert_explained(exact)
        assert_explained(adjusted)
        linear = contrasts.any(axis=1)
        assert (np.isfinite(errors) & np.isfinite(adjusted.values))[linear].all()
        assert (errors >= np.sqrt(np.einsum("ni,ij,nj->n", contrasts, fitted.estimates.P_inv, contrasts)))[linear].all()
        found = by_effect(fit)
        by_effect(fit, vcov="joint", order="first")
        if np.isnan(exact.values[linear]).all():
            missing += 1
            assert "the Hessian in natural parameters is not positive definite" in exact.reasons[0]
            assert found.isna().all()
        else:
            finite += 1
            np.testing.assert_allclose(
                found[list(LINEAR)],
                pd.Series(exact.values, index=terms_of(fit))[list(LINEAR)],
                rtol=DIFFERENCES,
            )
    assert singular >= 15
    assert finite >= 4
    assert missing >= 10


def test_quantities_that_the_model_fixes():
    fit = mlmed.mediate(MEDIATOR, "y ~ m + (1 | id)", mlmed.simulate.bpg(40, 6, seed=1).data)
    fitted = fit.fitted
    found = satterthwaite_effects(effects_of(fit), fitted.working, fitted.optimum, reml=True)
    assert_explained(found)
    reasons = dict(zip(terms_of(fit), found.reasons, strict=True))
    assert reasons["cprime"] == reasons["cov_ab"] == smallsample.FIXED
    assert reasons["indirect"] == ""
    exact = satterthwaite_linear(fixed_parts(fit), fitted.working, fitted.optimum)
    assert dict(zip(terms_of(fit), exact.reasons, strict=True))["cov_ab"] == smallsample.NO_FIXED_EFFECT


def test_options_are_checked(fit):
    for options, match in (({"vcov": "robust"}, "vcov must be"), ({"order": "third"}, "order must be")):
        with pytest.raises(EffectError, match=match):
            by_effect(fit, **options)


def test_full_likelihood_has_no_kenward_roger():
    fit = mlmed.mixed("y ~ m + x + (1 + m | id)", mlmed.simulate.bpg(30, 6, seed=2).data, method="ml")
    errors, df = kenward_roger_linear(np.eye(3), fit.fitted.working, fit.fitted.optimum, reml=False)
    assert np.isnan(errors).all()
    assert df.reasons == (kr.ONLY_REML,) * 3
    assert kr.scaled_f(np.eye(3), corrected(fit)).reason == kr.ONLY_REML
    assert np.isfinite(satterthwaite_linear(np.eye(3), fit.fitted.working, fit.fitted.optimum).values).all()


def test_tests_of_several_contrasts_that_do_not_exist(fit):
    found = corrected(fit)
    assert kr.scaled_f(np.array([[0.0, 1, 0, 0, 0], [0.0, 2, 0, 0, 0]]), found).reason == kr.DEPENDENT
    assert kr.scaled_f(np.zeros((1, 5)), found).reason == kr.DEPENDENT
    few = replace(found, W=40.0 * found.W)  # as if a fortieth of the clusters were there
    assert kr.scaled_f(np.eye(5), few).reason == kr.TOO_FEW
    assert kr.scaled_f(np.eye(5)[:1], few).df == pytest.approx(kr.scaled_f(np.eye(5)[:1], found).df / 40.0)
    unknown = replace(found, W=np.full_like(found.W, np.nan))
    assert np.isnan(kr.contrast_df(np.eye(5), unknown.plain, unknown.slopes, unknown.W)).all()


def test_residual_df_is_that_of_the_equation():
    data = unbalanced(3, 30, 6)
    with pytest.warns(DroppedRowsWarning):
        both = mlmed.mediate("m ~ x + (1 | id)", "y ~ m + x + (1 | id)", data.assign(y=data["y"].where(data.index > 4)))
    problem, n = both.fitted.working.problem, len(data)
    contrasts = np.array([[0.0, 1, 0, 0, 0], [0.0, 0, 0, 1, -1], [0.0, 1, 0, 1, 0], [0.0] * 5])
    overall = (n - 2) + (n - 5 - 3)
    assert residual_df(contrasts, problem).values.tolist() == [n - 2, n - 5 - 3, overall, overall]
    one = mlmed.mixed("y ~ m + x + (1 | id)", data)
    assert residual_df(np.eye(3), one.fitted.working.problem).values.tolist() == [n - 3] * 3
    assert infinite_df(2).values.tolist() == [np.inf, np.inf]
    assert infinite_df(2).reasons == ("", "")


# -- functions of the user, and the differences themselves -------------------------------------------------


def test_functions_of_the_user(fit):
    """Derivatives by numdifftools inside, extrapolated differences outside."""
    paths = find_paths(fit.fitted.layout, treatment="x")

    def written(estimates):
        return [combine("a*b + cov_ab", effect_quantities(paths, estimates))]

    found = satterthwaite_effects(written, fit.fitted.working, fit.fitted.optimum, reml=True)
    assert found.values[0] == pytest.approx(by_effect(fit)["indirect"], rel=1e-4)


def test_steps_that_leave_the_domain_drop_out(fit):
    """A function that is not defined a little further on is differentiated with shorter steps."""
    at, effects = fit.fitted.estimates, effects_of(fit)

    def bounded(estimates, room):
        if np.any(estimates.sigma2 > (1.0 + room) * at.sigma2):
            raise EffectError("outside the domain")
        return effects(estimates)[:1]

    def df(room):
        working, optimum = fit.fitted.working, fit.fitted.optimum
        return satterthwaite_effects(lambda there: bounded(there, room), working, optimum, reml=True)

    assert df(0.03).values[0] == pytest.approx(by_effect(fit)["a"], rel=1e-5)
    assert df(1e-9).reasons == (smallsample.ABRUPT,)


def test_forward_slopes():
    """Three smooth functions, one with a nearby pole, one that is NaN at long steps, one with no derivative."""

    def function(t):
        far = np.nan if t > 0.05 else t
        return np.array([np.exp(t), 1 / (1 + 9 * t), np.sin(3 * far), 1.0, np.sqrt(t)])

    slopes, errors = forward_slopes(function, function(0.0), 1.0)
    exact = np.array([1.0, -9.0, 3.0, 0.0])
    assert np.all(np.abs(slopes[:4] - exact) <= np.maximum(10.0 * errors[:4], 1e-11))
    np.testing.assert_allclose(slopes[:4], exact, rtol=1e-5, atol=1e-12)
    assert errors[4] > 0.1 * slopes[4]
