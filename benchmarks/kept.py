"""Where the results of a benchmark go: those of all cases beside the scripts, which are committed, others elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["folder_of"]


def folder_of(here: Path, parser: argparse.ArgumentParser, options: argparse.Namespace) -> Path:
    """``here`` for the options by default, else ``here/partial``, which is not committed."""
    folder = here if vars(options) == vars(parser.parse_args([])) else here / "partial"
    folder.mkdir(exist_ok=True)
    return folder
