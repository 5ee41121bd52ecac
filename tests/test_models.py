"""Requests, their fields and their fingerprints."""

from __future__ import annotations

import math
import pickle
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pika_async import EFFECTS, Camera, GenerationRequest, InvalidRequest
from pika_async.errors import shorten
from pika_async.models.fields import has_host, is_url, parse_ratio
from pika_async.models.request import traits_of


@pytest.mark.parametrize(
    ("spellings", "ratio"),
    [
        (
            ["16:9", "16/9", "16x9", " 16 : 9 ", "1920:1080", 16 / 9, 1.7777777777777777, "1.7778", 1.778],
            Fraction(16, 9),
        ),
        (["9:16", "1080:1920", 0.5625, "0.5625"], Fraction(9, 16)),
        (["1:1", "100:100", 1, 1.0, "1", "1.0"], Fraction(1)),
        (["4:3", 4 / 3, "1.3333"], Fraction(4, 3)),
        (["2:5", 0.4, "0.4"], Fraction(2, 5)),
        (["5:2", 2.5, "2.5"], Fraction(5, 2)),
        (["21:9", "7:3", 7 / 3, "2.3333"], Fraction(7, 3)),
    ],
)
def test_spellings_of_one_ratio_are_equal(spellings: list[Any], ratio: Fraction) -> None:
    """A ratio as text, with any separator, and the same ratio as a number are the same exact fraction."""
    assert [GenerationRequest("a", aspect_ratio=spelling).ratio for spelling in spellings] == [ratio] * len(spellings)


@given(st.floats(0.4, 2.5))
@example(0.699300600433894)  # just beyond 0.1 % of 7:10
def test_a_ratio_is_exact_to_a_thousandth_and_has_four_digits(value: float) -> None:
    """For every number from 0.4 to 2.5 the fraction is within 0.1 % of it, in range, and of at most four digits."""
    ratio = parse_ratio(value)
    assert float(ratio) == pytest.approx(value, rel=1e-3)
    assert 0.4 <= float(ratio) <= 2.5
    assert max(ratio.numerator, ratio.denominator) <= 9999


@given(st.integers(1, 99_999), st.integers(1, 99_999))
def test_a_ratio_of_integers_is_accepted_exactly_within_range(width: int, height: int) -> None:
    """Text of two integers is accepted exactly when width by height is from 0.4 to 2.5, with at most four digits."""
    if 0.4 <= width / height <= 2.5:
        ratio = parse_ratio(f"{width}:{height}")
        assert max(ratio.numerator, ratio.denominator) <= 9999
        assert float(ratio) == pytest.approx(width / height, rel=1e-3)
    else:
        with pytest.raises(InvalidRequest, match=r"must be from 0\.4 to 2\.5"):
            parse_ratio(f"{width}:{height}")


def test_a_request_without_a_ratio_has_none() -> None:
    """A ratio that is not given is None, not a default."""
    assert GenerationRequest("a").ratio is None


@pytest.mark.parametrize("effect", EFFECTS)
def test_effects_are_accepted_in_any_case(effect: str) -> None:
    """An effect in upper case, lower case or with blanks around it becomes the documented spelling."""
    spellings = [effect, effect.upper(), effect.lower(), f"  {effect.swapcase()}\n"]
    assert {GenerationRequest("a", effect=spelling).effect for spelling in spellings} == {effect}


def test_an_undocumented_effect_needs_strict_false() -> None:
    """An effect that no page lists is refused with the list, and accepted unchanged with `strict=False`."""
    with pytest.raises(InvalidRequest, match="must be one of Inflate, Melt"):
        GenerationRequest("a", effect="Vaporize")
    assert GenerationRequest("a", effect="Vaporize", strict=False).effect == "Vaporize"


