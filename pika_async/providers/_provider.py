"""Gateway as a frozen record: data where data will do, the functions of a dialect where not. Sends nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import Any, Final

import attrs

from pika_async.errors import InvalidRequest
from pika_async.models import GenerationRequest, Receipt, Snapshot, TaskState
from pika_async.models.fields import is_url
from pika_async.providers._abilities import (
    BEARER,
    Authorization,
    CancelOutcome,
    FileUploads,
    Idempotency,
    origin,
    refused_address,
)
from pika_async.providers._capabilities import VERSION, Capability, with_younger_fields
from pika_async.providers._failure import Failure, only_item, read_failure, read_refusal
from pika_async.providers._receipts import find_task_id, salvage_receipt
from pika_async.providers._signatures import CallbackSignature
from pika_async.providers._verdicts import SubmitVerdict
from pika_async.providers._wire import DecodeError, HttpRequest, HttpResponse, parse_json

__all__ = ["Dialect", "Provider"]


@attrs.frozen(kw_only=True)
class Dialect:
    """Wire shape that several providers share: pure functions, and a pattern for task ids in torn answers.

    Those with a default are for what only some wires have.
    """

    name: str
    #: The path of a submission, with its query; where it depends on them: (provider, request, callback URL) -> path.
    create_path: str | Callable[[Provider, GenerationRequest, str], str]
    #: (provider, request, callback URL) -> the JSON body of a submission.
    create_body: Callable[[Provider, GenerationRequest, str], dict[str, Any]]
    #: (the parsed answer to a submission) -> its receipt.
    receipt: Callable[[Any], Receipt]
    #: (base URL, task id) -> the request of one poll.
    poll: Callable[[str, str], HttpRequest]
    #: (the parsed answer to a poll, the task id of the poll) -> its snapshot.
    snapshot: Callable[[Any, str], Snapshot]
    #: Matches a whole `"id": "..."` pair in a body that is not valid JSON; group 1 is the id, still escaped.
    torn_id: re.Pattern[bytes]
    #: (base URL, task id, `Receipt.handle`) -> the request of one poll. Without it, and without a handle: `poll`.
    poll_handle: Callable[[str, str, str], HttpRequest] | None = None
    #: (handle) -> the addresses in it. A handle with one at another origin than the provider's is dropped.
    addresses: Callable[[str], Iterable[str]] | None = None
    #: (an answer, its parsed body) -> its failure, instead of the family's reading of errors.
    failure: Callable[[HttpResponse, Any], Failure] | None = None
    #: (an answer to a submission, its receipt, whether its idempotency key was sent before) -> a verdict of its own.
    judge: Callable[[HttpResponse, Receipt, bool], SubmitVerdict | None] | None = None
    #: (base URL, handle or None, a snapshot that has succeeded without a URL) -> the request of its result.
    result: Callable[[str, str | None, Snapshot], HttpRequest | None] | None = None
    #: (the answer to that, the snapshot) -> the snapshot with the result, as failed, or as it was (it is too early);
    #: None where the answer is not usable.
    read_result: Callable[[HttpResponse, Snapshot], Snapshot | None] | None = None
    #: (base URL, task id, handle or None) -> the request that cancels a task.
    cancel: Callable[[str, str, str | None], HttpRequest] | None = None
    #: (the answer to that) -> its outcome.
    read_cancel: Callable[[HttpResponse], CancelOutcome] | None = None
    #: (provider, request, base URL) -> the free request for the price of a submission; None: it cannot be asked for.
    quote: Callable[[Provider, GenerationRequest, str], HttpRequest | None] | None = None
    #: (the parsed answer to that) -> US dollars; None: it has no price.
    read_quote: Callable[[Any], float | None] | None = None
    #: (base URL) -> the free request for the balance of the account.
    balance: Callable[[str], HttpRequest] | None = None
    #: (the parsed answer to that) -> US dollars; None: it has none.
    read_balance: Callable[[Any], float | None] | None = None


#: The longest `Receipt.handle`, in characters.
MAX_HANDLE_LENGTH: Final = 4096
#: The longest task id that a callback may name, in characters.
MAX_TASK_ID_LENGTH: Final = 256

#: The way out of a file that does not fit into a request.
_UPLOADER: Final = "let an uploader do that (PikaClient(uploader=...), --uploader)"

#: A check of one provider beyond the ranges that all share; raises `InvalidRequest`.
Rule = Callable[["Provider", GenerationRequest], None]


@attrs.frozen(kw_only=True)
class Provider:
    """One gateway: its base URL, its spellings, its limits. Two records side by side show how two gateways differ.

    :param name: the name for `find_provider`, the journal and the command line; lower case.
    :param title: the name in messages.
    :param dialect: the wire shape, `ENVELOPE` or `VIDEOS`, or your own.
    :param base_url: the gateway's URL; None if the user must give one.
    :param api_key_env: the environment variable that holds the API key.
    :param documentation: where the gateway documents its wire, for people.
    :param account_page: the address where a person sees the account (default: none is documented).
    :param capabilities: a row for each field of `GenerationRequest` beside prompt, key, metadata and strict. A
        duration, a resolution and a last image are refused where a record has no row for them.
    :param effects: the effects that the gateway documents.
    :param models: the models that the gateway documents.
    :param default_model: the model of a request that names none; None sends none.
    :param inline_limit: the longest base64 text of an image in a body, in characters (default 0: URLs only).
    :param takes_callback: whether the gateway calls back (default False).
    :param rules: further checks, called with the provider and the request (default none).
    :param authorization: the header that carries the key (default `Authorization`, as a bearer token).
    :param origins: further origins of the gateway, to which the key may be sent (default none).
    :param idempotency: how a submission can be repeated without a second charge (default None: it cannot).
    :param callback_signature: how its callbacks are signed (default None: they are not).
    :param uploads: the gateway's own storage for local files (default None: it has none).
    :param verified: whether the wire is documented by the gateway itself or was tried against it (default True).
    """

    name: str
    title: str
    dialect: Dialect
    base_url: str | None
    api_key_env: str
    documentation: str
    capabilities: Mapping[str, Capability] = attrs.field(converter=with_younger_fields)
    effects: tuple[str, ...]
    models: tuple[str, ...]
    account_page: str | None = None
    default_model: str | None = None
    inline_limit: int = 0
    takes_callback: bool = False
    rules: tuple[Rule, ...] = ()
    authorization: Authorization = BEARER
    origins: tuple[str, ...] = ()
    idempotency: Idempotency | None = None
    uploads: FileUploads | None = None
    verified: bool = True
    callback_signature: CallbackSignature | None = None

    def check(self, request: GenerationRequest) -> None:
        """Refuse a request that this gateway cannot serve, before it costs.

        The size of a local file is checked by `check_size`, once the file has been read.

        :raises InvalidRequest: names the field, the value and the way out.
        """
        for field, capability in self.capabilities.items():
            value = getattr(request, field)
            if value not in (None, False, ()) and not capability.supported:
                raise self.refusal(field, value, f"must be left out at {self.title}: {capability.note}")
        if request.strict and request.effect is not None and request.effect not in self.effects:
            raise self.refusal(
                "effect", request.effect,
                f"must be an effect that {self.title} documents: {', '.join(self.effects)}; "
                "strict=False (--no-strict) sends any text",
            )  # fmt: skip
        is_model = request.model is None or request.model in self.models or VERSION.fullmatch(request.model)
        if request.strict and not is_model:
            raise self.refusal("model", request.model, f"must be a version; give {' or '.join(self.models)}")
        for field, image in (("image", request.image), ("last_image", request.last_image)):
            if isinstance(image, bytes):
                self.check_size(field, len(image))
            elif image is not None and not is_url(image) and not self.inline_limit:
                raise self.url_only(field, image)
        if request.video is not None and not is_url(request.video):
            raise self.url_only("video", request.video)
        for rule in self.rules:
            rule(self, request)

    def check_size(self, field: str, size: int, path: PurePath | None = None) -> None:
        """Refuse a local file or bytes of `size` bytes that the body cannot hold as base64.

        :param path: the file, for the message; None for bytes.
        :raises InvalidRequest: with both sizes, or because the gateway takes URLs only.
        """
        shown = f"{size:,} bytes" if path is None else f"{path} ({size:,} bytes)"
        if not self.inline_limit:
            raise self.url_only(field, shown)
        if 4 * ((size + 2) // 3) > self.inline_limit:
            raise self.refusal(
                field, shown,
                f"must be at most {self.inline_limit // 4 * 3:,} bytes at {self.title}, which takes an image as base64 "
                f"in the request; make it smaller, upload it and give its URL, or {_UPLOADER}",
            )  # fmt: skip

    def check_upload(self, field: str, size: int, path: PurePath | None = None) -> None:
        """Refuse a local file or bytes of `size` bytes that the gateway's own storage does not take.

        :param path: the file, for the message; None for bytes.
        :raises InvalidRequest: with both sizes.
        """
        limits = {} if self.uploads is None else self.uploads.max_bytes
        limit = limits.get("video" if field == "video" else "image", size)
        if size > limit:
            raise self.refusal(
                field, f"{size:,} bytes" if path is None else f"{path} ({size:,} bytes)",
                f"must be at most {limit:,} bytes to be uploaded to {self.title}; make it smaller, or put it elsewhere "
                "and give its URL",
            )  # fmt: skip

    def url_only(self, field: str, value: object) -> InvalidRequest:
        """Return the error for a local file or bytes in a field that takes URLs only."""
        shown = f"{len(value):,} bytes" if isinstance(value, bytes) else str(value)
        return self.refusal(
            field, shown,
            f"must be a URL at {self.title}; upload the file and give its URL, {_UPLOADER}, "
            "or use a provider that takes files (`pika-async providers` lists them)",
        )  # fmt: skip

    def unreachable(self, field: str, url: str, kind: str) -> InvalidRequest:
        """Return the error for a URL that this gateway cannot fetch, because its host is not a public one.

        :param kind: the class of the host, see `unreachable_kind`.
        """
        return self.refusal(
            field, url,
            f"must be a public URL: {self.title} cannot reach this {kind} address; upload the file and give its public "
            f"URL, or give its path and {_UPLOADER}",
        )  # fmt: skip

    def refusal(self, field: str, value: object, reason: str) -> InvalidRequest:
        """Return the error for one field of a request."""
        return InvalidRequest(field=field, value=value, reason=reason)

    def trusted_origins(self, base_url: str) -> tuple[str, ...]:
        """Return the further origins to which the key of `base_url` may be sent: none where that is another host."""
        own = {origin(url) for url in (self.base_url or "", *self.origins)} - {None}
        return self.origins if origin(base_url) in own else ()

    def handle_refusal(self, handle: object, base_url: str) -> str | None:
        """Return why the handle of a receipt must not be used; None if it may."""
        if not isinstance(handle, str) or len(handle) > MAX_HANDLE_LENGTH:
            return f"it must be text of at most {MAX_HANDLE_LENGTH:,} characters"
        if self.dialect.addresses is None:
            return None
        addresses = tuple(self.dialect.addresses(handle))
        foreign = refused_address(addresses, (base_url, *self.trusted_origins(base_url)))
        return None if foreign is None else f"{foreign[:200]!r} is not at an origin of the gateway"

    def encode_submission(
        self, request: GenerationRequest, base_url: str, callback_url: str, *, idempotency_key: str | None = None
    ) -> HttpRequest:
        """Return the paid call for a request that has passed `check`, with its local files read into bytes.

        :param idempotency_key: a text that is new for each submission, and the same when one is repeated (default: none
            is sent). Not sent where the provider has no `idempotency`.
        """
        body = self.dialect.create_body(self, request, callback_url)
        path = self.dialect.create_path
        headers = {}
        if self.idempotency is not None and idempotency_key is not None:
            headers[self.idempotency.header] = idempotency_key
        return HttpRequest(
            method="POST",
            url=base_url + (path if isinstance(path, str) else path(self, request, callback_url)),
            body=json.dumps(body, ensure_ascii=False, allow_nan=False).encode(),
            paid=True,
            headers=headers,
        )

    def decode_receipt(self, response: HttpResponse) -> Receipt:
        """Read the answer to a submission, whatever its shape; a task id is read from a torn or invalid body too."""
        try:
            body = only_item(self._read(response))
        except DecodeError as error:
            return salvage_receipt(response, self.dialect.torn_id, str(error))
        own_reader = self.dialect.failure
        receipt, failure = self.dialect.receipt(body), own_reader(response, body) if own_reader else read_refusal(body)
        if receipt.task_id is not None and not receipt.task_id.strip():
            receipt = attrs.evolve(receipt, task_id=None)
        if receipt.task_id is None and failure.code is None:
            receipt = attrs.evolve(receipt, task_id=find_task_id(body))
        if receipt.task_id is not None and (failure.code is None or not failure.is_explicit):
            return receipt
        return attrs.evolve(
            receipt,
            failure_code=failure.code,
            failure_status=failure.status,
            message=failure.message or response.excerpt(),
            raw=body,
        )

    def own_verdict(self, response: HttpResponse, receipt: Receipt, *, repeated: bool) -> SubmitVerdict | None:
        """Return the verdict on a submission where it differs from that of the other gateways; None where it does not.

        :param repeated: whether the idempotency key of the submission was sent before.
        """
        if repeated and self.idempotency is not None and response.status == self.idempotency.conflict:
            return SubmitVerdict.UNKNOWN  # the earlier submission may have been accepted
        return None if self.dialect.judge is None else self.dialect.judge(response, receipt, repeated)

    def read_failure(self, response: HttpResponse) -> Failure | None:
        """Return the failure in the answer to a free request; None if its body is not JSON."""
        try:
            body = parse_json(response.body)
        except DecodeError:
            return None
        return self.dialect.failure(response, body) if self.dialect.failure else read_failure(body)

    def encode_poll(self, task_id: str, base_url: str, handle: str | None = None) -> HttpRequest:
        """Return the call that polls a task; free.

        :param handle: that of the task's receipt (default: none, so that the address is built from the id).
        """
        if handle is None or self.dialect.poll_handle is None:
            return self.dialect.poll(base_url, task_id)
        return self.dialect.poll_handle(base_url, task_id, handle)

    def decode_snapshot(self, response: HttpResponse, task_id: str) -> Snapshot:
        """Read the answer to a poll of `task_id`.

        :raises DecodeError: if the body is neither a JSON object nor a list, or was cut; poll again later.
        """
        body = self._read(response)
        if isinstance(body, list):
            body = {"data": body}
        if not isinstance(body, dict):
            raise DecodeError(f"the body must be a JSON object, not {response.excerpt()}")
        if self.dialect.failure is None and read_failure(body).code == "task_not_exist":
            return Snapshot(task_id=task_id, state=TaskState.MISSING, word="task_not_exist", raw=body)
        return self.dialect.snapshot(body, task_id)

    def encode_result(self, snapshot: Snapshot, base_url: str, handle: str | None = None) -> HttpRequest | None:
        """Return the free call for the result of a task that has succeeded without a URL; None if there is none."""
        if snapshot.state is not TaskState.SUCCEEDED_WITHOUT_URL or self.dialect.result is None:
            return None
        return self.dialect.result(base_url, handle, snapshot)

    def decode_result(self, response: HttpResponse, snapshot: Snapshot) -> Snapshot | None:
        """Read the answer to `encode_result`: see `Dialect.read_result`.

        :raises DecodeError: if the answer is not what the gateway documents; ask again later.
        """
        return None if self.dialect.read_result is None else self.dialect.read_result(response, snapshot)

    def decode_callback(self, body: bytes) -> str | None:
        """Return the task id in the body of a callback: a bare task of a feed, or the answer to a submission.

        None if there is none, or none that a task can have: at most 256 characters, all printable.
        """
        try:
            answer = parse_json(body)
        except DecodeError:
            return None
        ids = [self.task_id_in({"data": answer}), self.task_id_in(answer)]
        return next((it for it in ids if it and len(it) <= MAX_TASK_ID_LENGTH and it.isprintable()), None)

    def task_id_in(self, answer: Any) -> str | None:
        """Return the task id that a parsed answer itself names."""
        return self.dialect.receipt(answer).task_id

    @staticmethod
    def _read(response: HttpResponse) -> Any:
        """Return the JSON of an answer; a whole object or list decides, also where the length of the body was wrong."""
        try:
            body = parse_json(response.body)
        except DecodeError:
            if response.complete:
                raise
            body = None
        if not response.complete and not isinstance(body, dict | list):
            raise DecodeError("the answer was cut")
        return body
