"""A student learns from images: noise is predicted, or v, with min-SNR weights (Ho et al. 2020, Hang et al. 2023)."""

from collections.abc import Mapping

from torch import Tensor

from genloop.training.objectives.student.base import LatentRows, StudentObjective


class Imitation(StudentObjective):
    """The mean squared error of what the network says of noised latents; `mse` is the same without weights."""

    def row_losses(self, batch: LatentRows) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(B,), and `mse` (B,)."""
        errors = self.predicted(batch)[2]
        return self.model.schedule.weights(batch.timesteps, self.keys.snr_gamma) * errors, {"mse": errors}
