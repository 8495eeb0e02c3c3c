"""Grams in a file: one row per cluster and pattern in Parquet, everything else as JSON in its metadata.

What is read is checked in this order: the metadata by themselves (``mlmed.data.document``), the digest over metadata
and numbers, the numbers. Nothing in a file is run: there is no pickle in it, and formulas are read as those of a user.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.atomic import replacing
from mlmed.data.document import SCHEMA, checked_equations, read_document
from mlmed.data.encoding import encodings_of, stand_in
from mlmed.data.factors import computed_levels
from mlmed.data.frames import cluster_codes
from mlmed.data.grams import Grams, unpacked
from mlmed.data.layout import Dropped, EquationLayout, Layout
from mlmed.data.predictors import called_functions
from mlmed.errors import DataError, MlmedError
from mlmed.formula import Equation
from mlmed.names import display_name

__all__ = ["METADATA", "load_grams", "save_grams"]

Array = NDArray[np.float64]

#: What to do with a file that cannot be read.
_AGAIN = "make it again from the rows, with grams() and save()"
#: Key of the metadata in the file.
METADATA = b"mlmed"
_PATTERN, _PRODUCT = "mlmed_pattern", "mlmed_p"
#: Calls whose memory is the mean and the standard deviation of a column, which are in the file.
_STORED = re.compile(r"(?:center|scale)\(\w+\)")
#: The smallest eigenvalue of the products of a cluster may be below zero by this share of the largest: rounding.
ROUNDING = 1e-4
#: Clusters whose products are looked at together.
CHUNK = 4096


def save_grams(grams: Grams, path: str | Path) -> None:
    """Write one row per cluster and pattern to Parquet; formulas, units and levels go into its metadata.

    Raises
    ------
    DataError
        If pyarrow is missing, the file cannot be written, or a formula has a transformation whose state cannot be
        stored.
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
    checked_equations(read_document(raw))  # what cannot be read again is not written
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
    """The type that Parquet gives back: it has no times in seconds."""
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
        for name in ("standardize", "poly", "bs", "cs", "cr", "cc", "hashed"):
            if name in called_functions(equation):
                raise DataError(
                    f"the state of {name}(...) in {equation.text!r} cannot be stored; make it a column first"
                )


# -- the digest ------------------------------------------------------------------------------------------------


def _digest(document: dict[str, Any], table: Any) -> str:
    """SHA-256 of the metadata without the digest, as JSON with sorted keys, and of every column.

    A column counts with its name, its number of rows, and its values as little-endian numbers or as ``_id_bytes``, so
    that the digest depends neither on the version of pyarrow nor on how it packs them.
    """
    plain = {key: value for key, value in document.items() if key != "digest"}
    found = hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())
    for name, column in zip(table.column_names, table.columns, strict=True):
        found.update(f"\n{name} {len(column)}\n".encode())
        found.update(column.to_numpy().astype("<f8").tobytes() if name.startswith("mlmed_") else _id_bytes(column))
    return found.hexdigest()


def _id_bytes(column: Any) -> bytes:
    """Ids as bytes: numbers and times as they are, texts with their lengths; the kind before.

    Raises
    ------
    DataError
        If they are of a kind that cannot be stored, or one is missing.
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
    """Read what ``save_grams`` wrote.

    Raises
    ------
    DataError
        If the file is missing, is no Parquet file, was not written by ``save``, or is not what it was then.
    FormulaError
        If a formula in it may not be read.
    """
    raw, table = _content(path)
    if raw is None:
        raise DataError(f"{path} holds no Grams of this version (schema {SCHEMA!r}); {_AGAIN}")
    try:
        return _grams(read_document(raw), table)
    except MlmedError as error:
        raise type(error)(f"{path} holds no valid Grams: {error}; {_AGAIN}") from error


def _content(path: str | Path) -> tuple[bytes | None, Any]:
    """The metadata of a Parquet file, None where they are not ours, and its rows."""
    pa, pq = _arrow()
    try:
        with open(path, "rb") as source, pq.ParquetFile(source, page_checksum_verification=True) as file:
            raw = (file.metadata.metadata or {}).get(METADATA)
            return raw, None if raw is None else file.read().replace_schema_metadata(None)
    except (OSError, ValueError, pa.ArrowException) as error:  # a ValueError: no path, or a name that is no text
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
    products, clusters = _unstacked(table.to_pandas(), document["group"], len(patterns))
    shift, scale = (np.array(document[name], dtype=np.float64) for name in ("shift", "scale"))
    grams = Grams(layout, shift, scale, patterns, products, clusters)
    _check_products(grams)
    return grams


def _check_table(document: dict[str, Any], table: Any) -> None:
    """Names and types of the columns, numbers of patterns, nothing missing."""
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
    levels = {name: tuple(known) for name, known in plain["levels"].items()}
    encodings = encodings_of(equation, stand_in(plain["typical"], plain["spread"], levels))
    known = plain["typical"], plain["spread"], levels
    observed = {name: tuple(values) for name, values in plain["observed"].items()}
    made = EquationLayout.of(plain["name"], encodings, known, observed)
    if any(list(getattr(made, key)) != plain[key] for key in ("fixed", "random", "terms")):
        raise DataError(f"the columns of equation {equation.name} are not those that its formula and its levels give")
    fixed_at, random_at = tuple(plain["fixed_at"]), tuple(plain["random_at"])
    return replace(made, response_at=plain["response_at"], fixed_at=fixed_at, random_at=random_at)


def _unstacked(table: pd.DataFrame, group: list[str], patterns: int) -> tuple[Array, pd.Index]:
    stored = tuple(f"id{k}" for k in range(len(group)))
    codes, clusters = cluster_codes(table, stored)
    pattern = table[_PATTERN].to_numpy()
    if len(np.unique(pattern * len(clusters) + codes)) < len(table):
        raise DataError("a cluster is there twice")
    names = [f"{_PRODUCT}{p}" for p in range(table.shape[1] - len(group) - 1)]
    products = np.zeros((patterns, len(names), len(clusters)))
    for p, name in enumerate(names):
        products[pattern, p, codes] = table[name].to_numpy()
    return products, clusters.set_names(group)


def _check_products(grams: Grams) -> None:
    """Sums are finite and such that rows can have them; as many rows as the metadata say."""
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
    """Sums of products of columns, (K * (K + 1) / 2, J): zero for columns without use, those of rows for the others."""
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
