"""Runs of `edit`: every mode of the tiny twin, rows, checks and inputs, and what is refused before any work."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genloop.job import run_command
from genloop.ledger import read_rows
from genloop.models.flux_edit.config import CONNECTOR
from genloop.report.generated.write import is_generated, write_generated
from genloop.sampling.flux_edit.requests import read_requests
from jobs import edit, verify
from tests.runs import contents, refusal, rows_text
from tests.unit.models.flux_edit.test_teed import write_teed

ROOT = Path(__file__).parents[3]
DATA, TINY = ROOT / "configs/data/flux_edit", ROOT / "ckpts/tiny/flux_edit"
SCENE, MASK = DATA / "scene.png", DATA / "mask.png"
ONE = ["tiny", "requests=null", "steps=2"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("edit") / "run"
    assert run_command(edit, ["tiny", f"out={out}"]) == 0
    return out


def test_every_mode_makes_its_images_and_says_what_they_were_made_from(tiny: Path) -> None:
    rows = {(row["prompt_index"], row["sample"]): row for row in read_rows(tiny)}
    assert sorted(rows) == [(0, 0), (0, 1), (1, 0), (2, 0), (3, 0), (4, 0)]
    asked = [json.loads(line) for line in (DATA / "requests.jsonl").read_text().splitlines()]
    for (index, _), row in rows.items():
        record = row["edit"]
        assert record["mode"] == asked[index]["mode"]
        with Image.open(tiny / row["image"]) as image:
            assert image.size == (record["width"], record["height"])
        assert all((tiny / path).is_file() for path in record["inputs"].values())
    assert {*rows[3, 0]["edit"]["checks"]} == {"similarity", "edge_f1", "depth_correlation"}
    assert {*rows[4, 0]["edit"]["inputs"]} == {"picture", "mask", "line"}
    outside = np.asarray(Image.open(MASK)) == 0
    drawn, given = (np.asarray(Image.open(path).convert("RGB")) for path in (tiny / rows[2, 0]["image"], SCENE))
    assert (drawn[outside] == given[outside]).all() and (drawn[~outside] != given[~outside]).any()
    assert run_command(verify, [f"run={tiny}", f"out={tiny.parent / 'verified'}"]) == 0


def test_only_a_line_feed_ends_a_request(tmp_path: Path) -> None:
    asked = {"mode": "variation", "input_image": str(SCENE), "prompt": "a red\u2028circle\x85"}
    (tmp_path / "work.jsonl").write_text(f"{json.dumps(asked, ensure_ascii=False)}\r\n" * 2, "utf-8")
    found = [request.prompt for request in read_requests(tmp_path / "work.jsonl", [])]
    assert found == [asked["prompt"]] * 2


def test_a_page_shows_what_was_given_beside_what_was_drawn(tiny: Path, tmp_path: Path) -> None:
    assert is_generated(tiny)
    page = write_generated(tiny, tmp_path / "page").read_text()
    assert all(f"given: {name}" in page for name in ("picture", "mask", "depth", "line", "focus"))


def test_images_do_not_depend_on_units_or_memory(tiny: Path, tmp_path: Path) -> None:
    assert run_command(edit, ["tiny", f"out={tmp_path / 'other'}", "unit_size=6", "memory=all", "slots=1"]) == 0
    found = contents(tiny, ("images", "inputs"))
    assert len(found) > 10 and found == contents(tmp_path / "other", ("images", "inputs"))
    assert rows_text(tiny) == rows_text(tmp_path / "other")


def test_what_is_encoded_already_changes_nothing_and_what_is_torn_is_encoded_anew(tiny: Path, tmp_path: Path) -> None:
    """A worker that was killed leaves conditions behind; the checksums of a unit named them only when it made them."""
    out = tmp_path / "run"
    shutil.copytree(tiny / "conditions", out / "conditions")
    torn, other, *_ = sorted((out / "conditions").iterdir())
    torn.write_bytes(torn.read_bytes()[:40])
    other.unlink()
    assert run_command(edit, ["tiny", f"out={out}"]) == 0
    everything = ("rows", "images", "inputs", "conditions", "checksums")
    assert contents(out, everything) == contents(tiny, everything)


def test_the_guidance_is_one_number_which_the_row_names(tiny: Path) -> None:
    """The released command line had 7.5, its page and its function 3.5, and no image said which."""
    assert {row["edit"]["guidance_scale"] for row in read_rows(tiny)} == {3.5} == {edit.Config(out=tiny).guidance_scale}
    assert "3.5" in (ROOT / "configs" / "edit" / "qwen2vl_flux.yaml").read_text()


def test_every_image_is_compared_with_its_picture(tiny: Path) -> None:
    assert all(-1 <= row["edit"]["checks"]["similarity"] <= 1 for row in read_rows(tiny))


def test_the_focus_is_shown_on_the_tokens_of_the_picture_that_it_is_on(tmp_path: Path) -> None:
    """A reference has a grid of its own; the focus is on it, not on the picture that is edited."""
    Image.new("RGB", (112, 56), "white").save(tmp_path / "wide.png")
    words = [*ONE, "mode=img2img", f"input_image={SCENE}", f"reference_image={tmp_path / 'wide.png'}", "image_tokens=8"]
    focus = ["center_x=0.25", "center_y=0.5", "radius=0.5"]
    assert run_command(edit, [*words, *focus, f"out={tmp_path / 'run'}"]) == 0
    (row,) = read_rows(tmp_path / "run")
    shown = np.asarray(Image.open(tmp_path / "run" / row["edit"]["inputs"]["focus"]))[..., 0]
    assert shown.shape == (56, 112)
    cells = shown.reshape(2, 28, 4, 28)
    assert (cells == cells[:, :1, :, :1]).all() and cells[0, 0, 0, 0] > cells[0, 0, 3, 0]


def test_the_best_of_several_is_the_judges_choice(tmp_path: Path) -> None:
    judge = "judge.kind=tests.worlds.brightness_judge:Brightness"
    words = [*ONE, f"input_image={SCENE}", "prompt=a lamp", "mode=img2img", judge]
    out = tmp_path / "run"
    assert run_command(edit, [*words, "search.strategy=best_of_n", "search.n=3", f"out={out}"]) == 0
    (row,) = read_rows(out)
    scores = [candidate["p_yes"]["outcome"] for candidate in row["candidates"]]
    assert len(set(scores)) == 3 and row["chosen"] == int(np.argmax(scores))


def test_the_conditions_are_encoded_once(tiny: Path, tmp_path: Path) -> None:
    assert len(list((tiny / "conditions").glob("*.safetensors"))) == 4  # two requests share theirs
    out = tmp_path / "run"
    assert run_command(edit, [*ONE, f"input_image={SCENE}", "image_count=2", f"out={out}"]) == 0
    assert len(list((out / "conditions").glob("*.safetensors"))) == 1


def test_a_mask_of_another_size_is_resized_with_its_picture(tmp_path: Path) -> None:
    Image.open(MASK).resize((48, 32)).save(tmp_path / "mask.png")
    words = [*ONE, "mode=inpaint", f"input_image={SCENE}", f"mask_image={tmp_path / 'mask.png'}"]
    assert run_command(edit, [*words, f"out={tmp_path / 'run'}"]) == 0
    (row,) = read_rows(tmp_path / "run")
    assert any(note.startswith("mask_image: 48x32") for note in row["edit"]["notes"])


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (["input_image=null"], "input_image:"),
        (["input_image=missing.png"], "input_image:"),
        (["mode=inpaint"], "mask_image:"),
        (["mode=controlnet"], "mode:"),
        (["mode=variatoin"], "mode:"),
        (["aspect_ratio=5:4"], "aspect_ratio:"),
        (["mode=img2img", "aspect_ratio=1:1"], "aspect_ratio:"),
        (["center_x=0.5", "center_y=0.5", "radius=0"], "radius:"),
        (["center_x=0.5"], "radius:"),
        (["center_x=0.5", "center_y=-1", "radius=0.5"], "center_y:"),
        (["mode=img2img", "center_x=0.5", "center_y=0.5", "radius=0.5"], "radius:"),
        ([f"mask_image={MASK}"], "mask_image:"),
        (["line_mode=true"], "line_mode:"),
        ([f"reference_image={SCENE}"], "reference_image:"),
        (["denoise_strength=0"], "denoise_strength:"),
        (["search.strategy=parm"], "search.strategy:"),
        (["checkpoint=null"], "checkpoint:"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_request_that_cannot_be_drawn_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most of these the released code ignored (a ratio, a reference), or failed on after it had loaded everything."""
    monkeypatch.delenv("CHECKPOINT_DIR", raising=False)
    given = [] if any(word.startswith("input_image") for word in words) else [f"input_image={SCENE}"]
    assert start in refusal(edit, [*ONE, *given, *words, f"out={tmp_path / 'run'}"], tmp_path, capsys)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("flux.gguf", b"GGUF", "gguf is not installed"),
        ("flux.gguf", b"something", "flux.gguf"),
        ("flux.bin", b"", "transformer:"),
        ("flux.safetensors", b"torn", "flux.safetensors"),
        ("gone.gguf", None, "gone.gguf"),
    ],
)
def test_a_transformer_of_ones_own_is_checked_before_any_work(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: bytes | None,
    what: str,
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)  # as if it were not installed
    if content is not None:
        (tmp_path / name).write_bytes(content)
    given = [*ONE, f"input_image={SCENE}", f"transformer={tmp_path / name}", f"out={tmp_path / 'run'}"]
    assert what in refusal(edit, given, tmp_path, capsys)


