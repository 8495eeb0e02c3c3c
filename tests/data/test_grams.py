"""Grams as a value: shards add up, files keep everything, SQL gives the same sums."""

from __future__ import annotations

import functools
import json
import operator
import warnings
from pathlib import Path
from typing import Any

import duckdb
import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mlmed
from mlmed.cli import main
from mlmed.data.planning import plan_sums
from mlmed.errors import DataError, MlmedError
from mlmed.formula import parse_equation
from mlmed.system.system import System
from tests.models import MEDIATOR, OUTCOME, with_factors
from tests.tolerances import DENSE, SAME

BOTH = [MEDIATOR, OUTCOME]


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """50 clusters of 20 with factors and a positive column."""
    return with_factors(mlmed.simulate.bpg(50, 20, seed=4).data, seed=2)


def duck(data: pd.DataFrame) -> Any:
    """A DuckDB relation over the rows."""
    return duckdb.connect().from_arrow(pa.Table.from_pandas(data, preserve_index=False))


def added(equations: list[str] | str, shards: list[Any]) -> mlmed.Grams:
    """Grams of every shard, added up."""
    return functools.reduce(operator.add, (mlmed.grams(equations, shard) for shard in shards))


def round_trip(made: mlmed.Grams, path: Path) -> mlmed.Grams:
    """Save and load."""
    made.save(path / "g.parquet")
    return mlmed.Grams.load(path / "g.parquet")


