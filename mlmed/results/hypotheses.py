"""Likelihood-ratio tests of what is written as one equation: ``"cov_ab = 0"``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mlmed.effects.delta import Quantity
from mlmed.effects.nlcom import known_name
from mlmed.errors import EffectError
from mlmed.fit.lmm import LmmFit
from mlmed.fit.names import parameter_names, parameters
from mlmed.fit.protocol import Kind
from mlmed.intervals.functions import QuantitiesAt, parameters_at, quantity_of
from mlmed.intervals.profile_search import QuantityAt
from mlmed.intervals.sdcor import entry_behind, fit_sdcor_quantities
from mlmed.results.likelihood import LRTest, test_constraint, test_variance, variance_in
from mlmed.text import shown

__all__ = ["test_equation"]

#: What a quantity can be, by its kind.
RANGES: dict[Kind, tuple[float, float, str]] = {
    "variance": (0.0, np.inf, "a variance is 0 or more"),
    "sd": (0.0, np.inf, "a standard deviation is 0 or more"),
    "correlation": (-1.0, 1.0, "a correlation lies between -1 and 1"),
}
WAY_OUT = " That a random effect has no variance can be tested, as 'var(...) = 0'"


def test_equation(fitted: LmmFit, hypothesis: str, named_at: QuantitiesAt) -> LRTest:
    """Test one restriction, everything else re-estimated.

    Parameters
    ----------
    fitted : LmmFit
        The fit.
    hypothesis : str
        Two expressions, or an expression and a number.
    named_at : callable
        Everything that can be named, as a function of the estimates.

    Raises
    ------
    EffectError
        If the text is not a restriction, or the quantity cannot take the value.
    """

    def quantity_at(text: str) -> QuantityAt:
        return quantity_of(text, named_at, fitted.estimates)

    left, right = _sides(hypothesis)
    value = _number(right)
    if value is None:
        return test_constraint(fitted, hypothesis, quantity_at(f"({left}) - ({right})"), 0.0)
    if not np.isfinite(value):
        raise EffectError(f"a quantity cannot be tested to be {right}; found {shown(hypothesis)}")
    known = _known(fitted)
    name = known_name(left, known)
    if name is None:
        return test_constraint(fitted, hypothesis, quantity_at(left), value)
    _check_range(fitted, known[name], value)
    name, value = _as_parameter(fitted, known[name], value, quantity_at)
    effect = variance_in(fitted, name) if value == 0.0 else None
    if effect is not None:
        return test_variance(fitted, hypothesis, effect)
    return test_constraint(fitted, hypothesis, quantity_at(name), value)


def _sides(hypothesis: str) -> tuple[str, str]:
    """Left and right of the sign; a number stands on the right."""
    left, equals, right = hypothesis.partition("=") if isinstance(hypothesis, str) else ("", "", "")
    left, right = left.strip(), right.strip()
    if not equals or "=" in right or not left or not right:
        raise EffectError(f"a hypothesis is one equation such as 'cov_ab = 0'; found {shown(hypothesis)}")
    return (right, left) if _number(left) is not None and _number(right) is None else (left, right)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _known(fitted: LmmFit) -> dict[str, Quantity]:
    """Every parameter, standard deviation and correlation by name."""
    shown = fit_sdcor_quantities(fitted, fitted.estimates)
    return {**shown, **parameters_at(parameters(fitted), fitted.estimates)}


def _check_range(fitted: LmmFit, quantity: Quantity, value: float) -> None:
    """Refuse a value that a variance, standard deviation or correlation cannot have."""
    name, kind = quantity.term, quantity.kind
    if kind not in RANGES:
        return
    low, high, allowed = RANGES[kind]
    wrong = f"{name} could not be brought to {value:g}: "
    here = f"it is {quantity.estimate:.4g} in the fit"
    if not low <= value <= high:
        raise EffectError(f"{wrong}{allowed}; {here}.{WAY_OUT if kind != 'correlation' else ''}")
    residual = parameter_names(fitted)[-len(fitted.estimates.sigma2) :]
    if value == 0.0 and kind != "correlation" and entry_behind(fitted, "sd").get(name, name) in residual:
        raise EffectError(f"{wrong}without residuals the model would have to fit every row exactly; {here}.{WAY_OUT}")


def _as_parameter(
    fitted: LmmFit, quantity: Quantity, value: float, quantity_at: Callable[[str], QuantityAt]
) -> tuple[str, float]:
    """The same restriction on a variance, or on the covariance that is 0 with a correlation: these are smooth."""
    name = quantity.term
    if quantity.kind == "sd":
        variance = entry_behind(fitted, "sd").get(name)
        return (name, value) if variance is None else (variance, value * value)
    if quantity.kind != "correlation" or value != 0.0:
        return name, value
    quantity_at(name)  # refuses a correlation that does not exist
    return entry_behind(fitted, "correlation").get(name, name), value
