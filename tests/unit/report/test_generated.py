"""The page of a run of generate: images first, scores with n and interval, what failed and why."""

import re

import pytest

from genloop.job import run_command
from genloop.ledger import count
from genloop.reading import read_json
from genloop.report.generated.write import write_generated
from genloop.rewards import JUDGES
from jobs import generate
from launch.cli import command
from tests.unit.report.test_page import check_frame, page_of

WORDS = ["tiny_shards", "limit=6", "images_per_prompt=2", "unit_size=2", "sampling.steps=2"]
SEARCH = ["judge.kind=opinions", "search.strategy=best_of_n", "search.n=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(JUDGES, "opinions", "tests.worlds.judged_generate:OpinionsMaker")
        out = tmp_path_factory.mktemp("generated") / "run"
        assert run_command(generate, [*WORDS, *SEARCH, f"out={out}"]) == 0
    return out


def section(page: str, name: str) -> str:
    """The part of a page with an id."""
    return page.split(f'<section id="{name}"')[1].split("</section>")[0]


def test_every_image_is_shown_with_its_score_before_any_number(run, tmp_path):
    page = write_generated(run, tmp_path).read_text()
    gallery, closeups = section(page, "gallery"), section(page, "closeups")
    assert (
        closeups.count('class="path run0"') == 6 and "candidate 0 of 2 chosen" in closeups and 'class="cover"' in page
    )
    best, worst = (
        re.findall(r"<small>outcome (\d\.\d\d)", part) for part in section(page, "pictures").split("Worst</h3>")
    )
    assert best == sorted(best, reverse=True) and worst == sorted(worst) and best[0] > worst[0] and len(best) == 4
    assert gallery.count("data:image/png") == 12 == len(re.findall(r"<small>outcome \d\.\d\d</small>", gallery))
    assert page.index("data:image/png") < page.index('class="big"') and "n = 12 images" in page
    numbers = read_json(tmp_path / "table.json")
    assert (numbers["images"], numbers["prompts"], numbers["candidates an image"]) == (12, 6, 2)
    assert 0 <= numbers["score low"] < numbers["score"] < numbers["score high"] <= 1


def test_the_page_needs_nothing_else_and_its_bytes_follow_from_the_run(run, tmp_path):
    first, again = write_generated(run, tmp_path / "a"), write_generated(run, tmp_path / "b")
    check_frame(first)
    for name in ("index.html", "table.md", "table.json"):
        assert (first.parent / name).read_bytes() == (again.parent / name).read_bytes()


def test_the_command_shows_it(run, capsys):
    assert command(["report", str(run)]) == 0
    assert "images" in capsys.readouterr().out and (run / "report" / "index.html").is_file()


def test_what_failed_is_told_beside_what_is_there(tmp_path):
    words = [*WORDS, "images_per_prompt=1", "unit_size=1", f"out={tmp_path / 'run'}"]
    own = "generator.options.tokenizer_class=tests.worlds.broken_decoder:OftenBlack"
    while (units := count(tmp_path / "run", 6)).done + units.failed < 6:
        with pytest.raises(SystemExit):
            run_command(generate, [*words, own])
    page = write_generated(tmp_path / "run", tmp_path).read_text()
    assert units.failed and section(page, "gallery").count("data:image/png") == units.done > 0
    assert page.count("ValueError: the image is black") == units.failed


def test_nothing_yet_is_refused(run, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "run.json").write_bytes((run / "run.json").read_bytes())
    with pytest.raises(ValueError, match="no finished unit"):
        write_generated(empty, tmp_path)


def test_guided_generation_is_shown_round_by_round(tmp_path):
    run = tmp_path / "run"
    assert run_command(generate, ["refine_tiny", "limit=3", "sampling.steps=6", f"out={run}"]) == 0
    path = write_generated(run, tmp_path / "report")
    page, shape, numbers = path.read_text(), page_of(path), read_json(tmp_path / "report" / "table.json")
    drawn = numbers["drawings an image after the start"] * numbers["images"]
    assert shape.unbalanced == [] and shape.open == [] and 'id="rounds"' in page
    rounds = section(page, "rounds")
    assert rounds.count('class="seen"') == page.count("taken back") + page.count(", kept")
    assert rounds.count('class="seen"') == drawn + page.count("<b>start</b>") > drawn > 0
    assert page.count('class="features"') == numbers["critiques"] > 3 and numbers["failed critiques"] == 0
    assert 'aria-label="brightness ' in page and "Refined: “a photo of" in page
