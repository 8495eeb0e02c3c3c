"""History of an optimization: evaluations, where it ended, and the certificate of the optimum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.fit.lmm import LmmFit
from mlmed.numerics.certificate import Certificate
from mlmed.report.plots.diagnostics import plot_optimization
from mlmed.results.abilities import Held

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Optimization:
    """History of the optimization and its certificate.

    Attributes
    ----------
    llf : (T,) array
        Log-likelihood at every evaluation (restricted under REML), the start first.
    gradient : (T,) array
        Largest entry of the gradient of -2l in theta.
    decrement : (T,) array
        Newton decrement; infinite where the Hessian is not positive definite.
    accepted : (T,) bool array
        Whether the search moved there.
    theta : (T,) tuple of arrays
        The points, in working units; fewer entries on a face of the cone.
    certificate : Certificate
        Checks recomputed at the returned point, each with its bound.
    reml : bool
        Whether the likelihood is restricted.
    n_starts : int
        Number of starts.
    optima : tuple of float
        Log-likelihoods of the distinct optima found, the best first.
    """

    llf: Array
    gradient: Array
    decrement: Array
    accepted: NDArray[np.bool_]
    theta: tuple[Array, ...]
    certificate: Certificate
    reml: bool
    n_starts: int = 1
    optima: tuple[float, ...] = ()

    @property
    def n_optima(self) -> int:
        """Number of distinct optima found."""
        return max(len(self.optima), 1)

    @property
    def evaluations(self) -> int:
        """Number of evaluations of criterion, gradient and Hessian."""
        return len(self.llf)

    def to_frame(self) -> pd.DataFrame:
        """One row per evaluation: llf, gradient_norm, newton_decrement, accepted."""
        return pd.DataFrame(
            {
                "llf": self.llf,
                "gradient_norm": self.gradient,
                "newton_decrement": self.decrement,
                "accepted": self.accepted,
            }
        )

    def log(self) -> str:
        """Write the accepted steps as in Stata's iteration log."""
        label = "log restricted-likelihood" if self.reml else "log likelihood"
        values = self.llf[self.accepted]
        return "\n".join(f"Iteration {k}:   {label} = {value:.4f}" for k, value in enumerate(values))

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the distance to the optimum by evaluation, log scale (extra ``plots``); ``ax`` is where to draw."""
        starts = f", {self.n_starts} starts" if self.n_starts > 1 else ""
        word = "certified" if self.certificate.converged else "NOT CERTIFIED"
        return plot_optimization(self.llf, self.accepted, note=f"{self.evaluations} evaluations{starts}, {word}", ax=ax)


def optimization(self: Held) -> Optimization:
    """History of the optimization of a linear mixed model, with the certificate of the optimum."""
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
