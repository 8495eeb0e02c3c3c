"""Slopes up to 1,000 residual sds: the criterion from roots of the rows, its optimum, and what is made of it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import mlmed
import mlmed.data.grams as data_grams
from mlmed.data.design import build_design
from mlmed.data.grams import Grams, accumulate, product_roots, rest_share
from mlmed.data.roots import roots_from_rows, triangular_roots
from mlmed.errors import DataError
from mlmed.formula import parse_equation
from mlmed.lmm.criterion import evaluate
from mlmed.lmm.kenward_roger import moments
from mlmed.lmm.percluster import cluster_products, cluster_terms, psi_basis
from mlmed.lmm.problem import Problem
from mlmed.lmm.ranef import conditional_modes, mode_law
from mlmed.lmm.rowwise import reflated_modes
from mlmed.lmm.sandwich import pseudo_rows
from mlmed.lmm.simulation import WorkingPoint
from mlmed.lmm.start import natural_jacobian
from mlmed.lmm.working import Working, build_working, only_effects
from mlmed.system.system import System
from tests.exact_density import Exact, ExactValue, digits, exact, exact_density, mediation_rows
from tests.models import random_point
from tests.slopes_models import MEDIATOR, OUTCOME, gappy, steep

#: Two ways to the same number where neither loses digits.
SAME = 1e-11
#: -2l in decimals and in doubles: y holds 1e-16 of its 1e6 residual sds, 400 of them.
VALUE = 1e-7
#: Derivatives along coordinates of unit curvature: the certificate asks for 1e-5.
SLOPE = 1e-7
#: Second derivatives scaled to unit diagonal: standard errors to six digits.
CURVATURE = 1e-6
#: What an independent search may gain in -2l.
BEATEN = 1e-6


def spec_of(data: pd.DataFrame, method: str = "reml") -> System:
    return System(tuple(parse_equation(text, data.columns) for text in (MEDIATOR, OUTCOME)), method)


def built(data: pd.DataFrame, method: str = "reml") -> tuple[Working, Grams]:
    spec = spec_of(data, method)
    design = build_design(spec, data)
    grams = accumulate(design)
    return build_working(spec, design.layout, grams), grams


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Roots for ordinary data, too."""
    monkeypatch.setattr(data_grams, "FEW_DIGITS", 2.0)


# -- roots ---------------------------------------------------------------------------------------------------


def test_triangular_roots_are_those_of_lapack() -> None:
    """Cluster by cluster, up to signs; a column that others make up leaves a row of zeros."""
    rng = np.random.default_rng(1)
    codes = rng.integers(4, size=40)
    columns = rng.normal(size=(3, 40)) * [[1.0], [1e6], [1e-6]] + rng.normal(size=40)
    found = triangular_roots([*columns, columns[0] - columns[1]], codes, 4)
    for j in range(4):
        expected = np.linalg.qr(columns[:, codes == j].T, mode="r")
        expected *= np.sign(np.diag(expected))[:, None]
        assert found[j, :3, :3] == pytest.approx(expected, rel=1e-12, abs=1e-9)
        assert found[j, 3, 3] == 0.0


def test_ordinary_data_have_no_roots() -> None:
    """They cost nothing where they are not needed."""
    working, grams = built(steep(1, 3.0))
    assert grams.roots is None
    assert working.problem.roots is None


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("given", [False, True], ids=["best beta", "given beta"])
def test_roots_and_products_agree(everywhere: None, method: str, given: bool) -> None:
    """Where products keep their digits both ways give the same value and derivatives."""
    working, _ = built(gappy(steep(1, 3.0, clusters=12, rows=6)))
    problem, reml = working.problem, method == "reml"
    assert problem.roots is not None
    G, sigma2 = random_point(np.random.default_rng(0), 5, 2)
    beta = 0.1 * np.arange(5.0) if given else None
    one, other = (evaluate(p, np.linalg.cholesky(G), sigma2, reml=reml, beta=beta) for p in (problem, bare(problem)))
    for name in ("value", "beta", "P_inv", "gradient", "hessian", "information", "beta_gradient", "spread"):
        close(getattr(one, name), getattr(other, name))


def bare(problem: Problem) -> Problem:
    """The same without roots."""
    return replace(problem, roots=None)


def close(found: object, expected: object) -> None:
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    assert np.abs(found - expected).max() <= SAME * np.abs(expected).max()


