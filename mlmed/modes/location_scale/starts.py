"""The same fit from random starts."""

from __future__ import annotations

import pandas as pd

from mlmed.locscale.fit import Fit
from mlmed.modes.checks import check_count, check_jobs, check_seed
from mlmed.replicate import replicate

__all__ = ["starts_table"]


def starts_table(fit: Fit, n: int, *, seed: int, n_jobs: int | None) -> pd.DataFrame:
    """A row per start; start k has child k of the seed, so results do not depend on the number of workers."""
    n, seed, n_jobs = check_count(n, "starts"), check_seed(seed, "check_starts()"), check_jobs(n_jobs)
    shift = fit.estimates.loglik - fit.optimum.loglik
    rows = []
    for k, (found, apart) in enumerate(replicate(fit.from_other_start, n, seed=seed, n_jobs=n_jobs)):
        certificate = found.certificate
        rows.append(
            {
                "start": k + 1,
                "llf": found.loglik + shift,
                "difference": found.loglik - fit.optimum.loglik,
                "gradient_norm": certificate.gradient_norm,
                "newton_decrement": certificate.newton_decrement,
                "converged": certificate.converged,
                "apart": apart,
            }
        )
    return pd.DataFrame(rows)
