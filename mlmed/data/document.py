"""What the metadata of stored Grams must be: keys, types, sizes, and how they fit together.

A file can come from anywhere, so nothing in it is used before it has passed. Formulas are read by ``parse_equation``,
which knows what a formula may hold; everything else is data that nothing evaluates.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection
from typing import Any

from mlmed.data.predictors import coded_variables
from mlmed.errors import DataError
from mlmed.formula import Equation, formula_of, parse_equation, term_variables
from mlmed.names import display_name
from mlmed.options import shown

__all__ = ["SCHEMA", "checked_equations", "read_document"]

#: Name and version of the stored layout.
SCHEMA = "mlmed.grams/2"
#: Sizes that no formula, name or level of a model has.
LONGEST_TEXT, MOST_ITEMS = 100_000, 1_000_000
#: Whole numbers that are exact as floats.
LARGEST_WHOLE = 2**53

Check = Callable[[Any, str], None]


def _wrong(where: str, wanted: str, found: Any) -> DataError:
    return DataError(f"{where} must be {wanted}; found {shown(found)}")


def _text(value: Any, where: str) -> None:
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise _wrong(where, f"a text of at most {LONGEST_TEXT:,} letters", value)
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise _wrong(where, "a text that has an encoding", value)


def _whole(value: Any, where: str) -> None:
    if type(value) is not int or not 0 <= value <= LARGEST_WHOLE:
        raise _wrong(where, "a count", value)


def _number(value: Any, where: str) -> None:
    if type(value) not in (int, float) or not abs(value) <= 1.7e308:
        raise _wrong(where, "a finite number", value)


def _truth(value: Any, where: str) -> None:
    if type(value) is not bool:
        raise _wrong(where, "true or false", value)


def _scalar(value: Any, where: str) -> None:
    if isinstance(value, str):
        _text(value, where)
    elif type(value) is not bool:
        _number(value, where)


def _items(check: Check, *, least: int = 0, distinct: bool = False) -> Check:
    def items(value: Any, where: str) -> None:
        if not isinstance(value, list) or not least <= len(value) <= MOST_ITEMS:
            raise _wrong(where, f"a list of at least {least} and at most {MOST_ITEMS:,} items", value)
        for k, item in enumerate(value):
            check(item, f"{where}[{k}]")
        if distinct and len({json.dumps(item) for item in value}) < len(value):
            raise _wrong(where, "a list of different items", value)

    return items


def _mapping(check: Check) -> Check:
    def mapping(value: Any, where: str) -> None:
        if not isinstance(value, dict) or len(value) > MOST_ITEMS:
            raise _wrong(where, "a mapping", value)
        for key, item in value.items():
            _text(key, f"a key of {where}")
            check(item, f"{where}[{key!r}]")

    return mapping


def _record(**checks: Check) -> Check:
    def record(value: Any, where: str) -> None:
        if not isinstance(value, dict) or value.keys() != checks.keys():
            raise _wrong(where, f"a mapping with the keys {', '.join(checks)}", value)
        for key, check in checks.items():
            check(value[key], f"{where}.{key}")

    return record


_LAYOUT = _record(
    name=_text,
    fixed=_items(_text, least=1),
    random=_items(_text, least=1),
    fixed_at=_items(_whole, least=1),
    random_at=_items(_whole, least=1),
    response_at=_whole,
    terms=_items(_whole, least=1),
    typical=_mapping(_scalar),
    spread=_mapping(_number),
    levels=_mapping(_items(_scalar, least=1, distinct=True)),
    observed=_mapping(_items(_number, least=1, distinct=True)),
)
_DROPPED = _record(equation=_text, total=_whole, used=_whole, missing_cluster=_whole, missing=_mapping(_whole))
_DOCUMENT = _record(
    schema=_text,
    digest=_text,
    equations=_items(_text, least=1),
    names=_items(_text, least=1, distinct=True),
    columns=_items(_text, least=2),
    variables=_items(_text, least=1, distinct=True),
    group=_items(_text, least=1, distinct=True),
    shift=_items(_number, least=2),
    scale=_items(_number, least=2),
    patterns=_items(_items(_truth, least=1), least=1, distinct=True),
    total=_whole,
    layouts=_items(_LAYOUT, least=1),
    dropped=_items(_DROPPED),
)


def read_document(raw: bytes) -> dict[str, Any]:
    """The metadata as a mapping whose keys and types are those that ``save`` writes.

    Raises
    ------
    DataError
        If they are not, or it is no JSON (NaN and keys that are there twice are none either).
    """
    try:
        document = json.loads(raw, parse_constant=_refuse_constant, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise DataError(f"its metadata are no JSON ({error})") from error
    version = document.get("schema") if isinstance(document, dict) else None
    if version == "mlmed.grams/1":
        raise DataError(
            f"it was written by an earlier version (schema {version!r}), without the digest that shows damage"
        )
    if version != SCHEMA:
        raise _wrong("its schema", repr(SCHEMA), version)
    _DOCUMENT(document, "metadata")
    return dict(document)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def checked_equations(document: dict[str, Any]) -> tuple[Equation, ...]:
    """The equations of a document, whose parts are found to belong to them; formulas come first.

    Raises
    ------
    FormulaError
        If a formula is none that may be read.
    DataError
        If something else does not fit to the equations.
    """
    asked = tuple(parse_equation(text, document["variables"]) for text in document["equations"])
    names = [equation.name for equation in asked]
    if not document["names"] == names == [layout["name"] for layout in document["layouts"]]:
        raise _wrong("names", f"those of the responses, {names}", document["names"])
    variables = sorted(frozenset().union(*(equation.variables for equation in asked)))
    if document["variables"] != variables:
        raise _wrong("variables", f"those of the equations, {variables}", document["variables"])
    if any(set(term.group) != set(document["group"]) for equation in asked for term in equation.random):
        raise _wrong("group", "the cluster variable of the equations", document["group"])
    _check_columns(document)
    for equation, layout in zip(asked, document["layouts"], strict=True):
        _check_layout(equation, layout, len(document["columns"]))
        _check_variables(equation, layout)
    _check_dropped(document)
    return asked


def _check_columns(document: dict[str, Any]) -> None:
    K, R = len(document["columns"]), len(document["names"])
    shift, scale, patterns = document["shift"], document["scale"], document["patterns"]
    if not len(shift) == len(scale) == K:
        raise _wrong("shift and scale", f"one number for each of the {K} columns", (len(shift), len(scale)))
    if min(scale) <= 0 or (shift[0], scale[0]) != (0, 1):
        raise _wrong(
            "shift and scale", "positive scales, and 0 and 1 for the constant", (shift[0], scale[0], min(scale))
        )
    if any(len(pattern) != R or not any(pattern) for pattern in patterns):
        raise _wrong("patterns", f"lists of {R} truth values, one of them true", patterns)
    if not all(any(pattern[r] for pattern in patterns) for r in range(R)):
        raise _wrong("patterns", "such that every equation has rows", patterns)
    used = {0}.union(*({at["response_at"], *at["fixed_at"], *at["random_at"]} for at in document["layouts"]))
    if used != set(range(K)):
        raise _wrong("positions of columns", f"the numbers from 0 to {K - 1}", sorted(used))


def _check_layout(equation: Equation, layout: dict[str, Any], K: int) -> None:
    """Lengths, positions of the constant and of the response, numbers of random terms."""
    where = f"layout of {equation.name}"
    for part in ("fixed", "random"):
        labels, positions = layout[part], layout[f"{part}_at"]
        if len(labels) != len(positions) or any(
            (label == "Intercept") != (at == 0) for label, at in zip(labels, positions, strict=False)
        ):
            raise _wrong(f"{part} of the {where}", "labels with a position each, 0 for the intercept alone", positions)
    if layout["response_at"] in (0, *layout["fixed_at"], *layout["random_at"]):
        raise _wrong(f"response_at of the {where}", "a column of its own", layout["response_at"])
    terms = layout["terms"]
    if (
        len(terms) != len(layout["random"])
        or sorted(set(terms)) != list(range(len(equation.random)))
        or terms != sorted(terms)
    ):
        raise _wrong(f"terms of the {where}", f"the numbers of {len(equation.random)} random terms in order", terms)


def _check_variables(equation: Equation, layout: dict[str, Any]) -> None:
    """Every predictor is a number with a spread or a factor with levels, as many as there are columns for."""
    where = f"layout of {equation.name}"
    numbers, factors, own = layout["spread"].keys(), layout["levels"].keys(), equation.predictors
    if layout["typical"].keys() != own or numbers | factors != own or numbers & factors:
        raise _wrong(f"typical, spread and levels of the {where}", f"those of {sorted(own)}", sorted(layout["typical"]))
    if any(value < 0 for value in layout["spread"].values()):
        raise _wrong(f"spread of the {where}", "at least 0", layout["spread"])
    if not all(type(layout["typical"][name]) in (int, float) for name in numbers):
        raise _wrong(f"typical of the {where}", "numbers where there is a spread", layout["typical"])
    for name, known in layout["levels"].items():
        kinds = {"number" if type(level) in (int, float) else type(level).__name__ for level in known}
        if len(kinds) > 1 or layout["typical"][name] not in known:
            raise _wrong(f"levels of {name} of the {where}", "of one kind, the typical one among them", known)
    if not layout["observed"].keys() <= numbers or any(
        values != sorted(values) for values in layout["observed"].values()
    ):
        raise _wrong(f"observed of the {where}", "ascending values of numbers", layout["observed"])
    _refuse_too_many(equation, layout, where)


def _refuse_too_many(equation: Equation, layout: dict[str, Any], where: str) -> None:
    """A term has at least the product of its factors' levels less one as columns; encoding it costs time and memory."""
    levels, coded = layout["levels"], coded_variables(equation)
    for text, labels in (
        (equation.fixed, layout["fixed"]),
        *((term.formula, layout["random"]) for term in equation.random),
    ):
        for term in formula_of(text):
            bare = {display_name(factor.expr) for factor in term.factors if factor.eval_method.value == "lookup"}
            factors = (bare | (term_variables(term) & coded)) & levels.keys()
            if math.prod(len(levels[name]) - 1 for name in factors) > len(labels):
                raise _wrong(
                    f"levels of {sorted(factors)} of the {where}", f"as few as {len(labels)} columns have", "more"
                )


def _check_dropped(document: dict[str, Any]) -> None:
    names: Collection[str] = [part["equation"] for part in document["dropped"]]
    if len(set(names)) < len(names) or not set(names) <= set(document["names"]):
        raise _wrong("dropped", "parts of different equations", names)
    for part in document["dropped"]:
        counts = (part["used"], part["missing_cluster"], *part["missing"].values())
        if part["total"] != document["total"] or max(counts) > part["total"] or sum(counts) < part["total"]:
            raise _wrong(f"dropped of {part['equation']}", f"counts of {document['total']} rows", part)
        if not part["missing"].keys() <= set(document["variables"]):
            raise _wrong(f"dropped of {part['equation']}", "about variables of the equations", sorted(part["missing"]))
