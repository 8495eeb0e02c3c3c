"""The same fit from random starts, as a table."""

from __future__ import annotations

from functools import singledispatch
from typing import Any, Protocol

import numpy as np
import pandas as pd

from mlmed.errors import EffectError, NotIdentifiedError
from mlmed.fit.lmm import LmmFit
from mlmed.fit.quadrature import QuadratureFit
from mlmed.lmm.best import candidates_for
from mlmed.lmm.estimates import to_estimates
from mlmed.lmm.optimum import optimize
from mlmed.lmm.vcov import parameter_vcov
from mlmed.numerics.certificate import Certificate
from mlmed.options import check_count, check_jobs, check_seed
from mlmed.replication import replicate

__all__ = ["End", "from_random_start", "table_of_starts"]


#: Where a search ended: log-likelihood, certificate, distance of the estimates in standard errors.
End = tuple[float, Certificate, float]


class Search(Protocol):
    """One fit from a random start."""

    def __call__(self, rng: np.random.Generator, /) -> End: ...


def table_of_starts(search: Search, llf: float, n: int, *, seed: int, n_jobs: int | None) -> pd.DataFrame:
    """A row per start; start k has child k of the seed, so results do not depend on the number of workers."""
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
    """Where a search from a random start ends; each kind of fit that has starts has its own."""
    raise EffectError(f"{fit.kind} has one optimum, so there are no starts to check")


@from_random_start.register
def _(fitted: LmmFit, rng: np.random.Generator) -> End:
    working, reml = fitted.working, fitted.reml
    material = candidates_for(working.problem, working.blocks, fitted.optimum, reml=reml)
    try:
        start = material.anywhere(fitted.optimum, rng)
        found = optimize(working.problem, working.blocks, reml=reml, theta=start)
    except (NotIdentifiedError, np.linalg.LinAlgError):  # it led to where the likelihood has no maximum
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
