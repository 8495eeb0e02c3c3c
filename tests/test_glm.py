"""Ordinary regressions: against R (lm, glm, sandwich) and statsmodels, invariances, and what is refused."""

from __future__ import annotations

import numdifftools as nd
import numpy as np
import pandas as pd
import pytest

from mlmed.data.plain import encode_at, encode_each, plain_design, read_columns, two_levels
from mlmed.errors import DataError, EffectError, FormulaError, NotIdentifiedError
from mlmed.formula import parse_equation
from mlmed.glm.families import FAMILIES, check_family, mean_of, slope_of
from mlmed.glm.fit import GlmFit, fit_glm
from mlmed.glm.likelihood import likelihood, newton
from mlmed.glm.robust import HC_KINDS, cluster_vcov, hc_vcov
from tests.tolerances import DERIVATIVE, INVARIANT, SAME
from validation import causal_checks as validation

#: Two programs that iterate to convergence by different criteria.
CONVERGED = 1e-8
NAMES = ("Intercept", "x", "b", "c")


def design(n: int = 200, *, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Columns (1, normal, two dummies) and a linear predictor."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, n)
    X = np.column_stack([np.ones(n), rng.normal(size=n), group == 1, group == 2]).astype(float)
    return X, X @ [0.2, 0.5, -0.3, 0.4]


def response(family: str, eta: np.ndarray, *, seed: int = 2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if family == "linear":
        return eta + rng.normal(size=len(eta))
    mean = mean_of(family, eta)
    return (rng.poisson(mean) if family == "poisson" else rng.random(len(eta)) < mean).astype(float)


def fitted(family: str, **options: np.ndarray) -> GlmFit:
    X, eta = design()
    return fit_glm(family, response(family, eta), X, names=NAMES, response="y", **options)


# -- references -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_reference_r(family, dataset):
    """R's coefficients, log-likelihood, vcov, HC0 to HC3 and clusters, on framing."""
    dataset("framing")
    missed = [check for check in validation.regression(family) if not check.ok]
    assert not missed


@pytest.mark.parametrize("kind", HC_KINDS)
def test_statsmodels_hc_of_least_squares(kind):
    from statsmodels.regression.linear_model import OLS

    fit = fitted("linear")
    X, eta = design()
    theirs = OLS(response("linear", eta), X).fit().get_robustcov_results(kind).cov_params()
    np.testing.assert_allclose(hc_vcov(fit, kind), theirs, rtol=CONVERGED)


@pytest.mark.parametrize("family", ["logit", "probit", "poisson"])
def test_statsmodels_glm(family):
    from statsmodels.genmod import families
    from statsmodels.genmod.generalized_linear_model import GLM

    X, eta = design()
    kind = {"logit": families.Binomial(), "probit": families.Binomial(families.links.Probit())}
    codes = np.arange(len(X)) % 20
    y = response(family, eta)
    theirs = GLM(y, X, family=kind.get(family, families.Poisson())).fit(
        tol=1e-12, cov_type="cluster", cov_kwds={"groups": codes, "use_correction": False}
    )
    fit = fitted(family)
    np.testing.assert_allclose(fit.beta, theirs.params, rtol=CONVERGED)
    assert fit.loglik == pytest.approx(theirs.llf, rel=CONVERGED)
    if family != "probit":  # its sandwich has the observed information there, the expected one here and in R
        np.testing.assert_allclose(cluster_vcov(fit, codes) * 19 / 20, theirs.cov_params(), rtol=1e-6)


# -- definitions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_slope_of_the_mean(family):
    eta = np.linspace(-3, 2, 7)
    numeric = np.array([float(nd.Derivative(lambda e: float(mean_of(family, np.array(e))))(e)) for e in eta])
    np.testing.assert_allclose(slope_of(family, eta), numeric, rtol=DERIVATIVE)


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_repeated_rows(family):
    X, eta = design()
    y = response(family, eta)
    weights = np.random.default_rng(3).integers(0, 3, len(y)).astype(float)
    kept, rows = weights > 0, np.repeat(np.arange(len(y)), weights.astype(int))
    counted = fit_glm(family, y[kept], X[kept], names=NAMES, response="y", weights=weights[kept])
    repeated = fit_glm(family, y[rows], X[rows], names=NAMES, response="y")
    np.testing.assert_allclose(counted.beta, repeated.beta, rtol=0, atol=SAME)
    np.testing.assert_allclose(counted.vcov, repeated.vcov, rtol=1e-8)
    assert counted.loglik == pytest.approx(repeated.loglik, rel=SAME)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_start_changes_nothing(family):
    X, eta = design()
    first = fitted(family)
    again = fit_glm(family, response(family, eta), X, names=NAMES, response="y", start=first.beta)
    np.testing.assert_allclose(again.beta, first.beta, rtol=0, atol=SAME)


@pytest.mark.parametrize("family", ["logit", "probit", "poisson"])
def test_newton_finds_what_statsmodels_finds(family):
    """Resampled rows, from the estimates of all rows: the bootstrap's fits."""
    X, eta = design()
    y, first = response(family, eta), fitted(family)
    for seed in range(5):
        weights = np.bincount(np.random.default_rng(seed).integers(0, 200, 200), minlength=200).astype(float)
        kept = weights > 0
        data = {"names": NAMES, "response": "y", "weights": weights[kept]}
        near = fit_glm(family, y[kept], X[kept], start=first.beta, **data)
        theirs = fit_glm(family, y[kept], X[kept], **data)
        np.testing.assert_allclose(near.beta, theirs.beta, rtol=0, atol=CONVERGED)
        np.testing.assert_allclose(near.vcov, theirs.vcov, rtol=1e-6, atol=1e-10)
        assert near.loglik == pytest.approx(theirs.loglik, rel=SAME)


def test_newton_gives_up_without_an_optimum_nearby():
    X, _ = design()
    separated = (X[:, 1] > 0).astype(float)
    assert newton("logit", separated, X, np.ones(200), np.zeros(4)) is None
    assert newton("poisson", np.zeros(200), X, np.ones(200), np.zeros(4)) is None
    with pytest.raises(NotIdentifiedError, match="separate 0 from 1"):
        fit_glm("logit", separated, X, names=NAMES, response="y", start=np.zeros(4))


@pytest.mark.parametrize("family", ["logit", "probit", "poisson"])
def test_derivatives_of_the_log_likelihood(family):
    """Row by row, far into the tails, and the expectation of the second one over both responses."""
    for eta in (-6.0, -0.4, 0.0, 1.3, 6.0):
        for y in (0.0, 1.0):

            def value(at: float, y: float = y) -> float:
                return float(likelihood(family, np.array([y]), np.array([at])).loglik[0])

            found = likelihood(family, np.array([y]), np.array([eta]))
            assert found.score[0] == pytest.approx(float(nd.Derivative(value)(eta)), rel=1e-6, abs=1e-8)
            assert found.observed[0] == pytest.approx(-float(nd.Derivative(value, n=2)(eta)), rel=1e-4, abs=1e-6)
        if family != "poisson":
            both = likelihood(family, np.array([0.0, 1.0]), np.array([eta, eta]))
            p = float(mean_of(family, np.array(eta)))
            assert both.expected[0] == pytest.approx((1 - p) * both.observed[0] + p * both.observed[1], rel=1e-6)
            assert both.expected[0] == pytest.approx(
                float(slope_of(family, np.array(eta))) ** 2 / (p * (1 - p)), rel=1e-6
            )


@pytest.mark.parametrize("family", FAMILIES)
def test_units_do_not_matter(family):
    """x with mean 1e6 gives the same slopes, errors and leverages; the mean of 1e6 costs digits, not answers."""
    X, eta = design()
    y, first = response(family, eta), fitted(family)
    moved = X.copy()
    moved[:, 1] = 3.0 * X[:, 1] + 1e6
    second = fit_glm(family, y, moved, names=NAMES, response="y")
    np.testing.assert_allclose(second.beta[1:] * [3, 1, 1], first.beta[1:], rtol=INVARIANT)
    scaled = np.diag([3.0, 1.0, 1.0])
    np.testing.assert_allclose(scaled @ second.vcov[1:, 1:] @ scaled, first.vcov[1:, 1:], rtol=1e-6)
    np.testing.assert_allclose(second.leverage, first.leverage, rtol=1e-6)
    assert second.leverage.sum() == pytest.approx(4.0, rel=1e-8)


@pytest.mark.parametrize("family", FAMILIES)
def test_bread_and_score_are_the_first_order_change(family):
    """Counting one row a little more moves beta by bread x score (expected information for the probit)."""
    X, eta = design(2000)
    y = response(family, eta)
    fit = fit_glm(family, y, X, names=NAMES, response="y")
    weights = np.ones(len(y))
    weights[7] = 1.0 + 1e-4
    moved = fit_glm(family, y, X, names=NAMES, response="y", weights=weights)
    change = fit.bread @ X[7] * fit.score[7]
    np.testing.assert_allclose((moved.beta - fit.beta) / 1e-4, change, rtol=0.05, atol=0.05 * np.abs(change).max())


# -- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["logit", "probit", "poisson"])
def test_infinite_estimates_are_refused(family):
    """A category without variation: iterations stop, the estimate would grow for ever."""
    X, eta = design()
    y = response(family, eta)
    y[X[:, 3] == 1] = 0.0
    with pytest.raises(NotIdentifiedError, match=r"infinite estimate.*remove a predictor"):
        fit_glm(family, y, X, names=NAMES, response="y")


@pytest.mark.parametrize("family", ["logit", "probit"])
def test_perfect_separation_is_refused(family):
    X, _ = design()
    with pytest.raises(NotIdentifiedError, match="separate 0 from 1"):
        fit_glm(family, (X[:, 1] > 0).astype(float), X, names=NAMES, response="y")


@pytest.mark.parametrize(
    ("column", "match"),
    [(np.zeros(200), "'d' is constant"), (np.full(200, 7.0), "'d' is constant"), (None, "linear combination of x")],
)
def test_useless_columns_are_refused(column, match):
    X, eta = design()
    extra = 2 * X[:, 1] if column is None else column
    with pytest.raises(NotIdentifiedError, match=match):
        fit_glm("linear", eta, np.column_stack([X, extra]), names=(*NAMES, "d"), response="y")


def test_an_exact_response_is_refused():
    X, eta = design()
    with pytest.raises(DataError, match="exact linear combination"):
        fit_glm("linear", eta, X, names=NAMES, response="y")
    with pytest.raises(DataError, match="constant"):
        fit_glm("linear", np.full(200, 3.0), X, names=NAMES, response="y")


def test_too_few_rows_are_refused():
    X, eta = design()
    with pytest.raises(NotIdentifiedError, match="4 rows for 4 fixed effects"):
        fit_glm("linear", eta[:4], X[:4], names=NAMES, response="y")


@pytest.mark.parametrize(
    ("family", "y", "match"),
    [
        ("probit", np.arange(200.0), "needs a response that is 0 or 1.*200 different"),
        ("logit", np.ones(200), "1 different value"),
        ("logit", np.tile([1.0, 2.0], 100), "Recode"),
        ("poisson", np.tile([0.0, 0.5], 100), "needs counts.*100 value"),
        ("poisson", np.tile([0.0, -1.0], 100), "the first -1"),
    ],
)
def test_data_of_another_family_are_refused(family, y, match):
    X, _ = design()
    with pytest.raises(DataError, match=match):
        fit_glm(family, y, X, names=NAMES, response="y")


def test_unknown_words_are_refused():
    with pytest.raises(EffectError, match="family_m must be one of linear, logit"):
        check_family("gamma", "family_m")
    with pytest.raises(EffectError, match="HC0, HC1"):
        hc_vcov(fitted("linear"), "HC4")
    with pytest.raises(EffectError, match="at least two clusters"):
        cluster_vcov(fitted("linear"), np.zeros(200, dtype=int))


def test_leverage_one():
    """HC2 and HC3 do not exist where a row alone gives a coefficient; HC0 does."""
    X, eta = design()
    own = np.zeros(200)
    own[5] = 1.0
    fit = fit_glm("linear", response("linear", eta), np.column_stack([X, own]), names=(*NAMES, "row"), response="y")
    assert np.isfinite(hc_vcov(fit, "HC0")).all()
    for kind in ("HC2", "HC3"):
        with pytest.raises(NotIdentifiedError, match="row 5 has leverage 1"):
            hc_vcov(fit, kind)


# -- designs --------------------------------------------------------------------------------------------------


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "y": [0.5, 1.0, 2.0, 4.0, 3.0, 1.5],
            "x": [1, 2, 3, 4, 5, 6],
            "k": [1, 2, 3, 1, 2, 3],
            "g": list("aabbcc"),
            "yes": ["no", "yes"] * 3,
            "flag": [True, False] * 3,
        }
    )


