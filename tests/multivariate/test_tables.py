"""Standard deviations, correlations, conditional modes and the summary of several responses."""

from __future__ import annotations

import numdifftools as nd
import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.effects.delta import delta_table
from mlmed.effects.sdcor import linear_covariance, sdcor_quantities
from mlmed.errors import BoundaryWarning, EffectError
from mlmed.intervals.sdcor import headline_correlations
from mlmed.lmm.vcov import Vcov
from tests.models import MEDIATOR, OUTCOME
from tests.multivariate.models import TWO, two_responses, with_residual_covariance, without_variance_of_m
from tests.tolerances import DERIVATIVE, SAME

#: 0.975 quantile of the normal distribution.
Z95 = 1.959963984540054
#: brms prints posterior means and sds of two decimals; a mode of the likelihood lies within half a sd of the mean.
HALF_SD = 0.5
#: Printed with five decimals, last one rounded.
FIVE_DECIMALS = 5.1e-6


@pytest.fixture(scope="module")
def data():
    return two_responses(11, holes=False)


@pytest.fixture(scope="module")
def fit(data):
    return mlmed.mixed(TWO, data)


@pytest.fixture(scope="module")
def correlated(fit):
    return with_residual_covariance(fit, value=0.2, error=0.03)


def of_matrix(matrix: np.ndarray) -> np.ndarray:
    """Sds, then correlations row by row above the diagonal."""
    sd = np.sqrt(np.diag(matrix))
    return np.append(sd, (matrix / np.outer(sd, sd))[np.triu_indices(len(sd), 1)])


