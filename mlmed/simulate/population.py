"""Population values of a mediation model, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlmed.errors import DataError
from mlmed.options import MOST, check_number, is_whole
from mlmed.text import shown

__all__ = ["BPGTruth", "whole"]

Array = NDArray[np.float64]
#: Paths a and b of the 2006 paper's example, and the covariance of its random effects.
PATHS = (0.6, 0.6)
COVARIANCE = (
    (0.6, 0.0, 0.0, 0.0, 0.0),
    (0.0, 0.16, 0.0, 0.113, 0.0),
    (0.0, 0.0, 0.4, 0.0, 0.0),
    (0.0, 0.113, 0.0, 0.16, 0.0),
    (0.0, 0.0, 0.0, 0.0, 0.04),
)


@dataclass(frozen=True, slots=True)
class BPGTruth:
    """Population values of a Bauer-Preacher-Gil model.

    Attributes
    ----------
    a, b, cprime : float
        Average paths x to m, m to y, x to y.
    G : (5, 5) array
        Covariance (variance scale) of the random effects in the order intercept of m, a, intercept of y, b, c'.
        Kept as a tuple of rows. Needed where a or b are not 0.6: cov(a_j, b_j) = 0.113 of the default belongs to those,
        and it is part of the indirect effect.
    sigma2 : (2,) array
        Residual variances of m and y.
    intercepts : (2,) array
        Average intercepts of m and y.

    Raises
    ------
    DataError
        Values that no population can have: a wrong shape, no number, a negative variance, a negative eigenvalue of G;
        or other paths without a G.

    Examples
    --------
    >>> round(BPGTruth().indirect, 3)
    0.473
    >>> BPGTruth().with_cov_ab(0.0).indirect
    0.36
    """

    a: float = PATHS[0]
    b: float = PATHS[1]
    cprime: float = 0.2
    G: ArrayLike | None = None
    sigma2: ArrayLike = (0.65, 0.45)
    intercepts: ArrayLike = (0.0, 0.0)

    def __post_init__(self) -> None:
        """Check every value; keep arrays as tuples, so that nobody can change them."""
        for name in ("a", "b", "cprime"):
            object.__setattr__(self, name, check_number(getattr(self, name), name, error=DataError))
        if self.G is None:
            object.__setattr__(self, "G", self._default_covariance())
        for name, shape in (("G", (5, 5)), ("sigma2", (2,)), ("intercepts", (2,))):
            values = _array(getattr(self, name), name, shape)
            object.__setattr__(self, name, _frozen(values))
        if np.min(self.sigma2) < 0.0:
            raise DataError(f"sigma2 has residual variances of m and y; none is below zero; found {self.sigma2}")
        _check_covariance(np.asarray(self.G))

    def _default_covariance(self) -> tuple[tuple[float, ...], ...]:
        """That of the default paths; refused beside others, whose slopes nobody said anything of."""
        if (self.a, self.b) != PATHS:
            raise DataError(
                f"a = {self.a:g} and b = {self.b:g} have no G, and the default one has cov(a_j, b_j) = "
                f"{COVARIANCE[1][3]:g}, which would be part of the indirect effect a b + cov(a_j, b_j); give G, such "
                "as BPGTruth().with_cov_ab(0.0).G"
            )
        return COVARIANCE

    @property
    def cov_ab(self) -> float:
        """Covariance of the slopes a_j and b_j."""
        return float(np.asarray(self.G)[1, 3])

    @property
    def indirect(self) -> float:
        """Average indirect effect a b + cov_ab."""
        return self.a * self.b + self.cov_ab

    @property
    def total(self) -> float:
        """Average total effect."""
        return self.indirect + self.cprime

    @property
    def effects(self) -> dict[str, float]:
        """Every row of an effects table: a, b, cprime, cov_ab, indirect, direct, total."""
        return {
            "a": self.a, "b": self.b, "cprime": self.cprime, "cov_ab": self.cov_ab, "indirect": self.indirect,
            "direct": self.cprime, "total": self.total,
        }  # fmt: skip

    def with_cov_ab(self, value: float) -> BPGTruth:
        """The same population with another covariance of a_j and b_j."""
        G = np.array(self.G)
        G[1, 3] = G[3, 1] = check_number(value, "cov_ab", error=DataError)
        return replace(self, G=G)


def _array(values: Any, name: str, shape: tuple[int, ...]) -> Array:
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{name} must be numbers in the shape {shape}; found {shown(values)}") from None
    if array.shape != shape or not np.isfinite(array).all():
        found = f"the shape {array.shape}" if array.shape != shape else shown(values)
        raise DataError(f"{name} must be finite numbers in the shape {shape}; found {found}")
    return array


def _frozen(values: Array) -> tuple[Any, ...]:
    return tuple(tuple(row) if isinstance(row, list) else row for row in values.tolist())


def _check_covariance(G: Array) -> None:
    if np.abs(G - G.T).max() > 1e-12 * np.abs(G).max():
        raise DataError(f"G must be symmetric; the largest difference across its diagonal is {np.abs(G - G.T).max():g}")
    lowest = int(np.argmin(np.diag(G)))
    if G[lowest, lowest] < 0.0:
        raise DataError(f"G has the variance {G[lowest, lowest]:g} (row and column {lowest}); none is below zero")
    values = np.linalg.eigvalsh(G)
    if values[0] < -1e-10 * values[-1]:
        bound = float(np.sqrt(G[1, 1] * G[3, 3]))
        raise DataError(
            f"G has the eigenvalue {values[0]:.3g}; a covariance matrix has none below zero. cov(a_j, b_j) = "
            f"{G[1, 3]:g} must lie within +-sqrt(var(a_j) var(b_j)) = +-{bound:.3g}, or closer to zero where other "
            "covariances are given"
        )


def whole(value: Any, name: str) -> int:
    """A number of clusters or rows."""
    if not is_whole(value) or not 1 <= value <= MOST:
        limits = "must be a whole number from 1" if not is_whole(value) or value < 1 else f"is at most {MOST:,}"
        raise DataError(f"{name} {limits}; found {shown(value)}")
    return int(value)
