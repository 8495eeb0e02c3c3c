"""Twelve kinds of data sets on which a search for the optimum may fail; kind and number determine the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["KINDS", "SEED", "Asked", "simulated"]

Array = NDArray[np.float64]

#: Seed of the whole study.
SEED = 20_261_130
#: Sds and correlations of the random effects: intercept of m, a, intercept of y, b, c'.
SDS = np.array([0.75, 0.4, 0.6, 0.4, 0.3])
CORRELATIONS = np.array(
    [
        [1.0, 0.1, 0.3, 0.0, 0.1],
        [0.1, 1.0, 0.0, 0.4, 0.0],
        [0.3, 0.0, 1.0, 0.0, 0.2],
        [0.0, 0.4, 0.0, 1.0, 0.1],
        [0.1, 0.0, 0.2, 0.1, 1.0],
    ]
)
G = CORRELATIONS * np.outer(SDS, SDS)
#: Residual sds of m and y.
SIGMA = (0.8, 0.7)

Noise = Callable[[np.random.Generator, int], Array]


@dataclass(frozen=True, slots=True)
class Asked:
    """One data set and its model.

    Attributes
    ----------
    data : DataFrame
        Columns id, x, m, y.
    several : bool
        Two responses m and y on x with correlated residuals instead of a mediation model.
    """

    data: pd.DataFrame
    several: bool = False


def _normal(rng: np.random.Generator, n: int) -> Array:
    return rng.normal(size=n)


def _student(df: float) -> Noise:
    return lambda rng, n: rng.standard_t(df, size=n)


def _rows(
    rng: np.random.Generator,
    sizes: Array,
    *,
    root: Array | None = None,
    noise: Noise = _normal,
    sigma: tuple[float, float] = SIGMA,
    scales: Array | None = None,
    size: float = 1.0,
    shift: Array | None = None,
) -> pd.DataFrame:
    """A mediation model: ``root`` of G, residual ``scales`` (J,) and ``shift`` (J, 5) of the effects by cluster."""
    J, g = len(sizes), np.repeat(np.arange(len(sizes)), sizes.astype(int))
    root = np.linalg.cholesky(G) if root is None else root
    u = rng.normal(size=(J, root.shape[1])) @ root.T
    u = u * np.array([1.0, size, 1.0, size, size]) + (0.0 if shift is None else shift)
    scale = np.ones(J) if scales is None else scales
    x = rng.normal(size=len(g)) + 0.5 * rng.normal(size=J)[g]
    em, ey = (s * scale[g] * noise(rng, len(g)) for s in sigma)
    m = 0.2 + u[g, 0] + (0.5 + u[g, 1]) * x + em
    y = 0.3 + u[g, 2] + (0.4 + u[g, 3]) * m + (0.2 + u[g, 4]) * x + ey
    return pd.DataFrame({"id": g, "x": x, "m": m, "y": y})


def _ordinary(rng: np.random.Generator, k: int) -> Asked:
    sizes = np.full(40, 8) if k % 2 else rng.integers(4, 24, size=40)
    return Asked(_rows(rng, sizes))


def _few(rng: np.random.Generator, k: int) -> Asked:
    return Asked(_rows(rng, np.full(8, 12)))


def _tiny(rng: np.random.Generator, k: int) -> Asked:
    return Asked(_rows(rng, rng.integers(2, 5, size=80)))


def _nearly_singular(rng: np.random.Generator, k: int) -> Asked:
    values, vectors = np.linalg.eigh(G)
    values[: 1 + k % 3] = 10.0 ** -(2 + k % 5)
    return Asked(_rows(rng, np.full(50, 8), root=vectors * np.sqrt(values)))


def _singular(rng: np.random.Generator, k: int) -> Asked:
    values, vectors = np.linalg.eigh(G)
    return Asked(_rows(rng, np.full(50, 8), root=(vectors * np.sqrt(values))[:, 1 + k % 3 :]))


def _very_heavy(rng: np.random.Generator, k: int) -> Asked:
    return Asked(_rows(rng, np.full(25, 8), noise=_student(1.2)))


def _heavy(rng: np.random.Generator, k: int) -> Asked:
    return Asked(_rows(rng, np.full(25, 8), noise=_student(3.0)))


def _outlying(rng: np.random.Generator, k: int) -> Asked:
    shift, scales = np.zeros((30, 5)), np.ones(30)
    shift[:3] = rng.normal(size=(3, 5)) * SDS * (10.0, 30.0, 100.0)[k % 3]
    scales[3:6] = (3.0, 10.0, 30.0)[k // 3 % 3]
    return Asked(_rows(rng, np.full(30, 8), shift=shift, scales=scales))


def _unequal(rng: np.random.Generator, k: int) -> Asked:
    return Asked(_rows(rng, np.full(30, 8), scales=np.exp(rng.normal(0.0, 1.0 + 0.5 * (k % 3), size=30))))


def _collinear(rng: np.random.Generator, k: int) -> Asked:
    return Asked(_rows(rng, np.full(40, 8), sigma=((0.2, 0.05, 0.01)[k % 3], 0.7)))


def _huge(rng: np.random.Generator, k: int) -> Asked:
    return Asked(_rows(rng, np.full(30, 8), size=(30.0, 100.0, 300.0, 1000.0)[k % 4] * SIGMA[1] / float(SDS[1])))


def _several(rng: np.random.Generator, k: int) -> Asked:
    noise = (_normal, _student(3.0), _student(1.2))[k % 3]
    return Asked(_rows(rng, np.full(30, 8), noise=noise), several=True)


KINDS: dict[str, Callable[[np.random.Generator, int], Asked]] = {
    "normal, balanced or not": _ordinary,
    "8 clusters": _few,
    "clusters of 2 to 4": _tiny,
    "G nearly singular": _nearly_singular,
    "G singular": _singular,
    "t(1.2) residuals": _very_heavy,
    "t(3) residuals": _heavy,
    "outlying clusters": _outlying,
    "unequal residual scales": _unequal,
    "nearly collinear predictors": _collinear,
    "huge slopes": _huge,
    "correlated residuals": _several,
}


def simulated(kind: str, k: int) -> Asked:
    """Data set number k of a kind."""
    at = list(KINDS).index(kind)
    return KINDS[kind](np.random.default_rng([SEED, at, k]), k)
