"""Cluster ids that were rounded, look alike, or are numbered anew in every upper group."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import mlmed
from mlmed.cli import main
from mlmed.data.ids import (
    OTHER_CLUSTERS,
    SAME_CLUSTERS,
    _two_way,
    case_twins,
    cluster_codes,
    lookalikes,
    numbering_passes,
    reused_ids,
)
from mlmed.errors import DataError, DroppedRowsWarning, IdWarning
from mlmed.fit.same_rows import shared_rows
from mlmed.formula import parse_equation
from tests.models import MEDIATOR, OUTCOME
from tests.tolerances import SAME

LONG = 1234567890123456789


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """40 clusters of 8; regular."""
    return mlmed.simulate.bpg(40, 8, seed=3).data


def told(call: Callable[[], Any]) -> list[str]:
    """Messages about ids."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(one.message) for one in caught if issubclass(one.category, IdWarning)]


# -- rounded ids ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rounded(frame: pd.DataFrame) -> pd.DataFrame:
    """Ids 61 apart as floats: 40 clusters have become 11."""
    data = frame.assign(id=(LONG + 61 * frame["id"]).astype(float))
    assert data["id"].nunique() == 11
    return data


FRAMES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda d: d,
    "nullable": lambda d: d.assign(id=d["id"].astype("Float64")),
    "arrow in pandas": lambda d: d.assign(id=d["id"].astype("double[pyarrow]")),
    "objects": lambda d: d.assign(id=d["id"].astype(object)),
    "categories": lambda d: d.assign(id=d["id"].astype("category")),
    "dict": lambda d: d.to_dict("list"),
    "polars": pl.from_pandas,
    "polars, lazy": lambda d: pl.from_pandas(d).lazy(),
    "arrow": pa.Table.from_pandas,
    "duckdb": lambda d: duckdb.from_arrow(pa.Table.from_pandas(d)),
    "dask": lambda d: dd.from_pandas(d, npartitions=2),
}
CALLS: dict[str, Callable[[Any], Any]] = {
    "mixed": lambda d: mlmed.mixed(MEDIATOR, d),
    "mediate": lambda d: mlmed.mediate(MEDIATOR, OUTCOME, d),
    "piecewise": lambda d: mlmed.piecewise(MEDIATOR, OUTCOME, d),
    "causal": lambda d: mlmed.causal("m ~ x", "y ~ m + x", d, cluster="id"),
    "causal, mixed": lambda d: mlmed.causal("m ~ x + (1 | id)", "y ~ m + x + (1 | id)", d),
    "location_scale": lambda d: mlmed.location_scale("m ~ x + (1 | id)", "~ 1", d),
    "grams": lambda d: mlmed.grams(MEDIATOR, d),
    "stack": lambda d: mlmed.stack(d, x="x", m="m", y="y", cluster="id"),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_floats_that_cannot_be_told_apart_are_refused(rounded: pd.DataFrame, kind: str) -> None:
    """In every kind of table, with what to do."""
    with pytest.raises(DataError, match=r"'id' are floating-point numbers of 2\^53.*merged.*'Int64'"):
        mlmed.mixed(MEDIATOR, FRAMES[kind](rounded))


@pytest.mark.parametrize("mode", CALLS)
@pytest.mark.parametrize("kind", ["pandas", "polars, lazy"])
def test_in_every_mode(rounded: pd.DataFrame, mode: str, kind: str) -> None:
    with pytest.raises(DataError, match=r"2\^53"):
        CALLS[mode](FRAMES[kind](rounded))


def test_in_new_rows(frame: pd.DataFrame, rounded: pd.DataFrame) -> None:
    """Predictions for clusters, too."""
    fit = mlmed.mixed(MEDIATOR, frame.assign(id=LONG + 61 * frame["id"]))
    with pytest.raises(DataError, match=r"2\^53"):
        fit.predict(rounded, of="cluster")


@pytest.mark.parametrize(
    ("dtype", "largest"),
    [("float64", 2**53 - 1), ("float32", 2**24 - 1), ("Float32", 2**24 - 1), ("float16", 2**11 - 1)],
)
def test_the_last_exact_id(dtype: str, largest: int) -> None:
    """One less than the power of two is exact, the power is the first that its successor is rounded to."""
    column = pd.Series([largest - 1, largest], dtype="Int64")
    codes, labels = cluster_codes(pd.DataFrame({"id": column.astype(dtype)}), ("id",))
    assert list(labels) == [largest - 1, largest]
    assert codes.tolist() == [0, 1]
    with pytest.raises(DataError, match="floating-point"):
        cluster_codes(pd.DataFrame({"id": pd.Series([1, largest + 1]).astype(dtype)}), ("id",))


@pytest.mark.parametrize("value", [2**53, Decimal(2**53), str(2**53)])
def test_large_ids_of_exact_types_are_no_floats(value: Any) -> None:
    table = pd.DataFrame({"id": pd.Series([value, 1 if not isinstance(value, str) else "1"], dtype=object)})
    assert len(cluster_codes(table, ("id",))[1]) == 2


def test_infinite_ids(frame: pd.DataFrame) -> None:
    """Also where no other check reads the column."""
    data = frame.assign(id=frame["id"].astype(float).replace(1.0, np.inf))
    for call in (CALLS["mixed"], CALLS["stack"], lambda d: mlmed.mixed(MEDIATOR, FRAMES["nullable"](d))):
        with pytest.raises(DataError, match=r"column 'id' has 8 infinite value\(s\)"):
            call(data)


def test_a_cluster_that_is_a_predictor_is_read_exactly() -> None:
    """causal(cluster=) with the cluster as a covariate: two ids 61 apart are two clusters."""
    rng = np.random.default_rng(2)
    ids = np.repeat(LONG + 61 * np.arange(4), 50)
    data = pd.DataFrame(
        {"id": ids, "x": np.tile([0.0, 1.0], 100), "m": rng.normal(size=200), "y": rng.normal(size=200)}
    )
    small = data.assign(id=(data["id"] - LONG) / 61)
    long, short = (mlmed.causal("m ~ x", "y ~ m + x", d, cluster="id").effects() for d in (data, small))
    np.testing.assert_allclose(long["std_error"], short["std_error"], rtol=SAME)
    equations = [parse_equation(text, list(data)) for text in ("m ~ x", "y ~ m + x + id")]
    grouping = shared_rows(equations, data, "id").grouping
    assert grouping is not None
    assert list(grouping.clusters) == list(LONG + 61 * np.arange(4))
    with pytest.raises(DataError, match=r"C\(id\) is a factor of numbers of 2\^53"):
        mlmed.causal("m ~ x + C(id)", "y ~ m + x", data, cluster="id", treatment="x")


@pytest.mark.parametrize("kind", ["pandas", "duckdb"])
def test_factors_of_long_numbers(frame: pd.DataFrame, kind: str) -> None:
    """C(school) with ids 61 apart would merge its levels."""
    data = frame.assign(school=LONG + 61 * (frame["id"] % 3))
    with pytest.raises(DataError, match=r"C\(school\).*convert the column to text"):
        mlmed.mixed("m ~ x + C(school) + (1 | id)", FRAMES[kind](data))


def test_strata_of_long_numbers(frame: pd.DataFrame) -> None:
    """Two arms whose codes are 61 apart are two strata: the draws of arms 0 and 1."""
    fits = [
        mlmed.piecewise(MEDIATOR, OUTCOME, frame.assign(arm=offset + 61 * (frame["id"] % 2))) for offset in (0, LONG)
    ]
    small, long = (fit.effects(interval="bootstrap", strata="arm", seed=1, n=20)["std_error"] for fit in fits)
    np.testing.assert_allclose(long, small, rtol=SAME)


def test_files_of_the_command_line(frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """19 digits and one missing: 40 clusters from CSV and Parquet; SPSS keeps floats only, which are refused."""
    data = frame.assign(id=(LONG + 61 * frame["id"]).astype("Int64").where(frame.index != 3))
    data.to_csv(tmp_path / "long.csv", index=False)
    data.to_parquet(tmp_path / "long.parquet")
    for name in ("long.csv", "long.parquet"):
        assert main(["mixed", str(tmp_path / name), "--formula", MEDIATOR]) == 0
        assert "Clusters      40" in capsys.readouterr().out
    import pyreadstat

    pyreadstat.write_sav(data.assign(id=data["id"].astype(float)), str(tmp_path / "long.sav"))
    assert main(["mixed", str(tmp_path / "long.sav"), "--formula", MEDIATOR]) == 2
    assert "2^53" in capsys.readouterr().err


@pytest.mark.parametrize(
    "texts",
    [("1.1", "1.10", "1.2", "1.20"), ("1E2", "10E1", "100E0", "2E0")],
    ids=["class and pupil", "exponents"],
)
def test_ids_that_are_one_number_on_the_command_line(
    frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str], texts: tuple[str, ...]
) -> None:
    """The fit of ids that nobody takes for numbers, without a warning; so does a measurement beside them."""
    path, other = tmp_path / "pupils.csv", frame["x"].round(1).map(str).where(frame.index % 2 == 0, "1.50")
    shown = []
    for mark in ("", "p"):
        ids = (frame["id"] % 4).map(dict(enumerate(mark + text for text in texts)))
        frame.assign(id=ids, other=other).to_csv(path, index=False)
        assert main(["mixed", str(path), "--formula", "m ~ x + (1 | id)"]) == 0
        shown.append(capsys.readouterr())
    assert shown[0] == shown[1]
    assert "Clusters      4 (id" in shown[0].out
    assert "same number" not in shown[0].err


# -- ids that look alike -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "pair"),
    [
        (["a", "b", "a "], ("a", "a ")),
        (["7", "12", "007"], ("7", "007")),
        ([7, "x", "07"], (7, "07")),
        ([" 7", "7"], (" 7", "7")),
        (["a1", "a01"], None),
        (["1.0", "1"], None),
        (["-1", "1"], None),
        ([7, 7.5], None),
    ],
)
def test_lookalikes(ids: list[Any], pair: tuple[Any, Any] | None) -> None:
    assert lookalikes(pd.Index(ids, dtype=object)) == pair


