"""Decoders on arbitrary bytes and damaged recordings, and encoders against the documented request schemas."""

from __future__ import annotations

import base64
import copy
import json
import math
import zlib
from collections.abc import Coroutine
from pathlib import PurePath
from typing import Any, TypeVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pika_async import EFFECTS, Camera, GenerationRequest, InvalidRequest, Snapshot, TaskState
from pika_async._planning.actions import PollResult
from pika_async._runtime.gateway import GatewayClient
from pika_async.emulator import EMULATED_PROVIDERS, Gateway
from pika_async.models import Receipt
from pika_async.models.fields import has_host, is_url
from pika_async.providers import PROVIDERS, Provider
from pika_async.providers._failure import read_failure
from pika_async.providers._verdicts import (
    PollVerdict,
    SubmitOutcome,
    SubmitVerdict,
    classify_failure,
    classify_poll,
    classify_response,
    retry_after,
)
from pika_async.providers._wire import (
    MAX_BODY,
    DecodeError,
    HttpRequest,
    HttpResponse,
    SendPhase,
    TransportFailure,
    inflate,
    parse_json,
)
from tests import samples
from tests.fakes import memory_gateway
from tests.fakes.family import GATEWAYS, credential_headers

ORIGIN = "http://gateway.example"
TASK_ID = "the-task-of-the-poll"
T = TypeVar("T")

#: From the documentation, not from the decoders.
KNOWN_WORDS = {
    "", "0", "1", "2", "3", "pending", "running", "error", "failed", "succeeded", "success", "not_start", "submitted",
    "queued", "in_progress", "failure", "unknown", "finished", "completed", "fail",
}  # fmt: skip
NAMES = [
    "code", "msg", "message", "data", "error", "type", "task_id", "id", "status", "state", "video_url", "result_url",
    "poster", "last_frame", "fail_reason", "progress", "point", "refund", "create_time", "update_time", "submit_time",
    "finish_time", "videos", "seed", "resultUrl", "sharingUrl", "videoPoster", "imageThumb", "duration", "batch_id",
]  # fmt: skip
VALUES: list[Any] = [
    *KNOWN_WORDS, "SUCCESS", "FAILURE", "https://cdn.example/v.mp4", "http://", "https://[::1", "HTTPS://X", "ftp://x/v.mp4",
    "100%", "-1", "1e5", "nan", "inf", "1" * 90, "9" * 400, "task_not_exist", "200", "400", 0, 1, 200, 400, 200.0, -1, -0.0,
    101, 1e308, 2**70, 10**99, True, None, [], {}, "\u202e", "\x1b[2J",
]  # fmt: skip

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.sampled_from(VALUES)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=12,
)
objects = st.dictionaries(st.sampled_from(NAMES), values, max_size=8)
envelopes = objects.map(lambda data: {"code": 200, "msg": "", "data": data})
feeds = st.builds(lambda task, rows: {"id": task, "videos": rows}, scalars, st.lists(objects, max_size=2))
bodies = st.one_of(values, objects, envelopes, feeds).map(
    lambda value: json.dumps(value).encode("utf-8", "surrogatepass")
)
providers = st.sampled_from(sorted(PROVIDERS)).map(PROVIDERS.__getitem__)
emulated = st.sampled_from(sorted(EMULATED_PROVIDERS)).map(PROVIDERS.__getitem__)


def check_snapshot(snapshot: Snapshot) -> None:
    """Check the invariants of every snapshot."""
    assert isinstance(snapshot.task_id, str)
    assert snapshot.task_id
    assert isinstance(snapshot.state, TaskState)
    assert (snapshot.video is not None) == (snapshot.state is TaskState.SUCCEEDED)
    if snapshot.video is not None:
        assert is_url(snapshot.video.url)
        assert has_host(snapshot.video.url)
        for address in (snapshot.video.poster, snapshot.video.thumbnail, snapshot.video.share_url):
            assert address is None or is_url(address)
        assert snapshot.video.seed is None or type(snapshot.video.seed) is int
        assert snapshot.video.duration is None or math.isfinite(snapshot.video.duration)
    assert snapshot.progress is None or (type(snapshot.progress) is int and 0 <= snapshot.progress <= 100)
    assert snapshot.points is None or (math.isfinite(snapshot.points) and snapshot.points >= 0)
    for moment in (snapshot.created_at, snapshot.updated_at):
        assert moment is None or math.isfinite(moment)
    assert isinstance(snapshot.word, str)
    assert isinstance(snapshot.reason, str)
    (snapshot.word + snapshot.reason + snapshot.task_id).encode()
    assert snapshot.reason == "" or snapshot.state is TaskState.FAILED or not snapshot.known_word
    assert snapshot.url == (snapshot.video and snapshot.video.url) or not snapshot.known_word
    assert snapshot.known_word or snapshot.state is TaskState.RUNNING


