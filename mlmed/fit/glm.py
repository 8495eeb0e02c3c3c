"""An ordinary regression as a fit, of independent rows or of rows in clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.design import PlainDesign
from mlmed.data.layout import EquationLayout
from mlmed.errors import EffectError
from mlmed.fit.names import coefficient_labels
from mlmed.fit.protocol import Parameter
from mlmed.fit.vcov import lost_along, named, plain_covariance, too_few
from mlmed.formula import Equation
from mlmed.glm.fit import GlmFit, moves_of_one
from mlmed.lmm.vcov import Directions, Vcov
from mlmed.notes import Note
from mlmed.options import ALL_KINDS, ROBUST_KINDS, ROW_KINDS, VCOV_KINDS, check_vcov
from mlmed.text import Compact

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
#: Covariances for rows in clusters.
_IN_CLUSTERS = tuple(kind for kind in ROBUST_KINDS if kind != "CR2")
NO_CR2 = (
    "vcov='CR2' is for linear mixed models, not for an ordinary regression on rows that depend on each other within "
    "clusters (equation {}); use CR1"
)


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
        Ids of the rows: clusters by their ids, or row numbers.
    unit_name : str
        The cluster variable if each row is a cluster; otherwise empty.
    grouping : Grouping or None
        Clusters of dependent rows.
    coding : pair or None
        The levels coded 0 and 1, if the response is a factor.
    notes : tuple of Note
        Notes on the fit.
    usual : str
        The default covariance.
    """

    kind: ClassVar[str] = "an ordinary regression"
    method: ClassVar[str] = "ml"
    label: ClassVar[str] = "regression"
    converged: ClassVar[bool] = True
    is_singular: ClassVar[bool] = False

    design: PlainDesign
    regression: GlmFit
    units: pd.Index
    unit_name: str = ""
    grouping: Grouping | None = None
    coding: tuple[Any, Any] | None = None
    notes: tuple[Note, ...] = ()
    usual: str = "block"

    def __repr__(self) -> str:
        counted = f"{self.nobs} clusters ({self.unit_name})" if self.unit_name else f"{self.nobs} rows"
        return f"{self.equation.text}; {counted}"

    @property
    def equation(self) -> Equation:
        """The formula."""
        return self.design.equation

    @property
    def layout(self) -> EquationLayout:
        """Columns and encodings."""
        return self.design.layout

    @property
    def family(self) -> str:
        """Family of the response."""
        return self.regression.family

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
        """Number of rows."""
        return self.regression.nobs

    @property
    def n_parameters(self) -> int:
        """Number of coefficients, plus the residual variance of least squares."""
        return len(self.psi) + (self.family == "linear")

    @property
    def clusters(self) -> pd.Index:
        """Ids of the independent units: clusters, or rows."""
        return self.units if self.grouping is None else self.grouping.clusters

    @property
    def group_name(self) -> str:
        """The cluster variable; empty if rows are independent."""
        return self.unit_name if self.grouping is None else self.grouping.name

    @property
    def sigma2(self) -> float:
        """Residual variance, with the divisor n - p; NaN for other families."""
        return self.regression.sigma2

    @property
    def Sigma(self) -> pd.DataFrame:
        """Residual variance as a matrix."""
        return pd.DataFrame([[self.sigma2]], index=[self.equation.name], columns=[self.equation.name])

    @property
    def df(self) -> float:
        """Degrees of freedom of tests: n - p of least squares, infinite for other families."""
        return float(self.nobs - len(self.psi)) if self.family == "linear" else np.inf

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of its covariances.

        ``block``, ``joint`` and ``iid`` are the model's own. If every row is a cluster, CR0 to CR2 are White's HC0,
        HC0 J/(J - 1) and HC2.
        """
        if self.unit_name:
            return ALL_KINDS
        return (*ROW_KINDS, *VCOV_KINDS) if self.grouping is None else (*VCOV_KINDS, *_IN_CLUSTERS)

    def vcov(self, kind: str = "block") -> Vcov:
        """Covariance of the coefficients (docs/math.md, eq. 64).

        Raises
        ------
        EffectError
            Unknown kind, or one that is for other rows.
        """
        if self.grouping is not None and isinstance(kind, str) and kind == "CR2":
            raise EffectError(NO_CR2.format(self.equation.name))
        check_vcov(kind, self.kinds)
        own, codes, remedy, note = self.grouping, None, f"use vcov={'block' if self.unit_name else 'iid'!r}", ""
        if own is not None and kind in ROBUST_KINDS:
            codes, remedy = own.codes, "give the equation random terms and use vcov='block' without cluster="
            note = too_few("a robust covariance", len(own.clusters), len(self.psi), "coefficients")
        text = lost_along(remedy, "clusters" if self.group_name else "rows")
        return plain_covariance(self.regression, kind, lambda: self.alone_in(text), codes=codes, note=note)

    def alone_in(self, text: str) -> Directions:
        """Directions of the coefficients that a single unit alone identifies, with the note ``text``."""
        found = moves_of_one(self.regression, None if self.grouping is None else self.grouping.codes)
        if self.group_name:
            return named(found, text, [f"cluster {self.clusters[k]} ({self.group_name})" for k in found.owners])
        return named(found, text, [f"row {k + 1} of those used" for k in found.owners])
