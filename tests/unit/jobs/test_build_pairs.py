"""Pairs from whole runs: right over wrong, the same bytes from any number of workers and after kills, or refused."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ckpts.resolve import resolve
from geneval.judge import ShapesOracle
from genloop.data.pairs.pair import Pair
from genloop.data.pairs.shards import PairShards
from genloop.data.prompts import parse_metadata
from genloop.distributed import World
from genloop.hashing import sha256_tree
from genloop.job import execute, parse, prepare, run_command
from genloop.ledger import finished, read_rows
from genloop.models.common.footprint import Tracker
from genloop.models.common.image_tokenizers import load_image_tokenizer
from genloop.records import unpack_tokens
from jobs import build_pairs, evaluate, generate, verify
from tests.runs import ROOT, contents, refusal, start
from tests.test_laws import kill_in_the_middle

FOLDERS = ("rows", "shards")
HELD_OUT = "held_out=[configs/prompts/shapes_heldout/generation_prompts.txt]"
MADE = ["tiny", "sampling.steps=9"]
REOPENED = ["tiny", "kind=localised", "reopen.last=7", "reopen.first=2", "reopen.continuations=2", "max_pairs=9"]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    """A run of single images, and one of two candidates each with the oracle's scores."""
    os.chdir(ROOT)
    place = tmp_path_factory.mktemp("sources")
    searched = ["search.strategy=best_of_n", "search.n=2"]
    for name, words in (("none", []), ("best_of_n", searched)):
        assert run_command(generate, [*MADE, *words, f"out={place / name}"]) == 0
    return {name: place / name for name in ("none", "best_of_n")}


