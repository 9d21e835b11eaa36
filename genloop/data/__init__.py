"""Prompt files, shards, corpora."""
