"""Options of each command."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlmed.options import (
    ALL_KINDS,
    CAUSAL_INTERVALS,
    DDF_KINDS,
    ENDS,
    FAMILIES,
    JOINT_INTERVALS,
    METHODS,
    OF,
    ORDERS,
    PIECEWISE_INTERVALS,
    RESAMPLED,
    RESIDUALS,
    SCALE_INTERVALS,
    STRUCTURES,
    VCOV_NAMES,
)

FORMATS = ("text", "stata", "json", "csv")
FORMATS_BUT_STATA = ("text", "json", "csv")
#: Names of ``--table`` by command.
TABLES: dict[str, tuple[str, ...]] = {
    "mediate": ("fixef", "varcorr", "residual", "sdcor", "effects", "paths"),
    "piecewise": ("fixef", "varcorr", "residual", "sdcor", "effects"),
    "causal": ("fixef", "varcorr", "residual", "sdcor", "effects"),
    "mixed": ("fixef", "varcorr", "residual", "sdcor"),
    "location-scale": ("fixef", "varcorr", "sdcor", "effects"),
}
#: Those that are no sections of all tables: each is shown alone.
ALONE = ("paths",)


def add_options(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the options of a command to its parser."""
    OPTIONS[command](parser)


def _add_mediate(parser: argparse.ArgumentParser) -> None:
    _add_mediation(parser, several=True)
    _add_contrast(parser)
    _add_fitting(parser)
    _add_errors(parser)
    parser.add_argument("--interval", choices=JOINT_INTERVALS, help="of the effects; see docs/choosing_intervals.md")
    parser.add_argument("--order", choices=ORDERS, help="of the delta method (default second)")
    parser.add_argument("--kind", choices=RESAMPLED, help="how bootstrap replicates are made")
    parser.add_argument("--within", action="store_true", default=None, help="draw rows within clusters, too")
    _add_draws(parser)
    _add_at(parser)
    _add_printing(parser, "mediate")


def _add_mixed(parser: argparse.ArgumentParser) -> None:
    _add_data(parser)
    parser.add_argument(
        "--formula", action="append", required=True, help='e.g. "y ~ x + (1 + x |c| id)"; once per response'
    )
    parser.add_argument("--residual", choices=RESIDUALS, default="diagonal", help="correlated across responses, or not")
    _add_fitting(parser)
    _add_errors(parser)
    _add_printing(parser, "mixed")


def _add_location_scale(parser: argparse.ArgumentParser) -> None:
    _add_data(parser)
    parser.add_argument("--location", required=True, metavar="FORMULA", help='e.g. "y ~ x + (1 |c| id)"')
    parser.add_argument("--scale", required=True, metavar="FORMULA", help='of the log residual sd: "~ x + (1 |c| id)"')
    parser.add_argument("--nodes", type=int, help="of the quadrature, per scale random effect (default: chosen)")
    parser.add_argument("--interval", choices=SCALE_INTERVALS, help="of the effects (default delta)")
    parser.add_argument("-n", type=int, metavar="N", help="draws")
    parser.add_argument("--seed", type=int, help="required where numbers are drawn")
    _add_printing(parser, "location-scale", FORMATS_BUT_STATA)


def _add_piecewise(parser: argparse.ArgumentParser) -> None:
    _add_mediation(parser)
    _add_contrast(parser)
    _add_fitting(parser)
    parser.add_argument("--interval", choices=PIECEWISE_INTERVALS, help="of the effects; see docs/piecewise.md")
    parser.add_argument("--vcov", choices=ALL_KINDS, help="kind of standard errors (default block)")
    parser.add_argument("--order", choices=ORDERS, help="Sobel, Aroian, Goodman")
    parser.add_argument("--strata", metavar="COLUMN", help="bootstrap within the values of this column")
    _add_draws(parser)
    _add_at(parser)
    _add_printing(parser, "piecewise")


def _add_causal(parser: argparse.ArgumentParser) -> None:
    _add_mediation(parser)
    _add_contrast(parser)
    parser.add_argument("--method", choices=METHODS, default="reml", help="of mixed models")
    parser.add_argument("--family-m", choices=FAMILIES, default="linear", help="of the mediator")
    parser.add_argument("--family-y", choices=FAMILIES, default="linear", help="of the outcome")
    parser.add_argument("--vcov", choices=VCOV_NAMES, help="kind of standard errors (default: the model's)")
    parser.add_argument("--cluster", metavar="COLUMN", help="covariance and bootstrap by cluster")
    parser.add_argument("--of", choices=OF, help="mixed models: all clusters, or these (default)")
    parser.add_argument("--interval", choices=CAUSAL_INTERVALS, help="of the effects; see docs/causal.md")
    parser.add_argument("--sensitivity", action="store_true", help="effects by correlation of the errors")
    _add_draws(parser)
    _add_at(parser)
    _add_printing(parser, "causal", FORMATS_BUT_STATA)


