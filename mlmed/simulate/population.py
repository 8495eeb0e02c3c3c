"""Validated population values of a mediation model, and data drawn from them in three designs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mlmed.errors import DataError
from mlmed.options import DESIGNS, MOST, Design, check_flag, check_number, check_seed, is_whole, one_of, shown
from mlmed.text import Compact

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
#: Random effects, in the order of G; and, by design (level of x, m and y), those that cannot exist, with the reason.
EFFECTS_OF_G = ("intercept of m", "a", "intercept of y", "b", "c'")
ABSENT: dict[str, tuple[tuple[int, ...], str]] = {
    "1-1-1": ((), ""),
    "2-1-1": ((1, 4), "x is constant within clusters, so its slopes a and c' cannot vary over them"),
    "2-2-1": (
        (0, 1, 3, 4),
        "x and m are constant within clusters, so no slope can vary over them, and what m has beyond a x is its "
        "residual, sigma2[0]",
    ),
}


@dataclass(frozen=True, slots=True)
class BPGTruth:
    """Population values of a Bauer-Preacher-Gil model.

    Attributes
    ----------
    a, b, cprime : float
        Average paths x to m, m to y, x to y.
    G : (5, 5) array
        Covariance (variance scale) of the random effects in the order intercept of m, a, intercept of y, b, c'.
        Kept as a tuple of rows. Required if a or b are not 0.6: the default cov(a_j, b_j) = 0.113, part of the
        indirect effect, belongs to those paths.
    sigma2 : (2,) array
        Residual variances of m and y.
    intercepts : (2,) array
        Average intercepts of m and y.

    Raises
    ------
    DataError
        Invalid values: a wrong shape, no number, a negative variance, a negative eigenvalue of G; or other paths
        without a G.

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
        """Check every value; keep arrays as immutable tuples."""
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
        """Covariance of the default paths; refuse it for other paths, whose slopes it does not describe."""
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
        """True values of an effects table: a, b, cprime, cov_ab, indirect, direct, total."""
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
    """Check a number of clusters or rows."""
    if not is_whole(value) or not 1 <= value <= MOST:
        limits = "must be a whole number from 1" if not is_whole(value) or value < 1 else f"is at most {MOST:,}"
        raise DataError(f"{name} {limits}; found {shown(value)}")
    return int(value)


@dataclass(frozen=True, slots=True, repr=False)
class Simulated(Compact):
    """A data set and its truth.

    Attributes
    ----------
    data : DataFrame
        Columns id, x, m, y; one row per observation.
    truth : BPGTruth
        Population values.
    ranef : (n_clusters, 5) array
        The drawn random effects, in the order of G.
    design : str
        Level of x, m and y.
    """

    data: pd.DataFrame
    truth: BPGTruth
    ranef: Array
    design: str = "1-1-1"


class Population(TypedDict, total=False):
    """Keyword arguments of ``bpg``, ``power`` and ``study`` that describe the population."""

    truth: BPGTruth | None
    a: float | None
    b: float | None
    cprime: float | None
    cov_ab: float | None
    G: ArrayLike | None
    sigma2: ArrayLike | None
    intercepts: ArrayLike | None
    x_between: float
    skewed: bool


