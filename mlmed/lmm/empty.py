"""Random intercepts of data that are centred within clusters: there is nothing that they could be of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlmed.data.grams import Grams, column_sums
from mlmed.data.layout import INTERCEPT, EquationLayout

__all__ = ["empty_intercepts"]

Array = NDArray[np.float64]

#: Mean of a column within a cluster, in sds of the column, that is the rounding error of zero (data kept to 6 digits).
CENTRED = 1e-6


def empty_intercepts(grams: Grams) -> tuple[int, ...]:
    """Positions in u of random intercepts whose equation has no column that varies between clusters.

    If the response and all fixed columns have the same mean in every cluster, and the random ones sum to zero there,
    what clusters differ in is not in the data: the variance of the intercepts is estimated as 0, which their
    covariances with slopes must follow, and derivatives in these covariances describe nothing.
    """
    found: list[int] = []
    first = 0
    for r, equation in enumerate(grams.layout.equations):
        centred = _is_centred(grams, r, equation)
        found += [first + k for k, name in enumerate(equation.random) if name == INTERCEPT and centred]
        first += len(equation.random)
    return tuple(found)


def _is_centred(grams: Grams, r: int, equation: EquationLayout) -> bool:
    """Whether no column of an equation but the constant has a mean that differs between clusters."""
    n = column_sums(grams, r, 0)
    columns, varying = ({*at} - {0} for at in ((equation.response_at, *equation.fixed_at), equation.random_at))
    if INTERCEPT not in equation.fixed:  # nothing takes the means up
        varying, columns = columns | varying, set()
    shift = grams.shift / grams.scale
    moved = ((k, 0.0 if k in columns else float(shift[k])) for k in (*columns, *varying))
    return all(bool(np.all(np.abs(column_sums(grams, r, k) + n * by) <= CENTRED * n)) for k, by in moved)
