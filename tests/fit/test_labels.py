"""Columns with the names of parameters: the same numbers as under a plain name, in every table."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.errors import EffectError

#: The same arithmetic under other names of the columns.
SAME = 1e-12
NUMBERS = ["estimate", "std_error", "statistic", "p_value", "conf_low", "conf_high"]


def _data(name: str, *, seed: int = 3) -> pd.DataFrame:
    """40 clusters of 8 rows with a covariate ``name``, whose slopes and residual sds differ between clusters."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(40), 8)
    x, s, e, f = rng.standard_normal((4, len(g)))
    u, v, a, b, k, t = rng.standard_normal((6, 40)) * np.array([0.8, 0.8, 0.7, 0.7, 0.7, 0.4])[:, None]
    m = 0.5 * x + 0.3 * s + u[g] + a[g] * s + e
    y = 1.0 + 0.4 * m + v[g] + b[g] * x + (0.6 * a + b)[g] * s + (0.5 + k[g]) * s * x + np.exp(0.3 * x + t[g]) * f
    return pd.DataFrame({"id": g, "x": x, "m": m, "y": y, name: s})


def _agree(first: pd.DataFrame, second: pd.DataFrame) -> None:
    columns = [name for name in NUMBERS if name in first]
    np.testing.assert_allclose(first[columns], second[columns], rtol=SAME, atol=SAME)
    assert first["term"].is_unique


@pytest.fixture(scope="module")
def scales() -> tuple[mlmed.Results, mlmed.Results]:
    """A location-scale model with a column called ``sigma~x`` in fixed and random part, and with ``w`` instead."""
    found = []
    for name in ("sigma~x", "w"):
        location = f"y ~ `{name}` + x + (1 + `{name}` |c| id)"
        found.append(mlmed.location_scale(location, "~ x + (1 |c| id)", _data(name), nodes=7))
    return found[0], found[1]


def test_location_scale_tables(scales: tuple[mlmed.Results, mlmed.Results]) -> None:
    """The location's ``sigma~x`` is not the scale's."""
    odd, plain = scales
    for table in ("fixef", "effects", "sdcor", "varcorr", "tidy", "to_table"):
        _agree(getattr(odd, table)(), getattr(plain, table)())
    both = odd.params.to_numpy(), plain.params.to_numpy()
    np.testing.assert_allclose(*both, rtol=SAME, atol=SAME)
    assert plain.params["w"] != pytest.approx(plain.params["sigma~x"], abs=0.05)
    assert odd.params["location(sigma~x)"] == pytest.approx(plain.params["w"], abs=SAME)
    assert odd.params["sigma~x"] == pytest.approx(plain.params["sigma~x"], abs=SAME)
    np.testing.assert_allclose(odd.conf_int(), plain.conf_int(), rtol=SAME, atol=SAME)
    np.testing.assert_allclose(odd.pvalues, plain.pvalues, rtol=SAME, atol=SAME)
    np.testing.assert_allclose(odd.vcov(), plain.vcov(), rtol=SAME, atol=SAME)
    np.testing.assert_allclose(odd.cov_params(), plain.cov_params(), rtol=SAME, atol=SAME)
    one, other = odd.nlcom("location(sigma~x) / sigma~x"), plain.nlcom("w / sigma~x")
    np.testing.assert_allclose(one[NUMBERS].astype(float), other[NUMBERS].astype(float), rtol=SAME, atol=SAME)


def test_location_scale_clusters(scales: tuple[mlmed.Results, mlmed.Results]) -> None:
    """A random effect of the location that is called like one of the scale is a difference, not an sd."""
    odd, plain = scales
    numbers = ["estimate", "std_error", "conf_low", "conf_high"]
    np.testing.assert_allclose(odd.ranef()[numbers], plain.ranef()[numbers], rtol=SAME, atol=SAME)
    lines = []
    for fit, name in ((odd, "location(sigma~x)"), (plain, "w")):
        (axes,) = fit.plot.ranef(name)
        assert "difference from the" in " ".join(axes.get_xlabel().split())
        lines.append(axes.lines[0].get_xdata())
    np.testing.assert_allclose(np.asarray(lines[0]), np.asarray(lines[1]), rtol=SAME, atol=SAME)


