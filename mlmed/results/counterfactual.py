"""Tests of differences between potential-outcome effects, and the effects of every cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.counterfactual import CLOSED, INTERVALS, CounterfactualCatalogue, CounterfactualSet
from mlmed.effects.delta import COLUMNS, wald_table
from mlmed.effects.potential import CONTRASTS, EFFECTS, RATIOS, all_effects, effect_weights
from mlmed.effects.uncertainty import cluster_covariance, lost_coefficients, note_of
from mlmed.errors import EffectError
from mlmed.fit.glm import Grouping
from mlmed.fit.names import shown_clusters
from mlmed.intervals.bootstrap import draws_table
from mlmed.intervals.values import Bootstrap, MonteCarlo, interval_of
from mlmed.lmm.vcov import Directions, said_along
from mlmed.notes import joined
from mlmed.options import CausalInterval, Of, RanefDraws, check_count, check_level, check_own_name, check_seed
from mlmed.results.abilities import Held, only
from mlmed.text import assigned

Array = NDArray[np.float64]
#: Effects reported by cluster, and their weights in the five contrasts.
OF_CLUSTER = ("acme", "ade", "total")
MEANS = np.array([effect_weights()[term] for term in OF_CLUSTER])
ACME_DIFFERENCE, ADE_DIFFERENCE = "acme_treated - acme_control", "ade_treated - ade_control"
#: Relative differences below which derivatives are equal; those in random effects cancel less closely.
SAME, CANCELLED = 1e-10, 1e-9
#: Effects that ``test_moderation`` compares.
MODERATED = tuple(term for term in EFFECTS if term not in RATIOS)


@only(CounterfactualCatalogue)
def groups(
    self: Held,
    interval: CausalInterval | None = None,
    *,
    n: int | None = None,
    seed: int | None = None,
    level: float = 0.95,
    vcov: str | None = None,
    at: Mapping[str, Any] | None = None,
    ranef_draws: RanefDraws | None = None,
) -> pd.DataFrame:
    """ACME, ADE and total effect of every cluster, averaged over its own rows.

    For fits of ``mlmed.causal``. Equations with random terms use the cluster's conditional modes, which are shrunken
    towards the mean; without them, clusters (``cluster=``) differ by their covariates only.

    Parameters
    ----------
    interval : {"delta", "monte-carlo"}
        Normal theory (default), or draws.
    n, seed, level, vcov, at, ranef_draws
        As in ``effects``.

    Returns
    -------
    DataFrame
        The id, under the name of the cluster variable, nobs, term (acme, ade, total), estimate, std_error, statistic,
        df, p_value, conf_low, conf_high, note.

    Raises
    ------
    EffectError
        There are no clusters, or an option is unknown or not used.

    Examples
    --------
    >>> import mlmed
    >>> df = mlmed.datasets.load("yuan_mackinnon_sim")
    >>> fit = mlmed.causal("Med ~ X", "y ~ Med + X + (1 + Med | group)", df)
    >>> fit.groups()[["group", "nobs", "term", "estimate"]].round(2).head(3).values.tolist()
    [[1, 20, 'acme', 0.18], [1, 20, 'ade', 0.21], [1, 20, 'total', 0.39]]
    """
    level = check_level(level)
    given = {"n": n, "seed": seed, "vcov": vcov, "ranef_draws": ranef_draws}
    asked = interval_of("delta" if interval is None else interval, given, INTERVALS)
    found = self.catalogue.effects(self.fit, at, ranef_draws=ranef_draws, by_cluster=True)
    grouping = found.chain.grouping
    if grouping is None:
        raise EffectError(
            "there are no groups: no equation has a random term, and no column names clusters; fit with cluster='...'"
        )
    if isinstance(asked, Bootstrap):
        raise EffectError(
            "a bootstrap draws clusters, so single ones are not in every replicate; use interval='delta' or "
            "'monte-carlo'"
        )
    check_own_name(grouping.name, ("nobs", *COLUMNS), "a cluster variable")
    laws = found.laws(vcov)
    values = MEANS @ found.slopes.values
    covariances, moved = cluster_covariance(found.slopes, *laws)
    lost = _lost(np.einsum("ke,jep->kjp", MEANS, moved), lost_coefficients(*laws))
    said = [
        [found.fixed[term]] * len(why) if term in found.fixed else why
        for term, why in zip(OF_CLUSTER, lost, strict=True)
    ]
    note = note_of(*laws)
    if isinstance(asked, MonteCarlo):
        assert asked.seed is not None
        draws = found.draws(found.vcov(vcov), n=asked.n, seed=asked.seed, by_cluster=True) @ MEANS.T
        known = values if found.rows.setting.is_closed else draws.mean(axis=0).T
        parts = [
            _drawn_part(term, known[k], draws[:, :, k], said[k], note=note, level=level)
            for k, term in enumerate(OF_CLUSTER)
        ]
    else:
        errors = np.sqrt(np.einsum("ke,jef,kf->kj", MEANS, covariances, MEANS, optimize=True))
        rows = zip(OF_CLUSTER, values, errors, said, strict=True)
        parts = [_delta_part(*row, note=note, level=level) for row in rows]
    return _by_cluster(grouping, parts)


def _lost(moved: Array, lost: Sequence[Directions]) -> list[list[str]]:
    """Say why effects with slopes (effects, J, p) lack a standard error, by effect and cluster; else empty."""
    touched = np.zeros(moved.shape[:2], dtype=bool)
    for one in lost:
        touched |= one.changed(moved).any(axis=2)
    return [
        [said_along(lost, slope) if hit else "" for slope, hit in zip(*part, strict=True)]
        for part in zip(moved, touched, strict=True)
    ]


def _delta_part(
    term: str, values: Array, errors: Array, missing: list[str], *, note: str, level: float
) -> pd.DataFrame:
    known = np.array([not why for why in missing])
    notes = [why or note for why in missing]
    return wald_table([term] * len(values), values, np.where(known, errors, np.nan), level=level, notes=notes)


def _drawn_part(term: str, values: Array, draws: Array, missing: list[str], *, note: str, level: float) -> pd.DataFrame:
    names = [str(k) for k in range(len(values))]
    table = draws_table(
        pd.DataFrame(draws, columns=names),
        pd.Series(values, index=names),
        level=level,
        notes=dict.fromkeys(names, note),
        missing={name: why for name, why in zip(names, missing, strict=True) if why},
    )
    return table.assign(term=term)


def _by_cluster(grouping: Grouping, parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Merge tables of one effect each into one, ordered by cluster."""
    J = len(grouping.clusters)
    table = pd.concat(parts, ignore_index=True)
    table.insert(0, grouping.name, np.tile(shown_clusters(grouping.clusters), len(parts)))
    table.insert(1, "nobs", np.tile(np.bincount(grouping.codes, minlength=J), len(parts)))
    order = np.arange(len(table)).reshape(len(parts), J).T.ravel()
    return table.iloc[order].reset_index(drop=True)[[grouping.name, "nobs", *COLUMNS]]


