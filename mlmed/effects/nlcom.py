"""User-defined combinations of parameters: ``nlcom("a*b + cov_ab + cprime")``."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import CodeType

import numpy as np

from mlmed.effects.delta import Quantity
from mlmed.errors import EffectError

__all__ = ["combine", "combine_all"]

CONSTANT = "fixed: it has this value whatever the parameters are, so there is nothing to estimate"
FUNCTIONS: dict[str, Callable[..., float]] = {
    "exp": math.exp, "log": math.log, "sqrt": math.sqrt, "tanh": math.tanh, "atanh": math.atanh, "abs": abs,
}  # fmt: skip
_ALLOWED = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.Call, ast.Name, ast.Load, ast.Constant,
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.USub, ast.UAdd,
)  # fmt: skip


def _quoted(text: str, known: Mapping[str, Quantity]) -> str:
    """Backticks around known names such as ``m:x`` and ``var(m:x)`` that were typed without."""
    odd = sorted((name for name in known if not name.isidentifier()), key=len, reverse=True)
    if not odd:
        return text
    pattern = r"`[^`]*`|(?<![\w:.])(?:" + "|".join(map(re.escape, odd)) + r")(?![\w:.])"
    return re.sub(pattern, lambda hit: hit[0] if hit[0].startswith("`") else f"`{hit[0]}`", text)


def _compile(text: str, known: Mapping[str, Quantity]) -> tuple[CodeType, dict[str, str]]:
    """Check an expression and compile it; returns the code and variable -> quantity name."""
    quoted: dict[str, str] = {}

    def stand_in(hit: re.Match[str]) -> str:
        name = f"_q{len(quoted)}"
        quoted[name] = hit[1]
        return name

    plain = re.sub(r"`([^`]+)`", stand_in, _quoted(text, known))
    try:
        tree = ast.parse(plain.strip(), mode="eval")
    except SyntaxError as error:
        raise EffectError(f"cannot read {text!r}: {error.msg}; write e.g. 'a*b + cov_ab'") from error
    used: dict[str, str] = {}
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            raise EffectError(f"{text!r} may only use numbers, + - * / **, {', '.join(FUNCTIONS)} and parameter names")
        if isinstance(node, ast.Constant) and (isinstance(node.value, bool) or not isinstance(node.value, int | float)):
            raise EffectError(f"{text!r} may only use real numbers; found {node.value!r}")
        if isinstance(node, ast.Call) and (not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS):
            raise EffectError(f"{text!r} calls something other than {', '.join(FUNCTIONS)}")
        if isinstance(node, ast.Name) and node.id not in FUNCTIONS:
            used[node.id] = quoted.get(node.id, node.id)
    for name in used.values():
        if name not in known:
            raise EffectError(
                f"{text!r} names {name!r}; known are {', '.join(known)} "
                "(backticks around names with unusual characters)"
            )
    return compile(tree, "<nlcom>", "eval"), used


def combine(expression: str | Callable[[dict[str, float]], float], known: Mapping[str, Quantity]) -> Quantity:
    """A function of known quantities, with derivatives by numdifftools chained to psi (eq. 31).

    Parameters
    ----------
    expression : str or callable
        Text such as ``"a*b + cov_ab"`` (backticks around names like ```m:x```), or a function of a dict of values.
    known : mapping
        Quantities by name.

    Raises
    ------
    EffectError
        If the text names or calls something unknown, or the value is not a finite number.
    """
    if isinstance(expression, str):
        code, used = _compile(expression, known)
        names = list(dict.fromkeys(used.values()))

        def of_text(by_name: dict[str, float]) -> float:
            scope = {variable: by_name[name] for variable, name in used.items()}
            value: float = eval(code, {"__builtins__": {}, **FUNCTIONS}, scope)  # names and nodes were checked
            return value

        return _chain(expression.strip(), of_text, [known[name] for name in names])
    if not callable(expression):
        raise EffectError(f"an expression is text such as 'a*b + cov_ab' or a function of a dict; found {expression!r}")
    return _chain(getattr(expression, "__name__", "nlcom"), expression, list(known.values()))


def combine_all(
    expression: str | Callable[[dict[str, float]], float] | Mapping[str, str], known: Mapping[str, Quantity]
) -> list[Quantity]:
    """``combine`` of one expression, or of each of a mapping under its label."""
    if isinstance(expression, Mapping):
        return [combine(text, known).named(label) for label, text in expression.items()]
    return [combine(expression, known)]


def _number(term: str, function: Callable[[dict[str, float]], float], values: dict[str, float]) -> float:
    """The value as a finite float, or an error that names the expression."""
    try:
        found = function(values)
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise EffectError(f"{term!r} cannot be evaluated: {error}; check names and domain") from error
    if isinstance(found, bool) or not isinstance(found, int | float | np.floating) or not np.isfinite(found):
        raise EffectError(f"{term!r} gives {found!r} where a finite number is needed")
    return float(found)


def _chain(term: str, function: Callable[[dict[str, float]], float], parts: list[Quantity]) -> Quantity:
    """Derivatives in relative steps, so that a small positive variance stays positive under a root or logarithm."""
    import numdifftools as nd

    if not parts:
        raise EffectError(f"{term!r} contains no parameter")
    names = [part.term for part in parts]
    values = np.array([part.estimate for part in parts])
    unit = np.where(values != 0.0, np.abs(values), 1.0)

    def of_steps(steps: np.ndarray) -> float:
        return _number(term, function, dict(zip(names, map(float, values + unit * steps), strict=True)))

    start = np.zeros(len(values))
    estimate = of_steps(start)
    sizes = nd.MinStepGenerator(base_step=1e-4, step_ratio=2.0, num_steps=7)
    outer_gradient = np.atleast_1d(nd.Gradient(of_steps, step=sizes)(start)) / unit
    outer_hessian = np.atleast_2d(nd.Hessian(of_steps, step=sizes)(start)) / np.outer(unit, unit)
    J = np.stack([part.gradient for part in parts])
    hessian = J.T @ outer_hessian @ J
    for weight, part in zip(outer_gradient, parts, strict=True):
        if part.hessian is not None:
            hessian = hessian + weight * part.hessian
    found = Quantity(term, estimate, _clean(outer_gradient @ J), _clean(hessian))
    return replace(found, note=CONSTANT) if found.is_fixed else found


def _clean(derivative: np.ndarray) -> np.ndarray:
    """Rounding noise of differences set to zero, so that it does not touch entries of V that are NaN."""
    noise = 1e-9 * float(np.abs(derivative).max(initial=0.0))
    return np.where(np.abs(derivative) > noise, derivative, 0.0)
