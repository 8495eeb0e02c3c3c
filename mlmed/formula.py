"""lme4 and brms formula syntax -> Equation, before any data are seen.

``m ~ x + (1 + x | id)``, ``(1 + x || id)`` (no covariances), ``(1 + x |i| id)`` (brms: effects with the same
``i`` are correlated across equations). Formulaic reads each part; only the split at the bars is ours.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from formulaic import Formula
from formulaic.errors import FormulaicError
from formulaic.parser.types import Factor, Term, Token

from mlmed.errors import FormulaError
from mlmed.limits import MAX_TERMS
from mlmed.names import FUNCTIONS, display_name, encode_quoted, needing_backticks, quote_columns
from mlmed.syntax import check_expression, check_names, check_size, coding_names
from mlmed.text import shown
from mlmed.tokens import is_token, refuse_duplicates, refuse_explosion, refuse_squares, said_by_formulaic, tokens_of


@dataclass(frozen=True, slots=True)
class RandomTerm:
    """One parenthesis ``(formula | label | group)``."""

    formula: str  #: Right-hand side of the effects that vary, e.g. ``"1 + x"`` (safe names, see ``mlmed.names``).
    group: tuple[str, ...]  #: Columns that together name the cluster; one for ``id``, two for ``g:h``.
    label: str | None  #: brms' correlation label, None if not given.
    correlated: bool  #: False for the double bar.


@dataclass(frozen=True, slots=True)
class Equation:
    """One response and what it depends on."""

    text: str  #: The formula as it was typed.
    response: str  #: Left-hand side (safe names).
    fixed: str  #: Right-hand side without the random terms (safe names).
    random: tuple[RandomTerm, ...]  #: The random terms, in order.

    @property
    def name(self) -> str:
        """The response as shown in tables."""
        return display_name(self.response)

    @property
    def right(self) -> str:
        """The right-hand side as it was typed."""
        return self.text.partition("~")[2].strip()

    @property
    def predictors(self) -> frozenset[str]:
        """Columns of the right-hand side, without the cluster variable."""
        return formula_variables(self.fixed).union(*(formula_variables(term.formula) for term in self.random))

    @property
    def response_columns(self) -> frozenset[str]:
        """Columns that the response is computed from."""
        return formula_variables(self.response)

    @property
    def group_columns(self) -> frozenset[str]:
        """Columns that name the cluster."""
        return frozenset(column for term in self.random for column in term.group)

    @property
    def variables(self) -> frozenset[str]:
        """Columns of the table that the equation reads."""
        return self.response_columns | self.predictors | self.group_columns


def parse_equation(text: str, columns: Iterable[str] = ()) -> Equation:
    """Read one two-sided formula.

    ``text``: for example ``"y ~ m + x + (1 + m + x | id)"``; ``columns``: of the data, so that names such as
    ``NA.std`` need no backticks.

    Raises
    ------
    FormulaError
        If the formula cannot be read or is not supported (nested groups).

    Examples
    --------
    >>> equation = parse_equation("m ~ x + (1 + x |i| id)")
    >>> equation.fixed, equation.random[0].formula, equation.random[0].label, equation.random[0].group
    ('x', '1 + x', 'i', ('id',))
    """
    if not isinstance(text, str):
        several = "; several mediators are fitted by mlmed.mediate" if isinstance(text, list | tuple) else ""
        found = type(text).__name__
        raise FormulaError(f"a formula must be text such as 'y ~ x + (1 + x | id)'; found {found}{several}")
    check_size(text)
    check_names(text)
    columns = list(columns)
    try:
        return _parse(text, quote_columns(text, columns))
    except FormulaError as error:
        odd = [name for name in needing_backticks(columns) if name in text]
        ticked = [name for name in odd if "`" in name]
        if ticked:
            raise FormulaError(f"{error}; rename the column {ticked[0]!r}: no formula can hold its backtick") from error
        bare = [name for name in odd if f"`{name}`" not in text]
        if not bare:
            raise
        raise FormulaError(f"{error}; the column {bare[0]!r} is written `{bare[0]}`, in backticks") from error


@lru_cache(maxsize=1024, typed=True)  # subclasses of str are shown differently
def _parse(text: str, quoted: str) -> Equation:
    plain = encode_quoted(quoted)
    if _has_inner_tilde(plain):
        raise FormulaError(
            f"cannot read {text!r}: '~' inside parentheses; if it is to mean 'not', write the opposite comparison, as "
            "in I(k != 2)"
        )
    left, tilde, right = plain.partition("~")
    if not tilde or not left.strip() or not right.strip() or "~" in right:
        raise FormulaError(
            f"cannot read {text!r}: an equation has one response, one '~' and a right-hand side, "
            "for example 'y ~ x + (1 + x | id)'"
        )
    if plain.count("(") != plain.count(")"):
        opening, closing = plain.count("("), plain.count(")")
        raise FormulaError(
            f"cannot read {text!r}: {opening} opening and {closing} closing parentheses; add the missing one"
        )
    fixed, random = _split_random(right, text)
    parts = (fixed, *(term.formula for term in random))
    if sum(refuse_explosion(part, text) for part in parts) > MAX_TERMS:
        raise FormulaError(
            f"cannot use {shown(text)}: fixed part and random terms have more than {MAX_TERMS} terms together "
            "(mlmed.limits.MAX_TERMS); make a factor or a score of several columns before the fit"
        )
    for part in parts:
        refuse_duplicates(part, text)
        refuse_squares(part, text)
    if not all(_terms(part, text) for part in parts[1:]):
        raise FormulaError(f"{text!r} has a random term without effects; write at least (1 | id)")
    equation = Equation(text, _one_response(left, text), fixed, random)
    own = formula_variables(equation.response) & equation.predictors
    if own:
        raise FormulaError(
            f"{text!r} has its response {', '.join(sorted(own))} on its own right-hand side; remove it there"
        )
    return equation


def _has_inner_tilde(text: str) -> bool:
    """Whether a tilde is inside closed parentheses."""
    opened = accumulate(part.count("(") - part.count(")") for part in text.split("~")[:-1])
    return text.count("(") == text.count(")") and any(depth > 0 for depth in opened)


def _one_response(left: str, whole: str) -> str:
    """The left-hand side in formulaic's spelling; it must be one column or one call."""
    if left.strip().startswith(("cbind(", "mvbind(")):
        raise FormulaError(
            f"{whole!r} binds several responses; write one formula for each and pass them as a list: "
            'mixed(["a ~ x + (1 |c| id)", "b ~ x + (1 |c| id)"], data)'
        )
    tokens = tokens_of(left, whole)
    if len(tokens) != 1 or tokens[0].kind.value not in ("name", "python"):
        raise FormulaError(
            f"{whole!r} must have one response on the left, a column or a call; write arithmetic as I(m - y)"
        )
    return str(_terms(f"0 + {left.strip()}", whole)[0])


