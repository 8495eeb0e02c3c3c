"""Covariance of all estimates psi = (beta, tau, sigma2), and reasons for unknown parts (docs/math.md, eq. 23, 24)."""

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

#: Eigenvalue of the Hessian, scaled to unit diagonal, above which it counts as positive.
POSITIVE = 1e-10


#: Derivative along a direction, as a share of its terms' size, below which it is the rounding error of zero.
CANCELLED = 1e-8
#: Most owners of directions named in a text; more are counted.
NAMED = 5


@dataclass(frozen=True, slots=True)
class Directions:
    """Directions of the parameters, with a text on quantities that change along one of them.

    Attributes
    ----------
    matrix : (n, k) array
        One direction per column; exact zeros for parameters that do not move.
    text : str
        The text; ``{owners}`` stands for the owners of the directions concerned.
    owners : tuple of str, (k,)
        Owner of each direction, such as a cluster.
    """

    matrix: Array
    text: str
    owners: tuple[str, ...]

    def owners_of(self, gradient: Array, hessian: Array | None = None) -> list[str]:
        """Owners of the directions along which a quantity with derivatives (n,), (n, n) changes."""
        touched = self.changed(gradient)
        if hessian is not None:
            touched = touched | np.any(self.changed(hessian), axis=0)
        return [self.owners[k] for k in np.flatnonzero(touched)]

    def changed(self, derivatives: Array) -> NDArray[np.bool_]:
        """Whether functions with derivatives (..., n) change along each direction, beyond rounding, (..., k)."""
        found = np.abs(derivatives @ self.matrix) > CANCELLED * (np.abs(derivatives) @ np.abs(self.matrix))
        return np.asarray(found, dtype=np.bool_)

    def through(self, derivatives: Array) -> Directions:
        """Map the directions to those of m functions with derivatives (m, n)."""
        return replace(self, matrix=np.where(self.changed(derivatives), derivatives @ self.matrix, 0.0))

    def below(self, n: int, before: int = 0) -> Directions:
        """Embed the directions in n parameters, after the first ``before``."""
        matrix = np.zeros((n, self.matrix.shape[1]))
        matrix[before : before + len(self.matrix)] = self.matrix
        return replace(self, matrix=matrix)


@dataclass(frozen=True, slots=True)
class Block:
    """Reasons and notes on the covariance of a block of parameters.

    Attributes
    ----------
    part : slice
        The parameters.
    reason : str
        Why entries are NaN; empty if none are, or if ``lost`` explains it.
    note : str
        Caveat on the other entries; usually empty.
    lost : tuple of Directions
        Directions without information: quantities that change along them have no standard error.
    edge : tuple of Directions
        Directions with a caveat.
    """

    part: slice
    reason: str = ""
    note: str = ""
    lost: tuple[Directions, ...] = ()
    edge: tuple[Directions, ...] = ()


@dataclass(frozen=True, slots=True)
class Vcov:
    """Covariance of estimates, with the reasons for entries that are unknown.

    Attributes
    ----------
    matrix : (n, n) array
        NaN where it does not exist or is unknown.
    blocks : tuple of Block
        Reasons and notes for all parameters, or for those of several fits in turn.
    whole : (n, n) array or None
        The matrix before parameters in ``lost`` directions became NaN; None if there are none.
    apart : str
        Why covariances between blocks are NaN, if they are.
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
        """The matrix including unknown entries, for functions in which these cancel."""
        return self.matrix if self.whole is None else self.whole

    @property
    def lost(self) -> tuple[Directions, ...]:
        """Directions of all parameters without information."""
        return tuple(one for block in self.blocks for one in block.lost)

    @property
    def reason(self) -> str:
        """Why entries are NaN."""
        return joined(*(block.reason for block in self.blocks))

    @property
    def note(self) -> str:
        """Caveats on the whole matrix."""
        return joined(*(block.note for block in self.blocks))

    def saying(self, **said: Any) -> Vcov:
        """Replace fields of every block."""
        return replace(self, blocks=tuple(replace(block, **said) for block in self.blocks))

    def losing(self, lost: Sequence[Directions]) -> Vcov:
        """Set to NaN the parameters of one fit that move along these directions, in place of earlier ones."""
        kept = tuple(one for one in lost if one.matrix.any())
        if not kept:
            return replace(self, matrix=self.entire, whole=None).saying(lost=())
        touched = np.any([np.any(one.matrix != 0.0, axis=1) for one in kept], axis=0)
        matrix = self.entire.copy()
        matrix[touched], matrix[:, touched] = np.nan, np.nan
        return replace(self, matrix=matrix, whole=self.entire).saying(lost=kept)

    def of(self, gradient: Array, hessian: Array | None = None) -> Array:
        """The matrix for a quantity with these derivatives; all NaN if it moves along a lost direction."""
        if said_along(self.lost, gradient, hessian):
            return np.full_like(self.matrix, np.nan)
        return self.entire

    def reason_for(self, gradient: Array, hessian: Array | None = None) -> str:
        """Why a quantity has no standard error."""
        used, blocks = self._used(gradient, hessian)
        unknown = np.isnan(self.entire[np.ix_(used, used)])
        owner = np.searchsorted([block.part.stop for block in blocks], used, side="right")
        if unknown[owner[:, None] != owner].any():
            return self.apart
        found = []
        for k, block in enumerate(blocks):
            said = said_along(block.lost, gradient, hessian)
            # entries that are NaN in ``entire`` have the block's reason
            is_unknown = not said or unknown[np.ix_(owner == k, owner == k)].any()
            found += [said, block.reason if is_unknown else ""]
        return joined(*found)

    def note_for(self, gradient: Array, hessian: Array | None = None) -> str:
        """Caveats on the standard error of a quantity."""
        blocks = self._used(gradient, hessian)[1]
        return joined(*(t for block in blocks for t in (block.note, said_along(block.edge, gradient, hessian))))

    def _used(self, gradient: Array, hessian: Array | None) -> tuple[NDArray[np.intp], tuple[Block, ...]]:
        """Parameters that a quantity depends on, and their blocks; a single block is always included."""
        touched = gradient != 0.0 if hessian is None else (gradient != 0.0) | np.any(hessian != 0.0, axis=0)
        own = tuple(block for block in self.blocks if len(self.blocks) == 1 or touched[block.part].any())
        return np.flatnonzero(touched), own


def stacked(parts: Sequence[Vcov], unknown: int | None, apart: str) -> Vcov:
    """Stack the covariances of independent fits; covariances with one fit may be unknown.

    Parameters
    ----------
    parts : sequence of Vcov
        Covariances of the fits.
    unknown : int or None
        Number of the fit whose covariances with the others are NaN; None if all are independent.
    apart : str
        Why they are NaN.
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
    """Texts on a quantity with these derivatives, each once; empty if it moves along no direction."""
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
    """Refuse unknown kinds."""
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

    Computed in the units of the data if available: with nearly equal residuals the Hessian in natural parameters
    cannot be told from an indefinite one.
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
        Estimates and their derivatives.
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
