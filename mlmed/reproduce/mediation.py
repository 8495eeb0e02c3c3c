"""Mediation: ``stata-bpg``, ``yuan-mackinnon`` (Stan, brms, lme4, R mediation) and ``framing`` (R mediation)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mlmed import datasets
from mlmed.api.causal import causal
from mlmed.api.mediate import mediate
from mlmed.api.piecewise import piecewise
from mlmed.fit.names import RESIDUAL
from mlmed.names import labelled
from mlmed.report.stata import StataReport, StataRow
from mlmed.reproduce.pairs import Pair, by_term, drawn_errors, drawn_pairs, mean_error, with_medians
from mlmed.reproduce.summaries import brms_pairs, lmer_pairs
from mlmed.reproduce.tables import Compared, Reproduction, published
from mlmed.results.results import Results
from mlmed.results.xtmixed import stata_report

STATA = "m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)"
PARTS = (("", "estimate"), ("SE", "std_error"), ("low", "conf_low"), ("high", "conf_high"))
#: R's names of the effects, and ours.
OF_MEDIATION = {
    "ACME (control)": "acme_control",
    "ACME (treated)": "acme_treated",
    "ADE (control)": "ade_control",
    "ADE (treated)": "ade_treated",
    "Total Effect": "total",
    "Prop. Mediated (control)": "prop_mediated_control",
    "Prop. Mediated (treated)": "prop_mediated_treated",
    "ACME (average)": "acme",
    "ADE (average)": "ade",
    "Prop. Mediated (average)": "prop_mediated",
    "ACME(1) - ACME(0)": "acme_treated - acme_control",
}
#: Our draws; draws for estimating Monte Carlo errors; draws of the sensitivity analysis; seeds.
DRAWS, ERROR_DRAWS, SENSITIVITY_DRAWS = 20_000, 5_000, 1_000
FRAMING_SEED, YUAN_SEED = 20250828, 8675309
At = Callable[[float, int], pd.DataFrame]
YUAN = "Med ~ X + (1 + X | group)", "y ~ X + Med + (1 + X + Med | group)"
#: Random effects: the page's name, brms' name, ours in the joint fit.
RANDOM = (
    ("alpha_Med", "Med_Intercept", "Med~Intercept"),
    ("beta_Med", "Med_X", "Med~X"),
    ("alpha_Main", "y_Intercept", "y~Intercept"),
    ("beta1_Main", "y_X", "y~X"),
    ("beta2_Main", "y_Med", "y~Med"),
)
#: Residuals: the page's name, Stan's, brms', ours.
RESIDUALS = (("sigma_Med", "sigmaMed", "sigma_Med", "Med"), ("sigma_y", "sigma_y", "sigma_y", "y"))
#: Names in R mediation, and ours.
AVERAGES = {"ACME": "acme", "ADE": "ade", "Total Effect": "total", "Prop. Mediated": "prop_mediated"}
BAYES = (("", "mean"), ("SE", "sd"), ("low", "2.5%"), ("high", "97.5%"))
OURS = ("estimate", "std_error", "conf_low", "conf_high")


def stata_bpg() -> Reproduction:
    """Three ML fits, the stacked model by REML, the indirect and the total effect."""
    data, asked = datasets.load("ml_sim"), published("stata_bpg_reml")
    pieces = piecewise(*STATA, data, method="ml")
    joint = mediate(*STATA, data, method=asked["method"])
    fits: list[tuple[str, Any, dict[str, Any]]] = [
        ("y on x, ML", pieces.reduced, published("stata_y_x_ml")),
        ("m on x, ML", pieces.mediator, published("stata_m_x_ml")),
        ("y on m and x, ML", pieces.outcome, published("stata_y_mx_ml")),
        ("The stacked model, REML", joint, asked),
    ]
    return Reproduction(
        "stata-bpg",
        "1-1-1 mediation by the stacked model in Stata",
        asked["source"],
        (
            *(Compared(title, tuple(_output(fit, own))) for title, fit, own in fits),
            Compared("Effects of the stacked model", tuple(_stata_effects(joint, pieces, asked["effects"]))),
        ),
        _stata_notes(pieces, joint),
    )


def _output(fit: Results, asked: dict[str, Any]) -> Iterator[Pair]:
    """All numbers of one ``xtmixed`` output."""
    report = stata_report(fit.fit, mediation=fit.catalogue.school == "mediate", level=float(asked["level"]) / 100.0)
    coefficients = {row.name: row for row in report.coefficients}
    for row in asked["coefficients"]:
        own = coefficients[row["term"]]
        yield from _stata_row(row, own)
        yield Pair(row["term"], "z", "Stata", row["z"], "ours", float(own.statistic or 0.0))
    variances = {(block.title, row.name): row for block in report.blocks for row in block.rows}
    many = len(report.blocks) > 1
    for row in asked["varcorr"]:
        shown = f"{row['block'].partition(':')[0]}: {row['term']}" if many else row["term"]
        yield from _stata_row({**row, "term": shown}, variances[row["block"], row["term"]])
    yield from _stata_row(asked["residual"], report.residual[0])
    yield from _whole(report, asked)


def _stata_row(printed: dict[str, str], own: StataRow) -> Iterator[Pair]:
    for quantity, key in PARTS:
        yield Pair(printed["term"], quantity, "Stata", printed[key], "ours", float(getattr(own, key)))


def _whole(report: StataReport, asked: dict[str, Any]) -> Iterator[Pair]:
    """Numbers of the fit as a whole."""
    for term, printed, ours in (
        ("log-likelihood", asked["loglik"], report.llf),
        (f"Wald chi2({asked['wald']['df']})", asked["wald"]["chi2"], report.wald_chi2),
        (f"LR chi2({asked['lr']['df']})", asked["lr"]["chi2"], report.lr_chi2),
    ):
        yield Pair(term, "", "Stata", printed, "ours", ours)


def _stata_effects(fit: Results, pieces: Results, asked: dict[str, Any]) -> Iterator[Pair]:
    """Paths and effects as computed on the page, with 1.96 instead of the normal quantile."""
    rows = by_term(fit.effects())
    for term in ("a", "b", "cprime", "cov_ab"):
        yield Pair(term, "", "Stata", asked[term], "ours", rows[term]["estimate"])
    for term in ("indirect", "total"):
        estimate, error = rows[term]["estimate"], rows[term]["std_error"]
        half = float(asked["critical"]) * error
        for quantity, key, ours in (
            ("", "estimate", estimate),
            ("SE", "std_error", error),
            ("z", "z", estimate / error),
            ("low", "conf_low", estimate - half),
            ("high", "conf_high", estimate + half),
        ):
            yield Pair(term, quantity, "Stata", asked[term][key], "ours", ours)
    for term, row in by_term(pieces.effects()).items():
        if term in ("a", "b", "cprime", "indirect", "total"):
            yield Pair(term, ours_by="separate, ML", ours=row["estimate"])


def _stata_notes(pieces: Results, joint: Results) -> tuple[str, ...]:
    rows = joint.effects().set_index("term")["estimate"]
    naive = by_term(pieces.effects())["indirect"]["estimate"]
    return (
        "Stata stops up to 1e-6 short of the optimum and prints seven digits; ours is the certified optimum. Standard "
        'errors are vcov="block", which is what Stata prints.',
        f"The separate fits know no covariance of the slopes: their a*b is {naive:.5f}. The stacked model has "
        f"a*b = {rows['a'] * rows['b']:.5f} and cov_ab = {rows['cov_ab']:.5f}, so the indirect effect is "
        f"{rows['indirect']:.5f}: a*b alone leaves out {1.0 - naive / rows['indirect']:.0%} of it.",
    )


def framing() -> Reproduction:
    """Anxiety between the framing of a story and writing to Congress."""
    asked, data = published("framing"), datasets.load("framing")

    def fit(outcome: str) -> Results:
        return causal(
            asked["mediator_formula"],
            outcome,
            data,
            treatment=asked["treatment"],
            family_y=asked["outcome_family"],
            vcov=asked["robust"],
        )

    plain, crossed = (fit(asked["mediate"][name]["formula"]) for name in ("plain", "interaction"))
    return Reproduction(
        "framing",
        "R mediation: effects, test of the interaction, sensitivity",
        asked["source"],
        (
            *_framing_effects(plain, asked, "plain"),
            *_framing_effects(crossed, asked, "interaction"),
            *_interaction(crossed, asked),
            Compared("medsens: where the interval of ACME contains zero", tuple(_sensitivity(plain, asked))),
            Compared("medsens: where ACME is zero", tuple(_zero(plain, asked))),
            Compared("Product method of the page: a*b of the printed coefficients", (_product(),)),
        ),
        _framing_notes(plain),
    )


def _framing_effects(fit: Results, asked: dict[str, Any], name: str) -> Iterator[Compared]:
    """The page's 1,000 draws of R, and a longer run."""

    def table_at(level: float, n: int) -> pd.DataFrame:
        return fit.effects("monte-carlo", n=n, seed=FRAMING_SEED, level=level)

    rows = asked["mediate"][name]["rows"], asked["longer_run"][name]
    yield from _runs(table_at, rows, f"mediate, {name}", int(asked["longer_run"]["simulations"]))


