"""Packing branches behind one image changes no hidden state, and passes hold little padding."""

import numpy as np
import pytest
import torch

from genloop.models.llava.model import embed_tokens, image_features, language_hidden
from genloop.training.objectives.judge.packing import Row, pack, rows_of_passes, supervised_hidden
from genloop.training.objectives.judge.settings import BatchSettings
from tests.worlds.judge_data import objective, paths, pixels, wording

NO_SCENES = BatchSettings(groups=3, paths=3, previews=2, scenes=0)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    return paths(tmp_path_factory.mktemp("paths"))


def rows_of(here, data) -> tuple[list[Row], torch.Tensor]:
    """Some images with all that is asked about them, and their features."""
    examples = np.random.default_rng(0).permutation(len(data))[:12]
    images = list(dict.fromkeys(data.image_of[examples].tolist()))
    rows = []
    for place, image in enumerate(images):
        owners = [e for e in examples if data.image_of[e] == image]
        branches = [b for e in owners for b in here.plans.branches.of_example(data.examples[e], reason=True)]
        rows.append(Row(place, branches))
    return rows, image_features(here.model, pixels(here, [(0, image) for image in images]))


@pytest.mark.parametrize("prefix", ["", "a photo : "])
def test_packed_branches_give_the_states_they_have_alone(tmp_path, made_up, prefix):
    changed = {key: prefix + text for key, text in wording().wording.items()}
    here = objective(tmp_path, made_up, questions=wording(**changed), mix=NO_SCENES)
    rows, features = rows_of(here, made_up)
    packed = supervised_hidden(here.model, features, pack(rows, features.shape[1]))
    assert any(len(row.branches) > 1 for row in rows) and len(set(map(len, (r.branches for r in rows)))) > 1
    alone = []
    for row in rows:
        for branch in row.branches:
            parts = [embed_tokens(here.model, torch.tensor(p)) for p in (row.prefix, branch.ids.tolist()) if p]
            embeds = torch.cat([*parts[:-1], features[row.image], parts[-1]])[None]
            before = len(row.prefix) + features.shape[1]
            hidden = language_hidden(here.model, embeds)
            alone.append(hidden[0, torch.from_numpy(branch.supervised_positions) + before])
    assert torch.allclose(packed, torch.cat(alone), atol=2e-5)
    assert bool(rows[0].prefix) == bool(prefix)


def test_passes_hold_every_row_once_and_little_padding(tmp_path, made_up):
    here = objective(tmp_path, made_up, mix=NO_SCENES)
    rows = [Row(0, one.branches) for item in here.plan(1).items for one in here.plans.asked(item)]
    groups = list(rows_of_passes(rows, 37))
    assert sorted(row for group in groups for row in group) == list(range(len(rows)))
    for group in groups:
        sizes = [37 + rows[row].length for row in group]
        assert max(sizes) <= 1.1 * min(sizes)


def test_passes_of_other_ranks_change_nothing(tmp_path, made_up):
    here = objective(tmp_path, made_up, mix=NO_SCENES)
    rows, features = rows_of(here, made_up)
    packed = pack(rows, features.shape[1])
    more = supervised_hidden(here.model, features, packed, max_passes_over_ranks=lambda passes: passes + 2)
    assert torch.equal(more, supervised_hidden(here.model, features, packed))
