"""Fits of other software, stored with their generators: lme4 at tight tolerance, glmmTMB."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import mlmed
from mlmed.errors import BoundaryWarning
from mlmed.results.results import Results
from validation.checks import (
    AT_THEIRS,
    ESTIMATES,
    HERE,
    NEVER_WORSE,
    STACKED,
    Check,
    absolute,
    fit_mediation,
    load_data,
    load_json,
    relative,
)


def joint_glmmtmb() -> Iterator[Check]:
    """All 22 estimates and their joint covariance matrix against glmmTMB, polished to the optimum."""
    for fit_number, reference in enumerate(load_json("reference", "joint_glmmtmb")["fits"]):
        method, target = reference["method"].lower(), reference["tightened"]
        table = f"glmmTMB joint vcov {method} {fit_number % 2 + 1}"
        fit = fit_mediation("ml_sim", method)
        order = _psi_order(target["names"])
        psi = np.concatenate([fit.params, fit.varcorr()["estimate"]])[order]
        V = fit.vcov("joint").to_numpy()[np.ix_(order, order)]
        theirs = np.array(target["vcov"])
        errors = np.sqrt(np.diag(theirs))
        yield relative(table, "log-likelihood", fit.llf, target["logLik"], 1e-12)
        for k, name in enumerate(target["names"]):
            yield relative(
                table,
                name,
                psi[k],
                target["estimate"][k],
                ESTIMATES,
                max(abs(target["estimate"][k]), errors[k]),
            )
            yield relative(table, f"SE {name}", float(np.sqrt(V[k, k])), target["se"][k], ESTIMATES)
        gap = np.abs(V - theirs) / np.outer(errors, errors)
        i, j = np.unravel_index(int(gap.argmax()), gap.shape)
        yield Check(table, "vcov, worst entry as a correlation", V[i, j], theirs[i, j], float(gap.max()), ESTIMATES)


def _psi_order(names: list[str]) -> list[int]:
    """Positions in our psi of entries named as ``sm``, ``G[smx,sm]``, ``sigma2[m]``."""
    ours: dict[str, int] = {name: k for k, name in enumerate(STACKED)}
    pairs = [(i, i) for i in range(5)] + [(i, j) for j in range(5) for i in range(j + 1, 5)]
    for k, (i, j) in enumerate(pairs):
        ours[f"G[{STACKED[i]},{STACKED[j]}]"] = 5 + k
    return [{**ours, "sigma2[m]": 20, "sigma2[y]": 21}[name] for name in names]


@dataclass(frozen=True, slots=True)
class _Target:
    """A fit of other software, in our order of effects."""

    loglik: float
    beta: np.ndarray
    G: np.ndarray
    sigma2: np.ndarray


def _target(reference: dict[str, Any]) -> _Target:
    rows = reference["varcorr"]
    stacked = any(row["grp"] == "fid" for row in rows)
    names = list(STACKED) if stacked else _own_order(reference)
    G = np.zeros((len(names), len(names)))
    extra: dict[str, float] = {}
    residual = np.nan
    for row in rows:
        if row["grp"] == "Residual":
            residual = row["vcov"]
        elif row["grp"] == "fid":
            extra[row["var1"]] = row["vcov"]
        else:
            i, j = names.index(row["var1"]), names.index(row.get("var2") or row["var1"])
            G[i, j] = G[j, i] = row["vcov"]
    beta = np.array([reference["fixef"][name] for name in (names if stacked else reference["fixef"])])
    sigma2 = residual + np.array([extra.get("sm", 0.0), extra.get("sy", 0.0)]) if stacked else np.array([residual])
    return _Target(reference["logLik"], beta, G, sigma2)


def _own_order(reference: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(row["var1"] for row in reference["varcorr"] if row["grp"] != "Residual"))


def _compare(table: str, fit: Results, target: _Target, *, estimates: bool = True) -> Iterator[Check]:
    at_theirs = fit.loglik_at(target.G, target.sigma2)
    yield relative(table, "our criterion at their parameters", at_theirs, target.loglik, AT_THEIRS)
    yield Check(table, "log-likelihood short of theirs", fit.llf, target.loglik, target.loglik - fit.llf, NEVER_WORSE)
    if not estimates:
        return
    for name, ours, theirs in zip(fit.params.index, fit.params, target.beta, strict=True):
        yield relative(table, name, float(ours), float(theirs), ESTIMATES)
    ours_G, labels = fit.G.to_numpy(), list(fit.G.index)
    for i in range(len(labels)):
        for j in range(i + 1):
            size = float(np.sqrt(target.G[i, i] * target.G[j, j]))
            yield relative(table, f"G[{labels[i]},{labels[j]}]", ours_G[i, j], target.G[i, j], ESTIMATES, size)
    sigma2 = fit.varcorr().query("group == 'Residual'")["estimate"].to_numpy()
    for r, theirs in enumerate(target.sigma2):
        yield relative(table, f"sigma2[{r}]", float(sigma2[r]), float(theirs), ESTIMATES)


def reference_names() -> list[str]:
    """Files of ``reference/`` with one lme4 fit each, except the daily affect data (``affect_checks``)."""
    names = sorted(path.stem for path in (HERE / "reference").glob("*.json"))
    return [name for name in names if not name.startswith(("singular_", "joint_", "williams_"))]


def reference_fit(name: str) -> Iterator[Check]:
    """One lme4 fit: criterion, optimum, estimates, standard errors, conditional modes."""
    reference = load_json("reference", name)
    data = data_of(name)
    if "bpg" in name:
        fit: Results = fit_mediation(data, reference["method"].lower())
    else:
        fit = mlmed.mixed(reference["formula"], load_data(data), method=reference["method"].lower())
    yield from _compare(name, fit, _target(reference))
    evaluations = float(fit.optimization.evaluations)
    yield Check(name, "evaluations of criterion and derivatives", evaluations, 12.0, evaluations, 12.0)
    for ours, theirs, term in zip(fit.bse, reference["se"].values(), fit.bse.index, strict=True):
        yield relative(name, f"SE {term}", float(ours), float(theirs), ESTIMATES)
    if "ranef" in reference:
        yield from _conditional_modes(name, fit, reference["ranef"])


def data_of(name: str) -> str:
    """Data set of a reference file."""
    return next(data for start, data in _DATA_OF.items() if name.startswith(start))


_DATA_OF = {"ml_sim": "ml_sim", "yuan": "yuan_mackinnon_sim", "gpa": "gpa", "sleepstudy": "sleepstudy"}


def _conditional_modes(table: str, fit: Results, rows: list[dict[str, Any]]) -> Iterator[Check]:
    ours = fit.ranef()
    ours = ours.assign(effect=ours["effect"].replace("Intercept", "(Intercept)"), group=ours["group"].astype(str))
    indexed = ours.set_index(["effect", "group"])
    sd = dict(zip(["(Intercept)", *fit.G.index[1:]], np.sqrt(np.diag(fit.G)), strict=True))
    for row in rows:
        found = indexed.loc[(row["term"], str(row["grp"]))]
        label = f"{row['term']} {row['grp']}"
        size = float(sd[row["term"]])  # modes pass through zero; their scale is the random-effect sd
        yield relative(table, f"ranef {label}", float(found["estimate"]), row["condval"], ESTIMATES, size)
        yield relative(table, f"ranef sd {label}", float(found["std_error"]), row["condsd"], ESTIMATES)


def singular_names() -> list[str]:
    """Files of ``reference/`` with seeded data sets on or near the boundary."""
    return sorted(path.stem for path in (HERE / "reference").glob("singular_*.json"))


def singular_fits(name: str) -> Iterator[Check]:
    """Small simulated data with a zero slope variance: our optimum against the best of lme4's starts."""
    reference = load_json("reference", name)
    made = dict(reference["simulate"])
    truth = mlmed.simulate.BPGTruth(**made.pop("truth"))
    data = mlmed.simulate.bpg(made["n_clusters"], made["n_rows"], truth=truth, seed=made["seed"]).data
    for column, mean in reference["data_check"].items():
        column = column.removeprefix("mean_")
        yield relative(name, f"mean of {column}", float(data[column].mean()), float(mean), 1e-9)
    for target in reference["fits"]:
        method = target["method"].lower()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BoundaryWarning)
            if any(row["grp"] == "fid" for row in target["varcorr"]):
                fit: Results = mlmed.mediate(
                    "m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)", data, method=method
                )
            else:
                fit = mlmed.mixed(target["formula"], data, method=method)
        label = f"{fit.fit.spec.equations[-1].name} {method}, {len(fit.G)} effects"
        for check in _compare(name, fit, _target(target), estimates=False):
            yield replace(check, quantity=f"{label}: {check.quantity}")
        yield absolute(name, f"{label}: rank of G", float(fit.fit.optimum.rank), float(target["rank"]), 0.0)
        yield absolute(name, f"{label}: certified", float(fit.converged), 1.0, 0.0)


def reference_checks() -> Iterator[Check]:
    """All checks against fits of other software."""
    yield from joint_glmmtmb()
    for name in reference_names():
        yield from reference_fit(name)
    for name in singular_names():
        yield from singular_fits(name)