def _interaction(fit: Results, asked: dict[str, Any]) -> Iterator[Compared]:
    def table_at(level: float, n: int) -> pd.DataFrame:
        return fit.test_interaction(n, seed=FRAMING_SEED, level=level)

    rows = [asked["test_interaction"]], [asked["longer_run"]["test_interaction"]]
    yield from _runs(table_at, rows, "test.TMint", int(asked["longer_run"]["simulations"]))


def _runs(table_at: At, rows: tuple[list[dict[str, str]], ...], what: str, longer: int) -> Iterator[Compared]:
    """A table for each of R's two runs."""
    ours = table_at(0.95, DRAWS)
    errors = drawn_errors(lambda level: table_at(level, ERROR_DRAWS), ours)
    for printed, n in zip(rows, (1000, longer), strict=True):
        pairs = drawn_pairs(printed, ours, errors, OF_MEDIATION, by="R", draws=(n, DRAWS))
        yield Compared(f"{what}: R with {n:,} draws", tuple(pairs))


def _sensitivity(fit: Results, asked: dict[str, Any]) -> Iterator[Pair]:
    """R's regions, by R's formula and by ours."""
    facts = asked["sensitivity"]
    rhos = [float(row["rho"]) for row in facts["control"]["rows"]]

    def table_at(level: float) -> pd.DataFrame:
        found = fit.sensitivity(rhos, n=SENSITIVITY_DRAWS, seed=FRAMING_SEED, level=level, formula="medsens")
        return _named(found.table)

    ours = table_at(0.95)
    errors = drawn_errors(table_at, ours)
    exact = by_term(_named(fit.sensitivity(rhos).table))
    for group in ("control", "treated"):
        for row in facts[group]["rows"]:
            term = f"{group}, rho {row['rho']}"
            draws = (int(facts["simulations"]), SENSITIVITY_DRAWS)
            printed = [{**row, "term": term}]
            yield from drawn_pairs(printed, ours, errors, {term: term}, by="R", ours_by="medsens", draws=draws)
            for quantity, key in (("", "estimate"), ("low", "conf_low"), ("high", "conf_high")):
                yield Pair(term, quantity, ours_by="exact", ours=exact[term][key])
            for quantity, key in (("R2*", "r2_star"), ("R2~", "r2_tilde")):
                own = exact[term][{"r2_star": "R2_star", "r2_tilde": "R2_tilde"}[key]]
                yield Pair(term, quantity, "R", row[key], "ours", own)


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """The table with terms that include the correlation, ``control, rho 0.3``."""
    groups = {"acme_control": "control", "acme_treated": "treated", "acme": ""}
    pairs = zip(table["term"], table["rho"], strict=True)
    return table.assign(term=[f"{groups[term]}, rho {rho:g}" for term, rho in pairs])


