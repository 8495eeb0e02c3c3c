"""Columns of the data that are called like columns, rows or arguments of ours."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

import mlmed
from mlmed.effects.delta import COLUMNS
from mlmed.errors import EffectError
from mlmed.report.text import render_table
from tests.tolerances import SAME

pytestmark = pytest.mark.filterwarnings("ignore::mlmed.errors.MlmedWarning", "ignore::DeprecationWarning")
JOINT = "m ~ x + (1 | id)", "y ~ m + x + (1 | id)"


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    made = mlmed.simulate.bpg(14, 8, seed=4).data
    return made.assign(g=np.where(made["x"] > 0, "high", "low"))


def renamed(data: pd.DataFrame, formulas: tuple[str, ...], old: str, new: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The data and formulas with another name for one column."""
    spaced = tuple(f" {formula} ".replace("(", "( ").replace(")", " )") for formula in formulas)
    return data.rename(columns={old: new}), tuple(text.replace(f" {old} ", f" {new} ").strip() for text in spaced)


# -- tables with a column of the user's ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nobs", *COLUMNS])
def test_clusters_called_like_a_column_of_groups(data, name):
    table, formulas = renamed(data, JOINT, "id", name)
    fit = mlmed.causal(*formulas, table, treatment="x")
    assert len(fit.effects())
    with pytest.raises(EffectError, match=f"a cluster variable called '{name}' cannot be told from a column"):
        fit.groups()


def test_clusters_called_otherwise_have_their_groups(data):
    table, formulas = renamed(data, JOINT, "id", "group")
    found = mlmed.causal(*formulas, table, treatment="x").groups()
    assert list(found.columns) == ["group", "nobs", *COLUMNS]
    expected = mlmed.causal(*JOINT, data, treatment="x").groups()
    np.testing.assert_allclose(found["estimate"], expected["estimate"], rtol=SAME)


@pytest.mark.parametrize("name", ["response", "estimate", "std_error", "conf_low", "conf_high"])
def test_a_predictor_called_like_a_column_of_conditional_effects(data, name):
    table, (formula,) = renamed(data, ("y ~ x + (1 | id)",), "x", name)
    fit = mlmed.mixed(formula, table)
    with pytest.raises(EffectError, match=f"a predictor called '{name}' cannot be told from a column"):
        fit.conditional_effects(name)


@pytest.mark.parametrize(
    "name", ["estimate", "std_error", "conf_low", "conf_high", "sd", "sd_conf_low", "sd_conf_high"]
)
@pytest.mark.parametrize("column", ["x", "g"])
def test_a_predictor_called_like_a_column_of_predict_is_drawn(data, name, column):
    """The picture is the one of the same data under another name."""
    pytest.importorskip("matplotlib").use("Agg")
    formulas = f"y ~ {column} + (1 | id)", f"~ {column}"
    table, others = renamed(data, formulas, column, name)
    here = mlmed.location_scale(*others, table).plot.prediction(name, points=4)
    there = mlmed.location_scale(*formulas, data).plot.prediction(column, points=4)
    for ours, theirs in zip(here, there, strict=True):
        assert ours.get_xlabel() == name
        (mine,), (other,) = ours.lines, theirs.lines
        np.testing.assert_allclose(mine.get_xydata(), other.get_xydata(), rtol=SAME)


# -- names that Python or a table has a use for --------------------------------------------------------------------


@pytest.mark.parametrize("old", ["x", "m", "y", "id"])
def test_a_column_called_self(data, old):
    """Every number is that of the same data under another name."""
    table, formulas = renamed(data, JOINT, old, "self")
    treatment = "self" if old == "x" else "x"
    ours, theirs = mlmed.mediate(*formulas, table, treatment=treatment), mlmed.mediate(*JOINT, data)
    np.testing.assert_allclose(ours.effects()["estimate"], theirs.effects()["estimate"], rtol=SAME)
    new, other = table.head(6), data.head(6)
    np.testing.assert_allclose(ours.predict(new, of="cluster"), theirs.predict(other, of="cluster"), rtol=SAME)
    np.testing.assert_allclose(ours.simulate(seed=1), theirs.simulate(seed=1), rtol=SAME)
    separate = mlmed.piecewise(*formulas, table, treatment=treatment).effects()["estimate"]
    np.testing.assert_allclose(separate, mlmed.piecewise(*JOINT, data).effects()["estimate"], rtol=SAME)
    causal = mlmed.causal(*formulas, table, treatment=treatment).effects()["estimate"]
    np.testing.assert_allclose(causal, mlmed.causal(*JOINT, data, treatment="x").effects()["estimate"], rtol=SAME)


