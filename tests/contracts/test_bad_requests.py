"""Invalid input of the Python API: each kind is refused by name, with the way out, before anything is sent."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pika_async import (
    AdaptivePolling,
    CallbackReceiver,
    Camera,
    ClientNotOpen,
    ConfigurationError,
    FixedInterval,
    GenerationRequest,
    InvalidRequest,
    Job,
    JobStatus,
    Limits,
    PikaClient,
    Provider,
    find_provider,
)
from pika_async.providers import PROVIDERS
from tests.fakes import memory_gateway, virtual_clock
from tests.http.media_files import made, real_mp4

# --- invalid at every gateway ---------------------------------------------------------------------------------------------

#: By kind: the fields of the request, the field in the error, and a part of its message.
FIELDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "prompt empty": ({"prompt": ""}, "prompt", "must not be empty; give some text"),
    "prompt blank": ({"prompt": " \t\n"}, "prompt", "must not be empty; give some text"),
    "prompt no-break blank": ({"prompt": "\u00a0\u2003"}, "prompt", "must not be empty; give some text"),
    "prompt None": ({"prompt": None}, "prompt", "must be text, not NoneType"),
    "prompt number": ({"prompt": 42}, "prompt", "42 must be text, not int"),
    "prompt bytes": ({"prompt": b"a cat"}, "prompt", "must be text, not bytes"),
    "prompt list": ({"prompt": ["a cat"]}, "prompt", "must be text, not list"),
    "prompt lone surrogate": ({"prompt": "a \ud83d cat"}, "prompt", "half of a character"),
    "prompt NUL": ({"prompt": "a\0cat"}, "prompt", "must not hold a NUL character; remove it"),
    "image empty bytes": ({"image": b""}, "image", "must not be empty; give bytes, a path or a URL"),
    "image empty text": ({"image": ""}, "image", "must not be empty; give some text"),
    "image number": ({"image": 7}, "image", "7 must be a URL, a path, bytes, an open file or a PIL image, not int"),
    "image bytearray": ({"image": bytearray(b"x")}, "image", "must be a URL, a path, bytes, an open file or a PIL image, not bytearray"),
    "image ftp": ({"image": "ftp://x.example/y.png"}, "image", "'ftp://x.example/y.png' must be an http(s) URL"),
    "image data URI": ({"image": "data:image/png,AAAA"}, "image", "must be a data URI in base64 (data:image/png;base64,...)"),
    "image torn data URI": ({"image": "data:image/png;base64,A?AA"}, "image", "must be a data URI in base64"),
    "image empty data URI": ({"image": "data:image/png;base64,"}, "image", "must not be an empty data URI"),
    "image without host": ({"image": "https:///cat.png"}, "image", "with a host"),
    "image torn IPv6": ({"image": "http://[::1/cat.png"}, "image", "with a host"),
    "image only a user": ({"image": "http://user@/cat.png"}, "image", "with a host"),
    "image port beyond": ({"image": "https://x.example:99999/"}, "image", "'https://x.example:99999/' must be a complete URL"),
    "image white space": ({"image": "https://x.example/a cat.png"}, "image", "without white space"),
    "image line break": ({"image": "https://x.example/a\r\nX-Evil: 1"}, "image", "without white space"),
    "image NUL": ({"image": "cat\0.png"}, "image", "NUL character"),
    "image surrogate": ({"image": "https://x.example/\udc00"}, "image", "half of a character"),
    "video number": ({"video": 1.5}, "video", "1.5 must be a URL, a path, bytes, an open file or a PIL image, not float"),
    "video and image": ({"image": "https://x/1", "video": "https://x/2"}, "video", "must not be given with an image"),
    "ingredients text": ({"ingredients": "https://x/1"}, "ingredients", "must be a list; give a list of images"),
    "ingredients bytes": ({"ingredients": b"xyz"}, "ingredients", "must be a list; give a list of images"),
    "ingredients set": ({"ingredients": {"https://x/1"}}, "ingredients", "must be a list; give a list of images"),
    "ingredient number": ({"ingredients": ["https://x/1", 2]}, "ingredients[1]", "2 must be a URL, a path, bytes, an open file or a PIL image, not int"),
    "ingredient empty": ({"ingredients": [""]}, "ingredients[0]", "must not be empty"),
    "ingredients and image": ({"ingredients": ["https://x/1"], "image": b"1"}, "ingredients", "give one kind of input"),
    "mode unknown": ({"ingredients": ["https://x/1"], "ingredients_mode": "wild"}, "ingredients_mode", "must be one of precise, creative"),
    "mode alone": ({"ingredients_mode": "precise"}, "ingredients_mode", "must come with ingredients; give them or leave it out"),
    "mode list": ({"ingredients": ["https://x/1"], "ingredients_mode": []}, "ingredients_mode", "must be one of precise"),
    "effect unknown": ({"effect": "Vaporize"}, "effect", "'Vaporize' must be one of Inflate, Melt"),
    "effect empty": ({"effect": " "}, "effect", "must not be empty"),
    "effect number": ({"effect": 3}, "effect", "3 must be text, not int"),
    "effect look-alike": ({"effect": "Меlt"}, "effect", "must be one of Inflate"),
    "effect surrogate": ({"effect": "\ud800", "strict": False}, "effect", "half of a character"),
    "ratio of words": ({"aspect_ratio": "wide"}, "aspect_ratio", "'wide' must be a ratio; give \"16:9\""),
    "ratio empty": ({"aspect_ratio": ""}, "aspect_ratio", "must be a ratio"),
    "ratio by zero": ({"aspect_ratio": "16:0"}, "aspect_ratio", "must be a ratio"),
    "ratio zero": ({"aspect_ratio": 0}, "aspect_ratio", "0 must be from 0.4 to 2.5 (width by height)"),
    "ratio negative": ({"aspect_ratio": -1.7}, "aspect_ratio", "-1.7 must be from 0.4 to 2.5"),
    "ratio negative text": ({"aspect_ratio": "-16:9"}, "aspect_ratio", "must be a ratio"),
    "ratio too wide": ({"aspect_ratio": "3:1"}, "aspect_ratio", "'3:1' must be from 0.4 to 2.5"),
    "ratio too tall": ({"aspect_ratio": 0.39}, "aspect_ratio", "0.39 must be from 0.4 to 2.5"),
    "ratio NaN": ({"aspect_ratio": math.nan}, "aspect_ratio", "nan must be a ratio"),
    "ratio infinite": ({"aspect_ratio": math.inf}, "aspect_ratio", "inf must be a ratio"),
    "ratio NaN text": ({"aspect_ratio": "nan"}, "aspect_ratio", "'nan' must be a ratio"),
    "ratio huge": ({"aspect_ratio": 10**400}, "aspect_ratio", "must be a ratio"),
    "ratio bool": ({"aspect_ratio": True}, "aspect_ratio", "True must be a ratio"),
    "ratio pair": ({"aspect_ratio": (16, 9)}, "aspect_ratio", "(16, 9) must be a ratio"),
    "ratio other digits": ({"aspect_ratio": "١٦:٩"}, "aspect_ratio", "must be a ratio"),
    "frame rate low": ({"frame_rate": 7}, "frame_rate", "7 must be an integer from 8 to 24"),
    "frame rate high": ({"frame_rate": 25}, "frame_rate", "25 must be an integer from 8 to 24"),
    "frame rate fraction": ({"frame_rate": 23.976}, "frame_rate", "23.976 must be an integer from 8 to 24"),
    "frame rate whole float": ({"frame_rate": 24.0}, "frame_rate", "24.0 must be an integer from"),
    "frame rate text": ({"frame_rate": "24"}, "frame_rate", "'24' must be an integer from"),
    "frame rate bool": ({"frame_rate": True}, "frame_rate", "True must be an integer from"),
    "guidance low": ({"guidance_scale": 4}, "guidance_scale", "4 must be an integer from 5 to 25"),
    "guidance NaN": ({"guidance_scale": math.nan}, "guidance_scale", "nan must be an integer from 5 to 25"),
    "motion high": ({"motion": 5}, "motion", "5 must be an integer from 0 to 4"),
    "motion negative": ({"motion": -1}, "motion", "-1 must be an integer from 0 to 4"),
    "motion bool": ({"motion": False}, "motion", "False must be an integer from 0 to 4"),
    "seed negative": ({"seed": -1}, "seed", "-1 must be an integer from 0 to 9223372036854775807"),
    "seed over 63 bits": ({"seed": 2**63}, "seed", "must be an integer from 0 to 9223372036854775807"),
    "seed text": ({"seed": "7"}, "seed", "'7' must be an integer from"),
    "camera text": ({"camera": "left"}, "camera", "'left' must be a camera; give Camera(pan="),
    "camera axis": ({"camera": {"roll": "left"}}, "camera", "'roll' must be a camera axis; the axes are pan, tilt"),
    "camera direction": ({"camera": {"pan": "up"}}, "camera.pan", "'up' must be one of left, right"),
    "camera case": ({"camera": {"zoom": "In"}}, "camera.zoom", "'In' must be one of in, out"),
    "negative prompt number": ({"negative_prompt": 0}, "negative_prompt", "0 must be text, not int"),
    "negative prompt NUL": ({"negative_prompt": "\0"}, "negative_prompt", "NUL character"),
    "sfx number": ({"sfx": 1}, "sfx", "1 must be true or false"),
    "sfx text": ({"sfx": "true"}, "sfx", "'true' must be true or false"),
    "extend None": ({"extend": None}, "extend", "None must be true or false"),
    "extend text": ({"extend": "yes"}, "extend", "'yes' must be true or false"),
    "strict number": ({"strict": 0}, "strict", "0 must be true or false"),
    "model empty": ({"model": ""}, "model", "must not be empty"),
    "model NaN": ({"model": math.nan}, "model", "nan must be text, not float"),
    "model list": ({"model": ["1.5"]}, "model", "must be text, not list"),
    "model bool": ({"model": True}, "model", "True must be text, not bool"),
    "duration zero": ({"duration": 0}, "duration", "0 must be a number of seconds above 0 and at most 86,400"),
    "duration negative": ({"duration": -5}, "duration", "-5 must be a number of seconds above 0"),
    "duration too long": ({"duration": 86_401}, "duration", "86401 must be a number of seconds above 0 and at most"),
    "duration NaN": ({"duration": math.nan}, "duration", "nan must be a number of seconds above 0"),
    "duration infinite": ({"duration": math.inf}, "duration", "inf must be a number of seconds above 0"),
    "duration huge": ({"duration": 10**400}, "duration", "must be a number of seconds above 0"),
    "duration text": ({"duration": "5"}, "duration", "'5' must be a number of seconds above 0"),
    "duration bool": ({"duration": True}, "duration", "True must be a number of seconds above 0"),
    "resolution unknown": ({"resolution": "1080"}, "resolution", "'1080' must be one of 480p, 720p, 768p, 1080p, 2k, 4k; did you mean 1080p?"),
    "resolution way out": ({"resolution": "8K"}, "resolution", "strict=False (--no-strict) sends any text"),
    "resolution empty": ({"resolution": " ", "strict": False}, "resolution", "must not be empty"),
    "resolution number": ({"resolution": 720}, "resolution", "720 must be text, not int"),
    "last image number": ({"last_image": 1}, "last_image", "1 must be a URL, a path, bytes, an open file or a PIL image, not int"),
    "last image empty": ({"last_image": b""}, "last_image", "must not be empty"),
    "last image damaged": ({"last_image": "data:image/png,x"}, "last_image", "must be a data URI in base64"),
    "last image and video": ({"last_image": b"z", "video": "https://x/2"}, "last_image", "must not be given with a video or ingredients"),
    "last image and ingredients": ({"last_image": b"z", "ingredients": ["https://x/2"]}, "last_image", "must not be given with a video or ingredients"),
    "key empty": ({"key": ""}, "key", "must not be empty"),
    "key number": ({"key": 17}, "key", "17 must be text, not int"),
    "key with a slash": ({"key": "a/b"}, "key", "hold only letters, digits and . _ - @ = +"),
    "key upwards": ({"key": "a..b"}, "key", "without .. in it"),
    "key hidden": ({"key": ".profile"}, "key", "begin with a letter, digit or _"),
    "key like an option": ({"key": "-rf"}, "key", "begin with a letter, digit or _"),
    "key blank inside": ({"key": "a b"}, "key", "hold only letters"),
    "key line break at its end": ({"key": "a\n"}, "key", "hold only letters"),
    "key right-to-left override": ({"key": "a\u202egpj"}, "key", "hold only letters"),
    "key NUL": ({"key": "a\0"}, "key", "NUL character"),
    "key too long": ({"key": "x" * 201}, "key", "must be at most 200 bytes long in UTF-8, not 201"),
    "key too long in bytes": ({"key": "é" * 101}, "key", "must be at most 200 bytes long in UTF-8, not 202"),
    "metadata list": ({"metadata": [1]}, "metadata", "[1] must be a mapping; give a dict"),
    "metadata object": ({"metadata": {"at": object()}}, "metadata", "must hold only what can be written as JSON"),
    "metadata NaN": ({"metadata": {"at": math.nan}}, "metadata", "must hold only what can be written as JSON"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FIELDS)
def test_a_bad_field_is_refused_by_name(kind: str) -> None:
    """A request with this field cannot be created; the error has the field, the value and the way out."""
    fields, field, says = FIELDS[kind]
    with pytest.raises(InvalidRequest) as caught:
        GenerationRequest(**({"prompt": "a cat"} | fields))
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")
    assert says in str(caught.value)
    assert str(caught.value).isprintable()
    assert isinstance(caught.value, ValueError)


def test_at_least_forty_kinds_of_bad_fields_are_refused() -> None:
    """The table of bad fields has at least forty rows."""
    assert len(FIELDS) >= 40


def test_an_unknown_field_is_refused() -> None:
    """A mistyped field name raises TypeError and is not ignored."""
    with pytest.raises(TypeError, match="promt_strength"):
        GenerationRequest("a cat", promt_strength=1)  # type: ignore[call-arg]


# --- invalid at one gateway --------------------------------------------------------------------------------------------

URL = "https://x.example/y"
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
#: By kind: the provider, the fields of the request, the field in the error, and a part of its message.
REFUSALS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "comet bytes": ("cometapi", {"image": made("png")}, "image", f"'{len(made('png')):,} bytes' must be a URL at CometAPI; upload the file"),
    "comet file": ("cometapi", {"image": Path("cat.png")}, "image", "'cat.png' must be an existing file"),
    "comet HEIC": ("cometapi", {"image": HEIC}, "image", "but is a HEIC picture; convert it to PNG or JPEG"),
    "native HEIC": ("native", {"image": HEIC}, "image", "but is a HEIC picture; convert it to PNG or JPEG"),
    "native torn image": ("native", {"image": made("png")[:-1]}, "image", "must be a whole file, but ends after"),
    "comet video file": ("cometapi", {"video": "cat.mp4", "effect": "Melt"}, "video", "'cat.mp4' must be an existing file"),
    "comet video without effect": ("cometapi", {"video": URL}, "effect", "must be given for a video at CometAPI; give one"),
    "comet video with model": ("cometapi", {"video": URL, "effect": "Melt", "model": "1.5"}, "model", "must be left out for a video"),
    "comet ingredients": ("cometapi", {"ingredients": [URL]}, "ingredients", "must be left out at CometAPI"),
    "comet extend": ("cometapi", {"extend": True}, "extend", "must be left out at CometAPI: its page documents no extension"),
    "comet model name": ("cometapi", {"model": "turbo"}, "model", "'turbo' must be a version; give 1.5"),
    "comet model name, not strict": ("cometapi", {"model": "turbo", "strict": False}, "model", "must be a number at CometAPI"),
    "comet ratio with an image": ("cometapi", {"image": URL, "aspect_ratio": "1:1"}, "aspect_ratio", "must be left out with image input"),
    "comet ratio with a video": ("cometapi", {"video": URL, "effect": "Melt", "aspect_ratio": 1}, "aspect_ratio", "must be left out with video input"),
    "comet duration": ("cometapi", {"duration": 5}, "duration", "5 must be left out at CometAPI: its page documents no duration"),
    "yescale resolution": ("yescale", {"resolution": "720p"}, "resolution", "must be left out at YEScale: its page documents no resolution"),
    "gptge last image": ("gptge", {"image": URL, "last_image": URL}, "last_image", "must be left out at gpt.ge: its page documents no last image"),
    "native last image file": ("native", {"image": URL, "last_image": made("png")}, "last_image", "must be left out at native Pika: its page documents"),
    "yescale video": ("yescale", {"video": URL}, "video", "must be left out at YEScale: its page documents no video input"),
    "yescale ingredients": ("yescale", {"ingredients": [URL]}, "ingredients", "must be left out at YEScale"),
    "yescale effect": ("yescale", {"effect": "Levitate"}, "effect", "'Levitate' must be an effect that YEScale documents: Inflate"),
    "yescale sound": ("yescale", {"sfx": True}, "sfx", "its wire has no switch for sound"),
    "yescale model": ("yescale", {"model": "1.5-turbo"}, "model", "'1.5-turbo' must be a version; give 1.5"),
    "yescale large image": ("yescale", {"image": made("png").ljust(735_001, b"\0")}, "image", "'735,001 bytes' must be at most 735,000 bytes at YEScale"),
    "gptge effect": ("gptge", {"effect": "eye-pop"}, "effect", "'Eye-pop' must be an effect that gpt.ge documents"),
    "gptge ingredients": ("gptge", {"ingredients": [URL]}, "ingredients", "must be left out at gpt.ge"),
    "gptge video file": ("gptge", {"video": real_mp4("")}, "video", "must be a URL at gpt.ge; upload the file"),
    "gptge ratio with an image": ("gptge", {"image": URL, "aspect_ratio": "1:1"}, "aspect_ratio", "must be left out with image input"),
    "gptge missing file": ("gptge", {"image": "no/such/cat.png"}, "image", "'no/such/cat.png' must be an existing file; correct the path"),
    "gptge folder": ("gptge", {"image": Path("/")}, "image", "'/' must be an existing file; correct the path"),
    "native video": ("native", {"video": URL}, "video", "must be left out at native Pika"),
    "native sound": ("native", {"sfx": True}, "sfx", "its wire has no switch for sound"),
    "native ingredients on 1.5": ("native", {"ingredients": [URL], "model": "1.5"}, "model", "must be 2.0 with ingredients; give that or leave it out"),
    "native ingredient file": ("native", {"ingredients": [URL, made("png")]}, "ingredients[1]", "must be a URL at native Pika"),
    "native model": ("native", {"model": "latest"}, "model", "'latest' must be a version; give 1.5 or 2.0"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSALS)
def test_what_a_provider_cannot_do_is_refused_before_it_costs(kind: str) -> None:
    """`submit` and `generate` raise with field, value and way out; in a batch it is that job's rejection and stops no
    sibling; either way nothing of it is sent."""
    provider, fields, field, says = REFUSALS[kind]

    async def story() -> None:
        gateway = memory_gateway.gateway(durations="constant:0.02")
        async with memory_gateway.client(gateway, provider, polling=FixedInterval(0.02)) as pika:
            bad = GenerationRequest("bad", key="bad", **fields)
            for call in (pika.submit, pika.generate):
                with pytest.raises(InvalidRequest) as caught:
                    await call(bad)
                assert caught.value.field == field
                assert says in str(caught.value)
            assert (len(gateway.requests), await pika.jobs()) == (0, [])
            settled = {job.key: job async for job in pika.as_settled([bad, GenerationRequest("good", key="good")])}
            assert {key: job.status for key, job in settled.items()} == {
                "bad": JobStatus.REJECTED,
                "good": JobStatus.SUCCEEDED,
            }
            assert isinstance(settled["bad"].error, InvalidRequest)
            assert says in str(settled["bad"].error)
            assert settled["bad"].attempts == 0
        assert [charge.prompt for charge in gateway.ledger] == ["good"]
        assert not gateway.refusals

    # Files are checked in a thread, and virtual time does not work with threads.
    (asyncio.run if "an existing file" in says else virtual_clock.run)(story())


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_unset_field_is_always_accepted(provider: str) -> None:
    """A field that a gateway lacks is refused only if it is set."""
    record = PROVIDERS[provider]
    record.check(GenerationRequest("a", sfx=None, extend=False, ingredients=(), effect=None))


CALLS: dict[str, tuple[str, tuple[Any, ...], dict[str, Any], str]] = {
    "no request": ("submit", (42,), {}, "request"),
    "none": ("generate", (None,), {}, "request"),
    "a dict": ("submit", ({"prompt": "a cat"},), {}, "request"),
    "an empty prompt": ("generate", ("",), {}, "prompt"),
    "a bad field beside a prompt": ("generate", ("a cat",), {"seed": -1}, "seed"),
    "a bad field beside a request": ("submit", (GenerationRequest("a cat"),), {"motion": 9}, "motion"),
    "an unknown field": ("generate", ("a cat",), {"sed": 1}, "sed"),
    "a prompt twice": ("generate", ("a cat",), {"prompt": "a dog"}, "prompt"),
}


@pytest.mark.parametrize("kind", CALLS)
def test_a_bad_call_sends_nothing(kind: str) -> None:
    """An argument that is not a request raises InvalidRequest with its name; nothing is sent and no job is created."""
    name, arguments, fields, field = CALLS[kind]

    async def story() -> None:
        gateway = memory_gateway.gateway()
        async with memory_gateway.client(gateway) as pika:
            with pytest.raises(InvalidRequest) as caught:
                await getattr(pika, name)(*arguments, **fields)
            assert caught.value.field == field
            assert (len(gateway.requests), await pika.jobs()) == (0, [])

    virtual_clock.run(story())


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("aspect", "aspect_ratio"), ("ratio", "aspect_ratio"), ("aspectRatio", "aspect_ratio"), ("sed", "seed"),
        ("pikaffect", "effect"), ("negative", "negative_prompt"), ("frameRate", "frame_rate"), ("Camera", "camera"),
        ("resolutoin", "resolution"), ("lastImage", "last_image"), ("mode", "model"),
    ],
)  # fmt: skip
def test_an_unknown_field_names_the_closest_one(name: str, closest: str) -> None:
    """A mistyped field, or one as the wires spell it, is refused with the field that it resembles most."""

    async def story() -> None:
        async with memory_gateway.client(memory_gateway.gateway()) as pika:
            for call in (pika.generate, pika.submit):
                with pytest.raises(InvalidRequest, match=rf"did you mean {closest}\?"):
                    await call("a cat", **{name: 7})  # type: ignore[arg-type]

    virtual_clock.run(story())


def test_a_key_of_another_content_is_refused() -> None:
    """A second content with an existing key raises and is not sent; the first job continues."""

    async def story() -> None:
        gateway = memory_gateway.gateway()
        async with memory_gateway.client(gateway) as pika:
            first = await pika.submit("a cat", key="order-1")
            with pytest.raises(InvalidRequest, match="another content; give this one its own key"):
                await pika.submit("a dog", key="order-1")
            assert (await pika.wait(first)).status is JobStatus.SUCCEEDED
        assert [charge.prompt for charge in gateway.ledger] == ["a cat"]

    virtual_clock.run(story())


def test_two_contents_with_one_key_in_a_batch_raise_after_the_rest() -> None:
    """In a batch the second content of a key raises after the jobs of all other items were returned."""

    async def story() -> None:
        gateway = memory_gateway.gateway()
        requests = [
            GenerationRequest("a cat", key="k"),
            GenerationRequest("between"),
            GenerationRequest("a dog", key="k"),
        ]
        seen: list[str] = []

        async def consume() -> None:
            async for job in pika.as_settled(requests):
                seen.append(job.request.prompt)  # noqa: PERF401 - what came before the error is the point

        async with memory_gateway.client(gateway) as pika:
            with pytest.raises(InvalidRequest, match="another content"):
                await consume()
        assert sorted(seen) == sorted(charge.prompt for charge in gateway.ledger) == ["a cat", "between"]

    virtual_clock.run(story())


@pytest.mark.parametrize("requests", [42, None, object()])
def test_an_argument_that_cannot_be_iterated_is_refused(requests: Any) -> None:
    """`run` raises and sends nothing if its argument is not an iterable of requests."""

    async def story() -> None:
        gateway = memory_gateway.gateway()
        async with memory_gateway.client(gateway) as pika:
            with pytest.raises((TypeError, InvalidRequest)):
                await pika.run(requests)
        assert len(gateway.requests) == 0

    virtual_clock.run(story())


def test_a_single_prompt_is_refused_as_a_batch() -> None:
    """`run("a cat")` raises instead of paying for five generations of one letter each."""

    async def story() -> None:
        gateway = memory_gateway.gateway()
        async with memory_gateway.client(gateway) as pika:
            with pytest.raises((TypeError, InvalidRequest)):
                await pika.run("a cat")
        assert len(gateway.ledger) == 0

    virtual_clock.run(story())


# --- the client ---------------------------------------------------------------------------------------------------------

KEY = "k-0123456789"
#: By kind: arguments beside a valid key and URL, the setting in the error, and a part of its message.
SETTINGS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no key": ({"api_key": None}, "api_key", "no key for gpt.ge; set GPTGE_API_KEY, or give api_key or api_key_file"),
    "empty key": ({"api_key": ""}, "api_key", "is empty; give the provider's key"),
    "blank key": ({"api_key": " \n"}, "api_key", "is empty"),
    "key with a line break": ({"api_key": "k-0123\nX-Evil: 1"}, "api_key", "white space, control or non-ASCII"),
    "key with a blank": ({"api_key": "Bearer k-0123"}, "api_key", "white space"),
    "key outside ASCII": ({"api_key": "ключ-0123456"}, "api_key", "non-ASCII characters; copy it anew"),
    "key number": ({"api_key": 42}, "api_key", "is empty; give"),
    "key bytes": ({"api_key": b"k-0123456789"}, "api_key", "give the provider's key"),
    "missing key file": ({"api_key": None, "api_key_file": "no/such/file"}, "api_key_file", "no/such/file cannot be read: No such"),
    "key file is a folder": ({"api_key": None, "api_key_file": "/"}, "api_key_file", "/ cannot be read: Is a directory"),
    "unknown provider": ({"provider": "picka"}, "provider", "'picka' must be one of cometapi, yescale"),
    "provider none": ({"provider": None}, "provider", "None must be a name or a Provider"),
    "provider list": ({"provider": ["gptge"]}, "provider", "must be records of Account"),
    "provider mistyped": ({"provider": "GTPGE"}, "provider", "did you mean gptge?"),
    "native without address": ({"provider": "native", "base_url": None}, "base_url", "no address of its own; give the host"),
    "address without scheme": ({"base_url": "api.gpt.ge"}, "base_url", "'api.gpt.ge' must be an http(s) URL; give an address such as"),
    "address of another scheme": ({"base_url": "ftp://api.gpt.ge"}, "base_url", "must be an http(s) URL"),
    "address without host": ({"base_url": "https://"}, "base_url", "must be an http(s) URL"),
    "address empty": ({"base_url": ""}, "base_url", "must be an http(s) URL"),
    "address number": ({"base_url": 443}, "base_url", "443"),
    "address port beyond": ({"base_url": "https://x.example:99999"}, "base_url", "must be an http(s) URL"),
    "address torn IPv6": ({"base_url": "https://[::1"}, "base_url", "must be an http(s) URL"),
    "address with a user": ({"base_url": "https://me:word@x.example"}, "base_url", "holds a user; give the bare address"),
    "address with a query": ({"base_url": "https://x.example/?a=1"}, "base_url", "a query or a fragment; give an address such as"),
    "address with a fragment": ({"base_url": "https://x.example/#a"}, "base_url", "a query or a fragment; give an address such as"),
    "address surrogate": ({"base_url": "https://\ud800.example"}, "base_url", "give an address such as"),
    "deadline zero": ({"deadline": 0}, "deadline", "0 must be a number of seconds above 0"),
    "deadline negative": ({"deadline": -5}, "deadline", "-5 must be a number of seconds above 0"),
    "deadline NaN": ({"deadline": math.nan}, "deadline", "nan must be a number of seconds above 0"),
    "deadline infinite": ({"deadline": math.inf}, "deadline", "inf must be a number of seconds above 0"),
    "deadline text": ({"deadline": "30"}, "deadline", "'30' must be a number of seconds above 0"),
    "deadline bool": ({"deadline": True}, "deadline", "True must be a number of seconds above 0"),
    "callbacks text": ({"callbacks": "https://x.example"}, "callbacks", "must be a CallbackReceiver; give CallbackReceiver(public_url=...)"),
    "callbacks number": ({"callbacks": 1}, "callbacks", "1 must be a CallbackReceiver; give CallbackReceiver(public_url=...)"),
    "callbacks surrogate": ({"callbacks": "https://x.example/\ud800"}, "callbacks", "must be a CallbackReceiver; give CallbackReceiver"),
    "callbacks where none come": ({"callbacks": CallbackReceiver("https://x.example")}, "callbacks", "sends no callbacks"),
    "proxy other kind": ({"proxy": "socks5://x.example:1"}, "proxy", "SOCKS proxies are not supported"),
    "proxy number": ({"proxy": 8080}, "proxy", "must be text; give the http:// address"),
    "allow_results word": ({"allow_results": ["ftp"]}, "allow_results", '\'ftp\' must be one of "http", "tunnel"'),
    "allow_results text": ({"allow_results": "http"}, "allow_results", 'must be a list of "http", "tunnel", not \'http\''),
    "allow_results number": ({"allow_results": 1}, "allow_results", 'must be a list of "http", "tunnel", not 1'),
    "journal": ({"journal": ""}, "journal", "'' must be a path; give the path of a file"),
    "journal of bytes": ({"journal": b"jobs.db"}, "journal", "b'jobs.db' must be a path; give the path of a file"),
    "journal that is a number": ({"journal": 7}, "journal", "7 must be a path; give the path of a file"),
    "ambiguous": ({"ambiguous": "maybe"}, "ambiguous", "'maybe' must be \"strict\" or \"lenient\""),
}  # fmt: skip


@pytest.mark.parametrize("kind", SETTINGS)
def test_an_invalid_setting_is_refused_by_name(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is not created; the error has the argument and the way out, and never the API key."""
    for provider in PROVIDERS.values():
        monkeypatch.delenv(provider.api_key_env, raising=False)
    arguments, setting, says = SETTINGS[kind]
    arguments = {"provider": "gptge", "api_key": KEY, "base_url": "https://x.example"} | arguments
    with pytest.raises(ConfigurationError) as caught:
        PikaClient(**arguments)
    assert caught.value.setting == setting
    assert says in str(caught.value)
    assert str(caught.value).isprintable()
    for secret in ("0123", "word"):
        assert secret not in str(caught.value)


