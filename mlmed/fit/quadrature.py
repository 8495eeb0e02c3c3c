"""A location-scale model as a fit: rows -> start values -> certified optimum -> estimates in the user's units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.errors import EffectError
from mlmed.fit.lmm import fit_model
from mlmed.fit.names import location_labels
from mlmed.fit.protocol import Parameter
from mlmed.lmm.vcov import Vcov
from mlmed.names import labelled
from mlmed.notes import Note
from mlmed.options import OF, ROBUST_KINDS, ROW_KINDS, one_of
from mlmed.quadrature.estimates import Estimates, plain_theta, random_start, start_theta, to_estimates
from mlmed.quadrature.likelihood import Mixture
from mlmed.quadrature.optimizer import Optimum, not_below, optimize
from mlmed.quadrature.posterior import (
    ClusterEffects,
    EffectsLaw,
    NewColumns,
    cluster_effects,
    effects_law,
    prior_mixture,
    user_mixture,
)
from mlmed.quadrature.problem import Problem, Units, build_problem
from mlmed.quadrature.rows import SCALE, Rows, exact_fits, read_equations, read_rows, refuse_unidentified
from mlmed.system.system import System
from mlmed.text import Compact, shorten

Array = NDArray[np.float64]
#: Why this fit lacks the covariances of others.
UNKNOWN = {
    "block": "takes fixed effects and variances as independent, which those of residual sds are not",
    **dict.fromkeys(ROBUST_KINDS, "is for linear mixed models and ordinary regressions"),
    **dict.fromkeys(ROW_KINDS, "is for rows that do not depend on each other"),
}


@dataclass(frozen=True, repr=False)
class QuadratureFit(Compact):
    """A fitted location-scale model; scale effects are called ``sigma~x``.

    Attributes
    ----------
    rows : Rows
        The formulas and the complete rows.
    problem, units : Problem, Units
        Arrays of the likelihood, and the transformation to the user's units.
    start : (n,) array
        Start values in working units.
    optimum, estimates : Optimum, Estimates
        The optimum in working and in user's units.
    notes : tuple of Note
        Notes on the fit.
    """

    kind: ClassVar[str] = "a location-scale model"
    usual: ClassVar[str] = "joint"
    method: ClassVar[str] = "ml"
    label: ClassVar[str] = "location-scale ML"
    df: ClassVar[float] = np.inf

    rows: Rows
    problem: Problem
    units: Units
    start: Array
    optimum: Optimum
    estimates: Estimates
    notes: tuple[Note, ...] = ()

    def __repr__(self) -> str:
        first, second = self.equations
        word = "certified" if self.converged else "NOT CERTIFIED"
        counts = f"{self.nobs} observations in {len(self.clusters)} clusters"
        return f"{first}; {second}; ML, log-likelihood {self.llf:.5f}, {word}; {counts}"

    @property
    def equations(self) -> tuple[str, str]:
        """Both formulas; that of the scale with ``sigma`` on the left."""
        location, scale = self.rows.equations
        return location.text, f"{SCALE} ~ {scale.right}"

    def names(self, part: str, *, always: bool = False) -> tuple[list[str], list[str]]:
        """Labels of the ``fixed`` or ``random`` effects of location and scale.

        Parameters
        ----------
        part : {"fixed", "random"}
            Which effects.
        always : bool
            Whether location effects carry the name of the response, for comparisons.
        """
        own, scale = (getattr(one, f"{part}_names") for one in (self.rows.location, self.rows.scale))
        if always:
            own = [labelled(self.rows.equations[0].name, name) for name in own]
        return location_labels(own, SCALE), [labelled(SCALE, name) for name in scale]

    @property
    def random_names(self) -> list[str]:
        """Labels of all random effects, location first."""
        return [name for part in self.names("random") for name in part]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Name, kind and equation of every entry of psi."""
        return tuple(self.named())

    @property
    def n_parameters(self) -> int:
        """Length of psi."""
        return len(self.psi)

    def named(self, *, always: bool = False) -> list[Parameter]:
        """The parameters; ``always`` as in ``names``."""
        equations = self.rows.equations[0].name, SCALE
        fixed, random = (self.names(part, always=always) for part in ("fixed", "random"))
        flat, of = [*random[0], *random[1]], [equations[k] for k in (0, 1) for _ in random[k]]
        found = [Parameter(name, "", equations[k]) for k in (0, 1) for name in fixed[k]]
        for i, j in self.estimates.cov_at:
            equation = of[i] if of[i] == of[j] else f"{of[j]}, {of[i]}"
            if i == j:
                found.append(Parameter(f"var({flat[i]})", "variance", equation))
            else:
                found.append(Parameter(f"cov({flat[j]},{flat[i]})", "covariance", equation))
        return found

    @property
    def psi(self) -> Array:
        """Fixed effects of location and scale, variances and covariances of the random effects."""
        return self.estimates.psi

    def vcov(self, kind: str = "joint") -> Vcov:
        """The inverse observed information of all parameters, ``joint``, the only kind.

        Raises
        ------
        EffectError
            Unknown kind, or one that this model does not have.
        """
        if isinstance(kind, str) and kind in UNKNOWN:
            raise EffectError(
                f"vcov={kind!r} {UNKNOWN[kind]}; a location-scale model has vcov='joint', the inverse observed "
                "information of all parameters"
            )
        one_of(kind, (self.usual,), "vcov")
        return Vcov.one(self.estimates.vcov, self.estimates.reason)

    @property
    def llf(self) -> float:
        """Maximized log-likelihood."""
        return self.estimates.loglik

    @property
    def nobs(self) -> int:
        """Number of rows used."""
        return self.problem.nobs

    @property
    def nodes(self) -> int:
        """Quadrature nodes per scale random effect."""
        return self.optimum.nodes_per_dimension

    @property
    def clusters(self) -> pd.Index:
        """Cluster ids, (J,)."""
        return self.rows.clusters

    @property
    def group_name(self) -> str:
        """The cluster variable."""
        return ":".join(self.rows.group)

    @property
    def converged(self) -> bool:
        """Whether the optimum is certified."""
        return self.optimum.certificate.converged

    @property
    def is_singular(self) -> bool:
        """Whether the optimum lies on the boundary: G has less than full rank."""
        return self.estimates.rank < len(self.estimates.G)

    @property
    def G(self) -> pd.DataFrame:
        """Covariance matrix of the random effects, location first."""
        return pd.DataFrame(self.estimates.G, index=self.random_names, columns=self.random_names)

    @cached_property
    def posterior(self) -> ClusterEffects:
        """Posterior means and covariances of the clusters' random effects."""
        return cluster_effects(self.problem, self.units, self.optimum)

    @cached_property
    def law(self) -> EffectsLaw:
        """Posterior of the clusters' random effects, with derivatives in the estimates."""
        return effects_law(self.problem, self.units, self.optimum)

    def mixtures(self) -> tuple[Mixture, Mixture]:
        """Posterior mixtures over the nodes: of the clusters, and of a cluster without rows."""
        own = self.problem, self.units, self.optimum
        return user_mixture(*own), prior_mixture(*own)

    def fitted(self, *, of: str = "cluster") -> pd.DataFrame:
        """Expected response and residual sd of the rows of the data; NaN where a row was left out."""
        one_of(of, OF, "of")
        new = self.own_columns()
        mean, log_sd = new.X @ self.estimates.beta, new.W @ self.estimates.tau
        if of == "cluster":
            own, q = self.posterior.mean[self.rows.codes], new.Z.shape[1]
            mean, log_sd = mean + np.vecdot(new.Z, own[:, :q]), log_sd + np.vecdot(new.V, own[:, q:])
        out = np.full((len(self.rows.kept), 2), np.nan)
        out[self.rows.kept] = np.column_stack([mean, np.exp(log_sd)])
        return pd.DataFrame(out, index=self.rows.index, columns=["estimate", "sd"])

    def own_columns(self) -> NewColumns:
        """Encoded rows of the fit itself."""
        location, scale = self.rows.location, self.rows.scale
        return NewColumns(location.fixed, location.random, scale.fixed, scale.random, self.rows.codes)

    def from_other_start(self, rng: np.random.Generator) -> tuple[Optimum, float]:
        """Optimum from a random start with the same nodes, and the distance of its estimates in standard errors."""
        start = random_start(self.problem, self.start, rng)
        found = optimize(self.problem, start, m=self.nodes)
        other = to_estimates(self.problem, self.units, found)
        with np.errstate(invalid="ignore"):
            apart = np.abs(other.psi - self.psi) / np.sqrt(np.diag(self.estimates.vcov))
        return found, float(np.nanmax(apart))


