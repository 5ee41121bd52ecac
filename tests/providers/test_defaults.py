"""Defaults on the wire: which field each gateway gets for each kind of request if the user names none, and which never.

The tables are from the gateways' pages, not from the encoders.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from pika_async import GenerationRequest, InvalidRequest
from pika_async.providers import PROVIDERS

CALLBACK = "https://callback.invalid/"
IMAGE = "https://example.com/a.png"
CLIP = "https://example.com/a.mp4"
PICTURES = ["https://example.com/a.png", "https://example.com/b.png"]

#: The request of each kind with nothing but what the kind needs.
NEEDED: dict[str, dict[str, Any]] = {
    "text": {},
    "image": {"image": IMAGE},
    "video": {"video": CLIP},
    "extension": {"video": CLIP, "extend": True},
    "flag": {"extend": True},
    "ingredients": {"ingredients": PICTURES},
}
RATIO = 1.7777777777777777


def videos(*, ratio: bool = True, model: str = "1.5", extend: bool = False, **more: Any) -> dict[str, Any]:
    """Return a body of the videos dialect with every default of its pages."""
    options: dict[str, Any] = {
        "frameRate": 24, "camera": {}, "parameters": {"guidanceScale": 12, "motion": 1, "negativePrompt": ""},
        "extend": extend,
    }  # fmt: skip
    if ratio:
        options["aspectRatio"] = RATIO
    if "ingredient" in more:
        options["ingredients-mode"] = "precise"
    return {"promptText": "a cat", "model": model, "options": options, **more}


def envelope(**more: Any) -> dict[str, Any]:
    """Return a body of the envelope dialect, which has no defaults beside those of one kind."""
    return {"prompt": "a cat", "callback_url": CALLBACK, **more}


#: Provider and kind -> the whole body, for the request with nothing but what the kind needs; None: there is no such kind.
BODIES: dict[str, dict[str, dict[str, Any] | None]] = {
    "cometapi": {
        "text": envelope(ratio="16:9"),
        "image": envelope(image=IMAGE),
        "video": envelope(video=CLIP, style="Melt", sfx=False),  # `style` is required for a video
        "extension": None,
        "flag": None,
        "ingredients": None,
    },
    "yescale": {
        "text": videos(),
        "image": videos(ratio=False, image=IMAGE),
        "video": None,
        "extension": None,
        "flag": videos(extend=True),
        "ingredients": None,
    },
    "gptge": {
        "text": videos(),
        "image": videos(ratio=False, image=IMAGE),
        "video": videos(ratio=False, video=CLIP),
        "extension": videos(ratio=False, video=CLIP, extend=True),
        "flag": videos(extend=True),
        "ingredients": None,
    },
    "native": {
        "text": videos(),
        "image": videos(ratio=False, image=IMAGE),
        "video": None,
        "extension": None,
        "flag": videos(extend=True),
        "ingredients": videos(model="2.0", ingredient=PICTURES),
    },
}
#: Field of a request -> (its place in the videos dialect, its place in the envelope, its default, another value).
#: None for a place: there is none. A value is (as the user gives it, as the wire has it).
OPTIONS = "options"
PARAMETERS = (OPTIONS, "parameters")
FIELDS: dict[str, tuple[tuple[str, ...] | None, tuple[str, ...] | None, Any, Any]] = {
    "frame_rate": ((OPTIONS, "frameRate"), (OPTIONS, "frameRate"), 24, 8),
    "camera": ((OPTIONS, "camera"), (OPTIONS, "camera"), None, {"pan": "left", "zoom": "in"}),
    "guidance_scale": ((*PARAMETERS, "guidanceScale"), (*PARAMETERS, "guidanceScale"), 12, 25),
    "motion": ((*PARAMETERS, "motion"), (*PARAMETERS, "motion"), 1, 0),
    "negative_prompt": ((*PARAMETERS, "negativePrompt"), (*PARAMETERS, "negativePrompt"), "", "ugly"),
    "seed": ((*PARAMETERS, "seed"), (*PARAMETERS, "seed"), None, 0),
    "effect": (("pikaffect",), ("style",), None, "Inflate"),
    "sfx": (None, ("sfx",), False, True),
}
CELLS = [(name, kind) for name, bodies in BODIES.items() for kind, body in bodies.items() if body is not None]
cells = pytest.mark.parametrize("name, kind", CELLS, ids=[f"{name}-{kind}" for name, kind in CELLS])


def sent(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    """Return the body that a request of one kind is sent as, after the provider's own check."""
    needed = NEEDED[kind] | ({"effect": "Melt"} if (name, kind) == ("cometapi", "video") else {})
    request = GenerationRequest("a cat", **(needed | fields))
    PROVIDERS[name].check(request)
    call = PROVIDERS[name].encode_submission(request, "https://gateway.example", CALLBACK)
    assert call.body is not None
    body: dict[str, Any] = json.loads(call.body)
    return body


