"""``main``: options in, text out, exit status."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence

from mlmed import datasets
from mlmed.cli.fitting import compared, effects, fit, mixed_model
from mlmed.cli.parser import make_parser
from mlmed.cli.reading import read, scan_progress, write
from mlmed.cli.schools import causal_model, location_scale_model, piecewise_model
from mlmed.data.engines import engine_errors
from mlmed.data.stacking import stack
from mlmed.errors import DataError, MlmedError, MlmedWarning
from mlmed.modes.grams import grams, grams_sql

__all__ = ["main"]


def _grams(options: argparse.Namespace) -> str:
    data = read(options)
    if options.sql:
        return grams_sql(options.formula, data, dialect=options.sql)
    if options.out is None:
        raise DataError("say where to store the Grams with --out FILE.parquet, or ask for --sql")
    with scan_progress(data):
        made = grams(options.formula, data)
    made.save(options.out)
    return repr(made)


def _stack(options: argparse.Namespace) -> str:
    table = stack(
        read(options),
        x=options.x,
        m=options.m,
        y=options.y,
        cluster=options.cluster,
        covariates=tuple(options.covariates),
    )
    return table.to_csv(index=False).rstrip("\n")


def _datasets(options: argparse.Namespace) -> str:
    if options.name is None:
        return datasets.describe().to_string(index=False)
    return datasets.load(options.name).to_csv(index=False).rstrip("\n")


def _reproduce(options: argparse.Namespace) -> str:
    from mlmed import reproduce

    if options.name is None:
        listed = reproduce.describe()
        return listed.to_csv(index=False).rstrip("\n") if options.format == "csv" else listed.to_string(index=False)
    found = reproduce.run(options.name)
    return found.to_frame().to_csv(index=False).rstrip("\n") if options.format == "csv" else str(found)


COMMANDS: dict[str, Callable[[argparse.Namespace], str]] = {
    "fit": fit,
    "effects": effects,
    "mixed": mixed_model,
    "location-scale": location_scale_model,
    "piecewise": piecewise_model,
    "causal": causal_model,
    "compare": compared,
    "reproduce": _reproduce,
    "stack": _stack,
    "grams": _grams,
    "datasets": _datasets,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, or 2 with a message for anything refused."""
    options = make_parser().parse_args(argv)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MlmedWarning)
        try:
            stored = options.command == "grams" and not options.sql
            write(COMMANDS[options.command](options), None if stored else options.out)
        except MlmedError as error:
            sys.stderr.write(f"mlmed: {error}\n")
            return 2
        except engine_errors() as error:
            sys.stderr.write(f"mlmed: {str(error).strip().splitlines()[0]}; check the files\n")
            return 2
        except BrokenPipeError:  # the reader (head, less) has seen enough
            sys.stderr.close()
            return 0
    for warning in caught:
        sys.stderr.write(f"mlmed: warning: {warning.message}\n")
    return 0
