"""Cluster ids: their codes, and checks for ids that are rounded, mixed, look alike or restart in upper groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from mlmed.data.frames import column_names, lazy_frame, select_columns
from mlmed.data.grams import Grams
from mlmed.data.values import is_numeric
from mlmed.errors import DataError
from mlmed.names import safe_name


def cluster_codes(
    table: Mapping[str, pd.Series] | pd.DataFrame, group: tuple[str, ...]
) -> tuple[NDArray[np.intp], pd.Index]:
    """Number the clusters in order of appearance.

    Returns
    -------
    codes : (n,) int array
        Cluster of each row, -1 where the id is missing.
    labels : Index of length J
        Id of each cluster; a MultiIndex for several columns.

    Raises ``DataError``: ids cannot be compared (lists), are of several kinds (1 and "1"), or are floats so large that
    different ids are one float.
    """
    parts = [_factorize(table[name], name) for name in group]
    for _, labels in parts:
        refuse_spellings(labels)
    if len(parts) == 1:
        codes, labels = parts[0]
        return codes, _as_integer(labels)
    missing = np.logical_or.reduce([codes < 0 for codes, _ in parts])
    joined = np.zeros(len(missing), dtype=np.int64)
    for codes, labels in parts:
        joined = joined * max(len(labels), 1) + codes
    codes, first = _first_appearance(np.where(missing, -1, joined))
    columns = [labels[part[first]] for part, labels in parts]
    return codes, pd.MultiIndex.from_arrays(columns, names=list(group))


def _factorize(column: pd.Series, name: str) -> tuple[NDArray[np.intp], pd.Index]:
    refuse_mixed(column)
    refuse_rounded(column)
    try:
        codes, labels = pd.factorize(column)
    except TypeError as error:
        raise DataError(
            f"the ids in column {column.name!r} cannot be compared ({error}); convert them to numbers or text"
        ) from error
    is_category = isinstance(labels, pd.CategoricalIndex)
    return codes, pd.Index(labels.to_numpy() if is_category else labels, name=name)


def _first_appearance(keys: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Codes of non-negative keys by order of appearance, and the first row of each."""
    known = np.flatnonzero(keys >= 0)
    codes = np.full(len(keys), -1, dtype=np.intp)
    codes[known], uniques = pd.factorize(keys[known])
    first = np.full(len(uniques), -1, dtype=np.intp)
    first[codes[known][::-1]] = known[::-1]
    return codes, first


def _as_integer(labels: pd.Index) -> pd.Index:
    """Show whole-number ids of a float column (floats because some are missing) as integers."""
    if labels.dtype == np.float64:
        values = labels.to_numpy()
        if np.all(values == np.floor(values)):
            return pd.Index(values.astype(np.int64), name=labels.name)
    return labels


Codes = NDArray[np.intp]
#: Share of the numbers from the lowest id to its highest that a pass must have to count as a restarted numbering.
DENSE = 0.8
#: Text that is a whole number, with or without a decimal point.
WHOLE = r"\s*[+-]?\d+(?:\.0*)?\s*"


def refuse_mixed(column: pd.Series) -> None:
    """Refuse ids of several kinds: pandas reads long files in pieces, some with 1 and some with "1".

    Raises ``DataError``: numbers beside text, or truth values, dates or anything else of another type.
    """
    known = _free_values(column)
    types = dict.fromkeys(map(type, known))
    kinds: dict[str, type] = {}
    for found in types:
        kinds.setdefault(_kind(found), found)
    if len(kinds) < 2:
        return
    first, second = (next(value for value in known if type(value) is found) for found in list(kinds.values())[:2])
    raise DataError(
        f"the ids in column {column.name!r} mix {' and '.join(kinds)} (such as {first!r} and {second!r}), so that one "
        f"cluster may pass for two. Read the column as one type, as with dtype={{{column.name!r}: str}} in "
        "pandas.read_csv, which otherwise types a long file piece by piece, or convert it with "
        f"data[{column.name!r}].astype(str)"
    )


def _free_values(column: pd.Series) -> list[Any]:
    """Known values or categories of a column of any type; none for columns with one type."""
    values = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column
    return list(values.dropna()) if pd.api.types.is_object_dtype(values.dtype) else []


def _kind(found: type) -> str:
    """A word for a class of types whose equal values compare equal."""
    if issubclass(found, bool | np.bool_):
        return "truth values"
    if issubclass(found, Number | np.number):
        return "numbers"
    return "text" if issubclass(found, str) else f"values of type {found.__name__}"


