"""Emulated gateway without sockets, checked against the documented samples, in virtual time."""

from __future__ import annotations

import copy
import gzip
import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pika_async.emulator import EMULATED_GATEWAYS, FAULTS, Answer, Durations, Gateway, Media, Scenario, ScenarioError

SAMPLES = Path(__file__).parents[1] / "samples"
HEADERS = {"Authorization": "Bearer emulator-key", "Content-Type": "application/json"}
OPTIONS = {
    "aspectRatio": 16 / 9,
    "frameRate": 24,
    "camera": {},
    "parameters": {"guidanceScale": 12, "motion": 1, "negativePrompt": ""},
    "extend": False,
}
BODIES: dict[str, dict[str, Any]] = {
    "cometapi": {"callback_url": "http://none.invalid", "prompt": "a cat", "ratio": "16:9"},
    "yescale": {"promptText": "a cat", "model": "1.5", "options": OPTIONS},
    "gptge": {"promptText": "a cat", "options": OPTIONS},
    "native": {"promptText": "a cat", "model": "1.5", "options": OPTIONS},
}


def samples(*kinds: str) -> list[Any]:
    found = []
    for provider in EMULATED_GATEWAYS:
        for path in sorted((SAMPLES / provider).glob("*.json")):
            sample = json.loads(path.read_text(encoding="utf-8"))
            if sample.get("kind") in kinds:
                found.append(pytest.param(provider, sample, id=f"{provider}-{sample['name']}"))
    return found


def create(gateway: Gateway, provider: str, now: float = 0.0, **changes: Any) -> Answer:
    path = "/pika/pro/generate" if provider == "cometapi" else "/pika/generate"
    body = json.dumps({**BODIES[provider], **changes}).encode()
    return gateway.handle("POST", f"/{provider}{path}", HEADERS, body, now)


def feed(gateway: Gateway, provider: str, task_id: str, now: float) -> Answer:
    if provider == "cometapi":
        body = json.dumps({"task_id": task_id}).encode()
        return gateway.handle("POST", "/cometapi/pika/feed", HEADERS, body, now)
    return gateway.handle("GET", f"/{provider}/pika/feed/{task_id}", HEADERS, b"", now)


def task_id_of(answer: Answer) -> str:
    reply = answer.json()
    found: str = reply["data"]["task_id"] if "data" in reply else reply["id"]
    return found


def paths_of(value: Any, prefix: str = "") -> set[str]:
    """Return the dotted paths of all fields of *value*, in the notation of fields.json."""
    found: set[str] = set()
    if isinstance(value, dict):
        for name, inner in value.items():
            found |= {prefix + name} | paths_of(inner, f"{prefix}{name}.")
    elif isinstance(value, list):
        for inner in value:
            found |= paths_of(inner, f"{prefix.removesuffix('.')}[].")
    return found


# -- documented exchanges ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("provider", "sample"), samples("create"))
def test_accepts_every_create_of_the_samples(provider: str, sample: dict[str, Any]) -> None:
    """Every create of the samples is accepted and charged once, with a reply of the documented form."""
    gateway = Gateway()
    body = json.dumps(sample["request"]["body"]).encode()
    answer = gateway.handle("POST", f"/{provider}{sample['request']['path']}", HEADERS, body, 0.0)
    assert answer.status == 200, answer.body
    assert [charge.body for charge in gateway.ledger] == [sample["request"]["body"]]
    assert task_id_of(answer) == gateway.ledger[0].task_id


@pytest.mark.parametrize("provider", EMULATED_GATEWAYS)
def test_replies_hold_the_documented_fields(provider: str) -> None:
    """The replies to a create and to a settled feed have exactly the fields of the page's examples."""
    gateway = Gateway(durations="constant:60")
    accepted = create(gateway, provider)
    example = json.loads((SAMPLES / provider / "create-documented.json").read_text())["response"]["body"]
    assert paths_of(accepted.json()) == paths_of(example)
    settled = feed(gateway, provider, task_id_of(accepted), 60.0).json()
    example = json.loads((SAMPLES / provider / "feed-documented.json").read_text())["response"]["body"]
    assert paths_of(settled) == paths_of(example)
    fields = json.loads((SAMPLES / provider / "fields.json").read_text())["response"]["feed"]
    assert not fields or paths_of(settled) == set(fields)


@pytest.mark.parametrize("provider", EMULATED_GATEWAYS)
def test_every_documented_field_has_a_sample(provider: str) -> None:
    """Every field of a page occurs in the request, the create reply or the feed reply of a sample."""
    fields = json.loads((SAMPLES / provider / "fields.json").read_text(encoding="utf-8"))
    found: dict[str, set[str]] = {"request": set(), "create": set(), "feed": set()}
    for path in (SAMPLES / provider).glob("*.json"):
        sample = json.loads(path.read_text(encoding="utf-8"))
        kind = sample.get("kind")
        if kind == "create":
            found["request"] |= paths_of(sample["request"]["body"])
        if kind in ("create", "feed"):
            found[kind] |= paths_of(sample["response"]["body"])
    assert set(fields["request"]) - found["request"] == set()
    assert set(fields["response"]["create"]) - found["create"] == set()
    assert set(fields["response"]["feed"]) - found["feed"] == set()


