"""Greedy answers of a chat model, several chats at once, with images where the model takes some.

B = chats, L = tokens of the longest prompt, D = hidden size, V = vocabulary. Prompts are padded on the left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genloop.models.qwen.chat import Chat
from genloop.models.qwen.config import SYSTEM, ChatFolder, check_chat_folder
from genloop.models.qwen.families import chat_of, pictures_of
from genloop.models.qwen.images import PatchedImage, Pictures
from genloop.models.qwen.load import load_chat_model
from genloop.models.qwen.model import ChatModel, embedded, language_of, logits_of
from genloop.records import ROLES, ChatTurn
from genloop.registry import require

Messages = Sequence[dict[str, Any]]  # {"role": "system" | "user" | "assistant", "content": text}


@dataclass(frozen=True, eq=False)
class Talker:
    """A loaded chat model with its chat and its way with images."""

    model: ChatModel
    chat: Chat
    pictures: Pictures | None

    @property
    def folder(self) -> ChatFolder:
        """What it was loaded from."""
        return self.chat.folder


@dataclass(frozen=True, eq=False)
class ChatPrompt:
    """What an answer follows, as a model reads it."""

    ids: np.ndarray  # (n,)
    positions: np.ndarray  # (n,) or (4, n)
    pictures: list[PatchedImage]


def load_talker(
    folder: Path, *, system: str = SYSTEM, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> Talker:
    """A folder as `check_chat_folder` takes it -> what `answer` asks."""
    checked = check_chat_folder(folder)
    model = load_chat_model(checked, dtype=dtype, device=device)
    return Talker(model, chat_of(checked, system), pictures_of(checked))


def greedily(logits: Tensor) -> Tensor:
    """(B, V) -> (B,)"""
    return logits.argmax(-1)


def answer(
    talker: Talker, messages: Messages, images: Sequence[np.ndarray] | None = None, *, max_new_tokens: int = 512
) -> str:
    """What the assistant says next: `answers` for one chat."""
    return answers(talker, [messages], None if images is None else [images], max_new_tokens=max_new_tokens)[0]


@torch.inference_mode()
def answers(
    talker: Talker,
    chats: Sequence[Messages],
    images: Sequence[Sequence[np.ndarray]] | None = None,
    *,
    max_new_tokens: int = 512,
    choose: Callable[[Tensor], Tensor] = greedily,
) -> list[str]:
    """The most probable next token again and again, for each chat until its answer is closed or `max_new_tokens`.

    `choose` takes another one: logits (B, V) float32 -> ids (B,), which it is asked once a token.
    images: for each chat (H, W, 3) uint8 pictures, the k-th of which stands in front of the k-th text of the user; a
    model of text leaves them out. ValueError for messages that are none, or end with an answer.
    """
    prompts = [prompt_of(talker, chat, images[i] if images else ()) for i, chat in enumerate(chats)]
    if talker.folder.has_encoder:
        return _written(talker, prompts, max_new_tokens, choose)
    written: list[list[int]] = [[] for _ in prompts]
    language, device = language_of(talker.model), talker.model.device
    embeds, mask, positions = padded(talker, prompts, device)
    cache = require("transformers").DynamicCache(config=language.config)
    open_rows = torch.ones(len(prompts), dtype=torch.bool, device=device)
    last = positions[-3:].amax((0, 2)) if positions.ndim == 3 else positions.amax(1)  # (B,)
    for _ in range(max_new_tokens):
        found = language(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        tokens = choose(logits_of(talker.model, found.last_hidden_state[:, -1]))  # (B,)
        open_rows &= tokens != talker.chat.closing
        for row in open_rows.nonzero()[:, 0].tolist():
            written[row].append(int(tokens[row]))
        if not open_rows.any():
            break
        last = last + 1
        embeds = language.embed_tokens(tokens[:, None])
        mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=1)
        positions = last[:, None] if positions.ndim == 2 else last[None, :, None].expand(3, -1, 1)
    return [talker.chat.tokenizer.decode(ids) for ids in written]


def _written(
    talker: Talker, prompts: Sequence[ChatPrompt], max_new_tokens: int, choose: Callable[[Tensor], Tensor]
) -> list[str]:
    """The same of a model whose encoder reads the prompt; the last id of that starts its decoder."""
    read = [replace(one, ids=one.ids[:-1], positions=one.positions[:-1]) for one in prompts]
    embeds, mask, _ = padded(talker, read, talker.model.device)

    def only_chosen(_: Tensor, logits: Tensor) -> Tensor:
        chosen = choose(logits.float())[:, None]
        return torch.full_like(logits, -torch.inf).scatter(1, chosen, 0.0)

    ids = talker.model.language_model.generate(
        inputs_embeds=embeds,
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        logits_processor=require("transformers").LogitsProcessorList([only_chosen]),
    )
    return [talker.chat.tokenizer.decode(row) for row in ids.tolist()]


def read_messages(messages: Messages) -> list[ChatTurn]:
    """Plain values -> messages without images; ValueError that names what is wrong with which."""
    if not messages:
        raise ValueError("messages: there are none")
    found = []
    for number, one in enumerate(messages):
        role, text = one.get("role"), one.get("content")
        if role not in ROLES or not isinstance(text, str):
            raise ValueError(f"messages[{number}]: needs a role ({', '.join(ROLES)}) and a text as content")
        found.append(ChatTurn(role, text))
    return found


def prompt_of(talker: Talker, chat: Messages, images: Sequence[np.ndarray]) -> ChatPrompt:
    """Messages, the last one of the user, with the k-th image in front of the k-th text of the user; ValueError."""
    messages = read_messages(chat)
    if messages[-1].role != "user":
        raise ValueError(f"messages[{len(messages) - 1}]: the last one must be of the user")
    if talker.pictures is None:
        ids = np.array(talker.chat.prompt_ids(messages))
        return ChatPrompt(ids, np.arange(len(ids)), [])
    users = [number for number, message in enumerate(messages) if message.role == "user"]
    if len(images) > len(users):
        raise ValueError(
            f"images: {len(images)}, but the user speaks {len(users)} times; one image stands in front of each"
        )
    for place, number in enumerate(users[: len(images)]):
        messages[number] = replace(messages[number], images=(str(place),))
    pictures = talker.pictures.asked([talker.pictures.take(image) for image in images], messages)
    grids = [picture.grid for picture in pictures]
    ids = expand_images(talker.chat.prompt_ids(messages), talker.folder.image_token, talker.pictures, grids)
    kinds = (ids == talker.folder.image_token).astype(np.int64)
    return ChatPrompt(ids, talker.pictures.positions(kinds, grids), pictures)


def expand_images(
    ids: Sequence[int], image_token: int, pictures: Pictures, grids: Sequence[tuple[int, int, int]]
) -> np.ndarray:
    """ids with one token an image -> ids (n,) with as many as its features; ValueError for other numbers of them."""
    given = np.asarray(ids, dtype=np.int64)
    is_image = given == image_token
    if is_image.sum() != len(grids):
        raise ValueError(f"the chat template puts {is_image.sum()} images into a chat that has {len(grids)}")
    repeats = np.ones(len(given), dtype=np.int64)
    repeats[is_image] = [pictures.num_tokens(grid) for grid in grids]
    return np.repeat(given, repeats)


def padded(talker: Talker, prompts: Sequence[ChatPrompt], device: Any) -> tuple[Tensor, Tensor, Tensor]:
    """-> embeddings (B, L, D), mask (B, L), positions (B, L) or (3, B, L)."""
    longest = max(len(prompt.ids) for prompt in prompts)
    ids, mask = (np.zeros((len(prompts), longest), dtype=np.int64) for _ in range(2))
    is_flat = prompts[0].positions.ndim == 1
    positions = np.zeros((1 if is_flat else 3, len(prompts), longest), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        start = longest - len(prompt.ids)
        ids[row, start:], mask[row, start:] = prompt.ids, 1
        positions[:, row, start:] = prompt.positions if is_flat else prompt.positions[1:]
    shown = [picture for prompt in prompts for picture in prompt.pictures]
    embeds = embedded(
        talker.model,
        torch.from_numpy(ids).to(device),
        image_token=talker.folder.image_token,
        pixels=[picture.pixels.to(device) for picture in shown],
        grids=[picture.grid for picture in shown],
        questions=[picture.question.to(device) for picture in shown if picture.question is not None],
    )
    places = torch.from_numpy(positions).to(device)
    return embeds, torch.from_numpy(mask).to(device), places[0] if is_flat else places
