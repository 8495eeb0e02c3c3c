"""Command line: subcommands, formats, files in and out, exit statuses."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyreadstat
import pytest

import mlmed
from mlmed.cli import main
from mlmed.cli.options import ALONE, TABLES
from tests.models import MEDIATOR, OUTCOME
from tests.tolerances import SAME

ROW_KEYS = {"term", "estimate", "std_error", "statistic", "p_value", "conf_low", "conf_high"}
FIT = ("--mediator", MEDIATOR, "--outcome", OUTCOME)
SHIPPED = ("yuan_mackinnon_sim", "--mediator", "Med ~ X + (1 + X | group)")
SHIPPED_FIT = (*SHIPPED, "--outcome", "y ~ Med + X + (1 + Med + X | group)")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Call main() and return its status, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse
            status = int(stop.code or 0)
        output = capsys.readouterr()
        return status, output.out, output.err

    return call


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """40 clusters of 8; regular."""
    return mlmed.simulate.bpg(40, 8, seed=3).data


@pytest.fixture(scope="module")
def csv(frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data as a file."""
    path = tmp_path_factory.mktemp("data") / "data.csv"
    frame.to_csv(path, index=False)
    return path


# -- formats -------------------------------------------------------------------------------------------------


def test_json_of_a_mediation_model(run: Run, csv: Path, frame: pd.DataFrame) -> None:
    """Every documented key, with the numbers of the Python interface."""
    status, out, err = run("mediate", csv, *FIT, "--format", "json")
    document = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert (status, err) == (0, "")
    keys = {"schema", "method", "nobs", "n_clusters", "llf", "converged", "is_singular", "gradient_norm"}
    keys |= {"n_starts", "n_optima", "optima"}
    assert keys | {"fixef", "varcorr", "residual", "effects"} <= set(document)
    for section in ("fixef", "varcorr", "residual", "effects"):
        assert document[section]
        assert all(set(row) >= ROW_KEYS for row in document[section])
    fit = mlmed.mediate(MEDIATOR, OUTCOME, frame)
    assert document["schema"] == "mlmed/1"
    assert (document["method"], document["nobs"], document["n_clusters"]) == ("reml", 640, 40)
    assert document["converged"] is True
    assert document["is_singular"] is False
    assert document["gradient_norm"] < 1e-4
    assert document["llf"] == pytest.approx(fit.llf, rel=SAME)
    assert (document["n_starts"], document["n_optima"]) == (6, 1)
    assert document["optima"] == pytest.approx([fit.llf], rel=SAME)
    effects = pd.DataFrame(document["effects"]).set_index("term")
    expected = fit.effects().set_index("term")
    columns = sorted(ROW_KEYS - {"term"})
    np.testing.assert_allclose(effects[columns].astype(float), expected[columns].astype(float), rtol=SAME)
    assert list(effects.index) == ["a", "b", "cprime", "cov_ab", "indirect", "direct", "total"]
    assert [row["term"] for row in document["residual"]] == ["var(m~Residual)", "var(y~Residual)"]
    assert all(row["statistic"] is None and row["p_value"] is None for row in document["residual"])


def test_json_of_one_equation(run: Run, csv: Path) -> None:
    """No effects, the rest alike."""
    status, out, _ = run("mixed", csv, "--formula", MEDIATOR, "--format", "json", "--method", "ml")
    document = json.loads(out)
    assert status == 0
    assert (document["method"], document["nobs"]) == ("ml", 320)
    assert "effects" not in document
    assert [row["term"] for row in document["fixef"]] == ["Intercept", "x"]
    assert {row["term"] for row in document["varcorr"]} == {"var(Intercept)", "var(x)", "cov(Intercept,x)"}


def test_csv_is_the_json_in_one_table(run: Run, csv: Path) -> None:
    """Same rows, told apart by section."""
    _, out, _ = run("mediate", csv, *FIT, "--format", "csv")
    table = pd.read_csv(io.StringIO(out), keep_default_na=True)
    document = json.loads(run("mediate", csv, *FIT, "--format", "json")[1])
    assert {"section", *ROW_KEYS} <= set(table.columns)
    assert list(table["section"].unique()) == ["fixef", "varcorr", "residual", "sdcor", "effects"]
    for section in table["section"].unique():
        rows = table[table["section"] == section]
        assert list(rows["term"]) == [row["term"] for row in document[section]]
        np.testing.assert_allclose(rows["estimate"], [row["estimate"] for row in document[section]], rtol=SAME)


