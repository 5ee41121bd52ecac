"""Feeds in the shapes of the wider family: rows and flat tasks under other words, names and wrappers."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pika_async import Snapshot, TaskState
from pika_async.providers._wire import DecodeError, HttpResponse
from tests import samples
from tests.fakes.family import GATEWAYS

TASK_ID = "Task-5e1F"
URL = "https://cdn.example/v.mp4"
#: Places of the URL of a result, as fields of a task.
URL_PLACES: dict[str, dict[str, Any]] = {
    "video_url": {"video_url": URL},
    "url": {"url": URL},
    "result_url": {"result_url": URL},
    "resultUrl": {"resultUrl": URL},
    "urls[0]": {"urls": [URL, "https://cdn.example/other.mp4"]},
    "output.video.url": {"output": {"video": {"url": URL}}},
    "content.video_url": {"content": {"video_url": URL}},
}
SUCCESS_WORDS = ("completed", "finished", "success", "succeeded", "COMPLETED")
FAILURE_WORDS = ("failed", "failure", "error", "fail", "FAIL")
#: Words that no page of the four gateways lists.
OTHER_WORDS = ("cancelled", "canceled", "expired", "succeed", "archived")

RECORDED = [
    pytest.param(name, sample["response"]["body"], sample["means"]["task_id"], id=f"{name}-{sample['name']}")
    for name in samples.PROVIDERS
    for sample in samples.load(name, "feed")
]


def read(provider: str, body: Any, task_id: str = TASK_ID) -> Snapshot:
    """Return the snapshot of an answer with status 200."""
    return GATEWAYS[provider].decode_snapshot(HttpResponse(status=200, body=json.dumps(body).encode()), task_id)


def shapes(task: dict[str, Any]) -> dict[str, Any]:
    """Return the answers in which a task with these fields is a row, flat, or flat and wrapped."""
    return {
        "row": {"id": TASK_ID, "videos": [task]},
        "flat": {"id": TASK_ID, **task},
        "flat, task_id": {"task_id": TASK_ID, **task},
        "wrapped row": {"code": 200, "msg": "success", "data": {"id": TASK_ID, "videos": [task]}},
        "wrapped": {"code": "success", "data": {"task_id": TASK_ID, **task}},
        "wrapped twice": {"data": {"data": {"id": TASK_ID, **task}}},
        "list": {"code": 200, "data": [{"task_id": TASK_ID, **task}]},
        "list of tasks": {"data": [{"task_id": "another", "status": "running"}, {"task_id": TASK_ID, **task}]},
        "list alone": [{"id": TASK_ID, **task}],
        "result": {"code": 0, "result": {"id": TASK_ID, **task}},
        "task": {"task": {"id": TASK_ID, **task}},
    }


EVERY_SHAPE = pytest.mark.parametrize("shape", shapes({}))
EVERY_PROVIDER = pytest.mark.parametrize("provider", GATEWAYS)


# --- words --------------------------------------------------------------------------------------------------------------


@EVERY_SHAPE
def test_a_success_word_beside_a_url_is_a_success(shape: str) -> None:
    """Each success word of the family beside a URL settles a task, in `status` and in `state`, in every shape."""
    for provider, word in product(GATEWAYS, SUCCESS_WORDS):
        for field in ("status", "state"):
            snapshot = read(provider, shapes({field: word, "url": URL})[shape])
            assert (snapshot.state, snapshot.task_id, snapshot.known_word) == (TaskState.SUCCEEDED, TASK_ID, True)
            assert snapshot.video is not None
            assert (snapshot.video.url, snapshot.video.task_id) == (URL, TASK_ID)


@EVERY_SHAPE
def test_the_url_of_a_result_is_found_in_every_place(shape: str) -> None:
    """The URL of a result is read wherever the family puts it."""
    for provider, place in product(GATEWAYS, URL_PLACES):
        snapshot = read(provider, shapes({"status": "completed", **URL_PLACES[place]})[shape])
        assert snapshot.video is not None, place
        assert snapshot.video.url == URL


@EVERY_SHAPE
def test_no_word_is_a_success_without_a_url(shape: str) -> None:
    """Without a URL that can be fetched no word is a success; an undocumented one then means running."""
    for provider, place, word in product(GATEWAYS, ["nowhere", *URL_PLACES], SUCCESS_WORDS):
        fields = json.loads(json.dumps(URL_PLACES.get(place, {})).replace(URL, "file:///v.mp4"))
        snapshot = read(provider, shapes({"status": word, **fields})[shape])
        assert snapshot.video is None
        assert snapshot.state in {TaskState.RUNNING, TaskState.SUCCEEDED_WITHOUT_URL}
        if word.lower() == "completed":
            assert (snapshot.state, snapshot.known_word) == (TaskState.RUNNING, False)


@EVERY_SHAPE
def test_a_failure_word_is_a_failure_with_its_reason(shape: str) -> None:
    """Each failure word of the family fails a task with the provider's reason, in every shape."""
    for provider, word in product(GATEWAYS, FAILURE_WORDS):
        for reason in ({"error": "not allowed"}, {"fail_reason": "not allowed"}, {"error": {"message": "not allowed"}}):
            snapshot = read(provider, shapes({"status": word, **reason})[shape])
            assert (snapshot.state, snapshot.reason, snapshot.task_id) == (TaskState.FAILED, "not allowed", TASK_ID)


