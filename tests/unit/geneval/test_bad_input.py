"""Bad image folders in `evaluate`: refused in one line before anything is written, and good once they are mended."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from geneval.completeness import ExpectSettings, check_complete, compare
from geneval.folder import find_samples, read_folders
from genloop.job import run_command
from genloop.records import TAGS
from genloop.runs.provenance import CHUNK
from jobs import evaluate
from tests.runs import refusal
from tests.worlds.image_folders import small_set, write_images
from tests.worlds.report_runs import Sketch, write_runs

SAMPLE = Path("00003", "samples", "0001.png")
METADATA = Path("00003", "metadata.jsonl")
PROMPTS = "configs/prompts/shapes_tiny/evaluation_metadata.jsonl"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("bad") / "images", small_set())


@pytest.fixture
def images(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "images"))


def words(images: Path, out: Path, *more: str) -> list[str]:
    return ["tiny", f"images={images}", f"out={out}", *more]


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    make(path)


def metadata_with(more: str) -> Callable[[Path], object]:
    """Another key at the end of the one line of a prompt."""
    return lambda images: (images / METADATA).write_text(
        (images / METADATA).read_text().rstrip()[:-1] + f", {more}}}\n"
    )


LAYOUTS = {
    "a prompt that is a file": (
        lambda images: replaced(images / "00011", Path.touch),
        "00011: is named like a prompt folder and is none",
    ),
    "a prompt that is a broken link": (
        lambda images: replaced(images / "00011", lambda path: path.symlink_to("nowhere")),
        "00011: is named like a prompt folder and is none",
    ),
    "a sample that is a folder": (
        lambda images: replaced(images / SAMPLE, Path.mkdir),
        "0001.png: is no file (a folder, or a broken link)",
    ),
    "a sample that is a broken link": (
        lambda images: replaced(images / SAMPLE, lambda path: path.symlink_to("nowhere")),
        "0001.png: is no file",
    ),
    "a sample that leads to itself": (
        lambda images: replaced(images / SAMPLE, lambda path: path.symlink_to(path.name)),
        "0001.png: is no file",
    ),
    "a sample that is a pipe": (lambda images: replaced(images / SAMPLE, os.mkfifo), "0001.png: is no file"),
    "samples of a type that is not read": (
        lambda images: (images / SAMPLE).rename((images / SAMPLE).with_suffix(".heic")),
        "0001.heic: not a sample that is read here",
    ),
    "samples without a type": (
        lambda images: (images / SAMPLE).rename((images / SAMPLE).with_suffix("")),
        "0001: not a sample that is read here",
    ),
    "metadata with a key twice": (metadata_with('"tag": "counting"'), "broken JSON: key 'tag' is there twice"),
    "metadata with a NaN": (metadata_with('"x": NaN'), "holds what JSON cannot say again"),
    "metadata with an endless number": (metadata_with('"x": 1e999'), "holds what JSON cannot say again"),
    "metadata in brackets": (metadata_with(f'"x": {"[" * 100_000 + "]" * 100_000}'), "JSON nested"),
}


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_a_folder_that_would_be_read_in_part_is_refused(images, name):
    change, message = LAYOUTS[name]
    change(images)
    with pytest.raises(ValueError) as error:
        find_samples(images)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("out", ["images", "images/run", "images/00003/samples", "link"])
def test_an_out_inside_the_images_is_refused_and_the_images_stay_good(images, tmp_path, capsys, out):
    (tmp_path / "link").symlink_to("images")
    line = refusal(evaluate, words(images, tmp_path / out), tmp_path, capsys)
    assert f"out: {tmp_path / out} lies in `images`" in line and "use another `out`" in line
    assert run_command(evaluate, words(images, tmp_path / "out")) == 0


@pytest.mark.parametrize("linked", ["00003", "00003/samples"])
def test_images_behind_links_to_folders_are_fingerprinted_too(images, tmp_path, capsys, linked):
    (images / linked).rename(tmp_path / "elsewhere")
    (images / linked).symlink_to(tmp_path / "elsewhere")
    assert run_command(evaluate, words(images, tmp_path / "out")) == 0
    (images / SAMPLE).write_bytes((images / "00002" / "samples" / "0000.png").read_bytes())
    assert "another content of `images`" in refusal(evaluate, words(images, tmp_path / "out"), tmp_path, capsys)


def test_images_of_an_unfinished_generate_run_are_refused_or_said_to_be_a_part(images, tmp_path, capsys):
    made = write_runs(tmp_path, "made", Sketch()).with_name("made")
    shutil.rmtree(made / "images")
    images.rename(made / "images")
    assert run_command(evaluate, words(made, tmp_path / "whole")) == 0
    sorted((made / "rows").iterdir())[-1].unlink()
    message = "the run of generate around them is unfinished, 1 unit to make"
    capsys.readouterr()
    assert message in refusal(evaluate, words(made, tmp_path / "out"), tmp_path, capsys)
    assert run_command(evaluate, words(made, tmp_path / "out", "expect.on_missing=report")) == 0
    assert message in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["completeness"]["units_to_make"] == 1


@pytest.mark.parametrize("left", [0, 5])
def test_rows_that_got_lost_are_never_left_out_of_the_mean(images, tmp_path, capsys, left):
    out = tmp_path / "out"
    assert run_command(evaluate, words(images, out)) == 0
    path = out / "rows" / "00001.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:left]))
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        run_command(evaluate, words(images, out))
    error = capsys.readouterr().err
    assert stopped.value.code == 1 and "Traceback" not in error
    assert f"{path}: holds {left} rows, not 8; remove it and run the same command again" in error
    path.unlink()
    assert run_command(evaluate, words(images, out)) == 0


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "[" * 100_000,
        '{"steps": NaN}',
        '{"steps": "\\ud83d"}',
        '{"size": 1, "prompts": 2, "rewritten": true, "mixed": 3, "seeds": 4, "num_images": 5}',
    ],
)
def test_whatever_a_png_says_of_itself_the_card_is_whole_and_says_what_was_seen(images, tmp_path, text):
    chunk = PngImagePlugin.PngInfo()
    chunk.add_text(CHUNK, text)
    chunk.add_text("parameters", "a photo\nSteps: 1e999, CFG scale: nan, Seed: ")
    with Image.open(images / SAMPLE) as image:
        image.save(images / SAMPLE, pnginfo=chunk)
    assert run_command(evaluate, words(images, tmp_path / "out")) == 0

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    card = json.loads((tmp_path / "out" / "card.json").read_text(), parse_constant=refuse)["images"]
    seen = {"num_prompts": 12, "rewritten": False, "num_images": 24, "size": [[24, 24]]}
    assert {key: card[key] for key in seen} == seen and not isinstance(card["prompts"], int)


def test_a_torn_note_beside_the_rows_is_named(images, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_command(evaluate, words(images, out)) == 0
    (out / "canary.json").write_text("{")
    with pytest.raises(SystemExit) as stopped:
        run_command(evaluate, words(images, out))
    error = capsys.readouterr().err
    assert stopped.value.code == 1 and "Traceback" not in error
    assert "canary.json: broken JSON" in error and "remove it and run the same command again" in error


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    gone=st.sets(st.tuples(st.integers(0, 11), st.integers(0, 1)), max_size=24),
    doubled=st.sets(st.tuples(st.integers(0, 11), st.integers(2, 4)), max_size=6),
    no_folder=st.sets(st.integers(0, 11), max_size=3),
)
def test_images_that_are_gone_or_too_many_are_always_named(original, tmp_path_factory, gone, doubled, no_folder):
    images = tmp_path_factory.mktemp("some") / "images"
    shutil.copytree(original, images, copy_function=os.link)
    for prompt, sample in gone:
        (images / f"{prompt:05d}" / "samples" / f"{sample:04d}.png").unlink()
    for prompt, sample in doubled:
        shutil.copy(original / SAMPLE, images / f"{prompt:05d}" / "samples" / f"{sample:04d}.png")
    for prompt in no_folder:
        shutil.rmtree(images / f"{prompt:05d}")
    folders = read_folders(images)
    numbers = {folder.name: len(folder.samples) for folder in folders}
    even = len(set(numbers.values())) == 1 and {folder.prompt.tag for folder in folders} == set(TAGS)
    whole = {"prompts": PROMPTS, "images_per_prompt": 2}
    for expect, holds in (({}, even), (whole, len(numbers) == 12 and set(numbers.values()) == {2})):
        found = compare(folders, ExpectSettings(**expect))
        assert found.to_json()["complete"] == (found.lines() == []) == holds
        if not holds:
            with pytest.raises(ValueError, match=r"; expect\.on_missing=report"):
                check_complete(images, found)
