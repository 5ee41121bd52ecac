"""Pages of Pika's own API at the emulator, over sockets: jobs, idempotency, money, uploads, refusals and faults."""

from __future__ import annotations

import contextlib
from typing import Any

import aiohttp
import pytest

from pika_async.emulator import FAULTS, Charge
from tests.emulator.wire_client import PIKA_BODY, PIKA_OPERATION, WireClient
from tests.fakes.stepped_emulator import SteppedEmulator

pytestmark = pytest.mark.anyio

#: Price of the body in millionths of a dollar: 5 seconds at 720p.
PRICE = 200_000


def emulator(*rules: dict[str, Any], **options: Any) -> SteppedEmulator:
    """Return an emulator whose jobs take 100 seconds of its clock, which moves when a test advances it."""
    return SteppedEmulator(scenario=rules, render=False, **{"durations": "constant:100", **options})


# -- jobs ----------------------------------------------------------------------------------------------------------


async def test_a_job_passes_through_its_states(session: aiohttp.ClientSession) -> None:
    """The receipt and each poll are the same document with explicit nulls; at the end it has a video and a price."""
    async with emulator() as served:
        client = WireClient(session, served)
        receipt = await client.pika_submit()
        job = receipt.json()
        pending = {"state": "pending", "charge_micro_usd": None}
        assert receipt.status == 200
        assert job == {"id": job["id"], "status": "queued", "error": None, "output": None, "billing": pending}
        served.advance(50)
        assert await client.pika_job(job["id"]) == {**job, "status": "running"}
        served.advance(50)
        done = await client.pika_job(job["id"])
        url = done["output"]["video"]["url"]
        assert done == {
            **job,
            "status": "completed",
            "output": {"media_type": "video", "video": {"url": url, "content_type": "video/mp4"}},
            "billing": {"state": "settled", "charge_micro_usd": PRICE},
        }
        video = await client.call("GET", url)
        assert (video.status, video.content[4:8]) == (200, b"ftyp")
        assert [(charge.task_id, charge.micro_usd) for charge in served.ledger] == [(job["id"], PRICE)]
        assert served.polls.of(job["id"]) == 2
        assert (served.cdn_credentials, served.refusals) == ([], [])


async def test_every_answer_has_a_request_id(session: aiohttp.ClientSession) -> None:
    """Each of them is another, whatever the answer."""
    async with emulator() as served:
        client = WireClient(session, served)
        replies = [
            await client.pika_submit(),
            await client.pika("GET", "/v1/media/jobs/none"),
            await client.pika("GET", "/billing/balance", X_API_Key="other"),
            await client.pika("GET", "/v1/nothing"),
        ]
        assert [reply.status for reply in replies] == [200, 404, 401, 404]
        assert len({reply.headers["X-Request-ID"] for reply in replies}) == 4


async def test_content_is_early_and_then_an_address(session: aiohttp.ClientSession) -> None:
    """404 while the job is queued, 409 while it runs, then the URL of the video."""
    async with emulator({"on": "feed", "do": {"fault": "output", "shape": "content"}}) as served:
        client = WireClient(session, served)
        job_id = (await client.pika_submit()).json()["id"]
        path = f"/v1/media/jobs/{job_id}/content"
        statuses = []
        for _ in range(2):
            reply = await client.pika("GET", path)
            statuses.append((reply.status, list(reply.json())))
            served.advance(50)
        assert statuses == [(404, ["message"]), (409, ["message"])]
        assert (await client.pika_job(job_id))["output"] == {"media_type": "video"}
        url = (await client.pika("GET", path)).json()["url"]
        assert (await client.call("GET", url)).content[4:8] == b"ftyp"
        assert (await client.pika("GET", "/v1/media/jobs/none/content")).status == 404


@pytest.mark.parametrize(
    ("shape", "key"), [("video", "video"), ("videos", "videos"), ("images", "images"), ("content", None)]
)
async def test_an_output_has_each_shape(session: aiohttp.ClientSession, shape: str, key: str | None) -> None:
    """One video, a list of videos, a list of pictures, or neither."""
    async with emulator({"on": "feed", "do": {"fault": "output", "shape": shape}}) as served:
        client = WireClient(session, served)
        job_id = (await client.pika_submit()).json()["id"]
        served.advance(100)
        output = (await client.pika_job(job_id))["output"]
        assert set(output) - {"media_type"} == ({key} if key else set())
        assert output["media_type"] == ("video" if key is None else key)


