"""Make labelled examples to train a judge on: from a run of `generate`, from drawn scenes, from conversations.

    genloop run build_judge_data tiny out=runs/judge-data
    genloop run build_judge_data shapes source=runs/pool out=runs/judge-data --procs 2
    genloop run build_judge_data shapes_scenes out=runs/judge-scenes --procs 2
    genloop run build_judge_data out=runs/judge-orm conversations=data/orm.json conversation_images=data/images

Reads   a finished run of `generate` (best with strategy none or best_of_n) and the weights it was made with. Every
        candidate that was drawn from the start is replayed from its seed to the end, must meet the recorded tokens,
        and is judged by detector and colours: `outcome` of the final image; at each of `steps` the `potential` of the
        preview (the share of `completions` continuations that end right; the first is the path itself) and its
        `clarity` (the share of them whose verdict the preview already has; with clarity_threshold 1 or 0). And, of the
        embedded world, `scenes` drawn scenes in pairs that differ in one slot, with labels of every cell. And
        `conversations` about images, as published with ORM and PARM (LLaVA's JSON): each answer of yes or no is a
        label; what is asked, and about which prompt, is told by the wording in `questions`. Others are counted.
Writes  RUN/shards/train and RUN/shards/val (schema: genloop/data/judge/examples.py), split by sentence;
        RUN/rows/*.jsonl, one line a shard; at the end RUN/pairs.jsonl (ranking pairs, balanced by task),
        RUN/summary.json and RUN/datasheet.md.
Resume  the same command; finished units are kept, any number of workers may join or leave. A shard depends on the
        config, the source run and the conversations alone.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from ckpts.resolve import registry, resolve
from geneval.settings import (
    ColorSettings,
    DetectorSettings,
    EvaluatorKeys,
    build_evaluator,
    check_evaluator,
    evaluator_inputs,
)
from genloop.config import LAUNCH, Device, IndependentConfig, InputPath
from genloop.data.judge.conversation_examples import LabelledFile, conversation_samples, read_labelled
from genloop.data.judge.examples import JudgeExample, split_of, to_sample
from genloop.data.judge.shards import pairs_of, read_sides, write_sides
from genloop.data.shards import Sample
from genloop.distributed import World, choose_device
from genloop.hashing import sha256_tree
from genloop.job import note, run
from genloop.ledger import Ledger, count, plan_units
from genloop.models.common.image_tokenizers import check_image_tokenizer
from genloop.records import Prompt, Seed, Unit, color_names
from genloop.rewards.questions import read_questions
from genloop.rundir import json_line, read_run, write_atomic, write_json
from genloop.runs.generated import GeneratedRun, read_generated_run
from genloop.sampling.build import build_generator, generator_inputs, read_generator, recorded_hash
from genloop.search.replay import UNKNOWN, RecordedPath, replay

if TYPE_CHECKING:
    from geneval.labels import Labeller
    from genloop.protocols import Sampler

KIND = "independent"


class Config(IndependentConfig, EvaluatorKeys):
    source: Annotated[Path | None, LAUNCH] = Field(None, description="run of generate, fingerprinted by content")
    steps: list[int] = Field([], description="decoding steps after which the preview is an example too")
    completions: int = Field(1, ge=1, description="continuations of each preview that say what it can become")
    clarity_threshold: float | None = Field(
        None, ge=0, le=1, description="clarity is 1 from this share of agreeing continuations, else 0; null: the share"
    )
    detector: DetectorSettings = DetectorSettings(kind="shapes")
    colors: ColorSettings = ColorSettings(kind="shapes")
    cells: bool = Field(
        False, description="keep shape and colour of every cell too, as far as the detector shapes knows"
    )
    scenes: int = Field(0, ge=0, multiple_of=2, description="drawn scenes of the embedded world, in pairs")
    conversations: InputPath | None = Field(None, description="a LLaVA conversation file (JSON) with answers yes or no")
    conversation_images: Annotated[Path | None, LAUNCH] = Field(
        None, description="folder that the conversations' image names are below, fingerprinted by their sizes"
    )
    questions: InputPath | None = Field(
        None, description="questions file with the wording of the conversations; null: the released one"
    )
    spoilt: float = Field(0.0, ge=0, le=1, description="share of the scenes that are spoilt as generated images are")
    val_share: float = Field(0.1, ge=0, lt=1, description="share of the sentences that are kept for validation")
    most_pairs: int = Field(32, ge=1, description="ranking pairs of one sentence, for each question")
    device: Device = Field("auto", description="of the detector: the GPU when there is one")
    unit_size: int = Field(8, ge=1, description="prompts in a unit")
    scenes_per_unit: int = Field(512, ge=2, multiple_of=2)
    conversations_per_unit: int = Field(512, ge=1)
    limit: int | None = Field(None, ge=1, description="only the first so many prompts of the source")
    paths_per_batch: Annotated[int, LAUNCH] = Field(64, ge=1, description="paths replayed side by side")


def check(config: Config) -> None:
    """Names, the source run and its weights, before anything is written."""
    known = check_evaluator(config, resolve)
    if config.cells and config.detector.kind != "shapes":
        raise ValueError(f"cells: only the detector shapes knows cells, not {config.detector.kind!r}; set cells=false")
    if config.conversations is None and config.conversation_images is not None:
        raise ValueError("conversation_images: there are no conversations about them; name their file")
    if labelled := _labelled(config):
        labelled.check()
    if config.source is None:
        if not config.scenes and config.conversations is None:
            raise ValueError(
                "source: is null, scenes is 0 and conversations is null; there is nothing to make examples from"
            )
        return
    source = read_generated_run(config.source, config.limit)
    made = read_generator(source.folder)
    last = made.sampling.num_steps - 1
    if bad := [step for step in config.steps if not 1 <= step <= last]:
        raise ValueError(f"steps: {bad[0]} is not between 1 and {last}, the steps before the last of {config.source}")
    for prompt in source.prompts:
        if prompt.tag is None:
            raise ValueError(f"{config.source}: prompt {prompt.index} {prompt.text!r} has no GenEval metadata")
        if strange := [c.class_name for c in prompt.include if c.class_name not in known]:
            raise ValueError(
                f"detector: {config.detector.kind!r} does not know {strange[0]!r} of prompt {prompt.index}"
            )
    for key, path in generator_inputs(made.generator, resolve).items():
        if sha256_tree(path) != recorded_hash(source.inputs, key):
            raise ValueError(f"{config.source}: {key} has another content now ({path}); replay needs the same weights")


def inputs(config: Config, checked: None) -> dict[str, Path | str]:
    """The detector's weights; the source run's fingerprint and rows; the sizes of the conversations' images."""
    found: dict[str, Path | str] = {**evaluator_inputs(config, resolve)}
    if config.source is not None:
        found |= {"source": (read_run(config.source) or {})["digest"], "source.rows": config.source / "rows"}
    labelled = _labelled(config)
    return found | {"conversation_images": labelled.image_sizes()} if labelled else found


