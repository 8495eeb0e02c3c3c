"""Command line of the other schools: separate equations, potential outcomes, comparisons, published examples."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.cli import main
from tests.models import MEDIATOR, OUTCOME
from tests.tolerances import SAME

EQUATIONS = "Med ~ X + (1 + X | group)", "y ~ Med + X + (1 + Med + X | group)"
MODEL = ("yuan_mackinnon_sim", "--mediator", EQUATIONS[0], "--outcome", EQUATIONS[1])

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Call main() and return its status, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return status, output.out, output.err

    return call


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A treatment in words, a covariate, a binary outcome."""
    rng = np.random.default_rng(5)
    arm = np.tile(["control", "drug"], 100)
    w = rng.normal(size=200)
    m = 0.6 * (arm == "drug") + 0.2 * w + rng.normal(size=200)
    y = (0.7 * m + rng.normal(size=200) > 0.2).astype(int)
    path = tmp_path_factory.mktemp("data") / "binary.csv"
    pd.DataFrame({"arm": arm, "w": w, "m": m, "y": y}).to_csv(path, index=False)
    return path


def test_piecewise_as_text_and_as_stata(run: Run) -> None:
    """The summary has the naive product; Stata's layout the names of ml_mediation."""
    status, out, err = run("piecewise", *MODEL)
    assert (status, err) == (0, "")
    assert "indirect        -0.034132" in out
    status, out, _ = run("piecewise", *MODEL, "--format", "stata")
    assert status == 0
    for line in ("a_path  = .19006871", "ind_eff = -.03413204", "proportion of total effect mediated = -.13532368"):
        assert line in out


def test_piecewise_intervals(run: Run) -> None:
    """The numbers of the Python interface, and options in the heading."""
    fit = mlmed.piecewise(*EQUATIONS, mlmed.datasets.load("yuan_mackinnon_sim"))
    asked = ("--interval", "monte-carlo", "--seed", 1, "-n", 500)
    status, out, _ = run("piecewise", *MODEL, *asked, "--format", "csv")
    assert status == 0
    table = pd.read_csv(io.StringIO(out)).query("section == 'effects'").set_index("term")
    ours = fit.effects(interval="monte-carlo", n=500, seed=1).set_index("term")
    assert table.loc["indirect", "conf_low"] == pytest.approx(ours.loc["indirect", "conf_low"], rel=SAME)
    assert "(indirect = a*b; 95% intervals: monte-carlo, n 500, seed 1)" in run("piecewise", *MODEL, *asked)[1]
    status, out, _ = run("piecewise", *MODEL, "--order", "first", "--format", "json")
    document = json.loads(out)
    assert (document["interval"], document["options"]) == ("delta", {"order": "first"})
    rows = {row["term"]: row for row in document["effects"]}
    sobel = fit.sobel().set_index("term").loc["sobel", "std_error"]
    assert rows["indirect"]["std_error"] == pytest.approx(sobel, rel=SAME)


def test_json_of_effects_has_every_digit(run: Run, tmp_path: Path) -> None:
    """Tiny numbers are not cut after a number of decimals."""
    path = tmp_path / "tiny.csv"
    frame = mlmed.simulate.bpg(40, 8, seed=3).data
    tiny = frame.assign(m=1e-9 * frame["m"])
    tiny.to_csv(path, index=False)
    rows = {
        row["term"]: row
        for row in json.loads(
            run("piecewise", path, "--mediator", MEDIATOR, "--outcome", OUTCOME, "--format", "json")[1]
        )["effects"]
    }
    a = mlmed.piecewise(MEDIATOR, OUTCOME, tiny).effects().set_index("term")["estimate"]["a"]
    assert rows["a"]["estimate"] == pytest.approx(a, rel=SAME, abs=0.0)
    assert rows["c_minus_cprime"]["std_error"] is None


def test_piecewise_refuses(run: Run) -> None:
    status, _, err = run("piecewise", *MODEL, "--format", "stata", "--seed", 1)
    assert (status, "shows estimates only; leave out seed" in err) == (2, True)
    status, _, err = run("piecewise", *MODEL, "--interval", "product", "--seed", 1)
    assert (status, "does not use seed" in err) == (2, True)


