"""The numbers that travel with the package: published ones, every digit as it was printed, and references."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

__all__ = ["published", "reference"]


def published(name: str) -> dict[str, Any]:
    """Numbers printed in a source document; text, so that the printed digits are known.

    Examples
    --------
    >>> published("gpa")["lmer"]["reml_criterion"]
    '261'
    """
    return _load("published", name)


def reference(name: str) -> dict[str, Any]:
    """Numbers of other software, with its version.

    Examples
    --------
    >>> reference("sleepstudy")["software"].split()[0]
    'lme4'
    """
    return _load("reference", name)


def _load(kind: str, name: str) -> dict[str, Any]:
    text = resources.files("mlmed.reproduce").joinpath(kind, f"{name}.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded
