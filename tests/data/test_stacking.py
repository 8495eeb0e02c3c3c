from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from mlmed.data.stacking import stack
from mlmed.errors import DataError

ROLES = {"x": "x", "m": "m", "y": "y", "cluster": "id"}

# Stata FAQ "How can I perform mediation with multilevel data? (Method 2)": the first 16 rows after `reshape`.
# z prints seven digits as it is a float there, x and m eight.
LISTED = """
fid sm id            x            m           z  sy
  1  0  1    1.5451205    .10680165     .567776   1
  1  1  1    1.5451205    .10680165    .1068017   0
  2  0  1     2.275272    2.1104394    1.206145   1
  2  1  1     2.275272    2.1104394    2.110439   0
  3  0  1     .7866992    .03888269   -.2612771   1
  3  1  1     .7866992    .03888269    .0388827   0
  4  0  1   -.06185872    .47940645   -.7589904   1
  4  1  1   -.06185872    .47940645    .4794064   0
  5  0  1    .11725984    .59082413    .5190769   1
  5  1  1    .11725984    .59082413    .5908241   0
  6  0  1    1.4809238    .89094498   -.6311193   1
  6  1  1    1.4809238    .89094498     .890945   0
  7  0  1    .89275955   -.22767749    .1520794   1
  7  1  1    .89275955   -.22767749   -.2276775   0
  8  0  1    .92460471    .72917853    .2346306   1
  8  1  1    .92460471    .72917853    .7291785   0
"""


def listed() -> pd.DataFrame:
    lines = [line.split() for line in LISTED.strip().splitlines()]
    return pd.DataFrame(lines[1:], columns=lines[0]).astype(float)


@pytest.fixture
def data():
    """Four rows in two clusters, every number different."""
    return pd.DataFrame(
        {
            "id": [7, 7, 3, 3],
            "x": [1.0, 2.0, 3.0, 4.0],
            "m": [0.5, 0.7, 0.9, 1.1],
            "y": [10.0, 20.0, 30.0, 40.0],
            "age": [31, 32, 33, 34],
        }
    )


def test_first_rows_are_those_of_the_stata_page(dataset):
    stacked = stack(dataset("ml_sim"), **ROLES)
    assert stacked.columns.tolist() == ["fid", "sm", "id", "x", "m", "z", "sy", "smx", "sym", "syx"]
    assert len(stacked) == 1600
    page = listed()
    first = stacked.head(16)
    for name in ("fid", "sm", "id", "sy"):
        assert first[name].tolist() == page[name].tolist()
    # half a unit of the last printed digit, with room for z having gone through single precision
    np.testing.assert_allclose(first[["x", "m"]], page[["x", "m"]], rtol=0, atol=5.1e-8)
    np.testing.assert_allclose(first["z"], page["z"], rtol=0, atol=5.7e-7)


def test_page_can_be_told_from_the_other_order(dataset):
    other = stack(dataset("ml_sim"), **ROLES, order="equations").head(16)
    assert other["sm"].tolist() != listed()["sm"].tolist()


def test_products_are_those_of_the_page(data):
    stacked = stack(data, **ROLES)
    for product, selector, column in (("smx", "sm", "x"), ("sym", "sy", "m"), ("syx", "sy", "x")):
        assert stacked[product].tolist() == (stacked[selector] * stacked[column]).tolist()
    assert (stacked["sm"] + stacked["sy"] == 1).all()
    assert stacked["z"].tolist() == [10.0, 0.5, 20.0, 0.7, 30.0, 0.9, 40.0, 1.1]
    assert stacked["id"].tolist() == [7, 7, 7, 7, 3, 3, 3, 3]
    assert stacked.attrs["dropped"] == {"cluster": 0, "m": 0, "y": 0}


def test_names_of_the_user_are_kept(data):
    renamed = data.rename(columns={"x": "stress", "m": "sleep", "y": "z", "id": "person"})
    stacked = stack(renamed, x="stress", m="sleep", y="z", cluster="person")
    expected = stack(data, **ROLES).rename(columns={"x": "stress", "m": "sleep", "id": "person"})
    pd.testing.assert_frame_equal(stacked, expected)


