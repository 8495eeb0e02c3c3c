"""The one file of the lock that knows the public names of mlmed: when they change, edit this file and no other.

Cases ask for things by words that stay: ``fit("joint", ...)``, ``ask(fit, "effects", ends="bca", vcov="CR2")``. The
tables below say what those words are called today. Where a name stayed what it was, nothing need stand here.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import mlmed
from mlmed.cli import main

__all__ = ["GROUPS", "KEYS", "Asked", "Refused", "ask", "compared", "fit", "known", "load", "run_command", "simulated"]

#: What mlmed raises on purpose.
Refused = mlmed.errors.MlmedError

#: The function of each school.
FITS: dict[str, Callable[..., Any]] = {
    "joint": mlmed.mediate,
    "mixed": mlmed.mixed,
    "separate": mlmed.piecewise,
    "causal": mlmed.causal,
    "location-scale": mlmed.location_scale,
    "sums": mlmed.grams,
}

#: Names of what is asked for, where they are other words than the lock's.
NAMES: dict[str, str] = {}

#: (school or "", what is asked for, the lock's keyword) -> today's keyword.
KEYWORDS: dict[tuple[str, str, str], str] = {
    ("causal", "effects", "groups"): "of",
    ("causal", "summary", "groups"): "of",
}

#: (school or "", the lock's keyword, its value) -> today's value.
VALUES: dict[tuple[str, str, str], str] = {}

#: Columns whose values name a row of a table: the first of these whose columns the table has.
KEYS: tuple[tuple[str, ...], ...] = (
    ("fit", "equation", "group", "term"),
    ("level", "equation1", "equation2", "term1", "term2"),
    ("n_clusters", "cluster_size", "term"),
    ("rho", "term"),
    ("method", "term"),
    ("cluster", "term"),
    ("section", "term"),
    ("effect", "equation", "group", "term"),
    ("effect", "group", "term"),
    ("effect", "group"),
    ("response", "statistic"),
    ("row", "response"),
    ("equation", "term"),
    ("group", "term"),
    ("term",),
    ("start",),
    ("variable",),
    ("name",),
    ("model",),
)
#: Columns by which a long table is cut before each piece is described.
GROUPS = ("effect", "term", "response")


@dataclass(frozen=True, slots=True)
class Fit:
    """A result and the school that it is of."""

    school: str
    result: Any


@dataclass(frozen=True, slots=True)
class Asked:
    """One thing to ask of a fit.

    Attributes
    ----------
    what : str
        Its name in the lock.
    args, options : tuple, dict
        What is given.
    label : str
        Its name in the store; made of the rest unless given.
    rows : bool
        Whether it has a value for each row of the data.
    """

    what: str
    args: tuple[Any, ...] = ()
    options: dict[str, Any] | None = None
    label: str = ""
    rows: bool = False

    @property
    def name(self) -> str:
        """As it stands in a path."""
        if self.label:
            return self.label
        given = [*map(str, self.args), *(f"{key}={value}" for key, value in (self.options or {}).items())]
        return f"{self.what}({', '.join(given)})" if given else self.what


def _named(school: str, what: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options under today's names."""
    out = {}
    for key, value in options.items():
        name = KEYWORDS.get((school, what, key), KEYWORDS.get(("", what, key), key))
        out[name] = VALUES.get((school, key, value), value) if isinstance(value, str) else value
    return out


def load(name: str) -> pd.DataFrame:
    """An example data set."""
    return mlmed.datasets.load(name)


def fit(school: str, *args: Any, **options: Any) -> Fit:
    """A fit of a school; its data may be sums."""
    given = [one.result if isinstance(one, Fit) else one for one in args]
    return Fit(school, FITS[school](*given, **_named(school, "fit", options)))


def simulated(n_clusters: int, cluster_size: int, **options: Any) -> pd.DataFrame:
    """Rows drawn from a population."""
    return mlmed.simulate.bpg(n_clusters, cluster_size, **options).data