def fitted(data: Any, formulas: list[str] | str = BOTH, **options: Any) -> mlmed.Results:
    """Fit, leaving warnings aside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mlmed.errors.MlmedWarning)
        if isinstance(formulas, str):
            return mlmed.mixed(formulas, data, **options)
        return mlmed.mediate(*formulas, data, **options)


def same_fit(left: mlmed.Results, right: mlmed.Results, *, rel: float = DENSE, slopes: float = 0.9) -> None:
    """Equal sizes, names, dropped rows and likelihood, at the optimum and at fixed variances."""
    assert (left.nobs, left.n_clusters) == (right.nobs, right.n_clusters)
    assert list(left.params.index) == list(right.params.index)
    assert list(map(str, left.fit.layout.dropped)) == list(map(str, right.fit.layout.dropped))
    assert left.llf == pytest.approx(right.llf, rel=rel)
    G = np.diag([0.4 if name.endswith("Intercept") else slopes for name in right.G.index])
    sigma2 = np.full(len(right.sigma2), 0.7)
    assert left.loglik_at(G, sigma2) == pytest.approx(right.loglik_at(G, sigma2), rel=rel)
    scale = float(np.abs(right.params).max())
    np.testing.assert_allclose(left.params, right.params, rtol=1e-6, atol=1e-7 * scale)


# -- shards add up ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["by cluster", "by row", "in chunks"])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_fifty_shards_equal_one_frame(frame: pd.DataFrame, split: str, offset: float) -> None:
    """Disjoint and overlapping clusters; also with x far from zero."""
    data = frame.assign(x=frame["x"] + offset)
    number = {
        "by cluster": (data["id"] - 1) // 2,
        "by row": pd.Series(np.arange(len(data)) % 50, index=data.index),
        "in chunks": pd.Series(np.arange(len(data)) // 25, index=data.index),
    }[split]
    total = added(BOTH, [data[number == k] for k in sorted(number.unique())])
    assert total.n_clusters == 50
    same_fit(fitted(total), fitted(data), slopes=1e-9 if offset else 0.9)


def test_shards_of_different_units_and_engines(frame: pd.DataFrame) -> None:
    """Shards whose means and spreads differ greatly, one summed in memory, one by DuckDB, one by Polars."""
    data = frame.assign(x=np.where(frame["id"] <= 20, 1e4 + 100 * frame["x"], frame["x"]))
    parts = [data[data["id"] <= 10], data[data["id"].between(11, 30)], data[data["id"] > 30]]
    made = [mlmed.grams(BOTH, rows) for rows in (parts[0], duck(parts[1]), pl.from_pandas(parts[2]).lazy())]
    expected = fitted(data)
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        same_fit(fitted(functools.reduce(operator.add, [made[k] for k in order])), expected, slopes=1e-4)


def test_adding_does_not_change_the_parts(frame: pd.DataFrame) -> None:
    """Grams are values."""
    left, right = mlmed.grams(MEDIATOR, frame[:500]), mlmed.grams(MEDIATOR, frame[500:])
    before = left.arrays.products.copy(), right.arrays.products.copy()
    total = left + right
    np.testing.assert_array_equal(left.arrays.products, before[0])
    np.testing.assert_array_equal(right.arrays.products, before[1])
    assert repr(total) == f"Grams({MEDIATOR}: 1000 rows, 50 clusters)"


@pytest.mark.parametrize("ids", ["text", "combined", "dates"])
def test_shards_with_other_kinds_of_ids(frame: pd.DataFrame, ids: str) -> None:
    """Overlapping clusters are found by id."""
    formula = "m ~ x + (1 + x | g:k)" if ids == "combined" else "m ~ x + (1 + x | id)"
    data = frame
    if ids == "text":
        data = frame.assign(id="s" + frame["id"].astype(str))
    elif ids == "dates":
        data = frame.assign(id=pd.Timestamp("2020-01-01") + pd.to_timedelta(frame["id"], unit="D"))
    shards = [data[data.index % 3 == 0], duck(data[data.index % 3 == 1]), data[data.index % 3 == 2]]
    same_fit(fitted(added(formula, shards), formula), fitted(data, formula))


@pytest.mark.parametrize("every", [{"y": 3}, {"x": 5, "y": 4}, {"id": 7, "m": 6}], ids=str)
def test_missing_values_in_some_shards(frame: pd.DataFrame, every: dict[str, int]) -> None:
    """Patterns differ between shards; dropped rows add up."""
    gap = {name: frame[name].where((frame.index % k != 0) | (frame.index >= 400)) for name, k in every.items()}
    data = frame.assign(**gap)
    shards = [data[:300], duck(data[300:700]), data[700:]]
    same_fit(fitted(added(BOTH, shards)), fitted(data))


def test_factors_and_transformations_add_up(frame: pd.DataFrame, tmp_path: Path) -> None:
    """Same levels in every shard; predictions and moderated effects come from all of them."""
    formulas = ["m ~ x * g + np.log(pos) + (1 | id)", "y ~ m * w + x + C(k) + I(w**2) + (1 + m | id)"]
    expected = fitted(frame, formulas, treatment="x")
    total = added(formulas, [frame[frame.index % 3 == k] for k in range(3)])
    for made in (total, round_trip(total, tmp_path)):
        fit = fitted(made, formulas, treatment="x")
        assert fit.llf == pytest.approx(expected.llf, rel=DENSE)
        np.testing.assert_allclose(fit.predict(frame.head(9)), expected.predict(frame.head(9)), rtol=1e-5, atol=1e-6)
        left, right = fit.effects(at={"g": "b"}), expected.effects(at={"g": "b"})
        np.testing.assert_allclose(left["estimate"], right["estimate"], rtol=1e-5, atol=1e-7)


def refuse_to_add(formula: str, left: Any, right: Any) -> None:
    """Both Grams can be made, their sum cannot."""
    a, b = mlmed.grams(formula, left), mlmed.grams(formula, right)
    with pytest.raises(DataError):
        _ = a + b


@pytest.mark.parametrize("formula", ["m ~ g + x + (1 | id)", "m ~ x + (1 | id) + (0 + g | id)"])
def test_other_levels_are_refused(frame: pd.DataFrame, formula: str) -> None:
    """A level that one shard lacks."""
    refuse_to_add(formula, frame[:500], frame[(frame["g"] != "c") & (frame.index >= 500)])


@pytest.mark.parametrize("pushed", [False, True])
@pytest.mark.parametrize(
    ("formula", "name", "first"), [("m ~ g + (1 | id)", "g", "ab"), ("m ~ C(k) + (1 | id)", "k", (1, 2))]
)
def test_another_reference_level_is_refused(
    frame: pd.DataFrame, formula: str, name: str, first: Any, pushed: bool
) -> None:
    """Levels a, c in one shard and b, c in the other: both have one column [T.c], against another reference."""
    half = frame.index < 500
    left, right = frame[half & (frame[name] != first[1])], frame[~half & (frame[name] != first[0])]
    make = duck if pushed else pd.DataFrame
    refuse_to_add(formula, make(left), make(right))


@pytest.mark.parametrize("term", ["center(x)", "scale(x)", "poly(x, 2)", "bs(x, df=4)"])
def test_terms_that_mean_other_numbers_in_every_shard_are_refused(frame: pd.DataFrame, term: str) -> None:
    """Means, orthogonal polynomials and knots depend on the rows of the shard."""
    refuse_to_add(f"m ~ {term} + (1 | id)", frame[:500], frame[500:])


@pytest.mark.parametrize("other", ["m ~ w + (1 | id)", "m ~ x + (1 + x | id)", "m ~ x + (1 | k)", "y ~ x + (1 | id)"])
def test_other_formulas_are_refused(frame: pd.DataFrame, other: str) -> None:
    """Other columns, random effects, clusters or responses."""
    with pytest.raises(DataError, match="formula"):
        _ = mlmed.grams("m ~ x + (1 | id)", frame) + mlmed.grams(other, frame)
    with pytest.raises(DataError, match=r"were made for .*make new ones"):
        mlmed.mixed(other, mlmed.grams("m ~ x + (1 | id)", frame))


def test_only_grams_can_be_added(frame: pd.DataFrame) -> None:
    """Not tables."""
    with pytest.raises(DataError, match="found DataFrame"):
        _ = mlmed.grams(MEDIATOR, frame) + frame  # type: ignore[operator]


def test_a_shard_may_hold_one_cluster(frame: pd.DataFrame) -> None:
    """One file per school is the most natural shard; only the fit needs two clusters."""
    made = added(MEDIATOR, [frame[frame["id"] == 1], frame[frame["id"] != 1]])
    same_fit(fitted(made, MEDIATOR), fitted(frame, MEDIATOR))


def test_a_column_may_be_constant_in_a_shard(frame: pd.DataFrame) -> None:
    """One file per treatment arm: the column varies in the sum."""
    data = frame.assign(arm=1.0 * (frame["x"] > 0))
    formula = "m ~ arm + (1 | id)"
    made = added(formula, [data[data["arm"] == 0], data[data["arm"] == 1]])
    same_fit(fitted(made, formula), fitted(data, formula))


# -- files -----------------------------------------------------------------------------------------------------

STORED = [
    ("m ~ x + (1 + x | id)", {}),
    ("m ~ g * C(k) + (0 + g | id)", {}),
    ("np.log(pos) ~ center(x) + scale(w) + (1 + center(x) | id)", {}),
    ("m ~ x + (1 | g:k)", {}),
    ("m.a ~ `x 1` + C + (1 + `x 1` | `sub id`)", {"m": "m.a", "x": "x 1", "w": "C", "id": "sub id"}),
    ("m ~ np.log(po.s) + x:w.a + (1 | sub.id)", {"pos": "po.s", "w": "w.a", "id": "sub.id"}),
    ("np.log(po.s) ~ I(w.a**2) + (1 | id)", {"pos": "po.s", "w": "w.a"}),
    *[(f"m ~ x + (1 | {name})", {"id": name}) for name in ("p", "p0", "p1", "mlmed_pattern", "pid")],
]


@pytest.mark.parametrize(("formula", "names"), STORED, ids=[text for text, _ in STORED])
def test_a_file_keeps_everything(frame: pd.DataFrame, tmp_path: Path, formula: str, names: dict[str, str]) -> None:
    """The loaded Grams fit the same formula to the same numbers, and predict the same."""
    data = frame.rename(columns=names)
    made = mlmed.grams(formula, data)
    loaded = round_trip(made, tmp_path)
    assert loaded.equations == made.equations
    assert loaded.arrays.columns == made.arrays.columns
    found, expected = fitted(loaded, formula), fitted(data, formula)
    same_fit(found, expected, rel=SAME)
    new = data.head(30)
    for of in ("population", "cluster"):
        np.testing.assert_allclose(found.predict(new, of=of), expected.predict(new, of=of), rtol=1e-6, atol=1e-8)


def test_a_file_of_two_equations_with_gaps(frame: pd.DataFrame, tmp_path: Path) -> None:
    """Patterns, dropped rows, effects, clusters in any order."""
    data = frame.assign(y=frame["y"].where(frame.index % 3 != 0), m=frame["m"].where(frame["id"] != 50))
    data = data.sample(frac=1.0, random_state=1)
    found, expected = fitted(round_trip(mlmed.grams(BOTH, data), tmp_path)), fitted(data)
    same_fit(found, expected, rel=SAME)
    np.testing.assert_allclose(found.effects()["estimate"], expected.effects()["estimate"], rtol=1e-6)
    modes = found.ranef().set_index(["effect", "group"])["estimate"]
    theirs = expected.ranef().set_index(["effect", "group"])["estimate"]
    np.testing.assert_allclose(modes, theirs.loc[modes.index], rtol=1e-6, atol=1e-8)


def test_loaded_shards_add_up(frame: pd.DataFrame, tmp_path: Path) -> None:
    """Files of several machines, with clusters in more than one."""
    for k in range(4):
        mlmed.grams(BOTH, frame[frame.index % 4 == k]).save(tmp_path / f"{k}.parquet")
    loaded = [mlmed.Grams.load(tmp_path / f"{k}.parquet") for k in range(4)]
    same_fit(fitted(functools.reduce(operator.add, loaded)), fitted(frame))


def test_a_pushed_down_gram_is_stored(frame: pd.DataFrame, tmp_path: Path) -> None:
    """As one made in memory."""
    data = frame.assign(id="s" + frame["id"].astype(str))
    loaded = round_trip(mlmed.grams(BOTH, duck(data)), tmp_path)
    fit = fitted(loaded)
    same_fit(fit, fitted(data))
    np.testing.assert_allclose(
        fit.predict(data.head(20), of="cluster"), fitted(data).predict(data.head(20), of="cluster"), rtol=1e-5
    )


def test_many_columns_are_stored_without_warnings(frame: pd.DataFrame, tmp_path: Path) -> None:
    """More than a hundred products per cluster."""
    rng = np.random.default_rng(0)
    data = frame.assign(**{f"z{k}": rng.normal(size=len(frame)) for k in range(14)})
    formula = f"m ~ {' + '.join(f'z{k}' for k in range(14))} + (1 | id)"
    same_fit(fitted(round_trip(mlmed.grams(formula, data), tmp_path), formula), fitted(data, formula), rel=SAME)


@pytest.mark.parametrize("kind", ["whole numbers", "intervals", "dates"])
def test_categories_that_are_not_text_are_stored_or_refused(frame: pd.DataFrame, tmp_path: Path, kind: str) -> None:
    """Never an error that is not mlmed's."""
    column = {
        "whole numbers": pd.Categorical(frame["k"]),
        "intervals": pd.cut(frame["w"], 3),
        "dates": pd.Categorical(pd.Timestamp("2020-01-01") + pd.to_timedelta(frame["k"], unit="D")),
    }[kind]
    data = frame.assign(c=column)
    made = mlmed.grams("m ~ c + (1 | id)", data)
    try:
        loaded = round_trip(made, tmp_path)
    except MlmedError:
        return
    same_fit(fitted(loaded, "m ~ c + (1 | id)"), fitted(data, "m ~ c + (1 | id)"), rel=SAME)


