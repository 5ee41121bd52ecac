"""Batch that is killed and run again in one folder, with the checks of what each run leaves behind."""

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
from tests.crash.event_log import Event, create_event_log, read_events, unresolved_submissions
from tests.crash.fork_server import ForkedProcess, ForkServer

__all__ = ["CrashBatch", "ProcessRun", "RunningProcess"]

ROOT: Final = Path(__file__).parents[2]
#: Seconds within which a process must exit by itself.
RUN_TIMEOUT_S: Final = 40.0
_numbers = itertools.count(1)


@attrs.frozen
class ProcessRun:
    """Finished process: its output and its events. A negative `code` is the signal that killed it."""

    code: int
    out: str
    err: str
    events: Sequence[Event]

    @property
    def was_killed(self) -> bool:
        """Whether the process, or the tracer around it, died of SIGKILL."""
        return self.code == -signal.SIGKILL

    def count(self, kind: str) -> int:
        """Count the events of one kind."""
        return sum(event.kind == kind for event in self.events)


class RunningProcess:
    """Running process of the command line. Leaving the context kills it.

    Forked by the fork server, or started directly when there is a tracer or no fork server.
    """

    def __init__(
        self, argv: Sequence[str], folder: Path, scratch: Path, env: Mapping[str, str], *,
        fork_server: ForkServer | None = None, tracer: Sequence[str] = (),
    ) -> None:  # fmt: skip
        number = next(_numbers)
        self._out, self._err = scratch / f"{number}.out", scratch / f"{number}.err"
        self._event_log = scratch / f"{number}.events"
        create_event_log(self._event_log)
        env = {**env, "PIKA_CRASH_EVENT_LOG": str(self._event_log)}
        self.process: ForkedProcess | subprocess.Popen[bytes]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            if fork_server is not None and not tracer:
                self.process = fork_server.start(argv, folder, env, self._out, self._err)
            else:
                self.process = subprocess.Popen(
                    [*tracer, sys.executable, "-m", "tests.crash.victim_process", *argv], cwd=folder, start_new_session=True,
                    stdin=subprocess.DEVNULL, stdout=out, stderr=err, env={**os.environ, **env},
                )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # the tracer and its process are one group
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @property
    def events(self) -> list[Event]:
        """The events so far."""
        return read_events(self._event_log)

    @property
    def err(self) -> str:
        """The standard error so far."""
        return self._err.read_text(errors="replace")

    def wait_until(
        self, condition: Callable[[], bool], description: str = "", timeout_s: float = RUN_TIMEOUT_S
    ) -> None:
        """Wait until *condition* is true or the process has ended."""
        deadline = time.monotonic() + timeout_s
        while not condition() and self.process.poll() is None:
            assert time.monotonic() < deadline, f"timed out waiting for {description}\n{self.err}"
            time.sleep(0.005)

    def wait_for_event(self, kind: str, times: int = 1) -> None:
        """Wait until *times* events of one kind have been recorded or the process has ended."""
        self.wait_until(lambda: sum(event.kind == kind for event in self.events) >= times, f"{times} x {kind}")

    def end(self, timeout_s: float = RUN_TIMEOUT_S) -> ProcessRun:
        """Wait until the process exits."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the process does not exit\n{self.err}") from None
        return ProcessRun(code, self._out.read_text(errors="replace"), self.err, self.events)


@attrs.define
class CrashBatch:
    """Batch under test: its prompts, its folder and all of its runs."""

    emulator: Emulator
    folder: Path
    prompts: list[str]
    provider: str = "native"
    #: Options of the command, the same in every run.
    options: tuple[str, ...] = ("--max-in-flight", "50")
    #: The value of `--out`.
    out_option: str = "out"
    fork_server: ForkServer | None = None
    #: Seconds after which a process of this batch is ended by SIGALRM.
    lifetime: int = 120
    runs: list[ProcessRun] = attrs.field(factory=list, init=False)
    jobs: dict[str, Job] = attrs.field(factory=dict, init=False)
    #: Every task id that was ever in the journal.
    ids: set[str] = attrs.field(factory=set, init=False)
    #: The keys of jobs that the end of a run may have put in doubt: see `unresolved_submissions`.
    possible_doubts: set[str] = attrs.field(factory=set, init=False)
    #: The number of those over all runs, a job that was hit twice counted twice.
    interrupted_count: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.scratch.mkdir(parents=True)
        self.write_prompts(self.prompts)

    def write_prompts(self, prompts: list[str]) -> None:
        """Replace the prompts of the input file."""
        self.prompts = prompts
        (self.folder / "b.txt").write_text("\n".join(prompts))

    @property
    def scratch(self) -> Path:
        """Folder of the output and the temporary files of the runs."""
        return self.folder / "scratch"

    @property
    def out(self) -> Path:
        """Folder of the results."""
        return self.folder / "out"

    @property
    def journal_path(self) -> Path:
        """Path of the journal."""
        return self.out / "journal.db"

    # --- runs ---------------------------------------------------------------------------------------------------------

    @property
    def command(self) -> tuple[str, ...]:
        """The command, the same in every run."""
        account = ("--provider", self.provider, "--base-url", self.emulator.base_url(self.provider))
        return ("batch", "b.txt", *account, "--out", self.out_option, "--expected-seconds", "0.1", *self.options)

    @contextlib.contextmanager
    def started(
        self, *argv: str, at: str = "", fail_from: str = "", clock: float = 0.0, newer: bool = False,
        one_by_one: bool = False, poll_after: int = 0, timeout: float = 0.0, tracer: Sequence[str] = (),
    ) -> Iterator[RunningProcess]:  # fmt: skip
        """Start the batch, or another command; see `tests.crash.victim_process` for the options."""
        env = {
            "PYTHONPATH": str(ROOT), "TMPDIR": str(self.scratch), "COLUMNS": "200", "PIKA_CRASH_AT": at,
            "PIKA_CRASH_FAIL_FROM": fail_from, "PIKA_CRASH_CLOCK": str(clock or ""),
            "PIKA_CRASH_NEWER": "1" if newer else "", "PIKA_CRASH_ONE_BY_ONE": "1" if one_by_one else "",
            "PIKA_CRASH_POLL_AFTER": str(poll_after), "PIKA_CRASH_TIMEOUT": str(timeout or ""), "PIKA_CRASH_LIFETIME": str(self.lifetime),
            **dict.fromkeys((*ENV.values(), "PIKA_DEV_API_KEY"), KEY),
        }  # fmt: skip
        argv = argv or self.command
        with RunningProcess(
            argv, self.folder, self.scratch, env, fork_server=self.fork_server, tracer=tracer
        ) as running:
            yield running

    def run(self, *argv: str, **more: Any) -> ProcessRun:
        """Run the batch, or another command, until it exits, and check what it leaves."""
        with self.started(*argv, **more) as running:
            return self.check_run(running.end())

    def check_run(self, run: ProcessRun) -> ProcessRun:
        """Check one run: every task id that was ever in the journal, or was reported as saved, is still there."""
        self.runs.append(run)
        assert "Traceback" not in run.out + run.err, run.err
        assert KEY not in run.out + run.err
        self.reload_jobs()
        saved = {event.task_id for event in run.events if event.kind == "saved" and event.task_id}
        assert saved <= self.ids, f"saved, but not in the journal: {saved - self.ids}"
        unresolved = unresolved_submissions(run.events)
        self.possible_doubts |= unresolved
        self.interrupted_count += len(unresolved)
        return run

    def reload_jobs(self) -> None:
        """Read the journal, if it exists, and check that it has lost no task id."""
        jobs = list(SqliteJournal(self.journal_path).all()) if self.out.is_dir() else []
        now = {job.task_id for job in jobs if job.task_id is not None}
        assert self.ids <= now, f"gone from the journal: {self.ids - now}"
        self.ids = now
        self.jobs = {job.key: job for job in jobs}

    # --- checks -------------------------------------------------------------------------------------------------------

    @property
    def charges(self) -> list[Charge]:
        """The charges for the prompts of this batch."""
        ours = set(self.prompts)
        return [charge for charge in list(self.emulator.ledger) if charge.prompt in ours]

    @property
    def statuses(self) -> Counter[JobStatus]:
        """The number of jobs in each status."""
        return Counter(job.status for job in self.jobs.values())

    def finish_and_verify(self, *, unknown: int | None = None, charged: int | None = None, **more: Any) -> ProcessRun:
        """Run the command once more without a fault and check the whole result.

        :param unknown: The required number of jobs in doubt; None allows what the kills explain.
        :param charged: The required number of charged prompts; None allows what the kills explain.
        """
        run = self.run(**more)
        details = f"{run.code} {self.statuses}\n{run.out}\n{run.err}"
        by_prompt = {job.request.prompt: job for job in self.jobs.values()}
        lines = self.lines()
        # No job is lost or duplicated.
        assert sorted(by_prompt) == sorted(self.prompts), details
        assert len(self.jobs) == len(self.prompts), details
        # No prompt is charged twice.
        times = Counter(charge.prompt for charge in self.charges)
        assert not [prompt for prompt, count in times.items() if count > 1], details
        # Every job has succeeded, or is in doubt and gives the reason.
        doubtful = {job.key for job in self.jobs.values() if job.status is JobStatus.UNKNOWN}
        for job in self.jobs.values():
            assert job.status is JobStatus.SUCCEEDED or (job.key in doubtful and job.error is not None), details
        # Each job in doubt was being submitted at a kill, and each lost task id belongs to a job in doubt.
        assert doubtful <= self.possible_doubts, (
            f"in doubt without a cause: {doubtful - self.possible_doubts}\n{details}"
        )
        assert len(doubtful) <= self.interrupted_count
        recorded = {charge.prompt for charge in self.charges if charge.task_id == by_prompt[charge.prompt].task_id}
        assert {by_prompt[prompt].key for prompt in times.keys() - recorded} <= doubtful, details
        assert {job.request.prompt for job in self.jobs.values() if job.key not in doubtful} == recorded, details
        assert unknown is None or len(doubtful) == unknown, details
        assert charged is None or len(times) == charged, details
        self.check_files(lines, details)
        assert run.code == (1 if doubtful else 0), details
        if doubtful:
            listed = self.run("status", self.out_option).out
            named = listed.partition("in doubt: job ")[2].replace(",", " ").split()
            assert [key for key in doubtful if key not in named] == [], listed
        return run

    def check_files(self, lines: list[dict[str, Any]], details: str) -> None:
        """Check that results and videos agree with the journal and that no partial file is left."""
        assert sorted(line["key"] for line in lines) == sorted(self.jobs), details
        for line in lines:
            job = self.jobs[line["key"]]
            file = None if job.file is None else job.file.relative_to(self.out).as_posix()
            expected = (job.status.value, job.task_id, job.request.prompt, file, job.sha256)
            actual = tuple(line[name] for name in ("status", "task_id", "prompt", "file", "sha256"))
            assert actual == expected, f"{actual} {expected}\n{details}"
            assert (line["error"] is None) == (job.error is None), details
            if job.status is JobStatus.SUCCEEDED:
                assert job.file == self.out / "videos" / f"{job.key}.mp4", details
                assert hashlib.sha256(job.file.read_bytes()).hexdigest() == job.sha256, details
        videos = self.out / "videos"
        found = {path.name for path in videos.iterdir()} if videos.is_dir() else set()
        # The video of a job in doubt may exist: a run that could not save the task id may still have downloaded it.
        doubtful = {f"{job.key}.mp4" for job in self.jobs.values() if job.status is JobStatus.UNKNOWN}
        assert found - doubtful == {job.file.name for job in self.jobs.values() if job.file is not None}, details
        with contextlib.closing(sqlite3.connect(f"file:{self.journal_path}?mode=ro", uri=True)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    def lines(self) -> list[dict[str, Any]]:
        """Read `results.jsonl`, one object per line."""
        text = (self.out / "results.jsonl").read_text()
        assert text.endswith("\n")
        return [json.loads(line) for line in text.splitlines()]

    def downloads(self) -> Counter[str]:
        """Count the requests for the video of each task."""
        requested = [request.path.split("/")[2] for request in list(self.emulator.cdn_requests)]
        return Counter(task for task in requested if task in self.ids)
