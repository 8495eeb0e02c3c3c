"""The native summary: what was asked, what was found, whether to trust it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from mlmed.report.text import format_number, render_pairs, render_table

if TYPE_CHECKING:
    from mlmed.modes.results import MixedResults

__all__ = ["native_summary"]


def native_summary(
    results: MixedResults, *, vcov: str = "block", level: float = 0.95, title: str = "Linear mixed model"
) -> str:
    """Header, fixed effects, variances, residual variances."""
    varcorr = results.varcorr(level=level)
    random = varcorr[varcorr["group"] != "Residual"].drop(columns="group")
    residual = varcorr[varcorr["group"] == "Residual"].drop(columns="group")
    percent = f"{100 * level:g}% intervals"
    sections = [
        title,
        "=" * len(title),
        render_pairs(header(results)),
        "",
        f"Fixed effects ({percent}; {vcov} standard errors)",
        render_table(results.fixef(vcov=vcov, level=level)),
        "",
        f"Random effects by {results.group_name}: variances and covariances (sdcorr: sd or correlation)",
        render_table(_without_tests(random)),
        "",
        "Residual variances",
        render_table(_without_tests(residual)),
    ]
    return "\n".join(sections)


def _without_tests(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=["statistic", "p_value"])


def header(results: MixedResults) -> list[tuple[str, str]]:
    """Name and value of everything above the tables."""
    fitted = results.fitted
    equations = fitted.layout.equations
    nobs = fitted.working.problem.nobs
    rows = fitted.grams.rows_per_cluster
    pairs = [("Equations" if len(equations) > 1 else "Equation", fitted.spec.equations[0].text)]
    pairs += [("", equation.text) for equation in fitted.spec.equations[1:]]
    by_equation = ", ".join(f"{e.name} {n}" for e, n in zip(equations, nobs, strict=True))
    pairs.append(("Observations", str(results.nobs) if len(equations) == 1 else f"{results.nobs} ({by_equation})"))
    pairs.append(
        (
            "Clusters",
            f"{results.n_clusters} ({results.group_name}; {rows.min()} to {rows.max()} rows, mean {rows.mean():.1f})",
        )
    )
    label = "REML; log restricted-likelihood" if fitted.reml else "ML; log-likelihood"
    pairs.append(("Method", f"{label} {results.llf:.5f}, AIC {results.aic:.2f}, BIC {results.bic:.2f}"))
    pairs.append(("Optimum", _optimum_line(results)))
    if results.is_singular:
        rank = fitted.optimum.rank
        pairs.append(
            (
                "Boundary",
                f"boundary (singular) fit: G has rank {rank} of {len(results.G)}, so at least one random effect has "
                "variance 0 or is a linear combination of others; see docs/singular.md",
            )
        )
    pairs += [("Left out", str(dropped)) for dropped in fitted.layout.dropped]
    return pairs


def _optimum_line(results: MixedResults) -> str:
    certificate, steps = results.fitted.optimum.certificate, results.fitted.optimum.steps
    word = "certified" if certificate.converged else "NOT CERTIFIED (see docs/convergence.md)"
    return (
        f"{word}: gradient {certificate.gradient_norm:.0e}, Newton decrement {certificate.newton_decrement:.0e}, "
        f"smallest curvature {format_number(certificate.smallest_curvature, 3)}; {len(steps)} evaluations"
    )
