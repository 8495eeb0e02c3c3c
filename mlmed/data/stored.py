"""Grams in a file: one row per cluster and pattern in Parquet, everything else as JSON in its metadata.

Files are untrusted. Checks come in this order: metadata, digest of metadata and numbers, numbers. Nothing in a file is
executed: it has no pickle, and its formulas are read like a user's.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.atomic import replacing
from mlmed.data.checks import computed_levels
from mlmed.data.encoding import encodings_of, stand_in
from mlmed.data.grams import Grams, unpacked
from mlmed.data.layout import Dropped, EquationLayout, Known, Layout
from mlmed.data.predictors import called_functions, coded_variables
from mlmed.data.pushdown import unstacked
from mlmed.errors import DataError, MlmedError
from mlmed.formula import Equation, formula_of, parse_equation, term_variables
from mlmed.names import display_name
from mlmed.text import shown

#: Name and version of the stored layout.
SCHEMA = "mlmed.grams/2"
#: Bounds above any formula, name or level of a model.
LONGEST_TEXT, MOST_ITEMS = 100_000, 1_000_000
#: Whole numbers up to this one are exact as floats.
LARGEST_WHOLE = 2**53

Check = Callable[[Any, str], None]


def _wrong(where: str, wanted: str, found: Any) -> DataError:
    return DataError(f"{where} must be {wanted}; found {shown(found)}")


def _text(value: Any, where: str) -> None:
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise _wrong(where, f"a text of at most {LONGEST_TEXT:,} letters", value)
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise _wrong(where, "a text that has an encoding", value)


def _whole(value: Any, where: str) -> None:
    if type(value) is not int or not 0 <= value <= LARGEST_WHOLE:
        raise _wrong(where, "a count", value)


def _number(value: Any, where: str) -> None:
    if type(value) not in (int, float) or not abs(value) <= 1.7e308:
        raise _wrong(where, "a finite number", value)


def _truth(value: Any, where: str) -> None:
    if type(value) is not bool:
        raise _wrong(where, "true or false", value)


def _scalar(value: Any, where: str) -> None:
    if isinstance(value, str):
        _text(value, where)
    elif type(value) is not bool:
        _number(value, where)


def _items(check: Check, *, least: int = 0, distinct: bool = False) -> Check:
    def items(value: Any, where: str) -> None:
        if not isinstance(value, list) or not least <= len(value) <= MOST_ITEMS:
            raise _wrong(where, f"a list of at least {least} and at most {MOST_ITEMS:,} items", value)
        for k, item in enumerate(value):
            check(item, f"{where}[{k}]")
        if distinct and len({json.dumps(item) for item in value}) < len(value):
            raise _wrong(where, "a list of different items", value)

    return items


def _mapping(check: Check) -> Check:
    def mapping(value: Any, where: str) -> None:
        if not isinstance(value, dict) or len(value) > MOST_ITEMS:
            raise _wrong(where, "a mapping", value)
        for key, item in value.items():
            _text(key, f"a key of {where}")
            check(item, f"{where}[{key!r}]")

    return mapping


def _record(**checks: Check) -> Check:
    def record(value: Any, where: str) -> None:
        if not isinstance(value, dict) or value.keys() != checks.keys():
            raise _wrong(where, f"a mapping with the keys {', '.join(checks)}", value)
        for key, check in checks.items():
            check(value[key], f"{where}.{key}")

    return record


_LAYOUT = _record(
    name=_text,
    fixed=_items(_text, least=1),
    random=_items(_text, least=1),
    fixed_at=_items(_whole, least=1),
    random_at=_items(_whole, least=1),
    response_at=_whole,
    terms=_items(_whole, least=1),
    typical=_mapping(_scalar),
    spread=_mapping(_number),
    levels=_mapping(_items(_scalar, least=1, distinct=True)),
    observed=_mapping(_items(_number, least=1, distinct=True)),
)
_DROPPED = _record(equation=_text, total=_whole, used=_whole, missing_cluster=_whole, missing=_mapping(_whole))
_DOCUMENT = _record(
    schema=_text,
    digest=_text,
    equations=_items(_text, least=1),
    names=_items(_text, least=1, distinct=True),
    columns=_items(_text, least=2),
    variables=_items(_text, least=1, distinct=True),
    group=_items(_text, least=1, distinct=True),
    shift=_items(_number, least=2),
    scale=_items(_number, least=2),
    patterns=_items(_items(_truth, least=1), least=1, distinct=True),
    total=_whole,
    layouts=_items(_LAYOUT, least=1),
    dropped=_items(_DROPPED),
)


def read_document(raw: bytes) -> dict[str, Any]:
    """The metadata as a mapping with the keys and types that ``save`` writes.

    Raises ``DataError``: they differ, or it is no valid JSON (NaN and duplicate keys count as invalid).
    """
    try:
        document = json.loads(raw, parse_constant=_refuse_constant, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise DataError(f"its metadata are no JSON ({error})") from error
    version = document.get("schema") if isinstance(document, dict) else None
    if version == "mlmed.grams/1":
        raise DataError(
            f"it was written by an earlier version (schema {version!r}), without the digest that shows damage"
        )
    if version != SCHEMA:
        raise _wrong("its schema", repr(SCHEMA), version)
    _DOCUMENT(document, "metadata")
    return dict(document)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def checked_equations(document: dict[str, Any]) -> tuple[Equation, ...]:
    """The equations of a document, after checks that its other parts fit them; formulas are checked first.

    Raises ``FormulaError``: a formula is not allowed; ``DataError``: another part does not fit the equations.
    """
    asked = tuple(parse_equation(text, document["variables"]) for text in document["equations"])
    names = [equation.name for equation in asked]
    if not document["names"] == names == [layout["name"] for layout in document["layouts"]]:
        raise _wrong("names", f"those of the responses, {names}", document["names"])
    variables = sorted(frozenset().union(*(equation.variables for equation in asked)))
    if document["variables"] != variables:
        raise _wrong("variables", f"those of the equations, {variables}", document["variables"])
    if any(set(term.group) != set(document["group"]) for equation in asked for term in equation.random):
        raise _wrong("group", "the cluster variable of the equations", document["group"])
    _check_columns(document)
    for equation, layout in zip(asked, document["layouts"], strict=True):
        _check_layout(equation, layout, len(document["columns"]))
        _check_variables(equation, layout)
    _check_dropped(document)
    return asked


def _check_columns(document: dict[str, Any]) -> None:
    K, R = len(document["columns"]), len(document["names"])
    shift, scale, patterns = document["shift"], document["scale"], document["patterns"]
    if not len(shift) == len(scale) == K:
        raise _wrong("shift and scale", f"one number for each of the {K} columns", (len(shift), len(scale)))
    if min(scale) <= 0 or (shift[0], scale[0]) != (0, 1):
        raise _wrong(
            "shift and scale", "positive scales, and 0 and 1 for the constant", (shift[0], scale[0], min(scale))
        )
    if any(len(pattern) != R or not any(pattern) for pattern in patterns):
        raise _wrong("patterns", f"lists of {R} truth values, one of them true", patterns)
    if not all(any(pattern[r] for pattern in patterns) for r in range(R)):
        raise _wrong("patterns", "such that every equation has rows", patterns)
    used = {0}.union(*({at["response_at"], *at["fixed_at"], *at["random_at"]} for at in document["layouts"]))
    if used != set(range(K)):
        raise _wrong("positions of columns", f"the numbers from 0 to {K - 1}", sorted(used))


def _check_layout(equation: Equation, layout: dict[str, Any], K: int) -> None:
    """Check lengths, positions of the constant and of the response, and numbers of random terms."""
    where = f"layout of {equation.name}"
    for part in ("fixed", "random"):
        labels, positions = layout[part], layout[f"{part}_at"]
        if len(labels) != len(positions) or any(
            (label == "Intercept") != (at == 0) for label, at in zip(labels, positions, strict=False)
        ):
            raise _wrong(f"{part} of the {where}", "labels with a position each, 0 for the intercept alone", positions)
    if layout["response_at"] in (0, *layout["fixed_at"], *layout["random_at"]):
        raise _wrong(f"response_at of the {where}", "a column of its own", layout["response_at"])
    terms = layout["terms"]
    if (
        len(terms) != len(layout["random"])
        or sorted(set(terms)) != list(range(len(equation.random)))
        or terms != sorted(terms)
    ):
        raise _wrong(f"terms of the {where}", f"the numbers of {len(equation.random)} random terms in order", terms)


def _check_variables(equation: Equation, layout: dict[str, Any]) -> None:
    """Check that every predictor is a number with a spread or a factor with the right number of levels."""
    where = f"layout of {equation.name}"
    numbers, factors, own = layout["spread"].keys(), layout["levels"].keys(), equation.predictors
    if layout["typical"].keys() != own or numbers | factors != own or numbers & factors:
        raise _wrong(f"typical, spread and levels of the {where}", f"those of {sorted(own)}", sorted(layout["typical"]))
    if any(value < 0 for value in layout["spread"].values()):
        raise _wrong(f"spread of the {where}", "at least 0", layout["spread"])
    if not all(type(layout["typical"][name]) in (int, float) for name in numbers):
        raise _wrong(f"typical of the {where}", "numbers where there is a spread", layout["typical"])
    for name, known in layout["levels"].items():
        kinds = {"number" if type(level) in (int, float) else type(level).__name__ for level in known}
        if len(kinds) > 1 or layout["typical"][name] not in known:
            raise _wrong(f"levels of {name} of the {where}", "of one kind, the typical one among them", known)
    if not layout["observed"].keys() <= numbers or any(
        values != sorted(values) for values in layout["observed"].values()
    ):
        raise _wrong(f"observed of the {where}", "ascending values of numbers", layout["observed"])
    _refuse_too_many(equation, layout, where)


def _refuse_too_many(equation: Equation, layout: dict[str, Any], where: str) -> None:
    """Refuse terms of more columns (levels minus one, multiplied) than the file has, before encoding takes memory."""
    levels, coded = layout["levels"], coded_variables(equation)
    for text, labels in (
        (equation.fixed, layout["fixed"]),
        *((term.formula, layout["random"]) for term in equation.random),
    ):
        for term in formula_of(text):
            bare = {display_name(factor.expr) for factor in term.factors if factor.eval_method.value == "lookup"}
            factors = (bare | (term_variables(term) & coded)) & levels.keys()
            if math.prod(len(levels[name]) - 1 for name in factors) > len(labels):
                raise _wrong(
                    f"levels of {sorted(factors)} of the {where}", f"as few as {len(labels)} columns have", "more"
                )


def _check_dropped(document: dict[str, Any]) -> None:
    names: Collection[str] = [part["equation"] for part in document["dropped"]]
    if len(set(names)) < len(names) or not set(names) <= set(document["names"]):
        raise _wrong("dropped", "parts of different equations", names)
    for part in document["dropped"]:
        counts = (part["used"], part["missing_cluster"], *part["missing"].values())
        if part["total"] != document["total"] or max(counts) > part["total"] or sum(counts) < part["total"]:
            raise _wrong(f"dropped of {part['equation']}", f"counts of {document['total']} rows", part)
        if not part["missing"].keys() <= set(document["variables"]):
            raise _wrong(f"dropped of {part['equation']}", "about variables of the equations", sorted(part["missing"]))


Array = NDArray[np.float64]

#: Remedy for a file that cannot be read.
_AGAIN = "make it again from the rows, with grams() and save()"
#: Key of the metadata in the file.
METADATA = b"mlmed"
_PATTERN, _PRODUCT = "mlmed_pattern", "mlmed_p"
#: Calls whose state is the mean and standard deviation of a column, which the file has.
_STORED = re.compile(r"(?:center|scale)\(\w+\)")
#: Rounding allowance for negative eigenvalues of a cluster's products, as a share of the largest.
ROUNDING = 1e-4
#: Clusters whose products are checked at once.
CHUNK = 4096


def save_grams(grams: Grams, path: str | Path) -> None:
    """Write one row per cluster and pattern to Parquet; formulas, units and levels go into its metadata.

    Raises ``DataError``: pyarrow is missing, the file cannot be written, or a formula has a transformation whose state
    cannot be stored.
    """
    pa, pq = _arrow()
    _refuse_other_state(grams)
    document = _document(grams)
    try:
        json.dumps(document, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"levels of a factor cannot be stored ({error}); convert the column to text") from error
    try:
        table = pa.Table.from_pandas(_rows(grams), preserve_index=False).replace_schema_metadata(None)
        table = table.cast(
            pa.schema([(name, _kept(kind)) for name, kind in zip(table.column_names, table.schema.types, strict=True)])
        )
    except (OverflowError, pa.ArrowException) as error:
        raise DataError(f"the cluster ids cannot be stored ({error}); convert them to whole numbers or text") from error
    document["digest"] = _digest(document, table)
    raw = json.dumps(document).encode()
    checked_equations(read_document(raw))  # refuse to write what could not be read
    _check_products(grams)
    with replacing(path) as file:
        pq.write_table(table.replace_schema_metadata({METADATA: raw}), file, write_page_checksum=True)


def _rows(grams: Grams) -> pd.DataFrame:
    ids = grams.clusters.to_frame(index=False)
    ids.columns = [f"id{k}" for k in range(ids.shape[1])]
    parts = []
    for number, packed in enumerate(grams.products):
        sums = {_PATTERN: number, **{f"{_PRODUCT}{p}": values for p, values in enumerate(packed)}}
        parts.append(pd.concat([ids, pd.DataFrame(sums)], axis=1)[packed[0] > 0.0])
    return pd.concat(parts, ignore_index=True)


def _kept(kind: Any) -> Any:
    """The type after a round trip through Parquet, which has no times in seconds."""
    import pyarrow as pa

    return pa.timestamp("ms", kind.tz) if pa.types.is_timestamp(kind) and kind.unit == "s" else kind


def _document(grams: Grams) -> dict[str, Any]:
    """Everything but the numbers and the digest."""
    layout = grams.layout
    dropped = ("equation", "total", "used", "missing_cluster", "missing")
    columns = ("name", "fixed", "random", "fixed_at", "random_at", "response_at", "terms")
    keys = (*columns, "typical", "spread", "levels", "observed")
    return {
        "schema": SCHEMA,
        "equations": [equation.text for equation in layout.asked],
        "names": [equation.name for equation in layout.equations],
        "columns": list(layout.columns),
        "variables": sorted(frozenset().union(*(equation.variables for equation in layout.asked))),
        "group": [str(name) for name in grams.clusters.names],
        "shift": grams.shift.tolist(),
        "scale": grams.scale.tolist(),
        "patterns": [list(pattern) for pattern in grams.patterns],
        "total": layout.total,
        "layouts": [{key: getattr(equation, key) for key in keys} for equation in layout.equations],
        "dropped": [{key: getattr(part, key) for key in dropped} for part in layout.dropped],
    }


def _refuse_other_state(grams: Grams) -> None:
    for layout in grams.layout.equations:
        for text in (text for encoding in layout.encodings for text in computed_levels(encoding)):
            raise DataError(
                f"the levels of {display_name(text)} in equation {layout.name} cannot be stored, as they are computed; "
                "make it a column first"
            )
    for layout, equation in zip(grams.layout.equations, grams.layout.asked, strict=True):
        for call in (call for encoding in layout.encodings for call in encoding.states if not _STORED.fullmatch(call)):
            raise DataError(
                f"the state of {display_name(call)} in {equation.text!r} cannot be stored; make it a column first"
            )
    for equation in grams.layout.asked:
        for name in sorted(called_functions(equation) - {"center", "scale"}):
            raise DataError(f"the state of {name}(...) in {equation.text!r} cannot be stored; make it a column first")


# -- the digest ------------------------------------------------------------------------------------------------


def _digest(document: dict[str, Any], table: Any) -> str:
    """SHA-256 of the metadata without the digest, as JSON with sorted keys, and of every column.

    A column enters with its name, number of rows, and values as little-endian numbers or ``_id_bytes``, so that the
    digest depends neither on the version of pyarrow nor on its packing.
    """
    plain = {key: value for key, value in document.items() if key != "digest"}
    found = hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())
    for name, column in zip(table.column_names, table.columns, strict=True):
        found.update(f"\n{name} {len(column)}\n".encode())
        found.update(column.to_numpy().astype("<f8").tobytes() if name.startswith("mlmed_") else _id_bytes(column))
    return found.hexdigest()


def _id_bytes(column: Any) -> bytes:
    """Ids as bytes after their kind: raw numbers and times, texts with their lengths.

    Raises ``DataError``: their kind cannot be stored, or one is missing.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if column.null_count:
        raise DataError("a cluster id is missing")
    if pa.types.is_decimal(kind):
        column, kind = column.cast(pa.string()), pa.string()
    if any(is_kind(kind) for is_kind in (pa.types.is_string, pa.types.is_large_string)):
        lengths = pc.binary_length(column).to_numpy().astype("<i8").tobytes()
        return b"text " + lengths + b"".join(column.cast(pa.large_binary()).to_pylist())
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        narrow = pa.types.is_date32(kind) or pa.types.is_time32(kind)
        numbers = column.cast(pa.int32() if narrow else pa.int64()).to_numpy()
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        numbers = column.to_numpy()
    else:
        raise DataError(f"cluster ids of the type {kind} cannot be stored; convert them to whole numbers or text")
    if pa.types.is_floating(kind) and not np.isfinite(numbers).all():
        raise DataError("a cluster id is not finite")
    return f"{kind} ".encode() + numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()


