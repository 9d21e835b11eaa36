"""make_prompts from a grammar or a file: splits share no combination, no sentence is there twice, bad ones stop."""

from pathlib import Path

import pytest

from genloop.data.prompts import read_prompts
from genloop.job import run_command
from genloop.reading import json_object, read_json
from jobs import make_prompts

WORDS = ["kind=grammar", "split_by=[breed,place]", "num_prompts=40"]
GRAMMAR = (
    "grammar={templates: ['a {breed} {place}, {light}'], slots: {breed: [pug, boxer, corgi], "
    "place: [in a park, on a beach, at home, in snow], light: [dusk, noon, dawn, night]}}"
)


def rows(run: Path) -> list[dict]:
    return [json_object(line) for line in (run / "slots.jsonl").read_bytes().splitlines()]


def pairs(run: Path, split: str, *slots: str) -> set[tuple[str, ...]]:
    return {tuple(row["slots"][slot] for slot in slots) for row in rows(run) if row["split"] == split}


def test_the_dogs_of_an_evaluation_stand_where_none_of_their_breed_was_seen(tmp_path):
    for name in ("a", "b"):
        assert run_command(make_prompts, ["dogs", f"out={tmp_path / name}"]) == 0
    run = tmp_path / "a"
    texts = {split: [p.text for p in read_prompts(run / f"{split}.txt")] for split in ("train", "val", "eval")}
    assert {split: len(found) for split, found in texts.items()} == {"train": 1600, "val": 200, "eval": 200}
    assert len(set().union(*texts.values())) == 2000
    seen = [pairs(run, split, "breed", "environment") for split in texts]
    assert [len(found) for found in seen] == [128, 16, 16] and len(set().union(*seen)) == 160
    assert len(pairs(run, "train", "camera")) == 5 and len(pairs(run, "train", "pose", "lighting")) == 48
    for file in run.glob("*.txt"):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    counted = read_json(run / "summary.json")["splits"]["eval"]
    assert counted["prompts"] == 200 == sum(counted["values"]["breed"].values()) and counted["combinations"] == 16


def test_a_grammar_gives_what_it_has_and_another_seed_splits_otherwise(tmp_path):
    for seed in (0, 1):
        words = [*WORDS, GRAMMAR, "num_prompts=1000", f"seed={seed}", f"out={tmp_path / str(seed)}"]
        assert run_command(make_prompts, ["tiny", *words]) == 0
        assert len({row["prompt"] for row in rows(tmp_path / str(seed))}) == 48 == len(rows(tmp_path / str(seed)))
    assert pairs(tmp_path / "0", "eval", "breed", "place") != pairs(tmp_path / "1", "eval", "breed", "place")


@pytest.mark.parametrize("suffix, comma", [(".csv", ","), (".tsv", "\t")])
def test_a_table_is_split_by_its_columns(tmp_path, suffix, comma):
    lines = [f"{n},dog {n} {p},{p}" for n in range(3) for p in ("red", "blue", "grey", "red")]
    file = tmp_path / f"dogs{suffix}"
    file.write_text("\n".join(["n,text,colour", *lines]).replace(",", comma))
    words = [
        "kind=file",
        f"file={file}",
        "column=text",
        "split_by=[colour]",
        "shares={train: 0.4, val: 0.3, eval: 0.3}",
    ]
    assert run_command(make_prompts, ["tiny", *words, f"out={tmp_path / 'run'}"]) == 0
    found = rows(tmp_path / "run")
    assert len(found) == 9 and {
        len(pairs(tmp_path / "run", split, "colour")) for split in ("train", "val", "eval")
    } == {1}


def test_the_lines_of_a_text_file_are_split_one_by_one(tmp_path):
    (tmp_path / "in.txt").write_text("".join(f"dog {n % 10}\n" for n in range(20)))
    assert (
        run_command(make_prompts, ["tiny", "kind=file", f"file={tmp_path / 'in.txt'}", f"out={tmp_path / 'run'}"]) == 0
    )
    found = {split: read_prompts(tmp_path / "run" / f"{split}.txt") for split in ("train", "val", "eval")}
    assert {split: len(prompts) for split, prompts in found.items()} == {"train": 8, "val": 1, "eval": 1}
    words = ["tiny", "kind=file", f"file={tmp_path / 'in.txt'}", f"without=[{tmp_path / 'run' / 'val.txt'}]"]
    assert run_command(make_prompts, [*words, "shares={train: 1, val: 0, eval: 0}", f"out={tmp_path / 'rest'}"]) == 0
    assert len(rows(tmp_path / "rest")) == 9 and not (tmp_path / "rest" / "val.txt").exists()


@pytest.mark.parametrize(
    "words, key",
    [
        ([GRAMMAR.replace("{light}", "{lihgt}")], "grammar.templates"),
        ([GRAMMAR.replace("{light}", "{light:>9}")], "grammar.templates"),
        ([GRAMMAR.replace("{light}", "{light")], "grammar.templates"),
        ([GRAMMAR.replace(" {place}", "")], "grammar.templates"),
        ([GRAMMAR.replace("[dusk, noon, dawn, night]", "[]")], "grammar.slots.light"),
        ([GRAMMAR.replace("noon", "dusk")], "grammar.slots.light"),
        ([GRAMMAR, "split_by=[bred]"], "split_by"),
        ([GRAMMAR, "split_by=[]"], "split_by"),
        ([GRAMMAR, "shares={val: 0.001}"], "shares.val"),
        ([GRAMMAR, "num_prompts=1"], "shares.val"),
        ([GRAMMAR, "shares={train: 0, val: 0, eval: 0}"], "shares"),
        ([], "grammar"),
        (["kind=file"], "file"),
        (["kind=file", "file=FILE.csv", "column=name"], "column"),
        (["kind=file", "file=FILE.csv", "split_by=[breed]"], "split_by"),
        (["kind=file", "file=FILE.csv", "split_by=[]", "shares={train: 0, val: 0}"], "FILE.csv:3"),
        (["kind=file", "file=FILE.txt"], "split_by"),
    ],
)
def test_what_cannot_be_split_is_refused(tmp_path, capsys, words, key):
    (tmp_path / "FILE.csv").write_text("prompt,light\na dog,noon\na pug\n")
    (tmp_path / "FILE.txt").write_text("a dog\n")
    words = [word.replace("FILE", str(tmp_path / "FILE")) for word in words]
    assert run_command(make_prompts, ["tiny", *WORDS, *words, f"out={tmp_path / 'run'}"]) == 2
    err = capsys.readouterr().err
    assert key.replace("FILE", str(tmp_path / "FILE")) in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()
