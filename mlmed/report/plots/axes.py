"""What all pictures share: axes, colours, captions, names of any length.

One rule for all: ``ax=`` takes what the picture returns, an ``Axes``, or a list of as many as it has panels, and
without it there is a new figure. Nothing else of a figure that is not new is touched: the caption, which says what is
held at which value, then stands above the (first) panel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mlmed.errors import EffectError
from mlmed.names import OF_EQUATION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


#: Colours that are told apart with any colour vision, and in grey: Okabe and Ito's, without black and yellow, and two
#: of Tol's. Black is for the data and the population, ``MAIN`` for what is estimated, ``ACCENT`` for what is marked.
MAIN, ACCENT = "#0072B2", "#D55E00"
MANY = (MAIN, ACCENT, "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#882255", "#999933")
DARK, GREY, FAINT = "0.4", "0.6", "0.8"
#: Letters to an inch in the default font, in its sizes "medium" and "small".
MEDIUM, SMALL = 13.0, 15.0
#: Inches that ticks, labels and titles take of the width and height of a panel; fewest letters of a line.
BESIDE, FEWEST = (0.95, 1.3), 12
#: Between the parts of a name.
NAMES = f"{OF_EQUATION}:"
#: After what a line may end, the best first.
BREAKS = (" ", NAMES, "._")
#: Lines of a caption that a figure has room for, inches of each further one, the most of a line of text above several
#: panels and above one.
FREE_LINES, LINE, MOST_LINES, MOST_OF_ONE = 2, 0.2, 8, 3


def pyplot() -> Any:
    """Import what every picture starts from, ``matplotlib.pyplot``.

    Raises
    ------
    EffectError
        It is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise EffectError(
            f'pictures need matplotlib, which cannot be imported ({error}); install it with: pip install "mlmed[plots]"'
        ) from error
    return plt


def literal(text: object) -> str:
    r"""Text of the user's, a name or a level, for matplotlib to draw letter by letter: a dollar starts no formula.

    The last step before drawing, since what it adds is not seen.

    Examples
    --------
    >>> print(literal("income in $"))
    income in \$
    """
    return str(text).replace("$", r"\$")


def wrapped(text: str, width: int, *, most: int = 4) -> str:
    r"""Text in lines of at most ``width`` letters.

    Broken at blanks, a part that is still too long at the signs between its names, then at dots and underscores, then
    anywhere; what needs more than ``most`` lines ends in three dots.

    Examples
    --------
    >>> wrapped("stress~Intercept", 20), wrapped("stress~Intercept", 12), wrapped("negative_affect", 12)
    ('stress~Intercept', 'stress~\nIntercept', 'negative_\naffect')
    """
    lines = _lines(text, width)
    if len(lines) > most:
        lines = [*lines[: most - 1], f"{lines[most - 1][: width - 3]}..."]
    return "\n".join(line.rstrip() for line in lines)


def _lines(text: str, width: int) -> list[str]:
    """Lines with the blanks at their ends."""
    if len(text.rstrip()) <= width:
        return [text]
    for marks in BREAKS:
        parts = [part for part in re.split(f"(?<=[{marks}])", text) if part]
        if len(parts) > 1:
            every = [line for part in parts for line in _lines(part, width)]
            return every if marks == NAMES else _joined(every, width)
    return [text[k : k + width] for k in range(0, len(text), width)]


def _joined(parts: list[str], width: int) -> list[str]:
    """As few lines as parts that are not cut need."""
    lines = parts[:1]
    for part in parts[1:]:
        if len((lines[-1] + part).rstrip()) <= width:
            lines[-1] += part
        else:
            lines.append(part)
    return lines


def longest_line(texts: Iterable[str]) -> int:
    """Letters of the longest line of all texts."""
    return max(len(line) for text in texts for line in text.split("\n"))


# -- axes ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Panels:
    """Axes to draw on.

    Attributes
    ----------
    axes : list of Axes
        One per panel, row by row.
    own : bool
        Whether the figure was made for them.
    columns : int
        Panels side by side; 1 for those of the user, each of which then has labels of its own.
    """

    axes: list[Axes]
    own: bool
    columns: int

    @property
    def first(self) -> Axes:
        """The first panel."""
        return self.axes[0]

    @property
    def figure(self) -> Figure:
        """The figure, where it was made for these axes."""
        return cast("Figure", self.first.figure)

    @property
    def leftmost(self) -> list[Axes]:
        """The first panel of every row."""
        return self.axes[:: self.columns]

    def caption(self, text: str) -> None:
        """Write above all panels, or above the first one where the figure is the user's; lines of the text stay lines.

        The last step: then it is known what stands above the first panel already.
        """
        if not self.own:
            above = caption_lines(text, across(self.first))
            self.first.set_title("\n".join(filter(None, [above, self.first.get_title()])), fontsize="medium")
            return
        found = caption_lines(text, int(MEDIUM * self.figure.get_figwidth()))
        more = LINE * max(found.count("\n") + 1 - FREE_LINES, 0)
        self.figure.set_figheight(self.figure.get_figheight() + more)
        self.figure.suptitle(found, fontsize="medium")


