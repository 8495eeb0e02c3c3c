"""Terms put together at random, from what is allowed and what is not: an answer or a refusal, and nothing else."""

from __future__ import annotations

import ast
import os
import time
import warnings
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mlmed
from mlmed.errors import FormulaError, MlmedError
from mlmed.formula import formula_of, parse_equation
from mlmed.limits import MAX_NUMBER
from mlmed.names import encode_quoted
from tests.hostile.test_code_execution import watched

#: Seconds for one term, whatever it is; most take a hundredth.
LONG = 20.0

#: Random terms; the same ones each time, unless a number is asked for (make hostile).
LONGER = int(os.environ.get("MLMED_EXAMPLES", "0"))
EXAMPLES = LONGER or 400

NAMES = st.sampled_from(
    ["x", "w", "g", "k", "np", "I", "C", "contr", "center", "log", "abs", "open", "eval", "os", "__import__",
     "__class__", "`my x`", "Treatment", "Sum", "poly", "bs", "self", "df", "e", "True", "None", "inf"]
)  # fmt: skip
NUMBERS = st.sampled_from(
    ["0", "1", "2", "9", "-1", ".5", "1e9", "1e300", "9**9", "99999999999999999999", "1j", "1e-300"]
)
TEXTS = st.sampled_from(["'a'", "'b'", "''", "'os'", "'\"'", "'{x}'", "b'a'", "f'{x}'", "'a\\\\'", "'`'"])
LISTS = st.sampled_from(["[1, 2]", "['a']", "[]", "[[1, 0], [0, 1]]", "(1, 2)", "[x]", "{1: 2}", "[a for a in x]"])
ATOMS = NAMES | NUMBERS | TEXTS | LISTS
FUNCTIONS = st.sampled_from(
    ["I", "C", "center", "scale", "standardize", "poly", "bs", "cr", "cs", "cc", "hashed", "abs", "round", "log", "exp",
     "np.log", "np.exp", "np.abs", "np.where", "np.clip", "np.power", "np.isin", "np.round", "np.digitize", "np.sum",
     "np.load", "np.f2py.os.system", "np.maximum", "np.log.__class__", "np.add.reduce", "eval", "open", "getattr",
     "lag", "Q", "Treatment", "contr.sum", "contr.poly", "np.eye", "np.array", "exp10", "center.__wrapped__", "print"]
)  # fmt: skip
METHODS = st.sampled_from(
    ["abs", "clip", "isin", "between", "round", "mean", "rank", "to_csv", "apply", "__class__", "values", "shift", "eq",
     "quantile", "groupby", "eval", "astype", "T"]
)  # fmt: skip
WORDS = st.sampled_from(
    ["df", "degree", "levels", "contrasts", "knots", "data", "x", "out", "_state", "ddof", "q", "raw"]
)
OPERATORS = st.sampled_from(
    ["+", "-", "*", "/", "//", "%", "**", "&", "|", "^", "@", "<<", "==", "!=", "<", ">=", "in", "and"]
)


def _grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    calls = st.builds(lambda f, a: f"{f}({a})", FUNCTIONS, inner)
    several = st.builds(lambda f, a, b: f"{f}({a}, {b})", FUNCTIONS, inner, inner)
    named = st.builds(lambda f, a, word, b: f"{f}({a}, {word}={b})", FUNCTIONS, inner, WORDS, inner)
    methods = st.builds(lambda a, name, b: f"{a}.{name}({b})", NAMES, METHODS, inner | st.just(""))
    attributes = st.builds(lambda a, name: f"{a}.{name}", NAMES, METHODS)
    binary = st.builds(lambda a, o, b: f"({a} {o} {b})", inner, OPERATORS, inner)
    others = st.builds(
        lambda shape, a: shape.format(a), st.sampled_from(["-{}", "~{}", "{}[0]", "(lambda: {})()", "not {}"]), inner
    )
    return calls | several | named | methods | attributes | binary | others


