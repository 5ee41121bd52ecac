"""One batch in one folder through all that happens to it: its lives, what its journal ever held, and the judge."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import attrs

from pika_async._journal.sqlite import SqliteJournal
from pika_async.emulator import Charge, Emulator
from pika_async.jobs import Job, JobStatus
from tests.cli.command_line import ENV, KEY
from tests.crash.fork_server import Nursery, Victim
from tests.crash.witness import Event, events_of, make_room, open_windows

__all__ = ["Life", "Running", "Story"]

ROOT: Final = Path(__file__).parents[2]
#: Seconds in which a life must end by itself.
PATIENCE: Final = 40.0
_numbers = itertools.count(1)


@attrs.frozen
class Life:
    """One process from its start to its end. `code`: below 0, the signal that killed it."""

    code: int
    out: str
    err: str
    events: Sequence[Event]

    @property
    def was_killed(self) -> bool:
        """Whether it died of SIGKILL, itself or together with the tracer that it ran under."""
        return self.code == -signal.SIGKILL

    def count(self, what: str) -> int:
        """How often something happened in it."""
        return sum(event.what == what for event in self.events)


class Running:
    """A life that goes on. Leaving the context kills what is left of it.

    Forked by the nursery; under a tracer, or without a nursery, a process from its first instruction.
    """

    def __init__(
        self, argv: Sequence[str], folder: Path, scratch: Path, env: Mapping[str, str], *,
        nursery: Nursery | None = None, tracer: Sequence[str] = (),
    ) -> None:  # fmt: skip
        number = next(_numbers)
        self._out, self._err = scratch / f"{number}.out", scratch / f"{number}.err"
        self._witness = scratch / f"{number}.witness"
        make_room(self._witness)
        env = {**env, "PIKA_CRASH_WITNESS": str(self._witness)}
        self.process: Victim | subprocess.Popen[bytes]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            if nursery is not None and not tracer:
                self.process = nursery.start(argv, folder, env, self._out, self._err)
            else:
                self.process = subprocess.Popen(
                    [*tracer, sys.executable, "-m", "tests.crash.victim", *argv], cwd=folder, start_new_session=True,
                    stdin=subprocess.DEVNULL, stdout=out, stderr=err, env={**os.environ, **env},
                )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # the tracer and the traced are one group
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @property
    def events(self) -> list[Event]:
        """What it has done so far."""
        return events_of(self._witness)

    @property
    def err(self) -> str:
        """What it has said so far on standard error."""
        return self._err.read_text(errors="replace")

    def until(self, condition: Callable[[], bool], what: str = "") -> None:
        """Wait until something is so, or the process has ended."""
        deadline = time.monotonic() + PATIENCE
        while not condition() and self.process.poll() is None:
            assert time.monotonic() < deadline, f"in vain: {what}\n{self.err}"
            time.sleep(0.005)

    def until_told(self, what: str, times: int = 1) -> None:
        """Wait until something has happened so often, or the process has ended."""
        self.until(lambda: sum(event.what == what for event in self.events) >= times, f"{times} x {what}")

    def end(self) -> Life:
        """Wait for its end."""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end\n{self.err}") from None
        return Life(code, self._out.read_text(errors="replace"), self.err, self.events)


@attrs.define
class Story:
    """A batch: its rows, its folder, every life that worked at it."""

    emulator: Emulator
    folder: Path
    prompts: list[str]
    provider: str = "native"
    #: Options of the command, the same in every life.
    options: tuple[str, ...] = ("--max-in-flight", "50")
    #: What the command is given as the folder of the results.
    place: str = "out"
    nursery: Nursery | None = None
    lives: list[Life] = attrs.field(factory=list, init=False)
    jobs: dict[str, Job] = attrs.field(factory=dict, init=False)
    #: Every task id that was ever in the journal.
    ids: set[str] = attrs.field(factory=set, init=False)
    #: The keys of jobs that the end of a life has put in doubt, at most: see `open_windows`.
    doubts: set[str] = attrs.field(factory=set, init=False)
    #: The sum of those over all lives.
    hits: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.scratch.mkdir(parents=True)
        self.write(self.prompts)

    def write(self, prompts: list[str]) -> None:
        """These are the rows from now on."""
        self.prompts = prompts
        (self.folder / "b.txt").write_text("\n".join(prompts))

    @property
    def scratch(self) -> Path:
        """Where the streams of the lives are, and their temporary files."""
        return self.folder / "scratch"

    @property
    def out(self) -> Path:
        """The batch's folder."""
        return self.folder / "out"

    @property
    def path(self) -> Path:
        """The journal."""
        return self.out / "journal.db"

    # --- lives ------------------------------------------------------------------------------------------------------

    @property
    def batch(self) -> tuple[str, ...]:
        """The command, the same in every life."""
        account = ("--provider", self.provider, "--base-url", self.emulator.base_url(self.provider))
        return ("batch", "b.txt", *account, "--out", self.place, "--expected-seconds", "0.1", *self.options)

    @contextlib.contextmanager
    def started(
        self, *argv: str, at: str = "", fail_from: str = "", clock: float = 0.0, newer: bool = False,
        one_by_one: bool = False, tracer: Sequence[str] = (),
    ) -> Iterator[Running]:  # fmt: skip
        """A life of the batch, or of another command; see the victim for what may happen to it."""
        env = {
            "PYTHONPATH": str(ROOT), "TMPDIR": str(self.scratch), "COLUMNS": "200", "PIKA_CRASH_AT": at,
            "PIKA_CRASH_FAIL_FROM": fail_from, "PIKA_CRASH_CLOCK": str(clock or ""),
            "PIKA_CRASH_NEWER": "1" if newer else "", "PIKA_CRASH_ONE_BY_ONE": "1" if one_by_one else "",
            **dict.fromkeys(ENV.values(), KEY),
        }  # fmt: skip
        argv = argv or self.batch
        with Running(argv, self.folder, self.scratch, env, nursery=self.nursery, tracer=tracer) as running:
            yield running

    def run(self, *argv: str, **more: Any) -> Life:
        """A life from its start to its end, and a look at what it left."""
        with self.started(*argv, **more) as running:
            return self.note(running.end())

    def note(self, life: Life) -> Life:
        """What one life leaves: no id that was ever in the journal is gone, and none that it was told is kept is missing."""
        self.lives.append(life)
        assert "Traceback" not in life.out + life.err, life.err
        assert KEY not in life.out + life.err
        self.look()
        kept = {event.task_id for event in life.events if event.what == "kept" and event.task_id}
        assert kept <= self.ids, f"kept, and not in the journal: {kept - self.ids}"
        windows = open_windows(life.events)
        self.doubts |= windows
        self.hits += len(windows)
        return life

    def look(self) -> None:
        """Read the journal; it may be there or not, but never less than before."""
        jobs = list(SqliteJournal(self.path).all()) if self.out.is_dir() else []
        now = {job.task_id for job in jobs if job.task_id is not None}
        assert self.ids <= now, f"gone from the journal: {self.ids - now}"
        self.ids = now
        self.jobs = {job.key: job for job in jobs}

    # --- the judge --------------------------------------------------------------------------------------------------

    @property
    def charges(self) -> list[Charge]:
        """What this batch was charged."""
        ours = set(self.prompts)
        return [charge for charge in list(self.emulator.ledger) if charge.prompt in ours]

    @property
    def statuses(self) -> Counter[JobStatus]:
        """How many jobs there are of each status."""
        return Counter(job.status for job in self.jobs.values())

    def judge(self, *, unknown: int | None = None, charged: int | None = None, **more: Any) -> Life:
        """Run the command once more, without a fault, and judge what it leaves.

        `unknown`, `charged`: how many there must be; else what the deaths explain.
        """
        life = self.run(**more)
        told = f"{life.code} {self.statuses}\n{life.out}\n{life.err}"
        by_prompt = {job.request.prompt: job for job in self.jobs.values()}
        lines = self.lines()
        # No job is lost, and none is there twice.
        assert sorted(by_prompt) == sorted(self.prompts), told
        assert len(self.jobs) == len(self.prompts), told
        # Nothing is paid twice.
        times = Counter(charge.prompt for charge in self.charges)
        assert not [prompt for prompt, count in times.items() if count > 1], told
        # Every job has come to an end, or is in doubt and says why.
        doubtful = {job.key for job in self.jobs.values() if job.status is JobStatus.UNKNOWN}
        for job in self.jobs.values():
            assert job.status is JobStatus.SUCCEEDED or (job.key in doubtful and job.error is not None), told
        # Each doubt is explained by a death within its window, and each receipt that is lost is a doubt.
        assert doubtful <= self.doubts, f"in doubt without a cause: {doubtful - self.doubts}\n{told}"
        assert len(doubtful) <= self.hits
        kept = {charge.prompt for charge in self.charges if charge.task_id == by_prompt[charge.prompt].task_id}
        assert {by_prompt[prompt].key for prompt in times.keys() - kept} <= doubtful, told
        assert {job.request.prompt for job in self.jobs.values() if job.key not in doubtful} == kept, told
        assert unknown is None or len(doubtful) == unknown, told
        assert charged is None or len(times) == charged, told
        self._judge_files(lines, told)
        assert life.code == (1 if doubtful else 0), told
        if doubtful:
            listed = self.run("status", self.place).out
            assert [key for key in doubtful if f"in doubt: job {key}" not in listed] == [], listed
        return life

    def _judge_files(self, lines: list[dict[str, Any]], told: str) -> None:
        """The results and the videos say what the journal says; nothing half is left."""
        assert sorted(line["key"] for line in lines) == sorted(self.jobs), told
        for line in lines:
            job = self.jobs[line["key"]]
            file = None if job.file is None else job.file.relative_to(self.out).as_posix()
            facts = (job.status.value, job.task_id, job.request.prompt, file, job.sha256)
            said = tuple(line[name] for name in ("status", "task_id", "prompt", "file", "sha256"))
            assert said == facts, f"{said} {facts}\n{told}"
            assert (line["error"] is None) == (job.error is None), told
            if job.status is JobStatus.SUCCEEDED:
                assert job.file == self.out / "videos" / f"{job.key}.mp4", told
                assert hashlib.sha256(job.file.read_bytes()).hexdigest() == job.sha256, told
        videos = self.out / "videos"
        found = {path.name for path in videos.iterdir()} if videos.is_dir() else set()
        # The video of a job in doubt may be there: its id was known until the end of a life that could not keep it.
        doubtful = {f"{job.key}.mp4" for job in self.jobs.values() if job.status is JobStatus.UNKNOWN}
        assert found - doubtful == {job.file.name for job in self.jobs.values() if job.file is not None}, told
        with contextlib.closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    def lines(self) -> list[dict[str, Any]]:
        """`results.jsonl`, each line of which is an object."""
        text = (self.out / "results.jsonl").read_text()
        assert text.endswith("\n")
        return [json.loads(line) for line in text.splitlines()]

    def downloads(self) -> Counter[str]:
        """How often each task's video was asked for."""
        asked = [request.path.split("/")[2] for request in list(self.emulator.cdn_requests)]
        return Counter(task for task in asked if task in self.ids)