def without_rounding(text: str) -> str:
    """A summary without the line that certifies the optimum."""
    return re.sub(r"certified: .*?;", "certified;", text, flags=re.DOTALL)


def assert_same_numbers(found: Any, expected: Any) -> None:
    """Equal documents, numbers to 1e-9, the certificate and the way to it apart."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected.keys() - {"gradient_norm", "newton_decrement", "evaluations"}:
            assert_same_numbers(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for left, right in zip(found, expected, strict=True):
            assert_same_numbers(left, right)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    else:
        assert found == expected


@pytest.mark.parametrize("command", ["mediate", "mixed"])
def test_text_is_the_default(run: Run, csv: Path, frame: pd.DataFrame, command: str) -> None:
    """What summary() returns."""
    arguments = FIT if command == "mediate" else ("--formula", MEDIATOR)
    fit = mlmed.mediate(MEDIATOR, OUTCOME, frame) if command == "mediate" else mlmed.mixed(MEDIATOR, frame)
    status, out, err = run(command, csv, *arguments)
    assert (status, err) == (0, "")
    # gradient and decrement are rounding error, which moves with the memory layout of the columns
    assert without_rounding(out) == without_rounding(fit.summary() + "\n")
    assert without_rounding(run(command, csv, *arguments, "--format", "text")[1]) == without_rounding(out)


@pytest.mark.parametrize("command", ["mediate", "mixed"])
def test_stata_layout(run: Run, csv: Path, frame: pd.DataFrame, command: str) -> None:
    """What summary("stata") returns."""
    arguments = FIT if command == "mediate" else ("--formula", MEDIATOR)
    fit = mlmed.mediate(MEDIATOR, OUTCOME, frame) if command == "mediate" else mlmed.mixed(MEDIATOR, frame)
    status, out, err = run(command, csv, *arguments, "--format", "stata")
    assert (status, err) == (0, "")
    assert out == fit.summary("stata") + "\n"
    assert out.startswith("Mixed-effects REML regression")


def test_options_reach_the_fit(run: Run, csv: Path, frame: pd.DataFrame) -> None:
    """Method, covariance, vcov, level and treatment."""
    chosen = ("--method", "ml", "--covariance", "diagonal", "--vcov", "joint", "--level", "0.9", "--treatment", "x")
    document = json.loads(run("mediate", csv, *FIT, *chosen, "--format", "json")[1])
    fit = mlmed.mediate(MEDIATOR, OUTCOME, frame, method="ml", covariance="diagonal", treatment="x")
    table = fit.effects(vcov="joint", level=0.9).set_index("term")
    found = pd.DataFrame(document["effects"]).set_index("term")
    assert (document["method"], document["vcov"], document["level"]) == ("ml", "joint", 0.9)
    for column in ("estimate", "std_error", "conf_low"):
        assert found.loc["indirect", column] == pytest.approx(table.loc["indirect", column], rel=SAME)


@pytest.mark.parametrize("output", ["json", "csv", "text", "stata"])
def test_out_writes_what_would_be_printed(run: Run, csv: Path, tmp_path: Path, output: str) -> None:
    """The file has the text; the screen stays empty."""
    printed = run("mediate", csv, *FIT, "--format", output)[1]
    target = tmp_path / "result.txt"
    status, out, err = run("mediate", csv, *FIT, "--format", output, "--out", target)
    assert (status, out, err) == (0, "", "")
    assert target.read_text(encoding="utf-8") == printed


# -- files ---------------------------------------------------------------------------------------------------

WRITERS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    ".csv": lambda table, path: table.to_csv(path, index=False),
    ".csv.gz": lambda table, path: table.to_csv(path, index=False),
    ".tsv": lambda table, path: table.to_csv(path, index=False, sep="\t"),
    ".dta": lambda table, path: table.to_stata(path, write_index=False),
    ".sav": lambda table, path: pyreadstat.write_sav(table, str(path)),
    ".parquet": lambda table, path: table.to_parquet(path, index=False),
}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("gaps", [False, True])
def test_every_file_gives_the_same_json(run: Run, frame: pd.DataFrame, tmp_path: Path, suffix: str, gaps: bool) -> None:
    """All numbers but the rounding errors of the certificate, with and without missing values."""
    data = frame.assign(y=frame["y"].where(frame.index % 9 != 0)) if gaps else frame
    reference, file = tmp_path / "reference.csv", tmp_path / f"table{suffix}"
    data.to_csv(reference, index=False)
    WRITERS[suffix](data, file)
    expected = run("mediate", reference, *FIT, "--format", "json")
    found = run("mediate", file, *FIT, "--format", "json")
    assert expected[0] == 0
    assert (found[0], found[2]) == (expected[0], expected[2])
    assert_same_numbers(json.loads(found[1]), json.loads(expected[1]))
    assert ("36 of 320 rows left out (missing y: 36)" in found[2]) is gaps


def test_names_with_dots_and_spaces(run: Run, frame: pd.DataFrame, tmp_path: Path) -> None:
    """NA.std plain or in backticks, also as --treatment."""
    file = tmp_path / "dots.csv"
    frame.rename(columns={"x": "NA.std", "m": "my m"}).to_csv(file, index=False)
    expected = json.loads(run("mediate", _csv(frame, tmp_path), *FIT, "--format", "json")[1])["llf"]
    for x in ("NA.std", "`NA.std`"):
        formulas = (f"`my m` ~ {x} + (1 + {x} | id)", f"y ~ `my m` + {x} + (1 + `my m` + {x} | id)")
        status, out, err = run(
            "mediate", file, "--mediator", formulas[0], "--outcome", formulas[1], "--treatment", x, "--format", "json"
        )
        assert (status, err) == (0, "")
        assert json.loads(out)["llf"] == pytest.approx(expected, rel=SAME)


def _csv(frame: pd.DataFrame, folder: Path) -> Path:
    path = folder / "plain.csv"
    frame.to_csv(path, index=False)
    return path


def test_an_example_data_set_by_name(run: Run) -> None:
    """The model of the documentation on the shipped data."""
    status, out, err = run("mediate", *SHIPPED_FIT, "--format", "json")
    document = json.loads(out)
    assert (status, err) == (0, "")
    assert document["llf"] == pytest.approx(-2337.44202, abs=1e-5)
    effects = {row["term"]: row["estimate"] for row in document["effects"]}
    assert effects["indirect"] == pytest.approx(-0.12762, abs=1e-5)


def test_a_file_with_the_name_of_an_example_comes_first(
    run: Run, frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that exists is never taken for the name of an example: here it has no extension, so it is refused."""
    monkeypatch.chdir(tmp_path)
    frame.to_csv("yuan_mackinnon_sim", index=False)
    status, _, err = run("mediate", *SHIPPED_FIT)
    assert status == 2
    assert "extension" in err