def refuse_spellings(ids: pd.Index) -> None:
    """Refuse text ids that write one whole number as 1 and 1.0, as when parts of a file went through floats."""
    if not _may_be_text(ids):
        return
    texts = pd.Series([value for value in ids if isinstance(value, str)], dtype=object)
    whole = texts[texts.str.fullmatch(WHOLE).astype(bool)]
    pointed = whole.str.contains(".", regex=False).astype(bool)
    bare = whole.str.strip().str.replace(r"\.0*$", "", regex=True)
    twice = whole[pointed & bare.duplicated(keep=False)]
    if len(twice):
        first, second = whole[bare == bare.loc[twice.index[0]]].iloc[:2]
        raise DataError(
            f"{len(twice)} of the {len(ids)} ids in column {ids.name!r} are written in two ways, such as {first!r} and "
            f"{second!r}, so that one cluster would pass for two. Write them alike, as by "
            f"data[{ids.name!r}].str.replace(r'\\.0*$', '', regex=True)"
        )


def refuse_rounded(column: pd.Series) -> None:
    """Refuse floating-point ids so large that neighbouring whole numbers are one float, and infinite ones.

    Raises ``DataError``: an id of at least 2^53 in double precision (2^24 in single precision), or an infinite one.
    """
    values, bits = _floats(column)
    large = np.unique(values[np.abs(values) >= 2.0**bits])
    if not len(large):
        return
    if np.isinf(large).any():
        raise DataError(
            f"column {column.name!r} has {int(np.isinf(values).sum())} infinite value(s); replace or remove them"
        )
    raise DataError(
        f"the ids in column {column.name!r} are floating-point numbers of 2^{bits} ({2**bits:,}) and more (e.g. "
        f"{int(large[0])}), where different whole numbers become the same float, so that clusters may have been merged "
        "when the table was made. Read the column as whole numbers or text, as with dtype={"
        f"{column.name!r}: 'Int64'}} in pandas.read_csv (a single missing id makes pandas choose floats)"
    )


def _floats(column: pd.Series) -> tuple[NDArray[np.float64], int]:
    """The floating-point numbers among the known values, and the power of two up to which they are exact."""
    levels = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column
    if pd.api.types.is_float_dtype(levels.dtype):
        known = levels.dropna()
        return known.to_numpy(dtype=np.float64), np.finfo(known.to_numpy().dtype).nmant + 1
    found = [value for value in _free_values(column) if isinstance(value, float | np.floating)]
    least = min((np.finfo(type(value)).nmant for value in found if isinstance(value, np.floating)), default=52)
    return np.array(found, dtype=np.float64), least + 1


#: Digits of an id that is read as a number; Python refuses to read more than 4,300.
LONGEST_ID = 1_000


def whole_number(text: str) -> int | None:
    """The whole number written by a text, or None."""
    stripped = text.strip()
    digits = stripped[1:] if stripped[:1] in ("+", "-") else stripped
    return int(stripped) if len(digits) <= LONGEST_ID and digits.isascii() and digits.isdigit() else None


def lookalikes(ids: pd.Index) -> tuple[Any, Any] | None:
    """Two ids that differ only in surrounding blanks, leading zeros, or as number and text; or None."""

    def bare(value: Any) -> str | None:
        if isinstance(value, str):
            number = whole_number(value)
            return value.strip() if number is None else str(number)
        return str(value) if isinstance(value, int | np.integer) and not isinstance(value, bool) else None

    return _twins(ids, bare) if _may_be_text(ids) else None


def case_twins(ids: pd.Index) -> tuple[str, str] | None:
    """Two ids that differ only in upper and lower case; or None."""
    texts = [value for value in ids if isinstance(value, str)] if _may_be_text(ids) else []
    if len(set(map(str.casefold, texts))) == len(texts):  # nearly always; fast for a million ids
        return None
    return _twins(texts, str.casefold)


def _may_be_text(ids: pd.Index) -> bool:
    return pd.api.types.is_object_dtype(ids.dtype) or pd.api.types.is_string_dtype(ids.dtype)


def _twins(values: Iterable[Any], bare: Callable[[Any], str | None]) -> tuple[Any, Any] | None:
    """The first two different values with the same ``bare`` form; values whose form is None are skipped."""
    seen: dict[str, Any] = {}
    for value in values:
        if (key := bare(value)) is not None:
            first = seen.setdefault(key, value)
            if isinstance(first, str) != isinstance(value, str) or first != value:
                return first, value
    return None


@dataclass(frozen=True, slots=True)
class Passes:
    """Runs of rows with one id, in the order of the rows; a pass is a stretch of ascending ids."""

    starts: Codes  #: (R,): First row of each run.
    ids: NDArray[np.int64]  #: (R,): Id of each run.
    number: Codes  #: (R,): Pass of each run, from 0.


