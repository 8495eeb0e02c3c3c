"""Check the syntax of expressions in formulas before anything is evaluated.

Formulas are data, not Python: numbers, columns, arithmetic, comparisons, ``&`` and ``|``, and calls listed in
``mlmed.allowed``. All other Python is refused, with a remedy.
"""

from __future__ import annotations

import ast
import builtins
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

from mlmed.allowed import (
    CODINGS,
    CONTRASTS,
    FUNCTIONS,
    LITERALS,
    MATRICES,
    METHODS,
    NUMPY,
    OTHER_ROWS,
    STATEFUL,
    Number,
    Takes,
    is_kind,
    numbers_of,
)
from mlmed.errors import FormulaError
from mlmed.habits import CALLS, hint_for_attribute, hint_for_module, hint_for_text
from mlmed.limits import (
    MAX_BASIS,
    MAX_CHARACTERS,
    MAX_DEPTH,
    MAX_EXPRESSION,
    MAX_INTEGER,
    MAX_NAME,
    MAX_NESTED,
    MAX_NUMBER,
)
from mlmed.names import FUNCTIONS as RESERVED
from mlmed.names import display_name
from mlmed.text import cut, shown

_ARITHMETIC = (
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.BitAnd, ast.BitOr,
)  # fmt: skip
_COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
#: R's names of truth values.
_TRUTH = {"TRUE": "True", "T": "True", "FALSE": "False", "F": "False"}
#: Literal arguments that set a number of columns or digits.
_SIZES = frozenset({"N", "decimals", "degree", "df", "knots", "levels", "ndigits"})
#: numpy's functions under bare names; applied to a number their result has bounded size.
NUMPY_TOO = frozenset({"exp", "exp2", "log", "log2", "log10"})
_TOLD = (
    "formulas take columns, numbers, arithmetic, comparisons, & and |, and the functions and methods of "
    "docs/formulas.md; make the column before the fit"
)
_INSTEAD = "check it, or make the column before the fit"
_NO_COLUMN = "write the number itself, or name the column"
_CHECK = "docs/formulas.md has what functions take"
#: Overlong names, in backticks or not, and runs of signs.
_LONG = re.compile(rf"[\w.]{{{MAX_NAME + 1},}}|`[^`]{{{MAX_NAME + 1},}}`|[^\w\s]{{{MAX_NAME + 1},}}")
#: Python syntax that formulas do not have, in words.
_SYNTAX = {
    ast.Subscript: "square brackets",
    ast.Lambda: "lambda",
    ast.IfExp: "if ... else (write np.where())",
    ast.JoinedStr: "an f-string",
    ast.NamedExpr: ":=",
    ast.Starred: "*",
    ast.Await: "await",
    ast.Yield: "yield",
    ast.YieldFrom: "yield",
    ast.ListComp: "a comprehension",
    ast.SetComp: "a comprehension",
    ast.DictComp: "a comprehension",
    ast.GeneratorExp: "a comprehension",
    ast.List: "a list that is no argument",
    ast.Tuple: "a list that is no argument",
    ast.Set: "a set",
    ast.Dict: "a dictionary",
    ast.Slice: "a slice",
}


