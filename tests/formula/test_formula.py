"""Formulas: what is read, what is refused, and that each spelling means the same model everywhere."""

from __future__ import annotations

import re

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest

import mlmed
from mlmed.errors import DataError, EffectError, FormulaError
from mlmed.formula import display_name, formula_of, formula_variables, parse_equation, quote_columns
from tests.models import MEDIATOR, OUTCOME
from tests.tolerances import INVARIANT, SAME


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    """40 clusters of 8 with moderators, factors and positive columns; no fit below is singular."""
    made = mlmed.simulate.bpg(40, 8, seed=3).data
    rng = np.random.default_rng(0)
    n = len(made)
    return made.assign(
        w=rng.normal(size=n),
        g=rng.choice(list("abc"), n),
        k=rng.choice([1, 2], n),
        arm=np.where(made["x"] > 0, "tx", "ctl"),
        up=made["x"] > 0,
        e=np.exp(made["m"] / 3.0),
        p=np.exp(made["x"] / 3.0),
        L2=rng.normal(size=41)[made["id"]],
    )


def same_fit(left: mlmed.Results, right: mlmed.Results) -> None:
    """Two spellings of one model: same likelihood and fixed effects."""
    assert left.llf == pytest.approx(right.llf, rel=INVARIANT)
    np.testing.assert_allclose(left.params, right.params, rtol=1e-5, atol=1e-7)


def effect(fit: mlmed.Results, **options: object) -> pd.Series:
    """Estimates by term."""
    return fit.effects(**options).set_index("term")["estimate"]  # type: ignore[arg-type]


# -- the tokenizer that is not public ------------------------------------------------------------------------


def test_formulaic_tokenizer_still_says_what_we_rely_on() -> None:
    """mlmed.tokens imports formulaic.parser.algos.tokenize, which has no promise of stability."""
    from formulaic.parser.algos.tokenize import tokenize
    from formulaic.parser.types import Token

    text = "1 + np.log(x):`a|b` |i| (id)"
    tokens = list(tokenize(text))
    assert all(isinstance(token, Token) for token in tokens)
    seen = [(token.token, token.kind.value) for token in tokens]
    assert seen == [
        ("1", "value"),
        ("+", "operator"),
        ("np.log(x)", "python"),
        (":", "operator"),
        ("a|b", "name"),
        ("|", "operator"),
        ("i", "name"),
        ("|", "operator"),
        ("(", "context"),
        ("id", "name"),
        (")", "context"),
    ]
    bars = [token for token in tokens if token.kind.value == "operator" and "|" in token.token]
    assert [text[token.source_start] for token in bars] == ["|", "|"]
    assert [token.token for token in tokenize("x || id")] == ["x", "||", "id"]


# -- what is read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "response", "fixed", "random"),
    [
        ("m ~ x + (1 + x | id)", "m", "x", [("1 + x", ("id",), None, True)]),
        ("m~(1|id)", "m", "1", [("1", ("id",), None, True)]),
        ("m ~ (1 | id) + x", "m", "x", [("1", ("id",), None, True)]),
        ("m ~ x + (1 + x || id)", "m", "x", [("1 + x", ("id",), None, False)]),
        ("m ~ x + (1 + x |i| id)", "m", "x", [("1 + x", ("id",), "i", True)]),
        ("m ~ x + (1 | i | id) + (0 + x |j| id)", "m", "x", [("1", ("id",), "i", True), ("0 + x", ("id",), "j", True)]),
        ("m ~ x + (1 | g:h)", "m", "x", [("1", ("g", "h"), None, True)]),
        ("m ~ x + (1 | `my id`)", "m", "x", [("1", ("my id",), None, True)]),
        (
            "np.log(m) ~ I(x**2) + (1 + I((x)**2) | id)",
            "np.log(m)",
            "I(x**2)",
            [("1 + I((x)**2)", ("id",), None, True)],
        ),
        ("m ~ 0 + g*(x + w) + (1 | id)", "m", "0 + g*(x + w)", [("1", ("id",), None, True)]),
        ("m\t~ x +\n (1 | id) + w", "m", "x + w", [("1", ("id",), None, True)]),
        ("m ~ (1 | id) - 1 + x", "m", "- 1 + x", [("1", ("id",), None, True)]),
    ],
)
def test_parsing(
    text: str, response: str, fixed: str, random: list[tuple[str, tuple[str, ...], str | None, bool]]
) -> None:
    """Fixed part, effects, groups, labels and the double bar."""
    equation = parse_equation(text)
    assert equation.text == text
    assert equation.response == response
    assert re.sub(r"\s+", " ", equation.fixed) == fixed
    assert [(term.formula, term.group, term.label, term.correlated) for term in equation.random] == random


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("x + w", {"x", "w"}),
        ("x*w + I(v**2)", {"x", "w", "v"}),
        ("np.log(`NA.std` + 1):w", {"NA.std", "w"}),
        ("C(g, contr.sum) + C(h, Treatment('b'))", {"g", "h"}),
        ("1", set()),
        ("0 + np.where(x > 0, z, 0)", {"x", "z"}),
        ("center(x)", {"x"}),
        ("scale(x) + w", {"x", "w"}),
        ("poly(x, 2) + bs(w, df=4)", {"x", "w"}),
    ],
)
def test_variables_of_a_formula(text: str, variables: set[str]) -> None:
    """Columns that are read, also inside functions that keep a state (center, scale, poly, bs)."""
    assert formula_variables(text) == variables


def test_variables_of_an_equation() -> None:
    """Response, both parts and every group column."""
    equation = parse_equation("np.log(m) ~ x:w + (1 + I(z**2) | g:h)")
    assert equation.variables == {"m", "x", "w", "z", "g", "h"}
    assert equation.name == "np.log(m)"
    assert display_name("`NA.std`:x") == "NA.std:x"


# -- names that are not Python names -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "columns", "quoted"),
    [
        ("NA.std", ["NA.std"], "`NA.std`"),
        ("np.log(NA.std) + x", ["NA.std", "x"], "np.log(`NA.std`) + x"),
        ("`NA.std` + NA.std", ["NA.std"], "`NA.std` + `NA.std`"),
        ("x.1 + x.1.b + x", ["x", "x.1", "x.1.b"], "`x.1` + `x.1.b` + x"),
        ("NA.std.more", ["NA.std"], "NA.std.more"),
        ("x.mean() + x.mean", ["x.mean"], "x.mean() + `x.mean`"),
        ("np.log(p)", ["np.log", "p"], "np.log(p)"),
    ],
)
def test_quoting(text: str, columns: list[str], quoted: str) -> None:
    """Backticks go around whole column names only, never around parts or calls."""
    assert quote_columns(text, columns) == quoted


