"""What train_dpo refuses before anything is written. No torch."""

from pathlib import Path

from genloop.data.pairs.pair import prompt_of
from genloop.data.pairs.shards import PairShards
from genloop.factories import Resolve
from genloop.hashing import sha256_tree
from genloop.models.showo.config import ShowOConfig, check_showo_folder, showo_manifest
from genloop.rewards.build import check_judge, check_prompts
from genloop.rewards.settings import JudgeSettings
from genloop.training.settings import LoraSettings


def check_reference(reference: Path, shape: ShowOConfig, start: str) -> None:
    """ValueError for a reference that is not of the shape of what is trained."""
    wanted, found = showo_manifest(shape), showo_manifest(check_showo_folder(reference))
    if differing := sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)):
        name = differing[0]
        raise ValueError(
            f"reference: {reference} is of another shape than {start}: {name} is {found.get(name)}, needed is "
            f"{wanted.get(name)}; {len(differing)} tensors differ"
        )


def check_adapters(lora: LoraSettings, shape: ShowOConfig) -> None:
    """ValueError for a target that is no layer."""
    matrices = [name for name, size in showo_manifest(shape).items() if len(size) == 2 and ".layers." in name]
    lora.layers_of(name.removesuffix(".weight") for name in matrices)


def open_pairs(
    folder: Path, shape: ShowOConfig, tokenizer: Path, *, shuffled_by: int | None = None
) -> tuple[PairShards, PairShards | None]:
    """FOLDER/train, whose sides `shuffled_by` may exchange by chance, and FOLDER/val.

    ValueError when they are not of this model and image tokenizer.
    """
    if not (folder / "train").is_dir():
        raise ValueError(f"pairs: {folder} holds no folder train; build_pairs writes it")
    sha256 = sha256_tree(tokenizer)

    needed = {"num_codes": shape.codebook_size, "num_tokens": shape.num_vq_tokens}
    train = PairShards(folder / "train", **needed, tokenizer=sha256, shuffled_by=shuffled_by)
    has_val = (folder / "val").is_dir()
    return train, PairShards(folder / "val", **needed, tokenizer=sha256) if has_val else None


def check_judged(judge: JudgeSettings, pairs: PairShards, resolve: Resolve, *, group: int, batch_size: int) -> None:
    """ValueError for a judge that cannot score images of the pairs' prompts; reads all of these."""
    if batch_size % group:
        raise ValueError(f"judge_group: {group} images a prompt do not divide train.batch_size={batch_size}")
    check_judge(judge, resolve, ["outcome"])
    check_prompts(judge, map(prompt_of, pairs))
