"""`doctor`: documented replies have no differences, others are reported field by field, and no secret is saved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async.cli.documented_replies import Difference, compare, documented_reply
from pika_async.cli.recording_transport import redact
from pika_async.emulator import EMULATED_GATEWAYS, Emulator, Scenario
from pika_async.providers import PROVIDERS as RECORDS
from pika_async.providers._wire import HttpResponse
from tests.cli.command_line import ENV, KEY, CommandLine, files_with

SAMPLES = Path(__file__).parent.parent / "samples"
#: Samples that are not as documented: older shapes, undocumented status words, a task that ends without a URL.
DRIFTS = ("feed-b-", "feed-c-", "unknown-status", "without-url", "feed-fresh", "feed-absent", "success-word", "-amount",
          "data-only")  # fmt: skip


def samples() -> Iterator[Any]:
    for provider in EMULATED_GATEWAYS:
        for path in sorted((SAMPLES / provider).glob("*.json")):
            sample = json.loads(path.read_text(encoding="utf-8"))
            if sample.get("kind") in {"create", "feed"} and not any(drift in path.name for drift in DRIFTS):
                yield pytest.param(provider, sample, id=f"{provider}-{path.stem}")


@pytest.mark.parametrize(("provider", "sample"), list(samples()))
def test_a_documented_reply_has_no_difference(provider: str, sample: dict[str, Any]) -> None:
    """Every sample from a documentation page matches the table of its fields."""
    reply = documented_reply(RECORDS[provider], sample["kind"])
    assert reply is not None
    ended = sample["means"].get("status") == "succeeded"
    assert compare(reply, sample["response"]["body"], succeeded=ended) == []


FEED = {
    "id": "t", "promptText": "a",
    "videos": [{
        "id": "v", "status": "finished", "seed": 1, "resultUrl": "http://a/v.mp4", "sharingUrl": "", "videoPoster": "p",
        "imageThumb": "", "duration": 5, "error": "", "progress": 100,
    }],
}  # fmt: skip


def changed_feed(**changes: Any) -> dict[str, Any]:
    """Return `FEED` with changes to its video."""
    return {**FEED, "videos": [{**FEED["videos"][0], **changes}]}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("body", "differences"),
    [
        ([], ["mistyped: $: is a list, documented as an object"]),
        ({"id": "t", "videos": []}, [
            "missing: promptText: is documented but missing",
        ]),
        (changed_feed(resultUrl=None), ["missing: videos[].resultUrl: is null although the task has succeeded"]),
        (changed_feed(seed="1"), ["mistyped: videos[].seed: is text, documented as whole or null"]),
        (changed_feed(progress=True), ["mistyped: videos[].progress: is a boolean, documented as whole or null"]),
        (changed_feed(status="baked"), ["word: videos[].status: 'baked' is not a documented status word; it counts as running"]),
        (changed_feed(cost={"points": 3}), ["unknown: videos[].cost: is not documented (an object)"]),
        ({**FEED, "usage": [{"a": 1}, 2]}, ["unknown: usage: is not documented (a list)"]),
        ({"task": "t"}, [
            "unknown: task: is not documented (text)", "missing: id: is documented but missing",
            "missing: promptText: is documented but missing", "missing: videos: is documented but missing",
        ]),
    ],
)  # fmt: skip
def test_every_kind_of_difference_is_reported(body: Any, differences: list[str]) -> None:
    """Missing, null, mistyped and unknown fields and unknown words are reported; an unknown branch only once."""
    reply = documented_reply(RECORDS["native"], "feed")
    assert reply is not None
    assert [str(difference) for difference in compare(reply, body, succeeded=True)] == differences


@pytest.mark.slow
@given(st.recursive(st.none() | st.booleans() | st.text() | st.integers() | st.floats(), lambda inner: (
    st.lists(inner) | st.dictionaries(st.sampled_from(["id", "videos", "data", "status", "x"]) | st.text(), inner)
)))  # fmt: skip
def test_any_answer_can_be_compared(body: Any) -> None:
    """The comparison of any JSON gives differences and raises no error."""
    for provider in EMULATED_GATEWAYS:
        for kind in ("create", "feed"):
            reply = documented_reply(RECORDS[provider], kind)
            assert reply is not None
            assert all(isinstance(difference, Difference) for difference in compare(reply, body, succeeded=True))


# --- the command --------------------------------------------------------------------------------------------------------


def make_emulator(*rules: dict[str, Any]) -> Emulator:
    """Return an emulator with fault rules."""
    return Emulator(
        api_key=KEY, render=False, durations="constant:0.3", video_seconds=1.0, scenario=Scenario.of(rules)
    )  # fmt: skip


def run_doctor(cli: CommandLine, emulator: Emulator, provider: str, *more: str) -> Any:
    """Run `doctor` against the emulator."""
    return cli(
        "doctor", "--provider", provider, "--base-url", emulator.base_url(provider), "--expected-seconds", "0.3", *more
    )


@pytest.mark.parametrize("provider", EMULATED_GATEWAYS)
def test_a_documented_gateway_passes(cli: CommandLine, provider: str) -> None:
    """Without --spend nothing is charged, with it one generation; saved samples decode to their stated meaning."""
    with make_emulator().in_thread() as emulator:
        ran = run_doctor(cli, emulator, provider)
        assert (ran.code, len(emulator.ledger), "differs" in ran.out) == (0, 0, False)
        assert f"key from the variable {ENV[provider]}" in ran.out
        ran = run_doctor(cli, emulator, provider, "--spend", "--save", "samples")
        assert (ran.code, len(emulator.ledger), "differs" in ran.out) == (0, 1, False)
        assert "every field as documented" in ran.out
    saved = {path.stem: json.loads(path.read_text()) for path in (cli.folder / "samples").iterdir()}
    assert {"error-unknown-task", "live-create", "live-feed-succeeded"} <= set(saved)
    assert files_with(cli.folder, KEY) == []
    for sample in saved.values():
        check_meaning(provider, sample)


def check_meaning(provider: str, sample: dict[str, Any]) -> None:
    """Assert that the decoders find in a saved sample what it says that it means."""
    record = RECORDS[provider]
    response = sample["response"]
    answer = HttpResponse(status=response["status"], body=json.dumps(response["body"]).encode())
    means = sample["means"]
    if sample["kind"] == "create":
        assert record.decode_receipt(answer).task_id == means["task_id"]
    elif sample["kind"] == "feed":
        snapshot = record.decode_snapshot(answer, means["task_id"])
        expected = {"succeeded": "succeeded", "failed": "failed"}.get(means["status"], "waiting")
        status = snapshot.state.value if snapshot.state.value in {"succeeded", "failed"} else "waiting"
        assert (status, snapshot.video.url if snapshot.video else None) == (expected, means.get("url"))
    else:
        assert means == {"poll": "missing"}


def test_an_unknown_word_is_reported_and_sampled(cli: CommandLine) -> None:
    """Exit code 1, and the difference is reported once."""
    word = {"on": "feed", "per": "task", "nth": 1, "do": {"fault": "word", "word": "baking\x1b[31m"}}
    with make_emulator(word).in_thread() as emulator:
        ran = run_doctor(cli, emulator, "native", "--spend", "--save", "samples")
    assert ran.code == 1
    [differs] = [line for line in ran.out.splitlines() if line.startswith("differs")]
    assert "word: videos[].status: 'baking" in differs
    assert "\x1b" not in ran.out


def test_another_reply_shape_is_reported(cli: CommandLine) -> None:
    """The generation still succeeds, and the shape is listed as a difference."""
    with make_emulator({"on": "feed", "do": {"fault": "envelope", "shape": "c"}}).in_thread() as emulator:
        ran = run_doctor(cli, emulator, "cometapi", "--spend")
    assert ran.code == 1
    assert "generation: succeeded" in ran.out
    assert "missing: data" in ran.out


@pytest.mark.parametrize(
    ("rules", "more", "code", "text"),
    [
        ([{"on": "create", "do": {"fault": "refuse", "as": "quota"}}], ["--spend"], 3, "the account is stopped"),
        ([{"on": "create", "do": "fails"}], ["--spend"], 1, "generation failed"),
        ([{"on": "create", "do": {"fault": "refuse", "as": "invalid"}}], ["--spend"], 1, "rejected, not charged"),
    ],
)
def test_every_failure_has_its_exit_code(
    cli: CommandLine, rules: list[dict[str, Any]], more: list[str], code: int, text: str
) -> None:
    """A stopped account, a failure and a rejection."""
    with make_emulator(*rules).in_thread() as emulator:
        ran = run_doctor(cli, emulator, "gptge", *more)
    assert (ran.code, text in ran.out + ran.err) == (code, True)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ({"fault": "answer", "status": 200, "body": {"left": 3}}, 'balance: HTTP 200: {"left": 3}'),
        ({"fault": "drop"}, "balance: no response: "),
    ],
)
def test_a_balance_that_cannot_be_read_differs(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any], text: str
) -> None:
    """The answer is shown, and the other checks go on."""
    monkeypatch.setenv("PIKA_DEV_API_KEY", KEY)
    with make_emulator({"on": "account", "do": fault}).in_thread() as emulator:
        ran = run_doctor(cli, emulator, "pika")
    assert ran.code == 1
    [differs] = [line for line in ran.out.splitlines() if line.startswith("differs")]
    assert text in differs
    assert "not tried  generation" in ran.out


def test_a_refused_key_is_exit_code_3(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The free poll finds it."""
    monkeypatch.setenv("PIKA_API_KEY", "another-key-entirely")
    with make_emulator().in_thread() as emulator:
        ran = run_doctor(cli, emulator, "native")
    assert (ran.code, "HTTP 401" in ran.err, "another-key" in ran.out + ran.err) == (3, True, False)


