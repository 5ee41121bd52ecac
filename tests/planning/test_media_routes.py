"""URLs of pictures and videos that a gateway on the public internet can never fetch are refused before they cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from pika_async import GenerationRequest, InvalidRequest
from pika_async._planning.media_routes import check_reach, fields_to_upload, local_media, with_media
from pika_async.providers import PROVIDERS, Capability, Provider

PUBLIC = "https://pika.example"
#: Host of a URL -> the word for it.
OUT_OF_REACH = {
    "localhost": "loopback", "LocalHost.": "loopback", "files.localhost": "loopback", "localhost:8000": "loopback",
    "127.0.0.1": "loopback", "127.8.8.8:80": "loopback", "[::1]:8000": "loopback", "[::ffff:127.0.0.1]": "loopback",
    "10.0.0.7": "private", "172.16.0.1": "private", "192.168.1.20:8080": "private", "[fd00::1]": "private",
    "me:secret@192.168.1.20": "private", "169.254.169.254": "link-local", "[fe80::1]": "link-local",
    "0.0.0.0": "unspecified",  # noqa: S104 - nothing is bound
    "100.64.0.1": "carrier-grade NAT", "127.1": "numeric", "2130706433": "numeric",
    "127.0.0.1.": "numeric",
}  # fmt: skip
WITHIN_REACH = (
    "cdn.example.com", "8.8.8.8", "[2606:4700::1111]:8080", "172.32.0.1", "localhost.example.com", "10.0.0.7.example.com",
    "mylocalhost.com", "cdn.example.com/127.0.0.1", "cdn.example.com/?from=localhost", "cdn.example.com#@localhost",
)  # fmt: skip
#: Gateways that may be beside the file: an emulator, a container, a host of this network.
NEARBY = (
    "http://127.0.0.1:8080", "http://[::1]:8080", "http://localhost:8080", "http://pika.localhost", "http://10.0.0.1",
    "http://192.168.1.1:8080", "http://emulator:8080", "http://host.docker.internal:8080", "http://relay.local",
)  # fmt: skip


def inputs(url: str) -> dict[str, dict[str, Any]]:
    """Return the fields of requests by the name of the field that holds the URL."""
    return {
        "image": {"image": url},
        "video": {"video": url, "effect": "Melt"},
        "last_image": {"image": "https://cdn.example.com/a.png", "last_image": url},
        "ingredients[1]": {"ingredients": ["https://cdn.example.com/a.png", url]},
    }


def refusal(provider: Provider, request: GenerationRequest, base_url: str) -> str | None:
    """Return why the request is refused at a gateway; None if it is not."""
    try:
        check_reach(provider, request, base_url)
    except InvalidRequest as error:
        return str(error)
    return None


FIELDS = pytest.mark.parametrize("field", inputs(""))
ALL = pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)


@ALL
@FIELDS
@pytest.mark.parametrize("host", OUT_OF_REACH)
def test_a_url_that_a_public_gateway_cannot_reach_is_refused(provider: Provider, field: str, host: str) -> None:
    """`localhost` and IP addresses that are not public are refused in every field, with the field, the URL and a way out."""
    url = f"HTTP://{host}/cat.png"
    with pytest.raises(InvalidRequest) as caught:
        check_reach(provider, GenerationRequest("a cat", **inputs(url)[field]), provider.base_url or PUBLIC)
    assert str(caught.value) == (
        f"{field}: {url!r} must be a public URL: {provider.title} cannot reach this {OUT_OF_REACH[host]} address; upload "
        "the file and give its public URL, or give its path and let an uploader do that (PikaClient(uploader=...), "
        "--uploader)"
    )


@ALL
@FIELDS
@pytest.mark.parametrize("host", WITHIN_REACH)
def test_a_url_that_may_be_public_is_not_refused(provider: Provider, field: str, host: str) -> None:
    """A name is not resolved, and what stands behind the host does not count."""
    request = GenerationRequest("a cat", **inputs(f"https://{host}/cat.png")[field])
    assert refusal(provider, request, provider.base_url or PUBLIC) is None


@ALL
@FIELDS
@pytest.mark.parametrize("base_url", NEARBY)
def test_a_gateway_nearby_takes_every_url(provider: Provider, field: str, base_url: str) -> None:
    """A gateway that is not itself public may reach this machine and its network."""
    for host in (*OUT_OF_REACH, *WITHIN_REACH):
        request = GenerationRequest("a cat", **inputs(f"http://{host}/cat.png")[field])
        assert refusal(provider, request, base_url) is None, host


def test_files_and_bytes_are_not_urls() -> None:
    """A path that begins like a local address is a file of this machine."""
    request = GenerationRequest("a cat", ingredients=["localhost/cat.png", b"http://127.0.0.1/", "127.0.0.1"])
    assert refusal(PROVIDERS["native"], request, PUBLIC) is None


def test_a_last_image_is_read_and_uploaded_as_its_field() -> None:
    """It takes the same way as the image, each under its own name."""
    request = GenerationRequest("a cat", image="a.png", last_image=b"z")
    assert local_media(request) == {"image": Path("a.png"), "last_image": b"z"}
    loaded = with_media(request, {"last_image": "https://x/z.png", "image": b"a"})
    assert (loaded.image, loaded.last_image, loaded.ingredients) == (b"a", "https://x/z.png", ())
    provider = attrs.evolve(
        PROVIDERS["cometapi"], capabilities={**PROVIDERS["cometapi"].capabilities, "last_image": Capability("last")}
    )
    assert fields_to_upload(provider, request, {}, can_upload=True) == {"image", "last_image"}
