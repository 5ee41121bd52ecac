"""The page as text: whatever users and gateways write stands in it as data that no browser reads as markup."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async.report.cards import card_of, file_facts
from pika_async.report.page import (
    CARD_FIELDS,
    FACET_FIELDS,
    GENERATOR_TAG,
    card_line,
    facets_of,
    is_own_page,
    page_text,
    script_json,
    static_files,
    with_poster,
)
from tests.fakes.page_data import named
from tests.report.jobs import failed, made, succeeded

HOSTILE = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</script><script>alert(1)</script>", "<!--", "]]>",
    "</title></style><script>", "&lt;script&gt;", "\u202egnp.exe", "a\x00b\x1b[31m", "\u2028\u2029", "\ud800", "{{ 7 * 7 }}",
]  # fmt: skip
#: A policy that allows no script but files, no style but files, and no request to elsewhere.
POLICY = {
    "default-src": "'none'", "script-src": "'self' file:", "style-src": "'self' file:", "img-src": "'self' file:",
    "media-src": "'self' file:", "base-uri": "'none'", "form-action": "'none'", "require-trusted-types-for": "'script'",
}  # fmt: skip


class Page(HTMLParser):
    """Tags of a page, as a browser would parse them, with the text of each element that has an id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = dict(attrs).get("id") or tag

    def handle_data(self, data: str) -> None:
        self.text[self._inside] = self.text.get(self._inside, "") + data

    @property
    def data(self) -> Any:
        return json.loads(self.text["data"])


def shell() -> list[tuple[str, dict[str, str | None]]]:
    return Page(page_text({}, [], title="t")).tags


@given(
    st.recursive(
        st.none() | st.text() | st.sampled_from(HOSTILE) | st.integers(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    )
)
def test_data_has_no_character_that_html_reads(value: Any) -> None:
    """It is printable ASCII without `<`, `>` and `&`, on one line, and reads back equal."""
    text = script_json(value)
    assert text.isascii()
    assert text.isprintable()
    assert not set("<>&") & set(text)
    assert json.loads(text) == value


@given(st.text() | st.sampled_from(HOSTILE), st.text() | st.sampled_from(HOSTILE))
def test_no_text_adds_a_tag(text: str, title: str) -> None:
    """A page with any prompt, reason and title has the tags of an empty page, and its data reads back equal."""
    job = failed("k", text)
    card = {**card_of(job, Path("/d")), "prompt": text, "key": text, "provider": text}
    page = Page(page_text({"groups": [text]}, [script_json(card), card_line(card)], title=title))
    assert page.tags == shell()
    named_card, row = page.data["cards"]
    assert page.data["head"] == {"groups": [text]}
    assert named_card == json.loads(json.dumps(card))
    assert row == json.loads(card_line(card))


@given(st.text() | st.sampled_from(HOSTILE), st.text(min_size=1), st.booleans())
def test_a_line_has_all_of_its_card(prompt: str, key: str, is_usual: bool) -> None:
    """What is left out can be put together from the key and the prompt; the rest reads back equal."""
    folder = "videos" if is_usual else "elsewhere"
    job = succeeded("k", file=Path("/d") / folder / "k.mp4", seed=3)
    card = {**card_of(job, Path("/d")), "key": key, "prompt": prompt}
    card |= {
        "command": f"pika-async generate -- {shlex.quote(prompt)}",
        "file": f"./{folder}/{quote(key, safe='')}.mp4",
    }
    line = card_line(card)
    found = named(json.loads(line), list(CARD_FIELDS), facets_of(card))
    command = found.pop("start") + shlex.quote(prompt)
    assert {**found, "command": command, "index": card["index"]} == card
    assert with_poster(line) == card_line({**card, "poster": "./p"})
    assert (card["file"] in line) == (not is_usual)


def test_no_field_of_a_card_is_missing_in_the_lines() -> None:
    """Each field that a card can have has its place."""
    source = inspect.getsource(card_of) + inspect.getsource(file_facts)
    fields = set(re.findall(r'^        "(\w+)":', source, re.MULTILINE))
    assert len(fields) > 20
    assert fields <= {*CARD_FIELDS, *FACET_FIELDS, "index"}  # the place of a line is its index


@pytest.mark.parametrize("title", HOSTILE)
def test_the_source_has_no_control_character_and_no_mark_that_turns_text(title: str) -> None:
    """Neither an editor nor a terminal that shows the source is steered by it."""
    page = page_text({}, [script_json(card_of(made(prompt="a\u202eb\x1bc"), Path("/d")))], title=title)
    assert all(character.isprintable() or character == "\n" for character in page)


def test_the_policy_lets_no_text_run_and_nothing_load_from_elsewhere() -> None:
    """Scripts and styles come from files only; the page has no script but the one of `assets/` and the data."""
    [policy] = [a["content"] for tag, a in shell() if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert dict(part.strip().split(" ", 1) for part in policy.split(";")) == POLICY
    scripts = [attributes for tag, attributes in shell() if tag == "script"]
    assert [one.get("src") or one.get("type") for one in scripts] == ["./assets/gallery.js", "application/json"]
    assert not [name for _, attributes in shell() for name in attributes if name.startswith("on") or name == "style"]


def test_the_policy_stands_before_everything_that_loads() -> None:
    """A policy in a `<meta>` does not apply to what stands before it."""
    tags = [attributes.get("http-equiv") or tag for tag, attributes in shell()]
    assert tags.index("Content-Security-Policy") < min(tags.index("link"), tags.index("script"))


def test_the_script_makes_no_markup_from_text() -> None:
    """It has no call that parses text as HTML or as a script."""
    script = static_files()["gallery.js"].decode()
    for name in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "DOMParser"):
        assert name not in script


def test_a_page_is_known_by_its_mark() -> None:
    """The mark has the command that made the page; a page of someone else has none."""
    page = page_text({}, [], title="t", maker="demo")
    assert GENERATOR_TAG.format(maker="demo") in page
    assert is_own_page(page[:2000])
    assert not is_own_page("<!doctype html><title>mine</title>")


def test_a_timeline_has_a_region_of_its_own() -> None:
    """Without one there is no such section."""
    with_timeline = page_text({}, [], title="t", timeline='<svg viewBox="0 0 1 1"></svg>')
    assert '<svg viewBox="0 0 1 1"></svg>' in with_timeline
    assert 'aria-labelledby="timeline-title"' in with_timeline
    assert "timeline" not in page_text({}, [], title="t")
