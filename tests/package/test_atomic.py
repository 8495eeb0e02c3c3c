"""Files are written whole or not at all, and a target is judged before the work."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from mlmed.atomic import check_target, replacing, write_text
from mlmed.errors import DataError

POSIX = pytest.mark.skipif(os.name != "posix", reason="permissions and links of POSIX")
#: Permissions do not bind the superuser, who runs the tests of some build machines.
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
BIG = 200_000


class Full:
    """A file on a disk that is full after some bytes."""

    def __init__(self, file: IO[bytes], room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: bytes) -> int:
        self.file.write(data[: self.room])
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(data)

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *how: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Everything written from now on fails after so many bytes."""
    opened = os.fdopen

    def fill(room: int) -> None:
        monkeypatch.setattr("mlmed.atomic.os.fdopen", lambda handle, mode: Full(opened(handle, mode), room))

    return fill


@pytest.mark.parametrize("before", [None, "old\n"])
def test_a_text_takes_the_place_of_the_old_one(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "out.txt"
    if before is not None:
        path.write_text(before)
    write_text(path, "größe\n")
    assert path.read_bytes() == "größe\n".encode()
    assert os.listdir(tmp_path) == ["out.txt"]


@pytest.mark.parametrize("room", [0, 1000, BIG - 1])
@pytest.mark.parametrize("before", [None, b"old\n"])
def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, full_disk: Callable[[int], None], room: int, before: bytes | None
) -> None:
    path = tmp_path / "out.txt"
    if before is not None:
        path.write_bytes(before)
    full_disk(room)
    with pytest.raises(DataError, match=r"cannot write .*out\.txt: No space left"):
        write_text(path, "x" * BIG)
    assert os.listdir(tmp_path) == ([] if before is None else ["out.txt"])
    assert before is None or path.read_bytes() == before


@POSIX
def test_a_file_that_grows_too_large_for_the_kernel(tmp_path: Path) -> None:
    """A limit of the system, not of a stand-in: half of the text fits."""
    path = tmp_path / "out.txt"
    path.write_text("old\n")
    script = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from mlmed.atomic import write_text\n"
        "from mlmed.errors import DataError\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({BIG // 2}, {BIG // 2}))\n"
        "try:\n"
        f"    write_text({str(path)!r}, 'x' * {BIG})\n"
        "except DataError as error:\n"
        "    print(error)\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert "cannot write" in found.stdout
    assert (path.read_text(), os.listdir(tmp_path)) == ("old\n", ["out.txt"])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_device_that_is_full(tmp_path: Path) -> None:
    """Also through a link, which stays one."""
    (tmp_path / "link").symlink_to("/dev/full")
    for path in ("/dev/full", tmp_path / "link"):
        check_target(path)
        with pytest.raises(DataError, match="No space left"):
            write_text(path, "x" * BIG)
    assert (tmp_path / "link").is_symlink()
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, SystemExit])
def test_an_interruption_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old\n")
    with pytest.raises(error), replacing(path) as file:  # noqa: PT012
        file.write(b"half")
        raise error
    assert (path.read_text(), os.listdir(tmp_path)) == ("old\n", ["out.txt"])


def test_readers_see_no_half_of_a_file(tmp_path: Path) -> None:
    """Between the first byte and the last the old file is there."""
    path = tmp_path / "out.txt"
    path.write_text("old\n")
    with replacing(path) as file:
        file.write(b"x" * BIG)
        file.flush()
        assert path.read_text() == "old\n"
    assert path.stat().st_size == BIG


