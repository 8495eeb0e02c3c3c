"""What messages about formulas advise: habits of R, pandas and patsy, quoted names, arguments of the wrong kind."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.allowed import FUNCTIONS, METHODS, NUMPY
from mlmed.effects.nlcom import combine
from mlmed.errors import EffectError, FormulaError, MlmedError
from mlmed.formula import parse_equation
from mlmed.limits import MAX_NESTED
from tests.tolerances import SAME

#: What formulaic, pandas, numpy and Python say; none of it helps who writes a formula.
LEAKS = re.compile(r"Q_[0-9a-f]+_Q|Unable to evaluate|positional|ufunc|NDFrame|object is not|dtype|numerical scaling")


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    made = mlmed.simulate.bpg(40, 8, seed=3).data
    rng = np.random.default_rng(0)
    n = len(made)
    return made.assign(g=rng.choice(list("abc"), n), w=rng.normal(size=n), k=rng.choice([1, 2, 3], n))


def refusal(term: str, data: pd.DataFrame) -> str:
    """What a term is refused with; no leak of names or of other packages' words."""
    with pytest.raises(MlmedError) as caught:
        mlmed.mixed(f"m ~ {term} + (1 | id)", data)
    assert not LEAKS.search(str(caught.value)), str(caught.value)
    return str(caught.value)


# -- habits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("term", "advice"),
    [
        ("as.factor(g)", "as.factor() is R's; write C(g)"),
        ("as.numeric(g)", "as.numeric() is R's; columns of numbers are numbers already"),
        ("is.na(x)", "rows with a missing value are left out"),
        ("as.Date(x)", "as.Date() is R's; make the column before the fit"),
        ("factor(g)", "write C(g)"),
        ("cut(x, 3)", "make the column before the fit, as in data['k'] = pd.cut(data['x'], 3)"),
        ("splines::bs(x)", "without the package that R has it in"),
        ("data$x", "write the column alone, x in place of data$x"),
        ("I(x %*% w)", "the product of two columns is written I(x * z)"),
        ("I(x %in% c(1, 2))", "x.isin([1, 2])"),
        ("I(k %% 2)", "I(x % 2)"),
        ("I((x > 0) && (w > 0))", "&& is written &"),
        ("I((x > 0) || (w > 0))", "|| is written |"),
        ("I(!up)", "opposite comparison"),
        ("numpy.log(x)", "write np.log(x)"),
        ("math.exp(x)", "write np.exp(x)"),
        ("math.pow(x, 2)", "write np.power(x)"),
        ("pd.cut(x, 3)", "pd.cut(data['x'], 3)"),
        ("I(pd.cut(x, 3) == 1)", "pd (pandas) is a package of Python"),
        ("scipy.special.expit(x)", "scipy is a package of Python"),
        ("numpy.clip(x, 0, 1)", "write np.clip(x)"),
        ("numpy.abs(x)", "write np.abs(x)"),
        ("numpy.clip(0, 1)", "those of numpy are, as np.log(x)"),
        ("np.log", "np.log is a function of numpy; write np.log(x)"),
        ("np.pi", "np.pi is a number, which stands inside of an expression"),
        ("x.values", "a formula has no attributes of columns; write x"),
        ("x.T", "a formula has no attributes of columns; write x"),
        ("I(x.values)", "a column has its values already: write x alone"),
        ("x.to_numpy()", "write x alone"),
        ("x.log()", "write np.log(x)"),
        ("x.pow(2)", "write I(x**2)"),
        ("I(x @ w)", "write * for that of two columns, I(x * z)"),
        ("I(w @ w * w)", "write * for that of two columns, I(x * z)"),
        ("I(x > 0)*1", "arithmetic stands inside I(), as in I(2*x) or I((x > 0)*1)"),
        ("2*x", "arithmetic stands inside I()"),
    ],
)
def test_habits_are_answered_by_what_to_write(data: pd.DataFrame, term: str, advice: str) -> None:
    assert advice in refusal(term, data)


