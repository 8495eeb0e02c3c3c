"""One equation: what ``xtmixed`` and ``lmer`` fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlmed.formula import parse_equation
from mlmed.model import Method, ModelSpec
from mlmed.modes.fitting import fit_model, known_columns
from mlmed.modes.results import MixedResults

__all__ = ["mixed"]


def mixed(
    formula: str, data: Any, *, method: Method = "reml", covariance: str | Mapping[str, str] = "unstructured"
) -> MixedResults:
    """Fit a linear mixed model with one cluster variable.

    Parameters
    ----------
    formula : str
        lme4 syntax: ``"y ~ x + (1 + x | id)"``; ``||`` for no covariances.
    data : dataframe
        pandas, Polars, Arrow, or anything narwhals reads; never modified. Rows with a missing value in a
        variable of the formula are left out, counted and reported.
    method : {"reml", "ml"}
        Criterion.
    covariance : str or mapping
        ``"unstructured"`` (default), ``"diagonal"``, ``"identity"`` (equal variances, no covariance) or
        ``"exchangeable"`` (equal variances, one covariance); a mapping gives one per block label.

    Raises
    ------
    FormulaError, DataError, NotIdentifiedError
        What was found, what it means, what to do.

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
    spec = ModelSpec((parse_equation(formula, known_columns(data)),), method, covariance)
    return MixedResults(fit_model(spec, data))