@pytest.mark.parametrize(
    ("effect", "closest"), [("Inflat", "Inflate"), ("cakeify", "Cake-ify"), ("eye pop", "Eye-pop"), ("TADA", "Ta-da")]
)
def test_a_mistyped_effect_names_the_closest_one(effect: str, closest: str) -> None:
    """An effect that resembles a documented one is refused with that one as a suggestion."""
    with pytest.raises(InvalidRequest, match=rf"did you mean {closest}\?; strict=False"):
        GenerationRequest("a", effect=effect)


def test_a_mapping_becomes_a_camera() -> None:
    """A mapping of axes equals a `Camera`, and only the axes that are set are moves."""
    request = GenerationRequest("a", camera={"pan": "left", "zoom": "in"})
    assert request.camera == Camera(pan="left", zoom="in")
    assert request.camera is not None
    assert request.camera.moves == {"pan": "left", "zoom": "in"}


@pytest.mark.parametrize(("given_", "model"), [(1.5, "1.5"), (2, "2.0"), ("1.5", "1.5"), ("2.0", "2.0"), (None, None)])
def test_a_model_given_as_a_number_becomes_text(given_: Any, model: str | None) -> None:
    """A model given as a number is stored as text with one decimal."""
    assert GenerationRequest("a", model=given_).model == model


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, "text"),
        ({"effect": "Melt"}, "text"),
        ({"image": b"x"}, "image"),
        ({"image": Path("a.png")}, "image"),
        ({"video": "https://x/y.mp4"}, "video"),
        ({"ingredients": ["https://x/1.png"]}, "ingredients"),
        ({"image": b"x", "last_image": b"y"}, "image"),
    ],
)
def test_kind_follows_from_the_input(fields: dict[str, Any], kind: str) -> None:
    """The kind depends on the input that was given, and on nothing else."""
    assert GenerationRequest("a", **fields).kind == kind


FULL: dict[str, Any] = {
    "image": "https://x.example/a.png", "effect": "Melt", "aspect_ratio": "16:9", "frame_rate": 24,
    "camera": Camera(pan="left"), "guidance_scale": 12, "motion": 1, "negative_prompt": "blur", "seed": 7, "sfx": True,
    "extend": True, "model": "1.5",
}  # fmt: skip
OTHER: dict[str, Any] = {
    "image": "https://x.example/b.png", "effect": "Crush", "aspect_ratio": "9:16", "frame_rate": 8,
    "camera": Camera(pan="right"), "guidance_scale": 5, "motion": 0, "negative_prompt": "", "seed": 8, "sfx": False,
    "extend": False, "model": "2.0",
}  # fmt: skip


def test_equal_content_has_equal_fingerprints() -> None:
    """Two requests with equal fields have one fingerprint of 64 hex digits, and so has a pickled copy."""
    one, two = GenerationRequest("a cat", **FULL), GenerationRequest("a cat", **dict(reversed(FULL.items())))
    assert one.fingerprint() == two.fingerprint() == pickle.loads(pickle.dumps(one)).fingerprint()
    assert len(bytes.fromhex(one.fingerprint())) == 32


def test_the_fingerprint_does_not_change_between_releases() -> None:
    """Journals hold fingerprints, so the fingerprint of a request never changes."""
    recorded = "40e84a66762834fd073c0fdb6c64b00d094b2f9f2c98bd05bb7cbbc1620010fb"
    assert GenerationRequest("a cat", **FULL).fingerprint() == recorded


def test_key_and_metadata_do_not_change_the_fingerprint() -> None:
    """A request with a key and metadata has the fingerprint of the same request without them."""
    plain = GenerationRequest("a cat", seed=1)
    named = GenerationRequest("a cat", seed=1, key="order-1", metadata={"customer": [1, 2]})
    assert named.fingerprint() == plain.fingerprint()
    assert named != plain


