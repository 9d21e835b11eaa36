"""Traces keep what a format can hold, there and back; what cannot be read is told before anything is written."""

import json
from pathlib import Path

import pytest

from genloop.data.chats import ChatFile
from genloop.data.image_reader import decode_image
from genloop.data.irg.exports.hub import columns
from genloop.data.irg.exports.looks import looks_of, record_of, sample_of, text_of
from genloop.data.irg.exports.own import joined
from genloop.data.irg.record import parse_record
from genloop.data.irg.text import conversation
from genloop.data.shards import write_shard
from genloop.job import run_command
from genloop.ledger import read_rows
from genloop.registry import require
from jobs import export_irg, verify
from tests.runs import contents
from tests.worlds.traces import trace

KINDS = ("dark", "clean", "undone", "content")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Shards of eight traces, four of them in test."""
    folder = tmp_path_factory.mktemp("traces")
    for split in ("train", "test"):
        made = [trace(kind, seed + (split == "test") * 10, split) for seed, kind in enumerate(KINDS)]
        write_shard(folder / "shards" / split / "00000.tar", [one.sample for one in made])
    return folder


def export(out: Path, *words: str) -> int:
    try:
        return run_command(export_irg, [f"out={out}", "unit_size=3", *words])
    except SystemExit as end:
        return int(end.code or 0)


def there_and_back(source, tmp_path, name):
    """{id: sample} before and after."""
    assert export(tmp_path / "there", f"source={source}", f"format={name}") == 0
    assert export(tmp_path / "back", f"source={tmp_path / 'there'}", f"source_format={name}", "license=CC0-1.0") == 0
    first, again = ({sample.key: sample for sample in joined(folder)} for folder in (source, tmp_path / "back"))
    return first, again


def verified(folder: Path) -> int:
    try:
        return run_command(verify, [f"run={folder}", f"out={folder.parent / 'verified'}"])
    except SystemExit as end:
        return int(end.code or 0)


@pytest.mark.parametrize("name", ["irg", "verl"])
def test_images_texts_diagnoses_and_actions_survive(source, tmp_path, name):
    first, again = there_and_back(source, tmp_path, name)
    assert again.keys() == first.keys()
    for key, sample in first.items():
        old, new = record_of(sample), record_of(again[key])
        assert (new.instruction, new.split, new.license) == (old.instruction, old.split, old.license)
        looks = [(sample.fields[look.image], look.text, look.edit) for look in looks_of(old)]
        assert looks == [(again[key].fields[look.image], look.text, look.edit) for look in looks_of(new)]
        accepted = [one for one in old.rounds if one.accepted]
        assert [one.diagnosis for one in new.rounds] == [one.diagnosis for one in accepted]
        assert [one.actions for one in new.rounds] == [one.actions for one in accepted]
        assert [one.features for one in new.rounds] == [one.features for one in accepted]
        assert new.reasoning_text == (old.reasoning_text if name == "irg" else "")
    assert verified(tmp_path / "back") == 0


def test_chats_survive_with_their_images(source, tmp_path):
    first, again = there_and_back(source, tmp_path, "chat")
    for key, sample in first.items():
        old, new = record_of(sample), record_of(again[key])
        assert [(m.role, m.content) for m in new.messages] == [(m.role, m.content) for m in old.messages]
        images = [
            [one.fields[n] for m in record.messages for n in m.images]
            for one, record in ((sample, old), (again[key], new))
        ]
        assert images[0] == images[1]
        accepted = [one for one in old.rounds if one.accepted]
        assert [(one.diagnosis, one.actions) for one in new.rounds] == [(o.diagnosis, o.actions) for o in accepted]
    assert verified(tmp_path / "back") == 0
    chats = ChatFile(tmp_path / "there" / "exported" / "00000.jsonl", tmp_path / "there")
    assert chats.row(0).images and chats.image(0, chats.row(0).images[0])


def test_a_table_keeps_all_but_the_scene_the_gain_and_what_is_hidden(source, tmp_path):
    first, again = there_and_back(source, tmp_path, "csv")
    for key, sample in first.items():
        old, new = record_of(sample), record_of(again[key])
        rounds = tuple(one.model_copy(update={"gain": None, "shown": None, "injected": ()}) for one in old.rounds)
        gone = {"scene": None, "rounds": rounds, "messages": new.messages}
        assert new == old.model_copy(update=gone | {"generator": new.generator, "provenance": {}})
        assert {k: v for k, v in again[key].fields.items() if k.endswith("png")} == {
            k: v for k, v in sample.fields.items() if k.endswith("png")
        }
    assert verified(tmp_path / "back") == 0


@pytest.mark.parametrize("name", ["irg", "verl", "chat", "csv", "shards"])
def test_any_instruction_is_a_row_of_every_format(tmp_path, name):
    made = trace("dark")
    record = made.record.model_copy(update={"instruction": 'a red\u2028circle,\x85 "one" | \u00fc', "messages": ()})
    record = record.model_copy(update={"messages": conversation(record, ["Diagnose this image."] * 9)})
    write_shard(tmp_path / "set" / "00000.tar", [sample_of(record, made.images)])
    ((_, sample),) = there_and_back(tmp_path / "set", tmp_path, name)[1].items()
    assert record_of(sample).instruction == record.instruction


@pytest.mark.parametrize("name", ["verl", "chat", "irg"])
def test_any_name_of_a_row_gives_a_key_that_a_shard_may_hold(source, tmp_path, name):
    assert export(tmp_path / "there", f"source={source}", f"format={name}", "split=test") == 0
    for file in (tmp_path / "there" / "exported").iterdir():
        if name == "irg":
            parquet, arrow = require("pyarrow.parquet"), require("pyarrow")
            table = parquet.read_table(file)
            renamed = arrow.array([f"a/b.{key.as_py()}" for key in table["id"]], arrow.string())
            parquet.write_table(table.set_column(table.column_names.index("id"), "id", renamed), file)
        else:
            key = "source_record_id" if name == "verl" else "id"
            rows = [json.loads(line) for line in file.read_text().split("\n")[:-1]]
            file.write_text("".join(f"{json.dumps(row | {key: f'a/b.{row[key]}'})}\n" for row in rows))
    assert export(tmp_path / "back", f"source={tmp_path / 'there'}", f"source_format={name}") == 0
    assert sorted(sample.key for sample in joined(tmp_path / "back")) == [
        f"a-b-{kind}-{seed:05d}" for kind, seed in sorted(zip(KINDS, range(10, 14)))
    ]


@pytest.mark.parametrize("name", ["verl", "chat"])
def test_halves_of_characters_are_told_or_replaced_and_the_others_go_on(source, tmp_path, name):
    assert export(tmp_path / "there", f"source={source}", f"format={name}", "split=test") == 0
    text, key = ("prompt", "source_record_id") if name == "verl" else ("instruction", "id")
    changed = {"content-00013": {text: "\ud800"}, "clean-00011": {key: "c\ud800"}}
    for file in (tmp_path / "there" / "exported").iterdir():
        rows = [json.loads(line) for line in file.read_text().split("\n")[:-1]]
        file.write_text("".join(f"{json.dumps(row | changed.get(row[key], {}))}\n" for row in rows))
    assert export(tmp_path / "back", f"source={tmp_path / 'there'}", f"source_format={name}") == 0
    assert {sample.key for sample in joined(tmp_path / "back")} == {"dark-00010", "c?", "undone-00012"}
    (refused,) = (row["refused"] for row in read_rows(tmp_path / "back") if "refused" in row)
    assert refused.startswith("content-00013: ") and "\n" not in refused


def test_rows_of_a_torn_group_are_told_and_the_others_go_on(source, tmp_path):
    assert export(tmp_path / "there", f"source={source}", "format=irg") == 0
    (tmp_path / "both").mkdir()
    data = max((file.read_bytes() for file in (tmp_path / "there" / "exported").iterdir()), key=len)
    quarter = len(data) // 4
    (tmp_path / "both" / "0.parquet").write_bytes(data)
    (tmp_path / "both" / "1.parquet").write_bytes(data[:quarter] + bytes(quarter) + data[2 * quarter :])
    assert export(tmp_path / "back", f"source={tmp_path / 'both'}", "source_format=irg") == 0
    refused = [row.get("refused", "") for row in read_rows(tmp_path / "back")]
    assert refused[:3] == [""] * 3 and all("1.parquet" in why for why in refused[3:]) and len(refused) == 6


def test_genref_holds_pairs_of_images_with_the_reflection(source, tmp_path):
    first, again = there_and_back(source, tmp_path, "genref")
    assert len(again) == 6 and {key.rpartition("-")[0].partition("-")[0] for key in again} == {
        "dark",
        "undone",
        "content",
    }
    (pair, *_) = joined(tmp_path / "there")
    assert set(pair.fields) == {"good_image.jpg", "bad_image.jpg", "reflection.txt", "prompt.txt", "subset.txt"}
    for key, sample in again.items():
        old, new = record_of(first[key.rpartition("-")[0]]), record_of(sample)
        acted = next(one for one in old.rounds if one.accepted)
        assert (new.instruction, text_of(new.rounds[0]), new.split) == (old.instruction, text_of(acted), old.split)
        images = (first[old.id].fields[acted.image], sample.fields["0.png"])
        before, after = (decode_image(data).astype(float) for data in images)
        assert abs(before - after).mean() < 2  # levels; JPEG
    summary = json.loads((tmp_path / "there" / "summary.json").read_text())
    assert summary["left_out"] == {"genref": 2} and "injected" in summary["lost"]


def test_a_copy_of_shards_keeps_every_byte_of_a_split(source, tmp_path):
    assert export(tmp_path / "copy", f"source={source}", "split=test") == 0
    old, new = source / "shards/test", tmp_path / "copy/shards/test"
    assert [dict(sample.fields) for sample in joined(old)] == [dict(sample.fields) for sample in joined(new)]
    assert {row["left_out"] for row in read_rows(tmp_path / "copy") if row["split"] == "train"} == {"split"}


@pytest.mark.parametrize("name", ["irg", "genref"])
def test_files_are_the_same_byte_by_byte(source, tmp_path, name):
    for out in ("a", "b"):
        assert export(tmp_path / out, f"source={source}", f"format={name}") == 0
    assert contents(tmp_path / "a", ("rows", "shards", "exported")) == contents(
        tmp_path / "b", ("rows", "shards", "exported")
    )


def test_duplicates_are_left_out_of_a_copy(source, tmp_path):
    for file in source.rglob("*.*"):
        if file.is_file():
            target = tmp_path / "set" / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    assert export(tmp_path / "a", f"source={tmp_path / 'set'}", "duplicates=false") == 2  # no list
    (tmp_path / "set" / "duplicates.jsonl").write_text('{"key": "dark-00000", "of": "dark-00010"}\n')
    assert export(tmp_path / "a", f"source={tmp_path / 'set'}", "duplicates=false") == 0
    assert "dark-00000" not in {sample.key for sample in joined(tmp_path / "a")}
    assert len(joined(tmp_path / "a")) == 7


@pytest.mark.parametrize("streaming", [True, False])
def test_the_package_datasets_loads_the_shards(source, tmp_path, streaming):
    files = {split: str(source / "shards" / split / "*.tar") for split in ("train", "test")}
    load = require("datasets").load_dataset
    keys = {"features": columns(3), "cache_dir": str(tmp_path / "cache"), "streaming": streaming}
    rows = list(load("webdataset", data_files=files, **keys)["test"])
    samples = list(joined(source / "shards/test"))
    assert [row["__key__"] for row in rows] == [sample.key for sample in samples]
    found = [parse_record(row["json"]) for row in rows]  # numbers in the package's JSON may differ in the last bit
    assert [(one.id, one.messages) for one in found] == [(r.id, r.messages) for r in map(record_of, samples)]
    assert all(row["0.png"].size == (32, 32) for row in rows)
    assert [row["2.png"] is None for row in rows] == ["2.png" not in sample.fields for sample in samples]


VERL = {
    "trajectory_id": "a",
    "prompt": "p",
    "images": [{"uri": "a.png"}],
    "steps": [{"reflection": "", "action": "stop"}],
}
CHAT = {"messages": [{"role": "user", "content": "Instruction: a dog"}], "images": ["a.png"]}


@pytest.mark.parametrize(
    ("name", "row", "key"),
    [
        ("verl", {**VERL, "prompt": None, "steps": []}, "images and steps"),
        ("verl", {**VERL, "steps": [{"action": "continue"}]}, "steps.0.action"),
        ("verl", {**VERL, "steps": [{"action": "stop", "edit": "more"}]}, "steps.0.edit"),
        ("verl", {"prompt": "p"}, "trajectory_id"),
        ("chat", {**CHAT, "messages": [{"role": "critic", "content": "x"}]}, "messages.0"),
        ("chat", {**CHAT, "images": []}, "0 images for 1 turns"),
        ("chat", {"messages": "x"}, "messages and images"),
        ("chat", {"images": []}, "messages"),
        ("shards", {}, "no shards"),
        ("irg", {}, "no *.parquet"),
        ("csv", {}, "no *.csv"),
    ],
)
def test_a_bad_line_is_refused_with_its_place_before_anything_is_written(tmp_path, capsys, name, row, key):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.jsonl").write_text(json.dumps(row) + "\n")
    assert export(tmp_path / "out", f"source={tmp_path / 'set'}", f"source_format={name}", "license=MIT") == 2
    message = capsys.readouterr().err
    assert (key in message and "a.jsonl:1" in message) or not row
    assert len(message.splitlines()) == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("image", "why"), [(None, "no such file"), (b"no image", "not a PNG")])
def test_a_trace_whose_image_is_not_there_is_left_out_with_the_reason(tmp_path, image, why):
    (tmp_path / "set").mkdir()
    made = trace("dark")
    good = {**VERL, "images": [{"uri": "good.png"}], "license": "MIT", "source_record_id": "good"}
    (tmp_path / "set" / "good.png").write_bytes(made.images["0.png"])
    if image is not None:
        (tmp_path / "set" / "a.png").write_bytes(image)
    lines = [json.dumps(row) + "\n" for row in (good, VERL)]
    (tmp_path / "set" / "a.jsonl").write_text("".join(lines))
    assert export(tmp_path / "out", f"source={tmp_path / 'set'}", "source_format=verl", "license=MIT") == 0
    rows = list(read_rows(tmp_path / "out"))
    assert rows[0]["key"] == "good" and why in rows[1]["refused"]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["refused"] == 1


def test_a_source_without_a_licence_needs_one(tmp_path, capsys):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").write_bytes(trace("dark").images["0.png"])
    (tmp_path / "set" / "a.jsonl").write_text(json.dumps(VERL) + "\n")
    assert export(tmp_path / "out", f"source={tmp_path / 'set'}", "source_format=verl") == 2
    assert "license: " in capsys.readouterr().err
