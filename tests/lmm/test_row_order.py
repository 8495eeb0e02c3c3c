"""Decisions do not depend on the order of the rows.

Sums in another order differ in their last digits, as they do between processors. Whether a model is refused or
certified, the rank of G and which numbers do not exist must not follow these digits. All data are clearly on one side:
optima that are interior or singular by far (multipliers of 48 and 400), duplicates that are exact.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.errors import MlmedError, MlmedWarning
from mlmed.fit.lmm import LmmFit
from mlmed.simulate import BPGTruth
from tests.models import MEDIATOR, OUTCOME
from tests.multivariate.dense import simulated

#: Other orders; fewer where the same engine is run again, or takes longer.
ORDERS, FEW = 10, 3
#: Estimates of the same rows in two orders, relative to their standard errors (or sizes): an optimum to a Newton
#: decrement below 1e-8 would be 1e-4 off; ours end below 1e-16.
SAME_ESTIMATE = 1e-6


def no_direct_slope() -> pd.DataFrame:
    """Rank 4 of 5: the slopes of x in y's equation do not vary."""
    G = np.array(BPGTruth().G)
    G[4, :] = G[:, 4] = 0.0
    return mlmed.simulate.bpg(60, 10, truth=BPGTruth(G=G), seed=5).data


def with_holes() -> pd.DataFrame:
    data = mlmed.simulate.bpg(60, 10, seed=4).data
    data.loc[::6, "y"] = np.nan
    data.loc[3::11, "m"] = np.nan
    return data


def flat() -> pd.DataFrame:
    """Cluster means of y are all zero: no variance between clusters is left."""
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"id": np.repeat(np.arange(30), 6), "x": rng.normal(size=180), "y": rng.normal(size=180)})
    return data.assign(y=data["y"] - data.groupby("id")["y"].transform("mean"))


def two_equations(data: pd.DataFrame) -> Any:
    return mlmed.mediate(MEDIATOR, OUTCOME, data)


def two_responses(data: pd.DataFrame) -> Any:
    return mlmed.mixed(
        ["y0 ~ x + (1 + x |c| id)", "y1 ~ x + w + (1 |c| id)", "y2 ~ x + (1 |c| id)"], data, residual="unstructured"
    )


def one_equation(data: pd.DataFrame) -> Any:
    return mlmed.mixed("y ~ x + (1 | id)", data)


#: Data, model, and what is decided: certified and rank of G, or the words of the refusal.
CASES: dict[str, tuple[Callable[[], pd.DataFrame], Callable[[pd.DataFrame], Any], Any]] = {
    "ordinary": (lambda: mlmed.simulate.bpg(100, 10, seed=1).data, two_equations, (True, 5)),
    "singular": (no_direct_slope, two_equations, (True, 4)),
    "small and singular": (lambda: mlmed.simulate.bpg(12, 4, seed=3).data, two_equations, (True, 3)),
    "no variance": (flat, one_equation, (True, 0)),
    "missing values": (with_holes, two_equations, (True, 5)),
    "several responses": (lambda: simulated(60, 8, seed=2), two_responses, (True, 4)),
    "several responses, missing values": (lambda: simulated(60, 8, seed=2, missing=0.2), two_responses, (True, 4)),
    "a response twice": (lambda: simulated(30, 8, seed=2).assign(y1=lambda d: d["y0"]), two_responses, "y0.*y1|y1.*y0"),
    "collinear": (
        lambda: flat().assign(x=lambda d: d["id"] * 1.0, z=lambda d: 2.0 * d["id"] + 1.0),
        lambda data: mlmed.mixed("y ~ x + z + (1 | id)", data),
        "linear combination",
    ),
    "separate": (
        lambda: mlmed.simulate.bpg(60, 10, seed=4).data,
        lambda data: mlmed.piecewise(MEDIATOR, OUTCOME, data),
        None,
    ),
    "potential outcomes": (
        lambda: mlmed.simulate.bpg(60, 10, seed=4).data,
        lambda data: mlmed.causal("m ~ x", "y ~ m * x", data, cluster="id"),
        None,
    ),
    "location and scale": (
        lambda: mlmed.simulate.bpg(60, 10, seed=4).data,
        lambda data: mlmed.location_scale("m ~ x + (1 | id)", "~ x", data),
        None,
    ),
}
BRIEF = ("separate", "potential outcomes", "location and scale")


def shuffled(data: pd.DataFrame, orders: int) -> Iterator[pd.DataFrame]:
    """As it is, and in other orders; the index goes along."""
    yield data
    for seed in range(orders):
        yield data.sample(frac=1.0, random_state=seed)


def without_numbers(text: str) -> str:
    return re.sub(r"[-+]?[\d.]+(e[-+]?\d+)?", "#", text)


def tables_of(fit: Any) -> dict[str, pd.DataFrame]:
    """What has numbers and notes, by name."""
    if not isinstance(fit, mlmed.Results):
        return {"effects": fit.effects()}
    found = {name: table for name, table in (("tidy", fit.tidy()), ("varcorr", fit.varcorr())) if len(table)}
    if fit.catalogue.school != "mixed":
        found["effects"] = fit.effects()
    if isinstance(fit.fit, LmmFit):
        found |= {"robust": fit.tidy(vcov="CR2"), "joint": fit.tidy(vcov="joint")}
        found["df"] = fit.tidy(ddf="satterthwaite")
    return found


def decisions(
    model: Callable[[pd.DataFrame], Any], data: pd.DataFrame
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """What was decided, in words, and the tables."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MlmedWarning)
        try:
            fit = model(data)
        except MlmedError as error:
            return {"refused": without_numbers(f"{type(error).__name__}: {error}"), "text": str(error)}, {}
        tables = tables_of(fit)
    found: dict[str, Any] = {"warned": [(w.category, without_numbers(str(w.message))) for w in caught]}
    if isinstance(fit, mlmed.Results):
        found |= {"certified": fit.converged, "singular": fit.is_singular}
        found["rank"] = fit.fit.optimum.rank if isinstance(fit.fit, LmmFit) else None
    for name, table in tables.items():
        numbers = table.select_dtypes("number")
        found[f"{name}: missing"] = np.isnan(numbers.to_numpy()).tolist()
        found[f"{name}: notes"] = [without_numbers(note) for note in table["note"]] if "note" in table else []
    return found, tables


@pytest.mark.parametrize("case", CASES)
def test_the_order_of_the_rows_decides_nothing(case):
    make, model, expected = CASES[case]
    orders = shuffled(make(), FEW if case in BRIEF else ORDERS)
    first, tables = decisions(model, next(orders))
    if isinstance(expected, str):
        assert re.search(expected, first["text"])
    elif expected is not None:
        assert (first["certified"], first["rank"]) == expected
    first.pop("text", None)
    for data in orders:
        found, others = decisions(model, data)
        found.pop("text", None)
        assert found == first
        for name, table in tables.items():
            sizes = table["std_error"].where(table["std_error"] > 0.0, table["estimate"].abs() + 1e-300)
            gap = (others[name]["estimate"] - table["estimate"]).abs() / sizes
            assert gap.max() < SAME_ESTIMATE, name


def test_the_canary():
    """Two data sets that differ in a decision are told apart."""
    assert decisions(one_equation, flat())[0] != decisions(one_equation, flat().assign(y=lambda d: d["y"] + d["id"]))[0]
