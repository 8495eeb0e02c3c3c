"""What stands in a comparison: estimates of fits, the truth, published numbers, all as rows of one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from mlmed.effects.delta import COLUMNS
from mlmed.effects.paths import EFFECTS
from mlmed.errors import EffectError
from mlmed.options import check_list, check_text
from mlmed.text import shown

__all__ = ["Comparable", "fit_rows", "given_rows", "labels_of", "missing_effects", "truth_values"]

#: What is kept of every estimate.
KEPT = ("estimate", "std_error", "conf_low", "conf_high", "note")


class Comparable(Protocol):
    """Anything that can stand in a comparison."""

    @property
    def label(self) -> str:
        """What its column is called."""
        ...

    def comparable(self, *, level: float = 0.95) -> pd.DataFrame:
        """Its estimates under the names that all fits share (``indirect``, ``m~x``, ``var(m~x)``).

        Effects that the model does not define are rows without numbers (``missing_effects``).
        """
        ...

    def combined(self, expression: str, *, level: float = 0.95) -> pd.DataFrame:
        """A function of these estimates, one row; EffectError if it does not have them."""
        ...


def missing_effects(reason: str, terms: Sequence[str] = EFFECTS) -> pd.DataFrame:
    """Effects that a model does not define, as rows of ``Comparable.comparable``: no numbers, and the reason."""
    return pd.DataFrame({"term": list(terms)}).reindex(columns=list(COLUMNS)).assign(note=reason)


def labels_of(fits: Sequence[Comparable], names: Sequence[str] | None) -> list[str]:
    """One column name a fit; the same names are numbered."""
    if names is not None:
        listed = [] if isinstance(names, str) else check_list(names, "names", "names, one a fit")
        if len(listed) != len(fits) or not all(isinstance(one, str) for one in listed) or len({*listed}) < len(fits):
            raise EffectError(f"names must be {len(fits)} different names, one a fit; found {shown(names)}")
        return listed
    labels = [fit.label for fit in fits]
    many, seen, found = Counter(labels), Counter[str](), []
    for label in labels:
        seen[label] += 1
        found.append(f"{label} ({seen[label]})" if many[label] > 1 else label)
    return found


def fit_rows(
    fits: Sequence[Comparable], columns: Sequence[str], terms: Sequence[str] | Mapping[str, str] | None, level: float
) -> list[pd.DataFrame]:
    """What each fit knows of the terms, in the columns of ``Comparison.long``.

    An expression is evaluated by every fit that has its names, and left out by the others.

    Raises
    ------
    EffectError
        A term that no fit has or can evaluate.
    """
    asked = (
        None if terms is None else dict(terms) if isinstance(terms, Mapping) else dict(zip(terms, terms, strict=True))
    )
    for text in (asked or {}).values():
        check_text(text, "each of terms", "a term, or an expression")
    reasons: dict[str, str] = {}
    found = []
    for fit, column in zip(fits, columns, strict=True):
        table = fit.comparable(level=level)
        if asked is not None:
            parts = [_term(fit, table, text, level, reasons).assign(term=label) for label, text in asked.items()]
            table = pd.concat(parts, ignore_index=True)
        found.append(table[["term", *KEPT]].assign(source=column, kind="fit"))
    known = set().union(*(part["term"] for part in found))
    for label, text in (asked or {}).items():
        if label not in known:
            raise EffectError(f"no fit has {text!r}: {reasons[text]}")
    return found


def _term(fit: Comparable, table: pd.DataFrame, text: str, level: float, reasons: dict[str, str]) -> pd.DataFrame:
    """One term or expression of a fit; no row where it does not have the names, and the reason noted."""
    if text in set(table["term"]):
        return table[table["term"] == text]
    try:
        return fit.combined(text, level=level)
    except EffectError as error:
        reasons.setdefault(text, str(error))
        return pd.DataFrame(columns=["term", *KEPT])


def truth_values(truth: Any) -> Mapping[str, Any]:
    """A mapping as it is; simulated data or their truth by the names of the effects."""
    if isinstance(truth, Mapping):
        return truth
    source = getattr(truth, "truth", truth)
    values = {name: getattr(source, name) for name in EFFECTS if hasattr(source, name)}
    if not values:
        raise EffectError(f"truth must be a mapping of term to value, or simulated data; found {type(truth).__name__}")
    return {**values, "direct": values["cprime"]} if "cprime" in values else values


def given_rows(column: str, kind: str, values: Any) -> pd.DataFrame:
    """Numbers that were given, in the columns of ``Comparison.long``."""
    if not isinstance(values, Mapping):
        raise EffectError(f"{column} must be a mapping of term to value; found {type(values).__name__}")
    rows = [{"term": term, **_given(column, term, value), "note": ""} for term, value in values.items()]
    return pd.DataFrame(rows, columns=["term", *KEPT]).assign(source=column, kind=kind)


def _given(column: str, term: str, value: Any) -> dict[str, float]:
    """A number, a pair (estimate, standard error) or a mapping, as numbers."""
    if isinstance(value, Mapping):
        parts = dict(value)
    elif isinstance(value, tuple | list):
        parts = dict(zip(KEPT[:2], value, strict=True)) if len(value) == 2 else {"?": value}
    else:
        parts = {"estimate": value}
    if "estimate" not in parts or not set(parts) <= set(KEPT[:4]):
        raise EffectError(
            f"{column} gives {term} the value {shown(value)}; it must be a number, a pair (estimate, "
            f"standard error), or a mapping with some of {', '.join(KEPT[:4])}"
        )
    try:
        return {name: float(parts.get(name, np.nan)) for name in KEPT[:4]}
    except (TypeError, ValueError, OverflowError) as error:
        raise EffectError(f"{column} gives {term} the value {shown(value)}, which is not a number") from error
