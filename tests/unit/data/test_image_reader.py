"""PNG, JPEG and WebP files of every kind become upright 8-bit RGB; what does not decode says so."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from genloop.data.image_reader import UnreadableImage, decode_image, read_image

PIXELS = np.arange(2 * 3, dtype=np.uint8).reshape(2, 3) * 40  # (H, W) gray


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P"])
def test_eight_bits_a_channel_stay_as_they_are(tmp_path, mode):
    path = tmp_path / "0000.jpg"  # the content counts, not the name
    Image.fromarray(PIXELS).convert(mode).save(path, "PNG")
    assert (read_image(path) == PIXELS[..., None]).all()


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    path = tmp_path / "0000.png"
    Image.fromarray(PIXELS.astype(np.uint16) * 257).save(path)
    assert (read_image(path) == PIXELS[..., None]).all()


def test_images_are_turned_as_their_camera_says(tmp_path):
    path, exif = tmp_path / "0000.png", Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(PIXELS).save(path, exif=exif)
    assert (read_image(path) == np.rot90(PIXELS, -1)[..., None]).all()


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """Little-endian EXIF data of entries (tag, type, count, value)."""
    body = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3].ljust(4, b"\0") for entry in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4) + struct.pack("<ii", -1, 0)


TURN = (0x112, 3, 1, b"\6\0")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(
    "entry",
    [
        (0x11A, 10, 1, struct.pack("<I", 38)),  # XResolution -1/0
        (0x11A, 2, 4, b"72\0\0"),  # as text
        (0x100, 2, 3, b"24\0"),  # ImageWidth as text
        (0x103, 8, 1, struct.pack("<h", -1)),
        (0x103, 7, 1 << 20, b""),  # longer than the data
    ],
)
def test_the_orientation_alone_counts_of_what_a_camera_says(form, entry):
    stream = io.BytesIO()
    Image.new("RGB", (24, 12), (200, 30, 30)).save(stream, form, exif=exif(*sorted((TURN, entry))))
    assert decode_image(stream.getvalue()).shape == (24, 12, 3)


@pytest.mark.parametrize("said", [b"no EXIF data at all", exif((0x112, 3, 1, b"\x09\0")), exif((0x112, 2, 2, b"6\0"))])
def test_an_orientation_that_is_none_leaves_the_image_as_it_lies(said):
    stream = io.BytesIO()
    Image.new("RGB", (24, 12)).save(stream, "PNG", exif=said)
    assert decode_image(stream.getvalue()).shape == (12, 24, 3)


def saved(form: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, form)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_pixels_that_break_off_are_unreadable(form):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(stream, form)
    for share in (0.3, 0.9):
        with pytest.raises(UnreadableImage):
            decode_image(stream.getvalue()[: int(share * len(stream.getvalue()))])


FORMATS = ("EPS", "TIFF", "BMP", "GIF", "AVIF", "PPM", "TGA")


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n", *map(saved, FORMATS)])
def test_what_is_no_whole_png_jpeg_or_webp_is_unreadable_whatever_its_name(tmp_path, content):
    path = tmp_path / "0000.png"
    path.write_bytes(content)
    with pytest.raises(UnreadableImage):
        read_image(path)
