"""Preference pairs: two images of one prompt as codes, the better one first; in WebDataset shards."""
