"""Operations of LLaVA-OneVision, 2 a multiply-add, from its sizes alone: matrix products only. No torch.

The image is looked at once, the language model reads every position once, the head sees one position an answer.
"""

from genloop.models.llava.config import LlavaConfig


def image_flops(config: LlavaConfig) -> float:
    """The vision tower and the projector for one tile."""
    vision, width = config.vision, config.text.hidden_size
    seen, patches = vision.hidden_size, vision.grid**2
    patch = 3 * vision.patch_size**2 * seen
    layer = 4 * seen**2 + 2 * seen * vision.intermediate_size + 2 * patches * seen
    return 2.0 * patches * (patch + config.num_vision_layers * layer + seen * width + width**2)


def text_flops(config: LlavaConfig, new: int, before: int) -> float:
    """`new` positions behind `before` others, causal, through all layers of the language model."""
    text = config.text
    width, kv = text.hidden_size, text.head_dim * text.num_key_value_heads
    layer = 2 * width**2 + 2 * width * kv + 3 * width * text.intermediate_size
    looks = new * before + new * (new + 1) / 2  # pairs of positions
    return 2.0 * text.num_hidden_layers * (new * layer + 2 * width * looks)


def head_flops(config: LlavaConfig) -> float:
    """The logits of one position."""
    return 2.0 * config.text.hidden_size * config.text.vocab_size
