"""Sums made by the engine that holds the rows equal those made in memory: fits, messages and errors."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import mlmed
from mlmed.cli import main
from mlmed.errors import DataError, FormulaError, NotIdentifiedError
from tests.models import MEDIATOR, OUTCOME, with_factors
from tests.tolerances import DENSE

dd = pytest.importorskip("dask.dataframe")


def duck(data: pd.DataFrame) -> Any:
    """A DuckDB relation over the rows."""
    return duckdb.connect().from_arrow(pa.Table.from_pandas(data, preserve_index=False))


ENGINES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "polars": lambda d: pl.from_pandas(d).lazy(),
    "duckdb": duck,
    "dask": lambda d: dd.from_pandas(d, npartitions=3),
}
every_engine = pytest.mark.parametrize("engine", ENGINES)
fast_engines = pytest.mark.parametrize("engine", ["polars", "duckdb"])


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """40 clusters of 8 with factors, booleans and a positive column."""
    data = with_factors(mlmed.simulate.bpg(40, 8, seed=3).data, seed=1)
    return data.assign(up=data["x"] > 0)


def recorded(call: Callable[[Any], Any], data: Any) -> tuple[Any, list[str]]:
    """The result and the warnings that came with it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call(data)
    told = [f"{w.category.__name__}: {w.message}" for w in caught]
    return result, [text for text in told if not text.startswith("CategoryWarning")]  # Polars' Categorical: no order


def same_fit(left: mlmed.Results, right: mlmed.Results, *, rel: float = DENSE, slopes: float = 0.9) -> None:
    """Equal sizes, names and likelihood, at the optimum and at fixed variances."""
    assert (left.nobs, left.n_clusters) == (right.nobs, right.n_clusters)
    assert list(left.params.index) == list(right.params.index)
    assert list(left.G.index) == list(right.G.index)
    assert left.llf == pytest.approx(right.llf, rel=rel)
    G = np.diag([0.4 if name.endswith("Intercept") else slopes for name in right.G.index])
    sigma2 = np.full(len(right.sigma2), 0.7)
    assert left.loglik_at(G, sigma2) == pytest.approx(right.loglik_at(G, sigma2), rel=rel)
    scale = float(np.abs(right.params).max())
    np.testing.assert_allclose(left.params, right.params, rtol=1e-6, atol=1e-7 * scale)


def compare(engine: str, call: Callable[[Any], Any], data: pd.DataFrame, *, slopes: float = 0.9) -> tuple[Any, Any]:
    """The fits to an engine's rows and in memory, which are equal, and so are their warnings."""
    expected, said = recorded(call, data)
    found, says = recorded(call, ENGINES[engine](data))
    assert says == said
    same_fit(found, expected, slopes=slopes)
    return found, expected


def one(text: str, **options: Any) -> Callable[[Any], mlmed.Results]:
    """Fit one equation."""
    return lambda data: mlmed.mixed(text, data, **options)


def both(data: Any) -> mlmed.Results:
    """Fit the mediation model."""
    return mlmed.mediate(MEDIATOR, OUTCOME, data)


# -- the same fit ----------------------------------------------------------------------------------------------


@every_engine
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_mediation_equals_memory(frame: pd.DataFrame, engine: str, offset: float) -> None:
    """Fit, effects, predictions and modes; also far from zero."""
    data = frame.assign(x=frame["x"] + offset)
    fit, expected = compare(engine, both, data, slopes=1e-9 if offset else 0.9)
    left, right = fit.effects(), expected.effects()
    np.testing.assert_allclose(left["estimate"], right["estimate"], rtol=1e-6)
    np.testing.assert_allclose(left["std_error"], right["std_error"], rtol=1e-5)
    for of in ("population", "cluster"):
        np.testing.assert_allclose(fit.predict(data, of=of), expected.predict(data, of=of), rtol=1e-5, atol=1e-6)


@every_engine
def test_fixed_variances_far_from_zero(frame: pd.DataFrame, engine: str) -> None:
    """A likelihood of V = 0.7 I + 0.4 J + 0.9 xx' is well conditioned, also where x is 1e6."""
    data = frame.assign(x=frame["x"] + 1e6)
    compare(engine, one(MEDIATOR), data)


def test_parquet_files_are_scanned(frame: pd.DataFrame, tmp_path: Path) -> None:
    """pl.scan_parquet and read_parquet over several files."""
    for number in range(4):
        frame[frame["id"] % 4 == number].to_parquet(tmp_path / f"{number}.parquet")
    expected = both(frame)
    same_fit(both(pl.scan_parquet(tmp_path / "*.parquet")), expected)
    same_fit(both(duckdb.connect().read_parquet(str(tmp_path / "*.parquet"))), expected)


