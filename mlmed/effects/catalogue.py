"""Effects of a fit: functions of named linear forms of psi, and catalogues that evaluate them at one place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from mlmed.effects.draws import normal_draws
from mlmed.effects.quantity import Quantity
from mlmed.errors import EffectError
from mlmed.fit.protocol import Fit
from mlmed.fit.resampling import Plan, Source, source_of
from mlmed.lmm.estimates import Estimates
from mlmed.lmm.vcov import Vcov
from mlmed.notes import joined

Array = NDArray[np.float64]
#: Name of an interval -> its options, with defaults.
IntervalOptions = Mapping[str, Mapping[str, Any]]


class EffectSet(Protocol):
    """Effects at one place: values and derivatives, their covariance, and their values for draws of parameters."""

    @property
    def quantities(self) -> Mapping[str, Quantity]:
        """The effects at the estimates, as functions of the coordinates of ``vcov``."""

    @property
    def named(self) -> Mapping[str, Quantity]:
        """The effects and the parameters that expressions may name, as functions of these coordinates."""

    def told(self, V: Vcov) -> Mapping[str, Quantity]:
        """The effects, with notes from their covariance before their other notes."""

    def vcov(self, kind: str | None = None) -> Vcov:
        """Covariance of these coordinates, of one kind; by default the fit's own."""

    def monte_carlo(self, V: Vcov, *, n: int, seed: int) -> Mapping[str, Array]:
        """Effects (n,) of normal draws of the parameters."""

    def centred(self, draws: Mapping[str, Array], V: Vcov) -> tuple[Mapping[str, Quantity], Mapping[str, str]]:
        """The effects centred at their Monte Carlo draws, and reasons for missing intervals."""

    @property
    def unspread(self) -> Mapping[str, str]:
        """Effects whose Monte Carlo draws have no variance, and why."""

    def cautions(self, V: Vcov) -> Mapping[str, str]:
        """Notes beside normal intervals, by term."""

    # -- bootstrap -----------------------------------------------------------------------------------------

    def source(self, plan: Plan) -> Source:
        """Source of replicates of the fit."""

    @property
    def columns(self) -> Callable[[Array], Mapping[str, Array]]:
        """A picklable function from replicates (d, width) to the terms of ``drawn``, (d,) each."""

    @property
    def drawn(self) -> Mapping[str, Quantity]:
        """The effects, and the parameters that are drawn with them."""

    @property
    def unspread_replicates(self) -> Mapping[str, str]:
        """Effects whose replicates have no variance, and why."""

    def seen(self, draws: Mapping[str, Array]) -> Mapping[str, str]:
        """Notes on replicates, by term."""


class Catalogue(ABC):
    """The effects that a kind of model defines, and the intervals that they can have.

    A new school of effects is a subclass with ``school``, ``terms``, ``intervals`` and ``effects``.
    """

    #: The public function that makes such fits.
    school: ClassVar[str]
    #: Rows of the table of effects, in order.
    terms: ClassVar[tuple[str, ...]] = ()
    #: Definition in the heading of that table; for example ``indirect = a*b + cov_ab``.
    meaning: ClassVar[str] = ""
    #: Options of each kind of interval, with defaults; others are refused.
    intervals: ClassVar[IntervalOptions] = {}
    #: Order of the delta method for functions of effects and parameters.
    order: ClassVar[str] = "second"
    #: Options besides ``at`` that choose among effects.
    questions: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def effects(self, fit: Any, at: Mapping[str, Any] | None = None) -> EffectSet:
        """The effects of a fit, at values of moderators.

        Raises
        ------
        EffectError
            The model defines no effects, or none at these values.
        """

    def label(self, fit: Any) -> str:
        """Name of such a fit in a comparison."""
        return str(fit.label)

    def title(self, fit: Any) -> str:
        """Title of a summary."""
        return f"{self.school.capitalize()}: {fit.label}"

    def rows(self, fit: Any) -> tuple[str, ...]:
        """Names of the effects, also of a fit that does not define them."""
        return self.terms

    def heading(self, fit: Any) -> str:
        """Definition in the heading of a table of effects."""
        return self.meaning

    @property
    def entries(self) -> dict[str, Any]:
        """Entries of a document about the question, such as the treatment."""
        return {}


def schools_with(interval: str, option: str = "") -> list[str]:
    """Schools whose effects have a kind of interval, or whose intervals (``interval=""``: of any kind) an option.

    Examples
    --------
    >>> import mlmed
    >>> schools_with("product"), schools_with("bootstrap", "within")
    (['piecewise'], ['mediate'])
    """
    asked = {
        one.school: [known for kind, known in one.intervals.items() if interval in ("", kind)]
        for one in _below(Catalogue)
        if one.__module__.startswith("mlmed.")  # a user's own school is no function of mlmed
    }
    return sorted(school for school, kinds in asked.items() if any(not option or option in known for known in kinds))


