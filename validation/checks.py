"""Every number of ``published/`` and ``reference/`` against ours: one list of checks for report and tests.

Three questions are asked of other software's fits, in this order: is our criterion at their parameters
equal to their log-likelihood; is our optimum never worse than theirs; do the estimates agree as far as
the spread of the references allows. Published tables are compared number by number.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import mlmed
from mlmed.errors import BoundaryWarning
from mlmed.modes.results import MixedResults
from mlmed.modes.stata import stata_report

HERE = Path(__file__).parent

#: Stata stops up to 1e-6 short of the optimum and prints 7 digits.
PUBLISHED = 2e-6
#: Our criterion evaluated at the parameters another program reports, relative.
AT_THEIRS = 1e-8
#: How far below theirs our log-likelihood may be, absolute.
NEVER_WORSE = 1e-7
#: Estimates, relative; lme4 was run to rhoend 1e-10, which leaves about this much in flat directions.
#: A covariance can be zero, so it is measured on the scale of a correlation: against sqrt(var_i var_j).
ESTIMATES = 1e-5
#: lme4's default optimizer, which printed the page's tables, also stops short: allowed beyond half a digit.
SHORT = 2e-6


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison: ``difference`` must not exceed ``tolerance``."""

    table: str
    quantity: str
    ours: float
    theirs: float
    difference: float
    tolerance: float
    printed: str = ""

    @property
    def same_digits(self) -> bool:
        """Whether ours rounds to what was printed; True if nothing was."""
        decimals = len(self.printed.partition(".")[2])
        return not self.printed or abs(self.ours - self.theirs) <= 0.5 * 10.0**-decimals * (1.0 + 1e-9)

    @property
    def ok(self) -> bool:
        """Whether it holds; a NaN does not."""
        return bool(self.difference <= self.tolerance)


def _load(kind: str, name: str) -> dict[str, Any]:
    return json.loads((HERE / kind / f"{name}.json").read_text(encoding="utf-8"))


def _absolute(table: str, quantity: str, ours: float, theirs: float | str, tolerance: float) -> Check:
    """Absolute difference; ``theirs`` is text when it was printed."""
    printed = theirs if isinstance(theirs, str) else ""
    return Check(table, quantity, ours, float(theirs), abs(ours - float(theirs)), tolerance, printed)


def _relative(
    table: str, quantity: str, ours: float, theirs: float, tolerance: float, size: float | None = None
) -> Check:
    scale = abs(theirs) if size is None else size
    return Check(table, quantity, ours, theirs, abs(ours - theirs) / scale, tolerance)


def _printed(table: str, quantity: str, ours: float, printed: str, *, short: float = 0.0) -> Check:
    """Half a unit in the last printed place, plus ``short``."""
    decimals = len(printed.partition(".")[2])
    return _absolute(table, quantity, ours, printed, 0.5 * 10.0**-decimals * (1.0 + 1e-9) + short)


@cache
def _data(name: str) -> pd.DataFrame:
    return mlmed.datasets.load(name)


def fit_mediation(name: str, method: str) -> mlmed.MediationResults:
    """The Bauer-Preacher-Gil model of one of the two data sets."""
    m, y, x, group = ("m", "y", "x", "id") if name == "ml_sim" else ("Med", "y", "X", "group")
    return mlmed.mediate(
        f"{m} ~ {x} + (1 + {x} | {group})",
        f"{y} ~ {m} + {x} + (1 + {m} + {x} | {group})",
        data=_data(name),
        method=method,  # type: ignore[arg-type]
    )


# -- published tables ------------------------------------------------------------------------------------------


def published_stata(name: str) -> Iterator[Check]:
    """All numbers of one ``xtmixed`` output."""
    asked = _load("published", name)
    if asked["response"] == "z":
        results: MixedResults = fit_mediation("ml_sim", asked["method"])
    else:
        results = mlmed.mixed(asked["formula"], _data("ml_sim"), method=asked["method"])
    report = stata_report(results, level=0.95)
    yield _printed(name, "log-likelihood", report.loglik, asked["loglik"])
    yield _printed(name, "Wald chi2", report.wald_chi2, asked["wald"]["chi2"])
    yield _printed(name, "LR chi2", report.lr_chi2, asked["lr"]["chi2"])
    yield _absolute(name, "LR df", float(report.lr_df or 0), float(asked["lr"]["df"]), 0.0)
    ours = {row.name: row for row in report.coefficients}
    for row in asked["coefficients"]:
        yield _printed(name, f"z {row['term']}", ours[row["term"]].statistic or np.nan, row["z"])
        yield from _row(name, ours[row["term"]], row)
    blocks = {(block.title, row.name): row for block in report.blocks for row in block.rows}
    for row in asked["varcorr"]:
        yield from _row(name, blocks[row["block"], row["term"]], row)
    yield from _row(name, report.residual[0], asked["residual"])
    if isinstance(results, mlmed.MediationResults):
        yield from _published_effects(name, results, asked["effects"])