@pytest.mark.parametrize("spelling", ["NA.std", "`NA.std`"])
def test_na_std_with_and_without_backticks(data: pd.DataFrame, spelling: str) -> None:
    """In fixed and random parts, functions, and as treatment; tables show the plain name."""
    renamed = data.rename(columns={"x": "NA.std"})
    q = spelling
    fit = mlmed.mediate(f"m ~ {q} + (1 + {q} | id)", f"y ~ m + {q} + (1 + m + {q} | id)", renamed)
    same_fit(fit, mlmed.mediate(MEDIATOR, OUTCOME, data))
    assert "m~NA.std" in fit.params.index
    assert fit.treatment == "NA.std"
    same_fit(mlmed.mixed(f"m ~ np.exp({q}) + (1 | id)", renamed), mlmed.mixed("m ~ np.exp(x) + (1 | id)", data))
    same_fit(mlmed.mixed(f"y ~ I({q}**2):m + (1 | id)", renamed), mlmed.mixed("y ~ I(x**2):m + (1 | id)", data))


@pytest.mark.parametrize("spelling", ["NA.std", "`NA.std`"])
def test_na_std_as_response_cluster_and_treatment_argument(data: pd.DataFrame, spelling: str) -> None:
    """The same freedom in every role."""
    reference = mlmed.mixed("m ~ x + (1 | id)", data)
    same_fit(mlmed.mixed(f"{spelling} ~ x + (1 | id)", data.rename(columns={"m": "NA.std"})), reference)
    same_fit(mlmed.mixed(f"m ~ x + (1 | {spelling})", data.rename(columns={"id": "NA.std"})), reference)
    renamed = data.rename(columns={"x": "NA.std"})
    fit = mlmed.mediate(f"m ~ {spelling} + w + (1 | id)", f"y ~ m + {spelling} + (1 | id)", renamed, treatment=spelling)
    assert fit.treatment == "NA.std"


