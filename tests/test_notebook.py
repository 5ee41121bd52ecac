"""Videos, jobs and reports in a notebook: a player and a table in which hostile text stays text."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

import pytest

from pika_async import BatchReport, ChargeLimitReached, GenerationFailed, GenerationRequest, Job, JobStatus, Video

URL: Final = "https://cdn.example/v.mp4"
HOSTILE: Final = (
    "<img src=x onerror=alert(1)>", "</table></video><script>alert(1)</script>", "\" onmouseover='alert(1)' x=\"",
    "\u202egnp.exe", "a\x1b[31m\x00b\nc", "javascript:alert(1)", "\ud800", "]]><!--", "{{7*7}}${7*7}",
)  # fmt: skip
#: Every element that is made, with the attributes that it may have.
ELEMENTS: Final = {
    "video": {"controls", "muted", "loop", "preload", "width", "poster"}, "source": {"src"}, "table": set(),
    "tr": set(), "th": {"style"}, "td": {"style"}, "bdi": set(), "a": {"href", "target", "rel"},
}  # fmt: skip


class Page(HTMLParser):
    """The elements of a text, and its texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += f"{data}\n"

    def values(self, tag: str, name: str) -> list[str | None]:
        return [attributes[name] for found, attributes in self.elements if found == tag and name in attributes]

    def check(self) -> None:
        """Check that nothing runs and nothing but http(s) and files is fetched."""
        for tag, attributes in self.elements:
            assert set(attributes) <= ELEMENTS[tag], (tag, attributes)
            for name in ("src", "href", "poster"):
                url = attributes.get(name) or "./"
                assert url.startswith(("http://", "https://", "./", "file:///")), url
        assert all(character.isprintable() or character == "\n" for character in self.text)


def page(shown: Any) -> Page:
    return Page(shown._repr_html_())


def job(**facts: Any) -> Job:
    return Job(**{"key": "storm-1", "request": GenerationRequest("a storm"), "provider": "p", "base_url": "u", **facts})


def test_a_video_has_a_player_and_its_facts() -> None:
    shown = page(Video(url=URL, poster="https://cdn.example/p.jpg", seed=7, duration=5.0))
    shown.check()
    assert shown.values("source", "src") == [URL]
    assert shown.values("video", "poster") == ["https://cdn.example/p.jpg"]
    assert shown.values("video", "preload") == ["none"]
    assert {"seed", "7", "length", "5 s"} <= set(shown.text.splitlines())


@pytest.mark.parametrize(
    ("file", "first"),
    [
        (Path("clips/a storm#1.mp4"), "./clips/a%20storm%231.mp4"),
        (Path("/home/me/a b.mp4"), "file:///home/me/a%20b.mp4"),
        (Path("javascript:alert(1).mp4"), "./javascript%3Aalert%281%29.mp4"),
    ],
)
def test_a_job_plays_its_file_or_else_the_url(file: Path, first: str) -> None:
    """The browser takes the first source that it can open."""
    shown = page(job(status=JobStatus.SUCCEEDED, task_id="t", video=Video(url=URL), file=file))
    shown.check()
    assert shown.values("source", "src") == [first, URL]
    assert {"storm-1", "succeeded", "a storm", "t"} <= set(shown.text.splitlines())


def test_a_job_without_a_video_has_its_error_and_no_player() -> None:
    error = GenerationFailed(key="k", provider="native", task_id="t", reason="moderation")
    shown = page(job(status=JobStatus.FAILED, task_id="t", error=error))
    assert "video" not in dict(shown.elements)
    assert "moderation" in shown.text
    assert "in doubt" in page(job(status=JobStatus.UNKNOWN)).text


def test_a_report_has_its_counts_and_the_reason_of_a_stop() -> None:
    stopped = ChargeLimitReached(provider="native", limit=3)
    counts = {JobStatus.SUCCEEDED: 3, JobStatus.UNKNOWN: 1, JobStatus.FAILED: 0}
    report = BatchReport(jobs=[], counts=counts, seconds=61.0, ok=False, stopped=stopped)
    shown = page(report)
    shown.check()
    texts = shown.text.splitlines()
    assert texts[:8] == ["jobs", "4", "succeeded", "3", "in doubt", "1", "time", "61.0 s"]
    assert stopped.message in texts
    assert "failed" not in texts


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    """Whatever a person or a gateway sends makes no element, no attribute and no control character."""
    error = GenerationFailed(key="k", provider="native", task_id=text, reason=text)
    video = Video(url=text, poster=text, thumbnail=text, share_url=text)
    prompt = text.replace("\0", "").encode(errors="replace").decode()  # others are refused
    fields: dict[str, Any] = {"request": GenerationRequest(prompt), "task_id": text, "video": video, "error": error}
    for shown in (page(video), page(job(file=Path(text.replace("\0", "")), **fields)), page(job(provider=text))):
        shown.check()
        assert "script" not in dict(shown.elements)
    assert page(video).values("source", "src") == []


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "data:text/html,x", "JaVaScRiPt:alert(1)", " https://x.example/v", "//x.example/v",
            "ftp://x.example/v", "https:", "http://[", "https://x.example/\nv", "v.mp4", "./v.mp4",
            "file://host/share/v", "file:///etc/passwd"],
)  # fmt: skip
def test_only_http_urls_of_a_video_are_fetched(url: str) -> None:
    """Every other address is shown as text."""
    shown = page(Video(url=url, poster=url))
    shown.check()
    assert {tag for tag, _ in shown.elements}.isdisjoint({"video", "source", "a"})


def test_a_quote_in_a_url_does_not_end_its_attribute() -> None:
    url = 'https://x.example/v.mp4?"onerror="alert(1)'
    shown = page(Video(url=url))
    shown.check()
    assert shown.values("source", "src") == shown.values("a", "href") == [url]


def test_a_long_text_is_cut() -> None:
    assert len(page(job(request=GenerationRequest("x" * 2500))).text) < 1000
