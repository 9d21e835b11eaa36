"""Judge training: packing changes nothing, batches follow from the step, every term is what it says."""

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
from genloop.models.llava.model import embed_tokens, image_features, language_hidden
from genloop.records import TAGS, Prompt
from genloop.rewards.llava.judge import LlavaJudge
from genloop.rewards.questions import Questions
from genloop.shapes.judge_scenes import COLOR_NAMES, SHAPE_NAMES
from genloop.shapes.judge_text import judge_vocabulary
from genloop.shapes.prompts import SETS, pool
from genloop.training.objectives.judge.batches import JudgeBatches, names_in
from genloop.training.objectives.judge.branches import ANSWER, NAME, WORD
from genloop.training.objectives.judge.packing import Row, hidden_at_reads, passes
from genloop.training.objectives.judge.parts import lr_scale_of, part_of
from genloop.training.passes import checkpoint_activations
from genloop.training.settings import BatchSettings
from tests.worlds.judge_data import SCENES, paths, tokenizer, trainer, wording

MIX = BatchSettings(groups=3, paths=3, previews=2, scenes=4)
TWO_TURNS = {"potential": "promising ?"}


@pytest.fixture(scope="module")
def scenes():
    return read_judge_set(SCENES / "train")


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    return paths(tmp_path_factory.mktemp("paths"))


@pytest.fixture
def both(tmp_path, made_up, scenes):
    return trainer(tmp_path, made_up, scenes)


def batches(trainer, mix=MIX, *, seed=0, reasons=False, weights=(1.0, 1.0)) -> JudgeBatches:
    chosen = weights[: len(trainer.sets)]
    return JudgeBatches(trainer.sets, chosen, trainer.conversations, trainer.branches, mix, seed=seed, reasons=reasons)


# --- text and packing ------------------------------------------------------------------------------------------------


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


def test_a_second_turn_is_one_branch_that_is_read_twice(tmp_path, made_up):
    example = next(e for e in made_up.examples if not e.is_final)
    apart = trainer(tmp_path / "a", made_up).branches.of(example)
    together = trainer(tmp_path / "b", made_up, questions=wording(**TWO_TURNS)).branches.of(example)
    assert [branch.kinds.tolist() for branch in apart] == [[1], [2]]
    assert [branch.kinds.tolist() for branch in together] == [[1, 2]]
    assert together[0].reads[0] == len(apart[0].ids) - 1
    assert (together[0].ids[: len(apart[0].ids)] == apart[0].ids).all()


def test_names_are_read_at_their_last_token_singular_or_plural(both):
    names, words = [*SHAPE_NAMES, *COLOR_NAMES], both.branches.tokenizer
    for text, found in (("a photo of three stars", ["star"]), ("a red ring and a moon", ["red", "ring", "moon"])):
        example = replace(both.sets[1].examples[0], prompt=Prompt(0, text))
        branch = both.branches.of(example)[0]
        reads = sorted((r, t) for r, k, t in zip(branch.reads, branch.kinds, branch.targets) if k == NAME)
        assert [names[target] for _, target in reads] == found
        assert all(words.decode([branch.ids[read]]).startswith(names[target]) for read, target in reads)


def test_a_conversation_predicts_every_word_of_its_answers_and_what_closes_them(both):
    turns = [("<image> a star : done ?", "no ring"), ("why not ?", "yes")]
    branch = both.branches.conversation(turns)
    words = both.branches.tokenizer
    assert [words.decode([t]) for t in branch.targets] == ["no", "ring", "", "yes", ""]
    assert (branch.kinds == WORD).all()
    whole = [*branch.ids, branch.targets[-1]]
    assert all(whole[read + 1] == target for read, target in zip(branch.reads, branch.targets))


@pytest.mark.parametrize("front", ["", "a photo : "])
def test_packed_branches_give_the_states_they_have_alone(tmp_path, made_up, front):
    changed = {key: front + text for key, text in wording().wording.items()}
    here = trainer(tmp_path, made_up, questions=wording(**changed))
    rng = np.random.default_rng(0)
    examples = rng.permutation(len(made_up))[:12]
    images = [(0, int(image)) for image in dict.fromkeys(made_up.image_of[examples].tolist())]
    features = here.features(images)
    rows = []
    for place, (_, image) in enumerate(images):
        owners = [e for e in examples if made_up.image_of[e] == image]
        branches = [b for e in owners for b in here.branches.of(made_up.examples[e], reason=True)]
        rows.append(Row(place, branches))
    packed = hidden_at_reads(here.model, features, rows)
    assert any(len(row.branches) > 1 for row in rows) and len(set(map(len, (r.branches for r in rows)))) > 1
    alone = []
    for row in rows:
        for branch in row.branches:
            parts = [embed_tokens(here.model, torch.tensor(part)) for part in (row.front, branch.ids.tolist()) if part]
            embeds = torch.cat([*parts[:-1], features[row.image], parts[-1]])[None]
            before = len(row.front) + features.shape[1]
            alone.append(language_hidden(here.model, embeds)[0, torch.from_numpy(branch.reads) + before])
    assert torch.allclose(packed, torch.cat(alone), atol=2e-5)
    assert bool(rows[0].front) == bool(front)