ODD_NAMES = [
    "my x", "x-1", "größe", "1x", "a:b", "a*b", "a+b", "a/b", "a|b", "a~b", "x (cm)", "a(b", "x'", "{x}", "x.1",
    " x", "class", "lambda", "True", "None", "I", "C", "np", "log", "center", "0",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("role", ["predictor", "response", "cluster"])
def test_any_column_name_works_in_backticks(data: pd.DataFrame, name: str, role: str) -> None:
    """Backticks protect every character but the backtick, in every role."""
    x, m, group = (
        f"`{name}`" if role == r else p for r, p in zip(["predictor", "response", "cluster"], "xmi", strict=True)
    )
    group = "id" if group == "i" else group
    column = {"predictor": "x", "response": "m", "cluster": "id"}[role]
    fit = mlmed.mixed(f"{m} ~ {x} + (1 + {x} | {group})", data.rename(columns={column: name}))
    same_fit(fit, mlmed.mixed(MEDIATOR, data))


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_column_name_works_as_treatment_and_mediator(data: pd.DataFrame, name: str) -> None:
    """Effects find the path of an oddly named treatment or mediator."""
    reference = effect(mlmed.mediate(MEDIATOR, OUTCOME, data))
    q = f"`{name}`"
    treated = mlmed.mediate(
        f"m ~ {q} + (1 + {q} | id)", f"y ~ m + {q} + (1 + m + {q} | id)", data.rename(columns={"x": name})
    )
    mediated = mlmed.mediate(
        f"{q} ~ x + (1 + x | id)", f"y ~ {q} + x + (1 + {q} + x | id)", data.rename(columns={"m": name})
    )
    np.testing.assert_allclose(effect(treated), reference, rtol=1e-5)
    np.testing.assert_allclose(effect(mediated), reference, rtol=1e-5)


@pytest.mark.parametrize("name", ["my x", "class", "None", "True", "a(b", "np"])
def test_odd_names_inside_functions(data: pd.DataFrame, name: str) -> None:
    """A quoted name inside a call is the column, or is refused with the advice to rename it."""
    renamed = data.rename(columns={"x": name})
    try:
        fit = mlmed.mixed(f"m ~ np.exp(`{name}`) + (1 | id)", renamed)
    except FormulaError as error:
        assert "rename" in str(error)  # noqa: PT017 - either outcome is right
    else:
        same_fit(fit, mlmed.mixed("m ~ np.exp(x) + (1 | id)", data))


@pytest.mark.parametrize(("name", "call"), [("np", "np.exp(x)"), ("I", "I(x**2)"), ("C", "C(g)"), ("log", "log(p)")])
def test_a_column_named_like_a_function_does_not_break_the_function(data: pd.DataFrame, name: str, call: str) -> None:
    """Column and function side by side are both understood, or the clash is named and a new name advised."""
    renamed = data.rename(columns={"w": name})
    try:
        fit = mlmed.mixed(f"m ~ {name} + {call} + (1 | id)", renamed)
    except FormulaError as error:
        assert "rename" in str(error)  # noqa: PT017 - either outcome is right
    else:
        same_fit(fit, mlmed.mixed(f"m ~ w + {call} + (1 | id)", data))
    same_fit(mlmed.mixed(f"m ~ {call} + (1 | id)", renamed), mlmed.mixed(f"m ~ {call} + (1 | id)", data))


def test_a_quoted_name_is_not_the_interaction_it_looks_like(data: pd.DataFrame) -> None:
    """The column `x:w` beside the interaction x:w is no duplicate, but has its label; alone it is itself."""
    odd = data.rename(columns={"L2": "x:w"})
    assert len(list(formula_of(parse_equation("m ~ `x:w` + x:w + (1 | id)").fixed))) == 3
    with pytest.raises(DataError, match="column `x:w` and the interaction x:w would both be called x:w"):
        mlmed.mixed("m ~ `x:w` + x:w + (1 | id)", odd)
    same_fit(mlmed.mixed("m ~ `x:w` + x + w + (1 | id)", odd), mlmed.mixed("m ~ L2 + x + w + (1 | id)", data))


def test_a_column_called_intercept_is_not_the_constant(data: pd.DataFrame) -> None:
    """``0 + Intercept`` has the slope of the column, not a column of ones in its place."""
    renamed = data.rename(columns={"x": "Intercept"})
    try:
        fit = mlmed.mixed("m ~ 0 + Intercept + (1 | id)", renamed)
    except FormulaError as error:
        assert "Intercept" in str(error)  # noqa: PT017 - either outcome is right
    else:
        same_fit(fit, mlmed.mixed("m ~ 0 + x + (1 | id)", data))


@pytest.mark.parametrize("quote", ["Q('{}')", 'Q("{}")', "Q( '{}' )"])
@pytest.mark.parametrize("name", ["my x", "NA.std", "x", "class", "a(b", "Q", "x + w", "µg"])
def test_the_quotes_of_patsy(data: pd.DataFrame, name: str, quote: str) -> None:
    """``Q('my x')`` is the column, in every place a column can stand."""
    renamed, q = data.drop(columns="w").rename(columns={"x": name}), quote.format(name)
    reference = mlmed.mixed("m ~ x + I(x**2) + (1 + x | id)", data)
    fit = mlmed.mixed(f"m ~ {q} + I({q}**2) + (1 + {q} | id)", renamed)
    same_fit(fit, reference)
    assert fit.params.index[1] == name
    treated = mlmed.mediate(f"m ~ {q} + (1 | id)", f"y ~ m + {q} + (1 | id)", renamed, treatment=q)
    assert treated.treatment == name


def test_the_quotes_of_patsy_in_other_roles(data: pd.DataFrame) -> None:
    """Response and cluster; a quoted name that only looks like them is left alone."""
    reference = mlmed.mixed("m ~ x + (1 | id)", data)
    same_fit(mlmed.mixed("Q('a b') ~ x + (1 | id)", data.rename(columns={"m": "a b"})), reference)
    same_fit(mlmed.mixed("m ~ x + (1 | Q('a b'))", data.rename(columns={"id": "a b"})), reference)
    same_fit(mlmed.mixed("m ~ `Q('x')` + (1 | id)", data.rename(columns={"x": "Q('x')"})), reference)


#: Names that Python reads as others: the micro sign (as the letter mu), a ligature, decomposed and raised letters.
NORMALIZED = ["µg", "ﬁt", "gro\u0308sse", "xª", "Å", "Ｘ"]


@pytest.mark.parametrize("name", NORMALIZED)
@pytest.mark.parametrize("spelling", ["{}", "`{}`", "np.exp({})", "np.exp(`{}`)", "I({}**2):y"])
@pytest.mark.parametrize("engine", ["pandas", "polars"])
def test_names_that_python_normalizes(data: pd.DataFrame, name: str, spelling: str, engine: str) -> None:
    """The column is found as it is written, alone and in calls, and shown so."""
    renamed = data.rename(columns={"x": name})
    fit = mlmed.mixed(
        f"m ~ {spelling.format(name)} + (1 | id)", renamed if engine == "pandas" else pl.from_pandas(renamed).lazy()
    )
    same_fit(fit, mlmed.mixed(f"m ~ {spelling.format('x')} + (1 | id)", data))
    assert name in fit.params.index[1]


@pytest.mark.parametrize(
    ("column", "asked", "said"),
    [
        ("µg", "μg", "'µg' is, which looks alike but is written with MICRO SIGN"),
        ("dose", "Dose", "did you mean dose. Upper and lower case count"),
        ("DOSE", "dose", "did you mean DOSE. Upper and lower case count"),
        ("X", "x", "did you mean X. Upper and lower case count"),
        ("dose", "doze", "did you mean dose"),
        ("dose ", "dose", r"`dose ` \(with a blank at its end\) is; write `dose `, or rename it"),
        (" doze", "dose", r"did you mean ` doze` \(with a blank at its start\)"),
        ("Dose ", "dose", r"did you mean `Dose ` \(with a blank at its end\). Upper and lower case count"),
    ],
)
@pytest.mark.parametrize("formula", ["m ~ {} + (1 | id)", "m ~ np.exp({}) + (1 | id)"])
@pytest.mark.parametrize("engine", ["pandas", "polars"])
def test_a_name_that_is_nearly_there(
    data: pd.DataFrame, column: str, asked: str, said: str, formula: str, engine: str
) -> None:
    """The column that was meant is named, with what is different."""
    renamed = data[["id", "m", "x"]].rename(columns={"x": column})
    with pytest.raises(DataError, match=f"column '{asked}' is not in the data; {said}"):
        mlmed.mixed(formula.format(asked), renamed if engine == "pandas" else pl.from_pandas(renamed).lazy())


@pytest.mark.parametrize("name", ["x ", " x"])
def test_names_with_a_blank_at_an_end(data: pd.DataFrame, name: str) -> None:
    """What the hint says works, in every engine."""
    renamed = data.rename(columns={"x": name})
    for made in (renamed, pl.from_pandas(renamed).lazy(), duckdb.from_df(renamed)):
        same_fit(mlmed.mixed(f"m ~ `{name}` + (1 | id)", made), mlmed.mixed("m ~ x + (1 | id)", data))


DOLLARS = ["$1_$2", "$x", "x$", "^x$", "$x$", "a$b"]


@pytest.mark.parametrize("name", DOLLARS)
def test_names_with_a_dollar(data: pd.DataFrame, name: str) -> None:
    """In backticks they are columns, in every engine (Polars reads ``^x$`` as a pattern); bare ones are explained."""
    renamed = data.rename(columns={"x": name})
    for made in (renamed, pl.from_pandas(renamed), pl.from_pandas(renamed).lazy(), duckdb.from_df(renamed)):
        for text in ("`{}`", "I(`{}`**2)"):
            same_fit(
                mlmed.mixed(f"m ~ {text.format(name)} + (1 | id)", made),
                mlmed.mixed(f"m ~ {text.format('x')} + (1 | id)", data),
            )
    for text in ("{}", "I({}**2)", "np.exp({})"):
        with pytest.raises(FormulaError, match=re.escape(f"the column {name!r} is written `{name}`, in backticks")):
            mlmed.mixed(f"m ~ {text.format(name)} + (1 | id)", renamed)


def test_columns_without_letters_are_no_hint(data: pd.DataFrame) -> None:
    """A 0 in a formula that cannot be read is not the column ``0``."""
    with pytest.raises(FormulaError, match="Missing operator") as caught:
        mlmed.mixed("m ~ 0 + x w + (1 | id)", data.assign(**{"0": 1.0, " ": 1.0}))
    assert "backticks" not in str(caught.value)


@pytest.mark.parametrize("engine", ["eager", "lazy"])
def test_a_column_called_as_all_columns(data: pd.DataFrame, engine: str) -> None:
    """Polars reads ``*`` as every column."""
    made = pl.from_pandas(data[["id", "m", "x"]].rename(columns={"x": "*"}))
    fit = mlmed.mixed("m ~ `*` + (1 | id)", made if engine == "eager" else made.lazy())
    same_fit(fit, mlmed.mixed("m ~ x + (1 | id)", data))


def test_names_with_a_dollar_in_other_modes(data: pd.DataFrame) -> None:
    """Treatment, mediator, parameter names, documents."""
    renamed = data.rename(columns={"x": "$1_$2", "m": "^m$"})
    fit = mlmed.mediate("`^m$` ~ `$1_$2` + (1 | id)", "y ~ `^m$` + `$1_$2` + (1 | id)", renamed)
    reference = mlmed.mediate("m ~ x + (1 | id)", "y ~ m + x + (1 | id)", data)
    np.testing.assert_allclose(effect(fit), effect(reference), rtol=1e-6, atol=1e-9)
    assert "$1_$2" in fit.summary()
    ratio = fit.nlcom({"r": "`y~$1_$2` / `^m$~$1_$2`"})["estimate"][0]
    assert ratio == pytest.approx(reference.nlcom({"r": "`y~x` / `m~x`"})["estimate"][0], rel=1e-6)
    separate = mlmed.piecewise("`^m$` ~ `$1_$2` + (1 | id)", "y ~ `^m$` + `$1_$2` + (1 | id)", renamed)
    np.testing.assert_allclose(
        effect(separate), effect(mlmed.piecewise("m ~ x + (1 | id)", "y ~ m + x + (1 | id)", data)), rtol=1e-6
    )


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("m + x", "one response, one '~'"),
        ("", "one response, one '~'"),
        ("~ x + (1 | id)", "one response"),
        ("m ~", "one response"),
        ("m ~ x ~ w + (1 | id)", "one '~'"),
        ("m ~ x + (1 | id", "1 opening and 0 closing"),
        ("m ~ x + 1 | id", "put the random term in parentheses"),
        ("m ~ x + (1 | g/h)", "more than one level of grouping.*one cluster variable.*g:h"),
        ("m ~ x + (1 | g + h)", "more than one level of grouping"),
        ("m ~ x + (1 | g * h)", "more than one level of grouping"),
        ("m ~ x + (| id)", re.escape("write (1 + x | id)")),
        ("m ~ x + (1 |)", re.escape("write (1 + x | id)")),
        ("m ~ x + (1 | i | j | id)", re.escape("(1 + x |i| id)")),
        ("m ~ x + (1 || i || id)", re.escape("(1 + x || id)")),
        ("m ~ x + (1 | i || id)", re.escape("(1 + x || id)")),
        ("m ~ x - (1 | id)", "can be added with '\\+', not '-'"),
        ("m ~ x * (1 | id)", "can be added with '\\+', not '\\*'"),
        ("m ~ x w + (1 | id)", "Missing operator between `x` and `w`"),
        ("m ~ 2*x + (1 | id)", "a number beside a term.*inside I"),
        ("m ~ 'x' + (1 | id)", "String literals"),
        ("m ~ x:(x ^ w) + (1 | id)", "must be a positive integer"),
        ("m ~ x + x + (1 | id)", "has the term x twice"),
        ("m ~ x + `x` + (1 | id)", "has the term x twice"),
        ("m ~ . + (1 | id)", "'.' would stand for every other column.*write the names of the predictors"),
        ("m ~ x + (. | id)", "'.' would stand for every other column.*write the names of the predictors"),
        ("m ~ x*. + (1 | id)", "'.' would stand for every other column.*write the names of the predictors"),
        ("m ~ lag(x) + (1 | id)", r"cannot use 'lag\(x\)'.*from one cluster into the next.*groupby.*shift"),
        ("m ~ I(x - lag(x, 2)) + (1 | id)", "from one cluster into the next.*groupby.*shift"),
        ("m ~ Q(x) + (1 | id)", r"cannot use 'Q\(x\)'.*between quotes, Q\('my x'\), or in backticks"),
        ("m ~ float(x) + (1 | id)", r"cannot use 'float\(x\)'.*write the column without float"),
        ("m ~ int(x) + (1 | id)", r"cannot use 'int\(x\)'.*write np.trunc"),
        ("m ~ C(g, Treatment) + (1 | id)", r"codes by treatment without being told.*write Treatment\('level'\)"),
        ("m ~ C(g, sum) + (1 | id)", "sum is no coding of a factor; write one of Diff, Helmert, Poly, Sum, or contr"),
        ("m ~ C(g, 'sum') + (1 | id)", "'sum' is no coding of a factor; write one of"),
        ("m ~ C(g, contr.sas) + (1 | id)", "contr.sas is no coding of a factor; write one of.*contr.SAS"),
        ("m ~ C(g, x.sum) + (1 | id)", "x.sum is no coding of a factor"),
        ("m ~ 1 + x + 1 + (1 | id)", "has the term 1 twice"),
        ("m ~ x + (1 + x + x | id)", "has the term x twice"),
        ("m ~ m + (1 | id)", "response m on its own right-hand side; remove"),
        ("m ~ np.exp(m) + (1 | id)", "response m on its own right-hand side; remove"),
        ("np.log(m) ~ x:m + (1 | id)", "response m on its own right-hand side; remove"),
        ("m ~ x + (1 + m | id)", "response m on its own right-hand side; remove"),
    ],
)
def test_refused(text: str, match: str) -> None:
    """What was found and how to write it."""
    with pytest.raises(FormulaError, match=match):
        parse_equation(text, ["m", "x", "w", "id", "g", "h"])


