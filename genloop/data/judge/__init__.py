"""Data to train judges on: examples, conversations, shards, datasheets."""
