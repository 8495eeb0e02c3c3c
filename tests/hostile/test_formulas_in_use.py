"""The complement of the attacks: every formula of docs, examples, tests and reproductions is read as it was before.

``formulas.json`` is a lock: what this package read before the syntax was listed, one formula a line: text, response,
fixed part, random terms (formula, group, label, correlated), variables.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from formulaic.transforms import TRANSFORMS

import mlmed
from mlmed.allowed import CONSTANTS, FUNCTIONS, METHODS, NUMPY, OTHER_ROWS
from mlmed.errors import DataError, FormulaError
from mlmed.formula import parse_equation
from mlmed.limits import MAX_TERMS
from tests.formula_context import CONTEXT
from tests.tolerances import SAME

ROOT = Path(__file__).resolve().parents[2]
KNOWN = json.loads((Path(__file__).parent / "formulas.json").read_text(encoding="utf-8"))


def test_every_formula_in_use_is_read_as_before() -> None:
    """925 formulas, none refused, none read otherwise."""
    changed = []
    for text, *expected in KNOWN:
        found = parse_equation(text)
        random = [[term.formula, list(term.group), term.label, term.correlated] for term in found.random]
        if [found.response, found.fixed, random, sorted(found.variables)] != expected:
            changed.append(text)
    assert len(KNOWN) > 900
    assert not changed


def _rows() -> pd.DataFrame:
    made = mlmed.simulate.bpg(30, 6, seed=3).data
    rng = np.random.default_rng(0)
    return made.assign(p=np.exp(0.3 * rng.normal(size=len(made))), q=rng.uniform(-0.9, 0.9, len(made)))


#: What a listed function needs beside a column between -.9 and .9, and what is asked of it to be a predictor.
ARGUMENTS = {
    "clip": "(q, -.5, .5)", "where": "(q > 0, q, 2*q)", "isin": "(np.sign(q), [1])", "digitize": "(q, [-.5, 0, .5])",
    "round": "(q, 1)", "around": "(q, 1)", "quantile": "(q, .5)", "percentile": "(q, 50)",
}  # fmt: skip
POSITIVE = {"log", "log2", "log10", "sqrt", "power", "float_power"}
#: Functions whose value is one number, or the same in every row here: refused by what they make of the rows.
ONE_VALUE = {
    "mean",
    "median",
    "min",
    "max",
    "sum",
    "std",
    "var",
    "quantile",
    "percentile",
    "isfinite",
    "isinf",
    "isnan",
    "logical_not",
}


@pytest.mark.parametrize("name", sorted(NUMPY))
def test_every_listed_function_of_numpy_works(name: str) -> None:
    """As numpy computes it, in a fit and in predictions; none of them writes into the data."""
    data = _rows()
    argument = "I(p + 9)" if name == "arccosh" else "p" if name in POSITIVE else "q"
    second = {2: f"({argument}, p)"}.get(NUMPY[name].data, f"({argument})")
    call = f"np.{name}{ARGUMENTS.get(name, second)}"
    column = np.asarray(eval(call, {"np": np, "I": lambda x: x}, dict(data)), dtype=float)  # what numpy says
    kept = data.copy()
    if name in ONE_VALUE or np.ptp(column) == 0:
        with pytest.raises((FormulaError, DataError)):
            mlmed.mixed(f"y ~ {call} + (1 | id)", data)
    else:
        fit = mlmed.mixed(f"y ~ {call} + (1 | id)", data)
        expected = mlmed.mixed("y ~ made + (1 | id)", data.assign(made=column))
        assert fit.llf == pytest.approx(expected.llf, rel=SAME)
    assert data.equals(kept)


def test_the_lists_are_what_the_documentation_says() -> None:
    """docs/formulas.md names every function, method and constant, and no other of numpy's."""
    text = (ROOT / "docs/formulas.md").read_text(encoding="utf-8")
    for name in (*NUMPY, *CONSTANTS):
        assert f"`{name}`" in text, name
    for name in METHODS:
        assert f"`.{name}()`" in text, name
    for name in FUNCTIONS:
        assert f"`{name}(" in text, name
    assert not METHODS.keys() & OTHER_ROWS