@pytest.mark.parametrize("text", [None, 3, b"m ~ x + (1 | id)", ["m ~ x"]])
def test_a_formula_is_text(text: object) -> None:
    """Anything else is refused by its type."""
    with pytest.raises(FormulaError, match=f"must be text.*found {type(text).__name__}"):
        parse_equation(text)  # type: ignore[arg-type]


@pytest.mark.parametrize("left", ["m - y", "m + y", "m * y", "m / y", "-m", "0"])
def test_arithmetic_on_the_left_is_not_read_as_a_sum_of_terms(data: pd.DataFrame, left: str) -> None:
    """``m - y ~ x`` must not silently model m alone: R computes the difference, so refuse and advise I(m - y)."""
    with pytest.raises(FormulaError, match="response"):
        mlmed.mixed(f"{left} ~ x + (1 | id)", data)


def test_arithmetic_inside_i_is_the_difference(data: pd.DataFrame) -> None:
    """The spelling that the refusal advises."""
    same_fit(
        mlmed.mixed("I(m - y) ~ x + (1 | id)", data),
        mlmed.mixed("d ~ x + (1 | id)", data.assign(d=data["m"] - data["y"])),
    )


@pytest.mark.parametrize("left", ["C(k)", "g", "poly(m, 2)"])
def test_a_response_of_several_columns_is_refused(data: pd.DataFrame, left: str) -> None:
    """A factor or a basis has no single column that could be modelled."""
    with pytest.raises(mlmed.errors.MlmedError, match="response"):
        mlmed.mixed(f"{left} ~ x + (1 | id)", data)


@pytest.mark.parametrize(
    "text",
    [
        "m ~ x (1 | id)",
        "m ~ (1 | id) x",
        "m ~ x + (1 | id) (0 + x | id)",
        "m ~ x+(1 | id)w",
        "m ~ ((1 | id)) + x",
        "m ~ (x + (1 | id))",
        "m ~ x:(1 | id)",
        "m ~ (1 | id):x",
        "m ~ x + {1 | id}",
        "m ~ x + (1 | id:)",
    ],
)
def test_random_terms_are_joined_by_plus(text: str) -> None:
    """A forgotten or wrong operator at a random term is a mistake, not another model."""
    made = mlmed.simulate.bpg(40, 8, seed=3).data
    with pytest.raises(FormulaError, match=r"cannot read|random term|parenthes"):
        mlmed.mixed(text, made.assign(w=made["y"], xw=made["y"]))


