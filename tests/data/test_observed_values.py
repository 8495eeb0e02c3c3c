"""Treatments, mediators and moderators behind indicators, clips and codes: the numbers of columns made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest

import mlmed
from mlmed.data.layout import EquationLayout
from mlmed.data.probing import columns_at, rows_of
from mlmed.errors import EffectError, FormulaError

#: The same model in other columns, fitted again: two optima of one criterion.
HAND_MADE = 1e-6
OUTCOME = "y ~ m + {0} + (1 | id)"


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    """60 clusters of 8; a treatment coded 1 and 2 (and 1 and 3), a moderator 0 and 5, one of four values."""
    made = mlmed.simulate.bpg(60, 8, seed=3).data
    rng, n = np.random.default_rng(0), len(made)
    treat = rng.choice([1, 2], n)
    made["m"] += 0.8 * (treat == 2)
    g = rng.choice([0.0, 5.0], n)
    return made.assign(
        treat=treat,
        wide=np.where(treat == 2, 3, 1),
        treat01=treat - 1.0,
        arm=np.where(made["x"] > 0, 3, 1),
        arm01=1.0 * (made["x"] > 0),
        g=g,
        g01=g / 5.0,
        k=rng.integers(0, 4, n),
        mc=np.where(made["m"] > 0, 3.0, 1.0),
        m01=1.0 * (made["m"] > 0),
    )


def estimates(fit: mlmed.Results, **options: object) -> pd.DataFrame:
    """Effects by term."""
    return fit.effects(**options).set_index("term")  # type: ignore[arg-type]


def same(left: pd.DataFrame, right: pd.DataFrame) -> None:
    """Two spellings of one model."""
    columns = ["estimate", "std_error"]
    np.testing.assert_allclose(left[columns], right[columns], rtol=HAND_MADE, atol=1e-9)


CODES = {
    "I(treat == 2)": "treat01",
    "I(wide > 2)": "treat01",
    "np.where(treat == 2, 1, 0)": "treat01",
    "np.clip(wide - 1, 0, 1)": "treat01",
    "np.maximum(wide, 2)": "treat01",  # 2 and 3
    "I(treat**2)": "treat3",
}


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("mode", ["mediate", "piecewise"])
def test_a_treatment_of_two_values(data: pd.DataFrame, code: str, mode: str) -> None:
    """From its lower to its upper value, on every path, whatever the code is."""
    made, fit = data.assign(treat3=3.0 * data["treat01"]), getattr(mlmed, mode)
    name = "wide" if "wide" in code else "treat"
    left = fit(f"m ~ {code} + (1 | id)", OUTCOME.format(code), made)
    by_hand = CODES[code]
    right = fit(f"m ~ {by_hand} + (1 | id)", OUTCOME.format(by_hand), made)
    factor = 3.0 if by_hand == "treat3" else 1.0
    table, expected = estimates(left), estimates(right)
    linear = [term for term in ("a", "cprime", "c", "indirect", "total") if term in table.index]
    np.testing.assert_allclose(table.loc[linear, "estimate"], factor * expected.loc[linear, "estimate"], rtol=HAND_MADE)
    stop = 3 if name == "wide" else 2
    assert table.loc["a", "note"] == table.loc["indirect", "note"].split(";")[0] == f"at {name} from 1 to {stop}"


@pytest.mark.parametrize("mode", ["mediate", "piecewise"])
def test_one_contrast_for_all_paths(data: pd.DataFrame, mode: str) -> None:
    """A plain column in the outcome is compared at the same values as the indicator; random slopes, too."""
    fit, outcome = getattr(mlmed, mode), "y ~ m + {0} + (1 + m | id)"
    left = fit("m ~ I(arm == 3) + (1 + I(arm == 3) | id)", outcome.format("arm"), data)
    right = fit("m ~ arm01 + (1 + arm01 | id)", outcome.format("arm01"), data)
    tables = (estimates(one).drop("c_minus_cprime", errors="ignore") for one in (left, right))
    same(*tables)
    if mode == "mediate":
        assert estimates(left).loc["cov_ab", "note"] == "at arm from 1 to 3"


@pytest.mark.parametrize("mode", ["mediate", "piecewise"])
def test_one_contrast_where_one_equation_has_a_factor(data: pd.DataFrame, mode: str) -> None:
    """C(wide) in the outcome goes from 1 to 3, and so does the plain column in the mediator's equation."""
    fit = getattr(mlmed, mode)
    left = estimates(fit("m ~ wide + (1 | id)", OUTCOME.format("C(wide)"), data))
    right = estimates(fit("m ~ treat01 + (1 | id)", OUTCOME.format("treat01"), data))
    rows = ["a", "b", "cprime", "indirect", "total"]
    same(left.loc[rows], right.loc[rows])


