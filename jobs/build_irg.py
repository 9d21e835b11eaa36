"""Make a corpus of traces: images are seen, diagnosed, refined, measured again.

    genloop run build_irg tiny out=runs/irg
    genloop run build_irg irg out=runs/irg --procs 2
    genloop run build_irg irg num_traces=1000000 unit_size=1000 out=runs/irg-million --procs 32
    genloop run build_irg irg kind=folder images=photos license=CC0-1.0 prompts=photos.jsonl out=runs/photos
    genloop run build_irg irg kind=run images=runs/generate license=CC0-1.0 out=runs/irg-run

Reads   nothing (kind=scenes: the embedded world, drawn with light, material and depth of field); or `images`: a
        folder of images (kind=folder), of WebDataset shards (shards), or a finished run of `generate` (run). With
        `similarity` a CLIP encoder.
Writes  RUN/shards/{train,val,test}/00000.tar + index: json (genloop/data/irg/record.py), 0.png, 1.png, ..., txt;
        RUN/rows/*.jsonl, one line a trace, or why an image was refused. When all units are done RUN/summary.json:
        counts, how often faults are found and actions succeed, duplicates and leaks between splits;
        RUN/duplicates.jsonl (none is dropped), RUN/datasheet.md and RUN/croissant.json (Croissant 1.1 with RAI
        fields).
Resume  the same command; finished units are kept, any number of workers may join or leave. A trace depends on the
        config, its number and its image alone, and the bytes of shards are reproducible.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ckpts.resolve import resolve
from genloop.bounds import Count, Repeats, Share, Total
from genloop.config import LAUNCH, ComputeKeys, IndependentConfig, InputPath
from genloop.data.irg.plan import FaultShares
from genloop.data.pictures import Picture, find_images, find_pictures, has_shards
from genloop.data.shards import Sample, Shards, write_sides
from genloop.distributed import World, choose_device
from genloop.hashing import sha256_tree
from genloop.job import loading, note, plain, run
from genloop.ledger import Ledger, count, plan_units, rows_of_units
from genloop.meanings import ROUNDS, VAL_SHARE
from genloop.planning import Workload
from genloop.reading import json_object
from genloop.records import Prompt
from genloop.rewards.build import build_judge, check_judge
from genloop.rewards.settings import JudgeSettings
from genloop.rundir import RunFailed, json_line, write_atomic, write_json
from genloop.runs.generated import check_generated, image_folder

if TYPE_CHECKING:
    from genloop.data.irg.loop import Similarity
    from genloop.data.irg.photographs import PhotographTraces
    from genloop.data.irg.record import Generator
    from genloop.shapes.scene_traces import SceneTraces

KIND = "independent"
SCENE_LICENCE = "CC0-1.0"


class Config(ComputeKeys, IndependentConfig):
    num_traces: Total = Field(4000, description="traces; images of a source are used in turn")
    kind: Literal["scenes", "folder", "shards", "run"] = Field("scenes", description="where clean images come from")
    images: Annotated[Path | None, LAUNCH] = Field(
        None, description="folder of images, of shards, or a run of generate; fingerprinted by content"
    )
    prompts: InputPath | None = Field(None, description="their prompts, where the folder does not hold them")
    instruction: str | None = Field(None, min_length=1, max_length=2000, description="of images without a prompt")
    own_faults: Literal["leave_out", "keep"] = Field(
        "leave_out", description="images in which the rules find something before any fault is put in"
    )
    license: str | None = Field(None, min_length=1, max_length=200, description="of the images; scenes are CC0-1.0")
    resolution: Annotated[int, Field(ge=32, le=2048)] = Field(128, description="(longer) side of an image, pixels")
    faults: FaultShares = FaultShares()
    rounds: Repeats = Field(4, le=16, description=ROUNDS)
    similarity: JudgeSettings | None = Field(None, description="kind clip_score: stores clip_similarity as a feature")
    val_share: Share = Field(0.05, lt=1, description=VAL_SHARE)
    test_share: Share = Field(
        0.1, lt=1, description="share of the data that is kept for tests, with templates of its own"
    )
    unit_size: Count = Field(250, description="traces in one unit of work, which has a shard for each split")


@dataclass(frozen=True)
class Checked:
    """The images of a source, below `folder`; None of drawn scenes."""

    folder: Path | None = None
    pictures: Sequence[Picture] = ()
    digest: str | None = None


def check(config: Config) -> Checked:
    """Shares, the encoder's header, and the names and prompts of all images, before anything is made."""
    if config.val_share + config.test_share >= 1:
        raise ValueError("test_share: val_share and test_share add up to 1 or more; nothing is left to train on")
    if config.similarity is not None:
        check_judge(config.similarity, resolve, ["outcome"])
    if config.kind == "scenes":
        given = [key for key in ("images", "prompts", "instruction", "license") if getattr(config, key) is not None]
        if given:
            raise ValueError(f"{given[0]}: drawn scenes need none; leave it out, or choose another source")
        return Checked()
    if config.images is None:
        raise ValueError(f"images: kind={config.kind} needs one")
    if config.license is None:
        raise ValueError(f"license: name that of the images in {config.images}; the corpus is under it too")
    return _check_images(config, config.images)


