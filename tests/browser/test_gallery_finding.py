"""Finding jobs in the gallery: search, filters with their counts, combinations of both, and the order."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from datetime import datetime

import pytest

from pika_async.jobs import JobStatus
from tests.browser.gallery_page import GalleryPage
from tests.browser.hostile_batch import BatchPage

pytestmark = pytest.mark.browser


def label(field: str, value: str) -> str:
    """Return the word that people read for a value."""
    return JobStatus(value).label if field == "status" else value


def values(batch: BatchPage, field: str) -> Counter[str]:
    """Count the finished jobs of each value of a field."""
    found = [{**row, **batch.requests[key]}.get(field) for key, row in batch.finished.items()]
    return Counter(value for value in found if value)


@pytest.mark.parametrize("field", ["prompt", "key"])
def test_a_search_finds_part_of_a_prompt_or_key(gallery: GalleryPage, batch: BatchPage, field: str) -> None:
    """Letter case does not count; clearing the box shows every job again."""
    words = {"prompt": "A PAPER boat", "key": "H-QUO"}[field]
    expected = {key for key, request in batch.requests.items() if words.lower() in request[field].lower()}
    assert 0 < len(expected) < 6
    gallery.search_box.fill(words)
    gallery.wait_shown(expected)
    gallery.search_box.fill("")
    gallery.wait_shown(set(batch.finished))


def test_a_search_takes_any_text(gallery: GalleryPage, batch: BatchPage) -> None:
    """It is taken letter by letter; where nothing matches, the page has words for that."""
    everything = set(gallery.page.inner_text("body").splitlines())
    for words in ("no such prompt", "<img src=y>", "\\", ".*", "[", "'\"</script>", "</script>"):
        gallery.search_box.fill(words)
        expected = {key for key in batch.finished if words in batch.requests[key]["prompt"]}
        gallery.wait_shown(expected)
        if not expected:
            assert set(gallery.page.inner_text("body").splitlines()) - everything, words


@pytest.mark.parametrize("field", ["status", "provider", "effect"])
def test_each_filter_has_its_count_and_shows_its_jobs(gallery: GalleryPage, batch: BatchPage, field: str) -> None:
    """A press shows the jobs of that value and is announced as pressed; a second one shows all again."""
    counts = values(batch, field)
    assert len(counts) >= 3
    for value, count in counts.items():
        chip = gallery.filter(label(field, value), count)
        assert not gallery.is_on(chip)
        chip.click()
        gallery.wait_shown(batch.keys_where(**{field: value}))
        assert gallery.is_on(chip)
        chip.click()
        gallery.wait_shown(set(batch.finished))
        assert not gallery.is_on(chip)


def test_filters_and_search_narrow_each_other(gallery: GalleryPage, batch: BatchPage) -> None:
    """A job is shown if it has the status, the provider and the words."""
    counts = {field: values(batch, field) for field in ("status", "provider")}
    gallery.filter("succeeded", counts["status"]["succeeded"]).click()
    gallery.filter("gptge", counts["provider"]["gptge"]).click()
    expected = batch.keys_where(status="succeeded", provider="gptge")
    gallery.wait_shown(expected)
    gallery.search_box.fill("a paper boat")
    gallery.wait_shown({key for key in expected if "a paper boat" in batch.requests[key]["prompt"]})
    gallery.search_box.fill("is refused")
    gallery.wait_shown(set())


def test_a_filter_is_used_with_the_keyboard(gallery: GalleryPage, batch: BatchPage) -> None:
    """Space presses the filter that has the focus, and the focus stays there."""
    chip = gallery.filter("in doubt", values(batch, "status")["unknown"])
    chip.focus()
    gallery.page.keyboard.press("Space")
    gallery.wait_shown(batch.keys_where(status="unknown"))
    assert chip.evaluate("chip => chip === document.activeElement")


def sort_options(gallery: GalleryPage) -> dict[str, str]:
    """Return the orders that can be chosen, by their first word."""
    names = gallery.page.get_by_role("combobox", name="sort").locator("option").all_inner_texts()
    return {re.split(r"\W", name)[0].lower(): name for name in names}


def is_ordered(values: list[float], rounding: float) -> bool:
    """Return whether values go all the way up or down, as far as their rounding shows."""
    steps = [after - before for before, after in itertools.pairwise(values)]
    return all(step >= -rounding for step in steps) or all(step <= rounding for step in steps)


def test_jobs_are_in_the_order_of_the_batch(gallery: GalleryPage, batch: BatchPage) -> None:
    """Cards with a video follow the input, unless another order is chosen."""
    rows = [batch.finished[key] for key in gallery.shown_among(batch.playable)]
    assert [row["index"] for row in rows] == sorted(row["index"] for row in rows)
    assert len(rows) == len(batch.playable)
    assert {"order", "time", "duration", "cost"} <= set(sort_options(gallery))


@pytest.mark.parametrize("order", ["time", "duration"])
def test_jobs_are_sorted(gallery: GalleryPage, batch: BatchPage, order: str) -> None:
    """The chosen order goes all the way from one end to the other, and back to that of the batch."""
    before = gallery.shown()
    sort = gallery.page.get_by_role("combobox", name="sort")
    sort.select_option(label=sort_options(gallery)[order])
    gallery.wait_shown(set(batch.finished))
    rows = [batch.finished[key] for key in gallery.shown_among(batch.playable)]
    ends = [datetime.fromisoformat(row["settled_at"]).timestamp() for row in rows]
    starts = [datetime.fromisoformat(row["submitted_at"]).timestamp() for row in rows]
    took = [end - start for start, end in zip(starts, ends, strict=True)]
    # The page may know times to the second, and durations to a hundredth.
    assert is_ordered(ends, 1) if order == "time" else is_ordered(took, 0.02)
    sort.select_option(label=sort_options(gallery)["order"])
    assert gallery.shown() == before
