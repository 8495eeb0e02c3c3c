"""Methods of some kinds of fits: refused with a reason for others, and not listed among their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Protocol, TypeVar

from mlmed.errors import UnavailableError

Method = TypeVar("Method", bound=Callable[..., Any])


class Held(Protocol):
    """A fit and its catalogue: what the functions in this room need of ``Results``."""

    @property
    def fit(self) -> Any:
        """The fitted model."""

    @property
    def catalogue(self) -> Any:
        """The effects it defines."""


def only(*kinds: Any) -> Callable[[Method], Method]:
    """Refuse a method for fits, and catalogues, of other kinds.

    Parameters
    ----------
    *kinds : type or single-dispatch function
        Classes of fits or catalogues that have the method, or a function registered for these classes.
    """

    def where() -> str:
        return f"belongs to {' or '.join(getattr(one, 'kind', '') or f'mlmed.{one.school}' for one in _classes(kinds))}"

    return _limited(lambda held: _is_of(held, kinds), where)


def never(*kinds: Any) -> Callable[[Method], Method]:
    """Refuse a method for fits of these kinds."""
    return _limited(lambda held: not _is_of(held, kinds), lambda: "is of fits with random effects")


def _limited(has: Callable[[Held], bool], where: Callable[[], str]) -> Callable[[Method], Method]:
    def limited(function: Method) -> Method:
        @wraps(function)
        def method(self: Held, *args: Any, **options: Any) -> Any:
            if not has(self):
                remedy = _remedy(self.fit, function.__name__)
                raise UnavailableError(f"{function.__name__} {where()}; this is {self.fit.kind}{remedy}")
            return function(self, *args, **options)

        method.__dict__["has"] = has
        return method  # type: ignore[return-value]

    return limited


def _is_of(held: Held, kinds: tuple[Any, ...]) -> bool:
    classes = _classes(kinds)
    return isinstance(held.fit, classes) or isinstance(held.catalogue, classes)


def _classes(kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    """Expand single-dispatch functions to their registered classes."""
    return tuple(one for kind in kinds for one in getattr(kind, "registry", (kind,)) if one is not object)


def _remedy(fit: Any, name: str) -> str:
    parts: Mapping[str, Any] = getattr(fit, "components", {})
    return f"; its parts have their own, as in fit.{next(iter(parts))}.{name}" if parts else ""


def can(attribute: Any, held: Held) -> bool:
    """Whether a class attribute is available for these results."""
    function = getattr(attribute, "fget", None) or getattr(attribute, "func", None) or attribute
    has: Callable[[Held], bool] | None = getattr(function, "has", None)
    return has is None or has(held)
