"""What the data must allow before a location-scale model is fitted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.data.layout import refuse_alike
from mlmed.errors import FormulaError, NotIdentifiedError
from mlmed.lmm.checks import COLLINEAR
from mlmed.quadrature.rows import Rows
from mlmed.text import shorten

__all__ = ["MOST_DIMENSIONS", "ExactFits", "exact_fits", "refuse_unidentified"]

Array = NDArray[np.float64]

#: Scale random effects that quadrature is offered for.
MOST_DIMENSIONS = 2
#: A residual below this share of the cluster's largest value is the rounding error of zero.
EXACT = 1e-13


@dataclass(frozen=True, slots=True)
class ExactFits:
    """Clusters that their location effects fit without any residual, so that their residual sd may be 0.

    Attributes
    ----------
    unbounded : (a,) int array
        Those where this is so for all fixed effects.
    bounded : (b,) int array
        Those where fixed effects of predictors that vary within the cluster leave a residual, unless they are 0.
    """

    unbounded: NDArray[np.intp]
    bounded: NDArray[np.intp]


def refuse_unidentified(rows: Rows) -> None:
    """Models without a finite maximum, or that cost too much, and terms that would be printed alike.

    Raises
    ------
    FormulaError
        More scale random effects than quadrature is offered for.
    NotIdentifiedError
        A variance that the data say nothing of, or a likelihood without a maximum.
    DataError
        Terms that would be printed alike.
    """
    _refuse_dimensions(rows.scale.random_names)
    sizes = np.bincount(rows.codes)
    if rows.scale.random_names and (sizes > 1).sum() < 2:
        _refuse_single_rows(rows, sizes)
    centred = rows.y - rows.y.mean()
    within = centred - (np.bincount(rows.codes, weights=centred) / sizes)[rows.codes]
    if within @ within <= COLLINEAR * max(centred @ centred, np.finfo(float).tiny):
        raise NotIdentifiedError(
            f"the response {rows.equations[0].name} does not vary within clusters ({':'.join(rows.group)}), so it has "
            "no residual sd to model; use one row per cluster and an ordinary regression"
        )
    _refuse_exact(rows, sizes)
    parts = rows.location, rows.scale
    refuse_alike(zip(rows.equations, (part.layout.encodings for part in parts), strict=True))


def _refuse_dimensions(scale: tuple[str, ...]) -> None:
    if len(scale) > MOST_DIMENSIONS:
        nodes = " and ".join(f"11^{k} = {11**k}" for k in (MOST_DIMENSIONS, len(scale)))
        raise FormulaError(
            f"the scale has {len(scale)} random effects ({', '.join(scale)}): the likelihood is integrated over them "
            f"by quadrature, which is offered for at most {MOST_DIMENSIONS}. The cost is a power: with 11 nodes each, "
            f"every row is evaluated {nodes} times. Remove random effects from the scale formula"
        )


def _refuse_single_rows(rows: Rows, sizes: NDArray[np.intp]) -> None:
    reason = (
        "within one row the residual sd of a cluster cannot be told from its location effect"
        if rows.location.random_names
        else "one residual does not show how residuals of its cluster spread"
    )
    raise NotIdentifiedError(
        f"{int((sizes == 1).sum())} of {len(sizes)} clusters ({':'.join(rows.group)}) have 1 row: {reason}, so the "
        "variance of the scale random effects is not identified. Remove them from the scale formula, or use clusters "
        "with at least two rows"
    )


def _refuse_exact(rows: Rows, sizes: NDArray[np.intp]) -> None:
    """Clusters with a residual sd of zero: their likelihood has no maximum."""
    if not rows.scale.random_names:
        return
    found, name, group = exact_fits(rows), rows.equations[0].name, ":".join(rows.group)
    if len(found.unbounded):
        raise NotIdentifiedError(
            f"the location effects fit the response {name} without any residual in {len(found.unbounded)} of "
            f"{len(sizes)} clusters ({group}: {shorten(rows.clusters[found.unbounded])}), as where it is constant. "
            "Their residual sd is 0, and the likelihood rises without end with the variance of the scale random "
            "effects. Remove these clusters and report them apart, remove the scale random effects, or use a response "
            "measured more finely"
        )
    if 2 * len(found.bounded) > (sizes > 1).sum():
        raise NotIdentifiedError(
            f"the response {name} is constant within {len(found.bounded)} of {len(sizes)} clusters ({group}), or the "
            "location effects fit it there: their residual sd is 0 and its logarithm has no lower end; remove the "
            "scale random effects, or use a response measured more finely"
        )


def exact_fits(rows: Rows) -> ExactFits:
    """Clusters of at least two rows that are constant, or that their location effects fit exactly."""
    order = np.argsort(rows.codes, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(rows.codes))[:-1])
    kinds = np.array([_kind(rows.y[at], rows.location.random[at], rows.location.fixed[at]) for at in parts])
    return ExactFits(np.flatnonzero(kinds == "unbounded"), np.flatnonzero(kinds == "bounded"))


def _kind(y: Array, Z: Array, X: Array) -> str:
    """Whether the location effects of one cluster, with columns Z, fit it exactly, and with which fixed effects."""
    n = len(y)
    constant = n > 1 and np.ptp(y) <= EXACT * np.abs(y).max()
    columns = np.column_stack([y, X])
    if Z.shape[1]:
        solution, _, rank, _ = np.linalg.lstsq(Z, columns, rcond=None)
        if rank >= n:
            return ""
        columns = np.abs(columns - Z @ solution)
    size = np.abs(np.column_stack([y, X])).max(axis=0)
    zero = np.abs(columns).max(axis=0) <= EXACT * n * size
    if n > 1 and zero.all():
        return "unbounded"
    return "bounded" if constant or (n > 1 and zero[0]) else ""