def _labelled(config: Config) -> LabelledFile | None:
    """What the conversations say; None without any."""
    if config.conversations is None:
        return None
    if config.conversation_images is None:
        raise ValueError("conversation_images: needs the folder that the conversations' image names are below")
    questions = read_questions(config.questions)
    return read_labelled(config.conversations, config.conversation_images, questions.recognize)


def main(config: Config, world: World, checked: None) -> None:
    source = read_generated_run(config.source, config.limit) if config.source else None
    prompts = source.prompts if source else []
    labelled = _labelled(config)
    units = plan(config, len(prompts), len(labelled.conversations) if labelled else 0)
    scenes_from, said_from = len(prompts), len(prompts) + config.scenes // 2
    with Ledger.of(config, units, world) as ledger:
        sampler, labeller = None, None
        for unit in ledger.claims():
            labeller = labeller or _labeller(config, world)
            with ledger.working(unit):
                if labelled and unit.start >= said_from:
                    said = labelled.conversations[unit.start - said_from : unit.stop - said_from]
                    samples = conversation_samples(said, config.seed, config.val_share)
                elif unit.start >= scenes_from:
                    samples = scene_samples(config, range(unit.start - scenes_from, unit.stop - scenes_from), labeller)
                else:
                    assert source is not None
                    sampler = sampler or _sampler(source, world)
                    paths = _paths(source, prompts[unit.start : unit.stop])
                    samples = path_samples(config, paths, sampler, labeller, world)
                ledger.complete(unit, write_sides(config.out / "shards", unit.name, samples))
                ledger.advance(len(unit))
    if count(config.out, len(units)).done == len(units):
        _conclude(config, source, labelled)


