"""Write files whole or not at all, and check targets before the work starts."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

from mlmed.errors import DataError

_Path = str | os.PathLike[str]
#: Paths of open descriptors, links followed; in /proc those of this process.
_DESCRIPTOR = r"/(?:dev|proc/{process})/fd/(\d+)"
#: Most links followed.
_MOST_LINKS = 40


@contextmanager
def replacing(path: _Path) -> Iterator[IO[bytes]]:
    """A file to write to that replaces the target once complete: readers see the old file or the new one.

    A temporary file in the same folder is written, synced to disk and renamed; on failure it is removed and the target
    stays unchanged. Permissions of the target are kept and links followed. Pipes, terminals and ``/dev/stdout`` are
    written to directly.

    Raises
    ------
    DataError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "a.txt") as file:
    ...         _ = file.write(b"whole")
    ...     os.listdir(folder), (Path(folder) / "a.txt").read_text()
    (['a.txt'], 'whole')
    """
    try:
        stream = _stream(path)
        if stream is not None:
            with stream:
                yield stream
        else:
            with _renamed(os.path.realpath(path)) as file:
                yield file
    except OSError as error:
        raise _cannot(path, error) from error


def write_text(path: _Path, text: str) -> None:
    r"""Write UTF-8 text by ``replacing``; lone surrogates are written as ``\udc80``."""
    with replacing(path) as file:
        file.write(text.encode("utf-8", errors="backslashreplace"))


def check_target(path: _Path, inputs: Iterable[_Path] = ()) -> None:
    """Refuse a target that cannot be written, or that is an input.

    A temporary file is created in its folder and removed, as writing will need one.

    Raises
    ------
    DataError
        If its folder does not exist or cannot be written to, the target is a directory, or it is an input (also under
        another name: a link, a hard link, a relative path).
    """
    try:
        if _descriptor(path) is not None:
            return
        found = _status(path)
        if found is not None:
            _refuse_input(path, found, inputs)
        if found is None or stat.S_ISREG(found.st_mode):
            target = os.path.realpath(path)
            _refuse_read_only(target, found)
            handle, made = _temporary(target)
            os.close(handle)
            os.unlink(made)
        elif stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as error:
        raise _cannot(path, error) from error


def _cannot(path: _Path, error: OSError) -> DataError:
    said = error.strerror or str(error)
    return DataError(f"cannot write {os.fspath(path)}: {said}; check the folder, its permissions and its space")


def _status(path: _Path) -> os.stat_result | None:
    """The status of a path, links followed; None if nothing is there.

    Raises
    ------
    DataError
        If it is no valid path.
    """
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None
    except ValueError as error:  # a zero byte, or letters that no encoding has
        raise DataError(f"{os.fspath(path)!r} is not the name of a file ({error}); write another one") from error


def _refuse_input(path: _Path, found: os.stat_result, inputs: Iterable[_Path]) -> None:
    for source in inputs:
        if _is(found, source):
            same = "" if os.fspath(path) == os.fspath(source) else f", which is the same file as {os.fspath(source)},"
            raise DataError(f"{os.fspath(path)}{same} is read by this command and would be lost; name another file")


def _is(found: os.stat_result, source: _Path) -> bool:
    try:
        return os.path.samestat(found, os.stat(source))
    except (OSError, ValueError):  # unreadable inputs are reported where they are read
        return False


def _refuse_read_only(target: str, found: os.stat_result | None) -> None:
    """Refuse to replace a read-only file, which a writable folder would allow."""
    if found is not None and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is there and must not be written")


def _descriptor(path: _Path) -> int | None:
    """The open descriptor named by a path such as ``/dev/stdout``."""
    name, pattern = os.path.abspath(path), _DESCRIPTOR.format(process=os.getpid())
    for _ in range(_MOST_LINKS):
        folder = os.path.realpath(os.path.dirname(name))
        named = re.fullmatch(pattern, os.path.join(folder, os.path.basename(name)))
        if named:
            return int(named[1])
        if not os.path.islink(name):
            break
        name = os.path.normpath(os.path.join(folder, os.readlink(name)))
    return None


def _stream(path: _Path) -> IO[bytes] | None:
    """A stream to an open descriptor, a pipe or a device; None for a regular or new file."""
    found = _status(path)
    number = _descriptor(path)
    if number is not None:
        return os.fdopen(os.dup(number), "wb")
    if found is None or stat.S_ISREG(found.st_mode):
        return None
    return open(path, "wb")


@contextmanager
def _renamed(target: str) -> Iterator[IO[bytes]]:
    found = _status(target)
    _refuse_read_only(target, found)
    handle, made = _temporary(target)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(handle)
        if found is not None:
            with suppress(OSError, AttributeError):  # keep the owner where the system allows it
                os.chown(made, found.st_uid, found.st_gid)
            os.chmod(made, stat.S_IMODE(found.st_mode))
        os.replace(made, target)
    except BaseException:  # also interruptions: nothing half written stays
        with suppress(OSError):
            os.unlink(made)
        raise


def _temporary(target: str) -> tuple[int, str]:
    """A new file in the folder of the target, with the usual permissions of new files."""
    made = os.path.join(os.path.dirname(target), f".mlmed-{secrets.token_hex(8)}.tmp")
    return os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666), made
