"""Standard deviations and correlations of a fit, as brms prints them: between clusters and within."""

from __future__ import annotations

from functools import singledispatch
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from mlmed.data.layout import INTERCEPT
from mlmed.effects.delta import delta_table
from mlmed.effects.quantity import Quantity
from mlmed.effects.sdcor import LinearCovariance, correlation_pairs, linear_covariance, sdcor_quantities
from mlmed.fit.lmm import LmmFit
from mlmed.fit.names import RESIDUAL, Called, parameter_names, qualified, residual_names, variance_floor
from mlmed.fit.protocol import Kind
from mlmed.fit.quadrature import QuadratureFit
from mlmed.fit.system import SystemFit
from mlmed.fit.vcov import covariance
from mlmed.lmm.estimates import Estimates

NUMBERS = ["estimate", "std_error", "conf_low", "conf_high", "note"]
#: Entry (i, j), i <= j, of the covariance matrix of the ``random`` effects or of a row's ``residual``s.
Place = tuple[str, int, int]
PAIRS = ["part", "equation1", "equation2", "term1", "term2"]


def _between(fitted: LmmFit, *, called: Called = False) -> LinearCovariance:
    """G as a function of psi."""
    estimates = fitted.estimates
    p, T, S = len(estimates.beta), len(estimates.tau), len(estimates.sigma2)
    basis = np.zeros((p + T + S, *estimates.G.shape))
    basis[p : p + T] = estimates.tau_basis
    return LinearCovariance(tuple(qualified(fitted, "random", called=called)), basis, variance_floor(fitted))


def _within(fitted: LmmFit, *, called: Called = False) -> LinearCovariance:
    """Sigma as a function of psi."""
    estimates, names = fitted.estimates, residual_names(fitted, called=called)
    first = len(estimates.beta) + len(estimates.tau)
    return linear_covariance(names, estimates.sigma_at, first, first + len(estimates.sigma2))


def fit_sdcor_quantities(
    fitted: LmmFit, estimates: Estimates, *, moving: bool = False, called: Called = False
) -> dict[str, Quantity]:
    """``sd()`` and ``cor()`` of random effects, then of residuals, at any estimates of the model.

    ``moving`` as in ``sdcor_quantities``; ``called``: names of the equations in labels.
    """
    matrices = (part(fitted, called=called) for part in (_between, _within))
    return {
        term: q for matrix in matrices for term, q in sdcor_quantities(matrix, estimates.psi, moving=moving).items()
    }


@singledispatch
def sdcor_of(fit: Any) -> dict[str, Quantity]:
    """``sd()`` and ``cor()`` of the random effects and residuals of a fit, at its estimates; empty without any."""
    return {}


@sdcor_of.register
def _(fit: LmmFit) -> dict[str, Quantity]:
    return fit_sdcor_quantities(fit, fit.estimates)


@sdcor_of.register
def _(fit: QuadratureFit) -> dict[str, Quantity]:
    at = np.array(fit.estimates.cov_at, dtype=np.intp).reshape(-1, 2)
    return sdcor_quantities(
        linear_covariance(fit.random_names, at, fit.problem.p + fit.problem.k, len(fit.psi)), fit.psi
    )


@sdcor_of.register
def _(fit: SystemFit) -> dict[str, Quantity]:
    width = len(fit.psi)
    found: dict[str, Quantity] = {}
    for one, prefix, part in zip(fit.components.values(), fit.prefixes, fit.parts, strict=True):
        own = fit_sdcor_quantities(one, one.estimates, called=[prefix]) if isinstance(one, LmmFit) else {}
        found |= {term: quantity.among(width, part) for term, quantity in own.items()}
    return found


def places(fitted: LmmFit, kind: Kind) -> dict[str, Place]:
    """Matrix entry of every ``sd`` or ``correlation``, by name."""
    at: list[Place] = []
    for part, matrix in (("random", _between(fitted)), ("residual", _within(fitted))):
        own = [*((k, k) for k in range(len(matrix.names))), *correlation_pairs(matrix)]
        at += [(part, i, j) for i, j in own]
    found = fit_sdcor_quantities(fitted, fitted.estimates)
    return {term: place for (term, q), place in zip(found.items(), at, strict=True) if q.kind == kind}


