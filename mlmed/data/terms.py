"""Terms of a formula -> columns: which columns a term has (formulaic's algebra), and their numbers.

A column is a product of pieces, one for each factor of its term: numbers, an indicator or coding of a level, or a
column of a basis. Learned state (levels, means, knots) encodes new rows and builds expressions for engines.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from formulaic import Formula
from formulaic.materializers import PandasMaterializer
from formulaic.materializers.types import EvaluatedFactor, FactorValues
from formulaic.parser.types import Factor, Term
from formulaic.transforms.contrasts import TreatmentContrasts
from formulaic.utils.cast import as_columns
from numpy.typing import NDArray

from mlmed.data.columns import MOSTLY_ZERO, Column, SparseColumn
from mlmed.data.evaluation import EVALUATION_ERRORS, Coded, Memory, reading_of

Array = NDArray[np.float64]

INTERCEPT = "Intercept"


class UnknownLevelError(LookupError):
    """A factor has values that are not among its levels."""


class FactorError(ValueError):
    """An expression cannot be evaluated."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One column of a factor."""

    factor: str  #: The expression.
    #: Position of the level of an indicator, or name of a column of a basis; None for numbers.
    at: Any = None
    weights: Array | None = None  #: (levels,): The column of a coding that is no indicator, by level.
    is_level: bool = False  #: Whether the factor has levels.


