"""Words and numbers of the pages: what a person reads at the top, in the problems and on the cards."""

from __future__ import annotations

import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import pytest
from playwright.sync_api import Browser, Page

from pika_async import JobStatus
from pika_async._planning.money import money_text
from pika_async.report.cards import card_of
from pika_async.report.page import usual_start
from pika_async.report.writer import GalleryWriter
from tests.browser.gallery_page import GalleryPage
from tests.browser.hostile_batch import BatchPage
from tests.fakes.page_data import page_data
from tests.report.jobs import failed, in_doubt, made, succeeded

pytestmark = pytest.mark.browser


def opened(browser: Browser, writer: GalleryWriter, *, is_running: bool = False) -> Page:
    """Write the page of `writer` and open it."""
    with ThreadPoolExecutor(1) as pool:  # the browser's event loop runs in this thread
        path = pool.submit(writer.write, is_running=is_running).result()
    page = browser.new_page()
    page.goto(path.as_uri())
    return page


@pytest.mark.parametrize("amount", [0.1 + 0.2, 0.28, 1, 15.4, 15.405, 0.0001, 0.1234567, 1234.5, 1234567.891])
def test_money_reads_as_in_the_terminal(gallery: GalleryPage, amount: float) -> None:
    """It has two decimals, or more where they count."""
    assert gallery.page.evaluate("amount => money(amount)", amount) == money_text(amount)


@pytest.mark.parametrize("text", ["a cat", "it's", "", "plain", "--x=1", "a\nb", "$HOME", "Zoë", "a;b"])
def test_a_word_is_quoted_as_in_the_terminal(gallery: GalleryPage, text: str) -> None:
    """A command that is copied from the page is the one that the terminal would print."""
    assert gallery.page.evaluate("text => quoted(text)", text) == shlex.quote(text)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"effect": "Cake-ify"},
        {"seed": 7, "aspect_ratio": "9:16", "effect": "Melt"},
        {"duration": 7.5, "resolution": "4K"},
    ],
)
def test_the_usual_command_is_made_by_the_script(gallery: GalleryPage, more: dict[str, Any]) -> None:
    """It need not stand on each of thousands of cards."""
    card = card_of(succeeded("k", **more), Path("/d"))
    assert gallery.page.evaluate("card => usualStart(card)", card) == usual_start(card)


def test_every_command_is_that_of_the_job(gallery: GalleryPage, batch: BatchPage) -> None:
    """The script puts it together from the facts of the card, whatever the prompt is."""
    found = gallery.page.evaluate("cards.map(card => card.command ?? null)")
    expected = [
        card["start"] + shlex.quote(card["prompt"]) if "start" in card else card.get("command")
        for card in page_data(batch.folder)["cards"]
    ]
    assert found == expected
    assert sum("pika-async generate" in command for command in found if command) > 20


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"planned": 1}, "Still to come: 3 planned."),
        ({"planned": 1, "queued": 4, "running": 2}, "Still to come: 2 running, 4 queued, 3 planned."),
        ({"running": 1}, "Still to come: 1 running, 2 planned."),
    ],
)
def test_a_job_is_counted_once_while_the_batch_runs(
    browser: Browser, tmp_path: Path, counts: dict[str, int], words: str
) -> None:
    """Jobs without a client yet are planned like the others, and no word stands there twice."""
    writer = GalleryWriter(tmp_path, "t")
    jobs = [made(f"{name}{n}", status=JobStatus(name)) for name, count in counts.items() for n in range(count)]
    writer.expect([*(job.key for job in jobs), "later-1", "later-2"])
    for job in jobs:
        writer.add(job)
    page = opened(browser, writer, is_running=True)
    assert page.locator("#unfinished span").inner_text().startswith(f"{words} Written ")
    page.close()


@pytest.mark.parametrize(
    ("place", "summary", "words"),
    [
        ("s3://clips/a/k.mp4", "1 in the store", "In the store"),
        ("https://cdn.example/k.mp4", "1 in the store", "In the store"),
        ("/mnt/elsewhere/k.mp4", "1 on other disks", "On another disk"),
    ],
)
def test_a_result_that_is_elsewhere_is_named_by_its_place(
    browser: Browser, tmp_path: Path, place: str, summary: str, words: str
) -> None:
    """A card with a plain placeholder, in the player too; only a web address is a link."""
    writer = GalleryWriter(tmp_path, "t")
    kept: dict[str, Any] = {"object_url": place} if "://" in place else {"file": Path(place)}
    writer.add(attrs.evolve(succeeded("k"), **kept))
    page = opened(browser, writer)
    assert page.locator("#summary").inner_text() == f"1 succeeded · {summary}"
    card = page.get_by_role("article")
    assert card.locator(".frame").inner_text().split("\n") == [words, place]
    assert (card.locator("video").count(), page.locator("#others").is_visible()) == (0, False)
    links = [place] if place.startswith("https:") else []
    assert [link.get_attribute("href") for link in card.get_by_role("link").all()] == links
    card.locator(".prompt").click()
    player = page.get_by_role("dialog")
    assert player.locator(".stage").inner_text().split("\n") == [words, place]
    assert player.get_by_role("button", name="Copy its place").is_visible()
    page.close()


def test_one_is_singular(browser: Browser, tmp_path: Path) -> None:
    """A page with one of each reads like a sentence; two doubts are asked about in turn, one is not."""
    writer = GalleryWriter(tmp_path, "t", price=0.5)
    writer.add(attrs.evolve(succeeded("a"), points=1.0))
    writer.add(failed("b", "no", index=1))
    writer.add(in_doubt("c", "the connection was lost", index=2))
    page = opened(browser, writer)
    assert page.locator("#summary").inner_text() == "1 succeeded · 1 failed · 1 in doubt · 1 point · cost 1.00"
    table = page.get_by_role("table").inner_text()
    assert "asks what has become of it" in table
    assert "in turn" not in table
    page.close()
    writer.add(in_doubt("d", "the connection was lost", index=3))
    page = opened(browser, writer)
    assert "asks about each in turn" in page.get_by_role("table").inner_text()
    page.close()