YOUNGER: dict[str, Any] = {"duration": 5, "resolution": "1080p", "last_image": "https://x.example/z.png"}
OTHER_YOUNGER: dict[str, Any] = {"duration": 7.5, "resolution": "4k", "last_image": b"z"}
#: Requests that earlier releases could make, and their fingerprints as those releases made them.
RECORDED: dict[str, tuple[dict[str, Any], str]] = {
    "a prompt": ({}, "5ee05091660ab1cdf3b57800e63d8ca94cb7b1b9ae635093b2ee54cbe68bc059"),
    "an image as bytes": (
        {"image": b"one", "aspect_ratio": 1.5},
        "b3bc020e9a9fc5f61b9dbe7d2e66086c09d6f8cf3457db8a384fa35956962ab6",
    ),
    "ingredients": (
        {"ingredients": ["https://x/1", b"2"], "ingredients_mode": "creative", "model": 2},
        "ba5846145ea6cefd743bc55c0b6577864d62c54ee791ce09f6b427ea8f67c018",
    ),
    "a video": (
        {"video": Path("a.mp4"), "effect": "melt", "key": "k", "metadata": {"a": 1}},
        "36ad0c96286faaa34bda6460aaf327f31b9198ab9e3bad7d338d8c8272f22c8e",
    ),
}


@pytest.mark.parametrize("name", RECORDED)
def test_fields_that_are_not_given_change_no_earlier_fingerprint(name: str) -> None:
    """Keys in journals depend on it: a job of an earlier release is found again, and not paid for again."""
    fields, recorded = RECORDED[name]
    assert GenerationRequest("a cat", **fields).fingerprint() == recorded
    unset: dict[str, Any] = dict.fromkeys(YOUNGER)
    assert GenerationRequest("a cat", **fields, **unset).fingerprint() == recorded


@pytest.mark.parametrize("field", YOUNGER)
def test_a_duration_a_resolution_and_a_last_image_change_the_fingerprint(field: str) -> None:
    """Each counts where it is given, and so does its value."""
    plain = GenerationRequest("a cat", image=b"a")
    one, other = (attrs.evolve(plain, **{field: values[field]}) for values in (YOUNGER, OTHER_YOUNGER))
    assert len({plain.fingerprint(), one.fingerprint(), other.fingerprint()}) == 3


@pytest.mark.parametrize(("given_", "duration"), [(5, 5), (5.0, 5), (7.5, 7.5), (0.1, 0.1), (86_400, 86_400)])
def test_a_duration_is_an_integer_where_it_is_whole(given_: float, duration: float) -> None:
    """5.0 seconds are 5 seconds: the same request, and the same JSON."""
    request = GenerationRequest("a", duration=given_)
    assert (request.duration, type(request.duration)) == (duration, type(duration))
    assert request.fingerprint() == GenerationRequest("a", duration=duration).fingerprint()


@pytest.mark.parametrize(
    ("given_", "resolution"),
    [("1080P", "1080p"), (" 4K ", "4k"), ("2k", "2k"), ("480p", "480p"), ("768p", "768p"), ("720P", "720p")],
)
def test_a_resolution_is_spelled_as_documented(given_: str, resolution: str) -> None:
    """Any letter case is taken; other text is sent as it is where the request is not strict."""
    assert GenerationRequest("a", resolution=given_).resolution == resolution
    assert GenerationRequest("a", resolution=given_, strict=False).resolution == resolution
    assert GenerationRequest("a", resolution="8K", strict=False).resolution == "8K"


@pytest.mark.parametrize(
    ("fields", "traits"),
    [
        ({}, "-/text/plain"),
        ({"model": 2, "image": b"a", "effect": "Melt"}, "2.0/image/effect"),
        ({"duration": 5.0}, "-/text/plain/5s"),
        ({"duration": 7.5, "resolution": "1080P"}, "-/text/plain/7.5s/1080p"),
        ({"resolution": "720p", "model": "1.5"}, "1.5/text/plain/720p"),
        ({"image": b"a", "last_image": b"b"}, "-/image/plain"),
    ],
)
def test_traits_hold_the_length_and_the_resolution_where_given(fields: dict[str, Any], traits: str) -> None:
    """They change how long a task takes; a request without them has the traits that it always had."""
    assert traits_of(GenerationRequest("a", **fields)) == traits