@every_engine
@pytest.mark.parametrize("options", [{"method": "ml"}, {"covariance": "diagonal"}], ids=str)
def test_options_apply(frame: pd.DataFrame, engine: str, options: dict[str, Any]) -> None:
    """Criterion and structure."""
    compare(engine, one("m ~ x + (1 + x | id)", **options), frame)


FORMULAS = [
    "m ~ x + g + (1 + g | id)",
    "m ~ C(k) * x + (1 | id)",
    "m ~ C(g) + x + (1 + C(g) | id)",
    "m ~ 0 + g + (0 + g | id)",
    "m ~ 0 + x:g + (1 | id)",
    "m ~ (x + w + g)**2 + (1 | id)",
    "m ~ x / g + (1 | id)",
    "m ~ g:C(k) + x + (1 | id)",
    "m ~ g * C(k) * x + (1 | id)",
    "m ~ np.log(pos) + I(x**2) + (1 | id)",
    "m ~ I(2**w) + I(1 / pos) + I(x - -w) + (1 | id)",
    "m ~ np.exp(-x) + np.abs(w) + abs(x):w + (1 | id)",
    "m ~ np.log10(pos) + np.sqrt(pos) + np.log2(pos + 1) + (1 | id)",
    "m ~ I(x * np.log(2)) + (1 | id)",
    "m ~ center(x) + scale(w) + (1 + center(x) | id)",
    "m ~ scale(x):g + (1 | id)",
    "np.log(pos) ~ x + (1 + x | id)",
    "I(m + x**2) ~ w + (1 | id)",
    "center(m) ~ x + (1 | id)",
    "m ~ up + (1 + up | id)",
    "m ~ C(up):x + (1 | id)",
    "m ~ 1 + (1 | id)",
    "m ~ x + (1 | id) + (0 + x | id)",
    "m ~ x + (1 + x || id)",
    "m ~ x + (1 | g:k)",
    "m ~ id + (1 | id)",
]


@pytest.mark.parametrize("text", FORMULAS)
@fast_engines
def test_formulas_equal_memory(frame: pd.DataFrame, engine: str, text: str) -> None:
    """Factors, interactions, transformations, random slopes of factors, responses that are expressions."""
    found, expected = compare(engine, one(text), frame)
    np.testing.assert_allclose(found.predict(frame.head(9)), expected.predict(frame.head(9)), atol=1e-5)


@pytest.mark.parametrize("text", FORMULAS[1:14:3])
def test_formulas_in_dask(frame: pd.DataFrame, text: str) -> None:
    """Some of them, for the slower engine."""
    compare("dask", one(text), frame)


@every_engine
def test_constants_are_no_problem_without_an_intercept(frame: pd.DataFrame, engine: str) -> None:
    """A column of ones may take the place of the intercept, as in memory."""
    data = frame.assign(one=1.0)
    compare(engine, one("m ~ 0 + one + x + (1 | id)"), data)
    compare(engine, one("m ~ x + (0 + one | id)"), data)


@every_engine
@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("m ~ poly(x, 2) + (1 | id)", "poly(x, 2)"),
        ("m ~ bs(x, df=4) + (1 | id)", "bs(x, df=4)"),
        ("m ~ hashed(g, levels=2) + (1 | id)", "hashed(g, levels=2)"),
        ("m ~ x + (1 + C(w > 0) | id)", "C(w > 0)"),
        ("poly(m, 1) ~ x + (1 | id)", "poly(m, 1)"),
        ("m ~ center(np.log(pos)) + (1 | id)", "center(np.log(pos))"),
    ],
)
def test_what_cannot_be_pushed_down_is_named(frame: pd.DataFrame, engine: str, text: str, function: str) -> None:
    """The term and what to do."""
    with pytest.raises(FormulaError) as caught:
        mlmed.mixed(text, ENGINES[engine](frame))
    assert f"the term {function} cannot be computed" in str(caught.value)
    assert "make it a column" in str(caught.value)