def _split_random(right: str, whole: str) -> tuple[str, tuple[RandomTerm, ...]]:
    """Cut random terms, parentheses with a bar, out of the right-hand side."""
    tokens = tokens_of(right, whole)
    if any(token.token == "." for token in tokens):
        raise FormulaError(
            f"cannot read {whole!r}: '.' would stand for every other column, ids and unused ones among them; write "
            "the names of the predictors"
        )
    terms: list[RandomTerm] = []
    cuts: list[tuple[int, int]] = []
    depth, opened = 0, 0
    bars: list[int] = []
    for k, token in enumerate(tokens):
        if is_token(token, "context", "("):
            depth += 1
            opened, bars = (k, []) if depth == 1 else (opened, bars)
        elif is_token(token, "context", ")"):
            depth -= 1
            if depth == 0 and bars:
                cuts.append(_cut_out(tokens, opened, k, right, whole))
                terms.append(_random_term(tokens[opened + 1 : k], right, whole))
        elif is_token(token, "operator") and "|" in token.token:
            if depth != 1:
                raise FormulaError(
                    f"cannot read {whole!r}: put the random term in parentheses of its own, e.g. + (1 + x | id)"
                )
            bars.append(k)
    fixed, at = "", 0
    for start, stop in cuts:
        fixed, at = fixed + right[at:start], stop
    fixed = (fixed + right[at:]).strip()
    return (fixed.removeprefix("+").strip() if cuts else fixed) or "1", tuple(terms)


