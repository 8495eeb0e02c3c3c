from __future__ import annotations

import gzip
import sys

import numpy as np
import pandas as pd
import pyreadstat
import pytest

import mlmed
from mlmed.data.readers import read_table
from mlmed.errors import DataError, DroppedRowsWarning, IdWarning, LabelWarning
from tests.tolerances import SAME


@pytest.fixture
def table():
    return pd.DataFrame({"id": [1, 1, 2], "x": [0.1, np.nan, -2.5e-7], "word": ["a", "b", "ä"]})


WRITERS = {
    ".csv": lambda table, path: table.to_csv(path, index=False),
    ".csv.gz": lambda table, path: table.to_csv(path, index=False),
    ".tsv": lambda table, path: table.to_csv(path, index=False, sep="\t"),
    ".dta": lambda table, path: table.to_stata(path, write_index=False, version=118),
    ".sav": lambda table, path: pyreadstat.write_sav(table, str(path)),
    ".parquet": lambda table, path: table.to_parquet(path, index=False),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_same_table(table, tmp_path, suffix):
    path = tmp_path / f"table{suffix}"
    WRITERS[suffix](table, path)
    pd.testing.assert_frame_equal(read_table(path), table, check_dtype=False, check_exact=True)


def test_path_may_be_a_string_in_capitals(table, tmp_path):
    table.to_csv(tmp_path / "TABLE.CSV", index=False)
    assert read_table(str(tmp_path / "TABLE.CSV")).shape == (3, 3)


def test_home_directory_is_expanded(table, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    table.to_csv(tmp_path / "table.csv", index=False)
    assert read_table("~/table.csv").shape == (3, 3)


LABELS = {
    "cond": {0: "control", 1: "workshop", 2: "both"},
    "sex": {1: "male", 2: "female", 9: "no answer"},
    "stress": {1: "never", 5: "always"},
    "children": {0: "0", 1: "1", 2: "2 or more"},
    "same": {0: "no", 1: "no"},
}
CODES = {"cond": [2, 0, 1], "sex": [2, 1, 2], "stress": [1, 3, 5], "children": [0, 1, 2], "same": [0, 1, 1]}


@pytest.fixture(params=[".dta", ".sav"])
def labelled(request, tmp_path):
    """A file whose columns have value labels."""
    path, table = tmp_path / f"labelled{request.param}", pd.DataFrame(CODES)
    if request.param == ".sav":
        pyreadstat.write_sav(table, str(path), column_labels={"cond": "assigned"}, variable_value_labels=LABELS)
    else:
        known = {name: own for name, own in LABELS.items() if name != "same"}  # pandas does not write such labels
        table.to_stata(path, write_index=False, value_labels=known, variable_labels={"cond": "assigned"})
    return path


def test_value_labels_become_levels(labelled):
    """In the order of the codes, where every value that occurs has its own label."""
    with pytest.warns(LabelWarning) as told:
        result = read_table(labelled)
    assert len(told) == 1
    assert "levels of cond (0 control, 1 workshop, 2 both), sex (1 male, 2 female)" in str(told[0].message)
    assert result["cond"].tolist() == ["both", "control", "workshop"]
    assert list(result["cond"].cat.categories) == ["control", "workshop", "both"]
    assert list(result["sex"].cat.categories) == ["male", "female"]
    assert result.attrs["variable_labels"]["cond"] == "assigned"
    assert result.attrs["value_labels"]["cond"] == LABELS["cond"]


def test_partly_labelled_values_stay_numbers_and_are_named(labelled):
    """Ends of a scale; a label that repeats its code is none; two codes with one label."""
    with pytest.warns(LabelWarning, match=r"stayed numbers.*stress \(1 never, 5 always\), children \(2 2 or more\)"):
        result = read_table(labelled)
    for name in ("stress", "children", "same"):
        assert result[name].tolist() == CODES[name]


def test_two_codes_with_one_label_in_stata(tmp_path):
    """Such a column is a number; it does not hide the labels of the others."""
    path = tmp_path / "same.dta"
    pyreadstat.write_dta(pd.DataFrame(CODES), str(path), variable_value_labels=LABELS)
    with pytest.warns(LabelWarning, match=r"levels of cond \(0 control, 1 workshop, 2 both\), sex"):
        result = read_table(path)
    assert result["same"].tolist() == CODES["same"]
    assert list(result["cond"].cat.categories) == ["control", "workshop", "both"]


@pytest.mark.parametrize("codes", [True, list(LABELS), ("cond", "sex", "stress", "children", "same")])
def test_codes_on_request(labelled, codes):
    """Numbers as they are, and no warning."""
    result = read_table(labelled, codes=codes)
    assert {name: result[name].tolist() for name in CODES} == CODES


def test_codes_of_one_column(labelled):
    """The others are levels; a name that is not there is refused."""
    with pytest.warns(LabelWarning, match=r"levels of sex \(1 male, 2 female\); the first"):
        result = read_table(labelled, codes="cond")
    assert result["cond"].tolist() == CODES["cond"]
    with pytest.raises(DataError, match="'con' is not in the data; did you mean cond"):
        read_table(labelled, codes=["con"])


def test_labels_of_missing_values_in_spss(tmp_path):
    """A declared missing value is missing, and its label is no level."""
    table = pd.DataFrame({"g": [1.0, 2.0, 9.0, 2.0]})
    path = tmp_path / "user_missing.sav"
    labels = {"g": {1: "low", 2: "high", 9: "refused"}}
    pyreadstat.write_sav(table, str(path), variable_value_labels=labels, missing_ranges={"g": [9]})
    with pytest.warns(LabelWarning, match=r"g \(1 low, 2 high\)"):
        result = read_table(path)
    assert result["g"].isna().tolist() == [False, False, True, False]
    assert list(result["g"].cat.categories) == ["low", "high"]


@pytest.mark.parametrize("suffix", [".dta", ".sav"])
def test_a_labelled_condition_has_the_coefficients_of_dummies(tmp_path, suffix):
    """Two contrasts against the first code, not one slope over 0, 1, 2: least squares on hand-made columns."""
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"id": np.repeat(np.arange(30.0), 6), "cond": np.tile([0.0, 1.0, 2.0], 60)})
    data["m"] = np.array([0.0, 1.0, -1.0])[data["cond"].astype(int)] + rng.normal(size=180) + data["id"] % 5
    path = tmp_path / f"trial{suffix}"
    if suffix == ".sav":
        pyreadstat.write_sav(data, str(path), variable_value_labels={"cond": LABELS["cond"]})
    else:
        data.to_stata(path, write_index=False, value_labels={"cond": LABELS["cond"]})
    with pytest.warns(LabelWarning):
        read = read_table(path)
    fit = mlmed.mixed("m ~ cond + (1 | id)", read)
    # balanced over clusters, so the contrasts are differences of means
    means = data.groupby("cond")["m"].mean()
    expected = [means[1.0] - means[0.0], means[2.0] - means[0.0]]
    np.testing.assert_allclose(fit.params[["cond[T.workshop]", "cond[T.both]"]], expected, rtol=1e-8)  # rounding only
    numbers = mlmed.mixed("m ~ cond + (1 | id)", read_table(path, codes=True))
    assert list(numbers.params.index) == ["Intercept", "cond"]