def _below(kind: Any) -> Iterator[Any]:
    """Every catalogue that has a school."""
    for one in kind.__subclasses__():
        yield one
        yield from _below(one)


@dataclass(frozen=True)
class NoEffects(Catalogue):
    """The catalogue of models without a treatment and a mediator."""

    school: ClassVar[str] = "mixed"

    def effects(self, fit: Any, at: Mapping[str, Any] | None = None) -> EffectSet:
        """Refuse.

        Raises
        ------
        EffectError
            Always.
        """
        raise EffectError("a model without treatment and mediator has no effects; fit it with mlmed.mediate")

    def title(self, fit: Any) -> str:
        """Empty: the fit has its own title."""
        return ""


@dataclass(frozen=True)
class PlainEquation(NoEffects):
    """The same of an ordinary regression, which is a part of a fit: no function of mlmed makes one alone."""

    school: ClassVar[str] = "regression"


def parameter_quantities(fit: Fit) -> dict[str, Quantity]:
    """Every entry of psi by name."""
    psi = fit.psi
    unit = np.eye(len(psi))
    return {one.name: Quantity(one.name, float(psi[k]), unit[k], kind=one.kind) for k, one in enumerate(fit.parameters)}


def with_parameters(
    effects: Callable[[Array], Mapping[str, Array]], names: Sequence[str], psi: Array
) -> dict[str, Array]:
    """Effects of parameter vectors (n, n_psi), and the parameters themselves, by name."""
    return {**effects(psi), **dict(zip(names, psi.T, strict=True))}


def _none(V: Vcov) -> Mapping[str, str]:
    return {}


def _no_effects(psi: Array) -> dict[str, Array]:
    return {}


def _unseen(draws: Mapping[str, Array]) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class FormSet:
    """Effects that are functions of linear forms of psi.

    Attributes
    ----------
    fit : Fit
        Has psi and its covariances.
    forms : Effects or None
        The functions; None if the model defines no effects.
    quantities : mapping of str to Quantity
        The effects at psi.
    moving : callable or None
        The effects as a function of a mixed model's estimates; None for other fits.
    unspread, caution, look
        ``unspread``, ``cautions`` and ``seen`` of ``EffectSet``.
    """

    fit: Fit
    forms: Effects | None = None
    quantities: Mapping[str, Quantity] = field(default_factory=dict)
    moving: Callable[[Estimates], dict[str, Quantity]] | None = None
    unspread: Mapping[str, str] = field(default_factory=dict)
    caution: Callable[[Vcov], Mapping[str, str]] = _none
    look: Callable[[Mapping[str, Array]], Mapping[str, str]] = _unseen

    @property
    def named(self) -> dict[str, Quantity]:
        """Effects and parameters at psi."""
        return {**self.quantities, **parameter_quantities(self.fit)}

    def told(self, V: Vcov) -> Mapping[str, Quantity]:
        """The effects as they are."""
        return self.quantities

    def vcov(self, kind: str | None = None) -> Vcov:
        """Covariance of psi."""
        return self.fit.vcov(self.fit.usual if kind is None else kind)

    def monte_carlo(self, V: Vcov, *, n: int, seed: int) -> dict[str, Array]:
        """Effects of joint normal draws of the forms (eq. 43)."""
        if self.forms is None:
            return {}
        return self.forms.monte_carlo(self.fit.psi, V, n=n, rng=np.random.default_rng(seed))

    def centred(self, draws: Mapping[str, Array], V: Vcov) -> tuple[Mapping[str, Quantity], Mapping[str, str]]:
        """The effects as they are; fixed ones, and those without a variance in V, have no draws."""
        return self.quantities, {
            term: joined(q.note, "" if q.is_fixed else V.reason_for(q.gradient, q.hessian))
            for term, q in self.quantities.items()
            if q.is_fixed or np.isnan(draws[term]).any()
        }

    def cautions(self, V: Vcov) -> Mapping[str, str]:
        """Notes beside normal intervals."""
        return self.caution(V)

    def source(self, plan: Plan) -> Source:
        """Source of replicates of the fit."""
        return source_of(self.fit, plan)

    @property
    def columns(self) -> Callable[[Array], dict[str, Array]]:
        """A picklable function from parameter vectors to effects and parameters."""
        names = [one.name for one in self.fit.parameters]
        return partial(with_parameters, _no_effects if self.forms is None else self.forms.draws, names)

    @property
    def drawn(self) -> dict[str, Quantity]:
        """Effects and parameters at psi."""
        return self.named

    @property
    def unspread_replicates(self) -> Mapping[str, str]:
        """Empty: the spread is shown, with the notes of ``seen``."""
        return {}

    def seen(self, draws: Mapping[str, Array]) -> Mapping[str, str]:
        """Notes on replicates."""
        return self.look(draws)