@pytest.mark.parametrize(
    "fixed", ["x + (x)", "x:w + w:x", "I(x**2) + I(x ** 2)", "np.exp(x) + np.exp( x )", "C(g) + C( g )"]
)
def test_duplicate_terms_in_another_spelling(data: pd.DataFrame, fixed: str) -> None:
    """Formulaic drops repetitions silently; spaces and parentheses do not make another term."""
    with pytest.raises(FormulaError, match="twice"):
        mlmed.mixed(f"m ~ {fixed} + (1 | id)", data)


SQUARES = [
    ("x**2", "x", "I(x**2)"),
    ("x^2", "x", "I(x**2)"),
    ("x**3", "x", "I(x**3)"),
    ("x + x**2", "x", "I(x**2)"),
    ("x*x", "x", "I(x**2)"),
    ("x:x", "x", "I(x**2)"),
    ("x/x", "x", "I(x**2)"),
    ("w + x:w:x", "x", "I(x**2)"),
    ("(1 + x)**2", "x", "I(x**2)"),
    ("(x:w)**2", "x:w", "I((x*w)**2)"),
    ("(x:w):(x:w)", "x:w", "I((x*w)**2)"),
    ("(x + w)*(x + g)", "x", "I(x**2)"),
    ("w*(x + x:x)", "x", "I(x**2)"),
    ("np.exp(x):np.exp( x )", "np.exp(x)", "I(np.exp(x)**2)"),
    ("`my x`**2", "my x", "I(`my x`**2)"),
    ("center(x)*center(x)", "center(x)", "I(center(x)**2)"),
]


@pytest.mark.parametrize(("term", "factor", "instead"), SQUARES)
@pytest.mark.parametrize("formula", ["m ~ {} + (1 | id)", "m ~ 1 + (1 + {} | id)", "m ~ {} + (1 |c| id)"])
def test_a_factor_times_itself_is_refused(
    data: pd.DataFrame, formula: str, term: str, factor: str, instead: str
) -> None:
    """Formulaic reads it as the factor alone; a square is written I(x**2), and then it is one."""
    with pytest.raises(FormulaError, match=re.escape(f"multiplies {factor} by itself")) as caught:
        mlmed.mixed(formula.format(term), data.assign(**{"my x": data["w"]}))
    assert f"write {instead} for the power" in str(caught.value)


@pytest.mark.parametrize("mode", ["mediate", "piecewise", "causal", "location", "scale", "grams"])
def test_a_factor_times_itself_is_refused_in_every_mode(data: pd.DataFrame, mode: str) -> None:
    """All read formulas in one place."""
    ask = {
        "mediate": lambda: mlmed.mediate("m ~ x + x**2 + (1 | id)", OUTCOME, data),
        "piecewise": lambda: mlmed.piecewise(MEDIATOR, "y ~ m + x*x + (1 | id)", data),
        "causal": lambda: mlmed.causal("m ~ x", "y ~ m + x + x^2", data),
        "location": lambda: mlmed.location_scale("y ~ x:x + (1 | id)", "~ 1", data),
        "scale": lambda: mlmed.location_scale("y ~ x + (1 | id)", "~ x**2", data),
        "grams": lambda: mlmed.grams("m ~ x**2 + (1 | id)", data),
    }
    with pytest.raises(FormulaError, match=r"multiplies x by itself.*write I\(x\*\*2\)"):
        ask[mode]()


@pytest.mark.parametrize(
    ("fixed", "by_hand"),
    [
        ("(x + w)**2", "x + w + x:w"),
        ("(x + w + g)^2", "x + w + g + x:w + x:g + w:g"),
        ("(x*w)**2", "x*w"),
        ("x**1 + w", "x + w"),
        ("x*I(x**2)", "x + I(x**2) + I(x**3)"),
        ("x + w %in% g", "x + g + w:g"),
    ],
)
def test_powers_of_sums_are_interactions(data: pd.DataFrame, fixed: str, by_hand: str) -> None:
    """As in R: a sum to a power has the interactions of its terms, and other products stay what they were."""
    same = (mlmed.mixed(f"m ~ {text} + (1 | id)", data) for text in (fixed, by_hand))
    assert next(same).llf == pytest.approx(next(same).llf, rel=INVARIANT)


@pytest.mark.parametrize("power", ["x**-1", "x**0", "(x + w)**1.5", "(x + w)**w"])
def test_other_powers_are_no_bare_error(data: pd.DataFrame, power: str) -> None:
    """Only whole numbers above 0 are powers of a formula."""
    with pytest.raises(FormulaError, match="cannot read"):
        mlmed.mixed(f"m ~ {power} + (1 | id)", data)


@pytest.mark.parametrize(
    "random", ["(1 | id) + (1 | id)", "(1 + x | id) + (0 + x | id)", "(1 |i| id) + (1 + x |j| id)"]
)
def test_one_random_effect_in_two_terms(data: pd.DataFrame, random: str) -> None:
    """Their variances cannot be told apart."""
    with pytest.raises(FormulaError, match="in two terms; their variances cannot be told apart"):
        mlmed.mixed(f"m ~ x + {random}", data)


# -- the same model in other words ---------------------------------------------------------------------------


def is_b(d: pd.DataFrame) -> pd.Series:
    """Indicator of the second level of g."""
    return 1.0 * (d["g"] == "b")


def is_c(d: pd.DataFrame) -> pd.Series:
    """Indicator of the third level of g."""
    return 1.0 * (d["g"] == "c")


def is_tx(d: pd.DataFrame) -> pd.Series:
    """Indicator of the second arm."""
    return 1.0 * (d["arm"] == "tx")


