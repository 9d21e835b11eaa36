"""The verify job reads the traces of shards, and says by kind what does not hold."""

import json

import pytest

from genloop.data.shards import Sample, write_shard
from genloop.job import run_command
from genloop.ledger import read_rows
from jobs import verify
from tests.worlds.traces import trace


def check(folder, *words) -> int:
    try:
        return run_command(verify, [f"run={folder}", f"out={folder.parent / 'verified'}", "unit_size=1", *words])
    except SystemExit as end:
        return int(end.code or 0)


def samples():
    return [trace(kind, seed).sample for seed, kind in enumerate(("dark", "clean", "undone", "content"))]


def altered(sample, change):
    """The sample after `change` to the plain values of its record."""
    row = json.loads(sample.fields["json"])
    change(row)
    return Sample(sample.key, {**sample.fields, "json": json.dumps(row).encode()})


def test_a_folder_of_shards_is_read_trace_by_trace(tmp_path, capsys):
    for split in ("train", "val"):
        write_shard(tmp_path / "set" / split / "00000.tar", samples())
    assert check(tmp_path / "set", "pixels=true") == 0
    assert "8 traces read: no problems" in capsys.readouterr().out
    assert [row["traces"] for row in read_rows(tmp_path / "verified")] == [4, 4]


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda row: row["rounds"][0].update(image_sha256="0" * 64), "image", ()),
        (lambda row: row["rounds"][0]["diagnosis"][0].update(issue="blur"), "diagnosis", ()),
        (lambda row: row["rounds"][0].update(diagnosis_text="The noise level is 77.0."), "number", ()),
        (lambda row: row["rounds"][0]["features"].update(saturation=0.9), "features", ("pixels=true",)),
        (lambda row: row.update(rounds=[]), "schema", ()),
    ],
)
def test_a_fault_is_counted_by_its_kind_and_fails(tmp_path, capsys, change, kind, words):
    first, *others = samples()
    write_shard(tmp_path / "set" / "00000.tar", [altered(first, change), *others])
    assert check(tmp_path / "set", *words) == 1
    printed = capsys.readouterr()
    assert "4 traces read" in printed.out and f" {kind}" in printed.out.partition("read: ")[2]
    assert f"{kind}: 00000.tar: {first.key}" in printed.err


def test_texts_of_others_are_told_and_pass(tmp_path, capsys):
    first, *others = samples()
    spoken = altered(first, lambda row: row["rounds"][0].update(reasoning_text="It is far too dark in here."))
    spoken = altered(spoken, lambda row: row.update(messages=[]))
    write_shard(tmp_path / "set" / "00000.tar", [spoken, *others])
    assert check(tmp_path / "set") == 0
    printed = capsys.readouterr().out
    assert "no problems; 1 texts" in printed and "far too dark" in printed


def test_shards_of_another_schema_are_no_traces(tmp_path, capsys):
    write_shard(tmp_path / "set" / "00000.tar", [Sample("a", {"txt": b"a dog", "json": b'{"caption": "a dog"}'})])
    assert check(tmp_path / "set") == 1
    assert "1 schema" in capsys.readouterr().out


def test_a_torn_shard_is_one_line(tmp_path, capsys):
    write_shard(tmp_path / "set" / "00000.tar", samples())
    shard = tmp_path / "set" / "00000.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    assert check(tmp_path / "set") == 1
    printed = capsys.readouterr()
    assert "00000.tar unreadable" in printed.err and "Traceback" not in printed.err


def test_a_folder_without_shards_is_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert check(tmp_path / "empty") == 2
    assert "run: " in capsys.readouterr().err
