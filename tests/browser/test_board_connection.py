"""The live board in a browser: who gets in, what it says when the server is gone, and that it comes back by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser

from tests.browser.board_fixtures import OpenBoard
from tests.browser.board_server import TOKEN, BoardServer
from tests.browser.hostile_batch import HOSTILE_PROMPTS
from tests.report.jobs import failed

pytestmark = pytest.mark.browser

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def test_the_address_loses_its_secret(open_board: OpenBoard, board_server: BoardServer) -> None:
    """The browser keeps a cookie instead, which the page's script cannot read; a reload works."""
    board = open_board()
    assert board.page.url == board_server.origin + "/"
    assert board.page.evaluate("document.cookie") == ""
    assert TOKEN not in board.page.content()
    board.page.reload()
    board.wait_state("Live")


@pytest.mark.parametrize("query", ["", "?token=", "?token=" + "x" * 43])
def test_no_browser_gets_in_without_the_secret(browser: Browser, board_server: BoardServer, query: str) -> None:
    """Neither the page nor a file, and no cookie."""
    context = browser.new_context()
    page = context.new_page()
    response = page.goto(f"{board_server.origin}/{query}")
    assert response is not None
    assert response.status == 403
    assert "cat" not in page.content()
    assert context.cookies() == []
    context.close()


def test_a_page_of_another_site_gets_nothing(open_board: OpenBoard, board_server: BoardServer, tmp_path: Path) -> None:
    """It has the browser's cookie for the board, and still reads neither the page nor an event, nor shows it in a frame."""
    board = open_board()
    port = board_server.origin.rpartition(":")[2]
    other = board.page.context.new_page()
    (tmp_path / "evil.html").write_text("<!doctype html><title>evil</title>")
    other.goto((tmp_path / "evil.html").as_uri())
    for host in ("127.0.0.1", "localhost"):
        read = "url => fetch(url, {credentials: 'include'}).then(answer => answer.text(), () => 'refused')"
        assert other.evaluate(read, f"http://{host}:{port}/") == "refused"
        opaque = (
            "url => fetch(url, {mode: 'no-cors', credentials: 'include'}).then(answer => answer.type, () => 'refused')"
        )
        assert other.evaluate(opaque, f"http://{host}:{port}/") in {"opaque", "refused"}
        stream = """url => new Promise(resolve => {
          const source = new EventSource(url, {withCredentials: true});
          source.onopen = () => resolve("open");
          source.onerror = () => { source.close(); resolve("refused"); };
        })"""
        assert other.evaluate(stream, f"http://{host}:{port}/events") == "refused"


def test_another_name_of_this_machine_is_refused(browser: Browser, board_server: BoardServer) -> None:
    """A site that lets its own name point here gets 403, even with the secret; so does another `Origin`."""
    context = browser.new_context()
    page = context.new_page()
    response = page.goto(board_server.url.replace("127.0.0.1", "rebound.example"))
    assert response is not None
    assert response.status == 403
    assert context.cookies() == []
    answer = context.request.get(board_server.url, headers={"Origin": "http://rebound.example"}, max_redirects=0)
    assert answer.status == 403
    context.close()


def test_a_server_that_is_gone_and_comes_back(open_board: OpenBoard, board_server: BoardServer) -> None:
    """The page says so, keeps the search and the player, and then has what came meanwhile, without a reload."""
    board = open_board()
    board.card("gptge-0").click()
    board.wait_playing(board.player)
    video = board.player.element_handle()
    board.mark()
    board_server.stop()
    board.wait_state("The command that served this page ended")
    board_server.save(failed("meanwhile", "no"))
    board_server.start()
    board.wait_state("Live")
    board.wait_cards(["meanwhile"])
    board_server.save(failed("afterwards", "no"))
    board.wait_cards(["afterwards"])
    assert board.is_same_document()
    assert sorted(board.new_cards()) == ["afterwards", "meanwhile"]
    assert video.evaluate("video => video.isConnected && !video.ended")
    board.forgive("ERR_")


def test_a_server_that_breaks_off_is_stale(open_board: OpenBoard, board_server: BoardServer) -> None:
    """The page says since when, as a killed process leaves it, and does not stop trying."""
    board = open_board()
    board.page.context.set_offline(True)  # breaks no stream that is open
    words = board.page.evaluate(
        "() => { last = Date.now() - 60_000; showState(); return document.querySelector('#live').textContent; }"
    )
    assert words.startswith("Stale: no news since")
    board.page.context.set_offline(False)
    board.wait_state("Live")
    board.forgive("ERR_")


def test_a_server_with_another_secret_is_named(open_board: OpenBoard, board_server: BoardServer) -> None:
    """The page does not ask it for ever."""
    board = open_board()
    board_server.stop()
    board_server.start("another" * 8)
    board.wait_state("The board has been stopped or its address has changed")
    board.forgive("ERR_", "403")


def test_a_batch_that_ends_is_named(open_board: OpenBoard, board_server: BoardServer) -> None:
    """The page says that nothing runs, and how the rest is sent."""
    board = open_board()
    board.wait_state("Live")
    board_server.is_running = False
    board.wait_state("No batch is running here.")
    board.page.get_by_text("To continue:").wait_for()


def test_hostile_prompts_that_come_live_are_inert(open_board: OpenBoard, board_server: BoardServer) -> None:
    """No script among them runs, no element comes of them, and each is shown as text."""
    board = open_board()
    elements = "document.querySelectorAll('img, iframe, svg[onload], script').length"
    before = board.page.evaluate(elements)
    board_server.save(*(failed(f"live-{key}", prompt, prompt=prompt) for key, prompt in HOSTILE_PROMPTS.items()))
    board.wait_cards([f"live-{key}" for key in HOSTILE_PROMPTS])
    assert board.page.evaluate(elements) == before
    assert board.page.evaluate("window.breached ?? null") is None
    assert "<img src=x" in board.card("live-h-image").inner_text()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing(
    open_board: OpenBoard, board_server: BoardServer, artefacts: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    """The page meets WCAG 2.2 AA after changes too, live and stale; both are kept as pictures."""
    board = open_board(width=width, color_scheme=scheme)
    board_server.save(failed("more", "another reason"))
    board.wait_cards(["more"])
    board.page.screenshot(path=artefacts / f"board-{width}-{scheme}.png")
    assert board.axe_violations() == []
    assert board.overflow() == 0
    board_server.stop()
    board.wait_state("The command")
    board.page.screenshot(path=artefacts / f"board-stale-{width}-{scheme}.png")
    assert board.axe_violations() == []
    board.forgive("ERR_")
