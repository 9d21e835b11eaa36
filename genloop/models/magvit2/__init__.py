"""MAGVIT-v2 (Yu et al. 2024)."""
