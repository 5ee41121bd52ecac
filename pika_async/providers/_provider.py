"""A gateway as a frozen record: data where data will do, a dialect's functions where not. Sends nothing."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from pika_async.errors import InvalidRequest
from pika_async.fields import Media, is_url
from pika_async.models import GenerationRequest, Receipt, Snapshot, TaskState
from pika_async.providers._failure import read_failure
from pika_async.providers._wire import DecodeError, HttpRequest, HttpResponse, parse_json

__all__ = ["Capability", "Dialect", "Provider", "inline"]


@attrs.frozen
class Capability:
    """What a provider does with one field of a request: `wire` is its spelling there, None if it cannot."""

    wire: str | None
    #: The range, the limit, or why it cannot.
    note: str = ""

    @property
    def supported(self) -> bool:
        """Whether the field may be sent."""
        return self.wire is not None


@attrs.frozen(kw_only=True)
class Dialect:
    """A wire shape that several providers share: four pure functions, and where to look for an id in a torn answer."""

    name: str
    create_path: str
    #: (provider, request, callback address) -> the JSON body of a submission.
    create_body: Callable[[Provider, GenerationRequest, str], dict[str, Any]]
    #: The parsed answer of a submission -> its receipt.
    receipt: Callable[[Any], Receipt]
    #: (base URL, task id) -> the request of one poll.
    poll: Callable[[str, str], HttpRequest]
    #: (the parsed answer of a poll, the task id asked for) -> what it says.
    snapshot: Callable[[Any, str], Snapshot]
    #: Matches a whole `"id": "..."` pair, the id in group 1.
    torn_id: re.Pattern[bytes]


#: A model as the pages write it. One that a gateway does not list yet may be asked for, a mistyped one not.
VERSION: Final = re.compile(r"[1-9][0-9]?(\.[0-9]{1,3})?")

#: Characters of a task id that a callback may name.
LONGEST_ID: Final = 256

#: A rule that one provider adds to the ranges that all share; raises `InvalidRequest`.
Rule = Callable[["Provider", GenerationRequest], None]


@attrs.frozen(kw_only=True)
class Provider:
    """One gateway: its address, its spellings, its limits. Two of them side by side show how they differ.

    `inline_limit` is how many characters of base64 an image may have in a body; 0 means addresses only.
    """

    name: str
    title: str
    dialect: Dialect
    #: None: the user must give one.
    base_url: str | None
    api_key_env: str
    documentation: str
    #: By field name of `GenerationRequest`.
    capabilities: Mapping[str, Capability]
    effects: tuple[str, ...]
    models: tuple[str, ...]
    default_model: str | None = None
    inline_limit: int = 0
    takes_callback: bool = False
    rules: tuple[Rule, ...] = ()

    def check(self, request: GenerationRequest) -> None:
        """Refuse what this gateway cannot do, before it costs.

        :raises InvalidRequest: names the field, the value and the way out.
        """
        for field, capability in self.capabilities.items():
            value = getattr(request, field)
            if value not in (None, False, ()) and not capability.supported:
                raise self.refusal(field, value, f"is not possible at {self.title}: {capability.note}")
        if request.strict and request.effect is not None and request.effect not in self.effects:
            raise self.refusal(
                "effect", request.effect,
                f"is no effect of {self.title}; it documents {', '.join(self.effects)} "
                "(strict=False, or --no-strict, sends any)",
            )  # fmt: skip
        if request.strict and request.model is not None and not VERSION.fullmatch(request.model):
            raise self.refusal("model", request.model, f"is no version; give {' or '.join(self.models)}")
        if isinstance(request.image, bytes):
            self.check_size("image", len(request.image))
        elif request.image is not None and not is_url(request.image) and not self.inline_limit:
            # Where files may be sent, the size of one is checked once it is known.
            reason = f"is a file, and {self.title} takes addresses only; upload it and give its URL"
            raise self.refusal("image", str(request.image), reason)
        if request.video is not None and not is_url(request.video):
            raise self.refusal("video", request.video, f"is no address; {self.title} takes one only: upload it first")
        for rule in self.rules:
            rule(self, request)

    def check_size(self, field: str, size: int) -> None:
        """Refuse a local file or bytes of `size` bytes that the body cannot hold as base64.

        :raises InvalidRequest: with both sizes, or because the gateway takes addresses only.
        """
        if not self.inline_limit:
            raise self.refusal(
                field,
                f"{size:,} bytes",
                f"cannot be sent: {self.title} takes addresses only; upload it and give its URL",
            )
        if 4 * ((size + 2) // 3) > self.inline_limit:
            raise self.refusal(
                field, f"{size:,} bytes",
                f"is more than {self.title} takes, {self.inline_limit // 4 * 3:,} bytes as base64 in the request; "
                "upload it and give its URL",
            )  # fmt: skip

    def refusal(self, field: str, value: object, reason: str) -> InvalidRequest:
        """The error for one field of a request."""
        return InvalidRequest(field=field, value=value, reason=reason)

    def encode_submission(self, request: GenerationRequest, base_url: str, callback_url: str) -> HttpRequest:
        """The paid call. `request` has passed `check`, and its local files have been read into bytes."""
        body = self.dialect.create_body(self, request, callback_url)
        return HttpRequest(
            method="POST",
            url=base_url + self.dialect.create_path,
            body=json.dumps(body, ensure_ascii=False, allow_nan=False).encode(),
            paid=True,
        )

    def decode_receipt(self, response: HttpResponse) -> Receipt:
        """What the answer says, whatever its shape; an id is also read from a torn or unreadable body."""
        try:
            body = self._read(response)
        except DecodeError as error:
            torn = self.dialect.torn_id.search(response.body)
            if torn is None:
                return Receipt(message=response.excerpt() or str(error))
            return Receipt(task_id=json_text(torn[1]))
        receipt = self.dialect.receipt(body)
        if receipt.task_id is not None:
            return receipt
        failure = read_failure(body)
        return attrs.evolve(receipt, failure_code=failure.code, message=failure.message or response.excerpt(), raw=body)

    def encode_poll(self, task_id: str, base_url: str) -> HttpRequest:
        """One look at a task; free."""
        return self.dialect.poll(base_url, task_id)

    def decode_snapshot(self, response: HttpResponse, task_id: str) -> Snapshot:
        """What a poll's answer says of `task_id`.

        :raises Unreadable: if the body is no JSON object, or is cut; ask again later.
        """
        body = self._read(response)
        if not isinstance(body, dict):
            raise DecodeError(f"no JSON object: {response.excerpt()}")
        if read_failure(body).code == "task_not_exist":
            return Snapshot(task_id=task_id, state=TaskState.MISSING, word="task_not_exist", raw=body)
        return self.dialect.snapshot(body, task_id)

    def decode_callback(self, body: bytes) -> str | None:
        """The task id that the body of a callback names: a feed's bare task, or an answer as a submission's.

        None where it names none that a task can have: at most 256 characters, all printable.
        """
        try:
            said = parse_json(body)
        except DecodeError:
            return None
        named = [self.named_task({"data": said}), self.named_task(said)]
        return next((it for it in named if it and len(it) <= LONGEST_ID and it.isprintable()), None)

    def named_task(self, said: Any) -> str | None:
        """The task id that an answer itself names."""
        return self.dialect.receipt(said).task_id

    @staticmethod
    def _read(response: HttpResponse) -> Any:
        if not response.complete:
            raise DecodeError("the answer was cut")
        return parse_json(response.body)


def json_text(escaped: bytes) -> str | None:
    """The text of a JSON string's inside, None if it is broken or empty."""
    try:
        text = parse_json(b'"' + escaped + b'"')
    except DecodeError:
        return None
    return text or None


def inline(media: Media) -> str:
    """An address as it is, bytes as base64: the two forms that a JSON body can hold."""
    if isinstance(media, bytes):
        return base64.b64encode(media).decode()
    if not is_url(media):
        raise TypeError("a local file is read before it is encoded")
    scheme, _, rest = str(media).partition("://")
    return f"{scheme.lower()}://{rest}"
