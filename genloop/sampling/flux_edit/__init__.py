"""Editing behind the Sampler protocol: one step draws a whole image, so that searches choose among images."""
