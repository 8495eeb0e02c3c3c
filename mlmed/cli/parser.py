"""Commands and their options."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlmed import __version__
from mlmed.effects.delta import ORDERS
from mlmed.effects.draws import METHODS as METHODS_OF_DRAWS
from mlmed.glm.families import FAMILIES
from mlmed.glm.robust import HC_KINDS
from mlmed.model import METHODS, RESIDUALS, STRUCTURES
from mlmed.modes.causal.intervals import INTERVALS as CAUSAL_INTERVALS
from mlmed.modes.covariance import ALL_KINDS
from mlmed.modes.intervals import INTERVALS
from mlmed.modes.piecewise import PIECEWISE_INTERVALS
from mlmed.modes.resampling import KINDS
from mlmed.modes.smallsample import DDF_KINDS

__all__ = ["make_parser"]

FORMATS = ("text", "stata", "json", "csv")
EXAMPLE = """\
example:
  mlmed fit yuan_mackinnon_sim \\
    --mediator "Med ~ X + (1 + X | group)" \\
    --outcome  "y ~ Med + X + (1 + Med + X | group)"
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of ``mlmed``."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="mlmed", description="Multilevel mediation by mixed models.", epilog=EXAMPLE, formatter_class=raw
    )
    parser.add_argument("--version", action="version", version=f"mlmed {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    fit = commands.add_parser(
        "fit", help="mediation: two equations, fitted jointly", epilog=EXAMPLE, formatter_class=raw
    )
    _add_mediation(fit)
    _add_contrast(fit)
    _add_fitting(fit)
    _add_printing(fit)
    effects = commands.add_parser("effects", help="paths and effects with any kind of interval")
    _add_mediation(effects)
    _add_contrast(effects)
    _add_at(effects)
    _add_fitting(effects)
    _add_intervals(effects)
    _add_schools(commands)
    one = commands.add_parser("mixed", help="one equation, or several responses at once")
    _add_data(one)
    one.add_argument(
        "--formula", action="append", required=True, help='e.g. "y ~ x + (1 + x |c| id)"; once per response'
    )
    one.add_argument("--residual", choices=RESIDUALS, default="diagonal", help="correlated across responses, or not")
    _add_fitting(one)
    _add_printing(one)
    _add_location_scale(commands)
    _add_tables(commands)
    return parser


