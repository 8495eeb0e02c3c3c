"""Any table, any type of column, any pattern of missing values: the same numbers as from plain pandas."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import mlmed
from mlmed.data.frames import column_names, select_columns
from mlmed.data.ids import cluster_codes
from mlmed.errors import DroppedRowsWarning
from tests.models import MEDIATOR, OUTCOME, dense_loglik
from tests.tolerances import DENSE, INVARIANT, SAME


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """40 clusters of 8; regular."""
    return mlmed.simulate.bpg(40, 8, seed=3).data


@pytest.fixture(scope="module")
def reference(frame: pd.DataFrame) -> mlmed.Results:
    """The fit to plain pandas."""
    return mlmed.mediate(MEDIATOR, OUTCOME, frame)


@pytest.fixture(scope="module")
def factors(frame: pd.DataFrame) -> pd.DataFrame:
    """A text column of three levels beside the numbers."""
    return frame.assign(g=np.random.default_rng(1).choice(list("abc"), len(frame)))


def same_fit(left: mlmed.Results, right: mlmed.Results, *, rel: float = INVARIANT) -> None:
    """Equal likelihood, sizes, and fixed effects by name."""
    assert (left.nobs, left.n_clusters) == (right.nobs, right.n_clusters)
    assert left.llf == pytest.approx(right.llf, rel=rel)
    pd.testing.assert_series_equal(left.params, right.params, rtol=max(rel, 1e-6), atol=1e-8)


# -- tables --------------------------------------------------------------------------------------------------

TABLES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "polars": pl.from_pandas,
    "polars, lazy": lambda d: pl.from_pandas(d).lazy(),
    "arrow": pa.Table.from_pandas,
    "arrow in chunks": lambda d: pa.concat_tables([pa.Table.from_pandas(d[:100]), pa.Table.from_pandas(d[100:])]),
    "dict of lists": lambda d: d.to_dict("list"),
    "dict of arrays": lambda d: {name: d[name].to_numpy() for name in d},
    "nullable": lambda d: d.convert_dtypes(),
    "arrow-backed pandas": lambda d: d.convert_dtypes(dtype_backend="pyarrow"),
    "python objects": lambda d: d.astype(object),
    "decimals": lambda d: d.assign(x=[Decimal(repr(v)) for v in d["x"]], y=[Decimal(repr(v)) for v in d["y"]]),
    "read-only": lambda d: pd.DataFrame({name: _frozen(d[name]) for name in d}),
    "duplicate index": lambda d: d.set_index(pd.Index(np.zeros(len(d), dtype=int))),
    "text index": lambda d: d.set_index(pd.Index([f"row {k}" for k in range(len(d))])),
    "shuffled index": lambda d: d.set_index(pd.Index(np.random.default_rng(0).permutation(len(d)))),
    "index of several levels": lambda d: d.set_index(["id", "x"], drop=False).rename_axis(["u", "v"]),
    "other columns": lambda d: d.assign(note="text", when=pd.Timestamp("2020-01-01"), nothing=None),
    "a subclass": lambda d: type("Sub", (pd.DataFrame,), {})(d),
}


def _frozen(column: pd.Series) -> np.ndarray:
    values = column.to_numpy().copy()
    values.flags.writeable = False
    return values


@pytest.mark.parametrize("kind", TABLES)
def test_every_table_gives_the_same_fit(frame: pd.DataFrame, reference: mlmed.Results, kind: str) -> None:
    """Mediation of the same numbers in another container."""
    same_fit(mlmed.mediate(MEDIATOR, OUTCOME, TABLES[kind](frame)), reference, rel=SAME)


def test_arrow_and_polars_decimals(frame: pd.DataFrame) -> None:
    """Typed decimals, with and without gaps."""
    exact = [Decimal(f"{v:.6f}") for v in frame["x"]]
    rounded = mlmed.mixed(MEDIATOR, frame.assign(x=[float(v) for v in exact]))
    ids, m = frame["id"].to_numpy(), frame["m"].to_numpy()
    same_fit(mlmed.mixed(MEDIATOR, pa.table({"id": ids, "m": m, "x": pa.array(exact)})), rounded, rel=SAME)
    same_fit(mlmed.mixed(MEDIATOR, pl.DataFrame({"id": ids, "m": m, "x": exact})), rounded, rel=SAME)
    gap = pl.DataFrame({"id": ids, "m": m, "x": [None, *exact[1:]]})
    with pytest.warns(DroppedRowsWarning, match="missing x: 1"):
        fit = mlmed.mixed(MEDIATOR, gap)
    assert fit.nobs == 319


def test_float32_and_small_integers(frame: pd.DataFrame) -> None:
    """Converted to double before anything is summed."""
    small = frame.assign(x=frame["x"].astype("float32"), m=frame["m"].astype("float32"))
    same_fit(mlmed.mixed(MEDIATOR, small), mlmed.mixed(MEDIATOR, small.astype("float64")), rel=SAME)
    whole = frame.assign(x=(10 * frame["x"]).astype("int8"))
    same_fit(mlmed.mixed(MEDIATOR, whole), mlmed.mixed(MEDIATOR, whole.astype({"x": "float64"})), rel=SAME)
    unsigned = frame.assign(x=(10 * frame["x"] + 100).astype("uint16"), w=(frame["x"] > 0).astype("UInt8"))
    same_fit(
        mlmed.mixed("m ~ x + w + (1 | id)", unsigned),
        mlmed.mixed("m ~ x + w + (1 | id)", unsigned.astype({"x": "float64", "w": "float64"})),
        rel=SAME,
    )


BOOLEANS: dict[str, Callable[[pd.Series], Any]] = {
    "numpy": lambda b: b,
    "nullable": lambda b: b.astype("boolean"),
    "objects": lambda b: b.astype(object),
    "arrow": lambda b: b.astype("bool[pyarrow]"),
}


@pytest.mark.parametrize("kind", BOOLEANS)
@pytest.mark.parametrize("gap", [False, True])
def test_boolean_predictors_are_zero_and_one(frame: pd.DataFrame, kind: str, gap: bool) -> None:
    """Under one name, whether or not a value is missing, in pandas and in Polars."""
    up = frame["x"] > 0
    column = pd.Series(BOOLEANS[kind](up))
    coded = pd.Series(1.0 * up)
    if gap:
        column = column.astype("boolean").where(frame.index != 3)
        column = column.astype(object).where(column.notna(), None) if kind == "objects" else column
        coded = coded.where(frame.index != 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DroppedRowsWarning)
        expected = mlmed.mixed("m ~ w + (1 + w | id)", frame.assign(w=coded))
        same_fit(mlmed.mixed("m ~ w + (1 + w | id)", frame.assign(w=column)), expected)
        if kind == "nullable":
            same_fit(mlmed.mixed("m ~ w + (1 + w | id)", pl.from_pandas(frame.assign(w=column))), expected)


def arrow_dictionary(column: pd.Series, levels: list[str] | None = None) -> Any:
    """Text as Arrow's dictionary type in a pandas column; with levels these are its order."""
    values = column.astype(object).where(column.notna(), None).tolist()
    if levels is None:
        return pd.arrays.ArrowExtensionArray(pa.array(values, pa.string()).dictionary_encode())
    codes = pa.array([None if value is None else levels.index(value) for value in values], pa.int8())
    return pd.arrays.ArrowExtensionArray(pa.DictionaryArray.from_arrays(codes, pa.array(levels), ordered=True))


