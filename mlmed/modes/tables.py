"""Tidy tables of a fitted model; every one has the columns of ``mlmed.effects.delta.COLUMNS``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from mlmed.effects.delta import delta_table
from mlmed.effects.quantity import Kind, Quantity
from mlmed.modes.covariance import covariance
from mlmed.modes.fitting import Fitted
from mlmed.modes.labels import coefficient_labels, random_labels
from mlmed.modes.smallsample import errors_and_df
from mlmed.options import check_level
from mlmed.reml.estimates import Estimates
from mlmed.reml.ranef import conditional_modes

__all__ = [
    "fixef_table",
    "glance_table",
    "parameter_names",
    "parameters_at",
    "psi",
    "qualified",
    "ranef_table",
    "residual_names",
    "sections",
    "shown_clusters",
    "tidy_table",
    "varcorr_table",
    "variance_floor",
]

#: An sd below this, where responses and columns have sd 1, is rounding.
TINY = 1e-10
RESIDUAL = "Residual"


def qualified(fitted: Fitted, part: str, *, always: bool = False) -> list[str]:
    """Labels of the ``fixed`` or ``random`` columns, as ``m:x`` when there are several equations, or ``always``."""
    equations = fitted.layout.equations
    named = always or len(equations) > 1
    found = [f"{e.name}:{name}" if named else name for e in equations for name in getattr(e, part)]
    return coefficient_labels(found) if part == "fixed" else random_labels(found, residual_names(fitted, always=always))


def residual_names(fitted: Fitted, *, always: bool = False) -> list[str]:
    """What the residual of each equation is called: ``Residual``, or ``m:Residual`` as ``qualified`` has it."""
    equations = fitted.layout.equations
    return [f"{e.name}:{RESIDUAL}" if always or len(equations) > 1 else RESIDUAL for e in equations]


def parameter_names(fitted: Fitted, *, always: bool = False) -> list[str]:
    """Name of every entry of psi: fixed effects, ``var()``/``cov()`` of random effects, residual variances.

    ``always``: named by their equation also where there is only one, as several fits share them.
    """
    random, own = qualified(fitted, "random", always=always), residual_names(fitted, always=always)
    # cov(m:x,y:m): the effect that stands first in u is named first
    tau = [f"var({random[i]})" if i == j else f"cov({random[j]},{random[i]})" for i, j in fitted.estimates.tau_at]
    residual = [f"var({own[i]})" if i == j else f"cov({own[j]},{own[i]})" for i, j in fitted.estimates.sigma_at]
    return [*qualified(fitted, "fixed", always=always), *tau, *residual]


def psi(fitted: Fitted) -> NDArray[np.float64]:
    """All estimates in the order of ``parameter_names``."""
    return fitted.estimates.psi


def parameters_at(names: list[str], estimates: Estimates) -> dict[str, Quantity]:
    """Every entry of psi as a quantity."""
    values, unit = estimates.psi, np.eye(len(estimates.psi))
    kinds: list[Kind] = [""] * len(estimates.beta)
    kinds += ["variance" if i == j else "covariance" for at in (estimates.tau_at, estimates.sigma_at) for i, j in at]
    return {name: Quantity(name, float(values[k]), unit[k], kind=kinds[k]) for k, name in enumerate(names)}


def fixef_table(fitted: Fitted, *, vcov: str, level: float, ddf: str = "none") -> pd.DataFrame:
    """Fixed effects."""
    return _fixed_and_df(fitted, vcov, level, ddf)[0]


def _fixed_and_df(fitted: Fitted, vcov: str, level: float, ddf: str) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Fixed effects, and their degrees of freedom (p,)."""
    p, names = len(fitted.estimates.beta), parameter_names(fitted)

    def slopes(estimates: Estimates) -> list[Quantity]:
        return list(parameters_at(names, estimates).values())[:p]

    found = errors_and_df(fitted, slopes(fitted.estimates), slopes, vcov=vcov, order="second", ddf=ddf)
    return found.table(slopes(fitted.estimates), level=level), found.df


def varcorr_table(fitted: Fitted, *, level: float, vcov: str = "block") -> pd.DataFrame:
    """Variances and covariances of the random effects, then residual variances, with ``sdcorr``."""
    estimates, group = fitted.estimates, fitted.group_name
    entries = list(parameters_at(parameter_names(fitted), estimates).values())[len(estimates.beta) :]
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
    fixed, df = _fixed_and_df(fitted, vcov, level, ddf)
    df = np.append(df, np.full(len(psi(fitted)) - len(fixed), np.inf))
    fixed = fixed.assign(effect="fixed", group="")
    random = varcorr_table(fitted, vcov=vcov, level=level).drop(columns="sdcorr").assign(effect="ran_pars")
    table = pd.concat([fixed, random], ignore_index=True)
    equations = fitted.layout.equations
    own = [e.name for e in equations for _ in e.fixed]
    of = [e.name for e in equations for _ in e.random]
    responses = [e.name for e in equations]
    pairs = [
        names[i] if names[i] == names[j] else f"{names[j]}, {names[i]}"
        for names, at in ((of, fitted.estimates.tau_at), (responses, fitted.estimates.sigma_at))
        for i, j in at
    ]
    table["equation"] = [*own, *pairs]
    table["df"] = df
    columns = ["effect", "equation", "group", "term", "estimate", "std_error", "statistic", "df"]
    return table[[*columns, "p_value", "conf_low", "conf_high", "note"]]


def variance_floor(fitted: Fitted) -> NDArray[np.float64]:
    """Variances (q,) of random effects up to which they are 0, as an optimum on the boundary leaves rounding."""
    Z_map = fitted.working.units.Z_map
    return TINY**2 * np.einsum("ab,ab->a", Z_map, Z_map)


def shown_clusters(clusters: pd.Index) -> NDArray[Any]:
    """Cluster ids as a column; the parts of a combined id joined by a colon."""
    if isinstance(clusters, pd.MultiIndex):
        return np.array([":".join(map(str, parts)) for parts in clusters], dtype=object)
    return np.asarray(clusters.to_numpy())


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
            "value": value,
            "se": se,
            "lower": value - z * se,
            "upper": value + z * se,
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
