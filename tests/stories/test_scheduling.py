"""Stories of many jobs in virtual time: what is sent, when it is asked for, and how everything ends."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import attrs
import pytest

from pika_async import (
    AccountStopped,
    ChargeLimitReached,
    DeadlineExceeded,
    FixedInterval,
    GenerationFailed,
    GenerationRequest,
    Job,
    JobCanceled,
    JobStatus,
    Limits,
    PikaClient,
    ProviderBusy,
    ProviderUnreachable,
    SubmissionInDoubt,
    WrongBaseUrl,
)
from pika_async._http.answer_timeout import READ_MARGIN_S
from pika_async._planning.limits import MAX_IN_FLIGHT
from pika_async.emulator import Gateway
from pika_async.polling import AdaptivePolling, DurationSample, PollContext, PollingPolicy
from pika_async.providers._wire import HttpRequest, HttpResponse, SendPhase, TransportFailure
from tests.fakes import memory_gateway, virtual_clock
from tests.fakes.callback_delivery import receiver
from tests.fakes.memory_gateway import MemoryTransport, client, gateway, now, prompts

S = JobStatus


@pytest.fixture(autouse=True)
def _same_chance() -> None:
    """The scheduler draws its jitter from the common source: each story runs the same way every time."""
    random.seed(7)


def creates(at: Gateway) -> list[Any]:
    return [seen for seen in at.requests if "generate" in seen.path]


def feeds(at: Gateway) -> list[Any]:
    return [seen for seen in at.requests if "feed" in seen.path]


class Watched(MemoryTransport):
    """A gateway that records the largest number of jobs in flight."""

    def __init__(self, of: Gateway, provider: str = "cometapi", **options: Any) -> None:
        super().__init__(of, **options)
        self.provider = provider
        self.most_in_flight = 0
        self.times: list[float] = []

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        answer = await super().send(request)
        self.times.append(now())
        self.most_in_flight = max(self.most_in_flight, self.gateway.count_in_flight(self.provider, now()))
        return answer


class Unreachable(MemoryTransport):
    """A transport whose connections are refused while `down`."""

    down = True
    tries = 0

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        if not self.down:
            return await super().send(request)
        self.tries += 1
        await asyncio.sleep(0.01)
        return TransportFailure(phase=SendPhase.UNSENT, kind="connect", detail="could not connect")


class Learning(PollingPolicy):
    """A policy that polls every *seconds* and records its samples."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.seen: list[DurationSample] = []

    def next_delay(self, context: PollContext, u: float) -> float:
        return self.seconds

    def observe(self, sample: DurationSample, last_unsettled_age: float | None = None) -> None:
        self.seen.append(sample)


# --- storms -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_half_of_all_answers_429_for_a_while() -> None:
    """500 jobs while half of all creates and polls are refused for five minutes: all succeed, each is charged once."""

    async def story() -> None:
        rules: list[dict[str, Any]] = [
            {"on": on, "between": [0, 300], "share": 0.5, "do": {"fault": "refuse", "as": "rate"}} for on in ("create", "feed")
        ]  # fmt: skip
        at = gateway(rules, durations="lognormal:60,0.5")
        async with client(at) as pika:
            report = await pika.run(prompts(500))
        assert report.counts == {S.SUCCEEDED: 500}
        assert Counter(charge.prompt for charge in at.ledger) == Counter(prompts(500))
        assert len(creates(at)) < 3 * 500

    virtual_clock.run(story())


@pytest.mark.parametrize("do", ["drop", {"fault": "body", "kind": "html"}, {"fault": "answer", "status": 502}], ids=str)
def test_provider_down_for_ten_minutes_with_300_jobs_in_flight(do: Any) -> None:
    """During the outage only a probe is sent now and then; afterwards every job settles."""

    async def story() -> None:
        at = gateway([{"on": "feed", "between": [20, 620], "do": do}], durations="constant:120")
        async with client(at, limits=Limits(max_in_flight=300, submitting=64), deadline=3000) as pika:
            report = await pika.run(prompts(300))
        down = [seen for seen in feeds(at) if 60 <= seen.at < 620]
        assert report.counts == {S.SUCCEEDED: 300}
        assert len(at.ledger) == 300
        assert 5 <= len(down) <= 60
        assert max(job.settled_at for job in report.jobs if job.settled_at)
        assert max(seen.at for seen in feeds(at)) < 620 + 180

    virtual_clock.run(story())


def test_a_provider_that_is_never_reached_stops_the_batch() -> None:
    """When no connection can be made the batch stops after a few tries; all stay planned, proven not sent."""

    async def story() -> None:
        at = gateway()
        transport = Unreachable(at)
        async with client(at, transport=transport) as pika:
            report = await pika.run(prompts(50))
            assert isinstance(report.stopped, ProviderUnreachable)
            assert report.counts == {S.PLANNED: 50}
            assert transport.tries <= 6 * 8
            transport.down = False
            assert (await pika.run(prompts(50))).counts == {S.SUCCEEDED: 50}
        assert len(at.ledger) == 50

    virtual_clock.run(story())


