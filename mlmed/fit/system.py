"""Several fits as one: their parameters one after the other, their covariances in blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.fit.glm import PlainFit
from mlmed.fit.labels import coefficient_labels
from mlmed.fit.lmm import LmmFit
from mlmed.fit.names import parameters
from mlmed.fit.protocol import Parameter
from mlmed.lmm.vcov import Vcov, stacked
from mlmed.names import labelled
from mlmed.notes import Note
from mlmed.text import Compact

__all__ = ["Component", "SystemFit", "component_parameters"]

Array = NDArray[np.float64]
Component = LmmFit | PlainFit


def component_parameters(fit: Component, prefix: str) -> list[Parameter]:
    """Parameters of one of several fits, named by the equation that they belong to."""
    if isinstance(fit, PlainFit):
        names = coefficient_labels(labelled(prefix, name) for name in fit.design.names)
        return [replace(one, name=name) for one, name in zip(fit.parameters, names, strict=True)]
    return parameters(fit, equations=[prefix])


@dataclass(frozen=True, repr=False)
class SystemFit(Compact):
    """Equations that are fitted apart: each component has random effects and a residual of its own.

    Attributes
    ----------
    components : mapping of str to LmmFit or PlainFit
        By role: ``mediator``, ``outcome``, ``reduced``.
    prefixes : tuple of str
        What names of each component's parameters start with.
    clusters : Index
        Every cluster of the data, in order of appearance.
    group_name : str
        The cluster variable; empty where no equation has one.
    apart : (str, str) or None
        The component whose covariance with the others no fit has, and why; None where all are independent.
    remarks : tuple of Note
        What to know of the fits together, in the place of what each says.
    """

    kind: ClassVar[str] = "a system of equations that are fitted apart"
    usual: ClassVar[str] = "block"

    components: Mapping[str, Component]
    prefixes: tuple[str, ...]
    clusters: pd.Index
    group_name: str
    apart: tuple[str, str] | None = None
    remarks: tuple[Note, ...] = ()

    def __repr__(self) -> str:
        return "; ".join(repr(fit) for fit in self.components.values())

    @property
    def parts(self) -> tuple[slice, ...]:
        """Where each component has its parameters."""
        ends = np.cumsum([0, *(len(fit.psi) for fit in self.components.values())])
        return tuple(slice(int(start), int(stop)) for start, stop in pairwise(ends))

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Name, kind and equation of every entry of psi."""
        pairs = zip(self.components.values(), self.prefixes, strict=True)
        return tuple(one for fit, prefix in pairs for one in component_parameters(fit, prefix))

    @property
    def psi(self) -> Array:
        """All estimates, component after component."""
        return np.concatenate([fit.psi for fit in self.components.values()])

    def vcov(self, kind: str = "block") -> Vcov:
        """Covariance of psi: the components' blocks (eq. 60).

        Raises
        ------
        EffectError
            A kind that a component does not have.
        """
        found = [fit.vcov(kind) for fit in self.components.values()]
        unknown = None if self.apart is None else list(self.components).index(self.apart[0])
        return stacked(found, unknown, "" if self.apart is None else self.apart[1])

    @property
    def llf(self) -> float:
        """Sum of the components' log-likelihoods, without those of equations that describe a response once more."""
        once = {fit_of.parameters[0].equation: fit_of for fit_of in reversed(list(self.components.values()))}
        return float(sum(fit.llf for fit in once.values()))

    @property
    def nobs(self) -> int:
        """Response values used, over the same components."""
        once = {fit_of.parameters[0].equation: fit_of for fit_of in reversed(list(self.components.values()))}
        return int(sum(fit.nobs for fit in once.values()))

    @property
    def converged(self) -> bool:
        """Whether every component is certified."""
        return all(fit.converged for fit in self.components.values())

    @property
    def is_singular(self) -> bool:
        """Whether a component lies on the boundary."""
        return any(fit.is_singular for fit in self.components.values())

    @property
    def method(self) -> str:
        """Criterion of the mixed components."""
        mixed = [fit.spec.method for fit in self.components.values() if isinstance(fit, LmmFit)]
        return mixed[0] if mixed else "ml"

    @property
    def notes(self) -> tuple[Note, ...]:
        """What to know of the fits."""
        return self.remarks
