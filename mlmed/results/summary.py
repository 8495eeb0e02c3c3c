"""Summaries as text: the model, its estimates, and whether they are certified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import singledispatch
from inspect import signature
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.counterfactual import CounterfactualSet
from mlmed.effects.setting import Part
from mlmed.errors import EffectError
from mlmed.fit.glm import PlainFit
from mlmed.fit.lmm import LmmFit, boundary_text, certified_text, empty_text, starts_text
from mlmed.fit.quadrature import QuadratureFit
from mlmed.fit.same_rows import SameRowsFit
from mlmed.fit.system import SystemFit, equation_of
from mlmed.glm.family import BINARY
from mlmed.intervals.sdcor import headline_correlations
from mlmed.intervals.values import Bootstrap, Delta, Interval, MonteCarlo
from mlmed.numerics.certificate import NODE_CHANGE, Certificate
from mlmed.options import ROBUST_KINDS
from mlmed.report.text import format_number, letter_of, render_pairs, render_table
from mlmed.results.abilities import Held
from mlmed.results.document import interval_entry, plain
from mlmed.results.inference import effects, interval_and_effects, kind_of
from mlmed.results.tables import about, fixed_table, root_table, variance_table
from mlmed.text import assigned

#: Name of the equation without the mediator.
TITLES = {"reduced": "Path c"}
#: Rows shown if control and treated cannot differ.
AVERAGES = ("acme", "ade", "total", "prop_mediated")


@singledispatch
def native_summary(
    fit: Any, *, vcov: str, level: float, title: str = "", ddf: str = "none", correlations: bool = True
) -> str:
    """Write title, header and tables of a fit, by kind of fit.

    Parameters
    ----------
    fit : Fit
        The fit.
    vcov, level, ddf
        As in ``Results.tidy``.
    title : str
        First line; by default the fit's own.
    correlations : bool
        Whether to show correlations of several responses.
    """
    raise EffectError(f"{fit.kind} has no summary of its own")


@native_summary.register
def _(fitted: LmmFit, *, vcov: str, level: float, title: str = "", ddf: str = "none", correlations: bool = True) -> str:
    fixed, variances = (
        fixed_table(fitted, vcov=vcov, level=level, ddf=ddf),
        variance_table(fitted, vcov=vcov, level=level),
    )
    n_tau = len(fitted.estimates.tau)  # the group may be named Residual
    lines = [
        *headed(title or "Linear mixed model", header(fitted)),
        "",
        f"Fixed effects ({intervals_named(vcov, level, ddf)})",
        render_table(fixed),
        "",
        f"Random effects by {fitted.group_name}: variances and covariances (sdcorr: sd or correlation)",
        render_table(_without_tests(variances.iloc[:n_tau])),
        "",
        "Residual variances and covariances" if fitted.spec.correlated else "Residual variances",
        render_table(_without_tests(variances.iloc[n_tau:])),
        *(_correlations(fitted, vcov=vcov, level=level) if correlations else []),
    ]
    return "\n".join(lines)


def scale_summary(
    fit: QuadratureFit,
    effects: pd.DataFrame,
    *,
    title: str,
    vcov: str,
    level: float,
    ddf: str,
    asked: Mapping[str, Any],
) -> str:
    """Write header, fixed effects, scale effects, random effects; ``asked`` holds the options of ``effects``."""
    fixed = fixed_table(fit, vcov=vcov, level=level, ddf=ddf)
    p, percent = fit.problem.p, f"{100 * level:g}% intervals; observed information"
    interval, given = interval_entry(asked).values()
    drawn = "" if interval == "delta" else f" ({', '.join([interval, *(f'{k} {v}' for k, v in given.items())])})"
    lines = [
        *headed(title, header(fit)),
        "",
        f"Location: fixed effects ({percent})",
        render_table(fixed.iloc[:p]),
        "",
        "Scale: fixed effects on the log residual sd",
        render_table(fixed.iloc[p:]),
        "",
        f"Scale effects on the sd scale{drawn}",
        render_table(effects.drop(columns=["statistic", "p_value"])),
        "",
        f"Random effects by {fit.group_name}: standard deviations and correlations",
        render_table(root_table(fit, vcov=vcov, level=level).drop(columns="group")),
    ]
    return "\n".join(lines)


@native_summary.register
def _(fit: SystemFit, *, vcov: str, level: float, title: str = "", ddf: str = "none", correlations: bool = True) -> str:
    pairs = []
    if fit.levels is not None:
        text = f"{fit.design} (levels of treatment, mediator, outcome; clusters: {fit.group_name})"
        pairs.append(("Design", text))
    names = {role: TITLES.get(role, role.capitalize()) for role in fit.components}
    for role, one in fit.components.items():
        pairs += [(names[role], equation_of(one).text), ("", how_fitted(one))]
    left_out = [note.text for one in fit.components.values() for note in one.notes if note.code == "rows-left-out"]
    pairs += [("Left out", text) for text in dict.fromkeys(left_out)]
    lines = headed(title or "Equations that are fitted apart", pairs)
    lines += [] if fit.levels is None else ["", "Levels", render_table(fit.levels)]
    for role, one in fit.components.items():
        table = _coefficients(one, vcov=vcov, level=level, ddf=ddf)  # refuses what it cannot use
        lines += ["", f"{names[role]}: fixed effects ({intervals_named(vcov, level, ddf)})", table]
    return "\n".join(lines)


@native_summary.register
def _(fit: PlainFit, *, vcov: str, level: float, title: str = "", ddf: str = "none", correlations: bool = True) -> str:
    rows = ("Clusters", f"{fit.nobs} ({fit.unit_name}; each counts once)") if fit.unit_name else ("Rows", str(fit.nobs))
    pairs = [("Equation", fit.equation.text), rows]
    if fit.family == "linear":
        text = f"variance {fit.sigma2:.6g}, {fit.df:g} df; log-likelihood {fit.llf:.5f}"
        pairs.append(("Residual", text))
    else:
        pairs += [("Family", fit.family), ("Method", f"ML; log-likelihood {fit.llf:.5f}")]
    pairs += [("Left out", note.text) for note in fit.notes if note.code == "rows-left-out"]
    called = regression_named(fit)
    own = f"{called[0].upper()}{called[1:]}{' on one row per cluster' if fit.unit_name else ''}: {fit.equation.name}"
    table = _coefficients(fit, vcov=vcov, level=level, ddf=ddf)
    heading = f"Coefficients ({intervals_named(vcov, level, ddf)})"
    return "\n".join([*headed(title or own, pairs), "", heading, table])


def _coefficients(fit: Any, *, vcov: str, level: float, ddf: str) -> str:
    table = fixed_table(fit, vcov=vcov, level=level, ddf=ddf)
    if isinstance(fit, PlainFit):
        return render_table(table.drop(columns=["df", "note"]), statistic=letter_of(table))
    return render_table(table)


def headed(title: str, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Write the first lines of a summary."""
    return [title, "=" * len(title), render_pairs(pairs)]