@pytest.mark.parametrize("name", ["var(x)", "sd(x)", "var(Residual)"])
def test_coefficient_called_like_a_variance(name: str) -> None:
    """It keeps its own numbers, its test and its symmetric interval; the variance keeps its own."""
    odd = mlmed.mixed(f"y ~ x + `{name}` + (1 + x | id)", _data(name))
    plain = mlmed.mixed("y ~ x + w + (1 + x | id)", _data("w"))
    _agree(odd.tidy(), plain.tidy())
    np.testing.assert_allclose(
        odd.sdcor()["estimate"].to_numpy(), plain.sdcor()["estimate"].to_numpy(), rtol=SAME, atol=SAME
    )
    label = f"fixed({name})"
    one, other = odd.nlcom(label), plain.nlcom("w")
    np.testing.assert_allclose(one[NUMBERS].astype(float), other[NUMBERS].astype(float), rtol=SAME, atol=SAME)
    for asked in ("var(x)", "sd(x)", "var(Residual)"):
        assert odd.nlcom(asked)["estimate"][0] == pytest.approx(plain.nlcom(asked)["estimate"][0], rel=SAME)
    boot = odd.bootstrap(40, seed=1).tidy().set_index("term")
    same = plain.bootstrap(40, seed=1).tidy().set_index("term")
    assert boot.loc[label, "p_value"] == pytest.approx(same.loc["w", "p_value"], abs=SAME)
    assert np.isnan(boot.loc["var(x)", "p_value"])
    assert odd.test(f"`{label}` = -1").chi2 == pytest.approx(plain.test("w = -1").chi2, rel=1e-6)  # of two searches


def test_random_slope_of_residual() -> None:
    """A random slope of a column called ``Residual`` is not the residual."""
    name = "Residual"
    odd = mlmed.mixed(f"y ~ x + {name} + (1 + {name} | id)", _data(name))
    plain = mlmed.mixed("y ~ x + w + (1 + w | id)", _data("w"))
    for table in ("tidy", "varcorr"):
        _agree(getattr(odd, table)(), getattr(plain, table)())
    assert odd.sdcor()["term"].is_unique
    assert odd.nlcom("var(Residual)")["estimate"][0] == pytest.approx(plain.nlcom("var(Residual)")["estimate"][0])
    assert odd.test("var(random(Residual)) = 0").chi2 == pytest.approx(plain.test("var(w) = 0").chi2, rel=1e-6)


def test_correlations_with_a_slope_of_residual() -> None:
    """The headline correlations are those of intercepts and of residuals, a row each."""
    models = [
        mlmed.mixed([f"m ~ {name} + (1 + {name} |c| id)", f"y ~ {name} + (1 + {name} |c| id)"], _data(name))
        for name in ("Residual", "w")
    ]
    odd, plain = (fit.summary() for fit in models)
    assert odd.count("between id: m, y") == plain.count("between id: m, y")


def test_cluster_variable_called_residual() -> None:
    """Random effects by a cluster variable called ``Residual`` are not residual variances."""
    data = _data("w")
    odd = mlmed.mixed("y ~ x + (1 + x | Residual)", data.rename(columns={"id": "Residual"})).sections()
    plain = mlmed.mixed("y ~ x + (1 + x | id)", data).sections()
    for name, table in plain.items():
        _agree(odd[name], table)


def test_stata_constant_is_not_a_column() -> None:
    """A column called ``_cons`` is tested like any other."""
    odd = mlmed.mixed("y ~ x + _cons + (1 | id)", _data("_cons")).summary(style="stata")
    plain = mlmed.mixed("y ~ x + w + (1 | id)", _data("w")).summary(style="stata")
    line = next(line for line in plain.splitlines() if "Wald chi2(2)" in line)
    assert line in odd


