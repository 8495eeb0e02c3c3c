"""The log-likelihood of a model without some of its random effects."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from mlmed.errors import EffectError, NotIdentifiedError
from mlmed.fit.lmm import LmmFit
from mlmed.lmm.best import best_optimum
from mlmed.lmm.estimates import regression_loglik
from mlmed.lmm.working import only_effects

__all__ = ["loglik_without"]


def loglik_without(fitted: LmmFit, gone: Collection[int]) -> float:
    """Log-likelihood of the model without the random effects at positions of u, everything else re-estimated.

    Raises
    ------
    EffectError
        That model cannot be fitted.
    """
    working, reml = fitted.working, fitted.reml
    keep = np.array([k for k in range(working.problem.n_random) if k not in gone], dtype=int)
    if not len(keep):
        if working.problem.n_strata > 1:
            raise EffectError("without these effects no random effect is left in two equations; compare() two fits")
        return regression_loglik(working.problem, working.units, reml=reml)
    rest = only_effects(working, keep)
    try:
        optimum = best_optimum(rest.problem, rest.blocks, reml=reml)
    except NotIdentifiedError as error:
        raise EffectError(f"the model under the hypothesis cannot be fitted: {error}") from error
    if not optimum.certificate.converged:
        raise EffectError(f"the fit under the hypothesis is not certified: {optimum.certificate.complaint}")
    shift = rest.units.criterion_shift(rest.problem.nobs, reml=reml)
    return -0.5 * (optimum.evaluation.value + shift)
