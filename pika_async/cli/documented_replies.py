"""Documented reply fields of the gateways, and the differences of an actual reply. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from pika_async.errors import shorten
from pika_async.providers import Provider

__all__ = ["Difference", "DocumentedReply", "compare", "documented_reply"]

#: Python types of a JSON value, by the word for it in the tables below.
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "text": (str,),
    "number": (int, float),
    "whole": (int,),
    "object": (dict,),
    "list": (list,),
    "null": (type(None),),
    "any": (object,),
}


@attrs.frozen
class Difference:
    """Difference between a reply and its documentation. `kind` is missing, unknown, mistyped or word."""

    kind: str
    path: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}: {self.detail}"


@attrs.frozen(kw_only=True)
class DocumentedReply:
    """Documentation of one kind of reply.

    In a path, dots separate the levels and `videos[]` stands for each item of a list.

    :param fields: type words of each field, by path.
    :param required: paths that every reply must have.
    :param required_on_success: paths that the reply of a succeeded task must have too; default none.
    :param status_words: documented values by path; default none.
    """

    fields: Mapping[str, str]
    required: frozenset[str]
    required_on_success: frozenset[str] = frozenset()
    status_words: Mapping[str, frozenset[str]] = attrs.field(factory=dict)


#: From CometAPI's page "pika feed" and the example on its create page; numbers are text there.
_ENVELOPE: Final = {
    "create": DocumentedReply(
        fields={
            "code": "whole", "msg": "text null", "ip": "text null", "exec_time": "number null", "data": "object",
            "data.task_id": "text",
        },
        required=frozenset({"data", "data.task_id"}),
    ),
    "feed": DocumentedReply(
        fields={
            "code": "whole", "msg": "text null", "exec_time": "number null", "data": "object", "data.task_id": "text",
            "data.state": "text", "data.status": "text", "data.prompt": "text null", "data.prompt_en": "text null",
            "data.video_url": "text null", "data.poster": "text null", "data.last_frame": "text null",
            "data.msg": "text null", "data.point": "text", "data.refund": "text", "data.create_time": "text",
            "data.update_time": "text",
        },
        required=frozenset({"data", "data.task_id", "data.state", "data.status"}),
        required_on_success=frozenset(
            {"data.video_url", "data.poster", "data.point", "data.create_time", "data.update_time"}
        ),
        status_words={
            "data.status": frozenset("0123"),
            "data.state": frozenset({"", "pending", "running", "error", "failed", "succeeded", "success"}),
        },
    ),
}  # fmt: skip
#: From the page of the native dialect, which YEScale and gpt.ge share; YEScale's own create fields are below.
_VIDEOS: Final = {
    "create": DocumentedReply(fields={"id": "text"}, required=frozenset({"id"})),
    "feed": DocumentedReply(
        fields={
            "id": "text", "promptText": "text", "videos": "list null", "videos[]": "object", "videos[].id": "text",
            "videos[].status": "text", "videos[].seed": "whole null", "videos[].resultUrl": "text null",
            "videos[].sharingUrl": "text null", "videos[].videoPoster": "text null",
            "videos[].imageThumb": "text null", "videos[].duration": "number null", "videos[].error": "text null",
            "videos[].progress": "whole null",
        },
        required=frozenset({"id", "promptText", "videos[].status"}),
        required_on_success=frozenset({"videos", "videos[].resultUrl", "videos[].videoPoster", "videos[].duration"}),
        status_words={"videos[].status": frozenset({"queued", "pending", "finished", "error"})},
    ),
}  # fmt: skip
#: YEScale's page also lists the fields of other models; all are documented, only the id is required.
_YESCALE_CREATE: Final = (
    "message", "batch_id", "created_at", "estimate_wait_seconds", "last_frame", "liked", "prompt", "queue_state",
    "state", "thumbnail", "video", "video_raw", "code", "request_id", "data", "data.task_id", "data.task_status",
    "data.created_at", "data.updated_at",
)  # fmt: skip


def documented_reply(provider: Provider, kind: str) -> DocumentedReply | None:
    """Return the documentation of replies of `kind`, "create" or "feed"; None for a dialect of another package."""
    dialect_replies = {"envelope": _ENVELOPE, "videos": _VIDEOS}.get(provider.dialect.name)
    if dialect_replies is None:
        return None
    reply = dialect_replies[kind]
    if provider.name == "yescale" and kind == "create":
        return attrs.evolve(reply, fields={**reply.fields, **dict.fromkeys(_YESCALE_CREATE, "any")})
    return reply


def compare(reply: DocumentedReply, body: Any, *, succeeded: bool = False) -> list[Difference]:
    """Return every difference between a reply and its documentation.

    :param succeeded: whether the reply is the feed of a succeeded task; default False.
    """
    if not isinstance(body, dict):
        return [Difference("mistyped", "$", f"is {_kind(body)}, documented as an object")]
    values = list(_walk(body, ""))
    present = {path for path, _ in values}
    differences = [_check(reply, path, value) for path, value in values]
    required = reply.required | (reply.required_on_success if succeeded else frozenset())
    for path in sorted(required - present):
        parent = path.rpartition(".")[0]
        # Report a missing branch once.
        if not parent or parent in present:
            differences.append(Difference("missing", path, "is documented but missing"))
    if succeeded:
        differences += [
            Difference("missing", path, "is null although the task has succeeded")
            for path, value in values
            if path in reply.required_on_success and value is None
        ]
    return list(dict.fromkeys(difference for difference in differences if difference is not None))


def _walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            below = f"{path}.{name}" if path else name
            yield below, inner
            yield from _walk(inner, below)
    elif isinstance(value, list):
        for inner in value:
            yield f"{path}[]", inner
            yield from _walk(inner, f"{path}[]")


def _check(reply: DocumentedReply, path: str, value: Any) -> Difference | None:
    types = reply.fields.get(path)
    if types is None:
        # Report an undocumented branch once.
        parent = path.removesuffix("[]") if path.endswith("[]") else path.rpartition(".")[0]
        documented_parent = not parent or reply.fields.get(parent, "") not in {"", "any"}
        return Difference("unknown", path, f"is not documented ({_kind(value)})") if documented_parent else None
    if not _has_type(value, types.split()):
        return Difference("mistyped", path, f"is {_kind(value)}, documented as {types.replace(' ', ' or ')}")
    words = reply.status_words.get(path)
    if words is not None and str(value).lower() not in words:
        return Difference("word", path, f"{shorten(str(value))} is not a documented status word; it counts as running")
    return None


def _has_type(value: Any, types: Sequence[str]) -> bool:
    if isinstance(value, bool):
        return "any" in types
    return any(isinstance(value, _TYPES[name]) for name in types)


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "a boolean"
        case str():
            return "text"
        case int() | float():
            return "a number"
        case None:
            return "null"
        case list():
            return "a list"
        case _:
            return "an object"