def test_a_short_outage_before_anything_is_sent_is_ridden_out() -> None:
    """Connections that fail for a few seconds cost nothing but time."""

    async def story() -> None:
        at = gateway()
        transport = Unreachable(at)

        async def repair() -> None:
            await asyncio.sleep(1.0)
            transport.down = False

        async with client(at, transport=transport) as pika:
            mending = asyncio.create_task(repair())
            report = await pika.run(prompts(20))
            await mending
        assert report.counts == {S.SUCCEEDED: 20}
        assert len(at.ledger) == 20

    virtual_clock.run(story())


def test_busy_for_too_long_gives_up_and_leaves_jobs_planned() -> None:
    """An account that answers "wait" beyond the patience: nothing accepted, `ProviderBusy`, and a later run pays once."""

    async def story() -> None:
        at = gateway([{"on": "create", "between": [0, 400], "do": {"fault": "refuse", "as": "rate"}}])
        async with client(at, limits=Limits(patience=60)) as pika:
            with pytest.raises(ProviderBusy, match="nothing was accepted"):
                await pika.generate("a cat", key="k")
            (job,) = await pika.jobs()
            assert (job.status, len(at.ledger)) == (S.PLANNED, 0)
            await asyncio.sleep(500)
            assert (await pika.resume()).counts == {S.SUCCEEDED: 1}
        assert len(at.ledger) == 1

    virtual_clock.run(story())


# --- deadlines ----------------------------------------------------------------------------------------------------------


def test_a_deadline_parks_with_the_task_id_and_waiting_again_settles() -> None:
    """Past its deadline a job is timed out with its task id; `wait` asks again, for nothing, and it settles."""

    async def story() -> None:
        at = gateway(durations="constant:500")
        async with client(at, deadline=100) as pika:
            with pytest.raises(DeadlineExceeded) as caught:
                await pika.generate("a cat", key="k")
            (job,) = await pika.jobs()
            assert (job.status, job.task_id, caught.value.task_id) == (S.TIMED_OUT, at.ledger[0].task_id, job.task_id)
            assert 99 <= now() <= 102
            await asyncio.sleep(395)
            done = await pika.wait(job)
            assert (done.status, done.task_id, done.error) == (S.SUCCEEDED, job.task_id, None)
        assert len(at.ledger) == 1

    virtual_clock.run(story())


def test_a_timed_out_job_may_time_out_again_while_the_provider_is_down() -> None:
    """Waiting again without one good answer parks the job again; the client stays usable."""

    async def story() -> None:
        at = gateway([{"on": "feed", "between": [0, 900], "do": "drop"}], durations="constant:20")
        async with client(at, deadline=100) as pika:
            job = await pika.wait(await pika.submit("a cat"))
            assert job.status is S.TIMED_OUT
            again = await pika.wait(job)
            assert (again.status, again.task_id) == (S.TIMED_OUT, job.task_id)
            assert 199 <= now() <= 210
            await asyncio.sleep(900)
            assert (await pika.wait(again)).status is S.SUCCEEDED
        assert len(at.ledger) == 1

    virtual_clock.run(story())


def test_a_result_that_comes_with_the_last_poll_counts() -> None:
    """A task that settles just before the deadline is a success, not a timeout."""

    async def story() -> None:
        at = gateway(durations="constant:99.9")
        async with client(at, deadline=100, polling=FixedInterval(60)) as pika:
            assert (await pika.generate("a cat")).url

    virtual_clock.run(story())


# --- slots and rates ----------------------------------------------------------------------------------------------------


def test_without_a_number_all_is_sent_until_the_account_refuses() -> None:
    """150 prompts are in flight within a second; an endless source is held at ten thousand."""

    async def story() -> None:
        at = gateway(durations="constant:60")
        transport = Watched(at)
        async with client(at, transport=transport) as pika:
            report = await pika.run(prompts(150))
        assert report.counts == {S.SUCCEEDED: 150}
        assert sum(seen.at < 1 for seen in creates(at)) == 150
        assert transport.most_in_flight == 150

    virtual_clock.run(story())
    assert Limits().max_in_flight is None
    assert MAX_IN_FLIGHT == 10_000


@pytest.mark.slow
@pytest.mark.parametrize("limit", [3, 12, 40])
def test_the_accounts_limit_is_found_and_held(limit: int) -> None:
    """An account that takes K at once is kept near K, with few refusals, and every job is charged once."""

    async def story() -> None:
        at = gateway(durations="lognormal:60,0.3", in_flight=limit)
        transport = Watched(at)
        jobs = 25 * limit
        async with client(at, transport=transport, deadline=1e6) as pika:
            report = await pika.run(prompts(jobs))
            took = now()
        assert report.counts == {S.SUCCEEDED: jobs}
        assert len(at.ledger) == jobs
        assert transport.most_in_flight == limit
        refused = sum(seen.status == 429 for seen in creates(at))
        assert refused <= (1.6 if limit < 5 else 1.1) * jobs
        assert took <= 2.0 * 25 * 63

    virtual_clock.run(story())


@pytest.mark.parametrize("most", [1, 2, 7])
def test_max_in_flight_is_never_exceeded(most: int) -> None:
    """With a number, the account never holds more than that, from the first submission to the last."""

    async def story() -> None:
        at = gateway(durations="lognormal:20,0.8")
        transport = Watched(at)
        async with client(at, transport=transport, limits=Limits(max_in_flight=most), deadline=1e6) as pika:
            assert (await pika.run(prompts(20 * most))).counts == {S.SUCCEEDED: 20 * most}
        assert transport.most_in_flight == most

    virtual_clock.run(story())