def depends_on_other_rows(shown: str, where: str) -> FormulaError:
    """The error for a term whose value in a row depends on other rows."""
    return FormulaError(
        f"{shown} in {where} takes its value in a row from other rows (a mean, a rank, a lag, a "
        "group): new rows would give it another meaning. Use center() or scale(), which remember the rows of the fit, "
        "or make it a column before the fit"
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """An expression during its check."""

    #: The expression and its formula, for messages.
    shown: str
    whole: str
    numbers: dict[int, Number]  #: Values of constant nodes, by identity of the node.

    def refuse(self, found: str, instead: str = _TOLD) -> NoReturn:
        raise FormulaError(f"cannot use {shown(self.shown)}: {found}; {instead}")

    def check_attribute(self, name: str) -> None:
        """Refuse an attribute; the message says if it would use other rows."""
        if instead := hint_for_attribute(name):
            self.refuse(f"a formula cannot ask for .{name}", instead)
        if name in OTHER_ROWS:
            raise depends_on_other_rows(self.shown, repr(self.whole))
        self.refuse(f"a formula cannot ask for .{name}")


def check_size(text: str, instead: str = "make the inner part a column before the fit") -> None:
    """Refuse a formula that is too long or too deeply nested.

    ``text``: the formula, or an expression; ``instead``: the remedy for too many brackets.

    Raises ``FormulaError``: it has more than ``MAX_CHARACTERS`` letters, or more than ``MAX_NESTED`` open brackets.
    """
    if len(text) > MAX_CHARACTERS:
        raise FormulaError(
            f"cannot read {shown(text)}: it has {len(text)} letters, and at most {MAX_CHARACTERS} are read "
            "(mlmed.limits.MAX_CHARACTERS); make a factor or a score of several columns before the fit"
        )
    depth = 0
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        if depth > MAX_NESTED:
            raise FormulaError(
                f"cannot read {shown(text)}: more than {MAX_NESTED} brackets are open at one place (mlmed.limits."
                f"MAX_NESTED); {instead}"
            )


def check_names(text: str) -> None:
    """Refuse overlong names in a formula as typed."""
    if long := _LONG.search(text):
        raise FormulaError(
            f"cannot read {shown(text)}: a name, or signs without a name between them, have more than {MAX_NAME} "
            f"letters ({shown(long[0])}; mlmed.limits.MAX_NAME); write a shorter one"
        )


def check_number(text: str, whole: str) -> None:
    """Refuse an out-of-bounds number outside expressions, as in ``1e200:x``."""
    try:
        size = abs(float(text))
    except ValueError:  # formulaic reports it
        return
    if size > MAX_NUMBER or (text.isdecimal() and size > MAX_INTEGER):
        raise FormulaError(
            f"cannot use {shown(display_name(whole))}: the number {shown(text)} is beyond {MAX_NUMBER:g}, or a "
            "whole number beyond 64 bits (mlmed.limits); change the unit of the column before the fit"
        )


def check_column(name: str, whole: str) -> None:
    """Refuse Python's reserved names, unless in backticks."""
    if name.startswith("__"):
        raise FormulaError(f"cannot read {shown(display_name(whole))}: a column called {name} is written `{name}`")


def _has_comment(expression: str) -> bool:
    """Whether an expression has a Python comment; a # inside quotation marks is text."""
    try:
        found = list(tokenize.generate_tokens(io.StringIO(expression).readline))
    except (tokenize.TokenError, SyntaxError):  # the parser reports it
        return False
    return any(token.type == tokenize.COMMENT for token in found)


def parse_expression(expression: str, text: str = "", instead: str = _INSTEAD) -> ast.Expression:
    """The syntax tree of an expression that is neither too long nor too deep.

    ``expression``: in Python's syntax; ``text``, ``instead``: its name and the remedy, for messages.

    Raises ``FormulaError``: it is no Python expression, or beyond ``MAX_EXPRESSION``, ``MAX_NESTED`` or ``MAX_DEPTH``.
    """
    asked = shown(text or display_name(expression[:MAX_EXPRESSION]))
    if len(expression) > MAX_EXPRESSION:
        raise FormulaError(
            f"cannot read {asked}: an expression has {len(expression)} letters, and at most {MAX_EXPRESSION} are read "
            f"(mlmed.limits.MAX_EXPRESSION); {instead}"
        )
    check_size(expression)
    deep = (
        f"cannot read {asked}: more than {MAX_DEPTH} operations inside each other (mlmed.limits.MAX_DEPTH); {instead}"
    )
    if "#" in expression and _has_comment(expression):
        raise FormulaError(f"cannot read {asked}: what follows # would be left out; {instead}")
    try:
        tree = ast.parse(expression, mode="eval")
    except (SyntaxError, ValueError) as error:
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        hint = hint_for_text(expression, inside=True) or f"{said}; {instead}"
        raise FormulaError(f"cannot read {asked}: {hint}") from error
    except (RecursionError, MemoryError) as error:  # Python's parser: nested too deeply
        raise FormulaError(deep) from error
    level: list[ast.AST] = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    if level:
        raise FormulaError(deep)
    return tree


def check_expression(expression: str, whole: str = "") -> ast.Expression:
    """Refuse an expression with anything but columns, numbers and listed functions.

    Nothing is evaluated, no data are read.

    ``expression``: for example ``"np.log(x + 1)"``, without backticks (``mlmed.names.encode_quoted``); ``whole``: its
    formula, for messages.

    Returns
    -------
    ast.Expression
        Its syntax tree.

    Examples
    --------
    >>> tree = check_expression("np.log(x + 1)")
    >>> check_expression("x.to_csv('f')")
    Traceback (most recent call last):
        ...
    mlmed.errors.FormulaError: cannot use "x.to_csv('f')": a formula cannot ask for .to_csv; formulas take columns, ...
    """
    try:
        return _checked(expression, expression)
    except FormulaError:
        if not whole:
            raise
    return _checked(expression, whole)  # the same error, with the whole formula


@lru_cache(maxsize=4096)
def _checked(expression: str, whole: str) -> ast.Expression:
    tree = parse_expression(expression)
    check_logic(tree, expression)
    text = display_name(expression)
    asked = _Asked(text, display_name(whole), numbers_of(tree, text))
    waiting: list[ast.expr] = [tree.body]
    has_column = False
    while waiting:
        node = waiting.pop()
        has_column = has_column or isinstance(node, ast.Name)
        waiting += _operands(node, asked)
    if not has_column:
        asked.refuse("it has no column", _NO_COLUMN)
    return tree


def _operands(node: ast.expr, asked: _Asked) -> list[ast.expr]:
    """Check a node; return its operands."""
    if id(node) in asked.numbers:
        return []
    if isinstance(node, ast.Name):
        return _column(node, asked)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return []
    if isinstance(node, ast.BinOp):
        return _arithmetic(node, asked)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        return _no_text([node.operand], asked)
    if isinstance(node, ast.Compare):
        return _comparison(node, asked)
    if isinstance(node, ast.Call):
        return _call(node, asked)
    if isinstance(node, ast.Attribute):
        asked.check_attribute(node.attr)
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute):
        asked.check_attribute(node.value.attr)
    if isinstance(node, ast.Constant):
        asked.refuse(f"found {node.value!r}, which is no number and no text")
    asked.refuse(f"found {_SYNTAX.get(type(node), type(node).__name__)}")


