"""Potential-outcome effects: ACME, ADE, their sum and shares of it, as functions of five contrasts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mlmed.data.layout import EquationLayout
from mlmed.effects.average import ClusterSlopes
from mlmed.effects.catalogue import Catalogue, IntervalOptions
from mlmed.effects.delta import said_of, std_error
from mlmed.effects.potential import CONTRASTS, EFFECTS, RATIOS, Counterfactual, all_effects, contrast_effects
from mlmed.effects.quantity import Quantity
from mlmed.effects.redrawn import source_of_chain
from mlmed.effects.setting import Chain, Question, Rows
from mlmed.effects.slopes import as_number, refuse_unreached
from mlmed.effects.uncertainty import Contrasts, Law, contrast_covariance, draw_contrasts, slopes_at
from mlmed.errors import EffectError
from mlmed.fit.resampling import Plan, Source
from mlmed.fit.same_rows import SameRowsFit
from mlmed.lmm.vcov import Vcov
from mlmed.names import labelled
from mlmed.notes import joined
from mlmed.options import check_mapping, is_one_value
from mlmed.text import listed, shorten, shown, typed

Array = NDArray[np.float64]
#: Options of each kind of interval, with defaults.
INTERVALS: IntervalOptions = {
    "delta": {"vcov": None, "of": None, "ranef_draws": None},
    "monte-carlo": {"vcov": None, "n": 1000, "seed": None, "of": None, "ranef_draws": None},
    "bootstrap": {"n": 1000, "seed": None, "ends": "percentile", "n_jobs": None, "progress": False, "of": None},
}
#: Names of the effects in other schools.
SHARED = {"indirect": "acme", "direct": "ade", "total": "total"}
#: Stands in for a covariance that is not needed.
NOTHING = Vcov.one(np.zeros((0, 0)))
#: Standard errors from 0 within which a total effect is useless as a denominator.
CLEAR = 2.0
NO_SPREAD = "no standard error: a ratio of draws has no variance"
NO_DIRECT = "fixed at 0: the treatment is not in the outcome equation"
ALL_MEDIATED = "fixed at 1: the treatment is not in the outcome equation"
ZERO_TOTAL = "not defined: the total effect is 0"
#: Notes on the clusters that intervals with conditional modes are about, and the remedy.
THESE = "about these {J} clusters only"
NEITHER = "an interval neither about these {J} clusters nor about others, as in R's mediation"
GENERAL = ": for clusters in general use "
EITHER = "interval='bootstrap' or of='population'"
COVARYING = "interval='bootstrap', or mlmed.mediate (of='population' leaves out cov(a_j, b_j))"
CLOSED = "estimate in closed form (sums of products of coefficients), not a mean of draws"


@dataclass(frozen=True)
class CounterfactualSet:
    """The effects of one question, as functions of the five contrasts and the coefficients of both equations.

    Attributes
    ----------
    chain : Chain
        Both fits, the treatment and the two values of it.
    usual : str
        The default covariance of the coefficients.
    question : Question
        Which effects, at which place.
    say_closed : bool
        Whether Monte Carlo notes say that estimates are in closed form.
    """

    chain: Chain
    usual: str
    question: Question
    say_closed: bool = True

    # -- arrays --------------------------------------------------------------------------------------------

    @cached_property
    def designs(self) -> tuple[Counterfactual, Counterfactual]:
        """Columns of the fixed and of the random effects under both values of the treatment."""
        return self.chain.columns(self.question.at) if self.question.at else self.chain.as_they_are

    @cached_property
    def rows(self) -> Rows:
        """The rows that effects are averaged over."""
        return self.chain.rows(*self.designs, self.question)

    def laws(self, kind: str | None = None) -> tuple[Law, Law]:
        """Distributions of the coefficients of mediator and outcome."""
        named = self.usual if kind is None else kind
        return self.chain.laws(self.rows, [part.vcov(named) for part in self.chain.parts])

    @cached_property
    def slopes(self) -> ClusterSlopes:
        """Contrasts of every cluster and their derivatives, at the estimates."""
        first, second = (Law(b.beta, NOTHING, u) for b, u in zip(self.chain.parts, self.rows.modes, strict=True))
        return slopes_at(self.rows.setting, first, second)

    def contrasts(self, kind: str | None = None) -> Contrasts:
        """Contrasts and coefficients with their first-order covariance."""
        return contrast_covariance(self.slopes, *self.laws(kind))

    @cached_property
    def found(self) -> Contrasts:
        """``contrasts`` with the default covariance."""
        return self.contrasts()

    def draws(self, V: Vcov, *, n: int, seed: int, by_cluster: bool = False) -> Array:
        """Contrasts of n draws of the coefficients, (n, 5) or (n, J, 5); ``V`` as ``vcov`` gives it."""
        first, stop, laws = len(CONTRASTS), len(CONTRASTS), []
        for part, modes in zip(self.chain.parts, self.rows.modes, strict=True):
            first, stop = stop, stop + len(part.beta)
            laws.append(Law(part.beta, Vcov.one(V.entire[first:stop, first:stop]), modes))
        return draw_contrasts(self.rows.setting, *laws, n=n, seed=seed, by_cluster=by_cluster)

    # -- notes ---------------------------------------------------------------------------------------------

    @property
    def interaction(self) -> bool:
        """Whether the slope of the mediator depends on the treatment."""
        return any(part.interaction for part in self.designs)

    @property
    def both_slopes_vary(self) -> bool:
        """Whether the slopes of the treatment (on the mediator) and of the mediator both vary over clusters."""
        random = self.designs[1]
        return bool(np.any(random.mediator[0] != random.mediator[1]) and np.any(random.slope))

    @cached_property
    def fixed(self) -> dict[str, str]:
        """Effects that the formulas fix, and why."""
        if any(part.interaction or not np.array_equal(*part.outcome) for part in self.designs):
            return {}
        return dict.fromkeys(("ade_control", "ade_treated", "ade"), NO_DIRECT) | dict.fromkeys(RATIOS, ALL_MEDIATED)

    @property
    def subject(self) -> str:
        """Note on intervals that depend on the random effects of the clusters in the data."""
        text = THESE if self.question.ranef_draws == "joint" else NEITHER
        return text.format(J=len(self.rows.setting.starts))

    def _about(self) -> dict[str, str]:
        """Notes on effects that depend on the random effects of the clusters in the data, by term."""
        enters = dict(zip(CONTRASTS, self.found.random.T, strict=True))
        for kind in ("acme", "ade"):
            enters[kind] = enters[f"{kind}_control"] | enters[f"{kind}_treated"]
        for term in RATIOS:
            enters[term] = enters[term.replace("prop_mediated", "acme")] | enters["total"]
        start = self.subject + GENERAL
        return {term: start + (COVARYING if both.all() else EITHER) for term, both in enters.items() if both.any()}

    # -- effects -------------------------------------------------------------------------------------------

    def _effects(self, about: Mapping[str, str]) -> dict[str, Quantity]:
        """Every effect as a function of contrasts and coefficients; the latter have zero gradient."""
        values = self.found.values
        unit = np.eye(len(values))
        made = contrast_effects(**{name: Quantity(name, float(values[k]), unit[k]) for k, name in enumerate(CONTRASTS)})
        out: dict[str, Quantity] = {}
        for term, quantity in made.items():
            if term in self.fixed:
                value = 1.0 if term in RATIOS else 0.0
                out[term] = Quantity(term, value, np.zeros(len(unit)), None, self.fixed[term])
                continue
            note = ZERO_TOTAL if quantity.is_missing else about.get(term, "")
            out[term] = replace(quantity, term=term, hessian=None, note=note)
        return out

    def _with_shares(self, known: Mapping[str, Quantity], V: Vcov) -> dict[str, Quantity]:
        """Add a warning to shares of a total that may be zero."""
        total = known["total"]
        size, error = abs(total.estimate), std_error(total, V, order="first")
        if not size < CLEAR * error:
            return dict(known)
        said = f"unstable: the total effect is {size / error:.1f} standard errors from 0, and this is a share of it"
        warned = {t for t, q in known.items() if t in RATIOS and t not in self.fixed and not q.is_missing}
        return {t: replace(q, note=joined(said, q.note)) if t in warned else q for t, q in known.items()}

    @cached_property
    def quantities(self) -> dict[str, Quantity]:
        """The effects at the estimates, with notes on the clusters that their intervals are about."""
        return self._effects(self._about())

    def told(self, V: Vcov) -> dict[str, Quantity]:
        """Add a warning to shares of a total that may be zero."""
        return self._with_shares(self.quantities, V)

    @property
    def named(self) -> dict[str, Quantity]:
        """Effects, also under the names of other schools, and coefficients."""
        k, unit, values = len(CONTRASTS), np.eye(len(self.found.values)), self.found.values
        names = [labelled(part.name, name) for part in self.chain.parts for name in part.layout.fixed]
        effects = self.told(self.found.vcov)
        shared = {new: effects[old].named(new) for new, old in SHARED.items()}
        own = {name: Quantity(name, float(values[k + j]), unit[k + j]) for j, name in enumerate(names)}
        return {**shared, **effects, **own}

    def vcov(self, kind: str | None = None) -> Vcov:
        """Covariance of contrasts and coefficients, given that of the coefficients (eq. 74)."""
        is_usual = kind is None or (isinstance(kind, str) and kind == self.usual)
        return self.found.vcov if is_usual else self.contrasts(kind).vcov

    def cautions(self, V: Vcov) -> Mapping[str, str]:
        """Empty: ``told`` has all notes."""
        return {}

    # -- draws ---------------------------------------------------------------------------------------------

    def monte_carlo(self, V: Vcov, *, n: int, seed: int) -> dict[str, Array]:
        """Effects of n draws of the coefficients (eq. 75)."""
        return all_effects(self.draws(V, n=n, seed=seed))

    def centred(self, draws: Mapping[str, Array], V: Vcov) -> tuple[dict[str, Quantity], dict[str, str]]:
        """Means of draws, medians of shares; effects bilinear in independent coefficients have closed-form means.

        Fixed effects, those without a variance in V, and those that overflow have no interval.
        """
        known, closed = self.told(V), self.rows.setting.is_closed
        lost = int((~np.all([np.isfinite(draws[name]) for name in CONTRASTS], axis=0)).sum())
        reason = f"{lost} of {len(draws['total'])} draws give an expected outcome too large for a number"
        out, missing = {}, {}
        for term, quantity in known.items():
            value, note = quantity.estimate, quantity.note
            if term in self.fixed:
                missing[term] = note
            elif lost:
                value, missing[term] = np.nan, reason
            elif np.isnan(std_error(quantity, V, order="first")):
                missing[term] = joined(note, said_of(quantity, V, order="first"))
            elif not closed:
                value = float(np.median(draws[term]) if term in RATIOS else np.mean(draws[term]))
            note = joined(CLOSED if closed and self.say_closed else "", note)
            out[term] = replace(quantity, estimate=value, note=note)
        return out, missing

    @property
    def unspread(self) -> Mapping[str, str]:
        """Shares, whose draws have no variance."""
        return dict.fromkeys(RATIOS, NO_SPREAD)

    # -- bootstrap -----------------------------------------------------------------------------------------

    def source(self, plan: Plan) -> Source:
        """Draw clusters, or rows without clusters, and refit both equations."""
        return source_of_chain(self.chain, self.rows, self.laws(), self.slopes, plan)

    @property
    def columns(self) -> Callable[[Array], Mapping[str, Array]]:
        """The effects of drawn contrasts."""
        return all_effects

    @property
    def drawn(self) -> dict[str, Quantity]:
        """The effects, without the note on clusters: replicates generalize to new ones."""
        return self._with_shares(self._effects({}), self.found.vcov)

    @property
    def unspread_replicates(self) -> Mapping[str, str]:
        """Shares, whose replicates have no variance."""
        return self.unspread

    def seen(self, draws: Mapping[str, Array]) -> Mapping[str, str]:
        """Empty."""
        return {}


@dataclass(frozen=True)
class CounterfactualCatalogue(Catalogue):
    """Effects between the potential outcomes of two fitted equations (Imai, Keele & Tingley, 2010).

    Attributes
    ----------
    treatment : str
        Column of the treatment.
    contrast : pair
        Control and treated, as the formulas see them.
    """

    school: ClassVar[str] = "causal"
    terms: ClassVar[tuple[str, ...]] = EFFECTS
    intervals: ClassVar[IntervalOptions] = INTERVALS
    order: ClassVar[str] = "first"
    questions: ClassVar[tuple[str, ...]] = ("of", "ranef_draws")

    treatment: str
    contrast: tuple[Any, Any]

    def label(self, fit: SameRowsFit) -> str:
        """Name of such a fit in a comparison."""
        return "potential outcomes"

    def title(self, fit: SameRowsFit) -> str:
        """Title of a summary."""
        return f"Causal mediation: {' -> '.join([self.treatment, *fit.prefixes])}"

    @property
    def entries(self) -> dict[str, Any]:
        """Entries of a document about the question."""
        return {"treatment": self.treatment, "contrast": self.contrast}

    def chain(self, fit: SameRowsFit) -> Chain:
        """Both fits, the treatment and its two values; cached with its columns."""
        kept = self.__dict__.get("_chain")
        if kept is None or kept[0] is not fit:
            kept = self.__dict__["_chain"] = fit, Chain.of(fit, self.treatment, self.contrast)
        return kept[1]

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the question alone."""
        return {"treatment": self.treatment, "contrast": self.contrast}

    def effects(
        self,
        fit: SameRowsFit,
        at: Mapping[str, Any] | None = None,
        *,
        of: str | None = None,
        ranef_draws: str | None = None,
        by_cluster: bool = False,
    ) -> CounterfactualSet:
        """The effects at values of covariates.

        Raises
        ------
        EffectError
            Unknown words, or options of mixed models without one.
        """
        chain = self.chain(fit)
        held = _check_at(at, (chain.mediator.layout, chain.outcome.layout), self.treatment, chain.mediator.name)
        if not chain.is_mixed:
            for name, value in (("of", of), ("ranef_draws", ranef_draws)):
                if value is not None:
                    said = f"{name}={shown(value)} says what is done with random effects"
                    raise EffectError(f"{said}, and no equation has any; leave it out")
        own = "cluster" if of is None else of, "joint" if ranef_draws is None else ranef_draws
        question = Question(held, *own, by_cluster)
        if ranef_draws is not None and question.of == "population":
            raise EffectError(
                f"ranef_draws={shown(ranef_draws)} is about the modes of clusters, and of='population' averages over "
                "clusters without them; leave it out"
            )
        return CounterfactualSet(chain, fit.usual, question)