@EVERY_SHAPE
def test_another_word_keeps_the_task_running_with_what_stood_beside_it(shape: str) -> None:
    """A word without a source neither fails nor settles a task; its URL and the provider's words are kept."""
    for provider, word in product(GATEWAYS, OTHER_WORDS):
        snapshot = read(provider, shapes({"status": word, "video_url": URL, "message": "see the console"})[shape])
        assert (snapshot.state, snapshot.word, snapshot.known_word) == (TaskState.RUNNING, word, False)
        assert (snapshot.video, snapshot.url, snapshot.reason) == (None, URL, "see the console")


def test_a_word_of_a_row_precedes_one_of_its_feed() -> None:
    """A feed that counts as finished does not settle a row that is still being made."""
    body = {"id": TASK_ID, "status": "finished", "url": URL, "videos": [{"status": "rendering"}]}
    assert read("gptge", body).state is TaskState.RUNNING


@EVERY_PROVIDER
def test_a_result_without_any_status_keeps_the_task_running(provider: str) -> None:
    """A URL beside no status at all is kept and reported; it is not a success."""
    snapshot = read(provider, {"id": TASK_ID, "video_url": URL})
    assert (snapshot.state, snapshot.known_word, snapshot.url) == (TaskState.RUNNING, False, URL)


@EVERY_SHAPE
def test_a_zero_is_a_value(shape: str) -> None:
    """A seed, a duration or a progress of 0 is read as 0, in every shape; only a time of 0 means "not yet"."""
    zeros = {"seed": 0, "duration": 0, "progress": 0}
    for provider in GATEWAYS:
        snapshot = read(provider, shapes({"status": "completed", "url": URL, **zeros})[shape])
        assert snapshot.video is not None
        assert (snapshot.video.seed, snapshot.video.duration, snapshot.progress) == (0, 0.0, 0)


def test_points_of_zero_are_read() -> None:
    """Points of 0 are points, and a refund of 0 is a refund of nothing."""
    snapshot = read("cometapi", {"code": 200, "data": {"task_id": TASK_ID, "status": "1", "point": "0", "refund": "0"}})
    assert (snapshot.points, snapshot.refunded) == (0.0, 0.0)
    assert (snapshot.created_at, snapshot.updated_at) == (None, None)


# --- ids ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["task_id", "id", "taskId", "TASK_ID", "video_id", "job_id", "Id", "request_id"])
def test_an_id_is_recognised_under_other_names_and_in_another_case(name: str) -> None:
    """The id of the poll is recognised in any letter case, under each name that the family gives it."""
    for provider, task_id in product(GATEWAYS, [TASK_ID, TASK_ID.lower(), TASK_ID.upper()]):
        task = {name: task_id, "status": "completed", "url": URL}
        for body in (task, {"code": 200, "data": task}):
            assert read(provider, body).task_id == TASK_ID


@EVERY_SHAPE
def test_another_tasks_id_is_reported(shape: str) -> None:
    """An answer about another task has that task's id, so that the caller can discard it."""
    body = json.loads(json.dumps(shapes({"status": "completed", "url": URL})[shape]).replace(TASK_ID, "task-b"))
    for provider in GATEWAYS:
        if shape == "list of tasks":  # neither of two other tasks can be meant
            snapshot = read(provider, body)
            assert (snapshot.state, snapshot.known_word, snapshot.word) == (TaskState.RUNNING, False, "")
        else:
            assert read(provider, body).task_id == "task-b"


@EVERY_PROVIDER
def test_a_status_of_the_answer_is_not_that_of_the_task(provider: str) -> None:
    """The status and the id of a wrapper do not count beside those of the task in it."""
    task = {"task_id": TASK_ID, "status": "running"}
    for wrapper in ({"status": "success"}, {"status": 200}, {"status": "error", "id": "req-1"}, {"request_id": "r"}):
        snapshot = read(provider, {**wrapper, "url": URL, "data": task})
        assert (snapshot.state, snapshot.task_id, snapshot.word) == (TaskState.RUNNING, TASK_ID, "running")
    snapshot = read(provider, {"status": "success", "url": URL, "data": {"status": "running"}})
    assert (snapshot.state, snapshot.word) == (TaskState.RUNNING, "running")


