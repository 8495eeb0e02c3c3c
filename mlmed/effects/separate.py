"""Effects of three separate fits: mediator, outcome, and outcome without the mediator (docs/math.md, eq. 59 to 62).

psi holds the parameters of the three fits one after the other. Those of the first two are independent; the covariances
of the third with them are unknown, hence NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlmed.data.layout import EquationLayout, Layout
from mlmed.effects.catalogue import Catalogue, Effects, FormSet, IntervalOptions
from mlmed.effects.delta import std_error
from mlmed.effects.quantity import Quantity
from mlmed.effects.routes import check_at, find_routes, moderators_on
from mlmed.effects.slopes import Question, at_one_place, compared_values, find_slope, refuse_unreached, slope_note
from mlmed.fit.lmm import LmmFit
from mlmed.fit.system import SystemFit, equation_of, layout_of
from mlmed.formula import Equation, formula_variables
from mlmed.lmm.vcov import Vcov
from mlmed.notes import joined
from mlmed.system.system import System

Array = NDArray[np.float64]
T = TypeVar("T", Quantity, Array)
#: Options of each kind of interval, with defaults.
INTERVALS: IntervalOptions = {
    "delta": {"vcov": "block", "order": "second"},
    "monte-carlo": {"vcov": "block", "n": 20_000, "seed": None},
    "product": {"vcov": "block"},
    "bootstrap": {
        "n": 1000, "ends": "percentile", "strata": None, "seed": None, "n_jobs": None, "progress": False,
    },
}  # fmt: skip
LINEAR = ("a", "b", "cprime", "c")
#: The rows of the table of effects, in order.
EFFECTS = (*LINEAR, "indirect", "direct", "total", "c_minus_cprime", "prop_mediated", "ratio")
#: Quotients and their denominators.
QUOTIENTS = {"prop_mediated": "total", "ratio": "direct"}
#: Standard errors between a denominator and 0 below which a normal interval of the quotient is useless.
NEAR_ZERO = 2.0
#: Structures in which the random effects of a block covary.
TYING = ("unstructured", "exchangeable")
NO_C = "the equation without the mediator has no such treatment; say which it is with total='y ~ x + (1 | id)'"
NO_DIRECT = "fixed at 0: the treatment is not in the outcome equation"
NO_VARIANCE = "no standard error: draws of a quotient have no variance, as its denominator may be 0"
CAUTION = (
    "{name} is within two standard errors of 0, where a quotient has no normal distribution; use interval='bootstrap' "
    "or look at {name} itself"
)
BOTH_SIGNS = (
    "{name}, which it is divided by, has both signs among the draws, so its standard deviation and normal or basic "
    "intervals mean nothing; look at {name} itself"
)
NOT_JOINT = (
    "a and b both vary over clusters: the mean of a_j b_j is a*b + cov(a_j, b_j), which separate fits do not estimate "
    "and a*b leaves out; "
)
HAS_IT = "joint() has it"
NOR_HAS_JOINT = (
    "joint() would hold it at 0, as ||, labels or covariance= keep the slopes apart; mlmed.mediate has it with random "
    "terms like (1 + {x} | {group}) in both equations"
)
BLEND = (
    "a treatment of level 2 moves {m} between clusters only, while b blends its effects between and within clusters "
    "(docs/piecewise.md)"
)
WEIGHTS = (
    "need not equal a*b: each fit weights clusters by its own variances; with the same weights, as in least squares on "
    "the same rows, they would be equal"
)


@dataclass(frozen=True, slots=True)
class _Slopes:
    """a, b, cprime and c as linear functions of psi.

    Attributes
    ----------
    effects : Effects
        Effects of these slopes; c is lacking if the equation without the mediator has no treatment.
    both_vary : bool
        Whether a and b both vary over clusters.
    """

    effects: Effects
    both_vary: bool


def _find_slopes(
    layouts: tuple[EquationLayout, EquationLayout, EquationLayout],
    parts: tuple[slice, ...],
    asked: tuple[Equation, ...],
    *,
    treatment: str,
    contrast: tuple[Any, Any] | None = None,
    at: Mapping[str, Any] | None = None,
) -> _Slopes:
    """Contrasts of the four paths.

    Parameters
    ----------
    layouts : tuple of 3 EquationLayout
        Mediator, outcome, outcome without the mediator.
    parts : tuple of 3 slices
        Slice of psi for each fit, fixed effects first.
    asked : tuple of 2 Equation
        Mediator and outcome as asked for.
    treatment, contrast, at
        As in ``find_routes``; the default of a moderator is its mean or first level in the outcome equation.

    Raises
    ------
    EffectError
        As ``find_routes``.
    """
    third, first, second = at_one_place((layouts[2], layouts[0], layouts[1]))
    three = [(treatment, first.name), (first.name, second.name), (treatment, second.name)]
    above = moderators_on(three, {one.name: one for one in (first, second)})
    below = moderators_on([(treatment, third.name)], {third.name: third})
    held = check_at(at, (first, second), treatment, above | below)
    pair = compared_values((first, second, third), treatment, contrast, held)
    here, there = ({name: held[name] for name in held if name in known} for known in (above, below))
    routes = find_routes(Layout(asked, (), (first, second), (), 0), treatment=treatment, contrast=pair, at=here)
    refuse_unreached(there, (third,))
    reduced = find_slope(third, Question(treatment, pair, there, True))
    weights, p = np.zeros((4, parts[-1].stop)), len(first.fixed)
    weights[0, parts[0].start : parts[0].start + p] = routes["a"].fixed[:p]
    for row, fixed, part in (
        (1, routes["b"].fixed[p:], parts[1]),
        (2, routes["cprime"].fixed[p:], parts[1]),
        (3, reduced.fixed, parts[2]),
    ):
        weights[row, part.start : part.start + len(fixed)] = fixed
    four = (*routes.slopes, reduced)
    notes = tuple(slope_note(path, absent) for path, absent in zip(four, ("", "", NO_DIRECT, NO_C), strict=True))
    lacking = frozenset() if reduced.is_present else frozenset({"c"})
    taken = tuple((path.note,) for path in four)
    effects = Effects(separate_effects, LINEAR, weights, notes, taken, lacking, tuple(path.held for path in four))
    return _Slopes(effects, bool(routes["a"].random.any() and routes["b"].random.any()))


def separate_effects(a: T, b: T, cprime: T, c: T) -> dict[str, T]:
    """The effects of separate fits (eq. 59 to 61)."""
    indirect = a * b
    total = indirect + cprime
    with np.errstate(divide="ignore", invalid="ignore"):
        share, ratio = indirect / total, indirect / cprime
    return dict(zip(EFFECTS, (a, b, cprime, c, indirect, cprime, total, c - cprime, share, ratio), strict=True))


def _quantities(slopes: _Slopes, psi: Array, remarks: Mapping[str, str]) -> dict[str, Quantity]:
    """All effects with their derivatives (eq. 61) and ``remarks`` by term."""
    found = slopes.effects.quantities(psi)
    said = {term: [remarks.get(term, "")] for term in found}
    for term, below in QUOTIENTS.items():
        if found[below].estimate == 0.0:
            said[term].insert(0, f"not defined: {below} is 0")
    return {term: replace(q, note=joined(q.note, *said[term])) for term, q in found.items()}


@dataclass(frozen=True, slots=True)
class SeparateCatalogue(Catalogue):
    """Effects of separate fits: a, b, cprime, c, indirect = a b, direct, total, c_minus_cprime, prop_mediated, ratio.

    Attributes
    ----------
    treatment : str
        Column of the treatment x.
    contrast : pair or None
        Values of the treatment that are compared; None for a unit change.
    """

    school: ClassVar[str] = "piecewise"
    meaning: ClassVar[str] = "indirect = a*b"
    intervals: ClassVar[IntervalOptions] = INTERVALS
    #: Effects shared with other schools; separate equations have no cov_ab.
    terms: ClassVar[tuple[str, ...]] = ("a", "b", "cprime", "indirect", "direct", "total")

    treatment: str
    contrast: tuple[Any, Any] | None = None

    def label(self, fit: SystemFit) -> str:
        """Name of such a fit in a comparison."""
        return f"piecewise {fit.method.upper()}"

    def title(self, fit: SystemFit) -> str:
        """Title of a summary."""
        m, y = (equation_of(fit.components[role]).name for role in ("mediator", "outcome"))
        return f"Multilevel mediation, separate equations: {self.treatment} -> {m} -> {y}"

    @property
    def entries(self) -> dict[str, Any]:
        """Entries of a document about the question."""
        return {"treatment": self.treatment, "contrast": self.contrast}

    def effects(self, fit: SystemFit, at: Mapping[str, Any] | None = None) -> FormSet:
        """The effects at values of moderators; by default their mean or first level in the outcome equation.

        Raises
        ------
        EffectError
            As ``find_routes``.
        """
        first, second, third = (layout_of(one) for one in fit.components.values())
        asked = tuple(equation_of(one) for one in fit.components.values())[:2]
        slopes = _find_slopes(
            (first, second, third), fit.parts, asked, treatment=self.treatment, contrast=self.contrast, at=at
        )
        known = _quantities(slopes, fit.psi, _remarks(fit, self.treatment, slopes))
        unspread = dict.fromkeys(QUOTIENTS, NO_VARIANCE)
        return FormSet(fit, slopes.effects, known, None, unspread, partial(_cautions, known), _of_quotients)


def joint_spec(fit: SystemFit) -> System:
    """Specify mediator and outcome as one model, with the covariance structures of both."""
    specs = [one.spec for one in fit.components.values() if isinstance(one, LmmFit)][:2]
    structures = [spec.covariance for spec in specs]
    both = structures[1] if isinstance(structures[1], str) else {k: v for one in structures for k, v in one.items()}  # type: ignore[union-attr]
    return System(tuple(spec.equations[0] for spec in specs), specs[0].method, both)


def _joint_ties_slopes(fit: SystemFit, treatment: str) -> bool:
    """Whether the joint model of the same formulas lets the random slopes of a and b covary."""
    spec = joint_spec(fit)
    sought = (0, frozenset({treatment})), (1, formula_variables(spec.equations[0].response))
    for block in spec.blocks:
        found = [(e, formula_variables(spec.equations[e].random[t].formula)) for e, t in block.terms]
        tied = all(any(e == k and names & own for e, names in found) for k, own in sought)
        if tied and block.structure in TYING:
            return True
    return False


def _remarks(fit: SystemFit, treatment: str, slopes: _Slopes) -> dict[str, str]:
    """Notes on effects, by term."""
    mediator, outcome, reduced = fit.components.values()
    said = {"c_minus_cprime": WEIGHTS}
    if outcome.nobs != reduced.nobs:
        said["c_minus_cprime"] += f"; c comes from {reduced.nobs} rows, c' from {outcome.nobs}"
    notes = []
    if slopes.both_vary:
        apart = NOR_HAS_JOINT.format(x=treatment, group=fit.group_name)
        notes.append(NOT_JOINT + (HAS_IT if _joint_ties_slopes(fit, treatment) else apart))
    if fit.design == "2-1-1":
        notes.append(BLEND.format(m=equation_of(mediator).name))
    return {**said, "indirect": joined(*notes)}


def _cautions(quantities: Mapping[str, Quantity], V: Vcov) -> dict[str, str]:
    """Notes on quotients whose denominator may be 0."""
    said = {}
    for term, below in QUOTIENTS.items():
        error = std_error(quantities[below], V)
        if np.isfinite(quantities[term].estimate) and abs(quantities[below].estimate) < NEAR_ZERO * error:
            said[term] = CAUTION.format(name=below)
    return said


def _of_quotients(draws: Mapping[str, Array]) -> dict[str, str]:
    """Notes on quotients whose denominator has draws on both sides of 0, where the quotient is unbounded."""
    return {
        term: BOTH_SIGNS.format(name=below)
        for term, below in QUOTIENTS.items()
        if (draws[below] > 0.0).any() and (draws[below] < 0.0).any()
    }
