"""The same fit from random starts."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mlmed.modes.checks import check_count, check_seed
from mlmed.modes.fitting import Fitted
from mlmed.modes.tables import psi
from mlmed.reml.estimates import to_estimates
from mlmed.reml.fit import optimize
from mlmed.reml.start import random_theta
from mlmed.reml.vcov import parameter_vcov

__all__ = ["fits_from_random_starts"]


def fits_from_random_starts(fitted: Fitted, n: int, *, seed: int) -> pd.DataFrame:
    """One row per start: where it ended, its certificate, and how far its estimates are from the fit's."""
    check_count(n, "starts")
    rng = np.random.default_rng(check_seed(seed, "check_starts()"))
    working, reml = fitted.working, fitted.reml
    with np.errstate(invalid="ignore"):
        errors = np.sqrt(np.diag(parameter_vcov(fitted.estimates).matrix))
    rows = []
    for k in range(n):
        start = random_theta(working.problem, working.blocks, rng)
        found = optimize(working.problem, working.blocks, reml=reml, theta=start)
        made, certificate = to_estimates(working, found, reml=reml), found.certificate
        away = np.abs(np.concatenate([made.beta, made.tau, made.sigma2]) - psi(fitted)) / errors
        rows.append(
            {
                "start": k + 1,
                "llf": made.loglik,
                "difference": made.loglik - fitted.estimates.loglik,
                "gradient_norm": certificate.gradient_norm,
                "newton_decrement": certificate.newton_decrement,
                "converged": certificate.converged,
                "apart": float(np.nanmax(away)),
            }
        )
    return pd.DataFrame(rows)