@pytest.fixture(params=[".dta", ".sav"])
def labelled(request: pytest.FixtureRequest, frame: pd.DataFrame, tmp_path: Path) -> Path:
    """A condition of three levels, a scale of which the ends are labelled, a labelled response and treatment."""
    every = np.arange(len(frame))
    data = frame.assign(
        cond=every % 3.0, scale=1.0 + every % 5, agree=1.0 + (every * 7) % 11 % 3, arm=(every // 2) % 2.0
    )
    labels = {
        "cond": {0: "control", 1: "workshop", 2: "both"},
        "scale": {1: "never", 5: "always"},
        "agree": {1: "no", 2: "perhaps", 3: "yes"},
        "arm": {0: "usual", 1: "new"},
    }
    path = tmp_path / f"labelled{request.param}"
    if request.param == ".sav":
        pyreadstat.write_sav(data, str(path), variable_value_labels=labels)
    else:
        data.to_stata(path, write_index=False, value_labels=labels)
    return path


def estimates(out: str) -> dict[str, float]:
    """Fixed effects of a CSV."""
    table = pd.read_csv(io.StringIO(out))
    return dict(table[table["section"] == "fixef"][["term", "estimate"]].to_numpy().tolist())


def test_value_labels_are_levels_and_said(run: Run, labelled: Path) -> None:
    """Dummies of the codes; only columns of the model are spoken of; --codes keeps one slope."""
    command = ("mixed", labelled, "--formula", "m ~ cond + scale + (1 | id)", "--format", "csv")
    status, out, err = run(*command)
    assert status == 0
    assert "levels of cond (0 control, 1 workshop, 2 both); the first is the reference" in err
    assert "stayed numbers, because some value has no label or two have the same: scale (1 never, 5 always)" in err
    assert "agree" not in err
    data = pd.read_stata(labelled, convert_categoricals=False) if labelled.suffix == ".dta" else None
    data = pyreadstat.read_sav(str(labelled))[0] if data is None else data
    dummies = data.assign(one=(data["cond"] == 1) * 1.0, two=(data["cond"] == 2) * 1.0)
    expected = mlmed.mixed("m ~ one + two + scale + (1 | id)", dummies).params
    found = estimates(out)
    assert list(found) == ["Intercept", "cond[T.workshop]", "cond[T.both]", "scale"]
    np.testing.assert_allclose(list(found.values()), expected, rtol=SAME, atol=SAME)
    for codes in (("--codes",), ("--codes", "cond", "scale")):
        status, out, err = run(*command, *codes)
        assert (status, err) == (0, "")
        assert list(estimates(out)) == ["Intercept", "cond", "scale"]


def test_a_labelled_response_stays_a_number_and_that_is_said(run: Run, labelled: Path) -> None:
    status, out, err = run("mixed", labelled, "--formula", "agree ~ cond + (1 | id)", "--format", "csv")
    assert status == 0
    assert "labelled, but numbers are needed: agree" in err
    status, out, err = run("stack", labelled, "--x", "arm", "--m", "m", "--y", "y", "--cluster", "id")
    assert status == 0
    assert set(pd.read_csv(io.StringIO(out))["arm"]) == {0.0, 1.0}
    assert "labelled, but numbers are needed: arm" in err


def test_a_labelled_treatment_in_every_command(run: Run, labelled: Path, frame: pd.DataFrame) -> None:
    """Two levels: the effects of the codes 0 and 1."""
    asked = ("--mediator", "m ~ arm + (1 | id)", "--outcome", "y ~ m + arm + (1 | id)", "--format", "csv")
    for command, more in (("mediate", ()), ("piecewise", ()), ("causal", ("--contrast", "usual", "new"))):
        status, out, err = run(command, labelled, *asked, *more)
        assert status == 0, err
        assert "levels of arm (0 usual, 1 new)" in err
        numbers = run(command, labelled, *asked, "--codes")[1]
        left, right = (pd.read_csv(io.StringIO(text))["estimate"] for text in (out, numbers))
        np.testing.assert_allclose(left, right, rtol=1e-6)  # another parametrization of one model
    plain = ("--mediator", "m ~ x + (1 | id)", "--outcome", "arm ~ m + x + (1 | id)")
    assert run("causal", labelled, "--mediator", "m ~ x", "--outcome", "arm ~ m + x", "--family-y", "logit")[0] == 0
    assert "numbers are needed: arm" in run("compare", labelled, *plain)[2]
    scale = ("--location", "m ~ cond + (1 | id)", "--scale", "~ arm")
    assert "cond (0 control, 1 workshop, 2 both), arm (0 usual, 1 new)" in run("location-scale", labelled, *scale)[2]


@pytest.mark.parametrize(
    ("name", "encoding", "options"),
    [("utf-16", "utf-16", ()), ("latin-1", "latin-1", ("--encoding", "latin-1"))],
)
def test_semicolons_decimal_commas_and_encodings(
    run: Run, frame: pd.DataFrame, tmp_path: Path, name: str, encoding: str, options: tuple[str, ...]
) -> None:
    """The numbers of the plain file."""
    file = tmp_path / f"{name}.csv"
    frame.rename(columns={"x": "größe"}).to_csv(file, index=False, sep=";", decimal=",", encoding=encoding)
    status, out, err = run("mixed", file, "--formula", "m ~ größe + (1 | id)", "--format", "csv", *options)
    assert (status, err) == (0, "")
    expected = mlmed.mixed("m ~ x + (1 | id)", frame).params
    np.testing.assert_allclose(list(estimates(out).values()), expected, rtol=SAME)


@pytest.mark.parametrize(
    ("option", "source"),
    [("--encoding", "yuan_mackinnon_sim"), ("--missing", "yuan_mackinnon_sim"), ("--codes", "DATA")],
)
def test_options_of_other_files_are_refused(run: Run, csv: Path, option: str, source: str) -> None:
    arguments = ("mixed", csv if source == "DATA" else source, "--formula", MEDIATOR, option, "x")
    status, _, err = run(*arguments)
    assert status == 2
    assert f"{option.removeprefix('--')} is for files in" in err


# -- stack and datasets --------------------------------------------------------------------------------------


def test_stack(run: Run, csv: Path, frame: pd.DataFrame, tmp_path: Path) -> None:
    """CSV of mlmed.stack, on the screen and in a file."""
    roles = ("--x", "x", "--m", "m", "--y", "y", "--cluster", "id")
    status, out, err = run("stack", csv, *roles)
    assert (status, err) == (0, "")
    expected = mlmed.stack(frame, x="x", m="m", y="y", cluster="id")
    found = pd.read_csv(io.StringIO(out))
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-12)
    target = tmp_path / "stacked.csv"
    assert run("stack", csv, *roles, "--out", target) == (0, "", "")
    assert target.read_text() == out