def _check_images(config: Config, folder: Path) -> Checked:
    if config.kind == "run":
        check_generated(folder, "images")
        folder = image_folder(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"images: no such folder: {folder}")
    if config.kind != "run" and has_shards(folder) != (config.kind == "shards"):
        raise ValueError(
            f"images: {folder} holds {'shards' if has_shards(folder) else 'no shards'}; is it a folder "
            f"for kind={'shards' if has_shards(folder) else 'folder'}?"
        )
    by_prompt = config.kind != "folder" or config.prompts is not None
    pictures = find_pictures(folder, config.prompts) if by_prompt else find_images(folder)
    lacking = [picture.image for picture in pictures if picture.prompt is None]
    if lacking and config.instruction is None:
        raise ValueError(f"instruction: {folder / lacking[0]} has no prompt; name one, or give `prompts`")
    return Checked(folder, pictures, sha256_tree(folder))


def inputs(config: Config, checked: Checked) -> dict[str, Path | str]:
    """The content of the source and of the encoder."""
    found: dict[str, Path | str] = {} if checked.digest is None else {"images": checked.digest}
    return found | (config.similarity.inputs(resolve, "similarity") if config.similarity else {})


def work(config: Config) -> Workload:
    """Traces."""
    total = min(config.num_traces, config.limit or config.num_traces)
    return Workload(total, total)


def main(config: Config, world: World, checked: Checked) -> None:
    import torch

    torch.set_num_threads(config.threads)
    units = plan_units(min(config.num_traces, config.limit or config.num_traces), config.unit_size)
    with Ledger.of(config, units, world) as ledger:
        maker: TraceMaker | None = None
        for unit in ledger.claims():
            maker = maker or TraceMaker(config, world, checked)  # a finished run loads nothing
            with ledger.working(unit):
                rows: list[dict[str, Any]] = []
                samples = maker.samples(range(unit.start, unit.stop), rows, ledger)
                staging, ready = ledger.staging, ledger.check_lease
                for side in write_sides(config.out / "shards", unit.name, samples, staging=staging, ready=ready):
                    ledger.record(config.out / "shards" / side["shard"], side["sha256"])
                ledger.complete(unit, rows)
    if count(config.out, len(units)).done == len(units):
        rows = rows_of_units(config.out, units, json_object)
        if all("refused" in row for row in rows):
            raise RunFailed(f"{config.out}: no trace could be made of any image; the first: {rows[0]['refused']}")
        _conclude(config, rows, _shards(config.out / "shards"))


class TraceMaker:
    """Makes the samples of a unit, and a row about each trace."""

    def __init__(self, config: Config, world: World, checked: Checked) -> None:
        from genloop.data.irg.loop import Loop
        from genloop.metrics.paired.single import compare_images

        self._config, self._world = config, world
        self._source = _source(config, checked)
        self._loop = Loop(compare_images, config.rounds, _similarity(config, world))
        self._made_by = _generator(config, self._source.name)

    def samples(self, items: range, rows: list[dict[str, Any]], ledger: Ledger) -> Iterator[tuple[str, Sample]]:
        """(split, sample) of every trace that is made; `rows` gets one row a trace, made or refused."""
        from genloop.data.irg.photographs import Refused

        for index in items:
            self._world.check_stop()
            try:
                with note(f"trace {index}"):
                    split, sample, row = self._trace(index)
            except Refused as error:
                rows.append({"item": index, "refused": str(error)})
            else:
                rows.append(row)
                yield split, sample
            ledger.advance(1)

    def _trace(self, index: int) -> tuple[str, Sample, dict[str, Any]]:
        from genloop.data.irg.dedupe import fingerprint
        from genloop.data.irg.photographs import Refused
        from genloop.data.irg.record import Record
        from genloop.data.irg.split import scene_sha, split_of
        from genloop.data.irg.text import write_texts

        config = self._config
        start, about = self._source.start(index)
        trace = self._loop.run(start)
        if not any(one.accepted for one in trace.rounds):
            raise Refused(f"trace {index}: no action helps")
        record = Record(
            id=f"{index:09d}",
            generator=self._made_by,
            instruction=start.instruction,
            intent=start.intent,
            scene=start.scene,
            rounds=tuple(trace.rounds),
            license=config.license or SCENE_LICENCE,
            provenance=about,
        )
        split = split_of(scene_sha(record), config.seed, config.val_share, config.test_share)
        record = write_texts(record, np.random.default_rng([config.seed, index, 1]), split)
        fields = {"json": record.to_json(), "txt": record.instruction.encode(), **trace.images}
        row = _row(record, about["kind"], start.begins_wrong) | fingerprint(record, trace.images["0.png"])
        return split, Sample(record.id, fields), row


