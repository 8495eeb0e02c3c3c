"""Two formulas + table -> the columns of a location-scale model, and checks before it is fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.design import check_response, complete_rows, read_columns, rows_left_out
from mlmed.data.encoding import learn_equation, response_values, side_by_side, to_encodable
from mlmed.data.evaluation import Memory
from mlmed.data.frames import column_names, shorten
from mlmed.data.ids import cluster_codes
from mlmed.data.layout import INTERCEPT, Dropped, EquationLayout, refuse_alike
from mlmed.errors import DataError, FormulaError, NotIdentifiedError
from mlmed.formula import Equation, parse_equation
from mlmed.lmm.checks import COLLINEAR, refuse_one_cluster
from mlmed.text import Compact

Array = NDArray[np.float64]

#: Prefix of the names of scale effects.
SCALE = "sigma"
#: Most scale random effects supported by quadrature.
MOST_DIMENSIONS = 2
#: A residual below this share of the cluster's largest value is the rounding error of zero.
EXACT = 1e-13


@dataclass(frozen=True, slots=True, repr=False)
class Part(Compact):
    """Columns of the location or of the scale.

    Attributes
    ----------
    fixed_names, random_names : tuple of str
        Column labels.
    fixed, random : (N, p), (N, q) arrays
        The columns.
    layout : EquationLayout
        Encodings, typical values and levels, for new rows.
    """

    fixed_names: tuple[str, ...]
    random_names: tuple[str, ...]
    fixed: Array
    random: Array
    layout: EquationLayout

    @property
    def terms(self) -> tuple[int, ...]:
        """The random term of each random column."""
        return self.layout.terms


@dataclass(frozen=True, slots=True, repr=False)
class Rows(Compact):
    """Complete rows of a location-scale model.

    Attributes
    ----------
    equations : (Equation, Equation)
        Location and scale as typed; the scale carries the location's response.
    y : (N,) array
        Response.
    location, scale : Part
        Columns.
    codes : (N,) int array
        Cluster of each row.
    clusters : Index
        Cluster ids.
    group : tuple of str
        Columns that name the cluster.
    dropped : Dropped or None
        Rows left out.
    table : DataFrame
        The complete rows themselves.
    index : Index
        Labels of all rows of the data.
    kept : bool array
        Complete rows.
    """

    equations: tuple[Equation, Equation]
    y: Array
    location: Part
    scale: Part
    codes: NDArray[np.intp]
    clusters: pd.Index
    group: tuple[str, ...]
    dropped: Dropped | None
    table: pd.DataFrame
    index: pd.Index
    kept: NDArray[np.bool_]

    @property
    def constant_scale_slopes(self) -> tuple[str, ...]:
        """Random scale effects, other than the intercept, whose column is constant within all clusters."""
        sizes = np.bincount(self.codes)
        found = []
        for name, column in zip(self.scale.random_names, self.scale.random.T, strict=True):
            centred = column - column.mean()
            within = centred - (np.bincount(self.codes, weights=centred) / sizes)[self.codes]
            if name != INTERCEPT and within @ within <= COLLINEAR * (centred @ centred):
                found.append(name)
        return tuple(found)

    @property
    def blocks(self) -> tuple[list[str], frozenset[str]]:
        """Block of every random effect, scale before location, and the blocks without covariances.

        Terms with the same label share a block; a term without one stands alone.
        """
        names: list[str] = []
        diagonal: set[str] = set()
        location, scale = self.equations
        for kind, equation, part in (("scale", scale, self.scale), ("location", location, self.location)):
            for number in part.terms:
                term = equation.random[number]
                names.append(f"label {term.label}" if term.label else f"{kind} {number}")
                if not term.correlated:
                    diagonal.add(names[-1])
        return names, frozenset(diagonal)


class ScaleText(str):
    """The scale's formula with the response of the location added; messages show it as typed."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"the scale formula {'~ ' + self.partition('~')[2].strip()!r}"


