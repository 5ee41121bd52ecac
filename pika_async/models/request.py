"""Generation request: what a video should show, checked when it is made.

What one provider cannot do is checked by that provider.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Final, Literal, TypedDict

import attrs

from pika_async.models.fields import (
    AXES,
    EFFECTS,
    FRAME_RATE_RANGE,
    GUIDANCE_SCALE_RANGE,
    INGREDIENTS_MODES,
    MOTION_RANGE,
    RESOLUTIONS,
    SEED_RANGE,
    CameraMoves,
    Effect,
    IngredientsMode,
    Media,
    Resolution,
    check_choice,
    check_duration,
    check_flag,
    check_integer,
    check_key,
    check_media,
    check_metadata,
    check_text,
    invalid,
    parse_ratio,
)
from pika_async.models.media import MediaInput, to_media
from pika_async.models.spelling import did_you_mean

__all__ = ["Camera", "GenerationRequest", "RequestFields", "evolve_unchecked", "traits_of"]


#: Fields that earlier journals do not have, so that None must not change a fingerprint.
_YOUNGER_FIELDS: Final = frozenset({"duration", "resolution", "last_image"})


@attrs.frozen(kw_only=True)
class Camera:
    """Camera moves, one an axis. An axis that is None is not sent.

    :param pan: `"left"` or `"right"`.
    :param tilt: `"up"` or `"down"`.
    :param rotate: `"cw"` (clockwise) or `"ccw"`.
    :param zoom: `"in"` or `"out"`.
    :raises InvalidRequest: for a direction that the axis does not have.
    """

    pan: Literal["left", "right"] | None = None
    tilt: Literal["up", "down"] | None = None
    rotate: Literal["cw", "ccw"] | None = None
    zoom: Literal["in", "out"] | None = None

    def __attrs_post_init__(self) -> None:
        for axis, direction in self.moves.items():
            check_choice(f"camera.{axis}", direction, AXES[axis])

    @property
    def moves(self) -> dict[str, str]:
        """The axes that are set, as the wires spell them."""
        return {axis: direction for axis, direction in attrs.asdict(self).items() if direction is not None}


class RequestFields(TypedDict, total=False):
    """The fields of a `GenerationRequest` beside its prompt, as keyword arguments; that class documents each."""

    image: MediaInput | None
    video: MediaInput | None
    ingredients: Sequence[MediaInput]
    ingredients_mode: IngredientsMode | None
    effect: Effect | str | None
    aspect_ratio: str | float | None
    frame_rate: int | None
    camera: Camera | CameraMoves | None
    guidance_scale: int | None
    motion: int | None
    negative_prompt: str | None
    seed: int | None
    sfx: bool | None
    extend: bool
    model: str | float | None
    duration: float | None
    resolution: Resolution | str | None
    last_image: MediaInput | None
    key: str | None
    metadata: Mapping[str, Any] | None
    strict: bool


# Type checkers take the types of the constructor's parameters from the signatures of these converters. Values of
# other types are passed on, for `GenerationRequest` to refuse by name.


def _to_camera(value: Camera | CameraMoves | None) -> Camera | None:
    given: Any = value
    if given is None or isinstance(given, Camera):
        return given
    if not isinstance(given, Mapping):
        reason = "must be a camera; give Camera(pan=..., tilt=..., rotate=..., zoom=...)"
        raise invalid("camera", given, reason)
    unknown = [name for name in given if name not in AXES]
    if unknown:
        reason = f"must be a camera axis{did_you_mean(unknown[0], AXES)}; the axes are {', '.join(AXES)}"
        raise invalid("camera", unknown[0], reason)
    return Camera(**given)


def _to_effect(value: Effect | str | None) -> str | None:
    return _spelled(value, EFFECTS)


def _to_resolution(value: Resolution | str | None) -> str | None:
    return _spelled(value, RESOLUTIONS)


def _spelled(value: str | None, names: Sequence[str]) -> str | None:
    """Return the documented spelling of a name in any case; another value as it is."""
    given: Any = value
    if isinstance(given, str):
        return next((name for name in names if name.lower() == given.strip().lower()), given)
    return value


def _to_duration(value: float | None) -> float | None:
    """Return a whole number of seconds as an integer: 5.0 is 5, and the same request."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _to_model(value: str | float | None) -> str | None:
    """Return a model that was given as a number as text: 2 is "2.0"."""
    given: Any = value
    if isinstance(given, float | int) and not isinstance(given, bool) and abs(given) < 1000:
        return str(float(given))
    return value  # type: ignore[return-value]


def _to_image(value: MediaInput | None) -> Media | None:
    image: Media | None = to_media("image", value)
    return image


def _to_last_image(value: MediaInput | None) -> Media | None:
    image: Media | None = to_media("last_image", value)
    return image


def _to_video(value: MediaInput | None) -> Media | None:
    video: Media | None = to_media("video", value)
    return video


