"""Command line: ``mlmed fit``, ``effects``, ``mixed``, ``stack``, ``grams``, ``datasets``."""

from __future__ import annotations

import argparse
import difflib
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlmed import __version__, datasets
from mlmed.data.readers import engine_errors, is_grams, open_parquet, read_table
from mlmed.data.stacking import stack
from mlmed.effects.draws import METHODS as METHODS_OF_DRAWS
from mlmed.errors import DataError, MlmedError, MlmedWarning
from mlmed.model import METHODS, STRUCTURES
from mlmed.modes.covariance import ALL_KINDS
from mlmed.modes.grams import Grams, grams, grams_sql
from mlmed.modes.intervals import INTERVALS
from mlmed.modes.mediation import MediationResults, mediate
from mlmed.modes.mixed import mixed
from mlmed.modes.resampling import KINDS
from mlmed.modes.results import MixedResults
from mlmed.modes.smallsample import DDF_KINDS
from mlmed.report.text import render_table

__all__ = ["main"]

FORMATS = ("text", "stata", "json", "csv")
EXAMPLE = """\
example:
  mlmed fit yuan_mackinnon_sim \\
    --mediator "Med ~ X + (1 + X | group)" \\
    --outcome  "y ~ Med + X + (1 + Med + X | group)"
"""


def _parser() -> argparse.ArgumentParser:
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
    _add_fitting(fit)
    _add_printing(fit)
    effects = commands.add_parser("effects", help="paths and effects with any kind of interval")
    _add_mediation(effects)
    _add_fitting(effects)
    _add_intervals(effects)
    one = commands.add_parser("mixed", help="one equation")
    _add_data(one)
    one.add_argument("--formula", required=True, help='e.g. "y ~ x + (1 + x | id)"')
    _add_fitting(one)
    _add_printing(one)
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
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    known = "a .csv, .dta, .sav or .parquet file (also 'part-*.parquet'), stored Grams, or an example data set"
    parser.add_argument("data", metavar="DATA", help=known)


def _add_mediation(parser: argparse.ArgumentParser) -> None:
    _add_data(parser)
    parser.add_argument("--mediator", required=True, metavar="FORMULA", help='e.g. "m ~ x + (1 + x | id)"')
    parser.add_argument("--outcome", required=True, metavar="FORMULA", help='e.g. "y ~ m + x + (1 + m + x | id)"')
    parser.add_argument("--treatment", metavar="COLUMN", help="which predictor of the mediator is x")


def _add_fitting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--method", choices=METHODS, default="reml")
    parser.add_argument("--covariance", choices=STRUCTURES, default="unstructured", help="of the random effects")
    parser.add_argument("--level", type=float, default=0.95, help="coverage of the intervals (default 0.95)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write here instead of standard output")


