"""Files of Grams that were damaged, changed or forged: refused, or the same answer; nothing in a file is run.

Damage leaves the digest as it was. A forger computes a new one, so that only the checks of the content stand against
him: what does not fit together is refused, and nothing ends in an error that is not mlmed's.
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mlmed
from mlmed.cli import main
from mlmed.data.stored import METADATA, SCHEMA, _digest
from mlmed.errors import DataError, MlmedError, MlmedWarning
from tests.models import with_factors

FORMULAS = ["m ~ x * g + I(w**2) + (1 | id)", "y ~ m + x + C(k) + (1 + m | id)"]
Document = dict[str, Any]
PARTS = ("name", "fixed", "random", "fixed_at", "random_at", "response_at", "terms")
PARTS += ("typical", "spread", "levels", "observed")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """12 clusters of 10 with factors; two patterns."""
    data = with_factors(mlmed.simulate.bpg(12, 10, seed=4).data, seed=2)
    return data.assign(y=data["y"].where(data.index % 5 != 0))


@pytest.fixture(scope="module")
def stored(frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as it is written."""
    path = tmp_path_factory.mktemp("stored") / "whole.parquet"
    mlmed.grams(FORMULAS, frame).save(path)
    return path


@pytest.fixture(scope="module")
def whole(stored: Path) -> mlmed.Grams:
    """What the file holds."""
    return mlmed.Grams.load(stored)


@pytest.fixture(scope="module")
def content(stored: Path) -> tuple[Document, pa.Table]:
    """Its metadata and its rows."""
    table = pq.read_table(stored)
    return json.loads(table.schema.metadata[METADATA]), table.replace_schema_metadata(None)


def write(path: Path, document: Document | str, table: pa.Table, *, forged: bool = True) -> None:
    """A file with these metadata, and a digest that belongs to them if they can have one."""
    if forged and isinstance(document, dict):
        with contextlib.suppress(DataError, TypeError, ValueError, pa.ArrowException):
            document = {**document, "digest": _digest(document, table)}
    raw = document if isinstance(document, str) else json.dumps(document)
    pq.write_table(table.replace_schema_metadata({METADATA: raw.encode()}), path)


def is_same(found: mlmed.Grams, expected: mlmed.Grams) -> bool:
    """Every number and every name."""
    a, b = found.arrays, expected.arrays
    return (
        np.array_equal(a.products, b.products)
        and np.array_equal([a.shift, a.scale], [b.shift, b.scale])
        and (a.patterns, a.layout.columns, a.layout.asked) == (b.patterns, b.layout.columns, b.layout.asked)
        and (a.layout.dropped, a.layout.total) == (b.layout.dropped, b.layout.total)
        and a.clusters.equals(b.clusters)
        and all(
            getattr(one, name) == getattr(two, name)
            for one, two in zip(a.layout.equations, b.layout.equations, strict=True)
            for name in PARTS
        )
    )


def outcome(path: Path, whole: mlmed.Grams) -> str:
    """How reading a file ends; an error that is not mlmed's passes on."""
    try:
        found = mlmed.Grams.load(path)
    except MlmedError as error:
        return "refused" if str(path) in str(error) else str(error)
    return "same" if is_same(found, whole) else "changed"


# -- damage ----------------------------------------------------------------------------------------------------


def damaged(raw: bytes, rng: random.Random) -> bytes:
    """One of six kinds of damage; every region of the file, the footer with its metadata as often as the rows."""
    made, footer = bytearray(raw), len(raw) - int.from_bytes(raw[-8:-4], "little") - 8
    at = rng.randrange(len(raw)) if rng.random() < 0.5 else rng.randrange(footer, len(raw))
    kind = rng.choice(["bit", "bit", "byte", "zeros", "swap", "cut", "twice"])
    if kind == "bit":
        made[at] ^= 1 << rng.randrange(8)
    elif kind == "byte":
        made[at] = rng.randrange(256)
    elif kind == "zeros":
        made[at : at + 16] = bytes(len(made[at : at + 16]))
    elif kind == "swap":
        other = rng.randrange(len(raw))
        made[at], made[other] = made[other], made[at]
    elif kind == "cut":
        del made[at:]
    else:
        made[at:at] = made[at : at + 64]
    return bytes(made)