SIGNS = st.sampled_from([":", "*", "/", " + ", " - ", "**", "^", " %in% "])
EXPRESSIONS = st.recursive(ATOMS, _grown, max_leaves=8)
TERMS = EXPRESSIONS | st.builds("I({})".format, EXPRESSIONS) | st.builds(
    lambda a, o, b: f"{a}{o}{b}", EXPRESSIONS, SIGNS, EXPRESSIONS
)  # fmt: skip


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    made = mlmed.simulate.bpg(12, 6, seed=3).data
    rng = np.random.default_rng(0)
    made["w"], made["k"], made["g"] = (
        rng.normal(size=len(made)),
        rng.choice([1, 2], len(made)),
        rng.choice(["a", "b"], len(made)),
    )
    made["my x"] = rng.normal(size=len(made))
    mlmed.mixed("m ~ x + I(w**2) + C(g) + (1 | id)", made)
    return made


@settings(max_examples=EXAMPLES, deadline=None, derandomize=not LONGER, suppress_health_check=list(HealthCheck))
@given(term=TERMS)
def test_a_random_term_is_answered_or_refused(data: pd.DataFrame, term: str) -> None:
    """No bare exception, no file, no process, nothing that takes long; data as they were."""
    kept, began = data.copy(), time.perf_counter()
    with warnings.catch_warnings(), watched(also="exec"):  # what passes is evaluated
        warnings.simplefilter("ignore")
        for text in (f"m ~ {term} + (1 | id)", f"m ~ x + (1 + {term} | id)", f"{term} ~ x + (1 | id)"):
            with suppress(MlmedError):
                mlmed.mixed(text, data)
    assert time.perf_counter() - began < LONG
    pd.testing.assert_frame_equal(data, kept)


#: What an accepted expression may have, written without a look at the code that checks it.
_PLAIN = (
    ast.Expression, ast.Name, ast.Load, ast.Constant, ast.BinOp, ast.UnaryOp, ast.USub, ast.UAdd, ast.Compare, ast.Call,
    ast.keyword, ast.List, ast.Tuple, ast.Attribute, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod,
    ast.Pow, ast.BitAnd, ast.BitOr, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
)  # fmt: skip
_CALLABLE = {
    "I", "C", "center", "scale", "standardize", "poly", "bs", "cr", "cs", "cc", "hashed", "abs", "round", "log", "log2",
    "log10", "exp", "exp2", "Treatment", "Sum", "Helmert", "Diff", "Poly", "contr.sum", "contr.poly", "np.log",
    "np.exp", "np.abs", "np.where", "np.clip", "np.power", "np.isin", "np.round", "np.digitize", "np.sum", "np.maximum",
    "np.array", "np.eye",
}  # fmt: skip
_OF_COLUMNS = {"abs", "clip", "isin", "between", "round", "mean", "rank", "eq", "quantile"}


@settings(max_examples=4 * EXAMPLES, deadline=None, derandomize=not LONGER, suppress_health_check=list(HealthCheck))
@given(term=TERMS)
def test_what_is_accepted_is_only_what_is_meant(term: str) -> None:
    """An independent list of nodes and names, of everything that reaches formulaic."""
    try:
        equation = parse_equation(f"m ~ {term} + (1 | id)", ["x", "w", "g", "k", "my x"])
    except FormulaError:
        return
    for factor in (factor for found in formula_of(encode_quoted(equation.fixed)) for factor in found.factors):
        if factor.eval_method.value != "python":
            continue
        tree = ast.parse(factor.expr, mode="eval")
        called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        for node in ast.walk(tree):
            assert isinstance(node, _PLAIN), (term, ast.dump(node))
            if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
                assert abs(node.value) <= MAX_NUMBER
            assert not isinstance(node, ast.Constant) or isinstance(node.value, int | float | str | None)
            if isinstance(node, ast.Attribute):
                text = ast.unparse(node)
                assert text in _CALLABLE or (any(node is f for f in called) and node.attr in _OF_COLUMNS), (term, text)
            if isinstance(node, ast.Name):
                assert not node.id.startswith("__"), term
        for function in called:
            assert isinstance(function, ast.Attribute) or ast.unparse(function) in _CALLABLE, term