def test_passes_hold_every_row_once_and_little_padding(both):
    items = batches(both)(1).items
    rows = [Row(0, one.branches) for item in items for one in item.asked]
    groups = list(passes(rows, 37))
    assert sorted(row for group in groups for row in group) == list(range(len(rows)))
    for group in groups:
        sizes = [37 + rows[row].length for row in group]
        assert max(sizes) <= 1.1 * min(sizes)


@pytest.mark.parametrize("more", [{}, TWO_TURNS])
def test_margins_are_what_the_judge_answers(tmp_path, made_up, more):
    questions = wording(**more)
    here = trainer(tmp_path, made_up, questions=questions)
    judge = LlavaJudge(here.model, here.branches.tokenizer, questions, probability="two_way")
    margins = here.all_margins(World())[0]
    assert (np.isnan(margins) == np.isnan(made_up.labels)).all()
    for number, question in enumerate(("outcome", "clarity", "potential")):
        rows = np.flatnonzero(~np.isnan(made_up.labels[:, number]))
        images = np.stack([made_up.images[made_up.image_of[row]] for row in rows])
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        expected = judge.p_yes(question, [made_up.examples[row].prompt for row in rows], pixels)
        assert torch.allclose(torch.from_numpy(margins[rows, number]).sigmoid().float(), expected, atol=1e-5)
        assert expected.std() > 1e-3


def test_questions_without_wording_are_not_measured(tmp_path, made_up):
    questions = wording()
    here = trainer(tmp_path, made_up, questions=Questions({"outcome": questions.wording["outcome"]}, questions.chat))
    margins = here.all_margins(World())[0]
    assert np.isnan(margins[:, 1:]).all() and not np.isnan(made_up.labels[:, 1:]).all()
    assert (np.isnan(margins[:, 0]) == np.isnan(made_up.labels[:, 0])).all()


def test_a_model_that_gives_no_number_is_not_measured_as_undecided(tmp_path, made_up):
    here = trainer(tmp_path, made_up)
    with torch.no_grad():
        here.model.lm_head.weight[here.branches.yes] = torch.nan
    with pytest.raises(ValueError, match=r"the judge gives no number for \d+ of \d+ held-out answers; lower train.lr"):
        here.all_margins(World())


# --- batches ---------------------------------------------------------------------------------------------------------


def keys(batch) -> list:
    return [(item.kind, item.source, [(one.image, one.examples) for one in item.asked]) for item in batch.items]


def test_a_batch_is_a_function_of_seed_and_step(both):
    drawn = batches(both)
    assert keys(drawn(3)) == keys(batches(both)(3)) != keys(drawn(4))
    assert keys(drawn(3)) != keys(batches(both, seed=1)(3))


def test_a_group_is_paths_of_one_sentence_at_the_same_steps(both):
    groups = [item for step in range(1, 30) for item in batches(both)(step).items if item.kind == "group"]
    data = both.sets[0]
    tags = Counter()
    for item in groups:
        members = [data.examples[e] for one in item.asked for e in set(one.examples)]
        assert len({member.prompt.text for member in members}) == 1
        by_path = Counter((m.sample, m.candidate) for m in members)
        assert sorted(by_path.values()) == [3, 3, 3]
        assert len({frozenset(m.step for m in members if m.candidate == c) for _, c in by_path}) == 1
        tags[members[0].prompt.tag] += 1
    assert set(tags) == {"single_object", "colors", "position"} and min(tags.values()) > len(groups) / 3 / 2


def test_a_contrast_asks_every_sentence_about_both_scenes(both):
    for item in batches(both)(1).items[3:]:
        assert item.kind == "contrast" and len(item.asked) == 2
        labels = [both.sets[1].labels[e, 0] for one in item.asked for e in one.examples]
        assert len(labels) in (2, 4)


def test_pairs_rank_the_better_of_two_images_at_one_step(both):
    data = both.sets[0]
    pairs = 0
    for item in batches(both)(1).items[:3]:
        for (better, worse, question), gap in zip(item.pairs, item.gaps):
            assert data.labels[better, question] - data.labels[worse, question] == gap > 0
            assert data.examples[better].step == data.examples[worse].step
            pairs += 1
    assert pairs == batches(both)(1).totals["pairs"] > 0