def read_equations(location: str, scale: str, data: Any) -> tuple[Equation, Equation]:
    """Parse both formulas.

    Raises
    ------
    FormulaError
        The scale has a response, there is no random term, or the cluster variables differ.
    """
    columns = column_names(data)
    first = parse_equation(location, columns)
    if not isinstance(scale, str):
        raise FormulaError(f"scale must be text such as '~ 1 + (1 | id)'; found {type(scale).__name__}")
    left, tilde, right = scale.partition("~")
    if not tilde or left.strip():
        found = f"has the response {left.strip()!r}" if tilde else "has no '~'"
        raise FormulaError(
            f"the scale formula {scale!r} {found}: it describes the log residual sd of the location's response, so "
            f"write only the right-hand side, '~ {(right if tilde else scale).strip()}'"
        )
    second = parse_equation(ScaleText(f"{location.partition('~')[0].strip()} ~ {right}"), columns)
    groups = {term.group for term in (*first.random, *second.random)}
    if not groups:
        raise FormulaError(
            f"neither {location!r} nor {scale!r} has a random term, so rows are not nested in anything; add one such "
            "as (1 | id)"
        )
    if len({frozenset(group) for group in groups}) > 1:
        found = " and ".join(sorted(":".join(group) for group in groups))
        raise FormulaError(f"different cluster variables: {found}; all random terms must have the same one, use one")
    return first, second


def read_rows(equations: tuple[Equation, Equation], data: Any) -> Rows:
    """Encode both formulas on the rows complete for both.

    Raises
    ------
    DataError, FormulaError, NotIdentifiedError
        Invalid data or formulas, or a model that is not identified.
    """
    location, scale = equations
    group = next(term.group for equation in equations for term in equation.random)
    table = read_columns(equations, data, keep=group)
    check_response(location, table)
    names = (location.variables | scale.variables) - frozenset(group)
    known = cluster_codes(table, group)[0] >= 0
    rows = complete_rows(table, names) & known
    dropped = None
    if not rows.all():
        missing = {name: table[name].isna().to_numpy() for name in sorted(names)}
        dropped = rows_left_out(location.name, missing, rows, known)
    if not rows.any():
        raise DataError(f"no row is complete ({dropped}); remove a column that is mostly missing")
    table = table.loc[rows].reset_index(drop=True)
    codes, clusters = cluster_codes(table, group)
    refuse_one_cluster(location.name, len(clusters), ":".join(group))
    memory = Memory.of(to_encodable(table, sorted(names)))
    first, second = _part(location, memory), _part(scale, memory)
    y = response_values(location, memory)
    index = data.index if isinstance(data, pd.DataFrame) else pd.RangeIndex(len(rows))
    return Rows(equations, y, first, second, codes, clusters, group, dropped, table, index, rows)


def _part(equation: Equation, memory: Memory) -> Part:
    (fixed, *random), layout = learn_equation(equation, memory)
    columns = [column for term in random for column in term]
    return Part(layout.fixed, layout.random, side_by_side(fixed, memory), side_by_side(columns, memory), layout)


@dataclass(frozen=True, slots=True)
class ExactFits:
    """Clusters that their location effects fit exactly, so that their residual sd may be 0.

    Attributes
    ----------
    unbounded : (a,) int array
        Clusters fitted exactly whatever the fixed effects.
    bounded : (b,) int array
        Clusters fitted exactly only if fixed effects of predictors that vary within them are 0.
    """

    unbounded: NDArray[np.intp]
    bounded: NDArray[np.intp]


def refuse_unidentified(rows: Rows) -> None:
    """Refuse models without a finite maximum or too costly, and terms with equal labels.

    Raises
    ------
    FormulaError
        More scale random effects than quadrature supports.
    NotIdentifiedError
        A variance without information in the data, or a likelihood without a maximum.
    DataError
        Terms with equal labels.
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
    """Refuse clusters with a residual sd of zero: their likelihood has no maximum."""
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
    """Find clusters of at least two rows with a constant response or an exact fit by their location effects."""
    order = np.argsort(rows.codes, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(rows.codes))[:-1])
    kinds = np.array([_kind(rows.y[at], rows.location.random[at], rows.location.fixed[at]) for at in parts])
    return ExactFits(np.flatnonzero(kinds == "unbounded"), np.flatnonzero(kinds == "bounded"))


def _kind(y: Array, Z: Array, X: Array) -> str:
    """``unbounded``, ``bounded`` (see ``ExactFits``) or empty, for one cluster with random columns Z."""
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
