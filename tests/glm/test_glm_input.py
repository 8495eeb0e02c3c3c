"""What ordinary regressions refuse, and their designs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsmodels.regression.linear_model import OLS

import mlmed
from mlmed.data.design import encode_each, plain_design, read_columns, two_levels
from mlmed.errors import DataError, EffectError, FormulaError, NotIdentifiedError
from mlmed.formula import parse_equation
from mlmed.glm.fit import cluster_vcov, fit_glm, hc_vcov, moves_of_one
from mlmed.options import FAMILIES, one_of
from tests.glm_models import NAMES, design, fitted, response
from tests.tolerances import SAME

# -- what is refused -----------------------------------------------------------------------------------------------


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
        one_of("gamma", FAMILIES, "family_m")
    with pytest.raises(EffectError, match="HC0, HC1"):
        hc_vcov(fitted("linear"), "HC4")
    with pytest.raises(EffectError, match="at least two clusters"):
        cluster_vcov(fitted("linear"), np.zeros(200, dtype=int))


def test_leverage_one():
    """A row that alone gives a coefficient says nothing of the others: their HC2 and HC3 are those without the row."""
    X, eta = design()
    own = np.zeros(200)
    own[5] = 1.0
    fit = fit_glm("linear", response("linear", eta), np.column_stack([X, own]), names=(*NAMES, "row"), response="y")
    assert np.isfinite(hc_vcov(fit, "HC0")).all()
    kept, y = np.arange(200) != 5, response("linear", eta)
    for kind in ("HC2", "HC3"):
        expected = OLS(y[kept], X[kept]).fit(cov_type=kind).cov_params()
        assert hc_vcov(fit, kind)[:-1, :-1] == pytest.approx(expected, rel=1e-9)
    assert moves_of_one(fit).owners == (5,)


# -- designs -------------------------------------------------------------------------------------------------------


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
    set_to = encode_each(found.layout.encodings, found.layout, found.table, [case])[0]
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
        encode_each(found.layout.encodings, found.layout, found.table, [case])[0]


def test_factors_whose_levels_are_numbers():
    """Categories 0.0 and 1.0 stay categories when they are set."""
    data = frame().assign(g=pd.Categorical([0.0, 1.0] * 3))
    equation = parse_equation("y ~ g", data.columns)
    found = plain_design(equation, read_columns((equation,), data))
    np.testing.assert_array_equal(
        encode_each(found.layout.encodings, found.layout, found.table, [{"g": 1.0}])[0][:, 1], np.ones(6)
    )


@pytest.mark.parametrize(("name", "one"), [("yes", "yes"), ("flag", True)])
def test_responses_with_two_levels(name, one):
    data = frame()
    equation = parse_equation(f"{name} ~ x", data.columns)
    table = read_columns((equation,), data)
    np.testing.assert_array_equal(plain_design(equation, table, binary=True).y, (data[name] == one).astype(float))
    assert two_levels(table[name])[1] == one
    if name == "flag":  # true and false are 0 and 1 also where a number is needed
        np.testing.assert_array_equal(plain_design(equation, table).y, data[name].astype(float))
        return
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


@pytest.mark.parametrize("family", ["linear", "poisson", "logit"])
def test_a_constant_response_is_called_constant(family: str) -> None:
    """Counts that are all 3 are not "separated"."""
    data = pd.DataFrame({"x": np.arange(20.0) % 2, "m": np.ones(20), "y": np.sin(np.arange(20.0))})
    with pytest.raises(DataError, match=r"the response 'm' is constant \(1\) in the rows of its equation; choose"):
        mlmed.causal("m ~ x", "y ~ m + x", data, family_m=family)
