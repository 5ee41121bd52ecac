"""Whole calls that fail: what the error says of the money, of another attempt and of the kind, also from a journal."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path
from typing import Any

import pytest

from pika_async import (
    ClientNotOpen,
    DownloadFailed,
    ErrorKind,
    FixedInterval,
    GenerationRequest,
    JobCanceled,
    Limits,
    PikaError,
    WrongEventLoop,
)
from pika_async._http.download_state import AbortDownload, DownloadState, RetryDownload
from pika_async._http.downloads import _classify_error
from pika_async.emulator import Gateway
from tests.fakes import virtual_clock
from tests.fakes.memory_gateway import client, gateway

CAT = GenerationRequest("a cat", key="cat")
#: Facts of an error: its type, whether it was charged, whether it can be tried again, its kind.
Facts = tuple[str, bool | None, bool, ErrorKind]


def facts_of(error: PikaError | None) -> Facts | None:
    return None if error is None else (error.type, error.charged, error.retryable, error.kind)


def outcome(at: Gateway, provider: str = "cometapi", **options: Any) -> Facts | None:
    """Return the facts of the error with which one generation ends."""

    async def story() -> PikaError | None:
        try:
            async with client(at, provider, **options) as pika:
                await pika.generate(CAT)
        except PikaError as error:
            return error
        return None

    return facts_of(virtual_clock.run(story()))


def fails(reason: str) -> list[dict[str, Any]]:
    return [{"on": "create", "do": {"fault": "fails", "reason": reason}}]


def refuses(status: int, body: str) -> list[dict[str, Any]]:
    return [{"on": "create", "do": {"fault": "answer", "status": status, "body": body}}]


@pytest.mark.parametrize(
    ["reason", "kind", "retryable"],
    [
        ("content_moderation: the prompt was refused", "moderation", False),
        ("Content moderation refused the prompt", "moderation", False),
        ("provider_timeout", "timeout", True),
        ("the provider error is not ours", "provider", True),
        ("something went wrong in task 500", "other", False),
    ],
)
@pytest.mark.parametrize("provider", ["cometapi", "native"])
def test_a_failed_generation_has_the_kind_of_its_words(
    provider: str, reason: str, kind: ErrorKind, retryable: bool
) -> None:
    """Where the wire has points, these say whether it stays charged; elsewhere that is unknown."""
    charged = False if provider == "cometapi" else None
    assert outcome(gateway(fails(reason)), provider) == ("GenerationFailed", charged, retryable, kind)


def test_a_failed_generation_that_keeps_its_points_is_charged() -> None:
    """The feed states points and no refund."""
    body = '{"code":200,"data":{"status":"2","state":"error","msg":"internal","point":"400","refund":"0"}}'
    at = gateway([{"on": "feed", "do": {"fault": "answer", "body": body}}])
    assert outcome(at) == ("GenerationFailed", True, False, "other")


@pytest.mark.parametrize(
    ["status", "body", "facts"],
    [
        (400, '{"error":{"code":"content_policy_violation","message":"no"}}', ("SubmissionRejected", False, False, "moderation")),
        (400, '{"error":{"message":"sensitive words detected"}}', ("SubmissionRejected", False, False, "moderation")),
        (422, '{"message":"no"}', ("SubmissionRejected", False, False, "invalid")),
        (409, '{"message":"no"}', ("SubmissionRejected", False, False, "other")),
        (403, '{"error":{"code":"insufficient_user_quota"}}', ("AccountStopped", False, False, "balance")),
        (402, '{"message":"pay"}', ("AccountStopped", False, False, "balance")),
        (401, '{"message":"who?"}', ("AccountStopped", False, False, "invalid")),
        (403, '{"message":"no"}', ("AccountStopped", False, False, "other")),
        (500, '{"message":"oops"}', ("SubmissionInDoubt", None, False, "provider")),
        (504, "", ("SubmissionInDoubt", None, False, "timeout")),
        (200, "{}", ("SubmissionInDoubt", None, False, "other")),
        (404, "<html>", ("WrongBaseUrl", False, False, "invalid")),
        (429, "", ("ProviderBusy", False, True, "provider")),
    ],
)  # fmt: skip
def test_a_refused_submission_has_the_kind_of_its_answer(status: int, body: str, facts: Facts) -> None:
    """The code decides, then the words, then the status."""
    assert outcome(gateway(refuses(status, body)), limits=Limits(patience=5)) == facts


def test_a_lost_answer_is_a_doubt_of_the_network() -> None:
    """It was sent, and whether it was charged is not known."""
    at = gateway([{"on": "create", "do": "drop"}])
    assert outcome(at) == ("SubmissionInDoubt", None, False, "network")


def test_the_facts_of_an_error_survive_the_journal_and_pickling(tmp_path: Path) -> None:
    """The next process reads them from the job."""
    at = gateway(fails("content_moderation"), durations="constant:0.01")

    async def story(run: bool) -> PikaError | None:
        async with client(at, journal=tmp_path / "j.db", polling=FixedInterval(0.01)) as pika:
            job = (await pika.run([CAT])).jobs[0] if run else await pika.job("cat")
            return None if job is None else job.error

    first, second = (asyncio.run(story(run)) for run in (True, False))
    expected = ("GenerationFailed", False, False, "moderation")
    assert [facts_of(error) for error in (first, second)] == [expected, expected]
    assert second is not None
    assert facts_of(pickle.loads(pickle.dumps(second))) == facts_of(second.copy()) == expected


def test_a_poll_without_an_answer_may_be_repeated() -> None:
    """The task was accepted, and a poll costs nothing."""
    answers: list[Any] = ["drop", {"fault": "answer", "status": 502}, {"fault": "answer", "status": 402}]
    at = gateway([{"on": "feed", "nth": 1, "do": do} for do in answers])

    async def story() -> list[Facts | None]:
        found = []
        async with client(at, polling=FixedInterval(1000)) as pika:
            job = await pika.submit(CAT)
            for _ in answers:
                with pytest.raises(PikaError) as caught:
                    await pika.poll(job)
                found.append(facts_of(caught.value))
        return found

    assert virtual_clock.run(story()) == [
        ("ExchangeFailed", True, True, "network"),
        ("ExchangeFailed", True, True, "provider"),
        ("AccountStopped", True, False, "balance"),
    ]


def test_a_deadline_is_a_charged_timeout() -> None:
    """The job was accepted: sending it again would pay twice."""
    assert outcome(gateway(), deadline=5) == ("DeadlineExceeded", True, False, "timeout")


def test_an_abandoned_doubt_is_not_known_to_be_free() -> None:
    """A job that was withdrawn before it was sent is."""
    at = gateway([{"on": "create", "do": "drop"}])

    async def story() -> Facts | None:
        async with client(at) as pika:
            await pika.run([CAT])
            return facts_of((await pika.resolve("cat", abandon=True)).error)

    assert virtual_clock.run(story()) == ("JobCanceled", None, False, "other")
    assert JobCanceled(key="k", provider="p").charged is False


@pytest.mark.parametrize(
    ["status", "signal", "kind"],
    [(500, RetryDownload, "provider"), (410, AbortDownload, "provider"), (418, AbortDownload, "provider")],
)
def test_a_refused_download_is_the_providers(status: int, signal: type[Exception], kind: ErrorKind) -> None:
    """A host that answers an error has the fault."""
    with pytest.raises(signal) as caught:
        DownloadState(1).on_response(status, {}, source="", length=None, range_requested=False, now=0)
    assert caught.value.kind == kind  # type: ignore[attr-defined]


def test_a_broken_download_is_of_the_network() -> None:
    """A host that does not answer in time has a kind of its own; what this machine refuses is of no kind."""
    assert _classify_error(ConnectionResetError()).kind == "network"
    assert _classify_error(TimeoutError()).kind == "timeout"
    assert [
        DownloadFailed(url="u", reason="r", kind=kind).retryable for kind in ("network", "timeout", "other")
    ] == [True, True, False]  # fmt: skip


def test_misuse_that_a_service_may_catch_is_in_the_tree() -> None:
    """A client that is not open and another event loop are errors of pika_async and RuntimeErrors at once."""
    for error in (ClientNotOpen(), WrongEventLoop(reason="r")):
        assert isinstance(error, PikaError)
        assert isinstance(error, RuntimeError)
        assert facts_of(error) == (error.type, False, False, "other")


def test_closing_in_another_loop_is_an_error_of_the_tree() -> None:
    """The client stays open in its own loop."""

    async def story() -> None:
        pika = client(gateway())
        async with pika:
            with pytest.raises(WrongEventLoop):
                await asyncio.to_thread(asyncio.run, pika.aclose())
            assert (await pika.submit("a cat")).task_id
        with pytest.raises(ClientNotOpen):
            await pika.submit("a cat")

    asyncio.run(story())
