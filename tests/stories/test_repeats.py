"""Stories of answers that are lost at a gateway with idempotency keys: they are asked for again, and nothing is doubted."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Self

import attrs
import pytest

from pika_async import FixedInterval, JobStatus, PikaClient, SubmissionInDoubt
from pika_async._planning.repeats import MAX_REPEATS, is_within_window, repeat_delay
from pika_async._runtime import repeater
from pika_async.emulator import Gateway
from pika_async.providers import PROVIDERS
from pika_async.providers._verdicts import SubmitOutcome, SubmitVerdict
from pika_async.providers._wire import HttpRequest, HttpResponse, SendPhase, TransportFailure
from tests.fakes import virtual_clock
from tests.fakes.journals import write_in_loop_time
from tests.fakes.memory_gateway import MemoryTransport, client, gateway, prompts

S = JobStatus
LOST = {
    "cut": "drop",
    "time-out": {"fault": "stall", "seconds": 200},
    "bad gateway": {"fault": "status", "status": 502},
}


@pytest.fixture(autouse=True)
def journal_in_loop_time(monkeypatch: pytest.MonkeyPatch) -> None:
    write_in_loop_time(monkeypatch)


class Watched(MemoryTransport):
    """Transport that keeps the submissions, and loses the answers to the first of each."""

    def __init__(self, gateway: Gateway, *, lost: int = 0) -> None:
        super().__init__(gateway)
        self.lost = lost
        self.submissions: list[HttpRequest] = []

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        answer = await super().send(request)
        if request.paid:
            self.submissions.append(request)
            if self.lost:
                self.lost -= 1
                return TransportFailure(phase=SendPhase.SENT, kind="disconnected", detail="the connection was closed")
        return answer


class Stuck(Watched):
    """Transport that delivers the first submission, and no answer at all."""

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        if request.paid and self.submissions:
            return TransportFailure(phase=SendPhase.SENT, kind="disconnected", detail="the connection was closed")
        self.lost = 1
        return await super().send(request)


def pika(at: Gateway, provider: str = "pika", **options: Any) -> PikaClient:
    return client(at, provider, polling=FixedInterval(20.0), **options)


def charges(at: Gateway) -> Counter[str]:
    return Counter(charge.prompt for charge in at.ledger)


@pytest.mark.parametrize("fault", ["cut", "time-out"])
def test_lost_answers_are_asked_for_again(fault: str) -> None:
    """With every second answer lost every job succeeds, is charged once, and none is in doubt."""
    at = gateway([{"on": "create", "every": 2, "do": LOST[fault]}])

    async def story() -> None:
        async with pika(at) as it:
            report = await it.run(prompts(40))
            assert report.counts == {S.SUCCEEDED: 40}
            assert {job.attempts for job in report.jobs} == {1}
            assert it.stats().charges == 40

    virtual_clock.run(story())
    assert charges(at) == dict.fromkeys(charges(at), 1)
    assert len(at.ledger) == 40


def test_a_repetition_is_the_same_request() -> None:
    """Address, headers and body are those of the first one, and the journal had them before it was sent."""
    at = gateway()
    transport = Watched(at, lost=2)

    async def story() -> None:
        async with pika(at, transport=transport) as it:
            job = await it.submit("a cat")
            assert job.task_id is not None
            intent = it._journal.intent(job.key)
            assert intent is None

    virtual_clock.run(story())
    first, *others = transport.submissions
    assert others == [first, first]
    assert len(at.ledger) == 1


@pytest.mark.parametrize("provider", ["fal", "gptge", "cometapi"])
def test_other_gateways_are_not_asked_again(provider: str) -> None:
    """Without idempotency keys a lost answer is a doubt after one submission, which is not kept."""
    at = gateway()
    transport = Watched(at, lost=1)

    async def story() -> None:
        async with pika(at, provider, transport=transport) as it:
            with pytest.raises(SubmissionInDoubt):
                await it.submit("a cat", key="one")
            assert it._journal.intent("one") is None

    virtual_clock.run(story())
    assert len(transport.submissions) == 1


def test_a_doubt_of_an_earlier_run_is_ended_by_the_next(tmp_path: Path) -> None:
    """The journal keeps the submission of a job in doubt; the same request asks for its answer, and is not charged."""
    at = gateway()
    lossy, sound = Watched(at, lost=1 + MAX_REPEATS), Watched(at)

    async def story() -> None:
        async with pika(at, journal=tmp_path / "j.db", transport=lossy) as it:
            (in_doubt,) = (await it.run(["a cat"])).jobs
            assert in_doubt.status is S.UNKNOWN
            intent = it._journal.intent(in_doubt.key)
            assert intent is not None
            assert intent.repeatable is not None
            assert json.loads(intent.repeatable)["url"] == lossy.submissions[0].url
        async with pika(at, journal=tmp_path / "j.db", transport=sound) as it:
            report = await it.resume()
            assert report.counts == {S.SUCCEEDED: 1}
            assert it.stats().charges == 1
            assert it._journal.intent(in_doubt.key) == attrs.evolve(intent, repeatable=None)

    virtual_clock.run(story())
    assert len(lossy.submissions) == 1 + MAX_REPEATS
    assert sound.submissions == lossy.submissions[:1]
    assert len(at.ledger) == 1


def test_a_submission_that_closing_interrupts_is_repeated_by_the_next_run(tmp_path: Path) -> None:
    """A client that is closed while an answer is outstanding leaves a doubt; the next one gets the answer."""
    at = gateway([{"on": "create", "nth": 1, "do": {"fault": "stall", "seconds": 100}}])

    async def story() -> None:
        async with pika(at, journal=tmp_path / "j.db") as it:
            waiting = asyncio.create_task(it.submit("a cat"))
            while not at.ledger:
                await asyncio.sleep(0.1)
            await it.aclose()
            with pytest.raises(SubmissionInDoubt):
                await waiting
        async with pika(at, journal=tmp_path / "j.db") as it:
            assert (await it.resume()).counts == {S.SUCCEEDED: 1}

    virtual_clock.run(story())
    assert len(at.ledger) == 1


def test_a_doubt_stays_where_the_gateway_tells_nothing() -> None:
    """A repetition that is refused, for whatever reason, says nothing about the first submission."""
    at = gateway([{"on": "create", "nth": 2, "do": {"fault": "refuse", "as": "key"}}])
    transport = Watched(at, lost=1)

    async def story() -> None:
        async with pika(at, transport=transport) as it:
            with pytest.raises(SubmissionInDoubt) as caught:
                await it.submit("a cat")
            assert "closed" in str(caught.value)

    virtual_clock.run(story())
    assert len(transport.submissions) == 2


@pytest.mark.parametrize(
    ("verdict", "facts", "repeats", "waits"),
    [
        (SubmitVerdict.UNKNOWN, {}, 0, True),
        (SubmitVerdict.UNKNOWN, {}, MAX_REPEATS, False),
        (SubmitVerdict.UNKNOWN, {"unreadable": True}, 0, False),
        (SubmitVerdict.ACCEPTED, {"task_id": "t"}, 1, False),
        (SubmitVerdict.STOP, {}, 1, False),
        (SubmitVerdict.WAIT, {"retry_after": 7.0}, 1, True),
        (SubmitVerdict.NOT_SENT, {}, 1, True),
        (SubmitVerdict.REJECTED, {}, 1, True),
    ],
)
def test_what_is_asked_again(verdict: SubmitVerdict, facts: dict[str, Any], repeats: int, waits: bool) -> None:
    """Only what may tell more is asked again, a number of times, after the wait that the gateway asks for."""
    delay = repeat_delay(SubmitOutcome(verdict=verdict, **facts), repeats, 0.5)
    assert (delay is not None) == waits
    assert "retry_after" not in facts or delay == facts["retry_after"]


def test_a_key_is_used_within_its_window() -> None:
    """A day later the gateway would take the same request for a new one, and charge it."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    provider = PROVIDERS["pika"]
    assert is_within_window(provider, at, at + timedelta(hours=23, minutes=54))
    assert not is_within_window(provider, at, at + timedelta(hours=23, minutes=56)), "it may arrive after the window"
    assert not is_within_window(PROVIDERS["fal"], at, at)


