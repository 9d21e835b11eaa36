"""genloop: generate, judge, keep, learn, evaluate, go again: batch jobs for text-to-image generation."""

__version__ = "0.1.0"
