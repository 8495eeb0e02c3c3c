"""Resamplers: each replicate is the problem of rows that could have been drawn one by one."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product as combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import mlmed
from mlmed.data.design import build_design
from mlmed.data.grams import Grams, accumulate, rebased
from mlmed.data.layout import Design
from mlmed.data.rows import row_products, unit_rows
from mlmed.errors import DataError, FormulaError
from mlmed.fit.lmm import LmmFit, fit_model
from mlmed.formula import parse_equation
from mlmed.lmm.estimates import Estimates, loglik_at, to_estimates
from mlmed.lmm.optimum import optimize
from mlmed.lmm.problem import Problem
from mlmed.lmm.resample import case_resampler, within_case_resampler
from mlmed.lmm.rowwise import reflated_modes, residual_resampler, row_parametric_resampler
from mlmed.lmm.simulation import WorkingPoint, at_optimum, parametric_resampler
from mlmed.lmm.working import assemble, assembly_for, build_working, cluster_cross
from mlmed.system.system import System
from tests.models import MEDIATOR, OUTCOME, random_point, with_factors
from tests.oracles import drawn_products, working_point
from tests.tolerances import SAME

BOTH = (MEDIATOR, OUTCOME)
#: Two fits of the same rows in different working units: the criterion of either is exact to rounding (size 1e3),
#: and Newton's last step leaves the estimates with half the digits of a decrement far below 1e-9.
REFIT = 1e-8
#: Sums of the same rows in two orders and two units.
SUMS = 1e-9
#: Standard errors that a Monte Carlo mean may be off. Seeds are fixed; among some 200 means the largest of
#: independent normal errors is above 4.5 once in 700 runs.
SIGMAS = 4.5
#: Smallest p value of a Kolmogorov-Smirnov test, with fixed seeds and at most 40 tests per case.
SMALLEST_P = 5e-4


def fitted(data: pd.DataFrame, formulas: Sequence[str] = BOTH, **options: Any) -> LmmFit:
    """Fit, leaving warnings aside."""
    spec = System(tuple(parse_equation(text, data.columns) for text in formulas), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mlmed.errors.MlmedWarning)
        return fit_model(spec, data)


def with_gaps(data: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """A fifth of y and a seventh of w missing, so that m is sometimes observed outside its equation."""
    rng = np.random.default_rng(seed)
    keep_y, keep_w = rng.random(len(data)) > 0.2, rng.random(len(data)) > 1 / 7
    return data.assign(y=data["y"].where(keep_y), w=data["w"].where(keep_w))


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """60 clusters of 10, x far from zero, with factors, a covariate and a variable of the clusters."""
    data = with_factors(mlmed.simulate.bpg(60, 10, seed=3).data, seed=5)
    return data.assign(x=data["x"] + 20.0, h=data.groupby("id")["x"].transform("mean").round(1))


@pytest.fixture(scope="module")
def uneven(frame: pd.DataFrame) -> pd.DataFrame:
    """Clusters of 1, 2, ..., 10 rows in turn, in mixed order."""
    place = frame.groupby("id").cumcount()
    return frame[place <= (frame["id"] - 1) % 10].sample(frac=1.0, random_state=1).reset_index(drop=True)


# -- cases -----------------------------------------------------------------------------------------------------


def relabelled(data: pd.DataFrame, ids: Sequence[Any]) -> pd.DataFrame:
    """Rows of the listed clusters, every copy a cluster of its own."""
    return pd.concat([data[data["id"] == old].assign(id=new) for new, old in enumerate(ids)], ignore_index=True)


def same_as_refit(fit: LmmFit, problem: Problem, rows: pd.DataFrame, formulas: Sequence[str]) -> None:
    """The criterion at one point, and all estimates."""
    other = fitted(rows, formulas)
    working = replace(fit.working, problem=problem)
    L, sigma2 = random_point(np.random.default_rng(1), problem.n_random, problem.n_strata)
    assert list(problem.nobs) == list(other.working.problem.nobs)
    assert loglik_at(working, L, sigma2, reml=True) == pytest.approx(
        loglik_at(other.working, L, sigma2, reml=True), rel=REFIT
    )
    made = to_estimates(working, optimize(problem, working.blocks, reml=True), reml=True)
    assert made.loglik == pytest.approx(other.estimates.loglik, rel=REFIT)
    for name in ("beta", "tau", "sigma2"):
        expected = getattr(other.estimates, name)
        np.testing.assert_allclose(getattr(made, name), expected, rtol=REFIT, atol=REFIT * np.abs(expected).max())


CASES = {
    "complete": (BOTH, False),
    "gaps": (("m ~ x + w + (1 + x | id)", OUTCOME), True),
    "one equation": (("m ~ x + g + (1 + x | id)",), False),
    "no intercept": (("m ~ 0 + x + w + (1 | id)",), True),
}


@pytest.mark.parametrize("case", CASES)
def test_drawn_clusters_are_those_of_their_rows(frame: pd.DataFrame, case: str) -> None:
    """A replicate equals the fit of the concatenated rows."""
    formulas, gaps = CASES[case]
    data = with_gaps(frame, seed=2) if gaps else frame
    fit = fitted(data, formulas)
    resampler = case_resampler(fit.spec, fit.grams)
    index = resampler.draw_index(np.random.default_rng(4))
    assert index.shape == (60,)
    assert len(set(index)) < 60
    same_as_refit(fit, resampler.at(index), relabelled(data, list(fit.clusters[index])), formulas)


def test_a_cluster_can_be_left_out(frame: pd.DataFrame) -> None:
    """The jackknife equals a fit without its rows."""
    fit = fitted(frame)
    resampler = case_resampler(fit.spec, fit.grams)
    same_as_refit(fit, resampler.without(7), frame[frame["id"] != fit.clusters[7]], BOTH)


def test_every_cluster_once_is_the_data(frame: pd.DataFrame) -> None:
    """Also in another order; C by cluster adds up to C."""
    fit = fitted(with_gaps(frame, seed=2), ("m ~ x + w + (1 + x | id)", OUTCOME))
    problem = fit.working.problem
    resampler = case_resampler(fit.spec, fit.grams)
    order = np.random.default_rng(1).permutation(60)
    again = resampler.at(order)
    np.testing.assert_array_equal(again.A, problem.A[:, :, order])
    np.testing.assert_array_equal(again.B, problem.B[:, :, order])
    np.testing.assert_allclose(again.C, problem.C, rtol=SAME, atol=SAME * np.abs(problem.C).max())
    np.testing.assert_array_equal(again.nobs, problem.nobs)
    one = resampler.at(np.array([3]))
    np.testing.assert_array_equal(one.C, cluster_cross(assembly_for(fit.spec, fit.grams), fit.grams.products)[..., 3])


# -- rows within cases -----------------------------------------------------------------------------------------


def used_rows(data: pd.DataFrame, fit: LmmFit) -> pd.DataFrame:
    """Rows that some equation uses, in the order of the design."""
    complete = [data[sorted(equation.variables)].notna().all(axis=1) for equation in fit.spec.equations]
    return data[np.logical_or.reduce(complete)].reset_index(drop=True)


@pytest.mark.parametrize("case", CASES)
def test_drawn_rows_are_those_rows(frame: pd.DataFrame, uneven: pd.DataFrame, case: str) -> None:
    """Cross-products of the rows taken by hand, and the fit of them."""
    formulas, gaps = CASES[case]
    data = with_gaps(frame, seed=2) if gaps else uneven
    fit = fitted(data, formulas)
    resampler = within_case_resampler(fit.spec, fit.grams, build_design(fit.spec, data))
    index, rows = resampler.draw_rows(np.random.default_rng(5))
    taken = used_rows(data, fit).iloc[resampler.order[rows]]
    slot = np.repeat(np.arange(60), resampler.size[index])
    np.testing.assert_array_equal(fit.clusters.get_indexer(taken["id"]), index[slot])
    assert taken.index.duplicated().any()
    by_hand = taken.assign(id=slot).reset_index(drop=True)
    grams = accumulate(build_design(fit.spec, by_hand))
    assert grams.patterns == fit.grams.patterns
    expected = assemble(
        assembly_for(fit.spec, fit.grams),
        rebased(replace(grams, layout=fit.grams.layout), fit.grams.shift, fit.grams.scale),
    )
    same_problem(resampler.at(index, rows), expected)
    same_as_refit(fit, resampler.at(index, rows), by_hand, formulas)


def same_problem(left: Problem, right: Problem) -> None:
    """All arrays, relative to the largest entry of each."""
    for name in ("A", "B", "C", "nobs"):
        expected = getattr(right, name)
        np.testing.assert_allclose(getattr(left, name), expected, rtol=SUMS, atol=SUMS * np.abs(expected).max())


def test_rows_are_drawn_evenly(uneven: pd.DataFrame) -> None:
    """Every row is expected once per replicate, whatever the size of its cluster."""
    fit = fitted(uneven)
    resampler = within_case_resampler(fit.spec, fit.grams, build_design(fit.spec, uneven))
    rng = np.random.default_rng(6)
    draws = 3000
    counts = sum(np.bincount(resampler.draw_rows(rng)[1], minlength=len(uneven)) for _ in range(draws))
    # a cluster is drawn about Poisson(1) times; then each of its n rows is drawn Binomial(n, 1/n) times
    error = np.sqrt(draws * (1.0 + 1.0 - 1.0 / np.repeat(resampler.size, resampler.size)))
    assert np.abs((counts - draws) / error).max() < SIGMAS


# -- the model, row by row, in the user's units ------------------------------------------------------------------


class RowSimulation:
    """The model written out on rows, with nothing of the engine: raw columns, estimates in the user's units."""

    def __init__(self, design: Design, grams: Grams, estimates: Estimates) -> None:
        self.design, self.grams, self.estimates = design, grams, estimates
        values, vectors = np.linalg.eigh(estimates.G)
        self.root = vectors * np.sqrt(np.clip(values, 0.0, None))

    def respond(self, u: np.ndarray, noise: Callable[[int, int], np.ndarray]) -> list[np.ndarray]:
        """Columns with new responses; ``noise(equation, n)`` gives standard normal values."""
        columns = [np.nan_to_num(column) for column in self.design.values]
        first_p = first_q = 0
        for r, equation in enumerate(self.design.layout.equations):
            beta = self.estimates.beta[first_p : first_p + len(equation.fixed)]
            own = u[first_q : first_q + len(equation.random), self.design.codes]
            first_p, first_q = first_p + len(equation.fixed), first_q + len(equation.random)
            mean = sum(b * columns[k] for b, k in zip(beta, equation.fixed_at, strict=True))
            mean = mean + sum(b * columns[k] for b, k in zip(own, equation.random_at, strict=True))
            new = mean + np.sqrt(self.estimates.sigma2[r]) * noise(r, len(mean))
            k = equation.response_at
            columns[k] = np.where(self.design.members[r], new, columns[k])
        return columns

    def products(self, columns: Sequence[np.ndarray]) -> np.ndarray:
        """Sums of products of the columns in the units of the Grams, (P, K * (K + 1) / 2, J)."""
        changed = replace(self.design, values=tuple(columns))
        units = [(c - s) / t for c, s, t in zip(changed.values, self.grams.shift, self.grams.scale, strict=True)]
        rows = unit_rows(self.design, self.grams)
        used = np.array([self.design.layout.used[list(own)].any(axis=0) for own in self.grams.patterns])
        return row_products(rows, [np.where(used[rows.pattern, k], c[rows.order], 0.0) for k, c in enumerate(units)])

    def draw_products(self, rng: np.random.Generator) -> np.ndarray:
        """One replicate."""
        u = self.root @ rng.standard_normal((len(self.root), len(self.design.clusters)))
        return self.products(self.respond(u, lambda _, n: rng.standard_normal(n)))