@pytest.mark.parametrize("term", ["poly(x, 2)", "bs(x, df=4)"])
def test_state_that_cannot_be_stored_is_refused(frame: pd.DataFrame, tmp_path: Path, term: str) -> None:
    """The term is named."""
    with pytest.raises(DataError, match=r"(poly|bs)\(.*make it a column"):
        mlmed.grams(f"m ~ {term} + (1 | id)", frame).save(tmp_path / "g.parquet")


@pytest.mark.parametrize(
    "case", ["missing", "no parquet", "a table", "another version", "not JSON", "not a document", "a folder"]
)
def test_other_files_are_refused(frame: pd.DataFrame, tmp_path: Path, case: str) -> None:
    """With the path in the message."""
    path = tmp_path / "g.parquet"
    table = pa.Table.from_pandas(frame)
    documents = {
        "another version": json.dumps({"schema": "mlmed.grams/99"}),
        "not JSON": "{{",
        "not a document": "[1]",
    }
    if case == "no parquet":
        path.write_text("this is no Parquet file")
    elif case == "a table":
        pq.write_table(table, path)
    elif case == "a folder":
        path.mkdir()
    elif case in documents:
        pq.write_table(table.replace_schema_metadata({b"mlmed": documents[case].encode()}), path)
    with pytest.raises(DataError, match=r"g\.parquet"):
        mlmed.Grams.load(path)


