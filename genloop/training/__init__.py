"""The train loop, losses, optimisers."""
