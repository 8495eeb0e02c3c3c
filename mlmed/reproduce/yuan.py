"""``yuan-mackinnon``: Stan, brms, lme4 and R ``mediation`` on one data set, against the joint fit and its pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mlmed import datasets
from mlmed.api.causal import CausalResults, causal
from mlmed.api.mediate import MediationResults, mediate
from mlmed.api.piecewise import PiecewiseResults, piecewise
from mlmed.reproduce.lme4 import brms_pairs, lmer_pairs
from mlmed.reproduce.montecarlo import drawn_errors, drawn_pairs, with_medians
from mlmed.reproduce.pairs import Pair, by_term, mean_error
from mlmed.reproduce.sources import published
from mlmed.reproduce.tables import Compared, Reproduction
from mlmed.results.results import MixedResults

__all__ = ["yuan_mackinnon"]

MEDIATOR, OUTCOME = "Med ~ X + (1 + X | group)", "y ~ X + Med + (1 + X + Med | group)"
#: Random effects: the page's name, brms' name, ours in the joint fit.
RANDOM = (
    ("alpha_Med", "Med_Intercept", "Med:Intercept"),
    ("beta_Med", "Med_X", "Med:X"),
    ("alpha_Main", "y_Intercept", "y:Intercept"),
    ("beta1_Main", "y_X", "y:X"),
    ("beta2_Main", "y_Med", "y:Med"),
)
#: Residuals: the page's name, Stan's, brms', ours.
RESIDUALS = (("sigma_Med", "sigmaMed", "sigma_Med", "Med"), ("sigma_y", "sigma_y", "sigma_y", "y"))
#: Names in R mediation, and ours.
AVERAGES = {"ACME": "acme", "ADE": "ade", "Total Effect": "total", "Prop. Mediated": "prop_mediated"}
#: Our draws, their seed, and draws that Monte Carlo errors are estimated from.
DRAWS, SEED, ERROR_DRAWS = 20_000, 8675309, 5_000
BAYES = (("", "mean"), ("SE", "sd"), ("low", "2.5%"), ("high", "97.5%"))
OURS = ("estimate", "std_error", "conf_low", "conf_high")


@dataclass(frozen=True, slots=True)
class _Fits:
    """Everything of ours that is compared: the joint fits and the two separate ones."""

    reml: MediationResults
    ml: MediationResults
    pieces: PiecewiseResults
    outcomes: CausalResults

    @property
    def med(self) -> MixedResults:
        """The separate mediator equation."""
        assert isinstance(self.pieces.mediator, MixedResults)
        return self.pieces.mediator

    @property
    def naive(self) -> float:
        """Product of the slopes of the separate fits."""
        return by_term(self.pieces.effects())["indirect"]["estimate"]

    @property
    def acme(self) -> float:
        """Average product of the group-level slopes of the separate fits."""
        return by_term(self.outcomes.effects())["acme"]["estimate"]


def yuan_mackinnon() -> Reproduction:
    """Five programs on the simulated data of the page."""
    data, asked = datasets.load("yuan_mackinnon_sim"), published("yuan_mackinnon")
    fits = _Fits(
        mediate(MEDIATOR, OUTCOME, data),
        mediate(MEDIATOR, OUTCOME, data, method="ml"),
        piecewise(MEDIATOR, OUTCOME, data),
        causal(MEDIATOR, OUTCOME, data),
    )
    return Reproduction(
        "yuan-mackinnon",
        "one data set by Stan, brms, lme4 and R mediation",
        asked["source"],
        (
            Compared("Parameters: Stan and brms against the joint fit (REML, ML)", tuple(_parameters(fits, asked))),
            Compared("lme4, mediator equation", tuple(lmer_pairs(fits.med, asked["lmer"]["med"], data))),
            Compared("lme4, outcome equation", tuple(lmer_pairs(fits.pieces.outcome, asked["lmer"]["main"], data))),
            Compared("Covariance of the random effects", tuple(_covariances(fits, asked))),
            Compared("Correlation of the random effects: brms", tuple(_correlations(fits.reml, asked))),
            Compared("Effects: Stan, and brms' hypothesis as nlcom", tuple(_effects(fits.reml, asked))),
            Compared("R mediation: quasi-Bayesian, 1,000 draws, run twice", tuple(_mediation(fits.outcomes, asked))),
            Compared("Indirect effect", tuple(_indirect(fits, asked))),
        ),
        _notes(fits, asked),
    )


def _parameters(fits: _Fits, asked: dict[str, Any]) -> Iterator[Pair]:
    """Fixed effects and standard deviations."""
    stan = {row["term"]: row for row in asked["stan"]["rows"]}
    brms = asked["brms"]
    rows = {r["term"]: r for r in (*brms["population_level"], *brms["group_level"], *brms["family_specific"])}
    true = {row["term"].partition(".")[0]: row["true"] for row in asked["parameters"]}
    sd_true = {row["term"].partition(".")[2]: row["true"] for row in asked["parameters"]}
    listed = [(name, true[name], name, short, f"`{own}`") for name, short, own in RANDOM]
    listed += [
        (f"sd {name}", sd_true[name], f"sigma_ranef[{k}]", f"sd({short})", f"sqrt(`var({own})`)")
        for k, (name, short, own) in enumerate(RANDOM, start=1)
    ]
    listed += [(name, true[name], s, b, f"sqrt(`var({own}:Residual)`)") for name, s, b, own in RESIDUALS]
    expressions = {name: expression for name, *_, expression in listed}
    table = fits.reml.nlcom(expressions)
    reml, ml = by_term(table), by_term(fits.ml.nlcom(expressions))
    for name, printed, of_stan, of_brms, _ in listed:
        yield Pair(name, "", "true", printed)
        yield from _stan(name, stan[of_stan], reml[name])
        yield from brms_pairs([{**rows[of_brms], "term": name}], table, ours_by="REML")
        yield Pair(name, "", ours_by="ML", ours=ml[name]["estimate"])


def _stan(term: str, row: dict[str, str], own: dict[str, float]) -> Iterator[Pair]:
    for (quantity, key), column in zip(BAYES, OURS, strict=True):
        error = float("nan") if quantity else float(row["se_mean"])
        yield Pair(term, quantity, "Stan", row[key], "REML", own[column], error)


def _covariances(fits: _Fits, asked: dict[str, Any]) -> Iterator[Pair]:
    """The true matrix, Stan's, lme4's two, and ours: the joint one and the two of the separate fits."""
    shown = asked["random_effect_covariances"]
    names = [own for *_, own in RANDOM]
    joint = fits.reml.G.loc[names, names].to_numpy()
    order = ["Intercept", "X", "Med"]
    pieces = np.full((5, 5), np.nan)
    pieces[:2, :2], pieces[2:, 2:] = fits.med.G.loc[order[:2], order[:2]], fits.pieces.outcome.G.loc[order, order]
    lme4 = {(i, j): shown["med_lme4"]["matrix"][i][j] for i in range(2) for j in range(2)}
    lme4 |= {(i + 2, j + 2): shown["main_lme4"]["matrix"][i][j] for i in range(3) for j in range(3)}
    for i in range(5):
        for j in range(i + 1):
            term = f"var {RANDOM[i][0]}" if i == j else f"cov {RANDOM[j][0]}, {RANDOM[i][0]}"
            yield Pair(term, "", "true", shown["true"]["matrix"][i][j])
            yield Pair(term, "", "Stan", shown["stan"]["matrix"][i][j], "REML", float(joint[i, j]))
            if (i, j) in lme4:
                yield Pair(term, "", "lme4", lme4[i, j], "separate", float(pieces[i, j]))


def _correlations(fit: MediationResults, asked: dict[str, Any]) -> Iterator[Pair]:
    rows = [row for row in asked["brms"]["group_level"] if row["term"].startswith("cor(")]
    own = {short: name for _, short, name in RANDOM}
    position = {name: k for k, name in enumerate(fit.G.index)}
    expressions = {}
    for row in rows:
        pair = [own[part] for part in row["term"][4:-1].split(",")]
        first, second = sorted(pair, key=position.__getitem__)
        expressions[row["term"]] = f"`cov({first},{second})` / sqrt(`var({first})` * `var({second})`)"
    yield from brms_pairs(rows, fit.nlcom(expressions), ours_by="REML")


def _effects(fit: MediationResults, asked: dict[str, Any]) -> Iterator[Pair]:
    """Stan's generated quantities and brms' hypothesis."""
    expressions = {
        "naive_ind_effect": "a*b",
        "avg_ind_effect": "a*b + cov_ab",
        "total_effect": "a*b + cov_ab + cprime",
        "hypothesis": "`y:Med` * `Med:X` + `cov(Med:X,y:Med)`",
    }
    own = by_term(fit.nlcom(expressions))
    for row in asked["stan"]["rows"]:
        if row["term"] in expressions:
            yield from _stan(row["term"], row, own[row["term"]])
    hypothesis = asked["brms_hypothesis"]
    for (quantity, _), key, column in zip(BAYES, ("estimate", "est_error", "conf_low", "conf_high"), OURS, strict=True):
        error = float("nan") if quantity else mean_error(float(hypothesis["est_error"]), float(asked["brms"]["draws"]))
        printed, ours = hypothesis[key], own["hypothesis"][column]
        yield Pair("hypothesis", quantity, "brms", printed, "REML", ours, error)


def _mediation(fit: CausalResults, asked: dict[str, Any]) -> Iterator[Pair]:
    """R's two runs; random effects are drawn as R draws them."""

    def table_at(level: float, n: int = ERROR_DRAWS) -> pd.DataFrame:
        return fit.effects("monte-carlo", n=n, seed=SEED, level=level, ranef_draws="independent")

    ours, draws = table_at(0.95, DRAWS), (1000, DRAWS)
    ours = with_medians(ours, lambda level: table_at(level, DRAWS))
    errors = drawn_errors(table_at, ours)
    first, again = asked["mediation_package"]["rows"], asked["mediation_package_again"]["rows"]
    yield from drawn_pairs(first, ours, errors, AVERAGES, by="R", draws=draws)
    yield from drawn_pairs(again, ours, errors, AVERAGES, by="R again", draws=draws)


