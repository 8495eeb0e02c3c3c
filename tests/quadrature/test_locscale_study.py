"""The study's verdicts are those of its tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from validation.locscale import run


def test_verdict_names_what_misses_a_bar() -> None:
    rows = {"term": ["a", "b", "c"], "bias_in_mc_errors": [-2.5, 1.9, 0.0], "coverage": [0.93, 0.97, 0.975]}
    said = run.verdict(pd.DataFrame(rows))
    assert "2 Monte Carlo errors: missed by a (-2.50)." in said
    assert "coverage of 93 to 97%: missed by c (97.5%)." in said
    assert run.verdict(pd.DataFrame(rows).iloc[[1]]).count("met by all") == 2


def test_every_condition_of_the_report_has_its_verdict() -> None:
    text = Path(run.__file__).with_name("report.md").read_text(encoding="utf-8")
    sections = text.split("\n## ")[1:]
    assert len(sections) == len(run.CONDITIONS)
    for section in sections:
        header, _, *rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
        table = pd.DataFrame(rows, columns=header).set_index("term").astype(float).reset_index()
        assert run.verdict(table) in section
