"""Intervals, degrees of freedom and robust covariances against other software and their definitions."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.special import ndtri

import mlmed
from mlmed.errors import BoundaryWarning
from validation.checks import HERE, Check, absolute, fit_mediation, load_data, load_json, relative
from validation.reference_checks import data_of, reference_names

__all__ = [
    "bootstrap_from_rows",
    "drops",
    "interval_checks",
    "monte_carlo",
    "profile_names",
    "profiles",
    "robust",
    "small_sample_names",
    "small_samples",
]

#: Degrees of freedom and Kenward-Roger standard errors, relative (reached: below 1e-6).
SMALL_SAMPLE = 1e-4
#: clubSandwich's matrices, relative to the two standard errors.
ROBUST = 1e-6
#: lme4's profile intervals (splines through a fine grid of refits), relative to the width of the interval.
SPLINE = 1e-6
#: Drop of the log-likelihood at the ends of a profile interval.
DROP = 1e-6
#: A replicate fitted from rows and from cross-products.
SAME_REPLICATE = 1e-8
#: Draws of the Monte Carlo check; a standard deviation of n draws has relative error 1/sqrt(2n).
DRAWS = 200_000


def small_sample_names() -> list[str]:
    """Names of reference fits of one equation with degrees of freedom."""
    return [name for name in reference_names() if "kr_df" in load_json("reference", name)]


def small_samples(name: str) -> Iterator[Check]:
    """Satterthwaite (lmerTest) and Kenward-Roger (pbkrtest)."""
    reference = load_json("reference", name)
    fit = mlmed.mixed(reference["formula"], load_data(data_of(name)), method=reference["method"].lower())
    table = f"{name}, small sample"
    found = {ddf: fit.tidy(ddf=ddf).set_index("term") for ddf in ("satterthwaite", "kenward-roger")}
    pairs = [("satterthwaite", "df", "satterthwaite_df"), ("kenward-roger", "df", "kr_df")]
    for ddf, column, key in [*pairs, ("kenward-roger", "std_error", "kr_se")]:
        for term, theirs in zip(fit.params.index, reference[key].values(), strict=True):
            ours = float(found[ddf].loc[term, column])
            yield relative(table, f"{ddf} {column} {term}", ours, float(theirs), SMALL_SAMPLE)


def robust() -> Iterator[Check]:
    """CR0, CR1 and CR2 of clubSandwich."""
    for model in load_json("reference", "robust/clubsandwich")["fits"]:
        fit = mlmed.mixed(model["formula"], load_data(model["data"]))
        for kind, theirs in model["robust"].items():
            matrix, ours = np.array(theirs, dtype=float), fit.vcov(kind, which="fixed").to_numpy()
            error = np.sqrt(np.diag(matrix))
            for i, row in enumerate(fit.params.index):
                for j in range(i + 1):
                    label = f"{kind} {row}, {fit.params.index[j]}"
                    size = float(error[i] * error[j])
                    yield relative(f"clubSandwich {model['name']}", label, ours[i, j], matrix[i, j], ROBUST, size)


def profile_names() -> list[str]:
    """Names of fits with profile intervals by lme4."""
    return sorted(path.stem for path in (HERE / "reference/profile").glob("*.json"))


def profiles(name: str) -> Iterator[Check]:
    """Fixed effects, standard deviations and residual sd of an ML fit."""
    reference = load_json("reference", f"profile/{name}")
    fit = mlmed.mixed(reference["formula"], load_data(reference["data"]), method="ml")
    table = f"lme4 profile {name}"
    yield absolute(table, "log-likelihood", fit.llf, float(reference["logLik"]), 1e-7)
    for theirs, low in reference["low"].items():
        if theirs.startswith("cor_"):  # lme4 profiles correlations in another parametrization
            continue
        high = reference["high"][theirs]
        found = fit.profile(_our_name(theirs), points=4).interval
        for side, ours, end in zip(("low", "high"), found, (low, high), strict=True):
            yield relative(table, f"{theirs} {side}", ours, end, SPLINE, high - low)


def _our_name(name: str) -> str:
    """Our name for lme4's: sd_(Intercept)|id, sigma, x."""
    if name == "sigma":
        return "sqrt(`var(Residual)`)"
    plain = name.replace("(Intercept)", "Intercept")
    return f"sqrt(`var({plain[3:].split('|')[0]})`)" if plain.startswith("sd_") else plain


def drops() -> Iterator[Check]:
    """The log-likelihood at the ends of profile intervals of effects."""
    for method in ("reml", "ml"):
        fit = fit_mediation("ml_sim", method)
        for term in ("a", "b", "cprime", "cov_ab", "indirect", "total"):
            found = fit.profile(term, points=4)
            for side, end in zip(("low", "high"), found.ends, strict=True):
                target = 0.5 * float(ndtri(0.975)) ** 2
                yield absolute("profile drop", f"{method} {term} {side}", 0.5 * end.drop, target, DROP)


def monte_carlo() -> Iterator[Check]:
    """Standard deviations of Monte Carlo draws equal second-order delta errors, .0533 and .0583 on the page."""
    fit = fit_mediation("ml_sim", "reml")
    drawn = fit.effects(interval="monte-carlo", n=DRAWS, seed=1).set_index("term")["std_error"]
    exact = fit.effects().set_index("term")["std_error"]
    for term in exact.index:
        bound = 4.0 / np.sqrt(2 * DRAWS)
        yield relative("Monte Carlo SE against delta", term, float(drawn[term]), float(exact[term]), bound)
    for term, published in (("indirect", "0.0533"), ("total", "0.0583")):
        error = 4.0 / np.sqrt(2 * DRAWS) * float(published) + 0.00005
        yield absolute("Monte Carlo SE against delta", f"{term}, Stata's page", float(drawn[term]), published, error)


def bootstrap_from_rows() -> Iterator[Check]:
    """Replicates of the case bootstrap against fits of the same clusters from rows."""
    data, seed, n = load_data("ml_sim"), 3, 5
    draws = fit_mediation("ml_sim", "reml").bootstrap(n, seed=seed).draws
    groups = [rows for _, rows in data.groupby("id", sort=True)]
    for k, child in enumerate(np.random.SeedSequence(seed).spawn(n)):
        index = np.random.default_rng(child).integers(len(groups), size=len(groups))
        rows = pd.concat([groups[j].assign(id=new) for new, j in enumerate(index)], ignore_index=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BoundaryWarning)
            again = mlmed.mediate("m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)", rows)
        for term, theirs in again.effects().set_index("term")["estimate"].items():
            ours = float(draws.loc[k, term])
            yield relative("bootstrap from rows", f"replicate {k} {term}", ours, float(theirs), SAME_REPLICATE, 1.0)


def interval_checks() -> Iterator[Check]:
    """All checks of intervals."""
    for name in small_sample_names():
        yield from small_samples(name)
    yield from robust()
    for name in profile_names():
        yield from profiles(name)
    yield from drops()
    yield from monte_carlo()
    yield from bootstrap_from_rows()
