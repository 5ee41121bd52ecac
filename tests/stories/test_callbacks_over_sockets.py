"""What callbacks promise, with a client, its own receiver and an emulator that calls back, over sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from statistics import mean
from typing import Any
from urllib.parse import urlsplit

import attrs
import pytest

from pika_async import (
    AdaptivePolling,
    CallbackReceiver,
    FixedInterval,
    JobStatus,
    PikaClient,
    SubmissionInDoubt,
)
from pika_async._http import callback_server as server
from pika_async._planning.callback_tracker import MIN_POLL_SPACING_S
from pika_async.emulator import Emulator, Scenario
from tests.fakes.callback_delivery import callback_urls
from tests.fakes.raw_server import free_port
from tests.fakes.receivers import close_writer, post, send_raw, status_of

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

S = JobStatus
LOST = {"on": "callback", "share": 1.0, "do": "lost"}


@pytest.fixture(autouse=True)
def _same_chance() -> None:
    random.seed(7)


@contextlib.asynccontextmanager
async def connected(
    script: list[dict[str, Any]], *, listens: bool = True, durations: str = "lognormal:1,0.3", seed: int = 0, **options: Any
) -> AsyncIterator[tuple[PikaClient, Emulator, CallbackReceiver]]:  # fmt: skip
    """A client of an emulator that calls its receiver back, or does not."""
    port = free_port()
    receiver = CallbackReceiver(f"http://127.0.0.1:{port}/pika", port=port)
    scenario = Scenario.of(script) if script else None
    async with (
        Emulator(render=False, durations=durations, seed=seed, scenario=scenario) as emulator,
        PikaClient(
            "cometapi", api_key=emulator.api_key, base_url=emulator.base_url("cometapi"),
            callbacks=receiver if listens else None, **options,
        ) as pika,
    ):  # fmt: skip
        yield pika, emulator, receiver


@attrs.frozen
class Seen:
    """The outcome of a batch: polls per job, seconds from settled to yielded, statuses."""

    polls: float
    delay: float
    statuses: Counter[JobStatus]


async def batch(count: int, script: list[dict[str, Any]], *, earlier: int = 0, **options: Any) -> Seen:
    """`count` jobs at once, after `earlier` ones."""
    delays, polls, statuses = [], [], Counter[JobStatus]()
    async with connected(script, **options) as (pika, emulator, _):
        began = emulator._started
        assert (await pika.run(f"earlier {number}" for number in range(earlier))).ok
        async for job in pika.as_settled(f"prompt {number}" for number in range(count)):
            delays.append(time.monotonic() - began - emulator.gateway.tasks[str(job.task_id)].settles_at)
            polls.append(job.polls)
            statuses[job.status] += 1
        charged = Counter(charge.prompt for charge in emulator.ledger)
        assert len(charged) == count + earlier
        assert set(charged.values()) == {1}
    return Seen(mean(polls), mean(delays), statuses)


async def test_one_poll_a_job_and_hardly_a_delay() -> None:
    """A batch takes about one poll per job; the bounds are for a busy machine, the benchmark has the figures."""
    result = await batch(100, [])
    assert result.statuses == {S.SUCCEEDED: 100}
    assert result.polls < 2, "without callbacks it takes five polls and more"
    assert result.delay < 2, "without its callback a job is polled seconds after it settled"


async def test_with_a_third_lost_all_settle_as_soon_as_with_polls_alone() -> None:
    """The same policy on the same durations, with callbacks of which 30 % never come, and without any.

    After an earlier batch, of which it was learned that so many are lost.
    """
    lossy = [{"on": "callback", "share": 0.3, "do": "lost"}]

    def policy() -> AdaptivePolling:
        return AdaptivePolling(expected_seconds=1.5)

    result, alone = await asyncio.gather(
        batch(100, lossy, earlier=150, durations="lognormal:1.5,0.5", polling=policy()),
        batch(100, [], earlier=150, durations="lognormal:1.5,0.5", polling=policy(), listens=False),
    )
    assert result.statuses == alone.statuses == {S.SUCCEEDED: 100}
    assert result.delay < 3 * alone.delay + 0.5, "the polls do not make up for the lost callbacks"


async def send(port: int, request: bytes) -> int | None:
    """The status of the answer, or None if there was none."""
    try:
        return status_of(await send_raw(port, request))
    except ConnectionError:
        return None


async def test_a_thousand_bad_callbacks_settle_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forged, replayed, malformed, too long and too slow: at most one poll per job and interval, and genuine ones are
    answered all the while."""
    monkeypatch.setattr(server, "CONNECTION_TIMEOUT_S", 1.0)
    async with connected([LOST], durations="constant:3", polling=FixedInterval(600)) as (pika, emulator, receiver):
        jobs = [await pika.submit(f"prompt {number}") for number in range(4)]
        port, began = receiver.port, time.monotonic()
        assert port is not None
        paths = [urlsplit(url).path for url in callback_urls(emulator.gateway).values()]
        settle_times = [emulator.gateway.tasks[str(job.task_id)].settles_at for job in jobs]

        def emulator_time() -> float:
            return time.monotonic() - emulator._started

        slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(30)]
        for _, writer in slow:
            writer.write(post(paths[0], b"", "Content-Length: 10"))
        said = {
            "settled": [json.dumps({"task_id": job.task_id, "status": "3", "video_url": "http://10.0.0.1/"}) for job in jobs],
            "of another": [json.dumps({"task_id": "no-such", "status": "2"})],
            "malformed": ["", "{", "[1]", "\0", "[" * 9000],
        }  # fmt: skip
        bodies = [body.encode() for kind in said.values() for body in kind]
        requests = [
            [
                (202, post(paths[number % 4], bodies[number % len(bodies)])),
                (404, post(paths[number % 4][:-4] + f"{number % 999:03}A", bodies[number % len(bodies)])),
                (404, post(paths[number % 4], b"x" * 70_000)),
                (None, b"POST " + bodies[number % len(bodies)] + b"\r\n\r\n"),
            ][number % 4 if number % 20 < 4 else number % 2]
            for number in range(1000)
        ]
        for start in range(0, 1000, 50):
            answers = await asyncio.gather(*(send(port, request) for _, request in requests[start : start + 50]))
            for (status, _), answer in zip(requests[start : start + 50], answers, strict=True):
                assert answer == status or (status != 202 and answer in {404, None})
            asked = (time.monotonic() - began) / MIN_POLL_SPACING_S + 1
            assert all(emulator.polls.of(str(job.task_id)) <= asked for job in jobs)
            statuses = {job.status for job in await pika.jobs()}
            if emulator_time() < min(settle_times):
                assert statuses <= {S.QUEUED, S.RUNNING}
        while emulator_time() <= max(settle_times):
            await asyncio.sleep(0.05)
        assert [await send(port, post(path)) for path in paths] == [202] * 4
        done = [await pika.wait(job, timeout=30) for job in jobs]
        assert {job.status for job in done} == {S.SUCCEEDED}
        assert all("10.0.0.1" not in str(job.video) for job in done)
        for reader, writer in slow:
            assert await reader.read() == b""
            await close_writer(writer)
        assert receiver.cut >= 30


async def test_lost_answers_are_reconciled_by_callbacks() -> None:
    """Every other answer is lost: each job succeeds, none is paid twice, no person has to resolve one."""
    async with connected([{"on": "create", "every": 2, "do": "drop"}]) as (pika, emulator, receiver):
        report = await pika.run(f"prompt {number}" for number in range(20))
        assert report.counts == {S.SUCCEEDED: 20}
        assert all(job.attempts == 1 for job in report.jobs)
        await pika.submit("the 21st")
        with pytest.raises(SubmissionInDoubt):
            await pika.submit("the 22nd")
        job = await pika.wait((await pika.jobs())[-1], timeout=30)
        assert job.status is S.SUCCEEDED
        assert set(Counter(charge.prompt for charge in emulator.ledger).values()) == {1}
        assert receiver.received >= 21
