"""Pictures as callers have them: data URIs, open files and images of Pillow become bytes when a request is made."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pika_async import GenerationRequest, InvalidRequest
from pika_async.models import media
from tests.http.media_files import made, picture

PNG = made("png")
FIELDS = ("image", "video", "ingredients")


def request_with(value: Any, field: str = "image") -> GenerationRequest:
    fields: dict[str, Any] = {field: [value] if field == "ingredients" else value}
    return GenerationRequest("a cat", **fields)


def content_of(request: GenerationRequest) -> Any:
    return request.image or request.video or request.ingredients[0]


@pytest.mark.parametrize("field", FIELDS)
def test_every_form_of_one_content_is_the_same_request(field: str, tmp_path: Path) -> None:
    """Bytes, an open file of any class and a data URI are equal, and have one fingerprint."""
    path = tmp_path / "cat.png"
    path.write_bytes(PNG)
    text = base64.b64encode(PNG).decode()
    with path.open("rb") as file, path.open("rb", buffering=0) as raw, tempfile.SpooledTemporaryFile() as spooled:
        spooled.write(PNG)
        spooled.seek(0)
        forms = [
            PNG, file, raw, spooled, io.BytesIO(PNG), f"data:image/png;base64,{text}", f" DATA:;BASE64,{text}\n",
            f"data:image/jpeg;charset=x;base64,{text.replace('+', '%2B').rstrip('=')}",
        ]  # fmt: skip
        requests = [request_with(form, field) for form in forms]
        assert not file.closed
    assert [content_of(request) for request in requests] == [PNG] * len(forms)
    assert {request.fingerprint() for request in requests} == {request_with(PNG, field).fingerprint()}
    assert all(request == requests[0] for request in requests)


def test_an_open_file_is_read_from_its_position_to_its_end() -> None:
    """What stands before the position is not part of the picture; the file stays open, at its end."""
    file = io.BytesIO(b"header" + PNG)
    file.seek(6)
    assert request_with(file).image == PNG
    assert file.tell() == 6 + len(PNG)
    with pytest.raises(InvalidRequest, match=r"must not be empty from its position on; seek\(0\)"):
        request_with(file)


class Dribbling(io.RawIOBase):
    """A raw file that returns fewer bytes than were asked for."""

    def __init__(self, data: bytes) -> None:
        self._rest = data

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        taken, self._rest = self._rest[:7], self._rest[7:]
        return taken


def test_short_reads_are_put_together() -> None:
    """Pipes and sockets return what they have."""
    assert request_with(Dribbling(PNG)).image == PNG


class Upload:
    """An upload of a web framework, whose read must be awaited."""

    async def read(self, size: int = -1) -> bytes:
        return PNG


@pytest.mark.parametrize(
    "kind, text",
    [
        ("text file", "must be a file whose read returns bytes, not str; open it in binary mode"),
        ("closed file", "cannot be read: I/O operation on closed file"),
        ("file to write", "cannot be read: "),
        ("asynchronous file", "must be a file whose read returns bytes, not coroutine"),
        ("endless file", "must be at most 100,000,000 bytes long"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_name(
    kind: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the field, and no coroutine is left without being awaited."""
    monkeypatch.setattr(media, "READ_CHUNK_BYTES", 50_000_000)
    closed = io.BytesIO(PNG)
    closed.close()
    with (tmp_path / "x").open("wb") as writing, Path("/dev/zero").open("rb") as endless:
        files: dict[str, Any] = {
            "text file": io.StringIO("a cat"), "closed file": closed, "file to write": writing,
            "asynchronous file": Upload(), "endless file": endless,
        }  # fmt: skip
        with pytest.raises(InvalidRequest) as caught:
            request_with(files[kind], "ingredients")
    assert caught.value.field == "ingredients[0]"
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16", "CMYK", "YCbCr", "HSV", "LAB", "F", "PA", "La", "RGBa"]
)
def test_an_image_of_pillow_becomes_a_png_of_the_same_picture(mode: str) -> None:
    """Every mode is encoded; modes that PNG does not have are converted first. Equal pixels are equal requests."""
    image = (
        Image.new(mode, (6, 4))
        if mode in {"I;16", "PA", "La", "RGBa", "LAB"}
        else picture().resize((6, 4)).convert(mode)
    )
    one, two = request_with(image), request_with(image.copy())
    assert one == two
    assert isinstance(one.image, bytes)
    with Image.open(io.BytesIO(one.image)) as encoded:
        assert (encoded.format, encoded.size) == ("PNG", (6, 4))
        if mode in {"RGB", "RGBA", "L", "LA", "1"}:
            assert encoded.tobytes() == image.tobytes()


@pytest.mark.parametrize("mode", ["CMYK", "LAB"])
def test_a_converted_image_has_no_colour_profile(mode: str) -> None:
    """One of the earlier mode would be wrong, and that which Pillow makes for LAB differs from second to second."""
    image = Image.new(mode, (6, 4))
    image.info["icc_profile"] = b"a profile of the earlier mode"
    encoded = request_with(image).image
    assert isinstance(encoded, bytes)
    assert b"iCCP" not in encoded
    assert "icc_profile" in image.info


def test_an_image_that_pillow_cannot_encode_is_refused() -> None:
    """A picture of which the rest is missing is refused when the request is made."""
    image = Image.open(io.BytesIO(made("jpeg")[:-200]))
    with pytest.raises(InvalidRequest, match=r"image: .* could not be encoded as PNG: .*truncated"):
        request_with(image)


def test_pillow_is_not_imported() -> None:
    """The core knows an image of Pillow by what it can do."""
    code = "import sys, pika_async; pika_async.GenerationRequest('a', image=b'x'); assert 'PIL' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_repr_shows_no_bytes() -> None:
    """A log line with a request stays short, ingredients included."""
    assert "<10000 bytes>" in repr(request_with(bytes(10_000), "ingredients"))
    assert len(repr(request_with(bytes(10_000), "ingredients"))) < 600
