"""GenEval as a reward: any kind of image and prompt gives the same; partial credit is 1 where a verdict is correct."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from geneval.evaluation import evaluate
from geneval.folder import find_samples
from geneval.judge import ShapesOracle, VerdictJudge
from geneval.judging import Judged, NamedColors
from geneval.reward import GenevalReward, Reward, partial_credit, preference_pairs
from geneval.settings import DetectorSettings
from geneval.verdict import VerdictOptions, color_requests, judge_objects
from genloop.data.image_reader import read_image
from genloop.data.images import encode_png
from genloop.job import run_command
from genloop.ledger import read_rows
from genloop.records import COLORS, RELATIONS, Clause, Detection, Prompt
from genloop.rewards.build import build_judge, check_judge, check_prompts, judge_classes
from genloop.rewards.settings import JudgeSettings
from genloop.shapes.scenes import SHAPES
from jobs import generate
from tests.worlds.counting_judges import images_of
from tests.worlds.image_folders import small_set, torn_avif, write_images

OPTIONS = VerdictOptions()


def reward() -> GenevalReward:
    return GenevalReward.load(detector="shapes", colors="shapes")


def objects_of(name: str, count: int, *, first_x: int = 0) -> list[Detection]:
    return [Detection(name, 0.99, (first_x + 40 * k, 0, first_x + 40 * k + 10, 10)) for k in range(count)]


def judged(prompt: Prompt, objects: dict, colors: dict[int, list[str]]) -> Judged:
    """As `judge_images` would, with colours that were named by hand."""
    asked = color_requests(prompt, objects)
    named = {clause: colors[clause][: len(asked[clause])] for clause in asked}
    parts = tuple(NamedColors(clause, tuple(names), (1.0,) * len(names)) for clause, names in named.items())
    return Judged(judge_objects(prompt, objects, named, OPTIONS), objects, parts, None)


def credit(prompt: Prompt, objects: dict, colors: dict[int, list[str]] | None = None) -> float:
    return partial_credit(prompt, judged(prompt, objects, colors or {}), OPTIONS)


def counting(count: int) -> Prompt:
    return Prompt(0, "cats", "counting", (Clause("cat", count),), (Clause("cat", count + 1),))


@pytest.mark.parametrize(("found", "share"), [(0, 0), (1, 1 / 4), (3, 3 / 4), (4, 1), (5, 4 / 5), (8, 4 / 8)])
def test_of_four_cats_each_counts_and_each_beyond_counts_against(found, share):
    assert credit(counting(4), {"cat": objects_of("cat", found)} if found else {}) == share


def test_colours_count_once_their_objects_are_found():
    prompt = Prompt(0, "", "colors", (Clause("cat", 2, "red"), Clause("dog", 1, "blue")))
    two, one = objects_of("cat", 2), objects_of("dog", 1)
    assert credit(prompt, {"cat": two, "dog": one}, {0: ["red", "red"], 1: ["blue"]}) == 1
    assert credit(prompt, {"cat": two, "dog": one}, {0: ["red", "pink"], 1: ["blue"]}) == 5 / 6
    assert credit(prompt, {"cat": two, "dog": one}, {0: ["blue", "pink"], 1: ["red"]}) == 3 / 6
    assert credit(prompt, {"cat": two[:1], "dog": one}, {0: ["red", "red"], 1: ["blue"]}) == 3 / 6


def test_a_relation_counts_as_one_atom():
    prompt = Prompt(0, "", "position", (Clause("dog", 1), Clause("cat", 1, position=("left of", 0))))
    left, right = objects_of("cat", 1), objects_of("dog", 1, first_x=100)
    assert credit(prompt, {"cat": left, "dog": right}) == 1
    assert credit(prompt, {"cat": objects_of("cat", 1, first_x=200), "dog": right}) == 2 / 3
    assert credit(prompt, {"cat": left}) == 1 / 3


@st.composite
def cases(draw) -> tuple[Prompt, dict, dict]:
    names = ("cat", "dog", "bus")
    include = []
    for number in range(draw(st.integers(1, 3))):
        position = (draw(st.sampled_from(RELATIONS)), draw(st.integers(0, number - 1))) if number else None
        color = draw(st.none() | st.sampled_from(COLORS[:2]))
        position = draw(st.sampled_from([None, position]))
        include.append(Clause(draw(st.sampled_from(names)), draw(st.integers(1, 3)), color, position))
    exclude = tuple(Clause(name, draw(st.integers(1, 4))) for name in draw(st.sets(st.sampled_from(names))))
    places = st.tuples(st.integers(0, 90), st.integers(0, 90))
    objects = {
        name: [Detection(name, 0.99, (x, y, x + 9, y + 9)) for x, y in draw(st.lists(places, min_size=1, max_size=4))]
        for name in sorted(draw(st.sets(st.sampled_from(names))))
    }
    colors = {number: draw(st.lists(st.sampled_from(COLORS[:2]), min_size=3, max_size=3)) for number in range(3)}
    return Prompt(0, "", "counting", tuple(include), exclude), objects, colors


@settings(max_examples=300, deadline=None)
@given(cases())
def test_partial_credit_is_1_exactly_where_the_verdict_is_correct(case):
    prompt, objects, colors = case
    found = judged(prompt, objects, colors)
    share = partial_credit(prompt, found, OPTIONS)
    assert 0 <= share <= 1
    assert (share == 1) == found.verdict.correct


def test_drawing_one_more_wanted_object_raises_the_credit_and_one_too_many_lowers_it():
    shares = [credit(counting(3), {"cat": objects_of("cat", found)}) for found in range(1, 7)]
    assert shares == sorted(shares[:3]) + sorted(shares[3:], reverse=True)
    assert len(set(shares)) == 6


def test_every_kind_of_image_and_prompt_earns_the_same(tmp_path):
    prompts = small_set()
    tensor = images_of(prompts).roll(1, dims=0)
    arrays = (tensor.permute(0, 2, 3, 1) * 255).to(torch.uint8).numpy()
    paths = [tmp_path / f"{index}.png" for index in range(len(prompts))]
    for path, array in zip(paths, arrays):
        path.write_bytes(encode_png(array))
    judge = reward()
    expected = judge(tensor, prompts)
    assert {one.strict for one in judge(images_of(prompts), prompts)} == {True}
    assert {one.strict for one in expected} == {False} and len({one.partial for one in expected}) > 2
    for images in (list(tensor), arrays, list(arrays), [Image.fromarray(a) for a in arrays], paths, map(str, paths)):
        assert judge(list(images), prompts) == expected
    for given_as in ([p.metadata() for p in prompts], [json.dumps(p.metadata()) for p in prompts]):
        assert judge(tensor, given_as) == expected
    assert judge(tensor[0], prompts[0]) == judge(paths[0], prompts[0].metadata()) == expected[0]  # one alone


def test_images_of_pillow_are_turned_as_files_are(tmp_path):
    (prompt,) = [prompt for prompt in small_set() if prompt.tag == "position"][:1]
    pixels = (images_of([prompt])[0].permute(1, 2, 0) * 255).to(torch.uint8).numpy()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(np.rot90(pixels)).save(tmp_path / "turned.png", exif=exif)
    judge = reward()
    assert judge([tmp_path / "turned.png"], [prompt])[0].strict
    with Image.open(tmp_path / "turned.png") as image:
        assert judge([image], [prompt])[0].strict


def test_a_reward_does_not_depend_on_the_images_beside_it_and_says_what_evaluate_says(tmp_path):
    folder = write_images(tmp_path / "images", small_set())
    samples = find_samples(folder)
    judge = reward()
    together = judge([folder / s.image for s in samples], [s.prompt for s in samples])
    alone = [judge([folder / s.image], [s.prompt])[0] for s in samples]
    rows = evaluate(samples, folder, judge.evaluator)
    assert together == alone
    assert [(r.strict, "\n".join(r.reasons)) for r in together] == [(row.correct, row.reason) for row in rows]
    words = ShapesOracle().reasons(
        [s.prompt for s in samples],
        torch.from_numpy(np.stack([read_image(folder / s.image) for s in samples])).permute(0, 3, 1, 2) / 255,
    )
    assert [r.words for r in together] == words


def test_a_file_that_does_not_decode_earns_nothing(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    (broken,) = reward()([tmp_path / "a.png"], small_set()[:1])
    assert broken == Reward(False, 0.0, ("unreadable: not a PNG, JPEG or WebP image",), "unreadable")


NOISE = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)


@pytest.mark.parametrize("content", [encode_png(NOISE)[:400], torn_avif()], ids=["png", "avif"])
def test_an_image_of_pillow_that_does_not_decode_earns_nothing(content):
    whole, broken = reward()([NOISE, Image.open(io.BytesIO(content))], small_set()[:1] * 2)
    assert broken.words == "unreadable" and broken.reasons[0].startswith("unreadable: ") and broken.partial == 0
    assert whole.words != "unreadable"


IMAGE = np.zeros((8, 8, 3), dtype=np.uint8)
PROMPT = {"tag": "single_object", "include": [{"class": "circle", "count": 1}], "prompt": "a photo of a circle"}


@pytest.mark.parametrize(
    ("images", "prompts", "line"),
    [
        ([IMAGE], [], "one prompt per image: found 1 images, 0 prompts"),
        ([IMAGE], ["a circle"], r"prompts\[0\]: 'a circle' is text alone; give its GenEval metadata"),
        ([IMAGE], [Prompt(3, "a circle")], r"prompts\[0\]: 'a circle' has no GenEval metadata"),
        ([IMAGE], ["{"], r"prompts\[0\]: broken JSON"),
        ([IMAGE], [{**PROMPT, "tag": "counts"}], r"prompts\[0\]: unknown task 'counts'"),
        ([IMAGE], [{**PROMPT, "include": [{"class": "dog", "count": 1}]}], r"include\[0\].class: unknown class 'dog'"),
        ([IMAGE[..., 0]], [PROMPT], r"images\[0\]: an array must be \(H, W, 3\) uint8, found uint8 \(8, 8\)"),
        ([IMAGE / 255], [PROMPT], r"images\[0\]: an array must be .* found float64 \(8, 8, 3\); a float image"),
        ([IMAGE[:0]], [PROMPT], r"images\[0\]: an array must be .* found uint8 \(0, 8, 3\)"),
        ([IMAGE], [{**PROMPT, 5: 1}], r"prompts\[0\]: keys must be texts, found 5"),
        ([IMAGE], [{**PROMPT, "tag": {1}}], r"prompts\[0\]: tag must be a text, found \"\{1\}\""),
        (torch.zeros(1, 3, 0, 8), [PROMPT], r"a tensor must be \(3, H, W\) of floats, found \(3, 0, 8\)"),
        ([3], [PROMPT], r"images\[0\]: an array must be \(H, W, 3\) uint8, found int"),
        (torch.full((1, 3, 8, 8), 255.0), [PROMPT], r"images\[0\]: values must lie in \[0, 1\], found 255 to 255"),
        (torch.full((1, 3, 8, 8), -1.0), [PROMPT], r"values must lie in \[0, 1\], found -1 to -1; scale them"),
        (torch.full((1, 3, 8, 8), torch.nan), [PROMPT], r"values must lie in \[0, 1\], found nan to nan"),
        (torch.zeros(1, 8, 8, 3), [PROMPT], r"a tensor must be \(3, H, W\) of floats, found \(8, 8, 3\)"),
    ],
)
def test_what_is_no_image_or_no_prompt_is_refused_in_one_line(images, prompts, line):
    with pytest.raises(ValueError, match=line) as caught:
        reward()(images, prompts)
    assert "\n" not in str(caught.value)


def test_files_and_parts_that_are_not_there_are_refused_in_one_line():
    with pytest.raises(FileNotFoundError, match=r"images\[0\]: .*none\.png"):
        reward()(["none.png"], [PROMPT])
    for detector in ("shape", {"kind": "shape"}):
        with pytest.raises(ValueError, match=r"^detector\.kind: .*'shape'; .*'shapes'"):
            GenevalReward.load(detector=detector, colors="shapes")
    with pytest.raises(ValueError, match=r"^options\.treshold: .*'threshold'"):
        GenevalReward.load(detector="shapes", colors="shapes", options={"treshold": 0.2})


def test_parts_are_named_by_a_word_a_mapping_or_settings():
    prompts = small_set()
    images = images_of(prompts)
    nothing = VerdictOptions(threshold=1.0, counting_threshold=1.0)  # no score is above 1
    for detector in ("shapes", {"kind": "shapes"}, DetectorSettings(kind="shapes")):
        judge = GenevalReward.load(detector=detector, colors="shapes", options=nothing)
        assert not any(one.strict for one in judge(images, prompts))


def test_pairs_are_the_best_and_the_worst_of_a_prompt():
    shares = [0.5, 1.0, 0.25, 0.5, 0.5, 0.75, 0.5]
    rewards = [Reward(share == 1, share, (), "") for share in shares]
    prompts = ["a", "a", "a", "b", "b", "c", "c"]
    assert preference_pairs(rewards, prompts) == [(1, 2), (5, 6)]
    assert preference_pairs(rewards, prompts, margin=0.25) == [(1, 2)]


def judge_settings(**options) -> JudgeSettings:
    return JudgeSettings(kind="geneval", options={"detector": "shapes", "colors": "shapes", **options})


def test_as_a_judge_it_answers_the_outcome_strictly_or_in_part():
    prompts = small_set()
    images = images_of(prompts, shift=1)
    expected = reward()(images, prompts)
    strict, partial = (build_judge(judge_settings(credit=credit), Path) for credit in ("strict", "partial"))
    assert strict.p_yes("outcome", prompts, images).tolist() == [float(one.strict) for one in expected]
    assert partial.p_yes("outcome", prompts, images).tolist() == pytest.approx([one.partial for one in expected])
    assert strict.reasons(prompts, images) == [one.words for one in expected]
    assert strict.p_yes("outcome", prompts, images).equal(ShapesOracle().p_yes("outcome", prompts, images))


def test_as_a_judge_it_needs_metadata_of_classes_that_its_detector_knows():
    settings = judge_settings()
    check_judge(settings, Path, ["outcome", "reason"])
    assert tuple(judge_classes(settings)) == SHAPES
    with pytest.raises(ValueError, match=r"'geneval' .*metadata"):
        check_prompts(settings, [Prompt(0, "a dog")])
    with pytest.raises(ValueError, match=r"'geneval' answers .*not clarity"):
        check_judge(settings, Path, ["clarity"])


def test_the_oracle_takes_prompts_of_classes_that_it_does_not_know():
    prompt = replace(small_set()[0], include=(Clause("dog", 1),))
    image = images_of(small_set())[:1]
    assert isinstance(ShapesOracle(), VerdictJudge)
    assert ShapesOracle().p_yes("outcome", [prompt], image).tolist() == [0.0]


def test_a_search_by_partial_credit_never_chooses_less_than_another_candidate_has(tmp_path):
    words = ["tiny", "search.strategy=best_of_n", "search.n=3", "limit=6", "images_per_prompt=1", "sampling.steps=6"]
    judge = ["judge.kind=geneval", "judge.options.detector=shapes", "judge.options.colors=shapes"]
    for credit in ("strict", "partial"):
        out = tmp_path / credit
        assert run_command(generate, [*words, *judge, f"judge.options.credit={credit}", f"out={out}"]) == 0
        for row in read_rows(out):
            shares = outcomes(row)
            assert shares[row["chosen"]] == max(shares)
    assert {share % 1 for row in read_rows(tmp_path / "strict") for share in outcomes(row)} == {0}
    assert any(share % 1 for row in read_rows(tmp_path / "partial") for share in outcomes(row))
    assert run_command(generate, [*words, f"out={tmp_path / 'oracle'}"]) == 0
    chosen = [[row["tokens"] for row in read_rows(tmp_path / name)] for name in ("oracle", "strict")]
    assert chosen[0] == chosen[1]


def outcomes(row: dict) -> list[float]:
    return [candidate["p_yes"]["outcome"] for candidate in row["candidates"]]
