"""Checks of edited images that need no judge: a line a check and mode, with its interval over requests."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from genloop.runs.rows import EditRecord, GeneratedRow
from genloop.stats.intervals import Interval
from genloop.stats.resampling import cluster_bootstrap

CHECKS: dict[str, tuple[str, str, tuple[float, float] | None]] = {  # name -> words, short, lowest and highest value
    "similarity": ("SSIM with the picture", "SSIM", (-1.0, 1.0)),
    "outside_psnr": ("PSNR outside of the mask, dB", "PSNR outside", None),
    "edge_f1": ("edge F1 with the line map", "edge F1", (0.0, 1.0)),
    "depth_correlation": ("correlation with the depth map", "depth r", (-1.0, 1.0)),
}


class CheckMean(NamedTuple):
    """One check over the images of one mode."""

    name: str
    words: str
    mode: str
    requests: int
    values: int  # images with a number
    equal: int  # of `outside_psnr`: images whose pixels outside of the mask are the picture's own
    mean: Interval | None  # None without a number, or with those of one request and no known ends

    @property
    def text(self) -> str:
        """The mean with its interval."""
        return "-" if self.mean is None else f"{self.mean.estimate:.3f} ({self.mean.low:.3f} to {self.mean.high:.3f})"


def check_means(rows: Sequence[GeneratedRow]) -> Iterator[CheckMean]:
    """By check, then by mode, in the order in which both come up; nothing for runs that edited no picture."""
    edited = [(row.prompt_index, row.edit) for row in rows if row.edit is not None]
    for name, (words, _, ends) in CHECKS.items():
        for mode in dict.fromkeys(edit.mode for _, edit in edited):
            mine = [(index, edit.checks[name]) for index, edit in edited if edit.mode == mode and name in edit.checks]
            found = [(value, index) for index, value in mine if value is not None]
            if not mine:
                continue
            clusters = {index for _, index in found}
            mean = None
            if len(clusters) > 1 or (found and ends):
                values, places = zip(*found)
                mean = cluster_bootstrap(values, places, 0, ends=ends)
            equal = len(mine) - len(found) if name == "outside_psnr" else 0
            yield CheckMean(name, words, mode, len({index for index, _ in mine}), len(found), equal, mean)


def check_words(edit: EditRecord) -> list[str]:
    """The checks of one image, in words."""
    found = []
    for name, value in edit.checks.items():
        words = CHECKS[name][1] if name in CHECKS else name
        if value is not None:
            found.append(f"{words} {value:.2f}")
        elif name == "outside_psnr":
            found.append("equal outside")
    return found
