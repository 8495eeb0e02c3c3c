"""Columns of any size: the answer of the rescaled column, or a refusal that names it, its size and the factor."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.errors import DataError, MlmedError

MEDIATOR, OUTCOME = "m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)"
#: Estimates of rescaled columns, relative: a power of ten is not exact in binary.
RESCALED = 1e-7

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

SMALL = [-310, -300, -200, -160, -140, -100, -75]
LARGE = [75, 100, 139, 140, 160, 200, 300]

MODES: dict[str, Callable[[Any], Any]] = {
    "mediate": lambda d: mlmed.mediate(MEDIATOR, OUTCOME, d),
    "mixed": lambda d: mlmed.mixed(OUTCOME, d),
    "piecewise": lambda d: mlmed.piecewise(MEDIATOR, OUTCOME, d),
    "causal": lambda d: mlmed.causal("m ~ x + (1 | id)", "y ~ m + x + (1 | id)", d, treatment="x"),
    "location_scale": lambda d: mlmed.location_scale("y ~ m + x + (1 | id)", "~ x", d),
    "grams": lambda d: mlmed.mediate(MEDIATOR, OUTCOME, mlmed.grams([MEDIATOR, OUTCOME], d)),
}


@pytest.fixture(scope="module")
def ml_sim() -> pd.DataFrame:
    return mlmed.datasets.load("ml_sim")


def times(data: pd.DataFrame, column: str, power: int) -> pd.DataFrame:
    """One column times a power of ten, in two steps where one would be no number."""
    half = 10.0 ** (power // 2)
    return data.assign(**{column: data[column] * half * 10.0 ** (power - power // 2)})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("column", ["y", "m", "x"])
def test_unusual_sizes_are_refused(ml_sim: pd.DataFrame, mode: str, column: str) -> None:
    """By name, with what is wrong and a factor that mends it; no warning of numpy, no bare error."""
    for power in SMALL + LARGE:
        data = times(ml_sim, column, power)
        with pytest.raises(DataError, match=rf"column '{column}' has values of size .*; multiply it by 1e") as caught:
            MODES[mode](data)
        factor = re.search(r"multiply it by 1e(-?\d+)", str(caught.value))
        assert factor is not None
        assert 0.1 < np.abs(times(data, column, int(factor[1]))[column]).max() < 1e2


@pytest.mark.parametrize("power", [-300, -160, -75, 100, 139, 160, 300])
def test_engines_refuse_them_too(ml_sim: pd.DataFrame, power: int) -> None:
    """Their sums underflow and overflow as ours do."""
    duckdb = pytest.importorskip("duckdb")
    polars = pytest.importorskip("polars")
    for column in ("y", "m", "x"):
        data = times(ml_sim, column, power)
        for rows in (duckdb.from_df(data), polars.from_pandas(data).lazy()):
            with pytest.raises(MlmedError, match=rf"{column}.*usual size"):
                mlmed.mediate(MEDIATOR, OUTCOME, rows)


@pytest.mark.parametrize("power", [-69, -40, -20, 20, 40, 69])
@pytest.mark.parametrize("column", ["y", "m", "x"])
def test_other_sizes_are_answered(ml_sim: pd.DataFrame, column: str, power: int) -> None:
    """Everything scales: estimates and standard errors of fixed effects, variances, effects and sds."""
    base, fit = (mlmed.mediate(MEDIATOR, OUTCOME, d) for d in (ml_sim, times(ml_sim, column, power)))
    assert fit.converged
    unit = 10.0**power
    size = {"y": {"y": unit}, "m": {"m": unit}, "x": {"x": unit}}[column]
    per = {
        "m~Intercept": size.get("m", 1.0),
        "m~x": size.get("m", 1.0) / size.get("x", 1.0),
        "y~Intercept": size.get("y", 1.0),
        "y~m": size.get("y", 1.0) / size.get("m", 1.0),
        "y~x": size.get("y", 1.0) / size.get("x", 1.0),
    }
    one, other = (f.fixef().set_index("term")[["estimate", "std_error"]] for f in (base, fit))
    for term, factor in per.items():
        # scaled, because a tolerance of .estimate itself would hide a zero
        assert other.loc[term].to_numpy(dtype=float) / factor == pytest.approx(
            one.loc[term].to_numpy(dtype=float), rel=RESCALED
        )
    ratio = np.sqrt(np.diag(fit.fit.estimates.G) / np.diag(base.fit.estimates.G)) / list(per.values())
    assert ratio == pytest.approx(np.ones(5), rel=RESCALED)
    for table in (fit.tidy(), fit.effects(), fit.sdcor()):
        errors = table["std_error"].dropna().to_numpy(dtype=float)
        assert np.isfinite(errors).all()
        assert (errors > 0.0).all()


def test_a_ratio_that_leaves_the_range_is_refused(ml_sim: pd.DataFrame) -> None:
    """Both columns can be computed with, their coefficient cannot."""
    data = times(times(ml_sim, "y", 50), "x", -60)
    with pytest.raises(
        DataError, match=r"response has standard deviation .*e\+50 and the predictor 'x' .*'x' by 1e6\d"
    ):
        mlmed.mixed("y ~ x + (1 | id)", data)


def test_a_column_of_zeros_and_ids_of_any_size_are_not_meant(ml_sim: pd.DataFrame) -> None:
    """Zeros are constant, ids are names."""
    with pytest.raises(DataError, match="constant"):
        mlmed.mixed("y ~ m + (1 | id)", ml_sim.assign(m=0.0))
    named = ml_sim.assign(id=ml_sim["id"].astype(float) * 2.0**-300)
    assert mlmed.mixed("y ~ m + (1 | id)", named).llf == mlmed.mixed("y ~ m + (1 | id)", ml_sim).llf
