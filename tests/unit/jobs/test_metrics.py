"""The job `metrics`: same numbers from any workers and after kills, references of every kind, what is refused."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from genloop.data.images import encode_png
from genloop.job import run_command
from genloop.ledger import read_rows
from genloop.metrics.features import PixelExtractor, PixelOptions
from genloop.metrics.makers import METRICS, NEEDS, metric_maker
from genloop.metrics.set_distances import fid, grouped_moments
from jobs import metrics
from tests.runs import ROOT, contents, is_laid_out, refusal, start, wait_until
from tests.worlds.counting_judges import images_of
from tests.worlds.image_folders import small_set, write_images
from tests.worlds.tiny_clip import write_transformers_folder
from tests.worlds.tiny_llava import known_words, tiny_folder

DISTANCES = [f"metrics.{name}.features=pixels" for name in ("fid", "kid", "cmmd")]
JUDGED = ["metrics.vqa_score.template=null"]
COMPARED = ("rows", "features", "statistics")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("metrics") / "images", small_set(), samples=3)


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """Twenty images of one folder, of noise."""
    folder = tmp_path_factory.mktemp("metrics") / "reference"
    folder.mkdir()
    for number in range(20):
        noise = np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        (folder / f"{number}.png").write_bytes(encode_png(noise))
    return folder


def run(out: Path, *words: str) -> dict:
    assert run_command(metrics, [*words, f"out={out}", "unit_size=7", "device=cpu"]) == 0
    return json.loads((out / "summary.json").read_text())


def values(summary: dict) -> dict[str, float]:
    return {line["name"]: line["value"] for lines in summary["metrics"].values() for line in lines}


def test_distances_between_two_folders_are_those_of_their_features(images, reference, tmp_path, capsys):
    summary = run(tmp_path / "run", f"images={images}", f"reference={reference}", *DISTANCES)
    from genloop.data.image_reader import read_image
    from genloop.data.pictures import find_images

    extractor = PixelExtractor(PixelOptions())
    sides = []
    for folder, clusters in ((images, np.arange(36) // 3), (reference, np.arange(20))):
        rows = extractor.embed([read_image(folder / picture.image) for picture in find_images(folder)])
        sides.append(grouped_moments([(rows, clusters)]))
    expected = fid(*sides)
    found = values(summary)
    assert found["fid"] == pytest.approx(expected.value, rel=1e-6)
    assert found["fid without bias"] == pytest.approx(expected.value - expected.bias, rel=1e-5)
    assert set(found) == {"fid", "fid without bias", "kid", "cmmd", "cmmd without bias"}
    assert (summary["images"], summary["prompts"], summary["reference_images"]) == (36, 12, 20)
    table = (tmp_path / "run" / "table.md").read_text()
    assert is_laid_out(capsys.readouterr().out, table)
    assert "against 20 images; fewer images than the 64 features: compare at equal n only" in table


def test_any_kind_of_reference_gives_the_same_distances(images, reference, tmp_path):
    words = [f"images={images}", *DISTANCES]
    direct = run(tmp_path / "direct", *words, f"reference={reference}")
    kept = tmp_path / "kept"
    run(kept, f"images={reference}", "metrics.statistics.features=pixels")
    by_run = run(tmp_path / "by_run", *words, f"reference={kept}")
    file = run(tmp_path / "by_file", *words, f"reference={kept / 'statistics' / 'statistics.npz'}")
    for found in (by_run, file):
        assert values(found) == values(direct)
    moments = tmp_path / "moments.npz"
    with np.load(kept / "statistics" / "statistics.npz") as found:
        np.savez(moments, mu=found["mu"], sigma=found["sigma"])
    foreign = run(tmp_path / "foreign", f"images={images}", DISTANCES[0], f"reference={moments}")
    assert values(foreign)["fid"] == pytest.approx(values(direct)["fid"], rel=1e-6)
    assert "the bias that the reference brings is not known" in foreign["metrics"]["fid"][0]["note"]


def test_any_number_of_workers_and_kills_give_the_same_bytes(images, reference, tmp_path):
    words = [f"images={images}", f"reference={reference}", *DISTANCES, *JUDGED]
    run(tmp_path / "quiet", *words)
    out = tmp_path / "killed"
    all_words = [*words, f"out={out}", "unit_size=7", "device=cpu"]
    worker = start("metrics", *all_words)
    wait_until(lambda: list(out.glob("rows/*.jsonl")) or worker.poll() is not None)
    worker.kill()
    worker.communicate()
    workers = [start("metrics", *all_words, rank=rank, world_size=2) for rank in range(2)]
    assert [w.wait() for w in workers] == [0, 0], [w.communicate()[1][-500:] for w in workers]
    assert contents(out, COMPARED) == contents(tmp_path / "quiet", COMPARED)
    for name in ("summary.json", "table.md"):
        assert (out / name).read_bytes() == (tmp_path / "quiet" / name).read_bytes()


def test_the_oracle_as_vqa_score_is_the_share_of_correct_images(images, tmp_path):
    summary = run(tmp_path / "run", f"images={images}", *JUDGED)
    rows = list(read_rows(tmp_path / "run"))
    assert [row["scores"]["vqa_score"] for row in rows] == [
        float(not (row["prompt_index"] % 2 and row["sample"] % 2)) for row in rows
    ]
    (line,) = summary["metrics"]["vqa_score"]
    assert line["value"] == pytest.approx(30 / 36) and line["low"] < line["value"] < line["high"] and line["n"] == 36


def test_a_free_question_goes_to_a_judge_that_takes_any(images, tmp_path):
    words = [word for prompt in small_set() for word in prompt.text.split()]
    folder = tiny_folder(tmp_path / "judge", words=[*known_words(), *words, "Is", "this", '"', "?"])
    judge = ["judge.kind=llava", f"judge.options.checkpoint={folder}"]
    template = 'metrics.vqa_score.template=Is this "{prompt}" ?'
    summary = run(tmp_path / "run", f"images={images}", template, *judge, "limit=8")
    rows = list(read_rows(tmp_path / "run"))
    assert summary["metrics"]["vqa_score"][0]["n"] == 8
    assert len({row["scores"]["vqa_score"] for row in rows}) == 8
    cut = run(tmp_path / "cut", f"images={images}", template, *judge, "limit=3")
    assert cut["images"] == 3
    assert list(read_rows(tmp_path / "cut")) == rows[:3]  # in other company


def test_geneval_2_is_measured_from_a_file_of_the_user(tmp_path):
    prompts = small_set()[:3]
    rows = [
        {
            "prompt": p.text,
            "atom_count": 2,
            "vqa_list": [["Is this a star ?", "Yes"], ["How many ?", "two"]],
            "skills": ["object", "count"],
        }
        for p in prompts
    ]
    (tmp_path / "geneval2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for number, image in enumerate((images_of(prompts).permute(0, 2, 3, 1) * 255).to(torch.uint8).numpy()):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / f"{number:05d}.png").write_bytes(encode_png(image))
    words = ["Is", "this", "a", "star", "?", "How", "many", "two", "Answer", "in", "one", "word", "."]
    folder = tiny_folder(tmp_path / "judge", words=[*known_words(), *words])
    file = tmp_path / "geneval2.jsonl"
    summary = run(
        tmp_path / "run",
        *(f"images={tmp_path / 'images'}", f"prompts={file}", f"metrics.geneval2.file={file}"),
        *("judge.kind=llava", f"judge.options.checkpoint={folder}"),
    )
    found = values(summary)
    assert set(found) == {f"geneval2 {what}" for what in ("AM", "GM", "AM count", "AM object", "GM 2 atoms")}
    assert 0 < found["geneval2 GM"] == found["geneval2 GM 2 atoms"] <= found["geneval2 AM"] < 1


def test_clip_measures_texts_and_sets(images, reference, tmp_path):
    folder = write_transformers_folder(tmp_path / "clip", seed=5)
    options = f"checkpoint: {folder}, backend: transformers"
    words = [f"metrics.clip_score={{{options}}}", f"metrics.cmmd.features={{kind: clip, options: {{{options}}}}}"]
    summary = run(tmp_path / "run", f"images={images}", f"reference={reference}", *words)
    rows = [row for row in read_rows(tmp_path / "run") if "scores" in row]
    assert len({row["scores"]["clip_score"] for row in rows}) > 20
    assert summary["metrics"]["clip_score"][0]["n"] == 36 and values(summary)["cmmd"] > 0


def test_features_that_were_made_before_are_found_again(images, tmp_path, monkeypatch):
    words = [f"images={images}", "metrics.statistics.features=pixels", f"cache={tmp_path / 'cache'}"]
    run(tmp_path / "a", *words)
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").iterdir()}
    run(tmp_path / "b", *words)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").iterdir()} == files and len(files) == 6
    assert contents(tmp_path / "a", COMPARED) == contents(tmp_path / "b", COMPARED)
    other = "metrics.statistics.features={kind: pixels, options: {size: 8}}"
    run(tmp_path / "c", words[0], words[2], other)
    assert len(list((tmp_path / "cache").iterdir())) == 12


def test_images_that_do_not_decode_are_left_out_and_listed(images, reference, tmp_path):
    broken = shutil.copytree(images, tmp_path / "images")
    (broken / "00001/samples/0001.png").write_bytes(b"no image")
    summary = run(tmp_path / "run", f"images={broken}", f"reference={reference}", *DISTANCES, *JUDGED)
    assert summary["unreadable"] == ["00001/samples/0001.png"]
    assert {line["n"] for line in (summary["metrics"][name][0] for name in summary["metrics"])} == {35}
    row = next(row for row in read_rows(tmp_path / "run") if row["image"] == "00001/samples/0001.png")
    assert row["problem"] == "not a PNG, JPEG or WebP image" and row["scores"] == {}
    assert "1 images could not be read and were left out" in (tmp_path / "run/table.md").read_text()


def test_a_unit_without_any_readable_image_takes_nothing_from_the_others(reference, tmp_path):
    broken = shutil.copytree(reference, tmp_path / "images")
    for number in range(7, 14):  # the second unit
        (broken / f"{number}.png").write_bytes(b"no image")
    left = shutil.copytree(broken, tmp_path / "left")
    for number in range(7, 14):
        (left / f"{number}.png").unlink()
    found, expected = (
        run(tmp_path / f"run-{folder.name}", f"images={folder}", f"reference={reference}", DISTANCES[0])
        for folder in (broken, left)
    )
    assert len(found["unreadable"]) == 7 and found["metrics"]["fid"][0]["n"] == 13
    assert values(found)["fid"] == pytest.approx(values(expected)["fid"], rel=1e-6)


def test_a_folder_may_be_compared_with_itself_in_one_unit(reference, tmp_path):
    words = [f"images={reference}", f"reference={reference}", *DISTANCES, "limit=3"]
    found = values(run(tmp_path / "run", *words))
    assert found["fid"] == pytest.approx(0, abs=1e-9) and found["cmmd"] == pytest.approx(0, abs=1e-9)
    assert found["kid"] is None  # of three images nobody can say


def test_prompts_numbered_in_tens_have_intervals_as_others_do(images, reference, tmp_path):
    tens = [replace(prompt, index=10 * prompt.index) for prompt in small_set()]
    sides = [images, write_images(tmp_path / "images", tens, samples=3)]
    one, other = (
        run(tmp_path / f"run-{number}", f"images={folder}", f"reference={reference}", DISTANCES[0])
        for number, folder in enumerate(sides)
    )
    assert other["metrics"]["fid"][0]["low"] is not None and one["prompts"] == other["prompts"] == 12


def test_one_prompt_has_a_mean_but_no_interval(images, tmp_path):
    summary = run(tmp_path / "run", f"images={images}", *JUDGED, "limit=3")
    (line,) = summary["metrics"]["vqa_score"]
    assert (line["value"], line["low"], line["high"], line["n"]) == (1.0, None, None, 3)
    assert "1 prompts" in line["note"]


class Halves:
    """Features of a user's own: the mean of each half of an image."""

    from genloop.config import Settings as Options

    @classmethod
    def check(cls, options, resolve):
        """Nothing."""

    @classmethod
    def inputs(cls, options, resolve):
        return {}

    @classmethod
    def load(cls, options, resolve, device):
        return cls()

    def embed(self, images):
        halves = [[image[:, : image.shape[1] // 2].mean(), image[:, image.shape[1] // 2 :].mean()] for image in images]
        return np.array(halves, dtype=np.float32)


def test_features_may_be_a_users_own(images, reference, tmp_path):
    own = "metrics.fid.features=tests.unit.jobs.test_metrics:Halves"
    found = run(tmp_path / "run", f"images={images}", f"reference={reference}", own)
    assert values(found)["fid"] > 100


def test_the_metric_of_the_documents_runs_as_it_stands(images, tmp_path, monkeypatch):
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n# geneval/sharpness.py\n(.*?)```", text, re.S)
    (tmp_path / "own_metrics.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own.yaml").write_text('metrics: {"own_metrics:Sharpness": {}}')
    summary = run(tmp_path / "run", str(tmp_path / "own.yaml"), f"images={images}")
    (line,) = summary["metrics"]["own_metrics:Sharpness"]
    assert line["low"] < line["value"] < line["high"] and line["n"] == 36


def test_the_metrics_and_their_needs_are_documented():
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    documented = {
        name: set(needs.split(", ")) - {""} for name, needs in re.findall(r"^\| `(\w+)` \| .+ \| ?(.*) \|$", text, re.M)
    }
    assert documented == {name: set(metric_maker(name).needs) for name in METRICS}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "metrics: needs a value"),
        (["metrics.fit.features=pixels"], "metrics: unknown metric 'fit'; did you mean 'fid'?"),
        (
            ["metrics.fid.features=pixel"],
            "metrics.fid.features.kind: unknown kind of features 'pixel'; did you mean 'pixels'?",
        ),
        (["metrics.fid.features=nobody:Nothing"], "'nobody:Nothing' cannot be imported"),
        (["metrics.fid.sets=pixels"], "metrics.fid.features: needs a value"),
        (["metrics.kid.features=pixels"], "reference: kid need a folder of images, or statistics"),
        (["metrics.vqa_score.template=a"], "metrics.vqa_score.template: does not mention {prompt}, found 'a'"),
        (["metrics.vqa_score.template=a {prompt}"], "judge 'shapes_oracle' does not take questions of any wording"),
        (["metrics.vqa_score={}", "reference=REF"], "reference: vqa_score do not compare with one; leave it out"),
        (["metrics.vqa_score={}", "images=REF"], "REF/0.png: has no prompt, vqa_score need it; give `prompts`"),
        (["metrics.vqa_score={}", "images=REF", "prompts=TEXT"], "judge 'shapes_oracle' needs GenEval metadata"),
        (["metrics.kid.features=pixels", "reference=MOMENTS"], "holds mu and sigma alone; kid needs the features"),
        (["metrics.kid.features=pixels", "reference=TEXT"], "prompts.txt: no such folder"),
        (["metrics.clip_score.checkpoint=REF"], "holds no open_clip_config.json"),
        (["metrics.fid.features=pixels", "reference=REF", "limit=1"], "images: fid need at least 2 images, found 1"),
        (["metrics.statistics.features=pixels", "limit=1"], "images: statistics need at least 2 images, found 1"),
    ],
)
def test_bad_input_is_refused_in_one_line_before_anything_is_written(images, reference, tmp_path, capsys, words, line):
    (tmp_path / "prompts.txt").write_text("a dog\n" * 20)
    np.savez(tmp_path / "moments.npz", mu=np.zeros(3), sigma=np.eye(3))
    places = {"REF": reference, "TEXT": tmp_path / "prompts.txt", "MOMENTS": tmp_path / "moments.npz"}
    for name, path in places.items():
        words = [word.replace(f"={name}", f"={path}") for word in words]
        line = line.replace(name, str(path))
    given = [f"images={images}", f"out={tmp_path / 'run'}", *words]
    assert line in refusal(metrics, given, tmp_path, capsys)


