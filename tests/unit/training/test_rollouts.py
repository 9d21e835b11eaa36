"""Rollouts: stored by parts, drawn once, the same by any number of ranks and after a kill."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from genloop.checkpoint import MANIFEST_FILE
from genloop.distributed import World, process_group
from genloop.records import Seed
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.training.rollouts import Rollouts
from tests.worlds.ranks import on_two_ranks
from tests.worlds.tiny_showo import PROMPTS, pixels_of, tiny_config, tiny_showo

PAIRS = [(prompt, Seed(7, prompt.index, 0, number)) for prompt in PROMPTS[1:4] for number in range(4)]  # 5 in a part
SETTINGS = SamplingConfig(steps=3)


class Brightness:
    """A judge by the mean of all pixels; `before` is called first."""

    def __init__(self, before=lambda: None) -> None:
        self.before = before

    def p_yes(self, question, prompts, images):
        self.before()
        return images.mean(dim=(1, 2, 3))


def rollouts(run: Path, judge=None, world: World | None = None) -> Rollouts:
    model = tiny_showo(tiny_config())
    sampler = MaskGitSampler(model, pixels_of(model), SETTINGS)
    return Rollouts(run, world or World(), sampler, judge or Brightness(), rows_per_part=5)


def files(run: Path) -> dict[str, bytes]:
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in sorted(run.rglob("*.safetensors"))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("whole")
    rollouts(run).draw(1, PAIRS)
    return run


def test_rows_are_those_of_the_sampler_alone(whole):
    found = rollouts(whole).draw(1, PAIRS)
    model = tiny_showo(tiny_config())
    sampler = MaskGitSampler(model, pixels_of(model), SETTINGS)
    state = sampler.start([PAIRS[7][0]], [PAIRS[7][1]])
    for _ in range(SETTINGS.steps):
        state = sampler.step(state)
    assert found.tokens[7].tolist() == state.tokens[0].tolist()
    assert found.revealed_at[7].tolist() == state.revealed_at[0].tolist()
    assert found.scores[7] == pytest.approx(float(sampler.decode(state.tokens).mean()))
    assert len({tuple(row) for row in found.tokens.tolist()}) == 12


def test_what_is_stored_is_not_drawn_again(whole):
    def refuse() -> None:
        raise AssertionError("drawn again")

    again = rollouts(whole, Brightness(refuse))
    assert again.is_stored(1, "images", PAIRS) and not again.is_stored(2, "images", PAIRS)
    assert torch.equal(again.draw(1, PAIRS).scores, rollouts(whole).draw(1, PAIRS).scores)
    with pytest.raises(AssertionError):
        again.draw(1, PAIRS[::-1])  # other rows at the same places


def test_a_kill_in_the_middle_costs_the_parts_that_are_not_there(whole, tmp_path):
    child = os.fork()
    if child == 0:

        def die() -> None:
            if (tmp_path / "rollouts/0000001/images-00001.safetensors").exists():
                os.kill(os.getpid(), signal.SIGKILL)

        rollouts(tmp_path, Brightness(die)).draw(1, PAIRS)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    before = files(tmp_path)
    assert len(before) == 2 and before.items() <= files(whole).items()
    rollouts(tmp_path).draw(1, PAIRS)
    assert files(tmp_path) == files(whole)


def test_a_torn_part_is_drawn_again(whole, tmp_path):
    rollouts(tmp_path).draw(1, PAIRS)
    torn = tmp_path / "rollouts/0000001/images-00001.safetensors"
    torn.write_bytes(torn.read_bytes()[:100])
    rollouts(tmp_path).draw(1, PAIRS)
    assert files(tmp_path) == files(whole)


def test_two_ranks_draw_the_rows_of_one(whole, tmp_path, monkeypatch):
    def work() -> int:
        world = World.from_environment()
        with process_group(world):
            drawn = rollouts(tmp_path, world=world).draw(1, PAIRS)
        return 0 if np.isfinite(drawn.scores).all() and len(drawn) == 12 else 1

    assert on_two_ranks(monkeypatch, work) == [0, 0]
    assert files(tmp_path) == files(whole)


def test_further_tensors_lie_beside_the_images_and_old_rollouts_go(tmp_path):
    store = rollouts(tmp_path)
    for step in (1, 9, 17):
        found = store.rows(step, "numbers", PAIRS, lambda rows: {"number": torch.tensor(list(rows))})
        assert found["number"].tolist() == list(range(12))
    store.prune(before=9)
    assert sorted(path.name for path in (tmp_path / "rollouts").iterdir()) == ["0000009", "0000017"]


def test_an_old_checkpoint_that_is_the_best_keeps_no_rollout_behind_it(tmp_path):
    store = rollouts(tmp_path)
    for step in (1, 5, 9, 13):
        store.rows(step, "numbers", PAIRS, lambda rows: {"number": torch.tensor(list(rows))})
    for step in (0, 8, 12):  # of which training goes on from the newest two
        folder = tmp_path / f"checkpoints/step-{step:07d}"
        folder.mkdir(parents=True)
        (folder / MANIFEST_FILE).touch()
    store.prune_for_checkpoints(every=4)
    assert sorted(path.name for path in (tmp_path / "rollouts").iterdir()) == ["0000009", "0000013"]
