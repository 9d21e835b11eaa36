"""Converters of published checkpoint files."""
