"""Learning from preference pairs: DPO (Rafailov et al. 2023) for masked-token models."""