@every_engine
@pytest.mark.parametrize(
    "text",
    [
        "m ~ np.sin(x) + (1 | id)",
        "m ~ C(g, contr.sum)*x + (1 | id)",
        "m ~ x + (1 + np.tanh(w) | id)",
        "np.cbrt(m) ~ x + I(w > 0) + (1 | id)",
        "center(m) ~ np.cosh(x) + (1 | id)",
        "m ~ np.where(g == 'a', x, 0) + (1 | id)",
    ],
)
def test_functions_equal_memory(frame: pd.DataFrame, engine: str, text: str) -> None:
    """Those that the engine computes, and those for which its rows are fetched."""
    compare(engine, one(text), frame)


def test_too_many_levels_are_refused(frame: pd.DataFrame) -> None:
    """Text as long as the table, in the words of a table in memory."""
    data = frame.assign(t="v" + frame["x"].astype(str))
    said = r"column 't' is text with 320 different values \(v-0.01.* a factor cannot have that many levels"
    for engine in (duck, lambda table: table):
        with pytest.raises(DataError, match=said):
            mlmed.mixed("m ~ t + (1 | id)", engine(data))


# -- types of columns ------------------------------------------------------------------------------------------


def _decimals(values: pd.Series) -> list[Decimal]:
    return [Decimal(f"{v:.4f}") for v in values]


TYPES: dict[str, tuple[str, Callable[[pd.DataFrame], pd.DataFrame]]] = {
    "float32": (MEDIATOR, lambda d: d.astype({"x": "float32", "m": "float32"})),
    "float32 far away": (MEDIATOR, lambda d: d.assign(x=(d["x"] * 100 + 1e6).astype("float32"))),
    "int8": ("m ~ z + I(z**2) + (1 | id)", lambda d: d.assign(z=(10 * d["x"]).astype("int8"))),
    "uint16": ("m ~ z + I((z - 200)**3) + (1 | id)", lambda d: d.assign(z=(10 * d["x"] + 100).astype("uint16"))),
    "int64": ("m ~ z:w + (1 | id)", lambda d: d.assign(z=(1e12 * d["x"]).astype("int64"))),
    "nullable": (MEDIATOR, lambda d: d.convert_dtypes()),
    "decimals": (MEDIATOR, lambda d: d.assign(x=_decimals(d["x"]), m=_decimals(d["m"]))),
    "category": ("m ~ g + x + (1 | id)", lambda d: d.assign(g=pd.Categorical(d["g"]))),
    "unused category": ("m ~ g + x + (1 | id)", lambda d: d.assign(g=pd.Categorical(d["g"], list("abcz")))),
    "odd levels": ("m ~ g + (1 | id)", lambda d: d.assign(g=d["g"].map({"a": "it's", "b": 'q"t', "c": "u:v [T.x]"}))),
    "numbers as text": ("m ~ C(g) + (1 | id)", lambda d: d.assign(g=d["k"].map({1: "1", 2: "1.0", 3: "10"}))),
    "text ids": (MEDIATOR, lambda d: d.assign(id="s" + d["id"].astype(str))),
    "category ids": (MEDIATOR, lambda d: d.assign(id=pd.Categorical([f"s{v}" for v in d["id"]], _NAMES))),
    "date ids": (MEDIATOR, lambda d: d.assign(id=pd.Timestamp("2020-01-01") + pd.to_timedelta(d["id"], unit="D"))),
    "decimal ids": (MEDIATOR, lambda d: d.assign(id=[Decimal(v).quantize(Decimal("0.01")) for v in d["id"]])),
    "truth values as ids": ("m ~ x + (1 | up)", lambda d: d),
    "float ids with gaps": (MEDIATOR, lambda d: d.assign(id=d["id"].astype(float).where(d.index % 5 != 0))),
    "text ids with gaps": (MEDIATOR, lambda d: d.assign(id=("s" + d["id"].astype(str)).where(d.index % 5 != 0, None))),
    "combined ids with gaps": ("m ~ x + (1 | g:k)", lambda d: d.assign(g=d["g"].where(d.index % 5 != 0, None))),
    "combined category ids": ("m ~ x + (1 | g:k)", lambda d: d.assign(g=pd.Categorical(d["g"], list("abcz")))),
    "booleans with gaps": ("m ~ up + (1 | id)", lambda d: d.assign(up=d["up"].astype("boolean").where(d["k"] != 1))),
    "factor with gaps": ("m ~ g + (1 | id)", lambda d: d.assign(g=d["g"].where(d.index % 5 != 0, None))),
}
_NAMES = [f"s{k}" for k in range(100)]


@pytest.mark.parametrize("kind", TYPES)
@fast_engines
def test_types_equal_memory(frame: pd.DataFrame, engine: str, kind: str) -> None:
    """Numbers, text, ids, with and without gaps."""
    text, change = TYPES[kind]
    compare(engine, one(text), change(frame))