def test_columns_at_values():
    data = frame()
    equation = parse_equation("y ~ x * g + C(k) + np.log(x) + flag", data.columns)
    found = plain_design(equation, read_columns((equation,), data))
    case = {"x": 2, "g": "c", "k": 3, "flag": True}
    set_to = encode_at(found.layout, found.table, case)
    row = dict(zip(found.names, set_to[0], strict=True))
    assert row["x"] == 2
    assert row["g[T.c]"] == row["C(k)[T.3]"] == row["flag"] == 1
    assert row["x:g[T.c]"] == 2
    assert row["np.log(x)"] == pytest.approx(np.log(2), rel=SAME)
    assert np.all(set_to == set_to[0])
    both = encode_each(found.layout.encodings, found.layout, found.table, [case, {}])
    np.testing.assert_array_equal(both[0], set_to)
    np.testing.assert_array_equal(both[1], found.X)
    assert encode_each((), found.layout, found.table, [case]).shape == (1, 6, 0)


@pytest.mark.parametrize(
    ("case", "match"), [({"g": "z"}, "no level 'z'; its levels are a, b, c"), ({"x": "much"}, "holds numbers")]
)
def test_values_that_cannot_be(case, match):
    data = frame()
    equation = parse_equation("y ~ x * g", data.columns)
    found = plain_design(equation, read_columns((equation,), data))
    with pytest.raises(DataError, match=match):
        encode_at(found.layout, found.table, case)