TEXTS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "objects": lambda d: d.assign(g=d["g"].astype(object)),
    "pandas string": lambda d: d.assign(g=d["g"].astype("string")),
    "arrow string": lambda d: d.assign(g=d["g"].astype(pd.ArrowDtype(pa.string()))),
    "arrow dictionary in pandas": lambda d: d.assign(g=arrow_dictionary(d["g"])),
    "arrow dictionary in Dask": lambda d: pytest.importorskip("dask.dataframe").from_pandas(
        d.assign(g=arrow_dictionary(d["g"])), npartitions=2
    ),
    "arrow dictionaries of two files": lambda d: pd.concat(
        [part.assign(g=arrow_dictionary(part["g"])) for part in (d[:100], d[100:])]
    ),
    "categories": lambda d: d.assign(g=pd.Categorical(d["g"])),
    "unused category": lambda d: d.assign(g=pd.Categorical(d["g"], ["a", "b", "c", "z"])),
    "polars": pl.from_pandas,
    "polars categories": lambda d: pl.from_pandas(d).with_columns(pl.col("g").cast(pl.Categorical)),
    "polars enum": lambda d: pl.from_pandas(d).with_columns(pl.col("g").cast(pl.Enum(["a", "b", "c"]))),
    "polars enum, unused": lambda d: pl.from_pandas(d).with_columns(pl.col("g").cast(pl.Enum(["a", "b", "c", "z"]))),
    "arrow dictionary": lambda d: pa.table(
        {
            **{c: d[c].to_numpy() for c in "idxmy".replace("id", "")},
            "id": d["id"],
            "g": pa.array(list(d["g"])).dictionary_encode(),
        }
    ),
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.filterwarnings("ignore::mlmed.errors.CategoryWarning")  # Polars' Categorical has no order
def test_every_kind_of_text_is_the_same_factor(factors: pd.DataFrame, kind: str) -> None:
    """In fixed and random parts; a category that does not occur has no column (as in lme4)."""
    expected = mlmed.mixed("m ~ g + x + (1 | id) + (0 + x | id)", factors)
    assert list(expected.params.index) == ["Intercept", "g[T.b]", "g[T.c]", "x"]
    same_fit(mlmed.mixed("m ~ g + x + (1 | id) + (0 + x | id)", TEXTS[kind](factors)), expected)


