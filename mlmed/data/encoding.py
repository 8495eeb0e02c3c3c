"""Encodings without the rows: rebuilt from levels, means and standard deviations.

A pushed-down or stored Gram has no rows left to learn an encoding from. What has to be known (the levels of factors,
the mean and standard deviation of centred columns) is put into a small made-up table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mlmed.data.design import encode_columns
from mlmed.data.rowwise import refuse_other_rows
from mlmed.data.terms import Encoding
from mlmed.formula import Equation, formula_of
from mlmed.names import safe_name

__all__ = ["encodings_of", "response_encoding", "stand_in"]


def stand_in(typical: dict[str, Any], spread: dict[str, float], levels: dict[str, tuple[Any, ...]]) -> pd.DataFrame:
    """A table whose columns have the given means, sample standard deviations and levels.

    Parameters
    ----------
    typical : dict
        Means of numeric variables (entries of factors are not used).
    spread : dict
        Standard deviations of numeric variables.
    levels : dict
        Levels of factors.
    """
    n = 2 * max([1, *(len(known) for known in levels.values())])
    half = np.repeat([-1.0, 1.0], n // 2) * np.sqrt((n - 1) / n)
    columns: dict[str, Any] = {}
    for name in sorted({*typical, *levels}):
        known = levels.get(name)
        if known is None:
            columns[safe_name(name)] = typical[name] + spread[name] * half
        else:
            cycle = [known[k % len(known)] for k in range(n)]
            is_number = isinstance(known[0], float)
            columns[safe_name(name)] = np.array(cycle) if is_number else pd.Categorical(cycle, categories=list(known))
    return pd.DataFrame(columns, index=pd.RangeIndex(n))


def encodings_of(equation: Equation, table: pd.DataFrame) -> tuple[Encoding, ...]:
    """Those of the fixed part and of each random term, learned from a stand-in table.

    Raises
    ------
    FormulaError
        A term takes its value in a row from other rows.
    """
    texts = [equation.fixed, *(term.formula for term in equation.random)]
    for text in texts:
        refuse_other_rows(formula_of(text), repr(equation.text))
    return tuple(encode_columns(text, table, where=repr(equation.text), finite=False)[1] for text in texts)


def response_encoding(equation: Equation, table: pd.DataFrame) -> Encoding | None:
    """The same of a response that is computed; None if it is a column as it stands."""
    if equation.response_columns == {equation.name}:
        return None
    return encode_columns(f"0 + {equation.response}", table, where=repr(equation.text), finite=False)[1]