async def test_a_submission_can_answer_with_a_failed_job(session: aiohttp.ClientSession) -> None:
    """The job has its code and message at once, costs nothing, and is repeated under its key."""
    at_once = {"fault": "fails", "reason": "not allowed", "code": "content_moderation", "at_once": True}
    async with emulator({"on": "create", "nth": 1, "do": at_once}) as served:
        client = WireClient(session, served)
        first = await client.pika_submit(key="k")
        job = first.json()
        assert (first.status, job["status"], job["output"]) == (200, "failed", None)
        assert job["error"] == {"code": "content_moderation", "message": "not allowed"}
        assert job["billing"] == {"state": "settled", "charge_micro_usd": 0}
        assert (await client.pika_submit(key="k")).json() == job
        assert (await client.pika_submit(key="new")).json()["status"] == "queued"
        assert [(charge.fails, charge.fault) for charge in served.ledger] == [(True, "fails"), (False, None)]


# -- idempotency ---------------------------------------------------------------------------------------------------


async def test_a_key_names_one_job(session: aiohttp.ClientSession) -> None:
    """The same key and body are the same job and one charge, also when it has settled; another body is a 409."""
    async with emulator() as served:
        client = WireClient(session, served)
        job = (await client.pika_submit(key="k")).json()
        assert (await client.pika_submit(key="k")).json() == job
        for reply in (
            await client.pika_submit({**PIKA_BODY, "prompt": "a dog"}, key="k"),
            await client.pika_submit(dict(reversed(PIKA_BODY.items())), key="k"),
            await client.pika_submit(
                {"image": "https://a.example/b.png"}, key="k", operation="pika/pika-2.5/image-to-video"
            ),
        ):
            assert (reply.status, list(reply.json())) == (409, ["message"])
        served.advance(100)
        assert (await client.pika_submit(key="k")).json()["status"] == "completed"
        assert len(served.ledger) == 1
        assert {refusal.field for refusal in served.refusals} == {"Idempotency-Key"}


async def test_a_key_is_known_for_its_window(session: aiohttp.ClientSession) -> None:
    """Before its end a repetition is the same job; at its end it is a new job and a second charge."""
    async with emulator(idempotency_window=3600, time_scale=0.5) as served:
        client = WireClient(session, served)
        first = (await client.pika_submit(key="k")).json()["id"]
        served.advance(1790)
        assert (await client.pika_submit(key="k")).json()["id"] == first
        served.advance(10)
        assert (await client.pika_submit(key="k")).json()["id"] != first
        assert len(served.ledger) == 2


@pytest.mark.parametrize("name", ["cut", "drop", "stall", "body-stall", "garbage-status", "bad-chunk"])
async def test_a_lost_receipt_is_asked_for_again(session: aiohttp.ClientSession, name: str) -> None:
    """The job was accepted and charged; the same submission returns its receipt without another charge."""
    do = {"fault": name} | ({"seconds": 0.05} if "stall" in name else {})
    async with emulator({"on": "create", "nth": 1, "do": do}) as served:
        client = WireClient(session, served)
        with pytest.raises(aiohttp.ClientError):
            await client.pika_submit(key="k")
        receipt = (await client.pika_submit(key="k")).json()
        assert [charge.task_id for charge in served.ledger] == [receipt["id"]]


async def test_a_repetition_can_be_lost_too(session: aiohttp.ClientSession) -> None:
    """A fault counts repetitions as it counts submissions; one that accepts nothing leaves the known job as it is."""
    async with emulator({"on": "create", "nth": [2, 3], "do": {"fault": "answer", "status": 500}}) as served:
        client = WireClient(session, served)
        replies = [await client.pika_submit(key="k") for _ in range(4)]
        assert [reply.status for reply in replies] == [200, 500, 500, 200]
        assert replies[0].json() == replies[3].json()
        assert len(served.ledger) == 1


