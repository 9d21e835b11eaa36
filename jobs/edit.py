"""Edit pictures with Qwen2vl-Flux: variation, img2img, inpainting, control maps.

    genloop run edit tiny out=runs/e
    genloop run edit qwen2vl_flux out=runs/v mode=variation input_image=cat.png prompt=snow aspect_ratio=16:9
    genloop run edit qwen2vl_flux out=runs/i mode=inpaint input_image=cat.png mask_image=mask.png prompt="a hat"
    genloop run edit qwen2vl_flux out=runs/w requests=w.jsonl search.strategy=best_of_n search.n=4 judge.kind=...

Reads   a work list, one JSON object a line with the keys of a request, or one request by its keys; pictures; a
        checkpoint in the published layout (`checkpoint`, or the variable CHECKPOINT_DIR).
Writes  RUN/images/00017/samples/0000.png, RUN/rows/*.jsonl, one line an image, as `generate` writes them, with
        what was edited and checked; RUN/inputs/00017/*.png, what the model was given: picture, mask, control maps;
        RUN/conditions/*.safetensors, what Qwen2-VL, T5 and CLIP read, encoded once.
Resume  the same command; finished units are kept, any number of workers may join or leave. An image depends on its
        request, the config's seed and its number alone.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from ckpts.resolve import resolve
from genloop.bounds import Count
from genloop.config import LAUNCH, DeviceKeys, IndependentConfig, InputPath
from genloop.data.image_reader import image_size
from genloop.distributed import World, choose_device
from genloop.hashing import sha256_files
from genloop.job import note, run
from genloop.ledger import Ledger, plan_units
from genloop.meanings import SLOTS
from genloop.models.diffusion.lora import parse_lora
from genloop.models.flux_edit.config import check_edit_folder, edit_folder
from genloop.models.flux_edit.needs import COMPONENTS, needed
from genloop.planning import Footprint, Workload
from genloop.records import Prompt, Unit
from genloop.registry import check_installed
from genloop.rewards.build import build_judge, check_judge
from genloop.rewards.settings import JudgeSettings
from genloop.rundir import read_run
from genloop.runs.provenance import CHUNK, image_chunk
from genloop.runs.recording import generated_row
from genloop.runs.rows import EditRecord, GeneratedRow
from genloop.runs.sinks import FolderSink
from genloop.sampling.flux_edit.models import EditModelKeys, EditModels
from genloop.sampling.flux_edit.prepare import PreparedEdit, drawn_size, given_pictures, prepare
from genloop.sampling.flux_edit.requests import EditKeys, read_requests
from genloop.search.settings import SearchSettings, strategy_class

if TYPE_CHECKING:
    from genloop.models.flux_edit.encode import Conditions
    from genloop.protocols import Judge

KIND = "independent"
STRATEGIES = ("none", "best_of_n")  # an image is drawn in one step: nothing can be cut or corrected on the way


class Config(EditKeys, EditModelKeys, DeviceKeys, IndependentConfig):
    requests: InputPath | None = Field(None, description="a work list; its keys go before those of the config")
    checkpoint: Annotated[str | None, LAUNCH] = Field(
        None, description="folder, or a name of `ckpts`; null: CHECKPOINT_DIR; fingerprinted by content"
    )
    search: SearchSettings = SearchSettings()
    judge: JudgeSettings = JudgeSettings()
    slots: Annotated[Count, LAUNCH] = Field(4, description=SLOTS)


@dataclass(frozen=True)
class Checked:
    """What there is to do."""

    requests: list[EditKeys]
    folder: Path
    components: tuple[str, ...]

    @property
    def images(self) -> list[tuple[int, int]]:
        """Request and number of every image."""
        return [(index, sample) for index, one in enumerate(self.requests) for sample in range(one.image_count)]


def check(config: Config) -> Checked:
    """Requests, pictures' headers, names and the components that they need, before anything is loaded or written."""
    if config.search.strategy not in STRATEGIES:
        raise ValueError(f"search.strategy: edit has {' and '.join(STRATEGIES)}, found {config.search.strategy!r}")
    config.search.check(1)
    if config.search.questions:
        check_judge(config.judge, resolve, config.search.questions)
    requests = _requests(config)
    for number, request in enumerate(requests, start=1):
        where = f"{config.requests}:{number}: " if config.requests else ""
        sizes = {key: image_size(path) for key, path in request.files().items()}
        for key, size in sizes.items():
            if size is None:
                raise ValueError(f"{where}{key}: {getattr(request, key)} is no PNG, JPEG or WebP file")
        try:
            drawn_size(request, *(sizes["input_image"] or (0, 0)))
        except ValueError as error:
            raise ValueError(f"{where}{error}") from None
    components = tuple(name for name in COMPONENTS if any(name in needed(request.wish) for request in requests))
    folder = resolve(str(edit_folder(config.checkpoint)))
    check_edit_folder(folder, components)
    check_installed("diffusers", "diffusion")
    if any(request.has_line for request in requests):
        check_installed("skimage", "editing")  # lines, and the check against them
    config.check_models()
    return Checked(requests, folder, components)


