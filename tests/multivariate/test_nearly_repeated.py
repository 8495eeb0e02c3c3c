"""Responses that hardly differ: refused or certified by the data, whatever the order of rows and the processor."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.errors import NotIdentifiedError
from mlmed.lmm.optimum import MAX_DECREMENT, MAX_GRADIENT
from tests.multivariate.dense import simulated

FORMULAS = ["y0 ~ x + (1 |c| id)", "z ~ x + (1 |c| id)"]
DIFFERENCE = ["y0 ~ x + (1 |c| id)", "d ~ x + (1 |c| id)"]
#: Two optimizations of one criterion stop where -2l is flat to rounding: 1e-8 of a log-likelihood of 1e3.
LOGLIK = 1e-8
#: Sums of squares hold a part of 1e-5 of a response's variance to 1e-11 of itself; 180 rows add it up.
SMALL_PART = 1e-6


def nearly_repeated(seed: int, sd: float, order: int = 0) -> pd.DataFrame:
    """z is y0 and a part of its own with this sd; ``order`` shuffles the rows."""
    data, rng = simulated(30, 6, seed=seed, R=2), np.random.default_rng(0)
    data = data.assign(z=data["y0"] + sd * rng.normal(size=len(data)))
    data = data.assign(d=data["z"] - data["y0"])
    return data.sample(frac=1.0, random_state=order) if order else data


@pytest.mark.parametrize("order", range(10))
@pytest.mark.parametrize("seed", [1, 2])
def test_a_part_of_1e_8_is_refused_before_the_search(seed, order):
    with pytest.raises(NotIdentifiedError, match="'z' is within clusters a linear combination of y0"):
        mlmed.mixed(FORMULAS, nearly_repeated(seed, 1e-4, order), residual="unstructured")


@pytest.mark.parametrize("order", range(10))
@pytest.mark.parametrize(("sd", "loglik"), [(3e-3, SMALL_PART), (1e-2, LOGLIK)], ids=["1e-5", "1e-4"])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_small_part_is_certified(seed, sd, loglik, order):
    """The density of (y0, z) is that of (y0, z - y0), which is fitted without any cancellation."""
    data = nearly_repeated(seed, sd, order)
    fit = mlmed.mixed(FORMULAS, data, residual="unstructured")
    other = mlmed.mixed(DIFFERENCE, data, residual="unstructured")
    assert fit.converged
    assert other.converged
    certificate = fit.fit.optimum.certificate
    assert certificate.gradient_norm < MAX_GRADIENT
    assert certificate.newton_decrement < MAX_DECREMENT
    assert fit.llf == pytest.approx(other.llf, rel=0, abs=loglik)
    to_difference = np.array([[1.0, 0.0], [-1.0, 1.0]])
    expected = other.fit.estimates.Sigma
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    # entries of Sigma near 1 hold a variance of 1e-5 to ten digits less five
    assert to_difference @ fit.Sigma.to_numpy() @ to_difference.T / scale == pytest.approx(expected / scale, abs=1e-5)
    assert len(fit.fit.optimum.steps) < 60


@pytest.mark.parametrize("vcov", ["block", "joint"])
@pytest.mark.parametrize("sd", [3e-3, 1e-2, 0.3])
def test_standard_errors_of_a_small_part(sd, vcov):
    """The error of the variance of z - y0, from the covariance of all estimates, and of the difference of slopes."""
    data = nearly_repeated(2, sd)
    fit, other = (mlmed.mixed(formulas, data, residual="unstructured") for formulas in (FORMULAS, DIFFERENCE))
    V = fit.fit.vcov(vcov).matrix
    weights = np.zeros((2, len(fit.names)))
    weights[0, [fit.names.index(name) for name in ("var(y0~Residual)", "var(z~Residual)")]] = 1.0
    weights[0, fit.names.index("cov(y0~Residual,z~Residual)")] = -2.0
    weights[1, [fit.names.index("y0~x"), fit.names.index("z~x")]] = -1.0, 1.0
    table = other.tidy(vcov=vcov).assign(name=other.names).set_index("name")["std_error"]
    found = np.sqrt(np.diag(weights @ V @ weights.T))
    # a variance of 1e-5 in entries near 1: eleven digits of sixteen are gone in its square
    assert found == pytest.approx([table["var(d~Residual)"], table["d~x"]], rel=1e-3)


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
@pytest.mark.parametrize("sd", [3e-3, 1e-2, 5e-2])
def test_degrees_of_freedom_of_a_small_part(sd, ddf):
    """Those of (y0, z - y0); Kenward and Roger's correction has five digits, or says why it is not there."""
    rng = np.random.default_rng(3)
    ids = np.repeat(np.arange(25), 4)
    x, u, e = rng.normal(size=100), rng.normal(size=(25, 2))[ids], rng.normal(size=(100, 2))
    y0 = 0.3 * x + u[:, 0] + e[:, 0]
    z = y0 + sd * (e[:, 1] + 0.6 * u[:, 1] + 0.2 * x)
    data = pd.DataFrame({"id": ids, "x": x, "y0": y0, "z": z, "d": z - y0})
    ours, theirs = (  # the slope of y0
        mlmed.mixed(formulas, data, residual="unstructured").tidy(ddf=ddf).iloc[1]
        for formulas in (FORMULAS, DIFFERENCE)
    )
    if ddf == "kenward-roger" and sd < 2e-2:
        assert np.isnan(ours["std_error"])
        assert "loses its digits" in ours["note"]
        return
    assert ours["std_error"] == pytest.approx(theirs["std_error"], rel=1e-5)
    assert ours["df"] == pytest.approx(theirs["df"], rel=1e-5)


@pytest.mark.parametrize(("sd", "correlation", "within"), [(0.02, 0.9998, 5e-5), (0.01, 0.99995, 1.5e-5)])
@pytest.mark.parametrize("seed", range(3))
def test_high_residual_correlations_are_certified(seed, sd, correlation, within):
    """Residuals that correlate .9998 or .99995, random effects of their own."""
    rng = np.random.default_rng(seed)
    codes, x = np.repeat(np.arange(200), 6), rng.normal(size=1200)
    u, e = rng.normal(size=(200, 2)), rng.normal(size=1200)
    data = pd.DataFrame({"id": codes, "x": x, "y0": x + u[codes, 0] + e})
    data = data.assign(y1=u[codes, 1] + e + sd * rng.normal(size=1200))
    fit = mlmed.mixed(["y0 ~ x + (1 |c| id)", "y1 ~ x + (1 |c| id)"], data, residual="unstructured")
    assert fit.converged
    assert fit.sdcor().set_index("term").loc["cor(y0~Residual,y1~Residual)", "estimate"] == pytest.approx(
        correlation, abs=within
    )


@pytest.mark.parametrize("seed", [6, 26])
def test_residuals_that_are_nearly_repeated_are_certified(seed):
    """A residual correlation of .9996 (6), a residual sd of .004 (26): rounding errors are larger, not the answer."""
    formulas = ["y0 ~ x + (1 + x |c| id)", "y1 ~ w + (1 |c| id)", "y2 ~ 0 + x + (0 + x |d| id)"]
    fit = mlmed.mixed(formulas, simulated(30, 7, seed=seed), residual="unstructured")
    assert fit.converged
    assert fit.check_starts(3, seed=1)["difference"].abs().max() < LOGLIK
