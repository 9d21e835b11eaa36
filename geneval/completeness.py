"""Is a folder of images all that it should be: the prompts of a set, so many images of each, all six tasks.

GenEval's score is a mean over the images and tasks that happen to be there, so what is missing changes it silently.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from geneval.folder import PromptFolder
from geneval.prompts import generate
from genloop.bounds import Count
from genloop.config import INSTALLED, LAUNCH, Settings
from genloop.data.prompts import read_prompts
from genloop.records import TAGS, Prompt

PUBLISHED = "geneval"


class ExpectSettings(Settings):
    """What a complete folder holds. Rows do not depend on it, so it may change when a run goes on."""

    images_per_prompt: Annotated[Count | None, LAUNCH] = Field(
        None, description="images of each prompt; null: the same number of all"
    )
    prompts: Annotated[str | None, LAUNCH] = Field(
        None, description="geneval (the 553 published) or a prompt or metadata file; null: any prompts of all six tasks"
    )
    on_missing: Annotated[Literal["error", "report"], LAUNCH] = Field(
        "error", description="what is missing or too much: an error before work, or said in the summary"
    )


@dataclass(frozen=True, slots=True)
class Completeness:
    """What a folder lacks or has too much."""

    images_per_prompt: int  # expected
    wrong_numbers: tuple[tuple[str, int], ...] = ()  # folder, images
    missing_prompts: tuple[str, ...] = ()
    extra_folders: tuple[str, ...] = ()
    missing_tasks: tuple[str, ...] = ()
    units_to_make: int = 0  # of the run of generate around the images

    def lines(self) -> list[str]:
        """One line for each thing that is wrong; none for a complete folder."""
        lines = []
        if self.missing_prompts:
            what = _list([f"{text!r}" for text in self.missing_prompts])
            lines.append(f"{counted(len(self.missing_prompts), 'expected prompt')} without a folder: {what}")
        if self.extra_folders:
            what = counted(len(self.extra_folders), "folder")
            lines.append(
                f"{what} of a prompt that is not expected, or that is there twice: {_list(self.extra_folders)}"
            )
        if self.wrong_numbers:
            found = _list([f"{name} has {number}" for name, number in self.wrong_numbers])
            what = counted(len(self.wrong_numbers), "folder")
            lines.append(f"{what} without exactly {counted(self.images_per_prompt, 'image')}: {found}")
        if self.missing_tasks:
            lines.append(f"no prompts of {', '.join(self.missing_tasks)}")
        if self.units_to_make:
            what = counted(self.units_to_make, "unit")
            lines.append(f"the run of generate around them is unfinished, {what} to make")
        return lines

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"complete": not self.lines()}


def compare(folders: Sequence[PromptFolder], expect: ExpectSettings, limit: int | None = None) -> Completeness:
    """What the first `limit` prompt folders lack of what is expected of them."""
    numbers = {folder.name: len(folder.samples) for folder in folders}
    wanted = expect.images_per_prompt or Counter(numbers.values()).most_common(1)[0][0] or 1
    wrong = tuple((name, number) for name, number in numbers.items() if number != wanted)
    if expect.prompts is None:
        present = {folder.prompt.tag for folder in folders}
        absent = () if limit is not None else tuple(tag for tag in TAGS if tag not in present)
        return Completeness(wanted, wrong, missing_tasks=absent)
    left = Counter(map(_key, expected_prompts(expect.prompts)[:limit]))
    extra = []
    for folder in folders:
        if left[_key(folder.prompt)] > 0:
            left[_key(folder.prompt)] -= 1
        else:
            extra.append(folder.name)
    missing = [prompt for prompt, number in left.items() if number > 0]
    tasks = {prompt.tag for prompt in left}
    reached = {folder.prompt.tag for folder in folders}
    return Completeness(
        wanted,
        wrong,
        tuple(prompt.text for prompt in missing),
        tuple(extra),
        tuple(tag for tag in TAGS if tag in tasks and tag not in reached),
    )


def check_complete(images: Path, found: Completeness) -> None:
    """ValueError, one line, for a folder that lacks something."""
    if lines := found.lines():
        raise ValueError(
            f"{images}: {'; '.join(lines)}; expect.on_missing=report evaluates what is there and says so in the summary"
        )


def expected_prompts(name: str) -> list[Prompt]:
    """The prompts of a set: the published ones, or those of a file."""
    if name == PUBLISHED:
        return generate()
    path = Path(name) if Path(name).exists() else INSTALLED / name
    if not path.exists():
        raise FileNotFoundError(f"expect.prompts: {name}: no such file; `{PUBLISHED}` stands for the published prompts")
    return read_prompts(*_files(path))


def _files(path: Path) -> tuple[Path, Path | None]:
    """A prompt file with the metadata beside it, or a metadata file alone."""
    beside = path.parent / "evaluation_metadata.jsonl"
    return path, beside if path.suffix == ".txt" and beside.is_file() else None


def _key(prompt: Prompt) -> Prompt:
    return replace(prompt, index=0)


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def counted(number: int, what: str) -> str:
    """1 image, 2 images."""
    return f"{number} {what}{'' if number == 1 else 's'}"