@pytest.fixture(scope="module")
def localised(sources, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("localised") / "run"
    assert run_command(build_pairs, [*REOPENED, f"source={sources['none']}", f"out={out}"]) == 0
    return out


def build(out: Path, *words: str) -> Path:
    assert run_command(build_pairs, ["tiny", *words, f"out={out}"]) == 0
    return out


def pairs(run: Path) -> list[Pair]:
    tokenizer = sha256_tree(resolve("shapes/tokenizer"))
    folders = [folder for folder in (run / "shards").iterdir() if folder.is_dir()]
    return [pair for f in folders for pair in PairShards(f, num_codes=351, num_tokens=36, tokenizer=tokenizer)]


def verdicts(found: list[Pair]) -> list[tuple[float, float]]:
    """Of the oracle about both sides of each pair."""
    tokenizer, oracle = load_image_tokenizer(resolve("shapes/tokenizer")), ShapesOracle()
    prompts = [parse_metadata(pair.metadata, pair.prompt_index, where="pair") for pair in found]
    sides = [torch.from_numpy(np.stack([getattr(pair, side) for pair in found])) for side in ("chosen", "rejected")]
    return list(zip(*(oracle.p_yes("outcome", prompts, tokenizer.decode(side)).tolist() for side in sides)))


def test_chosen_is_right_and_rejected_wrong_and_both_are_images_of_the_source(sources, tmp_path):
    found = pairs(build(tmp_path / "run", f"source={sources['best_of_n']}", "max_pairs=9"))
    assert found and verdicts(found) == [(1.0, 0.0)] * len(found)
    assert all(pair.verdicts == (True, False) and pair.margin == 1 for pair in found)
    drawn = {
        (row["prompt_index"], f"{row['sample']:04d}-{one['candidate']:04d}"): one["tokens"]
        for row in read_rows(sources["best_of_n"])
        for one in row["candidates"]
    }
    for pair in found:
        assert (unpack_tokens(drawn[pair.prompt_index, pair.chosen_from]) == pair.chosen).all()
        assert (unpack_tokens(drawn[pair.prompt_index, pair.rejected_from]) == pair.rejected).all()


def test_recorded_scores_are_as_good_as_a_judge_that_is_asked(sources, tmp_path):
    words = [f"source={sources['best_of_n']}", "signal=judge", "rule=margin"]
    recorded = build(tmp_path / "recorded", *words)
    asked = build(tmp_path / "asked", *words, "judge.kind=shapes_oracle")
    assert contents(recorded, FOLDERS) == contents(asked, FOLDERS)
    told = build(tmp_path / "told", *words, "with_verdicts=true")
    rates = json.loads((told / "summary.json").read_text())["rates"]
    assert rates["verdict_agrees"]["estimate"] == 1 and rates["verdict_agrees"]["n"] == len(pairs(told))


def test_verdicts_of_an_evaluation_are_those_that_are_asked_for_here(sources, tmp_path):
    words = [f"images={sources['none']}", f"out={tmp_path / 'verdicts'}"]
    assert run_command(evaluate, ["tiny", *words]) == 0
    given = build(tmp_path / "given", f"source={sources['none']}", f"verdicts={tmp_path / 'verdicts'}")
    asked = build(tmp_path / "asked", f"source={sources['none']}")
    assert contents(given, ["shards"]) == contents(asked, ["shards"])


def test_both_sides_of_a_localised_pair_share_what_was_fixed_before_it_was_reopened(sources, localised):
    found = pairs(localised)
    assert found and verdicts(found) == [(1.0, 0.0)] * len(found)
    rows = {(row["prompt_index"], row["sample"]): row for row in read_rows(sources["none"])}
    wins = 0
    for pair in found:
        is_original = pair.chosen_from.count("-") == 1
        wins += not is_original
        name = pair.chosen_from if is_original else pair.rejected_from
        row = rows[pair.prompt_index, int(name.split("-")[0])]
        steps = unpack_tokens(row["revealed_at"])
        assert (unpack_tokens(row["tokens"]) == (pair.chosen if is_original else pair.rejected)).all()
        assert 2 <= pair.reopened_at <= 7 and (pair.kept == (steps < pair.reopened_at)).all()
        assert (pair.chosen[pair.kept] == pair.rejected[pair.kept]).all()
        for side in (pair.chosen_steps, pair.rejected_steps):
            assert (side[pair.kept] == steps[pair.kept]).all() and (side[~pair.kept] >= pair.reopened_at).all()
    assert len({pair.reopened_at for pair in found}) > 1
    twice = json.loads((localised / "summary.json").read_text())["duplicates"]
    counted = list(read_rows(localised))
    assert len(found) + twice == sum(row["wins"] + row["losses"] for row in counted)
    assert wins and wins <= sum(row["wins"] for row in counted) <= wins + twice


def test_any_number_of_workers_and_any_batch_give_the_same_bytes(sources, localised, tmp_path):
    words = [*REOPENED, f"source={sources['none']}", f"out={tmp_path / 'run'}", "slots=3"]
    workers = [start("build_pairs", *words, rank=rank, world_size=2) for rank in range(2)]
    said = [worker.communicate() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    assert contents(tmp_path / "run", FOLDERS) == contents(localised, FOLDERS)
    for name in ("summary.json", "datasheet.md"):
        assert (tmp_path / "run" / name).read_bytes() == (localised / name).read_bytes()


def test_another_cut_into_units_gives_the_same_sets(sources, localised, tmp_path):
    assert run_command(build_pairs, [*REOPENED, f"source={sources['none']}", f"out={tmp_path}/run", "unit_size=5"]) == 0
    assert contents(tmp_path / "run", ["shards"]) == contents(localised, ["shards"])


def test_a_killed_run_goes_on_to_the_same_bytes(sources, localised, tmp_path):
    words = [*REOPENED, f"source={sources['none']}"]
    kill_in_the_middle("build_pairs", words, tmp_path / "run", 2, 0.0, "rows/*.jsonl")
    assert len(finished(tmp_path / "run")) < 3
    assert run_command(build_pairs, [*words, f"out={tmp_path / 'run'}"]) == 0
    assert contents(tmp_path / "run", FOLDERS) == contents(localised, FOLDERS)


def test_sets_that_were_lost_are_written_again(sources, localised, tmp_path):
    shutil.copytree(localised, tmp_path / "run")
    for path in (tmp_path / "run/shards/train").iterdir():
        path.unlink()
    (tmp_path / "run/summary.json").unlink()
    assert run_command(build_pairs, [*REOPENED, f"source={sources['none']}", f"out={tmp_path / 'run'}"]) == 0
    assert contents(tmp_path / "run", FOLDERS) == contents(localised, FOLDERS)


def test_a_run_of_pairs_can_be_verified(localised, tmp_path):
    assert run_command(verify, ["tiny", f"run={localised}", f"out={tmp_path / 'verify'}"]) == 0
    shutil.copytree(localised, tmp_path / "copy")
    shard = next((tmp_path / "copy/shards/train").glob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(SystemExit):
        run_command(verify, ["tiny", f"run={tmp_path / 'copy'}", f"out={tmp_path / 'again'}"])


def test_the_summary_counts_what_is_there(localised):
    summary = json.loads((localised / "summary.json").read_text())
    rows = list(read_rows(localised))
    assert summary["pairs"] == len(pairs(localised)) == sum(side["pairs"] for side in summary["sides"].values())
    assert summary["found"] == sum(len(row["pairs"]) for row in rows)
    assert summary["rates"]["continuation_wins"]["n"] == sum(row["reopened"] for row in rows) > 24
    assert summary["images"] == 24 and summary["prompts"] == 12
    for rate in summary["rates"].values():
        assert 0 <= rate["low"] <= rate["estimate"] <= rate["high"] <= 1 and rate["n"]
    text = (localised / "datasheet.md").read_text()
    assert json.loads((localised / "run.json").read_text())["inputs"]["source"] in text


def test_the_planned_peak_is_enough_for_the_run_and_little_more(sources, tmp_path):
    command = ["tiny", f"source={sources['none']}", "unit_size=12", "slots=24", f"out={tmp_path / 'run'}"]
    config = parse(build_pairs, [*command, "kind=localised", "reopen.last=4"])
    prepared = prepare(build_pairs, config, World())
    with Tracker() as measured:
        assert execute(build_pairs, config, World(), prepared.checked) == 0
    scratch = config.model_copy(update={"out": tmp_path / "scratch"})
    planned = build_pairs.footprint(scratch, prepared.checked, device="cpu", ranks=1)
    assert measured.peak <= planned.peak <= 1.3 * measured.peak
    assert build_pairs.work(config).items == 12


def write_published(place: Path, source: Path, **changes: str) -> list[str]:
    """Two lines about images of a run -> the words that name them."""
    rows = [
        {
            "prompt": f"prompt {i}",
            "chosen": f"images/{i:05d}/samples/0000.png",
            "rejected": "images/00005/samples/0001.png",
        }
        for i in range(3)
    ]
    rows[1] |= changes
    (place / "dpo.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = ["source=null", "tokenizer=shapes/tokenizer", "resolution=24", f"images={source}"]
    return ["tiny", f"published={place / 'dpo.jsonl'}", *more]


def test_published_pairs_are_encoded(sources, tmp_path):
    words = write_published(tmp_path, sources["none"])
    assert run_command(build_pairs, [*words, f"out={tmp_path / 'run'}", "unit_size=2"]) == 0
    found = {pair.prompt: pair for pair in pairs(tmp_path / "run")}
    assert sorted(found) == ["prompt 0", "prompt 1", "prompt 2"]
    rows = {(row["prompt_index"], row["sample"]): unpack_tokens(row["tokens"]) for row in read_rows(sources["none"])}
    for i in range(3):
        assert (found[f"prompt {i}"].chosen == rows[i, 0]).all()
        assert (found[f"prompt {i}"].rejected == rows[5, 1]).all()


def test_images_of_a_size_that_the_tokenizer_does_not_take_end_with_one_line(sources, tmp_path, capsys):
    words = [*write_published(tmp_path, sources["none"]), "resolution=25", f"out={tmp_path / 'run'}"]
    with pytest.raises(SystemExit) as caught:
        run_command(build_pairs, words)
    assert caught.value.code == 2 and "genloop: resolution: shapes/tokenizer" in capsys.readouterr().err
    assert not finished(tmp_path / "run") and not list((tmp_path / "run/leases").iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chosen": "images/none.png"}, "dpo.jsonl:2: chosen: no such image"),
        ({"prompt": ""}, "dpo.jsonl:2: needs an object"),
        ({"rejected": "rows/00000.jsonl"}, "dpo.jsonl:2: rejected:"),
    ],
)
def test_bad_published_lines_are_refused(sources, tmp_path, capsys, changes, message):
    words = write_published(tmp_path, sources["none"], **changes)
    assert message in refusal(build_pairs, [*words, f"out={tmp_path / 'run'}"], tmp_path, capsys)


def test_a_prompt_that_is_evaluated_on_is_named(sources, tmp_path, capsys):
    (tmp_path / "held.txt").write_text("something else\nA photo  of a Star\n")
    (tmp_path / "texts.txt").write_text("a photo of a star\na photo of a ring\n")
    words = [*MADE, "limit=1", f"prompts={tmp_path / 'texts.txt'}", "metadata=null", f"out={tmp_path / 'made'}"]
    assert run_command(generate, words) == 0
    words = ["tiny", f"source={tmp_path / 'made'}", f"held_out=[{tmp_path / 'held.txt'}]", f"out={tmp_path / 'run'}"]
    error = refusal(
        build_pairs,
        [*words, "signal=judge", "judge.kind=llava", "judge.options.checkpoint=shapes/judge"],
        tmp_path,
        capsys,
    )
    assert "'a photo of a star'" in error and "held.txt:2" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["signal=judge"], "judge: "),
        (["kind=localised", "signal=both"], "judge: "),
        (["kind=localised", "reopen.last=9"], "reopen.last:"),
        (["kind=localised", "reopen.first=6", "reopen.last=5"], "reopen.last:"),
        (["source=null"], "source:"),
        (["published=configs/prompts/shapes_tiny/evaluation_metadata.jsonl"], "source:"),
        (["held_out=[nowhere.txt]"], "nowhere.txt"),
        (["held_out=null"], "held_out:"),
        (["held_out=[configs/prompts/shapes_tiny/generation_prompts.txt]"], "generation_prompts.txt:1: 'a photo of"),
        (["signal=judge", "judge.kind=llava", "judge.options.checkpoint=nowhere"], "nowhere"),
        (["signal=judges"], "did you mean 'judge'"),
        (["detector=hf_mask2former"], "detector"),
        (["val_share=1.0"], "val_share:"),
        (["min_margin=-1"], "min_margin:"),
    ],
)
def test_bad_settings_are_refused(sources, tmp_path, capsys, words, message):
    command = ["tiny", f"source={sources['none']}", f"out={tmp_path / 'run'}", *words]
    assert message in refusal(build_pairs, command, tmp_path, capsys)


