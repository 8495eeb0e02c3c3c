from __future__ import annotations

import gzip
import sys

import numpy as np
import pandas as pd
import pyreadstat
import pytest

from mlmed.data.readers import read_table
from mlmed.errors import DataError


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


def test_stata_labels_stay_beside_the_numbers(tmp_path):
    table = pd.DataFrame({"treat": [0, 1, 1], "x": [1.0, 2.0, 3.0]})
    table.to_stata(
        tmp_path / "labelled.dta",
        write_index=False,
        value_labels={"treat": {0: "control", 1: "workshop"}},
        variable_labels={"treat": "assigned to the workshop"},
    )
    result = read_table(tmp_path / "labelled.dta")
    assert result["treat"].tolist() == [0, 1, 1]
    assert result.attrs["value_labels"] == {"treat": {0: "control", 1: "workshop"}}
    assert result.attrs["variable_labels"] == {"treat": "assigned to the workshop"}


def test_spss_labels_stay_beside_the_numbers(tmp_path):
    table = pd.DataFrame({"treat": [0.0, 1.0, 1.0], "x": [1.0, 2.0, 3.0]})
    pyreadstat.write_sav(
        table,
        str(tmp_path / "labelled.sav"),
        column_labels={"treat": "assigned to the workshop"},
        variable_value_labels={"treat": {0: "control", 1: "workshop"}},
    )
    result = read_table(tmp_path / "labelled.sav")
    assert result["treat"].tolist() == [0, 1, 1]
    assert result.attrs["value_labels"] == {"treat": {0: "control", 1: "workshop"}}
    assert result.attrs["variable_labels"] == {"treat": "assigned to the workshop"}


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
    with pytest.raises(DataError, match=rf"cannot be read as \{suffix}"):
        read_table(path)


def test_lines_of_different_length(tmp_path):
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n1,2,3,4\n")
    with pytest.raises(DataError, match=r"cannot be read as \.csv .*Expected 2 fields in line 3, saw 4"):
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