# -- reading ---------------------------------------------------------------------------------------------------


def load_grams(path: str | Path) -> Grams:
    """Read a file written by ``save_grams``.

    Raises ``DataError``: the file is missing, is no Parquet file, was not written by ``save``, or was changed since;
    ``FormulaError``: a formula in it is not allowed.
    """
    raw, table = _content(path)
    if raw is None:
        raise DataError(f"{path} holds no Grams of this version (schema {SCHEMA!r}); {_AGAIN}")
    try:
        return _grams(read_document(raw), table)
    except MlmedError as error:
        raise type(error)(f"{path} holds no valid Grams: {error}; {_AGAIN}") from error


def _content(path: str | Path) -> tuple[bytes | None, Any]:
    """The metadata of a Parquet file (None if they are not ours) and its rows."""
    pa, pq = _arrow()
    try:
        with open(path, "rb") as source, pq.ParquetFile(source, page_checksum_verification=True) as file:
            raw = (file.metadata.metadata or {}).get(METADATA)
            return raw, None if raw is None else file.read().replace_schema_metadata(None)
    except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: no path, or a column name that is no text
        raise DataError(f"cannot read Grams from {path}: {error}; check the path") from error


def _grams(document: dict[str, Any], table: Any) -> Grams:
    asked = checked_equations(document)
    _check_table(document, table)
    if document["digest"] != _digest(document, table):
        raise DataError("its digest is not that of its content, so it is damaged, or was changed by hand")
    equations = [_layout_of(equation, plain) for equation, plain in zip(asked, document["layouts"], strict=True)]
    dropped = tuple(Dropped(**values) for values in document["dropped"])
    layout = Layout(asked, tuple(document["columns"]), tuple(equations), dropped, document["total"])
    patterns = tuple(tuple(pattern) for pattern in document["patterns"])
    stored = table.to_pandas()
    ids, names = [f"id{k}" for k in range(len(document["group"]))], list(stored.columns[len(document["group"]) + 1 :])
    products, clusters = unstacked(stored, ids, stored[_PATTERN].to_numpy(), names)
    shift, scale = (np.array(document[name], dtype=np.float64) for name in ("shift", "scale"))
    grams = Grams(layout, shift, scale, patterns, products, clusters.set_names(document["group"]))
    _check_products(grams)
    return grams


