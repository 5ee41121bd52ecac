"""Public surface: its names and signatures, its errors, and the cost of importing it."""

from __future__ import annotations

import inspect
import json
import pickle
import subprocess
import sys
from typing import Any

import attrs
import pytest

import pika_async
from pika_async import GenerationRequest, Job, PikaClient, PikaError, Video, errors

CONTRACT = {
    "PikaClient", "GenerationRequest", "Camera", "Video", "Job", "JobStatus", "Snapshot", "BatchReport", "Provider",
    "AdaptivePolling", "FixedInterval", "Limits", "PikaError", "GenerationFailed", "SubmissionRejected",
    "SubmissionInDoubt", "DeadlineExceeded", "JobEvent", "JobAccepted", "JobRunning", "JobSettled", "JobParked",
    "Account", "Routing", "load_accounts",
}  # fmt: skip
EXTRAS = {"cyclopts", "rich", "av", "PIL", "uvloop", "orjson", "pytest", "opentelemetry", "dbos"}


def test_the_names_of_the_contract_are_public() -> None:
    """The names of the contract can be imported from the top level, and `__all__` lists existing names in order."""
    assert set(pika_async.__all__) >= CONTRACT
    assert [name for name in pika_async.__all__ if not hasattr(pika_async, name)] == []
    assert sorted(pika_async.__all__, key=lambda n: (not n.isupper(), n)) == pika_async.__all__


def test_every_error_is_public() -> None:
    """Every error that is raised on purpose has a public name."""
    assert [name for name in errors.__all__ if name not in pika_async.__all__] == []


def test_signatures_of_the_contract() -> None:
    """Calls, parameters and fields have the names of the contract."""
    client = inspect.signature(PikaClient).parameters
    assert next(iter(client)) == "provider"
    for name in ("api_key", "base_url", "journal", "polling", "limits", "callbacks", "deadline", "session"):
        assert client[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert client[name].default is None
    assert [field.name for field in attrs.fields(GenerationRequest)] == [
        "prompt", "image", "video", "ingredients", "ingredients_mode", "effect", "aspect_ratio", "frame_rate",
        "camera", "guidance_scale", "motion", "negative_prompt", "seed", "sfx", "extend", "model", "duration",
        "resolution", "last_image", "key", "metadata", "strict",
    ]  # fmt: skip
    assert {field.name for field in attrs.fields(Video)} >= {
        "url", "poster", "thumbnail", "share_url", "last_frame", "seed", "duration",
    }  # fmt: skip
    assert {field.name for field in attrs.fields(Job)} >= {
        "key", "index", "status", "provider", "task_id", "request", "video", "file", "sha256", "error", "polls",
        "submitted_at", "settled_at", "points", "attempts",
    }  # fmt: skip
    calls = ("generate", "submit", "wait", "poll", "as_settled", "run", "download", "jobs", "resume", "resolve")
    for name in (*calls, "events", "on_settled"):
        assert callable(getattr(PikaClient, name))


@pytest.mark.slow
def test_the_core_imports_no_extra() -> None:
    """Every public name works on the five dependencies alone."""
    code = (
        "from pika_async import *; import sys, json; print(json.dumps(sorted({n.split('.')[0] for n in sys.modules})))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert set(json.loads(loaded)) & EXTRAS == set()


@pytest.mark.slow
def test_the_emulators_core_imports_no_renderer() -> None:
    """The emulator can be imported, and its pure gateway used, without PyAV, Pillow and cryptography."""
    code = "import pika_async.emulator, sys; print([n for n in ('av', 'PIL', 'cryptography') if n in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"


@pytest.mark.slow
def test_importing_adds_little_to_importing_aiohttp() -> None:
    """Beside its dependencies, the public names load at most 60 further modules of others."""
    code = (
        "import aiohttp.web, anyio, attrs, cattrs, backoff, sys; before = set(sys.modules); from pika_async import *;"
        "print(len([n for n in set(sys.modules) - before if not n.startswith('pika_async')]))"
    )
    added = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(added) <= 60


FACTS: dict[str, Any] = {
    "http_status": 402, "seconds": 5.0, "attempts": 3, "limit": 9, "expired": True, "kind": "moderation",
    "refunded": True, "in_doubt": True, "reasons": {"main": "the account is stopped"},
}  # fmt: skip
EXAMPLES = [
    kind(**{
        field.name: FACTS.get(field.name, f"the {field.name}")
        for field in attrs.fields(kind)
    })
    for name in errors.__all__
    if attrs.has(kind := getattr(errors, name))
]  # fmt: skip


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: error.type)
def test_errors_survive_pickling(error: PikaError) -> None:
    """A pickled error has the same facts and message, and `copy` gives an equal error without a traceback."""
    for copy in (pickle.loads(pickle.dumps(error)), error.copy()):
        assert (type(copy), str(copy)) == (type(error), str(error))
        assert (copy.charged, copy.retryable, copy.kind) == (error.charged, error.retryable, "moderation")
        assert copy.__traceback__ is None


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: error.type)
def test_messages_are_printable(error: PikaError) -> None:
    """Messages hold no control characters, whatever the facts of the error hold."""
    facts: dict[str, Any] = {
        field.name: "x\x1b[31m\u202e\r\n" if isinstance(getattr(error, field.name), str) else getattr(error, field.name)
        for field in attrs.fields(type(error))
    }
    assert type(error)(**facts).message.isprintable()
