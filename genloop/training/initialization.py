"""Models from nothing at small width: weights scaled by fan-in, embeddings that know their patches.

At width 96 the usual std of 0.02 learns several times slower than 1 / sqrt(fan-in) with embeddings of 0.4.
K = codes, D = hidden size.
"""

import torch
from torch import Tensor

from genloop.models.llava.model import Llava
from genloop.models.showo.model import ShowO
from genloop.protocols import ImageTokenizer

EMBEDDING_STD = 0.4
POSITION_STD = 0.3  # of a judge's patches
HEAD_SHARE = 0.1  # of a judge's head: answers start near chance


@torch.no_grad()
def scale_by_fan_in(model: ShowO) -> None:
    """Rescale freshly drawn N(0, initializer_range) matrices to std 1 / sqrt(fan-in), embeddings to 0.4."""
    drawn = model.config.phi.initializer_range
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            wanted = EMBEDDING_STD if "embed_tokens" in name else parameter.shape[1] ** -0.5
            parameter.mul_(wanted / drawn)


@torch.no_grad()
def scale_judge(model: Llava, *, seed: int) -> None:
    """Draw a judge's matrices again: std 1 / sqrt(fan-in), embeddings 0.4, positions 0.3, the head a tenth.

    Keys of the language model start as its queries, so that a word looks at what is like it from the first step.
    """
    generator = _generator(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            continue
        std = parameter[0].numel() ** -0.5
        std = POSITION_STD if "position_embedding" in name else EMBEDDING_STD if "embed_tokens" in name else std
        drawn = torch.randn(parameter.shape, generator=generator) * std
        parameter.copy_(drawn * HEAD_SHARE if name.startswith("lm_head") else drawn)
    for layer in model.model.language_model.layers:
        keys, queries = layer.self_attn.k_proj.weight, layer.self_attn.q_proj.weight
        keys.copy_(queries[: len(keys)])


@torch.no_grad()
def embed_patches(model: ShowO, tokenizer: ImageTokenizer, *, seed: int) -> None:
    """Set the embeddings of the image codes to one random projection of their decoded patches, with std 0.4."""
    patches = code_patches(tokenizer)
    projection = torch.randn(patches.shape[1], model.config.phi.hidden_size, generator=_generator(seed))
    projected = (patches - patches.mean(dim=0)) @ projection
    projected *= EMBEDDING_STD / projected.std()
    first, last = model.config.code_offset, model.config.mask_token_id
    model.showo.model.embed_tokens.weight[first:last] = projected.to(model.device)


def code_patches(tokenizer: ImageTokenizer) -> Tensor:
    """(K, 3pp): the pixels of every code, decoded alone on a grid of one cell."""
    codes = torch.arange(tokenizer.num_codes)[:, None]
    return tokenizer.decode(codes, (1, 1)).flatten(1).float().cpu()


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
