"""Every row of the verdict tables through the command line: its results agree with what the gateway has counted.

Tested end to end elsewhere: a submission cancelled after it was sent (`test_cli_batch`, signals) and an invalid address
(`test_cli_bad_input`). No option takes a fingerprint.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest

from pika_async._http.transport import AiohttpTransport
from pika_async.emulator import Emulator
from pika_async.providers._verdicts import SubmitVerdict
from tests.cli.command_line import CommandResult
from tests.cli.fault_gateway import FaultGateway, ServerThread, results_by_prompt, run_command, serving_emulator
from tests.contracts.verdict_rows import ANSWERED, LONG_TIMEOUT, LOST_ANSWERS, VerdictRow
from tests.fakes.raw_server import Act, RawServer, answer, free_port, trusting_context, unresponsive_server

#: One provider of each dialect.
PROVIDERS = ("cometapi", "native")
BYSTANDER = "[a bystander]"
#: Most rows in one batch; the summary lists up to ten failed jobs.
MAX_GROUP_ROWS = 8
FAST_OUT = ("--expected-seconds", "0.05", "--no-download", "--out", "out")


@pytest.fixture(scope="module")
def server_thread() -> Iterator[ServerThread]:
    serving = ServerThread()
    yield serving
    serving.close()


# -- batches of rows -----------------------------------------------------------------------------------------------


@attrs.frozen
class ExpectedOutcome:
    """Outcome of a verdict: the job's status, the exit code, and the number of POSTs that arrive."""

    status: str
    code: int
    posts: int = 1
    #: Whether the verdict stops all submissions.
    stops: bool = False


EXPECTED = {
    SubmitVerdict.ACCEPTED: ExpectedOutcome("succeeded", 0),
    SubmitVerdict.REJECTED: ExpectedOutcome("rejected", 1),
    SubmitVerdict.UNKNOWN: ExpectedOutcome("unknown", 1),
    SubmitVerdict.WAIT: ExpectedOutcome("succeeded", 0, posts=2),
    SubmitVerdict.STOP: ExpectedOutcome("planned", 3, stops=True),
    SubmitVerdict.WRONG_URL: ExpectedOutcome("planned", 1, stops=True),
}


def _redirected(status: int) -> VerdictRow:
    """Return a redirect to the same gateway, which would count a second POST."""
    return VerdictRow(
        f"a redirect {status}", SubmitVerdict.WRONG_URL, lambda _: Act(answer(status, "", {"Location": "/generate"}))
    )


#: The command line does not change how long delays are handled: rows with one are left out.
ROWS = [
    *(row for row in (*LOST_ANSWERS, *ANSWERED) if not row.retry_after),
    *(_redirected(status) for status in (301, 302, 303, 307, 308)),
]


@attrs.frozen(eq=False)
class Group:
    """Rows for one batch: with one verdict and one timeout, and a single row if it stops the batch."""

    provider: str
    rows: tuple[VerdictRow, ...]

    @property
    def expected(self) -> ExpectedOutcome:
        return EXPECTED[self.rows[0].verdict]

    @property
    def marks(self) -> tuple[pytest.MarkDecorator, ...]:
        """Those of a test: `tests.contracts.test_verdict_table` has every row in both dialects quickly."""
        return (pytest.mark.slow,) if self.provider == PROVIDERS[0] else ()

    @property
    def prompts(self) -> list[str]:
        """Prompts of the rows, and of a bystander unless a short timeout might hit it too."""
        has_long_timeout = self.rows[0].timeout is LONG_TIMEOUT
        return [*map(prompt, self.rows), *([BYSTANDER] if has_long_timeout else [])]


def prompt(row: VerdictRow) -> str:
    """Return the prompt of a row, in brackets so that no prompt is part of another."""
    return f"[{row.name}]"