def _check_at(
    at: Mapping[str, Any] | None, layouts: tuple[EquationLayout, EquationLayout], treatment: str, mediator: str
) -> dict[str, Any]:
    """Check values of covariates: known columns, neither treatment nor mediator, with possible values."""
    at = check_mapping(at, "at", "at={'age': 30}")
    known = {name for layout in layouts for name in layout.typical} - {treatment, mediator}
    levels = {name: found for layout in layouts for name, found in layout.levels.items()}
    out: dict[str, Any] = {}
    for name, value in at.items():
        if name in (treatment, mediator):
            role = "treatment" if name == treatment else "mediator"
            raise EffectError(f"at names {name}, the {role}: effects are those of changing it. Leave it out of at")
        if name not in known:
            raise EffectError(f"at names {name!r}, which no equation uses; choose among {listed(known)}")
        if name in levels:
            if not is_one_value(value) or value not in levels[name]:
                raise EffectError(
                    f"at gives {name} the value {shown(value)}; it must be one of {shorten(map(typed, levels[name]))}"
                )
            out[name] = value
            continue
        number = as_number(value)
        if number is None:
            raise EffectError(f"at gives {name} the value {shown(value)}; it must be a number (not nan or missing)")
        out[name] = number
    refuse_unreached(out, layouts)
    return out
