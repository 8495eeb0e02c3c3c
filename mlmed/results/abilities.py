"""What only some fits can do: refused for others in words, and not listed among their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Protocol, TypeVar

from mlmed.errors import EffectError

__all__ = ["Held", "can", "never", "only"]

Method = TypeVar("Method", bound=Callable[..., Any])


class Held(Protocol):
    """A fit and its catalogue, as the functions that results are made of see them."""

    @property
    def fit(self) -> Any:
        """The fitted model."""

    @property
    def catalogue(self) -> Any:
        """What effects it has."""


def only(*kinds: Any) -> Callable[[Method], Method]:
    """Refuse a method for fits, and catalogues, of other kinds.

    Parameters
    ----------
    *kinds : type
        Classes of fits, or of catalogues, that have it.
    """
    has = " or ".join(getattr(kind, "kind", "") or f"mlmed.{kind.school}" for kind in kinds)
    return _limited(lambda held: _is_of(held, kinds), f"belongs to {has}")


def never(*kinds: Any) -> Callable[[Method], Method]:
    """Refuse a method for fits of these kinds."""
    return _limited(lambda held: not _is_of(held, kinds), "is of fits with random effects")


def _limited(has: Callable[[Held], bool], where: str) -> Callable[[Method], Method]:
    def limited(function: Method) -> Method:
        @wraps(function)
        def method(self: Held, *args: Any, **options: Any) -> Any:
            if not has(self):
                remedy = _remedy(self.fit, function.__name__)
                raise EffectError(f"{function.__name__} {where}; this is {self.fit.kind}{remedy}")
            return function(self, *args, **options)

        method.__dict__["has"] = has
        return method  # type: ignore[return-value]

    return limited


def _is_of(held: Held, kinds: tuple[Any, ...]) -> bool:
    return isinstance(held.fit, kinds) or isinstance(held.catalogue, kinds)


def _remedy(fit: Any, name: str) -> str:
    parts: Mapping[str, Any] = getattr(fit, "components", {})
    return f"; its parts have their own, as in fit.{next(iter(parts))}.{name}" if parts else ""


def can(attribute: Any, held: Held) -> bool:
    """Whether results have what an attribute of their class gives."""
    function = getattr(attribute, "fget", None) or getattr(attribute, "func", None) or attribute
    has: Callable[[Held], bool] | None = getattr(function, "has", None)
    return has is None or has(held)
