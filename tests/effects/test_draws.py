"""Intervals made of draws: closed forms, known distributions, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import mlmed
from mlmed.effects.draws import acceleration, draw_interval, draws_needed, normal_draws
from mlmed.errors import EffectError
from mlmed.options import ENDS
from tests.models import MEDIATOR, OUTCOME

#: A quantile or standard deviation of 400,000 draws, relative to its standard deviation.
MANY_DRAWS = 0.01
#: The same arithmetic written twice.
SAME = 1e-12
#: The standard error of a standard deviation from n normal draws is sd / sqrt(2 n); four of them.
FOUR_ERRORS = 4.0


@pytest.fixture(scope="module")
def normal():
    return np.random.default_rng(1).normal(2.0, 0.5, 400_000)


@pytest.mark.parametrize("method", ENDS)
def test_normal_draws_give_the_normal_interval(normal, method):
    jackknife = np.random.default_rng(2).permutation(np.linspace(1.9, 2.1, 101))  # symmetric: no acceleration
    found = draw_interval(normal, 2.0, level=0.9, ends=method, jackknife=jackknife)
    half = 0.5 * stats.norm.ppf(0.95)
    assert (found.low, found.high) == pytest.approx((2.0 - half, 2.0 + half), abs=MANY_DRAWS * 0.5)
    assert found.std_error == pytest.approx(0.5, rel=MANY_DRAWS)


def test_bca_by_the_formula():
    """Efron's example in other words: skewed draws, every step by scipy."""
    rng = np.random.default_rng(3)
    draws, estimate, jackknife = rng.gamma(3.0, size=4001), 2.7, rng.gamma(2.0, size=30)
    gap = jackknife.mean() - jackknife
    speed = (gap**3).sum() / (6 * (gap**2).sum() ** 1.5)
    assert acceleration(jackknife) == pytest.approx(speed, rel=SAME)
    z0 = stats.norm.ppf((draws < estimate).mean())
    levels = [stats.norm.cdf(z0 + (z0 + z) / (1 - speed * (z0 + z))) for z in stats.norm.ppf([0.025, 0.975])]
    found = draw_interval(draws, estimate, level=0.95, ends="bca", jackknife=jackknife)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, levels, method="weibull")), rel=SAME)


@pytest.mark.parametrize("method", ENDS)
def test_the_p_value_is_the_level_at_which_the_interval_touches_zero(method):
    rng = np.random.default_rng(4)
    draws, jackknife = rng.gamma(4.0, size=20_000) - 1.2, rng.gamma(2.0, size=40)
    estimate = float(np.median(draws)) + 0.1
    p = draw_interval(draws, estimate, level=0.95, ends=method, jackknife=jackknife).p_value
    assert 0.001 < p < 0.9
    ends = [
        draw_interval(draws, estimate, level=1 - p * factor, ends=method, jackknife=jackknife)
        for factor in (0.97, 1.03)
    ]
    assert ends[0].low < 0.0 < ends[1].low


def test_a_p_value_never_claims_more_than_the_draws_can_show():
    draws = np.random.default_rng(5).normal(10.0, 1.0, 999)
    for method in ("percentile", "basic"):
        assert draw_interval(draws, 10.0, level=0.95, ends=method).p_value == pytest.approx(2 / 1000)
    for estimate in (9.8, 10.2):  # corrected: what the most extreme draw shows, if that is more
        p = draw_interval(draws, estimate, level=0.95, ends="bc").p_value
        z0 = stats.norm.ppf((draws < estimate).mean())
        assert p == pytest.approx(max(2 / 1000, 2 * stats.norm.cdf(stats.norm.ppf(1 / 1000) - 2 * z0)))