def test_stack_with_covariates(run: Run, frame: pd.DataFrame, tmp_path: Path) -> None:
    """Several of them."""
    file = tmp_path / "more.csv"
    frame.assign(w=1.5, v=2.5).to_csv(file, index=False)
    out = run("stack", file, "--x", "x", "--m", "m", "--y", "y", "--cluster", "id", "--covariates", "w", "v")[1]
    assert {"sm_w", "sy_w", "sm_v", "sy_v"} <= set(out.splitlines()[0].split(","))


def test_datasets(run: Run, tmp_path: Path) -> None:
    """The list, one as CSV, and one into a file."""
    status, listed, _ = run("datasets")
    assert status == 0
    assert "yuan_mackinnon_sim" in listed
    status, out, _ = run("datasets", "yuan_mackinnon_sim")
    assert status == 0
    table = pd.read_csv(io.StringIO(out))
    assert table.shape == (1000, 4)
    target = tmp_path / "data.csv"
    assert run("datasets", "yuan_mackinnon_sim", "--out", target)[:2] == (0, "")
    assert target.read_text() == out
    assert run("mixed", target, "--formula", "Med ~ X + (1 | group)")[0] == 0


# -- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("mediate", "DATA", "--mediator", "m ~ xx + (1 | id)", "--outcome", OUTCOME), ("'xx'", "did you mean x")),
        (("mediate", "DATA", "--mediator", MEDIATOR, "--outcome", "y ~ x + (1 | id)"), ("mediator m", "add it")),
        (("mediate", "DATA", *FIT, "--treatment", "w"), ("treatment 'w'", "predictors are x")),
        (("mediate", "DATA", *FIT, "--level", "95"), ("level must be a proportion", "95")),
        (("mediate", "DATA", *FIT, "--level", "nan"), ("level must be a proportion",)),
        (("mediate", "DATA", *FIT, "--vcov", "joint", "--format", "stata"), ("vcov='block'",)),
        (("mixed", "DATA", "--formula", "m ~ x"), ("no random term", "(1 + x | id)")),
        (("mixed", "DATA", "--formula", "m + x"), ("one '~'",)),
        (("mixed", "nowhere.csv", "--formula", MEDIATOR), ("no file nowhere.csv", "Check the path")),
        (("mixed", "data.xlsx", "--formula", MEDIATOR), ("'.xlsx'", ".csv", ".parquet")),
        (("mixed", "yuan_mackinon_sim", "--formula", MEDIATOR), ("yuan_mackinon_sim", "yuan_mackinnon_sim")),
        (("mixed", ".", "--formula", MEDIATOR), (".",)),
        (("stack", "DATA", "--x", "x", "--m", "m", "--y", "y", "--cluster", "idd"), ("'idd'", "Did you mean 'id'")),
        (("stack", "DATA", "--x", "x", "--m", "x", "--y", "y", "--cluster", "id"), ("'x'", "different columns")),
        (("datasets", "yuan"), ("'yuan'", "yuan_mackinnon_sim")),
        (("mediate", "DATA", *FIT, "--out", "no/such/folder/out.txt"), ("cannot write", "check the folder")),
        (("mediate", "DATA", *FIT, "--out", "."), ("cannot write", "directory")),
        (("piecewise", "DATA", *FIT, "--format", "stata", "--level", "0.9"), ("leave out level",)),
        (("piecewise", "DATA", *FIT, "--interval", "product", "--seed", "1"), ("does not use seed",)),
        (("compare", "DATA", *FIT, "--plot", "picture.xyz"), ("cannot write the picture", "plot.png")),
        (("compare", "DATA", *FIT, "--plot", "no/such/folder/p.png"), ("cannot write", "check the folder")),
    ],
    ids=lambda value: " ".join(value)[:60],
)
def test_status_two_and_one_message(run: Run, csv: Path, arguments: tuple[str, ...], parts: tuple[str, ...]) -> None:
    """On standard error, starting with the program's name; nothing on standard output; no traceback."""
    status, out, err = run(*(csv if argument == "DATA" else argument for argument in arguments))
    assert status == 2
    assert out == ""
    assert err.startswith("mlmed: ")
    assert err.count("\n") == 1
    assert all(part in err for part in parts), err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("mediate",),
        ("mediate", "DATA", "--mediator", MEDIATOR),
        ("mediate", "DATA", *FIT, "--format", "html"),
        ("mediate", "DATA", *FIT, "--method", "bayes"),
        ("mediate", "DATA", *FIT, "--level", "high"),
        ("regress", "DATA"),
        ("stack", "DATA", "--x", "x"),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_wrong_usage(run: Run, csv: Path, arguments: tuple[str, ...]) -> None:
    """argparse's status is 2 as well, with the usage."""
    status, out, err = run(*(csv if argument == "DATA" else argument for argument in arguments))
    assert (status, out) == (2, "")
    assert "usage: mlmed" in err