@pytest.mark.parametrize("word", ["quantise=int8", "lora=[flux.safetensors]"])
def test_nothing_is_added_to_weights_of_a_gguf_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.setattr(edit, "check_installed", lambda *_: None)  # as if gguf were installed
    (tmp_path / "flux.gguf").write_bytes(b"GGUF")
    (tmp_path / "flux.safetensors").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    words = [*ONE, f"input_image={SCENE}", "transformer=flux.gguf", word, f"out={tmp_path / 'run'}"]
    assert word.partition("=")[0] + ":" in refusal(edit, words, tmp_path, capsys)


@pytest.mark.parametrize("gone", [CONNECTOR, "flux/vae/config.json", "controlnet", "depth"])
def test_a_missing_component_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], gone: str) -> None:
    folder = shutil.copytree(TINY, tmp_path / "tiny")
    target = folder / gone
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    line = refusal(edit, ["tiny", f"checkpoint={folder}", f"out={tmp_path / 'run'}"], tmp_path, capsys)
    assert str(target.relative_to(folder)) in line


def test_anyline_draws_with_its_weights_and_is_refused_without_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genloop.sampling.flux_edit.prepare.ANYLINE_SIDE", 64)  # 1,280 takes seconds
    Image.open(SCENE).resize((64, 64)).save(tmp_path / "small.png")
    folder = shutil.copytree(TINY, tmp_path / "tiny")
    words = [*ONE, "mode=controlnet", "line_mode=true", "line=anyline", f"input_image={tmp_path / 'small.png'}"]
    words += [f"checkpoint={folder}", f"out={tmp_path / 'run'}"]
    assert "anyline/MTEED.pth" in refusal(edit, words, tmp_path, capsys)
    write_teed(folder / "anyline" / "MTEED.pth")
    assert run_command(edit, words) == 0
    (row,) = read_rows(tmp_path / "run")
    assert np.asarray(Image.open(tmp_path / "run" / row["edit"]["inputs"]["line"])).any()


