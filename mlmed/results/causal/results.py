"""CausalResults: what ``mlmed.causal`` returns, as tables, text, JSON and a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import numpy as np
import pandas as pd

from mlmed.effects.catalogue import NoEffects
from mlmed.effects.delta import COLUMNS, Quantity, delta_table
from mlmed.effects.nlcom import combine
from mlmed.effects.potential import CONTRASTS
from mlmed.effects.uncertainty import Contrasts
from mlmed.fit.lmm import LmmFit
from mlmed.names import labelled
from mlmed.options import CausalInterval, Of, own_words
from mlmed.report.text import as_html
from mlmed.results.causal.effects import CausalEffects
from mlmed.results.causal.sensitivity import SensitivityResults, sensitivity_of
from mlmed.results.causal.tables import coefficient_table
from mlmed.results.causal.text import Shown, document, summary_text
from mlmed.results.document import flat_table, interval_entry
from mlmed.results.plots import Plots
from mlmed.results.results import Results

__all__ = ["CausalResults"]

#: Names under which other methods know the effects.
SHARED = {"indirect": "acme", "direct": "ade", "total": "total"}


@dataclass(frozen=True)
class CausalResults(CausalEffects):
    """Two fitted equations and the effects between potential outcomes (Imai, Keele & Tingley, 2010).

    ``effects()`` is the main table; ``mediator`` and ``outcome`` are the fits.
    """

    # -- coefficients --------------------------------------------------------------------------------------

    @property
    def params(self) -> pd.Series:
        """Fixed effects of both equations, ``m~x``."""
        return self.tidy().set_index("term")["estimate"]

    def tidy(self, *, level: float = 0.95) -> pd.DataFrame:
        """Fixed effects of both equations, with the standard errors that were asked for.

        Returns
        -------
        DataFrame
            equation, term (``m~x``), estimate, std_error, statistic, df, p_value, conf_low, conf_high, note. Least
            squares has t tests, everything else normal ones.
        """
        parts = []
        for equation in (self.mediator, self.outcome):
            table = coefficient_table(equation, level=level)
            table.insert(0, "equation", equation.name)
            parts.append(table.assign(term=[labelled(equation.name, term) for term in table["term"]]))
        return pd.concat(parts, ignore_index=True)

    def glance(self) -> pd.DataFrame:
        """One row: families, nobs, n_clusters, log-likelihoods, vcov, interaction, convergence."""
        grouping = self.chain.grouping
        mixed = [one.fit for one in (self.mediator, self.outcome) if isinstance(one.fit, LmmFit)]
        row = {
            "family_m": self.mediator.family,
            "family_y": self.outcome.family,
            "nobs": self.nobs,
            "n_clusters": None if grouping is None else len(grouping.clusters),
            "llf_m": self.mediator.llf,
            "llf_y": self.outcome.llf,
            "vcov": self.errors.vcov,
            "interaction": self.interaction,
            "converged": all(fit.converged for fit in mixed),
            "is_singular": any(fit.is_singular for fit in mixed),
        }
        return pd.DataFrame([row])

    # -- comparison ----------------------------------------------------------------------------------------

    @property
    def label(self) -> str:
        """What a comparison calls this fit."""
        return "potential outcomes"

    def _shared_quantities(self) -> tuple[dict[str, Quantity], Contrasts]:
        """Effects and coefficients under the names that all methods share, with their covariance."""
        question = self.question(None, None)
        prepared = self.prepared(question)
        found = self.covariance_of(prepared)
        own = self.quantities(prepared, found, question)
        unit = np.eye(len(found.values))
        named = {new: own[old].named(new) for new, old in SHARED.items()}
        names = [labelled(equation.name, name) for equation in (self.mediator, self.outcome) for name in equation.names]
        coefficients = {name: Quantity(name, float(found.values[5 + k]), unit[5 + k]) for k, name in enumerate(names)}
        return {**named, **own, **coefficients}, found

    def comparable(self, *, level: float = 0.95) -> pd.DataFrame:
        """``indirect`` (ACME), ``direct`` (ADE) and ``total`` by the delta method, then estimates (``compare``)."""
        known, found = self._shared_quantities()
        effects = delta_table([known[term] for term in SHARED], found.vcov, order="first", level=level)
        parts = [effects, self.tidy(level=level)[list(COLUMNS)]]
        for equation in (self.mediator, self.outcome):
            if isinstance(equation.fit, LmmFit):
                parts.append(Results(equation.fit, NoEffects()).comparable(level=level).iloc[len(equation.beta) :])
        return pd.concat(parts, ignore_index=True)

    def combined(self, expression: str, *, level: float = 0.95) -> pd.DataFrame:
        """A function of effects and coefficients, such as ``"acme / ade"``, by the delta method."""
        known, found = self._shared_quantities()
        made = combine(expression, known)
        used = np.flatnonzero(made.gradient[: len(CONTRASTS)])
        widest = max(used, key=lambda k: found.random[:, k].sum(), default=None)
        note = "" if widest is None else known[CONTRASTS[widest]].note
        return delta_table([replace(made, note=note)], found.vcov, order="first", level=level)

    # -- text and picture ----------------------------------------------------------------------------------

    @own_words
    def summary(
        self,
        interval: CausalInterval | None = None,
        *,
        level: float = 0.95,
        at: Mapping[str, Any] | None = None,
        of: Of | None = None,
        **options: Any,
    ) -> str:
        """The fit and its effects as text; all options are those of ``effects``."""
        signature(self.effects).bind(interval, **options)  # refuses what is no option
        # the header says what is in closed form
        table = self._effects_table(interval, options, level=level, at=at, of=of, say_closed=False)
        return summary_text(self, Shown(table, interval or "delta", level, at, of, options))

    def sections(
        self, interval: CausalInterval | None = None, *, level: float = 0.95, **options: Any
    ) -> dict[str, pd.DataFrame]:
        """Effects and coefficients; further options are those of ``effects``."""
        return {"effects": self.effects(interval, level=level, **options), "coefficients": self.tidy(level=level)}

    def to_json(self, interval: CausalInterval | None = None, *, level: float = 0.95, **options: Any) -> str:
        """Effects and coefficients as JSON; a number that does not exist is null."""
        entry = interval_entry({"interval": interval, **options})
        found = document(self, self.sections(interval, level=level, **options), level)
        return json.dumps({**found, **entry}, indent=2, allow_nan=False)

    def to_table(self, interval: CausalInterval | None = None, *, level: float = 0.95, **options: Any) -> pd.DataFrame:
        """Effects and coefficients below each other (what ``mlmed causal --format csv`` prints)."""
        return flat_table(self.sections(interval, level=level, **options))

    @property
    def plot(self) -> Plots:
        """Pictures (extra ``plots``): ``fit.plot.effects()``."""
        return Plots(self)

    def __repr__(self) -> str:
        chain = f"{self.treatment} -> {self.mediator.name} -> {self.outcome.name}"
        families = f"{self.mediator.family} and {self.outcome.family}"
        return f"CausalResults({chain}; {families}{', mixed' if self.chain.is_mixed else ''}; {self.nobs} rows)"

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return as_html(self.summary())

    # -- sensitivity ---------------------------------------------------------------------------------------

    def sensitivity(
        self,
        rho: Any = None,
        *,
        n: int | None = None,
        seed: int | None = None,
        level: float = 0.95,
        effect: str = "indirect",
        formula: str = "exact",
        interval: str | None = None,
    ) -> SensitivityResults:
        """How effects change if the errors of the two equations are correlated.

        Parameters and result: ``mlmed.results.causal.sensitivity.sensitivity_of``, docs/sensitivity.md.
        """
        return sensitivity_of(
            self, rho=rho, n=n, seed=seed, level=level, effect=effect, formula=formula, interval=interval
        )
