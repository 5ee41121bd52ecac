"""The seam of wires that differ from the four: credentials, paths, headers, handles, verdicts and keys of their own."""

from __future__ import annotations

import json

import attrs
import pytest

from pika_async import GenerationRequest, InvalidRequest, find_provider
from pika_async.models import Receipt, Snapshot, TaskState
from pika_async.providers import PROVIDERS, VIDEOS
from pika_async.providers._abilities import Authorization, Idempotency, origin
from pika_async.providers._verdicts import SubmitVerdict, classify_response
from pika_async.providers._wire import HttpRequest, HttpResponse
from tests.fakes.handled_wire import ACME, BASE, HANDLED, OTHER_ORIGIN

LINKS = {"status": f"{BASE}/t/1", "video": f"{OTHER_ORIGIN}/t/1/video"}


def answer(status: int, body: object, **headers: str) -> HttpResponse:
    return HttpResponse(status=status, headers=headers, body=json.dumps(body).encode())


@pytest.mark.parametrize(
    ("authorization", "value"),
    [
        (Authorization(), "Bearer abc"),
        (Authorization(scheme="Key"), "Key abc"),
        (Authorization(header="X-API-Key", scheme=""), "abc"),
    ],
)
def test_a_scheme_stands_before_the_key(authorization: Authorization, value: str) -> None:
    """The scheme is one word before the key; without one the header holds the bare key."""
    assert authorization.value("abc") == value


@pytest.mark.parametrize("name", ["", "X API", "X-Key\r\nHost", "X:Key"])
def test_the_name_of_a_header_is_checked(name: str) -> None:
    """A name that no header can have is refused when the record is made."""
    with pytest.raises(ValueError, match="must be the name of a header"):
        Authorization(header=name)
    with pytest.raises(ValueError, match="must be the name of a header"):
        Idempotency(window=1, header=name)


@pytest.mark.parametrize("name", ["Authorization", "X-API-KEY", "cookie", "Host", "Proxy-Authorization"])
def test_a_request_cannot_set_a_credential(name: str) -> None:
    """No request has a header with a credential: the transport sets it after it has checked the origin."""
    with pytest.raises(ValueError, match="the transport sets the credential"):
        HttpRequest(method="GET", url=BASE, headers={name: "x"})


def test_path_and_body_depend_on_the_request() -> None:
    """The path, with its query, may depend on the request and on the callback URL."""
    call = ACME.encode_submission(GenerationRequest("a cat"), BASE, "https://hooks.example")
    assert (call.url, call.headers) == (f"{BASE}/make/text?hook=https://hooks.example", {})
    assert call.body == b'{"wish": "a cat"}'


def test_an_idempotency_key_is_a_header_where_the_provider_has_them() -> None:
    """The key of a submission is sent under the provider's header, and nowhere by a provider without such keys."""
    request = GenerationRequest("a cat")
    assert ACME.encode_submission(request, BASE, "", idempotency_key="k1").headers == {"Idempotency-Key": "k1"}
    for provider in PROVIDERS.values():
        if provider.idempotency is None:
            encoded = provider.encode_submission(request, BASE, "", idempotency_key="k1")
            assert encoded == provider.encode_submission(request, BASE, "")


def test_a_handle_leads_the_poll() -> None:
    """With a handle its address is polled, without one the address is built; a dialect without handles ignores it."""
    handle = json.dumps(LINKS)
    assert ACME.decode_receipt(answer(200, {"ticket": "1", "links": LINKS})) == Receipt(task_id="1", handle=handle)
    assert ACME.encode_poll("1", BASE, handle).url == LINKS["status"]
    assert ACME.encode_poll("1", BASE).url == f"{BASE}/tickets/1"
    native = find_provider("native")
    assert native.encode_poll("1", BASE, "anything") == native.encode_poll("1", BASE)


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example/t/1", "http://api.acme.example/t/1", "https://api.acme.example:8443/t/1",
        "https://api.acme.example@evil.example/", "https://key@api.acme.example/", "//api.acme.example/t/1", "t/1", "",
        "https://evil.example\\@api.acme.example/", "https://api.acme.example.evil.example/", "https://[api/",
        "file:///etc/passwd",
    ],
)  # fmt: skip
def test_a_handle_that_leads_elsewhere_is_refused(address: str) -> None:
    """Each address of a handle must be at the base URL's origin or one that the provider lists, to the port."""
    assert ACME.handle_refusal(json.dumps(LINKS), BASE) is None
    reason = ACME.handle_refusal(json.dumps(LINKS | {"video": address}), BASE)
    assert reason is not None
    assert "not at an origin of the gateway" in reason


def test_another_host_trusts_none_of_the_providers_origins() -> None:
    """A base URL of another host, such as a stand-in, has its own origin alone: its key goes nowhere else."""
    assert ACME.trusted_origins(BASE) == ACME.trusted_origins(OTHER_ORIGIN) == (OTHER_ORIGIN,)
    assert ACME.trusted_origins("http://127.0.0.1:8080/acme") == ()
    assert ACME.handle_refusal(json.dumps({"status": f"{OTHER_ORIGIN}/t/1"}), "http://127.0.0.1:8080/acme") is not None
    assert ACME.handle_refusal('{"status": "http://127.0.0.1:8080/x"}', "http://127.0.0.1:8080/acme") is None


