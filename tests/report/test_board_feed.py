"""Messages of the board: a reader gets what is missing, each card encoded once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from pika_async import Job, JobStatus
from pika_async._journal.protocol import JobState
from pika_async.report import board_feed
from pika_async.report.board_feed import MAX_CARDS_AT_ONCE, BoardCard, BoardFeed
from pika_async.report.cards import card_of, folder_subject, is_shown
from tests.report.jobs import failed, made, succeeded

ROOT = Path("/batch")


def put(feed: BoardFeed, job: Job, revision: int) -> None:
    if is_shown(job):
        feed.put(BoardCard.of(card_of(job, ROOT), ROOT, file=job.file), revision)
    else:
        feed.put_state(JobState(job.key, job.status, job.submitted_at), revision)


def read(feed: BoardFeed, after: int, seen: int | None = None) -> list[tuple[int, list[str]]]:
    """Return the id and the keys of each message."""
    found = []
    for message in feed.messages(after, seen):
        fields = dict(line.split(": ", 1) for line in message.decode().strip().split("\n"))
        assert fields["event"] == "cards"
        found.append((int(fields["id"]), [card["key"] for card in json.loads(fields["data"])]))
    return found


def test_a_reader_gets_what_changed_since_its_last_id() -> None:
    """The revision of that id is repeated, because more may have joined it."""
    feed = BoardFeed(folder_subject(ROOT))
    for revision, key in enumerate("abc", 1):
        put(feed, failed(key, "no"), revision)
    assert read(feed, 0) == [(3, ["a", "b", "c"])]
    assert read(feed, 2) == [(3, ["b", "c"])]
    assert read(feed, 9) == []


def test_a_job_that_changed_again_is_sent_once_as_it_is_now() -> None:
    """It stands where its last change does."""
    feed = BoardFeed(folder_subject(ROOT))
    put(feed, failed("a", "at first"), 1)
    put(feed, failed("b", "no"), 2)
    put(feed, failed("a", "no", index=0), 3)
    assert read(feed, 0) == [(3, ["b", "a"])]


def test_a_download_without_a_revision_reaches_readers_who_are_up_to_date() -> None:
    """Those who are connected by its number, those who come back by the revision that it joined."""
    feed = BoardFeed(folder_subject(ROOT))
    put(feed, succeeded("a"), 1)
    put(feed, succeeded("b"), 2)
    seen = feed.number
    put(feed, succeeded("a", file=ROOT / "videos/a.mp4"), 0)
    assert feed.revision == 2
    assert read(feed, 2, seen) == [(2, ["a"])]
    assert read(feed, 2) == [(2, ["b", "a"])]
    assert read(feed, 2, feed.number) == []
    assert feed.files == {"./videos/a.mp4": ROOT / "videos/a.mp4"}


def test_a_long_message_is_cut_between_two_revisions() -> None:
    """A reader who is cut off after any message comes back complete."""
    feed = BoardFeed(folder_subject(ROOT))
    for number in range(2 * MAX_CARDS_AT_ONCE):
        put(feed, failed(f"k{number}", "no"), number + 1)
        if number + 1 == MAX_CARDS_AT_ONCE - 1:
            for download in range(3):
                put(feed, succeeded(f"d{download}"), 0)
    messages = read(feed, 0)
    assert [len(keys) for _, keys in messages] == [MAX_CARDS_AT_ONCE + 2, MAX_CARDS_AT_ONCE, 1]
    assert [number for number, _ in messages] == [MAX_CARDS_AT_ONCE - 1, 2 * MAX_CARDS_AT_ONCE - 1, feed.revision]


def test_a_card_is_encoded_once_for_all_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading joins lines."""
    feed = BoardFeed(folder_subject(ROOT))
    put(feed, failed("a", "no"), 1)

    def never(_: Any) -> str:
        raise AssertionError("encoded again")

    monkeypatch.setattr(board_feed, "script_json", never)
    assert read(feed, 0) == read(feed, 0) == [(1, ["a"])]
    assert len(feed.cards()) == 1


def test_a_job_that_is_sent_again_leaves_the_page() -> None:
    """Its message says that it has gone, and the head counts it."""
    feed = BoardFeed(folder_subject(ROOT))
    put(feed, failed("a", "no"), 1)
    put(feed, attrs.evolve(made("a"), status=JobStatus.RUNNING), 2)
    (message,) = feed.messages(2)
    assert b'[{"key":"a","gone":true}]' in message
    assert feed.cards() == []
    head = feed.head(is_running=True, written="now")
    assert (head["unfinished"], head["groups"], head["revision"]) == ({"running": 1}, [], 2)


def test_a_job_without_a_card_is_only_counted() -> None:
    """It makes no message, and the same status again changes nothing but the revision."""
    feed = BoardFeed(folder_subject(ROOT))
    for revision in range(1, 4):
        put(feed, made("a", status=JobStatus.RUNNING), revision)
        assert feed.number == 1
    assert (feed.revision, read(feed, 1), read(feed, 0, 0)) == (3, [], [])
    assert feed.head(is_running=True, written="now")["unfinished"] == {"running": 1}
    put(feed, succeeded("a"), 4)
    assert feed.head(is_running=True, written="now")["unfinished"] == {}


@pytest.mark.parametrize("others", [0, 1])
def test_a_reader_of_another_process_loses_the_cards_that_have_gone(others: int) -> None:
    """It may have one of a job that is sent again since, also when there is no card at all."""
    feed = BoardFeed(folder_subject(ROOT))
    put(feed, made("a", status=JobStatus.RUNNING), 1)
    for number in range(others):
        put(feed, failed(f"b{number}", "no"), 2 + number)
    (message,) = feed.messages(0)
    assert b'{"key":"a","gone":true}' in message
    assert b'"gone"' not in b"".join(feed.messages(1))
    assert b'"gone"' not in b"".join(feed.messages(0, 0))


def test_hostile_text_ends_no_message() -> None:
    """A line break in a prompt does not break a line of the stream."""
    feed = BoardFeed(folder_subject(ROOT))
    put(feed, failed("a", "no\n\nevent: head\ndata: {}", prompt="</script>\r\n\n: \u2028"), 1)
    (message,) = feed.messages(0)
    assert message.count(b"\n") == 4
    assert b"<" not in message
