"""Mixed-effects location-scale models."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from mlmed.effects.scale import ScaleCatalogue
from mlmed.errors import EffectError
from mlmed.fit.quadrature import fit_location_scale
from mlmed.notes import warns
from mlmed.results.remarks import table_notes
from mlmed.results.results import Results
from mlmed.text import shown


@warns
def location_scale(location: str, scale: str, data: Any, *, nodes: int | None = None) -> Results:
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
        correlated, unlabelled ones independent of all others. At most two random effects.
    data : dataframe
        pandas, Polars, Arrow, or anything narwhals reads; never modified. Rows with a missing value in a variable of
        either formula are left out, counted and reported.
    nodes : int, optional
        Quadrature nodes per scale random effect. By default the fewest for which doubling them moves the
        log-likelihood by less than 1e-4.

    Returns
    -------
    Results
        Coefficients of the scale are named ``sigma~x``; ``effects()`` has them on the sd scale.

    Raises
    ------
    FormulaError
        A formula that cannot be read, equations that do not fit together, or an unknown word.
    DataError
        A column is missing or of the wrong type, or no row is complete.
    NotIdentifiedError
        The data do not determine the parameters.
    EffectError
        ``nodes`` is no whole number from 3 to 101.

    Examples
    --------
    >>> import mlmed
    >>> df = mlmed.datasets.load("yuan_mackinnon_sim")
    >>> fit = mlmed.location_scale("Med ~ X + (1 | group)", "~ 1 + (1 | group)", df)
    >>> fit.params.round(2).to_dict()
    {'Intercept': 2.03, 'X': 0.17, 'sigma~Intercept': 0.35}
    """
    fit = fit_location_scale(location, scale, data, nodes=_check_nodes(nodes))
    rows = fit.rows
    layouts = rows.location.layout, rows.scale.layout
    return Results(fit, ScaleCatalogue(), remarks=table_notes(data, rows.equations, layouts, rows.clusters))


def _check_nodes(nodes: Any) -> int | None:
    if nodes is None:
        return None
    number = int(nodes) if isinstance(nodes, Integral) and not isinstance(nodes, bool) else 0
    if not 3 <= number <= 101:
        raise EffectError(f"nodes is a whole number from 3 to 101, or leave it out; found {shown(nodes)}")
    return number
