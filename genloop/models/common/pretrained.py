"""Models of transformers from checkpoint folders: tensors are compared with the network before any weight is read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from genloop.checkpoint import check_finite, read_shapes
from genloop.registry import require

_NAMED = 3  # tensors of each kind in one message


def load_pretrained(
    model_class: Any,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    ignored: tuple[str, ...] = (),
    **options: Any,
) -> Any:
    """`model_class` (an AutoModel or a model of transformers) from `folder`, in eval mode.

    ValueError as in `check_pretrained`. `ignored`: starts of names of tensors that no checkpoint needs to have.
    """
    check_pretrained(model_class, folder, ignored=ignored, **options)
    place = {"device_map": "meta"} if str(device) == "meta" else {}
    model, _ = _from_pretrained(model_class, folder, dtype=dtype, **place, **options)
    check_finite(dict(model.named_parameters()), folder)
    for tensor in model.state_dict().values() if place else ():
        tensor.detach()  # transformers makes them where no tracker looks
    return model.to(device).eval()


def check_pretrained(model_class: Any, folder: Path, *, ignored: tuple[str, ...] = (), **options: Any) -> None:
    """Refuse a folder whose tensors are not those of the network; ValueError of one line. Builds it on the meta device.

    transformers translates the names of older files, so the folder's headers alone do not tell.
    """
    read_shapes(folder)
    _, report = _from_pretrained(model_class, folder, device_map="meta", **options)
    found = []
    for kind in ("missing", "unexpected", "mismatched"):
        names = sorted(key if isinstance(key, str) else key[0] for key in report[f"{kind}_keys"])
        names = [name for name in names if not name.startswith(ignored)]
        if names:
            more = ", ..." if len(names) > _NAMED else ""
            found.append(f"{len(names)} {kind} ({', '.join(names[:_NAMED])}{more})")
    if found:
        raise ValueError(f"{folder} does not fit its config.json: {'; '.join(found)}")


def _from_pretrained(model_class: Any, folder: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
    with _quiet(), errors_in_one_line(folder):
        return model_class.from_pretrained(
            str(folder), local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )


@contextmanager
def errors_in_one_line(where: object) -> Iterator[None]:
    """Whatever transformers raises about a file becomes a ValueError of one line that begins with `where`."""
    try:
        yield
    except Exception as error:  # the library divides, looks up and multiplies whatever a file says
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{where}: transformers cannot read it ({what}); use the files as published") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a progress bar and a table of the tensors that are not in files."""
    logging = require("transformers.utils.logging")
    before, had_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if had_bar:
            logging.enable_progress_bar()
