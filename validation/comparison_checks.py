"""The comparisons of ``mlmed.reproduce``: every printed number that ours should reproduce."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pandas as pd

import mlmed
import mlmed.reproduce
from mlmed.api.causal import causal
from mlmed.reproduce.pairs import half_unit
from validation.checks import PUBLISHED, SHORT, Check, absolute, load_json, printed

__all__ = [
    "PARTS",
    "closed_form",
    "comparison_checks",
    "framing_effects",
    "framing_sensitivity",
    "gpa_lmer",
    "ml_sim_bias",
    "numbers",
    "product_method",
    "reproduction",
    "yuan_mediation",
    "yuan_pieces",
]

#: Two independent draws of one quantity, in Monte Carlo standard errors of their difference.
MC_ERRORS = 4.0
#: The same sums of products in another order.
CLOSED = 1e-12


@cache
def reproduction(example: str) -> mlmed.reproduce.Reproduction:
    """An example, run once."""
    return mlmed.reproduce.run(example)


def numbers(example: str, *tables: str) -> pd.DataFrame:
    """One row per number on both sides of an example, from tables whose titles start with one of these."""
    rows = reproduction(example).to_frame()
    if tables:
        rows = rows[rows["table"].str.startswith(tables)]
    return rows[(rows["printed"] != "") & (rows["ours_by"] != "")]


def _printed(table: str, rows: pd.DataFrame, *, short: float = 0.0) -> Iterator[Check]:
    assert len(rows), f"no rows for {table}"
    for row in rows.itertuples():
        yield printed(table, f"{row.term} {row.quantity}", row.ours, row.printed, short=short)


def _drawn(table: str, rows: pd.DataFrame) -> Iterator[Check]:
    """Check that ours are within Monte Carlo error of R's draws, printed rounding allowed for."""
    assert len(rows), f"no rows for {table}"
    for row in rows.itertuples():
        bound = MC_ERRORS * row.mc_error + half_unit(row.printed)
        yield Check(table, f"{row.term} {row.quantity}", row.ours, row.published, abs(row.difference), bound)


def gpa_lmer() -> Iterator[Check]:
    """The printed lmer summary of the gpa page, every digit."""
    yield from _printed("gpa lmer", numbers("gpa", "lme4"), short=SHORT)


def yuan_pieces() -> Iterator[Check]:
    """Results of the separate fits on the Yuan-MacKinnon page, beyond lmer's tables (``published_lmer``)."""
    rows = numbers("yuan-mackinnon")
    residuals = rows["term"].str.startswith("scaled residuals")
    yield from _printed("yuan-mackinnon lmer residuals", rows[residuals], short=SHORT)
    lme4 = (rows["published_by"] == "lme4") & rows["table"].str.startswith("Covariance")
    yield from _printed("yuan-mackinnon covariances", rows[lme4])
    naive = rows[rows["term"] == "naive_lmer"].iloc[0]
    yield printed("yuan-mackinnon indirect", "naive_lmer", naive["ours"], naive["printed"])
    yield printed("yuan-mackinnon indirect", "naive a*b", naive["ours"], "-.0341")


def yuan_mediation() -> Iterator[Check]:
    """R ``mediation``, run twice, against our draws of the same kind; brms' indirect effect."""
    yield from _drawn("yuan-mackinnon R mediation", numbers("yuan-mackinnon", "R mediation"))
    brms = numbers("yuan-mackinnon", "Indirect effect").set_index("term").loc[["brms"]]
    yield printed("yuan-mackinnon indirect", "brms hypothesis", brms["ours"].iloc[0], brms["printed"].iloc[0])


def framing_effects() -> Iterator[Check]:
    """R ``mediation`` on the framing data: the page's 1,000 draws, and 50,000 draws of a longer run."""
    yield from _drawn("framing R mediation", numbers("framing", "mediate"))
    yield from _drawn("framing test.TMint", numbers("framing", "test.TMint"))


