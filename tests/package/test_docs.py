"""The examples of the documents run, each document in one namespace and a folder of its own."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md"])
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def python_blocks(text: str) -> list[str]:
    """Code blocks, except those that say that they were not run here, or that belong to a session elsewhere."""
    found = []
    for hit in BLOCK.finditer(text):
        before = "\n".join(text[: hit.start()].rstrip().splitlines()[-3:])
        if "not run here" not in before and "not run here" not in hit[1]:
            found.append(hit[1])
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_examples_run(document: Path, dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in them raises; what they print is compared by people."""
    text = document.read_text(encoding="utf-8")
    if "ml_sim" in "".join(python_blocks(text)):
        dataset("ml_sim")
    draws = ".savefig(" in "".join(python_blocks(text))
    if draws:
        pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "document"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for code in python_blocks(text):
            exec(compile(code, document.name, "exec"), namespace)
    if draws:
        pytest.importorskip("matplotlib.pyplot").close("all")  # other tests count the figures that are open


def test_links_point_at_files() -> None:
    """Relative links of every document exist."""
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_equation_numbers_exist() -> None:
    """Every equation that a comment names is in docs/math.md."""
    numbered = set(re.findall(r"\\tag\{(\d+)[a-z]?\}", (ROOT / "docs/math.md").read_text(encoding="utf-8")))
    for path in (ROOT / "mlmed").rglob("*.py"):
        for text in re.findall(r"\beq\. (\d+)", path.read_text(encoding="utf-8")):
            assert text in numbered, f"{path.name}: eq. {text}"