def _zero(fit: Results, asked: dict[str, Any]) -> Iterator[Pair]:
    """The zero of the curve; R prints the nearest point of its grid."""
    facts = asked["sensitivity"]
    step = float(facts["rho_by"])
    medsens = by_term(fit.sensitivity(step, n=SENSITIVITY_DRAWS, seed=FRAMING_SEED, formula="medsens").zero)
    exact = by_term(fit.sensitivity(step).zero)
    for group in ("control", "treated"):
        own, ours = medsens[f"acme_{group}"], exact[f"acme_{group}"]
        for what, key, name in (("rho", "rho", "rho"), ("R2*", "r2_star", "R2_star"), ("R2~", "r2_tilde", "R2_tilde")):
            term = f"{group}: {what}"
            yield Pair(f"{term} on the grid", "", "R", facts[group]["zero"][key], "medsens", own[f"{name}_on_grid"])
            yield Pair(f"{term} of the curve", "", ours_by="medsens", ours=own[name])
            yield Pair(f"{term} on the grid", "", ours_by="exact", ours=ours[f"{name}_on_grid"])
            yield Pair(f"{term} of the curve", "", ours_by="exact", ours=ours[name])


def _product() -> Pair:
    """The product of the printed coefficients; the simulated data are not available."""
    facts = published("product_method")["partial_mediation"]
    a = float(facts["mediator"]["coefficients"][1]["estimate"])
    b = float(facts["outcome"]["coefficients"][2]["estimate"])
    return Pair("X -> M -> Y", "", "R", facts["indirect"], "a*b of five digits", a * b)