def _worst(times: list[float], window: float = 1.0) -> int:
    """Return the largest number of *times* within any window."""
    times = sorted(times)
    return max(sum(first <= at < first + window for at in times) for first in times)


def test_rates_are_held() -> None:
    """Ten polls and two submissions a second: never more in any second than a second's worth on top of it."""

    async def story() -> None:
        at = gateway(durations="constant:30")
        limits = Limits(max_in_flight=200, submits_per_second=2, polls_per_second=10)
        async with client(at, limits=limits, polling=FixedInterval(5), deadline=1e6) as pika:
            assert (await pika.run(prompts(100))).counts == {S.SUCCEEDED: 100}
        sent, asked = [seen.at for seen in creates(at)], [seen.at for seen in feeds(at)]
        assert _worst(sent) <= 4
        assert _worst(asked) <= 20
        assert _worst(sent, 20.0) <= 2 + 2 * 20
        assert _worst(asked, 20.0) <= 10 + 10 * 20
        assert max(sent) >= 49 - 1

    virtual_clock.run(story())


def test_the_policys_own_rate_is_held_as_well() -> None:
    """The lower of the two applies: 3 polls a second, not 10."""

    async def story() -> None:
        at = gateway(durations="constant:30")
        policy = AdaptivePolling(max_polls_per_second=3)
        async with client(at, limits=Limits(polls_per_second=10), polling=policy, deadline=1e6) as pika:
            assert (await pika.run(prompts(60))).counts == {S.SUCCEEDED: 60}
        assert _worst([seen.at for seen in feeds(at)], 20.0) <= 3 + 3 * 20

    virtual_clock.run(story())


class Hinting(MemoryTransport):
    """A transport that adds a delay hint to every answer to a poll."""

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        answer = await super().send(request)
        if "feed" in request.url and isinstance(answer, HttpResponse):
            return attrs.evolve(answer, headers={**answer.headers, "retry-after": "20"})
        return answer


def test_a_server_that_says_when_to_poll_again_is_obeyed() -> None:
    """The hint holds beside a good answer too: no task is polled sooner, nor more than a tick of 0.25 s later."""

    async def story() -> None:
        at = gateway(durations="constant:70")
        async with client(at, transport=Hinting(at), polling=FixedInterval(5)) as pika:
            assert (await pika.run(prompts(3))).counts == {S.SUCCEEDED: 3}
        polls = [seen.at for seen in feeds(at)]
        assert len(polls) == 3 * 5
        gaps = [later - earlier for earlier, later in itertools.pairwise(polls[::3])]
        assert [gap for gap in gaps if not 20 <= gap <= 20.26] == []

    virtual_clock.run(story())


def test_timestamps_of_the_gateway_make_durations_exact() -> None:
    """After the first few, settling times are known to two seconds, however far apart the polls were."""

    async def story() -> None:
        at = gateway(durations="lognormal:60,0.4")
        policy = Learning(seconds=25)
        async with client(at, polling=policy) as pika:
            assert (await pika.run(prompts(40))).counts == {S.SUCCEEDED: 40}
        widths = [seen.upper - seen.lower for seen in policy.seen]
        assert max(widths[:3]) > 20
        assert max(widths[12:]) <= 2.0

    virtual_clock.run(story())


def test_concurrent_calls_are_bounded() -> None:
    """At most `submitting` submissions and `polling` polls are sent concurrently."""

    async def story() -> None:
        at = gateway(durations="constant:5")
        transport = MemoryTransport(at, latency=2.0)
        async with client(at, transport=transport, limits=Limits(max_in_flight=60, submitting=3, polling=4)) as pika:
            assert (await pika.run(prompts(40))).counts == {S.SUCCEEDED: 40}
        assert transport.max_active_requests <= 7

    virtual_clock.run(story())


# --- the input ----------------------------------------------------------------------------------------------------------


def test_an_endless_input_is_pulled_as_jobs_are_sent_and_closed_with_the_results() -> None:
    """Of an endless generator little more is pulled than is sent, and breaking out stops pulling and sending."""
    pulled = 0

    async def endless() -> AsyncIterator[str]:
        nonlocal pulled
        for number in itertools.count():
            pulled += 1
            yield f"prompt {number}"

    async def story() -> None:
        at = gateway(durations="constant:60")
        async with client(at, limits=Limits(max_in_flight=10)) as pika:
            taken = 0
            async for job in pika.as_settled(endless()):
                assert job.status is S.SUCCEEDED
                taken += 1
                assert pulled <= len(creates(at)) + 8 + 8 + 1  # on their way, planned, in hand
                if taken == 30:
                    break
            await asyncio.sleep(5)
            at_break, paid = pulled, len(at.ledger)
            await asyncio.sleep(600)
            assert pulled == at_break <= 30 + 10 + 8 + 1
            assert len(at.ledger) == paid <= 30 + 10
            counts = Counter(job.status for job in await pika.jobs())
            assert counts == {S.SUCCEEDED: paid, S.PLANNED: len(await pika.jobs()) - paid}

    virtual_clock.run(story())