def _groups(provider: str) -> Iterator[Group]:
    kinds: dict[tuple[SubmitVerdict, aiohttp.ClientTimeout], list[VerdictRow]] = {}
    for row in ROWS:
        kinds.setdefault((row.verdict, row.timeout), []).append(row)
    for (verdict, _), rows in kinds.items():
        count = len(rows) if EXPECTED[verdict].stops else -(-len(rows) // MAX_GROUP_ROWS)
        # Dealt, not sliced: similar rows go to different batches, because three web pages stop a batch.
        yield from (Group(provider, tuple(rows[number::count])) for number in range(count))


GROUPS = [group for provider in PROVIDERS for group in _groups(provider)]


@attrs.frozen
class BatchResult:
    """Result of one batch: exit code and output, its lines by prompt, and the gateway with its counts."""

    ran: CommandResult
    records: dict[str, dict[str, Any]]
    gateway: FaultGateway


Run = Callable[[Group], BatchResult]


@pytest.fixture(scope="module")
def run_of(server_thread: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a function that runs the batch of a group once and returns its result."""
    results: dict[Group, BatchResult] = {}

    def of(group: Group) -> BatchResult:
        if group not in results:
            results[group] = _run(group, server_thread, tmp_path_factory.mktemp("batch"))
        return results[group]

    return of


def _run(group: Group, server_thread: ServerThread, folder: Path) -> BatchResult:
    gateway = FaultGateway(group.provider)
    for row in group.rows:
        gateway.answer_with(prompt(row), row.act)
    max_in_flight = "1" if group.expected.stops else "16"
    with server_thread.serving(gateway), paid_timeout(group.rows[0].timeout):
        ran = _batch(folder, group.provider, gateway.url, group.prompts, "--max-in-flight", max_in_flight)
    return BatchResult(ran, results_by_prompt(folder / "out"), gateway)


def _batch(folder: Path, provider: str, url: str, prompts: list[str], *more: str, **options: Any) -> CommandResult:
    (folder / "b.txt").write_text("\n".join(prompts))
    return run_command(folder, "batch", "b.txt", "--provider", provider, "--base-url", url, *FAST_OUT, *more, **options)


@contextlib.contextmanager
def paid_timeout(timeout: aiohttp.ClientTimeout) -> Iterator[None]:
    """Change the transport's default timeout of submissions, for which there is no option."""
    create = AiohttpTransport.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(create, "__kwdefaults__", {**(create.__kwdefaults__ or {}), "paid_timeout": timeout})
        yield


# -- what was sent ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "row"),
    [
        pytest.param(group, row, id=f"{row.name}-{group.provider}", marks=group.marks)
        for group in GROUPS
        for row in group.rows
    ],
)
def test_a_submission_ends_as_its_row_says(group: Group, row: VerdictRow, run_of: Run) -> None:
    """Status, exit code and number of POSTs are those of the verdict; a job in doubt is listed by its key."""
    result, expected = run_of(group), group.expected
    record = result.records[prompt(row)]
    assert (record["status"], result.ran.code) == (expected.status, expected.code), record
    assert result.gateway.posts[prompt(row)] == expected.posts
    assert result.gateway.accepted[prompt(row)] == expected.posts - 1
    assert (record["task_id"] is not None) == (expected.status == "succeeded")
    lines = [line for line in result.ran.err.splitlines() if record["key"] in line]
    assert bool(lines) == (expected.status in {"unknown", "rejected"})


@pytest.mark.parametrize(
    "group", [pytest.param(group, id=f"{group.rows[0].name}-{group.provider}", marks=group.marks) for group in GROUPS]
)
def test_other_jobs_continue_unless_the_account_or_the_url_is_at_fault(group: Group, run_of: Run) -> None:
    """A bystander succeeds with one POST, or stays planned without one; no other prompt is sent."""
    result = run_of(group)
    assert set(result.gateway.posts) | {BYSTANDER} == {*map(prompt, group.rows), BYSTANDER}
    if BYSTANDER in group.prompts:
        status, posts = ("planned", 0) if group.expected.stops else ("succeeded", 1)
        assert (result.records[BYSTANDER]["status"], result.gateway.posts[BYSTANDER]) == (status, posts)
    in_doubt = [record for record in result.records.values() if record["status"] == "unknown"]
    assert len(in_doubt) == (len(group.rows) if group.expected.status == "unknown" else 0)


# -- what was not sent -----------------------------------------------------------------------------------------------


@attrs.frozen
class BrokenConnection:
    """Connection that cannot be opened until `repair` is called: its base URL and options, and the server behind it."""

    url: str
    server: FaultGateway
    repair: Callable[[], None]
    options: tuple[str, ...] = ()


MakeBroken = Callable[[str, ServerThread, contextlib.ExitStack, pytest.MonkeyPatch], BrokenConnection]


def _refused(
    provider: str, server_thread: ServerThread, stack: contextlib.ExitStack, _patch: pytest.MonkeyPatch
) -> BrokenConnection:
    server = FaultGateway(provider, port=free_port())
    return BrokenConnection(server.url, server, lambda: stack.enter_context(server_thread.serving(server)))


def _no_such_host(
    provider: str, server_thread: ServerThread, stack: contextlib.ExitStack, patch: pytest.MonkeyPatch
) -> BrokenConnection:
    server = FaultGateway(provider)
    stack.enter_context(server_thread.serving(server))
    names: dict[str, str] = {}
    patch.setattr("aiohttp.connector.DefaultResolver", lambda **_: Names(names))
    return BrokenConnection(
        f"http://gateway.invalid:{server.port}", server, lambda: names.update({"gateway.invalid": "127.0.0.1"})
    )


def _deaf(
    provider: str, server_thread: ServerThread, stack: contextlib.ExitStack, _patch: pytest.MonkeyPatch
) -> BrokenConnection:
    stack.enter_context(paid_timeout(aiohttp.ClientTimeout(total=10, sock_connect=0.2)))
    blackhole = unresponsive_server()
    url = server_thread.run(blackhole.__aenter__())
    server = FaultGateway(provider, port=int(url.rpartition(":")[2]))

    def repair() -> None:
        server_thread.run(blackhole.__aexit__(None, None, None))
        stack.enter_context(server_thread.serving(server))

    return BrokenConnection(url, server, repair)


def _handshake(how: Any) -> MakeBroken:
    """The first server ends or resets every connection before TLS; the second one works."""

    def make(
        provider: str, server_thread: ServerThread, stack: contextlib.ExitStack, patch: pytest.MonkeyPatch
    ) -> BrokenConnection:
        patch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting_context())
        stack.enter_context(paid_timeout(aiohttp.ClientTimeout(total=10, sock_connect=0.2 if how == "stall" else 5)))
        broken = RawServer()
        broken.connection_acts.extend([how] * 9)
        server_thread.run(broken.__aenter__())
        server = FaultGateway(provider, tls=True, port=broken.port)

        def repair() -> None:
            server_thread.run(broken.__aexit__())
            stack.enter_context(server_thread.serving(server))

        return BrokenConnection(server.url, server, repair)

    return make


