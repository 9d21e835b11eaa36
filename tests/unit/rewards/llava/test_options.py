"""The LLaVA judge from its settings: which questions it asks, whose scales it goes by, what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from genloop.config import ConfigError
from genloop.rewards.build import build_judge, check_judge, judge_fingerprint
from genloop.rewards.questions import Questions
from genloop.rewards.settings import JudgeSettings
from tests.unit.rewards.llava.test_judge import NUM, PARM, judge_of, prompts_of
from tests.worlds.tiny_llava import known_words, some_images, tiny_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("llava") / "judge")


def settings(folder: Path, **options: Any) -> JudgeSettings:
    return JudgeSettings(kind="llava", options={"checkpoint": str(folder), **options})


def test_the_judge_is_built_from_settings(folder: Path, tmp_path: Path) -> None:
    prompts, images = prompts_of(3), some_images(3)
    check_judge(settings(folder), Path, PARM)
    judge = build_judge(settings(folder), Path)
    expected = judge_of(folder).p_yes("outcome", prompts, images)
    assert torch.equal(judge.p_yes("outcome", prompts, images), expected)
    kept = build_judge(settings(folder).model_copy(update={"cache": tmp_path / "scores"}), Path)
    for _ in range(2):
        assert torch.equal(kept.p_yes("outcome", prompts, images), expected)
    half = build_judge(settings(folder, dtype="bfloat16"), Path).p_yes("outcome", prompts, images)
    assert half.dtype == torch.float32 and torch.allclose(half, expected, atol=0.02)


def test_the_fingerprint_is_what_answers_depend_on(folder: Path, tmp_path: Path) -> None:
    def mark(place: Path, **options: Any) -> str:
        return judge_fingerprint(settings(place, **options), Path, "cpu")

    copy = tiny_folder(tmp_path / "copy")
    assert mark(copy) == mark(folder) == mark(folder, tokens_per_forward=100, cache_gb=0.5)
    assert len({mark(folder), mark(folder, tiling="anyres"), mark(folder, probability="two_way")}) == 3
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    assert mark(copy) != mark(folder)


def test_a_judge_of_another_family_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl"}')
    with pytest.raises(ValueError, match="model_type is 'qwen2_vl'"):
        check_judge(settings(tmp_path), Path)


def test_a_tokenizer_without_yes_is_refused(tmp_path: Path) -> None:
    words = [word for word in known_words() if word != "yes"]
    with pytest.raises(ValueError, match="no single token 'yes'"):
        check_judge(settings(tiny_folder(tmp_path / "judge", words=words)), Path)


def test_a_tokenizer_that_is_too_large_is_refused(tmp_path: Path) -> None:
    words = ["yes", "no", *(f"word{index}" for index in range(200))]
    with pytest.raises(ValueError, match=r"206 tokens, config\.json .*160"):
        check_judge(settings(tiny_folder(tmp_path / "judge", words=words)), Path)


def test_questions_from_a_file_decide_what_can_be_asked(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text('outcome: "<image> {prompt} ?"\nreason: "<image> {prompt} no ?"\n')
    check_judge(settings(folder, questions=str(path)), Path, ["outcome", "reason"])
    with pytest.raises(ValueError, match="not clarity, potential"):
        check_judge(settings(folder, questions=str(path)), Path, PARM)
    path.write_text("outcome: nothing")
    with pytest.raises(ValueError, match="outcome has <image> 0 times"):
        check_judge(settings(folder, questions=str(path)), Path)


def test_questions_in_words_that_the_judge_cannot_read_are_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text('outcome: "<image> a splendid {prompt} , most splendid ?"\n')
    with pytest.raises(ValueError, match=r"mine\.yaml: outcome .*'splendid', 'most'"):
        check_judge(settings(folder, questions=str(path)), Path)


def test_a_checkpoint_asks_what_it_was_trained_on_unless_told_otherwise(tmp_path: Path) -> None:
    folder, prompts, images = tiny_folder(tmp_path / "judge"), prompts_of(3), some_images(3)
    released = judge_fingerprint(settings(folder), Path, "cpu")
    (folder / "questions.yaml").write_text('outcome: "<image> {prompt} ?"\n')
    check_judge(settings(folder), Path, ["outcome"])
    with pytest.raises(ValueError, match=r"^judge\.kind: .*'llava' answers outcome, not clarity"):
        check_judge(settings(folder), Path, ["clarity"])
    assert judge_fingerprint(settings(folder), Path, "cpu") != released
    judge = build_judge(settings(folder), Path)
    own = judge_of(folder, questions=Questions({"outcome": "<image> {prompt} ?"})).p_yes("outcome", prompts, images)
    assert judge.questions.names == ("outcome",) and torch.equal(judge.p_yes("outcome", prompts, images), own)
    other = tmp_path / "mine.yaml"
    other.write_text('clarity: "<image> a star {prompt} ?"\n')
    check_judge(settings(folder, questions=str(other)), Path, ["clarity"])
    assert build_judge(settings(folder, questions=str(other)), Path).questions.names == ("clarity",)
    (folder / "questions.yaml").write_text('outcom: "<image> {prompt} ?"\n')
    with pytest.raises(ValueError, match=r"questions\.yaml: .*'outcom'; .*'outcome'"):
        check_judge(settings(folder), Path)


def test_calibrated_answers_are_in_the_order_of_the_margin_under_the_checkpoints_scales(tmp_path: Path) -> None:
    folder, prompts, images = tiny_folder(tmp_path / "judge"), prompts_of(), some_images(NUM)
    (folder / "calibration.json").write_text('{"outcome": {"a": 0.25, "b": -1}}')
    check_judge(settings(folder, calibrated=True), Path, PARM)
    judge = build_judge(settings(folder, calibrated=True), Path)
    plain = build_judge(settings(folder, probability="two_way"), Path).p_yes("outcome", prompts, images)
    found = judge.p_yes("outcome", prompts, images)
    assert found.dtype == torch.float32
    assert torch.allclose(found, (0.25 * plain.double().logit() - 1).sigmoid().float(), atol=1e-6)
    assert torch.equal(found.argsort(), plain.argsort())
    raw = build_judge(settings(folder), Path)
    assert torch.equal(judge.p_yes("clarity", prompts, images), raw.p_yes("clarity", prompts, images))
    marks = {judge_fingerprint(settings(folder, calibrated=asked), Path, "cpu") for asked in (False, True)}
    (folder / "calibration.json").write_text('{"outcome": {"a": 0.5, "b": -1}}')
    assert len(marks | {judge_fingerprint(settings(folder, calibrated=True), Path, "cpu")}) == 3


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, r"^judge\.options\.calibrated: no file .*calibration\.json"),
        ("{}", r"^judge\.options\.calibrated: .*calibration\.json is empty"),
        ('{"outcome": ', r"calibration\.json: broken JSON"),
        ('{"outcom": {"a": 1, "b": 0}}', r"calibration\.json: .*'outcom'; .*'outcome'"),
        ('{"outcome": {"a": 1}}', r"calibration\.json: outcome is \{'a': 1\}"),
        ('{"outcome": {"a": NaN, "b": 0}}', r"calibration\.json: outcome is \{'a': nan"),
        ('{"outcome": {"a": -0.5, "b": 0}}', r"calibration\.json: a of outcome is -0\.5"),
    ],
)
def test_a_calibration_that_nobody_can_go_by_is_refused(content: str | None, line: str, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "judge")
    if content is not None:
        (folder / "calibration.json").write_text(content)
    check_judge(settings(folder), Path)
    with pytest.raises((ValueError, FileNotFoundError), match=line) as caught:
        check_judge(settings(folder, calibrated=True), Path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("[", r"generation_config\.json: broken JSON"),
        ('{"top_k": "20"}', r"generation_config\.json: top_k is '20'"),
        ('{"top_p": 0}', r"generation_config\.json: top_p is 0"),
    ],
)
def test_bad_settings_of_generation_are_refused_where_they_count(content: str, line: str, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "judge")
    (folder / "generation_config.json").write_text(content)
    with pytest.raises(ValueError, match=line):
        check_judge(settings(folder, probability="processed"), Path)
    check_judge(settings(folder), Path)
    assert build_judge(settings(folder), Path).questions.names


def test_an_option_that_does_not_exist_is_refused(folder: Path) -> None:
    with pytest.raises((ValueError, ConfigError), match="did you mean 'tiling'"):
        settings(folder, tilings="pad")
