"""Mutants of the emulator's strictness, without which the suite would learn from requests that no gateway takes."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

_TESTS: Final = ("tests/emulator/test_strictness.py",)
_WIRES: Final = ("tests/emulator/test_wire_strictness.py",)
_PIKA: Final = ("tests/emulator/test_pika_api.py",)
_FAL: Final = ("tests/emulator/test_fal_queue.py",)
_OUTAGES: Final = ("tests/emulator/test_outages.py",)

MUTANTS: Final = (
    Mutant(
        "true-is-a-number",
        "emulator/checks.py",
        "if isinstance(value, bool) or not isinstance(value, (int, float)):",
        "if not isinstance(value, (int, float)):",
        "the emulator takes true for a number",
        _TESTS,
    ),
    Mutant(
        "true-is-an-integer",
        "emulator/checks.py",
        "if isinstance(value, bool) or not isinstance(value, int):",
        "if not isinstance(value, int):",
        "the emulator takes true for an integer",
        _TESTS,
    ),
    Mutant(
        "whole-floats-are-integers",
        "emulator/checks.py",
        "if isinstance(value, bool) or not isinstance(value, int):",
        "if isinstance(value, bool) or not (isinstance(value, int) or isinstance(value, float) and value.is_integer()):",
        "the emulator takes 24.0 for an integer",
        _TESTS,
    ),
    Mutant(
        "anything-like-json",
        "emulator/backend.py",
        'if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":',
        'if "json" not in headers.get("content-type", "").lower():',
        "the emulator reads any content type that resembles JSON",
        _TESTS,
    ),
    Mutant(
        "fields-of-sisters-accepted",
        "emulator/checks.py",
        "if name not in fields:",
        "if name not in fields and path:",
        "the emulator accepts top-level fields that a page does not have",
        _TESTS,
    ),
    Mutant(
        "inner-fields-unchecked",
        "emulator/checks.py",
        "if name not in fields:",
        "if name not in fields and not path:",
        "the emulator accepts options that a page does not have",
        _TESTS,
    ),
    Mutant(
        "data-uri-is-base64",
        "emulator/request_schemas.py",
        'if value.startswith(("http://", "https://")):',
        'if value.startswith("data:"):\n        return None\n    if value.startswith(("http://", "https://")):',
        "the emulator takes a data URI for an image",
        _TESTS,
    ),
    Mutant(
        "any-effect-everywhere",
        "emulator/request_schemas.py",
        '    "promptText": Field(non_empty_text, required=True),\n    "model": Field(_version),\n'
        '    "options": Field(plain_object, required=True, inner=_videos(required=True)),\n    "image": Field(_media),\n'
        '    "video": Field(_media),\n    "pikaffect": Field(one_of(*COMMON_EFFECTS)),',
        '    "promptText": Field(non_empty_text, required=True),\n    "model": Field(_version),\n'
        '    "options": Field(plain_object, required=True, inner=_videos(required=True)),\n    "image": Field(_media),\n'
        '    "video": Field(_media),\n    "pikaffect": Field(one_of(*ALL_EFFECTS)),',
        "the emulator accepts effects that gpt.ge does not document",
        _TESTS,
    ),
    Mutant(
        "idempotency-keys-forgotten",
        "emulator/pika_api.py",
        "if known is not None and call.now < known.until:",
        "if known is not None and call.now > known.until:",
        "the emulated Pika API charges a repeated submission again",
        _PIKA,
    ),
    Mutant(
        "idempotency-keys-for-ever",
        "emulator/pika_api.py",
        "if known is not None and call.now < known.until:",
        "if known is not None:",
        "the emulated Pika API knows an idempotency key beyond its window",
        _PIKA,
    ),
    Mutant(
        "another-body-under-a-key",
        "emulator/pika_api.py",
        "if (known.path, known.digest) != (name, digest):",
        "if known.path != name:",
        "the emulated Pika API takes another body under a known key",
        _PIKA,
    ),
    Mutant(
        "failed-jobs-charged",
        "emulator/pika_replies.py",
        'task.micro_usd if status == "completed" else 0',
        "task.micro_usd",
        "the emulated Pika API reports a charge for a failed job",
        _PIKA,
    ),
    Mutant(
        "failures-not-given-back",
        "emulator/ledger.py",
        "            self._taken[refunded] -= amount\n",
        "            pass\n",
        "the emulator keeps the price of a failed task",
        _PIKA,
    ),
    Mutant(
        "http-inputs-accepted",
        "emulator/pika_schemas.py",
        'value.startswith(("data:", "http:"))',
        'value.startswith("data:")',
        "the emulated Pika API takes an http address of a picture",
        _WIRES,
    ),
    Mutant(
        "any-headers-of-uploads",
        "emulator/pika_api.py",
        "if any(headers.get(name.lower()) != value for name, value in upload.headers.items()):",
        "if not headers:",
        "the emulated Pika API takes an upload without the headers it gave",
        _PIKA,
    ),
    Mutant(
        "any-scheme-at-fal",
        "emulator/fal_queue.py",
        'call.headers.get("authorization") != f"Key {self.backend.options.api_key}"',
        'not call.headers.get("authorization", "").endswith(self.backend.options.api_key)',
        "the emulated fal takes the key with any scheme",
        _FAL,
    ),
    Mutant(
        "slots-at-once",
        "emulator/ledger.py",
        "starts_at = max(starts_at, heapq.heappop(self._slots))",
        "heapq.heappop(self._slots)",
        "the emulated fal runs what should wait in its queue",
        _FAL,
    ),
    Mutant(
        "webhooks-sent-once",
        "emulator/server.py",
        "if status is None or not 200 <= status < 300:",
        "if status is None:",
        "the emulated fal does not repeat a webhook that was answered with an error",
        _FAL,
    ),
    Mutant(
        "canceled-and-charged",
        "emulator/ledger.py",
        "attrs.evolve(self.charges[index], settles_at=now, fails=True)",
        "attrs.evolve(self.charges[index], settles_at=now)",
        "the emulated fal takes the price of a canceled request",
        _FAL,
    ),
    Mutant(
        "after-from-its-number",
        "emulator/scenario.py",
        "return count > self.after",
        "return count >= self.after",
        "a rule selects one match too many after a number",
        _OUTAGES,
    ),
    Mutant(
        "shares-by-time-of-arrival",
        "emulator/scenario.py",
        'f"{self.seed}:script:{index}:{key[1]}:{count}"',
        'f"{self.seed}:script:{sum(self._counts.values())}"',
        "what a share selects depends on the requests to other providers",
        _OUTAGES,
    ),
    Mutant(
        "dead-with-open-connections",
        "emulator/listener.py",
        "                connection.transport.abort()\n",
        "                pass\n",
        "a provider that dies answers what is on its way",
        _OUTAGES,
    ),
)
