"""A chat model in memory: token ids and images -> hidden states -> logits, the same way for every family.

B = rows, L = tokens of a row, D = hidden size, V = vocabulary.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from genloop.models.instructblip.model import decoder_hidden
from genloop.models.qwen.images import features_of

ChatModel = Any  # one of the classes of `genloop.models.qwen.config.CLASSES`


def language_of(model: ChatModel) -> Any:
    """The language model, without its head; of InstructBLIP with Flan-T5, encoder and decoder."""
    if model.config.model_type == "instructblip":
        return getattr(model.language_model, "model", model.language_model)
    return getattr(model.model, "language_model", model.model)


def embedded(
    model: ChatModel,
    ids: Tensor,
    *,
    image_token: int = -1,
    pixels: Sequence[Tensor] = (),
    grids: Sequence[tuple[int, int, int]] = (),
    questions: Sequence[Tensor] = (),
) -> Tensor:
    """ids (B, L) -> embeddings (B, L, D), those of image tokens replaced by the features of the images, in order."""
    is_image = ids == image_token
    embeds = model.get_input_embeddings()(ids.masked_fill(is_image, 0))  # an image token may have no embedding
    if not pixels:
        return embeds
    features = features_of(model, pixels, grids, questions).to(embeds.dtype)
    return embeds.masked_scatter(is_image[..., None].expand_as(embeds), features)


def packed_hidden(model: ChatModel, embeds: Tensor, positions: Tensor, sources: Sequence[int] = ()) -> Tensor:
    """Embeddings of several documents behind each other (B, L, D) -> hidden states (B, L, D). Differentiable.

    positions (B, L), or (4, B, L) with those of text first, begin at 0 in every document. transformers keeps documents
    apart by them where there is neither a mask nor a cache, and only there. sources: of a model with an encoder, which
    takes one document a row, how many tokens of each row that reads.
    """
    if sources:
        return decoder_hidden(language_of(model), embeds, sources)
    found = language_of(model)(inputs_embeds=embeds, attention_mask=None, position_ids=positions, use_cache=False)
    return found.last_hidden_state


def logits_of(model: ChatModel, hidden: Tensor) -> Tensor:
    """Hidden states (..., D) -> logits of the next token (..., V), float32."""
    return model.get_output_embeddings()(hidden).float()
