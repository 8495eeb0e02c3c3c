"""Export a fit as text, JSON, or one flat table."""

from __future__ import annotations

import json
import textwrap
from typing import Any

import numpy as np
import pandas as pd

from mlmed.effects.catalogue import NoEffects
from mlmed.effects.counterfactual import CounterfactualCatalogue
from mlmed.effects.paths import PathCatalogue
from mlmed.effects.scale import ScaleCatalogue
from mlmed.effects.separate import SeparateCatalogue
from mlmed.errors import EffectError
from mlmed.fit.lmm import LmmFit
from mlmed.intervals.values import spread
from mlmed.options import DDF_KINDS, STYLES, check_level, one_of, refuse_given
from mlmed.report.stata import render
from mlmed.report.text import format_number
from mlmed.results.abilities import Held
from mlmed.results.document import document_of, flat_table, interval_entry, plain, records
from mlmed.results.inference import effects, effects_reason, kind_of
from mlmed.results.separate import ml_mediation
from mlmed.results.summary import counterfactual_facts, counterfactual_text, effects_text, native_summary, scale_summary
from mlmed.results.tables import effects_section, fixef, residual_rows, sdcor, varcorr
from mlmed.results.xtmixed import stata_report

#: Effects whose standard errors under another covariance are printed below the summary.
SHOWN_ERRORS = ("a", "b", "cprime", "indirect", "total")


def sections(
    self: Held, *, vcov: str | None = None, level: float = 0.95, ddf: str | None = None, **options: Any
) -> dict[str, pd.DataFrame]:
    """Collect the tables that are exported, by name.

    Parameters
    ----------
    vcov : str, optional
        Covariance of the estimates, one of ``vcov()``; by default the fit's own.
    level : float
        Coverage of the intervals, a proportion.
    ddf : {"none", "satterthwaite", "kenward-roger", "residual"}, optional
        Of the coefficients, as in ``tidy``. The effects of ``mediate`` take it, too; those of other fits do not, and
        are shown without.
    **options
        Further options of ``effects()``, ``interval`` included.

    Returns
    -------
    dict of str to DataFrame
        fixef; varcorr, residual and sdcor if the fit has them; effects, except for ``mixed`` (without rows if the model
        defines no effects).

    Raises
    ------
    EffectError
        An option that is not used.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> list(fit.sections())
    ['fixef', 'varcorr', 'residual', 'sdcor']
    """
    vcov, ddf, options = spread(vcov, ddf, options)
    found, of_rows = {"fixef": fixef(self, vcov=vcov, level=level, ddf=ddf)}, np.array(residual_rows(self.fit))
    if len(of_rows):
        variances = varcorr(self, vcov=vcov, level=level)
        found["varcorr"] = variances[~of_rows]
        found |= {"residual": variances[of_rows]} if of_rows.any() else {}
        found["sdcor"] = sdcor(self, vcov=vcov, level=level)
    if isinstance(self.catalogue, NoEffects):
        refuse_given("a model without effects has no intervals of them", options)
        return found
    own = {"vcov": vcov, "ddf": _ddf_of_effects(self, ddf), **options}
    return {**found, "effects": effects_section(self, level=level, **own)}


def _ddf_of_effects(self: Held, ddf: str | None) -> str | None:
    """The degrees of freedom that effects are asked for: none where no interval of theirs takes any."""
    return ddf if any("ddf" in known for known in self.catalogue.intervals.values()) else None


def to_json(self: Held, *, vcov: str | None = None, level: float = 0.95, ddf: str | None = None, **options: Any) -> str:
    """Write all tables as JSON (``--format json``); a missing number is null, with the reason in its row's ``note``.

    Parameters
    ----------
    vcov, level, ddf, **options
        As in ``sections``.

    Returns
    -------
    str
        One object: facts of the fit, then the tables of ``sections`` as lists of rows.

    Raises
    ------
    EffectError
        An option that is not used.

    Examples
    --------
    >>> import json, mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> [row["term"] for row in json.loads(fit.to_json())["fixef"]]
    ['Intercept', 'X']
    """
    vcov, ddf, options = spread(vcov, ddf, options)
    tables = sections(self, vcov=vcov, level=level, ddf=ddf, **options)
    found = {
        **document_of(self.fit),
        "school": self.catalogue.school,
        "level": check_level(level),
        "vcov": kind_of(self.fit, vcov),
        "ddf": "none" if ddf is None else ddf,
    }
    if not isinstance(self.catalogue, NoEffects):
        entries = {name: plain(value) for name, value in self.catalogue.entries.items()}
        found |= {**entries, **interval_entry(options)}
        if isinstance(self.catalogue, CounterfactualCatalogue):
            found |= counterfactual_facts(self.catalogue.effects(self.fit))
        reason = effects_reason(self)
        found |= {"effects_reason": reason} if reason else {}
    found |= {name: records(table) for name, table in tables.items()}
    return json.dumps(found, indent=2, allow_nan=False)


