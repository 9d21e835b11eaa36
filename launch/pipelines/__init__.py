"""Pipelines: several jobs in order, each addressed by what it computes and from what."""
