"""`doctor`: an answer as documented gives no difference, a drifted one is told field by field, and nothing secret is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async.cli.documented_replies import Difference, compare, documented_reply
from pika_async.emulator import EMULATED_PROVIDERS, Emulator, Scenario
from pika_async.providers import PROVIDERS as RECORDS
from pika_async.providers._wire import HttpResponse
from tests.cli.command_line import ENV, KEY, CommandLine, files_with

SAMPLES = Path(__file__).parent.parent / "samples"
#: Forms that are themselves drifts: the twin's older shapes, words that no page lists, a task that ends without an URL.
DRIFTS = ("feed-b-", "feed-c-", "unknown-status", "without-url", "feed-fresh", "feed-absent", "success-word", "-amount",
          "data-only")  # fmt: skip


def samples() -> Iterator[Any]:
    for provider in EMULATED_PROVIDERS:
        for path in sorted((SAMPLES / provider).glob("*.json")):
            sample = json.loads(path.read_text(encoding="utf-8"))
            if sample.get("kind") in {"create", "feed"} and not any(drift in path.name for drift in DRIFTS):
                yield pytest.param(provider, sample, id=f"{provider}-{path.stem}")


@pytest.mark.parametrize(("provider", "sample"), list(samples()))
def test_a_documented_answer_does_not_differ(provider: str, sample: dict[str, Any]) -> None:
    """Every recorded answer of a page has no difference to the table of its fields."""
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


def changed(**changes: Any) -> dict[str, Any]:
    return {**FEED, "videos": [{**FEED["videos"][0], **changes}]}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ([], ["mistyped: $: is a list, documented is an object"]),
        ({"id": "t", "videos": []}, [
            "missing: promptText: is documented and not there",
        ]),
        (changed(resultUrl=None), ["missing: videos[].resultUrl: is null though the task has succeeded"]),
        (changed(seed="1"), ["mistyped: videos[].seed: is text, documented is whole or null"]),
        (changed(progress=True), ["mistyped: videos[].progress: is a boolean, documented is whole or null"]),
        (changed(status="baked"), ["word: videos[].status: 'baked' is no documented status word; it counts as running"]),
        (changed(cost={"points": 3}), ["unknown: videos[].cost: is not documented (an object)"]),
        ({**FEED, "usage": [{"a": 1}, 2]}, ["unknown: usage: is not documented (a list)"]),
        ({"task": "t"}, [
            "unknown: task: is not documented (text)", "missing: id: is documented and not there",
            "missing: promptText: is documented and not there", "missing: videos: is documented and not there",
        ]),
    ],
)  # fmt: skip
def test_every_kind_of_drift_is_told(body: Any, told: list[str]) -> None:
    """Missing, null, mistyped, unknown fields and unknown words; one report for a whole unknown branch."""
    reply = documented_reply(RECORDS["native"], "feed")
    assert reply is not None
    assert [str(difference) for difference in compare(reply, body, succeeded=True)] == told


@given(st.recursive(st.none() | st.booleans() | st.text() | st.integers() | st.floats(), lambda inner: (
    st.lists(inner) | st.dictionaries(st.sampled_from(["id", "videos", "data", "status", "x"]) | st.text(), inner)
)))  # fmt: skip
def test_any_answer_can_be_compared(body: Any) -> None:
    """The comparison gives differences, whatever came."""
    for provider in RECORDS.values():
        for kind in ("create", "feed"):
            reply = documented_reply(provider, kind)
            assert reply is not None
            assert all(isinstance(found, Difference) for found in compare(reply, body, succeeded=True))


# --- the command --------------------------------------------------------------------------------------------------------


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine(tmp_path, capsys, monkeypatch)


def serving(*rules: dict[str, Any]) -> Emulator:
    return Emulator(
        api_key=KEY, render=False, durations="constant:0.3", video_seconds=1.0, scenario=Scenario.of(rules)
    )  # fmt: skip


def doctor(cli: CommandLine, emulator: Emulator, provider: str, *more: str) -> Any:
    return cli(
        "doctor", "--provider", provider, "--base-url", emulator.base_url(provider), "--expected-seconds", "0.3", *more
    )


@pytest.mark.parametrize("provider", EMULATED_PROVIDERS)
def test_a_wire_as_documented_is_well(cli: CommandLine, provider: str) -> None:
    """Free it charges nothing; with --spend it charges once; the samples that it saves can be read again."""
    with serving().in_thread() as emulator:
        ran = doctor(cli, emulator, provider)
        assert (ran.code, len(emulator.ledger), "differs" in ran.out) == (0, 0, False)
        assert f"key from the variable {ENV[provider]}" in ran.out
        ran = doctor(cli, emulator, provider, "--spend", "--save", "samples")
        assert (ran.code, len(emulator.ledger), "differs" in ran.out) == (0, 1, False)
        assert "every field as documented" in ran.out
    saved = {path.stem: json.loads(path.read_text()) for path in (cli.folder / "samples").iterdir()}
    assert {"error-unknown-task", "live-create", "live-feed-succeeded"} <= set(saved)
    assert files_with(cli.folder, KEY) == []
    for sample in saved.values():
        reads_as_it_means(provider, sample)


def reads_as_it_means(provider: str, sample: dict[str, Any]) -> None:
    """What the decoders make of a saved sample is what it says that it means."""
    record = RECORDS[provider]
    response = sample["response"]
    answer = HttpResponse(status=response["status"], body=json.dumps(response["body"]).encode())
    means = sample["means"]
    if sample["kind"] == "create":
        assert record.decode_receipt(answer).task_id == means["task_id"]
    elif sample["kind"] == "feed":
        snapshot = record.decode_snapshot(answer, means["task_id"])
        expected = {"succeeded": "succeeded", "failed": "failed"}.get(means["status"], "waiting")
        found = snapshot.state.value if snapshot.state.value in {"succeeded", "failed"} else "waiting"
        assert (found, snapshot.video.url if snapshot.video else None) == (expected, means.get("url"))
    else:
        assert means == {"poll": "missing"}


def test_a_drifted_wire_is_told_and_kept(cli: CommandLine) -> None:
    """An unknown word and an unknown shape: exit code 1, each difference once, and the answers as samples."""
    word = {"on": "feed", "per": "task", "nth": 1, "do": {"fault": "word", "word": "baking\x1b[31m"}}
    with serving(word).in_thread() as emulator:
        ran = doctor(cli, emulator, "native", "--spend", "--save", "samples")
    assert ran.code == 1
    [differs] = [line for line in ran.out.splitlines() if line.startswith("differs")]
    assert "word: videos[].status: 'baking" in differs
    assert "\x1b" not in ran.out


def test_another_envelope_is_told(cli: CommandLine) -> None:
    """The twin's shape is read all the same, and listed as a difference."""
    with serving({"on": "feed", "do": {"fault": "envelope", "shape": "c"}}).in_thread() as emulator:
        ran = doctor(cli, emulator, "cometapi", "--spend")
    assert ran.code == 1
    assert "generation: succeeded" in ran.out
    assert "missing: data" in ran.out


