"""Likelihood-ratio tests: restrictions, variances at their boundary, nested fits, and what must be refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import chdtrc

import mlmed
from mlmed.errors import BoundaryWarning, EffectError
from tests.models import MEDIATOR, OUTCOME

#: Two optimizations of the same model.
SAME_FIT = 1e-6


@pytest.fixture(scope="module")
def fit(dataset):
    return mlmed.mediate(MEDIATOR, OUTCOME, dataset("ml_sim"))


@pytest.fixture(scope="module")
def sleep(dataset):
    return dataset("sleepstudy")


def quiet(make, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        return make(*arguments, **options)


def test_one_restriction(dataset):
    """cov(Intercept, x) = 0 is the model with ||, fitted on its own."""
    data = dataset("ml_sim")
    full, diagonal = mlmed.mixed(MEDIATOR, data), mlmed.mixed("m ~ x + (1 + x || id)", data)
    found = full.test("`cov(Intercept,x)` = 0")
    assert found.llf == pytest.approx(diagonal.llf, rel=0, abs=1e-7)
    assert found.df == 1
    assert found.p_value == pytest.approx(chdtrc(1, 2 * (full.llf - diagonal.llf)), rel=1e-4)
    table = full.compare(diagonal)
    assert table["chi2"][1] == pytest.approx(found.chi2, abs=1e-6)
    assert list(table["n_parameters"]) == [5, 6]


def test_a_fixed_effect_of_zero_is_the_smaller_ml_model(dataset):
    data = dataset("ml_sim")
    full = mlmed.mixed("y ~ m + x + (1 | id)", data, method="ml")
    smaller = mlmed.mixed("y ~ m + (1 | id)", data, method="ml")
    assert full.test("x = 0").llf == pytest.approx(smaller.llf, rel=0, abs=1e-7)
    assert full.compare(smaller)["df"][1] == 1


def test_a_variance_is_tested_against_the_mixture(dataset):
    data = dataset("sleepstudy")
    full = mlmed.mixed("Reaction ~ Days + (1 + Days | Subject)", data)
    smaller = mlmed.mixed("Reaction ~ Days + (1 | Subject)", data)
    found = full.test("var(Days) = 0")
    chi2 = 2 * (full.llf - smaller.llf)
    assert found.chi2 == pytest.approx(chi2, abs=1e-6)
    assert found.p_value == pytest.approx(0.5 * (chdtrc(1, chi2) + chdtrc(2, chi2)), rel=1e-5)
    assert "mixture" in found.note
    assert full.compare(smaller)["p_value"][1] == pytest.approx(found.p_value, rel=1e-5)
    alone = smaller.test("var(Intercept) = 0")
    ols = sm.OLS(data["Reaction"], sm.add_constant(data["Days"])).fit()
    X, n = sm.add_constant(data["Days"]).to_numpy(), len(data)
    reml = -0.5 * ((n - 2) * (np.log(ols.ssr / (n - 2)) + 1 + np.log(2 * np.pi)) + np.linalg.slogdet(X.T @ X)[1])
    assert alone.llf == pytest.approx(reml, rel=1e-10)
    assert alone.df == 1


def test_what_cannot_be_compared(dataset):
    data = dataset("ml_sim")
    fit = mlmed.mixed("y ~ m + x + (1 | id)", data)
    with pytest.raises(EffectError, match="refit both with method='ml'"):
        fit.compare(mlmed.mixed("y ~ m + (1 | id)", data))
    with pytest.raises(EffectError, match="by REML and the other by ML"):
        fit.compare(mlmed.mixed("y ~ m + x + (1 | id)", data, method="ml"))
    with pytest.raises(EffectError, match="not of the same rows and columns"):
        fit.compare(mlmed.mixed("y ~ m + x + (1 | id)", data[8:]))
    with pytest.raises(EffectError, match="takes another fit"):
        fit.compare(data)
    table = mlmed.mixed("y ~ m + (1 | id)", data, method="ml").compare(
        mlmed.mixed("y ~ x + (1 + x | id)", data, method="ml")
    )
    assert np.isnan(table["chi2"][1])
    assert "not nested" in table["note"][1]


@pytest.mark.parametrize(
    ("hypothesis", "message"),
    [
        ("indirect", "one equation"),
        ("indirect = 0 = 1", "one equation"),
        (3, "one equation"),
        ("indirect = nan", "cannot be tested to be nan"),
        ("indirect = inf", "cannot be tested to be inf"),
        ("nothing = 0", "names 'nothing'"),
        ("`var(m~x)` = -1", "could not be brought to -1"),
    ],
)
def test_hypotheses_that_make_no_sense(fit, hypothesis, message):
    with pytest.raises(EffectError, match=message):
        fit.test(hypothesis)


def test_an_equation_between_effects(fit):
    """The same restriction in two ways; at the estimate there is nothing to reject."""
    assert fit.test("a = b").chi2 == pytest.approx(fit.test("a - b = 0").chi2, abs=1e-9)
    assert fit.test("indirect = 0.4725324").chi2 == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_an_intercept_variance_beside_a_slope(sleep, method):
    """Leaving out the intercept's effect must not leave a slope of a centred column behind."""
    full = mlmed.mixed("Reaction ~ Days + (1 + Days | Subject)", sleep, method=method)
    smaller = mlmed.mixed("Reaction ~ Days + (0 + Days | Subject)", sleep, method=method)
    found = full.test("var(Intercept) = 0")
    assert found.llf == pytest.approx(smaller.llf, abs=SAME_FIT)
    assert full.compare(smaller)["chi2"][1] == pytest.approx(found.chi2, abs=SAME_FIT)