@EVERY_PROVIDER
@pytest.mark.parametrize("word", ["error", "failed", "completed", "running"])
def test_a_status_beside_no_task_settles_nothing(provider: str, word: str) -> None:
    """A bare status, or one beside a failure's code, may be that of the answer: it says nothing about the task."""
    with pytest.raises(DecodeError, match="must name a task"):
        read(provider, {"status": word, "message": "try later"})
    snapshot = read(provider, {"code": 500, "message": "try later", "data": {"status": word}})
    assert (snapshot.state, snapshot.word) == (TaskState.RUNNING, "")


# --- wrappers -----------------------------------------------------------------------------------------------------------

wrappers = st.sampled_from(
    [
        lambda body: {"code": 200, "msg": "success", "data": body},
        lambda body: {"code": "success", "message": "", "data": body},
        lambda body: {"data": body},
        lambda body: {"data": [body]},
        lambda body: {"code": 0, "request_id": "r-1", "result": body},
    ]
)


@pytest.mark.parametrize(("provider", "body", "task_id"), RECORDED)
@settings(max_examples=12)
@given(layers=st.lists(wrappers, min_size=1, max_size=3))
def test_a_recorded_feed_reads_the_same_in_up_to_three_wrappers(
    provider: str, body: Any, task_id: str, layers: list[Any]
) -> None:
    """Each recorded feed, wrapped one to three times, has the snapshot that it has alone."""
    expected = read(provider, body, task_id)
    for wrap in layers:
        body = wrap(body)
    assert read(provider, body, task_id) == expected


@EVERY_PROVIDER
def test_wrappers_are_opened_to_a_bounded_depth(provider: str) -> None:
    """A task in seven wrappers is not read: the answer counts as one of an unknown word."""
    body: Any = {"task_id": TASK_ID, "status": "completed", "url": URL}
    for _ in range(7):
        body = {"data": body}
    snapshot = read(provider, body)
    assert (snapshot.state, snapshot.known_word) == (TaskState.RUNNING, False)


@pytest.mark.parametrize(
    "body",
    [
        {}, [], {"code": 200, "msg": "success"}, {"code": 200, "data": None}, {"data": {}}, {"data": []}, {"videos": []},
        {"data": "Task-5e1F"}, {"ok": True, "progress": 40}, {"videos": [None]}, {"data": {"data": {"data": {}}}},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_an_answer_in_which_nothing_is_recognised_is_not_queued(body: Any) -> None:
    """Without a status, an id and a row the answer counts as one of an unknown word, never as queued."""
    for provider in GATEWAYS:
        snapshot = read(provider, body)
        assert (snapshot.state, snapshot.known_word, snapshot.word) == (TaskState.RUNNING, False, "")
        assert snapshot.task_id == TASK_ID


# --- any answer ---------------------------------------------------------------------------------------------------------

_names = st.sampled_from(
    ["id", "task_id", "status", "state", "data", "videos", "url", "video_url", "resultUrl", "urls", "output", "video",
     "content", "code", "result", "fail_reason", "error"]
)  # fmt: skip
_scalars = st.sampled_from(
    [TASK_ID, "task-b", "completed", "finished", "success", "3", "SUCCESS", "error", "cancelled", "", 200, None]
)
_answers = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_names, inner, max_size=5),
    max_leaves=14,
)


@given(st.sampled_from(sorted(GATEWAYS)), _answers)
def test_no_answer_without_a_url_is_a_success(provider: str, body: Any) -> None:
    """Whatever the words, names and wrappers of an answer are: without a URL in it, it is not a success."""
    try:
        snapshot = read(provider, body)
    except DecodeError:
        return
    assert snapshot.state is not TaskState.SUCCEEDED
    assert snapshot.video is None


@given(st.sampled_from(sorted(GATEWAYS)), _answers)
def test_a_success_has_a_url_of_the_answer(provider: str, body: Any) -> None:
    """A success has a URL that stands in the answer."""
    text = json.dumps(body).replace('"task-b"', f'"{URL}"').replace('"cancelled"', '"completed"')
    try:
        snapshot = read(provider, json.loads(text))
    except DecodeError:
        return
    assert (snapshot.video is not None) == (snapshot.state is TaskState.SUCCEEDED)
    assert snapshot.video is None or snapshot.video.url in text


@pytest.mark.parametrize("provider", ["cometapi", "native"])
@pytest.mark.parametrize("outer", ["finished", "SUCCESS", "completed"])
@pytest.mark.parametrize("word", ["queued", "processing", "waiting"])
def test_a_row_that_waits_is_not_finished_by_what_is_around_it(provider: str, outer: str, word: str) -> None:
    """The word of the row counts before that of the task around it, also beside a URL; a later answer settles it."""
    body = {"id": TASK_ID, "status": outer, "url": URL, "videos": [{"status": word, "url": URL}]}
    snapshot = read(provider, body)
    assert snapshot.state in {TaskState.QUEUED, TaskState.RUNNING}
    assert (snapshot.word, snapshot.video) == (word, None)
