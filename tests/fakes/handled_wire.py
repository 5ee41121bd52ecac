"""A wire that has everything that the four gateways have not: handles, results elsewhere, cancellation, money."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from pika_async import Capability, GenerationRequest, Provider
from pika_async.models import Receipt, Snapshot, TaskState, Video
from pika_async.providers import Dialect
from pika_async.providers._abilities import Authorization, CancelOutcome, Idempotency
from pika_async.providers._failure import Failure
from pika_async.providers._verdicts import SubmitVerdict
from pika_async.providers._wire import DecodeError, HttpRequest, HttpResponse, parse_json

BASE = "https://api.acme.example"
OTHER_ORIGIN = "https://api2.acme.example"


def _receipt(body: Any) -> Receipt:
    found = body if isinstance(body, dict) else {}
    links = found.get("links")
    return Receipt(task_id=found.get("ticket"), handle=None if links is None else json.dumps(links), raw=body)


def _addresses(handle: str) -> Iterable[str]:
    links: dict[str, str] = json.loads(handle)
    return links.values()


def _poll(base_url: str, task_id: str) -> HttpRequest:
    return HttpRequest(method="GET", url=f"{base_url}/tickets/{task_id}")


def _poll_handle(_base_url: str, _task_id: str, handle: str) -> HttpRequest:
    return HttpRequest(method="GET", url=json.loads(handle)["status"])


def _snapshot(body: Any, task_id: str) -> Snapshot:
    states = {"wait": TaskState.QUEUED, "done": TaskState.SUCCEEDED_WITHOUT_URL}
    return Snapshot(task_id=task_id, state=states[body["now"]], word=body["now"], cost=body.get("cost"), raw=body)


def _result(base_url: str, handle: str | None, snapshot: Snapshot) -> HttpRequest | None:
    built = f"{base_url}/tickets/{snapshot.task_id}/video"
    return HttpRequest(method="GET", url=built if handle is None else json.loads(handle)["video"])


def _read_result(response: HttpResponse, snapshot: Snapshot) -> Snapshot | None:
    if response.status == 409:
        return snapshot
    if response.status == 422:
        return Snapshot(task_id=snapshot.task_id, state=TaskState.FAILED, word="done", reason="no such cat", raw={})
    if response.status != 200:
        return None
    url = parse_json(response.body).get("url")
    if url is None:
        raise DecodeError("the answer must have a URL")
    video = Video(url=url, task_id=snapshot.task_id)
    return Snapshot(task_id=snapshot.task_id, state=TaskState.SUCCEEDED, word="done", video=video, url=url)


def _failure(response: HttpResponse, body: Any) -> Failure:
    code = response.headers.get("x-acme-error")
    return Failure(code, body.get("why", "") if isinstance(body, dict) else "")


def _judge(_response: HttpResponse, receipt: Receipt, _repeated: bool) -> SubmitVerdict | None:
    return SubmitVerdict.STOP if receipt.failure_code == "club_members_only" else None


def _cancel(base_url: str, task_id: str, handle: str | None) -> HttpRequest:
    address = f"{base_url}/tickets/{task_id}" if handle is None else json.loads(handle)["status"]
    return HttpRequest(method="DELETE", url=address)


def _read_cancel(response: HttpResponse) -> CancelOutcome:
    outcomes = {202: CancelOutcome.REQUESTED, 409: CancelOutcome.TOO_LATE, 404: CancelOutcome.MISSING}
    return outcomes.get(response.status, CancelOutcome.REFUSED)


def _path(_provider: Provider, request: GenerationRequest, callback_url: str) -> str:
    return f"/make/{request.kind}?hook={callback_url}"


def _micro(body: Any) -> float | None:
    return body["micro"] / 1e6 if isinstance(body, dict) and "micro" in body else None


HANDLED = Dialect(
    name="handled",
    create_path=_path,
    create_body=lambda _provider, request, _callback: {"wish": request.prompt},
    receipt=_receipt,
    poll=_poll,
    snapshot=_snapshot,
    torn_id=re.compile(rb'"ticket"\s*:\s*"((?:[^"\\]|\\.){1,256})"'),
    poll_handle=_poll_handle,
    addresses=_addresses,
    failure=_failure,
    judge=_judge,
    result=_result,
    read_result=_read_result,
    cancel=_cancel,
    read_cancel=_read_cancel,
    quote=lambda _provider, request, base: HttpRequest(method="GET", url=f"{base}/price/{request.kind}"),
    read_quote=_micro,
    balance=lambda base: HttpRequest(method="GET", url=f"{base}/balance"),
    read_balance=_micro,
)
ACME = Provider(
    name="acme",
    title="Acme",
    dialect=HANDLED,
    base_url=BASE,
    api_key_env="ACME_API_KEY",
    documentation="made up",
    capabilities={"image": Capability("image", "a URL")},
    effects=(),
    models=("1.0", "turbo"),
    authorization=Authorization(header="X-API-Key", scheme=""),
    origins=(OTHER_ORIGIN,),
    idempotency=Idempotency(window=3600),
    verified=False,
)
