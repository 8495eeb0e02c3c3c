"""Numbers of Stata's ``xtmixed`` output from a fit: Stata's names, order, and tests."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import chdtrc

from mlmed.data.layout import INTERCEPT
from mlmed.effects.delta import wald_table
from mlmed.errors import EffectError
from mlmed.fit.lmm import LmmFit, certified_text, starts_text
from mlmed.lmm.estimates import regression_loglik
from mlmed.lmm.vcov import parameter_vcov
from mlmed.report.stata import StataBlock, StataEffect, StataGroup, StataReport, StataRow
from mlmed.results.tables import fixed_table, variance_table


def stata_report(
    fitted: LmmFit,
    *,
    level: float,
    mediation: bool = False,
    effects: pd.DataFrame | None = None,
    notes: tuple[str, ...] = (),
) -> StataReport:
    """Collect the numbers of ``xtmixed`` for one equation, or for the stacked model of a ``mediation``.

    Raises
    ------
    EffectError
        There are several responses that are not mediator and outcome.
    """
    stacked = len(fitted.layout.equations) > 1
    if len(fitted.layout.equations) > 2 and mediation:
        raise EffectError(
            "xtmixed's stacked form (sm, sy) is that of one mediator and the outcome; this fit has the equations "
            f"{', '.join(equation.name for equation in fitted.layout.equations)}. The native summary has them; "
            "varcorr() has Stata's variance scale"
        )
    if stacked and not mediation:
        names = ", ".join(equation.name for equation in fitted.layout.equations)
        raise EffectError(
            "xtmixed has one response, and its stacked form (sm, sy) is that of a mediator and an outcome; this fit "
            f"has the responses {names}. The native summary has them; varcorr() has Stata's variance scale"
        )
    fixed, random = _fixed_names(fitted), _random_names(fitted)
    table = fixed_table(fitted, vcov="block", level=level)
    constants = _constants(fitted, "fixed")
    order = _constant_last(constants)
    coefficients = tuple(_row(fixed[k], table.iloc[k]) for k in order)
    wald_df, wald_chi2 = _wald(fitted, constants)
    lr_df = len(fitted.estimates.tau) + len(fitted.estimates.sigma2) - 1
    null = regression_loglik(fitted.working.problem, fitted.working.units, reml=fitted.reml)
    lr_chi2 = max(2.0 * (fitted.estimates.loglik - null), 0.0)
    residual, extra, warnings = _residuals(fitted, level) if stacked else (_single_residual(fitted, level), (), ())
    return StataReport(
        method=fitted.spec.method,
        response="z" if stacked else fitted.layout.equations[0].name,
        nobs=fitted.nobs,
        groups=_groups(fitted),
        llf=fitted.estimates.loglik,
        wald_df=wald_df,
        wald_chi2=wald_chi2,
        wald_p=float(chdtrc(wald_df, wald_chi2)) if wald_df else float("nan"),
        coefficients=coefficients,
        blocks=(*_blocks(fitted, random, level), *extra),
        residual=residual,
        lr_df=lr_df,
        lr_chi2=lr_chi2,
        lr_p=_lr_p(lr_df, lr_chi2),
        level=level,
        effects=_effects(effects),
        notes=(*notes, *warnings, _optimum_note(fitted), *(str(dropped) for dropped in fitted.layout.dropped)),
    )


def _optimum_note(fitted: LmmFit) -> str:
    """Note with the summary's line "Optimum", which Stata lacks."""
    searched = fitted.optimum.searched
    return f"Note: the optimum is {certified_text(fitted)}; it is {starts_text(searched)}."


def _lr_p(df: int, chi2: float) -> float:
    """P value; for one variance of the 50:50 mixture of 0 and chi2(1), which is 1 at a statistic of 0."""
    if df == 1:
        return 1.0 if chi2 == 0.0 else 0.5 * float(chdtrc(1, chi2))
    return float(chdtrc(df, chi2))


def _stata_name(equation: int, column: str, fitted: LmmFit) -> str:
    """Name columns as in the stacked data: sm, smx, sy, sym, syx; ``_cons`` in a single equation."""
    if len(fitted.layout.equations) == 1:
        return "_cons" if column == INTERCEPT else column
    return ("sm", "sy")[equation] + ("" if column == INTERCEPT else column)


def _fixed_names(fitted: LmmFit) -> list[str]:
    return [_stata_name(e, name, fitted) for e, own in enumerate(fitted.layout.equations) for name in own.fixed]


def _random_names(fitted: LmmFit) -> list[str]:
    return [_stata_name(e, name, fitted) for e, own in enumerate(fitted.layout.equations) for name in own.random]


def _constant_last(is_constant: list[bool]) -> list[int]:
    return sorted(range(len(is_constant)), key=lambda k: is_constant[k])


def _constants(fitted: LmmFit, part: str) -> list[bool]:
    """Flag the constant among the ``fixed`` or ``random`` columns; stacked models have none."""
    equations = fitted.layout.equations
    return [len(equations) == 1 and name == INTERCEPT for e in equations for name in getattr(e, part)]