def _add_intervals(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--interval", choices=INTERVALS, default="delta", help="see docs/choosing_intervals.md")
    parser.add_argument("--vcov", choices=ALL_KINDS, help="kind of standard errors")
    parser.add_argument("--ddf", choices=DDF_KINDS, help="degrees of freedom: t instead of z")
    parser.add_argument("-n", type=int, metavar="N", help="draws or replicates")
    parser.add_argument("--kind", choices=KINDS, help="how bootstrap replicates are made")
    parser.add_argument("--within", action="store_true", default=None, help="draw rows within clusters, too")
    parser.add_argument("--ends", choices=METHODS_OF_DRAWS, help="how a bootstrap interval is made of draws")
    parser.add_argument("--seed", type=int, help="required where numbers are drawn")
    parser.add_argument("--jobs", type=int, metavar="N", help="workers of a bootstrap")
    parser.add_argument("--format", choices=("text", "json", "csv"), default="text")


def _add_printing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vcov", choices=ALL_KINDS, default="block", help="kind of standard errors")
    parser.add_argument("--ddf", choices=DDF_KINDS, default="none", help="degrees of freedom: t instead of z")
    parser.add_argument("--format", choices=FORMATS, default="text")


def _read(source: str) -> Any:
    """Grams, Parquet through DuckDB, another file, or an example data set."""
    if is_grams(source):
        return Grams.load(source)
    if source.endswith(".parquet") and (relation := open_parquet(source)) is not None:
        return relation
    if Path(source).exists():
        return read_table(source)
    if source in datasets.names():
        return datasets.load(source)
    close = difflib.get_close_matches(source, datasets.names(), n=1)
    if close and not Path(source).suffix:
        raise DataError(f"there is no file or data set {source!r}; did you mean {close[0]}?")
    return read_table(source)


@contextmanager
def _scan_progress(data: Any) -> Iterator[None]:
    """A bar on standard error while DuckDB scans; nothing for other data or where nobody watches."""
    if not sys.stderr.isatty() or not type(data).__module__.startswith(("duckdb", "_duckdb")):
        yield
        return
    import duckdb
    from tqdm import tqdm

    done = threading.Event()

    def watch() -> None:
        with tqdm(total=100, bar_format="scan {percentage:3.0f}% |{bar}| {elapsed}", leave=False) as bar:
            while not done.wait(0.2):
                bar.n = max(float(duckdb.default_connection().query_progress()), 0.0)
                bar.refresh()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _mixed(options: argparse.Namespace) -> MixedResults:
    data = _read(options.data)
    with _scan_progress(data):
        return mixed(options.formula, data, method=options.method, covariance=options.covariance)


def _mediate(options: argparse.Namespace) -> MediationResults:
    data = _read(options.data)
    with _scan_progress(data):
        return mediate(
            options.mediator,
            options.outcome,
            data,
            method=options.method,
            treatment=options.treatment,
            covariance=options.covariance,
        )


def _present(results: MixedResults, options: argparse.Namespace) -> str:
    asked = {"vcov": options.vcov, "level": options.level, "ddf": options.ddf}
    if options.format == "json":
        return results.to_json(**asked)
    if options.format == "csv":
        return results.to_table(**asked).to_csv(index=False).rstrip("\n")
    return results.summary(options.format, **asked)


def _effects(options: argparse.Namespace) -> str:
    table = _mediate(options).effects(
        interval=options.interval,
        level=options.level,
        vcov=options.vcov,
        ddf=options.ddf,
        n=options.n,
        kind=options.kind,
        within=options.within,
        method=options.ends,
        seed=options.seed,
        n_jobs=options.jobs,
        progress=True if options.interval == "bootstrap" and sys.stderr.isatty() else None,
    )
    if options.format == "json":
        return str(table.to_json(orient="records", indent=2, double_precision=15))
    if options.format == "csv":
        return table.to_csv(index=False).rstrip("\n")
    drawn = options.interval in ("monte-carlo", "bootstrap")
    statistic = "est/se" if drawn else "t" if options.ddf not in (None, "none") else "z"
    return "\n".join([_heading(options), render_table(table, statistic=statistic)])


def _heading(options: argparse.Namespace) -> str:
    """What the table shows."""
    names = ("n", "kind", "within", "ends", "vcov", "ddf", "seed")
    shown = [f"{name} {value}" for name in names if (value := getattr(options, name)) is not None]
    detail = f" ({', '.join(shown)})" if shown else ""
    return f"Effects, {100 * options.level:g}% intervals: {options.interval}{detail}; indirect = a*b + cov_ab"


def _run(options: argparse.Namespace) -> str:
    if options.command == "effects":
        return _effects(options)
    if options.command in ("fit", "mixed"):
        return _present(_mediate(options) if options.command == "fit" else _mixed(options), options)
    if options.command == "grams":
        return _grams(options)
    if options.command == "stack":
        table = stack(
            _read(options.data),
            x=options.x,
            m=options.m,
            y=options.y,
            cluster=options.cluster,
            covariates=tuple(options.covariates),
        )
        return table.to_csv(index=False).rstrip("\n")
    if options.name is None:
        return datasets.describe().to_string(index=False)
    return datasets.load(options.name).to_csv(index=False).rstrip("\n")


def _grams(options: argparse.Namespace) -> str:
    data = _read(options.data)
    if options.sql:
        return grams_sql(options.formula, data, dialect=options.sql)
    if options.out is None:
        raise DataError("say where to store the Grams with --out FILE.parquet, or ask for --sql")
    with _scan_progress(data):
        made = grams(options.formula, data)
    made.save(options.out)
    return repr(made)


def _write(text: str, out: Path | None) -> None:
    if out is None:
        sys.stdout.write(text + "\n")
        return
    try:
        out.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror}; check the folder and its permissions") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, or 2 with a message for anything refused."""
    options = _parser().parse_args(argv)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MlmedWarning)
        try:
            stored = options.command == "grams" and not options.sql
            _write(_run(options), None if stored else options.out)
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


if __name__ == "__main__":
    sys.exit(main())
