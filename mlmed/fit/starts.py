"""The same fit from random starts, as a table."""

from __future__ import annotations

from functools import partial
from typing import Protocol

import numpy as np
import pandas as pd

from mlmed.errors import NotIdentifiedError
from mlmed.fit.lmm import Fitted
from mlmed.fit.names import psi
from mlmed.lmm.best import candidates_for
from mlmed.lmm.estimates import to_estimates
from mlmed.lmm.optimum import optimize
from mlmed.lmm.vcov import parameter_vcov
from mlmed.numerics.certificate import Certificate
from mlmed.options import check_count, check_jobs, check_seed
from mlmed.replication import replicate

__all__ = ["End", "fits_from_random_starts", "table_of_starts"]


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


def fits_from_random_starts(fitted: Fitted, n: int, *, seed: int, n_jobs: int | None) -> pd.DataFrame:
    """``table_of_starts`` of a mixed model."""
    return table_of_starts(partial(_from_random_start, fitted), fitted.estimates.loglik, n, seed=seed, n_jobs=n_jobs)


def _from_random_start(fitted: Fitted, rng: np.random.Generator) -> tuple[float, Certificate, float]:
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
    away = np.abs(np.concatenate([made.beta, made.tau, made.sigma2]) - psi(fitted)) / errors
    return made.loglik, found.certificate, float(np.nanmax(away))