def test_a_slow_consumer_slows_the_input_down() -> None:
    """Results that are not taken stop the pulling before thousands of jobs are paid for."""
    pulled = 0

    def many() -> Iterator[str]:
        nonlocal pulled
        for number in range(5000):
            pulled += 1
            yield f"prompt {number}"

    async def story() -> None:
        at = gateway(durations="constant:1")
        async with client(at, limits=Limits(max_in_flight=50), polling=FixedInterval(1)) as pika:
            jobs = pika.as_settled(many())
            await anext(jobs)
            await asyncio.sleep(3600)
            assert pulled < 450
            held = pulled
            for _ in range(300):
                await anext(jobs)
            await asyncio.sleep(60)
            assert pulled > held
            await jobs.aclose()

    virtual_clock.run(story())


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_error_of_the_input_is_raised_after_the_submitted_jobs(asynchronous: bool) -> None:
    """The user's own exception is raised once every job that was pulled before has been yielded."""

    def broken() -> Iterator[str]:
        yield from prompts(7)
        raise LookupError("row 8 is broken")

    async def abroken() -> AsyncIterator[str]:
        for prompt in broken():
            await asyncio.sleep(0.1)
            yield prompt

    async def story() -> None:
        at = gateway()
        seen: list[Job] = []

        async def consume() -> None:
            async for job in pika.as_settled(abroken() if asynchronous else broken()):
                seen.append(job)  # noqa: PERF401 - what came before the error is the point

        async with client(at) as pika:
            with pytest.raises(LookupError, match="row 8 is broken"):
                await consume()
        assert sorted(job.request.prompt for job in seen) == prompts(7)
        assert {job.status for job in seen} == {S.SUCCEEDED}
        assert len(at.ledger) == 7

    virtual_clock.run(story())


@pytest.mark.parametrize("requests", [[], (), iter(())])
def test_an_empty_input_ends_at_once(requests: Any) -> None:
    """Without requests there are no jobs, no calls, and no time passes."""

    async def story() -> None:
        at = gateway()
        async with client(at) as pika:
            report = await pika.run(requests)
            assert (report.jobs, dict(report.counts), report.ok, now()) == ([], {}, True, 0.0)

    virtual_clock.run(story())


# --- cancellation -------------------------------------------------------------------------------------------------------


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_cancelling_a_planned_submission_withdraws_it() -> None:
    """A submission cancelled while it waits for room is never sent; its job says canceled."""

    async def story() -> None:
        at = gateway()
        async with client(at, limits=Limits(max_in_flight=1)) as pika:
            first = await pika.submit("first", key="first")
            for call in (pika.submit, pika.generate):
                task = asyncio.create_task(call("second", key=f"by {call.__name__}".replace(" ", "-")))
                await asyncio.sleep(5)
                await cancelled(task)
            await pika.wait(first)
            await asyncio.sleep(100)
            status = {job.key: job.status for job in await pika.jobs()}
            assert status == {"first": S.SUCCEEDED, "by-submit": S.CANCELED, "by-generate": S.CANCELED}
            assert isinstance((await pika.jobs(S.CANCELED))[0].error, JobCanceled)
        assert [charge.prompt for charge in at.ledger] == ["first"]

    virtual_clock.run(story())


@pytest.mark.parametrize("after", [0.01, 0.04, 3.0], ids=["on its way out", "on its way back", "accepted"])
def test_cancelling_what_was_sent_keeps_the_task_id(after: float) -> None:
    """Cancelled once it was sent, a generation goes on: its id is kept and it settles; nothing is sent twice."""

    async def story() -> None:
        at = gateway()
        async with client(at) as pika:
            task = asyncio.create_task(pika.generate("a cat", key="k"))
            await asyncio.sleep(after)
            await cancelled(task)
            await asyncio.sleep(100)
            (job,) = await pika.jobs()
            assert (job.status, job.task_id) == (S.SUCCEEDED, at.ledger[0].task_id)
        assert len(at.ledger) == 1

    virtual_clock.run(story())


def test_cancelling_a_wait_stops_the_waiting_only() -> None:
    """A cancelled `wait` leaves the job to settle; so does one whose timeout has passed."""

    async def story() -> None:
        at = gateway()
        async with client(at) as pika:
            job = await pika.submit("a cat")
            waiting = asyncio.create_task(pika.wait(job))
            await asyncio.sleep(5)
            await cancelled(waiting)
            with pytest.raises(TimeoutError):
                await pika.wait(job, timeout=10)
            assert now() == pytest.approx(15, abs=0.2)
            done = await pika.wait(job, timeout=100)
            assert (done.status, len(at.ledger)) == (S.SUCCEEDED, 1)

    virtual_clock.run(story())


def test_cancelling_a_batch_keeps_every_id() -> None:
    """A batch cancelled in the middle: what was sent goes on and settles, and no job is charged twice by a second run."""

    async def story() -> None:
        at = gateway()
        async with client(at, limits=Limits(max_in_flight=10)) as pika:
            task = asyncio.create_task(pika.run(prompts(40)))
            await asyncio.sleep(90)
            await cancelled(task)
            paid = len(at.ledger)
            assert 10 <= paid <= 30
            await asyncio.sleep(300)
            jobs = await pika.jobs()
            assert {charge.task_id for charge in at.ledger} == {job.task_id for job in jobs if job.task_id}
            report = await pika.run(prompts(40))
            assert report.counts == {S.SUCCEEDED: 40}
        assert len(at.ledger) == 40

    virtual_clock.run(story())


