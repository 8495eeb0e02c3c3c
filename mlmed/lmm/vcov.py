"""Covariance of all estimates psi = (beta, tau, sigma2), and what it does not know (docs/math.md, eq. 23, 24)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlmed.lmm.estimates import Estimates
from mlmed.notes import joined
from mlmed.options import VCOV_KINDS, one_of
from mlmed.text import shorten

Array = NDArray[np.float64]

#: Smallest eigenvalue of the Hessian, scaled to unit diagonal, that still counts as positive.
POSITIVE = 1e-10


#: A derivative along a direction whose parts cancel to this share of their size is the rounding error of zero.
CANCELLED = 1e-8
#: Owners of directions that are named before they are counted.
NAMED = 5


@dataclass(frozen=True, slots=True)
class Directions:
    """Directions of the parameters, and what is to be said of everything that changes along one of them.

    Attributes
    ----------
    matrix : (n, k) array
        A direction a column; exact zeros for the parameters that do not move.
    text : str
        What is said; ``{owners}`` stands for the owners of the directions that are touched.
    owners : tuple of str, (k,)
        What a direction belongs to, such as a cluster.
    """

    matrix: Array
    text: str
    owners: tuple[str, ...]

    def owners_of(self, gradient: Array, hessian: Array | None = None) -> list[str]:
        """Owners of the directions along which a quantity with these derivatives (n,), (n, n) changes."""
        touched = self.changed(gradient)
        if hessian is not None:
            touched = touched | np.any(self.changed(hessian), axis=0)
        return [self.owners[k] for k in np.flatnonzero(touched)]

    def changed(self, derivatives: Array) -> NDArray[np.bool_]:
        """Whether functions with derivatives (..., n) change along each direction by more than rounding, (..., k)."""
        found = np.abs(derivatives @ self.matrix) > CANCELLED * (np.abs(derivatives) @ np.abs(self.matrix))
        return np.asarray(found, dtype=np.bool_)

    def through(self, derivatives: Array) -> Directions:
        """The directions in which functions with derivatives (m, n) of the parameters move."""
        return replace(self, matrix=np.where(self.changed(derivatives), derivatives @ self.matrix, 0.0))

    def below(self, n: int, before: int = 0) -> Directions:
        """The same among n parameters, of which these are those after the first ``before``."""
        matrix = np.zeros((n, self.matrix.shape[1]))
        matrix[before : before + len(self.matrix)] = self.matrix
        return replace(self, matrix=matrix)


@dataclass(frozen=True, slots=True)
class Block:
    """What is to be said of the covariance of some of the parameters.

    Attributes
    ----------
    part : slice
        Which parameters.
    reason : str
        Why entries are NaN; empty if none are, or if ``lost`` says it.
    note : str
        What a reader should know of the others; usually empty.
    lost : tuple of Directions
        Along which nothing is known: what changes along them has no standard error.
    edge : tuple of Directions
        Of which a reader should know more.
    """

    part: slice
    reason: str = ""
    note: str = ""
    lost: tuple[Directions, ...] = ()
    edge: tuple[Directions, ...] = ()


@dataclass(frozen=True, slots=True)
class Vcov:
    """Covariance of estimates that knows of what it says nothing, and why.

    Attributes
    ----------
    matrix : (n, n) array
        NaN where it does not exist, or where nothing is known of it.
    blocks : tuple of Block
        What is said of it: of all parameters, or of those of several fits, one after the other.
    whole : (n, n) array or None
        The matrix before the parameters that ``lost`` touches became NaN, where there are any.
    apart : str
        Why the covariances between blocks are NaN where they are.
    """

    matrix: Array
    blocks: tuple[Block, ...]
    whole: Array | None = None
    apart: str = ""

    @classmethod
    def one(cls, matrix: Array, reason: str = "", note: str = "") -> Vcov:
        """The covariance of one fit."""
        return cls(matrix, (Block(slice(0, len(matrix)), reason, note),))

    @property
    def entire(self) -> Array:
        """The matrix with the entries of which nothing is known, for functions in which these cancel."""
        return self.matrix if self.whole is None else self.whole

    @property
    def lost(self) -> tuple[Directions, ...]:
        """Directions of all parameters along which nothing is known."""
        return tuple(one for block in self.blocks for one in block.lost)

    @property
    def reason(self) -> str:
        """Why entries are NaN."""
        return joined(*(block.reason for block in self.blocks))

    @property
    def note(self) -> str:
        """What a reader should know of all of it."""
        return joined(*(block.note for block in self.blocks))

    def saying(self, **said: Any) -> Vcov:
        """The same matrix with other words of every block."""
        return replace(self, blocks=tuple(replace(block, **said) for block in self.blocks))

    def losing(self, lost: Sequence[Directions]) -> Vcov:
        """The covariance of one fit without what changes along these directions, and no others."""
        kept = tuple(one for one in lost if one.matrix.any())
        if not kept:
            return replace(self, matrix=self.entire, whole=None).saying(lost=())
        touched = np.any([np.any(one.matrix != 0.0, axis=1) for one in kept], axis=0)
        matrix = self.entire.copy()
        matrix[touched], matrix[:, touched] = np.nan, np.nan
        return replace(self, matrix=matrix, whole=self.entire).saying(lost=kept)

    def of(self, gradient: Array, hessian: Array | None = None) -> Array:
        """The matrix for a quantity with these derivatives; all NaN if nothing is known of it."""
        if said_along(self.lost, gradient, hessian):
            return np.full_like(self.matrix, np.nan)
        return self.entire

    def reason_for(self, gradient: Array, hessian: Array | None = None) -> str:
        """Why a quantity that has no standard error has none."""
        used, blocks = self._used(gradient, hessian)
        unknown = np.isnan(self.entire[np.ix_(used, used)])
        owner = np.searchsorted([block.part.stop for block in blocks], used, side="right")
        if unknown[owner[:, None] != owner].any():
            return self.apart
        found = []
        for k, block in enumerate(blocks):
            said = said_along(block.lost, gradient, hessian)
            # what is without derivatives has its own reason
            is_unknown = not said or unknown[np.ix_(owner == k, owner == k)].any()
            found += [said, block.reason if is_unknown else ""]
        return joined(*found)

    def note_for(self, gradient: Array, hessian: Array | None = None) -> str:
        """What a reader should know of the standard error of a quantity."""
        blocks = self._used(gradient, hessian)[1]
        return joined(*(t for block in blocks for t in (block.note, said_along(block.edge, gradient, hessian))))

    def _used(self, gradient: Array, hessian: Array | None) -> tuple[NDArray[np.intp], tuple[Block, ...]]:
        """Parameters that a quantity depends on, and their blocks; the only block in any case."""
        touched = gradient != 0.0 if hessian is None else (gradient != 0.0) | np.any(hessian != 0.0, axis=0)
        own = tuple(block for block in self.blocks if len(self.blocks) == 1 or touched[block.part].any())
        return np.flatnonzero(touched), own


def stacked(parts: Sequence[Vcov], unknown: int | None, apart: str) -> Vcov:
    """Covariances of fits, one after the other: independent, but for one of which that is not known, and why not.

    Parameters
    ----------
    parts : sequence of Vcov
        Those of the fits.
    unknown : int or None
        Number of the fit whose covariances with the others are NaN; None where all are independent.
    apart : str
        Why they are.
    """
    ends = np.cumsum([0, *(len(part.matrix) for part in parts)])
    n, places = int(ends[-1]), [slice(int(start), int(stop)) for start, stop in pairwise(ends)]
    matrix = np.zeros((n, n))
    if unknown is not None:
        matrix[places[unknown]] = matrix[:, places[unknown]] = np.nan
    whole = matrix.copy()
    blocks = []
    for part, place in zip(parts, places, strict=True):
        matrix[place, place], whole[place, place] = part.matrix, part.entire
        for block in part.blocks:
            lost, edge = (tuple(one.below(n, place.start) for one in some) for some in (block.lost, block.edge))
            at = slice(place.start + block.part.start, place.start + block.part.stop)
            blocks.append(Block(at, block.reason, block.note, lost, edge))
    return Vcov(matrix, tuple(blocks), whole, apart)


def said_along(many: Sequence[Directions], gradient: Array, hessian: Array | None = None) -> str:
    """What is said of a quantity with these derivatives, each text once; empty if it moves along no direction."""
    found: dict[str, dict[str, None]] = {}
    for one in many:
        for owner in one.owners_of(gradient, hessian):
            found.setdefault(one.text, {})[owner] = None
    return "; ".join(text.format(owners=shorten(owners, NAMED, last="or")) for text, owners in found.items())


def leading(V: Vcov, n: int) -> Vcov:
    """The covariance of the first n parameters of one fit."""
    block = V.blocks[0]
    lost, edge = (tuple(replace(one, matrix=one.matrix[:n]) for one in part) for part in (block.lost, block.edge))
    whole = None if V.whole is None else V.whole[:n, :n]
    return replace(V, matrix=V.matrix[:n, :n], whole=whole).saying(part=slice(0, n), lost=lost, edge=edge)


def check_vcov_kind(kind: str) -> None:
    """Refuse anything but the two versions."""
    one_of(kind, VCOV_KINDS, "vcov")


def information_inverse(hessian: Array, what: str = "the Hessian") -> tuple[Array, str]:
    """``2 H^-1``, the inverse observed information in natural parameters, or NaN and the reason."""
    size = np.sqrt(np.abs(np.diag(hessian)))
    size = np.where(size > 0.0, size, 1.0)
    scaled = hessian / np.outer(size, size)
    lowest = float(np.linalg.eigvalsh(scaled)[0])
    if lowest < POSITIVE:
        return np.full_like(hessian, np.nan), _not_positive(what, lowest)
    inverse = 2.0 * np.linalg.inv(scaled) / np.outer(size, size)
    return 0.5 * (inverse + inverse.T), ""


def information_of(estimates: Estimates) -> tuple[Array, str]:
    """The inverse observed information in working (tau, sigma2), or NaN and the reason.

    Taken in the units of the data where these are known: natural parameters of residuals that hardly differ make a
    Hessian that cannot be told from an indefinite one.
    """
    if estimates.local is None or estimates.turn is None:
        return information_inverse(estimates.hessian)
    V, reason = information_inverse(estimates.local)
    return estimates.turn.T @ V @ estimates.turn, reason


def _not_positive(what: str, lowest: float) -> str:
    return (
        f"{what} in natural parameters is not positive definite (smallest scaled eigenvalue {lowest:.2g}), "
        "as happens at the boundary; use profile or bootstrap intervals, or a simpler covariance structure"
    )


def parameter_vcov(estimates: Estimates, kind: str = "block") -> Vcov:
    """Covariance matrix of all parameters.

    Parameters
    ----------
    estimates : Estimates
        Where to take it.
    kind : {"block", "joint"}
        ``block``: (X'V^-1 X)^-1 for beta, inverse observed information for (tau, sigma2), no covariance
        between them (what Stata, lme4, nlme and SAS print; eq. 23). ``joint``: beta moves with (tau, sigma2),
        ``V_bb = P^-1 + D V D'`` and ``V_bt = D V`` (eq. 24; what glmmTMB, lavaan and other joint likelihoods imply).

    Raises
    ------
    EffectError
        Unknown kind.
    """
    check_vcov_kind(kind)
    p = len(estimates.beta)
    V, reason = information_of(estimates)
    matrix = np.zeros((p + len(V), p + len(V)))
    matrix[:p, :p] = estimates.P_inv
    matrix[p:, p:] = estimates.tau_map @ V @ estimates.tau_map.T
    if kind == "joint":
        D = estimates.beta_gradient
        matrix[:p, :p] += D @ V @ D.T
        matrix[:p, p:] = D @ V @ estimates.tau_map.T
        matrix[p:, :p] = matrix[:p, p:].T
    return Vcov.one(matrix, reason)
