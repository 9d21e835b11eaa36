"""Any folder is read: padding, suffixes, one image a prompt, rewritten prompts; what is wrong is said in one line."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from geneval.folder import find_samples, read_folders
from genloop.data.image_reader import ImageReader, UnreadableImage
from tests.worlds.image_folders import small_set, write_images


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "images", small_set())


@pytest.mark.parametrize("width", [1, 3, 12])
def test_names_may_be_padded_in_any_way(images, width):
    before = [(sample.prompt, sample.number) for sample in find_samples(images)]
    for folder in sorted(images.iterdir()):
        for sample in sorted((folder / "samples").iterdir()):
            sample.rename(sample.with_name(f"{int(sample.stem):0{width}d}.png"))
        folder.rename(images / f"{int(folder.name):0{width}d}")
    after = find_samples(images)
    assert [(sample.prompt, sample.number) for sample in after] == before
    assert after[-1].image == f"{11:0{width}d}/samples/{1:0{width}d}.png"


@pytest.mark.parametrize(("suffix", "kind"), [("jpg", "JPEG"), ("JPEG", "JPEG"), ("webp", "WEBP"), ("PNG", "PNG")])
def test_images_are_png_jpeg_or_webp(images, suffix, kind):
    samples = images / "00000" / "samples"
    with Image.open(samples / "0001.png") as image:
        image.save(samples / f"0001.{suffix}", kind)
    (samples / "0001.png").unlink()
    found = find_samples(images, limit=1)
    assert [sample.image for sample in found] == ["00000/samples/0000.png", f"00000/samples/0001.{suffix}"]
    with ImageReader(images) as reader:
        pixels = reader.take([sample.image for sample in found])
    assert [image.shape for image in pixels] == [(24, 24, 3)] * 2


def test_one_image_may_lie_beside_the_metadata(images):
    with pytest.raises(ValueError, match=r"00000: no samples; .*00000/final\.png"):
        find_samples(images, layout="final")
    for folder in images.iterdir():
        (folder / "samples" / "0000.png").rename(folder / "final.png")
        shutil.rmtree(folder / "samples")
    found = find_samples(images, layout="final")
    assert [(sample.image, sample.number) for sample in found[:2]] == [("00000/final.png", 0), ("00001/final.png", 0)]
    with pytest.raises(ValueError, match=r"00000: no samples; .*00000/final\.png .*layout=final"):
        find_samples(images)
    shutil.copy(images / "00003" / "final.png", images / "00003" / "final.jpg")
    with pytest.raises(ValueError, match=r"00003: final\.jpg and final\.png"):
        find_samples(images, layout="final")


def test_prompts_in_other_words_are_kept_beside_the_metadata(images):
    path = images / "00002" / "metadata.jsonl"
    row = json.loads(path.read_text()) | {"detailed_caption": "A crisp café scene", "index": 2}
    path.write_text(json.dumps(row))
    plain, rewritten = (read_folders(images)[index].samples[0] for index in (1, 2))
    assert plain.rewritten is None
    assert rewritten.rewritten == "A crisp café scene"
    assert json.loads(rewritten.metadata) == row
    assert rewritten.prompt.text == row["prompt"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": 1, "caption": "a dog"}, "tag is missing: GenEval's metadata has tag, include, prompt, not id, caption"),
        ({}, "tag is missing: GenEval's metadata has tag, include, prompt, not nothing"),
        ([{"tag": "colors"}], "expected a JSON object"),
        ({"detailed_caption": 3}, "detailed_caption must be a text, found 3"),
        ({"note": "\ud83d"}, "holds half of a character"),
    ],
)
def test_metadata_of_another_schema_is_refused(images, row, message):
    path = images / "00004" / "metadata.jsonl"
    complete = isinstance(row, dict) and row.keys() & {"detailed_caption", "note"}
    path.write_text(json.dumps((json.loads(path.read_text()) | row) if complete else row))
    with pytest.raises(ValueError, match=r"00004/metadata.jsonl: ") as error:
        find_samples(images)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_folders_that_are_no_numbers_are_refused_unless_hidden(images):
    (images / ".cache").mkdir()
    (images / "README.md").write_text("")
    assert len(find_samples(images)) == 24
    (images / "grids").mkdir()
    (images / "old").mkdir()
    with pytest.raises(ValueError, match=r"grids: .*named by numbers.*\(1 more"):
        find_samples(images)


def test_a_folder_without_images_is_refused_or_left_to_whoever_counts(images):
    shutil.rmtree(images / "00005" / "samples")
    with pytest.raises(ValueError, match="00005: no samples"):
        find_samples(images)
    assert [len(folder.samples) for folder in read_folders(images)] == [2] * 5 + [0] + [2] * 6


def test_a_reader_decodes_ahead_in_any_order_and_says_what_does_not_decode(images):
    names = [sample.image for sample in find_samples(images)]
    (images / names[3]).write_bytes(b"no image")
    with ImageReader(images, num_threads=3) as reader:
        reader.start(names[:6])
        reader.start(names[2:8])  # the first two are forgotten
        reader.go_on(names[20:])
        last, found, first = reader.take(names[23:]), reader.take(names[2:8]), reader.take(names[:1])
    assert [isinstance(image, np.ndarray) for image in (*last, *found, *first)] == [True, True, False, *[True] * 5]
    assert isinstance(found[1], UnreadableImage) and str(found[1]) == "not a PNG, JPEG or WebP image"
    with Image.open(images / names[2]) as image:
        assert (found[0] == np.asarray(image.convert("RGB"))).all()


def test_a_file_that_is_gone_is_no_broken_image(images):
    with ImageReader(images) as reader, pytest.raises(FileNotFoundError, match=r"0009.png"):
        reader.take(["00000/samples/0009.png"])
