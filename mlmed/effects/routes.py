"""Routes from treatment to outcome: the slopes of a system's arrows, and who is multiplied with whom (eq. 26, 27)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlmed.data.layout import INTERCEPT, EquationLayout, Layout
from mlmed.data.probing import reads
from mlmed.effects.slopes import (
    Path,
    Question,
    as_number,
    at_one_place,
    compared_values,
    find_slope,
    moderators_of,
    refuse_unreached,
)
from mlmed.errors import EffectError
from mlmed.formula import term_variables
from mlmed.names import display_name, labelled
from mlmed.options import check_mapping, is_one_value
from mlmed.system.graph import routes_between
from mlmed.text import shown

Array = NDArray[np.float64]
#: An arrow: its source, the treatment or a mediator, and the response of its target.
Arrow = tuple[str, str]
#: Names of the slopes and of the effect with one mediator.
A, B, CPRIME, INDIRECT, DIRECT = "a", "b", "cprime", "indirect", "direct"


@dataclass(frozen=True, slots=True)
class Routes:
    """The slopes from the treatment to the outcome, and every route along them.

    Attributes
    ----------
    names : tuple of k str
        Of the slopes in causal order: ``a``, ``b``, ``cprime`` with one mediator; ``a[m1]``, ``d[m1,m2]``, ``b[m2]``,
        ``cprime`` with several.
    slopes : tuple of k Path
        Contrasts over beta (p,) and u (q,) of all equations.
    routes : tuple of tuples of int
        The slopes of each route in causal order; the direct route has one.
    labels : tuple of str
        The effect of each route: ``indirect``, ``direct``; ``indirect[m1]``, ``indirect[m1,m2]`` with several
        mediators.
    arrows : tuple of k (str, str)
        Source and target of each slope.
    other_slopes : tuple of k tuples of str
        Random slopes in the equation of each target that belong to none of these slopes, such as ``m~x_w``.
    """

    names: tuple[str, ...]
    slopes: tuple[Path, ...]
    routes: tuple[tuple[int, ...], ...]
    labels: tuple[str, ...]
    arrows: tuple[Arrow, ...]
    other_slopes: tuple[tuple[str, ...], ...]

    def __getitem__(self, name: str) -> Path:
        """The slope of a name."""
        return self.slopes[self.names.index(name)]

    @property
    def is_simple(self) -> bool:
        """Whether there is one mediator: a, b, cprime."""
        return self.names == (A, B, CPRIME)

    @property
    def indirect(self) -> list[str]:
        """The effects of routes through mediators."""
        return [label for label in self.labels if label != DIRECT]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Slopes that are multiplied with each other on some route, in order."""
        found = {(i, k) for route in self.routes for n, i in enumerate(route) for k in route[n + 1 :]}
        return sorted(found)

    def nodes(self, route: Sequence[int]) -> list[str]:
        """The variables of a route, from the treatment to the outcome."""
        return [self.arrows[route[0]][0], *(self.arrows[k][1] for k in route)]


