"""Config keys of a training of a chat model, and what is refused before anything is read. No torch."""

from typing import Annotated, Literal

from pydantic import Field

from genloop.bounds import Count, TotalOrNone, Weight
from genloop.config import LAUNCH, InputPath, Settings
from genloop.meanings import EVAL_EVERY, START_OR_NEW
from genloop.registry import check_installed
from genloop.training.guards.settings import LineGuardSettings
from genloop.training.objectives.conversations.settings import ChatData, ChatModelShape, ChatSettings
from genloop.training.objectives.response_pairs.settings import PairSettings
from genloop.training.settings import LoopSettings, LoraSettings


class ChatTrainingKeys(Settings):
    """Which model learns what from which chats or pairs of answers."""

    objective: Literal["conversations", "pairs"] = Field(
        "conversations", description="what the assistant says; pairs: which of two answers is better"
    )
    data: dict[str, ChatData] = Field(
        min_length=1, description="data sets, by any name: shards, a file of chats, or pairs of answers"
    )
    start: Annotated[str | None, LAUNCH] = Field(None, description=START_OR_NEW)
    model: ChatModelShape = ChatModelShape()
    quantise: Literal["none", "nf4"] = Field(
        "none", description="nf4: the frozen weights in four bits with double quantisation; needs lora.rank and `start`"
    )
    saved_dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="of what is saved; under train.precision bf16 or fp16 also of frozen weights in training",
    )
    chat: ChatSettings = ChatSettings()
    pairs: PairSettings = PairSettings()
    lora: LoraSettings = LoraSettings()
    lora_part: Literal["language", "qformer", "vision", "all"] = Field(
        "language",
        description="where adapters stand; lora.targets=[attention]: beside the queries and values there, whatever "
        "the family calls them",
    )
    adapter: InputPath | None = Field(None, description="folder of adapters of `start` to go on from")
    merged: bool = Field(False, description="also write the model with its adapters added, RUN/merged")
    vision_lr: Weight | None = Field(0.0, description="of the vision tower; null: train.lr, 0: frozen")
    projector_lr: Weight | None = Field(0.0, description="of the projector; null: train.lr, 0: frozen")
    qformer_lr: Weight | None = Field(0.0, description="of InstructBLIP's Q-Former; null: train.lr, 0: frozen")
    eval_every: TotalOrNone = Field(0, description=EVAL_EVERY)
    eval_chats: Count = Field(200, description="held-out chats, or pairs, that are measured, at the most")
    train: LoopSettings = LoopSettings()
    guards: LineGuardSettings = LineGuardSettings()

    @property
    def rates(self) -> dict[str, float | None]:
        """Learning rates of the parts beside the language model."""
        return {"vision": self.vision_lr, "projector": self.projector_lr, "qformer": self.qformer_lr}

    def check_keys(self) -> None:
        """Keys that do not go together; MissingPackage."""
        self.train.check()
        if self.lora.rank:
            check_installed("peft", "train")
        if self.quantise == "nf4":
            check_installed("bitsandbytes", "train")
            if not self.lora.rank or self.start is None:
                raise ValueError("quantise: nf4 weights are frozen; set lora.rank and `start`")
            if any(rate != 0 for rate in (self.vision_lr, self.projector_lr, self.qformer_lr)):
                raise ValueError("quantise: nf4 weights are frozen; set vision_lr=0, projector_lr=0 and qformer_lr=0")
            if self.train.zero_stage == 3:
                raise ValueError("train.zero_stage: 3 cannot shard nf4 weights; use 0, 1 or 2")
        if self.lora.rank and not self.merged:
            for key in ("vision_lr", "projector_lr", "qformer_lr"):
                if getattr(self, key) != 0:
                    raise ValueError(
                        f"merged: RUN/adapter holds adapters alone, not what {key} trains; set merged=true"
                    )
        if not self.lora.rank and (self.adapter is not None or self.merged):
            raise ValueError("lora.rank: 0 makes no adapters, which `adapter` and `merged` need; set lora.rank")
        if self.start is None:
            self.model.check()
            if self.lora.rank:
                raise ValueError("lora.rank: adapters need a model beside them; set `start`, or lora.rank=0")
