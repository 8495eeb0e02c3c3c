"""The layout of columns: names, positions, encodings, rows left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.columns import Column
from mlmed.data.terms import Encoding
from mlmed.errors import DataError
from mlmed.formula import Equation, formula_of
from mlmed.names import display_name, labelled, quoted_name, safe_name
from mlmed.system.system import System
from mlmed.text import Compact

INTERCEPT = "Intercept"
T = TypeVar("T")
Array = NDArray[np.float64]


def column_labels(keys: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Labels of columns in messages: the expression, prefixed by the equation where only one has these numbers.

    Examples
    --------
    >>> column_labels([("", "Intercept"), ("", "x"), ("y", "center(x)")])
    ('1', 'x', 'y~center(x)')
    """
    shown = [(owner, "1" if name == INTERCEPT else display_name(name)) for owner, name in keys]
    return tuple(labelled(owner, name) for owner, name in shown)


@dataclass(frozen=True, slots=True)
class Dropped:
    """Rows an equation could not use."""

    equation: str  #: The response.
    #: Rows of the table, rows of the equation.
    total: int
    used: int
    missing_cluster: int  #: Rows without a cluster id.
    missing: dict[str, int]  #: Missing values by column, among rows with a cluster id.

    def __str__(self) -> str:
        """One sentence."""
        reasons = [f"{name}: {count}" for name, count in self.missing.items()]
        if self.missing_cluster:
            reasons.append(f"cluster id: {self.missing_cluster}")
        return (
            f"equation {self.equation}: {self.total - self.used} of {self.total} rows left out "
            f"(missing {', '.join(reasons)})"
        )


@dataclass(frozen=True, slots=True, repr=False)
class Known(Compact):
    """Summaries of the variables of an equation over its rows."""

    typical: dict[str, Any]  #: Mean of every numeric variable, first level of every other one.
    spread: dict[str, float]  #: Standard deviation of every numeric variable.
    levels: dict[str, tuple[Any, ...]]  #: Levels of factors: text, or numbers inside C().
    #: Observed values of transformed numeric variables, ascending; of many a part, with the smallest, the largest and
    #: the neighbours of the mean.
    observed: dict[str, tuple[float, ...]]

    def only(self, names: frozenset[str]) -> Known:
        """The summaries of the named variables."""

        def own(part: dict[str, T]) -> dict[str, T]:
            return {name: part[name] for name in sorted(part.keys() & names)}

        return Known(own(self.typical), own(self.spread), own(self.levels), own(self.observed))


@dataclass(frozen=True, slots=True, repr=False)
class EquationLayout(Known):
    """Positions of an equation's columns, summaries of its variables, and encodings for new data."""

    name: str  #: The response.
    #: Column labels of X_r and Z_r (all random terms side by side).
    fixed: tuple[str, ...]
    random: tuple[str, ...]
    terms: tuple[int, ...]  #: The random term each column of Z_r belongs to.
    encodings: tuple[Encoding, ...]  #: Of the fixed part and of each random term.
    #: Positions among ``Layout.columns``; none without Grams.
    fixed_at: tuple[int, ...] = ()
    random_at: tuple[int, ...] = ()
    response_at: int = 0  #: Position of y_r.

    @classmethod
    def of(cls, name: str, encodings: Sequence[Encoding], known: Known) -> EquationLayout:
        """The layout of an equation without column positions; ``name``: as shown."""
        random = [(t, column) for t, encoding in enumerate(encodings[1:]) for column in encoding.column_names]
        return cls(
            *(known.typical, known.spread, known.levels, known.observed),
            name=name,
            fixed=tuple(map(display_name, encodings[0].column_names)),
            random=tuple(display_name(column) for _, column in random),
            terms=tuple(t for t, _ in random),
            encodings=tuple(encodings),
        )

    def placed(self, at: Mapping[str, int], response: str) -> EquationLayout:
        """The same with positions of columns by name; ``response``: name of the response column."""
        fixed, *random = (tuple(at[name] for name in encoding.column_names) for encoding in self.encodings)
        return replace(self, fixed_at=fixed, random_at=tuple(chain(*random)), response_at=at[response])

    @property
    def places(self) -> list[tuple[int, ...]]:
        """Positions of the columns of each encoding."""
        at = iter((*self.fixed_at, *self.random_at))
        return [tuple(islice(at, len(encoding.column_names))) for encoding in self.encodings]

    def column_of(self, variable: str) -> int | None:
        """Position among ``Layout.columns`` of the untransformed variable; None if there is none."""
        numbers = [name for encoding in self.encodings for name in encoding.column_names]
        places = dict(zip(numbers, (*self.fixed_at, *self.random_at), strict=True))
        return places.get(safe_name(variable))


