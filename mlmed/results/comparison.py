"""Compare fits with each other, with the truth and with published numbers: one table, one picture."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mlmed.effects.paths import EFFECTS
from mlmed.errors import EffectError
from mlmed.options import check_level, check_list, check_mapping, check_text
from mlmed.report.plots.forests import plot_comparison
from mlmed.report.text import WIDTH, as_html, format_number
from mlmed.text import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
from typing import Protocol

from mlmed.effects.delta import COLUMNS

#: Column of population values.
TRUTH = "truth"
#: Columns kept of every estimate.
KEPT = ("estimate", "std_error", "conf_low", "conf_high", "note")


@dataclass(frozen=True)
class Comparison:
    """Estimates of several sources under common names.

    Attributes
    ----------
    long : DataFrame
        One row per term and source: term, source, kind (``truth``, ``published`` or ``fit``), estimate, std_error,
        conf_low, conf_high, note. A source without the term has no row; effects that a model does not define are NaN,
        with the reason in ``note``.
    terms, sources : tuple of str
        Rows and columns of ``table``, in order: truth, published columns, fits.
    level : float
        Coverage of the intervals of the fits.

    Examples
    --------
    >>> import mlmed
    >>> data = mlmed.datasets.load("yuan_mackinnon_sim")
    >>> formulas = "Med ~ X + (1 + X | group)", "y ~ Med + X + (1 + Med + X | group)"
    >>> both = [mlmed.mediate(*formulas, data, method=method) for method in ("reml", "ml")]
    >>> print(mlmed.compare(*both, truth={"indirect": -0.14}, terms=["indirect", "total"]).table.round(4).T)
    term        indirect   total
    truth        -0.1400     NaN
    joint REML   -0.1276  0.1682
    joint ML     -0.1257  0.1701
    """

    long: pd.DataFrame
    terms: tuple[str, ...]
    sources: tuple[str, ...]
    level: float

    def _wide(self, column: str) -> pd.DataFrame:
        wide = self.long.pivot(index="term", columns="source", values=column)
        return (
            wide.reindex(index=list(self.terms), columns=list(self.sources))
            .rename_axis("term")
            .rename_axis(None, axis=1)
        )

    @property
    def table(self) -> pd.DataFrame:
        """Estimates, a row per term and a column per source; NaN if a source lacks the term."""
        return self._wide("estimate")

    @property
    def std_errors(self) -> pd.DataFrame:
        """Standard errors in the same shape."""
        return self._wide("std_error")

    def differences(self, reference: str | None = None) -> pd.DataFrame:
        """Estimates minus those of one source; by default the truth, or else the first column.

        Raises
        ------
        EffectError
            Unknown source.
        """
        table = self.table
        column = self.sources[0] if reference is None else check_text(reference, "reference", "a column")
        if column not in table.columns:
            raise EffectError(f"no source {column!r} in the comparison; there are {', '.join(self.sources)}")
        return table.drop(columns=column).sub(table[column], axis=0)

    def plot(self, terms: str | Sequence[str] | None = None, *, ax: Axes | Sequence[Axes] | None = None) -> list[Axes]:
        """Forest plot: a panel per term, a line per source with its interval, the truth as a vertical line.

        By default the effects and paths that at least one fit has, or else the first eight terms (extra ``plots``).
        ``ax`` takes as many Axes as there are terms.

        Raises
        ------
        EffectError
            Unknown term.
        """
        drawn = (self.long["kind"] != TRUTH) & self.long["estimate"].notna()
        there = list(dict.fromkeys(self.long.loc[drawn, "term"]))
        if terms is None:
            chosen = [term for term in EFFECTS if term in there and term != "direct"] or there[:8]
        else:
            chosen = [terms] if isinstance(terms, str) else check_list(terms, "terms", "names of terms")
        unknown = [term for term in chosen if not isinstance(term, str) or term not in there]
        if unknown or not chosen:
            found = f"no term {shown(unknown[0])} to draw" if unknown else "no terms to draw"
            raise EffectError(f"{found}; there are {', '.join(there)}")
        rows = self.long[self.long["term"].isin(chosen)]
        return plot_comparison(rows, terms=chosen, sources=self.sources, level=self.level, ax=ax)

    def __repr__(self) -> str:
        return f"Comparison({len(self.terms)} terms; {', '.join(self.sources)})"

    def __str__(self) -> str:
        return _text(self)

    def _repr_html_(self) -> str:
        return as_html(str(self))


def compare(
    *fits: Comparable,
    names: Sequence[str] | None = None,
    truth: Any = None,
    published: Mapping[str, Any] | None = None,
    terms: Sequence[str] | Mapping[str, str] | None = None,
    level: float = 0.95,
) -> Comparison:
    """Compare fits of any kind with each other, with the truth, and with published numbers.

    Terms have the same name in every kind of fit: the paths ``a``, ``b``, ``cprime``, ``cov_ab`` and the effects
    ``indirect``, ``direct``, ``total`` (ACME, ADE and total effect of ``causal``), then fixed effects ``m~x`` and
    variances ``var(m~x)``, ``cov(m~x,y~m)``, ``var(m~Residual)``.

    Parameters
    ----------
    *fits : Results
        Fits of any function of the package.
    names : sequence of str, optional
        Their columns; by default the ``label`` of each fit, such as ``joint REML``.
    truth : mapping or simulated data, optional
        Population values by term, or the value of ``simulate.bpg``.
    published : mapping, optional
        Column name -> mapping of term -> a number, a pair (estimate, standard error), or a mapping with some of
        ``estimate``, ``std_error``, ``conf_low``, ``conf_high``. Numbers may be text, as printed.
    terms : sequence or mapping, optional
        Only these; a mapping labels expressions, ``{"sd(a_j)": "sqrt(var(m~x))"}``, evaluated (as by ``nlcom``) for
        every fit that has the names.
    level : float
        Coverage of the intervals, a proportion.

    Returns
    -------
    Comparison

    Raises
    ------
    EffectError
        Nothing to compare, names that do not match, a term that no fit has, or a published value that is not a number.

    Examples
    --------
    >>> import mlmed
    >>> formulas = "Med ~ X + (1 | group)", "y ~ Med + X + (1 | group)"
    >>> data = mlmed.datasets.load("yuan_mackinnon_sim")
    >>> fits = mlmed.mediate(*formulas, data), mlmed.piecewise(*formulas, data)
    >>> mlmed.compare(*fits, names=["joint", "apart"], terms=["indirect"]).table.round(3).values.tolist()
    [[-0.041, -0.041]]
    """
    level = check_level(level)
    if not fits:
        raise EffectError("compare() needs at least one fit, as in compare(joint, piecewise)")
    for fit in fits:
        if isinstance(fit, type) or not hasattr(fit, "comparable"):
            found = f"the class {fit.__name__}" if isinstance(fit, type) else type(fit).__name__
            raise EffectError(
                f"compare() takes fits of mediate, mixed, piecewise, causal or location_scale; found {found}"
            )
    if terms is not None and not isinstance(terms, Mapping):
        terms = [terms] if isinstance(terms, str) else check_list(terms, "terms", "names of terms")
    if terms is not None and not len(terms):
        raise EffectError("terms is empty; leave it out to see every term, or name some, as in terms=['indirect']")
    published = check_mapping(published, "published", "{'brms': {'indirect': -0.13}}")
    columns = labels_of(fits, names)
    rows = fit_rows(fits, columns, terms, level)
    given = [given_rows(TRUTH, TRUTH, truth_values(truth))] if truth is not None else []
    given += [given_rows(str(name), "published", values) for name, values in published.items()]
    long = pd.concat([part for part in [*given, *rows] if len(part)], ignore_index=True)
    ordered = list(terms) if terms is not None else list(dict.fromkeys(pd.concat([*rows, *given])["term"]))
    long = long[long["term"].isin(ordered)]
    order = long["term"].map({term: k for k, term in enumerate(ordered)})
    long = long.loc[order.sort_values(kind="stable").index].reset_index(drop=True)
    sources = (*([TRUTH] if truth is not None else []), *map(str, published), *columns)
    twice = [name for name, count in Counter(sources).items() if count > 1]
    if twice:
        raise EffectError(f"two columns have the name {twice[0]!r}; rename one of them (names=, published=)")
    return Comparison(long, tuple(ordered), sources, level)


def _text(comparison: Comparison) -> str:
    """Estimates with their standard errors in brackets, a column per source."""
    estimates, errors = comparison.table, comparison.std_errors
    cells = {name: [_cell(e, s) for e, s in zip(estimates[name], errors[name], strict=True)] for name in estimates}
    heading = "Comparison: estimates (standard errors)"
    width = max(map(len, comparison.terms))
    table = pd.DataFrame(cells, index=[term.ljust(width) for term in comparison.terms])
    return "\n".join([heading, table.to_string(justify="right"), *_notes(comparison)])


def _notes(comparison: Comparison) -> list[str]:
    """List the notes on effects, each once with its sources and terms."""
    rows = comparison.long[comparison.long["term"].isin(EFFECTS) & (comparison.long["note"] != "")]
    lines = []
    for note, part in rows.groupby("note", sort=False):
        sources, terms = (", ".join(dict.fromkeys(part[name])) for name in ("source", "term"))
        text = f"{terms} ({sources}): {note}"
        lines += textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="      ")
    return lines


def _cell(estimate: float, error: float) -> str:
    if np.isnan(estimate):
        return "-"
    shown = format_number(float(estimate), 5)
    return shown if np.isnan(error) else f"{shown} ({format_number(float(error), 4)})"


class Comparable(Protocol):
    """A source of estimates for a comparison."""

    @property
    def label(self) -> str:
        """Name of its column."""
        ...

    def comparable(self, *, level: float = 0.95) -> pd.DataFrame:
        """Its estimates under the names that all fits share (``indirect``, ``m~x``, ``var(m~x)``).

        Effects that the model does not define are NaN (``missing_effects``).
        """
        ...

    def combined(self, expression: str, *, level: float = 0.95) -> pd.DataFrame:
        """Evaluate a function of these estimates, one row; EffectError if it lacks a name."""
        ...


def missing_effects(reason: str, terms: Sequence[str] = EFFECTS) -> pd.DataFrame:
    """Rows of ``Comparable.comparable`` for effects that a model does not define: NaN, and the reason."""
    return pd.DataFrame({"term": list(terms)}).reindex(columns=list(COLUMNS)).assign(note=reason)


def labels_of(fits: Sequence[Comparable], names: Sequence[str] | None) -> list[str]:
    """Name one column per fit; equal names are numbered."""
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
    """Look terms up in each fit, in the columns of ``Comparison.long``.

    Expressions are evaluated for fits that have their names; others have no row.

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
    """Look up one term or expression of a fit; without its names no row, and the reason in ``reasons``."""
    if text in set(table["term"]):
        return table[table["term"] == text]
    try:
        return fit.combined(text, level=level)
    except EffectError as error:
        reasons.setdefault(text, str(error))
        return pd.DataFrame(columns=["term", *KEPT])


def truth_values(truth: Any) -> Mapping[str, Any]:
    """Return population values by term, from a mapping or from simulated data."""
    if isinstance(truth, Mapping):
        return truth
    source = getattr(truth, "truth", truth)
    values = {name: getattr(source, name) for name in EFFECTS if hasattr(source, name)}
    if not values:
        raise EffectError(f"truth must be a mapping of term to value, or simulated data; found {type(truth).__name__}")
    return {**values, "direct": values["cprime"]} if "cprime" in values else values


def given_rows(column: str, kind: str, values: Any) -> pd.DataFrame:
    """Put given numbers in the columns of ``Comparison.long``."""
    if not isinstance(values, Mapping):
        raise EffectError(f"{column} must be a mapping of term to value; found {type(values).__name__}")
    rows = [{"term": term, **_given(column, term, value), "note": ""} for term, value in values.items()]
    return pd.DataFrame(rows, columns=["term", *KEPT]).assign(source=column, kind=kind)


def _given(column: str, term: str, value: Any) -> dict[str, float]:
    """Read a number, a pair (estimate, standard error) or a mapping."""
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
