"""Denoising of latents (Rombach et al. 2022), step by step, behind the Sampler protocol."""
