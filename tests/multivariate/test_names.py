"""What text can name, in nlcom, test, profile and compare: spellings, ranges, and what has no standard error."""

from __future__ import annotations

import numpy as np
import pytest

import mlmed
from mlmed.effects.delta import Quantity
from mlmed.effects.nlcom import combine, known_name
from mlmed.errors import BoundaryWarning, EffectError
from mlmed.fit.vcov import BOUNDARY_NOTE
from tests.multivariate.models import TWO, two_responses, without_variance_of_m
from tests.tolerances import OPTIMUM, SAME

NUMBERS = ["estimate", "std_error", "conf_low", "conf_high"]
R = "cor(m~Intercept,y~Intercept)"
NO_ERROR = "the correlation is +1, on the boundary: no standard error"
ZERO = "the variance is 0, on the boundary: no standard error"


@pytest.fixture(scope="module")
def fit():
    return mlmed.mixed(TWO, two_responses(11, holes=False))


@pytest.fixture(scope="module")
def edge():
    """The correlation of the intercepts is 1."""
    with pytest.warns(BoundaryWarning):
        return mlmed.mixed(["m ~ x + (1 |c| id)", "y ~ x + (1 |c| id)"], mlmed.simulate.bpg(12, 4, seed=6).data)


@pytest.fixture(scope="module")
def flat():
    """m has no variance between clusters."""
    data = two_responses(3, holes=False)
    data = without_variance_of_m(data)
    with pytest.warns(BoundaryWarning):
        return mlmed.mixed(["m ~ 1 + (1 |c| id)", "y ~ 1 + (1 |c| id)"], data)


# -- no standard error ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "value", "note"),
    [
        (R, 1.0, NO_ERROR),
        (f"2 * {R} + m~x * 0", 2.0, f"{R}: {NO_ERROR}"),
        (lambda values: values[R], 1.0, f"{R}: {NO_ERROR}"),
    ],
    ids=["bare", "text", "callable"],
)
def test_a_correlation_of_one_has_no_error(edge, asked, value, note):
    """As in sdcor(): nlcom once gave an error of 13 and an interval from -27 to 25."""
    row = edge.nlcom(asked).iloc[0]
    assert row["estimate"] == pytest.approx(value, abs=1e-9)  # an exactly singular matrix, up to rounding
    assert row[["std_error", "statistic", "p_value", "conf_low", "conf_high"]].isna().all()
    assert row["note"] == note


def test_boundary_values_are_marked(edge):
    """What rests on G has the note of a singular fit, the rest has not."""
    asked = ["sd(y~Intercept)", "2 * sd(y~Intercept)", "var(y~Intercept)", "m~x", "sd(y~Residual)"]
    notes = [edge.nlcom(one)["note"][0] for one in asked]
    assert notes == [BOUNDARY_NOTE, BOUNDARY_NOTE, BOUNDARY_NOTE, "", ""]
    assert edge.sdcor().set_index("term").loc["sd(y~Intercept)", "note"] == BOUNDARY_NOTE


def test_an_sd_of_zero_is_no_constant(flat):
    """NaN with the reason, not 'fixed, nothing to estimate'; what plays no part spoils nothing."""
    for text, note in (("sd(m~Intercept)", ZERO), ("m~Intercept + sd(m~Intercept)", f"sd(m~Intercept): {ZERO}")):
        row = flat.nlcom(text).iloc[0]
        assert row["note"].startswith(note), text
        assert np.isnan(row["std_error"])
        assert np.isfinite(row["estimate"])
    slope = flat.nlcom("m~Intercept").iloc[0]
    for other in ("m~Intercept + 0 * sd(m~Intercept)", lambda values: values["m~Intercept"]):
        assert flat.nlcom(other)["std_error"][0] == pytest.approx(slope["std_error"], rel=SAME)


def test_what_does_not_exist_is_nan(flat):
    why = "does not exist: the variance of m~Intercept is 0"
    for text, note in ((R, why), (f"2 * {R}", f"{R}: {why}")):
        row = flat.nlcom(text).iloc[0]
        assert row[NUMBERS].isna().all()
        assert row["note"].startswith(note)
    with pytest.raises(EffectError, match=r"gives nan .*without a value in this fit: cor\(m~Intercept,y~Intercept\)"):
        flat.nlcom(lambda values: values[R])


def test_notes_are_carried_over():
    """Each once, with the names; the reason for a constant is added to that of its part."""
    unit = np.eye(3)
    known = {name: Quantity(name, 2.0, row, note="at w = 1") for name, row in zip("ab", unit[:2], strict=True)}
    known["c"] = Quantity("c", 0.0, np.zeros(3), note="not in the model")
    known["d"] = Quantity("d", 3.0, unit[2])
    assert combine("a * b + d", known).note == "a, b: at w = 1"
    assert combine("`a`", known).note == "at w = 1"
    assert combine("2 * c", known).note.endswith("nothing to estimate; c: not in the model")
    np.testing.assert_allclose(combine("a * b + d + c", known).gradient, [2.0, 2.0, 1.0], rtol=1e-8)  # differences


