"""Tables of ``causal``: coefficients, effects by the delta method or from draws, effects by cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.delta import delta_table, said_of, std_error
from mlmed.effects.potential import CONTRASTS, EFFECTS, RATIOS, all_effects, contrast_effects
from mlmed.effects.quantity import Quantity
from mlmed.effects.uncertainty import Contrasts, draw_contrasts
from mlmed.glm.fit import GlmFit
from mlmed.intervals.bootstrap import draws_table
from mlmed.lmm.vcov import Vcov
from mlmed.notes import joined
from mlmed.results.causal.fit import EquationFit
from mlmed.results.causal.setting import Prepared

__all__ = [
    "cluster_notes",
    "coefficient_table",
    "contrast_quantities",
    "delta_effects",
    "draw_effects",
    "drawn_effects",
    "fixed_effects",
    "interval_subject",
    "lost_effects",
]

Array = NDArray[np.float64]
#: A total effect this close to zero, in standard errors, says nothing as a denominator.
CLEAR = 2.0
NO_SPREAD = "no standard error: a ratio of draws has no variance"
NO_DIRECT = "fixed at 0: the treatment is not in the outcome equation"
ALL_MEDIATED = "fixed at 1: the treatment is not in the outcome equation"
ZERO_TOTAL = "not defined: the total effect is 0"
#: What effects with conditional modes in them are about, and what to do about it.
THESE = "about these {J} clusters only"
NEITHER = "an interval neither about these {J} clusters nor about others, as in R's mediation"
GENERAL = ": for clusters in general use "
EITHER = "interval='bootstrap' or of='population'"
COVARYING = "interval='bootstrap', or mlmed.mediate (of='population' leaves out cov(a_j, b_j))"
CLOSED = "estimate in closed form (sums of products of coefficients), not a mean of draws"


def coefficient_table(equation: EquationFit, *, level: float) -> pd.DataFrame:
    """Fixed effects; t tests with n - p degrees of freedom for least squares, normal tests otherwise."""
    unit, fit = np.eye(len(equation.beta)), equation.fit
    free = fit.nobs - len(unit) if isinstance(fit, GlmFit) and equation.family == "linear" else np.inf
    slopes = [Quantity(n, float(b), row) for n, b, row in zip(equation.names, equation.beta, unit, strict=True)]
    return delta_table(slopes, equation.covariance, level=level, df=free)


def fixed_effects(has_direct: bool) -> dict[str, str]:
    """Effects that the formulas fix, and why."""
    if has_direct:
        return {}
    return {"ade_control": NO_DIRECT, "ade_treated": NO_DIRECT, "ade": NO_DIRECT} | dict.fromkeys(RATIOS, ALL_MEDIATED)


def interval_subject(J: int, *, joint: bool) -> str:
    """What an interval is about if it rests on the random effects of J clusters.

    ``joint`` says whether these are drawn given the coefficients.
    """
    return (THESE if joint else NEITHER).format(J=J)


def cluster_notes(found: Contrasts, J: int, *, joint: bool) -> dict[str, str]:
    """Which effects rest on the random effects of the J clusters in the data, and what that means.

    Parameters
    ----------
    found : Contrasts
        Says where they enter.
    J : int
        Clusters.
    joint : bool
        Whether random effects are drawn given the coefficients.
    """
    enters = dict(zip(CONTRASTS, found.random.T, strict=True))
    for kind in ("acme", "ade"):
        enters[kind] = enters[f"{kind}_control"] | enters[f"{kind}_treated"]
    for term in RATIOS:
        enters[term] = enters[term.replace("prop_mediated", "acme")] | enters["total"]
    start = interval_subject(J, joint=joint) + GENERAL
    return {term: start + (COVARYING if both.all() else EITHER) for term, both in enters.items() if both.any()}


def contrast_quantities(
    found: Contrasts, fixed: Mapping[str, str], notes: Mapping[str, str] | None = None
) -> dict[str, Quantity]:
    """Every effect as a function of the contrasts (and coefficients, which do not enter).

    ``fixed`` are effects that the formulas fix, and why; ``notes`` belong to the others.
    """
    unit = np.eye(len(found.values))
    contrasts = {name: Quantity(name, float(found.values[k]), unit[k]) for k, name in enumerate(CONTRASTS)}
    made, total = contrast_effects(**contrasts), contrasts["total"]
    share = _share_note(total.estimate, std_error(total, found.vcov, order="first"))
    out: dict[str, Quantity] = {}
    for term, quantity in made.items():
        if term in fixed:
            out[term] = Quantity(term, 1.0 if term in RATIOS else 0.0, np.zeros(len(unit)), None, fixed[term])
            continue
        said = [share if term in RATIOS else "", (notes or {}).get(term, "")]
        note = ZERO_TOTAL if quantity.is_missing else joined(*said)
        out[term] = replace(quantity, term=term, hessian=None, note=note)
    return out


def _share_note(total: float, error: float) -> str:
    """Warn of a denominator that may be zero."""
    if not abs(total) < CLEAR * error:
        return ""
    return f"unstable: the total effect is {abs(total) / error:.1f} standard errors from 0, and this is a share of it"


def delta_effects(found: Contrasts, quantities: Mapping[str, Quantity], *, level: float) -> pd.DataFrame:
    """The table of the delta method, first order (eq. 74); ``quantities`` as ``contrast_quantities`` gives them."""
    return delta_table([quantities[term] for term in EFFECTS], found.vcov, order="first", level=level)


def draw_effects(prepared: Prepared, *, n: int, seed: int, by_cluster: bool = False) -> Array:
    """Contrasts of n draws of the coefficients, (n, 5) or (n, J, 5)."""
    laws = prepared.mediator, prepared.outcome
    return draw_contrasts(prepared.setting, *laws, n=n, seed=seed, by_cluster=by_cluster)


def drawn_effects(
    contrasts: Array,
    estimates: Mapping[str, Quantity],
    V: Vcov,
    fixed: Mapping[str, str],
    *,
    closed: bool,
    say_closed: bool,
    level: float,
) -> pd.DataFrame:
    """The table of Monte Carlo draws (eq. 75): means, medians of ratios, quantiles.

    Parameters
    ----------
    contrasts : (n, 5) array
        Draws.
    estimates : mapping
        The effects at the estimates.
    V : Vcov
        Of the contrasts and coefficients, which says which effects it knows nothing of.
    fixed : mapping
        Effects that the formulas fix, and why.
    closed : bool
        Effects are sums of products of independent coefficients: their mean is what the estimates give, without draws.
    say_closed : bool
        Whether the notes say so.
    level : float
        Coverage.
    """
    draws = all_effects(contrasts)
    lost = int((~np.isfinite(contrasts).all(axis=1)).sum())
    missing = dict(fixed)
    if lost:
        reason = f"{lost} of {len(contrasts)} draws give an expected outcome too large for a number"
        missing |= {term: reason for term in EFFECTS if term not in fixed}
    unknown, said = lost_effects(estimates, V)
    missing = {term: joined(estimates[term].note, why) for term, why in unknown.items()} | missing
    values, notes = {}, {}
    for term in EFFECTS:
        at_estimates, note = estimates[term].estimate, joined(estimates[term].note, said[term])
        if closed or term in missing:
            values[term] = float("nan") if lost and term not in fixed else at_estimates
        else:
            values[term] = float(np.median(draws[term]) if term in RATIOS else np.mean(draws[term]))
        notes[term] = joined(CLOSED if closed and say_closed else "", note)
    unspread = dict.fromkeys(RATIOS, NO_SPREAD)
    return draws_table(
        pd.DataFrame(draws), pd.Series(values), level=level, notes=notes, missing=missing, unspread=unspread
    )


def lost_effects(estimates: Mapping[str, Quantity], V: Vcov) -> tuple[dict[str, str], dict[str, str]]:
    """Effects that a covariance knows nothing of, and why; what a reader should know of the others."""
    said = {term: said_of(quantity, V, order="first") for term, quantity in estimates.items()}
    free = {term for term, quantity in estimates.items() if not quantity.is_fixed}
    lost = {term: said[term] for term in free if np.isnan(std_error(estimates[term], V, order="first"))}
    return lost, {term: "" if term in lost else note for term, note in said.items()}
