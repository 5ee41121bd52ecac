"""Stories of a gateway that is down for some minutes of a long batch over two accounts, and gets jobs again."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pika_async import Account, BatchReport, FixedInterval, Job, JobStatus, Limits, PikaClient, ProviderUnreachable
from pika_async._planning.reopenings import REOPEN_WAITS_S, trial_setting
from pika_async.emulator import Gateway
from pika_async.providers._wire import HttpRequest, HttpResponse, SendPhase, TransportFailure
from tests.fakes import virtual_clock
from tests.fakes.journals import write_in_loop_time
from tests.fakes.memory_gateway import ORIGIN, MemoryTransport, gateway, now, requests, until

S = JobStatus
#: When the gateway is down, in seconds after the start.
DOWN = (100.0, 300.0)


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    random.seed(5)


class Outage(MemoryTransport):
    """Gateways in memory, of which cometapi cannot be reached for some time, or cuts off submissions and polls."""

    def __init__(self, at: Gateway, *, sent: bool) -> None:
        super().__init__(at)
        self.phase = SendPhase.SENT if sent else SendPhase.UNSENT
        #: When cometapi was sent a submission while it was down.
        self.failed: list[float] = []
        #: When cometapi answered submissions.
        self.answered: list[float] = []

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        if "/cometapi/" not in request.url:
            return await super().send(request)
        is_submission = "generate" in request.url
        if DOWN[0] <= now() < DOWN[1]:
            self.failed += [now()] * is_submission
            return TransportFailure(phase=self.phase, kind="disconnected", detail="no answer")
        self.answered += [now()] * is_submission
        return await super().send(request)


def client(transport: MemoryTransport, **options: Any) -> PikaClient:
    """Return a client that sends one job in four seconds, so that its accounts have room while one is down."""
    accounts = [Account(name, base_url=f"{ORIGIN}/{name}", max_in_flight=30) for name in ("cometapi", "gptge")]
    limits = Limits(submits_per_second=0.25)
    return PikaClient(
        accounts, transport=transport, deadline=2000.0, polling=FixedInterval(5.0), limits=limits, **options
    )


@pytest.mark.parametrize("sent", [False, True])
def test_a_gateway_that_was_down_gets_jobs_again(sent: bool, caplog: pytest.LogCaptureFixture) -> None:
    at = gateway()
    transport = Outage(at, sent=sent)

    async def main() -> BatchReport:
        async with client(transport) as pika:
            report = await pika.run(requests(200))
            account = pika.stats().accounts["cometapi"]
            assert (account.stopped, account.trial_in) == (None, None)
            return report

    with caplog.at_level(logging.WARNING):
        report = virtual_clock.run(main())
    doubts = len(transport.failed) if sent else 0
    assert (report.counts[S.SUCCEEDED], report.counts.get(S.UNKNOWN, 0)) == (200 - doubts, doubts)
    assert max(Counter(charge.prompt for charge in at.ledger).values()) == 1
    again = [when for when in transport.answered if when >= DOWN[1]]
    assert DOWN[1] <= again[0] < DOWN[1] + 1.25 * (REOPEN_WAITS_S[0] + REOPEN_WAITS_S[1])
    assert len(again) > 20
    stops = [each.message for each in caplog.records if "(tried again with one job in " in each.message]
    assert stops
    assert all(message.startswith("cometapi: ") for message in stops)


def test_a_single_account_that_is_down_ends_its_batch() -> None:
    transport = Outage(gateway(), sent=False)

    async def main() -> list[Job]:
        account = Account("cometapi", base_url=f"{ORIGIN}/cometapi", max_in_flight=30)
        limits = Limits(submits_per_second=0.25)
        async with PikaClient([account], transport=transport, polling=FixedInterval(5.0), limits=limits) as pika:
            with pytest.raises(ProviderUnreachable):
                async for _ in pika.as_settled(requests(60)):
                    pass
            assert pika.stats().accounts["cometapi"].trial_in is None
            return list(await pika.jobs(S.PLANNED))

    assert virtual_clock.run(main())
    assert max(transport.failed) < DOWN[0] + 90.0


def test_the_journal_and_the_statistics_have_the_time_of_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal's note is that of `status`; both end with the first job that is accepted."""
    write_in_loop_time(monkeypatch)
    transport = Outage(gateway(), sent=False)

    async def main() -> None:
        async with client(transport, journal=tmp_path / "j.db") as pika:

            def note() -> Any:
                return pika._journal.get_setting(trial_setting("cometapi"))

            task = asyncio.ensure_future(pika.run(requests(160)))
            await until(lambda: pika.stats().accounts["cometapi"].stopped is not None)
            trial_in = pika.stats().accounts["cometapi"].trial_in
            assert trial_in is not None
            assert 44 < trial_in <= 75
            assert pika.stats().accounts["gptge"].trial_in is None
            await until(lambda: note() is not None)
            assert "cannot be reached" in note()["reason"]
            await until(lambda: now() > DOWN[1] and pika.stats().accounts["cometapi"].trial_in is None)
            await until(lambda: note() is None)
            await task

    virtual_clock.run(main())