@pytest.mark.parametrize("term", ["2:x", "x:2.5", "w*(x:3)", "I(x > 0):0.5"])
def test_a_number_beside_a_term_is_no_column_of_another_unit_under_its_name(data: pd.DataFrame, term: str) -> None:
    """``2:x`` had half the coefficient of x, and was called x."""
    assert "a number beside a term makes no other model" in refusal(term, data)
    with pytest.raises(FormulaError, match="a number beside a term"):
        parse_equation(f"m ~ 1 + (1 + {term} | id)")


@pytest.mark.parametrize(
    "term",
    ["C(g)", "np.log(np.exp(x))", "np.power(x, 2)", "np.clip(x, 0, 1)", "I(x * w)", "k.isin([1, 2])", "I(k % 2)",
     "I((x > 0)*1)", "I(2*x)", "I(np.pi * x)", "np.where(x > 0, 1, 0)", "I(x**2)", "I(k != 2)"],
)  # fmt: skip
def test_what_is_advised_works(data: pd.DataFrame, term: str) -> None:
    assert mlmed.mixed(f"m ~ {term} + (1 | id)", data).params.size >= 2


@pytest.mark.parametrize("name", ["values", "numpy", "pd", "math", "stats", "as"])
def test_a_column_may_be_called_so(data: pd.DataFrame, name: str) -> None:
    """A test of mathematics is a column; its methods are those of a column."""
    renamed = data.rename(columns={"x": name})
    asked = f"`{name}`" if name == "as" else name
    found = mlmed.mixed(f"m ~ {asked} + I(np.abs({asked})) + (1 | id)", renamed)
    assert found.llf == pytest.approx(mlmed.mixed("m ~ x + I(np.abs(x)) + (1 | id)", data).llf, rel=SAME)
    if name != "as":
        clipped = mlmed.mixed(f"m ~ {name}.clip(0, 1) + (1 | id)", renamed)
        assert clipped.llf == pytest.approx(mlmed.mixed("m ~ x.clip(0, 1) + (1 | id)", data).llf, rel=SAME)


# -- quoted names --------------------------------------------------------------------------------------------

QUOTED = [
    ("Child's age", 'Q("Child\'s age")'),
    ("Child's age", "Q('Child\\'s age')"),
    ('say "hi"', "Q('say \"hi\"')"),
    ('say "hi"', 'Q("say \\"hi\\"")'),
    ("a 'b' \"c\"", "Q('a \\'b\\' \"c\"')"),
    ("a\\b", "Q('a\\\\b')"),
    ("Child's age", "`Child's age`"),
    ('say "hi"', '`say "hi"`'),
]


@pytest.mark.parametrize(("name", "spelling"), QUOTED)
@pytest.mark.parametrize("formula", ["m ~ {} + (1 + {} | id)", "m ~ np.abs({}) + I({}**2) + (1 | id)"])
def test_a_name_with_quotation_marks(data: pd.DataFrame, name: str, spelling: str, formula: str) -> None:
    renamed = data.rename(columns={"x": name})
    found = mlmed.mixed(formula.format(spelling, spelling), renamed)
    assert found.llf == pytest.approx(mlmed.mixed(formula.format("x", "x"), data).llf, rel=SAME)
    assert any(name in term for term in found.params.index)


@pytest.mark.parametrize(("name", "spelling"), QUOTED[:3])
def test_a_quoted_response_and_cluster(data: pd.DataFrame, name: str, spelling: str) -> None:
    expected = mlmed.mixed("m ~ x + (1 | id)", data)
    response = mlmed.mixed(f"{spelling} ~ x + (1 | id)", data.rename(columns={"m": name}))
    cluster = mlmed.mixed(f"m ~ x + (1 | {spelling})", data.rename(columns={"id": name}))
    assert response.llf == pytest.approx(expected.llf, rel=SAME)
    assert cluster.llf == pytest.approx(expected.llf, rel=SAME)
    assert cluster.fit.group_name == name


