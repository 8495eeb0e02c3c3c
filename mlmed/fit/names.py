"""Names of a fit's parameters, their kinds and their equations."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.fit.protocol import Parameter, Solved
from mlmed.names import labelled

#: Sds below this are rounding error, if responses and columns have sd 1.
TINY = 1e-10
RESIDUAL = "Residual"


#: Names of the equations in labels; True: include the response even in a model of one equation.
Called = bool | Sequence[str]
_FUNCTION = r"(?:var|cov|sd|cor)\("


def _shown(fitted: Solved, called: Called) -> Sequence[str]:
    """Names of the equations in labels; by default empty in a model of one."""
    equations = fitted.layout.equations
    if not isinstance(called, bool):
        return called
    return [e.name if called or len(equations) > 1 else "" for e in equations]


def _labels(fitted: Solved, part: str, equations: Sequence[str]) -> list[str]:
    pairs = zip(equations, fitted.layout.equations, strict=True)
    found = [labelled(equation, name) for equation, own in pairs for name in getattr(own, part)]
    return coefficient_labels(found) if part == "fixed" else random_labels(found, _residuals(equations))


def _residuals(equations: Sequence[str]) -> list[str]:
    return [labelled(equation, RESIDUAL) for equation in equations]


def qualified(fitted: Solved, part: str, *, called: Called = False) -> list[str]:
    """Labels of the ``fixed`` or ``random`` columns: ``m~x`` with several equations, or as ``called``."""
    return _labels(fitted, part, _shown(fitted, called))


def residual_names(fitted: Solved, *, called: Called = False) -> list[str]:
    """Name the residual of each equation: ``Residual``, or ``m~Residual`` as in ``qualified``."""
    return _residuals(_shown(fitted, called))


def parameters(fitted: Solved, *, called: Called = False) -> list[Parameter]:
    """Every entry of psi: fixed effects, ``var()``/``cov()`` of random effects, residual variances.

    Parameters
    ----------
    fitted : Solved
        The fit.
    called : bool or sequence of str
        Names of the equations in labels; True includes the response even in a model of one, for comparisons.
    """
    own, estimates = _shown(fitted, called), fitted.estimates
    fixed, random = _labels(fitted, "fixed", own), _labels(fitted, "random", own)
    responses = [e.name for e in fitted.layout.equations]
    of = {part: [e.name for e in fitted.layout.equations for _ in getattr(e, part)] for part in ("fixed", "random")}
    return [
        *(Parameter(name, "", equation) for name, equation in zip(fixed, of["fixed"], strict=True)),
        *(_entry(random, of["random"], i, j) for i, j in estimates.tau_at),
        *(_entry(_residuals(own), responses, i, j) for i, j in estimates.sigma_at),
    ]


def _entry(names: Sequence[str], equations: Sequence[str], i: int, j: int) -> Parameter:
    """Name a variance or covariance; the effect that comes first in u (j) is named first."""
    first, second = equations[j], equations[i]
    equation = first if first == second else f"{first}, {second}"
    if i == j:
        return Parameter(f"var({names[i]})", "variance", equation)
    return Parameter(f"cov({names[j]},{names[i]})", "covariance", equation)


def parameter_names(fitted: Solved, *, called: Called = False) -> list[str]:
    """Name of every entry of psi; ``called`` as in ``parameters``."""
    return [one.name for one in parameters(fitted, called=called)]


def psi(fitted: Solved) -> NDArray[np.float64]:
    """All estimates in the order of ``parameter_names``."""
    return fitted.estimates.psi


def variance_floor(fitted: Solved) -> NDArray[np.float64]:
    """Variances (q,) of random effects that count as 0: an optimum on the boundary leaves rounding error."""
    Z_map = fitted.working.units.Z_map
    return TINY**2 * np.einsum("ab,ab->a", Z_map, Z_map)


def shown_clusters(clusters: pd.Index) -> NDArray[Any]:
    """Cluster ids as a column; parts of a combined id are joined by a colon."""
    if isinstance(clusters, pd.MultiIndex):
        return np.array([":".join(map(str, parts)) for parts in clusters], dtype=object)
    return np.asarray(clusters.to_numpy())


def coefficient_labels(names: Iterable[str]) -> list[str]:
    """Rename fixed effects that read like a variance, covariance, standard deviation or correlation.

    Examples
    --------
    >>> coefficient_labels(["x", "var(x)", "fixed(var(x))"])
    ['x', 'fixed(var(x))', 'fixed(fixed(var(x)))']
    """
    return _guarded(names, "fixed", _FUNCTION)


def random_labels(names: Iterable[str], residuals: Collection[str]) -> list[str]:
    """Rename random effects that have the name of a residual.

    Examples
    --------
    >>> random_labels(["Intercept", "Residual"], ["Residual"])
    ['Intercept', 'random(Residual)']
    """
    return _guarded(names, "random", f"(?:{'|'.join(map(re.escape, residuals))})\\)*$")


def location_labels(names: Iterable[str], scale: str) -> list[str]:
    """Rename location effects that read like one of the equation ``scale`` or like a variance.

    Examples
    --------
    >>> location_labels(["x", "sigma:x", "sigma~x"], "sigma")
    ['x', 'sigma:x', 'location(sigma~x)']
    """
    return _guarded(names, "location", f"(?:{re.escape(labelled(scale, ''))}|{_FUNCTION})")


def _guarded(names: Iterable[str], guard: str, pattern: str) -> list[str]:
    taken = re.compile(rf"(?:{guard}\()*{pattern}")
    return [f"{guard}({name})" if taken.match(name) else name for name in names]