#: URLs that a parser accepts and a gateway does not, and objects of the wrong type.
LATE: dict[str, dict[str, Any]] = {
    "address with a bare question mark": {"base_url": "https://x.example/?"},
    "address with a bare hash": {"base_url": "https://x.example/#"},
    "address with a line break": {"base_url": "https://x.example\n"},
    "address with a tab": {"base_url": "https://x.example/\ty"},
    "address after a blank": {"base_url": " https://x.example"},
    "address with a blank": {"base_url": "https://x .example"},
    "address with a NUL": {"base_url": "https://x.example\0"},
    "polling that is no policy": {"polling": 5},
    "limits that are none": {"limits": 5},
}


@pytest.mark.parametrize("kind", LATE)
def test_a_setting_that_would_fail_later_is_refused_at_once(kind: str) -> None:
    """A setting that would fail the first request, or send it elsewhere, is refused when the client is created."""
    with pytest.raises(ConfigurationError):
        PikaClient(**({"provider": "gptge", "api_key": KEY, "base_url": "https://x.example"} | LATE[kind]))


def test_a_key_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """The error has the path of a binary key file, and not its bytes."""
    path = tmp_path / "key"
    path.write_bytes(b"\xff\xfe\x00k")
    with pytest.raises(ConfigurationError, match="cannot be read: it is not text"):
        PikaClient("gptge", api_key_file=path)