def test_warnings_go_to_standard_error(run: Run, frame: pd.DataFrame, tmp_path: Path) -> None:
    """The result is printed, the status is 0, and the dropped rows are reported beside it."""
    file = tmp_path / "gaps.csv"
    frame.assign(id=frame["id"].where(frame.index >= 12), y=frame["y"].where(frame.index % 16 != 15)).to_csv(
        file, index=False
    )
    status, out, err = run("mediate", file, *FIT, "--format", "json")
    assert status == 0
    assert err.startswith("mlmed: warning: equation m: 12 of 320 rows left out (missing cluster id: 12)")
    assert "y: 20" in err
    assert json.loads(out)["n_clusters"] == 39
    assert any("12 of 320" in text for text in json.loads(out)["dropped"])


def test_a_boundary_fit_says_so(run: Run, tmp_path: Path) -> None:
    """is_singular in JSON, a warning on standard error, status 0; standard errors are null or noted."""
    rng = np.random.default_rng(5)
    flat = pd.DataFrame({"id": np.repeat(np.arange(30), 5), "x": rng.normal(size=150), "m": rng.normal(size=150)})
    flat["m"] -= flat.groupby("id")["m"].transform("mean")  # no variation between clusters is left
    flat.to_csv(tmp_path / "flat.csv", index=False)
    status, out, err = run("mixed", tmp_path / "flat.csv", "--formula", "m ~ x + (1 | id)", "--format", "json")
    assert status == 0
    assert json.loads(out)["is_singular"] is True
    assert "boundary (singular) fit" in err


