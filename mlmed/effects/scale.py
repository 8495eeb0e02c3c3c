"""Scale effects of a location-scale model: residual sds and factors, exp of its coefficients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlmed.data.layout import INTERCEPT
from mlmed.effects.catalogue import Catalogue, Effects, FormSet, IntervalOptions
from mlmed.effects.quantity import Quantity, chained
from mlmed.errors import EffectError
from mlmed.fit.quadrature import QuadratureFit
from mlmed.notes import joined

T = TypeVar("T", Quantity, NDArray[np.float64])
FACTOR, SD = "factor of the residual sd per unit", "residual sd where scale predictors are 0"
TOO_LARGE = "too large for a number: see the coefficient"


def scale_effects(**logs: T) -> dict[str, T]:
    """Residual sds and factors from their logarithms."""
    return {f"exp({name})": _exp(value) for name, value in logs.items()}


def _exp(value: T) -> T:
    """Exponential of draws, or of a quantity; on overflow infinite, without derivatives."""
    with np.errstate(over="ignore"):
        if not isinstance(value, Quantity):
            return np.exp(value)
        found = float(np.exp(value.estimate))
    slope = found if np.isfinite(found) else np.nan
    return chained(found, (value,), (slope,), ((slope,),))


@dataclass(frozen=True)
class ScaleCatalogue(Catalogue):
    """Scale effects on the sd scale: the residual sd where scale predictors are 0, and factors per unit."""

    school: ClassVar[str] = "location_scale"
    #: All intervals are formed on the log scale.
    intervals: ClassVar[IntervalOptions] = {
        "delta": {"vcov": "joint"},
        "monte-carlo": {"vcov": "joint", "n": 20_000, "seed": None},
    }

    def title(self, fit: QuadratureFit) -> str:
        """Title of a summary."""
        return "Mixed-effects location-scale model"

    def effects(self, fit: QuadratureFit, at: Mapping[str, Any] | None = None) -> FormSet:
        """The effects of a fit.

        Raises
        ------
        EffectError
            Values of moderators, which scale effects do not have.
        """
        if at:
            raise EffectError(
                "scale effects are per unit, or where scale predictors are 0; they are taken at no other place, so "
                "leave out at="
            )
        names, p = fit.names("fixed")[1], fit.problem.p
        notes = [SD if own == INTERCEPT else FACTOR for own in fit.rows.scale.fixed_names]
        weights = np.eye(len(fit.psi))[p : p + len(names)]
        forms = Effects(scale_effects, tuple(names), weights, ("",) * len(names), ((),) * len(names))
        found = {
            term: replace(
                effect,
                kind="sd" if note == SD else "factor",
                note=note if np.isfinite(effect.estimate) else joined(note, TOO_LARGE),
            )
            for (term, effect), note in zip(forms.quantities(fit.psi).items(), notes, strict=True)
        }
        return FormSet(fit, forms, found)