def test_a_straight_line_keeps_its_unit(data: pd.DataFrame) -> None:
    """Arithmetic that only shifts and scales is a unit change, without a note, also with two values."""
    fit = mlmed.mediate("m ~ I((wide - 2) / 2) + (1 | id)", OUTCOME.format("wide"), data)
    table = estimates(fit)
    assert table.loc["a", "estimate"] == pytest.approx(fit.params.iloc[1] / 2.0, rel=1e-9)
    assert table.loc["a", "note"] == ""


@pytest.mark.parametrize("code", ["I(mc == 3)", "np.where(mc > 2, 1, 0)", "np.clip(mc, 2, 3)"])
@pytest.mark.filterwarnings("ignore::mlmed.errors.FamilyWarning")
def test_a_mediator_of_two_values(data: pd.DataFrame, code: str) -> None:
    """b is per unit of the mediator, so that a b is that of the 0/1 column."""
    left = mlmed.mediate("mc ~ x + (1 | id)", f"y ~ {code} + x + (1 | id)", data)
    right = mlmed.mediate("m01 ~ x + (1 | id)", "y ~ m01 + x + (1 | id)", data)
    rows = ["cprime", "indirect", "direct", "total"]
    same(estimates(left).loc[rows], estimates(right).loc[rows])


@pytest.mark.parametrize("clusters", ["", " + (1 | id)"])
def test_a_mediator_of_two_values_in_causal(data: pd.DataFrame, clusters: str) -> None:
    """Average effects, with and without random effects."""
    question = {"treatment": "treat", "contrast": (1, 2)}
    left = mlmed.causal(f"mc ~ treat{clusters}", f"y ~ I(mc == 3)*treat + x{clusters}", data, **question)
    right = mlmed.causal(f"m01 ~ treat{clusters}", f"y ~ m01*treat + x{clusters}", data, **question)
    same(left.effects(), right.effects())


@pytest.mark.parametrize(
    "term", ["I(m > 0)", "np.maximum(m, 0)", "np.clip(m, -2, 2)", "I(m**2)", "np.where(m > 0, m, 0)"]
)
def test_curves_and_kinks_in_the_mediator_are_refused(data: pd.DataFrame, term: str) -> None:
    """Wherever the mean is, the bend is seen between the values that the rows have."""
    with pytest.raises(EffectError, match="the effect of m in equation y is not a single slope"):
        mlmed.mediate("m ~ x + (1 | id)", f"y ~ {term} + x + (1 | id)", data).effects()
    with pytest.raises(EffectError, match="not a single slope"):
        mlmed.piecewise("m ~ x + (1 | id)", f"y ~ {term} + x + (1 | id)", data).effects()
    with pytest.raises(FormulaError, match="not a straight line in the mediator"):
        mlmed.causal("m ~ treat01", f"y ~ {term} + treat01", data, treatment="treat01")


