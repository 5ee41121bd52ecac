"""Jobs that are kept as bytes: what was put in comes out, and what is shared stays shared."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import attrs
import pytest

from pika_async import Camera, GenerationRequest, Job, JobStatus, SubmissionsStopped, Video
from pika_async._journal.packed import PackedList
from pika_async.errors import GenerationFailed, InvalidRequest, PikaError
from pika_async.jobs import utc_from_timestamp

IMAGE = b"\x89PNG" + bytes(1000)


class Word(str):
    """Text of somebody else's type."""

    __slots__ = ()


class OwnError(PikaError):
    """An error of somebody else's type."""


def job(number: int = 0, error: PikaError | None = None, **fields: Any) -> Job:
    request = GenerationRequest(f"prompt {number}", **fields)
    return Job(key=f"k{number}", index=number, request=request, provider="native", base_url="http://h", error=error)


def full_job() -> Job:
    return attrs.evolve(
        job(camera=Camera(pan="left"), effect="Inflate", seed=7, metadata={"row": [1, {"two": 2.5}]}),
        status=JobStatus.SUCCEEDED, task_id="t", video=Video(url="http://h/v.mp4", seed=3), file=Path("v.mp4"),
        sha256="0" * 64, progress=100, polls=2, attempts=1, points=1.5, submitted_at=utc_from_timestamp(1.0),
        settled_at=utc_from_timestamp(2.0),
    )  # fmt: skip


ITEMS = {
    "a prompt": "a cat \ud800",
    "a request": GenerationRequest("a cat"),
    "a plain job": job(),
    "a full job": full_job(),
    "a failure": job(error=GenerationFailed(key="k0", provider="native", task_id="t", reason="moderated")),
    "a stop": job(error=SubmissionsStopped(provider="native", reason="full")),
    "a refused row": job(error=InvalidRequest(field="seed", value={"not": object}, reason="must be a number")),
    "a path": job(image=Path("a.png")),
    "an image": job(image=IMAGE),
    "a last image": job(image="http://h/a.png", last_image=IMAGE),
    "ingredients": job(ingredients=["http://h/a.png", IMAGE, b"\x89PNG"]),
    "metadata": job(metadata={"count": 2, "row": {"a": [None, True]}}),
}


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
def test_an_item_comes_out_as_it_was_put_in(item: Any) -> None:
    """Every access returns an equal object, of requests and prompts too."""
    packed = PackedList([item])
    assert packed[0] == packed[-1] == item
    assert type(packed[0]) is type(item)


def test_a_packed_list_is_a_sequence() -> None:
    """It has a length, slices, an order, a search, a `repr`, and is equal to a list of the same items."""
    jobs = [job(number) for number in range(5)]
    packed = PackedList(jobs)
    assert packed == jobs
    assert jobs == packed
    assert packed == PackedList(jobs)
    assert packed[1:4] == jobs[1:4]
    assert [*reversed(packed)] == jobs[::-1]
    assert packed.select([3, 0, 3]) == [jobs[3], jobs[0], jobs[3]]
    assert packed.index(jobs[2]) == 2
    assert jobs[4] in packed
    assert repr(packed) == repr(jobs)
    assert packed != jobs[:4]
    assert packed != [*jobs[:4], job(9)]
    assert packed != tuple(jobs)
    with pytest.raises(IndexError):
        packed[5]


def test_what_is_large_or_shared_is_not_copied() -> None:
    """One image of many requests, the stop of many jobs and a value of a foreign type stay the same objects."""
    stop, word = SubmissionsStopped(provider="native", reason="full"), Word("7")
    for found in PackedList(job(number, stop, image=IMAGE) for number in range(3)):
        assert found.request.image is IMAGE
        assert found.error is stop
    (refused,) = PackedList([job(error=InvalidRequest(field="seed", value=word, reason="must be an integer"))])
    assert isinstance(refused.error, InvalidRequest)
    assert refused.error.value is word


def test_what_cannot_be_copied_is_kept_as_it_is() -> None:
    """A job is not lost because of metadata that refers to itself, or is nested too deeply."""
    odd = job(metadata={"row": 1})
    assert isinstance(odd.request.metadata, dict)
    odd.request.metadata["self"] = lambda: odd
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    too_deep = job(metadata={"row": 1})
    assert isinstance(too_deep.request.metadata, dict)
    too_deep.request.metadata["deep"] = deep
    own = job(error=OwnError())
    packed = PackedList([odd, too_deep, own])
    assert packed[0].request.metadata is not None
    assert packed[0].request.metadata["self"] is odd.request.metadata["self"]
    assert packed[1] is too_deep
    assert packed[2].error is own.error


def test_a_packed_list_holds_few_objects_that_a_collection_of_garbage_traverses() -> None:
    """However many jobs it has, of every kind that a long batch has many of."""
    stop = SubmissionsStopped(provider="native", reason="full")
    gc.collect()
    before = len(gc.get_objects())
    packed = PackedList(
        one
        for number in range(200)
        for one in (full_job(), ITEMS["a failure"], job(number, stop), job(number, image=IMAGE), f"prompt {number}")
    )
    gc.collect()
    assert len(gc.get_objects()) - before < 50
    assert len(packed) == 1000