@pytest.mark.parametrize(
    ("rules", "more", "code", "said"),
    [
        ([{"on": "create", "do": {"fault": "refuse", "as": "quota"}}], ["--spend"], 3, "the account is stopped"),
        ([{"on": "create", "do": "fails"}], ["--spend"], 1, "generation failed"),
        ([{"on": "create", "do": {"fault": "refuse", "as": "invalid"}}], ["--spend"], 1, "rejected, not charged"),
    ],
)
def test_what_goes_wrong_is_told(
    cli: CommandLine, rules: list[dict[str, Any]], more: list[str], code: int, said: str
) -> None:
    """A stopped account, a failure and a refusal each have their exit code."""
    with serving(*rules).in_thread() as emulator:
        ran = doctor(cli, emulator, "gptge", *more)
    assert (ran.code, said in ran.out + ran.err) == (code, True)


def test_a_refused_key_is_exit_code_3(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The free look tells it."""
    monkeypatch.setenv("PIKA_API_KEY", "another-key-entirely")
    with serving().in_thread() as emulator:
        ran = doctor(cli, emulator, "native")
    assert (ran.code, "HTTP 401" in ran.err, "another-key" in ran.out + ran.err) == (3, True, False)


def test_an_address_without_a_gateway_is_told(cli: CommandLine) -> None:
    """A name that is not found, a closed port, a web page: exit code 1."""
    ran = cli("doctor", "--provider", "native", "--base-url", "http://nowhere.invalid")
    assert (ran.code, "nowhere.invalid is not found" in ran.out) == (1, True)
    ran = cli("doctor", "--provider", "native", "--base-url", "https://127.0.0.1:9")
    assert (ran.code, "TLS: no connection" in ran.out, "made-up task: no answer" in ran.out) == (1, True, True)
    with serving().in_thread() as emulator:
        ran = cli("doctor", "--provider", "native", "--base-url", emulator.base_url("native") + "/v2")
        assert (ran.code, "differs" in ran.out) == (1, True)
