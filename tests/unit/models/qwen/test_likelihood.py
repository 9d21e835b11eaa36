"""log p of answers against one forward pass over the whole chat; no answer depends on those beside it."""

import numpy as np
import pytest
import torch

from genloop.models.qwen.generate import Talker, expand_images, load_talker
from genloop.models.qwen.likelihood import answer_ids, log_likelihoods
from genloop.models.qwen.model import embedded, packed_hidden
from genloop.records import ChatTurn
from tests.worlds.tiny_qwen import CONFIGS, qwen_folder

ASKED = [{"role": "user", "content": "Is it 0.25?"}]
ANSWERS = ["It is 0.25: none.", "1", "No."]
IMAGE = np.random.default_rng(0).integers(0, 255, (20, 28, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=CONFIGS)
def talker(request, tmp_path_factory) -> Talker:
    return load_talker(qwen_folder(tmp_path_factory.mktemp(request.param) / "q", request.param), system="")


def direct(talker: Talker, answer: str, images: list[np.ndarray]) -> float:
    """The sum over the answer's tokens, of the whole chat at once and without a cache."""
    turns = [ChatTurn("user", ASKED[0]["content"], tuple("a" for _ in images))]
    before = talker.chat.prompt_ids(turns)
    pictures = [talker.pictures.take(image) for image in images] if talker.pictures else []
    grids, token = [picture.grid for picture in pictures], talker.folder.image_token
    whole = np.array([*before, *talker.chat.tokenizer.encode(answer)])
    if talker.pictures:
        whole = expand_images(whole, token, talker.pictures, grids)
        places = talker.pictures.positions((whole == token).astype(np.int64), grids)
    else:
        places = np.arange(len(whole))
    ids = torch.from_numpy(whole)[None]
    embeds = embedded(
        talker.model, ids, image_token=token, pixels=[picture.pixels for picture in pictures], grids=grids
    )
    positions = torch.from_numpy(places)
    with torch.inference_mode():
        hidden = packed_hidden(talker.model, embeds, positions[None] if positions.ndim == 1 else positions[:, None])
        log_p = talker.model.lm_head(hidden).log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
    return float(log_p[-len(talker.chat.tokenizer.encode(answer)) :].sum())


def test_log_p_is_that_of_one_pass_over_the_whole_chat(talker):
    images = [IMAGE] if talker.pictures else []
    found = log_likelihoods(talker, ASKED, images, ANSWERS)
    assert [one.num_tokens for one in found] == [len(answer) for answer in ANSWERS]  # a tokenizer of bytes
    for one, answer in zip(found, ANSWERS):
        assert one.log_p == pytest.approx(direct(talker, answer, images), abs=1e-4)


def test_answers_can_be_scored_alone_and_without_the_image(talker):
    images = [IMAGE] if talker.pictures else []
    together = log_likelihoods(talker, ASKED, images, ANSWERS)
    alone = [log_likelihoods(talker, ASKED, images, [answer])[0] for answer in ANSWERS]
    assert [one.log_p for one in alone] == pytest.approx([one.log_p for one in together], abs=1e-4)
    blind = log_likelihoods(talker, ASKED, [], ANSWERS)
    assert blind[0].log_p == pytest.approx(direct(talker, ANSWERS[0], []), abs=1e-4)
    if talker.pictures:
        assert blind[0].log_p != pytest.approx(together[0].log_p, abs=1e-4)


def test_the_token_that_closes_an_answer_does_not_count(talker):
    assert talker.chat.closing not in answer_ids(talker, ASKED, ANSWERS[0])
