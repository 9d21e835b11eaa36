"""Judges that are right by construction: every reading finds it out, and orders take a bias of position away."""

from pathlib import Path

import numpy as np
import pytest

from genloop.data.responses.read import ResponseData, open_pairs
from genloop.evals.vl_rewardbench.judging import Asking, judge_pairs
from genloop.records import Writing
from genloop.rewards.responses.wording import read_wording
from genloop.runs.judged import JudgedPair
from tests.worlds.pair_judges import WordCounter, vl_rewardbench_rows, write_jsonl

NUMBERS = range(8)


def judged(folder: Path, judge: WordCounter, trials: int = 3) -> list[JudgedPair]:
    pairs = open_pairs(ResponseData(path=write_jsonl(folder, vl_rewardbench_rows())))
    asking = Asking(("likelihood", "pmi", "verdict", "generated"), trials, Writing(), read_wording(None), 0)
    rows = judge_pairs("counter", judge, pairs, NUMBERS, pairs.clusters(), asking)
    return [JudgedPair.model_validate(row, strict=False) for row in rows]


def test_a_judge_that_sees_what_is_good_is_right_by_every_reading(tmp_path: Path) -> None:
    for row in judged(tmp_path, WordCounter(["good"])):
        assert {reading: row.right(reading) for reading in row.readings} == dict.fromkeys(row.readings, 1.0)
        assert row.pmi is not None and row.pmi.scores is not None and row.pmi.scores[row.best] == pytest.approx(1)


def test_a_judge_that_says_one_whatever_it_is_shown_has_no_opinion_over_both_orders(tmp_path: Path) -> None:
    for row in judged(tmp_path, WordCounter([], first=5.0), trials=2):
        assert row.verdict is not None and row.verdict.p_one is not None and row.verdict.p is not None
        assert min(p or 0 for p in row.verdict.p_one) > 0.9 and row.verdict.p == pytest.approx(0.5)
        assert row.preference("generated") == 0.5 and row.right("generated") == 0
        assert [trial.order for trial in row.generated or ()] == ["as given", "swapped"][:: 1 - 2 * (row.number % 2)]


def test_rows_do_not_depend_on_how_pairs_are_cut(tmp_path: Path) -> None:
    pairs = open_pairs(ResponseData(path=write_jsonl(tmp_path, vl_rewardbench_rows())))
    asking = Asking(("verdict", "generated"), 3, Writing(), read_wording(None), 0)
    judge, clusters = WordCounter(["good"]), np.zeros(len(pairs), dtype=int)
    whole = judge_pairs("x", judge, pairs, NUMBERS, clusters, asking)
    assert whole == [judge_pairs("x", judge, pairs, [number], clusters, asking)[0] for number in NUMBERS]
