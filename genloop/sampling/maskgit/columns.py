"""What the step of each row goes by, brought to the device in one copy."""

from typing import NamedTuple

import torch
from torch import Tensor

from genloop.sampling.maskgit.schedule import choice_temperature, masked_after
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.sampling.maskgit.state import MaskGitState


class Columns(NamedTuple):
    """One value a row, (B, 1) each."""

    goes_on: Tensor  # bool: the schedule has further steps
    is_last: Tensor  # bool: the row's last step
    number: Tensor  # int64: of the step, over all rounds
    stay_masked: Tensor  # int64: the tokens that the schedule leaves masked; may be below 0
    noise: Tensor  # float32: the factor of the Gumbel noise on the choice of kept tokens


def columns_of(state: MaskGitState, settings: SamplingConfig, device: torch.device) -> Columns:
    """For the next step of every row."""
    mode, rows = settings.temperature_mode, []
    for row, (seed, step, horizon) in enumerate(zip(state.seeds, state.steps, state.horizons, strict=True)):
        is_quiet = mode == "reference" and not seed.candidate == seed.sample == 0
        rows.append(
            (
                step + 1 < horizon,
                step + 1 == state.lengths[row],
                state.before[row] + step,
                masked_after(settings.schedule, step, horizon, state.scheduled[row]),
                0.0 if is_quiet else choice_temperature(mode, settings.temperature, step, horizon),
            )
        )
    goes_on, is_last, number, stay_masked, noise = torch.tensor(rows, dtype=torch.float64).to(device).split(1, dim=1)
    return Columns(goes_on.bool(), is_last.bool(), number.long(), stay_masked.long(), noise.float())