def test_closing_waits_for_pending_receipts() -> None:
    """Leaving the client while submissions are out waits for their answers: every charge has its id in `jobs()`."""

    async def story() -> None:
        at = gateway()
        pika = client(at, transport=MemoryTransport(at, latency=8.0))
        async with pika:
            task = asyncio.create_task(pika.run(prompts(20)))
            await asyncio.sleep(5)
        await asyncio.wait({task})
        task.exception()
        jobs = await pika.jobs()
        assert {charge.task_id for charge in at.ledger} == {job.task_id for job in jobs if job.task_id} != set()
        assert {job.status for job in jobs} <= {S.QUEUED, S.RUNNING, S.PLANNED}
        async with pika:
            assert (await pika.run(prompts(20))).counts == {S.SUCCEEDED: 20}
        assert len(at.ledger) == 20

    virtual_clock.run(story())


def test_a_batch_raises_if_its_client_is_closed_meanwhile() -> None:
    """`run` returns no report if some requests were never pulled."""

    async def story() -> None:
        at = gateway(durations="constant:1")
        async with client(at, limits=Limits(max_in_flight=2), polling=FixedInterval(1)) as pika:
            task = asyncio.create_task(pika.run(prompts(40)))
            await asyncio.sleep(5)
        await asyncio.wait({task})
        if task.exception() is None:
            assert len(task.result().jobs) == 40

    virtual_clock.run(story())


@pytest.mark.parametrize("grace", [None, 2.5, 60.0])
def test_no_answer_within_the_grace_is_in_doubt(grace: float | None) -> None:
    """A submission whose answer does not come within the grace of closing is unknown, not lost and not planned.

    The grace is 6 s unless given: docker kills 10 s after SIGTERM.
    """

    async def story() -> None:
        at = gateway([{"on": "create", "do": {"fault": "stall", "seconds": 100}}])
        pika = client(at) if grace is None else client(at, limits=Limits(grace=grace))
        async with pika:
            task = asyncio.create_task(pika.submit("a cat", key="k"))
            await asyncio.sleep(1)
        assert now() == pytest.approx(1 + (grace or 6) + READ_MARGIN_S, abs=0.1)
        with pytest.raises(SubmissionInDoubt):
            await task
        (job,) = await pika.jobs()
        assert job.status is S.UNKNOWN

    virtual_clock.run(story())


def test_an_answer_that_came_while_a_closing_process_was_stopped_is_kept() -> None:
    """Stopped for longer than the grace, the process has a moment to read before the end of the grace judges."""

    async def story() -> None:
        at = gateway([{"on": "create", "do": {"fault": "delay", "seconds": 102.1}}])
        pika = client(at)
        async with pika:
            task = asyncio.create_task(pika.submit("a cat", key="k"))
            await asyncio.sleep(1)
            selector = cast("virtual_clock.VirtualLoop", asyncio.get_running_loop()).selector
            asyncio.get_running_loop().call_later(1, lambda: setattr(selector, "now", selector.now + 100))
        assert (await task).task_id is not None
        (job,) = await pika.jobs()
        assert job.status is S.QUEUED

    virtual_clock.run(story())


def test_no_task_is_left_after_closing() -> None:
    """After closing no task of the client is running."""

    async def story() -> None:
        async with client(gateway()) as pika:
            async for _ in pika.as_settled(prompts(3)):
                break
            await pika.generate("a cat")
        gc.collect()
        await asyncio.sleep(0)
        left = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert left == []

    virtual_clock.run(story())


# --- results ------------------------------------------------------------------------------------------------------------


def test_run_gives_jobs_in_the_order_of_the_input() -> None:
    """However they settle, the report has the jobs in input order with their positions."""

    async def story() -> None:
        at = gateway(durations="lognormal:60,1.0", failure_rate=0.2)
        async with client(at, limits=Limits(max_in_flight=50), deadline=1e6) as pika:
            settled = [job.request.prompt async for job in pika.as_settled(prompts(60))]
            report = await pika.run(prompts(60))
        assert [job.request.prompt for job in report.jobs] == prompts(60)
        assert [job.index for job in report.jobs] == list(range(60))
        assert sorted(settled) == sorted(prompts(60))
        assert settled != prompts(60)
        assert sum(report.counts.values()) == 60
        assert len(at.ledger) == 60

    virtual_clock.run(story())


