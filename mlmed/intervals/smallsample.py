"""Degrees of freedom for delta-method tables: which rows get which, with notes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.delta import said_of, std_error, wald_table
from mlmed.effects.quantity import Quantity
from mlmed.errors import EffectError
from mlmed.fit.lmm import LmmFit
from mlmed.fit.vcov import covariance
from mlmed.intervals.degrees import (
    DegreesOfFreedom,
    infinite_df,
    kenward_roger_linear,
    residual_df,
    satterthwaite_effects,
    satterthwaite_linear,
)
from mlmed.lmm.estimates import Estimates
from mlmed.notes import joined
from mlmed.options import DDF_KINDS, VCOV_KINDS, check_vcov, one_of

Array = NDArray[np.float64]
NAMES = {"satterthwaite": "Satterthwaite", "kenward-roger": "Kenward-Roger", "residual": "residual"}
#: Degrees of freedom below which the t distribution has no variance.
FEWEST_DF = 2.0
#: Fewest usable degrees of freedom: 1, from two values, less approximation error. Below, no sum of squares has the
#: matched chi-squared distribution, and quantiles of t explode (12.7 standard errors at 1, 165 at .5, 6,582 at .3).
LEAST_DF = 0.99
USELESS = ", too few to be of use"
NO_DF = "no degrees of freedom: {}"
NO_INTERVAL = (
    "no test and no interval: {df:.2g} df ({name}) are fewer than 1, so t has no quantiles of use; use profile or "
    "bootstrap intervals, or a simpler covariance structure"
)
NOT_LINEAR = "Satterthwaite, as Kenward and Roger's are for fixed effects only"


@dataclass(frozen=True, slots=True)
class ErrorsAndDf:
    """Errors, degrees of freedom and notes of the rows of a table.

    Attributes
    ----------
    errors : (n,) array
        Standard errors.
    df : (n,) array
        Degrees of freedom; infinite for normal tests, NaN if they do not exist.
    notes : tuple of str, (n,)
        Notes for the reader.
    """

    errors: Array
    df: Array
    notes: tuple[str, ...]

    @property
    def usable(self) -> Array:
        """Degrees of freedom for tests and intervals, (n,); NaN if too few."""
        return np.where(self.df < LEAST_DF, np.nan, self.df)

    def table(self, quantities: Sequence[Quantity], *, level: float) -> pd.DataFrame:
        """Tabulate the quantities with these errors."""
        estimates = np.array([quantity.estimate for quantity in quantities])
        notes = [joined(q.note, note) for q, note in zip(quantities, self.notes, strict=True)]
        terms = [quantity.term for quantity in quantities]
        table = wald_table(terms, estimates, self.errors, level=level, notes=notes, df=self.usable)
        return table.assign(df=self.df)


def errors_and_df(
    fitted: LmmFit,
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
        Unknown ``ddf``, or one that is not defined for the covariance.
    """
    _check(ddf, vcov)
    V = covariance(fitted, vcov)
    errors = np.array([std_error(quantity, V, order=order) for quantity in quantities])
    said = [said_of(q, V, order=order, error=e) for q, e in zip(quantities, errors, strict=True)]
    if ddf == "none":
        return ErrorsAndDf(errors, infinite_df(len(errors)).values, tuple(said))
    p = len(fitted.estimates.beta)
    slopes = np.stack([quantity.gradient for quantity in quantities])
    linear = np.array([q.hessian is None and not q.gradient[p:].any() for q in quantities])
    if ddf == "residual":
        found = residual_df(slopes[:, :p], fitted.working.problem)
        return ErrorsAndDf(errors, found.values, _notes(quantities, found, ddf, errors, said))
    if vcov == "block" and linear.all():
        found = satterthwaite_linear(slopes[:, :p], fitted.working, fitted.optimum)
    else:
        found = satterthwaite_effects(
            quantities_at, fitted.working, fitted.optimum, reml=fitted.reml, vcov=vcov, order=order
        )
    if ddf == "satterthwaite":
        return ErrorsAndDf(errors, found.values, _notes(quantities, found, ddf, errors, said))
    adjusted, exact = kenward_roger_linear(slopes[:, :p], fitted.working, fitted.optimum, reml=fitted.reml)
    reasons = [e if one else f for e, f, one in zip(exact.reasons, found.reasons, linear, strict=True)]
    both = DegreesOfFreedom(np.where(linear, exact.values, found.values), tuple(reasons))
    notes = _notes(quantities, both, ddf, errors, said, [None if one else NOT_LINEAR for one in linear])
    corrected = linear & slopes.any(axis=1)  # a quantity that the model fixes has no error
    return ErrorsAndDf(np.where(corrected, adjusted, errors), both.values, notes)


def _check(ddf: str, vcov: str) -> None:
    one_of(ddf, DDF_KINDS, "ddf")
    check_vcov(vcov)
    if ddf == "kenward-roger" and vcov != "block":
        raise EffectError(f"ddf='kenward-roger' corrects vcov='block'; found vcov={vcov!r}")
    if ddf == "satterthwaite" and vcov not in VCOV_KINDS:
        raise EffectError(f"ddf='satterthwaite' belongs to a model-based covariance, not to vcov={vcov!r}")


def _notes(
    quantities: Sequence[Quantity],
    found: DegreesOfFreedom,
    ddf: str,
    errors: Array,
    said: Sequence[str],
    names: Sequence[str | None] | None = None,
) -> tuple[str, ...]:
    """Note for every quantity the kind of its degrees of freedom, or why there are none, and the notes of V."""
    notes = []
    for k, quantity in enumerate(quantities):
        name = (names[k] if names else None) or NAMES[ddf]
        own = _of_df(found.values[k], name) if np.isfinite(found.values[k]) else NO_DF.format(found.reasons[k])
        if quantity.is_fixed or (np.isnan(errors[k]) and said[k]):
            own = ""
        notes.append(joined(own, said[k]))
    return tuple(notes)


def _of_df(df: float, name: str) -> str:
    if df < LEAST_DF:
        return NO_INTERVAL.format(df=df, name=name)
    return f"df: {name}{USELESS if df < FEWEST_DF else ''}"


def delta_with_df(
    fitted: LmmFit,
    quantities: Mapping[str, Quantity],
    quantities_at: Callable[[Estimates], Mapping[str, Quantity]],
    *,
    level: float,
    vcov: str,
    order: str,
    ddf: str,
) -> pd.DataFrame:
    """Tabulate effects by the delta method, with t tests if ``ddf`` asks for them.

    ``quantities_at`` computes the same quantities, and possibly more, at other estimates.
    """
    listed = list(quantities.values())

    def again(estimates: Estimates) -> list[Quantity]:
        known = quantities_at(estimates)
        return [known[term] for term in quantities]

    return errors_and_df(fitted, listed, again, vcov=vcov, order=order, ddf=ddf).table(listed, level=level)
