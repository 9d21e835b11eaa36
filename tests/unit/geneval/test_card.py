"""The regime card: what generate wrote into its images is read back wherever they lie; what differs is said."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from geneval.card import remarks, result_card
from geneval.detectors.mask2former import Mask2FormerMaker, Mask2FormerOptions
from geneval.folder import find_samples
from genloop import rundir
from genloop.job import run_command
from genloop.ledger import read_rows
from genloop.report import write_report
from genloop.runs.evaluations import read_evaluation
from genloop.runs.provenance import UPPER_BOUND, image_chunk, is_upper_bound, read_chunk, regime_of
from genloop.runs.rows import GeneratedRow
from genloop.stats.comparison.compare import compare
from genloop.stats.comparison.regime import differing
from genloop.stats.comparison.tables import markdown
from jobs import evaluate, generate
from tests.worlds.image_folders import small_set, write_images
from tests.worlds.tiny_mask2former import SCALE, mask2former_folder

OWN = GeneratedRow.model_construct(prompt="a café", prompt_index=3, sample=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of generate over twelve prompts."""
    out = tmp_path_factory.mktemp("made") / "run"
    words = ["tiny", f"out={out}", "sampling.steps=3", "images_per_prompt=1", "search.strategy=best_of_n", "search.n=2"]
    assert run_command(generate, words) == 0
    return out


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "images", small_set())


def chunk(path, text, keyword="genloop"):
    """Write an image again, with a text chunk."""
    texts = PngImagePlugin.PngInfo()
    texts.add_text(keyword, text)
    with Image.open(path) as image:
        image.copy().save(path, pnginfo=texts)


def card_of(images, out):
    assert run_command(evaluate, ["tiny", f"images={images}", f"out={out}"]) == 0
    found = json.loads((out / "card.json").read_text())
    assert json.loads((out / "summary.json").read_text())["card"] == found
    return found


def test_images_of_generate_say_how_they_were_made_wherever_they_lie(made, tmp_path):
    shutil.copytree(made / "images", tmp_path / "elsewhere")
    here, there = card_of(made, tmp_path / "a"), card_of(tmp_path / "elsewhere", tmp_path / "b")
    assert here == there
    images = here["images"]
    assert {key: images[key] for key in ("source", "by", "steps", "guidance", "strategy", "n", "seeds", "size")} == {
        "source": "the images' own metadata",
        "by": "genloop generate",
        "steps": 3,
        "guidance": 1.75,
        "strategy": "best_of_n",
        "n": 2,
        "seeds": [0],
        "size": [[24, 24]],
    }
    assert images["judge"] == {"kind": "shapes_oracle"}
    inputs = rundir.read_run(made)["inputs"]
    assert images["weights"] == {
        f"model.{name}": inputs[f"generator.options.{name}"] for name in ("showo", "tokenizer")
    }
    metadata = rundir.sha256_file(Path("configs/prompts/shapes_tiny/evaluation_metadata.jsonl"))
    assert images["prompts"] == metadata  # the folders hold its lines
    assert here["detector"] == {"kind": "shapes", "options": {}, "weights": {}}
    assert here["canary"] == {"detector": "as recorded", "colors": "as recorded"}
    assert here["options"]["threshold"] == 0.3
    assert here["code"]["genloop"] and len(here["code"]["digest"]) == 64


def test_an_image_says_nothing_of_the_run_that_does_not_decide_it(made):
    text = next(iter(sorted(made.rglob("images/*/samples/*.png"))))
    with Image.open(text) as image:
        found = json.loads(image.info["genloop"])
    assert (found["prompt"], found["prompt_index"], found["sample"]) == (next(read_rows(made))["prompt"], 0, 0)
    assert found.keys().isdisjoint({"out", "limit", "unit_size", "threads"})
    assert regime_of(rundir.read_run(made)) == read_chunk(text)


