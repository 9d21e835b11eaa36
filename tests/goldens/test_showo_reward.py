"""Pixels, features, logits and P(yes) equal the published judge's, on every recorded set; so do the questions."""

from pathlib import Path

import pytest
import torch

from genloop.models.llava.model import embed_tokens, image_features
from genloop.models.llava.pixels import pad_tile
from genloop.models.llava.segments import Segment, next_logits
from genloop.rewards.llava.pieces import Chain, PieceRunner, TextPiece, image_piece
from genloop.rewards.questions import IMAGE, PROMPT, Questions
from tests.goldens.reward_sets import RewardSet, reward_sets
from tests.goldens.roots import golden_name, golden_paths
from tests.goldens.showo_sets import read_json
from tests.worlds.tiny_llava import first_token_logits

TOLERANCE = 1e-4
SETS = reward_sets()
PROMPTS = golden_paths("showo/**/reward_prompts.json")


def name_of(golden: RewardSet) -> str:
    return golden_name(golden.folder)


def chain(golden: RewardSet, item: int) -> Chain:
    before, behind = golden.texts(item)
    return TextPiece(before), image_piece(golden.image(item)), TextPiece(behind)


def logits_of(golden: RewardSet, chains: list[Chain], tokens_per_forward: int = 16384) -> list[torch.Tensor]:
    runner = PieceRunner(golden.model, golden.config, "pad", tokens_per_forward, 10**9)

    def finish(segments: list[Segment]) -> list[torch.Tensor]:
        return list(next_logits(golden.model, segments))

    return runner.run(chains, finish)


@pytest.mark.parametrize("golden", SETS, ids=name_of)
def test_pixels_equal_the_recorded_ones_bit_for_bit(golden: RewardSet) -> None:
    for item in range(golden.num_items):
        tile = pad_tile(golden.image(item), golden.config.vision.image_size)
        assert torch.equal(tile[:, ::16, ::16], golden.arrays[f"pixel_values_every16_{item}"])


@pytest.mark.parametrize("golden", SETS, ids=name_of)
@torch.inference_mode()
def test_features_equal_the_recorded_ones(golden: RewardSet) -> None:
    for item in range(golden.num_items):
        tile = pad_tile(golden.image(item), golden.config.vision.image_size)
        ours = image_features(golden.model, tile[None])[0]
        recorded = golden.arrays[f"projected_features{item}"].float()  # stored in half precision
        assert torch.allclose(ours[:-1], recorded, rtol=2**-11, atol=TOLERANCE)
        assert torch.equal(ours[-1], golden.model.model.image_newline)


@pytest.mark.parametrize("golden", SETS, ids=name_of)
@torch.inference_mode()
def test_answers_in_one_pass_equal_the_recorded_ones(golden: RewardSet) -> None:
    for item in range(golden.num_items):
        tile = pad_tile(golden.image(item), golden.config.vision.image_size)
        before, behind = (embed_tokens(golden.model, torch.tensor(ids)) for ids in golden.texts(item))
        row = torch.cat([before, image_features(golden.model, tile[None])[0], behind])
        assert len(row) == golden.arrays[f"n_positions{item}"]
        logits = first_token_logits(golden.model, row[None], torch.tensor([len(row)]))[0]
        assert (logits - golden.arrays[f"logits_last{item}"]).abs().max() <= TOLERANCE


@pytest.mark.parametrize("golden", SETS, ids=name_of)
def test_answers_in_pieces_equal_the_recorded_ones(golden: RewardSet) -> None:
    chains = [chain(golden, item) for item in range(golden.num_items)]
    for item, logits in enumerate(logits_of(golden, chains)):
        assert (logits - golden.arrays[f"logits_last{item}"]).abs().max() <= TOLERANCE
        for word in ("yes", "no"):
            p = logits.softmax(-1)[golden.keys[f"{word}_id"]]
            assert abs(p - golden.arrays[f"p_{word}{item}"]) <= 1e-5


@pytest.mark.parametrize("golden", SETS, ids=name_of)
def test_an_answer_has_the_same_bits_alone_and_in_a_batch(golden: RewardSet) -> None:
    chains = [chain(golden, item) for item in range(golden.num_items)]
    together, alone = logits_of(golden, chains), logits_of(golden, chains, tokens_per_forward=1)
    assert all(torch.equal(a, b) for a, b in zip(together, alone))


@pytest.mark.parametrize("path", PROMPTS, ids=golden_name)
@pytest.mark.parametrize(
    ("question", "recorded"),
    [("outcome", "orm"), ("clarity", "clarity"), ("potential", "potential_second_turn"), ("dpo_reward", "dpo_reward")],
)
def test_the_released_questions_equal_the_recorded_ones(path: Path, question: str, recorded: str) -> None:
    ours = Questions().wording[question].replace(PROMPT, "{PROMPT}")
    assert ours == read_json(path)["questions"][recorded]


@pytest.mark.parametrize("path", PROMPTS, ids=golden_name)
@pytest.mark.parametrize("question", ["outcome", "clarity", "potential", "dpo_reward"])
def test_the_chats_equal_the_recorded_ones(path: Path, question: str) -> None:
    first, *rest = Questions().pieces(question, "{PROMPT}")
    recorded = read_json(path)["rendered_chat"]["orm" if question == "outcome" else question]
    assert first + IMAGE + "".join(rest) == recorded
