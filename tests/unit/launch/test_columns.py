"""What commands print fits the terminal: 100 columns, and 80 as well; words are never cut."""

from pathlib import Path

import pytest

from genloop import terminal
from genloop.job import run_command
from genloop.registry import load
from jobs import make_prompts
from launch.cli import command
from tests.unit.launch.test_status import count_to
from tests.worlds.report_runs import Sketch, write_runs

WORDS = "why it failed is a long story " * 8


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("columns")
    found = {name: write_runs(root, name, Sketch(prompts_per_task=1, seed=len(name))) for name in ("none", "best_of_n")}
    count_to(root / "failed", "limit=6", "fail_at=3")
    (root / "failed" / "failed" / "00001.json").write_text(f'{{"attempts": 3, "reason": "ValueError: {WORDS}"}}')
    assert run_command(make_prompts, ["tiny", f"out={root / 'prompts'}"]) == 0
    return found | {"failed": root / "failed", "prompts": root / "prompts", "root": root}


COMMANDS = {
    "jobs": ["jobs"],
    "presets": ["jobs", "--presets"],
    "ckpts list": ["ckpts", "list"],
    "ckpts verify": ["ckpts", "verify", "shapes/showo"],
    "plan": ["plan", "generate", "tiny", "out=x"],
    "plan of a pipeline": ["plan", "tiny"],
    "status": ["status", "{failed}"],
    "report of two": ["report", "{none}", "{best_of_n}"],
    "report of images": ["report", "{root}/none"],
    "report of any run": ["report", "{prompts}"],
    "compare": ["run", "compare", "tiny", "a={none}", "b={best_of_n}", "out={root}/c"],
}


@pytest.mark.parametrize("columns", [100, 80])
@pytest.mark.parametrize("name", COMMANDS)
def test_lines_fit(
    name: str, columns: int, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert command([word.format(**runs) for word in COMMANDS[name]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines and [line for line in lines if len(line) > columns and len(line.split()) > 1] == []


def test_markdown_of_any_table_fits(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    head = load("genloop.metrics.paired.improvement:HEADER")
    rows = load("genloop.stats.markdown:table_row")
    terminal.out_markdown(
        "\n".join([rows(head), rows(["---"] * len(head)), rows(["histogram_correlation"] * len(head))])
    )
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_the_last_cell_is_wrapped_below_itself_and_no_word_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    address = "/a/path/that/is/longer/than/the/whole/terminal/and/must/be/copied/whole"
    lines = terminal.aligned([("name", WORDS), ("a longer name", address)], 2)
    assert all(line.startswith(" " * 17) for line in lines[1:-2]) and address in lines[-1].split()
    assert " ".join(" ".join(lines).split()) == " ".join(f"name {WORDS} a longer name {address}".split())
