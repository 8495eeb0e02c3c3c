"""Named linear forms of psi, and effects as plain functions of them: for derivatives and for draws alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlmed.effects.draws import normal_draws
from mlmed.effects.quantity import Quantity
from mlmed.lmm.vcov import Vcov

__all__ = ["Effects"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Effects:
    """Effects as one function of linear forms of psi.

    Attributes
    ----------
    make : callable
        From the forms by name to the effects by name, written with arithmetic alone; a function of a module, so that
        workers can be given it.
    names : tuple of k str
        The forms.
    weights : (k, n) array
        ``weights @ psi`` are their values; a row of zeros where the model fixes one.
    notes : tuple of k str
        What to say beside each.
    carried : tuple of k tuples of str
        What to say of everything that is made of each.
    lacking : frozenset of str
        Forms that do not exist.
    """

    make: Callable[..., dict[str, Any]]
    names: tuple[str, ...]
    weights: Array
    notes: tuple[str, ...]
    carried: tuple[tuple[str, ...], ...]
    lacking: frozenset[str] = frozenset()

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
        """Covariance (k, k) of the forms; NaN where V is, but not for entries that would only add 0 times NaN."""
        found = np.empty((len(self.names),) * 2)
        for i, left in enumerate(self.weights):
            matrix = V.of(left)
            for k, right in enumerate(self.weights):
                rows, columns = left != 0.0, right != 0.0
                found[i, k] = left[rows] @ matrix[np.ix_(rows, columns)] @ right[columns]
        return found

    def monte_carlo(self, psi: Array, V: Vcov, *, n: int, rng: np.random.Generator) -> dict[str, Array]:
        """Draws (n,) of every effect from the joint normal distribution of the forms (eq. 43).

        Forms whose covariance is not known are drawn apart, and nothing is made of both. A form whose variance does not
        exist is NaN in every draw, and so is what is made of it.
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
    """Forms with a variance, in groups within which all covariances are known."""
    known = np.isfinite(covariance)
    groups: list[list[int]] = []
    for k in np.flatnonzero(known.diagonal() & exists):
        own = next((group for group in groups if known[k, group].all()), None)
        if own is None:
            groups.append([int(k)])
        else:
            own.append(int(k))
    return groups