def _no_tls(
    provider: str, server_thread: ServerThread, stack: contextlib.ExitStack, patch: pytest.MonkeyPatch
) -> BrokenConnection:
    patch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting_context())
    plain = server_thread.run(asyncio.start_server(_speak_http, "127.0.0.1", 0))
    server = FaultGateway(provider, tls=True, port=plain.sockets[0].getsockname()[1])

    async def end() -> None:
        plain.close()
        await plain.wait_closed()

    def repair() -> None:
        server_thread.run(end())
        stack.enter_context(server_thread.serving(server))

    return BrokenConnection(server.url, server, repair)


async def _speak_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\nThis is an HTTP server")
    writer.close()


def _no_proxy(
    provider: str, server_thread: ServerThread, stack: contextlib.ExitStack, _patch: pytest.MonkeyPatch
) -> BrokenConnection:
    proxy = FaultGateway(provider, port=free_port())
    repair = lambda: stack.enter_context(server_thread.serving(proxy))  # noqa: E731
    return BrokenConnection("http://gateway.invalid", proxy, repair, ("--proxy", proxy.url))


def _no_tunnel(status: int) -> MakeBroken:
    def make(
        provider: str, server_thread: ServerThread, stack: contextlib.ExitStack, patch: pytest.MonkeyPatch
    ) -> BrokenConnection:
        patch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting_context())
        proxy, server = RawServer(), FaultGateway(provider, tls=True)
        proxy.connect_acts.append(Act(answer(status), "fin"))
        stack.enter_context(server_thread.serving(proxy, server))
        return BrokenConnection(server.url, server, lambda: None, ("--proxy", proxy.url))

    return make


class Names(aiohttp.abc.AbstractResolver):
    """Resolver with a table of names."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[Any]:
        if host not in self._names:
            raise OSError(None, "Name or service not known")
        address = self._names[host]
        return [{"hostname": host, "host": address, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


NOT_SENT: dict[str, MakeBroken] = {
    "refused": _refused,
    "no such host": _no_such_host,
    "connect timeout": _deaf,
    "TLS handshake reset": _handshake("rst"),
    "TLS handshake ended": _handshake("fin"),
    "TLS handshake stalls": _handshake("stall"),
    "no TLS": _no_tls,
    "proxy refused": _no_proxy,
    "proxy cannot connect": _no_tunnel(502),
    "proxy wants a password": _no_tunnel(407),
}
#: Each takes a quarter of a second: the dialects alternate, and the first case has both.
UNSENT = [("refused", PROVIDERS[1]), *zip(NOT_SENT, itertools.cycle(PROVIDERS), strict=False)]


@pytest.mark.parametrize(("name", "provider"), [pytest.param(*cell, id="-".join(cell)) for cell in UNSENT])
def test_an_unsent_submission_is_sent_once_the_connection_works(
    name: str, provider: str, server_thread: ServerThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 0: it was tried again, one POST arrived and was accepted, and no job is in doubt."""
    with contextlib.ExitStack() as stack:
        broken = NOT_SENT[name](provider, server_thread, stack, monkeypatch)
        more = (*broken.options, "--log-level", "debug")
        word = SubmitVerdict.NOT_SENT.value
        ran = _batch(tmp_path, provider, broken.url, ["a cat"], *more, word=word, on=broken.repair)
    [record] = results_by_prompt(tmp_path / "out").values()
    assert word in ran.err
    assert (ran.code, record["status"], record["error"]) == (0, "succeeded", None)
    assert broken.server.posts == broken.server.accepted == Counter({"a cat": 1})