@pytest.mark.parametrize("field", FULL)
def test_every_other_field_changes_the_fingerprint(field: str) -> None:
    """Changing any field that is sent changes the fingerprint, and so does leaving it out."""
    full = GenerationRequest("a cat", **FULL)
    changed = GenerationRequest("a cat", **(FULL | {field: OTHER[field]}))
    without = GenerationRequest("a cat", **{name: value for name, value in FULL.items() if name != field})
    prints = {full.fingerprint(), changed.fingerprint(), without.fingerprint()}
    assert len(prints) == (2 if field == "extend" else 3)  # its default is one of the two values that it has


def test_inputs_and_their_order_change_the_fingerprint() -> None:
    """Prompts, videos, bytes and ingredients distinguish requests, and so does the order of ingredients."""
    requests = [
        GenerationRequest("a cat"),
        GenerationRequest("a dog"),
        GenerationRequest("a cat", video="https://x/1.mp4"),
        GenerationRequest("a cat", image=b"one"),
        GenerationRequest("a cat", image=b"two"),
        GenerationRequest("a cat", ingredients=["https://x/1", "https://x/2"]),
        GenerationRequest("a cat", ingredients=["https://x/2", "https://x/1"]),
        GenerationRequest("a cat", ingredients=["https://x/1", "https://x/2"], ingredients_mode="creative"),
    ]
    assert len({request.fingerprint() for request in requests}) == len(requests)


def test_a_request_is_frozen() -> None:
    """No field of a request can be set after its construction."""
    request = GenerationRequest("a cat")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        request.prompt = "a dog"  # type: ignore[misc]
    assert request.prompt == "a cat"


def test_a_request_copies_its_list_of_ingredients() -> None:
    """Changing the list of ingredients afterwards does not change the request."""
    images = ["https://x/1"]
    request = GenerationRequest("a", ingredients=images)
    images.append("https://x/2")
    assert request.ingredients == ("https://x/1",)


@pytest.mark.parametrize(
    "request_",
    [GenerationRequest("a cat", **FULL), GenerationRequest("ü", image=b"\0\1"), GenerationRequest("a", key="k")],
)
def test_a_request_survives_pickling(request_: GenerationRequest) -> None:
    """A request is equal to its pickled copy."""
    assert pickle.loads(pickle.dumps(request_)) == request_


def test_the_repr_of_bytes_is_short() -> None:
    """The `repr` shows the length of an image of ten megabytes, not its bytes."""
    text = repr(GenerationRequest("a", image=b"\xff" * 10_000_000))
    assert "image=<10000000 bytes>" in text
    assert len(text) < 600


def test_errors_about_bytes_are_short() -> None:
    """An error about a large input is one short line."""
    with pytest.raises(InvalidRequest) as caught:
        GenerationRequest("a", image=b"\xff" * 10_000_000, video=b"\xff" * 10_000_000)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [1, 30, 50, 53, 54, 55, 56, 60, 200, 4000])
@pytest.mark.parametrize("letter", ["f", "ü", "\\", "\n", "'"])
def test_a_long_value_keeps_its_beginning_and_its_end(letter: str, length: int) -> None:
    """A message repeats a value whole or without its middle: the end of a path and the size behind it stay."""
    value = f"/home/{letter * length}/{letter * length}/cat.png (900,000 bytes)"
    text = shorten(value)
    assert text[1:7] == "/home/"
    assert text[1:-1].endswith("/cat.png (900,000 bytes)")
    assert text == repr(value) or ("…" in text and len(text) == 123 < len(repr(value)))
    data = f"{'a' * length}{'b' * length}".encode()
    assert (shorten(data) == repr(data)) == (len(repr(data)) <= 123)
    assert (shorten(data)[:3], shorten(data)[-2:]) == ("b'a", "b'")


def test_errors_survive_pickling() -> None:
    """A pickled `InvalidRequest` has the same facts and the same message."""
    with pytest.raises(InvalidRequest) as caught:
        GenerationRequest("a", seed=-1)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.field, copy.value, str(copy)) == ("seed", -1, str(caught.value))