def numbering_passes(ids: pd.Series) -> Passes | None:
    """Passes of numeric ids whose numbering restarts along the rows; None if it does not.

    A run is a stretch of rows with one id, a pass a stretch of runs with ascending ids. The numbering restarts if there
    are at least two passes, every pass has most of the numbers from the lowest of all to its own highest, and runs have
    at least two rows on average (a diary sorted by day has runs of one row).

    ``ids``: none missing; whole numbers or their texts.
    """
    values = ids.to_numpy()
    if not len(values):
        return None
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
    if len(values) < 2 * len(starts):
        return None
    numbers = _whole_numbers(pd.Index(values[starts]))
    if numbers is None or len(np.unique(numbers)) == len(numbers):  # every id has one run
        return None
    lowest = numbers.min()
    number = np.cumsum(np.append(False, numbers[1:] < numbers[:-1]))
    sizes = np.bincount(number)
    highest = np.full(len(sizes), lowest)
    np.maximum.at(highest, number, numbers)
    dense = sizes >= DENSE * (highest - lowest + 1)
    return Passes(starts, numbers, number) if sizes.min() > 1 and dense.all() else None


def _whole_numbers(ids: pd.Index) -> NDArray[np.int64] | None:
    """Ids as whole numbers; None if some are not."""
    if pd.api.types.is_bool_dtype(ids.dtype):
        return None
    if pd.api.types.is_numeric_dtype(ids.dtype):
        values = ids.to_numpy(dtype=np.float64)
        found = values.astype(np.int64) if np.all(np.abs(values) < 2**53) else None
        return found if found is not None and np.array_equal(found, values) else None
    numbers = [whole_number(value) if isinstance(value, str) else value for value in ids]
    exact = [int(number) for number in numbers if isinstance(number, int | np.integer) and -(2**53) < number < 2**53]
    return np.array(exact, dtype=np.int64) if len(exact) == len(numbers) else None


def refuse_infinite_ids(table: pd.DataFrame, group: Sequence[str]) -> None:
    """Refuse infinite ids of an engine; ``table`` has them under safe names."""
    for name in group:
        column = table[safe_name(name)]
        if column.dtype == np.float64 and np.isinf(column).any():
            raise DataError(f"column {name!r} has infinite value(s); replace or remove them")


#: Below this p value ids differ in a column across passes, so the same id is the same cluster.
SAME_CLUSTERS = 0.01
#: Below this p value the runs of one id differ in a column, so they may be different clusters.
OTHER_CLUSTERS = 0.001


def doubtful_ids(data: Any, ids: pd.Index, asked: frozenset[str], *, has_term: bool) -> list[str]:
    """Sentences about ids that look alike or seem to be used again in every upper group; usually none.

    ``data``: the user's table; rows in an engine or behind Grams have no order, so only their ids are checked; ``ids``:
    the distinct ids; a MultiIndex for combined ids, which include their upper group; ``asked``: columns in use;
    ``has_term``: whether a random term names the ids, so that it could name a combination of columns.
    """
    found = [_alike(ids.get_level_values(k)) for k in range(ids.nlevels)]
    in_memory = not isinstance(getattr(data, "arrays", data), Grams) and lazy_frame(data) is None
    if in_memory and ids.nlevels == 1:
        found.append(reused_ids(data, str(ids.name), asked, has_term=has_term))
    return [text for text in found if text]


def _alike(ids: pd.Index) -> str:
    if pair := lookalikes(ids):
        only, cure = "blanks, leading zeros or type", "(.str.strip(), .str.lstrip('0')), or make the column numbers"
    elif pair := case_twins(ids):  # A and a, as 007 and 7, may be two persons; in joined files often one
        only, cure = "upper and lower case", "(.str.lower())"
    else:
        return ""
    return (
        f"the ids {pair[0]!r} and {pair[1]!r} in column {ids.name!r} differ only in {only}, and are two clusters; if "
        f"they are one, write them alike {cure}"
    )