def _requests(config: Config) -> list[EditKeys]:
    given = {key: getattr(config, key) for key in EditKeys.model_fields if key in config.model_fields_set}
    if config.requests is not None:
        defaults = config.model_dump(mode="json", include=set(given))
        return read_requests(config.requests, list(defaults.items()))[: config.limit]
    request = EditKeys(**given)
    request.check()
    return [request]


def inputs(config: Config, checked: Checked) -> dict[str, Path | str]:
    """Checkpoints and the pictures of a work list, whose content enters the fingerprint."""
    found: dict[str, Path | str] = {"checkpoint": checked.folder}
    found |= config.judge.inputs(resolve, "judge") if config.search.questions else {}
    found |= {f"lora.{number}": parse_lora(text).file for number, text in enumerate(config.lora)}
    if config.requests is not None:
        files = sorted({file for request in checked.requests for file in request.files().values()})
        found["pictures"] = hashlib.sha256("".join(sha256_files(files)).encode()).hexdigest()
    return found


def work(config: Config) -> Workload:
    """The images; a unit is so many of them."""
    requests = _requests(config)
    return Workload(sum(request.image_count for request in requests), len(requests))


def footprint(config: Config, checked: Checked, *, device: str, ranks: int) -> Footprint:
    """The largest stage: weights from headers, one pass of the transformer and one decoding on the meta device."""
    from genloop.models.flux_edit.footprint import Room, largest_stage

    sizes = []
    for request in checked.requests:
        assert request.input_image is not None, "a request was not checked"
        sizes.append(drawn_size(request, *(image_size(request.input_image) or (1, 1))))
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    room = Room(
        config.dtype, (width, height), config.slots, config.memory, config.quantise, config.offload, config.gguf
    )
    parts, working = largest_stage(check_edit_folder(checked.folder, checked.components), room, device)
    return Footprint(parts, working, {"images, at most": 3 * width * height * len(checked.images)})


def main(config: Config, world: World, checked: Checked) -> None:
    units = plan_units(len(checked.images), config.unit_size)
    with Ledger.of(config, units, world) as ledger:
        models: EditModels | None = None
        judge: Judge | None = None
        for unit in ledger.claims():
            if models is None:  # a finished run loads nothing
                device = choose_device(config.device, world)
                models = EditModels(config, checked.folder, checked.components, device)
                judge = build_judge(config.judge, resolve, device) if config.search.questions else None
            with ledger.working(unit):
                rows = _edit(config, checked, models, judge, ledger, unit, world)
                ledger.complete(unit, [row.to_json() for row in rows])