def test_damage_is_seen(stored: Path, whole: mlmed.Grams, tmp_path: Path) -> None:
    """400 files: none is read as something else, none ends in an error that is not mlmed's."""
    raw, rng, path = stored.read_bytes(), random.Random(20), tmp_path / "g.parquet"
    found = []
    for _ in range(400):
        path.write_bytes(damaged(raw, rng))
        found.append(outcome(path, whole))
    assert "changed" not in found
    assert found.count("refused") > 250


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every part of the metadata, the first and the last of a list."""
    if at:
        yield at
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*at, key))
    elif isinstance(value, list):
        for k in sorted({0, len(value) - 1} if value else ()):
            yield from places(value[k], (*at, k))


def replaced(document: Document, at: tuple[Any, ...], make: Callable[[Any], Any]) -> Document:
    """The metadata with one part made another."""
    made = copy.deepcopy(document)
    part = made
    for key in at[:-1]:
        part = part[key]
    part[at[-1]] = make(part[at[-1]])
    return made


def test_a_changed_number_or_name_is_seen(
    content: tuple[Document, pa.Table], whole: mlmed.Grams, tmp_path: Path
) -> None:
    """Every part of the metadata, and a number in every column, changed as by hand: the digest tells."""
    document, table = content
    path, tried = tmp_path / "g.parquet", 0
    changes = {
        str: lambda text: text[:-1] + chr(ord(text[-1]) ^ 1),
        bool: lambda value: not value,
        int: lambda value: value + 1,
        float: lambda value: value * (1.0 + 1e-15) + 1e-15,
    }
    for at in places(document):
        value = document
        for key in at:
            value = value[key]
        if type(value) in changes:
            write(path, replaced(document, at, changes[type(value)]), table, forged=False)
            assert outcome(path, whole) == "refused", at
            tried += 1
    for k, name in enumerate(table.column_names):
        values = table.column(k).to_numpy().copy()
        values[3] += 1 if values.dtype.kind == "i" else 1e-9
        write(path, document, table.set_column(k, name, pa.array(values)), forged=False)
        assert outcome(path, whole) == "refused", name
        tried += 1
    assert tried > 120


# -- forgery ---------------------------------------------------------------------------------------------------

#: Numbers that a forger may choose, since the rows that would belie them are not in the file.
FREE = {("layouts", name) for name in ("typical", "spread", "observed")}
WRONG = [None, True, -1, 0.5, "x", [], {}, [[]], [None], {"x": None}, 10**400, "\ud800"]


def test_wrong_types_are_refused(content: tuple[Document, pa.Table], whole: mlmed.Grams, tmp_path: Path) -> None:
    """Values of another type in every part, with a digest that belongs to them."""
    document, table = content
    path, rng, changed = tmp_path / "g.parquet", random.Random(5), []
    every = [at for at in places(document) if at != ("digest",)]
    for at in every:
        for wrong in rng.sample(WRONG, 3):
            made = replaced(document, at, lambda value, wrong=wrong: wrong)
            write(path, made, table)
            if outcome(path, whole) == "changed":
                changed.append((at, wrong))
    # what one can write by hand into a file of one's own: labels in messages; means, spreads and observed values
    assert all(at[0] == "columns" or (at[0], *at[2:3]) in FREE for at, _ in changed), changed
    assert len(every) * 3 > 280


@pytest.mark.parametrize("forged", [False, True])
def test_keys(content: tuple[Document, pa.Table], whole: mlmed.Grams, tmp_path: Path, forged: bool) -> None:
    """One more, one less, one twice; no number; too deep."""
    document, table = content
    path = tmp_path / "g.parquet"
    cases: list[Document | str] = [{**document, "more": 1}]
    cases += [
        {key: value for key, value in document.items() if key != name}
        for name in document
        if not (forged and name == "digest")
    ]
    first = document["layouts"][0]
    cases += [{**document, "layouts": [{**first, "encodings": "pickle"}, document["layouts"][1]]}]
    text = json.dumps(document)
    cases += [text[:-1] + ', "total": 7}', text.replace('"total": 120', '"total": NaN'), text[:-1], "[" * 100_000, ""]
    cases += [text.replace('"total": 120', '"total": 1e999'), "null", "[]", "\x00", text.replace("\u007b", "[")]
    for case in cases:
        write(path, case, table, forged=forged)
        assert outcome(path, whole) == "refused", str(case)[:80]


Change = Callable[[pa.Table], pa.Table]


def with_values(name: str, make: Callable[[np.ndarray], Any]) -> Change:
    """A column with other values."""

    def change(table: pa.Table) -> pa.Table:
        at = table.column_names.index(name)
        return table.set_column(at, name, pa.array(make(table.column(name).to_numpy().copy())))

    return change


def put(row: int, value: Any) -> Callable[[np.ndarray], np.ndarray]:
    """One other value."""

    def make(values: np.ndarray) -> np.ndarray:
        values[row] = value
        return values

    return make


TABLES: dict[str, Change] = {
    "no rows": lambda table: table.slice(0, 0),
    "a row less": lambda table: table.slice(1),
    "a row twice": lambda table: pa.concat_tables([table, table.slice(3, 1)]),
    "a pattern less": lambda table: table.filter(np.equal(table.column("mlmed_pattern").to_numpy(), 0)),
    "a column less": lambda table: table.drop_columns(["mlmed_p5"]),
    "a column more": lambda table: table.append_column("mlmed_p9999", table.column("mlmed_p5")),
    "a column twice": lambda table: table.append_column("mlmed_p5", table.column("mlmed_p5")),
    "columns in another order": lambda table: table.select(table.column_names[::-1]),
    "an id of lists": lambda table: table.set_column(0, "id0", pa.array([[1]] * len(table))),
    "an id missing": with_values("id0", lambda ids: [None, *ids[1:].tolist()]),
    "an id not finite": with_values("id0", lambda ids: put(2, np.nan)(ids.astype(float))),
    "ids twice": with_values("id0", put(1, 1)),
    "a pattern that is not there": with_values("mlmed_pattern", put(0, 7)),
    "a negative pattern": with_values("mlmed_pattern", put(0, -1)),
    "patterns of another type": with_values("mlmed_pattern", lambda values: values.astype(float)),
    "counts of another type": with_values("mlmed_p0", lambda values: values.astype(int)),
    "a count of zero": with_values("mlmed_p0", put(0, 0.0)),
    "a negative count": with_values("mlmed_p0", put(0, -3.0)),
    "half a row": with_values("mlmed_p0", lambda values: values + 0.5),
    "more rows": with_values("mlmed_p0", lambda values: values + 1.0),
    "counts that overflow": with_values("mlmed_p0", lambda values: values * 1e300),
    "sums of text": with_values("mlmed_p3", lambda values: values.astype(str)),
    "sums of singles": with_values("mlmed_p3", lambda values: values.astype(np.float32)),
    "a sum missing": with_values("mlmed_p3", lambda values: [None, *values[1:].tolist()]),
    "a sum that is no number": with_values("mlmed_p3", put(0, np.nan)),
    "an infinite sum": with_values("mlmed_p3", put(0, np.inf)),
    "a negative sum of squares": with_values("mlmed_p2", put(0, -1.0)),
    "a sum of squares of zero": with_values("mlmed_p2", put(0, 0.0)),
    "a sum that is too large": with_values("mlmed_p1", put(0, 1e6)),
    "sums of products of no rows": with_values("mlmed_p4", lambda values: values * 0.0 + 9.9),
    "sums of a column that is not used": with_values("mlmed_p44", lambda values: values + 0.1),
}


@pytest.mark.parametrize("case", TABLES)
def test_rows_that_cannot_be_are_refused(
    content: tuple[Document, pa.Table], whole: mlmed.Grams, tmp_path: Path, case: str
) -> None:
    """With a digest that belongs to them."""
    document, table = content
    path = tmp_path / "g.parquet"
    write(path, document, TABLES[case](table))
    assert outcome(path, whole) == "refused"


METADATA_CASES: dict[str, Callable[[Document], Document]] = {
    "names of other responses": lambda d: {**d, "names": d["names"][::-1]},
    "a variable more": lambda d: {**d, "variables": [*d["variables"], "z"]},
    "another cluster": lambda d: {**d, "group": ["x"]},
    "two clusters": lambda d: {**d, "group": ["id", "x"]},
    "an equation less": lambda d: {**d, "equations": d["equations"][:1]},
    "a column less": lambda d: {**d, "columns": d["columns"][:-1]},
    "a shift more": lambda d: {**d, "shift": [*d["shift"], 0.0]},
    "a shifted constant": lambda d: {**d, "shift": [1.0, *d["shift"][1:]]},
    "a scale of zero": lambda d: {**d, "scale": [1.0, 0.0, *d["scale"][2:]]},
    "a negative scale": lambda d: {**d, "scale": [1.0, -1.0, *d["scale"][2:]]},
    "a pattern without equations": lambda d: {**d, "patterns": [[False, False], *d["patterns"][1:]]},
    "a pattern of one equation": lambda d: {**d, "patterns": [p[:1] for p in d["patterns"]]},
    "an equation without rows": lambda d: {**d, "patterns": [[True, False]]},
    "fewer rows": lambda d: {**d, "total": 3},
    "more rows": lambda d: {**d, "total": 1000},
    "dropped rows of nobody": lambda d: {**d, "dropped": [{**d["dropped"][0], "equation": "z"}]},
    "dropped rows unsaid": lambda d: {**d, "dropped": []},
    "dropped rows twice": lambda d: {**d, "dropped": d["dropped"] * 2},
    "dropped rows of another number": lambda d: {**d, "dropped": [{**d["dropped"][0], "used": 90}]},
}


def of_layout(**changes: Callable[[Any], Any]) -> Callable[[Document], Document]:
    """The second layout with other parts."""

    def change(document: Document) -> Document:
        first, second = document["layouts"]
        return {**document, "layouts": [first, {**second, **{k: make(second[k]) for k, make in changes.items()}}]}

    return change


METADATA_CASES |= {
    "another label": of_layout(fixed=lambda labels: [*labels[:-1], "z"]),
    "labels in another order": of_layout(fixed=lambda labels: [labels[0], *labels[:0:-1]]),
    "a label less": of_layout(fixed=lambda labels: labels[:-1]),
    "a position beyond": of_layout(fixed_at=lambda at: [*at[:-1], 99]),
    "the constant elsewhere": of_layout(fixed_at=lambda at: [*at[:-1], 0]),
    "the response as predictor": of_layout(response_at=lambda at: 2),
    "the response as constant": of_layout(response_at=lambda at: 0),
    "a random effect less": of_layout(random=lambda labels: labels[:1]),
    "another random term": of_layout(terms=lambda terms: [0, 1]),
    "a mean of nothing": of_layout(typical=lambda known: {**known, "z": 1.0}),
    "no mean": of_layout(typical=lambda known: {}),
    "a text as mean": of_layout(typical=lambda known: {**known, "x": "a"}),
    "a negative spread": of_layout(spread=lambda known: {**known, "x": -1.0}),
    "a spread of a factor": of_layout(spread=lambda known: {**known, "k": 1.0}),
    "levels of a number": of_layout(levels=lambda known: {**known, "x": [1.0, 2.0]}),
    "a level less": of_layout(levels=lambda known: {"k": known["k"][:-1]}),
    "a level more": of_layout(levels=lambda known: {"k": [*known["k"], 99.0]}),
    "one level": of_layout(levels=lambda known: {"k": known["k"][:1]}),
    "levels of two kinds": of_layout(levels=lambda known: {"k": [known["k"][0], "a", *known["k"][2:]]}),
    "levels in a list": of_layout(levels=lambda known: {"k": [[level] for level in known["k"]]}),
    "a hundred thousand levels": of_layout(levels=lambda known: {"k": [float(k) for k in range(1, 100_001)]}),
    "observed values of a factor": of_layout(observed=lambda known: {**known, "k": [1.0]}),
    "observed values that fall": of_layout(observed=lambda known: {**known, "x": [2.0, 1.0]}),
}


@pytest.mark.parametrize("case", METADATA_CASES)
def test_metadata_that_do_not_fit_are_refused(
    content: tuple[Document, pa.Table], whole: mlmed.Grams, tmp_path: Path, case: str
) -> None:
    """With a digest that belongs to them."""
    document, table = content
    path = tmp_path / "g.parquet"
    write(path, METADATA_CASES[case](document), table)
    assert outcome(path, whole) == "refused"


def test_what_a_forger_may_write_is_fitted_or_refused(content: tuple[Document, pa.Table], tmp_path: Path) -> None:
    """Numbers that are possible, with a digest that belongs to them: any answer, but no error that is not mlmed's."""
    document, table = content
    path, rng = tmp_path / "g.parquet", np.random.default_rng(3)
    names = [name for name in table.column_names if name.startswith("mlmed_p") and name[7:].isdigit()][1:]
    ended = []
    for k in range(40):
        made = table
        for name in rng.choice(names, 1 + k % 3):
            factor = rng.choice([0.0, -1.0, 0.5, 1e-300, 0.999])
            made = with_values(str(name), lambda values, factor=factor: values * factor)(made)
        write(path, document, made)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MlmedWarning)
                mlmed.mediate(*FORMULAS, mlmed.Grams.load(path), treatment="x").effects(at={"g": "a"})
            ended.append("fitted")
        except MlmedError:
            ended.append("refused")
    assert len(ended) == 40