def test_a_settled_cometapi_feed_equals_the_example() -> None:
    """A settled CometAPI feed equals the page's example, types included, except for the id and the URLs."""
    gateway = Gateway(durations="constant:232", epoch=1741587817.0)
    task_id = task_id_of(create(gateway, "cometapi", prompt="customize your prompt here"))
    example = json.loads((SAMPLES / "cometapi" / "feed-documented.json").read_text())["response"]["body"]
    settled = feed(gateway, "cometapi", task_id, 500.0).json()
    for name in ("task_id", "video_url", "poster"):
        assert type(settled["data"][name]) is type(example["data"][name])
        settled["data"][name] = example["data"][name]
    assert settled == example


def test_a_cometapi_task_passes_through_its_states() -> None:
    """A CometAPI task is fresh, pending, running, succeeded; its codes are strings, its URL is null until the end."""
    gateway = Gateway(durations="constant:100")
    task_id = task_id_of(create(gateway, "cometapi"))
    samples = [feed(gateway, "cometapi", task_id, now).json()["data"] for now in (0, 10, 50, 100)]
    assert [(data["status"], data["state"]) for data in samples] == [
        ("0", ""),
        ("0", "pending"),
        ("1", "running"),
        ("3", "succeeded"),
    ]
    assert [data["video_url"] is None for data in samples] == [True, True, True, False]
    assert samples[0]["create_time"] == "0"


@pytest.mark.parametrize("provider", ["yescale", "gptge", "native"])
def test_a_videos_task_passes_through_its_states(provider: str) -> None:
    """A videos task is an empty list, queued, pending, finished; its progress is an integer, grows and ends at 100."""
    gateway = Gateway(durations="constant:100")
    task_id = task_id_of(create(gateway, provider))
    assert feed(gateway, provider, task_id, 0.0).json()["videos"] == []
    samples = [feed(gateway, provider, task_id, float(now)).json()["videos"][0] for now in range(5, 106)]
    assert {video["status"] for video in samples[:10]} == {"queued"}
    assert {video["status"] for video in samples[10:95]} == {"pending"}
    assert {video["status"] for video in samples[95:]} == {"finished"}
    progress = [video["progress"] for video in samples]
    assert progress == sorted(progress)
    assert all(type(number) is int for number in progress)
    assert (progress[0], progress[94], progress[95]) == (5, 99, 100)


@pytest.mark.parametrize("provider", EMULATED_GATEWAYS)
def test_failures_are_reported(provider: str) -> None:
    """With a failure rate of 1 a task fails with the reason and has no URL."""
    gateway = Gateway(durations="constant:10", failure_rate=1.0, failure_reason="no cats")
    reply = feed(gateway, provider, task_id_of(create(gateway, provider)), 10.0).json()
    if provider == "cometapi":
        data = reply["data"]
        assert (data["status"], data["state"], data["msg"], data["refund"]) == ("2", "error", "no cats", "1")
        assert data["video_url"] is None
    else:
        (video,) = reply["videos"]
        assert (video["status"], video["error"], video["resultUrl"]) == ("error", "no cats", None)
    assert gateway.ledger[0].fails


@pytest.mark.parametrize(
    ("envelope", "url", "word"),
    [
        ("b", ("data", "data", "video_url"), ("data", "status")),
        ("b-old", ("data", "fail_reason"), ("data", "status")),
        ("c", ("video_url",), ("status",)),
        ("c-result", ("result_url",), ("status",)),
    ],
)
def test_other_shapes_of_the_envelope(envelope: Any, url: tuple[str, ...], word: tuple[str, ...]) -> None:
    """The other shapes of the envelope report word statuses, and each has its own field for the URL."""

    def field_at(reply: Any, path: tuple[str, ...]) -> Any:
        for name in path:
            reply = reply[name]
        return reply

    gateway = Gateway(durations="constant:100", envelope=envelope)
    task_id = task_id_of(create(gateway, "cometapi"))
    feeds = [feed(gateway, "cometapi", task_id, now).json() for now in (0, 10, 50, 100)]
    assert [field_at(reply, word) for reply in feeds] == ["SUBMITTED", "QUEUED", "IN_PROGRESS", "SUCCESS"]
    assert field_at(feeds[3], url).endswith(".mp4")


# -- refused requests ----------------------------------------------------------------------------------------------

