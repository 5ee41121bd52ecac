"""Serialization of records: every job survives a round trip, and a value that cannot be stored never stops a write."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async import errors
from pika_async._journal.contents import digest_of
from pika_async._journal.protocol import Intent
from pika_async._journal.serialization import (
    JOB_COLUMNS,
    is_later,
    job_from_row,
    job_to_line,
    job_to_row,
    request_to_json,
)
from pika_async.errors import DeadlineExceeded, InvalidRequest, JobError, SubmissionInDoubt
from pika_async.jobs import Job, JobStatus, utc_from_timestamp
from pika_async.models import Camera, GenerationRequest, LastSeen, Video
from pika_async.models.fields import EFFECTS
from pika_async.models.results import RouteStep
from tests.journal.values import FACTS, KINDS, facts_of, json_values, named, numbers, of_kind, texts, times

FOLDER = Path("/videos")

prompts = texts.filter(str.strip)
keys = st.text("abcXYZ019é", min_size=1, max_size=10)
media = st.one_of(
    st.sampled_from(["https://x.test/a?b=c", "cat.png", "/tmp/Katze ü.png"]),
    st.sampled_from([Path("cat.png"), Path("/tmp/ü.png"), Path("/tmp/\udcff")]),
    st.binary(min_size=1, max_size=20),
)
inputs = st.one_of(
    st.just({}),
    st.builds(lambda it: {"image": it}, media),
    st.builds(lambda it: {"video": it}, media),
    st.builds(lambda one, two: {"image": one, "last_image": two}, media, media),
    st.builds(
        lambda them, mode: {"ingredients": them, "ingredients_mode": mode},
        st.lists(media, min_size=1, max_size=3),
        st.sampled_from(["precise", "creative", None]),
    ),
)
options = st.fixed_dictionaries(
    {"prompt": prompts},
    optional={
        "effect": st.sampled_from(EFFECTS),
        "aspect_ratio": st.sampled_from(["16:9", "1.78", 1.5, 1]),
        "frame_rate": st.integers(8, 24),
        "camera": st.builds(Camera, pan=st.sampled_from(["left", None]), zoom=st.sampled_from(["in", "out", None])),
        "guidance_scale": st.integers(5, 25),
        "motion": st.integers(0, 4),
        "negative_prompt": texts,
        "seed": st.integers(0, 2**63 - 1),
        "sfx": st.booleans(),
        "extend": st.booleans(),
        "model": st.sampled_from(["2.2", 2.2, "turbo"]),
        "duration": st.integers(1, 60) | st.floats(0.01, 60),
        "resolution": st.sampled_from(["720p", "4K"]),
        "key": keys,
        "metadata": st.dictionaries(texts, json_values, max_size=3),
        "strict": st.booleans(),
    },
)
requests: st.SearchStrategy[GenerationRequest] = st.builds(lambda a, b: GenerationRequest(**a, **b), options, inputs)
videos = st.builds(
    Video,
    url=texts,
    poster=st.none() | texts,
    thumbnail=st.none() | texts,
    share_url=st.none() | texts,
    last_frame=st.none() | texts,
    seed=st.none() | st.integers(0, 2**70),
    duration=st.none() | numbers,
    task_id=st.none() | texts,
)
all_errors = st.sampled_from(KINDS).flatmap(of_kind)
jobs: st.SearchStrategy[Job] = st.builds(
    Job,
    key=keys,
    request=requests,
    provider=texts,
    base_url=texts,
    account=st.none() | texts,
    handle=st.none() | texts,
    cost=st.none() | numbers,
    earlier_steps=st.lists(st.builds(RouteStep, texts, texts, st.none() | times, texts), max_size=3).map(tuple),
    index=st.integers(0, 2**62),
    status=st.sampled_from(JobStatus),
    task_id=st.none() | texts,
    video=st.none() | videos,
    file=st.none() | st.sampled_from([FOLDER / "a.mp4", FOLDER / "b" / "ü.mp4", Path("/elsewhere/a.mp4")]),
    sha256=st.none() | st.just("ab" * 32),
    error=st.none() | all_errors,
    progress=st.none() | st.integers(0, 100),
    last_seen=st.none() | st.builds(LastSeen, texts, texts, st.none() | texts),
    polls=st.integers(0, 2**62),
    attempts=st.integers(0, 2**62),
    submitted_at=st.none() | times,
    settled_at=st.none() | times,
    downloaded_at=st.none() | times,
    points=st.none() | numbers,
    refunded=st.none() | numbers,
)


def same(one: Job, other: Job) -> bool:
    """Equal in every field; errors compare by identity, so by their facts here."""
    return attrs.evolve(one, error=None) == attrs.evolve(other, error=None) and facts_of(one.error) == facts_of(
        other.error
    )


def request_columns(request: GenerationRequest) -> dict[str, Any]:
    """The columns of a request as they are read; its bytes are stored apart."""
    media = (request.image, request.video, request.last_image, *request.ingredients)
    contents = {digest_of(each): each for each in media if isinstance(each, bytes)}
    return {"request": request_to_json(request), "contents": contents}


def through_values(job: Job) -> Job:
    return job_from_row(job_to_row(job, None, FOLDER) | request_columns(job.request), FOLDER)


@given(jobs)
def test_a_job_survives_a_round_trip(job: Job) -> None:
    """Requests with every field, videos, errors of every class, times to the millisecond, files inside and outside."""
    assert same(through_values(job), job)


@given(jobs, st.none() | keys)
def test_a_fallback_line_holds_the_whole_record_but_not_the_request(job: Job, previous_key: str | None) -> None:
    """It is a single ASCII line without characters that a line reader would split at."""
    line = job_to_line(job, previous_key, FOLDER, "7f")
    values = json.loads(line)
    row = {name: values.get(name) for name in JOB_COLUMNS} | {"key": values["key"]}
    read = job_from_row(row | request_columns(job.request), FOLDER)
    assert (same(read, job), values["previous_key"], values["journal"]) == (True, previous_key, "7f")
    assert "request" not in values
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert b"\0" not in line


@given(requests)
def test_media_come_back_as_the_same_type(request: GenerationRequest) -> None:
    """A path does not become a URL, and bytes do not become text."""
    job = through_values(Job(key="a", request=request, provider="p", base_url="u"))
    before, after = ([it.image, it.video, it.last_image, *it.ingredients] for it in (request, job.request))
    assert [type(it) for it in after] == [type(it) for it in before]
    assert job.request.fingerprint() == request.fingerprint()


def test_a_request_of_an_earlier_journal_is_read() -> None:
    """It has no duration, no resolution and no last image, which are None then."""
    request = GenerationRequest("a cat", image=b"png", seed=3)
    columns = request_columns(request)
    facts = json.loads(columns["request"])
    for field in ("duration", "resolution", "last_image"):
        del facts[field]
    job = Job(key="a", request=request, provider="p", base_url="u")
    row = job_to_row(job, None, FOLDER) | columns | {"request": json.dumps(facts)}
    assert job_from_row(row, FOLDER).request == request


def test_every_class_of_error_is_covered() -> None:
    """Each fact of an error has a type that a strategy generates."""
    assert {named(field.type) for kind in KINDS for field in attrs.fields(kind)} <= set(FACTS)
    assert {kind.__name__ for kind in KINDS} == set(errors.__all__)


def a_job(**changes: Any) -> Job:
    return Job(key="a", request=GenerationRequest("a cat"), provider="p", base_url="u", **changes)


@pytest.mark.parametrize("value", [b"\xff", {1, 2}, {(1, 2): 3}, object, 1 + 2j, "\ud800", Path("/x")])
def test_a_fact_that_json_cannot_hold_becomes_text(value: object) -> None:
    """An error may contain any value that a user passed."""
    error = through_values(a_job(error=InvalidRequest(field="image", value=value, reason="is bad"))).error
    assert isinstance(error, InvalidRequest)
    assert isinstance(error.value, str)


def test_a_cyclic_fact_becomes_text() -> None:
    """A cyclic value does not prevent a job from being written."""
    circle: list[object] = []
    circle.append(circle)
    error = through_values(a_job(error=InvalidRequest(field="image", value=circle, reason="is bad"))).error
    assert isinstance(error, InvalidRequest)
    assert error.value == "[[...]]"


def test_infinite_seconds_come_back() -> None:
    error = through_values(a_job(error=DeadlineExceeded(key="a", provider="p", seconds=math.inf))).error
    assert isinstance(error, DeadlineExceeded)
    assert error.seconds == math.inf


@pytest.mark.parametrize(
    "damage",
    [
        {"type": "FromTheFuture"},
        {"facts": {"key": "a", "provider": "p", "and": "more"}},
        {"facts": {}},
        {"facts": {"key": "a", "provider": "p", "at": "yesterday"}},
    ],
)
def test_an_error_of_another_version_keeps_its_message(damage: dict[str, Any]) -> None:
    """An unknown class or fact does not lose the message."""
    values = job_to_row(a_job(error=SubmissionInDoubt(key="a", provider="p", reason="cut")), None, FOLDER)
    stored = json.loads(str(values["error"]))
    values |= {"error": json.dumps(stored | damage), "request": request_to_json(a_job().request)}
    error = job_from_row(values, FOLDER).error
    assert type(error) is JobError
    assert error.reason == stored["message"]


def test_metadata_changed_after_validation_is_saved_as_text() -> None:
    """A request is validated when it is created; its mapping belongs to the user and may change later."""
    metadata: dict[str, object] = {"a": 1}
    request = GenerationRequest("a cat", metadata=metadata)
    metadata["me"] = metadata
    job = through_values(Job(key="a", request=request, provider="p", base_url="u"))
    assert job.request.metadata is not None
    assert list(job.request.metadata) == ["text"]


def test_times_are_utc_and_text() -> None:
    """A person can read them in the table."""
    values = job_to_row(
        a_job(submitted_at=utc_from_timestamp(1.25)), Intent(at=utc_from_timestamp(0.5), body_sha256="ab"), FOLDER
    )
    assert values["submitted_at"] == "1970-01-01T00:00:01.250000+00:00"
    assert values["intended_at"] == datetime(1970, 1, 1, 0, 0, 0, 500_000, UTC).isoformat()


def test_a_file_of_the_folder_moves_with_it() -> None:
    """A path inside the folder is stored relative to it and read relative to its current place."""
    values = job_to_row(a_job(file=FOLDER / "b" / "a.mp4"), None, FOLDER) | {
        "request": request_to_json(a_job().request)
    }
    assert job_from_row(values, Path("/moved")).file == Path("/moved/b/a.mp4")


def test_states_are_ordered_by_attempt_status_and_file() -> None:
    """The attempt is compared first, then the status, then the file."""
    way = [
        a_job(),
        a_job(attempts=1, status=JobStatus.SUBMITTING),
        a_job(attempts=1, status=JobStatus.UNKNOWN),
        a_job(attempts=1, status=JobStatus.QUEUED),
        a_job(attempts=1, status=JobStatus.RUNNING),
        a_job(attempts=1, status=JobStatus.TIMED_OUT),
        a_job(attempts=1, status=JobStatus.SUCCEEDED),
        a_job(attempts=1, status=JobStatus.SUCCEEDED, file=Path("/a.mp4")),
        a_job(attempts=2, status=JobStatus.SUBMITTING),
    ]
    assert [[is_later(one, other) for other in way] for one in way] == [
        [one > other for other in range(len(way))] for one in range(len(way))
    ]


def test_the_media_types_are_these_three() -> None:
    """A fourth type would need a form of its own in a record."""
    from pika_async.models.fields import Media

    assert {kind.__name__ for kind in get_args(Media)} == {"str", "PurePath", "bytes"}