def test_an_address_without_a_gateway_is_reported(cli: CommandLine) -> None:
    """An unknown host name, a closed port and a web page each give exit code 1."""
    ran = cli("doctor", "--provider", "native", "--base-url", "http://nowhere.invalid")
    assert (ran.code, "nowhere.invalid does not resolve" in ran.out) == (1, True)
    ran = cli("doctor", "--provider", "native", "--base-url", "https://127.0.0.1:9")
    assert (ran.code, "TLS: no connection" in ran.out, "unknown task: no response" in ran.out) == (1, True, True)
    with make_emulator().in_thread() as emulator:
        ran = cli("doctor", "--provider", "native", "--base-url", emulator.base_url("native") + "/v2")
        assert (ran.code, "differs" in ran.out) == (1, True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://cdn.example/a.mp4?sig=secret", "https://cdn.example/a.mp4?redacted"),
        ("HTTPS://me:secret@cdn.example/a.mp4#secret", "HTTPS://cdn.example/a.mp4"),
        ("//cdn.example/a.mp4?sig=secret", "//cdn.example/a.mp4?redacted"),
        (
            "see https://cdn.example/a?secret or http://h/b?secret.",
            "see https://cdn.example/a?redacted or http://h/b?redacted",
        ),
        ('{"url": "https://cdn.example/a?secret"}', '{"url": "https://cdn.example/a?redacted"}'),
        ({"upload_token": "secret", "token": "secret", "X-Amz-Signature": "secret"}, None),
        ({"api_key": "secret", "apiKey": "secret", "password": "secret", "Authorization": "secret"}, None),
        ({"key": "a", "prompt": "the secret token", "seed": 5}, {"key": "a", "prompt": "the secret token", "seed": 5}),
        ("by key-secret123456", "by [key]"),
    ],
)
def test_a_saved_sample_has_no_secret(value: Any, expected: Any) -> None:
    """An address loses its query and its user wherever it stands in a text, and a field that is a secret its text."""
    shown = redact(value)
    if expected is None:
        assert set(shown) == set(value)
        assert set(shown.values()) == {"[redacted]"}
    else:
        assert shown == expected
