"""Settled jobs in memory: small records, the bound beyond which the oldest are forgotten, and those that never are."""

from __future__ import annotations

import logging
import sys

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pika_async._journal.memory import UNPACKED_JOBS, MemoryJournal
from pika_async._journal.protocol import Upload
from pika_async._journal.settled import SettledOrder, pack_settled, status_of, unpack_settled
from pika_async.errors import DownloadFailed, GenerationFailed, SubmissionInDoubt, SubmissionsStopped
from pika_async.jobs import Job, JobStatus, utc_from_timestamp
from pika_async.models import GenerationRequest, Video
from tests.journal.builders import INTENT, a_job, accepted, with_token

pytestmark = pytest.mark.anyio
S = JobStatus


def settled(key: str = "a", number: int = 1) -> Job:
    """Return a job that has succeeded."""
    video = Video(url=f"https://cdn.test/{number}.mp4", seed=number, task_id=f"t-{number}")
    return attrs.evolve(
        accepted(key, f"t-{number}"), status=S.SUCCEEDED, video=video, settled_at=utc_from_timestamp(1_700_000_009.5)
    )


def failed(key: str = "a") -> Job:
    error = GenerationFailed(key=key, provider="p", task_id="t-1", reason="no", kind="moderation", refunded=None)
    return attrs.evolve(accepted(key), status=S.FAILED, error=error, settled_at=utc_from_timestamp(1_700_000_009.5))


async def bounded(journal: MemoryJournal, count: int) -> None:
    """Save `count` jobs that have settled."""
    for number in range(count):
        await journal.save(accepted(f"k{number}", f"t-{number}"))
        await journal.save(settled(f"k{number}", number))


# --- records --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job", [settled(), failed(), a_job().canceled(failed().to_exception(), 1.7e9)])
def test_a_record_returns_its_job(job: Job) -> None:
    record = pack_settled(job)
    assert isinstance(record, bytes)
    assert (unpack_settled(record), status_of(record)) == (job, job.status)


def test_a_record_of_a_usual_job_is_small() -> None:
    """The texts of its own, and at most 150 bytes."""
    job = settled("job-00112233aabbccdd", 4_123_456_789)
    texts = [job.key, job.request.prompt, job.task_id or "", job.video.url if job.video else ""]
    assert sys.getsizeof(pack_settled(job)) < sum(map(len, texts)) + 150


@pytest.mark.parametrize(
    "job",
    [
        attrs.evolve(settled(), request=GenerationRequest("a cat", key="a", image=b"\x89PNG" * 500)),
        attrs.evolve(settled(), request=GenerationRequest("a cat", key="a", metadata={"mine": {"deep": [1]}})),
        attrs.evolve(settled(), error=SubmissionsStopped(provider="p", reason="no")),
    ],
    ids=["image", "metadata", "stop"],
)
def test_a_job_with_objects_of_others_is_returned_as_it_was(job: Job) -> None:
    stored = pack_settled(job)
    assert unpack_settled(stored) == job
    if isinstance(job.request.image, bytes):
        assert stored is job  # bytes that many requests have in common are not copied


# --- order ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(["add", "discard", "pop"]), st.integers(0, 8)), max_size=120))
def test_the_order_is_that_of_a_list(steps: list[tuple[str, int]]) -> None:
    """Whatever is added, discarded and popped."""
    order, model = SettledOrder(), list[str]()
    for step, number in steps:
        key = str(number)
        if step == "add" and key not in model:
            order.add(key)
            model.append(key)
        elif step == "discard" and key in model:
            order.discard(key)
            model.remove(key)
        elif step == "pop" and model:
            assert order.pop() == model.pop(0)
        assert len(order) == len(model)


def test_a_key_that_settles_again_and_again_takes_no_more_memory() -> None:
    order = SettledOrder()
    for _ in range(10_000):
        order.add("a")
        order.discard("a")
    assert (len(order), len(order._keys) < 200) == (0, True)


# --- the bound ------------------------------------------------------------------------------------------------------


async def test_beyond_the_bound_the_first_that_settled_is_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    """With its task id, its token and its event; the charges stay, and one warning is logged."""
    journal = MemoryJournal(settled=3)
    assert journal.revision == 0
    await journal.record_intent(a_job("k0").submitting(), with_token("token"))
    await bounded(journal, 3)
    assert (journal.key_for_token("token"), caplog.records) == ("k0", [])
    await journal.save(accepted("k3", "t-3"), accepted("k4", "t-4"))
    await journal.save(settled("k3", 3), settled("k4", 4))
    assert [*journal.keys()] == ["k2", "k3", "k4"]
    assert (journal.get("k0"), "k0" in journal, journal.key_for_token("token")) == (None, False, None)
    assert [journal.key_for_task("p", "https://x.test", f"t-{number}") for number in (1, 2)] == [None, "k2"]
    assert (journal.count(S.SUCCEEDED), journal.charges()) == (3, 5)
    await journal.open()
    assert [job.key for _, job in await journal.changes(0)] == ["k2", "k3", "k4"]
    assert [(record.levelno, "a journal file forgets none" in record.message) for record in caplog.records] == [
        (logging.WARNING, True)
    ]


