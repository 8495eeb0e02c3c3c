"""The analysis of one data set: the fit, and each interval as (low, high, std_error) by effect."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.special import ndtri

import mlmed
from mlmed.data.grams import accumulate
from mlmed.data.layout import Design
from mlmed.effects.delta import std_error
from mlmed.effects.draws import draw_interval
from mlmed.effects.paths import PathCatalogue
from mlmed.errors import MlmedWarning
from mlmed.fit.lmm import LmmFit
from mlmed.fit.names import psi
from mlmed.intervals.functions import quantity_of
from mlmed.intervals.profile import profiler_of
from mlmed.intervals.profile_search import find_end
from mlmed.lmm.estimates import to_estimates
from mlmed.lmm.optimum import optimize
from mlmed.lmm.working import build_working
from mlmed.results.inference import moving
from mlmed.results.results import Results

__all__ = ["TERMS", "fit", "study_of"]

TERMS = ("a", "b", "cprime", "cov_ab", "indirect", "total")
LEVEL = 0.95
Z = float(ndtri(0.5 + LEVEL / 2.0))
MONTE_CARLO_DRAWS = 2000
BOOTSTRAP_DRAWS = 119  # (n + 1) / 40 is a whole number: both ends are draws
BOOTSTRAP_METHODS = ("percentile", "bc", "basic", "normal")
Found = dict[str, np.ndarray]


@lru_cache(maxsize=1)
def _template() -> LmmFit:
    """A fit whose system and layout all others share (parsing formulas costs more than fitting)."""
    data = mlmed.simulate.bpg(50, 8, seed=1).data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MlmedWarning)
        return mlmed.mediate("m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)", data).fit


def fit(data: pd.DataFrame) -> Results:
    """The results of ``mlmed.mediate`` for these data."""
    made = _template()
    codes, clusters = pd.factorize(data["id"])
    columns = {name: data[name].to_numpy() for name in "xmy"}
    values = tuple(columns.get(name, np.ones(len(data))) for name in made.layout.columns)
    members, at = np.ones((2, len(data)), dtype=bool), np.arange(len(data))
    design = Design(made.layout, values, members, codes, pd.Index(clusters), at)
    grams = accumulate(design)
    working = build_working(made.spec, made.layout, grams)
    optimum = optimize(working.problem, working.blocks, reml=True)
    estimates = to_estimates(working, optimum, reml=True)
    return Results(LmmFit(made.spec, made.layout, grams, working, optimum, estimates, data), PathCatalogue("x"))


def _delta(results: Results, rng: np.random.Generator) -> Found:
    known = results.catalogue.effects(results.fit)
    quantities, found = known.quantities, {}
    for kind in ("block", "joint"):
        V = results.fit.vcov(kind)
        errors = np.array([std_error(quantities[term], V) for term in TERMS])
        estimates = np.array([quantities[term].estimate for term in TERMS])
        found[f"delta, {kind}"] = np.column_stack([estimates - Z * errors, estimates + Z * errors, errors])
        draws = results.catalogue.effects(results.fit).forms.monte_carlo(
            psi(results.fit), V, n=MONTE_CARLO_DRAWS, rng=rng
        )
        rows = [draw_interval(draws[term], quantities[term].estimate, level=LEVEL) for term in TERMS]
        found[f"monte-carlo, {kind}"] = np.array([(row.low, row.high, row.std_error) for row in rows])
    return found


def _profile(results: Results, rng: np.random.Generator) -> Found:
    rows = np.full((len(TERMS), 3), np.nan)
    profiler = profiler_of(results.fit, quantity_of("indirect", moving(results), results.fit.estimates))
    rows[TERMS.index("indirect"), :2] = [find_end(profiler, side, level=LEVEL).value for side in (-1, 1)]
    return {"profile": rows}


def _rows(table: pd.DataFrame) -> np.ndarray:
    chosen = table.set_index("term").loc[list(TERMS), ["conf_low", "conf_high", "std_error"]]
    return chosen.to_numpy(dtype=float)


def _more(results: Results, rng: np.random.Generator) -> Found:
    return {
        "delta, joint, satterthwaite": _rows(results.effects(vcov="joint", ddf="satterthwaite")),
        "delta, cluster": _rows(results.effects(vcov="cluster")),
    }


def _bootstrap(kind: str) -> Callable[[Results, np.random.Generator], Found]:
    def intervals(results: Results, rng: np.random.Generator) -> Found:
        boot = results.bootstrap(BOOTSTRAP_DRAWS, kind=kind, seed=int(rng.integers(2**31)))
        methods = (*BOOTSTRAP_METHODS, "bca") if kind == "case" else BOOTSTRAP_METHODS  # the jackknife leaves out cases
        return {f"bootstrap, {kind}, {method}": _rows(boot.tidy(ends=method, terms=list(TERMS))) for method in methods}

    return intervals


STUDIES: dict[str, Callable[[Results, np.random.Generator], Found]] = {
    "normal-theory": _delta,
    "profile": _profile,
    "small-sample": _more,
    "case": _bootstrap("case"),
    "parametric": _bootstrap("parametric"),
    "residual": _bootstrap("residual"),
}


def study_of(name: str, data: pd.DataFrame, rng: np.random.Generator) -> dict[str, object]:
    """One replicate: estimates, state of the fit, intervals by method, seconds."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MlmedWarning)
        results = fit(data)
        fitted = time.perf_counter()
        found = STUDIES[name](results, rng)
    quantities = results.catalogue.effects(results.fit).quantities
    return {
        "estimates": np.array([quantities[term].estimate for term in TERMS]),
        "singular": results.is_singular,
        "converged": results.converged,
        "intervals": found,
        "seconds": (fitted - start, time.perf_counter() - fitted),
    }