@pytest.mark.parametrize("host", ["127.0.0.1", "gateway.invalid"])
def test_an_unreachable_gateway_leaves_every_job_planned(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections refused or host name unknown: exit code 1, and no job is in doubt or rejected."""
    monkeypatch.setattr("aiohttp.connector.DefaultResolver", lambda **_: Names({}))
    ran = _batch(tmp_path, "native", f"http://{host}:{free_port()}", ["one", "two"])
    assert (ran.code, [record["status"] for record in results_by_prompt(tmp_path / "out").values()]) == (
        1,
        ["planned"] * 2,
    )
    assert "2 planned" in ran.err


CERTIFICATES = {
    "unknown issuer": "127.0.0.1",
    "another name": "gateway.invalid",
}


@pytest.mark.parametrize("case", CERTIFICATES)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_invalid_certificate_gets_no_request(
    case: str, provider: str, server_thread: ServerThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 3, every job stays planned, and no byte of a request arrived."""
    monkeypatch.setattr("aiohttp.connector.DefaultResolver", lambda **_: Names({"gateway.invalid": "127.0.0.1"}))
    if case == "another name":
        monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting_context())
    server = FaultGateway(provider, tls=True)
    with server_thread.serving(server):
        ran = _batch(tmp_path, provider, f"https://{CERTIFICATES[case]}:{server.port}", ["one", "two"])
    assert (ran.code, server.received, "certificate" in ran.err) == (3, [], True)
    assert [record["status"] for record in results_by_prompt(tmp_path / "out").values()] == ["planned"] * 2


# -- polls -----------------------------------------------------------------------------------------------------------

#: Faults of the first poll of a task; the next poll finds the video.
POLLS: dict[str, Any] = {
    "FIN": "drop",
    "RST": {"fault": "drop", "how": "rst"},
    "never read": {"fault": "drop", "when": "before-read"},
    "late": {"fault": "delay", "seconds": 0.2},
    "silence, then FIN": {"fault": "stall", "seconds": 0.1},
    "headers cut": {"fault": "cut", "at": "headers"},
    "body cut": "cut",
    "body cut, no length": {"fault": "cut", "length": False},
    "body stalls, then FIN": {"fault": "body-stall", "seconds": 0.1},
    "garbage status": "garbage-status",
    "oversized header": "oversized-header",
    "bad chunk": "bad-chunk",
    **{str(status): {"fault": "answer", "status": status} for status in (408, 500, 502, 503, 504, 524)},
    "429": {"fault": "refuse", "as": "rate"},
    "429 at once": {"fault": "refuse", "as": "rate", "retry_after": 0},
    "503 without a channel": {"fault": "refuse", "as": "no-channel"},
    "500 invalid_request": {"fault": "refuse", "as": "invalid"},
    "200 with code 400": {"fault": "refuse", "as": "envelope"},
    "404 page": {"fault": "answer", "status": 404, "body": "<html>no</html>"},
    "404 of a young task": {"fault": "answer", "status": 404, "body": {}},
    "task_not_exist of a young task": {"fault": "refuse", "as": "task"},
    "vanished while young": "vanish",
    "a redirect": "redirect",
    **{kind: {"fault": "body", "kind": kind} for kind in ("html", "empty", "bom", "nan", "infinity", "huge-int")},
    **{kind: {"fault": "body", "kind": kind} for kind in ("deep", "lone-surrogate", "gzip-bomb", "not-json")},
    **{kind: {"fault": "body", "kind": kind} for kind in ("not-utf8", "list", "wrong-type")},
    "an unknown word": "word",
    "no status": {"fault": "word", "word": None},
    "no URL yet": "no-url",
    "another task's answer": "other-task",
    "processing again": "unfinish",
}
#: Faults below the dialect: tested with one dialect each, in turn.
DIALECT_INDEPENDENT = list(POLLS)[: list(POLLS).index("408")]


