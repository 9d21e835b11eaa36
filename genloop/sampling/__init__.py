"""Masked-token decoding: state, start, step, preview; schedules; guidance; noise."""
