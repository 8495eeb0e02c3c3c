"""lme4 and brms formula syntax -> Equation: what was asked, before any data is seen.

``m ~ x + (1 + x | id)``, ``(1 + x || id)`` (no covariances), ``(1 + x |i| id)`` (brms: effects with the same
``i`` are correlated across equations). Each part is read by formulaic; only the split at the bars is ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from formulaic import Formula
from formulaic.errors import FormulaicError
from formulaic.parser.algos.tokenize import tokenize  # not public: tests/test_formula.py watches it
from formulaic.parser.types import Factor, Token

from mlmed.errors import FormulaError

__all__ = ["Equation", "RandomTerm", "display_name", "formula_variables", "parse_equation"]


@dataclass(frozen=True, slots=True)
class RandomTerm:
    """One parenthesis ``(formula | label | group)``.

    Attributes
    ----------
    formula : str
        Right-hand side of the effects that vary, e.g. ``"1 + x"``.
    group : tuple of str
        Columns whose combination names the cluster; one for ``id``, two for ``g:h``.
    label : str or None
        brms' correlation label, None if not given.
    correlated : bool
        False for the double bar.
    """

    formula: str
    group: tuple[str, ...]
    label: str | None
    correlated: bool


@dataclass(frozen=True, slots=True)
class Equation:
    """One response and what it depends on.

    Attributes
    ----------
    text : str
        The formula as it was typed.
    response : str
        Left-hand side.
    fixed : str
        Right-hand side without the random terms.
    random : tuple of RandomTerm
        The random terms, in order.
    """

    text: str
    response: str
    fixed: str
    random: tuple[RandomTerm, ...]

    @property
    def name(self) -> str:
        """The response as it is shown in tables (no backticks)."""
        return display_name(self.response)

    @property
    def variables(self) -> frozenset[str]:
        """Columns of the table that the equation reads."""
        parts = [self.response, self.fixed, *(term.formula for term in self.random)]
        groups = (column for term in self.random for column in term.group)
        return frozenset().union(*map(formula_variables, parts), groups)


def display_name(text: str) -> str:
    """Remove the backticks of a quoted column name."""
    return text.replace("`", "")


def quote_columns(text: str, columns: Iterable[str]) -> str:
    """Put backticks around column names that are not Python names, e.g. ``np.log(NA.std)``."""
    odd = sorted((c for c in columns if not c.isidentifier()), key=len, reverse=True)
    odd = [c for c in odd if re.fullmatch(r"[\w.]+", c) and not c[0].isdigit()]
    if not odd:
        return text
    pattern = r"`[^`]*`|(?<![\w.])(?:" + "|".join(map(re.escape, odd)) + r")(?![\w.(])"
    return re.sub(pattern, lambda hit: hit[0] if hit[0].startswith("`") else f"`{hit[0]}`", text)


def parse_equation(text: str, columns: Iterable[str] = ()) -> Equation:
    """Read one two-sided formula.

    Parameters
    ----------
    text : str
        For example ``"y ~ m + x + (1 + m + x | id)"``.
    columns : iterable of str
        Column names of the data, so that names such as ``NA.std`` need no backticks.

    Raises
    ------
    FormulaError
        If the formula cannot be read or has a form that is not supported (nested groups).

    Examples
    --------
    >>> equation = parse_equation("m ~ x + (1 + x |i| id)")
    >>> equation.fixed, equation.random[0].formula, equation.random[0].label, equation.random[0].group
    ('x', '1 + x', 'i', ('id',))
    """
    if not isinstance(text, str):
        raise FormulaError(f"a formula must be text such as 'y ~ x + (1 + x | id)'; found {type(text).__name__}")
    quoted = quote_columns(text, columns)
    left, tilde, right = quoted.partition("~")
    if not tilde or not left.strip() or not right.strip() or "~" in right:
        raise FormulaError(
            f"cannot read {text!r}: an equation has one response, one '~' and a right-hand side, "
            "for example 'y ~ x + (1 + x | id)'"
        )
    if text.count("(") != text.count(")"):
        raise FormulaError(f"cannot read {text!r}: {text.count('(')} opening and {text.count(')')} closing parentheses")
    fixed, random = _split_random(right, text)
    _refuse_duplicates(fixed, random, text)
    equation = Equation(text, left.strip(), fixed, random)
    for part in (fixed, *(term.formula for term in random)):
        formula_variables(part)
    own = formula_variables(equation.response) & (
        formula_variables(fixed).union(*(formula_variables(term.formula) for term in random))
    )
    if own:
        raise FormulaError(
            f"{text!r} has its response {', '.join(sorted(own))} on its own right-hand side; remove it there"
        )
    return equation


def _first_line(error: Exception) -> str:
    """Formulaic underlines the place with terminal colours; the first line says what is wrong."""
    return str(error).strip().splitlines()[0]


def _tokens(text: str, whole: str) -> list[Token]:
    try:
        return list(tokenize(text))
    except FormulaicError as error:
        raise FormulaError(f"cannot read {whole!r}: {_first_line(error)}") from error


def _split_random(right: str, whole: str) -> tuple[str, tuple[RandomTerm, ...]]:
    """Cut the parentheses that hold a bar out of the right-hand side."""
    fixed, terms, open_at, bars = "", [], -1, False
    depth, done, sign = 0, 0, -1
    for token in _tokens(right, whole):
        start = token.source_start or 0
        if token.token == "(" and token.kind.value == "context":
            depth += 1
            open_at, bars = (start, False) if depth == 1 else (open_at, bars)
        elif token.token == ")" and token.kind.value == "context":
            depth -= 1
            if depth == 0 and bars:
                terms.append(_random_term(right[open_at + 1 : start], whole))
                cut = sign if sign >= done else open_at
                if sign >= done and right[sign] != "+":
                    raise FormulaError(f"{whole!r}: a random term can be added with '+', not {right[sign]!r}")
                fixed += right[done:cut]
                done = start + 1
        elif token.kind.value == "operator" and "|" in token.token:
            if depth == 0:
                raise FormulaError(f"{whole!r}: put the random term in parentheses, e.g. (1 + x | id)")
            bars = True
        elif depth == 0 and token.kind.value == "operator":
            sign = start
        if depth == 0 and token.kind.value != "operator":
            sign = -1
    fixed = (fixed + right[done:]).strip()
    fixed = fixed.removeprefix("+").strip() if terms else fixed
    return fixed or "1", tuple(terms)


def _random_term(text: str, whole: str) -> RandomTerm:
    cuts = [t for t in _tokens(text, whole) if t.kind.value == "operator" and "|" in t.token]
    pieces, at = [], 0
    for token in cuts:
        start = token.source_start or 0
        pieces.append(text[at:start].strip())
        at = start + len(token.token)
    pieces.append(text[at:].strip())
    signs = [token.token for token in cuts]
    if "" in pieces or signs not in (["|"], ["||"], ["|", "|"]):
        raise FormulaError(
            f"cannot read the random term ({text}) in {whole!r}: write (1 + x | id), (1 + x || id) or (1 + x |i| id)"
        )
    group = pieces[-1]
    if "/" in group or "+" in group or "*" in group:
        raise FormulaError(
            f"({text}) asks for more than one level of grouping ({group}); mlmed fits one cluster variable. "
            "Use the highest level that matters, or a combined id such as (1 | g:h)"
        )
    names = tuple(display_name(part.strip()) for part in group.split(":"))
    return RandomTerm(pieces[0], names, display_name(pieces[1]) if len(pieces) == 3 else None, signs != ["||"])


def _factor_names(text: str) -> list[Factor]:
    try:
        formula = Formula(text)
    except (FormulaicError, SyntaxError) as error:
        raise FormulaError(f"cannot read {text!r}: {_first_line(error)}") from error
    return [factor for term in formula for factor in term.factors]


def formula_variables(text: str) -> frozenset[str]:
    """Columns that one side of a formula reads.

    Examples
    --------
    >>> sorted(formula_variables("np.log(x):w + `NA.std`"))
    ['NA.std', 'w', 'x']
    """
    names: set[str] = set()
    for factor in _factor_names(text):
        if factor.eval_method.value == "lookup":
            names.add(display_name(factor.expr))
        elif factor.eval_method.value == "python":
            quoted = re.findall(r"`([^`]*)`", factor.expr)
            names.update(quoted)
            plain = Formula(re.sub(r"`[^`]*`", "0", factor.expr) if quoted else factor.expr)
            names.update(str(name) for name in plain.required_variables)
    return frozenset(names)


def _refuse_duplicates(fixed: str, random: tuple[RandomTerm, ...], whole: str) -> None:
    for text in (fixed, *(term.formula for term in random)):
        seen: set[str] = set()
        for piece in _top_level_sum(text, whole):
            if piece in seen:
                raise FormulaError(f"{whole!r} has the term {piece} twice; write it once")
            seen.add(piece)


def _top_level_sum(text: str, whole: str) -> list[str]:
    """Terms of a plain sum, as typed; only used to find repetitions, which formulaic drops silently."""
    pieces, current, depth = [], "", 0
    for token in _tokens(text, whole):
        if token.token in "()" and token.kind.value == "context":
            depth += 1 if token.token == "(" else -1
        if depth == 0 and token.kind.value == "operator" and token.token in ("+", "-"):
            pieces.append(current)
            current = "-" if token.token == "-" else ""
        else:
            current += token.token
    return [piece for piece in [*pieces, current] if piece]
