"""Train a Show-o on captioned image codes: masked-token prediction.

    genloop run train_showo tiny out=runs/showo-tiny
    genloop run train_showo shapes out=runs/showo --procs 2
    torchrun --nproc-per-node 2 -m jobs.train_showo shapes out=runs/showo

Reads   WebDataset shards with txt and codes.npy (make_shapes writes them), an image tokenizer, a text tokenizer.
Writes  RUN/showo, a checkpoint in the public layout; RUN/checkpoints/step-*, to resume from; RUN/metrics.jsonl;
        with lora.rank RUN/adapter, the adapters alone, as peft reads them; RUN/showo has them merged; with
        guards.every RUN/previews, images of fixed prompts and noise from step 0 on; RUN/alarms.jsonl, and
        RUN/stopped.json when one of guards.stop_on ended it.
Resume  the same command goes on from the newest checkpoint, also with another number of ranks. Every step's batch
        and masks follow from the config; one process gives the same bits with and without interruption.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ckpts.resolve import resolve
from genloop.bounds import Factor, Layers, Share, Width
from genloop.config import LAUNCH, JobConfig, ReadPath, Settings
from genloop.data.arrays import check_codes
from genloop.data.shards import Shards
from genloop.distributed import World
from genloop.job import loading, run
from genloop.meanings import SHARDS, START_OR_NEW, TEXT_TOKENIZER, TOKENIZER
from genloop.models.common.image_tokenizers import check_image_tokenizer, load_image_tokenizer
from genloop.models.showo.config import PhiDims, ShowOConfig, check_showo_folder
from genloop.planning import Footprint
from genloop.registry import check_installed
from genloop.training.guards.settings import GuardSettings
from genloop.training.settings import LoraSettings, TrainSettings
from genloop.training.showo import ADAPTED, check_codebook, train_to_checkpoint

if TYPE_CHECKING:
    from genloop.models.showo.model import ShowO
    from genloop.training.objectives.masked_tokens import MaskedTokens

KIND = "collective"


class ModelShape(Settings):
    """Sizes of a new model; vocabulary and codebook follow from the tokenizers."""

    hidden_size: Width = Field(96, ge=8, description="width of a token")
    intermediate_size: Width = Field(384, ge=8, description="width inside of an MLP")
    num_hidden_layers: Layers = Field(3, description="transformer layers")
    num_attention_heads: Width = Field(4, description="heads of a layer")
    partial_rotary_factor: Share = Field(1.0, gt=0, description="share of a head that knows positions")
    rope_theta: Factor = Field(100.0, gt=1, description="longest wavelength; a 6 x 6 grid needs no more")
    max_seq_length: Width = Field(16, ge=4, description="text tokens without the task token")


class Config(JobConfig):
    shards: ReadPath = Field(description=SHARDS)
    tokenizer: Annotated[str, LAUNCH] = Field("shapes/tokenizer", description=TOKENIZER)
    text_tokenizer: Annotated[str | None, LAUNCH] = Field(None, description=TEXT_TOKENIZER)
    start: Annotated[str | None, LAUNCH] = Field(None, description=START_OR_NEW)
    model: ModelShape = ModelShape()
    drop_captions: Share = Field(0.1, description="share of captions dropped, for guidance")
    labels: Literal["image_and_ends", "image"] = Field(
        "image_and_ends", description="image_and_ends counts the soi and eoi positions too, as the reference does"
    )
    lora: LoraSettings = LoraSettings()
    train: TrainSettings = TrainSettings()
    guards: GuardSettings = GuardSettings()


def check(config: Config) -> Shards:
    """Shards, tokenizer and sizes, before anything is written -> the shards to train on."""
    config.train.check()
    config.guards.check(resolve)
    if config.lora.rank:
        check_installed("peft", "train")
    shards = Shards(config.shards)
    num_codes, num_tokens = check_image_tokenizer(resolve(config.tokenizer)), None
    if config.start is None:
        if config.text_tokenizer is None:
            raise ValueError("text_tokenizer: needs a folder when `start` is not given")
        if config.model.hidden_size % (2 * config.model.num_attention_heads):
            raise ValueError(
                f"model.hidden_size: {config.model.hidden_size} does not give {config.model.num_attention_heads} heads "
                "of an even width"
            )
    else:
        known = check_showo_folder(resolve(config.start))
        check_codebook(config.tokenizer, config.start, known, resolve)
        num_tokens = known.num_vq_tokens
    check_codes(shards, num_tokens, num_codes)
    return shards


def inputs(config: Config, checked: Shards) -> dict[str, Path | str]:
    """Shards and checkpoints enter the fingerprint by content."""
    found: dict[str, Path | str] = {"shards": checked.digest(), "tokenizer": resolve(config.tokenizer)}
    found |= config.guards.inputs(resolve)
    found |= {"text_tokenizer": resolve(config.text_tokenizer)} if config.text_tokenizer else {}
    return found if config.start is None else found | {"start": resolve(config.start)}


def footprint(config: Config, checked: Shards, *, device: str, ranks: int) -> Footprint:
    """Two steps on the meta device."""
    from genloop.training.footprint import training_footprint

    return training_footprint(
        lambda: objective_of(config, checked, "meta")[0], config.train, seed=config.seed, device=device, ranks=ranks
    )


def main(config: Config, world: World, checked: Shards) -> None:
    from genloop.training.session import training_session

    with training_session(config.out, config.train, world) as device:
        objective, adapted = objective_of(config, checked, device)
        train_to_checkpoint(objective, adapted, config, config.train, world, resolve=resolve, device=device)


def objective_of(config: Config, checked: Shards, device: str) -> "tuple[MaskedTokens, Any]":
    """What is trained, and its adapters when it has some."""
    from genloop.models.showo.prompting import Layout
    from genloop.training.adapters import add_adapters
    from genloop.training.objectives.masked_tokens import MaskedTokens

    model = build(config, device)
    layout = Layout(model.config, model.text_tokenizer)
    with loading():  # names of layers that are none
        adapted = add_adapters(model, config.lora, seed=config.seed, within=ADAPTED) if config.lora.rank else None
    objective = MaskedTokens(
        model,
        layout,
        checked,
        seed=config.seed,
        batch_size=config.train.batch_size,
        drop_captions=config.drop_captions,
        ends=config.labels == "image_and_ends",
    )
    return objective, adapted


def build(config: Config, device: str) -> "ShowO":
    """The model that training starts from: that of `start`, or a new one keyed by the seed."""
    from genloop.models.common.text import FileTokenizer
    from genloop.models.showo.load import build_showo, load_showo
    from genloop.training.initialization import embed_patches, scale_by_fan_in

    if config.start is not None:
        text = FileTokenizer(resolve(config.text_tokenizer)) if config.text_tokenizer else None
        return load_showo(resolve(config.start), device=device, text_tokenizer=text)
    assert config.text_tokenizer is not None
    text, tokenizer = FileTokenizer(resolve(config.text_tokenizer)), load_image_tokenizer(resolve(config.tokenizer))
    sizes = config.model.model_dump(exclude={"max_seq_length"})
    shape = ShowOConfig(
        codebook_size=tokenizer.num_codes,
        num_vq_tokens=tokenizer.grid[0] * tokenizer.grid[1],
        llm_vocab_size=text.num_tokens,
        max_seq_length=config.model.max_seq_length,
        phi=PhiDims(
            **sizes,
            num_key_value_heads=config.model.num_attention_heads,
            max_position_embeddings=512,
            hidden_act="gelu_pytorch_tanh",  # gelu_new in one kernel
        ),
    )
    model = build_showo(shape, seed=config.seed, device=device, text_tokenizer=text)
    scale_by_fan_in(model)
    embed_patches(model, tokenizer, seed=config.seed + 1)
    return model


if __name__ == "__main__":
    run(main, Config)
