"""No formula runs code, reaches a file or costs more than a model: everything is refused before it is evaluated."""

from __future__ import annotations

import ast
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest

import mlmed
from mlmed.cli import main
from mlmed.errors import DataError, EffectError, FormulaError, MlmedError, MlmedWarning
from mlmed.limits import MAX_CHARACTERS
from tests.hostile.attacks import CODE, COST, FLAG, NLCOM

#: Events of the interpreter that no refused formula may cause. "exec" is any evaluation, also of harmless code.
FORBIDDEN = (
    "open", "exec", "import", "os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pty.", "tempfile.", "urllib.",
    "http.", "ftplib.", "pickle.", "marshal.", "sqlite3.", "glob.", "mmap.", "fcntl.", "signal.", "webbrowser.",
    "code.", "sys.addaudithook", "builtins.input", "builtins.breakpoint", "cpython.run", "gc.",
)  # fmt: skip
#: Seconds within which a formula is refused; the slowest takes .2 on an idle core.
AT_ONCE = 5.0

_seen: list[str] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is not None and event.startswith(FORBIDDEN):
        _seen.append(f"{event}{arguments!r:.200}")


sys.addaudithook(_hook)


@contextmanager
def watched(*allowed: str, also: str = "") -> Iterator[None]:
    """Nothing is run, opened, imported or connected inside; named files may be read, and one kind of events happen."""
    global _seen
    _seen = []
    try:
        yield
    finally:
        seen, _seen = _seen, None
    found = [event for event in seen if not any(path in event and "'r" in event for path in allowed)]
    found = [event for event in found if not also or not event.startswith(also)]
    assert not found, found


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    """Columns that the attacks name."""
    return _rows().copy()


@cache
def _rows() -> pd.DataFrame:
    made = mlmed.simulate.bpg(12, 5, seed=3).data
    rng = np.random.default_rng(0)
    return made.assign(
        w=rng.normal(size=len(made)), m1=rng.normal(size=len(made)), g=rng.choice(list("abc"), len(made))
    )


