"""Runs as rows of a table of methods: gains over the first run and over a control, cost of search and of training."""

import json

import pytest

from genloop import rundir
from genloop.config import dump_yaml, read_yaml
from genloop.report.page.write import write_report
from genloop.runs.lineage import cpu_seconds, made_from
from tests.worlds.report_runs import Sketch, complete_run, start_run, write_runs


def trained_run(root, name, source, seconds):
    """A training from the pairs of a run, with what it took."""
    pairs, training = root / f"{name}-pairs", root / f"{name}-train"
    start_run(pairs, "build_pairs", {"run": str(source)})
    complete_run(pairs, [{"pair": 0}], 1)
    start_run(training, "train_dpo", {"pairs": str(pairs / "shards"), "start": "shapes/showo"})
    (pairs / "shards").mkdir()
    (training / "showo").mkdir()
    for step in (1, 2):
        rundir.append_metrics(training, {"step": step, "loss": 1.0, "cpu_seconds": seconds / 2})
    return training


@pytest.fixture
def table(tmp_path):
    """Four evaluate runs: as it is, searched, trained, and the control of the trained one."""
    sketches = {"base": 0.4, "searched": 0.6, "trained": 0.7, "control": 0.4}
    runs = {}
    for seed, (name, share) in enumerate(sketches.items()):
        number = 4 if name == "searched" else 1
        sketch = Sketch(samples=2, seed=seed, accuracy=share, num_candidates=number, flops=1e6)
        runs[name] = write_runs(tmp_path, name, sketch)
    for name, seconds in (("trained", 30.0), ("control", 20.0)):
        training = trained_run(tmp_path, name, tmp_path / "base", seconds)
        file = tmp_path / name / "config.yaml"
        config = read_yaml(file) | {"generator": {"options": {"showo": str(training / "showo")}}}
        file.write_text(dump_yaml(config))
    return runs


def test_what_a_run_was_made_from_is_found_through_what_configs_name(table, tmp_path):
    names = [folder.name for folder in made_from(tmp_path / "trained")]
    assert names == ["trained-train", "trained-pairs", "base"]
    assert cpu_seconds(tmp_path / "trained-train") == 30
    assert made_from(tmp_path / "base") == [] and made_from(table["trained"])[0].name == "trained"


def test_a_row_has_its_gain_its_control_and_what_its_training_took(table, tmp_path):
    write_report(list(table.values()), tmp_path / "out", controls=[(table["trained"], table["control"])])
    found = json.loads((tmp_path / "out/table.json").read_text())
    rows = dict(zip(table, found["rows"]))
    assert rows["base"]["minus_first"] is None and rows["base"]["cpu_seconds"] == {"training": 0, "making": 0}
    assert rows["trained"]["control"] == "D" and rows["searched"]["control"] is None
    both = {(c["base"], c["run"]): c["differences"][-1]["estimate"] for c in found["comparisons"]}
    assert rows["trained"]["minus_control"]["estimate"] == both["D", "C"]
    assert rows["trained"]["minus_first"]["estimate"] == both["A", "C"]
    assert rows["trained"]["cpu_seconds"]["training"] == 30 and rows["control"]["cpu_seconds"]["training"] == 20
    assert rows["trained"]["cpu_seconds"]["making"] > 0
    page = (tmp_path / "out/index.html").read_text()
    assert "Minus its control" in page and page.count("data:image/svg+xml") == 1
    assert (tmp_path / "out/cost.svg").is_file()


def test_training_is_spread_over_the_images_in_units_of_an_image_without_a_search(table, tmp_path):
    write_report(list(table.values()), tmp_path / "out")
    row = json.loads((tmp_path / "out/table.json").read_text())["rows"][2]
    took = row["cpu_seconds"]["training"] + row["cpu_seconds"]["making"]
    assert row["cost"]["training"] == pytest.approx(took / cpu_seconds(tmp_path / "base"))  # as many images


def test_two_runs_need_no_table_of_methods(table, tmp_path):
    write_report(list(table.values())[:2], tmp_path / "out")
    assert json.loads((tmp_path / "out/table.json").read_text())["rows"] == []
    assert not (tmp_path / "out/cost.svg").exists()


def test_a_control_that_is_not_shown_is_refused(table, tmp_path):
    with pytest.raises(ValueError, match=r"controls: .*control-verdicts is not among `runs`"):
        write_report([table["base"], table["trained"]], controls=[(table["trained"], table["control"])])


def test_many_runs_are_lines_of_one_table_and_have_no_card_each(table, tmp_path):
    found = [*table.values(), *(write_runs(tmp_path, f"more-{n}", Sketch(seed=10 + n)) for n in range(3))]
    write_report(found, tmp_path / "out", num_cards=2, num_closeups=0)
    told, page = (tmp_path / "out/table.md").read_text(), (tmp_path / "out/index.html").read_text()
    assert "| run | single_object |" in told and "| task | A " not in told
    assert "7 runs compared" in page and 'class="panel head' not in page
