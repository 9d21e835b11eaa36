"""train_dpo on several ranks, accumulating and sharded, learns what one process learns."""

import importlib
import json
from pathlib import Path

import pytest

from genloop.job import PREPARED, parse, prepare, run_command
from jobs import train_dpo
from tests.runs import ROOT
from tests.worlds.ranks import on_ranks

STEPS = ["train.num_steps=3", "train.log_every=1", "train.batch_size=5", "eval_every=3", "log_gradients_every=3"]
JUDGED = ["judge_guidance=reinforce", "judge_group=5", "judge.kind=llava", "judge.options.checkpoint=shapes/judge"]
KINDS = {"pairs": [], "released": ["variant=released", "guidance_scale=0", "sft=0.1"]}
KINDS["judged"] = [*JUDGED, "sampling.steps=2", "replay=null", "eval_every=0", "log_gradients_every=0"]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """A run of one process for each kind."""
    importlib.import_module("genloop.training.sharded.by_fsdp")  # what forked ranks would import again
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        folder = tmp_path_factory.mktemp("plain")
        for kind, words in KINDS.items():
            assert run_command(train_dpo, ["tiny", *STEPS, *words, f"out={folder / kind}"]) == 0
    return folder


def lines(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if "_per_s" not in key and "seconds" not in key} for row in rows]


def losses(rows: list[dict]) -> list[float]:
    return [value for row in rows for key, value in row.items() if key.startswith("loss")]


@pytest.mark.parametrize(
    ("kind", "num_ranks", "more"),
    [
        ("pairs", 1, ["train.rows_per_forward=2"]),
        ("pairs", 2, ["train.rows_per_forward=2"]),
        ("pairs", 4, ["train.rows_per_forward=1"]),
        *(("pairs", 2, [f"train.zero_stage={stage}", "train.rows_per_forward=2"]) for stage in (1, 2, 3)),
        ("released", 2, ["train.zero_stage=3"]),
        ("judged", 2, ["train.zero_stage=3"]),
    ],
)
def test_ranks_learn_what_one_process_learns(plain, tmp_path, monkeypatch, kind, num_ranks, more):
    words = ["tiny", *STEPS, *KINDS[kind], *more, f"out={tmp_path / 'run'}"]
    monkeypatch.setenv(PREPARED, prepare(train_dpo, parse(train_dpo, words)).digest)
    assert on_ranks(num_ranks, monkeypatch, lambda: run_command(train_dpo, words)) == [0] * num_ranks
    expected, found = lines(plain / kind), lines(tmp_path / "run")
    assert losses(found) == pytest.approx(losses(expected), rel=1e-5, abs=1e-5)
    for row, again in zip(expected, found, strict=True):  # differences of sums over many tokens
        assert again == pytest.approx(row, rel=1e-3, abs=2e-3)