def test_factors_whose_levels_are_numbers():
    """Categories 0.0 and 1.0 stay categories when they are set."""
    data = frame().assign(g=pd.Categorical([0.0, 1.0] * 3))
    equation = parse_equation("y ~ g", data.columns)
    found = plain_design(equation, read_columns((equation,), data))
    np.testing.assert_array_equal(encode_at(found.layout, found.table, {"g": 1.0})[:, 1], np.ones(6))


@pytest.mark.parametrize(("name", "one"), [("yes", "yes"), ("flag", True)])
def test_responses_with_two_levels(name, one):
    data = frame()
    equation = parse_equation(f"{name} ~ x", data.columns)
    table = read_columns((equation,), data)
    np.testing.assert_array_equal(plain_design(equation, table, binary=True).y, (data[name] == one).astype(float))
    assert two_levels(table[name])[1] == one
    with pytest.raises(DataError, match="is not numeric"):
        plain_design(equation, table)


def test_responses_with_three_levels_are_refused():
    data = frame()
    equation = parse_equation("g ~ x", data.columns)
    with pytest.raises(DataError, match="3 categories"):
        plain_design(equation, read_columns((equation,), data), binary=True)
    equation = parse_equation("y ~ 0", data.columns)
    with pytest.raises(FormulaError, match="no fixed effect"):
        plain_design(equation, read_columns((equation,), data))