def test_bad_sources_are_refused(sources, localised, tmp_path, capsys):
    def error(*words: str) -> str:
        return refusal(build_pairs, ["tiny", f"out={tmp_path / 'run'}", *words], tmp_path, capsys)

    shutil.copytree(sources["none"], tmp_path / "unfinished")
    sorted((tmp_path / "unfinished/rows").iterdir())[0].unlink()
    shutil.copytree(sources["none"], tmp_path / "other")
    fingerprint = json.loads((tmp_path / "other/run.json").read_text())
    fingerprint["inputs"]["generator.options.tokenizer"] = "0" * 64
    (tmp_path / "other/run.json").write_text(json.dumps(fingerprint))
    words = [f"images={sources['best_of_n']}", f"out={tmp_path / 'verdicts'}"]
    assert run_command(evaluate, ["tiny", *words]) == 0
    assert "is unfinished" in error(f"source={tmp_path / 'unfinished'}")
    assert "generator.options.tokenizer has another content now" in error(f"source={tmp_path / 'other'}")
    assert "is a run of build_pairs" in error(f"source={localised}")
    assert "verdicts: " in error(f"source={sources['none']}", f"verdicts={tmp_path / 'verdicts'}")
    assert "verdicts: " in error(f"source={sources['none']}", f"verdicts={tmp_path / 'verdicts'}", "kind=localised")


def test_a_source_whose_images_are_all_alike_ends_with_one_line(sources, tmp_path, capsys):
    words = ["tiny", f"source={sources['none']}", "limit=1", "min_margin=5", f"out={tmp_path / 'run'}"]
    with pytest.raises(SystemExit) as caught:
        run_command(build_pairs, words)
    assert caught.value.code == 1 and "no image of any prompt is preferred" in capsys.readouterr().err
