"""Rows in the units of Grams, and columns computed from simulated responses: what resampling needs beyond sums.

Equations are simulated in the order of the system. A predictor that *is* the response of an earlier equation (the
mediator) is replaced directly; one computed from it (``m:w``, ``np.log(m)``) is encoded again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.encoding import encode, to_encodable
from mlmed.data.frames import replaced, select_columns
from mlmed.data.grams import Grams, column_sums
from mlmed.data.layout import Design, EquationLayout, Layout
from mlmed.data.terms import Encoding
from mlmed.errors import DataError
from mlmed.formula import formula_variables, term_variables
from mlmed.names import safe_name
from mlmed.system.system import System

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

#: Tolerance for products per row, in standard units, between rows and Grams of the same data.
SAME_DATA = 1e-6


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of all equations, ordered by pattern and cluster."""

    #: (N,): The columns in the units of the Grams; 0 where no equation of the row uses the column.
    values: tuple[Array, ...]
    codes: Indices  #: (N,): Cluster of each row, a position in ``Grams.clusters``.
    pattern: Indices  #: (N,): Position in ``Grams.patterns``.
    order: Indices  #: (N,): Position of each row in the Design.
    at: Indices  #: (N,): Position of each row in the table.
    cells: Indices  #: (S,): ``pattern * J + cluster`` of every combination that has rows, ascending.
    starts: Indices  #: (S,): First row of each.
    shape: tuple[int, int]  #: (int, int): Patterns and clusters, (P, J).


def unit_rows(design: Design, grams: Grams) -> Rows:
    """Rows of a design with the shift and scale of Grams of the same data.

    Raises ``DataError``: the Grams are of another model or other rows, or their products would not fit into memory.
    """
    P, J, known = len(grams.patterns), len(grams.clusters), grams.products  # refused before rows take memory
    codes, pattern = _clusters(design, grams), _patterns(design, grams)
    key = pattern * J + codes
    order = np.argsort(key, kind="stable")
    key, codes, pattern = key[order], codes[order], pattern[order]
    starts = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
    used = np.array([design.layout.used[list(own)].any(axis=0) for own in grams.patterns])
    values = []
    for k, raw in enumerate(design.values):
        column = (raw[order] - grams.shift[k]) / grams.scale[k]
        values.append(column if used[:, k].all() else np.where(used[pattern, k], column, 0.0))
    rows = Rows(tuple(values), codes, pattern, order, design.at[order], key[starts], starts, (P, J))
    gap = np.abs(row_products(rows, values) - known).max(axis=1)
    if np.any(gap > SAME_DATA * np.maximum(known[:, 0], 1.0)):
        raise _other_data("the sums of products differ")
    return rows


def _other_data(why: str) -> DataError:
    return DataError(
        f"these rows are not those that the cross-products were made from ({why}); build the design from the data of "
        "the fit"
    )


def _clusters(design: Design, grams: Grams) -> Indices:
    """Cluster of every row as a position in ``grams.clusters``."""
    if design.layout.columns != grams.layout.columns:
        raise _other_data(f"columns {', '.join(design.layout.columns)} and {', '.join(grams.layout.columns)}")
    at = grams.clusters.get_indexer(design.clusters)
    if np.any(at < 0) or len(at) != len(grams.clusters):
        raise _other_data("other clusters")
    return np.asarray(at[design.codes], dtype=np.intp)


def _patterns(design: Design, grams: Grams) -> Indices:
    """Pattern of every row as a position in ``grams.patterns``."""
    weights = 1 << np.arange(len(design.members))
    known = np.array(grams.patterns) @ weights
    place = np.full(int(weights.sum()) + 1, -1, dtype=np.intp)
    place[known] = np.arange(len(known))
    pattern = place[weights @ design.members]
    if np.any(pattern < 0):
        raise _other_data("other missing values")
    return pattern