def plan(config: Config, num_prompts: int, num_conversations: int) -> list[Unit]:
    """Units of prompts, then of pairs of scenes, then of conversations; items are numbered through."""
    num_pairs, pairs_per_unit = config.scenes // 2, config.scenes_per_unit // 2
    spans = [(u.start, u.stop) for u in plan_units(num_prompts, config.unit_size)]
    first = num_prompts
    for number, size in ((num_pairs, pairs_per_unit), (num_conversations, config.conversations_per_unit)):
        spans += [(first + u.start, first + u.stop) for u in plan_units(number, size)]
        first += number
    width = max(5, len(str(len(spans) - 1)))
    return [Unit(f"{number:0{width}d}", *span) for number, span in enumerate(spans)]


def _labeller(config: Config, world: World) -> "Labeller":
    from geneval.labels import Labeller

    return Labeller(build_evaluator(config, resolve, choose_device(config.device, world)))


def _sampler(source: GeneratedRun, world: World) -> "Sampler[Any]":
    """The one that the source run drew with."""
    made = read_generator(source.folder)
    return build_generator(made, resolve, choose_device(made.device, world), before_step=world.check_stop)


def _paths(source: GeneratedRun, prompts: Sequence[Prompt]) -> list[RecordedPath]:
    """The candidates of these prompts that can be replayed."""
    options = read_generator(source.folder).generator.options
    masked = check_image_tokenizer(resolve(options.tokenizer))  # the number of codes stands for a mask
    found = []
    for prompt in prompts:
        for row in source.rows[prompt.index]:
            for candidate in row.candidates:
                if candidate.parent is None:  # drawn from the start
                    tokens = candidate.unpacked()
                    seed = Seed(source.keys["seed"], prompt.index, row.sample, candidate.candidate)
                    found.append(RecordedPath(prompt, seed, np.where(tokens == masked, UNKNOWN, tokens)))
    return found


def path_samples(
    config: Config, paths: Sequence[RecordedPath], sampler: "Sampler[Any]", labeller: "Labeller", world: World
) -> Iterator[tuple[str, Sample]]:
    """(split, sample) of every example of the paths."""
    from geneval.labels import label_paths
    from genloop.data.images import encode_png, to_uint8

    for start in range(0, len(paths), config.paths_per_batch):
        world.check_stop()
        part = paths[start : start + config.paths_per_batch]
        with note(f"prompts {', '.join(sorted({repr(path.prompt.text) for path in part}))}"):
            walked = replay(sampler, part, config.steps, branches=config.completions - 1, key=config.seed)
        keys = [(path.prompt, path.seed) for path in part]
        images = {step: to_uint8(preview) for step, preview in walked.previews.items()}
        images[sampler.num_steps] = to_uint8(walked.final)
        others = {step: [to_uint8(end) for end in ends] for step, ends in walked.branches.items()}
        seen = _seen(images.values(), labeller) if config.cells else {}
        for example, pixels in label_paths(labeller, keys, images, others, config.clarity_threshold):
            named = replace(example, cells=_cell_names()) if config.cells else example
            sample = to_sample(named, encode_png(pixels), seen.get(pixels.tobytes()))
            yield split_of(example.prompt.text, config.seed, config.val_share), sample


def _seen(stacks: "Iterable[np.ndarray]", labeller: "Labeller") -> "dict[bytes, np.ndarray]":
    """The cells of every distinct image of (B, H, W, 3) stacks, by its bytes."""
    from genloop.shapes.judge_scenes import seen_cells

    images = {image.tobytes(): image for stack in stacks for image in stack}
    detector, colors, _ = labeller.evaluator
    found = detector.detect(list(images.values()))
    scores = colors.scores(list(zip(images.values(), found, strict=True)))
    return {
        key: seen_cells(image, detections, color_names(of))
        for (key, image), detections, of in zip(images.items(), found, scores, strict=True)
    }


