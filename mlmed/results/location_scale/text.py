"""The summary of a location-scale model."""

from __future__ import annotations

import numpy as np

from mlmed.numerics.certificate import NODE_CHANGE
from mlmed.quadrature.fit import Fit
from mlmed.report.text import render_pairs, render_table
from mlmed.results.location_scale import tables
from mlmed.results.summary import evidence_text

__all__ = ["summary_text"]


def summary_text(fit: Fit, *, level: float) -> str:
    """Header, fixed effects, scale effects on the sd scale, random effects."""
    title = "Mixed-effects location-scale model"
    fixed = tables.fixef_table(fit, level=level)
    p, percent = len(fit.rows.location.fixed_names), f"{100 * level:g}% intervals; observed information"
    lines = [
        title,
        "=" * len(title),
        render_pairs(_header(fit)),
        "",
        f"Location: fixed effects ({percent})",
        render_table(fixed.iloc[:p]),
        "",
        "Scale: fixed effects on the log residual sd",
        render_table(fixed.iloc[p:]),
        "",
        "Scale effects on the sd scale",
        render_table(tables.scale_table(fit, level=level).drop(columns=["statistic", "p_value"])),
    ]
    if tables.random_names(fit):
        shown = tables.sdcor_table(fit, level=level).drop(columns=["statistic", "p_value"])
        heading = f"Random effects by {':'.join(fit.rows.group)}: standard deviations and correlations"
        lines += ["", heading, render_table(shown)]
    return "\n".join(lines)


def _header(fit: Fit) -> list[tuple[str, str]]:
    first, second = fit.rows.equations
    sizes = np.bincount(fit.rows.codes)
    spread = f"{sizes.min()} to {sizes.max()} rows, mean {sizes.mean():.1f}"
    if fit.rows.scale.random_names and sizes.min() == 1:
        spread += f"; {int((sizes == 1).sum())} with 1 row, which says nothing of its own residual sd"
    row = tables.glance_table(fit).iloc[0]
    pairs = [
        ("Location", first.text),
        ("Scale", f"~ {second.right}"),
        ("Observations", str(fit.problem.nobs)),
        ("Clusters", f"{fit.problem.J} ({':'.join(fit.rows.group)}; {spread})"),
        ("Method", f"ML; log-likelihood {row['llf']:.5f}, AIC {row['aic']:.2f}, BIC {row['bic']:.2f}"),
        ("Quadrature", _quadrature(fit)),
        ("Optimum", _optimum(fit)),
    ]
    if fit.estimates.rank < len(fit.estimates.G):
        text = (
            f"boundary (singular) fit: G has rank {fit.estimates.rank} of {len(fit.estimates.G)}; see docs/singular.md"
        )
        pairs.append(("Boundary", text))
    if fit.rows.dropped is not None:
        pairs.append(("Left out", str(fit.rows.dropped)))
    return pairs


def _quadrature(fit: Fit) -> str:
    d = fit.problem.structure.d
    if d == 0:
        return "none needed: no scale random effects, the likelihood is exact"
    m = fit.optimum.nodes_per_dimension
    change = abs(fit.optimum.certificate.value(NODE_CHANGE))
    grid = f"{m} adaptive nodes" if d == 1 else f"{m} x {m} adaptive nodes"
    return f"{grid} per cluster; doubling them moves the log-likelihood by {change:.1e}"


def _optimum(fit: Fit) -> str:
    certificate = fit.optimum.certificate
    word = "certified" if certificate.converged else f"NOT CERTIFIED: {certificate.complaint}"
    return f"{word}; {evidence_text(certificate)}; {fit.optimum.evaluations} evaluations"
