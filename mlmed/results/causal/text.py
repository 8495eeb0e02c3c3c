"""A causal fit as text and as a document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mlmed.fit.lmm import LmmFit
from mlmed.glm.family import BINARY
from mlmed.intervals.options import check_options
from mlmed.options import check_level
from mlmed.report.text import format_number, render_pairs, render_table
from mlmed.results.causal.fit import EquationFit
from mlmed.results.causal.fitted import CausalFit
from mlmed.results.causal.intervals import OPTIONS
from mlmed.results.document import plain, records

__all__ = ["Shown", "document", "how_exact", "shown_values", "summary_text"]

#: Name and version of the JSON layout; a change of meaning changes the number.
SCHEMA = "mlmed.causal/2"
#: Rows that say everything where control and treated cannot differ.
AVERAGES = ("acme", "ade", "total", "prop_mediated")


@dataclass(frozen=True, slots=True)
class Shown:
    """A table of effects and how it was made.

    Attributes
    ----------
    table : DataFrame
        From ``effects``.
    interval : str
        Kind of interval.
    level : float
        Coverage.
    at : mapping or None
        Values of covariates.
    of : str or None
        How random effects enter.
    options : mapping
        The others, as they were given.
    """

    table: pd.DataFrame
    interval: str
    level: float
    at: Mapping[str, Any] | None
    of: str | None
    options: Mapping[str, Any]


def how_exact(mediator: str, outcome: str) -> str:
    """How expected outcomes of given coefficients are computed (docs/math.md, eq. 68 to 72)."""
    if mediator == outcome == "linear":
        return "closed form: sums of products of coefficients"
    if outcome == "linear" or (mediator in ("linear", "poisson") and outcome == "poisson"):
        return "closed form"
    if mediator in BINARY:
        return "exact: sum over both values of the mediator"
    if mediator == "poisson":
        return "exact: sum over the counts of the mediator"
    if outcome == "probit":
        return "closed form: Phi((A + B mu) / sqrt(1 + B^2 s^2))"
    return "numerical integral over the mediator, to 1e-10"


def _equation(equation: EquationFit) -> str:
    if isinstance(equation.fit, LmmFit):
        words = f"linear mixed, {equation.fit.spec.method.upper()}"
        if equation.fit.is_singular:
            words += ", boundary (singular) fit, see docs/singular.md"
        if not equation.fit.converged:
            words += ", NOT CERTIFIED (see docs/convergence.md)"
        return f"{equation.equation.text} ({words})"
    return f"{equation.equation.text} ({equation.family})"


def _header(results: CausalFit, shown: Shown) -> list[tuple[str, str]]:
    control, treated = shown_values(results.contrast)
    pairs = [
        ("Mediator", _equation(results.mediator)),
        ("Outcome", _equation(results.outcome)),
        ("Treatment", f"{results.treatment}: {control} (control) to {treated} (treated)"),
    ]
    for equation in (results.mediator, results.outcome):
        if equation.coding is not None:
            pairs.append(("Coding", "{}: {} is 0, {} is 1".format(equation.name, *equation.coding)))
    pairs.append(("Rows", f"{results.nobs}, the same in both equations"))
    grouping = results.chain.grouping
    if grouping is not None:
        pairs.append(("Clusters", f"{len(grouping.clusters)} ({grouping.name})"))
    if results.dropped is not None:
        pairs.append(("Left out", str(results.dropped)))
    within = f" within {results.errors.cluster}" if results.errors.cluster else ""
    pairs.append(("vcov", f"{results.errors.vcov}{within}, of the coefficients{_too_few(results)}"))
    if shown.at:
        pairs.append(("At", ", ".join(f"{name} = {value}" for name, value in shown.at.items())))
    pairs.append(("Effects", _averages(results, shown)))
    pairs.append(("Intervals", _interval(shown)))
    return pairs


def shown_values(values: tuple[Any, Any]) -> tuple[str, str]:
    """Whole numbers without decimals."""
    first, second = (f"{value:.12g}" if isinstance(value, float) else str(value) for value in values)
    return first, second


def _too_few(results: CausalFit) -> str:
    """A sandwich is a sum over clusters, so they limit its rank."""
    grouping, p = results.chain.grouping, max(len(results.mediator.beta), len(results.outcome.beta))
    if results.errors.cluster is None or grouping is None or len(grouping.clusters) > p:
        return ""
    return f" ({len(grouping.clusters)} clusters for {p} coefficients: do not trust them)"


def _averages(results: CausalFit, shown: Shown) -> str:
    mediator, outcome = results.mediator, results.outcome
    text = f"averages over the rows; given the coefficients, {how_exact(mediator.family, outcome.family)}"
    if mediator.family == "linear" and outcome.family != "linear":
        spread = f"s = {format_number(mediator.sigma)}, the residual sd of {mediator.name},"
        if mediator.is_mixed and shown.of == "population":
            spread = f"s, from the variances of the random effects and residuals of {mediator.name},"
        text += f" ({spread} is kept at its estimate)"
    if not results.chain.is_mixed:
        return text
    if shown.of == "population":
        text += "; random effects averaged out over the population of clusters"
    else:
        text += "; random effects at their conditional modes, of these clusters"
    if results.both_slopes_vary:
        text += ". Two separate fits do not estimate the covariance of their random slopes (mlmed.mediate does)"
    return text


def _interval(shown: Shown) -> str:
    level = f"{100 * shown.level:g}%"
    if shown.interval == "delta":
        return f"{level}, delta method"
    used = check_options(OPTIONS, shown.interval, shown.options)
    count, seed = f"{used['n']:,}", used["seed"]
    if shown.interval == "bootstrap":
        return f"{level}, bootstrap ({used['ends']}), {count} replicates, seed {seed}"
    text = f"{level}, Monte Carlo: quantiles of {count} draws of the coefficients, seed {seed}"
    return text if used["ranef_draws"] == "joint" else f"{text}; random effects drawn independently of them"


def summary_text(results: CausalFit, shown: Shown) -> str:
    """Header and table; one row an effect where treatment and mediator do not interact and all is linear."""
    chain = results.treatment, results.mediator.name, results.outcome.name
    title = f"Causal mediation: {' -> '.join(chain)}"
    table, closing = shown.table, ""
    if results.outcome.family == "linear" and not results.interaction:
        table = table.set_index("term").loc[list(AVERAGES)].reset_index()
        closing = f"Control and treated have the same effects: no interaction of {chain[0]} and {chain[1]}."
    lines = [title, "=" * len(title), render_pairs(_header(results, shown)), "", render_table(table)]
    return "\n".join([*lines, "", closing] if closing else lines)


def document(results: CausalFit, tables: Mapping[str, pd.DataFrame], level: float) -> dict[str, Any]:
    """Everything as plain values, for JSON."""
    grouping = results.chain.grouping
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "mediator": results.mediator.equation.text,
        "outcome": results.outcome.equation.text,
        "family_m": results.mediator.family,
        "family_y": results.outcome.family,
        "treatment": results.treatment,
        "contrast": [plain(value) for value in results.contrast],
        "interaction": results.interaction,
        "nobs": results.nobs,
        "n_clusters": None if grouping is None else len(grouping.clusters),
        "vcov": results.errors.vcov,
        "level": check_level(level),
        "computed": how_exact(results.mediator.family, results.outcome.family),
        "dropped": None if results.dropped is None else str(results.dropped),
    }
    return found | {name: records(table) for name, table in tables.items()}
