"""What a sensitivity analysis is asked, checked; and the curve that answers it."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlmed.effects.confounding import Curve, Factored, Jointly
from mlmed.effects.sensitivity import Equation, Pair, embedding
from mlmed.errors import EffectError
from mlmed.options import HC_KINDS, SENSITIVITY_INTERVALS, check_count, check_list, check_seed, is_number, one_of
from mlmed.results.causal.fit import EquationFit
from mlmed.results.causal.fitted import CausalFit
from mlmed.text import shown

__all__ = ["check_direct", "check_rho", "curve_of", "grid_of", "interval_of", "pair_of"]

Array = NDArray[np.float64]
#: Families of mediator and outcome for which the correlation of the errors means something here.
SUPPORTED = (("linear", "linear"), ("linear", "probit"), ("probit", "linear"))
#: The family with normal errors, seen or not, that is next to one without.
NORMAL = {"logit": "probit", "poisson": "linear"}
DRAWS, STEP, SMALLEST_STEP = 1000, 0.1, 0.001


def check_rho(value: Any) -> float:
    """One correlation."""
    if not is_number(value) or not -1.0 < value < 1.0:
        raise EffectError(f"rho is a correlation of errors, between -1 and 1 (both excluded); found {shown(value)}")
    return float(value)


def grid_of(rho: Any) -> Array:
    """Correlations in order: multiples of a step, or what was listed."""
    if rho is None or isinstance(rho, Real):
        step = STEP if rho is None else rho
        if not is_number(step) or not 0.0 < float(step) < 1.0:
            raise EffectError(
                f"a single number for rho is the distance between its values, between 0 and 1, as in rho=0.05; found "
                f"{shown(rho)}. For one correlation give a list, as in rho=[0.3]"
            )
        if float(step) < SMALLEST_STEP:
            raise EffectError(
                f"rho={rho!r} asks for about {2.0 / float(step):.0f} correlations; take steps of {SMALLEST_STEP} or "
                "more, or give a list"
            )
        reach = int(np.ceil(1.0 / float(step) - 1e-9)) - 1
        return np.round(np.arange(-reach, reach + 1) * float(step), 12)
    found = [check_rho(value) for value in check_list(rho, "rho", "correlations, or one number")]
    if not found:
        raise EffectError("rho is an empty sequence; give at least one correlation, as in rho=[0.3]")
    return np.unique(found)


def interval_of(formula: str, interval: str | None, n: int | None, seed: int | None) -> tuple[str, int]:
    """Which interval, and the number of draws.

    Raises
    ------
    EffectError
        Unknown interval, options that it does not use, no seed where numbers are drawn.
    """
    drawn = formula == "medsens" or seed is not None or n is not None
    chosen = ("monte-carlo" if drawn else "delta") if interval is None else interval
    one_of(chosen, SENSITIVITY_INTERVALS, "interval")
    if chosen == "monte-carlo":
        check_seed(seed, f"formula={formula!r}" if formula == "medsens" else "interval='monte-carlo'")
        return chosen, DRAWS if n is None else check_count(n, "draws")
    if formula == "medsens":
        raise EffectError("formula='medsens' has the intervals that R gives it; use interval='monte-carlo' and a seed")
    idle = [name for name, value in (("n", n), ("seed", seed)) if value is not None]
    if idle:
        raise EffectError(
            f"interval='delta' draws nothing and does not use {' and '.join(idle)}; leave out, or use "
            "interval='monte-carlo'"
        )
    return chosen, 0


def check_direct(results: CausalFit) -> None:
    """Refuse a curve of direct effects that are 0 whatever the correlation is."""
    if "ade" in results.fixed:
        raise EffectError(
            f"the direct effect is fixed at 0 at every rho: the treatment {results.treatment} is not in the outcome "
            f"equation {results.outcome.equation.text!r}; add it, or use effect='indirect'"
        )


def pair_of(results: CausalFit) -> Pair:
    """The two fits, if the correlation of their errors is defined here."""
    mediator, outcome = results.mediator, results.outcome
    supported = " or ".join(f"{m} and {y}" for m, y in SUPPORTED)
    mixed = [equation.name for equation in (mediator, outcome) if equation.is_mixed]
    if mixed:
        raise EffectError(
            f"sensitivity analysis is not supported for mixed models, and the equation of {' and '.join(mixed)} has "
            f"random terms; it needs mediator and outcome {supported}. Leave the random terms out and give cluster= "
            "instead"
        )
    if (mediator.family, outcome.family) not in SUPPORTED:
        raise EffectError(
            f"no sensitivity analysis for the families {mediator.family} (mediator) and {outcome.family} (outcome); it "
            f"needs {supported}. {_other_families(mediator, outcome)}"
        )
    return Pair(_equation(mediator), _equation(outcome), results.counterfactual())


def _other_families(mediator: EquationFit, outcome: EquationFit) -> str:
    """Families of the same responses for which there is an analysis."""
    m, y = (NORMAL.get(equation.family, equation.family) for equation in (mediator, outcome))
    if (m, y) not in SUPPORTED:
        y = "linear"
    asked = (("family_m", mediator, m), ("family_y", outcome, y))
    changed = [(option, equation, new) for option, equation, new in asked if new != equation.family]
    words = " and ".join(f"{option}={new!r}" for option, _, new in changed)
    lines = [equation for _, equation, new in changed if new == "linear"]
    rough = "; a line through counts or two values is an approximation" if lines else ""
    coded = ["; code {} as 0 ({}) and 1 ({})".format(one.name, *one.coding) for one in lines if one.coding is not None]
    return f"Errors that can correlate are normal: refit with {words}{rough}{''.join(coded)}"


def _equation(fit: EquationFit) -> Equation:
    n, p = fit.design.X.shape
    scale = 1.0 if fit.family == "probit" else fit.sigma
    V = fit.covariance
    return Equation(fit.family, fit.design.y, fit.design.X, fit.beta, V.entire, scale, float(n - p), V.lost)


#: What a reader should know of a linear mediator and a probit outcome.
TWO_DIVISORS = (
    "coefficients maximize the likelihood at each rho (variances with the divisor n); the spread of the mediator that "
    "effects average over has its unbiased variance, as effects() has it"
)


def curve_of(results: CausalFit, pair: Pair, formula: str) -> tuple[Curve, tuple[str, ...]]:
    """How effects depend on rho, and what a reader should know of it."""
    C = embedding(pair) if pair.families[0] == "linear" else None
    if formula == "medsens":
        _check_medsens(pair, C)
        assert C is not None
        return Factored(pair, C, medsens=True), (
            "R's formula, with estimates that are means of draws. It shrinks the coefficient of the mediator, so the "
            "effect at rho = 0 is not the estimated one (docs/sensitivity.md); use formula='exact' for anything but "
            "a comparison with R",
        )
    notes = [TWO_DIVISORS] if pair.families == ("linear", "probit") else []
    if C is not None:
        return Factored(pair, C), tuple(notes)
    if pair.families[0] == "linear":
        notes.append(
            "the mediator's equation has columns that the outcome's lacks, so the data have something to say of rho; "
            "both equations were fitted together at each rho"
        )
    kind, grouping = results.errors.vcov, results.chain.grouping
    if kind in HC_KINDS[1:]:
        notes.append(f"{kind} is HC0 here: the joint fit of both equations at each rho has no leverages")
    codes = grouping.codes if results.errors.cluster and grouping is not None else None
    return Jointly(pair, codes, robust=kind in HC_KINDS, corrected=kind != "CR0"), tuple(notes)


def _check_medsens(pair: Pair, C: Array | None) -> None:
    if pair.families != ("linear", "probit"):
        raise EffectError(
            "formula='medsens' is R's for a linear mediator and a probit outcome; here they are "
            f"{pair.families[0]} and {pair.families[1]}. Use formula='exact'"
        )
    slope = pair.columns.slope
    if C is None or not np.array_equal(slope, np.broadcast_to(slope[:1, :1], slope.shape)):
        found = (
            "here the mediator's equation has columns that the outcome's lacks"
            if C is None
            else "here the slope of the mediator differs between rows"
        )
        raise EffectError(
            "formula='medsens' needs the same covariates in both equations and no interaction with the mediator; "
            f"{found}. Use formula='exact'"
        )
