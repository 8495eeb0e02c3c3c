"""Both equations fitted together at a known correlation: derivatives, certificates, robust covariances."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import mlmed
from mlmed.effects.confounding import Jointly
from mlmed.effects.sensitivity import CONTRASTS, embedding
from mlmed.errors import EffectError, NotIdentifiedError
from mlmed.glm.endogenous import Margin, fit_pair
from mlmed.glm.fit import cluster_vcov, fit_glm, hc_vcov
from tests.sensitivity_models import (
    COVARIATES,
    ITERATED,
    PAIRS,
    SOLVED,
    Array,
    margins,
    pair_from,
    simulated,
)
from tests.tolerances import DERIVATIVE, SAME


@pytest.fixture(scope="module")
def framing(dataset):
    return dataset("framing")


@pytest.mark.parametrize("families", PAIRS)
def test_the_joint_fit_against_numerical_derivatives(families):
    import numdifftools as nd

    first, second = margins(simulated(families, n=200, rho=0.5, seed=3)[0])
    rho, p = 0.6, first.X.shape[1]
    fit = fit_pair(first, second, rho)
    k = p + second.X.shape[1]

    def of_rows(v: Array) -> Array:
        e1 = (first.y - first.X @ v[:p]) / np.exp(v[k])
        if second.family == "linear":
            e2 = (second.y - second.X @ v[p:k]) / np.exp(v[k + 1])
            density = stats.multivariate_normal([0.0, 0.0], [[1.0, rho], [rho, 1.0]]).logpdf(np.column_stack([e1, e2]))
            return density - v[k] - v[k + 1]
        q = (2.0 * second.y - 1.0) * (second.X @ v[p:k] + rho * e1) / np.sqrt(1.0 - rho**2)
        return stats.norm.logpdf(e1) - v[k] + stats.norm.logcdf(q)

    def loglik(v: Array) -> float:
        return float(of_rows(v).sum())

    at = np.concatenate([fit.first, fit.second, np.log(fit.scales)])
    assert loglik(at) == pytest.approx(fit.loglik, rel=SAME)
    assert nd.Gradient(loglik)(at) == pytest.approx(0.0, abs=DERIVATIVE)
    information = np.linalg.inv(fit.vcov)
    size = np.sqrt(np.diag(information))
    assert -nd.Hessian(loglik)(at) / np.outer(size, size) == pytest.approx(
        information / np.outer(size, size), abs=DERIVATIVE
    )
    assert fit.certificate.newton_decrement < 1e-20
    assert fit.scores.sum(axis=0) == pytest.approx(0.0, abs=SOLVED)
    row = 7  # scores are row by row
    assert fit.scores[row] == pytest.approx(nd.Gradient(lambda v: of_rows(v)[row])(at), abs=DERIVATIVE)


@pytest.mark.parametrize("families", PAIRS)
def test_the_joint_fit_is_found_from_anywhere_and_near_the_ends(families):
    first, second = margins(simulated(families, n=200, rho=0.5, seed=3)[0])
    ends = [fit_pair(first, second, rho) for rho in (-0.999, 0.999)]
    for rho in (-0.99, -0.2, 0.5, 0.999):
        fits = [fit_pair(first, second, rho, start=start) for start in (None, *ends)]
        for fit in fits[1:]:
            assert np.concatenate([fit.first, fit.second]) == pytest.approx(
                np.concatenate([fits[0].first, fits[0].second]), rel=ITERATED, abs=ITERATED
            )
            assert fit.loglik == pytest.approx(fits[0].loglik, rel=SAME)


def test_the_joint_fit_does_not_depend_on_units():
    pair = simulated(("probit", "linear"), n=200, rho=0.5, seed=3)[0]
    first, second = margins(pair)
    fit = fit_pair(first, second, 0.4)
    X = first.X.copy()
    X[:, 3] = 1e6 + 1e-3 * X[:, 3]
    moved = fit_pair(Margin("linear", 5.0 + 1e4 * first.y, X), second, 0.4)
    assert moved.second == pytest.approx(fit.second, rel=1e-6)  # X is collinear to 1e-9
    assert moved.first[1:3] == pytest.approx(1e4 * fit.first[1:3], rel=1e-6)
    assert moved.first[3] == pytest.approx(1e7 * fit.first[3], rel=1e-6)


def test_joint_fits_that_cannot_be():
    one, y = np.ones((20, 1)), np.linspace(0.0, 1.0, 20)
    with pytest.raises(EffectError, match="between -1 and 1, both excluded; found 1"):
        fit_pair(Margin("linear", y, one), Margin("linear", y**2, one), 1.0)
    with pytest.raises(EffectError, match="found probit and linear"):
        fit_pair(Margin("probit", np.round(y), one), Margin("linear", y, one), 0.0)
    with pytest.raises(NotIdentifiedError, match="without error"):
        fit_pair(Margin("linear", 2.0 * one[:, 0], one), Margin("linear", y, one), 0.0)
    with pytest.raises(NotIdentifiedError, match="no certified optimum"):
        fit_pair(Margin("linear", y, one), Margin("probit", one[:, 0], one), 0.3)


# -- equations that share not all predictors, and robust covariances -------------------------------------------


@pytest.mark.parametrize(("y", "family"), [("immigr", "linear"), ("cong_mesg", "probit")])
def test_a_predictor_of_the_mediator_only(framing, y, family):
    """Then the likelihood at rho is not that of two separate fits, and says something about rho."""
    outcome = f"{y} ~ emo + treat + age + educ + gender"
    fit = mlmed.causal(f"emo ~ {COVARIATES}", outcome, framing, treatment="treat", family_y=family)
    pair = pair_from(fit)
    assert embedding(pair) is None
    result = fit.sensitivity(rho=[-0.4, 0.0, 0.4])
    assert "columns that the outcome's lacks" in " ".join(result.notes)
    assert result.at(0.0)["acme"] == pytest.approx(fit.effects().set_index("term")["estimate"]["acme"], abs=1e-12)
    curve = Jointly(pair)
    logliks = [curve.fit(rho).loglik for rho in (-0.4, 0.0, 0.4)]
    assert np.ptp(logliks) > 1e-3
    nested = mlmed.causal(f"emo ~ {COVARIATES}", f"{outcome} + income", framing, treatment="treat", family_y=family)
    joint = Jointly(pair_from(nested))
    assert np.ptp([joint.fit(rho).loglik for rho in (-0.4, 0.0, 0.4)]) < SOLVED  # nothing is said of rho


def test_more_predictors_of_the_outcome_do_no_harm(framing):
    fit = mlmed.causal("emo ~ treat + age", f"immigr ~ emo + {COVARIATES}", framing, treatment="treat")
    assert fit.sensitivity(rho=[0.4]).notes == ()
    assert fit.sensitivity(rho=[0.4]).at(0.4)["acme"] == pytest.approx(Jointly(pair_from(fit)).cells(0.4) @ [
        -0.5, 0.5, -0.5, 0.5
    ], rel=SOLVED)  # fmt: skip


def test_columns_that_agree_in_the_data_but_not_under_treatment(framing):
    """A product made before the fit does not follow the treatment, so the equations are fitted together."""
    data = framing.assign(both=framing["treat"] * framing["age"])
    fit = mlmed.causal("emo ~ treat + age + treat:age", "immigr ~ emo + treat + age + both", data, treatment="treat")
    assert embedding(pair_from(fit)) is None
    fit = mlmed.causal("emo ~ treat * age", "immigr ~ emo + treat * age", data, treatment="treat")
    assert embedding(pair_from(fit)) is not None


def test_robust_covariances_of_the_joint_fit():
    pair = simulated(("linear", "linear"), n=200, rho=0.3, seed=8)[0]
    codes = np.arange(200) // 5
    p = len(pair.mediator.beta)
    fits = [fit_glm("linear", e.y, e.X, names=tuple("abcd")[: e.X.shape[1]], response="y") for e in (
        pair.mediator, pair.outcome
    )]  # fmt: skip
    for curve, expected in (
        (Jointly(pair, robust=True), [hc_vcov(fit, "HC0") for fit in fits]),
        (Jointly(pair, codes), [cluster_vcov(fit, codes) for fit in fits]),
        (Jointly(pair, codes, corrected=False), [cluster_vcov(fit, codes, corrected=False) for fit in fits]),
    ):
        V = curve.delta(0.0)[1]
        assert V[:p, :p] == pytest.approx(expected[0], rel=SOLVED, abs=1e-14)
        k = p + len(pair.outcome.beta)
        assert V[p:k, p:k] == pytest.approx(expected[1], rel=SOLVED, abs=1e-14)
    few = Jointly(pair, np.arange(200) // 50)  # fewer clusters than parameters
    G, V = few.delta(0.2)
    assert np.linalg.matrix_rank(V) == 3
    drawn = few.draws(np.array([0.2]), 4000, np.random.default_rng(1))[0] @ CONTRASTS["indirect"][2]
    g = CONTRASTS["indirect"][2] @ G
    assert drawn.std() == pytest.approx(np.sqrt(g @ V @ g), rel=0.1)


def test_a_robust_probit_mediator_says_what_it_is(framing):
    outcome = "immigr ~ anti_info + treat + age"
    options = {"treatment": "treat", "family_m": "probit"}
    plain = mlmed.causal("anti_info ~ treat + age", outcome, framing, **options).sensitivity(rho=[0.2])
    robust = mlmed.causal("anti_info ~ treat + age", outcome, framing, **options, vcov="HC3").sensitivity(rho=[0.2])
    assert plain.notes == ()
    assert "HC3 is HC0 here" in robust.notes[0]
    same = mlmed.causal("anti_info ~ treat + age", outcome, framing, **options, vcov="HC0").sensitivity(rho=[0.2])
    assert same.notes == ()
    assert same.table["std_error"].tolist() == robust.table["std_error"].tolist()
    assert robust.table["std_error"].to_numpy() != pytest.approx(plain.table["std_error"].to_numpy(), rel=1e-3)
    clustered = mlmed.causal("anti_info ~ treat + age", outcome, framing, **options, cluster="age")
    errors = clustered.sensitivity(rho=[0.2]).table["std_error"]
    assert np.all(errors > 0.0)
    CR0 = mlmed.causal("anti_info ~ treat + age", outcome, framing, **options, cluster="age", vcov="CR0")
    J = framing.dropna(subset=["anti_info", "immigr", "treat", "age"])["age"].nunique()
    factor = CR0.sensitivity(rho=[0.2]).table["std_error"] / errors
    assert factor.to_numpy() == pytest.approx(np.sqrt((J - 1) / J), rel=1e-9)


def test_curves_do_not_keep_a_number_per_row():
    """32 correlations of 200,000 rows would be half a gigabyte of scores."""
    curve = Jointly(simulated(("probit", "linear"), n=400, rho=0.3, seed=8)[0], np.arange(400) // 10)
    curve.delta(0.3)
    assert len(curve.fits[0.3].scores) == 0
    assert curve.roots[0.3].size < 400
