"""What a user asks for and what comes back: requests, snapshots and videos, checked when they are made.

A value here holds no client and does no I/O; what a single provider cannot do is checked by that provider.
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import PurePath
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import attrs

from pika_async.errors import InvalidRequest

__all__ = [
    "EFFECTS",
    "Camera",
    "GenerationRequest",
    "IngredientsMode",
    "Media",
    "Receipt",
    "Snapshot",
    "TaskState",
    "Video",
    "is_url",
]

#: Every effect that a gateway documents (CometAPI's page lists all; gpt.ge and YEScale the first ten).
EFFECTS: Final = (
    "Inflate", "Melt", "Explode", "Squish", "Crush", "Cake-ify", "Ta-da", "Deflate", "Crumble", "Dissolve",
    "Levitate", "Decapitate", "Eye-pop",
)  # fmt: skip
#: Width by height, documented for the videos wire; the envelope wire says nothing narrower.
ASPECT_RANGE: Final = (0.4, 2.5)
KEY_PATTERN: Final = re.compile(r"[\w][\w.@=+-]*(~[0-9]+)?")
#: Bytes of a key in UTF-8: it names a file, and file systems stop at 255 with the suffix.
KEY_BYTES: Final = 200

#: An address, a path of this machine, or the bytes themselves.
Media = str | PurePath | bytes
IngredientsMode = Literal["precise", "creative"]


def is_url(media: object) -> bool:
    """Whether `media` is an http or https address rather than a path or bytes."""
    return isinstance(media, str) and media.lower().startswith(("http://", "https://"))


def has_host(url: str) -> bool:
    """Whether `url` names a host, and a port within range if any, as `urllib` reads it."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _bad(field: str, value: object, reason: str) -> InvalidRequest:
    return InvalidRequest(field=field, value=value, reason=reason)


