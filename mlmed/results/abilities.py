"""Methods of some kinds of fits: refused with a reason for others, and not listed among their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, Protocol, TypeVar

from mlmed.effects.catalogue import NoEffects, PlainEquation
from mlmed.errors import UnavailableError
from mlmed.fit.glm import PlainFit

Method = TypeVar("Method", bound=Callable[..., Any])


class Held(Protocol):
    """A fit and its catalogue: what the functions in this room need of ``Results``."""

    @property
    def fit(self) -> Any:
        """The fitted model."""

    @property
    def catalogue(self) -> Any:
        """The effects it defines."""


@dataclass(frozen=True)
class Part:
    """One of several fits, as ``Results`` of it are: it defines no effects of its own."""

    fit: Any

    @property
    def catalogue(self) -> NoEffects:
        """What effects it has."""
        return PlainEquation() if isinstance(self.fit, PlainFit) else NoEffects()


def only(*kinds: Any) -> Callable[[Method], Method]:
    """Refuse a method for fits, and catalogues, of other kinds.

    Parameters
    ----------
    *kinds : type or single-dispatch function
        Classes of fits or catalogues that have the method, or a function registered for these classes.
    """

    def where() -> str:
        return f"belongs to {' or '.join(getattr(one, 'kind', '') or f'mlmed.{one.school}' for one in _classes(kinds))}"

    return limited(lambda held: is_of(held, kinds), where)


def never(*kinds: Any) -> Callable[[Method], Method]:
    """Refuse a method for fits of these kinds."""
    return limited(lambda held: not is_of(held, kinds), lambda: "is of fits with random effects")


def limited(has: Callable[[Held], bool], where: Callable[[], str]) -> Callable[[Method], Method]:
    """Refuse a method where ``has`` says no; ``where`` says which fits have it."""

    def decorated(function: Method) -> Method:
        @wraps(function)
        def method(self: Held, *args: Any, **options: Any) -> Any:
            if not has(self):
                raise UnavailableError(
                    f"{function.__name__} {where()}; this is {self.fit.kind}{_remedy(self, function.__name__, has)}"
                )
            return function(self, *args, **options)

        method.__dict__["has"] = has
        return method  # type: ignore[return-value]

    return decorated


def listed(has: Callable[[Held], bool]) -> Callable[[Method], Method]:
    """List a method among the names of fits of which ``has`` says yes; others it refuses in its own words."""

    def decorated(function: Method) -> Method:
        function.__dict__["has"] = has
        return function

    return decorated


def is_of(held: Held, kinds: tuple[Any, ...]) -> bool:
    """Whether a fit, or its catalogue, is of one of these kinds."""
    classes = _classes(kinds)
    return isinstance(held.fit, classes) or isinstance(held.catalogue, classes)


def _classes(kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    """Expand single-dispatch functions to their registered classes."""
    return tuple(one for kind in kinds for one in getattr(kind, "registry", (kind,)) if one is not object)


def _remedy(held: Held, name: str, has: Callable[[Held], bool]) -> str:
    """Name a part that has its own, if there is one; pictures stand in a place of their own."""
    parts: Mapping[str, Any] = getattr(held.fit, "components", {})
    place = getattr(held, "place", "")
    role = next((role for role, fit in parts.items() if has(Part(fit))), None)
    return "" if role is None else f"; its parts have their own, as in fit.{role}.{place}{name}"


def can(attribute: Any, held: Held) -> bool:
    """Whether a class attribute is available for these results."""
    function = getattr(attribute, "fget", None) or getattr(attribute, "func", None) or attribute
    has: Callable[[Held], bool] | None = getattr(function, "has", None)
    return has is None or has(held)
