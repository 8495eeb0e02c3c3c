"""What needs no fit of a case: fits side by side, simulations, sums, the stacked table, published examples."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from validation.lock.adapter import (
    Asked,
    added,
    ask,
    compared,
    fit,
    power,
    replicated,
    reproduced,
    stacked,
    stored,
    study,
    written_sql,
)
from validation.lock.cases import JOINT, TWO, YUAN, ml_sim, yuan

__all__ = ["OTHERS"]


def _every_school() -> dict[str, Any]:
    data = yuan()
    fits = [fit(school, *YUAN, data) for school in ("joint", "separate", "causal")]
    truth = {"a": 0.2, "b": -0.2, "cprime": 0.3, "cov_ab": -0.1, "indirect": -0.14, "total": 0.16}
    published = {"brms": {"indirect": (-0.13, 0.08)}, "Stan": {"a": (0.142, 0.113), "indirect": (-0.115, 0.067)}}
    return compared(*fits, truth=truth, published=published)


def _both_methods() -> dict[str, Any]:
    fits = [fit("joint", *JOINT, ml_sim(), method=method) for method in ("reml", "ml")]
    return compared(*fits, names=["one", "two"], terms={"share": "indirect / total", "sd": "sqrt(var(m~x))"}, level=0.9)


def _sums() -> dict[str, Any]:
    sums = fit("sums", list(YUAN), yuan())
    halves = [fit("sums", list(YUAN), yuan()[part]) for part in (slice(None, 333), slice(333, None))]
    with tempfile.TemporaryDirectory() as folder:
        again = stored(added(*halves), Path(folder) / "sums.parquet")
    return {"one": ask(sums, Asked("sums")), "added": ask(again, Asked("sums"))}


def _sql() -> str:
    import duckdb

    frame = yuan()[["group", "X", "Med", "y", "f"]]
    return written_sql(["Med ~ X + (1 + X | group)", "y ~ Med + f * X + (1 | group)"], duckdb.from_df(frame))


def _normal(rng: np.random.Generator) -> float:
    return float(rng.normal())


OTHERS: dict[str, Callable[[], Any]] = {
    "compare schools": _every_school,
    "compare methods": _both_methods,
    "sums": _sums,
    "sql": _sql,
    "stack": lambda: stacked(yuan(), x="X", m="Med", y="y", cluster="group", covariates=("w",)),
    "stack by equation": lambda: stacked(yuan()[:20], x="X", m="Med", y="y", cluster="group", order="equations"),
    "power": lambda: power([15, 25], 6, n=12, a=0.4, b=0.3, cov_ab=0.03, seed=1),
    "power, monte carlo": lambda: power(15, 6, n=8, interval="monte-carlo", draws=200, seed=2, vcov="block"),
    "power 2-1-1": lambda: power(20, 6, n=8, design="2-1-1", interval="product", seed=1),
    "power 2-2-1": lambda: power(20, 6, n=8, design="2-2-1", seed=1),
    "study": lambda: study((0.0, 0.1), n_clusters=20, cluster_size=6, n=8, seed=1),
    "replicate": lambda: replicated(_normal, 5, seed=1),
    "reproduce gpa": lambda: reproduced("gpa"),
    "reproduce stata-bpg": lambda: reproduced("stata-bpg"),
    "two responses as sums": lambda: ask(fit("mixed", TWO, fit("sums", TWO, yuan())), Asked("tidy")),
}
