"""Multilevel mediation by mixed models: certified optima, indirect effects and their covariance.

``mediate`` fits the Bauer-Preacher-Gil model, ``piecewise`` separate equations (Krull and MacKinnon), ``causal``
potential outcomes; ``compare`` sets them side by side. ``mixed`` fits one equation or several responses,
``location_scale`` residual sds that differ; ``stack`` shows the stacked table.
"""

import importlib

__version__ = "0.1.0"

__all__ = [
    "Bootstrap",
    "Comparison",
    "Delta",
    "Grams",
    "MonteCarlo",
    "Product",
    "Profile",
    "Results",
    "__version__",
    "causal",
    "compare",
    "datasets",
    "errors",
    "grams",
    "grams_sql",
    "location_scale",
    "mediate",
    "mixed",
    "piecewise",
    "replicate",
    "reproduce",
    "simulate",
    "stack",
]

#: Public names by module, loaded when one of its names is first used. ``__init__.pyi`` declares them to type checkers
#: and editors.
_HOMES = {
    "Bootstrap": "mlmed.intervals.values",
    "Comparison": "mlmed.results.comparison",
    "Delta": "mlmed.intervals.values",
    "Grams": "mlmed.api.grams",
    "MonteCarlo": "mlmed.intervals.values",
    "Product": "mlmed.intervals.values",
    "Profile": "mlmed.intervals.values",
    "Results": "mlmed.results.results",
    "causal": "mlmed.api.causal",
    "compare": "mlmed.results.comparison",
    "grams": "mlmed.api.grams",
    "grams_sql": "mlmed.api.grams",
    "location_scale": "mlmed.api.location_scale",
    "mediate": "mlmed.api.mediate",
    "mixed": "mlmed.api.mixed",
    "piecewise": "mlmed.api.piecewise",
    "replicate": "mlmed.replication",
    "stack": "mlmed.data.stacking",
}
_MODULES = ("datasets", "errors", "reproduce", "simulate")


def __getattr__(name: str) -> object:
    """Load a public name at its first use (PEP 562)."""
    if name in _MODULES:
        return importlib.import_module(f"mlmed.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'mlmed' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """List public names, loaded or not."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
