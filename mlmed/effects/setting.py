"""Rows of counterfactual effects: columns at chosen values, random effects, spread of the mediator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.design import encode_each
from mlmed.data.encoding import to_encodable
from mlmed.data.layout import EquationLayout
from mlmed.effects.average import Setting
from mlmed.effects.potential import Counterfactual
from mlmed.effects.uncertainty import Law, compared
from mlmed.errors import FormulaError
from mlmed.fit.glm import Grouping, PlainFit
from mlmed.fit.lmm import LmmFit
from mlmed.fit.same_rows import SameRowsFit, family_of
from mlmed.fit.system import Component, equation_of
from mlmed.fit.vcov import lost_along, too_few
from mlmed.formula import Equation
from mlmed.lmm.ranef import ModeLaw
from mlmed.lmm.vcov import Vcov, leading
from mlmed.options import OF, RANEF_DRAWS, ROBUST_KINDS, one_of
from mlmed.text import Compact

Array = NDArray[np.float64]
#: Relative deviation of the outcome's columns from a straight line in the mediator that counts as rounding.
LINEAR = 1e-8


@dataclass(frozen=True, slots=True)
class Question:
    """Which effects, at which place.

    Attributes
    ----------
    at : mapping
        Values of covariates in every row; others stay as observed.
    of : {"cluster", "population"}
        Whether random effects enter by their conditional modes, or are integrated out.
    ranef_draws : {"joint", "independent"}
        Whether random effects are drawn given the fixed effects, or independently.
    by_cluster : bool
        Whether effects are of each cluster.
    """

    at: Mapping[str, Any] = field(default_factory=dict)
    of: str = "cluster"
    ranef_draws: str = "joint"
    by_cluster: bool = False

    def __post_init__(self) -> None:
        """Refuse unknown words."""
        one_of(self.of, OF, "of")
        one_of(self.ranef_draws, RANEF_DRAWS, "ranef_draws")


@dataclass(frozen=True, slots=True, repr=False)
class Part(Compact):
    """One of the two equations, as effects need it.

    Attributes
    ----------
    fit : PlainFit or LmmFit
        A regression, or a mixed model.
    table : DataFrame of n rows
        Its predictors, to be encoded at other values.
    """

    fit: Component
    table: pd.DataFrame

    @property
    def family(self) -> str:
        """Family of its response."""
        return family_of(self.fit)

    @property
    def equation(self) -> Equation:
        """The formula."""
        return equation_of(self.fit)

    @property
    def name(self) -> str:
        """The response."""
        return self.equation.name

    @property
    def is_mixed(self) -> bool:
        """Whether it has random effects."""
        return isinstance(self.fit, LmmFit)

    @property
    def layout(self) -> EquationLayout:
        """Encodings of the fixed part and, in a mixed model, of the random terms."""
        return self.fit.layout.equations[0] if isinstance(self.fit, LmmFit) else self.fit.layout

    @property
    def coding(self) -> tuple[Any, Any] | None:
        """The levels coded 0 and 1, if the response is a factor."""
        return self.fit.coding if isinstance(self.fit, PlainFit) else None

    @property
    def beta(self) -> Array:
        """Fixed effects, (p,)."""
        return self.fit.estimates.beta if isinstance(self.fit, LmmFit) else self.fit.psi

    @property
    def sigma(self) -> float:
        """Residual standard deviation; NaN for families other than linear."""
        return float(np.sqrt(self.fit.estimates.sigma2[0] if isinstance(self.fit, LmmFit) else self.fit.sigma2))

    def vcov(self, kind: str) -> Vcov:
        """Covariance of the fixed effects."""
        V, p = self.fit.vcov(kind), len(self.beta)
        if not isinstance(self.fit, LmmFit):
            return V
        V = leading(V, p)
        if kind not in ROBUST_KINDS:
            return V
        text = lost_along("use vcov='block' without cluster=", "clusters")
        note = too_few("a robust covariance", len(self.fit.clusters), p, "coefficients")
        return V.saying(lost=tuple(replace(one, text=text) for one in V.lost), note=note)

    def columns(self, cases: Sequence[Mapping[str, Any]], *, random: bool = False) -> Array:
        """Columns of the fixed or of the random part with variables set to values, (cases, n, p or q)."""
        layout = self.layout
        return encode_each(layout.encodings[1:] if random else layout.encodings[:1], layout, self.table, cases)

    def modes(self, clusters: pd.Index, ranef_draws: str) -> ModeLaw | None:
        """Random effects of these clusters given the data; None in an ordinary regression."""
        if not isinstance(self.fit, LmmFit):
            return None
        law, at = self.fit.law(), self.fit.clusters.get_indexer(clusters)
        law = law.independent() if ranef_draws == "independent" else law
        return ModeLaw(law.modes[at], law.root[at], law.slide[at])


@dataclass(frozen=True, slots=True, repr=False)
class Rows(Compact):
    """A question as arrays.

    Attributes
    ----------
    setting : Setting
        Columns, families and clusters.
    modes : pair of ModeLaw or None
        Random effects of mediator and outcome that enter.
    order : (n,) int array
        Position in the table of every row of the setting.
    averaged_out : (2, n, q_m) array
        Columns of the mediator's random effects that are integrated out into its spread; otherwise n is 0.
    """

    setting: Setting
    modes: tuple[ModeLaw | None, ModeLaw | None]
    order: NDArray[np.intp]
    averaged_out: Array


@dataclass(frozen=True, repr=False)
class Chain(Compact):
    """Treatment -> mediator -> outcome, fitted.

    Attributes
    ----------
    mediator, outcome : Part
        Both equations.
    treatment : str
        Its column.
    contrast : pair
        Control and treated, as the formulas see them.
    grouping : Grouping or None
        Clusters of the rows.
    """

    mediator: Part
    outcome: Part
    treatment: str
    contrast: tuple[Any, Any]
    grouping: Grouping | None

    @classmethod
    def of(cls, fit: SameRowsFit, treatment: str, contrast: tuple[Any, Any]) -> Chain:
        """Make the chain of two equations fitted to the same rows."""
        assert fit.rows is not None
        mediator, outcome = (_part(fit.components[role], fit.rows.table) for role in ("mediator", "outcome"))
        return cls(mediator, outcome, treatment, contrast, fit.rows.grouping)

    @property
    def parts(self) -> tuple[Part, Part]:
        """Mediator and outcome."""
        return self.mediator, self.outcome

    @property
    def levels(self) -> tuple[Any, Any]:
        """Two values of the mediator that define the line of the outcome: 0 and 1, or its only two values."""
        values = self.outcome.layout.observed.get(self.mediator.name, ())
        return self.mediator.coding or ((values[0], values[1]) if len(values) == 2 else (0.0, 1.0))

    @property
    def numbers(self) -> tuple[float, float]:
        """Numeric codes of these values in the equation of the mediator."""
        return (0.0, 1.0) if self.mediator.coding else self.levels

    @property
    def is_mixed(self) -> bool:
        """Whether an equation has random effects."""
        return any(part.is_mixed for part in self.parts)

    @cached_property
    def as_they_are(self) -> tuple[Counterfactual, Counterfactual]:
        """The columns with covariates as observed."""
        return self.columns({})

    def columns(self, at: Mapping[str, Any]) -> tuple[Counterfactual, Counterfactual]:
        """Columns of the fixed and of the random effects of both equations at control and at treated.

        Other variables are as observed or held by ``at``; an equation without random effects has no such columns.
        """
        cases = [{**at, self.treatment: value} for value in self.contrast]
        fixed = self._counterfactual(cases, random=False)
        return fixed, self._counterfactual(cases, random=True) if self.is_mixed else _nothing(fixed)

    def _counterfactual(self, cases: list[dict[str, Any]], *, random: bool) -> Counterfactual:
        pairs = [{**case, self.mediator.name: level} for level in self.levels for case in cases]
        outcome = self.outcome.columns(pairs, random=random)
        low, high = self.numbers
        slope = (outcome[2:] - outcome[:2]) / (high - low)
        return Counterfactual(self.mediator.columns(cases, random=random), outcome[:2] - low * slope, slope)

    def rows(self, fixed: Counterfactual, random: Counterfactual, question: Question) -> Rows:
        """Collect everything that averages need; columns from ``columns``."""
        with_modes = self.is_mixed and question.of == "cluster"
        n = fixed.mediator.shape[1]
        codes = np.zeros(n, dtype=np.intp)
        if self.grouping is not None and (with_modes or question.by_cluster):
            codes = self.grouping.codes
        order = np.argsort(codes, kind="stable")
        spread = not with_modes and self.mediator.is_mixed and self.outcome.family != "linear"
        averaged_out = random.mediator[:, order if spread else order[:0]]
        setting = Setting(
            mediator=self.mediator.family,
            outcome=self.outcome.family,
            fixed=_ordered(fixed, order),
            random=_ordered(random if with_modes else _nothing(fixed), order),
            noise=self._noise(averaged_out),
            starts=np.flatnonzero(np.append(True, np.diff(codes[order]) > 0)),
            weights=np.ones(n),
        )
        modes: tuple[ModeLaw | None, ModeLaw | None] = (None, None)
        if with_modes and self.grouping is not None:
            clusters = self.grouping.clusters
            modes = tuple(part.modes(clusters, question.ranef_draws) for part in self.parts)  # type: ignore[assignment]
        return Rows(setting, modes, order, averaged_out)

    def _noise(self, Z: Array) -> Array:
        """Spread of the mediator around its linear predictor; ``Z`` as ``Rows.averaged_out``."""
        fit, sigma = self.mediator.fit, self.mediator.sigma
        if not isinstance(fit, LmmFit) or not Z.shape[1]:
            return np.full((2, 1), sigma)
        return np.sqrt(np.einsum("tna,ab,tnb->tn", Z, fit.estimates.G, Z, optimize=True) + sigma**2)

    def laws(self, rows: Rows, vcovs: Sequence[Vcov]) -> tuple[Law, Law]:
        """Distributions of the coefficients, without directions that a single cluster or row alone identifies."""
        fixed = rows.setting.fixed
        differences = (
            [fixed.mediator[1] - fixed.mediator[0]],
            [fixed.outcome[1] - fixed.outcome[0], *fixed.slope],
        )
        first, second = (
            Law(part.beta, V.losing(compared(V.lost, columns)), modes)
            for part, V, columns, modes in zip(self.parts, vcovs, differences, rows.modes, strict=True)
        )
        return first, second


def _part(fit: Component, table: pd.DataFrame) -> Part:
    if isinstance(fit, PlainFit):
        return Part(fit, fit.design.table)
    used = fit.spec.equations[0].variables
    return Part(fit, to_encodable(table[[name for name in table.columns if name in used]]))


def _ordered(columns: Counterfactual, order: NDArray[np.intp]) -> Counterfactual:
    return Counterfactual(columns.mediator[:, order], columns.outcome[:, order], columns.slope[:, order])


def _nothing(columns: Counterfactual) -> Counterfactual:
    """No random effects."""
    empty = np.empty((*columns.mediator.shape[:2], 0))
    return Counterfactual(empty, empty, empty)


def check_linear(chain: Chain, mediator: Array) -> None:
    """Refuse an outcome equation that is not linear in the mediator, given by its values in the rows.

    Raises
    ------
    FormulaError
        The mediator is transformed, or enters with a power.
    """
    name, outcome, (low, high) = chain.mediator.name, chain.outcome, chain.numbers
    share = ((mediator - low) / (high - low))[:, None]
    for random in (False, True) if outcome.is_mixed else (False,):
        try:
            first, second, seen = outcome.columns([{name: level} for level in chain.levels] + [{}], random=random)
        except FormulaError as error:
            raise _curved(outcome, name) from error
        line = first + share * (second - first)
        if np.any(np.abs(seen - line) > LINEAR * np.maximum(np.abs(seen), np.abs(line)).max(axis=0)):
            raise _curved(outcome, name)


def _curved(outcome: Part, name: str) -> FormulaError:
    return FormulaError(
        f"the outcome equation {outcome.equation.text!r} is not a straight line in the mediator {name} (it is "
        f"transformed, or enters with a power), so its expectation over {name} has no closed form here. Make a column "
        "of the transformed mediator before the fit and use it in both equations"
    )