def _poll_groups(provider: str) -> list[list[str]]:
    """Return the faults for one provider in five batches: too many failed polls in a row would pause all polls."""
    names = [
        name
        for name in POLLS
        if name not in DIALECT_INDEPENDENT or DIALECT_INDEPENDENT.index(name) % 2 == PROVIDERS.index(provider)
    ]
    return [names[number::5] for number in range(5)]


@attrs.frozen
class PollResult:
    """Result of one batch: its exit code, its lines by prompt, and the emulator with its counts."""

    code: int
    records: dict[str, dict[str, Any]]
    emulator: Emulator


RunPolls = Callable[[str, int], PollResult]


@pytest.fixture(scope="module")
def run_polls(tmp_path_factory: pytest.TempPathFactory) -> RunPolls:
    """Return a function that runs the batch of some faults once and returns its result."""
    done: dict[tuple[str, int], PollResult] = {}

    def of(provider: str, number: int) -> PollResult:
        if (provider, number) not in done:
            done[provider, number] = _poll(provider, _poll_groups(provider)[number], tmp_path_factory.mktemp("polls"))
        return done[provider, number]

    return of


def _poll(provider: str, names: list[str], folder: Path) -> PollResult:
    rules = [{"on": "feed", "prompt": f"[{name}]", "per": "task", "nth": 1, "do": POLLS[name]} for name in names]
    with serving_emulator(rules) as emulator:
        ran = _batch(folder, provider, emulator.base_url(provider), [f"[{name}]" for name in names])
        return PollResult(ran.code, results_by_prompt(folder / "out"), emulator)


@pytest.mark.parametrize(
    ("provider", "number", "name"),
    [
        pytest.param(provider, number, name, id=f"{name}-{provider}")
        for provider in PROVIDERS
        for number, names in enumerate(_poll_groups(provider))
        for name in names
    ],
)
def test_a_failed_poll_is_repeated(provider: str, number: int, name: str, run_polls: RunPolls) -> None:
    """The job then succeeds without an error, and was charged once."""
    result = run_polls(provider, number)
    record = result.records[f"[{name}]"]
    assert (result.code, record["status"], record["error"]) == (0, "succeeded", None)
    [charge] = [charge for charge in result.emulator.ledger if charge.prompt == f"[{name}]"]
    assert charge.task_id == record["task_id"]
    assert result.emulator.polls.of(charge.task_id) >= (1 if name in READABLE else 2)


#: Faults after which the response can still be read.
READABLE = {"bom", "list", "wrong-type", "late"}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_provider_that_is_down_only_costs_time(provider: str, tmp_path: Path) -> None:
    """When all polls of forty tasks fail for a while, there are few polls, and each task then succeeds."""
    prompts = [f"[{number}]" for number in range(40)]
    rules = [{"on": "feed", "between": [0, 0.5], "do": {"fault": "answer", "status": 502, "body": "<html>bad</html>"}}]
    with serving_emulator(rules) as emulator:
        ran = _batch(tmp_path, provider, emulator.base_url(provider), prompts, "--max-in-flight", "40")
        records = results_by_prompt(tmp_path / "out")
        assert (ran.code, {record["status"] for record in records.values()}) == (0, {"succeeded"})
        assert sorted(charge.prompt for charge in emulator.ledger) == sorted(prompts)
        assert emulator.polls.total < 200


@pytest.mark.parametrize("status", [401, 402, 403])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_refused_poll_parks_paid_jobs(provider: str, status: int, tmp_path: Path) -> None:
    """Exit code 3: nothing more is sent, no job fails, and every accepted job keeps its task id."""
    rules = [{"on": "feed", "do": {"fault": "answer", "status": status, "body": {"error": {"message": "no"}}}}]
    with serving_emulator(rules) as emulator:
        url = emulator.base_url(provider)
        ran = _batch(tmp_path, provider, url, ["one", "two", "three"], "--max-in-flight", "1")
        records = results_by_prompt(tmp_path / "out")
        assert (ran.code, {record["status"] for record in records.values()} & {"failed", "unknown"}) == (3, set())
        task_ids = {record["task_id"] for record in records.values()} - {None}
        assert task_ids == {charge.task_id for charge in emulator.ledger}
        assert len(task_ids) < 3