def fit_location_scale(location: str, scale: str, data: Any, *, nodes: int | None = None) -> QuadratureFit:
    """Read, check, start from one residual sd for all rows, and fit.

    Raises
    ------
    FormulaError, DataError, NotIdentifiedError, EffectError
        Unusable formulas or data, or parameters that the data do not determine.
    """
    rows = read_rows(read_equations(location, scale, data), data)
    refuse_unidentified(rows)
    if nodes is not None and not rows.scale.random_names:
        raise EffectError("nodes= is for scale random effects, and the scale formula has none; leave it out")
    start, before = _homoscedastic(rows)
    return fit_rows(rows, *start, nodes=nodes, before=before)


def fit_rows(
    rows: Rows, beta: Array, G: Array, sigma2: float, *, nodes: int | None = None, before: Sequence[Note] = ()
) -> QuadratureFit:
    """Fit from a homoscedastic fit of the same rows.

    Parameters
    ----------
    rows : Rows
        Complete rows.
    beta, G, sigma2 : (p,), (q, q) arrays, float
        Its fixed effects, covariance of random effects and residual variance.
    nodes : int, optional
        Per scale random effect; chosen if it is not given.
    before : sequence of Note
        Notes of the homoscedastic fit.
    """
    problem, units = build_problem(rows)
    start = start_theta(problem, units, beta, G, sigma2)
    optimum = not_below(problem, optimize(problem, start, m=nodes), plain_theta(problem, units, beta, G, sigma2))
    estimates = to_estimates(problem, units, optimum)
    notes = (*before, *_notes(rows, optimum, estimates))
    return QuadratureFit(rows, problem, units, start, optimum, estimates, notes)