@pytest.mark.parametrize("term", ["I(x > 0)", "np.maximum(x, -2.5)", "np.clip(x, -2.5, 2.5)", "I(abs(x))"])
def test_curves_and_kinks_in_the_treatment_need_a_contrast(data: pd.DataFrame, term: str) -> None:
    """Refused without one; with one, the coefficient times the change of the column."""
    with pytest.raises(EffectError, match=r"not a single slope.*contrast=\(from, to\)"):
        mlmed.mediate(f"m ~ {term} + (1 | id)", OUTCOME.format("x"), data).effects()
    fit = mlmed.mediate(f"m ~ {term} + (1 | id)", OUTCOME.format("x"), data, contrast=(-2.0, 1.0))
    change = {"I(x > 0)": 1.0, "np.maximum(x, -2.5)": 3.0, "np.clip(x, -2.5, 2.5)": 3.0, "I(abs(x))": -1.0}[term]
    table = estimates(fit)
    assert table.loc["a", "estimate"] == pytest.approx(change * fit.params.iloc[1], rel=1e-9)
    assert table.loc["cprime", "estimate"] == pytest.approx(3.0 * fit.params["y~x"], rel=1e-9)


def test_values_that_no_row_has(data: pd.DataFrame) -> None:
    """A contrast or a moderator beyond the values that a transformed variable has."""
    with pytest.raises(EffectError, match=r"contrast names 0, but treat has 1 and 2 and enters through a transf"):
        mlmed.mediate("m ~ I(treat == 2) + (1 | id)", OUTCOME.format("treat"), data, contrast=(0, 1)).effects()
    with pytest.raises(EffectError, match=r"contrast names -20, but x goes from -"):
        mlmed.mediate("m ~ I(x > 0) + (1 | id)", OUTCOME.format("x"), data, contrast=(-20, 1)).effects()
    fit = mlmed.mediate("m ~ x*I(g == 5) + (1 | id)", OUTCOME.format("x"), data, treatment="x")
    with pytest.raises(EffectError, match=r"at gives g the value 7, but g has 0 and 5"):
        fit.effects(at={"g": 7})


def test_a_slope_of_zero_says_where(data: pd.DataFrame) -> None:
    """A term has the variable, but nothing changes where it is looked at; "no such term" is for no term."""
    fit = mlmed.mediate("m ~ x:g01 + (1 | id)", OUTCOME.format("x"), data, treatment="x")
    row = estimates(fit, at={"g01": 0}).loc["a"]
    assert (row["estimate"], row["note"]) == (
        0.0,
        "fixed at 0: the slope is 0 at g01 = 0.0, whatever the coefficients are",
    )
    fit = mlmed.mediate("m ~ I(x > 0) + (1 | id)", OUTCOME.format("x"), data, contrast=(1.0, 2.0))
    assert "the slope is 0 at x from 1 to 2" in estimates(fit).loc["a", "note"]
    fit = mlmed.piecewise(
        "m ~ x + (1 | id)", "y ~ m + x + (1 | id)", data, total="y ~ I(x > 0) + (1 | id)", contrast=(1, 2)
    )
    row = estimates(fit).loc["c"]
    assert (row["estimate"], "the slope is 0 at x from 1 to 2" in row["note"]) == (0.0, True)


@pytest.mark.parametrize("at", [None, 0.0, 5.0])
def test_moderators_of_two_values(data: pd.DataFrame, at: float | None) -> None:
    """At its mean an indicator is its own mean, as the 0/1 column is."""
    left = mlmed.mediate("m ~ x*I(g == 5) + (1 | id)", "y ~ m*I(g > 1) + x + (1 | id)", data, treatment="x")
    right = mlmed.mediate("m ~ x*g01 + (1 | id)", "y ~ m*g01 + x + (1 | id)", data, treatment="x")
    held = {} if at is None else {"at": {"g": at}}, {} if at is None else {"at": {"g01": at / 5.0}}
    same(estimates(left, **held[0]), estimates(right, **held[1]))


