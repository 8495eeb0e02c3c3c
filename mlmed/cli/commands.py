"""Commands: what each does and where it is. Its options and its function are loaded when it is given."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from mlmed import __version__
from mlmed.cli.choices import ChoiceParser

__all__ = ["COMMANDS", "function", "make_parser"]

EXAMPLE = """\
example:
  mlmed fit yuan_mackinnon_sim \\
    --mediator "Med ~ X + (1 + X | group)" \\
    --outcome  "y ~ Med + X + (1 + Med + X | group)"
"""


@dataclass(frozen=True, slots=True)
class Command:
    """A command of ``mlmed``.

    Attributes
    ----------
    meaning : str
        One line of ``mlmed --help``.
    home, function : str
        The module and the function that make its text from the options.
    example : str
        What ``--help`` of the command ends with.
    """

    meaning: str
    home: str
    function: str
    example: str = ""


FITTING, SCHOOLS, TABLES = "mlmed.cli.fitting", "mlmed.cli.schools", "mlmed.cli.tables"
COMMANDS: dict[str, Command] = {
    "fit": Command("mediation: two equations, fitted jointly", FITTING, "fit", EXAMPLE),
    "effects": Command("paths and effects with any kind of interval", FITTING, "effects"),
    "piecewise": Command("mediation: separate equations (Krull and MacKinnon)", SCHOOLS, "piecewise_model"),
    "causal": Command("mediation: potential outcomes (ACME, ADE)", SCHOOLS, "causal_model"),
    "compare": Command("joint REML and ML, piecewise and potential outcomes side by side", FITTING, "compared"),
    "reproduce": Command("list the published examples, or run one: published against ours", TABLES, "reproduced"),
    "mixed": Command("one equation, or several responses at once", FITTING, "mixed_model"),
    "location-scale": Command("means and residual sds that differ between clusters", SCHOOLS, "location_scale_model"),
    "stack": Command("the Bauer-Preacher-Gil reshape, as CSV", TABLES, "stacked"),
    "grams": Command("sums of products by cluster: store them, or print their SQL", TABLES, "summed"),
    "datasets": Command("list the example data sets, or write one as CSV", TABLES, "listed"),
}


class _CommandParser(ChoiceParser):
    """Parser of one command. Options are added when it has something to parse: their choices come from the engine."""

    def __init__(self, *, command: str, **settings: Any) -> None:
        super().__init__(**settings)
        self._command: str | None = command

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]
        if self._command is not None:
            importlib.import_module("mlmed.cli.options").add_options(self, self._command)
            self._command = None
        for word in takewhile(lambda word: word != "--", args or ()):
            name, _, value = word.partition("=")
            if name.startswith("-") and value == "--":  # which argparse takes out, and then there is no value
                self.error(f"argument {name}: expected a value; found --")
        return super().parse_known_args(args, namespace)


def make_parser() -> argparse.ArgumentParser:
    """The parser of ``mlmed``."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = ChoiceParser(
        prog="mlmed", description="Multilevel mediation by mixed models.", epilog=EXAMPLE, formatter_class=raw
    )
    parser.add_argument("--version", action="version", version=f"mlmed {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_CommandParser)
    for name, command in COMMANDS.items():
        commands.add_parser(
            name, command=name, help=command.meaning, epilog=command.example or None, formatter_class=raw
        )
    return parser


def function(name: str) -> Callable[[argparse.Namespace], str]:
    """The function of a command, its module loaded."""
    command = COMMANDS[name]
    found: Callable[[argparse.Namespace], str] = getattr(importlib.import_module(command.home), command.function)
    return found
