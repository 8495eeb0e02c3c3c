"""Four estimators of one indirect effect, for ``study``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from mlmed.effects.delta import Quantity, std_error
from mlmed.effects.paths import Paths, effect_quantities, find_paths
from mlmed.fit.lmm import Fitted, fit_model
from mlmed.fit.vcov import covariance
from mlmed.formula import parse_equation
from mlmed.replication import Failure
from mlmed.simulate.generate import Source
from mlmed.simulate.template import Template
from mlmed.simulate.trials import Outcome, failed
from mlmed.system.model import ModelSpec

__all__ = ["ESTIMATORS", "Comparison", "joint_indirect", "joint_product", "separate_product"]

Array = NDArray[np.float64]
MEDIATOR, OUTCOME = "m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)"
#: Two fits, one per equation; the joint fit without and with its covariance; the same by ML.
ESTIMATORS = ("separate a*b", "joint a*b", "joint a*b + cov_ab, REML", "joint a*b + cov_ab, ML")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One data set for each covariance, given to all estimators; a task for ``replicate``.

    Attributes
    ----------
    sources : tuple of Source
        Populations.
    size : (int, int)
        Clusters, and rows in each.
    level : float
        Coverage of the intervals.
    mediator, outcome, joint : Template
        The models.
    paths : Paths
        The paths of the joint model.
    """

    sources: tuple[Source, ...]
    size: tuple[int, int]
    level: float
    mediator: Template
    outcome: Template
    joint: Template
    paths: Paths

    @classmethod
    def of(cls, sources: tuple[Source, ...], size: tuple[int, int], level: float) -> Comparison:
        """With models read from a data set of comfortable size."""
        data = Source.of().draw(50, 10, np.random.default_rng(0)).data
        first, second = parse_equation(MEDIATOR), parse_equation(OUTCOME)
        specs = (ModelSpec(equations) for equations in ((first,), (second,), (first, second)))
        m, y, joint = (Template(fit_model(spec, data)) for spec in specs)
        return cls(sources, size, level, m, y, joint, find_paths(joint.example.layout, treatment="x"))

    def __call__(self, rng: np.random.Generator) -> list[Outcome]:
        """One outcome a covariance, whose terms are the estimators; alone and among others it has the same data."""
        entropy = int(rng.integers(2**63))
        found = []
        for source in self.sources:
            key = int(np.float64(source.truth.cov_ab).view(np.uint64))
            own = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(key,)))
            found.append(self._estimates(source.draw(*self.size, own).data))
        return found

    def _estimates(self, data: pd.DataFrame) -> Outcome:
        m, y = self.mediator.fit(data), self.outcome.fit(data)
        reml, ml = self.joint.fits(data, ("reml", "ml"))
        parts = [
            self._part(separate_product, m, y),
            self._part(joint_product, reml, self.paths),
            self._part(joint_indirect, reml, self.paths),
            self._part(joint_indirect, ml, self.paths),
        ]
        return Outcome(
            np.concatenate([part.values for part in parts]),
            sum((part.failures for part in parts), ()),
            sum((part.notes for part in parts), ()),
        )

    def _part(self, estimator: Callable[..., tuple[Quantity, Array, str]], *fits: Any) -> Outcome:
        """The interval of an estimator, unless a fit that it takes failed."""
        failure = next((one for one in fits if isinstance(one, Failure)), None)
        return self._interval(*estimator(*fits)) if failure is None else failed(1, failure)

    def _interval(self, quantity: Quantity, V: Array, reason: str) -> Outcome:
        """Second-order delta interval of one quantity."""
        error = std_error(quantity, V)
        half = float(ndtri(0.5 + self.level / 2.0)) * error
        values = np.array([[quantity.estimate, error, quantity.estimate - half, quantity.estimate + half]])
        return Outcome(values, (None,), (reason if np.isnan(error) else "",))


def separate_product(mediator: Fitted, outcome: Fitted) -> tuple[Quantity, Array, str]:
    """a*b of two fits, with the covariance (2, 2) of a and b, who are taken to be independent, as Sobel does."""
    values, variances, reasons = [], [], []
    for fitted, name in ((mediator, "x"), (outcome, "m")):
        k = fitted.layout.equations[0].fixed.index(name)
        V = covariance(fitted, "joint")
        values.append(float(fitted.estimates.beta[k]))
        variances.append(float(V.matrix[k, k]))
        reasons.append(V.reason)
    a, b = (Quantity(name, value, unit) for name, value, unit in zip("ab", values, np.eye(2), strict=True))
    return (a * b).named("a*b"), np.diag(variances), next(filter(None, reasons), "")


def joint_product(fitted: Fitted, paths: Paths) -> tuple[Quantity, Array, str]:
    """a*b of the joint fit, its covariance left out."""
    found = effect_quantities(paths, fitted.estimates)
    V = covariance(fitted, "joint")
    return (found["a"] * found["b"]).named("a*b"), V.matrix, V.reason


def joint_indirect(fitted: Fitted, paths: Paths) -> tuple[Quantity, Array, str]:
    """a*b + cov_ab of the joint fit."""
    V = covariance(fitted, "joint")
    return effect_quantities(paths, fitted.estimates)["indirect"], V.matrix, V.reason
