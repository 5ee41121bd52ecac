"""Recorded exchanges with each gateway, from its public pages; `SOURCE.md` in each folder names the source."""

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
    """Load the samples of one provider, of the given kinds or of all."""
    files = sorted((FOLDER / provider).glob("*.json"))
    samples = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.name != "fields.json"]
    return [sample for sample in samples if not kinds or sample["kind"] in kinds]


def fields(provider: str) -> dict[str, Any]:
    """Load the names of all fields on the provider's page."""
    names: dict[str, Any] = json.loads((FOLDER / provider / "fields.json").read_text(encoding="utf-8"))
    return names


def response_of(sample: dict[str, Any]) -> HttpResponse:
    """Return the recorded answer as the transport would return it."""
    recorded = sample["response"]
    data = recorded["text"].encode() if "text" in recorded else json.dumps(recorded["body"]).encode()
    headers = {name.lower(): value for name, value in recorded["headers"].items()}
    return HttpResponse(status=recorded["status"], headers=headers, body=data)


def generation_request_of(sample: dict[str, Any]) -> GenerationRequest:
    """Return the generation request for which the SDK must send the recorded request."""
    fields = dict(sample["wanted"])
    for name, value in fields.items():
        if isinstance(value, dict) and "base64" in value:
            fields[name] = base64.b64decode(value["base64"])
    return GenerationRequest(fields.pop("prompt"), **fields)
