"""Linear mixed models of one response, as ``xtmixed`` and ``lmer`` fit, or of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlmed.effects.catalogue import NoEffects
from mlmed.fit.lmm import fit_model, known_columns
from mlmed.formula import parse_equation
from mlmed.notes import warns
from mlmed.options import Method, Residual, check_formulas
from mlmed.results.remarks import table_notes
from mlmed.results.results import Results
from mlmed.system.system import System


@warns
def mixed(
    formula: str | Sequence[str],
    data: Any,
    *,
    method: Method = "reml",
    covariance: str | Mapping[str, str] = "unstructured",
    residual: Residual = "diagonal",
) -> Results:
    """Fit a linear mixed model with one cluster variable, for one response or several.

    Parameters
    ----------
    formula : str or sequence of str
        lme4 syntax: ``"y ~ x + (1 + x | id)"``; ``||`` for no covariances. With several responses one formula each,
        as in brms: random terms with the same label, ``(1 + x |c| id)``, are correlated across equations,
        unlabelled ones are independent of all other equations.
    data : dataframe
        pandas, Polars, Arrow, anything narwhals reads, or Grams of these formulas; never modified. An equation leaves
        out only the rows with a missing value in its variables; they are counted and reported.
    method : {"reml", "ml"}
        Criterion.
    covariance : str or mapping
        ``"unstructured"`` (default), ``"diagonal"``, ``"identity"`` (equal variances, no covariance) or
        ``"exchangeable"`` (equal variances, one covariance); a mapping gives one per block label.
    residual : {"diagonal", "unstructured"}
        Whether the residuals of a row are independent across responses or correlated. With one response there is
        one residual variance either way.

    Returns
    -------
    Results

    Raises
    ------
    FormulaError
        A formula that cannot be read, equations that do not fit together, or an unknown word.
    DataError
        A column is missing or of the wrong type, or no row is complete.
    NotIdentifiedError
        The data do not determine the parameters.

    Examples
    --------
    >>> import mlmed
    >>> df = mlmed.datasets.load("yuan_mackinnon_sim")
    >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", data=df)
    >>> fit.params.round(4).to_dict()
    {'Intercept': 2.0046, 'X': 0.1901}
    >>> round(fit.reml_criterion, 1)
    2647.9
    """
    texts, columns = check_formulas(formula), known_columns(data)
    equations = tuple(parse_equation(text, columns) for text in texts)
    spec = System(equations, method, covariance, residual, shared=False)
    fitted = fit_model(spec, data)
    return Results(fitted, NoEffects(), remarks=table_notes(data, equations, fitted.layout.equations, fitted.clusters))
