"""genloop: generate, judge, keep, learn, evaluate, go again: batch jobs that close the loop of text-to-image generation."""

__version__ = "0.1.0"