def _indirect(fits: _Fits, asked: dict[str, Any]) -> Iterator[Pair]:
    """The page's line of five indirect effects, and brms', each beside its counterpart."""
    shown, again = asked["indirect_effect"], asked["mediation_package_again"]["rows"][0]["estimate"]
    rows = fits.reml.effects().set_index("term")["estimate"]
    indirect, product = float(rows["indirect"]), float(rows["a"] * rows["b"])
    for term, printed, ours, what in (
        ("true", shown["true"], indirect, "joint REML, a*b + cov_ab"),
        ("est_bayes", shown["est_bayes"], indirect, "joint REML, a*b + cov_ab"),
        ("brms", asked["brms_hypothesis"]["estimate"], indirect, "joint REML, a*b + cov_ab"),
        ("naive_bayes", shown["naive_bayes"], product, "joint REML, a*b"),
        ("naive_lmer", shown["naive_lmer"], fits.naive, "separate fits, a*b"),
        ("mediation_pack", shown["mediation_pack"], fits.acme, "potential outcomes, ACME"),
        ("mediation_pack again", again, fits.acme, "potential outcomes, ACME"),
    ):
        yield Pair(term, "", "published", printed, "ours", ours, note=what)


def _notes(fits: _Fits, asked: dict[str, Any]) -> tuple[str, ...]:
    """Why the numbers that are not meant to agree do not."""
    stan = {row["term"]: row["mean"] for row in asked["stan"]["rows"]}
    reml, ml = (fit.effects().set_index("term")["estimate"] for fit in (fits.reml, fits.ml))
    product = reml["a"] * reml["b"]
    own = fits.outcomes.effects("monte-carlo", n=DRAWS, seed=SEED)
    low, high = (by_term(own)["acme"][end] for end in ("conf_low", "conf_high"))
    covariance = float(stan["avg_ind_effect"]) - float(stan["naive_ind_effect"])
    return (
        f"Stan's indirect effect is {stan['avg_ind_effect']}, the joint REML fit has {reml['indirect']:.4f} (ML "
        f"{ml['indirect']:.4f}). That is not noise: the page's model gives every fixed effect a normal prior around "
        "zero, normal(0, sigma_beta_Med) and so on, whose scale has a half-Cauchy prior of its own. They shrink "
        f"beta_Med from {reml['a']:.3f} to {stan['beta_Med']} and beta2_Main from {reml['b']:.3f} to "
        f"{stan['beta2_Main']}, and a*b from {product:.3f} to {stan['naive_ind_effect']}; the covariance of the slopes "
        f"hardly moves ({reml['cov_ab']:.3f} to {covariance:.3f}). brms has flat priors on the slopes and gives "
        f"{asked['brms_hypothesis']['estimate']}.",
        "R mediation averages, over groups, products of group-level slopes: fixed effect plus conditional mode of two "
        "separate fits. Conditional modes are shrunken, and each fit is blind to the other, so the covariance of the "
        f"modes is {fits.acme - fits.naive:.4f} where cov_ab is {reml['cov_ab']:.4f}; with a*b = "
        f"{fits.naive:.4f} that makes {fits.acme:.4f}.",
        "R mediation draws the random effects of a group independently of the coefficients and of each other; its "
        'intervals are compared with ours by ranef_draws="independent". Drawn given the coefficients, which is our '
        f"default, they are narrower: ACME {low:.3f} to {high:.3f}. The total effect is close to zero, so the share "
        "mediated has no use here.",
        f"naive_lmer is a*b of separate fits, {fits.naive:.4f}: the average of a_j b_j over groups is a*b plus the "
        f"covariance of a_j and b_j, and separate fits have no such covariance. Here it is most of the effect.",
        "Standard deviations of random effects are 4 to 7% higher in Stan and in brms: means of skewed posterior "
        "distributions, where REML has a maximum.",
        "MC errors are differences beyond the printed digits over Monte Carlo standard errors: se_mean for Stan, "
        "est_error / sqrt(bulk_ess) for brms, those of both runs for R mediation.",
        "The numbers labelled true are those the data were simulated from. Errors and intervals of Stan and brms are "
        "posterior standard deviations and quantiles; ours are those of the delta method.",
    )