def test_everything_else_agrees(everywhere: None) -> None:
    """Scores, sums for small samples, conditional modes and their law, pseudo-rows, reflated modes, fewer effects."""
    working, grams = built(gappy(steep(1, 3.0, clusters=12, rows=6)))
    both, units = (working.problem, bare(working.problem)), working.units
    G, sigma2 = random_point(np.random.default_rng(0), 5, 2)
    L, beta, products = np.linalg.cholesky(G), 0.1 * np.arange(5.0), cluster_products(working, grams)
    every, basis = slice(None), psi_basis(working.problem, working.blocks)
    J = natural_jacobian(working.problem, working.blocks)
    pairs = {
        ("cross", "trace", "moved", "information"): [
            cluster_terms(p, products, basis, L, sigma2, every, information=True) for p in both
        ],
        ("P_inv", "moved", "twice", "trace"): [moments(p, L, sigma2, J) for p in both],
        ("modes", "covariances"): [conditional_modes(p, L, sigma2, beta, units.Z_map) for p in both],
        ("modes", "covariances", "slide"): [mode_law(p, L, sigma2, beta, units) for p in both],
    }
    for names, (one, other) in pairs.items():
        for name in names:
            close(getattr(one, name), getattr(other, name))
    rows, others = (pseudo_rows(p, products, sigma2, every) for p in both)
    close(rows.transpose(0, 2, 1) @ rows, others.transpose(0, 2, 1) @ others)
    modes, point = conditional_modes(both[1], L, sigma2, beta, np.eye(5)).modes, WorkingPoint(beta, L, sigma2)
    close(reflated_modes(both[0], point, modes)[0], reflated_modes(both[1], point, modes)[0])
    fewer = only_effects(working, np.array([0, 1, 2, 4])).problem
    assert fewer.roots is not None
    close(*(evaluate(p, L[:4, :4], sigma2).hessian for p in (fewer, bare(fewer))))


# -- the criterion -------------------------------------------------------------------------------------------


def exact_point(working: Working, L: np.ndarray, sigma2: np.ndarray) -> tuple[Exact, Exact]:
    """(G, sigma2) in the user's units, without rounding."""
    root = exact(working.units.Z_map).dot(exact(L))
    return root.dot(root.T), exact(sigma2) * exact(working.units.y_scale) ** 2


def working_slopes(working: Working, at: ExactValue) -> Exact:
    """Derivatives in working (vec G, sigma2)."""
    Z_map = exact(working.units.Z_map)
    return np.concatenate([Z_map.T.dot(at.of_G).dot(Z_map).ravel(), at.of_sigma2 * exact(working.units.y_scale) ** 2])


@pytest.mark.parametrize("sd", [30.0, 300.0, 1000.0])
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_criterion_in_fifty_digits(sd: float, method: str) -> None:
    """Value, beta, gradient and columns of the Hessian against decimal arithmetic on the rows themselves."""
    data, reml = steep(0, sd, clusters=8, rows=7), method == "reml"
    working, _ = built(data, method)
    units, problem = working.units, working.problem
    size = np.array([1.0, sd, 1.0, sd, sd])
    root = np.linalg.cholesky(np.outer(size, size) * (0.6 * np.eye(5) + 0.4))
    L, sigma2 = np.linalg.solve(units.Z_map, root), np.array([1.1, 0.9]) / units.y_scale**2
    found = evaluate(problem, L, sigma2, reml=reml)
    J = natural_jacobian(problem, working.blocks)
    hessian = J.T @ found.hessian @ J
    unit = 1.0 / np.sqrt(np.abs(np.diag(hessian)))
    with digits():
        rows, (G, variances) = mediation_rows(data), exact_point(working, L, sigma2)
        expected = exact_density(rows, G, variances, reml=reml)
        shift = units.criterion_shift(problem.nobs, reml=reml)
        assert abs(Decimal(found.value + shift) - expected.value) < VALUE
        beta = exact(units.offset) + exact(units.X_map).dot(exact(found.beta))
        errors = np.sqrt(np.diag(expected.P_inv.astype(float)))
        assert ((beta - expected.beta).astype(float) / errors) == pytest.approx(np.zeros(5), abs=SLOPE)
        slopes = exact(J.T).dot(exact(found.gradient) - working_slopes(working, expected)).astype(float) * unit
        assert slopes == pytest.approx(np.zeros(len(slopes)), abs=SLOPE)
        G_w, step = exact(L).dot(exact(L).T), Decimal(10) ** -14

        def slope(move: Exact) -> Exact:
            moved = exact(units.Z_map).dot(G_w + move[:25].reshape(5, 5)).dot(exact(units.Z_map).T)
            there = (exact(sigma2) + move[25:]) * exact(units.y_scale) ** 2
            return exact(J.T).dot(working_slopes(working, exact_density(rows, moved, there, reml=reml)))

        for column in (0, 6, len(unit) - 1):  # a variance, a covariance, a residual variance
            move = step * exact(J[:, column] * unit[column])
            numeric = ((slope(move) - slope(-move)) / (2 * step)).astype(float) * unit
            assert hessian[:, column] * unit * unit[column] == pytest.approx(numeric, abs=CURVATURE)


