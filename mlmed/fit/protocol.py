"""Protocols of fitted models: names, estimates, covariances, notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.grams import Grams
from mlmed.data.layout import Layout
from mlmed.lmm.estimates import Estimates
from mlmed.lmm.optimum import Optimum
from mlmed.lmm.vcov import Vcov
from mlmed.lmm.working import Working
from mlmed.notes import Note

#: Kind of a quantity: "" for a coefficient or a function of several parameters; a factor of 1 means no effect.
Kind = Literal["", "variance", "covariance", "sd", "correlation", "factor"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One entry of psi.

    Attributes
    ----------
    name : str
        ``m~x``, ``var(m~x)``, ``cov(m~x,y~m)``, ``var(m~Residual)``; without the equation if there is only one.
    kind : Kind
        Not read off the name, as a column may be called ``var(x)``.
    equation : str
        Its response, or both, ``m, y``.
    """

    name: str
    kind: Kind
    equation: str


class Fit(Protocol):
    """A fitted model, as effects, intervals and results need it.

    Implemented by linear mixed models, ordinary regressions, quadrature fits, and systems of components.
    """

    @property
    def kind(self) -> str:
        """Kind of model, in words."""

    @property
    def usual(self) -> str:
        """The default covariance of the estimates."""

    @property
    def method(self) -> str:
        """Criterion, ``"reml"`` or ``"ml"``."""

    @property
    def parameters(self) -> Sequence[Parameter]:
        """Name, kind and equation of every entry of psi."""

    @property
    def psi(self) -> NDArray[np.float64]:
        """All estimates, (n,), the fixed effects of each component first."""

    def vcov(self, kind: str = "block") -> Vcov:
        """Covariance of psi of one kind, with the reason for any NaN.

        Raises
        ------
        EffectError
            Unknown kind, or one that this model does not have.
        """

    @property
    def llf(self) -> float:
        """Log-likelihood at the optimum (restricted under REML)."""

    @property
    def nobs(self) -> int:
        """Response values used, over all equations."""

    @property
    def n_parameters(self) -> int:
        """Number of parameters in AIC: fixed effects, variances and covariances."""

    @property
    def clusters(self) -> pd.Index:
        """Cluster ids, (J,); of the rows if no column names clusters."""

    @property
    def group_name(self) -> str:
        """The cluster variable."""

    @property
    def converged(self) -> bool:
        """Whether the optimum is certified."""

    @property
    def is_singular(self) -> bool:
        """Whether the optimum lies on the boundary."""

    @property
    def notes(self) -> tuple[Note, ...]:
        """Notes on the fit."""


class Solved(Protocol):
    """A linear mixed model at its optimum, as its names and covariances need it."""

    @property
    def layout(self) -> Layout:
        """Columns and encodings."""

    @property
    def grams(self) -> Grams:
        """Sufficient statistics."""

    @property
    def working(self) -> Working:
        """The engine's problem and its units."""

    @property
    def optimum(self) -> Optimum:
        """The optimum in working units."""

    @property
    def estimates(self) -> Estimates:
        """The optimum in the user's units."""

    @property
    def reml(self) -> bool:
        """Whether the likelihood is restricted."""

    @property
    def clusters(self) -> pd.Index:
        """Cluster ids, (J,)."""

    @property
    def group_name(self) -> str:
        """The cluster variable."""

    @property
    def is_singular(self) -> bool:
        """Whether the optimum lies on the boundary."""