async def test_a_forgotten_job_that_is_saved_again_is_not_charged_again() -> None:
    """Its file came late: the job is known again."""
    journal = MemoryJournal(settled=1)
    await bounded(journal, 2)
    await journal.save(attrs.evolve(settled("k0", 0), sha256="ab" * 32))
    assert ([*journal.keys()], journal.charges()) == (["k0"], 2)


async def test_what_has_not_settled_is_never_forgotten() -> None:
    """Planned, sent, accepted, timed out and in doubt, from before all others."""
    journal = MemoryJournal(settled=2)
    doubt = a_job("doubt").submitting().in_doubt(
        SubmissionInDoubt(key="doubt", provider="p", reason="?", at=INTENT.at, attempt=1), INTENT.at
    )  # fmt: skip
    late = accepted("late", "t-late").timed_out(failed().to_exception())
    kept = [a_job("planned"), a_job("sent").submitting(), accepted("accepted", "t-acc"), late, doubt]
    await journal.save(*kept)
    await bounded(journal, 600)
    assert [*journal.keys()] == [*(job.key for job in kept), "k598", "k599"]
    assert [journal.get(job.key) for job in kept] == kept


async def test_a_result_that_is_still_wanted_is_never_forgotten() -> None:
    """One whose download has failed, until it has its file; one whose download is under way, until that has ended."""
    journal = MemoryJournal(settled=2)
    error = DownloadFailed(url="https://cdn.test/1.mp4", reason="no")
    fetching = {"fetched"}
    journal.retain(fetching)
    await journal.save(settled("fetched", 900), settled("wanted", 901).with_download_error(error))
    await bounded(journal, 5)
    assert [*journal.keys()] == ["fetched", "wanted", "k3", "k4"]
    assert journal.count(S.SUCCEEDED) == 4
    fetching.clear()
    await journal.save(settled("fetched", 900), settled("wanted", 901))
    await bounded(journal, 3)
    assert [*journal.keys()] == ["k1", "k2"]


async def test_a_job_that_is_planned_again_settles_anew() -> None:
    """Its earlier end does not make it the oldest."""
    journal = MemoryJournal(settled=2)
    withdrawn = a_job("again").canceled(failed().to_exception(), 1.7e9)
    await journal.save(withdrawn, settled("k0", 0))
    await journal.save(a_job("again"))
    await journal.save(settled("again", 7), settled("k1", 1))
    assert [*journal.keys()] == ["again", "k1"]


async def test_an_archived_job_keeps_its_place() -> None:
    """It is forgotten under its new key; the next job of the key is not."""
    journal = MemoryJournal(settled=2)
    await journal.save(settled("a", 7))
    archived = await journal.archive(settled("a", 7))
    await journal.save(a_job("a"))
    await bounded(journal, 2)
    assert ([*journal.keys()], archived.key) == (["a", "k0", "k1"], "a~1")


async def test_older_settled_jobs_are_records() -> None:
    """The latest stay objects; a record that is saved again stays one, and reads return the same jobs."""
    journal = MemoryJournal()
    await bounded(journal, UNPACKED_JOBS + 2)
    assert [type(journal._jobs[key]) for key in ("k0", "k1", "k2")] == [bytes, bytes, Job]
    await journal.save(attrs.evolve(settled("k0", 0), sha256="ab" * 32))
    assert type(journal._jobs["k0"]) is bytes
    assert journal.get("k0") == attrs.evolve(settled("k0", 0), sha256="ab" * 32)
    assert [job.key for job in journal.all(S.SUCCEEDED)] == [f"k{number}" for number in range(UNPACKED_JOBS + 2)]
    assert [*journal.all(S.FAILED)] == []


async def test_replaced_changes_take_no_memory() -> None:
    """Of a job that has changed 1,000 times, the latest number is kept."""
    journal = MemoryJournal()
    assert journal.revision == 0
    for percent in range(1_000):
        await journal.save(attrs.evolve(accepted(), progress=percent % 100))
    assert (journal.revision, len(journal._changed)) == (1_000, 1)


async def test_addresses_of_uploads_have_the_same_bound() -> None:
    journal = MemoryJournal(settled=2)
    for number in (1, 2, 1, 3):
        await journal.save_upload(Upload(sha256=str(number), url="https://x.test", at=INTENT.at))
    assert [number for number in (1, 2, 3) if journal.get_upload(str(number))] == [1, 3]


@settings(max_examples=30)
@given(st.integers(1, 5), st.lists(st.sampled_from("abcdefgh"), max_size=30))
async def test_there_are_never_more_than_the_bound(bound: int, keys: list[str]) -> None:
    """And never fewer while there are others to keep."""
    journal, seen = MemoryJournal(settled=bound), set[str]()
    for key in keys:
        await journal.save(settled(key))
        seen.add(key)
        assert min(bound, len(seen)) >= len([*journal.keys()]) >= 1
