"""Two fitted equations as one model of potential outcomes: what is asked of it, as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mlmed.data.layout import Dropped
from mlmed.effects.delta import Quantity
from mlmed.effects.potential import Counterfactual
from mlmed.effects.uncertainty import Contrasts, contrast_covariance, slopes_at
from mlmed.notes import Note
from mlmed.results.causal.checks import check_at
from mlmed.results.causal.fit import EquationFit, Errors
from mlmed.results.causal.intervals import question_of
from mlmed.results.causal.setting import Chain, Columns, Prepared, Question
from mlmed.results.causal.tables import cluster_notes, contrast_quantities, fixed_effects, interval_subject

__all__ = ["CausalFit"]


@dataclass(frozen=True)
class CausalFit:
    """Two fitted equations, a treatment, and the values of it that are compared.

    Attributes
    ----------
    chain : Chain
        Both fits, the treatment and the two values of it.
    errors : Errors
        Which standard errors the coefficients have.
    dropped : Dropped or None
        Rows left out of both equations.
    remarks : tuple of Note
        What was seen in the table and in the question, beside what the fits themselves say.
    """

    chain: Chain
    errors: Errors
    dropped: Dropped | None
    remarks: tuple[Note, ...] = ()

    @property
    def notes(self) -> tuple[Note, ...]:
        """What to know of the fit, each with a ``code`` and a ``text``; the warnings of fitting it."""
        own = () if self.dropped is None else (Note("rows-left-out", str(self.dropped)),)
        return *own, *self.mediator.notes, *self.outcome.notes, *self.remarks

    @property
    def mediator(self) -> EquationFit:
        """The mediator equation: ``family``, ``fit``, ``vcov``, ``design``."""
        return self.chain.mediator

    @property
    def outcome(self) -> EquationFit:
        """The outcome equation."""
        return self.chain.outcome

    @property
    def treatment(self) -> str:
        """The column that plays the treatment."""
        return self.chain.treatment

    @property
    def contrast(self) -> tuple[Any, Any]:
        """Control and treated."""
        return self.chain.contrast

    @property
    def nobs(self) -> int:
        """Rows, the same in both equations."""
        return len(self.mediator.design.y)

    @cached_property
    def _columns(self) -> Columns:
        return self.chain.columns({})

    def _columns_at(self, at: Mapping[str, Any]) -> Columns:
        return self.chain.columns(at) if at else self._columns

    def _check_at(self, at: Mapping[str, Any] | None) -> dict[str, Any]:
        return check_at(at, (self.mediator.layout, self.outcome.layout), self.treatment, self.mediator.name)

    def counterfactual(self, at: Mapping[str, Any] | None = None) -> Counterfactual:
        """Fixed-effects columns of both equations under both values of the treatment.

        Parameters
        ----------
        at : mapping, optional
            Values of covariates in every row.
        """
        return self._columns_at(self._check_at(at)).fixed

    @cached_property
    def interaction(self) -> bool:
        """Whether the slope of the mediator depends on the treatment."""
        return self._columns.fixed.interaction or self._columns.random.interaction

    @cached_property
    def fixed(self) -> dict[str, str]:
        """Effects that the formulas fix, and why."""
        parts = (self._columns.fixed, self._columns.random)
        return fixed_effects(any(part.interaction or not np.array_equal(*part.outcome) for part in parts))

    def question(
        self,
        at: Mapping[str, Any] | None,
        of: str | None,
        ranef_draws: str | None = None,
        *,
        by_cluster: bool = False,
    ) -> Question:
        """What is asked, checked."""
        found = self._check_at(at)
        return question_of(found, of, ranef_draws, is_mixed=self.chain.is_mixed, by_cluster=by_cluster)

    def prepared(self, question: Question) -> Prepared:
        """A question as arrays."""
        return self.chain.prepare(self._columns_at(question.at), question)

    def covariance_of(self, prepared: Prepared) -> Contrasts:
        """Contrasts and coefficients with their first-order covariance."""
        laws = prepared.mediator, prepared.outcome
        return contrast_covariance(slopes_at(prepared.setting, *laws), *laws)

    @property
    def both_slopes_vary(self) -> bool:
        """Whether the slopes of the treatment (on the mediator) and of the mediator both vary over clusters."""
        random = self._columns.random
        return bool(np.any(random.mediator[0] != random.mediator[1]) and np.any(random.slope))

    def subject(self, prepared: Prepared, question: Question) -> str:
        """What an interval is about if it rests on random effects."""
        return interval_subject(len(prepared.setting.starts), joint=question.ranef_draws == "joint")

    def about(self, prepared: Prepared, found: Contrasts, question: Question) -> dict[str, str]:
        """What intervals of effects that rest on random effects are about, by term."""
        return cluster_notes(found, len(prepared.setting.starts), joint=question.ranef_draws == "joint")

    def quantities(self, prepared: Prepared, found: Contrasts, question: Question | None = None) -> dict[str, Quantity]:
        """Every effect at the estimates; with the question, what its intervals are about where they need a word."""
        notes = {} if question is None else self.about(prepared, found, question)
        return contrast_quantities(found, self.fixed, notes)
