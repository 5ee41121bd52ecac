"""`client.polling` and its `describe()`: what a batch taught, seen from outside."""

from __future__ import annotations

import pytest

from pika_async import (
    AdaptivePolling,
    ConfigurationError,
    DurationForecast,
    DurationSample,
    FixedInterval,
    GenerationRequest,
    Job,
    PollContext,
    PollingPolicy,
)
from tests.fakes import virtual_clock
from tests.fakes.memory_gateway import client, gateway


def test_the_policy_of_a_client_is_visible_and_stays() -> None:
    """The one that was given, else an adaptive one, before it is opened as well; it cannot be replaced."""
    policy = FixedInterval(5)
    assert client(gateway(), polling=policy).polling is policy
    pika = client(gateway())
    assert isinstance(pika.polling, AdaptivePolling)
    assert pika.polling is not client(gateway()).polling
    with pytest.raises(AttributeError):
        pika.polling = policy  # type: ignore[misc]


def test_what_a_batch_taught_is_described_by_stratum() -> None:
    """All settled tasks are counted, none is in flight, and the median is near that of the tasks, 60 s."""

    async def story() -> None:
        async with client(gateway(durations="lognormal:60,0.2", seed=3)) as pika:
            plain = [GenerationRequest(f"p{n}") for n in range(40)]
            effect = [GenerationRequest(f"e{n}", effect="Inflate") for n in range(10)]
            report = await pika.run([*plain, *effect])
            assert report.ok
            forecasts = pika.polling.describe()
        counts = {stratum: (forecast.settled, forecast.in_flight) for stratum, forecast in forecasts.items()}
        assert counts == {"cometapi/-/text/plain": (40, 0), "cometapi/-/text/effect": (10, 0)}
        for forecast in forecasts.values():
            assert 50 < forecast.median < 72
            assert 25 < forecast.polls[0] < forecast.median
        assert f"\n  why: learned from {forecasts['cometapi/-/text/plain'].settled} settled; " in str(forecasts)

    virtual_clock.run(story())


def test_jobs_that_wait_are_described_while_they_wait() -> None:
    """Nothing has settled: what was expected, and how many wait."""

    async def story() -> None:
        async with client(gateway(), polling=AdaptivePolling(expected_seconds=90)) as pika:
            jobs: list[Job] = [await pika.submit(f"p{n}") for n in range(3)]
            [forecast] = pika.polling.describe().values()
            assert isinstance(forecast, DurationForecast)
            assert (forecast.settled, forecast.in_flight, len(jobs)) == (0, 3, 3)
            assert forecast.median == pytest.approx(90, rel=0.02)

    virtual_clock.run(story())


def test_a_custom_policy_needs_two_methods() -> None:
    """Its delays are used, it receives the durations, and what it does not provide is empty."""

    class EveryTen(PollingPolicy):
        def __init__(self) -> None:
            self.samples: list[DurationSample] = []

        def next_delay(self, context: PollContext, u: float) -> float:
            return 10.0

        def observe(self, sample: DurationSample, last_unsettled_age: float | None = None) -> None:
            self.samples.append(sample)

    async def story() -> None:
        policy = EveryTen()
        async with client(gateway(durations="constant:35"), polling=policy) as pika:
            job = await pika.wait(await pika.submit("a cat"))
            assert job.polls == 4
            [sample] = policy.samples
            assert (sample.lower, sample.upper) == pytest.approx((30, 40), abs=1)
            assert (pika.polling.describe(), pika.stats().medians) == ({}, {})

    virtual_clock.run(story())


def test_a_policy_must_be_an_instance_of_the_base_class() -> None:
    """An object with the same methods is refused, and so is a class instead of an instance."""

    class Duck:
        def next_delay(self, context: PollContext, u: float) -> float:
            return 10.0

        def observe(self, sample: DurationSample, last_unsettled_age: float | None = None) -> None:
            pass

    for polling in (Duck(), AdaptivePolling, 5):
        with pytest.raises(ConfigurationError, match="polling: must be an instance of PollingPolicy, not "):
            client(gateway(), polling=polling)


def test_what_is_left_at_closing_waits_no_more() -> None:
    """A policy outlives many openings; who was in flight at each end is not counted for ever."""

    async def story() -> None:
        at = gateway(durations="constant:60")
        policy = AdaptivePolling()
        for opening in range(3):
            async with client(at, polling=policy) as pika:
                for number in range(5):
                    await pika.submit(f"prompt {opening} {number}")
                assert next(iter(policy.describe().values())).in_flight == 5
        assert next(iter(policy.describe().values())).in_flight == 0

    virtual_clock.run(story())
