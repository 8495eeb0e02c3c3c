"""Degrees of freedom of effects, and where they do not exist."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.effects.delta import Quantity
from mlmed.effects.nlcom import combine
from mlmed.effects.paths import effect_quantities
from mlmed.effects.routes import find_routes
from mlmed.errors import BoundaryWarning, DroppedRowsWarning, EffectError
from mlmed.intervals import degrees as smallsample
from mlmed.intervals.degrees import (
    infinite_df,
    kenward_roger_linear,
    residual_df,
    satterthwaite_effects,
    satterthwaite_linear,
    slopes_at,
)
from mlmed.lmm import kenward_roger as kr
from mlmed.simulate import BPGTruth
from tests.models import MEDIATOR, OUTCOME
from tests.oracles import DEPENDENT, TOO_FEW, scaled_f
from tests.smallsample_models import (
    DIFFERENCES,
    INVARIANT,
    LINEAR,
    NUMDIFFTOOLS,
    assert_explained,
    by_effect,
    corrected,
    effects_of,
    fixed_parts,
    numdifftools_df,
    terms_of,
    unbalanced,
)

# -- effects -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fit():
    found = mlmed.mediate(MEDIATOR, OUTCOME, mlmed.simulate.bpg(60, 8, seed=21).data)
    assert not found.is_singular
    return found


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
        return [*beta, (beta[1] * beta[2]).named("product"), variance]

    fitted = fit.fit
    found = satterthwaite_effects(quantities, fitted.working, fitted.optimum, reml=fitted.reml, vcov="joint")
    assert_explained(found)
    np.testing.assert_allclose(found.values, numdifftools_df(fit, quantities, "joint", "second"), rtol=NUMDIFFTOOLS)
    plain = satterthwaite_effects(quantities, fitted.working, fitted.optimum, reml=fitted.reml)
    exact = satterthwaite_linear(np.eye(3), fitted.working, fitted.optimum)
    np.testing.assert_allclose(plain.values[:3], exact.values, rtol=DIFFERENCES)


def test_linear_effects_are_the_exact_ones(fit):
    exact = satterthwaite_linear(fixed_parts(fit), fit.fit.working, fit.fit.optimum)
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
        one, two = scaled_f(contrasts, ours), scaled_f(contrasts, theirs)
        assert (two.scale, two.df) == pytest.approx((one.scale, one.df), rel=INVARIANT)
    # units cancel in the ratio of adjusted to plain
    np.testing.assert_allclose(
        (np.diag(theirs.adjusted) / np.diag(theirs.plain))[[1, 3, 4]],
        (np.diag(ours.adjusted) / np.diag(ours.plain))[[1, 3, 4]],
        rtol=INVARIANT,
    )


# -- where things do not exist -------------------------------------------------------------------------------------


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
        fitted, contrasts = fit.fit, fixed_parts(fit)
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
    fitted = fit.fit
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
    errors, df = kenward_roger_linear(np.eye(3), fit.fit.working, fit.fit.optimum, reml=False)
    assert np.isnan(errors).all()
    assert df.reasons == (kr.ONLY_REML,) * 3
    assert scaled_f(np.eye(3), corrected(fit)).reason == kr.ONLY_REML
    assert np.isfinite(satterthwaite_linear(np.eye(3), fit.fit.working, fit.fit.optimum).values).all()


def test_tests_of_several_contrasts_that_do_not_exist(fit):
    found = corrected(fit)
    assert scaled_f(np.array([[0.0, 1, 0, 0, 0], [0.0, 2, 0, 0, 0]]), found).reason == DEPENDENT
    assert scaled_f(np.zeros((1, 5)), found).reason == DEPENDENT
    few = replace(found, W=40.0 * found.W)  # as if a fortieth of the clusters were there
    assert scaled_f(np.eye(5), few).reason == TOO_FEW
    assert scaled_f(np.eye(5)[:1], few).df == pytest.approx(scaled_f(np.eye(5)[:1], found).df / 40.0)
    unknown = replace(found, W=np.full_like(found.W, np.nan))
    assert np.isnan(kr.contrast_df(np.eye(5), unknown.plain, unknown.slopes, unknown.W)).all()


def test_residual_df_is_that_of_the_equation():
    data = unbalanced(3, 30, 6)
    with pytest.warns(DroppedRowsWarning):
        both = mlmed.mediate("m ~ x + (1 | id)", "y ~ m + x + (1 | id)", data.assign(y=data["y"].where(data.index > 4)))
    problem, n = both.fit.working.problem, len(data)
    contrasts = np.array([[0.0, 1, 0, 0, 0], [0.0, 0, 0, 1, -1], [0.0, 1, 0, 1, 0], [0.0] * 5])
    overall = (n - 2) + (n - 5 - 3)
    assert residual_df(contrasts, problem).values.tolist() == [n - 2, n - 5 - 3, overall, overall]
    one = mlmed.mixed("y ~ m + x + (1 | id)", data)
    assert residual_df(np.eye(3), one.fit.working.problem).values.tolist() == [n - 3] * 3
    assert infinite_df(2).values.tolist() == [np.inf, np.inf]
    assert infinite_df(2).reasons == ("", "")


# -- functions of the user, and the differences themselves ---------------------------------------------------------


def test_functions_of_the_user(fit):
    """Derivatives by numdifftools inside, extrapolated differences outside."""
    routes = find_routes(fit.fit.layout, treatment="x")

    def written(estimates):
        return [combine("a*b + cov_ab", effect_quantities(routes, estimates))]

    found = satterthwaite_effects(written, fit.fit.working, fit.fit.optimum, reml=True)
    assert found.values[0] == pytest.approx(by_effect(fit)["indirect"], rel=1e-4)


def test_steps_that_leave_the_domain_drop_out(fit):
    """A function that is not defined a little further on is differentiated with shorter steps."""
    at, effects = fit.fit.estimates, effects_of(fit)

    def bounded(estimates, room):
        if np.any(estimates.sigma2 > (1.0 + room) * at.sigma2):
            raise EffectError("outside the domain")
        return effects(estimates)[:1]

    def df(room):
        working, optimum = fit.fit.working, fit.fit.optimum
        return satterthwaite_effects(lambda there: bounded(there, room), working, optimum, reml=True)

    assert df(0.03).values[0] == pytest.approx(by_effect(fit)["a"], rel=1e-5)
    assert df(1e-9).reasons == (smallsample.ABRUPT,)


@pytest.mark.parametrize("both_ways", [False, True])
def test_slopes_at(both_ways):
    """Three smooth functions, one with a nearby pole, one that is NaN at long steps, one with no derivative."""

    def function(t):
        far = np.nan if abs(t) > 0.05 else t
        return np.array([np.exp(t), 1 / (1 + 9 * t), np.sin(3 * far), 1.0, np.sign(t) * np.sqrt(abs(t))])

    slopes, errors = slopes_at(function, function(0.0), 1.0, both_ways=both_ways)
    exact = np.array([1.0, -9.0, 3.0, 0.0])
    assert np.all(np.abs(slopes[:4] - exact) <= np.maximum(10.0 * errors[:4], 1e-11))
    np.testing.assert_allclose(slopes[:4], exact, rtol=1e-5, atol=1e-12)
    assert errors[4] > 0.1 * slopes[4]


def test_a_variance_without_a_slope_has_no_df():
    """A standard error that starts like a square root where the residual variance is: no step agrees with another."""
    one = mlmed.mixed("Med ~ X + (1 | group)", mlmed.datasets.load("yuan_mackinnon_sim")).fit
    s2, weight = one.estimates.sigma2[0], np.zeros(len(one.estimates.beta) + len(one.estimates.tau) + 1)
    weight[1] = 1.0

    def df(height):
        def kinked(estimates):
            gap = abs(float(estimates.sigma2[0] / s2 - 1.0))
            gap = gap if gap > 1e-12 else 0.0
            return [Quantity("slope", float(estimates.beta[1]), (1.0 + height * np.sqrt(gap)) * weight)]

        return satterthwaite_effects(kinked, one.working, one.optimum, reml=True)

    assert df(0.0).values[0] == pytest.approx(satterthwaite_linear(weight[None, :2], *pair_of(one)).values[0], rel=1e-6)
    assert np.isnan(df(1.0).values[0])
    assert df(1.0).reasons == (smallsample.ABRUPT,)


def pair_of(fitted):
    return fitted.working, fitted.optimum