def test_images_without_metadata_lie_in_the_run_that_made_them(made, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(made, copy)
    for path in copy.rglob("images/*/samples/*.png"):
        with Image.open(path) as image:
            pixels = image.copy()
        pixels.info.clear()
        pixels.save(path)
    images = card_of(copy, tmp_path / "verdicts")["images"]
    assert (images["source"], images["steps"]) == ("the run of generate around them", 3)


def test_images_of_nobody_are_of_unknown_regime(images, tmp_path):
    found = card_of(images, tmp_path / "run")["images"]
    assert found["source"] == "unknown"
    assert found.keys().isdisjoint({"steps", "guidance", "seeds", "strategy"})
    assert (found["num_prompts"], found["num_images"], found["samples_per_prompt"]) == (12, 24, [2])
    (images.parent / "run.json").write_text("{}")  # of some other program
    assert card_of(images, tmp_path / "again")["images"] == found


def test_images_that_were_made_in_different_ways_are_said_to_be(images, tmp_path, capsys):
    mark = {"keys": {"sampling.steps": 18, "sampling.guidance_scale": 1.75, "seed": 0, "search.strategy": "none"}}
    for place, sample in enumerate(find_samples(images)):
        keys = mark["keys"] | {"seed": place % 3, "sampling.guidance_scale": 1.75 if place < 20 else 5}
        chunk(images / sample.image, image_chunk(regime_of({"keys": keys}), OWN))
    found = card_of(images, tmp_path / "run")
    assert found["images"]["mixed"] == {"guidance": [1.75, 5]}
    assert (found["images"]["steps"], found["images"]["seeds"]) == (18, [0, 1, 2])
    assert "guidance" not in found["images"]
    line = "images were not all made in one way: they differ in guidance"
    assert remarks(found) == [line] and line in capsys.readouterr().out


SEARCH = {"search.strategy": "best_of_n", "search.n": 4}
BY_SHAPES = {"judge.kind": "geneval", "judge.options.detector.kind": "shapes"}
MEMBER = {"judge.kind": "ensemble"} | {f"judge.options.members.1.{key[6:]}": kind for key, kind in BY_SHAPES.items()}


@pytest.mark.parametrize(
    ("keys", "is_bound"),
    [
        (SEARCH | {"judge.kind": "shapes_oracle"}, True),
        (SEARCH | BY_SHAPES, True),
        (SEARCH | MEMBER, True),
        (SEARCH | BY_SHAPES | {"judge.options.detector.kind": "hf_mask2former"}, False),
        (SEARCH | {"judge.kind": "llava"}, False),
        ({"search.strategy": "none", "judge.kind": "shapes_oracle"}, False),
    ],
    ids=["oracle", "geneval", "member", "another detector", "another judge", "no search"],
)
def test_a_search_by_the_evaluator_is_an_upper_bound(images, tmp_path, capsys, keys, is_bound):
    for sample in find_samples(images):
        chunk(images / sample.image, image_chunk(regime_of({"keys": keys}), OWN))
    found = card_of(images, tmp_path / "run")
    assert is_upper_bound(found) == is_bound
    assert (f"images were {UPPER_BOUND}" in capsys.readouterr().out) == is_bound
    one = read_evaluation(tmp_path / "run")
    assert markdown(compare(one, one, 0, num_resamples=100), ("x", "y"), []).count(f"was {UPPER_BOUND}") == 2 * is_bound
    page = write_report([tmp_path / "run"], tmp_path / "report")
    assert [UPPER_BOUND in (page.parent / name).read_text() for name in ("index.html", "table.md")] == [is_bound] * 2


def test_every_one_of_many_seeds_counts(images, tmp_path):
    cards = []
    for last in (1000, 1001):
        for place, sample in enumerate(find_samples(images)):
            mark = {"keys": {"seed": last if place == 23 else place}}
            chunk(images / sample.image, image_chunk(regime_of(mark), OWN))
        cards.append(card_of(images, tmp_path / str(last)))
    seeds = cards[0]["images"]["seeds"]
    assert (seeds["count"], seeds["first"]) == (24, list(range(20)))
    assert [one.name for one in differing(*cards)] == ["seeds.sha256"]


def test_some_images_with_metadata_are_not_all(images, tmp_path):
    chunk(images / "00000/samples/0000.png", image_chunk(regime_of({}), OWN))
    found = card_of(images, tmp_path / "run")["images"]
    assert found["source"] == "the own metadata of 1 of 24 images"


def test_what_other_tools_write_into_pngs_is_read(images):
    path = images / "00000/samples/0000.png"
    text = (
        "a photo of a dog\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 5, Size: 24x24"
    )
    chunk(path, text, "parameters")
    assert read_chunk(path) == {
        "by": "PNG parameters",
        "steps": 20,
        "guidance": 7.5,
        "sampler": "Euler a",
        "seed": 5,
    }


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "no JSON at all"])
def test_a_chunk_that_is_not_ours_says_nothing(images, text):
    path = images / "00000/samples/0000.png"
    chunk(path, text)
    assert read_chunk(path) is None
    path.write_bytes(path.read_bytes()[:20])
    assert read_chunk(path) is None


