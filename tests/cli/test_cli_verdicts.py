"""Every row of the verdict tables through the command line: what the user is told is what the gateway's ledger says.

Not here, because it is tested end to end elsewhere: a submission cancelled after it was sent (`test_cli_batch`, the
signals), an address that is none (`test_cli_bad_input`), a fingerprint (no option takes one).
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
from tests.fakes.raw_server import Act, Raw, answer, deaf, free_port, trusting_context

#: One provider of each dialect.
PROVIDERS = ("cometapi", "native")
BYSTANDER = "[a bystander]"
#: The most jobs in trouble of which the summary tells one by one.
TOGETHER = 8
SWIFT = ("--expected-seconds", "0.05", "--no-download", "--out", "out")


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[ServerThread]:
    serving = ServerThread()
    yield serving
    serving.close()


# -- batches of rows -----------------------------------------------------------------------------------------------


@attrs.frozen
class Ending:
    """What a verdict comes to: the job's status, the exit code, how many POSTs arrive."""

    status: str
    code: int
    posts: int = 1
    #: Whether nothing more is sent after it.
    stops: bool = False


ENDINGS = {
    SubmitVerdict.ACCEPTED: Ending("succeeded", 0),
    SubmitVerdict.REJECTED: Ending("rejected", 1),
    SubmitVerdict.UNKNOWN: Ending("unknown", 1),
    SubmitVerdict.WAIT: Ending("succeeded", 0, posts=2),
    SubmitVerdict.STOP: Ending("planned", 3, stops=True),
    SubmitVerdict.WRONG_URL: Ending("rejected", 1, stops=True),
}


def _redirected(status: int) -> VerdictRow:
    """A redirect to the same gateway, where a second POST would be seen."""
    return VerdictRow(
        f"a redirect {status}", SubmitVerdict.WRONG_URL, lambda _: Act(answer(status, "", {"Location": "/generate"}))
    )


#: A long wait is no matter of the command line.
ROWS = [
    *(row for row in (*LOST_ANSWERS, *ANSWERED) if not row.retry_after),
    *(_redirected(status) for status in (301, 302, 303, 307, 308)),
]


@attrs.frozen(eq=False)
class Group:
    """Rows that may go through one batch: of one verdict and one patience, alone if they stop it."""

    provider: str
    rows: tuple[VerdictRow, ...]

    @property
    def ending(self) -> Ending:
        return ENDINGS[self.rows[0].verdict]

    @property
    def prompts(self) -> list[str]:
        """The rows', and a bystander's where its answer cannot be thought to be late."""
        patient = self.rows[0].timeout is LONG_TIMEOUT
        return [*map(prompt, self.rows), *([BYSTANDER] if patient else [])]


def prompt(row: VerdictRow) -> str:
    """In brackets, so that no prompt is a part of another."""
    return f"[{row.name}]"


