"""Ctrl-C after the last submission: while a result is downloaded, and while the gallery is drawn, in a real process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from pika_async.emulator import Emulator
from tests.cli.batch_process import HANG_S, LAUNCHER, wait_until
from tests.cli.command_line import ENV, KEY, CommandLine, serving
from tests.fakes.child_process import ChildProcess
from tests.fakes.process_state import restored_process

JOBS: Final = 6
#: Stands in for the decoder: a poster is a file that takes `PIKA_POSTER_S` seconds.
SLOW_POSTERS: Final = """
import os, sys, time, types
sys.modules["av"], sys.modules["PIL"] = types.ModuleType("av"), types.ModuleType("PIL")
import pika_async.report.posters as posters
def draw(av, video, poster):
    time.sleep(float(os.environ["PIKA_POSTER_S"]))
    poster.write_bytes(b"poster")
posters._draw = draw
"""


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with serving() as emulator:
        yield emulator


def start(emulator: Emulator, folder: Path, poster_s: float = 0.0, *more: str) -> ChildProcess:
    """Start a batch whose posters take `poster_s` seconds each."""
    (folder / "b.txt").write_text("\n".join(f"prompt {number}" for number in range(JOBS)))
    argv = [sys.executable, "-c", SLOW_POSTERS + LAUNCHER, "batch", "b.txt", "--provider", "native"]
    argv += ["--base-url", emulator.base_url("native"), "--expected-seconds", "0.2", *more]
    environment = {**os.environ, ENV["native"]: KEY, "PIKA_POSTER_S": str(poster_s)}
    return ChildProcess(argv, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def interrupt(process: ChildProcess) -> str:
    """Press Ctrl-C once; return what is printed until the end."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=HANG_S)
    assert "Traceback" not in out + err
    assert process.returncode == 130, err
    return err


def page_of(folder: Path) -> str:
    """Return the gallery, which must be whole."""
    page = (folder / "pika-out/index.html").read_text(encoding="utf-8")
    assert page.rstrip().endswith("</html>")
    assert [path.name for path in (folder / "pika-out").rglob("*.part")] == []
    return page


def with_posters(page: str) -> int:
    """Return the number of cards of a page that have a poster: the first field of a card."""
    return len(re.findall(r"^\[1,", page, re.MULTILINE))


def posters_of(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "pika-out/posters").glob("*.jpg"))


def test_an_interrupt_while_posters_are_drawn_leaves_a_whole_page(tmp_path: Path, emulator: Emulator) -> None:
    """The summary is printed, the page has the posters that were drawn, and the same command draws the rest."""
    with start(emulator, tmp_path, poster_s=1.0) as process:
        wait_until(lambda: len(posters_of(tmp_path)) == 1)
        err = interrupt(process)
    assert "stopping: no further posters are drawn" in err
    assert f"{JOBS} jobs: {JOBS} succeeded; {JOBS} on disk" in err
    assert "interrupted while posters were drawn" in err
    assert "gallery: pika-out/index.html" in err
    drawn = posters_of(tmp_path)
    assert 1 <= len(drawn) < JOBS
    assert with_posters(page_of(tmp_path)) == len(drawn)

    with start(emulator, tmp_path) as process:
        out, err = process.communicate(timeout=HANG_S)
    assert (process.returncode, len(posters_of(tmp_path)), len(emulator.ledger)) == (0, JOBS, JOBS)
    assert "this run: 0 new charges; 6 known, 0 refused; earlier: 6 charges" in out
    assert with_posters(page_of(tmp_path)) == JOBS


def test_an_interrupt_while_a_result_is_downloaded_loses_nothing(tmp_path: Path) -> None:
    """The page is whole and says what is missing; the same command downloads it and pays nothing."""
    stall = {"on": "cdn", "first": 1, "do": {"fault": "body-stall"}}
    with serving(stall) as emulator:
        with start(emulator, tmp_path) as process:
            results = tmp_path / "pika-out/results.jsonl"  # a file that is there may not be recorded yet
            wait_until(
                lambda: results.is_file() and results.read_text(encoding="utf-8").count('.mp4", "sha256') == JOBS - 1
            )
            err = interrupt(process)
        assert re.search(rf"{JOBS} jobs: .*; {JOBS - 1} on disk", err)
        assert "interrupted: 0 still in flight, 0 not sent, 1 not downloaded; nothing is lost" in err
        assert "to continue: pika-async resume pika-out" in err
        page = (tmp_path / "pika-out/index.html").read_text(encoding="utf-8")
        assert page.rstrip().endswith("</html>")
        with start(emulator, tmp_path) as process:
            out, err = process.communicate(timeout=HANG_S)
        assert (process.returncode, len(emulator.ledger)) == (0, JOBS), err
        assert f"{JOBS} jobs: {JOBS} succeeded; {JOBS} on disk" in out
        page_of(tmp_path)