@pytest.mark.parametrize("spelling", ["`a`b`", "Q('a`b')"])
def test_a_backtick_in_a_name_cannot_be_written(data: pd.DataFrame, spelling: str) -> None:
    told = refusal(spelling, data.rename(columns={"x": "a`b"}))
    assert "rename the column 'a`b': no formula can hold its backtick" in told
    assert "is written" not in told


def test_names_are_shown_as_they_were_typed(data: pd.DataFrame) -> None:
    told = refusal("I(x)`my w`", data.rename(columns={"w": "my w"}))
    assert "Missing operator between `I(x)` and `my w`" in told


# -- arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("term", "told"),
    [
        ("C(g, Treatment(base='b'))", "Treatment() has no argument base; write reference="),
        ("C(g, Treatment(ref='b'))", "Treatment() has no argument ref; write reference="),
        ("C(g, contr.treatment(reference='b'))", "contr.treatment() has no argument reference; write base= or drop="),
        ("C(g, Treatment('t'))", "g has no level 't' to refer to; its levels are 'a', 'b', 'c'"),
        ("C(g, Treatment(reference='t'))", "its levels are 'a', 'b', 'c'"),
        ("C(g, contr.treatment(base='t'))", "its levels are 'a', 'b', 'c'"),
        ("C(k, Treatment('1'))", "k has no level '1' to refer to; its levels are 1, 2, 3"),
        ("C(k, Treatment(9))", "k has no level 9 to refer to; its levels are 1, 2, 3"),
        ("C(g, contr.poly(scores=[1, 2]))", "is no coding of the 3 levels of g ('a', 'b', 'c')"),
        ("C(g, [[1, 2], [3, 4]])", "a matrix has a row for each and a column for each but one"),
        ("C(g, levels='abc')", "the argument levels of C() is 'abc'; it has to be a list in square brackets or None"),
        ("C(g, contr.custom([[1, 0], [0, 1], [1, 1]], names=3))", "the argument names of contr.custom() is 3; it has"),
        ("C(g, spans_intercept='no')", "it has to be True or False"),
        ("C(g, levels=3)", "it has to be a list in square brackets or None"),
        ("hashed(g, levels='a')", "the argument levels of hashed() is 'a'; it has to be a whole number"),
        ("poly(x, 'a')", "the argument degree of poly() is 'a'; it has to be a whole number"),
        ("poly(x, degree=None)", "it has to be a whole number"),
        ("poly(x, 2.5)", "it has to be a whole number"),
        ("poly(x, True)", "it has to be a whole number"),
        ("poly(x, 2, raw='yes')", "it has to be True or False"),
        ("bs(x, df='a')", "it has to be a whole number or None"),
        ("bs(x, knots=3)", "it has to be a list in square brackets or None"),
        ("bs(x, 4, extrapolation=1)", "it has to be a text"),
        ("cr(x, df=4, lower_bound='a')", "it has to be a number or None"),
        ("scale(x, center='a')", "it has to be True or False or a number"),
        ("x.isin(3)", "it has to be a list in square brackets"),
        ("np.digitize(x, 3)", "it has to be a list in square brackets"),
        ("np.round(x, 'a')", "it has to be a whole number"),
        ("C(g, Helmert(reverse='a'))", "it has to be True or False"),
        ("np.log()", "np.log() takes 1 argument, and 0 are given"),
        ("np.power(x)", "np.power() takes 2 arguments, and 1 is given"),
        ("np.abs(x, w)", "np.abs() takes 1 argument, and 2 are given"),
        ("np.clip(x, 1, 2, 3)", "np.clip() takes 1 to 3 arguments, and 4 are given"),
        ("x.clip(1, 2, 3)", ".clip() takes 1 to 2 arguments, and 3 are given"),
        ("x.between(1, 2, 'both', 3)", ".between() takes 2 to 3 arguments, and 4 are given"),
        ("x.abs(1)", ".abs() takes no argument, and 1 is given"),
        ("C(g, Sum(3))", "Sum() takes no argument, and 1 is given"),
        ("np.log(3)", "it has no column; write the number itself, or name the column"),
        ("log(3)", "it has no column"),
        ("np.abs('a')", "it has no column"),
        ("np.where(1 > 0, 1, 2)", "compares two constants"),
    ],
)
def test_arguments_that_cannot_be_meant(data: pd.DataFrame, term: str, told: str) -> None:
    assert told in refusal(term, data)