def _edit(
    config: Config,
    checked: Checked,
    models: EditModels,
    judge: "Judge | None",
    ledger: Ledger,
    unit: Unit,
    world: World,
) -> list[GeneratedRow]:
    """All images of a unit -> their rows."""
    from genloop.sampling.flux_edit.conditions import ConditionCache

    wanted: dict[int, list[int]] = {}  # request -> numbers of its images
    for index, sample in checked.images[unit.start : unit.stop]:
        wanted.setdefault(index, []).append(sample)
    prepared: list[PreparedEdit] = []
    for index in wanted:
        with note(f"request {index}"):
            prepared.append(prepare(checked.requests[index], models.annotators))
    conditions = ConditionCache(config.out / "conditions", ledger.keep).all_of(prepared, models.encoders)
    sink = FolderSink(ledger, unit, read_run(config.out) or {})
    rows: list[GeneratedRow] = []
    for (index, samples), request, condition in zip(wanted.items(), prepared, conditions, strict=True):
        with note(f"request {index}"):
            inputs = _keep_inputs(ledger, index, request, condition)
            pairs = [(Prompt(index, request.request.prompt), sample) for sample in samples]
            rows += _draw(config, models, judge, sink, pairs, request, condition, inputs, world)
    sink.close()
    return rows


def _draw(
    config: Config,
    models: EditModels,
    judge: "Judge | None",
    sink: FolderSink,
    pairs: list[tuple[Prompt, int]],
    prepared: PreparedEdit,
    conditions: "Conditions",
    inputs: dict[str, str],
    world: World,
) -> list[GeneratedRow]:
    """Some images of one request."""
    import torch

    from genloop.data.images import encode_png, to_uint8
    from genloop.sampling.flux_edit.sampler import EditSampler

    sampler = EditSampler(
        models.drawer(),
        prepared.drawing,
        conditions,
        slots=config.slots,
        before_step=world.step,
    )
    search = config.search
    strategy = strategy_class(search.strategy)(sampler, judge, search.n, search.options)
    rows = []
    for (prompt, sample), choice in zip(pairs, strategy.search(pairs, config.seed), strict=True):
        content = torch.from_numpy(choice.candidates[choice.chosen].content)[None]
        (image,) = to_uint8(sampler.decode(content))
        row = generated_row(prompt, sample, choice, sampler, search.strategy, sink.place(prompt.index, sample))
        row = row.model_copy(update={"edit": _record(prepared, image, models, inputs)})
        png = encode_png(image, {CHUNK: image_chunk(sink.regime, row)})
        row = row.model_copy(update={"sha256": hashlib.sha256(png).hexdigest()})
        sink.put(prompt, row, png)
        sink.ledger.advance(1)
        rows.append(row)
    return rows


def _record(prepared: PreparedEdit, image: np.ndarray, models: EditModels, inputs: dict[str, str]) -> EditRecord:
    """What was edited, and checks that need no judge."""
    from genloop.metrics.editing import edit_checks

    request, drawing = prepared.request, prepared.drawing
    maps = {control.name: control.map for control in drawing.controls}
    return EditRecord(
        mode=request.mode,
        input_image=str(request.input_image),
        width=drawing.size[0],
        height=drawing.size[1],
        steps=drawing.steps,
        guidance_scale=drawing.guidance_scale,
        strength=None if drawing.picture is None else drawing.strength,
        controls={control.name: control.strength for control in drawing.controls},
        notes=prepared.notes,
        inputs=inputs,
        checks=edit_checks(image, prepared.seen, drawing.mask, maps, models.depth),
    )


def _keep_inputs(ledger: Ledger, index: int, prepared: PreparedEdit, conditions: "Conditions") -> dict[str, str]:
    """Write what the model was given -> {name: path below the run folder}."""
    from genloop.data.images import encode_png

    pictures = given_pictures(prepared, conditions.grid)
    paths = {name: f"inputs/{index:05d}/{name}.png" for name in pictures}
    for name, pixels in pictures.items():
        ledger.write(ledger.run / paths[name], encode_png(pixels))
    return paths


if __name__ == "__main__":
    run(main, Config)
