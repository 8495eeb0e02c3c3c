"""An ordinary regression as a fit: rows that are independent, or that depend on each other within clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.design import PlainDesign
from mlmed.data.layout import EquationLayout
from mlmed.fit.labels import coefficient_labels
from mlmed.fit.protocol import Parameter
from mlmed.fit.vcov import lost_along, named, plain_covariance
from mlmed.formula import Equation
from mlmed.glm.fit import GlmFit
from mlmed.glm.robust import moves_of_one
from mlmed.lmm.vcov import Directions, Vcov
from mlmed.notes import Note
from mlmed.options import ALL_KINDS, one_of
from mlmed.text import Compact

__all__ = ["Grouping", "PlainFit"]

Array = NDArray[np.float64]
Indices = NDArray[np.intp]


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
    codes: Indices
    clusters: pd.Index


@dataclass(frozen=True, repr=False)
class PlainFit(Compact):
    """Least squares or a generalized linear model, on rows or on one row per cluster.

    Attributes
    ----------
    design : PlainDesign
        The equation, its columns and its encoding.
    regression : GlmFit
        Estimates, residuals and leverages.
    units : Index of length n
        What the rows are: clusters by their ids, or rows by their number.
    unit_name : str
        The cluster variable where each row is a cluster; otherwise empty.
    grouping : Grouping or None
        Clusters within which rows may depend on each other.
    coding : pair or None
        The levels that count as 0 and 1, if the response is a factor.
    own_notes : tuple of Note
        What to know of the fit.
    """

    kind: ClassVar[str] = "an ordinary regression"
    method: ClassVar[str] = "ml"
    usual: ClassVar[str] = "block"
    converged: ClassVar[bool] = True
    is_singular: ClassVar[bool] = False

    design: PlainDesign
    regression: GlmFit
    units: pd.Index
    unit_name: str = ""
    grouping: Grouping | None = None
    coding: tuple[Any, Any] | None = None
    own_notes: tuple[Note, ...] = ()

    def __repr__(self) -> str:
        counted = f"{self.nobs} clusters ({self.unit_name})" if self.unit_name else f"{self.nobs} rows"
        return f"{self.equation.text}; {counted}"

    @property
    def equation(self) -> Equation:
        """What was asked."""
        return self.design.equation

    @property
    def layout(self) -> EquationLayout:
        """Columns and encodings."""
        return self.design.layout

    @property
    def family(self) -> str:
        """Of the response."""
        return self.regression.family

    @property
    def notes(self) -> tuple[Note, ...]:
        """What to know of the fit."""
        return self.own_notes

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The coefficients."""
        return tuple(Parameter(name, "", self.equation.name) for name in coefficient_labels(self.design.names))

    @property
    def psi(self) -> Array:
        """Coefficients, (p,)."""
        return self.regression.beta

    @property
    def llf(self) -> float:
        """Maximized log-likelihood."""
        return self.regression.loglik

    @property
    def nobs(self) -> int:
        """Rows."""
        return self.regression.nobs

    @property
    def clusters(self) -> pd.Index:
        """Ids of what is independent: clusters of rows, or the rows."""
        return self.units if self.grouping is None else self.grouping.clusters

    @property
    def group_name(self) -> str:
        """The cluster variable; empty where rows are independent."""
        return self.unit_name if self.grouping is None else self.grouping.name

    @property
    def sigma2(self) -> float:
        """Residual variance, with the divisor n - p; NaN for other families."""
        return self.regression.sigma2

    @property
    def df(self) -> float:
        """Degrees of freedom of tests: n - p of least squares, infinite for other families."""
        return float(self.nobs - len(self.psi)) if self.family == "linear" else np.inf

    def vcov(self, kind: str = "block") -> Vcov:
        """Covariance of the coefficients (docs/math.md, eq. 64).

        Raises
        ------
        EffectError
            Unknown kind.
        """
        text = lost_along("use vcov='block'", "clusters")
        return plain_covariance(self.regression, one_of(kind, ALL_KINDS, "vcov"), lambda: self.alone_in(text))

    def alone_in(self, text: str) -> Directions:
        """Directions of the coefficients that a single unit alone notices, and what is said of them."""
        found = moves_of_one(self.regression, None if self.grouping is None else self.grouping.codes)
        if self.group_name:
            return named(found, text, [f"cluster {self.clusters[k]} ({self.group_name})" for k in found.owners])
        return named(found, text, [f"row {k + 1} of those used" for k in found.owners])
