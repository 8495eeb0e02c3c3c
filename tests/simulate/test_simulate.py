"""Data with a known truth, and what is made of many fits."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

import mlmed
from mlmed.errors import BoundaryWarning, DataError, EffectError
from mlmed.replication import Failure
from mlmed.simulate import BPGTruth, bpg
from mlmed.simulate.performance import performance
from mlmed.simulate.population import Source
from mlmed.simulate.study import Comparison
from mlmed.simulate.trials import Template
from tests.models import MEDIATOR, OUTCOME
from tests.simulate_models import ERRORS
from tests.tolerances import INVARIANT, SAME

# -- the generator -------------------------------------------------------------------------------------------------

#: Lock: first and last row of x, m, y, their sum, and one random effect, of mlmed 0.1.0's ``simulate_bpg(seed=1)``,
#: on which the stored coverage study and the lme4 references of ``validation`` rest.
LOCK = {
    "normal": ({}, (-0.40504927266820356, -0.5460812975794733, 1.84485747043513, -0.30831724478360023,
                    0.6372174866239525, 1.270624426120433), -22.29418106753066, 0.11414008125353751),
    "skewed": ({"skewed": True}, (-2.592247279103263, -1.553263424293442, 3.048312394981487, -0.5670229850624948,
                                  -0.739860422859524, -0.4221882179227984), -71.07973461782287, -0.12683960143994225),
    "x": ({"x_between": 0.3}, (-1.1094878608151668, -0.7940192723249515, 1.5055592013817696, -0.571983733903521,
                               0.2936342352537974, 0.7310664839759917), 59.269732322382964, 0.11414008125353751),
}  # fmt: skip


@pytest.mark.parametrize("name", LOCK)
def test_the_stream_is_that_of_simulate_bpg(name):
    options, rows, total, effect = LOCK[name]
    made = bpg(seed=1, **options)
    found = made.data[["x", "m", "y"]].iloc[[0, -1]].to_numpy().ravel()
    np.testing.assert_allclose(found, rows, rtol=SAME)
    assert made.data[["x", "m", "y"]].to_numpy().sum() == pytest.approx(total, rel=SAME)
    assert made.ranef[3, 3] == pytest.approx(effect, rel=SAME)


def test_the_stream_of_a_seed_sequence_with_another_truth():
    """Lock, as above: how the coverage study draws."""
    truth = BPGTruth(a=0.3, G=np.diag([0.6, 0.0, 0.4, 0.16, 0.04]))
    made = bpg(7, 3, truth=truth, seed=np.random.SeedSequence(20061, spawn_key=(5, 2)))
    expected = [7.0, -0.885294061803118, 0.7991432203636433, 0.7854855073498492]
    np.testing.assert_allclose(made.data.iloc[-1], expected, rtol=SAME)


@pytest.mark.parametrize("skewed", [False, True])
def test_moments_are_those_of_the_truth(skewed):
    J, n = 5000, 6
    made = bpg(J, n, skewed=skewed, intercepts=(1.0, -2.0), seed=11)
    u, G, data = made.ranef, np.asarray(made.truth.G), made.data
    assert np.all(np.abs(u.mean(axis=0)) < ERRORS * np.sqrt(np.diag(G) / J))
    products = np.einsum("ji,jk->jik", u, u)
    spread = products.std(axis=0) / np.sqrt(J)
    assert np.all(np.abs(products.mean(axis=0) - G) < ERRORS * spread + SAME)
    cube = (u**3).mean(axis=0) / np.diag(G) ** 1.5
    assert np.all(cube > 1.0) if skewed else np.all(np.abs(cube) < 0.2)

    v = u[data["id"].to_numpy() - 1]
    x, m, y = (data[name].to_numpy() for name in "xmy")
    e_m = m - (1.0 + v[:, 0] + (0.6 + v[:, 1]) * x)
    e_y = y - (-2.0 + v[:, 2] + (0.6 + v[:, 3]) * m + (0.2 + v[:, 4]) * x)
    for e, variance in ((e_m, 0.65), (e_y, 0.45)):
        assert abs(e.mean()) < ERRORS * np.sqrt(variance / (J * n))
        assert e.var() == pytest.approx(variance, abs=ERRORS * variance * np.sqrt(2 / (J * n)))
    assert abs(np.corrcoef(e_m, e_y)[0, 1]) < ERRORS / np.sqrt(J * n)
    means = data.groupby("id")["x"].mean()
    assert means.var() == pytest.approx(0.81 + 1 / n, abs=ERRORS * (0.81 + 1 / n) * np.sqrt(2 / J))


def test_the_effects_are_those_of_the_model():
    """Interventions on x in the population: the mean of a_j b_j and of the total slope, from the drawn effects."""
    made = bpg(200_000, 1, seed=3)
    a, b, c = made.truth.a + made.ranef[:, 1], made.truth.b + made.ranef[:, 3], made.truth.cprime + made.ranef[:, 4]
    for name, slopes in (("indirect", a * b), ("total", a * b + c), ("direct", c)):
        error = slopes.std() / np.sqrt(len(slopes))
        assert slopes.mean() == pytest.approx(made.truth.effects[name], abs=ERRORS * error)


@pytest.mark.parametrize(("design", "constant"), [("2-1-1", ["x"]), ("2-2-1", ["x", "m"])])
def test_designs_with_variables_at_level_2(design, constant):
    made = bpg(4000, 5, design=design, seed=5)
    levels = made.data.groupby("id")[["x", "m", "y"]].nunique()
    for name in ("x", "m", "y"):
        assert (levels[name] == 1).all() == (name in constant)
    assert made.design == design
    assert made.truth.cov_ab == 0.0
    means = made.data.groupby("id").mean()
    X = np.column_stack([np.ones(4000), means["x"]])
    residual_variance = 0.65 if design == "2-2-1" else 0.6 + 0.65 / 5
    slope = np.linalg.lstsq(X, means["m"], rcond=None)[0][1]
    assert slope == pytest.approx(0.6, abs=ERRORS * np.sqrt(residual_variance / 0.81 / 4000))


def test_values_replace_those_of_the_truth():
    truth = BPGTruth(a=0.1, cprime=0.0, G=np.eye(5))
    assert bpg(3, 2, truth=truth, b=0.4, seed=1).truth == replace(truth, b=0.4)
    assert bpg(3, 2, seed=1).truth == BPGTruth()
    assert BPGTruth().with_cov_ab(-0.05).cov_ab == -0.05
    assert hash(BPGTruth(G=np.eye(5))) == hash(BPGTruth(G=np.eye(5)))
    assert BPGTruth().effects["total"] == BPGTruth().total


def test_paths_take_the_covariance_of_their_slopes_from_nobody():
    """Mean of the drawn (a + a_j)(b + b_j), whose truth is a b + cov_ab: -0.08 here, and 0.033 with the default's."""
    made = bpg(40_000, 1, a=-0.4, b=0.2, cov_ab=0.0, seed=8)
    products = (-0.4 + made.ranef[:, 1]) * (0.2 + made.ranef[:, 3])
    error = products.std() / np.sqrt(40_000)
    assert error < 0.002
    assert products.mean() == pytest.approx(-0.08, abs=ERRORS * error)
    assert made.truth.indirect == pytest.approx(-0.08, rel=SAME)
    slopes = np.cov(made.ranef[:, [1, 3]].T)
    assert slopes == pytest.approx(np.diag([0.16, 0.16]), abs=ERRORS * 0.16 * np.sqrt(2 / 40_000))


