"""Levels, designs, and what is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.api.piecewise import piecewise
from mlmed.data.levels import cluster_table, levels_of
from mlmed.errors import (
    DataError,
    EffectError,
    FormulaError,
    LevelWarning,
    NotIdentifiedError,
)
from tests.piecewise_models import LOWER, MEDIATOR, OUTCOME, UPPER
from tests.tolerances import SAME


def test_levels_are_found_and_printed(data):
    fit = piecewise(
        "q ~ z + w + g",
        "y ~ q + z + w + v + arm + (1 | id)",
        data.drop(columns="arm").assign(arm=data["g"] == "hi"),
        treatment="z",
    )
    table = fit.levels
    assert list(table.columns) == ["variable", "role", "level"]
    assert table.set_index("variable")["level"].to_dict() == {"z": 2, "q": 2, "y": 1, "arm": 2, "g": 2, "v": 1, "w": 2}
    assert list(table["role"][:3]) == ["treatment", "mediator", "outcome"]
    assert set(table["role"][3:]) == {"covariate"}
    table.loc[0, "level"] = 9
    assert fit.levels.loc[0, "level"] == 2
    text = fit.summary()
    assert "2-2-1" in text
    assert "q          mediator      2" in text


@pytest.mark.parametrize(
    ("values", "level"),
    [
        ([1.0, 1.0, 2.0, 2.0], 2),
        ([1.0, np.nan, 2.0, np.nan], 2),
        ([1.0, 1.0, 2.0, 2.0 + 1e-3], 1),
        ([1e9, 1e9, 1e9 + 1, 1e9 + 1], 2),
        ([0.1 + 0.2, 0.3, 2.0, 2.0], 2),  # rounding is not variation
        ([np.nan] * 4, 2),
        ([5.0] * 4, 2),
        (pd.Categorical(["a", "a", "b", "b"]), 2),
        (pd.Categorical(["a", None, "b", "a"]), 1),
        (pd.array([True, None, False, False], dtype="boolean"), 2),
        (pd.array([True, True, False, True], dtype="boolean"), 1),
    ],
)
def test_levels_of_columns(values, level):
    table = pd.DataFrame({"v": values})
    codes = np.array([0, 0, 1, 1])
    assert levels_of(table, codes, ["v"]) == {"v": level}
    more = pd.concat([table, table.iloc[[0]]], ignore_index=True)
    assert levels_of(more, np.append(codes, -1), ["v"]) == {"v": level}  # a row without a cluster


def test_the_table_of_clusters_skips_missing_values():
    table = pd.DataFrame({"z": [np.nan, 1.5, 2.5, np.nan, 9.0], "g": pd.Categorical(["a", None, "b", "b", "a"])})
    found = cluster_table(table, np.array([0, 0, 2, 1, -1]), ["z", "g"])
    assert found["z"].tolist()[0] == 1.5
    assert np.isnan(found["z"][1])
    assert found["z"][2] == 2.5
    assert found["g"].tolist() == ["a", "b", "b"]


def test_a_random_intercept_that_is_not_used(data, upper):
    with pytest.warns(LevelWarning, match="random intercept of 'q ~ z .* is not used") as caught:
        fit = piecewise("q ~ z + (1 | id)", LOWER, data)
    assert len(caught) == 1
    pd.testing.assert_frame_equal(fit.effects(), upper.effects())


def test_a_slope_between_clusters_is_said_once(data):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        piecewise("m ~ x + (1 | id)", "y ~ m + x + w + (1 + w | id)", data)
    said = [str(one.message) for one in caught if one.category is LevelWarning]
    assert len(said) == 1
    assert "y~w, which does not vary within clusters" in said[0]


REFUSED = {
    "upward": ("q ~ x", "y ~ q + x + (1 | id)", {}, DataError, "treatment x varies within clusters.*upward effect"),
    "upward covariate": ("q ~ z + v", LOWER, {"treatment": "z"}, DataError, r"predictor\(s\) v vary within clusters"),
    "upper outcome": (MEDIATOR, "w ~ m + x + (1 | id)", {}, DataError, "outcome w is the same.*x and m vary.*upward"),
    "upper outcome, upper x": ("m ~ z + (1 | id)", "w ~ m + z + (1 | id)", {}, DataError, "but m varies within"),
    "nothing nested": (UPPER, "w ~ q + z + (1 | id)", {}, DataError, "nothing is nested.*mlmed.causal"),
    "upper slope": ("q ~ z + (1 + z | id)", LOWER, {}, FormulaError, "random effects 1 \\+ z.*Write 'q ~ z'"),
    "upper slope alone": ("q ~ z + (0 + z | id)", LOWER, {}, FormulaError, "random effects 0 \\+ z"),
    "no random term": ("m ~ x", OUTCOME, {}, FormulaError, "has no random term"),
    "no random term in y": (UPPER, "y ~ q + z", {}, FormulaError, "has no random term"),
    "other clusters": ("m ~ x + (1 | g)", OUTCOME, {}, FormulaError, "different cluster variables"),
    "other clusters above": ("q ~ z + (1 | g)", LOWER, {}, FormulaError, "different cluster variables"),
    "no mediator": (MEDIATOR, "y ~ x + (1 | id)", {}, FormulaError, "mediator m is not in the fixed part"),
    "feedback": ("m ~ x + y + (1 | id)", OUTCOME, {"treatment": "x"}, FormulaError, "feed back"),
    "which treatment": ("m ~ x + v + (1 | id)", OUTCOME, {}, FormulaError, "which variable is the treatment"),
    "no such treatment": (MEDIATOR, OUTCOME, {"treatment": "v"}, FormulaError, "'v' is not in the mediator equation"),
    "shared label": ("m ~ x + (1 |i| id)", "y ~ m + x + (1 |i| id)", {}, FormulaError, "label 'i'.*mlmed.mediate"),
    "only the mediator varies": (MEDIATOR, "y ~ m + x + (0 + m | id)", {}, FormulaError, "no random term left.*total="),
    "total, response": (MEDIATOR, OUTCOME, {"total": "w ~ x + (1 | id)"}, FormulaError, "the response w, not y"),
    "total, mediator": (MEDIATOR, OUTCOME, {"total": "y ~ x + m + (1 | id)"}, FormulaError, "has the mediator m"),
    "total, treatment": (MEDIATOR, OUTCOME, {"total": "y ~ v + (1 | id)"}, FormulaError, "not have the treatment x"),
    "total, random": (MEDIATOR, OUTCOME, {"total": "y ~ x"}, FormulaError, "must have random terms"),
    "total, clusters": (MEDIATOR, OUTCOME, {"total": "y ~ x + (1 | g)"}, FormulaError, "the cluster variable of"),
    "method": (MEDIATOR, OUTCOME, {"method": "mle"}, FormulaError, "method must be one of"),
    "structure": (MEDIATOR, OUTCOME, {"covariance": "toeplitz"}, FormulaError, "covariance must be one of"),
    "structure, type": (MEDIATOR, OUTCOME, {"covariance": 3}, FormulaError, "covariance must be one of"),
    "structure, label": (MEDIATOR, OUTCOME, {"covariance": {"k": "diagonal"}}, FormulaError, "names the block k"),
    "contrast": (MEDIATOR, OUTCOME, {"contrast": (1, 1)}, FormulaError, "two different values"),
    "unknown column": ("m ~ xx + (1 | id)", OUTCOME, {}, DataError, "column 'xx' is not in the data"),
    "text outcome": (MEDIATOR, "g ~ m + x + (1 | id)", {}, DataError, "outcome g is the same"),
    "text mediator": ("g ~ z", "y ~ g + z + (1 | id)", {}, DataError, "response 'g' is not numeric"),
    "collinear": ("q ~ z + I(2*z)", LOWER, {"treatment": "z"}, NotIdentifiedError, "linear combination"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, data):
    mediator, outcome, options, error, said = REFUSED[case]
    before = data.copy()
    with pytest.raises(error, match=said):
        piecewise(mediator, outcome, data, **options)
    pd.testing.assert_frame_equal(data, before)


@pytest.mark.parametrize(
    ("name", "role"), [("x", "treatment"), ("m", "mediator"), ("y", "outcome"), ("v", "covariate")]
)
@pytest.mark.parametrize(("value", "found"), [(3.0, r"is constant \(3\)"), (np.nan, "has only missing values")])
def test_a_constant_is_no_variable_of_the_clusters(data, name, role, value, found):
    """It has one value in every cluster, but nothing is an upward effect of it."""
    with pytest.raises(DataError, match=f"the {role} '{name}' {found}.*check how the column was read"):
        piecewise("m ~ x + v + (1 | id)", "y ~ m + x + v + (1 | id)", data.assign(**{name: value}), treatment="x")


def test_refused_data(data):
    with pytest.raises(DataError, match="stored Grams have none"):
        piecewise(MEDIATOR, OUTCOME, mlmed.grams([MEDIATOR, OUTCOME], data))
    with pytest.raises(DataError, match="'q' is constant"):
        piecewise(UPPER, LOWER, data.assign(q=1.0))
    with pytest.raises(DataError, match=r"the mediator 'q' has only missing values.*check how the column was read"):
        piecewise(UPPER, LOWER, data.assign(q=np.nan))
    half = data["id"] < 20
    with pytest.raises(DataError, match=r"no cluster with all its values \(missing q: 20, z: 20\)"):
        piecewise(UPPER, LOWER, data.assign(q=data["q"].where(half), z=data["z"].where(~half)))
    with pytest.raises(NotIdentifiedError, match="2 rows for 2 fixed effects"):
        piecewise(UPPER, LOWER, data[data["id"].isin([0, 1 + int(data["z"][0] == data["z"][6])])])
    one_each = data.groupby("id").head(1)
    with pytest.raises(DataError, match="nothing is nested"):
        piecewise(MEDIATOR, OUTCOME, one_each)


BAD_OPTIONS = [
    ({"interval": "profile"}, r"is for effects of mlmed\.mediate; these have 'delta', 'monte-carlo', 'product', 'boot"),
    ({"n": 10}, "interval='delta' does not use n; n belongs to interval='monte-carlo' and interval='bootstrap'"),
    ({"strata": "z"}, "does not use strata"),
    ({"interval": "product", "order": "first"}, "does not use order"),
    ({"interval": "product", "seed": 1}, "does not use seed"),
    ({"interval": "monte-carlo"}, "give a seed"),
    ({"interval": "monte-carlo", "seed": 1, "ends": "bca"}, "does not use ends"),
    ({"interval": "bootstrap", "n": 40}, "give a seed"),
    ({"interval": "bootstrap", "seed": 1, "n": 0}, "a whole number from 1"),
    ({"interval": "bootstrap", "seed": 1, "vcov": "joint"}, "does not use vcov"),
    ({"interval": "bootstrap", "seed": 1, "ends": "t"}, "ends must be one of"),
    ({"interval": "bootstrap", "seed": 1, "n_jobs": 0}, "n_jobs is a number of workers"),
    ({"order": "third"}, "order must be one of first, second, unbiased"),
    ({"vcov": "HC3"}, "use one of block, joint, CR0"),
    ({"level": 95}, "level must be a proportion"),
    ({"at": {"v": 1.0}}, "at names v, which no equation uses"),
]


@pytest.mark.parametrize(("options", "said"), BAD_OPTIONS)
def test_refused_options(fit, upper, options, said):
    for one in (fit, upper):
        with pytest.raises(EffectError, match=said):
            one.effects(**options)


def test_refused_strata(fit, data):
    with pytest.raises(DataError, match="strata='v' varies within clusters"):
        fit.bootstrap(5, seed=1, strata="v")
    with pytest.raises(DataError, match="is the cluster variable"):
        fit.bootstrap(5, seed=1, strata="id")
    with pytest.raises(DataError, match="column 'nope' is not in the data"):
        fit.bootstrap(5, seed=1, strata="nope")
    with pytest.raises(EffectError, match="name of a column"):
        fit.bootstrap(5, seed=1, strata=3)
    holes = data.assign(s=data["z"].where(data["id"] != 4))
    with pytest.raises(DataError, match="no value for 1 of 40 clusters, the first id 4"):
        piecewise(MEDIATOR, OUTCOME, holes).bootstrap(5, seed=1, strata="s")
    changed = data.copy()
    again = piecewise(MEDIATOR, OUTCOME, changed)
    changed["id"] += 1
    with pytest.raises(EffectError, match="changed after the fit"):
        again.bootstrap(5, seed=1, strata="z")


def test_a_regression_of_clusters_answers_to_the_names_of_statsmodels(upper):
    """The same names as a mixed fit has, the numbers of ``fixef``."""
    found, table = upper.mediator, upper.mediator.fixef().set_index("term")
    np.testing.assert_allclose(found.pvalues, table["p_value"], rtol=SAME)
    np.testing.assert_allclose(found.tvalues, table["statistic"], rtol=SAME)
    np.testing.assert_allclose(found.conf_int(), table[["conf_low", "conf_high"]], rtol=SAME)
