"""Tables of estimates, with the columns of ``mlmed.effects.delta.COLUMNS``."""

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
from mlmed.results.inference import (
    coefficient_df,
    effect_set,
    effects,
    effects_reason,
    kind_of,
    quantities,
    reasons,
)


def fixef(self: Held, *, vcov: str | None = None, level: float = 0.95, ddf: str | None = None) -> pd.DataFrame:
    """Fixed effects with standard errors, tests and intervals.

    Parameters
    ----------
    vcov : str, optional
        Covariance of the estimates, one of ``vcov()``; by default the fit's own.
    level : float
        Coverage of the intervals, a proportion.
    ddf : {"none", "satterthwaite", "kenward-roger", "residual"}, optional
        As in ``tidy``.

    Returns
    -------
    DataFrame
        term, estimate, std_error, statistic, df (infinite for normal tests), p_value, conf_low, conf_high, note.

    Raises
    ------
    EffectError
        A covariance or degrees of freedom that this fit does not have.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> fit.fixef().set_index("term")[["estimate", "std_error"]].round(3).values.tolist()
    [[2.005, 0.142], [0.19, 0.114]]
    """
    return fixed_table(self.fit, vcov=kind_of(self.fit, vcov), level=level, ddf="none" if ddf is None else ddf)


def varcorr(self: Held, *, vcov: str | None = None, level: float = 0.95) -> pd.DataFrame:
    """Variances and covariances of the random effects, and residual variances of mixed models.

    Parameters
    ----------
    vcov : str, optional
        Covariance of the estimates, one of ``vcov()``; by default the fit's own.
    level : float
        Coverage of the intervals, a proportion.

    Returns
    -------
    DataFrame
        group, term, estimate, sdcorr (standard deviation or correlation; not of location-scale models), std_error,
        statistic, df, p_value, conf_low, conf_high, note. Variances have intervals on the log scale, covariances normal
        ones (as Stata prints them). No rows for ordinary regressions.

    Raises
    ------
    EffectError
        A covariance that this fit does not have.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> fit.varcorr().set_index("term")["sdcorr"].round(2).to_dict()
    {'var(Intercept)': 0.99, 'var(X)': 0.8, 'cov(Intercept,X)': -0.22, 'var(Residual)': 0.74}
    """
    return variance_table(self.fit, vcov=kind_of(self.fit, vcov), level=level)