@pytest.mark.parametrize("method", ENDS)
def test_the_p_value_and_the_interval_never_disagree(method):
    """The exact dual, within cells between two draws, too: p < 1 - level just if the interval leaves 0 out."""
    rng, outside = np.random.default_rng(8), 0
    for n in (60, 199, 1000):
        for _ in range(120):
            draws = rng.gamma(4.0, size=n) - rng.uniform(0.4, 2.5)
            if rng.random() < 0.5:
                draws = -draws
            estimate, jackknife = float(np.median(draws)) + 0.2 * rng.normal(), rng.gamma(2.0, size=40)
            for level in (0.5, 0.8, 0.9, 0.95):
                found = draw_interval(draws, estimate, level=level, ends=method, jackknife=jackknife)
                assert np.isfinite(found.low)
                if "most extreme draw" not in found.note:
                    assert (found.p_value < 1.0 - level) == (found.low > 0.0 or found.high < 0.0)
                    outside += found.p_value < 1.0 - level
            p, value = found.p_value, 2.0 * estimate if method == "basic" else 0.0
            if draws.min() < value < draws.max() and 2.0001 / (n + 1.0) < p < 0.99:  # and it touches 0 there
                touch = draw_interval(draws, estimate, level=1.0 - p, ends=method, jackknife=jackknife)
                assert min(abs(touch.low), abs(touch.high)) < 1e-9
    assert 100 < outside < 1340


def test_p_values_of_draws_that_are_zero():
    """Ties: [0, high] has 0 as long as one of the zeros is its end."""
    draws = np.append(np.zeros(5), np.linspace(1.0, 2.0, 94))
    assert draw_interval(draws, 1.5, level=0.95).p_value == pytest.approx(2 * 5 / 100)
    assert draw_interval(draws, 1.5, level=0.91).low == 0.0
    assert draw_interval(draws, 1.5, level=0.89).low > 0.0
    assert draw_interval(-draws, -1.5, level=0.95).p_value == pytest.approx(2 * 5 / 100)


@pytest.mark.parametrize(("level", "needed"), [(0.5, 3), (0.9, 19), (0.95, 39), (0.99, 199), (0.9999, 19_999)])
@pytest.mark.parametrize("method", ["percentile", "basic", "bc", "bca"])
def test_a_level_needs_so_many_draws(level, needed, method):
    assert draws_needed(level) == needed
    draws, jackknife = np.random.default_rng(9).normal(size=needed), np.linspace(-1.0, 1.0, 9)
    estimate = float(np.median(draws))
    found = draw_interval(draws, estimate, level=level, ends=method, jackknife=jackknife)
    ends = (2 * estimate - draws.max(), 2 * estimate - draws.min()) if method == "basic" else (draws.min(), draws.max())
    assert (found.low, found.high) == pytest.approx(ends, abs=1e-9)
    if needed > 3:
        few = draw_interval(draws[1:], estimate, level=level, ends=method, jackknife=jackknife)
        assert np.isnan([few.low, few.high, few.p_value]).all()
        assert few.std_error == pytest.approx(draws[1:].std(ddof=1), rel=SAME)
        few_draws = f"{needed - 1:,} usable draws are too few for an interval of level {level}"
        assert few.note == f"{few_draws} (at least {needed:,}); raise n"
        assert np.isfinite(draw_interval(draws[1:], estimate, level=level, ends="normal").low) == (needed > 20)


def test_a_corrected_percentile_within_the_draws_is_not_complained_about():
    """Position (n + 1) p of the lower end, by scipy: 0.65 lies before the first draw, 1.40 after it."""
    n, tail = 199, 0.025
    draws = np.arange(1.0, n + 1.0)
    for below, position, beyond in ((70, 0.651, True), (80, 1.404, False)):
        estimate = below + 0.5  # so many draws lie below it
        share = stats.norm.cdf(2.0 * stats.norm.ppf(below / n) + stats.norm.ppf(tail))
        assert (n + 1) * share == pytest.approx(position, abs=1e-3)
        found = draw_interval(draws, estimate, level=1.0 - 2.0 * tail, ends="bc")
        assert ("most extreme draw" in found.note) == beyond
        assert found.low == pytest.approx(max(position, 1.0), abs=1e-3)


