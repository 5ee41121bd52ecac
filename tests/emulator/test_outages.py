"""Scenarios of one provider among several that dies, runs out of balance or has no channel, over sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from pika_async.emulator import EMULATED_PROVIDERS, Emulator, Scenario, ScenarioError
from tests.emulator.wire_client import FAL_BODY, FAL_ENDPOINT, PIKA_BODY, PIKA_OPERATION, Reply, WireClient

pytestmark = pytest.mark.anyio

OPTIONS = {"aspectRatio": 16 / 9, "frameRate": 24, "parameters": {}, "extend": False}
#: The path and the body of a submission to each provider.
SUBMISSIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "cometapi": ("/pika/pro/generate", {"callback_url": "http://none.invalid", "prompt": "a cat", "ratio": "16:9"}),
    "yescale": ("/pika/generate", {"promptText": "a cat", "model": "1.5", "options": OPTIONS}),
    "gptge": ("/pika/generate", {"promptText": "a cat", "options": OPTIONS}),
    "native": ("/pika/generate", {"promptText": "a cat", "model": "1.5", "options": OPTIONS}),
    "pika": (f"/v1/media/{PIKA_OPERATION}", PIKA_BODY),
    "fal": (f"/{FAL_ENDPOINT}", FAL_BODY),
}


async def submit(client: WireClient, provider: str) -> Reply:
    """Submit to a provider with its own credential."""
    if provider == "pika":
        return await client.pika_submit()
    if provider == "fal":
        return await client.fal_submit()
    path, body = SUBMISSIONS[provider]
    headers: dict[str, str | None] = {
        "Authorization": f"Bearer {client.emulator.api_key}",
        "Content_Type": "application/json",
    }
    return await client.call("POST", client.emulator.base_url(provider) + path, body, **headers)


async def outcome(client: WireClient, provider: str) -> int | type[Exception]:
    """Return the status of a submission, or the type of the error of its connection."""
    try:
        return (await submit(client, provider)).status
    except aiohttp.ClientError as error:
        return type(error)


@pytest.mark.parametrize("provider", EMULATED_PROVIDERS)
async def test_a_provider_dies_and_refuses_connections(session: aiohttp.ClientSession, provider: str) -> None:
    """The submission that ends it is cut off and not charged; later ones find nothing listening; the others go on."""
    die = {"on": "create", "provider": provider, "nth": 3, "do": "die"}
    other = "native" if provider != "native" else "gptge"
    async with Emulator(scenario=[die], durations="constant:60", render=False) as served:
        client = WireClient(session, served)
        assert [await outcome(client, provider) for _ in range(2)] == [200, 200]
        assert await outcome(client, provider) in (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
        assert [await outcome(client, provider) for _ in range(3)] == [aiohttp.ClientConnectorError] * 3
        assert await outcome(client, other) == 200
        assert [charge.provider for charge in served.ledger] == [provider, provider, other]


async def test_open_connections_to_a_dead_provider_are_reset(session: aiohttp.ClientSession) -> None:
    """A submission that waits for its answer is charged and loses it: its receipt stays unknown."""
    rules: list[dict[str, Any]] = [
        {"on": "create", "provider": "gptge", "nth": 1, "do": {"fault": "delay", "seconds": 600}},
        {"on": "create", "provider": "gptge", "do": "die"},
    ]
    async with Emulator(scenario=rules, render=False) as served:
        client = WireClient(session, served)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(outcome(client, "gptge"))
            while not served.ledger:
                await asyncio.sleep(0)
            await outcome(client, "gptge")
        assert waiting.result() in (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
        assert len(served.ledger) == 1


async def test_a_dead_provider_comes_back(session: aiohttp.ClientSession) -> None:
    """After its seconds it listens at the same address and knows its tasks."""
    die = {"on": "create", "provider": "pika", "nth": 2, "do": {"fault": "die", "seconds": 0.2}}
    async with Emulator(scenario=[die], durations="constant:0", render=False) as served:
        client = WireClient(session, served)
        job_id = (await submit(client, "pika")).json()["id"]
        await outcome(client, "pika")
        while (status := await outcome(client, "pika")) != 200:
            assert isinstance(status, type)
            await asyncio.sleep(0.01)
        assert (await client.pika_job(job_id))["status"] == "completed"


@pytest.mark.parametrize("provider", EMULATED_PROVIDERS)
async def test_a_provider_dies_and_answers_with_a_status(session: aiohttp.ClientSession, provider: str) -> None:
    """Every later call is answered with it, polls too, and nothing is charged."""
    die = {"on": "create", "provider": provider, "nth": 2, "do": {"fault": "die", "status": 502}}
    async with Emulator(scenario=[die], durations="constant:0", render=False) as served:
        client = WireClient(session, served)
        assert [await outcome(client, provider) for _ in range(4)] == [200, 502, 502, 502]
        polled = await client.call("GET", f"{served.base_url(provider)}/pika/feed/some")
        assert (polled.status, len(served.ledger)) == (502, 1)


@pytest.mark.parametrize("provider", EMULATED_PROVIDERS)
async def test_a_balance_is_empty_after_some_charges(session: aiohttp.ClientSession, provider: str) -> None:
    """The first so many submissions are charged, and each later one is refused for the account."""
    empty = {"on": "create", "provider": provider, "after": 3, "do": {"fault": "refuse", "as": "quota"}}
    async with Emulator(scenario=[empty], render=False) as served:
        client = WireClient(session, served)
        statuses = [await outcome(client, provider) for _ in range(5)]
        refused = 402 if provider == "pika" else 403
        assert (statuses, len(served.ledger)) == ([200] * 3 + [refused] * 2, 3)


async def test_a_share_has_no_channel_whatever_the_others_do(session: aiohttp.ClientSession) -> None:
    """By the seed the same submissions of one provider are refused, however those of another fall between them."""
    rules = [
        {"on": "create", "provider": name, "share": 0.5, "do": {"fault": "refuse", "as": "no-channel"}}
        for name in ("gptge", "yescale")
    ]

    async def statuses(*, with_others: bool, seed: int) -> list[int | type[Exception]]:
        async with Emulator(scenario=rules, seed=seed, render=False) as served:
            client = WireClient(session, served)
            found = []
            for _ in range(60):
                if with_others:
                    await outcome(client, "yescale")
                found.append(await outcome(client, "gptge"))
            return found

    alone = await statuses(with_others=False, seed=1)
    assert set(alone) == {200, 503}
    assert 15 < alone.count(503) < 45
    assert await statuses(with_others=True, seed=1) == alone
    assert await statuses(with_others=False, seed=2) != alone


def test_a_death_is_checked() -> None:
    """It applies to the API alone, and its options have their ranges."""
    for rule, words in (
        ({"on": "cdn", "do": "die"}, "not cdn"),
        ({"on": "create", "do": {"fault": "die", "status": 99}}, "HTTP status"),
        ({"on": "create", "do": {"fault": "die", "seconds": -1}}, ">= 0"),
        ({"on": "create", "after": 0, "do": "die"}, '"after"'),
    ):
        with pytest.raises(ScenarioError, match=words):
            Scenario.of([rule])
