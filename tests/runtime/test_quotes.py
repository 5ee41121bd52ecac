"""Quotes of providers: free, asked for once, and the money of an estimate where no price was given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import pytest

from pika_async import Account, FixedInterval, GenerationRequest, InvalidRequest, PikaClient
from pika_async._runtime.quotes import QUOTES_TIMEOUT_S
from pika_async.emulator import Emulator, Gateway
from pika_async.providers._wire import HttpRequest, HttpResponse, TransportFailure
from tests.fakes import virtual_clock
from tests.fakes.memory_gateway import ORIGIN, MemoryTransport, client, gateway, now, prompts

MELTING = GenerationRequest("a cat", image="https://pika.example/1.png", effect="Melt")


class Watched(MemoryTransport):
    """Transport that keeps the addresses of what was sent while it was open."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        self.sent: list[str] = []
        self.openings: list[str] = []

    async def open(self) -> None:
        self.openings.append("open")

    async def close(self) -> None:
        self.openings.append("close")

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        self.sent.append(request.url)
        return await super().send(request)


def over_sockets(served: Emulator, provider: str = "pika", **options: Any) -> PikaClient:
    given: dict[str, Any] = {"api_key": served.api_key, "polling": FixedInterval(0.05)}
    return PikaClient(provider, base_url=served.base_url(provider), **(given | options))


@pytest.mark.anyio
async def test_a_quote_is_what_is_charged() -> None:
    """It costs nothing. Where the wire cannot ask for a price, or has none, it is None."""
    async with Emulator(durations="constant:0.05", video_seconds=1) as served:
        async with over_sockets(served) as pika:
            quote = await pika.quote("a cat")
            assert await pika.quote(MELTING) == 0.465
            assert await pika.quote("a cat", duration=5) is None
            assert not served.ledger
            report = await pika.run(["a cat"])
            with pytest.raises(InvalidRequest, match=r"account.*must be the name of an account: pika"):
                await pika.quote("a cat", account="other")
        assert (quote, [job.cost for job in report.jobs]) == (0.45, [0.45])
        assert [charge.micro_usd for charge in served.ledger] == [450_000]
        async with over_sockets(served, "cometapi") as comet:
            assert await comet.quote("a cat") is None


@pytest.mark.anyio
@pytest.mark.parametrize("is_open", [False, True])
async def test_an_estimate_has_the_money_of_the_quotes(is_open: bool) -> None:
    """Of a client that is open, and of one that is not; it can be opened afterwards."""
    async with Emulator(durations="constant:0.05", video_seconds=1) as served:
        pika = over_sockets(served)
        wanted: list[GenerationRequest | str] = ["a cat", GenerationRequest("a dog"), MELTING]
        if is_open:
            async with pika:
                estimate = await pika.estimate(wanted, quotes=True)
        else:
            estimate = await pika.estimate(wanted, quotes=True)
        assert (estimate.money, estimate.unit, estimate.price, estimate.new_charges) == (1.365, "quote", None, 3)
        assert not served.ledger
        async with pika:
            report = await pika.run(["a cat"])
            assert report.ok


@pytest.mark.parametrize(
    ("options", "requests", "found"),
    [
        ({}, ["a cat"], (0.45, "quote")),
        ({"price": 0.3}, ["a cat", "a dog"], (0.6, "price")),
        ({}, ["a cat", GenerationRequest("a dog", duration=5)], (None, None)),
        ({}, [], (None, None)),
    ],
)
def test_a_price_of_the_user_goes_before_a_quote(options: Mapping[str, Any], requests: list[Any], found: Any) -> None:
    """Nothing is asked then. A sum of which a part is unknown is unknown."""

    async def story() -> None:
        transport = Watched(gateway())
        pika = client(transport.gateway, "pika", transport=transport, **options)
        estimate = await pika.estimate(requests, quotes=True)
        assert (estimate.money, estimate.unit) == found
        assert len(transport.sent) == (1 if requests and not options else 0)

    virtual_clock.run(story())


def test_requests_of_one_price_cause_one_request() -> None:
    """An estimate without quotes sends nothing, and opens no transport."""

    async def story() -> None:
        transport = Watched(gateway())
        pika = client(transport.gateway, "pika", transport=transport)
        assert (await pika.estimate(prompts(40))).money is None
        assert (transport.sent, transport.openings) == ([], [])
        estimate = await pika.estimate([*prompts(40), MELTING, attrs.evolve(MELTING, prompt="a dog")], quotes=True)
        assert estimate.money == pytest.approx(40 * 0.45 + 2 * 0.465, abs=1e-12)
        assert [url.rpartition("apis/")[2] for url in transport.sent] == [
            "pika%2Fpika-2.5%2Ftext-to-video/quote", "pika%2Fpikaffects%2Fimage-to-video/quote",
        ]  # fmt: skip
        assert transport.openings == ["open", "close"]

    virtual_clock.run(story())


@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "answer", "status": 500, "body": "{}"},
        "drop",
        {"fault": "answer", "status": 200, "body": '{"usd": -1}'},
    ],
)
def test_a_quote_that_fails_leaves_the_price_unknown(fault: Any) -> None:
    """Nothing is raised: the run goes on without a price."""

    async def story() -> None:
        async with client(gateway([{"on": "account", "do": fault}]), "pika") as pika:
            assert await pika.quote("a cat") is None
            estimate = await pika.estimate(["a cat"], quotes=True)
            assert (estimate.new_charges, estimate.money, estimate.unit) == (1, None, None)

    virtual_clock.run(story())


def test_all_quotes_of_an_estimate_share_their_time() -> None:
    """A gateway that does not answer holds up a preview once, not once for each price."""

    async def story() -> None:
        at = gateway([{"on": "account", "do": {"fault": "stall", "seconds": 3000}}])
        async with client(at, "pika") as pika:
            begun = now()
            estimate = await pika.estimate(["a cat", MELTING, "a dog"], quotes=True)
            assert (now() - begun, estimate.money) == (QUOTES_TIMEOUT_S, None)

    virtual_clock.run(story())


@pytest.mark.parametrize(("second", "money"), [("pika", 0.45), ("cometapi", None)])
def test_one_account_without_a_quote_leaves_the_price_unknown(second: str, money: float | None) -> None:
    """A job may go there."""

    async def story() -> None:
        at = gateway()
        names = {"first": "pika", "second": second}
        accounts = [
            Account(provider, name=name, api_key="k", base_url=f"{ORIGIN}/{provider}")
            for name, provider in names.items()
        ]
        pika = PikaClient(accounts, transport=Watched(at))
        assert (await pika.estimate(["a cat"], quotes=True)).money == money

    virtual_clock.run(story())