def _add_compare(compared: argparse.ArgumentParser) -> None:
    _add_mediation(compared)
    _add_contrast(compared)
    _add_level(compared)
    compared.add_argument("--format", choices=("text", "csv"), default="text")
    compared.add_argument("--plot", type=_file, metavar="FILE", help="forest plot, e.g. compare.png")
    _add_out(compared)


def _add_reproduce(again: argparse.ArgumentParser) -> None:
    again.add_argument("name", nargs="?", help="run this one")
    again.add_argument("--format", choices=("text", "csv"), default="text")
    _add_out(again)


def _add_stack(stacked: argparse.ArgumentParser) -> None:
    _add_data(stacked)
    for name, meaning in (("x", "treatment"), ("m", "mediator"), ("y", "outcome"), ("cluster", "cluster id")):
        stacked.add_argument(f"--{name}", required=True, metavar="COLUMN", help=meaning)
    stacked.add_argument("--covariates", nargs="*", default=(), metavar="COLUMN", help="carried and interacted")
    _add_out(stacked)


def _add_grams(summed: argparse.ArgumentParser) -> None:
    _add_data(summed)
    summed.add_argument("--formula", action="append", required=True, help="once per equation")
    summed.add_argument(
        "--sql",
        nargs="?",
        const="duckdb",
        metavar="DIALECT",
        help="print the SQL that makes them, for Parquet files; duckdb, spark, snowflake, ...",
    )
    _add_out(summed)


def _add_datasets(listed: argparse.ArgumentParser) -> None:
    listed.add_argument("name", nargs="?", help="write this one")
    _add_out(listed)


def _add_data(parser: argparse.ArgumentParser) -> None:
    known = "a .csv, .tsv, .dta, .sav or .parquet file (also 'part-*.parquet'), stored Grams, or an example data set"
    parser.add_argument("data", metavar="DATA", help=known)
    parser.add_argument("--encoding", metavar="NAME", help="of delimited text (default: its mark, or UTF-8)")
    parser.add_argument("--missing", nargs="+", default=(), metavar="VALUE", help='missing values of text, e.g. "."')
    parser.add_argument(
        "--codes", nargs="*", metavar="COLUMN", help=".dta and .sav: numbers instead of labels (all, or these columns)"
    )


class _OneMediator(argparse.Action):
    """Refuse a second mediator instead of forgetting the first."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        """Keep the formula."""
        if getattr(namespace, self.dest, None) is not None:
            raise argparse.ArgumentError(self, "takes one formula; several mediators are fitted by 'mlmed mediate'")
        setattr(namespace, self.dest, values)


def _add_mediation(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    _add_data(parser)
    parser.add_argument(
        "--mediator",
        required=True,
        action="append" if several else _OneMediator,
        metavar="FORMULA",
        help=f'e.g. "m ~ x + (1 + x | id)"{"; once per mediator" if several else ""}',
    )
    parser.add_argument("--outcome", required=True, metavar="FORMULA", help='e.g. "y ~ m + x + (1 + m + x | id)"')
    parser.add_argument("--treatment", metavar="COLUMN", help="which predictor of the mediator is x")


def _add_contrast(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--contrast", nargs=2, metavar=("FROM", "TO"), help="two values of the treatment to compare")


def _add_at(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--at", nargs="+", action="extend", metavar="NAME=VALUE", help="values of moderators or covariates"
    )


def _add_fitting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--method", choices=METHODS, default="reml")
    parser.add_argument("--covariance", choices=STRUCTURES, default="unstructured", help="of the random effects")


def _add_level(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--level", type=float, default=0.95, help="coverage of the intervals (default 0.95)")


def _add_errors(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vcov", choices=ALL_KINDS, help="kind of standard errors (default block)")
    parser.add_argument("--ddf", choices=DDF_KINDS, help="degrees of freedom: t instead of z")


def _add_draws(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", type=int, metavar="N", help="draws or replicates")
    parser.add_argument("--ends", choices=ENDS, help="how a bootstrap interval is made of draws")
    parser.add_argument("--seed", type=int, help="required where numbers are drawn")
    parser.add_argument("--jobs", type=int, metavar="N", help="workers of a bootstrap")


def _add_printing(parser: argparse.ArgumentParser, command: str, formats: tuple[str, ...] = FORMATS) -> None:
    _add_level(parser)
    parser.add_argument("--format", choices=formats, default="text", help="csv: all tables below each other")
    parser.add_argument("--table", choices=TABLES[command], help="this one alone")
    _add_out(parser)


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=_file, metavar="FILE", help="write here instead of standard output")


def _file(text: str) -> Path:
    """The path of a file to write; refuses "-" and blank names."""
    if text == "-":
        raise argparse.ArgumentTypeError(
            "'-' does not stand for standard output; leave the option out to print, or write ./- for a file called so"
        )
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a file; name one, or leave the option out")
    return Path(text)


OPTIONS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "mediate": _add_mediate,
    "piecewise": _add_piecewise,
    "causal": _add_causal,
    "compare": _add_compare,
    "reproduce": _add_reproduce,
    "mixed": _add_mixed,
    "location-scale": _add_location_scale,
    "stack": _add_stack,
    "grams": _add_grams,
    "datasets": _add_datasets,
}
