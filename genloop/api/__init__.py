"""Jobs as Python functions."""