def intervals_named(vcov: str, level: float, ddf: str) -> str:
    """Describe the intervals of a table, for its heading."""
    return f"{100 * level:g}% intervals; {errors_named(vcov, ddf)} standard errors"


def how_fitted(fit: LmmFit | PlainFit) -> str:
    """Describe one component: engine, criterion, size, and anything unusual."""
    if isinstance(fit, PlainFit):
        where = f"on one row per cluster, {fit.nobs} clusters" if fit.unit_name else f"on {fit.nobs} rows"
        return f"{regression_named(fit)} {where}"
    words = (
        f"mixed model, {fit.method.upper()}, {fit.nobs} rows in {len(fit.clusters)} clusters, log-likelihood "
        f"{fit.llf:.5f}"
    )
    if fit.is_singular:
        words += ", boundary (singular) fit"
    return words if fit.converged else f"{words}, NOT CERTIFIED (see docs/convergence.md)"


def regression_named(fit: PlainFit) -> str:
    """What an ordinary regression is called."""
    return {"linear": "least squares", "poisson": "Poisson regression"}.get(fit.family, f"{fit.family} regression")


def _correlations(fitted: LmmFit, *, vcov: str, level: float) -> list[str]:
    """Write the correlations of several responses; empty if the model has none."""
    table = headline_correlations(fitted, vcov=vcov, level=level)
    if not len(table):
        return []
    heading = "Correlations of responses: intercepts between clusters, residuals within (all: correlations(), sdcor())"
    return ["", heading, render_table(table)]