def _cut_out(tokens: Sequence[Token], first: int, last: int, right: str, whole: str) -> tuple[int, int]:
    """Start and end of a random term with the plus before it; refuses any other operator around it."""
    before = tokens[first - 1] if first else None
    after = tokens[last + 1] if last + 1 < len(tokens) else None
    if before is not None and not is_token(before, "operator", "+"):
        found = before.token if is_token(before, "operator") else display_name(before.token)
        raise FormulaError(f"cannot read {whole!r}: a random term can be added with '+', not {found!r}")
    if after is not None and not is_token(after, "operator", "+", "-"):
        raise FormulaError(
            f"cannot read {whole!r}: after a random term comes '+' or the end, not {display_name(after.token)!r}"
        )
    start = (before.source_start if before is not None else tokens[first].source_start) or 0
    return start, (tokens[last].source_start or 0) + 1


def _random_term(tokens: Sequence[Token], right: str, whole: str) -> RandomTerm:
    cuts = [k for k, token in enumerate(tokens) if is_token(token, "operator") and "|" in token.token]
    signs = [tokens[k].token for k in cuts]
    shown = display_name("".join(token.token for token in tokens))
    pieces = [tokens[a + 1 : b] for a, b in zip([-1, *cuts], [*cuts, len(tokens)], strict=True)]
    if not all(pieces) or signs not in (["|"], ["||"], ["|", "|"]):
        raise FormulaError(
            f"cannot read the random term ({shown}) in {whole!r}: write (1 + x | id), (1 + x || id) or (1 + x |i| id)"
        )
    group = pieces[-1]
    if any(is_token(token, "operator", "/", "+", "*", "%in%") for token in group):
        asked = display_name("".join(token.token for token in group))
        raise FormulaError(
            f"({shown}) asks for more than one level of grouping ({asked}); mlmed fits one cluster variable. "
            "Use the highest level that matters, or a combined id such as (1 | g:h)"
        )
    names = [display_name(token.token) for token in group[::2]]
    if not all(is_token(t, "name") for t in group[::2]) or not all(is_token(t, "operator", ":") for t in group[1::2]):
        raise FormulaError(f"cannot read the random term ({shown}) in {whole!r}: the cluster is a column, or g:h")
    if len(group) % 2 == 0:
        raise FormulaError(f"cannot read the random term ({shown}) in {whole!r}: write g:h for a combined id")
    label = display_name("".join(token.token for token in pieces[1])) if len(pieces) == 3 else None
    effects = right[pieces[0][0].source_start or 0 : (tokens[cuts[0]].source_start or 0)].strip()
    return RandomTerm(effects, tuple(names), label, signs != ["||"])


@lru_cache(maxsize=1024)
def formula_of(text: str) -> Formula:
    """Read one side of a formula after checks of its size and syntax; cached.

    The only place that makes a ``Formula``, so nothing reaches formulaic unchecked.

    Raises ``FormulaError``: it cannot be read, or has syntax that formulas do not have.
    """
    refuse_explosion(text, text)
    try:
        return Formula(text)
    except (FormulaicError, SyntaxError) as error:
        raise FormulaError(f"cannot read {display_name(text)!r}: {said_by_formulaic(error, text)}") from error
    except TypeError as error:  # formulaic fails so on products without terms
        raise FormulaError(
            f"cannot read {display_name(text)!r}: nothing is left before the / in it, as in (x - x) / w; write the "
            "terms that are meant"
        ) from error


def _terms(text: str, whole: str) -> list[Term]:
    try:
        return list(formula_of(text))
    except FormulaError as error:
        said = error.__cause__
        if not isinstance(said, FormulaicError | SyntaxError):
            raise
        raise FormulaError(f"cannot read {display_name(whole)!r}: {said_by_formulaic(said, text)}") from error


@lru_cache(maxsize=1024)
def formula_variables(text: str) -> frozenset[str]:
    """Columns that one side of a formula reads.

    Raises ``FormulaError``: if it cannot be read or calls an unknown function.

    Examples
    --------
    >>> sorted(formula_variables("np.log(x):w + center(`NA.std`)"))
    ['NA.std', 'w', 'x']
    """
    return frozenset().union(*map(term_variables, _terms(encode_quoted(text), text)))


def term_variables(term: Term) -> frozenset[str]:
    """Columns that one term reads."""
    return frozenset().union(*(_factor_variables(factor) for factor in term.factors))


def _factor_variables(factor: Factor) -> frozenset[str]:
    if factor.eval_method.value == "lookup":
        return frozenset({display_name(factor.expr)})
    if factor.eval_method.value != "python":
        return frozenset()
    tree = check_expression(factor.expr)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    called = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    bases = {n.value.id for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)}
    return frozenset(display_name(name) for name in names - called - coding_names(tree) - (bases & FUNCTIONS))
