"""Samplers: prompts -> images, step by step. One folder a kind of generator; `build` makes them from settings."""

GENERATORS = {
    "showo": "genloop.sampling.maskgit.maker:ShowoGenerator",
    "diffusion": "genloop.sampling.diffusion.maker:DiffusionGenerator",
}