def ask(of: Fit, asked: Asked) -> Any:
    """What a fit answers, as tables, numbers, texts and dictionaries of them."""
    options = _named(of.school, asked.what, asked.options or {})
    if of.school == "location-scale" and asked.what in SCALE:
        return SCALE[asked.what](of.result, **options)
    if asked.what in SPECIAL:
        return SPECIAL[asked.what](of, *asked.args, **options)
    found = getattr(of.result, NAMES.get(asked.what, asked.what))
    return found(*asked.args, **options) if callable(found) else found


def compared(*fits: Fit, **options: Any) -> dict[str, Any]:
    """Several fits side by side."""
    found = mlmed.compare(*(one.result for one in fits), **options)
    return {
        "long": found.long.rename(columns={"source": "method"}),
        "table": found.table,
        "std_errors": found.std_errors,
        "differences": found.differences(found.sources[0]),
        "picture": drawn(found.plot()[0].figure),
        "text": str(found),
    }


def _todays(arguments: Sequence[str]) -> list[str]:
    """A command line of the store as it is written today: ``fit`` and ``effects`` are ``mediate``.

    JSON of ``piecewise`` and ``causal`` was the rows of the effects, and so was CSV.
    """
    command, *rest = arguments
    rows = command in ("piecewise", "causal") and bool({"json", "csv"} & {*rest}) and "--help" not in rest
    table = ("--table", "effects") if (command == "effects" and "--help" not in rest) or rows else ()
    return [{"fit": "mediate", "effects": "mediate"}.get(command, command), *rest, *table]


def run_command(arguments: Sequence[str]) -> dict[str, Any]:
    """What a command prints, on both streams, and its exit status."""
    arguments = _todays(arguments)
    os.environ["COLUMNS"] = "100"  # help texts are as wide as the terminal
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(list(arguments))
        except SystemExit as ended:
            status = ended.code
    said = (stream.getvalue().replace(os.getcwd(), "FOLDER") for stream in (out, err))
    return {"status": status, **dict(zip(("out", "err"), said, strict=True))}


# -- what is asked for and is no table --------------------------------------------------------------------------------


def _influence(of: Fit, **options: Any) -> dict[str, Any]:
    found = of.result.influence(**options)
    return {"table": found.tidy(), "cooks": found.cooks, "text": repr(found)}


def _profile(of: Fit, expression: str, **options: Any) -> dict[str, Any]:
    found = of.result.profile(expression, **options)
    return {
        "estimate": found.estimate,
        "interval": list(found.interval),
        "curve": found.curve.rename(columns={"value": "estimate"}),
        "note": found.note,
        "text": repr(found),
    }


def _bootstrap(of: Fit, ends: Sequence[str] = ("percentile",), **options: Any) -> dict[str, Any]:
    found = of.result.bootstrap(**options)
    out = {
        "draws": {term: found.draws[term].to_numpy() for term in found.draws},
        "failures": {failure.text: count for failure, count in found.failures.items()},
        "n_failed": found.n_failed,
        "n_singular": found.n_singular,
        "text": repr(found),
    }
    for one in ends:
        out[f"ends={one}"] = found.tidy(ends=one, level=0.8)
    if "bca" in ends:
        out["jackknife"] = {term: found.jackknife[term].to_numpy() for term in found.jackknife}
    return out


def _test(of: Fit, hypothesis: str, **options: Any) -> dict[str, Any]:
    found = of.result.test(hypothesis, **options)
    return {
        "hypothesis": found.hypothesis,
        "chi2": found.chi2,
        "df": found.df,
        "p_value": found.p_value,
        "llf": found.llf,
        "note": found.note,
        "text": str(found),
    }


def _optimization(of: Fit) -> dict[str, Any]:
    found = of.result.optimization
    return {
        "converged": found.certificate.converged,
        "starts": found.n_starts,
        "optima": len(found.optima),
        "evaluations": found.evaluations,
        "smallest_curvature": found.certificate.smallest_curvature,
        "llf": found.llf[-1],
    }


def _loglik_at(of: Fit, share: float) -> float:
    """The criterion beside the optimum: all covariances times a number."""
    residual = of.result.Sigma if len(of.result.sigma2) > 1 else of.result.sigma2
    return of.result.loglik_at(share * of.result.G, share * residual)