@pytest.mark.parametrize(
    "term",
    [
        "poly(x, 2, raw=True)", "poly(x, 2, raw=1)", "bs(x, df=None, degree=2)", "bs(x, 4, extrapolation='clip')",
        "C(g, levels=['c', 'b', 'a'])", "C(g, levels=None)", "scale(x, ddof=0)", "scale(x, True, False)",
        "C(g, Treatment(reference='b'))", "C(k, Treatment(2))", "cr(x, df=4, constraints='center')",
        "cc(x, df=4, constraints='center')", "I(np.log(3)*x)", "np.round(x, 1)", "np.digitize(x, [0, 1])",
        "hashed(w, levels=3) - 1", "0 + cr(x, df=4)", "C(g, Helmert(reverse=False))",
    ],
)  # fmt: skip
def test_literals_of_every_kind_are_read(data: pd.DataFrame, term: str) -> None:
    assert np.isfinite(mlmed.mixed(f"m ~ {term} + (1 | id)", data).llf)


def test_any_number_of_arguments_of_any_function_is_answered_in_plain_words(data: pd.DataFrame) -> None:
    """Columns, numbers and texts, 0 to 5 of them: a fit, or a refusal without words of other packages."""
    names = [*FUNCTIONS, *(f"np.{name}" for name in NUMPY), *(f"x.{name}" for name in METHODS)]
    given = [
        ", ".join(part) for n in range(6) for part in (["x"] * n, ["x", *["2"] * (n - 1)], ["x", *["'a'"] * (n - 1)])
    ]
    leaked = []
    for term in (f"{name}({arguments})" for name in names for arguments in dict.fromkeys(given)):
        try:
            parse_equation(f"m ~ {term} + (1 | id)")
        except FormulaError as error:
            leaked += [f"{term}: {error}"] if LEAKS.search(str(error)) else []
    assert not leaked


def test_splines_that_hold_the_constant_say_what_the_documentation_says(data: pd.DataFrame) -> None:
    """docs/formulas.md: cr and cc need constraints='center' beside the intercept; four columns then are four more."""
    for name in ("cr", "cs", "cc"):
        with pytest.raises(MlmedError, match="linear combination"):
            mlmed.mixed(f"m ~ {name}(x, df=4) + (1 | id)", data)
        assert mlmed.mixed(f"m ~ {name}(x, df=4, constraints='center') + (1 | id)", data).params.size == 5
        assert mlmed.mixed(f"m ~ 0 + {name}(x, df=4) + (1 | id)", data).params.size == 4


def test_a_column_of_zeros_is_named(data: pd.DataFrame) -> None:
    """A hash that no value has; before, a warning of numpy and whatever came of 0/0."""
    assert "is 0 in every row that is used" in refusal("hashed(g, levels=40) - 1", data)


# -- nlcom ---------------------------------------------------------------------------------------------------


def test_advice_of_expressions_is_about_expressions() -> None:
    """A column cannot be made of parameters."""
    deep = "(" * (MAX_NESTED + 1) + "a" + ")" * (MAX_NESTED + 1)
    with pytest.raises(EffectError, match=r"brackets are open.*write it in parts, or give a function") as caught:
        combine(deep, {})
    assert "column" not in str(caught.value)
    with pytest.raises(FormulaError, match="make the inner part a column before the fit"):
        parse_equation(f"m ~ I({deep}) + (1 | id)")
