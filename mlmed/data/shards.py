"""Grams of shards: bring them to common units and add them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array, csr_array

from mlmed.data.factors import computed_levels
from mlmed.data.grams import Grams, rebased
from mlmed.data.layout import Dropped, EquationLayout, Layout
from mlmed.data.predictors import called_functions, snapped, some_values
from mlmed.errors import DataError

__all__ = ["add_grams"]


def _refuse_means(grams: Grams) -> None:
    """center() and scale() mean other numbers in every shard."""
    for equation in grams.layout.asked:
        for name in ("center", "scale", "standardize", "poly", "bs", "cs", "cr", "cc"):
            if name in called_functions(equation):
                raise DataError(
                    f"{name}(...) in {equation.text!r} means other numbers in every shard, so the Grams "
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