@pytest.mark.parametrize(
    ("values", "cov_ab"),
    [
        ({"cprime": 0.0}, 0.113),
        ({"cov_ab": -0.05}, -0.05),
        ({"a": 0.3, "b": 0.3, "cov_ab": 0.03}, 0.03),
        ({"a": 0.3, "G": np.diag([1.0, 1.0, 1.0, 1.0, 0.0])}, 0.0),
        ({"a": 0.3, "truth": BPGTruth().with_cov_ab(0.02)}, 0.02),
        ({"truth": BPGTruth(), "cov_ab": 0.01}, 0.01),
        ({"a": 0.3, "b": 0.3, "design": "2-1-1"}, 0.0),
        ({"a": 0.3, "b": 0.3, "design": "2-2-1", "cov_ab": 0.0}, 0.0),
    ],
)
def test_the_covariance_is_the_one_that_was_said(values, cov_ab):
    assert bpg(3, 2, seed=1, **values).truth.cov_ab == cov_ab


def test_a_truth_with_other_paths_needs_a_covariance():
    with pytest.raises(DataError, match=r"a = 0.3 and b = 0.6 have no G, and the default one has .* 0.113"):
        BPGTruth(a=0.3)
    assert BPGTruth(a=0.3, b=0.2, G=BPGTruth().with_cov_ab(0.0).G).indirect == pytest.approx(0.06, rel=SAME)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_clusters": 0}, DataError, "n_clusters must be a whole number from 1; found 0"),
        ({"cluster_size": 2.5}, DataError, "cluster_size must be a whole number"),
        ({"a": "x", "cov_ab": 0.0}, DataError, "a must be a number"),
        ({"a": 0.3}, DataError, "a is given, and cov.a_j, b_j. is not; .* the 0.113 of the default .* Give cov_ab="),
        ({"a": 0.6, "b": 0.6}, DataError, "a and b are given, and cov.a_j, b_j. is not"),
        ({"b": 0.1, "cov_ab": 0.2}, DataError, r"cov\(a_j, b_j\) = 0.2 must lie within .* = \+-0.16"),
        ({"a": 0.3, "cov_ab": "none"}, DataError, "cov_ab must be a number"),
        ({"cov_ab": 0.1, "G": np.eye(5)}, DataError, "cov_ab=0.1 and G, whose row 1 and column 3 have 0, are two"),
        ({"design": "2-1-1", "cov_ab": 0.1}, DataError, "cov_ab=0.1 cannot be in design 2-1-1: x is constant"),
        ({"cprime": np.nan}, DataError, "cprime must be a number"),
        ({"G": np.eye(4)}, DataError, r"found the shape \(4, 4\)"),
        ({"G": -np.eye(5)}, DataError, "G has the variance -1"),
        ({"G": np.triu(np.ones((5, 5)))}, DataError, "symmetric"),
        ({"sigma2": (1.0, -1.0)}, DataError, "none is below zero"),
        ({"sigma2": "ab"}, DataError, "sigma2 must be numbers"),
        ({"truth": 3}, DataError, "truth must be a BPGTruth; found int"),
        ({"x_between": np.inf}, DataError, "x_between must be a number"),
        ({"skewed": "no"}, DataError, "skewed must be True or False"),
        ({"design": "1-2-1"}, DataError, "design must be one of"),
        ({"design": "2-1-1", "truth": BPGTruth()}, DataError, "x is constant within clusters"),
        ({"design": "2-2-1", "G": np.eye(5)}, DataError, "m has beyond a x is its residual"),
        ({"design": "2-1-1", "x_between": 0.0}, DataError, "with x_between=0 it is 0"),
        ({"seed": None}, EffectError, "give a seed"),
        ({"seed": 1.5}, EffectError, "seed is a whole number"),
    ],
)
def test_populations_that_cannot_be_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        bpg(**{"n_clusters": 4, "cluster_size": 2, "seed": 1, **options})