# -- whole numbers -------------------------------------------------------------------------------------------

LONG = [1234567890123456789 + 61 * k for k in range(40)]


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".tsv", ".parquet"])
@pytest.mark.parametrize("offset", [0, 2**63 - 1234567890123456789], ids=["int64", "uint64"])
def test_long_ids_are_exact_beside_a_missing_one(tmp_path, suffix, offset):
    """A missing id makes floats of a column in pandas, in which ids 61 apart are the same."""
    ids = [number + offset for number in LONG]
    column = pd.array([*ids, None], dtype="UInt64")
    path = tmp_path / f"table{suffix}"
    WRITERS[suffix](pd.DataFrame({"id": column, "x": 1.5}), path)
    result = read_table(path)["id"]
    assert [int(value) for value in result.dropna()] == ids
    assert result.isna().tolist() == [False] * 40 + [True]


def test_ids_beyond_64_bits(tmp_path):
    """As long as they are written."""
    ids = [10**25 + k for k in range(3)]
    (tmp_path / "long.csv").write_text("id,x\n" + "".join(f"{number},1\n" for number in ids) + ",1\n")
    assert read_table(tmp_path / "long.csv")["id"].dropna().tolist() == ids


def test_large_measurements_stay_floats(tmp_path):
    """1e20 is no whole number that somebody counted."""
    (tmp_path / "large.csv").write_text("x,y\n1e20,1\n2.5e20,2\n,3\n")
    assert read_table(tmp_path / "large.csv")["x"].tolist()[:2] == [1e20, 2.5e20]


