"""Other starts than the neutral one, for basins that a search from there does not see (docs/math.md, section 21).

A likelihood of variances has several optima mostly where a few clusters are unlike the others: what is unlike may be
residual (a large Sigma) or random effects (a large G with a small Sigma), and G may follow one outlying cluster or
another.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, chdtrc

from mlmed.errors import NotIdentifiedError
from mlmed.lmm.clusters import chunks, factor_clusters, inverted
from mlmed.lmm.covariance import ROUNDING, Block, factor_coordinates, inside_cone, psd_cholesky
from mlmed.lmm.fit import Optimum
from mlmed.lmm.problem import Problem
from mlmed.lmm.sigma import ResidualChart
from mlmed.lmm.start import FLOOR, neutral_guess, regression_guess, scored_theta, wide_theta
from mlmed.lmm.whitened import rooted

__all__ = ["Candidates", "candidates_for"]

Array = NDArray[np.float64]

#: Outlying clusters that starts are made of.
OUTLYING = 3
#: Chance that normal data have a cluster as unlike the others, below which starts are tried more widely: by the law of
#: the Mahalanobis distance from an estimated covariance matrix, and (for few clusters) by the chi-square it tends to.
#: Nine data sets with t(1.2) residuals that had a better optimum had chances of at most .003 and .14.
UNUSUAL, CHI_SQUARE = 0.02, 0.5
#: Smallest eigenvalue of G at these starts, where 1 is the neutral guess.
LEAST = 0.02
#: A hundredth of the information of the neutral guess, so that every cluster has least squares effects.
RIDGE = 0.005
#: Starts far away in each round of the wide search, and the seed that makes every fit the same.
WIDE, SEED = 8, 20_261_130


@dataclass(frozen=True, slots=True)
class Candidates:
    """What starts are made of.

    Attributes
    ----------
    problem, blocks, reml
        The model.
    variance, level : (R,), (q,) arrays
        Residual variance of each equation without random effects, and what the neutral guess gives to each effect.
    effects : (J, q) array
        Least squares random effects of every cluster, slightly shrunken where a cluster does not determine them.
    unlike : (J,) array
        How unlike the others a cluster is at the first optimum: chi-square with q degrees of freedom for normal data.
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
        """Whether some cluster is more unlike the others than it would be in normal data, but for a small chance."""
        J, q = self.effects.shape
        most = float(self.unlike.max())
        if J * float(chdtrc(q, most)) > CHI_SQUARE:
            return False
        share = min(most * J / (J - 1) ** 2, 1.0)
        few = J - q - 1 <= 0
        return few or J * float(betainc(0.5 * (J - q - 1), 0.5 * q, 1.0 - share)) < UNUSUAL

    def different(self, optimum: Optimum) -> Iterator[Array]:
        """Starts (n,) in other regions than the first: moments, small G, large G, equations apart, odd clusters.

        Where no cluster is unlike the others a scoring step leads from each of them to the neighbourhood of its end.
        """
        yield from self._scored(np.diag(20.0 * self.level), self._sigma2(0.01 * self.variance))
        if self.problem.roots is not None:  # the first start trusts regressions of single clusters, which may mislead
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
        """Starts of one round of the wide search: G made of outlying clusters in all combinations, and far away."""
        rng = np.random.default_rng([SEED, round_])
        most = self._most_unlike()
        for size in range(1, len(most) + 1):
            for chosen in itertools.combinations(most, size):
                yield self._towards(optimum, chosen, *self._weights(rng))
        for k in range(WIDE):
            yield wide_theta(self.problem, self.blocks, rng, low_rank=k % 2 == 0)

    def anywhere(self, optimum: Optimum, rng: np.random.Generator) -> Array:
        """One random start (n,): far away, every other time with outlying clusters in G."""
        if rng.random() < 0.5:
            return wide_theta(self.problem, self.blocks, rng, low_rank=bool(rng.random() < 0.5))
        most = self._most_unlike()
        chosen = tuple(j for j in most if rng.random() < 0.5) or most[:1]
        return self._towards(optimum, chosen, *self._weights(rng))

    def _weights(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """Weight of outlying clusters, share of Sigma that is left, share of G."""
        weight, share, shrink = 10.0 ** rng.uniform((-0.5, -1.2, -1.0), (0.5, 0.0, 0.0))
        return float(weight), float(share), float(shrink)

    def _scored(self, G: Array, sigma2: Array) -> list[Array]:
        """One scoring step from (G, Sigma); none where nothing is left to Sigma.

        From a G so large that Sigma is what varies within clusters, and from one of nearly zero, these are moments.
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
        """The optimum with outlying clusters in G and a share of Sigma."""
        own = self.effects[list(clusters)]
        return self._theta(shrink * optimum.G + weight / len(self.effects) * own.T @ own, share * optimum.sigma2)

    def _sigma2(self, variances: Array) -> Array:
        return np.append(variances, np.zeros(self.problem.residual.size - len(variances)))

    def _theta(self, G: Array, sigma2: Array) -> Array:
        """Coordinates of G, moved inside the cone, and Sigma."""
        unit = np.sqrt(np.outer(self.level, self.level))
        inside = [inside_cone(block, G / unit, floor=LEAST) * unit for block in self.blocks]
        factor = [factor_coordinates(block, own) for block, own in zip(self.blocks, inside, strict=True)]
        structure = self.problem.residual
        root = structure.lifted(structure.root(sigma2))
        return np.append(np.concatenate(factor), ResidualChart(structure).coordinates(root))


def candidates_for(problem: Problem, blocks: tuple[Block, ...], optimum: Optimum, *, reml: bool) -> Candidates:
    """Material for starts, from one pass over the clusters at an optimum."""
    level, variance = neutral_guess(problem, blocks)
    contrast, look = np.append(-optimum.evaluation.beta, 1.0), _unlike if problem.roots is None else _unlike_by_roots
    effects, unlike = zip(
        *(look(problem, optimum, part, contrast, np.sqrt(level)) for part in chunks(problem)), strict=True
    )
    return Candidates(problem, blocks, reml, variance, level, np.concatenate(effects), np.concatenate(unlike))


def _unlike(problem: Problem, optimum: Optimum, part: slice, contrast: Array, unit: Array) -> tuple[Array, Array]:
    """Least squares effects of one chunk, with a prior of sds ``unit`` that weighs ``RIDGE``; how unlike clusters are.

    The latter is e'V^-1 Z (Z'V^-1 Z)^-1 Z'V^-1 e of the residuals e = y - X beta.
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
    """The same from roots, in which the distance is the length of K^-1 P'e: squares would drown the prior."""
    assert problem.roots is not None
    weight = (1.0 / np.sqrt(optimum.sigma2))[problem.stratum][:, None]
    E, own = problem.roots.Z[part] * weight, problem.roots.reduced[part] * weight @ contrast
    prior = np.broadcast_to(np.sqrt(RIDGE) * np.eye(len(unit)), E.shape)
    Q, R = np.linalg.qr(np.concatenate([E.transpose(0, 2, 1) * unit, prior], axis=1))
    effects = np.linalg.solve(R, Q[:, : len(unit)].transpose(0, 2, 1) @ own[:, :, None])[:, :, 0]
    half = rooted(problem, optimum.L, optimum.sigma2, part).half @ contrast
    return unit * effects, (half**2).sum(axis=1)