DEEP = {"parameters": {"guidanceScale": 12}, "extend": False}
BAD = [
    ("cometapi", {"colour": "red"}, "colour"),
    ("cometapi", {"callback_url": None}, "callback_url"),
    ("cometapi", {"callback_url": "soon"}, "callback_url"),
    ("cometapi", {"callback_url": "http://"}, "callback_url"),
    ("cometapi", {"ratio": 1.78}, "ratio"),
    ("cometapi", {"ratio": "wide"}, "ratio"),
    ("cometapi", {"model": "1.5"}, "model"),
    ("cometapi", {"style": "inflate"}, "style"),
    ("cometapi", {"style": ""}, "style"),
    ("cometapi", {"sfx": "true"}, "sfx"),
    ("cometapi", {"image": "https://a.example/b.png"}, "ratio"),
    ("cometapi", {"image": "", "video": "x"}, "video"),
    ("cometapi", {"options": {"frameRate": 7}}, "options.frameRate"),
    ("cometapi", {"options": {"frameRate": 24.0}}, "options.frameRate"),
    ("cometapi", {"options": {"camera": {"pan": "up"}}}, "options.camera.pan"),
    ("cometapi", {"options": {"parameters": {"guidanceScale": 12.5}}}, "options.parameters.guidanceScale"),
    ("cometapi", {"options": {"aspectRatio": 1.0}}, "options.aspectRatio"),
    ("cometapi", {"promptText": "a cat"}, "promptText"),
    ("yescale", {"model": 1.5}, "model"),
    ("yescale", {"video": "https://a.example/b.mp4"}, "video"),
    ("yescale", {"pikaffect": "Eye-pop"}, "pikaffect"),
    ("yescale", {"pikaffect": ""}, "pikaffect"),
    ("yescale", {"image": ""}, "image"),
    ("yescale", {"image": "not base64!"}, "image"),
    ("yescale", {"options": {"extend": False}}, "options.parameters"),
    ("yescale", {"options": {"parameters": {}}}, "options.extend"),
    ("yescale", {"options": {**DEEP, "frameRate": "25"}}, "options.frameRate"),
    ("gptge", {"options": {**DEEP, "aspectRatio": 0.39}}, "options.aspectRatio"),
    ("gptge", {"options": {**DEEP, "aspectRatio": 2.51}}, "options.aspectRatio"),
    ("gptge", {"options": {**DEEP, "aspectRatio": "16:9"}}, "options.aspectRatio"),
    ("gptge", {"options": {**DEEP, "aspectRatio": True}}, "options.aspectRatio"),
    ("gptge", {"options": {**DEEP, "frameRate": "24"}}, "options.frameRate"),
    ("gptge", {"options": {**DEEP, "ingredients-mode": "precise"}}, "options.ingredients-mode"),
    ("gptge", {"options": {"parameters": {"motion": 5}, "extend": False}}, "options.parameters.motion"),
    ("gptge", {"options": {"parameters": {"guidanceScale": 4}, "extend": False}}, "options.parameters.guidanceScale"),
    (
        "gptge",
        {"options": {"parameters": {"negativePrompt": None}, "extend": False}},
        "options.parameters.negativePrompt",
    ),
    ("gptge", {"options": {"parameters": {"seed": -1}, "extend": False}}, "options.parameters.seed"),
    ("gptge", {"options": []}, "options"),
    ("gptge", {"video": ""}, "video"),
    ("gptge", {"sfx": True}, "sfx"),
    ("gptge", {"promptText": "  "}, "promptText"),
    ("native", {"ingredient": ["https://a.example/b.png"]}, "ingredient"),
    ("native", {"model": "2.0", "ingredient": ["https://a.example/b.png"]}, "options.ingredients-mode"),
    ("native", {"model": "2.0", "ingredient": []}, "ingredient"),
    ("native", {"model": "2.0", "ingredient": ["b.png"]}, "ingredient"),
    ("native", {"options": {"ingredients-mode": "precise"}}, "options.ingredients-mode"),
    ("native", {"options": {"ingredients-mode": "loose"}}, "options.ingredients-mode"),
]


@pytest.mark.parametrize(("provider", "changes", "field"), BAD, ids=lambda value: str(value)[:60])
def test_refuses_invalid_fields_by_name(provider: str, changes: dict[str, Any], field: str) -> None:
    """A field that is unknown, missing, of the wrong type or out of range is named in a 400 and not charged."""
    gateway = Gateway()
    answer = create(gateway, provider, **changes)
    assert answer.status == 400
    error = answer.json()["error"]
    assert error["param"] == field
    assert error["message"].startswith(f"{field}: ")
    assert [refusal.field for refusal in gateway.refusals] == [field]
    assert gateway.ledger == []


@pytest.mark.parametrize("provider", EMULATED_GATEWAYS)
def test_refuses_a_body_without_required_fields(provider: str) -> None:
    """An empty object is refused for the first field that the page requires."""
    answer = Gateway().handle(
        "POST",
        "/cometapi/pika/pro/generate" if provider == "cometapi" else f"/{provider}/pika/generate",
        HEADERS,
        b"{}",
        0.0,
    )
    first = {"cometapi": "callback_url"}.get(provider, "promptText")
    assert (answer.status, answer.json()["error"]["message"]) == (400, f"{first}: is required")