def test_help_and_version(run: Run) -> None:
    """Status 0, with an example that runs."""
    status, out, _ = run("--version")
    assert (status, out.strip()) == (0, f"mlmed {mlmed.__version__}")
    status, out, _ = run("--help")
    assert status == 0
    assert "yuan_mackinnon_sim" in out
    for command in ("mediate", "mixed", "stack", "datasets"):
        assert command in out
        assert run(command, "--help")[0] == 0


def test_as_a_program(csv: Path, tmp_path: Path) -> None:
    """The exit status of the process, and a closed pipe."""
    command = [sys.executable, "-m", "mlmed.cli"]
    bad = subprocess.run(
        [*command, "mixed", str(csv), "--formula", "m ~ xx + (1 | id)"], capture_output=True, text=True, check=False
    )
    assert bad.returncode == 2
    assert bad.stderr.startswith("mlmed: column 'xx'")
    assert "Traceback" not in bad.stderr
    text = " ".join([*command, "datasets", "yuan_mackinnon_sim", "|", "head", "-1"])
    piped = subprocess.run(["bash", "-o", "pipefail", "-c", text], capture_output=True, text=True, check=False)
    assert piped.stdout == "group,X,Med,y\n"
    assert "Traceback" not in piped.stderr
    assert "Exception" not in piped.stderr


