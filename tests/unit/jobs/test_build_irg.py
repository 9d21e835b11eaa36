"""The refinement corpus from whole runs: whatever happens on the way the same bytes, or refused with a reason."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genloop.data.image_reader import decode_image
from genloop.data.irg.record import Record, parse_record
from genloop.data.irg.verify import verify_sample
from genloop.data.shards import Sample, Shards, write_shard
from genloop.job import run_command
from genloop.ledger import finished, read_rows
from jobs import build_irg, generate, verify
from tests.runs import ROOT, contents, refusal, start, wait_until
from tests.worlds.tiny_clip import write_transformers_folder

FOLDERS = ("rows", "shards")
FEW = ["tiny", "num_traces=6", "unit_size=2", "resolution=64"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Six traces in three units, by one worker, undisturbed."""
    out = tmp_path_factory.mktemp("corpus") / "run"
    assert run_command(build_irg, [*FEW, f"out={out}"]) == 0
    return out


def samples_of(run: Path) -> list[Sample]:
    found = [sample for side in sorted((run / "shards").iterdir()) for sample in Shards(side)]
    return sorted(found, key=lambda sample: sample.key)


def record_of(sample: Sample) -> Record:
    return parse_record(sample.fields["json"])


def photograph(seed: int = 0, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Blocks of grey with fine lines: what the rules find nothing wrong with."""
    random = np.random.default_rng(seed)
    grey = np.kron(random.uniform(0.2, 0.75, (8, 8)), np.ones((8, 8))) + random.normal(0, 0.003, (64, 64))
    return Image.fromarray(np.rint(grey.clip(0, 1) * 255).astype(np.uint8)).convert("RGB").resize(size)


def test_every_trace_holds_what_it_says(corpus):
    samples = samples_of(corpus)
    assert [sample.key for sample in samples] == [f"{index:09d}" for index in range(6)]
    for sample in samples:
        assert [problem for problem in verify_sample(sample) if problem.is_fault] == []
        record = record_of(sample)
        assert record.license == "CC0-1.0" and record.messages and sample.fields["txt"].decode() == record.instruction
        assert {one.image for one in record.rounds} <= set(sample.fields)
    summary = json.loads((corpus / "summary.json").read_text())
    assert summary["traces"] == 6 and summary["refused"] == {} and summary["clean"]["n"] == 6
    assert run_command(verify, [f"run={corpus}", f"out={corpus.parent / 'verified'}"]) == 0


def test_two_workers_that_are_killed_leave_the_same_bytes(corpus, tmp_path):
    out = tmp_path / "run"
    workers = [start("build_irg", *FEW, f"out={out}", rank=rank, world_size=2) for rank in range(2)]
    wait_until(lambda: list(out.glob("leases/*")) or all(worker.poll() is not None for worker in workers))
    time.sleep(0.05)
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
    assert len(finished(out)) < 3 and list((out / "leases").iterdir())
    assert run_command(build_irg, [*FEW, f"out={out}"]) == 0
    assert contents(out, FOLDERS) == contents(corpus, FOLDERS)
    assert (out / "summary.json").read_bytes() == (corpus / "summary.json").read_bytes()
    assert not list((out / "tmp").iterdir())


def test_traces_do_not_depend_on_units(corpus, tmp_path):
    assert run_command(build_irg, [*FEW, "unit_size=4", "limit=4", f"out={tmp_path / 'run'}"]) == 0
    assert samples_of(tmp_path / "run") == samples_of(corpus)[:4]


def test_images_of_every_mode_become_upright_rgb(tmp_path):
    folder, picture = tmp_path / "photos", photograph(size=(96, 64))
    folder.mkdir()
    picture.convert("L").save(folder / "grey.png")
    picture.convert("RGBA").save(folder / "alpha.png")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(folder / "deep.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.save(folder / "turned.jpg", exif=turned)
    photograph().resize((12, 12)).save(folder / "small.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n what is left")
    words = ["tiny", "kind=folder", f"images={folder}", "license=CC-BY-4.0", "instruction=blocks", "num_traces=7"]
    assert run_command(build_irg, [*words, f"out={tmp_path / 'run'}"]) == 0
    rows = list(read_rows(tmp_path / "run"))
    refused = [row["refused"] for row in rows if "refused" in row]
    assert [text.partition(":")[0] for text in refused] == ["broken.png", "small.png"]
    made = {
        record.provenance["image"]: (record, sample)
        for sample in samples_of(tmp_path / "run")
        for record in [record_of(sample)]
    }
    assert sorted(made) == ["alpha.png", "cmyk.jpg", "deep.png", "grey.png", "turned.jpg"]
    for name, (record, sample) in made.items():
        shape = (96, 64, 3) if name == "turned.jpg" else (64, 96, 3)
        assert decode_image(sample.fields["0.png"]).shape == shape and record.license == "CC-BY-4.0"
        assert record.scene is None and record.instruction == "blocks"
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert sum(summary["refused"].values()) == 2 and summary["traces"] == 5


def test_shards_bring_their_instructions(tmp_path):
    picture = tmp_path / "one.jpg"
    photograph().save(picture)
    sample = Sample("a", {"jpg": picture.read_bytes(), "txt": b"grey blocks on a wall"})
    write_shard(tmp_path / "shards" / "00000.tar", [sample])
    words = ["tiny", "kind=shards", f"images={tmp_path / 'shards'}", "license=CC0-1.0", "num_traces=2"]
    assert run_command(build_irg, [*words, f"out={tmp_path / 'run'}"]) == 0
    made = [record_of(sample) for sample in samples_of(tmp_path / "run")]
    assert {record.instruction for record in made} == {"grey blocks on a wall"} and len(made) == 2
    assert len({record.split for record in made}) == 1  # of one image


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["kind=folder"], "images"),
        (["kind=folder", "images={there}", "instruction=x"], "license"),
        (["kind=folder", "images={there}", "license=CC0-1.0"], "instruction"),
        (["kind=shards", "images={there}", "license=CC0-1.0"], "images"),
        (["kind=folder", "images={none}", "license=CC0-1.0"], "images"),
        (["kind=run", "images={there}", "license=CC0-1.0"], "images"),
        (["license=CC0-1.0"], "license"),
        (["faults.clean=0.1"], "faults.clean"),
        (["faults.clean=0.9", "faults.content=0.2"], "faults"),
        (["val_share=0.6", "test_share=0.4"], "test_share"),
        (["kind=folder", "images={there}", "license=x", "instruction="], "instruction"),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(tmp_path, capsys, words, key):
    there = tmp_path / "there"
    there.mkdir()
    photograph().save(there / "a.png")
    given = [word.format(there=there, none=tmp_path / "none") for word in words]
    assert key in refusal(build_irg, ["tiny", f"out={tmp_path / 'run'}", *given], tmp_path, capsys)


def test_a_shard_with_an_empty_instruction_is_named(tmp_path, capsys):
    picture = tmp_path / "one.png"
    photograph().save(picture)
    write_shard(tmp_path / "shards" / "00000.tar", [Sample("k7", {"png": picture.read_bytes(), "txt": b"  "})])
    words = ["tiny", "kind=shards", f"images={tmp_path / 'shards'}", "license=CC0-1.0", f"out={tmp_path / 'run'}"]
    assert "k7" in refusal(build_irg, words, tmp_path, capsys)


def test_generated_images_are_traced_with_the_prompts_of_their_run(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert run_command(generate, ["tiny", "sampling.steps=3", "limit=2", f"out={tmp_path / 'made'}"]) == 0
    words = ["tiny", "kind=run", f"images={tmp_path / 'made'}", "license=CC0-1.0", "num_traces=4", "own_faults=keep"]
    assert run_command(build_irg, [*words, f"out={tmp_path / 'run'}"]) == 0
    rows = list(read_rows(tmp_path / "run"))
    assert len(rows) == 4 and [row for row in rows if "refused" in row] == []
    for sample in samples_of(tmp_path / "run"):
        record = record_of(sample)
        assert record.instruction.startswith("a photo of ") and record.generator.name == "run"
        assert [problem for problem in verify_sample(sample) if problem.is_fault] == []


def test_the_similarity_of_image_and_instruction_comes_from_an_encoder(tmp_path):
    encoder = write_transformers_folder(tmp_path / "clip")
    words = ["similarity.kind=clip_score", "similarity.options.backend=transformers", "num_traces=2"]
    words.append(f"similarity.options.checkpoint={encoder}")
    assert run_command(build_irg, [*FEW, *words, f"out={tmp_path / 'run'}"]) == 0
    seen = [one.features.clip_similarity for sample in samples_of(tmp_path / "run") for one in record_of(sample).rounds]
    assert seen and all(value is not None and 0 <= value <= 1 for value in seen)


def test_a_corpus_comes_with_datasheet_metadata_and_a_list_of_duplicates(corpus, capsys):
    leaks = json.loads((corpus / "summary.json").read_text())["leakage"]
    assert leaks["scenes"] == 6 and leaks["scenes_in_two_splits"] == leaks["templates_in_two_splits"] == 0
    listed = (corpus / "duplicates.jsonl").read_text().splitlines()
    assert len(listed) == sum(leaks[key] for key in leaks if "duplicates" in key)
    sheet = (corpus / "datasheet.md").read_text()
    assert "6 traces." in sheet and "CC0-1.0" in sheet and "## Leakage" in sheet and "clean images in which" in sheet
    metadata = json.loads((corpus / "croissant.json").read_text())
    tars = {part["name"]: part["sha256"] for part in metadata["distribution"] if part["@type"] == "cr:FileObject"}
    folders = [Shards(side) for side in sorted((corpus / "shards").iterdir())]
    assert tars == {f"{i.path.parent.name}/{i.path.name}": i.sha256 for side in folders for i in side.indices}
    assert "http://mlcommons.org/croissant/1.1" in metadata["conformsTo"] and metadata["rai:dataLimitations"]


def test_a_run_with_a_changed_text_does_not_pass(corpus, tmp_path, capsys):
    """The bytes are as recorded; what they say is not true."""
    out = tmp_path / "run"
    assert run_command(build_irg, [*FEW, f"out={out}", "num_traces=2"]) == 0
    (shard, *_) = sorted((out / "shards").rglob("*.tar"))
    samples = list(Shards(shard))
    row = json.loads(samples[0].fields["json"])
    row["rounds"][-1]["reasoning_text"] = "The brightness is 0.999."
    samples[0] = Sample(samples[0].key, {**samples[0].fields, "json": json.dumps(row).encode()})
    before = Shards(shard).indices[0].sha256
    after = write_shard(shard, samples).sha256
    sums = out / "checksums" / "00000"
    sums.write_text(sums.read_text().replace(before, after))
    with pytest.raises(SystemExit):
        run_command(verify, [f"run={out}", f"out={tmp_path / 'verified'}"])
    printed = capsys.readouterr()
    assert "2 traces read: " in printed.out and " 0 bad" in printed.out and "1 number" in printed.out


@pytest.mark.parametrize(("choice", "kinds"), [("leave_out", ["refused", "clean"]), ("keep", ["found", "clean"])])
def test_images_with_faults_of_their_own_are_left_out_or_kept(tmp_path, choice, kinds):
    (tmp_path / "photos").mkdir()
    photograph().point(lambda level: level // 5).save(tmp_path / "photos" / "a.png")
    photograph().save(tmp_path / "photos" / "b.png")
    words = ["tiny", "kind=folder", f"images={tmp_path / 'photos'}", "license=CC0-1.0", "instruction=blocks"]
    words += ["num_traces=2", "faults.clean=1", "faults.content=0", "faults.double=0", "faults.irreversible=0"]
    assert run_command(build_irg, [*words, f"own_faults={choice}", f"out={tmp_path / 'run'}"]) == 0
    assert [row.get("kind", "refused") for row in read_rows(tmp_path / "run")] == kinds


def test_a_source_without_any_usable_image_fails_with_the_first_reason(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"no image")
    words = ["tiny", "kind=folder", f"images={tmp_path / 'photos'}", "license=CC0-1.0", "instruction=x"]
    with pytest.raises(SystemExit) as caught:
        run_command(build_irg, [*words, "num_traces=2", f"out={tmp_path / 'run'}"])
    assert caught.value.code == 1 and "a.png: not a PNG" in capsys.readouterr().err