def test_causal_with_a_factor_and_a_covariate(run: Run, binary: Path) -> None:
    asked = ("causal", binary, "--mediator", "m ~ arm + w", "--outcome", "y ~ m + arm + w", "--treatment", "arm")
    values = ("--contrast", "control", "drug", "--family-y", "probit", "--vcov", "HC3")
    status, out, err = run(*asked, *values)
    assert (status, err) == (0, "")
    assert "arm: control (control) to drug (treated)" in out
    status, out, _ = run(*asked, *values, "--at", "w=1", "--format", "json")
    document = json.loads(out)
    assert (document["interval"], document["options"]) == ("delta", {"at": {"w": 1.0}})
    rows = {row["term"]: row["estimate"] for row in document["effects"]}
    fit = mlmed.causal(
        "m ~ arm + w", "y ~ m + arm + w", pd.read_csv(binary), treatment="arm", contrast=("control", "drug"),
        family_y="probit", vcov="HC3",
    )  # fmt: skip
    expected = fit.effects(at={"w": 1}).set_index("term").loc["acme", "estimate"]
    assert rows["acme"] == pytest.approx(expected, rel=SAME)
    drawn = run(*asked, *values, "--interval", "monte-carlo", "-n", 200, "--seed", 3)[1]
    assert "200 draws" in drawn


def test_causal_sensitivity(run: Run, binary: Path) -> None:
    asked = ("causal", binary, "--mediator", "m ~ w", "--outcome", "y ~ m + w", "--family-y", "probit", "--sensitivity")
    status, out, _ = run(*asked, "--contrast", 0, 1)
    assert status == 0
    assert "Where the estimate is zero" in out
    status, out, _ = run(*asked, "-n", 100, "--seed", 1, "--interval", "monte-carlo", "--format", "csv")
    assert pd.read_csv(io.StringIO(out))["rho"].nunique() == 19
    status, _, err = run(*asked, "--at", "w=1")
    assert (status, "leave out at" in err) == (2, True)
    status, _, err = run(*asked, "--table", "effects")
    assert (status, "leave out table" in err) == (2, True)


def test_causal_groups(run: Run) -> None:
    out = run("causal", *MODEL, "--of", "population", "--format", "csv", "--table", "effects")[1]
    table = pd.read_csv(io.StringIO(out)).set_index("term")
    assert table.loc["acme", "estimate"] == pytest.approx(-0.034132, abs=5e-7)


@pytest.mark.parametrize("piece", ["w", "=1", "w="])
def test_at_is_name_and_value(run: Run, piece: str) -> None:
    status, _, err = run("causal", *MODEL, "--at", piece)
    assert (status, "NAME=VALUE" in err) == (2, True)


def test_effects_at_a_moderator_of_a_contrast(run: Run, tmp_path: Path) -> None:
    """--at, --contrast and --order reach the fit."""
    data = mlmed.simulate.bpg(60, 8, seed=2).data
    data["w"] = np.random.default_rng(1).normal(size=len(data))
    data.to_csv(tmp_path / "d.csv", index=False)
    equations = "m ~ x * w + (1 + x | id)", "y ~ m + x + (1 + m + x | id)"
    asked = ("mediate", tmp_path / "d.csv", "--mediator", equations[0], "--outcome", equations[1], "--treatment", "x")
    status, out, _ = run(*asked, "--contrast", 0, 2, "--at", "w=1.5", "--order", "first", "--format", "json")
    assert status == 0
    document = json.loads(out)
    assert document["options"] == {"order": "first", "at": {"w": 1.5}}
    rows = {row["term"]: row for row in document["effects"]}
    assert (
        "delta method, first order; block standard errors; w = 1.5)"
        in run(*asked, "--contrast", 0, 2, "--at", "w=1.5", "--order", "first")[1]
    )
    fit = mlmed.mediate(*equations, data, treatment="x", contrast=(0, 2))
    ours = fit.effects(at={"w": 1.5}, order="first").set_index("term").loc["indirect"]
    assert rows["indirect"]["estimate"] == pytest.approx(ours["estimate"], rel=1e-6)  # the file has rounded data
    assert rows["indirect"]["std_error"] == pytest.approx(ours["std_error"], rel=1e-6)


