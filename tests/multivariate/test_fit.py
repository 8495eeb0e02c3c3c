"""Fits of several responses: equivalences, invariances, published numbers, bad input."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.cli import main
from mlmed.errors import BoundaryWarning, FormulaError, NotIdentifiedError
from mlmed.lmm.estimates import loglik_at
from mlmed.lmm.optimum import optimize
from tests.multivariate.dense import made, simulated
from tests.tolerances import INVARIANT, OPTIMUM, SAME

TWO = ["y0 ~ x + (1 + x |c| id)", "y1 ~ x + w + (1 + x |c| id)"]
#: Two optimizations of one criterion stop where -2l is flat to rounding: 1e-8 of a log-likelihood of 1e3.
LOGLIK = 1e-8


@pytest.fixture(scope="module")
def data():
    return simulated(40, 8, seed=20, R=2)


@pytest.fixture(scope="module")
def fit(data):
    return mlmed.mixed(TWO, data, residual="unstructured")


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_no_better_point_nearby(data, method):
    """The optimum against the dense density at it and at 50 points around it."""
    fit = mlmed.mixed(TWO, data, residual="unstructured", method=method)
    dense = made(data, *TWO, method=method)[1]
    G, Sigma = fit.fit.estimates.G, fit.fit.estimates.Sigma
    assert fit.converged
    assert fit.llf == pytest.approx(dense.loglik(G, Sigma, reml=method == "reml"), rel=SAME)
    rng = np.random.default_rng(0)
    for _ in range(50):
        moved_G, moved_S = (
            (np.eye(len(M)) + 0.01 * rng.normal(size=M.shape)) @ np.linalg.cholesky(M) for M in (G, Sigma)
        )
        assert fit.loglik_at(moved_G @ moved_G.T, moved_S @ moved_S.T) < fit.llf


def test_random_starts_agree(data):
    """Five starts of the search, one optimum (1e-6 asked)."""
    working, _ = made(data, *TWO)
    found = []
    rng = np.random.default_rng(1)
    for _ in range(5):
        theta = rng.normal(0.0, 0.5, working.problem.residual.size + 10)
        found.append(optimize(working.problem, working.blocks, reml=True, theta=theta))
    assert all(one.certificate.converged for one in found)
    for one in found[1:]:
        assert one.evaluation.value == pytest.approx(found[0].evaluation.value, rel=0, abs=2 * LOGLIK)
        assert np.abs(one.G - found[0].G).max() < OPTIMUM
        assert one.sigma2 == pytest.approx(found[0].sigma2, rel=OPTIMUM)


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_block_diagonal_is_the_separate_fits(data, method):
    """Terms without a label are independent across equations; with independent residuals nothing is shared."""
    formulas = ["y0 ~ x + (1 + x | id)", "y1 ~ x + w + (1 + x | id)"]
    joint = mlmed.mixed(formulas, data, method=method)
    single = [mlmed.mixed(one, data, method=method) for one in formulas]
    assert joint.llf == pytest.approx(sum(one.llf for one in single), rel=LOGLIK)
    for k, one in enumerate(single):
        name = f"y{k}~"
        own = [label for label in joint.names if label.replace("var(", "").replace("cov(", "").startswith(name)]
        table = joint.tidy().assign(name=joint.names).set_index("name").loc[own, ["estimate", "std_error"]]
        expected = one.tidy()[["estimate", "std_error"]]
        assert table.to_numpy(dtype=float) == pytest.approx(expected.to_numpy(dtype=float), rel=1e-6, abs=1e-8)


def test_regressions_with_the_same_predictors_are_least_squares(data):
    """Rank 0, the same X: a residual correlation does not move beta (Zellner 1962). Cluster means are taken out."""
    rng = np.random.default_rng(3)
    noise = pd.DataFrame(rng.normal(size=(len(data), 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]]), columns=["y0", "y1"])
    centred = noise - noise.groupby(data["id"]).transform("mean")
    plain = data.assign(**centred)
    formulas = ["y0 ~ x + (1 | id)", "y1 ~ x + (1 | id)"]
    with pytest.warns(BoundaryWarning):
        fit = mlmed.mixed(formulas, plain, residual="unstructured")
    assert fit.fit.optimum.rank == 0
    X = np.column_stack([np.ones(len(plain)), plain["x"]])
    for k in range(2):
        beta = np.linalg.lstsq(X, plain[f"y{k}"], rcond=None)[0]
        assert np.abs(fit.params.to_numpy()[2 * k : 2 * k + 2] - beta).max() < 1e-9


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_units_and_order_do_not_matter(missing):
    """Responses on wildly different scales, rows shuffled, equations exchanged: the same model."""
    data = simulated(30, 8, seed=6, R=2, missing=missing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = mlmed.mixed(TWO, data, residual="unstructured")
        wild = data.assign(y0=1e6 + 1e5 * data["y0"], y1=1e-6 * data["y1"]).sample(frac=1.0, random_state=1)
        other = mlmed.mixed(TWO[::-1], wild, residual="unstructured")
    shift = data["y0"].notna().sum() * np.log(1e5) + data["y1"].notna().sum() * np.log(1e-6)
    shift -= 2 * np.log(1e5) + 3 * np.log(1e-6)  # REML: coefficients of the two equations change units, too
    assert other.llf + shift == pytest.approx(base.llf, rel=INVARIANT)
    own, moved = (fit.fit.estimates.Sigma for fit in (base, other))
    scale = np.array([1e5, 1e-6])
    assert moved[::-1, ::-1] / np.outer(scale, scale) == pytest.approx(own, rel=1e-6)
    correlation = own[0, 1] / np.sqrt(own[0, 0] * own[1, 1])
    assert moved[0, 1] / np.sqrt(moved[0, 0] * moved[1, 1]) == pytest.approx(correlation, rel=1e-6)


def test_rows_with_one_response_count(data):
    """A row with y0 only is used by the equation of y0; a row with neither changes nothing."""
    gaps = data.copy()
    gaps.loc[gaps.index[::4], "y1"] = np.nan
    gaps.loc[gaps.index[:6], ["y0", "y1"]] = np.nan
    with pytest.warns(mlmed.errors.DroppedRowsWarning, match="y1"):
        fit = mlmed.mixed(TWO, gaps, residual="unstructured")
    dense = made(gaps, *TWO)[1]
    estimates = fit.fit.estimates
    assert fit.nobs == int(gaps[["y0", "y1"]].notna().to_numpy().sum())
    assert fit.llf == pytest.approx(dense.loglik(estimates.G, estimates.Sigma, reml=True), rel=SAME)
    assert fit.converged


def test_responses_never_seen_together():
    """No row has both responses, so nothing is known of their residual correlation."""
    data = simulated(30, 8, seed=6, R=2)
    first = np.arange(len(data)) % 2 == 0
    data = data.assign(y0=data["y0"].where(first), y1=data["y1"].where(~first))
    with pytest.raises(NotIdentifiedError, match="y0 and y1 are complete together in 0"):
        mlmed.mixed(TWO, data, residual="unstructured")


def test_singular_fit_is_exact():
    """More effects than the data hold: the boundary is found and certified, residual correlation or not."""
    data = simulated(12, 5, seed=2, R=2, G=1e-6 * np.eye(4))
    with pytest.warns(BoundaryWarning):
        fit = mlmed.mixed(TWO, data, residual="unstructured")
    assert fit.converged
    assert fit.is_singular
    assert np.isfinite(fit.bse).all()


def test_four_responses():
    data = simulated(40, 8, seed=12, R=4)
    formulas = [f"y{r} ~ x + (1 |c| id)" for r in range(4)]
    fit = mlmed.mixed(formulas, data, residual="unstructured")
    assert fit.converged
    assert fit.fit.estimates.Sigma.shape == (4, 4)
    assert fit.df_model == 8 + 10 + 10
    assert "cov(y0~Residual,y3~Residual)" in fit.names


def test_one_response_has_one_residual_variance(data):
    """Unstructured 1 x 1 is a variance."""
    one = mlmed.mixed(["y0 ~ x + (1 | id)"], data, residual="unstructured")
    assert one.llf == pytest.approx(mlmed.mixed("y0 ~ x + (1 | id)", data).llf, rel=LOGLIK)


@pytest.mark.parametrize(
    ("formulas", "options", "message"),
    [
        (["y0 ~ x + (1 | id)", "y1 ~ y0 + (1 | id)"], {"residual": "unstructured"}, "same association within rows"),
        (["y0 ~ x + (1 | id)", "y1 ~ I(y0**2) + (1 | id)"], {"residual": "unstructured"}, "also a predictor"),
        (["y0 ~ x + (1 | id)", "y0 ~ w + (1 | id)"], {}, "each needs its own"),
        (["y0 ~ x + (1 | id)", "y1 ~ x"], {}, "no random term"),
        (["y0 ~ x + (1 | id)"], {"residual": "full"}, "residual must be one of diagonal, unstructured"),
        ([], {}, "no formula"),
        (None, {}, "found NoneType"),
        (["y0 ~ y1 + (1 | id)", "y1 ~ y0 + (1 | id)"], {}, "feed back into each other"),
        (["cbind(y0, y1) ~ x + (1 | id)"], {}, "one formula for each"),
    ],
)
def test_bad_input(data, formulas, options, message):
    with pytest.raises(FormulaError, match=message):
        mlmed.mixed(formulas, data, **options)


@pytest.mark.parametrize("factor", [1.0, 1.7, -2.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_response_that_repeats_another(factor, seed):
    """z = f y0, up to a cluster's constant: no joint density."""
    data = simulated(30, 6, seed=seed, R=2)
    data = data.assign(z=factor * data["y0"] + (data["id"] % 3))
    with pytest.raises(NotIdentifiedError, match="'z' is within clusters a linear combination of y0"):
        mlmed.mixed(["y0 ~ x + (1 |c| id)", "z ~ x + (1 |c| id)"], data, residual="unstructured")