def test_results_do_not_depend_on_the_order_of_the_input() -> None:
    """The same keyed requests in another order give the same outcome for each key."""

    def outcome(order: list[int]) -> dict[str, tuple[JobStatus, str]]:
        async def story() -> dict[str, tuple[JobStatus, str]]:
            rules: list[dict[str, Any]] = [
                {"on": "create", "prompt": "fails", "do": {"fault": "fails", "reason": "no"}},
                {"on": "create", "prompt": "bad", "do": {"fault": "refuse", "as": "invalid"}},
                {"on": "create", "prompt": "lost", "do": "drop"},
            ]
            words = ["fine", "fails", "bad", "lost"]
            requests = [GenerationRequest(f"{words[n % 4]} {n}", key=f"k{n}") for n in order]
            async with client(gateway(rules)) as pika:
                report = await pika.run(requests)
            assert [job.key for job in report.jobs] == [f"k{n}" for n in order]
            return {job.key: (job.status, type(job.error).__name__) for job in report.jobs}

        return virtual_clock.run(story())

    order = list(range(40))
    expected = outcome(order)
    assert Counter(status for status, _ in expected.values()) == {
        S.SUCCEEDED: 10, S.FAILED: 10, S.REJECTED: 10, S.UNKNOWN: 10,
    }  # fmt: skip
    for seed in range(3):
        random.Random(seed).shuffle(order)
        assert outcome(order) == expected


def test_one_failed_job_affects_no_other() -> None:
    """Failed, refused and lost jobs in a batch raise nothing and delay none of the others."""

    async def story() -> None:
        rules: list[dict[str, Any]] = [
            {"on": "create", "prompt": "fails", "do": "fails"},
            {"on": "create", "prompt": "bad", "do": {"fault": "refuse", "as": "envelope"}},
            {"on": "create", "prompt": "lost", "do": {"fault": "cut", "at": "headers"}},
        ]
        at = gateway(rules)
        async with client(at, limits=Limits(max_in_flight=20)) as pika:
            report = await pika.run([*prompts(10), "fails", "bad", "lost", *prompts(3)])
            assert report.counts == {S.SUCCEEDED: 13, S.FAILED: 1, S.REJECTED: 1, S.UNKNOWN: 1}
            assert not report.ok
            assert report.stopped is None
            assert now() < 100
        assert [type(job.error) for job in report.jobs if job.status is S.FAILED] == [GenerationFailed]

    virtual_clock.run(story())


def test_the_same_request_twice_is_paid_once() -> None:
    """One key and content twice in a batch: two results, one task, one charge; a second run pays nothing."""

    async def story() -> None:
        at = gateway()
        request = GenerationRequest("a cat", key="k")
        async with client(at) as pika:
            report = await pika.run([request, request, "other", request])
            assert [job.task_id for job in report.jobs].count(report.jobs[0].task_id) == 3
            assert report.counts == {S.SUCCEEDED: 4}
            asked = at.polls.total
            assert (await pika.run([request, "other"])).counts[S.SUCCEEDED] == 2
            assert (await pika.generate(request)).task_id == report.jobs[0].task_id
            assert at.polls.total >= asked
        assert Counter(charge.prompt for charge in at.ledger)["a cat"] == 1

    virtual_clock.run(story())


def test_two_batches_at_once_share_one_account() -> None:
    """Two batches in one client each give their own jobs, and together they keep to one room."""

    async def story() -> None:
        at = gateway()
        transport = Watched(at)
        async with client(at, transport=transport, limits=Limits(max_in_flight=6)) as pika:
            first, second = await asyncio.gather(
                pika.run([GenerationRequest(f"a {n}", key=f"a{n}") for n in range(20)]),
                pika.run([GenerationRequest(f"b {n}", key=f"b{n}") for n in range(20)]),
            )
        assert [job.key for job in first.jobs] == [f"a{n}" for n in range(20)]
        assert [job.key for job in second.jobs] == [f"b{n}" for n in range(20)]
        assert first.counts == second.counts == {S.SUCCEEDED: 20}
        assert transport.most_in_flight == 6
        assert len(at.ledger) == 40

    virtual_clock.run(story())


# --- stops --------------------------------------------------------------------------------------------------------------


def test_the_limit_of_charges_is_kept_and_the_rest_stays_planned() -> None:
    """With ten allowed, ten are charged, though some are refused or lost; the rest is planned with the reason."""

    async def story() -> None:
        rules: list[dict[str, Any]] = [
            {"on": "create", "nth": [2, 5], "do": {"fault": "refuse", "as": "rate"}},
            {"on": "create", "nth": 3, "do": "drop"},
            {"on": "create", "nth": 6, "do": {"fault": "refuse", "as": "invalid"}},
        ]
        at = gateway(rules)
        async with client(at, limits=Limits(max_in_flight=20, max_charges=10)) as pika:
            report = await pika.run(prompts(30))
            assert isinstance(report.stopped, ChargeLimitReached)
            assert report.counts == {S.SUCCEEDED: 9, S.UNKNOWN: 1, S.REJECTED: 1, S.PLANNED: 19}
            with pytest.raises(ChargeLimitReached, match="limit of 10 charges"):
                await pika.generate("one more")
        assert len(at.ledger) == 10

    virtual_clock.run(story())


def test_as_settled_raises_the_stop_after_the_last_job() -> None:
    """When submitting stops, accepted jobs are yielded first, then the reason is raised."""

    async def story() -> None:
        at = gateway([{"on": "create", "nth": list(range(6, 99)), "do": {"fault": "refuse", "as": "quota"}}])
        seen: list[Job] = []

        async def consume() -> None:
            async for job in pika.as_settled(prompts(30)):
                seen.append(job)  # noqa: PERF401 - what came before the error is the point

        async with client(at) as pika:
            with pytest.raises(AccountStopped):
                await consume()
        assert Counter(job.status for job in seen)[S.SUCCEEDED] == 5 == len(at.ledger)
        assert {job.status for job in seen} <= {S.SUCCEEDED, S.PLANNED}

    virtual_clock.run(story())