@pytest.mark.parametrize(
    ("effect", "mediator", "outcome"),
    [
        ("m~Intercept", "m ~ x + (0 + x | id)", OUTCOME),
        ("y~Intercept", MEDIATOR, "y ~ m + x + (0 + m + x | id)"),
        ("y~m", MEDIATOR, "y ~ m + x + (1 + x | id)"),
    ],
)
def test_each_variance_of_two_equations(dataset, fit, effect, mediator, outcome):
    smaller = quiet(mlmed.mediate, mediator, outcome, dataset("ml_sim"))
    found = fit.test(f"var({effect}) = 0")
    assert found.llf == pytest.approx(smaller.llf, abs=SAME_FIT)
    assert found.df == 5


def test_variances_that_are_zero_already():
    """Both have the statistic 0 and the p value 1, whatever the rounding."""
    truth = mlmed.simulate.BPGTruth(G=np.diag([0.0, 0.0, 0.4, 0.16, 0.04]))
    data = mlmed.simulate.bpg(30, 6, truth=truth, seed=4).data
    fit = quiet(mlmed.mixed, "m ~ x + (1 + x || id)", data)
    zero = [name for name in ("Intercept", "x") if fit.G.loc[name, name] == 0.0]
    assert zero
    for name in zero:
        found = fit.test(f"var({name}) = 0")
        assert (found.chi2, found.p_value) == (0.0, 1.0)


def test_identity_and_exchangeable_blocks(sleep):
    identity = mlmed.mixed("Reaction ~ Days + (1 + Days | Subject)", sleep, covariance="identity")
    assert identity.test("var(Intercept) = 0").df == 1
    exchangeable = mlmed.mixed("Reaction ~ Days + (1 + Days | Subject)", sleep, covariance="exchangeable")
    with pytest.raises(EffectError, match="compare"):
        exchangeable.test("var(Intercept) = 0")


def test_nested_structures(sleep):
    """identity < diagonal < unstructured and identity < exchangeable < unstructured; no other pair."""
    fits = {
        kind: mlmed.mixed("Reaction ~ Days + (1 + Days | Subject)", sleep, covariance=kind)
        for kind in ("identity", "diagonal", "exchangeable", "unstructured")
    }
    nested = {
        (a, b): np.isfinite(fits[a].compare(fits[b])["chi2"][1])
        for a in fits
        for b in fits
        if fits[a].df_model < fits[b].df_model
    }
    assert all(nested.values())
    other = fits["diagonal"].compare(fits["exchangeable"])  # two parameters each
    assert "same number of parameters" in other["note"][1]
    three = "Reaction ~ Days + (1 + Days + I(Days**2) | Subject)"
    small, large = (quiet(mlmed.mixed, three, sleep, covariance=kind) for kind in ("exchangeable", "diagonal"))
    assert "not nested" in small.compare(large)["note"][1]


def test_other_clusters_are_not_nested(sleep):
    data = sleep.assign(half=sleep["Subject"].astype(str).str[-1])
    one = mlmed.mixed("Reaction ~ Days + (1 | half)", data)
    other = mlmed.mixed("Reaction ~ Days + (1 + Days | Subject)", data)
    assert "not nested" in one.compare(other)["note"][1]


