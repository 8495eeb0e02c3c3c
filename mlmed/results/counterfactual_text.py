"""Effects between potential outcomes as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from inspect import signature
from typing import Any

from mlmed.effects.counterfactual import CounterfactualSet
from mlmed.effects.setting import Part
from mlmed.fit.lmm import LmmFit
from mlmed.fit.same_rows import SameRowsFit
from mlmed.glm.family import BINARY
from mlmed.intervals.values import Bootstrap, Delta, Interval, MonteCarlo
from mlmed.options import ROBUST_KINDS
from mlmed.report.text import format_number, render_pairs, render_table
from mlmed.results.abilities import Held
from mlmed.results.document import plain
from mlmed.results.inference import effects, interval_and_effects, kind_of

__all__ = ["counterfactual_facts", "counterfactual_text", "how_exact", "shown_values"]

#: Rows that say everything where control and treated cannot differ.
AVERAGES = ("acme", "ade", "total", "prop_mediated")


def counterfactual_facts(found: CounterfactualSet) -> dict[str, Any]:
    """What a document says of the question beside its tables."""
    return {
        "contrast": [plain(value) for value in found.chain.contrast],
        "interaction": found.interaction,
        "computed": how_exact(found.chain.mediator.family, found.chain.outcome.family),
    }


def counterfactual_text(
    self: Held, *, level: float, interval: Any = None, at: Mapping[str, Any] | None = None, **options: Any
) -> str:
    """Header and table; one row an effect where treatment and mediator do not interact and all is linear."""
    signature(effects).bind(self, **options)  # refuses what is no option
    asked, found = interval_and_effects(self, interval, at, options)
    assert isinstance(found, CounterfactualSet)
    fit, chain = self.fit, found.chain
    title = self.catalogue.title(fit)
    table, closing = asked.table(replace(found, say_closed=False), level=level), ""  # the header says it
    if chain.outcome.family == "linear" and not found.interaction:
        table = table.set_index("term").loc[list(AVERAGES)].reset_index()
        closing = (
            f"Control and treated have the same effects: no interaction of {chain.treatment} and {chain.mediator.name}."
        )
    pairs = _header(fit, found, kind_of(fit, options.get("vcov")))
    pairs += [("At", ", ".join(f"{name} = {value}" for name, value in at.items()))] if at else []
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
    if grouping is not None and vcov in ROBUST_KINDS:  # a sandwich is a sum over clusters, so they limit its rank
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
    """Whole numbers without decimals."""
    first, second = (f"{value:.12g}" if isinstance(value, float) else str(value) for value in values)
    return first, second


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
