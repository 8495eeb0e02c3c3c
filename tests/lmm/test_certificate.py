"""What the certificate must refuse, each reason alone."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.errors import BoundaryWarning
from mlmed.lmm.objective import objective_for
from mlmed.lmm.optimum import certify, multiplier, optimize
from mlmed.numerics.certificate import GRADIENT, Certificate, below
from mlmed.numerics.newton import NewtonSettings, newton
from tests.models import working

#: The slope of -2l in a variance, from sums of squares.
LITERAL = 1e-9


def one_way(ratio: float, *, n_clusters: int = 20, n_rows: int = 5) -> tuple[pd.DataFrame, float]:
    """A balanced one-way layout with mean squares 'between = ratio * within', and its residual variance at G = 0."""
    rng = np.random.default_rng(2)
    within = rng.normal(size=(n_clusters, n_rows))
    within -= within.mean(axis=1, keepdims=True)
    between = rng.normal(size=n_clusters)
    between -= between.mean()
    square = (within**2).sum() / (n_clusters * (n_rows - 1))
    between *= np.sqrt(ratio * square / (n_rows * (between**2).sum() / (n_clusters - 1)))
    y = (within + between[:, None]).ravel()
    pooled = (y**2).sum() / (len(y) - 1)
    return pd.DataFrame({"id": np.repeat(np.arange(n_clusters), n_rows), "y": y}), float(pooled)


@pytest.mark.parametrize(("ratio", "optimal"), [(0.5, True), (3.0, False)])
def test_a_boundary_point_is_an_optimum_only_if_leaving_it_does_not_pay(ratio, optimal):
    """The best point without a random effect: stationary and curved there; only the multiplier can tell."""
    data, pooled = one_way(ratio)
    made = working(data, "y ~ 1 + (1 | id)")
    whole = objective_for(made.problem, made.blocks, reml=True)
    face = replace(whole, basis=whole.basis[:0])
    _, point, _ = newton(face, np.zeros(1), NewtonSettings())
    lowest, step = multiplier(made.problem, made.blocks, np.zeros((1, 1)), point.natural)

    # REML with V = s2 I + v ZZ' at v = 0 and Z'1 = 5 in each cluster, -2l' = tr(P ZZ') - y'P ZZ'P y
    n, total = 5, 100
    sums = data.groupby("id")["y"].sum().to_numpy()
    slope = (total - n) / pooled - (sums**2).sum() / pooled**2
    curvature = 20 * (n / pooled) ** 2  # tr(V^-1 ZZ' V^-1 ZZ')
    assert lowest == pytest.approx(slope / np.sqrt(curvature), rel=LITERAL)
    assert (lowest > 0.0) == optimal
    assert abs(lowest) > 1.0
    # the step that the slope suggests, in the user's units
    assert step[0, 0] * made.units.Z_map[0, 0] ** 2 == pytest.approx(max(-slope / curvature, 0.0), rel=LITERAL)

    found = certify(point, lowest)
    assert found.gradient_norm < 1e-8
    assert found.newton_decrement < 1e-12
    assert found.smallest_curvature > 0.5
    assert found.converged == optimal
    assert ("multiplier -" in found.complaint) == (not optimal)


def test_a_promise_of_a_newton_step_is_refused():
    """Gradients below their bound may still promise something where coordinates trade off: g'H^-1 g."""
    data, _ = one_way(3.0)
    made = working(data, "y ~ 1 + (1 | id)")
    found = optimize(made.problem, made.blocks, reml=True)
    objective = objective_for(made.problem, made.blocks, reml=True)
    theta = np.append(found.L[0, 0], 0.5 * np.log(found.sigma2))
    point = objective.derivatives(theta)
    assert certify(point, 0.0).converged
    for promised, certified in ((1e-9, True), (1e-7, False)):
        small = 5e-6
        traded = 1.0 - 2.0 * small**2 / promised  # (1, -1) has the curvature 1 - traded
        flat = replace(point, gradient=small * np.array([1.0, -1.0]), hessian=np.array([[1.0, traded], [traded, 1.0]]))
        judged = certify(flat, 0.0)
        assert judged.newton_decrement == pytest.approx(promised, rel=1e-6)
        assert judged.converged == certified


@pytest.mark.parametrize(("gradient", "certified"), [(5e-6, True), (2e-5, False)])
@pytest.mark.parametrize("unit", [1.0, 1e4, 1e-4])
def test_a_gradient_alone_is_refused_in_any_units(gradient, certified, unit):
    """In standard errors: a coordinate in other units has another slope and curvature, and the same verdict."""
    data, _ = one_way(3.0)
    made = working(data, "y ~ 1 + (1 | id)")
    found = optimize(made.problem, made.blocks, reml=True)
    objective = objective_for(made.problem, made.blocks, reml=True)
    point = objective.derivatives(np.append(found.L[0, 0], 0.5 * np.log(found.sigma2)))
    steep = replace(point, gradient=np.array([gradient * unit, 0.0]), hessian=np.diag([unit**2, unit**2]))
    judged = certify(steep, 0.0)
    assert judged.gradient_norm == pytest.approx(gradient, rel=1e-12)
    assert judged.newton_decrement < 1e-9
    assert judged.converged == certified


