"""Effects of equations fitted jointly: slopes, specific and total indirect effects (docs/math.md, eq. 26, 27)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlmed.effects.catalogue import Catalogue, Effects, FormSet, IntervalOptions
from mlmed.effects.quantity import Quantity, mean_product
from mlmed.effects.routes import CPRIME, DIRECT, INDIRECT, B, Routes, find_routes
from mlmed.effects.slopes import slope_note
from mlmed.fit.lmm import LmmFit
from mlmed.lmm.estimates import Estimates
from mlmed.notes import joined

Array = NDArray[np.float64]
T = TypeVar("T", Quantity, Array)
#: Options of each kind of interval, with defaults.
INTERVALS: IntervalOptions = {
    "delta": {"vcov": "block", "order": "second", "ddf": "none"},
    "monte-carlo": {"vcov": "block", "n": 20_000, "seed": None},
    "profile": {"vcov": "block"},
    "bootstrap": {
        "n": 1000, "kind": "case", "within": False, "ends": "percentile", "seed": None, "n_jobs": None,
        "progress": False,
    },
}  # fmt: skip
#: Rows of the table of effects with one mediator, in order.
COV_AB, TOTAL = "cov_ab", "total"
EFFECTS = ("a", "b", CPRIME, COV_AB, INDIRECT, DIRECT, TOTAL)


@dataclass(frozen=True, slots=True)
class PathEffects:
    """All effects of a system as a function of its slopes and their covariances (eq. 26, 27).

    Attributes
    ----------
    slopes, pairs, covariances : tuples of str
        Names of the slopes; positions of the pairs that share a route, and names of their covariances.
    shown : tuple of str
        Covariances that have rows of their own.
    routes, labels
        As in ``Routes``.
    by_route : bool
        Whether to return the effects of routes and their pairwise differences, and nothing else.
    """

    slopes: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    covariances: tuple[str, ...]
    shown: tuple[str, ...]
    routes: tuple[tuple[int, ...], ...]
    labels: tuple[str, ...]
    by_route: bool = False

    def __call__(self, **forms: T) -> dict[str, T]:
        """The effects by name, in the order of the table."""
        of_pair = {pair: forms[name] for pair, name in zip(self.pairs, self.covariances, strict=True)}
        found = {}
        for label, route in zip(self.labels, self.routes, strict=True):
            own = {(i, k): of_pair[route[i], route[k]] for i, k in combinations(range(len(route)), 2)}
            found[label] = mean_product([forms[self.slopes[k]] for k in route], own)
        inner = [found[label] for label in self.labels if label != DIRECT]
        indirect = inner[0]
        for one in inner[1:]:
            indirect = indirect + one
        if self.by_route:
            apart = combinations([label for label in self.labels if label != DIRECT], 2)
            return {**found, **{f"{left} - {right}": found[left] - found[right] for left, right in apart}}
        rows = {name: forms[name] for name in (*self.slopes, *self.shown)}
        direct = found.pop(DIRECT)
        return {**rows, **found, INDIRECT: indirect, DIRECT: direct, TOTAL: indirect + direct}


def effects_of(routes: Routes, estimates: Estimates, *, by_route: bool = False) -> Effects:
    """The effects as a function of psi = (beta, tau, sigma2)."""
    p, T = len(estimates.beta), len(estimates.tau)
    k, pairs = len(routes.slopes), routes.pairs
    weights = np.zeros((k + len(pairs), p + T + len(estimates.sigma2)))
    weights[:k, :p] = [slope.fixed for slope in routes.slopes]
    for row, (i, j) in enumerate(pairs, start=k):
        r_i, r_j = routes.slopes[i].random, routes.slopes[j].random
        weights[row, p : p + T] = np.einsum("kab,a,b->k", estimates.tau_basis, r_i, r_j)
    together = {one for pair in pairs for one in pair if all(routes.slopes[other].is_present for other in pair)}
    covarying = [_note_of_covariance(routes, pair, bool(weights[row].any())) for row, pair in enumerate(pairs, start=k)]
    notes = [slope_note(slope, _absent(routes, n)) for n, slope in enumerate(routes.slopes)]
    carried = [
        (slope.note,) if n in together or name == CPRIME else ()
        for n, (name, slope) in enumerate(zip(routes.names, routes.slopes, strict=True))
    ]
    held = [slope.held for slope in routes.slopes]
    held += [routes.slopes[i].random_held + routes.slopes[j].random_held for i, j in pairs]
    names = covariance_names(routes)
    made = PathEffects(
        routes.names,
        tuple(pairs),
        names,
        tuple(name for name, pair in zip(names, pairs, strict=True) if _has_row(routes, pair)),
        routes.routes,
        routes.labels,
        by_route,
    )
    return Effects(
        made,
        (*routes.names, *names),
        weights,
        (*notes, *(note for note, _ in covarying)),
        (*carried, *(taken for _, taken in covarying)),
        held=tuple(held),
    )


def covariance_names(routes: Routes) -> tuple[str, ...]:
    """Names of the covariances of ``routes.pairs``: ``cov_ab`` with one mediator, ``cov(a[m1],b[m1])`` with several."""
    if routes.is_simple:
        return (COV_AB,)
    return tuple(f"cov({routes.names[i]},{routes.names[k]})" for i, k in routes.pairs)


def _has_row(routes: Routes, pair: tuple[int, int]) -> bool:
    """Whether a covariance has a row: with one mediator always, with several if both slopes vary over clusters."""
    return routes.is_simple or all(bool(routes.slopes[one].random.any()) for one in pair)


def _absent(routes: Routes, number: int) -> str:
    """Say why a slope is fixed at 0 if no term has its variable."""
    if routes.names[number] == CPRIME:
        return "fixed at 0: the treatment is not in the outcome equation"
    role = "outcome" if routes.names[number] == B else "mediator"
    return f"fixed at 0: the {role} equation has no such term"


def effect_quantities(routes: Routes, estimates: Estimates) -> dict[str, Quantity]:
    """The effects at the estimates."""
    return effects_of(routes, estimates).quantities(estimates.psi)


def _note_of_covariance(routes: Routes, pair: tuple[int, int], is_free: bool) -> tuple[str, tuple[str, ...]]:
    """Notes on the covariance of two slopes, and on effects that may leave out random slopes."""
    slopes, names = [routes.slopes[k] for k in pair], [routes.names[k] for k in pair]
    others = [routes.other_slopes[k] for k in pair]
    varying = [bool(slope.random.any()) for slope in slopes]
    left = [name for known, own in zip(varying, others, strict=True) if not known for name in own]
    if is_free:
        taken = slopes[0].random_note, slopes[1].random_note
        return joined(*taken), taken
    both = " and ".join(names)
    if all(varying):
        return f"fixed at 0: the random slopes of {both} are not allowed to covary", ()
    if not all(known or own for known, own in zip(varying, others, strict=True)):
        return f"fixed at 0: {both} do not both vary over clusters", ()
    whose = " and ".join(name for known, name in zip(varying, names, strict=True) if not known)
    note = (
        f"fixed at 0: no random slope has the column of {whose}; whether {', '.join(left)} is its within-cluster "
        "part is not recognized, so their covariance is left out (nlcom() can name it)"
    )
    return note, (f"without a covariance of slopes that {', '.join(left)} may have a part in (see cov_ab)",)


@dataclass(frozen=True)
class PathCatalogue(Catalogue):
    """Slopes and effects of equations fitted jointly.

    With one mediator a, b, cprime, cov_ab, indirect, direct, total; with several a slope per arrow (``a[m1]``,
    ``d[m1,m2]``, ``b[m2]``), the covariances of slopes that vary, an indirect effect per route (``indirect[m1,m2]``),
    their sum ``indirect``, direct, total.

    Attributes
    ----------
    treatment : str
        Column of the treatment x.
    contrast : pair or None
        Values of the treatment that are compared; None for a unit change.
    """

    school: ClassVar[str] = "mediate"
    terms: ClassVar[tuple[str, ...]] = EFFECTS
    meaning: ClassVar[str] = "indirect = a*b + cov_ab"
    intervals: ClassVar[IntervalOptions] = INTERVALS

    treatment: str
    contrast: tuple[Any, Any] | None = None

    def title(self, fit: LmmFit) -> str:
        """Title of a summary."""
        *mediators, outcome = [equation.name for equation in fit.layout.equations]
        return f"Multilevel mediation: {self.treatment} -> {', '.join(mediators)} -> {outcome}"

    def rows(self, fit: LmmFit) -> tuple[str, ...]:
        """Names of the effects, also of a fit that does not define them."""
        return self.terms if len(fit.layout.equations) == 2 else (CPRIME, INDIRECT, DIRECT, TOTAL)

    def heading(self, fit: LmmFit) -> str:
        """Definition of the indirect effect."""
        single = len(fit.layout.equations) == 2
        return self.meaning if single else "indirect = sum of the means of products of slopes along each route"

    @property
    def entries(self) -> dict[str, Any]:
        """Entries of a document about the question."""
        return {"treatment": self.treatment, "contrast": self.contrast}

    def routes(self, fit: LmmFit, at: Mapping[str, Any] | None = None) -> Routes:
        """The slopes and routes at values of moderators.

        Raises
        ------
        EffectError
            As ``find_routes``.
        """
        return find_routes(fit.layout, treatment=self.treatment, contrast=self.contrast, at=at)

    def effects(self, fit: LmmFit, at: Mapping[str, Any] | None = None, *, by_route: bool = False) -> FormSet:
        """The effects at values of moderators.

        Parameters
        ----------
        fit : LmmFit
            The fit.
        at : mapping, optional
            Values of moderators.
        by_route : bool
            The effects of routes and their pairwise differences instead.

        Raises
        ------
        EffectError
            As ``find_routes``.
        """
        forms = effects_of(self.routes(fit, at), fit.estimates, by_route=by_route)
        return FormSet(fit, forms, forms.quantities(fit.psi), _Moving(forms))


@dataclass(frozen=True, slots=True)
class _Moving:
    """Effects as a function of estimates."""

    forms: Effects

    def __call__(self, estimates: Estimates) -> dict[str, Quantity]:
        return self.forms.quantities(estimates.psi)