def errors_named(vcov: str, ddf: str) -> str:
    """Name the standard errors, for a heading."""
    return f"{vcov}, adjusted by Kenward and Roger," if ddf == "kenward-roger" else vcov


def effects_text(table: pd.DataFrame, meaning: str, usual: Mapping[str, Any], *, level: float, **asked: Any) -> str:
    """Write the effects below a heading that describes their intervals.

    ``asked`` holds the options of ``effects``, ``usual`` the defaults of the delta method.
    """
    interval, given = interval_entry(asked).values()
    at = given.pop("at", {})
    where = f"; {assigned(at)}" if at else ""
    if interval == "delta":
        order = given.get("order", usual["order"])
        errors = errors_named(given.get("vcov", usual["vcov"]), given.get("ddf", "none"))
        how = f"delta method, {order if order == 'unbiased' else f'{order} order'}; {errors} standard errors"
    else:
        options = "".join(f", {name} {value}" for name, value in given.items())
        how = f"{100 * level:g}% intervals: {interval}{options}"
    return "\n".join([f"Effects ({meaning and f'{meaning}; '}{how}{where})", render_table(table)])


def _without_tests(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=["group", "statistic", "df", "p_value"])


@singledispatch
def header(fit: Any) -> list[tuple[str, str]]:
    """Pairs of name and value above the tables, by kind of fit."""
    raise EffectError(f"{fit.kind} has no summary of its own")


@header.register
def _(fitted: LmmFit) -> list[tuple[str, str]]:
    equations, nobs = fitted.layout.equations, fitted.working.problem.nobs
    rows = fitted.grams.rows_per_cluster
    pairs = [("Equations" if len(equations) > 1 else "Equation", fitted.spec.equations[0].text)]
    pairs += [("", equation.text) for equation in fitted.spec.equations[1:]]
    by_equation = ", ".join(f"{e.name} {n}" for e, n in zip(equations, nobs, strict=True))
    pairs.append(("Observations", f"{fitted.nobs} ({by_equation})" if len(equations) > 1 else str(fitted.nobs)))
    pairs.append(("Clusters", f"{len(rows)} ({fitted.group_name}; {_spread(rows)})"))
    label = "REML; log restricted-likelihood" if fitted.reml else "ML; log-likelihood"
    criteria = f"AIC {fitted.aic:.2f}, BIC {fitted.bic:.2f}"
    pairs.append(("Method", f"{label} {fitted.estimates.loglik:.5f}, {criteria}"))
    pairs.append(("Optimum", _optimum_line(fitted)))
    if fitted.is_singular:
        of = "random effect" if fitted.optimum.rank < fitted.optimum.size else "combination of residuals"
        text = (
            f"singular fit: {boundary_text(fitted)}, so at least one {of} has variance 0 or is a linear combination of "
            "others; see docs/singular.md"
        )
        pairs.append(("Boundary", text))
    if fitted.working.empty:
        pairs.append(("Left out", empty_text(fitted.working.empty)))
    pairs += [("Left out", str(dropped)) for dropped in fitted.layout.dropped]
    return pairs


