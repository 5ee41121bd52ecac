"""Cards of the gallery: one for each finished job, and foreign text that stays text."""

from __future__ import annotations

import re

import pytest

from tests.browser.gallery_page import GalleryPage
from tests.browser.hostile_batch import HOSTILE_PROMPTS, BatchPage

pytestmark = pytest.mark.browser

#: Characters that control a terminal or the direction of text.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
#: Runs of characters that are shown as they are.
PLAIN = re.compile(r"[\w <>&;='\"/${}.*%-]{3,40}")


def test_each_finished_job_is_one_card(gallery: GalleryPage, batch: BatchPage) -> None:
    """A card has the job's key and status; unsent jobs have none."""
    expected = [(key, row["status"]) for key, row in batch.finished.items()]
    assert sorted(expected) == sorted((card["key"], card["status"]) for card in gallery.cards())


def test_unsent_jobs_are_a_count(gallery: GalleryPage, batch: BatchPage) -> None:
    """The page has their number beside the word."""
    planned = sum(row["status"] == "planned" for row in batch.results)
    assert re.search(rf"\b{planned} planned\b|\bplanned:? {planned}\b", gallery.page.inner_text("body"), re.IGNORECASE)


def test_a_video_is_named_by_its_prompt(gallery: GalleryPage, batch: BatchPage) -> None:
    """A screen reader announces the prompt; a long one may be cut."""
    for key in batch.playable:
        name = gallery.video(key).get_attribute("aria-label") or ""
        for words in PLAIN.findall(batch.requests[key]["prompt"])[:1]:
            assert words.strip() in " ".join(name.split()), key


def test_a_hostile_prompt_is_shown_as_text(gallery: GalleryPage) -> None:
    """Its markup and entities are read letter by letter, without control characters."""
    for key, prompt in HOSTILE_PROMPTS.items():
        gallery.card(key).scroll_into_view_if_needed()
        text = gallery.card(key).inner_text()
        assert not CONTROL.search(text), key
        for words in PLAIN.findall(prompt)[:2]:
            assert " ".join(words.split()) in " ".join(text.split()), key


def test_foreign_text_makes_no_element(gallery: GalleryPage) -> None:
    """No element has a handler, a foreign address or a document of its own, and no script stands among the cards."""
    found = gallery.page.evaluate("""() => [...document.querySelectorAll("*")].filter(element =>
        element.matches("iframe, object, embed, base, form[action], article script, section script") ||
        [...element.attributes].some(({name, value}) => name.startsWith("on") || name === "srcdoc" ||
            (["src", "href", "poster"].includes(name) && /^\\s*(javascript|https?|\\/\\/)/i.test(value)))
    ).map(element => element.outerHTML.slice(0, 200))""")
    assert found == []
    assert "breached" in gallery.page.inner_text("body")


def test_the_policy_refuses_what_might_slip_in(gallery: GalleryPage) -> None:
    """A script in the page, a handler, a foreign picture and a request are all refused, each with a report."""
    attempts = {
        "script": "const made = document.createElement('script'); made.text = 'window.breached = 20'; document.body.append(made)",
        "handler": "document.body.setAttribute('onclick', 'window.breached = 21'); document.body.click()",
        "picture": "new Image().src = 'https://evil.example/x.png'",
        "request": "await fetch('https://evil.example/')",
    }
    for name, attempt in attempts.items():
        gallery.page.evaluate(f"(async () => {{ {attempt} }})().catch(() => null)")
        gallery.page.wait_for_timeout(50)  # milliseconds, for the report to arrive
        assert any("policy violation" in fault for fault in gallery.faults), name
        gallery.faults.clear()
    assert [url for url in gallery.requests if not url.startswith("file:")] == []


def test_no_video_is_read_before_it_is_played(gallery: GalleryPage, batch: BatchPage) -> None:
    """A page with hundreds of videos opens its posters at most."""
    gallery.page.wait_for_load_state("load")
    assert len(batch.playable) > 20
    assert [url for url in gallery.requests if url.endswith(".mp4")] == []
