"""Refits of a model: from random starts, and without some random effects."""

from __future__ import annotations

from collections.abc import Collection
from functools import singledispatch
from typing import Any, Protocol

import numpy as np
import pandas as pd

from mlmed.errors import EffectError, NotIdentifiedError
from mlmed.fit.lmm import LmmFit
from mlmed.fit.quadrature import QuadratureFit
from mlmed.lmm.best import best_optimum, candidates_for
from mlmed.lmm.estimates import regression_loglik, to_estimates
from mlmed.lmm.optimum import optimize
from mlmed.lmm.vcov import parameter_vcov
from mlmed.lmm.working import only_effects
from mlmed.numerics.certificate import Certificate
from mlmed.options import check_count, check_jobs, check_seed
from mlmed.replication import replicate

#: End of a search: log-likelihood, certificate, distance of the estimates in standard errors.
End = tuple[float, Certificate, float]


class Search(Protocol):
    """Search from one random start."""

    def __call__(self, rng: np.random.Generator, /) -> End:
        """Return the end of the search."""
        ...


def table_of_starts(search: Search, llf: float, n: int, *, seed: int, n_jobs: int | None) -> pd.DataFrame:
    """Tabulate one row per start; start k uses child k of the seed, whatever the number of workers."""
    n, seed, n_jobs = check_count(n, "starts"), check_seed(seed, "check_starts()"), check_jobs(n_jobs)
    rows = [
        {
            "start": k + 1,
            "llf": found,
            "difference": found - llf,
            "gradient_norm": certificate.gradient_norm,
            "newton_decrement": certificate.newton_decrement,
            "converged": certificate.converged,
            "apart": apart,
        }
        for k, (found, certificate, apart) in enumerate(replicate(search, n, seed=seed, n_jobs=n_jobs))
    ]
    return pd.DataFrame(rows)


@singledispatch
def from_random_start(fit: Any, rng: np.random.Generator) -> End:
    """Search from a random start, by kind of fit."""
    if hasattr(fit, "components"):
        raise EffectError("equations that are fitted apart are searched apart; ask a mixed one, as in fit.outcome")
    raise EffectError(f"{fit.kind} has one optimum, so there are no starts to check")


@from_random_start.register
def _(fitted: LmmFit, rng: np.random.Generator) -> End:
    working, reml = fitted.working, fitted.reml
    material = candidates_for(working.problem, working.blocks, fitted.optimum, reml=reml)
    try:
        start = material.anywhere(fitted.optimum, rng)
        found = optimize(working.problem, working.blocks, reml=reml, theta=start)
    except (NotIdentifiedError, np.linalg.LinAlgError):  # it ended where the likelihood has no maximum
        return np.nan, Certificate(), np.nan
    made = to_estimates(working, found, reml=reml)
    with np.errstate(invalid="ignore"):
        errors = np.sqrt(np.diag(parameter_vcov(fitted.estimates).matrix))
    away = np.abs(np.concatenate([made.beta, made.tau, made.sigma2]) - fitted.psi) / errors
    return made.loglik, found.certificate, float(np.nanmax(away))


@from_random_start.register
def _(fit: QuadratureFit, rng: np.random.Generator) -> End:
    found, apart = fit.from_other_start(rng)
    return fit.llf + (found.loglik - fit.optimum.loglik), found.certificate, apart


def loglik_without(fitted: LmmFit, gone: Collection[int]) -> float:
    """Log-likelihood without the random effects at positions ``gone`` of u, other parameters re-estimated.

    Raises
    ------
    EffectError
        That model cannot be fitted.
    """
    working, reml = fitted.working, fitted.reml
    keep = np.array([k for k in range(working.problem.n_random) if k not in gone], dtype=int)
    if not len(keep):
        if working.problem.n_strata > 1:
            raise EffectError("without these effects no random effect is left in two equations; compare() two fits")
        return regression_loglik(working.problem, working.units, reml=reml)
    rest = only_effects(working, keep)
    try:
        optimum = best_optimum(rest.problem, rest.blocks, reml=reml)
    except NotIdentifiedError as error:
        raise EffectError(f"the model under the hypothesis cannot be fitted: {error}") from error
    if not optimum.certificate.converged:
        raise EffectError(f"the fit under the hypothesis is not certified: {optimum.certificate.complaint}")
    shift = rest.units.criterion_shift(rest.problem.nobs, reml=reml)
    return -0.5 * (optimum.evaluation.value + shift)