@given(data=st.data())
@settings(max_examples=150)
def test_any_body_is_accepted_or_refused(data: st.DataObject) -> None:
    """A body with an arbitrary value in one field is either accepted and charged, or refused with 400."""
    provider = data.draw(st.sampled_from(EMULATED_GATEWAYS))
    body = copy.deepcopy(BODIES[provider])
    leaf = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    junk = st.recursive(leaf, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
    names = [*body, "options", "image", "video", "ingredient", "style", "pikaffect", "model"]
    body[data.draw(st.sampled_from(names))] = data.draw(junk)
    gateway = Gateway()
    path = "/pika/pro/generate" if provider == "cometapi" else "/pika/generate"
    answer = gateway.handle("POST", f"/{provider}{path}", HEADERS, json.dumps(body).encode(), 0.0)
    assert (answer.status, len(gateway.ledger)) in ((200, 1), (400, 0))


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({**HEADERS, "Authorization": "emulator-key"}, b"{}", 401),
        ({**HEADERS, "Authorization": "Bearer other"}, b"{}", 401),
        ({"Content-Type": "application/json"}, b"{}", 401),
        ({**HEADERS, "Content-Type": "text/plain"}, b"{}", 400),
        (HEADERS, b"{", 400),
        (HEADERS, b"[]", 400),
        (HEADERS, b'{"promptText": NaN}', 400),
        (HEADERS, b'{"promptText": "\xff"}', 400),
        (HEADERS, b"[" * 100_000, 400),
        (HEADERS, b" " * 1_000_001, 413),
    ],
)
def test_refuses_invalid_requests(headers: dict[str, str], body: bytes, status: int) -> None:
    """A wrong key, content type, syntax or size is refused with an error object and not charged."""
    gateway = Gateway()
    answer = gateway.handle("POST", "/gptge/pika/generate", headers, body, 0.0)
    assert answer.status == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert gateway.ledger == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/gptge/pika/generate", 405),
        ("POST", "/gptge/pika/feed/x", 405),
        ("POST", "/gptge/pika/pro/generate", 404),
        ("POST", "/gptge/pika/feed", 404),
        ("POST", "/cometapi/pika/generate", 404),
        ("GET", "/cometapi/pika/feed/x", 404),
        ("GET", "/", 404),
    ],
)
def test_an_unknown_path_is_answered_with_a_page(method: str, path: str, status: int) -> None:
    """A path of another dialect is answered with an HTML page, and a wrong method with 405."""
    answer = Gateway().handle(method, path, HEADERS, b"{}", 0.0)
    assert answer.status == status
    assert answer.headers["Content-Type"].startswith("text/html" if status == 404 else "application/json")


def test_an_unknown_task_is_an_error_of_the_dialect() -> None:
    """A task that does not exist or is another provider's is `task_not_exist`: 400 at CometAPI, 404 elsewhere."""
    gateway = Gateway()
    native = task_id_of(create(gateway, "native"))
    answer = feed(gateway, "cometapi", native, 0.0)
    assert (answer.status, answer.json()) == (
        400,
        {"code": "task_not_exist", "message": "task_not_exist", "data": None},
    )
    answer = feed(gateway, "yescale", native, 0.0)
    assert (answer.status, answer.json()["error"]["code"]) == (404, "task_not_exist")


def test_the_root_serves_both_dialects() -> None:
    """Without a prefix the pro path is CometAPI's, and the videos path accepts what any of its three pages allows."""
    gateway = Gateway(durations="constant:1")
    body = json.dumps(BODIES["cometapi"]).encode()
    assert gateway.handle("POST", "/pika/pro/generate", HEADERS, body, 0.0).status == 200
    for changes in ({}, {"video": "https://a.example/b.mp4"}, {"pikaffect": "Eye-pop"}):
        body = json.dumps({**BODIES["yescale"], **changes}).encode()
        answer = gateway.handle("POST", "/pika/generate", HEADERS, body, 0.0)
        settled = gateway.handle("GET", f"/pika/feed/{task_id_of(answer)}", HEADERS, b"", 1.0)
        assert settled.json()["videos"][0]["status"] == "finished"
    assert [charge.provider for charge in gateway.ledger] == ["cometapi", "yescale", "gptge", "native"]
    # The native page writes its feed URL with two slashes.
    assert gateway.handle("GET", f"//pika/feed/{gateway.ledger[1].task_id}", HEADERS, b"", 1.0).status == 200


# -- accounts ------------------------------------------------------------------------------------------------------


def test_creates_beyond_the_limit_are_refused() -> None:
    """A create beyond the account's limit is 429 with a Retry-After, and not charged; a settled task frees its slot."""
    gateway = Gateway(durations="constant:60", in_flight=2, time_scale=0.01, retry_after=250.0)
    assert [create(gateway, "gptge").status for _ in range(3)] == [200, 200, 429]
    assert create(gateway, "gptge").headers["Retry-After"] == "3"
    assert create(gateway, "yescale").status == 200
    assert len(gateway.ledger) == 3
    assert create(gateway, "gptge", now=0.6).status == 200
    assert Gateway(in_flight={"native": 0}, retry_after=None).count_in_flight("native", 0.0) == 0


def test_outcomes_depend_on_the_seed_and_the_ordinal_alone() -> None:
    """Two gateways with the same seed give the same ids and durations; another seed gives different ones."""

    def outcomes(seed: int, step: float) -> list[Any]:
        gateway = Gateway(seed=seed)
        for number in range(5):
            create(gateway, "gptge", now=number * step)
        return [(c.task_id, round(c.settles_at - c.charged_at, 6)) for c in gateway.ledger]

    assert outcomes(1, 0.0) == outcomes(1, 7.0)
    assert outcomes(1, 0.0) != outcomes(2, 0.0)


def test_polls_are_counted() -> None:
    """2,000 tasks that are polled twice are counted as 4,000 polls in total and 2 for each task."""
    gateway = Gateway()
    ids = [task_id_of(create(gateway, "gptge", now=float(number))) for number in range(2_000)]
    assert len(set(ids)) == len(ids)
    for task_id in ids * 2:
        feed(gateway, "gptge", task_id, 2_000.0)
    assert (gateway.polls.total, gateway.polls.of(ids[7])) == (4_000, 2)
    assert len(gateway.requests) == 6_000