def test_the_order_of_rows_does_not_matter_and_other_columns_do(sleep):
    data = sleep.assign(z=(sleep["Reaction"] - sleep["Reaction"].mean()) / sleep["Reaction"].std())
    full = mlmed.mixed("z ~ Days + (1 + Days | Subject)", data)
    shuffled = mlmed.mixed("z ~ Days + (1 | Subject)", data.sample(frac=1.0, random_state=1))
    assert np.isfinite(full.compare(shuffled)["chi2"][1])
    for offset in (0.0, 1e5):  # a large mean must not hide that the column is another one
        moved = data.assign(Days=data["Days"] + offset)
        permuted = moved.assign(Days=moved["Days"].sample(frac=1.0, random_state=1).to_numpy())
        full = mlmed.mixed("z ~ Days + (1 + Days | Subject)", moved)
        assert np.isfinite(full.compare(mlmed.mixed("z ~ Days + (1 | Subject)", moved.iloc[::-1]))["chi2"][1])
        with pytest.raises(EffectError, match="not of the same rows and columns"):
            full.compare(mlmed.mixed("z ~ Days + (1 | Subject)", permuted))


def test_a_singular_fit_says_that_its_test_is_approximate():
    fit = quiet(mlmed.mediate, MEDIATOR, OUTCOME, mlmed.simulate.bpg(25, 4, seed=2).data)
    assert fit.is_singular
    assert "approximation" in fit.test("cov_ab = 0").note


def test_names_need_no_backticks(fit):
    plain, quoted = fit.test("var(m~x) = var(y~m)"), fit.test("`var(m~x)` = `var(y~m)`")
    assert plain.chi2 == pytest.approx(quoted.chi2, rel=1e-9)
    assert fit.test("m~x = y~m").chi2 == pytest.approx(fit.test("a = b").chi2, abs=1e-9)


def test_what_lies_outside_is_refused_with_a_way_out(dataset):
    fit = mlmed.mixed(MEDIATOR, dataset("ml_sim"))
    for hypothesis in ("var(x) = -1", "2 * var(x) = 0", "var(Residual) = 0"):
        with pytest.raises(EffectError, match=r"could not be brought to .* as 'var\(...\) = 0'"):
            fit.test(hypothesis)
    edge = fit.test("cov(Intercept,x) / sqrt(var(Intercept) * var(x)) = -1")
    assert edge.chi2 > 40.0


def test_a_variance_with_several_covariances_is_said_to_be_conservative():
    """The note of the test and of the table; with one covariance the mixture has its size, and nothing is said."""
    data = mlmed.simulate.bpg(60, 10, seed=4).data
    fit = mlmed.mediate(MEDIATOR, OUTCOME, data)
    for effect in ("m~x", "y~m"):
        found = fit.test(f"var({effect}) = 0")
        assert "equal mixture of chi2(4) and chi2(5); conservative, as 4 covariances fall with it" in found.note
        assert found.note in str(found)
        assert found.p_value == pytest.approx(0.5 * (chdtrc(4, found.chi2) + chdtrc(5, found.chi2)), rel=1e-12)
    without = quiet(mlmed.mediate, "m ~ x + (1 | id)", OUTCOME, data)
    assert "conservative, as 4 covariances" in fit.compare(without)["note"][1]
    one = mlmed.mixed(MEDIATOR, data).test("var(x) = 0")
    assert "equal mixture of chi2(1) and chi2(2)" in one.note
    assert "conservative" not in one.note


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_without_its_only_random_effect_a_model_is_a_regression(method):
    """Its log-likelihood from the residual sum of squares and, with REML, log|X'X|."""
    data = mlmed.datasets.load("yuan_mackinnon_sim").assign(X=lambda d: 3.0 + 10.0 * d["X"])
    X, y = np.column_stack([np.ones(len(data)), data["X"]]), data["Med"].to_numpy()
    rss, n = float(((y - X @ np.linalg.lstsq(X, y)[0]) ** 2).sum()), len(y)
    df = n - 2 if method == "reml" else n
    llf = -0.5 * df * (np.log(2 * np.pi * rss / df) + 1.0)
    llf -= 0.5 * np.linalg.slogdet(X.T @ X)[1] if method == "reml" else 0.0
    found = mlmed.mixed("Med ~ X + (1 | group)", data, method=method).test("var(Intercept) = 0")
    assert found.llf == pytest.approx(llf, rel=1e-12)
    assert found.df == 1
