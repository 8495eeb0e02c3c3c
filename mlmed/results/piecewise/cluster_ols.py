"""The regression of a variable of the clusters: least squares on one row per cluster."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.design import PlainDesign, complete_rows, plain_design
from mlmed.data.levels import cluster_table
from mlmed.effects.delta import COLUMNS, delta_table
from mlmed.effects.quantity import Quantity
from mlmed.errors import DataError
from mlmed.fit.vcov import lost_along, named, plain_covariance
from mlmed.formula import Equation
from mlmed.glm.fit import GlmFit, fit_glm
from mlmed.glm.robust import moves_of_one
from mlmed.lmm.vcov import Directions, Vcov
from mlmed.notes import Note
from mlmed.options import check_vcov
from mlmed.report.text import as_html, render_pairs, render_table
from mlmed.results.coefficients import Coefficients

__all__ = ["ClusterRegression", "fit_clusters"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ClusterRegression(Coefficients):
    """Least squares on the table of clusters.

    Attributes
    ----------
    design : PlainDesign
        The equation, its columns and its encoding; one row per cluster.
    fit : GlmFit
        Estimates, residuals and leverages.
    clusters : Index
        Ids of the n clusters used.
    group_name : str
        The cluster variable.
    left_out : str
        Clusters without a value, counted; usually empty.
    """

    design: PlainDesign
    fit: GlmFit
    clusters: pd.Index
    group_name: str
    left_out: str = ""

    def __repr__(self) -> str:
        return f"<ClusterRegression: {self.formula}; {self.n_clusters} clusters ({self.group_name})>"

    @property
    def formula(self) -> str:
        """What was asked."""
        return self.design.equation.text

    @property
    def notes(self) -> tuple[Note, ...]:
        """What to know of the fit."""
        found, equation = [], self.design.equation
        if equation.random:
            text = (
                f"the random intercept of {equation.text!r} is not used: {equation.name} is the same in all rows of a "
                f"cluster ({self.group_name}), and is fitted by least squares on one row per cluster"
            )
            found.append(Note("intercept-unused", text))
        if self.left_out:
            found.append(Note("rows-left-out", self.left_out))
        return tuple(found)

    @cached_property
    def params(self) -> pd.Series:
        """Coefficients."""
        return pd.Series(self.fit.beta, index=self.design.names, name="estimate")

    @cached_property
    def bse(self) -> pd.Series:
        """Standard errors (``vcov="block"``: model-based)."""
        return pd.Series(np.sqrt(np.diag(self.fit.vcov)), index=self.design.names, name="std_error")

    @property
    def nobs(self) -> int:
        """Rows of the regression: clusters."""
        return self.fit.nobs

    @property
    def n_clusters(self) -> int:
        """Clusters."""
        return self.fit.nobs

    @property
    def df_resid(self) -> int:
        """Residual degrees of freedom."""
        return self.nobs - len(self.fit.beta)

    @property
    def sigma2(self) -> float:
        """Residual variance, with the divisor ``df_resid``."""
        return self.fit.sigma2

    @property
    def llf(self) -> float:
        """Maximized log-likelihood."""
        return self.fit.loglik

    def parameter_vcov(self, kind: str = "block") -> Vcov:
        """Covariance of the coefficients as an array (eq. 64).

        Raises
        ------
        EffectError
            Unknown kind.
        """
        text = lost_along("use vcov='block'", "clusters")
        return plain_covariance(self.fit, check_vcov(kind), lambda: self.alone_in(text))

    def alone_in(self, text: str) -> Directions:
        """Directions of the coefficients that a single cluster alone notices, and what is said of them."""
        found = moves_of_one(self.fit)
        return named(found, text, [f"cluster {self.clusters[j]} ({self.group_name})" for j in found.owners])

    def vcov(self, kind: str = "block") -> pd.DataFrame:
        """Covariance matrix of the coefficients.

        Parameters
        ----------
        kind : {"block", "joint", "CR0", "CR1", "CR2", "cluster"}
            The first two are ``s2 (X'X)^-1``. The others are White's, as every cluster is one row: HC0, HC0 J/(J - 1),
            HC2, HC0 J/(J - 1).
        """
        return pd.DataFrame(self.parameter_vcov(kind).matrix, index=self.design.names, columns=self.design.names)

    def fixef(self, *, vcov: str = "block", level: float = 0.95) -> pd.DataFrame:
        """Coefficients with t tests, ``df_resid`` degrees of freedom."""
        unit = np.eye(len(self.fit.beta))
        slopes = [Quantity(n, float(b), row) for n, b, row in zip(self.design.names, self.fit.beta, unit, strict=True)]
        return delta_table(slopes, self.parameter_vcov(vcov), level=level, df=self.df_resid)

    def tidy(self, *, vcov: str = "block", level: float = 0.95) -> pd.DataFrame:
        """Coefficients in the columns of ``MixedResults.tidy``."""
        table = self.fixef(vcov=vcov, level=level)
        table = table.assign(effect="fixed", equation=self.design.equation.name, group="")
        return table[["effect", "equation", "group", *COLUMNS]]

    def summary(self, *, vcov: str = "block", level: float = 0.95) -> str:
        """The regression as text."""
        title = f"Least squares on one row per cluster: {self.design.equation.name}"
        pairs = [
            ("Equation", self.formula),
            ("Clusters", f"{self.nobs} ({self.group_name}; each counts once)"),
            ("Residual", f"variance {self.sigma2:.6g}, {self.df_resid} df; log-likelihood {self.llf:.5f}"),
            *([("Left out", self.left_out)] if self.left_out else []),
        ]
        table = self.fixef(vcov=vcov, level=level).drop(columns=["df", "note"])
        heading = f"Coefficients ({100 * level:g}% intervals; {vcov} standard errors)"
        return "\n".join(
            [title, "=" * len(title), render_pairs(pairs), "", heading, render_table(table, statistic="t")]
        )

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return as_html(self.summary())


def fit_clusters(
    equation: Equation, table: pd.DataFrame, codes: NDArray[np.intp], clusters: pd.Index, *, group_name: str
) -> ClusterRegression:
    """Fit an equation whose columns are all of level 2 to one row per cluster.

    Parameters
    ----------
    equation : Equation
        Its random terms play no part.
    table : DataFrame of n rows
        From ``read_columns``.
    codes : (n,) int array
        Cluster of each row, -1 where the id is missing.
    clusters : Index of length J
        Cluster ids.
    group_name : str
        The cluster variable.

    Raises
    ------
    DataError, NotIdentifiedError
        No cluster with all values, a constant response, collinear columns, too few clusters.
    """
    names = sorted(equation.variables - equation.group_columns)
    rows = cluster_table(table, codes, names)
    complete = complete_rows(rows, names)
    missing = {name: int(count) for name, count in rows.isna().sum().items() if count}
    counted = f"missing {', '.join(f'{name}: {count}' for name, count in missing.items())}"
    if not complete.any():
        raise DataError(f"equation {equation.name} has no cluster with all its values ({counted}); remove a column")
    design = plain_design(equation, rows[complete].reset_index(drop=True))
    if np.ptp(design.y) == 0.0:
        raise DataError(
            f"the response {equation.name!r} is constant ({design.y[0]:g}) over the clusters of its equation; choose "
            "another response"
        )
    fit = fit_glm("linear", design.y, design.X, names=design.names, response=equation.name)
    J = len(rows)
    left_out = f"equation {equation.name}: {J - fit.nobs} of {J} clusters left out ({counted})" if missing else ""
    return ClusterRegression(design, fit, clusters[complete], group_name, left_out)
