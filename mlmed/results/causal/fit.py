"""Both equations of ``causal`` on the same rows: designs, fits, covariances, and what effects are averages of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.design import PlainDesign, complete_rows, encode_each, plain_design, read_columns, two_levels
from mlmed.data.frames import normalize
from mlmed.data.ids import cluster_codes
from mlmed.data.layout import Dropped, EquationLayout
from mlmed.data.levels import levels_of
from mlmed.errors import DataError
from mlmed.fit.lmm import LmmFit, fit_model
from mlmed.fit.vcov import alone_in, covariance, lost_along, named, plain_covariance, too_few
from mlmed.formula import Equation
from mlmed.glm.family import BINARY
from mlmed.glm.fit import GlmFit, fit_glm
from mlmed.glm.robust import moves_of_one
from mlmed.lmm.ranef import ModeLaw
from mlmed.lmm.vcov import Directions, Vcov, leading
from mlmed.notes import Note
from mlmed.system.model import ModelSpec
from mlmed.text import Compact

__all__ = [
    "EquationFit",
    "Errors",
    "Grouping",
    "SharedRows",
    "alone_of",
    "fit_equation",
    "level_notes",
    "shared_rows",
]

Array = NDArray[np.float64]
WITHOUT = "use vcov='block' without cluster="


@dataclass(frozen=True, slots=True, repr=False)
class Grouping(Compact):
    """Clusters of the rows.

    Attributes
    ----------
    name : str
        The cluster variable.
    codes : (n,) int array
        Cluster of each row.
    clusters : Index
        Ids.
    """

    name: str
    codes: NDArray[np.intp]
    clusters: pd.Index


@dataclass(frozen=True, slots=True, repr=False)
class SharedRows(Compact):
    """The rows that both equations use.

    Attributes
    ----------
    table : DataFrame
        Their columns.
    dropped : Dropped or None
        What was left out.
    grouping : Grouping or None
        Clusters, where a column names them.
    """

    table: pd.DataFrame
    dropped: Dropped | None
    grouping: Grouping | None


@dataclass(frozen=True, slots=True)
class Errors:
    """Which standard errors were asked for.

    Attributes
    ----------
    vcov : str
        Name of the covariance of the coefficients.
    cluster : str or None
        Column within whose values it lets rows depend on each other.
    """

    vcov: str
    cluster: str | None = None


@dataclass(frozen=True, repr=False)
class EquationFit(Compact):
    """One fitted equation.

    Attributes
    ----------
    family : str
        Of its response.
    fit : GlmFit or LmmFit
        An ordinary regression, or a mixed model of our engine.
    covariance : Vcov
        Covariance of the fixed effects, as it was asked for.
    design : PlainDesign
        Response and fixed-effects columns of the rows.
    coding : pair or None
        The levels that count as 0 and 1, if the response is a factor.
    """

    family: str
    fit: GlmFit | LmmFit
    covariance: Vcov
    design: PlainDesign
    coding: tuple[Any, Any] | None = None

    @property
    def equation(self) -> Equation:
        """What was asked."""
        return self.design.equation

    @property
    def name(self) -> str:
        """The response."""
        return self.design.equation.name

    @property
    def names(self) -> tuple[str, ...]:
        """Fixed effects."""
        return self.design.names

    @property
    def is_mixed(self) -> bool:
        """Whether it has random effects."""
        return isinstance(self.fit, LmmFit)

    @property
    def notes(self) -> tuple[Note, ...]:
        """What to know of the fit."""
        return self.fit.notes if isinstance(self.fit, LmmFit) else ()

    @property
    def beta(self) -> Array:
        """Fixed effects, (p,)."""
        return self.fit.estimates.beta if isinstance(self.fit, LmmFit) else self.fit.beta

    @property
    def vcov(self) -> Array:
        """Covariance of the fixed effects, (p, p); NaN where it does not exist."""
        return self.covariance.matrix

    @property
    def sigma(self) -> float:
        """Residual standard deviation; NaN for families other than linear."""
        sigma2 = self.fit.estimates.sigma2[0] if isinstance(self.fit, LmmFit) else self.fit.sigma2
        return float(np.sqrt(sigma2))

    @property
    def llf(self) -> float:
        """Maximized log-likelihood (restricted for REML)."""
        return self.fit.estimates.loglik if isinstance(self.fit, LmmFit) else self.fit.loglik

    @property
    def layout(self) -> EquationLayout:
        """Encodings of the fixed part and, in a mixed model, of the random terms."""
        return self.fit.layout.equations[0] if isinstance(self.fit, LmmFit) else self.design.layout

    @cached_property
    def law(self) -> ModeLaw | None:
        """Random effects of every cluster given the data; None in an ordinary regression."""
        if not isinstance(self.fit, LmmFit):
            return None
        return self.fit.law()

    def columns(self, cases: Sequence[Mapping[str, Any]], *, random: bool = False) -> Array:
        """Columns of the fixed or of the random part with variables set to values, (cases, n, p or q)."""
        layout = self.layout
        return encode_each(layout.encodings[1:] if random else layout.encodings[:1], layout, self.design.table, cases)


def shared_rows(equations: Sequence[Equation], data: Any, cluster: str | None) -> SharedRows:
    """Rows that are complete for both equations.

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