@dataclass(frozen=True, slots=True, eq=False)
class TermColumn:
    """A column: ``scale`` times the product of its pieces."""

    name: str
    scale: float
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A term and its columns."""

    term: Term
    columns: tuple[TermColumn, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """One right-hand side with the state learned from the rows of the fit."""

    formula: Formula  #: The right-hand side.
    parts: tuple[Part, ...]  #: Its terms and their columns.
    levels: Mapping[str, tuple[Any, ...]]  #: Levels of factors, by their expressions.
    states: dict[str, dict[str, Any]]  #: State of functions such as ``center()`` and ``bs()``, by their calls.
    column_names: tuple[str, ...]  #: With safe names; the constant is ``Intercept``.

    @property
    def terms(self) -> list[Term]:
        """Terms of the formula."""
        return list(self.formula)

    @property
    def columns(self) -> Iterator[TermColumn]:
        """Columns in their order."""
        return (column for part in self.parts for column in part.columns)

    @property
    def term_slices(self) -> dict[Term, slice]:
        """Positions of the columns of each term."""
        ends = np.cumsum([0, *(len(part.columns) for part in self.parts)]).tolist()
        return {part.term: slice(a, b) for part, a, b in zip(self.parts, ends[:-1], ends[1:], strict=True)}


@dataclass(frozen=True, slots=True, eq=False)
class _Basis:
    """Several columns of numbers from one call."""

    columns: dict[Hashable, Any]
    spans_intercept: bool
    drop: Any
    formats: tuple[str, str]


def _known(value: Any) -> Any:
    """A value of an expression as a factor, a basis, or numbers."""
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return value
    if isinstance(value, Coded):
        return value
    bare = value.__wrapped__ if isinstance(value, FactorValues) else value
    if isinstance(bare, pd.Series | pd.Categorical):
        return Coded(bare, TreatmentContrasts())
    columns = as_columns(value)
    if not isinstance(columns, dict):
        return bare
    told = getattr(columns, "__formulaic_metadata__", None)
    if told is None:
        return _Basis(dict(columns), False, None, ("{name}[{field}]",) * 2)
    formats = (told.format, told.format_reduced or told.format)
    return _Basis(dict(columns), told.spans_intercept, told.drop_field, formats)


def learn_terms(formula: Formula, memory: Memory) -> Encoding:
    """Learn the encoding of a right-hand side from rows in memory."""
    factors = {factor.expr: factor for term in formula for factor in term.factors}
    found = {text: _known(_evaluated(factor, memory)) for text, factor in factors.items() if not _is_number(factor)}
    levels = {text: _learned_levels(value) for text, value in found.items() if isinstance(value, Coded)}
    spans = tuple((text, _spans(value)) for text, value in found.items())
    asked = tuple(tuple(factor.expr for factor in term.factors) for term in formula)
    literals = frozenset(text for text, factor in factors.items() if _is_number(factor))
    parts = []
    for term, scopes in zip(formula, _scoped(asked, spans, literals), strict=True):
        columns: dict[str, TermColumn] = {}
        for scale, scoped in scopes:
            pieces = [_pieces(text, found[text], levels.get(text, ()), reduced=reduced) for text, reduced in scoped]
            columns |= {column.name: column for column in _products(scale, pieces)}
        parts.append(Part(term, tuple(columns.values())))
    names = tuple(column.name for part in parts for column in part.columns)
    remembered = {text: known for text, known in levels.items() if found[text].is_remembered}
    states = {}
    if memory.states:
        calls = frozenset().union(
            *(reading_of(text).calls for text, factor in factors.items() if is_expression(factor))
        )
        states = {call: state for call, state in memory.states.items() if call in calls}
    return Encoding(formula, tuple(parts), remembered, states, names)


def is_expression(factor: Factor) -> bool:
    """Whether a factor is computed (neither a plain column nor a number)."""
    return bool(factor.eval_method.value == "python")


def _is_number(factor: Factor) -> bool:
    return bool(factor.eval_method.value == "literal")


def _evaluated(factor: Factor, memory: Memory) -> Any:
    try:
        return memory.value(factor.expr, is_column=not is_expression(factor))
    except EVALUATION_ERRORS as error:
        said = f"Unable to evaluate factor `{factor}`. [{type(error).__name__}: {error}]"
        raise FactorError(said) from error


def _spans(value: Any) -> bool:
    return bool(value.spans_intercept) if isinstance(value, Coded | _Basis) else False


@lru_cache(maxsize=1024)
def _scoped(
    asked: tuple[tuple[str, ...], ...], spans: tuple[tuple[str, bool], ...], literals: frozenset[str]
) -> tuple[tuple[tuple[float, tuple[tuple[str, bool], ...]], ...], ...]:
    """The products that make the columns of every term: a scale, and for each factor whether its rank is reduced.

    Formulaic's algebra: redundant columns are left out.
    """
    algebra = PandasMaterializer(pd.DataFrame())
    values = {text: FactorValues(float(text), kind="constant") for text in literals}
    values |= {text: FactorValues(0, kind="numerical", spans_intercept=spanning) for text, spanning in spans}
    factors = {text: Factor(text) for text in values}
    algebra.factor_cache = {text: EvaluatedFactor(factor=factors[text], values=own) for text, own in values.items()}
    terms = [Term([factors[text] for text in term]) for term in asked]
    return tuple(
        tuple((one.scale, tuple((f.factor.expr, f.reduced) for f in one.factors)) for one in scopes)
        for _, scopes in algebra._get_scoped_terms(terms)  # not public: tests/data/test_terms.py checks it
    )


def _learned_levels(value: Coded) -> tuple[Any, ...]:
    if value.levels is not None:
        _codes(value, value.levels)
        return value.levels
    return tuple(pd.Series(value.values).astype("category").cat.categories)


def _pieces(text: str, value: Any, levels: tuple[Any, ...], *, reduced: bool) -> list[tuple[str, Piece]]:
    """Names and columns of a factor."""
    if isinstance(value, Coded):
        return _coded_pieces(text, value, levels, reduced=reduced)
    if isinstance(value, _Basis):
        kept = [key for key in value.columns if not (reduced and value.spans_intercept and key == value.drop)]
        return [(value.formats[reduced].format(name=text, field=key), Piece(text, key)) for key in kept]
    return [(text, Piece(text))]


def _coded_pieces(text: str, value: Coded, levels: Sequence[Any], *, reduced: bool) -> list[tuple[str, Piece]]:
    coding, known = value.contrasts, list(levels)
    if not known or (len(known) == 1 and reduced):
        return []
    form = coding.get_factor_format(known, reduced_rank=reduced)
    names = [form.format(name=text, field=one) for one in coding.get_coding_column_names(known, reduced_rank=reduced)]
    if isinstance(coding, TreatmentContrasts):
        base = coding._find_base_index(known) if reduced else None
        return [
            (name, Piece(text, k, is_level=True))
            for name, k in zip(names, (k for k in range(len(known)) if k != base), strict=True)
        ]
    weights = np.asarray(coding.get_coding_matrix(known, reduced_rank=reduced), dtype=np.float64)
    return [(name, Piece(text, None, weights[:, k], is_level=True)) for k, name in enumerate(names)]


def _products(scale: float, factors: Sequence[Sequence[tuple[str, Piece]]]) -> Iterator[TermColumn]:
    """All products of one column per factor; the first factor varies fastest, as in R."""
    if not factors:
        yield TermColumn(INTERCEPT, scale, ())
        return
    for chosen in product(*reversed(factors)):
        pieces = chosen[::-1]
        yield TermColumn(":".join(name for name, _ in pieces), scale, tuple(piece for _, piece in pieces))


def term_columns(encoding: Encoding, memory: Memory, *, sparse: bool = False) -> list[Column]:
    """Numbers of the columns, (n,) each; ``sparse``: store columns of levels without zeros if most are zero.

    Raises ``UnknownLevelError``: a factor has values that are not among its levels.
    """
    factors = {factor.expr: factor for term in encoding.formula for factor in term.factors if not _is_number(factor)}
    values = {text: _known(_evaluated(factor, memory)) for text, factor in factors.items()}
    codes = {text: _codes(v, _levels(encoding, text, v)) for text, v in values.items() if isinstance(v, Coded)}
    rows = {text: _rows_of_levels(found) for text, found in codes.items()} if sparse else {}
    made = [_column(column, values, codes, rows, memory.n) for column in encoding.columns]
    if any(column.shape != (memory.n,) for column in made):
        raise ValueError("all input arrays must have the same shape")
    return made


def _levels(encoding: Encoding, text: str, value: Coded) -> tuple[Any, ...]:
    known = encoding.levels.get(text, value.levels)
    return known if known is not None else ()


def _codes(value: Coded, levels: Sequence[Any]) -> NDArray[np.intp]:
    """Position of every value among the levels, (n,)."""
    data = value.values
    has_levels = isinstance(data, pd.Series) and isinstance(data.dtype, pd.CategoricalDtype)
    if has_levels and tuple(data.cat.categories) == tuple(levels):
        return np.asarray(data.cat.codes, dtype=np.intp)
    if set(pd.unique(pd.Series(data))).difference(levels):
        raise UnknownLevelError
    return np.asarray(pd.Categorical(data, categories=list(levels)).codes, dtype=np.intp)


def _rows_of_levels(codes: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Rows of each level, ascending."""
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes + 1)
    return np.split(order, np.cumsum(counts)[:-1])[1:] if len(counts) else []