def find_routes(
    layout: Layout,
    *,
    treatment: str,
    contrast: tuple[Any, Any] | None = None,
    at: Mapping[str, Any] | None = None,
) -> Routes:
    """Slopes and routes from a treatment to the response of the last equation.

    Parameters
    ----------
    layout : Layout
        Columns and encodings, mediators first, and the equations as asked for.
    treatment : str
        Column of the treatment x.
    contrast : pair, optional
        Values of the treatment to compare; needed if it is a factor of more than two levels or enters nonlinearly.
    at : mapping, optional
        Values of moderators; by default the mean of a numeric one, otherwise the first level, in the rows of the
        outcome equation.

    Raises
    ------
    EffectError
        No route, a value for a variable that is no moderator, a nonlinear path, a moderator whose mean lies at a jump
        of a path, or a term of two variables of the routes, whose effects are then no single slopes.
    """
    equations = at_one_place(layout.equations)
    arrows, ways = _arrows(equations, treatment)
    nodes = frozenset(node for arrow in arrows for node in arrow)
    for equation in equations:
        where = "outcome equation" if equation is equations[-1] else f"equation of {equation.name}"
        seen = {asked.name: asked.response_columns for asked in layout.asked[:-1]}
        others = {
            name: own
            for name, own in seen.items()
            if name not in (equation.name, treatment) and (name in nodes or own != {name})
        }
        _check_terms(equation, where, others, treatment)
    by_name = {equation.name: equation for equation in equations}
    moderators = moderators_on(arrows, by_name)
    held = check_at(at, equations, treatment, moderators)
    refuse_unreached(held, equations)
    compared = compared_values([e for e in equations if e.name in nodes], treatment, contrast, held)
    slopes = [
        find_slope(by_name[end], Question(start, compared if start == treatment else None, held, start == treatment))
        for start, end in arrows
    ]
    names, labels = _names(arrows, ways, [equation.name for equation in equations], treatment)
    claimed = {
        end: np.sum(
            [np.abs(slope.random) for slope, (_, own) in zip(slopes, arrows, strict=True) if own == end], axis=0
        )
        for _, end in arrows
    }
    at_arrow = {arrow: k for k, arrow in enumerate(arrows)}
    return Routes(
        names,
        tuple(_padded(equations, end, slope) for (_, end), slope in zip(arrows, slopes, strict=True)),
        tuple(tuple(at_arrow[step] for step in pairwise(way)) for way in ways),
        labels,
        tuple(arrows),
        tuple(_other_slopes(by_name[end], claimed[end]) for _, end in arrows),
    )


def _arrows(equations: Sequence[EquationLayout], treatment: str) -> tuple[list[Arrow], list[tuple[str, ...]]]:
    """All arrows on routes, by target and source, and the routes; with one mediator all three, present or not."""
    names, outcome = [equation.name for equation in equations], equations[-1].name
    if len(equations) == 2:
        arrows = [(treatment, names[0]), (names[0], outcome), (treatment, outcome)]
        return arrows, [(treatment, *names), (treatment, outcome)]
    every = dict.fromkeys((treatment, *names))  # a mediator may be the treatment
    sources = {e.name: [node for node in every if node != e.name and reads(e, node)] for e in equations}
    ways = routes_between({**sources, treatment: []}, treatment, outcome)
    indirect = [way for way in ways if len(way) > 2]
    if not indirect:
        raise EffectError(
            f"no route leads from the treatment {treatment} through a mediator to {outcome}: "
            f"{'; '.join(f'{name} depends on ' + (', '.join(own) or 'none of them') for name, own in sources.items())}"
        )
    used = {step for way in indirect for step in pairwise(way)}
    order = _causal_order(sources, names)
    by_target = [(one, end) for end in order for one in dict.fromkeys((treatment, *order)) if (one, end) in used]
    return [*by_target, (treatment, outcome)], [*indirect, (treatment, outcome)]


def _causal_order(sources: Mapping[str, Collection[str]], names: Sequence[str]) -> list[str]:
    """Responses so that each stands after those it depends on, otherwise as given."""
    order: list[str] = []
    while len(order) < len(names):
        order.append(
            next(n for n in names if n not in order and all(one in order for one in sources[n] if one in names))
        )
    return order


