"""Stories of trouble that is not a row's own: the batch pauses or stops, burns nothing, and goes on with the same call."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from typing import Any

import pytest

from pika_async import (
    AccountStopped,
    GatewayInTrouble,
    GenerationRequest,
    JobStatus,
    Limits,
    PikaClient,
    RefusedAlike,
    SubmissionRejected,
    WrongBaseUrl,
)
from pika_async.emulator import Gateway
from tests.fakes import virtual_clock
from tests.fakes.memory_gateway import MemoryTransport, client, gateway, prompts

S = JobStatus


@pytest.fixture(autouse=True)
def _same_chance() -> None:
    """The scheduler draws its jitter from the common source: each story runs the same way every time."""
    random.seed(7)


def creates(at: Gateway) -> list[Any]:
    return [seen for seen in at.requests if "generate" in seen.path]


def charged_once(at: Gateway) -> None:
    assert set(Counter(charge.prompt for charge in at.ledger).values()) <= {1}


def answered(status: int, body: object, **headers: str) -> dict[str, Any]:
    """A fault that answers a create without charging for it."""
    text = body if isinstance(body, str) else json.dumps(body)
    return {
        "fault": "answer",
        "status": status,
        "body": text,
        "headers": {"Content-Type": "application/json", **headers},
    }


def failure(message: str, code: str = "bad") -> dict[str, Any]:
    return {"error": {"message": message, "type": "gateway_error", "param": "", "code": code}}


# --- a gateway in trouble -----------------------------------------------------------------------------------------------


def test_three_seconds_of_502_leave_a_dozen_jobs_in_doubt_and_not_hundreds() -> None:
    """300 jobs while every submission is answered 502 from the first second to the fourth: the others all succeed."""

    async def story() -> None:
        at = gateway([{"on": "create", "between": [1, 4], "do": answered(502, "bad gateway")}])
        async with client(at) as pika:
            report = await pika.run(prompts(300))
        doubts = report.counts[S.UNKNOWN]
        assert report.counts == {S.SUCCEEDED: 300 - doubts, S.UNKNOWN: doubts}
        assert 8 <= doubts <= 12
        assert report.stopped is None
        charged_once(at)

    virtual_clock.run(story())


@pytest.mark.parametrize("submitting", [8, 100])
def test_a_gateway_that_stays_in_trouble_stops_the_batch(submitting: int) -> None:
    """Twelve jobs are in doubt, the rest is planned, and the same call goes on once the gateway has recovered."""

    async def story() -> None:
        at = gateway([{"on": "create", "between": [0, 300], "do": answered(502, "bad gateway")}])
        async with client(at, limits=Limits(submitting=submitting)) as pika:
            report = await pika.run(prompts(40))
            assert isinstance(report.stopped, GatewayInTrouble)
            assert report.counts == {S.UNKNOWN: 12, S.PLANNED: 28}
            assert len(creates(at)) == 12
            spacing = [later.at - seen.at for seen, later in zip(creates(at)[7:], creates(at)[8:], strict=False)]
            assert spacing == sorted(spacing)
            await asyncio.sleep(300)
            again = await pika.run(prompts(40))
        assert again.counts == {S.UNKNOWN: 12, S.SUCCEEDED: 28}
        assert again.stopped is None
        charged_once(at)

    virtual_clock.run(story())


# --- receipts that cannot be read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("submitting", [1, 8, 100])
@pytest.mark.parametrize("body", ['{"state": "SUCCESS"}', "<!DOCTYPE html><html>Welcome</html>", "{}"])
def test_receipts_that_cannot_be_read_stop_after_three(body: str, submitting: int) -> None:
    """With 100 submissions side by side no more than three are sent into silence; the other 27 are planned."""

    async def story() -> None:
        at = gateway([{"on": "create", "do": {**answered(200, body), "charge": True}}])
        async with client(at, limits=Limits(submitting=submitting)) as pika:
            report = await pika.run(prompts(30))
        assert isinstance(report.stopped, WrongBaseUrl)
        assert report.counts == {S.UNKNOWN: 3, S.PLANNED: 27}
        assert len(at.ledger) == 3

    virtual_clock.run(story())


# --- refusals that are the same for every row ---------------------------------------------------------------------------


@pytest.mark.parametrize("submitting", [1, 8, 100])
@pytest.mark.parametrize(
    "do",
    [
        answered(404, failure("no route for POST /v1/pika/generate", "not_found")),
        answered(400, failure("the group default may not use this service")),
        answered(200, {"code": 400, "msg": "service suspended", "data": None}),
    ],
    ids=["wrong path", "group", "code in 200"],
)
def test_the_same_refusal_for_every_row_burns_none(do: dict[str, Any], submitting: int) -> None:
    """Five rows are tried; all 30 stay planned, with the words; the same call succeeds once the cause is mended."""

    async def story() -> None:
        at = gateway([{"on": "create", "first": 5, "do": do}])
        async with client(at, limits=Limits(submitting=submitting)) as pika:
            report = await pika.run(prompts(30))
            assert isinstance(report.stopped, RefusedAlike)
            assert report.counts == {S.PLANNED: 30}
            assert len(creates(at)) == 5
            words = json.loads(do["body"])
            assert (words.get("msg") or words["error"]["message"]) in str(report.jobs[0].error)
            again = await pika.run(prompts(30))
        assert again.counts == {S.SUCCEEDED: 30}
        charged_once(at)

    virtual_clock.run(story())


def test_words_with_numbers_of_their_own_are_the_same_refusal() -> None:
    """A request id and a balance in the words differ each time; the refusal is still the same."""

    async def story() -> None:
        numbers = [
            {
                "on": "create",
                "nth": 1,
                "do": answered(400, failure(f"no quota left, request {number}a7 needs {number}00")),
            }
            for number in range(1, 40)
        ]
        at = gateway(numbers)
        async with client(at) as pika:
            report = await pika.run(prompts(40))
        assert isinstance(report.stopped, RefusedAlike | AccountStopped)
        assert report.counts == {S.PLANNED: 40}

    virtual_clock.run(story())


def test_rows_at_fault_between_good_ones_are_rejected_and_stop_nothing() -> None:
    """Every third row is refused in the same words while the others are accepted: 10 rejected, 20 succeeded."""

    async def story() -> None:
        at = gateway([{"on": "create", "prompt": "bad", "do": answered(400, failure("the prompt is not allowed"))}])
        rows = [f"{'bad' if number % 3 == 0 else 'good'} {number}" for number in range(30)]
        async with client(at) as pika:
            report = await pika.run(rows)
        assert report.counts == {S.REJECTED: 10, S.SUCCEEDED: 20}
        assert report.stopped is None
        assert {type(job.error) for job in report.jobs if job.status is S.REJECTED} == {SubmissionRejected}

    virtual_clock.run(story())


def test_a_single_refused_request_is_rejected_at_once() -> None:
    """Nothing else is to be sent, so a caller of one video has the refusal after one answer, also the sixth time."""

    async def story() -> None:
        at = gateway([{"on": "create", "do": answered(400, failure("no"))}])
        async with client(at) as pika:
            for number in range(6):
                with pytest.raises(SubmissionRejected):
                    await pika.generate(f"prompt {number}")

    virtual_clock.run(story())


def test_a_refusal_that_is_held_is_planned_in_the_journal() -> None:
    """A client that is closed meanwhile leaves the row planned: it was not paid and is sent again."""

    async def story() -> None:
        at = gateway(
            [{"on": "create", "nth": 1, "do": answered(400, failure("no"))}, {"on": "create", "nth": 1, "do": "stall"}]
        )
        pika = client(at)
        async with pika:
            running = asyncio.create_task(pika.run(prompts(2)))
            await asyncio.sleep(1.0)
            assert [str(job.status) for job in await pika.jobs()] == ["planned", "submitting"]
            running.cancel()
        assert [str(job.status) for job in await pika.jobs()] == ["planned", "unknown"]

    virtual_clock.run(story())


# --- answers that blame the account -------------------------------------------------------------------------------------


def test_a_row_that_gets_403_while_others_are_accepted_is_rejected() -> None:
    """It is sent twice and then its own; 39 others succeed with the same key."""

    async def story() -> None:
        at = gateway([{"on": "create", "prompt": "odd", "do": answered(403, failure("this content is forbidden"))}])
        rows = [*prompts(20), "odd", *(f"later {number}" for number in range(19))]
        async with client(at, limits=Limits(submitting=2)) as pika:
            report = await pika.run(rows)
        assert report.counts == {S.SUCCEEDED: 39, S.REJECTED: 1}
        assert report.jobs[20].status is S.REJECTED
        assert report.jobs[20].attempts == 2
        assert "this content is forbidden" in str(report.jobs[20].error)

    virtual_clock.run(story())


def test_a_key_that_is_revoked_in_the_middle_stops_the_batch_and_burns_nothing() -> None:
    """From the first second on every submission gets 401: the rest is planned and no row is rejected."""

    async def story() -> None:
        at = gateway([{"on": "create", "between": [1, 1e6], "do": answered(401, failure("invalid key"))}])
        async with client(at) as pika:
            report = await pika.run(prompts(300))
        assert isinstance(report.stopped, AccountStopped)
        assert set(report.counts) == {S.SUCCEEDED, S.PLANNED}
        refused = [seen for seen in creates(at) if seen.at - creates(at)[0].at >= 1]
        assert len(refused) <= 8 + 1

    virtual_clock.run(story())


# --- a model without a channel ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
def test_rows_of_a_model_without_a_channel_wait_and_block_no_other(status: int) -> None:
    """For ten minutes there is no channel for the model of ten rows in front: the 30 behind them are done long before."""

    async def story() -> None:
        no_channel = answered(
            status, failure("no available channel for model pika-9 under group default", "model_not_found")
        )
        at = gateway(
            [{"on": "create", "prompt": "gated", "between": [0, 600], "do": no_channel}], durations="constant:60"
        )
        rows = [
            GenerationRequest(f"gated {number}", effect="Melt", image="https://x.example/i.png") for number in range(10)
        ]
        rows += [GenerationRequest(f"other {number}") for number in range(30)]
        async with client(at) as pika:
            done = [(job, asyncio.get_running_loop().time()) async for job in pika.as_settled(rows)]
        assert {job.status for job, _ in done} == {S.SUCCEEDED}
        assert max(at for job, at in done if "other" in job.request.prompt) < 120
        assert min(at for job, at in done if "gated" in job.request.prompt) > 600
        probes = [seen for seen in creates(at) if seen.at < 600 and seen.status == status]
        assert len(probes) < 60
        charged_once(at)

    virtual_clock.run(story())


# --- all of it at random ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_gateway_that_changes_its_mood_burns_no_row_and_pays_none_twice(seed: int) -> None:
    """Moods of 20 s, drawn at random: run again until done, nothing is rejected, doubts have an ambiguous answer behind them."""
    moods = [
        answered(502, "bad"), answered(503, failure("no available channel for model m")), answered(401, failure("key")),
        answered(404, failure("not found")), answered(400, failure("balance")), answered(200, {"code": 500, "msg": "no"}),
        {"fault": "refuse", "as": "rate"}, "drop", None,
    ]  # fmt: skip

    async def story() -> None:
        chance = random.Random(seed)
        rules = [
            {"on": "create", "between": [start, start + 20], "do": mood}
            for start in range(0, 600, 20)
            if (mood := chance.choice(moods)) is not None
        ]
        at = gateway(rules, durations="constant:20")
        async with client(at) as pika:
            for _ in range(100):
                report = await pika.run(prompts(150))
                if report.stopped is None:
                    break
                await asyncio.sleep(15)
        assert set(report.counts) <= {S.SUCCEEDED, S.UNKNOWN}
        ambiguous = [seen for seen in creates(at) if seen.fault is not None]
        assert report.counts.get(S.UNKNOWN, 0) <= len(ambiguous)
        charged_once(at)

    virtual_clock.run(story())


def test_side_by_side_means_on_the_wire() -> None:
    """Before the first acceptance no more than three requests are under way at the gateway, with 100 allowed."""

    async def story() -> None:
        at = gateway([{"on": "create", "do": {**answered(200, "{}"), "charge": True}}])
        transport = MemoryTransport(at)
        async with client(at, transport=transport, limits=Limits(submitting=100)) as pika:
            await pika.run(prompts(200))
        assert transport.max_active_requests == 3

    virtual_clock.run(story())


def test_a_batch_that_waits_for_its_source_delivers_a_refusal_after_a_second() -> None:
    """Nothing else is to be sent meanwhile, so the refusal is the row's own; the fifth alike stops the batch all the same."""

    async def story() -> None:
        at = gateway([{"on": "create", "do": answered(400, failure("no"))}])
        times: list[tuple[str, float]] = []

        async def slow_source() -> Any:
            for number in range(10):
                yield f"prompt {number}"
                await asyncio.sleep(60)

        async def collect(pika: PikaClient) -> None:
            async for job in pika.as_settled(slow_source()):
                times.append((str(job.status), asyncio.get_running_loop().time()))  # noqa: PERF401 - until it raises

        async with client(at) as pika:
            with pytest.raises(RefusedAlike):
                await collect(pika)
        assert [status for status, _ in times] == ["rejected"] * 4 + ["planned"] * 2
        assert all(60 * number < at < 60 * number + 2 for number, (_, at) in enumerate(times[:5]))

    virtual_clock.run(story())