@dataclass(frozen=True, slots=True)
class Effects:
    """Effects as one function of linear forms of psi.

    Attributes
    ----------
    make : callable
        From forms to effects, by name, with arithmetic alone; a module-level function, so that it can be pickled.
    names : tuple of k str
        The forms.
    weights : (k, n) array
        ``weights @ psi`` are their values; a row of zeros for a form that the model fixes.
    notes : tuple of k str
        Notes on each form.
    carried : tuple of k tuples of str
        Notes inherited by every effect that uses it.
    lacking : frozenset of str
        Forms that do not exist.
    held : tuple of k tuples of str
        Where each is taken (``w = 1``); empty where none depends on a place.
    """

    make: Callable[..., dict[str, Any]]
    names: tuple[str, ...]
    weights: Array
    notes: tuple[str, ...]
    carried: tuple[tuple[str, ...], ...]
    lacking: frozenset[str] = frozenset()
    held: tuple[tuple[str, ...], ...] = ()

    def places(self, names: Collection[str]) -> list[str]:
        """Where some forms are taken, each place once; those that the model fixes have none."""
        rows = zip(self.names, self.weights, self.held, strict=True) if self.held else ()
        return list(dict.fromkeys(place for name, w, held in rows if name in names and w.any() for place in held))

    def values(self, psi: Array) -> Array:
        """The forms of one parameter vector (n,), or of many (d, n): (k,) or (d, k)."""
        found = psi @ self.weights.T
        found[..., [name in self.lacking for name in self.names]] = np.nan
        return found

    def quantities(self, psi: Array) -> dict[str, Quantity]:
        """Every effect with its derivatives in psi (n,)."""
        rows = zip(self.names, self.values(psi), self.weights, self.notes, self.carried, strict=True)
        forms = {name: Quantity(name, float(value), w, None, note, "", more) for name, value, w, note, more in rows}
        return {term: quantity.named(term) for term, quantity in self.make(**forms).items()}

    def draws(self, psi: Array) -> dict[str, Array]:
        """Every effect of many parameter vectors (d, n), one array (d,) each."""
        return self._made(self.values(psi))

    def _made(self, values: Array) -> dict[str, Array]:
        return self.make(**dict(zip(self.names, values.T, strict=True)))

    def covariance(self, V: Vcov) -> Array:
        """Covariance (k, k) of the forms; NaN where V is NaN with a nonzero weight."""
        found = np.empty((len(self.names),) * 2)
        for i, left in enumerate(self.weights):
            matrix = V.of(left)
            for k, right in enumerate(self.weights):
                rows, columns = left != 0.0, right != 0.0
                found[i, k] = left[rows] @ matrix[np.ix_(rows, columns)] @ right[columns]
        return found

    def monte_carlo(self, psi: Array, V: Vcov, *, n: int, rng: np.random.Generator) -> dict[str, Array]:
        """Draws (n,) of every effect from the joint normal distribution of the forms (eq. 43).

        Forms without a known covariance are drawn separately, and effects of both are NaN. A form without a variance
        is NaN in every draw, and so are its effects.
        """
        mean, covariance = self.values(psi), self.covariance(V)
        found: dict[str, Array] = {}
        for group in _known_together(covariance, np.isfinite(mean)):
            forms = np.full((n, len(mean)), np.nan)
            forms[:, group] = normal_draws(mean[group], covariance[np.ix_(group, group)], n, rng)
            made = self._made(forms)
            found = {
                term: np.where(np.isnan(found.get(term, np.nan)), draws, found[term]) if found else draws
                for term, draws in made.items()
            }
        return found or self._made(np.full((n, len(mean)), np.nan))


def _known_together(covariance: Array, exists: NDArray[np.bool_]) -> list[list[int]]:
    """Group the forms with a variance so that all covariances within a group are known."""
    known = np.isfinite(covariance)
    groups: list[list[int]] = []
    for k in np.flatnonzero(known.diagonal() & exists):
        own = next((group for group in groups if known[k, group].all()), None)
        if own is None:
            groups.append([int(k)])
        else:
            own.append(int(k))
    return groups