@only(CounterfactualCatalogue)
def test_interaction(
    self: Held,
    n: int = 1000,  # noqa: PT028
    *,
    seed: int | None = None,  # noqa: PT028
    level: float = 0.95,  # noqa: PT028
    vcov: str | None = None,  # noqa: PT028
    at: Mapping[str, Any] | None = None,  # noqa: PT028
    of: Of | None = None,  # noqa: PT028
    ranef_draws: RanefDraws | None = None,  # noqa: PT028
) -> pd.DataFrame:
    """Test ACME(1) - ACME(0) = 0 by Monte Carlo draws (``mlmed.causal``).

    ADE(1) - ADE(0) is the same number: both are E(1,1) - E(1,0) - E(0,1) + E(0,0).

    Parameters
    ----------
    n, seed : int
        Draws, and their seed (required).
    level, vcov, at, of, ranef_draws
        As in ``effects``.

    Returns
    -------
    DataFrame
        Both differences, in the columns of ``effects``.

    Raises
    ------
    EffectError
        The difference is 0 by construction (no interaction, and a linear outcome), or there is no seed.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.causal("Med ~ X", "y ~ Med * X", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> fit.test_interaction(200, seed=1)[["term", "estimate"]].round(4).values.tolist()
    [['acme_treated - acme_control', -0.0034], ['ade_treated - ade_control', -0.0034]]
    """
    level = check_level(level)
    _refuse_no_interaction(self.catalogue.effects(self.fit))
    count, start = check_count(n, "draws"), check_seed(seed, "test_interaction()")
    found = self.catalogue.effects(self.fit, at, of=of, ranef_draws=ranef_draws)
    setting, at_estimates = found.rows.setting, found.contrasts(vcov)
    # if random effects enter the difference, its interval is about the clusters in the data
    enter = any(_differ(one[1], one[0]) for one in _by_random_effects(found))
    about = found.subject if enter else ""
    by_name = dict(zip(CONTRASTS, found.draws(at_estimates.vcov, n=count, seed=start).T, strict=True))
    exact = dict(zip(CONTRASTS, found.slopes.average(), strict=True)) if setting.is_closed else {}
    slopes, lost = dict(zip(CONTRASTS, at_estimates.slopes, strict=True)), lost_coefficients(*found.laws(vcov))
    draws, estimates, notes, missing = {}, {}, {}, {}
    for term, kind in ((ACME_DIFFERENCE, "acme"), (ADE_DIFFERENCE, "ade")):
        draws[term] = by_name[f"{kind}_treated"] - by_name[f"{kind}_control"]
        if exact:
            estimates[term] = float(exact[f"{kind}_treated"] - exact[f"{kind}_control"])
        notes[term] = joined(CLOSED if exact else "", about, at_estimates.vcov.note)
        missing[term] = said_along(lost, _difference(slopes[f"{kind}_treated"], slopes[f"{kind}_control"]))
    return _differences(draws, estimates, notes, missing, level=level)