def _framing_notes(plain: Results) -> tuple[str, ...]:
    exact, drawn = by_term(plain.effects()), by_term(plain.effects("monte-carlo", n=DRAWS, seed=FRAMING_SEED))
    return (
        f"R draws coefficients from their normal distribution; ours are {DRAWS:,} draws with seed {FRAMING_SEED}. "
        "Differences in MC errors are those beyond the rounding of what was printed, over the Monte Carlo standard "
        "error of the difference of the two runs: sd / sqrt(draws) for means, order statistics for medians (shares) "
        "and ends of intervals. Up to four of them are chance.",
        "The runs with 50,000 draws are not on the page; they are the same calls, known to the digits given.",
        "The mean of the draws is not the effect at the estimates: ACME (control) is "
        f"{exact['acme_control']['estimate']:.4f} there and {drawn['acme_control']['estimate']:.4f} as a mean of "
        "draws, because a probability bends in the coefficients.",
        "The total effect is 1.4 standard errors from zero, so shares of it have intervals that say nothing.",
        f"medsens: the column of that name is R's computation (formula='medsens', {SENSITIVITY_DRAWS:,} draws). It "
        "shrinks the coefficient of the mediator already at rho = 0; exact is maximum likelihood at each rho, and its "
        "curve reaches zero later. R prints the point of its grid with the smallest effect, not the zero of the curve.",
        "The data of the page's product method were simulated without a seed and cannot be made again.",
    )


@dataclass(frozen=True, slots=True)
class _Fits:
    """Our fits: the joint ones and the two separate ones."""

    reml: Results
    ml: Results
    pieces: Results
    outcomes: Results

    @property
    def med(self) -> Results:
        """The separate mediator equation."""
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
        mediate(*YUAN, data),
        mediate(*YUAN, data, method="ml"),
        piecewise(*YUAN, data),
        causal(*YUAN, data),
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
            Compared("Effects: Stan, and brms' hypothesis as nlcom", tuple(_yuan_effects(fits.reml, asked))),
            Compared("R mediation: quasi-Bayesian, 1,000 draws, run twice", tuple(_mediation(fits.outcomes, asked))),
            Compared("Indirect effect", tuple(_indirect(fits, asked))),
        ),
        _yuan_notes(fits, asked),
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
    listed += [(name, true[name], s, b, f"sqrt(`var({labelled(own, RESIDUAL)})`)") for name, s, b, own in RESIDUALS]
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
    """Covariance matrices: the truth, Stan's, lme4's two, our joint one, and those of our two separate fits."""
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


def _correlations(fit: Results, asked: dict[str, Any]) -> Iterator[Pair]:
    rows = [row for row in asked["brms"]["group_level"] if row["term"].startswith("cor(")]
    own = {short: name for _, short, name in RANDOM}
    position = {name: k for k, name in enumerate(fit.G.index)}
    expressions = {}
    for row in rows:
        pair = [own[part] for part in row["term"][4:-1].split(",")]
        first, second = sorted(pair, key=position.__getitem__)
        expressions[row["term"]] = f"`cov({first},{second})` / sqrt(`var({first})` * `var({second})`)"
    yield from brms_pairs(rows, fit.nlcom(expressions), ours_by="REML")


def _yuan_effects(fit: Results, asked: dict[str, Any]) -> Iterator[Pair]:
    """Stan's generated quantities and brms' hypothesis."""
    expressions = {
        "naive_ind_effect": "a*b",
        "avg_ind_effect": "a*b + cov_ab",
        "total_effect": "a*b + cov_ab + cprime",
        "hypothesis": "`y~Med` * `Med~X` + `cov(Med~X,y~Med)`",
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


def _mediation(fit: Results, asked: dict[str, Any]) -> Iterator[Pair]:
    """R's two runs; we draw random effects as R does."""

    def table_at(level: float, n: int = ERROR_DRAWS) -> pd.DataFrame:
        return fit.effects("monte-carlo", n=n, seed=YUAN_SEED, level=level, ranef_draws="independent")

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


def _yuan_notes(fits: _Fits, asked: dict[str, Any]) -> tuple[str, ...]:
    """Reasons for numbers that are not expected to agree."""
    stan = {row["term"]: row["mean"] for row in asked["stan"]["rows"]}
    reml, ml = (fit.effects().set_index("term")["estimate"] for fit in (fits.reml, fits.ml))
    product = reml["a"] * reml["b"]
    own = fits.outcomes.effects("monte-carlo", n=DRAWS, seed=YUAN_SEED)
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