def test_a_key_file_may_end_with_a_line_break(tmp_path: Path) -> None:
    """The line break at the end of a key file is not part of the key."""
    path = tmp_path / "key"
    path.write_text("k-0123456789\n")
    assert "k-0123456789" not in repr(PikaClient("gptge", api_key_file=path))


LIMITS: dict[str, dict[str, Any]] = {
    "no jobs": {"max_in_flight": 0},
    "half a job": {"max_in_flight": 0.5},
    "two and a half jobs": {"max_in_flight": 2.5},
    "negative": {"max_in_flight": -1},
    "bool": {"max_in_flight": True},
    "text": {"max_in_flight": "5"},
    "no submits": {"submits_per_second": 0},
    "NaN submits": {"submits_per_second": math.nan},
    "infinite polls": {"polls_per_second": math.inf},
    "negative polls": {"polls_per_second": -0.1},
    "no workers": {"submitting": 0},
    "half a worker": {"polling": 1.5},
    "none of them": {"downloading": 0},
    "no patience": {"patience": 0},
    "endless patience": {"patience": math.inf},
    "no charges": {"max_charges": 0},
    "half a charge": {"max_charges": 0.5},
}


@pytest.mark.parametrize("kind", LIMITS)
def test_an_invalid_limit_is_refused_by_name(kind: str) -> None:
    """The error has the name and the value of a limit that allows nothing or is not a number."""
    ((name, value),) = LIMITS[kind].items()
    with pytest.raises(ConfigurationError) as caught:
        Limits(**LIMITS[kind])
    assert caught.value.setting == f"limits.{name}"
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf, "5", True])
def test_invalid_polling_seconds_are_refused(seconds: Any) -> None:
    """Neither policy accepts seconds that are not finite and above 0."""
    with pytest.raises(ConfigurationError, match="seconds"):
        FixedInterval(seconds)
    with pytest.raises(ConfigurationError, match="expected_seconds"):
        AdaptivePolling(expected_seconds=seconds)