@pytest.fixture(scope="module")
def csv(data: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "rows.csv"
    data.to_csv(path, index=False)
    return path


MEDIATOR, OUTCOME = "m ~ x + (1 | id)", "y ~ m + x + (1 | id)"
#: Where a term can stand: what a user calls, with the term and the data.
MODES: dict[str, Callable[[str, pd.DataFrame], object]] = {
    "right": lambda term, d: mlmed.mixed(f"m ~ w + {term} + (1 | id)", d),
    "left": lambda term, d: mlmed.mixed(f"{term} ~ w + (1 | id)", d),
    "random": lambda term, d: mlmed.mixed(f"m ~ w + (1 + {term} | id)", d),
    "group": lambda term, d: mlmed.mixed(f"m ~ w + (1 | {term})", d),
    "several": lambda term, d: mlmed.mixed(["m ~ w + (1 |c| id)", f"y ~ {term} + (1 |c| id)"], d),
    "mediate": lambda term, d: mlmed.mediate(f"m ~ x + {term} + (1 | id)", OUTCOME, d, treatment="x"),
    "outcome": lambda term, d: mlmed.mediate(MEDIATOR, f"y ~ m + x + {term} + (1 | id)", d, treatment="x"),
    "treatment": lambda term, d: mlmed.mediate(MEDIATOR, OUTCOME, d, treatment=term),
    "piecewise": lambda term, d: mlmed.piecewise(f"m ~ x + {term} + (1 | id)", OUTCOME, d, treatment="x"),
    "total": lambda term, d: mlmed.piecewise(MEDIATOR, OUTCOME, d, total=f"y ~ x + {term} + (1 | id)"),
    "causal": lambda term, d: mlmed.causal("m ~ x", f"y ~ m + x + {term}", d, treatment="x"),
    "location": lambda term, d: mlmed.location_scale(f"m ~ w + {term} + (1 | id)", "~ 1", d),
    "scale": lambda term, d: mlmed.location_scale("m ~ w + (1 | id)", f"~ {term} + (1 | id)", d),
    "grams": lambda term, d: mlmed.grams(f"m ~ w + {term} + (1 | id)", d),
    "polars": lambda term, d: mlmed.mixed(f"m ~ w + {term} + (1 | id)", pl.from_pandas(d).lazy()),
    "duckdb": lambda term, d: mlmed.mixed(f"m ~ w + {term} + (1 | id)", duckdb.from_df(d)),
    "sql": lambda term, d: mlmed.api.grams.grams_sql(f"m ~ w + {term} + (1 | id)", duckdb.from_df(d)),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _warm(data: pd.DataFrame, csv: Path) -> None:
    """Whatever is imported on first use is imported before the watch begins."""
    for mode in MODES.values():
        for term in ("C(g)", "`not here`", "x.array"):
            with suppress(MlmedError), warnings.catch_warnings():
                warnings.simplefilter("ignore", MlmedWarning)
                mode(term, data)
    for options in COMMANDS.values():
        main([options[0], str(csv), *(option.format(term="`not here`") for option in options[1:])])


def _survivors(attack: Callable[[str], object], terms: list[str], *refusals: type[MlmedError]) -> list[str]:
    """Terms that were not refused, or not by one of these errors."""
    found = []
    for term in terms:
        try:
            attack(term)
        except refusals:
            continue
        except Exception as error:  # whatever else is raised is what this looks for
            found.append(f"{term}: {error!r}")
        else:
            found.append(term)
    return found


@pytest.mark.parametrize("mode", MODES)
def test_code_is_refused_before_it_runs(data: pd.DataFrame, mode: str) -> None:
    """Nothing is evaluated, whoever holds the rows and wherever the term stands; the data stay as they were."""
    with watched():
        # DataError: np.log alone is the name of a column that is not there
        assert not _survivors(lambda term: MODES[mode](term, data), CODE, FormulaError, DataError)
    pd.testing.assert_frame_equal(data, _rows())
    assert not Path(FLAG).exists()


def test_there_are_at_least_a_hundred_attacks() -> None:
    """And each stands once."""
    assert len(CODE) == len(set(CODE)) >= 200


#: Commands of the command line and what is said there.
COMMANDS = {
    "mixed": ("mixed", "--formula", "m ~ w + {term} + (1 | id)"),
    "mediate": (
        "mediate",
        "--mediator",
        "m ~ x + {term} + (1 | id)",
        "--outcome",
        "y ~ m + x + (1 | id)",
        "--treatment",
        "x",
    ),
    "causal": ("causal", "--mediator", "m ~ x", "--outcome", "y ~ m + x + {term}", "--treatment", "x"),
    "location-scale": ("location-scale", "--location", "m ~ w + (1 | id)", "--scale", "~ {term}"),
    "grams": ("grams", "--formula", "m ~ w + {term} + (1 | id)"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_line_runs_no_code(csv: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The table is read and nothing else; a message and no traceback."""
    options = COMMANDS[command]
    for term in CODE[::3]:
        with watched(str(csv)):
            code = main([options[0], str(csv), *(option.replace("{term}", term) for option in options[1:])])
        said = capsys.readouterr()
        assert (code, said.out) == (2, ""), term
        assert said.err.startswith("mlmed: "), term
    assert not Path(FLAG).exists()


def _limited(act: Callable[[], object], *refusals: type[MlmedError]) -> str:
    """The message of a refusal that comes at once."""
    began = time.perf_counter()
    with watched(), pytest.raises(refusals) as refused:
        act()
    assert time.perf_counter() - began < AT_ONCE
    assert len(str(refused.value)) < 2 * MAX_CHARACTERS  # ten million letters are not repeated
    return str(refused.value)


@pytest.mark.parametrize("mode", ["right", "random", "mediate", "causal", "scale", "duckdb"])
@pytest.mark.parametrize("name", COST)
def test_cost_is_refused_at_once(data: pd.DataFrame, mode: str, name: str) -> None:
    """Towers of powers, products of sums, splines of 100,000 columns, brackets: within seconds, with what to do."""
    said = _limited(lambda: MODES[mode](COST[name], data), FormulaError)
    assert any(word in said for word in ("make ", "write ", "change ", "check ")), said


@pytest.mark.parametrize("call", ["nlcom", "test", "profile", "piecewise", "causal", "location_scale", "labelled"])
@pytest.mark.parametrize("name", NLCOM)
def test_functions_of_estimates_run_no_code(fits: dict[str, Any], call: str, name: str) -> None:
    """``nlcom`` and what reads the same expressions."""
    text = NLCOM[name]
    asked: dict[str, Callable[[], object]] = {
        "nlcom": lambda: fits["mediate"].nlcom(text),
        "labelled": lambda: fits["mediate"].nlcom({"it": text}),
        "test": lambda: fits["mediate"].test(f"{text} = 0"),
        "profile": lambda: fits["mediate"].profile(text),
        "piecewise": lambda: fits["piecewise"].nlcom(text),
        "causal": lambda: fits["causal"].combined(text.replace("a", "acme") if len(text) < 1000 else text),
        "location_scale": lambda: fits["location_scale"].nlcom(text),
    }
    _limited(asked[call], EffectError)
    assert not Path(FLAG).exists()


@pytest.fixture(scope="module")
def fits(data: pd.DataFrame) -> dict[str, Any]:
    """One fit of every kind that reads expressions."""
    made = mlmed.simulate.bpg(40, 8, seed=3).data
    pair = "m ~ x + (1 | id)", "y ~ m + x + (1 | id)"
    found = {
        "mediate": mlmed.mediate(*pair, made),
        "piecewise": mlmed.piecewise(*pair, made),
        "causal": mlmed.causal("m ~ x", "y ~ m + x", made, treatment="x"),
        "location_scale": mlmed.location_scale("m ~ x + (1 | id)", "~ 1", made),
    }
    found["mediate"].nlcom("a*b")
    found["mediate"].test("a = 0")
    found["mediate"].profile("a")
    return found


def test_what_is_meant_by_the_same_functions(fits: dict[str, Any]) -> None:
    """The arithmetic of expressions against Python's own."""
    a, b = (fits["mediate"].effects().set_index("term").loc[name, "estimate"] for name in ("a", "b"))
    for text, expected in {
        "a*b": a * b,
        "-a + +b - 3/7": -a + b - 3 / 7,
        "(a + b)**2 / 4": (a + b) ** 2 / 4,
        "2**a": 2**a,
        "exp(a) - log(abs(b)) + sqrt(2)": np.exp(a) - np.log(abs(b)) + np.sqrt(2),
        "tanh(a)*atanh(.5)": np.tanh(a) * np.arctanh(0.5),
    }.items():
        assert fits["mediate"].nlcom(text).loc[0, "estimate"] == pytest.approx(expected, rel=1e-14)


#: Columns that are called like what formulas and Python have.
NAMES = [
    "np", "I", "C", "contr", "center", "log", "abs", "round", "__import__", "__builtins__", "__class__", "__doc__",
    "__FORMULAIC_STATE__", "__FORMULAIC_CONTEXT__", "__FORMULAIC_SPEC__", "open", "exec", "eval", "Treatment", "Sum",
    "Q", "lag", "mlmed_x", "self", "table", "data", "context", "Q_ff_Q", "Q_78_Q", "Q_6d79_Q", "aQ_78_Qb", "Q__Q",
    "Q_0_Q",  "np.log", "x.abs",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_columns_hide_nothing_and_are_found(data: pd.DataFrame, name: str) -> None:
    """A column called like a function, a module or mlmed's own code is a column, and the function stays itself."""
    made = mlmed.simulate.bpg(20, 5, seed=3).data
    made["p"] = np.exp(np.random.default_rng(1).normal(size=len(made)))
    text = "m ~ {} + I({}**2) + np.log(p) + I(abs(x)) + center(x) + C(k, contr.sum) + (1 | id)"
    made["k"] = np.arange(len(made)) % 3
    expected = mlmed.mixed(text.format("v", "v"), made.assign(v=made["y"]))
    renamed = made.rename(columns={"y": name})
    for spelling in {f"`{name}`", name}:
        fit = mlmed.mixed(text.format(spelling, f"`{name}`"), renamed)
        assert fit.llf == pytest.approx(expected.llf, rel=1e-12)
        assert fit.params.index[1] == name
        np.testing.assert_allclose(fit.predict(renamed), expected.predict(made.assign(v=made["y"])), rtol=1e-9)


@pytest.mark.parametrize("name", ["Q_78_Q", "Q_6d792078_Q", "__builtins__", "np", "open"])
def test_names_that_are_no_columns_are_none(data: pd.DataFrame, name: str) -> None:
    """Neither mlmed's code for a name nor a name of Python stands for anything else."""
    for text in (
        f"m ~ {name} + (1 | id)",
        f"m ~ I({name}) + (1 | id)",
        f"{name} ~ w + (1 | id)",
        f"m ~ w + (1 | {name})",
    ):
        with watched(), pytest.raises((DataError, FormulaError)):
            mlmed.mixed(text, data.assign(**{"my x": data["x"]}))


#: What may evaluate, make formulas, or import by name, and where it is.
ACCOUNTED = {
    ("parse", "syntax.py"),
    ("literal_eval", "effects/nlcom.py"),
    ("Formula", "formula.py"),
    ("import_module", "__init__.py"),
    ("import_module", "cli/commands.py"),
    ("import_module", "data/readers.py"),
    ("urlopen", "datasets/__init__.py"),
}
#: Functions of Python by their bare name; whatever has one of the others behind a dot.
BARE = {"eval", "exec", "compile", "__import__", "Formula", "breakpoint", "input"}
BEHIND = {
    "parse", "literal_eval", "get_model_matrix", "model_matrix", "stateful_eval", "from_spec", "import_module",
    "run_path", "run_module", "read_pickle", "to_pickle", "loadtxt", "genfromtxt", "fromfile", "system", "Popen",
    "check_output", "urlopen", "urlretrieve", "parse_expr", "sympify", "run_string",
}  # fmt: skip


def _named(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id if node.id in BARE | BEHIND else ""
    return node.attr if isinstance(node, ast.Attribute) and node.attr in BEHIND else ""


def test_every_place_that_could_evaluate_is_known() -> None:
    """Calls in the package that evaluate text, make formulas or unpickle; none but these."""
    root = Path(mlmed.__file__).parent
    found = set()
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and (name := _named(node.func)):
                found.add((name, path.relative_to(root).as_posix()))
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", "") or ""}
                assert not names & {"pickle", "marshal", "shelve", "subprocess", "runpy", "cloudpickle"}, path
    assert found == ACCOUNTED
