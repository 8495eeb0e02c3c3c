"""Everything public, with arguments with which it is answered: found by walking ``mlmed``, not listed."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

import mlmed
import mlmed.datasets
import mlmed.reproduce
import mlmed.simulate
from mlmed.errors import MlmedWarning
from tests.hostile.attack import Subject, arguments

M, Y = "m ~ x + w + (1 + x | id)", "y ~ m + x + w + f + (1 + m | id)"
#: Methods of results that take values of the package itself, which no user makes.
INNER = frozenset({"about", "covariance_of", "prepared", "subject", "quantities", "question"})
#: A number of draws that is enough to answer and soon done.
FEW = {"n": 2, "seed": 1}


def table(seed: int = 1) -> pd.DataFrame:
    """Rows with every role: treatment, moderator, factor, mediator, responses of two kinds, clusters."""
    data = mlmed.simulate.bpg(25, 6, seed=seed).data
    rng = np.random.default_rng(seed)
    data["w"] = rng.normal(size=len(data))
    data["f"] = np.where(rng.random(len(data)) < 0.5, "a", "b")
    data["y01"] = (data["y"] > data["y"].median()).astype(float)
    data["z"] = np.repeat(rng.integers(0, 2, 25), 6)
    return data


def _task(rng: np.random.Generator) -> float:
    return float(rng.normal())


def functions(data: pd.DataFrame) -> Iterator[Subject]:
    """Functions of ``mlmed`` and its public modules."""
    both = {"mediator": M, "outcome": Y, "data": data}
    given: dict[str, dict[str, Any]] = {
        "mediate": both,
        "piecewise": both,
        "causal": {"mediator": "m ~ x + w", "outcome": "y ~ m + x + w + f", "data": data, "treatment": "x"},
        "mixed": {"formula": M, "data": data},
        "location_scale": {"location": "m ~ x + (1 | id)", "scale": "~ x", "data": data},
        "compare": {},
        "grams": {"equations": M, "data": data},
        "grams_sql": {"equations": M, "data": data},
        "stack": {"data": data, "x": "x", "m": "m", "y": "y", "cluster": "id"},
        "replicate": {"task": _task, "n": 2, "seed": 1},
        "bpg": {"n_clusters": 10, "cluster_size": 4, "seed": 1},
        "power": {"n_clusters": 15, "cluster_size": 5, "n": 1, "seed": 1},
        "study": {"covariances": (0.0,), "n_clusters": 15, "cluster_size": 5, "n": 1, "seed": 1},
        "run": {"name": "no such example"},
        "load": {"name": "yuan_mackinnon_sim"},
        "BPGTruth": {},
        "files": {"data_home": None},
    }
    seen = set()
    for module in (mlmed, mlmed.simulate, mlmed.reproduce, mlmed.datasets):
        for name in module.__all__:
            one = getattr(module, name)
            if name in given and name not in seen:
                seen.add(name)
                yield Subject(f"{module.__name__}.{name}", one, given[name], _plain(one))
            elif inspect.isfunction(one) and arguments(one):
                raise AssertionError(f"{module.__name__}.{name} is public and has no arguments here")
    treated = {**given["causal"], "contrast": (0.0, 1.0)}
    yield Subject("causal(contrast)", mlmed.causal, treated, ("contrast",))
    mixed = {**given["causal"], "mediator": M, "outcome": Y}
    yield Subject("causal(mixed)", mlmed.causal, mixed, ("method", "vcov", "cluster"))


def _plain(call: Callable[..., Any]) -> tuple[str, ...]:
    return arguments(call)


def fits(data: pd.DataFrame) -> dict[str, Any]:
    """A small fit of every mode, and what their methods return."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MlmedWarning)
        mediate = mlmed.mediate(M, "y ~ m * w + x + f + (1 + m | id)", data, treatment="x")
        mixed = mlmed.mixed([M, "y ~ x + w + (1 | id)"], data)
        piecewise = mlmed.piecewise(M, Y, data, treatment="x")
        causal = mlmed.causal("m ~ x + w", "y ~ m + x + w + f", data, treatment="x")
        binary = mlmed.causal("m ~ x + w + (1 | id)", "y01 ~ m + x", data, treatment="x", family_y="probit")
        made = {
            "mediate": mediate,
            "mixed": mixed,
            "piecewise": piecewise,
            "causal": causal,
            "causal, clusters": binary,
            "location_scale": mlmed.location_scale("m ~ x + (1 | id)", "~ x + (1 | id)", data, nodes=5),
            "mediate.plot": mediate.plot,
            "compare": mlmed.compare(mediate, piecewise),
            "grams": mlmed.grams(M, data),
            "sensitivity": causal.sensitivity(rho=[0.0, 0.2]),
            "bootstrap": mediate.bootstrap(40, seed=1),
            "bootstrap, piecewise": piecewise.bootstrap(40, seed=1),
            "bootstrap, causal": causal.bootstrap(40, seed=1),
            "profile": mediate.profile("indirect", points=4, at={"w": 0.0}),
            "influence": mediate.influence(refit=False),
            "test": mixed.test("m~x = 0"),
            "power": mlmed.simulate.power(15, 5, n=2, seed=1),
            "study": mlmed.simulate.study((0.0,), n_clusters=15, cluster_size=5, n=2, seed=1),
            "truth": mlmed.simulate.BPGTruth(),
        }
    return made


