"""Files are read as data: no reader runs code, and damaged files of every kind end in errors of mlmed."""

from __future__ import annotations

import ast
import pickle
import random
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyreadstat
import pytest

import mlmed
from mlmed.data.readers import is_grams, read_table
from mlmed.errors import MlmedError

MODULES = sorted((Path(mlmed.__file__).parent).rglob("*.py"))
#: Calls that run what a file holds, by the last part of their name.
RUNNING = {"read_pickle", "read_hdf", "read_excel", "Unpickler", "exec", "eval", "load_module", "run_path"}
#: Modules of which that is the purpose.
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "yaml", "runpy"}


class Bomb:
    """What leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.trace, "ran")


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(MODULES[0].parent)))
def test_no_module_unpickles_or_evaluates(module: Path) -> None:
    """Neither the modules that do so nor the functions are named anywhere in the package."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name.split(".")[0] for alias in node.names} | {
                (getattr(node, "module", "") or "").split(".")[0]
            }
            assert not names & PICKLES
        if isinstance(node, ast.Call):
            named = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if module.name != "nlcom.py":  # what a user types, checked there; no file reaches it
                assert named not in RUNNING
            assert "allow_pickle" not in {keyword.arg for keyword in node.keywords}


@pytest.mark.parametrize(
    "suffix", [".csv", ".csv.gz", ".tsv", ".dta", ".sav", ".parquet", ".pkl", ".pickle", ".joblib", ".npy"]
)
def test_a_pickle_under_any_name(tmp_path: Path, suffix: str) -> None:
    path, trace = tmp_path / f"table{suffix}", tmp_path / "trace"
    path.write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(MlmedError):
        read_table(path)
    assert not is_grams(str(path))
    with pytest.raises(MlmedError):
        mlmed.Grams.load(path)
    assert not trace.exists()


def test_an_extension_type_of_arrow_is_not_unpickled(tmp_path: Path) -> None:
    """The form in which Arrow once stored types of Python, as metadata of a column: a pickle."""
    trace, path = tmp_path / "trace", tmp_path / "table.parquet"
    metadata = {b"ARROW:extension:name": b"arrow.py_extension_type"}
    metadata[b"ARROW:extension:metadata"] = pickle.dumps(Bomb(trace))
    field = pa.field("x", pa.int64(), metadata=metadata)
    table = pa.table([pa.array([1, 2])], schema=pa.schema([field], metadata={b"mlmed": b"{}"}))
    pq.write_table(table, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # pyarrow says that it leaves the type alone
        assert read_table(path)["x"].tolist() == [1, 2]
        with pytest.raises(MlmedError):
            mlmed.Grams.load(path)
    assert not trace.exists()


WRITERS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    ".csv": lambda table, path: table.to_csv(path, index=False),
    ".csv.gz": lambda table, path: table.to_csv(path, index=False),
    ".dta": lambda table, path: table.to_stata(path, write_index=False, value_labels={"k": {0: "no", 1: "yes"}}),
    ".parquet": lambda table, path: table.to_parquet(path, index=False),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_damaged_tables(tmp_path: Path, suffix: str) -> None:
    """100 of each kind; SPSS is left out, since the C library that reads it can crash on damaged files."""
    data = mlmed.simulate.bpg(12, 10, seed=4).data.assign(g=list("abc") * 40, k=[0, 1] * 60)
    path, rng, ended = tmp_path / f"table{suffix}", random.Random(1), []
    WRITERS[suffix](data, path)
    raw = path.read_bytes()
    for _ in range(100):
        made = bytearray(raw)
        ends = min(len(raw), 600)
        at = rng.choice([rng.randrange(len(raw)), rng.randrange(ends), len(raw) - 1 - rng.randrange(ends)])
        if rng.random() < 0.2:
            del made[at:]
        else:
            made[at] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(made))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read_table(path)
                ended.append("read")
            except MlmedError:
                ended.append("refused")
        assert not is_grams(str(path))
    assert len(ended) == 100


def test_a_damaged_spss_file_that_is_cut(tmp_path: Path) -> None:
    data = mlmed.simulate.bpg(12, 10, seed=4).data
    pyreadstat.write_sav(data, str(tmp_path / "table.sav"))
    raw = (tmp_path / "table.sav").read_bytes()
    for length in (10, 100, 400):
        (tmp_path / "table.sav").write_bytes(raw[:length])
        with pytest.raises(MlmedError):
            read_table(tmp_path / "table.sav")
