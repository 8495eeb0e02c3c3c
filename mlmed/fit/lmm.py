"""A linear mixed model, from specification and table to estimates and values of its rows.

All numbers come from cross-products. A fit keeps a reference to the user's table for bootstraps that draw rows; a
pickled fit has no rows.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array

from mlmed.data.design import build_design
from mlmed.data.frames import column_names, lazy_frame
from mlmed.data.grams import Grams, accumulate, grams_for
from mlmed.data.layout import Design, Layout
from mlmed.data.pushdown import pushed_grams
from mlmed.errors import EffectError
from mlmed.fit.names import parameters, qualified
from mlmed.fit.protocol import Parameter
from mlmed.fit.vcov import covariance
from mlmed.lmm.best import best_optimum
from mlmed.lmm.estimates import Estimates, to_estimates
from mlmed.lmm.optimum import Optimum, Searched
from mlmed.lmm.ranef import ModeLaw, mode_law
from mlmed.lmm.vcov import Vcov
from mlmed.lmm.working import Working, build_working, sample_of
from mlmed.names import labelled
from mlmed.notes import Note
from mlmed.options import OF, one_of
from mlmed.system.system import System

#: Absolute and relative tolerance for sums and units of the same rows.
SAME_SUMS = 1e-9
BETWEEN = (
    "random slope of {}, which does not vary within clusters: no slope differs between clusters, only the variance of "
    "their intercepts; remove it from the random part"
)
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, repr=False)
class LmmFit:
    """A fitted linear mixed model.

    Attributes
    ----------
    spec : System
        The specification.
    layout : Layout
        Columns and encodings.
    grams : Grams
        Sufficient statistics.
    working : Working
        The engine's problem and its units.
    optimum : Optimum
        The optimum in working units.
    estimates : Estimates
        The optimum in the user's units.
    table : Any
        The user's table itself (not a copy), for bootstraps that need rows; None for engines, Grams and pickled fits.
    usual : str
        The default covariance of the estimates.
    """

    kind: ClassVar[str] = "a linear mixed model"

    spec: System
    layout: Layout
    grams: Grams
    working: Working
    optimum: Optimum
    estimates: Estimates
    table: Any = field(default=None, repr=False, compare=False)
    usual: str = "block"

    def __reduce__(self) -> tuple[type[LmmFit], tuple[Any, ...]]:
        """Pickle everything but the rows."""
        kept = (self.spec, self.layout, self.grams, self.working, self.optimum, self.estimates, None, self.usual)
        return type(self), kept

    def __repr__(self) -> str:
        asked = "; ".join(equation.text for equation in self.spec.equations)
        word = "certified" if self.converged else "NOT CERTIFIED"
        counts = f"{self.nobs} observations in {len(self.clusters)} clusters"
        return f"{asked}; {self.spec.method.upper()}, log-likelihood {self.estimates.loglik:.5f}, {word}; {counts}"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Name, kind and equation of every entry of psi: fixed effects, variances and covariances."""
        return tuple(parameters(self))

    @property
    def psi(self) -> NDArray[np.float64]:
        """All estimates, fixed effects first."""
        return self.estimates.psi

    @property
    def llf(self) -> float:
        """Log-likelihood at the optimum (restricted under REML)."""
        return self.estimates.loglik

    def vcov(self, kind: str = "block") -> Vcov:
        """Covariance of psi of one kind.

        Raises
        ------
        EffectError
            Unknown kind.
        """
        return covariance(self, kind)

    @property
    def method(self) -> str:
        """Criterion, ``"reml"`` or ``"ml"``."""
        return self.spec.method

    @property
    def label(self) -> str:
        """Name in a comparison."""
        kind = "joint" if len(self.layout.equations) > 1 else "mixed"
        residual = f", residual {self.spec.residual}" if self.spec.correlated else ""
        return f"{kind} {self.spec.method.upper()}{residual}"

    @property
    def G(self) -> pd.DataFrame:
        """Covariance matrix of the random effects."""
        names = qualified(self, "random")
        return pd.DataFrame(self.estimates.G, index=names, columns=names)

    @property
    def Sigma(self) -> pd.DataFrame:
        """Covariance matrix of the residuals of a row."""
        names = [equation.name for equation in self.layout.equations]
        return pd.DataFrame(self.estimates.Sigma, index=names, columns=names)

    @property
    def reml(self) -> bool:
        """Whether the likelihood is restricted."""
        return self.spec.method == "reml"

    @property
    def clusters(self) -> pd.Index:
        """Cluster ids, (J,)."""
        return self.grams.clusters

    @property
    def group_name(self) -> str:
        """The cluster variable."""
        return ":".join(self.spec.group)

    @property
    def nobs(self) -> int:
        """Response values used, over all equations."""
        return int(self.working.problem.nobs.sum())

    @property
    def is_singular(self) -> bool:
        """Whether the optimum lies on the boundary: G, or the residual covariance, has less than full rank."""
        return self.optimum.is_singular

    @property
    def converged(self) -> bool:
        """Whether the optimum is certified."""
        return self.optimum.certificate.converged

    @property
    def optima(self) -> list[float]:
        """Log-likelihoods of the distinct optima found, the best first."""
        values = self.optimum.searched.values or (self.optimum.evaluation.value,)
        shift = self.working.units.criterion_shift(self.working.problem.nobs, reml=self.reml)
        return [-0.5 * (value + shift) for value in values]

    def law(self) -> ModeLaw:
        """Distribution of the random effects given the data, as a function of the fixed effects."""
        optimum, working = self.optimum, self.working
        return mode_law(working.problem, optimum.L, optimum.sigma2, optimum.evaluation.beta, working.units)

    def fitted(self, *, of: str = "cluster") -> pd.Series | pd.DataFrame:
        """Fitted values of the rows of the data: X beta + Z u, or X beta."""
        one_of(of, OF, "of")
        design = design_of(self, "fitted()", "use predict() with new rows")
        law = self.law() if of == "cluster" else None
        return with_index(self.table, design, fitted_values(design, self.estimates.beta, law))

    def residuals(self, *, of: str = "cluster") -> pd.Series | pd.DataFrame:
        """Responses minus fitted values, in the shape of ``fitted``."""
        one_of(of, OF, "of")
        design = design_of(self, "resid()", "use predict() with new rows")
        law = self.law() if of == "cluster" else None
        return with_index(self.table, design, residual_values(design, self.estimates.beta, law))

    @property
    def notes(self) -> tuple[Note, ...]:
        """Notes on rows left out, uninformative columns, and an optimum that is on the boundary or not certified."""
        working, optimum = self.working, self.optimum
        found = [Note("rows-left-out", str(dropped)) for dropped in self.layout.dropped]
        if working.between:
            found.append(Note("slope-between", BETWEEN.format(", ".join(working.between))))
        if working.empty:
            found.append(Note("intercept-empty", empty_text(working.empty)))
        if not optimum.certificate.converged:
            complaint = optimum.certificate.complaint
            found.append(Note("not-certified", f"the optimum is not certified: {complaint}; see docs/convergence.md"))
        elif optimum.is_singular:
            found.append(
                Note(
                    "boundary",
                    f"boundary (singular) fit: {boundary_text(self)}; estimates are {starts_text(optimum.searched)}, "
                    "exactly on the boundary, and standard errors are flagged; see docs/singular.md",
                )
            )
        return tuple(found)

    @property
    def n_parameters(self) -> int:
        """Number of fixed effects, natural parameters of G, and residual parameters."""
        return len(self.estimates.beta) + len(self.estimates.tau) + len(self.estimates.sigma2)

    @property
    def aic(self) -> float:
        """Akaike's criterion, -2 log-likelihood + 2 parameters."""
        return -2.0 * self.estimates.loglik + 2.0 * self.n_parameters

    @property
    def bic(self) -> float:
        """Schwarz' criterion, -2 log-likelihood + log(nobs) parameters."""
        return -2.0 * self.estimates.loglik + math.log(self.nobs) * self.n_parameters