def test_40_clusters_stay_40(tmp_path):
    """Ids 61 apart and one missing: the fit of the ids as text."""
    data = mlmed.simulate.bpg(40, 8, seed=3).data
    data["id"] = pd.Series(LONG, dtype=object)[(data["id"] - data["id"].min()).to_numpy()].to_numpy()
    data.loc[5, "id"] = None
    data.to_csv(tmp_path / "long.csv", index=False)
    with pytest.warns(DroppedRowsWarning):
        fit = mlmed.mixed("m ~ x + (1 | id)", read_table(tmp_path / "long.csv"))
    with pytest.warns(DroppedRowsWarning):
        expected = mlmed.mixed("m ~ x + (1 | id)", data.assign(id=data["id"].map(str, na_action="ignore")))
    assert fit.n_clusters == expected.n_clusters == 40
    assert fit.llf == pytest.approx(expected.llf, rel=SAME)


def test_leading_zeros(tmp_path):
    """007 and 7 stay apart, 007 alone is 7, and other columns are what they were."""
    (tmp_path / "two.csv").write_text("id,x\n007,1\n7,0.5\n012,2\n")
    assert read_table(tmp_path / "two.csv")["id"].tolist() == ["007", "7", "012"]
    (tmp_path / "one.csv").write_text("id,x\n007,1\n008,0.5\n,2\n")
    result = read_table(tmp_path / "one.csv")
    assert result["id"].dropna().tolist() == [7, 8]
    assert result["x"].tolist() == [1.0, 0.5, 2.0]


PUPILS = ["1.1", "1.1", "1.10", "1.10", "2.5", "2.50"]


