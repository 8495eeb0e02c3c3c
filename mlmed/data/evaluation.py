"""Evaluate expressions of formulas: one walk over the syntax tree, for columns in memory and in engines.

A third side, ``Reading``, computes nothing and records how an expression uses its columns.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import pandas as pd
from formulaic.transforms import TRANSFORMS, ContrastsRegistry
from formulaic.transforms.contrasts import Contrasts, CustomContrasts, TreatmentContrasts
from numpy.typing import NDArray

from mlmed.allowed import CODINGS, CONTRASTS, FUNCTIONS, MATRICES, METHODS, NUMPY, STATEFUL, Number, numbers_of
from mlmed.data.operations import OPERATIONS
from mlmed.names import FUNCTIONS as RESERVED
from mlmed.names import display_name
from mlmed.syntax import arguments_of, check_expression

#: Errors that users' expressions raise inside NumPy, pandas and formulaic's splines and contrasts.
EVALUATION_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NameError,
    NotImplementedError,
    TypeError,
    ValueError,
)
#: Operators by their keys in the table of operations.
_SIGNS: dict[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**",
    ast.BitAnd: "&", ast.BitOr: "|", ast.USub: "u-", ast.UAdd: "u+",
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tree:
    """A checked expression."""

    text: str  #: The expression as formulaic writes it, with safe names.
    body: ast.expr  #: Its syntax tree.
    numbers: dict[int, Number]  #: Values of constant nodes, by identity of the node.


@lru_cache(maxsize=4096)
def tree_of(expression: str) -> Tree:
    """The checked tree of an expression.

    Raises ``FormulaError``: it has syntax that formulas do not have (``mlmed.syntax``).
    """
    tree = check_expression(expression)
    return Tree(expression, tree.body, numbers_of(tree, display_name(expression)))


class Side(Protocol):
    """A place of columns, with its implementation of the operations."""

    def column(self, name: str) -> Any:
        """A column by its safe name."""

    def apply(self, key: str, operands: Sequence[Any], words: dict[str, Any]) -> Any:
        """Apply an operation of ``OPERATIONS``."""

    def remembered(self, call: str, function: str, operand: Any, words: dict[str, Any]) -> Any:
        """Apply a function that remembers the rows of the fit, such as ``center()``."""

    def coded(self, function: str, operand: Any, words: dict[str, Any]) -> Any:
        """Make a factor by ``C()`` or ``hashed()``."""


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """A factor."""

    values: Any  #: The values to be coded.
    contrasts: Contrasts  #: How levels become columns.
    levels: tuple[Any, ...] | None = None  #: All levels, if they were named.
    spans_intercept: bool = True  #: Whether indicators of all levels add up to the constant.
    is_remembered: bool = True  #: Whether the levels are taken from the rows of the fit.


def evaluate(tree: Tree, side: Side) -> Any:
    """The value of an expression on one side."""
    return _value(tree.body, tree.numbers, side)


def _value(node: ast.expr, numbers: dict[int, Number], side: Side) -> Any:
    if id(node) in numbers:
        return numbers[id(node)]
    if isinstance(node, ast.Name):
        return side.column(node.id)
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Call):
        return _called(node, numbers, side)
    if isinstance(node, ast.UnaryOp):
        key, operands = _SIGNS[type(node.op)], [node.operand]
    elif isinstance(node, ast.BinOp):
        key, operands = _SIGNS[type(node.op)], [node.left, node.right]
    elif isinstance(node, ast.Compare):
        key, operands = _SIGNS[type(node.ops[0])], [node.left, *node.comparators]
    else:
        raise TypeError(f"{ast.unparse(node)} has no value")
    return side.apply(key, [_value(operand, numbers, side) for operand in operands], {})


def _called(node: ast.Call, numbers: dict[int, Number], side: Side) -> Any:
    key, takes, base = _function(node)
    nodes, literals = arguments_of(node, takes)
    twice = [word.arg for word in node.keywords if word.arg in takes.words[: max(len(node.args) - takes.data, 0)]]
    if twice:
        raise TypeError(f"{key}() got multiple values for argument {twice[0]!r}")
    operands = [_value(operand, numbers, side) for operand in (*base, *nodes)]
    words = {name: _argument(name, value, numbers) for name, value in literals.items()}
    if key == "I":
        return operands[0]
    if key in ("C", "hashed"):
        return side.coded(key, operands[0], words)
    if key in STATEFUL:
        return side.remembered(ast.unparse(node), key, operands[0], words)
    return side.apply(key, operands, words)


def _function(node: ast.Call) -> tuple[str, Any, list[ast.expr]]:
    """The key of a call in the table of operations, its arguments, and the object of a method."""
    function = node.func
    if isinstance(function, ast.Name):
        return function.id, FUNCTIONS[function.id], []
    assert isinstance(function, ast.Attribute)  # checked before
    if isinstance(function.value, ast.Name) and function.value.id in RESERVED:
        return f"np.{function.attr}", NUMPY[function.attr], []
    return f".{function.attr}", METHODS[function.attr], [function.value]


def _argument(name: str, node: ast.expr, numbers: dict[int, Number]) -> Any:
    """A literal, or the coding of a factor."""
    called = node.func if isinstance(node, ast.Call) else node
    if id(node) in numbers:
        return numbers[id(node)]
    if name != "contrasts" or not isinstance(called, ast.Name | ast.Attribute):
        return _literal(node, numbers)
    takes = CODINGS
    if isinstance(called, ast.Name):
        coding = TRANSFORMS[called.id]
    else:
        of_numpy = isinstance(called.value, ast.Name) and called.value.id == "np"
        coding = getattr(np if of_numpy else ContrastsRegistry, called.attr)
        takes = MATRICES if of_numpy else CONTRASTS
    if not isinstance(node, ast.Call):
        return coding
    key = called.id if isinstance(called, ast.Name) else called.attr
    _, literals = arguments_of(node, takes[key])
    return coding(**{word: _literal(value, numbers) for word, value in literals.items()})


def _literal(node: ast.expr, numbers: dict[int, Number]) -> Any:
    if id(node) in numbers:
        return numbers[id(node)]
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(one, numbers) for one in node.elts]
    assert isinstance(node, ast.Constant)  # checked before
    return node.value


@dataclass(frozen=True, slots=True)
class Plain:
    """A plain column, by its safe name."""

    name: str


@dataclass(slots=True, eq=False)
class Reading:
    """A side that computes nothing (results are None) and records how an expression uses its columns."""

    #: Plain columns inside C(); None for computed levels, as in ``C(x > 0)``.
    factors: list[str | None] = field(default_factory=list)
    #: (str, list): Comparisons: the operation, and its columns and literals.
    compared: list[tuple[str, list[Any]]] = field(default_factory=list)
    #: Columns used in arithmetic or by a function of numbers.
    computed: list[str] = field(default_factory=list)
    #: Calls of functions that remember the rows of the fit, such as ``center(x)``.
    calls: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)  #: Names of those functions, and ``hashed``.
    #: Whether the value of a row depends on other rows being encoded (those of the fit apart).
    looks_at_other_rows: bool = False
    width: int = 1  #: Least number of columns of a basis.

    def column(self, name: str) -> Plain:
        """A plain column."""
        return Plain(name)

    def apply(self, key: str, operands: Sequence[Any], words: dict[str, Any]) -> None:
        """Comparisons may have columns of levels, arithmetic may not."""
        operation = OPERATIONS[key]
        self.looks_at_other_rows |= not operation.is_rowwise
        if operation.takes == "alike" or key == ".between":
            self.compared.append((key, [*operands, *words.get("test_elements", ()), *words.get("values", ())]))
        elif key != "np.where":
            given = operands[1:] if key.startswith(".") else operands  # the object of a method may have levels
            self.computed += [one.name for one in given if isinstance(one, Plain)]

    def remembered(self, call: str, function: str, operand: Any, words: dict[str, Any]) -> None:
        """A function of numbers, with its number of columns if that is given."""
        self.calls.add(call)
        self.functions.add(function)
        self.computed += [operand.name] if isinstance(operand, Plain) else []
        sizes = (words.get("df"), words.get("degree"))
        self.width = max(self.width, *(size for size in sizes if isinstance(size, int)), 1)

    def coded(self, function: str, operand: Any, words: dict[str, Any]) -> None:
        """A factor of a plain column or a computed one."""
        if function == "hashed":
            self.functions.add(function)
            self.width = max(self.width, words["levels"])
        else:
            self.factors.append(operand.name if isinstance(operand, Plain) else None)


@lru_cache(maxsize=4096)
def reading_of(expression: str) -> Reading:
    """How an expression uses its columns; if it cannot be evaluated, up to that point."""
    found = Reading()
    with suppress(*EVALUATION_ERRORS):
        evaluate(tree_of(expression), found)
    return found


@dataclass(slots=True, eq=False)
class Memory:
    """Columns of a table under safe names, and values of expressions, each computed once."""

    columns: Mapping[str, pd.Series]  #: Numbers as float64, levels as ``category``.
    index: pd.Index | NDArray[np.intp]  #: Labels of the rows.
    #: State of functions such as ``center()``, by their call; learned from the columns where it is missing.
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    _found: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, table: pd.DataFrame) -> Memory:
        """The columns of a table with safe names."""
        return cls({str(name): column for name, column in table.items()}, table.index)

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.index)

    def value(self, text: str, *, is_column: bool) -> Any:
        """The value of a column or an expression."""
        if text not in self._found:
            if is_column and text not in self.columns:
                raise NameError(f"`{text}` is not present in the dataset or evaluation context.")
            self._found[text] = self.column(text) if is_column else evaluate(tree_of(text), self)
        return self._found[text]

    def column(self, name: str) -> Any:
        """An array of numbers, or a Series of levels."""
        if name not in self.columns:
            raise NameError(f"name {name!r} is not defined")
        series = self.columns[name]
        return series.to_numpy() if isinstance(series.dtype, np.dtype) and series.dtype.kind in "biufc" else series

    def apply(self, key: str, operands: Sequence[Any], words: dict[str, Any]) -> Any:
        """Apply an operation to arrays; levels stay a Series."""
        made = OPERATIONS[key].memory(*operands, **words)
        if isinstance(made, pd.Series) and isinstance(made.dtype, np.dtype):
            return made.to_numpy()
        return made

    def remembered(self, call: str, function: str, operand: Any, words: dict[str, Any]) -> Any:
        """Formulaic's splines, polynomials and shifts."""
        made: Callable[..., Any] = TRANSFORMS[function]
        return made(operand, **words, _state=self.states.setdefault(call, {}))

    def coded(self, function: str, operand: Any, words: dict[str, Any]) -> Coded:
        """A factor; its columns are made once its levels are known."""
        asked = words.get("contrasts")
        coding = TreatmentContrasts() if asked is None else asked() if inspect.isclass(asked) else asked
        coding = coding if isinstance(coding, Contrasts) else CustomContrasts(coding)
        spans = bool(words.get("spans_intercept", function == "C"))
        if function == "hashed":
            made = TRANSFORMS["hashed"](operand, words["levels"])
            levels = tuple(range(words["levels"]))
            return Coded(made.__wrapped__, coding, levels, spans, is_remembered=False)
        values = operand.values if isinstance(operand, Coded) else operand
        known = tuple(words["levels"]) if words.get("levels") is not None else None
        return Coded(values, coding, known, spans)