def _check_text(field: str, value: object, *, empty: bool) -> None:
    if not isinstance(value, str):
        raise _bad(field, value, f"is a {type(value).__name__}; give text")
    if not empty and not value.strip():
        raise _bad(field, value, "is empty; give some text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _bad(field, value, "holds half of a character (a lone surrogate); give valid Unicode text") from None
    if "\0" in value:
        raise _bad(field, value, "holds a NUL character; remove it")


def _check_whole(field: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _bad(field, value, f"is no whole number; give one from {low} to {high}")
    if not low <= value <= high:
        raise _bad(field, value, f"is outside {low} to {high}")


def _check_flag(field: str, value: object) -> None:
    if not isinstance(value, bool):
        raise _bad(field, value, "is no boolean; give true or false")


def _check_choice(field: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise _bad(field, value, f"is not one of {', '.join(choices)}")


def _check_media(field: str, value: object) -> None:
    if isinstance(value, bytes):
        if not value:
            raise _bad(field, value, "is empty; give bytes, a path or an URL, or leave it out")
    elif isinstance(value, str):
        _check_text(field, value, empty=False)
        if is_url(value):
            check_url(field, value)
        elif "://" in value or value.lower().startswith("data:"):
            raise _bad(field, value, "is no http or https address; give one, or a path, or bytes")
    elif not isinstance(value, PurePath):
        raise _bad(field, value, f"is a {type(value).__name__}; give an URL, a path or bytes")


def check_url(field: str, value: object) -> None:
    """:raises InvalidRequest: unless `value` is an http or https address with a host and no white space."""
    _check_text(field, value, empty=False)
    if not is_url(value) or not isinstance(value, str):
        raise _bad(field, value, "is no http or https address")
    if not has_host(value) or re.search(r"\s", value):
        raise _bad(field, value, "is no complete address: it needs a host and no white space")


@attrs.frozen(kw_only=True)
class Camera:
    """How the camera moves. Every axis is optional; what is None is not sent.

    :raises InvalidRequest: for a direction that the axis does not have.
    """

    pan: Literal["left", "right"] | None = None
    tilt: Literal["up", "down"] | None = None
    rotate: Literal["cw", "ccw"] | None = None
    zoom: Literal["in", "out"] | None = None

    def __attrs_post_init__(self) -> None:
        axes = {"pan": ("left", "right"), "tilt": ("up", "down"), "rotate": ("cw", "ccw"), "zoom": ("in", "out")}
        for axis, choices in axes.items():
            value = getattr(self, axis)
            if value is not None:
                _check_choice(f"camera.{axis}", value, choices)

    @property
    def moves(self) -> dict[str, str]:
        """The axes that are set, as the wire spells them."""
        return {name: value for name, value in attrs.asdict(self).items() if value is not None}


def _shown(media: object) -> str:
    return f"<{len(media)} bytes>" if isinstance(media, bytes) else repr(media)


def _camera(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    unknown = [name for name in value if name not in {"pan", "tilt", "rotate", "zoom"}]
    if unknown:
        raise _bad("camera", unknown[0], "is no camera axis; the axes are pan, tilt, rotate, zoom")
    return Camera(**value)


def _effect(value: object) -> object:
    if isinstance(value, str):
        return next((known for known in EFFECTS if known.lower() == value.strip().lower()), value)
    return value


def _model(value: object) -> object:
    if isinstance(value, float | int) and not isinstance(value, bool):
        return str(float(value)) if abs(value) < 1000 else value  # anything else is no version, and refused as such
    return value


def _many(value: object) -> object:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else value


@attrs.frozen(weakref_slot=False)
class GenerationRequest:
    """What is wanted. Checked when it is made; `Provider.check` says what one gateway cannot do of it.

    `image`, `video` and each of `ingredients` are an URL, a path or bytes. `aspect_ratio` is `"16:9"` or width by
    height, 0.4 to 2.5. `effect` is a documented effect in any case, or any text with `strict=False`. `frame_rate` 8 to
    24 frames a second, `guidance_scale` 5 to 25, `motion` 0 to 4, `seed` 0 to 2**63 - 1 (ranges: the gateways' pages).
    `key` names the job and its file: letters, digits and `. _ - @ = +`, unique in a batch. `metadata` is yours and is
    never sent.

    :raises InvalidRequest: names the field, the value and the range.
    """

    prompt: str
    image: Media | None = attrs.field(default=None, kw_only=True, repr=_shown)
    video: Media | None = attrs.field(default=None, kw_only=True, repr=_shown)
    ingredients: tuple[Media, ...] = attrs.field(default=(), kw_only=True, converter=_many)
    ingredients_mode: IngredientsMode | None = attrs.field(default=None, kw_only=True)
    effect: str | None = attrs.field(default=None, kw_only=True, converter=_effect)
    aspect_ratio: str | float | None = attrs.field(default=None, kw_only=True)
    frame_rate: int | None = attrs.field(default=None, kw_only=True)
    camera: Camera | None = attrs.field(default=None, kw_only=True, converter=_camera)
    guidance_scale: int | None = attrs.field(default=None, kw_only=True)
    motion: int | None = attrs.field(default=None, kw_only=True)
    negative_prompt: str | None = attrs.field(default=None, kw_only=True)
    seed: int | None = attrs.field(default=None, kw_only=True)
    sfx: bool | None = attrs.field(default=None, kw_only=True)
    extend: bool = attrs.field(default=False, kw_only=True)
    model: str | None = attrs.field(default=None, kw_only=True, converter=_model)
    key: str | None = attrs.field(default=None, kw_only=True)
    metadata: Mapping[str, Any] | None = attrs.field(default=None, kw_only=True)
    strict: bool = attrs.field(default=True, kw_only=True)

    def __attrs_post_init__(self) -> None:
        _check_text("prompt", self.prompt, empty=False)
        _check_flag("strict", self.strict)
        self._check_inputs()
        self._check_options()
        if self.key is not None:
            check_key(self.key)
        if self.metadata is not None:
            self._check_metadata()

    def _check_inputs(self) -> None:
        for field in ("image", "video"):
            value = getattr(self, field)
            if value is not None:
                _check_media(field, value)
        if self.image is not None and self.video is not None:
            raise _bad("video", self.video, "and image are both given; a generation starts from one of them")
        if not isinstance(self.ingredients, tuple):
            raise _bad("ingredients", self.ingredients, "is no list; give a list of images")
        for number, ingredient in enumerate(self.ingredients):
            _check_media(f"ingredients[{number}]", ingredient)
        if self.ingredients and (self.image is not None or self.video is not None):
            raise _bad("ingredients", len(self.ingredients), "come with an image or a video; give one kind of input")
        if self.ingredients_mode is not None:
            _check_choice("ingredients_mode", self.ingredients_mode, ("precise", "creative"))
            if not self.ingredients:
                raise _bad("ingredients_mode", self.ingredients_mode, "needs ingredients; give them or leave it out")

    def _check_options(self) -> None:
        if self.effect is not None:
            _check_text("effect", self.effect, empty=False)
            if self.strict:
                _check_choice("effect", self.effect, EFFECTS)
        if self.aspect_ratio is not None:
            self.ratio  # noqa: B018 - parsing it is the check
        for field, low, high in (
            ("frame_rate", 8, 24),
            ("guidance_scale", 5, 25),
            ("motion", 0, 4),
            ("seed", 0, 2**63 - 1),
        ):
            value = getattr(self, field)
            if value is not None:
                _check_whole(field, value, low, high)
        if self.camera is not None and not isinstance(self.camera, Camera):
            raise _bad("camera", self.camera, "is no camera; give Camera(pan=..., tilt=..., rotate=..., zoom=...)")
        if self.negative_prompt is not None:
            _check_text("negative_prompt", self.negative_prompt, empty=True)
        if self.sfx is not None:
            _check_flag("sfx", self.sfx)
        _check_flag("extend", self.extend)
        if self.model is not None:
            _check_text("model", self.model, empty=False)

    def _check_metadata(self) -> None:
        if not isinstance(self.metadata, Mapping):
            raise _bad("metadata", self.metadata, "is no mapping; give a dict")
        try:
            json.dumps(dict(self.metadata), allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise _bad("metadata", self.metadata, f"cannot be written as JSON ({error})") from None

    @property
    def ratio(self) -> Fraction | None:
        """`aspect_ratio` as width by height; a float within 0.1 % of a ratio of small numbers is that ratio.

        :raises InvalidRequest: if it is no ratio from 0.4 to 2.5.
        """
        value = self.aspect_ratio
        return None if value is None else parse_ratio(value)

    @property
    def kind(self) -> Literal["text", "image", "video", "ingredients"]:
        """What the generation starts from."""
        if self.image is not None:
            return "image"
        if self.video is not None:
            return "video"
        return "ingredients" if self.ingredients else "text"

    def fingerprint(self) -> str:
        """64 hex digits that are the same for the same content; `key` and `metadata` do not count."""
        content = attrs.asdict(self, filter=lambda field, _: field.name not in {"key", "metadata", "strict"})
        text = json.dumps(content, sort_keys=True, default=_canonical, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: object) -> str:
    return f"sha256:{hashlib.sha256(value).hexdigest()}" if isinstance(value, bytes) else str(value)


def check_key(key: object) -> None:
    """:raises InvalidRequest: unless `key` may name a job and its file."""
    _check_text("key", key, empty=False)
    if not isinstance(key, str) or not KEY_PATTERN.fullmatch(key) or ".." in key:
        raise _bad(
            "key", key, "may hold letters, digits and . _ - @ = + only, begin with a letter, digit or _, and no .."
        )
    if len(key.encode()) > KEY_BYTES:
        raise _bad("key", key, f"is {len(key.encode())} bytes long; a key has at most {KEY_BYTES}")


def parse_ratio(value: object) -> Fraction:
    """Width by height of `"16:9"`, `"1.78"` or 1.7777; see `GenerationRequest.ratio`."""
    way_out = 'give "16:9" or width by height as a number, from 0.4 to 2.5'
    match value:
        case bool():
            raise _bad("aspect_ratio", value, f"is no ratio; {way_out}")
        case int() | float():
            ratio = Fraction(value).limit_denominator(10_000) if abs(value) < 1e6 else None
        case str() if found := re.fullmatch(r"\s*([0-9]{1,5})\s*[:/x]\s*([0-9]{1,5})\s*", value):
            ratio = Fraction(int(found[1]), int(found[2])) if int(found[2]) else None
        case str() if re.fullmatch(r"\s*[0-9]{1,5}(\.[0-9]{1,20})?\s*", value):
            ratio = Fraction(value.strip())
        case _:
            ratio = None
    if ratio is None:
        raise _bad("aspect_ratio", value, f"is no ratio; {way_out}")
    if not ASPECT_RANGE[0] <= float(ratio) <= ASPECT_RANGE[1]:
        raise _bad("aspect_ratio", value, "is outside 0.4 to 2.5 (width by height)")
    # Four digits are finer than a pixel of any video; a wire that writes the ratio as text takes no more.
    ratio = ratio.limit_denominator(3999)
    small = ratio.limit_denominator(21)
    return small if abs(float(small) / float(ratio) - 1) < 1e-3 else ratio


class TaskState(enum.Enum):
    """What one poll said of a task, whatever the gateway's words."""

    #: Accepted, not begun.
    QUEUED = "queued"
    #: Being generated; also every word that is not known.
    RUNNING = "running"
    #: Done, with an address of the result.
    SUCCEEDED = "succeeded"
    #: Done, says the gateway, but it named no address yet.
    SUCCEEDED_WITHOUT_URL = "succeeded_without_url"
    #: The gateway settled it as failed.
    FAILED = "failed"
    #: The gateway says that it knows no such task: transient when young.
    MISSING = "missing"


@attrs.frozen(kw_only=True)
class Video:
    """A result as the provider describes it. Addresses live from ten minutes to for ever: download early."""

    url: str
    poster: str | None = None
    thumbnail: str | None = None
    share_url: str | None = None
    last_frame: str | None = None
    seed: int | None = None
    #: Length in seconds, where the provider says.
    duration: float | None = None
    task_id: str | None = None


@attrs.frozen(kw_only=True)
class Snapshot:
    """What one poll said. `word` is the provider's own status; `raw` the whole answer, unknown fields included."""

    task_id: str
    state: TaskState
    word: str = ""
    #: False for a status word that no document lists; such a task counts as running.
    known_word: bool = True
    video: Video | None = None
    #: Percent, 0 to 100, where the wire has it.
    progress: int | None = None
    reason: str = ""
    #: Unix seconds by the provider's clock, where it tells; 0 is "not yet" and given as None.
    created_at: float | None = None
    updated_at: float | None = None
    #: Points that stay charged, and that were given back, where the provider tells.
    points: float | None = None
    refunded: float | None = None
    raw: Any = attrs.field(default=None, repr=False, eq=False)


@attrs.frozen(kw_only=True)
class Receipt:
    """What the answer to a submission says: an id, or an explicit failure code, or neither."""

    task_id: str | None = None
    #: The body's own code where it is explicit and means failure (`400`, `"task_not_exist"`, ...), as text.
    failure_code: str | None = None
    message: str = ""
    raw: Any = attrs.field(default=None, repr=False, eq=False)
