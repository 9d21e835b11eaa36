"""Losses of pairs against what a judge says of the same answers, and folds that leak neither question nor image."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from genloop.data.responses.read import ResponseData, open_pairs
from genloop.models.qwen.generate import Talker, load_talker
from genloop.models.qwen.likelihood import log_likelihoods
from genloop.rewards.responses.wording import SHORT, VERDICTS, question_about
from genloop.training.objectives.conversations.settings import ChatData, ChatSettings
from genloop.training.objectives.response_pairs.data import ResponseSides, read_pairs
from genloop.training.objectives.response_pairs.folds import folds_of, joined
from genloop.training.objectives.response_pairs.held_out import is_right, preferences, scores_of
from genloop.training.objectives.response_pairs.objective import ResponsePairObjective
from genloop.training.objectives.response_pairs.rows import ORDERS, ResponseRows
from genloop.training.objectives.response_pairs.settings import PairSettings
from genloop.training.task import Plan
from tests.worlds.response_pairs import COLUMNS, QUERIES, WORDS, write_pairs
from tests.worlds.tiny_instructblip import instructblip_folder
from tests.worlds.tiny_qwen import qwen_folder

FAMILIES = ("vicuna", "flan_t5", "vl", "llava")
PLACES = [0, 3, 8]
BETA = 0.7


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("pairs")
    write_pairs(place, count=24)
    for family in FAMILIES[:2]:
        instructblip_folder(place / family, family, words=WORDS)
    for family in FAMILIES[2:]:
        qwen_folder(place / family, family)
    return place


@pytest.fixture(scope="module", params=FAMILIES)
def talker(request, place) -> Talker:
    return load_talker(place / request.param, system="")


def data_of(path: Path, **keys) -> dict[str, ChatData]:
    return {"shapes": ChatData(pairs=ResponseData(path=path, layout="columns", columns=COLUMNS), **keys)}


def read(place: Path, talker: Talker, loss: str = "bradley_terry", **keys) -> ResponseSides:
    settings = PairSettings(**{"loss": loss, "num_folds": 3} | keys)
    chats = ChatSettings(system="", packing=False)
    data = data_of(place / "pairs.jsonl")
    return read_pairs(data, talker.chat, talker.pictures, chats, settings, most=99, seed=0)


def means(talker: Talker, rows: ResponseRows, place: int, loss: str) -> list[list[float]]:
    """What a judge says of the right and of the wrong side of each contrast: sums of log p, and numbers of tokens."""
    pair, image = rows.pairs[place], rows.pairs.image(place)
    right, wrong = pair.responses[pair.best], pair.responses[1 - pair.best]
    if loss != "verdict":
        return [[(one.log_p, one.num_tokens) for one in _said(talker, pair.query, image, (right, wrong))]]
    found = []
    for number, order in enumerate(ORDERS):
        verdicts = VERDICTS if pair.best == number else VERDICTS[::-1]
        question = question_about(SHORT, pair.query, pair.responses, order)
        found.append([(one.log_p, 1) for one in _said(talker, question, image, verdicts)])
    return found


def _said(talker: Talker, query: str, image: np.ndarray, answers):
    return log_likelihoods(talker, [{"role": "user", "content": query}], [image], answers)


@pytest.mark.parametrize("loss", ["bradley_terry", "dpo", "verdict"])
def test_the_loss_is_the_one_of_the_paper_computed_from_a_judges_likelihoods(place, talker, loss):
    rows = read(place, talker, loss).rows
    assert {rows.pairs[number].best for number in PLACES} == {0, 1}
    reference = np.zeros((len(rows), rows.contrasts, 2), np.float32)
    if loss == "dpo":
        reference[PLACES] = np.random.default_rng(0).normal(size=(3, 1, 2))
    objective = ResponsePairObjective(talker.model, rows, PLACES, reference, beta=BETA, batch_size=3, seed=0)
    found = objective.loss(objective.load(PLACES, Plan(PLACES, 3.0)))
    expected = []
    for number in PLACES:
        for contrast, sides in enumerate(means(talker, rows, number, loss)):
            if loss == "dpo":
                right, wrong = (p - n * r for (p, n), r in zip(sides, reference[number, contrast]))
            else:
                right, wrong = (p / n for p, n in sides)
            expected.append(np.log1p(np.exp(-BETA * (right - wrong))) / rows.contrasts)
    assert float(found.total.detach()) == pytest.approx(sum(expected), abs=2e-4) and found.weight == 3
    gradients = torch.autograd.grad(found.total, [talker.model.get_output_embeddings().weight])
    assert gradients[0].abs().sum() > 0


def test_held_out_pairs_are_judged_as_a_judge_judges_them(place, talker):
    rows = read(place, talker).rows
    scores = scores_of(talker.model, rows, range(6), 4)
    assert talker.model.training is False
    for number in range(6):
        right, wrong = (p / n for p, n in means(talker, rows, number, "")[0])
        assert scores[number, 0].tolist() == pytest.approx([right, wrong], abs=1e-4)
    assert is_right(preferences(scores)).tolist() == (scores[:, 0, 0] > scores[:, 0, 1]).astype(float).tolist()
    assert is_right(np.array([0.5, 0.6])).tolist() == [0.5, 1.0]


@pytest.mark.parametrize("seed", range(3))
def test_no_question_and_no_image_is_in_two_folds(tmp_path, seed):
    rng, file = np.random.default_rng(seed), write_pairs(tmp_path, count=40)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:  # rows that share images, questions, or both through others
        line["image"] = f"{int(rng.integers(30)):04d}.png"
        line["query"] = QUERIES[int(rng.integers(60))].upper() + " "
    file.write_text("\n".join(map(json.dumps, lines)))
    pairs = open_pairs(ResponseData(path=file, layout="columns", columns=COLUMNS))
    folds = folds_of(pairs.leak_groups(), 3, seed)
    for key in ("image", "query"):
        found: dict[str, set[int]] = {}
        for line, fold in zip(lines, folds.tolist()):
            found.setdefault(line[key], set()).add(fold)
        assert all(len(one) == 1 for one in found.values())


def test_folds_are_even_where_groups_are_small_and_refused_where_they_are_few():
    groups = np.repeat(np.arange(50), 2)
    assert np.ptp(np.bincount(folds_of(groups, 5, 0))) == 0
    assert (folds_of(groups, 5, 0) == folds_of(groups, 5, 0)).all()
    assert (folds_of(groups, 5, 0) != folds_of(groups, 5, 1)).any()
    with pytest.raises(ValueError, match=r"pairs\.num_folds"):
        folds_of(np.zeros(9, dtype=np.int64), 2, 0)


def test_data_sets_with_an_image_in_common_share_its_fold(place, tmp_path):
    parts = [
        open_pairs(ResponseData(path=write_pairs(tmp_path / name), layout="columns", columns=COLUMNS)) for name in "ab"
    ]
    both = joined(parts)
    folds = folds_of(both.leak_groups(), 3, 0)
    assert len(both) == 48 and (folds[:24] == folds[24:]).all()
    assert both[30] == parts[1][6] and both.image_sha(30) == parts[1].image_sha(6)


def test_shuffled_labels_are_those_of_training_alone(place, talker):
    plain, control = (read(place, talker, shuffle_labels=shuffle).rows.best for shuffle in (False, True))
    is_held_out = read(place, talker).folds == 0
    assert (plain == control)[is_held_out].all()
    assert 0.2 < (plain == control)[~is_held_out].mean() < 0.8


def test_a_pair_that_is_too_long_is_left_out_whole(place, talker):
    data, chats = data_of(place / "pairs.jsonl"), {"system": "", "packing": False, "too_long": "drop"}
    lengths = read(place, talker).audit.lengths
    most = int(np.sort(lengths)[len(lengths) // 2])
    settings = ChatSettings(max_length=most, **chats)
    found = read_pairs(data, talker.chat, talker.pictures, settings, PairSettings(num_folds=3), most=99, seed=0)
    longest = lengths.reshape(-1, 2).max(1)
    assert sorted([*found.kept, *found.held_out.places]) == np.flatnonzero(longest <= most).tolist()
