"""Examples by side of the split: what is written comes back, an empty side has no shard, pairs keep to kinds."""

from genloop.data.judge.examples import JudgeExample, to_sample
from genloop.data.judge.shards import pairs_of, read_sides
from genloop.data.shards import write_sides
from genloop.records import Clause, Prompt

STAR = Prompt(3, "a photo of a star", "single_object", (Clause("star", 1),))


def example(key: str, source: str = "generate", **questions: float) -> JudgeExample:
    return JudgeExample(key, source, STAR, 0, 0, 18, 18, questions)


def test_each_side_comes_back_as_it_was_written(tmp_path):
    train, val = [example("a", outcome=1.0), example("b", outcome=0.0)], [example("c", outcome=0.5)]
    samples = [
        ("train", to_sample(train[0], b"")),
        ("val", to_sample(val[0], b"")),
        ("train", to_sample(train[1], b"")),
    ]
    rows = write_sides(tmp_path, "00004", samples)
    assert [(row["shard"], row["samples"]) for row in rows] == [("train/00004.tar", 2), ("val/00004.tar", 1)]
    assert read_sides(tmp_path) == {"train": train, "val": val}


def test_a_side_without_samples_has_no_shard(tmp_path):
    (row,) = write_sides(tmp_path, "00000", [("val", to_sample(example("a", outcome=1.0), b""))])
    assert row["shard"] == "val/00000.tar" and not (tmp_path / "train").exists()
    assert read_sides(tmp_path)["train"] == []


def test_pairs_join_images_of_one_kind_of_source():
    sides = {
        "train": [example("a", outcome=1.0), example("b", outcome=0.0), example("c", "conversations", outcome=0.0)],
        "val": [example("d", "scenes", outcome=1.0), example("e", "scenes", outcome=0.0)],
    }
    found = pairs_of(sides, 0, most=8)
    assert [(pair.better, pair.worse) for pair in found["train"]] == [("a", "b")]
    assert found["val"] == []
