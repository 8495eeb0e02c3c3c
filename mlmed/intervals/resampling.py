"""From a fit to its bootstrap: what makes the replicates of each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mlmed.data.rows import derived_columns
from mlmed.effects.delta import Quantity
from mlmed.errors import EffectError
from mlmed.fit.lmm import Fitted, design_of
from mlmed.fit.names import parameter_names
from mlmed.fit.vcov import alone_in, lost_in_replicates
from mlmed.intervals.bootstrap import BootstrapResults, Plan, run_bootstrap, with_parameters
from mlmed.lmm.influence import WithoutOne
from mlmed.lmm.percluster import cluster_products
from mlmed.lmm.resample import CaseResampler, Refit, Resampler, case_resampler, redrawn, within_case_resampler
from mlmed.lmm.rowwise import residual_resampler, row_parametric_resampler
from mlmed.lmm.simulation import at_optimum, parametric_resampler
from mlmed.options import RESAMPLED, check_flag, one_of
from mlmed.text import shown

__all__ = ["Plan", "bootstrap_fit", "resampler_for"]

Array = NDArray[np.float64]


def resampler_for(fitted: Fitted, kind: str, *, within: bool = False) -> Resampler:
    """What makes the replicates of one kind.

    Raises
    ------
    EffectError
        Unknown kind, ``within`` with another kind than cases, or rows are needed that the fit does not have.
    """
    one_of(kind, RESAMPLED, "kind")
    if check_flag(within, "within") and kind != "case":
        raise EffectError(
            f"within=True draws rows within drawn clusters, which is kind='case'; found kind={shown(kind)}"
        )
    if kind == "case":
        if not within:
            return case_resampler(fitted.spec, fitted.grams)
        design = design_of(fitted, "within=True", "leave out within=True")
        return within_case_resampler(fitted.spec, fitted.grams, design)
    spec, grams, point = fitted.spec, fitted.grams, at_optimum(fitted.optimum)
    derived = any(derived_columns(grams.layout))
    if kind == "residual":
        remedy = "use kind='case'" if derived else "use kind='case' or kind='parametric'"
        design = design_of(fitted, "kind='residual'", remedy)
        return residual_resampler(spec, grams, point, design, data=fitted.table)
    if not derived:
        return parametric_resampler(spec, grams, point)
    design = design_of(fitted, "kind='parametric' of a model with columns made of a response", "use kind='case'")
    return row_parametric_resampler(spec, grams, point, design, data=fitted.table)


def bootstrap_fit(
    fitted: Fitted, quantities: Mapping[str, Quantity], make: Callable[[Array], dict[str, Array]], plan: Plan
) -> BootstrapResults:
    """Run the replicates; ``make`` turns parameter vectors (n, n_psi) into effects by name."""
    names, working, optimum, reml = parameter_names(fitted), fitted.working, fitted.optimum, fitted.reml
    source = resampler_for(fitted, plan.kind, within=plan.within)
    # those of the case resampler are the same arrays
    products = source.products if isinstance(source, CaseResampler) else cluster_products(working, fitted.grams)
    text = lost_in_replicates("use kind='parametric' or a profile interval")
    return run_bootstrap(
        partial(redrawn, Refit.of(working, optimum, reml=reml), source),
        WithoutOne(working, optimum, products, reml),
        partial(with_parameters, make, names),
        len(names),
        quantities,
        plan,
        ids=fitted.clusters,
        lost=[alone_in(fitted, text, products).below(len(names))] if plan.kind == "case" else [],
    )
