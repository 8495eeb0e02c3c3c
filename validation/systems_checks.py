"""Joint models of ml_sim with fewer random effects: log-likelihoods and indirect effects stated by another program."""

from __future__ import annotations

import mlmed
from validation.checks import Check, load_data, printed

#: Random terms of m and y, and the stated REML log-likelihood and indirect effect.
STATED = {
    "a and b random": ("(1 + x | id)", "(1 + m | id)", "-2131.550052", ".452432"),
    "a random": ("(1 + x | id)", "(1 | id)", "-2198.606786", ".418800"),
    "b random": ("(1 | id)", "(1 + m | id)", "-2166.951891", ".377599"),
}


def systems_checks() -> list[Check]:
    """Every stated digit."""
    checks = []
    for name, (of_m, of_y, llf, indirect) in STATED.items():
        fit = mlmed.mediate(f"m ~ x + {of_m}", f"y ~ m + x + {of_y}", load_data("ml_sim"))
        estimate = float(fit.effects().set_index("term")["estimate"]["indirect"])
        checks.append(printed(f"ml_sim, {name}", "log-likelihood", fit.llf, llf))
        checks.append(printed(f"ml_sim, {name}", "indirect", estimate, indirect))
    return checks
