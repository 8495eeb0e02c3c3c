"""Command line: ``mlmed mediate``, ``piecewise``, ``causal``, ``compare``, ``reproduce`` and more."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

from mlmed.cli.commands import function, make_parser
from mlmed.cli.stopping import print_text, say, settle_errors, stoppable
from mlmed.errors import MlmedError, MlmedWarning

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns
    -------
    int
        Exit status: 0; 2 with a message for refusals; 128 plus the number of the signal that ended it.
    """
    with stoppable() as stop:
        try:
            return _run(_options(argv))
        except MlmedError as error:
            say(str(error))
            return 2
        except BrokenPipeError:  # the reader (head, less) has seen enough
            return 0
    return stop.status


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    try:
        return make_parser().parse_args(argv)
    except SystemExit as ended:
        if not ended.code and sys.stdout is not None:
            print_text("")  # flush help texts while a closed pipe can be told from an error
        settle_errors()
        raise


def _run(options: argparse.Namespace) -> int:
    # imported late: versions and help texts need no tables
    from mlmed.cli.files import check_targets, write

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MlmedWarning)
        check_targets(options)
        stored = options.command == "grams" and not options.sql
        write(function(options.command)(options), None if stored else options.out)
    for warning in caught:
        say(f"warning: {warning.message}")
    return 0