def test_a_mean_where_the_path_jumps(data: pd.DataFrame) -> None:
    """A moderator of four values behind an indicator is asked for, not held at a mean between two of its values."""
    fit = mlmed.mediate("m ~ x*I(k == 2) + (1 | id)", OUTCOME.format("x"), data, treatment="x")
    with pytest.raises(
        EffectError, match=r"jumps with k around its mean \(1\.\d+\), between its values 1 and 2;.*at=\{'k'"
    ):
        fit.effects()
    assert "jumps with k" in fit.summary()
    slope = fit.params["m~x"] + fit.params["m~x:I(k == 2)"]
    assert estimates(fit, at={"k": 2}).loc["a", "estimate"] == pytest.approx(slope, rel=1e-9)
    assert fit.nlcom("a", at={"k": 2}).loc[0, "estimate"] == pytest.approx(slope, rel=1e-9)
    pole = mlmed.mediate("m ~ x*I(1 / (k - 1.25)) + (1 | id)", OUTCOME.format("x"), data, treatment="x")
    assert "jumps with k" in pole.effects_reason  # it lies between two of the values
    smooth = mlmed.mediate("m ~ x*np.log(k + 1) + (1 | id)", OUTCOME.format("x"), data, treatment="x")
    slope = smooth.params["m~x"] + smooth.params["m~x:np.log(k + 1)"] * np.log(data["k"].mean() + 1.0)
    assert estimates(smooth).loc["a", "estimate"] == pytest.approx(slope, rel=1e-9)


@pytest.fixture(scope="module")
def scale() -> pd.DataFrame:
    """320 rows with a moderator of as many values; two rows around its mean are 2.9566 and 2.9910, or one has it."""
    made = mlmed.simulate.bpg(40, 8, seed=5).data
    w = 3.0 + np.random.default_rng(2).normal(size=len(made))
    return made.assign(w=w, high=1.0 * (w > 3.0), k=np.arange(len(made)) % 4, c3=np.arange(len(made)) % 3)


def test_a_mean_beside_a_jump(scale: pd.DataFrame) -> None:
    """Neighbours of the mean are rows, however many there are; the step at 3 is not between them."""
    formulas = "m ~ x*{0} + (1 | id)", "y ~ m + x + (1 | id)"
    f, g = ([text.format(name) for text in formulas] for name in ("I(w > 3)", "high"))
    expected = estimates(mlmed.mediate(*g, scale, treatment="x"), at={"high": 0.0})
    parts = mlmed.grams(f, scale[:160]) + mlmed.grams(f, scale[160:])
    for source in (scale, parts):
        same(estimates(mlmed.mediate(*f, source, treatment="x")), expected)
    covariate = mlmed.mixed("y ~ x + I(w > 3) + (1 | id)", scale)
    found = covariate.conditional_effects("x", points=[0.0]).loc[0, "estimate"]
    assert found == pytest.approx(covariate.params["Intercept"], rel=1e-9)
    between = mlmed.mediate("m ~ x*I(w > 2.97) + (1 | id)", formulas[1], scale, treatment="x")
    with pytest.raises(EffectError, match=r"around its mean \(2\.96\d+\), between its values 2\.956\d+ and 2\.991\d+;"):
        between.effects()


def test_a_mean_that_a_row_has(scale: pd.DataFrame) -> None:
    """Up to rounding: the mean of 0.1, 0.2 and 0.3 is 0.2, and at least 0.2 (in floats it is more, or less)."""
    tenths = scale[:318].assign(t=np.tile([0.1, 0.2, 0.3], 106), s=np.tile([0.7, 0.8, 0.9], 106))
    for name, middle in (("t", 0.2), ("s", 0.8)):
        for sign in (">=", "=="):
            fit = mlmed.mediate(
                f"m ~ x*I({name} {sign} {middle}) + (1 | id)", OUTCOME.format("x"), tenths, treatment="x"
            )
            slope = fit.params["m~x"] + fit.params.filter(like="m~x:").iloc[0]
            assert estimates(fit).loc["a", "estimate"] == pytest.approx(slope, rel=1e-9)


def test_neighbours_of_the_mean_are_stored(scale: pd.DataFrame) -> None:
    """In memory, in an engine and in sums: the rows on either side, among a part of the values; the mean is of all."""
    formulas = ("m ~ x*I(w**2) + (1 | id)",)
    mean, w = scale["w"].mean(), scale["w"]
    expected = w[w < mean].max(), w[w > mean].min()
    parts = mlmed.grams(formulas, scale[:160]) + mlmed.grams(formulas, scale[160:])
    for grams in (mlmed.grams(formulas, scale), mlmed.grams(formulas, pl.from_pandas(scale).lazy()), parts):
        layout = grams.arrays.layout.equations[0]
        values = np.array(layout.observed["w"])
        assert layout.typical["w"] == pytest.approx(mean, rel=1e-12)
        assert (values[values < mean].max(), values[values > mean].min()) == expected
        assert 200 < len(values) < 320