def test_a_closed_session_is_refused_when_the_client_opens() -> None:
    """Opening a client with a closed `session` raises with the name of the argument."""

    async def story() -> None:
        session = aiohttp.ClientSession()
        await session.close()
        with pytest.raises(
            ConfigurationError, match="session: must be open, and is closed; give an open ClientSession"
        ):
            async with PikaClient("gptge", api_key=KEY, session=session):
                raise AssertionError("it opened")

    asyncio.run(story())


def test_a_camera_with_a_wrong_direction_is_refused() -> None:
    """Every axis refuses the directions of the other axes."""
    for axis, wrong in (("pan", "up"), ("tilt", "left"), ("rotate", "in"), ("zoom", "cw")):
        with pytest.raises(InvalidRequest, match=rf"camera\.{axis}: '{wrong}' must be one of"):
            Camera(**{axis: wrong})  # type: ignore[arg-type]


def test_find_provider_returns_the_provider_of_each_name() -> None:
    """Each of the four names has the provider of that name."""
    found = [find_provider(name) for name in PROVIDERS]
    assert [provider.name for provider in found] == list(PROVIDERS)
    assert all(isinstance(provider, Provider) for provider in found)


# --- the wrong moment ---------------------------------------------------------------------------------------------------


def _job(pika: PikaClient, key: str = "k", **facts: Any) -> Job:
    return Job(key=key, request=GenerationRequest("a"), provider=pika.provider.name, base_url=pika.base_url, **facts)


