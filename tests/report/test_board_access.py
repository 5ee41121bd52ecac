"""Access to the board: the token or its cookie, `Host`, `Origin`, and more for each request that changes something."""

from __future__ import annotations

import pytest

from pika_async.report.board_access import BoardAccess, Verdict

TOKEN = "t" * 43
ACCESS = BoardAccess(TOKEN)
CONTROLLED = BoardAccess(TOKEN, control=True)
COOKIE = {"cookie": f"{ACCESS.cookie_name}={ACCESS.cookie_value}"}
HOST = {"host": "127.0.0.1:8000"}


def change(**changes: str | None) -> dict[str, str]:
    """Return the headers of a change that the page makes itself, with `changes`; None leaves one out."""
    headers: dict[str, str | None] = {
        **HOST, **COOKIE, "origin": "http://127.0.0.1:8000", "content-type": "application/json",
        "x-board-token": CONTROLLED.control_token, **{name.replace("_", "-"): value for name, value in changes.items()},
    }  # fmt: skip
    return {name: value for name, value in headers.items() if value is not None}


def test_the_token_enters_and_its_cookie_is_enough_then() -> None:
    """A request has neither, the token, or the cookie."""
    assert ACCESS.judge(HOST, None) is Verdict.FORBIDDEN
    assert ACCESS.judge(HOST, TOKEN) is Verdict.ENTERS
    assert ACCESS.judge({**HOST, **COOKIE}, None) is Verdict.ALLOWED


@pytest.mark.parametrize("wrong", ["", "t", "t" * 42, "t" * 44, "T" * 43, "t" * 10_000, "\udcff"])
def test_another_token_is_forbidden(wrong: str) -> None:
    """So is a cookie of that value, and the token itself as a cookie."""
    assert ACCESS.judge(HOST, wrong) is Verdict.FORBIDDEN
    assert ACCESS.judge({**HOST, "cookie": f"{ACCESS.cookie_name}={wrong}"}, None) is Verdict.FORBIDDEN
    assert ACCESS.judge({**HOST, "cookie": f"{ACCESS.cookie_name}={TOKEN}"}, None) is Verdict.FORBIDDEN


@pytest.mark.parametrize(
    ("host", "verdict"),
    [
        ("localhost", Verdict.ALLOWED), ("LOCALHOST:1", Verdict.ALLOWED), ("[::1]:8000", Verdict.ALLOWED),
        ("evil.example", Verdict.FORBIDDEN), ("127.0.0.1.evil.example:8000", Verdict.FORBIDDEN),
        ("evil.example@127.0.0.1", Verdict.FORBIDDEN), ("127.0.0.1/evil.example", Verdict.FORBIDDEN),
        ("127.0.0.1, evil.example", Verdict.FORBIDDEN), ("192.168.0.9", Verdict.FORBIDDEN), ("", Verdict.FORBIDDEN),
        ("[::1", Verdict.FORBIDDEN), ("127.0.0.1:x", Verdict.FORBIDDEN),
    ],
)  # fmt: skip
def test_only_own_names_are_answered(host: str, verdict: Verdict) -> None:
    """The name of another site may point to this machine: its requests carry that name, whatever else they have."""
    assert ACCESS.judge({**COOKIE, "host": host}, None) is verdict


def test_a_board_on_all_addresses_is_reached_by_any_of_them_but_by_no_name() -> None:
    """An address in `Host` was typed; a name may be that of another site."""
    access = BoardAccess(TOKEN, any_address=True)
    assert access.judge({**COOKIE, "host": "192.168.0.9:8000"}, None) is Verdict.ALLOWED
    assert access.judge({**COOKIE, "host": "evil.example:8000"}, None) is Verdict.FORBIDDEN


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9000", "http://127.0.0.1", "file://127.0.0.1:8000", ""]
)
def test_pages_of_another_origin_are_forbidden(origin: str) -> None:
    """Another port is another origin."""
    assert ACCESS.judge({**HOST, **COOKIE, "origin": origin}, None) is Verdict.FORBIDDEN
    assert not CONTROLLED.may_change("POST", change(origin=origin))


def test_the_cookie_is_kept_from_scripts_and_other_sites() -> None:
    """Its name is that of this board alone, and its value is not the token."""
    cookie = ACCESS.set_cookie("/board/")
    name, _, rest = cookie.partition("=")
    assert name == ACCESS.cookie_name != BoardAccess("u" * 43).cookie_name
    value, *attributes = rest.split("; ")
    assert attributes == ["Path=/board/", "HttpOnly", "SameSite=Strict"]
    assert value not in {TOKEN, ACCESS.control_token}
    assert TOKEN not in repr(ACCESS)


def test_a_change_needs_everything_that_the_page_sends() -> None:
    """It is allowed as a whole; without any one part it is forbidden."""
    assert CONTROLLED.may_change("POST", change())
    assert CONTROLLED.may_change("POST", change(content_type="application/json; charset=utf-8"))


@pytest.mark.parametrize(
    "headers",
    [
        change(origin=None), change(cookie=None), change(content_type=None), change(content_type="text/plain"),
        change(x_board_token=None), change(x_board_token=TOKEN), change(host="evil.example"),
        change(content_type="application/x-www-form-urlencoded"),
    ],
)  # fmt: skip
def test_a_change_without_one_part_is_forbidden(headers: dict[str, str]) -> None:
    """A form or a simple request of another site cannot have them all."""
    assert not CONTROLLED.may_change("POST", headers)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS", "post"])
def test_a_change_is_a_post(method: str) -> None:
    """A link or a picture is a GET."""
    assert not CONTROLLED.may_change(method, change())


def test_a_board_without_control_changes_nothing() -> None:
    """Whatever the request has."""
    assert not ACCESS.may_change("POST", change())
