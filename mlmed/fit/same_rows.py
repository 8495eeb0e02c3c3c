"""Equations on the rows that are complete for all of them, each fitted by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import pandas as pd

from mlmed.data.design import complete_rows, plain_design, read_columns, two_levels
from mlmed.data.frames import normalize
from mlmed.data.ids import cluster_codes
from mlmed.data.layout import Dropped
from mlmed.data.levels import levels_of
from mlmed.errors import DataError
from mlmed.fit.glm import Grouping, PlainFit
from mlmed.fit.lmm import LmmFit, fit_model
from mlmed.fit.system import Component, SystemFit, equation_of
from mlmed.formula import Equation
from mlmed.glm.family import BINARY
from mlmed.glm.fit import fit_glm
from mlmed.notes import Note
from mlmed.system.system import System
from mlmed.text import Compact


@dataclass(frozen=True, slots=True, repr=False)
class SharedRows(Compact):
    """The rows that several equations use.

    Attributes
    ----------
    table : DataFrame
        Their columns.
    dropped : Dropped or None
        Rows left out.
    grouping : Grouping or None
        Clusters, if a column names them.
    """

    table: pd.DataFrame
    dropped: Dropped | None
    grouping: Grouping | None


@dataclass(frozen=True, repr=False)
class SameRowsFit(SystemFit):
    """Mediator and outcome, fitted separately on the same rows.

    Attributes
    ----------
    rows : SharedRows
        The rows.
    """

    kind: ClassVar[str] = "a pair of equations that are fitted apart on the same rows"

    rows: SharedRows | None = None

    @classmethod
    def of(cls, mediator: Component, outcome: Component, rows: SharedRows, usual: str) -> SameRowsFit:
        """Combine two fits."""
        names, own = (equation_of(mediator).name, equation_of(outcome).name), rows.grouping
        clusters = pd.RangeIndex(len(rows.table)) if own is None else own.clusters
        parts = {"mediator": mediator, "outcome": outcome}
        group = () if own is None else (own.name,)
        return cls(parts, names, names, clusters, group, usual=usual, rows=rows)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the rows, too: effects are averages over them."""
        return type(self), tuple(getattr(self, one.name) for one in fields(self))

    def __repr__(self) -> str:
        asked = "; ".join(equation_of(fit).text for fit in self.components.values())
        families = " and ".join(family_of(fit) for fit in self.components.values())
        mixed = ", mixed" if any(isinstance(fit, LmmFit) for fit in self.components.values()) else ""
        return f"{asked}; {families}{mixed}; {self.nobs} rows"

    @property
    def nobs(self) -> int:
        """Rows, the same in both equations."""
        assert self.rows is not None
        return len(self.rows.table)

    @property
    def notes(self) -> tuple[Note, ...]:
        """Rows left out, then the notes of the fits."""
        assert self.rows is not None
        dropped = self.rows.dropped
        own = () if dropped is None else (Note("rows-left-out", str(dropped)),)
        return *own, *(note for fit in self.components.values() for note in fit.notes)


def family_of(fit: Component) -> str:
    """Family of a component's response."""
    return fit.family if isinstance(fit, PlainFit) else "linear"


def shared_rows(equations: Sequence[Equation], data: Any, cluster: str | None) -> SharedRows:
    """Read the rows that are complete for all equations.

    Raises
    ------
    DataError
        Unknown columns, or no complete row.
    """
    group = next((equation.random[0].group for equation in equations if equation.random), ())
    keep = group or ((cluster,) if cluster else ())
    is_predictor = not group and any(cluster in equation.variables for equation in equations)
    table = read_columns(equations, data, keep=keep)
    names = sorted(map(str, table.columns))
    rows = complete_rows(table, names)
    dropped = None
    if not rows.all():
        counts = {name: int(table[name].isna().sum()) for name in names}
        missing = {name: count for name, count in counts.items() if count}
        both = " and ".join(equation.name for equation in equations)
        dropped = Dropped(f"{both} (the same rows for both)", len(table), int(rows.sum()), 0, missing)
        if not rows.any():
            raise DataError(
                f"no row is complete in both equations (missing values by column: "
                f"{', '.join(f'{name}: {count}' for name, count in missing.items())}); remove a column that is mostly "
                "missing"
            )
        table = table.loc[rows].reset_index(drop=True)
    if not keep:
        return SharedRows(table, dropped, None)
    codes, clusters = cluster_codes(table, tuple(keep))
    if is_predictor:
        table = table.assign(**{name: normalize(table[name]) for name in keep})
    if len(clusters) < 2:
        raise DataError(f"{':'.join(keep)} has one value only, so there are no clusters; choose another column")
    return SharedRows(table, dropped, Grouping(":".join(keep), codes, clusters))


def fit_on(rows: SharedRows, equation: Equation, family: str, *, method: str, usual: str) -> LmmFit | PlainFit:
    """Fit one equation: a mixed model if it has random terms, otherwise a regression of its family."""
    design = plain_design(equation, rows.table, binary=family in BINARY)
    if equation.random:
        return replace(fit_model(System((equation,), method), rows.table), usual=usual)  # type: ignore[arg-type]
    found = fit_glm(family, design.y, design.X, names=design.names, response=equation.name)
    name = equation.name
    is_factor = name in rows.table.columns and isinstance(rows.table[name].dtype, pd.CategoricalDtype)
    return PlainFit(
        design,
        found,
        units=pd.RangeIndex(len(design.y)),
        grouping=rows.grouping,
        coding=two_levels(rows.table[name]) if is_factor else None,
        usual=usual,
    )


def level_notes(mediator: LmmFit | PlainFit, rows: SharedRows, *, in_clusters: bool) -> tuple[Note, ...]:
    """Note on a cluster-level mediator that is fitted on rows.

    ``in_clusters``: whether standard errors are cluster-robust.
    """
    if isinstance(mediator, LmmFit) or rows.grouping is None or in_clusters:
        return ()
    name = mediator.equation.name
    if levels_of(rows.table, rows.grouping.codes, [name])[name] != 2:
        return ()
    text = (
        f"the mediator {name} does not vary within {rows.grouping.name}, but its equation counts every row: its "
        f"standard errors are too small. Give cluster={rows.grouping.name!r}, or use mlmed.piecewise, which fits "
        "one row per cluster"
    )
    return (Note("mediator-between", text),)
