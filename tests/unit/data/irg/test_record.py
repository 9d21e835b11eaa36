"""Records, features, rules and actions of the refinement corpus."""

import numpy as np
import pytest

from genloop.data.irg.actions import edit_prompt, execute, propose
from genloop.data.irg.diagnose import diagnose, diagnose_content, is_reversible, limits
from genloop.data.irg.features import measure
from genloop.data.irg.record import (
    Action,
    Generator,
    Intent,
    Record,
    Round,
    SceneObject,
    SceneSpec,
    parse_record,
)


def flat(level: int) -> np.ndarray:
    return np.full((32, 32, 3), level, np.uint8)


def spec(*things: tuple[str, str, float, float], relation: str | None = None) -> SceneSpec:
    placed = tuple(
        SceneObject(shape=shape, color=color, x=x, y=y, size=0.2, depth=0.3) for shape, color, x, y in things
    )
    light = {"light_angle": 60.0, "light_strength": 0.6, "exposure": 1.0, "focus": 0.3, "aperture": 0.2}
    return SceneSpec(things=placed, relation=relation, backdrop=0.6, texture_seed=1, **light)


def record() -> Record:
    first = Round(index=0, image="0.png", image_sha256="0" * 64, features=measure(flat(128)))
    made = Generator(name="scenes", seed=0, params_sha="0" * 64)
    return Record(id="a", generator=made, instruction="a red ring", rounds=(first,), license="CC0-1.0")


def test_a_record_comes_back_from_its_json() -> None:
    assert parse_record(record().to_json()) == record()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"schema_version": 7}, "schema_version"),
        ({"instruction": ""}, "instruction"),
        ({"rounds": []}, "rounds"),
        ({"colour": 1}, "colour"),
    ],
)
def test_another_schema_is_refused_in_one_line(change: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word) as caught:
        parse_record(record().model_dump() | change, "x.tar: sample 1")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("x.tar: sample 1")


def test_features_of_flat_images_are_known() -> None:
    grey, white = measure(flat(51)), measure(flat(255))
    assert (grey.brightness, grey.contrast, grey.cast, grey.noise, grey.sharpness) == (0.2, 0, 0, 0, 0)
    assert (white.clip_hi, white.clip_lo, white.brightness) == (1, 0, 1)


def test_noise_and_sharpness_are_measured_in_levels() -> None:
    noise = np.random.default_rng(0).normal(128, 10, (256, 256, 1)).repeat(3, axis=2)
    found = measure(np.rint(noise).astype(np.uint8))
    assert found.noise == pytest.approx(10, rel=0.05) and found.sharpness == pytest.approx(2000, rel=0.1)
    assert found.detail < 2  # what is not noise


@pytest.mark.parametrize(("level", "intent", "issue"), [(30, "neutral", "underexposed"), (128, "dark", "overexposed")])
def test_the_threshold_of_exposure_depends_on_the_intent(level: int, intent: Intent, issue: str) -> None:
    found = diagnose(measure(flat(level)), intent)
    assert found[0].issue == issue and all(one.holds for diagnosis in found for one in diagnosis.evidence)
    assert issue not in {diagnosis.issue for diagnosis in diagnose(measure(flat(110 if level == 30 else 40)), intent)}


def test_every_limit_names_a_feature() -> None:
    assert {limit.feature for limit in limits("neutral")} <= set(measure(flat(9)).model_dump())


def test_an_underexposed_image_is_repaired_by_its_action() -> None:
    image = np.random.default_rng(0).integers(20, 80, (64, 64, 3)).astype(np.uint8)
    before = measure(image)
    found = [one for one in diagnose(before) if one.issue == "underexposed"]
    (action,) = propose(before, found, "neutral", "a ring")
    assert action.op == "gamma" and measure(execute(image, action)).brightness == pytest.approx(0.46, abs=0.05)


@pytest.mark.parametrize(
    ("action", "word"),
    [
        (Action(op="gamma"), "gamma"),
        (Action(op="gamma", params={"gamma": 99.0}), "99"),
        (Action(op="grey_world", params={"gain": 1.0}), "gain"),
        (Action(op="regenerate", params={"prompt": "a"}), "pixels"),
    ],
)
def test_an_action_that_cannot_be_executed_says_why(action: Action, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        execute(flat(9), action)


@pytest.mark.parametrize("op", ["grey_world", "exposure", "stretch", "denoise", "unsharp"])
def test_operations_keep_shape_and_type(op: str) -> None:
    params = {
        "exposure": {"gain": 1.1},
        "stretch": {"low": 0.1, "high": 0.9},
        "denoise": {"sigma": 9.0},
        "unsharp": {"radius": 1.0, "amount": 1.0},
    }
    image = np.random.default_rng(1).normal(120, 12, (24, 32, 3)).astype(np.uint8)
    made = execute(image, Action.model_validate({"op": op, "params": params.get(op, {})}))
    assert made.shape == image.shape and made.dtype == np.uint8 and (made != image).any()


def test_content_is_compared_with_what_was_asked_for() -> None:
    wanted = spec(("ring", "red", 0.2, 0.5), ("star", "blue", 0.8, 0.5), relation="right of")
    assert diagnose_content(wanted, wanted) == ()
    mirrored = spec(("ring", "red", 0.8, 0.5), ("star", "blue", 0.2, 0.5), relation="right of")
    recolored = spec(("ring", "red", 0.2, 0.5), ("star", "pink", 0.8, 0.5), relation="right of")
    fewer = spec(("ring", "red", 0.2, 0.5), relation="right of")
    found = [diagnose_content(wanted, shown)[0] for shown in (mirrored, recolored, fewer)]
    assert [one.issue for one in found] == ["wrong_position", "wrong_color", "wrong_count"]
    assert not any(map(is_reversible, found)) and all(one.evidence[0].holds for one in found)
    (action,) = propose(measure(flat(128)), found[:1], "neutral", "a star right of a ring")
    assert action.op == "regenerate" and action.params["prompt"] == edit_prompt("a star right of a ring", found[:1])


def test_detail_does_not_depend_on_size_or_contrast() -> None:
    small = np.random.default_rng(2).integers(60, 180, (32, 32, 1)).repeat(4, axis=0).repeat(4, axis=1)
    image = small.repeat(3, axis=2).astype(np.uint8)  # (128, 128, 3)
    large = image.repeat(3, axis=0).repeat(3, axis=1)
    flat_one = (image // 2 + 60).astype(np.uint8)
    found = measure(image).detail
    assert measure(large).detail == found and measure(flat_one).detail == pytest.approx(found, rel=0.02)
    assert measure(large).sharpness < measure(image).sharpness
