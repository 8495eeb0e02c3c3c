"""Commands lose nothing: targets are judged before anything is read, signals end a command and its workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.cli import main
from mlmed.cli.commands import COMMANDS
from tests.models import MEDIATOR, OUTCOME

POSIX = pytest.mark.skipif(os.name != "posix", reason="links and signals of POSIX")
LINUX = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="processes are looked up in /proc")
BOTH = ("--mediator", MEDIATOR, "--outcome", OUTCOME)
#: What every command needs beside DATA and --out.
NEEDED: dict[str, tuple[str, ...]] = {
    "mediate": BOTH,
    "piecewise": BOTH,
    "causal": BOTH,
    "compare": BOTH,
    "mixed": ("--formula", MEDIATOR),
    "location-scale": ("--location", MEDIATOR, "--scale", "~ x"),
    "stack": ("--x", "x", "--m", "m", "--y", "y", "--cluster", "id"),
    "grams": ("--formula", MEDIATOR),
}
WITHOUT_DATA = {"reproduce": ("yuan",), "datasets": ("yuan_mackinnon_sim",)}
EVERY = [*NEEDED, *WITHOUT_DATA]


def arguments(command: str, data: object) -> list[str]:
    """A command on some data."""
    return [command, *([str(data), *NEEDED[command]] if command in NEEDED else WITHOUT_DATA[command])]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A table in a folder of its own."""
    path = tmp_path / "in" / "data.csv"
    path.parent.mkdir()
    mlmed.simulate.bpg(20, 6, seed=3).data.to_csv(path, index=False)
    return path


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """No command may get as far as its function."""

    def never(name: str) -> Any:
        pytest.fail("the command was started")

    monkeypatch.setattr("mlmed.cli.function", never)


def test_every_command_is_here() -> None:
    assert set(EVERY) == set(COMMANDS)


