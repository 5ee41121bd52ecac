"""Log lines: one for each milestone of a job, with the same fields, under the module's own logger, without secrets."""

from __future__ import annotations

import json
import logging
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pika_async
import pika_async._runtime.telemetry
from pika_async import FixedInterval, GenerationRequest, Job, JobStatus, Limits, PikaClient, debug_logging
from pika_async._journal.memory import MemoryJournal
from pika_async._journal.protocol import Intent
from pika_async._runtime.resolution import recover_interrupted, resolve
from pika_async.emulator import Emulator
from pika_async.jobs import utc_from_timestamp
from pika_async.logs import LOG_FIELDS, LineFormatter, about, describe, log_job
from tests.fakes import virtual_clock
from tests.fakes.callback_delivery import canary_receiver
from tests.fakes.canary import CANARY, FAULTS, PROMPT
from tests.fakes.memory_gateway import client, gateway, with_journal

LOG = logging.getLogger("pika_async")
PACKAGE = Path(pika_async.__file__).parent
SECRET = "https://example.com/CANARY-callback"


@pytest.fixture(autouse=True)
def _restored_logger() -> Iterator[None]:
    """Restore the handlers and the level of the logger after each test."""
    random.seed(7)
    handlers, level = list(LOG.handlers), LOG.level
    yield
    LOG.handlers[:] = handlers
    LOG.setLevel(level)


def lines_of(caplog: pytest.LogCaptureFixture, key: str, level: int = logging.INFO) -> list[tuple[str, str, str]]:
    """Return level, logger and job status of each line about the job *key*, from *level* on."""
    return [
        (record.levelname, record.name.removeprefix("pika_async."), vars(record)["pika_status"])
        for record in caplog.records
        if vars(record).get("pika_job") == key and record.levelno >= level
    ]


def settled(scenario: list[dict[str, Any]] | None = None, provider: str = "native", **options: Any) -> Job:
    """Run one job with the key "k" until it is finished."""

    async def story() -> Job:
        async with client(gateway(scenario), provider, polling=FixedInterval(25), **options) as pika:
            return (await pika.run([GenerationRequest("a cat", key="k")])).jobs[0]

    return virtual_clock.run(story())


# --- lines --------------------------------------------------------------------------------------------------------------


def test_every_logger_is_named_after_its_module_or_folder() -> None:
    """The part below `pika_async` is the name of the file or of its folder, such as `journal` and `telemetry`."""
    for file in PACKAGE.rglob("*.py"):
        for name in re.findall(r'getLogger\("(.*?)"\)', file.read_text(encoding="utf-8")):
            assert name.removeprefix("pika_async.") in {file.stem, file.parent.name.removeprefix("_"), "pika_async"}, (
                file
            )


def test_each_milestone_of_a_job_has_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """At INFO there are two lines, accepted and succeeded, also after refused submissions and failed polls."""
    caplog.set_level(logging.INFO, "pika_async")
    settled([{"on": "create", "first": 2, "do": "refuse"}, {"on": "feed", "first": 1, "do": {"fault": "drop"}}])
    assert lines_of(caplog, "k") == [("INFO", "submitter", "queued"), ("INFO", "job_table", "succeeded")]
    assert len(caplog.records) == 2


