"""genloop: generate, judge, keep, learn, evaluate, go again: batch jobs for text-to-image generation."""

from genloop.torchvision_operators import declare_before_torchvision

__version__ = "0.1.0"

declare_before_torchvision()
