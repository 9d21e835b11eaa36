"""How probable given answers are after a chat: log p of their tokens, all answers behind one pass over the chat.

R = answers, P = tokens of the chat, m = tokens of the longest answer, D = hidden size, V = vocabulary.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from genloop.models.instructblip.model import decoder_hidden
from genloop.models.qwen.generate import ChatPrompt, Messages, Talker, padded, prompt_of, read_messages
from genloop.models.qwen.model import embedded, language_of, logits_of
from genloop.records import ChatTurn, Likelihood
from genloop.registry import require

_POSITIONS = 256  # whose logits over the vocabulary are held at a time


@torch.inference_mode()
def log_likelihoods(
    talker: Talker, messages: Messages, images: Sequence[np.ndarray], answers: Sequence[str]
) -> list[Likelihood]:
    """log p of each answer after the messages, of which the last is of the user; images as `answers` takes them.

    An answer is tokenised as training and generating do, behind its prompt; the token that closes it is not counted.
    """
    prompt = prompt_of(talker, messages, images)
    ids = [answer_ids(talker, messages, answer) for answer in answers]
    if talker.folder.has_encoder:
        hidden = _decoded(talker, prompt, ids)
        return [_summed(talker, row, one) for row, one in zip(hidden, ids, strict=True)]
    language, device = language_of(talker.model), talker.model.device
    embeds, mask, positions = padded(talker, [prompt], device)
    cache = require("transformers").DynamicCache(config=language.config)
    found = language(
        inputs_embeds=embeds, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
    )
    before = found.last_hidden_state[0, -1]  # (D,)
    rows = [before[None]] * len(ids)
    longest = max(map(len, ids))
    if longest > 1:
        cache.batch_repeat_interleave(len(ids))
        start = int(positions.max()) + 1
        rows = [
            torch.cat([before[None], row[: max(len(one) - 1, 0)]])
            for one, row in zip(ids, _behind(talker, ids, longest - 1, start, mask.shape[1], cache))
        ]
    return [_summed(talker, row, one) for row, one in zip(rows, ids, strict=True)]


def answer_ids(talker: Talker, messages: Messages, answer: str) -> list[int]:
    """The tokens of an answer as they stand in the chat, without the one that closes it."""
    pieces = talker.chat.pieces([*read_messages(messages), ChatTurn("assistant", answer)])
    return talker.chat.tokenizer.encode([piece.text for piece in pieces if piece.is_answer][-1])


def _behind(
    talker: Talker, ids: Sequence[Sequence[int]], length: int, start: int, num_before: int, cache: object
) -> Tensor:
    """Hidden states (R, length, D) of the answers, padded on the right; the cache holds the chat R times."""
    language, device = language_of(talker.model), talker.model.device
    table = np.zeros((len(ids), length), dtype=np.int64)
    mask = np.ones((len(ids), num_before + length), dtype=np.int64)
    for row, one in enumerate(ids):
        read = one[:-1]  # the last token is only predicted
        table[row, : len(read)] = read
        mask[row, num_before + len(read) :] = 0
    places = torch.arange(start, start + length, device=device).expand(len(ids), -1)
    is_flat = talker.folder.family not in ("qwen2_vl", "qwen2_5_vl")
    found = language(
        inputs_embeds=embedded(talker.model, torch.from_numpy(table).to(device)),
        attention_mask=torch.from_numpy(mask).to(device),
        position_ids=places if is_flat else places[None].expand(3, -1, -1),
        past_key_values=cache,
        use_cache=True,
    )
    return found.last_hidden_state


def _decoded(talker: Talker, prompt: ChatPrompt, ids: Sequence[Sequence[int]]) -> Tensor:
    """Hidden states (R, m, D) in front of each token of the answers, of a model whose encoder reads the chat."""
    read = replace(prompt, ids=prompt.ids[:-1], positions=prompt.positions[:-1])
    embeds, _, _ = padded(talker, [read], talker.model.device)
    table = np.full((len(ids), max(1, *map(len, ids))), prompt.ids[-1])
    for row, one in enumerate(ids):
        table[row, 1 : len(one)] = one[:-1]
    starts = embedded(talker.model, torch.from_numpy(table).to(embeds.device))
    both = torch.cat([embeds.expand(len(ids), -1, -1), starts], dim=1)
    return decoder_hidden(language_of(talker.model), both, [embeds.shape[1]] * len(ids))[:, embeds.shape[1] :]


def _summed(talker: Talker, hidden: Tensor, ids: Sequence[int]) -> Likelihood:
    """Hidden states (>= m, D) in front of each token -> the sum of log p, in float64."""
    total = 0.0
    for start in range(0, len(ids), _POSITIONS):
        targets = torch.tensor(ids[start : start + _POSITIONS], device=hidden.device)
        logits = logits_of(talker.model, hidden[start : start + len(targets)])  # (k, V)
        log_p = logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(1)
        total += float(log_p.double().sum())
    return Likelihood(total, len(ids))
