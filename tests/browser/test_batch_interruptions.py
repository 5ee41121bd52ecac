"""Pages of a batch that is interrupted, killed and started again, as a person in front of the browser sees them."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from pika_async import JobStatus
from pika_async.emulator import Emulator
from pika_async.report.cards import is_shown_status
from tests.browser.board_fixtures import OpenBoard
from tests.browser.gallery_page import GalleryPage
from tests.cli.batch_process import HANG_S, address, start_batch, start_board, wait_until
from tests.cli.command_line import KEY

pytestmark = pytest.mark.browser

PACE = ("--max-in-flight", "4", "--expected-seconds", "0.5")


@contextlib.contextmanager
def emulator(seconds: float = 0.5) -> Iterator[Emulator]:
    """Serve tasks of `seconds`: a batch of 40, four at a time, takes ten times as long."""
    with Emulator(api_key=KEY, durations=f"constant:{seconds}", video_seconds=0.5).in_thread() as serving:
        yield serving


def page_facts(browser: Browser, folder: Path) -> tuple[Counter[str], str]:
    """Open the page on the disk; return how many cards it has of each status, and the line above them.

    Its console must be free of errors, its cards be those of the finished jobs, and each video of a card be there.
    """
    context = browser.new_context()
    page = GalleryPage(context.new_page())
    page.page.goto((folder / "pika-out" / "index.html").as_uri())
    found = page.cards()
    line = page.page.locator("#unfinished").inner_text()
    for card in page.page.locator("#videos article").all():
        card.scroll_into_view_if_needed()
        source = card.locator("video").get_attribute("src")
        assert source is not None
        assert (folder / "pika-out" / source).is_file()
    assert page.faults == []
    context.close()
    assert len({card["key"] for card in found}) == len(found)
    return Counter(card["status"] for card in found), line


def results(folder: Path) -> Counter[str]:
    """Return how many finished jobs the results have of each status."""
    lines = (folder / "pika-out" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    found = (JobStatus(json.loads(line)["status"]) for line in lines)
    return Counter(status.value for status in found if is_shown_status(status))


def test_the_page_on_the_disk_is_whole_each_time(browser: Browser, tmp_path: Path) -> None:
    """After Ctrl-C, after a kill in the resume, and at the end: all that has finished, and how the rest is sent."""
    with emulator() as gateway:
        with start_batch(gateway, tmp_path, *PACE) as batch:
            wait_until(lambda: len(gateway.ledger) > 8)
            batch.send_signal(signal.SIGINT)
            batch.communicate(timeout=HANG_S)
        first, line = page_facts(browser, tmp_path)
        assert first == results(tmp_path)
        assert first["succeeded"] >= 1
        assert line.startswith("Not finished: ")
        assert "pika-async resume" in line
        with start_batch(gateway, tmp_path, *PACE) as batch:
            seen = len(gateway.ledger)
            wait_until(lambda: len(gateway.ledger) > seen + 8)
            batch.kill()
            batch.wait(HANG_S)
        second, line = page_facts(browser, tmp_path)
        assert second["succeeded"] >= first["succeeded"]
        assert line.startswith("Still to come: ")
        with start_batch(gateway, tmp_path, "--expected-seconds", "0.5") as batch:
            batch.communicate(timeout=HANG_S)
        last, line = page_facts(browser, tmp_path)
        assert last == results(tmp_path)
        assert last.total() == 40
        assert set(last) <= {"succeeded", "unknown"}  # what was on its way at the kill may be in doubt
        assert line == ""


def test_a_board_follows_a_batch_that_is_killed_and_started_again(open_board: OpenBoard, tmp_path: Path) -> None:
    """The board of a second terminal says that nothing runs, and then goes on in the same page."""
    with emulator(2) as gateway, start_batch(gateway, tmp_path, *PACE, "--no-download") as batch:
        wait_until(lambda: len(gateway.ledger) > 4)
        with start_board(tmp_path) as server:
            board = open_board(address(server))
            board.wait_state("Live")
            board.mark()
            batch.kill()
            batch.wait(HANG_S)
            board.wait_state("No batch is running here.")
            board.page.get_by_text("To continue:").wait_for()
            with start_batch(gateway, tmp_path, "--no-download", "--expected-seconds", "0.5") as again:
                board.wait_state("Live")
                again.communicate(timeout=HANG_S)
            board.page.wait_for_function("() => cards.length === 40")
            board.wait_state("No batch is running here.")
            assert board.is_same_document()
            server.send_signal(signal.SIGINT)
            assert server.wait(HANG_S) == 0
            board.wait_state("The command that served this page ended")
        board.forgive("ERR_")


def test_the_board_of_a_killed_batch_is_stale_until_another_has_its_port(open_board: OpenBoard, tmp_path: Path) -> None:
    """The page says since when, keeps what it has, and then that the address is another one."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    with emulator(2) as gateway:
        with start_batch(gateway, tmp_path, *PACE, "--no-download", "--board", port) as batch:
            board = open_board(address(batch))
            board.page.wait_for_function("() => cards.length >= 2")
            batch.kill()
            batch.wait(HANG_S)
        board.wait_state("Stale: no news since")
        assert len(board.shown()) >= 2
        with start_batch(gateway, tmp_path, *PACE, "--no-download", "--board", port) as again:
            address(again)
            board.wait_state("The board has been stopped or its address has changed")
            again.kill()
    board.forgive("ERR_", "403")
