"""A chat model in memory: token ids and images -> hidden states -> logits, the same way for every family.

B = rows, L = tokens of a row, D = hidden size, V = vocabulary.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from genloop.models.qwen.images import features_of

ChatModel = Any  # one of the classes of `genloop.models.qwen.config.CLASSES`


def language_of(model: ChatModel) -> Any:
    """The language model, without its head."""
    return getattr(model.model, "language_model", model.model)


def embedded(
    model: ChatModel,
    ids: Tensor,
    *,
    image_token: int = -1,
    pixels: Sequence[Tensor] = (),
    grids: Sequence[tuple[int, int, int]] = (),
) -> Tensor:
    """ids (B, L) -> embeddings (B, L, D), those of image tokens replaced by the features of the images, in order."""
    embeds = language_of(model).embed_tokens(ids)
    if not pixels:
        return embeds
    features = features_of(model, pixels, grids).to(embeds.dtype)
    places = (ids == image_token)[..., None].expand_as(embeds)
    return embeds.masked_scatter(places, features)


def packed_hidden(model: ChatModel, embeds: Tensor, positions: Tensor) -> Tensor:
    """Embeddings of several documents behind each other (B, L, D) -> hidden states (B, L, D). Differentiable.

    positions (B, L), or (4, B, L) with those of text first, begin at 0 in every document. transformers keeps documents
    apart by them where there is neither a mask nor a cache, and only there.
    """
    found = language_of(model)(inputs_embeds=embeds, attention_mask=None, position_ids=positions, use_cache=False)
    return found.last_hidden_state