# -- code ------------------------------------------------------------------------------------------------------

ATTACKS = [
    "m ~ x * g + I(w**2) + __import__('os').system('touch {}') + (1 | id)",
    'm ~ x * g + I(eval(\'open("{}", "w")\')) + (1 | id)',
    'm ~ x * g + I(w**2) + exec(\'open("{}", "w")\') + (1 | id)',
    "m ~ x * g + I(w**2) + (1 + open('{}', 'w') | id)",
    'eval(\'open("{}", "w")\') ~ x * g + I(w**2) + (1 | id)',
]
#: Attribute calls, which the whitelist of formulas refuses.
ATTRIBUTES = [
    "m ~ x * g + I(w**2 + 0 * np.f2py.os.system('touch {}')) + (1 | id)",
    "m ~ x * g + I(w**2) + (1 + I(np.savetxt('{}', x)) | id)",
    "m ~ x * g + I(w.to_csv('{}') or w**2) + (1 | id)",
    "np.f2py.os.system('touch {}') * m ~ x * g + I(w**2) + (1 | id)",
]


def refuse_attack(attack: str, content: tuple[Document, pa.Table], tmp_path: Path) -> None:
    """The file is refused by Python and by the command line, and the attack left no trace."""
    document, table = content
    path, trace = tmp_path / "g.parquet", tmp_path / "trace"
    formula = attack.format(trace)
    write(path, {**document, "equations": [formula, FORMULAS[1]]}, table)
    with pytest.raises(MlmedError, match=r"g\.parquet"):
        mlmed.Grams.load(path)
    assert main(["mixed", str(path), "--formula", FORMULAS[0], "--formula", FORMULAS[1]]) == 2
    assert not trace.exists()


