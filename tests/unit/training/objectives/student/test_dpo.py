"""Diffusion-DPO: the arithmetic of its paper, and a self-test that fails for a student that is not its reference."""

from pathlib import Path

import pytest
import torch

from genloop.rundir import RunFailed
from tests.runs import ROOT
from tests.worlds.tiny_student import batch_of, build, disturb, plain_unet, write_inverted


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def rejected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inverted(tmp_path_factory.mktemp("rejected"))


@pytest.mark.parametrize("weights", ["lora", "full"])
def test_margins_are_those_of_the_paper(tmp_path: Path, rejected: Path, weights: str) -> None:
    """Wallace et al. 2023, equation 14 with beta T w = 2000: noise, timestep and text are the same for both sides."""
    objective = build("tiny_dpo", tmp_path, f"dpo.rejected={rejected}", "dpo.beta=2000", f"weights={weights}")
    disturb(objective, 0.05)
    rows, base = batch_of(objective), plain_unet()
    kept = objective.model.schedule.kept[rows.timesteps].view(-1, 1, 1, 1)

    def errors(unet: torch.nn.Module, latents: torch.Tensor) -> torch.Tensor:
        x = kept.sqrt() * latents + (1 - kept).sqrt() * rows.noise
        output = unet(x, rows.timesteps, encoder_hidden_states=rows.embeddings).sample
        return (output - rows.noise).square().mean(dim=(1, 2, 3))

    with torch.no_grad():
        (mw, rw), (ml, rl) = (
            [errors(unet, latents) for unet in (objective.model.unet, base)]
            for latents in (rows.latents, rows.rejected)
        )
        losses, parts = objective.row_losses(rows)
    inside = -0.5 * 2000 * ((mw - ml) - (rw - rl))
    assert not torch.equal(rows.latents, rows.rejected) and inside.abs().min() > 0
    torch.testing.assert_close(parts["margin"], inside, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(losses, -torch.nn.functional.logsigmoid(inside), rtol=1e-3, atol=1e-3)
    assert parts["accuracy"].tolist() == [float(value > 0) for value in inside]


def test_a_student_that_is_not_its_reference_does_not_start(tmp_path: Path, rejected: Path) -> None:
    objective = build("tiny_dpo", tmp_path, f"dpo.rejected={rejected}")
    assert objective.before_training(0)["self_test_margin"] == 0
    disturb(objective)
    with pytest.raises(RunFailed, match="margin"):
        objective.before_training(0)