def test_a_refused_key_while_polling_parks_everything_and_fails_nothing() -> None:
    """A 401 in the middle of polling: accepted jobs keep their ids and status, and a later run settles them for nothing."""

    async def story() -> None:
        at = gateway(
            [{"on": "feed", "between": [30, 90], "do": {"fault": "refuse", "as": "key"}}], durations="constant:60"
        )
        async with client(at, limits=Limits(max_in_flight=20)) as pika:
            report = await pika.run(prompts(10))
            assert isinstance(report.stopped, AccountStopped)
            assert set(report.counts) <= {S.QUEUED, S.RUNNING}
            assert {job.task_id for job in report.jobs} == {charge.task_id for charge in at.ledger}
            await asyncio.sleep(100)
            assert (await pika.resume()).counts == {S.SUCCEEDED: 10}
        assert len(at.ledger) == 10

    virtual_clock.run(story())


def test_a_redirect_stops_the_batch_and_is_not_followed() -> None:
    """A redirect of a create stops the batch with a hint; every job stays planned, and nothing is charged."""

    async def story() -> None:
        at = gateway([{"on": "create", "do": {"fault": "redirect", "status": 307}}])
        async with client(at) as pika:
            report = await pika.run(prompts(30))
            assert isinstance(report.stopped, WrongBaseUrl)
            assert "check the base URL" in str(report.stopped)
            assert report.counts == {S.PLANNED: 30}
            assert len(creates(at)) <= 3
        assert len(at.ledger) == 0

    virtual_clock.run(story())


# --- doubt --------------------------------------------------------------------------------------------------------------


def test_a_doubt_is_resolved_in_three_ways() -> None:
    """With a task id it settles, as not charged it is sent once more, abandoned it is canceled; time alone changes nothing."""

    async def story() -> None:
        at = gateway([{"on": "create", "first": 3, "do": "drop"}])
        async with client(at) as pika:
            requests = [GenerationRequest(name, key=name) for name in ("found", "unpaid", "left")]
            assert (await pika.run(requests)).counts == {S.UNKNOWN: 3}
            await asyncio.sleep(3600)
            assert (await pika.run(requests)).counts == {S.UNKNOWN: 3}
            assert (await pika.resume()).counts == {S.UNKNOWN: 3}
            assert len(at.ledger) == 3
            known = next(charge.task_id for charge in at.ledger if charge.prompt == "found")
            assert (await pika.resolve("found", task_id=known)).status is S.QUEUED
            assert (await pika.resolve("unpaid", charged=False)).status is S.PLANNED
            assert (await pika.resolve("left", abandon=True)).status is S.CANCELED
            report = await pika.resume()
            assert {job.key: job.status for job in report.jobs} == {"found": S.SUCCEEDED, "unpaid": S.SUCCEEDED}
            assert {job.key: job.status for job in await pika.jobs()} == {
                "found": S.SUCCEEDED, "unpaid": S.SUCCEEDED, "left": S.CANCELED,
            }  # fmt: skip
        assert Counter(charge.prompt for charge in at.ledger) == {"found": 1, "unpaid": 2, "left": 1}

    virtual_clock.run(story())


def test_a_doubt_resolved_as_not_charged_is_sent_with_a_new_time_limit() -> None:
    """The resolution may come long after the time limit of the first attempt."""

    async def story() -> None:
        at = gateway([{"on": "create", "first": 1, "do": {"fault": "drop", "charge": False}}])
        async with client(at, callbacks=receiver(), limits=Limits(patience=30)) as pika:
            asking = asyncio.create_task(pika.generate("a cat", key="cat"))
            await asyncio.sleep(300)
            assert [job.status for job in pika.active_jobs()] == [S.UNKNOWN]
            await pika.resolve("cat", charged=False)
            assert (await asking).url
        assert len(at.ledger) == 1

    virtual_clock.run(story())


# --- polls --------------------------------------------------------------------------------------------------------------


def test_a_new_word_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """An unknown status word is logged once per client, and its tasks settle."""

    async def story() -> None:
        at = gateway([{"on": "feed", "per": "task", "first": 3, "do": {"fault": "word", "word": "moderating"}}])
        async with client(at, polling=FixedInterval(5)) as pika:
            assert (await pika.run(prompts(10))).counts == {S.SUCCEEDED: 10}

    with caplog.at_level(logging.WARNING, "pika_async"):
        virtual_clock.run(story())
    assert sum("moderating" in record.getMessage() for record in caplog.records) == 1


def test_another_tasks_answer_is_discarded() -> None:
    """An answer about another task settles neither; each settles by its own."""

    async def story() -> None:
        at = gateway([{"on": "feed", "per": "task", "first": 4, "do": "other-task"}], durations="constant:10")
        async with client(at, polling=FixedInterval(4)) as pika:
            report = await pika.run(prompts(5))
        for job in report.jobs:
            assert job.video is not None
            assert str(job.task_id) in job.video.url

    virtual_clock.run(story())