@pytest.mark.parametrize("call", ["generate", "submit", "wait", "poll", "download", "run", "as_settled", "resume"])
def test_every_call_outside_async_with_raises(call: str) -> None:
    """Before the client is opened and after it is closed, each call raises ClientNotOpen and sends nothing."""

    async def story() -> None:
        gateway = memory_gateway.gateway()
        pika = memory_gateway.client(gateway)
        job = _job(pika, task_id="t")
        arguments: dict[str, tuple[Any, ...]] = {
            "wait": (job,), "poll": (job,), "download": (job, "x.mp4"), "run": (["a"],), "as_settled": (["a"],),
            "resume": (),
        }  # fmt: skip

        async def attempt() -> None:
            made = getattr(pika, call)(*arguments.get(call, ("a cat",)))
            if call == "as_settled":
                async for _ in made:
                    raise AssertionError("it gave a job")
            else:
                await made

        with pytest.raises(ClientNotOpen, match="use it inside `async with`"):
            await attempt()
        async with pika:
            pass
        with pytest.raises(ClientNotOpen, match="use it inside `async with`"):
            await attempt()
        assert len(gateway.requests) == 0

    virtual_clock.run(story())


def test_opening_an_open_client_raises() -> None:
    """Entering an open client raises and leaves it open."""

    async def story() -> None:
        async with memory_gateway.client(memory_gateway.gateway()) as pika:
            with pytest.raises(RuntimeError, match="open already"):
                await pika.__aenter__()
            assert (await pika.generate("a cat")).url

    virtual_clock.run(story())


