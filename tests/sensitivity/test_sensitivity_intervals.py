"""Intervals of sensitivity analyses: simulations with a stated truth, gradients, draws."""

from __future__ import annotations

import numpy as np
import pytest

from mlmed.effects.sensitivity import CONTRASTS, Parameters, cell_gradients, cell_means
from tests.sensitivity_models import (
    FOUR_ERRORS,
    PAIRS,
    Array,
    curve_of,
    probit_fit,
    simulated,
)
from tests.tolerances import DERIVATIVE, SAME


@pytest.fixture(scope="module")
def framing(dataset):
    return dataset("framing")


@pytest.fixture(scope="module")
def probit(framing):
    return probit_fit(framing)


@pytest.mark.parametrize("rho", [0.5, -0.6])
@pytest.mark.parametrize("families", PAIRS)
def test_the_curve_finds_the_effect_at_the_true_correlation(families, rho):
    """Bias within Monte Carlo error, intervals that cover, and a naive estimate that is wrong."""
    rows = []
    for seed in range(80):
        pair, truth = simulated(families, n=1000, rho=rho, seed=seed, interaction=0.3)
        curve = curve_of(pair)
        G, V = curve.delta(rho)
        errors = np.sqrt(np.diag(CONTRASTS["indirect"] @ G @ V @ G.T @ CONTRASTS["indirect"].T))
        found, naive = (CONTRASTS["indirect"] @ curve.cells(at) for at in (rho, 0.0))
        rows.append((found - truth, errors, naive - truth))
    bias, errors, naive = np.array(rows).transpose(1, 0, 2)
    monte_carlo = bias.std(axis=0) / np.sqrt(len(bias))
    assert np.all(np.abs(bias.mean(axis=0)) < FOUR_ERRORS * monte_carlo)
    assert np.all(np.abs(naive.mean(axis=0)) > 2.0 * FOUR_ERRORS * monte_carlo)
    covered = (np.abs(bias) < 1.96 * errors).mean(axis=0)
    assert np.all(covered > 0.95 - FOUR_ERRORS * np.sqrt(0.95 * 0.05 / len(bias)))
    assert errors.mean(axis=0) == pytest.approx(bias.std(axis=0), rel=FOUR_ERRORS / np.sqrt(2 * len(bias)))


def test_intervals_need_the_uncertainty_of_the_residual_scales():
    """With a strong first path, holding them fixed (as R does) covers .83 at rho = .8."""
    hits = []
    for seed in range(300):
        pair, truth = simulated(("linear", "linear"), n=300, rho=0.8, seed=seed, a=2.5)
        curve = curve_of(pair)
        G, V = curve.delta(0.8)
        fixed = V.copy()
        fixed[-2:] = 0.0
        g, miss = CONTRASTS["indirect"][2] @ G, abs(CONTRASTS["indirect"][2] @ curve.cells(0.8) - truth[2])
        hits.append([miss < 1.96 * np.sqrt(g @ covariance @ g) for covariance in (V, fixed)])
    covered = np.mean(hits, axis=0)
    error = np.sqrt(0.95 * 0.05 / len(hits))
    assert covered[0] > 0.95 - FOUR_ERRORS * error
    assert covered[1] < 0.95 - 2.0 * FOUR_ERRORS * error


@pytest.mark.parametrize("interaction", [0.0, 0.4])
@pytest.mark.parametrize("families", PAIRS)
def test_gradients_of_the_cells(families, interaction):
    import numdifftools as nd

    pair = simulated(families, n=60, rho=0.3, seed=5, interaction=interaction)[0]
    p, k = len(pair.mediator.beta), len(pair.mediator.beta) + len(pair.outcome.beta)
    for rho, tilt in ((0.0, 0.7), (-0.6, 0.0)):

        def parameters(v: Array, rho: float = rho, tilt: float = tilt) -> Parameters:
            lift = np.array([[tilt * np.exp(v[k + 1] - v[k])]])
            return Parameters(v[None, :p], v[None, p:k], np.exp(v[k : k + 1]), rho, lift)

        def cells(v: Array, parameters=parameters) -> Array:
            return cell_means(pair.columns, families, parameters(v))[0, 0]

        at = np.concatenate([pair.mediator.beta, pair.outcome.beta, [0.2, -0.3]])
        expected = nd.Jacobian(cells)(at)
        assert cell_gradients(pair.columns, families, parameters(at)) == pytest.approx(expected, abs=DERIVATIVE)


@pytest.mark.parametrize("families", PAIRS)
def test_draws_spread_as_the_delta_method_says(families):
    pair = simulated(families, n=1500, rho=0.3, seed=6)[0]
    curve, n = curve_of(pair), 2000
    rhos = np.array([-0.6, 0.0, 0.7])
    draws = curve.draws(rhos, n, np.random.default_rng(1)) @ CONTRASTS["indirect"].T
    for r, rho in enumerate(rhos):
        G, V = curve.delta(float(rho))
        H = CONTRASTS["indirect"] @ G
        expected = np.sqrt(np.diag(H @ V @ H.T))
        assert draws[r].std(axis=0) == pytest.approx(expected, rel=FOUR_ERRORS / np.sqrt(2 * n) + 0.02)  # curvature
    neighbours = curve.draws(np.array([0.3, 0.301]), 50, np.random.default_rng(1))[:, :, 1]
    assert np.ptp(neighbours, axis=0).max() < 0.1 * neighbours.std()  # the same draws at every rho


def test_monte_carlo_and_delta_on_framing(probit):
    rho = [-0.3, 0.0, 0.3]
    delta, drawn = probit.sensitivity(rho=rho), probit.sensitivity(rho=rho, n=4000, seed=1)
    assert (delta.interval, drawn.interval) == ("delta", "monte-carlo")
    assert drawn.table["estimate"].to_numpy() == pytest.approx(delta.table["estimate"].to_numpy(), rel=SAME)
    assert drawn.table["std_error"].to_numpy() == pytest.approx(delta.table["std_error"].to_numpy(), rel=0.1)
    again, other = (probit.sensitivity(rho=rho, n=4000, seed=seed) for seed in (1, 2))
    assert drawn.table.equals(again.table)
    assert not drawn.table.equals(other.table)
    low = drawn.table["conf_low"].to_numpy()
    assert low == pytest.approx(delta.table["conf_low"].to_numpy(), abs=0.5 * delta.table["std_error"].max())
    wide, narrow = (probit.sensitivity(rho=rho, level=level).table for level in (0.99, 0.5))
    assert np.all(wide["conf_high"] - wide["conf_low"] > 3.0 * (narrow["conf_high"] - narrow["conf_low"]))


def test_too_few_draws_are_said(probit):
    table = probit.sensitivity(rho=[0.2], n=20, seed=1).table
    assert table["conf_low"].isna().all()
    assert table["note"].str.contains("20 usable draws are too few").all()
