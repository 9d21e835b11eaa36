"""Strategies that spend a budget of candidates."""
