"""Results of a batch as a command leaves them: their kinds, their lateness, and what is saved of their addresses."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from pika_async._http import downloads
from pika_async._http.addresses import forbidden_reason
from tests.cli.command_line import CommandLine, files_with, serving
from tests.fakes.page_data import page_data

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


@pytest.mark.parametrize("kind, suffix", [("PNG", ".png"), ("GIF", ".gif"), ("JPEG", ".jpg"), ("WEBP", ".webp")])
def test_a_picture_is_shown_under_its_own_ending(cli: CommandLine, kind: str, suffix: str) -> None:
    """The file, its line in results.jsonl and the gallery have the ending of the kind; a second run changes nothing."""
    with hosting(picture(kind)) as (host, emulator):
        source = cli.write("b.jsonl", json.dumps({"key": "a.b", "prompt": "a cat"}))
        assert cli.batch(emulator, source).code == 0
        assert cli.batch(emulator, source).code == 0
        asked = len(host.asked)
    [row] = cli.results()
    [card] = page_data(cli.folder / "pika-out")["cards"]
    assert row["file"] == f"videos/a.b{suffix}"
    assert (cli.folder / "pika-out" / row["file"]).read_bytes() == picture(kind)
    assert (card["file"], card["picture"]) == (f"./videos/a.b{suffix}", True)
    assert "poster" not in card
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


def count_by_status(cli: CommandLine) -> Counter[str]:
    return Counter(row["status"] for row in cli.results())


def test_a_result_that_is_refused_stops_the_batch(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first http result ends the submissions; the same command pays nothing more, and with consent goes on."""
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    proxy = Host(picture("GIF"))
    link = {"on": "feed", "do": {"fault": "link", "url": "http://cdn.example.com/v?sig=secret"}}
    rows = "\n".join(json.dumps({"key": f"k{n}", "prompt": f"a cat {n}"}) for n in range(12))
    with serving(link) as emulator, proxy.running():
        source = cli.write("b.jsonl", rows)
        options = ("--max-in-flight", "2")
        ran = cli.batch(emulator, source, *options)
        paid = len(emulator.ledger)
        assert (ran.code, count_by_status(cli)) == (1, Counter(planned=12 - paid, succeeded=paid))
        assert 1 <= paid <= 4
        assert "nothing more is paid for: the address begins with http://" in ran.err
        assert "--allow-results http" in ran.err
        assert cli.batch(emulator, source, *options).code == 1
        assert cli("resume", "pika-out").code == 1
        assert len(emulator.ledger) == paid
        monkeypatch.setenv("HTTP_PROXY", proxy.url(""))
        ran = cli.batch(emulator, source, *options, "--allow-results", "http")
        assert (ran.code, len(emulator.ledger), count_by_status(cli)) == (0, 12, Counter(succeeded=12))
    assert {path for path, _ in proxy.asked} == {"http://cdn.example.com/v?sig=secret"}


def test_resume_takes_the_consent_too(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """`resume --allow-results http` fetches what was refused, and submits the rest."""
    proxy = Host(picture("GIF"))
    link = {"on": "feed", "do": {"fault": "link", "url": "http://cdn.example.com/v"}}
    rows = "\n".join(json.dumps({"key": f"k{n}", "prompt": f"a cat {n}"}) for n in range(5))
    with serving(link) as emulator, proxy.running():
        cli.batch(emulator, cli.write("b.jsonl", rows), "--max-in-flight", "1")
        monkeypatch.setenv("HTTP_PROXY", proxy.url(""))
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        assert cli("resume", "pika-out", "--allow-results", "http", "--expected-seconds", "0.2").code == 0
        assert len(emulator.ledger) == 5


def test_one_refused_result_among_others_stops_nothing(cli: CommandLine) -> None:
    """Where a file of the batch has arrived, a later refusal is that of its job alone."""
    link = {"on": "feed", "prompt": "a cat 3", "do": {"fault": "link", "url": "http://cdn.example.com/v"}}
    rows = "\n".join(json.dumps({"key": f"k{n}", "prompt": f"a cat {n}"}) for n in range(6))
    with serving(link) as emulator:
        ran = cli.batch(emulator, cli.write("b.jsonl", rows), "--max-in-flight", "1")
        assert (ran.code, len(emulator.ledger), count_by_status(cli)) == (1, 6, Counter(succeeded=6))
    assert [row["error"] is None for row in cli.results()].count(False) == 1


@pytest.fixture
def tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TUN proxy resolves the host of results."""

    async def refuse(self: downloads.Downloader, host: str) -> str | None:
        assert host == "cdn.pika.art"
        reason = forbidden_reason("198.18.0.9", loopback=False, tunnel=self._allow_tunnel)
        return reason and f"{host} resolves to 198.18.0.9, which {reason}"

    monkeypatch.setattr(downloads.Downloader, "route_refusal", refuse)


@pytest.mark.usefixtures("tunnel")
def test_a_tunnel_is_named_before_anything_is_paid(cli: CommandLine) -> None:
    """`batch` and `generate` send nothing where results could not be fetched, unless that is allowed or not wanted."""
    with serving() as emulator:
        source = cli.write("b.jsonl", json.dumps({"key": "a", "prompt": "a cat"}))
        target = ("--provider", "native", "--base-url", emulator.base_url("native"), "--expected-seconds", "0.1")
        for ran in (cli.batch(emulator, source), cli("generate", "a cat", *target, "--out", "a.mp4")):
            assert "cdn.pika.art resolves to 198.18.0.9, which is the address of a tunnel" in ran.err
            assert "--allow-results tunnel" in ran.err
            assert (ran.code in {1, 2}, emulator.ledger) == (True, [])
        assert count_by_status(cli) == Counter(planned=1)
        assert cli.batch(emulator, source, "--allow-results", "tunnel").code == 0
        assert cli("generate", "a cat", *target, "--out", "a.mp4", "--allow-results", "tunnel").code == 0
        assert cli("generate", "another cat", *target).code == 0
        assert cli.batch(emulator, source, "--no-download", "--again", "a").code == 0


@pytest.mark.usefixtures("tunnel")
def test_doctor_names_a_tunnel(cli: CommandLine) -> None:
    """The free check says that results could not be fetched, and how to allow it."""
    with serving() as emulator:
        base = ("--provider", "native", "--base-url", emulator.base_url("native"))
        ran, allowed = cli("doctor", *base), cli("doctor", *base, "--allow-results", "tunnel")
    assert (ran.code, "--allow-results tunnel" in ran.out) == (1, True)
    assert (allowed.code, "tunnel" in allowed.out) == (0, False)


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


@pytest.mark.parametrize("command", ["batch", "resume", "retry"])
def test_the_page_is_opened_if_asked(cli: CommandLine, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """It is opened once, at the end, and only with the option; without a browser its path is named."""
    opened: list[tuple[str, bool]] = []

    def open_page(url: str) -> bool:
        page = cli.folder / "pika-out" / "index.html"
        opened.append((url, '"running":false' in page.read_text()))
        return False

    monkeypatch.setattr("webbrowser.open", open_page)
    with serving() as emulator:
        source = cli.write("b.txt", "a")
        assert cli.batch(emulator, source).code == 0
        assert opened == []
        if command == "batch":
            ran = cli.batch(emulator, source, "--open")
        else:
            ran = cli(command, "pika-out", "--open", *(["--failed"] if command == "retry" else []))
    assert ran.code == 0
    assert opened == [((cli.folder / "pika-out" / "index.html").as_uri(), True)]
    assert "no browser was found" in ran.err