def _optimum_line(fitted: LmmFit) -> str:
    certificate, steps, searched = fitted.optimum.certificate, fitted.optimum.steps, fitted.optimum.searched
    evidence = f"{certified_text(fitted)}: {evidence_text(certificate)}"
    return f"{evidence}; {len(steps)} evaluations; {starts_text(searched)}"


@header.register
def _(fit: QuadratureFit) -> list[tuple[str, str]]:
    first, second = fit.rows.equations
    sizes, row = np.bincount(fit.rows.codes), about(fit)
    spread = _spread(sizes)
    if fit.rows.scale.random_names and sizes.min() == 1:
        spread += f"; {int((sizes == 1).sum())} with 1 row, which says nothing of its own residual sd"
    certificate = fit.optimum.certificate
    word = "certified" if fit.converged else f"NOT CERTIFIED: {certificate.complaint}"
    pairs = [
        ("Location", first.text),
        ("Scale", f"~ {second.right}"),
        ("Observations", str(fit.nobs)),
        ("Clusters", f"{len(sizes)} ({fit.group_name}; {spread})"),
        ("Method", f"ML; log-likelihood {fit.llf:.5f}, AIC {row['aic']:.2f}, BIC {row['bic']:.2f}"),
        ("Quadrature", _quadrature(fit)),
        ("Optimum", f"{word}; {evidence_text(certificate)}; {fit.optimum.evaluations} evaluations"),
    ]
    if fit.is_singular:
        rank = f"{fit.estimates.rank} of {len(fit.estimates.G)}"
        pairs.append(("Boundary", f"boundary (singular) fit: G has rank {rank}; see docs/singular.md"))
    if fit.rows.dropped is not None:
        pairs.append(("Left out", str(fit.rows.dropped)))
    return pairs


def _spread(rows: NDArray[np.integer]) -> str:
    return f"{rows.min()} to {rows.max()} rows, mean {rows.mean():.1f}"


def _quadrature(fit: QuadratureFit) -> str:
    d = fit.problem.structure.d
    if d == 0:
        return "none needed: no scale random effects, the likelihood is exact"
    change = abs(fit.optimum.certificate.value(NODE_CHANGE))
    grid = f"{fit.nodes} adaptive nodes" if d == 1 else f"{fit.nodes} x {fit.nodes} adaptive nodes"
    return f"{grid} per cluster; doubling them moves the log-likelihood by {change:.1e}"


def evidence_text(certificate: Certificate) -> str:
    """Summarize gradient, decrement and curvature."""
    return (
        f"gradient {certificate.gradient_norm:.0e}, Newton decrement {certificate.newton_decrement:.0e}, smallest "
        f"curvature {format_number(certificate.smallest_curvature, 3)}"
    )


def counterfactual_facts(found: CounterfactualSet) -> dict[str, Any]:
    """Facts of the question for a document, besides its tables."""
    return {
        "contrast": [plain(value) for value in found.chain.contrast],
        "interaction": found.interaction,
        "computed": how_exact(found.chain.mediator.family, found.chain.outcome.family),
    }


def counterfactual_text(
    self: Held, *, level: float, interval: Any = None, at: Mapping[str, Any] | None = None, **options: Any
) -> str:
    """Write header and table; one row per effect if both equations are linear without interaction."""
    signature(effects).bind(self, **options)  # refuses unknown options
    asked, found = interval_and_effects(self, interval, at, options)
    assert isinstance(found, CounterfactualSet)
    fit, chain = self.fit, found.chain
    title = self.catalogue.title(fit)
    table, closing = asked.table(replace(found, say_closed=False), level=level), ""  # already in the header
    if chain.outcome.family == "linear" and not found.interaction:
        table = table.set_index("term").loc[list(AVERAGES)].reset_index()
        closing = (
            f"Control and treated have the same effects: no interaction of {chain.treatment} and {chain.mediator.name}."
        )
    pairs = _header(fit, found, kind_of(fit, options.get("vcov")))
    pairs += [("At", assigned(at))] if at else []
    pairs += [("Effects", _averages(found)), ("Intervals", _interval(asked, found, level))]
    lines = [title, "=" * len(title), render_pairs(pairs), "", render_table(table)]
    return "\n".join([*lines, "", closing] if closing else lines)


