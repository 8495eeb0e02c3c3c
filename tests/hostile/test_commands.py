"""Every option of every command with words that no option means: one line and status 2, or an answer; no traceback.

``make hostile`` does the same with all words, and with two options at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import matplotlib
import pytest

from mlmed.cli import actions, main
from mlmed.cli.commands import COMMANDS, function
from mlmed.cli.stopping import readable
from tests.hostile.attack import Tally
from tests.hostile.commands import NEEDED, READING, WORST, lines, options_of, pairs, run, written


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Rows in a folder of their own, where files with odd names may be written; what is the same is computed once."""
    monkeypatch.chdir(tmp_path)
    texts = {name: remembering(function(name), {"out"}) for name in COMMANDS if name != "grams"}  # which writes itself
    monkeypatch.setattr("mlmed.cli.function", lambda name: texts.get(name) or function(name))
    for name in ("read", "_two_equations", "_every_fit"):
        monkeypatch.setattr(actions, name, remembering(getattr(actions, name), AFTERWARDS))
    monkeypatch.setitem(matplotlib.rcParams, "savefig.dpi", 20)
    return written(tmp_path)


#: Options of what is done with a fit.
AFTERWARDS = {"out", "plot", "format", "table", "level", "at", *itertools.chain.from_iterable(actions.ASKED.values())}


def remembering(call: Callable[..., Any], without: Collection[str]) -> Callable[..., Any]:
    """A function of a command line that answers once for all options but those; refusals are not kept."""
    found: dict[str, Any] = {}

    def once(*given: Any) -> Any:
        key = repr(sorted((name, value) for name, value in vars(given[-1]).items() if name not in without))
        if key not in found:
            found[key] = call(*given)
        return found[key]

    return once


def test_every_command_is_attacked_and_answers(data: str) -> None:
    assert set(NEEDED) == set(COMMANDS)
    for command, needed in NEEDED.items():
        position = [] if command in ("reproduce", "datasets") else [data]
        assert main([command, *position, *needed, "--out", f"{command}.parquet"]) == 0
        assert {option.name for option in options_of(command)} >= {"out"}


@pytest.mark.parametrize("command", COMMANDS)
def test_one_option_at_a_time(data: str, command: str) -> None:
    """How files are read is attacked in the two commands that are done with them first."""
    tally = Tally()
    for one in lines(command, data, WORST, frozenset() if command in ("mixed", "stack") else READING):
        tally.add(one.name, *run(one))
    assert tally.bad == []
    assert tally.counts["refused"] > 5


def test_two_options_at_a_time(data: str) -> None:
    tally = Tally()
    for one in pairs(data, 150, seed=1):
        tally.add(one.name, *run(one))
    assert tally.bad == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("größe \U0001f642 x", "größe \U0001f642 x"),
        ("a\nb\r\x1b[2J\0\x07", r"a\x0ab\x0d\x1b[2J\x00\x07"),
        ("a\u202eb\u2028c\u200d", r"a\u202eb\u2028c\u200d"),
        ("\ud800 \udcff", r"\ud800 \udcff"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_a_message_is_one_line_that_only_shows(text: str, shown: str) -> None:
    assert readable(text) == shown


def test_a_long_message_is_cut_in_its_middle() -> None:
    assert len(readable("x\n" * 30_000)) < 4_100


@pytest.mark.parametrize("option", ["--out", "--level", "--method", "--mediator", "--at"])
def test_two_dashes_are_no_value(data: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """argparse of Python 3.11 takes them out, and hands on an empty list."""
    with pytest.raises(SystemExit) as ended:
        main(["mediate", data, *NEEDED["mediate"], f"{option}=--"])
    assert ended.value.code == 2
    assert f"argument {option}: expected a value; found --" in capsys.readouterr().err
