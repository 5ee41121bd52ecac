"""Results of a batch as a command leaves them: their kinds, their lateness, and what is saved of their addresses."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pika_async._http import downloads
from tests.cli.command_line import CommandLine, files_with, serving

SECRET = "s3cr3t-of-the-host"


def picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "teal").save(file, kind)
    return file.getvalue()


class Host:
    """Server of one body at any path, after `absences` answers of 404."""

    def __init__(self, body: bytes, absences: int = 0) -> None:
        self.body = body
        self.absences = absences
        self.asked: list[tuple[str, dict[str, str]]] = []
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                is_absent = len(host.asked) <= host.absences
                content = b"" if is_absent else host.body
                self.send_response(404 if is_absent else 200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def url(self, path: str, userinfo: str = "") -> str:
        return f"http://{userinfo}127.0.0.1:{self._server.server_port}{path}"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


@contextlib.contextmanager
def hosting(body: bytes, path: str = "/v.mp4", userinfo: str = "", absences: int = 0) -> Iterator[tuple[Host, Any]]:
    """Serve an emulator whose results are at a host with `body`."""
    host = Host(body, absences)
    link = {"on": "feed", "do": {"fault": "link", "url": host.url(path, userinfo)}}
    with host.running(), serving(link) as emulator:
        yield host, emulator


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine(tmp_path, capsys, monkeypatch)


@pytest.mark.parametrize("kind, suffix", [("PNG", ".png"), ("GIF", ".gif"), ("JPEG", ".jpg"), ("WEBP", ".webp")])
def test_a_picture_is_shown_under_its_own_ending(cli: CommandLine, kind: str, suffix: str) -> None:
    """The file, its line in results.jsonl and the gallery have the ending of the kind; a second run changes nothing."""
    with hosting(picture(kind)) as (host, emulator):
        source = cli.write("b.jsonl", json.dumps({"key": "a.b", "prompt": "a cat"}))
        assert cli.batch(emulator, source).code == 0
        assert cli.batch(emulator, source).code == 0
        asked = len(host.asked)
    [row] = cli.results()
    page = (cli.folder / "pika-out" / "index.html").read_text()
    assert row["file"] == f"videos/a.b{suffix}"
    assert (cli.folder / "pika-out" / row["file"]).read_bytes() == picture(kind)
    assert f'<img loading="lazy" alt="" src="./videos/a.b{suffix}">' in page
    assert "<video" not in page
    assert not (cli.folder / "pika-out" / "posters").exists()
    assert asked == 1


@pytest.mark.parametrize("name", ["a.png", "a.mp4"])
def test_a_new_batch_overwrites_no_file_of_any_kind(cli: CommandLine, name: str) -> None:
    """A file that has the name of a coming result, with any ending, is named before anything is sent."""
    mine = cli.folder / "pika-out" / "videos" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with serving() as emulator:
        ran = cli.batch(emulator, cli.write("b.jsonl", json.dumps({"key": "a", "prompt": "a cat"})))
        assert (ran.code, emulator.ledger) == (2, [])
    assert f"{name} exists and is never overwritten" in ran.err


def test_a_late_result_needs_no_second_command(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that answers 404 at first is asked again, without a poll, until it has the video."""
    monkeypatch.setattr(downloads, "ABSENCE_DELAYS_S", (0.01, 0.02))
    with hosting(picture("GIF"), absences=3) as (host, emulator):
        ran = cli.batch(emulator, cli.write("b.jsonl", json.dumps({"key": "a", "prompt": "a cat"})))
    assert (ran.code, len(host.asked)) == (0, 4)


def test_user_information_of_an_address_is_neither_sent_nor_kept(cli: CommandLine) -> None:
    """A user name and a password in a result's address are in no file, on no terminal and in no request."""
    with hosting(picture("GIF"), userinfo=f"me:{SECRET}@") as (host, emulator):
        source = cli.write("b.jsonl", json.dumps({"key": "a", "prompt": "a cat"}))
        ran = cli.batch(emulator, source, "--log-level", "debug")
        shown = cli("status", "pika-out", "--json")
    assert ran.code == 0
    assert SECRET not in ran.out + ran.err + shown.out + shown.err
    assert files_with(cli.folder, SECRET) == []
    assert [row["video_url"] for row in cli.results()] == [host.url("/v.mp4")]
    assert "authorization" not in host.asked[0][1]


@pytest.mark.parametrize("userinfo", ["", f"{SECRET}@", f"me:{SECRET}@"])
def test_a_saved_sample_has_no_signed_address(cli: CommandLine, userinfo: str) -> None:
    """`doctor --save` keeps the form of an address: neither its query nor its fragment nor a user."""
    path = f"/v.mp4?Expires=1&X-Amz-Signature={SECRET}#{SECRET}"
    with hosting(picture("GIF"), path, userinfo) as (_, at):
        base = ("--provider", "native", "--base-url", at.base_url("native"), "--expected-seconds", "0.1")
        cli("doctor", *base, "--spend", "--save", "samples")
    saved = {file.name: file.read_text() for file in (cli.folder / "samples").iterdir()}
    assert "/v.mp4?redacted" in saved["live-feed-succeeded.json"]
    assert [name for name, text in saved.items() if SECRET in text or "Expires" in text] == []