def sdcor(self: Held, *, vcov: str | None = None, level: float = 0.95) -> pd.DataFrame:
    """Standard deviations and correlations of random effects and residuals, as brms prints them.

    Errors are first-order; intervals of sds are formed on the log scale, those of correlations by Fisher's z.
    ``block`` and ``joint`` agree here, as they differ in the fixed effects only. On the boundary there is no error,
    and no correlation with an effect whose variance is 0: NaN, and the reason in ``note``. Residual sds are those of
    mixed models; a location-scale model has ``effects()``.

    Parameters
    ----------
    vcov : str, optional
        Covariance of the estimates, one of ``vcov()``; by default the fit's own.
    level : float
        Coverage of the intervals, a proportion.

    Returns
    -------
    DataFrame
        group, term (``sd(m~x)``, ``cor(m~Intercept,y~Intercept)``, ``sd(m~Residual)``), estimate, std_error,
        conf_low, conf_high, note. ``nlcom``, ``profile`` and ``test`` know the terms, too.

    Raises
    ------
    EffectError
        No random effects, or a covariance that this fit does not have.

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
    """Correlations between clusters (random effects) and within (residuals of a row) of a linear mixed model.

    Parameters
    ----------
    vcov : str, optional
        Covariance of the estimates, one of ``vcov()``; by default the fit's own.
    level : float
        Coverage of the intervals, a proportion.

    Returns
    -------
    DataFrame
        part (``between``, ``within``), equation1, equation2, term1, term2, estimate, std_error, conf_low,
        conf_high, note; no rows if the model has no correlation.

    Raises
    ------
    EffectError
        Another kind of fit, or a covariance that it does not have.

    Examples
    --------
    >>> import mlmed
    >>> df = mlmed.datasets.load("yuan_mackinnon_sim")
    >>> fit = mlmed.mixed(["Med ~ X + (1 |c| group)", "y ~ X + (1 |c| group)"], df, residual="unstructured")
    >>> fit.correlations()[["part", "equation1", "equation2", "estimate"]].round(2).values.tolist()
    [['between', 'Med', 'y', -0.12], ['within', 'Med', 'y', -0.21]]
    """
    return correlations_table(self.fit, vcov=kind_of(self.fit, vcov), level=level)


def tidy(self: Held, *, vcov: str | None = None, level: float = 0.95, ddf: str | None = None) -> pd.DataFrame:
    """Tabulate all parameters in broom.mixed's columns.

    Parameters
    ----------
    vcov : str, optional
        Covariance of the estimates, one of ``vcov()``; by default the fit's own.
    level : float
        Coverage of the intervals, a proportion.
    ddf : {"none", "satterthwaite", "kenward-roger", "residual"}, optional
        Linear mixed models, also in systems of them: t instead of z for the fixed effects, with these degrees of
        freedom. ``kenward-roger`` also adjusts the standard errors (REML only).

    Returns
    -------
    DataFrame
        effect (``fixed``, ``ran_pars``), equation, group, term, estimate, std_error, statistic, df, p_value, conf_low,
        conf_high, note; rows in the order of ``names``.

    Raises
    ------
    EffectError
        A covariance or degrees of freedom that this fit does not have.

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
    """Tabulate the fit as a whole in one row.

    Returns
    -------
    DataFrame
        method, nobs, n_clusters, llf, aic, bic, converged, is_singular. Mixed models add gradient_norm and the number
        of starts and optima; location-scale models the certificate and the nodes; ``causal`` the families,
        log-likelihoods, vcov and whether treatment and mediator interact.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> fit.glance()[["nobs", "n_clusters", "converged"]].values.tolist()
    [[1000, 50, True]]
    """
    found = about(self.fit)
    if isinstance(self.catalogue, CounterfactualCatalogue):
        found["interaction"] = self.catalogue.effects(self.fit).interaction
    return pd.DataFrame([found])


def comparable(self: Held, *, level: float = 0.95) -> pd.DataFrame:
    """Tabulate effects, then all estimates, under names that fits of all kinds share (for ``mlmed.compare``).

    Parameters
    ----------
    level : float
        Coverage of the intervals, a proportion.

    Returns
    -------
    DataFrame
        The columns of ``effects``. Terms name their equation, ``m~x``, also in a model of one; ``causal`` has indirect,
        direct and total. Effects that the model does not define are NaN with the reason in ``note``.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> fit.comparable()["term"].tolist()
    ['Med~Intercept', 'Med~X', 'var(Med~Intercept)', 'var(Med~Residual)']
    """
    shared, table = shared_terms(self.fit), tidy(self, level=level)[list(COLUMNS)]
    table = table[table["term"].isin(shared)].replace({"term": shared}).reset_index(drop=True)
    if isinstance(self.catalogue, NoEffects):
        return table
    reason = effects_reason(self)
    shown = missing_effects(reason, self.catalogue.rows(self.fit)) if reason else effects(self, level=level)
    if isinstance(self.catalogue, CounterfactualCatalogue):
        shown = shown.set_index("term").loc[list(SHARED.values())].reset_index().assign(term=list(SHARED))
    return pd.concat([shown, table], ignore_index=True)


