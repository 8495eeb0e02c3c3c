"""A frame whose category has a level that no row of it has, as filtering leaves it: predictions are those without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mlmed
from tests.tolerances import SAME


def _mediate(data: pd.DataFrame) -> Any:
    return mlmed.mediate("m ~ x + k + (1 | id)", "y ~ m + x + k + (1 | id)", data, treatment="x")


FITS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "mixed": lambda data: mlmed.mixed("y ~ x + k + (1 | id)", data),
    "slopes": lambda data: mlmed.mixed("y ~ x + C(k) + (1 + k | id)", data),
    "mediate": _mediate,
    "location_scale": lambda data: mlmed.location_scale("y ~ x + k + (1 | id)", "~ k", data),
}


@pytest.fixture(scope="module")
def filtered() -> pd.DataFrame:
    """30 clusters of 8 rows; those with the level ``c`` are gone, the level is not."""
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(30), 8)
    x, e, f = rng.standard_normal((3, len(g)))
    k = np.array(list("abc"))[rng.integers(0, 3, len(g))]
    u, v, w = rng.standard_normal((3, 30))
    m = 0.5 * x + u[g] + e
    y = 0.4 * m + 0.2 * x + v[g] + (k == "b") * (0.5 + w[g]) + f
    table = pd.DataFrame({"id": g, "x": x, "m": m, "y": y, "k": pd.Categorical(k)})
    return table[table["k"] != "c"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("of", ["population", "cluster"])
@pytest.mark.parametrize("kind", FITS)
def test_predictions_of_a_filtered_frame(filtered: pd.DataFrame, kind: str, of: str) -> None:
    """No warning of another package, and the numbers of a column of texts."""
    plain = filtered.assign(k=filtered["k"].astype(str))
    odd, own = FITS[kind](filtered), FITS[kind](plain)
    np.testing.assert_allclose(odd.predict(filtered, of=of), own.predict(plain, of=of), rtol=SAME)
    np.testing.assert_allclose(odd.predict(filtered.iloc[:3], of=of), own.predict(plain.iloc[:3], of=of))


def test_an_ordered_category_keeps_its_levels(filtered: pd.DataFrame) -> None:
    """The order of levels is that of the fit, whatever those of the new rows are."""
    fit = FITS["mixed"](filtered)
    other = filtered["k"].cat.set_categories(["b", "c", "a"], ordered=True)
    np.testing.assert_allclose(fit.predict(filtered.assign(k=other)), fit.predict(filtered), rtol=SAME)
