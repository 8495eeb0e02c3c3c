"""Potential-outcome effects of two fitted equations, and tests of them. Orchestrates, computes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mlmed.intervals.bootstrap import BootstrapResults, Plan
from mlmed.intervals.options import check_options
from mlmed.options import (
    CAUSAL_INTERVALS,
    CausalInterval,
    Of,
    RanefDraws,
    check_count,
    check_level,
    check_seed,
    one_of,
    own_words,
)
from mlmed.results.causal.bootstrap import bootstrap_causal
from mlmed.results.causal.differences import interaction_notes, moderation_notes
from mlmed.results.causal.fitted import CausalFit
from mlmed.results.causal.groups import group_effects, refuse_groups
from mlmed.results.causal.intervals import OPTIONS
from mlmed.results.causal.tables import delta_effects, draw_effects, drawn_effects
from mlmed.results.causal.tests import interaction_table, moderation_table, refuse_no_interaction

__all__ = ["CausalEffects"]


@dataclass(frozen=True)
class CausalEffects(CausalFit):
    """The effects between the potential outcomes of two fitted equations (Imai, Keele & Tingley, 2010)."""

    @own_words
    def effects(
        self,
        interval: CausalInterval | None = None,
        *,
        n: int | None = None,
        seed: int | None = None,
        level: float = 0.95,
        at: Mapping[str, Any] | None = None,
        of: Of | None = None,
        ends: str | None = None,
        ranef_draws: RanefDraws | None = None,
        n_jobs: int | None = None,
        progress: bool | None = None,
    ) -> pd.DataFrame:
        """Causal mediation effects, direct effects, total effect and shares of it.

        With given coefficients every effect is computed exactly; only coefficients are ever drawn. An option that the
        interval does not use is refused.

        Parameters
        ----------
        interval : {"delta", "monte-carlo", "bootstrap"}
            Normal theory (default); coefficients drawn from their normal distribution (what ``mediation`` does: the
            estimate is the mean of the draws, of shares the median); rows or clusters drawn and both equations fitted
            again.
        n : int
            Draws or replicates, 1,000 if not given.
        seed : int
            Required by ``monte-carlo`` and ``bootstrap``.
        level : float
            Coverage of the intervals, a proportion.
        at : mapping, optional
            Values of covariates in every row, ``{"age": 30}``: conditional effects.
        of : {"cluster", "population"}
            Mixed models: effects of these clusters (default), whose random effects enter by their conditional modes,
            averaged over the rows; or in the population of clusters, with random effects averaged out.
        ends : {"percentile", "bc", "bca", "basic", "normal"}
            ``bootstrap``: how an interval is made of draws.
        ranef_draws : {"joint", "independent"}
            Mixed models with modes: random effects given the drawn coefficients (default), or drawn one by one without
            looking at them, which is what ``mediation`` does.
        n_jobs, progress
            ``bootstrap``: workers, and whether to show a progress bar.

        Returns
        -------
        DataFrame
            term (acme_control, acme_treated, ade_control, ade_treated, total, prop_mediated_control,
            prop_mediated_treated, acme, ade, prop_mediated), estimate, std_error, statistic, df, p_value, conf_low,
            conf_high, note. The scale is that of the expected outcome: probabilities for logit and probit, counts for
            Poisson.

        Raises
        ------
        EffectError
            Unknown or idle options, no seed, or values in ``at`` that cannot be.

        Examples
        --------
        >>> import mlmed
        >>> data = mlmed.datasets.load("yuan_mackinnon_sim")
        >>> fit = mlmed.causal("Med ~ X + (1 + X | group)", "y ~ X + Med + (1 + X + Med | group)", data)
        >>> fit.effects().set_index("term").loc[["acme", "ade", "total"], "estimate"].round(3).to_dict()
        {'acme': -0.115, 'ade': 0.286, 'total': 0.171}
        """
        given = {
            "n": n, "seed": seed, "ends": ends, "ranef_draws": ranef_draws, "n_jobs": n_jobs, "progress": progress,
        }  # fmt: skip
        return self._effects_table(interval, given, level=level, at=at, of=of)

    def _effects_table(
        self,
        interval: CausalInterval | None,
        given: dict[str, Any],
        *,
        level: float,
        at: Mapping[str, Any] | None,
        of: Of | None,
        say_closed: bool = True,
    ) -> pd.DataFrame:
        """``effects`` with its other options as they were given; ``say_closed`` as in ``drawn_effects``."""
        level = check_level(level)
        kind = "delta" if interval is None else one_of(interval, CAUSAL_INTERVALS, "interval")
        options = check_options(OPTIONS, kind, given)
        if kind == "bootstrap":
            chosen = options.pop("ends")
            return self.bootstrap(at=at, of=of, **options).tidy(ends=chosen, level=level)
        question = self.question(at, of, given.get("ranef_draws"))
        prepared = self.prepared(question)
        found = self.covariance_of(prepared)
        estimates = self.quantities(prepared, found, question)
        if kind == "delta":
            return delta_effects(found, estimates, level=level)
        contrasts = draw_effects(prepared, n=options["n"], seed=options["seed"])
        closed = prepared.setting.is_closed
        return drawn_effects(
            contrasts, estimates, found.vcov, self.fixed, closed=closed, say_closed=say_closed, level=level
        )

    def bootstrap(
        self,
        n: int = 1000,
        *,
        seed: int | None = None,
        at: Mapping[str, Any] | None = None,
        of: Of | None = None,
        n_jobs: int | None = None,
        progress: bool = False,
    ) -> BootstrapResults:
        """Draw rows (clusters where there are any) with replacement, fit both equations again, average over the drawn.

        Parameters
        ----------
        n, seed : int
            Replicates, and their seed (required); results do not depend on the number of workers.
        at, of
            As in ``effects``.
        n_jobs, progress
            Workers, and whether to show a progress bar.

        Returns
        -------
        BootstrapResults
            With ``draws``, ``tidy(ends=)``, ``failures`` and ``plot(term)``.
        """
        plan = Plan(n, seed=seed, n_jobs=n_jobs, progress=progress)
        prepared = self.prepared(self.question(at, of))
        estimates = self.quantities(prepared, self.covariance_of(prepared))
        return bootstrap_causal(self.chain, prepared, estimates, plan)

    def groups(
        self,
        interval: CausalInterval | None = None,
        *,
        n: int | None = None,
        seed: int | None = None,
        level: float = 0.95,
        at: Mapping[str, Any] | None = None,
        ranef_draws: RanefDraws | None = None,
    ) -> pd.DataFrame:
        """ACME, ADE and total effect of every cluster, averaged over its own rows.

        In a mixed model they rest on the cluster's conditional modes, which are shrunken towards the mean; without one,
        clusters (``cluster=``) differ by their covariates only.

        Parameters
        ----------
        interval : {"delta", "monte-carlo"}
            Normal theory (default), or draws.
        n, seed, level, at, ranef_draws
            As in ``effects``.

        Returns
        -------
        DataFrame
            The cluster, nobs, term (acme, ade, total), estimate, std_error, statistic, df, p_value, conf_low,
            conf_high, note.

        Raises
        ------
        EffectError
            There are no clusters, or options are unknown or idle.
        """
        level = check_level(level)
        kind = "delta" if interval is None else one_of(interval, CAUSAL_INTERVALS, "interval")
        options = check_options(OPTIONS, kind, {"n": n, "seed": seed, "ranef_draws": ranef_draws})
        question = self.question(at, None, ranef_draws, by_cluster=True)
        refuse_groups(self.chain, kind)
        return group_effects(self.chain, kind, options, self.prepared(question), self.fixed, level=level)

    # -- tests ---------------------------------------------------------------------------------------------

    def test_interaction(
        self,
        n: int = 1000,
        *,
        seed: int | None = None,
        level: float = 0.95,
        at: Mapping[str, Any] | None = None,
        of: Of | None = None,
        ranef_draws: RanefDraws | None = None,
    ) -> pd.DataFrame:
        """Test of ACME(1) - ACME(0) = 0, by Monte Carlo draws.

        ADE(1) - ADE(0) is the same number: both are E(1,1) - E(1,0) - E(0,1) + E(0,0).

        Parameters
        ----------
        n, seed : int
            Draws, and their seed (required).
        level, at, of, ranef_draws
            As in ``effects``.

        Raises
        ------
        EffectError
            The difference is 0 by construction: no interaction, and a linear outcome.
        """
        level = check_level(level)
        refuse_no_interaction(self.chain, self.interaction)
        count, start = check_count(n, "draws"), check_seed(seed, "test_interaction()")
        question = self.question(at, of, ranef_draws)
        prepared = self.prepared(question)
        found = self.covariance_of(prepared)
        about = interaction_notes(prepared, self.subject(prepared, question))
        return interaction_table(prepared, found, about, n=count, seed=start, level=level)

    def test_moderation(
        self,
        at1: Mapping[str, Any],
        at2: Mapping[str, Any],
        n: int = 1000,
        *,
        seed: int | None = None,
        level: float = 0.95,
        of: Of | None = None,
        ranef_draws: RanefDraws | None = None,
    ) -> pd.DataFrame:
        """Differences of effects between two values of covariates, from the same draws of the coefficients.

        Parameters
        ----------
        at1, at2 : mapping
            Values of covariates, ``{"gender": "male"}`` and ``{"gender": "female"}``.
        n, seed : int
            Draws, and their seed (required).
        level, of, ranef_draws
            As in ``effects``.

        Returns
        -------
        DataFrame
            A row per effect, ``acme(at1) - acme(at2)``, in the columns of ``effects``.
        """
        level = check_level(level)
        count, start = check_count(n, "draws"), check_seed(seed, "test_moderation()")
        questions = [self.question(at, of, ranef_draws) for at in (at1, at2)]
        prepared = [self.prepared(question) for question in questions]
        found = [self.covariance_of(one) for one in prepared]
        about = moderation_notes(prepared, self.subject(prepared[0], questions[0]))
        return moderation_table(prepared, found, questions, about, n=count, seed=start, level=level)
