"""Grams of shards: bring them to common units, add them, store them and read them back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from mlmed.data.encoding import encodings_of, stand_in
from mlmed.data.factors import computed_levels
from mlmed.data.frames import cluster_codes
from mlmed.data.grams import Grams, rebased
from mlmed.data.layout import Dropped, EquationLayout, Layout
from mlmed.data.planning import STATEFUL
from mlmed.data.predictors import snapped, some_values
from mlmed.errors import DataError
from mlmed.formula import Equation, parse_equation
from mlmed.names import display_name

__all__ = ["SCHEMA", "add_grams", "load_grams", "save_grams"]

Array = NDArray[np.float64]
#: Name and version of the stored layout.
SCHEMA = "mlmed.grams/1"
_METADATA = b"mlmed"


def _refuse_means(grams: Grams) -> None:
    """center() and scale() mean other numbers in every shard."""
    for equation in grams.layout.asked:
        for call in (*STATEFUL, "poly(", "bs(", "cs(", "cr(", "cc("):
            if call in equation.text:
                raise DataError(
                    f"{call}...) in {equation.text!r} means other numbers in every shard, so the Grams "
                    "do not add up; make it a column before (centring is not needed, it is done inside)"
                )


def add_grams(left: Grams, right: Grams) -> Grams:
    """Grams of the rows of both; clusters may overlap.

    Raises
    ------
    DataError
        If they were made for other equations, or a factor has other levels.
    """
    if not isinstance(right, Grams):
        raise DataError(f"Grams can be added to Grams; found {type(right).__name__}")
    coding = [
        [(e.fixed, e.random, e.levels, list(map(computed_levels, e.encodings))) for e in grams.layout.equations]
        for grams in (left, right)
    ]
    texts = [[e.text for e in grams.layout.asked] for grams in (left, right)]
    if left.columns != right.columns or coding[0] != coding[1] or texts[0] != texts[1]:
        differing = sorted({*left.columns} ^ {*right.columns})
        raise DataError(
            f"these Grams have other columns or equations ({', '.join(differing) or 'formulas or levels differ'}); "
            "make them with the same formulas, and with the same levels of every factor in every shard"
        )
    _refuse_means(left)
    clusters = left.clusters.append(right.clusters[~right.clusters.isin(left.clusters)])
    patterns = tuple(sorted({*left.patterns, *right.patterns}))
    parts = (left, replace(right, sums=rebased(right, left.shift, left.scale)))
    if all(isinstance(grams.sums, np.ndarray) for grams in parts):
        sums: Any = np.zeros((len(patterns), left.products.shape[1], len(clusters)))
        for grams in parts:
            at = clusters.get_indexer(grams.clusters)
            for pattern, packed in zip(grams.patterns, grams.products, strict=True):
                sums[patterns.index(pattern)][:, at] += packed
    else:
        sums = _added(parts, patterns, clusters)
    layout = _joined_layout(left, right)
    return Grams(layout, left.shift, left.scale, patterns, sums, clusters)


def _added(parts: Sequence[Grams], patterns: tuple[tuple[bool, ...], ...], clusters: pd.Index) -> csr_array:
    """Sums of all parts, of which at least one is sparse."""
    K = len(parts[0].columns)
    n = K * (K + 1) // 2
    found: list[coo_array] = []
    for grams in parts:
        flat = grams.sums
        own = coo_array(flat.reshape(-1, flat.shape[-1]) if isinstance(flat, np.ndarray) else flat)
        place = np.array([patterns.index(pattern) for pattern in grams.patterns])
        at = clusters.get_indexer(grams.clusters)
        row = place[own.row // n] * n + own.row % n
        found.append(coo_array((own.data, (row, at[own.col])), shape=(len(patterns) * n, len(clusters))))
    return found[0].tocsr() + found[1].tocsr()


def _joined_layout(left: Grams, right: Grams) -> Layout:
    counts = [[grams.nobs(r) for grams in (left, right)] for r in range(len(left.layout.equations))]
    equations = tuple(
        _joined_equation(one, two, n, m)
        for one, two, (n, m) in zip(left.layout.equations, right.layout.equations, counts, strict=True)
    )
    total = left.layout.total + right.layout.total
    dropped = []
    for r, equation in enumerate(equations):
        own = [d for grams in (left, right) for d in grams.layout.dropped if d.equation == equation.name]
        if own:
            missing: dict[str, int] = {}
            for part in own:
                for name, count in part.missing.items():
                    missing[name] = missing.get(name, 0) + count
            dropped.append(Dropped(equation.name, total, sum(counts[r]), sum(d.missing_cluster for d in own), missing))
    return replace(left.layout, equations=equations, dropped=tuple(dropped), total=total)


def _joined_equation(one: EquationLayout, two: EquationLayout, n: int, m: int) -> EquationLayout:
    """Pooled means, standard deviations and observed values; encodings do not depend on them (see ``add_grams``)."""
    typical, spread = dict(one.typical), dict(one.spread)
    for name in one.spread:
        mean = (n * one.typical[name] + m * two.typical[name]) / (n + m)
        ss = (n - 1) * one.spread[name] ** 2 + (m - 1) * two.spread[name] ** 2
        ss += n * (one.typical[name] - mean) ** 2 + m * (two.typical[name] - mean) ** 2
        typical[name], spread[name] = mean, float(np.sqrt(ss / (n + m - 1)))
    both = one.observed.keys() & two.observed.keys()
    observed = {}
    for name in sorted(both):
        values = np.array([*one.observed[name], *two.observed[name]])
        typical[name] = snapped(typical[name], values)
        observed[name] = some_values(values, typical[name])
    return replace(one, typical=typical, spread=spread, observed=observed)


# -- storing ---------------------------------------------------------------------------------------------------


def save_grams(grams: Grams, path: str | Path) -> None:
    """Write one row per cluster and pattern to Parquet; formulas, units and levels go into its metadata.

    Raises
    ------
    DataError
        If pyarrow is missing, or a formula has a transformation whose state cannot be stored.
    """
    pa, pq = _arrow()
    _refuse_other_state(grams)
    layout = grams.layout
    ids = grams.clusters.to_frame(index=False)
    ids.columns = [f"id{k}" for k in range(ids.shape[1])]
    parts = []
    for number, packed in enumerate(grams.products):
        sums = {"mlmed_pattern": number, **{f"mlmed_p{p}": values for p, values in enumerate(packed)}}
        parts.append(pd.concat([ids, pd.DataFrame(sums)], axis=1)[packed[0] > 0.0])
    document = {
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
        "layouts": [_plain_layout(equation) for equation in layout.equations],
        "dropped": [[d.equation, d.total, d.used, d.missing_cluster, d.missing] for d in layout.dropped],
    }
    table = pa.Table.from_pandas(pd.concat(parts, ignore_index=True), preserve_index=False)
    try:
        metadata = {**(table.schema.metadata or {}), _METADATA: json.dumps(document).encode()}
    except TypeError as error:
        raise DataError(f"levels of a factor cannot be stored ({error}); convert the column to text") from error
    try:
        pq.write_table(table.replace_schema_metadata(metadata), path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error}; check the folder and its permissions") from error


def _plain_layout(equation: EquationLayout) -> dict[str, Any]:
    columns = ("name", "fixed", "random", "fixed_at", "random_at", "response_at", "terms")
    keys = (*columns, "typical", "spread", "levels", "observed")
    return {key: getattr(equation, key) for key in keys}


def _refuse_other_state(grams: Grams) -> None:
    for layout in grams.layout.equations:
        for text in (text for encoding in layout.encodings for text in computed_levels(encoding)):
            raise DataError(
                f"the levels of {display_name(text)} in equation {layout.name} cannot be stored, as they are computed; "
                "make it a column first"
            )
    for equation in grams.layout.asked:
        for call in ("standardize(", "poly(", "bs(", "cs(", "cr(", "cc(", "hashed("):
            if call in equation.text:
                raise DataError(
                    f"the state of {call}...) in {equation.text!r} cannot be stored; make it a column first"
                )


def load_grams(path: str | Path) -> Grams:
    """Read what ``save_grams`` wrote.

    Raises
    ------
    DataError
        If the file is missing, is no Parquet file, or was not written by ``save``.
    """
    pa, pq = _arrow()
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"cannot read Grams from {path}: {error}; check the path") from error
    raw = (table.schema.metadata or {}).get(_METADATA)
    try:
        document = json.loads(raw) if raw else {}
    except ValueError:
        document = {}
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise DataError(f"{path} holds no Grams of this version (schema {SCHEMA!r}); write it with save()")
    asked = tuple(parse_equation(text, document["variables"]) for text in document["equations"])
    equations = [_layout_of(equation, plain) for equation, plain in zip(asked, document["layouts"], strict=True)]
    dropped = tuple(Dropped(*values) for values in document["dropped"])
    layout = Layout(asked, tuple(document["columns"]), tuple(equations), dropped, document["total"])
    patterns = tuple(tuple(pattern) for pattern in document["patterns"])
    products, clusters = _unstacked(table.to_pandas(), document["group"], len(patterns))
    return Grams(layout, np.array(document["shift"]), np.array(document["scale"]), patterns, products, clusters)


def _layout_of(equation: Equation, plain: dict[str, Any]) -> EquationLayout:
    levels = {name: tuple(known) for name, known in plain["levels"].items()}
    return EquationLayout(
        name=plain["name"],
        fixed=tuple(plain["fixed"]),
        random=tuple(plain["random"]),
        fixed_at=tuple(plain["fixed_at"]),
        random_at=tuple(plain["random_at"]),
        response_at=plain["response_at"],
        terms=tuple(plain["terms"]),
        encodings=encodings_of(equation, stand_in(plain["typical"], plain["spread"], levels)),
        typical=plain["typical"],
        spread=plain["spread"],
        levels=levels,
        observed={name: tuple(known) for name, known in plain.get("observed", {}).items()},
    )


def _unstacked(table: pd.DataFrame, group: list[str], patterns: int) -> tuple[Array, pd.Index]:
    stored = tuple(f"id{k}" for k in range(len(group)))
    codes, clusters = cluster_codes(table, stored)
    names = [f"mlmed_p{p}" for p in range(table.shape[1] - len(group) - 1)]
    products = np.zeros((patterns, len(names), len(clusters)))
    pattern = table["mlmed_pattern"].to_numpy()
    for p, name in enumerate(names):
        products[pattern, p, codes] = table[name].to_numpy()
    return products, clusters.set_names(group)


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError('storing Grams needs pyarrow; install it with: pip install "mlmed[io]"') from error
    return pa, pq