def test_a_key_is_not_used_where_the_clock_was_set_back() -> None:
    """By such a clock the submission is not sent yet: any time may have passed since."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert is_within_window(PROVIDERS["pika"], at, at - timedelta(seconds=30))
    assert not is_within_window(PROVIDERS["pika"], at, at - timedelta(hours=1))


class ShiftedClock(datetime):
    """Clock of the repetitions, `later` than that of the intent."""

    later = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls.fromtimestamp(time.time() + cls.later.total_seconds(), tz)


@pytest.mark.parametrize("later", [timedelta(hours=25), timedelta(hours=-2)])
def test_a_doubt_beyond_the_window_is_not_paid_again(
    later: timedelta, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that comes too late for the key, or under a clock that was set back, leaves the doubt to a person."""
    at = gateway()
    at.idempotency_window = 0.0  # it has forgotten the key
    sound = Watched(at)
    monkeypatch.setattr(repeater, "datetime", ShiftedClock)

    async def story() -> None:
        async with pika(at, journal=tmp_path / "j.db", transport=Stuck(at)) as it:
            assert (await it.run(["a cat"])).counts == {S.UNKNOWN: 1}
        monkeypatch.setattr(ShiftedClock, "later", later)
        async with pika(at, journal=tmp_path / "j.db", transport=sound) as it:
            assert (await it.resume()).counts == {S.UNKNOWN: 1}
            assert (await it.run(["a cat"])).counts == {S.UNKNOWN: 1}

    virtual_clock.run(story())
    assert sound.submissions == []
    assert len(at.ledger) == 1