@pytest.mark.parametrize("name", [name for name, (places, _) in FAULTS.items() if "create" in places])
async def test_the_ledger_has_what_a_fault_charges(session: aiohttp.ClientSession, name: str) -> None:
    """A submission with a fault is in the ledger exactly if the fault charges it, before its answer is sent."""
    defaults = FAULTS[name][1]
    short = {key: 0.05 for key in ("seconds",) if key in defaults and name != "takes"}
    for charge in (True, False) if "charge" in defaults else (None,):
        do = {"fault": name, **short} | ({} if charge is None else {"charge": charge})
        async with emulator({"on": "create", "do": do}) as served:
            client = WireClient(session, served)
            with contextlib.suppress(aiohttp.ClientError):
                await client.pika_submit()
            assert len(served.ledger) == (0 if charge is False else 1), charge
            assert served.requests[0].fault == name


# -- money ---------------------------------------------------------------------------------------------------------


async def left_of(client: WireClient) -> int:
    left: int = (await client.pika("GET", "/billing/balance")).json()["balance_micro_usd"]
    return left


async def test_charges_are_taken_from_the_balance(session: aiohttp.ClientSession) -> None:
    """A job is paid when it is accepted; one that fails gives its price back; what is left covers one job and no more."""
    fails = {"on": "create", "nth": 1, "do": "fails"}
    async with emulator(fails, funds=2 * PRICE + 1) as served:
        client = WireClient(session, served)
        assert await left_of(client) == 2 * PRICE + 1
        await client.pika_submit()
        await client.pika_submit()
        assert await left_of(client) == 1
        refused = await client.pika_submit()
        assert (refused.status, refused.json()["error"]["code"]) == (402, "insufficient_balance")
        served.advance(100)
        assert await left_of(client) == PRICE + 1
        assert (await client.pika_submit()).status == 200
        assert len(served.ledger) == 3
        assert sum(charge_of(charge) for charge in served.ledger) == 2 * PRICE


def charge_of(charge: Charge) -> int:
    return 0 if charge.fails else charge.micro_usd


@pytest.mark.parametrize(
    ("api", "query", "micro_usd", "sell_usd"),
    [
        ("pika/pika-2.5/text-to-video", "?resolution=720p&duration_s=5", 200_000, "0.20"),
        ("pika/pika-2.5/text-to-video", "", 450_000, "0.45"),
        ("pika/pika-2.5/image-to-video", "?duration_s=10&resolution=720p", 400_000, "0.40"),
        ("pika/pikaffects/image-to-video", "", 465_000, "0.465"),
        ("pika/pika-h3-flex/text-to-video", "?duration=15&resolution=4k", 4_500_000, "4.50"),
    ],
)
async def test_a_quote_is_the_price(
    session: aiohttp.ClientSession, api: str, query: str, micro_usd: int, sell_usd: str
) -> None:
    """It is in millionths of a dollar and in dollars, needs no key, and the id may be escaped."""
    async with emulator() as served:
        client = WireClient(session, served)
        for name in (api, api.replace("/", "%2F")):
            reply = await client.pika("GET", f"/catalog/apis/{name}/quote{query}", X_API_Key=None)
            assert (reply.status, reply.json()) == (200, {"micro_usd": micro_usd, "sell_usd": sell_usd})
        assert (await client.pika("GET", "/catalog/apis/pika/none/quote")).status == 404
        assert (await client.pika("GET", f"/catalog/apis/{api}/quote?resolution=9k")).status == 422


# -- uploads -------------------------------------------------------------------------------------------------------

PICTURE = b"\x89PNG\r\n\x1a\n" + b"\x00" * 24


async def upload(client: WireClient, **changes: Any) -> Any:
    body = {"content_type": "image/png", "size_bytes": len(PICTURE), "filename": "cat.png", **changes}
    return (await client.pika("POST", "/v1/media/uploads", body)).json()


def named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("-", "_"): value for name, value in headers.items()}


