"""What the receiver's OpenAPI document allows, and what it does not, is answered as it says: by schemathesis, on sockets.

Used as a library: its pytest plugin is switched off in pyproject.toml.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from pika_async import CallbackReceiver
from tests.fakes.receivers import SERVING_MODES, RecordingHandler, served_in_a_thread

#: The same cases in every run, and a real server, which may be slow at times.
FUZZED = settings(
    derandomize=True,
    database=None,
    max_examples=60,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_the_document_is_whole() -> None:
    """OpenAPI 3.1: one operation, its parameter, its body, its two answers."""
    document = CallbackReceiver.openapi()
    assert document["openapi"].startswith("3.1.")
    assert set(document["info"]) >= {"title", "version"}
    path = document["paths"]["/callbacks/{token}"]
    assert [(p["name"], p["in"], p["required"]) for p in path["parameters"]] == [("token", "path", True)]
    assert set(path["post"]["requestBody"]["content"]) == {"application/json", "*/*"}
    assert set(path["post"]["responses"]) == {"202", "404"}
    assert CallbackReceiver.openapi() is not document


@pytest.mark.slow
@pytest.mark.parametrize("way", SERVING_MODES)
@pytest.mark.parametrize("mode, known", [("positive", True), ("negative", False)])
def test_only_documented_answers_are_given(way: str, mode: str, known: bool) -> None:
    """Valid and invalid requests, with a known token and with any: 202 or 404 with no body, never a 5xx."""
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    checks: Any = [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
    ]
    handler = RecordingHandler()
    statuses = set()
    with served_in_a_thread(way, handler) as (receiver, port):
        token = handler.issue_path(receiver).rpartition("/")[2]
        operation = schemathesis.openapi.from_dict(receiver.openapi())["/callbacks/{token}"]["POST"]
        wanted = schemathesis.GenerationMode(mode)

        @FUZZED
        @given(case=operation.as_strategy(wanted), method=st.sampled_from(["POST"] * 9 + ["PUT", "GET"]))
        def fuzz(case: Any, method: str) -> None:
            if known:
                case.path_parameters["token"] = token
            assume("%0A" not in str(case.path_parameters["token"]))  # Starlette mounts no path with a line break
            case.method = method
            answer = case.call(base_url=f"http://127.0.0.1:{port}/hooks")
            case.validate_response(answer, checks=checks)
            assert answer.content == b""
            statuses.add(answer.status_code)

        fuzz()
        assert receiver.received == len(handler.calls)
    assert statuses == ({202, 404} if known else {404})
