"""Potential-outcome mediation: two regressions and the effects between what would have been."""

from __future__ import annotations

from typing import Any

from mlmed.api.asked import check_contrast, treatment_of
from mlmed.fit.lmm import known_columns
from mlmed.formula import parse_equation
from mlmed.notes import warns
from mlmed.options import Family, Method, VcovName
from mlmed.results.causal.checks import check_equations, check_errors, check_families, treatment_values
from mlmed.results.causal.fit import fit_equation, level_notes, shared_rows
from mlmed.results.causal.results import CausalResults
from mlmed.results.causal.setting import Chain, check_linear
from mlmed.results.remarks import table_notes

__all__ = ["causal"]


@warns
def causal(
    mediator: str,
    outcome: str,
    data: Any,
    *,
    treatment: str | None = None,
    contrast: tuple[Any, Any] | None = None,
    family_m: Family = "linear",
    family_y: Family = "linear",
    vcov: VcovName | None = None,
    cluster: str | None = None,
    method: Method = "reml",
) -> CausalResults:
    """Fit mediator and outcome separately and define effects by potential outcomes (Imai, Keele & Tingley, 2010).

    Fitting draws nothing; ``effects()`` does where it is asked to. What the effects mean, and what has to be assumed:
    docs/causal.md.

    Parameters
    ----------
    mediator, outcome : str
        Formulas ``"m ~ x + w"`` and ``"y ~ m + x + w"``. ``y ~ m * x`` lets the effect of the mediator depend on the
        treatment. With a random term, ``(1 + x | id)``, the equation is a linear mixed model.
    data : dataframe
        pandas, Polars, Arrow, or anything narwhals reads; never modified. Both equations use the rows that are
        complete for both; the others are counted and reported.
    treatment : str, optional
        The column that is changed; needed when the mediator equation has more than one predictor.
    contrast : pair, optional
        The two values of the treatment to compare, (control, treated): numbers, or levels of a factor. A treatment with
        two values compares them by default, the lower (or first level) with the upper; one with more compares 0 and 1.
    family_m, family_y : {"linear", "logit", "probit", "poisson"}
        Of the mediator and of the outcome.
    vcov : {"iid", "HC0", "HC1", "HC2", "HC3", "block", "joint", "CR0", "CR1", "CR2", "cluster"}, optional
        Covariance of the coefficients. Ordinary regressions have the model's own (``iid``, the default) and those that
        are robust to unequal variances; with ``cluster=``, ``CR0``, ``CR1`` and ``cluster``, which is ``CR1`` there.
        If an equation has random terms: ``block`` (default) to ``cluster``, as in ``mixed``; beside it an ordinary one
        takes ``block`` and ``joint`` as its model's own.
    cluster : str, optional
        Column within whose values rows may depend on each other: ``vcov="CR1"`` unless ``vcov`` says otherwise, and a
        bootstrap that draws clusters. With random terms it must be their cluster.
    method : {"reml", "ml"}
        Criterion of mixed models.

    Returns
    -------
    CausalResults

    Raises
    ------
    FormulaError, DataError, EffectError, NotIdentifiedError
        What was found, what it means, what to do.

    Examples
    --------
    >>> import numpy as np
    >>> import mlmed
    >>> rng = np.random.default_rng(1)
    >>> x = np.tile([0.0, 1.0], 100)
    >>> m = x + rng.normal(size=200)
    >>> y = (0.5 * m + rng.normal(size=200) > 0).astype(int)
    >>> fit = mlmed.causal("m ~ x", "y ~ m + x", {"x": x, "m": m, "y": y}, family_y="probit", vcov="HC3")
    >>> table = fit.effects("monte-carlo", n=1000, seed=1).set_index("term")
    >>> round(float(table.loc["acme", "estimate"]), 2)
    0.17
    """
    columns = known_columns(data)
    first, second = parse_equation(mediator, columns), parse_equation(outcome, columns)
    check_families(first, second, family_m, family_y, method)
    check_equations(first, second)
    name = treatment_of(first, treatment)
    mixed = [equation for equation in (first, second) if equation.random]
    group = ":".join(mixed[0].random[0].group) if mixed else ""
    plain = any(not equation.random for equation in (first, second))
    errors = check_errors(vcov, cluster, group, [equation.name for equation in mixed], plain=plain)
    pair = check_contrast(contrast)
    rows = shared_rows((first, second), data, cluster)
    compared = treatment_values(rows.table[name], pair, (first, second))
    fit_m = fit_equation(first, family_m, rows, errors, method=method)
    fit_y = fit_equation(second, family_y, rows, errors, method=method)
    clusters = None if rows.grouping is None else rows.grouping.clusters
    seen = table_notes(data, (first, second), (fit_m.layout, fit_y.layout), clusters)
    chain = Chain(fit_m, fit_y, name, compared, rows.grouping)
    check_linear(chain)
    return CausalResults(chain, errors, rows.dropped, (*level_notes(fit_m, rows, errors), *seen))
