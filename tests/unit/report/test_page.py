"""The page: self-contained, harmless, deterministic, honest about what is missing."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genloop import rundir
from genloop.report import default_folder, write_report
from genloop.report.page.write import NUM_EXTREMES
from tests.worlds.report_runs import CARD, Sketch, write_runs

ORDER = ("results", "reading", "provenance")  # of the sections that pages share
HOSTILE = '<script>alert("x")</script> & "a" photo\' of </style> {{ 7 * 7 }}'


class Page(HTMLParser):
    """What stands in a page: tags with their attributes, and the text outside of styles."""

    VOID = frozenset({"meta", "link", "img", "input", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def page_of(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def check_frame(path: Path, *, provenance: bool = True) -> None:
    """What pages of every kind have in common: pictures before numbers, these before how to read them, links that lead
    somewhere, tables that scroll inside of their own box.
    """
    text, page = path.read_text(encoding="utf-8"), page_of(path)
    assert page.unbalanced == [] and page.open == [] and "<script" not in text
    assert not re.search(r'(src|href)="(https?:|/)', text) and not re.search(r"url\((?!#)|@import", text)
    ids = [str(attributes["id"]) for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    linked = [str(a["href"])[1:] for a in page.all("a") if str(a["href"]).startswith("#")]
    assert set(linked) <= set(ids) and len(page.all("h1")) == 1
    assert re.search(r"</h1><p class=\"lead\">[^<]{20,}", text)
    sections = re.findall(r'<section id="([^"]+)"', text)
    assert linked == sections  # the list at the top names every section, in order
    assert [name for name in sections if name in ORDER] == [name for name in ORDER if name in sections]
    assert "results" in sections and ("provenance" in sections) == provenance
    body = text[text.index("<main") :]
    if pictures := re.findall(r"(?s)^.*?<(?:img|image) ", body):
        assert len(pictures[0]) < body.index('id="results"')
    assert not [a for a in page.all("details") if "open" in a and "panel" not in str(a.get("class"))]
    assert all("overflow" not in str(a.get("style")) for _, a in page.tags)
    for table in re.findall(r"<div[^>]*>\s*<table", body):  # a wide table scrolls inside of its own box
        assert "scroll" in table, table
    files = [str(a["href"]) for a in page.all("a") if str(a["href"]).endswith((".md", ".json", ".svg", ".png", ".csv"))]
    assert all((path.parent / name).is_file() for name in files)


def pair(root: Path) -> list[Path]:
    """Two runs over the same prompts, the second with best-of-N."""
    return [
        write_runs(root, "none", Sketch(accuracy=0.3, seed=1)),
        write_runs(root, "best_of_n", Sketch(accuracy=0.9, seed=2, num_candidates=4)),
    ]


def test_a_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    text = write_report(pair(tmp_path)).read_text(encoding="utf-8")
    page = Page(text)
    addresses = [a.get(key) or "" for _, a in page.tags for key in ("src", "href") if key in a]
    drawn = {f"{name}.{kind}" for name in ("scores", "difference-b-a") for kind in ("svg", "png")}
    beside = {"table.md", "table.json", "failures-a.html", "failures-b.html", *drawn}
    assert [a for a in addresses if not a.startswith(("data:", "#")) and a not in beside] == []
    assert not re.search(r"url\((?!#)|@import|<script|https?:", text)


def test_a_page_is_well_formed_and_can_be_read_without_seeing_it(tmp_path: Path) -> None:
    path = write_report(pair(tmp_path))
    page = page_of(path)
    for one in (path, path.parent / "failures-a.html"):
        check_frame(one, provenance=one == path)
    assert page.all("html")[0]["lang"] == "en" and any(m.get("name") == "viewport" for m in page.all("meta"))
    images = page.all("img")
    assert images and all(i["alt"] and i["width"] and i["height"] and i["loading"] == "lazy" for i in images)
    assert page.all("th") and all(th["scope"] in {"row", "col"} for th in page.all("th"))
    assert {i["id"] for i in page.all("input")} == {label["for"] for label in page.all("label")}
    drawings = [svg for svg in page.all("svg") if svg.get("role") == "img"]
    assert drawings and all(svg["aria-label"] for svg in drawings)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_same_runs_give_the_same_bytes_wherever_the_report_goes(tmp_path: Path) -> None:
    runs = pair(tmp_path)
    first, second = write_report(runs).parent, write_report(runs, tmp_path / "elsewhere").parent
    assert first == runs[0] / "report"
    for name in ("index.html", "table.md", "table.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_page_of_a_small_run_is_light(tmp_path: Path) -> None:
    many = Sketch(prompts_per_task=20, num_candidates=8)
    runs = [write_runs(tmp_path, "a", many), write_runs(tmp_path, "b", many)]
    assert write_report(runs).stat().st_size < 400_000


def test_nothing_in_a_prompt_a_reason_or_a_name_becomes_markup(tmp_path: Path) -> None:
    run = write_runs(tmp_path, "<i>a</i>&", Sketch(texts={i: f"{HOSTILE} {i}" for i in range(24)}, num_candidates=2))
    rows = run / "rows" / "00000.jsonl"
    rows.write_text(rows.read_text().replace("expected red circle", "<img src=x onerror=alert(1)>"))
    page = page_of(write_report([run], tmp_path / "out"))
    assert page.all("script") == [] and page.all("i") == [] and page.unbalanced == []
    assert [i for i in page.all("img") if "onerror" in i] == []
    assert f"{HOSTILE} 0" in page.text and "{{ 7 * 7 }}" in page.text
    assert any("<script>" in (i["alt"] or "") for i in page.all("img"))


def test_an_unfinished_run_is_shown_as_far_as_it_is_and_says_so(tmp_path: Path) -> None:
    page = page_of(write_report([write_runs(tmp_path, "a", Sketch(units=4))]))
    assert "a-verdicts is unfinished: 4 of 6 units are done" in page.text
    assert "n = 16 images of 16 prompts" in page.text
    assert "has no image of position, color_attr" in page.text


def test_images_of_an_unfinished_run_are_said_to_be_that(tmp_path: Path) -> None:
    run = write_runs(tmp_path, "a", Sketch())
    (tmp_path / "a" / "rows" / "00005.jsonl").unlink()
    page = page_of(write_report([run]))
    assert "a-verdicts: its images are those of an unfinished run, 5 of 6 units." in page.text


def test_a_finished_run_has_no_notice(tmp_path: Path) -> None:
    page = page_of(write_report([write_runs(tmp_path, "a", Sketch())]))
    assert [p for p in page.all("p") if p.get("class") == "notice"] == []


def test_runs_over_other_prompts_are_not_compared_and_the_page_says_why(tmp_path: Path) -> None:
    runs = [write_runs(tmp_path, "a", Sketch()), write_runs(tmp_path, "b", Sketch(texts={3: "a photo of a fork"}))]
    out = write_report(runs).parent
    page = page_of(out / "index.html")
    assert "No paired comparison of B b-verdicts with A a-verdicts" in page.text
    assert "coverage (24 images of 24 prompts / 24 images of 24 prompts, 23 in both)" in page.text
    assert json.loads((out / "table.json").read_text())["comparisons"][0]["differences"] == []


def test_runs_under_other_conditions_have_no_differences_but_the_command_that_shows_them(tmp_path: Path) -> None:
    runs = pair(tmp_path)
    assert "minus" in page_of(write_report(runs)).text
    card = CARD | {"images": CARD["images"] | {"guidance": 5.0, "strategy": "parm"}}
    (runs[1] / "card.json").write_text(json.dumps(card))
    out = write_report(runs).parent
    page, table = page_of(out / "index.html"), (out / "table.md").read_text()
    reason = "they differ in guidance (2.0 / 5.0)"
    assert f"B best_of_n-verdicts is not compared with A none-verdicts: {reason}." in page.text
    assert "in points" not in page.text and "in points" in table and "| difference |" not in table
    (found,) = json.loads((out / "table.json").read_text())["comparisons"]
    assert found["refusal"] == reason and found["differences"] == []
    assert found["command"].endswith("'allow=[guidance]'") and found["command"] in page.text
    assert f"not compared: {reason}; to compare anyway: `{found['command']}`" in table


def test_missing_and_torn_images_leave_a_gap_and_a_notice(tmp_path: Path) -> None:
    run = write_runs(tmp_path, "a", Sketch())
    (tmp_path / "a" / "images" / "00000" / "samples" / "0000.png").unlink()
    torn = tmp_path / "a" / "images" / "00001" / "samples" / "0000.png"
    torn.write_bytes(torn.read_bytes()[:40])
    page = page_of(write_report([run]))
    assert "1 of 24 image files are missing" in page.text
    assert page.text.count("image missing") == 2
    assert len(page.all("img")) == 22 + 2 * NUM_EXTREMES


def test_images_that_no_decoder_takes_leave_a_gap(tmp_path: Path) -> None:
    run = write_runs(tmp_path, "a", Sketch())
    bomb, rows = tmp_path / "a" / "images" / "00000" / "samples" / "0000.png", np.zeros((14000, 14000), dtype=bool)
    Image.fromarray(rows).save(bomb)
    broken = bytearray((tmp_path / "a" / "images" / "00001" / "samples" / "0000.png").read_bytes())
    broken[45] ^= 255  # within the compressed pixels
    (tmp_path / "a" / "images" / "00001" / "samples" / "0000.png").write_bytes(broken)
    assert page_of(write_report([run])).text.count("image missing") == 2


def test_a_line_that_a_kill_has_torn_does_not_stop_the_page(tmp_path: Path) -> None:
    run = write_runs(tmp_path, "a", Sketch())
    with open(tmp_path / "a" / "metrics.jsonl", "a") as file:
        file.write('{"unit": "00001", "ima\n\xff\n')
    assert "generator steps 216" in page_of(write_report([run])).text


def test_images_without_a_generate_run_have_a_gallery_but_no_close_ups(tmp_path: Path) -> None:
    run = write_runs(tmp_path, "a", Sketch(num_candidates=3))
    (tmp_path / "a" / "run.json").unlink()
    page = page_of(write_report([run]))
    assert len(page.all("img")) == 24 + 2 * NUM_EXTREMES
    assert "Close-ups" not in page.text


def test_images_are_found_when_the_run_folders_have_moved_together(tmp_path: Path) -> None:
    run = write_runs(tmp_path / "old", "a", Sketch())
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(str(tmp_path / "old"), "runs"))
    shutil.move(tmp_path / "old", tmp_path / "runs")
    page = page_of(write_report([tmp_path / "runs" / "a-verdicts"]))
    assert len(page.all("img")) == 24 + 2 * NUM_EXTREMES


def test_a_moved_run_does_not_take_the_images_of_another_one_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [write_runs(tmp_path / place / "runs", "a", Sketch(seed=i)) for i, place in enumerate(("here", "there"))]
    for run in runs:
        config = run / "config.yaml"
        config.write_text(config.read_text().replace(str(run.parent.parent) + "/", ""))
    monkeypatch.chdir(tmp_path / "here")
    page = write_report([runs[1]])
    monkeypatch.chdir(tmp_path / "there")
    assert page.read_bytes() == write_report([runs[1]], tmp_path / "again").read_bytes()


def test_close_ups_show_the_unmasking_and_the_candidates(tmp_path: Path) -> None:
    page = page_of(write_report([write_runs(tmp_path, "a", Sketch(num_candidates=4))], num_closeups=2))
    frames = [svg["aria-label"] for svg in page.all("svg") if (svg.get("aria-label") or "").startswith("after step")]
    assert frames == [f"after step {step}" for step in (1, 2, 3, 4, 6, 7, 8, 9)] * 2
    scores = [svg["aria-label"] or "" for svg in page.all("svg") if "P(yes)" in (svg.get("aria-label") or "")]
    assert [len(text.split(",")) for text in scores] == [4, 4]
    assert re.search(r"candidate \d of 4 chosen: P\(yes\) \d\.\d\d; mean \d\.\d\d", page.text)


def test_provenance_names_config_code_versions_inputs_and_work(tmp_path: Path) -> None:
    text = page_of(write_report([write_runs(tmp_path, "a", Sketch())])).text
    digest = (rundir.read_run(tmp_path / "a-verdicts") or {})["digest"]
    for fact in (digest, "0123abc with local changes", "torch 2.13.0", "ab" * 32, "generator steps 216", '"detector"'):
        assert fact in text


def test_equal_scores_are_called_equal(tmp_path: Path) -> None:
    runs = [write_runs(tmp_path, name, Sketch(seed=1)) for name in "ab"]
    text = page_of(write_report(runs, tmp_path / "out")).text
    assert "b-verdicts scores the same as a-verdicts (95 % interval" in text and "points higher" not in text


def test_several_samples_of_a_prompt_count_as_one_prompt(tmp_path: Path) -> None:
    page = page_of(write_report([write_runs(tmp_path, "a", Sketch(samples=3))]))
    assert "n = 72 images of 24 prompts" in page.text


def test_large_images_are_embedded_as_thumbnails(tmp_path: Path) -> None:
    page = page_of(write_report([write_runs(tmp_path, "a", Sketch(prompts_per_task=1, side=512))]))
    images = page.all("img")
    assert {(i["width"], i["height"]) for i in images} == {("224", "224")}
    assert all((i["src"] or "").startswith("data:image/jpeg") and i["class"] == "pic" for i in images)


@pytest.mark.parametrize("what", ["absent", "generate", "empty", "none"])
def test_what_is_not_an_evaluate_run_is_refused_in_one_line(tmp_path: Path, what: str) -> None:
    run = write_runs(tmp_path, "a", Sketch(prompts_per_task=1))
    if what == "empty":
        shutil.rmtree(run / "rows")
    cases = {
        "absent": ([tmp_path / "nothing"], "nothing is not a run"),
        "generate": ([tmp_path / "a"], "run of generate; runs of evaluate"),
        "empty": ([run], "has no finished unit yet"),
        "none": ([], "no run given"),
    }
    runs, message = cases[what]
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        write_report(runs, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_gallery_shows_every_task_right_and_wrong(tmp_path: Path) -> None:
    run = write_runs(tmp_path, "a", Sketch(prompts_per_task=30, seed=3))
    page = page_of(write_report([run], num_cards=24))
    cards = [(a["class"] or "").split() for a in page.all("article") if "tag-" in (a["class"] or "")]
    kinds = {(task, outcome): 0 for task in range(1, 7) for outcome in ("right", "wrong")}
    for _, _, task, outcome in cards:
        kinds[int(task.removeprefix("tag-")), outcome] += 1
    assert set(kinds.values()) == {2}


def test_each_set_of_runs_has_a_page_of_its_own(tmp_path: Path) -> None:
    a, b, c = tmp_path / "a", tmp_path / "x/b", tmp_path / "y/b"
    pages = [default_folder(runs) for runs in ([a], [a, b], [a, c], [a, b, c])]
    assert pages[0] == a / "report" and len(set(pages)) == 4 and all(page.parent == a for page in pages)
    assert default_folder([a, b]) == pages[1]


def test_pictures_come_before_tables_the_best_and_the_worst_first(tmp_path: Path) -> None:
    text = write_report(pair(tmp_path)).read_text()
    best, worst = text.index("<h3>Best</h3>"), text.index("<h3>Worst</h3>")
    assert best < worst < text.index("<table>") < text.index('id="gallery"')
    top = text[best : text.index("</section>", best)].split("<h3>Worst</h3>")
    assert ["wrong" in part.lower().replace("wrong position", "") for part in top][1]
    assert "An interval that lies beyond 0 can belong to" in text


def test_the_table_holds_the_numbers_of_the_page(tmp_path: Path) -> None:
    out = write_report(pair(tmp_path)).parent
    table = json.loads((out / "table.json").read_text())
    text = page_of(out / "index.html").text
    for run in table["runs"]:
        assert np.isclose(run["scores"][-1]["estimate"], np.mean([s["estimate"] for s in run["scores"][:-1]]))
        for score in run["scores"]:
            mark = {"wilson": " w", "combined": " c"}[score["method"]]
            assert (
                f"{100 * score['estimate']:.1f} % {100 * score['low']:.1f} to {100 * score['high']:.1f}{mark}" in text
            )
    assert "w: Wilson's at the effective sample size; c: combined from those of the tasks" in text
    lines = (out / "table.md").read_text().splitlines()
    assert lines[0] == "| task | A none-verdicts | A cost | B best_of_n-verdicts | B cost |"
    assert [line.split(" | ")[0] for line in lines[2:9]][-1] == "| overall"
