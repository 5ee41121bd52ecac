"""Pages of fal's queue at the emulator, over sockets: receipts, status, results, cancellation, webhooks, refusals."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import fal_client
import pytest
from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pika_async.emulator import FAULTS, Emulator
from tests.emulator.wire_client import FAL_BODY, FAL_ENDPOINT, WireClient
from tests.fakes.stepped_emulator import SteppedEmulator

pytestmark = pytest.mark.anyio

#: Price of the body in millionths of a dollar: 5 seconds at 720p.
PRICE = 200_000


def emulator(*rules: dict[str, Any], **options: Any) -> SteppedEmulator:
    """Return an emulator whose requests take 100 seconds of its clock, which moves when a test advances it."""
    return SteppedEmulator(scenario=rules, render=False, **{"durations": "constant:100", **options})


async def submit(client: WireClient, **options: Any) -> Any:
    reply = await client.fal_submit(**options)
    assert reply.status == 200
    return reply.json()


# -- the queue -----------------------------------------------------------------------------------------------------


async def test_a_request_passes_through_the_queue(session: aiohttp.ClientSession) -> None:
    """The receipt has three addresses; the status is 202 twice and then 200; the result is 400 until then."""
    async with emulator() as served:
        client = WireClient(session, served)
        receipt = await submit(client)
        root = f"{served.base_url('fal')}/fal-ai/pika/requests/{receipt['request_id']}"
        addresses = {"response_url": root, "status_url": f"{root}/status", "cancel_url": f"{root}/cancel"}
        common = {"request_id": receipt["request_id"], **addresses}
        assert receipt == {**common, "queue_position": 0}
        expected: list[tuple[int, dict[str, Any]]] = [
            (202, {"status": "IN_QUEUE", "queue_position": 0}),
            (202, {"status": "IN_PROGRESS", "logs": None}),
        ]
        for status, fields in expected:
            reply = await client.fal("GET", receipt["status_url"])
            assert (reply.status, reply.json()) == (status, {**common, **fields})
            assert reply.headers["x-fal-request-id"] == receipt["request_id"]
            early = await client.fal("GET", receipt["response_url"])
            assert (early.status, early.json()["detail"]) == (400, "Request is still in progress")
            served.advance(50)
        done = await client.fal("GET", f"{receipt['status_url']}?logs=1")
        completed = {"status": "COMPLETED", "logs": None, "metrics": {"inference_time": 100.0}}
        assert (done.status, done.json()) == (200, {**common, **completed})
        result = await client.fal("GET", receipt["response_url"])
        video = result.json()["video"]
        assert (result.status, video["content_type"]) == (200, "video/mp4")
        assert result.headers["X-Fal-Billable-Units"] == "1"
        assert (await client.call("GET", video["url"])).content[4:8] == b"ftyp"
        assert [(charge.task_id, charge.micro_usd) for charge in served.ledger] == [(receipt["request_id"], PRICE)]
        assert (served.refusals, served.cdn_credentials) == ([], [])


async def test_what_is_beyond_the_limit_waits(session: aiohttp.ClientSession) -> None:
    """Nothing is refused: two run at once, the others stand in the queue by their order and follow in turn."""
    async with emulator(in_flight={"fal": 2}) as served:
        client = WireClient(session, served)
        receipts = [await submit(client) for _ in range(5)]
        assert [receipt["queue_position"] for receipt in receipts] == [0, 0, 0, 1, 2]

        async def words() -> list[str]:
            return [(await client.fal("GET", receipt["status_url"])).json()["status"] for receipt in receipts]

        served.advance(50)
        assert await words() == ["IN_PROGRESS"] * 2 + ["IN_QUEUE"] * 3
        served.advance(100)
        assert await words() == ["COMPLETED"] * 2 + ["IN_PROGRESS"] * 2 + ["IN_QUEUE"]
        served.advance(150)
        assert await words() == ["COMPLETED"] * 5
        assert (len(served.ledger), served.refusals) == (5, [])


@pytest.mark.parametrize(
    ("code", "status", "kind", "is_model_error"),
    [
        ("content_moderation", 422, "content_policy_violation", True),
        ("content_policy_violation", 422, "content_policy_violation", True),
        ("request_timeout", 504, "request_timeout", False),
        ("internal_error", 500, "internal_error", False),
    ],
)
async def test_a_failure_is_in_the_status_and_in_the_result(
    session: aiohttp.ClientSession, code: str, status: int, kind: str, is_model_error: bool
) -> None:
    """The status is COMPLETED with an error; the result has a status of its own; nothing is billed."""
    fails = {"fault": "fails", "reason": "it broke", "code": code}
    async with emulator({"on": "create", "do": fails}) as served:
        client = WireClient(session, served)
        receipt = await submit(client)
        served.advance(100)
        done = await client.fal("GET", receipt["status_url"])
        assert done.status == 200
        assert {name: done.json()[name] for name in ("status", "error", "error_type")} == {
            "status": "COMPLETED", "error": "it broke", "error_type": kind,
        }  # fmt: skip
        result = await client.fal("GET", receipt["response_url"])
        detail = result.json()["detail"]
        assert result.status == status
        assert (detail[0]["msg"], detail[0]["type"]) == ("it broke", kind) if is_model_error else detail == "it broke"
        assert [result.headers[f"X-Fal-{name}"] for name in ("Error-Type", "No-Retry", "Billable-Units")] == [
            kind,
            "1",
            "0",
        ]
        assert served.ledger[0].fails


async def test_an_unknown_request_is_not_found(session: aiohttp.ClientSession) -> None:
    """Its status, its result and its cancellation are 404."""
    async with emulator() as served:
        client = WireClient(session, served)
        root = "/fal-ai/pika/requests/none"
        replies = [
            await client.fal("GET", f"{root}/status"),
            await client.fal("GET", root),
            await client.fal("PUT", f"{root}/cancel"),
        ]
        assert [(reply.status, reply.json()) for reply in replies] == [(404, {"status": "NOT_FOUND"})] * 3


# -- cancellation --------------------------------------------------------------------------------------------------


async def test_a_request_can_be_canceled(session: aiohttp.ClientSession) -> None:
    """The first cancellation is accepted and ends the request as failed and free; the next one is too late."""
    async with emulator(in_flight={"fal": 1}) as served:
        client = WireClient(session, served)
        receipt = await submit(client)
        first = await client.fal("PUT", receipt["cancel_url"])
        assert (first.status, first.json()) == (202, {"status": "CANCELLATION_REQUESTED"})
        done = (await client.fal("GET", receipt["status_url"])).json()
        assert (done["status"], done["error_type"]) == ("COMPLETED", "client_cancelled")
        assert (await client.fal("GET", receipt["response_url"])).status == 499
        second = await client.fal("PUT", receipt["cancel_url"])
        assert (second.status, second.json()) == (400, {"status": "ALREADY_COMPLETED"})
        assert [charge.fails for charge in served.ledger] == [True]
        assert served.gateway.count_in_flight("fal", served.now) == 0


async def test_a_completed_request_cannot_be_canceled(session: aiohttp.ClientSession) -> None:
    """It stays what it is."""
    async with emulator() as served:
        client = WireClient(session, served)
        receipt = await submit(client)
        served.advance(100)
        assert (await client.fal("PUT", receipt["cancel_url"])).status == 400
        assert (await client.fal("GET", receipt["response_url"])).status == 200


@pytest.mark.parametrize(
    ("do", "status", "is_canceled"),
    [
        ("too-late", 202, False),
        ({"fault": "answer", "status": 500}, 500, False),
        ({"fault": "delay", "seconds": 0}, 202, True),
    ],
)
async def test_a_cancellation_has_faults(
    session: aiohttp.ClientSession, do: Any, status: int, is_canceled: bool
) -> None:
    """One comes too late and the request goes on, one fails, one is answered slowly."""
    async with emulator({"on": "cancel", "do": do}) as served:
        client = WireClient(session, served)
        receipt = await submit(client)
        assert (await client.fal("PUT", receipt["cancel_url"])).status == status
        assert served.ledger[0].fails == is_canceled


# -- webhooks ------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def receiver(statuses: list[int]) -> AsyncIterator[tuple[str, asyncio.Queue[tuple[dict[str, str], bytes]]]]:
    """Receive webhooks, answer each with the next status and put it into a queue."""
    received: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()

    async def handle(request: web.BaseRequest) -> web.Response:
        received.put_nowait((dict(request.headers), await request.read()))
        return web.Response(status=statuses.pop(0) if statuses else 200)

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook", received
    finally:
        await runner.cleanup()


async def keys_of(client: WireClient) -> list[Ed25519PublicKey]:
    keys = (await client.fal("GET", "/.well-known/jwks.json", Authorization=None)).json()["keys"]
    assert {(key["kty"], key["crv"]) for key in keys} == {("OKP", "Ed25519")}
    return [Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "=")) for key in keys]


def signers_of(keys: list[Ed25519PublicKey], headers: dict[str, str], body: bytes) -> list[int]:
    """Return the numbers of the keys that signed a webhook, as its documentation says to check it."""
    given = [headers[f"X-Fal-Webhook-{name}"] for name in ("Request-Id", "User-Id", "Timestamp")]
    message = "\n".join([*given, hashlib.sha256(body).hexdigest()]).encode()
    found = []
    for number, key in enumerate(keys):
        with contextlib.suppress(InvalidSignature):
            key.verify(bytes.fromhex(headers["X-Fal-Webhook-Signature"]), message)
            found.append(number)
    return found


async def test_a_settled_request_sends_a_signed_webhook(session: aiohttp.ClientSession) -> None:
    """Its body is the result or the failure, and one of the public keys has signed it together with its time."""
    fails = {"on": "create", "prompt": "bad", "do": {"fault": "fails", "reason": "it broke"}}
    async with emulator(fails) as served, receiver([]) as (url, received):
        client = WireClient(session, served)
        keys = await keys_of(client)
        for prompt in ("good", "bad"):
            receipt = await submit(client, body={**FAL_BODY, "prompt": prompt}, query=f"?fal_webhook={url}")
            served.advance(100)
            headers, body = await received.get()
            result = (await client.fal("GET", receipt["response_url"])).json()
            is_good = prompt == "good"
            assert json.loads(body) == {
                "request_id": receipt["request_id"], "gateway_request_id": receipt["request_id"],
                "status": "OK" if is_good else "ERROR", "payload": result, "error": None if is_good else "it broke",
            }  # fmt: skip
            assert signers_of(keys, headers, body) == [1]
            assert signers_of(keys, headers, body + b" ") == []
            assert abs(int(headers["X-Fal-Webhook-Timestamp"]) - served.gateway.epoch - served.now) < 300


async def test_a_webhook_is_repeated_until_it_is_answered(session: aiohttp.ClientSession) -> None:
    """An error and a redirect do not end it; after a 2xx nothing more is sent."""
    async with emulator() as served, receiver([500, 302, 204]) as (url, received):
        client = WireClient(session, served)
        await submit(client, query=f"?fal_webhook={url}")
        served.advance(100)
        bodies = [(await received.get())[1]]
        for wait in (10, 30):
            while len(served.callbacks) < len(bodies):
                await asyncio.sleep(0)
            due_at = served.gateway.next_callback_at()
            assert due_at is not None
            assert due_at - served.callbacks[-1].at == pytest.approx(wait, abs=5)
            served.advance(wait)
            bodies.append((await received.get())[1])
        assert len(set(bodies)) == 1
        while len(served.callbacks) < 3:
            await asyncio.sleep(0)
        assert [sent.status for sent in served.callbacks] == [500, 302, 204]
        assert served.gateway.next_callback_at() is None


async def test_a_forged_webhook_has_the_signature_of_another_key(session: aiohttp.ClientSession) -> None:
    """It claims a success of the request, and none of the public keys has signed it."""
    async with emulator({"on": "callback", "do": "forged"}) as served, receiver([]) as (url, received):
        client = WireClient(session, served)
        keys = await keys_of(client)
        receipt = await submit(client, query=f"?fal_webhook={url}")
        served.advance(100)
        headers, body = await received.get()
        assert (json.loads(body)["request_id"], json.loads(body)["status"]) == (receipt["request_id"], "OK")
        assert signers_of(keys, headers, body) == []


async def test_a_canceled_request_sends_its_webhook_at_once(session: aiohttp.ClientSession) -> None:
    """There is one, when it is canceled, and none when it would have settled."""
    async with emulator() as served, receiver([]) as (url, received):
        client = WireClient(session, served)
        receipt = await submit(client, query=f"?fal_webhook={url}")
        await client.fal("PUT", receipt["cancel_url"])
        assert json.loads((await received.get())[1])["status"] == "ERROR"
        served.advance(200)
        assert served.gateway.due_callbacks(served.now) == []


# -- refusals and faults -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [None, "", "emulator-key", "Key other", "key emulator-key", "Key  emulator-key", "Bearer emulator-key"]
)
async def test_only_the_exact_key_is_accepted(session: aiohttp.ClientSession, value: str | None) -> None:
    """Every other value is answered with 401 everywhere, and nothing is charged."""
    async with emulator() as served:
        client = WireClient(session, served)
        receipt = await submit(client)
        replies = [
            await client.fal_submit(Authorization=value),
            await client.fal("GET", receipt["status_url"], Authorization=value),
            await client.fal("GET", receipt["response_url"], Authorization=value),
            await client.fal("PUT", receipt["cancel_url"], Authorization=value),
        ]
        assert [(reply.status, type(reply.json()["detail"])) for reply in replies] == [(401, str)] * 4
        assert {refusal.field for refusal in served.refusals} == {"Authorization"}
        assert len(served.ledger) == 1


@pytest.mark.parametrize("query", ["?fal_webhook=soon", "?fal_webhook=", "?webhook=https://a.example/x"])
async def test_a_wrong_parameter_is_refused(session: aiohttp.ClientSession, query: str) -> None:
    """A webhook must be an address, and no other parameter is known."""
    async with emulator() as served:
        assert (await WireClient(session, served).fal_submit(query=query)).status == 422
        assert served.ledger == []


async def test_paths_and_methods_are_checked(session: aiohttp.ClientSession) -> None:
    """Another application is a 404, another method a 405 that names the right one."""
    async with emulator() as served:
        client = WireClient(session, served)
        receipt = await submit(client)
        assert (await client.fal_submit(endpoint="fal-ai/pika/v9/text-to-video")).status == 404
        assert (await client.fal("GET", "/fal-ai/pika/v2.2/requests/x/status")).status == 404
        wrong = [
            await client.fal("GET", f"/{FAL_ENDPOINT}"),
            await client.fal("POST", receipt["status_url"], {}),
            await client.fal("POST", receipt["cancel_url"], {}),
        ]
        assert [(reply.status, reply.headers["Allow"]) for reply in wrong] == [
            (405, "POST"),
            (405, "GET"),
            (405, "PUT"),
        ]


async def test_an_exhausted_balance_is_refused(session: aiohttp.ClientSession) -> None:
    """It is a 403 of the host that says so."""
    async with emulator(funds=PRICE) as served:
        client = WireClient(session, served)
        await submit(client)
        refused = await client.fal_submit()
        assert (refused.status, refused.headers["X-Fal-Error-Type"]) == (403, "user_locked")
        assert "Exhausted balance" in refused.json()["detail"]
        assert len(served.ledger) == 1


@pytest.mark.parametrize(
    ("reason", "status", "kind"),
    [
        ("rate", 429, "rate_limited"), ("quota", 403, "user_locked"), ("key", 401, "unauthorized"),
        ("forbidden", 403, "forbidden"), ("no-channel", 503, "runner_scheduling_failure"), ("envelope", 422, None),
        ("invalid", 422, None), ("task", 404, None),
    ],
)  # fmt: skip
async def test_a_scenario_refuses_in_the_forms_of_this_wire(
    session: aiohttp.ClientSession, reason: str, status: int, kind: str | None
) -> None:
    """Errors of the host have a text and a type, those of the model a list; nothing is charged."""
    async with emulator({"on": "create", "do": {"fault": "refuse", "as": reason}}) as served:
        reply = await WireClient(session, served).fal_submit()
        assert (reply.status, served.ledger) == (status, [])
        assert (reply.json().get("error_type"), reply.headers.get("X-Fal-Error-Type")) == (kind, kind)


@pytest.mark.parametrize("name", [name for name, (places, _) in FAULTS.items() if "create" in places])
async def test_the_ledger_has_what_a_fault_charges(session: aiohttp.ClientSession, name: str) -> None:
    """A submission with a fault is in the ledger exactly if the fault charges it, before its answer is sent."""
    defaults = FAULTS[name][1]
    short = {key: 0.05 for key in ("seconds",) if key in defaults and name != "takes"}
    for charge in (True, False) if "charge" in defaults else (None,):
        do = {"fault": name, **short} | ({} if charge is None else {"charge": charge})
        async with emulator({"on": "create", "do": do}) as served:
            with contextlib.suppress(aiohttp.ClientError):
                await WireClient(session, served).fal_submit()
            assert len(served.ledger) == (0 if charge is False else 1), charge
            assert served.requests[0].fault == name


async def test_a_result_has_faults_of_its_own(session: aiohttp.ClientSession) -> None:
    """A result without an address, with another one, and one that is refused; the status says COMPLETED."""
    rules = [
        {"on": "result", "nth": 1, "do": "no-url"},
        {"on": "result", "nth": 1, "do": {"fault": "link", "url": "http://169.254.169.254/x"}},
        {"on": "result", "nth": 1, "do": {"fault": "answer", "status": 502}},
    ]
    async with emulator(*rules) as served:
        client = WireClient(session, served)
        receipt = await submit(client)
        served.advance(100)
        replies = [await client.fal("GET", receipt["response_url"]) for _ in range(4)]
        assert replies[0].json()["video"] is None
        assert replies[1].json()["video"]["url"] == "http://169.254.169.254/x"
        assert [reply.status for reply in replies] == [200, 200, 502, 200]


def test_cryptography_is_imported_for_webhooks_only() -> None:
    """A request without a webhook needs no extra beside the emulator's renderer."""
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from pika_async.emulator import Gateway\n"
        "gateway = Gateway(durations='constant:1')\n"
        "headers = {'Authorization': 'Key emulator-key', 'Content-Type': 'application/json'}\n"
        f"answer = gateway.handle('POST', '/fal/{FAL_ENDPOINT}', headers, b'{{\"prompt\": \"a\"}}', 0.0)\n"
        "assert gateway.due_callbacks(2.0) == []\n"
        "print(answer.status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "200"


async def test_the_released_client_of_fal_works_against_it(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fal's own client submits, follows and reads a request; its queue is only at another origin."""
    async with Emulator(durations="constant:0.05", render=False) as served:
        monkeypatch.setattr(fal_client.client, "QUEUE_URL_FORMAT", f"{served.base_url('fal')}/")
        fal = fal_client.AsyncClient(key=served.api_key)
        handle = await fal.submit(FAL_ENDPOINT, arguments=FAL_BODY)
        result = await handle.get()
        await (await fal._client).aclose()
        assert (await session.get(result["video"]["url"])).status == 200
        assert [charge.task_id for charge in served.ledger] == [handle.request_id]
        assert served.refusals == []