def _groups(provider: str) -> Iterator[Group]:
    kinds: dict[tuple[SubmitVerdict, aiohttp.ClientTimeout], list[VerdictRow]] = {}
    for row in ROWS:
        kinds.setdefault((row.verdict, row.timeout), []).append(row)
    for (verdict, _), rows in kinds.items():
        count = len(rows) if ENDINGS[verdict].stops else -(-len(rows) // TOGETHER)
        # Dealt out, not sliced: rows that are alike (three web pages stop a batch) come into different ones.
        yield from (Group(provider, tuple(rows[number::count])) for number in range(count))


GROUPS = [group for provider in PROVIDERS for group in _groups(provider)]


@attrs.frozen
class Ended:
    """One batch: how it ended, its lines by prompt, and what the gateway has counted."""

    ran: CommandResult
    records: dict[str, dict[str, Any]]
    gateway: FaultGateway


Run = Callable[[Group], Ended]


@pytest.fixture(scope="module")
def run_of(elsewhere: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The batch of a group, run when the first of its rows is looked at."""
    ended: dict[Group, Ended] = {}

    def of(group: Group) -> Ended:
        if group not in ended:
            ended[group] = _run(group, elsewhere, tmp_path_factory.mktemp("batch"))
        return ended[group]

    return of


def _run(group: Group, elsewhere: ServerThread, folder: Path) -> Ended:
    gateway = FaultGateway(group.provider)
    for row in group.rows:
        gateway.answer_with(prompt(row), row.act)
    room = "1" if group.ending.stops else "16"
    with elsewhere.serving(gateway), patience(group.rows[0].timeout):
        ran = _batch(folder, group.provider, gateway.url, group.prompts, "--max-in-flight", room)
    return Ended(ran, results_by_prompt(folder / "out"), gateway)


def _batch(folder: Path, provider: str, url: str, prompts: list[str], *more: str, **options: Any) -> CommandResult:
    (folder / "b.txt").write_text("\n".join(prompts))
    return run_command(folder, "batch", "b.txt", "--provider", provider, "--base-url", url, *SWIFT, *more, **options)


@contextlib.contextmanager
def patience(paid: aiohttp.ClientTimeout) -> Iterator[None]:
    """No option says how long an answer to a submission is waited for: the transport's default is another one."""
    create = AiohttpTransport.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(create, "__kwdefaults__", {**(create.__kwdefaults__ or {}), "paid_timeout": paid})
        yield


# -- what was sent ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "row"),
    [pytest.param(group, row, id=f"{row.name}-{group.provider}") for group in GROUPS for row in group.rows],
)
def test_a_submission_ends_as_its_row_says(group: Group, row: VerdictRow, run_of: Run) -> None:
    """Its status, the exit code and the POSTs that arrived are those of the verdict; a doubt is told by its key."""
    ended, expected = run_of(group), group.ending
    record = ended.records[prompt(row)]
    assert (record["status"], ended.ran.code) == (expected.status, expected.code), record
    assert ended.gateway.posts[prompt(row)] == expected.posts
    assert ended.gateway.accepted[prompt(row)] == expected.posts - 1
    assert (record["task_id"] is not None) == (expected.status == "succeeded")
    told = [line for line in ended.ran.err.splitlines() if record["key"] in line]
    assert bool(told) == (expected.status in {"unknown", "rejected"})


@pytest.mark.parametrize(
    "group", [pytest.param(group, id=f"{group.rows[0].name}-{group.provider}") for group in GROUPS]
)
def test_the_rest_of_a_batch_goes_on_unless_the_account_or_the_address_is_at_fault(group: Group, run_of: Run) -> None:
    """A bystander succeeds with one POST, or stays planned and nothing was sent for it; nothing is sent unasked."""
    ended = run_of(group)
    assert set(ended.gateway.posts) | {BYSTANDER} == {*map(prompt, group.rows), BYSTANDER}
    if BYSTANDER in group.prompts:
        status, posts = ("planned", 0) if group.ending.stops else ("succeeded", 1)
        assert (ended.records[BYSTANDER]["status"], ended.gateway.posts[BYSTANDER]) == (status, posts)
    doubts = [record for record in ended.records.values() if record["status"] == "unknown"]
    assert len(doubts) == (len(group.rows) if group.ending.status == "unknown" else 0)


# -- what was not sent -----------------------------------------------------------------------------------------------


@attrs.frozen
class Trouble:
    """Why a connection does not stand: the base URL to ask, other options, who serves once it does, and how it mends."""

    url: str
    server: FaultGateway
    heal: Callable[[], None]
    options: tuple[str, ...] = ()


Make = Callable[[str, ServerThread, contextlib.ExitStack, pytest.MonkeyPatch], Trouble]


def _refused(
    provider: str, elsewhere: ServerThread, stack: contextlib.ExitStack, _patch: pytest.MonkeyPatch
) -> Trouble:
    server = FaultGateway(provider, port=free_port())
    return Trouble(server.url, server, lambda: stack.enter_context(elsewhere.serving(server)))


def _no_such_host(
    provider: str, elsewhere: ServerThread, stack: contextlib.ExitStack, patch: pytest.MonkeyPatch
) -> Trouble:
    server = FaultGateway(provider)
    stack.enter_context(elsewhere.serving(server))
    names: dict[str, str] = {}
    patch.setattr("aiohttp.connector.DefaultResolver", lambda **_: Names(names))
    return Trouble(
        f"http://gateway.invalid:{server.port}", server, lambda: names.update({"gateway.invalid": "127.0.0.1"})
    )


def _deaf(provider: str, elsewhere: ServerThread, stack: contextlib.ExitStack, _patch: pytest.MonkeyPatch) -> Trouble:
    stack.enter_context(patience(aiohttp.ClientTimeout(total=10, sock_connect=0.2)))
    nobody = deaf()
    url = elsewhere.run(nobody.__aenter__())
    server = FaultGateway(provider, port=int(url.rpartition(":")[2]))

    def heal() -> None:
        elsewhere.run(nobody.__aexit__(None, None, None))
        stack.enter_context(elsewhere.serving(server))

    return Trouble(url, server, heal)


def _handshake(how: Any) -> Make:
    """The first server ends, or resets, every connection before TLS; the second is as it should be."""

    def make(provider: str, elsewhere: ServerThread, stack: contextlib.ExitStack, patch: pytest.MonkeyPatch) -> Trouble:
        patch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting_context())
        stack.enter_context(patience(aiohttp.ClientTimeout(total=10, sock_connect=0.2 if how == "stall" else 5)))
        broken = Raw()
        broken.greetings.extend([how] * 9)
        elsewhere.run(broken.__aenter__())
        server = FaultGateway(provider, tls=True, port=broken.port)

        def heal() -> None:
            elsewhere.run(broken.__aexit__())
            stack.enter_context(elsewhere.serving(server))

        return Trouble(server.url, server, heal)

    return make