def check_receipt(receipt: Receipt) -> None:
    """Check the invariants of every receipt."""
    assert receipt.task_id is None or (isinstance(receipt.task_id, str) and receipt.task_id)
    assert receipt.failure_code is None or (isinstance(receipt.failure_code, str) and receipt.failure_code)
    assert isinstance(receipt.message, str)


def read(provider: Provider, response: HttpResponse) -> Snapshot | None:
    """Apply both decoders and all verdicts to one answer; return the snapshot if it could be decoded."""
    receipt = provider.decode_receipt(response)
    check_receipt(receipt)
    outcome = classify_response(response, receipt)
    named = receipt.task_id is not None and receipt.failure_code is None
    assert (outcome.verdict is SubmitVerdict.ACCEPTED) == (200 <= response.status < 300 and named)
    assert (outcome.task_id is not None) == (outcome.verdict is SubmitVerdict.ACCEPTED)
    try:
        snapshot = provider.decode_snapshot(response, TASK_ID)
    except DecodeError:
        return None
    check_snapshot(snapshot)
    return snapshot


# --- any bytes, any JSON ------------------------------------------------------------------------------------------------


@given(providers, st.binary(max_size=200), st.booleans())
@example(PROVIDERS["cometapi"], b"", True)
@example(PROVIDERS["gptge"], b"\xef\xbb\xbf{}", True)
@example(PROVIDERS["gptge"], b'{"id":"\\ud800"}', True)
@example(PROVIDERS["gptge"], b'{"id":"\xff"', False)
@example(PROVIDERS["cometapi"], b'{"task_id":"\\', False)
@example(PROVIDERS["cometapi"], b'{"task_id":""', False)
def test_any_bytes_decode_or_raise_decode_error(provider: Provider, body: bytes, complete: bool) -> None:
    """A decoder raises nothing but `DecodeError` for any bytes, and its results keep their invariants."""
    read(provider, HttpResponse(status=200, body=body, complete=complete))


@pytest.mark.slow
@settings(max_examples=300)
@given(providers, bodies, st.sampled_from([200, 201, 400, 404, 429, 500, 503]))
def test_any_json_decodes_or_raises_decode_error(provider: Provider, body: bytes, status: int) -> None:
    """A decoder raises nothing but `DecodeError` for any JSON, and its results keep their invariants."""
    read(provider, HttpResponse(status=status, body=body))


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    "shape", ['{"error":{"code":%s}}', '{"code":%s}', '{"error":"x","code":%s}', '{"id":%s}', '{"data":%s}', '{"videos":[%s]}', "%s"]
)  # fmt: skip
def test_deep_nesting_decodes_or_raises_decode_error(provider: str, shape: str) -> None:
    """Nesting of any depth, also just below the recursion limit, breaks neither a decoder nor a verdict."""
    for depth in (*range(50, 1000, 19), 5_000, 100_000):
        body = (shape % ("[" * depth + "]" * depth)).encode()
        read(PROVIDERS[provider], HttpResponse(status=200, body=body))
        gateway = GatewayClient(PROVIDERS[provider], ORIGIN, OneAnswer(HttpResponse(status=400, body=body)))
        assert isinstance(result_of(gateway.poller.poll(TASK_ID)), PollResult)