MODEL = ["--mediator", "Med ~ X + (1 + X | group)", "--outcome", "y ~ Med + X + (1 + Med + X | group)"]


def test_effects_with_any_interval(capsys):
    for options, interval, *detail in (
        ([], "delta"),
        (["--interval", "profile"], "profile"),
        (
            ["--interval", "monte-carlo", "--seed", "1", "-n", "500", "--vcov", "joint"],
            "monte-carlo",
            "vcov joint, n 500, seed 1",
        ),
        (["--interval", "bootstrap", "--seed", "1", "-n", "60", "--ends", "bc"], "bootstrap", "n 60, ends bc, seed 1"),
        (["--ddf", "kenward-roger"], "delta", "ddf kenward-roger"),
    ):
        command = ["mediate", "yuan_mackinnon_sim", *MODEL, *options]
        assert main([*command, "--table", "effects"]) == 0
        alone = capsys.readouterr().out.splitlines()
        assert alone[0] == f"effects, 95% intervals: {interval}" + "".join(f" ({text})" for text in detail)
        assert main(command) == 0
        whole = capsys.readouterr().out
        assert "\n".join(alone[1:]) in whole
        assert "indirect  -0.127620" in whole
        heading = next(line for line in whole.splitlines() if line.startswith("Effects"))
        made = "delta method, second order" if interval == "delta" else ", ".join([f"intervals: {interval}", *detail])
        assert made in heading
        assert ("Kenward and Roger" in heading) is ("--ddf" in options)
        assert ('vcov="joint" has' in whole) is (interval == "delta")