def _row(name: str, row: pd.Series) -> StataRow:
    return StataRow(
        name,
        row["estimate"],
        row["std_error"],
        row["statistic"],
        row["p_value"],
        row["conf_low"],
        row["conf_high"],
    )


def _variance_row(kind: str, of: tuple[str, ...], row: pd.Series) -> StataRow:
    name = f"{kind}({','.join(of)})"
    return StataRow(name, row["estimate"], row["std_error"], None, None, row["conf_low"], row["conf_high"], kind, of)


def _wald(fitted: LmmFit, constants: list[bool]) -> tuple[int, float]:
    """Joint test of all coefficients but the constant; stacked models have no constant."""
    tested = np.flatnonzero(~np.array(constants))
    if not len(tested):
        return 0, float("nan")
    beta, V = fitted.estimates.beta[tested], fitted.estimates.P_inv[np.ix_(tested, tested)]
    return len(tested), float(beta @ np.linalg.solve(V, beta))


def _groups(fitted: LmmFit) -> tuple[StataGroup, ...]:
    grams = fitted.grams
    equations = np.array([sum(pattern) for pattern in grams.patterns])
    counts = grams.counts.round().astype(int)
    stacked = equations @ counts
    top = StataGroup(fitted.group_name, len(stacked), int(stacked.min()), float(stacked.mean()), int(stacked.max()))
    if len(fitted.layout.equations) == 1:
        return (top,)
    rows = counts.sum(axis=1)
    return (
        top,
        StataGroup(
            "fid",
            int(rows.sum()),
            int(equations.min()),
            float(equations @ rows / rows.sum()),
            int(equations.max()),
        ),
    )


def _blocks(fitted: LmmFit, names: list[str], level: float) -> tuple[StataBlock, ...]:
    table = variance_table(fitted, vcov="block", level=level)
    at = {tuple(sorted(pair)): k for k, pair in enumerate(map(tuple, fitted.estimates.tau_at))}
    blocks, constants = [], _constants(fitted, "random")
    for block in fitted.working.blocks:
        index = [block.index[k] for k in _constant_last([constants[i] for i in block.index])]
        pairs = [(i, i) for i in index] + [(i, k) for n, i in enumerate(index) for k in index[n + 1 :]]
        rows = []
        for i, k in pairs:
            found = at.get(tuple(sorted((i, k))))
            if found is None:
                continue
            shared = block.structure in ("identity", "exchangeable") and len(index) > 1
            pair = (names[i],) if i == k else (names[i], names[k])
            of = (" ".join(names[e] for e in index),) if shared else pair
            rows.append(_variance_row("var" if i == k else "cov", of, table.iloc[found]))
        title = {"diagonal": "Independent"}.get(block.structure, block.structure.capitalize())
        title = "Identity" if len(index) == 1 else title
        blocks.append(StataBlock(fitted.group_name, title, tuple(rows)))
    return tuple(blocks)


def _single_residual(fitted: LmmFit, level: float) -> tuple[StataRow, ...]:
    return (_variance_row("var", ("Residual",), variance_table(fitted, vcov="block", level=level).iloc[-1]),)


def _residuals(fitted: LmmFit, level: float) -> tuple[tuple[StataRow, ...], tuple[StataBlock, ...], tuple[str, ...]]:
    """Stata's form of two residual variances: var(Residual) is y's, ``fid: var(sm)`` is m's minus y's."""
    estimates = fitted.estimates
    V = parameter_vcov(estimates).matrix[-2:, -2:]
    sigma2_m, sigma2_y = estimates.sigma2
    difference = sigma2_m - sigma2_y
    variance = V[0, 0] + V[1, 1] - 2.0 * V[0, 1]
    errors = np.sqrt(np.array([variance, V[1, 1]], dtype=np.float64))
    values: NDArray[np.float64] = np.array([difference, sigma2_y])
    names = ["sm", "Residual"]
    table = wald_table(names, values, errors, level=level, kinds=["variance", "variance"])
    rows = [_variance_row("var", (name,), row) for name, (_, row) in zip(names, table.iterrows(), strict=True)]
    note = (
        (
            "Note: the residual variance of m is below that of y, so var(sm) would have to be negative; Stata's form "
            "of the model cannot reach this optimum.",
        )
        if difference < 0.0
        else ()
    )
    return (rows[1],), (StataBlock("fid", "Identity", (rows[0],)),), note


def _effects(table: pd.DataFrame | None) -> tuple[StataEffect, ...]:
    if table is None:
        return ()
    labels = {"indirect": "average indirect effect", "total": "average total effect"}
    columns = ["estimate", "std_error", "statistic", "conf_low", "conf_high"]
    numbers = table.set_index("term")[columns].to_dict("index")
    return tuple(StataEffect(label, *(numbers[term][c] for c in columns)) for term, label in labels.items())