def fit_model(spec: System, data: Any) -> LmmFit:
    """Fit a specification to data: cross-products, optimum, estimates."""
    grams = make_grams(spec, data)  # no rows are read from here on
    layout = grams.layout
    working = build_working(spec, layout, grams)
    reml = spec.method == "reml"
    names = tuple(labelled(equation.name, name) for equation in layout.equations for name in equation.random)
    sample = partial(sample_of, spec, grams)
    optimum = best_optimum(working.problem, working.blocks, reml=reml, names=names, sample=sample)
    table = None if _stored(data) is not None or lazy_frame(data) is not None else data
    return LmmFit(spec, layout, grams, working, optimum, to_estimates(working, optimum, reml=reml), table)


def _stored(data: Any) -> Grams | None:
    """Return stored Grams, bare or wrapped; None for other data."""
    arrays = inspect.getattr_static(data, "arrays", data)  # a missing attribute makes DuckDB run its query
    return arrays if isinstance(arrays, Grams) else None


def known_columns(data: Any) -> list[str]:
    """Column names that formulas may refer to, including those that need quotes."""
    stored = _stored(data)
    if stored is not None:
        return sorted(frozenset().union(*(equation.variables for equation in stored.layout.asked)))
    return column_names(data)


def make_grams(spec: System, data: Any) -> Grams:
    """Take cross-products from stored Grams, from an engine, or from rows in memory."""
    stored = _stored(data)
    if stored is not None:
        return grams_for(spec, stored)
    frame = lazy_frame(data)
    return accumulate(build_design(spec, data)) if frame is None else pushed_grams(spec, frame)


