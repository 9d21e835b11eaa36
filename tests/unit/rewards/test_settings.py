"""Judges from their settings: what is refused and in which words, what is fingerprinted, what is cached."""

import json
import re
from pathlib import Path

import pytest

from ckpts.resolve import resolve
from genloop.config import ConfigError, JobConfig, computing_keys, load_config
from genloop.job import plain
from genloop.records import Prompt
from genloop.registry import load
from genloop.rewards import JUDGES
from genloop.rewards.build import (
    build_judge,
    check_judge,
    check_prompts,
    judge_classes,
    judge_fingerprint,
    needs_metadata,
)
from genloop.rewards.settings import QUESTIONS, JudgeSettings
from genloop.shapes.prompts import prompt_set
from genloop.shapes.scenes import SHAPES
from tests.runs import ROOT
from tests.worlds.counting_judges import images_of
from tests.worlds.tiny_clip import write_clip_folder


class Config(JobConfig):
    judge: JudgeSettings = JudgeSettings()


def config(*words: str) -> Config:
    return load_config(Config, None, ["out=x", *words])


def members(*rows: dict) -> str:
    return f"judge.options.members={json.dumps(list(rows))}"


ORACLE = {"kind": "shapes_oracle"}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["judge.kind=shapes_orakel"], "judge.kind: unknown judge 'shapes_orakel'; did you mean 'shapes_oracle'?"),
        (["judge.options.a=1"], "judge.options.a: unknown key (keys: none)"),
        (["judge.options=1"], "judge.options: input should be an object, found 1"),
        (["judge.kind=llava"], "judge.options.checkpoint: needs a value"),
        (["judge.kind=llava", "judge.options.chekpoint=x"], "checkpoint: needs a value (and 1 more)"),
        (
            ["judge.kind=clip_score", "judge.options.checkpoint=x", "judge.options.prefx=a"],
            "judge.options.prefx: unknown key; did you mean 'prefix'? (keys: checkpoint, backend, architecture,",
        ),
        (["judge.kind=remote", "judge.options.url=node17:8000", "judge.options.model=m"], "judge.options.url: "),
        (["judge.kind=ensemble"], "judge.options.members: needs a value"),
        (
            ["judge.kind=ensemble", "judge.options.members=[]"],
            "judge.options.members: tuple should have at least 1 item",
        ),
        (["judge.kind=ensemble", members({"kind": "oracle"})], "judge.options.members.0.kind: unknown judge 'oracle'"),
        (
            [
                "judge.kind=ensemble",
                members(ORACLE, {"kind": "llava", "options": {"checkpoint": "a", "tilling": "pad"}}),
            ],
            "judge.options.members.1.options.tilling: unknown key; did you mean 'tiling'?",
        ),
        (
            ["judge.kind=ensemble", members({**ORACLE, "wieght": 2})],
            "members.0.wieght: unknown key; did you mean 'weight'?",
        ),
        (["judge.kind=ensemble", members({**ORACLE, "std": {"outcome": 0}})], "judge.options.members.0.std.outcome: "),
    ],
)
def test_wrong_keys_are_refused_in_one_line_with_their_place(words, line):
    with pytest.raises(ConfigError) as caught:
        config(*words)
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_a_config_with_a_judge_survives_its_file(tmp_path):
    options = {"url": "http://node17:8000/v1", "model": "m", "patience": 3.0}
    words = ["judge.kind=ensemble", members({"kind": "remote", "options": options, "weight": 2.0}, ORACLE)]
    first = config(*words, f"judge.cache={tmp_path}")
    again = Config.model_validate_json(json.dumps(plain(first)))
    assert again == first and again.judge.options.members[0].options.patience == 3.0
    assert Config.model_validate(first.model_dump()) == first


