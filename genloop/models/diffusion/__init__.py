"""Latent diffusion models in folders of diffusers: Stable Diffusion 1.5, SDXL."""
