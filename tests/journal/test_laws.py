"""What survives in every journal: read by the next process, which has the file or the jobs of an ended worker."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pika_async._journal.protocol import Journal, Upload
from pika_async.errors import InvalidRequest, JobError, PikaError
from pika_async.jobs import Job, JobStatus, utc_from_timestamp
from pika_async.models import GenerationRequest
from pika_async.models.results import Snapshot, TaskState, Video
from pika_async.polling import DurationSample
from tests.journal.builders import INTENT, a_job, accepted, with_token
from tests.journal.kinds import Journals
from tests.journal.values import KINDS, facts_of, of_kind

pytestmark = pytest.mark.anyio

DONE = Snapshot(task_id="t", state=TaskState.SUCCEEDED, video=Video(url="https://x.test/v.mp4"), cost=0.3)


async def test_every_state_that_was_saved_survives(journals: Journals, journal: Journal) -> None:
    """From the intent to the file; each is read back whole."""
    sent = attrs.evolve(a_job("e"), account="main").submitting(0.1)
    done = accepted("b", "t-2").with_snapshot(DONE, 9.0)
    fetched = accepted("c", "t-3").with_snapshot(DONE, 9.0).with_file(Path("/videos/c.mp4"), "ab" * 32)
    doubt = a_job("d").submitting().in_doubt(JobError(key="d", provider="p", reason="cut"), utc_from_timestamp(1.25))
    await journal.save(*(expected := [accepted("a"), done, fetched, doubt]))
    await journal.record_intent(sent, with_token("t"))
    again = await journals.reopen(journal)
    assert list(again.all()) == [*expected, sent]
    assert again.interrupted_jobs() == [(sent, with_token("t"))]
    assert again.intent("a") is None
    assert (again.charges(), again.costs()) == (5, {("p", None): 2, ("p", 0.3): 2, ("main", 0.1): 1})
    await again.close()


async def test_a_doubt_keeps_what_can_be_sent_again(journals: Journals, journal: Journal) -> None:
    """Until it has ended, and never beside another state."""
    intent = attrs.evolve(INTENT, repeatable='{"body": 1}')
    error = JobError(key="a", provider="p", reason="cut")
    for key in ("a", "b"):
        await journal.record_intent(a_job(key).submitting(), intent)
        await journal.save(a_job(key).submitting().in_doubt(error, INTENT.at))
    await journal.save(accepted("b", "t-2"))
    again = await journals.reopen(journal)
    assert (again.intent("a"), repeatable(again, "b"), again.interrupted_jobs()) == (intent, None, [])
    await again.save(accepted("a"))
    third = await journals.reopen(again)
    assert repeatable(third, "a") is None
    await third.close()


def repeatable(journal: Journal, key: str) -> str | None:
    intent = journal.intent(key)
    return None if intent is None else intent.repeatable


async def test_the_latest_state_is_the_one_that_survives(journals: Journals, journal: Journal) -> None:
    """Whatever was passed to `save_later` before it, and however many saves run at once."""
    states = [attrs.evolve(accepted(), polls=number) for number in range(40)]
    await journal.save(accepted(), accepted("b", "t-2"))
    saves = []
    for state in states:
        journal.save_later(attrs.evolve(state, progress=1))
        saves.append(asyncio.ensure_future(journal.save(state)))
        await asyncio.sleep(0)
    journal.save_later(attrs.evolve(accepted("b", "t-2"), progress=3))
    done = accepted().with_snapshot(DONE, 9.0)
    await asyncio.gather(*saves, journal.save(done))
    again = await journals.reopen(journal)
    assert again.get("a") == done
    assert again.get("b") == attrs.evolve(accepted("b", "t-2"), progress=3)
    await again.close()


async def test_an_archived_job_and_its_successor_survive(journals: Journals, journal: Journal) -> None:
    """A late state of the archived job is neither lost by that nor written over its successor."""
    await journal.save(accepted())
    journal.save_later(later := attrs.evolve(accepted(), progress=50))
    archived = await journal.archive(later)
    await journal.save(a_job())
    again = await journals.reopen(journal)
    assert (archived.key, again.get("a~1"), again.get("a")) == ("a~1", archived, a_job())
    assert again.key_for_task("p", "https://x.test", "t-1") == "a~1"
    await again.close()


async def test_settings_samples_and_uploads_survive(journals: Journals, journal: Journal) -> None:
    """The latest upload of a content replaces an earlier one."""
    samples = [
        DurationSample("x", 1.0, 2.5, progress_age=0.5, progress=40, accepted_at=1e9 + number) for number in range(3)
    ]
    await journal.set_setting("x", {"a": [1, None]})
    for url in ("https://x.test/1", "https://x.test/2"):
        await journal.save_upload(Upload(sha256="ab" * 32, url=url, at=INTENT.at))
    for sample in samples:
        journal.add_sample(sample)
    await journal.save(a_job())
    again = await journals.reopen(journal)
    assert again.get_setting("x") == {"a": [1, None]}
    assert again.get_upload("ab" * 32) == Upload(sha256="ab" * 32, url="https://x.test/2", at=INTENT.at)
    assert again.get_upload("cd" * 32) is None
    assert again.samples() == samples
    await again.close()


async def test_bytes_in_requests_survive(journals: Journals, journal: Journal) -> None:
    picture, text = bytes(range(256)) * 100, {"sha256": "0" * 64}
    requests = [
        GenerationRequest("a cat", image=picture, last_image=picture, metadata={"row": text}),
        GenerationRequest("a dog", ingredients=[picture, "https://x.test/a.png", b"2", picture]),
        GenerationRequest("a bird", video=Path("/videos/ü.mp4")),
    ]
    jobs = [attrs.evolve(a_job(f"k{number}"), request=request) for number, request in enumerate(requests)]
    await journal.save(*jobs)
    again = await journals.reopen(journal)
    assert list(again.all()) == jobs
    await again.close()


async def test_errors_of_every_class_survive(journals: Journals, journal: Journal) -> None:
    found: list[PikaError] = []

    @settings(max_examples=2, database=None)
    @given(st.tuples(*map(of_kind, KINDS)))
    def collect(them: tuple[PikaError, ...]) -> None:
        found.extend(them)

    collect()
    found.append(InvalidRequest(field="image", value=b"\0", reason="zero"))
    jobs = [attrs.evolve(a_job(f"k{number}"), error=error) for number, error in enumerate(found)]
    await journal.save(*jobs)
    again = await journals.reopen(journal)
    assert {type(job.error) for job in again.all()} == set(KINDS)
    assert [facts_of(job.error) for job in again.all()][:-1] == [facts_of(job.error) for job in jobs][:-1]
    await again.close()


async def test_a_task_id_names_the_job_that_has_it(journals: Journals, journal: Journal) -> None:
    """At that gateway alone; a provider that gives one id to two jobs makes neither of them disappear."""
    await journal.save(accepted("a"), a_job("b"))
    assert await journal.find_task("p", "https://x.test", "t-1") == "a"
    assert await journal.find_task("p", "https://y.test", "t-1") is None
    assert await journal.find_task("q", "https://x.test", "t-1") is None
    assert await journal.find_task("p", "https://x.test", "t-2") is None
    await journal.save(accepted("b"))
    again = await journals.reopen(journal)
    assert (
        await again.find_task("p", "https://x.test", "t-1") == again.key_for_task("p", "https://x.test", "t-1") == "b"
    )
    assert list(again.all(JobStatus.QUEUED)) == [accepted("a"), accepted("b")]
    await again.close()


async def test_a_save_that_was_cancelled_takes_place(journals: Journals, journal: Journal) -> None:
    """A task id that was read is not lost with the task that saves it."""
    await journal.record_intent(a_job().submitting(), INTENT)
    saving = asyncio.create_task(journal.save(accepted()))
    await asyncio.sleep(0)
    saving.cancel()
    with contextlib.suppress(asyncio.CancelledError):  # in memory it has taken place already
        await saving
    again = await journals.reopen(journal)
    assert again.get("a") == accepted()
    await again.close()


async def test_a_job_that_cannot_be_stored_stops_no_other(journals: Journals, journal: Journal) -> None:
    """Two that are saved with it survive."""
    bad: Job = attrs.evolve(accepted("bad", "t-9"), handle="\ud800")
    await journal.save(a_job("a"), a_job("b"), a_job("bad"))
    saves = [journal.save(job) for job in (accepted("a"), bad, accepted("b", "t-2"))]
    results = await asyncio.wait_for(asyncio.gather(*saves, return_exceptions=True), 30)
    assert [result for result in results if not isinstance(result, PikaError | None)] == []
    again = await journals.reopen(journal)
    assert (again.get("a"), again.get("b")) == (accepted("a"), accepted("b", "t-2"))
    await again.close()