MODELS: dict[str, tuple[Sequence[str], dict[str, Any], bool]] = {
    "plain": (BOTH, {}, False),
    "covariates and a factor": (("m ~ x + w + g + (1 + x | id)", "y ~ m + x + w + (1 + m | id)"), {}, False),
    "a variable of the clusters": (("m ~ x + h + (1 + x | id)", "y ~ m + x + h + (1 + m | id)"), {}, False),
    "gaps": (("m ~ x + w + (1 + x | id)", OUTCOME), {}, True),
    "no intercepts": (("m ~ 0 + x + w + (0 + x | id)", "y ~ 0 + m + x + (0 + m | id)"), {}, True),
    "one scale": (("m ~ x + (1 + x || id)", "y ~ m + x + (1 + m | id)"), {}, False),
    "identity": (BOTH, {"covariance": "identity"}, False),
    "one equation": (("y ~ x * w + m + (1 + x | id)",), {}, True),
}


@pytest.fixture(scope="module", params=MODELS)
def setting(request: pytest.FixtureRequest, uneven: pd.DataFrame) -> tuple[LmmFit, Design, pd.DataFrame]:
    """A model on clusters of 1 to 10 rows: more columns than rows in the small ones."""
    formulas, options, gaps = MODELS[request.param]
    data = with_gaps(uneven, seed=2) if gaps else uneven
    fit = fitted(data, formulas, **options)
    return fit, build_design(fit.spec, data), data


