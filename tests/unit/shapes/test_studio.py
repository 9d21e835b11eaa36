"""Scenes as photographs, with faults of their pixels and of what they show."""

import numpy as np
import pytest

from genloop.data.irg.diagnose import diagnose, diagnose_content, relation_of
from genloop.data.irg.faults import inject, kinds_for
from genloop.data.irg.features import measure
from genloop.data.irg.record import INTENTS, Intent, Issue
from genloop.shapes.misdrawn import TASKS, misdraw
from genloop.shapes.studio import BRIGHTNESS, draw_scene, instruction_of, render_scene


@pytest.mark.parametrize("intent", INTENTS)
def test_a_clean_scene_has_the_exposure_of_its_intent_and_no_diagnosis(intent: Intent) -> None:
    for number in range(3):
        prompt, spec = draw_scene(np.random.default_rng([number, 1]), intent)
        features = measure(render_scene(spec))
        low, high = BRIGHTNESS[intent]
        assert low - 0.01 < features.brightness < high + 0.01 and diagnose(features, intent) == ()
        assert prompt.text in instruction_of(prompt, spec, intent)


def test_a_scene_is_a_function_of_its_description() -> None:
    _, spec = draw_scene(np.random.default_rng(3))
    assert (render_scene(spec) == render_scene(type(spec).model_validate_json(spec.model_dump_json()))).all()
    larger = render_scene(spec, 192)
    assert (
        larger.shape == (192, 192, 3)
        and abs(measure(larger).brightness - measure(render_scene(spec)).brightness) < 0.03
    )


def test_a_relation_holds_between_the_objects() -> None:
    for number in range(4):
        _, spec = draw_scene(np.random.default_rng(number), tag="position")
        target, subject = spec.things
        assert spec.relation == relation_of((subject.x, subject.y), (target.x, target.y))


@pytest.mark.parametrize("kind", kinds_for("neutral"))
def test_a_severe_fault_is_diagnosed_and_worse_than_a_mild_one(kind: Issue) -> None:
    _, spec = draw_scene(np.random.default_rng(0))
    image, severities = render_scene(spec), []
    for level in range(3):
        spoilt, fault = inject(image, kind, level, np.random.default_rng(level))
        found = {one.issue: one.severity for one in diagnose(measure(spoilt))}
        severities.append(found.get(kind, 0.0))
        assert fault.bin == level and level / 3 <= fault.severity <= (level + 1) / 3
    assert severities[2] > severities[0] and severities[1] > 0


@pytest.mark.parametrize(
    ("tag", "kind"), [("counting", "wrong_count"), ("colors", "wrong_color"), ("position", "wrong_position")]
)
def test_a_misdrawn_scene_is_diagnosed_by_the_oracle(tag: str, kind: Issue) -> None:
    for number in range(4):
        rng = np.random.default_rng(number)
        prompt, spec = draw_scene(rng, tag=tag)
        assert tag in TASKS[kind]
        shown, fault = misdraw(prompt, spec, kind, rng)
        assert {one.issue for one in diagnose_content(spec, shown)} == {kind} and not fault.is_reversible
        assert (render_scene(shown) != render_scene(spec)).any()
