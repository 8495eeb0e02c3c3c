"""``repr`` of results, and of what they hold: a line, not the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.text import LONGEST, Compact

#: Letters of a result, whatever the number of rows, with formulas of the length that they have here.
SHORT = 250
#: Arrays of the mixed-model engine behind ``fit.fit``, which are shown as numpy shows them.
ENGINE = "mlmed.lmm"


def _data(J: int = 25, n: int = 20) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(J), n)
    x, e, f = rng.standard_normal((3, len(g)))
    u, v, t = rng.standard_normal((3, J))
    w = np.repeat(rng.standard_normal(J), n)
    m = 0.5 * x + 0.3 * w + u[g] + e
    y = 0.4 * m + 0.2 * x + v[g] + np.exp(0.4 * t[g]) * f
    return pd.DataFrame({"id": g, "x": x, "w": w, "m": m, "y": y, "wm": np.repeat(w[::n] + u, n)})


def _location_scale() -> Any:
    return mlmed.location_scale("y ~ x + (1 | id)", "~ 1 + (1 | id)", _data(), nodes=5)


def _mediate() -> Any:
    return mlmed.mediate("m ~ x + (1 | id)", "y ~ m + x + (1 | id)", _data())


def _causal(random: str = "") -> Any:
    return mlmed.causal(f"m ~ x{random}", f"y ~ m + x{random}", _data())


RESULTS: dict[str, Callable[[], Any]] = {
    "mixed": lambda: mlmed.mixed("y ~ x + (1 | id)", _data()),
    "mediate": _mediate,
    "piecewise": lambda: mlmed.piecewise("m ~ x + (1 | id)", "y ~ m + x + (1 | id)", _data()),
    "piecewise 2-2-1": lambda: mlmed.piecewise("wm ~ w", "y ~ wm + w + (1 | id)", _data()),
    "causal": _causal,
    "causal, mixed": lambda: _causal(" + (1 | id)"),
    "location_scale": _location_scale,
    "bootstrap": lambda: _mediate().bootstrap(3, seed=1),
    "causal bootstrap": lambda: _causal().bootstrap(3, seed=1),
    "profile": lambda: _mediate().profile("a"),
    "test": lambda: _mediate().test("a = 0"),
    "influence": lambda: _mediate().influence(),
    "sensitivity": lambda: _causal().sensitivity(),
    "compare": lambda: mlmed.compare(_mediate()),
    "grams": lambda: mlmed.grams("y ~ x + (1 | id)", _data()),
    "bpg": lambda: mlmed.simulate.bpg(20, 5, seed=1),
    "power": lambda: mlmed.simulate.power([20, 25], 5, n=2, seed=1),
    "study": lambda: mlmed.simulate.study(n_clusters=20, cluster_size=5, n=2, seed=1),
}


def _held(value: Any, depth: int) -> list[Any]:
    """Dataclasses of mlmed that a user reaches by public names."""
    own = is_dataclass(value) and type(value).__module__.startswith("mlmed") and not isinstance(value, type)
    if not own or depth < 0 or type(value).__module__.startswith(ENGINE):
        return []
    names = {field.name for field in fields(value)}
    names |= {name for name in dir(type(value)) if isinstance(getattr(type(value), name), property)}
    parts = (getattr(value, name) for name in sorted(names) if name[0] != "_" and not _is_refused(value, name))
    return [value, *(one for part in parts for one in _held(part, depth - 1))]


def _is_refused(value: Any, name: str) -> bool:
    """Whether a result has no such number, as a REML fit has no deviance."""
    try:
        getattr(value, name)
    except mlmed.errors.EffectError:
        return True
    return False


@pytest.mark.filterwarnings("ignore::mlmed.errors.MlmedWarning")
@pytest.mark.parametrize("kind", RESULTS)
def test_results_are_a_line(kind: str) -> None:
    """And what they hold has no numbers of the data either."""
    result = RESULTS[kind]()
    assert len(repr(result)) <= SHORT
    assert "\n" not in repr(result)
    for one in _held(result, 3):
        assert len(repr(one)) <= LONGEST + 20
        assert "array([" not in repr(one)


def test_compact() -> None:
    """Shapes of arrays and tables, texts of plain values, types of the rest."""
    from dataclasses import dataclass

    @dataclass(repr=False)
    class Held(Compact):
        number: float
        values: np.ndarray
        table: pd.DataFrame
        names: tuple[str, ...]
        parts: tuple[np.ndarray, ...]

    held = Held(0.5, np.zeros((2, 3)), pd.DataFrame({"a": [1]}), ("a", "b"), (np.zeros(1000),))
    assert repr(held).endswith(
        "Held(number=0.5, values=ndarray (2, 3), table=DataFrame (1, 1), names=('a', 'b'), parts=tuple of 1)"
    )