def _homoscedastic(rows: Rows) -> tuple[tuple[Array, Array, float], list[Note]]:
    """Fit with one residual sd for all rows, with that model's checks.

    Returns (beta, G, residual variance) and its notes, except those on its optimum.
    """
    location = rows.equations[0]
    if not location.random:
        beta, _, _, _ = np.linalg.lstsq(rows.location.fixed, rows.y, rcond=None)
        residual = rows.y - rows.location.fixed @ beta
        return (np.asarray(beta, dtype=np.float64), np.empty((0, 0)), float(np.mean(residual**2))), []
    fitted = fit_model(System((location,), "ml"), rows.table)
    start = fitted.estimates.beta, fitted.estimates.G, float(fitted.estimates.sigma2[0])
    return start, [note for note in fitted.notes if note.code not in ("boundary", "not-certified")]


def _notes(rows: Rows, optimum: Optimum, estimates: Estimates) -> list[Note]:
    found = [] if rows.dropped is None else [Note("rows-left-out", str(rows.dropped))]
    between = rows.constant_scale_slopes
    if between:
        text = (
            f"random scale slope of {', '.join(between)}, which does not vary within clusters: no slope differs "
            "between clusters, only the variance of their log sds; remove it from the random part"
        )
        found.append(Note("slope-between", text))
    found += _exact(rows)
    if not optimum.certificate.converged:
        found.append(Note("not-certified", f"the optimum is not certified: {optimum.certificate.complaint}"))
    elif estimates.rank < len(estimates.G):
        text = (
            f"boundary (singular) fit: the covariance of the random effects has rank {estimates.rank} of "
            f"{len(estimates.G)}; estimates are the optimum, standard errors of variances are left out; "
            "see docs/singular.md"
        )
        found.append(Note("boundary", text))
    return found


def _exact(rows: Rows) -> list[Note]:
    """Note on constant clusters whose residuals come from fixed effects alone, so that the likelihood stays bounded."""
    if not rows.scale.random_names:
        return []
    at = exact_fits(rows).bounded
    if not len(at):
        return []
    text = (
        f"the response {rows.equations[0].name} is constant within {len(at)} of {len(rows.clusters)} clusters "
        f"({':'.join(rows.group)}: {shorten(rows.clusters[at])}), or their location effects fit it exactly: they have "
        "residuals only by the fixed effects, so these decide their residual sd, and the log-likelihood has no upper "
        "end where those are 0: what was found is a maximum apart from that. See how the fit changes without these "
        "clusters"
    )
    return [Note("exact-fit", text)]
