"""Images that no generator means, NaN or black, fail their unit with a reason; the ledger's rules take it up again."""

from pathlib import Path

import pytest

from genloop.job import run_command
from genloop.ledger import read_rows
from genloop.reading import read_json
from jobs import generate

OWN = "generator.options.tokenizer_class=tests.worlds.broken_decoder"
WORDS = ["tiny", "limit=2", "unit_size=1", "images_per_prompt=1", "sampling.steps=2", "max_attempts=2"]


@pytest.mark.parametrize("images", ["folder", "shards"])
@pytest.mark.parametrize("kind, reason", [("Overflows", "NaN"), ("Black", "black")])
def test_a_broken_image_fails_its_unit_with_the_reason(tmp_path: Path, kind: str, reason: str, images: str) -> None:
    with pytest.raises(SystemExit):
        run_command(generate, [*WORDS, f"format={images}", f"{OWN}:{kind}", f"out={tmp_path / 'run'}"])
    record = read_json(tmp_path / "run" / "failed" / "00000.json")
    assert record["attempts"] == 2 and reason in str(record) and "prompt 0" in str(record)
    assert not list((tmp_path / "run").glob("rows/*.jsonl")) and not list((tmp_path / "run").glob("shards/*.tar"))


def test_black_images_may_be_meant(tmp_path: Path) -> None:
    words = [*WORDS, f"{OWN}:Black", f"out={tmp_path / 'run'}"]
    with pytest.raises(SystemExit):
        run_command(generate, words)
    assert run_command(generate, [*words, "refuse_black=false", "retry_failed=true"]) == 0
    assert len(list(read_rows(tmp_path / "run"))) == 2 and not list((tmp_path / "run" / "failed").iterdir())
