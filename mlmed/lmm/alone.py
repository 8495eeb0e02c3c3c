"""Fixed effects that one cluster alone gives, so that the others do not show how they vary between clusters.

Without cluster j the precision of beta is P - P_j. It is singular where the leverage of the cluster, an eigenvalue of
P_j relative to P, is 1: moving beta along that eigenvector changes the expected response of cluster j only. What such a
move changes can neither be estimated without the cluster (deletion, bootstrap) nor has it a robust standard error: the
cluster fits itself, and its score is 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.lmm.clusters import chunks
from mlmed.lmm.fit import Optimum
from mlmed.lmm.percluster import ClusterProducts, cluster_terms
from mlmed.lmm.working import Working

__all__ = ["FULL_LEVERAGE", "Alone", "gathered", "leverages", "moves_of_one", "without_rounding"]

Array = NDArray[np.float64]

#: A leverage this close to 1 is 1. Rounding leaves 1e-14 to 5e-9, the latter with columns that are collinear but for
#: 1e-10 of their variance; and what rests on other clusters for a millionth rests on one.
FULL_LEVERAGE = 1e-6
#: Entries of a move below this share of the standard errors of their coefficients are the rounding error of zero.
NO_MOVE = 1e-6


@dataclass(frozen=True, slots=True)
class Alone:
    """Moves of beta that single clusters (or rows) alone notice.

    Attributes
    ----------
    moves : (p, k) array
        One move a column, in the user's units; exact zeros for the coefficients that it leaves alone.
    owners : (k,) int array
        Position of the cluster that notices it.
    """

    moves: Array
    owners: NDArray[np.intp]


def leverages(own: Array, root: Array) -> tuple[Array, Array]:
    """Eigenvalues (n, p), increasing, and eigenvectors (n, p, p) of every P_j relative to P.

    Parameters
    ----------
    own : (n, p, p) array
        X_j'V_j^-1 X_j of n clusters.
    root : (p, p) array
        P^-1 = root root'.
    """
    values, vectors = np.linalg.eigh(root.T @ own @ root)
    return np.asarray(values, dtype=np.float64), np.asarray(vectors, dtype=np.float64)


def moves_of_one(working: Working, optimum: Optimum, products: ClusterProducts) -> Alone:
    """What the clusters of a mixed model alone notice, for all its fixed effects.

    Parameters
    ----------
    working, optimum : Working, Optimum
        The model and its optimum.
    products : ClusterProducts
        From ``cluster_products(working, grams)``.
    """
    problem, P_inv = working.problem, optimum.evaluation.P_inv
    p, root = problem.n_fixed, np.asarray(np.linalg.cholesky(P_inv), dtype=np.float64)

    def found() -> Iterator[tuple[int, Array]]:
        nothing = np.empty((0, problem.n_random, problem.n_random))
        for part in chunks(problem):
            terms = cluster_terms(problem, products, nothing, optimum.L, optimum.sigma2, part)
            own = terms.cross[:p, :p].transpose(2, 0, 1)
            # the largest leverage is at most the sum of all
            enough = np.flatnonzero(np.einsum("jab,ab->j", own, P_inv) > 1.0 - FULL_LEVERAGE)
            values, vectors = leverages(own[enough], root)
            for j, value, vector in zip(enough, values, vectors, strict=True):
                yield part.start + int(j), root @ vector[:, value > 1.0 - FULL_LEVERAGE]

    X_map = working.units.X_map
    return gathered(found(), X_map, np.sqrt(np.einsum("ia,ab,ib->i", X_map, P_inv, X_map)))


def gathered(found: Iterator[tuple[int, Array]], to_user: Array, errors: Array) -> Alone:
    """Moves of several clusters side by side.

    Parameters
    ----------
    found : iterator of (int, (p, k) array)
        Position of a cluster and what it alone notices, in units in which P^-1 = root root' and a move is ``root v``.
    to_user : (p, p) array
        From these units to the user's.
    errors : (p,) array
        Standard errors of the coefficients in the user's units.
    """
    moves, owners = [np.empty((len(errors), 0))], []
    for owner, own in found:
        moves.append(without_rounding(to_user @ own, errors))
        owners += [owner] * own.shape[1]
    return Alone(np.hstack(moves), np.array(owners, dtype=np.intp))


def without_rounding(moves: Array, errors: Array) -> Array:
    """Moves (p, k) with zeros where they are below rounding; ``errors`` (p,) are the units of the coefficients."""
    return np.where(np.abs(moves) > NO_MOVE * errors[:, None], moves, 0.0)
