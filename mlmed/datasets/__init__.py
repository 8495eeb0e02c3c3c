"""Example data sets, each checked against its record before it is returned.

One data set ships with the package: ``yuan_mackinnon_sim``, produced by running the R recipe published in
"Bayesian Multilevel Mediation" (after Yuan and MacKinnon, 2009), seed 8675309, in R 4.2.2, with the signs
of the SVD and of the eigenvectors that reproduce the page's lmer output to every printed digit (those
signs differ between linear algebra libraries, so the recipe alone does not fix the numbers).

All others stay with their publishers; `load` says where it looks for them.
"""

from __future__ import annotations

import difflib
import io
import os
import struct
import urllib.request
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from http.client import HTTPException
from importlib import resources
from pathlib import Path
from typing import IO, Literal

import pandas as pd

from mlmed.atomic import write_text
from mlmed.errors import DataError, DatasetError, MlmedWarning, warn
from mlmed.options import check_path
from mlmed.text import LETTERS, shown

__all__ = ["Dataset", "describe", "files", "load", "names"]

_MEAN_TOLERANCE = 1e-6  # times max(1, |mean|); the means below carry eight digits
_TIMEOUT_SECONDS = 30.0
_ENVIRONMENT = "MLMED_DATA"
_Directory = str | os.PathLike[str] | None
# errors of pandas for a bad file
_UNREADABLE = (ValueError, LookupError, TypeError, OSError, EOFError, struct.error, zlib.error)


@dataclass(frozen=True, slots=True)
class Dataset:
    """The record of a data set.

    Attributes
    ----------
    name, what, citation : str
        Name, description in one line, citation.
    rows : int
        Number of rows.
    columns : Mapping[str, float or None]
        Column name to mean, in the order of the table; None for columns of text.
    address, format : str or None, {"csv", "stata"}
        Public address (None if unknown) and format of the file there.
    shipped, constant : bool, (str, str) or None
        Whether the file is part of the package; a column, and the cluster within which it must be constant.
    """

    name: str
    what: str
    citation: str
    rows: int
    columns: Mapping[str, float | None]
    address: str | None = None
    format: Literal["csv", "stata"] = "csv"
    shipped: bool = False
    constant: tuple[str, str] | None = None