def methods(made: Mapping[str, Any], data: pd.DataFrame) -> Iterator[Subject]:
    """Public methods of fits, with what each asks for; options of intervals beside the interval that has them."""
    for mode, fit in made.items():
        for name in sorted(dir(type(fit))):
            static = inspect.getattr_static(type(fit), name)
            if name.startswith("_") or name in INNER or not callable(getattr(type(fit), name)):
                continue
            call = getattr(fit, name)
            if isinstance(static, property) or not arguments(call):
                continue
            for case in _cases(mode, name, fit, data):
                given = {key: value for key, value in case.items() if key in arguments(call)}
                label = f"{mode}.{name}" + "".join(f"[{case[key]}]" for key in ("interval", "kind") if key in given)
                yield Subject(label, call, given, arguments(call))


def _cases(mode: str, name: str, fit: Any, data: pd.DataFrame) -> list[dict[str, Any]]:
    new = data.head(4)
    asked: dict[str, dict[str, Any]] = {
        "predict": {"newdata": new},
        "conditional_effects": {"variable": "x"},
        "conditional": {"variable": "x", "points": 3},
        "spaghetti": {"variable": "x", "clusters": 2, "seed": 1, "points": 3},
        "prediction": {"variable": "x", "points": 3},
        "nlcom": {"expression": "a * b" if mode == "piecewise" else "_b"},
        "combined": {"expression": "_b"},
        "compare": {"other": fit},
        "profile": {"expression": "indirect", "points": 4, "at": {"w": 0.0}},
        "quantity_at": {"expression": "indirect"},
        "test": {"hypothesis": "indirect = 0"},
        "loglik_at": {"G": np.eye(2), "sigma2": [1.0]},
        "test_moderation": {"at1": {"w": 0.0}, "at2": {"w": 1.0}, **FEW},
        "save": {"path": "/nonexistent/folder/file.parquet"},
        "load": {"path": "/nonexistent/folder/file.parquet"},
        "with_cov_ab": {"value": 0.1},
        "check_starts": {"n": 1, "seed": 1},
        "groups": {"interval": "delta"},
        "sensitivity": {"rho": [0.0, 0.2]},
    }
    drawn = {"bootstrap", "simulate", "predictive_check", "predictive", "test_interaction", "test_moderation"}
    base = {**asked.get(name, {}), **(FEW if name in drawn else {})}
    if name == "simulate":
        base["n"] = 2
    if name in ("effects", "summary", "plot", "groups") and mode.startswith(("mediate", "piecewise", "causal", "loc")):
        kinds = {"location_scale": ("monte-carlo",), "piecewise": ("monte-carlo", "product", "bootstrap")}
        more = kinds.get(mode, ("monte-carlo", "bootstrap"))
        return [base, *({"interval": one, **(FEW if one != "product" else {})} for one in more)]
    return [base]
