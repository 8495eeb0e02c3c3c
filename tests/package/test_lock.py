"""The lock of the rebuild sees what it should: a number, a word, a name. Deleted with ``validation/lock``."""

from __future__ import annotations

import warnings

import pandas as pd
import pytest

from validation.lock import gather as gathering
from validation.lock.adapter import Asked, Fit
from validation.lock.cases import Case, joint, small
from validation.lock.compare import Compared, Renames, Tolerances, compare
from validation.lock.gather import gather
from validation.lock.outputs import one
from validation.lock.store import Stored, read, write

#: A fit of simulated rows at the boundary: effects, tables, texts, a warning; and what is changed in it.
CASE = "singular"
QUESTIONS = (
    one("effects", vcov="block"),
    one("glance"),
    one("vcov", "block"),
    one("ranef"),
    one("deviance"),
    one("summary", vcov="block"),
)
EFFECTS = f"{CASE} / {QUESTIONS[0].name}"
MOVED = 1e-10


def everything() -> Stored:
    """What the case answers now."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathering, "CASES", {CASE: Case(joint(small), QUESTIONS)})
        found = gather(CASE)
    assert not found.crashes
    return Stored({}, found.numbers, found.texts)


@pytest.fixture(scope="module")
def before() -> Stored:
    return everything()


def against(before: Stored, today: Stored, **rules: object) -> Compared:
    return compare(before, today, Renames(rules), Tolerances.load())


def with_effects(monkeypatch: pytest.MonkeyPatch, change) -> Stored:
    """Everything again, one table of effects changed on its way."""
    true = gathering.ask

    def asked(of: Fit, question: Asked):
        answer = true(of, question)
        return change(answer) if question.name == EFFECTS.partition(" / ")[2] else answer

    monkeypatch.setattr(gathering, "ask", asked)
    return everything()


def test_the_same_again(before):
    """Every number to the last bit, every text; a refused question and a warning are among them."""
    today = everything()
    assert len(before.numbers) > 300
    assert {name: one.value for name, one in today.numbers.items() if one.value == one.value} == {
        name: one.value for name, one in before.numbers.items() if one.value == one.value
    }
    found = against(before, today)
    assert not found.numbers
    assert not found.texts
    assert any(name.endswith("/ warnings") and "BoundaryWarning" in text for name, text in before.texts.items())
    assert any(name.endswith("/ refused") for name in before.texts)


@pytest.mark.parametrize("column", ["estimate", "std_error", "conf_low"])
def test_an_effect_that_moved(before, monkeypatch, column):
    """By 1e-10 of itself."""

    def moved(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(**{column: table[column].where(table["term"] != "a", table[column] * (1 + MOVED))})

    found = against(before, with_effects(monkeypatch, moved))
    assert [one.path for one in found.numbers] == [f"{EFFECTS} / [a] / .{column}"]
    assert not found.texts


def test_a_row_that_is_missing(before, monkeypatch):
    found = against(before, with_effects(monkeypatch, lambda table: table[table["term"] != "total"]))
    assert {one.path.rpartition(" / ")[0] for one in found.numbers} == {f"{EFFECTS} / [total]"}
    assert f"{EFFECTS} / rows" in [one.path for one in found.texts]


def test_a_warning_with_other_words(before, monkeypatch):
    """Its text, and one that was not there."""

    def again(table: pd.DataFrame) -> pd.DataFrame:
        warnings.warn("words", UserWarning, stacklevel=2)
        return table

    today = with_effects(monkeypatch, again)
    name = f"{CASE} / fit / warnings"
    today.texts[name] = today.texts[name].replace("boundary", "edge", 1)
    found = against(before, today)
    assert not found.numbers
    assert [one.path for one in found.texts] == [name, f"{EFFECTS} / warnings"]
    assert "new: UserWarning: words" in found.texts[1].what


def test_layout_is_told_apart(before):
    name = f"{CASE} / summary(vcov=block)"
    today = Stored({}, before.numbers, {**before.texts, name: before.texts[name].replace("  ", "   ")})
    found = against(before, today)
    assert [one.path for one in found.layout] == [name]
    assert not found.texts


def test_names_that_changed(before, monkeypatch):
    """A column and a label; without the rules both are missing."""

    def renamed(table: pd.DataFrame) -> pd.DataFrame:
        return table.rename(columns={"conf_low": "low"}).replace({"term": {"cov_ab": "cov(a,b)"}})

    today = with_effects(monkeypatch, renamed)
    assert len(against(before, today).numbers) > 10
    here = {name: one for name, one in before.numbers.items() if name.startswith(EFFECTS)}
    texts = {name: one for name, one in before.texts.items() if name.startswith(EFFECTS)}
    rules = {"columns": {"conf_low": "low"}, "labels": {"cov_ab": "cov(a,b)"}}
    now = Stored(
        {},
        {name: one for name, one in today.numbers.items() if name.startswith(EFFECTS)},
        {name: one for name, one in today.texts.items() if name.startswith(EFFECTS)},
    )
    found = against(Stored({}, here, texts), now, **rules)
    assert not found.numbers
    assert not found.texts


def test_patterns_and_what_is_gone(before):
    """Every label of an equation's term at once; what is gone is counted."""
    rule = {"in": "labels", "find": r"\b([my]):(\w+)", "replace": r"\1~\2"}
    renames = Renames({"patterns": [rule], "gone": {f"{CASE} / glance / *": "is told elsewhere"}})
    assert renames.path(f"{CASE} / vcov(block) / [cov(m:x,y:m)] / [y:x]").endswith("[cov(m~x,y~m)] / [y~x]")
    numbers = {renames.path(name): one for name, one in before.numbers.items() if "/ glance /" not in name}
    found = compare(before, Stored({}, numbers, {}), renames, Tolerances.load())
    assert not found.numbers
    assert found.gone > 5


def test_written_and_read(before, tmp_path):
    """Numbers to the last bit."""
    write(before, tmp_path / "lock.json.xz")
    found = against(read(tmp_path / "lock.json.xz"), before)
    assert not found.numbers
    assert not found.texts


def test_the_store_says_what_it_is():
    stored = read()
    assert stored.about["what"].startswith("lock")
    assert len(stored.numbers) > 100_000