def _row(table: str, ours: Any, theirs: dict[str, str]) -> Iterator[Check]:
    for part in ("estimate", "std_error", "conf_low", "conf_high"):
        yield _absolute(table, f"{theirs['term']} {part}", getattr(ours, part), theirs[part], PUBLISHED)


def _published_effects(table: str, results: mlmed.MediationResults, asked: dict[str, Any]) -> Iterator[Check]:
    rows = results.effects().set_index("term")
    for term in ("a", "b", "cprime", "cov_ab"):
        yield _absolute(table, term, float(rows.loc[term, "estimate"]), asked[term], PUBLISHED)
    for term in ("indirect", "total"):
        estimate, error = float(rows.loc[term, "estimate"]), float(rows.loc[term, "std_error"])
        half = float(asked["critical"]) * error  # the page uses 1.96, not the normal quantile
        values = {"estimate": estimate, "std_error": error, "conf_low": estimate - half, "conf_high": estimate + half}
        for part, value in values.items():
            yield _absolute(table, f"{term} {part}", value, asked[term][part], PUBLISHED)


def published_lmer() -> Iterator[Check]:
    """The two piecewise lmer fits of the Yuan-MacKinnon example, to every printed digit."""
    for name, asked in _load("published", "yuan_mackinnon")["lmer"].items():
        table = f"yuan-mackinnon lmer {name}"
        fit = mlmed.mixed(asked["formula"], _data("yuan_mackinnon_sim"), method="reml")
        yield _printed(table, "REML criterion", fit.reml_criterion, asked["reml_criterion"], short=SHORT)
        fixed = fit.fixef().set_index("term").rename({"Intercept": "(Intercept)"})
        for row in asked["fixed_effects"]:
            ours = fixed.loc[row["term"]]
            yield _printed(table, f"{row['term']}", float(ours["estimate"]), row["estimate"], short=SHORT)
            yield _printed(table, f"{row['term']} SE", float(ours["std_error"]), row["std_error"], short=SHORT)
            yield _printed(table, f"{row['term']} t", float(ours["statistic"]), row["t"], short=SHORT)
        G, names = fit.G.to_numpy(), [n.replace("Intercept", "(Intercept)") for n in fit.G.index]
        sd = np.sqrt(np.diag(G))
        for row in asked["random_effects"]:
            if row["group"] == "Residual":
                sigma2 = float(fit.varcorr()["estimate"].iloc[-1])
                yield _printed(table, "residual variance", sigma2, row["variance"], short=SHORT)
                yield _printed(table, "residual sd", float(np.sqrt(sigma2)), row["std_dev"], short=SHORT)
                continue
            k = names.index(row["name"])
            yield _printed(table, f"var {row['name']}", float(G[k, k]), row["variance"], short=SHORT)
            yield _printed(table, f"sd {row['name']}", float(sd[k]), row["std_dev"], short=SHORT)
            for j, corr in enumerate(row["corr"]):
                yield _printed(
                    table, f"corr {row['name']},{names[j]}", float(G[k, j] / sd[k] / sd[j]), corr, short=SHORT
                )
        V = fit.vcov(which="fixed").rename({"Intercept": "(Intercept)"}).rename(columns={"Intercept": "(Intercept)"})
        for left, others in asked["correlation_of_fixed_effects"].items():
            for right, corr in others.items():
                ours = float(V.loc[left, right] / np.sqrt(V.loc[left, left] * V.loc[right, right]))
                yield _printed(table, f"fixed corr {left},{right}", ours, corr, short=SHORT)


def stated_optima() -> Iterator[Check]:
    """Optima and effects stated for the joint models (nlme with many EM steps, glmmTMB, our own dense code)."""
    table = "joint optima"
    reml, ml = fit_mediation("ml_sim", "reml"), fit_mediation("ml_sim", "ml")
    yuan = fit_mediation("yuan_mackinnon_sim", "reml")
    for fit, values in (
        (reml, {"llf": "-2126.13452"}),
        (ml, {"llf": "-2115.892309", "indirect": ".471840", "total": ".692466"}),
        (yuan, {"llf": "-2337.44202", "indirect": "-.12762", "total": ".16824"}),
    ):
        effects = fit.effects().set_index("term")["estimate"]
        for what, printed in values.items():
            ours = fit.llf if what == "llf" else float(effects[what])
            yield _printed(table, f"{fit.treatment} {fit.method} {what}", ours, printed)


