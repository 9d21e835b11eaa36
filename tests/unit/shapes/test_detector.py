"""The detector is right on every real scene and calm on anything else."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genloop.records import COLORS, TAGS, Detection, color_names
from genloop.shapes.detector import MIN_SCORE, ShapesDetector, nearest_colors
from genloop.shapes.prompts import pool
from genloop.shapes.render import COLOR_VALUES, TEMPLATES, render
from genloop.shapes.scenes import CELL, SHAPES, Scene, Thing, scene_for

DETECTOR = ShapesDetector()


def scenes_of(seed: int, count: int) -> list[Scene]:
    rng = np.random.default_rng(seed)
    prompts = [prompt for tag in TAGS for name in ("train", "heldout") for prompt in pool(name, tag)]
    return [scene_for(prompts[rng.integers(len(prompts))], rng) for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_every_object_of_every_scene_is_found_exactly(seed):
    scenes = scenes_of(seed, 800)
    images = render(scenes)
    for scene, image, found in zip(scenes, images, DETECTOR.detect(list(images)), strict=True):
        seen = [(d.class_name, *d.box, d.score) for d in found]
        wanted = [(t.shape, x := t.column * CELL, y := t.row * CELL, x + 7, y + 7, 1.0) for t in scene]
        assert sorted(seen) == sorted(wanted)
        colors = {(t.column * CELL, t.row * CELL): t.color for t in scene}
        assert color_names(DETECTOR.scores([(image, found)])[0]) == [colors[d.box[:2]] for d in found]


def test_masks_are_the_drawn_pixels():
    image = render([(Thing("ring", "blue", 1, 2),)])[0]
    (found,) = DETECTOR.detect([image])[0]
    assert found.mask.shape == (24, 24)
    assert (image[found.mask] == COLOR_VALUES[COLORS.index("blue")]).all()
    assert found.mask.sum() == TEMPLATES[SHAPES.index("ring")].sum()


def test_neighbours_in_the_same_colour_stay_apart():
    image = render([(Thing("square", "red", 0, 0), Thing("square", "red", 0, 2), Thing("square", "red", 2, 0))])[0]
    assert [d.class_name for d in DETECTOR.detect([image])[0]] == ["square"] * 3


def test_a_small_defect_lowers_the_score_and_a_large_one_hides_the_object():
    image = render([(Thing("circle", "green", 2, 2),)])[0]
    image[8:9, 8:15] = 150
    (scratched,) = DETECTOR.detect([image])[0]
    assert scratched.class_name == "circle"
    assert MIN_SCORE <= scratched.score < 1
    image[8:12, 8:15] = 150
    assert DETECTOR.detect([image])[0] == []


def test_detections_depend_on_the_image_alone():
    images = render(scenes_of(9, 20))
    together = DETECTOR.detect([*images, np.full((5, 9, 3), 7, np.uint8)])
    for image, found in zip(images, together):
        alone = DETECTOR.detect([image])[0]
        assert [(d.class_name, d.score, d.box) for d in found] == [(d.class_name, d.score, d.box) for d in alone]
    assert together[-1] == []


def test_memory_is_a_few_bytes_a_pixel():
    image = np.full((2000, 2000, 3), 150, np.uint8)
    image[:24, :24] = render([(Thing("star", "red", 0, 0),)])[0]
    tracemalloc.start()
    (found,) = DETECTOR.detect([image])[0]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.class_name == "star" and peak < 16 * 2000 * 2000


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40))
def test_junk_never_breaks_it(seed, height, width):
    rng = np.random.default_rng(seed)
    junk = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    blocks = COLOR_VALUES[rng.integers(10, size=(height, width))]
    for found in DETECTOR.detect([junk, blocks]):
        for detection in found:
            x1, y1, x2, y2 = detection.box
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height
            assert MIN_SCORE <= detection.score <= 1


def test_pure_patch_noise_holds_no_objects_of_one_pixel():
    image = np.full((24, 24, 3), 150, np.uint8)
    image[::2, ::2] = COLOR_VALUES[0]
    assert DETECTOR.detect([image])[0] == []


def test_the_nearest_colour_is_nearest_by_squared_distance():
    rng = np.random.default_rng(4)
    pixels = rng.integers(0, 256, (1, 50, 50, 3)).astype(np.uint8)
    values = np.concatenate([COLOR_VALUES.astype(int), [[150, 150, 150]]])
    distance = ((pixels[0, :, :, None].astype(int) - values) ** 2).sum(axis=-1)
    labels = nearest_colors(pixels)[0].astype(int)
    chosen = np.take_along_axis(distance, np.where(labels < 0, 10, labels)[..., None], axis=-1)[..., 0]
    assert (chosen == distance.min(axis=-1)).all()


def test_a_detection_without_a_mask_is_coloured_by_its_box():
    image = render([(Thing("arrow", "pink", 0, 0),)])[0]
    boxed = Detection("arrow", 1.0, (0.0, 0.0, 7.0, 7.0))
    (scores,) = DETECTOR.scores([(image, [boxed])])
    assert color_names(scores) == ["pink"]
    assert scores.tolist() == [[float(color == "pink") for color in COLORS]]
    assert [len(part) for part in DETECTOR.scores([(image, []), (image, [boxed, boxed])])] == [0, 2]


def test_other_arrays_are_refused():
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8"):
        DETECTOR.detect([np.zeros((24, 24, 3), np.float32)])
