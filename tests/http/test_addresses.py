"""Classification of IP addresses and URLs: only public ones may be requested, in any spelling."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async import Video
from pika_async._http.addresses import (
    allowable_kind,
    forbidden_reason,
    forbidden_url_reason,
    redact_text,
    redact_url,
)
from pika_async.models.addresses import classify_ip
from pika_async.models.urls import strip_userinfo


@pytest.mark.parametrize(
    "address, kind",
    [
        ("8.8.8.8", "public"),
        ("104.16.0.1", "public"),
        ("2606:4700::1111", "public"),
        ("127.0.0.1", "loopback"),
        ("127.255.0.9", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("10.0.0.1", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("fd00::1", "private"),
        ("fec0::1", "private"),
        ("169.254.169.254", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("100.64.0.1", "carrier-grade NAT"),
        ("100.127.255.255", "carrier-grade NAT"),
        ("0.0.0.0", "unspecified"),  # noqa: S104
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("192.0.2.1", "reserved"),
        ("198.18.0.1", "tunnel"),
        ("2001:db8::1", "reserved"),
        ("2001::1", "reserved"),
        ("4000::1", "reserved"),
        ("::7f00:1", "reserved"),
        ("64:ff9b:1::a00:1", "reserved"),
        ("::ffff:10.0.0.1", "private"),
        ("::ffff:8.8.8.8", "public"),
        ("64:ff9b::10.0.0.1", "embedded private"),
        ("64:ff9b::127.0.0.1", "embedded loopback"),
        ("64:ff9b::8.8.8.8", "public"),
        ("2002:a9fe:a9fe::1", "reserved"),
        ("2002:0808:0808::1", "reserved"),
    ],
)
def test_special_ranges_are_classified(address: str, kind: str) -> None:
    """Each special range has its own name; an IPv4 address inside an IPv6 address is classified as itself."""
    assert classify_ip(address) == kind


@given(st.ip_addresses())
def test_no_address_is_public_against_the_standard_library(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """An address that Python calls private, loopback, multicast or reserved is not public, except mapped ones."""
    special = ip.is_private or ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified
    if special and getattr(ip, "ipv4_mapped", None) is None:
        assert classify_ip(str(ip)) != "public"


@given(st.ip_addresses(v=4))
def test_embedded_ipv4_addresses_are_classified(ip: ipaddress.IPv4Address) -> None:
    """An IPv4 address that may not be dialled may not be dialled mapped or through NAT64 either."""
    for disguise in (f"::ffff:{ip}", f"64:ff9b::{ip}"):
        refused = forbidden_reason(disguise, loopback=False) is not None
        assert refused == (forbidden_reason(str(ip), loopback=False) is not None)


@given(st.ip_addresses(v=4))
def test_6to4_is_refused(ip: ipaddress.IPv4Address) -> None:
    """No address is dialled through 6to4, whichever IPv4 address it embeds."""
    hidden = ipaddress.IPv6Address((0x2002 << 112) | (int(ip) << 80) | 1)
    assert forbidden_reason(str(hidden), loopback=True) is not None


def test_loopback_is_allowed_by_option_only() -> None:
    """`loopback` allows loopback and public addresses, but no private or link-local address."""
    assert forbidden_reason("127.0.0.1", loopback=False) == "is a loopback address; only public ones are dialled"
    assert forbidden_reason("127.0.0.1", loopback=True) is None
    assert forbidden_reason("::ffff:127.0.0.1", loopback=True) is None
    for address in ("10.0.0.1", "169.254.169.254", "64:ff9b::127.0.0.1", "0.0.0.1"):
        assert forbidden_reason(address, loopback=True) is not None
    assert forbidden_reason("no address", loopback=True) == "must be an IP address"


@pytest.mark.parametrize(
    "scheme, host, loopback, expected_text",
    [
        ("https", "cdn.example.com", False, None),
        ("https", "8.8.8.8", False, None),
        ("https", "2606:4700::1111", False, None),
        ("http", "cdn.example.com", False, "begins with http://, not with https://"),
        ("http", "cdn.example.com", True, "begins with http://, not with https://"),
        ("http", "8.8.8.8", True, "begins with http://, not with https://"),
        ("http", "127.0.0.1", True, None),
        ("http", "localhost", True, None),
        ("http", "::1", True, None),
        ("https", "127.0.0.1", True, None),
        ("http", "127.0.0.1", False, "loopback"),
        ("https", "127.0.0.1", False, "loopback"),
        ("https", "localhost", False, "loopback"),
        ("https", "LocalHost.", False, "loopback"),
        ("https", "x.localhost", False, "loopback"),
        ("https", "10.0.0.1", True, "10.0.0.1 is a private address"),
        ("https", "169.254.169.254", True, "link-local"),
        ("https", "127.1", True, "127.1 must be a host name or a plain IP address"),
        ("https", "0x7f000001", True, "plain IP address"),
        ("https", "2130706433", True, "plain IP address"),
        ("https", "0177.0.0.1", False, "plain IP address"),
        ("https", "127.0.0.1.", False, "plain IP address"),
        ("https", "1.2.3.4.example.com", False, None),
        ("https", "198.18.0.5", True, "is the address of a tunnel"),
        ("ftp", "cdn.example.com", False, "begins with ftp://"),
        ("file", "", False, "no host"),
        ("", "cdn.example.com", False, "has no https://"),
        ("https", None, False, "no host"),
    ],
)
def test_url_rules(scheme: str, host: str | None, loopback: bool, expected_text: str | None) -> None:
    """https is allowed to a name or a public address, http to loopback by option only; numeric disguises are forbidden."""
    reason = forbidden_url_reason(scheme, host, userinfo=False, loopback=loopback)
    assert (reason is None) if expected_text is None else (reason is not None and expected_text in reason)


@pytest.mark.parametrize(
    "scheme, host, http, tunnel, kind",
    [
        ("http", "cdn.example.com", False, False, "http"),
        ("http", "cdn.example.com", False, True, "http"),
        ("http", "cdn.example.com", True, False, None),
        ("http", "8.8.8.8", True, False, None),
        ("https", "198.18.0.5", False, False, "tunnel"),
        ("https", "198.19.255.255", True, False, "tunnel"),
        ("https", "fc00::1a", False, False, "tunnel"),
        ("https", "::ffff:198.18.0.5", False, False, "tunnel"),
        ("https", "198.18.0.5", False, True, None),
        ("https", "fc00:3fff::1", False, True, None),
        ("http", "198.18.0.5", True, True, None),
    ],
)
def test_the_user_may_allow_http_and_tunnels(
    scheme: str, host: str, http: bool, tunnel: bool, kind: str | None
) -> None:
    """A refusal that the user can lift names the word for it, in Python and on the command line."""
    reason = forbidden_url_reason(scheme, host, userinfo=False, loopback=False, tunnel=tunnel, http=http)
    assert (None if reason is None else allowable_kind(reason)) == kind
    assert reason is None or f'allow_results=["{kind}"] or --allow-results {kind}' in reason


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "fd00::1", "fc00:4000::1", "fcff::1", "169.254.169.254", "127.0.0.1", "localhost", "127.1"]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nothing_allows_the_networks_of_the_user(scheme: str, host: str) -> None:
    """Private, link-local and loopback addresses stay refused with everything allowed, and no word is named."""
    reason = forbidden_url_reason(scheme, host, userinfo=False, loopback=False, tunnel=True, http=True)
    assert reason is not None
    assert allowable_kind(reason) is None


def test_credentials_in_a_url_are_refused() -> None:
    """A URL with a user name or a password is not requested."""
    reason = forbidden_url_reason("https", "cdn.example.com", userinfo=True, loopback=False)
    assert reason == "the address holds a user name or a password"


@pytest.mark.parametrize(
    "url, shown",
    [
        ("https://cdn.example.com/a/b.mp4?X-Signature=secret#part", "https://cdn.example.com/a/b.mp4"),
        ("https://me:secret@cdn.example.com/b.mp4", "https://cdn.example.com/b.mp4"),
        ("//me:secret@cdn.example.com/b.mp4", "//cdn.example.com/b.mp4"),
        ("https://cdn.example.com/a@b.mp4", "https://cdn.example.com/a@b.mp4"),
        ("no address", "no address"),
    ],
)
def test_a_redacted_url_has_no_secrets(url: str, shown: str) -> None:
    """A redacted URL contains no query, fragment, user name or password."""
    assert redact_url(url) == shown


@given(st.text())
def test_any_text_can_be_redacted(text: str) -> None:
    """Redacting never fails and returns at most 200 characters and an ellipsis."""
    assert len(redact_url(text)) <= 201
    assert "?" not in redact_url(text)


#: Every way in which an address may carry a user name, a password or both. `secret` must not be left of any.
USERINFO = [
    "https://secret@cdn.example.com/v.mp4",
    "https://:secret@cdn.example.com/v.mp4",
    "https://secret:@cdn.example.com/v.mp4",
    "https://me:secret@cdn.example.com/v.mp4",
    "https://me:secret@@cdn.example.com/v.mp4",
    "https://me@corp:secret@cdn.example.com/v.mp4",
    "https://me%40corp:%73ecret-secret@cdn.example.com/v.mp4",
    "https://me:secret%40cdn.example.com/v.mp4",
    "https://me:secret/x@cdn.example.com/v.mp4",
    "https://me:secret?x@cdn.example.com/v.mp4",
    "https://me:secret#x@cdn.example.com/v.mp4",
    "https://me:secret\\x@cdn.example.com/v.mp4",
    "https:\\\\me:secret@cdn.example.com/v.mp4",
    "https:/me:secret@cdn.example.com/v.mp4",
    "https:///me:secret@cdn.example.com/v.mp4",
    "HTTPS://me:secret@cdn.example.com/v.mp4",
    " https://me:secret@cdn.example.com/v.mp4",
    "ht\ttps://me:secret@cdn.example.com/v.mp4",
    "//me:secret@cdn.example.com/v.mp4",
    "me:secret@cdn.example.com/v.mp4",
    "url=https://me:secret@cdn.example.com/v.mp4",
    "https://me:/secret@cdn.example.com/v.mp4",
    "http://me:secret@[2606:4700::1111]:8080/v.mp4",
]


@pytest.mark.parametrize("url", USERINFO)
def test_no_form_of_user_information_is_left(url: str) -> None:
    """In a video, in an error and in a text, nothing of a user name or a password is left, and the path is."""
    video = Video(url=url, poster=url, thumbnail=url, share_url=url, last_frame=url)
    shown = [video.url, video.poster, video.thumbnail, video.share_url, video.last_frame, redact_url(url)]
    for text in [*shown, redact_text(f"ValueError('{url.strip()}')") if "\t" not in url else ""]:
        assert "secret" not in (text or "")
    assert video.url.endswith("/v.mp4")
    assert "@" not in video.url
    assert strip_userinfo(video.url) == video.url


@pytest.mark.parametrize(
    "url",
    [
        "https://cdn.example.com/@me/a@b.mp4?user=a@b.c#@",
        "https://cdn.example.com:8443/a%40b.mp4",
        "http://[2606:4700::1111]:80/a@b.mp4",
        "https://bücher.example/a@b",
        "/relative/a@b.mp4",
        "https://cdn.example.com/v.mp4",
        "",
    ],
)
def test_an_address_without_user_information_is_unchanged(url: str) -> None:
    """An `@` in a path, a query or a fragment is part of the address, whose signature depends on each character."""
    assert Video(url=url).url == url


@given(st.text("ab:@/\\?#%40[] ", max_size=30))
def test_any_text_is_stripped_once(text: str) -> None:
    """Stripping needs no valid address, and raises nothing."""
    assert len(strip_userinfo(text)) <= len(text)


def test_a_path_keeps_its_at_sign() -> None:
    """Only the part before the host is removed."""
    assert Video(url="https://token@cdn.example.com/@v/v.mp4").url == "https://cdn.example.com/@v/v.mp4"


def test_addresses_inside_a_text_are_redacted() -> None:
    """An error of a library may hold several addresses; the words around them stay."""
    text = "cannot open 'https://me:secret@cdn.example.com/a?sig=secret' or //b:secret@h/b#secret now"
    assert redact_text(text) == "cannot open 'https://cdn.example.com/a' or //h/b now"