def _written(tmp_path, ids, name="ids.csv", separator=","):
    rows = [f"{text}{separator}{k}" for k, text in enumerate(ids)]
    path = tmp_path / name
    path.write_text("\n".join([f"id{separator}k", *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("ids", "pair"),
    [
        (["1.1", "1.1", "1.10", "1.10"], "1.1 and 1.10"),
        (["1E2", "1E2", "10E1", "10E1", "100E0", "100E0"], "1E2 and 10E1"),
        (["0.5", ".5", ".5", "0.5"], "0.5 and .5"),
    ],
)
def test_different_texts_that_are_one_number(tmp_path, ids, pair):
    """Numbers, with a warning that names a pair; text on request."""
    path = _written(tmp_path, ids)
    with pytest.warns(IdWarning, match=rf"{pair} in column 'id'.*text=\['id'\]"):
        assert read_table(path)["id"].tolist() == [float(text) for text in ids]
    assert read_table(path, text=["id"])["id"].tolist() == read_table(path, text="id")["id"].tolist() == ids


def test_different_texts_with_decimal_commas(tmp_path):
    path = _written(tmp_path, ["1,1", "1,1", "1,10", "1,10"], separator=";")
    with pytest.warns(IdWarning, match="1,1 and 1,10"):
        assert read_table(path)["id"].tolist() == [1.1] * 4


@pytest.mark.parametrize(
    "texts",
    [
        ["1.5", "1.50", "2.25", "3.1", "0.7"],  # measurements: more texts than rows for them
        ["0.50", "0.50", "2.50", "2.50"],  # each number in one way
        ["0.00", "-0.00", "0.00", "-0.00"],
        ["1", "1.0", "2", "1.0"],  # whole numbers that were floats once
        ["1e-5", "1e-5", "2e-3", "2e-3"],
    ],
)
@pytest.mark.filterwarnings("error")
def test_measurements_are_no_ids(tmp_path, texts):
    assert read_table(_written(tmp_path, texts))["id"].tolist() == [float(text) for text in texts]


def test_text_of_an_unknown_column(tmp_path):
    with pytest.raises(DataError, match="column 'idd' is not in the data; did you mean id"):
        read_table(_written(tmp_path, PUPILS), text=["idd"])


def test_blanks_around_names_of_columns(tmp_path):
    """Removed, unless two columns would then have one name."""
    (tmp_path / "blanks.csv").write_text("id, x ,m\n1,2,3\n")
    assert list(read_table(tmp_path / "blanks.csv").columns) == ["id", "x", "m"]
    (tmp_path / "twice.csv").write_text("id, x,x\n1,2,3\n")
    assert list(read_table(tmp_path / "twice.csv").columns) == ["id", " x", "x"]


def test_one_type_for_a_long_column(tmp_path):
    """Numbers at the start and text far below: all ids are text, so 12 and 12 are one."""
    ids = [str(number % 50) for number in range(300_000)] + ["a12"]
    (tmp_path / "mixed.csv").write_text("id,x\n" + "".join(f"{text},1\n" for text in ids))
    assert set(map(type, read_table(tmp_path / "mixed.csv")["id"].unique())) == {str}


# -- separators and encodings --------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_another_separator_than_the_extension_says(table, tmp_path, suffix, separator):
    """Found where only it splits the lines evenly."""
    path = tmp_path / f"table{suffix}"
    table.to_csv(path, index=False, sep=separator)
    pd.testing.assert_frame_equal(read_table(path), table, check_dtype=False, check_exact=True)


@pytest.mark.parametrize("first", ["", "sep=;\n"])
def test_semicolons_and_decimal_commas(table, tmp_path, first):
    """What Excel writes in most of Europe."""
    path = tmp_path / "table.csv"
    path.write_text(first + table.to_csv(index=False, sep=";", decimal=","), encoding="utf-8")
    pd.testing.assert_frame_equal(read_table(path), table, check_dtype=False, check_exact=True)


def test_commas_inside_quotes_are_no_separators(tmp_path):
    """Nor are semicolons in a file with commas."""
    (tmp_path / "quoted.csv").write_text('a,b\n"x;1","y, z"\n"u;2",w\n')
    assert read_table(tmp_path / "quoted.csv")["b"].tolist() == ["y, z", "w"]


def test_decimal_commas_and_points_are_not_mixed_up(tmp_path):
    """Points in a file of decimal commas may be thousands: text, which a fit refuses."""
    (tmp_path / "mixed.csv").write_text("x;w\n1,5;1.500\n2,5;2.500\n")
    result = read_table(tmp_path / "mixed.csv")
    assert result["x"].tolist() == [1.5, 2.5]
    assert result["w"].tolist() == ["1.500", "2.500"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_that_a_file_names(table, tmp_path, encoding):
    """By the mark at its start, which is no part of the first name."""
    path = tmp_path / "table.csv"
    table.to_csv(path, index=False, encoding=encoding)
    pd.testing.assert_frame_equal(read_table(path), table, check_dtype=False, check_exact=True)


@pytest.mark.parametrize(
    ("encoding", "found"), [("latin-1", "line 4 is not text in utf-8"), ("utf-16-le", "zero bytes")]
)
def test_encodings_that_it_does_not_name(table, tmp_path, encoding, found):
    """Refused with what to do, and read when told."""
    path = tmp_path / "table.csv"
    table.to_csv(path, index=False, encoding=encoding)
    with pytest.raises(DataError, match=rf"{found}.*encoding='{encoding}'.*--encoding {encoding}"):
        read_table(path)
    result = read_table(path, encoding=encoding)
    pd.testing.assert_frame_equal(result, table, check_dtype=False, check_exact=True)


def test_unknown_encoding(table, tmp_path):
    table.to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(DataError, match="no encoding 'klingon'"):
        read_table(tmp_path / "table.csv", encoding="klingon")


def test_other_marks_of_missing_values(tmp_path):
    """Given by name; a column with them is one of numbers."""
    (tmp_path / "dots.csv").write_text("x,y\n1.5,2\n.,3\n#NULL!,4\n")
    result = read_table(tmp_path / "dots.csv", missing=[".", "#NULL!"])["x"]
    assert result.dtype == np.float64
    assert result.isna().tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("suffix", "option"),
    [
        (".parquet", {"encoding": "latin-1"}),
        (".sav", {"missing": ["."]}),
        (".csv", {"codes": True}),
        (".parquet", {"codes": ["x"]}),
        (".sav", {"text": ["id"]}),
    ],
)
def test_options_are_refused_where_they_have_no_use(table, tmp_path, suffix, option):
    WRITERS[suffix](table, tmp_path / f"table{suffix}")
    with pytest.raises(DataError, match=rf"{next(iter(option))} is for files in .*table\{suffix} is none"):
        read_table(tmp_path / f"table{suffix}", **option)


# -- refusals ------------------------------------------------------------------------------------------------


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"There is no file .*gone\.csv .*Check the path"):
        read_table(tmp_path / "gone.csv")


def test_directory(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="not a file but a directory"):
        read_table(tmp_path / "folder.csv")


@pytest.mark.parametrize("name", ["table.xlsx", "table", "table.gz", "csv"])
def test_unknown_extension_lists_the_known(tmp_path, name):
    (tmp_path / name).write_text("x\n1\n")
    with pytest.raises(DataError, match=r"Known: \.csv, \.csv\.gz, \.tsv, \.dta, \.sav, \.parquet"):
        read_table(tmp_path / name)


@pytest.mark.parametrize("suffix", WRITERS)
def test_empty_file(tmp_path, suffix):
    path = tmp_path / f"table{suffix}"
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"is empty \(0 bytes\)"):
        read_table(path)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".tsv", ".dta", ".parquet"])
