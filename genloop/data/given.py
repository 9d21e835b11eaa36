"""Images, and masks, that a job starts from: two folders, whose i-th file by name belongs to line i of another file.

H, W = pixels.
"""

from pathlib import Path

import numpy as np

from genloop.data.image_reader import UnreadableImage, read_image
from genloop.data.pictures import find_images


class GivenFolder:
    """Images for lines of a file. Raises FileNotFoundError or ValueError, one line each."""

    def __init__(self, images: Path, masks: Path | None, num_lines: int, *, all_lines: bool = True) -> None:
        """Counts files; with `all_lines` False there may be more of them than lines."""
        self.folder, self.images = images, _files(images, num_lines, all_lines)
        self.masks = None if masks is None else _files(masks, num_lines, all_lines)

    @property
    def names(self) -> list[str]:
        """Of the images, below their folder."""
        return [path.relative_to(self.folder).as_posix() for path in self.images]

    def image(self, line: int) -> np.ndarray:
        """-> (H, W, 3) uint8, upright RGB."""
        return _read(self.images[line])

    def hole(self, line: int) -> np.ndarray | None:
        """-> (H, W) uint8, bright where to paint; None without masks."""
        from PIL import Image

        return None if self.masks is None else np.asarray(Image.fromarray(_read(self.masks[line])).convert("L"))

    def check(self) -> None:
        """Decode everything: refuses broken files, masks of other sizes, and masks that leave nothing to paint."""
        for line, path in enumerate(self.images):
            height, width = self.image(line).shape[:2]
            hole = self.hole(line)
            if hole is None or self.masks is None:
                continue
            if hole.shape != (height, width):
                found = f"{hole.shape[1]}x{hole.shape[0]}"
                raise ValueError(f"{self.masks[line]}: a mask of {found} pixels for {path} of {width}x{height}")
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            if hole[top : top + side, left : left + side].max() < 128:
                raise ValueError(f"{self.masks[line]}: nothing to paint: the mask's middle square has no white pixel")


def _files(folder: Path, num_lines: int, all_lines: bool) -> list[Path]:
    found = [folder / picture.image for picture in find_images(folder)]
    if len(found) < num_lines or (all_lines and len(found) != num_lines):
        raise ValueError(f"{folder}: {len(found)} images for {num_lines} lines; it needs one a line, in order of names")
    return found[:num_lines]


def _read(path: Path) -> np.ndarray:
    try:
        return read_image(path)
    except UnreadableImage as error:
        raise ValueError(f"{path}: {error}") from None
