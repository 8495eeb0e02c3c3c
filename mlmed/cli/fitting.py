"""Commands that fit joint and single models."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import pandas as pd

from mlmed.api.causal import causal
from mlmed.api.mediate import MediationResults, mediate
from mlmed.api.mixed import mixed
from mlmed.api.piecewise import piecewise
from mlmed.cli.reading import given_at, given_pair, read, scan_progress
from mlmed.cli.targets import save_picture
from mlmed.options import Method
from mlmed.report.text import render_table
from mlmed.results.comparison import compare
from mlmed.results.comparison_rows import Comparable
from mlmed.results.document import plain
from mlmed.results.results import MixedResults

__all__ = ["as_format", "compared", "effects", "fit", "mixed_model", "watched"]


BOTH: tuple[Method, ...] = ("reml", "ml")


def mixed_model(options: argparse.Namespace) -> str:
    """``mlmed mixed``."""
    data = read(options)
    with scan_progress(data):
        found = mixed(
            options.formula, data, method=options.method, covariance=options.covariance, residual=options.residual
        )
    return _present(found, options)


def _mediate(options: argparse.Namespace) -> MediationResults:
    data = read(options)
    with scan_progress(data):
        return mediate(
            options.mediator,
            options.outcome,
            data,
            method=options.method,
            treatment=options.treatment,
            contrast=given_pair(options.contrast),
            covariance=options.covariance,
        )


def fit(options: argparse.Namespace) -> str:
    """``mlmed fit``."""
    return _present(_mediate(options), options)


def _present(results: MixedResults, options: argparse.Namespace) -> str:
    asked = {"vcov": options.vcov, "level": options.level, "ddf": options.ddf}
    if options.format == "json":
        return results.to_json(**asked)
    if options.format == "csv":
        return results.to_table(**asked).to_csv(index=False).rstrip("\n")
    return results.summary(options.format, **asked)


def effects(options: argparse.Namespace) -> str:
    """``mlmed effects``."""
    table = _mediate(options).effects(
        interval=options.interval,
        level=options.level,
        vcov=options.vcov,
        order=options.order,
        ddf=options.ddf,
        n=options.n,
        kind=options.kind,
        within=options.within,
        ends=options.ends,
        seed=options.seed,
        n_jobs=options.jobs,
        progress=watched(options.interval),
        at=given_at(options.at),
    )
    names = ("n", "kind", "within", "ends", "vcov", "order", "ddf", "seed")
    drawn = options.interval in ("monte-carlo", "bootstrap")
    statistic = "est/se" if drawn else "t" if options.ddf not in (None, "none") else "z"
    detail = described(options, names)
    heading = f"Effects, {100 * options.level:g}% intervals: {options.interval}{detail}; indirect = a*b + cov_ab"
    return as_format(table, options.format, heading, statistic)


def watched(interval: str | None) -> bool | None:
    """A progress bar for bootstraps that somebody watches."""
    return True if interval == "bootstrap" and sys.stderr.isatty() else None


def described(options: argparse.Namespace, names: tuple[str, ...]) -> str:
    """The options that were given, in brackets."""
    shown = [f"{name} {value}" for name in names if (value := getattr(options, name)) is not None]
    return f" ({', '.join(shown)})" if shown else ""


def as_format(table: pd.DataFrame, form: str, heading: str, statistic: str) -> str:
    """A table as JSON, CSV, or text under a heading."""
    if form == "json":
        rows = [{name: plain(value) for name, value in row.items()} for row in table.to_dict("records")]
        return json.dumps(rows, indent=2, allow_nan=False)
    if form == "csv":
        return table.to_csv(index=False).rstrip("\n")
    return "\n".join([heading, render_table(table, statistic=statistic)])


def _every_fit(options: argparse.Namespace) -> list[Comparable]:
    data, asked, pair = read(options), (options.mediator, options.outcome), given_pair(options.contrast)
    chosen: dict[str, Any] = {"treatment": options.treatment, "contrast": pair}
    separate = [piecewise(*asked, data, method=method, **chosen) for method in BOTH]
    if separate[0].design != "1-1-1":  # the joint model and row-level potential outcomes are for variables of the rows
        return [*separate]
    averaged = causal(*asked, data, **chosen)
    if pair is None and _unlike_a_unit(averaged.contrast):  # the others would show the effect of one unit
        chosen["contrast"] = averaged.contrast
        separate = [piecewise(*asked, data, method=method, **chosen) for method in BOTH]
    return [*(mediate(*asked, data, method=method, **chosen) for method in BOTH), *separate, averaged]


def _unlike_a_unit(values: tuple[Any, Any]) -> bool:
    """Whether two numbers are compared that are no unit apart."""
    return all(isinstance(value, float) for value in values) and values[1] - values[0] != 1.0


def compared(options: argparse.Namespace) -> str:
    """``mlmed compare``: the same two equations by every method that the design allows."""
    found = compare(*_every_fit(options), level=options.level)
    if options.plot is not None:
        save_picture(found.plot(), options.plot)
    return str(found) if options.format == "text" else found.long.to_csv(index=False).rstrip("\n")
