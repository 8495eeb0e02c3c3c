"""The distribution of a product of normal variables, against closed forms, other integrals, and draws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, special

from mlmed.effects.delta import Quantity, std_error
from mlmed.errors import EffectError
from mlmed.intervals.product_normal import product_normal
from tests.tolerances import SAME

#: An integral by panels against a closed form or another integral.
INTEGRAL = 1e-13
DRAWS = 10**6
#: Four standard errors of a share of so many draws.
SHARE = 4.0 * 0.5 / np.sqrt(DRAWS)


def pair(a, b, se_a, se_b, rho=0.0):
    cross = rho * se_a * se_b
    return product_normal([a, b], [[se_a**2, cross], [cross, se_b**2]])


def test_published_interval():
    """a = .5 (.08), b = .6 (.04): .201 to .405, standard error .0521 (RMediation's methods comparison)."""
    ab = pair(0.5, 0.6, 0.08, 0.04)
    assert [f"{end:.3f}" for end in ab.interval(0.95)] == ["0.201", "0.405"]
    assert f"{ab.sd:.4f}" == "0.0521"


def test_published_critical_value():
    """Two standard normals with mean 0: 2.18 is the 97.5th percentile (MacKinnon et al. 2002)."""
    assert f"{pair(0, 0, 1, 1).quantile(0.975):.2f}" == "2.18"


@pytest.mark.parametrize("value", [1e-12, 1e-6, 0.01, 0.5, 2.0, 6.0])
def test_central_product_is_a_bessel_function(value):
    """The density of the product of two standard normals is K0(|x|)/pi."""
    above = integrate.quad(lambda x: special.k0(x) / np.pi, 0.0, value, epsabs=1e-15, epsrel=1e-13)[0]
    z = pair(0, 0, 1, 1)
    assert z.cdf(value) == pytest.approx(0.5 + above, abs=INTEGRAL)
    assert z.cdf(-value) == pytest.approx(0.5 - above, abs=INTEGRAL)


@pytest.mark.parametrize("rho", [0.5, -0.9, 0.999, -1 + 1e-9, 1.0, -1.0])
def test_sign_of_a_correlated_product(rho):
    """P(ab < 0) = 1/2 - arcsin(rho)/pi for means 0, also where one variable is a multiple of the other."""
    assert pair(0, 0, 1, 3, rho).cdf(0.0) == pytest.approx(0.5 - np.arcsin(rho) / np.pi, abs=1e-9)


@pytest.mark.parametrize("value", [-0.4, 0.3, 1.5])
def test_density_of_a_correlated_product(value):
    rho = 0.7
    width = 1.0 - rho**2

    def density(x):
        return np.exp(rho * x / width) * special.k0(abs(x) / width) / (np.pi * np.sqrt(width))

    found = integrate.quad(density, 0.0, value, epsabs=1e-15, epsrel=1e-13, limit=200)[0]
    ab = pair(0, 0, 1, 1, rho)
    assert ab.cdf(value) - ab.cdf(0.0) == pytest.approx(found, abs=INTEGRAL)


def test_sign_of_an_independent_product():
    a, b = special.ndtr(-0.5), special.ndtr(-0.3)
    assert pair(0.5, 0.3, 1, 1).cdf(0.0) == pytest.approx(a * (1 - b) + b * (1 - a), abs=INTEGRAL)


@pytest.mark.parametrize(
    ("mean", "se", "rho"),
    [((5, 5), (1, 1), 0.3), ((0, 5), (1e-3, 1), 0.0), ((0.2, 0.4), (1, 1), 0.8), ((2, -3), (0.1, 1), -0.99)],
)
def test_the_factors_may_change_places(mean, se, rho):
    """The integral is over b; over a it has other turning points and must be the same."""
    one, two = pair(*mean, *se, rho), pair(*mean[::-1], *se[::-1], rho)
    for value in one.expectation + one.sd * np.linspace(-4, 4, 17):
        assert one.cdf(value) == pytest.approx(two.cdf(value), abs=INTEGRAL)


@pytest.mark.parametrize("seed", [1, 2])
def test_against_a_million_draws(seed):
    """a b + c with all three correlated; and a b alone, rho not 0."""
    rng = np.random.default_rng(seed)
    root, mean = rng.normal(size=(3, 3)), rng.normal(size=3)
    V = root @ root.T
    draws = rng.multivariate_normal(mean, V, size=DRAWS)
    made = {3: draws[:, 0] * draws[:, 1] + draws[:, 2], 2: draws[:, 0] * draws[:, 1]}
    for k, values in made.items():
        exact = product_normal(mean[:k], V[:k, :k])
        for share in (0.025, 0.3, 0.5, 0.975):
            assert np.mean(values <= exact.quantile(share)) == pytest.approx(share, abs=SHARE)
        # the fourth moment of such a product is below 15 times the square of its variance
        assert values.std() == pytest.approx(exact.sd, rel=4.0 * np.sqrt(14.0 / (4.0 * DRAWS)))
        assert values.mean() == pytest.approx(exact.expectation, abs=4.0 * exact.sd / np.sqrt(DRAWS))


def test_quantiles_invert_the_distribution():
    ab = pair(0.1, -0.2, 0.3, 0.2, 0.4)
    for share in (1e-8, 0.001, 0.4, 0.6, 0.999, 1 - 1e-8):
        assert ab.cdf(ab.quantile(share)) == pytest.approx(share, rel=1e-9)


def test_p_value_is_dual_to_the_interval():
    ab = pair(0.19, -0.18, 0.114, 0.072)
    p = ab.p_value()
    assert min(map(abs, ab.interval(1.0 - p))) == pytest.approx(0.0, abs=SAME)
    assert pair(5.0, 6.0, 0.5, 0.5).p_value() == pytest.approx(2 * special.ndtr(-10.0), rel=1e-6)


def test_sd_is_the_second_order_delta_method():
    rng = np.random.default_rng(3)
    root, mean = rng.normal(size=(3, 3)), rng.normal(size=3)
    V = root @ root.T
    a, b, c = (Quantity(name, value, row) for name, value, row in zip("abc", mean, np.eye(3), strict=True))
    assert product_normal(mean, V).sd == pytest.approx(std_error(a * b + c, V), rel=SAME)


def test_what_does_not_vary():
    """With one factor fixed the product is normal; with both it is a number."""
    half = special.ndtri(0.975)
    assert pair(2, 3, 0, 1).interval(0.95) == pytest.approx((6 - 2 * half, 6 + 2 * half), rel=1e-9)
    assert pair(2, 3, 1, 0).interval(0.95) == pytest.approx((6 - 3 * half, 6 + 3 * half), rel=1e-9)
    assert pair(2, 3, 0, 0).interval(0.95) == (6.0, 6.0)
    assert (pair(2, 3, 1, 1).cdf(np.inf), pair(2, 3, 1, 1).cdf(-np.inf)) == (1.0, 0.0)
    assert np.isnan(pair(2, 3, 1, 1).cdf(np.nan))


@pytest.mark.parametrize(
    ("mean", "covariance", "said"),
    [
        ([1.0], [[1.0]], "two or three means"),
        ([1.0, 2.0], np.eye(3), "two or three means"),
        ([1.0, np.nan], np.eye(2), "finite"),
        ([1.0, 2.0], [[1.0, 0.5], [0.1, 1.0]], "symmetric"),
        ([1.0, 2.0], [[1.0, 2.0], [2.0, 1.0]], "negative eigenvalue -1"),
    ],
)
def test_bad_input(mean, covariance, said):
    with pytest.raises(EffectError, match=said):
        product_normal(mean, covariance)


@pytest.mark.parametrize("share", [0.0, 1.0, np.nan, -1.0])
def test_quantiles_of_proportions_only(share):
    with pytest.raises(EffectError, match="between 0 and 1"):
        pair(1, 1, 1, 1).quantile(share)


def test_unbiased_variance():
    """Goodman: a2 Vb + b2 Va - Va Vb; NaN where it is negative; unbiased over draws of the estimates."""
    a, b = Quantity("a", 0.3, np.array([1.0, 0.0])), Quantity("b", 0.4, np.array([0.0, 1.0]))
    V = np.diag([0.04, 0.09])
    product = a * b
    assert std_error(product, V, order="unbiased") ** 2 == pytest.approx(0.09 * 0.09 + 0.16 * 0.04 - 0.0036, rel=SAME)
    assert np.isnan(std_error(Quantity("a", 0.0, a.gradient) * Quantity("b", 0.1, b.gradient), V, order="unbiased"))
    correlated = np.array([[0.04, 0.03], [0.03, 0.09]])
    draws = np.random.default_rng(4).multivariate_normal([0.3, 0.4], correlated, size=200_000)
    first = draws[:, 0] ** 2 * 0.09 + draws[:, 1] ** 2 * 0.04 + 2 * draws[:, 0] * draws[:, 1] * 0.03
    found = first - (0.04 * 0.09 + 0.03**2)
    truth = std_error(product, correlated, order="second") ** 2
    assert found.mean() == pytest.approx(truth, abs=4 * found.std() / np.sqrt(len(found)))