def _column(
    column: TermColumn,
    values: Mapping[str, Any],
    codes: Mapping[str, NDArray[np.intp]],
    rows: Mapping[str, list[NDArray[np.intp]]],
    n: int,
) -> Column:
    indicators = [piece for piece in column.pieces if piece.factor in rows and piece.weights is None]
    others = [piece for piece in column.pieces if piece not in indicators]
    if not indicators:
        return _product(column.scale, [_numbers(piece, values, codes) for piece in others], n)
    first, *more = indicators
    known = rows[first.factor]
    at = known[first.at] if first.at < len(known) else np.empty(0, dtype=np.intp)
    for piece in more:
        at = at[codes[piece.factor][at] == piece.at]
    given = [_numbers(piece, values, codes) for piece in others]
    numbers = _product(column.scale, [one[at] if one.ndim else one for one in given], len(at))
    is_zero = numbers == 0.0
    if is_zero.any():
        at, numbers = at[~is_zero], numbers[~is_zero]
    made = SparseColumn(at, numbers, n)
    return made if len(at) <= MOSTLY_ZERO * n else np.asarray(made)


def _product(scale: float, numbers: Iterable[Array], n: int) -> Array:
    found: Array | None = None
    for one in numbers:
        found = one if found is None else found * one
    if found is None:
        return np.full(n, float(scale))
    return found if scale == 1 else scale * found


def _numbers(piece: Piece, values: Mapping[str, Any], codes: Mapping[str, NDArray[np.intp]]) -> Array:
    """A piece on all rows."""
    if piece.is_level:
        own = codes[piece.factor]
        if piece.weights is None:
            return np.asarray(own == piece.at, dtype=np.float64)
        return np.where(own < 0, 0.0, piece.weights[own])
    value = values[piece.factor]
    return _real(value.columns[piece.at] if isinstance(value, _Basis) else value)


def _real(numbers: Any) -> Any:
    found = np.asarray(numbers)
    return found if np.iscomplexobj(found) else found.astype(np.float64, copy=False)
