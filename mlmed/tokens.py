"""Formulas as formulaic's tokens: reading them, and one spelling of every term."""

from __future__ import annotations

import ast

from formulaic.errors import FormulaicError
from formulaic.parser.algos.tokenize import tokenize  # not public: tests/test_formula.py watches it
from formulaic.parser.types import Token

from mlmed.errors import FormulaError
from mlmed.names import display_name

__all__ = ["first_line", "is_token", "refuse_duplicates", "tokens_of"]


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
