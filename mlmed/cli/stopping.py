"""Stop a command: on Ctrl-C, a signal to end, or when the reader of its output has left."""

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
from typing import Any, TextIO

from mlmed.errors import DataError, abridged

#: Signals to end; the system may lack some.
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
#: Seconds an engine has to pass on a signal.
PATIENCE = 5


class _Stopped(BaseException):
    """A signal to end has come; not an ``Exception``, so that no handler takes it for a failure."""


@dataclass(slots=True)
class Stop:
    """The signal received, if any.

    Attributes
    ----------
    number : int or None
        Number of the signal.
    """

    number: int | None = None

    @property
    def status(self) -> int:
        """The exit status by the convention of shells: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.number or 0)


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Run a command so that a signal to end unwinds it: temporary files are removed, workers ended.

    A second signal ends the process at once. Ignored signals (``nohup``) stay ignored.
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
        # an engine may turn the signal into its own error, so any error counts once a signal has come
        say(f"stopped by {signal.Signals(stop.number).name}")
    finally:
        over.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_if_lost(stop: Stop, frame: FrameType, at: int, over: threading.Event) -> None:
    """End the process if the main thread stays at the instruction where a signal came.

    Some engines lose the raised exception and compute on, deaf to further signals.
    """
    main = threading.main_thread().ident
    for _ in range(PATIENCE):
        if over.wait(1.0) or main is None or sys._current_frames().get(main) is not frame or frame.f_lasti != at:
            return
    say(f"stopped by {signal.Signals(stop.number or 0).name}")
    os._exit(stop.status)


def say(text: str) -> None:
    """Print a line on standard error, if there is one."""
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(f"mlmed: {readable(text)}\n")
        settle_errors()


def settle_errors() -> None:
    """Flush standard error, or discard what it does not take."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.flush()
    except OSError:
        _discard(sys.stderr)


def readable(text: str) -> str:
    r"""A message as one line, safe to print on a terminal.

    Names and values in it may have characters that end the line, move the cursor, change the direction of text or
    cannot be written; these are shown as escapes.

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
    """Print a text on standard output and flush it.

    Raises
    ------
    BrokenPipeError
        If the reader (``head``, ``less``) has left.
    DataError
        If standard output is closed or cannot take the text.
    """
    if sys.stdout is None:
        raise DataError("standard output is closed; name a file with --out")
    try:
        sys.stdout.write(_writable(text, sys.stdout.encoding))
        sys.stdout.flush()
    except OSError as error:
        _discard(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise
        raise DataError(f"cannot write to standard output: {error.strerror}; name a file with --out") from error


def _writable(text: str, encoding: str | None) -> str:
    r"""Escape letters that the encoding lacks, as in ``\xe4``."""
    chosen = encoding or "utf-8"
    return text.encode(chosen, errors="backslashreplace").decode(chosen)


def _discard(stream: TextIO) -> None:
    """Discard the buffer of a stream that takes nothing; Python would end with status 120 for it."""
    with suppress(OSError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
