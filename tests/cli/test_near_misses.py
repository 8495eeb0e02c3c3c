"""The command line says what was meant: words in another case, options, commands, targets and sources."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

import mlmed
from mlmed.cli import main
from mlmed.cli.commands import COMMANDS
from mlmed.cli.options import add_options
from mlmed.data.readers import read_table
from mlmed.errors import DataError, EffectError
from mlmed.options import METHODS, STRUCTURES, one_of

FORMULA = "Med ~ X + (1 | group)"
MIXED = ("mixed", "yuan_mackinnon_sim", "--formula", FORMULA)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The last line on standard error of a command that ends with status 2 and prints nothing."""
    try:
        status: object = main([*arguments])
    except SystemExit as ended:
        status = ended.code
    said = capsys.readouterr()
    assert (status, said.out) == (2, "")
    return said.err.splitlines()[-1]


def _choices() -> list[tuple[str, str, str]]:
    """Command, option and word, of every option that has a list of words."""
    found = []
    for command in COMMANDS:
        parser = argparse.ArgumentParser()
        add_options(parser, command)
        for action in parser._actions:
            found += [(command, action.option_strings[0], word) for word in action.choices or ()]
    return found


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (("--interval", "quasi-bayes"), "'monte-carlo'"),
        (("--interval", "Quasi-Bayesian"), "'monte-carlo'"),
        (("--vcov", "robust"), "'HC3'"),
        (("--robustSE", "TRUE"), "--vcov"),
        (("--robust", "HC3"), "--vcov"),
        (("--control.value", "0"), "--contrast"),
        (("--treat_value", "1"), "--contrast"),
        (("--boot", "TRUE"), "--interval"),
    ],
)
def test_words_of_mediation_are_known(capsys: pytest.CaptureFixture[str], typed: tuple[str, str], meant: str) -> None:
    """What a user of R's mediation types."""
    told = refused(capsys, "causal", "DATA", "--mediator", "m ~ x", "--outcome", "y ~ m + x", *typed)
    assert told.endswith(f"did you mean {meant}?"), told


def test_there_are_words_in_every_command_that_fits() -> None:
    assert {"mediate", "piecewise", "causal", "mixed", "compare"} <= {command for command, *_ in _choices()}
    assert len(_choices()) > 100


@pytest.mark.parametrize("change", [str.swapcase, str.title, lambda word: f" {word} "], ids=["swap", "title", "blanks"])
def test_every_word_in_another_case_is_told(capsys: pytest.CaptureFixture[str], change: object) -> None:
    """``--method REML``, ``--vcov cr2``, ``--format CSV``: argparse's own check is ours (_check_value)."""
    for command, option, word in _choices():
        typed = change(word)  # type: ignore[operator]
        if typed == word:
            continue
        told = refused(capsys, command, "DATA", option, typed)
        assert f"argument {option}: must be one of " in told, (command, option, typed)
        assert told.endswith(f"did you mean {word!r}?"), told


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("Mediate", "mediate"), ("LOCATION-SCALE", "location-scale"), ("location_scale", "location-scale"),
     ("dataset", "datasets"), ("fit", "mediate"), ("Fit", "mediate"), ("effects", "mediate"), ("effect", "mediate")],
)  # fmt: skip
def test_a_command_in_another_spelling(capsys: pytest.CaptureFixture[str], typed: str, meant: str) -> None:
    assert refused(capsys, typed).endswith(f"did you mean {meant!r}?")


def test_an_unknown_word_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(capsys, *MIXED, "--method", "bayes")
    assert told.endswith("argument --method: must be one of reml, ml; found 'bayes'")


@pytest.mark.parametrize("typed", ["--Method", "--METHOD", "--metod", "--Method=ml"])
def test_an_option_in_another_spelling(capsys: pytest.CaptureFixture[str], typed: str) -> None:
    value = () if "=" in typed else ("ml",)
    assert "did you mean --method?" in refused(capsys, *MIXED, typed, *value)


def test_a_word_of_another_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert "found 'bca'; write --ends bca" in refused(capsys, *MIXED, "--method", "bca")


def test_an_option_of_nothing_is_left_to_argparse(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unrecognized arguments: --frobnicate" in refused(capsys, *MIXED, "--frobnicate")


@pytest.mark.parametrize(("value", "words", "meant"), [("REML", METHODS, "reml"), ("diag", STRUCTURES, "diagonal")])
def test_python_says_the_same(value: str, words: tuple[str, ...], meant: str) -> None:
    with pytest.raises(EffectError, match=f"did you mean '{meant}'"):
        one_of(value, words, "choice")


@pytest.mark.parametrize("option", ["--out", "--plot"])
@pytest.mark.parametrize(
    ("target", "told"), [("", "'' is no name of a file"), (" ", "' ' is no name"), ("-", "does not stand for standard")]
)
def test_a_target_that_nobody_means(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    target: str,
    told: str,
) -> None:
    """Nothing is written, neither to a file called " " or "-" nor to the working directory."""
    monkeypatch.chdir(tmp_path)
    formulas = ("--mediator", FORMULA, "--outcome", "y ~ Med + X + (1 | group)")
    said = refused(capsys, "compare", "yuan_mackinnon_sim", *formulas, option, target)
    assert f"argument {option}: " in said
    assert told in said
    assert os.listdir(tmp_path) == []


def test_a_file_called_minus_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*MIXED, "--out", "./-"]) == 0
    assert "Linear mixed model" in (tmp_path / "-").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "source",
    ["https://example.org/a/b.csv", "http://example.org/b.parquet", "s3://bucket/part-*.parquet", "file:///data/a.csv"],
)
def test_an_address_is_shown_as_it_was_given(capsys: pytest.CaptureFixture[str], source: str) -> None:
    """With both slashes, and nothing is fetched, by DuckDB neither."""
    assert refused(capsys, "mixed", source, "--formula", FORMULA).startswith(f"mlmed: {source} is an address")
    with pytest.raises(DataError, match="is an address, and files are read from this machine only"):
        read_table(source)


@pytest.mark.parametrize("source", ["", " "])
def test_a_source_without_a_name(capsys: pytest.CaptureFixture[str], source: str) -> None:
    assert "is no name of a file or data set" in refused(capsys, "mixed", source, "--formula", FORMULA)
    with pytest.raises(DataError, match="is no name of a file"):
        read_table(source)


@pytest.mark.parametrize("kind", ["HC3", "iid", "robust", "cr2", "HC9", 3])
def test_covariances_are_refused_alike_in_every_mode(kind: object) -> None:
    """One table of names: what one kind of model has another one tells, and unknown words are listed."""
    data = mlmed.datasets.load("yuan_mackinnon_sim")
    pair = "Med ~ X + (1 | group)", "y ~ X + Med + (1 | group)"
    calls = (
        lambda: mlmed.mixed(pair[0], data).vcov(kind),
        lambda: mlmed.mixed(pair[0], data).tidy(vcov=kind),
        lambda: mlmed.piecewise(*pair, data).effects(vcov=kind),
        lambda: mlmed.mediate(*pair, data).effects(vcov=kind),
        lambda: mlmed.causal(*pair, data, vcov=kind),
    )
    told = set()
    for call in calls:
        with pytest.raises(EffectError) as found:
            call()
        told.add(str(found.value))
    assert len(told) == 1, told
    assert ("do not depend on each other" in told.pop()) == (kind in ("HC3", "iid"))