def test_compare(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    status, out, _ = run("compare", *MODEL, "--plot", tmp_path / "forest.png")
    assert status == 0
    for column in ("joint REML", "joint ML", "piecewise REML", "potential outcomes"):
        assert column in out
    assert (tmp_path / "forest.png").stat().st_size > 5_000
    table = pd.read_csv(io.StringIO(run("compare", *MODEL, "--format", "csv")[1]))
    assert set(table["kind"]) == {"fit"}
    assert set(table["source"]) == {"joint REML", "joint ML", "piecewise REML", "piecewise ML", "potential outcomes"}
    status, _, err = run("compare", *MODEL, "--plot", tmp_path / "forest.nothing")
    assert (status, "cannot write the picture" in err) == (2, True)


@pytest.mark.parametrize(
    ("term", "asked", "values"),
    [("I(x == 2)", (), (1, 2)), ("x", (), (0, 5)), ("x", ("--contrast", 1, 3), (1, 2, 3))],
)
def test_compare_two_values_of_a_treatment(
    run: Run, tmp_path: Path, term: str, asked: tuple[Any, ...], values: tuple[int, ...]
) -> None:
    """Every method compares the same two: piecewise and average effects of linear models are the same numbers."""
    data = mlmed.simulate.bpg(30, 8, seed=3).data
    data.assign(x=np.resize(values, len(data))).to_csv(tmp_path / "d.csv", index=False)
    formulas = ("--mediator", f"m ~ {term} + (1 | id)", "--outcome", f"y ~ m + {term} + (1 | id)")
    status, out, _ = run("compare", tmp_path / "d.csv", *formulas, *asked, "--format", "csv")
    assert status == 0
    table = pd.read_csv(io.StringIO(out)).pivot(index="term", columns="source", values="estimate")
    for effect in ("indirect", "direct", "total"):
        row = table.loc[effect]
        assert row["potential outcomes"] == pytest.approx(row["piecewise REML"], rel=SAME)
        # the joint model estimates a and b together, and differs by its covariance across equations only
        assert row["joint REML"] == pytest.approx(row["piecewise REML"], abs=0.1)


def test_compare_of_another_design(run: Run, tmp_path: Path) -> None:
    """Where the mediator is a variable of the clusters, only separate equations are compared."""
    mlmed.simulate.bpg(60, 6, design="2-2-1", seed=1).data.to_csv(tmp_path / "d.csv", index=False)
    asked = ("compare", tmp_path / "d.csv", "--mediator", "m ~ x", "--outcome", "y ~ m + x + (1 | id)")
    status, out, _ = run(*asked)
    assert status == 0
    assert "piecewise ML" in out
    assert "joint" not in out


def test_reproduce(run: Run) -> None:
    """The list, an example, an unknown name."""
    status, out, _ = run("reproduce")
    assert status == 0
    for name in mlmed.reproduce.names():
        assert name in out
    status, out, _ = run("reproduce", "yuan-mackinnon")
    assert status == 0
    assert "naive_lmer" in out
    assert "Notes" in out
    status, _, err = run("reproduce", "yuan")
    assert (status, "did you mean 'yuan-mackinnon'" in err) == (2, True)


def test_location_scale(run: Run) -> None:
    asked = ("yuan_mackinnon_sim", "--location", "Med ~ X + (1 |c| group)", "--scale", "~ 1 + (1 |c| group)")
    status, out, _ = run("location-scale", *asked)
    assert status == 0
    assert "certified" in out
    fit = mlmed.location_scale(*(asked[2], asked[4]), mlmed.datasets.load("yuan_mackinnon_sim"))
    for form, read in (
        ("csv", lambda text: len(text.splitlines()) - 1),
        ("json", lambda text: len(json.loads(text)["fixef"])),
    ):
        status, out, _ = run("location-scale", *asked, "--format", form)
        assert status == 0
        assert read(out) == (len(fit.to_table()) if form == "csv" else len(fit.fixef()))
    status, _, err = run("location-scale", *asked[:3], "--scale", "y ~ 1")
    assert status == 2
    assert "response" in err