def combined(self: Held, expression: str, *, level: float = 0.95) -> pd.DataFrame:
    """Evaluate ``nlcom`` with the names of ``comparable``.

    Parameters
    ----------
    expression : str
        For example ``"m~x + y~x"``.
    level : float
        Coverage of the interval, a proportion.

    Returns
    -------
    DataFrame
        One row, with the columns of ``effects``.

    Raises
    ------
    EffectError
        A name that this fit does not have.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> fit.combined("2 * Med~X")["estimate"].round(2).tolist()
    [0.43]
    """
    known = quantities(self)
    shared, df = shared_terms(self.fit), coefficient_df(self.fit)
    known |= {new: known[old].named(new) for old, new in shared.items() if old in known}
    df |= {new: df[old] for old, new in shared.items() if old in df}
    V, order = effect_set(self).vcov(), self.catalogue.order
    with reasons(self):
        return function_table(expression, known, V, order=order, level=level, df=df)


@singledispatch
def fixed_table(fit: Any, *, vcov: str, level: float, ddf: str = "none") -> pd.DataFrame:
    """Fixed effects, with t tests where the fit has degrees of freedom.

    Raises
    ------
    EffectError
        Degrees of freedom that only mixed models have.
    """
    if one_of(ddf, DDF_KINDS, "ddf") != "none":
        raise EffectError(f"ddf={ddf!r} is for linear mixed models; this is {fit.kind}")
    listed = [quantity for quantity in parameter_quantities(fit).values() if not quantity.kind]
    return delta_table(listed, fit.vcov(vcov), level=level, df=fit.df)


@fixed_table.register
def _(fit: SystemFit, *, vcov: str, level: float, ddf: str = "none") -> pd.DataFrame:
    return _below(fit, lambda one: fixed_table(one, vcov=vcov, level=level, ddf=ddf))


def _below(fit: SystemFit, table_of: Callable[[Component], pd.DataFrame]) -> pd.DataFrame:
    """Stack tables of the components, under the names of the system."""
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
    """Flag the rows of ``varcorr`` that are residual variances."""
    return [False for one in fit.parameters if one.kind]


@residual_rows.register
def _(fit: LmmFit) -> list[bool]:
    return [False] * len(fit.estimates.tau) + [True] * len(fit.estimates.sigma2)  # the group may be named Residual


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
    """Map parameter names to those shared across fits: with the equation, even in a model of one."""
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
    """Skip the equation of path c: no other kind of fit has it."""
    own, once = zip(fit.components.values(), fit.parts, strict=True), list(map(id, fit.once))
    return {one.name: one.name for component, part in own if id(component) in once for one in fit.parameters[part]}


@shared_terms.register
def _(fit: QuadratureFit) -> dict[str, str]:
    return dict(zip([one.name for one in fit.parameters], [one.name for one in fit.named(always=True)], strict=True))


def effects_section(self: Held, *, level: float, **options: Any) -> pd.DataFrame:
    """Tabulate the effects; no rows if the model defines none and no option asks for them."""
    given = {name: value for name, value in options.items() if value is not None}
    if effects_reason(self) and given.keys() <= {"vcov", "ddf"}:  # options of other tables, too
        return wald_table([], np.empty(0), np.empty(0))
    return effects(self, level=level, **given)


@singledispatch
def about(fit: Any) -> dict[str, Any]:
    """Facts of a fit as a whole, by column of ``glance``; ``n_clusters`` is None if no column names clusters."""
    n = fit.n_parameters
    return {
        "method": fit.method,
        "nobs": fit.nobs,
        "n_clusters": len(fit.clusters) if fit.group_name else None,
        "llf": fit.llf,
        "aic": -2.0 * fit.llf + 2.0 * n,
        "bic": -2.0 * fit.llf + float(np.log(fit.nobs)) * n,
        "converged": fit.converged,
        "is_singular": fit.is_singular,
    }


@about.register
def _(fit: SameRowsFit) -> dict[str, Any]:
    """Add facts of each equation."""
    parts = list(zip("my", fit.components.values(), strict=True))
    return {
        **about.dispatch(object)(fit),
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
    """Random effects with their standard deviations, one row per effect and cluster, by kind of fit.

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
    """Build the rows of ``ranef`` from values and standard deviations (q, J)."""
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
