"""Every term of a judge's loss is what it says, and a batch's loss is the sum over its items."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from genloop.data.images import encode_png
from genloop.data.judge.conversations import Conversation
from genloop.data.judge.dataset import read_judge_set
from genloop.distributed import World
from genloop.models.llava.load import load_llava, save_llava
from genloop.models.llava.model import embed_tokens, image_features, language_hidden
from genloop.shapes.judge_scenes import COLOR_NAMES, SHAPE_NAMES
from genloop.training.objectives.judge.branches import REASON
from genloop.training.objectives.judge.packing import Row, pack, supervised_hidden
from genloop.training.objectives.judge.settings import BatchSettings
from genloop.training.parts import cast_parameters, lr_scale_of, part_of
from genloop.training.passes import checkpoint_activations
from tests.worlds.judge_data import SCENES, held_out, loss, objective, paths, pixels

FEW_SCENES = BatchSettings(groups=0, scenes=4)


@pytest.fixture(scope="module")
def scenes():
    return read_judge_set(SCENES / "train")


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    return paths(tmp_path_factory.mktemp("paths"))


@pytest.fixture
def both(tmp_path, made_up, scenes):
    return objective(tmp_path, made_up, scenes)


def test_the_loss_of_a_batch_is_the_sum_over_its_items(tmp_path, made_up, scenes):
    here = objective(tmp_path, made_up, scenes, names=0.5, reason=0.5)
    plan = here.plan(1)
    whole = loss(here, plan, range(5))
    parts = [loss(here, plan, numbers) for numbers in ([0, 3], [1], [2, 4])]
    assert whole.weight == pytest.approx(1) == sum(part.weight for part in parts)
    assert sum(float(part.total.detach()) for part in parts) == pytest.approx(float(whole.total.detach()), rel=1e-5)
    assert all(part.parts.keys() == whole.parts.keys() for part in parts)  # ranks add them up by their order
    names = {"outcome", "potential", "clarity", "pairs", "scenes", "cells", "names", "reason"}
    assert set(whole.parts) == {f"loss_{name}" for name in names}
    for name, value in whole.parts.items():
        assert sum(part.parts[name] for part in parts) == pytest.approx(value, rel=1e-5)


def test_terms_add_up_with_their_weights(both):
    found = loss(both, both.plan(1), range(5))
    weights = both.weights.model_dump()
    expected = sum(weights[name.removeprefix("loss_")] * value for name, value in found.parts.items())
    assert float(found.total.detach()) == pytest.approx(expected, rel=1e-5)


def test_a_term_without_weight_is_not_computed(tmp_path, scenes):
    here = objective(tmp_path, scenes, mix=FEW_SCENES, cells=0.0)
    assert set(loss(here, here.plan(1), range(2)).parts) == {"loss_scenes", "loss_names"}


def first_answers(here, plan, kind: int):
    """(log p over the vocabulary, label) of every question of a kind, computed one by one."""
    for item in plan.items:
        for one in here.plans.asked(item):
            features = image_features(here.model, pixels(here, [one.image]))
            for branch, example in zip(one.branches, one.examples):
                packed = pack([Row(0, [branch])], features.shape[1])
                hidden = supervised_hidden(here.model, features, packed)
                for state, found, target in zip(hidden, branch.kinds, branch.targets):
                    if found == kind:
                        labels = here.plans.data.sets[item.source].labels
                        label = labels[example, kind] if kind < 3 else target
                        yield here.model.lm_head(state).float().log_softmax(-1), label


@pytest.mark.parametrize(("kind", "name"), [(0, "outcome"), (1, "clarity"), (2, "potential")])
def test_answers_are_soft_cross_entropies_over_the_vocabulary(tmp_path, kind, name):
    mix = BatchSettings(groups=2, paths=3, previews=2, scenes=0)
    here = objective(tmp_path / "t", paths(tmp_path / "p", potential=0.25), mix=mix)
    plan = here.plan(1)
    yes, no = here.plans.branches.yes, here.plans.branches.no
    expected = [-(y * p[yes] + (1 - y) * p[no]) for p, y in first_answers(here, plan, kind)]
    found = loss(here, plan, range(2)).parts[f"loss_{name}"]
    assert len(expected) == plan.shared[1][name] > 0
    assert found == pytest.approx(float(torch.stack(expected).detach().mean()), rel=1e-4)


def test_pairs_are_logistic_losses_of_margins(tmp_path, made_up):
    here = objective(tmp_path, made_up, mix=BatchSettings(groups=2, paths=4, previews=1, scenes=0))
    plan = here.plan(1)
    margins = np.full(made_up.labels.shape, np.nan)
    answers = held_out(here).answers(here.model, World())
    margins[~np.isnan(made_up.labels)] = [answer.margin for answer in answers]
    expected = [
        gap * np.logaddexp(0, margins[worse, question] - margins[better, question])
        for item in plan.items
        for (better, worse, question), gap in zip(*here.plans.pairs(item))
    ]
    assert loss(here, plan, range(2)).parts["loss_pairs"] == pytest.approx(np.mean(expected), rel=1e-4)


def test_cells_are_named_by_the_words_own_embeddings(tmp_path, scenes):
    here = objective(tmp_path, scenes, mix=FEW_SCENES)
    plan = here.plan(1)
    words = here.plans.branches.tokenizer
    expected, count = 0.0, 0
    for one in (one for item in plan.items for one in here.plans.asked(item)):
        patches = image_features(here.model, pixels(here, [one.image]))[0, :-1]
        for plane, names in enumerate((SHAPE_NAMES, COLOR_NAMES)):
            ids = torch.tensor([words.word_id(word) for word in ("background", *names)])
            target = torch.from_numpy(scenes.cells[one.image[1]][..., plane].flatten()).long()
            logits = (patches @ embed_tokens(here.model, ids).T).detach()
            expected += float(F.cross_entropy(logits, target, reduction="sum"))
        count += 36
    assert loss(here, plan, range(2)).parts["loss_cells"] == pytest.approx(expected / count, rel=1e-4)


def test_cells_that_nobody_knows_do_not_count(tmp_path, scenes):
    known = {image: np.where(np.arange(6)[:, None, None] < 3, cells, 255) for image, cells in scenes.cells.items()}
    partly = replace(scenes, cells={image: c.astype(np.uint8) for image, c in known.items()})
    here = objective(tmp_path, partly, mix=FEW_SCENES)
    plan = here.plan(1)
    assert plan.shared[1]["cells"] == 18 * sum(len(here.plans.asked(item)) for item in plan.items)
    assert np.isfinite(loss(here, plan, range(2)).parts["loss_cells"])


def test_cells_need_a_tower_whose_patches_they_are(tmp_path, scenes):
    coarse = replace(scenes, cells={i: np.zeros((3, 3, 2), np.uint8) for i in scenes.cells})
    here = objective(tmp_path, coarse, mix=BatchSettings(groups=0, scenes=2))
    with pytest.raises(ValueError, match=r"cells\.npy has 9 .*36 .*loss\.cells=0"):
        loss(here, here.plan(1), [0])


def test_reasons_are_predicted_word_by_word(tmp_path, made_up):
    mix = BatchSettings(groups=2, paths=2, previews=0, scenes=0)
    here = objective(tmp_path, made_up, mix=mix, reason=1.0)
    plan = here.plan(1)
    expected = [-p[target] for p, target in first_answers(here, plan, REASON)]
    assert len(expected) == 4 * 3  # no, ring, and what closes the answer
    found = loss(here, plan, range(2)).parts["loss_reason"]
    assert found == pytest.approx(float(torch.stack(expected).detach().mean()), rel=1e-4)


def test_conversations_are_learned_beside_examples(tmp_path, scenes):
    (tmp_path / "a.png").write_bytes(encode_png(scenes.images[0]))
    said = [Conversation("a", tmp_path / "a.png", (("<image> a star : done ?", "no ring"),))]
    mix = BatchSettings(groups=0, scenes=2, conversations=2)
    here = objective(tmp_path, scenes, mix=mix, conversations=said)
    plan = here.plan(1)
    whole = loss(here, plan, range(3))
    assert plan.shared[1]["words"] == 6 and whole.parts["loss_words"] > 0
    assert loss(here, plan, [1]).parts["loss_words"] == pytest.approx(whole.parts["loss_words"] / 2, rel=1e-4)


def test_saved_memory_changes_no_gradient(tmp_path, made_up, scenes):
    found = []
    for number in range(2):
        here = objective(tmp_path / str(number), made_up, scenes, names=0.5)
        if number:
            checkpoint_activations(here.model)
        loss(here, here.plan(1), range(5)).total.backward()
        found.append({name: p.grad for name, p in here.model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_the_loss_falls_within_a_few_steps(both):
    optimizer = torch.optim.AdamW(both.model.parameters(), lr=3e-3)
    values = []
    for _ in range(12):
        optimizer.zero_grad()
        found = loss(both, both.plan(1), range(5))
        found.total.backward()
        optimizer.step()
        values.append(float(found.total.detach()))
    assert values[-1] < 0.7 * values[0]


def test_parts_have_rates_of_their_own(both):
    scale = lr_scale_of({"vision": 1e-4, "projector": None}, 1e-3)
    parts = Counter(part_of(name) for name, _ in both.model.named_parameters())
    assert set(parts) == {"vision", "projector", "language"} and parts["projector"] == 5
    assert [scale(f"model.{name}") for name in ("vision_tower.x", "image_newline", "language_model.x")] == [0.1, 1, 1]


def test_a_judge_of_another_dtype_keeps_its_angles_as_the_saved_one_has_them(both, tmp_path):
    """A far position in bfloat16 would be turned by the wrong angle if the rotary frequencies were cast too."""
    frequencies = both.model.model.language_model.rotary_emb.inv_freq.clone()
    embeds = torch.zeros(1, 1, 16)
    embeds[..., 0] = 1
    positions = torch.tensor([[900]])
    before = both.model.model.language_model.rotary_emb(embeds, positions)
    cast_parameters(both.model, torch.bfloat16)
    assert {p.dtype for p in both.model.parameters()} == {torch.bfloat16}
    assert torch.equal(both.model.model.language_model.rotary_emb.inv_freq, frequencies)
    after = both.model.model.language_model.rotary_emb(embeds, positions)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    found = language_hidden(both.model, embeds.bfloat16(), positions=positions)
    save_llava(both.model, tmp_path / "judge")
    saved = load_llava(tmp_path / "judge", dtype=torch.bfloat16)
    assert torch.equal(found, language_hidden(saved, embeds.bfloat16(), positions=positions))