# -- targets ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("command", EVERY)
@pytest.mark.parametrize("out", ["none/out.txt", "in", "in/data.csv/out.txt", "x" * 300, "a\0b", "\udcff\ud800"])
def test_a_bad_target_is_known_before_anything_is_read(
    command: str, out: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments(command, data), "--out", str(tmp_path / out)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("mlmed: ")
    assert "cannot write" in said.err or "is not the name of a file" in said.err
    assert sorted(os.listdir(tmp_path)) == ["in"]


@POSIX
@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("command", NEEDED)
@pytest.mark.parametrize("how", ["same", "relative", "link", "hard link", "linked data"])
def test_an_input_is_no_target(
    command: str, how: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    before, source, target = data.read_bytes(), data, data
    if how == "relative":
        monkeypatch.chdir(tmp_path)
        target = Path("in/../in/data.csv")
    elif how == "link":
        target = tmp_path / "link.csv"
        target.symlink_to(data)
    elif how == "hard link":
        target = tmp_path / "hard.csv"
        os.link(data, target)
    elif how == "linked data":
        source = tmp_path / "link.csv"
        source.symlink_to(data)
    assert main([*arguments(command, source), "--out", str(target)]) == 2
    assert "is read by this command and would be lost" in capsys.readouterr().err
    assert data.read_bytes() == before


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("pattern", ["*.parquet", "part-?.parquet", "part-[01].parquet", "../**/part-*.parquet"])
@pytest.mark.parametrize("command", ["mediate", "grams"])
def test_one_of_several_shards_is_no_target(
    command: str, pattern: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "obs"
    folder.mkdir()
    for k in range(2):
        mlmed.simulate.bpg(20, 6, seed=k).data.to_parquet(folder / f"part-{k}.parquet")
    before = (folder / "part-1.parquet").read_bytes()
    assert main([*arguments(command, folder / pattern), "--out", str(folder / "part-1.parquet")]) == 2
    assert "would be lost" in capsys.readouterr().err
    assert (folder / "part-1.parquet").read_bytes() == before


@pytest.mark.usefixtures("unread")
def test_stored_grams_and_example_data_are_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the name of the example, too, and for commands that read examples without naming them."""
    path = tmp_path / "g.parquet"
    mlmed.grams(MEDIATOR, mlmed.simulate.bpg(20, 6, seed=3).data).save(path)
    shipped = Path(mlmed.__file__).parent / "datasets" / "yuan_mackinnon_sim.csv"
    monkeypatch.setenv("MLMED_DATA", str(tmp_path))
    (tmp_path / "ml_sim.csv").write_text("id,x,m,y\n")
    for line in (
        [*arguments("grams", path), "--out", str(path)],
        ["datasets", "ml_sim", "--out", str(tmp_path / "ml_sim.csv")],
        ["reproduce", "yuan", "--out", str(shipped)],
        [*arguments("mediate", "yuan_mackinnon_sim"), "--out", str(shipped)],
    ):
        assert main(line) == 2
        assert "would be lost" in capsys.readouterr().err


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("plot", "said"),
    [
        ("none/plot.png", "cannot write"),
        ("plot.xyz", "cannot write the picture"),
        ("plot.pgf", "cannot write the picture"),
        ("in", "cannot write"),
        ("in/data.csv", "would be lost"),
        ("out.txt", "two files"),
    ],
)
def test_a_picture_is_a_target(
    plot: str, said: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    line = [*arguments("compare", data), "--out", str(tmp_path / "out.txt"), "--plot", str(tmp_path / plot)]
    assert main(line) == 2
    assert said in capsys.readouterr().err


def test_grams_without_a_target_are_not_made(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments("grams", data.with_name("missing.csv"))) == 2
    assert "say where to store the Grams" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["png", "pdf", "svg", "jpg", ""])
def test_pictures_are_written_whole(data: Path, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"plot.{kind}".rstrip(".")
    path.write_bytes(b"old")
    assert main([*arguments("compare", data), "--plot", str(path), "--out", str(tmp_path / "out.txt")]) == 0
    marks = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml", "jpg": b"\xff\xd8", "": b"\x89PNG"}
    assert path.read_bytes().startswith(marks[kind])
    assert sorted(os.listdir(tmp_path)) == sorted(["in", "out.txt", path.name])


@pytest.mark.parametrize("command", ["mediate", "stack", "datasets", "grams"])
def test_a_full_disk_leaves_the_old_file(
    command: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "out.parquet"
    path.write_text("old")
    monkeypatch.setattr("mlmed.atomic.os.fsync", full)
    assert main([*arguments(command, data), "--out", str(path)]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert path.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["in", "out.parquet"]


# -- odd paths and streams -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", NEEDED)
@pytest.mark.parametrize(
    "source",
    ["x" * 300 + ".csv", "x" * 300 + ".parquet", "a\0b.csv", "a\0b.parquet", "a\0*.parquet", "~nobody-here/x.csv"],
)
def test_names_that_are_none(command: str, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", "/dev/null") if command == "grams" else ()
    assert main([*arguments(command, source), *out]) == 2
    assert capsys.readouterr().err.startswith("mlmed: ")


@pytest.mark.parametrize("kind", [".csv", ".parquet", "*.parquet", ""])
def test_a_folder_that_must_not_be_looked_into(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The superuser may look into every folder, so the system's answer is put in its place."""
    stat = os.stat

    def refuse(path: Any, *more: Any, **options: Any) -> os.stat_result:
        if "closed" in str(path):
            raise PermissionError(13, "Permission denied")
        return stat(path, *more, **options)

    monkeypatch.setattr("os.stat", refuse)
    assert main(arguments("mediate", tmp_path / "closed" / f"data{kind}")) == 2
    monkeypatch.undo()
    said = capsys.readouterr().err
    assert "Permission denied" in said or kind == "*.parquet"


@POSIX
def test_a_working_directory_that_was_removed(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        f"os.chdir({str(tmp_path)!r}); os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')\n"
        "from mlmed.cli import main\n"
        f"sys.exit(main(['mediate', 'data.csv', '--mediator', {MEDIATOR!r}, '--outcome', {OUTCOME!r}]))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment(), check=False
    )
    assert (found.returncode, "Traceback" in found.stderr) == (2, False), found.stderr


def environment(**more: str) -> dict[str, str]:
    """That of a program that imports this package."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # which hides lost output
    return {**own, "PYTHONPATH": str(Path(mlmed.__file__).parents[1]), **more}


def shell(line: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in which ``mlmed`` is the program."""
    prepared = f'mlmed() {{ "{sys.executable}" -m mlmed.cli "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", prepared],
        capture_output=True, text=True, env=environment(**more), timeout=120, check=False,
    )  # fmt: skip


@POSIX
@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("mlmed datasets yuan_mackinnon_sim >&-", 2, "standard output is closed"),
        ("mlmed datasets yuan_mackinnon_sim > /dev/full", 2, "cannot write to standard output: No space left"),
        ("mlmed datasets yuan_mackinnon_sim --out /dev/full", 2, "cannot write /dev/full: No space left"),
        ("mlmed datasets yuan_mackinnon_sim | true", 0, ""),
        ("mlmed datasets yuan_mackinnon_sim | head -1 > /dev/null", 0, ""),
        ("mlmed --help | true", 0, ""),
        ("mlmed mediate --help > /dev/full", 2, "cannot write to standard output"),
        ("mlmed --help >&-", 0, None),
        ("mlmed datasets nothing 2>&-", 2, ""),
        ("mlmed datasets nothing 2> /dev/full", 2, ""),
        ("mlmed nothing 2> /dev/full", 2, ""),
        ("mlmed nothing >&- 2>&-", 2, ""),
    ],
)
def test_streams_that_take_nothing(line: str, status: int, said: str | None) -> None:
    if "/dev/full" in line and not os.path.exists("/dev/full"):
        pytest.skip("a device of Linux")
    found = shell(line)
    assert found.returncode == status, found.stderr
    assert "Traceback" not in found.stderr
    assert "Exception ignored" not in found.stderr
    assert said is None or (said in found.stderr and found.stderr.count("\n") <= 1)