@pytest.mark.parametrize(
    ("curvature", "residual", "words"),
    [
        (0.5, 1e-8, "a residual variance goes to zero (1.0e-08 of the variance of its response)"),
        (-3.1, 1.0, "curves downwards in some direction (scaled curvature -3.1e+00)"),
        (1e-9, 1.0, "flat in some direction"),
        (0.5, 1.0, "gradient 1.0e-02"),
    ],
)
def test_what_is_wrong_in_words(curvature, residual, words):
    data, _ = one_way(3.0)
    made = working(data, "y ~ 1 + (1 | id)")
    found = optimize(made.problem, made.blocks, reml=True)
    point = objective_for(made.problem, made.blocks, reml=True).derivatives(np.zeros(2))
    traded = 1.0 - curvature  # the smallest eigenvalue is the curvature
    bent = replace(point, gradient=np.array([1e-2, 0.0]), hessian=np.array([[1.0, traded], [traded, 1.0]]))
    judged = certify(bent, 0.0, residual=residual)
    assert not judged.converged
    assert words in judged.complaint
    assert not found.certificate.complaint


def test_a_certificate_needs_evidence():
    """No checks, or a value that is no number, certify nothing."""
    assert not Certificate().converged
    assert not Certificate((below(GRADIENT, float("nan"), 1e-5),)).converged
    assert np.isnan(Certificate().gradient_norm)


def test_a_correlation_near_one_is_not_taken_for_one():
    """Slopes are intercepts plus 0.0026, which the rows can tell: one effect for both is worse by chi2 = 17."""
    rng = np.random.default_rng(8)
    u0 = rng.normal(size=300)
    u1 = u0 + 0.0026 * rng.normal(size=300)
    id_ = np.repeat(np.arange(300), 40)
    x = rng.normal(size=len(id_))
    data = pd.DataFrame({"id": id_, "x": x, "y": u0[id_] + (1.0 + u1[id_]) * x + 0.02 * rng.normal(size=len(id_))})
    both = mlmed.mixed("y ~ x + (1 + x | id)", data)
    assert both.converged
    assert both.fit.optimum.rank == 2
    G = both.G.to_numpy()
    within = np.array([-1.0, 1.0])
    assert within @ G @ within == pytest.approx(0.0026**2, rel=0.5)  # four standard errors from 0
    one = mlmed.mixed("y ~ x + (0 + z | id)", data.assign(z=1.0 + data["x"]))
    assert both.llf - one.llf > 5.0


@pytest.mark.parametrize("order", range(3))
@pytest.mark.parametrize(("apart", "sd", "n_clusters"), [(0.001, 0.001, 100), (0.0022, 0.015, 300)])
def test_effects_that_hardly_differ_are_certified(apart, sd, n_clusters, order):
    """Slopes are intercepts and a little: the model with z = 1 + x apart from the little one has other coordinates."""
    rng = np.random.default_rng(8)
    u0 = rng.normal(size=n_clusters)
    u1 = u0 + apart * rng.normal(size=n_clusters)
    id_ = np.repeat(np.arange(n_clusters), 40)
    x = rng.normal(size=len(id_))
    data = pd.DataFrame({"id": id_, "x": x, "y": u0[id_] + (1.0 + u1[id_]) * x + sd * rng.normal(size=len(id_))})
    data = data.assign(z=1.0 + x).sample(frac=1.0, random_state=order)
    fit = mlmed.mixed("y ~ x + (1 + x | id)", data)
    other = mlmed.mixed("y ~ x + (0 + z + x | id)", data)  # u0 + u1 x = u0 z + (u1 - u0) x
    assert fit.converged
    assert other.converged
    assert fit.fit.optimum.rank == other.fit.optimum.rank == 2
    # 4,000 and more rows whose residual is a millionth of the variance of y
    assert fit.llf == pytest.approx(other.llf, rel=0, abs=1e-3)


@pytest.mark.parametrize("excess", [1e-3, 1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize(("n_clusters", "n_rows"), [(200, 100), (50, 20)])
def test_a_variance_of_next_to_nothing_is_certified(excess, n_clusters, n_rows):
    """Mean squares in the ratio 1 + excess: the estimate is excess / n of the residual variance, or 0."""
    data, _ = one_way(1.0 + excess, n_clusters=n_clusters, n_rows=n_rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        fit = mlmed.mixed("y ~ 1 + (1 | id)", data)
    assert fit.converged
    expected = excess * fit.sigma2.iloc[0] / n_rows if not fit.is_singular else 0.0
    assert fit.G.iloc[0, 0] == pytest.approx(expected, rel=1e-3)
    assert fit.is_singular == (excess < 1e-5)