def test_saving_into_a_folder_that_is_not_there(frame: pd.DataFrame, tmp_path: Path) -> None:
    """An error of mlmed."""
    with pytest.raises(DataError, match="none"):
        mlmed.grams(MEDIATOR, frame).save(tmp_path / "none" / "g.parquet")


# -- SQL -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_sql_gives_the_same_sums(frame: pd.DataFrame, tmp_path: Path, offset: float) -> None:
    """Run by hand in another connection: counts by cluster, and raw sums rebuilt from the standardised ones."""
    data = frame.assign(x=frame["x"] + offset, y=frame["y"].where(frame.index % 3 != 0))
    data.to_parquet(tmp_path / "rows.parquet", index=False)
    relation = duckdb.connect().read_parquet(str(tmp_path / "rows.parquet"))
    text = mlmed.grams_sql(BOTH, relation)
    by_hand = duckdb.connect().sql(text).df().sort_values(["mlmed_pattern", "id"])
    spec = System(tuple(parse_equation(formula, data.columns) for formula in BOTH))
    arrays = plan_sums(spec, nw.from_native(relation))  # the units in the SQL
    columns = list(arrays.layout.columns)
    assert sorted(columns) == ["1", "m", "x", "y"]
    complete = data["y"].notna()
    np.testing.assert_array_equal(
        by_hand["mlmed_n"], pd.concat([data[~complete].groupby("id").size(), data[complete].groupby("id").size()])
    )
    for pattern, rows in ((1, data[~complete]), (3, data[complete])):
        sums = by_hand[by_hand["mlmed_pattern"] == pattern].set_index("id")
        groups = rows.groupby("id")
        known = [k for k, name in enumerate(columns) if name in ("m", "x") or (name == "y" and pattern == 3)]
        for i in known:
            raw = arrays.scale[i] * sums[f"mlmed_p{i * (i + 1) // 2}"] + arrays.shift[i] * sums["mlmed_n"]
            np.testing.assert_allclose(raw, groups[columns[i]].sum(), rtol=1e-10, atol=1e-9)
            for j in [k for k in known if k <= i]:
                left = (rows[columns[i]] - arrays.shift[i]) / arrays.scale[i]
                right = (rows[columns[j]] - arrays.shift[j]) / arrays.scale[j]
                np.testing.assert_allclose(
                    sums[f"mlmed_p{i * (i + 1) // 2 + j}"],
                    (left * right).groupby(rows["id"]).sum(),
                    rtol=1e-8,
                    atol=1e-8,
                )