def row_products(
    rows: Rows, values: Sequence[Array], *, base: Array | None = None, changed: frozenset[int] | None = None
) -> Array:
    """Sums of products by pattern and cluster, (P, K * (K + 1) / 2, J), as in Grams.

    ``values``: K (N,) columns in the order of ``rows``; ``base``: known products, not modified;
    ``changed``: columns that differ from those of ``base``.
    """
    P, J = rows.shape
    K = len(values)
    out = np.zeros((K * (K + 1) // 2, P * J)) if base is None else base.transpose(1, 0, 2).reshape(-1, P * J).copy()
    for i in range(K):
        for j in range(i + 1):
            if changed is None or i in changed or j in changed:
                product = values[i] if j == 0 else values[i] * values[j]
                out[i * (i + 1) // 2 + j, rows.cells] = np.add.reduceat(product, rows.starts)
    return out.reshape(-1, P, J).transpose(1, 0, 2)


#: A predictor equal to the cluster means of a response within this share of its scale is taken for them.
SAME_MEANS = 1e-9


@dataclass(frozen=True, slots=True)
class Derived:
    """A column computed from responses of earlier equations."""

    equation: int  #: The equation whose predictor it is.
    encoding: int  #: Its encoding there: 0 for the fixed part, k for random term k - 1.
    column: int  #: Its position in that encoding.
    at: int  #: Its position among the Gram columns.
    variables: tuple[str, ...]  #: The response variables it reads.


def derived_columns(layout: Layout) -> tuple[tuple[Derived, ...], ...]:
    """For every equation, its columns that are computed from earlier responses (plain responses excluded).

    Raises ``DataError``: an equation uses the response of a later one.
    """
    responses = [formula_variables(equation.response) for equation in layout.asked]
    places = [equation.response_at for equation in layout.equations]
    endogenous = frozenset().union(*responses)
    found: list[tuple[Derived, ...]] = []
    for s, equation in enumerate(layout.equations):
        own: list[Derived] = []
        for encoding, column, at, variables in _predictors(equation):
            used = variables & endogenous
            sources = [places.index(at)] if at in places else [r for r, known in enumerate(responses) if known & used]
            if any(r >= s for r in sources):
                later = layout.equations[max(sources)].name
                raise DataError(
                    f"the predictor {layout.columns[at]!r} of equation {equation.name} depends on the response of the "
                    f"later equation {later}, so responses cannot be simulated one after the other; write the "
                    "equations in causal order, and make a response that is computed from predictors a column"
                )
            if sources and at not in places:
                own.append(Derived(s, encoding, column, at, tuple(sorted(used))))
        found.append(tuple(own))
    return tuple(found)


def refuse_derived(layout: Layout) -> None:
    """Refuse derived columns, which cannot be simulated from cross-products."""
    for column in (column for own in derived_columns(layout) for column in own):
        raise DataError(
            f"the predictor {layout.columns[column.at]!r} of equation {layout.equations[column.equation].name} is "
            f"computed from {', '.join(column.variables)}, the response of another equation; its cross-products cannot "
            "be simulated from those of the data, so use a resampler of rows (row_parametric_resampler, "
            "residual_resampler) or resample whole clusters (case_resampler)"
        )


def refuse_cluster_means(grams: Grams) -> None:
    """Refuse a predictor that holds the cluster means of an earlier response: it would not be simulated with it."""
    layout = grams.layout
    for s, equation in enumerate(layout.equations):
        rows = column_sums(grams, s, 0)
        for response in layout.equations[:s]:
            at = response.response_at
            r = layout.equations.index(response)
            others = column_sums(grams, r, 0)
            shared = (rows > 0) & (others > 0)
            if not shared.any():
                continue
            means = grams.shift[at] + grams.scale[at] * column_sums(grams, r, at)[shared] / others[shared]
            for k in sorted({*equation.fixed_at, *equation.random_at} - {0, at}):
                sums, n, squares = column_sums(grams, s, k)[shared], rows[shared], column_sums(grams, s, k, k)[shared]
                gap = np.abs(grams.shift[k] + grams.scale[k] * sums / n - means).max()
                within = np.abs(squares - sums**2 / n).max()
                if max(gap / grams.scale[k], within) <= SAME_MEANS:
                    raise DataError(
                        f"the predictor {layout.columns[k]!r} of equation {equation.name} holds the cluster means of "
                        f"{response.name}, which is simulated, but would stay as it is; resample whole clusters "
                        "(case_resampler)"
                    )


def _predictors(equation: EquationLayout) -> Iterator[tuple[int, int, int, frozenset[str]]]:
    """Encoding, column in it, Gram column, and variables of every predictor."""
    for number, (encoding, at) in enumerate(zip(equation.encodings, equation.places, strict=True)):
        for term, span in encoding.term_slices.items():
            for column in range(span.start, span.stop):
                yield number, column, at[column], term_variables(term)


@dataclass(frozen=True, slots=True)
class Source:
    """A variable that is simulated."""

    column: str  #: Its (safe) name in the table of an equation.
    at: int  #: The Gram column that holds it: the response of an earlier equation.
    rows: NDArray[np.bool_]  #: (n,): Rows of the table on which it is simulated; elsewhere it stays as observed.


@dataclass(frozen=True, slots=True)
class Recode:
    """How one equation recomputes its derived columns."""

    name: str  #: The equation.
    table: pd.DataFrame  #: Its predictors on its n rows, in the order of ``Rows``.
    rows: Indices  #: (n,): Positions of these rows among all.
    sources: tuple[Source, ...]  #: Variables that are simulated.
    columns: tuple[Derived, ...]  #: Columns to recompute.
    encodings: dict[int, Encoding]  #: Their encodings, by ``Derived.encoding``.
    #: (K,): Units of the Gram columns.
    shift: Array
    scale: Array

    def apply(self, values: list[Array]) -> None:
        """Replace the derived columns in ``values``, K arrays of length N, by new arrays.

        Raises ``FormulaError``: a transformation is undefined at a simulated value (logarithm of a negative number).
        """
        changed: dict[str, Any] = {}
        for source in self.sources:
            new = self.table[source.column].to_numpy(dtype=np.float64, copy=True)
            simulated = values[source.at][self.rows[source.rows]]
            new[source.rows] = self.shift[source.at] + self.scale[source.at] * simulated
            changed[source.column] = new
        table = replaced(self.table, changed)
        where = f"equation {self.name} with simulated {', '.join(source.column for source in self.sources)}"
        made = {e: encode(encoding, table, where=where)[0] for e, encoding in self.encodings.items()}
        for column in self.columns:
            new = values[column.at].copy()
            new[self.rows] = (made[column.encoding][:, column.column] - self.shift[column.at]) / self.scale[column.at]
            values[column.at] = new


def recodes(spec: System, grams: Grams, rows: Rows, data: Any) -> tuple[Recode | None, ...]:
    """The columns each equation has to encode again; None if there are none.

    ``data``: the table of the design, needed if a column is derived.

    Raises ``DataError``: a derived column cannot be recomputed: no table, a factor made of a response, a transformed
    response.
    """
    derived = derived_columns(grams.layout)
    if not any(derived):
        return (None,) * len(derived)
    _refuse_unknown(grams.layout, derived, data)
    table = select_columns(data, frozenset().union(*(e.variables for e in spec.equations)), keep=spec.group)
    if len(table) != grams.layout.total:
        raise DataError(
            f"the table has {len(table)} rows, that of the design {grams.layout.total}: they are not of the same data; "
            "pass the table that the design was built from"
        )
    return tuple(_recode(spec, grams, rows, table.iloc[rows.at], own) if own else None for own in derived)


def _refuse_unknown(layout: Layout, derived: tuple[tuple[Derived, ...], ...], data: Any) -> None:
    plain = {equation.name for equation in layout.equations}
    for column in (column for own in derived for column in own):
        name, equation = layout.columns[column.at], layout.equations[column.equation]
        shown = f"the predictor {name!r} of equation {equation.name}"
        for variable in column.variables:
            if variable not in plain:
                raise DataError(
                    f"{shown} is computed from {variable}, of which only a transformation is simulated; make the "
                    "transformed response a column, and use it in all equations"
                )
            if variable in equation.levels:
                raise DataError(
                    f"{shown} treats {variable} as a factor, but simulated values of it are numbers of any size; "
                    "use it as a number, or resample whole clusters (case_resampler)"
                )
        if data is None:
            raise DataError(
                f"{shown} is computed from {', '.join(column.variables)}, which is simulated, so it has to be encoded "
                "again; pass the table of the fit as data"
            )


def _recode(spec: System, grams: Grams, rows: Rows, table: pd.DataFrame, own: tuple[Derived, ...]) -> Recode:
    """The derived columns of one equation; ``table`` has all rows in the order of ``Rows``."""
    s, layout = own[0].equation, grams.layout
    equation, asked = layout.equations[s], spec.equations[s]
    member = np.array(grams.patterns)[rows.pattern]  # (N, R)
    mine = np.flatnonzero(member[:, s])
    predictors = to_encodable(table.iloc[mine][sorted(asked.predictors)])
    sources = []
    for variable in sorted({variable for column in own for variable in column.variables}):
        r = next(r for r, other in enumerate(layout.equations) if other.name == variable)
        sources.append(Source(safe_name(variable), layout.equations[r].response_at, member[mine, r]))
    used = sorted({column.encoding for column in own})
    encodings = {e: equation.encodings[e] for e in used}
    return Recode(equation.name, predictors, mine, tuple(sources), own, encodings, grams.shift, grams.scale)
