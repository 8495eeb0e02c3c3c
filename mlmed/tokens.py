"""Formulas as formulaic's tokens: reading them, one spelling of every term, products that would vanish."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from formulaic.errors import FormulaicError
from formulaic.parser import DefaultFormulaParser
from formulaic.parser.algos.tokenize import tokenize  # not public: tests/test_formula.py watches it
from formulaic.parser.types import ASTNode, Factor, Term, Token

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
        repeated = sorted({str(factor.expr) for factor in _repeated_factors(node)})
        if repeated:
            symbol, power = node.operator.symbol, node.args[1]
            degree = power.token if symbol in _POWERS and isinstance(power, Token) else "2"
            base = "*".join(map(quoted_name, repeated))
            shown = display_name(":".join(repeated))
            raise FormulaError(
                f"{whole!r} multiplies {shown} by itself ({symbol}), which formulas read as {shown} alone; write "
                f"I({base if len(repeated) == 1 else f'({base})'}**{degree}) for the power, or each term once"
            )


def _products(tree: Token | ASTNode[Term] | None) -> Iterator[ASTNode[Term]]:
    """Products and powers anywhere in a formula, the outermost first."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ASTNode):
            waiting += node.args
            if node.operator.symbol in (*_POWERS, *_PRODUCTS):
                yield node


def _repeated_factors(node: ASTNode[Term]) -> set[Factor]:
    """Factors of both operands of a product, or of the only term that a power above 1 is taken of."""
    left, right = node.args
    if node.operator.symbol in _PRODUCTS:
        return set().union(*_factors(left)) & set().union(*_factors(right))
    terms = _factors(left)
    once = isinstance(right, Token) and right.token == "1"
    return terms[0] if len(terms) == 1 and not once else set()


def _factors(operand: Token | ASTNode[Term]) -> list[set[Factor]]:
    """Factors of every term of an operand, numbers left out."""
    found = [{f for f in term.factors if f.eval_method.value != "literal"} for term in operand.to_terms()]
    return [factors for factors in found if factors]