def _no_tls(provider: str, elsewhere: ServerThread, stack: contextlib.ExitStack, patch: pytest.MonkeyPatch) -> Trouble:
    patch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting_context())
    plain = elsewhere.run(asyncio.start_server(_speak_http, "127.0.0.1", 0))
    server = FaultGateway(provider, tls=True, port=plain.sockets[0].getsockname()[1])

    async def end() -> None:
        plain.close()
        await plain.wait_closed()

    def heal() -> None:
        elsewhere.run(end())
        stack.enter_context(elsewhere.serving(server))

    return Trouble(server.url, server, heal)


async def _speak_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\nThis is an HTTP server")
    writer.close()


def _no_proxy(
    provider: str, elsewhere: ServerThread, stack: contextlib.ExitStack, _patch: pytest.MonkeyPatch
) -> Trouble:
    proxy = FaultGateway(provider, port=free_port())
    heal = lambda: stack.enter_context(elsewhere.serving(proxy))  # noqa: E731
    return Trouble("http://gateway.invalid", proxy, heal, ("--proxy", proxy.url))


def _no_tunnel(status: int) -> Make:
    def make(provider: str, elsewhere: ServerThread, stack: contextlib.ExitStack, patch: pytest.MonkeyPatch) -> Trouble:
        patch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting_context())
        proxy, server = Raw(), FaultGateway(provider, tls=True)
        proxy.connect_acts.append(Act(answer(status), "fin"))
        stack.enter_context(elsewhere.serving(proxy, server))
        return Trouble(server.url, server, lambda: None, ("--proxy", proxy.url))

    return make


class Names(aiohttp.abc.AbstractResolver):
    """A resolver that knows the names of a table."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[Any]:
        if host not in self._names:
            raise OSError(None, "Name or service not known")
        address = self._names[host]
        return [{"hostname": host, "host": address, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


NOT_SENT: dict[str, Make] = {
    "refused": _refused,
    "no such host": _no_such_host,
    "connect timeout": _deaf,
    "TLS handshake reset": _handshake("rst"),
    "TLS handshake ended": _handshake("fin"),
    "TLS handshake stalls": _handshake("stall"),
    "no TLS": _no_tls,
    "proxy refused": _no_proxy,
    "proxy has no way": _no_tunnel(502),
    "proxy wants a password": _no_tunnel(407),
}
#: Each takes a quarter of a second: the dialects in turn, both for the first.
UNSENT = [("refused", PROVIDERS[1]), *zip(NOT_SENT, itertools.cycle(PROVIDERS), strict=False)]


@pytest.mark.parametrize(("name", "provider"), [pytest.param(*cell, id="-".join(cell)) for cell in UNSENT])
def test_what_was_not_sent_is_sent_once_it_can_be(
    name: str, provider: str, elsewhere: ServerThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 0: it was tried again, one POST arrived, it was accepted, and nothing is in doubt."""
    with contextlib.ExitStack() as stack:
        trouble = NOT_SENT[name](provider, elsewhere, stack, monkeypatch)
        more = (*trouble.options, "--log-level", "debug")
        word = SubmitVerdict.NOT_SENT.value
        ran = _batch(tmp_path, provider, trouble.url, ["a cat"], *more, word=word, on=trouble.heal)
    [record] = results_by_prompt(tmp_path / "out").values()
    assert word in ran.err
    assert (ran.code, record["status"], record["error"]) == (0, "succeeded", None)
    assert trouble.server.posts == trouble.server.accepted == Counter({"a cat": 1})