def test_waiting_for_an_unknown_job_raises() -> None:
    """A job that is not in the journal of this client raises KeyError with its key, and is not polled."""

    async def story() -> None:
        gateway = memory_gateway.gateway()
        async with memory_gateway.client(gateway) as pika:
            with pytest.raises(KeyError, match="has no job 'foreign'"):
                await pika.wait(_job(pika, "foreign", task_id="t", status=JobStatus.QUEUED))
        assert len(gateway.requests) == 0

    virtual_clock.run(story())


def test_a_job_without_task_id_or_video_cannot_be_polled_or_downloaded(tmp_path: Path) -> None:
    """`poll` of a job without a task id and `download` of one without a video raise; nothing is sent."""

    async def story() -> None:
        gateway = memory_gateway.gateway()
        async with memory_gateway.client(gateway) as pika:
            with pytest.raises(InvalidRequest, match="must have a task id; only accepted jobs can be polled"):
                await pika.poll(_job(pika))
            with pytest.raises(InvalidRequest, match="is planned and has no video"):
                await pika.download(_job(pika), tmp_path / "x.mp4")
        assert len(gateway.requests) == 0

    virtual_clock.run(story())


RESOLUTIONS: dict[str, tuple[str, dict[str, Any], str]] = {
    "unknown key": ("nobody", {"abandon": True}, "'nobody' is not the key of a job in this journal"),
    "not in doubt": ("done", {"abandon": True}, "must be in doubt to be resolved, but is succeeded"),
    "nothing said": ("doubt", {}, "must be resolved by exactly one of task_id=..., charged=False, abandon=True"),
    "two things said": ("doubt", {"task_id": "t", "abandon": True}, "must be resolved by exactly one"),
    "charged, but no id": ("doubt", {"charged": True}, "must be resolved by exactly one"),
    "three things said": (
        "doubt",
        {"task_id": "t", "charged": False, "abandon": True},
        "must be resolved by exactly one",
    ),
}