@pytest.mark.parametrize("attack", ATTACKS)
def test_formulas_with_calls(attack: str, content: tuple[Document, pa.Table], tmp_path: Path) -> None:
    refuse_attack(attack, content, tmp_path)


@pytest.mark.parametrize("attack", ATTRIBUTES)
def test_formulas_with_attributes(attack: str, content: tuple[Document, pa.Table], tmp_path: Path) -> None:
    pytest.importorskip("mlmed.syntax", reason="the whitelist of formulas")
    refuse_attack(attack, content, tmp_path)


def test_formulas_are_judged_before_anything_is_made(
    content: tuple[Document, pa.Table], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is encoded if one of the formulas is refused, the last one included."""
    document, table = content
    path = tmp_path / "g.parquet"
    write(path, {**document, "equations": [FORMULAS[0], "y ~ boom(m) + x + C(k) + (1 + m | id)"]}, table)
    monkeypatch.setattr("mlmed.data.stored.encodings_of", lambda *_: pytest.fail("a formula was evaluated"))
    with pytest.raises(MlmedError, match="boom"):
        mlmed.Grams.load(path)


@pytest.mark.parametrize("payload", ["__import__('os').system('touch {}')", "]) or open('{}', 'w') #", "`{}`", "'{}"])
def test_names_and_levels_are_data(
    payload: str, content: tuple[Document, pa.Table], whole: mlmed.Grams, tmp_path: Path
) -> None:
    """Every text in the metadata but the formulas, with code in it and a digest that belongs to it."""
    document, table = content
    path, trace = tmp_path / "g.parquet", tmp_path / "trace"
    for at in places(document):
        value = document
        for key in at:
            value = value[key]
        if isinstance(value, str) and at[0] not in ("equations", "digest"):
            write(path, replaced(document, at, lambda _: payload.format(trace)), table)
            assert outcome(path, whole) == "refused" or at[0] == "columns", at
    assert not trace.exists()


# -- other files -----------------------------------------------------------------------------------------------


def test_a_table_of_a_user_with_our_key(
    frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error that names the file, in every way to read it."""
    path = tmp_path / "rows.parquet"
    for value in (b"1.2", b"{}", b'{"schema": "mine"}', b"\xff\xfe", b""):
        pq.write_table(pa.Table.from_pandas(frame).replace_schema_metadata({b"mlmed": value}), path)
        with pytest.raises(DataError, match=r"rows\.parquet"):
            mlmed.Grams.load(path)
        assert main(["mixed", str(path), "--formula", "m ~ x + (1 | id)"]) == 2
        assert "rows.parquet" in capsys.readouterr().err


def test_files_of_earlier_versions_say_what_to_do(content: tuple[Document, pa.Table], tmp_path: Path) -> None:
    """They have no digest."""
    document, table = content
    old = {key: value for key, value in document.items() if key != "digest"}
    write(tmp_path / "g.parquet", {**old, "schema": "mlmed.grams/1"}, table)
    with pytest.raises(DataError, match=r"earlier version .*without the digest.*make it again from the rows"):
        mlmed.Grams.load(tmp_path / "g.parquet")
    assert SCHEMA == "mlmed.grams/2"


def test_the_digest_does_not_depend_on_how_the_file_is_packed(
    content: tuple[Document, pa.Table], whole: mlmed.Grams, tmp_path: Path
) -> None:
    """Other compression, row groups, encodings, pages and versions of the format; the same content."""
    document, table = content
    raw = {METADATA: json.dumps(document, indent=3, sort_keys=True).encode()}
    for options in (
        {"compression": "gzip", "row_group_size": 3},
        {"use_dictionary": False, "version": "1.0", "data_page_version": "2.0"},
        {"write_statistics": False, "compression": "none"},
    ):
        pq.write_table(table.replace_schema_metadata(raw), tmp_path / "g.parquet", **options)
        assert outcome(tmp_path / "g.parquet", whole) == "same"


IDS = {
    "whole": lambda n: n,
    "small": lambda n: n.astype(np.int8),
    "unsigned": lambda n: n.astype(np.uint64) + 2**63,
    "negative": lambda n: -n,
    "halves": lambda n: n + 0.5,
    "singles": lambda n: (n + 0.5).astype(np.float32),
    "text": lambda n: n.astype(str),
    "objects": lambda n: n.astype(str).astype(object),
    "letters": lambda n: np.array([f"größe {k} 🙂" for k in n]),
    "empty text": lambda n: np.where(n == 1, "", n.astype(str)),
    "categories": lambda n: pd.Categorical(n.astype(str)),
    "truth": lambda n: n > 6,
    **{f"times in {unit}": lambda n, unit=unit: n.astype(f"datetime64[{unit}]") for unit in ("s", "ms", "us", "ns")},
    "zones": lambda n: pd.to_datetime(n, unit="D").tz_localize("Europe/Vienna"),
    "durations": lambda n: pd.to_timedelta(n, unit="h"),
    "dates": lambda n: pd.Series(pd.to_datetime(n, unit="D")).dt.date.to_numpy(),
    "nullable": lambda n: pd.array(n, dtype="Int64"),
    "decimals": lambda n: pd.Series(n).map(lambda k: Decimal(f"{k}.10")).to_numpy(),
    "periods": lambda n: pd.PeriodIndex.from_ordinals(n, freq="M"),
    "bytes": lambda n: np.array([f"{k}".encode() for k in n], dtype=object),
    "mixed": lambda n: np.array([str(k) if k % 2 else k for k in n], dtype=object),
}


@pytest.mark.parametrize("kind", IDS)
def test_ids_of_every_kind(frame: pd.DataFrame, tmp_path: Path, kind: str) -> None:
    """Kept with their values and order, or refused when the file is written, not when it is read."""
    data = frame.assign(id=IDS[kind](frame["id"].to_numpy()))
    if kind in ("periods", "bytes", "mixed"):
        with pytest.raises(DataError, match="ids"):
            mlmed.grams("m ~ x + (1 | id)", data).save(tmp_path / "g.parquet")
        assert not (tmp_path / "g.parquet").exists()
        return
    made = mlmed.grams("m ~ x + (1 | id)", data)
    made.save(tmp_path / "g.parquet")
    loaded = mlmed.Grams.load(tmp_path / "g.parquet")
    assert list(loaded.arrays.clusters) == list(made.arrays.clusters)
    np.testing.assert_array_equal(loaded.arrays.products, made.arrays.products)


def test_a_shard_of_one_row_from_an_engine(frame: pd.DataFrame, tmp_path: Path) -> None:
    """It has no standard deviation, which the file could not hold; sums of shards have one."""
    duckdb = pytest.importorskip("duckdb")
    connection = duckdb.connect()
    parts = []
    for k, rows in enumerate((frame[:1], frame[1:])):
        connection.register(f"part{k}", rows)
        mlmed.grams("m ~ x + (1 | id)", connection.table(f"part{k}")).save(tmp_path / f"{k}.parquet")
        parts.append(mlmed.Grams.load(tmp_path / f"{k}.parquet"))
    assert parts[0].arrays.layout.equations[0].spread == {"x": 0.0}
    joined = (parts[0] + parts[1]).arrays.layout.equations[0]
    assert joined.spread["x"] == pytest.approx(frame["x"].std(), rel=1e-12)


def test_a_folder_that_looks_like_a_partition(frame: pd.DataFrame, tmp_path: Path) -> None:
    """Arrow would make a column of the name of the folder."""
    folder = tmp_path / "year=2020"
    folder.mkdir()
    mlmed.grams("m ~ x + (1 | id)", frame).save(folder / "g.parquet")
    assert mlmed.Grams.load(folder / "g.parquet").n_clusters == 12


def test_a_file_that_cannot_be_written_stays(
    frame: pd.DataFrame, stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: the file is what it was."""
    path = tmp_path / "g.parquet"
    path.write_bytes(stored.read_bytes())

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mlmed.atomic.os.fsync", full)
    with pytest.raises(DataError, match=r"cannot write .*No space left"):
        mlmed.grams("m ~ x + (1 | id)", frame).save(path)
    assert path.read_bytes() == stored.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["g.parquet"]