def _check_table(document: dict[str, Any], table: Any) -> None:
    """Check names and types of the columns and numbers of patterns; refuse missing values."""
    import pyarrow as pa

    K, P, ids = len(document["columns"]), len(document["patterns"]), len(document["group"])
    names = [f"id{k}" for k in range(ids)] + [_PATTERN] + [f"{_PRODUCT}{p}" for p in range(K * (K + 1) // 2)]
    if table.column_names != names:
        raise DataError(f"its {table.num_columns} columns are not the {len(names)} that {K} columns of a model give")
    types = [pa.int64()] + [pa.float64()] * (len(names) - ids - 1)
    if table.schema.types[ids:] != types or any(column.null_count for column in table.columns):
        raise DataError("its columns are not of the type that sums have, or miss some")
    if not table.num_rows:
        raise DataError("it has no rows")
    pattern = table.column(_PATTERN).to_numpy()
    if not np.array_equal(np.unique(pattern), np.arange(P)):
        raise DataError(f"its rows do not belong to the {P} patterns of the metadata")
    counts = table.column(f"{_PRODUCT}0").to_numpy()
    if not (counts >= 1.0).all() or (counts != np.floor(counts)).any():
        raise DataError("numbers of rows of its clusters are not whole and positive")


def _layout_of(equation: Equation, plain: dict[str, Any]) -> EquationLayout:
    levels, observed = ({name: tuple(own) for name, own in plain[key].items()} for key in ("levels", "observed"))
    known = Known(plain["typical"], plain["spread"], levels, observed)
    made = EquationLayout.of(plain["name"], encodings_of(equation, stand_in(known)), known)
    if any(list(getattr(made, key)) != plain[key] for key in ("fixed", "random", "terms")):
        raise DataError(f"the columns of equation {equation.name} are not those that its formula and its levels give")
    fixed_at, random_at = tuple(plain["fixed_at"]), tuple(plain["random_at"])
    return replace(made, response_at=plain["response_at"], fixed_at=fixed_at, random_at=random_at)


def _check_products(grams: Grams) -> None:
    """Check that sums are finite, possible for rows, and agree with the numbers of rows in the metadata."""
    products, layout = grams.products, grams.layout
    if not np.isfinite(products).all():
        raise DataError("a sum is not finite")
    used = {part.equation: part.used for part in layout.dropped}
    for r, equation in enumerate(layout.equations):
        if grams.nobs(r) != used.get(equation.name, layout.total):
            raise DataError(f"equation {equation.name} has {grams.nobs(r)} rows, other than its metadata say")
    for packed, pattern in zip(products, grams.patterns, strict=True):
        _check_sums(packed, np.asarray(layout.used[list(pattern)].any(axis=0)))


def _check_sums(packed: Array, used: NDArray[np.bool_]) -> None:
    """Check sums of products, (K * (K + 1) / 2, J): zero for unused columns, positive semidefinite for the others."""
    unused = [i * (i + 1) // 2 + j for i in range(len(used)) for j in range(i + 1) if not (used[i] and used[j])]
    if packed[unused].any():
        raise DataError("there are sums of a column that no equation of the pattern has")
    for start in range(0, packed.shape[1], CHUNK):
        full = unpacked(packed[:, start : start + CHUNK]).transpose(2, 0, 1)
        values = np.linalg.eigvalsh(full)
        if (values[:, 0] < -ROUNDING * values[:, -1]).any():
            raise DataError("the sums of some cluster are not those of any rows")


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError('storing Grams needs pyarrow; install it with: pip install "mlmed[io]"') from error
    return pa, pq
