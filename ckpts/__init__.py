"""Weights: the registry and how a name becomes a folder."""
