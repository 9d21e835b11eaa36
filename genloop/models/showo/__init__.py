"""Show-o (Xie et al. 2024)."""
