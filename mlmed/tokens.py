"""Formulas as formulaic's tokens: read them, and refuse repeated terms, squares and explosions of products."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from formulaic.errors import FormulaicError
from formulaic.parser import DefaultFormulaParser
from formulaic.parser.algos.tokenize import tokenize  # not public: tests/formula/test_formula.py checks it
from formulaic.parser.types import ASTNode, Term, Token

from mlmed.errors import FormulaError
from mlmed.habits import hint_for_text
from mlmed.limits import MAX_ORDER, MAX_PRODUCTS, MAX_TERMS, MAX_TOKENS
from mlmed.names import decoded, display_name, quoted_name
from mlmed.syntax import check_column, check_expression, check_number
from mlmed.text import shown

_POWERS = ("**", "^")
#: Counting of products stops here.
COUNTED = 10**9
_PRODUCTS = ("*", ":", "/", "in")


#: Formulaic's message on numbers beside terms, and ours.
_SCALED = ("different numerical scaling", "can only be used to scale other terms")
_SCALE = "a number beside a term makes no other model; arithmetic stands inside I(), as in I(2*x) or I((x > 0)*1)"


def said_by_formulaic(error: Exception, text: str) -> str:
    """Formulaic's message on a part of a formula, with the user's names and a remedy.

    Only its first line is used; the others underline the place with terminal colours.
    """
    said = str(error).strip().splitlines()[0]
    if any(part in said for part in _SCALED):
        return _SCALE
    if "quote context" in said:
        return "a backtick or quotation mark is not closed; check the formula"
    return hint_for_text(text, inside=False) or f"{decoded(said)}; check the formula"


@lru_cache(maxsize=1024)
def tokens_of(text: str, whole: str) -> tuple[Token, ...]:
    """Tokens of a part of a formula, each checked; nothing is evaluated. ``whole``: the formula, for messages.

    Raises ``FormulaError``: the part cannot be read, is too long or too deep, or has an expression with anything but
    columns, numbers and listed functions (``mlmed.syntax``).
    """
    try:
        found = tuple(tokenize(text))
    except FormulaicError as error:
        raise FormulaError(f"cannot read {quoted_name(whole)!r}: {said_by_formulaic(error, text)}") from error
    if "{" in text:
        raise FormulaError(f"cannot read {whole!r}: write I(...) in place of braces, and random terms in parentheses")
    if len(found) > MAX_TOKENS:
        raise FormulaError(
            f"cannot read {shown(display_name(whole))}: it has {len(found)} names, numbers and signs, and at most "
            f"{MAX_TOKENS} are read (mlmed.limits.MAX_TOKENS); make a factor or a score of several columns"
        )
    for token in found:
        if token.kind.value == "python":
            check_expression(token.token, whole)
        elif token.kind.value == "value" and not token.token.startswith(("'", '"')):
            check_number(token.token, whole)
        elif token.kind.value == "name":
            check_column(token.token, whole)
    return found


def is_token(token: Token, kind: str, *texts: str) -> bool:
    """Whether a token has a kind and one of the texts."""
    return token.kind.value == kind and (not texts or token.token in texts)


def refuse_duplicates(text: str, whole: str) -> None:
    """Refuse repeated terms in any spelling, which formulaic drops silently."""
    seen: set[str] = set()
    for piece in _top_level_sum(text, whole):
        if piece in seen:
            raise FormulaError(f"{whole!r} has the term {display_name(piece)} twice; write it once")
        seen.add(piece)


def _top_level_sum(text: str, whole: str) -> list[str]:
    """Terms of a plain sum in one spelling."""
    pieces: list[list[str]] = [[]]
    depth = 0
    for token in tokens_of(text, whole):
        if token.kind.value == "context":
            depth += 1 if token.token == "(" else -1
        if depth == 0 and is_token(token, "operator", "+", "-"):
            pieces.append(["-"] if token.token == "-" else [])
        else:
            pieces[-1].append(_canonical(token))
    return [_canonical_piece(piece) for piece in pieces if piece]


def _canonical(token: Token) -> str:
    return ast.unparse(check_expression(token.token)) if token.kind.value == "python" else token.token


def _canonical_piece(piece: list[str]) -> str:
    while len(piece) > 2 and piece[0] == "(" and piece[-1] == ")" and "(" not in piece[1:-1]:
        piece = piece[1:-1]
    if ":" in piece and not {"(", "*", "^", "**", "/"} & set(piece):
        return ":".join(sorted(part for part in piece if part != ":"))
    return "".join(piece)


def refuse_squares(text: str, whole: str) -> None:
    """Refuse a factor times itself (``x**2``, ``x*x``, ``x:x``), which formulaic reads as the factor alone.

    A power of a sum is allowed: the interactions of its terms up to that order. A number times a factor (``2:x``) is
    refused, too: a column in another unit under the name of the factor.

    Raises ``FormulaError``: if a factor is multiplied by itself or by a number, or the text cannot be read.
    """
    for node in _products(_tree(text, whole)):
        if node.operator.symbol in _PRODUCTS and any(_is_scale(operand) for operand in node.args):
            raise FormulaError(f"cannot read {quoted_name(whole)!r}: {_SCALE}")
        repeated = _repeated(node)
        if repeated:
            raise FormulaError(f"{whole!r} {_said_of_square(repeated, node)}")


def _tree(text: str, whole: str) -> Token | ASTNode[Term] | None:
    tokens_of(text, whole)
    try:
        return DefaultFormulaParser().get_ast(text)
    except (FormulaicError, SyntaxError) as error:
        raise FormulaError(f"cannot read {quoted_name(whole)!r}: {said_by_formulaic(error, text)}") from error


@dataclass(frozen=True, slots=True)
class _Size:
    """Bounds for a part of a formula: number of terms, products before merging, variables of the longest term."""

    terms: int
    products: int
    order: int


def refuse_explosion(text: str, whole: str) -> int:
    """Refuse a side of a formula with too many terms once products are expanded; returns their number.

    Terms are counted, not built.

    Raises ``FormulaError``: beyond ``MAX_TERMS``, ``MAX_PRODUCTS`` or ``MAX_ORDER``; or a power is no whole number.

    Examples
    --------
    >>> refuse_explosion("a*b + c", "y ~ a*b + c")
    5
    """
    tree = _tree(text, whole)
    sizes: dict[int, _Size] = {}
    for node in reversed(_nodes(tree)):  # operands first
        if isinstance(node, ASTNode) and node.operator.symbol in _POWERS and not _is_whole(node.args[1]):
            raise FormulaError(
                f"cannot read {shown(display_name(whole))}: the right-hand argument of {node.operator.symbol} must "
                "be a positive integer; inside I() it is a power of numbers"
            )
        sizes[id(node)] = size = _size(node, sizes)
        for found, bound, counted in (
            (size.terms, MAX_TERMS, "terms"),
            (size.products, MAX_PRODUCTS, "products"),
            (size.order, MAX_ORDER, "variables in one interaction"),
        ):
            if found > bound:
                raise FormulaError(
                    f"cannot use {shown(display_name(whole))}: written out it has {_count(found)} {counted}, and "
                    f"at most {bound} are allowed (mlmed.limits); write the interactions that are meant, or make a "
                    "factor or a score of several columns before the fit"
                )
    return sizes[id(tree)].terms if tree is not None else 0


def _is_whole(power: Token | ASTNode[Term]) -> bool:
    return isinstance(power, Token) and power.token.isascii() and power.token.isdigit() and int(power.token) > 0


def _count(n: int) -> str:
    return str(n) if n <= COUNTED else f"more than {COUNTED}"


def _nodes(tree: Token | ASTNode[Term] | None) -> list[Token | ASTNode[Term]]:
    """Every node, parents first."""
    found = [] if tree is None else [tree]
    for node in found:
        if isinstance(node, ASTNode):
            found += node.args
    return found


def _size(node: Token | ASTNode[Term], sizes: dict[int, _Size]) -> _Size:
    if not isinstance(node, ASTNode):
        return _Size(1, 1, 0 if node.kind.value == "value" else 1)
    symbol = node.operator.symbol
    parts = [sizes[id(part)] for part in node.args]
    if len(parts) == 1:
        return parts[0]
    left, right = parts
    products = left.products + right.products
    if symbol in _POWERS:
        return _size_of_power(left, node.args[1])
    if symbol in ("*", ":"):
        made = left.terms * right.terms
        kept = left.terms + right.terms if symbol == "*" else 0
        return _Size(made + kept, products + made, left.order + right.order)
    if symbol in ("/", "in"):
        outer, inner = (left, right) if symbol == "/" else (right, left)
        return _Size(outer.terms + inner.terms, products + inner.terms, outer.terms + inner.order)
    return _Size(left.terms + right.terms, products, max(left.order, right.order))


def _size_of_power(base: _Size, power: Token | ASTNode[Term]) -> _Size:
    """Size of a power: (a + b + c)**k has 3**k products; distinct ones have 1 to k of the variables."""
    k = min(int(power.token), MAX_PRODUCTS) if isinstance(power, Token) else 1
    if base.terms == 1:
        return _Size(1, base.products + k, base.order)
    made = base.terms**k if k * math.log(base.terms) < math.log(COUNTED) else COUNTED + 1
    terms = sum(math.comb(base.terms, j) for j in range(1, min(k, base.terms) + 1)) if made <= COUNTED else 1
    return _Size(terms, base.products + made, base.order * min(k, base.terms))


def _said_of_square(repeated: list[Term], node: ASTNode[Term]) -> str:
    """The message on a factor multiplied by itself; C() is a factor, other names may be numbers."""
    symbol, power = node.operator.symbol, node.args[1]
    degree = power.token if symbol in _POWERS and isinstance(power, Token) else "2"
    shown = " and ".join(display_name(_spelled(term, ":")) for term in repeated)
    numbers = [
        _spelled(term, "*") if len(term.factors) == 1 else f"({_spelled(term, '*')})"
        for term in repeated
        if not any(factor.expr.startswith("C(") for factor in term.factors)
    ]
    powers = " and ".join(f"I({base}**{degree})" for base in map(quoted_name, numbers))
    several = f"write {powers} for the power of a number (a factor has none), or each term once"
    advice = several if powers else "a factor has no power, so write each term once"
    themselves = "itself" if len(repeated) == 1 else "themselves"
    return f"multiplies {shown} by {themselves} ({symbol}), which formulas read as {shown} alone; {advice}"


def _spelled(term: Term, symbol: str) -> str:
    return symbol.join(factor.expr for factor in term.factors)


def _products(tree: Token | ASTNode[Term] | None) -> Iterator[ASTNode[Term]]:
    """Products and powers anywhere in a formula, the outermost first."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ASTNode):
            waiting += node.args
            if node.operator.symbol in (*_POWERS, *_PRODUCTS):
                yield node


def _is_scale(operand: Token | ASTNode[Term]) -> bool:
    return isinstance(operand, Token) and operand.kind.value == "value" and operand.token not in ("0", "1")


def _repeated(node: ASTNode[Term]) -> list[Term]:
    """Terms that a product or power multiplies by themselves: equal operands, or factors in both."""
    left, right = node.args
    terms = _terms(left)
    if node.operator.symbol not in _PRODUCTS:
        once = isinstance(right, Token) and right.token == "1"
        return terms if len(terms) == 1 and not once else []
    others = _terms(right)
    if len(terms) == len(others) == 1 and set(terms[0].factors) == set(others[0].factors):
        return terms
    there = {factor for term in others for factor in term.factors}
    return [Term([f]) for f in dict.fromkeys(f for term in terms for f in term.factors) if f in there]


def _terms(operand: Token | ASTNode[Term]) -> list[Term]:
    """Terms of an operand, numbers left out."""
    found = [[f for f in term.factors if f.eval_method.value != "literal"] for term in operand.to_terms()]
    return [Term(factors) for factors in found if factors]
