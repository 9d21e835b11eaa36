"""Two evaluations compared, image by image."""