def test_data_sets_are_drawn_as_often_as_their_weights_say(tmp_path, made_up):
    here = trainer(tmp_path, made_up, made_up)
    mix = BatchSettings(groups=8, paths=2, previews=0, scenes=0)
    drawn = batches(here, mix, weights=(3.0, 1.0))
    sources = Counter(item.source for step in range(60) for item in drawn(step).items)
    assert 0.68 < sources[0] / 480 < 0.82


def test_a_batch_that_the_data_cannot_fill_is_refused(tmp_path, made_up, scenes):
    with pytest.raises(ValueError, match=r"batch.scenes: 4 in a batch, but the data has no drawn scenes"):
        batches(trainer(tmp_path, made_up))
    with pytest.raises(ValueError, match=r"batch.groups: 3 in a batch, but the data has no images of generate"):
        batches(trainer(tmp_path, scenes))
    with pytest.raises(ValueError, match=r"batch.conversations: 2 in a batch"):
        batches(trainer(tmp_path, scenes), BatchSettings(groups=0, conversations=2))


# --- the loss --------------------------------------------------------------------------------------------------------


def test_the_loss_of_a_batch_is_the_sum_over_its_items(tmp_path, made_up, scenes):
    here = trainer(tmp_path, made_up, scenes, names=0.5, reason=0.5)
    batch = batches(here, reasons=True)(1)
    whole = here.loss(batch, range(5))
    parts = [here.loss(batch, rows) for rows in ([0, 3], [1], [2, 4])]
    assert whole.weight == pytest.approx(1) == sum(part.weight for part in parts)
    assert sum(float(part.total.detach()) for part in parts) == pytest.approx(float(whole.total.detach()), rel=1e-5)
    names = {"outcome", "potential", "clarity", "pairs", "scenes", "cells", "names", "reason"}
    assert set(whole.parts) == {f"loss_{name}" for name in names}
    for name, value in whole.parts.items():
        assert sum(part.parts.get(name, 0) for part in parts) == pytest.approx(value, rel=1e-5)


def test_terms_add_up_with_their_weights(both):
    batch = batches(both)(1)
    loss = both.loss(batch, range(5))
    weights = both.weights.model_dump()
    expected = sum(weights[name.removeprefix("loss_")] * value for name, value in loss.parts.items())
    assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-5)


def first_answers(here, batch, kind: int):
    """(log p over the vocabulary, label) of every question of a kind, computed one by one."""
    for item in batch.items:
        for one in item.asked:
            features = here.features([one.image])
            for branch, example in zip(one.branches, one.examples):
                hidden = hidden_at_reads(here.model, features, [Row(0, [branch])])
                for state, found, target in zip(hidden, branch.kinds, branch.targets):
                    if found == kind:
                        label = here.sets[item.source].labels[example, kind] if kind < 3 else target
                        yield here.model.lm_head(state).float().log_softmax(-1), label


@pytest.mark.parametrize(("kind", "name"), [(0, "outcome"), (1, "clarity"), (2, "potential")])
def test_answers_are_soft_cross_entropies_over_the_vocabulary(tmp_path, made_up, kind, name):
    here = trainer(tmp_path / "t", paths(tmp_path / "p", potential=0.25))
    batch = batches(here, BatchSettings(groups=2, paths=3, previews=2, scenes=0))(1)
    yes, no = here.branches.yes, here.branches.no
    expected = [-(y * p[yes] + (1 - y) * p[no]) for p, y in first_answers(here, batch, kind)]
    found = here.loss(batch, range(2)).parts[f"loss_{name}"]
    assert len(expected) == batch.totals[name] > 0
    assert found == pytest.approx(float(torch.stack(expected).detach().mean()), rel=1e-4)


def test_pairs_are_logistic_losses_of_margins(tmp_path, made_up):
    here = trainer(tmp_path, made_up)
    batch = batches(here, BatchSettings(groups=2, paths=4, previews=1, scenes=0))(1)
    margins = here.margins(0, range(len(made_up)))
    expected = [
        gap * np.logaddexp(0, margins[worse, question] - margins[better, question])
        for item in batch.items
        for (better, worse, question), gap in zip(item.pairs, item.gaps)
    ]
    assert here.loss(batch, range(2)).parts["loss_pairs"] == pytest.approx(np.mean(expected), rel=1e-4)


def test_cells_are_named_by_the_words_own_embeddings(tmp_path, scenes):
    here = trainer(tmp_path, scenes)
    batch = batches(here, BatchSettings(groups=0, scenes=4))(1)
    words = here.branches.tokenizer
    expected, count = 0.0, 0
    for one in (one for item in batch.items for one in item.asked):
        patches = image_features(here.model, here.pixels_of(scenes.images[one.image[1]])[None])[0, :-1]
        for plane, names in enumerate((SHAPE_NAMES, COLOR_NAMES)):
            ids = torch.tensor([words.word_id(word) for word in ("background", *names)])
            target = torch.from_numpy(scenes.cells[one.image[1]][..., plane].flatten()).long()
            logits = (patches @ embed_tokens(here.model, ids).T).detach()
            expected += float(F.cross_entropy(logits, target, reduction="sum"))
        count += 36
    assert here.loss(batch, range(2)).parts["loss_cells"] == pytest.approx(expected / count, rel=1e-4)