def test_a_requested_seed_is_reported_and_some_drawn_seeds_exceed_32_bits() -> None:
    """A requested seed is reported before the task settles; some drawn seeds exceed 2^32."""
    gateway = Gateway(durations="constant:100")
    task_id = task_id_of(create(gateway, "native", options={"parameters": {"seed": 7}}))
    assert feed(gateway, "native", task_id, 50.0).json()["videos"][0]["seed"] == 7
    for _ in range(100):
        create(gateway, "native")
    seeds = [task.seed for task in gateway.tasks.values()]
    assert 0 < sum(seed >= 2**32 for seed in seeds) < 50


# -- durations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "median"),
    [
        ("constant:60", 60.0),
        ("lognormal:60,0.5", 60.0),
        ("weibull:60,2", 60 * 0.6931**0.5),
        ("exponential:60", 60 * 0.6931),
        ("bimodal:40,0.8,240", 40.0),
    ],
)
def test_durations_have_their_median(text: str, median: float) -> None:
    """The median of many draws is the median of the distribution."""
    durations, random = Durations.parse(text), Random(1)
    drawn = sorted(durations.draw(random) for _ in range(4_001))
    assert drawn[2_000] == pytest.approx(median, rel=0.08)


@pytest.mark.parametrize(
    "text", ["", "60", "normal:60", "lognormal:60", "constant:x", "constant:-1", "constant:nan", "bimodal:1,2,3"]
)
def test_invalid_durations_are_quoted(text: str) -> None:
    """The error for an invalid distribution quotes it."""
    with pytest.raises(ValueError, match="durations") as caught:
        Gateway(durations=text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("option", [{"time_scale": 0}, {"failure_rate": 2}, {"envelope": "d"}, {"video_seconds": -1}])
def test_invalid_options_are_named(option: dict[str, Any]) -> None:
    """The error for an invalid option names it."""
    with pytest.raises(ValueError, match=next(iter(option))):
        Gateway(**option)


# -- scenarios -----------------------------------------------------------------------------------------------------


def gateway_with(*rules: dict[str, Any], **options: Any) -> Gateway:
    return Gateway(scenario=Scenario.of(rules), **{"durations": "constant:100", **options})


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ([], "must be an object"),
        ({"on": "create", "do": "drop", "when": 1}, "unknown key 'when'"),
        ({"on": "submit", "do": "drop"}, '"on"'),
        ({"on": "create"}, '"do"'),
        ({"on": "create", "do": "explode"}, "unknown fault 'explode'"),
        ({"on": "create", "do": "word"}, "applies to feed, not create"),
        ({"on": "create", "do": {"fault": "drop", "status": 1}}, "no option 'status'"),
        ({"on": "feed", "do": {"fault": "drop", "charge": True}}, "no option 'charge'"),
        ({"on": "create", "do": {"fault": "drop", "how": "softly"}}, "fin, rst"),
        ({"on": "create", "do": {"fault": "answer", "status": "500"}}, "HTTP status"),
        ({"on": "create", "do": {"fault": "cut", "fraction": 2}}, "from 0 to 1"),
        ({"on": "create", "do": "drop", "nth": 0}, '"nth"'),
        ({"on": "create", "do": "drop", "nth": 1, "share": 0.5}, "at most one"),
        ({"on": "create", "do": "drop", "share": 1.5}, '"share"'),
        ({"on": "create", "do": "drop", "between": [1]}, '"between"'),
        ({"on": "create", "do": "drop", "provider": "runway"}, '"provider"'),
        ({"on": "create", "do": "drop", "per": "job"}, '"per"'),
    ],
)
def test_an_invalid_rule_is_named_by_its_number(rule: Any, words: str, tmp_path: Path) -> None:
    """The error for an invalid rule names its number and the problem, from Python and from a file."""
    valid = {"on": "create", "do": "drop"}
    with pytest.raises(ScenarioError, match="rule 2: ") as caught:
        Scenario.of([valid, rule])
    assert words in str(caught.value)
    path = tmp_path / "script.json"
    path.write_text(json.dumps({"rules": [valid, rule]}))
    with pytest.raises(ScenarioError, match="rule 2: "):
        Scenario.load(path)