def _add_location_scale(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    both = commands.add_parser("location-scale", help="means and residual sds that differ between clusters")
    _add_data(both)
    both.add_argument("--location", required=True, metavar="FORMULA", help='e.g. "y ~ x + (1 |c| id)"')
    both.add_argument("--scale", required=True, metavar="FORMULA", help='of the log residual sd: "~ x + (1 |c| id)"')
    both.add_argument("--nodes", type=int, help="of the quadrature, per scale random effect (default: chosen)")
    both.add_argument("--level", type=float, default=0.95, help="coverage of the intervals (default 0.95)")
    both.add_argument("--format", choices=("text", "json", "csv"), default="text")
    both.add_argument("--out", type=Path, metavar="FILE", help="write here instead of standard output")


def _add_schools(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Other ways to analyse mediation, and comparisons."""
    piecewise = commands.add_parser("piecewise", help="mediation: separate equations (Krull and MacKinnon)")
    _add_mediation(piecewise)
    _add_contrast(piecewise)
    _add_at(piecewise)
    _add_fitting(piecewise)
    piecewise.add_argument("--interval", choices=PIECEWISE_INTERVALS, default="delta", help="see docs/piecewise.md")
    piecewise.add_argument("--vcov", choices=ALL_KINDS, help="kind of standard errors")
    piecewise.add_argument("--order", choices=ORDERS, help="Sobel, Aroian, Goodman")
    piecewise.add_argument("--strata", metavar="COLUMN", help="bootstrap within the values of this column")
    _add_draws(piecewise)
    piecewise.add_argument("--format", choices=FORMATS, default="text")
    causal = commands.add_parser("causal", help="mediation: potential outcomes (ACME, ADE)")
    _add_mediation(causal)
    _add_at(causal)
    causal.add_argument("--method", choices=METHODS, default="reml", help="of mixed models")
    causal.add_argument("--control", default="0", metavar="VALUE", help="of the treatment (default 0)")
    causal.add_argument("--treated", default="1", metavar="VALUE", help="of the treatment (default 1)")
    causal.add_argument("--family-m", choices=FAMILIES, default="linear", help="of the mediator")
    causal.add_argument("--family-y", choices=FAMILIES, default="linear", help="of the outcome")
    causal.add_argument("--robust", choices=HC_KINDS, help="robust covariance of the estimates")
    causal.add_argument("--cluster", metavar="COLUMN", help="covariance and bootstrap by cluster")
    causal.add_argument("--groups", choices=("modes", "population"), help="mixed models: these clusters, or all")
    causal.add_argument("--interval", choices=CAUSAL_INTERVALS, help="see docs/causal.md (default delta)")
    causal.add_argument("--sensitivity", action="store_true", help="effects by correlation of the errors")
    causal.add_argument("--level", type=float, default=0.95, help="coverage of the intervals (default 0.95)")
    _add_draws(causal)
    causal.add_argument("--format", choices=("text", "json", "csv"), default="text")
    causal.add_argument("--out", type=Path, metavar="FILE", help="write here instead of standard output")
    compared = commands.add_parser("compare", help="joint REML and ML, piecewise and potential outcomes side by side")
    _add_mediation(compared)
    compared.add_argument("--level", type=float, default=0.95, help="coverage of the intervals (default 0.95)")
    compared.add_argument("--format", choices=("text", "csv"), default="text")
    compared.add_argument("--plot", type=Path, metavar="FILE", help="forest plot, e.g. compare.png")
    compared.add_argument("--out", type=Path, metavar="FILE", help="write here instead of standard output")
    again = commands.add_parser("reproduce", help="list the published examples, or run one: published against ours")
    again.add_argument("name", nargs="?", help="run this one")
    again.add_argument("--format", choices=("text", "csv"), default="text")
    again.add_argument("--out", type=Path, metavar="FILE", help="write here instead of standard output")


def _add_tables(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Commands that print tables of rows."""
    stacked = commands.add_parser("stack", help="the Bauer-Preacher-Gil reshape, as CSV")
    _add_data(stacked)
    for name, meaning in (("x", "treatment"), ("m", "mediator"), ("y", "outcome"), ("cluster", "cluster id")):
        stacked.add_argument(f"--{name}", required=True, metavar="COLUMN", help=meaning)
    stacked.add_argument("--covariates", nargs="*", default=(), metavar="COLUMN", help="carried and interacted")
    summed = commands.add_parser("grams", help="sums of products by cluster: store them, or print their SQL")
    _add_data(summed)
    summed.add_argument("--formula", action="append", required=True, help="once per equation")
    summed.add_argument(
        "--sql",
        nargs="?",
        const="duckdb",
        metavar="DIALECT",
        help="print the SQL that makes them, for Parquet files; duckdb, spark, snowflake, ...",
    )
    listed = commands.add_parser("datasets", help="list the example data sets, or write one as CSV")
    listed.add_argument("name", nargs="?", help="write this one")
    for command in (stacked, summed, listed):
        command.add_argument("--out", type=Path, metavar="FILE", help="write here instead of standard output")


def _add_data(parser: argparse.ArgumentParser) -> None:
    known = "a .csv, .tsv, .dta, .sav or .parquet file (also 'part-*.parquet'), stored Grams, or an example data set"
    parser.add_argument("data", metavar="DATA", help=known)
    parser.add_argument("--encoding", metavar="NAME", help="of delimited text (default: its mark, or UTF-8)")
    parser.add_argument("--missing", nargs="+", default=(), metavar="VALUE", help='missing values of text, e.g. "."')
    parser.add_argument(
        "--codes", nargs="*", metavar="COLUMN", help=".dta and .sav: numbers instead of labels (all, or these columns)"
    )


def _add_mediation(parser: argparse.ArgumentParser) -> None:
    _add_data(parser)
    parser.add_argument("--mediator", required=True, metavar="FORMULA", help='e.g. "m ~ x + (1 + x | id)"')
    parser.add_argument("--outcome", required=True, metavar="FORMULA", help='e.g. "y ~ m + x + (1 + m + x | id)"')
    parser.add_argument("--treatment", metavar="COLUMN", help="which predictor of the mediator is x")


def _add_contrast(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--contrast", nargs=2, metavar=("FROM", "TO"), help="two values of the treatment to compare")


def _add_at(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--at", nargs="+", metavar="NAME=VALUE", help="values of moderators or covariates")


def _add_fitting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--method", choices=METHODS, default="reml")
    parser.add_argument("--covariance", choices=STRUCTURES, default="unstructured", help="of the random effects")
    parser.add_argument("--level", type=float, default=0.95, help="coverage of the intervals (default 0.95)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write here instead of standard output")


def _add_draws(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", type=int, metavar="N", help="draws or replicates")
    parser.add_argument("--ends", choices=METHODS_OF_DRAWS, help="how a bootstrap interval is made of draws")
    parser.add_argument("--seed", type=int, help="required where numbers are drawn")
    parser.add_argument("--jobs", type=int, metavar="N", help="workers of a bootstrap")


def _add_intervals(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--interval", choices=INTERVALS, default="delta", help="see docs/choosing_intervals.md")
    parser.add_argument("--vcov", choices=ALL_KINDS, help="kind of standard errors")
    parser.add_argument("--order", choices=ORDERS, help="of the delta method (default second)")
    parser.add_argument("--ddf", choices=DDF_KINDS, help="degrees of freedom: t instead of z")
    parser.add_argument("--kind", choices=KINDS, help="how bootstrap replicates are made")
    parser.add_argument("--within", action="store_true", default=None, help="draw rows within clusters, too")
    _add_draws(parser)
    parser.add_argument("--format", choices=("text", "json", "csv"), default="text")


def _add_printing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vcov", choices=ALL_KINDS, default="block", help="kind of standard errors")
    parser.add_argument("--ddf", choices=DDF_KINDS, default="none", help="degrees of freedom: t instead of z")
    parser.add_argument("--format", choices=FORMATS, default="text")
