"""Tidy tables of a location-scale model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from mlmed.data.layout import INTERCEPT
from mlmed.effects.delta import COLUMNS, delta_table
from mlmed.effects.quantity import Quantity
from mlmed.effects.sdcor import linear_covariance, sdcor_quantities
from mlmed.fit.labels import location_labels
from mlmed.fit.names import shown_clusters
from mlmed.fit.protocol import Kind
from mlmed.lmm.vcov import Vcov
from mlmed.names import labelled
from mlmed.numerics.certificate import NODE_CHANGE
from mlmed.options import check_level
from mlmed.quadrature.fit import Fit
from mlmed.quadrature.rows import SCALE

__all__ = [
    "fixed_names",
    "fixef_table",
    "glance_table",
    "quantities",
    "random_names",
    "ranef_table",
    "scale_table",
    "sdcor_table",
    "tidy_table",
    "varcorr_table",
]

Array = NDArray[np.float64]


def fixed_names(fit: Fit) -> list[str]:
    """Fixed effects, those of the scale as ``sigma~x``."""
    return _labels(fit.rows.location.fixed_names, fit.rows.scale.fixed_names)


def random_names(fit: Fit) -> list[str]:
    """Random effects, location first."""
    return _labels(fit.rows.location.random_names, fit.rows.scale.random_names)


def _labels(location: Sequence[str], scale: Sequence[str]) -> list[str]:
    return [*location_labels(location, SCALE), *(labelled(SCALE, name) for name in scale)]


def quantities(fit: Fit) -> dict[str, Quantity]:
    """Fixed effects, ``var()``, ``cov()``, ``sd()`` and ``cor()`` of random effects with derivatives in psi."""
    estimates, random = fit.estimates, random_names(fit)
    unit = np.eye(len(estimates.psi))
    names = fixed_names(fit)
    first = len(names)
    found = {name: Quantity(name, float(estimates.psi[k]), unit[k]) for k, name in enumerate(names)}
    for k, (i, j) in enumerate(estimates.cov_at, start=first):
        name = f"var({random[i]})" if i == j else f"cov({random[j]},{random[i]})"
        kind: Kind = "variance" if i == j else "covariance"
        found[name] = Quantity(name, float(estimates.psi[k]), unit[k], kind=kind)
    return found | _sdcor(fit)


def _sdcor(fit: Fit) -> dict[str, Quantity]:
    """Standard deviations, then correlations of the random effects."""
    estimates = fit.estimates
    G = linear_covariance(
        random_names(fit),
        np.array(estimates.cov_at, dtype=np.intp).reshape(-1, 2),
        len(fixed_names(fit)),
        len(estimates.psi),
    )
    return sdcor_quantities(G, estimates.psi)


def _table(fit: Fit, asked: Iterable[Quantity], level: float) -> pd.DataFrame:
    return delta_table(list(asked), Vcov.one(fit.estimates.vcov, fit.estimates.reason), level=level)


def fixef_table(fit: Fit, *, level: float) -> pd.DataFrame:
    """Fixed effects of the location and of the log residual sd."""
    return _table(fit, list(quantities(fit).values())[: len(fixed_names(fit))], level)


def varcorr_table(fit: Fit, *, level: float) -> pd.DataFrame:
    """Variances and covariances of the random effects."""
    return _table(fit, [q for q in quantities(fit).values() if q.kind in ("variance", "covariance")], level)


def sdcor_table(fit: Fit, *, level: float) -> pd.DataFrame:
    """Standard deviations (interval on the log scale) and correlations (interval by Fisher's z)."""
    return _table(fit, _sdcor(fit).values(), level)


def scale_table(fit: Fit, *, level: float) -> pd.DataFrame:
    """Scale effects as residual sds and factors: exp of the coefficients and of their intervals."""
    table = fixef_table(fit, level=level).iloc[len(fit.rows.location.fixed_names) :].reset_index(drop=True)
    ratio = np.array([name != INTERCEPT for name in fit.rows.scale.fixed_names])
    notes = ["factor of the residual sd per unit" if r else "residual sd where scale predictors are 0" for r in ratio]
    with np.errstate(over="ignore"):  # a factor beyond 1e308 is infinite
        estimate, low, high = (np.exp(table[name]) for name in ("estimate", "conf_low", "conf_high"))
    return table.assign(
        term=[f"exp({term})" for term in table["term"]],
        estimate=estimate,
        std_error=estimate * table["std_error"],
        statistic=table["statistic"].where(ratio),
        p_value=table["p_value"].where(ratio),
        conf_low=low,
        conf_high=high,
        note=notes,
    )


def tidy_table(fit: Fit, *, level: float) -> pd.DataFrame:
    """All estimates in broom.mixed's columns; random effects as sds and correlations."""
    group = ":".join(fit.rows.group)
    fixed = fixef_table(fit, level=level).assign(effect="fixed", group="")
    random = sdcor_table(fit, level=level).assign(effect="ran_pars", group=group)
    table = pd.concat([fixed, random], ignore_index=True)
    return table[["effect", "group", *COLUMNS]]


def glance_table(fit: Fit) -> pd.DataFrame:
    """One row about the fit as a whole."""
    certificate, n = fit.optimum.certificate, len(fit.estimates.psi)
    llf, nobs = fit.estimates.loglik, fit.problem.nobs
    row = {
        "method": "ml",
        "nobs": nobs,
        "n_clusters": fit.problem.J,
        "llf": llf,
        "aic": -2.0 * llf + 2.0 * n,
        "bic": -2.0 * llf + np.log(nobs) * n,
        "converged": certificate.converged,
        "is_singular": fit.estimates.rank < len(fit.estimates.G),
        "gradient_norm": certificate.gradient_norm,
        "newton_decrement": certificate.newton_decrement,
        "smallest_curvature": certificate.smallest_curvature,
        "nodes": fit.optimum.nodes_per_dimension,
        "node_change": certificate.value(NODE_CHANGE),
        "evaluations": fit.optimum.evaluations,
    }
    return pd.DataFrame([row])


def ranef_table(fit: Fit, *, level: float) -> pd.DataFrame:
    """Posterior means of the random effects with their sds, one row per effect and cluster."""
    level = check_level(level)
    found, names = fit.effects(), random_names(fit)
    value, se = found.mean.T.ravel(), found.sd.T.ravel()
    z = float(ndtri(0.5 + level / 2.0))
    return pd.DataFrame(
        {
            "group_var": ":".join(fit.rows.group),
            "effect": np.repeat(names, fit.problem.J),
            "group": np.tile(shown_clusters(fit.rows.clusters), len(names)),
            "estimate": value,
            "std_error": se,
            "conf_low": value - z * se,
            "conf_high": value + z * se,
        }
    )