@pytest.mark.parametrize(
    ("text", "by_hand", "columns"),
    [
        ("m ~ I(x**2) + x + (1 + I(x**2) | id)", "m ~ z + x + (1 + z | id)", {"z": lambda d: d.x**2}),
        ("m ~ np.log(p) + (1 + np.log(p) | id)", "m ~ z + (1 + z | id)", {"z": lambda d: np.log(d.p)}),
        ("m ~ log(p) + (1 | id)", "m ~ z + (1 | id)", {"z": lambda d: np.log(d.p)}),
        ("m ~ x*w + (1 + x | id)", "m ~ x + w + z + (1 + x | id)", {"z": lambda d: d.x * d.w}),
        ("m ~ x + (0 + x:w | id)", "m ~ x + (0 + z | id)", {"z": lambda d: d.x * d.w}),
        ("m ~ g + (1 | id)", "m ~ u + v + (1 | id)", {"u": is_b, "v": is_c}),
        ("m ~ C(k) + (1 | id)", "m ~ z + (1 | id)", {"z": lambda d: 1.0 * (d.k == 2)}),
        ("m ~ x*arm + (1 | id)", "m ~ x + z + v + (1 | id)", {"z": is_tx, "v": lambda d: d.x * is_tx(d)}),
        ("m ~ up + (1 + up | id)", "m ~ z + (1 + z | id)", {"z": lambda d: 1.0 * d.up}),
        ("m ~ x + arm + (0 + arm | id)", "m ~ x + z + (0 + v + z | id)", {"z": is_tx, "v": lambda d: 1.0 - is_tx(d)}),
        ("m ~ center(x) + (1 + center(x) | id)", "m ~ z + (1 + z | id)", {"z": lambda d: d.x - d.x.mean()}),
        ("m ~ L2*x + (1 + x | id)", "m ~ L2 + x + z + (1 + x | id)", {"z": lambda d: d.x * d.L2}),
    ],
)  # fmt: skip
def test_transformations_equal_hand_made_columns(data: pd.DataFrame, text: str, by_hand: str, columns: dict) -> None:
    """Factors, interactions, I(), np.log and centring in fixed and random parts."""
    made = data.assign(**{name: make(data) for name, make in columns.items()})
    left, right = mlmed.mixed(text, data), mlmed.mixed(by_hand, made)
    assert left.llf == pytest.approx(right.llf, rel=INVARIANT)
    np.testing.assert_allclose(np.sort(left.params), np.sort(right.params), rtol=1e-5, atol=1e-7)


def contrast_columns(codes: pd.Series, rows: list[list[float]]) -> dict[str, np.ndarray]:
    """Columns of a contrast matrix, one row per level of a, b, c."""
    place = codes.map({"a": 0, "b": 1, "c": 2}).to_numpy()
    return {f"c{k}": np.array(rows)[place, k] for k in range(2)}


@pytest.mark.parametrize(
    ("spellings", "rows"),
    [
        (("Sum", "contr.sum"), [[1, 0], [0, 1], [-1, -1]]),
        (("Helmert", "contr.helmert"), [[-1, -1], [1, -1], [0, 2]]),
        (("Diff", "contr.diff"), [[-2 / 3, -1 / 3], [1 / 3, -1 / 3], [1 / 3, 2 / 3]]),
        (("Poly", "contr.poly"), [[-(0.5**0.5), 6**-0.5], [0, -2 * 6**-0.5], [0.5**0.5, 6**-0.5]]),
        (("Treatment('b')", "contr.treatment('b')", "Treatment(reference='b')"), [[1, 0], [0, 0], [0, 1]]),
    ],
)
def test_codings_of_factors_are_those_of_patsy_and_r(data: pd.DataFrame, spellings: tuple, rows: list) -> None:
    """Each spelling of a coding against the columns of its matrix, also where a column is called like it."""
    made = data.assign(**contrast_columns(data["g"], rows))
    expected = mlmed.mixed("m ~ x + c0 + c1 + (1 | id)", made)
    for coding in spellings:
        for table in (data, data.assign(contr=data["w"], Treatment=data["w"])):
            fit = mlmed.mixed(f"m ~ x + C(g, {coding}) + (1 | id)", table)
            same_fit(fit, expected)
            np.testing.assert_allclose(fit.predict(table), expected.predict(made), rtol=1e-6, atol=1e-8)
    by_hand = mlmed.mixed(f"m ~ x + C(g, np.array({rows})) + (1 | id)", data)
    same_fit(by_hand, expected)


@pytest.mark.parametrize("coding", ["[1, 2]", "np.eye(2)", "Treatment('z')", "contr.poly(scores=[1])"])
def test_codings_that_do_not_fit_the_levels(data: pd.DataFrame, coding: str) -> None:
    """The levels are said in place of what formulaic and numpy raise inside."""
    with pytest.raises(
        FormulaError, match=r"C\(g.*(no coding of the 3 levels of g \('a', 'b', 'c'|levels are 'a', 'b', 'c')"
    ):
        mlmed.mixed(f"m ~ C(g, {coding}) + (1 | id)", data)


def test_a_column_called_like_a_coding_is_not_taken_for_it(data: pd.DataFrame) -> None:
    """It hides the coding, which has another spelling; as a predictor it is a column."""
    clash = data.assign(Sum=data["w"])
    with pytest.raises(FormulaError, match=r"Sum is no coding of a factor; write.*contr\.sum"):
        mlmed.mixed("m ~ C(g, Sum) + (1 | id)", clash)
    same_fit(mlmed.mixed("m ~ Sum + (1 | id)", clash), mlmed.mixed("m ~ w + (1 | id)", data))


def test_levels_of_integer_factors_are_labelled_as_integers(data: pd.DataFrame) -> None:
    """``C(k)[T.2]`` as in R and pandas, not ``C(k)[T.2.0]``."""
    assert list(mlmed.mixed("m ~ C(k) + (1 | id)", data).params.index) == ["Intercept", "C(k)[T.2]"]
    for coding, letter, level in (("Sum", "S", 1), ("Helmert", "H", 2), ("Diff", "D", 2)):
        fit = mlmed.mixed(f"m ~ C(k, {coding}) + (1 | id)", data)
        assert fit.params.index[1] == f"C(k, {coding})[{letter}.{level}]"


def test_labels_say_which_effects_covary(data: pd.DataFrame) -> None:
    """Equal labels join, different ones separate, a shared cluster without labels joins."""
    joined = mlmed.mediate(MEDIATOR, OUTCOME, data)
    same = mlmed.mediate("m ~ x + (1 + x |i| id)", "y ~ m + x + (1 + m + x |i| id)", data)
    apart = mlmed.mediate("m ~ x + (1 + x |i| id)", "y ~ m + x + (1 + m + x |j| id)", data)
    assert same.llf == pytest.approx(joined.llf, rel=SAME)
    assert np.all(apart.G.to_numpy()[:2, 2:] == 0.0)
    assert apart.llf < joined.llf
    parts = mlmed.mixed(MEDIATOR, data).llf + mlmed.mixed(OUTCOME, data).llf
    assert apart.llf == pytest.approx(parts, rel=INVARIANT)
    assert effect(apart)["cov_ab"] == 0.0


def test_the_order_of_grouping_columns_does_not_matter(data: pd.DataFrame) -> None:
    """``g:h`` and ``h:g`` are the same clusters, also in two equations."""
    fit = mlmed.mediate("m ~ x + (1 | id:arm)", "y ~ m + x + (1 | arm:id)", data)
    same_fit(fit, mlmed.mediate("m ~ x + (1 | id:arm)", "y ~ m + x + (1 | id:arm)", data))