_RDATASETS = "https://vincentarelbundock.github.io/Rdatasets/csv"
_RAW = "https://raw.githubusercontent.com"
_ELS = "US Department of Education, Education Longitudinal Study of 2002; R package mediation"
# fmt: off
_RECORDS: dict[str, Dataset] = {record.name: record for record in (
    Dataset("yuan_mackinnon_sim", "simulated 1-1-1 mediation, 50 groups of 20, from a published R recipe",
        "Yuan and MacKinnon (2009), Psychological Methods 14, 301-322; recipe: Bayesian Multilevel Mediation",
        1000, {"group": 25.5, "X": -0.10348574, "Med": 1.9965408, "y": 0.61725215}, shipped=True),
    Dataset("ml_sim", "simulated 1-1-1 mediation, 100 clusters of 8, as used on the Stata FAQ page",
        "Bauer, Preacher and Gil (2006), Psychological Methods 11, 142-163",
        800, {"id": 50.5, "x": -0.15398759, "m": -0.024773853, "y": -0.18339806},
        "https://stats.idre.ucla.edu/stat/data/ml_sim.dta", "stata"),
    Dataset("sleepstudy", "reaction times of 18 people over ten days of sleep deprivation",
        "Belenky et al. (2003), Journal of Sleep Research 12, 1-12; R package lme4",
        180, {"Reaction": 298.50789, "Days": 4.5, "Subject": 341.27778}, f"{_RDATASETS}/lme4/sleepstudy.csv"),
    Dataset("gpa", "grade point averages of 200 students over six semesters",
        "Hox (2010), Multilevel Analysis: Techniques and Applications, 2nd edition",
        1200, {"student": 100.5, "occas": None, "gpa": 2.865, "job": None, "sex": None, "highgpa": 2.9875,
               "admitted": None, "year": 2.0, "semester": 1.5, "occasion": 2.5},
        f"{_RAW}/m-clark/mixed-models-with-R/a77f2fcd3a4307ed16c3cfee8c1bcbbfc2b69da5/data/gpa.csv"),
    # An earlier file at this address had `female` varying from day to day within a person.
    Dataset("williams", "daily affect and steps, 13,033 days of 193 people",
        "Williams and colleagues (2021), as distributed with S. J. Weston's course on Bayesian data analysis",
        13033, {"id": 98.610297, "female": 0.57016803, "PA.std": 0.014382355, "day": 44.179621,
                "PA_lag": 0.019925874, "NA_lag": -0.045752286, "steps.pm": 0.054243872,
                "steps.pmd": 0.028391595, "NA.std": -0.075450932},
        f"{_RAW}/sjweston/uobayes/refs/heads/main/files/data/external_data/williams.csv",
        constant=("female", "id")),
    Dataset("blch9", "diary of 100 people over 21 days, x, m and y centred within people, as in R package bmlm",
        "Bolger and Laurenceau (2013), Intensive Longitudinal Methods, chapter 9",
        2100, {"id": 150.5, "time": 11.0, "fwkstrs": 2.9685714, "fwkdis": 5.2306278, "freldis": 4.6353768,
               "x": 0.0, "m": 0.0, "y": 0.0}),
    Dataset("framing", "experiment on the framing of news about immigration, 265 people",
        "Brader, Valentino and Suhay (2008), American Journal of Political Science 52, 959-978",
        265, {"cond": 2.4716981, "anx": None, "age": 47.766038, "educ": None, "gender": None,
              "income": 10.796226, "emo": 6.9735849, "p_harm": 5.8867925, "tone": 0.50943396,
              "eth": 0.50943396, "treat": 0.25660377, "english": None, "immigr": 3.0264151,
              "anti_info": 0.10943396, "cong_mesg": 0.33207547},
        f"{_RDATASETS}/mediation/framing.csv"),
    Dataset("jobs", "JOBS II, a randomized job search intervention, 899 unemployed people",
        "Vinokur and Schul (1997), Journal of Consulting and Clinical Psychology 65, 867-877",
        899, {"treat": 0.66740823, "econ_hard": 3.0241379, "depress1": 1.8700334, "sex": 0.53615128,
              "age": 37.565063, "occp": None, "marital": None, "nonwhite": None, "educ": None, "income": None,
              "job_seek": 4.0433445, "depress2": 1.7414018, "work1": None, "comply": 0.4137931,
              "control": None, "job_dich": 0.61735261, "job_disc": 3.1256952},
        f"{_RDATASETS}/mediation/jobs.csv"),
    Dataset("school", "568 schools, the upper level of `student`", _ELS,
        568, {"SCH_ID": 284.5, "coed": 0.94190141, "smorale": 4.0070423, "free": 3.0897887,
              "catholic": 0.13204225}, f"{_RDATASETS}/mediation/school.csv"),
    Dataset("student", "hypothetical students in 568 schools, imputed so that nobody can be identified", _ELS,
        9679, {"fight": 0.12563281, "attachment": 0.88562868, "work": 0.38516376, "score": 51.911768,
               "late": 2.2417605, "coed": 0.94131625, "smorale": 4.0174605, "gender": 0.52112822,
               "income": 9.2583945, "free": 2.9881186, "pared": 0.43640872, "catholic": 0.14257671,
               "SCH_ID": 285.49695}, f"{_RDATASETS}/mediation/student.csv"),
)}
# fmt: on


def names() -> list[str]:
    """Return the names that `load` knows.

    Examples
    --------
    >>> from mlmed import datasets
    >>> datasets.names()[:2]
    ['yuan_mackinnon_sim', 'ml_sim']
    """
    return list(_RECORDS)