def _refuse_no_interaction(found: CounterfactualSet) -> None:
    """Refuse to test a difference that is 0 by construction."""
    chain = found.chain
    if found.interaction or chain.outcome.family != "linear":
        return
    m, x, y = chain.mediator.name, chain.treatment, chain.outcome.name
    raise EffectError(
        f"ACME(1) - ACME(0) is 0 by construction: the outcome is linear and {chain.outcome.equation.text!r} has "
        f"no interaction of {m} and {x}. Add one, as in '{y} ~ {m} * {x}'"
    )


@only(CounterfactualCatalogue)
def test_moderation(
    self: Held,
    at1: Mapping[str, Any],
    at2: Mapping[str, Any],
    n: int = 1000,  # noqa: PT028
    *,
    seed: int | None = None,  # noqa: PT028
    level: float = 0.95,  # noqa: PT028
    vcov: str | None = None,  # noqa: PT028
    of: Of | None = None,  # noqa: PT028
    ranef_draws: RanefDraws | None = None,  # noqa: PT028
) -> pd.DataFrame:
    """Compare effects between two settings of covariates, by the same draws of the coefficients (``mlmed.causal``).

    Parameters
    ----------
    at1, at2 : mapping
        Values of covariates, such as ``{"gender": "male"}`` and ``{"gender": "female"}``.
    n, seed : int
        Draws, and their seed (required).
    level, vcov, of, ranef_draws
        As in ``effects``.

    Returns
    -------
    DataFrame
        A row per effect but shares, ``acme(at1) - acme(at2)``, in the columns of ``effects``.

    Raises
    ------
    EffectError
        The two settings do not differ, name no covariate, or there is no seed.

    Examples
    --------
    >>> import mlmed
    >>> df = mlmed.datasets.load("yuan_mackinnon_sim")
    >>> df = df.assign(late=df["group"] > 25)
    >>> fit = mlmed.causal("Med ~ X * late", "y ~ Med + X", df, treatment="X")
    >>> table = fit.test_moderation({"late": True}, {"late": False}, 200, seed=1).set_index("term")
    >>> round(float(table.loc["acme(at1) - acme(at2)", "estimate"]), 3)
    -0.024
    """
    level = check_level(level)
    count, start = check_count(n, "draws"), check_seed(seed, "test_moderation()")
    both = [self.catalogue.effects(self.fit, at, of=of, ranef_draws=ranef_draws) for at in (at1, at2)]
    first, second = (one.question.at for one in both)
    if first == second:
        raise EffectError(f"at1 and at2 are the same ({first}), so there is no difference; give different values")
    found = [one.contrasts(vcov) for one in both]
    pairs = list(zip(*map(_by_random_effects, both), strict=True))  # by equation: first and second setting
    about = {
        term: both[0].subject
        for term, weight in effect_weights().items()
        if any(_differ(*(np.einsum("e,eja->ja", weight, by_contrast) for by_contrast in pair)) for pair in pairs)
    }
    drawn = [all_effects(one.draws(at.vcov, n=count, seed=start)) for one, at in zip(both, found, strict=True)]
    name = {term: f"{term}(at1) - {term}(at2)" for term in MODERATED}
    draws = {name[term]: drawn[0][term] - drawn[1][term] for term in MODERATED}
    estimates = {}
    if both[0].rows.setting.is_closed:
        exact = [all_effects(one.slopes.average()) for one in both]
        estimates = {name[term]: float(exact[0][term] - exact[1][term]) for term in MODERATED}
    where = f"at1: {_place(first)}; at2: {_place(second)}"
    note = f"{where}; {CLOSED}" if estimates else where
    notes = {name[term]: joined(note, about.get(term, ""), found[0].vcov.note) for term in MODERATED}
    lost, slopes = lost_coefficients(*both[0].laws(vcov)), all_effects(_difference(found[0].slopes, found[1].slopes).T)
    missing = {name[term]: said_along(lost, slopes[term]) for term in MODERATED}
    return _differences(draws, estimates, notes, missing, level=level)


