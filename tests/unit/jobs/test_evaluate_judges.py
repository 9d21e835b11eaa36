"""Judging the judges: rows are resumable and the same from any cut, the page is whole, bad input is refused."""

import json
from pathlib import Path
from shutil import rmtree

import pytest

from genloop.data.images import encode_png
from genloop.job import run_command
from genloop.reading import read_json
from genloop.report import write_page
from genloop.runs.judged import read_judged
from genloop.shapes.render import render
from genloop.shapes.response_pairs import draw_pair
from jobs import evaluate_judges
from tests.runs import refusal, rows_text
from tests.unit.report.test_page import check_frame
from tests.worlds.pair_judges import vl_rewardbench_rows, write_jsonl
from tests.worlds.tiny_instructblip import instructblip_folder
from tests.worlds.tiny_qwen import qwen_folder

FEW = ["tiny", "limit=6", "verdicts.trials=2", "verdicts.max_new_tokens=3"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("judges") / "run"
    assert run_command(evaluate_judges, [*FEW, f"out={out}"]) == 0
    return out


def test_the_judge_that_ships_is_asked_by_score_and_a_chat_model_in_every_other_way(done: Path) -> None:
    rows = list(read_judged(done))
    assert [(row.judge, row.number) for row in rows] == [(name, i) for name in ("sees", "random") for i in range(6)]
    assert {row.judge: row.readings for row in rows} == {
        "sees": ["score"],
        "random": ["verdict", "likelihood", "pmi", "generated"],
    }
    found = read_json(done / "summary.json")
    assert (found["base"], found["pairs"], found["clusters"]) == ("sees / score", 6, 6)
    assert found["arms"]["sees / score"]["overall"]["estimate"] > 0.5
    assert found["written"]["random"]["official"]["read"]["n"] == 12
    assert all(len(one["fingerprint"]) == 64 for one in found["judges"].values())


def test_units_and_restarts_change_nothing(done: Path, tmp_path: Path) -> None:
    words = [*FEW, f"out={tmp_path / 'run'}", "unit_size=5"]
    assert run_command(evaluate_judges, words) == 0
    assert rows_text(tmp_path / "run") == rows_text(done)
    (tmp_path / "run" / "rows" / "00001.jsonl").unlink()
    assert run_command(evaluate_judges, words) == 0
    assert rows_text(tmp_path / "run") == rows_text(done)
    assert (tmp_path / "run" / "summary.json").read_bytes() == (done / "summary.json").read_bytes()


def test_the_page_shows_pairs_and_every_table_and_its_bytes_depend_on_the_run_alone(done: Path, tmp_path: Path) -> None:
    pages = [write_page([done], tmp_path / name) for name in ("one", "two")]
    assert pages[0].read_bytes() == pages[1].read_bytes()
    page = pages[0].read_text()
    check_frame(pages[0])
    assert page.count("data:image/png") == 6 and page.index(", the better one") < page.index("<table>")
    for title in ("Accuracy", "Written verdicts", "What else judges go by", "Paired differences", "Judges"):
        assert title in page and title in (tmp_path / "one" / "table.md").read_text()


def test_every_family_of_chat_models_judges_vl_rewardbench_as_it_is_published(tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "data", vl_rewardbench_rows())
    folders = {name: instructblip_folder(tmp_path / name, name) for name in ("vicuna", "flan_t5")}
    folders |= {name: qwen_folder(tmp_path / name, name) for name in ("llava", "older vl")}
    judges = ", ".join(f"{name}: {{kind: chat, options: {{checkpoint: {folder}}}}}" for name, folder in folders.items())
    words = ["vl_rewardbench", f"data.path={rows}", "data.full=false", f"judges={{{judges}}}", "limit=5"]
    words += ["verdicts.trials=1", "verdicts.max_new_tokens=3", f"out={tmp_path / 'run'}"]
    assert run_command(evaluate_judges, words) == 0
    found = read_json(tmp_path / "run" / "summary.json")
    assert found["groups"] == {"general": 2, "hallucination": 3} and found["clusters"] == 2
    for name in folders:
        assert all(found["arms"][f"{name} / {way}"]["overall"]["n"] == 5 for way in ("verdict", "likelihood", "pmi"))
        assert found["written"][name]["strict"]["read"]["n"] == 5
    rmtree(tmp_path / "data")
    page = write_page([tmp_path / "run"], tmp_path / "page").read_text()
    assert "data:image/png" not in page and page.count("image missing") == 5  # the verdicts are still there


def write_drawn(folder: Path) -> Path:
    """Prompts of single objects, each with a picture of it and one of another, as Multimodal RewardBench 2 has them."""
    pairs = [draw_pair(5, number) for number in range(0, 36, 6)]
    pngs = [encode_png(image) for image in render([scene for _, scene in pairs])]
    rows = []
    for number, (row, scene) in enumerate(pairs):
        other = next(place for place, (_, one) in enumerate(pairs) if one[0].shape != scene[0].shape)
        answers = {}
        for letter, png in zip("ab", (pngs[number], pngs[other])[:: 1 - 2 * (number % 2)]):
            (folder / f"{number}{letter}.png").write_bytes(png)
            answers[f"response_{letter}"] = {"response_content": [["image", f"{number}{letter}.png"]]}
        prompt = f"a photo of {row[('first', 'second')[row['better']]]}"
        rows.append({"id": str(number), "chosen": "AB"[number % 2], "prompt_content": [["text", prompt]], **answers})
    (folder / "t2i.json").write_text(json.dumps({"pairs": rows}))
    return folder / "t2i.json"


def test_answers_that_are_images_are_scored_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = "{kind: llava, options: {checkpoint: shapes/judge, probability: two_way}}"
    words = ["tiny", f"data={{path: {write_drawn(tmp_path)}, layout: mmrb2}}", f"out={tmp_path / 'run'}"]
    assert "readings" in refusal(evaluate_judges, words, tmp_path, capsys)  # a chat model does not score images
    judges = f"judges={{sees: {{kind: scored, options: {{judge: {judge}}}}}}}"
    assert run_command(evaluate_judges, [*words, judges]) == 0
    rows = list(read_judged(tmp_path / "run"))
    assert [row.readings for row in rows] == [["score"]] * 6 and sum(row.right("score") for row in rows) >= 5
    page = write_page([tmp_path / "run"], tmp_path / "page").read_text()
    assert page.count("data:image/png") == 12 and "image missing" not in page


BAD = {
    "no pairs": (["data.path=nowhere.jsonl"], "nowhere.jsonl"),
    "not such pairs": (["data.layout=vl_rewardbench"], "query_source"),
    "no judge": (["judges={}"], "judges"),
    "no such kind": (["judges.x.kind=chatt"], "chat"),
    "no checkpoint": (["judges.x={kind: chat, options: {checkpoint: nowhere}}"], "judges.x"),
    "a model without eyes": (["judges.x={kind: chat, options: {checkpoint: tiny/qwen/text}}"], "judges.x"),
    "a judge that needs metadata": (["judges.x={kind: scored, options: {judge: shapes_oracle}}"], "judges.x"),
    "a prompt without the answer": (["judges.sees.options.prompt=yes"], "judges.sees: prompt"),
    "no server": (["judges.x={kind: remote, options: {url: 'http://127.0.0.1:9', model: m}}"], "judges.x: options.url"),
    "a reading that nobody has": (["readings=[generated]"], "readings"),
    "no such base": (["base=see"], "base"),
    "a base that is not asked so": (["base=random", "base_reading=score"], "base_reading"),
    "a question without its answers": (["verdicts.question=README.md"], "README.md"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more, named = BAD[name]
    assert named in refusal(evaluate_judges, ["tiny", f"out={tmp_path / 'run'}", *more], tmp_path, capsys)