def joint_errors() -> Iterator[Check]:
    """``vcov="joint"`` against glmmTMB's printed digits and lavaan's third digit."""
    table = "joint standard errors"
    reml, ml = fit_mediation("ml_sim", "reml"), fit_mediation("ml_sim", "ml")
    fixed = reml.fixef(vcov="joint").set_index("term")["std_error"]
    printed = {"m:Intercept": ".08952", "m:x": ".04654", "y:Intercept": ".06516", "y:m": ".05014", "y:x": ".04155"}
    for term, value in printed.items():
        yield _printed(table, f"reml {term}", float(fixed[term]), value)
    first = reml.effects(vcov="joint", order="first").set_index("term")["std_error"]
    yield _printed(table, "reml indirect, first order", float(first["indirect"]), ".05470")
    yield _printed(table, "reml total, first order", float(first["total"]), ".05615")
    errors = ml.effects(vcov="joint", order="first").set_index("term")["std_error"]
    for term, value in {"b": ".0499", "cprime": ".0413", "indirect": ".05435", "total": ".05574"}.items():
        yield _absolute(table, f"ml {term} (lavaan)", float(errors[term]), float(value), 5e-4)


def joint_glmmtmb() -> Iterator[Check]:
    """All 22 estimates and their joint covariance matrix against glmmTMB, polished to the optimum."""
    for fit_number, reference in enumerate(_load("reference", "joint_glmmtmb")["fits"]):
        method, target = reference["method"].lower(), reference["tightened"]
        table = f"glmmTMB joint vcov {method} {fit_number % 2 + 1}"
        fit = fit_mediation("ml_sim", method)
        order = _psi_order(target["names"])
        psi = np.concatenate([fit.params, fit.varcorr()["estimate"]])[order]
        V = fit.vcov("joint").to_numpy()[np.ix_(order, order)]
        theirs = np.array(target["vcov"])
        errors = np.sqrt(np.diag(theirs))
        yield _relative(table, "log-likelihood", fit.llf, target["logLik"], 1e-12)
        for k, name in enumerate(target["names"]):
            yield _relative(
                table, name, psi[k], target["estimate"][k], ESTIMATES, max(abs(target["estimate"][k]), errors[k])
            )
            yield _relative(table, f"SE {name}", float(np.sqrt(V[k, k])), target["se"][k], ESTIMATES)
        gap = np.abs(V - theirs) / np.outer(errors, errors)
        i, j = np.unravel_index(int(gap.argmax()), gap.shape)
        yield Check(table, "vcov, worst entry as a correlation", V[i, j], theirs[i, j], float(gap.max()), ESTIMATES)


def _psi_order(names: list[str]) -> list[int]:
    """Positions in our psi of the entries ``sm``, ``G[smx,sm]``, ``sigma2[m]``."""
    ours: dict[str, int] = {name: k for k, name in enumerate(STACKED)}
    pairs = [(i, i) for i in range(5)] + [(i, j) for j in range(5) for i in range(j + 1, 5)]
    for k, (i, j) in enumerate(pairs):
        ours[f"G[{STACKED[i]},{STACKED[j]}]"] = 5 + k
    return [{**ours, "sigma2[m]": 20, "sigma2[y]": 21}[name] for name in names]


# -- reference fits --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Target:
    """One fit of other software, in our order of effects."""

    loglik: float
    beta: np.ndarray
    G: np.ndarray
    sigma2: np.ndarray


#: Our names of the columns of the stacked data.
STACKED = ("sm", "smx", "sy", "sym", "syx")


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


def _compare(table: str, fit: MixedResults, target: _Target, *, estimates: bool = True) -> Iterator[Check]:
    at_theirs = fit.loglik_at(target.G, target.sigma2)
    yield _relative(table, "our criterion at their parameters", at_theirs, target.loglik, AT_THEIRS)
    yield Check(table, "log-likelihood short of theirs", fit.llf, target.loglik, target.loglik - fit.llf, NEVER_WORSE)
    if not estimates:
        return
    for name, ours, theirs in zip(fit.params.index, fit.params, target.beta, strict=True):
        yield _relative(table, name, float(ours), float(theirs), ESTIMATES)
    ours_G, labels = fit.G.to_numpy(), list(fit.G.index)
    for i in range(len(labels)):
        for j in range(i + 1):
            size = float(np.sqrt(target.G[i, i] * target.G[j, j]))
            yield _relative(table, f"G[{labels[i]},{labels[j]}]", ours_G[i, j], target.G[i, j], ESTIMATES, size)
    sigma2 = fit.varcorr().query("group == 'Residual'")["estimate"].to_numpy()
    for r, theirs in enumerate(target.sigma2):
        yield _relative(table, f"sigma2[{r}]", float(sigma2[r]), float(theirs), ESTIMATES)