def draws(make: Callable[[np.random.Generator], np.ndarray], n: int, seed: int) -> np.ndarray:
    """Replicates from one stream, (n, ...)."""
    rng = np.random.default_rng(seed)
    return np.array([make(rng) for _ in range(n)])


def test_draws_from_products_have_the_distribution_of_rows(setting: tuple[LmmFit, Design, pd.DataFrame]) -> None:
    """Means of all entries, and whole distributions of some, of the two parametric resamplers and of plain rows."""
    fit, design, data = setting
    point = at_optimum(fit.optimum)
    reference = draws(RowSimulation(design, fit.grams, fit.estimates).draw_products, 2000, seed=1)
    varies = reference.std(axis=0) > 1e-9
    resamplers = (
        parametric_resampler(fit.spec, fit.grams, point),
        row_parametric_resampler(fit.spec, fit.grams, point, design, data),
    )
    for seed, resampler in enumerate(resamplers, start=2):
        found = draws(partial(drawn_products, resampler), 2000, seed=seed)
        np.testing.assert_allclose(
            found[0][~varies], reference[0][~varies], rtol=SUMS, atol=SUMS, err_msg="exogenous products are constant"
        )
        left, right = found[:, varies], reference[:, varies]
        error = np.sqrt((left.var(axis=0) + right.var(axis=0)) / 2000)
        z = (left.mean(axis=0) - right.mean(axis=0)) / error
        assert np.abs(z).max() < SIGMAS + 0.5  # a few thousand of them, and skew
        assert (z**2).mean() == pytest.approx(1.0, abs=0.35)
        for statistic in joint_statistics(fit, found, reference):
            assert stats.ks_2samp(*statistic).pvalue > SMALLEST_P


