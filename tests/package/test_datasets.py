from __future__ import annotations

import gzip
import io
import urllib.request
from dataclasses import replace
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pandas as pd
import pytest

from mlmed import datasets
from mlmed.errors import DatasetError, MlmedWarning

NAMES = [
    "yuan_mackinnon_sim",
    "ml_sim",
    "sleepstudy",
    "gpa",
    "williams",
    "blch9",
    "framing",
    "jobs",
    "school",
    "student",
]


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No MLMED_DATA, an empty cache, and a network that must not be used."""
    monkeypatch.delenv("MLMED_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))

    def refuse(request, timeout):
        raise AssertionError(f"the network was used for {request.full_url}")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return tmp_path / "caches" / "mlmed"


@pytest.fixture
def tiny(monkeypatch):
    """A data set of three rows, known to the package for the time of a test."""
    columns = {"id": 4 / 3, "x": 2.0, "word": None}
    record = datasets.Dataset("tiny", "three rows", "nobody", 3, columns, "https://example.org/tiny.csv")
    monkeypatch.setitem(datasets._RECORDS, "tiny", record)
    return record


TINY = "id,x,word\n1,1.5,a\n1,0.1,\n2,4.4,c\n"


def serve(monkeypatch, content):
    """Answer every request with this content, and return the list that requests will be noted in."""
    seen = []

    def urlopen(request, timeout):
        seen.append((request.full_url, timeout))
        return io.BytesIO(content)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return seen


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_names_and_description_agree():
    table = datasets.describe()
    assert datasets.names() == NAMES == table["name"].tolist()
    assert table.loc[table["shipped"], "name"].tolist() == ["yuan_mackinnon_sim"]
    known = table.set_index("name")["source"].drop("blch9")
    assert known.str.startswith(("https://", "the package")).all()
    assert table["source"].iloc[NAMES.index("blch9")] == "no public address"
    assert (table["rows"] > 100).all()
    assert (table["columns"] > 2).all()


def test_shipped_data_need_neither_environment_nor_network(nowhere):
    data = datasets.load("yuan_mackinnon_sim", download=False)
    assert data.shape == (1000, 4)
    assert data["group"].value_counts().eq(20).all()
    assert data["group"].nunique() == 50
    assert not nowhere.exists()


def test_shipped_data_agree_with_the_page_they_come_from():
    # The page prints .5522 for the residual variance of Med ~ X + (1 + X | group). A line of its own in every
    # group estimates the same quantity on 900 degrees of freedom: not equal to REML, but near it.
    data = datasets.load("yuan_mackinnon_sim")
    left = 0.0
    for _, group in data.groupby("group"):
        design = np.column_stack([np.ones(len(group)), group["X"]])
        left += np.linalg.lstsq(design, group["Med"].to_numpy(), rcond=None)[1].item()
    assert left / 900 == pytest.approx(0.5522, abs=5e-4)


@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_passes_its_own_check(dataset, name):
    data = dataset(name)
    row = datasets.describe().set_index("name").loc[name]
    assert data.shape == (row["rows"], row["columns"])


def test_ml_sim_is_the_one_of_the_stata_page(dataset):
    data = dataset("ml_sim")
    assert data.columns.tolist() == ["id", "x", "m", "y"]
    # Stata: summarize x m y, corr x m y
    np.testing.assert_allclose(data[["x", "m", "y"]].mean(), [-0.1539876, -0.0247739, -0.1833981], atol=6e-8)
    np.testing.assert_allclose(data[["x", "m", "y"]].std(), [1.330374, 1.483614, 1.66918], atol=6e-7)
    np.testing.assert_allclose(data["x"].agg(["min", "max"]), [-4.151426, 3.869661], atol=6e-7)
    printed = [0.5404, 0.5537, 0.7591]
    correlations = data[["x", "m", "y"]].corr().to_numpy()[[0, 0, 1], [1, 2, 2]]
    np.testing.assert_allclose(correlations, printed, atol=6e-5)
    assert data["id"].value_counts().eq(8).all()


def test_unknown_name_suggests_a_known_one():
    with pytest.raises(DatasetError, match=r"No data set 'mlsim' is known, only .*sleepstudy.*mean ml_sim\?"):
        datasets.load("mlsim")


def test_environment_goes_before_cache_and_csv_before_gz(tiny, nowhere, tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    monkeypatch.setenv("MLMED_DATA", str(shared))
    write(nowhere / "tiny.csv", TINY.replace("a", "cache"))
    assert datasets.load("tiny")["word"][0] == "cache"
    write(shared / "tiny.csv.gz", TINY.replace("a", "gz"))
    assert datasets.load("tiny")["word"][0] == "gz"
    write(shared / "tiny.csv", TINY.replace("a", "csv"))
    assert datasets.load("tiny")["word"][0] == "csv"


def test_data_home_replaces_the_cache(tiny, nowhere, tmp_path):
    write(nowhere / "tiny.csv", TINY.replace("a", "cache"))
    write(tmp_path / "home" / "tiny.csv.gz", TINY.replace("a", "home"))
    assert datasets.load("tiny", data_home=tmp_path / "home")["word"][0] == "home"


def test_cache_is_under_home_without_xdg(tiny, nowhere, tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / ".cache" / "mlmed" / "tiny.csv", TINY)
    assert len(datasets.load("tiny")) == 3


def test_download_is_checked_kept_and_not_repeated(tiny, nowhere, monkeypatch):
    seen = serve(monkeypatch, b"rownames,id,x,word\n1,1,1.5,a\n2,1,0.1,\n3,2,4.4,c\n")
    data = datasets.load("tiny")
    assert data.columns.tolist() == ["id", "x", "word"]
    assert [path.name for path in nowhere.iterdir()] == ["tiny.csv"]
    pd.testing.assert_frame_equal(datasets.load("tiny"), data)
    assert [address for address, _ in seen] == ["https://example.org/tiny.csv"]
    assert 0 < seen[0][1] <= 60


def test_download_through_a_file_address(tiny, tmp_path, monkeypatch):
    monkeypatch.delenv("MLMED_DATA", raising=False)
    address = write(tmp_path / "remote.csv", TINY).as_uri()
    monkeypatch.setitem(datasets._RECORDS, "tiny", replace(tiny, address=address))
    assert datasets.load("tiny", data_home=tmp_path / "home")["x"].tolist() == [1.5, 0.1, 4.4]
    assert (tmp_path / "home" / "tiny.csv").is_file()


def test_download_of_stata_format_with_columns_in_another_order(nowhere, tmp_path, monkeypatch, tiny):
    record = replace(tiny, columns={"id": 4 / 3, "x": 2.0}, format="stata")
    monkeypatch.setitem(datasets._RECORDS, "tiny", record)
    table = pd.DataFrame({"x": [1.5, 0.1, 4.4], "id": np.array([1, 1, 2], dtype="int8")})
    table.to_stata(tmp_path / "tiny.dta", write_index=False)
    serve(monkeypatch, (tmp_path / "tiny.dta").read_bytes())
    data = datasets.load("tiny")
    assert data.columns.tolist() == ["id", "x"]
    pd.testing.assert_frame_equal(datasets.load("tiny"), data)


@pytest.mark.parametrize("fault", [URLError("no route"), TimeoutError("slow"), IncompleteRead(b"id,")])
def test_failed_download_says_where_it_looked_and_what_to_do(tiny, nowhere, tmp_path, monkeypatch, fault):
    def urlopen(request, timeout):
        raise fault

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setenv("MLMED_DATA", str(tmp_path / "shared"))
    with pytest.raises(DatasetError) as caught:
        datasets.load("tiny")
    places = [tmp_path / "shared" / "tiny.csv.gz", nowhere / "tiny.csv"]
    said = ["fetching https://example.org/tiny.csv failed", "Set MLMED_DATA to a directory that holds tiny"]
    for part in (*places, *said, fault):
        assert str(part) in str(caught.value)
    assert caught.value.__cause__ is fault


def test_without_download_or_address_it_says_so(tiny, nowhere, monkeypatch):
    with pytest.raises(DatasetError, match=r"MLMED_DATA is not set.*download was switched off"):
        datasets.load("tiny", download=False)
    monkeypatch.setitem(datasets._RECORDS, "tiny", replace(tiny, address=None))
    with pytest.raises(DatasetError, match=r"no address is known.*put the file at .*tiny\.csv"):
        datasets.load("tiny")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (TINY.replace("4.4", "4.5"), r"expected the mean of 'x' to be 2, found 2\.0333333"),
        (TINY.replace("4.4", "?"), r"expected the mean of 'x' to be 2, found nan"),
        (TINY.replace("4.4", ""), r"expected the mean of 'x' to be 2, found nan"),
        (TINY + "1,2.0,d\n", "expected 3 rows, found 4"),
        (
            TINY.replace("word", "wrod"),
            r"the columns .*'word'.* found .*'wrod'.* without \['word'\]",
        ),
        ("<html>\n<p>moved</p>\n", r"without \['id', 'x', 'word'\]"),
        ("a,b\n1,2,3\n1,2,3,4,5\n", "cannot be read as csv"),
        ("", "cannot be read as csv"),
    ],
)
@pytest.mark.parametrize("place", ["environment", "cache", "download"])
def test_wrong_content_is_refused_wherever_it_comes_from(tiny, nowhere, tmp_path, monkeypatch, text, complaint, place):
    if place == "environment":
        where = str(write(tmp_path / "shared" / "tiny.csv", text))
        monkeypatch.setenv("MLMED_DATA", str(tmp_path / "shared"))
    elif place == "cache":
        where = str(write(nowhere / "tiny.csv", text))
    else:
        where = "https://example.org/tiny.csv"
        serve(monkeypatch, text.encode())
    with pytest.raises(DatasetError, match=f"(?s){complaint}") as caught:
        datasets.load("tiny")
    assert f"'tiny' from {where}" in str(caught.value)
    assert place == "cache" or not nowhere.exists()


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>" + b"x" * 200, bytes([118]) + b"\0" * 3])
def test_what_is_not_stata_is_refused(tiny, nowhere, monkeypatch, content):
    monkeypatch.setitem(datasets._RECORDS, "tiny", replace(tiny, format="stata"))
    serve(monkeypatch, content)
    with pytest.raises(DatasetError, match="cannot be read as stata"):
        datasets.load("tiny")


def test_truncated_gzip_is_refused(tiny, nowhere):
    whole = gzip.compress(TINY.encode() * 50)
    nowhere.mkdir(parents=True)
    (nowhere / "tiny.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="cannot be read as csv"):
        datasets.load("tiny")


def test_column_that_must_be_constant_in_a_cluster(tiny, nowhere, monkeypatch):
    monkeypatch.setitem(datasets._RECORDS, "tiny", replace(tiny, constant=("x", "id")))
    write(nowhere / "tiny.csv", TINY)
    with pytest.raises(DatasetError, match="expected 'x' to be constant within 'id', found 1 that vary"):
        datasets.load("tiny")


def test_means_may_differ_by_rounding_only(tiny, nowhere):
    write(nowhere / "tiny.csv", TINY.replace("4.4", "4.400003"))  # moves the mean of 2 by 1e-6
    assert len(datasets.load("tiny")) == 3
    write(nowhere / "tiny.csv", TINY.replace("4.4", "4.40001"))
    with pytest.raises(DatasetError, match="mean of 'x'"):
        datasets.load("tiny")


def test_cache_that_cannot_be_written_is_a_warning(tiny, nowhere, tmp_path, monkeypatch):
    serve(monkeypatch, TINY.encode())
    blocked = write(tmp_path / "file", "not a directory")
    with pytest.warns(MlmedWarning, match="cannot be kept at .*Pass data_home"):
        data = datasets.load("tiny", data_home=blocked / "below")
    assert len(data) == 3


def test_interrupted_write_leaves_nothing_behind(tiny, nowhere, monkeypatch):
    serve(monkeypatch, TINY.encode())

    def full(handle):
        raise OSError("disk full")

    monkeypatch.setattr("mlmed.atomic.os.fsync", full)
    with pytest.warns(MlmedWarning, match="disk full"):
        datasets.load("tiny")
    assert list(nowhere.iterdir()) == []


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_absent_data_skip_at_home_and_fail_on_ci(dataset, monkeypatch, ci, outcome):
    def absent(name):
        raise DatasetError(f"{name} is nowhere")

    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(datasets, "load", absent)
    with pytest.raises(outcome, match="unheard_of is nowhere"):
        dataset("unheard_of")