def test_effects_as_json_and_csv(capsys):
    """One document, and in it the effects that were asked for; or their rows alone."""
    command = ["mediate", "yuan_mackinnon_sim", *MODEL, "--interval", "profile", "--level", "0.95"]
    assert main([*command, "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["interval"], document["options"], document["vcov"]) == ("profile", {}, "block")
    assert main([*command, "--format", "json", "--table", "effects"]) == 0
    assert json.loads(capsys.readouterr().out) == document["effects"]
    rows = {row["term"]: row for row in document["effects"]}
    assert rows["indirect"]["conf_high"] == pytest.approx(-0.00502, abs=1e-5)
    assert main([*command, "--format", "csv", "--table", "effects"]) == 0
    alone = capsys.readouterr().out
    assert alone.startswith("term,estimate,std_error")
    assert main([*command, "--format", "csv"]) == 0
    assert [f"effects,{line}" for line in alone.splitlines()[1:]] == capsys.readouterr().out.splitlines()[-7:]


EVERY = {
    "mediate": ("--mediator", MEDIATOR, "--outcome", OUTCOME),
    "piecewise": ("--mediator", MEDIATOR, "--outcome", OUTCOME),
    "causal": ("--mediator", MEDIATOR, "--outcome", OUTCOME),
    "mixed": ("--formula", MEDIATOR),
    "location-scale": ("--location", "m ~ x + (1 | id)", "--scale", "~ x"),
}


@pytest.mark.parametrize("command", TABLES)
def test_csv_has_all_tables_and_table_is_one_of_them(run: Run, csv: Path, command: str) -> None:
    """One rule for every command that fits; the words of --table are the sections, and tables that stand alone."""
    whole = pd.read_csv(io.StringIO(run(command, csv, *EVERY[command], "--format", "csv")[1]))
    assert set(whole["section"]) == set(TABLES[command]) - set(ALONE)
    assert list(whole.columns[:3]) == ["section", "term", "estimate"]
    for name in set(TABLES[command]) - set(ALONE):
        one = ("--table", name, "--format")
        table = pd.read_csv(io.StringIO(run(command, csv, *EVERY[command], *one, "csv")[1]))
        expected = whole[whole["section"] == name]
        assert list(table["term"]) == list(expected["term"])
        np.testing.assert_array_equal(table["estimate"], expected["estimate"])
        assert [row["term"] for row in json.loads(run(command, csv, *EVERY[command], *one, "json")[1])] == list(
            table["term"]
        )
        text = run(command, csv, *EVERY[command], *one, "text")[1]
        assert text.startswith(f"{name}, 95% intervals")
        assert len(text.splitlines()) >= len(table) + 2


def test_one_table_is_no_stata_layout(run: Run, csv: Path) -> None:
    for command in ("mediate", "piecewise", "mixed"):
        name = TABLES[command][0]
        status, out, err = run(command, csv, *EVERY[command], "--format", "stata", "--table", name)
        assert (status, out, "leave out --table" in err) == (2, "", True)
    status, _, err = run("mediate", csv, *FIT, "--table", "effect")
    assert (status, "did you mean 'effects'" in err) == (2, True)
    status, _, err = run("mediate", csv, *FIT, "--format", "stata", "--interval", "profile")
    assert (status, "leave out interval" in err) == (2, True)


def test_a_model_without_effects_has_no_intervals_of_them(run: Run, csv: Path) -> None:
    """Errors are those of the other tables; an interval, which only effects use, is refused."""
    curve = ("--mediator", "m ~ x + I(x**2) + (1 | id)", "--outcome", "y ~ m * x + (1 | id)", "--treatment", "x")
    for command in ("mediate", "piecewise"):
        status, out, _ = run(command, csv, *curve, "--vcov", "CR0")
        assert (status, "No effects" in out) == (0, True)
        assert "effects" not in set(
            pd.read_csv(io.StringIO(run(command, csv, *curve, "--format", "csv")[1]))["section"]
        )
        status, out, err = run(command, csv, *curve, "--interval", "monte-carlo", "--seed", 1)
        assert (status, out) == (2, "")
        assert err.startswith("mlmed: ")


def test_effects_refuses_options_of_other_intervals(capsys):
    for options, told in (
        (["--interval", "profile", "--seed", "1"], "does not use seed"),
        (["--interval", "bootstrap", "--seed", "1", "--vcov", "block"], "does not use vcov"),
        (["--kind", "case"], "interval='delta' does not use kind"),
        (["--interval", "monte-carlo", "--seed", "1", "--ddf", "satterthwaite"], "does not use ddf"),
    ):
        for more in ([], ["--format", "json"], ["--format", "csv"], ["--table", "fixef"]):
            assert main(["mediate", "yuan_mackinnon_sim", *MODEL, *options, *more]) == 2
            assert told in capsys.readouterr().err


def test_degrees_of_freedom_in_the_summary(capsys):
    formula = ["--formula", "Med ~ X + (1 + X | group)"]
    assert main(["mixed", "yuan_mackinnon_sim", *formula, "--ddf", "kenward-roger"]) == 0
    text = capsys.readouterr().out
    assert "df: Kenward-Roger" in text
    assert re.search(r"^X .* 49\.00 ", text, re.MULTILINE)  # the column df
    assert "adjusted by Kenward and Roger" in text