def test_a_success_without_address_is_waited_for_and_then_parked() -> None:
    """An address that comes late settles the job; one that never comes parks it with its id after ten minutes more."""

    async def story() -> None:
        rules: list[dict[str, Any]] = [
            {"on": "feed", "prompt": "late", "between": [0, 300], "do": "no-url"},
            {"on": "feed", "prompt": "never", "do": "no-url"},
        ]
        at = gateway(rules)
        async with client(at, deadline=200) as pika:
            report = await pika.run(["late", "never"])
            assert [job.status for job in report.jobs] == [S.SUCCEEDED, S.TIMED_OUT]
            assert report.jobs[1].task_id == at.ledger[1].task_id
            assert 650 <= now() <= 680

    virtual_clock.run(story())


def test_a_denied_task_is_parked_after_ten_minutes_and_can_still_be_asked() -> None:
    """A task that the provider keeps denying is timed out with its id, not failed, and settles when it is found again."""

    async def story() -> None:
        at = gateway([{"on": "feed", "between": [0, 900], "do": "vanish"}])
        async with client(at) as pika:
            job = await pika.wait(await pika.submit("a cat"))
            assert (job.status, job.task_id) == (S.TIMED_OUT, at.ledger[0].task_id)
            assert 600 <= now() <= 900
            again = await pika.wait(job)
            assert again.status is S.SUCCEEDED
        assert len(at.ledger) == 1

    virtual_clock.run(story())


@attrs.define
class Odd(PollingPolicy):
    """A user's policy that returns or raises *gives*."""

    gives: Any
    asked: int = 0

    def next_delay(self, context: object, u: float) -> float:
        self.asked += 1
        if isinstance(self.gives, Exception):
            raise self.gives
        value: float = self.gives
        return value

    def observe(self, sample: object, last_unsettled_age: float | None = None) -> None:
        if isinstance(self.gives, Exception):
            raise self.gives


@pytest.mark.parametrize("gives", [math.nan, -1.0, 0.0, math.inf, "soon", ZeroDivisionError("oops")], ids=repr)
def test_a_misbehaving_policy_neither_hangs_nor_floods(gives: Any) -> None:
    """A policy that returns invalid delays or raises costs no job, puts none in doubt, and does not flood the gateway."""

    async def story() -> None:
        at = gateway(durations="constant:60")
        policy = Odd(gives)
        async with client(at, polling=policy, limits=Limits(max_in_flight=20)) as pika:
            async with asyncio.timeout(2000):
                report = await pika.run(prompts(20))
        assert report.counts == {S.SUCCEEDED: 20}
        assert len(at.ledger) == 20
        assert at.polls.total <= 20 * 12
        assert policy.asked >= 20

    virtual_clock.run(story())


def test_resume_continues_every_job_that_is_not_settled() -> None:
    """After an interruption `resume` settles what was accepted and sends what was not; nothing is paid twice."""

    async def story() -> None:
        at = gateway()
        pika = client(at, limits=Limits(max_in_flight=8))
        async with pika:
            task = asyncio.create_task(pika.run([GenerationRequest(f"a {n}", key=f"k{n}") for n in range(30)]))
            await asyncio.sleep(100)
        await asyncio.wait({task})
        task.exception()
        before = {job.key: job.task_id for job in await pika.jobs() if job.task_id}
        assert len(before) == len(at.ledger)
        async with pika:
            report = await pika.resume()
            assert set(report.counts) == {S.SUCCEEDED}
            after = {job.key: job.task_id for job in await pika.jobs()}
            assert after.items() >= before.items()
            assert {job.status for job in await pika.jobs()} == {S.SUCCEEDED}
        assert len(at.ledger) == len(after)

    virtual_clock.run(story())


def test_a_client_may_be_used_in_two_loops_one_after_the_other() -> None:
    """A client that was closed keeps its jobs and goes on in another event loop."""
    at = gateway()
    pika = client(at)

    async def begin() -> Job:
        async with pika:
            return await pika.submit("a cat", key="k")

    async def end(job: Job) -> None:
        async with pika:
            assert (await pika.wait(job)).status is S.SUCCEEDED

    job = virtual_clock.run(begin())
    at.requests.clear()
    virtual_clock.run(end(job))
    assert (len(at.ledger), len(creates(at))) == (1, 0)


def test_polls_are_counted_and_few() -> None:
    """A task of the expected length is asked for a handful of times, and the job knows how often."""

    async def story() -> None:
        at = gateway()
        async with client(at, limits=Limits(max_in_flight=40)) as pika:
            report = await pika.run(prompts(40))
        assert sum(job.polls for job in report.jobs) == at.polls.total
        assert at.polls.total <= 40 * 12

    virtual_clock.run(story())


@pytest.mark.slow
def test_thousands_settle_in_little_virtual_time() -> None:
    """2,000 jobs with room for all settle about when the slowest task does."""

    async def story() -> None:
        at = gateway(durations="constant:60")
        limits = Limits(max_in_flight=2000, submitting=200, polling=200)
        async with client(at, limits=limits) as pika:
            report = await pika.run(prompts(2000))
            assert now() <= 60 * 1.35 + 10
        assert report.counts == {S.SUCCEEDED: 2000}
        assert len(at.ledger) == 2000

    virtual_clock.run(story())


def test_memory_client_is_the_real_one() -> None:
    """The stories use the client that users have."""
    assert type(memory_gateway.client(gateway())) is PikaClient
