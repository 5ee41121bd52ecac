"""Choice of a proxy: the values of the variables that people set, what is taken, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from pika_async import ConfigurationError, PikaClient
from pika_async._http.proxies import environment_proxy, proxy_url, select_proxy
from pika_async._http.transport import AiohttpTransport
from pika_async.providers._wire import Credential, HttpRequest, HttpResponse
from tests.fakes.raw_server import RawServer

SECRET = "canary-password"
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ftp_proxy")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    "text, expected",
    [
        ("http://proxy.example:3128", "http://proxy.example:3128"),
        ("https://proxy.example", "https://proxy.example"),
        ("HTTP://Proxy.example:3128/", "HTTP://Proxy.example:3128/"),
        ("proxy.example:3128", "http://proxy.example:3128"),
        ("localhost:3128", "http://localhost:3128"),
        ("10.0.0.1", "http://10.0.0.1"),
        ("[::1]:3128", "http://[::1]:3128"),
        ("user:p%40ss@proxy.example:3128", "http://user:p%40ss@proxy.example:3128"),
    ],
)
def test_a_proxy_without_a_scheme_is_an_http_proxy(text: str, expected: str) -> None:
    """HOST:PORT is read as curl, requests and Go read it."""
    assert proxy_url(text) == expected


@pytest.mark.parametrize("scheme", ["socks", "socks4", "socks4a", "socks5", "socks5h", "SOCKS5"])
def test_a_socks_proxy_is_refused_as_such(scheme: str) -> None:
    """The error names the variable, says that SOCKS is not supported, gives the way out, and repeats no password."""
    with pytest.raises(ConfigurationError) as caught:
        proxy_url(f"{scheme}://user:{SECRET}@127.0.0.1:1080", setting="ALL_PROXY")
    assert caught.value.message.startswith("ALL_PROXY: SOCKS proxies are not supported; most programs that offer SOCKS")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "://proxy", "ftp://proxy.example", "http//proxy.example:3128", "http:proxy.example:3128",
        '"http://proxy.example:3128"', "http://", "http://:3128", "proxy.example:port", "proxy.example:99999",
        f"http://user:{SECRET}#1@proxy.example", "http://proxy.example/path", "http://proxy.example?a=1",
        "http://proxy.example:3128\n", "http://pro xy.example",
    ],
)  # fmt: skip
def test_what_is_not_an_address_of_a_proxy_is_refused(text: str) -> None:
    """The error names the setting, and repeats no password."""
    with pytest.raises(ConfigurationError, match=r"^HTTPS_PROXY: must be an http\(s\) URL or HOST:PORT") as caught:
        proxy_url(text, setting="HTTPS_PROXY")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "scheme, proxies, expected",
    [
        ("https", {}, None),
        ("https", {"http": "a:1"}, None),
        ("https", {"https": "a:1", "all": "b:1"}, "http://a:1"),
        ("https", {"all": "b:1"}, "http://b:1"),
        ("http", {"https": "a:1", "all": " b:1 "}, "http://b:1"),
        ("http", {"http": " ", "all": "b:1"}, "http://b:1"),
        ("https", {"https": "http://a:1", "all": "socks5://b:1"}, "http://a:1"),
    ],
)
def test_the_variable_of_the_scheme_comes_before_all_proxy(
    scheme: str, proxies: dict[str, str], expected: str | None
) -> None:
    """`ALL_PROXY` counts where the variable of the scheme is missing; a variable that is not used may hold anything."""
    assert select_proxy(scheme, proxies) == expected


@pytest.mark.parametrize(
    "url, no_proxy, direct",
    [
        ("https://gateway.example", "", False),
        ("https://gateway.example", "other.example", False),
        ("https://gateway.example", "*", True),
        ("https://gateway.example", "other.example, gateway.example", True),
        ("https://api.gateway.example", ".gateway.example", True),
        ("https://gateway.example:8443", "gateway.example:8443", True),
        ("https://gateway.example:8443", "gateway.example:9000", False),
        ("https://10.1.2.3", "10.0.0.0/8", True),
        ("https://11.1.2.3", "10.0.0.0/8,nonsense/9", False),
        ("https://[fd00::1]", "fd00::/8", True),
        ("https://127.0.0.1:1", "", True),
        ("https://localhost", "", True),
    ],
)
def test_no_proxy_names_hosts_ports_and_networks(
    url: str, no_proxy: str, direct: bool, environment: pytest.MonkeyPatch
) -> None:
    """Hosts in `NO_PROXY`, networks included, and this machine are reached directly."""
    environment.setenv("all_proxy", "proxy.example:3128")
    environment.setenv("NO_PROXY", no_proxy)
    assert environment_proxy(url) == (None if direct else "http://proxy.example:3128")


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("base_url", ["https://gateway.example", "http://gateway.example"])
def test_a_client_refuses_a_variable_that_it_cannot_use(
    name: str, base_url: str, environment: pytest.MonkeyPatch
) -> None:
    """The variable is named before anything is sent, also where only the downloads would use it."""
    environment.setenv(name, "socks5://127.0.0.1:1080")
    with pytest.raises(ConfigurationError) as caught:
        PikaClient("gptge", api_key="sk-anything", base_url=base_url)
    assert caught.value.setting == name.upper()


@pytest.mark.parametrize(
    "options",
    [{"base_url": "http://127.0.0.1:1"}, {"base_url": "https://gateway.example", "proxy": "127.0.0.1:3128"}],
)
def test_a_variable_that_is_not_used_is_not_checked(options: dict[str, Any], environment: pytest.MonkeyPatch) -> None:
    """A gateway on this machine, and a client with a proxy of its own, do not depend on the environment."""
    environment.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    assert PikaClient("gptge", api_key="sk-anything", **options).base_url == options["base_url"]


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["http_proxy", "ALL_PROXY"])
async def test_a_submission_goes_through_a_proxy_without_a_scheme(name: str, environment: pytest.MonkeyPatch) -> None:
    """A real request reaches the proxy that the variable names as HOST:PORT."""
    async with RawServer() as proxy:
        environment.setenv(name, f"127.0.0.1:{proxy.port}")
        transport = AiohttpTransport("http://gateway.invalid", Credential("sk-anything"))
        await transport.open()
        request = HttpRequest(method="POST", url="http://gateway.invalid/pika/generate", body=b"{}", paid=True)
        response = await transport.send(request)
        await transport.close()
        assert isinstance(response, HttpResponse)
        assert [received.target for received in proxy.received] == ["http://gateway.invalid/pika/generate"]