def test_a_covariance_beyond_its_bound_is_refused_with_the_bound():
    with pytest.raises(DataError, match=r"cov\(a_j, b_j\) = 0.5 must lie within .* = \+-0.16"):
        BPGTruth().with_cov_ab(0.5)


# -- performance ---------------------------------------------------------------------------------------------------


def test_performance_by_hand():
    rows = [(1.0, 0.5, 0.1, 1.9), (2.0, 0.5, 1.1, 2.9), (0.5, 0.5, -0.4, 1.4), (3.0, *[np.nan] * 3), [np.nan] * 4]
    found = performance(np.array(rows), 1.5)
    made = np.array([1.0, 2.0, 0.5, 3.0])
    assert (found.n, found.n_failed, found.n_no_interval) == (5, 1, 1)
    assert found.bias == pytest.approx(made.mean() - 1.5)
    assert found.sd == pytest.approx(made.std(ddof=1))
    assert found.bias_mcse == pytest.approx(made.std(ddof=1) / 2)
    assert found.rmse == pytest.approx(np.sqrt(((made - 1.5) ** 2).mean()))
    assert found.mean_se == 0.5
    assert found.power == pytest.approx(2 / 3)  # of the intervals that exist
    assert found.power_mcse == pytest.approx(np.sqrt(2 / 3 * 1 / 3 / 3))
    assert found.power_of_all == pytest.approx(2 / 5)
    assert found.share_missing == pytest.approx(2 / 5)
    assert found.coverage == pytest.approx(2 / 3)  # of the intervals that exist
    # Morris, White & Crowther (2019), table 6, for k = 4 estimates and 3 intervals
    assert found.sd_mcse == pytest.approx(made.std(ddof=1) / np.sqrt(2 * (4 - 1)))
    mse, squares = ((made - 1.5) ** 2).mean(), (made - 1.5) ** 2
    mse_mcse = np.sqrt(((squares - mse) ** 2).sum() / (4 * (4 - 1)))
    assert found.rmse_mcse == pytest.approx(mse_mcse / (2 * np.sqrt(mse)))  # d sqrt(u) = du / (2 sqrt(u))
    assert found.coverage_mcse == pytest.approx(np.sqrt(2 / 3 * 1 / 3 / 3))


