"""A location-scale model as a fit like others: its scale effects, covariances, shared names, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import mlmed
from mlmed.effects.delta import wald_table
from mlmed.errors import EffectError
from mlmed.intervals.values import MonteCarlo
from tests.locscale_models import simulated
from tests.tolerances import SAME

LIMITS = ["conf_low", "conf_high"]
#: Draws, and the Monte Carlo error of a 2.5% quantile of them in standard errors: sqrt(.025 .975 / n) / density.
DRAWS, DRAWN = 40_000, 0.012


@pytest.fixture(scope="module")
def fit() -> mlmed.Results:
    return mlmed.location_scale("y ~ x + (1 |c| g)", "~ w + (1 |c| g)", simulated(60, 12, seed=4))


def test_scale_effects_are_exponentials_of_coefficients_and_of_their_limits(fit: mlmed.Results) -> None:
    effects, logs = fit.effects(), fit.fixef().iloc[2:].reset_index(drop=True)
    assert list(effects["term"]) == ["exp(sigma~Intercept)", "exp(sigma~w)"]
    names = ["estimate", *LIMITS]
    np.testing.assert_allclose(effects[names], np.exp(logs[names].astype(float)), rtol=SAME)
    np.testing.assert_allclose(effects["std_error"], effects["estimate"] * logs["std_error"], rtol=SAME)
    assert effects["statistic"].isna().tolist() == [True, False]  # an sd is never 0, a factor may be 1
    assert effects.loc[1, "statistic"] == pytest.approx(logs.loc[1, "statistic"], rel=SAME)
    assert effects.loc[1, "p_value"] == pytest.approx(logs.loc[1, "p_value"], rel=1e-10)
    alone = fit.nlcom("exp(sigma~w)")
    np.testing.assert_allclose(alone[names], effects[names].iloc[[1]], rtol=SAME)
    assert fit.nlcom("exp(sigma~w) - 1")["estimate"][0] == pytest.approx(effects.loc[1, "estimate"] - 1.0, rel=SAME)


def test_limits_of_draws(fit: mlmed.Results) -> None:
    """Quantiles are those of the log scale: the exponential is monotone."""
    drawn, plain = fit.effects("monte-carlo", n=DRAWS, seed=1), fit.effects()
    errors = plain["std_error"] / plain["estimate"]
    for name in LIMITS:
        assert (np.abs(np.log(drawn[name] / plain[name])) / errors).max() < 4.0 * DRAWN
    assert drawn[["statistic", "p_value"]].isna().all(axis=None)
    again = fit.effects(MonteCarlo(n=DRAWS, seed=1))
    np.testing.assert_array_equal(again[LIMITS], drawn[LIMITS])
    assert "monte-carlo, n 100, seed 2" in fit.summary(interval="monte-carlo", n=100, seed=2)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_factor_beyond_all_numbers_says_so() -> None:
    data = simulated(40, 10, seed=5)
    data["w"] *= 1e-5
    data["y"] *= np.exp(1e5 * data["w"])
    table = mlmed.location_scale("y ~ 1 + (1 | g)", "~ w", data).effects()
    assert table.loc[1, "estimate"] == np.inf
    assert "too large for a number: see the coefficient" in table.loc[1, "note"]


def test_factors_are_tested_against_one() -> None:
    table = wald_table(["f"], np.array([2.0]), np.array([0.5]), kinds=["factor"])
    z = np.log(2.0) / 0.25
    assert table.loc[0, "statistic"] == pytest.approx(z, rel=SAME)
    assert table.loc[0, "p_value"] == pytest.approx(2.0 * stats.norm.sf(z), rel=1e-12)
    ends = 2.0 * np.exp(np.array([-0.25, 0.25]) * stats.norm.ppf(0.975))
    np.testing.assert_allclose(table.loc[0, LIMITS].astype(float), ends, rtol=SAME)


def test_tables_have_the_layout_of_other_fits(fit: mlmed.Results) -> None:
    other = mlmed.mixed("y ~ x + (1 | g)", simulated(60, 12, seed=4))
    for name in ("tidy", "fixef", "sdcor"):
        assert list(getattr(fit, name)()) == list(getattr(other, name)())
    table = fit.tidy()
    assert list(table["term"]) == fit.names
    assert list(table["equation"]) == ["y", "y", "sigma", "sigma", "y", "y, sigma", "sigma"]
    assert set(table["group"]) == {"", "g"}
    np.testing.assert_allclose(fit.sdcor()["estimate"].iloc[:2] ** 2, np.diag(fit.G), rtol=SAME)
    assert [one.kind for one in fit.fit.parameters][4:] == ["variance", "covariance", "variance"]
    assert fit.vcov(which="fixed").shape == (4, 4)


def test_it_stands_beside_a_mixed_model(fit: mlmed.Results) -> None:
    other = mlmed.mixed("y ~ x + (1 | g)", simulated(60, 12, seed=4), method="ml")
    both = mlmed.compare(other, fit, terms=["y~x", "var(y~Intercept)", "sigma~w"])
    assert list(both.table) == ["mixed ML", "location-scale ML"]
    assert both.table.loc["y~x"].notna().all()
    assert both.table.loc["y~x", "location-scale ML"] == fit.params["x"]
    assert np.isnan(both.table.loc["sigma~w", "mixed ML"])


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda fit: fit.vcov("block"), r"vcov='block' takes fixed effects and variances as independent"),
        (lambda fit: fit.fixef(vcov="CR2"), r"vcov='CR2' is for linear mixed models and ordinary .* has vcov='joint'"),
        (lambda fit: fit.tidy(vcov="HC3"), r"vcov='HC3' is for rows that do not depend on each other"),
        (lambda fit: fit.effects(vcov="stata"), r"vcov must be one of joint; found 'stata'"),
        (lambda fit: fit.effects("bootstrap", seed=1), r"interval='bootstrap' is for effects of mlmed\.causal, mlm"),
        (lambda fit: fit.effects(order="first"), r"does not use order"),
        (lambda fit: fit.effects("monte-carlo"), r"give a seed"),
        (lambda fit: fit.effects(at={"w": 1.0}), r"taken at no other place, so leave out at="),
        (lambda fit: fit.tidy(ddf="satterthwaite"), r"is for linear mixed models; this is a location-scale model"),
        (lambda fit: fit.profile("x"), r"profile belongs to a linear mixed model; this is a location-scale model"),
        (lambda fit: fit.bootstrap(5, seed=1), r"bootstrap belongs to a linear mixed model.*; this is a location-sc"),
        (lambda fit: fit.Sigma, r"Sigma belongs to a linear mixed model"),
        (lambda fit: fit.summary("stata"), r"layout of xtmixed, which has no location-scale models"),
    ],
)
def test_what_it_does_not_have_is_refused(fit: mlmed.Results, ask: object, said: str) -> None:
    with pytest.raises(EffectError, match=said):
        ask(fit)  # type: ignore[operator]


def test_names_are_those_that_it_has(fit: mlmed.Results) -> None:
    there = set(dir(fit))
    assert {"effects", "ranef", "predict", "fitted", "sdcor", "check_starts", "nlcom", "to_json"} <= there
    assert not there & {"bootstrap", "profile", "test", "influence", "Sigma", "sigma2", "simulate", "correlations"}