@pytest.mark.parametrize("mode", CALLS)
def test_lookalikes_are_told_once_in_every_mode(frame: pd.DataFrame, mode: str) -> None:
    """And are two clusters."""
    text = frame["id"].map("s{}".format)
    data = frame.assign(id=text.where(frame.index != 0, text + " "))
    found = told(lambda: CALLS[mode](data))
    assert len(found) == 1
    assert "'s1 ' and 's1' in column 'id'" in found[0]


@pytest.mark.parametrize("kind", ["polars, lazy", "duckdb"])
def test_lookalikes_in_engines(frame: pd.DataFrame, kind: str) -> None:
    data = frame.assign(id=frame["id"].map("{:02d}".format).where(frame.index % 8 != 0, frame["id"].map(str)))
    assert "leading zeros" in told(lambda: mlmed.mixed("m ~ x + (1 | id)", FRAMES[kind](data)))[0]


# -- ids that differ in case ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "pair"),
    [
        (["a", "b", "A"], ("a", "A")),
        (["ID7", "ID8", "id8"], ("ID8", "id8")),
        (["Straße", "STRASSE"], ("Straße", "STRASSE")),
        (["a", "b"], None),
        (["a", "A "], None),
        ([7, "a", 7.5], None),
        ([1, 2], None),
        (["a", "a", "b"], None),
        (["a", "a", "A"], ("a", "A")),
    ],
)
def test_case_twins(ids: list[Any], pair: tuple[str, str] | None) -> None:
    assert case_twins(pd.Index(ids, dtype=object)) == pair


