"""Tables of estimates; every one has the columns of ``mlmed.effects.delta.COLUMNS``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from mlmed.effects.catalogue import NoEffects, parameter_quantities
from mlmed.effects.counterfactual import SHARED, CounterfactualCatalogue
from mlmed.effects.delta import COLUMNS, delta_table, wald_table
from mlmed.effects.quantity import Quantity
from mlmed.errors import EffectError
from mlmed.fit.lmm import LmmFit
from mlmed.fit.names import RESIDUAL, parameter_names, parameters, qualified, shown_clusters, variance_floor
from mlmed.fit.protocol import Fit
from mlmed.fit.quadrature import QuadratureFit
from mlmed.fit.same_rows import SameRowsFit, family_of
from mlmed.fit.system import Component, SystemFit
from mlmed.intervals.functions import function_table, parameters_at
from mlmed.intervals.sdcor import (
    NUMBERS,
    correlations_table,
    fit_sdcor_quantities,
    fit_sdcor_table,
    sdcor_of,
    system_sdcor_table,
)
from mlmed.intervals.smallsample import errors_and_df
from mlmed.lmm.estimates import Estimates
from mlmed.lmm.ranef import conditional_modes
from mlmed.numerics.certificate import NODE_CHANGE
from mlmed.options import DDF_KINDS, check_level, one_of
from mlmed.results.abilities import Held, only
from mlmed.results.comparison import missing_effects
from mlmed.results.inference import effect_set, effects, effects_reason, kind_of, quantities


def fixef(self: Held, *, vcov: str | None = None, level: float = 0.95, ddf: str | None = None) -> pd.DataFrame:
    """Fixed effects: term, estimate, std_error, statistic, df, p_value, conf_low, conf_high, note.

    ``ddf`` as in ``tidy``; it says whose degrees of freedom ``df`` are.
    """
    return fixed_table(self.fit, vcov=kind_of(self.fit, vcov), level=level, ddf="none" if ddf is None else ddf)


def varcorr(self: Held, *, vcov: str | None = None, level: float = 0.95) -> pd.DataFrame:
    """Variances and covariances of the random effects, and residual variances.

    Variances have intervals on the log scale, covariances plain ones (as Stata prints them). ``sdcorr`` is
    the standard deviation or the correlation.
    """
    return variance_table(self.fit, vcov=kind_of(self.fit, vcov), level=level)


def sdcor(self: Held, *, vcov: str | None = None, level: float = 0.95) -> pd.DataFrame:
    """Standard deviations and correlations of random effects and residuals, as brms prints them.

    Errors are first-order; intervals of sds are formed on the log scale, those of correlations by Fisher's z.
    ``block`` and ``joint`` agree here, as they differ in the fixed effects only. On the boundary there is no error,
    and no correlation with an effect whose variance is 0: NaN, and the reason in ``note``.

    Returns
    -------
    DataFrame
        group, term (``sd(m~x)``, ``cor(m~Intercept,y~Intercept)``, ``sd(m~Residual)``), estimate, std_error,
        conf_low, conf_high, note. ``nlcom``, ``profile`` and ``test`` know the terms, too.

    Examples
    --------
    >>> import mlmed
    >>> df = mlmed.datasets.load("yuan_mackinnon_sim")
    >>> fit = mlmed.mixed(["Med ~ X + (1 |c| group)", "y ~ X + (1 |c| group)"], df)
    >>> fit.sdcor().set_index("term")["estimate"].round(3).tail(3).to_dict()
    {'cor(Med~Intercept,y~Intercept)': -0.136, 'sd(Med~Residual)': 1.774, 'sd(y~Residual)': 1.673}
    """
    return root_table(self.fit, vcov=kind_of(self.fit, vcov), level=level)


@only(LmmFit)
def correlations(self: Held, *, vcov: str | None = None, level: float = 0.95) -> pd.DataFrame:
    """The correlations of ``sdcor``, between clusters (random effects) and within (residuals of a row).

    Returns
    -------
    DataFrame
        part (``between``, ``within``), equation1, equation2, term1, term2, estimate, std_error, conf_low,
        conf_high, note; without rows where the model has no correlation.
    """
    return correlations_table(self.fit, vcov=kind_of(self.fit, vcov), level=level)


def tidy(self: Held, *, vcov: str | None = None, level: float = 0.95, ddf: str | None = None) -> pd.DataFrame:
    """All estimates in broom.mixed's columns: effect, equation, group, term, estimate, std_error, ...

    Parameters
    ----------
    vcov : {"block", "joint", "cluster", "CR0", "CR1", "CR2"}
        Covariance of the estimates; see docs/standard_errors.md.
    level : float
        Coverage of the intervals, a proportion.
    ddf : {"none", "satterthwaite", "kenward-roger", "residual"}
        Degrees of freedom of the fixed effects: t instead of z. ``kenward-roger`` also adjusts the standard
        errors (REML only).

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> table = fit.tidy(ddf="kenward-roger").set_index("term").loc["X", ["std_error", "df"]]
    >>> table.astype(float).round(4).to_dict()
    {'std_error': 0.1139, 'df': 48.9993}
    """
    fixed = fixef(self, vcov=vcov, level=level, ddf=ddf).assign(effect="fixed", group="")
    random = varcorr(self, vcov=vcov, level=level).assign(effect="ran_pars")
    table = pd.concat([part for part in (fixed, random) if len(part)], ignore_index=True)
    place = {one.name: k for k, one in enumerate(self.fit.parameters)}
    table = table.iloc[np.argsort([place[term] for term in table["term"]])].reset_index(drop=True)
    table["equation"] = [one.equation for one in self.fit.parameters]
    return table[["effect", "equation", "group", *COLUMNS]]


def glance(self: Held) -> pd.DataFrame:
    """One row: nobs, n_clusters, llf, aic, bic, converged, is_singular and the certificate."""
    found = about(self.fit)
    if isinstance(self.catalogue, CounterfactualCatalogue):
        found["interaction"] = self.catalogue.effects(self.fit).interaction
    return pd.DataFrame([found])


def comparable(self: Held, *, level: float = 0.95) -> pd.DataFrame:
    """Effects (without numbers where there are none), then all estimates, under the names that all fits share."""
    shared, table = shared_terms(self.fit), tidy(self, level=level)[list(COLUMNS)]
    table = table[table["term"].isin(shared)].replace({"term": shared}).reset_index(drop=True)
    if isinstance(self.catalogue, NoEffects):
        return table
    reason = effects_reason(self)
    shown = missing_effects(reason, self.catalogue.terms) if reason else effects(self, level=level)
    if isinstance(self.catalogue, CounterfactualCatalogue):
        shown = shown.set_index("term").loc[list(SHARED.values())].reset_index().assign(term=list(SHARED))
    return pd.concat([shown, table], ignore_index=True)


def combined(self: Held, expression: str, *, level: float = 0.95) -> pd.DataFrame:
    """``nlcom`` with the names of ``comparable``."""
    known = quantities(self)
    known |= {new: known[old].named(new) for old, new in shared_terms(self.fit).items() if old in known}
    return function_table(expression, known, effect_set(self).vcov(), order=self.catalogue.order, level=level)


@singledispatch
def fixed_table(fit: Any, *, vcov: str, level: float, ddf: str = "none") -> pd.DataFrame:
    """Fixed effects, with t tests where the fit has degrees of freedom for them.

    Raises
    ------
    EffectError
        Degrees of freedom that only a mixed model has.
    """
    if one_of(ddf, DDF_KINDS, "ddf") != "none":
        raise EffectError(f"ddf={ddf!r} is for linear mixed models; this is {fit.kind}")
    listed = [quantity for quantity in parameter_quantities(fit).values() if not quantity.kind]
    return delta_table(listed, fit.vcov(vcov), level=level, df=fit.df)


@fixed_table.register
def _(fit: SystemFit, *, vcov: str, level: float, ddf: str = "none") -> pd.DataFrame:
    return _below(fit, lambda one: fixed_table(one, vcov=vcov, level=level, ddf=ddf))


def _below(fit: SystemFit, table_of: Callable[[Component], pd.DataFrame]) -> pd.DataFrame:
    """Tables of the components below each other, under the names of the system."""
    tables = []
    for component, part in zip(fit.components.values(), fit.parts, strict=True):
        names = dict(zip([one.name for one in component.parameters], fit.parameters[part], strict=True))
        table = table_of(component)
        tables.append(table.assign(term=[names[term].name for term in table["term"]]))
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


@fixed_table.register
def _(fit: LmmFit, *, vcov: str, level: float, ddf: str = "none") -> pd.DataFrame:
    p, own = len(fit.estimates.beta), parameters(fit)

    def slopes(estimates: Estimates) -> list[Quantity]:
        return list(parameters_at(own, estimates).values())[:p]

    found = errors_and_df(fit, slopes(fit.estimates), slopes, vcov=vcov, order="second", ddf=ddf)
    return found.table(slopes(fit.estimates), level=level)


@singledispatch
def variance_table(fit: Any, *, vcov: str, level: float) -> pd.DataFrame:
    """Variances and covariances, with their ``group``."""
    listed = [quantity for quantity in parameter_quantities(fit).values() if quantity.kind]
    table = delta_table(listed, fit.vcov(vcov), level=level)
    table.insert(0, "group", fit.group_name)
    return table


@variance_table.register
def _(fit: SystemFit, *, vcov: str, level: float) -> pd.DataFrame:
    return _below(fit, lambda one: variance_table(one, vcov=vcov, level=level))


@variance_table.register
def _(fit: LmmFit, *, vcov: str, level: float) -> pd.DataFrame:
    """Variances and covariances of the random effects, then residual variances, with ``sdcorr``."""
    estimates = fit.estimates
    entries = list(parameter_quantities(fit).values())[len(estimates.beta) :]
    table = delta_table(entries, fit.vcov(vcov), level=level)
    residual = sd_and_correlation(estimates.Sigma, estimates.sigma_at)
    table.insert(0, "group", [fit.group_name] * len(estimates.tau) + [RESIDUAL] * len(estimates.sigma2))
    table.insert(3, "sdcorr", [*sd_and_correlation(estimates.G, estimates.tau_at), *residual])
    return table


@singledispatch
def root_table(fit: Any, *, vcov: str, level: float) -> pd.DataFrame:
    """Standard deviations and correlations; no rows without random effects."""
    table = delta_table(list(sdcor_of(fit).values()), fit.vcov(vcov), level=level)
    return table.assign(group=fit.group_name)[["group", "term", *NUMBERS]]


@root_table.register
def _(fit: LmmFit, *, vcov: str, level: float) -> pd.DataFrame:
    return fit_sdcor_table(fit, vcov=vcov, level=level)


@root_table.register
def _(fit: SystemFit, *, vcov: str, level: float) -> pd.DataFrame:
    return system_sdcor_table(fit, vcov=vcov, level=level)


@singledispatch
def residual_rows(fit: Any) -> list[bool]:
    """Which rows of ``varcorr`` are of residuals."""
    return [False for one in fit.parameters if one.kind]


@residual_rows.register
def _(fit: LmmFit) -> list[bool]:
    return [False] * len(fit.estimates.tau) + [True] * len(fit.estimates.sigma2)  # clusters may be called Residual, too


@residual_rows.register
def _(fit: SystemFit) -> list[bool]:
    return [one for component in fit.components.values() for one in residual_rows(component)]


def sd_and_correlation(matrix: NDArray[np.float64], at: NDArray[np.intp]) -> list[float]:
    """Standard deviations and correlations of a covariance matrix at the entries ``at``, (n, 2); NaN beside a 0."""
    sd = np.sqrt(np.diag(matrix))
    return [
        float(sd[i]) if i == j else float(matrix[i, j] / (sd[i] * sd[j])) if sd[i] * sd[j] > 0.0 else np.nan
        for i, j in at
    ]


@singledispatch
def shared_terms(fit: Any) -> dict[str, str]:
    """Names of the parameters that several fits share: by their equation, also where there is only one."""
    return {one.name: one.name for one in fit.parameters}


@shared_terms.register
def _(fit: LmmFit) -> dict[str, str]:
    own, shared = (
        [*parameter_names(fit, called=called), *fit_sdcor_quantities(fit, fit.estimates, called=called)]
        for called in (False, True)
    )
    return dict(zip(own, shared, strict=True))


@shared_terms.register
def _(fit: SystemFit) -> dict[str, str]:
    """Those of equations that describe a response once more have no others to stand beside."""
    own, once = zip(fit.components.values(), fit.parts, strict=True), list(map(id, fit.once))
    return {one.name: one.name for component, part in own if id(component) in once for one in fit.parameters[part]}


@shared_terms.register
def _(fit: QuadratureFit) -> dict[str, str]:
    return dict(zip([one.name for one in fit.parameters], [one.name for one in fit.named(always=True)], strict=True))


def effects_section(self: Held, *, level: float, **options: Any) -> pd.DataFrame:
    """The effects, or no rows where the model defines none and nobody asks for them."""
    given = {name: value for name, value in options.items() if value is not None}
    if effects_reason(self) and given.keys() <= {"vcov", "ddf"}:  # which other tables use
        return wald_table([], np.empty(0), np.empty(0))
    return effects(self, level=level, **given)


@singledispatch
def about(fit: Any) -> dict[str, Any]:
    """What there is to say of a fit as a whole."""
    n = fit.n_parameters
    return {
        "method": fit.method,
        "nobs": fit.nobs,
        "n_clusters": len(fit.clusters),
        "llf": fit.llf,
        "aic": -2.0 * fit.llf + 2.0 * n,
        "bic": -2.0 * fit.llf + float(np.log(fit.nobs)) * n,
        "converged": fit.converged,
        "is_singular": fit.is_singular,
    }


@about.register
def _(fit: SameRowsFit) -> dict[str, Any]:
    """Also of each equation; there are no clusters where no column names them."""
    parts = list(zip("my", fit.components.values(), strict=True))
    return {
        **about.dispatch(object)(fit),
        "n_clusters": len(fit.clusters) if fit.group else None,
        **{f"family_{role}": family_of(one) for role, one in parts},
        **{f"llf_{role}": one.llf for role, one in parts},
        "vcov": fit.usual,
    }


@about.register
def _(fit: LmmFit) -> dict[str, Any]:
    found: dict[str, Any] = about.dispatch(object)(fit)
    found["gradient_norm"] = fit.optimum.certificate.gradient_norm
    return {**found, "n_starts": fit.optimum.searched.starts, "n_optima": fit.optimum.searched.n_optima}


@about.register
def _(fit: QuadratureFit) -> dict[str, Any]:
    certificate = fit.optimum.certificate
    return {
        **about.dispatch(object)(fit),
        "gradient_norm": certificate.gradient_norm,
        "newton_decrement": certificate.newton_decrement,
        "smallest_curvature": certificate.smallest_curvature,
        "nodes": fit.nodes,
        "node_change": certificate.value(NODE_CHANGE),
        "evaluations": fit.optimum.evaluations,
    }


@singledispatch
def ranef_table(fit: Any, *, level: float) -> pd.DataFrame:
    """Random effects with their standard deviations, one row per effect and cluster; each kind of fit has its own.

    Raises
    ------
    EffectError
        The fit has no random effects.
    """
    raise EffectError(f"{fit.kind} has no random effects")


@ranef_table.register
def _(fit: LmmFit, *, level: float) -> pd.DataFrame:
    """Conditional modes, and shrinkage."""
    optimum, working = fit.optimum, fit.working
    found = conditional_modes(working.problem, optimum.L, optimum.sigma2, optimum.evaluation.beta, working.units.Z_map)
    variances, prior = np.einsum("aaj->aj", found.covariances), np.diag(fit.estimates.G)[:, None]
    known = prior > variance_floor(fit)[:, None]
    shrinkage = np.divide(variances, prior, out=np.full_like(variances, np.nan), where=known)
    table = effects_by_cluster(fit, qualified(fit, "random"), found.modes, np.sqrt(variances), level=level)
    return table.assign(shrinkage=shrinkage.ravel())


@ranef_table.register
def _(fit: QuadratureFit, *, level: float) -> pd.DataFrame:
    """Posterior means."""
    return effects_by_cluster(fit, fit.random_names, fit.posterior.mean.T, fit.posterior.sd.T, level=level)


def effects_by_cluster(
    fit: Fit, names: Sequence[str], values: NDArray[np.float64], errors: NDArray[np.float64], *, level: float
) -> pd.DataFrame:
    """The rows of ``ranef``, from values and standard deviations (q, J)."""
    half = float(ndtri(0.5 + check_level(level) / 2.0)) * errors.ravel()
    return pd.DataFrame(
        {
            "group_var": fit.group_name,
            "effect": np.repeat(names, len(fit.clusters)),
            "group": np.tile(shown_clusters(fit.clusters), len(names)),
            "estimate": values.ravel(),
            "std_error": errors.ravel(),
            "conf_low": values.ravel() - half,
            "conf_high": values.ravel() + half,
        }
    )