@pytest.mark.parametrize(("term", "value"), [("bs(w, df=4)", 9), ("np.log(w + 2)", -6)])
def test_where_a_formula_has_no_value(scale: pd.DataFrame, term: str, value: float) -> None:
    """The moderator is named, not the treatment, which enters as a straight line."""
    fit = mlmed.mediate(f"m ~ x*{term} + (1 | id)", "y ~ m + x + (1 | id)", scale, treatment="x")
    said = rf"equation m cannot be evaluated at w = {value} \(its rows have w from 0\.31\d+ to 5\.84\d+\).*at=\{{'w'"
    with pytest.raises(EffectError, match=said):
        fit.effects(at={"w": value})
    pole = mlmed.mediate("m ~ I(1 / (w - 3)) + (1 | id)", "y ~ m + x + (1 | id)", scale, contrast=(3, 4))
    with pytest.raises(EffectError, match=r"cannot be evaluated where w goes from 3\.0 to 4\.0; .*contrast="):
        pole.effects()


@pytest.mark.parametrize(
    ("term", "at"),
    [("I(c3 == 1)", 5), ("I(k == 2)", 9), ("C(k == 2)", 9), ("I(k > 1)", 1.5), ("np.floor(k / 2)", 9)],
)
def test_steps_are_known_at_values_that_rows_have(scale: pd.DataFrame, term: str, at: float) -> None:
    """Beyond few values, and between two where the columns step; in every place that holds a variable."""
    name = "c3" if "c3" in term else "k"
    said = rf"at gives {name} the value {at}, but {name} has 0, 1(, 2)? and \d and enters through a transformation"
    with pytest.raises(EffectError, match=said):
        mlmed.mediate(f"m ~ x*{term} + (1 | id)", OUTCOME.format("x"), scale, treatment="x").effects(at={name: at})
    with pytest.raises(EffectError, match=said):
        mlmed.mixed(f"m ~ x*{term} + (1 | id)", scale).conditional_effects("x", at={name: at})
    with pytest.raises(EffectError, match=said):
        mlmed.causal(f"m ~ x*{term}", "y ~ m + x", scale, treatment="x").effects(at={name: at})


def test_steps_in_other_modes(scale: pd.DataFrame) -> None:
    """Two regressions, and the curve of a location-scale model."""
    paths = mlmed.piecewise("m ~ x*I(k == 2) + (1 | id)", OUTCOME.format("x"), scale, treatment="x")
    spread = mlmed.location_scale("m ~ x + I(k == 2) + (1 | id)", "~ x", scale)
    for ask in (lambda: paths.effects(at={"k": 9}), lambda: spread.plot.prediction("x", at={"k": 9})):
        with pytest.raises(EffectError, match="at gives k the value 9, but k has 0, 1, 2 and 3"):
            ask()


def test_scales_are_known_elsewhere(scale: pd.DataFrame) -> None:
    """A smooth function of few values, a step on a scale of many, and between few values where nothing steps."""
    for term, at, change in (
        ("np.log(k + 1)", {"k": 9}, np.log(10.0)),
        ("I(w > 3)", {"w": 9}, 1.0),
        ("I(k > 1)", {"k": 2.5}, 1.0),
    ):
        fit = mlmed.mediate(f"m ~ x*{term} + (1 | id)", OUTCOME.format("x"), scale, treatment="x")
        slope = fit.params["m~x"] + change * fit.params.filter(like="m~x:").iloc[0]
        assert estimates(fit, at=at).loc["a", "estimate"] == pytest.approx(slope, rel=1e-9)
    with pytest.raises(EffectError, match=r"contrast names 1\.5, but k has 0, 1, 2 and 3"):
        mlmed.mediate("m ~ I(k > 1) + (1 | id)", OUTCOME.format("k"), scale, contrast=(0, 1.5)).effects()