def _row(record: Any, kind: str, begins_wrong: bool) -> dict[str, Any]:
    """What the summary counts of a trace."""
    acted = [one for one in record.rounds if one.actions]
    return {
        "kind": kind,
        "intent": record.intent,
        "rounds": len(record.rounds),
        "injected": [[fault.kind, fault.bin] for fault in record.rounds[0].injected],
        "found": [diagnosis.issue for diagnosis in record.rounds[0].diagnosis],
        "begins_wrong": begins_wrong and bool(acted),
        "done": [[[action.op for action in one.actions], one.accepted] for one in acted if one.result],
        "end": "clean" if not record.rounds[-1].actions else "advised" if not record.rounds[-1].result else "open",
    }


def _source(config: Config, checked: Checked) -> "SceneTraces | PhotographTraces":
    if checked.folder is None:
        from genloop.shapes.scene_traces import SceneTraces

        return SceneTraces(config.seed, config.faults, config.resolution)
    from genloop.data.irg.photographs import PhotographTraces

    return PhotographTraces(
        name=config.kind,
        folder=checked.folder,
        pictures=checked.pictures,
        instruction=config.instruction,
        seed=config.seed,
        shares=config.faults,
        side=config.resolution,
        keeps_faults=config.own_faults == "keep",
    )


def _similarity(config: Config, world: World) -> "Similarity | None":
    """The encoder's cosine of an image and an instruction."""
    if config.similarity is None:
        return None
    import torch

    with loading():
        device = choose_device(config.device, world)
        judge = build_judge(config.similarity, resolve, device)

    def similarity(image: np.ndarray, instruction: str) -> float:
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].to(device) / 255
        return float(judge.p_yes("outcome", [Prompt(0, instruction)], pixels)[0])

    return similarity


def _generator(config: Config, name: str) -> "Generator":
    """Provenance: what a trace depends on beside its number."""
    from genloop.data.irg.record import Generator

    known = {key: plain(config)[key] for key in ("resolution", "faults", "similarity")}
    known["max_rounds"] = config.rounds  # its first name, which is in the hash of every trace
    text = json.dumps(known, sort_keys=True)
    return Generator(name=name, seed=config.seed, params_sha=hashlib.sha256(text.encode()).hexdigest())


def _conclude(config: Config, rows: Sequence[dict[str, Any]], shards: Sequence[dict[str, Any]]) -> None:
    """Counts, duplicates and leaks, datasheet and metadata; workers that end together write the same bytes."""
    from genloop.data.irg.croissant import croissant
    from genloop.data.irg.dedupe import leakage
    from genloop.report.irg.datasheet import about_corpus, about_source, datasheet
    from genloop.report.irg.summary import summarize

    leaks = leakage(row for row in rows if "refused" not in row)
    write_atomic(config.out / "duplicates.jsonl", b"".join(map(json_line, leaks.duplicates)))
    license = config.license or SCENE_LICENCE
    source, people = about_source(config.kind, config.resolution)
    about = about_corpus(source, license, config.seed, config.val_share, config.test_share)
    summary = summarize(rows) | {"leakage": leaks.summary}
    write_atomic(config.out / "datasheet.md", datasheet(summary, about).encode())
    made = croissant("refinement-traces", license=license, shards=shards, source=source, sensitive=people)
    write_json(config.out / "croissant.json", made)
    write_json(config.out / "summary.json", summary)


def _shards(folder: Path) -> list[dict[str, Any]]:
    """{"shard", "bytes", "sha256"} of every shard, as its index says."""
    indices = [index for split in sorted(folder.iterdir()) for index in Shards(split).indices]
    names = [index.path.relative_to(folder).as_posix() for index in indices]
    return [{"shard": n, "bytes": index.num_bytes, "sha256": index.sha256} for n, index in zip(names, indices)]


if __name__ == "__main__":
    run(main, Config)
