"""Degrees of freedom beside the delta method: which rows get which, and what the table says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.delta import Quantity, missing_reason, std_error, wald_table
from mlmed.effects.smallsample import (
    DegreesOfFreedom,
    infinite_df,
    kenward_roger_linear,
    residual_df,
    satterthwaite_effects,
    satterthwaite_linear,
)
from mlmed.errors import EffectError
from mlmed.modes.covariance import covariance
from mlmed.modes.fitting import Fitted
from mlmed.reml.estimates import Estimates
from mlmed.reml.vcov import VCOV_KINDS

if TYPE_CHECKING:
    from mlmed.modes.mediation import MediationResults

__all__ = ["DDF_KINDS", "Ddf", "delta_with_df", "errors_and_df"]

Array = NDArray[np.float64]
Ddf = Literal["none", "satterthwaite", "kenward-roger", "residual"]
DDF_KINDS: tuple[str, ...] = get_args(Ddf)
NAMES = {"satterthwaite": "Satterthwaite", "kenward-roger": "Kenward-Roger", "residual": "residual"}
#: Degrees of freedom below which the t distribution has no variance.
FEWEST_DF = 2.0
NOT_LINEAR = "Satterthwaite: Kenward and Roger's is for fixed effects only"


@dataclass(frozen=True, slots=True)
class ErrorsAndDf:
    """What the rows of a table need.

    Attributes
    ----------
    errors : (n,) array
        Standard errors.
    df : (n,) array
        Degrees of freedom; infinite for normal tests, NaN where they do not exist.
    notes : tuple of str, (n,)
        What a reader should know of each.
    """

    errors: Array
    df: Array
    notes: tuple[str, ...]


def errors_and_df(
    fitted: Fitted,
    quantities: Sequence[Quantity],
    quantities_at: Callable[[Estimates], Sequence[Quantity]],
    *,
    vcov: str,
    order: str,
    ddf: str,
) -> ErrorsAndDf:
    """Standard errors and degrees of freedom of several quantities.

    Raises
    ------
    EffectError
        Unknown ``ddf``, or one that has no meaning for the asked covariance.
    """
    _check(ddf, vcov)
    V = covariance(fitted, vcov)
    errors = np.array([std_error(quantity, V.matrix, order=order) for quantity in quantities])
    missing = [
        "" if q.is_fixed else missing_reason(q, V.matrix, order=order, reason=V.reason) if np.isnan(e) else V.note
        for q, e in zip(quantities, errors, strict=True)
    ]
    p = len(fitted.estimates.beta)
    slopes = np.stack([quantity.gradient for quantity in quantities])
    linear = np.array([q.hessian is None and not q.gradient[p:].any() for q in quantities])
    if ddf == "none":
        return ErrorsAndDf(errors, infinite_df(len(errors)).values, tuple(missing))
    if ddf == "residual":
        found = residual_df(slopes[:, :p], fitted.working.problem)
        return ErrorsAndDf(errors, found.values, _notes(quantities, found, ddf, missing))
    if vcov == "block" and linear.all():
        found = satterthwaite_linear(slopes[:, :p], fitted.working, fitted.optimum)
    else:
        found = satterthwaite_effects(
            quantities_at, fitted.working, fitted.optimum, reml=fitted.reml, vcov=vcov, order=order
        )
    if ddf == "satterthwaite":
        return ErrorsAndDf(errors, found.values, _notes(quantities, found, ddf, missing))
    adjusted, exact = kenward_roger_linear(slopes[:, :p], fitted.working, fitted.optimum, reml=fitted.reml)
    reasons = [e if one else f for e, f, one in zip(exact.reasons, found.reasons, linear, strict=True)]
    both = DegreesOfFreedom(np.where(linear, exact.values, found.values), tuple(reasons))
    notes = _notes(quantities, both, ddf, missing, [None if one else NOT_LINEAR for one in linear])
    corrected = linear & slopes.any(axis=1)  # an effect that the model fixes has no error to correct
    return ErrorsAndDf(np.where(corrected, adjusted, errors), both.values, notes)


def _check(ddf: str, vcov: str) -> None:
    if ddf not in DDF_KINDS:
        raise EffectError(f"ddf must be one of {', '.join(DDF_KINDS)}; found {ddf!r}")
    if ddf == "kenward-roger" and vcov != "block":
        raise EffectError(f"ddf='kenward-roger' corrects vcov='block'; found vcov={vcov!r}")
    if ddf == "satterthwaite" and vcov not in VCOV_KINDS:
        raise EffectError(f"ddf='satterthwaite' belongs to a model-based covariance, not to vcov={vcov!r}")


def _notes(
    quantities: Sequence[Quantity],
    found: DegreesOfFreedom,
    ddf: str,
    missing: Sequence[str],
    names: Sequence[str | None] | None = None,
) -> tuple[str, ...]:
    notes = []
    for k, quantity in enumerate(quantities):
        name = (names[k] if names else None) or NAMES[ddf]
        if quantity.is_fixed:
            notes.append("")
        elif np.isfinite(found.values[k]):
            useless = ": too few to be of use" if found.values[k] < FEWEST_DF else ""
            notes.append("; ".join(filter(None, [f"t with {found.values[k]:.1f} df ({name}){useless}", missing[k]])))
        else:
            notes.append(missing[k] or f"no degrees of freedom: {found.reasons[k]}")
    return tuple(notes)


def delta_with_df(
    results: MediationResults,
    quantities: Mapping[str, Quantity],
    *,
    at: Mapping[str, Any] | None,
    level: float,
    vcov: str,
    order: str,
    ddf: str,
) -> pd.DataFrame:
    """The effects table of the delta method, with t tests where degrees of freedom are asked for."""
    every = results.quantities_at(at)
    listed = list(quantities.values())

    def again(estimates: Estimates) -> list[Quantity]:
        known = every(estimates)
        return [known[term] for term in quantities]

    found = errors_and_df(results.fitted, listed, again, vcov=vcov, order=order, ddf=ddf)
    notes = ["; ".join(filter(None, [q.note, note])) for q, note in zip(listed, found.notes, strict=True)]
    estimates = np.array([quantity.estimate for quantity in listed])
    return wald_table(list(quantities), estimates, found.errors, level=level, notes=notes, df=found.df)