def _place(at: Mapping[str, object]) -> str:
    return assigned(at) or "covariates as they are"


def _by_random_effects(found: CounterfactualSet) -> tuple[Array, Array]:
    """Derivatives (5, J, q) of the contrasts in the random effects of the mediator and of the outcome."""
    p_m, p_y = (len(part.beta) for part in found.chain.parts)
    return found.slopes.mediator[:, :, p_m:], found.slopes.outcome[:, :, p_y:]


def _differ(first: Array, second: Array) -> bool:
    """Whether two derivatives differ beyond rounding."""
    size = max(np.abs(first).max(initial=0.0), np.abs(second).max(initial=0.0))
    return bool(np.abs(first - second).max(initial=0.0) > CANCELLED * size)


def _difference(left: Array, right: Array) -> Array:
    """Difference of derivatives, rounding error set to zero."""
    found = left - right
    return np.where(np.abs(found) > SAME * np.maximum(np.abs(left), np.abs(right)), found, 0.0)


def _differences(
    draws: Mapping[str, Array],
    estimates: Mapping[str, float],
    notes: Mapping[str, str],
    missing: Mapping[str, str],
    *,
    level: float,
) -> pd.DataFrame:
    values = {term: estimates.get(term, float(np.mean(found))) for term, found in draws.items()}
    gone = {term: joined(notes[term], why) for term, why in missing.items() if why}
    return draws_table(pd.DataFrame(draws), pd.Series(values), level=level, notes=notes, missing=gone)