def _to_ingredients(value: Sequence[MediaInput]) -> tuple[Media, ...]:
    given: Any = value
    if isinstance(given, (list, tuple, Sequence)) and not isinstance(given, str | bytes):  # an abstract class is slow
        return tuple(to_media(f"ingredients[{number}]", each) for number, each in enumerate(given))
    return value  # type: ignore[return-value]


def _media_repr(media: object) -> str:
    return f"<{len(media)} bytes>" if isinstance(media, bytes) else repr(media)


def _ingredients_repr(ingredients: object) -> str:
    return f"({', '.join(map(_media_repr, ingredients))})" if isinstance(ingredients, tuple) else repr(ingredients)


@attrs.frozen(weakref_slot=False)
class GenerationRequest:
    """One video to generate. `Provider.check` checks what a single gateway cannot do of it.

    Everything but the prompt is optional; what is None is not sent, or is sent as the gateway's documented default.

    :param prompt: what the video shows.
    :param image: the picture to start from, a PNG, JPEG, WebP or GIF: a URL, a path, bytes, a base64 data URI, an open
        binary file (read here, from its position on) or an image of Pillow (encoded here as PNG). At most 735,000 bytes
        go inside a request, where the provider takes them; larger ones, and all at CometAPI, need an uploader.
    :param video: the video to start from: a URL, or in the same forms with an uploader. CometAPI (with an effect) and
        gpt.ge only.
    :param ingredients: pictures to combine: URLs, or in the same forms with an uploader. Native Pika only, with
        model 2.0.
    :param ingredients_mode: `"precise"` (the default, with ingredients) or `"creative"`.
    :param effect: a documented effect in any case, see `EFFECTS`; any text with `strict=False`.
    :param aspect_ratio: `"16:9"`, or width by height as a number, 0.4 to 2.5 (default 16:9; with an image or a video,
        its own ratio).
    :param frame_rate: frames a second, an integer from 8 to 24 (default 24).
    :param camera: a `Camera`, or a mapping with its axes.
    :param guidance_scale: how closely to follow the prompt, an integer from 5 to 25 (default 12).
    :param motion: how much moves, an integer from 0 to 4 (default 1).
    :param negative_prompt: what the video should not show.
    :param seed: an integer from 0 to 2**63 - 1; the same seed aims at the same video (default: the gateway's choice).
    :param sfx: whether to add sound effects. CometAPI only.
    :param extend: whether to extend `video` (default False). Not at CometAPI.
    :param model: `"1.5"` or `"2.0"`, also as a number (default: the provider's own, see `Provider.default_model`).
    :param duration: the length of the video in seconds, a number above 0, where the provider lets one choose it
        (default: the provider's own).
    :param resolution: `"480p"`, `"720p"`, `"768p"`, `"1080p"`, `"2k"` or `"4k"` in any case, where the provider lets
        one choose it; any text with `strict=False` (default: the provider's own).
    :param last_image: the picture to end on, in the forms of `image`, where the provider takes one.
    :param key: the name of the job and its file, unique in a journal, by which the same request again finds its job
        instead of paying for another: letters, digits and `. _ - @ = +`, at most 200
        bytes, and not a device of Windows such as `con` (default: made from the position, words of the prompt and the
        content).
    :param metadata: your own facts, kept with the job and never sent; what JSON can hold.
    :param strict: whether to refuse effects, models and resolutions that the provider does not document (default True).
    :raises InvalidRequest: names the field, the value and the range.
    """

    prompt: str
    image: Media | None = attrs.field(default=None, kw_only=True, converter=_to_image, repr=_media_repr)
    video: Media | None = attrs.field(default=None, kw_only=True, converter=_to_video, repr=_media_repr)
    ingredients: tuple[Media, ...] = attrs.field(
        default=(), kw_only=True, converter=_to_ingredients, repr=_ingredients_repr
    )
    ingredients_mode: IngredientsMode | None = attrs.field(default=None, kw_only=True)
    effect: str | None = attrs.field(default=None, kw_only=True, converter=_to_effect)
    aspect_ratio: str | float | None = attrs.field(default=None, kw_only=True)
    frame_rate: int | None = attrs.field(default=None, kw_only=True)
    camera: Camera | None = attrs.field(default=None, kw_only=True, converter=_to_camera)
    guidance_scale: int | None = attrs.field(default=None, kw_only=True)
    motion: int | None = attrs.field(default=None, kw_only=True)
    negative_prompt: str | None = attrs.field(default=None, kw_only=True)
    seed: int | None = attrs.field(default=None, kw_only=True)
    sfx: bool | None = attrs.field(default=None, kw_only=True)
    extend: bool = attrs.field(default=False, kw_only=True)
    model: str | None = attrs.field(default=None, kw_only=True, converter=_to_model)
    duration: float | None = attrs.field(default=None, kw_only=True, converter=_to_duration)
    resolution: str | None = attrs.field(default=None, kw_only=True, converter=_to_resolution)
    last_image: Media | None = attrs.field(default=None, kw_only=True, converter=_to_last_image, repr=_media_repr)
    key: str | None = attrs.field(default=None, kw_only=True)
    metadata: Mapping[str, Any] | None = attrs.field(default=None, kw_only=True)
    strict: bool = attrs.field(default=True, kw_only=True)

    def __attrs_post_init__(self) -> None:
        check_text("prompt", self.prompt)
        check_flag("strict", self.strict)
        self._check_inputs()
        self._check_options()
        if self.key is not None:
            check_key(self.key)
        if self.metadata is not None:
            check_metadata(self.metadata)

    def _check_inputs(self) -> None:
        for field in ("image", "video", "last_image"):
            value = getattr(self, field)
            if value is not None:
                check_media(field, value)
        if self.image is not None and self.video is not None:
            raise invalid("video", self.video, "must not be given with an image; a generation starts from one of them")
        if not isinstance(self.ingredients, tuple):
            raise invalid("ingredients", self.ingredients, "must be a list; give a list of images")
        for number, ingredient in enumerate(self.ingredients):
            check_media(f"ingredients[{number}]", ingredient)
        if self.ingredients and (self.image is not None or self.video is not None):
            reason = "must not be given with an image or a video; give one kind of input"
            raise invalid("ingredients", len(self.ingredients), reason)
        if self.last_image is not None and (self.ingredients or self.video is not None):
            reason = "must not be given with a video or ingredients; it ends a generation that starts from an image"
            raise invalid("last_image", self.last_image, reason)
        if self.ingredients_mode is not None:
            check_choice("ingredients_mode", self.ingredients_mode, INGREDIENTS_MODES)
            if not self.ingredients:
                reason = "must come with ingredients; give them or leave it out"
                raise invalid("ingredients_mode", self.ingredients_mode, reason)

    def _check_options(self) -> None:
        if self.effect is not None:
            check_text("effect", self.effect)
            if self.strict:
                check_choice("effect", self.effect, EFFECTS, "; strict=False (--no-strict) sends any text")
        if self.aspect_ratio is not None:
            parse_ratio(self.aspect_ratio)
        for field, limits in (
            ("frame_rate", FRAME_RATE_RANGE),
            ("guidance_scale", GUIDANCE_SCALE_RANGE),
            ("motion", MOTION_RANGE),
            ("seed", SEED_RANGE),
        ):
            value = getattr(self, field)
            if value is not None:
                check_integer(field, value, limits)
        if self.negative_prompt is not None:
            check_text("negative_prompt", self.negative_prompt, may_be_empty=True)
        if self.sfx is not None:
            check_flag("sfx", self.sfx)
        check_flag("extend", self.extend)
        if self.model is not None:
            check_text("model", self.model)
        self._check_size()

    def _check_size(self) -> None:
        if self.duration is not None:
            check_duration("duration", self.duration)
        if self.resolution is not None:
            check_text("resolution", self.resolution)
            if self.strict:
                check_choice("resolution", self.resolution, RESOLUTIONS, "; strict=False (--no-strict) sends any text")

    @property
    def ratio(self) -> Fraction | None:
        """`aspect_ratio` as width by height, see `parse_ratio`; None if it is not given."""
        return None if self.aspect_ratio is None else parse_ratio(self.aspect_ratio)

    @property
    def kind(self) -> Literal["text", "image", "video", "ingredients"]:
        """The input that the generation starts from."""
        if self.image is not None:
            return "image"
        if self.video is not None:
            return "video"
        return "ingredients" if self.ingredients else "text"

    def fingerprint(self) -> str:
        """Return 64 hex digits that are equal for equal content; `key`, `metadata` and `strict` do not count."""
        content = attrs.asdict(self, filter=_counts)
        text = json.dumps(content, sort_keys=True, default=_canonical, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


def traits_of(request: GenerationRequest) -> str:
    """Return what of a request changes how long its task takes: `2.0/image/effect`, `-/text/plain/5s/1080p`.

    That is the model, the kind of input, with or without an effect, and the length and resolution where given.
    """
    traits = [request.model or "-", request.kind, "effect" if request.effect else "plain"]
    traits += [] if request.duration is None else [f"{request.duration:g}s"]
    return "/".join(traits if request.resolution is None else [*traits, request.resolution])


def _counts(field: attrs.Attribute[Any], value: object) -> bool:
    """Return whether a field belongs to the content. Younger fields count where given: journals hold fingerprints."""
    return value is not None if field.name in _YOUNGER_FIELDS else field.name not in {"key", "metadata", "strict"}


def evolve_unchecked(request: GenerationRequest, **changes: Any) -> GenerationRequest:
    """Return a copy of *request* with *changes*, like `attrs.evolve`, but without converting or validating any field.

    For changes that were validated by other means: validation costs more than the copy, and every request has passed
    it already.
    """
    copied = copy.copy(request)
    for name, value in changes.items():
        object.__setattr__(copied, name, value)
    return copied


def _canonical(value: object) -> str:
    return f"sha256:{hashlib.sha256(value).hexdigest()}" if isinstance(value, bytes) else str(value)
