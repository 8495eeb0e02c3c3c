"""One of three fits, mixed or of clusters, as arrays under common names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mlmed.data.encoding import encode
from mlmed.data.layout import INTERCEPT, EquationLayout
from mlmed.fit.labels import coefficient_labels
from mlmed.fit.names import parameters, psi
from mlmed.fit.protocol import Kind
from mlmed.names import labelled
from mlmed.results.piecewise.cluster_ols import ClusterRegression
from mlmed.results.results import Results

__all__ = ["Part", "kinds_of", "layout_of", "names_of", "parts_of", "psi_of"]

Array = NDArray[np.float64]
Part = Results | ClusterRegression


def psi_of(fit: Part) -> Array:
    """All estimates of a fit, fixed effects first."""
    return fit.fit.beta if isinstance(fit, ClusterRegression) else psi(fit.fit)


def parts_of(fits: Sequence[Part]) -> tuple[slice, ...]:
    """Where each of several fits has its estimates when they stand one after the other."""
    ends = np.cumsum([0, *(len(psi_of(fit)) for fit in fits)])
    return tuple(slice(int(start), int(stop)) for start, stop in pairwise(ends))


def names_of(fit: Part, equation: str) -> list[str]:
    """Names of these estimates: ``m~x``, ``var(m~x)``, ``cov(m~x,m~Intercept)``, ``var(m~Residual)``."""
    if isinstance(fit, ClusterRegression):
        return coefficient_labels(labelled(equation, name) for name in fit.design.names)
    return [one.name for one in parameters(fit.fit, equations=[equation])]


def kinds_of(fit: Part) -> list[Kind]:
    """What each of these estimates is."""
    if isinstance(fit, ClusterRegression):
        return [""] * len(fit.design.names)
    return [one.kind for one in parameters(fit.fit)]


def layout_of(fit: Part) -> EquationLayout:
    """Columns and encodings of the equation; that of clusters gets a random intercept, which no path uses."""
    if not isinstance(fit, ClusterRegression):
        return fit.fit.layout.equations[0]
    layout = fit.design.layout
    intercept = encode("1", fit.design.table, where="a random intercept")[1]
    return replace(layout, random=(INTERCEPT,), encodings=(*layout.encodings, intercept))