def design_of(fitted: LmmFit, why: str, remedy: str) -> Design:
    """Encode the rows of a fit again.

    Raises
    ------
    EffectError
        No rows, or changed ones; the message has ``why``, what needs them, and ``remedy``.
    """
    if fitted.table is None:
        raise EffectError(
            f"{why} needs the rows, but the fit was made from cross-products (stored Grams or an engine that keeps the "
            f"rows) or comes from a pickle, which has no rows; fit a data frame, or {remedy}"
        )
    design = build_design(fitted.spec, fitted.table)
    if not _same_data(accumulate(design), fitted.grams):
        raise EffectError(f"{why} needs the rows, but the data frame was changed after the fit; fit it again")
    return design


def _same_data(left: Grams, right: Grams) -> bool:
    """Whether sums and units agree within rounding error."""
    if left.sums.shape != right.sums.shape or type(left.sums) is not type(right.sums):
        return False
    units = (
        (left.shift / right.scale, right.shift / right.scale),
        (left.scale / right.scale, np.ones_like(right.scale)),
    )
    return _same_sums(left, right) and all(np.allclose(a, b, rtol=SAME_SUMS, atol=SAME_SUMS) for a, b in units)


def _same_sums(left: Grams, right: Grams) -> bool:
    if isinstance(left.sums, np.ndarray) and isinstance(right.sums, np.ndarray):
        return np.allclose(left.sums, right.sums, rtol=SAME_SUMS, atol=SAME_SUMS)
    one, two = csr_array(left.sums), csr_array(right.sums)
    return float((abs(one - two) - SAME_SUMS * abs(two)).max()) <= SAME_SUMS


def empty_text(empty: Sequence[str]) -> str:
    """Text of the note on random intercepts that were left out."""
    return (
        f"random intercept {', '.join(empty)} is left out (its variance is 0): no column of the equation has a mean "
        "that differs between clusters, as after centring within clusters; the slopes are not affected"
    )


def boundary_text(fitted: LmmFit) -> str:
    """Say which covariance matrices of a singular fit lack rank."""
    optimum, R, found = fitted.optimum, fitted.working.problem.n_strata, []
    if optimum.rank < optimum.size:
        found.append(f"the covariance of the random effects has rank {optimum.rank} of {optimum.size}")
    if optimum.residual_lost:
        found.append(f"the residual covariance has rank {R - optimum.residual_lost} of {R}")
    return " and ".join(found)


def starts_text(searched: Searched) -> str:
    """Say the number of starts and of distinct optima."""
    sample = f" (compared in a sample of {searched.clusters} clusters)" if searched.clusters else ""
    if searched.n_optima == 1:
        return f"the only optimum that {searched.starts} start{'s' if searched.starts > 1 else ''} led to{sample}"
    behind = 0.5 * (searched.values[1] - searched.values[0])
    return (
        f"the best of {searched.n_optima} optima that {searched.starts} starts led to{sample}; the next is "
        f"{behind:.3g} log-likelihood units below, see docs/convergence.md"
    )


def certified_text(fitted: LmmFit) -> str:
    """Say whether the optimum is certified."""
    return "certified" if fitted.converged else "NOT CERTIFIED (see docs/convergence.md)"


def fitted_values(design: Design, beta: Array, law: ModeLaw | None) -> Array:
    """X beta, plus Z u if a distribution of u is given; (N, R), NaN where an equation does not use a row."""
    out = np.full((len(design.codes), len(design.layout.equations)), np.nan)
    first_p = first_q = 0
    for number, (equation, own) in enumerate(zip(design.layout.equations, design.members, strict=True)):
        p, q = len(equation.fixed), len(equation.random)
        found = np.stack([design.values[k][own] for k in equation.fixed_at], axis=1) @ beta[first_p : first_p + p]
        if law is not None:
            Z = np.stack([design.values[k][own] for k in equation.random_at], axis=1)
            found += np.vecdot(Z, law.modes[design.codes[own], first_q : first_q + q])
        out[own, number] = found
        first_p, first_q = first_p + p, first_q + q
    return out


def residual_values(design: Design, beta: Array, law: ModeLaw | None) -> Array:
    """Responses minus fitted values, (N, R)."""
    responses = np.stack([design.values[equation.response_at] for equation in design.layout.equations], axis=1)
    return responses - fitted_values(design, beta, law)


def with_index(table: Any, design: Design, values: Array) -> pd.Series | pd.DataFrame:
    """Put values (N, R) of a design on all rows of its table, with the table's index."""
    out = np.full((design.layout.total, values.shape[1]), np.nan)
    out[design.at] = values
    index = table.index if isinstance(table, pd.DataFrame) else None
    frame = pd.DataFrame(out, index=index, columns=[equation.name for equation in design.layout.equations])
    return frame if frame.shape[1] > 1 else frame.iloc[:, 0]