def _sensitivity(of: Fit, **options: Any) -> dict[str, Any]:
    found = of.result.sensitivity(**options)
    return {
        "table": found.table,
        "zero": found.zero.rename(columns={"rho": "zero_at"}),
        "at": found.at(0.3),
        "coefficients": found.coefficients(0.3),
        "region": found.region,
        "notes": list(found.notes),
        "text": str(found),
    }


def _part(of: Fit, which: str, asked: Asked) -> Any:
    """An answer of one of the fits that separate equations are made of."""
    return ask(Fit("mixed", getattr(of.result, which)), asked)


def _joint(of: Fit, asked: Asked) -> Any:
    """An answer of the joint fit of separate equations."""
    return ask(Fit("joint", of.result.joint()), asked)


def _versus(of: Fit, other: Fit) -> pd.DataFrame:
    """A fit beside a nested one."""
    return of.result.compare(other.result)


def _sums(of: Fit) -> dict[str, Any]:
    """What Grams say of themselves."""
    return {"equations": list(of.result.equations), "n_clusters": of.result.n_clusters, "text": repr(of.result)}


def _ranked(fit: Any) -> Any:
    """Caterpillars; in the store those of a location-scale model lie, one effect alone, with ranks from 1."""
    axes = fit.plot.ranef()
    if "location_scale" not in dir(fit.plot):
        return axes
    ax = next((one for one in axes if one.get_title().startswith("sigma~")), axes[0])
    for line in ax.lines:
        x, y = map(np.asarray, line.get_data())
        line.set_data(y + (len(y) > 2), x)
    return ax


#: Pictures by the lock's word: what draws them today.
PICTURES: dict[str, Callable[..., Any]] = {
    "conditional": lambda fit, *args, **options: fit.plot.conditional(*args, **options),
    "correlations": lambda fit, **options: fit.plot.correlations(**options),
    "ranef": lambda fit: _ranked(fit),
    "spaghetti": lambda fit, *args, **options: fit.plot.spaghetti(*args, **options),
    "predictive": lambda fit, *args, kind="value", **options: fit.plot.predictive(*args, density=kind, **options),
    "profile": lambda fit, expression, **options: fit.profile(expression, **options).plot(),
    "bootstrap": lambda fit, term, **options: fit.bootstrap(**options).plot(term, level=0.8),
    "influence": lambda fit, term: fit.influence().plot(term),
    "optimization": lambda fit: fit.optimization.plot(),
    "effects": lambda fit, **options: fit.plot.effects(**options),
    "sensitivity": lambda fit: fit.sensitivity().plot(),
    "location-scale": lambda fit: fit.plot.location_scale(),
    "prediction": lambda fit, *args, **options: fit.plot.prediction(*args, **options),
}


def drawn(found: Any) -> dict[str, Any]:
    """What axes, or a figure, show: texts, and the points of lines and dots."""
    import matplotlib.pyplot as plt

    axes = list(found.axes) if hasattr(found, "axes") and hasattr(found, "suptitle") else found
    out = {}
    for at, one in enumerate(axes if isinstance(axes, list | tuple | np.ndarray) else [axes]):
        lines = [np.asarray(line.get_xydata(), dtype=float).ravel() for line in one.lines]
        dots = [np.asarray(dot.get_offsets(), dtype=float).ravel() for dot in one.collections]
        said = [one.get_title(), one.get_xlabel(), one.get_ylabel(), *(text.get_text() for text in one.texts)]
        legend = one.get_legend()
        out[str(at)] = {
            "lines": len(lines),
            "points": np.concatenate([*lines, *dots, []]),
            "bars": np.array([[bar.get_x(), bar.get_height()] for bar in one.patches if hasattr(bar, "get_x")]).ravel(),
            "texts": [*said, *(text.get_text() for text in (legend.get_texts() if legend else ()))],
        }
    plt.close("all")
    return out


def _picture(of: Fit, name: str, *args: Any, **options: Any) -> dict[str, Any]:
    import matplotlib as mpl

    mpl.use("Agg")
    return drawn(PICTURES[name](of.result, *args, **options))


def _document(of: Fit, **options: Any) -> Any:
    """The JSON document, read; that its effects are those of the delta method was not in it."""
    return known(json.loads(of.result.to_json(**options)))


