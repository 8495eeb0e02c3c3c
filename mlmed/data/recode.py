"""Predictors that are computed from a simulated response, encoded again by the specs of the fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.chain import Derived, derived_columns
from mlmed.data.design import encode, to_encodable
from mlmed.data.frames import cluster_codes, replaced, select_columns
from mlmed.data.grams import Grams
from mlmed.data.layout import Layout
from mlmed.data.rows import Rows
from mlmed.data.terms import Encoding
from mlmed.errors import DataError
from mlmed.names import safe_name
from mlmed.system.model import ModelSpec

__all__ = ["Recode", "recodes"]

Array = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Source:
    """A variable that is simulated.

    Attributes
    ----------
    column : str
        Its (safe) name in the table of an equation.
    at : int
        The Gram column that holds it: the response of an earlier equation.
    rows : (n,) bool array
        Rows of the table on which it is simulated; on the others it stays as observed.
    """

    column: str
    at: int
    rows: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Recode:
    """How one equation gets its derived columns back.

    Attributes
    ----------
    name : str
        The equation.
    table : DataFrame
        Its predictors on its n rows, in the order of ``Rows``.
    rows : (n,) int array
        Positions of these rows among all.
    sources : tuple of Source
        Variables that are simulated.
    columns : tuple of Derived
        Columns to rebuild.
    encodings : dict of int to Encoding
        The specs that they belong to.
    shift, scale : (K,) arrays
        Units of the Gram columns.
    """

    name: str
    table: pd.DataFrame
    rows: Indices
    sources: tuple[Source, ...]
    columns: tuple[Derived, ...]
    encodings: dict[int, Encoding]
    shift: Array
    scale: Array

    def apply(self, values: list[Array]) -> None:
        """Replace the derived columns in ``values``, K arrays of length N, by new arrays.

        Raises
        ------
        FormulaError
            If a transformation is not defined at a simulated value (the logarithm of a negative number).
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


def recodes(spec: ModelSpec, grams: Grams, rows: Rows, data: Any) -> tuple[Recode | None, ...]:
    """What each equation has to encode again; None where nothing is derived.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    grams : Grams
        Its cross-products.
    rows : Rows
        Its rows.
    data : dataframe or None
        The table that the design was built from; needed if a column is derived.

    Raises
    ------
    DataError
        If a derived column cannot be rebuilt: no table, a factor made of a response, a transformed response.
    """
    derived = derived_columns(grams.layout)
    if not any(derived):
        return (None,) * len(derived)
    _refuse_unknown(grams.layout, derived, data)
    table = select_columns(data, frozenset().union(*(e.variables for e in spec.equations)), keep=spec.group)
    kept = _used_rows(spec, table)
    if len(kept) != len(rows.order):
        raise DataError(
            f"the table has {len(kept)} usable rows, the design {len(rows.order)}: they are not of the same data; pass "
            "the table that the design was built from"
        )
    return tuple(_recode(spec, grams, rows, table.iloc[kept[rows.order]], own) if own else None for own in derived)


def _used_rows(spec: ModelSpec, data: Any) -> Indices:
    """Positions in a table of the rows that some equation uses: those of its design, in the same order."""
    names = [sorted(equation.variables - equation.group_columns) for equation in spec.equations]
    table = select_columns(data, {*spec.group}.union(*names), keep=spec.group)
    known = cluster_codes(table, spec.group)[0] >= 0
    complete = [~table[own].isna().to_numpy().any(axis=1) for own in names]
    return np.flatnonzero(np.logical_or.reduce(complete) & known)


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


def _recode(spec: ModelSpec, grams: Grams, rows: Rows, table: pd.DataFrame, own: tuple[Derived, ...]) -> Recode:
    """One equation; ``table`` has all rows in the order of ``Rows``."""
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
