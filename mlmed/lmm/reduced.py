"""The same model with fewer random effects, from the same cross-products."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mlmed.lmm.problem import Problem
from mlmed.lmm.roots import with_columns
from mlmed.lmm.working import Working

__all__ = ["only_effects"]


def only_effects(working: Working, keep: NDArray[np.intp]) -> Working:
    """Keep only some random effects, in the columns that the user gave.

    The units of the fixed effects stay; ``Z_map`` becomes diagonal, because a slope without an intercept's random
    effect must not be centred (eq. 19).

    Parameters
    ----------
    working : Working
        The full model.
    keep : (k,) int array
        Positions of the effects that stay, at least one.
    """
    full, Z_map = working.problem, working.units.Z_map
    # with roots the diagonal may be zero, as effects are mixed; alone in its row it is the row's length
    scale = np.diag(np.diag(Z_map) if full.roots is None else np.sqrt((Z_map**2).sum(axis=1)))
    T = np.asarray(np.linalg.solve(Z_map, scale), dtype=np.float64)[:, keep]
    A = np.einsum("ak,abj,bl->klj", T, full.A, T, optimize=True)
    B = np.einsum("ak,acj->kcj", T, full.B, optimize=True)
    cross = full.cross
    if cross is not None:
        cross = replace(cross, A=T.T @ cross.A @ T, B=T.T @ cross.B)
    place = {int(old): new for new, old in enumerate(keep)}
    blocks = tuple(
        replace(block, index=tuple(place[k] for k in block.index if k in place))
        for block in working.blocks
        if any(k in place for k in block.index)
    )
    units = replace(working.units, Z_map=scale[np.ix_(keep, keep)])
    stratum = full.stratum[keep]
    roots = None if full.roots is None else with_columns(full.roots, T, full.stratum, stratum)
    return Working(Problem(A, B, full.C, full.nobs, stratum, cross, roots), blocks, units)