def _column(node: ast.Name, asked: _Asked) -> list[ast.expr]:
    if node.id.startswith("__") or node.id in RESERVED:
        asked.refuse(f"{node.id} is no column here", f"a column of this name is written in backticks, `{node.id}`")
    return []


def _arithmetic(node: ast.BinOp, asked: _Asked) -> list[ast.expr]:
    if isinstance(node.op, ast.MatMult):
        asked.refuse(
            "@ is the product of matrices, one number of all rows", "write * for that of two columns, I(x * z)"
        )
    if isinstance(node.op, ast.BitXor):
        asked.refuse("^ inside an expression is Python's exclusive or", "powers are written with **, as in I(x**2)")
    if not isinstance(node.op, _ARITHMETIC):
        asked.refuse("found << or >>, which shift the digits of whole numbers")
    return _no_text([node.left, node.right], asked)


def _no_text(operands: list[ast.expr], asked: _Asked) -> list[ast.expr]:
    for operand in operands:
        if isinstance(operand, ast.Constant) and isinstance(operand.value, str):
            asked.refuse(
                f"the text {shown(operand.value)} stands in arithmetic", "write == to compare a column with it"
            )
    return operands


def _comparison(node: ast.Compare, asked: _Asked) -> list[ast.expr]:
    if len(node.ops) > 1:
        asked.refuse("a chain of comparisons is for single values", "for columns write (0 < x) & (x < 1)")
    if not isinstance(node.ops[0], _COMPARISONS):
        asked.refuse("'in' and 'is' are for single values", "for columns write x.isin([1, 2]) or x == 1")
    sides = [node.left, *node.comparators]
    if all(isinstance(side, ast.Constant) or id(side) in asked.numbers for side in sides):
        asked.refuse("it compares two constants", "write a column on one side")
    return sides


