"""The log-likelihood of a mediation model in decimal arithmetic with 50 digits, to settle disagreements.

With huge slopes the cross-products of the search lose digits, so its optimum may only seem better. Nothing of the
package is used.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.linalg import block_diag

from tests.exact_density import ExactRows, digits, exact, exact_density

__all__ = ["exact_loglik", "in_users_units"]

Array = NDArray[np.float64]


def _cluster(rows: pd.DataFrame) -> ExactRows:
    x, m, y = (rows[name].to_numpy(float) for name in ("x", "m", "y"))
    one = np.ones(len(rows))
    Z = block_diag(np.column_stack([one, x]), np.column_stack([one, m, x]))
    equation = np.repeat([0, 1], len(rows))
    return ExactRows(exact(Z), exact(np.column_stack([Z, np.append(m, y)])), equation)


def exact_loglik(data: pd.DataFrame, G: Array, sigma2: Array) -> float:
    """Restricted log-likelihood at (G, sigma2), (5, 5) and (2,), in the units of the data."""
    with digits():
        clusters = [_cluster(rows) for _, rows in data.groupby("id")]
        return float(-exact_density(clusters, exact(G), exact(sigma2), reml=True).value / 2)


def in_users_units(data: pd.DataFrame, L: Array, K: Array) -> tuple[Array, Array]:
    """G and the residual variances of a point of ``search.Model``, in the units of the data."""
    (mx, sx), (mm, sm), (_, sy) = ((data[name].mean(), data[name].std(ddof=0)) for name in ("x", "m", "y"))
    first = np.array([[1.0, mx], [0.0, sx]]) / sm
    second = np.array([[1.0, mm, mx], [0.0, sm, 0.0], [0.0, 0.0, sx]]) / sy
    root = np.linalg.solve(block_diag(first, second), L)
    return root @ root.T, np.array([sm, sy]) ** 2 / K.diagonal() ** 2