def known(document: dict[str, Any]) -> dict[str, Any]:
    """A document without what it did not have: how the effects were asked for."""
    if document.get("school") == "location_scale":
        document = _scale_document(document)
    return {
        key: value for key, value in document.items() if (key, value) not in (("interval", "delta"), ("options", {}))
    }


# -- separate equations: three tables then, one with prefixes now -----------------------------------------------------


def _apart(of: Fit, table: pd.DataFrame) -> pd.DataFrame:
    """Estimates of a system with the name of its fit in a column, and terms as that fit calls them."""
    system, found = of.result.fit, {}
    for (role, one), part in zip(system.components.items(), system.parts, strict=True):
        found |= {new.name: (role, old.name) for new, old in zip(system.parameters[part], one.parameters, strict=True)}
    names = [found[term] for term in table["term"]]
    out = table.assign(term=[term for _, term in names])
    out.insert(0, "fit", [role for role, _ in names])
    return out


def _tidy(of: Fit, **options: Any) -> pd.DataFrame:
    found = of.result.tidy(**options)
    if of.school == "causal":
        return found[found["effect"] == "fixed"].drop(columns=["effect", "group"]).reset_index(drop=True)
    return _apart(of, found) if of.school == "separate" else found


def _nobs(of: Fit) -> Any:
    """Rows of each equation."""
    if of.school != "separate":
        return of.result.nobs
    return pd.Series({role: one.nobs for role, one in of.result.fit.components.items()}, name="nobs")


def _params(of: Fit) -> Any:
    """Fixed effects, without those of path c."""
    found = of.result.params
    return found[[not name.startswith("reduced~") for name in found.index]] if of.school == "separate" else found


def _documents(of: Fit, **options: Any) -> Any:
    found = _document(of, **options)
    if of.school == "causal":
        return _of_causal(found)
    if of.school != "separate":
        return found
    parts = {}
    for role, one in found["components"].items():
        mixed = one["kind"] == "a linear mixed model"
        fit = getattr(of.result, role)
        known = {name: one[name] for name in ("nobs", "n_clusters", "llf")}
        parts[role] = {"formula": one["equation"], "engine": "mixed" if mixed else "ols", **known}
        parts[role] |= {"left_out": one["dropped"]}
        last = [*found.get("varcorr", []), *found.get("residual", [])]
        for name, rows in (("fixef", found["fixef"]), ("varcorr", last)) if mixed else (("fixef", found["fixef"]),):
            own = _apart(of, pd.DataFrame(rows))
            kept = own[own["fit"] == role].drop(columns="fit").astype(object)
            parts[role][name] = kept.where(kept.notna(), None).to_dict("records")
        if mixed:
            parts[role] |= {"converged": one["converged"], "is_singular": one["is_singular"]}
        else:
            parts[role]["sigma2"] = float(fit.sigma2.iloc[0])
    kept = ("schema", "treatment", "design", "levels", "cluster", "method", "vcov", "level", "interval", "options")
    return {
        **{name: found[name] for name in kept if name in found},
        "equations": parts,
        "effects": found["effects"],
        **{name: found[name] for name in ("effects_reason",) if name in found},
    }


def _of_causal(found: dict[str, Any]) -> dict[str, Any]:
    """Two equations by name, and their coefficients."""
    roles = found["components"]
    kept = ("schema", "treatment", "contrast", "interaction", "nobs", "n_clusters", "vcov", "level", "computed")
    return {
        **{name: found[name] for name in (*kept, "interval", "options") if name in found},
        **{role: one["equation"] for role, one in roles.items()},
        **{f"family_{role[0].replace('o', 'y')}": one["family"] for role, one in roles.items()},
        "dropped": "; ".join(found["dropped"]) or None,
        "effects": found["effects"],
        "coefficients": found["fixef"],
    }


SPECIAL: dict[str, Callable[..., Any]] = {
    "nodes": lambda of: of.result.fit.nodes,
    "interaction": lambda of: bool(of.result.glance().loc[0, "interaction"]),
    "to_json": _documents,
    "tidy": _tidy,
    "nobs": _nobs,
    "params": _params,
    "correlations": lambda of, **options: of.result.correlations(**options).rename(columns={"part": "level"}),
    "picture": _picture,
    "influence": _influence,
    "profile": _profile,
    "bootstrap": _bootstrap,
    "test": _test,
    "optimization": _optimization,
    "loglik_at": _loglik_at,
    "sensitivity": _sensitivity,
    "part": _part,
    "joint": _joint,
    "versus": _versus,
    "sums": _sums,
}


