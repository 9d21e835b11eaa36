"""What a run was made from, as its config names it."""

from pathlib import Path

import pytest

from genloop.config import dump_yaml
from genloop.runs.lineage import made_from


@pytest.mark.parametrize("text", ["x" * 300, "a very long question, " * 100, "a\0b", "../" * 2000])
def test_a_text_that_can_be_no_path_names_no_run(tmp_path: Path, text: str) -> None:
    for name in ("source", "run"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").touch()
    config = {"question": text, "images": str(tmp_path / "source/images")}
    (tmp_path / "source/images").mkdir()
    (tmp_path / "run/config.yaml").write_text(dump_yaml(config))
    assert made_from(tmp_path / "run") == [tmp_path / "source"]
