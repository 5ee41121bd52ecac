"""A key and a prompt that must not appear in any log line, span or metric, and faults whose answers repeat both."""

from __future__ import annotations

from typing import Any

CANARY = "sk-CANARY-4fJ8Qm2Zt7Xw1Lr9Bv6Kd3Hn5Gs0Y"
PROMPT = "CANARY of a prompt, a cat in the rain"
#: Faults of each kind. The client survives all of them.
FAULTS: list[dict[str, Any]] = [
    {"on": "create", "prompt": "1", "first": 1, "do": "refuse"},
    {"on": "create", "prompt": "2", "do": {"fault": "drop"}},
    {"on": "create", "prompt": "3", "do": {"fault": "refuse", "as": "task"}},
    {"on": "create", "prompt": "4", "do": {"fault": "fails", "reason": f"{PROMPT} was refused, Bearer {CANARY}"}},
    {"on": "create", "prompt": "5", "do": {"fault": "answer", "status": 500, "body": f"{PROMPT} {CANARY}"}},
    {"on": "create", "prompt": "6", "do": {"fault": "answer", "status": 400, "body": {"error": {"message": PROMPT, "code": PROMPT}}}},
    {"on": "feed", "first": 1, "do": {"fault": "answer", "status": 502, "body": f"{PROMPT} {CANARY}"}},
]  # fmt: skip