def fit_equation(equation: Equation, family: str, rows: SharedRows, errors: Errors, *, method: str) -> EquationFit:
    """Fit one equation and take the covariance that was asked for."""
    design = plain_design(equation, rows.table, binary=family in BINARY)
    if not equation.random:
        fit = fit_glm(family, design.y, design.X, names=design.names, response=equation.name)
        return EquationFit(family, fit, _plain_vcov(fit, rows, errors), design, _coding(equation, rows.table))
    fitted = fit_model(ModelSpec((equation,), method), rows.table)  # type: ignore[arg-type]
    return EquationFit(family, fitted, _mixed_vcov(fitted, errors), design)


def _coding(equation: Equation, table: pd.DataFrame) -> tuple[Any, Any] | None:
    name = equation.name
    is_factor = name in table.columns and isinstance(table[name].dtype, pd.CategoricalDtype)
    return two_levels(table[name]) if is_factor else None


def _mixed_vcov(fitted: LmmFit, errors: Errors) -> Vcov:
    p = len(fitted.estimates.beta)
    V = leading(covariance(fitted, errors.vcov), p)
    if not errors.cluster:
        return V
    text = lost_along(WITHOUT, "clusters")
    note = too_few("a robust covariance", len(fitted.clusters), p, "coefficients")
    return V.saying(lost=tuple(replace(one, text=text) for one in V.lost), note=note)


def _plain_vcov(fit: GlmFit, rows: SharedRows, errors: Errors) -> Vcov:
    grouping = rows.grouping if errors.cluster else None
    remedy, codes, note = "use vcov='iid'", None, ""
    if grouping is not None:
        remedy, codes = f"give the equation random terms and {WITHOUT}", grouping.codes
        note = too_few("a robust covariance", len(grouping.clusters), len(fit.beta), "coefficients")
    text = lost_along(remedy, "rows" if grouping is None else "clusters")
    return plain_covariance(fit, errors.vcov, lambda: alone_of(fit, grouping, text), codes=codes, note=note)


def alone_of(fit: GlmFit | LmmFit, grouping: Grouping | None, text: str) -> Directions:
    """Directions of the fixed effects that a single cluster, or without clusters a row, alone notices."""
    if isinstance(fit, LmmFit):
        return alone_in(fit, text)
    found = moves_of_one(fit, None if grouping is None else grouping.codes)
    if grouping is None:
        return named(found, text, [f"row {k + 1} of those used" for k in found.owners])
    return named(found, text, [f"cluster {grouping.clusters[k]} ({grouping.name})" for k in found.owners])


def level_notes(mediator: EquationFit, rows: SharedRows, errors: Errors) -> tuple[Note, ...]:
    """A mediator of the clusters, fitted as if every row had its own."""
    if mediator.is_mixed or rows.grouping is None or errors.cluster:
        return ()
    name = mediator.name
    if levels_of(rows.table, rows.grouping.codes, [name])[name] != 2:
        return ()
    text = (
        f"the mediator {name} does not vary within {rows.grouping.name}, but its equation counts every row: its "
        f"standard errors are too small. Give cluster={rows.grouping.name!r}, or use mlmed.piecewise, which fits "
        "one row per cluster"
    )
    return (Note("mediator-between", text),)
