"""Separate equations: the multilevel mediation of Krull and MacKinnon (2001)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlmed.effects.separate import SeparateCatalogue
from mlmed.errors import FormulaError
from mlmed.fit.lmm import known_columns
from mlmed.fit.separate import ask, fit_separately
from mlmed.formula import parse_equation
from mlmed.notes import warns
from mlmed.options import METHODS, Method, one_of
from mlmed.results.remarks import separate_remarks
from mlmed.results.results import Results
from mlmed.system.roles import check_contrast, check_mediators, treatment_of


@warns
def piecewise(
    mediator: str,
    outcome: str,
    data: Any,
    *,
    treatment: str | None = None,
    total: str | None = None,
    method: Method = "reml",
    covariance: str | Mapping[str, str] = "unstructured",
    contrast: tuple[Any, Any] | None = None,
) -> Results:
    """Fit mediator and outcome equations separately (Krull & MacKinnon, 2001).

    The level of every variable is read from the data. A mediator that is constant within clusters is fitted by least
    squares on one row per cluster; all other equations are mixed models. A third equation, the outcome's without the
    mediator, gives path c on the same rows.

    Parameters
    ----------
    mediator, outcome : str
        lme4 formulas with the same cluster variable: ``"m ~ x + (1 | id)"`` and ``"y ~ m + x + (1 | id)"``; random
        slopes are allowed. A mediator of level 2 needs no random term: ``"m ~ x"``.
    data : dataframe
        pandas, Polars, Arrow, or anything narwhals reads; never modified. An equation leaves out only the rows that
        it cannot use; they are counted and reported. An engine sends the columns once, to find levels.
    treatment : str, optional
        Column of the treatment x; needed if the mediator equation has more than one predictor.
    total : str, optional
        The equation for path c; by default the outcome equation without all terms of the mediator.
    method : {"reml", "ml"}
        Criterion of the mixed models.
    covariance : str or mapping
        Structure of their random-effects covariances, as in ``mixed``.
    contrast : pair, optional
        Two values of the treatment to compare, (from, to), for factors and transformed treatments; by default a unit
        change.

    Returns
    -------
    Results
        ``effects()`` has the paths a, b, cprime and c, and the effects with the proportion mediated. ``mediator``,
        ``outcome`` and ``reduced`` are the fits of the equations.

    Raises
    ------
    FormulaError
        A formula that cannot be read, equations that do not fit together, or an unknown word.
    DataError
        A row-level variable predicts one of the clusters, all three variables are of level 2, a column is missing or of
        the wrong type, or no row is complete.
    NotIdentifiedError
        The data do not determine the parameters.

    References
    ----------
    Krull, J. L. and MacKinnon, D. P. (2001). Multilevel modeling of individual and group level mediated effects.
    Multivariate Behavioral Research 36, 249-277.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.piecewise(
    ...     mediator="Med ~ X + (1 + X | group)",
    ...     outcome="y ~ X + Med + (1 + X + Med | group)",
    ...     data=mlmed.datasets.load("yuan_mackinnon_sim"),
    ... )
    >>> fit.design, fit.effects().set_index("term").loc[["a", "b", "indirect"], "estimate"].round(4).tolist()
    ('1-1-1', [0.1901, -0.1796, -0.0341])
    """
    one_of(method, METHODS, "method", error=FormulaError)
    columns = known_columns(data)
    first, second = parse_equation(mediator, columns), parse_equation(outcome, columns)
    third = None if total is None else parse_equation(total, columns)
    check_mediators((first,), second)
    x, pair = treatment_of(first, treatment), check_contrast(contrast)
    asked = ask(first, second, third, treatment=x, method=method, covariance=covariance)
    fitted = fit_separately(asked, data)
    return Results(fitted, SeparateCatalogue(x, pair), separate_remarks(fitted, data))