@pytest.mark.parametrize("text", ["", "{}", "3", '{"rules": {}}'])
def test_an_invalid_scenario_file_is_named(text: str, tmp_path: Path) -> None:
    """The error for a file without a list of rules names its path."""
    path = tmp_path / "script.json"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=r"script\.json"):
        Scenario.load(path)


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ({"nth": 2}, [2]),
        ({"nth": [1, 4]}, [1, 4]),
        ({"first": 3}, [1, 2, 3]),
        ({"every": 2}, [2, 4, 6]),
        ({"after": 4}, [5, 6]),
        ({"between": [2, 4]}, [3, 4]),
        ({"prompt": "cat 5"}, [5]),
        ({"provider": "native"}, []),
        ({}, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_a_rule_applies_to_the_requests_it_selects(selector: dict[str, Any], selected: list[int]) -> None:
    """A rule applies to the requests that its selector names and to no other."""
    gateway = gateway_with({"on": "create", "do": {"fault": "answer", "status": 500}, **selector}, time_scale=2.0)
    answers = [create(gateway, "gptge", now=10.0 + 2 * n, promptText=f"cat {n + 1}") for n in range(6)]
    assert [n + 1 for n, answer in enumerate(answers) if answer.status == 500] == selected
    assert len(gateway.ledger) == 6 - len(selected)


def test_a_share_is_seeded() -> None:
    """A share of one half selects about half of the requests, and the same ones each time."""

    def selected() -> list[int]:
        gateway = gateway_with({"on": "create", "share": 0.5, "do": "refuse"}, seed=3)
        return [n for n in range(400) if create(gateway, "gptge").status == 429]

    assert selected() == selected()
    assert 150 < len(selected()) < 250


def test_a_rule_can_count_each_task_separately() -> None:
    """With "per" and "first" a rule applies to the first poll of every task, and not to its second."""
    gateway = gateway_with({"on": "feed", "first": 1, "per": "task", "do": "vanish"})
    ids = [task_id_of(create(gateway, "native")) for _ in range(3)]
    assert [feed(gateway, "native", task_id, 1.0).status for task_id in ids * 2] == [404, 404, 404, 200, 200, 200]


@pytest.mark.parametrize(
    "fault", [name for name, (places, _) in FAULTS.items() if "create" in places and name != "die"]
)
@pytest.mark.parametrize("provider", EMULATED_GATEWAYS)
def test_the_ledger_records_every_charge(provider: str, fault: str) -> None:
    """A create with a fault is in the ledger exactly if the fault charges it, and then its task exists."""
    options = FAULTS[fault][1]
    for charge in (True, False) if "charge" in options else (None,):
        do = {"fault": fault} | ({} if charge is None else {"charge": charge})
        gateway = gateway_with({"on": "create", "nth": 2, "do": do})
        create(gateway, provider)
        answer = create(gateway, provider)
        assert len(gateway.ledger) == (1 if charge is False else 2)
        assert answer.effect is not None
        assert answer.effect.name == fault
        for entry in gateway.ledger:
            assert feed(gateway, provider, entry.task_id, 100.0).status == 200


def test_a_drop_before_the_request_is_read_is_not_charged() -> None:
    """By default a drop is charged if it comes before the reply, and not if it comes before the request is read."""
    gateway = gateway_with(
        {"on": "create", "nth": 1, "do": "drop"},
        {"on": "create", "do": {"fault": "drop", "when": "before-read", "how": "rst"}},
    )
    answers = [create(gateway, "gptge") for _ in range(2)]
    assert [answer.effect.ending for answer in answers if answer.effect] == ["fin", "rst"]
    assert [charge.fault for charge in gateway.ledger] == ["drop"]


def test_an_uncharged_create_returns_no_id() -> None:
    """The answer to a create with a fault that does not charge it contains no task id."""
    gateway = gateway_with({"on": "create", "do": {"fault": "body", "kind": "bom", "charge": False}})
    answer = create(gateway, "gptge")
    assert (answer.status, gateway.ledger) == (502, [])
    assert b'"id"' not in answer.body


def test_a_duplicate_id_is_charged_twice() -> None:
    """A create with the fault `duplicate-id` is charged under the id of the first task."""
    gateway = gateway_with({"on": "create", "nth": 2, "do": "duplicate-id"})
    first, second = create(gateway, "yescale"), create(gateway, "yescale", promptText="a dog")
    assert task_id_of(first) == task_id_of(second)
    assert [(charge.task_id, charge.prompt) for charge in gateway.ledger] == [
        (task_id_of(first), "a cat"),
        (task_id_of(first), "a dog"),
    ]


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        ("html", lambda body: body.startswith(b"<!DOCTYPE")),
        ("empty", lambda body: body == b""),
        ("bom", lambda body: body.startswith(b"\xef\xbb\xbf{")),
        ("nan", lambda body: b": NaN" in body),
        ("infinity", lambda body: b": 1e999" in body),
        ("huge-int", lambda body: b": " + b"9" * 5_000 in body),
        ("deep", lambda body: b"[" * 100_000 in body),
        ("lone-surrogate", lambda body: b"\\ud800" in body),
        ("gzip-bomb", lambda body: len(body) < 100_000 and len(gzip.decompress(body)) == 64 * 2**20),
        ("not-json", lambda body: body == b"upstream error: EOF"),
        ("not-utf8", lambda body: b"\xff\xfe" in body),
        ("list", lambda body: body.startswith(b"[{")),
        ("wrong-type", lambda body: body.startswith(b"{")),
    ],
)
def test_unexpected_bodies(kind: str, check: Any) -> None:
    """The body of a feed is of the kind that the scenario names, with status 200."""
    gateway = gateway_with({"on": "feed", "do": {"fault": "body", "kind": kind}})
    answer = feed(gateway, "native", task_id_of(create(gateway, "native")), 50.0)
    assert answer.status == 200
    assert check(answer.body)


