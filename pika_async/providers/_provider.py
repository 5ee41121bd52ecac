"""Gateway as a frozen record: data where data will do, the functions of a dialect where not. Sends nothing."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, Final

import attrs

from pika_async.errors import InvalidRequest
from pika_async.models import GenerationRequest, Receipt, Snapshot, TaskState
from pika_async.models.fields import Media, is_url
from pika_async.providers._failure import only_item, read_failure, read_refusal
from pika_async.providers._receipts import find_task_id, salvage_receipt
from pika_async.providers._wire import DecodeError, HttpRequest, HttpResponse, parse_json

__all__ = ["Capability", "Dialect", "Provider", "inline"]


@attrs.frozen
class Capability:
    """Support of a provider for one field of a request."""

    #: The field's spelling on the wire; None if the provider has no such field.
    wire: str | None
    #: The range or the limit; why the provider has no such field.
    note: str = ""

    @property
    def supported(self) -> bool:
        """Whether the field can be sent."""
        return self.wire is not None


@attrs.frozen(kw_only=True)
class Dialect:
    """Wire shape that several providers share: four pure functions, and a pattern for task ids in torn answers."""

    name: str
    create_path: str
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


#: A model as the pages write it. A version that a gateway does not list yet can be sent, a mistyped one cannot.
VERSION: Final = re.compile(r"[1-9][0-9]?(\.[0-9]{1,3})?")

#: The longest task id that a callback may name, in characters.
MAX_TASK_ID_LENGTH: Final = 256

#: The way out of a file that does not fit into a request.
_UPLOADER: Final = "let an uploader do that (PikaClient(uploader=...), --uploader)"

#: Rows of the fields that records of other packages may not have yet.
_YOUNGER_FIELDS: Final = {
    field: Capability(None, f"its record documents no {field.replace('_', ' ')}")
    for field in ("duration", "resolution", "last_image")
}


def _with_younger_fields(rows: Mapping[str, Capability]) -> Mapping[str, Capability]:
    return {**rows, **{field: row for field, row in _YOUNGER_FIELDS.items() if field not in rows}}


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
    """

    name: str
    title: str
    dialect: Dialect
    base_url: str | None
    api_key_env: str
    documentation: str
    capabilities: Mapping[str, Capability] = attrs.field(converter=_with_younger_fields)
    effects: tuple[str, ...]
    models: tuple[str, ...]
    account_page: str | None = None
    default_model: str | None = None
    inline_limit: int = 0
    takes_callback: bool = False
    rules: tuple[Rule, ...] = ()

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
        if request.strict and request.model is not None and not VERSION.fullmatch(request.model):
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

    def encode_submission(self, request: GenerationRequest, base_url: str, callback_url: str) -> HttpRequest:
        """Return the paid call for a request that has passed `check`, with its local files read into bytes."""
        body = self.dialect.create_body(self, request, callback_url)
        return HttpRequest(
            method="POST",
            url=base_url + self.dialect.create_path,
            body=json.dumps(body, ensure_ascii=False, allow_nan=False).encode(),
            paid=True,
        )

    def decode_receipt(self, response: HttpResponse) -> Receipt:
        """Read the answer to a submission, whatever its shape; a task id is read from a torn or invalid body too."""
        try:
            body = only_item(self._read(response))
        except DecodeError as error:
            return salvage_receipt(response, self.dialect.torn_id, str(error))
        receipt, failure = self.dialect.receipt(body), read_refusal(body)
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

    def encode_poll(self, task_id: str, base_url: str) -> HttpRequest:
        """Return the call that polls a task; free."""
        return self.dialect.poll(base_url, task_id)

    def decode_snapshot(self, response: HttpResponse, task_id: str) -> Snapshot:
        """Read the answer to a poll of `task_id`.

        :raises DecodeError: if the body is neither a JSON object nor a list, or was cut; poll again later.
        """
        body = self._read(response)
        if isinstance(body, list):
            body = {"data": body}
        if not isinstance(body, dict):
            raise DecodeError(f"the body must be a JSON object, not {response.excerpt()}")
        if read_failure(body).code == "task_not_exist":
            return Snapshot(task_id=task_id, state=TaskState.MISSING, word="task_not_exist", raw=body)
        return self.dialect.snapshot(body, task_id)

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


def inline(media: Media) -> str:
    """Return a URL as it is, bytes as base64: the two forms that a JSON body can hold."""
    if isinstance(media, bytes):
        return base64.b64encode(media).decode()
    if not is_url(media):
        raise TypeError("a local file must be read into bytes before it is encoded")
    scheme, _, rest = str(media).partition("://")
    return f"{scheme.lower()}://{rest}"
