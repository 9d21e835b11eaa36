"""Folders of images in any layout: whose image it is, in which order, and what is refused."""

import json

import numpy as np
import pytest

from genloop.data.images import encode_png
from genloop.data.pictures import Picture, find_images, find_pictures
from genloop.data.shards import Sample, write_shard
from genloop.records import Prompt
from tests.worlds.image_folders import small_set, write_images, write_pictures


def test_geneval_folders_bring_their_prompts(tmp_path):
    prompts = small_set()
    found = find_pictures(write_images(tmp_path, prompts))
    assert [(p.prompt, p.number) for p in found] == [(prompt, n) for prompt in prompts for n in range(2)]
    assert found[0].image == "00000/samples/0000.png"
    assert find_pictures(tmp_path, limit=3) == found[:3]


def test_metadata_of_other_kinds_give_their_text(tmp_path):
    write_pictures(tmp_path, "7/a.jpg", "10/samples/0.png", "10/samples/10.png", "10/samples/9.png")
    (tmp_path / "7" / "metadata.jsonl").write_text(json.dumps({"prompt": "a zebra ", "atoms": 3}))
    found = find_pictures(tmp_path)
    assert found[0] == Picture("7/a.jpg", Prompt(7, "a zebra"), 0)
    assert [p.image for p in found[1:]] == [f"10/samples/{n}.png" for n in (0, 9, 10)]
    assert {p.prompt for p in found[1:]} == {None}


def test_numbers_in_names_are_lines_of_the_prompt_file(tmp_path):
    write_pictures(tmp_path / "images", "00001_1.png", "00001_0.png", "00000.png", "1-10.webp")
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    found = find_pictures(tmp_path / "images", tmp_path / "prompts.txt")
    cat, dog = Prompt(0, "a cat"), Prompt(1, "a dog")
    assert [(p.image, p.prompt, p.number) for p in found] == [
        ("00000.png", cat, 0),
        ("00001_0.png", dog, 0),
        ("00001_1.png", dog, 1),
        ("1-10.webp", dog, 10),
    ]
    write_pictures(tmp_path / "folders", "0/x.png", "1/x.png")
    assert [p.prompt for p in find_pictures(tmp_path / "folders", tmp_path / "prompts.txt")] == [cat, dog]


@pytest.mark.parametrize("keys", [("image", "prompt"), ("file_name", "text")])
def test_rows_name_their_images(tmp_path, keys):
    write_pictures(tmp_path / "images", "dog.png", "cat.png")
    rows = [{keys[0]: "dog.png", keys[1]: "a dog"}, {keys[0]: "cat.png", keys[1]: "a cat"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = find_pictures(tmp_path / "images", tmp_path / "rows.jsonl")
    assert [(p.image, p.prompt) for p in found] == [("cat.png", Prompt(1, "a cat")), ("dog.png", Prompt(0, "a dog"))]


def test_images_of_shards_have_the_number_of_their_row_or_else_of_their_place(tmp_path):
    png = encode_png(np.zeros((8, 8, 3), dtype=np.uint8))
    rows = [{"prompt_index": 4, "sample": 1}, {"prompt_index": "4"}, {"prompt_index": None, "sample": "x"}, {}]
    texts = [json.dumps(row | {"prompt": "a dog"}).encode() for row in rows]
    write_shard(tmp_path / "0.tar", [Sample(f"{n}", {"png": png, "json": text}) for n, text in enumerate(texts)])
    assert [(p.prompt.index, p.number) for p in find_pictures(tmp_path)] == [(4, 1), (1, 0), (2, 0), (3, 0)]
    write_shard(tmp_path / "0.tar", [Sample("0", {"png": png, "json": b'{"prompt_index": -1}'})])
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    with pytest.raises(ValueError, match="no line -1"):
        find_pictures(tmp_path, tmp_path / "prompts.txt")


def test_a_reference_is_every_image_below_a_folder(tmp_path):
    write_pictures(tmp_path, "b/2.png", "a.jpg", "b/c/1.webp", "b/.hidden.png", "b/.thumbnails/1.webp", "b/text.txt")
    assert [p.image for p in find_images(tmp_path)] == ["a.jpg", "b/2.png", "b/c/1.webp"]
    assert len(find_images(tmp_path, limit=2)) == 2


@pytest.mark.parametrize(
    ("names", "prompts"),
    [
        (("0/samples/0000.png", "0/samples/0000.jpg"), None),
        (("0/0.png", "0/00.png", "0/other.png"), None),
        (("0/x.png", "00/x.png"), None),
        (("00000.png", "0.png"), "prompts.txt"),
        (("0_1.png", "0_01.jpg"), "prompts.txt"),
        (("0_a.png", "0_b.png"), "prompts.txt"),
    ],
)
def test_two_images_of_one_number_are_refused(tmp_path, names, prompts):
    write_pictures(tmp_path / "images", *names)
    (tmp_path / "prompts.txt").write_text("a cat\n")
    with pytest.raises(ValueError, match=r"images.* are the same number"):
        find_pictures(tmp_path / "images", tmp_path / prompts if prompts else None)


def test_images_keep_the_numbers_of_their_names(tmp_path):
    write_pictures(tmp_path, "0/samples/0000.png", "0/samples/0002.png", "1/a.png", "1/7.png")
    assert [(p.image, p.number) for p in find_pictures(tmp_path)] == [
        *(("0/samples/0000.png", 0), ("0/samples/0002.png", 2), ("1/7.png", 0), ("1/a.png", 1))
    ]


@pytest.mark.parametrize("suffix", ["bmp", "TIFF", "gif"])
def test_images_of_formats_that_are_not_read_are_refused(tmp_path, suffix):
    write_pictures(tmp_path, "0.png", f"1.{suffix}")
    for find in (find_images, find_pictures):
        with pytest.raises(ValueError, match=rf"1\.{suffix}: images are read as"):
            find(tmp_path)
