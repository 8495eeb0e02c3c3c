"""Names of any length in pictures: lines that fit the room there is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from mlmed.errors import EffectError
from mlmed.names import OF_EQUATION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MEDIUM", "SMALL", "figure_of", "literal", "longest_line", "put_caption", "pyplot", "wrapped"]

#: Letters to an inch in the default font, in its sizes "medium" and "small".
MEDIUM, SMALL = 13.0, 15.0
#: Between the parts of a name.
NAMES = f"{OF_EQUATION}:"
#: After what a line may end, the best first.
BREAKS = (" ", NAMES, "._")


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


def longest_line(texts: list[str]) -> int:
    """Letters of the longest line of all texts."""
    return max(len(line) for text in texts for line in text.split("\n"))


def figure_of(ax: Axes) -> Figure:
    """The figure of axes that ``new_axes`` or ``new_panels`` made."""
    return cast("Figure", ax.figure)


def put_caption(ax: Axes, text: str) -> None:
    """The title of the whole figure, in lines that fit its width; lines of the text stay lines."""
    figure = figure_of(ax)
    room = int(MEDIUM * figure.get_figwidth())
    figure.suptitle(literal("\n".join(wrapped(line, room) for line in text.split("\n") if line)), fontsize="medium")