@dataclass(frozen=True, slots=True)
class Source:
    """A population to draw data sets of any size from.

    Attributes
    ----------
    truth : BPGTruth
        Population values.
    design : str
        One of ``DESIGNS``.
    x_between : float
        Standard deviation of the cluster part of x; its row part has 1.
    skewed : bool
        Whether random effects come from exponential instead of normal variables.
    """

    truth: BPGTruth
    design: str = "1-1-1"
    x_between: float = 0.9
    skewed: bool = False

    @classmethod
    def of(
        cls,
        design: str = "1-1-1",
        *,
        truth: BPGTruth | None = None,
        x_between: float = 0.9,
        skewed: bool = False,
        cov_ab: float | None = None,
        **values: Any,
    ) -> Source:
        """Build from the keyword arguments of ``bpg``; given values replace those of ``truth``.

        Raises
        ------
        DataError
            Invalid values, or paths without the covariance of their slopes.
        """
        unknown = set(values) - {"a", "b", "cprime", "G", "sigma2", "intercepts"}
        if unknown:
            raise TypeError(f"no value of a population is called {sorted(unknown)[0]!r}; see mlmed.simulate.bpg")
        if truth is not None and not isinstance(truth, BPGTruth):
            raise DataError(f"truth must be a BPGTruth; found {type(truth).__name__}")
        one_of(design, DESIGNS, "design", error=DataError)
        check_flag(skewed, "skewed", error=DataError)
        given = {name: value for name, value in values.items() if value is not None}
        base = truth if truth is not None else default_truth(design)
        if truth is None:
            _refuse_silent_covariance(base, given, cov_ab)
        made = replace(base, **given)
        if cov_ab is not None:
            made = _with_cov_ab(made, cov_ab, design, given)
        return cls(made, design, check_number(x_between, "x_between", error=DataError), skewed)

    def __post_init__(self) -> None:
        """Refuse random effects that cannot exist in the design, and a constant x."""
        absent, why = ABSENT[self.design]
        for k in absent:
            if np.any(np.asarray(self.truth.G)[k]):
                raise DataError(
                    f"G has a variance or covariance of {EFFECTS_OF_G[k]}, but in design {self.design} {why}; set row "
                    f"and column {k} of G to zero"
                )
        if self.design != "1-1-1" and self.x_between == 0.0:
            raise DataError(f"in design {self.design} x is x_between times a cluster value; with x_between=0 it is 0")

    def draw(self, n_clusters: int, cluster_size: int, rng: np.random.Generator) -> Simulated:
        """Draw one data set."""
        J, n, truth = whole(n_clusters, "n_clusters"), whole(cluster_size, "cluster_size"), self.truth
        u = self._random_effects(J, rng)
        codes = np.repeat(np.arange(J), n)
        e = rng.normal(size=(J * n, 2)) * np.sqrt(np.asarray(truth.sigma2))
        if self.design == "2-2-1":
            e[:, 0] = e[::n, 0][codes]
        x = self.x_between * rng.normal(size=J)[codes]
        if self.design == "1-1-1":
            x = x + rng.normal(size=J * n)
        v, (d_m, d_y) = u[codes], np.asarray(truth.intercepts)
        with np.errstate(over="ignore", invalid="ignore"):  # checked below
            m = d_m + v[:, 0] + (truth.a + v[:, 1]) * x + e[:, 0]
            y = d_y + v[:, 2] + (truth.b + v[:, 3]) * m + (truth.cprime + v[:, 4]) * x + e[:, 1]
        if not np.isfinite(y).all():
            largest = max(np.abs(np.asarray(part)).max() for part in (truth.G, truth.sigma2, truth.intercepts))
            raise DataError(
                f"values drawn from this population are larger than any float (a = {truth.a:g}, b = {truth.b:g}, "
                f"cprime = {truth.cprime:g}, others up to {largest:g}); take smaller ones"
            )
        return Simulated(pd.DataFrame({"id": codes + 1, "x": x, "m": m, "y": y}), truth, u, self.design)

    def _random_effects(self, J: int, rng: np.random.Generator) -> Array:
        values, vectors = np.linalg.eigh(np.asarray(self.truth.G))
        # for normal variables any root will do; the symmetric one spreads the skewness evenly
        root = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ (vectors.T if self.skewed else np.eye(5))
        standard = rng.exponential(size=(J, 5)) - 1.0 if self.skewed else rng.normal(size=(J, 5))
        return np.asarray(standard @ root.T, dtype=np.float64)


def default_truth(design: str) -> BPGTruth:
    """Population values of the 2006 paper's example, without random effects that cannot exist in the design."""
    G = np.array(BPGTruth().G)
    absent = list(ABSENT[design][0])
    G[absent], G[:, absent] = 0.0, 0.0
    return BPGTruth(G=G)


def _refuse_silent_covariance(base: BPGTruth, given: dict[str, Any], cov_ab: float | None) -> None:
    """Refuse user-given paths with the default population's covariance of slopes."""
    paths = [name for name in ("a", "b") if name in given]
    if paths and cov_ab is None and "G" not in given and base.cov_ab:
        one = len(paths) == 1
        raise DataError(
            f"{' and '.join(paths)} {'is' if one else 'are'} given, and cov(a_j, b_j) is not; the indirect effect is "
            f"a b + cov(a_j, b_j), so that the {base.cov_ab:g} of the default population would be part of it. Give "
            "cov_ab= as well (0 for slopes that do not covary), or G=, or truth="
        )