def same(one: Any, other: Any) -> bool:
    """Whether two bodies are the same JSON: 1, 1.0 and true differ."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def with_value(body: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return `body` with one value at its place."""
    changed = copy.deepcopy(body)
    holder = changed
    for name in place[:-1]:
        holder = holder.setdefault(name, {})
    holder[place[-1]] = value
    return changed


def place_of(name: str, field: str) -> tuple[str, ...] | None:
    return FIELDS[field][1 if name == "cometapi" else 0]


@cells
def test_a_request_that_names_nothing_is_sent_with_the_documented_defaults(name: str, kind: str) -> None:
    """The body of each kind has the fields that its page lists or shows for it, and no other."""
    expected = BODIES[name][kind]
    body = sent(name, kind)
    assert same(body, expected), body


@pytest.mark.parametrize("name", BODIES)
def test_a_kind_that_a_page_does_not_have_is_refused(name: str) -> None:
    """A kind of request without a body in the table is refused before it costs."""
    for kind in (kind for kind, body in BODIES[name].items() if body is None):
        with pytest.raises(InvalidRequest):
            sent(name, kind, effect="Melt")


@cells
@pytest.mark.parametrize("field", FIELDS)
def test_a_field_changes_its_own_place_and_nothing_else(name: str, kind: str, field: str) -> None:
    """A value that is not the default stands in its place; every default beside it stays as it is."""
    base, place, value = BODIES[name][kind], place_of(name, field), FIELDS[field][3]
    assert base is not None
    if place is None:
        with pytest.raises(InvalidRequest, match=f"^{field}: "):
            sent(name, kind, **{field: value})
        return
    body = sent(name, kind, **{field: value})
    assert same(body, with_value(base, place, value)), body


@cells
@pytest.mark.parametrize("field", [field for field, row in FIELDS.items() if row[2] is not None])
def test_a_default_that_is_named_is_sent(name: str, kind: str, field: str) -> None:
    """A default that the user names is sent like any other value, also where the default itself would not be."""
    base, place, value = BODIES[name][kind], place_of(name, field), FIELDS[field][2]
    assert base is not None
    if place is None:
        return  # `False` for a switch that the wire does not have asks for nothing
    body = sent(name, kind, **{field: value})
    assert same(body, with_value(base, place, value)), body


@cells
def test_a_ratio_that_is_named_is_sent_or_refused(name: str, kind: str) -> None:
    """The ratio is text at CometAPI and a number elsewhere; beside an input that has its own, it is sent or refused."""
    base = BODIES[name][kind]
    assert base is not None
    refused = {("cometapi", "image"), ("cometapi", "video"), ("gptge", "image"), ("native", "image")}
    for ratio, number in (("4:5", 0.8), ("16:9", RATIO)):
        if (name, kind) in refused:
            with pytest.raises(InvalidRequest, match=r"^aspect_ratio: .* must be left out"):
                sent(name, kind, aspect_ratio=ratio)
        elif name == "cometapi":
            assert same(sent(name, kind, aspect_ratio=ratio), with_value(base, ("ratio",), ratio))
        else:
            assert same(sent(name, kind, aspect_ratio=ratio), with_value(base, (OPTIONS, "aspectRatio"), number))


@cells
def test_a_model_that_is_named_is_a_number_or_text(name: str, kind: str) -> None:
    """The model is a number at CometAPI, where a video takes none, and text elsewhere; ingredients have their own."""
    base = BODIES[name][kind]
    assert base is not None
    for model in ("1.5", "2.0"):
        if (name, kind) == ("cometapi", "video") or (kind == "ingredients" and model == "1.5"):
            with pytest.raises(InvalidRequest, match=r"^model: "):
                sent(name, kind, model=model)
        else:
            expected = float(model) if name == "cometapi" else model
            assert same(sent(name, kind, model=model), with_value(base, ("model",), expected))


def test_the_mode_of_ingredients_replaces_its_default() -> None:
    """`precise` is sent beside ingredients unless the other mode is named; without ingredients there is no mode."""
    base = BODIES["native"]["ingredients"]
    assert base is not None
    for mode in ("precise", "creative"):
        body = sent("native", "ingredients", ingredients_mode=mode)
        assert same(body, with_value(base, (OPTIONS, "ingredients-mode"), mode))
    with pytest.raises(InvalidRequest, match=r"^ingredients_mode: "):
        sent("native", "text", ingredients_mode="creative")


def test_three_effects_are_the_native_shapes_alone() -> None:
    """Peel, Poke and Tear are taken at the native shape, in any letter case, and refused by name at every other."""
    for effect in ("Peel", "poke", " TEAR "):
        assert sent("native", "image", effect=effect)["pikaffect"] == effect.strip().capitalize()
        for name in ("cometapi", "yescale", "gptge"):
            with pytest.raises(
                InvalidRequest, match=rf"^effect: '{effect.strip().capitalize()}' must be an effect that"
            ):
                sent(name, "image", effect=effect)