def test_an_enumeration_in_duckdb_keeps_its_order(frame: pd.DataFrame) -> None:
    """A table that lost the order on its way (Arrow, Polars' Categorical) has its levels sorted instead."""
    ordered = frame.assign(g=pd.Categorical(frame["g"], list("cab")))
    fit = mlmed.mixed("m ~ g + x + (1 | id)", duckdb.from_df(ordered))
    assert list(fit.params.index) == ["Intercept", "g[T.a]", "g[T.b]", "x"]
    assert fit.llf == pytest.approx(mlmed.mixed("m ~ g + x + (1 | id)", ordered).llf, rel=1e-9)


def test_dask_does_not_leave_out_what_is_not_a_number(frame: pd.DataFrame) -> None:
    """Its sums skip NaN; the logarithm of a negative number is refused all the same."""
    import dask.dataframe as dd

    with pytest.raises(FormulaError, match=r"np\.log\(x\)"):
        mlmed.mixed("m ~ np.log(x) + x + (1 | id)", dd.from_pandas(frame, npartitions=3))


def test_standardize_is_refused(frame: pd.DataFrame) -> None:
    """It divides by the standard deviation of n, which scale() does not; only scale() is translated."""
    with pytest.raises(FormulaError, match=r"standardize\(\) is not translated"):
        mlmed.mixed("m ~ standardize(x) + (1 | id)", duckdb.from_df(frame))


@pytest.mark.parametrize(
    "kind", ["float32", "nullable", "category ids", "text ids with gaps", "combined ids with gaps"]
)
def test_types_in_dask(frame: pd.DataFrame, kind: str) -> None:
    """Those that pandas groups in ways of its own."""
    text, change = TYPES[kind]
    compare("dask", one(text), change(frame))


def test_order_of_enums_chooses_the_reference(frame: pd.DataFrame) -> None:
    """The first category of a typed Enum is the reference in memory, so it is when pushed down."""
    eager = pl.from_pandas(frame).with_columns(pl.col("g").cast(pl.Enum(["c", "a", "b"])))
    same_fit(mlmed.mixed("m ~ g + (1 | id)", eager.lazy()), mlmed.mixed("m ~ g + (1 | id)", eager))


def test_types_of_duckdb(frame: pd.DataFrame) -> None:
    """Wide integers and typed decimals."""
    connection = duckdb.connect()
    connection.register("rows", frame)
    relation = connection.sql("select * replace (id::hugeint as id, m::decimal(18, 9) as m), k::hugeint as z from rows")
    rounded = frame.assign(z=frame["k"], m=frame["m"].round(9))
    same_fit(mlmed.mixed("m ~ x + z + (1 | id)", relation), mlmed.mixed("m ~ x + z + (1 | id)", rounded))


NAMES = [
    ("m ~ po.s + np.exp(`a b`) + (1 + po.s | id)", {"pos": "po.s", "w": "a b"}),
    ("`the m` ~ `my x` * g.h + (1 + `my x` | id)", {"x": "my x", "g": "g.h", "m": "the m"}),
    ("m.a ~ C(`k k`) + x + (1 | `my id`)", {"m": "m.a", "k": "k k", "id": "my id"}),
    ("m ~ x + (1 | sub.id)", {"id": "sub.id"}),
    ("m ~ x + (1 | g.a:k.b)", {"g": "g.a", "k": "k.b"}),
    ("m ~ C + I(np**2) + (1 | id)", {"x": "C", "w": "np"}),
    ("c2 ~ c1 + p1 + (1 | id)", {"m": "c2", "x": "c1", "w": "p1"}),
    ("m0 ~ v0 + s0 + C(level) + (1 | id)", {"m": "m0", "x": "v0", "w": "s0", "k": "level"}),
    *[(f"m ~ x + (1 | {name})", {"id": name}) for name in ("c1", "p1", "C1", "P2", "level", "v0", "mlmed_n")],
    ("m ~ `q\"q` + (1 | `it's`)", {"x": 'q"q', "id": "it's"}),
    ("m ~ x + tränë + (1 | id)", {"w": "tränë"}),
]


@pytest.mark.parametrize(("text", "names"), NAMES, ids=[text for text, _ in NAMES])
@fast_engines
def test_any_name_works(frame: pd.DataFrame, engine: str, text: str, names: dict[str, str]) -> None:
    """Dots, spaces, quotes, names that mlmed uses inside."""
    compare(engine, one(text), frame.rename(columns=names))