def new_panels(
    ax: Any, names: Sequence[object], *, width: float, height: float, columns: int = 3, sharey: bool = False
) -> Panels:
    """Panels of a size in inches on a figure of their own, or the axes of the user.

    Parameters
    ----------
    ax : Axes, sequence of Axes or None
        What the user gave.
    names : sequence
        What the panels show, one each.

    Raises
    ------
    EffectError
        Not as many axes as there are panels.
    """
    n, plt = len(names), pyplot()
    if ax is not None:
        given = list(ax.ravel()) if isinstance(ax, np.ndarray) else list(ax) if isinstance(ax, list | tuple) else [ax]
        wrong = [one for one in given if not isinstance(one, plt.Axes)]
        if wrong or len(given) != n:
            found = f"a {type(wrong[0]).__name__}" if wrong else f"{len(given)}"
            what = f"a list of {n} axes ({', '.join(map(str, names))})" if n > 1 else "one Axes of matplotlib"
            raise EffectError(f"ax= takes {what}, as the picture has {n} panel{'s' * (n > 1)}; found {found}")
        return Panels(given, own=False, columns=1)
    columns = min(n, columns)
    rows = -(-n // columns)
    size = (width * columns, height * rows)
    made = plt.subplots(rows, columns, figsize=size, squeeze=False, sharey=sharey, layout="constrained")[1].ravel()
    for one in made[n:]:
        one.set_visible(False)
    return Panels(list(made[:n]), own=True, columns=columns)


def one_panel(ax: Axes | None, width: float = 6.0, height: float = 4.0) -> Axes:
    """Axes on a figure of their own, or those of the user."""
    return new_panels(ax, [""], width=width, height=height).first


def across(ax: Axes) -> int:
    """Letters of size "medium" that stand side by side below axes."""
    return max(int(MEDIUM * _inches(ax)[0]), FEWEST)


def along(ax: Axes) -> int:
    """Letters of size "medium" that stand beside axes."""
    return max(int(MEDIUM * _inches(ax)[1]), FEWEST)


def _inches(ax: Axes) -> tuple[float, float]:
    """Width and height, or what a layout that is made when the figure is drawn will leave of its share."""
    box, figure, spec = ax.get_window_extent(), ax.figure.bbox, ax.get_subplotspec()
    width, height = box.width / ax.figure.dpi, box.height / ax.figure.dpi
    if spec is None or ax.figure.get_layout_engine() is None:
        return width, height
    grid = spec.get_gridspec()
    shares = figure.width / grid.ncols / ax.figure.dpi, figure.height / grid.nrows / ax.figure.dpi
    label = LINE * ax.get_ylabel().count("\n")
    return max(width - label, shares[0] - BESIDE[0] - label), max(height, shares[1] - BESIDE[1])


def caption_lines(text: str, room: int, most: int = MOST_LINES) -> str:
    """Lines of a caption as they are drawn, each wrapped to the room there is."""
    return literal("\n".join(wrapped(line, room, most=most) for line in text.split("\n") if line))


def titled(ax: Axes, text: str) -> None:
    """A title in lines that fit the axes; lines of the text stay lines."""
    ax.set_title(caption_lines(text, across(ax), MOST_OF_ONE), fontsize="medium")


def legend_in(ax: Axes, **options: Any) -> None:
    """A legend without a frame."""
    ax.legend(**{"frameon": False, "fontsize": "small", **options})


def style_of(k: int) -> dict[str, Any]:
    """Colour and dashes of the k-th of few lines."""
    return {"color": MANY[k % len(MANY)], "ls": ("-", "--")[k // 4 % 2]}


def intervals_of(level: float, *more: str) -> str:
    """The first line of a caption, ``95% intervals``, and what else there is to say."""
    return ", ".join(filter(None, [f"{100 * level:g}% intervals", *more]))
