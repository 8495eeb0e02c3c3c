"""One table of a fit alone, and what its heading says."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.cli import main
from tests.models import SERIAL, serial_data

PAIR = ("--mediator", "Med ~ X + (1 | group)", "--outcome", "y ~ Med + X + (1 | group)")
PLAIN = ("--mediator", "Med ~ X", "--outcome", "y ~ Med + X")
DRAWN = ("--interval", "bootstrap", "-n", "20", "--seed", "1")
OPTIONS = "(n 20, seed 1)"


def shown(capsys: pytest.CaptureFixture[str], command: str, *asked: str) -> tuple[str, list[str]]:
    """Heading, and names of the columns."""
    assert main([command, "yuan_mackinnon_sim", *asked]) == 0
    heading, columns, *_ = capsys.readouterr().out.splitlines()
    return heading, columns.split()


@pytest.mark.parametrize(
    ("command", "asked", "letter", "heading"),
    [
        ("causal", (*PLAIN, "--table", "fixef"), "t", "fixef, 95% intervals"),
        ("mediate", (*PAIR, "--table", "fixef", *DRAWN), "z", "fixef, 95% intervals"),
        ("mediate", (*PAIR, "--table", "effects", *DRAWN), "est/se", f"effects, 95% intervals: bootstrap {OPTIONS}"),
        ("mediate", (*PAIR, "--table", "varcorr", "--ddf", "satterthwaite"), "z", "varcorr, 95% intervals"),
        ("mediate", (*PAIR, "--table", "effects", "--ddf", "satterthwaite"), "t", "effects, 95% intervals: delta (ddf"),
        ("mediate", (*PAIR, "--table", "fixef", "--ddf", "satterthwaite"), "t", "fixef, 95% intervals (ddf satt"),
        ("mediate", (*PAIR, "--table", "effects", "--interval", "profile"), "z", "effects, 95% intervals: profile"),
        ("piecewise", (*PAIR, "--table", "sdcor", "--vcov", "CR1"), "", "sdcor, 95% intervals (vcov CR1)"),
    ],
)
def test_tests_are_named_by_their_degrees_of_freedom(capsys, command, asked, letter, heading):
    """t where a table has degrees of freedom, z where they are infinite; options of the effects stand beside them."""
    found, columns = shown(capsys, command, *asked)
    if letter:
        assert [name for name in columns if name in ("t", "z", "est/se")] == [letter]
    assert found.startswith(heading)
    assert (OPTIONS in found) == ("effects" in asked and "bootstrap" in asked)


MODERATED = ("--mediator", "Med ~ X * w + (1 | group)", "--outcome", "y ~ Med + X + (1 | group)", "--treatment", "X")


@pytest.fixture
def moderated(tmp_path):
    import numpy as np

    import mlmed

    data = mlmed.datasets.load("yuan_mackinnon_sim")
    data["w"] = np.arange(len(data)) % 3
    path = tmp_path / "moderated.csv"
    data.to_csv(path, index=False)
    return str(path)


def test_places_in_headings(capsys, moderated):
    """As one writes them, not as Python shows a mapping; only beside the effects."""
    for name, place in (("effects", "(at w = 1)"), ("fixef", "")):
        assert main(["mediate", moderated, *MODERATED, "--table", name, "--at", "w=1"]) == 0
        heading = capsys.readouterr().out.splitlines()[0]
        assert heading.endswith(place)
        assert "{" not in heading
    assert main(["mediate", moderated, *MODERATED, "--at", "w=1"]) == 0
    assert "; w = 1)" in capsys.readouterr().out


SYSTEM = ("--mediator", SERIAL[0][0], "--mediator", SERIAL[0][1], "--outcome", SERIAL[1], "--treatment", "x")


def test_every_mediator_has_its_formula(capsys, tmp_path):
    """As in Python; other commands refuse a second one instead of forgetting the first."""
    table = serial_data()
    file = tmp_path / "serial.csv"
    table.to_csv(file, index=False)
    assert main(["mediate", str(file), *SYSTEM, "--table", "paths", "--format", "csv"]) == 0
    found = pd.read_csv(io.StringIO(capsys.readouterr().out))
    fit = mlmed.mediate(*SERIAL, table, treatment="x")
    np.testing.assert_allclose(found["estimate"], fit.paths()["estimate"], rtol=1e-6)
    assert list(found["route"]) == ["x -> m1 -> y", "x -> m2 -> y", "x -> m1 -> m2 -> y", "x -> y"]
    assert main(["mediate", str(file), *SYSTEM]) == 0
    assert "Multilevel mediation: x -> m1, m2 -> y" in capsys.readouterr().out
    assert main(["mediate", str(file), *SYSTEM, "--format", "stata"]) == 2
    assert "that of one mediator" in capsys.readouterr().err
    for other in ("piecewise", "causal", "compare"):
        with pytest.raises(SystemExit):
            main([other, str(file), *SYSTEM])
        assert "several mediators are fitted by 'mlmed mediate'" in capsys.readouterr().err


@pytest.mark.parametrize("twice", [("--at", "w=1", "--at", "w=2"), ("--at", "w=1", "w=2"), ("--at", "w=1", "w=1")])
def test_a_moderator_has_one_value(capsys, moderated, twice):
    assert main(["mediate", moderated, *MODERATED, *twice]) == 2
    assert "--at gives w more than one value" in capsys.readouterr().err


def test_places_may_be_given_one_by_one(capsys, moderated):
    """Several --at are one."""
    asked = ("causal", moderated, "--mediator", "Med ~ X * w", "--outcome", "y ~ Med + X + z", "--treatment", "X")
    import pandas as pd

    pd.read_csv(moderated).assign(z=lambda table: table["w"] % 2).to_csv(moderated, index=False)
    assert main([*asked, "--at", "w=1", "--at", "z=0", "--table", "effects"]) == 0
    assert "(at w = 1, z = 0)" in capsys.readouterr().out.splitlines()[0]


def test_groups_is_called_of(capsys):
    with pytest.raises(SystemExit):
        main(["causal", "yuan_mackinnon_sim", *PLAIN, "--groups", "population"])
    assert "there is no option --groups; did you mean --of?" in capsys.readouterr().err
