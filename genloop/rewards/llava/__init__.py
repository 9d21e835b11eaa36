"""LLaVA-OneVision as a judge."""
