"""Transport that records its exchanges, and their conversion to sample files without secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from pika_async._http.addresses import URL_PATTERN, redact_url
from pika_async._http.transport import Transport
from pika_async.models import GenerationRequest, Snapshot, TaskState
from pika_async.providers import Provider
from pika_async.providers._wire import DecodeError, HttpRequest, HttpResponse, TransportFailure, parse_json

__all__ = ["RecordedExchange", "RecordingTransport", "redact", "save_samples", "to_sample"]

#: Headers that a sample keeps; others may identify the account.
_RECORDED_HEADERS: Final = {"content-type": "Content-Type", "retry-after": "Retry-After"}
#: Names of fields whose text is a secret.
SECRET_NAME_PATTERN: Final = re.compile(
    r"^(x-?)?(api[_-]?key|authorization|cookie|password|passwd|secret)$|[_-]?(token|signature|secret)$", re.IGNORECASE
)
_KEY_PATTERN: Final = re.compile(r"\b(sk|pk|key)-[A-Za-z0-9_-]{8,}")
_STATES: Final = {
    TaskState.SUCCEEDED: "succeeded",
    TaskState.FAILED: "failed",
}


@attrs.frozen
class RecordedExchange:
    """One request and its response, or its failure."""

    request: HttpRequest
    response: HttpResponse | TransportFailure

    @property
    def body(self) -> Any:
        """JSON of the response; None if there is none."""
        if isinstance(self.response, TransportFailure):
            return None
        try:
            return parse_json(self.response.body)
        except DecodeError:
            return None


class RecordingTransport:
    """Transport that forwards to `inner` and records every exchange."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.exchanges: list[RecordedExchange] = []

    async def open(self) -> None:
        """See `Transport`."""
        await self._inner.open()

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        """See `Transport`."""
        response = await self._inner.send(request)
        self.exchanges.append(RecordedExchange(request, response))
        return response

    async def close(self) -> None:
        """See `Transport`."""
        await self._inner.close()


def _redact_url(found: re.Match[str]) -> str:
    """Return an address that keeps its form: a query becomes the word `redacted`."""
    return redact_url(found[0]) + ("?redacted" if "?" in found[0] else "")


def redact(value: Any, name: str = "") -> Any:
    """Return `value` without client IP addresses, credentials and URL signatures."""
    match value:
        case dict():
            return {key: redact(inner, str(key)) for key, inner in value.items()}
        case list():
            return [redact(inner, name) for inner in value]
        case str() if name.lower() in {"ip", "client_ip"}:
            return "192.0.2.1"
        case str() if value and SECRET_NAME_PATTERN.search(name):
            return "[redacted]"
        case str():
            return _KEY_PATTERN.sub("[key]", URL_PATTERN.sub(_redact_url, value))
        case _:
            return value


def to_sample(
    provider: Provider,
    exchange: RecordedExchange,
    *,
    name: str,
    kind: str,
    source: str,
    generation: GenerationRequest | None = None,
) -> dict[str, Any]:
    """Return `exchange` in the format of `tests/samples`, with the meaning that the decoders must find in it.

    :param name: name of the sample.
    :param kind: "create", "feed" or "error".
    :param source: where and when it was recorded.
    :param generation: the request of a create; default None.
    """
    url = urlsplit(exchange.request.url)
    path = url.path[url.path.rindex("/pika") :] if "/pika" in url.path else url.path
    sent = {} if exchange.request.body is None else {"body": redact(parse_json(exchange.request.body))}
    head = {"Content-Type": "application/json"} if sent else {}
    content = {
        "name": name, "kind": kind, "source": source, "origin": "live",
        "request": {"method": exchange.request.method, "path": path, "headers": head, **sent},
    }  # fmt: skip
    if generation is not None:
        content["wanted"] = {"prompt": generation.prompt}
    content["response"] = _response(exchange)
    content["means"] = _meaning(provider, exchange, kind)
    return content


def _response(exchange: RecordedExchange) -> dict[str, Any]:
    response = exchange.response
    if isinstance(response, TransportFailure):
        return {"status": 0, "headers": {}, "text": response.detail}
    headers = {shown: response.headers[name] for name, shown in _RECORDED_HEADERS.items() if name in response.headers}
    body = exchange.body
    content = {"text": redact(response.excerpt(2000))} if body is None else {"body": redact(body)}
    return {"status": response.status, "headers": headers, **content}


def _meaning(provider: Provider, exchange: RecordedExchange, kind: str) -> dict[str, Any]:
    response = exchange.response
    if isinstance(response, TransportFailure):
        return {}
    if kind == "create":
        task_id = provider.decode_receipt(response).task_id
        return {"task_id": task_id, "verdict": "accepted"} if task_id else {}
    try:
        snapshot = provider.decode_snapshot(response, _polled_task_id(exchange.request))
    except DecodeError:
        return {}
    if snapshot.state is TaskState.MISSING:
        return {"poll": "missing"}
    return _snapshot_meaning(snapshot) if kind == "feed" else {}


def _snapshot_meaning(snapshot: Snapshot) -> dict[str, Any]:
    means: dict[str, Any] = {"task_id": snapshot.task_id, "status": _STATES.get(snapshot.state, "waiting")}
    if snapshot.video is not None:
        means["url"] = redact(snapshot.video.url)
    if snapshot.points is not None:
        means["points"] = snapshot.points
    return means


def _polled_task_id(request: HttpRequest) -> str:
    if request.body is not None:
        body = parse_json(request.body)
        return str(body.get("task_id", "")) if isinstance(body, dict) else ""
    return request.url.rstrip("/").rpartition("/")[2]


def save_samples(folder: Path, samples: Mapping[str, Mapping[str, Any]]) -> None:
    """Write each sample to `folder`/NAME.json.

    :raises OSError: if a sample cannot be written or its file exists.
    """
    for name, content in samples.items():
        with (folder / f"{name}.json").open("x", encoding="utf-8") as file:
            json.dump(content, file, indent=2, ensure_ascii=False)
            file.write("\n")
