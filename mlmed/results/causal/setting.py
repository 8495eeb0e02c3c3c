"""What effects are averages of: columns at chosen values, random effects, spread of the mediator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlmed.effects.average import Setting
from mlmed.effects.potential import Counterfactual
from mlmed.effects.uncertainty import Law, compared
from mlmed.errors import FormulaError
from mlmed.fit.lmm import LmmFit
from mlmed.lmm.ranef import ModeLaw
from mlmed.options import OF, RANEF_DRAWS, one_of
from mlmed.results.causal.fit import EquationFit, Grouping
from mlmed.text import Compact

__all__ = ["Chain", "Prepared", "Question", "check_linear"]

Array = NDArray[np.float64]
#: Columns of the outcome may differ from a straight line in the mediator by this much, relative to their size.
LINEAR = 1e-8


@dataclass(frozen=True, slots=True)
class Question:
    """Of what effects are asked.

    Attributes
    ----------
    at : mapping
        Values of covariates in every row; the others stay as they are.
    of : {"cluster", "population"}
        Whether random effects enter by their conditional modes, or are averaged out.
    ranef_draws : {"joint", "independent"}
        How they move with the fixed effects.
    by_cluster : bool
        Whether each cluster is asked for by itself.
    """

    at: Mapping[str, Any] = field(default_factory=dict)
    of: str = "cluster"
    ranef_draws: str = "joint"
    by_cluster: bool = False

    def __post_init__(self) -> None:
        """Refuse words that mean nothing."""
        one_of(self.of, OF, "of")
        one_of(self.ranef_draws, RANEF_DRAWS, "ranef_draws")


@dataclass(frozen=True, slots=True, repr=False)
class Prepared(Compact):
    """A question as arrays.

    Attributes
    ----------
    setting : Setting
        Columns, families and clusters.
    mediator, outcome : Law
        What is known of the coefficients.
    order : (n,) int array
        Position in the table of every row of the setting.
    averaged_out : (2, n, q_m) array
        Columns of the mediator's random effects where these belong to its spread; otherwise n is 0.
    """

    setting: Setting
    mediator: Law
    outcome: Law
    order: NDArray[np.intp]
    averaged_out: Array


@dataclass(frozen=True, slots=True, repr=False)
class Columns(Compact):
    """Columns under both treatment values.

    Attributes
    ----------
    fixed, random : Counterfactual
        Of the fixed and of the random effects; no columns where an equation has none.
    """

    fixed: Counterfactual
    random: Counterfactual


@dataclass(frozen=True, slots=True, repr=False)
class Chain(Compact):
    """Treatment -> mediator -> outcome, fitted.

    Attributes
    ----------
    mediator, outcome : EquationFit
        Both equations.
    treatment : str
        The column.
    contrast : pair
        Control and treated, as the formulas see them.
    grouping : Grouping or None
        Clusters of the rows.
    """

    mediator: EquationFit
    outcome: EquationFit
    treatment: str
    contrast: tuple[Any, Any]
    grouping: Grouping | None

    @property
    def levels(self) -> tuple[Any, Any]:
        """Two values of the mediator between which the outcome is a line: 0 and 1, or the only two that it has."""
        values = self.outcome.layout.observed.get(self.mediator.name, ())
        return self.mediator.coding or ((values[0], values[1]) if len(values) == 2 else (0.0, 1.0))

    @property
    def numbers(self) -> tuple[float, float]:
        """What these values count as in the equation of the mediator."""
        return (0.0, 1.0) if self.mediator.coding else self.levels

    @property
    def is_mixed(self) -> bool:
        """Whether an equation has random effects."""
        return self.mediator.is_mixed or self.outcome.is_mixed

    def columns(self, at: Mapping[str, Any]) -> Columns:
        """Columns of both equations at control and at treated, the other variables as they are or as ``at`` says."""
        cases = [{**at, self.treatment: value} for value in self.contrast]
        fixed = self._counterfactual(cases, random=False)
        return Columns(fixed, self._counterfactual(cases, random=True) if self.is_mixed else _nothing(fixed))

    def _counterfactual(self, cases: list[dict[str, Any]], *, random: bool) -> Counterfactual:
        pairs = [{**case, self.mediator.name: level} for level in self.levels for case in cases]
        outcome = self.outcome.columns(pairs, random=random)
        low, high = self.numbers
        slope = (outcome[2:] - outcome[:2]) / (high - low)
        return Counterfactual(self.mediator.columns(cases, random=random), outcome[:2] - low * slope, slope)

    def prepare(self, columns: Columns, question: Question) -> Prepared:
        """Everything that averages and their uncertainty need."""
        modes = self.is_mixed and question.of == "cluster"
        n = columns.fixed.mediator.shape[1]
        codes = np.zeros(n, dtype=np.intp)
        if self.grouping is not None and (modes or question.by_cluster):
            codes = self.grouping.codes
        order = np.argsort(codes, kind="stable")
        random = columns.random if modes else _nothing(columns.fixed)
        spread = not modes and self.mediator.is_mixed and self.outcome.family != "linear"
        averaged_out = columns.random.mediator[:, order if spread else order[:0]]
        setting = Setting(
            mediator=self.mediator.family,
            outcome=self.outcome.family,
            fixed=_rows(columns.fixed, order),
            random=_rows(random, order),
            noise=self._noise(averaged_out),
            starts=np.flatnonzero(np.append(True, np.diff(codes[order]) > 0)),
            weights=np.ones(n),
        )
        mediator, outcome = (self._law(one, question, modes=modes) for one in (self.mediator, self.outcome))
        fixed = setting.fixed
        mediator = _comparing(mediator, [fixed.mediator[1] - fixed.mediator[0]])
        outcome = _comparing(outcome, [fixed.outcome[1] - fixed.outcome[0], *fixed.slope])
        return Prepared(setting, mediator, outcome, order, averaged_out)

    def _noise(self, Z: Array) -> Array:
        """Spread of the mediator around its linear predictor; ``Z`` as ``Prepared.averaged_out``."""
        fit, sigma = self.mediator.fit, self.mediator.sigma
        if not isinstance(fit, LmmFit) or not Z.shape[1]:
            return np.full((2, 1), sigma)
        return np.sqrt(np.einsum("tna,ab,tnb->tn", Z, fit.estimates.G, Z, optimize=True) + sigma**2)

    def _law(self, equation: EquationFit, question: Question, *, modes: bool) -> Law:
        law = equation.law if modes else None
        if law is not None and question.ranef_draws == "independent":
            law = law.independent()
        return Law(equation.beta, equation.covariance, None if law is None else self._in_order(equation, law))

    def _in_order(self, equation: EquationFit, law: ModeLaw) -> ModeLaw:
        """Clusters as the rows number them."""
        assert isinstance(equation.fit, LmmFit)
        assert self.grouping is not None
        at = equation.fit.clusters.get_indexer(self.grouping.clusters)
        return ModeLaw(law.modes[at], law.root[at], law.slide[at])


def _comparing(law: Law, differences: list[NDArray[np.float64]]) -> Law:
    """With what is lost of the differences (n, p) that effects compare, alone."""
    return replace(law, vcov=law.vcov.losing(compared(law.vcov.lost, differences)))


def _rows(columns: Counterfactual, order: NDArray[np.intp]) -> Counterfactual:
    return Counterfactual(columns.mediator[:, order], columns.outcome[:, order], columns.slope[:, order])


def _nothing(columns: Counterfactual) -> Counterfactual:
    """No random effects."""
    empty = np.empty((*columns.mediator.shape[:2], 0))
    return Counterfactual(empty, empty, empty)


def check_linear(chain: Chain) -> None:
    """Refuse an outcome equation that is not a straight line in the mediator.

    Raises
    ------
    FormulaError
        The mediator is transformed, or enters with a power.
    """
    name, outcome, (low, high) = chain.mediator.name, chain.outcome, chain.numbers
    share = ((chain.mediator.design.y - low) / (high - low))[:, None]
    for random in (False, True) if outcome.is_mixed else (False,):
        try:
            first, second, seen = outcome.columns([{name: level} for level in chain.levels] + [{}], random=random)
        except FormulaError as error:
            raise _curved(outcome, name) from error
        line = first + share * (second - first)
        if np.any(np.abs(seen - line) > LINEAR * np.maximum(np.abs(seen), np.abs(line)).max(axis=0)):
            raise _curved(outcome, name)


def _curved(outcome: EquationFit, name: str) -> FormulaError:
    return FormulaError(
        f"the outcome equation {outcome.equation.text!r} is not a straight line in the mediator {name} (it is "
        f"transformed, or enters with a power), so its expectation over {name} has no closed form here. Make a column "
        "of the transformed mediator before the fit and use it in both equations"
    )
