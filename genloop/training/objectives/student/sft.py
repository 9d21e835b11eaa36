"""A student learns from images: noise is predicted, or v, with min-SNR weights (Ho et al. 2020, Hang et al. 2023)."""

from collections.abc import Mapping

from torch import Tensor

from genloop.training.objectives.student.base import LatentRows, StudentObjective


class Imitation(StudentObjective):
    """The mean squared error of what the network says of noised latents; `mse` is the same without weights."""

    def row_losses(self, batch: LatentRows) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(B,), and `mse` (B,)."""
        schedule = self.model.schedule
        noised = schedule.noised(batch.latents, batch.noise, batch.timesteps)
        output = self.model.predict(noised, batch.timesteps, self.texts(batch), batch.time_ids)
        target = schedule.target(batch.latents, batch.noise, batch.timesteps)
        errors = (output - target).square().mean(dim=(1, 2, 3))
        return schedule.weights(batch.timesteps, self.keys.snr_gamma) * errors, {"mse": errors}
