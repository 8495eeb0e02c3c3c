"""User-defined combinations of parameters: ``nlcom("a*b + cov_ab + cprime")``."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping
from types import CodeType

import numpy as np

from mlmed.effects.delta import Quantity
from mlmed.errors import EffectError

__all__ = ["combine"]

FUNCTIONS: dict[str, Callable[..., float]] = {
    "exp": math.exp, "log": math.log, "sqrt": math.sqrt, "tanh": math.tanh, "atanh": math.atanh, "abs": abs,
}  # fmt: skip
_ALLOWED = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.Call, ast.Name, ast.Load, ast.Constant,
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.USub, ast.UAdd,
)  # fmt: skip


def _compile(text: str, known: Mapping[str, Quantity]) -> tuple[CodeType, dict[str, str]]:
    """Check an expression and compile it; returns the code and variable -> quantity name."""
    quoted: dict[str, str] = {}

    def stand_in(hit: re.Match[str]) -> str:
        name = f"_q{len(quoted)}"
        quoted[name] = hit[1]
        return name

    plain = re.sub(r"`([^`]+)`", stand_in, text)
    try:
        tree = ast.parse(plain.strip(), mode="eval")
    except SyntaxError as error:
        raise EffectError(f"cannot read {text!r}: {error.msg}; write e.g. 'a*b + cov_ab'") from error
    used: dict[str, str] = {}
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            raise EffectError(f"{text!r} may only use numbers, + - * / **, {', '.join(FUNCTIONS)} and parameter names")
        if isinstance(node, ast.Call) and (not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS):
            raise EffectError(f"{text!r} calls something other than {', '.join(FUNCTIONS)}")
        if isinstance(node, ast.Name) and node.id not in FUNCTIONS:
            used[node.id] = quoted.get(node.id, node.id)
    for name in used.values():
        if name not in known:
            raise EffectError(
                f"{text!r} names {name!r}; known are {', '.join(known)} "
                "(put backticks around names with a colon or bracket)"
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
        If the text names or calls something unknown, or the value is not finite.
    """
    if isinstance(expression, str):
        code, used = _compile(expression, known)
        term, names = expression.strip(), list(dict.fromkeys(used.values()))

        def function(values: np.ndarray) -> float:
            by_name = dict(zip(names, values, strict=True))
            scope = {variable: by_name[name] for variable, name in used.items()}
            return float(eval(code, {"__builtins__": {}, **FUNCTIONS}, scope))  # names and nodes were checked
    else:
        names, term = list(known), getattr(expression, "__name__", "nlcom")
        function_of_dict = expression

        def function(values: np.ndarray) -> float:
            return float(function_of_dict(dict(zip(names, values, strict=True))))

    return _chain(term, function, [known[name] for name in names])


def _chain(term: str, function: Callable[[np.ndarray], float], parts: list[Quantity]) -> Quantity:
    import numdifftools as nd

    if not parts:
        raise EffectError(f"{term!r} contains no parameter")
    values = np.array([part.estimate for part in parts])
    try:
        estimate = function(values)
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise EffectError(f"{term!r} cannot be evaluated at the estimates: {error}") from error
    if not np.isfinite(estimate):
        raise EffectError(f"{term!r} is {estimate} at the estimates")
    outer_gradient = np.atleast_1d(nd.Gradient(function)(values))
    outer_hessian = np.atleast_2d(nd.Hessian(function)(values))
    J = np.stack([part.gradient for part in parts])
    hessian = J.T @ outer_hessian @ J
    for weight, part in zip(outer_gradient, parts, strict=True):
        if part.hessian is not None:
            hessian = hessian + weight * part.hessian
    gradient = outer_gradient @ J
    noise = 1e-9 * float(np.abs(hessian).max(initial=0.0))
    return Quantity(term, estimate, gradient, np.where(np.abs(hessian) > noise, hessian, 0.0))
