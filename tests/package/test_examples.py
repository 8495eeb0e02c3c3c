"""The scripts of ``examples/`` run, and what they name exists."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

import mlmed

SCRIPTS = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_run(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From top to bottom, without a warning."""
    runpy.run_path(str(path), run_name="__main__")
    assert "certified optimum: True" in capsys.readouterr().out


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_calls_in_the_text_can_be_made(path: Path) -> None:
    """A call that a docstring names works as it is written."""
    named = re.findall(r"``(mlmed\.[^`]*\))``", path.read_text(encoding="utf-8"))
    assert named
    for call in named:
        assert eval(call, {"mlmed": mlmed}) is not None
