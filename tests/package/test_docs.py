"""The examples of the documents run, each document in one namespace and folder, and print what stands below them."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md"])
#: Code, and its output: a block of text, or indented lines.
BLOCK = re.compile(r"```python\n(.*?)```(?:\s*```text\n(.*?)```|\n\n((?:    [^\n]*\n|\n)+))?", re.DOTALL)
#: How a document marks code that is not run, and output that is cut, depends on the machine, or comes from a script.
NOT_RUN, NOT_COMPARED = "not run here", "not compared"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
#: Digits that every machine prints; and below what size a number with an exponent is a rounding error.
DIGITS, NOISE = 1e-9, 1e-6


@dataclass(frozen=True)
class Block:
    """Code, and the output that stands below it; none where nothing is promised."""

    code: str
    printed: str | None


def python_blocks(text: str) -> list[Block]:
    """Code blocks, except those that say that they were not run here, or that belong to a session elsewhere."""
    found = []
    for hit in BLOCK.finditer(text):
        before = "\n".join(text[: hit.start()].rstrip().splitlines()[-3:])
        if NOT_RUN in before or NOT_RUN in hit[1]:
            continue
        printed = hit[2] or hit[3] or ""
        found.append(Block(hit[1], printed if printed.strip() and NOT_COMPARED not in before else None))
    return found


def same_number(left: str, right: str) -> bool:
    """Equal but for one unit of the last digit that the document has."""
    one, other = float(left), float(right)
    mantissa, _, exponent = left.partition("e")
    if exponent and max(abs(one), abs(other)) < NOISE:
        return True
    unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2])) if "." in mantissa or exponent else 0.0
    return abs(one - other) <= max(1.001 * unit, DIGITS * abs(one))


def same_output(expected: str, found: str) -> bool:
    """Whether two outputs have the same words and numbers, wherever lines break."""
    if NUMBER.sub("#", expected).split() != NUMBER.sub("#", found).split():
        return False
    pairs = zip(NUMBER.findall(expected), NUMBER.findall(found), strict=True)
    return all(same_number(left, right) for left, right in pairs)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_examples_run(document: Path, dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in them raises, and what they print is what the document shows."""
    text = document.read_text(encoding="utf-8")
    blocks = python_blocks(text)
    if any("ml_sim" in block.code for block in blocks):
        dataset("ml_sim")
    draws = any(".savefig(" in block.code for block in blocks)
    if draws:
        pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "document"}
    stale = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for block in blocks:
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(compile(block.code, document.name, "exec"), namespace)
            if block.printed is not None and not same_output(block.printed, output.getvalue()):
                stale.append(f"{block.code}\nshows\n{block.printed}\nand prints\n{output.getvalue()}")
    if draws:
        pytest.importorskip("matplotlib.pyplot").close("all")  # other tests count the figures that are open
    assert not stale, "\n\n".join(stale)


def test_outputs_are_compared_to_the_digits_shown() -> None:
    """Lines may break elsewhere, and the last digit may round the other way; nothing else may differ."""
    assert same_output("a  -0.06\nb 1.5e-03", "a -0.06 b\n1.5e-03")
    assert same_output("x 0.25", "x 0.26")
    assert not same_output("x 0.25", "x 0.27")
    assert not same_output("21 starts", "36 starts")
    assert not same_output("a 0.25", "b 0.25")
    assert not same_output("a 0.25", "a 0.25 0.3")
    assert same_output("-960424.3613133661", "-960424.3613133666")
    assert same_output("gradient 2e-09", "gradient 7e-11")
    assert not same_output("gradient 2e-03", "gradient 7e-03")


def test_most_outputs_are_compared() -> None:
    """The marks are exceptions."""
    found = [block for path in DOCUMENTS for block in python_blocks(path.read_text(encoding="utf-8"))]
    assert sum(block.printed is not None for block in found) > 40


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