def test_a_cluster_variable_is_not_confused_with_a_standardised_column(frame: pd.DataFrame) -> None:
    """A cluster variable called c2, where the second column has two values: still 40 clusters."""
    data = frame.assign(up=1.0 * frame["up"]).rename(columns={"id": "c2"})
    for make in ENGINES.values():
        assert mlmed.grams("m ~ up + (1 | c2)", make(data)).n_clusters == 40


# -- missing values --------------------------------------------------------------------------------------------


def gaps(frame: pd.DataFrame, every: dict[str, int]) -> pd.DataFrame:
    """Every k-th value of some columns missing."""
    return frame.assign(**{name: frame[name].where(frame.index % k != 0) for name, k in every.items()})


@pytest.mark.parametrize(
    "every", [{"y": 3}, {"m": 4}, {"x": 5}, {"y": 3, "m": 4, "x": 5}, {"id": 7, "y": 3, "x": 5}], ids=str
)
@fast_engines
def test_each_equation_keeps_its_rows(frame: pd.DataFrame, engine: str, every: dict[str, int]) -> None:
    """Counts and messages are those of pandas."""
    data = gaps(frame, every)
    fit, _ = compare(engine, both, data)
    known = data.dropna(subset=["id"])
    assert fit.nobs == len(known.dropna(subset=["m", "x"])) + len(known.dropna(subset=["m", "x", "y"]))
    _, said = recorded(both, ENGINES[engine](data))
    assert said[0].startswith("DroppedRowsWarning: ")


def test_dropped_rows_in_dask(frame: pd.DataFrame) -> None:
    """Counts and messages are those of pandas."""
    compare("dask", both, gaps(frame, {"y": 3, "m": 4}))


def test_nan_and_null_are_both_missing(frame: pd.DataFrame) -> None:
    """In Polars, DuckDB and Arrow, mixed in one column."""
    data = gaps(frame, {"x": 5, "y": 3})
    mixed_gaps = pl.from_pandas(data, nan_to_null=False).with_columns(
        pl.when(pl.int_range(pl.len()) % 7 == 3).then(None).otherwise(pl.col("x")).alias("x")
    )
    expected, said = recorded(both, data.assign(x=data["x"].where(data.index % 7 != 3)))
    for rows in (mixed_gaps.lazy(), duckdb.connect().from_arrow(mixed_gaps.to_arrow())):
        found, says = recorded(both, rows)
        assert says == said
        same_fit(found, expected)


@fast_engines
@pytest.mark.parametrize("text", ["m ~ I(x**2) + w + (1 | id)", "m ~ g:x + (1 | id)", "m ~ w + (1 + center(x) | id)"])
def test_gaps_inside_terms(frame: pd.DataFrame, engine: str, text: str) -> None:
    """The mean in center() is that of the rows of the equation."""
    compare(engine, one(text), gaps(frame, {"x": 5}))


@every_engine
def test_centred_columns_of_two_equations_with_other_rows(frame: pd.DataFrame, engine: str) -> None:
    """center(x) means another number in each equation."""
    data = gaps(frame, {"y": 3})

    def call(rows: Any) -> mlmed.Results:
        return mlmed.mediate("m ~ center(x) + (1 | id)", "y ~ m + center(x) + (1 + center(x) | id)", rows)

    (expected, _), (found, _) = recorded(call, data), recorded(call, ENGINES[engine](data))
    assert found.nobs == expected.nobs
    assert found.llf == pytest.approx(expected.llf, rel=DENSE)


# -- effects and predictions -----------------------------------------------------------------------------------


