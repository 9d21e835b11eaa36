"""How good a judge is."""