@pytest.mark.parametrize(
    "kind", ["objects", "pandas string", "arrow dictionary in pandas", "categories", "polars", "polars enum"]
)
def test_missing_levels_are_missing(factors: pd.DataFrame, kind: str) -> None:
    """None in a text column drops the row, and is no level."""
    gap = factors.assign(g=factors["g"].where(factors.index % 10 != 0, None))
    with pytest.warns(DroppedRowsWarning, match="missing g: 32"):
        fit = mlmed.mixed("m ~ g + (1 | id)", TEXTS[kind](gap))
    same_fit(fit, mlmed.mixed("m ~ g + (1 | id)", factors[factors.index % 10 != 0]))


def test_order_of_categories_chooses_the_reference(factors: pd.DataFrame) -> None:
    """The first category is the reference, also if it is not the first of the alphabet."""
    fit = mlmed.mixed("m ~ g + (1 | id)", factors.assign(g=pd.Categorical(factors["g"], ["c", "a", "b"])))
    assert list(fit.params.index) == ["Intercept", "g[T.a]", "g[T.b]"]


def test_an_ordered_dictionary_of_arrow_has_its_own_order(factors: pd.DataFrame) -> None:
    """One that is not ordered lists its values as they came, which says nothing, so they are sorted."""
    ordered = factors.assign(g=arrow_dictionary(factors["g"], ["c", "unused", "a", "b"]))
    assert list(mlmed.mixed("m ~ g + (1 | id)", ordered).params.index) == ["Intercept", "g[T.a]", "g[T.b]"]
    turned = factors[::-1].reset_index(drop=True)
    fits = [mlmed.mixed("m ~ g + (1 | id)", t.assign(g=arrow_dictionary(t["g"]))) for t in (factors, turned)]
    assert [list(fit.params.index) for fit in fits] == [["Intercept", "g[T.b]", "g[T.c]"]] * 2


