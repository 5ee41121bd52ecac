"""Stories of callbacks in virtual time: they cause early polls, resolve doubts, and settle nothing themselves."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from statistics import mean
from typing import Any

import pytest

from pika_async import (
    AdaptivePolling,
    CallbackReceiver,
    ConfigurationError,
    FixedInterval,
    GenerationRequest,
    Job,
    JobStatus,
    Limits,
    PikaClient,
    SubmissionInDoubt,
    Video,
)
from pika_async._journal.memory import MemoryJournal
from pika_async._planning.callback_tracker import MIN_POLL_SPACING_S
from tests.fakes import virtual_clock
from tests.fakes.callback_delivery import callback_urls, delivering_callbacks, post, receiver
from tests.fakes.memory_gateway import (
    ORIGIN,
    MemoryTransport,
    SlowJournal,
    client,
    gateway,
    now,
    prompts,
    until,
    with_journal,
)
from tests.fakes.only_account import only

S = JobStatus
DROP = {"on": "create", "first": 1, "do": "drop"}


@pytest.fixture(autouse=True)
def _same_chance() -> None:
    random.seed(7)


def run_story(story: Callable[[PikaClient, CallbackReceiver], Awaitable[Any]], at: Any, **options: Any) -> Any:
    """A story of a client whose callbacks reach it."""

    async def main() -> Any:
        to = receiver()
        async with delivering_callbacks(at, to), client(at, callbacks=to, **options) as pika:
            return await story(pika, to)

    return virtual_clock.run(main())


async def delays(at: Any, pika: PikaClient, wanted: list[str]) -> tuple[list[Job], list[float]]:
    """A batch, and how long after its settling each job was handed over."""
    jobs, late = [], []
    async for job in pika.as_settled(wanted):
        jobs.append(job)
        late.append(now() - at.tasks[job.task_id].settles_at)
    return jobs, late


# --- callbacks of accepted jobs -------------------------------------------------------------------------------------


def test_a_job_is_polled_when_its_callback_comes() -> None:
    """Most jobs are polled once, and the delay is negligible."""
    at = gateway(durations="lognormal:60,0.5")

    async def story(pika: PikaClient, to: CallbackReceiver) -> None:
        jobs, late = await delays(at, pika, prompts(500))
        assert Counter(job.status for job in jobs) == {S.SUCCEEDED: 500}
        assert mean(job.polls for job in jobs) < 1.2
        assert mean(late) < 0.2
        assert to.received == 500

    run_story(story, at)
    assert Counter(charge.prompt for charge in at.ledger) == dict.fromkeys(prompts(500), 1)


def test_each_submission_has_its_own_address() -> None:
    """Under the public address, never twice, and a refused one gets another when it is sent again."""
    refused = {"on": "create", "first": 3, "do": {"fault": "refuse", "as": "rate"}}
    at = gateway([refused])

    async def story(pika: PikaClient, to: CallbackReceiver) -> None:
        report = await pika.run(prompts(10))
        assert report.ok

    run_story(story, at)
    urls = list(callback_urls(at).values())
    assert len(set(urls)) == 10
    assert all(url.startswith("http://127.0.0.1:2/pika/callbacks/") for url in urls)


def batch(policy: Callable[[], Any], lost: float | None, seed: int = 0) -> tuple[float, float]:
    """Return the mean delay and polls of 300 jobs when a share of callbacks is lost; None: without a receiver."""
    random.seed(seed)
    script = [{"on": "callback", "share": lost, "do": "lost"}] if lost else None
    at = gateway(script, durations="lognormal:60,0.5", seed=seed)

    async def story(pika: PikaClient, _: Any = None) -> tuple[float, float]:
        jobs, late = await delays(at, pika, prompts(300))
        assert {job.status for job in jobs} == {S.SUCCEEDED}
        return mean(late), mean(job.polls for job in jobs)

    async def alone() -> tuple[float, float]:
        async with client(at, polling=policy()) as pika:
            return await story(pika)

    found: tuple[float, float] = virtual_clock.run(alone()) if lost is None else run_story(story, at, polling=policy())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("policy", [AdaptivePolling, lambda: FixedInterval(5)], ids=["adaptive", "fixed"])
def test_with_some_lost_every_job_settles_about_as_soon_as_with_polls_alone(policy: Any) -> None:
    """With a third of the callbacks lost, polling finds those jobs, as often as is needed."""
    own_delay, own_polls = batch(policy, None)
    results = [batch(policy, 0.3, seed) for seed in range(3)]
    assert mean(delay for delay, _ in results) < 1.5 * own_delay
    assert mean(polls for _, polls in results) < own_polls


@pytest.mark.slow
def test_where_every_callback_is_lost_polls_are_as_usual() -> None:
    """It takes a few settled jobs to learn that no callbacks come."""
    assert batch(AdaptivePolling, 1.0)[0] < 4 * batch(AdaptivePolling, None)[0]


@pytest.mark.slow
def test_when_callbacks_cease_polls_come_back() -> None:
    """After hundreds that came, none: the first batch is found late, the next as soon as ever."""
    at = gateway([{"on": "callback", "prompt": "late", "do": "lost"}], durations="lognormal:60,0.5")

    async def story(pika: PikaClient, to: CallbackReceiver) -> None:
        await pika.run(prompts(300))
        first = (await delays(at, pika, [f"late {number}" for number in range(100)]))[1]
        later = (await delays(at, pika, [f"later {number}" for number in range(300)]))[1]
        assert mean(first) < 90
        assert mean(later) < 6

    run_story(story, at)


@pytest.mark.parametrize("deed", ["early", {"fault": "repeat", "times": 5}, {"fault": "late", "seconds": 300}])
def test_odd_callbacks_cost_a_poll_at_most(deed: Any) -> None:
    """One that says that a task was accepted, one that says the same five times, one that comes when all is over."""

    def most(how: Any) -> int:
        at = gateway([{"on": "callback", "do": how}])

        async def story(pika: PikaClient, to: CallbackReceiver) -> int:
            jobs, _ = await delays(at, pika, prompts(20))
            assert {job.status for job in jobs} == {S.SUCCEEDED}
            polls = dict(at.polls.by_task)
            await asyncio.sleep(400)
            assert at.polls.by_task == polls
            assert to.received == (0 if how == "lost" else 100 if "times" in how else 20)
            return max(polls.values())

        asked: int = run_story(story, at)
        return asked

    assert most(deed) <= most("lost") + 1


def test_a_poll_that_fails_is_tried_again_soon() -> None:
    """The gateway calls, and then cannot be asked for a moment."""
    at = gateway([{"on": "feed", "per": "task", "first": 2, "do": {"fault": "answer", "status": 502}}])

    async def story(pika: PikaClient, to: CallbackReceiver) -> None:
        jobs, late = await delays(at, pika, prompts(3))
        assert {job.status for job in jobs} == {S.SUCCEEDED}
        assert max(late) < 10

    run_story(story, at)


# --- a body settles nothing ------------------------------------------------------------------------------------------


def test_a_flood_of_any_kind_settles_nothing_and_costs_a_poll_each_interval() -> None:
    """1,000 callbacks that are forged, replayed or no JSON, on addresses that exist and that do not."""
    at = gateway([{"on": "callback", "share": 1.0, "do": "lost"}], durations="constant:100")

    async def story(pika: PikaClient, to: CallbackReceiver) -> None:
        jobs = [await pika.submit(prompt) for prompt in prompts(4)]
        began = now()
        urls = [callback_urls(at)[prompt] for prompt in prompts(4)]
        bodies = [b"", b"{", b"[1]", b'"x"', b"\xff\xfe", b"[" * 5000, json.dumps({"status": "3"}).encode()]
        bodies += [json.dumps({"task_id": job.task_id, "status": "3", "video_url": "http://10.0.0.1/"}).encode()
                   for job in jobs]  # fmt: skip
        bodies.append(json.dumps({"task_id": "somebody-elses", "status": "2"}).encode())
        for number in range(1000):
            url = urls[number % 4] if number % 2 else urls[number % 4][:-3] + "AAA"
            assert await post(to, url, bodies[number % len(bodies)]) == (202 if number % 2 else 404)
            await asyncio.sleep(0.04)
        assert now() - began < 41
        assert {job.status for job in await pika.jobs()} <= {S.QUEUED, S.RUNNING}
        most = (now() - began) / MIN_POLL_SPACING_S + 2
        assert all(at.polls.of(str(job.task_id)) <= most for job in jobs)
        done = [await pika.wait(job) for job in jobs]
        assert {job.status for job in done} == {S.SUCCEEDED}

    run_story(story, at)


def test_a_settled_job_stays_as_it_is() -> None:
    """Its address is known, and a callback there does nothing."""
    at = gateway(durations="constant:10")

    async def story(pika: PikaClient, to: CallbackReceiver) -> None:
        job = await pika.wait(await pika.submit("a"))
        asked = at.polls.of(str(job.task_id))
        for _ in range(5):
            failed = json.dumps({"task_id": job.task_id, "status": "2"}).encode()
            assert await post(to, callback_urls(at)["a"], failed) == 202
            await asyncio.sleep(10)
        assert at.polls.of(str(job.task_id)) == asked
        assert (await pika.jobs())[0] == job

    run_story(story, at)


# --- doubt -----------------------------------------------------------------------------------------------------------


def test_a_lost_answer_is_found_again_by_its_callback() -> None:
    """The video is awaited as if nothing had happened, and paid once."""
    at = gateway([DROP], durations="constant:30")

    async def story(pika: PikaClient, to: CallbackReceiver) -> Video:
        video = await pika.generate("a")
        job = (await pika.jobs())[0]
        assert (job.status, job.error, job.attempts) == (S.SUCCEEDED, None, 1)
        assert job.task_id in at.tasks
        assert job.polls == sum(at.polls.by_task.values())
        return video

    assert run_story(story, at).url
    assert [charge.prompt for charge in at.ledger] == ["a"]


def test_a_batch_waits_for_the_callbacks_of_its_doubts() -> None:
    """All answers of a minute are lost: every job is a success in the end."""
    at = gateway([{"on": "create", "every": 3, "do": "drop"}], durations="lognormal:60,0.3")

    async def story(pika: PikaClient, to: CallbackReceiver) -> None:
        report = await pika.run(prompts(60))
        assert report.counts == {S.SUCCEEDED: 60}
        assert await pika.jobs(S.UNKNOWN) == []

    run_story(story, at)
    assert Counter(charge.prompt for charge in at.ledger) == dict.fromkeys(prompts(60), 1)


def test_submit_says_at_once_that_it_is_in_doubt_and_wait_waits() -> None:
    at = gateway([DROP], durations="constant:30")

    async def story(pika: PikaClient, to: CallbackReceiver) -> None:
        with pytest.raises(SubmissionInDoubt):
            await pika.submit(GenerationRequest("a", key="order"))
        assert now() < 5
        job = await pika.wait((await pika.jobs(S.UNKNOWN))[0])
        assert (job.key, job.status) == ("order", S.SUCCEEDED)

    run_story(story, at)
    assert len(at.ledger) == 1


def test_a_doubt_without_a_callback_stays_one() -> None:
    """It is waited for twice as long as the longest task took, and is then in doubt as ever."""
    at = gateway([{"on": "create", "prompt": "lost", "do": "drop"}, {"on": "callback", "prompt": "lost", "do": "lost"}])

    async def story(pika: PikaClient, to: CallbackReceiver) -> None:
        await pika.run(prompts(3))
        began = now()
        report = await pika.run(["lost"])
        assert report.counts == {S.UNKNOWN: 1}
        assert 100 < now() - began < 130
        assert isinstance(report.jobs[0].error, SubmissionInDoubt)

    run_story(story, at)
    assert len(at.ledger) == 4


def test_without_any_callbacks_a_doubt_is_reported_at_once() -> None:
    at = gateway([{"on": "create", "prompt": "lost", "do": "drop"}, {"on": "callback", "share": 1.0, "do": "lost"}])

    async def story(pika: PikaClient, to: CallbackReceiver) -> None:
        await pika.run(prompts(10))
        await asyncio.sleep(5)
        began = now()
        assert (await pika.run(["lost"])).counts == {S.UNKNOWN: 1}
        assert now() - began < 5

    run_story(story, at)


@pytest.mark.parametrize("body", [
    b"", b"{}", b"[]", b"null", b'{"task_id": null}', b'{"task_id": ""}', b'{"task_id": 7}', b'{"task_id": "no-such"}',
    b'{"task_id": "a\\u0000b"}', json.dumps({"task_id": "x" * 300}).encode(), b'{"data": {"task_id": "no-such"}}',
])  # fmt: skip
def test_a_callback_that_names_no_task_leads_out_of_no_doubt(body: bytes) -> None:
    """Whatever it says, it is for a poll to say that there is such a task."""
    at = gateway([DROP, {"on": "callback", "share": 1.0, "do": "lost"}], durations="constant:30")

    async def story(pika: PikaClient, to: CallbackReceiver) -> None:
        with pytest.raises(SubmissionInDoubt):
            await pika.submit("a")
        for _ in range(30):
            assert await post(to, callback_urls(at)["a"], body) == 202
            await asyncio.sleep(0.5)
        assert sum(at.polls.by_task.values()) <= 15 / MIN_POLL_SPACING_S + 1
        assert (await pika.jobs())[0].status is S.UNKNOWN
        real = json.dumps({"task_id": next(iter(at.tasks))}).encode()
        assert await post(to, callback_urls(at)["a"], real) == 202
        assert (await pika.wait((await pika.jobs())[0])).status is S.SUCCEEDED

    run_story(story, at)
    assert len(at.ledger) == 1


def test_a_callback_that_names_another_jobs_task_leads_out_of_no_doubt() -> None:
    at = gateway([{"on": "create", "prompt": "lost", "do": "drop"}, {"on": "callback", "share": 1.0, "do": "lost"}],
                 durations="constant:300")  # fmt: skip

    async def story(pika: PikaClient, to: CallbackReceiver) -> None:
        other = await pika.submit("other")
        with pytest.raises(SubmissionInDoubt):
            await pika.submit("lost")
        await post(to, callback_urls(at)["lost"], json.dumps({"task_id": other.task_id}).encode())
        await asyncio.sleep(10)
        assert [job.status for job in await pika.jobs()] in ([S.QUEUED, S.UNKNOWN], [S.RUNNING, S.UNKNOWN])

    run_story(story, at)


def test_a_poll_that_names_no_task_confirms_none() -> None:
    """An empty answer counts as that of the task that was asked for, and proves nothing about an unknown task."""
    at = gateway([DROP, {"on": "callback", "share": 1.0, "do": "lost"},
                  {"on": "feed", "do": {"fault": "answer", "status": 200, "body": {"code": 200, "data": {"status": "1"}}}}],
                 durations="constant:300")  # fmt: skip

    async def story(pika: PikaClient, to: CallbackReceiver) -> None:
        with pytest.raises(SubmissionInDoubt):
            await pika.submit("a")
        await post(to, callback_urls(at)["a"], json.dumps({"task_id": next(iter(at.tasks))}).encode())
        await asyncio.sleep(100)
        assert (await pika.jobs())[0].status is S.UNKNOWN

    run_story(story, at)


def test_what_a_person_says_of_a_doubt_holds_while_its_callback_is_waited_for() -> None:
    """After each of the three resolutions, every waiting call returns."""
    drops = {"on": "create", "nth": [1, 2, 3], "do": "drop"}
    at = gateway([drops, {"on": "callback", "share": 1.0, "do": "lost"}], durations="constant:30")

    async def story(pika: PikaClient, to: CallbackReceiver) -> None:
        waiting = asyncio.create_task(pika.run([GenerationRequest(key, key=key) for key in "abc"]))
        await until(lambda: len(at.tasks) == 3)
        await asyncio.sleep(1)
        task = next(task for task in at.tasks.values() if task.prompt == "a")
        await pika.resolve("a", task_id=task.id)
        await pika.resolve("b", abandon=True)
        await pika.resolve("c", charged=False)
        report = await waiting
        assert [job.status for job in report.jobs] == [S.SUCCEEDED, S.CANCELED, S.SUCCEEDED]
        assert report.jobs[2].attempts == 2

    run_story(story, at)


def test_a_callback_may_be_quicker_than_the_answer() -> None:
    """It came while the submission was under way; the answer comes, or never."""
    slow = {"on": "create", "first": 1, "do": {"fault": "delay", "seconds": 20}}
    lost = {"on": "create", "prompt": "lost", "do": {"fault": "stall", "seconds": 30}}
    at = gateway([slow, lost], durations="constant:5")

    async def story(pika: PikaClient, to: CallbackReceiver) -> None:
        report = await pika.run(["slow", "lost"])
        assert report.counts == {S.SUCCEEDED: 2}
        assert now() < 60

    run_story(story, at)
    assert len(at.ledger) == 2


def test_doubts_are_polled_no_faster_than_jobs_may_be() -> None:
    """Eight callbacks come at once, and one poll a second is allowed."""
    at = gateway([{"on": "create", "do": "drop"}, {"on": "callback", "share": 1.0, "do": "lost"}])

    async def story(pika: PikaClient, to: CallbackReceiver) -> None:
        await asyncio.gather(*(pika.submit(prompt) for prompt in prompts(8)), return_exceptions=True)
        began, asked = now(), 0
        for url in callback_urls(at).values():
            await post(to, url, b'{"task_id": "no-such"}')
        while now() < began + 20:
            await asyncio.sleep(0.1)
            asked = sum(at.polls.by_task.values())
            assert asked <= now() - began + 2
        assert asked > 10

    run_story(story, at, limits=Limits(polls_per_second=1))


def test_doubts_wait_with_all_others_while_the_gateway_cannot_be_asked() -> None:
    """An open breaker holds back what callbacks want to know as well; then it is asked."""
    at = gateway([DROP, {"on": "callback", "share": 1.0, "do": "lost"}], durations="constant:30")

    async def story(pika: PikaClient, to: CallbackReceiver) -> None:
        with pytest.raises(SubmissionInDoubt):
            await pika.submit("a")
        assert pika._session is not None
        breaker = only(pika._session.table.planner).breaker
        for _ in range(breaker.threshold):
            breaker.fail(now(), 0.5)
        breaker._until = now() + 100
        task = next(iter(at.tasks))
        await post(to, callback_urls(at)["a"], json.dumps({"task_id": task}).encode())
        await asyncio.sleep(95)
        assert at.polls.of(task) == 0
        await asyncio.sleep(10)
        assert (await pika.jobs())[0].status is S.SUCCEEDED

    run_story(story, at)


def test_a_callback_that_comes_after_the_last_try_is_tried_too() -> None:
    """Six polls bring no answer; then the gateway sends another callback."""
    at = gateway([DROP, {"on": "callback", "share": 1.0, "do": "lost"},
                  {"on": "feed", "first": 6, "do": {"fault": "answer", "status": 502}}], durations="constant:30")  # fmt: skip

    async def story(pika: PikaClient, to: CallbackReceiver) -> None:
        with pytest.raises(SubmissionInDoubt):
            await pika.submit("a")
        task = next(iter(at.tasks))
        body = json.dumps({"task_id": task}).encode()
        await post(to, callback_urls(at)["a"], body)
        await until(lambda: at.polls.of(task) == 6)
        await asyncio.sleep(1)
        assert (await pika.jobs())[0].status is S.UNKNOWN
        await post(to, callback_urls(at)["a"], body)
        await asyncio.sleep(2 * MIN_POLL_SPACING_S)
        assert (await pika.jobs())[0].status is S.SUCCEEDED

    run_story(story, at)


def test_a_callback_to_an_old_address_does_not_affect_the_next_submission() -> None:
    """A callback named a task, a person said that it was not charged, it was sent again and is in doubt again."""
    at = gateway([{"on": "create", "do": "drop"}, {"on": "callback", "share": 1.0, "do": "lost"},
                  {"on": "feed", "first": 1, "do": {"fault": "answer", "status": 502}}], durations="constant:300")  # fmt: skip

    async def story(pika: PikaClient, to: CallbackReceiver) -> None:
        with pytest.raises(SubmissionInDoubt):
            await pika.submit(GenerationRequest("a", key="order"))
        first, old = next(iter(at.tasks)), callback_urls(at)["a"]
        await post(to, old, json.dumps({"task_id": first}).encode())
        await until(lambda: at.polls.of(first) == 1)
        await pika.resolve("order", charged=False)
        await until(lambda: len(at.tasks) == 2)
        assert await post(to, old, json.dumps({"task_id": first}).encode()) == 404
        await asyncio.sleep(300)
        [job] = await pika.jobs()
        assert (job.status, job.task_id, job.attempts) == (S.UNKNOWN, None, 2)
        second = next(reversed(at.tasks))
        await post(to, callback_urls(at)["a"], json.dumps({"task_id": second}).encode())
        await asyncio.sleep(1)
        assert (await pika.jobs())[0].task_id == second

    run_story(story, at)


def test_a_doubt_that_comes_again_is_waited_for_anew() -> None:
    """Its time begins with the latest submission, and it comes to rest once."""
    at = gateway([{"on": "create", "do": "drop"}, {"on": "callback", "share": 1.0, "do": "lost"}])

    async def story(pika: PikaClient, to: CallbackReceiver) -> None:
        earlier = asyncio.create_task(pika.run(["another"]))
        await until(lambda: len(at.tasks) == 1)
        waiting = asyncio.create_task(pika.run([GenerationRequest("a", key="order")]))
        await until(lambda: len(at.tasks) == 2)
        await asyncio.sleep(400)
        await pika.resolve("order", charged=False)
        await until(lambda: len(at.tasks) == 3)
        again = now()
        assert (await earlier).counts == (await waiting).counts == {S.UNKNOWN: 1}
        assert now() - again > 590

    run_story(story, at)


def test_two_doubts_whose_callbacks_name_one_task_are_not_both_that_task() -> None:
    """The first to be confirmed has it, the other stays in doubt."""
    at = gateway([{"on": "create", "do": "drop"}, {"on": "callback", "share": 1.0, "do": "lost"}],
                 durations="constant:300")  # fmt: skip

    async def story(pika: PikaClient, to: CallbackReceiver) -> None:
        await asyncio.gather(pika.submit("a"), pika.submit("b"), return_exceptions=True)
        body = json.dumps({"task_id": next(iter(at.tasks))}).encode()
        await asyncio.gather(*(post(to, url, body) for url in callback_urls(at).values()))
        await asyncio.sleep(10)
        assert Counter(job.task_id for job in await pika.jobs()) == {next(iter(at.tasks)): 1, None: 1}
        await asyncio.sleep(1)
        assert len(await pika.jobs(S.UNKNOWN)) == 1

    run_story(story, at)


# --- lives -----------------------------------------------------------------------------------------------------------


def test_a_job_of_an_earlier_session_is_settled_by_its_callback() -> None:
    """It was not resumed before: its token identifies it, as any other job of the journal."""
    at = gateway([{"on": "create", "prompt": "lost", "do": "drop"}], durations="constant:60")

    async def main() -> None:
        to = receiver()
        pika = client(at, callbacks=to)
        async with pika:
            await pika.submit("a")
            with pytest.raises(SubmissionInDoubt):
                await pika.submit("lost")
        urls = callback_urls(at)
        assert await post(to, urls["a"], b"{}") == 404  # no client is open
        async with delivering_callbacks(at, to), pika:
            await asyncio.sleep(70)
            assert [job.status for job in await pika.jobs()] == [S.SUCCEEDED, S.SUCCEEDED]
        assert len(at.ledger) == 2

    virtual_clock.run(main())


def test_a_job_that_timed_out_is_settled_by_its_callback() -> None:
    at = gateway(durations="constant:100")

    async def story(pika: PikaClient, to: CallbackReceiver) -> None:
        report = await pika.run(["a"])
        assert report.counts == {S.TIMED_OUT: 1}
        await asyncio.sleep(80)
        assert (await pika.jobs())[0].status is S.SUCCEEDED

    run_story(story, at, deadline=30.0)


def test_a_callback_that_comes_as_a_job_times_out_is_not_lost() -> None:
    """The callback comes while the parked job is being saved; the job is resumed as soon as it is saved."""
    at = gateway([{"on": "callback", "share": 1.0, "do": "lost"}], durations="constant:50")

    async def main() -> None:
        to = receiver()
        async with with_journal(client(at, callbacks=to, deadline=30.0), SlowJournal(1.0)) as pika:
            await pika.submit("a")
            await until(lambda: pika.active_jobs()[0].status is S.TIMED_OUT)
            assert await post(to, callback_urls(at)["a"], b"{}") == 202
            await asyncio.sleep(3)
            assert pika.active_jobs()[0].is_in_flight
            assert (await pika.wait(pika.active_jobs()[0])).status is S.SUCCEEDED

    virtual_clock.run(main())


def test_the_callbacks_of_a_stopped_account_cost_a_poll_each_interval() -> None:
    """Each poll finds the account stopped and parks the job again: a replayed callback causes no extra poll."""
    at = gateway([{"on": "callback", "share": 1.0, "do": "lost"},
                  {"on": "feed", "do": {"fault": "answer", "status": 401}}], durations="constant:60")  # fmt: skip

    async def story(pika: PikaClient, to: CallbackReceiver) -> None:
        job = await pika.submit("a")
        await until(lambda: pika.active_jobs() == [])
        before, began = at.polls.of(str(job.task_id)), now()
        for _ in range(200):
            assert await post(to, callback_urls(at)["a"], b"{}") == 202
            await asyncio.sleep(0.2)
        asked = at.polls.of(str(job.task_id)) - before
        assert 2 <= asked <= (now() - began) / MIN_POLL_SPACING_S + 1
        assert (await pika.jobs())[0].is_in_flight

    run_story(story, at)


class CountingJournal(MemoryJournal):
    """Journal that counts the jobs it reads."""

    reads = 0

    def get(self, key: str) -> Job | None:
        self.reads += 1
        return super().get(key)


def test_a_callback_reads_its_job_once_and_only_if_it_is_inactive() -> None:
    """The job of an active entry is in memory; that of a parked or settled one is read from the journal."""
    at = gateway([{"on": "callback", "share": 1.0, "do": "lost"}], durations="constant:60")

    async def main() -> None:
        to, journal = receiver(), CountingJournal()
        async with with_journal(client(at, callbacks=to), journal) as pika:
            job = await pika.submit("a")
            url = callback_urls(at)["a"]
            before = journal.reads
            assert await post(to, url, b"{}") == 202
            assert journal.reads == before
            await pika.wait(job)
            before = journal.reads
            assert await post(to, url, b"{}") == 202
            assert journal.reads - before == 1

    virtual_clock.run(main())


@pytest.mark.slow
def test_finished_jobs_leave_no_state_behind() -> None:
    """A service of 500 jobs, of which some answers and some callbacks are lost: what grows is the journal alone."""
    at = gateway([{"on": "create", "every": 10, "do": "drop"}, {"on": "callback", "share": 0.2, "do": "lost"}],
                 durations="lognormal:60,0.5")  # fmt: skip

    async def story(pika: PikaClient, to: CallbackReceiver) -> None:
        assert pika._session is not None
        table, handler = pika._session.table, pika._session.callback_handler
        planner = table.planner
        poll_queue, calls = only(planner).poll_queue, only(planner).poll_queue.callbacks
        async for job in pika.as_settled(prompts(500)):
            await post(to, callback_urls(at)[job.request.prompt], b'{"task_id": "x"}')
            waiting = [entry for entry in table.jobs.values() if entry.job.status is S.UNKNOWN]
            assert set(only(planner).unconfirmed) <= set(waiting)
            assert calls._pending.keys() | calls._sampled <= set(table.jobs.values())
        await asyncio.sleep(400)  # a task that a callback named wrongly is polled six times, up to 60 s apart
        for kept in (
            table.jobs, table._waiters, only(planner).unconfirmed, only(planner).submissions.queue, poll_queue._waiting, poll_queue._due, poll_queue._overdue,
            calls._pending, calls._grace, calls._sampled, handler._running, handler._named,
        ):  # fmt: skip
            assert len(kept) == 0, kept
        assert len(handler._polled_at) <= 1  # the entry of the last poll
        assert (
            only(planner).in_flight,
            only(planner).submissions.submitting,
            only(planner).polling,
            poll_queue._stale,
        ) == (0, 0, 0, 0)

    run_story(story, at, limits=Limits(max_in_flight=100))


def test_two_clients_share_a_receiver() -> None:
    """Each is notified of its own jobs."""
    one, two = gateway(durations="constant:30"), gateway(durations="constant:40")

    async def main() -> None:
        to = receiver()
        async with (
            delivering_callbacks(one, to),
            delivering_callbacks(two, to),
            client(one, callbacks=to) as a,
            client(two, callbacks=to) as b,
        ):
            reports = await asyncio.gather(a.run(prompts(5)), b.run(prompts(5)))
            assert all(report.ok for report in reports)
            assert all(set(at.polls.by_task.values()) <= {1, 2} for at in (one, two))

    virtual_clock.run(main())


def test_what_cannot_be_called_back_is_said_before_anything_is_sent() -> None:
    at = gateway()
    for provider in ("yescale", "gptge", "native"):
        with pytest.raises(ConfigurationError, match=r"callbacks: .* sends no callbacks"):
            client(at, provider, callbacks=receiver())
    odd: Any = "https://example.com/hook"
    with pytest.raises(ConfigurationError, match=r"callbacks: .* must be a CallbackReceiver; give CallbackReceiver"):
        client(at, callbacks=odd)


def test_without_a_receiver_no_callbacks_are_requested() -> None:
    """The address that is sent then leads nowhere."""
    at = gateway(durations="constant:10")

    async def main() -> None:
        async with PikaClient("cometapi", base_url=f"{ORIGIN}/cometapi", transport=MemoryTransport(at)) as pika:
            await pika.submit("a")

    virtual_clock.run(main())
    assert callback_urls(at) == {"a": "https://callback.invalid/"}