@pytest.mark.parametrize("mode", CALLS)
def test_ids_that_differ_in_case_are_told_once_in_every_mode(frame: pd.DataFrame, mode: str) -> None:
    """And are two clusters."""
    text = frame["id"].map("s{}".format)
    data = frame.assign(id=text.where(frame.index != 0, text.str.upper()))
    found = told(lambda: CALLS[mode](data))
    assert len(found) == 1
    assert "'S1' and 's1' in column 'id' differ only in upper and lower case, and are two clusters" in found[0]


@pytest.mark.parametrize("kind", ["polars, lazy", "duckdb", "pandas, categories"])
def test_ids_that_differ_in_case_in_engines(frame: pd.DataFrame, kind: str) -> None:
    text = frame["id"].map("s{}".format)
    data = frame.assign(id=text.where(frame.index % 8 != 0, text.str.upper()))
    made = data.astype({"id": "category"}) if kind not in FRAMES else FRAMES[kind](data)
    found = told(lambda: mlmed.mixed("m ~ x + (1 | id)", made))
    assert len(found) == 1
    assert "upper and lower case" in found[0]


def test_one_note_where_ids_look_alike_in_two_ways(frame: pd.DataFrame) -> None:
    text = frame["id"].map("s{}".format)
    odd = text.where(frame.index != 0, text + " ").where(frame.index != 9, text.str.upper())
    assert len(told(lambda: mlmed.mixed("m ~ x + (1 | id)", frame.assign(id=odd)))) == 1


