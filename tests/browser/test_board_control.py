"""The buttons of a live board, pressed by a person while a real batch runs on the emulator."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from playwright.sync_api import Browser, Locator, expect

from pika_async.emulator import Emulator, Scenario
from tests.browser.conftest import TIMEOUT_MS
from tests.browser.gallery_page import GalleryPage
from tests.cli.batch_process import HANG_S, start_batch, wait_until
from tests.cli.command_line import KEY
from tests.fakes.child_process import ChildProcess

pytestmark = pytest.mark.browser

#: The answer to the third submission is lost.
DOUBT = [{"on": "create", "nth": 3, "do": "drop"}]
OPTIONS = ("--max-in-flight", "3", "--expected-seconds", "0.5", "--no-download", "--board")


@attrs.frozen
class LiveBatch:
    """A batch that runs, and its board in a browser."""

    board: GalleryPage
    emulator: Emulator
    process: ChildProcess
    errors: str

    @property
    def control(self) -> Locator:
        return self.board.region("Control")

    def push(self, name: str) -> None:
        self.control.get_by_role("button", name=name, exact=True).click()

    def expect_reply(self, text: str) -> None:
        expect(self.control.get_by_role("status")).to_contain_text(text, timeout=TIMEOUT_MS)


@contextlib.contextmanager
def live_batch(browser: Browser, folder: Path, *more: str) -> Iterator[LiveBatch]:
    scenario = Scenario.of(DOUBT)
    with (
        Emulator(api_key=KEY, render=False, durations="constant:0.5", scenario=scenario).in_thread() as emulator,
        start_batch(emulator, folder, *OPTIONS, *more) as process,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(process.kill)  # a batch that has not ended need not
        errors = process.read_errors_until("token=")
        context = browser.new_context()
        context.set_default_timeout(TIMEOUT_MS)
        try:
            board = GalleryPage(context.new_page())
            board.page.goto(errors.partition("board: ")[2].strip())
            yield LiveBatch(board, emulator, process, errors)
            assert [fault for fault in board.faults if "409" not in fault] == []
        finally:
            context.close()


def test_a_person_pauses_resolves_and_cancels_a_batch(browser: Browser, tmp_path: Path) -> None:
    """Each button does what it says, the page shows the pause, errors are texts, and axe-core finds nothing."""
    with live_batch(browser, tmp_path, "--board-control") as live:
        page, control = live.board.page, live.control
        live.push("Pause")
        live.expect_reply("paused; nothing more is sent")
        expect(control.get_by_role("button", name="Resume", exact=True)).to_be_visible()
        expect(page.locator("#live")).to_contain_text("paused", timeout=TIMEOUT_MS)
        room = control.get_by_label("Most in flight")
        assert room.input_value() == "3"
        room.fill("0")
        live.push("Set")
        live.expect_reply("max_in_flight: must be an integer from 1 to 10000, not 0")
        room.fill("4")
        live.push("Set")
        live.expect_reply("at most 4 in flight")
        sent = len(live.emulator.ledger)
        live.push("Resume")
        live.expect_reply("resumed")
        wait_until(lambda: len(live.emulator.ledger) > max(sent, 4))
        live.push("Pause")
        live.expect_reply("paused")
        expect(control.get_by_role("listitem")).to_have_count(1, timeout=TIMEOUT_MS)
        assert live.board.axe_violations() == []
        live.push("Not charged")
        expect(control.get_by_role("alert")).to_contain_text("paid for twice")
        assert control.get_by_role("button", name="Change nothing").evaluate("e => e === document.activeElement")
        live.push("Change nothing")
        live.push("Abandon")
        live.push("Give it up")
        live.expect_reply("was given up")
        expect(control.get_by_role("listitem")).to_have_count(0, timeout=TIMEOUT_MS)
        live.push("Cancel what is planned")
        expect(control.get_by_role("alert")).to_contain_text("What was sent goes on.")
        assert live.board.axe_violations() == []
        live.push("Cancel them")
        _, errors = live.process.communicate(timeout=HANG_S)
        assert "planned jobs canceled; not charged" in errors
        assert len(live.emulator.ledger) < 40
        live.board.faults[:] = [fault for fault in live.board.faults if "ERR_" not in fault]  # the board has ended


def test_a_board_that_only_reads_has_no_buttons(browser: Browser, tmp_path: Path) -> None:
    """Its page has no control at all."""
    with live_batch(browser, tmp_path) as live:
        expect(live.board.page.locator("#live")).to_contain_text("Live")
        assert live.control.count() == 0