def test_a_jump_beside_a_centred_treatment(scale: pd.DataFrame) -> None:
    """A product with a treatment of mean 0 is 0 there, on both sides of the jump; one unit further it is not."""
    made = scale.assign(x=np.tile([-1.0, 1.0], 160))
    fit = mlmed.mediate("m ~ x + x:I(k > 1) + (1 | id)", OUTCOME.format("x"), made, treatment="x")
    with pytest.raises(EffectError, match=r"jumps with k around its mean \(1\.5\)"):
        fit.effects()


def test_conditional_effects(data: pd.DataFrame) -> None:
    """Along another predictor and along the coded one itself; predictions of rows stay literal."""
    left = mlmed.mixed("m ~ x*I(treat == 2) + I(g > 2)*x + (1 + I(treat == 2) | id)", data)
    right = mlmed.mixed("m ~ x*treat01 + g01*x + (1 + treat01 | id)", data)
    columns = ["estimate", "std_error"]
    for one, other in (("x", "x"), ("treat", "treat01")):
        found, expected = left.conditional_effects(one, points=5), right.conditional_effects(other, points=5)
        np.testing.assert_allclose(found[columns], expected[columns], rtol=HAND_MADE)
    new = data[:6]
    np.testing.assert_allclose(left.predict(new), right.predict(new), rtol=HAND_MADE)
    many = mlmed.mixed("m ~ x + I(k == 2) + (1 | id)", data)
    with pytest.raises(EffectError, match=r"jumps with k around its mean .* at=\{'k': \.\.\.\}"):
        many.conditional_effects("x")
    held = many.conditional_effects("x", at={"k": 2}, points=[0.0]).loc[0, "estimate"]
    assert held == pytest.approx(many.params["Intercept"] + many.params["I(k == 2)"], rel=1e-9)


def test_engines_and_stored_grams(data: pd.DataFrame, tmp_path: object) -> None:
    """The values are learned where the rows are, stored, and added up; Grams that lack them say so."""
    formulas = "m ~ I(treat**2) + (1 | id)", OUTCOME.format("treat")
    expected = estimates(mlmed.mediate(*formulas, data))
    lazy = pl.from_pandas(data).sort("treat").lazy()  # the first rows have one value only
    stored = mlmed.grams(formulas, data)
    stored.save(f"{tmp_path}/grams.parquet")
    for source in (lazy, stored, mlmed.Grams.load(f"{tmp_path}/grams.parquet"), mlmed.grams(formulas, lazy)):
        same(estimates(mlmed.mediate(*formulas, source)), expected)
    parts = mlmed.grams(formulas, data[:240]) + mlmed.grams(formulas, data[240:])
    same(estimates(mlmed.mediate(*formulas, parts)), expected)
    layout = stored.arrays.layout
    silent = replace(layout, equations=tuple(replace(equation, observed={}) for equation in layout.equations))
    with pytest.raises(EffectError, match=r"do not say which values it has.*make them again from the data"):
        mlmed.mediate(*formulas, mlmed.Grams(replace(stored.arrays, layout=silent))).effects()


def test_kinks_in_an_engine(data: pd.DataFrame) -> None:
    """Seen in the values of a sample and in the ends."""
    with pytest.raises(EffectError, match="not a single slope"):
        mlmed.mediate("m ~ x + (1 | id)", "y ~ I(abs(m)) + x + (1 | id)", pl.from_pandas(data).lazy()).effects()


def test_columns_halfway(data: pd.DataFrame) -> None:
    """Products of interpolated columns, as products of 0/1 columns at their means."""
    layout: EquationLayout = mlmed.mixed("m ~ I(treat == 2)*I(g > 1) + (1 | id)", data).fit.layout.equations[0]
    row = rows_of(layout, {"treat": [1.25], "g": [2.0]})
    np.testing.assert_allclose(columns_at(layout, row)[0], [[1.0, 0.25, 0.4, 0.1]], rtol=1e-12)