def test_every_attempt_and_poll_has_a_line_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG each refused attempt and each poll has a line with its result."""
    caplog.set_level(logging.DEBUG, "pika_async")
    job = settled([{"on": "create", "first": 1, "do": "refuse"}, {"on": "feed", "first": 1, "do": {"fault": "drop"}}])
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    name = f"job k (native, task {job.task_id})"
    assert lines == [
        ("DEBUG", "job k (native): wait, HTTP 429"),
        ("INFO", f"{name}: accepted"),
        ("DEBUG", f"{name}: poll 1: again, the connection was closed before an answer"),
        ("DEBUG", f"{name}: poll 2: read, running"),
        ("DEBUG", f"{name}: poll 3: read, running"),
        ("DEBUG", f"{name}: poll 4: read, succeeded"),
        ("INFO", f"{name}: succeeded"),
    ]
    assert {(record.name, record.funcName) for record in caplog.records} == {
        ("pika_async.submitter", "_log_verdict"),
        ("pika_async.scheduler", "on_poll_result"),
        ("pika_async.job_table", "_log_finished"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "options", "line"),
    [
        ({"on": "create", "do": {"fault": "fails"}}, {}, ("INFO", "failed", "(GenerationFailed)")),
        ({"on": "create", "do": {"fault": "refuse", "as": "task"}}, {}, ("INFO", "rejected", "(SubmissionRejected)")),
        ({"on": "create", "do": "refuse"}, {"limits": Limits(patience=60)}, ("INFO", "planned", "(ProviderBusy)")),
        ({"on": "create", "do": {"fault": "drop"}}, {}, ("WARNING", "unknown", "(SubmissionInDoubt)")),
        ({"on": "create", "do": {"fault": "takes", "seconds": 999}}, {"deadline": 60}, ("INFO", "timed_out", "(DeadlineExceeded)")),
    ],
)  # fmt: skip
def test_the_last_line_of_a_job_has_its_outcome(
    rule: dict[str, Any], options: dict[str, Any], line: tuple[str, str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """It has the status and the type of the error; only a job in doubt is a warning."""
    caplog.set_level(logging.INFO, "pika_async")
    settled([rule], **options)
    level, status, error = line
    assert lines_of(caplog, "k")[-1] == (level, "job_table", status)
    assert caplog.records[-1].getMessage().endswith(f"{status} {error}")
    assert Counter(lines_of(caplog, "k")).most_common(1)[0][1] == 1


def test_a_stopped_account_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """A stopped account is one warning, however many jobs stay planned; each of these has a line at DEBUG."""

    async def story() -> None:
        async with client(gateway([{"on": "create", "do": {"fault": "refuse", "as": "quota"}}]), "native") as pika:
            await pika.run([f"prompt {n}" for n in range(30)])

    caplog.set_level(logging.DEBUG, "pika_async")
    virtual_clock.run(story())
    levels = Counter(record.levelname for record in caplog.records)
    assert (levels["WARNING"], levels["INFO"]) == (1, 0)
    assert sum(record.getMessage().endswith("planned (AccountStopped)") for record in caplog.records) > 1


async def _interrupted() -> MemoryJournal:
    journal = MemoryJournal()
    job = Job(key="k", request=GenerationRequest("a cat"), provider="native", base_url="http://127.0.0.1:1")
    await journal.save(job)
    await journal.record_intent(job.submitting(), Intent(at=utc_from_timestamp(1), body_sha256=""))
    return journal


@pytest.mark.anyio
async def test_an_interrupted_submission_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """A job that a killed process left in doubt is a warning at the next start, and its resolution a milestone."""
    caplog.set_level(logging.INFO, "pika_async")
    journal = await _interrupted()
    await recover_interrupted(journal)
    await resolve(journal, "k", task_id="t-1", charged=None, abandon=False)
    assert lines_of(caplog, "k") == [("WARNING", "resolution", "unknown"), ("INFO", "resolution", "queued")]


def test_an_interrupted_submission_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Telemetry records a job that a killed process left in doubt."""
    finished: list[tuple[Job, float | None]] = []
    monkeypatch.setattr(
        "pika_async._runtime.telemetry.NullTelemetry.submission_finished",
        lambda _, job, queue_time=None: finished.append((job, queue_time)),
    )
    monkeypatch.setattr(
        "pika_async._runtime.session.create_telemetry", lambda *_: pika_async._runtime.telemetry.NullTelemetry()
    )

    async def story() -> None:
        async with with_journal(client(gateway(), "native"), await _interrupted()):
            pass

    virtual_clock.run(story())
    assert [(job.key, job.status, queue_time) for job, queue_time in finished] == [("k", JobStatus.UNKNOWN, None)]


def test_all_lines_about_jobs_have_the_same_fields(caplog: pytest.LogCaptureFixture) -> None:
    """The fields are plain values that can be written as JSON."""
    caplog.set_level(logging.DEBUG, "pika_async")
    job = settled([{"on": "create", "first": 1, "do": "refuse"}])
    assert [
        {name: value for name, value in vars(record).items() if name.startswith("pika_")} for record in caplog.records
    ] == [
        {"pika_job": "k", "pika_task": task, "pika_provider": "native", "pika_status": status, "pika_attempt": attempt}
        for task, status, attempt in [
            (None, "planned", 1), *[(job.task_id, "queued", 2)] * 2, *[(job.task_id, "running", 2)] * 2,
            (job.task_id, "succeeded", 2),
        ]
    ]  # fmt: skip
    assert all(
        type(getattr(record, name)) in {str, int, type(None)} for record in caplog.records for name in LOG_FIELDS
    )
    assert json.dumps(about(job))


def accepted(task_id: str = "t\x1b[2J\n\u202e-1") -> Job:
    job = Job(key="k", request=GenerationRequest("a cat"), provider="native", base_url="http://127.0.0.1:1")
    return job.submitting().accepted(task_id, 0)


