"""The optimizer's steps in the user's units."""

from __future__ import annotations

import numpy as np

from mlmed.fit.lmm import LmmFit
from mlmed.report.optimization import Optimization
from mlmed.results.abilities import Held

__all__ = ["optimization"]


def optimization(self: Held) -> Optimization:
    """History of the optimization and the certificate of the optimum."""
    fitted: LmmFit = self.fit
    steps, certificate = fitted.optimum.steps, fitted.optimum.certificate
    shift = fitted.working.units.criterion_shift(fitted.working.problem.nobs, reml=fitted.reml)
    return Optimization(
        llf=np.array([-0.5 * (step.value + shift) for step in steps]),
        gradient=np.array([step.gradient_norm for step in steps]),
        decrement=np.array([step.decrement for step in steps]),
        accepted=np.array([step.accepted for step in steps]),
        theta=tuple(step.theta for step in steps),
        certificate=certificate,
        reml=fitted.reml,
        n_starts=fitted.optimum.searched.starts,
        optima=tuple(fitted.optima),
    )