def joint_statistics(fit: LmmFit, *both: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Entries and functions of several entries of clusters of 1, 2, 3, 4 and 10 rows, for both sets of draws."""
    response = fit.layout.equations[-1].response_at
    first = fit.layout.equations[0].response_at
    pairs = [(response, response), (response, first), (response, 0), (first, first)]
    sizes = fit.grams.rows_per_cluster
    for size in (1, 2, 3, 4, int(sizes.max())):
        j = int(np.flatnonzero(sizes == size)[0])
        for i, k in {(max(pair), min(pair)) for pair in pairs}:
            entry = i * (i + 1) // 2 + k
            yield tuple(found[:, :, entry, j].sum(axis=1) for found in both)
        if len(fit.grams.patterns) > 1:  # random effects are shared by the patterns
            yield tuple(np.prod(found[:, :, response * (response + 1) // 2, j][:, :2], axis=1) for found in both)
    yield tuple(found[:, :, response * (response + 1) // 2].sum(axis=(1, 2)) for found in both)


def test_expected_products_are_exact(uneven: pd.DataFrame) -> None:
    """Means of all entries against their expectation: degree 4 in u, so three Gauss-Hermite nodes per effect."""
    fit = fitted(uneven)
    design = build_design(fit.spec, uneven)
    simulation = RowSimulation(design, fit.grams, fit.estimates)
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    expected = 0.0
    for chosen in combinations(range(3), repeat=5):
        u = np.repeat((simulation.root @ nodes[list(chosen)])[:, None], 60, axis=1)
        weight = np.prod(weights[list(chosen)]) / (2 * np.pi) ** 2.5
        expected = expected + weight * given_effects(simulation, u)
    found = draws(
        partial(drawn_products, parametric_resampler(fit.spec, fit.grams, at_optimum(fit.optimum))), 6000, seed=7
    )
    spread = found.std(axis=0)
    varies = spread > 1e-9
    z = ((found.mean(axis=0) - expected)[varies] / spread[varies]) * np.sqrt(6000)
    assert np.abs(z).max() < SIGMAS
    assert (z**2).mean() == pytest.approx(1.0, abs=0.35)  # entries are correlated within clusters
    np.testing.assert_allclose(found.mean(axis=0)[~varies], expected[~varies], rtol=SUMS, atol=SUMS)


def given_effects(simulation: RowSimulation, u: np.ndarray) -> np.ndarray:
    """Expectation over the residuals given u: the products without noise, plus the variances that e adds to them."""
    mean = simulation.products(simulation.respond(u, lambda r, n: np.zeros(n)))
    m, y = (equation.response_at for equation in simulation.design.layout.equations)
    n = mean[:, 0]
    scale, (s_m, s_y) = simulation.grams.scale, simulation.estimates.sigma2
    slope = simulation.estimates.beta[3] + u[3]
    out = mean.copy()
    high, low = max(m, y), min(m, y)
    out[:, m * (m + 1) // 2 + m] += n * s_m / scale[m] ** 2
    out[:, high * (high + 1) // 2 + low] += n * slope * s_m / (scale[m] * scale[y])
    out[:, y * (y + 1) // 2 + y] += n * (slope**2 * s_m + s_y) / scale[y] ** 2
    return out


def unpacked(products: np.ndarray, K: int) -> np.ndarray:
    """Products of one pattern as matrices, (..., J) -> (..., J, K, K)."""
    high, low = np.maximum.outer(np.arange(K), np.arange(K)), np.minimum.outer(np.arange(K), np.arange(K))
    return np.moveaxis(products[..., high * (high + 1) // 2 + low, :], -1, -3)


THREE = ("m ~ x + (1 | id)", "w ~ m + x + (1 | id)", "y ~ m + w + x + (1 + w | id)")


def test_residual_sums_of_squares_are_chi_squared(uneven: pd.DataFrame) -> None:
    """Three equations in a chain; regressing on columns that hold Z leaves sigma2 chi2(n - k), and 0 for n <= k."""
    spec = System(tuple(map(parse_equation, THREE)))
    grams = accumulate(build_design(spec, uneven))
    working = build_working(spec, grams.layout, grams)
    G = 0.3 * np.eye(4) + 0.1
    sigma2 = np.array([0.5, 2.0, 0.1])
    beta = np.array([1.0, 0.3, -1.0, 0.5, 0.2, 2.0, 0.4, 0.5, -0.1])
    point = working_point(working.units, beta, G, sigma2)
    found = draws(partial(drawn_products, parametric_resampler(spec, grams, point)), 1500, seed=8)[:, 0]
    cross = unpacked(found, len(grams.columns))  # (draws, J, K, K)
    places = [equation.response_at for equation in grams.layout.equations]
    sizes = grams.rows_per_cluster
    regressors = [0, grams.columns.index("x")]
    for r, at in enumerate(places):
        k = len(regressors)
        for size in range(1, 11):
            part = cross[:, sizes == size]
            left = part[..., at, at].copy()
            if size > k:
                block = part[..., regressors, :][..., regressors]
                side = part[..., regressors, :][..., at]
                left -= np.einsum("...i,...i", side, np.linalg.solve(block, side[..., None])[..., 0])
                left *= (grams.scale[at] ** 2) / sigma2[r]
                assert stats.kstest(left.ravel(), stats.chi2(size - k).cdf).pvalue > SMALLEST_P
            else:
                whole = [*regressors, at]
                values = np.linalg.eigvalsh(part[..., whole, :][..., whole])
                assert (values > 1e-9 * values[..., -1:]).sum(axis=-1).max() <= size
        regressors.append(at)


def test_without_noise_the_products_are_those_of_the_regression(uneven: pd.DataFrame) -> None:
    """G = 0 and (nearly) no residual variance: m* = X beta, y* from it, in all patterns."""
    data = with_gaps(uneven, seed=2)
    fit = fitted(data, ("m ~ x + w + (1 + x | id)", OUTCOME))
    design = build_design(fit.spec, data)
    estimates = replace(fit.estimates, G=np.zeros((5, 5)), sigma2=np.zeros(2))
    simulation = RowSimulation(design, fit.grams, estimates)
    expected = simulation.products(simulation.respond(np.zeros((5, 60)), lambda r, n: np.zeros(n)))
    point = working_point(fit.working.units, estimates.beta, estimates.G, np.full(2, 1e-24))
    for resampler in (
        parametric_resampler(fit.spec, fit.grams, point),
        row_parametric_resampler(fit.spec, fit.grams, point, design),
    ):
        found = drawn_products(resampler, np.random.default_rng(1))
        np.testing.assert_allclose(found, expected, rtol=SUMS, atol=SUMS * np.abs(expected).max())


def test_a_mediator_outside_its_equation_stays_as_observed(uneven: pd.DataFrame) -> None:
    """Rows without w have no mediator equation; their m is a given predictor of y."""
    data = with_gaps(uneven, seed=2)
    fit = fitted(data, ("m ~ x + w + (1 + x | id)", OUTCOME))
    design = build_design(fit.spec, data)
    outside = fit.grams.patterns.index((False, True))
    m = fit.layout.equations[0].response_at
    point = at_optimum(fit.optimum)
    for resampler in (
        parametric_resampler(fit.spec, fit.grams, point),
        row_parametric_resampler(fit.spec, fit.grams, point, design),
        residual_resampler(fit.spec, fit.grams, point, design),
    ):
        found = drawn_products(resampler, np.random.default_rng(1))
        own = m * (m + 1) // 2 + m
        same = np.isclose(found[:, own], fit.grams.products[:, own], rtol=SAME, atol=SAME).all(axis=1)
        assert [p for p, kept in enumerate(same) if kept] == [outside]


def test_points_go_to_working_units_and_back(frame: pd.DataFrame) -> None:
    """The estimates in the user's units are the optimum."""
    fit = fitted(frame)
    own, units = fit.estimates, fit.working.units
    point, expected = working_point(units, own.beta, own.G, own.sigma2), at_optimum(fit.optimum)
    np.testing.assert_allclose(point.beta, expected.beta, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(point.L @ point.L.T, expected.L @ expected.L.T, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(point.sigma2, expected.sigma2, rtol=SAME)


# -- residuals ---------------------------------------------------------------------------------------------------


def test_reflated_residuals_have_the_estimated_variances(setting: tuple[LmmFit, Design, pd.DataFrame]) -> None:
    """Covariance of the modes exactly G, standard deviation of the residuals exactly sigma, both centred."""
    fit, design, data = setting
    resampler = residual_resampler(fit.spec, fit.grams, at_optimum(fit.optimum), design, data)
    G = fit.optimum.L @ fit.optimum.L.T
    covariance = resampler.modes @ resampler.modes.T / resampler.modes.shape[1]
    np.testing.assert_allclose(covariance, G, rtol=SAME, atol=SAME * np.abs(G).max())
    np.testing.assert_allclose(resampler.modes.mean(axis=1), 0.0, atol=SAME)
    assert resampler.missing.shape == (len(G), 0)
    for pool, sigma2, n in zip(resampler.pools, fit.optimum.sigma2, fit.working.problem.nobs, strict=True):
        assert pool.values.shape == (1, n)
        assert pool.values.std() == pytest.approx(np.sqrt(sigma2), rel=SAME)
        assert pool.values.mean() == pytest.approx(0.0, abs=SAME)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_singular_covariances_are_matched_in_their_range(frame: pd.DataFrame, rank: int) -> None:
    """G of lower rank, by zero columns of its factor or otherwise."""
    fit = fitted(frame)
    problem, optimum = fit.working.problem, fit.optimum
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
    for L in (optimum.L * (np.arange(5) < rank), optimum.L * (np.arange(5) < rank) @ turn):
        point = WorkingPoint(optimum.evaluation.beta, L, optimum.sigma2)
        modes = modes_at(problem, point)
        reflated, missing = reflated_modes(problem, point, modes)
        np.testing.assert_allclose(reflated @ reflated.T / 60, L @ L.T, rtol=1e-8, atol=SAME)
        assert missing.shape[1] == 0


def modes_at(problem: Problem, point: WorkingPoint) -> np.ndarray:
    """E(u | y) from dense matrices: G Z'V^-1 (y - X beta) with V^-1 by Woodbury, cluster by cluster."""
    G = point.L @ point.L.T
    contrast = np.append(-point.beta, 1.0)
    weight = 1.0 / point.sigma2[problem.stratum]
    out = []
    for j in range(problem.n_clusters):
        A, b = weight[:, None] * problem.A[:, :, j], weight * (problem.B[:, :, j] @ contrast)
        out.append(np.linalg.solve(np.eye(len(G)) + G @ A, G @ b))
    return np.array(out).T


def test_directions_that_few_clusters_cannot_span_are_drawn(frame: pd.DataFrame) -> None:
    """Four clusters give three directions of five; normal draws add what is missing of G."""
    data = frame[frame["id"] <= 4]
    fit = fitted(frame)
    design = build_design(fit.spec, data)
    grams = accumulate(design)
    working = build_working(fit.spec, grams.layout, grams)
    point = working_point(working.units, fit.estimates.beta, fit.estimates.G, fit.estimates.sigma2)
    resampler = residual_resampler(fit.spec, grams, point, design)
    assert resampler.missing.shape == (5, 2)
    total = resampler.modes @ resampler.modes.T / 4 + resampler.missing @ resampler.missing.T
    np.testing.assert_allclose(total, point.L @ point.L.T, rtol=1e-8, atol=SAME)
    assert np.isfinite(resampler.draw(np.random.default_rng(1)).B).all()


def test_last_digits_do_not_turn_what_few_clusters_cannot_span(frame: pd.DataFrame) -> None:
    """Eigenvectors of zero eigenvalues are any, and rows in another order have others."""
    fit = fitted(frame)

    def missing(data: pd.DataFrame) -> np.ndarray:
        design = build_design(fit.spec, data)
        grams = accumulate(design)
        units = build_working(fit.spec, grams.layout, grams).units
        point = working_point(units, fit.estimates.beta, fit.estimates.G, fit.estimates.sigma2)
        return residual_resampler(fit.spec, grams, point, design).missing

    data = frame[frame["id"] <= 4]
    first = missing(data)
    for key in range(3):
        mixed = data.sample(frac=1.0, random_state=key).sort_values("id", kind="stable")
        np.testing.assert_allclose(missing(mixed), first, atol=1e-8)


#: Outcome columns of every kind that follow the mediator: with a factor, transformed, centred, random.
DERIVED = ("m ~ x + w + (1 | id)", "y ~ m * g + I(m**2) + np.sin(m):k + (1 + m:k | id)")
CENTRED = ("m ~ x + w + (1 | id)", "y ~ scale(m) + center(m):x + x + (1 + center(m) | id)")


def test_columns_made_of_the_mediator_are_encoded_again(frame: pd.DataFrame) -> None:
    """A table made by hand from the same effects and residuals has the same cross-products."""
    data = with_gaps(frame, seed=2).sample(frac=1.0, random_state=3).reset_index(drop=True)
    fit = fitted(data, DERIVED)
    design = build_design(fit.spec, data)
    model = row_parametric_resampler(fit.spec, fit.grams, at_optimum(fit.optimum), design, data).model
    rng = np.random.default_rng(9)
    u, noise = rng.normal(size=(3, 60)), [rng.normal(size=len(own)) for own in model.members]
    raw, scale, beta = fit.working.units.Z_map @ u, fit.grams.scale, fit.estimates.beta
    table = used_rows(data, fit)
    m, y = fit.layout.equations
    own = model.rows.order[model.members[0]]
    mean = beta[0] + beta[1] * table["x"] + beta[2] * table["w"] + raw[0, design.codes]
    table.loc[own, "m"] = mean[own] + scale[m.response_at] * noise[0]
    columns = build_design(fit.spec, table).values  # with the new mediator
    own = model.rows.order[model.members[1]]
    mean = sum(b * columns[k] for b, k in zip(beta[3:], y.fixed_at, strict=True))
    mean = mean + sum(b * columns[k] for b, k in zip(raw[1:, design.codes], y.random_at, strict=True))
    table.loc[own, "y"] = mean[own] + scale[y.response_at] * noise[1]
    by_hand = accumulate(build_design(fit.spec, table))
    assert by_hand.columns == fit.grams.columns
    order = by_hand.clusters.get_indexer(fit.clusters)
    expected = rebased(by_hand, fit.grams.shift, fit.grams.scale)[..., order]
    found = model.squared(model.columns(u, noise))
    np.testing.assert_allclose(found, expected, rtol=SUMS, atol=SUMS * np.abs(expected).max())
    assert np.abs(found - fit.grams.products).max() > 1.0


def test_observed_effects_and_residuals_give_the_data_back(frame: pd.DataFrame) -> None:
    """Conditional modes and raw residuals reproduce every product, also where columns are encoded again."""
    data = with_gaps(frame, seed=2)
    for formulas in (BOTH, DERIVED, CENTRED):
        fit = fitted(data, formulas)
        point = at_optimum(fit.optimum)
        model = row_parametric_resampler(fit.spec, fit.grams, point, build_design(fit.spec, data), data).model
        u = modes_at(fit.working.problem, point)
        found = model.squared(model.columns(u, model.residuals(u)))
        np.testing.assert_allclose(found, fit.grams.products, rtol=SUMS, atol=SUMS * np.abs(found).max())


def test_centres_of_the_mediator_are_those_of_the_fit(frame: pd.DataFrame) -> None:
    """center(m) subtracts the mean of the observed m from every simulated one, so coefficients keep their meaning."""
    formulas = (MEDIATOR, "y ~ center(m) + m:w + x + (1 | id)")
    fit = fitted(frame, formulas)
    design = build_design(fit.spec, frame)
    resampler = residual_resampler(fit.spec, fit.grams, at_optimum(fit.optimum), design, frame)
    found = drawn_products(resampler, np.random.default_rng(1))[0]
    columns, shift, scale = fit.grams.columns, fit.grams.shift, fit.grams.scale
    m, centred = columns.index("m"), columns.index("center(m)")
    total = [shift[k] * len(frame) + scale[k] * found[k * (k + 1) // 2].sum() for k in (m, centred)]
    assert total[0] - total[1] == pytest.approx(frame["m"].sum(), rel=SUMS)


# -- refusals ----------------------------------------------------------------------------------------------------

NEED_ROWS = {
    "y ~ m:w + m + x + (1 | id)": "m:w",
    "y ~ m + I(m**2) + (1 | id)": r"I\(m \*\* 2\)",
    "y ~ m + x + (1 + m:w | id)": "m:w",
    "y ~ center(m) + x + (1 | id)": r"center\(m\)",
}


@pytest.mark.parametrize("outcome", NEED_ROWS)
def test_columns_made_of_the_mediator_need_rows(frame: pd.DataFrame, outcome: str) -> None:
    """Named in the message; the resamplers of rows ask for the table and then serve."""
    fit = fitted(frame, (MEDIATOR, outcome))
    point, design = at_optimum(fit.optimum), build_design(fit.spec, frame)
    with pytest.raises(DataError, match=f"{NEED_ROWS[outcome]}.*computed from m.*row_parametric_resampler"):
        parametric_resampler(fit.spec, fit.grams, point)
    for make in (row_parametric_resampler, residual_resampler):
        with pytest.raises(DataError, match="pass the table of the fit"):
            make(fit.spec, fit.grams, point, design)
        with pytest.raises(DataError, match="rows, that of the design"):
            make(fit.spec, fit.grams, point, design, frame[:-1])
        drawn = make(fit.spec, fit.grams, point, design, frame).draw(np.random.default_rng(1))
        assert optimize(drawn, fit.working.blocks, reml=True).certificate.converged


IMPOSSIBLE = [
    (("np.log(pos) ~ x + (1 | id)", "y ~ np.log(pos) + pos + (1 | id)"), "only a transformation is simulated"),
    (("k ~ x + (1 | id)", "y ~ k + C(k):x + (1 | id)"), "treats k as a factor"),
    (("y ~ m + x + (1 | id)", "m ~ x + (1 | id)"), "write the equations in causal order"),
    (("m ~ x + (1 | id)", "y ~ m + mean + (1 | id)"), "'mean' .* holds the cluster means of m"),
]


@pytest.mark.parametrize(("formulas", "message"), IMPOSSIBLE, ids=[message for _, message in IMPOSSIBLE])
def test_what_cannot_be_simulated_is_refused(frame: pd.DataFrame, formulas: Sequence[str], message: str) -> None:
    """No draw is better than a wrong one; whole clusters can always be drawn."""
    data = frame.assign(mean=frame.groupby("id")["m"].transform("mean"))
    fit = fitted(data, formulas)
    with pytest.raises(DataError, match=message):
        residual_resampler(fit.spec, fit.grams, at_optimum(fit.optimum), build_design(fit.spec, data), data)
    with pytest.raises(DataError):
        parametric_resampler(fit.spec, fit.grams, at_optimum(fit.optimum))
    assert case_resampler(fit.spec, fit.grams).draw(np.random.default_rng(1)).n_clusters == 60


def test_a_transformed_mediator_is_simulated_as_such(frame: pd.DataFrame) -> None:
    """log(pos) is one column of both equations."""
    fit = fitted(frame, ("np.log(pos) ~ x + (1 | id)", "y ~ np.log(pos) + x + (1 | id)"))
    drawn = parametric_resampler(fit.spec, fit.grams, at_optimum(fit.optimum)).draw(np.random.default_rng(1))
    assert optimize(drawn, fit.working.blocks, reml=True).certificate.converged


def test_a_transformation_may_fail_on_simulated_values(frame: pd.DataFrame) -> None:
    """The logarithm of a mediator that the model lets be negative."""
    data = frame.assign(m=frame["m"] - frame["m"].min() + 0.01)
    fit = fitted(data, (MEDIATOR, "y ~ m + np.log(m) + x + (1 | id)"))
    resampler = row_parametric_resampler(
        fit.spec, fit.grams, at_optimum(fit.optimum), build_design(fit.spec, data), data
    )
    with pytest.raises(FormulaError, match=r"np.log\(m\) in equation y with simulated m is not a finite number"):
        draws(partial(drawn_products, resampler), 20, seed=1)


@pytest.mark.parametrize("change", ["values", "clusters", "missing", "columns"])
def test_rows_of_other_data_are_refused(frame: pd.DataFrame, change: str) -> None:
    """Before anything is drawn."""
    fit = fitted(frame)
    other = {
        "values": frame.assign(x=frame["x"].to_numpy()[::-1]),
        "clusters": frame[frame["id"] != 3],
        "missing": frame.assign(y=frame["y"].where(frame.index > 5)),
        "columns": frame,
    }[change]
    spec = System(tuple(map(parse_equation, (MEDIATOR, "y ~ m + w + (1 | id)")))) if change == "columns" else fit.spec
    with pytest.raises(DataError, match="not those that the cross-products were made from"):
        within_case_resampler(spec, fit.grams, build_design(spec, other))


# -- all of them ---------------------------------------------------------------------------------------------------


def every_resampler(fit: LmmFit, design: Design, data: pd.DataFrame) -> dict[str, Any]:
    """One of each kind; those of rows encode again where they have to."""
    point = at_optimum(fit.optimum)
    made: dict[str, Any] = {
        "case": case_resampler(fit.spec, fit.grams),
        "within": within_case_resampler(fit.spec, fit.grams, design),
        "rows": row_parametric_resampler(fit.spec, fit.grams, point, design, data),
        "residual": residual_resampler(fit.spec, fit.grams, point, design, data),
    }
    if fit.spec.equations[1].text == OUTCOME:
        made["parametric"] = parametric_resampler(fit.spec, fit.grams, point)
    return made


@pytest.mark.parametrize("formulas", [BOTH, DERIVED], ids=["plain", "derived"])
def test_draws_depend_on_the_generator_only(frame: pd.DataFrame, formulas: Sequence[str]) -> None:
    """The same stream gives the same problem, from a copy that went through pickle too; another one another."""
    data = with_gaps(frame, seed=2)
    fit = fitted(data, formulas)
    before = fit.grams.products.copy()
    for name, resampler in every_resampler(fit, build_design(fit.spec, data), data).items():
        first = resampler.draw(np.random.default_rng(1))
        copied = pickle.loads(pickle.dumps(resampler)).draw(np.random.default_rng(1))
        other = resampler.draw(np.random.default_rng(2))
        for key in ("A", "B", "C", "nobs", "stratum"):
            np.testing.assert_array_equal(getattr(first, key), getattr(copied, key), err_msg=name)
        assert not np.array_equal(first.B, other.B)
        assert optimize(first, fit.working.blocks, reml=True).certificate.converged
    np.testing.assert_array_equal(fit.grams.products, before)


def test_draws_centre_on_the_estimates(frame: pd.DataFrame) -> None:
    """Refits of simulated problems have the estimates as their mean (fixed effects are nearly unbiased)."""
    fit = fitted(frame)
    design = build_design(fit.spec, frame)
    working = fit.working
    for name in ("parametric", "rows", "residual"):
        resampler = every_resampler(fit, design, frame)[name]
        rng = np.random.default_rng(3)
        found = []
        for _ in range(60):
            problem = resampler.draw(rng)
            optimum = optimize(problem, working.blocks, reml=True)
            found.append(to_estimates(replace(working, problem=problem), optimum, reml=True).beta)
        error = np.std(found, axis=0) / np.sqrt(60)
        assert np.abs((np.mean(found, axis=0) - fit.estimates.beta) / error).max() < SIGMAS, name


def test_clusters_of_grams_from_an_engine(frame: pd.DataFrame) -> None:
    """Grams whose clusters are in another order than the rows'."""
    data = frame.assign(id="s" + frame["id"].astype(str)).sample(frac=1.0, random_state=1)
    import duckdb
    import pyarrow as pa

    relation = duckdb.connect().from_arrow(pa.Table.from_pandas(data, preserve_index=False))
    spec = System(tuple(map(parse_equation, BOTH)))
    fit = fit_model(spec, relation)
    design = build_design(spec, data)
    assert list(design.clusters) != list(fit.clusters)
    resampler = residual_resampler(spec, fit.grams, at_optimum(fit.optimum), design)
    u = modes_at(fit.working.problem, at_optimum(fit.optimum))
    found = resampler.model.squared(resampler.model.columns(u, resampler.model.residuals(u)))
    np.testing.assert_allclose(found, fit.grams.products, rtol=SUMS, atol=SUMS * np.abs(found).max())
    expected = residual_resampler(
        spec, accumulate(design), at_optimum(fitted(data).optimum), design
    )  # the same pools, in units and order of their own
    for left, right in zip(resampler.pools, expected.pools, strict=True):
        assert left.values.std() == pytest.approx(right.values.std(), rel=1e-6)
