"""The commands of ``mlmed``; options and function of a command are loaded when it is used."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NoReturn

from mlmed import __version__
from mlmed.cli.stopping import readable

EXAMPLE = """\
example:
  mlmed mediate yuan_mackinnon_sim \\
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
    function : str
        Name of its action in ``mlmed.cli.actions``.
    example : str
        Last lines of its ``--help``.
    """

    meaning: str
    function: str
    example: str = ""


COMMANDS: dict[str, Command] = {
    "mediate": Command("mediation: two equations, fitted jointly", "mediated", EXAMPLE),
    "piecewise": Command("mediation: separate equations (Krull and MacKinnon)", "separate"),
    "causal": Command("mediation: potential outcomes (ACME, ADE)", "potential"),
    "compare": Command("joint REML and ML, piecewise and potential outcomes side by side", "compared"),
    "reproduce": Command("list the published examples, or run one: published against ours", "reproduced"),
    "mixed": Command("one equation, or several responses at once", "mixed_model"),
    "location-scale": Command("means and residual sds that differ between clusters", "location_scale_model"),
    "stack": Command("the Bauer-Preacher-Gil reshape, as CSV", "stacked"),
    "grams": Command("sums of products by cluster: store them, or print their SQL", "summed"),
    "datasets": Command("list the example data sets, or write one as CSV", "listed"),
}
#: Options that had another name.
_RENAMED = {"--groups": "--of"}
#: Other words for commands, for suggestions.
_CALLED = {"fit": "mediate", "effects": "mediate", "effect": "mediate"}


class _Parser(argparse.ArgumentParser):
    """Refuses words as Python's interface does, with the closest one: ``reml`` for ``REML``.

    A refusal is one readable line below the usage.
    """

    def error(self, message: str) -> NoReturn:
        """End with status 2."""
        super().error(readable(message))

    # Not public in argparse: tests/cli/test_near_misses.py checks that it is called.
    def _check_value(self, action: argparse.Action, value: Any) -> None:
        from mlmed.options import MEANINGS, close_to, named
        from mlmed.text import shown

        if action.choices is None or value in action.choices:
            return
        words = list(action.choices)
        other = _CALLED.get(value.casefold()) if isinstance(value, str) else None
        meant = other if other in words else close_to(value, words)
        hint = f"; did you mean {meant!r}?" if meant else ""
        _, keyword, others = MEANINGS.get(action.dest, ("", "", ()))
        hint = f"; write --{keyword} {value}" if value in others else hint
        raise argparse.ArgumentError(action, f"must be one of {named(words)}; found {shown(value)}{hint}")

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]
        """As in argparse; for an unknown option the closest known one is suggested."""
        found, others = super().parse_known_args(args, namespace)
        for other in others:
            name = other.partition("=")[0]
            meant = self._meant(name) if name.startswith("--") else None
            if meant:
                self.error(f"there is no option {name}; did you mean {meant}?")
        return found, others

    def _meant(self, name: str) -> str | None:
        from mlmed.options import close_to

        options = [option for option in self._option_string_actions if option.startswith("--")]
        other = _RENAMED.get(name)
        return other if other in options else close_to(name, options)


class _CommandParser(_Parser):
    """Parser of one command. Options are added when it is used, as their choices import the engine."""

    def __init__(self, *, command: str, **settings: Any) -> None:
        super().__init__(**settings)
        self._command: str | None = command

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]
        if self._command is not None:
            importlib.import_module("mlmed.cli.options").add_options(self, self._command)
            self._command = None
        for word in takewhile(lambda word: word != "--", args or ()):
            name, _, value = word.partition("=")
            if name.startswith("-") and value == "--":  # argparse removes it, which leaves no value
                self.error(f"argument {name}: expected a value; found --")
        return super().parse_known_args(args, namespace)


def make_parser() -> argparse.ArgumentParser:
    """The parser of ``mlmed``."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
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
    """The action of a command; imports the engine."""
    module = importlib.import_module("mlmed.cli.actions")
    found: Callable[[argparse.Namespace], str] = getattr(module, COMMANDS[name].function)
    return found
