"""Pictures of any size as codes of an image tokenizer."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from genloop.factories import Resolve
from genloop.job import loading
from genloop.models.common.image_tokenizers import load_image_tokenizer
from genloop.sampling.maskgit.inpaint import fit_square


def square_encoder(
    name: str, resolve: Resolve, side: int, device: str, *, before: Callable[[], None] = lambda: None
) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """Images (H, W, 3) uint8, resized and cropped to `side` pixels -> their codes (B, n).

    `before` is called before each batch. ValueError when the tokenizer does not take that side.
    """
    with loading():
        tokenizer = load_image_tokenizer(resolve(name), device=device)
        try:
            tokenizer.encode(torch.zeros(1, 3, side, side, device=device))
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"resolution: {name} does not take {side} pixels ({error})") from None

    def encode(images: Sequence[np.ndarray]) -> np.ndarray:
        before()
        fitted = torch.stack([fit_square(image, side) for image in images])
        return tokenizer.encode(fitted.to(device)).cpu().numpy()

    return encode