@every_engine
def test_moderated_effects_and_new_clusters(frame: pd.DataFrame, engine: str) -> None:
    """effects(at=...) with numbers and levels, predictions for subsets, unknown clusters and unknown levels."""
    data = frame.assign(id="s" + frame["id"].astype(str))

    def call(rows: Any) -> mlmed.Results:
        return mlmed.mediate("m ~ x * g + (1 | id)", "y ~ m * w + x + (1 + m | id)", rows, treatment="x")

    fit, expected = compare(engine, call, data)
    for at in ({"g": "b", "w": 0.5}, {"g": "c", "w": -1.0}):
        left, right = fit.effects(at=at), expected.effects(at=at)
        np.testing.assert_allclose(left["estimate"], right["estimate"], rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(left["std_error"], right["std_error"], rtol=1e-5, atol=1e-8)
    new = data.head(10).assign(id=["s1"] * 5 + ["nobody"] * 5)
    np.testing.assert_allclose(
        fit.predict(new, of="cluster"), expected.predict(new, of="cluster"), rtol=1e-5, atol=1e-7
    )
    modes = fit.ranef().set_index(["effect", "group"])["estimate"]
    np.testing.assert_allclose(
        modes, expected.ranef().set_index(["effect", "group"])["estimate"].loc[modes.index], atol=1e-6
    )
    with pytest.raises(DataError, match="level 'z'"):
        fit.predict(new.assign(g="z"))


@every_engine
def test_contrast_of_a_text_treatment(frame: pd.DataFrame, engine: str) -> None:
    """Two levels: the effect of the second against the first."""
    data = frame.assign(arm=np.where(frame["up"], "treated", "control"))

    def call(rows: Any) -> mlmed.Results:
        return mlmed.mediate("m ~ arm + (1 | id)", "y ~ m + arm + (1 + m | id)", rows)

    np.testing.assert_allclose(
        call(ENGINES[engine](data)).effects()["estimate"], call(data).effects()["estimate"], rtol=1e-6, atol=1e-8
    )


# -- rows in an order --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ordered() -> pd.DataFrame:
    """12,000 rows sorted by w, far from its mean at first; a rare level last; a column that is 0 for long."""
    rng = np.random.default_rng(8)
    data = mlmed.simulate.bpg(300, 40, seed=8).data
    data["w"] = np.sort(rng.exponential(size=len(data)))
    data["m"] += 0.3 * data["x"] * data["w"]
    data["late"] = np.where(data.index < 9000, 0.0, rng.normal(size=len(data)))
    data["g"] = np.where(data.index < 11_950, rng.choice(["b", "c"], len(data)), "a")
    data["id"] = rng.integers(0, 300, len(data))
    return data


@pytest.mark.parametrize(
    "text",
    [
        "m ~ x * w + (1 | id)",
        "m ~ late + g + I(w**2) + (1 | id)",
        "m ~ scale(w) + x + (1 | id)",
        "m ~ np.log(w) + x:late + (1 | id)",
    ],
)
@every_engine
def test_the_first_rows_need_not_be_typical(ordered: pd.DataFrame, engine: str, text: str) -> None:
    """Units, levels and means are those of all rows."""
    compare(engine, one(text), ordered)


@every_engine
def test_the_first_rows_may_be_missing(ordered: pd.DataFrame, engine: str) -> None:
    """Also all rows of the first partition."""
    compare(engine, one("m ~ x + w + (1 | id)"), ordered.assign(x=ordered["x"].where(ordered.index > 6000)))


@pytest.mark.parametrize("mediator", ["m ~ x + x:w + (1 | id)", "m ~ x * np.log(w) + (1 | id)", "m ~ x * w + (1 | id)"])
@fast_engines
def test_effects_are_taken_at_the_mean_of_all_rows(ordered: pd.DataFrame, engine: str, mediator: str) -> None:
    """A moderator that is no column of its own still has the mean of all rows, not of the first ones."""

    def call(rows: Any) -> mlmed.Results:
        return mlmed.mediate(mediator, "y ~ m + x + (1 | id)", rows, treatment="x")

    expected, _ = recorded(call, ordered)
    found, _ = recorded(call, ENGINES[engine](ordered))
    np.testing.assert_allclose(found.effects()["estimate"], expected.effects()["estimate"], rtol=1e-5, atol=1e-7)


# -- what is refused -------------------------------------------------------------------------------------------

BAD: dict[str, tuple[str, Callable[[pd.DataFrame], pd.DataFrame], type[Exception], str]] = {
    "infinite predictor": (
        MEDIATOR,
        lambda d: d.assign(x=d["x"].where(d.index != 3, np.inf)),
        DataError,
        "x.*infinite",
    ),
    "infinite response": (
        MEDIATOR,
        lambda d: d.assign(m=d["m"].where(d.index != 3, -np.inf)),
        DataError,
        "m.*infinite",
    ),
    "infinite id": (
        MEDIATOR,
        lambda d: d.assign(id=d["id"].astype(float).where(d.index != 3, np.inf)),
        DataError,
        "id.*infinite",
    ),
    "constant predictor": (MEDIATOR, lambda d: d.assign(x=1.0), DataError, "'x' is constant"),
    "constant response": (MEDIATOR, lambda d: d.assign(m=1.0), DataError, "'m' is constant"),
    "constant factor": ("m ~ g + (1 | id)", lambda d: d.assign(g="a"), DataError, "'g' is constant"),
    "unknown predictor": ("m ~ nope + (1 | id)", lambda d: d, DataError, "'nope' is not in the data"),
    "unknown response": ("nope ~ x + (1 | id)", lambda d: d, DataError, "'nope' is not in the data"),
    "unknown id": ("m ~ x + (1 | nope)", lambda d: d, DataError, "'nope' is not in the data"),
    "one cluster": (MEDIATOR, lambda d: d.assign(id=1), DataError, "1 cluster"),
    "all missing": (MEDIATOR, lambda d: d.assign(x=np.nan), DataError, "'x' has only missing"),
    "all missing text": (
        "m ~ g + (1 | id)",
        lambda d: d.assign(g=pd.Series([None] * len(d), dtype="string")),
        DataError,
        "'g' has only missing",
    ),
    "no id": (MEDIATOR, lambda d: d.assign(id=np.nan), DataError, "id is missing in every row"),
    "no complete row": (
        "m ~ x + w + (1 | id)",
        lambda d: d.assign(x=d["x"].where(d.index % 2 == 0), w=d["w"].where(d.index % 2 == 1)),
        DataError,
        "no complete row",
    ),
    "text response": ("g ~ x + (1 | id)", lambda d: d, DataError, "'g' is not numeric"),
    "text in arithmetic": ("I(g + 1) ~ x + (1 | id)", lambda d: d, FormulaError, "g"),
    "logarithm of text": ("m ~ np.log(g) + (1 | id)", lambda d: d, FormulaError, "g"),
    "date": (
        "m ~ d + (1 | id)",
        lambda d: d.assign(d=pd.Timestamp("2020-01-01") + pd.to_timedelta(d.index, unit="D")),
        DataError,
        "'d' has the type",
    ),
    "logarithm of a negative number": ("m ~ np.log(w) + (1 | id)", lambda d: d, FormulaError, "not a finite number"),
    "division by zero": ("m ~ I(1 / up) + (1 | id)", lambda d: d, FormulaError, "not a finite number"),
    "response that is not finite": ("np.log(w) ~ x + (1 | id)", lambda d: d, FormulaError, "not a finite number"),
    "no fixed effect": ("m ~ 0 + (1 | id)", lambda d: d, FormulaError, "no fixed effect"),
    "effect in two terms": ("m ~ x + (1 | id) + (1 + x | id)", lambda d: d, FormulaError, "two terms"),
    "column called Intercept": (
        "m ~ Intercept + (1 | id)",
        lambda d: d.rename(columns={"x": "Intercept"}),
        FormulaError,
        "rename it",
    ),
    "huge predictor": (MEDIATOR, lambda d: d.assign(x=d["x"] * 1e200), DataError, "overflow|usual size"),
    "huge response": (MEDIATOR, lambda d: d.assign(m=d["m"] * 1e200), DataError, "overflow|usual size"),
    "collinear": ("m ~ x + z + (1 | id)", lambda d: d.assign(z=2 * d["x"] + 1), NotIdentifiedError, "linear comb"),
    "no rows": (MEDIATOR, lambda d: d.iloc[:0], DataError, "no rows"),
}


@pytest.mark.parametrize("case", BAD)
@fast_engines
def test_errors_equal_memory(frame: pd.DataFrame, engine: str, case: str) -> None:
    """The class of the in-memory path, naming the column."""
    text, change, kind, words = BAD[case]
    data = change(frame)
    with pytest.raises(kind, match=words):
        mlmed.mixed(text, data)
    with pytest.raises(kind, match=words):
        mlmed.mixed(text, ENGINES[engine](data))


@pytest.mark.parametrize("case", ["infinite predictor", "unknown id", "all missing", "text response", "one cluster"])
def test_errors_in_dask(frame: pd.DataFrame, case: str) -> None:
    """The usual mistakes."""
    text, change, kind, words = BAD[case]
    with pytest.raises(kind, match=words):
        mlmed.mixed(text, ENGINES["dask"](change(frame)))


@every_engine
def test_one_cluster_in_one_equation(frame: pd.DataFrame, engine: str) -> None:
    """Outcomes in a single cluster are refused, although the mediator has 40."""
    data = frame.assign(y=frame["y"].where(frame["id"] == 1))
    for rows in (data, ENGINES[engine](data)):
        with pytest.raises(DataError, match="equation y has 1 cluster"):
            both(rows)


# -- size ------------------------------------------------------------------------------------------------------


def test_a_million_text_ids() -> None:
    """Clusters of 1 to 3 rows; the sums of DuckDB against those made in memory from whole-number ids."""
    rng = np.random.default_rng(5)
    codes = np.repeat(np.arange(1_000_000), rng.integers(1, 4, 1_000_000))
    x = rng.normal(size=len(codes))
    m = 0.5 * x + 0.7 * rng.normal(size=1_000_000)[codes] + rng.normal(size=len(codes))
    data = pd.DataFrame({"code": codes, "x": x, "m": m})
    connection = duckdb.connect()
    relation = connection.from_arrow(pa.Table.from_pandas(data)).select("'subject ' || code::varchar as id, x, m")
    found, expected = (
        mlmed.mixed("m ~ x + (1 | id)", relation),
        mlmed.mixed("m ~ x + (1 | code)", data),
    )
    assert found.n_clusters == 1_000_000
    same_fit(found, expected)
    assert found.G.iloc[0, 0] == pytest.approx(0.49, abs=0.01)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_one_huge_cluster_among_small_ones(offset: float) -> None:
    """A million rows in one cluster, 10 in each of 50, summed by Polars and DuckDB."""
    rng = np.random.default_rng(6)
    codes = np.append(np.zeros(1_000_000, dtype=int), np.repeat(np.arange(1, 51), 10))
    u = rng.normal(size=(2, 51))
    x = rng.normal(size=len(codes))
    m = u[0][codes] + (0.5 + 0.4 * u[1][codes]) * x + rng.normal(size=len(codes))
    data = pd.DataFrame({"id": codes, "x": x + offset, "m": m})
    expected = mlmed.mixed(MEDIATOR, data)
    for rows in (pl.from_pandas(data).lazy(), duck(data)):
        same_fit(mlmed.mixed(MEDIATOR, rows), expected, slopes=1e-9 if offset else 0.9)


# -- command line ----------------------------------------------------------------------------------------------


@pytest.fixture
def shards(frame: pd.DataFrame, tmp_path: Path) -> str:
    """Two Parquet files, the columns of the second in another order; a pattern for both."""
    (tmp_path / "obs").mkdir()
    frame[frame["id"] <= 20].to_parquet(tmp_path / "obs" / "1.parquet")
    frame.loc[frame["id"] > 20, frame.columns[::-1]].to_parquet(tmp_path / "obs" / "2.parquet")
    return str(tmp_path / "obs" / "*.parquet")


BOTH = ["--mediator", MEDIATOR, "--outcome", OUTCOME, "--format", "csv"]


def estimates(text: str) -> pd.Series:
    """Numbers of a CSV report by term."""
    from io import StringIO

    table = pd.read_csv(StringIO(text))
    return table.set_index(["section", "term"])["estimate"].astype(float)


def test_fit_streams_files(frame: pd.DataFrame, shards: str, capsys: pytest.CaptureFixture[str]) -> None:
    """mlmed mediate 'obs/*.parquet' prints what a fit in memory prints."""
    assert main(["mediate", shards, *BOTH]) == 0
    found = estimates(capsys.readouterr().out)
    expected = estimates(both(frame).to_table().to_csv(index=False))
    pd.testing.assert_series_equal(found, expected, rtol=1e-5, atol=1e-7)


def test_fit_never_reads_rows_into_memory(shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of rows is not collected."""

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("rows were read into memory")

    monkeypatch.setattr("mlmed.fit.lmm.build_design", never)
    monkeypatch.setattr("mlmed.cli.files.read_labelled", never)
    assert main(["mediate", shards, *BOTH, "--out", "/dev/null"]) == 0


@pytest.mark.parametrize("case", ["no match", "not parquet", "another type in one file", "a column less in one file"])
def test_bad_files_end_with_a_message(
    frame: pd.DataFrame, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    """Status 2 and one sentence, no traceback."""
    source = shards
    if case == "no match":
        source = str(tmp_path / "none" / "*.parquet")
    elif case == "not parquet":
        source = str(tmp_path / "text.parquet")
        Path(source).write_text("this is no Parquet file")
    elif case == "another type in one file":
        frame.assign(m="a").to_parquet(tmp_path / "obs" / "3.parquet")
    else:
        frame.drop(columns="m").to_parquet(tmp_path / "obs" / "3.parquet")
    assert main(["mediate", source, *BOTH]) == 2
    assert capsys.readouterr().err.startswith("mlmed: ")
