"""Providers by name, built in and registered, and their capability tables."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import attrs
import pytest

from pika_async import ConfigurationError, GenerationRequest, InvalidRequest, PikaClient, find_provider, provider_names
from pika_async.providers import COMETAPI, GPTGE, PROVIDERS, TITLES, Capability, Provider

MODULE = """
import attrs
from pika_async.providers import GPTGE

ACME = attrs.evolve(GPTGE, name="acme", title="Acme", base_url="https://api.acme.example", api_key_env="ACME_API_KEY")
NO_PROVIDER = "a text"
"""
ENTRY_POINTS = """[pika_async.providers]
acme = acme_pika:ACME
broken = acme_pika_that_is_not_there:ACME
text = acme_pika:NO_PROVIDER
cometapi = acme_pika:ACME
CometAPI = acme_pika:ACME
gpt.ge = acme_pika:ACME
"""


def test_the_titles_that_find_records_are_those_of_the_records() -> None:
    """A record that is not loaded yet is found by the title that it has."""
    assert {name: (record.name, record.title) for name, record in PROVIDERS.items()} == {
        name: (name, title) for name, title in TITLES.items()
    }
    assert provider_names()[: len(TITLES)] == [*TITLES]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install a third party's package from a wheel with pip and return its folder."""
    folder = tmp_path_factory.mktemp("acme")
    wheel = folder / "acme_pika-1.0-py3-none-any.whl"
    info = "acme_pika-1.0.dist-info"
    files = {
        "acme_pika.py": MODULE,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: acme_pika\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": ENTRY_POINTS,
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"]))
    site = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    return site


def test_an_installed_provider_is_found_by_name(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that another package registers is listed after the built-in ones, is loaded, and works in a client."""
    assert "acme" not in provider_names()
    monkeypatch.syspath_prepend(str(installed))
    assert provider_names() == [*PROVIDERS, "acme", "broken", "text"]
    acme = find_provider("ACME")
    assert (acme.name, acme.base_url) == ("acme", "https://api.acme.example")
    client = PikaClient("acme", api_key="a-key-of-acme")
    assert repr(client) == "<PikaClient acme at https://api.acme.example>"


def test_a_built_in_name_cannot_be_replaced(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that registers `cometapi` or `gpt.ge`, in any letter case, does not get its users' keys."""
    monkeypatch.syspath_prepend(str(installed))
    assert find_provider("cometapi") is PROVIDERS["cometapi"]
    assert find_provider("CometAPI") is PROVIDERS["cometapi"]
    assert find_provider("GPT.ge") is PROVIDERS["gptge"]


@pytest.mark.parametrize(
    ("name", "provider"),
    [
        ("CometAPI", "cometapi"), ("COMETAPI", "cometapi"), ("YEScale", "yescale"), ("gpt.ge", "gptge"),
        ("GPT.GE", "gptge"), ("gptge", "gptge"), (" Native ", "native"), ("native Pika", "native"),
    ],
)  # fmt: skip
def test_providers_are_found_by_name_or_title_in_any_case(name: str, provider: str) -> None:
    """A name or a title, in any letter case and with blanks around it, is that provider; a client takes it too."""
    assert find_provider(name) is PROVIDERS[provider]
    assert PikaClient(name, api_key="a-key", base_url="https://pika.example").provider is PROVIDERS[provider]


@pytest.mark.parametrize(
    ("name", "closest"),
    [("comet", "cometapi"), ("gtpge", "gptge"), ("yes-scale", "yescale"), ("natve", "native"), ("Acne", "acme")],
)
def test_an_unknown_provider_names_the_closest_one(
    installed: Path, monkeypatch: pytest.MonkeyPatch, name: str, closest: str
) -> None:
    """A mistyped name is refused with all names and the one that it resembles most, registered ones included."""
    monkeypatch.syspath_prepend(str(installed))
    with pytest.raises(ConfigurationError) as caught:
        find_provider(name)
    assert str(caught.value) == (
        f"provider: {name!r} must be one of cometapi, yescale, gptge, native, pika, fal, acme, broken, text; "
        f"did you mean {closest}?"
    )


@pytest.mark.parametrize("name", ["", " ", "sora", "openai", "\x1b[31m"])
def test_a_name_that_resembles_no_provider_gets_no_suggestion(name: str) -> None:
    """A name that is far from all others is refused with the list of names only."""
    with pytest.raises(ConfigurationError) as caught:
        find_provider(name)
    assert "did you mean" not in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("name", "text"),
    [("broken", "fails to load"), ("text", "must be a pika_async Provider"), ("none", "must be one of")],
)
def test_a_bad_registration_is_named(installed: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    """A registered provider that cannot be loaded is a configuration error with its name."""
    monkeypatch.syspath_prepend(str(installed))
    with pytest.raises(ConfigurationError, match=text):
        find_provider(name)


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda provider: provider.name)
def test_the_capability_table_is_complete(provider: Provider) -> None:
    """Every field that can be sent has a row; a field that is not supported has a reason."""
    own = {"prompt", "key", "metadata", "strict"}
    assert set(provider.capabilities) == {field.name for field in attrs.fields(GenerationRequest)} - own
    assert [field for field, can in provider.capabilities.items() if not can.supported and not can.note] == []


GIVEN: dict[str, Any] = {
    "image": "https://example.com/a.png", "video": "https://example.com/a.mp4",
    "ingredients": ["https://example.com/a.png"], "effect": "Melt", "aspect_ratio": "16:9", "frame_rate": 12,
    "camera": {"pan": "left"}, "guidance_scale": 7, "motion": 3, "negative_prompt": "ugly", "seed": 5, "sfx": True,
    "extend": True, "model": "1.5", "duration": 5, "resolution": "720p", "last_image": "https://example.com/b.png",
}  # fmt: skip


#: Fields that a provider needs beside another, or in the place of its value.
BESIDE: dict[tuple[str, str], dict[str, Any]] = {
    ("cometapi", "video"): {"effect": "Melt"},
    ("pika", "effect"): {"image": GIVEN["image"]},
    ("pika", "last_image"): {"image": GIVEN["image"]},
    ("pika", "aspect_ratio"): {"model": "h3-flex"},
    ("fal", "effect"): {"image": GIVEN["image"]},
    ("fal", "model"): {"model": "2.2"},
    ("pika", "model"): {"model": "2.5"},
}


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda provider: provider.name)
@pytest.mark.parametrize("field", GIVEN)
def test_check_agrees_with_the_table(provider: Provider, field: str) -> None:
    """A field passes the check, with what it needs beside it, exactly when the table has it as supported."""
    request = GenerationRequest("a cat", **{field: GIVEN[field]} | BESIDE.get((provider.name, field), {}))
    if provider.capabilities[field].supported:
        provider.check(request)
    else:
        with pytest.raises(InvalidRequest, match=f"^{field}: .* must be left out at {provider.title}: "):
            provider.check(request)


