"""``main``: options in, text out, exit status."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

from mlmed.cli.commands import function, make_parser
from mlmed.errors import MlmedError, MlmedWarning

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, or 2 with a message for anything refused."""
    options = make_parser().parse_args(argv)
    # not above: a version and a help text do not need what reads tables
    from mlmed.cli.reading import write
    from mlmed.data.engines import engine_errors

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MlmedWarning)
        try:
            stored = options.command == "grams" and not options.sql
            write(function(options.command)(options), None if stored else options.out)
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
