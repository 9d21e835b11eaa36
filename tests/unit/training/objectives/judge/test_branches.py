"""Chats become branches: what is supervised, at which token, and which questions share one."""

from dataclasses import replace

import pytest

from genloop.records import TAGS, Prompt
from genloop.shapes.judge_scenes import COLOR_NAMES, SHAPE_NAMES
from genloop.shapes.judge_text import judge_vocabulary
from genloop.shapes.prompts import SETS, pool
from genloop.training.objectives.judge.branches import NAME, WORD, Branches
from tests.worlds.judge_data import paths, tokenizer, wording

NAMES = [*SHAPE_NAMES, *COLOR_NAMES]


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    return next(e for e in paths(tmp_path_factory.mktemp("paths"), sentences=1).examples if not e.is_final)


def branches(folder, *names: str, **more: str) -> Branches:
    questions = wording(**more)
    return Branches(questions, tokenizer(folder, questions), names)


def test_the_tokenizer_knows_every_word_that_a_judge_reads_or_says(tmp_path):
    questions = wording()
    words = tokenizer(tmp_path, questions)
    unknown = words.encode("<|endoftext|>")[0]
    texts = [prompt.text for name in SETS for tag in TAGS for prompt in pool(name, tag)]
    texts += [text.replace("{prompt}", "").replace("<image>", "") for text in questions.wording.values()]
    texts += ["no red circle and three stars not two", "circle not left of star", "many moons not four", "background"]
    assert not any(unknown in words.encode(text) for text in texts)
    assert words.decode(words.encode("no red circle and ten stars not two")) == "no red circle and ten stars not two"
    assert len(judge_vocabulary([])) == len(set(judge_vocabulary([])))


def test_a_second_turn_is_one_branch_with_two_supervised_positions(tmp_path, example):
    apart = branches(tmp_path / "a").of_example(example)
    together = branches(tmp_path / "b", potential="promising ?").of_example(example)
    assert [branch.kinds.tolist() for branch in apart] == [[1], [2]]
    assert [branch.kinds.tolist() for branch in together] == [[1, 2]]
    assert together[0].supervised_positions[0] == len(apart[0].ids) - 1
    assert (together[0].ids[: len(apart[0].ids)] == apart[0].ids).all()


def test_names_are_supervised_at_their_last_token_singular_or_plural(tmp_path, example):
    made = branches(tmp_path, *NAMES)
    for text, found in (("a photo of three stars", ["star"]), ("a red ring and a moon", ["red", "ring", "moon"])):
        branch = made.of_example(replace(example, prompt=Prompt(0, text)))[0]
        columns = zip(branch.supervised_positions, branch.kinds, branch.targets)
        names = sorted((position, target) for position, kind, target in columns if kind == NAME)
        assert [NAMES[target] for _, target in names] == found
        assert all(made.tokenizer.decode([branch.ids[p]]).startswith(NAMES[target]) for p, target in names)


def test_a_conversation_predicts_every_word_of_its_answers_and_what_closes_them(tmp_path):
    made = branches(tmp_path)
    branch = made.of_conversation([("<image> a star : done ?", "no ring"), ("why not ?", "yes")])
    assert [made.tokenizer.decode([t]) for t in branch.targets] == ["no", "ring", "", "yes", ""]
    assert (branch.kinds == WORD).all()
    whole = [*branch.ids, branch.targets[-1]]
    assert all(whole[p + 1] == target for p, target in zip(branch.supervised_positions, branch.targets))