@pytest.mark.parametrize("provider", ["cometapi", "native"])
@pytest.mark.parametrize(
    ("reason", "status"),
    [("rate", 429), ("quota", 403), ("key", 401), ("invalid", 500), ("no-channel", 503), ("envelope", 200)],
)
def test_refusals_by_name(provider: str, reason: str, status: int) -> None:
    """A refusal has the status of its name and the given Retry-After, and is not charged."""
    gateway = gateway_with({"on": "create", "do": {"fault": "refuse", "as": reason, "retry_after": "soon"}})
    answer = create(gateway, provider)
    assert (answer.status, answer.headers["Retry-After"]) == (status, "soon")
    assert gateway.ledger == []
    assert reason != "envelope" or answer.json()["code"] == 400


def test_any_answer_can_be_scripted() -> None:
    """A scripted answer has the given status, headers and body, and may contain the charged task's id."""
    do = {"fault": "answer", "status": 202, "headers": {"X-A": "b"}, "body": {"id": "{task_id}"}, "charge": True}
    gateway = gateway_with({"on": "create", "do": do})
    answer = create(gateway, "gptge")
    assert (answer.status, answer.headers["X-A"]) == (202, "b")
    assert task_id_of(answer) == gateway.ledger[0].task_id


def video_of(gateway: Gateway, now: float) -> Any:
    return feed(gateway, "native", next(iter(gateway.tasks)), now).json()["videos"][0]


def faulty_video(now: float, **do: Any) -> Any:
    gateway = gateway_with({"on": "feed", "do": do})
    create(gateway, "native")
    return video_of(gateway, now)


def test_faults_change_feeds() -> None:
    """Each fault of a feed changes the field that it names."""
    assert faulty_video(50.0, fault="word", word="dreaming")["status"] == "dreaming"
    assert "status" not in faulty_video(50.0, fault="word", word=None)
    assert faulty_video(100.0, fault="no-url")["status"] == "finished"
    assert faulty_video(100.0, fault="no-url")["resultUrl"] is None
    assert faulty_video(100.0, fault="unfinish")["status"] == "pending"
    assert faulty_video(90.0, fault="progress", mode="stuck", value=99)["progress"] == 99
    assert faulty_video(85.0, fault="progress", mode="late")["progress"] == 0
    assert faulty_video(10.0, fault="progress", mode="faked", seconds=20)["progress"] == 50
    assert faulty_video(100.0, fault="progress", mode="faked")["progress"] == 100
    assert faulty_video(50.0, fault="progress", mode="value", value="half")["progress"] == "half"
    assert "%2F..%2Fetc" in faulty_video(100.0, fault="hostile-name")["resultUrl"]
    assert faulty_video(100.0, fault="link")["resultUrl"] == "http://169.254.169.254/latest/meta-data"


def test_a_feed_can_answer_for_another_task() -> None:
    """With `other-task` a feed answers for another task, or under an unused id if there is no other task."""
    gateway = gateway_with({"on": "feed", "do": "other-task"})
    first = task_id_of(create(gateway, "gptge"))
    assert feed(gateway, "gptge", first, 1.0).json()["id"] not in ("", first)
    second = task_id_of(create(gateway, "gptge"))
    assert feed(gateway, "gptge", first, 1.0).json()["id"] == second


def test_a_feed_can_have_another_shape() -> None:
    """`wrap`, `other-id` and `echo` leave the facts of the answer as they are and change its shape."""
    plain = gateway_with()
    task_id = task_id_of(create(plain, "gptge"))
    expected = feed(plain, "gptge", task_id, 100.0).json()
    shaped = {}
    for do in ({"fault": "wrap", "times": 3}, {"fault": "other-id"}, {"fault": "echo", "size": 3000}):
        gateway = gateway_with({"on": "feed", "do": do})
        assert task_id_of(create(gateway, "gptge")) == task_id
        shaped[do["fault"]] = feed(gateway, "gptge", task_id, 100.0).json()
    assert shaped["wrap"]["data"]["data"]["data"] == expected
    assert shaped["other-id"] == {
        **expected, "id": f"upstream-{task_id}", "videos": [{**expected["videos"][0], "id": f"upstream-{task_id}"}],
    }  # fmt: skip
    assert len(shaped["echo"].pop("request")["image"]) == 3000
    assert shaped["echo"] == expected


def test_a_scenario_can_set_failure_and_duration() -> None:
    """A scenario can make one task fail and set the duration of another."""
    gateway = gateway_with(
        {"on": "create", "nth": 1, "do": {"fault": "fails", "reason": "no"}},
        {"on": "create", "nth": 1, "do": {"fault": "takes", "seconds": 7}},
    )
    for _ in range(3):
        create(gateway, "native")
    assert [(c.fails, c.settles_at) for c in gateway.ledger] == [(True, 100.0), (False, 7.0), (False, 100.0)]
    assert video_of(gateway, 100.0)["error"] == "no"


# -- CDN -----------------------------------------------------------------------------------------------------------


def path_of(url: str) -> str:
    return url.removeprefix("https://cdn.invalid")