def test_a_machine_that_sleeps_between_two_repetitions_does_not_pay_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait for a repetition is not counted while a machine sleeps; the clock tells how late it is."""
    at = gateway()
    at.idempotency_window = 0.0
    monkeypatch.setattr(repeater, "datetime", ShiftedClock)
    monkeypatch.setattr(ShiftedClock, "later", timedelta(hours=25))
    lossy = Watched(at, lost=1)

    async def story() -> None:
        async with pika(at, transport=lossy) as it:
            with pytest.raises(SubmissionInDoubt):
                await it.submit("a cat")

    virtual_clock.run(story())
    assert len(lossy.submissions) == len(at.ledger) == 1


def test_a_submission_is_not_repeated_with_another_key(tmp_path: Path) -> None:
    """Another API key may be that of another customer, whose submission would be a new one."""
    at = gateway()
    sound = Watched(at)

    def keyed(transport: Watched, key: str) -> PikaClient:
        it = pika(at, journal=tmp_path / "j.db", transport=transport)
        accounts = tuple(attrs.evolve(each, digest=key) for each in it._config.accounts)
        it._config = attrs.evolve(it._config, accounts=accounts)
        return it

    async def story() -> None:
        async with keyed(Stuck(at), "1a2b") as it:
            assert (await it.run(["a cat"])).counts == {S.UNKNOWN: 1}
        async with keyed(sound, "3c4d") as it:
            assert (await it.resume()).counts == {S.UNKNOWN: 1}
            assert sound.submissions == []
        async with keyed(sound, "1a2b") as it:
            assert (await it.resume()).counts == {S.SUCCEEDED: 1}

    virtual_clock.run(story())
    assert len(at.ledger) == 1


def test_nothing_is_repeated_in_a_pause(tmp_path: Path) -> None:
    """A repetition may be the first to arrive, so it waits for the end of a pause as any other submission."""
    at = gateway()
    sound = Watched(at)

    async def story() -> None:
        async with pika(at, journal=tmp_path / "j.db", transport=Watched(at, lost=1 + MAX_REPEATS)) as it:
            await it.run(["a cat"])
        async with pika(at, journal=tmp_path / "j.db", transport=sound) as it:
            it.pause_submitting()
            assert (await it.resume()).counts == {S.UNKNOWN: 1}
            assert sound.submissions == []
            it.resume_submitting()
            assert (await it.resume()).counts == {S.SUCCEEDED: 1}

    virtual_clock.run(story())
    assert len(at.ledger) == 1
