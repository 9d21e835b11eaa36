"""LLaVA-OneVision (Li et al. 2024)."""