async def test_an_uploaded_file_can_be_named(session: aiohttp.ClientSession) -> None:
    """It is put at another origin, with the headers that were given; before that its URL is refused."""
    async with emulator() as served:
        client = WireClient(session, served)
        given = await upload(client)
        assert given["upload_url"].startswith(served.cdn_url)
        assert given["url"].startswith("https://")
        body = {"image": given["url"], "prompt": "a cat"}
        early = await client.pika_submit(body, operation="pika/pika-2.5/image-to-video")
        assert (early.status, early.json()["error"]["code"]) == (422, "invalid_input")
        assert (await client.call("PUT", given["upload_url"], PICTURE, **named(given["headers"]))).status == 200
        assert served.uploads[given["url"]].content == PICTURE
        assert (await client.pika_submit(body, operation="pika/pika-2.5/image-to-video")).status == 200
        assert served.cdn_credentials == []


@pytest.mark.parametrize(
    ("method", "content", "changes", "status"),
    [
        ("PUT", PICTURE[:-1], {}, 400),
        ("PUT", PICTURE + b"x", {}, 400),
        ("POST", PICTURE, {}, 405),
        ("PUT", PICTURE, {"Content_Type": "image/jpeg"}, 403),
        ("PUT", PICTURE, {"x_amz_meta_upload_id": None}, 403),
        ("PUT", PICTURE, {"X_API_Key": "emulator-key"}, 400),
        ("PUT", PICTURE, {"Authorization": "Bearer other"}, 400),
    ],
    ids=["shorter", "longer", "POST", "another type", "a header less", "the key", "another key"],
)
async def test_an_upload_must_be_as_announced(
    session: aiohttp.ClientSession, method: str, content: bytes, changes: dict[str, str | None], status: int
) -> None:
    """Another size, method or header is refused and leaves no content; a key is recorded as a credential."""
    async with emulator() as served:
        client = WireClient(session, served)
        given = await upload(client)
        reply = await client.call(method, given["upload_url"], content, **{**named(given["headers"]), **changes})
        assert reply.status == status
        assert served.uploads[given["url"]].content is None
        assert len(served.cdn_credentials) == ("X_API_Key" in changes or "Authorization" in changes)


async def test_an_upload_url_expires(session: aiohttp.ClientSession) -> None:
    """It takes the content for five minutes."""
    async with emulator() as served:
        client = WireClient(session, served)
        given = await upload(client)
        served.advance(301)
        assert (await client.call("PUT", given["upload_url"], PICTURE, **named(given["headers"]))).status == 403


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"size_bytes": 20_000_001}, "size_bytes"),
        ({"content_type": "video/mp4", "size_bytes": 50_000_001}, "size_bytes"),
        ({"content_type": "text/html"}, "content_type"),
        ({"size_bytes": 0}, "size_bytes"),
        ({"size_bytes": "32"}, "size_bytes"),
        ({"filename": "../cat.png"}, "filename"),
        ({"name": "cat.png"}, "name"),
    ],
)
async def test_an_announcement_is_checked(session: aiohttp.ClientSession, changes: dict[str, Any], field: str) -> None:
    """A type, a size or a name that the page does not allow is refused by its field."""
    async with emulator() as served:
        reply = await upload(WireClient(session, served), **changes)
        assert reply["error"]["code"] == "invalid_input"
        assert [refusal.field for refusal in served.refusals] == [field]
        assert served.uploads == {}


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"X_API_Key": None},
        {"X_API_Key": "other"},
        {"X_API_Key": "Bearer emulator-key"},
        {"X_API_Key": None, "Authorization": "Bearer emulator-key"},
        {"X_API_Key": None, "Authorization": "Key emulator-key"},
    ],
)
async def test_only_the_key_in_its_header_is_accepted(
    session: aiohttp.ClientSession, headers: dict[str, str | None]
) -> None:
    """Every call but the quote is answered with 401 otherwise."""
    async with emulator() as served:
        client = WireClient(session, served)
        replies = [
            await client.pika_submit(operation=PIKA_OPERATION, **headers),
            await client.pika("GET", "/v1/media/jobs/some", **headers),
            await client.pika("GET", "/v1/media/jobs/some/content", **headers),
            await client.pika("GET", "/billing/balance", **headers),
            await client.pika("POST", "/v1/media/uploads", {}, **headers),
        ]
        assert [(reply.status, list(reply.json())) for reply in replies] == [(401, ["message"])] * 5
        assert {refusal.field for refusal in served.refusals} == {"X-API-Key"}
        assert served.ledger == []