def test_covariates_are_carried_and_multiplied(data):
    stacked = stack(data, **ROLES, covariates=["age"])
    assert stacked.columns.tolist() == (
        ["fid", "sm", "id", "x", "m", "age", "z", "sy", "smx", "sym", "syx", "sm_age", "sy_age"]
    )
    assert stacked["sm_age"].tolist() == [0, 31, 0, 32, 0, 33, 0, 34]
    assert stacked["sy_age"].tolist() == [31, 0, 32, 0, 33, 0, 34, 0]
    pd.testing.assert_frame_equal(stack(data, **ROLES, covariates="age"), stacked)


def test_orders_hold_the_same_rows(data):
    by_equation = stack(data, **ROLES, order="equations")
    assert by_equation["sm"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert by_equation["fid"].tolist() == [1, 2, 3, 4, 1, 2, 3, 4]
    resorted = by_equation.sort_values(["fid", "sm"], ignore_index=True)
    pd.testing.assert_frame_equal(resorted, stack(data, **ROLES))


def test_missing_values_leave_only_the_equation_that_needs_them(data):
    data["y"] = [np.nan, 20.0, 30.0, 40.0]
    data["m"] = [0.5, np.nan, 0.9, 1.1]
    data["id"] = [7, 7, np.nan, 3]
    stacked = stack(data, **ROLES)
    assert stacked[["fid", "sm"]].to_numpy().tolist() == [[1, 1], [4, 0], [4, 1]]
    assert not stacked.isna().any().any()
    assert stacked["id"].tolist() == [7, 3, 3]
    assert stacked.attrs["dropped"] == {"cluster": 1, "m": 1, "y": 2}


@pytest.mark.parametrize("name", ["x", "age"])
def test_missing_predictor_leaves_both_equations(data, name):
    data[name] = [np.nan, 2.0, 3.0, 4.0]
    stacked = stack(data, **ROLES, covariates=["age"])
    assert stacked["fid"].tolist() == [2, 2, 3, 3, 4, 4]
    assert stacked.attrs["dropped"] == {"cluster": 0, "m": 1, "y": 1}


def test_missing_value_of_an_unused_column_drops_nothing(data):
    data["age"] = np.nan
    assert len(stack(data, **ROLES)) == 8


@pytest.mark.parametrize(
    "convert",
    [
        lambda table: table,
        lambda table: table.convert_dtypes(),
        lambda table: table.astype(object).where(table.notna(), None),
        lambda table: table.set_index(pd.Index([5, 5, 5, 5])),
        lambda table: pa.Table.from_pandas(table, preserve_index=False),
        pl.from_pandas,
        lambda table: pl.from_pandas(table).lazy(),
        lambda table: pl.from_pandas(table).with_columns(pl.col("x").fill_null(float("nan"))),
    ],
    ids=["pandas", "nullable", "object", "index", "arrow", "polars", "lazy", "polars_nan"],
)
def test_every_kind_of_data_frame_gives_the_same_table(data, convert):
    data["x"] = [1.0, np.nan, 3.0, 4.0]
    data["y"] = [np.nan, 2.0, 3.0, 4.0]
    data["id"] = ["a", "a", "b", None]
    expected = stack(data, **ROLES, covariates=["age"])
    assert expected["fid"].tolist() == [1, 3, 3]
    result = stack(convert(data), **ROLES, covariates=["age"])
    pd.testing.assert_frame_equal(result, expected)
    assert result.attrs == expected.attrs


def test_booleans_are_numbers_and_ids_keep_their_kind(data):
    data["x"] = [True, False, True, False]
    data["id"] = pd.to_datetime(["2026-01-01", "2026-01-01", "2026-01-02", "2026-01-02"])
    stacked = stack(data, **ROLES)
    assert stacked["syx"].tolist() == [1, 0, 0, 0, 1, 0, 0, 0]
    assert stacked["id"].tolist() == data["id"].repeat(2).tolist()


def test_input_is_not_modified(data):
    before = data.copy(deep=True)
    stacked = stack(data, **ROLES, covariates=["age"])
    stacked.loc[:, "x"] = -1.0
    stacked.loc[:, "id"] = 0
    pd.testing.assert_frame_equal(data, before)


def test_unknown_column_lists_what_is_there(data):
    with pytest.raises(DataError, match=r"no column 'aeg'.*mean 'age'\?.*\['id', 'x', 'm', 'y', 'age'\]"):
        stack(data, **ROLES, covariates=["aeg"])


@pytest.mark.parametrize(
    ("column", "example"),
    [
        (["low", "low", "high", "high"], "'low'"),
        (pd.Categorical([0, 1, 0, 1]), "0"),
        (pd.date_range("2026-01-01", periods=4), "Timestamp"),
        (np.array([1, 2, "3", None], dtype=object), "'3'"),
    ],
)
@pytest.mark.parametrize("role", ["x", "m", "y", "age"])
def test_what_is_not_a_number_is_refused(data, role, column, example):
    data[role] = column
    with pytest.raises(DataError, match=rf"Column '{role}' holds .* not numbers \(for example {example}"):
        stack(data, **ROLES, covariates=["age"])


def test_infinite_value_is_refused_with_its_place(data):
    data["m"] = [0.5, 0.7, -np.inf, np.inf]
    with pytest.raises(DataError, match=r"Column 'm' is -inf in row 3 \(2 infinite values in all\)"):
        stack(data, **ROLES)


@pytest.mark.parametrize("name", ["fid", "sm", "z", "sy", "smx", "sym", "syx", "sm_age", "sy_age"])
@pytest.mark.parametrize("role", ["x", "m", "id", "sex"])
def test_names_that_are_generated_are_refused(data, role, name):
    data = data.assign(sex=1).rename(columns={role: name})
    roles = {key: name if column == role else column for key, column in ROLES.items()}
    covariates = ["age", name if role == "sex" else "sex"]
    with pytest.raises(DataError, match=rf"\['{name}'\] have names that the stacked table needs"):
        stack(data, **roles, covariates=covariates)


def test_generated_name_of_an_unused_column_or_of_y_does_not_matter(data):
    data = data.assign(sm=1).rename(columns={"y": "z"})
    assert len(stack(data, **{**ROLES, "y": "z"})) == 8


@pytest.mark.parametrize(
    ("roles", "covariates"),
    [({"m": "x"}, []), ({"y": "m"}, []), ({"cluster": "y"}, []), ({}, ["age", "age"]), ({}, ["x"])],
)
def test_one_column_in_two_roles_is_refused(data, roles, covariates):
    with pytest.raises(DataError, match="more than one role"):
        stack(data, **{**ROLES, **roles}, covariates=covariates)


@pytest.mark.parametrize("kind", [np.array([np.nan] * 4), np.array([None] * 4, dtype=object)])
def test_column_without_values_is_named(data, kind):
    with pytest.raises(DataError, match=r"for the y equation: all values of \['y'\] are missing"):
        stack(data.assign(y=kind), **ROLES)
    with pytest.raises(DataError, match=r"for the m equation: all values of \['x'\] are missing"):
        stack(data.assign(x=kind), **ROLES)
    with pytest.raises(DataError, match="cluster id 'id' is missing in every row"):
        stack(data.assign(id=kind), **ROLES)


def test_no_complete_row_is_refused(data):
    data["x"] = [np.nan, np.nan, 3.0, 4.0]
    data["m"] = [0.5, 0.7, np.nan, np.nan]
    with pytest.raises(DataError, match="for the m equation: no row has all of its columns"):
        stack(data, **ROLES)


def test_table_without_rows_is_refused(data):
    with pytest.raises(DataError, match="have no rows"):
        stack(data.iloc[:0], **ROLES)


def test_what_is_no_data_frame_is_refused():
    with pytest.raises(DataError, match="data is a list, not a data frame"):
        stack([1, 2], **ROLES)


def test_columns_of_one_name_are_refused(data):
    with pytest.raises(DataError, match="several columns of one name"):
        stack(pd.concat([data, data], axis=1), **ROLES)


def test_unknown_order_lists_the_known(data):
    with pytest.raises(DataError, match="order must be one of stata, equations; found 'wide'"):
        stack(data, **ROLES, order="wide")
