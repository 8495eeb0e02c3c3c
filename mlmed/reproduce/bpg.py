"""``stata-bpg``: Stata's four tables and two effects, on the data of Bauer, Preacher and Gil (2006)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlmed import datasets
from mlmed.api.mediate import MediationResults, mediate
from mlmed.api.piecewise import PiecewiseResults, piecewise
from mlmed.report.stata import StataReport, StataRow
from mlmed.reproduce.pairs import Pair, by_term
from mlmed.reproduce.sources import published
from mlmed.reproduce.tables import Compared, Reproduction
from mlmed.results.results import MixedResults
from mlmed.results.xtmixed import stata_report

__all__ = ["stata_bpg"]

MEDIATOR, OUTCOME = "m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)"
PARTS = (("", "estimate"), ("SE", "std_error"), ("low", "conf_low"), ("high", "conf_high"))


def stata_bpg() -> Reproduction:
    """Three ML fits, the stacked model by REML, the indirect and the total effect."""
    data, asked = datasets.load("ml_sim"), published("stata_bpg_reml")
    pieces = piecewise(MEDIATOR, OUTCOME, data, method="ml")
    joint = mediate(MEDIATOR, OUTCOME, data, method=asked["method"])
    fits: list[tuple[str, Any, dict[str, Any]]] = [
        ("y on x, ML", pieces.reduced, published("stata_y_x_ml")),
        ("m on x, ML", pieces.mediator, published("stata_m_x_ml")),
        ("y on m and x, ML", pieces.outcome, published("stata_y_mx_ml")),
        ("The stacked model, REML", joint, asked),
    ]
    return Reproduction(
        "stata-bpg",
        "1-1-1 mediation by the stacked model in Stata",
        asked["source"],
        (
            *(Compared(title, tuple(_output(fit, own, "ours"))) for title, fit, own in fits),
            Compared("Effects of the stacked model", tuple(_effects(joint, pieces, asked["effects"]))),
        ),
        _notes(pieces, joint),
    )


def _output(fit: MixedResults, asked: dict[str, Any], ours_by: str) -> Iterator[Pair]:
    """All numbers of one ``xtmixed`` output."""
    stacked = isinstance(fit, MediationResults)
    report = stata_report(fit.fitted, mediation=stacked, level=float(asked["level"]) / 100.0)
    coefficients = {row.name: row for row in report.coefficients}
    for row in asked["coefficients"]:
        own = coefficients[row["term"]]
        yield from _row(row, own, ours_by)
        yield Pair(row["term"], "z", "Stata", row["z"], ours_by, float(own.statistic or 0.0))
    variances = {(block.title, row.name): row for block in report.blocks for row in block.rows}
    many = len(report.blocks) > 1
    for row in asked["varcorr"]:
        shown = f"{row['block'].partition(':')[0]}: {row['term']}" if many else row["term"]
        yield from _row({**row, "term": shown}, variances[row["block"], row["term"]], ours_by)
    yield from _row(asked["residual"], report.residual[0], ours_by)
    yield from _whole(report, asked, ours_by)


def _row(printed: dict[str, str], own: StataRow, ours_by: str) -> Iterator[Pair]:
    for quantity, key in PARTS:
        yield Pair(printed["term"], quantity, "Stata", printed[key], ours_by, float(getattr(own, key)))


def _whole(report: StataReport, asked: dict[str, Any], ours_by: str) -> Iterator[Pair]:
    """Numbers of the fit as a whole."""
    for term, printed, ours in (
        ("log-likelihood", asked["loglik"], report.llf),
        (f"Wald chi2({asked['wald']['df']})", asked["wald"]["chi2"], report.wald_chi2),
        (f"LR chi2({asked['lr']['df']})", asked["lr"]["chi2"], report.lr_chi2),
    ):
        yield Pair(term, "", "Stata", printed, ours_by, ours)


def _effects(fit: MediationResults, pieces: PiecewiseResults, asked: dict[str, Any]) -> Iterator[Pair]:
    """Paths and effects as the page computes them: with 1.96, not the quantile of the normal distribution."""
    rows = by_term(fit.effects())
    for term in ("a", "b", "cprime", "cov_ab"):
        yield Pair(term, "", "Stata", asked[term], "ours", rows[term]["estimate"])
    for term in ("indirect", "total"):
        estimate, error = rows[term]["estimate"], rows[term]["std_error"]
        half = float(asked["critical"]) * error
        for quantity, key, ours in (
            ("", "estimate", estimate),
            ("SE", "std_error", error),
            ("z", "z", estimate / error),
            ("low", "conf_low", estimate - half),
            ("high", "conf_high", estimate + half),
        ):
            yield Pair(term, quantity, "Stata", asked[term][key], "ours", ours)
    for term, row in by_term(pieces.effects()).items():
        if term in ("a", "b", "cprime", "indirect", "total"):
            yield Pair(term, ours_by="separate, ML", ours=row["estimate"])


def _notes(pieces: PiecewiseResults, joint: MediationResults) -> tuple[str, ...]:
    rows = joint.effects().set_index("term")["estimate"]
    naive = by_term(pieces.effects())["indirect"]["estimate"]
    return (
        "Stata stops up to 1e-6 short of the optimum and prints seven digits; ours is the certified optimum. Standard "
        'errors are vcov="block", which is what Stata prints.',
        f"The separate fits know no covariance of the slopes: their a*b is {naive:.5f}. The stacked model has "
        f"a*b = {rows['a'] * rows['b']:.5f} and cov_ab = {rows['cov_ab']:.5f}, so the indirect effect is "
        f"{rows['indirect']:.5f}: a*b alone leaves out {1.0 - naive / rows['indirect']:.0%} of it.",
    )
