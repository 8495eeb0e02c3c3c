"""From a fit to its bootstrap: the resampler of each kind, the replicates, the jackknife."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.chain import derived_columns
from mlmed.effects.delta import Quantity
from mlmed.errors import EffectError
from mlmed.modes.bootstrap import BootstrapResults, count_failures
from mlmed.modes.fitting import Fitted, design_of
from mlmed.modes.tables import parameter_names
from mlmed.reml.refit import Refit, Refitted, Resampler
from mlmed.reml.resample import case_resampler, within_case_resampler
from mlmed.reml.residual import residual_resampler, row_parametric_resampler
from mlmed.reml.simulation import at_optimum, parametric_resampler
from mlmed.replicate import replicate

__all__ = ["KINDS", "Kind", "Plan", "bootstrap_fit", "resampler_for"]

Array = NDArray[np.float64]
Kind = Literal["case", "parametric", "residual"]
KINDS: tuple[str, ...] = get_args(Kind)


def resampler_for(fitted: Fitted, kind: str, *, within: bool = False) -> Resampler:
    """What makes the replicates of one kind.

    Raises
    ------
    EffectError
        Unknown kind, ``within`` with another kind than cases, or rows are needed that the fit does not have.
    """
    if kind not in KINDS:
        raise EffectError(f"kind must be one of {', '.join(KINDS)}; found {kind!r}")
    if within and kind != "case":
        raise EffectError(f"within=True draws rows within drawn clusters, which is kind='case'; found kind={kind!r}")
    if kind == "case":
        if not within:
            return case_resampler(fitted.spec, fitted.grams)
        return within_case_resampler(fitted.spec, fitted.grams, design_of(fitted, "within=True"))
    spec, grams, point = fitted.spec, fitted.grams, at_optimum(fitted.optimum)
    if kind == "residual":
        design = design_of(fitted, "kind='residual'")
        return residual_resampler(spec, grams, point, design, data=fitted.table)
    if not any(derived_columns(grams.layout)):
        return parametric_resampler(spec, grams, point)
    design = design_of(fitted, "kind='parametric' of a model with columns made of a response")
    return row_parametric_resampler(spec, grams, point, design, data=fitted.table)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a bootstrap was asked to do.

    Attributes
    ----------
    n : int
        Replicates.
    kind : str
        One of ``KINDS``.
    within : bool
        Rows within clusters, too.
    seed : int
        Seed.
    n_jobs : int or None
        Workers.
    progress : bool
        Show a progress bar.
    """

    n: int
    kind: str
    within: bool
    seed: int
    n_jobs: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        """Refuse what is not a number of replicates."""
        if not isinstance(self.n, int) or isinstance(self.n, bool) or self.n < 1:
            raise EffectError(f"n is a number of replicates; found {self.n!r}")


def bootstrap_fit(
    fitted: Fitted, quantities: Mapping[str, Quantity], make: Callable[[Array], dict[str, Array]], plan: Plan
) -> BootstrapResults:
    """Run the replicates; ``make`` turns parameter vectors (n, n_psi) into effects by name."""
    names = parameter_names(fitted)
    source = resampler_for(fitted, plan.kind, within=plan.within)
    task = Refit.of(source, fitted.working, fitted.optimum, reml=fitted.reml, n_psi=len(names))
    found = replicate(task, plan.n, seed=plan.seed, n_jobs=plan.n_jobs, progress=plan.progress)
    fixed = {term: quantity.note for term, quantity in quantities.items() if quantity.is_fixed}
    return BootstrapResults(
        draws=_frame(found, names, make),
        estimates=pd.Series({term: quantity.estimate for term, quantity in quantities.items()}),
        kind=f"{plan.kind} (rows, too)" if plan.within else plan.kind,
        seed=plan.seed,
        n_singular=sum(one.singular for one in found),
        failures=count_failures(found),
        fixed=fixed,
        _leave_out=partial(_jackknife, fitted, names, make, plan.n_jobs),
    )


def _frame(found: list[Refitted], names: list[str], make: Callable[[Array], dict[str, Array]]) -> pd.DataFrame:
    psi = np.array([one.psi for one in found])
    return pd.DataFrame({**make(psi), **dict(zip(names, psi.T, strict=True))})


def _jackknife(
    fitted: Fitted, names: list[str], make: Callable[[Array], dict[str, Array]], n_jobs: int | None
) -> pd.DataFrame:
    """Exact refits without each cluster in turn, by cluster."""
    import joblib

    cases = case_resampler(fitted.spec, fitted.grams)
    task = Refit.of(cases, fitted.working, fitted.optimum, reml=fitted.reml, n_psi=len(names))
    pieces = np.array_split(np.arange(len(fitted.clusters)), max(4 * joblib.effective_n_jobs(n_jobs), 1))
    found = joblib.Parallel(n_jobs=n_jobs)(joblib.delayed(_without)(task, piece) for piece in pieces)
    frame = _frame([one for part in found for one in part], names, make)
    return frame.set_index(fitted.clusters)


def _without(task: Refit, clusters: NDArray[np.intp]) -> list[Refitted]:
    cases = task.resampler
    return [task.fit(cases.without(int(cluster))) for cluster in clusters]  # type: ignore[attr-defined]
