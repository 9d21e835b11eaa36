"""What is said of workers that left no traceback: how they ended, and what their agent wrote."""

import pytest

from launch.watch.worklog import explain


@pytest.mark.parametrize(("code", "words"), [(-9, "SIGKILL"), (-40, "signal 40"), (3, "exit code 3")])
def test_every_way_to_end_has_words(tmp_path, code, words):
    (tmp_path / "torchrun-1.log").write_text("the agent of the second machine\n")
    said = explain(tmp_path, {}, 0.0, code, None)
    assert words in said and "the agent of the second machine" in said
