"""What starting costs: which modules ``import mlmed`` and ``mlmed --version`` load, and that nothing is lost by it.

Modules are counted, not seconds: a list of modules is the same on every machine.
"""

from __future__ import annotations

import ast
import graphlib
import inspect
import pickle
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import mlmed
from mlmed.cli.commands import COMMANDS, function, make_parser
from mlmed.cli.options import OPTIONS

#: None of these is needed to say which version this is.
HEAVY = {"pandas", "scipy", "numpy", "formulaic", "narwhals", "statsmodels", "numdifftools", "joblib", "matplotlib"}
ROOMS = {
    "reproduce",
    "simulate",
    "modes",
    "report",
    "effects",
    "glm",
    "locscale",
    "reml",
    "data",
    "datasets",
    "formula",
}
SHOW = "import sys; print('\\n'.join(sys.modules), file=sys.stderr)"


def loaded(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after some code."""
    done = subprocess.run([sys.executable, "-c", f"{code}\n{SHOW}"], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def run_with(*options: str) -> str:
    """Code that runs the command line and survives its exit."""
    call = f"try:\n    main({list(options)!r})\nexcept SystemExit as end:\n    assert end.code == 0"
    return f"from mlmed.cli import main\n{call}"


@pytest.mark.parametrize(
    "code", ["import mlmed", run_with("--version"), run_with("--help")], ids=["import", "version", "help"]
)
def test_starting_loads_neither_engine_nor_libraries(code):
    found = loaded(code)
    assert "mlmed" in found
    assert not found & HEAVY
    assert not found & {f"mlmed.{room}" for room in ROOMS}


def test_the_first_use_of_a_name_pays_for_it_alone():
    """Data sets need pandas and no engine; one equation needs neither the published examples nor simulations."""
    found = loaded("import mlmed; mlmed.datasets.names()")
    assert "mlmed.datasets" in found
    assert not found & {"scipy", "formulaic", "mlmed.results", "mlmed.lmm"}
    found = loaded("import mlmed; mlmed.mixed")
    assert not found & {"mlmed.reproduce", "mlmed.simulate", "mlmed.api.location_scale", "mlmed.api.causal"}


def imported(path: Path, root: Path) -> set[str]:
    """Modules of mlmed that are loaded with a module: what it imports outside of functions and TYPE_CHECKING."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mlmed":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if is_module(inner, root) else str(node.module))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("mlmed.")}
    return found


def is_module(name: str, root: Path) -> bool:
    place = root.parent.joinpath(*name.split("."))
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


def test_any_module_can_be_the_first():
    """No module is loaded in a circle, so it does not matter which public name is used first."""
    root = Path(mlmed.__file__).parent
    graph = {}
    for path in root.rglob("*.py"):
        parts = ("mlmed", *path.relative_to(root).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        graph[name] = imported(path, root) - {"mlmed"}
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert set(order) == set(graph)
    assert order.index("mlmed.errors") < order.index("mlmed.api.mediate")


def test_a_star_import_and_dir_have_every_name():
    code = """
import mlmed
assert set(mlmed.__all__) <= set(dir(mlmed))
from mlmed import *
for name in mlmed.__all__:
    assert globals()[name] is getattr(mlmed, name), name
import mlmed.replication, mlmed.simulate.study
assert callable(mlmed.replicate) and callable(mlmed.stack) and callable(mlmed.grams) and callable(mlmed.mixed)
"""
    assert "mlmed.simulate" in loaded(code)


def test_names_are_what_their_modules_have():
    assert inspect.isfunction(mlmed.mediate)
    assert mlmed.mediate.__module__ == "mlmed.api.mediate"
    assert inspect.isfunction(mlmed.replicate)
    assert inspect.isclass(mlmed.Results)
    assert inspect.ismodule(mlmed.datasets)
    assert inspect.isfunction(mlmed.simulate.bpg)
    with pytest.raises(AttributeError, match="module 'mlmed' has no attribute 'mediator'"):
        mlmed.mediator  # noqa: B018
    assert not hasattr(mlmed, "mediator")


def test_the_stub_says_the_same():
    """Type checkers read __init__.pyi: the same names from the same modules."""
    root = Path(mlmed.__file__).parent
    stub = ast.parse((root / "__init__.pyi").read_text(encoding="utf-8"))
    said = {
        alias.asname: node.module
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert sorted({*said, "__version__"}) == mlmed.__all__
    for name, module in said.items():
        whole = f"{module}.{name}" if module == "mlmed" else module
        assert whole in sys.modules or __import__(whole)
        target = sys.modules[whole]
        assert getattr(mlmed, name) is (target if module == "mlmed" else getattr(target, name))


def test_help_lists_the_public_functions():
    text = pydoc.plain(pydoc.render_doc(mlmed))
    for name in ("mediate(", "class Results", "replicate("):
        assert name in text


def test_functions_and_results_travel():
    fit = mlmed.mixed("Med ~ X + (1 | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    again = pickle.loads(pickle.dumps(fit))
    assert again.llf == fit.llf
    assert pickle.loads(pickle.dumps(mlmed.mediate)) is mlmed.mediate


def test_every_command_has_options_and_a_function():
    assert list(OPTIONS) == list(COMMANDS)
    for name in COMMANDS:
        assert callable(function(name))
        with pytest.raises(SystemExit) as end:
            make_parser().parse_args([name, "--help"])
        assert end.value.code == 0