def test_monte_carlo_errors_are_those_of_repeated_studies():
    """The spread of sd and rmse over 2,000 studies of 100 normal estimates with bias 0.5 and sd 1."""
    rng = np.random.default_rng(1)
    studies = []
    for _ in range(2000):
        estimate = rng.normal(0.5, 1.0, 100)
        studies.append(performance(np.column_stack([estimate, np.ones(100), estimate - 1.96, estimate + 1.96]), 0.0))
    for name in ("bias", "sd", "rmse", "coverage", "power"):
        values = np.array([getattr(one, name) for one in studies])
        claimed = np.mean([getattr(one, f"{name}_mcse") for one in studies])
        assert claimed == pytest.approx(values.std(), rel=0.06)  # a spread of 2,000 has an error of 1.6%


def test_nothing_made_of_nothing():
    found = performance(np.full((3, 4), np.nan), 1.0)
    assert (found.n, found.n_failed, found.n_no_interval) == (3, 3, 0)
    assert np.isnan([found.mean, found.sd, found.rmse, found.power, found.coverage, found.bias_mcse]).all()


# -- fits of many data sets ----------------------------------------------------------------------------------------


def test_a_template_fits_what_mediate_fits():
    first, other = bpg(50, 8, seed=1).data, bpg(35, 6, skewed=True, seed=2).data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        template = Template(mlmed.mediate(MEDIATOR, OUTCOME, first).fit)
        for method in ("reml", "ml"):
            expected = mlmed.mediate(MEDIATOR, OUTCOME, other, method=method).fit.estimates
            (fitted,) = template.fits(other, [method])
            assert not isinstance(fitted, Failure), str(fitted)
            assert fitted.estimates.loglik == pytest.approx(expected.loglik, abs=INVARIANT)
            np.testing.assert_allclose(fitted.estimates.G, expected.G, rtol=0, atol=INVARIANT)


def test_estimators_are_those_of_the_public_fits():
    source = Source.of()
    data = source.draw(80, 10, np.random.default_rng(4)).data
    values = Comparison.of((source,), (80, 10), 0.95)._estimates(data).values
    m, y = mlmed.mixed(MEDIATOR, data), mlmed.mixed(OUTCOME, data)
    a, va = m.fixef(vcov="joint").set_index("term").loc["x", ["estimate", "std_error"]].astype(float) ** [1, 2]
    b, vb = y.fixef(vcov="joint").set_index("term").loc["m", ["estimate", "std_error"]].astype(float) ** [1, 2]
    np.testing.assert_allclose(values[0, :2], [a * b, np.sqrt(b**2 * va + a**2 * vb + va * vb)], rtol=INVARIANT)
    for k, method in ((2, "reml"), (3, "ml")):
        fit = mlmed.mediate(MEDIATOR, OUTCOME, data, method=method)
        row = fit.effects(vcov="joint").set_index("term").loc["indirect"]
        expected = row[["estimate", "std_error", "conf_low", "conf_high"]].astype(float)
        np.testing.assert_allclose(values[k], expected, rtol=INVARIANT)
    product = mlmed.mediate(MEDIATOR, OUTCOME, data).nlcom("a * b", vcov="joint").iloc[0]
    np.testing.assert_allclose(values[1, :2], [product.estimate, product.std_error], rtol=INVARIANT)