# -- formulas that reach effects -----------------------------------------------------------------------------


def test_a_two_level_treatment(data: pd.DataFrame) -> None:
    """Text, boolean and 0/1 treatments of the same people have the same effects."""
    coded = data.assign(z=1.0 * data["up"])
    reference = effect(mlmed.mediate("m ~ z + (1 | id)", "y ~ m + z + (1 + m | id)", coded))
    text = mlmed.mediate("m ~ arm + (1 | id)", "y ~ m + arm + (1 + m | id)", data)
    np.testing.assert_allclose(effect(text), reference, rtol=1e-6, atol=1e-9)
    turned = mlmed.mediate("m ~ arm + (1 | id)", "y ~ m + arm + (1 + m | id)", data, contrast=("tx", "ctl"))
    np.testing.assert_allclose(effect(turned)[["a", "cprime"]], -reference[["a", "cprime"]], rtol=1e-6)


@pytest.mark.parametrize("contrast", [None, (False, True), (0, 1)])
def test_a_boolean_treatment(data: pd.DataFrame, contrast: tuple[object, object] | None) -> None:
    """A boolean column is 0/1, in the fit and in the effects."""
    coded = data.assign(z=1.0 * data["up"])
    reference = effect(mlmed.mediate("m ~ z + (1 | id)", "y ~ m + z + (1 + m | id)", coded))
    fit = mlmed.mediate("m ~ up + (1 | id)", "y ~ m + up + (1 + m | id)", data, contrast=contrast)
    np.testing.assert_allclose(effect(fit), reference, rtol=1e-6, atol=1e-9)
    assert "up" in fit.summary()


@pytest.mark.parametrize("contrast", [None, (1, 2)])
def test_a_numeric_treatment_made_a_factor(data: pd.DataFrame, contrast: tuple[int, int] | None) -> None:
    """``C(k)`` with two codes compares them, whatever the codes are, and without warnings of other packages."""
    fit = mlmed.mediate("m ~ C(k) + (1 | id)", "y ~ m + C(k) + (1 + m | id)", data, contrast=contrast)
    coded = data.assign(z=data["k"] - 1.0)
    reference = effect(mlmed.mediate("m ~ z + (1 | id)", "y ~ m + z + (1 + m | id)", coded))
    np.testing.assert_allclose(effect(fit), reference, rtol=1e-6, atol=1e-9)


def test_boolean_moderators_and_covariates(data: pd.DataFrame) -> None:
    """``at`` takes True and False, and a boolean covariate does not disturb a contrast."""
    fit = mlmed.mediate("m ~ w*up + (1 | id)", "y ~ m + w + up + (1 + m | id)", data, treatment="w")
    table = effect(fit, at={"up": True})
    assert table["a"] == pytest.approx(fit.params[["m~w", "m~w:up"]].sum(), rel=SAME)
    assert effect(fit, at={"up": False})["a"] == pytest.approx(fit.params["m~w"], rel=SAME)
    compared = mlmed.mediate("m ~ w + up + (1 | id)", "y ~ m + w + up + (1 | id)", data, treatment="w", contrast=(0, 2))
    assert effect(compared)["a"] == pytest.approx(2.0 * compared.params["m~w"], rel=SAME)


def test_moderators_of_every_path(data: pd.DataFrame) -> None:
    """Slopes at chosen values of a level-1, a level-2 and a factor moderator."""
    fit = mlmed.mediate("m ~ x*L2 + (1 + x | id)", "y ~ m*g + x*w + (1 + m + x | id)", data, treatment="x")
    table = effect(fit, at={"L2": 2.0, "g": "b", "w": -1.0})
    assert table["a"] == pytest.approx(fit.params["m~x"] + 2.0 * fit.params["m~x:L2"], rel=SAME)
    assert table["b"] == pytest.approx(fit.params["y~m"] + fit.params["y~m:g[T.b]"], rel=SAME)
    assert table["cprime"] == pytest.approx(fit.params["y~x"] - fit.params["y~x:w"], rel=SAME)
    default = fit.effects().set_index("term")
    mean = data["L2"].mean()
    assert default.loc["a", "estimate"] == pytest.approx(fit.params["m~x"] + mean * fit.params["m~x:L2"], rel=SAME)
    assert "L2" in default.loc["a", "note"]


@pytest.mark.parametrize(
    ("at", "match"),
    [
        ({"nope": 1}, "nope"),
        ({"g": "z"}, "g has no level 'z'; its levels are a, b, c"),
        ({"w": "a"}, "w.*number"),
        ({"w": [0, 1]}, "w.*number"),
        ({"w": np.nan}, "w.*(nan|missing)"),
        ({"x": 1.0}, "x.*treatment|treatment.*x"),
    ],
)
def test_values_of_moderators_are_checked(data: pd.DataFrame, at: dict[str, object], match: str) -> None:
    """Each is refused by name; none is silently ignored."""
    fit = mlmed.mediate("m ~ x*w + x*g + (1 + x | id)", "y ~ m + x + g + w + (1 + m + x | id)", data, treatment="x")
    with pytest.raises(EffectError, match=match):
        fit.effects(at=at)


@pytest.mark.parametrize(
    "contrast", [(1,), (0, 1, 2), 1, "ab", ("a", "b"), (0, np.nan), (0, np.inf), (None, 1), (1, 1)]
)
def test_contrasts_are_checked(data: pd.DataFrame, contrast: object) -> None:
    """A contrast is two different values that the treatment can have."""
    with pytest.raises((EffectError, FormulaError), match="contrast"):
        mlmed.mediate(MEDIATOR, OUTCOME, data, contrast=contrast).effects()  # type: ignore[arg-type]


def test_an_unknown_level_of_a_numeric_factor(data: pd.DataFrame) -> None:
    """It has no column, which must not pass for an effect of zero."""
    fit = mlmed.mediate("m ~ C(k) + (1 | id)", "y ~ m + C(k) + (1 | id)", data, contrast=(1, 7))
    with pytest.raises(EffectError, match="7"):
        fit.effects()


def test_a_transformed_mediator(data: pd.DataFrame) -> None:
    """``np.log(e)`` is m / 3, so a shrinks and b grows by 3."""
    fit = mlmed.mediate("np.log(e) ~ x + (1 + x | id)", "y ~ np.log(e) + x + (1 + np.log(e) + x | id)", data)
    reference = effect(mlmed.mediate(MEDIATOR, OUTCOME, data))
    table = effect(fit)
    assert table["a"] == pytest.approx(reference["a"] / 3.0, rel=1e-5)
    assert table["b"] == pytest.approx(reference["b"] * 3.0, rel=1e-5)
    assert table["indirect"] == pytest.approx(reference["indirect"], rel=1e-5)