def test_a_handle_is_text_of_a_bounded_length() -> None:
    """A handle of another type or of more than 4,096 characters is refused; without addresses any text may stand."""
    bare = attrs.evolve(ACME, dialect=attrs.evolve(HANDLED, addresses=None))
    assert bare.handle_refusal("anything", BASE) is None
    for handle in ("x" * 4097, 7):
        assert bare.handle_refusal(handle, BASE) == "it must be text of at most 4,096 characters"


def test_origins_are_compared_with_their_default_ports() -> None:
    """An origin is scheme, host and port; the default port may be written or left out."""
    assert origin("https://A.example/x") == origin("https://a.example:443") == ("https", "a.example", 443)
    assert origin("http://a.example") == ("http", "a.example", 80)
    assert [origin(url) for url in ("ftp://a.example", "https://", "https://a:b", "https://u@a.example")] == [None] * 4


def test_a_dialect_reads_its_own_failures() -> None:
    """The failure is that which the dialect reads, from headers too; the family's forms do not count beside it."""
    refused = ACME.decode_receipt(answer(422, {"why": "no cats"}, **{"x-acme-error": "no_cats"}))
    assert (refused.failure_code, refused.message) == ("no_cats", "no cats")
    assert ACME.decode_receipt(answer(200, {"ticket": "1", "error": {"code": "x"}})).task_id == "1"
    assert find_provider("gptge").decode_receipt(answer(200, {"id": "1", "error": {"code": "x"}})).failure_code == "x"


def test_a_dialect_judges_a_submission_of_its_own() -> None:
    """A verdict of the dialect goes before the tables; it cannot make a submission accepted."""
    response = answer(400, {}, **{"x-acme-error": "club_members_only"})
    receipt = ACME.decode_receipt(response)
    own = ACME.own_verdict(response, receipt, repeated=False)
    assert own is SubmitVerdict.STOP
    assert classify_response(response, receipt, own_verdict=own).verdict is SubmitVerdict.STOP
    assert classify_response(response, receipt).verdict is SubmitVerdict.REJECTED
    accepted = classify_response(response, receipt, own_verdict=SubmitVerdict.ACCEPTED)
    assert accepted.verdict is SubmitVerdict.REJECTED


@pytest.mark.parametrize(
    ("provider", "repeated", "verdict"),
    [
        ("acme", True, SubmitVerdict.UNKNOWN),
        ("acme", False, SubmitVerdict.REJECTED),
        ("gptge", True, SubmitVerdict.REJECTED),
        ("cometapi", False, SubmitVerdict.REJECTED),
    ],
)
def test_a_conflict_is_a_doubt_where_the_key_was_sent_before(
    provider: str, repeated: bool, verdict: SubmitVerdict
) -> None:
    """409 to a repeated key leaves open what became of the first submission; any other 409 is a refusal."""
    found = ACME if provider == "acme" else find_provider(provider)
    response = answer(409, {})
    receipt = found.decode_receipt(response)
    own = found.own_verdict(response, receipt, repeated=repeated)
    assert classify_response(response, receipt, own_verdict=own).verdict is verdict


def test_the_result_is_asked_for_only_where_it_stands_elsewhere() -> None:
    """Only a success without a URL, at a dialect that has results elsewhere, leads to one more request."""
    waiting, done = (
        Snapshot(task_id="1", state=state) for state in (TaskState.RUNNING, TaskState.SUCCEEDED_WITHOUT_URL)
    )
    assert ACME.encode_result(waiting, BASE) is None
    assert find_provider("gptge").encode_result(done, BASE) is None
    built, led = ACME.encode_result(done, BASE), ACME.encode_result(done, BASE, json.dumps(LINKS))
    assert built is not None
    assert led is not None
    assert (built.url, led.url) == (f"{BASE}/tickets/1/video", LINKS["video"])


def test_a_documented_model_may_be_a_word() -> None:
    """A model that the provider lists passes whatever it looks like; another one must be a version."""
    ACME.check(GenerationRequest("a cat", model="turbo"))
    with pytest.raises(InvalidRequest, match=r"must be a version; give 1\.0 or turbo"):
        ACME.check(GenerationRequest("a cat", model="turbid"))


def test_the_four_are_as_they_were() -> None:
    """The four send a bearer token to one origin, have neither keys nor handles, and are documented by themselves."""
    for name in ("cometapi", "yescale", "gptge", "native"):
        provider = PROVIDERS[name]
        assert (provider.authorization, provider.origins) == (Authorization(), ())
        assert (provider.idempotency, provider.verified) == (None, True)
    optional = [field.name for field in attrs.fields(type(VIDEOS)) if field.default is None]
    assert len(optional) == 12
    for name in optional:
        assert getattr(VIDEOS, name) is None
