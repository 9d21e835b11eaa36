"""Answers and hidden states are those of the stock models; packed documents do not see each other."""

import numpy as np
import pytest
import torch

from genloop.models.qwen.config import check_chat_folder
from genloop.models.qwen.generate import Talker, answer, answers, expand_images, load_talker
from genloop.models.qwen.load import load_chat_model, save_chat_model
from genloop.models.qwen.model import embedded, packed_hidden
from genloop.records import ChatTurn
from genloop.registry import require
from genloop.training.parts import cast_parameters
from tests.worlds.tiny_qwen import CONFIGS, qwen_folder

ASKED = [{"role": "user", "content": "Is it 0.25?"}]
IMAGE = np.random.default_rng(0).integers(0, 255, (20, 28, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=CONFIGS)
def talker(request, tmp_path_factory) -> Talker:
    return load_talker(qwen_folder(tmp_path_factory.mktemp(request.param) / "q", request.param))


def shown(talker: Talker, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings (1, n, D) and positions of one question, with the image where the model takes one."""
    if talker.pictures is None:
        ids = torch.tensor([talker.chat.prompt_ids([ChatTurn("user", text)])])
        return embedded(talker.model, ids), torch.arange(ids.shape[1])[None]
    picture, token = talker.pictures.take(IMAGE), talker.folder.image_token
    short = talker.chat.prompt_ids([ChatTurn("user", text, images=("a",))])
    ids = expand_images(short, token, talker.pictures, [picture.grid])
    positions = talker.pictures.positions((ids == token).astype(np.int64), [picture.grid])
    images = {"pixels": [picture.pixels], "grids": [picture.grid]}
    embeds = embedded(talker.model, torch.from_numpy(ids)[None], image_token=token, **images)
    places = torch.from_numpy(positions)
    return embeds, places[None] if places.ndim == 1 else places[:, None]


def test_answers_of_text_are_those_of_the_library(tmp_path):
    talker = load_talker(qwen_folder(tmp_path / "q", seed=3))
    ids = torch.tensor([talker.chat.prompt_ids([ChatTurn("user", ASKED[0]["content"])])])
    stock = talker.model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
    assert answer(talker, ASKED, max_new_tokens=12) == talker.chat.tokenizer.decode(stock.tolist())


def test_several_chats_are_answered_as_each_alone(talker):
    chats = [ASKED, [{"role": "user", "content": "And what of all the others?"}]]
    images = None if talker.pictures is None else [[IMAGE], [IMAGE[:12]]]
    together = answers(talker, chats, images, max_new_tokens=5)
    alone = [answer(talker, chat, images and images[i], max_new_tokens=5) for i, chat in enumerate(chats)]
    assert together == alone


def test_hidden_states_of_images_and_text_are_those_of_the_library(tmp_path):
    talker = load_talker(qwen_folder(tmp_path / "q", "vl"))
    embeds, positions = shown(talker, "What is it?")
    picture, token = talker.pictures.take(IMAGE), talker.folder.image_token
    short = talker.chat.prompt_ids([ChatTurn("user", "What is it?", images=("a",))])
    ids = torch.from_numpy(expand_images(short, token, talker.pictures, [picture.grid]))[None]
    with torch.inference_mode():
        found = packed_hidden(talker.model, embeds, positions)
        stock = talker.model.model(
            input_ids=ids,
            pixel_values=picture.pixels,
            image_grid_thw=torch.tensor([picture.grid]),
            mm_token_type_ids=(ids == token).int(),
        ).last_hidden_state
    assert torch.allclose(found, stock, atol=1e-5)


def test_packed_documents_do_not_see_each_other(talker):
    """In training mode, where transformers would make a cache that turns the separation off."""
    talker.model.train()
    (one, places), (other, _), (second, more) = (shown(talker, text) for text in ("first", "FIRST", "the second"))
    with torch.no_grad():
        alone = packed_hidden(talker.model, second, more)
        packed = [
            packed_hidden(talker.model, torch.cat([before, second], 1), torch.cat([places, more], -1))
            for before in (one, other)
        ]
        joined = torch.arange(one.shape[1] + second.shape[1])[None].expand(*places.shape[:-1], -1)
        leaking = packed_hidden(talker.model, torch.cat([one, second], 1), joined)
    talker.model.eval()
    for found in packed:
        assert torch.allclose(found[:, one.shape[1] :], alone, atol=1e-5)
    assert not torch.allclose(leaking[:, one.shape[1] :], alone, atol=1e-3)


def test_a_saved_model_is_loaded_in_the_type_that_it_was_saved_in(tmp_path):
    loaded = load_chat_model(check_chat_folder(qwen_folder(tmp_path / "vl", "vl")))
    cast_parameters(loaded, torch.bfloat16)
    save_chat_model(loaded, tmp_path / "saved", {})
    kind = require("transformers").AutoModelForImageTextToText
    saved = kind.from_pretrained(str(tmp_path / "saved"), dtype="auto", local_files_only=True)
    assert {parameter.dtype for parameter in saved.parameters()} == {torch.bfloat16}


def test_an_image_that_no_text_of_the_user_stands_behind_is_refused(talker):
    if talker.pictures is not None:
        with pytest.raises(ValueError, match=r"^images: 2,"):
            answer(talker, ASKED, [IMAGE, IMAGE], max_new_tokens=1)