def test_a_component_that_nothing_needs_may_be_missing(tmp_path: Path) -> None:
    folder = shutil.copytree(TINY, tmp_path / "tiny")
    for name in ("controlnet", "depth", "sam2", "flux/text_encoder_2"):
        shutil.rmtree(folder / name)
    words = [*ONE, f"input_image={SCENE}", f"checkpoint={folder}", f"out={tmp_path / 'run'}"]
    assert run_command(edit, words) == 0


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"mode": "inpaint"}', "mask_image"),
        ('{"mood": "variation"}', "mood"),
        ("[]", "object"),
        ('{"input_image": "missing.png"}', "missing.png"),
    ],
)
def test_a_line_of_a_work_list_is_refused_by_its_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, what: str
) -> None:
    (tmp_path / "work.jsonl").write_text('{"mode": "variation"}\n' + line + "\n")
    found = refusal(edit, ["tiny", f"requests={tmp_path / 'work.jsonl'}", f"out={tmp_path / 'run'}"], tmp_path, capsys)
    assert "work.jsonl:2" in found and what in found


def test_a_picture_that_is_too_small_or_no_picture_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (40, 9)).save(tmp_path / "small.png")
    (tmp_path / "text.png").write_text("no picture")
    for name in ("small.png", "text.png"):
        words = [*ONE, "mode=img2img", f"input_image={tmp_path / name}", f"out={tmp_path / 'run'}"]
        assert "input_image:" in refusal(edit, words, tmp_path, capsys)
