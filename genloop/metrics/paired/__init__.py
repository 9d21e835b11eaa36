"""Metrics of pairs of images: a candidate beside the reference of the same prompt and sample."""
