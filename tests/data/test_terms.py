"""Columns of formulas against formulaic's own evaluation of the same text, an independent one: names and numbers.

``Formula.get_model_matrix`` runs expressions as Python; mlmed takes its algebra of terms only (not public:
``_get_scoped_terms``, which these tests watch).
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from formulaic import Formula

import mlmed
from mlmed.data.encoding import encode, encode_columns
from mlmed.errors import DataError, MlmedError
from mlmed.formula import formula_variables
from mlmed.names import safe_name
from tests.formula_context import CONTEXT

ROWS = 240
#: Products are multiplied in another order.
SAME = 1e-14

TERMS = [
    "1", "0 + x", "x*m", "x*g", "g*h", "g:h", "0 + g", "0 + g:h", "x:g + x", "g + x:g", "x:m:g", "(x + m + g)**2",
    "x/g", "g/x", "g*h*x", "g*h*o - 1", "2:x", "x + 2:g", "-1 + g + h", "x + g + x:h", "1:x", "g:h:o", "g:o + h",
    "(g + h + o)**2 - g:h", "0 + g + h + g:h", "h:x + g:x", "C(k):C(g)", "C(k)*C(g, Sum)*x",
]  # fmt: skip
FACTORS = [
    "C(k)", "C(k)*x", "0 + C(k)", "C(g, Sum)*x", "C(g, contr.helmert)",
    "C(g, contr.helmert(reverse=False, scale=True))", "C(g, Diff)", "C(g, Poly)", "C(g, Treatment('b'))*h",
    "0 + C(g, contr.SAS)", "C(g, contr.sum):x", "C(k, Poly(scores=[1, 2, 4, 8]))", "C(g, contr.treatment(base='c'))",
    "C(g, [[1, 0], [0, 1], [-1, -1]])", "C(g, np.array([[1, 0], [0, 1], [-1, -1]]))", "C(g, np.eye(3))",
    "C(g, levels=['c', 'b', 'a'])", "C(g, spans_intercept=False)", "C(x > 0)*h", "C(np.round(x))",
    "C(np.where(x > 0, 'a', 'b'))", "C(g == 'a')", "C(data=g)", "C(contrasts=Sum, data=g)",
    "C(g, contr.custom([[1, 0], [0, 1], [-1, -1]], names=['A', 'B']))", "C(x > 0, Sum):g", "I(g)*x",
    "hashed(g, levels=3)", "hashed(k, levels=4)", "hashed(g, levels=4, contrasts=Sum)",
    "hashed(g, levels=3, spans_intercept=True)*x",
]  # fmt: skip
LEARNED = [
    "center(x)", "scale(x)", "scale(x, ddof=0)", "scale(x, center=False)", "scale(x, scale=2.)", "standardize(x)",
    "center(np.log(p))", "np.exp(center(x))", "center(x):g", "center(x)*scale(m)", "I(center(x)**2)",
    "standardize(x, rescale=False)", "scale(center(x))", "poly(x, 2)", "poly(x, 2, raw=True)", "poly(x, 2):g",
    "bs(x, df=5)", "bs(x, df=5, include_intercept=True)", "bs(x, df=4, degree=2)*h", "bs(x, knots=[0.])",
    "cr(x, df=4)", "cs(x, df=4)", "cc(x, df=4)", "cr(x, df=4, constraints='center')", "bs(center(x), df=4)",
    "bs(x, df=4):poly(m, 2)", "bs(x, df=5, lower_bound=-10, upper_bound=10)", "I(poly(x, 2))", "np.abs(poly(x, 2))",
]  # fmt: skip
EXPRESSIONS = [
    "I(x > 0):m", "I((x > 0) & (m > 0))", "I((x > 0) | (m > 0))", "I((x > 0) + (m > 0))", "I((x > 0)*(m > 0))",
    "I(-(x > 0))", "I(+(x > 0))", "I((x > 0)*2)", "I(x//2)", "I(x % 0.3)", "I(2**x)", "I((x > 0) & 1)",
    "I((x > 0) & m)", "I(g == 'a')*x", "g.isin(['a', 'b'])", "g.eq('a')", "np.equal(g, 'a')", "I(o < 'hi')",
    "np.where(g == 'a', x, m)", "np.clip(x, a_min=0, a_max=1)", "x.clip(0, m)", "x.clip(lower=0)", "x.round()",
    "round(x, 1)", "np.round(x*1000, -2)", "x.between(0, 1)", "np.digitize(x, bins=[-1, 0, 1], right=True)",
    "k.lt(x)", "np.where(x > 0, 1, 0):g", "x:np.exp(m)", "np.log(x)", "I(np.pi*x)", "np.logical_and(x > 0, m)",
    "np.where(x > 0, 2, 3)**2", "I(1/x)", "np.hypot(x, m)",
]  # fmt: skip
REFUSED = [
    "I((x > 0) - (m > 0))", "I((x > 0)/(m > 0))", "I((x > 0)**(m > 0))",
    "I(k & 1)", "I(x | 1)", "I(g == h)", "bs(x, df=2)", "I(np.where(x > 0, 2, 3)**-1)", "zzz", "np.log(zzz)",
    "g.abs()",
]  # fmt: skip


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Numbers, numbers above 0, codes, factors with and without an order."""
    rng = np.random.default_rng(0)
    levels = {"g": rng.choice(list("abc"), ROWS), "h": rng.choice(["u", "v"], ROWS)}
    return pd.DataFrame(
        {
            "x": rng.normal(size=ROWS),
            "m": rng.normal(size=ROWS),
            "p": np.exp(0.3 * rng.normal(size=ROWS)),
            "k": rng.integers(1, 5, ROWS).astype(float),
            **{name: pd.Categorical(values) for name, values in levels.items()},
            "o": pd.Categorical(rng.choice(["lo", "hi"], ROWS), categories=["lo", "hi"], ordered=True),
        }
    )