def test_two_writers_leave_one_whole_file(tmp_path: Path) -> None:
    """And every reader sees the whole text of one of them."""
    path = tmp_path / "out.txt"
    path.write_text("a" * BIG)
    script = (
        "import sys\n"
        "from mlmed.atomic import write_text\n"
        "for _ in range(60):\n"
        f"    write_text(sys.argv[1], sys.argv[2] * {BIG})\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(path), letter]) for letter in "ab"]
    while any(writer.poll() is None for writer in writers):
        assert path.read_text() in ("a" * BIG, "b" * BIG)
    assert [writer.wait() for writer in writers] == [0, 0]
    assert path.read_text() in ("a" * BIG, "b" * BIG)
    assert os.listdir(tmp_path) == ["out.txt"]


@POSIX
def test_permissions(tmp_path: Path) -> None:
    """Those of the file that was there; of a new one those that the user has set."""
    path, new = tmp_path / "out.txt", tmp_path / "new.txt"
    path.write_text("old")
    path.chmod(0o640)
    before = os.umask(0o027)
    try:
        write_text(path, "x")
        write_text(new, "x")
    finally:
        os.umask(before)
    assert [stat.S_IMODE(file.stat().st_mode) for file in (path, new)] == [0o640, 0o640]
    path.chmod(0o604)
    write_text(path, "x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


@POSIX
def test_a_link_is_written_through(tmp_path: Path) -> None:
    """Relative, in another folder, and to a file that is not there yet."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "old.txt").write_text("old")
    for name in ("old.txt", "new.txt"):
        link = tmp_path / f"link-{name}"
        link.symlink_to(Path("real") / name)
        check_target(link)
        write_text(link, "x")
        assert link.is_symlink()
        assert (tmp_path / "real" / name).read_text() == "x"
    assert sorted(os.listdir(tmp_path / "real")) == ["new.txt", "old.txt"]


@POSIX
def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe, found = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    check_target(pipe)
    write_text(pipe, "x" * BIG)
    reader.join()
    assert found == [b"x" * BIG]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@POSIX
@pytest.mark.parametrize("sign", [">", ">>"])
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_an_open_descriptor_goes_on_where_it_is(tmp_path: Path, name: str, sign: str) -> None:
    """Neither what was in a redirected output before nor what follows is lost."""
    if name.startswith("/proc") and not os.path.exists(name):
        pytest.skip("no /proc")
    (tmp_path / "link").symlink_to("/dev/stdout")
    (tmp_path / "log").write_text("0\n")
    target = str(tmp_path / name) if name == "link" else name
    script = "import sys; from mlmed.atomic import *; check_target(sys.argv[1]); write_text(sys.argv[1], 'b\\n')"
    shell = f'{{ echo a; {sys.executable} -c "{script}" {target}; echo c; }} {sign} log'
    subprocess.run(["bash", "-c", shell], cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert (tmp_path / "log").read_text() == ("a\nb\nc\n" if sign == ">" else "0\na\nb\nc\n")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none/out.txt", "No such file"),
        ("file/out.txt", "[Nn]ot a directory|No such file"),
        ("folder", "Is a directory"),
        ("x" * 300, "[Nn]ame too long"),
        ("a\0b", "is not the name of a file"),
        ("\ud800", "is not the name of a file"),
    ],
    ids=["no folder", "a file", "a folder", "long", "zero", "surrogate"],
)
def test_what_cannot_be_written_is_said_before(tmp_path: Path, name: str, said: str) -> None:
    """The same is said when it is written."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    for write in (check_target, lambda path: write_text(path, "x")):
        with pytest.raises(DataError, match=said):
            write(os.path.join(tmp_path, name))
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@POSIX
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a folder in which nobody can make a file")
def test_a_folder_that_takes_no_files() -> None:
    for write in (check_target, lambda path: write_text(path, "x")):
        with pytest.raises(DataError, match="cannot write /proc/self/out"):
            write("/proc/self/out")


@POSIX
@pytest.mark.skipif(ROOT, reason="permissions do not bind the superuser")
@pytest.mark.parametrize("locked", ["folder", "file"])
def test_permissions_are_heeded(tmp_path: Path, locked: str) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")
    (tmp_path if locked == "folder" else path).chmod(0o555)
    try:
        for write in (check_target, lambda path: write_text(path, "x")):
            with pytest.raises(DataError, match="cannot write"):
                write(path)
    finally:
        tmp_path.chmod(0o755)
    assert path.read_text() == "old"


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("old")
    check_target(tmp_path / "old.txt")
    check_target(tmp_path / "new.txt")
    assert os.listdir(tmp_path) == ["old.txt"]
    assert (tmp_path / "old.txt").read_text() == "old"


@POSIX
def test_an_input_is_no_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name, by another one, through links of both kinds."""
    source = tmp_path / "data.csv"
    source.write_text("id,x\n")
    (tmp_path / "soft.csv").symlink_to("data.csv")
    os.link(source, tmp_path / "hard.csv")
    monkeypatch.chdir(tmp_path)
    for name in (source, "data.csv", "./../" + tmp_path.name + "/data.csv", "soft.csv", "hard.csv"):
        with pytest.raises(DataError, match="is read by this command and would be lost"):
            check_target(name, ["missing.csv", source])
    check_target("other.csv", ["missing.csv", source])
