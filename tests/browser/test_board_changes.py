"""The live board in a browser: cards change one by one, and what a person is doing stays as it is."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from pika_async import JobStatus
from pika_async.emulator import Emulator
from tests.browser.board_fixtures import OpenBoard
from tests.browser.board_server import BoardServer
from tests.cli.batch_process import HANG_S, start_batch
from tests.cli.command_line import KEY
from tests.report.jobs import failed, succeeded

pytestmark = pytest.mark.browser


def test_a_batch_of_another_process_fills_the_page(open_board: OpenBoard, tmp_path: Path) -> None:
    """Each card comes by itself, videos included, without a reload; then the page says that nothing runs."""
    with (
        Emulator(api_key=KEY, durations="constant:0.5").in_thread() as emulator,
        start_batch(emulator, tmp_path, "--max-in-flight", "6", "--expected-seconds", "0.5", "--board") as batch,
    ):
        url = batch.read_errors_until("token=").partition("board: ")[2].strip()
        board = open_board(url)
        board.wait_state("Live")
        board.mark()
        board.page.wait_for_function("() => document.querySelectorAll('#videos article').length >= 12")
        assert board.is_same_document()
        assert batch.poll() is None
        batch.send_signal(signal.SIGINT)
        batch.communicate(timeout=HANG_S)
    board.forgive("ERR_")
    board.wait_state("The command that served this page ended")


def test_only_what_changed_is_drawn_again(open_board: OpenBoard, board_server: BoardServer) -> None:
    """New cards take their place in the order of the batch, every other one is the same element."""
    board = open_board()
    board.mark()
    first = board.shown()[0]
    board_server.save(
        failed("new-1", "a new reason", index=-1),
        board_server.changed("cometapi-0", status=JobStatus.TIMED_OUT, polls=77),
    )
    board.wait_cards(["new-1"])
    board.page.wait_for_function("() => cards.find((card) => card.key === 'cometapi-0').polls === 77")
    assert board.is_same_document()
    assert sorted(board.new_cards()) == ["cometapi-0", "new-1"]
    assert board.shown()[0] == first
    assert "a new reason" in "".join(board.problem_rows())


def test_a_card_that_leaves_its_state_goes(open_board: OpenBoard, board_server: BoardServer) -> None:
    """A failed job that is tried again has no card meanwhile."""
    board = open_board()
    board_server.save(failed("again", "once"))
    board.wait_cards(["again"])
    board.mark()
    again = board_server.changed("again", status=JobStatus.PLANNED, error=None)
    board_server.save(again)
    board.page.wait_for_function("() => !document.querySelector('article[data-key=again]')")
    assert board.new_cards() == []


def test_the_search_and_the_filters_stay(open_board: OpenBoard, board_server: BoardServer) -> None:
    """A new card is shown where it matches; a pressed filter stays the same element, with a new count."""
    board = open_board()
    board.search_box.fill("unusual")
    board.wait_shown(set())
    board_server.save(failed("match", "no", prompt="an unusual cat"), failed("other", "no", prompt="a usual dog"))
    board.wait_shown({"match"})
    board.search_box.fill("")
    chip = board.page.get_by_role("button", name="failed", exact=False).and_(board.page.locator("[aria-pressed]"))
    chip.click()
    board.page.wait_for_function(
        "() => [...document.querySelectorAll('article')].every((card) => card.dataset.status === 'failed')"
    )
    element = chip.element_handle()
    board_server.save(failed("third", "no"), succeeded("fine"))
    board.wait_cards(["third"])
    assert element.evaluate("chip => chip.isConnected && document.activeElement === chip")
    assert board.is_on(chip)
    assert board.card("fine").count() == 0


def test_a_click_that_a_change_meets_counts(open_board: OpenBoard, board_server: BoardServer) -> None:
    """The card below a pressed pointer is not replaced before it is released."""
    board = open_board()
    board.card("cometapi-0").scroll_into_view_if_needed()
    box = board.card("cometapi-0").bounding_box()
    assert box is not None
    board.page.mouse.move(box["x"] + 20, box["y"] + 20)
    board.page.mouse.down()
    board_server.save(board_server.changed("cometapi-0", status=JobStatus.TIMED_OUT, polls=78))
    board.page.wait_for_function("() => news.has('cometapi-0')")
    board.page.wait_for_timeout(1000)  # two drawings; the assertion below holds however late they are
    board.page.mouse.up()
    board.dialog.wait_for()


def test_a_player_plays_on(open_board: OpenBoard, board_server: BoardServer) -> None:
    """Its video is the same element; the arrows go on from its card, and the count follows."""
    board = open_board()
    board.card("gptge-0").click()
    board.wait_playing(board.player)
    video = board.player.element_handle()
    place = board.dialog.locator(".place").inner_text()
    board_server.save(failed("one-more", "no"), board_server.changed("gptge-0", status=JobStatus.TIMED_OUT, polls=79))
    board.page.wait_for_function("place => document.querySelector('.place').textContent !== place", arg=place)
    assert video.evaluate("video => video.isConnected && !video.paused")
    board.page.keyboard.press("Escape")
    board.wait_focused("gptge-0")


def test_the_focus_stays_on_its_card(open_board: OpenBoard, board_server: BoardServer) -> None:
    """Also when the card itself is drawn again, or others come before it; its video plays on unless it is."""
    board = open_board()
    board.card("h-rtl").focus()
    board.wait_playing(board.video("h-rtl"))
    video = board.video("h-rtl").element_handle()
    source = board_server.changed("cometapi-0")
    board_server.save(*(failed(f"before-{n}", "no", index=-1 - n) for n in range(3)))
    new = succeeded("before-file", index=-9, file=source.file)
    board_server.save(new)
    board.wait_cards(["before-0", "before-file"])
    assert board.focused_key() == "h-rtl"
    assert video.evaluate("video => video.isConnected && !video.paused")
    board_server.save(board_server.changed("h-rtl", status=JobStatus.TIMED_OUT, polls=80))
    board.page.wait_for_function("() => cards.find((card) => card.key === 'h-rtl').polls === 80")
    board.wait_focused("h-rtl")


def test_the_focus_stays_in_the_problems(open_board: OpenBoard, board_server: BoardServer) -> None:
    """A row that gets a new count keeps the button that has the focus."""
    board = open_board()
    row = board.region("Problems").get_by_role("row").nth(1)
    row.get_by_role("button").focus()
    reason = row.locator(".reason").inner_text()
    board_server.save(failed("another", "a reason of its own"))
    board.page.get_by_text("a reason of its own", exact=True).first.wait_for()
    assert board.page.evaluate("document.activeElement.closest('tr').querySelector('.reason').textContent") == reason


def test_the_timeline_follows(open_board: OpenBoard, board_server: BoardServer) -> None:
    """It is read again a while after a change, and opened details stay open."""
    board = open_board()
    board.page.locator("#timeline details summary").click()
    board.page.evaluate("document.getElementById('timeline').isOld = true; figuresAt = 0")
    assert board.page.evaluate("figuresTimer") == 0  # nothing has changed yet
    board_server.save(failed("late", "no"))
    board.page.wait_for_function("() => !document.getElementById('timeline').isOld")
    assert board.page.locator("#timeline details[open]").count() == 1
    assert board.page.locator("#timeline").count() == 1


def test_thousands_of_jobs_stay_usable(open_board: OpenBoard, board_server: BoardServer) -> None:
    """Some thousand cards come at once: not all have elements with a video, and a search finds the last one."""
    board = open_board()
    file = board_server.changed("cometapi-0").file
    board.mark()
    for start in range(0, 4000, 500):
        board_server.save(*(succeeded(f"n{n:04}", f"take {n}", index=n, file=file) for n in range(start, start + 500)))
    board.page.wait_for_function("() => cards.length > 4000", timeout=60_000)
    assert board.is_same_document()
    assert board.page.locator("article").count() <= 2100
    assert board.page.locator("article video").count() <= 400
    board.search_box.fill("take 3999")
    board.wait_shown({"n3999"})