@pytest.mark.parametrize(
    "media", ["http://x", "HTTPS://X/y", "cat.png", "/tmp/cat.png", "a b.png", Path("x"), PurePosixPath("y"), b"1"]
)
def test_media_can_be_a_url_a_path_or_bytes(media: Any) -> None:
    """Media of all three kinds are stored unchanged."""
    assert GenerationRequest("a", image=media).image == media


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("https://x", True), ("https://x:8443/y", True), ("https://[::1]/", True), ("https://u:p@x/", True),
        ("https://", False), ("https:///path", False), ("https://[::1", False), ("https://@/x", False),
        ("https://u@:80/", False), ("https://x:99999/", False), ("https://x:port/", False), ("https://x:0/", False),
    ],
)  # fmt: skip
def test_has_host_requires_a_host_and_a_valid_port(text: str, complete: bool) -> None:
    """A URL without a host, or with an impossible port, has no host."""
    assert is_url(text)
    assert has_host(text) == complete


@pytest.mark.parametrize("key", ["a", "order-17", "a.b_c@d=e+f", "_x", "0", "ключ", "日本語", "é" * 100, "x" * 200])
def test_keys_can_be_words_of_any_script(key: str) -> None:
    """A key of letters, digits and the listed signs, up to 200 bytes, is accepted unchanged."""
    assert GenerationRequest("a", key=key).key == key


@pytest.mark.parametrize("key", ["con", "NUL", "Aux.2", "prn.a.b", "com1", "LPT9.x", "com\u00b9"])
def test_keys_are_not_names_of_devices(key: str) -> None:
    """Windows makes no file of that name, with any ending and in any case; a longer name is a key."""
    with pytest.raises(InvalidRequest, match="names a device on Windows, where no file can have that name"):
        GenerationRequest("a", key=key)
    assert GenerationRequest("a", key=f"{key.split('.', maxsplit=1)[0]}s").key == f"{key.split('.', maxsplit=1)[0]}s"


@pytest.mark.parametrize(
    ("field", "low", "high"),
    [("frame_rate", 8, 24), ("guidance_scale", 5, 25), ("motion", 0, 4), ("seed", 0, 2**63 - 1)],
)
def test_ranges_include_their_ends(field: str, low: int, high: int) -> None:
    """Both ends of each range are accepted, and the values beyond them are refused."""
    for value in (low, high):
        assert getattr(GenerationRequest("a", **{field: value}), field) == value  # type: ignore[arg-type]
    for value in (low - 1, high + 1):
        with pytest.raises(InvalidRequest, match=rf"{field}: {value} must be an integer from {low} to {high}"):
            GenerationRequest("a", **{field: value})  # type: ignore[arg-type]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4)
    | st.sampled_from(["16:9", "Inflate", "https://x/y", "left", "precise", "1.5", math.nan, Path("x"), Camera(pan="left"), object()]),
    lambda inner: st.lists(inner, max_size=2) | st.tuples(inner) | st.dictionaries(st.text(max_size=3) | st.sampled_from(["pan"]), inner, max_size=2),
    max_leaves=3,
)  # fmt: skip
FIELDS = [field.name for field in attrs.fields(GenerationRequest)]


@given(st.dictionaries(st.sampled_from(FIELDS), anything, max_size=4))
def test_any_values_give_a_request_or_invalid_request(fields: dict[str, Any]) -> None:
    """Any values in any fields give a request with a `repr` and a fingerprint, or an `InvalidRequest` that names a field."""
    fields.setdefault("prompt", "a cat")
    refusal = None
    try:
        request = GenerationRequest(**fields)
    except InvalidRequest as error:
        refusal = error
    if refusal is not None:
        assert refusal.field.partition("[")[0].partition(".")[0] in FIELDS
        assert str(refusal).isprintable()
        return
    assert len(request.fingerprint()) == 64
    assert isinstance(repr(request), str)
    assert isinstance(request.ratio, Fraction | None)
