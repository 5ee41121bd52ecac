"""`board` in a process of its own, beside a batch that runs, is killed, and runs again."""

from __future__ import annotations

import http.client
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from pika_async.cli.batch_folder import BatchFolder
from pika_async.cli.board import folder_board, with_board_port
from pika_async.emulator import Emulator
from pika_async.report.board_access import Verdict
from tests.cli.batch_process import HANG_S, address, start_batch, start_board, wait_until
from tests.cli.command_line import KEY, CommandLine
from tests.fakes.page_data import page_data


def get(url: str, path: str) -> tuple[int, bytes]:
    """Return the status and the body of `path` at the board whose whole address is `url`."""
    address, _, query = url.partition("/?")
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=HANG_S)
    try:
        connection.request("GET", f"{path}?{query}")
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def health(url: str) -> Any:
    status, body = get(url, "/healthz")
    assert status == 200
    return json.loads(body)


def cards(url: str) -> list[Any]:
    status, body = get(url, "/")
    assert status == 200
    data = json.loads(body.decode().partition('type="application/json">')[2].partition("</script>")[0])
    found: list[Any] = data["cards"]
    return found


@pytest.mark.slow
def test_a_board_shows_a_batch_that_runs_is_killed_and_runs_again(tmp_path: Path) -> None:
    """The board of another process stays open throughout, is whole each time, and is in no one's way."""
    with (
        Emulator(api_key=KEY, render=False, durations="constant:1").in_thread() as emulator,
        start_batch(emulator, tmp_path, "--max-in-flight", "4", "--no-download") as batch,
    ):
        wait_until(lambda: len(emulator.ledger) > 4)
        with start_board(tmp_path) as board:
            url = address(board)
            wait_until(lambda: len(cards(url)) >= 2)
            assert health(url)["running"]
            batch.send_signal(signal.SIGKILL)
            batch.wait(HANG_S)
            wait_until(lambda: not health(url)["running"])
            assert health(url)["ok"]
            before = len(cards(url))
            with start_batch(emulator, tmp_path, "--no-download") as again:
                again.communicate(timeout=HANG_S)
            assert again.returncode in {0, 1}  # what was on its way at the kill is in doubt
            wait_until(lambda: len(cards(url)) == 40)
            assert before < 40
            board.send_signal(signal.SIGINT)
            assert board.wait(HANG_S) == 0


def whole_page(folder: Path) -> int:
    """Return the number of cards of the page on the disk, which must be whole."""
    assert (folder / "pika-out" / "index.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    return len(page_data(folder / "pika-out")["cards"])


@pytest.mark.slow
def test_the_pages_are_whole_after_each_interruption(tmp_path: Path) -> None:
    """Ctrl-C of a batch with a board, a resume with a board beside it, a kill of both, and again to the end."""
    with (
        Emulator(api_key=KEY, render=False, durations="constant:0.5").in_thread() as emulator,
        start_batch(emulator, tmp_path, "--max-in-flight", "4", "--expected-seconds", "0.5", "--board") as batch,
    ):
        url = address(batch)
        wait_until(lambda: len(cards(url)) >= 4)
        batch.send_signal(signal.SIGINT)
        batch.communicate(timeout=HANG_S)
        assert batch.returncode == 130
        first = whole_page(tmp_path)
        assert first >= 4
        with start_batch(emulator, tmp_path, "--max-in-flight", "4") as again, start_board(tmp_path) as board:
            url = address(board)
            wait_until(lambda: len(cards(url)) > first)
            assert health(url)["running"]
            again.send_signal(signal.SIGKILL)
            again.wait(HANG_S)
            assert len(cards(url)) > first
            assert whole_page(tmp_path) >= first
            board.send_signal(signal.SIGKILL)
            board.wait(HANG_S)
        with start_board(tmp_path) as board:
            url = address(board)
            after_the_kill = len(cards(url))
            assert after_the_kill > first
            with start_batch(emulator, tmp_path) as last:
                last.communicate(timeout=HANG_S)
            wait_until(lambda: len(cards(url)) == 40)
            assert whole_page(tmp_path) == 40
            board.send_signal(signal.SIGINT)
            assert board.wait(HANG_S) == 0


def test_a_folder_without_a_batch_has_no_board(cli: CommandLine) -> None:
    """It is a usage error."""
    assert cli("board", "nowhere").code == 2


def test_a_batch_serves_its_own_board(tmp_path: Path) -> None:
    """`--board` without a port takes any free one; the address stands whole on one line of standard error."""
    with (
        Emulator(api_key=KEY, render=False, durations="constant:2").in_thread() as emulator,
        start_batch(emulator, tmp_path, "--max-in-flight", "20", "--no-download", "--board") as batch,
    ):
        url = address(batch)
        assert url.startswith("http://127.0.0.1:")
        wait_until(lambda: len(cards(url)) >= 2)
        assert health(url)["running"]
        assert get(url.replace("token=", "token=x"), "/healthz")[0] == 403
        batch.communicate(timeout=HANG_S)
        assert batch.returncode == 0


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["batch", "x", "--board"], ["batch", "x", "--board", "0"]),
        (["batch", "--board", "--yes"], ["batch", "--board", "0", "--yes"]),
        (["batch", "--board", "8000"], ["batch", "--board", "8000"]),
        (["generate", "--", "--board"], ["generate", "--", "--board"]),
        (["board", "x"], ["board", "x"]),
    ],
)
def test_a_board_needs_no_port(argv: list[str], expected: list[str]) -> None:
    """The port may be left out."""
    assert with_board_port(argv) == expected


@pytest.mark.parametrize(
    ("name", "host"), [("Board.Example.org", "board.example.org:80"), ("[fd00::7]", "[fd00::7]:80")]
)
def test_a_further_name_is_answered(tmp_path: Path, name: str, host: str) -> None:
    """As a browser sends it in `Host`: without regard to case, and an IPv6 address in brackets."""
    access = folder_board(BatchFolder(tmp_path), "127.0.0.1", (name,)).access
    cookie = {"cookie": f"{access.cookie_name}={access.cookie_value}"}
    assert access.judge({"host": host, **cookie}, None) is Verdict.ALLOWED
    assert access.judge({"host": f"not-{host}", **cookie}, None) is Verdict.FORBIDDEN