def describe() -> pd.DataFrame:
    """Return one row per data set: description, size, source.

    Returns
    -------
    pandas.DataFrame
        Columns ``name``, ``rows``, ``columns`` (counts), ``shipped``, ``source``, ``what``, ``citation``.

    Examples
    --------
    >>> from mlmed import datasets
    >>> print(datasets.describe().loc[:1, ["name", "rows", "columns"]])
                     name  rows  columns
    0  yuan_mackinnon_sim  1000        4
    1              ml_sim   800        4
    """
    records = pd.DataFrame([asdict(record) for record in _RECORDS.values()])
    records["columns"] = records["columns"].map(len)
    records["source"] = records["address"].fillna("no public address").where(~records["shipped"], "the package")
    return records[["name", "rows", "columns", "shipped", "source", "what", "citation"]]


def files(*, data_home: _Directory = None) -> list[Path]:
    """Return the files on this machine that `load` may read.

    Parameters
    ----------
    data_home : path, optional
        Cache directory, as in `load`.

    Examples
    --------
    >>> from mlmed import datasets
    >>> datasets.files()[0].name
    'yuan_mackinnon_sim.csv'
    """
    home = _cache(data_home)
    shipped = [Path(str(resources.files(__name__).joinpath(f"{r.name}.csv"))) for r in _RECORDS.values() if r.shipped]
    places = [*shipped, *(path for name in _RECORDS for path in _candidates(name, home))]
    return [path for path in places if os.path.isfile(path)]


def load(name: str, *, data_home: _Directory = None, download: bool = True) -> pd.DataFrame:
    """Load an example data set by name, after checking its content.

    Sources are tried in this order: the package (``yuan_mackinnon_sim`` only, see `mlmed.datasets` for its
    origin), the directory named by the environment variable ``MLMED_DATA``, the cache, the public address. In
    a directory, ``NAME.csv`` goes before ``NAME.csv.gz``. The number of rows, the columns and the mean of
    every numeric column must be as recorded (means to 1e-6 times the larger of 1 and the mean); columns that
    are not part of the data set, such as row names, are dropped.

    Parameters
    ----------
    name : str
        One of `names`.
    data_home : path, optional
        Cache directory; default ``mlmed`` under ``XDG_CACHE_HOME`` or ``~/.cache``.
    download : bool, default True
        Whether to download a data set found nowhere else, and keep it in the cache.

    Returns
    -------
    pandas.DataFrame
        Shape (rows, columns) as listed by `describe`.

    Raises
    ------
    DatasetError
        If the name is unknown, the data set is not found, or its content is not as recorded.

    Examples
    --------
    >>> from mlmed import datasets
    >>> data = datasets.load("yuan_mackinnon_sim")
    >>> data.shape, list(data)
    ((1000, 4), ['group', 'X', 'Med', 'y'])
    """
    record = _record(name)
    if record.shipped:
        with resources.files(__name__).joinpath(f"{name}.csv").open("rb") as stream:
            return _checked(_parsed(stream, "csv", "the package", name), record, "the package")
    home = _cache(data_home)
    for path in _candidates(name, home):
        if _is_file(path):
            return _checked(_parsed(path, "csv", str(path), name), record, str(path))
    if record.address is None or not download:
        raise _not_found(name, home, "download was switched off" if record.address else "no address is known")
    content = io.BytesIO(_fetched(name, record.address, home))
    table = _checked(_parsed(content, record.format, record.address, name), record, record.address)
    _keep(table, home / f"{name}.csv")
    return table


def _record(name: str) -> Dataset:
    if not isinstance(name, str) or name not in _RECORDS:
        near = difflib.get_close_matches(name[:LETTERS], _RECORDS) if isinstance(name, str) else []
        close = " or ".join(near) or "one of them"
        raise DatasetError(f"No data set {shown(name)} is known, only {', '.join(_RECORDS)}. Did you mean {close}?")
    return _RECORDS[name]


