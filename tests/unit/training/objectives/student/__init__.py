"""Tests of what a student learns from."""
