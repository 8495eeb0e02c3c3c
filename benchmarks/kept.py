"""Choose the folder of results: beside the scripts (committed) for a full run, elsewhere for a partial one."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["folder_of"]


def folder_of(here: Path, parser: argparse.ArgumentParser, options: argparse.Namespace) -> Path:
    """``here`` for the default options, else ``here/partial``, which is not committed."""
    folder = here if vars(options) == vars(parser.parse_args([])) else here / "partial"
    folder.mkdir(exist_ok=True)
    return folder
