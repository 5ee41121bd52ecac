"""Recorded exchanges with each gateway, as its public page gives them; `SOURCE.md` of each folder says from where."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from pika_async import GenerationRequest
from pika_async.providers._wire import HttpResponse

FOLDER = Path(__file__).parent
PROVIDERS = ("cometapi", "yescale", "gptge", "native")


def load(provider: str, *kinds: str) -> list[dict[str, Any]]:
    """The samples of one provider, of some kinds or all."""
    files = sorted((FOLDER / provider).glob("*.json"))
    samples = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.name != "fields.json"]
    return [sample for sample in samples if not kinds or sample["kind"] in kinds]


def fields(provider: str) -> dict[str, Any]:
    """Every field that the provider's page names."""
    found: dict[str, Any] = json.loads((FOLDER / provider / "fields.json").read_text(encoding="utf-8"))
    return found


def response_of(sample: dict[str, Any]) -> HttpResponse:
    """The recorded answer as the transport gives it."""
    recorded = sample["response"]
    data = recorded["text"].encode() if "text" in recorded else json.dumps(recorded["body"]).encode()
    headers = {name.lower(): value for name, value in recorded["headers"].items()}
    return HttpResponse(status=recorded["status"], headers=headers, body=data)


def wanted_of(sample: dict[str, Any]) -> GenerationRequest:
    """What a user would have asked for to send the recorded request."""
    fields = dict(sample["wanted"])
    for name, value in fields.items():
        if isinstance(value, dict) and "base64" in value:
            fields[name] = base64.b64decode(value["base64"])
    return GenerationRequest(fields.pop("prompt"), **fields)
