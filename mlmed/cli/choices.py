"""A parser that says what was meant where a word on the command line is none of those that there are."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from mlmed.cli.stopping import readable

__all__ = ["ChoiceParser"]

#: Commands that are called otherwise in Python.
_CALLED = {"mediate": "fit", "location_scale": "location-scale"}


class ChoiceParser(argparse.ArgumentParser):
    """Refuses words as Python's interface does, with the one that is close: ``REML`` for ``reml``.

    A refusal is one readable line, below the usage.
    """

    def error(self, message: str) -> NoReturn:
        """End with status 2."""
        super().error(readable(message))

    # Not public in argparse: tests/test_near_misses.py watches that it is asked.
    def _check_value(self, action: argparse.Action, value: Any) -> None:
        from mlmed.options import MEANINGS, close_to, named, shown

        if action.choices is None or value in action.choices:
            return
        words = list(action.choices)
        meant = _CALLED.get(value) if isinstance(value, str) and _CALLED.get(value) in words else close_to(value, words)
        hint = f"; did you mean {meant!r}?" if meant else ""
        _, keyword, others = MEANINGS.get(action.dest, ("", "", ()))
        hint = f"; write --{keyword} {value}" if value in others else hint
        raise argparse.ArgumentError(action, f"must be one of {named(words)}; found {shown(value)}{hint}")

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]
        """As argparse's; an unknown option that is close to a known one says so."""
        found, others = super().parse_known_args(args, namespace)
        for other in others:
            name = other.partition("=")[0]
            meant = self._meant(name) if name.startswith("--") else None
            if meant:
                self.error(f"there is no option {name}; did you mean {meant}?")
        return found, others

    def _meant(self, name: str) -> str | None:
        from mlmed.options import close_to

        return close_to(name, [option for option in self._option_string_actions if option.startswith("--")])
