"""User-defined combinations of parameters: ``nlcom("a*b + cov_ab + cprime")``."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlmed.allowed import numbers_of
from mlmed.effects.quantity import FUNCTIONS, Kind, Quantity, applied, chained
from mlmed.errors import EffectError, FormulaError
from mlmed.limits import MAX_EXPRESSION
from mlmed.names import OF_EQUATION
from mlmed.notes import joined
from mlmed.syntax import check_size, parse_expression
from mlmed.text import shown

Array = NDArray[np.float64]
#: Value, first (k,) and second (k, k) derivatives of a function of k values, and the values it depends on.
Local = tuple[float, Array, Array, list[int]]
CONSTANT = "fixed: it has this value whatever the parameters are, so there is nothing to estimate"
#: Beginning of the code of a refusal that names an unknown name.
UNKNOWN = "unknown "
#: Relative step that tests whether the value depends on a quantity; smaller than the steps of derivatives.
NEAR = 1e-3
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}  # fmt: skip
_SIGNS: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
#: A function of values by name: numbers, or quantities, which carry derivatives through it.
Formula = Callable[[dict[str, Any]], Any]

#: Functions in names, and the kind of quantity they name.
_KINDS: dict[str, Kind] = {"var": "variance", "cov": "covariance", "sd": "sd", "cor": "correlation"}
#: Patterns: start and end of a name, start of one such as ``cor(m~x,y~m)``, a whole ``m~x``.
_START, _END = rf"(?<![\w:.{OF_EQUATION}])", rf"(?![\w:.{OF_EQUATION}])"
_CALL = rf"{_START}(?:{'|'.join(_KINDS)})\("
_LABEL = rf"{_START}[\w.]+{OF_EQUATION}[\w.:]+"


def known_name(text: str, known: Collection[str]) -> str | None:
    """Find the known name in a text: with or without backticks and spaces, effects of ``cov()`` in either order.

    Examples
    --------
    >>> known_name("cor(y~m, m~x)", ["m~x", "cor(m~x,y~m)"])
    'cor(m~x,y~m)'
    """
    name = text.strip().strip("`").strip()
    hit = re.fullmatch(rf"({'|'.join(_KINDS)})\((.*)\)", name, re.DOTALL)
    if name in known or hit is None:
        return name if name in known else None
    parts = [part.strip().strip("`") for part in _split(hit[2])]
    spelled = (f"{hit[1]}({','.join(order)})" for order in (parts, parts[::-1]))
    return next((one for one in spelled if one in known), None)


def _split(text: str) -> list[str]:
    """Split at commas outside brackets."""
    depth, parts = 0, [""]
    for sign in text:
        depth += (sign in "([") - (sign in ")]")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def _closing(text: str, start: int) -> int:
    """Position after the bracket that closes one opened just before ``start``; ``start`` if there is none."""
    depth = 1
    for end, sign in enumerate(text[start:], start=start + 1):
        depth += (sign == "(") - (sign == ")")
        if depth == 0:
            return end
    return start


def _quoted(text: str, known: Mapping[str, Quantity]) -> str:
    """Put backticks around names such as ``m~x`` and ``var(m~x)``, in their known spelling."""
    with_colon = _with_colon(known)
    odd = sorted((name for name in (*known, *with_colon) if not name.isidentifier()), key=len, reverse=True)
    exact = f"{_START}(?:{'|'.join(map(re.escape, odd))}){_END}|" if odd else ""
    pattern = re.compile(f"`[^`]*`|{exact}{_CALL}|{_LABEL}")
    found, at = "", 0
    while hit := pattern.search(text, at):
        end = _closing(text, hit.end()) if hit[0].endswith("(") else hit.end()
        typed = text[hit.start() : end]
        name = known_name(typed, known)
        is_name = typed in with_colon or re.match(_LABEL, typed) or (re.match(_CALL, typed) and typed.endswith(")"))
        if name is None and is_name:
            raise EffectError(f"cannot read {text!r}: {_unknown(typed, known)}")
        found += text[at : hit.start()] + (f"`{name}`" if name else typed)
        at = end
    return found + text[at:]


def _unknown(typed: str, known: Mapping[str, Quantity]) -> str:
    kind = _KINDS.get(typed.partition("(")[0])
    alike = [name for name, one in known.items() if one.kind == kind]
    return _meant(typed, known) or f"there is no {typed}; known are {', '.join(alike or known)}"


def _with_colon(known: Collection[str]) -> dict[str, str]:
    """Map names of several equations from their spelling with a colon, ``m:x``."""
    return {name.replace(OF_EQUATION, ":"): name for name in known if OF_EQUATION in name}


def _meant(typed: str, known: Collection[str]) -> str:
    """Hint for a name typed with a colon; empty for others."""
    with_colon = _with_colon(known)
    near = known_name(typed.replace(OF_EQUATION, ":"), with_colon)
    if near is None:
        return ""
    return f"there is no {typed}; did you mean {with_colon[near]}? (a colon stands in interactions only)"


def _compile(text: str, known: Mapping[str, Quantity]) -> tuple[Formula, list[str]]:
    """Compile an expression of the functions above into a function of values by name; also return its names."""
    if len(text) > MAX_EXPRESSION:
        raise EffectError(
            f"cannot read {shown(text)}: it has {len(text)} letters, and at most {MAX_EXPRESSION} are read "
            "(mlmed.limits.MAX_EXPRESSION); give a function of a dict instead"
        )
    try:
        check_size(text, "write it in parts, or give a function of a dict")
    except FormulaError as error:
        raise EffectError(str(error)) from error
    quoted: dict[str, str] = {}
    named, prefix = _quoted(text, known), "_q"
    while prefix in named:  # a column may have this name
        prefix += "_"

    def stand_in(hit: re.Match[str]) -> str:
        name = f"{prefix}{len(quoted)}"
        quoted[name] = hit[1]
        return name

    plain = re.sub(r"`([^`]+)`", stand_in, named)
    try:
        tree = parse_expression(plain.strip(), text, "write e.g. 'a*b + cov_ab'")
        _check(tree, text)
        numbers_of(tree, text)
    except FormulaError as error:
        raise EffectError(str(error)) from error
    used = {node.id: quoted.get(node.id, node.id) for node in ast.walk(tree) if isinstance(node, ast.Name)}
    used = {variable: name for variable, name in used.items() if variable not in FUNCTIONS}
    for name in used.values():
        if name not in known:
            every = f"known are {', '.join(known)} (backticks around names with unusual characters)"
            raise EffectError(f"{text!r} names {name!r}; {_meant(name, known) or every}", code=f"{UNKNOWN}{name}")
    return _function(tree.body, used), list(dict.fromkeys(used.values()))


def _check(tree: ast.Expression, text: str) -> None:
    """Refuse syntax that ``_function`` does not handle."""
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and (isinstance(node.value, bool) or not isinstance(node.value, int | float)):
            raise EffectError(f"{text!r} may only use real numbers; found {node.value!r}")
        if isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS:
                raise EffectError(f"{text!r} calls something other than {', '.join(FUNCTIONS)}")
            if len(node.args) != 1 or node.keywords:
                raise EffectError(f"{text!r} cannot be evaluated: {node.func.id}() takes one number, without a name")
        named = isinstance(node, ast.Name) and (node.id not in FUNCTIONS or id(node) in called)
        computed = isinstance(node, ast.BinOp | ast.UnaryOp) and (type(node.op) in _BINARY or type(node.op) in _SIGNS)
        kept = isinstance(node, ast.Expression | ast.Constant | ast.Call | ast.operator | ast.unaryop | ast.Load)
        if not (named or computed or kept):
            is_xor = isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitXor)
            power = "; a power is written a**2" if is_xor else ""
            raise EffectError(
                f"{text!r} may only use numbers, + - * / **, {', '.join(FUNCTIONS)} and parameter names{power}"
            )


def _function(node: ast.expr, used: Mapping[str, str]) -> Formula:
    """Build a function of values by name; numbers become floats, which bounds the cost of big integers."""
    if isinstance(node, ast.Name):
        name = used[node.id]
        return lambda values: values[name]
    if isinstance(node, ast.BinOp):
        combined, left, right = _BINARY[type(node.op)], _function(node.left, used), _function(node.right, used)
        return lambda values: combined(left(values), right(values))
    if isinstance(node, ast.UnaryOp):
        sign, operand = _SIGNS[type(node.op)], _function(node.operand, used)
        return lambda values: sign(operand(values))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        called, argument = node.func.id, _function(node.args[0], used)
        return lambda values: applied(called, argument(values))
    value = float(ast.literal_eval(node))
    return lambda values: value


def combine(expression: str | Callable[[dict[str, float]], float], known: Mapping[str, Quantity]) -> Quantity:
    """Evaluate a function of quantities with its derivatives in psi (eq. 31): exact for text, numerical for callables.

    Parameters
    ----------
    expression : str or callable
        Text such as ``"a*b + cov_ab"`` (backticks around names like ```m~x```), or a function of a dict of values.
    known : mapping
        Quantities by name.

    Raises
    ------
    EffectError
        The text names or calls something unknown, or the value is not a finite number.

    Notes
    -----
    Notes of the quantities are carried over. The result has NaN derivatives if one of them has none (such as a standard
    deviation of 0), and is NaN if one of them does not exist.
    """
    if isinstance(expression, str):
        of_text, names = _compile(expression, known)
        parts = [known[name] for name in names]
        gone = [part for part in parts if np.isnan(part.estimate)]
        if gone:
            return _without_error(expression.strip(), np.nan, gone)
        return _chain(expression.strip(), of_text, parts, _exact)
    if not callable(expression):
        raise EffectError(
            f"an expression is text such as 'a*b + cov_ab' or a function of a dict; found {shown(expression)}"
        )
    return _chain(getattr(expression, "__name__", "nlcom"), expression, list(known.values()), _numerical)


def combine_all(
    expression: str | Callable[[dict[str, float]], float] | Mapping[str, str], known: Mapping[str, Quantity]
) -> list[Quantity]:
    """Apply ``combine`` to one expression, or to each of a mapping under its label."""
    if isinstance(expression, Mapping):
        return [combine(text, known).named(label) for label, text in expression.items()]
    return [combine(expression, known)]


def _evaluated(term: str, function: Formula, values: dict[str, Any]) -> Any:
    """Return the value, or an error that names the expression."""
    try:
        return function(values)
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise EffectError(f"{term!r} cannot be evaluated: {error}; check names and domain") from error


def _number(term: str, function: Formula, values: dict[str, float]) -> float:
    """Return the value as a finite float, or an error that names the expression."""
    found = _evaluated(term, function, values)
    if isinstance(found, bool) or not isinstance(found, int | float | np.floating) or not np.isfinite(found):
        gone = ", ".join(name for name, value in values.items() if np.isnan(value))
        why = f"; without a value in this fit: {gone}" if gone else ""
        raise EffectError(f"{term!r} gives {found!r} where a finite number is needed{why}")
    return float(found)


def _chain(
    term: str, function: Formula, parts: list[Quantity], derivatives: Callable[[str, Formula, list[Quantity]], Local]
) -> Quantity:
    """Chain the derivatives of a function of the parts to psi."""
    if not parts:
        raise EffectError(f"{term!r} contains no parameter")
    estimate, slopes, bends, used = derivatives(term, function, parts)
    inside = [parts[k] for k in used]
    if any(np.isnan(part.gradient).any() for part in inside):
        return _without_error(term, estimate, [part for part in inside if np.isnan(part.gradient).any()])
    if not inside:
        return Quantity(term, estimate, np.zeros_like(parts[0].gradient), note=CONSTANT)
    own, bent = slopes[used], bends[np.ix_(used, used)]
    size = chained(estimate, [_absolute(part) for part in inside], np.abs(own), np.abs(bent))
    found = chained(estimate, inside, own, bent)
    gradient, hessian = _clean(found.gradient, size.gradient), _clean(found.hessian, size.hessian)
    found = Quantity(term, estimate, gradient, hessian)
    return replace(found, note=joined(CONSTANT if found.is_fixed else "", _notes(term, inside)))


def _absolute(part: Quantity) -> Quantity:
    """Replace derivatives by their absolute values."""
    return replace(part, gradient=np.abs(part.gradient), hessian=None if part.hessian is None else np.abs(part.hessian))


def _exact(term: str, function: Formula, parts: list[Quantity]) -> Local:
    """Differentiate by the arithmetic of quantities; fixed ones have no derivative, but keep their notes."""
    unit = np.diag([float(not part.is_fixed) for part in parts])
    estimate = _number(term, function, {part.term: part.estimate for part in parts})
    moving = {part.term: Quantity(part.term, part.estimate, row) for part, row in zip(parts, unit, strict=True)}
    found = _evaluated(term, function, moving)
    bends = np.zeros_like(unit) if found.hessian is None else found.hessian
    used = (found.gradient != 0.0) | bends.any(axis=0) | ~unit.any(axis=0)
    return estimate, found.gradient, bends, [int(k) for k in np.flatnonzero(used)]


def _numerical(term: str, function: Formula, parts: list[Quantity]) -> Local:
    """Differentiate by numdifftools, in relative steps: a small variance stays positive under a root or logarithm."""
    import numdifftools as nd

    names, values, k = [part.term for part in parts], np.array([part.estimate for part in parts]), len(parts)
    unit = np.where(np.isfinite(values) & (values != 0.0), np.abs(values), 1.0)

    def of_steps(steps: Array) -> float:
        return _number(term, function, dict(zip(names, map(float, values + unit * steps), strict=True)))

    estimate, used = of_steps(np.zeros(k)), _used(of_steps, k)
    slopes, bends = np.zeros(k), np.zeros((k, k))
    if used:
        chosen, own = np.eye(k)[used], unit[used]
        sizes, start = nd.MinStepGenerator(base_step=1e-4, step_ratio=2.0, num_steps=7), np.zeros(len(used))
        slopes[used] = np.atleast_1d(nd.Gradient(lambda steps: of_steps(steps @ chosen), step=sizes)(start)) / own
        bent = np.atleast_2d(nd.Hessian(lambda steps: of_steps(steps @ chosen), step=sizes)(start))
        bends[np.ix_(used, used)] = bent / np.outer(own, own)
    return estimate, slopes, bends, used


def _used(of_steps: Callable[[Array], float], n: int) -> list[int]:
    """Find which of n quantities change the value, near a point where none is 0 or equal to another."""
    near = NEAR * np.sin(np.arange(1.0, n + 1.0))
    here = of_steps(near)
    return [k for k in range(n) if of_steps(near + NEAR * (np.arange(n) == k)) != here]


def _without_error(term: str, estimate: float, parts: list[Quantity]) -> Quantity:
    """Return a value without derivatives, with notes from the parts that lack them."""
    return Quantity(term, estimate, np.full_like(parts[0].gradient, np.nan), note=_notes(term, parts))


def _notes(term: str, parts: list[Quantity]) -> str:
    """Join the notes of parts, each once, with the parts' names unless the term is that part."""
    said: dict[str, list[str]] = {}
    for part in parts:
        said.setdefault(part.note, []).append(part.term)
    named = {note: "" if names == [term.strip("`")] else f"{', '.join(names)}: " for note, names in said.items()}
    return "; ".join(f"{names}{note}" for note, names in named.items() if note)


def _clean(derivative: Array | None, size: Array | None) -> Array:
    """Set rounding noise to zero, so that it meets no NaN of V; ``size``: magnitude before cancellation."""
    assert derivative is not None
    assert size is not None
    noise = 1e-9 * np.maximum(size, np.abs(derivative).max(initial=0.0))
    return np.where(np.abs(derivative) > noise, derivative, 0.0)