def test_header_without_rows(table, tmp_path, suffix):
    path = tmp_path / f"table{suffix}"
    numbers = table[["id", "x"]].iloc[:0]
    WRITERS[suffix](numbers, path)
    with pytest.raises(DataError, match="no rows of data"):
        read_table(path)


def test_blank_lines_only(tmp_path):
    (tmp_path / "blank.csv").write_text("\n\n")
    (tmp_path / "blank.csv.gz").write_bytes(gzip.compress(b""))
    for name in ("blank.csv", "blank.csv.gz"):
        with pytest.raises(DataError, match="no rows of data"):
            read_table(tmp_path / name)


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x01", b"\x76\x00\xff", b"\xff" * 500])
def test_bytes_that_are_not_what_the_extension_says(tmp_path, suffix, content):
    path = tmp_path / f"table{suffix}"
    path.write_bytes(content)
    # the first is a mark of UTF-16 and one letter, which is a header without rows
    header = content.startswith(b"\xff\xfe\x00") and suffix in (".csv", ".tsv")
    with pytest.raises(DataError, match="no rows of data" if header else rf"cannot be read as \{suffix}"):
        read_table(path)


def test_lines_of_different_length(tmp_path):
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n1,2,3,4\n")
    with pytest.raises(DataError, match=r"line 3 of .*ragged\.csv has 4 fields, but the header has 2 names"):
        read_table(tmp_path / "ragged.csv")


def test_truncated_gzip(table, tmp_path):
    table.to_csv(tmp_path / "whole.csv.gz", index=False)
    whole = (tmp_path / "whole.csv.gz").read_bytes()
    (tmp_path / "half.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cannot be read as \.csv\.gz"):
        read_table(tmp_path / "half.csv.gz")


@pytest.mark.parametrize(("suffix", "package"), [(".sav", "pyreadstat"), (".parquet", "pyarrow")])
def test_absent_package_names_the_extra(table, tmp_path, monkeypatch, suffix, package):
    path = tmp_path / f"table{suffix}"
    WRITERS[suffix](table, path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=rf'Reading \{suffix} needs .*{package}.*pip install "mlmed\[io\]"'):
        read_table(path)