def test_sql_needs_duckdb(frame: pd.DataFrame) -> None:
    """Other tables have no SQL."""
    for rows in (frame, pl.from_pandas(frame).lazy()):
        with pytest.raises(DataError, match="DuckDB relation"):
            mlmed.grams_sql(MEDIATOR, rows)


# -- command line ----------------------------------------------------------------------------------------------

FORMULAS = ["--formula", MEDIATOR, "--formula", OUTCOME]


@pytest.fixture
def shards(frame: pd.DataFrame, tmp_path: Path) -> str:
    """Three files with overlapping clusters."""
    for k in range(3):
        frame[frame.index % 3 == k].to_parquet(tmp_path / f"obs-{k}.parquet")
    return str(tmp_path / "obs-*.parquet")


def test_command_stores_grams_that_the_next_one_fits(
    frame: pd.DataFrame, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """mlmed grams ... --out g.parquet, then mlmed mediate g.parquet."""
    out = str(tmp_path / "g.parquet")
    assert main(["grams", shards, *FORMULAS, "--out", out]) == 0
    assert "1000 rows, 50 clusters" in capsys.readouterr().out
    assert main(["mediate", out, "--mediator", MEDIATOR, "--outcome", OUTCOME, "--format", "json"]) == 0
    found, expected = json.loads(capsys.readouterr().out), json.loads(fitted(frame).to_json())
    assert found.keys() == expected.keys()
    same_fit(fitted(mlmed.Grams.load(out)), fitted(frame))


def test_command_prints_sql(shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To the terminal or a file; DuckDB runs it."""
    assert main(["grams", shards, *FORMULAS, "--sql"]) == 0
    text = capsys.readouterr().out
    assert duckdb.connect().sql(text).df()["mlmed_n"].sum() == 1000
    assert main(["grams", shards, *FORMULAS, "--sql", "--out", str(tmp_path / "g.sql")]) == 0
    assert duckdb.connect().sql((tmp_path / "g.sql").read_text()).df()["mlmed_n"].sum() == 1000


@pytest.mark.parametrize("case", ["no out", "sql of csv", "stack of grams", "no folder", "no file", "other formula"])
def test_command_refuses(
    frame: pd.DataFrame, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    """Status 2 and a message."""
    frame.to_csv(tmp_path / "rows.csv", index=False)
    mlmed.grams(MEDIATOR, frame).save(tmp_path / "g.parquet")
    arguments = {
        "no out": ["grams", shards, *FORMULAS],
        "sql of csv": ["grams", str(tmp_path / "rows.csv"), *FORMULAS, "--sql"],
        "stack of grams": ["stack", str(tmp_path / "g.parquet"), "--x=x", "--m=m", "--y=y", "--cluster=id"],
        "no folder": ["grams", shards, *FORMULAS, "--out", str(tmp_path / "none" / "g.parquet")],
        "no file": ["grams", str(tmp_path / "none-*.parquet"), *FORMULAS, "--sql"],
        "other formula": ["mixed", str(tmp_path / "g.parquet"), "--formula", OUTCOME],
    }[case]
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("mlmed: ")


@pytest.mark.parametrize("dialect", ["spark", "snowflake", "bigquery", "postgres"])
def test_sql_in_other_dialects(frame: pd.DataFrame, dialect: str) -> None:
    """Readable by a parser of that dialect, with every sum in it."""
    import sqlglot

    text = mlmed.grams_sql(MEDIATOR, duckdb.from_df(frame), dialect=dialect)
    parsed = sqlglot.parse_one(text, read=dialect)
    names = {alias.alias.lower() for alias in parsed.find_all(sqlglot.exp.Alias)}
    assert {"mlmed_n", *(f"mlmed_p{p}" for p in range(1, 6))} <= names


def test_a_translated_query_gives_the_same_sums(frame: pd.DataFrame) -> None:
    """There and back: DuckDB to Postgres to DuckDB."""
    import sqlglot

    relation = duckdb.from_df(frame)
    text = mlmed.grams_sql(MEDIATOR, relation, dialect="postgres")
    back = sqlglot.transpile(text, read="postgres", write="duckdb")[0]
    columns = ["id", *(f"mlmed_p{p}" for p in range(1, 6))]
    left = duckdb.sql(mlmed.grams_sql(MEDIATOR, relation)).df().sort_values("id")[columns]
    right = duckdb.sql(back).df().sort_values("id")[columns]
    np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-9)


def test_an_unknown_dialect_is_refused(frame: pd.DataFrame) -> None:
    """The known ones are listed."""
    with pytest.raises(DataError, match=r"unknown SQL dialect 'cobol'; use one of .*spark"):
        mlmed.grams_sql(MEDIATOR, duckdb.from_df(frame), dialect="cobol")


def test_shards_pool_means_and_standard_deviations(frame):
    """What covariates are held at, and one sd beside it: of all rows, whose shards differ in both."""
    frame = frame.assign(w=frame["w"] * np.where(frame["id"] > 12, 1.0, 3.0) + np.where(frame["id"] > 12, 0.0, 5.0))
    shards = [frame[frame["id"] <= 12], frame[(frame["id"] > 12) & (frame["id"] <= 14)], frame[frame["id"] > 14]]
    made = added("y ~ x + w + (1 | id)", shards).arrays.layout.equations[0]
    for name in ("x", "w"):
        assert made.typical[name] == pytest.approx(frame[name].mean(), rel=DENSE)
        assert made.spread[name] == pytest.approx(frame[name].std(ddof=1), rel=DENSE)