def test_a_corrected_percentile_beyond_the_draws_is_said():
    draws = np.random.default_rng(10).normal(size=99)
    estimate = float(np.quantile(draws, 0.2))
    found = draw_interval(draws, estimate, level=0.95, ends="bc")
    assert found.low == draws.min()
    assert "most extreme draw" in found.note
    assert draw_interval(draws, float(np.median(draws)), level=0.95, ends="bc").note == ""


def test_the_normal_statistic_is_that_of_its_p_value():
    draws = np.random.default_rng(11).normal(1.3, 0.5, 500)
    found = draw_interval(draws, 1.0, level=0.95, ends="normal")
    assert found.statistic == pytest.approx((2.0 - draws.mean()) / draws.std(ddof=1), rel=SAME)
    assert found.p_value == pytest.approx(2.0 * stats.norm.sf(abs(found.statistic)), rel=SAME)
    assert draw_interval(draws, 1.0, level=0.95).statistic == pytest.approx(1.0 / draws.std(ddof=1), rel=SAME)


@pytest.mark.parametrize("failed", [0, 7, 8, 10])
def test_bca_with_failed_jackknife_fits(failed):
    rng = np.random.default_rng(12)
    draws, jackknife = rng.gamma(3.0, size=500), rng.gamma(2.0, size=10)
    jackknife[:failed] = np.nan
    found = draw_interval(draws, 2.7, level=0.9, ends="bca", jackknife=jackknife)
    assert np.isnan(found.low) == (failed > 7)
    assert (f"{failed} of 10 jackknife fits failed" in found.note) == (failed > 0)
    assert np.isnan(acceleration(jackknife)) == (failed > 7)


def test_failed_draws_are_left_out():
    draws = np.random.default_rng(6).normal(size=500)
    with_gaps = np.concatenate([draws, np.full(20, np.nan)])
    assert draw_interval(with_gaps, 0.0, level=0.95) == draw_interval(draws, 0.0, level=0.95)


@pytest.mark.parametrize(
    ("draws", "estimate", "method", "note"),
    [
        (np.zeros(5), 0.0, "percentile", "too few for an interval"),
        (np.full(100, np.nan), 0.0, "percentile", "0 usable draws"),
        (np.full(100, 2.0), 2.0, "percentile", "all draws are the same value"),
        (np.linspace(1.0, 2.0, 100), 0.5, "bc", "one side of the estimate"),
    ],
)
def test_what_has_no_interval_has_a_reason(draws, estimate, method, note):
    found = draw_interval(draws, estimate, level=0.95, ends=method)
    assert np.isnan(found.low)
    assert note in found.note


def test_refusals():
    with pytest.raises(EffectError, match="ends must be one of"):
        draw_interval(np.arange(50.0), 1.0, level=0.95, ends="best")
    with pytest.raises(EffectError, match="leave-one-cluster-out"):
        draw_interval(np.arange(50.0), 20.0, level=0.95, ends="bca")
    with pytest.raises(EffectError, match="negative eigenvalue"):
        normal_draws(np.zeros(2), np.array([[1.0, 2.0], [2.0, 1.0]]), 10, np.random.default_rng(1))


def test_normal_draws_of_a_singular_covariance():
    draws = normal_draws(np.array([1.0, 2.0]), np.array([[4.0, 4.0], [4.0, 4.0]]), 1000, np.random.default_rng(1))
    assert draws[:, 0] - 1.0 == pytest.approx(draws[:, 1] - 2.0, abs=1e-6)


@pytest.mark.parametrize("vcov", ["block", "joint"])
def test_monte_carlo_spreads_as_the_second_order_variance(dataset, vcov):
    """Its standard deviation is the second-order delta error (.0533 and .0583 in block), in theory exactly."""
    fit = mlmed.mediate(MEDIATOR, OUTCOME, dataset("ml_sim"))
    n = 200_000
    drawn = fit.effects(interval="monte-carlo", n=n, seed=1, vcov=vcov).set_index("term")["std_error"]
    exact = fit.effects(vcov=vcov).set_index("term")["std_error"]
    for term in exact.index:
        assert drawn[term] == pytest.approx(exact[term], rel=FOUR_ERRORS / np.sqrt(2 * n)), term
    if vcov == "block":
        assert drawn["indirect"] == pytest.approx(0.0533, abs=0.0003)


