"""Find the best of several optima by searches from starts in different regions (docs/math.md, section 21).

A certificate is local: it proves that nothing nearby is better. So searches start in different regions, and stop early
once the criterion is convex from their point to a known optimum. With outlying clusters, or several optima, further
rounds of starts follow until none improves. Likelihoods of variances have several optima mostly when a few clusters
are outlying: their deviation may be residual (a large Sigma) or random effects (a large G with a small Sigma), and G
may follow one outlying cluster or another.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, chdtrc

from mlmed.errors import NotIdentifiedError
from mlmed.lmm.clusters import chunks, factor_clusters, inverted
from mlmed.lmm.covariance import ROUNDING, Block, psd_cholesky
from mlmed.lmm.criterion import evaluate
from mlmed.lmm.objective import Objective, ThetaEvaluation, objective_for
from mlmed.lmm.optimum import Optimum, Searched, coordinates, optimize, search_from
from mlmed.lmm.problem import Evaluation, Problem
from mlmed.lmm.roots import rooted
from mlmed.lmm.start import FLOOR, moved_inside, neutral_guess, regression_guess, scored_theta, theta_of, wide_theta
from mlmed.numerics.newton import NewtonSettings

Array = NDArray[np.float64]

#: Number of outlying clusters used to build starts.
OUTLYING = 3
#: p-values of the most outlying cluster below which starts are tried more widely: by the law of the Mahalanobis
#: distance from an estimated covariance matrix, and (for few clusters) by its chi-square limit. In nine data sets with
#: t(1.2) residuals and a better optimum they were at most .003 and .14.
UNUSUAL, CHI_SQUARE = 0.02, 0.5
#: Smallest eigenvalue of G at these starts, where 1 is the neutral guess.
LEAST = 0.02
#: Ridge of a hundredth of the neutral guess's information, so that every cluster has least squares effects.
RIDGE = 0.005
#: Random starts in each round of the wide search, and their seed: a fit is reproducible.
WIDE, SEED = 8, 20_261_130
#: Difference in -2l below which optima are the same: 1e-6 in the log-likelihood.
SAME = 2e-6
#: Newton decrement below which a search is near its end, the same without outlying clusters, and negligible distance
#: (all squared, in standard errors). In 1,320 data sets of twelve kinds all 7,012 searches of the second sort ended in
#: the first optimum.
NEAR, ORDINARY, HERE = 1.0, 100.0, 1e-4
#: Points on a segment where convexity is checked.
BETWEEN = np.linspace(0.0, 1.0, 9)
#: Searches from other starts stop after few steps, unless they are then lower than all others.
SHORT = NewtonSettings(max_steps=40)
#: Most rounds of the wide search, and most clusters for which it uses all of them.
ROUNDS, SEARCHED = 6, 20_000


@dataclass(frozen=True, slots=True)
class Candidates:
    """Material for building starts.

    Attributes
    ----------
    problem, blocks, reml
        The model.
    variance, level : (R,), (q,) arrays
        Residual variance of each equation without random effects, and the neutral guess's variance of each effect.
    effects : (J, q) array
        Least squares random effects of every cluster, slightly shrunken if a cluster does not determine them.
    unlike : (J,) array
        Outlyingness of each cluster at the first optimum: chi-square with q degrees of freedom for normal data.
    """

    problem: Problem
    blocks: tuple[Block, ...]
    reml: bool
    variance: Array
    level: Array
    effects: Array
    unlike: Array

    @property
    def unusual(self) -> bool:
        """Whether some cluster is more outlying than normal data explain."""
        J, q = self.effects.shape
        most = float(self.unlike.max())
        if J * float(chdtrc(q, most)) > CHI_SQUARE:
            return False
        share = min(most * J / (J - 1) ** 2, 1.0)
        few = J - q - 1 <= 0
        return few or J * float(betainc(0.5 * (J - q - 1), 0.5 * q, 1.0 - share)) < UNUSUAL

    def different(self, optimum: Optimum) -> Iterator[Array]:
        """Starts (n,) in other regions than the first: moments, small G, large G, equations apart, outlying clusters.

        Without outlying clusters a scoring step moves each start close to the end of its search.
        """
        yield from self._scored(np.diag(20.0 * self.level), self._sigma2(0.01 * self.variance))
        if self.problem.roots is not None:  # the first start relies on single-cluster regressions, which may mislead
            level, variance = regression_guess(self.problem, self.blocks)
            yield from self._scored(np.diag(level), self._sigma2(0.5 * variance))
        stratum = self.problem.stratum
        alone = stratum[:, None] == stratum if self.problem.n_strata > 1 else np.eye(len(stratum))
        regions = [
            (np.diag(0.02 * self.level), self._sigma2(self.variance)),
            (np.diag(2.0 * self.level), self._sigma2(0.1 * self.variance)),
            (optimum.G * alone, optimum.sigma2),
        ]
        for G, sigma2 in regions:
            yield from [self._theta(G, sigma2)] if self.unusual else self._scored(G, sigma2)
        yield self._towards(optimum, self._most_unlike(), 1.0, 0.5)

    def more(self, optimum: Optimum, round_: int) -> Iterator[Array]:
        """Starts of one round of the wide search: G from outlying clusters in all combinations, and random ones."""
        rng = np.random.default_rng([SEED, round_])
        most = self._most_unlike()
        for size in range(1, len(most) + 1):
            for chosen in itertools.combinations(most, size):
                yield self._towards(optimum, chosen, *self._weights(rng))
        for k in range(WIDE):
            yield wide_theta(self.problem, self.blocks, rng, low_rank=k % 2 == 0)

    def anywhere(self, optimum: Optimum, rng: np.random.Generator) -> Array:
        """One random start (n,): from the wide search or, half of the time, with outlying clusters in G."""
        if rng.random() < 0.5:
            return wide_theta(self.problem, self.blocks, rng, low_rank=bool(rng.random() < 0.5))
        most = self._most_unlike()
        chosen = tuple(j for j in most if rng.random() < 0.5) or most[:1]
        return self._towards(optimum, chosen, *self._weights(rng))

    def _weights(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """Random weight of the outlying clusters, share of Sigma kept, share of G kept."""
        weight, share, shrink = 10.0 ** rng.uniform((-0.5, -1.2, -1.0), (0.5, 0.0, 0.0))
        return float(weight), float(share), float(shrink)

    def _scored(self, G: Array, sigma2: Array) -> list[Array]:
        """Take one scoring step from (G, Sigma); empty if Sigma vanishes.

        From a very large G (Sigma is then the variation within clusters) and from one near zero these are moment
        estimates.
        """
        L = psd_cholesky(G, tol=ROUNDING)
        try:
            return [scored_theta(self.problem, self.blocks, L, sigma2, self.level, FLOOR, reml=self.reml)]
        except (NotIdentifiedError, np.linalg.LinAlgError):
            return []

    def _most_unlike(self) -> tuple[int, ...]:
        order = np.argsort(-self.unlike, kind="stable")[:OUTLYING]
        return tuple(int(j) for j in order)

    def _towards(
        self, optimum: Optimum, clusters: tuple[int, ...], weight: float, share: float, shrink: float = 1.0
    ) -> Array:
        """Add outlying clusters to the G of the optimum and keep a share of its Sigma."""
        own = self.effects[list(clusters)]
        return self._theta(shrink * optimum.G + weight / len(self.effects) * own.T @ own, share * optimum.sigma2)

    def _sigma2(self, variances: Array) -> Array:
        return np.append(variances, np.zeros(self.problem.residual.size - len(variances)))

    def _theta(self, G: Array, sigma2: Array) -> Array:
        """Coordinates of G, moved inside the cone, and Sigma."""
        structure = self.problem.residual
        root = structure.lifted(structure.root(sigma2))
        return theta_of(structure, self.blocks, moved_inside(self.blocks, G, self.level, LEAST), root)


def candidates_for(problem: Problem, blocks: tuple[Block, ...], optimum: Optimum, *, reml: bool) -> Candidates:
    """Build the material for starts in one pass over the clusters at an optimum."""
    level, variance = neutral_guess(problem, blocks)
    contrast, look = np.append(-optimum.evaluation.beta, 1.0), _unlike if problem.roots is None else _unlike_by_roots
    effects, unlike = zip(
        *(look(problem, optimum, part, contrast, np.sqrt(level)) for part in chunks(problem)), strict=True
    )
    return Candidates(problem, blocks, reml, variance, level, np.concatenate(effects), np.concatenate(unlike))


def _unlike(problem: Problem, optimum: Optimum, part: slice, contrast: Array, unit: Array) -> tuple[Array, Array]:
    """Least squares effects of one chunk, with a prior of sds ``unit`` and weight ``RIDGE``; outlyingness of clusters.

    Outlyingness is e'V^-1 Z (Z'V^-1 Z)^-1 Z'V^-1 e of the residuals e = y - X beta.
    """
    made = inverted(factor_clusters(problem, optimum.L, optimum.sigma2, part), np.zeros((len(contrast),) * 2))
    Q, score = made.tables[:, 0], made.V @ contrast
    known = (
        Q + 1e-10 * np.einsum("jaa->ja", Q)[:, :, None] * np.eye(Q.shape[1]) + np.finfo(float).tiny * np.eye(Q.shape[1])
    )
    distance = (score * np.linalg.solve(known, score[:, :, None])[:, :, 0]).sum(axis=1)
    A, own = unit[:, None] * made.part.A * unit, made.part.B @ contrast * unit
    return unit * np.linalg.solve(A + RIDGE * np.eye(len(unit)), own[:, :, None])[:, :, 0], distance


def _unlike_by_roots(
    problem: Problem, optimum: Optimum, part: slice, contrast: Array, unit: Array
) -> tuple[Array, Array]:
    """Compute the same from roots: the distance is the length of K^-1 P'e, as squares would drown the prior."""
    assert problem.roots is not None
    weight = (1.0 / np.sqrt(optimum.sigma2))[problem.stratum][:, None]
    E, own = problem.roots.Z[part] * weight, problem.roots.reduced[part] * weight @ contrast
    prior = np.broadcast_to(np.sqrt(RIDGE) * np.eye(len(unit)), E.shape)
    Q, R = np.linalg.qr(np.concatenate([E.transpose(0, 2, 1) * unit, prior], axis=1))
    effects = np.linalg.solve(R, Q[:, : len(unit)].transpose(0, 2, 1) @ own[:, :, None])[:, :, 0]
    half = rooted(problem, optimum.L, optimum.sigma2, part).half @ contrast
    return unit * effects, (half**2).sum(axis=1)