def _names(
    arrows: Sequence[Arrow], ways: Sequence[tuple[str, ...]], responses: Sequence[str], treatment: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the slopes, and of the effects of the routes."""
    outcome, single = responses[-1], len(responses) == 2

    def slope(start: str, end: str) -> str:
        if start == treatment:
            return CPRIME if end == outcome else A if single else f"{A}[{end}]"
        if end == outcome:
            return B if single else f"{B}[{start}]"
        return f"d[{start},{end}]"

    def effect(way: tuple[str, ...]) -> str:
        inner = ",".join(way[1:-1])
        return DIRECT if not inner else INDIRECT if single else f"{INDIRECT}[{inner}]"

    return tuple(slope(*arrow) for arrow in arrows), tuple(map(effect, ways))


def moderators_on(arrows: Sequence[Arrow], by_name: Mapping[str, EquationLayout]) -> set[str]:
    """Variables on which a slope depends: they share a term with the source of an arrow, and lie on no route."""
    nodes = {node for arrow in arrows for node in arrow}
    return {name for start, end in arrows for name in moderators_of(by_name[end], start)} - nodes


def check_at(
    at: Mapping[str, Any] | None,
    equations: Sequence[EquationLayout],
    treatment: str,
    moderators: Collection[str],
) -> dict[str, Any]:
    """Check values of moderators; booleans of numeric ones become 0 and 1.

    Parameters
    ----------
    at : mapping or None
        From the user.
    equations : sequence of EquationLayout
        Mediators and outcome.
    treatment : str
        Column of the treatment x.
    moderators : collection of str
        Names that are allowed.

    Raises
    ------
    EffectError
        A name on which no path depends, or a value that is not one finite number.
    """
    held = check_mapping(at, "at", "at={'w': 1.0}")
    levels = {name: value for equation in equations for name, value in equation.levels.items()}
    for name, value in held.items():
        if name not in moderators:
            may = f"choose among {', '.join(sorted(moderators))}" if moderators else "no path has one, so leave it out"
            raise EffectError(
                f"at names {name}, {_role(name, equations, treatment)}; at= has the values of moderators: {may}"
            )
        if name in levels:
            if not is_one_value(value):
                raise EffectError(f"at gives {name} the value {shown(value)}; it must be one of its levels")
            continue
        number = as_number(value)
        if number is None:
            raise EffectError(f"at gives {name} the value {shown(value)}; it must be a number (not nan or missing)")
        held[name] = number
    return held


def _role(name: str, equations: Sequence[EquationLayout], treatment: str) -> str:
    """Describe a variable that is no moderator."""
    if name == treatment:
        return "the treatment; effects are those of a change in it (see contrast=)"
    *mediators, outcome = [equation.name for equation in equations]
    if name == outcome:
        return "the outcome"
    if name in mediators:
        return "the mediator" if len(mediators) == 1 else "a mediator"
    if any(name in equation.typical for equation in equations):
        return "a predictor on which no path depends (no term has it together with treatment or mediator)"
    return "which no equation uses"


def _check_terms(equation: EquationLayout, where: str, variables: Mapping[str, frozenset[str]], treatment: str) -> None:
    """Refuse terms that leave treatment or mediators without a single slope in an equation.

    ``variables``: columns that each mediator is computed from.
    """
    for encoding in equation.encodings:
        for term in encoding.terms:
            names, told = term_variables(term), display_name(str(term))
            there = [m for m, own in variables.items() if names & own]
            for mediator in there:
                other = treatment if treatment in names else next((m for m in there if m != mediator), None)
                if other is not None:
                    raise EffectError(
                        f"the {where} has the term {told}: the effect of {mediator} depends on {other}, so there is "
                        "no single b to make an indirect effect of; drop it, or combine coefficients with nlcom()"
                    )
                if variables[mediator] != {mediator} and told != mediator:
                    raise EffectError(
                        f"the {where} has the term {told} beside the mediator {mediator}, whose effect is then "
                        f"not a single slope; make a column of {mediator} before the fit and use it in both equations"
                    )


def _padded(equations: Sequence[EquationLayout], end: str, path: Path) -> Path:
    """Pad one equation's contrast to the length of beta and u."""
    fixed = [path.fixed if own.name == end else np.zeros(len(own.fixed)) for own in equations]
    random = [path.random if own.name == end else np.zeros(len(own.random)) for own in equations]
    return replace(path, fixed=np.concatenate(fixed), random=np.concatenate(random))


def _other_slopes(equation: EquationLayout, claimed: Array) -> tuple[str, ...]:
    """Random slopes outside the paths of their equation."""
    pairs = zip(equation.random, claimed, strict=True)
    return tuple(labelled(equation.name, name) for name, weight in pairs if name != INTERCEPT and weight == 0.0)