def test_cells_that_nobody_knows_do_not_count(tmp_path, scenes):
    known = {image: np.where(np.arange(6)[:, None, None] < 3, cells, 255) for image, cells in scenes.cells.items()}
    here = trainer(tmp_path, replace(scenes, cells={image: c.astype(np.uint8) for image, c in known.items()}))
    batch = batches(here, BatchSettings(groups=0, scenes=4))(1)
    assert batch.totals["cells"] == 18 * sum(len(item.asked) for item in batch.items)
    assert np.isfinite(here.loss(batch, range(2)).parts["loss_cells"])


def test_a_name_is_in_the_image_or_not_or_nobody_knows(scenes):
    image, cells = next(iter(scenes.cells.items()))
    shape, color = cells.reshape(-1, 2).max(axis=0).tolist()
    whole = names_in(scenes, image)
    assert whole[shape - 1] == 1 and whole[len(SHAPE_NAMES) + color - 1] == 1 and set(whole) == {0.0, 1.0}
    partly = cells.copy()
    partly[np.argwhere(cells[..., 0] == 0)[0][0], np.argwhere(cells[..., 0] == 0)[0][1]] = 255
    found = names_in(replace(scenes, cells={image: partly}), image)
    assert found[shape - 1] == 1 and not (found == 0).any() and np.isnan(found).any()
    assert names_in(replace(scenes, cells={}), image) is None


def test_cells_need_a_tower_whose_patches_they_are(tmp_path, scenes):
    here = trainer(tmp_path, replace(scenes, cells={i: np.zeros((3, 3, 2), np.uint8) for i in scenes.cells}))
    batch = batches(here, BatchSettings(groups=0, scenes=2))(1)
    with pytest.raises(ValueError, match=r"cells.npy has 9 cells, the vision tower 36 patches; set loss.cells=0"):
        here.loss(batch, [0])


def test_reasons_are_predicted_word_by_word(tmp_path, made_up):
    here = trainer(tmp_path, made_up, reason=1.0)
    batch = batches(here, BatchSettings(groups=2, paths=2, previews=0, scenes=0), reasons=True)(1)
    expected = [-p[target] for p, target in first_answers(here, batch, ANSWER)]
    assert len(expected) == 4 * 3  # no, ring, and what closes the answer
    found = here.loss(batch, range(2)).parts["loss_reason"]
    assert found == pytest.approx(float(torch.stack(expected).detach().mean()), rel=1e-4)


def test_conversations_are_learned_beside_examples(tmp_path, scenes):
    (tmp_path / "a.png").write_bytes(encode_png(scenes.images[0]))
    said = [Conversation("a", tmp_path / "a.png", (("<image> a star : done ?", "no ring"),))]
    here = replace(trainer(tmp_path, scenes), conversations=said)
    batch = batches(here, BatchSettings(groups=0, scenes=2, conversations=2))(1)
    loss = here.loss(batch, range(3))
    assert batch.totals["words"] == 6 and loss.parts["loss_words"] > 0
    alone = here.loss(batch, [1])
    assert alone.parts["loss_words"] == pytest.approx(loss.parts["loss_words"] / 2, rel=1e-4)


def test_saved_memory_changes_no_gradient(tmp_path, made_up, scenes):
    found = []
    for number in range(2):
        here = trainer(tmp_path / str(number), made_up, scenes, names=0.5)
        if number:
            checkpoint_activations(here.model)
        here.loss(batches(here)(1), range(5)).total.backward()
        found.append({name: p.grad for name, p in here.model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_the_loss_falls_within_a_few_steps(both):
    drawn = batches(both)
    optimizer = torch.optim.AdamW(both.model.parameters(), lr=3e-3)
    values = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = both.loss(drawn(1), range(5))
        loss.total.backward()
        optimizer.step()
        values.append(float(loss.total.detach()))
    assert values[-1] < 0.7 * values[0]


def test_parts_have_rates_of_their_own(both):
    scale = lr_scale_of({"vision": 1e-4, "projector": None}, 1e-3)
    parts = Counter(part_of(name) for name, _ in both.model.named_parameters())
    assert set(parts) == {"vision", "projector", "language"} and parts["projector"] == 5
    assert [scale(f"model.{name}") for name in ("vision_tower.x", "image_newline", "language_model.x")] == [0.1, 1, 1]
