"""Commands that write tables: stacked rows, Grams, data sets, published examples."""

from __future__ import annotations

import argparse

from mlmed import datasets
from mlmed.api.grams import grams, grams_sql
from mlmed.cli.reading import read, scan_progress
from mlmed.data.stacking import stack
from mlmed.errors import DataError

__all__ = ["listed", "reproduced", "stacked", "summed"]


def summed(options: argparse.Namespace) -> str:
    """``mlmed grams``."""
    if options.out is None and not options.sql:
        raise DataError("say where to store the Grams with --out FILE.parquet, or ask for --sql")
    data = read(options)
    if options.sql:
        return grams_sql(options.formula, data, dialect=options.sql)
    with scan_progress(data):
        made = grams(options.formula, data)
    made.save(options.out)
    return repr(made)


def stacked(options: argparse.Namespace) -> str:
    """``mlmed stack``."""
    table = stack(
        read(options),
        x=options.x,
        m=options.m,
        y=options.y,
        cluster=options.cluster,
        covariates=tuple(options.covariates),
    )
    return table.to_csv(index=False).rstrip("\n")


def listed(options: argparse.Namespace) -> str:
    """``mlmed datasets``."""
    if options.name is None:
        return datasets.describe().to_string(index=False)
    return datasets.load(options.name).to_csv(index=False).rstrip("\n")


def reproduced(options: argparse.Namespace) -> str:
    """``mlmed reproduce``."""
    from mlmed import reproduce

    if options.name is None:
        found = reproduce.describe()
        return found.to_csv(index=False).rstrip("\n") if options.format == "csv" else found.to_string(index=False)
    result = reproduce.run(options.name)
    return result.to_frame().to_csv(index=False).rstrip("\n") if options.format == "csv" else str(result)