def test_singular_exchangeable_blocks_are_singular():
    """One variance and a correlation of 1 across equations: rank 1, flagged."""
    rng = np.random.default_rng(0)
    data = simulated(40, 8, seed=3, R=2)
    shared = np.repeat(rng.normal(size=40), 8)
    data = data.assign(y0=shared + rng.normal(size=320), y1=shared + rng.normal(size=320))
    with pytest.warns(BoundaryWarning):
        fit = mlmed.mixed(
            ["y0 ~ x + (1 |c| id)", "y1 ~ x + (1 |c| id)"], data, covariance="exchangeable", residual="unstructured"
        )
    assert fit.is_singular
    assert fit.fit.optimum.rank == 1


def test_loglik_at_takes_the_matrix_or_its_entries(fit):
    estimates = fit.fit.estimates
    assert fit.loglik_at(estimates.G, estimates.Sigma) == pytest.approx(fit.llf, rel=SAME)
    assert loglik_at(fit.fit.working, estimates.G, estimates.sigma2, reml=True) == pytest.approx(fit.llf, rel=SAME)
    with pytest.raises(mlmed.errors.EffectError, match="must be positive"):
        fit.loglik_at(estimates.G, np.array([[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(mlmed.errors.EffectError, match="must be symmetric"):
        fit.loglik_at(estimates.G, np.array([[1.0, 0.2], [0.1, 1.0]]))


def test_check_starts_reports_every_start(fit):
    table = fit.check_starts(4, seed=2)
    assert table["converged"].all()
    assert table["difference"].abs().max() < LOGLIK * abs(fit.llf)
    assert table["apart"].max() < 1e-6
    assert fit.check_starts(2, seed=2).equals(table.iloc[:2])
    with pytest.raises(mlmed.errors.EffectError):
        fit.check_starts(0, seed=2)


def test_williams_m3_from_five_starts(dataset):
    """21 covariances and a residual correlation on 13,033 rows: certified, five random starts agree to 1e-6."""
    williams = dataset("williams")
    right = "NA_lag + PA_lag + (1 + NA_lag + PA_lag |c| id)"
    fit = mlmed.mixed([f"NA.std ~ {right}", f"PA.std ~ {right}"], williams, residual="unstructured")
    certificate = fit.fit.optimum.certificate
    assert certificate.gradient_norm < 1e-6
    assert certificate.newton_decrement < 1e-12
    table = fit.check_starts(5, seed=1)
    assert table["converged"].all()
    assert table["difference"].abs().max() < 1e-6
    # nlme's optimum is -23070.780827 after minutes; ours is never worse (validation/reference/williams_m3_nlme.json)
    assert fit.llf >= -23070.780827


def test_command_line(data, tmp_path, capsys):
    path = tmp_path / "data.csv"
    data.to_csv(path, index=False)
    asked = [part for formula in TWO for part in ("--formula", formula)]
    assert main(["mixed", str(path), *asked, "--residual", "unstructured", "--format", "csv"]) == 0
    printed = capsys.readouterr().out
    assert "cov(y0~Residual,y1~Residual)" in printed
    assert "cor(y0~Residual,y1~Residual)" in printed
    assert main(["mixed", str(path), *asked, "--residual", "unstructured", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["structures"] == {"random": {"c": "unstructured"}, "residual": "unstructured"}
    assert any(row["term"] == "cor(y0~Residual,y1~Residual)" for row in document["sdcor"])


def test_a_fit_shows_itself_in_one_line(fit):
    assert repr(fit).startswith("<Results of mixed: y0 ~ x + (1 + x |c| id); y1")
    assert "certified" in repr(fit.fit)
    assert len(repr(fit)) < 300


def test_responses_in_causal_order_may_be_predictors(data):
    """A chain is no feedback: y0 -> y1, in either order of the formulas, is one density."""
    formulas = ["y0 ~ x + (1 | id)", "y1 ~ y0 + x + (1 | id)"]
    assert mlmed.mixed(formulas, data).llf == pytest.approx(mlmed.mixed(formulas[::-1], data).llf, rel=LOGLIK)
