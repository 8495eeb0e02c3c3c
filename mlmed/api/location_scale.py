"""Mixed-effects location-scale models: what users call."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlmed.errors import EffectError
from mlmed.fit.lmm import fit_model
from mlmed.notes import Note, warns
from mlmed.quadrature.fit import Fit, fit_rows
from mlmed.quadrature.rows import Rows, exact_fits, read_equations, read_rows, refuse_unidentified
from mlmed.results.location_scale.results import LocationScaleResults
from mlmed.results.remarks import table_notes
from mlmed.system.model import ModelSpec
from mlmed.text import shorten, shown

__all__ = ["location_scale"]

Array = NDArray[np.float64]


@warns
def location_scale(location: str, scale: str, data: Any, *, nodes: int | None = None) -> LocationScaleResults:
    """Fit a mixed-effects location-scale model by maximum likelihood.

    The location is a linear mixed model; the logarithm of its residual sd has fixed and random effects of its own. All
    random effects are jointly normal. The location effects are integrated exactly, the scale effects by adaptive
    Gauss-Hermite quadrature.

    Parameters
    ----------
    location : str
        lme4 or brms syntax: ``"y ~ x + (1 + x |c| id)"``.
    scale : str
        Right-hand side of the log residual sd: ``"~ x + (1 |c| id)"``. Terms with the same label (``c``) are
        correlated, those without one are independent of all others. At most two random effects.
    data : dataframe
        pandas, Polars, Arrow, or anything narwhals reads; never modified. Rows with a missing value in a variable of
        either formula are left out, counted and reported.
    nodes : int, optional
        Quadrature nodes per scale random effect. By default the fewest for which doubling them moves the
        log-likelihood by less than 1e-4.

    Returns
    -------
    LocationScaleResults
        Scale effects are called ``sigma~x``.

    Raises
    ------
    FormulaError, DataError, NotIdentifiedError, EffectError
        What was found, what it means, what to do.

    Examples
    --------
    >>> import mlmed
    >>> df = mlmed.datasets.load("yuan_mackinnon_sim")
    >>> fit = mlmed.location_scale("Med ~ X + (1 | group)", "~ 1 + (1 | group)", df)
    >>> fit.params.round(2).to_dict()
    {'Intercept': 2.03, 'X': 0.17, 'sigma~Intercept': 0.35}
    """
    nodes = _check_nodes(nodes)
    rows = read_rows(read_equations(location, scale, data), data)
    refuse_unidentified(rows)
    if nodes is not None and not rows.scale.random_names:
        raise EffectError("nodes= is for scale random effects, and the scale formula has none; leave it out")
    start, before = _homoscedastic(rows)
    fit = fit_rows(rows, *start, nodes=nodes)
    seen = table_notes(data, rows.equations, (rows.location.layout, rows.scale.layout), rows.clusters)
    return LocationScaleResults(fit, (*before, *_notes(fit), *seen))


def _check_nodes(nodes: Any) -> int | None:
    if nodes is None:
        return None
    number = int(nodes) if isinstance(nodes, Integral) and not isinstance(nodes, bool) else 0
    if not 3 <= number <= 101:
        raise EffectError(f"nodes is a whole number from 3 to 101, or leave it out; found {shown(nodes)}")
    return number


def _homoscedastic(rows: Rows) -> tuple[tuple[Array, Array, float], list[Note]]:
    """Beta, G and the residual variance with one residual sd for all rows; the checks of that model run too.

    And its notes, but for those on its optimum.
    """
    location = rows.equations[0]
    if not location.random:
        beta, _, _, _ = np.linalg.lstsq(rows.location.fixed, rows.y, rcond=None)
        residual = rows.y - rows.location.fixed @ beta
        return (np.asarray(beta, dtype=np.float64), np.empty((0, 0)), float(np.mean(residual**2))), []
    fitted = fit_model(ModelSpec((location,), "ml"), rows.table)
    start = fitted.estimates.beta, fitted.estimates.G, float(fitted.estimates.sigma2[0])
    return start, [note for note in fitted.notes if note.code not in ("boundary", "not-certified")]


def _exact(rows: Rows) -> list[Note]:
    """Clusters that are constant and do not make the model unbounded where fixed effects leave residuals."""
    if not rows.scale.random_names:
        return []
    at = exact_fits(rows).bounded
    if not len(at):
        return []
    text = (
        f"the response {rows.equations[0].name} is constant within {len(at)} of {len(rows.clusters)} clusters "
        f"({':'.join(rows.group)}: {shorten(rows.clusters[at])}), or their location effects fit it exactly: they have "
        "residuals only by the fixed effects, so these decide their residual sd, and the log-likelihood has no upper "
        "end where those are 0: what was found is a maximum apart from that. See how the fit changes without these "
        "clusters"
    )
    return [Note("exact-fit", text)]


def _notes(fit: Fit) -> list[Note]:
    rows, estimates, certificate = fit.rows, fit.estimates, fit.optimum.certificate
    found = [] if rows.dropped is None else [Note("rows-left-out", str(rows.dropped))]
    between = rows.constant_scale_slopes
    if between:
        text = (
            f"random scale slope of {', '.join(between)}, which does not vary within clusters: no slope differs "
            "between clusters, only the variance of their log sds; remove it from the random part"
        )
        found.append(Note("slope-between", text))
    found += _exact(rows)
    if not certificate.converged:
        found.append(Note("not-certified", f"the optimum is not certified: {certificate.complaint}"))
    elif estimates.rank < len(estimates.G):
        text = (
            f"boundary (singular) fit: the covariance of the random effects has rank {estimates.rank} of "
            f"{len(estimates.G)}; estimates are the optimum, standard errors of variances are left out; "
            "see docs/singular.md"
        )
        found.append(Note("boundary", text))
    return found
