"""The loop as one pipeline, really run: killed in the middle of a training it goes on to the same weights."""

import hashlib
import signal

import pytest

from tests.runs import genloop, start_command, wait_until, workers_of

WORDS = [
    "pipeline",
    "iterative_dpo_tiny",
    "stages.rounds.stages.candidates.set.limit=12",
    "stages.rounds.stages.train.set.train.num_steps=6",
    "stages.rounds.stages.train.set.train.save_every=1",
    "--only",
    "train.1",
]


def weights(out) -> str:
    return hashlib.sha256((out / "train.1/showo/pytorch_model.safetensors").read_bytes()).hexdigest()


@pytest.mark.slow
def test_a_loop_that_was_killed_in_its_training_ends_with_the_same_weights(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = start_command(*WORDS, f"out={killed}")
    wait_until(lambda: list((killed / "train.1/checkpoints").glob("step-*")), seconds=600)
    command.send_signal(signal.SIGKILL)
    command.communicate(timeout=300)
    wait_until(lambda: workers_of(killed / "train.1") == [])
    done = genloop(*WORDS, f"out={killed}", timeout=900)
    assert done.returncode == 0 and done.stderr.count("done already") == 4, done.stderr
    assert genloop(*WORDS, f"out={whole}", timeout=900).returncode == 0
    assert weights(killed) == weights(whole)