@pytest.mark.parametrize("key", [None, "x" * 256, "k\u00e9y"])
async def test_a_submission_needs_an_idempotency_key(session: aiohttp.ClientSession, key: str | None) -> None:
    """None, a long one and one outside ASCII are refused."""
    async with emulator() as served:
        reply = await WireClient(session, served).pika_submit(key=key)
        assert (reply.status, served.ledger) == (400, [])
        assert [refusal.field for refusal in served.refusals] == ["Idempotency-Key"]


async def test_jobs_beyond_the_limit_are_refused_for_a_while(session: aiohttp.ClientSession) -> None:
    """The answer is a 429 with a `Retry-After`; a repetition of a known submission is not refused."""
    async with emulator(in_flight={"pika": 1}) as served:
        client = WireClient(session, served)
        first = await client.pika_submit(key="k")
        refused = await client.pika_submit()
        assert (refused.status, refused.json()["error"]["code"]) == (429, "rate_limited")
        assert refused.headers["Retry-After"] == "5"
        assert (await client.pika_submit(key="k")).json() == first.json()
        served.advance(100)
        assert (await client.pika_submit()).status == 200


@pytest.mark.parametrize(
    ("reason", "status", "code"),
    [
        ("rate", 429, "rate_limited"),
        ("quota", 402, "insufficient_balance"),
        ("key", 401, None),
        ("forbidden", 403, None),
        ("envelope", 422, "content_moderation"),
        ("invalid", 422, "invalid_input"),
        ("no-channel", 503, "provider_unavailable"),
        ("task", 404, None),
    ],
)
async def test_a_scenario_refuses_in_the_forms_of_this_wire(
    session: aiohttp.ClientSession, reason: str, status: int, code: str | None
) -> None:
    """Each refusal has its status, and its code where the wire has one; nothing is charged."""
    refuse = {"fault": "refuse", "as": reason, "retry_after": 7}
    async with emulator({"on": "create", "do": refuse}) as served:
        reply = await WireClient(session, served).pika_submit()
        assert (reply.status, served.ledger) == (status, [])
        assert reply.json().get("error", {}).get("code") == code


async def test_paths_and_methods_are_checked(session: aiohttp.ClientSession) -> None:
    """A path of no operation is a 404, another method a 405 that names the right one."""
    async with emulator() as served:
        client = WireClient(session, served)
        assert (await client.pika_submit(operation="pika/pika-9/text-to-video")).status == 404
        wrong = [
            await client.pika("GET", f"/v1/media/{PIKA_OPERATION}"),
            await client.pika("POST", "/v1/media/jobs/some", {}),
            await client.pika("POST", "/billing/balance", {}),
        ]
        assert [(reply.status, reply.headers["Allow"]) for reply in wrong] == [
            (405, "POST"),
            (405, "GET"),
            (405, "GET"),
        ]


async def test_polls_have_the_faults_of_feeds(session: aiohttp.ClientSession) -> None:
    """A job vanishes, has another word, is that of another job, or is pending again."""
    names = [
        "vanish",
        {"fault": "word", "word": "paused"},
        {"fault": "word", "word": None},
        "other-task",
        "unfinish",
        "no-url",
    ]
    rules = [{"on": "feed", "prompt": f"cat {number}", "do": do} for number, do in enumerate(names)]
    async with emulator(*rules) as served:
        client = WireClient(session, served)
        ids = [
            (await client.pika_submit({**PIKA_BODY, "prompt": f"cat {number}"})).json()["id"]
            for number in range(len(names))
        ]
        served.advance(100)
        jobs = [await client.pika_job(job_id) for job_id in ids]
        assert list(jobs[0]) == ["message"]
        assert (jobs[1]["status"], "status" in jobs[2]) == ("paused", False)
        assert jobs[3]["id"] != ids[3]
        assert jobs[4]["status"] == "running"
        assert (jobs[5]["status"], jobs[5]["output"]) == ("completed", None)
