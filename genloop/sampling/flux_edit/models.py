"""The models that edit pictures: their config keys, and which of them are in memory when."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from genloop.config import LAUNCH, DType, InputPath, Settings
from genloop.models.diffusion.lora import checked_loras, parse_lora
from genloop.models.flux_edit.config import check_transformer_file, is_gguf
from genloop.reading import regular_file
from genloop.registry import check_installed

if TYPE_CHECKING:
    from genloop.models.flux_edit.pipelines import Drawer
    from genloop.sampling.flux_edit.conditions import Encoders


class EditModelKeys(Settings):
    """What stands in place of the checkpoint's parts, and in which numbers all is computed."""

    dtype: DType = Field("bfloat16", description="of all models but the annotators")
    memory: Annotated[Literal["stages", "all"], LAUNCH] = Field(
        "stages", description="stages: encoders leave memory before the transformer is loaded; all: everything stays"
    )
    offload: Annotated[bool, LAUNCH] = Field(
        False, description="keep the transformer in the host's memory, few layers on the GPU at a time"
    )
    lora: Annotated[tuple[str, ...], AfterValidator(checked_loras)] = Field(
        (), description="LoRA files of the transformer as FILE:weight: for few steps, with their `steps`, or a style"
    )
    connector: InputPath | None = Field(None, description="connector.pt of a training, in place of the checkpoint's")
    transformer: InputPath | None = Field(
        None, description="folder, .safetensors or .gguf file of a transformer, in place of the checkpoint's"
    )
    quantise: Literal["none", "int8", "float8"] = Field(
        "none", description="weights of the transformer; float8 is the released turbo"
    )

    @property
    def gguf(self) -> Path | None:
        """The transformer, if it is a GGUF file."""
        return self.transformer if self.transformer is not None and is_gguf(self.transformer) else None

    def check_models(self) -> None:
        """Files and packages; weights of a GGUF file are small already, and nothing can be added to them."""
        if self.connector is not None and not self.connector.exists():
            raise FileNotFoundError(f"connector: there is no {self.connector}")
        if self.transformer is not None:
            check_transformer_file(self.transformer)
        if self.gguf is not None:
            check_installed("gguf", "editing")
            for key in ("lora", "quantise"):
                if getattr(self, key) not in ((), "none"):
                    raise ValueError(f"{key}: not with a GGUF file as transformer, whose weights are quantised")
        for text in self.lora:
            regular_file(parse_lora(text).file)
        if self.lora:
            check_installed("peft", "diffusion")
        if self.quantise != "none":
            check_installed("torchao", "editing")


class EditModels:
    """Encoders, the drawer and annotators; with memory=stages encoders and drawer are not in memory together."""

    def __init__(self, keys: EditModelKeys, folder: Path, components: Sequence[str], device: str) -> None:
        from genloop.models.flux_edit.annotators import Annotators

        self.keys, self.folder, self.components, self.device = keys, folder, tuple(components), device
        self.annotators = Annotators(folder, device=device)
        self._drawer: Drawer | None = None
        self._encoders: Encoders | None = None

    @property
    def depth(self) -> Any:
        """What estimates depth, if the checkpoint is used with it."""
        return self.annotators.depth if "depth" in self.components else None

    def encoders(self) -> "Encoders":
        """Loads them; with memory=stages the drawer leaves first."""
        import torch

        from genloop.sampling.flux_edit.conditions import Encoders

        alone = self.keys.memory == "stages"
        if alone:
            self._drawer = None
            _release()
        if self._encoders is None:
            self._encoders = Encoders(
                self.folder,
                dtype=getattr(torch, self.keys.dtype),
                device=self.device,
                one_at_a_time=alone,
                connector=self.keys.connector,
            )
        return self._encoders

    def drawer(self) -> "Drawer":
        """Loads it; with memory=stages the encoders leave first."""
        from genloop.models.flux_edit.load import load_drawer

        if self.keys.memory == "stages":
            self._encoders = None
            _release()
        if self._drawer is None:
            self._drawer = load_drawer(
                self.folder,
                self.components,
                dtype=self.keys.dtype,
                device=self.device,
                transformer=self.keys.transformer,
                loras=self.keys.lora,
                quantised=None if self.keys.quantise == "none" else self.keys.quantise,
                offload=self.keys.offload,
            )
        return self._drawer


def _release() -> None:
    from genloop.models.common.memory import release_memory

    release_memory()
