"""Mediators and outcome, fitted jointly: the Bauer-Preacher-Gil model of 1-1-1 mediation, any number of mediators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlmed.effects.paths import PathCatalogue
from mlmed.errors import NotIdentifiedError
from mlmed.fit.lmm import fit_model, known_columns
from mlmed.formula import parse_equation
from mlmed.notes import warns
from mlmed.options import Method, check_formulas
from mlmed.results.remarks import joint_remarks
from mlmed.results.results import Results
from mlmed.system.roles import check_contrast, check_mediators, treatment_of
from mlmed.system.system import System

#: A mediator of level 2.
OF_CLUSTERS = (
    "the mediator {m} does not vary within clusters, so it is a variable of the clusters, and a joint model of rows in "
    "clusters cannot be fitted; use mlmed.piecewise, which fits it to one row per cluster (2-2-1: treatment and "
    "mediator of the clusters, outcome of the rows)"
)


@warns
def mediate(
    mediator: str | Sequence[str],
    outcome: str,
    data: Any,
    *,
    method: Method = "reml",
    treatment: str | None = None,
    contrast: tuple[Any, Any] | None = None,
    covariance: str | Mapping[str, str] = "unstructured",
) -> Results:
    """Fit mediator and outcome equations as one mixed model (Bauer, Preacher & Gil, 2006).

    Parameters
    ----------
    mediator, outcome : str
        lme4 formulas with the same cluster variable: ``"m ~ x + (1 + x | id)"`` and
        ``"y ~ m + x + (1 + m + x | id)"``. Random effects of the two are correlated; with brms' labels,
        ``(1 + x |i| id)``, only where the labels agree. Each equation has its own residual variance.
    data : dataframe
        pandas, Polars, Arrow, anything narwhals reads, or Grams of both formulas; never modified. An equation leaves
        out only the rows that it cannot use; they are counted and reported.
    method : {"reml", "ml"}
        Criterion.
    treatment : str, optional
        Column of the treatment x; needed if the mediator equation has more than one predictor.
    contrast : pair, optional
        Two values of the treatment to compare, (from, to), for factors and transformed treatments; by default a unit
        change.
    covariance : str or mapping
        Structure of the random-effects covariance: ``"unstructured"`` (default), ``"diagonal"``,
        ``"identity"``, ``"exchangeable"``; a mapping gives one per block label.

    Returns
    -------
    Results
        ``effects()`` has the paths, cov_ab, and the indirect, direct and total effect.

    Raises
    ------
    FormulaError
        A formula that cannot be read, equations that do not fit together, or an unknown word.
    DataError
        A column is missing or of the wrong type, or no row is complete.
    NotIdentifiedError
        The data do not determine the parameters.

    Warns
    -----
    LevelWarning
        The treatment does not vary within clusters, or a variable that does not has a random slope.
    FamilyWarning
        Mediator or outcome has two values.
    CovarianceWarning
        Random terms without labels keep the slopes of a and b from covarying.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mediate(
    ...     mediator="Med ~ X + (1 + X | group)",
    ...     outcome="y ~ Med + X + (1 + Med + X | group)",
    ...     data=mlmed.datasets.load("yuan_mackinnon_sim"),
    ... )
    >>> round(fit.llf, 5)
    -2337.44202
    >>> fit.effects().set_index("term").loc[["indirect", "total"], "estimate"].round(5).to_dict()
    {'indirect': -0.12762, 'total': 0.16824}
    """
    columns = known_columns(data)
    mediators = [parse_equation(text, columns) for text in check_formulas(mediator)]
    last = parse_equation(outcome, columns)
    check_mediators(mediators, last)
    treatment = treatment_of(mediators, treatment)
    pair = check_contrast(contrast)
    spec = System((*mediators, last), method, covariance)
    try:
        fitted = fit_model(spec, data)
    except NotIdentifiedError as error:
        between = next((m.name for m in mediators if error.code == f"between {m.name}"), None)
        if between is None:
            raise
        raise NotIdentifiedError(OF_CLUSTERS.format(m=between), code=error.code) from error
    catalogue = PathCatalogue(treatment, pair)
    return Results(fitted, catalogue, joint_remarks(fitted, catalogue, data))
