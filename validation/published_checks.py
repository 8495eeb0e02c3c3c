"""Numbers printed in the source documents: Stata's tables, lmer's tables, stated optima and standard errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import mlmed
from mlmed.results.results import Results
from mlmed.results.xtmixed import stata_report
from validation.checks import PUBLISHED, SHORT, Check, absolute, fit_mediation, load_data, load_json, printed

STATA = ("stata_y_x_ml", "stata_m_x_ml", "stata_y_mx_ml", "stata_bpg_reml")


def published_stata(name: str) -> Iterator[Check]:
    """All numbers of one ``xtmixed`` output."""
    asked = load_json("published", name)
    if asked["response"] == "z":
        results: Results = fit_mediation("ml_sim", asked["method"])
    else:
        results = mlmed.mixed(asked["formula"], load_data("ml_sim"), method=asked["method"])
    report = stata_report(results.fit, mediation="effects" in asked, level=0.95)
    yield printed(name, "log-likelihood", report.llf, asked["loglik"])
    yield printed(name, "Wald chi2", report.wald_chi2, asked["wald"]["chi2"])
    yield printed(name, "LR chi2", report.lr_chi2, asked["lr"]["chi2"])
    yield absolute(name, "LR df", float(report.lr_df or 0), float(asked["lr"]["df"]), 0.0)
    ours = {row.name: row for row in report.coefficients}
    for row in asked["coefficients"]:
        yield printed(name, f"z {row['term']}", ours[row["term"]].statistic or np.nan, row["z"])
        yield from _row(name, ours[row["term"]], row)
    blocks = {(block.title, row.name): row for block in report.blocks for row in block.rows}
    for row in asked["varcorr"]:
        yield from _row(name, blocks[row["block"], row["term"]], row)
    yield from _row(name, report.residual[0], asked["residual"])
    if "effects" in asked:
        yield from _published_effects(name, results, asked["effects"])


def _row(table: str, ours: Any, theirs: dict[str, str]) -> Iterator[Check]:
    for part in ("estimate", "std_error", "conf_low", "conf_high"):
        yield absolute(table, f"{theirs['term']} {part}", getattr(ours, part), theirs[part], PUBLISHED)


def _published_effects(table: str, results: mlmed.Results, asked: dict[str, Any]) -> Iterator[Check]:
    rows = results.effects().set_index("term")
    for term in ("a", "b", "cprime", "cov_ab"):
        yield absolute(table, term, float(rows.loc[term, "estimate"]), asked[term], PUBLISHED)
    for term in ("indirect", "total"):
        estimate, error = float(rows.loc[term, "estimate"]), float(rows.loc[term, "std_error"])
        half = float(asked["critical"]) * error  # the page uses 1.96, not the normal quantile
        values = {
            "estimate": estimate,
            "std_error": error,
            "conf_low": estimate - half,
            "conf_high": estimate + half,
        }
        for part, value in values.items():
            yield absolute(table, f"{term} {part}", value, asked[term][part], PUBLISHED)


def published_lmer() -> Iterator[Check]:
    """The two separate lmer fits of the Yuan-MacKinnon example, to every printed digit."""
    for name, asked in load_json("published", "yuan_mackinnon")["lmer"].items():
        table = f"yuan-mackinnon lmer {name}"
        fit = mlmed.mixed(asked["formula"], load_data("yuan_mackinnon_sim"), method="reml")
        yield printed(table, "REML criterion", fit.reml_criterion, asked["reml_criterion"], short=SHORT)
        fixed = fit.fixef().set_index("term").rename({"Intercept": "(Intercept)"})
        for row in asked["fixed_effects"]:
            ours = fixed.loc[row["term"]]
            yield printed(table, f"{row['term']}", float(ours["estimate"]), row["estimate"], short=SHORT)
            yield printed(table, f"{row['term']} SE", float(ours["std_error"]), row["std_error"], short=SHORT)
            yield printed(table, f"{row['term']} t", float(ours["statistic"]), row["t"], short=SHORT)
        G, names = fit.G.to_numpy(), [n.replace("Intercept", "(Intercept)") for n in fit.G.index]
        sd = np.sqrt(np.diag(G))
        for row in asked["random_effects"]:
            if row["group"] == "Residual":
                sigma2 = float(fit.varcorr()["estimate"].iloc[-1])
                yield printed(table, "residual variance", sigma2, row["variance"], short=SHORT)
                yield printed(table, "residual sd", float(np.sqrt(sigma2)), row["std_dev"], short=SHORT)
                continue
            k = names.index(row["name"])
            yield printed(table, f"var {row['name']}", float(G[k, k]), row["variance"], short=SHORT)
            yield printed(table, f"sd {row['name']}", float(sd[k]), row["std_dev"], short=SHORT)
            for j, corr in enumerate(row["corr"]):
                yield printed(
                    table, f"corr {row['name']},{names[j]}", float(G[k, j] / sd[k] / sd[j]), corr, short=SHORT
                )
        V = fit.vcov(which="fixed").rename({"Intercept": "(Intercept)"}).rename(columns={"Intercept": "(Intercept)"})
        for left, others in asked["correlation_of_fixed_effects"].items():
            for right, corr in others.items():
                ours = float(V.loc[left, right] / np.sqrt(V.loc[left, left] * V.loc[right, right]))
                yield printed(table, f"fixed corr {left},{right}", ours, corr, short=SHORT)


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
        for what, text in values.items():
            ours = fit.llf if what == "llf" else float(effects[what])
            yield printed(table, f"{fit.treatment} {fit.method} {what}", ours, text)


def joint_errors() -> Iterator[Check]:
    """``vcov="joint"`` against glmmTMB's printed digits and lavaan's third digit."""
    table = "joint standard errors"
    reml, ml = fit_mediation("ml_sim", "reml"), fit_mediation("ml_sim", "ml")
    fixed = reml.fixef(vcov="joint").set_index("term")["std_error"]
    digits = {
        "m~Intercept": ".08952",
        "m~x": ".04654",
        "y~Intercept": ".06516",
        "y~m": ".05014",
        "y~x": ".04155",
    }
    for term, value in digits.items():
        yield printed(table, f"reml {term}", float(fixed[term]), value)
    first = reml.effects(vcov="joint", order="first").set_index("term")["std_error"]
    yield printed(table, "reml indirect, first order", float(first["indirect"]), ".05470")
    yield printed(table, "reml total, first order", float(first["total"]), ".05615")
    errors = ml.effects(vcov="joint", order="first").set_index("term")["std_error"]
    for term, value in {"b": ".0499", "cprime": ".0413", "indirect": ".05435", "total": ".05574"}.items():
        yield absolute(table, f"ml {term} (lavaan)", float(errors[term]), float(value), 5e-4)


def published_checks() -> Iterator[Check]:
    """All checks of printed numbers."""
    for name in STATA:
        yield from published_stata(name)
    yield from published_lmer()
    yield from stated_optima()
    yield from joint_errors()