def reference_names() -> list[str]:
    """Files of ``reference/`` with one fit each."""
    names = sorted(path.stem for path in (HERE / "reference").glob("*.json"))
    return [name for name in names if not name.startswith(("singular_", "joint_"))]


def reference_fit(name: str) -> Iterator[Check]:
    """One lme4 fit: criterion, optimum, estimates, standard errors, conditional modes."""
    reference = _load("reference", name)
    data = data_of(name)
    if "bpg" in name:
        fit: MixedResults = fit_mediation(data, reference["method"].lower())
    else:
        fit = mlmed.mixed(reference["formula"], _data(data), method=reference["method"].lower())
    yield from _compare(name, fit, _target(reference))
    for ours, theirs, term in zip(fit.bse, reference["se"].values(), fit.bse.index, strict=True):
        yield _relative(name, f"SE {term}", float(ours), float(theirs), ESTIMATES)
    if "ranef" in reference:
        yield from _conditional_modes(name, fit, reference["ranef"])


def data_of(name: str) -> str:
    """Data set of a reference file."""
    return next(data for start, data in _DATA_OF.items() if name.startswith(start))


_DATA_OF = {"ml_sim": "ml_sim", "yuan": "yuan_mackinnon_sim", "gpa": "gpa", "sleepstudy": "sleepstudy"}


def _conditional_modes(table: str, fit: MixedResults, rows: list[dict[str, Any]]) -> Iterator[Check]:
    ours = fit.ranef()
    ours = ours.assign(effect=ours["effect"].replace("Intercept", "(Intercept)"), group=ours["group"].astype(str))
    indexed = ours.set_index(["effect", "group"])
    sd = dict(zip(["(Intercept)", *fit.G.index[1:]], np.sqrt(np.diag(fit.G)), strict=True))
    for row in rows:
        found = indexed.loc[(row["term"], str(row["grp"]))]
        label = f"{row['term']} {row['grp']}"
        size = float(sd[row["term"]])  # modes pass through zero; their scale is the random-effect sd
        yield _relative(table, f"ranef {label}", float(found["value"]), row["condval"], ESTIMATES, size)
        yield _relative(table, f"ranef sd {label}", float(found["se"]), row["condsd"], ESTIMATES)


def singular_names() -> list[str]:
    """Files of ``reference/`` with seeded data sets on or near the boundary."""
    return sorted(path.stem for path in (HERE / "reference").glob("singular_*.json"))


def singular_fits(name: str) -> Iterator[Check]:
    """Small simulated data with a slope that does not vary: our optimum against the best of lme4's starts."""
    reference = _load("reference", name)
    made = dict(reference["simulate"])
    truth = mlmed.simulate.BPGTruth(**made.pop("truth"))
    data = mlmed.simulate_bpg(**made, truth=truth).data
    for column, mean in reference["data_check"].items():
        column = column.removeprefix("mean_")
        yield _relative(name, f"mean of {column}", float(data[column].mean()), float(mean), 1e-9)
    for target in reference["fits"]:
        method = target["method"].lower()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BoundaryWarning)
            if any(row["grp"] == "fid" for row in target["varcorr"]):
                fit: MixedResults = mlmed.mediate(
                    "m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)", data, method=method
                )
            else:
                fit = mlmed.mixed(target["formula"], data, method=method)
        table = f"{name}"
        yield from (
            Check(
                c.table,
                f"{fit.fitted.spec.equations[-1].name} {method}: {c.quantity}",
                c.ours,
                c.theirs,
                c.difference,
                c.tolerance,
            )
            for c in _compare(table, fit, _target(target), estimates=False)
        )
        yield _absolute(name, f"{method}: certified", float(fit.converged), 1.0, 0.0)


def all_checks() -> Iterator[Check]:
    """Everything, table by table."""
    for name in ("stata_y_x_ml", "stata_m_x_ml", "stata_y_mx_ml", "stata_bpg_reml"):
        yield from published_stata(name)
    yield from published_lmer()
    yield from stated_optima()
    yield from joint_errors()
    yield from joint_glmmtmb()
    for name in reference_names():
        yield from reference_fit(name)
    for name in singular_names():
        yield from singular_fits(name)