def to_table(
    self: Held, *, vcov: str | None = None, level: float = 0.95, ddf: str | None = None, **options: Any
) -> pd.DataFrame:
    """Stack all tables (``--format csv``); the column ``section`` names each.

    Parameters
    ----------
    vcov, level, ddf, **options
        As in ``sections``.

    Returns
    -------
    DataFrame
        section, then the union of the tables' columns.

    Raises
    ------
    EffectError
        An option that is not used.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> fit.to_table()["section"].value_counts(sort=False).to_dict()
    {'fixef': 2, 'varcorr': 1, 'residual': 1, 'sdcor': 2}
    """
    vcov, ddf, options = spread(vcov, ddf, options)
    return flat_table(sections(self, vcov=vcov, level=level, ddf=ddf, **options))


def summary(
    self: Held,
    style: str = "text",
    *,
    vcov: str | None = None,
    level: float = 0.95,
    ddf: str | None = None,
    **options: Any,
) -> str:
    """Write the fit and its effects as text.

    Parameters
    ----------
    style : {"text", "stata"}
        ``stata``: the layout of ``xtmixed`` for ``mixed`` (one response) and ``mediate``, of UCLA's ``ml_mediation``
        for ``piecewise``.
    vcov, level, ddf, **options
        As in ``sections``; ``stata`` takes ``level`` only, for ``piecewise`` none.

    Returns
    -------
    str

    Raises
    ------
    EffectError
        Unknown style, an option that is not used, or a fit that has no Stata layout.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> print(fit.summary("stata").splitlines()[0])
    Mixed-effects REML regression                     Number of obs     =      1000
    """
    vcov, ddf, options = spread(vcov, ddf, options)
    own: dict[str, Any] = {"vcov": kind_of(self.fit, vcov), "ddf": "none" if ddf is None else ddf}
    if isinstance(self.catalogue, ScaleCatalogue):
        if one_of(style, STYLES, "style") == "stata":
            raise EffectError("style='stata' is the layout of xtmixed, which has no location-scale models")
        table, title = effects_section(self, level=level, vcov=vcov, **options), self.catalogue.title(self.fit)
        return scale_summary(self.fit, table, title=title, level=level, asked={"vcov": vcov, **options}, **own)
    if one_of(style, STYLES, "style") == "stata":
        if isinstance(self.catalogue, SeparateCatalogue):
            given = {"vcov": vcov, "ddf": ddf, **options, "level": None if level == 0.95 else level}
            refuse_given("style='stata' shows estimates only", given)
            reason = effects_reason(self)
            return f"No effects\n{textwrap.fill(reason, 78)}" if reason else ml_mediation(self)
        refuse_given("style='stata' shows Stata's intervals", options)
        if not isinstance(self.fit, LmmFit):
            raise EffectError(f"style='stata' is the layout of linear mixed models; this is {self.fit.kind}")
        if own != {"vcov": "block", "ddf": "none"}:
            raise EffectError("style='stata' shows Stata's standard errors, which are vcov='block' with normal tests")
        return render(_stata(self, level))
    if isinstance(self.catalogue, NoEffects):
        refuse_given("a model without effects has no intervals of them", options)
        return native_summary(self.fit, level=level, **own)
    if isinstance(self.catalogue, CounterfactualCatalogue):
        if one_of(own["ddf"], DDF_KINDS, "ddf") != "none":
            raise EffectError(
                f"ddf={ddf!r} is for coefficients, which the summary of mlmed.causal does not show; ask an equation, "
                "as in fit.mediator.fixef(ddf=...)"
            )
        return counterfactual_text(self, level=level, vcov=vcov, **options)
    head = native_summary(self.fit, level=level, title=self.catalogue.title(self.fit), correlations=False, **own)
    asked = {"vcov": vcov, "ddf": _ddf_of_effects(self, ddf), **options}
    table = effects_section(self, level=level, **asked)
    if not len(table):
        return "\n".join([head, "", "No effects", textwrap.fill(effects_reason(self), 92)])
    lines = [
        head,
        "",
        effects_text(table, self.catalogue.heading(self.fit), self.catalogue.intervals["delta"], level=level, **asked),
    ]
    if options.get("interval") in (None, "delta") and isinstance(self.catalogue, PathCatalogue):
        lines.append(_other_errors(self, "joint" if own["vcov"] == "block" else "block", options))
    return "\n".join(lines)


def _stata(self: Held, level: float) -> Any:
    if not isinstance(self.catalogue, PathCatalogue):
        return stata_report(self.fit, level=level)
    reason = effects_reason(self)
    if reason:
        return stata_report(self.fit, level=level, mediation=True, notes=(f"No effects: {reason}",))
    return stata_report(self.fit, level=level, mediation=True, effects=effects(self, level=level))


def _other_errors(self: Held, kind: str, options: dict[str, Any]) -> str:
    """Say the standard errors under another covariance, and which terms have none."""
    table = effects(self, vcov=kind, order=options.get("order"), at=options.get("at"))
    errors = table.set_index("term")["std_error"]
    other = errors[[term for term in errors.index if term in SHOWN_ERRORS or term.startswith("indirect[")]]
    known, without = other.dropna(), other.index[other.isna()]
    if not len(known):
        return f'vcov="{kind}" has no standard errors here; the notes of effects(vcov="{kind}") say why'
    shown = ", ".join(f"{term} {format_number(error, 5)}" for term, error in known.items())
    none = f"; none of {', '.join(without)}" if len(without) else ""
    return f'vcov="{kind}" has standard errors {shown}{none} (docs/standard_errors.md)'