def test_rewritten_prompts_are_labelled(images, tmp_path, capsys):
    path = images / "00002" / "metadata.jsonl"
    row = json.loads(path.read_text()) | {"detailed_caption": "Two café chairs, ten metres apart", "index": 2}
    path.write_text(json.dumps(row))
    found = card_of(images, tmp_path / "run")
    assert found["images"]["rewritten"] is True
    assert "images were made from rewritten prompts: not comparable" in capsys.readouterr().out
    rows = list(read_rows(tmp_path / "run"))
    assert [row["prompt_source"] for row in rows[2:6]] == ["prompt", "prompt", "rewritten", "rewritten"]
    assert (rows[4]["rewritten_prompt"], rows[4]["prompt"], rows[4]["metadata"]) == (
        row["detailed_caption"],
        row["prompt"],
        row,
    )
    assert "rewritten_prompt" not in rows[0]


@pytest.mark.parametrize(("version", "effective"), [("2.x", "mmdet2"), ("3.x", "mmdet3")])
def test_what_the_folder_of_a_detector_decides_is_on_the_card(images, tmp_path, version, effective):
    folder = mask2former_folder(tmp_path / "weights", version=version)
    line = '{"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}'
    (images / "00000" / "metadata.jsonl").write_text(line)
    words = [f"detector.options.checkpoint={folder}", "colors=shapes", "canary=off"]
    words += ["limit=1", "expect.prompts=null", f"images={images}"]
    cards = []
    for name, more in (("a", []), ("b", [f"detector.options.preprocess={effective}"])):
        assert run_command(evaluate, ["geneval", *words, *more, f"out={tmp_path / name}"]) == 0
        cards.append(json.loads((tmp_path / name / "card.json").read_text()))
    file = folder.with_suffix(".pth")
    assert cards[0]["detector"]["options"] == {"preprocess": effective}
    assert cards[0]["detector"]["facts"] == {
        "scale": list(SCALE),
        "source": {"file": file.name, "sha256": rundir.sha256_file(file), "mmdet": version},
    }
    assert cards[0]["detector"] == cards[1]["detector"] and "facts" not in cards[0]["colors"]
    assert rundir.read_run(tmp_path / "a")["keys"]["detector.options.preprocess"] is None


def test_a_folder_that_nobody_converted_is_prepared_for_as_by_default(tmp_path):
    options = Mask2FormerOptions(checkpoint=str(tmp_path))
    assert Mask2FormerMaker.facts(options, Path) == {"preprocess": "mmdet3", "scale": [1333, 800]}
    (tmp_path / "conversion.json").write_text('{"preprocess": "mmdet2", "scale": [8, 9], "source": "a.pth"}')
    with pytest.raises(ValueError, match=r"conversion\.json: source is 'a\.pth'"):
        Mask2FormerMaker.facts(options, Path)


def test_a_card_without_a_run_is_still_a_card(images, tmp_path):
    found = result_card(tmp_path, images, find_samples(images), [])
    assert found["detector"] == {"kind": None, "options": {}, "weights": {}}
    assert found["canary"] == {"detector": "not run", "colors": "not run"}