def test_a_transformed_mediator_with_other_spaces(data: pd.DataFrame) -> None:
    """``np.log( e )`` and ``np.log(e)`` are one column, so b is not zero."""
    fit = mlmed.mediate("np.log( e ) ~ x + (1 + x | id)", "y ~ np.log(e) + x + (1 + np.log(e) + x | id)", data)
    assert effect(fit)["indirect"] == pytest.approx(
        effect(mlmed.mediate(MEDIATOR, OUTCOME, data))["indirect"], rel=1e-5
    )


@pytest.mark.parametrize(
    "outcome", ["y ~ e + x + (1 | id)", "y ~ I(e**2) + x + (1 | id)", "y ~ np.log(e) + e + x + (1 | id)"]
)
def test_another_transformation_of_the_mediator_is_not_a_path_of_zero(data: pd.DataFrame, outcome: str) -> None:
    """b is the slope on np.log(e): if y depends on e in another form, there is no a*b, and 0 is wrong."""
    with pytest.raises((EffectError, FormulaError), match=re.escape("np.log(e)")):
        mlmed.mediate("np.log(e) ~ x + (1 | id)", outcome, data).effects()


@pytest.mark.parametrize("term", ["np.log(e):x", "I(np.log(e)*x)", "e:x"])
def test_a_transformed_mediator_that_interacts_with_treatment_is_refused(data: pd.DataFrame, term: str) -> None:
    """As for a plain mediator: a*b + cov_ab is not the indirect effect."""
    with pytest.raises((EffectError, FormulaError), match=r"depends on x|np\.log"):
        mlmed.mediate("np.log(e) ~ x + (1 | id)", f"y ~ np.log(e) + x + {term} + (1 | id)", data).effects()


def test_a_transformed_mediator_that_is_moderated(data: pd.DataFrame) -> None:
    """Refused with the advice to make a column, and the column is then moderated as any other."""
    outcome = "y ~ np.log(e)*w + x + (1 + np.log(e) + x | id)"
    with pytest.raises(EffectError, match=r"np\.log\(e\):w.*make a column of np\.log\(e\)"):
        mlmed.mediate("np.log(e) ~ x + (1 + x | id)", outcome, data).effects()
    made = data.assign(le=np.log(data["e"]))
    fit = mlmed.mediate("le ~ x + (1 + x | id)", "y ~ le*w + x + (1 + le + x | id)", made)
    slope, change = fit.params["y~le"], fit.params["y~le:w"]
    assert effect(fit, at={"w": 2.0})["b"] == pytest.approx(slope + 2.0 * change, rel=1e-8)
    default = fit.effects().set_index("term").loc["b"]
    assert default["estimate"] == pytest.approx(slope + data["w"].mean() * change, rel=1e-8)
    assert "w" in default["note"]


@pytest.mark.parametrize("term", ["m:x", "I(m*x)", "m:up:x"])
def test_interaction_of_mediator_and_treatment_is_refused(data: pd.DataFrame, term: str) -> None:
    """Also when it hides in I()."""
    with pytest.raises(EffectError, match="depends on x"):
        mlmed.mediate(MEDIATOR, f"y ~ m + x + {term} + (1 | id)", data).effects()


def test_mediators_and_treatments_inside_functions_that_keep_a_state(data: pd.DataFrame) -> None:
    """``center`` shifts a column; paths do not change."""
    fit = mlmed.mediate("m ~ center(x) + (1 | id)", "y ~ center(m) + center(x) + (1 | id)", data)
    reference = mlmed.mediate("m ~ x + (1 | id)", "y ~ m + x + (1 | id)", data)
    np.testing.assert_allclose(effect(fit), effect(reference), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("treatment", ["zz", "m", "y", "id"])
def test_a_treatment_that_is_no_predictor_of_the_mediator(data: pd.DataFrame, treatment: str) -> None:
    """Named, with the predictors there are."""
    with pytest.raises(
        FormulaError, match=f"the treatment {treatment!r} is not in the mediator equation.*predictors are x"
    ):
        mlmed.mediate(MEDIATOR, OUTCOME, data, treatment=treatment)


def test_several_predictors_need_a_choice(data: pd.DataFrame) -> None:
    """The candidates are listed."""
    with pytest.raises(FormulaError, match=r"which variable is the treatment\?.*has w, x; say treatment="):
        mlmed.mediate("m ~ x + w + (1 | id)", OUTCOME, data)


@pytest.mark.parametrize(
    ("term", "said"),
    [
        ("x.astype(float)", "float is Python's and no column; columns of numbers are double precision already"),
        ("x.astype(dtype=int)", r"write np.trunc\(\)"),
        ("w.map(str)", r"write C\(\)"),
        ("w.map(len)", "len is Python's and no column"),
        ("x.map(abs)", r"write np.abs\(\)"),
        ("I(not x > 2)", "'not' is written as k != 2"),
        ("I(x > 1 and w > 1)", "'and' as"),
        ("I(~(x > 2))", r"'~' inside parentheses; if it is to mean 'not', write .* I\(k != 2\)"),
    ],
)
def test_what_is_python_and_no_column(data: pd.DataFrame, term: str, said: str) -> None:
    """In a formula of one mode, and where the treatment is looked for."""
    with pytest.raises(FormulaError, match=said):
        mlmed.mixed(f"m ~ {term} + (1 | id)", data)
    with pytest.raises(FormulaError, match=said):
        mlmed.mediate(f"m ~ {term} + (1 | id)", OUTCOME, data)


@pytest.mark.parametrize(
    ("term", "said"),
    [
        ("C(g)**2", "multiplies C(g) by itself (**), which formulas read as C(g) alone; a factor has no power"),
        ("C(g)*C(g)", "a factor has no power, so write each term once"),
        ("(C(g) + x)*(C(g) + w)", "multiplies C(g) by itself (*)"),
        ("(x + w):(x + w)", "multiplies x and w by themselves (:)"),
        (
            "(x + w)*(x + w)",
            "write I(x**2) and I(w**2) for the power of a number (a factor has none), or each term once",
        ),
    ],
)
def test_what_is_said_of_squares(data: pd.DataFrame, term: str, said: str) -> None:
    """What was written is named; a factor has no square."""
    with pytest.raises(FormulaError, match=re.escape(said)):
        mlmed.mixed(f"m ~ {term} + (1 | id)", data)


@pytest.mark.parametrize(
    "text", ["y ~ (x - x)/w + (1 | id)", "y ~ w + (x - x)/w + (1 | id)", "y ~ x + ((x - x)/w | id)"]
)
def test_nesting_in_nothing_is_refused(text):
    with pytest.raises(FormulaError, match="nothing is left before the /"):
        parse_equation(text).variables  # noqa: B018
