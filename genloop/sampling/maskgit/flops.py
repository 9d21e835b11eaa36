"""What a decoding step costs in operations, from the model's sizes: 2 a multiply-add. No torch.

Nominal: the same for every prompt and on every device. Keys and values of the text, which are kept, are left out of the
attention; what a CPU leaves out of the first and the last layer (`genloop.models.showo.rows`) is counted.
"""

from genloop.models.showo.config import ShowOConfig
from genloop.sampling.maskgit.schedule import masked_after
from genloop.sampling.maskgit.settings import SamplingConfig


def body_flops(config: ShowOConfig) -> float:
    """One pass of one row's image part, n + 2 tokens, through the layers."""
    phi, length = config.phi, config.num_vq_tokens + 2
    width, kv = phi.hidden_size, phi.head_dim * phi.num_key_value_heads
    weights = 2 * width * width + 2 * width * kv + 2 * width * phi.intermediate_size
    return 2.0 * phi.num_hidden_layers * length * (weights + 2 * length * width)


def head_flops(config: ShowOConfig, num_tokens: float) -> float:
    """The head over the codebook at so many tokens."""
    return 2.0 * num_tokens * config.phi.hidden_size * config.codebook_size


def step_flops(config: ShowOConfig, settings: SamplingConfig) -> float:
    """One guided step of one path: a pass with the text and one without, the head at the mean number of masked."""
    n, steps = config.num_vq_tokens, settings.steps
    masked = [masked_after(settings.schedule, step, steps, n) for step in range(-1, steps - 1)]
    branches = 2 if settings.guidance_scale > 0 else 1
    return branches * body_flops(config) + head_flops(config, sum(masked) / steps)