@POSIX
def test_letters_that_the_terminal_lacks(data: Path, tmp_path: Path) -> None:
    """Written as escapes, on the screen and nowhere else."""
    table = pd.read_csv(data).rename(columns={"x": "größe"})
    table.to_csv(tmp_path / "more.csv", index=False)
    line = f"mlmed mixed {tmp_path}/more.csv --formula 'm ~ größe + (1 | id)' --format csv"
    assert "gr\\xf6\\xdfe" in shell(line, PYTHONIOENCODING="ascii").stdout
    assert "größe" in shell(line, PYTHONIOENCODING="utf-8").stdout
    shell(f"{line} --out {tmp_path}/out.csv", PYTHONIOENCODING="ascii")
    assert "größe" in (tmp_path / "out.csv").read_text(encoding="utf-8")


@POSIX
def test_out_may_be_a_pipe(data: Path, tmp_path: Path) -> None:
    """/dev/stdout, another process, a named pipe; the same text."""
    line = f"mlmed stack {data} --x x --m m --y y --cluster id"
    expected = shell(line).stdout
    assert expected.count("\n") > 100
    assert shell(f"{line} --out /dev/stdout").stdout == expected
    assert shell(f"{line} --out >(cat); sleep 1").stdout == expected
    assert shell(f"mkfifo {tmp_path}/p; cat {tmp_path}/p & {line} --out {tmp_path}/p; wait").stdout == expected


# -- signals ---------------------------------------------------------------------------------------------------

STATUS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


