"""Location-scale models from formula to table: published numbers, special cases, invariances."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.errors import BoundaryWarning, DroppedRowsWarning
from mlmed.reproduce.summaries import sd_cor
from tests.locscale_models import M4, simulated
from tests.tolerances import INVARIANT

#: Posterior means and standard deviations that brms printed for m4 (S. J. Weston, week 8), two decimals.
PUBLISHED_M4 = {
    "Intercept": (0.01, 0.06),
    "sigma~Intercept": (-0.64, 0.03),
    "sd(Intercept)": (0.81, 0.04),
    "sd(sigma~Intercept)": (0.43, 0.02),
    "cor(Intercept,sigma~Intercept)": (-0.34, 0.07),
}
#: The response has products of its own with PA_lag and steps; what the page fits.
M5 = (
    "PA.std ~ 1 + day + PA_lag + NA_lag + steps.pm*steps.pmd + (1 + day + steps.pmd |c| id)",
    "~ 1 + PA_lag + NA_lag + steps.pm*steps.pmd + (1 + steps.pmd |c| id)",
)
#: Log-likelihood of a homoscedastic model by two criteria, absolute.
SPECIAL = 1e-8
#: Evaluations of the gradient for m5 (155 under two kernels of OpenBLAS), about 0.02 s each.
MOST_EVALUATIONS = 300
#: The doubling of nodes, absolute.
NODES = 1e-4


@pytest.mark.parametrize("term", PUBLISHED_M4)
def test_m4_is_within_half_a_posterior_sd_of_the_page(m4: mlmed.Results, term: str) -> None:
    mean, sd = PUBLISHED_M4[term]
    found = sd_cor(m4).set_index("term").loc[term]
    assert found["estimate"] == pytest.approx(mean, abs=0.5 * sd)
    assert found["std_error"] == pytest.approx(sd, abs=0.0075)  # the sds are printed with two decimals


def test_m4_is_certified_and_stable_in_nodes(m4: mlmed.Results, dataset: Callable) -> None:
    row = m4.glance().iloc[0]
    assert row["converged"]
    assert not row["is_singular"]
    assert row["gradient_norm"] < 1e-4
    assert abs(row["node_change"]) < NODES
    assert "doubling" in m4.summary()
    again = mlmed.location_scale(*M4, dataset("williams"), nodes=2 * m4.fit.nodes)
    assert again.llf == pytest.approx(m4.llf, abs=NODES)
    starts = m4.check_starts(3, seed=1)
    assert starts["converged"].all()
    assert starts["difference"].abs().max() < 1e-6


def test_m5_is_certified_in_few_evaluations(dataset: Callable) -> None:
    """The page reports R-hat 1.60 after 80 minutes, so its numbers are no reference."""
    fit = mlmed.location_scale(*M5, dataset("williams"))
    row = fit.glance().iloc[0]
    assert row["evaluations"] < MOST_EVALUATIONS
    assert row["converged"]
    assert not row["is_singular"]
    assert abs(row["node_change"]) < NODES
    assert fit.llf > -8813.5362  # lock: our own optimum, from five starts
    assert len(fit.params) == 13
    assert fit.G.shape == (5, 5)
    assert fit.bse.notna().all()


@pytest.mark.slow
def test_m5_has_one_optimum_from_five_starts(dataset: Callable) -> None:
    """28 s on two idle cores."""
    fit = mlmed.location_scale(*M5, dataset("williams"))
    starts = fit.check_starts(5, seed=1, n_jobs=2)
    assert starts["converged"].all()
    assert starts["difference"].abs().max() < 1e-6
    assert starts["apart"].max() < 1e-4


@pytest.mark.parametrize("random", ["(1 | g)", "(1 + x | g)", "(1 + x || g)"])
def test_without_scale_effects_it_is_the_mixed_model(random: str) -> None:
    data = simulated(40, 10, seed=3, sd_scale=0.0)
    data["y"] += np.random.default_rng(1).normal(size=40)[data["g"]] * data["x"] * 0.5
    expected = mlmed.mixed(f"y ~ x + {random}", data, method="ml")
    found = mlmed.location_scale(f"y ~ x + {random}", "~ 1", data)
    assert found.llf == pytest.approx(expected.llf, abs=SPECIAL)
    np.testing.assert_allclose(found.params.iloc[:2], expected.params, rtol=1e-6)
    np.testing.assert_allclose(np.exp(2.0 * found.params.iloc[2]), expected.sigma2.iloc[0], rtol=1e-6)
    np.testing.assert_allclose(found.G, expected.G, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(found.ranef()["estimate"], expected.ranef()["estimate"], atol=1e-6)
    # joint: beta moves with the variances, which the observed information of all parameters holds
    np.testing.assert_allclose(found.bse.iloc[:2], np.sqrt(np.diag(expected.vcov("joint", which="fixed"))), rtol=1e-4)


def test_unlabelled_terms_are_independent_and_labels_join_them() -> None:
    data = simulated(60, 12, seed=4)
    apart = mlmed.location_scale("y ~ x + (1 | g)", "~ w + (1 | g)", data)
    joined = mlmed.location_scale("y ~ x + (1 |c| g)", "~ w + (1 |c| g)", data)
    assert apart.G.iloc[0, 1] == 0.0
    assert "cov(Intercept,sigma~Intercept)" not in apart.names
    assert joined.df_model == apart.df_model + 1
    assert joined.llf > apart.llf


@pytest.mark.parametrize(("shift", "factor"), [(1e6, 1.0), (0.0, 1e-9), (-40.0, 1e8)])
def test_shift_and_scale_of_the_response(shift: float, factor: float) -> None:
    """Only the units change; the log sd moves by the logarithm of the factor."""
    data = simulated(60, 12, seed=5)
    asked = ("y ~ x + (1 |c| g)", "~ w + (1 |c| g)")
    first = mlmed.location_scale(*asked, data)
    second = mlmed.location_scale(*asked, data.assign(y=shift + factor * data["y"]))
    tolerance = 1e-6 if shift == 1e6 else INVARIANT
    assert second.llf + len(data) * np.log(factor) == pytest.approx(first.llf, abs=1e-5)
    assert second.params["x"] / factor == pytest.approx(first.params["x"], rel=tolerance)
    moved = first.params["sigma~Intercept"] + np.log(factor)
    assert second.params["sigma~Intercept"] == pytest.approx(moved, abs=tolerance)
    assert second.params["sigma~w"] == pytest.approx(first.params["sigma~w"], rel=10 * tolerance)
    assert second.bse["x"] / factor == pytest.approx(first.bse["x"], rel=1e-5)
    sds = [fit.sdcor()["estimate"] for fit in (first, second)]
    assert sds[1][0] / factor == pytest.approx(sds[0][0], rel=1e-5)
    assert sds[1][1] == pytest.approx(sds[0][1], rel=1e-5)


def test_shift_and_scale_of_predictors() -> None:
    """Year numbers in place of 0 to 10, in both parts and with random slopes."""
    data = simulated(60, 20, seed=6)
    rng = np.random.default_rng(7)
    slopes = rng.normal(size=(2, 60))[:, data["g"]]
    data["y"] += 0.5 * slopes[0] * data["x"]
    data["y"] += np.exp(-0.3 + 0.4 * slopes[1] * data["w"]) * rng.normal(size=len(data))
    asked = ("y ~ x + (1 + x |c| g)", "~ w + (1 + w |c| g)")
    first = mlmed.location_scale(*asked, data)
    second = mlmed.location_scale(*asked, data.assign(x=2000.0 + 10.0 * data["x"], w=50.0 * data["w"] - 7.0))
    assert second.llf == pytest.approx(first.llf, abs=1e-6)
    assert 10.0 * second.params["x"] == pytest.approx(first.params["x"], rel=1e-5)
    assert 50.0 * second.params["sigma~w"] == pytest.approx(first.params["sigma~w"], rel=1e-4)
    sds = [fit.sdcor().set_index("term")["estimate"]["sd(sigma~w)"] for fit in (first, second)]
    assert 50.0 * sds[1] == pytest.approx(sds[0], rel=1e-3)


def test_order_of_rows_and_names_of_clusters_do_not_matter() -> None:
    data = simulated(50, 9, seed=7)
    asked = ("y ~ x + (1 |c| g)", "~ w + (1 |c| g)")
    first = mlmed.location_scale(*asked, data)
    mixed_up = data.assign(g="c" + data["g"].astype(str)).sample(frac=1.0, random_state=1)
    second = mlmed.location_scale(*asked, mixed_up)
    assert second.llf == pytest.approx(first.llf, rel=INVARIANT)
    np.testing.assert_allclose(second.params, first.params, rtol=1e-6)


def test_standard_errors_are_those_of_the_natural_parameters() -> None:
    """The inverse Hessian of the log-likelihood in (beta, tau, G) itself, by differences."""
    import numdifftools as nd

    from mlmed.quadrature.likelihood import conditional_loglik, loglik
    from mlmed.quadrature.nodes import adapt, centres_at_zero, make_nodes

    fit = mlmed.location_scale("y ~ x + (1 |c| g)", "~ w + (1 |c| g)", simulated(60, 12, seed=8))
    problem, units = fit.fit.problem, fit.fit.units

    def value(psi: np.ndarray) -> float:
        beta = np.linalg.solve(units.beta_map, psi[:2] - units.shift * units.intercept)
        tau = np.linalg.solve(units.tau_map, psi[2:4])
        back = np.linalg.inv(units.random_map)
        L = np.linalg.cholesky(back @ np.array([[psi[6], psi[5]], [psi[5], psi[4]]]) @ back.T)  # (t, u)
        theta = np.concatenate([beta, tau, L[problem.structure.rows, problem.structure.columns]])
        start = centres_at_zero(problem.J, 1)
        found = adapt(lambda s: conditional_loglik(problem, theta, s), start, tolerance=1e-7)
        return loglik(problem, theta, make_nodes(found, 15))

    psi = fit.fit.estimates.psi
    hessian = nd.Hessian(value, step=nd.MinStepGenerator(base_step=1e-3, step_ratio=2.0, num_steps=4))(psi)
    expected = np.sqrt(np.diag(np.linalg.inv(-hessian)))
    np.testing.assert_allclose(np.sqrt(np.diag(fit.vcov())), expected, rtol=1e-3)


def test_recovers_the_truth_of_a_large_sample() -> None:
    """Every estimate within three standard errors of what the data were drawn from."""
    fit = mlmed.location_scale("y ~ x + (1 |c| g)", "~ w + (1 |c| g)", simulated(400, 20, seed=9))
    truth = {
        "Intercept": 1.0,
        "x": 0.5,
        "sigma~Intercept": -0.3,
        "sigma~w": 0.2,
        "sd(Intercept)": 0.8,
        "sd(sigma~Intercept)": 0.4,
        "cor(Intercept,sigma~Intercept)": -0.3,
    }
    table = sd_cor(fit).set_index("term")
    for term, value in truth.items():
        assert abs(table.loc[term, "estimate"] - value) < 3.0 * table.loc[term, "std_error"], term


def test_only_scale_effects() -> None:
    """No location effects: the response varies around one regression with a residual sd per cluster."""
    data = simulated(80, 15, seed=10)
    data["y"] -= data.groupby("g")["y"].transform("mean")
    fit = mlmed.location_scale("y ~ x", "~ 1 + (1 | g)", data)
    assert fit.converged
    assert list(fit.G.columns) == ["sigma~Intercept"]
    assert fit.sdcor()["estimate"].iloc[0] == pytest.approx(0.4, abs=0.15)


def alike(seed: int) -> pd.DataFrame:
    """Residual sums of squares that are more alike than chance makes them: the scale does not vary."""
    rng = np.random.default_rng(seed)
    e = rng.normal(size=(30, 8))
    e = (e - e.mean(axis=1, keepdims=True)) / e.std(axis=1, keepdims=True)
    g = np.repeat(np.arange(30), 8)
    return pd.DataFrame({"g": g, "y": rng.normal(size=30)[g] + e.ravel()})


def test_variance_of_zero_is_reported() -> None:
    """The exact optimum, errors left out and explained, the likelihood that of the mixed model."""
    data = alike(0)
    with pytest.warns(BoundaryWarning, match="rank 1 of 2"):
        fit = mlmed.location_scale("y ~ 1 + (1 | g)", "~ 1 + (1 | g)", data)
    assert fit.converged
    assert fit.is_singular
    assert fit.G.loc["sigma~Intercept", "sigma~Intercept"] == 0.0
    table = fit.sdcor().set_index("term")
    assert np.isnan(table.loc["sd(sigma~Intercept)", "std_error"])
    assert "boundary" in table.loc["sd(sigma~Intercept)", "note"]
    assert fit.bse.notna().all()
    assert fit.llf == pytest.approx(mlmed.mixed("y ~ 1 + (1 | g)", data, method="ml").llf, abs=SPECIAL)
    assert "boundary" in fit.summary()
    assert fit.ranef()["estimate"].notna().all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_correlation_of_one_is_reported(seed: int) -> None:
    data = alike(seed)
    with pytest.warns(BoundaryWarning, match="rank 1 of 2"):
        fit = mlmed.location_scale("y ~ 1 + (1 |c| g)", "~ 1 + (1 |c| g)", data)
    assert fit.converged
    assert np.linalg.eigvalsh(fit.G)[0] == pytest.approx(0.0, abs=1e-12)
    with pytest.warns(BoundaryWarning):
        apart = mlmed.location_scale("y ~ 1 + (1 | g)", "~ 1 + (1 | g)", data)
    assert fit.llf >= apart.llf - 1e-7


def test_tables_and_text(m4: mlmed.Results) -> None:
    effects = m4.effects().set_index("term").loc["exp(sigma~Intercept)"]
    assert effects["estimate"] == pytest.approx(np.exp(m4.params["sigma~Intercept"]))
    assert effects["estimate"] == pytest.approx(0.53, abs=0.005)  # the page exponentiates to .53, .50 to .56
    assert effects["conf_low"] == pytest.approx(0.50, abs=0.005)
    ranef = m4.ranef()
    assert list(ranef) == ["group_var", "effect", "group", "estimate", "std_error", "conf_low", "conf_high"]
    assert len(ranef) == 2 * m4.n_clusters
    by_hand = m4.nlcom("sqrt(`var(Intercept)`)")["std_error"].iloc[0]
    assert m4.nlcom("`sd(Intercept)`", order="first")["std_error"].iloc[0] == pytest.approx(by_hand, rel=0.01)
    document = json.loads(m4.to_json())
    assert document["llf"] == pytest.approx(m4.llf)
    assert {row["term"] for row in document["fixef"]} == {"Intercept", "sigma~Intercept"}
    assert document["equations"] == ["PA.std ~ 1 + (1 |c| id)", "sigma ~ 1 + (1 |c| id)"]
    assert [row["term"] for row in document["effects"]] == ["exp(sigma~Intercept)"]
    assert "effects" in m4.to_table()["section"].unique()
    assert "certified" in str(m4)
    pd.testing.assert_series_equal(m4.conf_int()[0], m4.fixef().set_index("term")["conf_low"], check_names=False)


def test_rows_with_missing_values_are_counted() -> None:
    data = simulated(40, 10, seed=13)
    data.loc[[3, 7], "w"] = np.nan
    before = data.copy(deep=True)
    with pytest.warns(DroppedRowsWarning, match="2 of 400 rows"):
        fit = mlmed.location_scale("y ~ x + (1 | g)", "~ w + (1 | g)", data)
    assert fit.nobs == 398
    pd.testing.assert_frame_equal(data, before)


@pytest.mark.parametrize(("J", "n", "seed"), [(40, 8, 507), (30, 5, 529), (30, 5, 541)])
def test_singular_optima_are_reached_exactly(J: int, n: int, seed: int) -> None:
    """Sets where the search ends with a pivot that is tiny and not zero: quadrature is not exact to 1e-7."""
    data = simulated(J, n, seed=seed, sd_scale=0.3 if J == 40 else 0.05)
    with pytest.warns(BoundaryWarning, match="rank 2 of 3"):
        fit = mlmed.location_scale("y ~ x + (1 + x |c| g)", "~ w + (1 |c| g)", data)
    assert fit.converged
    assert np.linalg.eigvalsh(fit.G)[0] == pytest.approx(0.0, abs=1e-12)