# -- the optimum ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sd", [30.0, 100.0, 300.0, 1000.0])
def test_huge_slopes_are_certified(sd: float) -> None:
    """Every data set; before, 18, 0, 0 and 0 of 20."""
    fits = [mlmed.mediate(MEDIATOR, OUTCOME, steep(seed, sd)) for seed in range(12)]
    assert all(fit.converged and not fit.is_singular for fit in fits)
    spread = np.sqrt([np.diag(fit.fit.estimates.G)[[1, 3, 4]] for fit in fits]) / sd
    assert spread.mean(axis=0) == pytest.approx(np.ones(3), abs=0.15)  # sd of a mean of 12 sds of 40: .03
    assert np.mean([fit.sigma2 for fit in fits]) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("sd", [100.0, 1000.0])
def test_no_other_search_finds_a_better_optimum(sd: float) -> None:
    """L-BFGS on the dense density of the rows from near and far; what it finds is judged in decimals."""
    data = steep(4, sd, clusters=20, rows=8)
    fit = mlmed.mediate(MEDIATOR, OUTCOME, data)
    size = np.array([1.0, sd, 1.0, sd, sd])
    own = np.linalg.cholesky(fit.fit.estimates.G) / size[:, None]
    dense, lower = DenseDensity(data, size), np.tril_indices(5)
    near = np.append(own[lower], 0.5 * np.log(fit.fit.estimates.sigma2))
    rng = np.random.default_rng(0)
    starts = [near + rng.normal(0.0, 0.05, 17), np.append(np.eye(5)[lower], [0.0, 0.0])]
    for start in starts:
        end = minimize(dense, start, jac=True, method="L-BFGS-B", options={"maxiter": 300, "ftol": 1e-13}).x
        with digits():
            L = exact(size)[:, None] * exact(lower_of(end[:15]))
            there = exact_density(mediation_rows(data), L.dot(L.T), exact(np.exp(2.0 * end[15:])), reml=True)
        assert -2.0 * fit.llf - float(there.value) < BEATEN


def lower_of(entries: np.ndarray) -> np.ndarray:
    out = np.zeros((5, 5))
    out[np.tril_indices(5)] = entries
    return out