def falls_into(end: Optimum, L: Array, sigma2: Array, at: Evaluation) -> bool:
    """Whether a search at (L, sigma2) will end in the known optimum ``end``.

    True if -2l is convex in (G, Sigma) on the segment between them, judged by the quintic with the value, slope and
    curvature of -2l at both ends (eq. 130). No pass over clusters.
    """
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
    """Distinct ends of the searches in one problem, in the order found."""

    problem: Problem
    blocks: tuple[Block, ...]
    reml: bool
    found: list[Optimum] = field(default_factory=list)
    starts: int = 0
    near: float = NEAR

    def add(self, end: Optimum) -> None:
        """Keep a new end; of two at the same value the certified one."""
        for k, other in enumerate(self.found):
            if abs(end.evaluation.value - other.evaluation.value) <= SAME:
                if end.certificate.converged and not other.certificate.converged:
                    self.found[k] = end
                return
        self.found.append(end)

    def search(self, thetas: Iterable[Array]) -> None:
        """Search from each start, stopping early if the search leads to a known certified optimum."""
        objective = objective_for(self.problem, self.blocks, reml=self.reml)
        for theta in thetas:
            self.starts += 1
            try:
                end = search_from(objective, self.blocks, theta, SHORT, self._known)
                if end is not None and not end.certificate.converged and self._lower(end):  # worth continuing
                    start = coordinates(self.problem, self.blocks, end.G, end.sigma2)
                    end = search_from(objective, self.blocks, start, NewtonSettings(), self._known)
            except (NotIdentifiedError, np.linalg.LinAlgError):  # the likelihood is unbounded that way
                continue
            if end is not None and (end.certificate.converged or self._lower(end)):
                self.add(end)

    def _lower(self, end: Optimum) -> bool:
        return end.evaluation.value < self.best.evaluation.value - SAME

    def _known(self, objective: Objective, theta: Array, point: ThetaEvaluation, decrement: float) -> bool:
        """Whether the Newton step is short and the search will end in a known certified optimum."""
        if not decrement < self.near:
            return False
        L, sigma2 = objective.factor(theta), objective.sigma2(theta)
        return any(falls_into(end, L, sigma2, point.natural) for end in self.found if end.certificate.converged)

    @property
    def optima(self) -> list[Optimum]:
        """The certified ends, the best first."""
        certified = [end for end in self.found if end.certificate.converged]
        return sorted(certified, key=lambda end: end.evaluation.value)

    @property
    def best(self) -> Optimum:
        """The lowest end, certified or not: a certified optimum with a higher -2l is no answer."""
        return min(self.found, key=lambda end: end.evaluation.value)

    def result(self, *, clusters: int = 0) -> Optimum:
        """The best end, with a record of the others."""
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
    """Search from different starts and return the lowest optimum.

    Parameters
    ----------
    problem, blocks, reml, names
        As in ``optimize``.
    sample : callable, optional
        Gives the problem of a sample of clusters in the same units if there are too many to try all starts on, else
        None.
    """
    first = optimize(problem, blocks, reml=reml, names=names)
    ends = _Ends(problem, blocks, reml, [first], 1)
    part = None if sample is None else sample()
    if part is None:
        _widen(ends)
        return ends.result()
    material = candidates_for(problem, blocks, first, reml=reml)
    if material.unusual:  # a sample may miss the few clusters that decide
        _widen(ends, material, rounds=ROUNDS if problem.n_clusters <= SEARCHED else 0)
    inner = _sampled(part, blocks, reml, names)
    if inner is not None:
        if len(inner.found) > 1 or not _same_basin(inner.best, first, part, reml=reml):
            others = [end for end in inner.found if end is not inner.best]
            ends.search(coordinates(problem, blocks, end.G, end.sigma2) for end in (inner.best, *others))
        ends.starts += inner.starts
    return ends.result(clusters=part.n_clusters)


