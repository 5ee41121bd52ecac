"""Signed callbacks: which are taken, with keys that are fetched once, and again only where none fits."""

from __future__ import annotations

import base64
import importlib
import json
import logging
from collections.abc import Mapping
from hashlib import sha256

import anyio
import attrs
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from pika_async import CallbackReceiver, ConfigurationError, PikaClient
from pika_async._http.document import DocumentUnavailable
from pika_async._runtime.callback_signatures import MAX_KEY_AGE_S, MIN_FETCH_INTERVAL_S, CallbackSignatures
from pika_async.providers import GPTGE
from pika_async.providers._fal_webhooks import FAL_SIGNATURE, check_signature, read_keys
from pika_async.providers._signatures import SignatureVerdict
from pika_async.providers.fal import FAL
from tests.fakes.receivers import RecordingHandler, post, send_raw, served, status_of

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000.0
BODY = b'{"request_id": "r-1", "status": "OK"}'
ONE, TWO = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
PREFIX = "x-fal-webhook-"
#: The path of a token that was never issued.
STRANGER = f"/hooks/callbacks/{'A' * 43}"


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def signed(
    key: Ed25519PrivateKey = ONE, body: bytes = BODY, at: float = NOW, changes: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the headers of a webhook."""
    values = {"request-id": "r-1", "user-id": "u-1", "timestamp": str(int(at))}
    text = "\n".join([*values.values(), sha256(body).hexdigest()])
    values["signature"] = key.sign(text.encode()).hex()
    return {f"{PREFIX}{name}": value for name, value in (values | dict(changes or {})).items()}


def key_set(*keys: Ed25519PrivateKey) -> bytes:
    rows = [
        {"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": base64.urlsafe_b64encode(public(key)).decode().rstrip("=")}
        for key in keys
    ]
    return json.dumps({"keys": rows}).encode()


# --- the signature itself ---------------------------------------------------------------------------------------------


def test_a_signature_over_request_user_time_and_body_is_valid() -> None:
    """Any of the keys may have made it: no header names one. Time and again: a callback only causes a poll."""
    for _ in range(2):
        assert check_signature(signed(), BODY, NOW, [public(TWO), public(ONE)]) is SignatureVerdict.VALID


@pytest.mark.parametrize("away", [-300, -299, 0, 300])
def test_a_clock_may_be_five_minutes_away(away: int) -> None:
    """Either way."""
    assert check_signature(signed(at=NOW + away), BODY, NOW, [public(ONE)]) is SignatureVerdict.VALID


@pytest.mark.parametrize("away", [-301, 301, 86_400])
def test_an_old_or_early_callback_is_invalid(away: int) -> None:
    """It may have been recorded."""
    assert check_signature(signed(at=NOW + away), BODY, NOW, [public(ONE)]) is SignatureVerdict.INVALID


@pytest.mark.parametrize("name", ["request-id", "user-id", "timestamp", "signature"])
def test_every_header_must_be_there(name: str) -> None:
    """Without one nothing is asked for."""
    headers = signed()
    del headers[f"{PREFIX}{name}"]
    assert check_signature(headers, BODY, NOW, [public(ONE)]) is SignatureVerdict.INVALID


@pytest.mark.parametrize(
    "changes",
    [
        {"signature": "zz"}, {"signature": "00" * 63}, {"signature": "00" * 65}, {"timestamp": "soon"},
        {"timestamp": "-1"}, {"timestamp": "1e9"}, {"timestamp": "9" * 5000}, {"timestamp": "١٨٠٠٠٠٠٠٠٠"},
    ],
)  # fmt: skip
def test_a_malformed_header_is_invalid(changes: dict[str, str]) -> None:
    """It is refused before a key is tried."""
    assert check_signature(signed(changes=changes), BODY, NOW, [public(ONE)]) is SignatureVerdict.INVALID


@pytest.mark.parametrize("changes", [{"request-id": "r-2"}, {"user-id": "u-2"}, {"timestamp": str(int(NOW) + 1)}])
def test_every_header_is_signed(changes: dict[str, str]) -> None:
    """Another request, user or time is another text."""
    assert check_signature(signed(changes=changes), BODY, NOW, [public(ONE)]) is SignatureVerdict.UNKNOWN_KEY


def test_the_body_is_signed() -> None:
    """A byte more is another text, and so is none."""
    for body in (BODY + b" ", b""):
        assert check_signature(signed(), body, NOW, [public(ONE)]) is SignatureVerdict.UNKNOWN_KEY


@given(st.dictionaries(st.sampled_from(sorted(signed())), st.text(max_size=80)), st.binary(max_size=20))
def test_no_other_headers_are_valid(headers: dict[str, str], body: bytes) -> None:
    """Whatever a stranger sends is refused without an exception."""
    assert check_signature(headers, body, NOW, [public(ONE), b"short"]) is not SignatureVerdict.VALID


@pytest.mark.parametrize(
    "document",
    [None, [], {"keys": None}, {"keys": [None, 1, {}, {"x": 1}, {"x": "!!"}, {"x": "AAAA"}, {"crv": "X25519", "x": "A" * 43}]}],
)  # fmt: skip
def test_what_is_not_a_key_is_left_out(document: object) -> None:
    """A document of another shape has no keys."""
    assert read_keys(document) == ()


def test_keys_are_read() -> None:
    """All of a set, at most twenty."""
    assert read_keys(json.loads(key_set(ONE, TWO))) == (public(ONE), public(TWO))
    assert len(read_keys(json.loads(key_set(*[ONE] * 50)))) == 20


def test_the_keys_of_another_host_are_its_own() -> None:
    """An emulator signs with its own; the gateway's keys are asked of the gateway alone."""
    assert (
        FAL_SIGNATURE.keys_address("https://queue.fal.run", FAL.base_url) == "https://rest.fal.ai/.well-known/jwks.json"
    )
    at_home = FAL_SIGNATURE.keys_address("http://127.0.0.1:8080/x", FAL.base_url)
    assert at_home == "http://127.0.0.1:8080/x/.well-known/jwks.json"


# --- the keys ---------------------------------------------------------------------------------------------------------


@attrs.define
class Publisher:
    """Publisher of keys, and the clock."""

    keys: tuple[Ed25519PrivateKey, ...] = (ONE,)
    broken: bool = False
    at: float = 0.0
    asked: list[str] = attrs.field(factory=list)

    async def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        await anyio.lowlevel.checkpoint()
        if self.broken:
            raise DocumentUnavailable(f"{url} answers HTTP 500")
        return key_set(*self.keys)

    def signatures(self) -> CallbackSignatures:
        return CallbackSignatures(
            FAL, "https://queue.fal.run", fetch=self.fetch, now=lambda: NOW + self.at, clock=lambda: self.at
        )


async def test_keys_are_fetched_once_for_many_callbacks() -> None:
    """When the first one comes, and not before."""
    publisher = Publisher()
    signatures = publisher.signatures()
    assert publisher.asked == []
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(signatures.is_authentic, signed(), BODY)
    assert [await signatures.is_authentic(signed(), BODY) for _ in range(5)] == [True] * 5
    assert publisher.asked == ["https://rest.fal.ai/.well-known/jwks.json"]


async def test_a_new_key_is_fetched_at_most_once_a_minute() -> None:
    """Forged callbacks cause no more requests than that."""
    publisher = Publisher()
    signatures = publisher.signatures()
    assert await signatures.is_authentic(signed(), BODY)
    publisher.keys = (TWO,)
    publisher.at = MIN_FETCH_INTERVAL_S - 1
    assert not await signatures.is_authentic(signed(TWO, at=NOW + publisher.at), BODY)
    assert len(publisher.asked) == 1
    publisher.at = MIN_FETCH_INTERVAL_S
    assert await signatures.is_authentic(signed(TWO, at=NOW + publisher.at), BODY)
    assert not await signatures.is_authentic(signed(ONE, at=NOW + publisher.at), BODY)
    for _ in range(50):
        assert not await signatures.is_authentic(signed(ONE, body=b"forged", at=NOW + publisher.at), BODY)
    assert len(publisher.asked) == 2


async def test_a_key_that_was_withdrawn_ends_within_a_day() -> None:
    """Keys are not believed for ever."""
    publisher = Publisher()
    signatures = publisher.signatures()
    assert await signatures.is_authentic(signed(), BODY)
    publisher.keys, publisher.at = (TWO,), MAX_KEY_AGE_S + 1
    assert not await signatures.is_authentic(signed(ONE, at=NOW + publisher.at), BODY)
    assert len(publisher.asked) == 2


async def test_an_invalid_callback_asks_for_no_key() -> None:
    """Without its headers it cannot become valid."""
    publisher = Publisher()
    signatures = publisher.signatures()
    assert await signatures.is_authentic(signed(), BODY)
    publisher.at = 2 * MIN_FETCH_INTERVAL_S
    assert not await signatures.is_authentic({}, BODY)
    assert not await signatures.is_authentic(signed(at=NOW - 10_000), BODY)
    assert len(publisher.asked) == 1


async def test_while_the_keys_cannot_be_read_nothing_is_authentic(caplog: pytest.LogCaptureFixture) -> None:
    """The sender repeats it; what is wrong is in the log."""
    publisher = Publisher(broken=True)
    signatures = publisher.signatures()
    with caplog.at_level(logging.WARNING):
        assert not await signatures.is_authentic(signed(), BODY)
        assert not await signatures.is_authentic(signed(), BODY)
    assert [record.getMessage() for record in caplog.records] == [
        f"the keys of callbacks cannot be read, so callbacks are refused: {FAL_SIGNATURE.keys_url} answers HTTP 500"
    ]
    publisher.broken, publisher.at = False, MIN_FETCH_INTERVAL_S
    assert await signatures.is_authentic(signed(at=NOW + publisher.at), BODY)


async def test_a_gateway_that_signs_nothing_needs_no_keys() -> None:
    """The token of its callbacks was checked before."""
    publisher = Publisher()
    signatures = CallbackSignatures(GPTGE, "https://api.gpt.ge", fetch=publisher.fetch)
    assert await signatures.is_authentic({}, b"anything")
    assert (signatures.are_checked, publisher.asked) == (False, [])


# --- the receiver -----------------------------------------------------------------------------------------------------


class Signed(RecordingHandler):
    """Handler of a gateway that signs."""

    async def is_authentic(self, token_sha256: str, headers: Mapping[str, str], body: bytes) -> bool:
        assert token_sha256 in self.tokens
        return check_signature(headers, body, NOW, [public(ONE)]) is SignatureVerdict.VALID


class Defective(RecordingHandler):
    """Handler that fails on every callback."""

    async def is_authentic(self, token_sha256: str, headers: Mapping[str, str], body: bytes) -> bool:
        raise RuntimeError(token_sha256)


def webhook(path: str, headers: Mapping[str, str]) -> bytes:
    return post(path, BODY, *(f"{name.title()}: {value}" for name, value in headers.items()))


@pytest.mark.parametrize("way", ["own", "aiohttp", "asgi"])
async def test_only_a_signed_callback_is_taken(way: str) -> None:
    """Every other gets the same 404 as a stranger, and may come again."""
    handler = Signed()
    async with served(way, handler) as (receiver, port):
        path = handler.issue_path(receiver)
        forged = [{}, signed(TWO), signed(body=b"other"), signed(at=NOW - 1000)]
        answers = [await send_raw(port, webhook(path, headers)) for headers in forged]
        assert [status_of(answer) for answer in answers] == [404] * 4
        assert handler.calls == []
        for _ in range(2):
            assert status_of(await send_raw(port, webhook(path, signed()))) == 202
        assert handler.bodies == [BODY, BODY]
        assert status_of(await send_raw(port, webhook(STRANGER, signed()))) == 404
        assert (receiver.received, receiver.refused) == (2, 5)


async def test_a_check_that_fails_takes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A defect does not open the door."""
    handler = Defective()
    async with served("own", handler) as (receiver, port):
        assert status_of(await send_raw(port, post(handler.issue_path(receiver), BODY))) == 404
        assert (handler.calls, receiver.refused) == ([], 1)
    assert [record.getMessage() for record in caplog.records if "a handler failed" in record.getMessage()] != []


def test_callbacks_need_the_package_that_checks_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the client says how to install it, and works without callbacks."""
    receiver = CallbackReceiver("https://hooks.example")
    PikaClient(FAL, api_key="a-key-of-fal", callbacks=receiver)
    module = importlib.import_module("pika_async.providers._signatures")
    monkeypatch.setattr(module, "find_spec", lambda _name: None)
    with pytest.raises(ConfigurationError, match=r'install it with pip install "pika-async\[fal\]"') as caught:
        PikaClient(FAL, api_key="a-key-of-fal", callbacks=receiver)
    assert caught.value.setting == "callbacks"
    PikaClient(FAL, api_key="a-key-of-fal")