def _call(node: ast.Call, asked: _Asked) -> list[ast.expr]:
    """Check a call; return its arguments that are expressions."""
    check_call(node, asked.shown)
    function = node.func
    if isinstance(function, ast.Name):
        return _bare_call(node, function.id, asked)
    if not isinstance(function, ast.Attribute):
        asked.refuse("a function is called by its name")
    name, base = function.attr, function.value
    if isinstance(base, ast.Name) and base.id in RESERVED:
        if base.id != "np" or name not in NUMPY:
            if name in OTHER_ROWS:
                raise depends_on_other_rows(asked.shown, repr(asked.whole))
            asked.refuse(f"{base.id}.{name}() is not among the functions that formulas can call")
        return _arguments(node, NUMPY[name], f"np.{name}()", asked)
    if name not in METHODS or len(node.args) > METHODS[name].largest:
        package = hint_for_module(_root(base), name)
        if package is not None:
            asked.refuse(*package)
    if name not in METHODS:
        asked.check_attribute(name)
    return [base, *_arguments(node, METHODS[name], f".{name}()", asked)]


def _root(node: ast.expr) -> str:
    """The first name of a chain of attributes, such as ``scipy`` in ``scipy.special``; empty if it is no name."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _bare_call(node: ast.Call, name: str, asked: _Asked) -> list[ast.expr]:
    if name in CODINGS:
        asked.refuse(f"{name}() is a coding of a factor", f"write C(g, {name}())")
    if name not in FUNCTIONS:
        asked.refuse(f"the function {name}() is not among those that formulas can call")
    if name in STATEFUL:
        _refuse_odd_text(node, name, asked)
    found = _arguments(node, FUNCTIONS[name], f"{name}()", asked)
    if name not in NUMPY_TOO and all(
        isinstance(argument, ast.Constant) or id(argument) in asked.numbers for argument in found
    ):
        asked.refuse(f"{name}() has no column", _NO_COLUMN)
    return found


def _refuse_odd_text(call: ast.Call, name: str, asked: _Asked) -> None:
    """Refuse odd texts of stateful calls, whose state is stored under the text."""
    for node in ast.walk(call):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
            if not text.isprintable() or set(text) & set("'\"`\\"):
                asked.refuse(
                    f"the text {shown(text)} inside {name}() has quotation marks or signs that are not printed",
                    "make the column before the fit",
                )


def _arguments(node: ast.Call, takes: Takes, called: str, asked: _Asked) -> list[ast.expr]:
    """Check arguments; return those that are expressions (others are literals known by name)."""
    words = [word.arg for word in node.keywords]
    for k, name in enumerate(words):
        if not name or name not in (takes.first, *takes.words) or name in words[:k]:
            known = [f"{known}=" for known in (takes.first, *takes.words) if known]
            instead = f"write {' or '.join(known)}" if known else "write its arguments without names"
            asked.refuse(f"{called} has no argument {'**' if name is None else name}", instead)
    operands, literals = arguments_of(node, takes)
    given, others = len(node.args) + len(node.keywords), node.args[takes.data :]
    too_many = len(others) > len(takes.words) or given > takes.largest
    if too_many or given < takes.least or (takes.first in words and node.args[: takes.data]):
        asked.refuse(f"{called} takes {takes.counted}, and {given} {'is' if given == 1 else 'are'} given", _CHECK)
    for name, value in literals.items():
        if name != "contrasts" or not _is_coding(value, asked):
            _check_literal(value, name, called, asked)
        if name == "contrasts" and id(value) in asked.numbers:
            asked.refuse(
                f"{ast.unparse(value)} is no coding of a factor", "write contr.sum, Treatment('level') or a list"
            )
    return operands


def _is_coding(node: ast.expr, asked: _Asked) -> bool:
    """Whether an argument is the name of a coding, or one called with literals."""
    called = node.func if isinstance(node, ast.Call) else node
    if isinstance(called, ast.Name):
        known, name = CODINGS, called.id
    elif isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
        known = {"contr": CONTRASTS, "np": MATRICES}.get(called.value.id, {})
        name = called.attr
    else:
        return False
    if name not in known or (known is MATRICES and not isinstance(node, ast.Call)):
        return False
    if isinstance(node, ast.Call):
        _arguments(node, known[name], ast.unparse(called) + "()", asked)
    return True


def _check_literal(node: ast.expr, word: str, called: str, asked: _Asked) -> None:
    """Refuse a literal argument that is computed from columns, of a wrong kind, or out of bounds."""
    waiting: list[ast.expr] = [node]
    size = 0
    while waiting:
        value = waiting.pop()
        number = asked.numbers.get(id(value))
        if number is not None:
            size = max(size, int(abs(number)) if word in _SIZES - {"knots"} and number == number else 0)
        elif isinstance(value, ast.List | ast.Tuple):
            size = max(size, len(value.elts))
            waiting += value.elts
        elif isinstance(value, ast.Name) and value.id in _TRUTH:
            asked.refuse(f"the argument {word} of {called} is {value.id}, R's word", f"write {_TRUTH[value.id]}")
        elif not isinstance(value, ast.Constant) or not isinstance(value.value, str | None):
            asked.refuse(
                f"the argument {word} of {called} is no literal", "write a number, a text or a list of these there"
            )
    kinds = LITERALS.get(f"{called} {word}") or LITERALS.get(word)
    if kinds is not None and not any(is_kind(node, kind, asked.numbers) for kind in kinds):
        asked.refuse(
            f"the argument {word} of {called} is {cut(ast.unparse(node))}", f"it has to be {' or '.join(kinds)}"
        )
    if word in _SIZES and size > MAX_BASIS:
        asked.refuse(
            f"{word} of {called} is {size}, beyond {MAX_BASIS} (mlmed.limits.MAX_BASIS)", "write a smaller number"
        )


#: Codings that can be named without parentheses, as in patsy: C(g, Sum).
_BARE = sorted({*CODINGS} - {"Treatment"})

#: Methods of a column that take a type or a function, and replacements for Python's.
_TAKING = frozenset({"agg", "apply", "astype", "map", "pipe", "transform", "vectorize"})
_ARGUMENTS = {
    "float": "columns of numbers are double precision already; write the column alone",
    "int": "write np.trunc() or np.floor()",
    "str": "to make a factor of a column, write C()",
    "bool": "truth values count as 0 and 1; write a comparison, as in I(x != 0)",
    "abs": "write np.abs()",
    "round": "write np.round()",
    "len": "make a column of the lengths before the fit",
}


def arguments_of(node: ast.Call, takes: Takes) -> tuple[list[ast.expr], dict[str, ast.expr]]:
    """Arguments of a call: expressions of columns, and literals by name.

    Examples
    --------
    >>> data, words = arguments_of(ast.parse("round(x, 1)").body[0].value, Takes(1, ("decimals",)))
    >>> len(data), list(words)
    (1, ['decimals'])
    """
    named = {word.arg: word.value for word in node.keywords if word.arg is not None}
    first = [named.pop(takes.first)] if takes.first in named else []
    return [*first, *node.args[: takes.data]], {
        **dict(zip(takes.words, node.args[takes.data :], strict=False)),
        **named,
    }


def check_call(node: ast.Call, expression: str) -> None:
    """Refuse calls of unknown or misleading plain names, ``f(x)``, and methods given a Python type or function.

    ``x.astype(float)`` is such a method.
    """
    asked = shown(display_name(expression))
    if isinstance(node.func, ast.Attribute) and node.func.attr in _TAKING:
        _check_arguments(node, asked)
    if not isinstance(node.func, ast.Name):
        return
    name = node.func.id
    if name in CALLS:
        raise FormulaError(f"cannot use {asked}: {CALLS[name]}")
    if name not in RESERVED:
        raise FormulaError(
            f"cannot read {asked}: the function {name}() is unknown; use one of numpy's that docs/formulas.md lists, "
            "I(), C(), center(), scale(), poly() or bs(), or make the column before the fit"
        )
    if name == "C" and (coding := arguments_of(node, FUNCTIONS["C"])[1].get("contrasts")) is not None:
        _check_coding(coding, asked)


def _check_arguments(node: ast.Call, asked: str) -> None:
    given = [*node.args, *(word.value for word in node.keywords)]
    for name in (display_name(value.id) for value in given if isinstance(value, ast.Name)):
        if hasattr(builtins, name):
            instead = _ARGUMENTS.get(name, "make the column before the fit")
            raise FormulaError(f"cannot use {asked}: {name} is Python's and no column; {instead}")


def check_logic(tree: ast.AST, expression: str) -> None:
    """Refuse ``and``, ``or`` and ``not``, which take single values."""
    words = [
        "not" if isinstance(node, ast.Not) else "and" if isinstance(node, ast.And) else "or"
        for node in ast.walk(tree)
        if isinstance(node, ast.Not | ast.And | ast.Or)
    ]
    if words:
        asked = shown(display_name(expression))
        raise FormulaError(
            f"cannot use {asked}: {words[0]!r} is for single values; for columns 'not' is written "
            "as k != 2, 'and' as (k > 1) & (k < 5), 'or' as (k == 1) | (k == 5)"
        )


def _check_coding(coding: ast.expr, asked: str) -> None:
    known = sorted(CONTRASTS)
    called = coding.func if isinstance(coding, ast.Call) else coding
    found = ""
    if isinstance(coding, ast.Name) and coding.id not in _BARE:
        found = display_name(coding.id)
    elif isinstance(coding, ast.Constant) and coding.value is not None:
        found = repr(coding.value)
    elif isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
        base = called.value.id
        allowed = base == "np" or (base == "contr" and called.attr in known)
        found = "" if allowed else f"{display_name(base)}.{called.attr}"
    if found == "Treatment":
        raise FormulaError(
            f"cannot read {asked}: C() codes by treatment without being told, so leave Treatment out; to choose the "
            "reference write Treatment('level')"
        )
    if found:
        raise FormulaError(
            f"cannot read {asked}: {found} is no coding of a factor; write one of {', '.join(_BARE)}, or "
            f"{', '.join(f'contr.{name}' for name in known)}"
        )


def coding_names(tree: ast.AST) -> frozenset[str]:
    """Names in an expression that are codings of a factor, not columns."""
    return frozenset(coding.id for _, coding in _coded(tree) if isinstance(coding, ast.Name))


def codings_of(expression: str) -> list[tuple[str, ast.expr]]:
    """Column (safe name) and coding of every C() with a coding in an expression.

    Examples
    --------
    >>> [(column, ast.unparse(coding)) for column, coding in codings_of("C(g, Treatment('b')) + C(k)")]
    [('g', "Treatment('b')")]
    """
    found = _coded(check_expression(expression))
    return [(data.id, coding) for data, coding in found if isinstance(data, ast.Name)]


def _coded(tree: ast.AST) -> Iterator[tuple[ast.expr | None, ast.expr]]:
    """Argument and coding of every C() in an expression that has a coding."""
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "C":
            data, words = arguments_of(call, FUNCTIONS["C"])
            if "contrasts" in words:
                yield next(iter(data), None), words["contrasts"]
