"""A LoRA file in any spelling -> a folder with the same in diffusers' layout and in kohya's.

    genloop ckpts convert lora style.safetensors FOLDER --base sd-1.5

Every key has to belong to a layer of the base; tensors keep their bits, each layer its alpha. What the file says of its
training (ss_*, modelspec.*) goes into both, hashes are computed anew.
"""

from dataclasses import dataclass
from pathlib import Path

from ckpts.resolve import resolve
from genloop.models.diffusion.config import check_diffusion_folder

MADE = ("manifest.json", "pytorch_lora_weights.safetensors", "kohya.safetensors")
_SS, _SPEC, _HASH = "ss_", "modelspec.", "hash_sha256"


@dataclass(frozen=True, slots=True)
class LoraConversion:
    """What came of a conversion."""

    folder: Path
    lines: tuple[str, ...]


def verify(file: Path) -> None:
    """ValueError for a file whose tensors are not those of its hashes (sshs_*, modelspec.hash_sha256)."""
    from genloop.models.diffusion.lora_metadata import check_hashes

    check_hashes(file)


def convert(file: Path, folder: Path, *, base: str | None = None, backbone: str | None = None) -> LoraConversion:
    """Write `folder` anew, all or nothing; base: the pipeline that the file belongs to, a folder or a name.

    ValueError or FileNotFoundError for a file that is not of this base, or not what its hashes say.
    """
    if base is None:
        raise ValueError("convert lora: needs --base, the pipeline that the file belongs to")
    if folder.exists() and (folder.is_file() or any(entry.name not in MADE for entry in folder.iterdir())):
        raise ValueError(f"{folder} holds other things than an earlier conversion; name a new folder")
    known = check_diffusion_folder(resolve(base))

    from genloop.models.diffusion.lora_export import read_lora, write_lora
    from genloop.models.diffusion.lora_metadata import check_hashes, read_metadata

    lora = read_lora(file, known, "convert lora")
    check_hashes(file)
    metadata = read_metadata(file)
    training, spec = (
        {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
        for prefix in (_SS, _SPEC)
    )
    spec.pop(_HASH, None)
    write_lora(folder, lora, known, title=spec.get("title", file.stem), training=training, spec=spec)
    layers = sum(map(len, lora.values()))
    lines = (f"{layers} layers of {', '.join(sorted(lora))}, every key of the file placed",)
    return LoraConversion(folder, (*lines, f"{folder}: {', '.join(MADE[1:])}"))