def test_ranges_depend_on_the_etag() -> None:
    """A range is served if If-Range is the strong ETag, and the whole file otherwise."""
    gateway = gateway_with()
    create(gateway, "native")
    path = path_of(video_of(gateway, 100.0)["resultUrl"])
    content = bytes(range(256)) * 4

    def get(**headers: str) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        media = gateway.locate("GET", path, sent, 101.0)
        assert isinstance(media, Media)
        return gateway.serve(media, content, method="GET", path=path, headers=sent, now=101.0)

    whole = get()
    tag = whole.headers["ETag"]
    assert (whole.status, whole.body, tag[0], tag[-1]) == (200, content, '"', '"')
    part = get(Range="bytes=1000-", If_Range=tag)
    assert (part.status, part.body, part.headers["Content-Range"]) == (206, content[1000:], "bytes 1000-1023/1024")
    assert get(Range="bytes=0-9").body == content[:10]
    assert get(Range="bytes=-5").body == content[-5:]
    assert get(Range="bytes=1000-", If_Range='"other"').status == 200
    assert get(Range="bytes=1000-", If_Range=f"W/{tag}").status == 200
    assert get(Range="bytes=1024-").status == 416
    assert get(Range="lines=1-2").status == 200
    assert gateway.cdn_requests[1].range == "bytes=1000-"


def test_urls_expire_and_are_renewed() -> None:
    """A URL is answered with 403 after its lifetime, and the next poll returns one that works."""
    gateway = gateway_with(url_lifetime=10.0)
    create(gateway, "native")
    old = path_of(video_of(gateway, 100.0)["resultUrl"])
    assert isinstance(gateway.locate("GET", old, {}, 109.0), Media)
    denied = gateway.locate("GET", old, {}, 111.0)
    assert isinstance(denied, Answer)
    assert denied.status == 403
    new = path_of(video_of(gateway, 111.0)["resultUrl"])
    assert isinstance(gateway.locate("GET", new, {}, 120.0), Media)


def test_the_cdn_serves_succeeded_tasks_only() -> None:
    """A task that is pending, failed or unknown has no file."""
    gateway = gateway_with({"on": "create", "nth": 2, "do": "fails"})
    ids = [task_id_of(create(gateway, "native")) for _ in range(2)]
    for task_id, now in ((ids[0], 99.0), (ids[1], 100.0), ("x", 100.0)):
        answer = gateway.locate("GET", f"/v1/{task_id}/a.mp4", {}, now)
        assert isinstance(answer, Answer)
        assert answer.status == 404


def test_credentials_at_the_cdn_are_recorded() -> None:
    """A request with a credential header, or with the key in any header or in the URL, is recorded with their names."""
    gateway = Gateway()
    gateway.locate("GET", "/v1/x/a.mp4", {}, 0.0)
    gateway.locate("GET", "/v1/x/a.mp4", {"authorization": "Bearer x"}, 0.0)
    gateway.locate("GET", "/v1/x/a.mp4?key=emulator-key", {"cookie": "a=b"}, 0.0)
    assert [request.credentials for request in gateway.cdn_credentials] == [
        ("Authorization",),
        ("Cookie", "the key itself"),
    ]


# -- callbacks -----------------------------------------------------------------------------------------------------


def test_a_callback_contains_the_data_of_the_feed() -> None:
    """A callback is due once, when its task settles, and its body is the feed's data object."""
    gateway = gateway_with()
    task_id = task_id_of(create(gateway, "cometapi", callback_url="http://127.0.0.1:9/c"))
    assert gateway.next_callback_at() == 100.0
    assert gateway.due_callbacks(99.0) == []
    (callback,) = gateway.due_callbacks(100.0)
    assert json.loads(callback.body) == feed(gateway, "cometapi", task_id, 100.0).json()["data"]
    assert (callback.url, gateway.due_callbacks(1e9)) == ("http://127.0.0.1:9/c", [])


@pytest.mark.parametrize(
    ("url", "called"),
    [
        ("http://a.invalid/x", False),
        ("http://example.com", False),
        ("http://x.example.org/y", False),
        ("http://notexample.com", True),
        ("http://baidu.com", True),
    ],
)
def test_reserved_hosts_are_not_called(url: str, called: bool) -> None:
    """A callback URL with a reserved host name is not called."""
    gateway = gateway_with()
    create(gateway, "cometapi", callback_url=url)
    assert (gateway.next_callback_at() is not None) == called


@pytest.mark.parametrize(
    ("do", "due"),
    [
        ("lost", []),
        ("repeat", [100.0, 100.0]),
        ({"fault": "late", "seconds": 5}, [105.0]),
        ("early", [0.0]),
        ("forged", [100.0]),
    ],
)
def test_faults_of_callbacks(do: Any, due: list[float]) -> None:
    """Callbacks can be lost, repeated, late, sent before the create's answer, or forged."""
    gateway = gateway_with({"on": "callback", "do": do})
    task_id = task_id_of(create(gateway, "cometapi", callback_url="http://127.0.0.1:9/c"))
    callbacks = gateway.due_callbacks(1_000.0)
    assert [callback.due_at for callback in callbacks] == due
    if do == "forged":
        assert json.loads(callbacks[0].body)["task_id"] != task_id


def test_imports_without_the_rendering_libraries() -> None:
    """The emulator can be imported without PyAV and Pillow; the error of rendering says what to install."""
    script = (
        "import sys; sys.modules['av'] = sys.modules['PIL'] = None\n"
        "import pika_async.emulator as e\n"
        "try: e.Renderer().request(e.Picture(prompt='a', seed=1), 'video').result()\n"
        "except e.RenderError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == 'rendering videos needs PyAV and Pillow: pip install "pika_async[emulator]"\n'