@pytest.mark.parametrize("values", ["numbers", "text"])
def test_dictionaries_of_arrow_in_other_roles(factors: pd.DataFrame, values: str) -> None:
    """Cluster ids, new rows, and numbers, which are levels as in pandas' categories."""
    k = factors["id"] % 3 if values == "numbers" else "k" + (factors["id"] % 3).astype(str)
    plain = factors.assign(k=pd.Categorical(k))
    coded = plain.assign(**{name: _encoded(plain[name]) for name in ("k", "id")})
    formula = "m ~ k + x + (1 | id)"
    left, right = mlmed.mixed(formula, coded), mlmed.mixed(formula, plain)
    same_fit(left, right)
    expected = right.predict(plain, of="cluster")
    np.testing.assert_allclose(left.predict(coded, of="cluster"), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(left.predict(plain, of="cluster"), expected, rtol=1e-9, atol=1e-12)


def _encoded(column: pd.Series) -> Any:
    return pd.arrays.ArrowExtensionArray(pa.array(column.tolist()).dictionary_encode())


def test_a_category_whose_rows_are_all_dropped(factors: pd.DataFrame) -> None:
    """Missing responses can empty a level; the rest of the factor is still there."""
    data = factors.assign(g=pd.Categorical(factors["g"]), m=factors["m"].where(factors["g"] != "c"))
    with pytest.warns(DroppedRowsWarning):
        fit = mlmed.mixed("m ~ g + (1 | id)", data)
    left = factors[factors["g"] != "c"]
    same_fit(fit, mlmed.mixed("m ~ g + (1 | id)", left))


def test_empty_text_and_the_text_nan_are_levels(factors: pd.DataFrame) -> None:
    """Only what pandas calls missing is missing."""
    odd = factors.assign(g=factors["g"].replace({"a": "", "b": "nan"}))
    fit = mlmed.mixed("m ~ g + (1 | id)", odd)
    assert list(fit.params.index) == ["Intercept", "g[T.c]", "g[T.nan]"]
    assert fit.nobs == 320


# -- cluster ids ---------------------------------------------------------------------------------------------

IDS: dict[str, Callable[[pd.Series], Any]] = {
    "text": lambda i: i.map("s{}".format),
    "pandas string": lambda i: i.map("s{}".format).astype("string"),
    "objects": lambda i: i.map("s{}".format).astype(object),
    "categories": lambda i: i.astype("category"),
    "unused categories": lambda i: pd.Categorical(i, range(60)),
    "dates": lambda i: pd.Timestamp("2020-01-01") + pd.to_timedelta(i, unit="D"),
    "dates with zone": lambda i: pd.Timestamp("2020-01-01", tz="UTC") + pd.to_timedelta(i, unit="D"),
    "python dates": lambda i: pd.Series([datetime.date.fromordinal(730000 + int(k)) for k in i], dtype=object),
    "durations": lambda i: pd.to_timedelta(i, unit="h"),
    "periods": lambda i: pd.Series(pd.PeriodIndex.from_ordinals(i, freq="M")),
    "intervals": lambda i: pd.cut(i, np.arange(0, 41)),
    "floats": lambda i: i.astype(float),
    "fractions of one": lambda i: i / 10.0,
    "int8": lambda i: i.astype("int8"),
    "nullable": lambda i: i.astype("Int64"),
    "beyond 2**53": lambda i: i + 2**60,
    "negative beyond 2**53": lambda i: -(i + 2**60),
    "just beyond 2**53": lambda i: i + 2**53,
    "unsigned beyond 2**63": lambda i: i.astype("uint64") + np.uint64(2**63),
    "nullable beyond 2**53": lambda i: (i + 2**60).astype("Int64"),
    "arrow beyond 2**53": lambda i: (i + 2**60).astype("int64[pyarrow]"),
    "objects beyond 2**53": lambda i: (i + 2**60).astype(object),
    "python integers beyond 2**64": lambda i: pd.Series([int(k) + 2**70 for k in i], dtype=object),
    "long decimals": lambda i: pd.Series([Decimal(int(k)) + Decimal("1e20") for k in i], dtype=object),
    "tuples": lambda i: pd.Series([(int(k), "a") for k in i]),
    "bytes": lambda i: pd.Series([str(k).encode() for k in i]),
}  # fmt: skip


@pytest.mark.parametrize("kind", IDS)
def test_cluster_ids_of_any_type(frame: pd.DataFrame, reference: mlmed.Results, kind: str) -> None:
    """40 different ids are 40 clusters: no rounding, no conversion of text to numbers."""
    fit = mlmed.mediate(MEDIATOR, OUTCOME, frame.assign(id=IDS[kind](frame["id"])))
    same_fit(fit, reference)
    assert fit.ranef()["group"].nunique() == 40


@pytest.mark.parametrize("kind", IDS)
def test_ids_come_back_as_they_went_in(frame: pd.DataFrame, kind: str) -> None:
    """ranef() names clusters by the user's ids, and predict() finds them again, also in a subset."""
    data = frame.assign(id=IDS[kind](frame["id"]))
    fit = mlmed.mixed(MEDIATOR, data)
    shown = fit.ranef().query("effect == 'x'")["group"]
    given = pd.Series(data["id"].drop_duplicates())
    assert list(shown) == list(given)
    plain = mlmed.mixed(MEDIATOR, frame)
    some = frame["id"].isin([10, 20])
    np.testing.assert_allclose(
        fit.predict(data[some], of="cluster"), plain.predict(frame[some], of="cluster"), rtol=1e-6
    )


@pytest.mark.parametrize("kind", ["int", "big int", "text", "float"])
@pytest.mark.parametrize("table", ["pandas", "nullable", "polars", "arrow"])
def test_missing_ids_in_every_table(frame: pd.DataFrame, kind: str, table: str) -> None:
    """Dropped, counted, and without changing the other ids."""
    ids = {
        "int": frame["id"],
        "big int": frame["id"] + 2**60,
        "text": frame["id"].map("s{}".format),
        "float": frame["id"] / 10,
    }[kind]
    gap = frame.assign(id=ids.convert_dtypes().where(frame.index >= 12))
    make: dict[str, Callable[[pd.DataFrame], Any]] = {
        "pandas": lambda d: d.assign(id=d["id"].astype(object).where(d["id"].notna(), None)),
        "nullable": lambda d: d,
        "polars": pl.from_pandas,
        "arrow": pa.Table.from_pandas,
    }
    with pytest.warns(DroppedRowsWarning, match=r"12 of 320 rows left out \(missing cluster id: 12\)"):
        fit = mlmed.mixed(MEDIATOR, make[table](gap))
    same_fit(fit, mlmed.mixed(MEDIATOR, frame.iloc[12:]))


def test_empty_text_is_an_id(frame: pd.DataFrame) -> None:
    """It is not missing."""
    data = frame.assign(id=frame["id"].map(lambda k: "" if k == 1 else f"s{k}"))
    same_fit(mlmed.mixed(MEDIATOR, data), mlmed.mixed(MEDIATOR, frame))


def test_combined_ids(frame: pd.DataFrame) -> None:
    """``g:h`` are the pairs that occur; a missing part is a missing id."""
    data = frame.assign(g=frame["id"] % 5, h=(frame["id"] // 5).map("h{}".format))
    fit = mlmed.mixed("m ~ x + (1 + x | g:h)", data)
    same_fit(fit, mlmed.mixed(MEDIATOR, frame))
    assert fit.ranef()["group"].iloc[0] == "1:h0"
    with pytest.warns(DroppedRowsWarning, match="cluster id: 8"):
        part = mlmed.mixed("m ~ x + (1 + x | g:h)", data.assign(h=data["h"].where(data["id"] != 1)))
    assert part.n_clusters == 39


def test_combined_ids_whose_texts_run_together(frame: pd.DataFrame) -> None:
    """("a", "b:c") and ("a:b", "c") are two clusters."""
    first = frame["id"] % 2 == 0
    data = frame.assign(g=np.where(first, "a", "a:b"), h=np.where(first, "b:c", "c"))
    codes, labels = cluster_codes(select_columns(data, ["g", "h"]), ("g", "h"))
    assert len(labels) == 2
    np.testing.assert_array_equal(codes == codes[0], first == first[0])


def test_predictions_for_combined_ids_in_a_subset(frame: pd.DataFrame) -> None:
    """How an id is written must not depend on the other rows of the new data."""
    data = frame.assign(part=frame["id"] / 10.0)
    fit = mlmed.mixed("m ~ x + (1 + x | id:part)", data)
    whole = fit.predict(data, of="cluster")
    some = data["id"].isin([10, 20])
    np.testing.assert_allclose(fit.predict(data[some], of="cluster"), whole[some], rtol=SAME)


# -- missing values ------------------------------------------------------------------------------------------


def gaps(frame: pd.DataFrame, every: dict[str, int]) -> pd.DataFrame:
    """Every k-th value of some columns missing."""
    return frame.assign(**{name: frame[name].where(frame.index % k != 0) for name, k in every.items()})


@pytest.mark.filterwarnings("ignore::mlmed.errors.BoundaryWarning")
@pytest.mark.parametrize("every", [{"m": 7}, {"x": 5}, {"m": 7, "x": 5, "y": 3}, {"m": 2, "x": 3}], ids=str)
@pytest.mark.parametrize("table", ["pandas", "nullable", "polars", "polars NaN", "arrow", "objects"])
def test_one_equation_equals_dropping_by_hand(frame: pd.DataFrame, every: dict[str, int], table: str) -> None:
    """Only rows without a value of the equation go; y does not matter."""
    data = gaps(frame, every)
    make: dict[str, Callable[[pd.DataFrame], Any]] = {
        "pandas": lambda d: d,
        "nullable": lambda d: d.convert_dtypes(),
        "polars": pl.from_pandas,
        "polars NaN": lambda d: pl.from_pandas(d, nan_to_null=False),
        "arrow": pa.Table.from_pandas,
        "objects": lambda d: d.astype(object).where(d.notna(), None),
    }
    by_hand = data.dropna(subset=["m", "x"])
    counts = {name: int(data[name].isna().sum()) for name in ("m", "x") if name in every}
    listed = ", ".join(f"{name}: {count}" for name, count in counts.items())
    with pytest.warns(DroppedRowsWarning) as caught:
        fit = mlmed.mixed(MEDIATOR, make[table](data))
    same_fit(fit, mlmed.mixed(MEDIATOR, by_hand), rel=SAME)
    assert [str(w.message) for w in caught if w.category is DroppedRowsWarning] == [
        f"equation m: {320 - len(by_hand)} of 320 rows left out (missing {listed})"
    ]
    assert f"{320 - len(by_hand)} of 320 rows left out" in " ".join(fit.summary().split())


def test_missing_values_inside_functions_and_interactions(frame: pd.DataFrame) -> None:
    """Where the missing column stands in the formula does not matter."""
    data = gaps(frame, {"x": 5}).assign(g=np.where(frame["y"] > 0, "a", "b"))
    for text in (
        "m ~ I(x**2) + (1 | id)",
        "m ~ y + (1 + np.exp(x / 9) | id)",
        "m ~ g:x + (1 | id)",
        "I(m + 0*x) ~ y + (1 | id)",
    ):
        with pytest.warns(DroppedRowsWarning, match="64 of 320 rows left out .missing x: 64."):
            fit = mlmed.mixed(text, data)
        same_fit(fit, mlmed.mixed(text, data.dropna()), rel=SAME)


def test_missing_values_and_center(frame: pd.DataFrame) -> None:
    """The mean is that of the rows of the equation."""
    data = gaps(frame, {"x": 5})
    with pytest.warns(DroppedRowsWarning, match="missing x: 64"):
        fit = mlmed.mixed("m ~ x + (1 + center(x) | id)", data)
    same_fit(fit, mlmed.mixed("m ~ x + (1 + center(x) | id)", data.dropna()), rel=SAME)


@pytest.mark.filterwarnings("ignore::mlmed.errors.BoundaryWarning")
@pytest.mark.parametrize("every", [{"y": 3}, {"m": 4}, {"x": 5}, {"y": 3, "m": 4, "x": 5}], ids=str)
@pytest.mark.parametrize("table", ["pandas", "polars"])
def test_two_equations_keep_what_each_can_use(frame: pd.DataFrame, every: dict[str, int], table: str) -> None:
    """Sizes, messages, and the likelihood of the stacked rows by a dense normal density."""
    data = gaps(frame, every)
    in_m, in_y = data.dropna(subset=["m", "x"]), data.dropna(subset=["m", "x", "y"])
    with pytest.warns(DroppedRowsWarning) as caught:
        fit = mlmed.mediate(MEDIATOR, OUTCOME, pl.from_pandas(data) if table == "polars" else data)
    assert fit.nobs == len(in_m) + len(in_y)
    missing = {name: int(data[name].isna().sum()) for name in sorted(every)}
    sentences = []
    for equation, used, columns in (("m", in_m, "mx"), ("y", in_y, "mxy")):
        if len(used) < 320:
            listed = ", ".join(f"{name}: {missing[name]}" for name in columns if name in every)
            sentences.append(f"equation {equation}: {320 - len(used)} of 320 rows left out (missing {listed})")
    assert [str(w.message) for w in caught if w.category is DroppedRowsWarning] == ["; ".join(sentences)]
    X = np.zeros((len(in_m) + len(in_y), 5))
    X[: len(in_m), :2] = np.column_stack([np.ones(len(in_m)), in_m["x"]])
    X[len(in_m) :, 2:] = np.column_stack([np.ones(len(in_y)), in_y["m"], in_y["x"]])
    response = np.concatenate([in_m["m"], in_y["y"]])
    codes = np.concatenate([in_m["id"], in_y["id"]])
    residual = np.repeat(fit.fit.estimates.sigma2, [len(in_m), len(in_y)])
    dense = dense_loglik(X, X, response, codes, fit.G.to_numpy(), residual, reml=True)
    assert fit.llf == pytest.approx(dense, rel=DENSE)


def test_dropped_rows_are_in_json_and_summary(frame: pd.DataFrame) -> None:
    """A report without the warning still says what was left out."""
    with pytest.warns(DroppedRowsWarning):
        fit = mlmed.mediate(MEDIATOR, OUTCOME, gaps(frame, {"y": 4}))
    assert "equation y: 80 of 320 rows left out (missing y: 80)" in fit.to_json()
    for style in ("text", "stata"):
        assert "equation y: 80 of 320 rows left out" in " ".join(fit.summary(style).split())


def test_a_cluster_without_outcomes_still_counts_for_the_mediator(frame: pd.DataFrame) -> None:
    """Its m rows are used."""
    data = frame.assign(y=frame["y"].where(frame["id"] > 5))
    with pytest.warns(DroppedRowsWarning, match="^equation y: 40 of 320 rows"):
        fit = mlmed.mediate(MEDIATOR, OUTCOME, data)
    assert fit.n_clusters == 40
    assert fit.nobs == 320 + 280


# -- new data ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["polars", "polars, lazy", "arrow", "dict of lists", "nullable", "python objects"])
@pytest.mark.parametrize("of", ["population", "cluster"])
def test_predictions_from_every_table(reference: mlmed.Results, frame: pd.DataFrame, kind: str, of: str) -> None:
    """The values of plain pandas."""
    found = reference.predict(TABLES[kind](frame), of=of)
    np.testing.assert_allclose(found, reference.predict(frame, of=of), rtol=SAME)


def test_predictions_with_gaps_keep_the_index(reference: mlmed.Results, frame: pd.DataFrame) -> None:
    """NaN where a predictor is missing, by equation; the index of the new data."""
    new = frame.assign(m=frame["m"].where(frame.index != 0)).set_index(frame.index + 1000)
    found = reference.predict(new, of="cluster")
    assert found.index.equals(new.index)
    assert np.isnan(found.loc[1000, "y"])
    assert np.isfinite(found.loc[1000, "m"])
    assert found.iloc[1:].notna().all().all()


def test_predictions_for_unknown_and_missing_clusters(frame: pd.DataFrame) -> None:
    """They get the population value."""
    fit = mlmed.mixed(MEDIATOR, frame)
    population = fit.predict(frame)
    for ids in (frame["id"] + 500, frame["id"].where(frame["id"] < 0), [None] * 320):
        np.testing.assert_allclose(fit.predict(frame.assign(id=ids), of="cluster"), population, rtol=SAME)
    some = fit.predict(frame.assign(id=frame["id"].where(frame["id"] != 1)), of="cluster")
    np.testing.assert_allclose(some[:8], population[:8], rtol=SAME)
    np.testing.assert_allclose(some[8:], fit.predict(frame, of="cluster")[8:], rtol=SAME)


def test_predictions_for_booleans_with_gaps(frame: pd.DataFrame) -> None:
    """A missing value turns a boolean column of pandas into objects; it stays the same predictor."""
    data = frame.assign(up=frame["x"] > 0)
    fit = mlmed.mixed("m ~ up + (1 | id)", data)
    gap = fit.predict(data.assign(up=data["up"].astype(object).where(data.index > 1, None)))
    assert gap[:2].isna().all()
    np.testing.assert_allclose(gap[2:], fit.predict(data)[2:], rtol=SAME)


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow", "dict of lists"])
def test_predictions_of_a_model_without_predictors(frame: pd.DataFrame, kind: str) -> None:
    """The mean for as many rows as the new data have."""
    fit = mlmed.mixed("m ~ 1 + (1 | id)", frame)
    new = frame.head(5) if kind == "pandas" else TABLES[kind](frame.head(5))
    np.testing.assert_allclose(fit.predict(new), np.full(5, fit.params["Intercept"]), rtol=SAME)


@pytest.mark.parametrize("kind", ["pandas string", "categories", "polars", "polars enum"])
def test_predictions_for_text_in_another_type(factors: pd.DataFrame, kind: str) -> None:
    """One row suffices; levels are those of the fit."""
    fit = mlmed.mixed("m ~ x + g + (1 | id)", factors)
    whole = fit.predict(factors)
    np.testing.assert_allclose(fit.predict(TEXTS[kind](factors)), whole, rtol=SAME)
    np.testing.assert_allclose(fit.predict(TEXTS[kind](factors.iloc[[7]])), whole.iloc[[7]], rtol=SAME)


def test_transformations_are_those_of_the_fit(frame: pd.DataFrame) -> None:
    """center(x) subtracts the mean of the data that were fitted."""
    fit = mlmed.mixed("m ~ x + (1 + center(x) | id)", frame)
    np.testing.assert_allclose(
        fit.predict(frame.head(8), of="cluster"), fit.predict(frame, of="cluster").head(8), rtol=SAME
    )


# -- the reading itself --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["polars", "polars, lazy", "arrow", "dict of lists", "nullable"])
def test_column_names_of_any_table(frame: pd.DataFrame, kind: str) -> None:
    """In order, as text."""
    assert column_names(TABLES[kind](frame)) == ["id", "x", "m", "y"]


def test_select_columns_reads_only_what_is_wanted(frame: pd.DataFrame) -> None:
    """Other columns may hold anything."""
    odd = frame.assign(junk=[object() for _ in range(len(frame))])
    table = select_columns(odd, ["x", "id"])
    assert list(table.columns) == ["id", "x"] or list(table.columns) == ["x", "id"]
    assert table["x"].dtype == np.float64
    assert table.index.equals(pd.RangeIndex(320))


def test_a_text_id_may_be_a_predictor() -> None:
    """Clusters as dummy variables beside their random slope; the id is text or numbers in C()."""
    data = mlmed.simulate.bpg(4, 30, seed=1).data
    named = data.assign(id="c" + data["id"].astype(str))
    by_text = mlmed.mixed("m ~ x + id + (0 + x | id)", named)
    by_number = mlmed.mixed("m ~ x + C(id) + (0 + x | id)", data)
    assert by_text.llf == pytest.approx(by_number.llf, abs=1e-9)
    assert list(by_text.params.index)[2] == "id[T.c2]"
