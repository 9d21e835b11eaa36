"""Captions of mirrored images stay true: by the rules of GenEval on scenes, by hand on sentences of the world."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from geneval.judging import judge_images
from geneval.settings import Evaluator
from geneval.verdict import VerdictOptions
from genloop.data.latents.buckets import Size
from genloop.data.latents.cache import latent_key
from genloop.data.latents.examples import CaptionedImages
from genloop.data.latents.mirror import mirrored_caption
from genloop.data.prompts import caption
from genloop.data.shards import Shards
from genloop.records import Clause
from genloop.shapes.detector import ShapesDetector
from genloop.shapes.render import render
from genloop.shapes.samples import draw
from tests.worlds.captioned_images import fields_of, write_images

TRUE = {
    "a cat left of a dog": "a cat right of a dog",
    "A dog on the right, a cat on the left.": "A dog on the left, a cat on the right.",
    "Left of the tree stands a man facing right": "Right of the tree stands a man facing left",
    "the leftmost chair at the right-hand wall": "the rightmost chair at the left-hand wall",
    "a bird in the upper left corner": "a bird in the upper right corner",
    "a hand on her left arm": "a hand on her right arm",
    "two apples above a plate": "two apples above a plate",
    "": "",
}
UNKNOWN = [
    "a shoe of the right size",
    "a dog left alone",
    "it is right behind the house",
    'a shop with the word "OPEN"',
    "a street sign left of a tree",
    "a clock on the left",
    "a right-handed player",
    "the flag of Sweden",
]


@pytest.mark.parametrize("text", TRUE)
def test_left_and_right_change_places_and_back(text: str) -> None:
    assert mirrored_caption(text) == TRUE[text] and mirrored_caption(TRUE[text]) == text


@pytest.mark.parametrize("text", UNKNOWN)
def test_what_a_mirror_would_make_false_is_not_mirrored(text: str) -> None:
    assert mirrored_caption(text) is None


def test_mirrored_scenes_are_correct_for_mirrored_captions_by_genevals_rules() -> None:
    drawn = [draw(0, index, [0, 1, 0, 0, 3, 1]) for index in range(60)]
    drawn = [(prompt, scene) for prompt, scene in drawn if all(thing.shape != "moon" for thing in scene)]  # looks right
    images = [image[:, ::-1].copy() for image in render([scene for _, scene in drawn])]
    other = {"left of": "right of", "right of": "left of"}

    def turned(clause: Clause) -> Clause:
        if clause.position is None:
            return clause
        return replace(clause, position=(other.get(clause.position[0], clause.position[0]), clause.position[1]))

    prompts = []
    for prompt, _ in drawn:
        include = tuple(map(turned, prompt.include))
        prompts.append(replace(prompt, include=include, text=str(mirrored_caption(prompt.text))))
        assert prompts[-1].text == caption(prompt.tag, include)
    judged = judge_images(images, prompts, Evaluator(ShapesDetector(), ShapesDetector(), VerdictOptions()))
    assert len(judged) > 30 and all(found.verdict.correct for found in judged)
    changed = [number for number, (prompt, _) in enumerate(drawn) if prompt.text != prompts[number].text]
    stale = judge_images([images[n] for n in changed], [drawn[n][0] for n in changed],
                         Evaluator(ShapesDetector(), ShapesDetector(), VerdictOptions()))  # fmt: skip
    assert len(changed) > 5 and not any(found.verdict.correct for found in stale), "the old captions are false"


def test_mirror_images_follow_their_originals_under_keys_of_their_own(tmp_path: Path) -> None:
    texts = {0: "a cat left of a dog", 1: "a clock", 2: "a tree"}
    fields = {n: fields_of(n, (24, 24)) | {"txt": text.encode()} for n, text in texts.items()}
    shards = Shards(write_images(tmp_path, [(24, 24)] * 3, other=fields))
    plain, both = (CaptionedImages(shards, [Size(24, 24)], mirror=mirror) for mirror in (False, True))
    assert both.examples[:3] == plain.examples and both.source.tolist() == [0, 1, 2, 0, 2]
    assert [both.captions[both[n].caption] for n in (3, 4)] == ["a cat right of a dog", "a tree"]
    assert np.array_equal(both.pixels(3), plain.pixels(0)[:, ::-1])
    assert len({latent_key(example, "vae", "mode") for example in both.examples}) == 5
    assert latent_key(both[0], "vae", "mode") == latent_key(plain[0], "vae", "mode")
