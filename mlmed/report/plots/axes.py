"""Axes, colours, captions and long names for all pictures.

``ax=`` takes what the picture returns: an ``Axes``, or a list with one per panel; without it a new figure is made. On
the user's axes nothing else of the figure is touched, and the caption stands above the (first) panel.
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


#: Colours that differ for any colour vision, and in grey: Okabe and Ito's, without black and yellow, and two of Tol's.
#: Black is for data and population, ``MAIN`` for estimates, ``ACCENT`` for marks.
MAIN, ACCENT = "#0072B2", "#D55E00"
MANY = (MAIN, ACCENT, "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#882255", "#999933")
DARK, GREY, FAINT = "0.4", "0.6", "0.8"
#: Letters per inch in the default font, sizes "medium" and "small".
MEDIUM, SMALL = 13.0, 15.0
#: Inches of a panel's width and height for ticks, labels and titles; fewest letters of a line.
BESIDE, FEWEST = (0.95, 1.3), 12
#: Separators of the parts of a name.
NAMES = f"{OF_EQUATION}:"
#: Characters after which a line may break, the best first.
BREAKS = (" ", NAMES, "._")
#: Lines of a caption that fit a figure, inches of each further one, most lines that one line of text wraps to above
#: several panels, and above one.
FREE_LINES, LINE, MOST_LINES, MOST_OF_ONE = 2, 0.2, 8, 3


def pyplot() -> Any:
    """Import ``matplotlib.pyplot``.

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
    r"""Escape a user's text, a name or a level, for matplotlib: a dollar starts no formula.

    Apply last, as the escapes do not show.

    Examples
    --------
    >>> print(literal("income in $"))
    income in \$
    """
    return str(text).replace("$", r"\$")


def wrapped(text: str, width: int, *, most: int = 4) -> str:
    r"""Wrap text to lines of at most ``width`` letters.

    Break at blanks, then at the signs between names, then at dots and underscores, then anywhere; text of more than
    ``most`` lines ends in three dots.

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
    """Wrap to lines, with their trailing blanks."""
    if len(text.rstrip()) <= width:
        return [text]
    for marks in BREAKS:
        parts = [part for part in re.split(f"(?<=[{marks}])", text) if part]
        if len(parts) > 1:
            every = [line for part in parts for line in _lines(part, width)]
            return every if marks == NAMES else _joined(every, width)
    return [text[k : k + width] for k in range(0, len(text), width)]


def _joined(parts: list[str], width: int) -> list[str]:
    """Join uncut parts to as few lines as possible."""
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
        Panels side by side; 1 on the user's axes, each of which gets its own labels.
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
        """The figure, if it was made for these axes."""
        return cast("Figure", self.first.figure)

    @property
    def leftmost(self) -> list[Axes]:
        """The first panel of every row."""
        return self.axes[:: self.columns]

    def caption(self, text: str) -> None:
        """Write above all panels, or above the first one on the user's axes; line breaks are kept.

        Call last, when the title of the first panel is known.
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
    """Make panels of a size in inches on a new figure, or use the axes of the user.

    Parameters
    ----------
    ax : Axes, sequence of Axes or None
        From the user.
    names : sequence
        One name per panel.

    Raises
    ------
    EffectError
        The numbers of axes and panels differ.
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
    """Make axes on a new figure, or use those of the user."""
    return new_panels(ax, [""], width=width, height=height).first


def across(ax: Axes) -> int:
    """Letters of size "medium" that fit below axes."""
    return max(int(MEDIUM * _inches(ax)[0]), FEWEST)


def along(ax: Axes) -> int:
    """Letters of size "medium" that fit beside axes."""
    return max(int(MEDIUM * _inches(ax)[1]), FEWEST)


def _inches(ax: Axes) -> tuple[float, float]:
    """Width and height of axes, allowing for a layout that is computed when the figure is drawn."""
    box, figure, spec = ax.get_window_extent(), ax.figure.bbox, ax.get_subplotspec()
    width, height = box.width / ax.figure.dpi, box.height / ax.figure.dpi
    if spec is None or ax.figure.get_layout_engine() is None:
        return width, height
    grid = spec.get_gridspec()
    shares = figure.width / grid.ncols / ax.figure.dpi, figure.height / grid.nrows / ax.figure.dpi
    label = LINE * ax.get_ylabel().count("\n")
    return max(width - label, shares[0] - BESIDE[0] - label), max(height, shares[1] - BESIDE[1])


def caption_lines(text: str, room: int, most: int = MOST_LINES) -> str:
    """Wrap the lines of a caption to the room available."""
    return literal("\n".join(wrapped(line, room, most=most) for line in text.split("\n") if line))


def titled(ax: Axes, text: str) -> None:
    """Set a title, wrapped to the axes; line breaks are kept."""
    ax.set_title(caption_lines(text, across(ax), MOST_OF_ONE), fontsize="medium")


def legend_in(ax: Axes, **options: Any) -> None:
    """Draw a legend without a frame."""
    ax.legend(**{"frameon": False, "fontsize": "small", **options})


def style_of(k: int) -> dict[str, Any]:
    """Colour and dashes of the k-th of few lines."""
    return {"color": MANY[k % len(MANY)], "ls": ("-", "--")[k // 4 % 2]}


def intervals_of(level: float, *more: str) -> str:
    """First line of a caption, ``95% intervals``, with further parts."""
    return ", ".join(filter(None, [f"{100 * level:g}% intervals", *more]))