def test_derivatives():
    """Against numdifftools, on a matrix with one free covariance and one variance that two rows share."""
    at = np.array([[0, 0], [1, 1], [1, 0]])
    matrix = linear_covariance(["a", "b"], at, 1, 5)
    psi = np.array([9.0, 2.0, 0.7, -0.4, 3.0])
    found = sdcor_quantities(matrix, psi)
    assert list(found) == ["sd(a)", "sd(b)", "cor(a,b)"]

    def value(k):
        return lambda p: of_matrix(np.array([[p[1], p[3]], [p[3], p[2]]]))[k]

    for k, quantity in enumerate(found.values()):
        assert quantity.estimate == pytest.approx(value(k)(psi), rel=SAME)
        np.testing.assert_allclose(quantity.gradient, nd.Gradient(value(k))(psi), rtol=DERIVATIVE, atol=1e-9)
        np.testing.assert_allclose(quantity.hessian, nd.Hessian(value(k))(psi), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("covariance", ["unstructured", "diagonal", "identity", "exchangeable"])
def test_table_is_that_of_the_covariance_matrix(data, covariance):
    """Every structure: values from G and Sigma; errors by the delta method with numdifftools; no missing pair."""
    fit = mlmed.mixed(TWO, data, covariance=covariance)
    estimates, table = fit.fit.estimates, fit.sdcor().set_index("term")
    p, T = len(estimates.beta), len(estimates.tau)
    np.testing.assert_allclose(np.tensordot(estimates.tau, estimates.tau_basis, 1), estimates.G, rtol=SAME, atol=SAME)
    names = list(fit.G.index)
    sds = [f"sd({name})" for name in names]
    np.testing.assert_allclose(table.loc[sds, "estimate"], np.sqrt(np.diag(estimates.G)), rtol=SAME)
    cors = [f"cor({a},{b})" for i, a in enumerate(names) for b in names[i + 1 :]]
    shown = [name for name in table.index if name.startswith("cor(")]
    assert shown == (cors if covariance in ("unstructured", "exchangeable") else [])
    V = fit.vcov().to_numpy()
    for position, term in enumerate(sds + shown):

        def value(psi, position=position):
            return of_matrix(np.tensordot(psi[p : p + T], estimates.tau_basis, 1))[position]

        psi = np.concatenate([estimates.beta, estimates.tau, estimates.sigma2])
        step = nd.MinStepGenerator(base_step=1e-4, num_steps=7)
        slope = nd.Gradient(value, step=step)(psi)
        assert table.loc[term, "std_error"] == pytest.approx(np.sqrt(slope @ V @ slope), rel=DERIVATIVE), term


def test_intervals(fit, correlated):
    table = correlated.sdcor().set_index("term")
    assert list(table.columns) == ["group", "estimate", "std_error", "conf_low", "conf_high", "note"]
    assert table["group"].tolist() == ["id"] * 10 + ["Residual"] * 3
    row = table.loc["sd(m~Intercept)"]
    factor = np.exp(Z95 * row["std_error"] / row["estimate"])
    assert row["conf_low"] == pytest.approx(row["estimate"] / factor, rel=SAME)
    assert row["conf_high"] == pytest.approx(row["estimate"] * factor, rel=SAME)
    for term in ("cor(m~x,y~w)", "cor(m~Residual,y~Residual)"):
        row = table.loc[term]
        spread = Z95 * row["std_error"] / (1.0 - row["estimate"] ** 2)
        assert np.arctanh(row["conf_low"]) == pytest.approx(np.arctanh(row["estimate"]) - spread, rel=SAME)
        assert np.arctanh(row["conf_high"]) == pytest.approx(np.arctanh(row["estimate"]) + spread, rel=SAME)
    s1, s2 = correlated.fit.estimates.sigma2[:2]
    assert table.loc["cor(m~Residual,y~Residual)", "estimate"] == pytest.approx(0.2 / np.sqrt(s1 * s2), rel=SAME)
    error = np.sqrt(fit.vcov().loc["var(m~Residual)", "var(m~Residual)"])
    assert table.loc["sd(m~Residual)", "std_error"] == pytest.approx(error / (2 * np.sqrt(s1)), rel=SAME)


def test_block_and_joint_agree_on_variances(fit):
    pd.testing.assert_frame_equal(fit.sdcor(), fit.sdcor(vcov="joint"), rtol=SAME)
    assert not np.allclose(fit.sdcor()["std_error"], fit.sdcor(vcov="cluster")["std_error"])


def test_correlations(fit, correlated):
    table = fit.correlations()
    first = ["part", "equation1", "equation2", "term1", "term2"]
    assert list(table.columns) == [*first, "estimate", "std_error", "conf_low", "conf_high", "note"]
    assert table[first].values.tolist() == [
        ["between", "m", "m", "Intercept", "x"],
        ["between", "m", "y", "Intercept", "Intercept"],
        ["between", "m", "y", "Intercept", "w"],
        ["between", "m", "y", "x", "Intercept"],
        ["between", "m", "y", "x", "w"],
        ["between", "y", "y", "Intercept", "w"],
    ]
    np.testing.assert_allclose(table["estimate"], of_matrix(fit.G.to_numpy())[4:], rtol=SAME)
    both = correlated.correlations(level=0.5)
    assert both[first].values.tolist()[6:] == [["within", "m", "y", "Residual", "Residual"]]
    assert (both["conf_high"][:6] < table["conf_high"]).all()
    alone = mlmed.mixed("m ~ x + (1 | id)", two_responses(11, holes=False))
    assert list(alone.correlations().columns) == list(table.columns)
    assert not len(alone.correlations())
    assert alone.sdcor()["term"].tolist() == ["sd(Intercept)", "sd(Residual)"]


def test_names_are_known_everywhere(fit):
    """sd() and cor() in nlcom, profile and test are the same functions of the parameters as written out."""
    r, long = "cor(m~Intercept,y~Intercept)", "cov(m~Intercept,y~Intercept) / sqrt(var(m~Intercept) * var(y~Intercept))"
    short = fit.nlcom(f"1 * {r}").drop(columns="term")
    pd.testing.assert_frame_equal(short, fit.nlcom(long).drop(columns="term"), rtol=DERIVATIVE)
    assert fit.nlcom(f"1 * {r}", order="first")["std_error"][0] == pytest.approx(
        fit.sdcor().set_index("term").loc[r, "std_error"], rel=SAME
    )
    np.testing.assert_allclose(fit.profile(r).interval, fit.profile(long).interval, rtol=1e-5)
    sd, var = fit.profile("sd(y~w)").interval, fit.profile("var(y~w)").interval
    np.testing.assert_allclose(np.square(sd), var, rtol=1e-5)  # drops of 1e-8 in -2l
    assert fit.test(f"{r} = 0").chi2 == pytest.approx(fit.test("cov(m~Intercept,y~Intercept) = 0").chi2, rel=1e-6)
    assert fit.test("sd(y~w) = 0") == mlmed.results.likelihood.LRTest(
        "sd(y~w) = 0", *(getattr(fit.test("var(y~w) = 0"), n) for n in ("chi2", "df", "p_value", "llf", "note"))
    )
    one = fit.nlcom(lambda values: values["cov(m~Intercept,y~Intercept)"])
    assert one["estimate"][0] == fit.G.loc["m~Intercept", "y~Intercept"]


def test_a_variance_of_zero():
    """m has no variance between clusters at all: sd 0 without an error, no correlation, and the reasons."""
    data = two_responses(3, holes=False)
    data = without_variance_of_m(data)
    with pytest.warns(BoundaryWarning):
        fit = mlmed.mixed(["m ~ 1 + (1 |c| id)", "y ~ 1 + (1 |c| id)"], data)
    table = fit.sdcor().set_index("term")
    numbers = ["std_error", "conf_low", "conf_high"]
    assert table.loc["sd(m~Intercept)", "estimate"] == 0.0
    assert table.loc["sd(m~Intercept)", numbers].isna().all()
    assert "the variance is 0" in table.loc["sd(m~Intercept)", "note"]
    assert table.loc["cor(m~Intercept,y~Intercept)", ["estimate", *numbers]].isna().all()
    assert table.loc["cor(m~Intercept,y~Intercept)", "note"] == "does not exist: the variance of m~Intercept is 0"
    assert "not positive definite" in table.loc["sd(y~Intercept)", "note"]
    assert table.loc["sd(y~Intercept)", "std_error":"conf_high"].isna().all()
    shrinkage = fit.ranef().set_index("effect")["shrinkage"]
    assert shrinkage["m~Intercept"].isna().all()
    assert shrinkage["y~Intercept"].between(0.0, 1.0).all()
    with pytest.raises(EffectError, match=r"cor\(m~Intercept,y~Intercept\) cannot be moved.*does not exist"):
        fit.profile("cor(m~Intercept,y~Intercept)")
    assert "does not exist" in fit.summary()


def test_a_correlation_of_one():
    data = mlmed.simulate.bpg(12, 4, seed=6).data
    with pytest.warns(BoundaryWarning):
        fit = mlmed.mixed(["m ~ x + (1 |c| id)", "y ~ x + (1 |c| id)"], data)
    row = fit.sdcor().set_index("term").loc["cor(m~Intercept,y~Intercept)"]
    assert row["estimate"] == pytest.approx(1.0, abs=SAME)
    assert row[["std_error", "conf_low", "conf_high"]].isna().all()
    assert row["note"] == "the correlation is +1, on the boundary: no standard error"
    notes = fit.sdcor().set_index("term")["note"]
    assert "boundary (singular) fit" in notes["sd(y~Intercept)"]
    assert notes["sd(y~Residual)"] == ""


def test_covariances_that_do_not_exist_say_why():
    """NaN in V spoils what it touches, and only that."""
    V = Vcov.one(np.diag([1.0, np.nan]), "why")
    matrix = linear_covariance(["a", "b"], np.array([[0, 0], [1, 1]]), 0, 2)
    table = delta_table(list(sdcor_quantities(matrix, np.array([4.0, 9.0])).values()), V, level=0.95)
    assert table["note"].tolist() == ["", "why"]
    np.testing.assert_allclose(table["std_error"], [0.25, np.nan], rtol=SAME)


# -- conditional modes -----------------------------------------------------------------------------------------


def test_shrinkage_of_random_intercepts():
    """s2 / (s2 + n G) in a cluster of n rows; the mode is the rest of the mean residual."""
    data = two_responses(7)[["id", "y"]].dropna()
    fit = mlmed.mixed("y ~ 1 + (1 | id)", data)
    G, s2 = fit.G.iloc[0, 0], fit.sigma2.iloc[0]
    table = fit.ranef().set_index("group")
    size = data.groupby("id").size()
    np.testing.assert_allclose(table["shrinkage"], (s2 / (s2 + size * G))[table.index], rtol=1e-9)
    mean = data.groupby("id")["y"].mean() - fit.params["Intercept"]
    np.testing.assert_allclose(table["estimate"], ((1 - table["shrinkage"]) * mean)[table.index], rtol=1e-7)
    assert size.nunique() > 1


# -- published ----------------------------------------------------------------------------------------------------


def near(table: pd.DataFrame, printed: dict[str, tuple[float, float]]) -> None:
    """Estimates within half of a printed posterior sd of the posterior mean; rounding is added."""
    found = table.set_index("term")["estimate"]
    for term, (mean, sd) in printed.items():
        assert found[term] == pytest.approx(mean, abs=HALF_SD * sd + 0.005), term


def test_brms_williams(dataset):
    """Weston, "week 8: multilevel models", m2 and m3 (brms): sds, correlations, sigmas, as mean (sd)."""
    data = dataset("williams")
    m2 = mlmed.mixed(["NA.std ~ 1 + (1 |c| id)", "PA.std ~ 1 + (1 |c| id)"], data, residual="unstructured")
    near(
        m2.sdcor(),
        {
            "sd(NA.std~Intercept)": (0.73, 0.04), "sd(PA.std~Intercept)": (0.81, 0.04),
            "cor(NA.std~Intercept,PA.std~Intercept)": (-0.05, 0.07),
            "sd(NA.std~Residual)": (0.63, 0.0), "sd(PA.std~Residual)": (0.60, 0.0),
        },
    )  # fmt: skip
    right = "NA_lag + PA_lag + (1 + NA_lag + PA_lag |c| id)"
    m3 = mlmed.mixed([f"NA.std ~ {right}", f"PA.std ~ {right}"], data, residual="unstructured")
    near(
        m3.sdcor(),
        {
            "sd(NA.std~Intercept)": (0.44, 0.03), "sd(NA.std~NA_lag)": (0.15, 0.01), "sd(NA.std~PA_lag)": (0.07, 0.02),
            "sd(PA.std~Intercept)": (0.43, 0.03), "sd(PA.std~NA_lag)": (0.05, 0.02), "sd(PA.std~PA_lag)": (0.11, 0.01),
            "cor(NA.std~Intercept,NA.std~NA_lag)": (0.09, 0.10), "cor(NA.std~Intercept,NA.std~PA_lag)": (0.30, 0.15),
            "cor(NA.std~NA_lag,NA.std~PA_lag)": (0.07, 0.18), "cor(NA.std~Intercept,PA.std~Intercept)": (-0.13, 0.08),
            "cor(NA.std~NA_lag,PA.std~Intercept)": (-0.00, 0.11), "cor(NA.std~PA_lag,PA.std~Intercept)": (-0.12, 0.16),
            "cor(NA.std~Intercept,PA.std~NA_lag)": (-0.06, 0.17), "cor(NA.std~NA_lag,PA.std~NA_lag)": (-0.03, 0.21),
            "cor(NA.std~PA_lag,PA.std~NA_lag)": (0.26, 0.24), "cor(PA.std~Intercept,PA.std~NA_lag)": (-0.24, 0.18),
            "cor(NA.std~Intercept,PA.std~PA_lag)": (-0.18, 0.11), "cor(NA.std~NA_lag,PA.std~PA_lag)": (0.10, 0.15),
            "cor(NA.std~PA_lag,PA.std~PA_lag)": (-0.12, 0.18), "cor(PA.std~Intercept,PA.std~PA_lag)": (0.09, 0.11),
            "sd(NA.std~Residual)": (0.59, 0.0), "sd(PA.std~Residual)": (0.54, 0.0),
        },
    )  # fmt: skip


def test_brms_and_lme4_gpa(dataset):
    """Clark, "Bayesian approaches" of "Mixed models with R": brms' mean (sd), and lme4's Std.Dev. and Corr."""
    fit = mlmed.mixed("gpa ~ occasion + (1 + occasion | student)", dataset("gpa"))
    near(
        fit.sdcor(),
        {
            "sd(Intercept)": (0.21, 0.02), "sd(occasion)": (0.07, 0.01),
            "cor(Intercept,occasion)": (-0.09, 0.11), "sd(Residual)": (0.21, 0.01),
        },
    )  # fmt: skip
    found = fit.sdcor().set_index("term")["estimate"]
    lme4 = {"sd(Intercept)": 0.21259, "sd(occasion)": 0.06711, "sd(Residual)": 0.20588}
    for term, value in lme4.items():
        assert found[term] == pytest.approx(value, abs=FIVE_DECIMALS), term
    assert round(found["cor(Intercept,occasion)"], 2) == -0.10


# -- the summary --------------------------------------------------------------------------------------------------


def test_summary_shows_between_and_within(fit, correlated, data):
    heading = "Correlations of responses: intercepts"
    table = headline_correlations(correlated.fit, vcov="block", level=0.95)
    assert table["correlation"].tolist() == ["between id: m, y", "within: m, y"]
    assert table["estimate"].tolist() == correlated.correlations()["estimate"].iloc[[1, 6]].tolist()
    text = fit.summary()
    tail = text[text.index(heading) :].splitlines()
    assert [line.split("  ")[0] for line in tail[2:]] == ["between id: m, y"]
    assert f"{table['estimate'][0]:.6f}" in tail[2]
    assert heading not in mlmed.mixed(["m ~ x + (1 | id)", "y ~ x + (1 | id)"], data).summary()
    assert heading not in mlmed.mediate(MEDIATOR, OUTCOME, mlmed.simulate.bpg(50, 6, seed=8).data).summary()


def test_three_responses_in_order(data):
    three = [f"{name} ~ 1 + (1 |c| id)" for name in ("m", "y", "w")]
    noisy = data.assign(w=data["w"] + np.random.default_rng(1).normal(size=31)[data["id"]])
    text = mlmed.mixed(three, noisy).summary()
    places = [text.index(f"between id: {pair}") for pair in ("m, y", "m, w", "y, w")]
    assert places == sorted(places)


def test_stata_layout_is_refused(fit):
    with pytest.raises(EffectError, match=r"responses m, y.*varcorr\(\)"):
        fit.summary(style="stata")
