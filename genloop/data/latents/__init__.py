"""Images and captions of shards as a diffusion model learns from them: latents and text embeddings, computed once."""