def formulaic_columns(source: Any, table: pd.DataFrame) -> tuple[np.ndarray, Any]:
    """What formulaic itself makes of a formula, or of a spec that it has learned."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matrix = source.get_model_matrix(table, context=CONTEXT, na_action="ignore", output="numpy")
    return np.asarray(matrix).astype(np.float64), matrix.model_spec


def same(text: str, table: pd.DataFrame) -> None:
    """Equal names and numbers, on the rows of the fit and on others, with zeros and without."""
    expected, spec = formulaic_columns(Formula(text), table)
    found, encoding = encode(text, table, where="here", finite=False)
    assert encoding.column_names == tuple(spec.column_names)
    np.testing.assert_allclose(found, expected, rtol=SAME, atol=SAME)
    spans = {str(term): (span.start, span.stop) for term, span in encoding.term_slices.items()}
    assert spans == {str(term): (span.start, span.stop) for term, span in spec.term_slices.items()}
    rows = table.iloc[::3].reset_index(drop=True)
    np.testing.assert_allclose(
        encode(encoding, rows, where="here", finite=False)[0], formulaic_columns(spec, rows)[0], rtol=SAME, atol=SAME
    )
    for k, column in enumerate(encode_columns(text, table, where="here", finite=False)[0]):
        np.testing.assert_allclose(np.asarray(column), expected[:, k], rtol=SAME, atol=SAME)


@pytest.mark.parametrize("text", TERMS + FACTORS + LEARNED + EXPRESSIONS)
def test_columns_are_those_of_formulaic(table: pd.DataFrame, text: str) -> None:
    same(text, table)


def test_formulas_in_use(table: pd.DataFrame) -> None:
    """Every right-hand side and response of the stored formulas, on made-up columns."""
    known = json.loads((Path(__file__).parents[1] / "hostile" / "formulas.json").read_text(encoding="utf-8"))
    texts = {text for line in known for text in (line[2], f"0 + {line[1]}", *(term[0] for term in line[3]))}
    rng, done = np.random.default_rng(1), 0
    for text in sorted(texts):
        more = {safe_name(name): rng.normal(size=ROWS) for name in sorted(formula_variables(text)) if name not in table}
        rows = pd.concat([table, pd.DataFrame(more)], axis=1)
        try:
            encode(text, rows, where="here", finite=False)
        except MlmedError:  # refused for what these columns hold
            continue
        same(text, rows)
        done += 1
    assert done > 450


@pytest.mark.parametrize("text", REFUSED)
def test_reasons_are_those_of_formulaic(table: pd.DataFrame, text: str) -> None:
    """What cannot be evaluated is told in the words that formulaic, numpy and pandas have for it."""
    with pytest.raises(Exception) as expected:  # noqa: PT011
        formulaic_columns(Formula(text), table)
    with pytest.raises(MlmedError) as found:
        encode(text, table, where="here", finite=False)
    said = str(expected.value).splitlines()[0].replace("`", "")
    assert said in str(found.value), (said, str(found.value))


def test_means_of_expressions_are_not_stored(table: pd.DataFrame, tmp_path: Path) -> None:
    """A file has the mean of a column, from which that of its logarithm does not follow."""
    rows = table.assign(id=np.arange(ROWS) // 8)
    for text in ("center(p)", "scale(x)"):
        mlmed.grams(f"m ~ {text} + (1 | id)", rows).save(tmp_path / "grams.parquet")
    for text in ("center(np.log(p))", "scale(x, center=False)", "np.exp(center(x))*g + center(x + p)"):
        with pytest.raises(DataError, match=r"the state of (center|scale)\(.*\) in .* cannot be stored"):
            mlmed.grams(f"m ~ {text} + (1 | id)", rows).save(tmp_path / "grams.parquet")
