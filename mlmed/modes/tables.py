"""Tidy tables of a fitted model; every one has the columns of ``mlmed.effects.delta.COLUMNS``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    "Parameter",
    "fixef_table",
    "glance_table",
    "parameter_names",
    "parameters",
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


@dataclass(frozen=True, slots=True)
class Parameter:
    """One entry of psi.

    Attributes
    ----------
    name : str
        ``m:x``, ``var(m:x)``, ``cov(m:x,y:m)``, ``var(m:Residual)``; without the equation where there is only one.
    kind : Kind
        What it is; the name does not say it, as a column may be called ``var(x)``.
    equation : str
        The response that it belongs to, or both, ``m, y``.
    """

    name: str
    kind: Kind
    equation: str


def _prefixes(fitted: Fitted, always: bool) -> list[str]:
    equations = fitted.layout.equations
    return [f"{e.name}:" if always or len(equations) > 1 else "" for e in equations]


def _labels(fitted: Fitted, part: str, prefixes: Sequence[str]) -> list[str]:
    pairs = zip(prefixes, fitted.layout.equations, strict=True)
    found = [prefix + name for prefix, equation in pairs for name in getattr(equation, part)]
    return coefficient_labels(found) if part == "fixed" else random_labels(found, _residuals(prefixes))


def _residuals(prefixes: Sequence[str]) -> list[str]:
    return [prefix + RESIDUAL for prefix in prefixes]


def qualified(fitted: Fitted, part: str, *, always: bool = False) -> list[str]:
    """Labels of the ``fixed`` or ``random`` columns, as ``m:x`` when there are several equations, or ``always``."""
    return _labels(fitted, part, _prefixes(fitted, always))


def residual_names(fitted: Fitted, *, always: bool = False) -> list[str]:
    """What the residual of each equation is called: ``Residual``, or ``m:Residual`` as ``qualified`` has it."""
    return _residuals(_prefixes(fitted, always))


def parameters(fitted: Fitted, *, always: bool = False, prefixes: Sequence[str] | None = None) -> list[Parameter]:
    """Every entry of psi: fixed effects, ``var()``/``cov()`` of random effects, residual variances.

    Parameters
    ----------
    fitted : Fitted
        The fit.
    always : bool
        Named by their equation also where there is only one, as several fits share them.
    prefixes : sequence of str, optional
        What stands before the names of each equation, if not that.
    """
    own = _prefixes(fitted, always) if prefixes is None else prefixes
    equations, estimates = fitted.layout.equations, fitted.estimates
    fixed, random = _labels(fitted, "fixed", own), _labels(fitted, "random", own)
    responses = [e.name for e in equations]
    of = {part: [e.name for e in equations for _ in getattr(e, part)] for part in ("fixed", "random")}
    return [
        *(Parameter(name, "", equation) for name, equation in zip(fixed, of["fixed"], strict=True)),
        *(_entry(random, of["random"], i, j) for i, j in estimates.tau_at),
        *(_entry(_residuals(own), responses, i, j) for i, j in estimates.sigma_at),
    ]


def _entry(names: Sequence[str], equations: Sequence[str], i: int, j: int) -> Parameter:
    """A variance, or a covariance; of a pair the one that stands first in u (j) is named first."""
    first, second = equations[j], equations[i]
    equation = first if first == second else f"{first}, {second}"
    if i == j:
        return Parameter(f"var({names[i]})", "variance", equation)
    return Parameter(f"cov({names[j]},{names[i]})", "covariance", equation)


def parameter_names(fitted: Fitted, *, always: bool = False) -> list[str]:
    """Name of every entry of psi; ``always`` as in ``parameters``."""
    return [one.name for one in parameters(fitted, always=always)]


def psi(fitted: Fitted) -> NDArray[np.float64]:
    """All estimates in the order of ``parameter_names``."""
    return fitted.estimates.psi


def parameters_at(own: Sequence[Parameter], estimates: Estimates) -> dict[str, Quantity]:
    """Every entry of psi as a quantity."""
    values, unit = estimates.psi, np.eye(len(estimates.psi))
    return {one.name: Quantity(one.name, float(values[k]), unit[k], kind=one.kind) for k, one in enumerate(own)}


def fixef_table(fitted: Fitted, *, vcov: str, level: float, ddf: str = "none") -> pd.DataFrame:
    """Fixed effects."""
    return _fixed_and_df(fitted, vcov, level, ddf)[0]


def _fixed_and_df(fitted: Fitted, vcov: str, level: float, ddf: str) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Fixed effects, and their degrees of freedom (p,)."""
    p, own = len(fitted.estimates.beta), parameters(fitted)

    def slopes(estimates: Estimates) -> list[Quantity]:
        return list(parameters_at(own, estimates).values())[:p]

    found = errors_and_df(fitted, slopes(fitted.estimates), slopes, vcov=vcov, order="second", ddf=ddf)
    return found.table(slopes(fitted.estimates), level=level), found.df


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
    fixed, df = _fixed_and_df(fitted, vcov, level, ddf)
    df = np.append(df, np.full(len(psi(fitted)) - len(fixed), np.inf))
    fixed = fixed.assign(effect="fixed", group="")
    random = varcorr_table(fitted, vcov=vcov, level=level).drop(columns="sdcorr").assign(effect="ran_pars")
    table = pd.concat([fixed, random], ignore_index=True)
    table["equation"] = [one.equation for one in parameters(fitted)]
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
