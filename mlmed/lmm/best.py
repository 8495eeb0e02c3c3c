"""The best of several optima (docs/math.md, section 21).

A certificate is local: it proves that nothing nearby is better. Searches start in different regions, and one that comes
to where the criterion is convex all the way to a known optimum is left. Where some clusters are unlike the others, or
the searches end in different optima, more starts follow, in rounds, until nothing better is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mlmed.errors import NotIdentifiedError
from mlmed.lmm.candidates import Candidates, candidates_for
from mlmed.lmm.covariance import Block
from mlmed.lmm.criterion import evaluate
from mlmed.lmm.fit import Optimum, Searched, coordinates, optimize, search_from
from mlmed.lmm.objective import objective_for
from mlmed.lmm.optimizer import NewtonSettings
from mlmed.lmm.problem import Evaluation, Problem

__all__ = ["best_from", "best_optimum", "falls_into"]

Array = NDArray[np.float64]

#: Difference in -2l that counts as none: 1e-6 in the log-likelihood.
SAME = 2e-6
#: Newton decrement from which on a search is near its end, the same where no cluster is unlike the others, and distance
#: that is none (all squared, in standard errors).
NEAR, ORDINARY, HERE = 1.0, 9.0, 1e-4
#: Where convexity is looked at between two points.
BETWEEN = np.linspace(0.0, 1.0, 9)
#: A search from another start ends early, unless it is lower by then than all others.
SHORT = NewtonSettings(max_steps=40)
#: Rounds of the wide search at most, and clusters up to which it is made with all of them.
ROUNDS, SEARCHED = 6, 20_000


def falls_into(end: Optimum, L: Array, sigma2: Array, at: Evaluation, decrement: float, *, near: float = NEAR) -> bool:
    """Whether a search that has come to (L, sigma2) ends in an optimum that is known.

    The Newton step must be short, and -2l convex on the segment from the optimum to the point, in (G, Sigma): the
    quintic with the value, slope and curvature of -2l at both ends is (eq. 130). No cluster is visited.
    """
    if not decrement < near:
        return False
    move = np.append((L @ L.T - end.G).ravel(), sigma2 - end.sigma2)
    first = end.evaluation
    if float(move @ first.information @ move) < HERE:
        return True
    rise = at.value - first.value
    slope, steep = float(first.gradient @ move), float(at.gradient @ move)
    bend, bent = float(move @ first.hessian @ move), float(move @ at.hessian @ move)
    cubic = 10.0 * rise - 6.0 * slope - 4.0 * steep - 1.5 * bend + 0.5 * bent
    quartic = -15.0 * rise + 8.0 * slope + 7.0 * steep + 1.5 * bend - bent
    quintic = 6.0 * rise - 3.0 * slope - 3.0 * steep - 0.5 * bend + 0.5 * bent
    curvature = bend + BETWEEN * (6.0 * cubic + BETWEEN * (12.0 * quartic + BETWEEN * 20.0 * quintic))
    return bool(curvature.min() > 0.0)


@dataclass(slots=True)
class _Ends:
    """Distinct ends of searches in one problem, in the order in which they were found."""

    problem: Problem
    blocks: tuple[Block, ...]
    reml: bool
    found: list[Optimum] = field(default_factory=list)
    starts: int = 0
    near: float = NEAR

    def add(self, end: Optimum) -> None:
        """Keep an end that is not known; of two at the same value the certified one."""
        for k, other in enumerate(self.found):
            if abs(end.evaluation.value - other.evaluation.value) <= SAME:
                if end.certificate.converged and not other.certificate.converged:
                    self.found[k] = end
                return
        self.found.append(end)

    def search(self, thetas: Iterable[Array]) -> None:
        """Search from each start, unless that leads to a certified optimum which is known."""
        objective = objective_for(self.problem, self.blocks, reml=self.reml)
        for theta in thetas:
            self.starts += 1
            try:
                end = search_from(objective, self.blocks, theta, SHORT, self._known)
                if end is not None and not end.certificate.converged and self._lower(end):  # worth going on
                    start = coordinates(self.problem, self.blocks, end.G, end.sigma2)
                    end = search_from(objective, self.blocks, start, NewtonSettings(), self._known)
            except (NotIdentifiedError, np.linalg.LinAlgError):  # it led to where there is no optimum
                continue
            if end is not None and (end.certificate.converged or self._lower(end)):
                self.add(end)

    def _lower(self, end: Optimum) -> bool:
        return end.evaluation.value < self.best.evaluation.value - SAME

    def _known(self, L: Array, sigma2: Array, at: Evaluation, decrement: float) -> bool:
        return any(
            falls_into(end, L, sigma2, at, decrement, near=self.near) for end in self.found if end.certificate.converged
        )

    @property
    def optima(self) -> list[Optimum]:
        """The certified ends, the best first."""
        certified = [end for end in self.found if end.certificate.converged]
        return sorted(certified, key=lambda end: end.evaluation.value)

    @property
    def best(self) -> Optimum:
        """The lowest end, certified or not: a certified one that is beaten is no answer."""
        return min(self.found, key=lambda end: end.evaluation.value)

    def result(self, *, clusters: int = 0) -> Optimum:
        """The best end, with what is known of the others."""
        best, optima = self.best, self.optima
        others = [end for end in optima if end is not best]
        values = tuple(sorted(end.evaluation.value for end in {id(e): e for e in (best, *optima)}.values()))
        other = (others[0].L, others[0].sigma2) if others else None
        return replace(best, searched=Searched(self.starts, values, other, clusters))


def best_optimum(
    problem: Problem,
    blocks: tuple[Block, ...],
    *,
    reml: bool,
    names: tuple[str, ...] | None = None,
    sample: Callable[[], Problem | None] | None = None,
) -> Optimum:
    """The lowest of the optima that searches from different starts find.

    Parameters
    ----------
    problem, blocks, reml, names
        As in ``optimize``.
    sample : callable, optional
        A problem of some of the clusters in the same units, where there are too many to try all starts on all of them;
        None where there are not.
    """
    first = optimize(problem, blocks, reml=reml, names=names)
    ends = _Ends(problem, blocks, reml, [first], 1)
    part = None if sample is None else sample()
    if part is None:
        _widen(ends)
        return ends.result()
    material = candidates_for(problem, blocks, first, reml=reml)
    if material.unusual:  # what a few clusters decide a sample does not show
        _widen(ends, material, rounds=ROUNDS if problem.n_clusters <= SEARCHED else 0)
    inner = _sampled(part, blocks, reml, names)
    if inner is not None:
        if len(inner.found) > 1 or not _same_basin(inner.best, first, part, reml=reml):
            others = [end for end in inner.found if end is not inner.best]
            ends.search(coordinates(problem, blocks, end.G, end.sigma2) for end in (inner.best, *others))
        ends.starts += inner.starts
    return ends.result(clusters=part.n_clusters)


def _same_basin(best: Optimum, first: Optimum, part: Problem, *, reml: bool) -> bool:
    """Whether -2l of a sample is convex from its optimum to that of all clusters: no cluster beyond it is visited."""
    try:
        at = evaluate(part, first.L, first.sigma2, reml=reml)
    except np.linalg.LinAlgError:
        return False
    return falls_into(best, first.L, first.sigma2, at, 0.0)


def _sampled(part: Problem, blocks: tuple[Block, ...], reml: bool, names: tuple[str, ...] | None) -> _Ends | None:
    """The ends in a sample of clusters; None where it does not determine the model."""
    try:
        ends = _Ends(part, blocks, reml, [optimize(part, blocks, reml=reml, names=names)], 1)
        _widen(ends)
    except (NotIdentifiedError, np.linalg.LinAlgError):
        return None
    return ends


def _widen(ends: _Ends, material: Candidates | None = None, *, rounds: int = ROUNDS) -> None:
    """Search from different starts, and from more of them where the data are unusual or have several optima."""
    first = ends.found[0]
    material = material or candidates_for(ends.problem, ends.blocks, first, reml=ends.reml)
    ends.near = NEAR if material.unusual else ORDINARY
    ends.search(material.different(first))
    if not ends.optima or (len(ends.found) == 1 and not material.unusual):
        return
    in_vain = 0
    for k in range(rounds):
        lowest = ends.best.evaluation.value
        ends.search(material.more(ends.best, k))
        in_vain = 0 if ends.best.evaluation.value < lowest - SAME else in_vain + 1
        if in_vain > (len(ends.optima) > 1):  # where there are several optima one round may miss the best
            return


def best_from(problem: Problem, blocks: tuple[Block, ...], thetas: Iterable[Array], *, reml: bool) -> Optimum:
    """The lowest optimum that searches from the given starts end in.

    Raises
    ------
    NotIdentifiedError
        The search from the first of them leads to where there is no optimum.
    """
    first, *rest = thetas
    ends = _Ends(problem, blocks, reml, [optimize(problem, blocks, reml=reml, theta=first)], 1)
    ends.search(rest)
    return ends.result()