def test_while_formulas_are_evaluated_np_is_not_a_module() -> None:
    """Were a check to fail, there would still be nothing behind np but the listed functions."""
    assert not hasattr(CONTEXT["np"], "f2py")
    assert not hasattr(CONTEXT["np"], "load")
    assert set(vars(CONTEXT["np"])) == {*NUMPY, *CONSTANTS, "array", "eye"}
    assert set(FUNCTIONS) - {"abs", "round"} <= set(TRANSFORMS)


def test_a_factor_of_many_levels_is_one_term() -> None:
    """The bound counts terms, not columns, the intercepts and those of random terms among them."""
    names = [f"v{k}" for k in range(MAX_TERMS)]
    assert len(parse_equation(f"y ~ {' + '.join(names[5:])} + C(g) + (1 | id)").predictors) == MAX_TERMS - 4
    with pytest.raises(FormulaError, match=rf"at most {MAX_TERMS} are allowed"):
        parse_equation(f"y ~ {' + '.join([*names, 'w'])} + (1 | id)")


@pytest.mark.parametrize(
    "text",
    ["y ~ x + (1 | id) + (0 | id)", "y ~ x + (0 + x | id) + (0 |c| id)", "y ~ x + (1 - 1 | id)", "y ~ x + (0 | id)"],
)
def test_a_random_term_without_effects(text: str) -> None:
    """Also beside one that has some; in every mode, as it is read."""
    data = _rows()
    for act in (
        lambda: mlmed.mixed(text, data),
        lambda: mlmed.mediate("m ~ x + (1 | id)", text.replace("x", "m + x", 1), data, treatment="x"),
        lambda: mlmed.piecewise("m ~ x + (1 | id)", text.replace("x", "m + x", 1), data, treatment="x"),
        lambda: mlmed.causal("m ~ x + (1 | id)", text.replace("x", "m + x", 1), data, treatment="x"),
        lambda: mlmed.location_scale(text, "~ 1", data),
        lambda: mlmed.location_scale("y ~ x + (1 | id)", text.removeprefix("y "), data),
    ):
        with pytest.raises(FormulaError, match=r"random term without effects; write at least \(1 \| id\)"):
            act()


@pytest.mark.parametrize("coding", ["0", "-1", "1 + 1", "True", "2.5"])
def test_a_number_is_no_coding(coding: str) -> None:
    """Refused as it is read, as a predictor and as a response."""
    for text in (f"y ~ C(m, {coding}) + (1 | id)", f"C(m, {coding}) ~ x + (1 | id)"):
        with pytest.raises(FormulaError, match="is no coding of a factor; write"):
            mlmed.mixed(text, _rows())


@pytest.mark.parametrize(
    "term", ["I(x*1j)", "np.emath.sqrt(x)", "I(x + (-1)**.5)", "I((-8)**(1/3)*x)", "np.sqrt(-1+0j)*x"]
)
def test_complex_terms(term: str) -> None:
    """No imaginary part is lost without a word."""
    with pytest.raises(FormulaError, match=r"complex number|cannot ask for|not among"):
        mlmed.mixed(f"y ~ m + {term} + (1 | id)", _rows())


@pytest.mark.parametrize("term", ["bs(k)", "zero", "I(k > 5)*x"])
def test_a_random_effect_of_zeros(term: str) -> None:
    """A spline of a two-valued number, an indicator that no row has: named, before a search that overflows."""
    data = _rows().assign(zero=0.0, k=1)
    data.loc[::2, "k"] = 2
    for random in (f"1 + {term}", f"0 + {term}"):
        with pytest.raises(DataError, match=r"the random effect .* is 0 in all rows of equation y"):
            mlmed.mixed(f"y ~ x + ({random} | id)", data)
