"""Tidy tables of a fitted model; every one has the columns of ``mlmed.effects.delta.COLUMNS``."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from mlmed.effects.delta import COLUMNS, delta_table
from mlmed.effects.quantity import Quantity
from mlmed.fit.lmm import Fitted
from mlmed.fit.names import (
    RESIDUAL,
    parameters,
    qualified,
    shown_clusters,
    variance_floor,
)
from mlmed.fit.vcov import covariance
from mlmed.intervals.functions import parameters_at
from mlmed.intervals.smallsample import errors_and_df
from mlmed.lmm.estimates import Estimates
from mlmed.lmm.ranef import conditional_modes
from mlmed.options import check_level

__all__ = ["fixef_table", "glance_table", "ranef_table", "sections", "tidy_table", "varcorr_table"]


def fixef_table(fitted: Fitted, *, vcov: str, level: float, ddf: str = "none") -> pd.DataFrame:
    """Fixed effects."""
    p, own = len(fitted.estimates.beta), parameters(fitted)

    def slopes(estimates: Estimates) -> list[Quantity]:
        return list(parameters_at(own, estimates).values())[:p]

    found = errors_and_df(fitted, slopes(fitted.estimates), slopes, vcov=vcov, order="second", ddf=ddf)
    return found.table(slopes(fitted.estimates), level=level)


def varcorr_table(fitted: Fitted, *, level: float, vcov: str = "block") -> pd.DataFrame:
    """Variances and covariances of the random effects, then residual variances, with ``sdcorr``."""
    estimates, group = fitted.estimates, fitted.group_name
    entries = list(parameters_at(parameters(fitted), estimates).values())[len(estimates.beta) :]
    table = delta_table(entries, covariance(fitted, vcov), level=level)
    residual = sd_and_correlation(estimates.Sigma, estimates.sigma_at)
    table.insert(0, "group", [group] * len(estimates.tau) + [RESIDUAL] * len(estimates.sigma2))
    table.insert(3, "sdcorr", [*sd_and_correlation(estimates.G, estimates.tau_at), *residual])
    return table


def sd_and_correlation(matrix: NDArray[np.float64], at: NDArray[np.intp]) -> list[float]:
    """Standard deviations and correlations of a covariance matrix at the entries ``at``, (n, 2); NaN beside a 0."""
    sd = np.sqrt(np.diag(matrix))
    return [
        float(sd[i]) if i == j else float(matrix[i, j] / (sd[i] * sd[j])) if sd[i] * sd[j] > 0.0 else np.nan
        for i, j in at
    ]


def tidy_table(fitted: Fitted, *, vcov: str, level: float, ddf: str = "none") -> pd.DataFrame:
    """All estimates in broom.mixed's columns."""
    fixed = fixef_table(fitted, vcov=vcov, level=level, ddf=ddf).assign(effect="fixed", group="")
    random = varcorr_table(fitted, vcov=vcov, level=level).drop(columns="sdcorr").assign(effect="ran_pars")
    table = pd.concat([fixed, random], ignore_index=True)
    table["equation"] = [one.equation for one in parameters(fitted)]
    return table[["effect", "equation", "group", *COLUMNS]]


def ranef_table(fitted: Fitted, *, level: float) -> pd.DataFrame:
    """Conditional modes with their standard deviations and shrinkage, one row per effect and cluster."""
    level = check_level(level)
    optimum, working = fitted.optimum, fitted.working
    found = conditional_modes(working.problem, optimum.L, optimum.sigma2, optimum.evaluation.beta, working.units.Z_map)
    value = found.modes.ravel()
    variances, prior = np.einsum("aaj->aj", found.covariances), np.diag(fitted.estimates.G)[:, None]
    se = np.sqrt(variances).ravel()
    known = prior > variance_floor(fitted)[:, None]
    shrinkage = np.divide(variances, prior, out=np.full_like(variances, np.nan), where=known)
    names, J = qualified(fitted, "random"), len(fitted.clusters)
    z = float(ndtri(0.5 + level / 2.0))
    return pd.DataFrame(
        {
            "group_var": fitted.group_name,
            "effect": np.repeat(names, J),
            "group": np.tile(shown_clusters(fitted.clusters), len(names)),
            "estimate": value,
            "std_error": se,
            "conf_low": value - z * se,
            "conf_high": value + z * se,
            "shrinkage": shrinkage.ravel(),
        }
    )


def glance_table(fitted: Fitted) -> pd.DataFrame:
    """One row about the fit as a whole."""
    row = {
        "method": fitted.spec.method,
        "nobs": fitted.nobs,
        "n_clusters": len(fitted.clusters),
        "llf": fitted.estimates.loglik,
        "aic": fitted.aic,
        "bic": fitted.bic,
        "converged": fitted.converged,
        "is_singular": fitted.is_singular,
        "gradient_norm": fitted.optimum.certificate.gradient_norm,
        "n_starts": fitted.optimum.searched.starts,
        "n_optima": fitted.optimum.searched.n_optima,
    }
    return pd.DataFrame([row])


def sections(fitted: Fitted, *, vcov: str, level: float, ddf: str = "none") -> dict[str, pd.DataFrame]:
    """The tables every fit has, by the name they are exported under."""
    varcorr = varcorr_table(fitted, vcov=vcov, level=level)
    n_tau = len(fitted.estimates.tau)  # clusters may be called Residual, too
    return {
        "fixef": fixef_table(fitted, vcov=vcov, level=level, ddf=ddf),
        "varcorr": varcorr.iloc[:n_tau],
        "residual": varcorr.iloc[n_tau:],
    }
