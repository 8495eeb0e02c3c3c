"""Sensitivity analysis: potential-outcome effects as functions of the correlation rho of the two errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from mlmed.effects.confounding import Curve, Factored, Jointly
from mlmed.effects.counterfactual import CounterfactualCatalogue, CounterfactualSet
from mlmed.effects.draws import draw_interval
from mlmed.effects.sensitivity import CONTRASTS, Equation, Pair, embedding, explained
from mlmed.effects.setting import Part
from mlmed.errors import EffectError
from mlmed.fit.glm import PlainFit
from mlmed.lmm.vcov import said_along
from mlmed.options import (
    HC_KINDS,
    ROBUST_KINDS,
    SENSITIVE,
    SENSITIVITY_FORMULAS,
    SENSITIVITY_INTERVALS,
    check_count,
    check_level,
    check_list,
    check_seed,
    is_number,
    one_of,
)
from mlmed.results.abilities import Held, only
from mlmed.results.sensitivity import NOTHING, TERMS, SensitivityResults, check_rho
from mlmed.text import shown

Array = NDArray[np.float64]
#: Families of mediator and outcome with a defined error correlation.
SUPPORTED = (("linear", "linear"), ("linear", "probit"), ("probit", "linear"))
#: The nearest family with (latent) normal errors.
NORMAL = {"logit": "probit", "poisson": "linear"}
DRAWS, STEP, SMALLEST_STEP = 1000, 0.1, 0.001
COLUMNS_OF_ROWS = ("rho", "term", "estimate", "std_error", "conf_low", "conf_high", "note")


@only(CounterfactualCatalogue)
def sensitivity(
    self: Held,
    rho: float | Sequence[float] | None = None,
    *,
    n: int | None = None,
    seed: int | None = None,
    level: float = 0.95,
    effect: str = "indirect",
    formula: str = "exact",
    interval: str | None = None,
) -> SensitivityResults:
    """Effects as functions of the correlation of both errors, which an omitted cause of mediator and outcome induces.

    For fits of ``mlmed.causal`` without random terms; mediator and outcome linear and linear, linear and probit, or
    probit and linear. See docs/sensitivity.md.

    Parameters
    ----------
    rho : float or sequence of float, optional
        Correlations, or the step of a grid; by default -.9 to .9 in steps of .1.
    n, seed : int, optional
        Draws (1,000) and their seed, for ``monte-carlo``.
    level : float
        Coverage of the intervals, a proportion.
    effect : {"indirect", "direct"}
        ACME or ADE.
    formula : {"exact", "medsens"}
        Maximum likelihood at each rho; or the formula of R's ``medsens`` for a linear mediator and a probit outcome, to
        reproduce its numbers (docs/sensitivity.md says why not to use it).
    interval : {"delta", "monte-carlo"}, optional
        By default ``monte-carlo`` if a seed is given, otherwise ``delta``.

    Returns
    -------
    SensitivityResults
        ``table``, ``zero``, ``region`` and ``plot()``.

    Raises
    ------
    EffectError
        Families without an error correlation, random terms, correlations outside (-1, 1), options that are unknown or
        not used.

    Notes
    -----
    Imai, K., Keele, L. and Yamamoto, T. (2010). Identification, inference and sensitivity analysis for causal mediation
    effects. *Statistical Science*, 25, 51-71.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.causal("Med ~ X", "y ~ Med + X", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> fit.sensitivity().zero["rho"].round(2).unique().tolist()
    [-0.17]
    """
    one_of(effect, SENSITIVE, "effect")
    one_of(formula, SENSITIVITY_FORMULAS, "formula")
    level = check_level(level)
    chosen, count = _interval_of(formula, interval, n, seed)
    rhos = grid_of(rho)
    found = self.catalogue.effects(self.fit)
    if effect == "direct":
        _check_direct(found)
    pair = _pair_of(found)
    curve, notes = _curve_of(found, pair, formula)
    draws = _Draws(curve, CONTRASTS[effect], count, seed)
    effects = draws.means if formula == "medsens" else _Estimates(curve, CONTRASTS[effect])
    missing = _lost_cells(curve, pair, CONTRASTS[effect], rhos)
    if chosen == "delta":
        table = _delta_rows(curve, CONTRASTS[effect], rhos, effects(rhos), missing, level, TERMS[effect])
    else:
        drawn = draws(rhos)
        estimates = drawn.mean(axis=1) if formula == "medsens" else effects(rhos)
        table = _drawn_rows(drawn, rhos, estimates, missing, level, TERMS[effect])
    unexplained = (1.0 - explained(pair.mediator), 1.0 - explained(pair.outcome))
    return SensitivityResults(
        table=_with_shares(table, unexplained),
        effect=effect,
        formula=formula,
        interval=chosen,
        level=float(level),
        n=count if chosen == "monte-carlo" else None,
        seed=seed,
        families=pair.families,
        unexplained=unexplained,
        notes=notes,
        _effects=effects,
        _curve=curve,
        _names=found.chain.outcome.layout.fixed,
    )


@dataclass(frozen=True, slots=True)
class _Estimates:
    """Effects (R, 3) at the estimates."""

    curve: Curve
    contrast: Array

    def __call__(self, rhos: Array) -> Array:
        return np.array([self.contrast @ self.curve.cells(float(rho)) for rho in rhos])


@dataclass(frozen=True, slots=True)
class _Draws:
    """Effects of draws, the same draws at every call."""

    curve: Curve
    contrast: Array
    n: int
    seed: int | None

    def __call__(self, rhos: Array) -> Array:
        """(R, n, 3)."""
        return self.curve.draws(rhos, self.n, np.random.default_rng(self.seed)) @ self.contrast.T

    def means(self, rhos: Array) -> Array:
        """Means over draws, R's estimate, (R, 3)."""
        return np.asarray(self(rhos).mean(axis=1))


def _with_shares(table: pd.DataFrame, unexplained: tuple[float, float]) -> pd.DataFrame:
    """Add both products of R^2 (eq. 88) and order the columns."""
    star = table["rho"] ** 2
    table = table.assign(R2_star=star, R2_tilde=star * unexplained[0] * unexplained[1])
    return table[["rho", "term", "estimate", "std_error", "conf_low", "conf_high", "R2_star", "R2_tilde", "note"]]


def grid_of(rho: Any) -> Array:
    """Sorted correlations: multiples of a step, or those listed."""
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


def _interval_of(formula: str, interval: str | None, n: int | None, seed: int | None) -> tuple[str, int]:
    """Choose the interval and the number of draws.

    Raises
    ------
    EffectError
        Unknown interval, options that it does not use, or draws without a seed.
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


def _check_direct(found: CounterfactualSet) -> None:
    """Refuse direct effects that are 0 at every correlation."""
    if "ade" in found.fixed:
        raise EffectError(
            f"the direct effect is fixed at 0 at every rho: the treatment {found.chain.treatment} is not in the "
            f"outcome equation {found.chain.outcome.equation.text!r}; add it, or use effect='indirect'"
        )


def _pair_of(found: CounterfactualSet) -> Pair:
    """Return the two fits, if the correlation of their errors is defined."""
    mediator, outcome = found.chain.parts
    supported = " or ".join(f"{m} and {y}" for m, y in SUPPORTED)
    mixed = [part.name for part in found.chain.parts if part.is_mixed]
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
    return Pair(_equation(mediator, found.usual), _equation(outcome, found.usual), found.designs[0])


def _other_families(mediator: Part, outcome: Part) -> str:
    """Suggest families of the same responses that have an analysis."""
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


def _equation(part: Part, kind: str) -> Equation:
    assert isinstance(part.fit, PlainFit)
    design, V = part.fit.design, part.vcov(kind)
    scale = 1.0 if part.family == "probit" else part.sigma
    n, p = design.X.shape
    return Equation(part.family, design.y, design.X, part.beta, V.entire, scale, float(n - p), V.lost)


#: Note on a linear mediator with a probit outcome.
TWO_DIVISORS = (
    "coefficients maximize the likelihood at each rho (variances with the divisor n); the spread of the mediator that "
    "effects average over has its unbiased variance, as effects() has it"
)


def _curve_of(found: CounterfactualSet, pair: Pair, formula: str) -> tuple[Curve, tuple[str, ...]]:
    """Choose the curve of effects over rho, with notes for the reader."""
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
    kind, grouping = found.usual, found.chain.grouping
    if kind in HC_KINDS[1:]:
        notes.append(f"{kind} is HC0 here: the joint fit of both equations at each rho has no leverages")
    codes = grouping.codes if kind in ROBUST_KINDS and grouping is not None else None
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


def _lost_cells(curve: Curve, pair: Pair, contrast: Array, rhos: Array) -> list[list[str]]:
    """Say why effects lack a standard error, by rho and effect; else empty."""
    found = []
    for rho in map(float, rhos):
        cells = curve.slopes(rho)
        lost, slopes = pair.lost(cells.shape[1]), contrast @ cells
        slopes = np.where(np.abs(slopes) > NOTHING * (np.abs(contrast) @ np.abs(cells)), slopes, 0.0)
        found.append([said_along(lost, slope) for slope in slopes])
    return found


def _delta_rows(
    curve: Curve,
    contrast: Array,
    rhos: Array,
    estimates: Array,
    missing: list[list[str]],
    level: float,
    terms: Sequence[str],
) -> pd.DataFrame:
    """Estimates with first-order standard errors and normal intervals (eq. 85); ``missing`` from ``_lost_cells``."""
    z, rows = float(ndtri(0.5 + level / 2.0)), []
    for rho, effects, why in zip(map(float, rhos), estimates, missing, strict=True):
        G, V = curve.delta(rho)
        H = contrast @ G
        errors = np.where([not one for one in why], np.sqrt(np.einsum("ij,jk,ik->i", H, V, H)), np.nan)
        rows += [
            (rho, term, float(estimate), float(se), float(estimate - z * se), float(estimate + z * se), note)
            for term, estimate, se, note in zip(terms, effects, errors, why, strict=True)
        ]
    return pd.DataFrame(rows, columns=list(COLUMNS_OF_ROWS))


def _drawn_rows(
    draws: Array, rhos: Array, estimates: Array, missing: list[list[str]], level: float, terms: Sequence[str]
) -> pd.DataFrame:
    """Estimates with standard deviations and percentiles of draws (R, n, 3) (eq. 86); ``missing`` as above."""
    rows = []
    for r, rho in enumerate(map(float, rhos)):
        for k, (term, estimate) in enumerate(zip(terms, estimates[r], strict=True)):
            if missing[r][k]:
                rows.append((rho, term, float(estimate), *[np.nan] * 3, missing[r][k]))
                continue
            found = draw_interval(draws[r, :, k], float(estimate), level=level)
            rows.append((rho, term, float(estimate), found.std_error, found.low, found.high, found.note))
    return pd.DataFrame(rows, columns=list(COLUMNS_OF_ROWS))
