"""Fits that warn, a class of warnings each; what they estimate is not asked."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from validation.lock.adapter import fit, run_command, simulated, stacked
from validation.lock.cases import JOINT, ml_sim, yuan

__all__ = ["WARNED"]


def _warns(school: str, *equations: Any, data: Callable[[], Any] = ml_sim, **options: Any) -> Callable[[], str]:
    """A fit, of which only the warnings are kept."""

    def call() -> str:
        fit(school, *equations, data(), **options)
        return "fitted"

    return call


def _alike() -> pd.DataFrame:
    """An id of which some rows have a blank more."""
    data = ml_sim()
    return data.assign(id=np.where(data.index % 8 == 0, data["id"].astype(str) + " ", data["id"].astype(str)))


def _marked() -> pd.DataFrame:
    data = ml_sim()
    return data.assign(g=np.array(["a", "b", "."])[data.index % 3])


def _unordered() -> Any:
    import polars

    data = yuan()
    return polars.from_pandas(data.assign(f=pd.Categorical(data["f"], categories=["c", "b", "a"])))


def _centred() -> pd.DataFrame:
    """Means of clusters beside random intercepts that covary: the two say the same."""
    data = simulated(100, 8, seed=0)
    means = data.groupby("id")[["x", "m"]].transform("mean")
    return data.assign(x_w=data["x"] - means["x"], x_b=means["x"], m_w=data["m"] - means["m"], m_b=means["m"])


def _labelled_file() -> dict[str, Any]:
    """Value labels of a Stata file, one column all of them, one only the ends."""
    data = yuan().assign(arm=lambda rows: rows.index % 3, ends=lambda rows: rows.index % 5)
    labels = {"arm": {0: "none", 1: "low", 2: "high"}, "ends": {0: "never", 4: "always"}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labelled.dta"
        data[["group", "X", "y", "arm", "ends"]].to_stata(path, write_index=False, value_labels=labels)
        found = run_command(["mixed", str(path), "--formula", "y ~ arm + ends + (1 | group)", "--format", "text"])
    return {name: one.replace(folder, "FOLDER") if isinstance(one, str) else one for name, one in found.items()}


WARNED: dict[str, Callable[[], Any]] = {
    "two values, mixed": _warns("mixed", "y01 ~ x + (1 | id)"),
    "two values, joint": _warns("joint", "m ~ x + (1 | id)", "y01 ~ m + x + (1 | id)"),
    "two values, separate": _warns("separate", "m ~ x + (1 | id)", "y01 ~ m + x + (1 | id)"),
    "slopes apart": _warns("joint", "m ~ x + (1 | id) + (0 + x | id)", JOINT[1]),
    "treatment of clusters": _warns("joint", "m ~ z + (1 | id)", "y ~ m + z + (1 | id)"),
    "slope of clusters": _warns("mixed", "y ~ x + v + (1 + v | id)"),
    "slope of clusters, separate": _warns("separate", "m ~ x + v + (1 + v | id)", JOINT[1], treatment="x"),
    "slope of clusters, causal": _warns("causal", "m ~ x + v + (1 + v | id)", "y ~ m + x + (1 | id)", treatment="x"),
    "slope of clusters, location-scale": _warns("location-scale", "y ~ x + v + (1 + v | id)", "~ x"),
    "ids alike": _warns("joint", *JOINT, data=_alike),
    "ids alike, stacked": lambda: len(stacked(_alike(), x="x", m="m", y="y", cluster="id")),
    "mark of missing values": _warns("mixed", "y ~ g + (1 | id)", data=_marked),
    "mark of missing values, sums": _warns("sums", "y ~ g + (1 | id)", data=_marked),
    "categories without order": _warns("mixed", "y ~ f + (1 | group)", data=_unordered),
    "flat": _warns(
        "joint",
        "m ~ x_w + x_b + (1 + x_w | id)",
        "y ~ m + m_b + x_w + x_b + (1 + m_w + x_w | id)",
        data=_centred,
        treatment="x_w",
    ),
    "few nodes": _warns("location-scale", "y ~ X + (1 |c| group)", "~ X + (1 |c| group)", data=yuan, nodes=3),
    "labels of a file": _labelled_file,
}