def _cell_names() -> dict[str, Sequence[str]]:
    from genloop.shapes.judge_scenes import COLOR_NAMES, SHAPE_NAMES

    return {"shapes": SHAPE_NAMES, "colors": COLOR_NAMES}


def scene_samples(config: Config, indices: Sequence[int], labeller: "Labeller") -> Iterator[tuple[str, Sample]]:
    """(split, sample) of every sentence about every scene of these contrasts."""
    from geneval.reasons import in_words
    from genloop.data.images import encode_png
    from genloop.shapes.damage import spoil
    from genloop.shapes.judge_scenes import contrast
    from genloop.shapes.render import render

    def side(text: str) -> str:
        return split_of(text, config.seed, config.val_share)

    for index in indices:
        drawn = contrast(config.seed, index, side)
        images, rng = render(drawn.scenes), np.random.default_rng([config.seed, index, 3])
        for place, things in enumerate(drawn.scenes):
            if rng.random() < config.spoilt:
                images[place] = spoil(images[place], things, rng)
        seen = _seen([images], labeller)
        pngs = [encode_png(image) for image in images]
        for number, found in enumerate(drawn.prompts):
            prompt = Prompt(index, found.text, found.tag, found.include, found.exclude)
            for scene, verdict in enumerate(labeller.verdicts([prompt] * 2, images)):
                labels = {"outcome": float(verdict.correct)}
                key = f"scene-{index:07d}-{number}{scene}"
                words = in_words(prompt, verdict)
                example = JudgeExample(key, "scenes", prompt, scene, number, 0, 0, labels, words, _cell_names())
                yield side(prompt.text), to_sample(example, pngs[scene], seen[images[scene].tobytes()])


def _conclude(config: Config, source: GeneratedRun | None, labelled: LabelledFile | None) -> None:
    """Pairs, counts, datasheet; workers that end together write the same bytes."""
    from genloop.data.judge.datasheet import datasheet, tally

    examples = read_sides(config.out / "shards")
    pairs = pairs_of(examples, config.seed, most=config.most_pairs)
    lines = [json_line({"split": split, **pair.row()}) for split, found in pairs.items() for pair in found]
    write_atomic(config.out / "pairs.jsonl", b"".join(lines))
    tallies = tally(examples)
    counts = {split: {**t.plain(), "pairs": len(pairs[split])} for split, t in tallies.items()}
    said = {"conversations": labelled.plain()} if labelled else {}
    write_json(config.out / "summary.json", counts | said)
    sections = _about(config, source) | (labelled.about() if labelled else {})
    text = datasheet("Examples for a judge", sections, tallies, pairs)
    write_atomic(config.out / "datasheet.md", text.encode())


def _about(config: Config, source: GeneratedRun | None) -> dict[str, list[str]]:
    """What the datasheet says beside its counts."""
    from genloop.data.judge import datasheet

    split = datasheet.about_split(config.seed, config.val_share, config.most_pairs)
    scenes = datasheet.about_scenes(config.scenes, config.spoilt) if config.scenes else {}
    if source is None:
        return {**scenes, **split}
    made = read_generator(source.folder)
    options = made.generator.options
    names = [str(getattr(options, key.rpartition(".")[2])) for key in generator_inputs(made.generator, resolve)]
    paths = datasheet.about_paths(
        digest=source.digest,
        settings={
            "search": {"strategy": source.keys["search.strategy"], "n": source.keys["search.n"]},
            "images_per_prompt": source.keys["images_per_prompt"],
            "seed": source.keys["seed"],
            "sampling": made.sampling.model_dump(),
        },
        weights={name: _licence(name) for name in names},
        left_out=sum(c.parent is not None for rows in source.rows.values() for row in rows for c in row.candidates),
    )
    rules = json.dumps(config.options.model_dump())
    judged = f"`{config.detector.kind}`, colours `{config.colors.kind}`, rules `{rules}`"
    return {**paths, **datasheet.about_labels(judged, config.completions, config.clarity_threshold), **scenes, **split}


def _licence(name: str) -> str:
    known = registry()
    return known[name].licence if name in known else "not registered; that of whoever made them"


if __name__ == "__main__":
    run(main, Config)