@pytest.mark.parametrize("kind", RESOLUTIONS)
def test_an_invalid_resolution_changes_nothing(kind: str) -> None:
    """`resolve` raises, and the job stays as it was."""
    key, said, says = RESOLUTIONS[kind]

    async def story() -> None:
        gateway = memory_gateway.gateway([{"on": "create", "prompt": "doubt", "do": "drop"}])
        async with memory_gateway.client(gateway) as pika:
            await pika.run([GenerationRequest("doubt", key="doubt"), GenerationRequest("done", key="done")])
            before = await pika.jobs()
            with pytest.raises(InvalidRequest) as caught:
                await pika.resolve(key, **said)
            assert says in str(caught.value)
            assert await pika.jobs() == before

    virtual_clock.run(story())


@pytest.mark.parametrize("task_id", ["", " ", 42])
def test_a_resolution_needs_a_task_id(task_id: Any) -> None:
    """A task id that is empty or not text resolves nothing."""

    async def story() -> None:
        gateway = memory_gateway.gateway([{"on": "create", "do": "drop"}])
        async with memory_gateway.client(gateway) as pika:
            await pika.run([GenerationRequest("doubt", key="doubt")])
            with pytest.raises(InvalidRequest, match="task_id"):
                await pika.resolve("doubt", task_id=task_id)

    virtual_clock.run(story())


@pytest.mark.parametrize("status", ["done", "", 1])
def test_an_unknown_status_is_refused(status: Any) -> None:
    """`jobs` raises for a status that does not exist instead of returning an empty list."""

    async def story() -> None:
        async with memory_gateway.client(memory_gateway.gateway()) as pika:
            await pika.submit("a cat")
            with pytest.raises(ValueError, match="is not a valid JobStatus"):
                await pika.jobs(status)

    virtual_clock.run(story())
