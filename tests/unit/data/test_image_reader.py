"""Image files of every kind that Pillow opens become upright 8-bit RGB; what does not decode says so."""

import numpy as np
import pytest
from PIL import Image

from genloop.data.image_reader import UnreadableImage, read_image
from tests.worlds.image_folders import torn_avif

PIXELS = np.arange(2 * 3, dtype=np.uint8).reshape(2, 3) * 40  # (H, W) gray


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK"])
def test_eight_bits_a_channel_stay_as_they_are(tmp_path, mode):
    path = tmp_path / "0000.png"  # the content counts, not the name
    Image.fromarray(PIXELS).convert(mode).save(path, "TIFF")
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


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n", torn_avif()])
def test_what_does_not_decode_is_unreadable(tmp_path, content):
    path = tmp_path / "0000.png"
    path.write_bytes(content)
    with pytest.raises(UnreadableImage):
        read_image(path)