# -- numberings that start anew ------------------------------------------------------------------------------


def pupils(seed: int, *, same: bool, groups: int = 10, each: int = 20, rows: int = 5) -> pd.DataFrame:
    """Ids 1 to 20 in every school: strangers, or (``same``) 20 persons measured again in every session."""
    rng = np.random.default_rng(seed)
    school, pupil = np.repeat(np.arange(groups), each * rows), np.tile(np.repeat(np.arange(each), rows), groups)
    person = pupil if same else school * each + pupil
    effects = rng.normal(size=(groups * each, 3))[person]
    x, m, y = (effects + rng.normal(size=effects.shape)).T
    return pd.DataFrame({"school": school + 1, "id": pupil + 1, "x": x, "m": m, "y": y + m})


@pytest.mark.parametrize("mode", CALLS)
def test_ids_used_again_in_every_school_are_told_once(mode: str) -> None:
    """In every mode."""
    found = told(lambda: CALLS[mode](pupils(1, same=False)))
    assert len(found) == 1
    assert "numbered anew 10 times, whenever 'school' changes" in found[0]
    assert "is id 1 of one school the same as id 1 of the next?" in found[0]
    can_be_named = mode not in ("causal", "stack")  # cluster= is one column
    assert ("(1 | school:id)" in found[0]) == can_be_named
    assert ("make a column of both" in found[0]) != can_be_named


@pytest.mark.parametrize("formula", ["y ~ x + school + (1 | id)", "y ~ x + C(school) + (1 | id)"])
def test_the_upper_group_may_be_a_predictor(formula: str) -> None:
    assert "(1 | school:id)" in told(lambda: mlmed.mixed(formula, pupils(1, same=False)))[0]


def test_what_is_advised_where_no_term_names_the_ids() -> None:
    """The column of both is what (1 | school:id) is, and nothing is asked any more."""
    data = pupils(1, same=False)
    both = data.assign(id=data["school"].astype(str) + ":" + data["id"].astype(str))
    assert told(lambda: CALLS["causal"](both)) == told(lambda: CALLS["stack"](both)) == []
    errors = CALLS["causal"](both).effects()["std_error"]
    numbered = CALLS["causal"](data.assign(id=20 * data["school"] + data["id"])).effects()["std_error"]
    np.testing.assert_allclose(errors, numbered, rtol=SAME)


@pytest.mark.parametrize("kind", ["polars", "arrow", "dict", "nullable"])
def test_in_every_table_in_memory(kind: str) -> None:
    data = FRAMES[kind](pupils(1, same=False)) if kind != "nullable" else pupils(1, same=False).convert_dtypes()
    assert "(1 | school:id)" in told(lambda: mlmed.mixed("m ~ x + (1 | id)", data))[0]


