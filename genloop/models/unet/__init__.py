"""A UNet of residual blocks with depthwise convolutions, in diffusers' own frame."""