@pytest.mark.parametrize("field", ["duration", "resolution", "last_image"])
def test_a_younger_field_without_a_row_is_refused(field: str) -> None:
    """A record of another package that is older than the field never drops it from what is paid for."""
    rows = {name: row for name, row in GPTGE.capabilities.items() if name != field}
    older = attrs.evolve(GPTGE, capabilities=rows)
    older.check(GenerationRequest("a cat"))
    with pytest.raises(InvalidRequest, match=f"^{field}: .* must be left out at gpt.ge: its record documents no "):
        older.check(GenerationRequest("a cat", **{field: GIVEN[field]}))


def test_a_last_image_is_checked_like_the_first() -> None:
    """Its size and its form are those that the provider takes."""
    taken = Capability("last", "as the image")
    inline, urls = (attrs.evolve(it, capabilities={**it.capabilities, "last_image": taken}) for it in (GPTGE, COMETAPI))
    inline.check(GenerationRequest("a cat", image="https://x/1", last_image=b"x" * 735_000))
    with pytest.raises(InvalidRequest, match=r"^last_image: '735,001 bytes' must be at most 735,000 bytes at gpt.ge"):
        inline.check(GenerationRequest("a cat", image="https://x/1", last_image=b"x" * 735_001))
    for media in (b"x", Path("a.png")):
        with pytest.raises(InvalidRequest, match=r"^last_image: .* must be a URL at CometAPI"):
            urls.check(GenerationRequest("a cat", image="https://x/1", last_image=media))


def test_providers_differ_as_their_pages_do() -> None:
    """Video input, ingredients, sound, extension and the number of effects differ between the gateways as documented."""
    can = {
        name: {field for field, row in provider.capabilities.items() if row.supported}
        for name, provider in PROVIDERS.items()
    }
    assert {name for name, fields in can.items() if "video" in fields} == {"cometapi", "gptge", "pika", "fal"}
    assert {name for name, fields in can.items() if "ingredients" in fields} == {"native", "fal"}
    assert {name for name, fields in can.items() if "duration" in fields} == {"pika", "fal"}
    assert {name for name, fields in can.items() if "last_image" in fields} == {"pika"}
    assert {name for name, fields in can.items() if "sfx" in fields} == {"cometapi"}
    assert {name for name, fields in can.items() if "extend" in fields} == {"yescale", "gptge", "native"}
    assert {name: len(provider.effects) for name, provider in PROVIDERS.items()} == {
        "cometapi": 13, "yescale": 10, "gptge": 10, "native": 16, "pika": 16, "fal": 16,
    }  # fmt: skip


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("folders", [0, 1, 3, 5, 30])
def test_a_picture_in_a_deep_folder_is_refused_with_its_name_its_size_and_a_way_out(name: str, folders: int) -> None:
    """However long its path is, the sentence holds the file's name, its size, the limit and the whole way out."""
    path = PurePosixPath("/", *["a folder with a name"] * folders, "cat.png")
    with pytest.raises(InvalidRequest) as caught:
        PROVIDERS[name].check_size("image", 900_000, path)
    limit = "at most 735,000 bytes" if PROVIDERS[name].inline_limit else "a URL"
    assert f"/cat.png (900,000 bytes)' must be {limit} at {PROVIDERS[name].title}" in str(caught.value)
    assert "let an uploader do that (PikaClient(uploader=...), --uploader)" in str(caught.value)