# -- the same numbers -----------------------------------------------------------------------------------------


def test_bare_names_are_shown_as_in_sdcor(fit):
    """Error and interval, whatever the order; in expressions the delta method, as documented."""
    table = fit.sdcor(level=0.9).set_index("term")
    for term in table.index:
        for order in ("first", "second"):
            row = fit.nlcom(term, level=0.9, order=order).iloc[0]
            np.testing.assert_allclose(
                row[NUMBERS].astype(float), table.loc[term, NUMBERS].astype(float), rtol=SAME, err_msg=term
            )
    both = fit.nlcom({"r": R, "slope": "m~x"})
    assert both["term"].tolist() == ["r", "slope"]
    assert both["conf_high"][0] == fit.sdcor().set_index("term").loc[R, "conf_high"]
    assert both["std_error"][1] == pytest.approx(fit.bse["m~x"], rel=SAME)
    with pytest.raises(EffectError, match="order must be one of"):
        fit.nlcom(R, order="third")
    assert not len(fit.nlcom({}))


def test_test_and_interval_of_a_correlation_agree(fit):
    """Both are by Fisher's z: at the level 1 - p an end of the interval is 0."""
    row = fit.nlcom(R).iloc[0]
    ends = fit.nlcom(R, level=1.0 - row["p_value"]).iloc[0][["conf_low", "conf_high"]]
    assert np.abs(ends.astype(float)).min() == pytest.approx(0.0, abs=SAME)


def test_callables_get_every_name(fit):
    found = fit.nlcom(lambda values: values["sd(m~x)"] - values[R], order="first").iloc[0]
    expected = fit.nlcom(f"sd(m~x) - {R}", order="first").iloc[0]
    assert found["estimate"] == expected["estimate"]
    assert found["std_error"] == pytest.approx(expected["std_error"], rel=1e-8)  # two lists of steps


# -- spelling -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["cor(y~w,m~x)", "cor(m~x, y~w)", " cor( y~w , m~x ) ", "`cor(y~w, m~x)`", "cor(`y~w`, `m~x`)"],
)
def test_either_order_and_spaces(fit, text):
    for kind in ("cor", "cov"):
        asked, plain = text.replace("cor", kind), f"{kind}(m~x,y~w)"
        one, two = fit.nlcom(asked), fit.nlcom(plain)
        np.testing.assert_allclose(one[NUMBERS].astype(float), two[NUMBERS].astype(float), rtol=SAME)
        both = fit.nlcom(f"{asked} + 2 * {plain}")["estimate"][0]
        assert both == pytest.approx(3.0 * two["estimate"][0], rel=SAME)
    assert fit.test(f"{text} = 0.1").chi2 == pytest.approx(fit.test("cor(m~x,y~w) = 0.1").chi2, rel=OPTIMUM)
    assert fit.nlcom("sd( m~x )")["term"][0] == "sd(m~x)"


def test_commas_and_brackets_inside_names():
    known = ["cov(m~f(x, 2)[1],y~Intercept)", "np.var(x)", "sd(m~f(x, 2)[1])"]
    assert known_name("cov(y~Intercept, m~f(x, 2)[1])", known) == known[0]
    assert known_name("cov(m~f(x, 2)[1], y~Intercept)", known) == known[0]
    assert known_name("sd( m~f(x, 2)[1] )", known) == known[2]
    assert known_name("np.var(x)", known) == "np.var(x)"
    assert known_name("sd(a) - sd(b)", ["sd(a)", "sd(b)"]) is None
    quantities = {name: Quantity(name, float(k), np.eye(3)[k - 1]) for k, name in enumerate(known, start=1)}
    assert combine("np.var(x) + cov(y~Intercept, m~f(x, 2)[1]) * `sd(m~f(x, 2)[1])`", quantities).estimate == 5.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sd(nope)", r"there is no sd\(nope\); known are sd\(m~Intercept\), sd\(m~x\), .*sd\(y~Residual\)$"),
        ("2 * cor(m~x, m~w)", r"there is no cor\(m~x, m~w\); known are cor\(m~Intercept,m~x\)"),
        ("var(sd(m~x))", r"there is no var\(sd\(m~x\)\)"),
        ("sd(m~x", "cannot read"),
    ],
)
def test_unknown_names_are_listed(fit, text, message):
    with pytest.raises(EffectError, match=message):
        fit.nlcom(text)


