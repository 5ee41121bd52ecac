"""Routes of the emulated gateways: the gateway and the call that a path names. Does not read bodies."""

from __future__ import annotations

import re

import attrs

from pika_async.emulator.records import EMULATED_GATEWAYS, EMULATED_PROVIDERS, Answer
from pika_async.emulator.replies import json_answer, not_found

__all__ = ["Route", "find_route", "provider_of"]


@attrs.frozen(kw_only=True)
class Route:
    """One call of a provider's API. ``provider`` is ``None`` for the videos dialect at the root path.

    ``feeds`` marks CometAPI's feed, which has the task id in its body. ``task_id`` is set for a feed of the videos
    dialect, which has the task id in its path.
    """

    provider: str | None
    feeds: bool = False
    task_id: str | None = None


# The native page writes its feed URL with two slashes: https://{base_url}//pika/feed/{id}.
_PATH = re.compile(rf"(?:/({'|'.join(EMULATED_GATEWAYS)}))?/{{1,2}}pika/(pro/generate|generate|feed)(?:/([^/]+))?")


#: Paths of the gateways at the root, which begin like those of Pika's own API below its prefix.
_ROOT = re.compile(r"/{1,2}pika/(?:pro/generate|generate|feed)(?:/|$)")


def provider_of(path: str) -> str | None:
    """Return the provider whose prefix *path* begins with, or ``None`` at the root."""
    name = path.partition("?")[0].removeprefix("/").partition("/")[0]
    return name if name in EMULATED_PROVIDERS and not _ROOT.match(path.partition("?")[0]) else None


def find_route(method: str, path: str) -> Route | Answer:
    """Return the route of a request, or a 404 or 405 answer if there is none."""
    match = _PATH.fullmatch(path.partition("?")[0])
    if match is None:
        return not_found()
    prefix, call, task_id = match.groups()
    envelope = call == "pro/generate" or (call == "feed" and task_id is None)
    expected = "GET" if call == "feed" and not envelope else "POST"
    if (prefix is not None and (prefix == "cometapi") != envelope) or (call != "feed" and task_id is not None):
        return not_found()
    if method != expected:
        error = {"message": f"{method} is not allowed here", "type": "invalid_request_error", "param": None}
        return json_answer(405, {"error": {**error, "code": "method_not_allowed"}}, {"Allow": expected})
    return Route(provider="cometapi" if envelope else prefix, feeds=call == "feed" and envelope, task_id=task_id)