def _same_basin(best: Optimum, first: Optimum, part: Problem, *, reml: bool) -> bool:
    """Whether -2l of a sample is convex between its optimum and that of all clusters; visits the sample only."""
    try:
        at = evaluate(part, first.L, first.sigma2, reml=reml)
    except np.linalg.LinAlgError:
        return False
    return falls_into(best, first.L, first.sigma2, at)


def _sampled(part: Problem, blocks: tuple[Block, ...], reml: bool, names: tuple[str, ...] | None) -> _Ends | None:
    """Ends of searches in a sample of clusters; None if it does not identify the model."""
    try:
        ends = _Ends(part, blocks, reml, [optimize(part, blocks, reml=reml, names=names)], 1)
        _widen(ends)
    except (NotIdentifiedError, np.linalg.LinAlgError):
        return None
    return ends


def _widen(ends: _Ends, material: Candidates | None = None, *, rounds: int = ROUNDS) -> None:
    """Search from different starts, and from more of them if the data have outlying clusters or several optima."""
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
        if in_vain > (len(ends.optima) > 1):  # with several optima one round may miss the best
            return


def best_from(problem: Problem, blocks: tuple[Block, ...], thetas: Iterable[Array], *, reml: bool) -> Optimum:
    """Search from the given starts and return the lowest optimum.

    Raises
    ------
    NotIdentifiedError
        The search from the first start finds no optimum.
    """
    first, *rest = thetas
    ends = _Ends(problem, blocks, reml, [optimize(problem, blocks, reml=reml, theta=first)], 1)
    ends.search(rest)
    return ends.result()
