"""A 1-1-1 mediation model with random slopes, from the fit to the Stata layout.

Run it with ``python examples/bpg.py``. The data ship with the package: 1,000 rows in 50 groups, simulated by a
published recipe (``mlmed.datasets.describe()``).
"""

import mlmed

data = mlmed.datasets.load("yuan_mackinnon_sim")

# Two equations, one model: all five random effects of a group may covary, each response has its own residual variance.
fit = mlmed.mediate(
    mediator="Med ~ X + (1 + X | group)",
    outcome="y ~ Med + X + (1 + Med + X | group)",
    data=data,
)
print(f"certified optimum: {fit.converged}, boundary fit: {fit.is_singular}, log-likelihood {fit.llf:.5f}")

# The same effects with the two kinds of standard errors (docs/standard_errors.md).
for vcov in ("block", "joint"):
    print(f"\nEffects, {vcov} standard errors")
    print(fit.effects(vcov=vcov).drop(columns=["df", "note"]).round(5).to_string(index=False))

# Any function of the parameters. Names with a colon or a bracket go in backticks.
print("\nFunctions of the parameters")
combined = fit.nlcom(
    {
        "indirect less direct": "indirect - direct",
        "correlation of a_j and b_j": "cov_ab / sqrt(`var(Med~X)` * `var(y~Med)`)",
        "residual variances, y / Med": "`var(y~Residual)` / `var(Med~Residual)`",
    }
)
print(combined[["term", "estimate", "std_error", "conf_low", "conf_high"]].round(5).to_string(index=False))

# Conditional modes: what the data say about each group.
print("\nRandom effects of the first groups")
ranef = fit.ranef()
print(ranef.pivot(index="group", columns="effect", values="estimate").head().round(4).to_string())

# Predictions for new rows: for an average group, and for groups 1 and 2.
new = data.groupby("group").head(1).iloc[:2][["group", "X", "Med"]]
print("\nPredictions")
print(new.join(fit.predict(new).add_suffix(", average group")).round(4).to_string(index=False))
print(new.join(fit.predict(new, of="cluster").add_suffix(", this group")).round(4).to_string(index=False))

# The same fit in the layout of Stata's xtmixed.
print()
print(fit.summary(style="stata"))
