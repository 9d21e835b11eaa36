"""Pairs of answers to a question about an image, of which people prefer one: VL-RewardBench and sets like it."""
