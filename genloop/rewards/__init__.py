"""Judges: P(yes) for a question about an image."""