def _header(fit: SameRowsFit, found: CounterfactualSet, vcov: str) -> list[tuple[str, str]]:
    chain, grouping = found.chain, found.chain.grouping
    control, treated = shown_values(chain.contrast)
    pairs = [
        ("Mediator", _equation(chain.mediator)),
        ("Outcome", _equation(chain.outcome)),
        ("Treatment", f"{chain.treatment}: {control} (control) to {treated} (treated)"),
    ]
    for part in chain.parts:
        if part.coding is not None:
            pairs.append(("Coding", "{}: {} is 0, {} is 1".format(part.name, *part.coding)))
    pairs.append(("Rows", f"{fit.nobs}, the same in both equations"))
    if grouping is not None:
        pairs.append(("Clusters", f"{len(grouping.clusters)} ({grouping.name})"))
    pairs += [("Left out", note.text) for note in fit.notes if note.code == "rows-left-out"]
    within, few = "", ""
    if grouping is not None and vcov in ROBUST_KINDS:  # clusters limit the rank of a sandwich
        J, p = len(grouping.clusters), max(len(part.beta) for part in chain.parts)
        within = f" within {grouping.name}"
        few = f" ({J} clusters for {p} coefficients: do not trust them)" if p >= J else ""
    pairs.append(("vcov", f"{vcov}{within}, of the coefficients{few}"))
    return pairs


def _equation(part: Part) -> str:
    if isinstance(part.fit, LmmFit):
        words = f"linear mixed, {part.fit.spec.method.upper()}"
        if part.fit.is_singular:
            words += ", boundary (singular) fit, see docs/singular.md"
        if not part.fit.converged:
            words += ", NOT CERTIFIED (see docs/convergence.md)"
        return f"{part.equation.text} ({words})"
    return f"{part.equation.text} ({part.family})"


def shown_values(values: tuple[Any, Any]) -> tuple[str, str]:
    """Show both values, whole numbers without decimals."""
    first, second = (f"{value:.12g}" if isinstance(value, float) else str(value) for value in values)
    return first, second


def how_exact(mediator: str, outcome: str) -> str:
    """Say how expected outcomes are computed from coefficients (docs/math.md, eq. 68 to 72)."""
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


def _averages(found: CounterfactualSet) -> str:
    mediator, outcome = found.chain.parts
    in_population = found.question.of == "population"
    text = f"averages over the rows; given the coefficients, {how_exact(mediator.family, outcome.family)}"
    if mediator.family == "linear" and outcome.family != "linear":
        spread = f"s = {format_number(mediator.sigma)}, the residual sd of {mediator.name},"
        if mediator.is_mixed and in_population:
            spread = f"s, from the variances of the random effects and residuals of {mediator.name},"
        text += f" ({spread} is kept at its estimate)"
    if not found.chain.is_mixed:
        return text
    if in_population:
        text += "; random effects averaged out over the population of clusters"
    else:
        text += "; random effects at their conditional modes, of these clusters"
    if found.both_slopes_vary:
        text += ". Two separate fits do not estimate the covariance of their random slopes (mlmed.mediate does)"
    return text


def _interval(asked: Interval, found: CounterfactualSet, level: float) -> str:
    share = f"{100 * level:g}%"
    if isinstance(asked, Delta):
        return f"{share}, delta method"
    if isinstance(asked, Bootstrap):
        return f"{share}, bootstrap ({asked.ends}), {asked.n:,} replicates, seed {asked.seed}"
    assert isinstance(asked, MonteCarlo)
    text = f"{share}, Monte Carlo: quantiles of {asked.n:,} draws of the coefficients, seed {asked.seed}"
    independent = found.question.ranef_draws == "independent"
    return f"{text}; random effects drawn independently of them" if independent else text
