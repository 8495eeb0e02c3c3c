"""What happens when a command is stopped: Ctrl-C, a signal to end, a reader of its output that has left."""

from __future__ import annotations

import os
import signal
import sys
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

from mlmed.errors import DataError, abridged

#: Signals that ask to end; those that the system does not have are left out.
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
#: Seconds in which an engine has to hand on a signal.
PATIENCE = 5


class _Stopped(BaseException):
    """A signal to end has come; no ``Exception``, so that nothing on the way up takes it for a failure of its own."""


@dataclass(slots=True)
class Stop:
    """The signal that came, if one did.

    Attributes
    ----------
    number : int or None
        Its number.
    """

    number: int | None = None

    @property
    def status(self) -> int:
        """The exit status that shells give to it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.number or 0)


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Run a command so that a signal to end unwinds it: temporary files are removed and workers ended.

    A second signal ends the process at once. Signals that are ignored (``nohup``) stay ignored.
    """
    stop, over = Stop(), threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        stop.number = number
        signal.signal(number, signal.SIG_DFL)
        if frame is not None:
            threading.Thread(target=_end_if_lost, args=(stop, frame, frame.f_lasti, over), daemon=True).start()
        raise _Stopped

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in SIGNALS if hasattr(signal, name)):
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, end)
    try:
        yield stop
    except BaseException:
        if stop.number is None:
            raise
        # an engine may hand the signal over as an error of its own, so anything counts once one has come
        say(f"stopped by {signal.Signals(stop.number).name}")
    finally:
        over.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_if_lost(stop: Stop, frame: FrameType, at: int, over: threading.Event) -> None:
    """End the process where the main thread does not leave the instruction at which a signal came.

    Some engine may lose what the signal raised, and computes on without a look at further ones.
    """
    main = threading.main_thread().ident
    for _ in range(PATIENCE):
        if over.wait(1.0) or main is None or sys._current_frames().get(main) is not frame or frame.f_lasti != at:
            return
    say(f"stopped by {signal.Signals(stop.number or 0).name}")
    os._exit(stop.status)


def say(text: str) -> None:
    """A line on standard error, if there is one."""
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(f"mlmed: {readable(text)}\n")


def readable(text: str) -> str:
    r"""A message as one line that a terminal only shows.

    A name or value in it may hold what ends the line, moves the cursor, turns the direction or cannot be written at
    all; such characters are shown by their numbers.

    Examples
    --------
    >>> print(readable("no file a\nb\x1b[2J.csv"))
    no file a\x0ab\x1b[2J.csv
    """
    return abridged("".join(map(_shown, text)))


#: Control, format (direction, joiners), halves of a character, and ends of lines and paragraphs.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def _shown(letter: str) -> str:
    if unicodedata.category(letter) not in _UNSEEN:
        return letter
    number = ord(letter)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def print_text(text: str) -> None:
    """A text on standard output, all of it: nothing is left in the buffer.

    Raises
    ------
    BrokenPipeError
        If its reader (``head``, ``less``) has seen enough.
    DataError
        If it is closed, or cannot take the text.
    """
    if sys.stdout is None:
        raise DataError("standard output is closed; name a file with --out")
    try:
        sys.stdout.write(_writable(text, sys.stdout.encoding))
        sys.stdout.flush()
    except OSError as error:
        _discard()
        if isinstance(error, BrokenPipeError):
            raise
        raise DataError(f"cannot write to standard output: {error.strerror}; name a file with --out") from error


def _writable(text: str, encoding: str | None) -> str:
    r"""Letters that the encoding of a terminal lacks are written as ``\xe4``."""
    chosen = encoding or "utf-8"
    return text.encode(chosen, errors="backslashreplace").decode(chosen)


def _discard() -> None:
    """Let what is left in the buffer of standard output go nowhere, where Python would complain of it at the end."""
    with suppress(OSError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
