"""Value labels of Stata and SPSS files: which columns become factors, which stay numbers, and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mlmed.data.frames import column_names, shorten, unknown_column

__all__ = ["Labels", "labelled", "labels_message", "with_levels"]


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of the values that occur, by column.

    Attributes
    ----------
    complete : dict of str to dict
        Code -> label, in the order of the codes, where every value has a label and no two have the same: factors.
    partial : dict of str to dict
        Code -> label where some value has none, or two have the same: numbers.
    """

    complete: dict[str, dict[Any, str]]
    partial: dict[str, dict[Any, str]]


def labelled(table: pd.DataFrame, labels: Mapping[str, Mapping[Any, Any]]) -> Labels:
    """Sort the labelled columns of numbers by whether their labels can be levels.

    A label that only repeats its code ("2" for 2) is none, and labels of values that do not occur (codes of missing
    values) play no part.

    Parameters
    ----------
    table : DataFrame
        With the codes.
    labels : mapping of str to mapping
        Column -> code -> label.
    """
    complete: dict[str, dict[Any, str]] = {}
    partial: dict[str, dict[Any, str]] = {}
    for name, known in labels.items():
        if not pd.api.types.is_numeric_dtype(table[name].dtype):
            continue
        codes = sorted(table[name].dropna().unique().tolist())
        own = {code: str(known[code]) for code in codes if code in known and not _repeats(known[code], code)}
        if own:
            whole = len(own) == len(codes) == len(set(own.values()))
            (complete if whole else partial)[name] = own
    return Labels(complete, partial)


def _repeats(label: Any, code: float) -> bool:
    try:
        return float(label) == code
    except (TypeError, ValueError):
        return False


def with_levels(table: pd.DataFrame, labels: Labels, codes: bool | Collection[str]) -> tuple[pd.DataFrame, Labels]:
    """Labelled columns as categories, the first code first, and the labels that were used or could not be.

    Parameters
    ----------
    table : DataFrame
        With the codes; not modified.
    labels : Labels
        Of its columns.
    codes : bool or collection of str
        Columns that stay the numbers they are; True for all.

    Raises
    ------
    DataError
        A column in ``codes`` is unknown.
    """
    if codes is True:
        return table, Labels({}, {})
    kept = (codes,) if isinstance(codes, str) else tuple(codes or ())
    present = column_names(table)
    for name in kept:
        if name not in present:
            raise unknown_column(name, present)
    complete = {name: own for name, own in labels.complete.items() if name not in kept}
    partial = {name: own for name, own in labels.partial.items() if name not in kept}
    made = {name: pd.Categorical(table[name].map(own), list(own.values())) for name, own in complete.items()}
    return table.assign(**made), Labels(complete, partial)


def labels_message(labels: Labels, used: Collection[str] | None = None) -> str:
    """What was done with the labels of the columns (of those in ``used``); nothing if nothing was labelled."""
    complete, partial = (
        [f"{name} ({_shown(own)})" for name, own in part.items() if used is None or name in used]
        for part in (labels.complete, labels.partial)
    )
    said = []
    if complete:
        said.append(f"value labels are the levels of {shorten(complete)}; the first is the reference")
    if partial:
        said.append(
            f"stayed numbers, because some value has no label or two have the same: {shorten(partial)}; check that "
            "the labelled ones are no codes of missing values"
        )
    return "; ".join(said)


def _shown(own: Mapping[Any, str]) -> str:
    return shorten([f"{code:g} {label}" for code, label in own.items()], most=4)
