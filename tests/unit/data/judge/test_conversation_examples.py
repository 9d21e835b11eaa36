"""Published conversations become examples as those of a run do: labelled by their answers, counted, or refused."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genloop.checkpoint import verify_folder
from genloop.data.image_reader import as_png, decode_image, read_image
from genloop.data.judge.conversation_examples import WORDING, WORDS, read_labelled
from genloop.data.judge.conversations import Conversation
from genloop.data.judge.dataset import read_judge_set
from genloop.data.judge.examples import UNKNOWN_STEP, from_sample
from genloop.data.shards import Shards
from genloop.job import run_command
from genloop.rewards.build import build_judge, check_judge
from genloop.rewards.questions import Questions
from genloop.rewards.settings import JudgeSettings
from genloop.training.objectives.judge import batches
from genloop.training.objectives.judge.data import JudgeData
from genloop.training.objectives.judge.settings import BatchSettings
from jobs import build_judge_data, train_judge, verify
from tests.runs import ROOT, contents, refusal, start
from tests.worlds.conversation_files import IN_WORDS, UNKNOWN, asked, draw, entry, published, sentences
from tests.worlds.judge_data import SCENES, objective

STRANGE = [entry("a.png", IN_WORDS), entry("b.png", UNKNOWN), entry("c.png", IN_WORDS, ("And now?", "no"))]
WORDS_ONLY = ["val_share=0.4", "conversations_per_unit=5"]
NUM_SENTENCES = 6


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("published")
    return folder, published(folder, num_sentences=NUM_SENTENCES, more=STRANGE)


@pytest.fixture(scope="module")
def built(files, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("built") / "run"
    assert run_command(build_judge_data, [*files[1], *WORDS_ONLY, f"out={out}"]) == 0
    return out


def examples(run: Path):
    for split in ("train", "val"):
        for sample in Shards(run / "shards" / split):
            yield split, from_sample(sample), sample.fields["png"]


def read(folder: Path, *entries):
    (folder / "it.json").write_text(json.dumps(entries))
    return read_labelled(folder / "it.json", folder, Questions().recognize)


# --- reading ---------------------------------------------------------------------------------------------------------


def test_answers_become_labels_of_what_the_wording_asks(tmp_path):
    found = read(
        tmp_path,
        entry("a", (asked("outcome", "a red star"), "yes")),
        entry("b", (asked("clarity", "two blue moons"), "Yes."), (asked("potential"), "no")),
        entry("c", (asked("dpo_reward", "a dog. A cat"), "No")),
        entry("d", (asked("clarity", "a star"), "no"), (asked("clarity", "a moon").removeprefix("<image>"), "yes")),
    )
    made = [one for said in found.conversations for one in said.examples]
    assert [(one.prompt.text, dict(one.questions), one.moment) for one in made] == [
        ("a red star", {"outcome": 1.0}, "final"),
        ("two blue moons", {"clarity": 1.0, "potential": 0.0}, "preview"),
        ("a dog. A cat", {"outcome": 0.0}, "final"),
        ("a star", {"clarity": 0.0}, "preview"),
    ]
    assert [one.prompt.index for one in made] == [0, 1, 2, 3] and {one.source for one in made} == {"conversations"}
    assert found.answers == {WORDS: 0, WORDING: 1}  # the second question of d has no image, as none of the released has


def test_what_gives_no_label_is_counted(tmp_path):
    found = read(
        tmp_path,
        entry("a", IN_WORDS),
        entry("b", UNKNOWN, ("And now?", "A star.")),
        entry("c", (asked("outcome", "a star"), "yes"), ("Why?", "It shines."), ("Nice?", "no")),
        entry("d", ("<image>", "yes"), (asked("potential"), "yes")),  # about which prompt?
        entry("e", (asked("outcome", "a star"), "yes, mostly")),
    )
    assert [one.said.key for one in found.conversations] == ["c"]
    assert found.answers == {WORDS: 4, WORDING: 4} and found.left_out == {WORDS: 2, WORDING: 2}
    assert found.plain()["conversations"] == 5 == found.plain()["used"] + sum(found.left_out.values())
    about = found.about()["Published conversations"]
    assert "- conversations left out, asked with unknown wording: 2" in about and "- outcome: 1 labels" in about


def test_a_file_without_any_label_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"it\.json .*\(1 answered .*2 asked") as it:
        read(tmp_path, entry("a", IN_WORDS), entry("b", UNKNOWN), entry("c", UNKNOWN))
    assert "\n" not in str(it.value)


# --- the job ---------------------------------------------------------------------------------------------------------


def test_every_answer_of_yes_or_no_is_a_label_under_its_image(files, built):
    found = list(examples(built))
    assert len(found) == 4 * NUM_SENTENCES
    entries = json.loads((files[0] / "orm.json").read_text())
    for _, example, png in found:
        data = (files[0] / "images" / entries[example.prompt.index]["image"]).read_bytes()
        assert (png == data) == data.startswith(b"\x89PNG") and (decode_image(png) == decode_image(data)).all()
        assert png.startswith(b"\x89PNG")
    labels = Counter((question, label) for _, one, _ in found for question, label in one.questions.items())
    half = NUM_SENTENCES / 2
    assert labels == {
        **{(question, label): NUM_SENTENCES for question in ("outcome", "clarity") for label in (0.0, 1.0)},
        **{("potential", label): half for label in (0.0, 1.0)},
    }
    assert {(one.step, one.num_steps, one.is_final) for _, one, _ in found} == {(0, 0, True), (UNKNOWN_STEP, 0, False)}


def test_sentences_are_on_one_side_and_pairs_are_of_finished_images(built):
    sides: dict[str, set[str]] = {}
    for split, example, _ in examples(built):
        sides.setdefault(example.prompt.text, set()).add(split)
    assert {len(side) for side in sides.values()} == {1} and set.union(*sides.values()) == {"train", "val"}
    pairs = [json.loads(line) for line in (built / "pairs.jsonl").read_text().splitlines()]
    assert len(pairs) == NUM_SENTENCES and {(pair["question"], pair["step"]) for pair in pairs} == {("outcome", 0)}
    found = {example.key: example for _, example, _ in examples(built)}
    assert all(found[pair["better"]].questions["outcome"] == 1 for pair in pairs)


def test_the_datasheet_says_what_was_used_and_what_was_not(built):
    summary = json.loads((built / "summary.json").read_text())
    assert summary["conversations"] == {
        "conversations": 4 * NUM_SENTENCES + 3,
        "used": 4 * NUM_SENTENCES,
        "labels": {"outcome": 2 * NUM_SENTENCES, "clarity": 2 * NUM_SENTENCES, "potential": NUM_SENTENCES},
        "left_out": {WORDS: 2, WORDING: 1},
        "answers_left_out": {WORDS: 2, WORDING: 2},
    }
    by_step = [summary[split]["by_step"] for split in ("train", "val")]
    assert all(set(steps["clarity (conversations)"]) == {"preview"} for steps in by_step)
    assert sum(steps["outcome (conversations)"]["final"]["n"] for steps in by_step) == 2 * NUM_SENTENCES
    text = (built / "datasheet.md").read_text()
    assert "- conversations left out, answered in words: 2" in text and "| question | final | preview |" in text


def test_any_number_of_workers_gives_the_same_bytes_that_can_be_verified(files, built, tmp_path):
    words = [*files[1], *WORDS_ONLY, f"out={tmp_path / 'run'}"]
    workers = [start("build_judge_data", *words, rank=rank, world_size=2) for rank in range(2)]
    said = [worker.communicate() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    for name in ("rows", "shards"):
        assert contents(tmp_path / "run", [name]) == contents(built, [name])
    for name in ("pairs.jsonl", "summary.json", "datasheet.md"):
        assert (tmp_path / "run" / name).read_bytes() == (built / name).read_bytes()
    assert run_command(verify, ["tiny", f"run={tmp_path / 'run'}", f"out={tmp_path / 'verify'}"]) == 0


def test_scenes_beside_conversations_are_what_they_are_alone(files, tmp_path):
    assert run_command(build_judge_data, ["tiny", *files[1], f"out={tmp_path}"]) == 0
    shards = contents(tmp_path, ["shards"])
    scenes = {f"shards/{path}": digest for path, digest in contents(SCENES, ["train", "val"]).items()}
    assert scenes.items() < shards.items()
    sources = Counter(example.source for _, example, _ in examples(tmp_path))
    assert sources["conversations"] == 4 * NUM_SENTENCES and sources["scenes"] > 0


def test_an_image_that_cannot_be_read_is_named_and_the_run_goes_on_when_it_can(tmp_path, capsys):
    words = [*published(tmp_path, num_sentences=3), *WORDS_ONLY, f"out={tmp_path / 'run'}"]
    image = tmp_path / "images/1/1.jpg"
    whole = image.read_bytes()
    image.write_bytes(bytes(len(whole)))
    with pytest.raises(SystemExit):
        run_command(build_judge_data, words)
    error = capsys.readouterr().err
    assert "not a PNG, JPEG or WebP image" in error and "images/1/1.jpg of conversation 1/1.jpg" in error
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "run/shards").rglob("*.tar")}
    image.write_bytes(whole)
    assert kept and run_command(build_judge_data, [*words, "retry_failed=true"]) == 0
    assert len(list(examples(tmp_path / "run"))) == 12
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_other_images_of_the_same_names_are_another_run(tmp_path, capsys):
    words = [*published(tmp_path, num_sentences=2), f"out={tmp_path / 'run'}"]
    assert run_command(build_judge_data, words) == 0
    Image.fromarray(np.zeros((99, 99, 3), np.uint8)).save(tmp_path / "images/0/0.png")
    assert run_command(build_judge_data, words) == 2
    assert "another content of `conversation_images`" in capsys.readouterr().err


def test_bad_conversations_are_refused_before_anything_is_written(files, tmp_path, capsys):
    def error(*words: str) -> str:
        return refusal(build_judge_data, [*files[1], f"out={tmp_path / 'run'}", *words], tmp_path, capsys)

    (tmp_path / "torn.json").write_text('[{"image": "a')
    (tmp_path / "empty.json").write_text("[]")
    (tmp_path / "mine.yaml").write_text('outcome: "<image> {prompt} : done ?"\n')
    (tmp_path / "gone.json").write_text(json.dumps([entry("no.png", (asked("outcome", "a star"), "yes"))]))
    assert "torn.json" in error(f"conversations={tmp_path / 'torn.json'}")
    assert "a JSON list" in error(f"conversations={tmp_path / 'empty.json'}")
    assert "no such file" in error(f"conversations={tmp_path / 'nowhere.json'}")
    missing = error(f"conversations={tmp_path / 'gone.json'}")
    assert "conversation_images: 1 of 1 images are missing" in missing and "no.png" in missing
    assert "conversation_images: needs" in error("conversation_images=null")
    assert "conversation_images: there" in error("conversations=null")
    assert "in `questions`" in error(f"questions={tmp_path / 'mine.yaml'}")
    bare = refusal(build_judge_data, [f"out={tmp_path / 'run'}"], tmp_path, capsys)
    assert "there is nothing to make examples from" in bare


@pytest.mark.parametrize("name", ["sixteen bits.png", "turned.png", "turned.jpg"])
def test_a_judge_is_trained_on_the_pixels_that_it_is_shown(tmp_path, name):
    path, camera = tmp_path / name, Image.Exif()
    camera[0x0112] = 6  # to be turned by 90 degrees clockwise
    gray = np.arange(12 * 24, dtype=np.uint16).reshape(12, 24) * 200
    if name.startswith("turned"):
        Image.fromarray((gray >> 8).astype(np.uint8)).convert("RGB").save(path, exif=camera)
    else:
        Image.fromarray(gray).save(path)
    shown = read_image(path)
    assert shown.shape == ((24, 12, 3) if name.startswith("turned") else (12, 24, 3))
    assert (decode_image(as_png(path.read_bytes())) == shown).all()
    said = Conversation(name, path, (("", ""),))
    assert (batches.read_image(JudgeData((), (said,)), (-1, 0)) == shown).all()


# --- training --------------------------------------------------------------------------------------------------------


def test_finished_images_of_a_sentence_are_ranked_and_previews_at_unknown_steps_are_not(built, tmp_path):
    data = read_judge_set(built / "shards/train")
    few, many = (
        objective(tmp_path, data, mix=BatchSettings(groups=4, paths=3, previews=previews, scenes=0)).plans
        for previews in (0, 2)
    )
    moments = Counter()
    for item in (item for step in range(12) for item in many(step).items):
        members = [data.examples[e] for e in item.examples]
        assert len({member.prompt.text for member in members}) == 1
        (moment,) = {member.moment for member in members}
        assert len(many.pairs(item)[0]) == (1 if moment == "final" else 0)
        moments[moment] += 1
    assert min(moments["final"], moments["preview"]) > 10
    assert all(len(few.pairs(item)[0]) == 1 for step in range(12) for item in few(step).items)


def test_published_conversations_become_a_judge_that_a_search_loads(built, tmp_path):
    words = ["tiny", f"out={tmp_path / 'run'}", f"data.said.shards={built / 'shards'}", "batch.groups=2"]
    assert run_command(train_judge, [*words, "batch.paths=3", "batch.scenes=0", "train.num_steps=6"]) == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    val = Counter(q for split, one, _ in examples(built) if split == "val" for q in one.questions)
    assert val and {question: summary["overall"][question]["n"] for question in val} == val
    assert list(summary["by_step"]["outcome"]) == ["final"] and len(summary["by_step"]["clarity"]) == 1
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert {"loss_outcome", "loss_clarity", "loss_potential"} <= set().union(*rows)
    verify_folder(tmp_path / "run/judge")
    settings = JudgeSettings(kind="llava", options={"checkpoint": str(tmp_path / "run/judge")})
    check_judge(settings, Path, ["outcome", "clarity", "potential"])
    draw(tmp_path / "image.png", sentences(1)[0], 0)
    pixels = torch.from_numpy(decode_image((tmp_path / "image.png").read_bytes()).copy()).permute(2, 0, 1)[None] / 255
    p_yes = build_judge(settings, Path).p_yes("outcome", sentences(1), pixels)
    assert 0 < float(p_yes) < 1
