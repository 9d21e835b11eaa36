"""Make labelled examples for a judge, from images, drawn scenes, conversations.

    genloop run build_judge_data tiny out=runs/judge-data
    genloop run build_judge_data shapes source=runs/pool out=runs/judge-data --procs 2
    genloop run build_judge_data shapes_scenes out=runs/judge-scenes --procs 2
    genloop run build_judge_data out=runs/judge-orm conversations=data/orm.json conversation_images=data/images

Reads   a finished run of `generate` (best with strategy none or best_of_n) and the weights it was made with;
        `conversations` about images, as published with ORM and PARM (LLaVA's JSON).
Writes  RUN/shards/train and RUN/shards/val (schema: genloop/data/judge/examples.py), split by sentence;
        RUN/rows/*.jsonl, one line a shard. When all units are done RUN/pairs.jsonl (ranking pairs, balanced by
        task), RUN/summary.json and RUN/datasheet.md.
Resume  the same command; finished units are kept, any number of workers may join or leave. A shard depends on the
        config, the source run and the conversations alone.

Of the run, every candidate that was drawn from the start is replayed from its seed to the end, must meet the
recorded tokens, and is judged by detector and colours: `outcome` of the final image; at each of `preview_steps`
the `potential` of the preview (the share of `continuations` that end right; the first is the path itself) and its
`clarity` (the share of them whose verdict the preview already has; with clarity_threshold 1 or 0). Of the embedded
world `num_scenes` scenes are drawn, in pairs that differ in one slot, with labels of every cell. Of the
conversations each answer of yes or no is a label; what is asked, and about which prompt, is told by the wording in
`questions`. Others are counted.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ckpts.resolve import registry, resolve
from geneval.settings import (
    ExactEvaluatorKeys,
    build_evaluator,
    check_evaluator,
    check_prompts_of,
    evaluator_inputs,
)
from genloop.bounds import Count, Repeats, Share, Total, TotalOrNone
from genloop.config import LAUNCH, DeviceKeys, IndependentConfig, InputPath
from genloop.data.judge.conversation_examples import LabelledFile, read_labelled
from genloop.data.judge.examples import split_of, to_sample
from genloop.data.judge.shards import pairs_of, read_sides
from genloop.data.judge.sources import ConversationSource, Samples, Source, SourcePlan
from genloop.data.shards import write_sides
from genloop.distributed import World, choose_device
from genloop.job import note, run
from genloop.ledger import Ledger, count
from genloop.meanings import GENERATED, SLOTS, VAL_SHARE
from genloop.models.common.image_tokenizers import check_image_tokenizer
from genloop.records import Seed
from genloop.rewards.questions import read_questions
from genloop.rundir import json_line, write_atomic, write_json
from genloop.runs.generated import GeneratedRun, read_generated_run
from genloop.sampling.build import build_generator, check_same_weights, read_generator
from genloop.sampling.settings import GeneratorKeys
from genloop.search.replay import RecordedPath, replay

if TYPE_CHECKING:
    from geneval.labels import Labeller
    from genloop.protocols import Sampler

KIND = "independent"


class Config(ExactEvaluatorKeys, DeviceKeys, IndependentConfig):
    source: Annotated[Path | None, LAUNCH] = Field(None, description=GENERATED)
    preview_steps: list[Repeats] = Field([], description="decoding steps after which the preview is an example too")
    continuations: Repeats = Field(1, description="continuations of each preview that say what it can become")
    clarity_threshold: Share | None = Field(
        None, description="clarity is 1 from this share of agreeing continuations, else 0; null: the share"
    )
    with_cells: bool = Field(
        False, description="keep shape and colour of every cell too, as far as the detector shapes knows"
    )
    num_scenes: TotalOrNone = Field(0, multiple_of=2, description="drawn scenes of the embedded world, in pairs")
    conversations: InputPath | None = Field(None, description="a LLaVA conversation file (JSON) with answers yes or no")
    conversation_images: Annotated[Path | None, LAUNCH] = Field(
        None, description="folder that the conversations' image names are below, fingerprinted by their sizes"
    )
    questions: InputPath | None = Field(
        None, description="questions file with the wording of the conversations; null: the released one"
    )
    spoilt: Share = Field(0.0, description="share of the scenes that are spoilt as generated images are")
    val_share: Share = Field(0.1, lt=1, description=VAL_SHARE)
    max_pairs: Count = Field(32, description="pairs of one prompt, at most; here for each question")
    unit_size: Count = Field(8, description="prompts in one unit of work")
    scenes_per_unit: Count = Field(512, ge=2, multiple_of=2, description="drawn scenes in one unit of work")
    conversations_per_unit: Count = Field(512, description="conversations in one unit of work")
    limit: Total | None = Field(None, description="only the first so many prompts of the source")
    slots: Annotated[Count, LAUNCH] = Field(64, description=SLOTS)


@dataclass(frozen=True)
class Checked:
    """The source run and what it was generated with; the labelled conversations. None where there are none."""

    source: GeneratedRun | None
    made: GeneratorKeys | None
    labelled: LabelledFile | None


def check(config: Config) -> Checked:
    """Names, the source run and the conversations, before anything is written."""
    known = check_evaluator(config, resolve)
    if config.with_cells and config.detector.kind != "shapes":
        raise ValueError(f"with_cells: only the detector shapes knows cells, not {config.detector.kind!r}")
    if config.conversations is None and config.conversation_images is not None:
        raise ValueError("conversation_images: there are no conversations about them; name their file")
    labelled = _read_labelled(config)
    if config.source is None and not config.num_scenes and labelled is None:
        raise ValueError(
            "source: is null, num_scenes is 0 and conversations is null; there is nothing to make examples from"
        )
    if config.source is None:
        return Checked(None, None, labelled)
    source = read_generated_run(config.source, config.limit)
    made = read_generator(source.folder)
    last = made.sampling.num_steps - 1
    if bad := [step for step in config.preview_steps if step > last]:
        raise ValueError(
            f"preview_steps: {bad[0]} is not between 1 and {last}, the steps before the last of {config.source}"
        )
    check_prompts_of(config.source, source.prompts, config, known)
    return Checked(source, made, labelled)


def _read_labelled(config: Config) -> LabelledFile | None:
    """What the conversations say, whose images are all there; None without any."""
    if config.conversations is None:
        return None
    if config.conversation_images is None:
        raise ValueError("conversation_images: needs the folder that the conversations' image names are below")
    questions = read_questions(config.questions)
    labelled = read_labelled(config.conversations, config.conversation_images, questions.recognize)
    labelled.check()
    return labelled


def inputs(config: Config, checked: Checked) -> dict[str, Path | str]:
    """The detector's weights; the source run's digest and rows; the sizes of the conversations' images.

    ValueError when the generator's weights are not those of the source run: replay needs the same.
    """
    found: dict[str, Path | str] = {**evaluator_inputs(config, resolve)}
    if checked.source is not None and checked.made is not None:
        check_same_weights(checked.made, checked.source.inputs, config.source, resolve)
        found |= {"source": checked.source.digest, "source.rows": checked.source.folder / "rows"}
    return found | ({"conversation_images": checked.labelled.image_sizes()} if checked.labelled else {})


def main(config: Config, world: World, checked: Checked) -> None:
    plan = SourcePlan(_sources(config, world, checked))
    units = plan.units()
    with Ledger.of(config, units, world) as ledger:
        for unit in ledger.claims():
            with ledger.working(unit):
                samples = _stepping(plan.samples(unit), world)
                folder, staging = config.out / "shards", ledger.staging
                rows = write_sides(folder, unit.name, samples, staging=staging, ready=ledger.check_lease)
                ledger.complete(unit, rows)
                ledger.advance(len(unit))
    if count(config.out, len(units)).done == len(units):
        _conclude(config, checked)


def _stepping(samples: Samples, world: World) -> Samples:
    """The same samples; each is a step for the status, and a safe point."""
    for sample in samples:
        world.step()
        yield sample


def _sources(config: Config, world: World, checked: Checked) -> list[Source]:
    """The source run, the scenes, the conversations, in this order; each loads what it needs at its first unit."""
    from genloop.shapes.scene_source import SceneSource

    @cache
    def labeller() -> "Labeller":
        from geneval.labels import Labeller

        return Labeller(build_evaluator(config, resolve, choose_device(config.device, world)))

    found: list[Source] = []
    if checked.source is not None and checked.made is not None:
        found.append(PathSource(config, world, checked.source, checked.made, labeller))
    split = (config.seed, config.val_share)
    found.append(SceneSource(config.num_scenes // 2, config.scenes_per_unit // 2, *split, config.spoilt, labeller))
    if checked.labelled:
        found.append(ConversationSource(checked.labelled, *split, config.conversations_per_unit))
    return found


class PathSource:
    """The candidates of a run of `generate`, replayed; items are its prompts."""

    def __init__(
        self, config: Config, world: World, run: GeneratedRun, made: GeneratorKeys, labeller: "Callable[[], Labeller]"
    ) -> None:
        self.num_items, self.unit_size = len(run.prompts), config.unit_size
        self._config, self._world, self._run, self._made, self._labeller = config, world, run, made, labeller

    @cached_property
    def _sampler(self) -> "Sampler[Any]":
        """The one that the source run drew with."""
        device = choose_device(self._made.device, self._world)
        return build_generator(self._made, resolve, device, before_step=self._world.step)

    @cached_property
    def _masked(self) -> int:
        """The number that stands for a masked token in recorded candidates: the number of codes."""
        return check_image_tokenizer(resolve(self._made.generator.options.tokenizer))

    def _paths(self, items: range) -> Iterator[RecordedPath]:
        """The candidates of these prompts that can be replayed: those that were drawn from the start."""
        for prompt in self._run.prompts[items.start : items.stop]:
            for row in self._run.rows[prompt.index]:
                for candidate in row.candidates:
                    if candidate.parent is None:
                        tokens = candidate.unpacked()
                        seed = Seed(self._run.keys["seed"], prompt.index, row.sample, candidate.candidate)
                        yield RecordedPath(prompt, seed, tokens, tokens != self._masked)

    def samples(self, items: range) -> Samples:
        """(split, sample) of the final image and the previews of every path."""
        from geneval.labels import label_paths
        from genloop.data.images import encode_png, to_uint8
        from genloop.shapes.scene_source import CELL_NAMES, cells_of

        config, sampler, labeller = self._config, self._sampler, self._labeller()
        paths = list(self._paths(items))
        for start in range(0, len(paths), config.slots):
            self._world.check_stop()
            part = paths[start : start + config.slots]
            with note(f"prompts {', '.join(sorted({repr(path.prompt.text) for path in part}))}"):
                walked = replay(sampler, part, config.preview_steps, branches=config.continuations - 1, key=config.seed)
            keys = [(path.prompt, path.seed) for path in part]
            images = {step: to_uint8(preview) for step, preview in walked.previews.items()}
            images[sampler.num_steps] = to_uint8(walked.final)
            others = {step: [to_uint8(end) for end in ends] for step, ends in walked.branches.items()}
            seen = cells_of(images.values(), labeller) if config.with_cells else {}
            for example, pixels in label_paths(labeller, keys, images, others, config.clarity_threshold):
                named = replace(example, cells=CELL_NAMES) if config.with_cells else example
                sample = to_sample(named, encode_png(pixels), seen.get(pixels.tobytes()))
                yield split_of(example.prompt.text, config.seed, config.val_share), sample


def _conclude(config: Config, checked: Checked) -> None:
    """Pairs, counts, datasheet; workers that end together write the same bytes."""
    from genloop.data.judge.datasheet import datasheet, tally

    examples = read_sides(config.out / "shards")
    pairs = pairs_of(examples, config.seed, most=config.max_pairs)
    lines = [json_line({"split": split, **asdict(pair)}) for split, found in pairs.items() for pair in found]
    write_atomic(config.out / "pairs.jsonl", b"".join(lines))
    tallies = tally(examples)
    counts = {split: {**t.plain(), "pairs": len(pairs[split])} for split, t in tallies.items()}
    labelled = checked.labelled
    write_json(config.out / "summary.json", counts | ({"conversations": labelled.plain()} if labelled else {}))
    sections = _about(config, checked) | (labelled.about() if labelled else {})
    text = datasheet(sections, tallies, pairs)
    write_atomic(config.out / "datasheet.md", text.encode())


def _about(config: Config, checked: Checked) -> dict[str, list[str]]:
    """What the datasheet says beside its counts."""
    from genloop.data.judge import datasheet

    split = datasheet.about_split(config.seed, config.val_share, config.max_pairs)
    scenes = datasheet.about_scenes(config.num_scenes, config.spoilt) if config.num_scenes else {}
    source, made = checked.source, checked.made
    if source is None or made is None:
        return {**scenes, **split}
    options = made.generator.options
    names = [str(getattr(options, key.rpartition(".")[2])) for key in made.generator.inputs(resolve, "generator")]
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
    return {
        **paths,
        **datasheet.about_labels(judged, config.continuations, config.clarity_threshold),
        **scenes,
        **split,
    }


def _licence(name: str) -> str:
    known = registry()
    return known[name].licence if name in known else "not registered; that of whoever made them"


if __name__ == "__main__":
    run(main, Config)
