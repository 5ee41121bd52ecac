"""Output of a batch: lines that every reader splits correctly, and a page on which no foreign text runs or loads."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async import GenerationFailed, GenerationRequest, Job, JobStatus, Video
from pika_async.cli.gallery import gallery_page, write_gallery
from pika_async.cli.posters import draw_posters
from pika_async.cli.results import COLUMNS, ResultsWriter, json_line, read_results, result_row


def job(key: str = "k", **changes: Any) -> Job:
    return Job(key=key, request=GenerationRequest("a cat"), provider="native", base_url="http://h", **changes)


def test_a_planned_job_has_every_column() -> None:
    """Unknown values are null."""
    made = result_row(job(), Path())
    assert tuple(made) == COLUMNS
    assert {name for name, value in made.items() if value is None} == {
        "task_id", "video_url", "file", "sha256", "error", "submitted_at", "settled_at", "points",
        "metadata",
    }  # fmt: skip


def test_times_are_utc_and_files_are_relative(tmp_path: Path) -> None:
    """Times are ISO 8601 with Z and milliseconds; a file outside the folder keeps its path."""
    at = datetime(2026, 1, 2, 3, 4, 5, 6000, UTC)
    inside = job(status=JobStatus.SUCCEEDED, file=tmp_path / "videos" / "k.mp4", submitted_at=at, settled_at=at)
    made = result_row(inside, tmp_path)
    assert (made["settled_at"], made["file"]) == ("2026-01-02T03:04:05.006Z", "videos/k.mp4")
    assert result_row(inside, tmp_path / "other")["file"] == str(tmp_path / "videos" / "k.mp4")


def test_an_error_is_its_type_and_its_message() -> None:
    """It is an object with both, and with the kind."""
    error = GenerationFailed(key="k", provider="native", task_id="t", reason="moderation")
    fields = {"type": "GenerationFailed", "kind": error.kind, "message": error.message}
    assert result_row(job(error=error), Path())["error"] == fields


@given(st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.lists(st.text())), st.booleans())
def test_a_line_is_one_line_of_printable_text(record: dict[str, Any], ascii_only: bool) -> None:
    """Any record, lone surrogates included, reads back equal, and no reader splits its line."""
    line = json_line(record, ascii_only=ascii_only)
    assert json.loads(line) == record
    assert line.splitlines() == [line[:-1]]
    assert line[:-1].isprintable()
    assert line.encode()


def test_a_key_has_one_line_and_a_file_is_never_overwritten(tmp_path: Path) -> None:
    """Only the first line of a key is written."""
    with ResultsWriter(tmp_path / "results.jsonl") as results:
        assert results.write(job())
        assert results.write(job(status=JobStatus.CANCELED)) is None
        assert len(read_results(tmp_path / "results.jsonl")) == 1
    with pytest.raises(FileExistsError):
        ResultsWriter(tmp_path / "results.jsonl")
    (tmp_path / "results.jsonl").write_text('{"key": "a"}\n\n[1]\n')
    with pytest.raises(ValueError, match=r"results.jsonl:3: must be a JSON object"):
        read_results(tmp_path / "results.jsonl")


# --- the page -----------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags and text of a page, as a browser would parse them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


ALLOWED = {
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "header",
    "h1",
    "p",
    "main",
    "article",
    "div",
    "span",
    "video",
}
HOSTILE = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "'-alert(1)-'", "</title></style><script>",
    "&lt;script&gt;", "<!--", "]]>", "https://evil.example/x.js", "\u202egnp.exe", "a\x00b\x1b[31m", "javascript:alert(1)",
]  # fmt: skip


def record(text: str = "a cat", **changes: Any) -> dict[str, Any]:
    made = result_row(job(status=JobStatus.SUCCEEDED, video=Video(url="https://cdn.example/v.mp4")), Path())
    return {**made, "prompt": text, **changes}


def check(text: str) -> Page:
    """Assert that the page has only our own tags, no handlers and no foreign links, and begins with the policy."""
    page = Page(text)
    assert {tag for tag, _ in page.tags} <= ALLOWED
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in {"href", "srcdoc", "style"}]
        for name in ("src", "poster"):
            link = attributes.get(name)
            assert link is None or re.fullmatch(r"\./(videos|posters)/[\w.%@+=-]+", link)
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    return page


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_only_text(text: str) -> None:
    """This holds for the prompt, the key, the task id, the error, the status and the title."""
    error = {"type": "GenerationFailed", "message": text}
    hostile = record(text, key=text, task_id=text, provider=text, error=error, status=text, video_url=text)
    page = check(gallery_page([hostile, record(text, file="videos/k.mp4")], Path(), title=text))
    shown = "".join(character if character.isprintable() else "�" for character in text)
    assert page.text.count(shown) >= 5


@given(st.text())
def test_any_text_is_only_text(text: str) -> None:
    """No text breaks out of its element."""
    check(gallery_page([record(text, error={"type": "x", "message": text}, task_id=text)], Path(), title=text))


def test_the_page_shows_local_videos_and_posters_only(tmp_path: Path) -> None:
    """A video links its file, and its poster if there is one; a job without a file has a card of text."""
    (tmp_path / "posters").mkdir()
    (tmp_path / "posters" / "a@b+c.jpg").write_bytes(b"")
    rows = [
        record("first", key="a@b+c", file="videos/a@b+c.mp4", index=1),
        record("zeroth", key="d", file="videos/d.mp4", index=0),
        record("elsewhere", key="e", file="/etc/passwd", index=2),
        record("none", key="f", index=3),
        record("failed", key="g", index=4, status="failed", error={"type": "x", "message": "moderation"}),
    ]
    page = check(write_gallery(rows, tmp_path, title="t").read_text(encoding="utf-8"))
    videos = [attributes for tag, attributes in page.tags if tag == "video"]
    assert [(video["src"], video.get("poster")) for video in videos] == [
        ("./videos/d.mp4", None),
        ("./videos/a%40b%2Bc.mp4", "./posters/a%40b%2Bc.jpg"),
    ]
    assert page.text.index("zeroth") < page.text.index("first")
    assert "4 succeeded, 1 failed" in page.text
    assert "moderation" in page.text


def test_people_read_in_doubt_where_the_files_say_unknown() -> None:
    """The statuses of the page are in words; their classes are those of `results.jsonl`."""
    page = check(
        gallery_page([record("a", key="k1", status="unknown"), record("b", status="timed_out")], Path(), title="t")
    )
    assert "1 in doubt, 1 timed out" in page.text
    assert "1 unknown" not in page.text
    assert {"unknown", "timed_out"} <= {attributes.get("class") for tag, attributes in page.tags if tag == "span"}


def test_a_file_that_is_not_a_video_gets_no_poster(tmp_path: Path) -> None:
    """This raises no error."""
    (tmp_path / "a.mp4").write_bytes(b"no video")
    assert draw_posters([tmp_path / "a.mp4", tmp_path / "none.mp4"], tmp_path / "posters") == 0