@POSIX
@pytest.mark.parametrize("name", STATUS)
@pytest.mark.parametrize("command", EVERY)
def test_a_signal_ends_every_command(
    command: str, name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Status 128 and its number, one line, no traceback, no file; the handlers are those from before."""
    number = getattr(signal, name)

    def interrupted(options: Any) -> str:
        os.kill(os.getpid(), number)
        time.sleep(10)
        return "too late"

    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    monkeypatch.setattr("mlmed.cli.function", lambda command: interrupted)
    assert main([*arguments(command, data), "--out", str(tmp_path / "out.txt")]) == STATUS[name]
    assert capsys.readouterr() == ("", f"mlmed: stopped by {name}\n")
    assert os.listdir(tmp_path) == ["in"]
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers


@POSIX
def test_a_signal_while_the_file_is_written(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old file is there, the temporary one is not."""
    path = tmp_path / "out.csv"
    path.write_text("old")
    monkeypatch.setattr("mlmed.atomic.os.fsync", lambda handle: os.kill(os.getpid(), signal.SIGTERM))
    assert main([*arguments("stack", data), "--out", str(path)]) == 143
    assert path.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["in", "out.csv"]


LONG_QUERY = """
import sys
import duckdb
import mlmed.cli as run

def long(options):
    print("ready", flush=True)
    return str(duckdb.sql("SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b").fetchall())

run.function = lambda command: long
sys.exit(run.main(sys.argv[1:]))
"""


@POSIX
def test_a_signal_while_duckdb_computes(data: Path) -> None:
    """The engine may hand it over as an error of its own, or take the first one for itself."""
    pytest.importorskip("duckdb")
    command = [sys.executable, "-c", LONG_QUERY, *arguments("mediate", data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        try:
            assert run.stdout is not None
            assert run.stdout.readline() == "ready\n"
            time.sleep(1.0)
            for _ in range(3):  # a second signal ends a process at once, so the first has time
                run.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    run.wait(20.0)
                    break
            assert run.poll() == 130
            assert run.stderr is not None
            assert run.stderr.read() == "mlmed: stopped by SIGINT\n"
        finally:
            run.kill()


LOST = """
import sys, threading, time
from mlmed.cli.stopping import Stop, _end_if_lost

def watch():
    time.sleep(0.5)
    frame = sys._current_frames()[threading.main_thread().ident]
    _end_if_lost(Stop(2), frame, frame.f_lasti, threading.Event())

threading.Thread(target=watch, daemon=True).start()
if "stays" in sys.argv:
    time.sleep(60.0)  # as an engine that has lost a signal
for _ in range(100):
    threading.Event().wait(0.1)  # on its way out
"""


@POSIX
@pytest.mark.parametrize(("where", "status", "said"), [("stays", 130, "mlmed: stopped by SIGINT\n"), ("leaves", 0, "")])
def test_who_loses_a_signal_is_ended(where: str, status: int, said: str) -> None:
    """Only where the main thread does not leave the instruction at which the signal came."""
    run = subprocess.run([sys.executable, "-c", LOST, where], capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stderr) == (status, said)


@POSIX
def test_ignored_signals_stay_ignored(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under ``nohup``, or in the background of a script."""

    def hung_up(options: Any) -> str:
        os.kill(os.getpid(), signal.SIGHUP)
        return "done"

    monkeypatch.setattr("mlmed.cli.function", lambda command: hung_up)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main(arguments("mediate", data)) == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


# -- workers ---------------------------------------------------------------------------------------------------


def children(parent: int) -> list[int]:
    """Processes that compute for another one: not those that keep its books."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                called = Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:  # it has ended in between
                continue
            if int(fields[1]) == parent and b"popen_loky" in called:
                found.append(int(entry))
    return found


def is_running(process: int) -> bool:
    """Whether it is there and more than an entry that nobody has collected."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def until(condition: Callable[[], Any], seconds: float) -> Any:
    """The first true value, or the last false one."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


@pytest.fixture
def started() -> Iterator[Callable[..., tuple[subprocess.Popen[str], list[int]]]]:
    """Start a program with two workers and wait until they compute; whatever is left is ended at last."""
    running: list[tuple[subprocess.Popen[str], list[int]]] = []

    def start(*command: str, folder: Path, computing: bool = True) -> tuple[subprocess.Popen[str], list[int]]:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        workers: list[int] = []
        running.append((process, workers))
        workers += until(lambda: found if len(found := children(process.pid)) == 2 else [], 90.0)
        assert len(workers) == 2, process.poll()
        if computing:  # a worker that has got its first task has a thread that looks after its owner
            assert until(lambda: all(len(os.listdir(f"/proc/{one}/task")) > 1 for one in workers), 90.0)
        return process, workers

    yield start
    for process, workers in running:
        for one in (process.pid, *workers):
            if is_running(one):
                os.kill(one, signal.SIGKILL)
        process.communicate()


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["SIGINT", "SIGTERM", "SIGKILL", "the terminal's SIGINT", "the terminal's early SIGINT", "early SIGTERM"]
)
def test_no_worker_is_left(started: Any, tmp_path: Path, name: str) -> None:
    """A bootstrap by two workers; the terminal tells the workers, too."""
    model = ("--mediator", "Med ~ X + (1 + X | group)", "--outcome", "y ~ Med + X + (1 + Med + X | group)")
    bootstrap = ("--interval", "bootstrap", "-n", "50000", "--seed", "1", "--jobs", "2", "--out", "out.txt")
    line = ("-m", "mlmed.cli", "mediate", "yuan_mackinnon_sim", *model, *bootstrap)
    process, workers = started(*line, folder=tmp_path, computing="early" not in name)
    number = getattr(signal, name.split()[-1])
    (os.killpg if "terminal" in name else os.kill)(process.pid, number)
    assert until(lambda: not any(map(is_running, workers)), 20.0), "workers are left"
    _, said = process.communicate(timeout=60)
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert said == f"mlmed: stopped by {number.name}\n"
    assert os.listdir(tmp_path) == []


LIBRARY = """
import sys, time
import numpy as np
import mlmed

def slow(rng):
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass
    return float(rng.normal())

if __name__ == "__main__":
    try:
        mlmed.replicate(slow, 1000, seed=1, n_jobs=2)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        time.sleep(3)
        print(mlmed.replicate(np.random.Generator.normal, 4, seed=1, n_jobs=2), flush=True)
"""


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_no_worker_of_a_program_that_uses_the_library_is_left(started: Any, tmp_path: Path, number: int) -> None:
    """Ctrl-C: workers end although the program goes on, and new ones are there when they are needed."""
    (tmp_path / "study.py").write_text(LIBRARY)
    process, workers = started("study.py", folder=tmp_path)
    os.kill(process.pid, number)
    assert until(lambda: not any(map(is_running, workers)), 20.0), "workers are left"
    shown, said = process.communicate(timeout=120)
    if number == signal.SIGINT:
        expected = mlmed.replicate(np.random.Generator.normal, 4, seed=1)
        assert (process.returncode, shown.splitlines()) == (0, ["interrupted", str(expected)]), said
    else:
        assert process.returncode == -number


IDLE = LIBRARY.replace("slow, 1000", "slow, 1").replace("0.3", "60")


@LINUX
@pytest.mark.slow
def test_no_worker_without_a_task_is_left(started: Any, tmp_path: Path) -> None:
    """One task for two workers; the other one waited for minutes, with what it had loaded."""
    (tmp_path / "study.py").write_text(IDLE)
    process, workers = started("study.py", folder=tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    assert until(lambda: not any(map(is_running, workers)), 20.0), "workers are left"


def test_an_error_in_the_loop_over_results_ends_the_search_for_more() -> None:
    """Whoever leaves the block early gets no advice of joblib and no further results."""
    from mlmed.replication import results_of

    seen: list[int] = []

    def count(k: int) -> int:
        seen.append(k)
        return k

    with pytest.raises(ZeroDivisionError), results_of(count, ((k,) for k in range(100)), 1) as found:  # noqa: PT012
        for k in found:
            _ = 1 / (3 - k)
    assert seen == [0, 1, 2, 3]


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_every_backend_of_joblib(backend: str) -> None:
    """The same numbers; those without generators of results give lists."""
    import joblib

    expected = mlmed.replicate(np.random.Generator.normal, 5, seed=2)
    with joblib.parallel_config(backend=backend, n_jobs=2):
        assert mlmed.replicate(np.random.Generator.normal, 5, seed=2) == expected