#: Waits for Ctrl-C where a module is about to be imported, and tells the parent by a file. With "callback" it waits in the
#: callback of a weak reference, of which an import has some: Python prints and ignores what is raised there.
WAITING_FOR_INTERRUPT: Final = """
import os, pathlib, sys, time, weakref
class Wait:
    def find_spec(self, name, *rest):
        if name == {module!r}:
            if {callback}:
                value = type("Value", (), {{}})()
                reference = weakref.ref(value, wait)
                del value
            else:
                wait()
def wait(*_):
    pathlib.Path("waiting").touch()
    for _ in range(6000):  # a signal just before one long call would be handled after it
        time.sleep(0.01)
sys.meta_path.insert(0, Wait())
"""


@pytest.mark.parametrize("program", ["pika-async", "python -m pika_async"])
@pytest.mark.parametrize("callback", [False, True])
@pytest.mark.parametrize(
    ("module", "argv"),
    [
        ("pika_async.cli", ("--help",)),
        ("rich.console", ("--help",)),
        ("cyclopts", ("status", "nowhere")),
        ("pika_async.cli.commands", ("status", "nowhere")),
        ("aiohttp", ("status", "nowhere")),
    ],
)
def test_an_interrupt_at_once_prints_no_traceback(
    tmp_path: Path, program: str, callback: bool, module: str, argv: tuple[str, ...]
) -> None:
    """Ctrl-C while the command line is still imported ends it with exit code 130, and prints nothing."""
    (tmp_path / "sitecustomize.py").write_text(WAITING_FOR_INTERRUPT.format(module=module, callback=callback))
    code = "import sys; from pika_async.__main__ import main; sys.exit(main())"  # as the installed script
    start_of_it = ["-c", code] if program == "pika-async" else ["-m", "pika_async"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    with ChildProcess(
        [sys.executable, *start_of_it, *argv],
        cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        wait_until((tmp_path / "waiting").exists)
        process.send_signal(signal.SIGINT)
        assert (process.communicate(timeout=HANG_S), process.returncode) == (("", ""), 130)


def test_an_interrupt_between_two_imports_prints_no_traceback(tmp_path: Path) -> None:
    """Ctrl-C in the instants in which nothing is imported and no command handles it."""
    interrupting = """
import sys
class Interrupt:
    def find_spec(self, name, *rest):
        if name == "pika_async.cli.commands":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from pika_async.__main__ import main
sys.exit(main())
"""
    argv = [sys.executable, "-c", interrupting, "status", "nowhere"]
    ended = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=HANG_S)
    assert (ended.returncode, ended.stderr) == (130, "")


def test_an_ignored_interrupt_stays_ignored(tmp_path: Path) -> None:
    """A command that a shell started with `&`, or `nohup`, goes on while it is imported, and afterwards."""
    interrupting = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
class Interrupt:
    def find_spec(self, name, *rest):
        if name == "pika_async.cli.commands":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from pika_async.__main__ import main
code = main()
assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
sys.exit(code)
"""
    argv = [sys.executable, "-c", interrupting, "status", "nowhere"]
    ended = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=HANG_S)
    assert (ended.returncode, "must hold a journal.db" in ended.stderr) == (2, True)


def test_status_after_an_interrupt_speaks_of_no_client(tmp_path: Path, cli: CommandLine) -> None:
    """What was not sent because of Ctrl-C has no reason but the way on."""
    with serving(durations="constant:60") as emulator:
        with start(emulator, tmp_path, 0.0, "--max-in-flight", "2") as process:
            wait_until(lambda: len(emulator.ledger) == 2)
            interrupt(process)
        status = cli("status", "pika-out").out
    assert "client was closed" not in status
    assert "to continue: pika-async resume pika-out" in status


def test_each_end_without_a_charge_says_so(cli: CommandLine, emulator: Emulator) -> None:
    """All known, all refused, stopped before the first, nothing to resume, a dry run: each has its number of charges."""
    source = cli.write("b.txt", "one\n")
    assert "this run: 1 new charges; 0 known, 0 refused; earlier: 0 charges" in cli.batch(emulator, source).out
    assert "this run: 0 new charges; 1 known, 0 refused; earlier: 1 charge" in cli.batch(emulator, source).out
    assert "this run: 0 new charges; 1 known, 0 refused; earlier: 1 charge" in cli("resume", "pika-out").out
    assert ": 0 new charges, 1 known, 0 refused" in cli.batch(emulator, source, "--dry-run").out
    refusal = {"fault": "answer", "status": 401, "body": "no such key"}
    with serving({"on": "create", "do": refusal}) as refusing:
        ran = cli.batch(refusing, source, "--out", "other")
    assert (ran.code, "this run: 0 new charges; 0 known, 0 refused; earlier: 0 charges" in ran.err) == (3, True)
    limited = cli.batch(emulator, cli.write("more.txt", "two\n"), "--max-charges", "1")
    assert "this run: 0 new charges; 0 known, 0 refused; earlier: 1 charge" in limited.err


def test_a_command_leaves_the_signal_handlers_as_they_were(cli: CommandLine, emulator: Emulator) -> None:
    """`main` in a process that ignores a signal, such as one that a shell started with `&`, or that handles it."""
    source = cli.write("b.txt", "a cat\n")
    with restored_process():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, handler := lambda *_: None)
        assert cli.batch(emulator, source, "--no-download").code == 0
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == (signal.SIG_IGN, handler)
