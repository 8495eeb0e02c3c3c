"""Names and levels with letters that mean something to matplotlib or HTML; pictures without matplotlib."""

from __future__ import annotations

import html
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.errors import EffectError
from mlmed.reproduce.tables import Compared, Pair, Reproduction

X, M, Y, ID, ARM = "$x^$", "$m_1$", "pay in $ a^ $", "$i^$", "arm & $"
LEVELS = "$a^$ <low>", "_$b_1$"
FORMULAS = f"`{M}` ~ `{X}` + (1 + `{X}` | `{ID}`)", f"`{Y}` ~ `{M}` + `{X}` + (1 + `{M}` + `{X}` | `{ID}`)"

pytestmark = pytest.mark.filterwarnings("ignore::mlmed.errors.MlmedWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    """Names and levels that matplotlib would read as formulas, some of which it cannot read."""
    made = mlmed.simulate.bpg(12, 10, seed=4).data.rename(columns={"x": X, "m": M, "y": Y, "id": ID})
    arm = np.where(made[ID] % 2 == 0, *LEVELS)
    return made.assign(**{ID: [f"_$c^{k}$" for k in made[ID]], ARM: arm, "t": np.where(made[X] > 0, *LEVELS)})


@pytest.fixture(scope="module")
def fits(data: pd.DataFrame) -> dict[str, Any]:
    return {
        "one": mlmed.mixed(f"`{Y}` ~ `{X}` + `{ARM}` + (1 + `{X}` | `{ID}`)", data),
        "joint": mlmed.mediate(*FORMULAS, data),
        "scale": mlmed.location_scale(f"`{Y}` ~ `{X}` + `{ARM}` + (1 |c| `{ID}`)", f"~ `{X}` + (1 |c| `{ID}`)", data),
        "causal": mlmed.causal(
            f"`{M}` ~ t", f"`{Y}` ~ `{M}` + t", data, treatment="t", contrast=(LEVELS[0], LEVELS[1])
        ),
        "power": mlmed.simulate.power(15, 5, n=2, seed=1),
        "study": mlmed.simulate.study([0.0], n_clusters=15, n=2, seed=1),
    }


#: Every picture, and a name or level that stands in it; None where nothing of the user's does.
PICTURES: dict[str, tuple[str, Callable[[Any], Any], str | None]] = {
    "conditional": ("one", lambda fit: fit.plot.conditional(X, data=True), X),
    "conditional of a factor": ("one", lambda fit: fit.plot.conditional(ARM), LEVELS[0]),
    "spaghetti": ("one", lambda fit: fit.plot.spaghetti(X, clusters=3, seed=1), ARM),
    "ranef": ("one", lambda fit: fit.plot.ranef(), "_$c^7$"),
    "correlations": ("joint", lambda fit: fit.plot.correlations(), f"{M}~{X}"),
    "predictive": ("one", lambda fit: fit.plot.predictive(3, seed=1), Y),
    "influence": ("one", lambda fit: fit.influence().plot(X), X),
    "profile": ("one", lambda fit: fit.profile(X, points=4).plot(), X),
    "bootstrap": ("one", lambda fit: fit.bootstrap(5, seed=1).plot(X), X),
    "compare": ("joint", lambda fit: mlmed.compare(fit, names=["$n^$"]).plot(f"{M}~{X}"), "$n^$"),
    "optimization": ("one", lambda fit: fit.optimization.plot(), None),
    "ranef of scales": ("scale", lambda fit: fit.plot.ranef(), ID),
    "location_scale": ("scale", lambda fit: fit.plot.location_scale(), None),
    "prediction": ("scale", lambda fit: fit.plot.prediction(X), Y),
    "prediction of a factor": ("scale", lambda fit: fit.plot.prediction(ARM), LEVELS[1]),
    "residuals": ("one", lambda fit: fit.plot.residuals(), Y),
    "effects": ("joint", lambda fit: fit.plot.effects(), None),
    "page": ("one", lambda fit: fit.plot(), Y),
    "causal": ("causal", lambda fit: fit.plot.effects(), LEVELS[0]),
    "sensitivity": ("causal", lambda fit: fit.sensitivity([0.0, 0.3]).plot(), None),
    "sensitivity in R2": ("causal", lambda fit: fit.sensitivity([0.0, 0.3]).plot("r2"), None),
    "power": ("power", lambda found: found.plot(), None),
    "study": ("study", lambda found: found.plot(), None),
}


def figure_of(drawn: Any) -> Any:
    first = drawn[0] if isinstance(drawn, list) else drawn
    return getattr(first, "figure", first)


@pytest.mark.parametrize("name", PICTURES)
def test_a_dollar_is_a_letter_in_every_picture(fits, name):
    """Nothing with a name of the user's is read as a formula, and what is drawn is the name itself."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib.cbook import is_math_text
    from matplotlib.text import Text

    which, draw, shown = PICTURES[name]
    figure = figure_of(draw(fits[which]))
    figure.canvas.draw()  # a formula that cannot be read raises here
    texts = [text.get_text() for text in figure.findobj(Text)]
    if which not in ("power", "study") and name != "optimization":  # whose formulas and powers of ten are ours
        assert not any(map(is_math_text, texts))
    seen = [" ".join(text.replace(r"\$", "$").split()) for text in texts]
    assert shown is None or any(shown in text for text in seen)


def test_the_legend_of_clusters_has_every_name(fits):
    pytest.importorskip("matplotlib").use("Agg")
    (ax,) = fits["one"].plot.spaghetti(X, clusters=["_$c^3$", "_$c^11$"])
    names = [text.get_text().replace(r"\$", "$") for text in ax.get_legend().get_texts()]
    assert names == ["_$c^3$", "_$c^11$", "population"]


@pytest.mark.parametrize("name", PICTURES)
def test_without_matplotlib_every_picture_says_what_to_install(fits, name, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    which, draw, _ = PICTURES[name]
    with pytest.raises(EffectError, match=r"pictures need matplotlib.*pip install \"mlmed\[plots\]\""):
        draw(fits[which])


def test_html_is_the_text_escaped(fits, data):
    separate = mlmed.piecewise(*FORMULAS, data)
    level_2 = data.assign(m2=data.groupby(ID)[M].transform("mean"), x2=data.groupby(ID)[X].transform("mean"))
    clusters = mlmed.piecewise("m2 ~ x2", f"`{Y}` ~ m2 + x2 + (1 | `{ID}`)", level_2).mediator
    results = [*fits.values(), separate, clusters, mlmed.compare(fits["joint"], names=["<b>&amp;"])]
    for one in results:
        shown = one._repr_html_()
        assert shown.startswith("<pre>")
        assert shown.endswith("</pre>")
        inside = shown.removeprefix("<pre>").removesuffix("</pre>")
        assert not any(letter in inside for letter in "<>")
        assert html.unescape(inside) == str(one)
    assert "arm &amp; $" in fits["one"]._repr_html_()
    example = Reproduction("toy", "a < b", "a page", (Compared("A & B", (Pair("x", "", "R", ".6", "ours", 0.61),)),))
    assert html.unescape(example._repr_html_()) == f"<pre>{example}</pre>"
    assert "a &lt; b" in example._repr_html_()