def test_statistics_of_other_features_are_refused(images, reference, tmp_path, capsys):
    run(tmp_path / "kept", f"images={reference}", "metrics.statistics.features=pixels")
    capsys.readouterr()
    for place in (tmp_path / "kept", tmp_path / "kept/statistics/statistics.npz"):
        words = [
            f"images={images}",
            f"out={tmp_path / 'run'}",
            f"reference={place}",
            "metrics.fid.features.kind=pixels",
        ]
        words.append("metrics.fid.features.options.seed=1")
        assert "statistics" in refusal(metrics, words, tmp_path, capsys)


def test_every_metric_says_what_it_needs():
    needs = {name: metric_maker(name).needs for name in METRICS}
    assert all(found <= set(NEEDS) for found in needs.values())
    assert needs["fid"] == {"reference"} and needs["geneval2"] == {"prompt", "judge"} and not needs["statistics"]


def test_images_that_would_be_measured_twice_or_in_part_are_refused(images, tmp_path, capsys):
    own = shutil.copytree(images, tmp_path / "run" / "images")
    words = [f"images={own}", *JUDGED, f"out={tmp_path / 'out'}"]
    shutil.copytree(own / "00000", own / "0")
    assert "0 and 00000 are the same number" in refusal(metrics, words, tmp_path, capsys)
    shutil.rmtree(own / "0")
    fingerprint = {"job": "generate", "keys": {}, "inputs": {}, "digest": ""}
    (tmp_path / "run" / "run.json").write_text(json.dumps(fingerprint))
    (tmp_path / "run" / "plan.json").write_text('{"units": 3, "items": 36}')
    assert "the run of generate around them is unfinished, 3 units to make" in refusal(metrics, words, tmp_path, capsys)


def test_a_class_that_the_judge_does_not_know_is_refused(images, tmp_path, capsys):
    own = shutil.copytree(images, tmp_path / "images")
    row = {"tag": "single_object", "include": [{"class": "dog", "count": 1}], "prompt": "a photo of a dog"}
    (own / "00000" / "metadata.jsonl").write_text(json.dumps(row))
    line = refusal(metrics, [f"images={own}", *JUDGED, f"out={tmp_path / 'out'}"], tmp_path, capsys)
    assert "'a photo of a dog' is about 'dog', unknown to judge 'shapes_oracle'" in line


def test_a_reference_may_hold_links_to_folders(images, reference, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "inner").symlink_to(reference)
    summary = run(tmp_path / "run", f"images={images}", f"reference={linked}", DISTANCES[0])
    assert summary["reference_images"] == 20
