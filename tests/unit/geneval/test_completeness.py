"""What a folder lacks of what is expected is named: prompts, folders, numbers of images, tasks."""

import json
import shutil

import pytest

from geneval.completeness import ExpectSettings, check_complete, compare, expected_prompts
from geneval.folder import read_folders
from genloop.data.prompts import write_prompts
from tests.worlds.image_folders import small_set, write_images


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "images", small_set())


@pytest.fixture
def prompts(tmp_path):
    """The metadata file of the prompts in the folder."""
    return str(write_prompts(tmp_path / "prompts", small_set())[1])


def lacks(images, limit=None, **expect):
    return compare(read_folders(images, limit=limit), ExpectSettings(**expect), limit)


def test_a_complete_folder_lacks_nothing(images, prompts):
    for expect in ({}, {"images_per_prompt": 2}, {"prompts": prompts}, {"prompts": prompts, "images_per_prompt": 2}):
        found = lacks(images, **expect)
        assert found.lines() == [] and found.to_json()["complete"]
        check_complete(images, found)


def test_prompts_are_matched_by_what_they_say_not_by_the_number_of_their_folder(images, prompts):
    for folder in sorted(images.iterdir(), reverse=True):
        folder.rename(images / str(int(folder.name) + 1000))
    assert lacks(images, prompts=prompts).lines() == []


def test_an_unequal_number_of_images_is_named(images):
    (images / "00003" / "samples" / "0001.png").unlink()
    assert lacks(images).lines() == ["1 folder without exactly 2 images: 00003 has 1"]
    found = lacks(images, images_per_prompt=4)
    assert found.lines() == [
        "12 folders without exactly 4 images: 00000 has 2, 00001 has 2, 00002 has 2, 00003 has 1 and 8 more"
    ]
    with pytest.raises(ValueError, match=r"images: 12 .*exactly 4 .*expect\.on_missing=report"):
        check_complete(images, found)


def test_missing_extra_and_doubled_folders_are_named(images, prompts):
    shutil.rmtree(images / "00000")
    shutil.copytree(images / "00004", images / "00012")
    path = images / "00005" / "metadata.jsonl"
    path.write_text(path.read_text().replace("a photo of", "a drawing of"))
    found = lacks(images, prompts=prompts)
    assert found.extra_folders == ("00005", "00012")
    assert found.missing_prompts == (small_set()[0].text, small_set()[5].text)
    assert found.to_json()["complete"] is False
    assert [line.partition(":")[0] for line in found.lines()] == [
        "2 expected prompts without a folder",
        "2 folders of a prompt that is not expected, or that is there twice",
    ]


def test_a_missing_task_is_named_unless_only_a_part_was_asked_for(images):
    for folder in images.iterdir():
        if json.loads((folder / "metadata.jsonl").read_text())["tag"] == "position":
            shutil.rmtree(folder)
    assert lacks(images).lines() == ["no prompts of position"]
    assert lacks(images, limit=3).lines() == []


def test_the_published_prompts_have_a_name(images):
    assert len(expected_prompts("geneval")) == 553
    found = lacks(images, prompts="geneval")
    assert len(found.missing_prompts) == 553 and len(found.extra_folders) == 12
    assert found.missing_tasks == ()  # all six have prompts here
    assert len(lacks(images, prompts="geneval", limit=3).missing_prompts) == 3


def test_a_file_of_prompts_may_be_texts_beside_their_metadata(images, prompts):
    texts = prompts.replace("evaluation_metadata.jsonl", "generation_prompts.txt")
    assert expected_prompts(texts) == expected_prompts(prompts) == small_set()
    with pytest.raises(FileNotFoundError, match=r"expect\.prompts: nowhere\.txt"):
        expected_prompts("nowhere.txt")
