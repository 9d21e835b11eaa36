"""Training with moments, gradients and weights sharded over the ranks: ZeRO (Rajbhandari et al. 2020).

Stages 1 and 2 run on DeepSpeed. Stage 3 runs on torch's FSDP2: with DeepSpeed's public functions alone, its modules
must be called in one order on all ranks, and a model does not become a plain module again.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genloop.training.sharded.learner import Sharded


def sharded_learner(zero_stage: int) -> type["Sharded[Any]"]:
    """The learner of stage 1, 2 or 3; imported here, as torch's sharded tensors take a second to import."""
    if zero_stage == 3:
        from genloop.training.sharded.by_fsdp import ShardedByFsdp

        return ShardedByFsdp
    from genloop.training.sharded.by_deepspeed import ShardedByDeepSpeed

    return ShardedByDeepSpeed