def test_what_says_how_a_judge_is_reached_is_not_what_it_computes():
    words = ["judge.kind=remote", "judge.options.url=http://a/v1", "judge.options.model=m"]
    moved = ["judge.options.url=http://b/v1", "judge.options.concurrency=2", "judge.cache=c"]
    assert computing_keys(config(*words)) == computing_keys(config(*words, *moved))
    keys = computing_keys(config(*words, "judge.options.probability=raw"))
    assert keys["judge.options.probability"] == "raw" and "judge.options.url" not in keys
    inner = {"kind": "remote", "options": {"url": "http://a/v1", "model": "m"}}
    keys = computing_keys(config("judge.kind=ensemble", members(ORACLE, inner)))
    assert keys["judge.options.members.1.options.model"] == "m"
    assert "judge.options.members.1.options.url" not in keys


def test_a_judge_that_cannot_answer_what_a_strategy_asks_is_refused():
    check_judge(JudgeSettings(), resolve, ("outcome",))
    with pytest.raises(ValueError, match=r"^judge\.kind: .*'shapes_oracle' answers .*not clarity, potential"):
        check_judge(JudgeSettings(), resolve, QUESTIONS)


def test_prompts_without_metadata_are_refused_by_judges_that_go_by_it():
    bare, tagged = [Prompt(0, "a dog")], prompt_set("test", 3, 1)
    nested = JudgeSettings(
        kind="ensemble", options={"members": [{"kind": "ensemble", "options": {"members": [ORACLE]}}]}
    )
    for settings in (JudgeSettings(), nested):
        check_prompts(settings, tagged)
        with pytest.raises(ValueError, match=r"^metadata: .*'\w+' needs"):
            check_prompts(settings, bare)
        assert judge_classes(settings) == SHAPES or judge_classes(settings) == list(SHAPES)
    clip = JudgeSettings(kind="clip_score", options={"checkpoint": "a"})
    check_prompts(clip, bare)
    assert judge_classes(clip) is None and not needs_metadata(clip)


def test_a_cache_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^judge\.cache: .*file is a file"):
        check_judge(JudgeSettings(cache=tmp_path / "file"), resolve)


def test_the_oracle_is_built_with_and_without_a_cache(tmp_path):
    prompts = prompt_set("test", 3, 2)
    images = images_of(prompts, shift=2)
    plain_answers = build_judge(JudgeSettings(), resolve).p_yes("outcome", prompts, images)
    for _ in range(2):
        judge = build_judge(JudgeSettings(cache=tmp_path / "scores"), resolve)
        assert judge.p_yes("outcome", prompts, images).tolist() == plain_answers.tolist()
    assert len(list((tmp_path / "scores").iterdir())) == 1  # the second had nothing to write


def test_a_fingerprint_follows_the_content_of_files_and_the_options_that_compute(tmp_path):
    left, right, other = (write_clip_folder(tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))

    def mark(folder: Path, device: str = "cpu", **options: object) -> str:
        return judge_fingerprint(
            JudgeSettings(kind="clip_score", options={"checkpoint": str(folder), **options}), resolve, device
        )

    assert mark(left) == mark(right) == mark(left, images_per_forward=8)
    assert len({mark(left), mark(other), mark(left, prefix=""), mark(left, "cuda:0")}) == 4
    assert mark(left, "cuda:0") == mark(left, "cuda:1")
    settings = JudgeSettings(kind="clip_score", options={"checkpoint": str(left)})
    assert settings.inputs(resolve, "judge") == {"judge.options.checkpoint": left}
    ensemble = JudgeSettings(kind="ensemble", options={"members": [ORACLE, settings.model_dump()]})
    assert ensemble.inputs(resolve, "a.judge") == {"a.judge.options.members.1.options.checkpoint": left}


def test_every_maker_says_what_it_is_without_torch_or_weights():
    for name, path in JUDGES.items():
        maker = load(path)
        for attribute in ("Options", "needs_metadata", "check", "inputs", "questions", "classes", "load"):
            assert hasattr(maker, attribute), f"{name} has no {attribute}"


def test_the_page_of_judges_has_every_judge():
    text = (ROOT / "docs" / "judges.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \| (?!`)", text.partition("\n## ")[0], re.M) == list(JUDGES)
