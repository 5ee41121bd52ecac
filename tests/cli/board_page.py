"""Page of a board with buttons, as its script sees it, and a batch that is paused from it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from pika_async.emulator import Emulator
from tests.cli.batch_process import HANG_S, start_batch, wait_until
from tests.cli.command_line import KEY
from tests.fakes.child_process import ChildProcess

__all__ = ["Page", "paused_batch"]

OPTIONS = ("--max-in-flight", "3", "--expected-seconds", "0.3", "--no-download", "--board", "--board-control")


@attrs.define
class Page:
    """The page of a board, as its script sees it."""

    address: str
    cookie: str
    token: str

    @classmethod
    def of(cls, batch: ChildProcess) -> Page:
        url = batch.read_errors_until("token=").partition("board: ")[2].strip()
        address, _, query = url.removeprefix("http://").partition("/?")
        status, headers, _ = request(address, "GET", f"/healthz?{query}", {})
        assert status == 200
        page = cls(address, headers["Set-Cookie"].partition(";")[0], "")
        page.token = page.head()["control"]
        return page

    def head(self) -> Any:
        _, _, body = request(self.address, "GET", "/", {"Cookie": self.cookie})
        return json.loads(body.partition('type="application/json">')[2].partition("</script>")[0])["head"]

    def change(self, name: str, **arguments: Any) -> tuple[int, Any]:
        headers = {
            "Cookie": self.cookie, "Origin": f"http://{self.address}", "Content-Type": "application/json",
            "X-Board-Token": self.token,
        }  # fmt: skip
        status, _, body = request(self.address, "POST", f"/control/{name}", headers, json.dumps(arguments))
        return status, json.loads(body)


def request(address: str, method: str, path: str, headers: dict[str, str], body: str = "") -> tuple[int, Any, str]:
    connection = http.client.HTTPConnection(address, timeout=HANG_S)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()
    finally:
        connection.close()


@contextmanager
def paused_batch(folder: Path) -> Iterator[tuple[Emulator, ChildProcess, Page]]:
    """Run a batch of 40 prompts in a process of its own, and pause it from its board after three charges."""
    with (
        Emulator(api_key=KEY, render=False, durations="constant:0.3").in_thread() as emulator,
        start_batch(emulator, folder, *OPTIONS) as batch,
    ):
        page = Page.of(batch)
        wait_until(lambda: len(emulator.ledger) >= 3)
        assert page.change("pause")[0] == 200
        yield emulator, batch, page
