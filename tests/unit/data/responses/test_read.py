"""Pairs read from every form that they are published in are the same pairs; what cannot be judged is refused."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from genloop.data.responses.columns import ColumnNames
from genloop.data.responses.pair import COMMON, ResponsePairs
from genloop.data.responses.read import ResponseData, open_pairs
from genloop.data.responses.vl_rewardbench import SIZES, source_of
from genloop.registry import require
from tests.worlds.pair_judges import vl_rewardbench_rows, write_jsonl

ROWS = vl_rewardbench_rows()


def saved(folder: Path, form: str) -> Path:
    datasets = require("datasets")
    rows = [row | {"image": {"bytes": row["image"], "path": None}} for row in ROWS]
    table = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image(decode=False))
    if form == "folder":
        table.save_to_disk(str(folder / "saved"))
        return folder / "saved"
    if form == "splits":
        datasets.DatasetDict(test=table).save_to_disk(str(folder / "splits"))
        return folder / "splits"
    (folder / "hub" / "data").mkdir(parents=True)
    table.to_parquet(str(folder / "hub" / "data" / "test-00000-of-00001.parquet"))
    return folder / "hub" if form == "hub" else folder / "hub" / "data" / "test-00000-of-00001.parquet"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ResponsePairs:
    return open_pairs(ResponseData(path=write_jsonl(tmp_path_factory.mktemp("pairs"), ROWS)))


@pytest.mark.parametrize("form", ["folder", "splits", "hub", "parquet"])
def test_every_form_holds_the_same_pairs_and_images(
    form: str, plain: ResponsePairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    found = open_pairs(ResponseData(path=saved(tmp_path, form)))
    assert list(found) == list(plain)
    for number in range(len(plain)):
        assert np.array_equal(found.image(number), plain.image(number))
    assert found.images_sha() == plain.images_sha()


def test_files_of_another_split_are_never_read_for_the_one_that_is_asked_for(tmp_path: Path) -> None:
    file = saved(tmp_path, "parquet")
    other = file.with_name("train-00000-of-00001-0123456789abcdef.parquet")
    file.rename(other)
    with pytest.raises(ValueError, match=r"'test' \(train\)"):
        open_pairs(ResponseData(path=file.parent.parent))
    assert len(open_pairs(ResponseData(path=file.parent.parent, split="train"))) == len(ROWS)
    other.rename(file.with_name("pairs.parquet"))  # a name that tells no split
    assert len(open_pairs(ResponseData(path=file.parent.parent))) == len(ROWS)


def test_groups_follow_the_data_set_and_the_better_answer_its_rank(plain: ResponsePairs) -> None:
    assert Counter(pair.group for pair in plain) == {"general": 2, "hallucination": 3, "reasoning": 3}
    assert all(pair.responses[pair.best] == "a good one" for pair in plain)
    assert not any("<image>" in pair.query for pair in plain)


def test_a_source_that_the_repository_names_otherwise_is_found_by_the_image_s_folder_or_the_id() -> None:
    by_folder = {"id": "svit-1", "query_source": "COCO", "image_path": "images/vlfeedback/a.jpg"}
    assert source_of(by_folder, "row") == "vlfeedback"
    assert source_of({"id": "hallucination_pair-7", "query_source": "COCO"}, "row") == "povid"


def test_pairs_about_one_image_are_a_cluster_and_folds_keep_questions_together_too(plain: ResponsePairs) -> None:
    assert plain.clusters().tolist() == [0, 0, 0, 0, 1, 2, 3, 4]
    groups = plain.leak_groups()
    assert groups[0] == groups[4] == groups[7] and len(set(groups.tolist())) == 1
    few = ResponsePairs([plain[4], plain[5]], lambda number: bytes([number]), where="x")
    assert few.leak_groups().tolist() == [0, 1]


def test_a_question_about_many_images_joins_no_rows(plain: ResponsePairs) -> None:
    few, many = [plain[4]] * COMMON, [plain[4]] * (COMMON + 1)
    for pairs, groups in ((few, 1), (many, COMMON + 1)):
        found = ResponsePairs(pairs, lambda number: bytes([number]), where="x").leak_groups()
        assert len(set(found.tolist())) == groups
    twice = ResponsePairs(many * 2, lambda number: bytes([number % len(many)]), where="x").leak_groups()
    assert (twice[: len(many)] == twice[len(many) :]).all()  # an image joins them still
    bare = ResponsePairs(many, lambda number: None, where="x").leak_groups()
    assert len(set(bare.tolist())) == 1  # about no image: the same question is the same row


def test_pairs_of_texts_of_multimodal_reward_bench_are_read_and_the_others_counted(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(ROWS[0]["image"])
    text, image = [["text", "so"]], [["image", "b.png"]]

    def pair(name: str, asked: list, first: list, second: list) -> dict:
        answers = {"response_a": {"response_content": first}, "response_b": {"response_content": second}}
        return {"pair_id": name, "prompt_source": "vstar", "prompt_content": asked, "chosen": "B", **answers}

    asked = [["text", "Is it red?"], ["image", "a.png"]]
    rows = [pair("1", asked, text, [["text", "no"]]), pair("2", asked, image, text), pair("3", asked[:1], text, text)]
    (tmp_path / "reasoning.json").write_text(json.dumps({"pairs": rows}))
    found = open_pairs(ResponseData(path=tmp_path / "reasoning.json", layout="mmrb2"))
    assert [(one.id, one.best, one.group, one.source) for one in found] == [
        ("1", 1, "reasoning", "vstar"),
        ("3", 1, "reasoning", "vstar"),
    ]
    assert found.left_out == 1 and found.image(0) is not None and found.image(1) is None
    assert found.drawn(0) == []


def test_answers_that_are_images_are_read_and_count_in_the_digest(tmp_path: Path) -> None:
    digests = []
    for light in (1, 2):
        for name, row in zip("ab", (ROWS[light], ROWS[4])):
            (tmp_path / f"{name}.png").write_bytes(row["image"])
        answers = {f"response_{name}": {"response_content": [["image", f"{name}.png"]]} for name in "ab"}
        row = {"id": "x", "chosen": "A", "prompt_content": [["text", "a dog"]], **answers}
        (tmp_path / "t2i.json").write_text(json.dumps({"pairs": [row]}))
        found = open_pairs(ResponseData(path=tmp_path / "t2i.json", layout="mmrb2"))
        assert found[0].is_drawn and found.image(0) is None and [one.shape[0] for one in found.drawn(0)] == [8, 8]
        digests.append(found.images_sha())
        (tmp_path / "a.png").write_bytes(b"")
    assert digests[0] == digests[1]  # rows 1 and 2 hold the same image
    with pytest.raises(ValueError, match="image"):
        found.drawn(0)


def test_any_table_is_read_by_the_names_of_its_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"Text": "q", "Output1": "x", "Output2": "y", "Better": "Output2", "Kind": "vqa"}\n'
    )
    names = {"query": "Text", "first": "Output1", "second": "Output2", "better": "Better", "better_first": "Output1"}
    columns = ColumnNames(**names, image=None, group="Kind")
    (pair,) = open_pairs(ResponseData(path=tmp_path / "a.jsonl", layout="columns", columns=columns))
    assert (pair.query, pair.responses, pair.best, pair.group) == ("q", ("x", "y"), 1, "vqa")


def damaged(key: str, value: object) -> list[dict]:
    return [ROWS[0] | {key: value}, *ROWS[1:]]


BAD = {
    "unknown source": (
        damaged("id", "gpt-1") and [ROWS[0] | {"id": "x-1", "query_source": "COCO"}],
        {},
        "query_source",
    ),
    "no ranking": (damaged("human_ranking", [0, 0]), {}, "human_ranking"),
    "one answer": (damaged("response", ["a"]), {}, "response"),
    "no question": (damaged("query", " "), {}, "query"),
    "not the whole set": (ROWS, {"full": True}, "data.full"),
    "no such column": (ROWS, {"layout": "columns"}, "chosen"),
}


@pytest.mark.parametrize("name", BAD)
def test_rows_that_cannot_be_judged_are_refused_with_their_key(name: str, tmp_path: Path) -> None:
    rows, options, named = BAD[name]
    with pytest.raises(ValueError, match=named):
        open_pairs(ResponseData(path=write_jsonl(tmp_path, rows), **options))


def test_files_that_are_no_pairs_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 torn")
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "other.csv").write_text("a,b\n")
    (tmp_path / "state.json").write_text("{}")
    lost = write_jsonl(tmp_path / "lost", ROWS)
    (tmp_path / "lost" / "3.png").unlink()
    for path in (tmp_path / "torn.parquet", tmp_path / "empty.jsonl", tmp_path / "other.csv", tmp_path, lost):
        with pytest.raises((ValueError, FileNotFoundError)) as found:
            open_pairs(ResponseData(path=path))
        assert "\n" not in str(found.value) and str(path) in str(found.value)


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_an_image_is_never_passed_over_in_silence(tmp_path: Path, form: str) -> None:
    if form == "parquet":
        datasets = require("datasets")
        rows = [row | {"image": {"bytes": b"", "path": None}} for row in ROWS]
        table = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image(decode=False))
        table.to_parquet(str(tmp_path / "pairs.parquet"))
        with pytest.raises(ValueError, match=r"row 0, id .*: image"):
            open_pairs(ResponseData(path=tmp_path / "pairs.parquet")).image(0)
        return
    file = write_jsonl(tmp_path, ROWS)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    key = "image" if "image" in lines[0] else "image_path"
    moved = [{k: v for k, v in line.items() if k != key} | {"image": None, "image_path": line[key]} for line in lines]
    file.write_text("\n".join(map(json.dumps, moved)))
    assert open_pairs(ResponseData(path=file)).image(0) is not None


def test_the_whole_set_has_the_published_sizes() -> None:
    assert sum(SIZES.values()) == 1250