# -- hypotheses -----------------------------------------------------------------------------------------------


def test_a_correlation_of_zero_in_a_singular_fit(edge, fit):
    """The same restriction as a covariance of 0; it was refused as flat."""
    for one in (edge, fit):
        correlation, covariance = one.test(f"{R} = 0"), one.test("cov(m~Intercept,y~Intercept) = 0")
        assert (correlation.chi2, correlation.p_value, correlation.note) == (
            covariance.chi2,
            covariance.p_value,
            covariance.note,
        )
    assert edge.test(f"{R} = 0").chi2 > 0.1


def test_numbers_on_the_left_and_sds_as_variances(fit):
    assert fit.test("0 = sd(y~w)").chi2 == fit.test("var(y~w) = 0").chi2
    assert fit.test("sd(y~w) = 0.5").chi2 == fit.test("var(y~w) = 0.25").chi2


@pytest.mark.parametrize(
    ("hypothesis", "message"),
    [
        ("sd(m~x) = -1", r"sd\(m~x\) could not be brought to -1: a standard deviation is 0 or more; it is 0\.\d+ in"),
        ("var(m~x) = -1", "a variance is 0 or more"),
        ("cor(y~w, m~x) = 1.5", "could not be brought to 1.5: a correlation lies between -1 and 1"),
        ("sd(m~Residual) = 0", r"every row exactly; it is .* random effect .* as 'var\(...\) = 0'"),
        ("var(m~Residual) = 0", "without residuals"),
        ("sd(m~nope) = 0", r"there is no sd\(m~nope\)"),
    ],
)
def test_values_that_cannot_be(fit, hypothesis, message):
    with pytest.raises(EffectError, match=message):
        fit.test(hypothesis)


def test_no_test_of_what_does_not_exist(flat):
    with pytest.raises(EffectError, match="does not exist: the variance of m~Intercept is 0"):
        flat.test(f"{R} = 0")


def test_profile_of_a_correlation_with_hardly_any_variance():
    """The profile was lost; -1 to 1 is what the model without the effect proves."""
    data = mlmed.datasets.load("yuan_mackinnon_sim")
    data = data.assign(z=np.random.default_rng(1).normal(size=len(data)))
    with pytest.warns(BoundaryWarning):
        fit = mlmed.mixed(["Med ~ X + (1 |c| group)", "z ~ X + (1 |c| group)"], data)
    found = fit.profile("cor(z~Intercept, Med~Intercept)", points=4)
    assert found.interval == (-1.0, pytest.approx(1.0, abs=1e-6))  # the upper end was followed
    without = fit.test("var(z~Intercept) = 0").chi2
    assert found.ends[0].drop == pytest.approx(without, rel=SAME)
    assert (
        f"no correlation can be excluded: without z~Intercept the log-likelihood drops by {without / 2:.3g}"
        in found.note
    )
    # at 0 the profile has not dropped by more than that bound
    assert fit.test("cor(z~Intercept, Med~Intercept) = 0").chi2 <= without + 1e-6  # the search ends within 1e-8
    half = fit.profile("cor(z~Intercept, Med~Intercept)", points=4, level=0.5).ends[0]
    assert -1.0 < half.value < 1.0  # an end that exists stays where it is
    assert half.drop == pytest.approx(0.6744897501960817**2, abs=1e-8)  # squared 0.75 quantile of the normal


# -- side by side ---------------------------------------------------------------------------------------------


def test_compare_knows_sds_and_correlations(fit):
    """Under the names that every fit shares; the residual structure is in the name of a column."""
    data = two_responses(11, holes=False)
    rows = mlmed.mixed(TWO, data, residual="unstructured")
    alone = mlmed.mixed("m ~ x + (1 + x | id)", data)
    r = "cor(m~Residual,y~Residual)"
    found = mlmed.compare(fit, rows, alone, terms=[r, "cor(m~x, m~Intercept)", "sd(m~Residual)"])
    assert found.sources == ("joint REML", "joint REML, residual unstructured", "mixed REML")
    assert found.table.loc[r].isna().tolist() == [True, False, True]
    shown = rows.sdcor().set_index("term")
    assert found.table.loc[r].iloc[1] == pytest.approx(shown.loc[r, "estimate"], rel=SAME)
    ends = found.long.set_index(["term", "source"]).loc[(r, "joint REML, residual unstructured")]
    assert ends["conf_low"] == pytest.approx(shown.loc[r, "conf_low"], rel=SAME)
    own = alone.sdcor().set_index("term")["estimate"]
    assert found.table["mixed REML"].iloc[1:].tolist() == own[["cor(Intercept,x)", "sd(Residual)"]].tolist()