@pytest.mark.parametrize("host", ["127.0.0.1", "gateway.invalid"])
def test_a_gateway_that_stays_away_leaves_every_job_planned(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused or not found: exit code 1, and neither a doubt nor a refusal is told of a job."""
    monkeypatch.setattr("aiohttp.connector.DefaultResolver", lambda **_: Names({}))
    ran = _batch(tmp_path, "native", f"http://{host}:{free_port()}", ["one", "two"])
    assert (ran.code, [record["status"] for record in results_by_prompt(tmp_path / "out").values()]) == (
        1,
        ["planned"] * 2,
    )
    assert "2 planned" in ran.err


CERTIFICATES = {
    "nobody vouches": "127.0.0.1",
    "another name": "gateway.invalid",
}


@pytest.mark.parametrize("case", CERTIFICATES)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_certificate_that_is_not_right_gets_nothing(
    case: str, provider: str, elsewhere: ServerThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 3, every job stays planned, and not a byte of a request arrived."""
    monkeypatch.setattr("aiohttp.connector.DefaultResolver", lambda **_: Names({"gateway.invalid": "127.0.0.1"}))
    if case == "another name":
        monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting_context())
    server = FaultGateway(provider, tls=True)
    with elsewhere.serving(server):
        ran = _batch(tmp_path, provider, f"https://{CERTIFICATES[case]}:{server.port}", ["one", "two"])
    assert (ran.code, server.seen, "certificate" in ran.err) == (3, [], True)
    assert [record["status"] for record in results_by_prompt(tmp_path / "out").values()] == ["planned"] * 2


# -- polls -----------------------------------------------------------------------------------------------------------

#: What the first look at a task meets. Whatever it is, the next one may find the video.
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
#: These break below what a dialect says: one dialect each, in turn.
BELOW = list(POLLS)[: list(POLLS).index("408")]


def _looks(provider: str) -> list[list[str]]:
    """The rows of one provider in five batches: not many more in a row fail than what holds all looks back."""
    names = [name for name in POLLS if name not in BELOW or BELOW.index(name) % 2 == PROVIDERS.index(provider)]
    return [names[number::5] for number in range(5)]


@attrs.frozen
class Looked:
    """One batch: its exit code, its lines by prompt, and how the emulator counted."""

    code: int
    records: dict[str, dict[str, Any]]
    emulator: Emulator


Looks = Callable[[str, int], Looked]


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory: pytest.TempPathFactory) -> Looks:
    """The batch of some rows, run when the first of them is looked at."""
    done: dict[tuple[str, int], Looked] = {}

    def of(provider: str, number: int) -> Looked:
        if (provider, number) not in done:
            done[provider, number] = _poll(provider, _looks(provider)[number], tmp_path_factory.mktemp("polls"))
        return done[provider, number]

    return of


def _poll(provider: str, names: list[str], folder: Path) -> Looked:
    rules = [{"on": "feed", "prompt": f"[{name}]", "per": "task", "nth": 1, "do": POLLS[name]} for name in names]
    with serving_emulator(rules) as emulator:
        ran = _batch(folder, provider, emulator.base_url(provider), [f"[{name}]" for name in names])
        return Looked(ran.code, results_by_prompt(folder / "out"), emulator)


@pytest.mark.parametrize(
    ("provider", "number", "name"),
    [
        pytest.param(provider, number, name, id=f"{name}-{provider}")
        for provider in PROVIDERS
        for number, names in enumerate(_looks(provider))
        for name in names
    ],
)
def test_a_look_that_fails_is_repeated(provider: str, number: int, name: str, looked_at: Looks) -> None:
    """The job succeeds once the trouble has passed, without a word about it, and was charged once."""
    looked = looked_at(provider, number)
    record = looked.records[f"[{name}]"]
    assert (looked.code, record["status"], record["error"]) == (0, "succeeded", None)
    [charge] = [charge for charge in looked.emulator.ledger if charge.prompt == f"[{name}]"]
    assert charge.task_id == record["task_id"]
    assert looked.emulator.polls.of(charge.task_id) >= (1 if name in READABLE else 2)


#: What may be read all the same.
READABLE = {"bom", "wrong-type", "late"}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_provider_that_is_down_costs_time_and_nothing_else(provider: str, tmp_path: Path) -> None:
    """Forty tasks whose looks all fail for a while: no storm of looks, each succeeds afterwards, one charge each."""
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
def test_a_look_that_is_refused_parks_what_is_paid(provider: str, status: int, tmp_path: Path) -> None:
    """Exit code 3: nothing more is sent, no job fails, and every accepted one keeps its task id."""
    rules = [{"on": "feed", "do": {"fault": "answer", "status": status, "body": {"error": {"message": "no"}}}}]
    with serving_emulator(rules) as emulator:
        url = emulator.base_url(provider)
        ran = _batch(tmp_path, provider, url, ["one", "two", "three"], "--max-in-flight", "1")
        records = results_by_prompt(tmp_path / "out")
        assert (ran.code, {record["status"] for record in records.values()} & {"failed", "unknown"}) == (3, set())
        ours = {record["task_id"] for record in records.values()} - {None}
        assert ours == {charge.task_id for charge in emulator.ledger}
        assert len(ours) < 3
