"""Tables with what no table should hold: an answer or a refusal, and the refusals that say most.

``make hostile`` puts every table into every mode.
"""

from __future__ import annotations

import warnings
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mlmed
from mlmed.data.values import refuse_odd_cells
from mlmed.errors import DataError, MlmedError
from tests.hostile.attack import Tally, tried
from tests.hostile.odd_tables import BASE, CALLS, ROLES, SHAPES, M, duck, renamed, tables, with_cell

TABLES = tables()
MODES = tuple(CALLS)
#: The same examples at every run, and no limit of time for one of them: machines differ.
STEADY = settings(
    derandomize=True, deadline=None, database=None, max_examples=60, suppress_health_check=list(HealthCheck)
)


def attacked(names: Any, modes: Any) -> list[str]:
    tally = Tally()
    for name in names:
        for mode in modes:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                data = TABLES[name]()
            tally.add(f"{name} / {mode}", *tried(lambda mode=mode, data=data: CALLS[mode](data)))
    return tally.bad


@pytest.mark.parametrize("mode", MODES)
def test_shapes_and_labels(mode):
    assert attacked(SHAPES, [mode]) == []


@pytest.mark.parametrize("role", ROLES)
def test_cells_and_types(role):
    """Every table in one mode, each mode in turn."""
    own = [name for name in TABLES if name.startswith(f"{role}, ")]
    bad = [text for k, name in enumerate(own) for text in attacked([name], [MODES[(k + len(role)) % len(MODES)]])]
    assert bad == []


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_sees_the_worst_cells(mode):
    worst = ("10**5000", "sNaN", "surrogate", "list", "dict")
    assert (
        attacked(
            [f"{role}, {how}: {one}" for role in ("id", "m", "f") for how in ("one", "all") for one in worst], [mode]
        )
        == []
    )


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (10**400, "column 'x' holds a whole number of 1329 bits in row 3: more than any float can hold"),
        (Decimal("sNaN"), r"column 'x' holds Decimal\('sNaN'\) in row 3: a signaling NaN"),
        ("\ud800", r"column 'x' holds '\\ud800' in row 3: a part of a character"),
        ([1, 2], r"column 'x' holds \[1, 2\] in row 3: a cell has to hold one value"),
        ({"a": {"b": 1}}, "column 'x' holds a dict of 1 in row 3"),
        (np.zeros((2, 2)), r"column 'x' holds a ndarray of shape \(2, 2\) in row 3"),
    ],
    ids=["number", "sNaN", "surrogate", "list", "dict", "array"],
)
def test_what_is_wrong_with_a_cell(value, match):
    with pytest.raises(DataError, match=match):
        mlmed.mixed("m ~ x + (1 | id)", with_cell("x", value))
    with pytest.raises(DataError, match=match.replace("'x'", "'id'")):
        mlmed.mixed("m ~ x + (1 | id)", with_cell("id", value))


def test_odd_cells_that_are_values():
    """What can be compared and written is left to those who need numbers."""
    for value in (
        2**70,
        Decimal("NaN"),
        Decimal("1.5"),
        None,
        pd.NA,
        pd.NaT,
        "a\0b",
        b"x",
        pd.Period("2020-01"),
        (1, 2),
        1e308,
    ):
        refuse_odd_cells(pd.Series([value, None], dtype=object), "c")


def test_unused_columns_may_hold_anything():
    """A column that no formula names changes nothing, whatever it is called and holds."""
    expected = mlmed.mixed(M, BASE).llf
    for label in (None, np.nan, (1, 2), 3, b"q", "", "a\0b", "\x7f", int):
        assert mlmed.mixed(M, renamed(label)).llf == expected
    assert mlmed.mixed(M, BASE.assign(junk=[[1], {}, object()] * (len(BASE) // 3))).llf == expected


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            lambda: duck("select * replace (f::INT as w) from base"),
            "Could not convert string 'b'|Could not convert string 'a'",
        ),
        (SHAPES["DuckDB, closed"], "closed"),
        (SHAPES["DuckDB, table gone"], "t"),
        (lambda: pl.from_pandas(BASE).lazy().with_columns(pl.col("f").cast(pl.Int64).alias("w")), "conversion"),
        (SHAPES["Polars, no file"], "nonexistent"),
    ],
    ids=["DuckDB, cast", "DuckDB, closed", "DuckDB, gone", "Polars, cast", "Polars, file"],
)
@pytest.mark.parametrize("mode", ["mixed", "stack", "grams", "causal"])
def test_what_an_engine_says_is_said(data, words, mode):
    with pytest.raises(DataError, match=f"cannot be read from the engine that holds them: .*({words})"):
        CALLS[mode](data())


VALUE = st.one_of(
    st.floats(),
    st.integers(),
    st.integers(min_value=10**300, max_value=10**320),
    st.booleans(),
    st.none(),
    st.text(max_size=3),
    st.text(st.characters(categories=["Cs"]), max_size=1),
    st.binary(max_size=2),
    st.decimals(),
    st.fractions(),
    st.complex_numbers(),
    st.dates(),
    st.lists(st.integers(), max_size=1),
)


@STEADY
@given(
    role=st.sampled_from(ROLES),
    values=st.lists(VALUE, min_size=1, max_size=4),
    mode=st.sampled_from(["grams", "stack"]),
)
def test_columns_of_anything(role, values, mode):
    column = pd.Series((values * len(BASE))[: len(BASE)], dtype=object)
    kind, said = tried(lambda: CALLS[mode](BASE.assign(**{role: column})))
    assert kind in ("fits", "refused"), said


@STEADY
@given(name=st.text(min_size=1, max_size=6))
def test_names_of_anything(name):
    """A column of any name, in backticks, is the column; or the name is refused."""
    if "`" in name or name in ("id", "m"):
        return
    data = BASE[["id", "m", "x"]].rename(columns={"x": name})
    kind, said = tried(lambda: mlmed.grams(f"m ~ `{name}` + (1 | id)", data))
    assert kind in ("fits", "refused"), said


@STEADY
@given(
    rows=st.lists(
        st.tuples(st.sampled_from([None, 1, 2, 3]), *[st.sampled_from([None, 0.0, 1.0, -2.5])] * 2), max_size=12
    )
)
def test_small_tables_of_anything(rows):
    """Empty, constant, missing, one cluster, as many parameters as rows: certified or refused."""
    data = pd.DataFrame(rows, columns=["id", "x", "m"], dtype=object)
    kind, said = tried(lambda: mlmed.mixed("m ~ x + (1 | id)", data))
    assert kind in ("fits", "refused"), said


def test_refusals_are_errors_of_the_package():
    assert issubclass(DataError, MlmedError)
