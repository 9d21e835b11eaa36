"""Critics: what they say follows from what they are shown; answers that cannot be read change nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ckpts.resolve import resolve
from genloop.data.irg.actions import execute
from genloop.data.irg.features import measure
from genloop.data.irg.quality import intent_of, quality
from genloop.data.irg.quotes import faithful
from genloop.data.irg.record import Action, Diagnosis
from genloop.data.shards import write_shard
from genloop.models.qwen.generate import answers as answers_of
from genloop.records import Clause, Prompt
from genloop.rewards.build import build_judge, check_judge
from genloop.rewards.critics.settings import CriticSettings, Sight, build_critic
from genloop.rewards.settings import JudgeSettings
from tests.worlds.tiny_qwen import qwen_folder
from tests.worlds.traces import SCENE, clean_image, trace

PROMPT = "a red circle and a blue square"


def dark(seed: int = 0) -> np.ndarray:
    return execute(clean_image(seed), Action(op="gamma", params={"gamma": 3.0}))


def sight(image: np.ndarray, **more: object) -> Sight:
    return Sight(PROMPT, measure(image), image=image, **more)


def pixels(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def test_the_rules_name_what_the_measurements_show_and_nothing_else() -> None:
    critic = build_critic(CriticSettings(kind="rules"), resolve)
    clean, found = critic.criticise([sight(clean_image(1)), sight(dark())])
    assert (clean.diagnosis, clean.actions, clean.prompt) == ([], [], PROMPT)
    assert [Diagnosis.model_validate(one).issue for one in found.diagnosis] == ["underexposed"]
    assert [Action.model_validate(one).op for one in found.actions] == ["regenerate"]  # shadows are clipped
    assert found.prompt.startswith(f"{PROMPT}, ") and not found.failed
    right, told = faithful(found.reasoning, measure(dark()))
    assert right == told >= 1


def test_the_rules_see_content_where_an_oracle_does() -> None:
    shown = SCENE.model_copy(update={"things": SCENE.things[:1]})
    (found,) = build_critic(CriticSettings(kind="rules"), resolve).criticise(
        [sight(clean_image(1), wanted=SCENE, shown=shown)]
    )
    assert [one["issue"] for one in found.diagnosis] == ["wrong_count"]
    assert [one["op"] for one in found.actions] == ["regenerate"]


@pytest.mark.parametrize("name", ["text", "vl"])
def test_answers_that_cannot_be_read_are_asked_for_again_and_then_change_nothing(tmp_path: Path, name: str) -> None:
    options = {"checkpoint": str(qwen_folder(tmp_path, name)), "attempts": 3, "max_new_tokens": 8}
    settings = CriticSettings.model_validate({"kind": "qwen", "options": options})
    settings.check(resolve)
    (found,) = build_critic(settings, resolve).criticise([sight(dark())])
    assert found.failed and len(found.problems) == 3 and all(found.problems)
    assert (found.diagnosis, found.actions, found.prompt) == ((), (), PROMPT)
    assert found.features["brightness"] == measure(dark()).brightness


def test_an_answer_that_can_be_read_is_taken_after_one_that_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is real, its words are not: no tiny one writes JSON untrained."""
    record, asked = trace("dark").record, []

    def answers(talker, chats, images=None, **more):
        assert len(answers_of(talker, chats, images, max_new_tokens=1)) == len(chats)
        asked.extend(chats)
        return ["no JSON" if len(asked) == 1 else record.messages[2].content for _ in chats]

    settings = {"kind": "qwen", "options": {"checkpoint": str(qwen_folder(tmp_path))}}
    critic = build_critic(CriticSettings.model_validate(settings), resolve)
    monkeypatch.setattr("genloop.models.qwen.generate.answers", answers)
    (found,) = critic.criticise([sight(dark(), asked=record.messages[1].content)])
    assert not found.failed and len(found.problems) == 1 and "JSON" in found.problems[0]
    assert [one["issue"] for one in found.diagnosis] == ["underexposed"]
    assert asked[0][1]["content"] == record.messages[1].content and found.problems[0] in asked[1][-1]["content"]


def test_the_majority_is_what_the_training_split_holds_most_often(tmp_path: Path) -> None:
    traces = [trace("dark", 0), trace("dark", 1), trace("clean", 2), *(trace("clean", n, "test") for n in range(3, 8))]
    write_shard(tmp_path / "00000.tar", [one.sample for one in traces])
    settings = {"kind": "majority", "options": {"shards": str(tmp_path)}}
    (found,) = build_critic(CriticSettings.model_validate(settings), resolve).criticise([sight(clean_image(1))])
    assert [one["issue"] for one in found.diagnosis] == ["underexposed"]


def test_quality_falls_with_a_fault_unless_it_is_wanted() -> None:
    clean, spoilt = measure(clean_image(1)), measure(dark())
    assert quality(clean) == 1 > quality(spoilt) >= 0
    assert quality(spoilt, "dark") > quality(spoilt)
    assert [intent_of(text) for text in ("a dark street", "a bright room", "dark and bright", "a cat")] == [
        *("dark", "bright", "neutral", "neutral")
    ]


def test_a_score_mixes_measured_quality_with_what_a_judge_says() -> None:
    judge = {"kind": "shapes_oracle"}
    prompt = Prompt(0, "a photo of a circle", "single_object", (Clause("circle", 1),))
    images = pixels(clean_image(1), dark())
    alone = build_judge(JudgeSettings.model_validate({"kind": "critic"}), resolve)
    both = build_judge(
        JudgeSettings.model_validate({"kind": "critic", "options": {"judge": judge, "quality": 0.25}}), resolve
    )
    measured = alone.p_yes("outcome", [prompt] * 2, images)
    assert measured[0] == 1 > measured[1]
    assert torch.allclose(both.p_yes("outcome", [prompt] * 2, images), 0.25 * measured)  # no circle there


def test_a_critic_judge_answers_what_its_judge_does() -> None:
    alone = JudgeSettings.model_validate({"kind": "critic"})
    check_judge(alone, resolve, ("outcome", "refine"))
    with pytest.raises(ValueError, match="not reason"):
        check_judge(alone, resolve, ("reason",))
    check_judge(
        JudgeSettings.model_validate({"kind": "critic", "options": {"judge": {"kind": "shapes_oracle"}}}),
        resolve,
        ("outcome", "reason", "refine"),
    )