def _cache(data_home: _Directory) -> Path:
    if data_home is not None:
        return Path(os.path.expanduser(check_path(data_home, "data_home", error=DatasetError)))
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "mlmed"


def _candidates(name: str, home: Path) -> list[Path]:
    """Return the files to try, in order."""
    named = os.environ.get(_ENVIRONMENT)
    places = [Path(os.path.expanduser(named)), home] if named else [home]
    return [place / f"{name}{suffix}" for place in places for suffix in (".csv", ".csv.gz")]


def _is_file(path: Path) -> bool:
    """Whether a file exists; raises for folders without access instead of skipping them."""
    try:
        return path.is_file()
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be looked at ({error.strerror}). Set {_ENVIRONMENT} or data_home to a directory that you "
            "may read."
        ) from error


def _not_found(name: str, home: Path, reason: str) -> DatasetError:
    unset = "" if os.environ.get(_ENVIRONMENT) else f" ({_ENVIRONMENT} is not set)"
    return DatasetError(
        f"Data set {name!r} was not found. Looked for {', '.join(map(str, _candidates(name, home)))}{unset}; "
        f"{reason}. Set {_ENVIRONMENT} to a directory that holds {name}.csv or {name}.csv.gz, "
        f"or put the file at {home / f'{name}.csv'}."
    )


def _fetched(name: str, address: str, home: Path) -> bytes:
    request = urllib.request.Request(address, headers={"User-Agent": "mlmed"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
            return bytes(answer.read())
    except (OSError, HTTPException) as error:  # URLError, HTTPError and timeouts are OSErrors
        raise _not_found(name, home, f"fetching {address} failed ({error})") from error


def _parsed(source: Path | IO[bytes], kind: str, where: str, name: str) -> pd.DataFrame:
    try:
        if kind == "stata":
            return pd.read_stata(source, convert_categoricals=False, preserve_dtypes=False)
        return pd.read_csv(source, low_memory=False)
    except _UNREADABLE as error:
        raise DatasetError(
            f"Data set {name!r} from {where} cannot be read as {kind} ({error}): the file is damaged or is "
            f"something else. Replace it, or set {_ENVIRONMENT} to a directory that holds {name}.csv."
        ) from error


def _checked(table: pd.DataFrame, record: Dataset, where: str) -> pd.DataFrame:
    """Return the recorded columns of a table that agrees with the record, else raise."""
    faults = []
    if absent := [column for column in record.columns if column not in table]:
        faults.append(f"expected the columns {list(record.columns)}, found {list(table)}, without {absent}")
    if len(table) != record.rows:
        faults.append(f"expected {record.rows} rows, found {len(table)}")
    for column, mean in record.columns.items():
        if mean is None or column in absent:
            continue
        # text and missing values become NaN, which fails the check
        found = float(pd.to_numeric(table[column], errors="coerce").mean(skipna=False))
        if not abs(found - mean) <= _MEAN_TOLERANCE * max(1.0, abs(mean)):
            faults.append(f"expected the mean of {column!r} to be {mean:.8g}, found {found:.8g}")
    if record.constant and not absent:
        column, within = record.constant
        if varying := int((table.groupby(within)[column].nunique() > 1).sum()):
            faults.append(f"expected {column!r} to be constant within {within!r}, found {varying} that vary")
    if faults:
        raise DatasetError(
            f"Data set {record.name!r} from {where} is not the known one: {'; '.join(faults)}. "
            f"Remove or replace that file, or set {_ENVIRONMENT} to a directory that holds the right one."
        )
    return table[list(record.columns)]


def _keep(table: pd.DataFrame, path: Path) -> None:
    """Write a checked table to the cache, atomically."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, table.to_csv(index=False))
    except (OSError, DataError) as error:
        message = (
            f"The fetched data set cannot be kept at {path} ({error}), so it will be fetched again. "
            f"Pass data_home with a directory you may write to."
        )
        warn(message, MlmedWarning, stacklevel=3)