def test_monte_carlo_is_reproducible_and_skewed_to_the_right(dataset):
    fit = mlmed.mediate(MEDIATOR, OUTCOME, dataset("ml_sim"))
    first, again, other = (fit.effects(interval="monte-carlo", seed=seed) for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)
    row = first.set_index("term").loc["indirect"]
    assert row.conf_high - row.estimate > row.estimate - row.conf_low
    assert list(first.columns) == list(fit.effects().columns)


def test_monte_carlo_without_a_covariance_has_reasons():
    import warnings

    from mlmed.errors import BoundaryWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        fit = mlmed.mediate(MEDIATOR, OUTCOME, mlmed.simulate.bpg(25, 4, seed=2).data)
    assert fit.fit.vcov().reason
    table = fit.effects(interval="monte-carlo", seed=1).set_index("term")
    assert list(table.index) == list(fit.effects()["term"])
    assert np.isfinite(table.loc["a", "conf_low"])  # (X'V^-1 X)^-1 exists
    for term in ("cov_ab", "indirect", "total"):
        assert np.isnan(table.loc[term, "conf_low"])
        assert "not positive definite" in table.loc[term, "note"]
    joint = fit.effects(interval="monte-carlo", seed=1, vcov="joint").set_index("term")
    assert joint["conf_low"].isna().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval": "exact"}, "interval must be one of"),
        ({"interval": "delta", "seed": 1}, "does not use seed"),
        (
            {"interval": "profile", "n": 10},
            "does not use n; n belongs to interval='monte-carlo' and interval='bootstrap'",
        ),
        ({"interval": "monte-carlo"}, "give a seed"),
        ({"interval": "bootstrap"}, "give a seed"),
        ({"interval": "monte-carlo", "seed": 1, "n": 0}, "number of draws"),
        ({"interval": "monte-carlo", "seed": 1, "n": True}, "number of draws"),
        ({"interval": "monte-carlo", "seed": 1, "n": 50.0}, "number of draws"),
        ({"interval": "bootstrap", "seed": 1, "n": 0}, "number of replicates"),
        ({"interval": "bootstrap", "seed": 1, "n": 30, "kind": "wild"}, "kind must be one of"),
        ({"interval": "bootstrap", "seed": 1, "n": 30, "method": "bca"}, "write ends='bca'"),
        ({"interval": "bootstrap", "seed": 1, "n": 30, "ends": "best"}, "ends must be one of"),
        ({"interval": "bootstrap", "seed": 1, "n": 30, "kind": "parametric", "within": True}, "within=True"),
        ({"interval": "profile", "level": 95}, "proportion"),
        ({"interval": "monte-carlo", "seed": 1, "level": 95}, "proportion"),
        ({"ddf": "exact"}, "ddf must be one of"),
        ({"ddf": "kenward-roger", "vcov": "joint"}, "corrects vcov='block'"),
        ({"ddf": "satterthwaite", "vcov": "CR2"}, "model-based"),
    ],
)
def test_options_that_make_no_sense_are_refused(dataset, options, message):
    fit = mlmed.mediate(MEDIATOR, OUTCOME, dataset("ml_sim"))
    with pytest.raises(EffectError, match=message):
        fit.effects(**options)


def test_monte_carlo_with_too_few_draws_for_its_level(dataset):
    fit = mlmed.mediate(MEDIATOR, OUTCOME, dataset("ml_sim"))
    table = fit.effects(interval="monte-carlo", seed=1, n=20, level=0.999)
    assert table[["conf_low", "conf_high"]].isna().all(axis=None)
    assert table["note"].str.contains("20 usable draws are too few for an interval of level 0.999").all()
    assert table["note"].str.contains("at least 1,999").all()
