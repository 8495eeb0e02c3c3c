"""Standard deviations and correlations of a covariance matrix that is linear in the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.effects.quantity import Quantity
from mlmed.fit.protocol import Kind

Array = NDArray[np.float64]

#: Distance from 1 within which a correlation is that of a singular matrix, in double precision.
EDGE = 1e-10
NO_SD_ERROR = "the variance is 0, on the boundary: no standard error"
NO_CORRELATION = "does not exist: the variance of {name} is 0"
NO_CORRELATION_ERROR = "the correlation is {value:+.0f}, on the boundary: no standard error"


@dataclass(frozen=True, slots=True)
class LinearCovariance:
    """A covariance matrix as a linear function of the parameters.

    Attributes
    ----------
    names : tuple of str
        Names of its k rows.
    basis : (n, k, k) array
        The matrix is ``sum psi_i basis_i``.
    floor : (k,) array
        Variances up to these are rounding error of 0.
    """

    names: tuple[str, ...]
    basis: Array
    floor: Array


def linear_covariance(names: Sequence[str], at: NDArray[np.intp], first: int, n: int) -> LinearCovariance:
    """The matrix whose entries ``at`` (m, 2) are the parameters from position ``first`` among n, others 0."""
    k = len(names)
    basis = np.zeros((n, k, k))
    for number, (i, j) in enumerate(at, start=first):
        basis[number, i, j] = basis[number, j, i] = 1.0
    return LinearCovariance(tuple(names), basis, np.zeros(k))


def correlation_pairs(matrix: LinearCovariance) -> list[tuple[int, int]]:
    """Rows (i, j), i < j, whose covariance is a parameter, column by column of the lower triangle."""
    free = np.any(matrix.basis != 0.0, axis=0)
    k = len(matrix.names)
    return [(i, j) for i in range(k) for j in range(i + 1, k) if free[i, j]]


def sdcor_quantities(matrix: LinearCovariance, psi: Array, *, moving: bool = False) -> dict[str, Quantity]:
    """``sd(a)`` of every row, then ``cor(a,b)`` of every pair with a covariance; both derivatives in psi.

    Parameters
    ----------
    matrix : LinearCovariance
        The covariance matrix.
    psi : (n,) array
        Parameters at which to evaluate.
    moving : bool
        Whether to give derivatives at correlations of -1 and 1, which a profile follows; they give no standard error.
    """
    names = matrix.names
    found = [_sd(f"sd({name})", matrix.basis[:, k, k], psi, matrix.floor[k]) for k, name in enumerate(names)]
    for i, j in correlation_pairs(matrix):
        gone = [name for name, k in ((names[i], i), (names[j], j)) if matrix.basis[:, k, k] @ psi <= matrix.floor[k]]
        term, rows = f"cor({names[i]},{names[j]})", matrix.basis[:, [i, i, j], [j, i, j]].T
        why = NO_CORRELATION.format(name=" and ".join(gone))
        absent = _without_error(term, np.nan, len(psi), why, "correlation")
        found.append(absent if gone else _correlation(term, rows, psi, moving))
    return {quantity.term: quantity for quantity in found}


def _sd(term: str, row: Array, psi: Array, floor: float) -> Quantity:
    variance = float(row @ psi)
    if variance <= floor:
        return _without_error(term, 0.0, len(psi), NO_SD_ERROR, "sd")
    sd = float(np.sqrt(variance))
    return Quantity(term, sd, row / (2.0 * sd), np.outer(row, row) / (-4.0 * sd**3), kind="sd")


def _correlation(term: str, rows: Array, psi: Array, moving: bool) -> Quantity:
    """Correlation from ``rows`` (3, n), which map psi to the covariance c and the variances v and w."""
    c, v, w = map(float, rows @ psi)
    size = float(np.sqrt(v * w))
    r = c / size
    note = NO_CORRELATION_ERROR.format(value=r) if abs(r) > 1.0 - EDGE else ""
    if note and not moving:
        return _without_error(term, r, len(psi), note, "correlation")
    inner = np.array([1.0 / size, -r / (2.0 * v), -r / (2.0 * w)])
    cv, cw, vw = -1.0 / (2.0 * size * v), -1.0 / (2.0 * size * w), r / (4.0 * v * w)
    bend = np.array([[0.0, cv, cw], [cv, 0.75 * r / v**2, vw], [cw, vw, 0.75 * r / w**2]])
    return Quantity(term, r, inner @ rows, rows.T @ bend @ rows, note, "correlation")


def _without_error(term: str, value: float, n: int, note: str, kind: Kind) -> Quantity:
    return Quantity(term, value, np.full(n, np.nan), note=note, kind=kind)
