"""Formulas as formulaic's tokens: reading them, one spelling of every term, products that would vanish."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from formulaic.errors import FormulaicError
from formulaic.parser import DefaultFormulaParser
from formulaic.parser.algos.tokenize import tokenize  # not public: tests/test_formula.py watches it
from formulaic.parser.types import ASTNode, Term, Token

from mlmed.errors import FormulaError
from mlmed.names import display_name, quoted_name

__all__ = ["first_line", "is_token", "refuse_duplicates", "refuse_squares", "tokens_of"]

_POWERS = ("**", "^")
_PRODUCTS = ("*", ":", "/", "in")


def first_line(error: Exception) -> str:
    """Formulaic underlines the place with terminal colours; the first line says what is wrong."""
    return str(error).strip().splitlines()[0]


def tokens_of(text: str, whole: str) -> list[Token]:
    """Tokens of a part of a formula; FormulaError, which names the whole, if it cannot be read."""
    try:
        found = list(tokenize(text))
    except FormulaicError as error:
        raise FormulaError(f"cannot read {whole!r}: {first_line(error)}; check the formula") from error
    if "{" in text:
        raise FormulaError(f"cannot read {whole!r}: write I(...) in place of braces, and random terms in parentheses")
    return found


def is_token(token: Token, kind: str, *texts: str) -> bool:
    """Whether a token is of a kind, and one of the texts."""
    return token.kind.value == kind and (not texts or token.token in texts)


def refuse_duplicates(text: str, whole: str) -> None:
    """Formulaic drops repetitions silently, whatever their spelling; a mistake should be seen."""
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
    if token.kind.value != "python":
        return token.token
    try:
        return ast.unparse(ast.parse(token.token, mode="eval"))
    except SyntaxError:
        return token.token


def _canonical_piece(piece: list[str]) -> str:
    while len(piece) > 2 and piece[0] == "(" and piece[-1] == ")" and "(" not in piece[1:-1]:
        piece = piece[1:-1]
    if ":" in piece and not {"(", "*", "^", "**", "/"} & set(piece):
        return ":".join(sorted(part for part in piece if part != ":"))
    return "".join(piece)


def refuse_squares(text: str, whole: str) -> None:
    """Formulaic reads a factor times itself (``x**2``, ``x*x``, ``x:x``) as the factor alone; a mistake should be seen.

    A power of a sum stays what it is: the interactions of its terms up to that order.

    Raises
    ------
    FormulaError
        If a factor is multiplied by itself, or the text cannot be read.
    """
    try:
        tree = DefaultFormulaParser().get_ast(text)
    except (FormulaicError, SyntaxError) as error:
        raise FormulaError(f"cannot read {whole!r}: {first_line(error)}; check the formula") from error
    for node in _products(tree):
        repeated = _repeated(node)
        if repeated:
            raise FormulaError(f"{whole!r} {_said_of_square(repeated, node)}")


def _said_of_square(repeated: list[Term], node: ASTNode[Term]) -> str:
    """What is multiplied by itself, and what to write; C() is a factor, other names may be numbers."""
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


def _repeated(node: ASTNode[Term]) -> list[Term]:
    """What a product or power multiplies by itself: a term that is both operands, or factors that both have."""
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
