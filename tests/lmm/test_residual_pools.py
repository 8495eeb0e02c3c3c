"""Residuals that are resampled together, and where there are too few of them."""

from __future__ import annotations

import numpy as np
import pytest

from mlmed.lmm.rowwise import residual_pools

#: Sums of a dozen numbers in two orders.
SAME = 1e-12
SIGMA = np.array([[2.0, 0.6], [0.6, 0.5]])


@pytest.mark.parametrize(("n", "resampled"), [(4, False), (5, True), (12, True)])
def test_rows_with_both_responses_are_resampled_if_there_are_more_than_four(n, resampled):
    """Centred, and with the covariance of the model; of at most 2 E rows normal draws take their place."""
    rng = np.random.default_rng(2)
    residuals = [rng.normal(size=n), rng.normal(size=n)]
    (pool,) = residual_pools(residuals, [np.arange(n), np.arange(n)], SIGMA, joint=True)
    assert pool.equations == (0, 1)
    assert (pool.root.size == 0) == resampled
    if resampled:
        np.testing.assert_allclose(pool.values.mean(axis=1), 0.0, rtol=0, atol=SAME)
        np.testing.assert_allclose(pool.values @ pool.values.T / n, SIGMA, rtol=0, atol=SAME)
    else:
        np.testing.assert_allclose(pool.root @ pool.root.T, SIGMA, rtol=0, atol=SAME)