def test_piecewise_coefficient_called_like_a_variance() -> None:
    """The response ``var(y)`` makes no variance of its coefficients."""
    data = _data("w").rename(columns={"y": "var(y)"})
    odd = mlmed.piecewise("m ~ x + (1 | id)", "`var(y)` ~ x + m + (1 | id)", data)
    plain = mlmed.piecewise("m ~ x + (1 | id)", "y ~ x + m + (1 | id)", _data("w"))
    one, other = odd.bootstrap(40, seed=1).tidy(), plain.bootstrap(40, seed=1).tidy()
    _agree(one, other)
    assert one["p_value"].notna().sum() == other["p_value"].notna().sum()


def test_names_inside_an_expression() -> None:
    """A column called like a variable that stands for quoted names keeps its own number."""
    odd = mlmed.mixed("y ~ x * _q0 + (1 | id)", _data("_q0"))
    expected = odd.params["x:_q0"] - 2.0 * odd.params["_q0"]
    assert odd.nlcom("`x:_q0` - 2 * _q0")["estimate"][0] == pytest.approx(expected, rel=SAME)


def test_intercept_is_refused_as_a_column() -> None:
    """A column called Intercept could not be told from the constant."""
    with pytest.raises(mlmed.errors.FormulaError, match="cannot be told from the constant"):
        mlmed.location_scale("y ~ Intercept + (1 | id)", "~ x + (1 | id)", _data("Intercept"))
    with pytest.raises(mlmed.errors.FormulaError, match="cannot be told from the constant"):
        mlmed.location_scale("y ~ x + (1 | id)", "~ Intercept + (1 | id)", _data("Intercept"))


def test_equation_and_term_are_joined_by_a_tilde() -> None:
    """A colon is left to interactions: ``y~m:w`` is the term m:w in the equation of y; bare in expressions."""
    fit = mlmed.mediate("m ~ x + (1 | id)", "y ~ m * w + x + (1 | id)", _data("w"), treatment="x")
    p = fit.params
    expected = p["m~x"] * (p["y~m"] + p["y~m:w"])
    for text in ("m~x*(y~m + y~m:w)", "`m~x` * (`y~m` + `y~m:w`)"):
        assert fit.nlcom(text)["estimate"][0] == pytest.approx(expected, rel=SAME)
    assert fit.nlcom("sqrt(var(m~Intercept))")["estimate"][0] > 0.0
    assert fit.test("m~x = y~m").df == 1


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("m:x", "m~x"), ("`m:x`", "m~x"), ("2 * y:m:w", "y~m:w"), ("`y~m~w`", "y~m:w"),
        ("sqrt(var(m:Intercept))", "var(m~Intercept)"), ("`var(m:Residual)`", "var(m~Residual)"),
        ("cor(y:Intercept, m:Intercept)", "cor(m~Intercept,y~Intercept)"),
    ],
)  # fmt: skip
def test_the_sign_of_interactions_for_an_equation(typed: str, meant: str) -> None:
    """The error names the parameter that was meant, in every place that reads expressions."""
    fit = mlmed.mediate("m ~ x + (1 |c| id)", "y ~ m * w + x + (1 |c| id)", _data("w"), treatment="x")
    apart = mlmed.piecewise("m ~ x + (1 | id)", "y ~ m * w + x + (1 | id)", _data("w"), treatment="x")
    asks = [fit.nlcom, fit.profile, lambda text: fit.test(f"{text} = 1"), fit.combined]
    asks.append(lambda text: mlmed.compare(fit, terms=[text]))
    for ask in [*asks, *([] if "cor" in typed else [apart.nlcom])]:
        with pytest.raises(EffectError, match=re.escape(f"did you mean {meant}?")):
            ask(typed)


def test_an_unknown_term_of_an_equation() -> None:
    """What is known is listed, as for any other name."""
    fit = mlmed.piecewise("m ~ x + (1 | id)", "y ~ m + x + (1 | id)", _data("w"), treatment="x")
    with pytest.raises(EffectError, match=re.escape("there is no m~z; known are ") + ".*reduced~x"):
        fit.nlcom("2 * m~z")
    with pytest.raises(EffectError, match=re.escape("did you mean reduced~x?")):
        fit.nlcom("reduced:x")
