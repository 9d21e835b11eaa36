"""InstructBLIP by this suite against transformers' own processor and forward pass, with Vicuna and with Flan-T5."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genloop.models.qwen.config import check_chat_folder
from genloop.models.qwen.generate import Talker, answer, answers, load_talker
from genloop.models.qwen.likelihood import log_likelihoods
from genloop.models.qwen.load import files_of, save_chat_model
from genloop.records import ChatTurn
from genloop.registry import require
from genloop.training.objectives.conversations.batches import collate
from genloop.training.objectives.conversations.documents import Documents
from genloop.training.objectives.conversations.objective import token_losses
from genloop.training.objectives.conversations.settings import ChatSettings
from tests.worlds.tiny_instructblip import LANGUAGES, instructblip_folder, write_rounds

WORDS = ("what", "is", "here", "red", "square", "The")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("instructblip")
    for language in LANGUAGES:
        instructblip_folder(place / language, language, words=WORDS)
    write_rounds(place, count=3)
    return place


@pytest.fixture(scope="module", params=LANGUAGES)
def talker(request, place) -> Talker:
    return load_talker(place / request.param)


def processor_of(talker: Talker):
    return require("transformers").InstructBlipProcessor.from_pretrained(str(talker.folder.folder))


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 52, 3), dtype=np.uint8)


def documents(place: Path, talker: Talker) -> Documents:
    from genloop.data.chats import ChatFile

    source = ChatFile(place / "rounds.jsonl")
    return Documents([(source, range(len(source)))], talker.chat, talker.pictures, ChatSettings(packing=False))


def test_a_question_has_the_ids_and_pixels_of_the_published_processor(talker):
    expected = processor_of(talker)(images=Image.fromarray(picture()), text="what is here?", return_tensors="pt")
    asked = [ChatTurn("user", "what is here?", ("a",))]
    ids = talker.chat.prompt_ids(asked)
    ids = ids[:-1] if talker.folder.has_encoder else ids  # the start of the decoder
    shown = talker.pictures.asked([talker.pictures.take(picture())], asked)[0]
    assert ids[:1] * shown.num_tokens + ids[1:] == expected["input_ids"][0].tolist()
    assert torch.equal(shown.pixels, expected["pixel_values"][0])
    assert torch.equal(shown.question, expected["qformer_input_ids"][0])


def test_losses_of_several_chats_side_by_side_are_those_of_the_published_forward_pass(place, talker):
    found = documents(place, talker)
    batch = collate([[found[number]] for number in range(3)])
    losses, _ = token_losses(talker.model, batch, talker.folder.image_token)
    processor, tokenizer = processor_of(talker), talker.chat.tokenizer
    for number in range(3):
        asked, said = found.row(number).messages
        image = Image.open(place / asked.images[0])
        inputs = dict(processor(images=image, text=asked.text, return_tensors="pt"))
        targets = torch.tensor([[*tokenizer.encode(said.text), talker.chat.closing]])
        if talker.folder.has_encoder:
            logits = talker.model(**inputs, labels=targets).logits
        else:
            width = inputs["input_ids"].shape[1]
            inputs["input_ids"] = torch.cat([inputs["input_ids"], targets], dim=1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            logits = talker.model(**inputs).logits[:, width - 1 : -1]
        expected = torch.nn.functional.cross_entropy(logits[0], targets[0], reduction="none")
        assert torch.allclose(losses[batch.rows == number], expected, atol=1e-5)


def test_answers_are_those_of_generate_and_a_longer_chat_beside_changes_none(talker):
    chats = [[{"role": "user", "content": text}] for text in ("what is here?", "is it the red one, do you think?")]
    both = answers(talker, chats, [[picture(0)], [picture(1)]], max_new_tokens=5)
    assert both == [answer(talker, chat, [picture(i)], max_new_tokens=5) for i, chat in enumerate(chats)]
    processor = processor_of(talker)
    inputs = processor(images=Image.fromarray(picture(0)), text="what is here?", return_tensors="pt")
    ids = talker.model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=5)
    written = processor.tokenizer.batch_decode(ids, skip_special_tokens=True)[0]
    assert written.removeprefix("what is here?") == both[0]


def test_answers_are_as_probable_as_training_has_them_and_each_by_itself(place, talker):
    found = documents(place, talker)
    asked, said = found.row(0).messages
    losses, _ = token_losses(talker.model, collate([[found[0]]]), talker.folder.image_token)
    messages, image = [{"role": "user", "content": asked.text}], np.array(Image.open(place / asked.images[0]))
    both = log_likelihoods(talker, messages, [image], [said.text, "It is the red square, what else?", ""])
    assert both[0].num_tokens == len(losses) - 1 and both[2].num_tokens == 0  # the token that closes it has no part
    assert both[0].log_p == pytest.approx(-float(losses[:-1].detach().sum()), abs=1e-4)
    assert both[0].log_p == pytest.approx(log_likelihoods(talker, messages, [image], [said.text])[0].log_p, abs=1e-4)
    assert both[0].log_p != log_likelihoods(talker, messages, [], [said.text])[0].log_p  # as probable without the image


def test_a_checkpoint_without_an_image_token_has_the_same_losses(place, talker, tmp_path):
    folder = shutil.copytree(talker.folder.folder, tmp_path / "older")
    config = json.loads((folder / "config.json").read_text())
    del config["image_token_index"]
    (folder / "config.json").write_text(json.dumps(config))
    older, losses = load_talker(folder), []
    for one in (older, talker):
        found = documents(place, one)
        losses.append(token_losses(one.model, collate([[found[0]]]), one.folder.image_token)[0])
    assert torch.equal(*losses)


def test_a_question_longer_than_the_query_transformer_takes_is_cut_for_it_alone(talker):
    text = "is it red " * 300
    shown = talker.pictures.asked([talker.pictures.take(picture())], [ChatTurn("user", text, ("a",))])[0]
    assert len(shown.question) == 512 < len(talker.chat.prompt_ids([ChatTurn("user", text, ("a",))]))


def test_a_saved_model_has_the_published_names_and_loads_without_this_suite(talker, tmp_path):
    save_chat_model(talker.model, tmp_path / "saved", files_of(talker.folder.folder))
    kind = require("transformers").InstructBlipForConditionalGeneration
    loaded, told = kind.from_pretrained(str(tmp_path / "saved"), output_loading_info=True)
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    inputs = processor_of(talker)(images=Image.fromarray(picture()), text="what?", return_tensors="pt")
    inputs |= {"decoder_input_ids": torch.zeros(1, 1, dtype=torch.long)} if talker.folder.has_encoder else {}
    with torch.no_grad():
        assert torch.equal(loaded.eval()(**inputs).logits, talker.model(**inputs).logits)
    assert processor_of(load_talker(tmp_path / "saved")).num_query_tokens == 4


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ([ChatTurn("system", "a"), ChatTurn("user", "b", ("a",))], "system"),
        ([ChatTurn("user", "b", ("a",)), ChatTurn("assistant", "c"), ChatTurn("user", "d")], "one question"),
        ([ChatTurn("user", "b", ("a", "a"))], "one image"),
        ([ChatTurn("user", "b </s>", ("a",))], "</s>"),
    ],
)
def test_chats_that_it_was_not_made_for_are_refused(talker, said, named):
    with pytest.raises(ValueError, match=named):
        talker.chat.pieces(said)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda folder: shutil.rmtree(folder / "qformer_tokenizer"), "qformer_tokenizer"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "preprocessor_config.json"),
        (lambda folder: (folder / "processor_config.json").write_text('{"num_query_tokens": 9}'), "num_query_tokens"),
        (lambda folder: _configure(folder, text_config={"model_type": "lama"}), "text_config.model_type"),
        (lambda folder: _configure(folder, qformer_config=None), "qformer_config"),
    ],
)
def test_a_folder_that_is_not_as_published_is_refused(place, tmp_path, change, named):
    folder = shutil.copytree(place / "vicuna", tmp_path / "broken")
    change(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=named) as caught:
        check_chat_folder(folder)
    assert "\n" not in str(caught.value)


def _configure(folder: Path, **keys) -> None:
    config = json.loads((folder / "config.json").read_text()) | keys
    (folder / "config.json").write_text(json.dumps(config))