class DenseDensity:
    """-2l and its gradient from the covariance matrix of all rows of a cluster, in extended precision."""

    def __init__(self, data: pd.DataFrame, size: np.ndarray) -> None:
        rows = mediation_rows(data)
        self.Z, self.Xy = (np.array([getattr(one, name) for one in rows]).astype(np.longdouble) for name in ("Z", "Xy"))
        self.equation, self.size = rows[0].equation, size.astype(np.longdouble)

    def __call__(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        L, sigma2 = lower_of(theta[:15]) * self.size[:, None], np.exp(2.0 * theta[15:].astype(np.longdouble))
        half = self.Z @ L
        V = half @ half.transpose(0, 2, 1)
        n = V.shape[1]
        V[:, np.arange(n), np.arange(n)] += sigma2[self.equation]
        inverse, logdet = swept(V)
        moved = inverse @ self.Xy
        S = (self.Xy.transpose(0, 2, 1) @ moved).sum(axis=0)
        P_inv, log_P = (part[0] for part in swept(S[None, :5, :5]))
        contrast = np.append(-P_inv @ S[:5, 5], np.longdouble(1.0))
        value = logdet.sum() + contrast @ S @ contrast + log_P + (V.shape[0] * n - 5) * np.log(2.0 * np.pi)
        weight = np.outer(contrast, contrast)
        weight[:5, :5] += P_inv
        U = self.Z.transpose(0, 2, 1) @ moved
        of_G = (self.Z.transpose(0, 2, 1) @ inverse @ self.Z - U @ weight @ U.transpose(0, 2, 1)).sum(axis=0)
        own = np.einsum("jnn->jn", inverse) - ((moved @ weight) * moved).sum(axis=2)
        of_sigma = np.array([own[:, self.equation == r].sum() for r in range(2)]) * 2.0 * sigma2
        slope = 2.0 * (of_G @ L) * self.size[:, None]
        return float(value), np.append(slope[np.tril_indices(5)], of_sigma).astype(float)


def swept(V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverses and log determinants of positive definite matrices, (J, n, n), in the precision they come in."""
    M, logdet = V.copy(), np.zeros(len(V), dtype=V.dtype)
    for k in range(V.shape[1]):
        pivot, row, column = M[:, k, k].copy(), M[:, k] / M[:, k, k, None], M[:, :, k].copy()
        logdet += np.log(pivot)
        column[:, k] = 0.0
        M -= column[:, :, None] * row[:, None]
        M[:, :, k] = -column / pivot[:, None]
        M[:, k], M[:, k, k] = row, 1.0 / pivot
    return M, logdet


# -- what is made of it --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def steepest() -> mlmed.Results:
    return mlmed.mediate(MEDIATOR, OUTCOME, steep(1, 1000.0))


def test_scores_sum_to_zero(steepest: mlmed.Results) -> None:
    """The terms of single clusters add up to the gradient that the certificate saw."""
    fitted = steepest.fit
    optimum, working, problem = fitted.optimum, fitted.working, fitted.working.problem
    products, basis = cluster_products(working, fitted.grams), psi_basis(problem, working.blocks)
    terms = cluster_terms(problem, products, basis, optimum.L, optimum.sigma2, slice(None), information=True)
    J = natural_jacobian(problem, working.blocks)
    information = J.T @ optimum.evaluation.information @ J
    size = np.sqrt(np.diag(information))
    assert terms.information.sum(axis=2) / np.outer(size, size) == pytest.approx(
        information / np.outer(size, size), abs=CURVATURE
    )


@pytest.mark.parametrize("vcov", ["block", "joint", "cluster", "CR2"])
def test_standard_errors_are_those_of_known_slopes(steepest: mlmed.Results, vcov: str) -> None:
    """Slopes are known nearly exactly in every cluster: their means have the sd of 40 of them, over the root of 40."""
    table = steepest.effects(vcov=vcov).set_index("term")
    G = steepest.fit.estimates.G
    expected = np.sqrt(np.diag(G)[[1, 3]] / 40.0)
    # sandwiches differ from the model by their own sampling; the model's is exact but for a thousandth
    assert table.loc[["a", "b"], "std_error"].to_numpy(dtype=float) == pytest.approx(expected, rel=0.02)


def test_conditional_modes_are_the_slopes(steepest: mlmed.Results) -> None:
    """Residuals of the rows have the residual sd, though they are differences of numbers a million times as large."""
    assert steepest.resid().std().to_numpy() == pytest.approx([0.9, 0.87], abs=0.08)
    assert steepest.loglik_at(steepest.G, steepest.sigma2) == pytest.approx(steepest.llf, abs=1e-6)


@pytest.mark.parametrize("kind", ["case", "within", "parametric", "residual"])
def test_replicates_are_fitted(steepest: mlmed.Results, kind: str) -> None:
    """All of them certified, with a spread that the model expects."""
    options = {"kind": "case", "within": True} if kind == "within" else {"kind": kind}
    found = steepest.bootstrap(40, seed=1, **options).tidy().set_index("term")
    model = steepest.effects().set_index("term")
    ratio = found.loc[["a", "b"], "std_error"] / model.loc[["a", "b"], "std_error"]
    assert not found["note"].str.contains("failed|usable").any()
    assert ((ratio > 0.6) & (ratio < 1.5)).all()


def test_profile_and_degrees_of_freedom(steepest: mlmed.Results) -> None:
    """Profile intervals of means of 40 known slopes are close to t with 39 degrees of freedom."""
    table = steepest.effects(interval="profile").set_index("term")
    width = (table["conf_high"] - table["conf_low"]).loc["b"] / (2.0 * table.loc["b", "std_error"])
    assert width == pytest.approx(2.02, abs=0.03)
    for ddf in ("kenward-roger", "satterthwaite"):
        own = steepest.tidy(ddf=ddf)
        df = own.loc[own["term"] == "y~m", "df"].item()
        assert df == pytest.approx(39.0, abs=0.1)


def test_influence_and_starts(steepest: mlmed.Results) -> None:
    """Deleting a cluster moves the mean slope by what is known of its slope; random starts end at the same optimum."""
    step = steepest.influence().tidy()
    exact_one = steepest.influence(refit=True).tidy()
    moved, expected = (table.loc[table["term"] == "b", "change"].to_numpy() for table in (step, exact_one))
    assert moved == pytest.approx(expected, abs=0.02 * np.abs(expected).max())
    assert np.abs(steepest.check_starts(3, seed=1)["apart"]).max() < BEATEN


# -- without rows --------------------------------------------------------------------------------------------


def stored(data: pd.DataFrame) -> mlmed.Grams:
    """Grams as they come without rows: from their products alone."""
    made = mlmed.grams([MEDIATOR, OUTCOME], data)
    return mlmed.Grams(replace(made.arrays, roots=None))


def test_products_alone_serve_up_to_slopes_of_150() -> None:
    """Their roots hold the estimates to a small share of a standard error."""
    data = steep(2, 150.0)
    ours, theirs = mlmed.mediate(MEDIATOR, OUTCOME, data), mlmed.mediate(MEDIATOR, OUTCOME, stored(data))
    assert theirs.converged
    gap = (ours.tidy()["estimate"] - theirs.tidy()["estimate"]) / ours.tidy()["std_error"]
    assert np.abs(gap.to_numpy(dtype=float)).max() < 1e-4  # 1e-5 measured
    share = rest_share(theirs.fit.grams, 1)
    assert 1e-10 < share < 1e-9


def test_products_that_have_lost_the_residual_are_refused() -> None:
    """Rather than a certified optimum of rounding errors."""
    data = steep(2, 1000.0)
    with pytest.raises(DataError, match=r"equation y: predictors leave .*e-13 .*six digits.*in memory"):
        mlmed.mediate(MEDIATOR, OUTCOME, stored(data))
    duckdb = pytest.importorskip("duckdb")
    with pytest.raises(DataError, match="fit a data frame in memory"):
        mlmed.mediate(MEDIATOR, OUTCOME, duckdb.from_df(data))


def test_grams_in_memory_keep_the_roots() -> None:
    """Grams made from a data frame give its fit, in whatever units they were summed."""
    data = steep(2, 300.0)
    ours, theirs = (mlmed.mediate(MEDIATOR, OUTCOME, rows) for rows in (data, mlmed.grams([MEDIATOR, OUTCOME], data)))
    assert theirs.converged
    assert theirs.llf == pytest.approx(ours.llf, abs=1e-7)


def test_roots_of_products_are_those_of_rows_where_digits_are_there() -> None:
    """Cholesky's factor of the cross-products is the triangular factor of the rows."""
    data = steep(2, 1.0)
    spec = spec_of(data)
    design = build_design(spec, data)
    grams = accumulate(design)
    of_rows = roots_from_rows(design, grams.shift, grams.scale)
    for one, other in zip(product_roots(grams).tables, of_rows.tables, strict=True):
        assert one == pytest.approx(other, abs=1e-9)


def test_huge_slopes_beside_many_columns_are_refused_by_name() -> None:
    """A root of every cluster would not fit."""
    data, rng = steep(2, 1000.0), np.random.default_rng(1)
    data = data.assign(**{f"w{k}": rng.normal(size=len(data)) for k in range(32)})
    more = " + ".join(f"w{k}" for k in range(32))
    with pytest.raises(DataError, match=r"six digits.* with 32 columns and more"):
        mlmed.mediate("m ~ x + (1 + x | id)", f"y ~ m + x + {more} + (1 + m + x | id)", data, treatment="x")


@pytest.mark.parametrize("size", [1e5, 3e6])
def test_fixed_slopes_that_leave_little_take_roots(size: float) -> None:
    """Neither the random intercept nor the slope leaves little alone; the fit is that of the residuals of the slope."""
    rng = np.random.default_rng(2)
    who = np.repeat(np.arange(30), 8)
    x, e = rng.normal(size=240), rng.normal(size=30)[who] + rng.normal(size=240)
    data = pd.DataFrame({"id": who, "x": x, "y": size * x + e, "e": e})
    steep_fit, plain = (mlmed.mixed(f"{name} ~ x + (1 | id)", data) for name in ("y", "e"))
    assert steep_fit.converged
    assert steep_fit.llf == pytest.approx(plain.llf, abs=1e-6)
