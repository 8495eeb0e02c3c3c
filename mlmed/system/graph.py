"""The graph of a system: which response depends on which, a causal order, and all routes between two variables."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from mlmed.errors import FormulaError
from mlmed.formula import Equation
from mlmed.limits import MAX_ROUTES


def arrows_between(equations: Sequence[Equation]) -> dict[str, list[str]]:
    """For every response the responses that its right-hand side reads, fixed or random, by name."""
    return {
        equation.name: [other.name for other in equations if other.response_columns & equation.predictors]
        for equation in equations
    }


def find_cycle(sources: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """Find a cycle of nodes, the first one repeated at its end; empty if there is none.

    Parameters
    ----------
    sources : mapping of str to collection of str
        For every node those that point to it.

    Examples
    --------
    >>> find_cycle({"m": ["y"], "y": ["m"]}), find_cycle({"m": ["x"], "y": ["m"]})
    (('m', 'y', 'm'), ())
    """
    left = dict(sources)
    while left:
        free = [node for node, own in left.items() if not any(one in left for one in own)]
        if not free:
            trail = [next(iter(left))]
            while trail[-1] not in trail[:-1]:  # every node left has a source that is left
                trail.append(next(one for one in left[trail[-1]] if one in left))
            back = trail[trail.index(trail[-1]) :]
            return tuple(reversed(back))
        left = {node: own for node, own in left.items() if node not in free}
    return ()


def refuse_cycles(equations: Sequence[Equation]) -> None:
    """Refuse cycles: the joint density factorizes only if responses can be ordered (docs/math.md, section 1).

    Raises
    ------
    FormulaError
        A cycle; the message names it.
    """
    cycle = find_cycle(arrows_between(equations))
    if cycle:
        texts = "; ".join(repr(equation.text) for equation in equations if equation.name in cycle)
        raise FormulaError(
            f"the equations feed back into each other, {' -> '.join(cycle)}: each of {texts} has the response of "
            "another as a predictor, so they are not a model of one equation given the other. Remove a response from a "
            "right-hand side"
        )


def routes_between(sources: Mapping[str, Collection[str]], start: str, end: str) -> list[tuple[str, ...]]:
    """All routes from one node to another along the arrows, as node names; the shortest first, then as in ``sources``.

    Parameters
    ----------
    sources : mapping of str to collection of str
        For every node those that point to it; without cycles.
    start, end : str
        First and last node.

    Raises
    ------
    FormulaError
        More than ``MAX_ROUTES``.

    Examples
    --------
    >>> routes_between({"m1": ["x"], "m2": ["x", "m1"], "y": ["m1", "m2", "x"]}, "x", "y")
    [('x', 'y'), ('x', 'm1', 'y'), ('x', 'm2', 'y'), ('x', 'm1', 'm2', 'y')]
    """
    order = {node: k for k, node in enumerate(sources)}
    known: dict[str, list[tuple[str, ...]]] = {start: [(start,)]}

    def to(node: str) -> list[tuple[str, ...]]:
        if node not in known:
            known[node] = [(*route, node) for one in sources.get(node, ()) for route in to(one)]
            if len(known[node]) > MAX_ROUTES:
                raise FormulaError(
                    f"more than {MAX_ROUTES} routes lead from {start} to {node} (mlmed.limits.MAX_ROUTES); leave out "
                    "arrows, or ask for functions of coefficients with nlcom() after mlmed.mixed"
                )
        return known[node]

    return sorted(to(end), key=lambda route: (len(route), [order.get(node, -1) for node in route]))
