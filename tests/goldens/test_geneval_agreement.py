"""People's votes, taken from annotations in the published form, are those of the recorded consensus."""

import csv
from pathlib import Path

import pytest

from geneval.prompts import generate
from genloop.stats.agreement.measure import agreement, label
from genloop.stats.agreement.votes import Prompts, Rule, read_votes
from tests.goldens.roots import golden_name, golden_paths
from tests.worlds.annotations import published_row, write_csv

FILES = golden_paths("geneval/**/human_consensus*.csv")
PUBLISHED: Prompts = {prompt.index: (prompt.text, prompt.metadata()) for prompt in generate()}


def consensus(file: Path) -> dict[str, list[dict[str, str]]]:
    """The rows of each model."""
    with open(file, newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert rows
    return {model: [row for row in rows if row["model"] == model] for model in dict.fromkeys(r["model"] for r in rows)}


@pytest.mark.parametrize("file", FILES, ids=golden_name)
@pytest.mark.parametrize("rule", ["loose", "strict"])
def test_annotations_give_the_votes_of_the_consensus(tmp_path: Path, file: Path, rule: Rule) -> None:
    for model, rows in consensus(file).items():
        answers = []
        for row in rows:
            n, loose, strict = (int(row[key]) for key in ("n_annotators", "n_loose", "n_strict"))
            metadata = PUBLISHED[int(row["prompt_id"])][1]
            kinds = ["strict"] * strict + ["loose"] * (loose - strict) + ["no"] * (n - loose)
            place = int(row["prompt_id"]), int(row["image_id"])
            answers += [published_row(metadata, *place, kind, model) for kind in kinds]
        found = read_votes([write_csv(tmp_path / f"annotations_{model}.csv", answers)], PUBLISHED, rule).votes
        assert {place: (votes.yes, votes.total) for place, votes in found.items()} == {
            (int(row["prompt_id"]), int(row["image_id"])): (int(row[f"n_{rule}"]), int(row["n_annotators"]))
            for row in rows
        }


@pytest.mark.parametrize("file", FILES, ids=golden_name)
def test_the_majority_agrees_with_itself_and_strict_votes_are_precise(tmp_path: Path, file: Path) -> None:
    for rows in consensus(file).values():
        path = write_csv(tmp_path / "one.csv", rows)
        loose, strict = (read_votes([path], PUBLISHED, rule).votes for rule in ("loose", "strict"))
        verdicts = {
            place: (PUBLISHED[place[0]][0], PUBLISHED[place[0]][1]["tag"], bool(v.label)) for place, v in loose.items()
        }
        stricter = {place: (*verdicts[place][:2], bool(v.label)) for place, v in strict.items()}
        images, ties, missing = label(loose, verdicts, stricter)
        found = agreement(images, 0, num_resamples=200)
        everything = found.tasks[-1]
        assert (ties, missing, everything.images) == (0, 0, len(rows))
        assert everything.agreement.estimate == everything.kappa.estimate == everything.recall.estimate == 1
        assert found.paired[-1].only_other == 0 and found.paired[-1].agreement.estimate <= 0
        assert 0.85 < found.person.estimate < 1