# -- location-scale models, whose tables had a layout of their own --------------------------------------------------


def _scale_sdcor(fit: Any, **options: Any) -> pd.DataFrame:
    """With the tests of correlations, which functions of parameters have."""
    return fit.nlcom({term: f"`{term}`" for term in fit.sdcor()["term"]}, **options)


def _scale_tidy(fit: Any, **options: Any) -> pd.DataFrame:
    """Sds and correlations in the place of variances and covariances."""
    fixed, random = fit.fixef(**options).assign(effect="fixed", group=""), _scale_sdcor(fit, **options)
    table = pd.concat([fixed, random.assign(effect="ran_pars", group=fit.group_name)], ignore_index=True)
    return table[["effect", "group", *fixed.columns[:-2]]]


def _scale_table(fit: Any) -> pd.DataFrame:
    parts = {
        "fixef": fit.fixef(),
        "scale_effects": fit.effects(),
        "sdcor": _scale_sdcor(fit),
        "varcorr": fit.varcorr().drop(columns="group"),
    }
    found = pd.concat([table.assign(section=name) for name, table in parts.items()], ignore_index=True)
    kept = found.columns.drop("section")
    there = fit.to_table().set_index(["section", "term"]).rename(index={"effects": "scale_effects"})
    assert there.index.symmetric_difference(pd.MultiIndex.from_frame(found[["section", "term"]])).empty
    return found[["section", *kept]]


def _scale_document(document: dict[str, Any]) -> dict[str, Any]:
    """Without what it did not have, and without the tests that ``sdcor`` has no more."""
    sdcor = [{k: v for k, v in row.items() if k not in ("statistic", "df", "p_value")} for row in document["sdcor"]]
    own = {"scale_effects" if key == "effects" else key: value for key, value in (document | {"sdcor": sdcor}).items()}
    return {key: value for key, value in own.items() if key not in ("equations", "school", "vcov", "ddf")}


SCALE: dict[str, Callable[..., Any]] = {
    "sdcor": _scale_sdcor,
    "tidy": _scale_tidy,
    "to_table": _scale_table,
    "varcorr": lambda fit: fit.varcorr().drop(columns="group"),
}


# -- functions that hold no fit ---------------------------------------------------------------------------------------


def power(*args: Any, **options: Any) -> dict[str, Any]:
    """Power of a planned design."""
    found = mlmed.simulate.power(*args, **options)
    return {"table": found.table, "text": str(found), "picture": drawn(found.plot())}


def study(*args: Any, **options: Any) -> dict[str, Any]:
    """Estimators beside each other on simulated data."""
    found = mlmed.simulate.study(*args, **options)
    return {"table": found.table, "text": str(found), "picture": drawn(found.plot())}


def stacked(data: Any, **options: Any) -> pd.DataFrame:
    """The stacked table."""
    return mlmed.stack(data, **options)


def added(first: Fit, second: Fit) -> Fit:
    """Grams of two shards."""
    return Fit("sums", first.result + second.result)


def stored(sums: Fit, path: Path) -> Fit:
    """Grams, written and read again."""
    sums.result.save(path)
    return Fit("sums", mlmed.Grams.load(path))


def written_sql(formulas: Any, data: Any) -> str:
    """The SQL of the sums, without the names that DuckDB makes up for a frame."""
    text = mlmed.grams_sql(formulas, data)
    return re.sub(r"__duckdb_source_\w+|df_[0-9a-f]{16}", "made_up", text)


def reproduced(name: str) -> dict[str, Any]:
    """A published example."""
    found = mlmed.reproduce.run(name)
    return {"table": found.to_frame(), "text": str(found)}


def replicated(task: Callable[..., Any], n: int, **options: Any) -> list[Any]:
    """A task with its own numbers each time."""
    return mlmed.replicate(task, n, **options)