def entry_behind(fitted: LmmFit, kind: Kind) -> dict[str, str]:
    """Name of the variance behind each ``sd``, or of the covariance behind each ``correlation``."""
    estimates = fitted.estimates
    parts = (("random", estimates.tau_at), ("residual", estimates.sigma_at))
    at: list[Place] = [(part, int(min(pair)), int(max(pair))) for part, pairs in parts for pair in pairs]
    names = dict(zip(at, parameter_names(fitted)[len(estimates.beta) :], strict=True))
    return {term: names[place] for term, place in places(fitted, kind).items() if place in names}


def fit_sdcor_table(fitted: LmmFit, *, vcov: str, level: float) -> pd.DataFrame:
    """group, term, estimate, std_error, conf_low, conf_high, note."""
    found, V = fit_sdcor_quantities(fitted, fitted.estimates), covariance(fitted, vcov)
    table = delta_table(list(found.values()), V, level=level)
    n_random = len(fitted.estimates.G) + len(correlation_pairs(_between(fitted)))
    table.insert(0, "group", np.where(np.arange(len(table)) < n_random, fitted.group_name, RESIDUAL))
    return table[["group", "term", *NUMBERS]]


def system_sdcor_table(fit: SystemFit, *, vcov: str, level: float) -> pd.DataFrame:
    """Stack tables of the components, under the names of the system."""
    mixed = [one for one in fit.components.values() if isinstance(one, LmmFit)]
    if not mixed:
        return pd.DataFrame(columns=["group", "term", *NUMBERS])
    tables = [fit_sdcor_table(one, vcov=vcov, level=level) for one in mixed]
    return pd.concat(tables, ignore_index=True).assign(term=list(sdcor_of(fit)))


def correlations_table(fitted: LmmFit, *, vcov: str, level: float) -> pd.DataFrame:
    """Tabulate correlations with the equations and effects of each."""
    table = fit_sdcor_table(fitted, vcov=vcov, level=level)
    kinds = [quantity.kind for quantity in fit_sdcor_quantities(fitted, fitted.estimates).values()]
    shown = table[[kind == "correlation" for kind in kinds]].reset_index(drop=True)
    equations = fitted.layout.equations
    own = [(e.name, name) for e in equations for name in e.random]
    parts = [("between", own[i], own[j]) for i, j in correlation_pairs(_between(fitted))]
    parts += [
        ("within", (equations[i].name, RESIDUAL), (equations[j].name, RESIDUAL))
        for i, j in correlation_pairs(_within(fitted))
    ]
    pairs = pd.DataFrame([(where, a[0], b[0], a[1], b[1]) for where, a, b in parts], columns=PAIRS, dtype=object)
    return pd.concat([pairs, shown[NUMBERS]], axis=1)


def headline_correlations(fitted: LmmFit, *, vcov: str, level: float) -> pd.DataFrame:
    """Tabulate the correlations of intercepts and of residuals of every pair of responses.

    Returns
    -------
    DataFrame
        ``correlation`` (such as ``between id: m, y``), estimate, std_error, conf_low, conf_high, note; no rows if the
        model has neither.
    """
    table = correlations_table(fitted, vcov=vcov, level=level)
    names = [e.name for e in fitted.layout.equations]
    intercepts = (table["term1"] == INTERCEPT) & (table["term2"] == INTERCEPT)
    plain = intercepts | (table["part"] == "within")
    kept = table[plain & (table["equation1"] != table["equation2"])]
    place = {pair: k for k, pair in enumerate(combinations(names, 2))}
    order = [place[pair] for pair in zip(kept["equation1"], kept["equation2"], strict=True)]
    kept = kept.iloc[np.argsort(order, kind="stable")]
    where = [f"between {fitted.group_name}" if kind == "between" else "within" for kind in kept["part"]]
    pairs = [f"{w}: {a}, {b}" for w, a, b in zip(where, kept["equation1"], kept["equation2"], strict=True)]
    return kept[NUMBERS].reset_index(drop=True).assign(correlation=pairs)[["correlation", *NUMBERS]]
