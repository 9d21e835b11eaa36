"""Training of diffusion models on shards of captioned images: its config keys, its caches, its way to a checkpoint."""
