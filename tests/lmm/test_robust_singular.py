"""Cluster-robust covariances at a singular optimum, where scores of variances have a common part."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import mlmed
from mlmed.errors import BoundaryWarning
from mlmed.lmm.percluster import cluster_products
from mlmed.lmm.sandwich import sandwich_vcov
from mlmed.simulate import BPGTruth
from tests.models import MEDIATOR, OUTCOME
from tests.oracles import cluster_scores

#: The same sums in two orders.
LITERAL = 1e-10


@pytest.fixture(scope="module")
def singular():
    """Rank 4 of 5 with a multiplier of 400: c' does not vary over clusters."""
    G = np.array(BPGTruth().G)
    G[4, :] = G[:, 4] = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        return mlmed.mediate(MEDIATOR, OUTCOME, mlmed.simulate.bpg(60, 10, truth=BPGTruth(G=G), seed=5).data).fit


@pytest.mark.parametrize("kind", ["CR0", "CR1"])
def test_scores_of_variances_are_centred(singular, kind):
    """Their common part, the multiplier, is the same in all clusters: no evidence that they differ."""
    working, optimum = singular.working, singular.optimum
    products = cluster_products(working, singular.grams)
    p, J = working.problem.n_fixed, working.problem.n_clusters
    scores = cluster_scores(working, optimum, products, reml=True).scores[:, p:]
    common = np.abs(scores.sum(axis=0)) / np.sqrt((scores**2).sum(axis=0))
    assert common.max() > 2.0
    away = scores - scores.mean(axis=0)
    bread = singular.estimates.tau_map @ np.linalg.inv(singular.estimates.hessian)
    expected = bread @ (away.T @ away) @ bread.T * (J / (J - 1) if kind == "CR1" else 1.0)
    found = sandwich_vcov(working, optimum, products, kind, reml=True).matrix[p:, p:]
    size = np.sqrt(np.diag(expected))
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(found / np.outer(size, size), expected / np.outer(size, size), rtol=0, atol=LITERAL)
