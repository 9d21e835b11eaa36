"""Rewritten prompts: the generator reads them, judges and evaluations see the original, and everything says so."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ckpts.resolve import resolve
from genloop.config import load_config
from genloop.data.pairs.shards import PairShards
from genloop.data.prompts import read_metadata
from genloop.job import run_command
from genloop.ledger import read_rows
from genloop.models.common.text import FileTokenizer, with_bos
from genloop.models.showo.config import check_showo_folder
from genloop.models.showo.prompting import Layout
from genloop.records import Prompt, unpack_tokens
from genloop.report import write_report
from genloop.rewards import JUDGES
from genloop.sampling.build import build_generator, warn_of_cuts
from jobs import build_judge_data, build_pairs, compare, evaluate, generate
from tests.runs import ROOT, refusal
from tests.worlds.tiny_search import Opinions

ORIGINAL = ROOT / "configs" / "prompts" / "shapes_tiny" / "evaluation_metadata.jsonl"
WORDS = ["tiny", "metadata=null", "limit=3", "images_per_prompt=2", "sampling.steps=4", "judge.kind=opinions"]
SEARCH = ["search.strategy=best_of_n", "search.n=2"]


def lines() -> list[dict[str, Any]]:
    """Each prompt's metadata with the text of the next one as its other words."""
    rows = [json.loads(line) for line in ORIGINAL.read_text().splitlines()]
    return [row | {"detailed_caption": other["prompt"]} for row, other in pairwise(rows)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run each: the prompts as they are, rewritten, and the rewritten texts as prompts of their own."""
    root = tmp_path_factory.mktemp("rewritten")
    file, texts = write(root / "both.jsonl", lines()), root / "texts.txt"
    texts.write_text("".join(f"{row['detailed_caption']}\n" for row in lines()))
    wanted = {
        "plain": [f"prompts={file}"],
        "rewritten": [f"prompts={file}", "text=detailed_caption"],
        "texts": [f"prompts={texts}"],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(JUDGES, "opinions", "tests.worlds.judged_generate:OpinionsMaker")
        patch.chdir(ROOT)
        for name, words in wanted.items():
            assert run_command(generate, [*WORDS, *SEARCH, *words, f"out={root / name}"]) == 0
    return {name: root / name for name in wanted}


@pytest.fixture(scope="module")
def verdicts(runs: dict[str, Path]) -> dict[str, Path]:
    found = {name: runs[name].parent / f"{name}-verdicts" for name in ("plain", "rewritten")}
    for name, out in found.items():
        words = ["shapes", f"images={runs[name]}", f"out={out}", "expect.on_missing=report"]
        assert run_command(evaluate, words) == 0
    return found


@pytest.fixture(autouse=True)
def _with_opinions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(JUDGES, "opinions", "tests.worlds.judged_generate:OpinionsMaker")
    monkeypatch.chdir(ROOT)


def test_the_generator_reads_the_rewritten_text(runs: dict[str, Path]) -> None:
    drawn = {
        name: [[candidate["tokens"] for candidate in row["candidates"]] for row in read_rows(run)]
        for name, run in runs.items()
    }
    assert drawn["rewritten"] == drawn["texts"] != drawn["plain"]


def test_judges_see_the_original_prompt(runs: dict[str, Path]) -> None:
    config = load_config(generate.Config, runs["rewritten"] / "config.yaml")
    sampler = build_generator(config, resolve)
    prompts = read_metadata(ORIGINAL)
    for row in read_rows(runs["rewritten"]):
        tokens = torch.stack([torch.from_numpy(unpack_tokens(one["tokens"])) for one in row["candidates"]])
        asked = [prompts[row["prompt_index"]]] * len(tokens)
        expected = Opinions().p_yes("outcome", asked, sampler.decode(tokens)).tolist()
        assert [one["p_yes"]["outcome"] for one in row["candidates"]] == expected


def test_rows_images_and_metadata_keep_both_texts(runs: dict[str, Path]) -> None:
    for row in read_rows(runs["rewritten"]):
        line = lines()[row["prompt_index"]]
        assert (row["prompt"], row["rewritten_prompt"]) == (line["prompt"], line["detailed_caption"])
        place = runs["rewritten"] / row["image"]
        assert json.loads((place.parent.parent / "metadata.jsonl").read_text()) == line
        chunk = json.loads(Image.open(place).info["genloop"])
        told = {key: chunk[key] for key in ("prompt", "rewritten_prompt", "text")}
        assert told == {
            "prompt": row["prompt"],
            "rewritten_prompt": row["rewritten_prompt"],
            "text": "detailed_caption",
        }


def test_a_rewritten_text_that_nobody_read_leaves_no_trace(runs: dict[str, Path]) -> None:
    for row in read_rows(runs["plain"]):
        place = runs["plain"] / row["image"]
        assert "detailed_caption" not in (place.parent.parent / "metadata.jsonl").read_text()
        assert not {"rewritten_prompt", "text"} & (row.keys() | json.loads(Image.open(place).info["genloop"]).keys())


def test_texts_that_the_generator_cannot_take_whole_are_named(caplog: pytest.LogCaptureFixture) -> None:
    config = load_config(generate.Config, ROOT / "configs" / "generate" / "tiny.yaml")
    folder = resolve(config.generator.options.showo)
    layout = Layout(check_showo_folder(folder), FileTokenizer(folder / "tokenizer"))
    texts = [" ".join(["dog"] * count) for count in range(1, layout.config.text_length + 2)]
    cut = [
        index for index, text in enumerate(texts) if len(layout.t2i_text(text)) < 2 + len(with_bos(layout.text, text))
    ]
    assert 0 < len(cut) < len(texts)
    prompts = [Prompt(index, "a dog", detailed_caption=text) for index, text in enumerate(texts)]
    warn_of_cuts(config.generator, resolve, prompts)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{len(cut)} of {len(texts)} texts are longer than")
    assert f"prompts {cut[0]}, " in record.getMessage()
    warn_of_cuts(config.generator, resolve, [Prompt(0, texts[cut[0]], detailed_caption=texts[cut[0] - 1])])
    assert len(caplog.records) == 1


def test_evaluations_label_it_and_compare_refuses_it(
    verdicts: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = json.loads((verdicts["rewritten"] / "card.json").read_text())["images"]
    assert (card["rewritten"], card["text"]) == (True, "detailed_caption")
    assert "made from rewritten prompts: not comparable" in (verdicts["rewritten"] / "summary.txt").read_text()
    assert {row["prompt_source"] for row in read_rows(verdicts["rewritten"])} == {"rewritten"}
    words = [f"a={verdicts['plain']}", f"b={verdicts['rewritten']}", f"out={tmp_path / 'out'}", "num_resamples=100"]
    assert "rewritten (False / True)" in refusal(compare, words, tmp_path, capsys)
    assert run_command(compare, [*words, "allow=all"]) == 0


def test_the_report_labels_it_and_shows_no_differences(verdicts: dict[str, Path], tmp_path: Path) -> None:
    page = write_report([verdicts["plain"], verdicts["rewritten"]], tmp_path / "out")
    notice = "rewritten-verdicts was made from rewritten prompts: not comparable"
    assert f"B {notice}" in page.read_text() and "A plain-verdicts was made from" not in page.read_text()
    assert "B rewritten-verdicts: made from rewritten prompts" in (tmp_path / "out" / "table.md").read_text()
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert [run["prompts"] for run in table["runs"]] == ["as they are", "rewritten"]
    (found,) = table["comparisons"]
    assert "rewritten (False / True)" in found["refusal"] and found["differences"] == []


def test_what_the_generator_read_can_be_replayed(runs: dict[str, Path], tmp_path: Path) -> None:
    words = ["tiny", "num_scenes=0", "preview_steps=[2]", f"source={runs['rewritten']}", f"out={tmp_path / 'data'}"]
    assert run_command(build_judge_data, words) == 0
    assert sum(row["samples"] for row in read_rows(tmp_path / "data")) == 3 * 2 * 2 * 2


def test_pairs_hold_what_the_generator_read_beside_the_sentence_that_was_judged(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    words = ["tiny", "signal=judge", "val_share=0", f"source={runs['rewritten']}", f"out={tmp_path / 'pairs'}"]
    assert run_command(build_pairs, words) == 0
    found = list(PairShards(tmp_path / "pairs/shards/train"))
    assert found
    for pair in found:
        row = lines()[pair.prompt_index]
        assert (pair.prompt, pair.text, pair.tag) == (row["detailed_caption"], row["prompt"], row["tag"])


def test_another_text_is_another_run(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    file = runs["plain"].parent / "both.jsonl"
    words = [*WORDS, *SEARCH, f"prompts={file}", "text=detailed_caption", f"out={runs['plain']}"]
    assert "was started with text=prompt, this config has text=detailed_caption" in refusal(
        generate, words, runs["plain"], capsys
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "both.jsonl:2: detailed_caption is missing; text=detailed_caption needs one for every prompt"),
        ("  ", "both.jsonl:2: detailed_caption must be a text, found blanks only"),
        (7, "both.jsonl:2: detailed_caption must be a text, found 7"),
    ],
)
def test_a_line_without_a_rewritten_text_is_refused_before_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, message: str
) -> None:
    rows = lines()
    rows[1]["detailed_caption"] = change
    words = [*WORDS, f"prompts={write(tmp_path / 'both.jsonl', rows)}", f"out={tmp_path / 'run'}"]
    assert message in refusal(generate, [*words, "text=detailed_caption"], tmp_path, capsys)


def test_texts_without_metadata_have_no_other_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ORIGINAL.parent / "generation_prompts.txt"
    words = [*WORDS, f"prompts={texts}", f"out={tmp_path / 'run'}", "text=detailed_caption"]
    assert "text: detailed_caption stands in metadata" in refusal(generate, words, tmp_path, capsys)
