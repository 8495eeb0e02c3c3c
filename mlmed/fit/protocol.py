"""What a fitted model has to offer, whatever made it: names, estimates, covariances, notes."""

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

#: What a quantity is besides a number: "" for a coefficient or a function of several parameters; a factor is 1 where
#: there is nothing to see.
Kind = Literal["", "variance", "covariance", "sd", "correlation", "factor"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One entry of psi.

    Attributes
    ----------
    name : str
        ``m~x``, ``var(m~x)``, ``cov(m~x,y~m)``, ``var(m~Residual)``; without the equation where there is only one.
    kind : Kind
        What it is; the name does not say it, as a column may be called ``var(x)``.
    equation : str
        The response that it belongs to, or both, ``m, y``.
    """

    name: str
    kind: Kind
    equation: str


class Fit(Protocol):
    """A fitted model: what effects, intervals and results are made from.

    Linear mixed models, ordinary regressions, quadrature and systems of such components are all of this kind.
    """

    @property
    def kind(self) -> str:
        """What it is, in words."""

    @property
    def usual(self) -> str:
        """The covariance of the estimates that is meant where none is named."""

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
        """Parameters that AIC counts: fixed effects, variances and covariances."""

    @property
    def clusters(self) -> pd.Index:
        """Cluster ids, (J,); rows where no column names clusters."""

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
        """What to know of the fit."""


class Solved(Protocol):
    """A linear mixed model at its optimum, as its names and covariances need it."""

    @property
    def layout(self) -> Layout:
        """What was learned of the columns."""

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
        """Restricted likelihood or not."""

    @property
    def clusters(self) -> pd.Index:
        """Cluster ids, (J,)."""

    @property
    def group_name(self) -> str:
        """The cluster variable."""

    @property
    def is_singular(self) -> bool:
        """Whether the optimum lies on the boundary."""
