"""Examples from whole runs: labelled as their images are, the same bytes from any number of workers, or refused."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from geneval.judge import ShapesOracle
from genloop.data.image_reader import decode_image
from genloop.data.judge.dataset import read_judge_set
from genloop.data.judge.examples import from_sample
from genloop.data.shards import Shards
from genloop.job import run_command
from genloop.ledger import read_rows
from genloop.records import pack_tokens, unpack_tokens
from jobs import build_judge_data, generate, verify
from tests.runs import ROOT, contents, refusal, start
from tests.worlds.conversation_files import published

FOLDERS = ("rows", "shards")
WORDS = ["tiny", "preview_steps=[2,5]", "continuations=3", "unit_size=2", "slots=5", "val_share=0.4", "with_cells=true"]
MADE = ["tiny", "limit=6", "sampling.steps=8", "sampling.preview=argmax", "sampling.order=object_first"]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("source") / "run"
    os.chdir(ROOT)
    assert run_command(generate, [*MADE, "search.strategy=best_of_n", "search.n=2", f"out={run}"]) == 0
    return run


@pytest.fixture(scope="module")
def built(source, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("built") / "run"
    assert run_command(build_judge_data, [*WORDS, f"source={source}", f"out={out}"]) == 0
    return out


def examples(run: Path):
    for split in ("train", "val"):
        for sample in Shards(run / "shards" / split):
            yield split, from_sample(sample), decode_image(sample.fields["png"])


def test_every_path_gives_its_final_image_and_its_previews(source, built):
    found = [example for _, example, _ in examples(built) if example.source == "generate"]
    assert len(found) == 6 * 2 * 2 * 3
    assert {example.step for example in found} == {2, 5, 8}
    recorded = {(row["prompt_index"], row["sample"]) for row in read_rows(source)}
    assert {(example.prompt.index, example.sample) for example in found} == recorded
    assert {frozenset(e.questions) for e in found} == {frozenset({"outcome"}), frozenset({"clarity", "potential"})}


def test_the_chosen_image_of_the_run_is_among_the_examples_with_the_oracles_label(source, built):
    import torch

    finals = ((e, image) for _, e, image in examples(built) if e.source == "generate" and e.is_final)
    found = {(e.prompt.index, e.sample, e.candidate): (e, image) for e, image in finals}
    for row in read_rows(source):
        example, image = found[row["prompt_index"], row["sample"], row["chosen"]]
        assert (image == decode_image((source / row["image"]).read_bytes())).all()
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255
        assert example.questions["outcome"] == float(ShapesOracle().p_yes("outcome", [example.prompt], pixels)[0])
        assert bool(example.reason) == (example.questions["outcome"] == 0)


def test_labels_of_previews_are_shares_of_three_that_count_the_path_itself(built):
    found = [e for _, e, _ in examples(built) if e.source == "generate"]
    ends = {(e.prompt.index, e.sample, e.candidate): e.questions["outcome"] for e in found if e.is_final}
    for example in found:
        if not example.is_final:
            share = example.questions["potential"] * 3
            own = ends[example.prompt.index, example.sample, example.candidate]
            assert share == pytest.approx(round(share)) and own <= round(share) <= own + 2
            assert example.questions["clarity"] in (example.questions["potential"], 1 - example.questions["potential"])
    assert len({e.questions["potential"] for e in found if not e.is_final}) > 2


def test_sentences_are_on_one_side_and_scenes_have_cells(built):
    sides: dict[str, set[str]] = {}
    for split, example, _ in examples(built):
        sides.setdefault(example.prompt.text, set()).add(split)
    assert {len(side) for side in sides.values()} == {1}
    assert set.union(*sides.values()) == {"train", "val"}
    train = read_judge_set(built / "shards/train")
    assert {cells.shape for cells in train.cells.values()} == {(6, 6, 2)}
    assert train.cells.keys() == set(range(len(train.images)))
    assert all(example.cells == train.examples[0].cells for example in train.examples)


def test_pairs_name_examples_of_one_sentence_and_step(built):
    found = {e.key: (split, e) for split, e, _ in examples(built)}
    pairs = [json.loads(line) for line in (built / "pairs.jsonl").read_text().splitlines()]
    assert pairs
    for pair in pairs:
        (split, better), (_, worse) = found[pair["better"]], found[pair["worse"]]
        assert split == pair["split"] and better.prompt.text == worse.prompt.text == pair["prompt"]
        assert better.step == worse.step == pair["step"]
        assert better.questions[pair["question"]] > worse.questions[pair["question"]]


def test_the_datasheet_counts_what_is_there(built):
    summary = json.loads((built / "summary.json").read_text())
    found = list(examples(built))
    for split in ("train", "val"):
        assert summary[split]["images"] == sum(side == split for side, _, _ in found)
        assert summary[split]["by_step"]["potential"]["5"]["n"] == sum(
            side == split and e.step == 5 for side, e, _ in found
        )
    text = (built / "datasheet.md").read_text()
    assert "licence: Apache-2.0" in text and "go on from others: 0" in text
    digest = json.loads((built / "run.json").read_text())["inputs"]["source"]
    assert digest in text


def test_any_number_of_workers_gives_the_same_bytes(source, built, tmp_path):
    words = [*WORDS, "slots=3", f"source={source}", f"out={tmp_path / 'run'}"]
    workers = [start("build_judge_data", *words, rank=rank, world_size=2) for rank in range(2)]
    said = [worker.communicate() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    assert contents(tmp_path / "run", FOLDERS) == contents(built, FOLDERS)
    for name in ("pairs.jsonl", "summary.json", "datasheet.md"):
        assert (tmp_path / "run" / name).read_bytes() == (built / name).read_bytes()


def test_conversations_beside_a_run_leave_its_examples_and_pairs_as_they_are(source, built, tmp_path):
    words = [*WORDS, *published(tmp_path), f"source={source}", f"out={tmp_path / 'run'}"]
    assert run_command(build_judge_data, words) == 0
    assert contents(built, ["shards"]).items() < contents(tmp_path / "run", ["shards"]).items()
    pairs = [set((run / "pairs.jsonl").read_text().splitlines()) for run in (built, tmp_path / "run")]
    more = [json.loads(line) for line in pairs[1] - pairs[0]]
    assert pairs[0] < pairs[1] and len(more) == 6
    assert all(pair["better"].startswith("conversation-") and pair["tag"] is None for pair in more)


def test_a_run_of_examples_can_be_verified(built, tmp_path):
    assert run_command(verify, ["tiny", f"run={built}", f"out={tmp_path / 'verify'}"]) == 0
    shutil.copytree(built, tmp_path / "copy")
    shard = next((tmp_path / "copy/shards/train").glob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(SystemExit):
        run_command(verify, ["tiny", f"run={tmp_path / 'copy'}", f"out={tmp_path / 'again'}"])


def test_cut_candidates_are_walked_to_their_end_and_corrections_left_out(source, built, tmp_path):
    shutil.copytree(source, tmp_path / "source")
    for path in (tmp_path / "source/rows").iterdir():
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            cut = row["candidates"][1]
            tokens = unpack_tokens(cut["tokens"])
            cut |= {"cut_at": 4, "tokens": pack_tokens(np.where(np.arange(36) < 20, 351, tokens))}
            row["candidates"].append(row["candidates"][0] | {"candidate": 2, "parent": 0})
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run_command(build_judge_data, [*WORDS, f"source={tmp_path / 'source'}", f"out={tmp_path / 'run'}"]) == 0
    assert contents(tmp_path / "run", ["shards"]) == contents(built, ["shards"])
    assert "go on from others: 12" in (tmp_path / "run/datasheet.md").read_text()


def test_a_path_that_ends_otherwise_is_named(source, tmp_path, capsys):
    shutil.copytree(source, tmp_path / "source")
    path = sorted((tmp_path / "source/rows").iterdir())[0]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    tokens = unpack_tokens(rows[1]["candidates"][1]["tokens"])
    rows[1]["candidates"][1]["tokens"] = pack_tokens(np.where(np.arange(36) == 4, tokens + 1, tokens))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SystemExit):
        run_command(build_judge_data, [*WORDS, f"source={tmp_path / 'source'}", f"out={tmp_path / 'run'}"])
    error = capsys.readouterr().err
    assert "sample 1, candidate 1: " in error and "(1 of 36 values differ)" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["preview_steps=[8]"], "steps: 8 is not between 1 and 7"),
        (["preview_steps=[0]"], "steps.0: input should be greater than or equal to 1"),
        (["detector=shape"], "did you mean 'shapes'?"),
        (["num_scenes=3"], "scenes: input should be a multiple of 2"),
        (["val_share=1.0"], "val_share: input should be less than 1"),
        (["clarity_threshold=2"], "clarity_threshold: input should be less than or equal to 1"),
    ],
)
def test_bad_settings_are_refused(source, tmp_path, capsys, words, message):
    command = ["tiny", f"source={source}", f"out={tmp_path / 'run'}", *words]
    assert message in refusal(build_judge_data, command, tmp_path, capsys)


def test_bad_sources_are_refused(source, built, tmp_path, capsys):
    def error(*words: str) -> str:
        return refusal(build_judge_data, ["tiny", f"out={tmp_path / 'run'}", *words], tmp_path, capsys)

    (tmp_path / "empty").mkdir()
    shutil.copytree(source, tmp_path / "unfinished")
    sorted((tmp_path / "unfinished/rows").iterdir())[0].unlink()
    shutil.copytree(source, tmp_path / "other")
    fingerprint = json.loads((tmp_path / "other/run.json").read_text())
    fingerprint["inputs"]["generator.options.showo"] = "0" * 64
    (tmp_path / "other/run.json").write_text(json.dumps(fingerprint))
    for name, line in (("torn", '{"prompt_index": 0, "sam'), ("foreign", '{"prompt_index": 0, "sample": 0}')):
        shutil.copytree(source, tmp_path / name)
        path = sorted((tmp_path / name / "rows").iterdir())[0]
        path.write_text(path.read_text() + line)
    assert re.search(r"torn/rows/00000.jsonl:\d+: not a row \(", error(f"source={tmp_path / 'torn'}"))
    assert "foreign/rows/00000.jsonl" in error(f"source={tmp_path / 'foreign'}")
    assert "there is nothing to make examples from" in error("num_scenes=0")
    assert "is not a run folder" in error(f"source={tmp_path / 'empty'}")
    assert "is a run of build_judge_data, not of generate" in error(f"source={built}")
    assert "is unfinished (1 units are left)" in error(f"source={tmp_path / 'unfinished'}")
    assert "generator.options.showo has another content now" in error(f"source={tmp_path / 'other'}")


def test_prompts_without_metadata_are_refused(tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("a photo of a star\n")
    run = tmp_path / "run"
    words = [*MADE, f"prompts={tmp_path / 'prompts.txt'}", "metadata=null", f"out={run}"]
    assert run_command(generate, words) == 0
    error = refusal(build_judge_data, ["tiny", f"source={run}", f"out={tmp_path / 'out'}"], tmp_path, capsys)
    assert "prompt 0 'a photo of a star' has no GenEval metadata" in error
