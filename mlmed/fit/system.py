"""Several fits as one: parameters stacked, covariances in blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.encoding import encode
from mlmed.data.layout import INTERCEPT, EquationLayout
from mlmed.fit.glm import PlainFit
from mlmed.fit.lmm import LmmFit
from mlmed.fit.names import coefficient_labels, parameters
from mlmed.fit.protocol import Parameter
from mlmed.formula import Equation
from mlmed.lmm.vcov import Vcov, stacked
from mlmed.names import labelled
from mlmed.notes import Note
from mlmed.text import Compact

Array = NDArray[np.float64]
Component = LmmFit | PlainFit
#: Notes that need the name of their equation; others name a column.
OF_AN_OPTIMUM = ("not-certified", "boundary")


def equation_of(fit: Component) -> Equation:
    """The formula of a component."""
    return fit.equation if isinstance(fit, PlainFit) else fit.spec.equations[0]


def layout_of(fit: Component) -> EquationLayout:
    """Columns and encodings of a component; a regression gets a random intercept, which no path uses."""
    if isinstance(fit, LmmFit):
        return fit.layout.equations[0]
    intercept = encode("1", fit.design.table, where="a random intercept")[1]
    return replace(fit.layout, random=(INTERCEPT,), encodings=(*fit.layout.encodings, intercept))


def component_parameters(fit: Component, prefix: str) -> list[Parameter]:
    """Parameters of a component, named by its equation."""
    if isinstance(fit, PlainFit):
        names = coefficient_labels(labelled(prefix, name) for name in fit.design.names)
        return [replace(one, name=name) for one, name in zip(fit.parameters, names, strict=True)]
    return parameters(fit, called=[prefix])


@dataclass(frozen=True, repr=False)
class SystemFit(Compact):
    """Equations fitted separately, each with its own random effects and residual.

    Attributes
    ----------
    components : mapping of str to LmmFit or PlainFit
        By role: ``mediator``, ``outcome``, ``reduced``.
    prefixes : tuple of str
        Prefix of each component's parameter names.
    called : tuple of str
        Name of each component in notes and failures: ``y without m``.
    clusters : Index
        Every cluster of the data, in order of appearance.
    group : tuple of str
        Columns whose combination names the cluster; empty if there are no clusters.
    apart : (str, str) or None
        The component whose covariance with the others is unknown, and why; None if all are independent.
    levels : DataFrame or None
        variable, role, level (1 rows, 2 clusters); None if levels were not determined.
    table : Any
        The user's table itself (not a copy), for strata and joint fits; None in a fit from a pickle.
    usual : str
        The default covariance.
    """

    kind: ClassVar[str] = "a system of equations that are fitted apart"

    components: Mapping[str, Component]
    prefixes: tuple[str, ...]
    called: tuple[str, ...]
    clusters: pd.Index
    group: tuple[str, ...] = ()
    apart: tuple[str, str] | None = None
    levels: pd.DataFrame | None = None
    table: Any = field(default=None, compare=False)
    usual: str = "block"

    def __reduce__(self) -> tuple[type[SystemFit], tuple[Any, ...]]:
        """Pickle everything but the rows."""
        kept = self.components, self.prefixes, self.called, self.clusters, self.group, self.apart, self.levels
        return type(self), kept

    def __repr__(self) -> str:
        asked = "; ".join(equation_of(fit).text for fit in self.once)
        found = f"design {self.design}, {self.method.upper()}" if self.design else self.method.upper()
        return f"{asked}; {found}; {len(self.clusters)} clusters ({self.group_name})"

    @property
    def group_name(self) -> str:
        """The cluster variable; empty if there is none."""
        return ":".join(self.group)

    @property
    def design(self) -> str:
        """Levels of treatment, mediator and outcome, ``"2-1-1"``; empty if not determined."""
        if self.levels is None:
            return ""
        found = self.levels.groupby("role")["level"].min()
        return "-".join(str(found[role]) for role in ("treatment", "mediator", "outcome"))

    @property
    def parts(self) -> tuple[slice, ...]:
        """Slice of psi for each component."""
        ends = np.cumsum([0, *(len(fit.psi) for fit in self.components.values())])
        return tuple(slice(int(start), int(stop)) for start, stop in pairwise(ends))

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Name, kind and equation of every entry of psi."""
        pairs = zip(self.components.values(), self.prefixes, strict=True)
        return tuple(one for fit, prefix in pairs for one in component_parameters(fit, prefix))

    @property
    def psi(self) -> Array:
        """All estimates, stacked by component."""
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
    def once(self) -> list[Component]:
        """Components without those that repeat a response."""
        return list({equation_of(fit).name: fit for fit in reversed(list(self.components.values()))}.values())[::-1]

    @property
    def llf(self) -> float:
        """Sum of the log-likelihoods, each response once."""
        return float(sum(fit.llf for fit in self.once))

    @property
    def nobs(self) -> int:
        """Response values used, each response once."""
        return int(sum(fit.nobs for fit in self.once))

    @property
    def n_parameters(self) -> int:
        """Number of parameters, each response once."""
        return int(sum(fit.n_parameters for fit in self.once))

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
        return next((fit.method for fit in self.components.values() if isinstance(fit, LmmFit)), "ml")

    @property
    def notes(self) -> tuple[Note, ...]:
        """Notes of the components with their equations, without repeats, rows left out first."""
        pairs = zip(self.components.values(), self.called, strict=True)
        found = [note for fit, name in pairs for note in _named(fit, name)]
        return tuple(dict.fromkeys(sorted(found, key=lambda note: note.code != "rows-left-out")))


def _named(fit: Component, name: str) -> list[Note]:
    """Notes of a component, prefixed with its equation if they do not name it."""
    if isinstance(fit, PlainFit):
        return list(fit.notes)
    dropped = [Note("rows-left-out", str(replace(one, equation=name))) for one in fit.layout.dropped]
    others = [note for note in fit.notes if note.code != "rows-left-out"]
    return [*dropped, *(note.about(f"equation {name}") if note.code in OF_AN_OPTIMUM else note for note in others)]
