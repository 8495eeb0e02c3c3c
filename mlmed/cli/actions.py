"""The action of each command: options in, text out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import pandas as pd

import mlmed
from mlmed.cli.files import given_at, given_pair, read, save_picture, scan_progress
from mlmed.cli.options import ALONE
from mlmed.errors import DataError, EffectError, MlmedWarning, warn
from mlmed.options import Method, refuse_given
from mlmed.report.text import render_table
from mlmed.results.comparison import Comparable
from mlmed.results.document import interval_entry, rows_of
from mlmed.text import assigned

BOTH: tuple[Method, ...] = ("reml", "ml")
#: Options with another name in methods of results.
NAMES = {"jobs": "n_jobs"}
#: Options of tables and intervals, by command.
ASKED: dict[str, tuple[str, ...]] = {
    "mediate": ("interval", "vcov", "order", "ddf", "n", "kind", "within", "ends", "seed", "jobs"),
    "piecewise": ("interval", "vcov", "order", "n", "strata", "ends", "seed", "jobs"),
    "causal": ("interval", "of", "n", "ends", "seed", "jobs"),
    "mixed": ("vcov", "ddf"),
    "location-scale": ("interval", "n", "seed"),
}

#: Tables that use the options of effects.
OF_EFFECTS = ("effects", "paths")
#: Options that a table uses which is not that of the effects; the others use the covariance only.
USED_BY: dict[str, tuple[str, ...]] = {"fixef": ("vcov", "ddf")}


# -- fits ------------------------------------------------------------------------------------------------------


def mediated(options: argparse.Namespace) -> str:
    """``mlmed mediate``."""
    return _shown(_two_equations(mlmed.mediate, options), options)


def separate(options: argparse.Namespace) -> str:
    """``mlmed piecewise``."""
    return _shown(_two_equations(mlmed.piecewise, options), options)


def _two_equations(school: Callable[..., Any], options: argparse.Namespace) -> Any:
    data = read(options)
    with scan_progress(data):
        return school(
            options.mediator,
            options.outcome,
            data,
            method=options.method,
            treatment=options.treatment,
            contrast=given_pair(options.contrast),
            covariance=options.covariance,
        )


def potential(options: argparse.Namespace) -> str:
    """``mlmed causal``: the effects, or their sensitivity."""
    found = mlmed.causal(
        options.mediator,
        options.outcome,
        read(options),
        treatment=options.treatment,
        contrast=given_pair(options.contrast),
        family_m=options.family_m,
        family_y=options.family_y,
        vcov=options.vcov,
        cluster=options.cluster,
        method=options.method,
    )
    if not options.sensitivity:
        return _shown(found, options)
    used, idle = ("interval", "n", "seed", "level"), {"table": options.table, **_asked(options)}
    refuse_given(
        "--sensitivity uses --interval, -n, --seed and --level only",
        {name: value for name, value in idle.items() if name not in used},
    )
    result = found.sensitivity(**{name: value for name, value in idle.items() if name in used})
    if options.format == "json":
        return result.to_json()
    return str(result) if options.format == "text" else _rows(result.table, options.format)


def mixed_model(options: argparse.Namespace) -> str:
    """``mlmed mixed``."""
    data = read(options)
    with scan_progress(data):
        found = mlmed.mixed(
            options.formula, data, method=options.method, covariance=options.covariance, residual=options.residual
        )
    return _shown(found, options)


def location_scale_model(options: argparse.Namespace) -> str:
    """``mlmed location-scale``."""
    return _shown(mlmed.location_scale(options.location, options.scale, read(options), nodes=options.nodes), options)


# -- results in a format ---------------------------------------------------------------------------------------


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    """Keywords for methods of results: the level and the options given."""
    given = {NAMES.get(name, name): getattr(options, name) for name in ASKED[options.command]}
    if given.get("interval") == "bootstrap" and sys.stderr.isatty():
        given["progress"] = True
    given["at"] = given_at(getattr(options, "at", None))
    return {"level": options.level, **{name: value for name, value in given.items() if value is not None}}


def _shown(results: Any, options: argparse.Namespace) -> str:
    """The summary, the document, or all tables below each other; with ``--table`` one table."""
    form, asked = options.format, _asked(options)
    if options.table is not None:
        return _one_table(results, options, asked)
    if form == "json":
        return str(results.to_json(**asked))
    if form == "csv":
        found = results.to_table(**asked)
        if results.catalogue.intervals and "effects" not in set(found["section"]):  # text and JSON say why
            warn(f"no effects: {results.effects_reason}", MlmedWarning, stacklevel=1)
        return _rows(found, form)
    return str(results.summary(*(["stata"] if form == "stata" else []), **asked))


def _one_table(results: Any, options: argparse.Namespace, asked: dict[str, Any]) -> str:
    if options.format == "stata":
        raise DataError("--format stata is a layout of all tables; leave out --table")
    if options.table in ALONE:
        tables = {options.table: getattr(results, options.table)(**asked)}
    else:
        tables = results.sections(**asked)
    if options.table not in tables:
        raise DataError(f"this fit has no {options.table}, as no equation has random terms; it has {', '.join(tables)}")
    table = tables[options.table]
    if options.table == "effects" and not len(table):
        raise EffectError(results.effects_reason)
    if options.format != "text":
        return _rows(table, options.format)
    return "\n".join([_heading(options.table, options, asked), render_table(table)])


def _heading(name: str, options: argparse.Namespace, asked: dict[str, Any]) -> str:
    """What a table alone is, and what it depends on: most options are those of the effects."""
    interval, given = interval_entry({key: value for key, value in asked.items() if key != "level"}).values()
    if name not in OF_EFFECTS:
        given = {key: value for key, value in given.items() if key in USED_BY.get(name, ("vcov",))}
    at = given.pop("at", {})
    details = ", ".join([f"{key} {value}" for key, value in given.items()] + ([f"at {assigned(at)}"] if at else []))
    kind = f": {interval}" if name in OF_EFFECTS and "interval" in options else ""
    return f"{name}, {100 * options.level:g}% intervals{kind}{f' ({details})' if details else ''}"


def _rows(table: pd.DataFrame, form: str) -> str:
    """A table as JSON or CSV."""
    if form == "csv":
        return table.to_csv(index=False).rstrip("\n")
    return json.dumps(rows_of(table), indent=2, allow_nan=False)


# -- several fits ----------------------------------------------------------------------------------------------


def compared(options: argparse.Namespace) -> str:
    """``mlmed compare``: the same two equations by every method that the design allows."""
    found = mlmed.compare(*_every_fit(options), level=options.level)
    if options.plot is not None:
        save_picture(found.plot()[0], options.plot)
    return str(found) if options.format == "text" else _rows(found.long, "csv")


def _every_fit(options: argparse.Namespace) -> list[Comparable]:
    data, asked, pair = read(options), (options.mediator, options.outcome), given_pair(options.contrast)
    chosen: dict[str, Any] = {"treatment": options.treatment, "contrast": pair}
    separate = [mlmed.piecewise(*asked, data, method=method, **chosen) for method in BOTH]
    if separate[0].design != "1-1-1":  # the joint model and potential outcomes need variables of the rows
        return [*separate]
    averaged = mlmed.causal(*asked, data, **chosen)
    if pair is None and _unlike_a_unit(averaged.contrast):  # the other methods give the effect of one unit
        chosen["contrast"] = averaged.contrast
        separate = [mlmed.piecewise(*asked, data, method=method, **chosen) for method in BOTH]
    return [*(mlmed.mediate(*asked, data, method=method, **chosen) for method in BOTH), *separate, averaged]


def _unlike_a_unit(values: tuple[Any, Any] | None) -> bool:
    """Whether the contrast is of two numbers that are not one unit apart."""
    return values is not None and all(isinstance(one, float) for one in values) and values[1] - values[0] != 1.0


# -- tables ----------------------------------------------------------------------------------------------------


def summed(options: argparse.Namespace) -> str:
    """``mlmed grams``."""
    if options.out is None and not options.sql:
        raise DataError("say where to store the Grams with --out FILE.parquet, or ask for --sql")
    data = read(options)
    if options.sql:
        return mlmed.grams_sql(options.formula, data, dialect=options.sql)
    with scan_progress(data):
        made = mlmed.grams(options.formula, data)
    made.save(options.out)
    return repr(made)


def stacked(options: argparse.Namespace) -> str:
    """``mlmed stack``."""
    columns = {name: getattr(options, name) for name in ("x", "m", "y", "cluster")}
    return _rows(mlmed.stack(read(options), **columns, covariates=tuple(options.covariates)), "csv")


def listed(options: argparse.Namespace) -> str:
    """``mlmed datasets``."""
    if options.name is None:
        return mlmed.datasets.describe().to_string(index=False)
    return _rows(mlmed.datasets.load(options.name), "csv")


def reproduced(options: argparse.Namespace) -> str:
    """``mlmed reproduce``."""
    if options.name is None:
        found = mlmed.reproduce.describe()
        return _rows(found, "csv") if options.format == "csv" else found.to_string(index=False)
    result = mlmed.reproduce.run(options.name)
    return _rows(result.to_frame(), "csv") if options.format == "csv" else str(result)