def test_clusters_called_residual(data):
    """Variances of the clusters stand where they do under another name."""
    table, formulas = renamed(data, JOINT, "id", "Residual")
    fit = mlmed.mediate(*formulas, table)
    expected = mlmed.mediate(*JOINT, data)
    for name in ("varcorr", "residual"):
        ours, theirs = fit.sections()[name], expected.sections()[name]
        assert list(ours["term"]) == list(theirs["term"])
        np.testing.assert_allclose(ours["estimate"], theirs["estimate"], rtol=SAME)
    assert fit.summary().replace("Residual by", "id by").count("var(m~Residual)") == 1


@pytest.mark.parametrize("make", [lambda table: table, lambda table: pl.from_pandas(table).lazy()])
def test_a_random_effect_called_residual_has_its_own_name(data, make):
    found = mlmed.mixed("y ~ Residual + (1 + Residual | id)", make(data.rename(columns={"x": "Residual"})))
    expected = mlmed.mixed("y ~ x + (1 + x | id)", data)
    assert found.varcorr()["estimate"].to_numpy() == pytest.approx(expected.varcorr()["estimate"].to_numpy(), rel=1e-6)
    assert found.varcorr()["term"].tolist()[1] == "var(random(Residual))"


def test_a_table_without_rows_is_its_headings():
    assert render_table(pd.DataFrame({"term": [], "estimate": []})) == "term  estimate"


# -- clusters called like the residual -----------------------------------------------------------------------------

FITS = {
    "mixed": lambda d, g: mlmed.mixed(f"y ~ x + (1 + x | {g})", d),
    "correlated": lambda d, g: mlmed.mixed([f"m ~ x + (1 | {g})", f"y ~ x + (1 | {g})"], d, residual="unstructured"),
    "mediate": lambda d, g: mlmed.mediate(f"m ~ x + (1 | {g})", f"y ~ m + x + (1 | {g})", d),
    "piecewise": lambda d, g: mlmed.piecewise(f"m ~ x + (1 | {g})", f"y ~ m + x + (1 | {g})", d),
    "causal": lambda d, g: mlmed.causal(f"m ~ x + (1 | {g})", f"y ~ m + x + (1 | {g})", d, treatment="x"),
    "causal, rows": lambda d, g: mlmed.causal("m ~ x", "y ~ m + x", d, treatment="x", cluster=g),
    "location_scale": lambda d, g: mlmed.location_scale(f"y ~ x + (1 | {g})", f"~ x + (1 | {g})", d, nodes=5),
}
TABLES = ("fixef", "varcorr", "sdcor", "tidy", "effects", "to_table", "ranef")


@pytest.mark.parametrize("name", ["Residual", "sigma"])
@pytest.mark.parametrize("mode", FITS)
def test_clusters_called_like_a_parameter(data, mode, name):
    """Every table and text is that of another name, and terms tell variances of clusters from those of residuals."""
    expected, found = FITS[mode](data, "id"), FITS[mode](data.rename(columns={"id": name}), name)
    without = {"effects"} if mode in ("mixed", "correlated") else set()
    for made in (table for table in TABLES if table in {*dir(expected)} - without):
        one, other = (getattr(fit, made)() for fit in (expected, found))
        numbers = [column for column in one if pd.api.types.is_numeric_dtype(one[column])]
        np.testing.assert_allclose(other[numbers], one[numbers], rtol=SAME)
        for column in set(one) - set(numbers):
            texts = (table[column].astype(str).replace(name, "id").tolist() for table in (other, one))
            assert next(texts) == next(texts)
        assert made not in ("varcorr", "sdcor") or not other["term"].duplicated().any()
    words = ([word.replace(name, "id") for word in fit.summary().split()] for fit in (found, expected))
    assert next(words) == next(words)
    if "predict" in dir(found):
        new, at = data.head(5), {"of": "cluster"} if "ranef" in dir(found) else {}
        again = found.predict(new.rename(columns={"id": name}), **at)
        np.testing.assert_allclose(again, expected.predict(new, **at), rtol=SAME)


def test_clusters_called_residual_are_simulated_and_drawn(data):
    table = data.rename(columns={"id": "Residual"})
    for mode in ("mediate", "piecewise"):
        expected, found = FITS[mode](data, "id"), FITS[mode](table, "Residual")
        draws = [fit.bootstrap(5, seed=1).draws for fit in (expected, found)]
        pd.testing.assert_frame_equal(*draws)
    pairs = ((data, "id"), (table, "Residual"))
    influence = [FITS["mediate"](d, g).influence(refit=False).tidy().reset_index(drop=True) for d, g in pairs]
    pd.testing.assert_frame_equal(*(table.replace("Residual", "id") for table in influence))