def reused_ids(data: Any, name: str, asked: frozenset[str], *, has_term: bool = True) -> str:
    """One sentence if ids of a table in memory seem to restart in every upper group; otherwise empty.

    Four conditions: the numbering restarts along the rows (``numbering_passes``); a column names the passes; no column
    differs between ids across passes (persons 1 to 20 measured again in every session would persist in something); and
    in some column the runs of one id differ by more than rows within runs, as pupils 1 of two schools do. Without such
    a difference one cluster for both does no harm.

    ``data``: its rows are ordered; ``name``: the cluster variable; ``asked``: columns that the model uses;
    ``has_term``: whether a random term names the ids.
    """
    ids = data[name] if isinstance(data, pd.DataFrame) else select_columns(data, [name], keep=[name])[name]
    known = np.asarray(ids.notna())
    found = numbering_passes(ids[known])
    if found is None:
        return ""
    others = [column for column in column_names(data) if column != name]
    table = select_columns(data, others, keep=others).loc[known]
    runs = np.searchsorted(found.starts, np.arange(len(table)), side="right") - 1
    rows = found.number[runs]
    upper = [column for column in others if _names_passes(table[column], rows)]
    if not upper:
        return ""
    tests = [(column in asked, _two_way(table[column], runs, found)) for column in others if column not in upper]
    if any(test.persists for _, test in tests) or not any(test.differs(is_used) for is_used, test in tests):
        return ""
    group, times = min(upper, key=lambda column: column in asked), int(found.number[-1]) + 1
    cure = (
        f"write (1 | {group}:{name})"
        if has_term
        else f"make a column of both beforehand, data[{group!r}].astype(str) + ':' + data[{name!r}].astype(str)"
    )
    return (
        f"is {name} 1 of one {group} the same as {name} 1 of the next? The ids in column {name!r} are numbered anew "
        f"{times} times, whenever {group!r} changes, and nothing in the table tells them apart over that. If they may "
        f"be different clusters, {cure}; if they are the same, measured again, sort the rows by {name}, and this is "
        "not asked"
    )


@dataclass(frozen=True, slots=True)
class _TwoWay:
    """A column's two-way analysis of variance by ids and passes, over the means of the runs."""

    persists: bool = False  #: Whether ids differ beyond chance, adjusted for passes.
    #: Whether the runs of one id differ, adjusted for passes, by more than rows within runs predict.
    varies: bool = False
    constant: bool = False  #: Whether it is constant within runs.

    def differs(self, is_used: bool) -> bool:
        """Whether the column is evidence against one cluster for all runs of an id.

        A column in the model that is constant within runs may be a condition given to a person for a session, so it is
        no evidence.
        """
        return self.varies and not (is_used and self.constant)


def _names_passes(column: pd.Series, passes: Codes) -> bool:
    """Whether a column of text or whole numbers is constant within passes and differs between all of them."""
    texts = pd.api.types.is_string_dtype(column) or isinstance(column.dtype, pd.CategoricalDtype)
    values = _as_numbers(column)
    if not np.array_equal(values, np.round(values)) or not (texts or is_numeric(column)):  # a NaN is not equal either
        return False
    number = pd.factorize(column)[0]
    last = int(passes[-1])
    return int(number.max()) == last and len(np.unique(number * (last + 1) + passes)) == last + 1


def _two_way(column: pd.Series, runs: Codes, found: Passes) -> _TwoWay:
    """Compare ids with the runs of one id, and these with the rows within runs (unweighted means).

    Keys (one value per run or per row) are no evidence for either.
    """
    values, number = _as_numbers(column), len(found.starts)
    known = np.isfinite(values)
    if not known.any():
        return _TwoWay()
    values, at = values[known], runs[known]
    size = np.bincount(at, minlength=number)
    all_means = np.bincount(at, weights=values, minlength=number) / np.maximum(size, 1)
    means, seen = all_means[size > 0], size > 0
    distinct = len(np.unique(values))
    whole = np.array_equal(values, np.round(values))
    if (distinct == len(values) and whole) or distinct == len(means) == len(np.unique(means)):
        return _TwoWay()
    own, passes = np.unique(found.ids[seen], return_inverse=True)[1], found.number[seen]
    centred = means - _means(means, passes)[passes]
    total = float(centred @ centred)
    freedom = len(means) - len(np.unique(passes)) - int(own.max())
    if total <= 1e-20 * float(means @ means) or freedom < 1 or own.max() < 1:
        return _TwoWay()
    between = float(np.bincount(own) @ _means(centred, own) ** 2)
    rest = max((total - between) / freedom, np.finfo(float).tiny)
    persists = special.fdtrc(own.max(), freedom, between / own.max() / rest) < SAME_CLUSTERS
    residual, left = values - all_means[at], len(values) - len(means)
    error = float(residual @ residual)
    if error <= 1e-20 * float(values @ values):
        return _TwoWay(bool(persists), total - between > 1e-12 * total, constant=True)
    harmonic = len(means) / float(np.sum(1.0 / size[seen]))
    return _TwoWay(bool(persists), bool(special.fdtrc(freedom, left, harmonic * rest * left / error) < OTHER_CLUSTERS))


def _means(values: NDArray[np.float64], groups: Codes) -> NDArray[np.float64]:
    size = np.bincount(groups)
    return np.bincount(groups, weights=values) / np.maximum(size, 1)


def _as_numbers(column: pd.Series) -> NDArray[np.float64]:
    """Numbers as they are, anything else numbered by first appearance, missing values as NaN; (n,)."""
    if is_numeric(column):
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    try:
        numbers = pd.factorize(column)[0].astype(np.float64)
    except TypeError:  # lists and the like
        return np.full(len(column), np.nan)
    return np.where(numbers < 0, np.nan, numbers)
