"""MaskGIT decoding (Chang et al. 2022)."""