@pytest.mark.slow
@given(bodies | st.binary(max_size=60))
@example(b"NaN")
@example(b'{"a": -Infinity}')
@example(b"1e999")
@example(b"9" * 5000)
@example(b"1." + b"9" * 5000)
@example(b'"\\udc00"')
@example(b"[" * 200_000)
@example(b'{"a":' * 200_000)
@example(b"\xff\xfe[\x00]\x00")
def test_parse_json_gives_a_finite_value_or_decode_error(body: bytes) -> None:
    """A parsed value can be written again as strict JSON in UTF-8; everything else raises `DecodeError`."""
    try:
        value = parse_json(body)
    except DecodeError as error:
        assert str(error)  # noqa: PT017 - both outcomes are right
        return
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


@given(values)
def test_a_failure_code_is_text_or_none(value: Any) -> None:
    """The failure code of any value is text that is not empty, or None."""
    failure = read_failure(value)
    assert failure.code is None or (isinstance(failure.code, str) and failure.code)
    assert isinstance(failure.message, str)


@given(
    st.sampled_from(["", "identity", "gzip", "x-gzip", "deflate", "br", "zstd", "gzip, gzip"]) | st.text(max_size=6),
    st.binary(max_size=80),
    st.sampled_from([None, 15, 31]),
    st.integers(0, 40),
)
def test_inflate_gives_bytes_or_decode_error(encoding: str, body: bytes, packed: int | None, cut: int) -> None:
    """Compressed, torn or random bytes under any coding give bytes within the limit, or `DecodeError`."""
    if packed is not None:
        stream = zlib.compressobj(wbits=packed)
        body = stream.compress(body) + stream.flush()
        body = body[: len(body) - cut] if cut else body
    try:
        plain, whole = inflate(body, encoding)
    except DecodeError:
        return
    assert isinstance(plain, bytes)
    assert isinstance(whole, bool)
    assert len(plain) <= max(MAX_BODY, len(body))


