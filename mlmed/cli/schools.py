"""Commands of the other schools: separate equations, potential outcomes; location-scale models."""

from __future__ import annotations

import argparse
from typing import Any

from mlmed.api.causal import CausalResults, causal
from mlmed.api.location_scale import location_scale
from mlmed.api.piecewise import piecewise
from mlmed.cli.fitting import as_format, described, watched
from mlmed.cli.reading import given_at, given_pair, read
from mlmed.errors import DataError

__all__ = ["causal_model", "location_scale_model", "piecewise_model"]


def piecewise_model(options: argparse.Namespace) -> str:
    """``mlmed piecewise``: the summary, or the effects with another interval than the default."""
    found = piecewise(
        options.mediator,
        options.outcome,
        read(options),
        treatment=options.treatment,
        method=options.method,
        covariance=options.covariance,
        contrast=given_pair(options.contrast),
    )
    given = {
        "vcov": options.vcov, "order": options.order, "n": options.n, "seed": options.seed, "strata": options.strata,
        "ends": options.ends, "n_jobs": options.jobs, "progress": watched(options.interval),
        "at": given_at(options.at),
    }  # fmt: skip
    asked = {name: value for name, value in given.items() if value is not None}
    if options.format == "stata":
        if asked or options.interval != "delta":
            raise DataError("--format stata shows seven numbers without intervals; leave out the options of intervals")
        return found.summary("stata", level=options.level)
    if options.format == "text" and options.interval == "delta" and set(asked) <= {"vcov"}:
        return found.summary(level=options.level, **asked)
    table = found.effects(interval=options.interval, level=options.level, **asked)
    detail = described(options, ("n", "strata", "ends", "vcov", "order", "seed"))
    heading = f"Effects, {100 * options.level:g}% intervals: {options.interval}{detail}; indirect = a*b"
    return as_format(table, options.format, heading, "z" if options.interval == "delta" else "est/se")


def causal_model(options: argparse.Namespace) -> str:
    """``mlmed causal``: the effects, or their sensitivity."""
    found = causal(
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
    given = {
        "interval": options.interval, "n": options.n, "seed": options.seed, "at": given_at(options.at),
        "of": options.of, "ends": options.ends, "n_jobs": options.jobs,
        "progress": watched(options.interval),
    }  # fmt: skip
    asked = {name: value for name, value in given.items() if value is not None}
    if options.sensitivity:
        return _sensitivity(found, options, asked)
    if options.format == "text":
        return found.summary(level=options.level, **asked)
    return as_format(found.effects(level=options.level, **asked), options.format, "", "z")


def _sensitivity(found: CausalResults, options: argparse.Namespace, asked: dict[str, Any]) -> str:
    idle = [name for name in asked if name not in ("interval", "n", "seed")]
    if idle:
        raise DataError(f"--sensitivity uses --interval, -n, --seed and --level only; leave out {', '.join(idle)}")
    result = found.sensitivity(level=options.level, **asked)
    return str(result) if options.format == "text" else as_format(result.table, options.format, "", "z")


def location_scale_model(options: argparse.Namespace) -> str:
    """``mlmed location-scale``."""
    found = location_scale(options.location, options.scale, read(options), nodes=options.nodes)
    if options.format == "json":
        return found.to_json(level=options.level)
    if options.format == "csv":
        return found.to_table(level=options.level).to_csv(index=False).rstrip("\n")
    return found.summary(level=options.level)
