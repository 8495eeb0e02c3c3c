"""Working units: response of sd 1, columns centred and of unit size; and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.data.layout import INTERCEPT
from mlmed.errors import NotIdentifiedError
from mlmed.lmm.checks import refuse_collinear
from mlmed.quadrature.problem import Problem, Structure, build_chunks
from mlmed.quadrature.rows import Part, Rows
from mlmed.text import Compact

__all__ = ["Units", "build_problem"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, repr=False)
class Units(Compact):
    """From working to user's units.

    Attributes
    ----------
    shift, unit : float
        The response is ``shift + unit * working response``.
    beta_map, tau_map : (p, p), (k, k) arrays
        ``beta = beta_map @ beta_working + shift * intercept``, ``tau = tau_map @ tau_working``.
    intercept : (p,) array
        1 at the intercept of the location, 0 elsewhere.
    random_map : (d + q, d + q) array
        The random effects (t, u) are ``random_map`` times those in working units.
    """

    shift: float
    unit: float
    beta_map: Array
    tau_map: Array
    intercept: Array
    random_map: Array


def build_problem(rows: Rows) -> tuple[Problem, Units]:
    """Problem in working units.

    Raises
    ------
    NotIdentifiedError
        Fixed columns that are constant or make up one another.
    """
    name = rows.equations[0].name
    X, X_map = _fixed(rows.location, name)
    W, W_map = _fixed(rows.scale, f"{name}, scale")
    blocks, diagonal = rows.blocks
    d = len(rows.scale.random_names)
    V, V_map = _random(rows.scale, blocks[:d], diagonal)
    Z, Z_map = _random(rows.location, blocks[d:], diagonal)
    intercept = np.array([float(column == INTERCEPT) for column in rows.location.fixed_names])
    shift = float(rows.y.mean()) if intercept.any() else 0.0
    centred = rows.y - shift
    unit = float(np.sqrt(np.mean(centred**2)))
    q = Z.shape[1]
    number = {block: k for k, block in enumerate(dict.fromkeys(blocks))}
    structure = Structure.of_blocks(
        d, q, [number[block] for block in blocks], frozenset(number[block] for block in diagonal)
    )
    random_map = np.zeros((d + q, d + q))
    random_map[:d, :d], random_map[d:, d:] = V_map, unit * Z_map
    chunks = build_chunks(centred / unit, X, Z, W, V, rows.codes)
    problem = Problem(chunks, len(rows.clusters), len(rows.y), X.shape[1], W.shape[1], structure, -float(np.log(unit)))
    return problem, Units(shift, unit, unit * X_map, W_map, intercept, random_map)


def _fixed(part: Part, where: str) -> tuple[Array, Array]:
    """Columns centred beside an intercept and scaled, and the map of their coefficients back."""
    columns, names = part.fixed, part.fixed_names
    at = names.index(INTERCEPT) if INTERCEPT in names else None
    back = np.eye(len(names))
    means = columns.mean(axis=0)
    sizes = np.sqrt(np.mean(columns**2, axis=0))
    if at is not None:
        means[at] = 0.0
        spread = np.sqrt(np.mean((columns - means) ** 2, axis=0))
        for k, name in enumerate(names):
            if k != at and spread[k] <= 1e-7 * max(sizes[k], np.finfo(float).tiny):
                raise NotIdentifiedError(
                    f"equation {where}: the column {name!r} is constant ({means[k]:g}), so its effect cannot be told "
                    "from the intercept; remove it"
                )
        columns, sizes = columns - means, spread
        back[at] = -means / sizes
        back[at, at] = 1.0
    elif (sizes == 0.0).any():
        raise NotIdentifiedError(f"equation {where}: the column {names[int(np.argmin(sizes))]!r} is 0; remove it")
    scaled = columns / sizes
    refuse_collinear(scaled.T @ scaled, where, names)
    for k in range(len(names)):
        if k != at:
            back[k, k] = 1.0 / sizes[k]
    return scaled, back


def _random(part: Part, blocks: list[str], diagonal: frozenset[str]) -> tuple[Array, Array]:
    """Random columns, slopes centred where they may correlate with an intercept of their block; the map back.

    Parameters
    ----------
    part : Part
        Location or scale.
    blocks : list of str
        Block of each random column.
    diagonal : frozenset of str
        Blocks without covariances.
    """
    names = part.random_names
    back = np.eye(len(names))
    out = part.random.copy()
    for k in range(len(names)):
        partner = [j for j in range(len(names)) if blocks[j] == blocks[k] and names[j] == INTERCEPT and j != k]
        mean = float(out[:, k].mean()) if partner and blocks[k] not in diagonal else 0.0
        size = float(np.sqrt(np.mean((out[:, k] - mean) ** 2)))
        if size <= 1e-7 * float(np.abs(part.random[:, k]).max(initial=np.finfo(float).tiny)):
            shown = names[k]
            raise NotIdentifiedError(
                f"the random effect of {shown!r} belongs to a column that is constant, so it cannot be told from the "
                "random intercept; remove it"
            )
        out[:, k] = (out[:, k] - mean) / size
        back[k, k] = 1.0 / size
        if mean:
            back[partner[0], k] = -mean / size
    return out, back