@pytest.mark.parametrize(("coding", "bits"), [("gzip", 31), ("deflate", 15)])
def test_inflate_restores_the_body_and_stops_at_the_limit(coding: str, bits: int) -> None:
    """A small body is restored whole; a compression bomb is cut at the limit and reported as incomplete."""
    for size, whole in ((10, True), (MAX_BODY, True), (64 * MAX_BODY, False)):
        stream = zlib.compressobj(wbits=bits)
        packed = b"".join(stream.compress(bytes(MAX_BODY)) for _ in range(size // MAX_BODY)) or stream.compress(
            bytes(size)
        )
        plain, complete = inflate(packed + stream.flush(), coding)
        assert len(plain) == min(size, MAX_BODY)
        assert complete == whole or size == MAX_BODY  # exactly full: the end of the stream may not have been read


@given(
    st.text(max_size=30) | st.integers().map(str) | st.floats().map(str)
    | st.sampled_from(["Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 99999 07:28:00 GMT", "Wed, 21 Oct 2026 25:61:00 GMT", "Wed, 21 Oct 2026 07:28:00 -9999", "1e309", "0x10", "١٢"]),
    st.text(max_size=30) | st.sampled_from(["", "Wed, 21 Oct 2026 07:27:00 GMT", "Wed, 21 Oct 2026 07:27:00 +9999"]),
    st.floats(0, 1e11),
)  # fmt: skip
def test_retry_after_is_none_or_within_its_limit(text: str, date: str, now: float) -> None:
    """For any values of the two headers the delay is None or from 0 to 300 seconds."""
    wait = retry_after({"retry-after": text, "date": date}, now)
    assert wait is None or 0 <= wait <= 300


# --- the gateway client -------------------------------------------------------------------------------------------------


class OneAnswer:
    """Transport that returns one answer, at once."""

    def __init__(self, answer: HttpResponse | TransportFailure) -> None:
        self.answer = answer

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        return self.answer


def result_of(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    raise AssertionError("the coroutine must not suspend")


headers = st.dictionaries(
    st.sampled_from(["retry-after", "date", "content-type", "location"]), st.text(max_size=12) | st.just("text/html"), max_size=3
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=300)
@given(providers, st.integers(100, 599), headers, bodies | st.binary(max_size=80), st.booleans())
def test_any_answer_gives_an_outcome_and_a_poll_result(
    provider: Provider, status: int, head: dict[str, str], body: bytes, complete: bool
) -> None:
    """Any status, headers and body give an outcome and a poll result; a task id is never read from a refusal."""
    answer = HttpResponse(status=status, headers=head, body=body, complete=complete)
    gateway = GatewayClient(provider, ORIGIN, OneAnswer(answer))
    outcome = result_of(memory_gateway.submit_once(gateway, GenerationRequest("a cat")))
    assert isinstance(outcome, SubmitOutcome)
    assert outcome.task_id is None or (outcome.task_id and 200 <= status < 300)
    result = result_of(gateway.poller.poll(TASK_ID))
    assert (result.snapshot is not None) == (
        result.verdict is PollVerdict.READ
    ) or result.verdict is PollVerdict.MISSING
    if result.snapshot is not None:
        assert result.snapshot.task_id == TASK_ID
        check_snapshot(result.snapshot)
    assert result.retry_after is None or 0 <= result.retry_after <= 300
    if result.verdict is PollVerdict.READ:
        assert 200 <= status < 300


@given(st.sampled_from(SendPhase), st.text(max_size=8) | st.sampled_from(["certificate", "url", "dns", "timeout"]))
def test_a_sent_request_is_never_judged_unsent(phase: SendPhase, kind: str) -> None:
    """A request that was sent and has no answer is in doubt, for every kind of failure."""
    verdict = classify_failure(TransportFailure(phase=phase, kind=kind, detail="")).verdict
    assert (verdict is SubmitVerdict.UNKNOWN) == (phase is SendPhase.SENT)


@given(st.integers(100, 599), bodies)
def test_only_a_successful_poll_is_decoded(status: int, body: bytes) -> None:
    """Only a 2xx is decoded, and only 401, 402, 403 and 407 stop the account."""
    verdict = classify_poll(HttpResponse(status=status, body=body), None)
    assert (verdict is PollVerdict.READ) == (200 <= status < 300)
    assert (verdict is PollVerdict.STOP) == (status in {401, 402, 403, 407})


# --- status words --------------------------------------------------------------------------------------------------------------

words = st.text(min_size=1, max_size=12) | st.sampled_from(
    ["done", "complete", "finish", "succeed", "expired", "4", "5", "-1", "cancelled", "paused", "succeeded!", "moderation", "ok", "FINISHED_", "200"]
)  # fmt: skip


def _is_new(word: str) -> bool:
    return word.strip().lower() not in KNOWN_WORDS


@given(words.filter(_is_new), st.sampled_from(["a", "b", "c"]), st.booleans())
def test_a_new_word_of_the_envelope_means_running(word: str, shape: str, with_url: bool) -> None:
    """A status word that no page lists neither fails nor settles a task, in every shape, with a URL or without."""
    task: dict[str, Any] = {"task_id": TASK_ID, "status": word, "msg": "odd", "fail_reason": "odd"}
    if shape == "a":
        task["state"] = word
    if with_url:
        task["video_url"] = "https://cdn.example/v.mp4"
    body = task if shape == "c" else {"code": 200 if shape == "a" else "success", "data": task}
    snapshot = read(PROVIDERS["cometapi"], HttpResponse(status=200, body=json.dumps(body).encode()))
    assert snapshot is not None
    assert (snapshot.state, snapshot.known_word, snapshot.task_id) == (TaskState.RUNNING, False, TASK_ID)


@given(words.filter(_is_new), st.sampled_from(["yescale", "gptge", "native"]), st.booleans())
def test_a_new_word_of_the_videos_dialect_means_running(word: str, provider: str, with_url: bool) -> None:
    """A status word that no page lists neither fails nor settles a video, with a URL or without."""
    row: dict[str, Any] = {"id": TASK_ID, "status": word, "error": "odd", "progress": 100}
    if with_url:
        row["resultUrl"] = "https://cdn.example/v.mp4"
    body = json.dumps({"id": TASK_ID, "videos": [row]}).encode()
    snapshot = read(PROVIDERS[provider], HttpResponse(status=200, body=body))
    assert snapshot is not None
    assert (snapshot.state, snapshot.known_word) == (TaskState.RUNNING, False)


@pytest.mark.parametrize(
    ("status", "state", "expected"),
    [
        ("", "succeeded", TaskState.SUCCEEDED),
        ("3", "", TaskState.SUCCEEDED),
        (3, None, TaskState.SUCCEEDED),
        ("paused", "running", TaskState.RUNNING),
        ("paused", "", TaskState.RUNNING),
        ("0", "", TaskState.QUEUED),
        (None, "", TaskState.QUEUED),
        ("2", "error", TaskState.FAILED),
        (2, "failed", TaskState.FAILED),
    ],
)
def test_status_and_state_of_the_envelope_are_combined(status: Any, state: Any, expected: TaskState) -> None:
    """The documented word of the two is used; an empty one is ignored beside another."""
    task = {"task_id": TASK_ID, "status": status, "state": state, "video_url": "https://cdn.example/v.mp4"}
    snapshot = read(
        PROVIDERS["cometapi"], HttpResponse(status=200, body=json.dumps({"code": 200, "data": task}).encode())
    )
    assert snapshot is not None
    assert snapshot.state is expected


@pytest.mark.parametrize(
    ("point", "refund", "points"),
    [
        ("400", "0", 400), (400, None, 400), ("400", "1", 0), (400, 400, 0), ("400", "150", 250), (400, 900, 0),
        (-5, None, None), ("-5", "0", None), ("nan", "0", None), (None, "1", None), (400, -50, 400), ("400", "x", 400),
        (0, 0, 0), (1e308, -1e308, 1e308),
    ],
)  # fmt: skip
def test_points_are_what_remains_charged(point: Any, refund: Any, points: float | None) -> None:
    """A refund is a flag at one gateway and an amount at another; an invalid number is None."""
    task = {"task_id": TASK_ID, "status": "2", "point": point, "refund": refund}
    snapshot = read(
        PROVIDERS["cometapi"], HttpResponse(status=200, body=json.dumps({"code": 200, "data": task}).encode())
    )
    assert snapshot is not None
    assert snapshot.points == points


# --- recorded answers, damaged ------------------------------------------------------------------------------------------

RECORDED = [
    (name, sample["name"], sample["response"]["body"])
    for name in samples.PROVIDERS
    for sample in samples.load(name, "create", "feed", "error")
    if isinstance(sample.get("response", {}).get("body"), dict)
]


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, each in inner for place in [(value, key), *_places(each)]]


def _doubled(value: Any, name: str, other: Any) -> str:
    """Return JSON with a second value after every field `name`."""
    if isinstance(value, dict):
        pairs = [(key, _doubled(each, name, other)) for key, each in value.items()]
        pairs += [(name, json.dumps(other))] if name in value else []
        return "{" + ", ".join(f"{json.dumps(key)}: {text}" for key, text in pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_doubled(each, name, other) for each in value) + "]"
    return json.dumps(value)


@pytest.mark.slow
@settings(max_examples=400)
@given(st.data())
def test_damaged_recordings_decode_or_raise_decode_error(data: st.DataObject) -> None:
    """A recorded answer that is cut, or whose fields are dropped, doubled, added or retyped, decodes or raises."""
    provider, _, recorded = data.draw(st.sampled_from(RECORDED))
    body = copy.deepcopy(recorded)
    text: str | None = None
    for _ in range(data.draw(st.integers(1, 3))):
        places = _places(body)
        if not places:
            break
        holder, key = data.draw(st.sampled_from(range(len(places))).map(places.__getitem__))
        match data.draw(st.sampled_from(["drop", "retype", "double", "add", "wrap"])):
            case "drop":
                del holder[key]
            case "retype":
                holder[key] = data.draw(values)
            case "wrap":
                holder[key] = [holder[key]]
            case "add" if isinstance(holder, dict):
                holder[data.draw(st.sampled_from(NAMES))] = data.draw(values)
            case _ if isinstance(key, str):
                text = _doubled(body, key, data.draw(scalars))
    raw = (json.dumps(body) if text is None else text).encode("utf-8", "surrogatepass")
    cut = data.draw(st.integers(0, len(raw)) | st.just(0))
    snapshot = read(PROVIDERS[provider], HttpResponse(status=200, body=raw[: len(raw) - cut], complete=not cut))
    assert not (cut and snapshot)


@pytest.mark.parametrize(("provider", "name", "body"), [case for case in RECORDED if case[1] == "create-documented"])
def test_a_task_id_is_read_from_every_cut_that_holds_it(provider: str, name: str, body: dict[str, Any]) -> None:
    """From a receipt that is cut anywhere, the task id is read exactly when it and its closing quote came whole."""
    raw = json.dumps(body).encode()
    task_id = PROVIDERS[provider].decode_receipt(HttpResponse(status=200, body=raw)).task_id
    assert task_id is not None
    held = raw.index(task_id.encode()) + len(task_id) + 1
    for end in range(len(raw)):
        receipt = PROVIDERS[provider].decode_receipt(HttpResponse(status=200, body=raw[:end], complete=False))
        assert receipt.task_id == (task_id if end >= held else None), name


# --- encoding -----------------------------------------------------------------------------------------------------------

KINDS = {
    "cometapi": ("text", "image", "video"),
    "yescale": ("text", "image"),
    "gptge": ("text", "image", "video"),
    "native": ("text", "image", "ingredients"),
}
hosts = st.sampled_from(
    ["x.example", "cdn.pika.art:8443", "[2001:db8::1]", "bücher.example", "u:p@x.example", "127.0.0.1"]
)
paths = st.text(max_size=12).map(lambda text: "".join(text.split()).replace("\0", ""))
urls = st.builds(
    lambda scheme, host, path: f"{scheme}://{host}/{path}", st.sampled_from(["http", "https", "HTTPS"]), hosts, paths
)
prompts = st.text(min_size=1, max_size=40).filter(lambda text: text.strip() and "\0" not in text)
ratios = (
    st.floats(0.4, 2.5)
    | st.builds(lambda w, h: f"{w}:{h}", st.integers(1, 99_999), st.integers(1, 99_999))
    | st.decimals("0.4", "2.5", places=18).map(str)
    | st.sampled_from(["16:9", "9:16", "1:1", "4:5", "5:2", "2:5", 1, 2])
)
cameras = st.builds(
    Camera,
    pan=st.sampled_from([None, "left", "right"]),
    tilt=st.sampled_from([None, "up", "down"]),
    rotate=st.sampled_from([None, "cw", "ccw"]),
    zoom=st.sampled_from([None, "in", "out"]),
)
models = st.sampled_from(["1.5", "2.0", "2.2", "10", 1.5, 2, 3])


@st.composite
def fields_for(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """Draw fields that the capability table of one provider allows."""
    provider = PROVIDERS[name]
    kind = draw(st.sampled_from(KINDS[name]))
    fields: dict[str, Any] = {"prompt": draw(prompts)}
    if kind == "image":
        fields["image"] = draw(urls | st.binary(min_size=1, max_size=60) if provider.inline_limit else urls)
    elif kind == "video":
        fields["video"] = draw(urls)
    elif kind == "ingredients":
        fields["ingredients"] = draw(st.lists(urls, min_size=1, max_size=3))
        fields["ingredients_mode"] = draw(st.sampled_from([None, "precise", "creative"]))
    optional: dict[str, st.SearchStrategy[Any]] = {
        "effect": st.sampled_from(provider.effects).flatmap(lambda e: st.sampled_from([e, e.upper(), f" {e.lower()}"])),
        "frame_rate": st.integers(8, 24), "camera": cameras, "guidance_scale": st.integers(5, 25),
        "motion": st.integers(0, 4), "negative_prompt": st.text(max_size=10).map(lambda text: text.replace("\0", "")),
        "seed": st.integers(0, 2**63 - 1),
        "sfx": st.booleans(), "extend": st.booleans(), "model": models, "aspect_ratio": ratios,
        "key": st.sampled_from(["k", "order-17"]), "metadata": st.just({"a": 1}),
    }  # fmt: skip
    table = provider.capabilities
    for field, strategy in optional.items():
        if (field not in table or table[field].supported) and draw(st.booleans()):
            fields[field] = draw(strategy)
    if kind in {"image", "video"} and name != "yescale" and not (name == "gptge" and kind == "video"):
        fields.pop("aspect_ratio", None)
    if kind == "ingredients" and "model" in fields:
        fields["model"] = "2.0"
    if kind == "video" and name == "cometapi":
        fields.pop("model", None)
        fields.setdefault("effect", draw(st.sampled_from(provider.effects)))
    return fields


def submit_to_emulator(provider: Provider, request: GenerationRequest) -> tuple[Gateway, int, str]:
    """Encode a request and submit it to the emulated gateway; return the gateway, its status and its body."""
    url = f"{ORIGIN}/{provider.name}"
    call = provider.encode_submission(request, url, "https://callback.invalid/", idempotency_key="k-1")
    assert call.paid
    gateway = Gateway(durations="constant:100")
    own = {name.lower(): value for name, value in call.headers.items()}
    answer = gateway.handle(
        call.method,
        call.url.removeprefix(ORIGIN),
        own | credential_headers(provider.name, gateway.api_key) | {"content-type": "application/json"},
        call.body or b"",
        0.0,
    )
    return gateway, answer.status, answer.body.decode()


def check_charge(provider: Provider, request: GenerationRequest, gateway: Gateway) -> None:
    """Check that the gateway's record of the task equals the request, field by field."""
    (charge,) = gateway.ledger
    task = gateway.tasks[charge.task_id]
    assert charge.prompt == request.prompt
    if provider.name not in GATEWAYS:
        return
    assert task.seed == (task.seed if request.seed is None else request.seed)
    assert task.seed_requested == (request.seed is not None)
    assert task.frame_rate == (24 if request.frame_rate is None else request.frame_rate)
    if request.ratio is not None:
        assert task.aspect_ratio == pytest.approx(float(request.ratio), rel=1e-9)
    body = charge.body
    options = body.get("options", {})
    parameters = options.get("parameters", {})
    moves = request.camera.moves if request.camera else {}
    assert options.get("camera", {}) == moves
    assert body.get("style" if provider.dialect.name == "envelope" else "pikaffect") == request.effect
    for wire, value in (
        ("guidanceScale", request.guidance_scale),
        ("motion", request.motion),
        ("negativePrompt", request.negative_prompt),
    ):
        assert value is None or parameters[wire] == value
    if isinstance(request.image, bytes):
        assert base64.b64decode(body["image"]) == request.image
    for name in ("image", "video"):
        address = getattr(request, name)
        assert not is_url(address) or body[name].lower() == address.lower()
    assert body.get("ingredient", []) == [_lowered(each) for each in request.ingredients]
    assert "key" not in json.dumps(list(body))
    assert "metadata" not in body


def _lowered(address: Any) -> str:
    scheme, _, rest = str(address).partition("://")
    return f"{scheme.lower()}://{rest}"


@pytest.mark.parametrize("name", GATEWAYS)
@settings(max_examples=150)
@given(data=st.data())
def test_supported_fields_are_accepted_by_the_gateway(name: str, data: st.DataObject) -> None:
    """Every request of supported fields passes `check`, is answered 200 and charged, and is recorded as requested."""
    provider = PROVIDERS[name]
    fields = data.draw(fields_for(name))
    try:
        request = GenerationRequest(**fields)
    except InvalidRequest as error:
        assert error.field in {"aspect_ratio", "image", "video"} or error.field.startswith("ingredients[")  # noqa: PT017 - the strategies draw more than is valid
        return
    provider.check(request)
    gateway, status, body = submit_to_emulator(provider, request)
    assert status == 200, body
    check_charge(provider, request, gateway)


medias = (
    urls
    | st.binary(max_size=40)
    | st.text(max_size=20)
    | st.text(max_size=12).map("https://".__add__)
    | st.builds(PurePath, st.text(max_size=5))
)
everything = st.fixed_dictionaries(
    {"prompt": prompts},
    optional={
        "image": medias, "video": medias, "ingredients": st.lists(medias, max_size=2),
        "ingredients_mode": st.sampled_from(["precise", "creative"]), "effect": st.sampled_from(EFFECTS),
        "aspect_ratio": ratios, "frame_rate": st.integers(7, 25), "camera": cameras,
        "guidance_scale": st.integers(4, 26), "motion": st.integers(-1, 5), "negative_prompt": st.text(max_size=9),
        "seed": st.integers(-1, 2**63), "sfx": st.booleans(), "extend": st.booleans(),
        "model": models | st.text(max_size=6) | st.floats() | st.sampled_from(["0", "0.0", "1.", ".5", "1e1", "100", "٢.٠", "1.5\n"]),
    },
)  # fmt: skip


@settings(max_examples=600)
@given(emulated, everything)
def test_a_request_that_passes_check_is_accepted_by_the_gateway(provider: Provider, fields: dict[str, Any]) -> None:
    """A request with any fields is refused by `check` or answered 200; none is sent and then refused."""
    try:
        request = GenerationRequest(**fields)
        provider.check(request)
    except InvalidRequest:
        return
    if request.image is not None and not is_url(request.image) and not isinstance(request.image, bytes):
        return  # a file: read before it is encoded
    gateway, status, body = submit_to_emulator(provider, request)
    assert status == 200, body
    check_charge(provider, request, gateway)


@pytest.mark.parametrize("name", ["yescale", "gptge", "native"])
def test_the_largest_inline_image_fits_a_body_of_a_megabyte(name: str) -> None:
    """The largest image that passes `check` is accepted with every other field filled; one byte more is refused."""
    provider = PROVIDERS[name]
    limit = provider.inline_limit // 4 * 3
    request = GenerationRequest("ü" * 4000, image=b"\xff" * limit, negative_prompt="ü" * 1000, seed=2**63 - 1)
    provider.check(request)
    assert submit_to_emulator(provider, request)[1] == 200
    with pytest.raises(InvalidRequest, match="upload it and give its URL"):
        provider.check(GenerationRequest("a", image=b"\xff" * (limit + 1)))


@pytest.mark.parametrize("name", GATEWAYS)
@settings(max_examples=60)
@given(
    envelope=st.sampled_from(["a", "b", "b-old", "c", "c-result"]),
    failure=st.none() | st.text(min_size=1, max_size=20),
    ages=st.lists(st.floats(0, 200), min_size=1, max_size=6).map(sorted),
)
def test_a_task_is_decoded_at_every_age(name: str, envelope: Any, failure: str | None, ages: list[float]) -> None:
    """In every shape, a task is queued or running until it settles, then as the gateway recorded it."""
    provider = PROVIDERS[name]
    do = {"fault": "fails", "reason": failure} if failure else {"fault": "takes", "seconds": 100}
    gateway = Gateway(durations="constant:100", envelope=envelope, scenario=[{"on": "create", "do": do}])
    head = {"authorization": f"Bearer {gateway.api_key}", "content-type": "application/json"}
    call = provider.encode_submission(GenerationRequest("a cat"), f"{ORIGIN}/{name}", "https://callback.invalid/")
    answer = gateway.handle(call.method, call.url.removeprefix(ORIGIN), head, call.body or b"", 0.0)
    task_id = provider.decode_receipt(HttpResponse(status=answer.status, body=answer.body)).task_id
    assert task_id == gateway.ledger[0].task_id
    poll = provider.encode_poll(task_id, f"{ORIGIN}/{name}")
    for age in ages:
        answer = gateway.handle(poll.method, poll.url.removeprefix(ORIGIN), head, poll.body or b"", age)
        snapshot = provider.decode_snapshot(HttpResponse(status=answer.status, body=answer.body), task_id)
        check_snapshot(snapshot)
        assert snapshot.task_id == task_id
        if age < 100:
            assert snapshot.state in {TaskState.QUEUED, TaskState.RUNNING}
        else:
            assert snapshot.state is (TaskState.FAILED if failure else TaskState.SUCCEEDED)
            assert snapshot.reason == (failure or "")


@given(st.sampled_from(["yescale", "gptge", "native"]), st.text(min_size=1, max_size=20))
def test_a_task_id_stays_inside_its_path(name: str, task_id: str) -> None:
    """No task id changes the path that is polled, or adds a query."""
    url = PROVIDERS[name].encode_poll(task_id, ORIGIN).url
    tail = url.removeprefix(f"{ORIGIN}/pika/feed/")
    assert tail != url
    assert not set(tail) & set("/?#\\ \r\n")
    assert tail.isascii()