def _with_cov_ab(truth: BPGTruth, value: float, design: str, given: dict[str, Any]) -> BPGTruth:
    """Replace cov(a_j, b_j) by the given value."""
    cov_ab = check_number(value, "cov_ab", error=DataError)
    if "G" in given and truth.cov_ab != cov_ab:
        raise DataError(
            f"cov_ab={cov_ab:g} and G, whose row 1 and column 3 have {truth.cov_ab:g}, are two values of "
            "cov(a_j, b_j); give one of them"
        )
    if ABSENT[design][0] and cov_ab:
        raise DataError(f"cov_ab={cov_ab:g} cannot be in design {design}: {ABSENT[design][1]}; leave it out")
    return truth.with_cov_ab(cov_ab)


def bpg(
    n_clusters: int = 100,
    cluster_size: int = 8,
    *,
    a: float | None = None,
    b: float | None = None,
    cprime: float | None = None,
    cov_ab: float | None = None,
    G: ArrayLike | None = None,
    sigma2: ArrayLike | None = None,
    intercepts: ArrayLike | None = None,
    truth: BPGTruth | None = None,
    x_between: float = 0.9,
    skewed: bool = False,
    design: Design = "1-1-1",
    seed: int | np.random.SeedSequence | np.random.Generator,
) -> Simulated:
    """Draw a mediation data set with random slopes (Bauer, Preacher & Gil, 2006).

    Parameters
    ----------
    n_clusters, cluster_size : int
        Clusters, and rows in each.
    a, b, cprime : float, optional
        Average paths x to m, m to y, x to y; 0.6, 0.6 and 0.2 if not given.
    cov_ab : float, optional
        cov(a_j, b_j), which is part of the indirect effect a b + cov(a_j, b_j). Required in design 1-1-1 with ``a`` or
        ``b``, unless ``G`` or ``truth`` contains it: the default belongs to the default paths.
    G : (5, 5) array, optional
        Covariance of the random effects: intercept of m, a, intercept of y, b, c'. By default variances 0.6, 0.16,
        0.4, 0.16, 0.04 and cov(a_j, b_j) = 0.113, without effects that cannot exist in the design.
    sigma2 : (2,) array, optional
        Residual variances of m and y, by default 0.65 and 0.45.
    intercepts : (2,) array, optional
        Average intercepts of m and y, by default 0.
    truth : BPGTruth, optional
        All of these at once; other arguments replace its values.
    x_between : float
        x is ``x_between`` times a normal cluster value plus a normal row value (none if x is at level 2).
    skewed : bool
        Whether random effects come from exponential instead of normal variables, with the same covariance (skewness 2
        and kurtosis 9 of each before they are mixed).
    design : {"1-1-1", "2-1-1", "2-2-1"}
        Level of x, m and y: 2 is constant within clusters.
    seed : int, SeedSequence or Generator
        Seed for ``numpy.random.default_rng``; required.

    Raises
    ------
    DataError
        Invalid values, such as a G with a negative eigenvalue, or random effects that cannot exist in the design; a
        path without the covariance of the slopes.
    EffectError
        No seed.

    Examples
    --------
    >>> import mlmed
    >>> sim = mlmed.simulate.bpg(50, 4, seed=1)
    >>> sim.data.shape, sim.truth.total
    ((200, 4), 0.673)
    >>> mlmed.simulate.bpg(50, 4, a=0.3, cprime=0.0, cov_ab=0.0, seed=1).truth.total
    0.18
    """
    source = Source.of(
        design, truth=truth, a=a, b=b, cprime=cprime, cov_ab=cov_ab, G=G, sigma2=sigma2, intercepts=intercepts,
        x_between=x_between, skewed=skewed,
    )  # fmt: skip
    known = isinstance(seed, np.random.SeedSequence | np.random.Generator)
    rng = np.random.default_rng(seed if known else check_seed(seed, "bpg()"))
    return source.draw(n_clusters, cluster_size, rng)