def test_no_line_contains_control_characters(caplog: pytest.LogCaptureFixture) -> None:
    """They are replaced in the message, in fields and in arguments; a long task id is shortened."""
    caplog.set_level(logging.DEBUG, "pika_async")
    log_job(LOG, logging.INFO, accepted(), "reason %s", "a\x1b]0;b\r\nc")
    [record] = caplog.records
    assert record.getMessage().isprintable()
    assert str(vars(record)["pika_task"]).isprintable()
    assert len(describe(accepted("x" * 9999))) < 300
    assert len(str(about(accepted("x" * 9999))["pika_task"])) < 300


def test_a_handler_that_raises_affects_no_job() -> None:
    """A job succeeds although every line about it raises in a handler."""

    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if hasattr(record, "pika_job"):
                raise ZeroDivisionError

    LOG.addHandler(Failing())
    LOG.setLevel(logging.DEBUG)
    assert settled([{"on": "create", "first": 1, "do": "refuse"}]).status is JobStatus.SUCCEEDED


# --- secrets ------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("provider", ["native", "cometapi"])
async def test_nothing_secret_is_logged(
    provider: str, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No record has an API key, a prompt or a callback URL, at DEBUG, in a run with faults and missing files."""
    caplog.set_level(logging.DEBUG, "pika_async")
    callbacks = canary_receiver(provider, monkeypatch)
    async with Emulator(durations="constant:0.2", scenario=FAULTS, api_key=CANARY, video_seconds=1) as emulator:
        url = emulator.base_url(provider)
        policy = FixedInterval(0.1)
        async with PikaClient(provider, api_key=CANARY, base_url=url, polling=policy, callbacks=callbacks) as pika:
            requests = [GenerationRequest(f"{PROMPT} {n}", key=f"k{n}") for n in range(8)]
            requests.append(GenerationRequest("a cat", image=tmp_path / "CANARY.png", key="k9"))
            report = await pika.run(requests, download_to=tmp_path)
    assert report.counts[JobStatus.UNKNOWN] >= (2 if callbacks is None else 0)
    lines = [LineFormatter().format(record) + str(vars(record)) for record in caplog.records]
    assert len(lines) > 20
    assert [line for line in lines if "CANARY" in line] == []
    assert any("downloaded" in line for line in lines)


# --- showing them --------------------------------------------------------------------------------------------------------


def test_debug_logging_shows_fields(capsys: pytest.CaptureFixture[str]) -> None:
    """A line has time, level, logger, message and the fields as key=value."""
    debug_logging()
    log_job(logging.getLogger("pika_async.job_table"), logging.INFO, accepted("t 1"), "first\nsecond")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO pika_async\.job_table: job k \(native, task t 1\): first second "
        r'pika_job=k pika_task="t 1" pika_provider=native pika_status=queued pika_attempt=1\n',
        capsys.readouterr().err,
    )


def test_debug_logging_again_changes_the_level(capsys: pytest.CaptureFixture[str]) -> None:
    """There is one handler after several calls, the root logger is unchanged, and removing the handler undoes it."""
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    handler = debug_logging()
    assert debug_logging("warning") is handler
    assert debug_logging(logging.ERROR) is handler
    assert (LOG.level, LOG.handlers.count(handler), LOG.propagate) == (logging.ERROR, 1, True)
    LOG.warning("not shown")
    LOG.error("shown")
    assert capsys.readouterr().err.count("\n") == 1
    assert (list(root.handlers), root.level) == before
    LOG.removeHandler(handler)
    LOG.error("not shown")
    assert capsys.readouterr().err == ""


def test_debug_logging_refuses_an_unknown_level() -> None:
    """It raises ValueError and adds no handler."""
    before = list(LOG.handlers)
    with pytest.raises(ValueError, match="LOUD"):
        debug_logging("loud")
    assert LOG.handlers == before


def test_a_traceback_follows_its_line() -> None:
    """Every line of a traceback is printable, and it begins below the message."""
    try:
        int("a\x1b[31m\u202eb\n\x1b")
    except ValueError:
        record = LOG.makeRecord(LOG.name, logging.ERROR, __file__, 1, "it\nfailed %s", ("\x1b",), sys.exc_info())
    first, *rest = LineFormatter().format(record).split("\n")
    assert first.endswith("ERROR pika_async: it failed �")
    assert rest[0] == "Traceback (most recent call last):"
    assert all(line.isprintable() for line in rest)