CHANGES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "names of schools": lambda d: d.assign(school=d["school"].map("school {}".format)),
    "text ids": lambda d: d.assign(id=d["id"].map(str)),
    "ids as objects": lambda d: d.assign(id=d["id"].astype(object)),
    "ids as categories": lambda d: d.assign(id=d["id"].astype("category")),
    "ids as floats": lambda d: d.assign(id=d["id"].astype(float)),
    "schools of other sizes": lambda d: d[d["id"] <= 12 + d["school"] % 9],
    "pupils without rows": lambda d: d[(d["id"] * 7 + d["school"]) % 10 != 0],
    "missing ids": lambda d: d.assign(id=d["id"].astype("Int64").where(d.index % 50 != 0)),
    "an attribute of pupils": lambda d: d.assign(age=np.sin(d["id"] * 12.3 + d["school"] * 4.5)),
    "an attribute of schools": lambda d: d.assign(size=np.sin(d["school"] * 4.5)),
    "a key of pupils": lambda d: d.assign(key=100 * d["school"] + d["id"]),
    "a key of rows": lambda d: d.assign(row=np.arange(len(d))),
    "a number in each run": lambda d: d.assign(time=d.groupby(["school", "id"]).cumcount()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_may_stand_beside_it(change: str) -> None:
    """Schools of other sizes, gaps, attributes and keys hide nothing."""
    found = told(lambda: mlmed.mixed("m ~ x + (1 | id)", CHANGES[change](pupils(1, same=False))))
    assert any("numbered anew" in text for text in found)


NOT: dict[str, Callable[[], pd.DataFrame]] = {
    "persons measured again in every session": lambda: pupils(1, same=True),
    "two sessions": lambda: pupils(1, same=True, groups=2),
    "a diary sorted by day": lambda: pupils(1, same=True, rows=1),
    "strangers, one row each": lambda: pupils(1, same=False, rows=1),
    "sorted by id": lambda: pupils(1, same=False).sort_values("id", kind="stable"),
    "no column of schools": lambda: pupils(1, same=False).drop(columns="school"),
    "ids numbered through": lambda: pupils(1, same=False).assign(id=lambda d: 20 * d["school"] + d["id"]),
    "shuffled rows": lambda: pupils(1, same=False).sample(frac=1.0, random_state=1),
    "an attribute of persons": lambda: pupils(1, same=False).assign(sex=lambda d: np.where(d["id"] % 3 == 0, "f", "m")),
    "ids that are no numbers": lambda: pupils(1, same=False).assign(id=lambda d: d["id"].map("p{}".format)),
    "numbers far apart": lambda: pupils(1, same=False).assign(id=lambda d: d["id"] ** 2),
}


@pytest.mark.parametrize("case", NOT)
def test_what_is_no_numbering_that_starts_anew(case: str) -> None:
    assert told(lambda: mlmed.mixed("m ~ x + (1 | id)", NOT[case]())) == []


def test_combined_ids_and_engines_are_not_asked() -> None:
    """(1 | school:id) is the cure; rows in an engine have no order."""
    data = pupils(1, same=False)
    assert told(lambda: mlmed.mixed("m ~ x + (1 | school:id)", data)) == []
    assert told(lambda: mlmed.mixed("m ~ x + (1 | id)", FRAMES["duckdb"](data))) == []


def experiment(seed: int, sd: float) -> pd.DataFrame:
    """The same 30 persons in four blocks of 5 trials, sorted by block; x is drawn for each trial."""
    rng = np.random.default_rng(seed)
    person = np.tile(np.repeat(np.arange(30), 5), 4)
    effects, noise = sd * rng.normal(size=(30, 2))[person], rng.normal(size=(600, 2))
    x = rng.integers(0, 2, 600).astype(float)
    m, y = (effects + noise).T + 0.5 * x
    return pd.DataFrame({"block": np.repeat(list("abcd"), 150), "id": person + 1, "x": x, "m": m, "y": y})


def test_how_often_it_is_right() -> None:
    """Of 40 data sets each: strangers noticed in 35 and more (a column may differ by chance), persons in none."""
    notice = {True: 0, False: 0}
    for seed in range(40):
        for same in notice:
            data = pupils(seed, same=same, groups=4, each=12, rows=4)
            notice[same] += bool(reused_ids(data, "id", frozenset(["id", "x", "m"])))
    assert notice[False] >= 35
    assert notice[True] == 0


@pytest.mark.parametrize("sd", [0.0, 0.1, 0.2, 0.4])
def test_persons_who_hardly_differ(sd: float) -> None:
    """Runs of one person differ as rows do: at most 3 of 40, where three tests at .001 make 0.12 expected."""
    asked = frozenset(["id", "x", "m", "y"])
    assert sum(bool(reused_ids(experiment(seed, sd), "id", asked)) for seed in range(40)) <= 3


def test_what_contradicts_one_person() -> None:
    """An attribute that is constant in each run but changes over the runs of an id; not a condition of the model."""
    data = experiment(1, 0.0)
    run = 30 * np.repeat(np.arange(4), 150) + data["id"] - 1
    data["sex"] = np.random.default_rng(2).integers(0, 2, 120)[run]
    assert "block" in reused_ids(data, "id", frozenset(["id", "x", "m", "y"]))
    assert reused_ids(data, "id", frozenset(["id", "x", "m", "y", "sex"])) == ""


def test_the_analysis_of_variance() -> None:
    """Balanced and complete: the p values of the two-way table with interaction (statsmodels)."""
    import statsmodels.formula.api as smf
    from statsmodels.stats.anova import anova_lm

    data = pupils(3, same=False, groups=3, each=6, rows=4)
    found = numbering_passes(data["id"])
    assert found is not None
    runs = np.repeat(np.arange(18), 4)
    for scale in np.linspace(0.0, 1.0, 6):
        means = data.groupby(["school", "id"])["m"].transform("mean")
        data["v"] = data["m"] - means + scale * means
        full = anova_lm(smf.ols("v ~ C(school)*C(id)", data).fit())
        plain = anova_lm(smf.ols("v ~ C(school) + C(id)", data.groupby(["school", "id"], as_index=False).mean()).fit())
        test = _two_way(data["v"], runs, found)
        if scale > 0:
            assert test.persists == (plain.loc["C(id)", "PR(>F)"] < SAME_CLUSTERS)
            assert test.varies == (full.loc["C(school):C(id)", "PR(>F)"] < OTHER_CLUSTERS)
        else:
            assert not test.varies


def test_passes() -> None:
    """Runs and passes of a small column, by hand."""
    found = numbering_passes(pd.Series([1, 1, 2, 2, 3, 3, 1, 1, 2, 2]))
    assert found is not None
    assert found.starts.tolist() == [0, 2, 4, 6, 8]
    assert found.ids.tolist() == [1, 2, 3, 1, 2]
    assert found.number.tolist() == [0, 0, 0, 1, 1]
    assert numbering_passes(pd.Series([1, 2, 3, 1, 2])) is None


# -- the id in the index -------------------------------------------------------------------------------------

INDEXED = {name: call for name, call in CALLS.items() if name != "causal, mixed"}


@pytest.mark.parametrize("mode", INDEXED)
def test_an_id_in_the_index(frame: pd.DataFrame, mode: str) -> None:
    with pytest.raises(DataError, match=r"'id' is not in the data; it is the index.*data\.reset_index\(\)"):
        INDEXED[mode](frame.set_index("id"))


def test_an_id_in_the_index_of_dask_or_of_several_levels(frame: pd.DataFrame) -> None:
    for data in (dd.from_pandas(frame.set_index("id"), npartitions=2), frame.set_index(["id", "x"])):
        with pytest.raises(DataError, match="it is the index of the table"):
            mlmed.mixed("m ~ 1 + (1 | id)", data)


def test_missing_ids_do_not_move_the_rest(frame: pd.DataFrame) -> None:
    """Float ids with gaps below 2^53 are what they were."""
    data = frame.assign(id=frame["id"].where(frame.index % 5 != 0))
    with pytest.warns(DroppedRowsWarning):
        assert mlmed.mixed(MEDIATOR, data).n_clusters == 40
