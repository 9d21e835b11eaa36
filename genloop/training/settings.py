"""Config keys of every training job. No torch."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from genloop.bounds import (
    Count,
    CountOrNone,
    Factor,
    Seconds,
    Share,
    Threads,
    ThreadsOrNone,
    Total,
    TotalOrNone,
    Weight,
)
from genloop.config import LAUNCH, Device, Settings
from genloop.meanings import AUTO
from genloop.registry import check_installed, did_you_mean
from genloop.training.sinks import SINKS, check_sinks


class LoopSettings(Settings):
    """How long, how fast, how often to save. The loss at a step does not depend on the launch settings or ranks."""

    num_steps: Total = Field(1000, description="optimiser steps of the whole run; the learning rate ends there")
    lr: Factor = Field(1e-3, description="highest learning rate")
    min_lr: Share = Field(0.05, description="learning rate at the end, as a share of the highest")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="how the learning rate falls to its end; constant: not at all"
    )
    warmup_steps: TotalOrNone = Field(100, description="steps in which the learning rate rises from 0")
    weight_decay: Weight = Field(0.01, description="on matrices only")
    betas: tuple[Annotated[Share, Field(lt=1)], Annotated[Share, Field(lt=1)]] = Field(
        (0.9, 0.98), description="decays of Adam's two moving averages"
    )
    grad_clip: Factor = Field(1.0, description="largest norm of the gradient")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="of matrix products (autocast); trained weights and moments are float32 in any case"
    )
    max_skipped: Annotated[TotalOrNone, LAUNCH] = Field(
        20, description="steps in a row that may be left out because their gradient is not finite"
    )
    ema: Share = Field(0.0, lt=1, description="decay of the moving average of the weights; 0: no average")
    use_ema: bool = Field(True, description="with `ema`: evaluate and save the averages, not the last weights")
    gradient_checkpointing: Annotated[bool, LAUNCH] = Field(
        False, description="compute activations again in the backward pass: less memory, a third more work"
    )
    save_every: Total = Field(500, description="steps between two checkpoints")
    keep: Annotated[Total, LAUNCH] = Field(2, description="checkpoints that stay on disk")
    log_every: Total = Field(50, description="steps between two lines of metrics.jsonl")
    sinks: Annotated[tuple[str, ...], LAUNCH] = Field(
        (), description=f"where the numbers of metrics.jsonl go too: {', '.join(SINKS)}, module:class"
    )
    rows_per_forward: Annotated[Count, LAUNCH] = Field(1024, description="rows of a rank in one forward pass")
    loaders: Annotated[ThreadsOrNone | None, LAUNCH] = Field(
        None, description="processes of a rank that read ahead; 0: none; null: up to 4 on a GPU, none on a CPU"
    )
    zero_stage: Annotated[Literal[0, 1, 2, 3], LAUNCH] = Field(
        0,
        description="what is sharded over the ranks: 1 moments, 2 gradients too, 3 weights too; 1 and 2 need deepspeed",
    )
    threads: Threads = Field(1, description="CPU threads of a rank")
    device: Device = Field("auto", description=AUTO)
    timeout: Annotated[Seconds, LAUNCH] = Field(1800, description="seconds that a rank waits for the others")

    def check(self) -> None:
        """MissingPackage when deepspeed or a sink is asked for and not there; ValueError for what cannot be done."""
        check_sinks(self.sinks)
        if self.zero_stage in (1, 2):
            check_installed("deepspeed", "train")
            if self.precision == "fp16":
                raise ValueError("train.precision: fp16 needs train.zero_stage 0 or 3 (or use bf16)")


class TrainSettings(LoopSettings):
    """The same for batches that are cut out of one list of rows."""

    batch_size: Count = Field(32, description="rows in a step, over all ranks together")


class ReconstructionWeights(Settings):
    """Weights of the terms of an image tokenizer's loss; the reconstruction counts 1."""

    commitment: Weight = Field(0.1, description="of the distance of latents from their codes")
    entropy: Weight = Field(0.05, description="of the entropy that keeps all codes in use")
    temperature: Factor = Field(0.1, description="of the soft codes in the entropy term")


class LoraSettings(Settings):
    """Low-rank adapters (Hu et al. 2022) beside linear layers, whose own weights then stay as they are."""

    rank: CountOrNone = Field(0, description="0: no adapters, all weights are trained")
    alpha: Factor = Field(16.0, description="the adapters' output is scaled by alpha / rank")
    targets: tuple[str, ...] = Field(
        (), description="layers that get one, by the end of their name, such as q_proj; none: every linear layer"
    )
    dropout: Share = Field(0.0, lt=1, description="share of an adapter's inputs that is dropped in training")

    def layers_of(self, linear: Iterable[str], *, key: str = "lora") -> list[str]:
        """Those of some linear layers that get an adapter; ValueError for a target that is the end of no name.

        key: what the config calls these settings.
        """
        names = list(linear)
        ends = sorted({_end_of(name) for name in names})
        for target in self.targets:
            if not any(_ends_with(name, target) for name in names):
                raise ValueError(
                    f"{key}.targets: no layer is called {target!r}{did_you_mean(target, ends)} ({', '.join(ends)})"
                )
        return [name for name in names if not self.targets or any(_ends_with(name, t) for t in self.targets)]


def _end_of(name: str) -> str:
    """The last word of a name, with the number of a layer in a list: to_q, to_out.0"""
    words = name.split(".")
    return ".".join(words[-2:] if words[-1].isdecimal() else words[-1:])


def _ends_with(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