def framing_sensitivity() -> Iterator[Check]:
    """``medsens`` with 100 draws; its correlations and R^2 are not drawn."""
    rows = numbers("framing", "medsens")
    drawn = rows["mc_error"].notna()
    yield from _drawn("framing medsens", rows[drawn])
    yield from _printed("framing medsens", rows[~drawn])


def closed_form() -> Iterator[Check]:
    """Linear mediator and outcome, simulated as on the page: ACME equals the product of two OLS slopes."""
    table = "product method, closed form"
    for n, a, b in ((200, 1.0, 1.0), (2000, 0.4, 0.5)):
        rng = np.random.default_rng(n)
        x = np.tile([0.0, 1.0], n // 2)
        m = a * x + rng.normal(size=n)
        y = b * m + rng.normal(size=n)
        one = np.ones(n)
        first, second = (np.linalg.lstsq(X, r)[0] for X, r in ((np.c_[one, x], m), (np.c_[one, x, m], y)))
        total = np.linalg.lstsq(np.c_[one, x], y)[0][1]
        ours = causal("m ~ x", "y ~ m + x", pd.DataFrame({"x": x, "m": m, "y": y})).effects().set_index("term")
        for term, theirs in (("acme", first[1] * second[2]), ("ade", second[1]), ("total", total)):
            yield absolute(table, f"n = {n}, {term}", float(ours.loc[term, "estimate"]), float(theirs), CLOSED)


def ml_sim_bias() -> Iterator[Check]:
    """The part missing from a*b of separate fits on ml_sim: Stata's two ML tables against its joint REML effect."""
    facts = load_json("published", "stata_bpg_reml")["effects"]
    a, b = (
        next(float(row["estimate"]) for row in load_json("published", name)["coefficients"] if row["term"] == term)
        for name, term in (("stata_m_x_ml", "x"), ("stata_y_mx_ml", "m"))
    )
    frame = reproduction("stata-bpg").tables["Effects of the stacked model"].set_index("term")
    ours = float(frame.loc["indirect", "separate, ML"])
    table = "ml_sim, separate against joint"
    yield absolute(table, "a*b", ours, a * b, PUBLISHED)
    bias = float(frame.loc["indirect", "ours"]) - ours
    yield absolute(table, "joint - a*b", bias, float(facts["indirect"]["estimate"]) - a * b, PUBLISHED)


def product_method() -> Iterator[Check]:
    """The page's simulated examples, without data: the consistency of its numbers."""
    table = "product method, printed numbers"
    facts = load_json("published", "product_method")
    for name in ("full_mediation", "partial_mediation"):
        for equation in (facts[name]["mediator"], facts[name]["outcome"]):
            for row in equation["coefficients"]:
                estimate, error = float(row["estimate"]), float(row["std_error"])
                # the ratio of rounded numbers, and the rounding of t
                spread = abs(estimate / error) * (half_unit(row["std_error"]) / error)
                spread += half_unit(row["estimate"]) / error + half_unit(row["t"])
                what = f"{name} {equation['formula']} t {row['term']}"
                yield absolute(table, what, estimate / error, float(row["t"]), spread)
    shown = facts["partial_mediation"]
    a = float(shown["mediator"]["coefficients"][1]["estimate"])
    b = float(shown["outcome"]["coefficients"][2]["estimate"])
    yield absolute(table, "a*b", a * b, float(shown["indirect"]), 5e-6 * (abs(a) + abs(b)))


#: The checks, and the data set that each needs.
PARTS = {
    gpa_lmer: "gpa",
    yuan_pieces: "yuan_mackinnon_sim",
    yuan_mediation: "yuan_mackinnon_sim",
    framing_effects: "framing",
    framing_sensitivity: "framing",
    ml_sim_bias: "ml_sim",
    closed_form: "yuan_mackinnon_sim",
    product_method: "yuan_mackinnon_sim",
}


def comparison_checks() -> Iterator[Check]:
    """All comparisons of ``mlmed reproduce`` not covered by the other checks."""
    for part in PARTS:
        yield from part()
