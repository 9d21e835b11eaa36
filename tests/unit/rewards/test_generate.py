"""Judges in the generate job: one line for bad input and nothing written; scores that a second run does not pay for."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from torch.nn.modules.module import register_module_forward_hook

from genloop.config import INSTALLED
from genloop.job import run_command
from genloop.ledger import read_rows
from jobs import generate as job
from tests.runs import contents, rows_text
from tests.worlds.chat_server import MODEL, looking_server

PROMPTS = INSTALLED / "configs" / "prompts" / "shapes_tiny"
QUICK = ["images_per_prompt=1", "unit_size=1", "sampling.steps=4", "search.strategy=best_of_n", "search.n=2"]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with looking_server() as running:
        yield running


def run(out, *words, metadata=True):
    files = [f"prompts={PROMPTS}/generation_prompts.txt"]
    files += [f"metadata={PROMPTS}/evaluation_metadata.jsonl"] if metadata else []
    return run_command(job, [*files, f"out={out}", *QUICK, *words])


def remote(server):
    return ["judge.kind=remote", f"judge.options.url={server.url}", f"judge.options.model={MODEL}"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["judge.kind=lava"], "judge.kind: unknown judge 'lava'; did you mean 'llava'?"),
        (["judge.options.checkpoint=a"], "judge.options.checkpoint: unknown key (keys: none)"),
        (["judge.kind=llava", "judge.options.checkpoint=nowhere"], "no checkpoint 'nowhere'"),
        (["judge.kind=clip_score", "judge.options.checkpoint=shapes/showo"], "not a folder of open_clip"),
        (["search.strategy=parm"], "judge.kind: judge 'shapes_oracle' answers outcome, reason, not "),
        (["judge.kind=ensemble", "judge.options.members=[{kind: shapes_orakle}]"], "did you mean 'shapes_oracle'?"),
    ],
)
def test_bad_judges_are_refused_in_one_line_before_anything_is_written(tmp_path, capsys, words, line):
    assert run(tmp_path / "run", *words) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("genloop: ") and line in said
    assert not (tmp_path / "run").exists()


def test_the_oracle_without_metadata_is_refused(tmp_path, capsys):
    assert run(tmp_path / "run", metadata=False) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said == "genloop: metadata: judge 'shapes_oracle' needs GenEval metadata beside the prompts"


def test_a_questions_file_without_a_needed_question_is_refused(tmp_path, capsys, server):
    file = tmp_path / "questions.yaml"
    file.write_text('outcome: "<image> Is it {prompt}?"\n')
    words = [*remote(server), f"judge.options.questions={file}", "search.strategy=parm"]
    assert run(tmp_path / "run", *words) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("genloop: judge.kind: judge 'remote' answers outcome, not ")
    assert said.endswith(f"potential; add it to {file}")


def test_a_server_that_is_down_is_refused(tmp_path, capsys):
    with looking_server() as gone:
        words = remote(gone)
    assert run(tmp_path / "run", *words) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("genloop: judge.options.url: http://127.0.0.1:") and said.endswith(
        "connection refused; start the server, or give its address"
    )


def test_a_search_with_other_units_and_prompts_pays_for_new_images_only(tmp_path, server):
    plain, cache = remote(server), f"judge.cache={tmp_path / 'scores'}"
    assert run(tmp_path / "a", "limit=2", *plain, cache) == 0
    assert len(server.requests) == 4
    assert run(tmp_path / "b", "limit=3", "unit_size=3", *plain, cache) == 0
    assert len(server.requests) == 6
    assert run(tmp_path / "c", "limit=3", *plain) == 0
    assert len(server.requests) == 12
    cached, asked = (list(read_rows(tmp_path / name)) for name in "bc")
    assert json.dumps(cached) == json.dumps(asked) and len(asked) == 3
    assert list(read_rows(tmp_path / "a")) == asked[:2]


def test_images_that_a_server_would_not_judge_are_null_and_the_rest_is_kept(tmp_path, server):
    server.moods = [400, "silent"]
    assert run(tmp_path / "run", "limit=2", *remote(server), "judge.options.concurrency=1") == 0
    answers = [c["p_yes"]["outcome"] for row in read_rows(tmp_path / "run") for c in row["candidates"]]
    assert sorted(answer is None for answer in answers) == [False] * 2 + [True] * 2


@contextmanager
def counted_forwards() -> Iterator[list[str]]:
    """The parts of a LLaVA that compute anything, one entry a forward pass."""
    seen: list[str] = []

    def note(module, inputs, output):
        if type(module).__module__.startswith(("transformers.models.siglip", "transformers.models.qwen2")):
            seen.append(type(module).__name__)

    hook = register_module_forward_hook(note)
    try:
        yield seen
    finally:
        hook.remove()


def test_a_second_search_that_reflects_asks_a_judge_nothing(tmp_path):
    words = ["limit=3", "judge.kind=llava", "judge.options.checkpoint=shapes/judge", "search.strategy=parm_plus_plus"]
    words += ["search.options.start=best_of_n", "search.options.accept=1.0", "search.options.rounds=2"]
    cache = f"judge.cache={tmp_path / 'scores'}"
    asked = {}
    for name, more in (("first", [cache]), ("second", [cache, "unit_size=3"]), ("plain", [])):
        with counted_forwards() as seen:
            assert run(tmp_path / name, *words, *more) == 0
        asked[name] = seen
    assert {"SiglipMLP", "Qwen2MLP"} <= set(asked["first"]) and asked["second"] == []
    assert len(asked["plain"]) >= len(asked["first"])
    reasons = [c["reason"] for row in read_rows(tmp_path / "first") for c in row["candidates"] if c.get("reason")]
    assert reasons
    images = [contents(tmp_path / name, ["images"]) for name in asked]
    rows = [rows_text(tmp_path / name) for name in asked]
    assert rows[0] == rows[1] == rows[2] and images[0] == images[1] == images[2]
