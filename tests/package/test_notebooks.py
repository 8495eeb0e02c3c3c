"""The notebooks of ``examples/`` run, in fewer replicates, and print what is stored in them; no Jupyter is needed."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.ipynb"))
#: The line that says how many data sets are drawn, and the one that takes its place.
MANY, FEW = "N = 200", "N = 3"


def code_cells(path: Path) -> list[dict[str, Any]]:
    """Cells with code, their lines joined."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [{**cell, "source": "".join(cell["source"])} for cell in cells if cell["cell_type"] == "code"]


def stored_text(cell: dict[str, Any]) -> str:
    """What a cell printed when the notebook was made."""
    return "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_were_run_from_top_to_bottom(path):
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_run(path, dataset, capsys):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cells = code_cells(path)
    if any("ml_sim" in cell["source"] for cell in cells):
        dataset("ml_sim")
    assert sum(MANY in cell["source"] for cell in cells) == 1
    namespace: dict[str, object] = {"__name__": "notebook"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for cell in cells:
            exec(compile(cell["source"].replace(MANY, FEW), path.name, "exec"), namespace)
            printed = capsys.readouterr().out
            if "n=N" not in cell["source"]:  # the others depend on the number of data sets
                assert printed == stored_text(cell)
    assert len(plt.get_fignums()) == sum("image/png" in str(cell["outputs"]) for cell in cells)
    plt.close("all")