@dataclass(frozen=True, slots=True, repr=False)
class Layout(Compact):
    """Everything about the columns that is kept without rows."""

    asked: tuple[Equation, ...]  #: The equations as asked for.
    columns: tuple[str, ...]  #: Distinct columns of all equations, the constant first.
    equations: tuple[EquationLayout, ...]  #: One per response.
    dropped: tuple[Dropped, ...]  #: Equations that lost rows.
    total: int  #: Rows of the table.

    @property
    def used(self) -> NDArray[np.bool_]:
        """Which equation uses which column, (R, K)."""
        out = np.zeros((len(self.equations), len(self.columns)), dtype=bool)
        for r, equation in enumerate(self.equations):
            out[r, [0, equation.response_at, *equation.fixed_at, *equation.random_at]] = True
        return out


@dataclass(frozen=True, slots=True, repr=False)
class Design(Compact):
    """Columns of all equations on the rows that at least one equation uses."""

    layout: Layout  #: Names and positions.
    #: (N,): The columns, mostly zero ones as ``SparseColumn``; undefined on rows that no equation with the column uses.
    values: tuple[Column, ...]
    members: NDArray[np.bool_]  #: (R, N): Rows that each equation uses.
    codes: NDArray[np.intp]  #: (N,): Cluster of each row.
    clusters: pd.Index  #: Cluster ids.
    at: NDArray[np.intp]  #: (N,): Position of each row in the table.


#: An equation and the encodings of its fixed part and of each of its random terms.
Part = tuple[Equation, Sequence[Encoding]]
#: Identity of a column: the factors of its term, and formulaic's name, in which a level can look like an interaction.
_Meaning = tuple[frozenset[str], str]


def refuse_alike(parts: Iterable[Part]) -> None:
    """Refuse two different columns, variables or responses of a model that have the same label.

    Without encodings only terms of the formula are compared, not levels.
    """
    known: dict[str, _Meaning] = {}
    for equation, encodings in parts:
        for meaning in _meanings(equation, encodings):
            label = display_name(meaning[1])
            first = known.setdefault(label, meaning)
            if first != meaning:
                raise _alike(label, _written(first), _written(meaning))


def refuse_likeness(spec: System, equations: Sequence[EquationLayout]) -> None:
    """Refuse columns of one model that have the same label, and coefficients that have the same name."""
    refuse_alike(zip(spec.equations, (own.encodings for own in equations), strict=True))
    for part in ("fixed", "random"):
        _refuse_same_labels((own.name, getattr(own, part)) for own in equations)


def _refuse_same_labels(equations: Iterable[tuple[str, Iterable[str]]]) -> None:
    """Refuse equations whose labels collide: w in the equation a~b, and b~w in the equation a."""
    known: dict[str, str] = {}
    for name, labels in equations:
        for label in labels:
            whole = labelled(name, label)
            first = known.setdefault(whole, name)
            if first != name:
                raise _alike(whole, f"a coefficient of the equation {first}", f"one of the equation {name}")


def _meanings(equation: Equation, encodings: Sequence[Encoding]) -> Iterator[_Meaning]:
    texts = (equation.fixed, *(term.formula for term in equation.random))
    terms = [(term, [":".join(f.expr for f in term.factors)]) for text in texts for term in formula_of(text)]
    terms += [(part.term, [c.name for c in part.columns]) for encoding in encodings for part in encoding.parts]
    for term, names in terms:
        factors = frozenset(factor.expr for factor in term.factors if factor.eval_method.value != "literal")
        if not factors:  # the constant
            continue
        yield from ((factors, name) for name in names)
    columns = {equation.response, *map(safe_name, equation.predictors | equation.response_columns)}
    yield from ((frozenset({name}), name) for name in sorted(columns))


def _written(meaning: _Meaning) -> str:
    factors, name = meaning
    shown = quoted_name(name)
    if shown == f"`{display_name(name)}`":
        return f"the column {shown}"
    if len(factors) > 1:
        return f"the interaction {shown}"
    return f"the term {shown}" if name in factors else f"{shown} of the factor {quoted_name(min(factors))}"


def _alike(label: str, first: str, second: str) -> DataError:
    return DataError(
        f"{first} and {second} would both be called {label} in the results, where neither could be told from the "
        "other; rename a column (or recode a level)"
    )
