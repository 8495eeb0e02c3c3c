"""Formula columns as narwhals expressions, computed by the engine that holds the rows."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw

from mlmed.data.evaluation import evaluate, tree_of
from mlmed.data.layout import Known
from mlmed.data.operations import OPERATIONS, Operation
from mlmed.data.terms import Encoding, Piece, TermColumn
from mlmed.errors import FormulaError
from mlmed.names import display_name, safe_name


class UntranslatedError(FormulaError):
    """An engine does not compute a function as NumPy does: rows have to be fetched."""


def variable_expression(name: str) -> nw.Expr:
    """A numeric or boolean column as double precision."""
    return nw.col(safe_name(name)).cast(nw.Float64)


def _told(text: str, why: str) -> str:
    return (
        f"the term {display_name(text)} cannot be computed by the engine that holds the rows ({why}); make it a column "
        "there, or collect the data into memory first"
    )


@dataclass(frozen=True, slots=True)
class _Value:
    """An expression of an engine."""

    expression: Any  #: Double precision, truth values or text.
    kind: str  #: {"number", "truth", "text"}.
    name: str = ""  #: The name, if it is a plain column.


_Operand = _Value | float | str


@dataclass(frozen=True, slots=True)
class _Engine:
    """The side of an engine: known facts of its columns, and the term being translated, for messages."""

    known: Known
    text: str

    def _refuse(self, why: str) -> FormulaError:
        return FormulaError(_told(self.text, why))

    def column(self, name: str) -> _Value:
        shown = display_name(name)
        if shown in self.known.levels and isinstance(self.known.levels[shown][0], str):
            return _Value(nw.col(name).cast(nw.String), "text", shown)
        return _Value(variable_expression(shown), "number", shown)

    def apply(self, key: str, operands: Sequence[_Operand], words: dict[str, Any]) -> _Value:
        truths = [isinstance(one, _Value) and one.kind == "truth" for one in operands]
        if all(truths):
            key = {"+": "|", "*": "&", "u-": "np.logical_not", "u+": "I"}.get(key, key)
        if key == "I":
            return operands[0]  # type: ignore[return-value]  # a truth value
        operation = OPERATIONS[key]
        not_translated = f"the function {key.removeprefix('np.').removeprefix('.')}() is not translated"
        if not operation.is_rowwise:
            raise self._refuse(not_translated)
        if operation.engine is None or (all(truths) and key in ("-", "/", "**")):
            raise UntranslatedError(_told(self.text, not_translated))
        if key in "&|" and not any(truths):
            raise UntranslatedError(_told(self.text, f"{key} is translated for truth values only"))
        given = self._given(operation, operands)
        made = operation.engine(*given, **words)
        if operation.takes == "alike":
            made = _as_with_nan(made, operands, is_unequal=key in ("!=", "np.not_equal", ".ne"))
        return _Value(made, "truth" if operation.is_truth else "number")

    def _given(self, operation: Operation, operands: Sequence[_Operand]) -> list[Any]:
        """Convert operands to the kinds that an operation takes."""
        if operation.takes == "truths":
            return [self._truth(one) for one in operands]
        if operation.takes == "choice":
            return [self._truth(operands[0]), *map(self.number, operands[1:])]
        texts = [isinstance(one, str) or (isinstance(one, _Value) and one.kind == "text") for one in operands]
        if operation.takes == "alike" and all(texts):
            return [nw.lit(one) if isinstance(one, str) else one.expression for one in operands]  # type: ignore[union-attr]
        return list(map(self.number, operands))

    def number(self, operand: _Operand) -> Any:
        if isinstance(operand, int | float):
            return nw.lit(float(operand))
        if isinstance(operand, str) or operand.kind == "text":
            raise self._refuse(f"{operand if isinstance(operand, str) else operand.name} is text")
        return _as_number(operand)

    def _truth(self, operand: _Operand) -> Any:
        if isinstance(operand, _Value) and operand.kind == "truth":
            return operand.expression
        return self.number(operand) != 0.0

    def remembered(self, call: str, function: str, operand: _Operand, words: dict[str, Any]) -> _Value:
        if function not in ("center", "scale") or words:
            raise self._refuse(f"the function {function}() is not translated")
        if not isinstance(operand, _Value) or operand.name not in self.known.spread:
            raise self._refuse(f"{function}() is translated for a plain column only")
        centred = operand.expression - float(self.known.typical[operand.name])
        return _Value(centred / self.known.spread[operand.name] if function == "scale" else centred, "number")

    def coded(self, function: str, operand: _Operand, words: dict[str, Any]) -> _Value:
        if function != "C":
            raise self._refuse(f"the function {function}() is not translated")
        return self.factor(operand)

    def factor(self, operand: _Operand) -> _Value:
        """A column whose levels are known."""
        if not isinstance(operand, _Value) or operand.name not in self.known.levels:
            raise self._refuse("only C(column) is translated")
        return operand


def _as_number(value: _Value) -> Any:
    if value.kind == "truth":
        return nw.when(value.expression).then(nw.lit(1.0)).otherwise(nw.lit(0.0))
    return value.expression


def _as_with_nan(made: Any, operands: Sequence[_Operand], *, is_unequal: bool) -> Any:
    """Compare NaN as in memory (never larger or equal); engines sort it behind all numbers."""
    for one in operands:
        if isinstance(one, _Value) and one.kind == "number" and not one.name:
            is_nan = one.expression.is_nan()
            made = made | is_nan if is_unequal else made & ~is_nan
    return made


def column_expressions(encoding: Encoding, known: Known) -> dict[str, nw.Expr]:
    """Expression of every column of an encoding except the intercept, by its name."""
    return {column.name: _product(column, encoding, known) for column in encoding.columns if column.pieces}


def _product(column: TermColumn, encoding: Encoding, known: Known) -> nw.Expr:
    made: Any = None
    for piece in column.pieces:
        one = _piece(piece, encoding, known)
        made = one if made is None else made * one
    return made if column.scale == 1 else made * float(column.scale)


def _piece(piece: Piece, encoding: Encoding, known: Known) -> Any:
    """A numeric expression such as ``np.log(x)`` or ``I(x**2 + w)``, or a column of the coding of a factor.

    Raises ``UntranslatedError``: it uses a function that engines do not compute as NumPy does; ``FormulaError``: it
    needs all rows, as splines do.
    """
    side = _Engine(known, piece.factor)
    value = evaluate(tree_of(piece.factor), side)
    if not piece.is_level:
        return side.number(value)
    column, levels = side.factor(value).expression, encoding.levels[piece.factor]
    if piece.weights is None:
        return _indicator(column, levels[piece.at])
    weighted = [(level, float(weight)) for level, weight in zip(levels, piece.weights, strict=True) if weight]
    return functools.reduce(operator.add, [weight * _indicator(column, level) for level, weight in weighted])


def _indicator(column: Any, level: Any) -> Any:
    is_level = column == (level if isinstance(level, str) else float(level))
    return nw.when(is_level).then(nw.lit(1.0)).otherwise(nw.lit(0.0))


def is_translated(encoding: Encoding, known: Known) -> bool:
    """Whether an engine computes every column; otherwise its rows have to be fetched.

    Raises ``FormulaError``: a column can neither be translated nor computed batch by batch: a function needs all rows,
    or levels are computed.
    """
    found = True
    for piece in {piece.factor: piece for column in encoding.columns for piece in column.pieces}.values():
        try:
            _piece(piece, encoding, known)
        except UntranslatedError:
            found = False
    return found
