"""What is done with every data set of a planned design: the fit and the intervals that will be used."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import unwrap
from typing import Any

import numpy as np
import pandas as pd

from mlmed.api.mediate import MediationResults, mediate
from mlmed.api.piecewise import PiecewiseResults, piecewise
from mlmed.errors import DataError, EffectError, NotIdentifiedError
from mlmed.intervals import table as intervals
from mlmed.intervals.options import check_options
from mlmed.lmm.refit import not_certified
from mlmed.options import Method, check_level, one_of
from mlmed.replication import Failure
from mlmed.results.piecewise import intervals as piecewise_intervals
from mlmed.results.results import MixedResults
from mlmed.simulate.generate import Source
from mlmed.simulate.template import Template
from mlmed.simulate.trials import Analysis, Outcome, failed, outcome_of
from mlmed.text import shown

__all__ = ["FORMULAS", "JointAnalysis", "PiecewiseAnalysis", "analysis_for", "interval_options"]

#: The fitted model by design: every random effect that the population may have.
FORMULAS = {
    "1-1-1": ("m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)"),
    "2-1-1": ("m ~ x + (1 | id)", "y ~ m + x + (1 + m | id)"),
    "2-2-1": ("m ~ x", "y ~ m + x + (1 | id)"),
}
#: Effects of separate fits that the truth has values of.
PIECEWISE_TERMS = ("a", "b", "cprime", "indirect", "direct", "total")


def interval_options(design: str, interval: str, vcov: str | None, draws: int | None, level: float) -> dict[str, Any]:
    """Arguments of ``effects`` without the seed, checked; ``vcov`` is ``joint`` where one is used and none given."""
    level = check_level(level)
    mode = intervals if design == "1-1-1" else piecewise_intervals
    uses = mode.OPTIONS[one_of(interval, mode.OPTIONS, "interval")]
    if draws is not None and uses and "n" not in uses:
        raise EffectError(f"interval={shown(interval)} draws nothing; leave out draws=")
    kind = "joint" if vcov is None and "vcov" in uses else vcov
    checked = check_options(mode.OPTIONS, interval, {"vcov": kind, "n": draws, "seed": 0 if "seed" in uses else None})
    kept: dict[str, Any] = {name: checked[name] for name in ("vcov", "n") if name in checked}
    return {"interval": interval, "level": level, **kept}


def analysis_for(source: Source, formulas: tuple[str, str], method: Method, options: dict[str, Any]) -> Analysis:
    """The analysis, tried on a data set of comfortable size so that what cannot work is said at once."""
    data = source.draw(50, 10, np.random.default_rng(0)).data
    tried = {"vcov": options["vcov"]} if "vcov" in options else {}
    if source.design != "1-1-1":
        unwrap(piecewise)(*formulas, data, treatment="x", method=method).effects(**tried)
        return PiecewiseAnalysis(formulas, method, PIECEWISE_TERMS, options)
    fit = unwrap(mediate)(*formulas, data, treatment="x", method=method)
    terms = tuple(fit.effects(**tried)["term"])
    return JointAnalysis(Template(fit.fitted), terms, options)


def _seed(options: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """A seed for intervals that draw."""
    return {"seed": int(rng.integers(2**31))} if "n" in options else {}


@dataclass(frozen=True, slots=True)
class JointAnalysis:
    """The joint fit of both equations, as ``mediate`` does it.

    Attributes
    ----------
    template : Template
        The model.
    terms : tuple of str
        Rows of its effects table.
    options : dict
        Arguments of ``effects``.
    """

    template: Template
    terms: tuple[str, ...]
    options: dict[str, Any]

    def __call__(self, data: pd.DataFrame, rng: np.random.Generator) -> Outcome:
        """Fit, and take the intervals."""
        fitted = self.template.fit(data)
        if isinstance(fitted, Failure):
            return failed(len(self.terms), fitted)
        table = MediationResults(fitted, "x").effects(**self.options, **_seed(self.options, rng))
        return outcome_of(table, self.terms, singular=fitted.is_singular)


@dataclass(frozen=True, slots=True)
class PiecewiseAnalysis:
    """Separate fits, as ``piecewise`` does them, for designs with variables at level 2.

    Attributes
    ----------
    formulas : (str, str)
        Mediator and outcome equation.
    method : str
        Criterion.
    terms : tuple of str
        Rows of its effects table that the truth has values of.
    options : dict
        Arguments of ``effects``.
    """

    formulas: tuple[str, str]
    method: Method
    terms: tuple[str, ...]
    options: dict[str, Any]

    def __call__(self, data: pd.DataFrame, rng: np.random.Generator) -> Outcome:
        """Fit, and take the intervals."""
        try:
            fit = unwrap(piecewise)(*self.formulas, data, treatment="x", method=self.method)
        except (DataError, NotIdentifiedError) as error:
            return failed(len(self.terms), Failure.of(error))
        mixed = _mixed_fits(fit)
        for one in mixed:
            if not one.converged:
                return failed(len(self.terms), not_certified(one.fitted.optimum))
        table = fit.effects(**self.options, **_seed(self.options, rng))
        return outcome_of(table, self.terms, singular=any(one.is_singular for one in mixed))


def _mixed_fits(fit: PiecewiseResults) -> list[MixedResults]:
    """The fits that effects rest on and that have a criterion."""
    return [one for one in (fit.mediator, fit.outcome) if isinstance(one, MixedResults)]
