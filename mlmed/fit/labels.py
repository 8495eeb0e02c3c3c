"""Names of parameters: no column name reads like the name of another parameter.

A variance is called ``var(x)``, an effect of the scale ``sigma~x``, and a column may be called so as well. Such a
column stands in ``fixed()``, ``random()`` or ``location()``, which are neither an interaction nor an equation nor a
function of formulas; one that already does stands in another, so that no two parameters share a name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from mlmed.names import labelled

__all__ = ["coefficient_labels", "location_labels", "random_labels"]

_FUNCTION = r"(?:var|cov|sd|cor)\("


def coefficient_labels(names: Iterable[str]) -> list[str]:
    """Names of fixed effects that do not read like a variance, covariance, standard deviation or correlation.

    Examples
    --------
    >>> coefficient_labels(["x", "var(x)", "fixed(var(x))"])
    ['x', 'fixed(var(x))', 'fixed(fixed(var(x)))']
    """
    return _guarded(names, "fixed", _FUNCTION)


def random_labels(names: Iterable[str], residuals: Collection[str]) -> list[str]:
    """Names of random effects that are not those of residuals.

    Examples
    --------
    >>> random_labels(["Intercept", "Residual"], ["Residual"])
    ['Intercept', 'random(Residual)']
    """
    return _guarded(names, "random", f"(?:{'|'.join(map(re.escape, residuals))})\\)*$")


def location_labels(names: Iterable[str], scale: str) -> list[str]:
    """Names of location effects that read neither like one of the equation ``scale`` nor like a variance.

    Examples
    --------
    >>> location_labels(["x", "sigma:x", "sigma~x"], "sigma")
    ['x', 'sigma:x', 'location(sigma~x)']
    """
    return _guarded(names, "location", f"(?:{re.escape(labelled(scale, ''))}|{_FUNCTION})")


def _guarded(names: Iterable[str], guard: str, pattern: str) -> list[str]:
    taken = re.compile(rf"(?:{guard}\()*{pattern}")
    return [f"{guard}({name})" if taken.match(name) else name for name in names]
